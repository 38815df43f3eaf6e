//! All jobs, always: what `serve` is.
//!
//! One loop owns every schedule and every run that lives. It sleeps until something is due, or something happens: an
//! `Event`. Each event has one function, and who asked is answered behind its effect. Time comes in through the
//! [`World`], jobs through [`Jobs`], everything else through [`Handle`]; nothing else here touches the outside, so that years
//! of nights run in the simulated world.
//!
//! The files: `trust` (may the clock be believed), `dormant` (a job between its runs), `watched` (what
//! one job is due), `keep` (firings that are written down), `gates` (which firings that wait
//! may start), `recover` (what an earlier process left), `means` (what tasks beside the loop need), `reload` (job files that
//! change), `command` (what can be asked), `status` (what is told), and this one: the loop.

mod command;
mod dormant;
mod gates;
mod keep;
mod means;
mod recover;
mod reload;
mod status;
mod trust;
mod watched;

pub use command::{Handle, Refusal, RunWish, Which};
pub use status::{JobStatus, LastRun, Overview, Running, Waiting as WaitingFiring, look_at, set_kept_pause};
pub use trust::{ClockPolicy, ClockSigns};

use crate::{
    item::{RunOutcome, RunRecord},
    job::{CheckedJob, Config, Job, JobProblems, Surroundings},
    limits::{
        CATCH_UP_DELAY_DEFAULT, CLOCK_RECHECK, DAEMON_EVENTS, FOREIGN_RECHECK, HEARD_AT_ONCE, MARKS_AT_ONCE,
        RETAIN_STEPS, RUNNING_JOBS_DEFAULT,
    },
    run::{After, Keeping, RunHandle, RunOptions, Runner, StartError},
    schedule::Verdict,
    store::{FiringEnd, FiringRow, Retention, RunHead, RunKind, State, StoreError},
    world::{
        Awake, Boot, Due, Task, World,
        plant::{Bug, planted},
    },
};
use command::Event;
use futures_lite::{FutureExt, future::poll_once};
use gates::{Judgement, Waiting};
use jiff::Timestamp;
use recover::Resumed;
use reload::Reading;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use trust::Trust;
use watched::{AfterEnd, BOOT, CATCH_UP, DEPENDENCY, Mark, Moment, NextDue, SCHEDULE, Watched};

/// Where jobs come from. What reads may block: it is called on the blocking pool. `clock` and `tell` are called in the loop.
pub trait Jobs: Send + Sync + 'static {
    /// The jobs that are there, by name, with what their files are like: a stamp that differs says that a job must be read
    /// again.
    ///
    /// # Errors
    /// Why they cannot be listed; what is watched stays as it is.
    fn list(&self) -> Result<BTreeMap<String, String>, String>;
    /// Reads and checks one.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    fn load(&self, name: &str) -> Result<CheckedJob, JobProblems>;
    /// What job files may name.
    fn surroundings(&self) -> Surroundings;
    /// Options of a run: its secrets, folders, environment.
    ///
    /// # Errors
    /// A sentence that says what is missing.
    fn options(&self, job: &Job) -> Result<RunOptions, String>;
    /// What the system says of its clock.
    fn clock(&self) -> ClockSigns;
    /// Something worth telling whoever started the daemon: it is ready, it stops, how many run.
    fn tell(&self, news: &News<'_>);
}

/// What is told to whoever started the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News<'a> {
    /// Everything of an earlier process is settled or goes on, and all jobs are watched.
    Ready,
    /// What it does now, in one line.
    Does(&'a str),
    /// It starts nothing more, and ends.
    Stopping,
}

/// How a daemon is set up.
#[derive(Clone, Debug)]
pub struct DaemonOptions {
    /// Tells this machine from others: what its jobs are spread by.
    pub machine: String,
    /// Tells this start of the machine from others.
    pub boot: String,
    /// Runs at a time; what is due beyond waits.
    pub max_running_jobs: usize,
    /// Between two runs that make up for missed times.
    pub catch_up_delay: Duration,
    /// When the wall clock is believed.
    pub clock: ClockPolicy,
    /// A time that has been when this program was made.
    pub built: Timestamp,
    /// How much is kept of what has ended; `now_ms` is set here.
    pub retention: Retention,
}

impl Default for DaemonOptions {
    fn default() -> DaemonOptions {
        DaemonOptions {
            machine: String::new(),
            boot: String::new(),
            max_running_jobs: RUNNING_JOBS_DEFAULT,
            catch_up_delay: CATCH_UP_DELAY_DEFAULT,
            clock: ClockPolicy::Auto,
            built: Timestamp::UNIX_EPOCH,
            retention: Config::default().retention(0),
        }
    }
}

/// The daemon. Made with its [`Handle`], and served once.
pub struct Daemon {
    world: World,
    /// Of all runs: they keep the limits of their services together.
    runner: Runner,
    state: State,
    jobs: Arc<dyn Jobs>,
    options: DaemonOptions,
    instance: String,
    events: async_channel::Receiver<Event>,
    /// Which start of the machine this is.
    boot_id: Arc<str>,
    /// For the tasks that wait for runs.
    handle: Handle,
    /// Boxed: a tree has room for more than it holds.
    watched: BTreeMap<String, Box<Watched>>,
    /// Marks of jobs that are not watched.
    unwatched: BTreeMap<String, Mark>,
    /// Jobs that wait for each other.
    circles: Vec<BTreeSet<String>>,
    /// Files of jobs that cannot be used, what they are like, and why: those that never could.
    broken: BTreeMap<String, (u64, String)>,
    waiting: Vec<Waiting>,
    next_number: u64,
    live: Vec<Live>,
    /// Notices of an earlier process on their way.
    errands: Vec<Task<()>>,
    /// Runs of an earlier process that are about to go on.
    resuming: Vec<(RunHead, Task<()>)>,
    /// Job files that are being read.
    reading: Option<Reading>,
    /// It is known which jobs there are. Until then nothing that waits for one is judged.
    is_listed: bool,
    /// Runs whose ends were heard, which is not written yet: nothing came of it.
    heard: Vec<Arc<str>>,
    /// Runs of an earlier process, until the clock is believed, or was waited for.
    to_resume: Vec<RunHead>,
    trust: Trust,
    ready: Boot,
    last_look: Option<(Timestamp, Boot, Awake)>,
    /// Why what is late now is late.
    why_late: &'static str,
    /// Makes up for missed times again from then on.
    next_catch_up: Boot,
    stopping: bool,
}

/// A run of this daemon.
struct Live {
    handle: RunHandle,
    job: String,
    trigger: String,
    due: Timestamp,
    /// It was cancelled to make room for the next one.
    is_replaced: bool,
    /// Who wants to know how it ends.
    watchers: Vec<async_channel::Sender<RunRecord>>,
    _task: Task<()>,
}

impl Live {
    /// A firing of its job started it, and nobody by hand.
    fn is_firing(&self) -> bool {
        [SCHEDULE, CATCH_UP, BOOT, DEPENDENCY].contains(&&*self.trigger)
    }
}

/// Why a daemon ended before it was stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DaemonError {
    /// The state cannot be read or written: nothing more can be promised. Its runs were killed, and are resumed by the next.
    State(StoreError),
}

impl std::fmt::Display for DaemonError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let DaemonError::State(error) = self;
        error.fmt(f)
    }
}

impl std::error::Error for DaemonError {}

impl From<StoreError> for DaemonError {
    fn from(error: StoreError) -> DaemonError {
        DaemonError::State(error)
    }
}

impl Daemon {
    /// A daemon over what `state` keeps, and the handle by which it is asked, stopped and told of changes. Nobody else may
    /// serve the same state.
    pub fn new(world: World, state: State, jobs: Arc<dyn Jobs>, options: DaemonOptions) -> (Daemon, Handle) {
        let (sender, events) = async_channel::bounded(DAEMON_EVENTS);
        let handle = Handle::new(sender);
        let ready = world.boot();
        let daemon = Daemon {
            // Until it is known what has been no clock may be right.
            trust: Trust::new(options.clock, Timestamp::MAX),
            instance: String::new(),
            boot_id: options.boot.as_str().into(),
            runner: Runner::new(world.clone()),
            handle: handle.clone(),
            watched: BTreeMap::new(),
            unwatched: BTreeMap::new(),
            broken: BTreeMap::new(),
            circles: Vec::new(),
            waiting: Vec::new(),
            next_number: 0,
            live: Vec::new(),
            errands: Vec::new(),
            resuming: Vec::new(),
            reading: None,
            is_listed: false,
            heard: Vec::new(),
            to_resume: Vec::new(),
            next_catch_up: ready,
            last_look: None,
            why_late: "down",
            stopping: false,
            ready,
            events,
            world,
            state,
            jobs,
            options,
        };
        (daemon, handle)
    }

    /// Serves until it is stopped and all its runs have let go.
    ///
    /// # Errors
    /// When the state fails.
    ///
    /// # Cancel safety
    /// Dropping it drops its runs: they are cancelled.
    pub async fn serve(mut self) -> Result<(), DaemonError> {
        let served = self.story().await;
        if served.is_err() {
            self.resuming.clear();
            for live in &self.live {
                live.handle.kill("the failure of the state");
            }
            while !self.live.is_empty() {
                if let Ok(Event::Ended(run, _)) = self.events.recv().await {
                    self.live.retain(|live| live.handle.id() != run);
                }
            }
        }
        // A run that was gone on with meanwhile is followed by nobody: it is left to the next one.
        self.events.close();
        while let Ok(event) = self.events.try_recv() {
            if let Event::Resumed(_, Ok(Resumed::Goes(run))) = event {
                run.handle().stop();
                run.handle().kill("the end of the daemon");
                run.await;
            }
        }
        served
    }

    async fn story(&mut self) -> Result<(), DaemonError> {
        self.recover().await?;
        self.jobs.tell(&News::Ready);
        loop {
            let wake = if self.stopping { Wake::default() } else { self.turn().await? };
            if self.stopping && self.live.is_empty() && self.resuming.is_empty() {
                return Ok(());
            }
            match self.next(wake).await {
                Some(Event::Ended(run, record)) => self.handle_ended(&run, *record).await?,
                Some(Event::Resumed(run, resumed)) => self.handle_resumed(&run, resumed).await?,
                Some(Event::Ask(ask)) => self.handle_ask(ask).await?,
                Some(Event::FilesChanged) => self.read_files(None),
                Some(Event::FilesRead(found)) => self.handle_read(found).await?,
                Some(Event::Hello(answer)) => {
                    let _ = answer.try_send(());
                }
                Some(Event::Stop) => self.handle_stop(),
                Some(Event::Kill) => self.handle_kill(),
                None => {}
            }
        }
    }

    /// The next event, or nothing when it is time to look again.
    async fn next(&self, wake: Wake) -> Option<Event> {
        let looked_at = self.last_look.map(|(wall, ..)| wall);
        let event = async { self.events.recv().await.ok() };
        let by_wall = async {
            match wake.wall {
                // It also comes back when the clock is set: then everything is looked at anew. A clock that was set back
                // since the last look would not be told of.
                Some(at) => {
                    let mut wait = std::pin::pin!(self.world.until_wall(at));
                    if poll_once(&mut wait).await.is_none()
                        && looked_at.is_none_or(|looked| looked <= self.world.wall())
                    {
                        wait.await;
                    }
                }
                None => std::future::pending().await,
            }
            None
        };
        let by_boot = async {
            match wake.boot {
                Some(at) => self.world.until(Due::Boot(at)).await,
                None => std::future::pending().await,
            }
            None
        };
        event.or(by_wall).or(by_boot).await
    }

    /// What time it is, and what happened to the clocks meanwhile: it is told by `why_late` until the next turn is over.
    fn look(&mut self) -> Moment {
        /// Clocks that differ by less moved together.
        const SLACK: Duration = Duration::from_secs(2);
        let now = (self.world.wall(), self.world.boot(), self.world.awake());
        if let Some((wall, boot, awake)) = self.last_look.replace(now).filter(|_| self.why_late == BUSY) {
            let slept = now.1.since(boot).saturating_sub(now.2.since(awake));
            let by_wall = Duration::try_from(now.0.duration_since(wall)).unwrap_or_default();
            if by_wall > now.1.since(boot) + SLACK {
                self.why_late = "clock";
            } else if slept > SLACK {
                self.why_late = "asleep";
            }
        }
        if !self.trust.is_trusted() && self.trust.look(now.0, now.1, self.jobs.clock()) {
            log::info!(target: "lamplighter::daemon", "the wall clock is believed: it is {}", now.0);
        }
        let (boot_id, is_trusted) = (self.boot_id.clone(), self.trust.is_trusted());
        Moment { wall: now.0, boot: now.1, boot_id, why_late: self.why_late, is_trusted, ready: self.ready }
    }

    /// Everything that is due now is begun, or has its end written.
    async fn turn(&mut self) -> Result<Wake, DaemonError> {
        let now = self.look();
        let Moment { wall, boot, why_late, is_trusted, .. } = now;
        let nothing_else = !planted(Bug::ResumeLast) || self.live.is_empty() && self.waiting.is_empty();
        if self.trust.lets_resume(wall, boot) && nothing_else {
            while !self.to_resume.is_empty() {
                let head = self.to_resume.remove(0);
                self.begin_resume(head);
            }
        }
        if why_late != BUSY && is_trusted {
            let missed = self.judge_waiting_again(&now);
            self.keep(Vec::new(), missed, &now).await?;
        }
        let looked_at = self.watched.values_mut().filter_map(|watched| {
            let considered = watched.consider(&now);
            considered.is_changed.then(|| (watched.kept_mark(), considered.firings))
        });
        let mut changed: Vec<_> = looked_at.collect();
        while !changed.is_empty() {
            let rest = changed.split_off(changed.len().min(MARKS_AT_ONCE));
            let (marks, firings): (Vec<_>, Vec<_>) = changed.into_iter().unzip();
            self.keep(marks, firings.into_iter().flatten().collect(), &now).await?;
            changed = rest;
        }
        // While the clock is not believed there is more to come.
        if is_trusted {
            self.why_late = BUSY;
        }
        let mut wake = self.start_waiting(&now).await?;
        self.watch_reading(boot).into_iter().for_each(|next| wake.add(next));
        for watched in self.watched.values() {
            watched.next_dues(&now).for_each(|next| wake.add(next));
        }
        if !is_trusted {
            wake.add(NextDue::Boot(boot + CLOCK_RECHECK));
        }
        Ok(wake)
    }

    /// A firing that is written down as waiting.
    fn wait(&mut self, firing: FiringRow) {
        let due = Timestamp::from_millisecond(firing.due_ms).unwrap_or_default();
        let (wall, boot) = (self.world.wall(), self.world.boot());
        // By the clock that nobody sets, and never longer than it is spread out.
        let spread = self.watched.get(&firing.job).map_or(Duration::ZERO, |watched| watched.spread(&firing.trigger));
        let passed = Duration::try_from(wall.duration_since(due)).unwrap_or_default();
        let priority = self
            .watched
            .get(&firing.job)
            .map_or(crate::schedule::Priority::Normal, |watched| watched.job.timing.priority);
        self.next_number += 1;
        self.line_up(Waiting {
            job: firing.job,
            key: firing.key,
            trigger: firing.trigger,
            due,
            not_before: boot + spread.saturating_sub(passed),
            since: boot,
            priority,
            number: self.next_number,
            held_since: None,
            look_again: None,
            why: "",
        });
    }

    /// Puts a firing to those that wait, in its turn.
    fn line_up(&mut self, waiting: Waiting) {
        let place = self.waiting.partition_point(|other| other.rank() < waiting.rank());
        self.waiting.insert(place, waiting);
    }

    /// Starts what may start of the firings that wait, ends what never will, and says when to look again.
    async fn start_waiting(&mut self, now: &Moment) -> Result<Wake, DaemonError> {
        let mut wake = Wake::default();
        let mut place = 0;
        while place < self.waiting.len() {
            match self.judge(place, now) {
                Judgement::Wait(why, until) => {
                    self.waiting[place].why = why;
                    until.into_iter().for_each(|next| wake.add(next));
                    place += 1;
                }
                Judgement::Replace => {
                    let job = self.waiting[place].job.clone();
                    for live in self.live.iter_mut().filter(|live| live.job == job && !live.is_replaced) {
                        live.is_replaced = true;
                        live.handle.cancel("its next run");
                    }
                    place += 1;
                }
                Judgement::End(end, reason) => {
                    let (waiting, number) = (self.waiting.remove(place), self.next_number);
                    self.end_firing(&waiting, end, reason, now).await?;
                    // It may have made others due, which stand before this place.
                    if self.next_number != number {
                        place = 0;
                    }
                }
                Judgement::Start => {
                    let waiting = self.waiting.remove(place);
                    self.start(waiting, now).await?;
                    // What was judged before may be judged otherwise now.
                    place = 0;
                }
            }
        }
        Ok(wake)
    }

    async fn end_firing(
        &mut self,
        waiting: &Waiting,
        end: FiringEnd,
        reason: &str,
        now: &Moment,
    ) -> Result<(), DaemonError> {
        let watched = self.watched.get(&waiting.job).filter(|_| end == FiringEnd::Missed);
        let to_tell = watched.is_some_and(|watched| watched.job.tells_missed);
        let ended = waiting.row(end, reason, (now.wall.as_millisecond(), to_tell));
        self.keep(Vec::new(), vec![ended], now).await
    }

    /// Begins the run of a firing, which waits no longer, or waits on.
    async fn start(&mut self, waiting: Waiting, now: &Moment) -> Result<(), DaemonError> {
        let Some(woken) = self.wake(&waiting.job).await else { return Ok(()) };
        let job = match woken {
            Ok(job) => job,
            Err(why) => {
                return self.end_firing(&waiting, FiringEnd::Missed, &format!("cannot start: {why}"), now).await;
            }
        };
        let mut options = match self.means().options_of(&job).await {
            Ok(options) => options,
            Err(why) => {
                return self.end_firing(&waiting, FiringEnd::Missed, &format!("cannot start: {why}"), now).await;
            }
        };
        options.due = Some(waiting.due);
        if waiting.trigger == DEPENDENCY {
            options.after = self.after_of(&waiting.key).await?;
        }
        let fire_key = (!planted(Bug::FiringUnnamed)).then(|| waiting.key.clone());
        let keeping = self.keeping(&job, &waiting.trigger, fire_key);
        match self.runner.begin(&job, options, &keeping).await {
            Ok(run) => self.follow(run, &job.name, &waiting.trigger, waiting.due),
            // It has its run, or its end.
            Err(StartError::Begun(_) | StartError::Settled) => {}
            Err(StartError::Busy(_)) => return self.held_elsewhere(waiting, now).await,
            Err(StartError::State(error)) => return Err(error.into()),
            Err(error) => {
                self.end_firing(&waiting, FiringEnd::Missed, &format!("cannot start: {error}"), now).await?;
            }
        }
        Ok(())
    }

    /// A command in the foreground works on the job.
    async fn held_elsewhere(&mut self, waiting: Waiting, now: &Moment) -> Result<(), DaemonError> {
        let overlap = self.watched.get(&waiting.job).map(|watched| watched.job.overlap());
        if matches!(overlap, Some(crate::schedule::Overlap::Queue | crate::schedule::Overlap::Replace)) {
            self.line_up(Waiting { look_again: Some(now.boot + FOREIGN_RECHECK), ..waiting });
            return Ok(());
        }
        self.end_firing(&waiting, FiringEnd::Skipped, "overlap", now).await
    }

    /// What waits may be late by now, after something happened to the machine or its clock. What was missed so.
    fn judge_waiting_again(&mut self, now: &Moment) -> Vec<FiringRow> {
        let mut missed = Vec::new();
        let mut place = 0;
        while let Some(waiting) = self.waiting.get_mut(place) {
            let watched = self.watched.get(&waiting.job).filter(|_| [SCHEDULE, CATCH_UP].contains(&&*waiting.trigger));
            let what = (&*waiting.trigger, &*waiting.key);
            match watched.map_or(Verdict::OnTime, |watched| watched.judge_again(what, waiting.due, now)) {
                Verdict::OnTime => place += 1,
                Verdict::CatchUp => {
                    waiting.trigger = CATCH_UP.to_owned();
                    place += 1;
                }
                Verdict::Missed => {
                    let told = (now.wall.as_millisecond(), watched.is_some_and(|watched| watched.job.tells_missed));
                    let waiting = self.waiting.remove(place);
                    missed.push(waiting.row(FiringEnd::Missed, now.why_late, told));
                }
            }
        }
        missed
    }

    fn keeping(&self, job: &Job, trigger: &str, fire_key: Option<String>) -> Keeping {
        Keeping {
            state: self.state.clone(),
            trigger: trigger.to_owned(),
            fire_key,
            kind: RunKind::Serve,
            alone: job.runs_at_once() == 1,
        }
    }

    /// A watched job, whole. `None`: there is none; `Err`: what of its surroundings is not there any more.
    async fn wake(&self, name: &str) -> Option<Result<Arc<Job>, String>> {
        let wake = self.watched.get(name)?.job.wake();
        Some(self.means().wake(wake).await)
    }

    /// What `run.after` says, from the identity of the firing.
    async fn after_of(&self, key: &str) -> Result<Option<After>, DaemonError> {
        let Some((job, id)) = key.strip_prefix("after ").and_then(|rest| rest.split_once(' ')) else { return Ok(None) };
        let details = self.state.details(id).await?;
        let outcome = details.and_then(|details| details.head.outcome).map_or("missed", RunOutcome::name);
        Ok(Some(After { job: job.to_owned(), id: id.to_owned(), outcome: outcome.to_owned() }))
    }

    /// From now on this daemon waits for the run.
    fn follow(&mut self, run: crate::run::Run, job: &str, trigger: &str, due: Timestamp) {
        let (handle, sender) = (run.handle(), self.handle.clone());
        let id = run.id().to_owned();
        let task = self.world.spawn(async move {
            let record = run.await;
            sender.ended(id, record).await;
        });
        self.live.push(Live {
            handle,
            job: job.to_owned(),
            trigger: trigger.to_owned(),
            due,
            is_replaced: false,
            watchers: Vec::new(),
            _task: task,
        });
        self.tell_what_runs();
    }

    fn tell_what_runs(&self) {
        let text = match self.live.len() {
            0 => format!("{} jobs, idle", self.watched.len()),
            running => {
                let names: BTreeSet<&str> = self.live.iter().map(|live| live.job.as_str()).collect();
                format!(
                    "{} jobs, {running} running: {}",
                    self.watched.len(),
                    names.into_iter().collect::<Vec<_>>().join(", ")
                )
            }
        };
        self.jobs.tell(&News::Does(&text));
    }

    async fn handle_ended(&mut self, run: &str, record: RunRecord) -> Result<(), DaemonError> {
        let Some(place) = self.live.iter().position(|live| live.handle.id() == run) else { return Ok(()) };
        let live = self.live.remove(place);
        for watcher in &live.watchers {
            // Each has room for one; who is gone has no use for it.
            let _ = watcher.try_send(record.clone());
        }
        if let Some(why) = &record.unsaved {
            return Err(DaemonError::State(StoreError::Io(why.clone())));
        }
        let now = self.look();
        if live.trigger == CATCH_UP {
            self.next_catch_up = now.boot + self.options.catch_up_delay;
        }
        self.tell_what_runs();
        if self.stopping {
            return Ok(());
        }
        self.fire_after(&live.job, record.outcome, run, live.due.as_millisecond(), &now).await?;
        self.retain(now.wall.as_millisecond()).await
    }

    /// What is due after the end of a run, which is heard by that.
    async fn fire_after(
        &mut self,
        job: &str,
        outcome: RunOutcome,
        run: &str,
        due_ms: i64,
        now: &Moment,
    ) -> Result<(), DaemonError> {
        let due = self.due_after(job, AfterEnd::Run(outcome), run, due_ms, now, |_| true);
        self.heard.push(run.into());
        // Where nothing comes of it there is no hurry: what is heard once more comes to nothing again.
        if due.is_empty() && self.heard.len() < HEARD_AT_ONCE {
            return Ok(());
        }
        let written = self.state.hear(std::mem::take(&mut self.heard), due).await?;
        self.act_on(written);
        Ok(())
    }

    /// Lets go what is not kept; what is left is the next run's. By a clock that is wrong everything may be old.
    async fn retain(&self, now_ms: i64) -> Result<(), DaemonError> {
        if !self.trust.is_trusted() {
            return Ok(());
        }
        for _ in 0..RETAIN_STEPS {
            if !self.state.retain(Retention { now_ms, ..self.options.retention }).await?.more {
                break;
            }
        }
        Ok(())
    }

    fn handle_stop(&mut self) {
        if !self.stopping {
            self.stopping = true;
            self.jobs.tell(&News::Stopping);
            log::info!(target: "lamplighter::daemon", running = self.live.len(); "stopping");
            if !planted(Bug::StopWaits) {
                self.live.iter().for_each(|live| live.handle.stop());
            }
        }
    }

    fn handle_kill(&mut self) {
        self.handle_stop();
        self.resuming.clear();
        self.live.iter().for_each(|live| live.handle.kill("a second signal"));
    }
}

/// Nothing happened to the clocks: what is late now, the loop was late for.
const BUSY: &str = "busy";

/// When to look again at the latest.
#[derive(Clone, Copy, Debug, Default)]
struct Wake {
    wall: Option<Timestamp>,
    boot: Option<Boot>,
}

impl Wake {
    fn add(&mut self, next: NextDue) {
        match next {
            NextDue::Wall(at) => self.wall = Some(self.wall.map_or(at, |wall| wall.min(at))),
            NextDue::Boot(at) => self.boot = Some(self.boot.map_or(at, |boot| boot.min(at))),
        }
    }
}
