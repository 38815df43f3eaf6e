//! What is kept of a run: data that says how it ended, stage by stage.

use super::{Counts, Key, RunOutcome};
use serde::{Deserialize, Serialize};

/// How one run ended. Serialised it is the JSON object that `run --format json` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsaved: Option<String>,
}

/// What is stored of a run that has ended: its record, and beside it the times that no author's file may depend on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredRecord {
    /// How it ended.
    #[serde(flatten)]
    pub record: RunRecord,
    /// When its stages ended, those that did.
    #[serde(default)]
    pub timeline: Vec<StageEnd>,
    /// It listed nothing, and stands for the runs before it that did not either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folded: Option<Folded>,
}

/// Runs one after the other, a few minutes apart, of which each listed nothing: the last one stands for all (RUNS S13).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Folded {
    /// How many they are.
    pub runs: u64,
    /// When the first of them started: milliseconds since 1970.
    pub first_ms: i64,
}

/// When a stage ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageEnd {
    /// Place of the stage in the job.
    pub place: u16,
    /// How long the run had run in all its passes, in milliseconds.
    pub ended_ms: u64,
}

/// What one stage did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageRecord {
    /// The stage's name.
    pub name: String,
    /// How many items ended how.
    #[serde(flatten)]
    pub counts: Counts,
}

/// One missing item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputRecord {
    /// Below the output folder, parts joined by `/`.
    pub path: String,
    /// Lower-case hexadecimal.
    pub sha256: String,
    /// Size in bytes.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::{Class, Outcome};

    #[test]
    fn what_is_stored_of_a_run_is_read_back_as_it_was() {
        let mut counts = Counts { items: 3, complete: true, ..Counts::default() };
        for outcome in [Outcome::Ok, Outcome::Failed(Class::Http(404)), Outcome::Failed(Class::TooLarge)] {
            counts.settle(outcome, 2);
        }
        let record = RunRecord {
            run: "r".into(),
            job: "nightly".into(),
            outcome: RunOutcome::DeadlineExceeded,
            reason: None,
            started: "2026-11-23T02:30:00+08:00".into(),
            ended: "2026-11-23T02:31:00+08:00".into(),
            stages: vec![StageRecord { name: "vitals".into(), counts }],
            failures: vec![FailureRecord {
                stage: "vitals".into(),
                key: Key::parse("P1/steps").expect("a key"),
                class: "http_404".into(),
                message: "answered 404".into(),
                attempts: 2,
            }],
            outputs: vec![OutputRecord { path: "a.json".into(), sha256: "0".repeat(64), bytes: 7 }],
            outputs_total: 1,
            leaked: 0,
            unsaved: None,
        };
        let timeline = vec![StageEnd { place: 1, ended_ms: 700 }];
        let stored = StoredRecord { record, timeline, folded: None };
        let text = serde_json::to_string(&stored).expect("JSON");
        assert_eq!(serde_json::from_str::<StoredRecord>(&text).expect("the same"), stored);
        for (good, bad) in [("http_404\":1", "http_4x\":1"), ("deadline_exceeded", "late"), ("P1/steps", "P1//steps")] {
            let broken = text.replacen(good, bad, 1);
            assert_ne!(broken, text);
            assert!(serde_json::from_str::<StoredRecord>(&broken).is_err(), "{bad}");
        }
    }
}
