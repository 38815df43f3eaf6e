//! How the stages of a job hang together: who reads whom, and whether that can be.

use super::spec::StageSpec;
use crate::problem::closest;
use std::collections::BTreeMap;

/// Who reads whom, by place.
pub struct Relations {
    pub from: Vec<Vec<u16>>,
    pub readers: Vec<Vec<u16>>,
}

/// A problem of the relations: path, message, help.
pub type Wrong = (String, String, Option<String>);

/// Resolves `from` of every stage. Problems: names given twice, stages that do not exist, several inputs without a gather,
/// a gather without inputs, a cycle.
pub fn resolve(stages: &[StageSpec], wrong: &mut Vec<Wrong>) -> Relations {
    let mut places: BTreeMap<&str, u16> = BTreeMap::new();
    for (place, stage) in stages.iter().enumerate() {
        if let Some(first) = places.get(stage.name.as_str()) {
            let message = format!("two stages are called `{}`", stage.name);
            wrong.push((
                format!("stages[{place}].name"),
                message,
                Some(format!("the other is stages[{first}]: give each its own name")),
            ));
        } else {
            places.insert(&stage.name, place as u16);
        }
    }
    let mut from: Vec<Vec<u16>> = Vec::with_capacity(stages.len());
    for (place, stage) in stages.iter().enumerate() {
        from.push(inputs(place, stage, stages, &places, wrong));
    }
    let mut readers = vec![Vec::new(); stages.len()];
    for (place, inputs) in from.iter().enumerate() {
        for input in inputs {
            readers[usize::from(*input)].push(place as u16);
        }
    }
    find_cycle(stages, &from, wrong);
    Relations { from, readers }
}

fn inputs(
    place: usize,
    stage: &StageSpec,
    stages: &[StageSpec],
    places: &BTreeMap<&str, u16>,
    wrong: &mut Vec<Wrong>,
) -> Vec<u16> {
    let path = format!("stages[{place}]");
    let Some(names) = &stage.from else {
        if place == 0 && stage.gather.is_some() {
            let message = format!("`{}` gathers, and no stage stands before it", stage.name);
            wrong.push((path, message, Some("the first stage lists items: put one before it, such as `Stage(name: \"list\", run: [Items(list: [..])])`".into())));
        }
        return place.checked_sub(1).map(|before| before as u16).into_iter().collect();
    };
    if names.is_empty() && stage.gather.is_some() {
        let help = "name the stages that it gathers: `from: [\"vitals\"]`";
        wrong.push((format!("{path}.from"), "a gather needs stages to gather from".into(), Some(help.into())));
    }
    if names.len() > 1 && stage.gather.is_none() {
        let help = "add `gather: All` or `gather: By(\"{{ item.patient }}\")`, or read one stage";
        let message = format!("`{}` reads several stages, which only a gather can", stage.name);
        wrong.push((format!("{path}.from"), message, Some(help.into())));
    }
    let mut inputs = Vec::new();
    for (at, name) in names.iter().enumerate() {
        let path = format!("{path}.from[{at}]");
        match places.get(name.as_str()) {
            None => {
                let known = stages.iter().map(|stage| stage.name.as_str()).filter(|known| *known != stage.name);
                let help = closest(name, known.clone()).map_or_else(
                    || format!("there are {}", known.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")),
                    |near| format!("did you mean `{near}`?"),
                );
                wrong.push((path, format!("there is no stage `{name}`"), Some(help)));
            }
            Some(input) if usize::from(*input) == place => {
                wrong.push((path, format!("stage `{name}` reads itself"), Some("name the stage before it".into())));
            }
            Some(input) if inputs.contains(input) => {
                wrong.push((path, format!("`{name}` is named twice"), Some("name it once".into())));
            }
            Some(input) => inputs.push(*input),
        }
    }
    inputs
}

/// Follows the inputs from every stage; a stage met again on its own way is a cycle.
fn find_cycle(stages: &[StageSpec], from: &[Vec<u16>], wrong: &mut Vec<Wrong>) {
    // 0 = not seen, 1 = on the way, 2 = done.
    let mut seen = vec![0u8; stages.len()];
    for start in 0..stages.len() {
        let mut way: Vec<(usize, usize)> = Vec::new();
        if seen[start] == 0 {
            seen[start] = 1;
            way.push((start, 0));
        }
        while let Some((at, next)) = way.last_mut() {
            let Some(input) = from[*at].get(*next).map(|input| usize::from(*input)) else {
                seen[*at] = 2;
                way.pop();
                continue;
            };
            *next += 1;
            match seen[input] {
                0 => {
                    seen[input] = 1;
                    way.push((input, 0));
                }
                1 => {
                    let begin = way.iter().position(|(at, _)| *at == input).unwrap_or(0);
                    let mut names: Vec<&str> = way[begin..].iter().map(|(at, _)| stages[*at].name.as_str()).collect();
                    names.reverse();
                    names.push(names[0]);
                    let message = format!("the stages wait for each other: {}", names.join(" -> "));
                    let help = "a stage can only read stages that do not read it".to_owned();
                    wrong.push((format!("stages[{input}].from"), message, Some(help)));
                    return;
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::{Source, load};

    fn problems(stages: &str) -> Vec<String> {
        let text = format!("Job(stages: [{stages}])");
        let spec: super::super::JobSpec = load(&Source::new("t", text)).expect("reads");
        let mut wrong = Vec::new();
        resolve(&spec.stages.expect("stages"), &mut wrong);
        wrong.into_iter().map(|(path, message, _)| format!("{path}: {message}")).collect()
    }

    #[test]
    fn stages_that_cannot_hang_together_are_named() {
        let run = "run: [Log(message: \"x\")]";
        let cases = [
            (format!("Stage(name: \"a\", {run}), Stage(name: \"b\", {run})"), vec![]),
            (
                format!("Stage(name: \"a\", {run}), Stage(name: \"a\", {run})"),
                vec!["stages[1].name: two stages are called `a`"],
            ),
            (
                format!("Stage(name: \"a\", {run}), Stage(name: \"b\", from: [\"c\"], {run})"),
                vec!["stages[1].from[0]: there is no stage `c`"],
            ),
            (
                format!(
                    "Stage(name: \"s\", {run}), Stage(name: \"a\", from: [\"b\"], {run}), Stage(name: \"b\", from: [\"a\"], {run})"
                ),
                vec!["stages[1].from: the stages wait for each other: b -> a -> b"],
            ),
            (
                format!("Stage(name: \"a\", gather: All, {run})"),
                vec!["stages[0]: `a` gathers, and no stage stands before it"],
            ),
            (
                format!(
                    "Stage(name: \"a\", {run}), Stage(name: \"b\", from: [], {run}), Stage(name: \"c\", from: [\"a\", \"b\"], {run})"
                ),
                vec!["stages[2].from: `c` reads several stages, which only a gather can"],
            ),
        ];
        for (stages, expected) in cases {
            assert_eq!(problems(&stages), expected, "{stages}");
        }
    }
}
