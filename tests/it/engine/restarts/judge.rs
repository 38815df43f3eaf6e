//! The oracles of nights that crash. Each is a function of its own, named after what it holds; `docs/PROOF.md` lists them.
//!
//! [`Watch`] looks at the disk whenever a process has opened it and whenever one has ended in peace: [`Snapshot`]. What was
//! promised before, and what happened outside, must fit.

use super::{
    Gateway, Whole,
    disk::Promised,
    draw::Case,
    outside::{Effect, Outside},
};
use futures_lite::future::block_on;
use lamplighter::{
    item::{Counts, Key, Lineage, Outcome, RunOutcome, RunRecord, StoredRecord, Value},
    job::{Job, Stage, StageKind},
    limits::{CRASHES_MAX, CRASHES_WITHOUT_PROGRESS_MAX},
    store::{EventQuery, Page, RowEnd, RowHead, RowQuery, RunDetails, RunHead, RunPhase, State, Store, StoreError},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    sync::Arc,
};

/// An oracle that was broken, and by what.
pub type Wrong = (&'static str, String);
type Held = Result<(), Wrong>;

/// All of them.
pub const ORACLES: [&str; 20] = [
    "O1_one_run_for_an_identity",
    "O1_one_process_works_on_a_run",
    "O2_an_end_is_never_left",
    "O3_counted_is_stored",
    "O4_promised_is_there",
    "O5_done_is_not_repeated",
    "O5_repeats_have_a_crash",
    "O5_the_same_idempotency_key",
    "O6_held_is_not_repeated",
    "O7_a_crash_changes_nothing",
    "O8_nothing_is_held",
    "O8_it_comes_to_its_end",
    "D5_told_after_the_end",
    "D5_told_at_least_once",
    "D5_told_once_by_a_process",
    "S6_a_repetition_is_whole",
    "S8_quarantine",
    "S10_state_is_of_an_earlier_due",
    "S11_forgotten_is_gone",
    "T3_deadlines_go_on",
];

macro_rules! ensure {
    ($name:literal, $holds:expr, $($text:tt)+) => {
        if !$holds {
            return Err(($name, format!($($text)+)));
        }
    };
}

/// What is on the disk.
#[derive(Default)]
pub struct Snapshot {
    heads: BTreeMap<String, RunHead>,
    details: BTreeMap<String, RunDetails>,
    rows: BTreeMap<(String, u16, Lineage), RowHead>,
    /// Values of ok rows, by run and stage.
    given: BTreeMap<(String, u16), u64>,
    notices: Vec<(String, u16)>,
    state: Option<State>,
}

impl Snapshot {
    pub fn of(store: &Arc<dyn Store>, job: &Job) -> Snapshot {
        block_on(Snapshot::read(State::new(store.clone()), job)).unwrap_or_else(|error| panic!("{error}"))
    }

    async fn read(state: State, job: &Job) -> Result<Snapshot, StoreError> {
        let mut found = Snapshot::default();
        for head in state.history(None, None, 1000).await? {
            let (run, rows) = (head.run.to_string(), state.rows(&head.run));
            if let Some(details) = state.details(&run).await? {
                found.details.insert(run.clone(), details);
            }
            for row in rows.row_heads(RowQuery { limit: 10_000, ..RowQuery::default() }).await? {
                found.rows.insert((run.clone(), row.stage, row.lineage.clone()), row);
            }
            for place in (0..job.stages.len() as u16).filter(|_| head.phase == RunPhase::Ended) {
                let values = rows.values(&[place], None, Page { after: None, limit: 10_000 }).await?;
                found.given.insert((run.clone(), place), values.len() as u64);
            }
            found.heads.insert(run, head);
        }
        found.notices = state.notices().await?.into_iter().map(|of| (of.run.to_string(), of.place)).collect();
        found.state = Some(state);
        Ok(found)
    }

    fn rows_of<'a>(&'a self, run: &'a str) -> impl Iterator<Item = &'a RowHead> {
        self.rows.iter().filter(move |((of, ..), _)| of == run).map(|(_, row)| row)
    }

    fn is_listed(&self, run: &str, stage: u16) -> bool {
        let marks = self.details.get(run).map(|details| &details.stages[..]).unwrap_or_default();
        marks.iter().any(|mark| mark.stage == stage && mark.listed)
    }

    /// Whether a row may be gone: what a source missed is forgotten when it lists anew (RUNS S3).
    fn may_go(&self, job: &Job, run: &str, stage: u16) -> bool {
        plan(job, stage).is_source() && !self.is_listed(run, stage)
    }

    fn record(&self, run: &str) -> Option<RunRecord> {
        let text = self.details.get(run)?.record.as_deref()?;
        serde_json::from_str::<StoredRecord>(text).ok().map(|stored| stored.record)
    }
}

fn plan(job: &Job, stage: u16) -> &Stage {
    &job.stages[usize::from(stage)]
}

fn is_terminal(end: &RowEnd) -> bool {
    matches!(end, RowEnd::Done(_))
}

fn is_done(end: &RowEnd) -> bool {
    matches!(end, RowEnd::Done(Outcome::Ok | Outcome::Empty))
}

/// Run, stage and key.
type Place = (String, String, String);

/// What is known of a gateway from one look at its disk to the next.
#[derive(Default)]
pub struct Watch {
    last: Snapshot,
    /// The processes that died last, if that was the last thing that happened.
    dead: Option<RangeInclusive<u32>>,
    /// Crashes in which an item was in flight or not committed.
    exposed: BTreeMap<Place, u32>,
    /// From which process on an item is known to be settled.
    settled: BTreeMap<Place, u32>,
    /// Crashes of a run that count; all of them lie within the window.
    counted: BTreeMap<String, usize>,
    /// What becomes of that when the run is taken over now: the pass before, and the crashes.
    next: BTreeMap<String, (u32, usize)>,
    /// Effects that were looked at.
    effects_seen: usize,
    /// Processes that are gone.
    processes: u32,
}

impl Watch {
    /// Processes have died.
    pub fn died(&mut self, processes: RangeInclusive<u32>) {
        self.processes = *processes.end();
        self.dead = Some(processes);
    }

    /// The next process has opened the state, and has not touched it yet.
    pub fn recovered(&mut self, found: Snapshot, job: &Job, seen: &mut Outside) -> Held {
        let dead = self.dead.take();
        self.look(&found, job, seen)?;
        if let Some(dead) = dead {
            let in_flight: BTreeSet<Place> = seen
                .effects
                .iter()
                .filter(|effect| dead.contains(&effect.process))
                .map(place_of)
                .filter(|place| !self.settled.contains_key(place))
                .collect();
            in_flight.into_iter().for_each(|place| *self.exposed.entry(place).or_default() += 1);
        }
        self.crashes(&found)?;
        self.last = found;
        Ok(())
    }

    /// A process has ended in peace.
    pub fn settled(&mut self, process: u32, found: Snapshot, job: &Job, seen: &mut Outside) -> Held {
        self.processes = process;
        self.look(&found, job, seen)?;
        self.last = found;
        Ok(())
    }

    fn look(&mut self, found: &Snapshot, job: &Job, seen: &mut Outside) -> Held {
        promised_is_there(found, job, &seen.promised)?;
        ends_stay(&self.last, found, job)?;
        one_run_for_an_identity(found)?;
        deadlines_go_on(&self.last, found, job, &seen.effects[self.effects_seen..])?;
        self.effects_seen = seen.effects.len();
        for (run, head) in &found.heads {
            let has_ended = self.last.heads.get(run).is_some_and(|head| head.phase == RunPhase::Ended);
            if head.phase == RunPhase::Ended && !has_ended {
                seen.ended.insert(run.clone());
                counted_is_stored(found, job, run)?;
            }
        }
        for ((run, stage, _), row) in found.rows.iter().filter(|(_, row)| is_terminal(&row.end)) {
            let place = (run.clone(), plan(job, *stage).name.to_string(), row.key.to_string());
            self.settled.entry(place).or_insert(self.processes + 1);
            let keeps = plan(job, *stage).actions.iter().any(|action| action.kind == "Keep");
            if keeps && is_done(&row.end) {
                let day = super::day_of(found.heads[run].due_ms);
                seen.kept.entry((job.name.to_string(), row.key.to_string())).or_default().insert(day);
            }
        }
        Ok(())
    }

    /// RUNS S8: how often a run has crashed, and what that means when it is taken over now.
    fn crashes(&mut self, found: &Snapshot) -> Held {
        for (run, head) in &found.heads {
            let first = if head.parent.is_some() { 2 } else { 1 };
            ensure!(
                "S8_quarantine",
                head.crashes == head.pass - first,
                "{run} crashed {} times by pass {}, and nobody let it go",
                head.crashes,
                head.pass
            );
            if let Some((pass, counted)) = self.next.remove(run)
                && head.pass > pass
            {
                self.counted.insert(run.clone(), counted);
            }
            if head.phase != RunPhase::Running {
                continue;
            }
            let made_progress = found.rows_of(run).any(|row| row.pass == head.pass);
            let counted = self.counted.get(run).copied().unwrap_or_default();
            self.next.insert(run.clone(), (head.pass, counted + usize::from(!made_progress)));
        }
        Ok(())
    }

    /// Whether a run is to be quarantined when it is taken over now.
    pub fn is_poison(&self, head: &RunHead) -> bool {
        let counted = self.next.get(&*head.run).map_or(0, |(_, counted)| *counted);
        head.crashes + 1 >= CRASHES_MAX || counted >= CRASHES_WITHOUT_PROGRESS_MAX
    }

    pub fn record(&self, run: &str) -> Option<RunRecord> {
        self.last.record(run)
    }

    /// How many items of a run are held.
    pub fn held(&self, run: &str) -> usize {
        self.last.rows_of(run).filter(|row| row.end == RowEnd::Done(Outcome::Held)).count()
    }

    /// Everything is settled and nobody works any more.
    pub fn end(&self, case: &Case, job: &Job, seen: &Outside) -> Held {
        self.done_is_not_repeated(seen)?;
        self.repeats_have_a_crash(job, seen)?;
        held_is_not_repeated(job, &seen.effects)?;
        self.the_same_idempotency_key(seen)?;
        self.told(case, seen)?;
        self.repetitions(case, job, seen)
    }

    /// O5, P3: what a process has found settled on the disk is not worked on by it or by a later one.
    fn done_is_not_repeated(&self, seen: &Outside) -> Held {
        for effect in seen.effects.iter().filter(|effect| !effect.in_source) {
            let since = self.settled.get(&place_of(effect));
            ensure!(
                "O5_done_is_not_repeated",
                since.is_none_or(|since| effect.process < *since),
                "it was settled before process {since:?}: {effect:?}"
            );
        }
        Ok(())
    }

    /// O5: nothing happens more often outside than once, and once for each crash in which it was in flight or not committed.
    fn repeats_have_a_crash(&self, job: &Job, seen: &Outside) -> Held {
        let mut times: BTreeMap<(Place, &str, u32), u32> = BTreeMap::new();
        for effect in seen.effects.iter().filter(|effect| !effect.in_source) {
            *times.entry((place_of(effect), &effect.name, effect.attempt)).or_default() += 1;
        }
        for ((place, _, attempt), times) in times {
            let exposed = self.exposed.get(&place).copied().unwrap_or_default();
            ensure!(
                "O5_repeats_have_a_crash",
                times <= 1 + exposed,
                "attempt {attempt} on {place:?} was made {times} times, in flight at {exposed} crashes of {}",
                job.name
            );
        }
        Ok(())
    }

    /// O5: the idempotency key of what is done for an item is the same over attempts, crashes and repetitions, and no other
    /// has it.
    fn the_same_idempotency_key(&self, seen: &Outside) -> Held {
        let mut names: BTreeMap<(String, &str, &str, &str), BTreeSet<&str>> = BTreeMap::new();
        let mut owners: BTreeMap<&str, (String, &str, &str)> = BTreeMap::new();
        for effect in seen.effects.iter().filter(|effect| !effect.in_source) {
            let chain = self.last.heads.get(&effect.run).map_or(&*effect.run, |head| &*head.chain_first).to_owned();
            let of = names.entry((chain.clone(), &effect.stage, &effect.key, &effect.place)).or_default();
            of.insert(&effect.name);
            let most = if effect.place.starts_with("5/") { 2 } else { 1 };
            let (stage, key) = (&*effect.stage, &*effect.key);
            ensure!("O5_the_same_idempotency_key", of.len() <= most, "{key} of `{stage}` in {chain} has {of:?}");
            let owner = owners.entry(&effect.name).or_insert_with(|| (chain.clone(), stage, key)).clone();
            ensure!("O5_the_same_idempotency_key", owner == (chain, stage, key), "{owner:?} has that of {effect:?}");
        }
        Ok(())
    }

    /// RUNS D5.
    fn told(&self, case: &Case, seen: &Outside) -> Held {
        let mut by_process = BTreeSet::new();
        for told in &seen.told {
            let head = self.last.heads.get(&told.run);
            let outcome = head.and_then(|head| head.outcome);
            ensure!(
                "D5_told_after_the_end",
                told.was_settled && outcome.is_some_and(|outcome| outcome.name() == told.outcome),
                "{told:?} of a run that ended as {outcome:?}"
            );
            ensure!(
                "D5_told_once_by_a_process",
                case.two || by_process.insert((&told.run, told.place, told.process)),
                "twice: {told:?}"
            );
        }
        for (run, head) in &self.last.heads {
            for (place, when) in case.notices.iter().enumerate() {
                let asked = head.outcome.is_some_and(|outcome| when.contains(&outcome));
                let told = seen.told.iter().any(|told| told.run == *run && usize::from(told.place) == place);
                let outcome = head.outcome;
                ensure!(
                    "D5_told_at_least_once",
                    asked == told,
                    "{run} ended as {outcome:?}, notice {place} is for {when:?}; it was sent: {told}"
                );
            }
        }
        let left = &self.last.notices;
        ensure!("D5_told_at_least_once", left.is_empty(), "they are still to be sent: {left:?}");
        Ok(())
    }

    /// RUNS S6: a repetition does what its parent has not done, and that only.
    fn repetitions(&self, case: &Case, job: &Job, seen: &Outside) -> Held {
        for (run, head) in &self.last.heads {
            let Some(parent) = head.parent.as_deref() else { continue };
            let ran = |row: &RowHead| {
                let stage = &*plan(job, row.stage).name;
                let is_it =
                    |effect: &&Effect| effect.run == *run && effect.stage == stage && effect.key == row.key.as_str();
                seen.effects.iter().filter(is_it).count()
            };
            let is_cut = case.bounded
                || !matches!(head.outcome, Some(RunOutcome::Succeeded | RunOutcome::Partial | RunOutcome::Failed))
                || head.reason.as_deref().is_some_and(|why| why.contains("fail_fast"));
            for row in self.last.rows_of(parent).filter(|row| matches!(plan(job, row.stage).kind, StageKind::Worker)) {
                let is_held = row.end == RowEnd::Done(Outcome::Held);
                let takes_over = is_done(&row.end) || (is_held && !case.runs_held());
                let times = ran(row);
                // It may be held itself, by a crash before anything happened.
                let place = (run.clone(), row.stage, row.lineage.clone());
                let again = self.last.rows.get(&place).is_some_and(|row| row.end == RowEnd::Done(Outcome::Held));
                ensure!(
                    "S6_a_repetition_is_whole",
                    !takes_over || times == 0,
                    "{run} did {} of stage {} again, which {parent} left as {:?}",
                    row.key,
                    row.stage,
                    row.end
                );
                ensure!(
                    "S6_a_repetition_is_whole",
                    takes_over || is_cut || again || times > 0,
                    "{run} did not do {} of stage {}, which {parent} left as {:?}",
                    row.key,
                    row.stage,
                    row.end
                );
            }
        }
        Ok(())
    }
}

fn place_of(effect: &Effect) -> Place {
    (effect.run.clone(), effect.stage.clone(), effect.key.clone())
}

/// O1: a firing is begun once, and a run has one head.
fn one_run_for_an_identity(found: &Snapshot) -> Held {
    let mut seen = BTreeMap::new();
    for (run, head) in &found.heads {
        let Some(key) = &head.fire_key else { continue };
        if let Some(other) = seen.insert((&head.job, key), run) {
            return Err(("O1_one_run_for_an_identity", format!("{run} and {other} are both {key}")));
        }
    }
    Ok(())
}

/// O2: what is terminal stays as it is: items, runs and records; and passes go forward.
fn ends_stay(last: &Snapshot, found: &Snapshot, job: &Job) -> Held {
    for (run, before) in &last.heads {
        let Some(now) = found.heads.get(run) else {
            return Err(("O2_an_end_is_never_left", format!("{run} is gone")));
        };
        let stays = before.phase != RunPhase::Ended
            || (now.phase, now.outcome, now.pass) == (before.phase, before.outcome, before.pass)
                && last.details[run].record == found.details[run].record;
        ensure!("O2_an_end_is_never_left", stays, "{before:?} has become {now:?}");
        ensure!("O2_an_end_is_never_left", now.pass >= before.pass, "{before:?} has become {now:?}");
    }
    for (place, before) in last.rows.iter().filter(|(_, row)| is_terminal(&row.end)) {
        let now = found.rows.get(place);
        let same = now.is_some_and(|now| (now.end, now.attempts) == (before.end, before.attempts));
        let may_go = !last.is_listed(&place.0, place.1) && found.may_go(job, &place.0, place.1)
            || plan(job, place.1).is_source() && !last.is_listed(&place.0, place.1);
        ensure!("O2_an_end_is_never_left", same || may_go, "{before:?} has become {now:?}");
    }
    Ok(())
}

/// O3: what a run has counted is what its rows say, and what its stages were given. Of one that was cut there is a row for
/// what was done.
fn counted_is_stored(found: &Snapshot, job: &Job, run: &str) -> Held {
    let Some(record) = found.record(run) else {
        return Err(("O3_counted_is_stored", format!("{run} has ended without a record")));
    };
    let why = record.reason.clone().unwrap_or_default();
    let cut = ["cancelled by", "the deadline", "spool: "].iter().any(|is| why.starts_with(is))
        || why.contains("(fail_fast)")
        || matches!(record.outcome, RunOutcome::Interrupted | RunOutcome::Quarantined);
    if cut {
        for stage in &record.stages {
            let place = job.stage_place(&stage.name).expect("a stage of the job");
            let rows = |end: Outcome| {
                found.rows_of(run).filter(|row| row.stage == place && row.end == RowEnd::Done(end)).count() as u64
            };
            let done = (rows(Outcome::Ok), rows(Outcome::Empty), rows(Outcome::Held));
            let Counts { ok, empty, held, .. } = stage.counts;
            let name = &stage.name;
            ensure!(
                "O3_counted_is_stored",
                done == (ok, empty, held),
                "{run} ({why}) counted {:?} in `{name}`, and rows say {done:?} are ok, empty and held",
                stage.counts
            );
        }
        return Ok(());
    }
    for stage in &record.stages {
        let place = job.stage_place(&stage.name).expect("a stage of the job");
        let mut counts = Counts { complete: stage.counts.complete, ..Counts::default() };
        for row in found.rows_of(run).filter(|row| row.stage == place) {
            let RowEnd::Done(outcome) = row.end else {
                let text = format!("{run} has ended, and {} of `{}` is {:?}", row.key, stage.name, row.end);
                return Err(("O3_counted_is_stored", text));
            };
            counts.items += 1;
            counts.settle(outcome, row.attempts);
        }
        let name = &stage.name;
        ensure!(
            "O3_counted_is_stored",
            counts == stage.counts,
            "{run} counted {:?} in `{name}`, and its rows are {counts:?}",
            stage.counts
        );
        if !matches!(plan(job, place).kind, StageKind::Worker) {
            continue;
        }
        let given: u64 = plan(job, place).from.iter().map(|from| found.given[&(run.to_owned(), *from)]).sum();
        let items = counts.items;
        ensure!("O3_counted_is_stored", items == given, "`{name}` of {run} has {items} items, and was given {given}");
    }
    Ok(())
}

/// O4: what a store has promised is there after a crash.
fn promised_is_there(found: &Snapshot, job: &Job, promised: &Promised) -> Held {
    const NAME: &str = "O4_promised_is_there";
    for run in &promised.begun {
        ensure!("O4_promised_is_there", found.heads.contains_key(run), "{run} has begun, and is not there");
    }
    for (run, (outcome, _)) in &promised.ended {
        let head = found.heads.get(run);
        let as_told = head.is_some_and(|head| head.phase == RunPhase::Ended && head.outcome == Some(*outcome));
        ensure!("O4_promised_is_there", as_told, "{run} has ended as {outcome}, and is {head:?}");
    }
    for sent in &promised.sent {
        ensure!("O4_promised_is_there", !found.notices.contains(sent), "{sent:?} was sent, and is to be sent again");
    }
    for (run, source) in &promised.listed {
        ensure!(
            "O4_promised_is_there",
            found.is_listed(run, *source),
            "{run} has listed stage {source}, it is unknown"
        );
    }
    for (place, (end, attempts)) in &promised.rows {
        let now = found.rows.get(place);
        let there = match (end, now) {
            (RowEnd::Done(_), Some(now)) => (&now.end, &now.attempts) == (end, attempts),
            (_, Some(_)) => true,
            (_, None) => plan(job, place.1).is_source(),
        };
        ensure!("O4_promised_is_there", there, "{place:?} was {end:?}, and is {now:?}");
    }
    let mut newest: BTreeMap<(&String, &Key), i64> = BTreeMap::new();
    for (of_job, key, due_ms) in &promised.kept {
        let due = newest.entry((of_job, key)).or_insert(*due_ms);
        *due = (*due).max(*due_ms);
    }
    for ((of_job, key), due_ms) in newest {
        let state = found.state.as_ref().expect("it was read");
        let kept = block_on(state.state_of(of_job, key, due_ms + 1)).map_err(|error| (NAME, error.to_string()))?;
        let is_it = kept.as_ref().and_then(Value::as_i64) == Some(super::day_of(due_ms));
        ensure!("O4_promised_is_there", is_it, "{key} was kept as of {due_ms}, and is {kept:?}");
    }
    Ok(())
}

/// O6: what is held back after a crash has happened once.
fn held_is_not_repeated(job: &Job, effects: &[Effect]) -> Held {
    let mut seen = BTreeSet::new();
    for effect in effects {
        let holds = job.stage_place(&effect.stage).is_some_and(|place| plan(job, place).holds);
        ensure!(
            "O6_held_is_not_repeated",
            !holds || seen.insert((place_of(effect), &effect.name, effect.attempt)),
            "twice: {effect:?}"
        );
    }
    Ok(())
}

/// RUNS T3: the deadlines of a run and of its stages are those that were on the disk, whoever goes on with it.
fn deadlines_go_on(last: &Snapshot, found: &Snapshot, job: &Job, effects: &[Effect]) -> Held {
    for effect in effects {
        let (Some(details), Some(place)) = (last.details.get(&effect.run), job.stage_place(&effect.stage)) else {
            continue;
        };
        let plan = plan(job, place);
        if plan.is_gather() {
            continue;
        }
        let mark = details.stages.iter().find(|mark| mark.stage == place).and_then(|mark| mark.began);
        let of_stage = plan.deadline.zip(mark).map(|(deadline, began)| began.wall_ms + deadline.as_millis() as i64);
        // Listings go on after the run's, so that gaps have names, and what stands behind a closed stage has its grace (RUNS D1, D2).
        let closes = |at: &u16| job.stages[usize::from(*at)].on_deadline_continue;
        let goes_on = plan.is_source() || job.ancestors(place).iter().any(closes);
        let of_run = details.head.deadline_ms.filter(|_| !goes_on);
        let late = of_stage.into_iter().chain(of_run).find(|due| effect.wall_ms > due + 1);
        ensure!(
            "T3_deadlines_go_on",
            late.is_none(),
            "{late:?} was the end of it: {effect:?} of {:?}",
            found.heads.get(&effect.run)
        );
    }
    Ok(())
}

impl Gateway {
    /// O7, K7: the run ended as an undisturbed one did, and gave the same. S6 where it repeats another one: then but for the
    /// attempts that were made.
    pub(super) fn compare(&self, run: &str, whole: &Whole, repeats: Option<&str>) {
        let record = self.record(run);
        if matches!(record.outcome, RunOutcome::Quarantined | RunOutcome::Interrupted) || self.watch.held(run) > 0 {
            return;
        }
        let name = if repeats.is_some() { "S6_a_repetition_is_whole" } else { "O7_a_crash_changes_nothing" };
        let shape = |value: Value| if repeats.is_some() { without_attempts(value) } else { value };
        let of = |record: &RunRecord| {
            // Which of two listings failed first is a matter of timing.
            let reason = record.reason.as_ref().filter(|why| !why.starts_with("the listing"));
            shape(serde_json::json!({
                "outcome": record.outcome, "reason": reason, "stages": record.stages, "failures": record.failures,
            }))
        };
        let (got, expected) = (of(&record), of(&whole.record));
        if got != expected {
            self.broken((name, format!("{run} of {repeats:?} ended as\n{got}\nand not as\n{expected}")));
        }
        let reports: Vec<Value> = self.reports(run).into_iter().map(shape).collect();
        let wanted: Vec<Value> = whole.reports.iter().cloned().map(shape).collect();
        if reports.is_empty() != wanted.is_empty() || reports.iter().any(|report| Some(report) != wanted.last()) {
            self.broken((name, format!("{run} of {repeats:?} reported\n{reports:?}\nand not\n{wanted:?}")));
        }
        let files = self.files();
        if files != whole.files {
            let names =
                |files: &BTreeMap<std::path::PathBuf, Vec<u8>>| format!("{:?}", files.keys().collect::<Vec<_>>());
            self.broken((name, format!("{run} wrote {} and not {}", names(&files), names(&whole.files))));
        }
    }

    /// RUNS S11: a key that is forgotten is nowhere in the state.
    pub(super) fn forget(&self) {
        let Some(key) = self.watch.last.rows.values().map(|row| row.key.clone()).find(|key| key.as_str().contains('P'))
        else {
            return;
        };
        let opened = self.disk.open("boot-last", self.wall.as_millisecond());
        let state = State::new(opened.store.clone());
        let forgotten = block_on(state.forget_key(&key)).unwrap_or_else(|error| panic!("{error}"));
        let found = Snapshot::of(&opened.store, &self.job);
        let is_it = |other: &Key| {
            other == &key || other.as_str().strip_prefix(key.as_str()).is_some_and(|rest| rest.starts_with('/'))
        };
        let mut left: Vec<String> =
            found.rows.values().filter(|row| is_it(&row.key)).map(|row| format!("{row:?}")).collect();
        for run in found.heads.keys() {
            let events = block_on(state.rows(run).events(EventQuery { limit: 10_000, ..EventQuery::default() }));
            let events = events.unwrap_or_else(|error| panic!("{error}"));
            left.extend(
                events.iter().filter(|(_, event)| event.key.as_ref().is_some_and(is_it)).map(|it| format!("{it:?}")),
            );
            let failures = found.record(run).map(|record| record.failures).unwrap_or_default();
            left.extend(failures.iter().filter(|failure| is_it(&failure.key)).map(|it| format!("{it:?}")));
        }
        let kept = block_on(state.state_of(&self.job.name, &key, i64::MAX)).unwrap_or_else(|error| panic!("{error}"));
        left.extend(kept.map(|kept| format!("{kept}")));
        drop((found, state));
        opened.close();
        if !left.is_empty() {
            self.broken(("S11_forgotten_is_gone", format!("{key} was forgotten ({forgotten:?}), and is in {left:?}")));
        }
    }
}

/// The same without the numbers of attempts, and the texts that name them.
fn without_attempts(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.into_iter().filter(|(name, _)| name != "attempts" && name != "message");
            Value::Object(kept.map(|(name, value)| (name, without_attempts(value))).collect())
        }
        Value::Array(values) => values.into_iter().map(without_attempts).collect(),
        other => other,
    }
}
