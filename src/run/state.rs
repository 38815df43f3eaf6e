//! The shared state of a run and of its stages: integers, latches, and the one way in which an item is settled.

use super::{
    kept::{Kept, millis},
    options::RunOptions,
    token::Token,
};
use crate::{
    action::{Line, RunContext},
    flow::{Group, Inbox, Latch, Order, WorkPermits},
    item::{Class, Counts, Failure, FailureRecord, Key, Lineage, Outcome, Value},
    job::{Job, Stage},
    lang::RunFacts,
    limits::SUMMARY_LIST_MAX,
    store::{Clocks, Row, RowEnd, RunStore, StoreError},
    units::Tolerance,
    world::{
        Boot, World,
        plant::{Bug, planted},
    },
};
use event_listener::{Event, EventListener};
use log::Level;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

/// What makes a run `failed` where nobody knows more of it.
pub const UNWRITTEN: &str = "a file could not be written";

/// Why a run was cancelled. The first reason stays (RUNS D4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CancelReason {
    /// A person, a signal, the API, or the run's handle was dropped; the text names which.
    Asked(String),
    /// The run's deadline passed and something still ran that has no `on_deadline: Continue`.
    RunDeadline,
    /// The deadline of a stage with `on_deadline: Fail` passed.
    StageDeadline(String),
    /// A stage with `fail_fast` misses more than it tolerates.
    FailFast(String),
    /// The run's own means failed: its store is full or broken.
    Broken(Failure),
}

impl CancelReason {
    /// How an item ends that was taken and is cut by this.
    pub fn cut_outcome(&self) -> Outcome {
        match self {
            CancelReason::RunDeadline | CancelReason::StageDeadline(_) => Outcome::TimedOut,
            _ => Outcome::Cancelled,
        }
    }
}

/// One run, shared by all its tasks.
pub struct RunState {
    pub job: Arc<Job>,
    pub context: Arc<RunContext>,
    pub facts: Arc<RunFacts>,
    pub options: RunOptions,
    pub stages: Vec<Arc<StageState>>,
    pub cancel: Latch<CancelReason>,
    /// Nobody waits any more: what is left is killed.
    pub killed: Latch<()>,
    /// It was asked to stop: nothing is begun any more.
    pub stop: Latch<()>,
    /// The stop cuts what is worked on, too.
    pub stop_cut: Latch<()>,
    /// Its record is made; what is left are its notices.
    pub settled: AtomicBool,
    /// The run's deadline has passed while stages still ran.
    pub deadline_passed: AtomicBool,
    /// A file that could not be written, or a listing that failed, by name: the run is `failed`.
    pub broken: Mutex<Option<String>>,
    /// The first missing items in the order of stages and lineage.
    pub failures: Mutex<BTreeMap<(u16, Lineage), FailureRecord>>,
    /// The store of the run, opened by whoever needs it first.
    pub store: super::rows::Rows,
    /// Woken whenever a stage ends or closes.
    pub changed: Event,
    /// Every task of the run.
    pub group: Group,
    pub started: Boot,
    pub started_wall: jiff::Timestamp,
    /// `counts` of each gather, frozen when it started.
    pub frozen: Mutex<BTreeMap<u16, Arc<Value>>>,
    /// Set in a dry run.
    pub dry: Option<super::chain::DryRun>,
    /// The stage whose values go to the tap.
    pub until: Option<u16>,
    /// By place: the stage runs. `--until` leaves out what does not feed its stage.
    pub wanted: Vec<bool>,
    /// The store has not answered for too long: what need not be on the disk is not asked of it again.
    pub unanswered: AtomicBool,
    /// Set in a run that is kept.
    pub kept: Option<Kept>,
    /// When it was due.
    pub due: jiff::Timestamp,
}

/// One stage of a run.
pub struct StageState {
    pub place: u16,
    pub name: Arc<str>,
    pub inbox: Inbox<Token>,
    pub permits: WorkPermits,
    pub order: Order,
    /// Items that arrived: counted by the sender when it makes the token.
    pub arrived: AtomicU64,
    pub counts: Mutex<Counts>,
    /// What fed it has ended: `arrived` is final.
    pub fed: AtomicBool,
    /// The listing above ended before its end.
    pub incomplete: AtomicBool,
    /// Its deadline passed with `Continue`, or all its readers are closed: it takes no more.
    pub closed: AtomicBool,
    /// When its first item was taken, or its listing began; in a resumed run, when this pass took it up.
    pub began: Latch<Boot>,
    /// How much of its time earlier passes used up.
    pub spent: OnceLock<Duration>,
    /// An earlier pass has listed everything.
    pub listed: AtomicBool,
    /// The first ordinal of an item that no earlier pass has listed.
    pub first_ordinal: AtomicU64,
    /// All its tasks are joined, when the run had run so long in all its passes.
    pub ended: Latch<Duration>,
    /// Items that wait in the store.
    pub deferred: AtomicU64,
    /// Items that arrived and that a stop has left open, without a terminal row.
    pub left: AtomicU64,
    /// A stop came before its end: what it has not done is left to the next pass.
    pub unfinished: AtomicBool,
    /// Woken when it closes or the run is cancelled or stops.
    pub attention: Event,
    /// Rows of ok items are stored with their values: a gather reads them.
    pub keep_values: bool,
    /// Rows of missing items are stored: a gather below sees them.
    pub keep_missing: bool,
    /// Every item gets a row: the run is kept.
    pub keep_all: bool,
    /// What came into a missing item is stored as well: a `By` gather below groups by it.
    pub keep_inputs: bool,
    /// What comes in are items that were given within bounds no wider than its own `max_value`.
    pub inputs_fit: bool,
    /// What the workers count by themselves, by their numbers: a thousand leave at once when a run is cancelled.
    tallies: Mutex<BTreeMap<u64, Arc<Tally>>>,
    /// Its readers that take what it gives as items, in this run.
    pub feeds: Vec<u16>,
}

/// What one worker counts of the items that it has done: it alone writes, so these are plain stores.
#[derive(Default)]
pub struct Tally {
    ok: AtomicU64,
    empty: AtomicU64,
    attempts: AtomicU64,
    /// It works on an item, or waits with it.
    open: AtomicBool,
}

impl Tally {
    /// Counts an item that was done; `false` for one that was not, which others must know of.
    fn settle(&self, outcome: Outcome, attempts: u32) -> bool {
        let add = |to: &AtomicU64, more: u64| to.store(to.load(Ordering::Relaxed) + more, Ordering::Release);
        match outcome {
            Outcome::Ok => add(&self.ok, 1),
            Outcome::Empty if !planted(Bug::EmptyIsMissing) => add(&self.empty, 1),
            _ => return false,
        }
        add(&self.attempts, u64::from(attempts));
        true
    }

    fn add_to(&self, counts: &mut Counts) {
        counts.ok += self.ok.load(Ordering::Acquire);
        counts.empty += self.empty.load(Ordering::Acquire);
        counts.attempts += self.attempts.load(Ordering::Acquire);
    }
}

/// The tally of one worker; dropped, it goes into the counts of its stage.
pub struct OwnTally {
    stage: Arc<StageState>,
    number: u64,
    tally: Arc<Tally>,
}

impl OwnTally {
    pub fn new(stage: &Arc<StageState>) -> OwnTally {
        let tally = Arc::<Tally>::default();
        let mut tallies = lock(&stage.tallies);
        let number = tallies.last_key_value().map_or(0, |(last, _)| last + 1);
        tallies.insert(number, tally.clone());
        drop(tallies);
        OwnTally { stage: stage.clone(), number, tally }
    }

    /// For [`Progress`](super::Progress).
    pub fn set_open(&self, open: bool) {
        self.tally.open.store(open, Ordering::Relaxed);
    }
}

impl Drop for OwnTally {
    fn drop(&mut self) {
        let mut tallies = lock(&self.stage.tallies);
        tallies.remove(&self.number);
        self.tally.add_to(&mut self.stage.counts());
    }
}

/// What an item or worker learns when it is cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The stage takes no more; what is in flight is `timed_out`.
    Closed,
    /// The run is cancelled; what is in flight ends so.
    Cancelled(Outcome),
    /// The run stops; what is in flight stays open for the next pass.
    Stopped,
}

impl Cut {
    /// How an item ends that was taken and is cut so; `None`: it stays open.
    pub fn outcome(&self) -> Option<Outcome> {
        match self {
            Cut::Closed => Some(Outcome::TimedOut),
            Cut::Cancelled(outcome) => Some(*outcome),
            Cut::Stopped => None,
        }
    }
}

impl StageState {
    pub fn new(place: u16, job: &Job, wanted: &[bool], kept: bool) -> StageState {
        let stage = &job.stages[usize::from(place)];
        let gathers_reading = |wanted: &dyn Fn(&Stage) -> bool, direct: bool| {
            job.stages.iter().enumerate().any(|(at, reader)| {
                reader.is_gather()
                    && wanted(reader)
                    && if direct { reader.from.contains(&place) } else { job.ancestors(at as u16).contains(&place) }
            })
        };
        StageState {
            place,
            name: stage.name.clone(),
            inbox: Inbox::new(stage.buffer),
            permits: WorkPermits::new(stage.workers),
            order: Order::default(),
            arrived: AtomicU64::new(0),
            counts: Mutex::new(Counts { complete: true, ..Counts::default() }),
            fed: AtomicBool::new(false),
            incomplete: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            began: Latch::new(),
            spent: OnceLock::new(),
            listed: AtomicBool::new(false),
            first_ordinal: AtomicU64::new(0),
            ended: Latch::new(),
            deferred: AtomicU64::new(0),
            left: AtomicU64::new(0),
            unfinished: AtomicBool::new(false),
            attention: Event::new(),
            keep_values: if kept { !stage.readers.is_empty() } else { gathers_reading(&|_| true, true) },
            keep_missing: kept || gathers_reading(&|_| true, false),
            keep_all: kept,
            keep_inputs: gathers_reading(&|reader| matches!(reader.kind, crate::job::StageKind::GatherBy(_)), false),
            inputs_fit: !stage.is_gather()
                && stage
                    .from
                    .iter()
                    .map(|from| &job.stages[usize::from(*from)])
                    .all(|parent| super::chain::is_measured(parent) && parent.max_value <= stage.max_value),
            tallies: Mutex::default(),
            feeds: {
                let feeds = |at: &&u16| wanted[usize::from(**at)] && !job.stages[usize::from(**at)].is_gather();
                stage.readers.iter().filter(feeds).copied().collect()
            },
        }
    }

    pub fn counts(&self) -> MutexGuard<'_, Counts> {
        lock(&self.counts)
    }

    /// Items with an outcome.
    pub fn settled(&self) -> u64 {
        self.summed().settled()
    }

    /// Items that a worker has taken and not yet settled.
    pub fn open(&self) -> u64 {
        lock(&self.tallies).values().filter(|tally| tally.open.load(Ordering::Relaxed)).count() as u64
    }

    fn summed(&self) -> Counts {
        // Held over both: a tally that goes into the counts is in one of them.
        let tallies = lock(&self.tallies);
        let mut counts = self.counts().clone();
        tallies.values().for_each(|tally| tally.add_to(&mut counts));
        counts
    }

    /// A frozen copy, with the items that arrived.
    pub fn snapshot(&self) -> Counts {
        let mut counts = self.summed();
        counts.items = self.arrived.load(Ordering::Acquire);
        counts.complete = !self.incomplete.load(Ordering::Acquire);
        counts
    }

    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Everything that will arrive has arrived and is settled: what is left is delivery.
    pub fn all_settled(&self) -> bool {
        self.fed.load(Ordering::Acquire) && self.arrived.load(Ordering::Acquire) == self.settled()
    }

    /// What earlier passes left of its deadline.
    pub fn left_of(&self, deadline: Duration) -> Duration {
        deadline.saturating_sub(self.spent.get().copied().unwrap_or_default())
    }

    pub fn has_ended(&self) -> bool {
        self.ended.is_settled()
    }
}

impl RunState {
    pub fn world(&self) -> &World {
        &self.context.world
    }

    /// Both clocks that a state needs.
    pub fn clocks(&self) -> Clocks {
        Clocks { wall_ms: self.world().wall().as_millisecond(), boot_ms: millis(self.world().boot().0) }
    }

    /// Where the values of the stage at `place` go besides its readers.
    pub fn tap_of(&self, place: u16) -> Option<&async_channel::Sender<Value>> {
        self.options.tap.as_ref().filter(|_| self.until == Some(place))
    }

    /// True when a source has listed as many items as it may.
    pub fn limit_reached(&self, place: u16) -> bool {
        self.options.limit.is_some_and(|limit| self.stage(place).arrived.load(Ordering::Acquire) >= limit)
    }

    pub fn is_wanted(&self, place: u16) -> bool {
        self.wanted[usize::from(place)]
    }

    pub fn stage(&self, place: u16) -> &Arc<StageState> {
        &self.stages[usize::from(place)]
    }

    pub fn plan(&self, place: u16) -> &Stage {
        &self.job.stages[usize::from(place)]
    }

    /// Cancels the run, once; every stage is told and every inbox closed, so that nobody waits for room any more.
    pub fn cancel(&self, reason: CancelReason) {
        let text = planted(Bug::LaterReasonWins).then(|| format!("{reason:?}"));
        if !self.cancel.settle(reason) {
            return text.into_iter().for_each(|later| self.note_broken(later));
        }
        self.close_inboxes();
    }

    /// Closes every inbox and tells every stage.
    pub fn close_inboxes(&self) {
        for stage in &self.stages {
            if !planted(Bug::SpareReceiver) {
                stage.inbox.close();
            }
            stage.attention.notify(usize::MAX);
        }
        self.changed.notify(usize::MAX);
    }

    /// What cuts the items of `stage` that wait or were not begun, if anything does; and its listing.
    pub fn cut(&self, stage: &StageState) -> Option<Cut> {
        if self.is_stopping() {
            return Some(Cut::Stopped);
        }
        self.cut_work(stage)
    }

    /// What cuts the items of `stage` that are worked on: a stop lets them come to their end for half of its time.
    pub fn cut_work(&self, stage: &StageState) -> Option<Cut> {
        if let Some(reason) = self.cancel.get() {
            return Some(Cut::Cancelled(reason.cut_outcome()));
        }
        if stage.is_closed() {
            return Some(Cut::Closed);
        }
        self.stop_cut.is_settled().then_some(Cut::Stopped)
    }

    /// Closes a stage: it goes on pulling and settles each item `not_reached`. A worker stage all of whose readers are
    /// closed closes too (RUNS D1).
    pub fn close(&self, place: u16) {
        let stage = self.stage(place);
        if stage.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        if !planted(Bug::CloseUnheard) {
            stage.attention.notify(usize::MAX);
        }
        self.changed.notify(usize::MAX);
        for parent in &self.plan(place).from {
            if !self.plan(*parent).is_source() && self.all_readers_are_closed(*parent) {
                self.close(*parent);
            }
        }
    }

    /// True when nothing that the stage gives will be worked on: it has readers in this run, and all are closed.
    pub fn all_readers_are_closed(&self, place: u16) -> bool {
        let mut readers = self.plan(place).readers.iter().filter(|reader| self.is_wanted(**reader)).peekable();
        readers.peek().is_some() && readers.all(|reader| self.stage(*reader).is_closed())
    }

    /// Counts an arrival. Every arrival is settled exactly once.
    pub fn arrive(&self, place: u16) {
        self.stage(place).arrived.fetch_add(1, Ordering::AcqRel);
    }

    /// Counts an end, and what follows from it: fail-fast, the first failures by name.
    pub fn count_end(&self, place: u16, end: &End<'_>) {
        if end.by.is_some_and(|own| own.tally.settle(end.outcome, end.attempts)) {
            return;
        }
        let stage = self.stage(place);
        stage.counts().settle(end.outcome, end.attempts);
        let listed = end.outcome.is_missing() || (end.outcome == Outcome::Empty && planted(Bug::EmptyIsMissing));
        if !listed {
            return;
        }
        if let Outcome::Failed(class) = end.outcome {
            let text = format!("failed: {class}: {}", end.message.unwrap_or_default());
            let line = Line::of_run(Level::Debug, &text).from_target("lamplighter::item").kept_as(Level::Warn);
            let line = line.stage(place, &stage.name).key(Some(end.key));
            self.context.journal.write(&line.with(&[("attempts", &end.attempts)]));
        }
        if let Outcome::Failed(Class::Output) = end.outcome {
            self.note_broken(end.message.unwrap_or(UNWRITTEN).to_owned());
        }
        {
            let failures = lock(&self.failures);
            let is_behind = failures.last_key_value().is_some_and(|((at, last), _)| (*at, last) < (place, end.lineage));
            if failures.len() >= SUMMARY_LIST_MAX && is_behind {
                drop(failures);
                return self.check_fail_fast(place);
            }
        }
        let named = FailureRecord {
            stage: stage.name.to_string(),
            key: end.key.clone(),
            class: end.outcome.class_text(),
            message: end.message.unwrap_or_default().to_owned(),
            attempts: end.attempts,
        };
        {
            let mut failures = lock(&self.failures);
            failures.insert((place, end.lineage.clone()), named);
            if failures.len() > SUMMARY_LIST_MAX {
                failures.pop_last();
            }
        }
        self.check_fail_fast(place);
    }

    /// RUNS D3: a count is compared at once, a share once the number of items is known.
    pub fn check_fail_fast(&self, place: u16) {
        let (stage, plan) = (self.stage(place), self.plan(place));
        if !plan.fail_fast {
            return;
        }
        let counts = stage.snapshot();
        let known = stage.fed.load(Ordering::Acquire) || planted(Bug::FailFastEarly);
        if (known || matches!(plan.tolerate, Tolerance::Count(_)))
            && plan.tolerate.exceeded(counts.missing(), counts.items)
        {
            self.cancel(CancelReason::FailFast(stage.name.to_string()));
        }
    }

    /// A task of the run panicked outside the fence of an item: a defect of this program. The run ends by name, so that
    /// nobody waits for what will not come.
    pub fn died(&self, what: &str, panic: &str) {
        let message = format!("{what} panicked: {panic}; this is a defect of Lamplighter");
        self.context.journal.write(&Line::of_run(Level::Error, &message));
        self.note_broken(format!("lost: {message}"));
        self.cancel(CancelReason::Broken(Failure::new(Class::Lost, message)));
    }

    /// Remembers the first thing that makes the run `failed` by itself.
    pub fn note_broken(&self, what: String) {
        lock(&self.broken).get_or_insert(what);
    }

    /// Settles an item with its row, where a gather will read it. Everything is counted before this returns.
    pub async fn settle(&self, place: u16, end: End<'_>, values: Vec<Value>) {
        if self.gets_row(place, end.outcome, end.has_row) {
            // Boxed: most items have no row, and every worker would hold the room for it.
            Box::pin(self.put(place, &end, values)).await;
        }
        self.count_end(place, &end);
    }

    /// Whether an item that ends so gets a row. That of one that was deferred is replaced by its end, or the next round
    /// would run it once more.
    pub fn gets_row(&self, place: u16, outcome: Outcome, has_row: bool) -> bool {
        let stage = self.stage(place);
        let wanted =
            if outcome == Outcome::Ok { stage.keep_values } else { outcome.is_missing() && stage.keep_missing };
        has_row || stage.keep_all || wanted
    }

    /// Stores the row of an item that has ended.
    async fn put(&self, place: u16, end: &End<'_>, values: Vec<Value>) {
        let row = Row {
            stage: place,
            lineage: end.lineage.clone(),
            key: end.key.clone(),
            end: RowEnd::Done(end.outcome),
            attempts: end.attempts,
            message: end.message.map(str::to_owned),
            values,
            took_ms: end.took_ms,
        };
        let put = async { self.store.get(self).await?.put(row).await };
        if let Err(error) = put.await {
            self.store_failed(&error);
        }
    }

    /// The run cannot go on without its store.
    pub fn store_failed(&self, error: &StoreError) {
        self.cancel(CancelReason::Broken(Failure::new(Class::Spool, error.to_string())));
    }

    /// The store, opened now if it was not.
    pub async fn rows(&self) -> Result<RunStore, StoreError> {
        self.store.get(self).await
    }
}

/// How an item ended, as the counts and rows need it.
pub struct End<'a> {
    pub lineage: &'a Lineage,
    pub key: &'a Key,
    pub outcome: Outcome,
    pub attempts: u32,
    pub message: Option<&'a str>,
    /// Its row in the store says that it waits.
    pub has_row: bool,
    /// The worker that has done it.
    pub by: Option<&'a OwnTally>,
    /// How long it took from being taken, in milliseconds; known in a run that is kept.
    pub took_ms: Option<u32>,
}

/// Lets one worker notice that its items are cut: one listener for all of them, armed only when an item is pending.
pub struct CutWatch {
    run: Arc<RunState>,
    place: u16,
    listener: Option<EventListener>,
}

impl CutWatch {
    pub fn new(run: Arc<RunState>, place: u16) -> CutWatch {
        CutWatch { run, place, listener: None }
    }

    /// What cuts the items that wait now.
    pub fn now(&self) -> Option<Cut> {
        self.run.cut(self.run.stage(self.place))
    }

    /// What cuts an attempt that works now. A listing has no attempt that a stop would wait for.
    pub fn at_work(&self) -> Option<Cut> {
        match self.run.plan(self.place).is_source() {
            true => self.now(),
            false => self.run.cut_work(self.run.stage(self.place)),
        }
    }

    /// Ready when the items are cut that wait, or the attempt that `works`.
    pub fn poll(&mut self, cx: &mut std::task::Context<'_>, works: bool) -> std::task::Poll<Cut> {
        use std::{future::Future, pin::Pin, task::Poll};
        loop {
            if let Some(cut) = if works { self.at_work() } else { self.now() } {
                return Poll::Ready(cut);
            }
            match &mut self.listener {
                None => self.listener = Some(self.run.stage(self.place).attention.listen()),
                Some(listener) => match Pin::new(listener).poll(cx) {
                    Poll::Ready(()) => self.listener = None,
                    Poll::Pending => return Poll::Pending,
                },
            }
        }
    }

    /// Waits until the items are cut that wait.
    pub async fn cut(&mut self) -> Cut {
        std::future::poll_fn(|cx| self.poll(cx, false)).await
    }

    /// Waits until what works is cut.
    pub async fn cut_at_work(&mut self) -> Cut {
        std::future::poll_fn(|cx| self.poll(cx, true)).await
    }
}

/// Shared empty value.
pub fn null() -> Arc<Value> {
    static NULL: OnceLock<Arc<Value>> = OnceLock::new();
    NULL.get_or_init(|| Arc::new(Value::Null)).clone()
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Locks of a run are held for a few statements that do not panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
