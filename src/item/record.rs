//! What is kept of a run: data that says how it ended, stage by stage.

use super::{Counts, Key, RunOutcome};
use serde::Serialize;

/// How one run ended. Serialised it is the JSON object that `run --format json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct RunRecord {
    /// The run's id.
    pub run: String,
    /// The job's name.
    pub job: String,
    /// How it ended.
    pub outcome: RunOutcome,
    /// Why, in a sentence; `None` for `succeeded`.
    pub reason: Option<String>,
    /// RFC 3339 with the offset of the job's zone.
    pub started: String,
    /// RFC 3339 with the offset of the job's zone.
    pub ended: String,
    /// Stages in the order of the job file.
    pub stages: Vec<StageRecord>,
    /// The first missing items in the order of stages and lineage ([`crate::limits::SUMMARY_LIST_MAX`]).
    pub failures: Vec<FailureRecord>,
    /// The first files written, in the order of their paths.
    pub outputs: Vec<OutputRecord>,
    /// How many files were written in all.
    pub outputs_total: u64,
    /// Processes that the children of the run had left behind when they ended; they were ended too.
    pub leaked: u64,
    /// Why this record is not on the disk, in a run that is kept: the run will be resumed. `None` when it is.
    pub unsaved: Option<String>,
}

/// What one stage did.
#[derive(Clone, Debug, Serialize)]
pub struct StageRecord {
    /// The stage's name.
    pub name: String,
    /// How many items ended how.
    #[serde(flatten)]
    pub counts: Counts,
}

/// One missing item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FailureRecord {
    /// The stage in which it is missing.
    pub stage: String,
    /// Its key.
    pub key: Key,
    /// The class of its failure, or its outcome where it did not fail.
    pub class: String,
    /// What happened.
    pub message: String,
    /// Counted attempts; 0 when it was never tried.
    pub attempts: u32,
}

/// One file that the run wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OutputRecord {
    /// Below the output folder, parts joined by `/`.
    pub path: String,
    /// Lower-case hexadecimal.
    pub sha256: String,
    /// Size in bytes.
    pub bytes: u64,
}
