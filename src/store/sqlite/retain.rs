//! What is copied for a repetition, what is forgotten by name, what retention lets go.

use super::{
    firing::WAITS_AFTER,
    runs::{Found, Parent},
    tables::{Fault, Known, Tables, key_at, lineage_at, stored},
};
use crate::{
    item::{Key, Lineage},
    limits::{RETAIN_JOBS, RETAIN_VACUUM_PAGES, SUMMARY_LIST_MAX},
    store::{
        Begun, Copied, CopyPlan, Forgotten, NewRun, Retained, Retention, RunHead, RunPhase, after_key,
        codec::{self, HELD, Packed, is_below},
        forget::without_failures_of,
    },
    world::{
        failpoint::{Point, pass},
        plant::{Bug, planted},
    },
};
use rusqlite::{OptionalExtension, params};
use std::{collections::BTreeSet, sync::Arc};

pub(super) const LISTED: &str = "SELECT place FROM stage WHERE run = ?1 AND listed = 1";
pub(super) const WHOLE_ROWS: &str = "SELECT stage, lineage, key, state, class, attempts, message, took_ms,
    (SELECT json FROM value WHERE id = vals), width FROM item WHERE run = ?1 AND stage >= 0 ORDER BY stage, lineage";
const COPY_LISTED: &str = "INSERT INTO stage(run, place, listed) SELECT ?2, place, 1 FROM stage
    WHERE run = ?1 AND listed = 1 AND place = ?3";
pub(super) const COPY_CLAIMS: &str =
    "INSERT INTO claim(run, stage, key, lineage, pass) SELECT ?2, c.stage, c.key, c.lineage, 1 FROM claim c WHERE c.run = ?1
    AND EXISTS (SELECT 1 FROM item i WHERE i.run = ?2 AND i.stage = c.stage AND i.lineage = c.lineage)";
pub(super) const COPY_OUTPUT_CLAIMS: &str = "INSERT INTO output_claim(run, path, stage, key, lineage)
    SELECT ?2, c.path, c.stage, c.key, c.lineage FROM output_claim c WHERE c.run = ?1
    AND EXISTS (SELECT 1 FROM item i WHERE i.run = ?2 AND i.stage = c.stage AND i.lineage = c.lineage)";
pub(super) const COPY_OUTPUTS: &str = "INSERT INTO output(run, path, sha256, bytes)
    SELECT ?2, o.path, o.sha256, o.bytes FROM output o WHERE o.run = ?1
    AND EXISTS (SELECT 1 FROM output_claim c WHERE c.run = ?2 AND c.path = o.path)";

pub(super) const RUNS: &str = "SELECT r.id, r.name FROM run r WHERE r.id > ?1 ORDER BY r.id LIMIT 1";
pub(super) const NAMES: &str = "SELECT stage, lineage, key FROM item WHERE run = ?1 AND stage >= 0";
pub(super) const CLAIMED: &str = "SELECT path, stage, lineage, key FROM output_claim WHERE run = ?1 ORDER BY path";
pub(super) const CLAIMED_KEYS: &str = "SELECT stage, key FROM claim WHERE run = ?1 AND stage >= 0";
pub(super) const EVENT_KEYS: &str = "SELECT seq, key FROM event WHERE run = ?1 AND seq > 0";
pub(super) const KEPT_KEYS: &str = "SELECT job, key FROM kept WHERE (job, key) > (?1, ?2) ORDER BY job, key LIMIT 1";

pub(super) const NEXT_JOB: &str = "SELECT job FROM head WHERE job > ?1 ORDER BY job LIMIT 1";
pub(super) const BEYOND: &str = "SELECT run FROM head INDEXED BY head_job WHERE job = ?1 AND phase = 2
    ORDER BY run DESC LIMIT -1 OFFSET ?2";
pub(super) const OLDER: &str =
    "SELECT run FROM head INDEXED BY head_ended WHERE phase = 2 AND ended_ms < ?1 ORDER BY ended_ms";
pub(super) const OLDEST_WITH_ROWS: &str =
    "SELECT run FROM head INDEXED BY head_rows WHERE phase = 2 AND has_rows > 0 AND run > ?1 ORDER BY run LIMIT 1";
pub(super) const TO_TELL: &str = "SELECT 1 FROM notice WHERE run = ?1";
pub(super) const REPEATED: &str =
    "SELECT parent FROM head INDEXED BY head_open WHERE run >= 0 AND phase < 2 AND parent IS NOT NULL";

/// Where retention goes on: it never looks at all jobs in one step.
#[derive(Default)]
pub(super) struct Retaining {
    what: What,
    /// The job that was looked at last; empty before the first.
    behind: String,
}

/// What is let go, one after the other.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum What {
    #[default]
    Firings,
    Runs,
    Rows,
}

/// What came of a look at jobs.
pub(super) enum Looked<T> {
    Found(T),
    /// Nothing yet.
    AtSome,
    /// Nothing in any job.
    AtAll,
}

impl Tables {
    /// Begins a run that repeats another one, in an open transaction.
    pub fn copy_for_retry(&mut self, plan: &CopyPlan, new: &NewRun) -> Result<Copied, Fault> {
        self.begin()?;
        let Some(Known { id: parent, .. }) = self.known_run(&plan.parent)? else { return Ok(Copied::Unknown) };
        let Some(Found { head, .. }) = self.head(parent)? else { return Ok(Copied::Unknown) };
        if head.phase != RunPhase::Ended {
            return Ok(Copied::NotEnded(head));
        }
        if !head.has_rows {
            return Ok(Copied::Gone(head));
        }
        let begun = self.begin_run(new, Some(Parent { name: &head.run, chain_first: &head.chain_first }))?;
        if begun != Begun::Now {
            return Ok(Copied::Refused(begun));
        }
        let copy = self.writable_run(&new.run)?;
        let listed: BTreeSet<u16> =
            self.connection.prepare_cached(LISTED)?.query_map([parent], |row| row.get(0))?.collect::<Result<_, _>>()?;
        let mut copied = 0;
        let mut statement = self.connection.prepare_cached(WHOLE_ROWS)?;
        let mut rows = statement.query([parent])?;
        while let Some(row) = rows.next()? {
            let (stage, state): (u16, i64) = (row.get(0)?, row.get(3)?);
            if !is_taken_over(plan, &listed, stage, state) {
                continue;
            }
            let row = Packed {
                stage,
                lineage: lineage_at(row, 1)?,
                key: key_at(row, 2)?,
                state,
                class: row.get(4)?,
                attempts: row.get(5)?,
                at_ms: None,
                deadline_ms: None,
                message: row.get(6)?,
                values: row.get(8)?,
                width: row.get(9)?,
                took_ms: row.get(7)?,
                pass: copy.pass,
            };
            self.put_row(copy, &row)?;
            copied += 1;
        }
        drop(rows);
        drop(statement);
        for place in listed {
            self.connection.prepare_cached(COPY_LISTED)?.execute(params![parent, copy.id, place])?;
        }
        for sql in [COPY_CLAIMS, COPY_OUTPUT_CLAIMS, COPY_OUTPUTS] {
            self.connection.prepare_cached(sql)?.execute(params![parent, copy.id])?;
        }
        // What was done by the parent was done by an earlier pass of the repetition.
        self.connection.prepare_cached("UPDATE head SET pass = 2 WHERE run = ?1")?.execute([copy.id])?;
        self.look_again();
        pass(Point::CopyWritten);
        Ok(Copied::Now(copied))
    }
}

/// Rows that a repetition takes over (RUNS S6): what was done, what a whole listing could not use, what is held.
pub(in crate::store) fn is_taken_over(plan: &CopyPlan, listed: &BTreeSet<u16>, stage: u16, state: i64) -> bool {
    if plan.anew.contains(&stage) || state < codec::OK {
        return false;
    }
    if planted(Bug::RetryCopiesFailed) && state != HELD {
        return true;
    }
    state <= codec::EMPTY || (state == HELD && !plan.held) || (state != HELD && listed.contains(&stage))
}

impl Tables {
    /// Forgets a key and those below it in all runs that have ended, a run for a transaction. Begins with nothing open.
    pub fn forget_key(&mut self, above: &Key) -> Result<Forgotten, Fault> {
        let mut forgotten = Forgotten::default();
        let mut last = -1;
        loop {
            let next: Option<(i64, Arc<str>)> = self
                .connection
                .prepare_cached(RUNS)?
                .query_row([last], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            let Some((id, name)) = next else { break };
            last = id;
            self.begin()?;
            self.forget_key_in(id, &name, above, &mut forgotten)?;
            self.commit()?;
        }
        self.forget_kept(above, &mut forgotten)?;
        if matches!(self.home(), super::tables::Home::Durable { .. }) {
            // What was written over in the file still stands in the log.
            self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        }
        Ok(forgotten)
    }

    fn forget_key_in(&self, id: i64, run: &Arc<str>, above: &Key, forgotten: &mut Forgotten) -> Result<(), Fault> {
        let mut gone: Vec<(u16, Lineage)> = Vec::new();
        let mut rows = self.connection.prepare_cached(NAMES)?;
        let mut rows = rows.query([id])?;
        while let Some(row) = rows.next()? {
            if is_below(&key_at(row, 2)?, above) {
                gone.push((row.get(0)?, lineage_at(row, 1)?));
            }
        }
        let head = self.head(id)?;
        let has_ended = head.as_ref().is_some_and(|found| found.head.phase == RunPhase::Ended);
        if !has_ended {
            if !gone.is_empty() {
                forgotten.unfinished.push(run.clone());
            }
            return Ok(());
        }
        self.forget_texts(id, above, forgotten)?;
        if gone.is_empty() {
            return Ok(());
        }
        self.name_what_stays(id, run, above, &gone, forgotten)?;
        for (stage, lineage) in gone.iter().skip(usize::from(planted(Bug::ForgetLeavesRow))) {
            let place = params![id, stage, lineage.as_bytes()];
            for sql in [
                "DELETE FROM value WHERE id = (SELECT vals FROM item WHERE run = ?1 AND stage = ?2 AND lineage = ?3)",
                "DELETE FROM item WHERE run = ?1 AND stage = ?2 AND lineage = ?3",
            ] {
                self.connection.prepare_cached(sql)?.execute(place)?;
            }
        }
        let mut paths: Vec<String> = Vec::new();
        let mut claimed = self.connection.prepare_cached(CLAIMED)?;
        let mut claimed = claimed.query([id])?;
        while let Some(row) = claimed.next()? {
            if is_below(&key_at(row, 3)?, above) {
                paths.push(row.get(0)?);
            }
        }
        for path in paths {
            self.connection
                .prepare_cached("DELETE FROM output_claim WHERE run = ?1 AND path = ?2")?
                .execute(params![id, path])?;
        }
        // Who belonged to which group matters while a run gathers only; the texts of groups may name it.
        for sql in ["DELETE FROM member WHERE run = ?1", "DELETE FROM absent WHERE run = ?1"] {
            self.connection.prepare_cached(sql)?.execute([id])?;
        }
        forgotten.rows += gone.len() as u64;
        Ok(())
    }

    /// The key in the log, in the claims and in the record.
    fn forget_texts(&self, id: i64, above: &Key, forgotten: &mut Forgotten) -> Result<(), Fault> {
        let mut lines: Vec<i64> = Vec::new();
        let mut events = self.connection.prepare_cached(EVENT_KEYS)?;
        let mut events = events.query([id])?;
        while let Some(row) = events.next()? {
            if row.get::<_, Option<String>>(1)?.is_some() && is_below(&key_at(row, 1)?, above) {
                lines.push(row.get(0)?);
            }
        }
        for seq in &lines {
            self.connection
                .prepare_cached("DELETE FROM event WHERE run = ?1 AND seq = ?2")?
                .execute(params![id, seq])?;
        }
        forgotten.events += lines.len() as u64;
        let mut claimed: Vec<(u16, String)> = Vec::new();
        let mut claims = self.connection.prepare_cached(CLAIMED_KEYS)?;
        let mut claims = claims.query([id])?;
        while let Some(row) = claims.next()? {
            if is_below(&key_at(row, 1)?, above) {
                claimed.push((row.get(0)?, row.get(1)?));
            }
        }
        for (stage, key) in claimed {
            self.connection
                .prepare_cached("DELETE FROM claim WHERE run = ?1 AND stage = ?2 AND key = ?3")?
                .execute(params![id, stage, key])?;
        }
        let record: Option<String> = self
            .connection
            .prepare_cached("SELECT record FROM head WHERE run = ?1")?
            .query_row([id], |row| row.get(0))?;
        if let Some(record) = record.and_then(|record| without_failures_of(&record, above)) {
            self.connection
                .prepare_cached("UPDATE head SET record = ?2 WHERE run = ?1")?
                .execute(params![id, record])?;
        }
        Ok(())
    }

    /// Files and rows of gathers that hold what is forgotten, or may.
    fn name_what_stays(
        &self,
        id: i64,
        run: &Arc<str>,
        above: &Key,
        gone: &[(u16, Lineage)],
        forgotten: &mut Forgotten,
    ) -> Result<(), Fault> {
        let sources: BTreeSet<u16> =
            self.connection.prepare_cached(LISTED)?.query_map([id], |row| row.get(0))?.collect::<Result<_, _>>()?;
        let mut statement = self.connection.prepare_cached(CLAIMED)?;
        let mut rows = statement.query([id])?;
        while let Some(row) = rows.next()?
            && forgotten.outputs.len() < SUMMARY_LIST_MAX
        {
            let (lineage, key) = (lineage_at(row, 2)?, key_at(row, 3)?);
            if is_below(&key, above) || may_hold(&sources, gone, &lineage) {
                forgotten.outputs.push((run.clone(), row.get(0)?));
            }
        }
        let mut statement = self.connection.prepare_cached(NAMES)?;
        let mut rows = statement.query([id])?;
        while let Some(row) = rows.next()?
            && forgotten.gathers.len() < SUMMARY_LIST_MAX
        {
            let (stage, lineage, key) = (row.get(0)?, lineage_at(row, 1)?, key_at(row, 2)?);
            if !is_below(&key, above) && may_hold(&sources, gone, &lineage) {
                forgotten.gathers.push((run.clone(), stage, key));
            }
        }
        Ok(())
    }

    fn forget_kept(&mut self, above: &Key, forgotten: &mut Forgotten) -> Result<(), Fault> {
        let mut last = (String::new(), String::new());
        self.begin()?;
        loop {
            let next: Option<(String, String)> = self
                .connection
                .prepare_cached(KEPT_KEYS)?
                .query_row(params![last.0, last.1], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            let Some(next) = next else { break };
            if Key::parse(&next.1).is_ok_and(|key| is_below(&key, above)) {
                forgotten.kept += self
                    .connection
                    .prepare_cached("DELETE FROM kept WHERE job = ?1 AND key = ?2")?
                    .execute(params![next.0, next.1])? as u64;
            }
            last = next;
        }
        Ok(self.commit()?)
    }

    /// Lets go some of what is beyond `keep`: firings, then runs that are too old or too many of a job, then rows of the
    /// oldest runs. Begins with nothing open.
    pub fn retain(&mut self, keep: &Retention) -> Result<Retained, Fault> {
        let mut retained = Retained { more: true, ..Retained::default() };
        let repeated: BTreeSet<i64> = self.repeated()?;
        if self.retaining.what == What::Firings && !self.retain_firings(keep)? {
            self.retaining.what = What::Runs;
        }
        if self.retaining.what == What::Runs {
            match self.beyond(keep, &repeated)? {
                Looked::Found(run) => {
                    if !self.strip_some(run)? {
                        self.begin()?;
                        self.forget_head(run)?;
                        self.commit()?;
                        self.look_again();
                        retained.runs = 1;
                    }
                }
                Looked::AtSome => {}
                Looked::AtAll => self.retaining.what = What::Rows,
            }
        }
        if self.retaining.what == What::Rows {
            let is_too_large = self.bytes()? > keep.max_bytes;
            match if is_too_large { self.oldest_with_rows(&repeated)? } else { None } {
                Some(run) => {
                    if !self.strip_some(run)? {
                        self.begin()?;
                        self.connection
                            .prepare_cached("UPDATE head SET has_rows = 0 WHERE run = ?1")?
                            .execute([run])?;
                        self.commit()?;
                        retained.stripped = 1;
                    }
                }
                None => {
                    retained.more = false;
                    self.retaining.what = What::Firings;
                }
            }
        }
        // Each step of it gives one page back.
        let mut vacuum =
            self.connection.prepare_cached(&format!("PRAGMA incremental_vacuum({RETAIN_VACUUM_PAGES})"))?;
        let mut pages = vacuum.query([])?;
        while pages.next()?.is_some() {}
        Ok(retained)
    }

    /// Forgets a run for which `by`, which has just ended, stands from now on; in the open transaction.
    pub fn fold(&mut self, run: &Arc<str>, by: &RunHead) -> Result<(), Fault> {
        let Some(Known { id, .. }) = self.known_run(run)? else { return Ok(()) };
        let Some(Found { head, .. }) = self.head(id)? else { return Ok(()) };
        let is_over = head.phase == RunPhase::Ended && head.job == by.job && head.run != by.run;
        if !is_over || self.is_needed(run)? {
            return Ok(());
        }
        while self.forget_part(id)? {}
        self.forget_head(id)?;
        self.look_again();
        Ok(())
    }

    /// Somebody needs a run that has ended.
    pub fn is_needed(&mut self, run: &Arc<str>) -> Result<bool, Fault> {
        let Some(Known { id, .. }) = self.known_run(run)? else { return Ok(false) };
        let Some(Found { head, .. }) = self.head(id)? else { return Ok(false) };
        let waits = params![head.due_ms, after_key(&head.job, run)];
        Ok(self.connection.prepare_cached(TO_TELL)?.exists([id])?
            || self.connection.prepare_cached(WAITS_AFTER)?.exists(waits)?
            || self.repeated()?.contains(&id))
    }

    /// Looks at some jobs, from behind the one that was looked at last, for the first of which there is something to let go.
    pub fn look_at_jobs<T>(
        &mut self,
        next_job: &str,
        look: impl Fn(&Tables, &str) -> Result<Option<T>, Fault>,
    ) -> Result<Looked<T>, Fault> {
        for _ in 0..RETAIN_JOBS {
            let behind = [&self.retaining.behind];
            let job: Option<String> =
                self.connection.prepare_cached(next_job)?.query_row(behind, |row| row.get(0)).optional()?;
            let Some(job) = job else {
                self.retaining.behind.clear();
                return Ok(Looked::AtAll);
            };
            if let Some(found) = look(self, &job)? {
                return Ok(Looked::Found(found));
            }
            self.retaining.behind = job;
        }
        Ok(Looked::AtSome)
    }

    /// Forgets some rows of a run, which is not whole from then on. False when none is left.
    fn strip_some(&mut self, run: i64) -> Result<bool, Fault> {
        self.begin()?;
        self.connection
            .prepare_cached("UPDATE head SET has_rows = 2 WHERE run = ?1 AND has_rows = 1")?
            .execute([run])?;
        Ok(self.forget_some(run)?)
    }

    /// Parents of repetitions that have not ended.
    fn repeated(&mut self) -> Result<BTreeSet<i64>, Fault> {
        let names: Vec<Arc<str>> =
            self.connection.prepare_cached(REPEATED)?.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        let mut ids = BTreeSet::new();
        for name in names {
            ids.extend(self.known_run(&name)?.map(|known| known.id));
        }
        Ok(ids)
    }

    /// A run that is one too many of its job, or too old.
    fn beyond(&mut self, keep: &Retention, repeated: &BTreeSet<i64>) -> Result<Looked<i64>, Fault> {
        let first = |rows: &mut rusqlite::Rows<'_>| -> rusqlite::Result<Option<i64>> {
            while let Some(row) = rows.next()? {
                let run = row.get(0)?;
                if !repeated.contains(&run) {
                    return Ok(Some(run));
                }
            }
            Ok(None)
        };
        let oldest_end = keep.now_ms.saturating_sub(stored(keep.max_age_ms));
        if let Some(run) = first(&mut self.connection.prepare_cached(OLDER)?.query([oldest_end])?)? {
            return Ok(Looked::Found(run));
        }
        self.look_at_jobs(NEXT_JOB, |tables, job| {
            let mut statement = tables.connection.prepare_cached(BEYOND)?;
            let mut rows = statement.query(params![job, stored(keep.max_runs)])?;
            Ok(first(&mut rows)?)
        })
    }

    fn oldest_with_rows(&self, repeated: &BTreeSet<i64>) -> Result<Option<i64>, Fault> {
        let mut last = -1;
        loop {
            let next: Option<i64> =
                self.connection.prepare_cached(OLDEST_WITH_ROWS)?.query_row([last], |row| row.get(0)).optional()?;
            match next {
                Some(run) if repeated.contains(&run) => last = run,
                other => return Ok(other),
            }
        }
    }

    /// What the file holds, without its free pages.
    fn bytes(&self) -> Result<u64, Fault> {
        let number = |pragma: &str| -> rusqlite::Result<u64> {
            self.connection.query_row(pragma, [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs)
        };
        let pages = number("PRAGMA page_count")?.saturating_sub(number("PRAGMA freelist_count")?);
        Ok(pages * number("PRAGMA page_size")?)
    }
}

/// True when an item of this lineage saw one of those that are forgotten, or may have: it descends from it, or it is of a
/// gather, which is behind a source that listed it.
pub(in crate::store) fn may_hold(sources: &BTreeSet<u16>, gone: &[(u16, Lineage)], lineage: &Lineage) -> bool {
    let descends = gone.iter().any(|(_, above)| lineage.as_bytes().starts_with(above.as_bytes()));
    descends || !sources.contains(&lineage.source())
}
