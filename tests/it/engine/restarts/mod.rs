//! Nights that are kept, under random jobs, faults and crashes: processes die at any poll, also while they recover, and
//! others go on until the night is settled; then it may be repeated, and another night comes. The oracles of [`judge`] look at
//! what was promised, what was left on the disk, and what happened outside.
//!
//! One seed alone: `LAMPLIGHTER_SEED=1234 cargo test --test it -- engine::restarts`.

mod cases;
mod disk;
mod draw;
mod judge;
mod outside;

pub use judge::ORACLES;

use crate::seeds::{Swarm, parts};
use disk::{Disk, LastWriter, Opened, Spy, folder};
use draw::{After, Case, Life};
use jiff::Timestamp;
use judge::{Snapshot, Watch};
use lamplighter::{
    action::Handlers,
    item::{RunOutcome, RunRecord, Value},
    job::{Job, Surroundings},
    run::{Keeping, Run, RunOptions, Runner, StartError, give_up, kept_job},
    store::{RunDetails, RunHead, RunKind, RunPhase, State, Store},
    world::{World, sim::Sim},
};
use outside::{Around, Seen, Worker, lock};
use std::{
    collections::BTreeMap,
    future::poll_fn,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::Duration,
};
use tempfile::TempDir;

/// Polls of a process after which it does not end any more.
const POLLS: u64 = 100_000;
/// 2026-11-30, in seconds since 1970: day n is the n-th of December.
const FIRST_DAY: i64 = 1_795_996_800;

/// What a process is there for.
#[derive(Clone, Debug)]
enum Goal {
    /// The night of this day is to come to its end.
    Night(i64),
    /// The run is to be repeated, held items too or not.
    Retry(String, bool),
    /// The notices that nobody has sent are to be sent.
    Notices,
}

/// How a process ended.
#[derive(Debug)]
enum Came {
    /// It died.
    Died,
    /// Its goal is reached: the run that reached it, which has ended.
    Settled(String),
    /// Somebody else is there, or other runs are still to be settled.
    Refused,
}

/// A gateway: its disk, its clocks, and all of its processes, one after the other.
struct Gateway {
    seed: u64,
    job: Arc<Job>,
    handlers: Handlers,
    /// What the handlers act on, while this gateway's processes live.
    around: Around,
    seen: Seen,
    disk: Disk,
    out: TempDir,
    wall: Timestamp,
    boot: Option<Duration>,
    boots: u32,
    processes: u32,
    /// Polls of the last process.
    steps: u64,
    watch: Watch,
    fire_key: bool,
}

impl Gateway {
    fn new(seed: u64, case: &Case, is_file: bool) -> Gateway {
        let seen: Seen = Arc::default();
        lock(&seen).acts = case.acts;
        Gateway {
            seed,
            job: case.job.clone(),
            handlers: case.handlers.clone(),
            around: case.around.clone(),
            seen,
            disk: Disk::new(is_file),
            out: folder(),
            wall: Timestamp::from_second(FIRST_DAY).expect("a day"),
            boot: None,
            boots: 0,
            processes: 0,
            steps: 0,
            watch: Watch::default(),
            fire_key: case.fire_key,
        }
    }

    fn broken(&self, (name, what): (&str, String)) -> ! {
        panic!("oracle {name}: {what}\nseed {} of\n{}", self.seed, self.job.text)
    }

    fn options(&self, goal: &Goal) -> RunOptions {
        let day = if let Goal::Night(day) = goal { *day } else { 0 };
        let due = Timestamp::from_second(FIRST_DAY + day * 86_400).expect("a day");
        RunOptions {
            due: Some(due),
            out: self.out.path().to_owned(),
            instance: "gateway".into(),
            ..RunOptions::default()
        }
    }

    /// A simulation whose clocks go on from where the last one's were.
    fn sim(&mut self, life: &Life) -> Sim {
        let sim = Sim::new(self.seed.wrapping_mul(1000) + u64::from(self.processes));
        let sim = sim.step_limit(life.polls.unwrap_or(POLLS));
        let down = Duration::from_millis(life.down_ms);
        if life.reboots {
            self.boots += 1;
            self.boot = None;
        }
        if let Some(boot) = self.boot {
            sim.suspend(boot.saturating_sub(sim.world().boot().0) + down);
        }
        sim.set_wall(self.wall + jiff::SignedDuration::try_from(down).expect("short"));
        sim
    }

    /// Processes that are started together and die together; each for the goal.
    fn live(&mut self, life: &Life, goal: &Goal, together: u32, alone: bool) -> Vec<Came> {
        self.around.set(&self.seen);
        let sim = self.sim(life);
        let world = sim.world();
        let now_ms = world.wall().as_millisecond();
        let last = LastWriter::default();
        let mut opened = Vec::new();
        let mut processes = Vec::new();
        for _ in 0..together {
            self.processes += 1;
            opened.push(self.disk.open(&format!("boot-{}", self.boots), now_ms));
            processes.push(self.processes);
        }
        let found = Snapshot::of(&opened[0].store, &self.job);
        if let Err(wrong) = self.watch.recovered(found, &self.job, &mut lock(&self.seen)) {
            self.broken(wrong);
        }
        let spies: Vec<Arc<dyn Store>> = opened
            .iter()
            .zip(&processes)
            .map(|(opened, process)| {
                Arc::new(Spy::new(opened, *process, &last, world.clone(), &self.seen, life.bad)) as Arc<dyn Store>
            })
            .collect();
        let result = sim.run(async {
            let stories = spies.iter().zip(&processes).map(|(spy, process)| {
                let story = Story {
                    gateway: self,
                    process: *process,
                    state: State::new(spy.clone()),
                    runner: Runner::new(world.clone()),
                    world: &world,
                    life,
                    goal,
                    alone,
                };
                Box::pin(story.tell()) as Pin<Box<dyn Future<Output = Came> + '_>>
            });
            all(stories.collect()).await
        });
        (self.wall, self.boot, self.steps) = (world.wall(), Some(world.boot().0), sim.steps());
        let running = {
            let mut seen = lock(&self.seen);
            seen.workers.retain(|_, worker| !processes.contains(&worker.process));
            seen.running
        };
        if running > 0 {
            self.broken(("O8_nothing_is_held", format!("{running} handlers are left")));
        }
        if let Some(wrong) = lock(&self.seen).wrong.first().cloned() {
            self.broken(wrong);
        }
        let Ok(came) = result else {
            if life.polls.is_none() {
                self.broken(("O8_it_comes_to_its_end", format!("{:?}: {goal:?}", result.err())));
            }
            drop(spies);
            return self.die(opened, together);
        };
        if sim.leaked() > 0 {
            self.broken(("O8_nothing_is_held", format!("{} tasks are left", sim.leaked())));
        }
        if let Some(held) = spies.iter().map(Arc::strong_count).find(|held| *held > 1) {
            self.broken(("O8_nothing_is_held", format!("{} hold the store of a process that is done", held - 1)));
        }
        drop((spies, last));
        if came.iter().any(|came| matches!(came, Came::Died)) {
            // Its disk has failed: it ends, and whoever is beside it.
            return self.die(opened, together);
        }
        let left = temporaries(self.out.path());
        if !left.is_empty() {
            self.broken(("O8_nothing_is_held", format!("temporary files are left: {left:?}")));
        }
        let found = Snapshot::of(&opened[0].store, &self.job);
        if let Err(wrong) = self.watch.settled(self.processes, found, &self.job, &mut lock(&self.seen)) {
            self.broken(wrong);
        }
        opened.into_iter().for_each(Opened::close);
        came
    }

    fn die(&mut self, opened: Vec<Opened>, together: u32) -> Vec<Came> {
        self.disk.crash(opened);
        self.watch.died(self.processes + 1 - together..=self.processes);
        (0..together).map(|_| Came::Died).collect()
    }

    /// Lives and dies until the goal is reached; which run reached it.
    fn reach(&mut self, case: &mut Case, goal: &Goal, steps: u64, cancels: bool) -> String {
        for before in 0.. {
            if before >= 40 {
                self.broken(("O8_it_comes_to_its_end", format!("it does not come to its end: {goal:?}")));
            }
            let mut life = case.life(steps, before);
            life.cancel = life.cancel.filter(|_| cancels);
            let together = if case.two && before < 3 && matches!(goal, Goal::Night(_)) { 2 } else { 1 };
            let alone = !case.two || case.pick(&[true, false]);
            let came = self.live(&life, goal, together, alone);
            if let [Came::Settled(run)] = &came[..] {
                return run.clone();
            }
        }
        unreachable!("the loop ends by itself");
    }

    fn record(&self, run: &str) -> RunRecord {
        self.watch.record(run).unwrap_or_else(|| panic!("{run} has ended"))
    }

    fn reports(&self, run: &str) -> Vec<Value> {
        lock(&self.seen).reports.get(run).cloned().unwrap_or_default()
    }

    /// Every file below the output folder.
    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        walk(self.out.path(), &mut |path| {
            let name = path.strip_prefix(self.out.path()).expect("below it").to_owned();
            found.insert(name, std::fs::read(path).expect("it can be read"));
        });
        found
    }
}

fn walk(folder: &Path, each: &mut impl FnMut(&Path)) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.path().is_dir() {
            true => walk(&entry.path(), each),
            false => each(&entry.path()),
        }
    }
}

fn temporaries(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    walk(folder, &mut |path| {
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".lamplighter-")) {
            found.push(path.to_owned());
        }
    });
    found
}

/// All of them at once.
async fn all<T>(mut futures: Vec<Pin<Box<dyn Future<Output = T> + '_>>>) -> Vec<T> {
    let mut done: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    poll_fn(|cx| {
        for (future, done) in futures.iter_mut().zip(&mut done).filter(|(_, done)| done.is_none()) {
            if let std::task::Poll::Ready(value) = future.as_mut().poll(cx) {
                *done = Some(value);
            }
        }
        if done.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}

/// What one process does: as the commands `run`, `run --resume` and `retry` do.
struct Story<'a> {
    gateway: &'a Gateway,
    process: u32,
    state: State,
    runner: Runner,
    world: &'a World,
    life: &'a Life,
    goal: &'a Goal,
    alone: bool,
}

impl Story<'_> {
    async fn tell(self) -> Came {
        // Whatever the disk refuses ends the process.
        self.go().await.unwrap_or(Came::Died)
    }

    async fn go(&self) -> Result<Came, StartError> {
        self.send_notices().await?;
        let unfinished = self.state.unfinished(Some("night")).await.map_err(StartError::State)?;
        let dead = unfinished.iter().rfind(|head| !head.alive);
        match (self.goal, dead) {
            (Goal::Notices, _) => Ok(Came::Settled(String::new())),
            (_, Some(head)) if self.life.gives_up => {
                give_up(self.world, &self.state, head, &self.surroundings()).await.map_err(StartError::State)?;
                Ok(Came::Refused)
            }
            (_, Some(head)) => {
                let resumed = self.resume(head).await;
                Ok(self.follow(resumed).await)
            }
            (Goal::Night(day), None) => self.night(*day).await,
            (Goal::Retry(of, held), None) => self.retry(of, *held).await,
        }
    }

    async fn send_notices(&self) -> Result<(), StartError> {
        let mut left: BTreeMap<String, Vec<u16>> = BTreeMap::new();
        for notice in self.state.notices().await.map_err(StartError::State)? {
            if !notice.alive {
                left.entry(notice.run.to_string()).or_default().push(notice.place);
            }
        }
        for (run, places) in left {
            let details = self.details(&run).await?;
            let job = self.job_of(&details);
            let options = self.gateway.options(self.goal);
            let worker = Worker { process: self.process, job: job.name.to_string() };
            lock(&self.gateway.seen).workers.insert(run.clone(), worker);
            self.runner.send_notices(&job, options, &self.state, &details, &places).await?;
            lock(&self.gateway.seen).workers.remove(&run);
        }
        Ok(())
    }

    async fn details(&self, run: &str) -> Result<RunDetails, StartError> {
        let found = self.state.details(run).await.map_err(StartError::State)?;
        Ok(found.unwrap_or_else(|| panic!("{run} is there")))
    }

    /// The job that a run began with; most often it is known to be the same.
    fn job_of(&self, details: &RunDetails) -> Arc<Job> {
        if !self.gateway.seed.is_multiple_of(16) {
            return self.gateway.job.clone();
        }
        Arc::new(kept_job(details, &self.surroundings()).expect("the same job").job)
    }

    fn surroundings(&self) -> Surroundings {
        Surroundings { handlers: self.gateway.handlers.clone(), ..Surroundings::default() }
    }

    async fn resume(&self, head: &RunHead) -> Result<Run, StartError> {
        let details = self.details(&head.run).await?;
        let job = self.job_of(&details);
        lock(&self.gateway.seen).dues.insert(head.run.to_string(), day_of(head.due_ms));
        let resumed = self.runner.resume(&job, self.gateway.options(self.goal), &self.state, &head.run).await;
        let is_poison = matches!(resumed, Err(StartError::Poison(_)));
        if is_poison || resumed.is_ok() {
            let judged = self.gateway.watch.is_poison(head);
            if judged != is_poison {
                let text = format!("{} is quarantined: {is_poison}, and it should: {judged}", head.run);
                lock(&self.gateway.seen).wrong.push(("S8_quarantine", text));
            }
        }
        resumed
    }

    async fn night(&self, day: i64) -> Result<Came, StartError> {
        let newest = self.state.history(Some("night"), None, 8).await.map_err(StartError::State)?;
        let is_of_night = |head: &&RunHead| day_of(head.due_ms) == day && head.outcome != Some(RunOutcome::Interrupted);
        if !self.gateway.fire_key
            && let Some(head) = newest.iter().find(is_of_night)
        {
            // It died when everything was on the disk; or somebody beside us works on it.
            return Ok(if head.phase == RunPhase::Ended { Came::Settled(head.run.to_string()) } else { Came::Refused });
        }
        let fire_key = self.gateway.fire_key.then(|| day.to_string());
        let keeping = self.keeping(fire_key, "schedule");
        match self.runner.begin(&self.gateway.job, self.gateway.options(self.goal), &keeping).await {
            Err(StartError::Begun(run)) => {
                let head = self.details(&run).await?.head;
                Ok(if head.phase == RunPhase::Ended { Came::Settled(run) } else { Came::Refused })
            }
            begun => {
                if let Ok(run) = &begun {
                    lock(&self.gateway.seen).dues.insert(run.id().to_owned(), day);
                }
                Ok(self.follow(begun).await)
            }
        }
    }

    async fn retry(&self, of: &str, held: bool) -> Result<Came, StartError> {
        let newest = self.state.history(Some("night"), None, 8).await.map_err(StartError::State)?;
        if let Some(head) = newest.iter().find(|head| head.parent.as_deref() == Some(of)) {
            return Ok(Came::Settled(head.run.to_string()));
        }
        let parent = self.details(of).await?;
        let job = self.job_of(&parent);
        let options = self.gateway.options(self.goal);
        let begun = self.runner.retry(&job, options, &self.keeping(None, "retry"), &parent, held).await;
        if let Ok(run) = &begun {
            let mut seen = lock(&self.gateway.seen);
            seen.dues.insert(run.id().to_owned(), day_of(parent.head.due_ms));
        }
        Ok(self.follow(begun).await)
    }

    fn keeping(&self, fire_key: Option<String>, trigger: &str) -> Keeping {
        let kind = RunKind::Foreground;
        Keeping { state: self.state.clone(), trigger: trigger.into(), fire_key, kind, alone: self.alone }
    }

    /// Waits for the end of a run that was started.
    async fn follow(&self, started: Result<Run, StartError>) -> Came {
        let mut run = match started {
            Ok(run) => run,
            Err(StartError::Poison(run)) => return self.other_runs(run).await,
            Err(StartError::Busy(_) | StartError::NotResumable(_)) => return Came::Refused,
            Err(_) => return Came::Died,
        };
        let id = run.id().to_owned();
        self.takes(&id);
        let mut cancel = self.life.cancel.map(|(after, polls)| {
            Box::pin(async move {
                self.world.sleep(Duration::from_millis(after)).await;
                for _ in 0..polls {
                    futures_lite::future::yield_now().await;
                }
            })
        });
        let record = poll_fn(|cx| {
            if cancel.as_mut().is_some_and(|cancel| cancel.as_mut().poll(cx).is_ready()) {
                run.cancel("an operator");
                cancel = None;
            }
            Pin::new(&mut run).poll(cx)
        })
        .await;
        let progress = run.progress();
        {
            let mut seen = lock(&self.gateway.seen);
            seen.workers.remove(&id);
            if let Some(stage) = progress.stages.iter().find(|stage| stage.working + stage.waiting > 0) {
                let text =
                    format!("`{}` has {} working and {} waiting at its end", stage.name, stage.working, stage.waiting);
                seen.wrong.push(("O8_nothing_is_held", text));
            }
        }
        match record.unsaved {
            Some(_) => Came::Died,
            None => self.other_runs(id).await,
        }
    }

    /// The goal is reached when no other run is left to be settled.
    async fn other_runs(&self, run: String) -> Came {
        match self.state.unfinished(Some("night")).await {
            Ok(left) if left.is_empty() && !self.is_repeated_later(&run) => Came::Settled(run),
            Ok(_) => Came::Refused,
            Err(_) => Came::Died,
        }
    }

    /// It was left over from before the repetition.
    fn is_repeated_later(&self, run: &str) -> bool {
        matches!(self.goal, Goal::Retry(of, _) if of == run)
    }

    /// O1: nobody else works on the run, nor on another one where one is to be alone.
    fn takes(&self, run: &str) {
        let mut seen = lock(&self.gateway.seen);
        let job = self.gateway.job.name.to_string();
        let wrong = match seen.workers.get(run) {
            Some(other) => Some(format!("{run} is worked on by process {} too", other.process)),
            None if self.alone && !self.gateway.job.text.contains("overlap") => seen
                .workers
                .iter()
                .find(|(_, worker)| worker.job == job)
                .map(|(other, _)| format!("{run} runs beside {other}")),
            None => None,
        };
        if let Some(text) = wrong {
            seen.wrong.push(("O1_one_process_works_on_a_run", text));
        }
        seen.workers.insert(run.to_owned(), Worker { process: self.process, job });
    }
}

fn day_of(due_ms: i64) -> i64 {
    due_ms.div_euclid(1000).saturating_sub(FIRST_DAY).div_euclid(86_400)
}

/// What came out of an undisturbed night.
struct Whole {
    record: RunRecord,
    reports: Vec<Value>,
    files: BTreeMap<PathBuf, Vec<u8>>,
    steps: u64,
}

/// An undisturbed night, on a disk of its own.
fn undisturbed(seed: u64, case: &Case, nights: i64, healed: bool) -> Whole {
    let mut gateway = Gateway::new(seed, case, false);
    lock(&gateway.seen).healed = healed;
    let mut last = None;
    for day in 1..=nights {
        let came = gateway.live(&Life::default(), &Goal::Night(day), 1, true);
        let [Came::Settled(run)] = &came[..] else { panic!("seed {seed}: an undisturbed night came to {came:?}") };
        last = Some((run.clone(), gateway.steps));
    }
    let (run, steps) = last.expect("a night");
    Whole { record: gateway.record(&run), reports: gateway.reports(&run), files: gateway.files(), steps }
}

/// Runs one seed and holds everything.
pub fn seed(seed: u64) {
    let mut case = Case::draw(seed);
    let whole = undisturbed(seed, &case, 1, false);
    let mut gateway = Gateway::new(seed, &case, case.is_file);
    let first = gateway.reach(&mut case, &Goal::Night(1), whole.steps, true);
    if case.steady {
        gateway.compare(&first, &whole, None);
    }
    if let After::Retry { held, healed } = case.after {
        lock(&gateway.seen).healed = healed;
        let again = gateway.reach(&mut case, &Goal::Retry(first.clone(), held), whole.steps, false);
        let all_run = held || gateway.watch.held(&first) == 0;
        if all_run && !case.bounded && gateway.watch.held(&again) == 0 {
            if healed && case.lists_well {
                gateway.compare(&again, &undisturbed(seed, &case, 1, true), Some(&first));
            } else if !healed && case.steady {
                gateway.compare(&again, &whole, Some(&first));
            }
        }
        lock(&gateway.seen).healed = false;
    }
    if case.second_night {
        let second = gateway.reach(&mut case, &Goal::Night(2), whole.steps, true);
        if case.steady && case.after == After::Nothing {
            gateway.compare(&second, &undisturbed(seed, &case, 2, false), None);
        }
    }
    gateway.live(&Life::default(), &Goal::Notices, 1, true);
    if let Err(wrong) = gateway.watch.end(&case, &gateway.job, &lock(&gateway.seen)) {
        gateway.broken(wrong);
    }
    if case.forgets {
        gateway.forget();
    }
}

/// Eight in a row have one real file among them, and each part its share of those.
pub const SWARM: Swarm = Swarm { module: "engine::restarts", seeds: 5000, parts: 8, in_a_row: 8, seed };

parts! {
    every_night_that_dies_comes_to_its_end_0: 0,
    every_night_that_dies_comes_to_its_end_1: 1,
    every_night_that_dies_comes_to_its_end_2: 2,
    every_night_that_dies_comes_to_its_end_3: 3,
    every_night_that_dies_comes_to_its_end_4: 4,
    every_night_that_dies_comes_to_its_end_5: 5,
    every_night_that_dies_comes_to_its_end_6: 6,
    every_night_that_dies_comes_to_its_end_7: 7,
}
