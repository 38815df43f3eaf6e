//! What came back: head, body, and the wait that a server states.
//!
//! Made by [`super::exchange`], judged by actions. Nothing of a body or a header ever goes into a message.

use crate::limits::DURATION_MAX;
use hyper::{HeaderMap, header};
use jiff::{Timestamp, fmt::rfc2822::DateTimeParser};
use serde_json::{Value, json};
use std::time::Duration;

/// The answer to one request, its body read to the end.
#[derive(Debug)]
pub struct Answer {
    /// The status, 100 to 999.
    pub status: u16,
    /// As they came, names in lower case.
    pub headers: HeaderMap,
    /// What became of the body.
    pub body: Body,
    /// SHA-256 of the body after gunzip, as hex; of a download as it came. Empty where the request did not ask for it.
    pub sha256: String,
    /// Why a redirect was not followed, as a sentence.
    pub redirect: Option<String>,
}

/// What became of a body.
#[derive(Debug, PartialEq, Eq)]
pub enum Body {
    /// The whole of it, after gunzip.
    Whole(Vec<u8>),
    /// Streamed to the caller's sink: so many bytes.
    Streamed(u64),
    /// It does not unpack as its head says, with the reason.
    Undecodable(String),
    /// Too large to read, of an answer that is no success.
    TooLarge,
}

impl Answer {
    /// What templates and filters see as `response`: status, headers (several of one name joined by `, `), sha256.
    pub fn head(&self) -> Value {
        let mut headers = serde_json::Map::new();
        for name in self.headers.keys() {
            let values: Vec<_> =
                self.headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
            headers.insert(name.as_str().to_owned(), Value::String(values.join(", ")));
        }
        json!({ "status": self.status, "headers": headers, "sha256": self.sha256 })
    }

    /// The value of a header that is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// How long the server asks to wait: `Retry-After` (seconds or a date) or `RateLimit-Reset`. Dates are read against
    /// the answer's own `Date`, so a wrong clock on either side does not matter; without one against `now`. `None` where
    /// nothing, or no time at all, is asked for.
    pub fn stated_wait(&self, now: Timestamp) -> Option<Duration> {
        let now = self.header(header::DATE.as_str()).and_then(http_date).unwrap_or(now);
        let until = |at: Timestamp| Duration::try_from(at.duration_since(now)).ok();
        let retry_after = self.header("retry-after").map(str::trim).and_then(|text| match text.parse::<u64>() {
            Ok(seconds) => Some(Duration::from_secs(seconds)),
            // An absurd number is a number: the wait is cut to the service's `retry_after_max` like any other.
            Err(_) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => Some(DURATION_MAX),
            Err(_) => http_date(text).and_then(until),
        });
        let reset = || {
            let text = ["ratelimit-reset", "x-ratelimit-reset"].iter().find_map(|name| self.header(name))?;
            let number: f64 = text.trim().parse().ok().filter(|n: &f64| n.is_finite() && *n >= 0.0)?;
            // Some send seconds from now, some seconds or milliseconds since 1970: the size tells them apart.
            match number {
                n if n < 1e9 => Some(Duration::from_secs_f64(n)),
                n if n < 1e11 => until(Timestamp::from_second(n as i64).ok()?),
                n => until(Timestamp::from_millisecond(n as i64).ok()?),
            }
        };
        retry_after.or_else(reset).filter(|wait| !wait.is_zero())
    }
}

/// Reads the date of an HTTP header.
fn http_date(text: &str) -> Option<Timestamp> {
    DateTimeParser::new().relaxed_weekday(true).parse_timestamp(text.trim()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(headers: &[(&'static str, &'static str)]) -> Option<u64> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().expect("a value"));
        }
        let answer = Answer { status: 429, headers: map, body: Body::TooLarge, sha256: String::new(), redirect: None };
        let now: Timestamp = "2026-11-22T02:30:00Z".parse().expect("a time");
        answer.stated_wait(now).map(|wait| wait.as_secs())
    }

    #[test]
    fn a_stated_wait_is_read_in_every_form_it_comes_in() {
        let date = ("date", "Sun, 22 Nov 2026 10:00:00 GMT");
        assert_eq!(wait(&[("retry-after", "3")]), Some(3));
        assert_eq!(
            wait(&[("retry-after", "Sun, 22 Nov 2026 10:00:07 GMT"), date]),
            Some(7),
            "by the answer's own clock"
        );
        assert_eq!(wait(&[("retry-after", "Sun, 22 Nov 2026 02:30:09 GMT")]), Some(9), "else by ours");
        assert_eq!(wait(&[("ratelimit-reset", "2")]), Some(2));
        assert_eq!(wait(&[("x-ratelimit-reset", "1795341605"), date]), Some(5), "seconds since 1970");
        assert_eq!(wait(&[("x-ratelimit-reset", "1795341605000"), date]), Some(5), "milliseconds since 1970");
        assert_eq!(wait(&[("retry-after", "3"), ("ratelimit-reset", "9")]), Some(3));
    }

    #[test]
    fn no_wait_a_past_one_and_an_unreadable_one_are_none() {
        for value in ["0", "-5", "soon", "1e400", "Sun, 22 Nov 2020 10:00:00 GMT", ""] {
            assert_eq!(wait(&[("retry-after", value)]), None, "{value}");
        }
        for value in ["0", "-5", "NaN", "inf", "x"] {
            assert_eq!(wait(&[("ratelimit-reset", value)]), None, "{value}");
        }
        assert_eq!(
            wait(&[("retry-after", "18446744073709551615")]),
            Some(u64::MAX),
            "absurd ones are cut by the caller"
        );
    }
}
