//! What an answer means: its body decoded, the `_if` fields, the status, and the elements of a page, in that order.
//!
//! Pure but for jq, which runs on a CPU thread where a filter has no short form or the body is large. Nothing of a body
//! goes into a message of ours.

use super::quick::Expr;
use crate::{
    item::{Value, parse_json},
    lang::Facts,
    limits::PAGE_ELEMENTS_MAX,
    service::{Answer, Body},
};

/// What is asked of each answer.
#[derive(Clone, Default)]
pub(super) struct Judge {
    pub(super) empty_if: Option<Expr>,
    pub(super) fail_if: Option<Expr>,
    pub(super) retry_if: Option<Expr>,
    pub(super) items: Option<Expr>,
    pub(super) next: Option<Expr>,
    /// The answer to HEAD, DELETE, POST, … may be empty where its type says JSON.
    pub(super) empty_is_null: bool,
}

/// What an answer means.
pub(super) enum Verdict {
    /// `empty_if` holds.
    Empty,
    /// `fail_if` holds.
    FailIf,
    /// `retry_if` holds.
    RetryIf,
    /// The status is no success.
    Status,
    /// The body is not what its head says, with the reason.
    Undecodable(String),
    /// A page gives more elements than any page may.
    TooMany,
    /// A filter failed, in its words.
    Filter(String),
    /// Good: its elements (without `pages` the body alone), and what names the next page.
    Good {
        /// What is given.
        values: Vec<Value>,
        /// Null without `pages`.
        next: Value,
    },
}

impl Judge {
    /// Every filter has a short form.
    pub(super) fn is_quick(&self) -> bool {
        let all = [&self.empty_if, &self.fail_if, &self.retry_if, &self.items, &self.next];
        all.into_iter().flatten().all(Expr::is_quick)
    }

    /// Judges an answer; `facts.response` is its head already.
    pub(super) fn judge(&self, answer: &mut Answer, facts: &Facts) -> Verdict {
        self.try_judge(answer, facts).unwrap_or_else(Verdict::Filter)
    }

    fn try_judge(&self, answer: &mut Answer, facts: &Facts) -> Result<Verdict, String> {
        let decoded = decode(answer, self.empty_is_null);
        let seen = decoded.as_ref().unwrap_or(&Value::Null);
        let holds = |expr: &Option<Expr>| expr.as_ref().map_or(Ok(false), |expr| expr.holds(seen, facts));
        if holds(&self.empty_if)? {
            return Ok(Verdict::Empty);
        }
        if holds(&self.fail_if)? {
            return Ok(Verdict::FailIf);
        }
        if holds(&self.retry_if)? {
            return Ok(Verdict::RetryIf);
        }
        if !(200..300).contains(&answer.status) {
            return Ok(Verdict::Status);
        }
        let value = match decoded {
            Ok(value) => value,
            Err(why) => return Ok(Verdict::Undecodable(why)),
        };
        let next = self.next.as_ref().map_or(Ok(None), |next| next.first(&value, facts))?.unwrap_or(Value::Null);
        let values = match &self.items {
            None => vec![value],
            Some(items) => {
                let mut values = Vec::new();
                for given in items.all(value, facts, PAGE_ELEMENTS_MAX + 1)? {
                    match given {
                        Value::Array(elements) if values.is_empty() => values = elements,
                        Value::Array(elements) => values.extend(elements),
                        other => values.push(other),
                    }
                }
                values
            }
        };
        if values.len() > PAGE_ELEMENTS_MAX {
            return Ok(Verdict::TooMany);
        }
        Ok(Verdict::Good { values, next })
    }
}

/// The body as a value: JSON where the type says so, else text. What was streamed away is null.
fn decode(answer: &mut Answer, empty_is_null: bool) -> Result<Value, String> {
    let bytes = match &mut answer.body {
        Body::Streamed(_) | Body::TooLarge => return Ok(Value::Null),
        Body::Undecodable(why) => return Err(std::mem::take(why)),
        Body::Whole(bytes) => std::mem::take(bytes),
    };
    let kind = answer.header("content-type").unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let json = essence.ends_with("/json") || essence.ends_with("+json");
    if bytes.is_empty() && (empty_is_null || matches!(answer.status, 204 | 205)) {
        return Ok(Value::Null);
    }
    if json {
        let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
        return parse_json(text).map_err(|error| {
            // Only the kind and the place: serde's own words may quote the body.
            let what = if error.is_eof() { "ends early" } else { "is broken" };
            format!("its JSON {what} at line {}, column {}", error.line(), error.column())
        });
    }
    if kind.to_ascii_lowercase().contains("charset=iso-8859-1") {
        return Ok(Value::String(bytes.into_iter().map(char::from).collect()));
    }
    String::from_utf8(bytes).map(Value::String).map_err(|_| "it is no UTF-8 text: save it by `to`".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::HeaderMap;
    use serde_json::json;

    fn decoded(kind: &str, status: u16, body: &[u8]) -> Result<Value, String> {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", kind.parse().expect("a value"));
        let body = Body::Whole(body.to_vec());
        let mut answer = Answer { status, headers, body, sha256: String::new(), redirect: None };
        decode(&mut answer, false)
    }

    #[test]
    fn a_body_is_json_where_the_type_says_so_else_text() {
        assert_eq!(decoded("application/json; charset=utf-8", 200, b"\xef\xbb\xbf{\"a\":1}"), Ok(json!({ "a": 1 })));
        assert_eq!(decoded("application/fhir+json", 200, b"[]"), Ok(json!([])));
        assert_eq!(decoded("text/html", 200, b"[]"), Ok(json!("[]")));
        assert_eq!(decoded("text/plain; charset=ISO-8859-1", 200, b"\xe4"), Ok(json!("\u{e4}")));
        assert_eq!(decoded("application/json", 204, b""), Ok(json!(null)));
        assert!(decoded("application/json", 200, b"").is_err());
        assert!(decoded("text/plain", 200, b"\xff").is_err());
    }

    #[test]
    fn a_broken_body_is_not_quoted() {
        let error = decoded("application/json", 200, b"{\"secret\": canary}").expect_err("broken");
        assert!(!error.contains("canary"), "{error}");
        assert!(decoded("application/json", 200, "[".repeat(100_000).as_bytes()).is_err(), "deep nesting is no crash");
    }
}
