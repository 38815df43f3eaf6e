//! What is left of a file without the fields that cannot be read: so that a check of meaning can go on and say the rest at
//! once. Called when a file was refused. Bytes keep their places: what is taken out becomes blanks.

use super::parse::{Entry, Kind, Node, parse};
use super::schema::Described;
use super::text::decode;
use super::{Problem, Source, load};
use serde::de::DeserializeOwned;
use std::ops::Range;

/// Rounds of taking out: what was taken out may make its surroundings wrong.
const ROUNDS_MAX: usize = 4;

/// A file without the fields that could not be read.
pub struct Spared<T> {
    /// What the rest says.
    pub value: T,
    /// The rest, every byte in its place.
    pub source: Source,
    /// What was taken out, as paths: `stages[1].workers`.
    pub removed: Vec<String>,
}

/// Takes the fields out that `problems` are about. `None` where more than single fields is wrong: the writing itself, a
/// whole stage or action, or something that must be there.
pub fn without_wrong_fields<T: Described + DeserializeOwned>(
    source: &Source,
    problems: &[Problem],
) -> Option<Spared<T>> {
    let mut spared = source.clone();
    let mut removed = Vec::new();
    let mut spans: Vec<Range<usize>> = problems.iter().map(|problem| problem.span.clone()).collect();
    for _ in 0..ROUNDS_MAX {
        let tree = parse(&spared.text, "");
        if tree.stop.is_some() || tree.faults.iter().any(|fault| !fault.ours) {
            return None;
        }
        let root = tree.root?;
        let mut holes = Vec::new();
        for span in &spans {
            let (path, hole) = field_around(&spared.text, &root, span)?;
            removed.push(path);
            holes.push(hole);
        }
        for hole in holes {
            blank(&mut spared.text, hole);
        }
        match load::<T>(&spared) {
            Ok(value) => {
                removed.sort_unstable();
                removed.dedup();
                return Some(Spared { value, source: spared, removed });
            }
            Err(problems) => spans = problems.into_iter().map(|problem| problem.span).collect(),
        }
    }
    None
}

/// The innermost field, entry of a map or plain element of a list around a place: its path and all of its bytes.
fn field_around(text: &str, root: &Node, place: &Range<usize>) -> Option<(String, Range<usize>)> {
    let holds = |span: &Range<usize>| span.start <= place.start && place.end <= span.end;
    let (mut node, mut path) = (root, String::new());
    let mut found = None;
    loop {
        let inner = match &node.kind {
            Kind::Group(group) if group.only().is_some() => group.only().map(|only| (only, path.clone(), None)),
            Kind::Group(group) => keyed(text, &group.entries, &holds, &path),
            Kind::Map(entries) => keyed(text, entries, &holds, &path),
            Kind::List(nodes) => nodes.iter().enumerate().find(|(_, node)| holds(&node.span)).map(|(at, node)| {
                let whole = matches!(node.kind, Kind::Group(_));
                (node, format!("{path}[{at}]"), if whole { Some(None) } else { Some(Some(node.span.clone())) })
            }),
            _ => None,
        };
        let Some((next, next_path, hole)) = inner.filter(|(next, _, hole)| holds(&next.span) || hole.is_some()) else {
            break;
        };
        if let Some(hole) = hole {
            found = hole.map(|hole| (next_path.clone(), hole));
        }
        if !holds(&next.span) {
            break;
        }
        (node, path) = (next, next_path);
    }
    found
}

type Inner<'t> = (&'t Node, String, Option<Option<Range<usize>>>);

fn keyed<'t>(
    text: &str,
    entries: &'t [Entry],
    holds: &impl Fn(&Range<usize>) -> bool,
    path: &str,
) -> Option<Inner<'t>> {
    entries.iter().find_map(|entry| {
        let key = entry.key.as_ref()?;
        let whole = key.span.start..entry.value.span.end;
        let name = decode(&text[key.span.clone()]).into_owned();
        let path = if path.is_empty() { name } else { format!("{path}.{name}") };
        holds(&whole).then_some((&entry.value, path, Some(Some(whole))))
    })
}

/// Turns bytes and the comma behind them into blanks; lines stay lines.
fn blank(text: &mut String, hole: Range<usize>) {
    let rest = &text[hole.end..];
    let comma = rest.trim_start().starts_with(',');
    let end = if comma { hole.end + rest.len() - rest.trim_start().len() + 1 } else { hole.end };
    let mut blanks = String::with_capacity(end - hole.start);
    for c in text[hole.start..end].chars() {
        match c {
            '\n' | '\r' => blanks.push(c),
            c => blanks.extend(std::iter::repeat_n(' ', c.len_utf8())),
        }
    }
    text.replace_range(hole.start..end, &blanks);
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::spec! {
        /// A file.
        pub struct ProbeSpec as "Probe" {
            /// How many.
            count: Option<u32>, example "1";
            /// Its parts.
            parts: Option<Vec<PartSpec>>, example "[Part(name: \"a\")]";
        }
    }

    crate::spec! {
        /// A part.
        pub struct PartSpec as "Part" {
            /// Its name.
            name: String, example "\"a\"";
            /// How large.
            size: Option<u32>, example "1";
        }
    }

    /// What was removed, and the counts and names that are left.
    fn spared(text: &str) -> Option<(Vec<String>, Option<u32>, Vec<String>)> {
        let source = Source::new("x", text);
        let problems = load::<ProbeSpec>(&source).expect_err("it is wrong");
        let spared = without_wrong_fields::<ProbeSpec>(&source, &problems)?;
        assert_eq!(spared.source.text.len(), text.len());
        assert_eq!(spared.source.text.matches('\n').count(), text.matches('\n').count());
        let parts = spared.value.parts.unwrap_or_default();
        assert!(parts.iter().all(|part| part.size.is_none_or(|size| size > 0)));
        Some((spared.removed, spared.value.count, parts.into_iter().map(|part| part.name).collect()))
    }

    #[test]
    fn fields_that_cannot_be_read_are_taken_out_and_bytes_keep_their_places() {
        let text = "Probe(\n  colour: \"gr\u{fc}n\",\n  count: \"4\" ,\n  parts: [Part(name: \"a\", size: 1.5), Part(name: \"b\")],\n)";
        let removed = vec!["colour".to_owned(), "count".to_owned(), "parts[0].size".to_owned()];
        assert_eq!(spared(text), Some((removed, None, vec!["a".to_owned(), "b".to_owned()])));
    }

    #[test]
    fn where_more_than_a_field_is_wrong_nothing_is_guessed() {
        for text in [
            "Probe(count: 4 parts: [])",
            "Probe(parts: [Part(size: 1)])",
            "Probe(parts: [Bart(name: \"a\", x: 1)])",
            "Probe(count: 4",
            "Grobe(count: 4)",
            "",
        ] {
            assert_eq!(spared(text), None, "{text}");
        }
    }
}
