//! What people ask of runs, what jobs remember, what is forgotten: the rules of `sqlite::listing` and `sqlite::retain`, in
//! memory.

use super::{Run, State};
use crate::{
    item::{Key, Lineage, Value},
    limits::{EVENTS_BYTES_MAX, PAGE_BYTES, SUMMARY_LIST_MAX},
    store::{
        EventQuery, Forgotten, Retained, Retention, RowFilter, RowHead, RowQuery, RunEvent, RunPhase, StoreError,
        codec::{self, KeptValue, Packed, is_below},
        event_bytes,
        forget::without_failures_of,
        sqlite::may_hold,
    },
    world::plant::{Bug, planted},
};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    mem,
    ops::Bound::{Excluded, Unbounded},
    sync::Arc,
};

impl Run {
    pub fn row_heads(&self, query: &RowQuery) -> Result<Vec<RowHead>, StoreError> {
        let first = (query.stage.unwrap_or(0), Lineage::from_bytes(&[]));
        let from = query.after.clone().map_or(first.clone(), |after| after.max(first));
        let rows = self.items.range((Excluded(from), Unbounded)).map(|(_, row)| row);
        let is_asked = |row: &&Packed| {
            query.stage.is_none_or(|stage| row.stage == stage)
                && (query.filter == RowFilter::All || row.is_missing())
                && query.key.as_ref().is_none_or(|above| is_below(&row.key, above))
        };
        rows.filter(is_asked).take(query.limit).map(row_head).collect()
    }

    pub fn slowest(&self, stage: Option<u16>, limit: usize) -> Result<Vec<RowHead>, StoreError> {
        let rows = self.items.values().filter(|row| stage.is_none_or(|stage| row.stage == stage));
        let mut rows: Vec<&Packed> = rows.filter(|row| row.took_ms.is_some()).collect();
        rows.sort_by_key(|row| (Reverse(row.took_ms), row.stage, &row.lineage));
        rows.into_iter().take(limit).map(row_head).collect()
    }

    pub fn events(&self, query: &EventQuery) -> Vec<(u64, RunEvent)> {
        let from = query.after.unwrap_or(0);
        let mut bytes = 0;
        let is_asked = |event: &RunEvent| {
            query.key.as_ref().is_none_or(|above| event.key.as_ref().is_some_and(|key| is_below(key, above)))
        };
        let events = self.events.range((Excluded(from), Unbounded)).filter(|(_, event)| is_asked(event));
        let fits = |(_, event): &(&u64, &RunEvent)| {
            let has_room = bytes < PAGE_BYTES as u64;
            bytes += event_bytes(event);
            has_room
        };
        events.take(query.limit).take_while(fits).map(|(seq, event)| (*seq, event.clone())).collect()
    }
}

impl State {
    pub fn add_events(&mut self, run: &Arc<str>, events: Vec<RunEvent>) {
        let run = self.run(run);
        for event in events {
            run.last_event += 1;
            run.event_bytes += event_bytes(&event);
            run.events.insert(run.last_event, event);
        }
        while run.event_bytes > EVENTS_BYTES_MAX
            && let Some((_, gone)) = run.events.pop_first()
        {
            run.event_bytes -= event_bytes(&gone);
        }
    }

    pub fn keep(&mut self, kept: KeptValue) {
        let due_ms = kept.due_ms;
        let values = self.kept.entry((kept.job.clone(), kept.key.clone())).or_default();
        values.insert(due_ms, kept);
        if let Some((before, _)) = values.range(..due_ms).next_back() {
            let before = *before;
            values.retain(|due_ms, _| *due_ms >= before);
        }
    }

    pub fn state_of(&self, job: String, key: Key, due_ms: i64) -> Result<Option<Value>, StoreError> {
        let values = self.kept.get(&(job, key));
        let newest = values.and_then(|values| values.range(..due_ms).next_back());
        newest.map(|(_, kept)| codec::value(&kept.json)).transpose()
    }

    pub fn forget_key(&mut self, above: &Key) -> Forgotten {
        let mut forgotten = Forgotten::default();
        let names: Vec<Arc<str>> = {
            let mut runs: Vec<_> = self.runs.iter().collect();
            runs.sort_by_key(|(_, run)| run.id);
            runs.into_iter().map(|(name, _)| name.clone()).collect()
        };
        for name in names {
            let Some(run) = self.runs.get_mut(&name) else { continue };
            let gone_bytes = run.forget_key(&name, above, &mut forgotten);
            self.used_bytes = self.used_bytes.saturating_sub(gone_bytes);
        }
        self.kept.retain(|(_, key), values| {
            let stays = !is_below(key, above);
            forgotten.kept += if stays { 0 } else { values.len() as u64 };
            stays
        });
        forgotten
    }

    /// All of one run at once.
    pub fn retain(&mut self, keep: &Retention) -> Retained {
        if self.firings.retain(keep) {
            return Retained { more: true, ..Retained::default() };
        }
        let open = self.runs.values().filter_map(|run| run.head.as_ref()).filter(|head| head.phase != RunPhase::Ended);
        let repeated: BTreeSet<Arc<str>> = open.filter_map(|head| head.parent.clone()).collect();
        let oldest_end = keep.now_ms.saturating_sub(i64::try_from(keep.max_age_ms).unwrap_or(i64::MAX));
        let ended_ms = |head: &super::Head| head.end.as_ref().map_or(0, |end| end.ended_ms);
        let heads: Vec<&super::Head> = self.in_order().filter_map(|run| run.head.as_ref()).collect();
        let mut newer: BTreeMap<&str, u64> = BTreeMap::new();
        let (mut beyond, mut oldest) = (None, None);
        for head in heads.into_iter().rev().filter(|head| head.phase == RunPhase::Ended) {
            let newer = newer.entry(&head.new.job).or_default();
            if !repeated.contains(&head.new.run) {
                if ended_ms(head) < oldest_end || *newer >= keep.max_runs {
                    beyond = Some(head.new.run.clone());
                }
                if head.has_rows {
                    oldest = Some(head.new.run.clone());
                }
            }
            *newer += 1;
        }
        if let Some(run) = beyond {
            self.forget(&run);
            return Retained { runs: 1, more: true, ..Retained::default() };
        }
        let Some(run) = oldest.filter(|_| self.used_bytes > keep.max_bytes) else { return Retained::default() };
        if let Some(run) = self.runs.get_mut(&run) {
            self.used_bytes = self.used_bytes.saturating_sub(run.bytes);
            let Run { id, head, stages, notices, .. } = mem::take(run);
            let head = head.map(|head| super::Head { has_rows: false, ..head });
            *run = Run { id, head, stages, notices, ..Run::default() };
        }
        Retained { stripped: 1, more: true, ..Retained::default() }
    }
}

impl Run {
    /// Forgets a key in a run that has ended; the bytes that are free again.
    fn forget_key(&mut self, name: &Arc<str>, above: &Key, forgotten: &mut Forgotten) -> u64 {
        let below = self.items.iter().filter(|(_, row)| is_below(&row.key, above));
        let gone: Vec<(u16, Lineage)> = below.map(|(place, _)| place.clone()).collect();
        let Some(head) = self.head.as_mut().filter(|head| head.phase == RunPhase::Ended) else {
            if !gone.is_empty() {
                forgotten.unfinished.push(name.clone());
            }
            return 0;
        };
        if let Some(end) = &mut head.end
            && let Some(record) = without_failures_of(&end.record, above)
        {
            end.record = record;
        }
        let lines = self.events.len();
        self.events.retain(|_, event| !event.key.as_ref().is_some_and(|key| is_below(key, above)));
        forgotten.events += (lines - self.events.len()) as u64;
        self.keys.retain(|(_, key), _| !is_below(key, above));
        if gone.is_empty() {
            return 0;
        }
        let sources: BTreeSet<u16> = self.stages.values().filter(|mark| mark.listed).map(|mark| mark.stage).collect();
        for (path, (_, key, lineage)) in &self.paths {
            if forgotten.outputs.len() < SUMMARY_LIST_MAX
                && (is_below(key, above) || may_hold(&sources, &gone, lineage))
            {
                forgotten.outputs.push((name.clone(), path.clone()));
            }
        }
        for ((stage, lineage), row) in &self.items {
            if forgotten.gathers.len() < SUMMARY_LIST_MAX
                && !is_below(&row.key, above)
                && may_hold(&sources, &gone, lineage)
            {
                forgotten.gathers.push((name.clone(), *stage, row.key.clone()));
            }
        }
        forgotten.rows += gone.len() as u64;
        let mut bytes = 0;
        for place in gone.into_iter().skip(usize::from(planted(Bug::ForgetLeavesRow))) {
            bytes += self.items.remove(&place).map_or(0, |row| row.bytes() as u64);
        }
        self.paths.retain(|_, (_, key, _)| !is_below(key, above));
        self.members.clear();
        self.absent.clear();
        self.bytes = self.bytes.saturating_sub(bytes);
        bytes
    }
}

fn row_head(row: &Packed) -> Result<RowHead, StoreError> {
    Ok(RowHead {
        stage: row.stage,
        lineage: row.lineage.clone(),
        key: row.key.clone(),
        end: row.end()?,
        attempts: row.attempts,
        message: row.message.clone(),
        took_ms: row.took_ms,
        pass: row.pass,
    })
}
