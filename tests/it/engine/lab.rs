//! A job, a seed, and what must hold in every run.
//!
//! Handlers of every lab: `act` does what the value (or its `args`) says: `ms` works so long, `jit` works 0 to so many
//! ms by the dice, `fails` fails so many attempts and may be repeated, `bad` gives up, `panic` panics, `hang` never ends,
//! `admit` first waits for that service, no longer than `patience` ms, `spring` panics when it is cut, `give` is given instead of the value, `later` says that it is not the first action
//! of its stage. With `dice` all this is drawn for each stage and key (see [`drawn`]). `sink` writes down what it is given.

use super::oracles;
use futures_lite::FutureExt;
use lamplighter::{
    action::{Call, CallError, Handlers},
    item::{Counts, RunOutcome, RunRecord, Value},
    job::Job,
    run::{Run, RunOptions, Runner, StageProgress, StoreChoice},
    store::{Reply, Request, Store, StoreError, memory::Memory},
    world::{BoxFuture, Due, World, sim::Sim},
};
use std::{
    collections::BTreeMap,
    future::{Future, poll_fn},
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

/// What a handler did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Began,
    /// It waits for a service.
    Waits,
    /// The service has let it in.
    Works,
    Ended,
    /// Its future was dropped before it ended.
    Cut,
}

/// What an attempt came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gave {
    Value,
    Retry,
    Nothing,
    Panic,
}

/// Something that a handler did.
#[derive(Clone, Debug)]
pub struct Event {
    pub stage: String,
    pub key: String,
    pub what: What,
    /// Since the run was started, on the awake clock.
    pub at: Duration,
    /// The same on the boot clock.
    pub boot: Duration,
    pub value: Value,
    pub attempt: u32,
    /// It is not the first action of its stage.
    pub later: bool,
    /// How it ended.
    pub gave: Option<Gave>,
    /// Time in which it did not wait for a service.
    pub worked: Duration,
}

/// A moment in which nothing could run: every task waited for the clock or for another one.
#[derive(Clone, Debug)]
pub struct Quiet {
    pub at: Duration,
    pub stages: Vec<StageProgress>,
    /// Handlers that work and that wait for a service, by stage.
    pub handlers: BTreeMap<String, (usize, usize)>,
}

#[derive(Default)]
struct Seen {
    start: Duration,
    boot: Duration,
    quiet: Vec<Quiet>,
    /// Handlers that wait for a service, by stage; calls that it has let in, and the most at once.
    waiting: BTreeMap<String, usize>,
    admitted: usize,
    most_admitted: usize,
    events: Vec<Event>,
    sunk: Vec<(String, String, Value)>,
    running: BTreeMap<String, usize>,
    most: BTreeMap<String, usize>,
    wrong: Vec<String>,
    /// Most items of a stage that may have arrived and not be settled.
    bounds: BTreeMap<String, u64>,
    cut_at: Option<(Duration, usize)>,
    ended_first: bool,
}

/// What happens to a run from outside.
#[derive(Clone, Copy, Debug)]
pub enum Script {
    /// It is awaited.
    Await,
    /// It is cancelled after this time and so many polls more.
    Cancel(Duration, usize),
    /// The same twice: the first reason stays.
    CancelTwice(Duration, usize),
    /// The machine sleeps after the first time for the second.
    Suspend(Duration, Duration),
    /// A sleep of the machine, and a cancel after the other two.
    SuspendAndCancel(Duration, Duration, Duration, usize),
    /// Its handle is dropped then.
    Drop(Duration, usize),
}

impl Script {
    /// When it is cancelled, and whether twice.
    fn cancel(self) -> Option<(Duration, usize, bool)> {
        match self {
            Script::Cancel(after, polls) | Script::SuspendAndCancel(_, _, after, polls) => Some((after, polls, false)),
            Script::CancelTwice(after, polls) => Some((after, polls, true)),
            Script::Await | Script::Suspend(..) | Script::Drop(..) => None,
        }
    }

    /// When the machine sleeps, and for how long.
    fn suspend(self) -> Option<(Duration, Duration)> {
        match self {
            Script::Suspend(after, long) | Script::SuspendAndCancel(after, long, ..) => Some((after, long)),
            _ => None,
        }
    }
}

/// A job with handlers.
pub struct Lab {
    pub job: Arc<Job>,
    seen: Arc<Mutex<Seen>>,
    run: Arc<Mutex<Option<Run>>>,
    limits: bool,
    /// How many values a stage gives for each item; one where it is not said, unknown without `whole`.
    fans: BTreeMap<String, u64>,
    whole: bool,
    /// Set by what has panicked outside of the fence of an item: a store, or the drop of a handler.
    pub outside_panic: Arc<std::sync::atomic::AtomicBool>,
}

/// A run that has ended.
pub struct Done {
    pub seed: u64,
    pub job: Arc<Job>,
    pub record: RunRecord,
    pub quiet: Vec<Quiet>,
    /// When the machine slept, and for how long.
    pub slept: Option<(Duration, Duration)>,
    /// Until the run's deadline, and from there until everything is cut.
    pub deadline: Duration,
    pub grace: Duration,
    pub limit: Option<u64>,
    /// Only a part of the run was asked for, or its values are read by the test.
    pub partly: bool,
    pub most_admitted: usize,
    pub outside_panic: bool,
    /// Values that each stage gives for an item, where that is known.
    pub fans: Option<BTreeMap<String, u64>>,
    pub world: World,
    pub events: Vec<Event>,
    /// Stage, key and value of everything that `sink` was given, in this order.
    pub sunk: Vec<(String, String, Value)>,
    pub most: BTreeMap<String, usize>,
    pub elapsed: Duration,
    pub trace: u64,
    /// When it was cut from outside, and how many events there were by then.
    pub cut_at: Option<(Duration, usize)>,
    /// The choices of a scripted simulation.
    pub choices: Vec<lamplighter::world::sim::Choice>,
}

/// When a run is looked at, between the milliseconds in which things happen.
const QUIET_MS: [u64; 18] = [0, 1, 2, 4, 7, 11, 16, 22, 31, 44, 61, 90, 150, 400, 1_500, 9_000, 16_000, 40_000];

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

pub fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// `n` items of a source, `extra` in the i-th.
pub fn items(n: usize, extra: impl Fn(usize) -> String) -> String {
    let list: Vec<String> = (0..n)
        .map(|i| {
            let extra = extra(i);
            let comma = if extra.is_empty() { "" } else { ", " };
            format!("{{\"id\": \"P{i}\"{comma}{extra}}}")
        })
        .collect();
    format!("Items(list: [{}])", list.join(", "))
}

/// A source `list` of those items with `key: item.id`.
pub fn source(n: usize, extra: impl Fn(usize) -> String) -> String {
    format!("Stage(name: \"list\", key: \"{{{{ item.id }}}}\", run: [{}])", items(n, extra))
}

/// Options with the store in memory.
pub fn options() -> RunOptions {
    RunOptions { store: StoreChoice::Memory { limit: 64 << 20 }, ..RunOptions::default() }
}

impl Lab {
    /// A job of these stages.
    pub fn new(stages: &str) -> Lab {
        Lab::job(&format!("Job(stages: [{stages}])"))
    }

    /// A job file.
    pub fn job(text: &str) -> Lab {
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let run: Arc<Mutex<Option<Run>>> = Arc::default();
        let outside_panic: Arc<std::sync::atomic::AtomicBool> = Arc::default();
        let (a, b) = ((seen.clone(), run.clone(), outside_panic.clone()), (seen.clone(), run.clone()));
        let handlers = Handlers::new()
            .add("act", move |call| act(a.0.clone(), a.1.clone(), a.2.clone(), call))
            .and_then(|handlers| handlers.add("sink", move |call| sink(b.0.clone(), b.1.clone(), call)))
            .expect("new names");
        let checked = Job::from_ron("lab", text, Path::new("."), &handlers)
            .unwrap_or_else(|problems| panic!("{text}\n{}", problems.render(false)));
        Lab { job: Arc::new(checked.job), seen, run, limits: true, fans: BTreeMap::new(), whole: false, outside_panic }
    }

    /// Without the bound of arrived and unsettled items: for jobs that put items that wait long into the store.
    pub fn deferring(mut self) -> Lab {
        self.limits = false;
        self
    }

    /// How many values each stage gives for an item is known: these where it is not one.
    pub fn fanning(mut self, fans: BTreeMap<String, u64>) -> Lab {
        (self.fans, self.whole) = (fans, true);
        self
    }

    /// Runs it under `count` seeds.
    pub fn seeds(&self, count: u64, mut check: impl FnMut(&Done)) {
        for seed in 0..count {
            check(&self.run(seed));
        }
    }

    pub fn run(&self, seed: u64) -> Done {
        self.run_with(seed, options(), Script::Await)
    }

    pub fn run_with(&self, seed: u64, options: RunOptions, script: Script) -> Done {
        self.run_in(seed, Sim::new(seed), options, script).expect("it was awaited")
    }

    /// Drops the handle and holds that nothing of the run is left.
    pub fn drop_at(&self, seed: u64, after: Duration, polls: usize) -> Vec<Event> {
        let none = self.run_in(seed, Sim::new(seed), options(), Script::Drop(after, polls));
        assert!(none.is_none());
        std::mem::take(&mut lock(&self.seen).events)
    }

    /// The handle is dropped now.
    fn note_drop(&self, now: Duration) {
        let progress = lock(&self.run).as_ref().map(Run::progress);
        let mut seen = lock(&self.seen);
        seen.cut_at = Some((now - seen.start, seen.events.len()));
        seen.ended_first = progress.is_some_and(|run| run.stages.iter().all(|stage| stage.ended));
    }

    /// After a [`Script::Drop`]: the run had ended by itself before.
    pub fn ended_before_the_drop(&self) -> bool {
        lock(&self.seen).ended_first
    }

    /// Runs it on this thread with the real executor and the real clocks, which no oracle looks at.
    pub fn run_on_the_machine(&self) -> Done {
        let executor = Arc::new(async_executor::Executor::new());
        let world = World::real(executor.clone());
        *lock(&self.seen) = Seen { start: world.awake().0, boot: world.boot().0, ..Seen::default() };
        let run = Runner::new(world.clone()).start(&self.job, options()).expect("it starts");
        let record = futures_lite::future::block_on(executor.run(run));
        let seen = std::mem::take(&mut *lock(&self.seen));
        self.done(0, record, seen, options(), Script::Await, world)
    }

    /// What is known of a run that has ended; the simulation adds what it knows.
    fn done(
        &self,
        seed: u64,
        record: RunRecord,
        seen: Seen,
        options: RunOptions,
        script: Script,
        world: World,
    ) -> Done {
        Done {
            seed,
            job: self.job.clone(),
            record,
            quiet: seen.quiet,
            slept: script.suspend(),
            deadline: options.deadline.unwrap_or(self.job.deadline),
            grace: options.grace,
            limit: options.limit,
            partly: options.until.is_some() || options.key.is_some() || options.preview.is_some(),
            most_admitted: seen.most_admitted,
            outside_panic: self.outside_panic.load(std::sync::atomic::Ordering::Relaxed),
            fans: self.whole.then(|| self.fans.clone()),
            elapsed: world.awake().0 - seen.start,
            world,
            events: seen.events,
            sunk: seen.sunk,
            most: seen.most,
            trace: 0,
            cut_at: seen.cut_at,
            choices: Vec::new(),
        }
    }

    /// Writes down a moment in which nothing else can run.
    fn look(&self, at: Duration) {
        let Some(progress) = lock(&self.run).as_ref().map(Run::progress) else { return };
        let mut seen = lock(&self.seen);
        let waits = |stage: &String| seen.waiting.get(stage).copied().unwrap_or_default();
        let handlers = seen.running.iter().map(|(stage, all)| (stage.clone(), (all - waits(stage), waits(stage))));
        let quiet = Quiet { at, stages: progress.stages, handlers: handlers.collect() };
        seen.quiet.push(quiet);
    }

    /// Runs it in `sim` and holds what must hold in every run.
    pub fn run_in(&self, seed: u64, sim: Sim, options: RunOptions, script: Script) -> Option<Done> {
        let world = sim.world();
        let bounds = if self.limits { bounds(&self.job) } else { BTreeMap::new() };
        *lock(&self.seen) = Seen { start: world.awake().0, boot: world.boot().0, bounds, ..Seen::default() };
        let asked = options.clone();
        self.outside_panic.store(false, std::sync::atomic::Ordering::Relaxed);
        let scripted = sim.is_scripted();
        let result = sim.run(async {
            let run = Runner::new(world.clone()).start(&self.job, options).expect("it starts");
            *lock(&self.run) = Some(run);
            let slot = self.run.clone();
            if let Script::Drop(after, polls) = script {
                world.sleep(after).await;
                yields(polls).await;
                self.note_drop(world.awake().0);
                lock(&slot).take();
                world.sleep(ms(60_000)).await;
                return None;
            }
            let cutter = {
                let (world, slot, seen) = (world.clone(), slot.clone(), self.seen.clone());
                world.clone().spawn(async move {
                    let Some((after, polls, twice)) = script.cancel() else { return };
                    world.sleep(after).await;
                    yields(polls).await;
                    if let Some(run) = &*lock(&slot) {
                        run.cancel("the test");
                        if twice {
                            run.cancel("somebody late");
                        }
                    }
                    let mut seen = lock(&seen);
                    let at = world.awake().0 - seen.start;
                    seen.cut_at = Some((at, seen.events.len()));
                })
            };
            let mut suspend = script.suspend().map(|(after, long)| (Box::pin(world.sleep(after)), long));
            // Nothing else happens in these fractions of a millisecond.
            let mut looks = QUIET_MS.iter().filter(|_| !scripted).map(|at| ms(*at) + Duration::from_micros(371));
            let start = world.awake();
            let mut next_look = looks.next();
            let mut alarm = world.alarm();
            let record = poll_fn(|cx| {
                while let Some(at) = next_look
                    && alarm.poll(cx, Due::Awake(start + at)).is_ready()
                {
                    self.look(at);
                    next_look = looks.next();
                }
                if let Some((due, long)) = &mut suspend
                    && due.as_mut().poll(cx).is_ready()
                {
                    sim.suspend(*long);
                    suspend = None;
                }
                Pin::new(lock(&slot).as_mut().expect("it runs")).poll(cx)
            })
            .await;
            cutter.cancel().await;
            lock(&slot).take();
            Some(record)
        });
        let record = match result {
            Ok(record) => record,
            Err(stalled) => {
                lock(&self.run).take();
                oracles::broken("P9_the_join_never_hangs", &stalled.to_string(), seed, &self.job)
            }
        };
        let seen = std::mem::take(&mut *lock(&self.seen));
        let left = (sim.leaked(), seen.running.values().sum::<usize>());
        if left != (0, 0) {
            oracles::broken("S6_nothing_is_left", &format!("{left:?} tasks and handlers are left"), seed, &self.job);
        }
        if let Some(wrong) = seen.wrong.first() {
            oracles::broken("P11_bounded", wrong, seed, &self.job);
        }
        let Some(record) = record else {
            let (at, events) = seen.cut_at.unwrap_or_default();
            if let Some(late) = seen.events[events..].iter().find(|event| event.what == What::Began || event.at > at) {
                oracles::broken("S6_a_cancel_takes_no_time", &format!("after the drop: {late:?}"), seed, &self.job);
            }
            *lock(&self.seen) = Seen { events: seen.events, ended_first: seen.ended_first, ..Seen::default() };
            return None;
        };
        let done = self.done(seed, record, seen, asked, script, world);
        let done = Done { elapsed: sim.elapsed(), trace: sim.trace(), choices: sim.choices(), ..done };
        oracles::hold(&done);
        Some(done)
    }
}

/// Open items, those in the channel, and one in the hand of each sender.
fn bounds(job: &Job) -> BTreeMap<String, u64> {
    let workers = job.stages.iter().filter(|stage| !stage.is_source());
    workers
        .map(|stage| {
            let parent = &job.stages[usize::from(stage.from[0])];
            let hands = parent.workers + parent.waiting;
            let senders = if parent.is_source() || stage.is_gather() { 1 } else { hands };
            (stage.name.to_string(), (stage.workers + stage.waiting + stage.buffer + senders) as u64)
        })
        .collect()
}

async fn yields(polls: usize) {
    for _ in 0..polls {
        futures_lite::future::yield_now().await;
    }
}

impl Done {
    pub fn counts(&self, stage: &str) -> &Counts {
        let found = self.record.stages.iter().find(|record| record.name == stage);
        &found.unwrap_or_else(|| panic!("no stage {stage}")).counts
    }

    /// items, ok, failed, timed_out, cancelled, not_reached of a stage.
    pub fn six(&self, stage: &str) -> [u64; 6] {
        let c = self.counts(stage);
        [c.items, c.ok, c.failed, c.timed_out, c.cancelled, c.not_reached]
    }

    pub fn outcome(&self) -> RunOutcome {
        self.record.outcome
    }

    pub fn reason(&self) -> &str {
        self.record.reason.as_deref().unwrap_or_default()
    }

    /// The class texts of the missing items of a stage by key.
    pub fn missing(&self, stage: &str) -> BTreeMap<String, String> {
        let of = self.record.failures.iter().filter(|failure| failure.stage == stage);
        of.map(|failure| (failure.key.to_string(), failure.class.clone())).collect()
    }

    /// Keys that reached the sink of a stage, sorted.
    pub fn sunk_keys(&self, stage: &str) -> Vec<&str> {
        let of = self.sunk.iter().filter(|(at, ..)| at == stage);
        let mut keys: Vec<&str> = of.map(|(_, key, _)| key.as_str()).collect();
        keys.sort_unstable();
        keys
    }

    /// Events of a stage.
    pub fn of<'a>(&'a self, stage: &'a str, what: What) -> impl Iterator<Item = &'a Event> {
        self.events.iter().filter(move |event| event.stage == stage && event.what == what)
    }

    /// When the attempts of an item began, in ms.
    pub fn began(&self, stage: &str, key: &str) -> Vec<u64> {
        self.of(stage, What::Began).filter(|event| event.key == key).map(|event| event.at.as_millis() as u64).collect()
    }
}

/// One call of a handler, counted while it runs.
struct Running {
    seen: Arc<Mutex<Seen>>,
    call: Call,
    /// How it ended; cut while it is `None`.
    gave: Option<Gave>,
    /// Work until `since`; while it waits that is `None`.
    worked: Duration,
    since: Option<Duration>,
    admitted: bool,
}

impl Running {
    fn new(seen: Arc<Mutex<Seen>>, run: &Mutex<Option<Run>>, call: &Call) -> Running {
        let since = Some(call.world().awake().0);
        let running = Running { seen, call: call.clone(), gave: None, worked: Duration::ZERO, since, admitted: false };
        let mut seen = lock(&running.seen);
        *seen.running.entry(call.stage().to_owned()).or_default() += 1;
        running.note(&mut seen, What::Began);
        probe(&mut seen, run);
        drop(seen);
        running
    }

    /// It waits for a service, or works again.
    fn turn(&mut self, what: What) {
        let seen = self.seen.clone();
        let mut seen = lock(&seen);
        self.worked = self.worked();
        let waits = what == What::Waits;
        self.since = (!waits).then(|| self.call.world().awake().0);
        let waiting = seen.waiting.entry(self.call.stage().to_owned()).or_default();
        *waiting = if waits { *waiting + 1 } else { *waiting - 1 };
        if !waits {
            self.admitted = true;
            seen.admitted += 1;
            seen.most_admitted = seen.most_admitted.max(seen.admitted);
        }
        self.note(&mut seen, what);
    }

    fn worked(&self) -> Duration {
        self.worked + self.since.map_or(Duration::ZERO, |since| self.call.world().awake().0 - since)
    }

    fn note(&self, seen: &mut Seen, what: What) {
        let call = &self.call;
        let stage = call.stage().to_owned();
        if matches!(what, What::Began | What::Works) {
            let waiting = seen.waiting.get(&stage).copied().unwrap_or_default();
            let working = seen.running.get(&stage).copied().unwrap_or_default().saturating_sub(waiting);
            let most = seen.most.entry(stage.clone()).or_default();
            *most = working.max(*most);
        }
        seen.events.push(Event {
            stage,
            key: call.key.to_string(),
            what,
            at: call.world().awake().0 - seen.start,
            boot: call.world().boot().0 - seen.boot,
            value: (*call.value).clone(),
            attempt: call.attempt,
            later: call.args().get("later").is_some(),
            gave: self.gave,
            worked: self.worked(),
        });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let seen = self.seen.clone();
        let mut seen = lock(&seen);
        let stage = self.call.stage().to_owned();
        *seen.running.entry(stage.clone()).or_default() -= 1;
        if self.since.is_none() {
            *seen.waiting.entry(stage).or_default() -= 1;
        }
        seen.admitted -= usize::from(self.admitted);
        self.note(&mut seen, if self.gave.is_some() { What::Ended } else { What::Cut });
    }
}

/// What the dice say of this call: the same for every attempt on an item, at any worker count and seed of the simulation.
/// `args.dice` is the seed, `args.p` how many of a hundred fail, give up, panic, hang, and work for long; the others take a
/// few milliseconds.
fn drawn(call: &Call) -> Option<Value> {
    let seed = call.args().get("dice")?.as_u64()?;
    let part = call.value.get("part").and_then(Value::as_u64).unwrap_or_default();
    let text = format!("{}/{}/{part}", call.stage(), call.key);
    let mixed = text
        .bytes()
        .fold(seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    let mut dice = fastrand::Rng::with_seed(mixed);
    let mut left = dice.u64(..100);
    let kinds = ["fails", "bad", "panic", "hang", "ms"];
    let kind = kinds.into_iter().find(|kind| {
        let share = call.args()["p"].get(*kind).and_then(Value::as_u64).unwrap_or_default();
        let found = left < share;
        left = left.saturating_sub(share);
        found
    });
    Some(match kind {
        Some("fails") => serde_json::json!({"fails": dice.u64(1..4), "ms": 5 * dice.u64(..3)}),
        Some("ms") => serde_json::json!({"ms": 5 * dice.u64(1..9)}),
        Some("bad") => serde_json::json!({"bad": 1, "ms": dice.u64(..3)}),
        Some(kind) => serde_json::json!({kind: 1, "ms": dice.u64(..3)}),
        None => serde_json::json!({"ms": dice.u64(..4)}),
    })
}

/// Holds the bounds of memory from inside a handler.
fn probe(seen: &mut Seen, run: &Mutex<Option<Run>>) {
    let Ok(run) = run.try_lock() else { return };
    let Some(run) = &*run else { return };
    let progress = run.progress();
    for stage in progress.stages {
        let counts = &stage.counts;
        if counts.settled() > counts.items {
            seen.wrong.push(format!("`{}` has settled more than arrived", stage.name));
        }
        let unsettled = counts.items.saturating_sub(counts.settled());
        if seen.bounds.get(&stage.name).is_some_and(|most| unsettled > *most) {
            seen.wrong.push(format!("`{}` holds {unsettled} items", stage.name));
        }
    }
}

/// Panics when it is dropped: the future that holds it cannot be cut in peace.
struct Spring(Arc<std::sync::atomic::AtomicBool>);

impl Drop for Spring {
    fn drop(&mut self) {
        if self.0.swap(true, std::sync::atomic::Ordering::Relaxed) {
            return;
        }
        std::panic::resume_unwind(Box::new("sprung"));
    }
}

async fn act(
    seen: Arc<Mutex<Seen>>,
    run: Arc<Mutex<Option<Run>>>,
    outside_panic: Arc<std::sync::atomic::AtomicBool>,
    call: Call,
) -> Result<Value, CallError> {
    let mut running = Running::new(seen.clone(), &run, &call);
    let dice = drawn(&call).unwrap_or_default();
    let field = |name: &str| dice.get(name).or_else(|| call.args().get(name)).or_else(|| call.value.get(name)).cloned();
    let number = |name: &str| field(name).and_then(|value| value.as_u64());
    let mut place = None;
    if let Some(service) = field("admit").as_ref().and_then(Value::as_str) {
        running.turn(What::Waits);
        let patience = async {
            match number("patience") {
                Some(patience) => call.sleep(ms(patience)).await,
                None => std::future::pending().await,
            }
            None
        };
        // Who has lost its patience looks no more whether it may go.
        match patience.or(async { Some(call.admit(service).await) }).await {
            Some(Ok(admitted)) => place = Some(admitted),
            Some(Err(refused)) => {
                running.gave = Some(Gave::Nothing);
                return Err(refused);
            }
            None => {
                running.gave = Some(Gave::Retry);
                return Err(CallError::retry("no more patience"));
            }
        }
        running.turn(What::Works);
    }
    let spring = field("spring").map(|_| Spring(outside_panic));
    if let Some(most) = number("jit") {
        let drawn = call.world().random() % (most + 1);
        if drawn > 0 {
            call.sleep(ms(drawn)).await;
        }
    }
    if let Some(time) = number("ms") {
        call.sleep(ms(time)).await;
    }
    if field("hang").is_some() {
        std::future::pending::<()>().await;
    }
    drop(place);
    std::mem::forget(spring);
    if field("panic").is_some() {
        running.gave = Some(Gave::Panic);
        panic!("the handler was told to");
    }
    if number("fails").is_some_and(|fails| u64::from(call.attempt) <= fails) {
        running.gave = Some(Gave::Retry);
        return Err(CallError::retry(format!("attempt {}", call.attempt)));
    }
    if field("bad").is_some() {
        running.gave = Some(Gave::Nothing);
        return Err(CallError::give_up("bad"));
    }
    running.gave = Some(Gave::Value);
    Ok(field("give").unwrap_or_else(|| (*call.value).clone()))
}

async fn sink(seen: Arc<Mutex<Seen>>, run: Arc<Mutex<Option<Run>>>, call: Call) -> Result<Value, CallError> {
    let mut running = Running::new(seen.clone(), &run, &call);
    if let Some(time) = call.args().get("ms").and_then(Value::as_u64) {
        call.sleep(ms(time)).await;
    }
    running.gave = Some(Gave::Value);
    lock(&seen).sunk.push((call.stage().to_owned(), call.key.to_string(), (*call.value).clone()));
    Ok(Value::Null)
}

/// A store in memory that wakes its asker some polls later, so that others run in between.
struct Lazy {
    rows: Memory,
    turns: Mutex<fastrand::Rng>,
    spy: Arc<Mutex<Vec<Request>>>,
    lazily: bool,
    /// It panics at this put, and says so.
    panics: Option<(Mutex<usize>, Arc<std::sync::atomic::AtomicBool>)>,
}

impl Store for Lazy {
    fn call(&self, request: Request) -> BoxFuture<'_, Result<Reply, StoreError>> {
        Box::pin(async move {
            let turns = if self.lazily { lock(&self.turns).usize(..6) } else { 0 };
            yields(turns).await;
            if let (Some((left, said)), Request::Put(..)) = (&self.panics, &request) {
                let mut left = lock(left);
                if *left == 0 {
                    said.store(true, std::sync::atomic::Ordering::Relaxed);
                    panic!("the store was told to");
                }
                *left -= 1;
            }
            let reply = self.call_blocking(request);
            yields(turns / 2).await;
            reply
        })
    }

    fn call_blocking(&self, request: Request) -> Result<Reply, StoreError> {
        if !self.lazily {
            lock(&self.spy).push(request.clone());
        }
        self.rows.call_blocking(request)
    }
}

/// See [`Lazy`].
pub fn lazy(limit: u64) -> Arc<dyn Store> {
    let turns = Mutex::new(fastrand::Rng::with_seed(limit));
    Arc::new(Lazy { rows: Memory::new(limit), turns, spy: Arc::default(), lazily: true, panics: None })
}

/// See [`Lazy`]; it panics at one of the puts, outside of every fence of an item, and says so.
pub fn panicking(after: usize, said: Arc<std::sync::atomic::AtomicBool>) -> Arc<dyn Store> {
    let turns = Mutex::new(fastrand::Rng::with_seed(0));
    let panics = Some((Mutex::new(after), said));
    Arc::new(Lazy { rows: Memory::new(64 << 20), turns, spy: Arc::default(), lazily: true, panics })
}

/// A store in memory, and all that it was asked.
pub fn spied() -> (Arc<dyn Store>, Arc<Mutex<Vec<Request>>>) {
    let spy: Arc<Mutex<Vec<Request>>> = Arc::default();
    let turns = Mutex::new(fastrand::Rng::with_seed(0));
    (Arc::new(Lazy { rows: Memory::new(64 << 20), turns, spy: spy.clone(), lazily: false, panics: None }), spy)
}
