//! A run that is kept: its beginning, its resume and its end stand in a [`State`], so that a night that was killed goes on
//! where it was (RUNS section 7 of the design).
//!
//! The engine is the same for a first pass and a resume: counts begin with those of the rows, what an earlier pass gave and
//! nobody has settled is fed first, then everything goes on as ever.

use super::{
    facts::{absolute, rfc3339},
    options::RunOptions,
    retry::COPY_PASS,
    state::{RunState, UNWRITTEN, lock, null},
    token::Token,
    worker::{Child, children},
};
use crate::{
    action::{Leftovers, Outputs},
    item::{
        Class, Counts, FailureRecord, Folded, Key, Lineage, Outcome, RunOutcome, RunRecord, StageEnd, StageRecord,
        StoredRecord, Value,
    },
    job::{CheckedJob, Job, JobProblems, Stage, StageKind, Surroundings},
    limits::{FOLD_DISTANCE_MAX, GRACE_PERIOD_DEFAULT, LEFTOVER_UNKILLABLE_AFTER, PAGE_ROWS, SUMMARY_LIST_MAX},
    problem::Source,
    store::{NewRun, Page, Resume, RunDetails, RunEnd, RunHead, RunKind, RunStore, State, StoreError, Tally},
    world::{
        Boot, World,
        failpoint::{Point, pass},
        plant::{Bug, planted},
    },
};
use futures_lite::FutureExt;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

/// Where and as what a run is kept.
#[derive(Clone)]
pub struct Keeping {
    /// What it is kept in.
    pub state: State,
    /// What started it: `manual`, `schedule`, `catch_up`, `api`, `dependency`, `boot`.
    pub trigger: String,
    /// With the job the identity of the firing, which is begun once, whatever triggers it; `None`: a run of its own.
    pub fire_key: Option<String>,
    /// Who works on it.
    pub kind: RunKind,
    /// Refuses to begin while a living process works on another run of the job.
    pub alone: bool,
}

/// Everything of a job that a resume needs: the texts that it began with, whatever became of the files since.
#[derive(Serialize, Deserialize)]
struct Definition {
    name: String,
    base_dir: PathBuf,
    text: String,
    side_files: BTreeMap<String, String>,
    zone: String,
    stages: Vec<StageOutline>,
}

/// The job that a kept run began with. Services and notices of the configuration are those of `surroundings`, secrets are
/// read anew.
///
/// # Errors
/// The problems of its text, when this version understands it otherwise, or what was kept is no definition.
pub fn kept_job(details: &RunDetails, surroundings: &Surroundings) -> Result<CheckedJob, JobProblems> {
    let definition: Definition = serde_json::from_str(&details.definition).map_err(|error| {
        JobProblems::of_definition(&details.head.run, format!("the definition that was kept cannot be read: {error}"))
    })?;
    let source = Source::new(format!("{}.ron", definition.name), definition.text);
    let surroundings = Surroundings { side_files: Some(definition.side_files), ..surroundings.clone() };
    Job::from_source(&definition.name, source, &definition.base_dir, &surroundings)
}

/// What is known of a job without understanding its text: enough to tell of its runs.
#[derive(Clone, Debug)]
pub struct Outline {
    /// The zone of its times.
    pub zone: TimeZone,
    /// By place.
    pub stages: Vec<StageOutline>,
}

/// A stage of an [`Outline`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageOutline {
    /// Its name.
    pub name: String,
    /// People are not told of it.
    pub hidden: bool,
    /// Its deadline, in milliseconds.
    pub deadline_ms: Option<u64>,
}

impl Outline {
    /// Of the job that a run began with; empty, in UTC, where what was kept is no definition.
    pub fn of(details: &RunDetails) -> Outline {
        let definition: Option<Definition> = serde_json::from_str(&details.definition).ok();
        let zone = definition.as_ref().and_then(|definition| TimeZone::get(&definition.zone).ok());
        let stages = definition.map(|definition| definition.stages).unwrap_or_default();
        Outline { zone: zone.unwrap_or(TimeZone::UTC), stages }
    }

    /// The same with times in UTC.
    pub fn in_utc(self) -> Outline {
        Outline { zone: TimeZone::UTC, ..self }
    }

    /// The name of the stage at a place, where people are told of it.
    pub fn name(&self, place: u16) -> Option<&str> {
        let stage = self.stages.get(usize::from(place)).filter(|stage| !stage.hidden)?;
        Some(&stage.name)
    }

    /// Places of the stages that people are told of.
    pub fn places(&self) -> impl Iterator<Item = u16> {
        (0..self.stages.len() as u16).filter(|place| self.name(*place).is_some())
    }

    /// A time of the wall clock in its zone.
    pub fn time(&self, wall_ms: i64) -> String {
        rfc3339(jiff::Timestamp::from_millisecond(wall_ms).unwrap_or_default(), &self.zone)
    }
}

/// What the rows of a run say of it when it has no record. Its counts are "at least", but for listings that were done.
pub async fn record_so_far(
    rows: &RunStore,
    details: &RunDetails,
    outline: &Outline,
    reason: Option<String>,
    ended_ms: i64,
) -> Result<RunRecord, StoreError> {
    let head = &details.head;
    let mut stages = Vec::new();
    for place in outline.places() {
        let complete = details.stages.iter().any(|mark| mark.stage == place && mark.listed);
        let tally = rows.tally(place).await?;
        let items = tally.counts.items + tally.waiting;
        let name = outline.name(place).unwrap_or_default().to_owned();
        stages.push(StageRecord { name, counts: Counts { items, complete, ..tally.counts } });
    }
    let places: Vec<u16> = outline.places().collect();
    let missing = rows.failures(&places, None, Page { after: None, limit: SUMMARY_LIST_MAX }).await?;
    let failures = missing.into_iter().map(|missing| FailureRecord {
        stage: outline.name(missing.stage).unwrap_or_default().to_owned(),
        key: missing.key,
        class: missing.outcome.class_text(),
        message: missing.message,
        attempts: missing.attempts,
    });
    let (outputs, outputs_total) = rows.outputs(SUMMARY_LIST_MAX).await?;
    Ok(RunRecord {
        run: head.run.to_string(),
        job: head.job.clone(),
        outcome: RunOutcome::Interrupted,
        reason,
        started: outline.time(head.started_ms),
        ended: outline.time(ended_ms),
        stages,
        failures: failures.collect(),
        outputs,
        outputs_total,
        leaked: 0,
        unsaved: None,
    })
}

/// Settles a run that nobody works on and nobody will resume as `interrupted`, with what its rows say of it, and ends what its
/// dead process has left running. False when it has ended meanwhile, or somebody works on it.
///
/// The notices that its job wants after that end are recorded with it; [`Runner::send_notices`](super::Runner::send_notices)
/// sends them. A job that is not understood any more has none.
///
/// # Errors
/// When the state cannot be read or written.
pub async fn give_up(
    world: &World,
    state: &State,
    head: &RunHead,
    surroundings: &Surroundings,
) -> Result<bool, StoreError> {
    let Some(details) = state.details(&head.run).await? else { return Ok(false) };
    let reason = "its process ended before it, and nobody went on with it";
    let outcome = RunOutcome::Interrupted;
    let notices = kept_job(&details, surroundings).map_or_else(|_| Vec::new(), |kept| kept.job.notices_after(outcome));
    let end = RunEnd { notices, ..end_of_dead(world, state, &details, outcome, reason).await? };
    pass(Point::GiveUpBegins);
    let settled = state.interrupt(&head.run, end).await?;
    pass(Point::GivenUp);
    if settled {
        end_strangers(world, &head.run).await;
        sweep(world, &details).await;
    }
    Ok(settled)
}

/// Ends a run that was taken over and crashed the program too often (RUNS S8), and what its dead process has left running.
/// The notices that are to be sent of it.
pub async fn quarantine(world: &World, state: &State, job: &Job, details: &RunDetails) -> Result<Vec<u16>, StoreError> {
    let reason = "it ended the program too often without getting on";
    let outcome = RunOutcome::Quarantined;
    let notices = job.notices_after(outcome);
    let so_far = end_of_dead(world, state, details, outcome, reason).await?;
    pass(Point::QuarantineBegins);
    state.rows(&details.head.run).end(RunEnd { notices: notices.clone(), ..so_far }).await?;
    pass(Point::Quarantined);
    end_strangers(world, &details.head.run).await;
    sweep(world, details).await;
    Ok(notices)
}

/// Lets a run go that was taken over and that nobody goes on with: another one may.
pub async fn let_go(state: &State, run: &str) {
    if let Err(error) = state.rows(run).release().await {
        log::error!(target: "lamplighter::run", run; "it stays with this process, which does not go on with it: {error}");
    }
}

/// How a run ends of which only rows are left.
async fn end_of_dead(
    world: &World,
    state: &State,
    details: &RunDetails,
    outcome: RunOutcome,
    reason: &str,
) -> Result<RunEnd, StoreError> {
    let (head, reason) = (&details.head, Some(reason.to_owned()));
    let ended_ms = world.wall().as_millisecond();
    let rows = state.rows(&head.run);
    let so_far = record_so_far(&rows, details, &Outline::of(details), reason.clone(), ended_ms).await?;
    let record = RunRecord { outcome, ..so_far };
    let stored = StoredRecord { record, timeline: Vec::new(), folded: None };
    Ok(RunEnd {
        outcome,
        reason,
        record: serde_json::to_string(&stored).unwrap_or_default(),
        ended_ms,
        ran_ms: head.ran_ms,
        notices: Vec::new(),
        folds: None,
    })
}

/// Ends what the dead process of a run has left running.
async fn end_strangers(world: &World, run: &str) {
    let leftovers = Leftovers::new(world.clone(), GRACE_PERIOD_DEFAULT, run);
    leftovers.expect_strangers();
    leftovers.join().await;
}

/// Removes what the dead process of a run has half written, as much as can be in a short time: it costs room and nothing else.
async fn sweep(world: &World, details: &RunDetails) {
    if let Some(out) = kept_options(details)["out"].as_str() {
        let outputs = Outputs::new(world.clone(), out.into(), &details.head.run);
        outputs.sweep().or(world.sleep(LEFTOVER_UNKILLABLE_AFTER)).await;
    }
}

/// What else a run was started with.
fn kept_options(details: &RunDetails) -> Value {
    serde_json::from_str(&details.options).unwrap_or_default()
}

/// Starts as the run did: with its due and its params, and with its outputs where they were.
pub fn as_before(options: &mut RunOptions, details: &RunDetails) {
    options.due = jiff::Timestamp::from_millisecond(details.head.due_ms).ok();
    let kept = kept_options(details);
    if let Some(out) = kept["out"].as_str() {
        options.out = out.into();
    }
    options.after = serde_json::from_value(kept["after"].clone()).ok();
    let params: Value = serde_json::from_str(&details.params).unwrap_or_default();
    options.params = params.as_object().cloned().unwrap_or_default().into_iter().collect();
}

/// What a run knows of its being kept.
pub struct Kept {
    pub rows: RunStore,
    /// What the job remembers stands beside its runs.
    state: State,
    /// What earlier passes left.
    pub resume: Option<Box<Resume>>,
    /// The first run of the chain of repetitions: idempotency keys name it (RUNS S6).
    pub chain: String,
    /// How long earlier passes ran.
    ran_before: Duration,
    /// When this pass began.
    began: Boot,
}

impl Kept {
    /// `resume` of a run that was taken over.
    pub fn new(world: &World, state: &State, run: &str, chain: &str, resume: Option<Box<Resume>>) -> Kept {
        let ran_before = Duration::from_millis(resume.as_ref().map_or(0, |resume| resume.details.head.ran_ms));
        let began = world.boot();
        let clock = world.clone();
        let ran = move || millis(ran_before + clock.boot().since(began));
        let rows = state.rows(run).timed(Arc::new(ran));
        Kept { rows, state: state.clone(), resume, chain: chain.to_owned(), ran_before, began }
    }

    /// How long the run has run, in all passes.
    pub fn ran(&self, world: &World) -> Duration {
        self.ran_before + world.boot().since(self.began)
    }

    /// True in the first pass of a repetition: what there is of it was taken over.
    pub fn is_copy(&self) -> bool {
        let head = self.resume.as_ref().map(|resume| &resume.details.head);
        head.is_some_and(|head| head.parent.is_some() && head.pass == COPY_PASS)
    }

    /// Which pass this is, from 1.
    pub fn pass(&self) -> u32 {
        self.resume.as_ref().map_or(1, |resume| resume.details.head.pass)
    }
}

/// Milliseconds, as they are stored.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What is left of the time of a run that is resumed: by its deadline on the wall clock, and by how long it may run; the
/// wall clock may have been set meanwhile (RUNS S9).
pub fn left(resume: &Resume, now: jiff::Timestamp) -> Option<Duration> {
    let head = &resume.details.head;
    let by_wall = head.deadline_ms.map(|deadline| {
        Duration::from_millis(u64::try_from(deadline.saturating_sub(now.as_millisecond())).unwrap_or_default())
    });
    if planted(Bug::RunTimeAnew) {
        return head.budget_ms.map(Duration::from_millis);
    }
    let by_budget = head.budget_ms.map(|budget| Duration::from_millis(budget.saturating_sub(head.ran_ms)));
    by_wall.into_iter().chain(by_budget).min()
}

impl RunState {
    /// How the beginning of this run is recorded.
    pub fn new_run(&self, keeping: &Keeping) -> NewRun {
        let budget = self.context.deadline.map(|deadline| deadline.since(self.started));
        let definition = Definition {
            name: self.job.name.to_string(),
            base_dir: absolute(&self.job.base_dir),
            text: self.job.text.clone(),
            side_files: self.job.side_files.clone(),
            zone: self.job.zone.iana_name().unwrap_or("UTC").to_owned(),
            stages: self.job.stages.iter().map(outline_of).collect(),
        };
        let wall = self.started_wall;
        NewRun {
            run: self.context.id.as_str().into(),
            job: self.job.name.to_string(),
            trigger: keeping.trigger.clone(),
            fire_key: keeping.fire_key.clone(),
            kind: keeping.kind,
            due_ms: self.due.as_millisecond(),
            clocks: self.clocks(),
            deadline_ms: budget.map(|budget| {
                wall.as_millisecond().saturating_add(i64::try_from(budget.as_millis()).unwrap_or(i64::MAX))
            }),
            budget_ms: budget.map(millis),
            definition: serde_json::to_string(&definition).unwrap_or_default(),
            params: self.facts.params.to_string(),
            options: serde_json::json!({ "out": absolute(&self.options.out).to_str(), "after": self.options.after })
                .to_string(),
            alone: keeping.alone,
        }
    }

    /// Takes up what earlier passes left: counts, missing items, what was listed, how long each stage has run.
    pub async fn restore(&self) -> Result<(), StoreError> {
        let Some((kept, resume)) = self.kept.as_ref().and_then(|kept| Some((kept, kept.resume.as_ref()?))) else {
            return Ok(());
        };
        let mut whole = BTreeSet::new();
        for (place, stage) in self.stages.iter().enumerate() {
            let place = place as u16;
            let mark = resume.details.stages.iter().find(|mark| mark.stage == place);
            if self.plan(place).is_source() {
                match mark.is_some_and(|mark| mark.listed) {
                    true => stage.listed.store(true, Ordering::Release),
                    false => stage.first_ordinal.store(kept.rows.relist(place).await?, Ordering::Release),
                }
            }
            let tally = kept.rows.tally(place).await?;
            let waiting = if planted(Bug::DeferredNotResumed) { 0 } else { tally.waiting };
            stage.arrived.store(tally.counts.items + waiting, Ordering::Release);
            stage.deferred.store(waiting, Ordering::Release);
            *stage.counts() = tally.counts.clone();
            if self.was_settled(kept, place, &tally, &whole).await? {
                whole.insert(place);
            } else if let Some(began) = mark.and_then(|mark| mark.began) {
                // Up to this moment: a slow disk may have taken its time over what came before.
                let now = self.world().wall().as_millisecond();
                let by_wall = u64::try_from(now.saturating_sub(began.wall_ms)).unwrap_or_default();
                let spent = by_wall.max(millis(self.ran()).saturating_sub(began.ran_ms));
                let spent = if planted(Bug::StageTimeAnew) { 0 } else { spent };
                let _ = stage.spent.set(Duration::from_millis(spent));
                stage.began.settle(self.world().boot());
            }
        }
        let unwritten: u64 =
            self.stages.iter().filter_map(|stage| stage.counts().classes.get(&Class::Output).copied()).sum();
        let places: Vec<u16> = (0..self.stages.len() as u16).collect();
        let missing = kept.rows.failures(&places, None, Page { after: None, limit: SUMMARY_LIST_MAX }).await?;
        let mut failures = lock(&self.failures);
        for missing in missing {
            let named = FailureRecord {
                stage: self.stage(missing.stage).name.to_string(),
                key: missing.key,
                class: missing.outcome.class_text(),
                message: missing.message,
                attempts: missing.attempts,
            };
            if missing.outcome == Outcome::Failed(Class::Output) {
                self.note_broken(named.message.clone());
            }
            failures.insert((missing.stage, missing.lineage), named);
        }
        if unwritten > 0 {
            self.note_broken(UNWRITTEN.to_owned());
        }
        Ok(())
    }

    /// True when earlier passes have settled all that will ever arrive in a stage: its deadline is met, however late it is
    /// now (RUNS T3). `whole` are the stages before it of which that is so.
    async fn was_settled(
        &self,
        kept: &Kept,
        place: u16,
        tally: &Tally,
        whole: &BTreeSet<u16>,
    ) -> Result<bool, StoreError> {
        let plan = self.plan(place);
        match plan.kind {
            StageKind::Source => Ok(self.stage(place).listed.load(Ordering::Acquire)),
            StageKind::Worker if tally.waiting == 0 && plan.from.iter().all(|parent| whole.contains(parent)) => {
                for parent in &plan.from {
                    if !kept.rows.unsettled(*parent, place, None, 1).await?.is_empty() {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            // Groups are known when its inputs have ended.
            StageKind::Worker | StageKind::GatherAll | StageKind::GatherBy(_) => Ok(false),
        }
    }

    /// How long the run has run, in all its passes.
    pub fn ran(&self) -> Duration {
        let own = || self.world().boot().since(self.started);
        self.kept.as_ref().map_or_else(own, |kept| kept.ran(self.world()))
    }

    /// Records when a stage began, once in the life of the run.
    pub async fn note_began(&self, place: u16) {
        let Some(kept) = &self.kept else { return };
        let (ran, wall) = (millis(self.ran()), self.world().wall().as_millisecond());
        if let Err(error) = kept.rows.stage_began(place, ran, wall).await {
            self.store_failed(&error);
        }
    }

    /// What the newest run of the job with an earlier due kept for a key; null where there is none, in a job without `Keep`
    /// and in a run that is not kept (RUNS S10).
    pub async fn state_of(&self, key: &Key) -> Result<Arc<Value>, StoreError> {
        let Some(kept) = self.kept.as_ref().filter(|_| self.job.keeps) else { return Ok(null()) };
        let due_ms = self.due.as_millisecond() + i64::from(planted(Bug::OwnStateSeen));
        let found = kept.state.state_of(&self.job.name, key, due_ms).await?;
        Ok(found.map_or_else(null, Arc::new))
    }

    /// Keeps a value for a key, as of the due of this run. It is committed before the row of its item, which is put later.
    pub async fn keep(&self, key: &Key, value: Value) -> Result<(), StoreError> {
        let Some(kept) = &self.kept else { return Ok(()) };
        kept.state.keep(&self.context.id, &self.job.name, key, self.due.as_millisecond(), value).await
    }

    /// Says once that nothing of this run lasts, where a job counts on it.
    pub fn say_unkept(&self) {
        if self.kept.is_none() && self.job.keeps {
            log::warn!(
                target: "lamplighter::run",
                run = self.context.id.as_str();
                "this run is not kept: `state` is null in it, and what `Keep` is given is forgotten"
            );
        }
    }

    /// Records how the run ended, with the notices that follow. What this returns is on the disk.
    pub async fn keep_end(&self, record: &RunRecord) -> Result<(), StoreError> {
        let Some(kept) = &self.kept else { return Ok(()) };
        let ends = self.stages.iter().filter(|stage| self.is_wanted(stage.place));
        let ends = ends.filter_map(|stage| Some((stage.place, stage.ended.get()?)));
        let timeline = ends.map(|(place, ended)| StageEnd { place, ended_ms: millis(*ended) }).collect();
        let (folded, folds) = self.fold(kept, record).await.unzip();
        let stored = StoredRecord { record: record.clone(), timeline, folded };
        let end = RunEnd {
            outcome: record.outcome,
            reason: record.reason.clone(),
            record: serde_json::to_string(&stored).unwrap_or_default(),
            ended_ms: self.world().wall().as_millisecond(),
            ran_ms: millis(self.ran()),
            notices: if planted(Bug::NoticesUnwritten) { Vec::new() } else { self.notices_after(record.outcome) },
            folds: folds.flatten(),
        };
        match self.kept_in_time(kept.rows.end(end)).await.unwrap_or_else(super::silent)? {
            true => Ok(()),
            false => Err(StoreError::Io("another process has taken the run over".to_owned())),
        }
    }
}

impl RunState {
    /// What [`RunState::folded`] says. A store that does not say it is no reason not to record the end.
    async fn fold(&self, kept: &Kept, record: &RunRecord) -> Option<(Folded, Option<Arc<str>>)> {
        let why = match self.kept_in_time(self.folded(kept, record)).await {
            Some(Ok(folded)) => return folded,
            Some(Err(error)) => error.to_string(),
            None => "the store does not answer".to_owned(),
        };
        log::warn!(target: "lamplighter::run", run = self.context.id.as_str(); "it is a line of its own in the history: {why}");
        None
    }

    /// For what a run stands that listed nothing, and the run before it that is one of them: a job that polls does not fill
    /// the history, nor push out of it what it found (RUNS S13). None where this one is to be seen by itself.
    async fn folded(&self, kept: &Kept, record: &RunRecord) -> Result<Option<(Folded, Option<Arc<str>>)>, StoreError> {
        let mut sources = self.stages.iter().filter(|stage| self.plan(stage.place).is_source());
        // Who lists for nobody does its work in the listing.
        let lists_nothing =
            sources.all(|stage| stage.snapshot().items == 0 && !self.plan(stage.place).readers.is_empty());
        let is_bare = record.outputs_total == 0 && record.leaked == 0;
        // Where several runs work at a time, one may have ended that nobody has heard of yet.
        let is_alone = self.job.runs_at_once() == 1;
        if record.outcome != RunOutcome::Succeeded || !is_bare || !lists_nothing || !is_alone {
            return Ok(None);
        }
        let Some(RunDetails { head, .. }) = kept.state.details(&self.context.id).await? else { return Ok(None) };
        if head.kind != RunKind::Serve || head.fire_key.is_none() || head.parent.is_some() {
            return Ok(None);
        }
        let alone = Folded { runs: 1, first_ms: head.started_ms };
        let before = kept.state.history(Some(&self.job.name), Some(&self.context.id), 1).await?.pop();
        let is_near = |before: &RunHead| {
            head.due_ms.abs_diff(before.due_ms) <= millis(FOLD_DISTANCE_MAX) && before.trigger == head.trigger
        };
        let Some(before) = before.filter(is_near) else { return Ok(Some((alone, None))) };
        if kept.state.is_needed(&before.run).await? {
            return Ok(Some((alone, None)));
        }
        let record = kept.state.details(&before.run).await?.and_then(|details| details.record);
        let stored = record.and_then(|record| serde_json::from_str::<StoredRecord>(&record).ok());
        Ok(Some(match stored.and_then(|stored| stored.folded) {
            Some(folded) => {
                let (runs, first_ms) = (folded.runs + 1, folded.first_ms.min(head.started_ms));
                (Folded { runs, first_ms }, Some(before.run))
            }
            None => (alone, None),
        }))
    }
}

/// Sends to the readers of a stage what earlier passes gave and nobody has settled, in lineage order (RUNS S1).
pub async fn feed_readers(run: &Arc<RunState>, place: u16) {
    let Some(kept) = run.kept.as_ref().filter(|kept| kept.resume.is_some()) else { return };
    for reader in &run.stage(place).feeds {
        let mut after = None;
        loop {
            let items = match kept.rows.unsettled(place, *reader, after.take(), PAGE_ROWS).await {
                Ok(items) => items,
                Err(error) => return run.store_failed(&error),
            };
            let Some(last) = items.last() else { break };
            after = Some(last.lineage.clone());
            for item in items {
                let values = item.values.into_iter().map(Arc::new).collect();
                let given = match run.plan(place).is_source() {
                    // Named when it was listed.
                    true => named(item.lineage, item.key, values),
                    false => match children(run, run.plan(place), &item.lineage, &item.key, values) {
                        Ok(given) => given,
                        Err(failure) => {
                            return run.died(&format!("stage `{}`", run.stage(place).name), &failure.message);
                        }
                    },
                };
                for (index, Child { lineage, key, value }) in given.into_iter().enumerate() {
                    if item.open.contains(&(index as u32)) || planted(Bug::ResumeRunsDone) {
                        Token::arrive(run, *reader, lineage, key, value).send(run).await;
                    }
                }
                if run.cuts_feed(place) {
                    return;
                }
            }
        }
    }
}

fn outline_of(stage: &Stage) -> StageOutline {
    StageOutline { name: stage.name.to_string(), hidden: stage.hidden, deadline_ms: stage.deadline.map(millis) }
}

fn named(lineage: Lineage, key: Key, values: super::chain::Values) -> Vec<Child> {
    values.into_iter().map(|value| Child { lineage: lineage.clone(), key: key.clone(), value }).collect()
}
