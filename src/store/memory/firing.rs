//! How far the times of jobs were considered, and what became of those that started no run: the rules of `sqlite::firing`,
//! in memory.

use super::State;
use crate::{
    limits::{FIRINGS_KEPT_MAX, RETAIN_FIRINGS},
    store::{FiringEnd, FiringRow, Mark, Retention},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound::{Excluded, Unbounded},
    sync::Arc,
};

/// Marks and firings of all jobs.
#[derive(Clone, Default)]
pub(super) struct Firings {
    marks: BTreeMap<String, String>,
    /// By number, in the order in which they were written.
    rows: BTreeMap<u64, FiringRow>,
}

impl State {
    pub fn consider(&mut self, marks: Vec<Mark>, firings: Vec<FiringRow>, heard: &[Arc<str>]) -> Vec<bool> {
        self.firings.marks.extend(marks.into_iter().map(|mark| (mark.job, mark.text)));
        self.firings.marks.retain(|_, text| !text.is_empty());
        let mut written = Vec::with_capacity(firings.len());
        for firing in firings {
            let has_run = self
                .in_order()
                .filter_map(|run| run.head.as_ref())
                .any(|head| head.new.job == firing.job && head.new.fire_key.as_ref() == Some(&firing.key));
            written.push(!has_run && self.firings.write(firing));
        }
        for run in heard {
            if let Some(head) = self.runs.get_mut(run).and_then(|run| run.head.as_mut()) {
                head.is_unheard = false;
            }
        }
        written
    }
}

impl Firings {
    fn find(&self, job: &str, key: &str) -> Option<u64> {
        let found = self.rows.iter().find(|(_, row)| row.job == job && row.key == key);
        found.map(|(number, _)| *number)
    }

    /// Writes a new one, or the end of one that waits. False when it stays as it is.
    fn write(&mut self, firing: FiringRow) -> bool {
        let Some(number) = self.find(&firing.job, &firing.key) else {
            let number = self.rows.last_key_value().map_or(1, |(last, _)| last + 1);
            self.rows.insert(number, firing);
            return true;
        };
        let found = self.rows.get_mut(&number).filter(|row| row.end == FiringEnd::Waiting);
        let Some(row) = found.filter(|_| firing.end != FiringEnd::Waiting) else { return false };
        (row.end, row.reason) = (firing.end, firing.reason);
        (row.told_ms, row.to_tell) = (firing.told_ms, firing.to_tell);
        true
    }

    pub fn told(&mut self, job: &str, key: &str) -> bool {
        let found = self.find(job, key).and_then(|number| self.rows.get_mut(&number));
        found.is_some_and(|row| std::mem::take(&mut row.to_tell))
    }

    pub fn to_tell(&self, after: Option<u64>, limit: usize) -> Vec<(u64, FiringRow)> {
        let behind = self.rows.range((Excluded(after.unwrap_or(0)), Unbounded));
        let rows = behind.filter(|(_, row)| row.to_tell);
        rows.take(limit).map(|(number, row)| (*number, row.clone())).collect()
    }

    /// The firing is a run from now on. False when it was skipped or missed.
    pub fn start(&mut self, job: &str, key: &str) -> bool {
        let Some(number) = self.find(job, key) else { return true };
        let waits = self.rows.get(&number).is_some_and(|row| row.end == FiringEnd::Waiting);
        if waits {
            self.rows.remove(&number);
        }
        waits
    }

    pub fn marks(&self) -> Vec<Mark> {
        self.marks.iter().map(|(job, text)| Mark { job: job.clone(), text: text.clone() }).collect()
    }

    pub fn waiting(&self, after: Option<(i64, u64)>, limit: usize) -> Vec<(u64, FiringRow)> {
        let mut rows: Vec<_> = self.rows.iter().filter(|(_, row)| row.end == FiringEnd::Waiting).collect();
        rows.retain(|(number, row)| after.is_none_or(|after| (row.due_ms, **number) > after));
        rows.sort_by_key(|(number, row)| (row.due_ms, *number));
        rows.into_iter().take(limit).map(|(number, row)| (*number, row.clone())).collect()
    }

    pub fn past(&self, job: Option<&str>, before: Option<u64>, limit: usize) -> Vec<(u64, FiringRow)> {
        let rows = self.rows.range(..before.unwrap_or(u64::MAX)).rev();
        let asked = rows.filter(|(_, row)| row.end != FiringEnd::Waiting && job.is_none_or(|job| row.job == job));
        asked.take(limit).map(|(number, row)| (*number, row.clone())).collect()
    }

    pub fn retain(&mut self, keep: &Retention) -> bool {
        let oldest = keep.now_ms.saturating_sub(i64::try_from(keep.max_age_ms).unwrap_or(i64::MAX));
        let past = || self.rows.iter().filter(|(_, row)| row.end != FiringEnd::Waiting);
        let mut gone: Vec<u64> = past().filter(|(_, row)| row.told_ms < oldest).map(|(number, _)| *number).collect();
        gone.sort_by_key(|number| self.rows.get(number).map(|row| row.told_ms));
        if gone.is_empty() {
            let jobs: BTreeSet<&str> = past().map(|(_, row)| row.job.as_str()).collect();
            let beyond = |job: &&str| -> Vec<u64> {
                let of_job = past().filter(|(_, row)| row.job == *job).map(|(number, _)| *number);
                of_job.rev().skip(FIRINGS_KEPT_MAX as usize).collect()
            };
            gone = jobs.iter().map(beyond).find(|gone| !gone.is_empty()).unwrap_or_default();
        }
        for number in gone.iter().take(RETAIN_FIRINGS as usize) {
            self.rows.remove(number);
        }
        !gone.is_empty()
    }
}
