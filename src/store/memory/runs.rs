//! How runs begin, change hands and end: the rules of `sqlite::runs`, in memory.

use super::{Asker, Run, State};
use crate::{
    item::{Lineage, RunOutcome},
    store::{
        Began, Begun, Clocks, Copied, CopyPlan, FiringRow, NewRun, Notice, Resume, RunDetails, RunEnd, RunHead,
        RunPhase, StageMark, StoreError, TakenOver, Tally, Unsettled, after_key,
        codec::{self, HELD, OK, Packed, PageRoom, RETRY, STARTED},
        crash::{Crashes, rebase, rebased},
        sqlite::is_taken_over,
    },
    world::plant::{Bug, planted},
};
use std::{
    collections::BTreeSet,
    ops::Bound::{Excluded, Unbounded},
    sync::Arc,
};

/// What is known of a run besides its rows.
#[derive(Clone)]
pub(super) struct Head {
    pub new: NewRun,
    /// The clocks of this pass.
    pub then: Clocks,
    pub ran_ms: u64,
    pub parent: Option<Arc<str>>,
    pub chain_first: Arc<str>,
    pub epoch: u64,
    pub pass: u32,
    pub phase: RunPhase,
    pub end: Option<RunEnd>,
    pub progress: u64,
    pub progress_at_crash: u64,
    pub crashes: Crashes,
    pub has_rows: bool,
    /// It has ended, and nobody has heard of it.
    pub is_unheard: bool,
}

impl Head {
    fn is_alive(&self, asker: &Asker<'_>) -> bool {
        self.phase == RunPhase::Running && self.epoch == asker.epoch
    }

    fn shown(&self, asker: &Asker<'_>) -> RunHead {
        RunHead {
            run: self.new.run.clone(),
            job: self.new.job.clone(),
            trigger: self.new.trigger.clone(),
            fire_key: self.new.fire_key.clone(),
            kind: self.new.kind,
            due_ms: self.new.due_ms,
            started_ms: self.new.clocks.wall_ms,
            deadline_ms: self.new.deadline_ms,
            budget_ms: self.new.budget_ms,
            ran_ms: self.ran_ms,
            phase: self.phase,
            alive: self.is_alive(asker),
            pass: self.pass,
            crashes: self.crashes.total,
            outcome: self.end.as_ref().map(|end| end.outcome),
            reason: self.end.as_ref().and_then(|end| end.reason.clone()),
            ended_ms: self.end.as_ref().map(|end| end.ended_ms),
            parent: self.parent.clone(),
            chain_first: self.chain_first.clone(),
            has_rows: self.has_rows,
        }
    }
}

impl State {
    pub fn begin(&mut self, new: &NewRun, parent: Option<&RunHead>, asker: &Asker<'_>) -> Begun {
        if let Some(head) = self.head(&new.run) {
            return Begun::Before(head.shown(asker));
        }
        let same_firing = |head: &&Head| {
            new.fire_key.is_some()
                && !planted(Bug::BegunTwice)
                && (&head.new.job, &head.new.fire_key) == (&new.job, &new.fire_key)
        };
        if let Some(before) = self.in_order().filter_map(|run| run.head.as_ref()).find(same_firing) {
            return Begun::Before(before.shown(asker));
        }
        if new.alone
            && let Some(busy) = self.unfinished(Some(&new.job), usize::MAX, asker).into_iter().find(|head| head.alive)
        {
            return Begun::Busy(busy);
        }
        if let Some(key) = &new.fire_key
            && !self.firings.start(&new.job, key)
        {
            return Begun::Settled;
        }
        self.run(&new.run).head = Some(Head {
            new: new.clone(),
            then: new.clocks,
            ran_ms: 0,
            parent: parent.map(|parent| parent.run.clone()),
            chain_first: parent.map_or(&new.run, |parent| &parent.chain_first).clone(),
            epoch: asker.epoch,
            pass: 1,
            phase: RunPhase::Running,
            end: None,
            progress: 0,
            progress_at_crash: 0,
            crashes: Crashes::default(),
            has_rows: true,
            is_unheard: false,
        });
        Begun::Now
    }

    pub fn take_over(&mut self, name: &Arc<str>, now: Clocks, asker: &Asker<'_>) -> TakenOver {
        let Some(run) = self.runs.get_mut(name) else { return TakenOver::Unknown };
        let Some(head) = &mut run.head else { return TakenOver::Unknown };
        if head.phase == RunPhase::Ended || head.is_alive(asker) {
            return TakenOver::Refused(Box::new(head.shown(asker)));
        }
        if head.phase == RunPhase::Running {
            head.crashes.add(now.wall_ms, head.progress > head.progress_at_crash);
            head.progress_at_crash = head.progress;
        }
        let same_boot = match head.epoch == asker.epoch {
            true => true,
            false => asker.boots.get(&head.epoch).is_some_and(|boot| **boot == *asker.boot),
        };
        let shift = rebase(head.then, now, same_boot);
        (head.epoch, head.phase, head.then) = (asker.epoch, RunPhase::Running, now);
        head.pass += 1;
        let is_poison = head.crashes.are_too_many();
        let mut held = 0;
        for row in run.items.values_mut().filter(|row| row.state < OK) {
            if row.state == STARTED {
                row.state = HELD;
                held += 1;
            } else {
                row.at_ms = row.at_ms.map(|at| rebased(at, shift));
                row.deadline_ms = None;
            }
        }
        let waits = run.deferred.iter().map(|(stage, at, lineage)| {
            let at = rebased(i64::try_from(*at).unwrap_or(i64::MAX), shift).unsigned_abs();
            (*stage, at, lineage.clone())
        });
        run.deferred = waits.collect();
        match self.details(name, asker) {
            Some(details) => TakenOver::Now(Box::new(Resume { details, held, is_poison })),
            None => TakenOver::Unknown,
        }
    }

    pub fn release(&mut self, run: &Arc<str>, asker: &Asker<'_>) -> bool {
        match self.runs.get_mut(run).and_then(|run| run.head.as_mut()) {
            Some(head) if head.is_alive(asker) => {
                head.phase = RunPhase::Interrupted;
                true
            }
            _ => false,
        }
    }

    pub fn end(&mut self, run: &Arc<str>, end: RunEnd, asker: &Asker<'_>) -> bool {
        match self.head(run) {
            Some(head) if head.is_alive(asker) => {
                let (job, folds) = (head.new.job.clone(), end.folds.clone());
                let settled = self.settle(run, end);
                if let Some(folded) = folds.filter(|folded| settled && folded != run) {
                    self.fold(&folded, &job);
                }
                settled
            }
            _ => false,
        }
    }

    fn fold(&mut self, run: &Arc<str>, job: &str) {
        let head = self.runs.get(run).and_then(|rows| rows.head.as_ref());
        let is_over = head.is_some_and(|head| head.phase == RunPhase::Ended && head.new.job == job);
        if is_over && !self.is_needed(run) {
            self.forget(run);
        }
    }

    pub fn is_needed(&self, run: &Arc<str>) -> bool {
        let Some((rows, head)) = self.runs.get(run).and_then(|rows| Some((rows, rows.head.as_ref()?))) else {
            return false;
        };
        let (key, due_ms) = (after_key(&head.new.job, run), head.new.due_ms);
        let is_after = |firing: &FiringRow| firing.due_ms == due_ms && firing.key == key;
        let waits = || self.firings.waiting(None, usize::MAX).iter().any(|(_, firing)| is_after(firing));
        let mut open =
            self.runs.values().filter_map(|run| run.head.as_ref()).filter(|head| head.phase != RunPhase::Ended);
        !rows.notices.is_empty() || waits() || open.any(|open| open.parent.as_ref() == Some(run))
    }

    pub fn interrupt(&mut self, run: &Arc<str>, end: RunEnd, asker: &Asker<'_>) -> bool {
        match self.head(run) {
            Some(head) if head.phase != RunPhase::Ended && !head.is_alive(asker) => {
                self.settle(run, RunEnd { outcome: RunOutcome::Interrupted, ..end })
            }
            _ => false,
        }
    }

    pub fn notices(&self, limit: usize, asker: &Asker<'_>) -> Vec<Notice> {
        let of = |run: &'_ Run| {
            let head = run.head.clone();
            let notices = run.notices.clone().into_iter();
            notices.filter_map(move |place| head.as_ref().map(|head| (head.new.run.clone(), head.epoch, place)))
        };
        let all = self.in_order().flat_map(of);
        all.take(limit).map(|(run, epoch, place)| Notice { run, place, alive: epoch == asker.epoch }).collect()
    }

    pub fn unfinished(&self, job: Option<&str>, limit: usize, asker: &Asker<'_>) -> Vec<RunHead> {
        let heads = self.in_order().filter_map(|run| run.head.as_ref());
        let open = heads.filter(|head| head.phase != RunPhase::Ended && job.is_none_or(|job| head.new.job == job));
        open.take(limit).map(|head| head.shown(asker)).collect()
    }

    pub fn unheard(&self, limit: usize, asker: &Asker<'_>) -> Vec<RunHead> {
        let heads = self.in_order().filter_map(|run| run.head.as_ref()).filter(|head| head.is_unheard);
        heads.take(limit).map(|head| head.shown(asker)).collect()
    }

    pub fn history(
        &self,
        job: Option<&str>,
        before: Option<&Arc<str>>,
        limit: usize,
        asker: &Asker<'_>,
    ) -> Vec<RunHead> {
        let before = match before {
            None => u64::MAX,
            Some(run) => self.runs.get(run).map_or(0, |run| run.id),
        };
        let mut found: Vec<&Run> = self.in_order().filter(|run| run.id < before).collect();
        found.reverse();
        let heads = found.into_iter().filter_map(|run| run.head.as_ref());
        let of_job = heads.filter(|head| job.is_none_or(|job| head.new.job == job));
        of_job.take(limit).map(|head| head.shown(asker)).collect()
    }

    pub fn details(&self, name: &Arc<str>, asker: &Asker<'_>) -> Option<RunDetails> {
        let run = self.runs.get(name)?;
        let head = run.head.as_ref()?;
        Some(RunDetails {
            head: head.shown(asker),
            definition: head.new.definition.clone(),
            params: head.new.params.clone(),
            options: head.new.options.clone(),
            record: head.end.as_ref().map(|end| end.record.clone()),
            stages: run.stages.values().copied().collect(),
        })
    }

    pub fn copy_for_retry(&mut self, plan: &CopyPlan, new: &NewRun, asker: &Asker<'_>) -> Result<Copied, StoreError> {
        let Some(parent) = self.runs.get(&plan.parent).cloned() else { return Ok(Copied::Unknown) };
        let Some(head) = parent.head.as_ref().map(|head| head.shown(asker)) else { return Ok(Copied::Unknown) };
        if head.phase != RunPhase::Ended {
            return Ok(Copied::NotEnded(head));
        }
        if !head.has_rows {
            return Ok(Copied::Gone(head));
        }
        let begun = self.begin(new, Some(&head), asker);
        if begun != Begun::Now {
            return Ok(Copied::Refused(begun));
        }
        let listed: BTreeSet<u16> = parent.stages.values().filter(|mark| mark.listed).map(|mark| mark.stage).collect();
        let rows: Vec<&Packed> =
            parent.items.values().filter(|row| is_taken_over(plan, &listed, row.stage, row.state)).collect();
        for row in &rows {
            self.put(&new.run, Packed { pass: 1, ..(*row).clone() })?;
        }
        let copy = self.run(&new.run);
        copy.stages = listed.into_iter().map(|stage| (stage, StageMark { stage, listed: true, began: None })).collect();
        for (place, (lineage, _)) in parent.keys {
            if copy.items.contains_key(&(place.0, lineage.clone())) {
                copy.keys.insert(place, (lineage, 1));
            }
        }
        for (path, claim) in parent.paths {
            if copy.items.contains_key(&(claim.0, claim.2.clone())) {
                if let Some(output) = parent.outputs.get(&path) {
                    copy.outputs.insert(path.clone(), output.clone());
                }
                copy.paths.insert(path, claim);
            }
        }
        if let Some(head) = &mut copy.head {
            head.pass = 2;
        }
        Ok(Copied::Now(rows.len() as u64))
    }

    /// Forgets the missing rows of a source; the first ordinal that no row has had.
    pub fn relist(&mut self, run: &Arc<str>, source: u16) -> u64 {
        let rows = self.run(run);
        let of_source = |(stage, _): &&(u16, Lineage)| *stage == source;
        let highest = rows.items.keys().rev().find(of_source).map_or(0, |(_, lineage)| lineage.ordinal() + 1);
        let mut gone = 0;
        rows.items.retain(|(stage, _), row| {
            let stays = *stage != source || !row.is_missing() || planted(Bug::RelistKeepsMissing);
            gone += if stays { 0 } else { row.bytes() as u64 };
            stays
        });
        rows.bytes = rows.bytes.saturating_sub(gone);
        self.used_bytes = self.used_bytes.saturating_sub(gone);
        highest
    }

    /// Runs in the order in which they came to be.
    pub fn in_order(&self) -> impl Iterator<Item = &Run> {
        let mut runs: Vec<&Run> = self.runs.values().collect();
        runs.sort_by_key(|run| run.id);
        runs.into_iter()
    }

    fn head(&self, run: &Arc<str>) -> Option<&Head> {
        self.runs.get(run)?.head.as_ref()
    }

    fn settle(&mut self, run: &Arc<str>, end: RunEnd) -> bool {
        let run = self.run(run);
        let Some(head) = &mut run.head else { return false };
        (head.phase, head.is_unheard) = (RunPhase::Ended, true);
        head.ran_ms = head.ran_ms.max(end.ran_ms);
        run.notices.extend(&end.notices);
        head.end = Some(end);
        true
    }
}

impl Run {
    pub fn pass(&self) -> u32 {
        self.head.as_ref().map_or(1, |head| head.pass)
    }

    /// Rows were written.
    pub fn progress(&mut self, rows: u64, ran_ms: u64) {
        if let Some(head) = self.head.as_mut().filter(|head| head.phase != RunPhase::Ended) {
            head.progress += rows;
            head.ran_ms = head.ran_ms.max(ran_ms);
        }
    }

    pub fn mark(&mut self, stage: u16) -> &mut StageMark {
        self.stages.entry(stage).or_insert(StageMark { stage, listed: false, began: None })
    }

    pub fn stage_began(&mut self, stage: u16, ran_ms: u64, wall_ms: i64) {
        self.mark(stage).began.get_or_insert(Began { ran_ms, wall_ms });
    }

    pub fn tally(&self, stage: u16) -> Result<Tally, StoreError> {
        let mut tally = Tally::default();
        tally.counts.complete = true;
        for row in self.of_stage(stage) {
            if row.state == RETRY {
                tally.waiting += 1;
            } else if row.is_terminal() {
                tally.counts.items += 1;
                tally.counts.settle(codec::outcome(row.state, row.class.as_deref())?, row.attempts);
            }
        }
        Ok(tally)
    }

    pub fn unsettled(
        &self,
        parent: u16,
        stage: u16,
        after: Option<Lineage>,
        limit: usize,
    ) -> Result<Vec<Unsettled>, StoreError> {
        let pass = self.pass();
        let mut room = PageRoom::new(limit);
        let mut found = Vec::new();
        for row in self.of_stage(parent).filter(|row| row.state == OK && row.pass < pass) {
            let Some(lines) = row.values.as_ref().filter(|_| after.as_ref().is_none_or(|after| row.lineage > *after))
            else {
                continue;
            };
            if room.is_full() {
                break;
            }
            let is_open = |index: &u32| {
                let child = if row.width == 1 { row.lineage.clone() } else { row.lineage.child(*index) };
                !self.items.contains_key(&(stage, child))
            };
            let open: Vec<u32> = (0..row.width).filter(is_open).collect();
            if !open.is_empty() {
                room.take(lines.len());
                let (lineage, key) = (row.lineage.clone(), row.key.clone());
                found.push(Unsettled { lineage, key, values: codec::values(lines)?, open });
            }
        }
        Ok(found)
    }

    pub fn settled(&self, stage: u16, lineages: Vec<Lineage>) -> Vec<bool> {
        let is_settled = |lineage| self.items.get(&(stage, lineage)).is_some_and(Packed::is_terminal);
        lineages.into_iter().map(is_settled).collect()
    }

    /// Rows of a stage in lineage order.
    pub fn of_stage(&self, stage: u16) -> impl Iterator<Item = &Packed> {
        let first = (stage, Lineage::from_bytes(&[]));
        let rows = self.items.range((Excluded(first), Unbounded));
        rows.take_while(move |((of, _), _)| *of == stage).map(|(_, row)| row)
    }
}
