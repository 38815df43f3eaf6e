//! How runs begin, change hands and end. Every change is a compare-and-set on how far the run is and whose it is.
//!
//! `phase`: 0 runs, 1 was let go, 2 has ended, which is never left (a trigger holds that too). `pass` grows with each
//! take-over; rows and claims carry the pass that wrote them.

use super::tables::{Fault, Known, Tables, stored};
use crate::{
    item::RunOutcome,
    store::{
        Began, Begun, Clocks, NewRun, Notice, Resume, RunDetails, RunEnd, RunHead, RunKind, RunPhase, StageMark,
        StoreError, TakenOver,
        crash::{AT_MAX, Crashes, rebase},
    },
};
use rusqlite::{OptionalExtension, Row, named_params, params};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// Heads, with what comes behind `FROM`.
macro_rules! heads {
    ($rest:literal) => {
        concat!(
            "SELECT h.run, r.name, h.job, h.cause, h.fire_key, h.kind, h.due_ms, h.started_ms, h.deadline_ms, h.budget_ms,
            h.ran_ms, h.phase, h.pass, h.crashes, h.outcome, h.reason, h.ended_ms, h.parent, h.chain_first, h.has_rows,
            h.epoch FROM ",
            $rest
        )
    };
}

pub(super) const HEAD: &str = heads!("head h CROSS JOIN run r ON r.id = h.run WHERE h.run = ?1");
pub(super) const FIRING: &str = "SELECT run FROM head WHERE job = ?1 AND fire_key = ?2";
pub(super) const OPEN: &str = heads!(
    "head h INDEXED BY head_open CROSS JOIN run r ON r.id = h.run WHERE h.run >= 0 AND h.phase < 2
    AND (?1 IS NULL OR h.job = ?1) ORDER BY h.run LIMIT ?2"
);
pub(super) const NEWEST: &str =
    heads!("head h CROSS JOIN run r ON r.id = h.run WHERE h.run < ?1 ORDER BY h.run DESC LIMIT ?2");
pub(super) const NEWEST_OF_JOB: &str = heads!(
    "head h INDEXED BY head_job CROSS JOIN run r ON r.id = h.run WHERE h.run < ?1 AND h.job = ?3 ORDER BY h.run DESC LIMIT ?2"
);
pub(super) const TEXTS: &str =
    "SELECT d.body, h.params, h.options, h.record FROM head h CROSS JOIN def d ON d.id = h.def
    WHERE h.run = ?1";
pub(super) const STAGES: &str =
    "SELECT place, listed, began_ran_ms, began_wall_ms FROM stage WHERE run = ?1 ORDER BY place";
pub(super) const PROGRESS: &str =
    "SELECT h.progress, h.progress_at_crash, h.crashes, h.counted, h.wall_ms, h.boot_ms, e.boot
    FROM head h LEFT JOIN epoch e ON e.id = h.epoch WHERE h.run = ?1";
pub(super) const NOTICES: &str = "SELECT r.name, n.place, h.epoch FROM notice n CROSS JOIN head h ON h.run = n.run
    CROSS JOIN run r ON r.id = n.run WHERE n.run >= 0 ORDER BY n.run, n.place LIMIT ?1";
pub(super) const UNHEARD: &str = heads!(
    "unheard u CROSS JOIN head h ON h.run = u.run CROSS JOIN run r ON r.id = u.run WHERE u.run >= 0 ORDER BY u.run LIMIT ?1"
);
const INSERT_HEAD: &str =
    "INSERT INTO head(run, job, cause, fire_key, kind, due_ms, started_ms, deadline_ms, budget_ms,
        ran_ms, wall_ms, boot_ms, def, params, options, parent, chain_first, epoch, pass, phase, progress,
        progress_at_crash, crashes, counted, has_rows)
    VALUES(:run, :job, :cause, :fire_key, :kind, :due_ms, :wall_ms, :deadline_ms, :budget_ms,
        0, :wall_ms, :boot_ms, :def, :params, :options, :parent, :chain_first, :epoch, 1, 0, 0,
        0, 0, '[]', 1)";
pub(super) const TAKE_OVER: &str =
    "UPDATE head SET epoch = ?3, pass = pass + 1, phase = 0, wall_ms = ?4, boot_ms = ?5, crashes = ?6,
        counted = ?7, progress_at_crash = CASE WHEN ?8 THEN progress ELSE progress_at_crash END
    WHERE run = ?1 AND phase < 2 AND epoch = ?2";
pub(super) const HOLD: &str = "UPDATE item SET state = 6 WHERE run = ?1 AND state < 0 AND state = -2";
pub(super) const REBASE: &str = "UPDATE item SET at_ms = max(0, min(at_ms, ?3) + ?2), deadline_ms = NULL
    WHERE run = ?1 AND state < 0 AND state = -1";
const RELEASE: &str = "UPDATE head SET phase = 1 WHERE run = ?1 AND phase = 0 AND epoch = ?2";
pub(super) const END: &str =
    "UPDATE head SET phase = 2, outcome = ?3, reason = ?4, record = ?5, ended_ms = ?6, ran_ms = max(ran_ms, ?7)
    WHERE run = ?1 AND phase < 2 AND epoch = ?2";

/// A head and the epoch that it belongs to.
pub(super) struct Found {
    pub head: RunHead,
    pub id: i64,
    pub epoch: i64,
}

/// The run that a new one repeats.
pub(super) struct Parent<'a> {
    pub name: &'a Arc<str>,
    pub chain_first: &'a Arc<str>,
}

impl Tables {
    /// Begins a run, in an open transaction.
    pub fn begin_run(&mut self, new: &NewRun, parent: Option<Parent<'_>>) -> Result<Begun, Fault> {
        self.begin()?;
        if let Some(known) = self.known_run(&new.run)?
            && let Some(found) = self.head(known.id)?
        {
            return Ok(Begun::Before(found.head));
        }
        if let Some(key) = &new.fire_key {
            let firing = self
                .connection
                .prepare_cached(FIRING)?
                .query_row(params![new.job, key], |row| row.get(0))
                .optional()?;
            if let Some(id) = firing
                && let Some(found) = self.head(id)?
            {
                return Ok(Begun::Before(found.head));
            }
        }
        if new.alone
            && let Some(busy) = self.open_heads(Some(&new.job), usize::MAX)?.into_iter().find(|head| head.alive)
        {
            return Ok(Begun::Busy(busy));
        }
        if let Some(key) = &new.fire_key
            && !self.start_firing(&new.job, key)?
        {
            return Ok(Begun::Settled);
        }
        let def = self.definition(&new.definition)?;
        let Known { id, .. } = self.writable_run(&new.run)?;
        let kind = match new.kind {
            RunKind::Foreground => 0,
            RunKind::Serve => 1,
        };
        self.connection.prepare_cached(INSERT_HEAD)?.execute(named_params! {
            ":run": id, ":job": new.job, ":cause": new.trigger, ":fire_key": new.fire_key, ":kind": kind,
            ":due_ms": new.due_ms, ":deadline_ms": new.deadline_ms, ":budget_ms": new.budget_ms.map(stored),
            ":wall_ms": new.clocks.wall_ms, ":boot_ms": stored(new.clocks.boot_ms), ":def": def, ":params": new.params,
            ":options": new.options, ":parent": parent.as_ref().map(|parent| parent.name),
            ":chain_first": parent.as_ref().map_or(&new.run, |parent| parent.chain_first), ":epoch": self.epoch.id,
        })?;
        Ok(Begun::Now)
    }

    /// Takes a run over, in an open transaction.
    pub fn take_over(&mut self, run: &Arc<str>, now: Clocks) -> Result<TakenOver, Fault> {
        self.begin()?;
        let Some(Known { id, .. }) = self.known_run(run)? else { return Ok(TakenOver::Unknown) };
        let Some(Found { head, epoch, .. }) = self.head(id)? else { return Ok(TakenOver::Unknown) };
        if head.phase == RunPhase::Ended || head.alive {
            return Ok(TakenOver::Refused(Box::new(head)));
        }
        let (mut crashes, then, boot, made_progress) =
            self.connection.prepare_cached(PROGRESS)?.query_row([id], |row| {
                let crashes = Crashes { total: row.get(2)?, counted_ms: Crashes::read(&row.get::<_, String>(3)?) };
                let then = Clocks { wall_ms: row.get(4)?, boot_ms: row.get::<_, i64>(5)?.unsigned_abs() };
                let boot: Option<String> = row.get(6)?;
                Ok((crashes, then, boot, row.get::<_, i64>(0)? > row.get::<_, i64>(1)?))
            })?;
        let has_crashed = head.phase == RunPhase::Running;
        if has_crashed {
            crashes.add(now.wall_ms, made_progress);
        }
        let taken = self.connection.prepare_cached(TAKE_OVER)?.execute(params![
            id,
            epoch,
            self.epoch.id,
            now.wall_ms,
            stored(now.boot_ms),
            crashes.total,
            crashes.text(),
            has_crashed,
        ])?;
        self.look_again();
        if taken == 0 {
            return Ok(TakenOver::Refused(Box::new(head)));
        }
        let held = self.connection.prepare_cached(HOLD)?.execute([id])?;
        let same_boot = boot.is_some_and(|boot| boot == self.epoch.boot);
        self.connection.prepare_cached(REBASE)?.execute(params![id, rebase(then, now, same_boot), AT_MAX])?;
        let Some(details) = self.details(id)? else { return Ok(TakenOver::Unknown) };
        Ok(TakenOver::Now(Box::new(Resume { details, held: held as u64, is_poison: crashes.are_too_many() })))
    }

    /// Lets a run of this process go, in an open transaction.
    pub fn release(&mut self, run: &Arc<str>) -> Result<bool, Fault> {
        self.begin()?;
        let Some(Known { id, .. }) = self.known_run(run)? else { return Ok(false) };
        Ok(self.connection.prepare_cached(RELEASE)?.execute(params![id, self.epoch.id])? == 1)
    }

    /// Settles a run of this process, in an open transaction.
    pub fn end_run(&mut self, run: &Arc<str>, end: &RunEnd) -> Result<bool, Fault> {
        self.begin()?;
        let Some(Known { id, .. }) = self.known_run(run)? else { return Ok(false) };
        match self.head(id)? {
            Some(found) if found.epoch == self.epoch.id && found.head.alive => {
                let settled = self.settle(&found, end, end.outcome)?;
                if let Some(folded) = end.folds.as_ref().filter(|_| settled) {
                    self.fold(folded, &found.head)?;
                }
                Ok(settled)
            }
            _ => Ok(false),
        }
    }

    /// Settles a run that nobody works on as `interrupted`, in an open transaction.
    pub fn interrupt(&mut self, run: &Arc<str>, end: &RunEnd) -> Result<bool, Fault> {
        self.begin()?;
        let Some(Known { id, .. }) = self.known_run(run)? else { return Ok(false) };
        match self.head(id)? {
            Some(found) if !found.head.alive => self.settle(&found, end, RunOutcome::Interrupted),
            _ => Ok(false),
        }
    }

    /// A notice is sent, in an open transaction.
    pub fn notice_done(&mut self, run: &Arc<str>, place: u16) -> Result<bool, Fault> {
        self.begin()?;
        let Some(Known { id, .. }) = self.known_run(run)? else { return Ok(false) };
        let mut delete = self.connection.prepare_cached("DELETE FROM notice WHERE run = ?1 AND place = ?2")?;
        Ok(delete.execute(params![id, place])? == 1)
    }

    /// Notices that are to be sent.
    pub fn notices(&self, limit: usize) -> Result<Vec<Notice>, Fault> {
        let mut statement = self.connection.prepare_cached(NOTICES)?;
        let found = statement.query_map([stored(limit as u64)], |row| {
            let alive = self.epoch.is_alive(row.get(2)?);
            Ok(Notice { run: row.get(0)?, place: row.get(1)?, alive })
        })?;
        Ok(found.collect::<Result<_, _>>()?)
    }

    /// Runs that have not ended, oldest first.
    pub fn open_heads(&self, job: Option<&str>, limit: usize) -> Result<Vec<RunHead>, Fault> {
        let mut statement = self.connection.prepare_cached(OPEN)?;
        self.heads(statement.query(params![job, stored(limit as u64)])?)
    }

    /// Runs that have ended and whose ends nobody has heard, oldest first.
    pub fn unheard(&self, limit: usize) -> Result<Vec<RunHead>, Fault> {
        self.heads(self.connection.prepare_cached(UNHEARD)?.query([stored(limit as u64)])?)
    }

    /// Runs, newest first.
    pub fn history(
        &mut self,
        job: Option<&str>,
        before: Option<&Arc<str>>,
        limit: usize,
    ) -> Result<Vec<RunHead>, Fault> {
        let before = match before {
            None => i64::MAX,
            Some(run) => match self.known_run(run)? {
                Some(known) => known.id,
                None => return Ok(Vec::new()),
            },
        };
        let limit = stored(limit as u64);
        match job {
            None => self.heads(self.connection.prepare_cached(NEWEST)?.query(params![before, limit])?),
            Some(job) => self.heads(self.connection.prepare_cached(NEWEST_OF_JOB)?.query(params![before, limit, job])?),
        }
    }

    /// All of a run but its rows.
    pub fn details(&self, id: i64) -> Result<Option<RunDetails>, Fault> {
        let Some(Found { head, .. }) = self.head(id)? else { return Ok(None) };
        let mut statement = self.connection.prepare_cached(STAGES)?;
        let stages = statement.query_map([id], |row| {
            let began = match (row.get::<_, Option<i64>>(2)?, row.get(3)?) {
                (Some(ran_ms), Some(wall_ms)) => Some(Began { ran_ms: ran_ms.unsigned_abs(), wall_ms }),
                _ => None,
            };
            Ok(StageMark { stage: row.get(0)?, listed: row.get(1)?, began })
        })?;
        let stages = stages.collect::<Result<_, _>>()?;
        let details = self.connection.prepare_cached(TEXTS)?.query_row([id], |row| {
            let (definition, params, options, record) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
            Ok(RunDetails { head, definition, params, options, record, stages })
        })?;
        Ok(Some(details))
    }

    /// The head of a run.
    pub fn head(&self, id: i64) -> Result<Option<Found>, Fault> {
        let mut statement = self.connection.prepare_cached(HEAD)?;
        let mut rows = statement.query([id])?;
        rows.next()?.map(|row| self.found(row)).transpose()
    }

    fn heads(&self, mut rows: rusqlite::Rows<'_>) -> Result<Vec<RunHead>, Fault> {
        let mut heads = Vec::new();
        while let Some(row) = rows.next()? {
            heads.push(self.found(row)?.head);
        }
        Ok(heads)
    }

    fn found(&self, row: &Row<'_>) -> Result<Found, Fault> {
        let number =
            |column| -> rusqlite::Result<Option<u64>> { Ok(row.get::<_, Option<i64>>(column)?.map(i64::unsigned_abs)) };
        let phase = match row.get::<_, i64>(11)? {
            0 => RunPhase::Running,
            1 => RunPhase::Interrupted,
            _ => RunPhase::Ended,
        };
        let outcome = match row.get::<_, Option<String>>(14)? {
            None => None,
            Some(name) => Some(outcome_named(&name)?),
        };
        let epoch = row.get(20)?;
        let head = RunHead {
            run: row.get(1)?,
            job: row.get(2)?,
            trigger: row.get(3)?,
            fire_key: row.get(4)?,
            kind: if row.get::<_, i64>(5)? == 0 { RunKind::Foreground } else { RunKind::Serve },
            due_ms: row.get(6)?,
            started_ms: row.get(7)?,
            deadline_ms: row.get(8)?,
            budget_ms: number(9)?,
            ran_ms: number(10)?.unwrap_or(0),
            phase,
            alive: phase == RunPhase::Running && self.epoch.is_alive(epoch),
            pass: row.get(12)?,
            crashes: row.get(13)?,
            outcome,
            reason: row.get(15)?,
            ended_ms: row.get(16)?,
            parent: row.get(17)?,
            chain_first: row.get(18)?,
            has_rows: row.get::<_, i64>(19)? == 1,
        };
        Ok(Found { head, id: row.get(0)?, epoch })
    }

    fn settle(&self, found: &Found, end: &RunEnd, outcome: RunOutcome) -> Result<bool, Fault> {
        let (id, ran_ms) = (found.id, stored(end.ran_ms));
        let settled = self.connection.prepare_cached(END)?.execute(params![
            id,
            found.epoch,
            outcome.name(),
            end.reason,
            end.record,
            end.ended_ms,
            ran_ms
        ])?;
        if settled == 0 {
            return Ok(false);
        }
        let mut insert = self.connection.prepare_cached("INSERT OR IGNORE INTO notice(run, place) VALUES(?1, ?2)")?;
        for place in &end.notices {
            insert.execute(params![id, place])?;
        }
        self.connection.prepare_cached("INSERT OR IGNORE INTO unheard(run) VALUES(?1)")?.execute([id])?;
        Ok(true)
    }

    /// The number of a definition: kept once, however many runs have it.
    fn definition(&self, body: &str) -> rusqlite::Result<i64> {
        let hash: String = Sha256::digest(body).iter().map(|byte| format!("{byte:02x}")).collect();
        let mut find = self.connection.prepare_cached("SELECT id FROM def WHERE hash = ?1")?;
        match find.query_row([&hash], |row| row.get(0)).optional()? {
            Some(id) => Ok(id),
            None => self
                .connection
                .prepare_cached("INSERT INTO def(hash, body) VALUES(?1, ?2)")?
                .insert(params![hash, body]),
        }
    }
}

fn outcome_named(name: &str) -> Result<RunOutcome, StoreError> {
    let found = RunOutcome::ALL.into_iter().find(|outcome| outcome.name() == name);
    found.ok_or_else(|| StoreError::Io(format!("a run ended as {name:?}, which is no outcome")))
}
