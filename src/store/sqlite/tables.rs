//! The tables and what is written into them. One connection, used by one thread.
//!
//! A run is a small number here. A value row holds all that an item gave; large ones stay out of the tree of items, so
//! that listing keys and ends stays cheap. Every query walks an index (a test reads the plans).

use crate::{
    item::{Key, Lineage, OutputRecord},
    store::{Claim, GroupMember, Membership, StoreError, codec::Packed},
};
use rusqlite::{Connection, ErrorCode, OptionalExtension, named_params, params};
use std::sync::Arc;

/// Everything that is kept. `state` of an item: see `codec`; -1 waits, above 1 is missing.
const SCHEMA: &str = "
CREATE TABLE run(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE value(id INTEGER PRIMARY KEY, json TEXT NOT NULL) STRICT;
CREATE TABLE item(
    run INTEGER NOT NULL, stage INTEGER NOT NULL, lineage BLOB NOT NULL, key TEXT NOT NULL, state INTEGER NOT NULL,
    class TEXT, attempts INTEGER NOT NULL, at_ms INTEGER, deadline_ms INTEGER, message TEXT, vals INTEGER,
    PRIMARY KEY(run, stage, lineage)
) STRICT, WITHOUT ROWID;
CREATE INDEX item_missing ON item(run, stage, lineage) WHERE state > 1;
CREATE INDEX item_retry ON item(run, stage, at_ms, lineage) WHERE state < 0;
CREATE TABLE claim(
    run INTEGER NOT NULL, stage INTEGER NOT NULL, key TEXT NOT NULL, lineage BLOB NOT NULL,
    PRIMARY KEY(run, stage, key)
) STRICT, WITHOUT ROWID;
CREATE TABLE output_claim(
    run INTEGER NOT NULL, path TEXT NOT NULL, stage INTEGER NOT NULL, key TEXT NOT NULL, lineage BLOB NOT NULL,
    PRIMARY KEY(run, path)
) STRICT, WITHOUT ROWID;
CREATE TABLE output(
    run INTEGER NOT NULL, path TEXT NOT NULL, sha256 TEXT NOT NULL, bytes INTEGER NOT NULL,
    PRIMARY KEY(run, path)
) STRICT, WITHOUT ROWID;
CREATE TABLE member(
    run INTEGER NOT NULL, gather INTEGER NOT NULL, grp TEXT NOT NULL, lineage BLOB NOT NULL, stage INTEGER NOT NULL,
    idx INTEGER NOT NULL,
    PRIMARY KEY(run, gather, grp, lineage, stage, idx)
) STRICT, WITHOUT ROWID;
CREATE TABLE absent(
    run INTEGER NOT NULL, gather INTEGER NOT NULL, grp TEXT NOT NULL, stage INTEGER NOT NULL, lineage BLOB NOT NULL,
    makes_group INTEGER NOT NULL,
    PRIMARY KEY(run, gather, grp, stage, lineage)
) STRICT, WITHOUT ROWID;
";

const INSERT_VALUE: &str = "INSERT INTO value(json) VALUES(?1)";
const INSERT_ITEM: &str =
    "INSERT OR IGNORE INTO item(run, stage, lineage, key, state, class, attempts, at_ms, deadline_ms, message, vals)
    VALUES(:run, :stage, :lineage, :key, :state, :class, :attempts, :at_ms, :deadline_ms, :message, :vals)";
const REPLACE_RETRY: &str = "UPDATE item SET key = :key, state = :state, class = :class, attempts = :attempts,
    at_ms = :at_ms, deadline_ms = :deadline_ms, message = :message, vals = :vals
    WHERE run = :run AND stage = :stage AND lineage = :lineage AND state < 0";
pub(super) const VALUES_OF: &str = "SELECT vals FROM item WHERE run = ?1 AND stage = ?2 AND lineage = ?3";
const DELETE_VALUE: &str = "DELETE FROM value WHERE id = ?1";
const INSERT_CLAIM: &str = "INSERT OR IGNORE INTO claim(run, stage, key, lineage) VALUES(?1, ?2, ?3, ?4)";
pub(super) const HOLDER_OF_KEY: &str = "SELECT lineage FROM claim WHERE run = ?1 AND stage = ?2 AND key = ?3";
const INSERT_OUTPUT_CLAIM: &str =
    "INSERT OR IGNORE INTO output_claim(run, path, stage, key, lineage) VALUES(?1, ?2, ?3, ?4, ?5)";
pub(super) const HOLDER_OF_PATH: &str = "SELECT stage, key, lineage FROM output_claim WHERE run = ?1 AND path = ?2";
const INSERT_OUTPUT: &str = "INSERT OR REPLACE INTO output(run, path, sha256, bytes) VALUES(?1, ?2, ?3, ?4)";
const INSERT_MEMBER: &str =
    "INSERT OR REPLACE INTO member(run, gather, grp, lineage, stage, idx) VALUES(?1, ?2, ?3, ?4, ?5, ?6)";
const INSERT_ABSENT: &str =
    "INSERT OR REPLACE INTO absent(run, gather, grp, stage, lineage, makes_group) VALUES(?1, ?2, ?3, ?4, ?5, ?6)";
pub(super) const RUN_ID: &str = "SELECT id FROM run WHERE name = ?1";

/// Items that are forgotten in one transaction.
const FORGET_ROWS: u32 = 1024;

/// The connection and the transaction that is open in it.
pub(super) struct Tables {
    pub(super) connection: Connection,
    in_transaction: bool,
    /// The run asked for last, and its number.
    last_run: Option<(Arc<str>, i64)>,
    limit_bytes: u64,
}

impl Tables {
    /// Makes the tables in an empty file that is set up already.
    pub fn create(connection: Connection, limit_bytes: u64) -> Result<Tables, StoreError> {
        connection.set_prepared_statement_cache_capacity(32);
        let tables = Tables { connection, in_transaction: false, last_run: None, limit_bytes };
        tables.connection.execute_batch(SCHEMA).map_err(|error| tables.error(error))?;
        Ok(tables)
    }

    /// What an error of the library means here.
    pub fn error(&self, error: rusqlite::Error) -> StoreError {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => StoreError::Full { limit: self.limit_bytes },
            _ => StoreError::Io(error.to_string()),
        }
    }

    /// True while something is written and not committed.
    pub fn is_open(&self) -> bool {
        self.in_transaction
    }

    /// Opens a transaction if none is open.
    pub fn begin(&mut self) -> rusqlite::Result<()> {
        if !self.in_transaction {
            self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
            self.in_transaction = true;
        }
        Ok(())
    }

    /// Commits what is open.
    pub fn commit(&mut self) -> rusqlite::Result<()> {
        if self.in_transaction {
            self.connection.prepare_cached("COMMIT")?.execute([])?;
            self.in_transaction = false;
        }
        Ok(())
    }

    /// Lets go what is open. SQLite may have done so itself.
    pub fn roll_back(&mut self) {
        self.in_transaction = false;
        self.last_run = None;
        if !self.connection.is_autocommit() {
            // Nothing is read or written after a roll-back that fails: the file is private, or recovered when opened again.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
    }

    /// The number of a run that has rows.
    pub fn known_run(&mut self, name: &Arc<str>) -> rusqlite::Result<Option<i64>> {
        if let Some((last, id)) = &self.last_run
            && last == name
        {
            return Ok(Some(*id));
        }
        let id = self.connection.prepare_cached(RUN_ID)?.query_row([name], |row| row.get(0)).optional()?;
        if let Some(id) = id {
            self.last_run = Some((name.clone(), id));
        }
        Ok(id)
    }

    /// Writes rows.
    pub fn put(&mut self, run: &Arc<str>, rows: &[Packed]) -> Result<(), StoreError> {
        let run = self.writable_run(run).map_err(|error| self.error(error))?;
        for row in rows {
            if !self.put_row(run, row).map_err(|error| self.error(error))? {
                return Err(settled_twice(row));
            }
        }
        Ok(())
    }

    /// Writes members of groups.
    pub fn assign(&mut self, run: &Arc<str>, gather: u16, members: &[GroupMember]) -> rusqlite::Result<()> {
        let run = self.writable_run(run)?;
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
        let run = self.writable_run(run)?;
        let bytes = i64::try_from(output.bytes).unwrap_or(i64::MAX);
        self.connection.prepare_cached(INSERT_OUTPUT)?.execute(params![run, output.path, output.sha256, bytes])?;
        Ok(())
    }

    /// Takes keys of a stage, one after the other.
    pub fn claim_keys(&mut self, run: &Arc<str>, stage: u16, keys: &[(Key, Lineage)]) -> rusqlite::Result<Vec<Claim>> {
        let run = self.writable_run(run)?;
        let mut insert = self.connection.prepare_cached(INSERT_CLAIM)?;
        let mut holder = self.connection.prepare_cached(HOLDER_OF_KEY)?;
        let mut claims = Vec::with_capacity(keys.len());
        for (key, lineage) in keys {
            if insert.execute(params![run, stage, key.as_str(), lineage.as_bytes()])? == 1 {
                claims.push(Claim::Mine);
                continue;
            }
            let first = holder.query_row(params![run, stage, key.as_str()], |row| lineage_at(row, 0))?;
            claims.push(match first == *lineage {
                true => Claim::Mine,
                false => Claim::Taken { stage, key: key.clone(), lineage: first },
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
        let run = self.writable_run(run)?;
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

    /// Forgets a run, some rows at a time: the journal of one transaction is in memory. Begins with nothing open.
    pub fn forget(&mut self, run: &Arc<str>) -> rusqlite::Result<()> {
        let Some(id) = self.known_run(run)? else { return Ok(()) };
        loop {
            self.begin()?;
            let bound = self
                .connection
                .prepare_cached(
                    "SELECT stage, lineage FROM item WHERE run = ?1 ORDER BY stage, lineage LIMIT 1 OFFSET ?2",
                )?
                .query_row(params![id, FORGET_ROWS], |row| Ok((row.get::<_, u16>(0)?, lineage_at(row, 1)?)))
                .optional()?;
            let Some((stage, lineage)) = bound else { break };
            for sql in [
                "DELETE FROM value WHERE id IN
                    (SELECT vals FROM item WHERE run = ?1 AND (stage, lineage) <= (?2, ?3) AND vals IS NOT NULL)",
                "DELETE FROM item WHERE run = ?1 AND (stage, lineage) <= (?2, ?3)",
            ] {
                self.connection.prepare_cached(sql)?.execute(params![id, stage, lineage.as_bytes()])?;
            }
            self.commit()?;
        }
        self.begin()?;
        for sql in [
            "DELETE FROM value WHERE id IN (SELECT vals FROM item WHERE run = ?1 AND vals IS NOT NULL)",
            "DELETE FROM item WHERE run = ?1",
        ] {
            self.connection.execute(sql, [id])?;
        }
        self.commit()?;
        for (table, key) in [
            ("claim", "stage, key"),
            ("output_claim", "path"),
            ("output", "path"),
            ("member", "gather, grp, lineage, stage, idx"),
            ("absent", "gather, grp, stage, lineage"),
        ] {
            let sql = format!(
                "DELETE FROM {table} WHERE run = ?1 AND ({key}) IN (SELECT {key} FROM {table} WHERE run = ?1 LIMIT ?2)"
            );
            loop {
                self.begin()?;
                let forgotten = self.connection.execute(&sql, params![id, FORGET_ROWS])?;
                self.commit()?;
                if forgotten == 0 {
                    break;
                }
            }
        }
        self.begin()?;
        self.connection.execute("DELETE FROM run WHERE id = ?1", [id])?;
        self.commit()?;
        self.last_run = None;
        Ok(())
    }

    /// The number of a run, new if need be, in an open transaction.
    fn writable_run(&mut self, name: &Arc<str>) -> rusqlite::Result<i64> {
        self.begin()?;
        if let Some(id) = self.known_run(name)? {
            return Ok(id);
        }
        self.connection.execute("INSERT INTO run(name) VALUES(?1)", [name])?;
        let id = self.connection.last_insert_rowid();
        self.last_run = Some((name.clone(), id));
        Ok(id)
    }

    /// False when the item is settled already.
    fn put_row(&self, run: i64, row: &Packed) -> rusqlite::Result<bool> {
        let lineage = row.lineage.as_bytes();
        let vals = match &row.values {
            None => None,
            Some(json) => Some(self.connection.prepare_cached(INSERT_VALUE)?.insert([json])?),
        };
        let columns = named_params! {
            ":run": run, ":stage": row.stage, ":lineage": lineage, ":key": row.key.as_str(), ":state": row.state,
            ":class": row.class, ":attempts": row.attempts, ":at_ms": row.at_ms,
            ":deadline_ms": row.deadline_ms, ":message": row.message, ":vals": vals,
        };
        if self.connection.prepare_cached(INSERT_ITEM)?.execute(columns)? == 1 {
            return Ok(true);
        }
        let old: Option<i64> =
            self.connection.prepare_cached(VALUES_OF)?.query_row(params![run, row.stage, lineage], |row| row.get(0))?;
        let is_replaced = self.connection.prepare_cached(REPLACE_RETRY)?.execute(columns)? == 1;
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
