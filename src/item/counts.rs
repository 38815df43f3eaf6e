//! How many items of a stage ended how.

use super::{Class, Outcome};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The integers that a stage keeps: one for each outcome, failures by class, attempts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Items that arrived. Equals the sum of the outcomes when the stage has ended.
    pub items: u64,
    /// Done, with something given.
    pub ok: u64,
    /// Done, with nothing given.
    pub empty: u64,
    /// Given up, of all classes.
    pub failed: u64,
    /// Cut by a deadline.
    pub timed_out: u64,
    /// Cut by a cancel.
    pub cancelled: u64,
    /// Never taken.
    pub not_reached: u64,
    /// Held back after a crash.
    pub held: u64,
    /// Sum of the items' attempts.
    pub attempts: u64,
    /// False when the listing above ended before its end: counts are then "at least".
    pub complete: bool,
    /// Failures by class.
    pub classes: BTreeMap<Class, u64>,
}

impl Counts {
    /// Adds one settled item.
    pub fn settle(&mut self, outcome: Outcome, attempts: u32) {
        self.attempts += u64::from(attempts);
        match outcome {
            Outcome::Ok => self.ok += 1,
            Outcome::Empty => self.empty += 1,
            Outcome::Failed(class) => {
                self.failed += 1;
                *self.classes.entry(class).or_default() += 1;
            }
            Outcome::TimedOut => self.timed_out += 1,
            Outcome::Cancelled => self.cancelled += 1,
            Outcome::NotReached => self.not_reached += 1,
            Outcome::Held => self.held += 1,
        }
    }

    /// Items that have an outcome.
    pub fn settled(&self) -> u64 {
        self.ok + self.empty + self.missing()
    }

    /// Items with any outcome but `ok` and `empty`.
    pub fn missing(&self) -> u64 {
        self.failed + self.timed_out + self.cancelled + self.not_reached + self.held
    }
}
