//! A machine: clocks, a state that outlives processes, job files, and a daemon that may be stopped or killed at any time.

use futures_lite::FutureExt;
use jiff::{Timestamp, tz::TimeZone};
use lamplighter::{
    action::{Call, Handlers},
    daemon::{ClockPolicy, ClockSigns, Daemon, DaemonError, DaemonOptions, Handle, Jobs, News, RunWish},
    item::Value,
    job::{CheckedJob, Job, JobProblems, Surroundings},
    run::RunOptions,
    store::{FiringRow, Reply, Request, Retention, RunHead, State, Store, StoreError, memory::Memory},
    world::{Boot, BoxFuture, Due, WallWake, World, sim::Sim},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

pub const MINUTE: Duration = Duration::from_secs(60);
pub const HOUR: Duration = Duration::from_secs(3600);
pub const DAY: Duration = Duration::from_secs(24 * 3600);

/// A run as its handler saw it: it is outside, and does not crash with the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    pub job: String,
    pub run: String,
    pub due: Timestamp,
    pub began: Timestamp,
    pub began_boot: Boot,
    /// Which process it was.
    pub process: u64,
    /// When it ended, was cut or dropped; `None`: the process died.
    pub ended: Option<Timestamp>,
    /// Its beginning and end in the order in which things happened.
    pub began_seq: u64,
    pub ended_seq: u64,
    pub after: String,
}

/// What the daemon is told of the outside, and tells it.
pub struct Desk {
    files: Mutex<BTreeMap<String, (u64, String)>>,
    stamps: AtomicU64,
    pub signs: Mutex<ClockSigns>,
    pub effects: Arc<Mutex<Vec<Effect>>>,
    /// Jobs that have no options to start with.
    pub refused: Mutex<BTreeSet<String>>,
    /// Why the folder of job files cannot be listed.
    pub unlisted: Mutex<Option<String>>,
    /// What each run starts with.
    pub run_options: Mutex<RunOptions>,
    pub news: Mutex<Vec<String>>,
    /// The process that lives; effects of a dead one are none.
    process: Arc<AtomicU64>,
    /// Counts what happens.
    seq: Arc<AtomicU64>,
    /// Real time that passed in earlier starts of the machine, and while it was off.
    passed: Mutex<Duration>,
    /// The latest time of the wall clock before it was set back.
    pub highest: Mutex<Timestamp>,
    handlers: Handlers,
}

pub fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells of the end of a call, however it comes.
struct Ends {
    effects: Arc<Mutex<Vec<Effect>>>,
    place: usize,
    process: (u64, Arc<AtomicU64>),
    seq: Arc<AtomicU64>,
    world: World,
}

impl Drop for Ends {
    fn drop(&mut self) {
        if self.process.0 == self.process.1.load(Ordering::SeqCst) {
            let effect = &mut lock(&self.effects)[self.place];
            effect.ended = Some(self.world.wall());
            effect.ended_seq = self.seq.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Desk {
    fn new() -> Desk {
        let effects: Arc<Mutex<Vec<Effect>>> = Arc::default();
        let process: Arc<AtomicU64> = Arc::default();
        let seq: Arc<AtomicU64> = Arc::default();
        let (seen, living, counts) = (effects.clone(), process.clone(), seq.clone());
        let work = move |call: Call| {
            let (effects, process, seq) = (seen.clone(), living.clone(), counts.clone());
            async move {
                let arg = |name: &str| call.args().get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
                let effect = Effect {
                    job: call.job().to_owned(),
                    run: call.run().to_owned(),
                    due: arg("due").parse().expect("an instant"),
                    began: call.world().wall(),
                    began_boot: call.world().boot(),
                    process: process.load(Ordering::SeqCst),
                    ended: None,
                    began_seq: seq.fetch_add(1, Ordering::SeqCst),
                    ended_seq: u64::MAX,
                    after: arg("after"),
                };
                let number = effect.process;
                let place = {
                    let mut effects = lock(&effects);
                    effects.push(effect);
                    effects.len() - 1
                };
                let _ends = Ends { effects, place, process: (number, process), seq, world: call.world().clone() };
                let ms = call.args().get("ms").and_then(Value::as_u64).unwrap_or_default();
                call.sleep(Duration::from_millis(ms)).await;
                Ok(Value::Null)
            }
        };
        let fail = |_: Call| async move { Err::<Value, _>(lamplighter::action::CallError::give_up("bad")) };
        let handlers = Handlers::new().add("work", work).and_then(|all| all.add("fail", fail)).expect("new names");
        Desk {
            files: Mutex::default(),
            stamps: AtomicU64::new(1),
            signs: Mutex::default(),
            effects,
            refused: Mutex::default(),
            unlisted: Mutex::default(),
            run_options: Mutex::default(),
            news: Mutex::default(),
            process,
            seq,
            passed: Mutex::default(),
            highest: Mutex::default(),
            handlers,
        }
    }

    /// The next number in the order of things.
    pub fn tick(&self) -> u64 {
        self.seq.fetch_add(1, Ordering::SeqCst)
    }

    /// Real time since the beginning.
    pub fn real(&self, sim: &Sim) -> Duration {
        *lock(&self.passed) + sim.world().boot().0
    }

    /// The process is dead: whatever it worked on has ended.
    fn dies(&self) {
        self.process.fetch_add(1, Ordering::SeqCst);
        let now = self.tick();
        for effect in lock(&self.effects).iter_mut() {
            effect.ended_seq = effect.ended_seq.min(now);
        }
    }

    /// Writes a job file.
    pub fn write(&self, name: &str, text: &str) {
        let stamp = self.stamps.fetch_add(1, Ordering::SeqCst);
        lock(&self.files).insert(name.to_owned(), (stamp, text.to_owned()));
    }

    /// The text of a job file.
    pub fn text(&self, name: &str) -> String {
        lock(&self.files).get(name).map(|(_, text)| text.clone()).unwrap_or_default()
    }

    /// Removes a job file.
    pub fn remove(&self, name: &str) {
        lock(&self.files).remove(name);
    }
}

impl Jobs for Desk {
    fn list(&self) -> Result<BTreeMap<String, String>, String> {
        if let Some(why) = &*lock(&self.unlisted) {
            return Err(why.clone());
        }
        Ok(lock(&self.files).iter().map(|(name, (stamp, _))| (name.clone(), stamp.to_string())).collect())
    }

    fn load(&self, name: &str) -> Result<CheckedJob, JobProblems> {
        Job::from_ron(name, &self.text(name), Path::new("."), &self.handlers)
    }

    fn surroundings(&self) -> Surroundings {
        Surroundings { handlers: self.handlers.clone(), ..Surroundings::default() }
    }

    fn options(&self, job: &Job) -> Result<RunOptions, String> {
        match lock(&self.refused).contains(&*job.name) {
            true => Err("a secret is missing".into()),
            false => Ok(lock(&self.run_options).clone()),
        }
    }

    fn clock(&self) -> ClockSigns {
        *lock(&self.signs)
    }

    fn tell(&self, news: &News<'_>) {
        lock(&self.news).push(format!("{news:?}"));
    }
}

/// A job that works for so long.
pub fn job(timing: &str, work: Duration) -> String {
    let timing = timing.trim_end_matches([',', ' ']);
    let zone = if timing.contains("timezone") { "" } else { "timezone: \"UTC\", " };
    let after = match timing.contains("After(") {
        true => "{% if run.after %}{{ run.after.job }} {{ run.after.outcome }}{% endif %}",
        false => "",
    };
    let args = format!("\"due\": \"{{{{ run.due }}}}\", \"after\": \"{after}\", \"ms\": {}", work.as_millis());
    format!("Job({zone}{timing}, deadline: \"12h\", run: [Call(handler: \"work\", args: {{{args}}})])")
}

pub fn at(text: &str) -> Timestamp {
    text.parse().expect("an instant")
}

/// The machine.
pub struct Lab {
    pub memory: Memory,
    pub desk: Arc<Desk>,
    pub options: DaemonOptions,
    pub sim: Sim,
    seed: u64,
    boots: u64,
}

/// A daemon that lives, and who is in front of it.
pub struct Process<'a> {
    pub sim: &'a Sim,
    pub handle: Handle,
    pub world: World,
    pub desk: Arc<Desk>,
    ended: async_channel::Receiver<Result<(), DaemonError>>,
}

const STORE_BYTES: u64 = 256 << 20;

/// A state that fails for good after some requests.
struct Fails(Memory, AtomicI64);

impl Fails {
    fn fails(&self) -> bool {
        self.1.fetch_sub(1, Ordering::SeqCst) <= 0
    }
}

impl Store for Fails {
    fn call(&self, request: Request) -> BoxFuture<'_, Result<Reply, StoreError>> {
        match self.fails() {
            true => Box::pin(async { Err(StoreError::Io("the disk is gone".into())) }),
            false => self.0.call(request),
        }
    }

    fn call_blocking(&self, request: Request) -> Result<Reply, StoreError> {
        match self.fails() {
            true => Err(StoreError::Io("the disk is gone".into())),
            false => self.0.call_blocking(request),
        }
    }
}

impl Lab {
    /// At noon of Sunday, 2026-11-22, UTC; the clock is believed.
    pub fn new(seed: u64) -> Lab {
        let options = DaemonOptions {
            machine: "a gateway".into(),
            boot: "boot-0".into(),
            clock: ClockPolicy::Trusted,
            built: at("2026-11-01T00:00:00Z"),
            retention: Retention { now_ms: 0, max_runs: 100_000, max_age_ms: u64::MAX, max_bytes: u64::MAX },
            ..DaemonOptions::default()
        };
        let sim = Sim::new(seed).up_for(HOUR);
        sim.set_wall(at("2026-11-22T12:00:00Z"));
        Lab { memory: Memory::losing(STORE_BYTES), desk: Arc::new(Desk::new()), options, sim, seed, boots: 0 }
    }

    pub fn write(&self, name: &str, timing: &str, work: Duration) {
        self.desk.write(name, &job(timing, work));
        if let Err(problems) = self.desk.load(name) {
            panic!("{problems}");
        }
    }

    /// A process serves, and dies at this poll if `story` has not ended before: true when it did.
    pub fn serve_until_poll(&mut self, polls: u64, story: impl AsyncFnOnce(&Process<'_>)) -> bool {
        let (sender, crashed) = async_channel::bounded::<()>(1);
        let store = Arc::new(self.memory.restart(&self.options.boot));
        let (memory, desk) = (store.clone(), self.desk.clone());
        // What it does from here on reaches neither the state nor the outside.
        let number = desk.process.load(Ordering::SeqCst);
        self.sim.act_at(polls, move || {
            // Another one may have come before that.
            if desk.process.load(Ordering::SeqCst) == number {
                desk.dies();
                let _ = memory.restart("dead");
            }
            drop(sender);
        });
        self.serve_on(store, async |p| {
            let story = async {
                story(p).await;
                false
            };
            let crash = async {
                let _ = crashed.recv().await;
                true
            };
            crash.or(story).await
        })
    }

    /// A process serves, and its state fails for good after so many requests: it ends then, or when `story` has ended.
    pub fn serve_until_request(&mut self, requests: i64, story: impl AsyncFnOnce(&Process<'_>)) {
        let memory = self.memory.restart(&self.options.boot);
        let store = Arc::new(Fails(memory, AtomicI64::new(requests)));
        self.serve_on(store, async |p| {
            let failed = async {
                let _ = p.served().await;
            };
            failed.or(story(p)).await;
        });
    }

    /// A process serves; when `story` has ended it dies.
    pub fn serve<T>(&mut self, story: impl AsyncFnOnce(&Process<'_>) -> T) -> T {
        let store: Arc<dyn Store> = Arc::new(self.memory.restart(&self.options.boot));
        self.serve_on(store, story)
    }

    /// The same on a store of the caller's.
    pub fn serve_on<T>(&mut self, store: Arc<dyn Store>, story: impl AsyncFnOnce(&Process<'_>) -> T) -> T {
        let (sender, ended) = async_channel::bounded(1);
        let (sim, desk, memory) = (&self.sim, self.desk.clone(), &self.memory);
        let (state, options) = (State::new(store), self.options.clone());
        let number = desk.process.load(Ordering::SeqCst);
        let main = async {
            let world = sim.world();
            let (daemon, handle) = Daemon::new(world.clone(), state, desk.clone(), options);
            let process = Process { sim, handle, world, desk: desk.clone(), ended };
            let served = async {
                let served = daemon.serve().await;
                let _ = sender.send(served).await;
                std::future::pending().await
            };
            let told = story(&process).or(served).await;
            // It dies: nothing that it still does counts.
            if desk.process.load(Ordering::SeqCst) == number {
                desk.dies();
                let _ = memory.restart("dead");
            }
            told
        };
        let told = sim.run(main).unwrap_or_else(|stalled| panic!("{stalled}"));
        assert_eq!(sim.leaked(), 0, "tasks are left");
        told
    }

    /// Time in which nothing serves.
    pub fn down(&mut self, duration: Duration) {
        let world = self.sim.world();
        self.sim.run(async { world.sleep(duration).await }).expect("it passes");
    }

    /// The machine is off for so long, and begins anew; its clock goes on, or reads something else.
    pub fn reboot(&mut self, off: Duration, wall: Option<Timestamp>) {
        let now = self.sim.world().wall().checked_add(off).expect("a time");
        *lock(&self.desk.passed) += self.sim.world().boot().0 + off;
        self.boots += 1;
        self.sim = Sim::new(self.seed + 1000 * self.boots).up_for(Duration::from_secs(10));
        self.sim.set_wall(wall.unwrap_or(now));
        self.options.boot = format!("boot-{}", self.boots);
    }

    pub fn look<T>(&self, ask: impl AsyncFnOnce(State) -> T) -> T {
        let state = State::new(Arc::new(self.memory.restart("look")));
        Sim::new(0).run(ask(state)).expect("it answers")
    }

    /// Every run, the oldest first.
    pub fn runs(&self) -> Vec<RunHead> {
        self.look(async |state| {
            let mut runs: Vec<RunHead> = Vec::new();
            loop {
                let before = runs.last().map(|head| head.run.to_string());
                let page = state.history(None, before.as_deref(), 500).await.expect("it answers");
                if page.is_empty() {
                    runs.reverse();
                    return runs;
                }
                runs.extend(page);
            }
        })
    }

    /// Every firing that started no run, the oldest first.
    pub fn rows(&self) -> Vec<FiringRow> {
        self.look(async |state| {
            let mut rows: Vec<(u64, FiringRow)> = Vec::new();
            loop {
                let before = rows.last().map(|(number, _)| *number);
                let page = state.past_firings(None, before, 500).await.expect("it answers");
                if page.is_empty() {
                    return rows.into_iter().rev().map(|(_, row)| row).collect();
                }
                rows.extend(page);
            }
        })
    }

    /// Firings that wait.
    pub fn waiting(&self) -> Vec<FiringRow> {
        self.look(async |state| state.waiting_firings().await.expect("it answers"))
    }

    /// What became of each time of a job, by its due.
    pub fn told(&self, job: &str) -> Vec<String> {
        let mut told: Vec<(i64, String)> = Vec::new();
        for head in self.runs().into_iter().filter(|head| head.job == job) {
            let outcome = head.outcome.map_or("unfinished", |outcome| outcome.name());
            told.push((head.due_ms, format!("{} {} {outcome}", day(head.due_ms), head.trigger)));
        }
        for row in self.rows().into_iter().filter(|row| row.job == job) {
            let reason = row.reason.unwrap_or_default();
            let count = match row.count {
                Some(1) => String::new(),
                Some(count) => format!(" x{count}"),
                None => " many".to_owned(),
            };
            told.push((row.due_ms, format!("{}{count} {:?} {reason}", day(row.due_ms), row.end)));
        }
        told.extend(
            self.waiting()
                .into_iter()
                .filter(|row| row.job == job)
                .map(|row| (row.due_ms, format!("{} waits", day(row.due_ms)))),
        );
        told.sort_by_key(|(due, _)| *due);
        told.into_iter().map(|(_, text)| text).collect()
    }

    /// When the calls of a job began.
    pub fn began(&self, job: &str) -> Vec<String> {
        let effects = lock(&self.desk.effects);
        effects
            .iter()
            .filter(|effect| effect.job == job)
            .map(|effect| effect.began.strftime("%d %H:%M:%S").to_string())
            .collect()
    }

    pub fn effects(&self) -> Vec<Effect> {
        lock(&self.desk.effects).clone()
    }
}

pub fn day(ms: i64) -> String {
    let at = Timestamp::from_millisecond(ms).expect("a time");
    at.to_zoned(TimeZone::UTC).strftime("%d %H:%M").to_string()
}

impl Process<'_> {
    /// Until the wall clock reads this.
    pub async fn until(&self, wall: &str) {
        while self.world.until_wall(at(wall)).await != WallWake::Reached {}
    }

    /// So much time, sleep among it.
    pub async fn pass(&self, duration: Duration) {
        self.world.until(Due::Boot(self.world.boot() + duration)).await;
    }

    /// Sets the wall clock.
    pub fn set(&self, wall: &str) {
        self.sim.set_wall(at(wall));
    }

    /// Asks it to stop, and waits for that: how long it took.
    pub async fn stop(&self) -> Duration {
        let began = self.world.boot();
        self.handle.stop().await;
        self.served().await.expect("the state answers");
        self.world.boot().since(began)
    }

    /// What it ended with.
    pub async fn served(&self) -> Result<(), DaemonError> {
        self.ended.recv().await.expect("it ends")
    }

    /// Runs a job now.
    pub async fn run(&self, job: &str) -> Result<String, String> {
        let wish = RunWish { job: job.into(), trigger: "api".into(), ..RunWish::default() };
        self.handle.run(wish, None).await.map(|run| run.id().to_owned()).map_err(|why| why.to_string())
    }

    /// What is wrong with its files after it has read them.
    pub async fn reload(&self) -> BTreeMap<String, String> {
        self.handle.reload().await.unwrap_or_default()
    }
}
