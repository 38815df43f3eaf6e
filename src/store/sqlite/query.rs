//! What is read from the tables, page by page.
//!
//! Several stages are read as one by merging a cursor for each; a group is read along its own index. No query sorts.

use super::tables::{Tables, key_at, lineage_at};
use crate::{
    item::{Key, Lineage, OutputRecord},
    store::{
        Page, Row, StoreError, StoredFailure, StoredValue,
        codec::{self, Packed, PageRoom, RETRY},
    },
};
use rusqlite::params;

pub(super) const STAGE_VALUES: &str = "SELECT i.lineage, i.key, v.json FROM item i CROSS JOIN value v ON v.id = i.vals
    WHERE i.run = ?1 AND i.stage = ?2 AND i.lineage >= ?3 AND i.state = 0 ORDER BY i.lineage";
pub(super) const GROUP_VALUES: &str = "SELECT m.lineage, m.stage, m.idx, i.key, i.vals
    FROM member m CROSS JOIN item i ON i.run = m.run AND i.stage = m.stage AND i.lineage = m.lineage
    WHERE m.run = ?1 AND m.gather = ?2 AND m.grp = ?3 AND (m.lineage, m.stage, m.idx) > (?4, ?5, ?6)
    AND i.state = 0 AND i.vals IS NOT NULL ORDER BY m.lineage, m.stage, m.idx";
pub(super) const VALUE: &str = "SELECT json FROM value WHERE id = ?1";
pub(super) const STAGE_FAILURES: &str = "SELECT lineage, key, state, class, message, attempts,
    (SELECT json FROM value WHERE id = vals) FROM item INDEXED BY item_missing
    WHERE run = ?1 AND stage = ?2 AND lineage > ?3 AND state > 1 ORDER BY lineage";
pub(super) const GROUP_FAILURES: &str = "SELECT a.lineage, i.key, i.state, i.class, i.message, i.attempts,
    (SELECT json FROM value WHERE id = i.vals)
    FROM absent a CROSS JOIN item i ON i.run = a.run AND i.stage = a.stage AND i.lineage = a.lineage
    WHERE a.run = ?1 AND a.stage = ?2 AND a.lineage > ?3 AND a.gather = ?4 AND a.grp = ?5 AND i.state > 1
    ORDER BY a.lineage";
pub(super) const OUTPUTS: &str = "SELECT path, sha256, bytes FROM output WHERE run = ?1 ORDER BY path LIMIT ?2";
pub(super) const OUTPUTS_TOTAL: &str = "SELECT count(*) FROM output WHERE run = ?1";
/// The first group at or behind a text; the next ones by the two below, which step over all members of one.
pub(super) const FIRST_MEMBER: &str =
    "SELECT grp FROM member WHERE run = ?1 AND gather = ?2 AND grp >= ?3 ORDER BY grp LIMIT 1";
pub(super) const FIRST_ABSENT: &str =
    "SELECT grp FROM absent WHERE run = ?1 AND gather = ?2 AND grp >= ?3 AND makes_group = 1 ORDER BY grp LIMIT 1";
pub(super) const NEXT_MEMBER: &str =
    "SELECT grp FROM member WHERE run = ?1 AND gather = ?2 AND grp > ?3 ORDER BY grp LIMIT 1";
pub(super) const NEXT_ABSENT: &str =
    "SELECT grp FROM absent WHERE run = ?1 AND gather = ?2 AND grp > ?3 AND makes_group = 1 ORDER BY grp LIMIT 1";
pub(super) const DEFERRED: &str =
    "SELECT at_ms, lineage, key, attempts, message, (SELECT json FROM value WHERE id = vals), deadline_ms, width,
    took_ms
    FROM item INDEXED BY item_open
    WHERE run = ?1 AND stage = ?2 AND state < 0 AND state = -1 AND (at_ms, lineage) > (?3, ?4) ORDER BY at_ms, lineage";

/// The lines of one value row, kept while consecutive members of a group come from it.
struct Lines {
    id: i64,
    text: String,
    places: Vec<(usize, usize)>,
}

/// The next row of one stage.
struct Head {
    stage: u16,
    lineage: Lineage,
    key: Key,
    text: String,
}

impl Tables {
    /// Values of ok rows of some stages (sorted, each once), all or those of a group.
    pub fn values(
        &self,
        run: i64,
        stages: &[u16],
        group: Option<&(u16, String)>,
        page: &Page,
    ) -> Result<Vec<StoredValue>, StoreError> {
        match group {
            None => self.values_of_stages(run, stages, page),
            Some((gather, text)) => self.values_of_group(run, stages, (*gather, text), page),
        }
    }

    /// Missing items of some stages (sorted, each once), all or those of a group.
    pub fn failures(
        &self,
        run: i64,
        stages: &[u16],
        group: Option<&(u16, String)>,
        page: &Page,
    ) -> Result<Vec<StoredFailure>, StoreError> {
        let sql = |error| self.error(error);
        let mut room = PageRoom::new(page.limit);
        let mut found = Vec::new();
        for stage in stages.iter().copied() {
            let after: &[u8] = match &page.after {
                Some((_, last, _)) if stage < *last => continue,
                Some((lineage, last, _)) if stage == *last => lineage.as_bytes(),
                _ => &[],
            };
            let question = if group.is_some() { GROUP_FAILURES } else { STAGE_FAILURES };
            let mut statement = self.connection.prepare_cached(question).map_err(sql)?;
            let mut rows = match group {
                None => statement.query(params![run, stage, after]),
                Some((gather, text)) => statement.query(params![run, stage, after, gather, text]),
            }
            .map_err(sql)?;
            while !room.is_full() {
                let Some(row) = rows.next().map_err(sql)? else { break };
                let kept: Option<String> = row.get(6).map_err(sql)?;
                room.take(kept.as_ref().map_or(0, String::len));
                let class: Option<String> = row.get(3).map_err(sql)?;
                let value = kept.as_deref().and_then(|text| text.split('\n').next()).map(codec::value).transpose()?;
                found.push(StoredFailure {
                    stage,
                    lineage: lineage_at(row, 0).map_err(sql)?,
                    key: key_at(row, 1).map_err(sql)?,
                    outcome: codec::outcome(row.get(2).map_err(sql)?, class.as_deref())?,
                    message: row.get::<_, Option<String>>(4).map_err(sql)?.unwrap_or_default(),
                    attempts: row.get(5).map_err(sql)?,
                    value,
                });
            }
        }
        Ok(found)
    }

    /// The first files, and how many there are.
    pub fn outputs(&self, run: i64, limit: usize) -> rusqlite::Result<(Vec<OutputRecord>, u64)> {
        let total: i64 = self.connection.prepare_cached(OUTPUTS_TOTAL)?.query_row([run], |row| row.get(0))?;
        let mut statement = self.connection.prepare_cached(OUTPUTS)?;
        let first = statement.query_map(params![run, i64::try_from(limit).unwrap_or(i64::MAX)], |row| {
            let bytes: i64 = row.get(2)?;
            Ok(OutputRecord { path: row.get(0)?, sha256: row.get(1)?, bytes: bytes.unsigned_abs() })
        })?;
        Ok((first.collect::<Result<_, _>>()?, total.unsigned_abs()))
    }

    /// Texts of groups behind a text.
    pub fn groups(&self, run: i64, gather: u16, after: Option<&str>, limit: usize) -> rusqlite::Result<Vec<String>> {
        let mut texts: Vec<String> = Vec::new();
        let first = |sql: &str, text: &str| -> rusqlite::Result<Option<String>> {
            let mut statement = self.connection.prepare_cached(sql)?;
            let mut rows = statement.query(params![run, gather, text])?;
            rows.next()?.map(|row| row.get(0)).transpose()
        };
        while texts.len() < limit {
            let (member, absent) = match texts.last().map(String::as_str).or(after) {
                None => (first(FIRST_MEMBER, "")?, first(FIRST_ABSENT, "")?),
                Some(last) => (first(NEXT_MEMBER, last)?, first(NEXT_ABSENT, last)?),
            };
            let Some(next) = [member, absent].into_iter().flatten().min() else { break };
            texts.push(next);
        }
        Ok(texts)
    }

    /// Rows that wait, behind a place.
    pub fn deferred(
        &self,
        run: i64,
        stage: u16,
        after: Option<&(u64, Lineage)>,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        let sql = |error| self.error(error);
        let (at, lineage) = match after {
            Some((at, lineage)) => (i64::try_from(*at).unwrap_or(i64::MAX), lineage.as_bytes()),
            None => (-1, &[][..]),
        };
        let mut statement = self.connection.prepare_cached(DEFERRED).map_err(sql)?;
        let mut rows = statement.query(params![run, stage, at, lineage]).map_err(sql)?;
        let mut room = PageRoom::new(limit);
        let mut found = Vec::new();
        while !room.is_full() {
            let Some(row) = rows.next().map_err(sql)? else { break };
            let unpacked = || -> rusqlite::Result<Packed> {
                Ok(Packed {
                    stage,
                    lineage: lineage_at(row, 1)?,
                    key: key_at(row, 2)?,
                    state: RETRY,
                    class: None,
                    attempts: row.get(3)?,
                    at_ms: row.get(0)?,
                    message: row.get(4)?,
                    values: row.get(5)?,
                    deadline_ms: row.get(6)?,
                    width: row.get(7)?,
                    took_ms: row.get(8)?,
                    pass: 1,
                })
            };
            let packed = unpacked().map_err(sql)?;
            room.take(packed.values.as_ref().map_or(0, String::len));
            found.push(packed.unpack()?);
        }
        Ok(found)
    }

    fn values_of_stages(&self, run: i64, stages: &[u16], page: &Page) -> Result<Vec<StoredValue>, StoreError> {
        let sql = |error| self.error(error);
        let from = page.after.as_ref().map_or(&[][..], |(lineage, _, _)| lineage.as_bytes());
        let mut statements = stages
            .iter()
            .map(|_| self.connection.prepare_cached(STAGE_VALUES))
            .collect::<Result<Vec<_>, _>>()
            .map_err(sql)?;
        let mut cursors = Vec::with_capacity(stages.len());
        let mut heads = Vec::with_capacity(stages.len());
        for (stage, statement) in stages.iter().zip(&mut statements) {
            let mut cursor = statement.query(params![run, stage, from]).map_err(sql)?;
            heads.push(next_head(&mut cursor, *stage).map_err(sql)?);
            cursors.push(cursor);
        }
        let mut room = PageRoom::new(page.limit);
        let mut found = Vec::new();
        while !room.is_full() {
            let next = heads.iter().enumerate().filter_map(|(place, head)| head.as_ref().map(|head| (place, head)));
            let Some((place, head)) = next.min_by_key(|(_, head)| (&head.lineage, head.stage)) else { break };
            let skipped = lines_before(page, &head.lineage, head.stage);
            for (index, line) in (0_u32..).zip(head.text.split('\n')).skip(skipped) {
                if room.is_full() {
                    return Ok(found);
                }
                room.take(line.len());
                found.push(StoredValue {
                    stage: head.stage,
                    lineage: head.lineage.clone(),
                    key: head.key.clone(),
                    index,
                    value: codec::value(line)?,
                });
            }
            heads[place] = next_head(&mut cursors[place], stages[place]).map_err(sql)?;
        }
        Ok(found)
    }

    fn values_of_group(
        &self,
        run: i64,
        stages: &[u16],
        (gather, text): (u16, &str),
        page: &Page,
    ) -> Result<Vec<StoredValue>, StoreError> {
        let sql = |error| self.error(error);
        let (lineage, stage, index) = match &page.after {
            Some((lineage, stage, index)) => (lineage.as_bytes(), i64::from(*stage), i64::from(*index)),
            None => (&[][..], -1, -1),
        };
        let mut statement = self.connection.prepare_cached(GROUP_VALUES).map_err(sql)?;
        let mut rows = statement.query(params![run, gather, text, lineage, stage, index]).map_err(sql)?;
        let mut room = PageRoom::new(page.limit);
        let mut found = Vec::new();
        let mut lines: Option<Lines> = None;
        while !room.is_full() {
            let Some(row) = rows.next().map_err(sql)? else { break };
            let stage: u16 = row.get(1).map_err(sql)?;
            if !stages.contains(&stage) {
                continue;
            }
            let index: u32 = row.get(2).map_err(sql)?;
            let id: i64 = row.get(4).map_err(sql)?;
            let kept = match lines.take() {
                Some(kept) if kept.id == id => kept,
                _ => self.lines(id).map_err(sql)?,
            };
            if let Some((start, end)) = kept.places.get(index as usize) {
                room.take(end - start);
                found.push(StoredValue {
                    stage,
                    lineage: lineage_at(row, 0).map_err(sql)?,
                    key: key_at(row, 3).map_err(sql)?,
                    index,
                    value: codec::value(&kept.text[*start..*end])?,
                });
            }
            lines = Some(kept);
        }
        Ok(found)
    }

    fn lines(&self, id: i64) -> rusqlite::Result<Lines> {
        let text: String = self.connection.prepare_cached(VALUE)?.query_row([id], |row| row.get(0))?;
        let mut start = 0;
        let places = text.split('\n').map(|line| {
            let place = (start, start + line.len());
            start = place.1 + 1;
            place
        });
        let places = places.collect();
        Ok(Lines { id, text, places })
    }
}

/// How many values of this row a page begins behind.
pub(in crate::store) fn lines_before(page: &Page, lineage: &Lineage, stage: u16) -> usize {
    match &page.after {
        None => 0,
        Some((last, last_stage, index)) => match (lineage, stage).cmp(&(last, *last_stage)) {
            std::cmp::Ordering::Less => usize::MAX,
            std::cmp::Ordering::Equal => *index as usize + 1,
            std::cmp::Ordering::Greater => 0,
        },
    }
}

fn next_head(cursor: &mut rusqlite::Rows<'_>, stage: u16) -> rusqlite::Result<Option<Head>> {
    let Some(row) = cursor.next()? else { return Ok(None) };
    Ok(Some(Head { stage, lineage: lineage_at(row, 0)?, key: key_at(row, 1)?, text: row.get(2)? }))
}
