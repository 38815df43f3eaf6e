//! The filters that nearly every call has (`.data`, `.next_cursor`, `.status? == 601`, `$response.status == 404`) without jq.
//!
//! jq runs on a CPU thread, since a filter may never end. These forms always end, so they run at once, in place, and
//! give exactly what jq gives (a test compares them); every other filter goes to jq.

use crate::{
    item::Value,
    lang::{Facts, Filter},
};
use std::ops::ControlFlow;

/// A filter, with its short form where it has one.
#[derive(Clone)]
pub(super) struct Expr {
    filter: Filter,
    quick: Option<Quick>,
}

#[derive(Clone, Debug, PartialEq)]
struct Quick {
    response: bool,
    /// The names after the dots; `true` for one with `?`.
    path: Vec<(String, bool)>,
    compare: Option<(bool, Value)>,
}

/// Why a path gives no value.
enum Stray {
    /// `?` where there is nothing to look into: no output.
    None,
    /// The type of what has no fields.
    Of(&'static str),
}

impl Expr {
    pub(super) fn new(filter: Filter) -> Expr {
        let quick = read(filter.source());
        Expr { filter, quick }
    }

    /// It always ends: no need for a CPU thread.
    pub(super) fn is_quick(&self) -> bool {
        self.quick.is_some()
    }

    /// Whether the first output is neither null nor false.
    pub(super) fn holds(&self, input: &Value, facts: &Facts) -> Result<bool, String> {
        match &self.quick {
            None => self.filter.first_bool(input, facts).map_err(|error| error.to_string()),
            Some(quick) => {
                let first = quick.run(input, facts)?;
                Ok(!matches!(first, None | Some(Value::Null | Value::Bool(false))))
            }
        }
    }

    /// The first output.
    pub(super) fn first(&self, input: &Value, facts: &Facts) -> Result<Option<Value>, String> {
        match &self.quick {
            None => self.filter.first(input, facts).map_err(|error| error.to_string()),
            Some(quick) => quick.run(input, facts),
        }
    }

    /// All outputs, `most` at the most; `input` is used up.
    pub(super) fn all(&self, mut input: Value, facts: &Facts, most: usize) -> Result<Vec<Value>, String> {
        if let Some(Quick { response: false, path, compare: None }) = &self.quick {
            return match find(&input, path) {
                // Taken out of the answer, not copied: it may be nearly all of it.
                Ok(_) => Ok(vec![
                    path.iter().try_fold(&mut input, |at, (name, _)| at.get_mut(name)).map_or(Value::Null, Value::take),
                ]),
                Err(Stray::None) => Ok(Vec::new()),
                Err(Stray::Of(kind)) => Err(no_field(kind, self.filter.source())),
            };
        }
        let mut all = Vec::new();
        let ran = self.filter.run(&input, facts, &mut |value| {
            all.push(value);
            if all.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        ran.map(|()| all).map_err(|error| error.to_string())
    }
}

impl Quick {
    fn run(&self, input: &Value, facts: &Facts) -> Result<Option<Value>, String> {
        let from = if self.response { &facts.response } else { input };
        let found = match find(from, &self.path) {
            Ok(found) => found,
            Err(Stray::None) => return Ok(None),
            Err(Stray::Of(kind)) => return Err(no_field(kind, "the filter")),
        };
        Ok(Some(match &self.compare {
            None => found.clone(),
            Some((equal, value)) => Value::Bool(same(found, value) == *equal),
        }))
    }
}

fn no_field(kind: &str, source: &str) -> String {
    format!("jq: {source} looks for a field in {kind}; write ? behind the name where it may be absent")
}

fn find<'a>(from: &'a Value, path: &[(String, bool)]) -> Result<&'a Value, Stray> {
    let mut at = from;
    for (name, optional) in path {
        at = match at {
            Value::Object(fields) => fields.get(name).unwrap_or(&Value::Null),
            Value::Null => &Value::Null,
            _ if *optional => return Err(Stray::None),
            Value::Array(_) => return Err(Stray::Of("a list")),
            Value::String(_) => return Err(Stray::Of("a text")),
            Value::Number(_) => return Err(Stray::Of("a number")),
            Value::Bool(_) => return Err(Stray::Of("a truth value")),
        };
    }
    Ok(at)
}

fn same(found: &Value, literal: &Value) -> bool {
    match (found, literal) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (a, b) => a == b,
    }
}

fn read(source: &str) -> Option<Quick> {
    let source = source.trim();
    let (source, compare) = match source.split_once("==").map(|pair| (pair, true)) {
        None => match source.split_once("!=") {
            None => (source, None),
            Some((path, value)) => (path.trim(), Some((false, literal(value)?))),
        },
        Some(((path, value), equal)) => (path.trim(), Some((equal, literal(value)?))),
    };
    let (response, mut rest) = match source.strip_prefix("$response") {
        Some(rest) => (true, rest),
        None => (false, source),
    };
    let mut path = Vec::new();
    if !response && rest == "." {
        rest = "";
    }
    while !rest.is_empty() {
        rest = rest.strip_prefix('.')?;
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
        let optional = after.starts_with('?');
        rest = if optional { &after[1..] } else { after };
        path.push((name.to_owned(), optional));
    }
    if path.is_empty() && !response && source != "." {
        return None;
    }
    Some(Quick { response, path, compare })
}

/// A number of up to 15 digits (exact in any representation), a text without escapes, `true`, `false`, `null`.
fn literal(text: &str) -> Option<Value> {
    let text = text.trim();
    let plain = match text.strip_prefix('"') {
        Some(inner) => !inner.strip_suffix('"')?.contains(['"', '\\']) && !text.chars().any(char::is_control),
        None => {
            matches!(text, "true" | "false" | "null")
                || (text.len() <= 15 && !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
        }
    };
    plain.then(|| serde_json::from_str(text).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{item::Key, lang::RunFacts};
    use serde_json::json;
    use std::{collections::BTreeMap, sync::Arc};

    const SHORT: [&str; 16] = [
        ".",
        ".data",
        ".a.b",
        ".a?.b",
        ".a.b?",
        " .next_cursor ",
        ".status? == 601",
        ".status == 601",
        ".status!=601",
        ".error? != null",
        "$response.status == 404",
        "$response.headers.etag",
        ".ok == true",
        ".s == \"x y\"",
        "$response",
        ". == null",
    ];

    #[test]
    fn the_short_way_gives_what_jq_gives() {
        let run = Arc::new(RunFacts { params: Value::Null, run: Value::Null, secrets: BTreeMap::new() });
        let mut facts = Facts::new(Arc::new(Value::Null), Key::parse("k").expect("a key"), run);
        facts.response = Arc::new(json!({ "status": 404, "headers": { "etag": "\"x\"" } }));
        let inputs = [
            json!(null),
            json!([]),
            json!("text"),
            json!(3),
            json!(true),
            json!({}),
            json!({ "data": [1, 2] }),
            json!({ "a": { "b": 1 } }),
            json!({ "a": [] }),
            json!({ "a": null, "status": 601 }),
            json!({ "status": 601.0 }),
            json!({ "status": "601", "error": false, "ok": true, "s": "x y", "next_cursor": "" }),
        ];
        for source in SHORT {
            let filter = Filter::compile(source, None).expect(source);
            let expr = Expr::new(filter.clone());
            for input in &inputs {
                let case = format!("{source} on {input}");
                let jq = filter.first(input, &facts);
                assert_eq!(expr.first(input, &facts).ok(), jq.clone().ok(), "{case}");
                assert_eq!(expr.holds(input, &facts).ok(), filter.first_bool(input, &facts).ok(), "{case}");
                assert_eq!(expr.all(input.clone(), &facts, 9).ok(), jq.ok().map(|v| v.into_iter().collect()), "{case}");
            }
        }
    }

    #[test]
    fn everything_else_goes_to_jq() {
        for source in SHORT {
            assert!(read(source).is_some(), "{source}");
        }
        for source in [
            ".data[]",
            ".[0]",
            "",
            "..",
            ".a | .b",
            ".a == .b",
            ".a == 1 == true",
            ".a == -1",
            ".status? == 0601",
            "$item.a",
            ".\"a b\"",
            ".a ?",
            "repeat(1)",
            ".a == \"\\n\"",
            ".a == 1.5",
            "true",
            ".a,.b",
            ".a == 1 and .b != 2",
            ".1a",
            "$response[0]",
            "$responses.a",
        ] {
            assert!(read(source).is_none(), "{source}");
        }
    }
}
