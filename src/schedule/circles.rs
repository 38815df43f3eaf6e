//! Jobs that wait for each other: each is due after an end of the next, and so round.

use std::collections::{BTreeMap, BTreeSet};

/// Every set of two or more jobs of which each waits, through the others, for itself. `before` has for a job those whose
/// ends it waits for; names that stand for no job wait for nobody.
pub fn circles<'j>(before: &BTreeMap<&'j str, Vec<&'j str>>) -> Vec<BTreeSet<&'j str>> {
    // After Kosaraju, without recursion: a chain may be as long as the folder.
    let mut ended = Vec::new();
    let mut seen = BTreeSet::new();
    for job in before.keys() {
        walk(job, before, &mut seen, &mut ended);
    }
    let mut behind: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (job, waits_for) in before {
        for other in waits_for {
            behind.entry(other).or_default().push(job);
        }
    }
    seen.clear();
    let mut circles = Vec::new();
    for job in ended.into_iter().rev() {
        let mut circle = Vec::new();
        walk(job, &behind, &mut seen, &mut circle);
        if circle.len() > 1 {
            circles.push(circle.into_iter().collect());
        }
    }
    circles
}

/// What is reached from a job and was not before, each behind all that it leads to.
fn walk<'j>(
    from: &'j str,
    edges: &BTreeMap<&'j str, Vec<&'j str>>,
    seen: &mut BTreeSet<&'j str>,
    ended: &mut Vec<&'j str>,
) {
    let next = |job: &str| edges.get(job).map_or([].iter(), |to| to.iter());
    if !seen.insert(from) {
        return;
    }
    let mut path = vec![(from, next(from))];
    while let Some((job, rest)) = path.last_mut() {
        match rest.next() {
            Some(to) if seen.insert(to) => path.push((to, next(to))),
            Some(_) => {}
            None => {
                ended.push(job);
                path.pop();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(edges: &[(&'static str, &'static str)]) -> Vec<Vec<&'static str>> {
        let mut before: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        edges.iter().for_each(|(job, other)| before.entry(job).or_default().push(other));
        let mut found: Vec<Vec<&str>> =
            circles(&before).into_iter().map(|circle| circle.into_iter().collect()).collect();
        found.sort();
        found
    }

    #[test]
    fn who_waits_for_himself_through_others_is_in_a_circle() {
        assert_eq!(found(&[("a", "b"), ("b", "a")]), [["a", "b"]]);
        assert_eq!(found(&[("a", "b"), ("b", "c"), ("c", "a"), ("d", "a"), ("c", "e")]), [["a", "b", "c"]]);
        let two = [("a", "b"), ("b", "a"), ("bridge", "a"), ("c", "bridge"), ("c", "d"), ("d", "c")];
        assert_eq!(found(&two), [["a", "b"], ["c", "d"]]);
        assert!(found(&[("b", "a"), ("c", "a"), ("d", "b"), ("d", "c"), ("d", "gone")]).is_empty());
    }

    #[test]
    fn a_chain_may_be_long() {
        let names: Vec<String> = (0..100_000).map(|number| number.to_string()).collect();
        let mut before: BTreeMap<&str, Vec<&str>> = names.windows(2).map(|pair| (&*pair[0], vec![&*pair[1]])).collect();
        assert!(circles(&before).is_empty());
        before.insert("99999", vec!["0"]);
        assert_eq!(circles(&before).iter().map(BTreeSet::len).collect::<Vec<_>>(), [100_000]);
    }
}
