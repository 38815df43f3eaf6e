//! The tables and what is written into them. One connection, used by one thread.
//!
//! A run is a small number here. A value row holds all that an item gave; large ones stay out of the tree of items, so
//! that listing keys and ends stays cheap. Every query walks an index (a test reads the plans).

use super::{
    epoch::Epoch,
    retain::Retaining,
    schema::{OF_A_RUN, SCHEMA},
};
use crate::{
    item::{Key, Lineage, OutputRecord},
    limits::STATE_BUSY_TIMEOUT,
    store::{Claim, GroupMember, Membership, StoreError, codec::Packed},
    world::failpoint::{Point, pass},
};
use rusqlite::{Connection, ErrorCode, OptionalExtension, named_params, params};
use std::{collections::BTreeMap, fs::File, path::PathBuf, sync::Arc};

const INSERT_VALUE: &str = "INSERT INTO value(json) VALUES(?1)";
const INSERT_ITEM: &str =
    "INSERT OR IGNORE INTO item(run, stage, lineage, key, state, pass, class, attempts, at_ms, deadline_ms, message,
        took_ms, width, vals)
    VALUES(:run, :stage, :lineage, :key, :state, :pass, :class, :attempts, :at_ms, :deadline_ms, :message,
        :took_ms, :width, :vals)";
pub(super) const REPLACE_OPEN: &str =
    "UPDATE item SET key = :key, state = :state, pass = :pass, class = :class, attempts = :attempts,
    at_ms = :at_ms, deadline_ms = :deadline_ms, message = :message, took_ms = :took_ms, width = :width, vals = :vals
    WHERE run = :run AND stage = :stage AND lineage = :lineage AND state < 0";
pub(super) const VALUES_OF: &str = "SELECT vals FROM item WHERE run = ?1 AND stage = ?2 AND lineage = ?3";
const DELETE_VALUE: &str = "DELETE FROM value WHERE id = ?1";
const INSERT_CLAIM: &str = "INSERT OR IGNORE INTO claim(run, stage, key, lineage, pass) VALUES(?1, ?2, ?3, ?4, ?5)";
pub(super) const HOLDER_OF_KEY: &str = "SELECT lineage, pass FROM claim WHERE run = ?1 AND stage = ?2 AND key = ?3";
const RENEW_CLAIM: &str = "UPDATE claim SET lineage = ?4, pass = ?5 WHERE run = ?1 AND stage = ?2 AND key = ?3";
const INSERT_OUTPUT_CLAIM: &str =
    "INSERT OR IGNORE INTO output_claim(run, path, stage, key, lineage) VALUES(?1, ?2, ?3, ?4, ?5)";
pub(super) const HOLDER_OF_PATH: &str = "SELECT stage, key, lineage FROM output_claim WHERE run = ?1 AND path = ?2";
const INSERT_OUTPUT: &str = "INSERT OR REPLACE INTO output(run, path, sha256, bytes) VALUES(?1, ?2, ?3, ?4)";
const INSERT_MEMBER: &str =
    "INSERT OR REPLACE INTO member(run, gather, grp, lineage, stage, idx) VALUES(?1, ?2, ?3, ?4, ?5, ?6)";
const INSERT_ABSENT: &str =
    "INSERT OR REPLACE INTO absent(run, gather, grp, stage, lineage, makes_group) VALUES(?1, ?2, ?3, ?4, ?5, ?6)";
pub(super) const RUN_ID: &str =
    "SELECT r.id, coalesce(h.pass, 1) FROM run r LEFT JOIN head h ON h.run = r.id WHERE r.name = ?1";
pub(super) const SET_PROGRESS: &str =
    "UPDATE head SET ran_ms = max(ran_ms, ?2), progress = progress + ?3 WHERE run = ?1 AND phase < 2";

/// Items that are forgotten in one transaction.
const FORGET_ROWS: u32 = 1024;

/// The connection and the transaction that is open in it.
pub(super) struct Tables {
    pub(super) connection: Connection,
    pub(super) epoch: Epoch,
    in_transaction: bool,
    /// The run asked for last.
    last_run: Option<(Arc<str>, Known)>,
    /// What the open transaction has written of each run.
    written: BTreeMap<i64, Written>,
    /// Where retention goes on.
    pub(super) retaining: Retaining,
    home: Home,
}

/// A run as the rows know it.
#[derive(Clone, Copy)]
pub(super) struct Known {
    pub id: i64,
    pub pass: u32,
}

#[derive(Default)]
struct Written {
    ran_ms: u64,
    rows: u64,
}

/// Where the file is, and who else may write to it.
pub(super) enum Home {
    /// A file without a name that may take so many bytes.
    Private {
        /// Ceiling.
        limit_bytes: u64,
    },
    /// A file that several processes write to.
    Durable {
        /// The file.
        path: PathBuf,
        /// Who wants to write takes this lock and waits with it for its transaction to begin. SQLite's own waiting is a
        /// poll, so that a process which begins again at once would keep the others out for ever. Who only reads has none.
        turn: Option<File>,
    },
}

/// What went wrong inside a request.
pub(super) enum Fault {
    Sql(rusqlite::Error),
    Store(StoreError),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Fault {
        Fault::Sql(error)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Fault {
        Fault::Store(error)
    }
}

impl Tables {
    /// Makes the tables in an empty private file that is set up already.
    pub fn create(connection: Connection, limit_bytes: u64) -> Result<Tables, StoreError> {
        let tables = Tables::new(connection, Epoch::private(), Home::Private { limit_bytes });
        let made = tables.connection.execute_batch(SCHEMA).and_then(|()| {
            // A private store is one process's from beginning to end.
            tables.connection.execute_batch(
                "INSERT INTO epoch(id, boot, pid, started_ms, is_over) VALUES(1, '', 0, 0, 0); INSERT INTO meta VALUES('')",
            )
        });
        made.map_err(|error| tables.error(error))?;
        Ok(tables)
    }

    /// Over tables that are there.
    pub fn new(connection: Connection, epoch: Epoch, home: Home) -> Tables {
        connection.set_prepared_statement_cache_capacity(64);
        let (written, retaining) = (BTreeMap::new(), Retaining::default());
        Tables { connection, epoch, in_transaction: false, last_run: None, written, retaining, home }
    }

    /// What an error of the library means here.
    pub fn error(&self, error: rusqlite::Error) -> StoreError {
        match (&self.home, error.sqlite_error_code()) {
            (Home::Private { limit_bytes }, Some(ErrorCode::DiskFull)) => StoreError::Full { limit: *limit_bytes },
            (Home::Private { .. }, _) => StoreError::Io(error.to_string()),
            (Home::Durable { path, .. }, Some(ErrorCode::DiskFull)) => {
                StoreError::Io(format!("{}: there is no room left on its disk", path.display()))
            }
            (Home::Durable { path, .. }, Some(ErrorCode::DatabaseBusy)) => StoreError::Io(format!(
                "{}: another process has been writing to it for {} s",
                path.display(),
                STATE_BUSY_TIMEOUT.as_secs()
            )),
            (Home::Durable { path, .. }, Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)) => {
                StoreError::Io(format!(
                    "{}: {error}. Restore it from a copy, or say `run --accept-new-state`, which sets it aside and begins \
                     anew",
                    path.display()
                ))
            }
            (Home::Durable { path, .. }, _) => StoreError::Io(format!("{}: {error}", path.display())),
        }
    }

    /// The same for everything that can go wrong.
    pub fn told(&self, fault: Fault) -> StoreError {
        match fault {
            Fault::Sql(error) => self.error(error),
            Fault::Store(error) => error,
        }
    }

    /// Where the file is.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// The last act: everything is committed, the process is done with the file.
    pub fn end(mut self) {
        if matches!(self.home, Home::Durable { .. }) && !self.epoch.only_reads() {
            // Where this fails the next who opens finds the lock free and looks the file through.
            let _ = self
                .begin()
                .and_then(|()| self.connection.execute("UPDATE epoch SET is_over = 1 WHERE id = ?1", [self.epoch.id]))
                .and_then(|_| self.commit());
            pass(Point::EpochOver);
        }
        self.epoch.end();
    }

    /// True while something is written and not committed.
    pub fn is_open(&self) -> bool {
        self.in_transaction
    }

    /// Opens a transaction if none is open.
    pub fn begin(&mut self) -> rusqlite::Result<()> {
        if self.in_transaction {
            return Ok(());
        }
        let turn = match &self.home {
            Home::Private { .. } => None,
            Home::Durable { turn, .. } => turn.as_ref(),
        };
        // Without the lock it is only less fair.
        let has_turn = turn.filter(|turn| turn.lock().is_ok());
        let begun = self.connection.prepare_cached("BEGIN IMMEDIATE").and_then(|mut begin| begin.execute([]));
        if let Some(turn) = has_turn {
            let _ = turn.unlock();
        }
        begun?;
        self.in_transaction = true;
        Ok(())
    }

    /// Commits what is open.
    pub fn commit(&mut self) -> rusqlite::Result<()> {
        if self.in_transaction {
            for (run, written) in std::mem::take(&mut self.written) {
                let (ran_ms, rows) = (stored(written.ran_ms), stored(written.rows));
                self.connection.prepare_cached(SET_PROGRESS)?.execute(params![run, ran_ms, rows])?;
            }
            self.connection.prepare_cached("COMMIT")?.execute([])?;
            self.in_transaction = false;
        }
        Ok(())
    }

    /// Lets go what is open. SQLite may have done so itself.
    pub fn roll_back(&mut self) {
        self.in_transaction = false;
        self.last_run = None;
        self.written.clear();
        if !self.connection.is_autocommit() {
            // Nothing is read or written after a roll-back that fails: the file is private, or recovered when opened again.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
    }

    /// A run that has rows or a head.
    pub fn known_run(&mut self, name: &Arc<str>) -> rusqlite::Result<Option<Known>> {
        if let Some((last, known)) = &self.last_run
            && last == name
        {
            return Ok(Some(*known));
        }
        let known = self
            .connection
            .prepare_cached(RUN_ID)?
            .query_row([name], |row| Ok(Known { id: row.get(0)?, pass: row.get(1)? }))
            .optional()?;
        if let Some(known) = known {
            self.last_run = Some((name.clone(), known));
        }
        Ok(known)
    }

    /// Looks a run up anew next time: its pass, or that it is there at all, has changed.
    pub fn look_again(&mut self) {
        self.last_run = None;
    }

    /// Writes rows.
    pub fn put(&mut self, run: &Arc<str>, rows: &[Packed], ran_ms: Option<u64>) -> Result<(), StoreError> {
        let run = self.writable_run(run).map_err(|error| self.error(error))?;
        for row in rows {
            if !self.put_row(run, row).map_err(|error| self.error(error))? {
                return Err(settled_twice(row));
            }
        }
        let written = self.written.entry(run.id).or_default();
        written.rows += rows.len() as u64;
        written.ran_ms = written.ran_ms.max(ran_ms.unwrap_or(0));
        Ok(())
    }

    /// Writes members of groups.
    pub fn assign(&mut self, run: &Arc<str>, gather: u16, members: &[GroupMember]) -> rusqlite::Result<()> {
        let run = self.writable_run(run)?.id;
        let mut insert_member = self.connection.prepare_cached(INSERT_MEMBER)?;
        let mut insert_absent = self.connection.prepare_cached(INSERT_ABSENT)?;
        for GroupMember { text, stage, lineage, index, membership } in members {
            let lineage = lineage.as_bytes();
            match membership {
                Membership::Value => insert_member.execute(params![run, gather, text, lineage, stage, index])?,
                missing => {
                    let makes_group = *missing == Membership::MissingOfParent;
                    insert_absent.execute(params![run, gather, text, stage, lineage, makes_group])?
                }
            };
        }
        Ok(())
    }

    /// Records a file.
    pub fn record(&mut self, run: &Arc<str>, output: &OutputRecord) -> rusqlite::Result<()> {
        let run = self.writable_run(run)?.id;
        let bytes = i64::try_from(output.bytes).unwrap_or(i64::MAX);
        self.connection.prepare_cached(INSERT_OUTPUT)?.execute(params![run, output.path, output.sha256, bytes])?;
        Ok(())
    }

    /// Takes keys of a stage, one after the other.
    pub fn claim_keys(&mut self, run: &Arc<str>, stage: u16, keys: &[(Key, Lineage)]) -> rusqlite::Result<Vec<Claim>> {
        let Known { id: run, pass } = self.writable_run(run)?;
        let mut insert = self.connection.prepare_cached(INSERT_CLAIM)?;
        let mut holder = self.connection.prepare_cached(HOLDER_OF_KEY)?;
        let mut has_row = self.connection.prepare_cached(VALUES_OF)?;
        let mut renew = self.connection.prepare_cached(RENEW_CLAIM)?;
        let mut claims = Vec::with_capacity(keys.len());
        for (key, lineage) in keys {
            let name = key.as_str();
            if insert.execute(params![run, stage, name, lineage.as_bytes(), pass])? == 1 {
                claims.push(Claim::Mine);
                continue;
            }
            let (first, first_pass) =
                holder.query_row(params![run, stage, name], |row| Ok((lineage_at(row, 0)?, row.get::<_, u32>(1)?)))?;
            claims.push(if first_pass == pass {
                match first == *lineage {
                    true => Claim::Mine,
                    false => Claim::Taken { stage, key: key.clone(), lineage: first },
                }
            } else if has_row.exists(params![run, stage, first.as_bytes()])? {
                renew.execute(params![run, stage, name, first.as_bytes(), pass])?;
                Claim::Known { lineage: first }
            } else {
                // The crash came between the claim and its row.
                renew.execute(params![run, stage, name, lineage.as_bytes(), pass])?;
                Claim::Mine
            });
        }
        Ok(claims)
    }

    /// Takes an output path.
    pub fn claim_output(
        &mut self,
        run: &Arc<str>,
        path: &str,
        stage: u16,
        key: &Key,
        lineage: &Lineage,
    ) -> rusqlite::Result<Claim> {
        let run = self.writable_run(run)?.id;
        let mut insert = self.connection.prepare_cached(INSERT_OUTPUT_CLAIM)?;
        if insert.execute(params![run, path, stage, key.as_str(), lineage.as_bytes()])? == 1 {
            return Ok(Claim::Mine);
        }
        let mut holder = self.connection.prepare_cached(HOLDER_OF_PATH)?;
        let (first_stage, first_key, first) = holder
            .query_row(params![run, path], |row| Ok((row.get::<_, u16>(0)?, key_at(row, 1)?, lineage_at(row, 2)?)))?;
        Ok(match first_stage == stage && first == *lineage {
            true => Claim::Mine,
            false => Claim::Taken { stage: first_stage, key: first_key, lineage: first },
        })
    }

    /// Forgets the rows of a run and the run, some rows at a time: the journal of one transaction of a private store is in
    /// memory, and no other process waits long. Begins with nothing open. What was not begun has no head and no definition.
    pub fn forget(&mut self, run: &Arc<str>) -> rusqlite::Result<()> {
        let Some(Known { id, .. }) = self.known_run(run)? else { return Ok(()) };
        while self.forget_some(id)? {}
        self.begin()?;
        self.forget_head(id)?;
        self.commit()?;
        self.look_again();
        Ok(())
    }

    /// Forgets some rows of a run, in a transaction of its own. False when none is left.
    pub fn forget_some(&mut self, id: i64) -> rusqlite::Result<bool> {
        self.begin()?;
        let some = self.forget_part(id)?;
        self.commit()?;
        Ok(some)
    }

    /// The same in the open transaction.
    pub fn forget_part(&mut self, id: i64) -> rusqlite::Result<bool> {
        let bound = self
            .connection
            .prepare_cached("SELECT stage, lineage FROM item WHERE run = ?1 ORDER BY stage, lineage LIMIT 1 OFFSET ?2")?
            .query_row(params![id, FORGET_ROWS], |row| Ok((row.get::<_, u16>(0)?, lineage_at(row, 1)?)))
            .optional()?;
        let (stage, lineage) = match &bound {
            Some((stage, lineage)) => (i64::from(*stage), lineage.as_bytes()),
            None => (i64::from(u16::MAX) + 1, &[][..]),
        };
        let mut forgotten = 0;
        for sql in [
            "DELETE FROM value WHERE id IN
                (SELECT vals FROM item WHERE run = ?1 AND (stage, lineage) <= (?2, ?3) AND vals IS NOT NULL)",
            "DELETE FROM item WHERE run = ?1 AND (stage, lineage) <= (?2, ?3)",
        ] {
            forgotten += self.connection.prepare_cached(sql)?.execute(params![id, stage, lineage])?;
        }
        for (table, key) in OF_A_RUN {
            let sql = format!(
                "DELETE FROM {table} WHERE run = ?1 AND ({key}) IN (SELECT {key} FROM {table} WHERE run = ?1 LIMIT ?2)"
            );
            forgotten += self.connection.prepare_cached(&sql)?.execute(params![id, FORGET_ROWS])?;
        }
        Ok(forgotten > 0)
    }

    /// Forgets a run that has no rows any more, and its definition where no other has it.
    pub fn forget_head(&mut self, id: i64) -> rusqlite::Result<()> {
        let def: Option<i64> = self
            .connection
            .prepare_cached("DELETE FROM head WHERE run = ?1 RETURNING def")?
            .query_row([id], |row| row.get(0))
            .optional()?;
        for table in ["stage", "notice", "unheard"] {
            self.connection.prepare_cached(&format!("DELETE FROM {table} WHERE run = ?1"))?.execute([id])?;
        }
        self.connection.prepare_cached("DELETE FROM run WHERE id = ?1")?.execute([id])?;
        if let Some(def) = def {
            self.connection
                .prepare_cached("DELETE FROM def WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM head WHERE def = ?1)")?
                .execute([def])?;
        }
        self.written.remove(&id);
        Ok(())
    }

    /// The number of a run, new if need be, in an open transaction.
    pub fn writable_run(&mut self, name: &Arc<str>) -> rusqlite::Result<Known> {
        self.begin()?;
        if let Some(known) = self.known_run(name)? {
            return Ok(known);
        }
        let id = self.connection.prepare_cached("INSERT INTO run(name) VALUES(?1)")?.insert([name])?;
        let known = Known { id, pass: 1 };
        self.last_run = Some((name.clone(), known));
        Ok(known)
    }

    /// False when the item is settled already.
    pub fn put_row(&self, run: Known, row: &Packed) -> rusqlite::Result<bool> {
        let lineage = row.lineage.as_bytes();
        let vals = match &row.values {
            None => None,
            Some(json) => Some(self.connection.prepare_cached(INSERT_VALUE)?.insert([json])?),
        };
        let columns = named_params! {
            ":run": run.id, ":stage": row.stage, ":lineage": lineage, ":key": row.key.as_str(), ":state": row.state,
            ":pass": run.pass, ":class": row.class, ":attempts": row.attempts, ":at_ms": row.at_ms,
            ":deadline_ms": row.deadline_ms, ":message": row.message, ":took_ms": row.took_ms, ":width": row.width,
            ":vals": vals,
        };
        if self.connection.prepare_cached(INSERT_ITEM)?.execute(columns)? == 1 {
            return Ok(true);
        }
        let old: Option<i64> = self
            .connection
            .prepare_cached(VALUES_OF)?
            .query_row(params![run.id, row.stage, lineage], |row| row.get(0))?;
        let is_replaced = self.connection.prepare_cached(REPLACE_OPEN)?.execute(columns)? == 1;
        if let Some(gone) = if is_replaced { old } else { vals } {
            self.connection.prepare_cached(DELETE_VALUE)?.execute([gone])?;
        }
        Ok(is_replaced)
    }
}

/// The error of a second terminal row.
pub(in crate::store) fn settled_twice(row: &Packed) -> StoreError {
    StoreError::Io(format!(
        "item {} of stage {} ({:?}) was settled twice: a defect of this program, please report it",
        row.key, row.stage, row.lineage
    ))
}

/// The lineage in a column.
pub(super) fn lineage_at(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Lineage> {
    Ok(Lineage::from_bytes(row.get_ref(column)?.as_blob()?))
}

/// The key in a column.
pub(super) fn key_at(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Key> {
    let text = row.get_ref(column)?.as_str()?;
    Key::parse(text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(
            column,
            rusqlite::types::Type::Text,
            format!("{text:?}: {error}").into(),
        )
    })
}

/// A number as SQLite keeps it.
pub(super) fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
