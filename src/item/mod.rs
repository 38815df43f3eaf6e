//! What flows and what is recorded, as plain data: keys, lineages, outcomes, classes, counts and records.
//!
//! Nothing here does I/O or knows of time. Every other room reads these types; only `run` makes them.

mod class;
mod counts;
mod json;
mod key;
mod lineage;
mod outcome;
mod record;
mod short;

pub use class::{Class, Failure};
pub use counts::Counts;
pub(crate) use json::parse_json;
pub use key::{Key, KeyError};
pub use lineage::Lineage;
pub use outcome::{Outcome, RunOutcome};
pub use record::{FailureRecord, Folded, OutputRecord, RunRecord, StageEnd, StageRecord, StoredRecord};

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

/// A JSON value: what flows between stages and what actions give.
pub type Value = serde_json::Value;
