//! What a run that goes on asks of its rows: what is counted, what is left to do.

use super::query::VALUE;
use super::tables::{Fault, Known, Tables, key_at, lineage_at, stored};
use crate::{
    item::Lineage,
    store::{
        Tally, Unsettled,
        codec::{self, PageRoom, RETRY},
    },
    world::plant::{Bug, planted},
};
use rusqlite::{OptionalExtension, params};
use std::sync::Arc;

const LISTING_DONE: &str = "INSERT INTO stage(run, place, listed) VALUES(?1, ?2, 1)
    ON CONFLICT(run, place) DO UPDATE SET listed = 1";
const STAGE_BEGAN: &str = "INSERT INTO stage(run, place, listed, began_ran_ms, began_wall_ms) VALUES(?1, ?2, 0, ?3, ?4)
    ON CONFLICT(run, place) DO UPDATE SET began_ran_ms = ?3, began_wall_ms = ?4 WHERE began_ran_ms IS NULL";
pub(super) const HIGHEST: &str = "SELECT lineage FROM item WHERE run = ?1 AND stage = ?2 ORDER BY lineage DESC LIMIT 1";
pub(super) const FORGET_MISSING: [&str; 2] = [
    "DELETE FROM value WHERE id IN (SELECT vals FROM item INDEXED BY item_missing
        WHERE run = ?1 AND stage = ?2 AND state > 1 AND vals IS NOT NULL)",
    "DELETE FROM item WHERE run = ?1 AND stage = ?2 AND state > 1",
];
pub(super) const ENDS: &str = "SELECT state, class, attempts FROM item WHERE run = ?1 AND stage = ?2";
/// An only value is asked for its child here, several one by one.
pub(super) const PARENTS: &str = "SELECT i.lineage, i.key, i.width, i.vals FROM item i
    WHERE i.run = ?1 AND i.stage = ?2 AND i.lineage > ?3 AND i.state = 0 AND i.pass < ?4 AND i.vals IS NOT NULL
    AND (i.width > 1 OR NOT EXISTS (SELECT 1 FROM item c WHERE c.run = ?1 AND c.stage = ?5 AND c.lineage = i.lineage))
    ORDER BY i.lineage";
pub(super) const HAS_ROW: &str = "SELECT state FROM item WHERE run = ?1 AND stage = ?2 AND lineage = ?3";

impl Tables {
    /// The listing of a source has ended, in an open transaction.
    pub fn listing_done(&mut self, run: &Arc<str>, source: u16) -> Result<(), Fault> {
        let Known { id, .. } = self.writable_run(run)?;
        self.connection.prepare_cached(LISTING_DONE)?.execute(params![id, source])?;
        Ok(())
    }

    /// A stage has begun, in an open transaction.
    pub fn stage_began(&mut self, run: &Arc<str>, stage: u16, ran_ms: u64, wall_ms: i64) -> Result<(), Fault> {
        let Known { id, .. } = self.writable_run(run)?;
        self.connection.prepare_cached(STAGE_BEGAN)?.execute(params![id, stage, stored(ran_ms), wall_ms])?;
        Ok(())
    }

    /// Forgets what a source missed; the first ordinal that no row of it has had.
    pub fn relist(&mut self, run: &Arc<str>, source: u16) -> Result<u64, Fault> {
        let Known { id, .. } = self.writable_run(run)?;
        let highest = self
            .connection
            .prepare_cached(HIGHEST)?
            .query_row(params![id, source], |row| lineage_at(row, 0))
            .optional()?;
        for sql in FORGET_MISSING.into_iter().filter(|_| !planted(Bug::RelistKeepsMissing)) {
            self.connection.prepare_cached(sql)?.execute(params![id, source])?;
        }
        Ok(highest.map_or(0, |lineage| lineage.ordinal() + 1))
    }

    /// Counts of a stage.
    pub fn tally(&self, run: i64, stage: u16) -> Result<Tally, Fault> {
        let mut tally = Tally::default();
        tally.counts.complete = true;
        let mut statement = self.connection.prepare_cached(ENDS)?;
        let mut rows = statement.query(params![run, stage])?;
        while let Some(row) = rows.next()? {
            let state: i64 = row.get(0)?;
            if state == RETRY {
                tally.waiting += 1;
            } else if state > RETRY {
                let class = row.get_ref(1)?.as_str_or_null().map_err(rusqlite::Error::from)?;
                tally.counts.items += 1;
                tally.counts.settle(codec::outcome(state, class)?, row.get(2)?);
            }
        }
        Ok(tally)
    }

    /// Ok items of earlier passes with children that a stage has no row of.
    pub fn unsettled(
        &self,
        run: Known,
        (parent, stage): (u16, u16),
        after: Option<&Lineage>,
        limit: usize,
    ) -> Result<Vec<Unsettled>, Fault> {
        let after = after.map_or(&[][..], Lineage::as_bytes);
        let mut statement = self.connection.prepare_cached(PARENTS)?;
        let mut rows = statement.query(params![run.id, parent, after, run.pass, stage])?;
        let mut values = self.connection.prepare_cached(VALUE)?;
        let mut child = self.connection.prepare_cached(HAS_ROW)?;
        let mut room = PageRoom::new(limit);
        let mut found = Vec::new();
        while !room.is_full() {
            let Some(row) = rows.next()? else { break };
            let lineage = lineage_at(row, 0)?;
            let width: u32 = row.get(2)?;
            let mut open = Vec::new();
            if width == 1 {
                open.push(0);
            } else {
                for index in 0..width {
                    if !child.exists(params![run.id, stage, lineage.child(index).as_bytes()])? {
                        open.push(index);
                    }
                }
            }
            if open.is_empty() {
                continue;
            }
            let lines: String = values.query_row([row.get::<_, i64>(3)?], |row| row.get(0))?;
            room.take(lines.len());
            found.push(Unsettled { lineage, key: key_at(row, 1)?, values: codec::values(&lines)?, open });
        }
        Ok(found)
    }

    /// Which of these items have a terminal row.
    pub fn settled(&self, run: i64, stage: u16, lineages: &[Lineage]) -> Result<Vec<bool>, Fault> {
        let mut state = self.connection.prepare_cached(HAS_ROW)?;
        let mut is_settled = |lineage: &Lineage| -> rusqlite::Result<bool> {
            let state =
                state.query_row(params![run, stage, lineage.as_bytes()], |row| row.get::<_, i64>(0)).optional()?;
            Ok(state.is_some_and(|state| state > RETRY))
        };
        Ok(lineages.iter().map(&mut is_settled).collect::<Result<_, _>>()?)
    }
}
