//! What flows and what is recorded, as plain data: keys, lineages, outcomes, classes, counts and records.
//!
//! Nothing here does I/O or knows of time. Every other room reads these types; only `run` makes them.

mod class;
mod counts;
mod key;
mod lineage;
mod outcome;
mod record;
mod short;

pub use class::{Class, Failure};
pub use counts::Counts;
pub use key::{Key, KeyError};
pub use lineage::Lineage;
pub use outcome::{Outcome, RunOutcome};
pub use record::{FailureRecord, OutputRecord, RunRecord, StageRecord};

/// A JSON value: what flows between stages and what actions give.
pub type Value = serde_json::Value;
