//! One job once: the story of a run.
//!
//! [`Runner::start`] makes the state, starts a task for each stage and hands out a [`Run`]; `source`, `worker` and
//! `gather` are the three kinds of stages, `deadline` closes or cancels them, `outcome` decides how it ended, `finish`
//! sends the notices. It stands on the ports of a [`World`] alone and never installs, prints or exits anything.

mod chain;
mod dated;
mod deadline;
mod deferred;
mod facts;
mod finish;
mod gather;
mod guard;
mod handle;
mod kept;
mod options;
mod outcome;
mod pool;
mod progress;
mod retry;
mod rows;
mod source;
mod state;
mod stop;
mod token;
mod worker;

pub use facts::rfc3339;
pub use handle::RunHandle;
pub(crate) use kept::record_so_far;
pub use kept::{Keeping, Outline, StageOutline, give_up, kept_job};
pub use options::{After, Preview, RunOptions};
pub use progress::{Progress, StageProgress};
pub use retry::{MISSED, Missed};
pub use rows::StoreChoice;
pub use state::CancelReason;

use crate::{
    action::{Journal, Leftovers, Line, Outputs, RunContext},
    flow::{Group, Latch, panic_text},
    item::{FailureRecord, Lineage, RunOutcome, RunRecord, StageRecord, Value},
    job::{Job, Stage, StageKind},
    lang::RunFacts,
    limits::{LEFTOVER_UNKILLABLE_AFTER, ON_FINISH_TIMEOUT, SUMMARY_LIST_MAX},
    service::SharedLimits,
    store::{Begun, Clocks, Resume, RunDetails, RunHead, State, StoreError, TakenOver},
    world::{
        BoxFuture, Due, Task, World,
        failpoint::{Point, pass},
        plant::{Bug, planted},
    },
};
use event_listener::Event;
use finish::Told;
use futures_lite::{FutureExt, future};
use kept::Kept;
use log::Level;
use state::{RunState, StageState, lock};
use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    panic::AssertUnwindSafe,
    path::Path,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

/// Starts runs on the executor of a world: as many at once as you like. See [`Run`] for an example. Its runs, and those of its
/// clones, keep the limits of a service together.
#[derive(Clone, Debug)]
pub struct Runner {
    world: World,
    limits: SharedLimits,
}

/// Why a run was not started. Nothing has been done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartError {
    /// A secret that the job names was not given.
    NoSecret(String),
    /// `--set` or `params` name something that the job does not have.
    NoParam(String),
    /// There is no such stage.
    NoStage(String),
    /// A data file that the job reads is not there.
    NoInput(std::path::PathBuf),
    /// A service cannot be set up with these params and secrets.
    Service(String),
    /// The output folder cannot be used.
    Out(String),
    /// A living process works on another run of the job, which is named.
    Busy(String),
    /// This firing, or this run, has begun before: the run that did.
    Begun(String),
    /// This firing was skipped or missed, which stands.
    Settled,
    /// The run has ended, or a living process works on it: there is nothing to resume.
    NotResumable(String),
    /// The run has not ended: it cannot be repeated.
    NotEnded(String),
    /// What the run did is no longer stored: it cannot be repeated.
    Gone(String),
    /// The run crashed the program too often, and is quarantined now.
    Poison(String),
    /// The state cannot be read or written.
    State(StoreError),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::NoSecret(name) => write!(
                f,
                "the secret `{name}` is not there: put it into a file `secrets/{name}` (mode 0600) beside lamplighter.ron, \
                 or set LAMPLIGHTER_SECRET_{}",
                name.to_uppercase()
            ),
            StartError::NoParam(name) => write!(f, "the job has no param `{name}`"),
            StartError::NoStage(name) => write!(f, "the job has no stage `{name}`"),
            StartError::NoInput(path) => write!(f, "the input file {} is not there", path.display()),
            StartError::Service(why) | StartError::Out(why) => f.write_str(why),
            StartError::Busy(run) => write!(f, "the job runs already: {run}"),
            StartError::Begun(run) => write!(f, "it was begun before: {run}"),
            StartError::Settled => f.write_str("this time of the job was skipped or missed, which stands"),
            StartError::NotResumable(run) => {
                write!(f, "{run} has ended, or another process works on it: there is nothing to resume")
            }
            StartError::NotEnded(run) => write!(f, "{run} has not ended: there is nothing to repeat yet"),
            StartError::Gone(run) => write!(
                f,
                "what {run} did is not stored any more (`history` of the configuration says how much is): it cannot be \
                 repeated"
            ),
            StartError::Poison(run) => {
                write!(f, "{run} ended the program too often: it is quarantined and not resumed any more")
            }
            StartError::State(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}

/// A run that was started: a future of its [`RunRecord`], which is data and never an error.
///
/// ```
/// # use lamplighter::{action::Handlers, item::RunOutcome, job::Job, run::{RunOptions, Runner}, world::World};
/// # use std::{path::Path, sync::Arc, time::Duration};
/// # let text = r#"Job(stages: [
/// #     Stage(name: "list", run: [Items(list: [1, 2, 3])]),
/// #     Stage(name: "wait", run: [Call(handler: "wait")]),
/// # ])"#;
/// # let handlers = Handlers::new().add("wait", |call: lamplighter::action::Call| async move {
/// #     call.sleep(Duration::from_secs(3600)).await;
/// #     Ok(lamplighter::item::Value::Null)
/// # })?;
/// # let job = Arc::new(Job::from_ron("slow", text, Path::new("."), &handlers)?.job);
/// let executor = Arc::new(async_executor::Executor::new());
/// let runner = Runner::new(World::real(executor.clone()));
/// let run = runner.start(&job, RunOptions::default())?;
///
/// // Drive the executor until an item is worked on, then give up.
/// smol::block_on(executor.run(async {
///     while run.progress().stages[1].working == 0 {
///         smol::future::yield_now().await;
///     }
/// }));
/// run.cancel("an impatient caller");
/// let record = smol::block_on(executor.run(run));
///
/// assert_eq!(record.outcome, RunOutcome::Cancelled);
/// assert_eq!(record.reason.as_deref(), Some("cancelled by an impatient caller"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// After it was awaited to its end no task, process, timer or file descriptor of the run is left. (The one task that waits for
/// the timer of a [`World`] is shared by its runs, and ends at the executor's next turn when nobody sleeps any more.)
///
/// # Cancel safety
/// Dropping it cancels the run, and cuts one short that stops already: its items are settled and its processes ended by the tasks that are left on the executor, which
/// must be driven until they are done. If the executor is dropped too, its tasks go with it and their processes are killed.
///
/// # Panics
/// When it is polled although the executor was dropped before the run's end.
pub struct Run {
    handle: RunHandle,
    story: Option<Task<()>>,
    record: Arc<Mutex<Option<RunRecord>>>,
}

impl Runner {
    /// A runner on the executor of `world`.
    pub fn new(world: World) -> Runner {
        Runner { limits: SharedLimits::new(world.clone()), world }
    }

    /// Starts `job`. Everything runs on the world's executor, from the next time that it is run.
    ///
    /// # Errors
    /// When a secret, a param, a stage or an input that the options or the job name is not there.
    pub fn start(&self, job: &Arc<Job>, options: RunOptions) -> Result<Run, StartError> {
        Ok(self.launch(self.state(job, options, None)?))
    }

    /// Begins a run that is kept: its beginning is on the disk before anything of it runs. Options that try a job out
    /// (`limit`, `key`, `until`, `preview`) are for runs that are not kept: what they leave out would be missed by a resume.
    ///
    /// # Errors
    /// As [`Runner::start`], and when the job runs already, the firing was begun before, or the state cannot be written.
    pub async fn begin(&self, job: &Arc<Job>, mut options: RunOptions, keeping: &Keeping) -> Result<Run, StartError> {
        let id = options.id.get_or_insert_with(|| facts::new_id(self.world.wall(), self.world.random())).clone();
        let kept = Kept::new(&self.world, &keeping.state, &id, &id, None);
        options.store = StoreChoice::Kept(kept.rows.clone());
        let state = self.state(job, options, Some(kept))?;
        pass(Point::ClaimBegins);
        match keeping.state.begin(state.new_run(keeping)).await.map_err(StartError::State)? {
            Begun::Now => {
                pass(Point::Claimed);
                Ok(self.launch(state))
            }
            Begun::Before(head) => Err(StartError::Begun(head.run.to_string())),
            Begun::Busy(head) => Err(StartError::Busy(head.run.to_string())),
            Begun::Settled => Err(StartError::Settled),
        }
    }

    /// Goes on with a run whose process has died or let it go: the same id, due, params and what is left of its time.
    /// `job` is the one that it began with: [`kept_job`]. Of `options` the id, due, params, outputs and store are those of the run.
    ///
    /// # Errors
    /// As [`Runner::start`], and when the run is not there to be resumed or the state cannot be read or written.
    pub async fn resume(
        &self,
        job: &Arc<Job>,
        options: RunOptions,
        state: &State,
        run: &str,
    ) -> Result<Run, StartError> {
        let clocks = Clocks { wall_ms: self.world.wall().as_millisecond(), boot_ms: kept::millis(self.world.boot().0) };
        pass(Point::TakeOverBegins);
        let resume = match state.take_over(run, clocks).await.map_err(StartError::State)? {
            TakenOver::Now(resume) => resume,
            TakenOver::Refused(_) | TakenOver::Unknown => return Err(StartError::NotResumable(run.to_owned())),
        };
        pass(Point::TakenOver);
        if resume.is_poison {
            return Err(self.quarantined(job, options, state, &resume.details).await);
        }
        match self.taken_over(job, options, state, resume) {
            Ok(run) => Ok(self.launch(run)),
            Err(error) => {
                kept::let_go(state, run).await;
                Err(error)
            }
        }
    }

    /// Ends a run that was taken over and crashed the program too often; why it does not go on.
    async fn quarantined(&self, job: &Arc<Job>, options: RunOptions, state: &State, of: &RunDetails) -> StartError {
        let run = &*of.head.run;
        let ended = async {
            let places = kept::quarantine(&self.world, state, job, of).await?;
            Ok(state.details(run).await?.filter(|_| !places.is_empty()).map(|details| (details, places)))
        };
        match ended.await {
            Ok(Some((details, places))) => {
                if let Err(error) = self.send_notices(job, options, state, &details, &places).await {
                    // They stay in the outbox.
                    log::error!(target: "lamplighter::run", run; "the notices of the run cannot be sent now: {error}");
                }
            }
            Ok(None) => {}
            Err(error) => {
                kept::let_go(state, run).await;
                return StartError::State(error);
            }
        }
        StartError::Poison(run.to_owned())
    }

    /// The state of a run that goes on with what earlier passes left.
    fn taken_over(
        &self,
        job: &Arc<Job>,
        mut options: RunOptions,
        state: &State,
        resume: Box<Resume>,
    ) -> Result<RunState, StartError> {
        let head = &resume.details.head;
        let id = head.run.to_string();
        kept::as_before(&mut options, &resume.details);
        options.deadline = kept::left(&resume, self.world.wall());
        let chain = head.chain_first.to_string();
        let chain = if planted(Bug::KeyOfThePass) { format!("{chain}-{}", head.pass) } else { chain };
        let kept = Kept::new(&self.world, state, &id, &chain, Some(resume));
        options.store = StoreChoice::Kept(kept.rows.clone());
        options.id = Some(id);
        self.state(job, options, Some(kept))
    }

    fn launch(&self, state: RunState) -> Run {
        let state = Arc::new(state);
        let record = Arc::new(Mutex::new(None));
        let (story, place) = (state.clone(), record.clone());
        let story = self.world.spawn(async move {
            let record = story.tell().await;
            *lock(&place) = Some(record);
        });
        Run { handle: RunHandle::new(state), story: Some(story), record }
    }

    fn state(&self, job: &Arc<Job>, mut options: RunOptions, kept: Option<Kept>) -> Result<RunState, StartError> {
        let world = self.world.fork();
        let started = world.boot();
        let resumed = kept.as_ref().and_then(|kept| kept.resume.as_ref());
        let first = resumed.and_then(|resume| jiff::Timestamp::from_millisecond(resume.details.head.started_ms).ok());
        let wall = first.unwrap_or_else(|| world.wall());
        let due = options.due.unwrap_or(wall);
        for name in &job.secrets {
            if !options.secrets.contains_key(name) {
                return Err(StartError::NoSecret(name.clone()));
            }
        }
        for path in &job.inputs {
            if !path.exists() {
                return Err(StartError::NoInput(path.clone()));
            }
        }
        // The nearest folder that is there, must be one: the others are made when something is written.
        if let Some(path) = options.out.ancestors().find(|path| path.exists()).filter(|path| !path.is_dir()) {
            let path = path.display();
            return Err(StartError::Out(format!("outputs cannot be written below {path}: it is a file, no folder")));
        }
        let params = merged_params(&job.params, &options.params)?;
        let until = match &options.until {
            None => None,
            Some(name) => Some(job.stage_place(name).ok_or_else(|| StartError::NoStage(name.clone()))?),
        };
        let id = options.id.clone().unwrap_or_else(|| facts::new_id(wall, world.random()));
        let run = facts::RunIdentity {
            id: &id,
            job: &job.name,
            due,
            started: wall,
            zone: &job.zone,
            out: &options.out,
            jobs: &options.jobs,
            attempt: kept.as_ref().map_or(1, Kept::pass),
            after: options.after.as_ref(),
        };
        let facts = Arc::new(RunFacts { params, run: run.facts(), secrets: std::mem::take(&mut options.secrets) });
        let mut services = BTreeMap::new();
        for plan in &job.services {
            let service =
                plan.start(&world, &facts, &self.limits).map_err(|failure| StartError::Service(failure.message))?;
            services.insert(plan.name.clone(), Arc::new(service));
        }
        let rows = rows::Rows::new(options.store.clone());
        let context = Arc::new(RunContext {
            journal: Journal::new(world.clone(), &id, &job.name, kept.is_some()).heard_by(options.listener.clone()),
            outputs: Outputs::new(world.clone(), options.out.clone(), &id),
            leftovers: Leftovers::new(world.clone(), options.grace, &id),
            chain: kept.as_ref().map_or_else(|| id.clone(), |kept| kept.chain.clone()),
            id,
            job: job.name.to_string(),
            facts: facts.clone(),
            deadline: Some(started + options.deadline.unwrap_or(job.deadline)),
            grace: options.grace,
            zone: job.zone.clone(),
            base_dir: job.base_dir.clone(),
            services,
            instance: options.instance.clone(),
            environment: options.environment.clone(),
            temporary: options.out.clone(),
            world: world.clone(),
        });
        let dry = options.preview.clone().map(|preview| chain::DryRun::new(preview, job.stages.len()));
        let places = 0..job.stages.len() as u16;
        let feeds = until.map(|until| (until, job.ancestors(until)));
        let wanted = places.map(|at| feeds.as_ref().is_none_or(|(until, above)| at == *until || above.contains(&at)));
        let wanted: Vec<bool> = wanted.collect();
        Ok(RunState {
            stages: (0..job.stages.len())
                .map(|at| Arc::new(StageState::new(at as u16, job, &wanted, kept.is_some())))
                .collect(),
            job: job.clone(),
            context,
            facts,
            options,
            cancel: Latch::new(),
            killed: Latch::new(),
            stop: Latch::new(),
            stop_cut: Latch::new(),
            settled: AtomicBool::new(false),
            deadline_passed: AtomicBool::new(false),
            broken: Mutex::default(),
            failures: Mutex::default(),
            store: rows,
            changed: Event::new(),
            group: Group::new(world),
            started,
            started_wall: wall,
            frozen: Mutex::default(),
            dry,
            until,
            wanted,
            unanswered: AtomicBool::new(false),
            kept,
            due,
        })
    }
}

/// The defaults with the given ones in their place.
fn merged_params(defaults: &Value, given: &BTreeMap<String, Value>) -> Result<Value, StartError> {
    let mut params = defaults.as_object().cloned().unwrap_or_default();
    for (name, value) in given {
        let place = params.get_mut(name).ok_or_else(|| StartError::NoParam(name.clone()))?;
        *place = value.clone();
    }
    Ok(Value::Object(params))
}

/// What a store says that does not answer.
fn silent<T>() -> Result<T, StoreError> {
    Err(StoreError::Io("it does not answer".into()))
}

impl RunState {
    /// From the first stage to the last notice, with its log beside it.
    async fn tell(self: Arc<RunState>) -> RunRecord {
        let story = async {
            let record = self.clone().work().or(self.watch_stop()).await;
            self.context.journal.close();
            record
        };
        let Some(kept) = &self.kept else { return story.await };
        future::zip(story, self.context.journal.pump(&kept.rows)).await.0
    }

    async fn work(self: Arc<RunState>) -> RunRecord {
        self.say_begun();
        self.say_unkept();
        let pings = Group::new(self.world().clone());
        if self.dry.is_none() && self.options.pings && !self.job.start_ping.is_empty() {
            pings.spawn(finish::ping_start(self.clone()));
        }
        self.clear_up().await;
        let stopped = async {
            self.stop_cut.wait().await;
            // What was not looked up is not known to be done.
            (0..self.stages.len() as u16).for_each(|place| self.leave(place));
        };
        let opening = async {
            if let Err(error) = self.restore().await {
                self.store_failed(&error);
            }
            pass(Point::Restored);
            self.open_for_outputs().await;
        };
        // A disk that hangs holds up the opening: the deadline, and the end of a stop, hold all the same. A run that goes on after
        // its deadline opens first: what was done is counted.
        let opened = self.world().boot() + LEFTOVER_UNKILLABLE_AFTER;
        let latest = self.context.deadline.map_or(opened, |deadline| deadline.max(opened));
        let late = async {
            self.world().until(Due::Boot(latest)).await;
            if self.kept.as_ref().is_some_and(|kept| kept.resume.is_some()) {
                self.store_failed(&StoreError::Io("it does not answer".into()));
            }
        };
        opening.or(late).or(stopped).await;
        self.run_stages().await;
        self.context.leftovers.join().await;
        self.settle_left().await;
        let mut record = self.record().await;
        self.note_dated().await;
        if planted(Bug::ToldEarly) {
            finish::notify(&self, &Told::of(&record), &self.notices_after(record.outcome)).await;
        }
        pass(Point::SettleBegins);
        let kept = match record.outcome {
            RunOutcome::Interrupted => self.release().await,
            _ => self.keep_end(&record).await,
        };
        if let Err(error) = kept {
            record.unsaved = Some(error.to_string());
        }
        pass(Point::Settled);
        self.say_ended(&record);
        self.settled.store(true, Ordering::Release);
        // Where its end is not on the disk it is resumed, and may end otherwise (RUNS D5).
        if record.unsaved.is_none() {
            finish::end_start_ping(&self, &pings).await;
            finish::notify(&self, &Told::of(&record), &self.notices_after(record.outcome)).await;
            self.context.leftovers.join().await;
            self.remove_dated(record.outcome).await;
        }
        self.answered(self.store.end()).await;
        self.let_go().await;
        record
    }

    /// What the dead process of a run that goes on has left is gone before anything runs again.
    async fn clear_up(&self) {
        if self.kept.as_ref().is_none_or(|kept| kept.resume.is_none() || kept.is_copy()) {
            return;
        }
        self.context.leftovers.expect_strangers();
        self.context.leftovers.join().await;
        pass(Point::StrangersEnded);
        // What is half written costs room and nothing else: who is in a hurry does not wait long for it.
        let latest = self.world().boot() + LEFTOVER_UNKILLABLE_AFTER;
        let latest = self.context.deadline.map_or(latest, |deadline| deadline.max(latest));
        let hurried = async {
            self.takes_no_more().await;
            self.world().sleep(LEFTOVER_UNKILLABLE_AFTER).await;
        };
        let killed = async {
            self.killed.wait().await;
        };
        let swept = self.context.outputs.sweep();
        swept.or(self.world().until(Due::Boot(latest))).or(hurried).or(killed).await;
        pass(Point::Swept);
    }

    /// Tasks that were cut and blocking work that nobody waited for any more end before the run does: what they opened is
    /// closed and what was temporary is gone. Only the kernel can keep them longer.
    async fn let_go(&self) {
        let patience = async {
            // Who has waited in vain once does not wait so long again.
            let again = if self.unanswered.load(Ordering::Acquire) { 5 } else { 1 };
            self.world().sleep(LEFTOVER_UNKILLABLE_AFTER / again).await;
            log::warn!(
                target: "lamplighter::run", run = self.context.id.as_str();
                "a file or a name look-up hangs inside the kernel: it is not waited for, and what it has open stays open"
            );
        };
        self.world().idle().or(patience).await;
    }

    fn say_begun(&self) {
        let head = self.kept.as_ref().and_then(|kept| kept.resume.as_ref()).map(|resume| &resume.details.head);
        let is_copy = self.kept.as_ref().is_some_and(Kept::is_copy);
        let mut fields: Vec<(&str, &dyn fmt::Display)> = vec![("job", &self.context.job)];
        let mut text = "run started";
        match head {
            Some(RunHead { parent: Some(parent), .. }) if is_copy => fields.push(("repeats", parent)),
            Some(head) => {
                text = "run resumed";
                fields.push(("pass", &head.pass));
            }
            None => {}
        }
        self.context.journal.write(&Line::of_run(Level::Info, text).with(&fields));
    }

    fn say_ended(&self, record: &RunRecord) {
        let how = if record.outcome == RunOutcome::Interrupted { "let go" } else { "ended" };
        let text = format!("run {how}{}", record.reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default());
        let line = Line::of_run(Level::Info, &text);
        self.context.journal.write(&line.with(&[("job", &record.job), ("outcome", &record.outcome)]));
    }

    /// Where many items write files, who owns which path is kept in the store (RUNS K6, S4).
    async fn open_for_outputs(&self) {
        // A run that is kept remembers all its files: a later pass, and who forgets an item, must know of them.
        let many = |stage: &Stage| self.kept.is_some() || !matches!(stage.kind, StageKind::GatherAll);
        let writes = |stage: &Stage| many(stage) && stage.actions.iter().any(|action| action.writes);
        if self.dry.is_none() && self.job.stages.iter().any(writes) {
            match self.rows().await {
                Ok(rows) => self.context.outputs.keep_in(rows),
                Err(error) => self.store_failed(&error),
            }
        }
    }

    /// Starts every stage that is wanted and waits for all, while the watches of the deadlines stand beside them.
    async fn run_stages(self: &Arc<RunState>) {
        let stages = Group::new(self.world().clone());
        for place in 0..self.stages.len() as u16 {
            if !self.is_wanted(place) {
                self.stage(place).ended.settle(self.ran());
                continue;
            }
            if self.plan(place).deadline.is_some() {
                deadline::close_what_is_late(self, place);
                self.group.spawn(deadline::watch_stage(self.clone(), place));
            }
            stages.spawn(self.clone().run_stage(place));
        }
        let joined = async {
            if let Err(panic) = stages.join().await {
                self.note_broken(format!("lost: a stage panicked: {panic}"));
            }
        };
        joined.or(deadline::watch_run(self.clone())).or(self.watch_cut()).await;
        if self.context.deadline.is_some_and(|deadline| self.world().boot() > deadline) {
            // Work that does not yield may keep the watch from looking at its clock.
            self.deadline_passed.store(true, Ordering::Release);
        }
        self.group.cancel().await;
        if self.unanswered.load(Ordering::Acquire) {
            // What was cut settles its items as it goes; then what is left in the channels is settled too.
            self.let_go().await;
            for place in (0..self.stages.len() as u16).filter(|at| !self.stage(*at).has_ended()) {
                self.leave(place);
                worker::end_stage(self, place);
            }
        }
    }

    /// Ends when the run was cancelled, or cut by a stop, and its stages did not end soon after: what they wait for does not come. That is how a
    /// stall ends, at the run's deadline if not before.
    async fn watch_cut(&self) {
        let stopped = async {
            self.stop_cut.wait().await;
        };
        let cancelled = async {
            self.cancel.wait().await;
        };
        cancelled.or(stopped).await;
        self.world().sleep(LEFTOVER_UNKILLABLE_AFTER).await;
        let running = self.stages.iter().find(|stage| !stage.has_ended());
        log::error!(
            target: "lamplighter::run",
            run = self.context.id.as_str(), stage = running.map_or("", |stage| &*stage.name);
            "stage does not end though the run was cut: its store does not answer, or this is a defect of \
             Lamplighter; it is cut"
        );
        self.unanswered.store(true, Ordering::Release);
    }

    /// What the store answers, or nothing when it has not answered for too long, now or before.
    async fn answered<T>(&self, question: impl Future<Output = T>) -> Option<T> {
        match self.unanswered.load(Ordering::Acquire) {
            true => None,
            false => self.answered_or(self.takes_no_more(), question).await,
        }
    }

    /// The same of what is to be on the disk, which is tried however silent the store was before. Only a stop, or who waits no
    /// more, hurries it: a card may take its time over the end of a run that was cancelled.
    async fn kept_in_time<T>(&self, question: impl Future<Output = T>) -> Option<T> {
        let killed = async {
            self.killed.wait().await;
        };
        let stopped = async {
            self.stop.wait().await;
        };
        self.answered_or(killed.or(stopped), question).await
    }

    async fn answered_or<T>(&self, hurry: impl Future<Output = ()>, question: impl Future<Output = T>) -> Option<T> {
        let patience = async {
            // Who has waited in vain once does not wait so long again.
            if self.unanswered.load(Ordering::Acquire) {
                self.world().sleep(LEFTOVER_UNKILLABLE_AFTER / 5).await;
            } else {
                let hurried = async {
                    hurry.await;
                    self.world().sleep(LEFTOVER_UNKILLABLE_AFTER).await;
                };
                self.world().sleep(ON_FINISH_TIMEOUT).or(hurried).await;
                self.unanswered.store(true, Ordering::Release);
            }
            log::error!(target: "lamplighter::run", run = self.context.id.as_str(); "the store of the run does not answer");
            None
        };
        async { Some(question.await) }.or(patience).await
    }

    /// One stage, whatever its kind. If it panics, which is a defect, the run ends by name and nobody waits for it.
    async fn run_stage(self: Arc<RunState>, place: u16) {
        let run = self.clone();
        let stage: BoxFuture<'static, ()> = match self.plan(place).kind {
            StageKind::Source => Box::pin(source::run_source(run, place)),
            StageKind::Worker => Box::pin(worker::run_stage(run, place)),
            StageKind::GatherAll | StageKind::GatherBy(_) => Box::pin(gather::run_gather(run, place)),
        };
        if let Err(panic) = AssertUnwindSafe(stage).catch_unwind().await {
            self.died(&format!("stage `{}`", self.stage(place).name), &panic_text(panic));
            if !self.stage(place).has_ended() {
                worker::end_stage(&self, place);
            }
        }
    }

    async fn record(&self) -> RunRecord {
        let shown = |place: &u16| !self.plan(*place).hidden && self.is_wanted(*place);
        let failures: Vec<FailureRecord> = {
            let failures = lock(&self.failures);
            let shown = failures.iter().filter(|((place, _), _): &(&(u16, Lineage), _)| !self.plan(*place).hidden);
            shown.map(|(_, failure)| failure.clone()).collect()
        };
        let stored = self.answered(self.context.outputs.stored(SUMMARY_LIST_MAX)).await;
        let (outputs, outputs_total) = match stored.unwrap_or_else(silent) {
            Ok(outputs) => outputs,
            Err(error) => {
                self.note_broken(error.to_string());
                self.context.outputs.written(SUMMARY_LIST_MAX)
            }
        };
        let (outcome, reason) = outcome::decide(self);
        RunRecord {
            run: self.context.id.clone(),
            job: self.context.job.clone(),
            outcome,
            reason,
            started: rfc3339(self.started_wall, &self.job.zone),
            ended: rfc3339(self.world().wall(), &self.job.zone),
            stages: (0..self.stages.len() as u16)
                .filter(shown)
                .map(|at| StageRecord { name: self.stage(at).name.to_string(), counts: self.stage(at).snapshot() })
                .collect(),
            failures,
            outputs,
            outputs_total,
            leaked: self.context.leftovers.leaked(),
            unsaved: None,
        }
    }
}

impl Run {
    /// Steers it from elsewhere than where it is awaited.
    pub fn handle(&self) -> RunHandle {
        self.handle.clone()
    }

    /// See [`RunHandle::id`].
    pub fn id(&self) -> &str {
        self.handle.id()
    }

    /// See [`RunHandle::out`].
    pub fn out(&self) -> &Path {
        self.handle.out()
    }

    /// See [`RunHandle::progress`].
    pub fn progress(&self) -> Progress {
        self.handle.progress()
    }

    /// See [`RunHandle::cancel`].
    pub fn cancel(&self, by: &str) {
        self.handle.cancel(by);
    }

    /// See [`RunHandle::is_killed`].
    pub fn is_killed(&self) -> bool {
        self.handle.is_killed()
    }

    /// See [`RunHandle::kill`].
    pub fn kill(&self, by: &str) {
        self.handle.kill(by);
    }

    /// See [`RunHandle::stop`].
    pub fn stop(&self) {
        self.handle.stop();
    }
}

impl Future for Run {
    type Output = RunRecord;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<RunRecord> {
        let run = self.get_mut();
        let Some(story) = &mut run.story else { return Poll::Pending };
        match story.poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => {
                run.story = None;
                let record = lock(&run.record).take().expect("the story of a run ends with its record");
                Poll::Ready(record)
            }
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if let Some(story) = self.story.take() {
            self.handle.dropped();
            story.detach();
        }
    }
}
