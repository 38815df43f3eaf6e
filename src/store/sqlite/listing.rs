//! What people ask of a run: its rows, its slowest ones, its log; and what jobs remember of one run for the next.

use super::tables::{Fault, Tables, key_at, lineage_at, stored};
use crate::{
    item::{Key, Lineage, Value},
    limits::{EVENTS_BYTES_MAX, PAGE_BYTES},
    store::{
        EventQuery, RowFilter, RowHead, RowQuery, RunEvent,
        codec::{self, KeptValue, is_below},
        event_bytes,
    },
};
use rusqlite::{OptionalExtension, Row, params};
use std::{cmp::Reverse, collections::BTreeSet, sync::Arc};

/// Row heads, with what comes behind `FROM`.
macro_rules! row_heads {
    ($rest:literal) => {
        concat!(
            "SELECT stage, lineage, key, state, class, at_ms, deadline_ms, attempts, message, took_ms, pass FROM ",
            $rest
        )
    };
}

pub(super) const ROWS: &str =
    row_heads!("item WHERE run = ?1 AND stage >= ?2 AND (stage, lineage) > (?2, ?3) ORDER BY stage, lineage");
pub(super) const MISSING_ROWS: &str = row_heads!(
    "item INDEXED BY item_missing WHERE run = ?1 AND stage >= ?2 AND (stage, lineage) > (?2, ?3) AND state > 1
    ORDER BY stage, lineage"
);
pub(super) const TIMES: &str = "SELECT took_ms, stage, lineage FROM item WHERE run = ?1 AND stage >= ?2";
pub(super) const ONE_ROW: &str = row_heads!("item WHERE run = ?1 AND stage = ?2 AND lineage = ?3");
pub(super) const EVENTS: &str =
    "SELECT seq, wall_ms, level, stage, key, text FROM event WHERE run = ?1 AND seq > ?2 ORDER BY seq";
const EVENTS_STATE: &str = "SELECT next_event, event_bytes FROM run WHERE id = ?1";
const SET_EVENTS_STATE: &str = "UPDATE run SET next_event = ?2, event_bytes = ?3 WHERE id = ?1";
const INSERT_EVENT: &str =
    "INSERT INTO event(run, seq, wall_ms, level, stage, key, text) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)";
const DELETE_EVENT: &str = "DELETE FROM event WHERE run = ?1 AND seq = ?2";
const KEEP: &str = "INSERT OR REPLACE INTO kept(job, key, due_ms, run, json) VALUES(?1, ?2, ?3, ?4, ?5)";
/// All before the one before.
pub(super) const DROP_OLDER: &str = "DELETE FROM kept WHERE job = ?1 AND key = ?2 AND due_ms <
    (SELECT due_ms FROM kept WHERE job = ?1 AND key = ?2 AND due_ms < ?3 ORDER BY due_ms DESC LIMIT 1)";
pub(super) const STATE_OF: &str =
    "SELECT json FROM kept WHERE job = ?1 AND key = ?2 AND due_ms < ?3 ORDER BY due_ms DESC LIMIT 1";

impl Tables {
    /// Rows without values.
    pub fn row_heads(&self, run: i64, query: &RowQuery) -> Result<Vec<RowHead>, Fault> {
        let first = (query.stage.unwrap_or(0), Lineage::from_bytes(&[]));
        let (stage, lineage) = query.after.clone().map_or(first.clone(), |after| after.max(first));
        let sql = match query.filter {
            RowFilter::All => ROWS,
            RowFilter::Missing => MISSING_ROWS,
        };
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query(params![run, stage, lineage.as_bytes()])?;
        let mut found = Vec::new();
        while found.len() < query.limit {
            let Some(row) = rows.next()? else { break };
            if query.stage.is_some_and(|wanted| row.get::<_, u16>(0).is_ok_and(|stage| stage > wanted)) {
                break;
            }
            let key = key_at(row, 2)?;
            if query.key.as_ref().is_none_or(|above| is_below(&key, above)) {
                found.push(row_head(row, key)?);
            }
        }
        Ok(found)
    }

    /// The rows that took longest. All rows are read, so many are held.
    pub fn slowest(&self, run: i64, stage: Option<u16>, limit: usize) -> Result<Vec<RowHead>, Fault> {
        let mut statement = self.connection.prepare_cached(TIMES)?;
        let mut rows = statement.query(params![run, stage.unwrap_or(0)])?;
        let mut longest = BTreeSet::new();
        while let Some(row) = rows.next()? {
            let place: u16 = row.get(1)?;
            if stage.is_some_and(|wanted| wanted < place) {
                break;
            }
            let Some(took_ms) = row.get::<_, Option<u32>>(0)? else { continue };
            longest.insert((Reverse(took_ms), place, lineage_at(row, 2)?));
            if longest.len() > limit {
                longest.pop_last();
            }
        }
        let mut one = self.connection.prepare_cached(ONE_ROW)?;
        let mut found = Vec::with_capacity(longest.len());
        for (_, stage, lineage) in longest {
            let mut rows = one.query(params![run, stage, lineage.as_bytes()])?;
            if let Some(row) = rows.next()? {
                found.push(row_head(row, key_at(row, 2)?)?);
            }
        }
        Ok(found)
    }

    /// Adds lines to the log of a run, and lets the oldest go that have no room.
    pub fn add_events(&mut self, run: &Arc<str>, events: &[RunEvent]) -> rusqlite::Result<()> {
        let run = self.writable_run(run)?.id;
        let (mut next, mut bytes) = self
            .connection
            .prepare_cached(EVENTS_STATE)?
            .query_row([run], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?.unsigned_abs())))?;
        let mut insert = self.connection.prepare_cached(INSERT_EVENT)?;
        for event in events {
            let RunEvent { wall_ms, level, stage, key, text } = event;
            insert.execute(params![run, next, wall_ms, level, stage, key.as_ref().map(Key::as_str), text])?;
            next += 1;
            bytes += event_bytes(event);
        }
        if bytes > EVENTS_BYTES_MAX {
            let mut oldest = self.connection.prepare_cached(EVENTS)?;
            let mut delete = self.connection.prepare_cached(DELETE_EVENT)?;
            let mut gone = Vec::new();
            let mut rows = oldest.query(params![run, 0])?;
            while bytes > EVENTS_BYTES_MAX {
                let Some(row) = rows.next()? else { break };
                bytes = bytes.saturating_sub(event_bytes(&event_at(row)?));
                gone.push(row.get::<_, i64>(0)?);
            }
            drop(rows);
            for seq in gone {
                delete.execute(params![run, seq])?;
            }
        }
        self.connection.prepare_cached(SET_EVENTS_STATE)?.execute(params![run, next, stored(bytes)])?;
        Ok(())
    }

    /// Lines of the log of a run.
    pub fn events(&self, run: i64, query: &EventQuery) -> Result<Vec<(u64, RunEvent)>, Fault> {
        let mut statement = self.connection.prepare_cached(EVENTS)?;
        let mut rows = statement.query(params![run, query.after.map_or(0, stored)])?;
        let mut found = Vec::new();
        let mut bytes = 0;
        while found.len() < query.limit && bytes < PAGE_BYTES as u64 {
            let Some(row) = rows.next()? else { break };
            let event = event_at(row)?;
            let is_asked =
                query.key.as_ref().is_none_or(|above| event.key.as_ref().is_some_and(|key| is_below(key, above)));
            if is_asked {
                bytes += event_bytes(&event);
                found.push((row.get::<_, i64>(0)?.unsigned_abs(), event));
            }
        }
        Ok(found)
    }

    /// Keeps a value; with it stay those of later dues and the one before.
    pub fn keep(&mut self, kept: &KeptValue) -> rusqlite::Result<()> {
        let KeptValue { run, job, key, due_ms, json } = kept;
        self.begin()?;
        self.connection.prepare_cached(KEEP)?.execute(params![job, key.as_str(), due_ms, run, json])?;
        self.connection.prepare_cached(DROP_OLDER)?.execute(params![job, key.as_str(), due_ms])?;
        Ok(())
    }

    /// The newest value of an earlier due.
    pub fn state_of(&self, job: &str, key: &Key, due_ms: i64) -> Result<Option<Value>, Fault> {
        let json: Option<String> = self
            .connection
            .prepare_cached(STATE_OF)?
            .query_row(params![job, key.as_str(), due_ms], |row| row.get(0))
            .optional()?;
        Ok(json.as_deref().map(codec::value).transpose()?)
    }
}

fn row_head(row: &Row<'_>, key: Key) -> Result<RowHead, Fault> {
    let class: Option<String> = row.get(4)?;
    Ok(RowHead {
        stage: row.get(0)?,
        lineage: lineage_at(row, 1)?,
        key,
        end: codec::end(row.get(3)?, class.as_deref(), row.get(5)?, row.get(6)?)?,
        attempts: row.get(7)?,
        message: row.get(8)?,
        took_ms: row.get(9)?,
        pass: row.get(10)?,
    })
}

fn event_at(row: &Row<'_>) -> rusqlite::Result<RunEvent> {
    let has_key = row.get_ref(4)?.as_str_or_null().is_ok_and(|text| text.is_some());
    Ok(RunEvent {
        wall_ms: row.get(1)?,
        level: row.get(2)?,
        stage: row.get(3)?,
        key: if has_key { Some(key_at(row, 4)?) } else { None },
        text: row.get(5)?,
    })
}
