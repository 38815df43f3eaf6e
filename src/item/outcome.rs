//! How an item and how a run ended.

use super::Class;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;

/// How an item of a stage ended (RUNS K4). All but `Ok` and `Empty` are *missing*.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All actions done; what they gave flows on.
    Ok,
    /// Done, and nothing was given.
    Empty,
    /// Given up, for this reason.
    Failed(Class),
    /// Taken, then cut by a deadline of the item, the stage or the run.
    TimedOut,
    /// Taken, then cut by a cancel.
    Cancelled,
    /// Arrived and never taken.
    NotReached,
    /// In flight at a crash and not to be run again without an operator.
    Held,
}

impl Outcome {
    /// True for all outcomes but `Ok` and `Empty`.
    pub fn is_missing(self) -> bool {
        !matches!(self, Outcome::Ok | Outcome::Empty)
    }

    /// The text that groups it in reports: the class of a failure, else the outcome itself.
    pub fn class_text(self) -> String {
        match self {
            Outcome::Failed(class) => class.to_string(),
            other => other.name().to_owned(),
        }
    }

    /// snake_case, without the class.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Empty => "empty",
            Outcome::Failed(_) => "failed",
            Outcome::TimedOut => "timed_out",
            Outcome::Cancelled => "cancelled",
            Outcome::NotReached => "not_reached",
            Outcome::Held => "held",
        }
    }
}

/// How a run ended (RUNS D4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RunOutcome {
    /// Everything was done.
    Succeeded,
    /// Something is missing, no more than was tolerated.
    Partial,
    /// More is missing than was tolerated, or a listing, the report or an output failed.
    Failed,
    /// The run's deadline passed before its last stage ended.
    DeadlineExceeded,
    /// A person, a signal or the API cancelled it, or its handle was dropped.
    Cancelled,
    /// It crashed the program too often.
    Quarantined,
    /// Not an end: the state of a run that waits to be resumed.
    Interrupted,
}

impl RunOutcome {
    /// Every outcome, in the order of the vocabulary.
    pub const ALL: [RunOutcome; 7] = [
        RunOutcome::Succeeded,
        RunOutcome::Partial,
        RunOutcome::Failed,
        RunOutcome::DeadlineExceeded,
        RunOutcome::Cancelled,
        RunOutcome::Quarantined,
        RunOutcome::Interrupted,
    ];

    /// snake_case, as logs and JSON spell it.
    pub fn name(self) -> &'static str {
        match self {
            RunOutcome::Succeeded => "succeeded",
            RunOutcome::Partial => "partial",
            RunOutcome::Failed => "failed",
            RunOutcome::DeadlineExceeded => "deadline_exceeded",
            RunOutcome::Cancelled => "cancelled",
            RunOutcome::Quarantined => "quarantined",
            RunOutcome::Interrupted => "interrupted",
        }
    }
}

impl fmt::Display for RunOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for RunOutcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for RunOutcome {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RunOutcome, D::Error> {
        let text = String::deserialize(deserializer)?;
        let known = RunOutcome::ALL.into_iter().find(|outcome| outcome.name() == text);
        known.ok_or_else(|| de::Error::custom(format!("`{text}` is no outcome of a run")))
    }
}
