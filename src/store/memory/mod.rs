//! Rows in memory, for simulated tests and for embedders: the same promises as SQLite, answers at once, no thread.
//!
//! It keeps rows packed as the file does, so that values come back exactly the same from both. A process that dies is
//! played by [`Memory::restart`].

mod firing;
mod listing;
mod runs;

use super::{
    Claim, GroupMember, Membership, Page, Reply, Request, Row, RunEvent, StageMark, Store, StoreError, StoredFailure,
    StoredValue,
    codec::{self, KeptValue, OK, Packed, PageRoom, RETRY},
    sqlite::{lines_before, settled_twice, sorted},
};
use crate::{
    item::{Key, Lineage, OutputRecord},
    limits::BATCH_ROWS,
    world::BoxFuture,
};
use firing::Firings;
use runs::Head;
use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    ops::Bound::{Excluded, Unbounded},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// What a small entry (a claim, a member) costs besides its texts, in bytes: an estimate.
const ENTRY_BYTES: usize = 96;

/// A store in memory, as one process has it. Every request is done when it returns.
pub struct Memory {
    shared: Arc<Mutex<Shared>>,
    epoch: u64,
}

/// What several processes, one after the other, have of one store.
struct Shared {
    state: State,
    /// The epoch that lives, and the start of the machine it belongs to.
    living: (u64, Arc<str>),
    /// Those of dead ones.
    boots: BTreeMap<u64, Arc<str>>,
    /// What a crash leaves, where it can take something.
    safe: Option<Safe>,
}

/// What is committed, and what is accepted behind it.
struct Safe {
    state: State,
    journal: Vec<Request>,
}

/// Who asks.
struct Asker<'a> {
    epoch: u64,
    boot: &'a str,
    boots: &'a BTreeMap<u64, Arc<str>>,
}

#[derive(Clone)]
struct State {
    runs: BTreeMap<Arc<str>, Run>,
    next_run: u64,
    kept: BTreeMap<(String, Key), BTreeMap<i64, KeptValue>>,
    firings: Firings,
    limit_bytes: u64,
    used_bytes: u64,
    failed: Option<StoreError>,
}

/// Gather and text.
type Group = (u16, String);

#[derive(Clone, Default)]
struct Run {
    /// In the order in which runs came to be.
    id: u64,
    head: Option<Head>,
    stages: BTreeMap<u16, StageMark>,
    notices: BTreeSet<u16>,
    events: BTreeMap<u64, RunEvent>,
    last_event: u64,
    event_bytes: u64,
    bytes: u64,
    items: BTreeMap<(u16, Lineage), Packed>,
    deferred: BTreeSet<(u16, u64, Lineage)>,
    keys: BTreeMap<(u16, Key), (Lineage, u32)>,
    paths: BTreeMap<String, (u16, Key, Lineage)>,
    outputs: BTreeMap<String, OutputRecord>,
    members: BTreeMap<Group, BTreeSet<(Lineage, u16, u32)>>,
    absent: BTreeMap<Group, BTreeMap<(u16, Lineage), Membership>>,
}

impl Memory {
    /// An empty store that may take about `limit_bytes`. A restart finds everything that was accepted.
    pub fn new(limit_bytes: u64) -> Memory {
        let state = State {
            runs: BTreeMap::new(),
            next_run: 1,
            kept: BTreeMap::new(),
            firings: Firings::default(),
            limit_bytes,
            used_bytes: 0,
            failed: None,
        };
        let living = (1, Arc::from(""));
        let shared = Shared { state, living, boots: BTreeMap::new(), safe: None };
        Memory { shared: Arc::new(Mutex::new(shared)), epoch: 1 }
    }

    /// The same, but a restart loses what was accepted and not committed: as much as a file would lose at worst.
    pub fn losing(limit_bytes: u64) -> Memory {
        let memory = Memory::new(limit_bytes);
        let mut shared = memory.lock();
        shared.safe = Some(Safe { state: shared.state.clone(), journal: Vec::new() });
        drop(shared);
        memory
    }

    /// The process dies, and another one opens the store; `boot` names the start of the machine that it belongs to. The
    /// dead one is answered [`StoreError::Closed`].
    pub fn restart(&self, boot: &str) -> Memory {
        let mut shared = self.lock();
        let epoch = shared.living.0 + 1;
        let (dead, their_boot) = mem::replace(&mut shared.living, (epoch, boot.into()));
        shared.boots.insert(dead, their_boot);
        shared.state.failed = None;
        if let Some(safe) = &mut shared.safe {
            safe.journal.clear();
            safe.state.failed = None;
            let state = safe.state.clone();
            shared.state = state;
        }
        Memory { shared: self.shared.clone(), epoch }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // A poisoned lock guards plain data that is whole between statements.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for Memory {
    fn call(&self, request: Request) -> BoxFuture<'_, Result<Reply, StoreError>> {
        Box::pin(async move { self.call_blocking(request) })
    }

    fn call_blocking(&self, request: Request) -> Result<Reply, StoreError> {
        let mut shared = self.lock();
        let Shared { state, living, boots, safe } = &mut *shared;
        if living.0 != self.epoch {
            return Err(StoreError::Closed);
        }
        let asker = Asker { epoch: self.epoch, boot: &living.1, boots };
        let Some(safe) = safe else { return state.serve(request, &asker) };
        let is_committed = request.is_committed() || request.begins_alone();
        if !request.only_reads() {
            safe.journal.push(request.clone());
        }
        let reply = state.serve(request, &asker)?;
        if is_committed || safe.journal.len() > BATCH_ROWS {
            for accepted in safe.journal.drain(..) {
                // As it was answered before.
                let _ = safe.state.serve(accepted, &asker);
            }
        }
        Ok(reply)
    }
}

impl State {
    fn serve(&mut self, request: Request, asker: &Asker<'_>) -> Result<Reply, StoreError> {
        let only_reads = request.only_reads();
        match &self.failed {
            Some(StoreError::Full { .. }) if only_reads => {}
            Some(error) => return Err(error.clone()),
            None => {}
        }
        // What cannot be packed is refused before anything is written.
        let request = match request {
            Request::Put(run, rows, ran_ms) => {
                let rows = rows.into_iter().map(Packed::new).collect::<Result<Vec<_>, _>>()?;
                let result = self.put_all(&run, rows, ran_ms).map(|()| Reply::Done);
                return self.note(result);
            }
            Request::Keep { run, job, key, due_ms, value } => {
                let json = codec::line("the value of `Keep`", &value)?;
                self.keep(KeptValue { run, job, key, due_ms, json });
                return Ok(Reply::Done);
            }
            other => other,
        };
        let result = if only_reads { self.read(request, asker) } else { self.write(request, asker) };
        self.note(result)
    }

    /// An error stays.
    fn note(&mut self, result: Result<Reply, StoreError>) -> Result<Reply, StoreError> {
        if let Err(error) = &result {
            self.failed.get_or_insert_with(|| error.clone());
        }
        result
    }

    fn write(&mut self, request: Request, asker: &Asker<'_>) -> Result<Reply, StoreError> {
        match request {
            Request::AssignGroups(run, gather, members) => {
                // A run is there from the first that is written of it, were it nothing.
                self.run(&run);
                members.into_iter().try_for_each(|member| self.assign(&run, gather, member))?;
            }
            Request::RecordOutput(run, output) => {
                self.charge(&run, ENTRY_BYTES + output.path.len() + output.sha256.len())?;
                self.run(&run).outputs.insert(output.path.clone(), output);
            }
            Request::ClaimKey(run, stage, key, lineage) => {
                return Ok(Reply::Claim(self.claim_key(&run, stage, key, lineage)?));
            }
            Request::ClaimKeys(run, stage, keys) => {
                self.run(&run);
                let claims = keys.into_iter().map(|(key, lineage)| self.claim_key(&run, stage, key, lineage));
                return Ok(Reply::Claims(claims.collect::<Result<_, _>>()?));
            }
            Request::ClaimOutput(run, path, stage, key, lineage) => {
                if let Some((first_stage, first_key, first)) = self.run(&run).paths.get(&path) {
                    return Ok(Reply::Claim(match *first_stage == stage && *first == lineage {
                        true => Claim::Mine,
                        false => Claim::Taken { stage: *first_stage, key: first_key.clone(), lineage: first.clone() },
                    }));
                }
                self.charge(&run, ENTRY_BYTES + path.len() + key.as_str().len())?;
                self.run(&run).paths.insert(path, (stage, key, lineage));
                return Ok(Reply::Claim(Claim::Mine));
            }
            Request::Forget(run) => {
                self.forget(&run);
            }
            Request::AddEvents(run, events) => self.add_events(&run, events),
            Request::ListingDone(run, source) => self.run(&run).mark(source).listed = true,
            Request::StageBegan(run, stage, ran_ms, wall_ms) => self.run(&run).stage_began(stage, ran_ms, wall_ms),
            Request::Relist(run, source) => return Ok(Reply::Ordinal(self.relist(&run, source))),
            Request::Begin(new) => return Ok(Reply::Begun(self.begin(&new, None, asker))),
            Request::TakeOver(run, now) => return Ok(Reply::TakenOver(self.take_over(&run, now, asker))),
            Request::Release(run) => return Ok(Reply::Changed(self.release(&run, asker))),
            Request::End(run, end) => return Ok(Reply::Changed(self.end(&run, *end, asker))),
            Request::Interrupt(run, end) => return Ok(Reply::Changed(self.interrupt(&run, *end, asker))),
            Request::NoticeDone(run, place) => {
                let is_sent = self.runs.get_mut(&run).is_some_and(|run| run.notices.remove(&place));
                return Ok(Reply::Changed(is_sent));
            }
            Request::CopyForRetry(plan, new) => return Ok(Reply::Copied(self.copy_for_retry(&plan, &new, asker)?)),
            Request::ForgetKey(key) => return Ok(Reply::Forgotten(Box::new(self.forget_key(&key)))),
            Request::Retain(retention) => return Ok(Reply::Retained(self.retain(&retention))),
            Request::Consider(marks, firings, heard) => {
                return Ok(Reply::Flags(self.consider(marks, firings, &heard)));
            }
            Request::FiringTold(job, key) => return Ok(Reply::Changed(self.firings.told(&job, &key))),
            _ => {}
        }
        Ok(Reply::Done)
    }

    fn read(&self, request: Request, asker: &Asker<'_>) -> Result<Reply, StoreError> {
        let empty = Run::default();
        let rows_of = |run: &Arc<str>| self.runs.get(run).unwrap_or(&empty);
        match request {
            Request::Outputs(run, limit) => {
                let outputs = &rows_of(&run).outputs;
                Ok(Reply::Outputs(outputs.values().take(limit).cloned().collect(), outputs.len() as u64))
            }
            Request::Values { run, stages, group, page } => {
                rows_of(&run).values(&sorted(stages), group, &page).map(Reply::Values)
            }
            Request::Failures { run, stages, group, page } => {
                rows_of(&run).failures(&sorted(stages), group, &page).map(Reply::Failures)
            }
            Request::Groups(run, gather, after, limit) => Ok(Reply::Texts(rows_of(&run).groups(gather, after, limit))),
            Request::Deferred(run, stage, after, limit) => rows_of(&run).deferred(stage, after, limit).map(Reply::Rows),
            Request::Notices(limit) => Ok(Reply::Notices(self.notices(limit, asker))),
            Request::Unfinished(job, limit) => Ok(Reply::Heads(self.unfinished(job.as_deref(), limit, asker))),
            Request::Details(run) => Ok(Reply::Details(self.details(&run, asker).map(Box::new))),
            Request::History(job, before, limit) => {
                Ok(Reply::Heads(self.history(job.as_deref(), before.as_ref(), limit, asker)))
            }
            Request::Tally(run, stage) => rows_of(&run).tally(stage).map(Reply::Tally),
            Request::Unsettled { run, parent, stage, after, limit } => {
                rows_of(&run).unsettled(parent, stage, after, limit).map(Reply::Unsettled)
            }
            Request::Settled(run, stage, lineages) => Ok(Reply::Flags(rows_of(&run).settled(stage, lineages))),
            Request::RowHeads(run, query) => rows_of(&run).row_heads(&query).map(Reply::RowHeads),
            Request::Slowest(run, stage, limit) => rows_of(&run).slowest(stage, limit).map(Reply::RowHeads),
            Request::Events(run, query) => Ok(Reply::Events(rows_of(&run).events(&query))),
            Request::StateOf(job, key, due_ms) => self.state_of(job, key, due_ms).map(Reply::Kept),
            Request::Instance => Ok(Reply::Texts(vec![String::new()])),
            Request::Marks => Ok(Reply::Marks(self.firings.marks())),
            Request::FiringsToTell(after, limit) => Ok(Reply::Firings(self.firings.to_tell(after, limit))),
            Request::WaitingFirings(after, limit) => Ok(Reply::Firings(self.firings.waiting(after, limit))),
            Request::IsNeeded(run) => Ok(Reply::Flags(vec![self.is_needed(&run)])),
            Request::Unheard(limit) => Ok(Reply::Heads(self.unheard(limit, asker))),
            Request::PastFirings(job, before, limit) => {
                Ok(Reply::Firings(self.firings.past(job.as_deref(), before, limit)))
            }
            _ => Ok(Reply::Done),
        }
    }

    fn put_all(&mut self, run: &Arc<str>, rows: Vec<Packed>, ran_ms: Option<u64>) -> Result<(), StoreError> {
        let (pass, number) = (self.run(run).pass(), rows.len() as u64);
        rows.into_iter().try_for_each(|row| self.put(run, Packed { pass, ..row }))?;
        self.run(run).progress(number, ran_ms.unwrap_or(0));
        Ok(())
    }

    fn put(&mut self, run: &Arc<str>, row: Packed) -> Result<(), StoreError> {
        let place = (row.stage, row.lineage.clone());
        if let Some(old) = self.run(run).items.get(&place) {
            if old.is_terminal() {
                return Err(settled_twice(&row));
            }
            let (at, bytes) = (wait_of(old), old.bytes() as u64);
            let rows = self.run(run);
            rows.deferred.remove(&(row.stage, at, row.lineage.clone()));
            rows.bytes = rows.bytes.saturating_sub(bytes);
            self.used_bytes = self.used_bytes.saturating_sub(bytes);
        }
        self.charge(run, row.bytes())?;
        let rows = self.run(run);
        if row.state == RETRY {
            rows.deferred.insert((row.stage, wait_of(&row), row.lineage.clone()));
        }
        rows.items.insert(place, row);
        Ok(())
    }

    fn assign(&mut self, run: &Arc<str>, gather: u16, member: GroupMember) -> Result<(), StoreError> {
        let GroupMember { text, stage, lineage, index, membership } = member;
        self.charge(run, ENTRY_BYTES + text.len())?;
        let rows = self.run(run);
        match membership {
            Membership::Value => {
                rows.members.entry((gather, text)).or_default().insert((lineage, stage, index));
            }
            missing => {
                rows.absent.entry((gather, text)).or_default().insert((stage, lineage), missing);
            }
        }
        Ok(())
    }

    fn claim_key(&mut self, run: &Arc<str>, stage: u16, key: Key, lineage: Lineage) -> Result<Claim, StoreError> {
        let place = (stage, key);
        let rows = self.run(run);
        let pass = rows.pass();
        if let Some((first, first_pass)) = rows.keys.get_mut(&place) {
            if *first_pass == pass {
                return Ok(match *first == lineage {
                    true => Claim::Mine,
                    false => Claim::Taken { stage, key: place.1, lineage: first.clone() },
                });
            }
            *first_pass = pass;
            if rows.items.contains_key(&(stage, first.clone())) {
                return Ok(Claim::Known { lineage: first.clone() });
            }
            // The crash came between the claim and its row.
            *first = lineage;
            return Ok(Claim::Mine);
        }
        self.charge(run, ENTRY_BYTES + place.1.as_str().len())?;
        self.run(run).keys.insert(place, (lineage, pass));
        Ok(Claim::Mine)
    }

    fn run(&mut self, name: &Arc<str>) -> &mut Run {
        let next = &mut self.next_run;
        self.runs.entry(name.clone()).or_insert_with(|| {
            *next += 1;
            Run { id: *next - 1, ..Run::default() }
        })
    }

    fn forget(&mut self, run: &Arc<str>) {
        if let Some(gone) = self.runs.remove(run) {
            self.used_bytes = self.used_bytes.saturating_sub(gone.bytes);
        }
    }

    fn charge(&mut self, run: &Arc<str>, bytes: usize) -> Result<(), StoreError> {
        let bytes = bytes as u64;
        if self.used_bytes + bytes > self.limit_bytes {
            return Err(StoreError::Full { limit: self.limit_bytes });
        }
        self.used_bytes += bytes;
        self.run(run).bytes += bytes;
        Ok(())
    }
}

impl Run {
    fn values(&self, stages: &[u16], group: Option<Group>, page: &Page) -> Result<Vec<StoredValue>, StoreError> {
        let mut room = PageRoom::new(page.limit);
        let mut found = Vec::new();
        match group {
            Some(group) => {
                let Some(members) = self.members.get(&group) else { return Ok(found) };
                let from = page.after.clone().map_or(Unbounded, Excluded);
                for (lineage, stage, index) in members.range((from, Unbounded)) {
                    if room.is_full() {
                        break;
                    }
                    let row = self.items.get(&(*stage, lineage.clone()));
                    let row = row.filter(|row| row.state == OK && stages.contains(stage));
                    let line = row.and_then(|row| row.values.as_deref()?.split('\n').nth(*index as usize));
                    if let (Some(row), Some(line)) = (row, line) {
                        room.take(line.len());
                        found.push(stored(row, *index, line)?);
                    }
                }
            }
            None => {
                let from = page.after.as_ref().map_or(Lineage::from_bytes(&[]), |(lineage, _, _)| lineage.clone());
                let mut heads: Vec<_> = stages
                    .iter()
                    .map(|stage| {
                        let rows = self.items.range((*stage, from.clone())..);
                        let rows = rows.take_while(move |((row_stage, _), _)| row_stage == stage);
                        rows.map(|(_, row)| row).filter(|row| row.state == OK).peekable()
                    })
                    .collect();
                while !room.is_full() {
                    let next = heads.iter_mut().enumerate().filter_map(|(place, rows)| Some((place, *rows.peek()?)));
                    let Some((place, row)) = next.min_by_key(|(_, row)| (&row.lineage, row.stage)) else { break };
                    heads[place].next();
                    let lines = row.values.iter().flat_map(|text| text.split('\n'));
                    for (index, line) in (0_u32..).zip(lines).skip(lines_before(page, &row.lineage, row.stage)) {
                        if room.is_full() {
                            break;
                        }
                        room.take(line.len());
                        found.push(stored(row, index, line)?);
                    }
                }
            }
        }
        Ok(found)
    }

    fn failures(&self, stages: &[u16], group: Option<Group>, page: &Page) -> Result<Vec<StoredFailure>, StoreError> {
        let mut room = PageRoom::new(page.limit);
        let mut found = Vec::new();
        let group = group.map(|group| self.absent.get(&group));
        for stage in stages.iter().copied() {
            let from = match &page.after {
                Some((_, last, _)) if stage < *last => continue,
                Some((lineage, last, _)) if stage == *last => lineage.clone(),
                _ => Lineage::from_bytes(&[]),
            };
            let rows = self.items.range((Excluded((stage, from)), Unbounded));
            for ((_, lineage), row) in rows.take_while(|((row_stage, _), _)| *row_stage == stage) {
                if room.is_full() {
                    return Ok(found);
                }
                let is_member = group.is_none_or(|members| {
                    members.is_some_and(|members| members.contains_key(&(stage, lineage.clone())))
                });
                if !is_member || !row.is_missing() {
                    continue;
                }
                room.take(row.values.as_ref().map_or(0, String::len));
                let first = row.values.as_deref().and_then(|text| text.split('\n').next());
                found.push(StoredFailure {
                    stage,
                    lineage: lineage.clone(),
                    key: row.key.clone(),
                    outcome: codec::outcome(row.state, row.class.as_deref())?,
                    message: row.message.clone().unwrap_or_default(),
                    attempts: row.attempts,
                    value: first.map(codec::value).transpose()?,
                });
            }
        }
        Ok(found)
    }

    fn groups(&self, gather: u16, after: Option<String>, limit: usize) -> Vec<String> {
        let makers =
            self.absent.iter().filter(|(_, rows)| rows.values().any(|row| *row == Membership::MissingOfParent));
        let texts: BTreeSet<&String> = self
            .members
            .keys()
            .chain(makers.map(|(place, _)| place))
            .filter(|(of, text)| *of == gather && after.as_ref().is_none_or(|after| text > after))
            .map(|(_, text)| text)
            .collect();
        texts.into_iter().take(limit).cloned().collect()
    }

    fn deferred(&self, stage: u16, after: Option<(u64, Lineage)>, limit: usize) -> Result<Vec<Row>, StoreError> {
        let from = match after {
            Some((at, lineage)) => (stage, at, lineage),
            None => (stage, 0, Lineage::from_bytes(&[])),
        };
        let mut room = PageRoom::new(limit);
        let mut found = Vec::new();
        let places = self.deferred.range((Excluded(from), Unbounded));
        for (_, _, lineage) in places.take_while(|(row_stage, _, _)| *row_stage == stage) {
            if room.is_full() {
                break;
            }
            if let Some(row) = self.items.get(&(stage, lineage.clone())) {
                room.take(row.values.as_ref().map_or(0, String::len));
                found.push(row.clone().unpack()?);
            }
        }
        Ok(found)
    }
}

fn stored(row: &Packed, index: u32, line: &str) -> Result<StoredValue, StoreError> {
    let (lineage, key) = (row.lineage.clone(), row.key.clone());
    Ok(StoredValue { stage: row.stage, lineage, key, index, value: codec::value(line)? })
}

fn wait_of(row: &Packed) -> u64 {
    row.at_ms.map_or(0, i64::unsigned_abs)
}
