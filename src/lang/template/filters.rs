//! Filters of templates beside minijinja's own. Their messages never hold a value.

use super::OWN;
use jiff::{
    Span,
    civil::Date,
    fmt::{strtime, temporal::Pieces},
};
use minijinja::{Environment, Error, ErrorKind, Value, value::ValueKind};

/// Adds them to an environment.
pub fn add(env: &mut Environment<'static>) {
    env.add_filter("add_days", add_days);
    env.add_filter("format_date", format_date);
    env.add_filter("thousands", thousands);
    env.add_filter("url", url);
}

fn fail(sentence: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("{OWN}{sentence}"))
}

/// `add_days(n)`: the date `n` days later, its time and offset, if any, as they were.
fn add_days(text: &str, days: i64) -> Result<String, Error> {
    let wrong = || fail("add_days needs a date such as 2026-11-22 or 2026-11-22T02:30:00+08:00");
    let pieces = Pieces::parse(text).map_err(|_| wrong())?;
    let rest = text.get(pieces.date().to_string().len()..).ok_or_else(wrong)?;
    let later = Span::new().try_days(days).and_then(|span| pieces.date().checked_add(span));
    let later: Date = later.map_err(|_| fail("add_days leaves the years -9999 to 9999"))?;
    Ok(format!("{later}{rest}"))
}

/// `format_date("%G-W%V")`: a date, or an instant in its own offset, by the conversions of strftime.
fn format_date(text: &str, format: &str) -> Result<String, Error> {
    let wrong = || fail("format_date needs a date such as 2026-11-22 or 2026-11-22T02:30:00+08:00");
    let bad = |_| fail("format_date does not know this format, or the date has no time for it");
    let pieces = Pieces::parse(text).map_err(|_| wrong())?;
    match (pieces.time(), pieces.to_numeric_offset()) {
        (None, _) => strtime::format(format, pieces.date()).map_err(bad),
        (Some(time), None) => strtime::format(format, pieces.date().to_datetime(time)).map_err(bad),
        (Some(time), Some(offset)) => {
            let local = pieces.date().to_datetime(time);
            let zoned = offset.to_time_zone().to_zoned(local).map_err(|_| wrong())?;
            strtime::format(format, &zoned).map_err(bad)
        }
    }
}

/// `thousands`: 4960 as 4,960.
fn thousands(value: &Value) -> Result<String, Error> {
    if value.kind() != ValueKind::Number {
        return Err(fail("thousands needs a number"));
    }
    let text = super::number_text(value);
    let (sign, digits) = text.strip_prefix('-').map_or(("", &*text), |digits| ("-", digits));
    let (whole, rest) = digits.split_at(digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len()));
    let mut grouped = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    Ok(format!("{sign}{grouped}{rest}"))
}

/// `url`: the value is taken as it stands. It must be a text without white space and control characters.
fn url(value: &Value) -> Result<Value, Error> {
    match value.as_str() {
        Some(text) if !text.is_empty() && !text.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\') => {
            Ok(Value::from_safe_string(text.to_owned()))
        }
        _ => Err(fail("url needs a text without spaces, backslashes and control characters")),
    }
}
