//! Where a path stands in a file: for problems that are found after the file was read.
//!
//! A path is written as in problems: `stages[1].run[0].filter`, `params.ids`, `headers["X-Id"]`. The names of kinds are
//! no part of it. Each call reads the file again, in time proportional to it: only problems need it.

use std::ops::Range;

use super::Source;
use super::parse::{Entry, Kind, Node, parse};
use super::text::{decode, offset_in_token};

/// Where the value at a path stands; of a group its name, of a list or map of several lines its bracket. For a field that
/// is not there it is the name of the group that should hold it; for the empty path the name of the whole.
pub fn locate(source: &Source, path: &str) -> Range<usize> {
    with_place(source, path, |place| shown(source, place.node))
}

/// Where the name of the field at a path stands: `workers` of `workers: 0`. For an element of a list it is the value.
pub fn locate_key(source: &Source, path: &str) -> Range<usize> {
    with_place(source, path, |place| place.key.map_or_else(|| shown(source, place.node), |key| key.span.clone()))
}

/// Where a part of the text at a path stands, `part` in bytes of the text as it is after its escapes: the place of a mistake
/// inside a filter or template. Exact in every kind of text; for a value that is no text it is the whole value.
pub fn locate_in_text(source: &Source, path: &str, part: Range<usize>) -> Range<usize> {
    with_place(source, path, |mut place| {
        // A kind with one value is no step of a path: `Cron("..")` stands for its text.
        while let Kind::Group(group) = &place.node.kind
            && let Some(only) = group.only()
        {
            place.node = only;
        }
        let span = place.node.span.clone();
        if !place.found || !matches!(place.node.kind, Kind::Text) {
            return shown(source, place.node);
        }
        let token = &source.text[span.clone()];
        let start = offset_in_token(token, part.start);
        let end = if part.end > part.start { offset_in_token(token, part.end) } else { start };
        span.start + start..span.start + end.max(start)
    })
}

/// What a path leads to.
struct Found<'t> {
    key: Option<&'t Node>,
    node: &'t Node,
    /// False where a part of the path is not there: the node is the last that is.
    found: bool,
}

fn with_place(source: &Source, path: &str, use_it: impl FnOnce(Found) -> Range<usize>) -> Range<usize> {
    let tree = parse(&source.text, "");
    let Some(root) = &tree.root else { return 0..0 };
    let mut at = Found { key: None, node: root, found: true };
    let mut rest = path;
    while !rest.is_empty() {
        let Some((step, after)) = next_step(rest) else { break };
        rest = after;
        match follow(source, at.node, &step) {
            Some((key, node)) => at = Found { key, node, found: true },
            None => return use_it(Found { key: None, node: at.node, found: false }),
        }
    }
    use_it(at)
}

enum Step {
    Name(String),
    Index(usize),
}

/// The first step of a path and what follows it.
fn next_step(path: &str) -> Option<(Step, &str)> {
    if let Some(inner) = path.strip_prefix("[\"") {
        let end = inner.find("\"]")?;
        return Some((Step::Name(decode(&path[1..end + 3]).into_owned()), &inner[end + 2..]));
    }
    if let Some(inner) = path.strip_prefix('[') {
        let end = inner.find(']')?;
        return Some((Step::Index(inner[..end].parse().ok()?), &inner[end + 1..]));
    }
    let path = path.strip_prefix('.').unwrap_or(path);
    let end = path.find(['.', '[']).unwrap_or(path.len());
    Some((Step::Name(path[..end].to_owned()), &path[end..]))
}

fn follow<'t>(source: &Source, node: &'t Node, step: &Step) -> Option<(Option<&'t Node>, &'t Node)> {
    let named = |entries: &'t [Entry], name: &str| {
        let is = |key: &Node| decode(&source.text[key.span.clone()]) == name;
        entries.iter().find(|e| e.key.as_ref().is_some_and(is)).map(|e| (e.key.as_ref(), &e.value))
    };
    let found = match (&node.kind, step) {
        (Kind::Group(group), Step::Name(name)) => named(&group.entries, name),
        (Kind::Map(entries), Step::Name(name)) => named(entries, name),
        (Kind::List(nodes), Step::Index(index)) => nodes.get(*index).map(|node| (None, node)),
        (Kind::Group(group), Step::Index(index)) if group.entries.len() > 1 => {
            group.entries.get(*index).map(|entry| (None, &entry.value))
        }
        _ => None,
    };
    // `Some(..)` and kinds with one value are no step of a path.
    found.or_else(|| match &node.kind {
        Kind::Group(group) => follow(source, group.only()?, step),
        _ => None,
    })
}

fn shown(source: &Source, node: &Node) -> Range<usize> {
    match &node.kind {
        Kind::Group(group) => group.head(),
        Kind::List(_) | Kind::Map(_) if source.text[node.span.clone()].contains('\n') => {
            node.span.start..node.span.start + 1
        }
        _ => node.span.clone(),
    }
}
