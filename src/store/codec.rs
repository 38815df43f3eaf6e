//! How a row is kept, the same in every store: its end as a number, its values as lines of JSON.
//!
//! Rows are packed by whoever asks, so that what waits to be written is small and its bytes are known. Lines (JSON as
//! we write it has no line break of its own) let one value be found without parsing those before it.

use super::{Row, RowEnd, StoreError};
use crate::{
    item::{Class, Key, Lineage, Outcome, Value, parse_json},
    limits::{DEPTH_MAX, PAGE_BYTES},
};
use std::sync::Arc;

/// What a row of a store costs besides its texts, in bytes: an estimate for the bounds of batches.
const ROW_BYTES: usize = 64;

/// State of an attempt that has begun and must not be repeated.
pub(super) const STARTED: i64 = -2;
/// State of a row that waits. Every lower one is not terminal either.
pub(super) const RETRY: i64 = -1;
/// State of an ok row.
pub(super) const OK: i64 = 0;
/// State of a row that gave nothing; every higher one is missing.
pub(super) const EMPTY: i64 = 1;
/// State of a row that is held.
pub(super) const HELD: i64 = 6;

/// A row as it is kept.
#[derive(Clone, Debug)]
pub(super) struct Packed {
    pub stage: u16,
    pub lineage: Lineage,
    pub key: Key,
    pub state: i64,
    pub class: Option<String>,
    pub attempts: u32,
    pub at_ms: Option<i64>,
    pub deadline_ms: Option<i64>,
    pub message: Option<String>,
    pub values: Option<String>,
    /// How many values those are.
    pub width: u32,
    pub took_ms: Option<u32>,
    /// The pass of the run that wrote it: set by who writes it.
    pub pass: u32,
}

/// A value of `Keep` as it is kept.
#[derive(Clone, Debug)]
pub(super) struct KeptValue {
    pub run: Arc<str>,
    pub job: String,
    pub key: Key,
    pub due_ms: i64,
    pub json: String,
}

impl Packed {
    /// Packs a row.
    ///
    /// # Errors
    /// When a value is nested so deep that it could not be read back.
    pub fn new(row: Row) -> Result<Packed, StoreError> {
        let stored = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        let (state, class, at_ms, deadline_ms) = match row.end {
            RowEnd::Retry { at_ms, deadline_ms } => (RETRY, None, Some(stored(at_ms)), deadline_ms.map(stored)),
            RowEnd::Started => (STARTED, None, None, None),
            RowEnd::Done(Outcome::Failed(class)) => (2, Some(class.to_string()), None, None),
            RowEnd::Done(other) => (state_of(other), None, None, None),
        };
        let values = lines(&row.values).map_err(|cause| {
            StoreError::Io(format!("a value of item {} in stage {} cannot be kept: {cause}", row.key, row.stage))
        })?;
        let width = u32::try_from(row.values.len()).unwrap_or(u32::MAX);
        Ok(Packed {
            stage: row.stage,
            lineage: row.lineage,
            key: row.key,
            state,
            class,
            attempts: row.attempts,
            at_ms,
            deadline_ms,
            message: row.message,
            values,
            width,
            took_ms: row.took_ms,
            pass: 1,
        })
    }

    /// Bytes that it takes, about.
    pub fn bytes(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        ROW_BYTES
            + self.lineage.as_bytes().len()
            + self.key.as_str().len()
            + text(&self.message)
            + text(&self.values)
            + text(&self.class)
    }

    /// True when no later row of the item may replace it.
    pub fn is_terminal(&self) -> bool {
        self.state >= OK
    }

    /// True when the item is missing.
    pub fn is_missing(&self) -> bool {
        self.state > EMPTY
    }

    /// How it stands.
    ///
    /// # Errors
    /// As [`Packed::unpack`].
    pub fn end(&self) -> Result<RowEnd, StoreError> {
        end(self.state, self.class.as_deref(), self.at_ms, self.deadline_ms)
    }

    /// The row again.
    ///
    /// # Errors
    /// When what was kept is not what was packed: the file was changed by others.
    pub fn unpack(self) -> Result<Row, StoreError> {
        let end = self.end()?;
        let values = match &self.values {
            None => Vec::new(),
            Some(text) => values(text)?,
        };
        Ok(Row {
            stage: self.stage,
            lineage: self.lineage,
            key: self.key,
            end,
            attempts: self.attempts,
            message: self.message,
            values,
            took_ms: self.took_ms,
        })
    }
}

/// How a kept row stands.
pub(super) fn end(
    state: i64,
    class: Option<&str>,
    at_ms: Option<i64>,
    deadline_ms: Option<i64>,
) -> Result<RowEnd, StoreError> {
    let read = |ms: Option<i64>| ms.and_then(|ms| u64::try_from(ms).ok());
    Ok(match state {
        RETRY => RowEnd::Retry { at_ms: read(at_ms).unwrap_or(0), deadline_ms: read(deadline_ms) },
        STARTED => RowEnd::Started,
        state => RowEnd::Done(outcome(state, class)?),
    })
}

/// The outcome of a kept terminal row.
pub(super) fn outcome(state: i64, class: Option<&str>) -> Result<Outcome, StoreError> {
    const ENDS: [Outcome; 6] =
        [Outcome::Ok, Outcome::Empty, Outcome::TimedOut, Outcome::Cancelled, Outcome::NotReached, Outcome::Held];
    match (state, class) {
        (2, Some(class)) => Class::parse(class).map(Outcome::Failed),
        _ => ENDS.into_iter().find(|end| state_of(*end) == state),
    }
    .ok_or_else(|| StoreError::Io(format!("a row ended as {state} {class:?}, which is no outcome")))
}

/// Reads all values of a row.
pub(super) fn values(lines: &str) -> Result<Vec<Value>, StoreError> {
    lines.split('\n').map(value).collect()
}

/// One value as it is kept.
///
/// # Errors
/// As [`Packed::new`].
pub(super) fn line(what: &str, value: &Value) -> Result<String, StoreError> {
    let refuse = |cause| StoreError::Io(format!("{what} cannot be kept: {cause}"));
    lines(std::slice::from_ref(value)).map(Option::unwrap_or_default).map_err(refuse)
}

/// Reads one kept value.
pub(super) fn value(line: &str) -> Result<Value, StoreError> {
    parse_json(line.as_bytes()).map_err(|cause| StoreError::Io(format!("a kept value is not JSON: {cause}")))
}

/// True for a key itself and for those below it: `P1/heart` is below `P1`.
pub(super) fn is_below(key: &Key, above: &Key) -> bool {
    let rest = key.as_str().strip_prefix(above.as_str());
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Counts what a page may still hold.
pub(super) struct PageRoom {
    rows: usize,
    bytes: usize,
}

impl PageRoom {
    /// Room for `limit` rows and [`PAGE_BYTES`].
    pub fn new(limit: usize) -> PageRoom {
        PageRoom { rows: limit, bytes: PAGE_BYTES }
    }

    /// True when nothing more goes in.
    pub fn is_full(&self) -> bool {
        self.rows == 0 || self.bytes == 0
    }

    /// Takes the room of one row with so many bytes of values.
    pub fn take(&mut self, bytes: usize) {
        self.rows = self.rows.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes.saturating_add(1));
    }
}

fn state_of(outcome: Outcome) -> i64 {
    match outcome {
        Outcome::Ok => OK,
        Outcome::Empty => EMPTY,
        Outcome::Failed(_) => 2,
        Outcome::TimedOut => 3,
        Outcome::Cancelled => 4,
        Outcome::NotReached => 5,
        Outcome::Held => HELD,
    }
}

fn lines(values: &[Value]) -> Result<Option<String>, String> {
    let mut text = Vec::new();
    for (index, value) in values.iter().enumerate() {
        // The reader of JSON refuses one level more than it counts.
        if !shallower_than(value, DEPTH_MAX) {
            return Err(format!("it is nested deeper than {} levels", DEPTH_MAX - 1));
        }
        if index > 0 {
            text.push(b'\n');
        }
        serde_json::to_writer(&mut text, value).map_err(|cause| cause.to_string())?;
    }
    if values.is_empty() {
        return Ok(None);
    }
    String::from_utf8(text).map(Some).map_err(|cause| cause.to_string())
}

fn shallower_than(value: &Value, levels: usize) -> bool {
    match value {
        Value::Array(items) => levels > 1 && items.iter().all(|item| shallower_than(item, levels - 1)),
        Value::Object(fields) => levels > 1 && fields.values().all(|item| shallower_than(item, levels - 1)),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(levels: usize) -> Value {
        (0..levels).fold(Value::Null, |inner, _| Value::Array(vec![inner]))
    }

    fn row(values: Vec<Value>) -> Row {
        let lineage = Lineage::listed(0, 7);
        Row {
            stage: 3,
            lineage,
            key: Key::ordinal(7),
            end: RowEnd::Done(Outcome::Ok),
            attempts: 1,
            message: None,
            values,
            took_ms: Some(7),
        }
    }

    #[test]
    fn what_is_packed_can_be_read_back_up_to_the_deepest_nesting() {
        let deepest = row(vec![nested(DEPTH_MAX - 1), Value::from("a\nb"), Value::Null]);
        assert_eq!(Packed::new(deepest.clone()).and_then(Packed::unpack), Ok(deepest));
        assert!(matches!(Packed::new(row(vec![nested(DEPTH_MAX)])), Err(StoreError::Io(_))));
        assert!(Packed::new(row(vec![nested(5000)])).is_err());
    }

    #[test]
    fn every_outcome_has_its_own_state() {
        let all = [
            Outcome::Ok,
            Outcome::Empty,
            Outcome::Failed(Class::Http(404)),
            Outcome::TimedOut,
            Outcome::Cancelled,
            Outcome::NotReached,
            Outcome::Held,
        ];
        for end in all {
            let row = Row { end: RowEnd::Done(end), ..row(Vec::new()) };
            assert_eq!(Packed::new(row.clone()).and_then(Packed::unpack), Ok(row));
        }
        for end in [RowEnd::Started, RowEnd::Retry { at_ms: 3, deadline_ms: None }] {
            let row = Row { end, ..row(Vec::new()) };
            assert_eq!(Packed::new(row.clone()).and_then(Packed::unpack), Ok(row));
        }
        assert!(outcome(9, None).is_err() && outcome(2, Some("nonsense")).is_err() && outcome(2, None).is_err());
    }
}
