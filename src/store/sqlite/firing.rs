//! How far the times of jobs were considered, and what became of those that started no run.
//!
//! `end` of a firing: 0 waits, 1 was skipped, 2 was missed. One that waits goes when its run begins, in the same transaction.

use super::{
    retain::Looked,
    tables::{Fault, Tables, stored},
};
use crate::{
    limits::{FIRINGS_KEPT_MAX, RETAIN_FIRINGS},
    store::{FiringEnd, FiringRow, Mark, Retention},
};
use rusqlite::{OptionalExtension, Row, named_params, params};
use std::sync::Arc;

const SET_MARK: &str = "INSERT INTO mark(job, text) VALUES(?1, ?2) ON CONFLICT(job) DO UPDATE SET text = excluded.text";
const FORGET_MARK: &str = "DELETE FROM mark WHERE job = ?1";
const WRITE: &str = "INSERT INTO firing(job, key, cause, due_ms, last_ms, count, end, reason, told_ms, to_tell)
    SELECT :job, :key, :cause, :due_ms, :last_ms, :count, :end, :reason, :told_ms, :to_tell
    WHERE NOT EXISTS (SELECT 1 FROM head WHERE job = :job AND fire_key = :key)
    ON CONFLICT(job, key) DO UPDATE SET end = excluded.end, reason = excluded.reason, told_ms = excluded.told_ms,
        to_tell = excluded.to_tell
    WHERE firing.end = 0 AND excluded.end > 0";
pub(super) const HEARD: &str = "DELETE FROM unheard WHERE run = (SELECT id FROM run WHERE name = ?1)";
pub(super) const END_OF: &str = "SELECT end FROM firing WHERE job = ?1 AND key = ?2";
const DROP: &str = "DELETE FROM firing WHERE job = ?1 AND key = ?2";
const MARKS: &str = "SELECT job, text FROM mark ORDER BY job";

/// Firings, with what comes behind `FROM`.
macro_rules! firings {
    ($rest:literal) => {
        concat!("SELECT id, job, key, cause, due_ms, last_ms, count, end, reason, told_ms, to_tell FROM firing ", $rest)
    };
}

pub(super) const WAITING: &str =
    firings!("INDEXED BY firing_waits WHERE end = 0 AND (due_ms, id) > (?1, ?2) ORDER BY due_ms, id LIMIT ?3");
pub(super) const WAITS_AFTER: &str = "SELECT 1 FROM firing WHERE end = 0 AND due_ms = ?1 AND key = ?2";
pub(super) const PAST: &str = firings!("WHERE id < ?1 AND end > 0 ORDER BY id DESC LIMIT ?2");
pub(super) const PAST_OF_JOB: &str =
    firings!("INDEXED BY firing_past WHERE job = ?3 AND id < ?1 AND end > 0 ORDER BY id DESC LIMIT ?2");
pub(super) const TO_TELL: &str =
    firings!("INDEXED BY firing_to_tell WHERE to_tell = 1 AND id > ?1 ORDER BY id LIMIT ?2");
pub(super) const TOLD: &str = "UPDATE firing SET to_tell = 0 WHERE job = ?1 AND key = ?2 AND to_tell = 1";
pub(super) const OLD: &str =
    "SELECT id FROM firing INDEXED BY firing_told WHERE end > 0 AND told_ms < ?1 ORDER BY told_ms LIMIT ?2";
pub(super) const NEXT_JOB_OF_FIRINGS: &str =
    "SELECT job FROM firing INDEXED BY firing_past WHERE job > ?1 AND end > 0 ORDER BY job LIMIT 1";
pub(super) const TOO_MANY: &str =
    "SELECT id FROM firing INDEXED BY firing_past WHERE job = ?1 AND end > 0 ORDER BY id DESC LIMIT ?3 OFFSET ?2";

impl Tables {
    /// Keeps marks, what came of them and which ends were heard, in an open transaction. Which firings were written.
    pub fn consider(&mut self, marks: &[Mark], firings: &[FiringRow], heard: &[Arc<str>]) -> Result<Vec<bool>, Fault> {
        self.begin()?;
        for mark in marks {
            match mark.text.is_empty() {
                true => self.connection.prepare_cached(FORGET_MARK)?.execute([&mark.job])?,
                false => self.connection.prepare_cached(SET_MARK)?.execute([&mark.job, &mark.text])?,
            };
        }
        let mut written = Vec::with_capacity(firings.len());
        for firing in firings {
            let rows = self.connection.prepare_cached(WRITE)?.execute(named_params! {
                ":job": firing.job, ":key": firing.key, ":cause": firing.trigger, ":due_ms": firing.due_ms,
                ":last_ms": firing.last_ms, ":count": firing.count.map(stored), ":end": code(firing.end),
                ":reason": firing.reason, ":told_ms": firing.told_ms, ":to_tell": firing.to_tell,
            })?;
            written.push(rows == 1);
        }
        for run in heard {
            self.connection.prepare_cached(HEARD)?.execute([run])?;
        }
        Ok(written)
    }

    /// The firing is a run from now on, in an open transaction. False when it was skipped or missed.
    pub fn start_firing(&self, job: &str, key: &str) -> Result<bool, Fault> {
        let end: Option<i64> =
            self.connection.prepare_cached(END_OF)?.query_row([job, key], |row| row.get(0)).optional()?;
        match end {
            None => Ok(true),
            Some(0) => Ok(self.connection.prepare_cached(DROP)?.execute([job, key])? == 1),
            Some(_) => Ok(false),
        }
    }

    /// Every mark.
    pub fn marks(&self) -> Result<Vec<Mark>, Fault> {
        let mut statement = self.connection.prepare_cached(MARKS)?;
        let marks = statement.query_map([], |row| Ok(Mark { job: row.get(0)?, text: row.get(1)? }))?;
        Ok(marks.collect::<Result<_, _>>()?)
    }

    /// Firings that wait, oldest first.
    pub fn waiting_firings(&self, after: Option<(i64, u64)>, limit: usize) -> Result<Vec<(u64, FiringRow)>, Fault> {
        let (due_ms, number) = after.map_or((i64::MIN, 0), |(due_ms, number)| (due_ms, stored(number)));
        let mut statement = self.connection.prepare_cached(WAITING)?;
        let found = statement.query_map([due_ms, number, stored(limit as u64)], firing)?;
        Ok(found.collect::<Result<_, _>>()?)
    }

    /// Firings that somebody is still to be told of, in the order in which they came.
    pub fn firings_to_tell(&self, after: Option<u64>, limit: usize) -> Result<Vec<(u64, FiringRow)>, Fault> {
        let mut statement = self.connection.prepare_cached(TO_TELL)?;
        let found = statement.query_map([after.map_or(0, stored), stored(limit as u64)], firing)?;
        Ok(found.collect::<Result<_, _>>()?)
    }

    /// Everybody was told of a firing, in an open transaction.
    pub fn firing_told(&mut self, job: &str, key: &str) -> Result<bool, Fault> {
        self.begin()?;
        Ok(self.connection.prepare_cached(TOLD)?.execute([job, key])? == 1)
    }

    /// Firings that started no run, newest first.
    pub fn past_firings(
        &self,
        job: Option<&str>,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<(u64, FiringRow)>, Fault> {
        let (before, limit) = (before.map_or(i64::MAX, stored), stored(limit as u64));
        let mut statement = self.connection.prepare_cached(if job.is_some() { PAST_OF_JOB } else { PAST })?;
        let found = match job {
            None => statement.query_map(params![before, limit], firing)?,
            Some(job) => statement.query_map(params![before, limit, job], firing)?,
        };
        Ok(found.collect::<Result<_, _>>()?)
    }

    /// Lets go some firings that are too old, or too many of a job. False when there are none in any job.
    pub fn retain_firings(&mut self, keep: &Retention) -> Result<bool, Fault> {
        let oldest = keep.now_ms.saturating_sub(stored(keep.max_age_ms));
        let step = i64::from(RETAIN_FIRINGS);
        let mut gone: Vec<i64> = self
            .connection
            .prepare_cached(OLD)?
            .query_map(params![oldest, step], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        if gone.is_empty() {
            let too_many = self.look_at_jobs(NEXT_JOB_OF_FIRINGS, |tables, job| {
                let mut statement = tables.connection.prepare_cached(TOO_MANY)?;
                let found = statement.query_map(params![job, i64::from(FIRINGS_KEPT_MAX), step], |row| row.get(0))?;
                let found: Vec<i64> = found.collect::<Result<_, _>>()?;
                Ok((!found.is_empty()).then_some(found))
            })?;
            match too_many {
                Looked::Found(found) => gone = found,
                Looked::AtSome => return Ok(true),
                Looked::AtAll => return Ok(false),
            }
        }
        self.begin()?;
        for id in gone {
            self.connection.prepare_cached("DELETE FROM firing WHERE id = ?1")?.execute([id])?;
        }
        self.commit()?;
        Ok(true)
    }
}

fn firing(row: &Row<'_>) -> rusqlite::Result<(u64, FiringRow)> {
    let firing = FiringRow {
        job: row.get(1)?,
        key: row.get(2)?,
        trigger: row.get(3)?,
        due_ms: row.get(4)?,
        last_ms: row.get(5)?,
        count: row.get::<_, Option<i64>>(6)?.map(i64::unsigned_abs),
        end: match row.get::<_, i64>(7)? {
            0 => FiringEnd::Waiting,
            1 => FiringEnd::Skipped,
            _ => FiringEnd::Missed,
        },
        reason: row.get(8)?,
        told_ms: row.get(9)?,
        to_tell: row.get(10)?,
    };
    Ok((row.get::<_, i64>(0)?.unsigned_abs(), firing))
}

fn code(end: FiringEnd) -> i64 {
    match end {
        FiringEnd::Waiting => 0,
        FiringEnd::Skipped => 1,
        FiringEnd::Missed => 2,
    }
}
