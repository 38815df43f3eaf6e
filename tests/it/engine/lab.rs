//! A job, a seed, and what must hold in every run.
//!
//! Handlers of every lab: `act` does what the value (or its `args`) says: `ms` works so long, `jit` works 0 to so many
//! ms by the dice, `fails` fails so many attempts and may be repeated, `bad` gives up, `panic` panics, `hang` never ends,
//! `give` is given instead of the value. `sink` writes down what it is given.

use lamplighter::{
    action::{Call, CallError, Handlers},
    item::{Counts, RunOutcome, RunRecord, Value},
    job::Job,
    run::{Run, RunOptions, Runner, StoreChoice},
    store::{Reply, Request, Store, StoreError, memory::Memory},
    world::{BoxFuture, sim::Sim},
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
    Ended,
    /// Its future was dropped before it ended.
    Cut,
}

/// Something that a handler did.
#[derive(Clone, Debug)]
pub struct Event {
    pub stage: String,
    pub key: String,
    pub what: What,
    /// Since the run was started.
    pub at: Duration,
    pub value: Value,
}

#[derive(Default)]
struct Seen {
    start: Duration,
    events: Vec<Event>,
    sunk: Vec<(String, String, Value)>,
    running: BTreeMap<String, usize>,
    most: BTreeMap<String, usize>,
    wrong: Vec<String>,
    /// Most items of a stage that may have arrived and not be settled.
    bounds: BTreeMap<String, u64>,
    cut_at: Option<(Duration, usize)>,
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
    /// Its handle is dropped then.
    Drop(Duration, usize),
}

/// A job with handlers.
pub struct Lab {
    pub job: Arc<Job>,
    seen: Arc<Mutex<Seen>>,
    run: Arc<Mutex<Option<Run>>>,
    limits: bool,
}

/// A run that has ended.
pub struct Done {
    pub seed: u64,
    pub record: RunRecord,
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
        let (a, b) = ((seen.clone(), run.clone()), (seen.clone(), run.clone()));
        let handlers = Handlers::new()
            .add("act", move |call| act(a.0.clone(), a.1.clone(), call))
            .and_then(|handlers| handlers.add("sink", move |call| sink(b.0.clone(), b.1.clone(), call)))
            .expect("new names");
        let checked = Job::from_ron("lab", text, Path::new("."), &handlers)
            .unwrap_or_else(|problems| panic!("{text}\n{}", problems.render(false)));
        Lab { job: Arc::new(checked.job), seen, run, limits: true }
    }

    /// Without the bound of arrived and unsettled items: for jobs that put items that wait long into the store.
    pub fn deferring(mut self) -> Lab {
        self.limits = false;
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

    /// Runs it in `sim` and holds what must hold in every run.
    pub fn run_in(&self, seed: u64, sim: Sim, options: RunOptions, script: Script) -> Option<Done> {
        let world = sim.world();
        let bounds = if self.limits { bounds(&self.job) } else { BTreeMap::new() };
        *lock(&self.seen) = Seen { start: world.awake().0, bounds, ..Seen::default() };
        let limit = options.limit;
        let result = sim.run(async {
            let run = Runner::new(world.clone()).start(&self.job, options).expect("it starts");
            *lock(&self.run) = Some(run);
            let slot = self.run.clone();
            if let Script::Drop(after, polls) = script {
                world.sleep(after).await;
                yields(polls).await;
                lock(&slot).take();
                world.sleep(ms(60_000)).await;
                return None;
            }
            let cutter = {
                let (world, slot, seen) = (world.clone(), slot.clone(), self.seen.clone());
                world.clone().spawn(async move {
                    let (after, polls, twice) = match script {
                        Script::Cancel(after, polls) => (after, polls, false),
                        Script::CancelTwice(after, polls) => (after, polls, true),
                        _ => return,
                    };
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
            let mut suspend = match script {
                Script::Suspend(after, long) => Some((Box::pin(world.sleep(after)), long)),
                _ => None,
            };
            let record = poll_fn(|cx| {
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
                panic!("{stalled}\n{}", self.job.text)
            }
        };
        assert_eq!(sim.leaked(), 0, "seed {seed}: tasks are left\n{}", self.job.text);
        let seen = std::mem::take(&mut *lock(&self.seen));
        assert_eq!(seen.wrong, Vec::<String>::new(), "seed {seed}\n{}", self.job.text);
        assert!(seen.running.values().all(|running| *running == 0), "seed {seed}: handlers still run");
        let Some(record) = record else {
            lock(&self.seen).events = seen.events;
            return None;
        };
        let done = Done {
            seed,
            record,
            events: seen.events,
            sunk: seen.sunk,
            most: seen.most,
            elapsed: sim.elapsed(),
            trace: sim.trace(),
            cut_at: seen.cut_at,
            choices: sim.choices(),
        };
        done.hold(&self.job, limit);
        Some(done)
    }
}

/// Open items, those in the channel, and one in the hand of each sender.
fn bounds(job: &Job) -> BTreeMap<String, u64> {
    let workers = job.stages.iter().filter(|stage| !stage.is_source());
    workers
        .map(|stage| {
            let parent = &job.stages[usize::from(stage.from[0])];
            let senders = if parent.is_source() || stage.is_gather() { 1 } else { parent.workers };
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
    /// What must hold of every record.
    fn hold(&self, job: &Job, limit: Option<u64>) {
        let context = || format!("seed {}: {:?}\n{}", self.seed, self.record, job.text);
        let mut missing = 0;
        for stage in &self.record.stages {
            let counts = &stage.counts;
            let sum = counts.ok
                + counts.empty
                + counts.failed
                + counts.timed_out
                + counts.cancelled
                + counts.not_reached
                + counts.held;
            assert_eq!(counts.items, sum, "{}", context());
            assert_eq!(counts.failed, counts.classes.values().sum::<u64>(), "{}", context());
            assert!(!counts.classes.contains_key(&lamplighter::item::Class::Lost), "{}", context());
            missing += counts.missing();
            let plan = &job.stages[usize::from(job.stage_place(&stage.name).expect("a stage"))];
            let most = self.most.get(&stage.name).copied().unwrap_or_default();
            assert!(most <= plan.workers, "{most} at once in `{}`: {}", stage.name, context());
            if plan.is_source() {
                assert!(limit.is_none_or(|limit| counts.items <= limit), "{}", context());
            }
        }
        assert_eq!(self.record.failures.len() as u64, missing.min(100), "{}", context());
        assert_eq!(self.record.outcome == RunOutcome::Succeeded, self.record.reason.is_none(), "{}", context());
        if self.record.outcome == RunOutcome::Succeeded {
            assert_eq!(missing, 0, "{}", context());
        }
        let mut twice: Vec<_> = self.sunk.iter().map(|(stage, key, _)| (stage, key)).collect();
        twice.sort();
        let all = twice.len();
        twice.dedup();
        assert_eq!(all, twice.len(), "delivered twice: {}", context());
    }

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
    what: What,
}

impl Running {
    fn new(seen: Arc<Mutex<Seen>>, run: &Mutex<Option<Run>>, call: &Call) -> Running {
        {
            let mut seen = lock(&seen);
            let stage = call.stage().to_owned();
            let running = seen.running.entry(stage.clone()).or_default();
            *running += 1;
            let running = *running;
            let most = seen.most.entry(stage).or_default();
            *most = running.max(*most);
            note(&mut seen, call, What::Began);
            probe(&mut seen, run);
        }
        Running { seen, call: call.clone(), what: What::Cut }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut seen = lock(&self.seen);
        *seen.running.entry(self.call.stage().to_owned()).or_default() -= 1;
        note(&mut seen, &self.call, self.what);
    }
}

fn note(seen: &mut Seen, call: &Call, what: What) {
    let at = call.world().awake().0 - seen.start;
    let (stage, key) = (call.stage().to_owned(), call.key.to_string());
    seen.events.push(Event { stage, key, what, at, value: (*call.value).clone() });
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

async fn act(seen: Arc<Mutex<Seen>>, run: Arc<Mutex<Option<Run>>>, call: Call) -> Result<Value, CallError> {
    let mut running = Running::new(seen.clone(), &run, &call);
    let field = |name: &str| call.args.get(name).or_else(|| call.value.get(name)).cloned();
    let number = |name: &str| field(name).and_then(|value| value.as_u64());
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
    let attempt = call.attempt;
    if field("panic").is_some() {
        running.what = What::Ended;
        panic!("the handler was told to");
    }
    running.what = What::Ended;
    if number("fails").is_some_and(|fails| u64::from(attempt) <= fails) {
        return Err(CallError::retry(format!("attempt {attempt}")));
    }
    if field("bad").is_some() {
        return Err(CallError::give_up("bad"));
    }
    Ok(field("give").unwrap_or_else(|| (*call.value).clone()))
}

async fn sink(seen: Arc<Mutex<Seen>>, run: Arc<Mutex<Option<Run>>>, call: Call) -> Result<Value, CallError> {
    let mut running = Running::new(seen.clone(), &run, &call);
    if let Some(time) = call.args.get("ms").and_then(Value::as_u64) {
        call.sleep(ms(time)).await;
    }
    running.what = What::Ended;
    lock(&seen).sunk.push((call.stage().to_owned(), call.key.to_string(), (*call.value).clone()));
    Ok(Value::Null)
}

/// A store in memory that wakes its asker some polls later, so that others run in between.
struct Lazy {
    rows: Memory,
    turns: Mutex<fastrand::Rng>,
    spy: Arc<Mutex<Vec<Request>>>,
    lazily: bool,
}

impl Store for Lazy {
    fn call(&self, request: Request) -> BoxFuture<'_, Result<Reply, StoreError>> {
        Box::pin(async move {
            let turns = if self.lazily { lock(&self.turns).usize(..6) } else { 0 };
            yields(turns).await;
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
    Arc::new(Lazy { rows: Memory::new(limit), turns, spy: Arc::default(), lazily: true })
}

/// A store in memory, and all that it was asked.
pub fn spied() -> (Arc<dyn Store>, Arc<Mutex<Vec<Request>>>) {
    let spy: Arc<Mutex<Vec<Request>>> = Arc::default();
    let turns = Mutex::new(fastrand::Rng::with_seed(0));
    (Arc::new(Lazy { rows: Memory::new(64 << 20), turns, spy: spy.clone(), lazily: false }), spy)
}
