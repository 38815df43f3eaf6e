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
    let blanks: String = text[hole.start..end]
        .chars()
        .flat_map(|c| if matches!(c, '\n' | '\r') { vec![c] } else { vec![' '; c.len_utf8()] })
        .collect();
    text.replace_range(hole.start..end, &blanks);
}
