//! `lamplighter run`: a job now, in the foreground.

use super::{
    Format, Global, backfill,
    cgroup::Cgroup,
    exit::Exit,
    logging,
    progress::Picture,
    runtime::{self, Signals, first},
    screen::{self, complain, print, say},
    settings::{Settings, is_file},
    state::{Desk, Opened},
    talk, upkeep,
};
use async_executor::Executor;
use lamplighter::{
    api::Request,
    daemon::RunWish,
    item::{RunRecord, Value},
    job::Job,
    report::{self, Look},
    run::{Keeping, Run, RunOptions, Runner, StartError, give_up, kept_job},
    store::{RunDetails, RunKind, State, StoreError},
    units::Span,
    world::World,
};
use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// Arguments of `run`.
#[derive(clap::Args)]
pub struct RunArguments {
    /// Name of a job in the job folder, or a file
    #[arg(value_name = "JOB|FILE")]
    job: String,
    /// Replace a param: texts as they are, everything else as JSON
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Replace the job's deadline
    #[arg(long, value_name = "DURATION")]
    deadline: Option<Span>,
    /// Run as if due then: 2026-11-23, 2026-11-23T02:30 in the job's zone, or with an offset. A..B: every firing of its schedule
    /// from A to B, a day with all of it, oldest first, but those that have succeeded
    #[arg(long, value_name = "TIME|A..B")]
    due: Option<String>,
    /// With --due A..B: those that have succeeded too
    #[arg(long, requires = "due")]
    pub again: bool,
    /// List and compute, but print every other action instead of running it
    #[arg(long)]
    dry_run: bool,
    /// List at most so many items
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Only the item with this key
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Stop after this stage, and print what it gave as NDJSON
    #[arg(long, value_name = "STAGE")]
    until: Option<String>,
    /// Go on with the last run of the job that did not come to its end
    #[arg(long, conflicts_with_all = ["set", "due", "deadline", "dry_run", "limit", "key", "until", "no_state"])]
    resume: bool,
    /// Have the `serve` that holds the state run it, and print its id at once
    #[arg(long, conflicts_with_all = ["dry_run", "limit", "key", "until", "no_state", "resume"])]
    detach: bool,
    /// Keep nothing of the run: no history, no resume. So it is with --dry-run, --limit, --key and --until
    #[arg(long)]
    no_state: bool,
    /// Set a state that cannot be used aside, and begin a new one
    #[arg(long)]
    accept_new_state: bool,
    /// How the summary is printed
    #[arg(long, value_enum, default_value = "human")]
    pub format: Format,
}

impl RunArguments {
    /// A run that leaves things out is a trial: a resume would miss them, and nobody wants it in the history.
    pub fn is_kept(&self) -> bool {
        !(self.no_state || self.is_trial())
    }

    fn is_trial(&self) -> bool {
        self.dry_run || self.limit.is_some() || self.key.is_some() || self.until.is_some()
    }

    /// A state that cannot be used is set aside.
    pub fn accepts_new_state(&self) -> bool {
        self.accept_new_state
    }

    /// Where `--due` names two times, both.
    fn span(&self) -> Option<(&str, &str)> {
        self.due.as_deref().and_then(|due| due.split_once(".."))
    }

    /// The job by its name, not a file: what a `serve` that holds the state runs.
    fn is_handed_over(&self) -> bool {
        self.is_kept() && !self.resume && !is_file(&self.job)
    }

    /// What a `serve` is asked for.
    fn wish(&self) -> Result<RunWish, Exit> {
        Ok(RunWish {
            job: self.job.clone(),
            set: self.set.iter().map(|set| key_and_value(set)).collect::<Result<_, _>>()?,
            deadline_ms: self.deadline.map(|span| u64::try_from(span.get().as_millis()).unwrap_or(u64::MAX)),
            due: self.due.clone(),
            trigger: "manual".to_owned(),
            ..RunWish::default()
        })
    }
}

/// Runs the command.
pub fn main(global: &Global, arguments: &RunArguments) -> Exit {
    if let Some((from, to)) = arguments.span() {
        if arguments.detach {
            return usage("`--detach` leaves one run to `serve`: `--due A..B` are several, which run here".to_owned());
        }
        return backfill::main(global, arguments, from, to);
    }
    if arguments.again {
        return usage("`--again` goes with `--due A..B`: one due time alone is always run".to_owned());
    }
    match handed_over(global, arguments) {
        Ok(None) => {}
        Ok(Some(exit)) | Err(exit) => return exit,
    }
    let (settings, job, options) = match prepare(global, arguments) {
        Ok(prepared) => prepared,
        Err(exit) => return exit,
    };
    if let Err(error) = runtime::has_means() {
        complain(&format!("{error}: nothing was done"));
        return Exit::Io;
    }
    let executor = Arc::new(Executor::new());
    let threads = settings.threads();
    let story = night(executor.clone(), settings, &job, options, arguments);
    let end = runtime::block_on(&executor, threads, story);
    match end {
        Ok(end) => {
            if let Some(key) = &arguments.key
                && end.record.stages.iter().all(|stage| stage.counts.items == 0)
            {
                complain(&format!("no item has the key `{key}`"));
            }
            end.exit().after(show(&end.record, &end.out, arguments.format, Trial::of(arguments)))
        }
        Err(exit) => exit,
    }
}

/// Has the `serve` that holds the state run it; `None` when none does, or the run is not for it.
fn handed_over(global: &Global, arguments: &RunArguments) -> Result<Option<Exit>, Exit> {
    let settings = Settings::read(global)?;
    let daemon = match arguments.is_handed_over() {
        true => talk::daemon(&settings)?,
        false => None,
    };
    let Some(daemon) = daemon else {
        if arguments.detach {
            let why = if is_file(&arguments.job) { "a file is run here" } else { "no `serve` holds the state" };
            complain(&format!("`--detach` leaves a run to `serve`, and {why}: nothing was done"));
            return Err(Exit::Refused);
        }
        return Ok(None);
    };
    if arguments.accept_new_state {
        complain("a `serve` holds the state, which can be used: nothing was done");
        return Err(Exit::Refused);
    }
    let (wish, named) = (arguments.wish()?, settings.named());
    let request = Request::Run { wish, follow: talk::follow(arguments.detach), named };
    Ok(Some(talk::hand_over(&daemon, &request, arguments.format)))
}

fn key_and_value(set: &str) -> Result<(String, String), Exit> {
    set.split_once('=').map(|(name, text)| (name.to_owned(), text.to_owned())).ok_or_else(|| {
        complain(&format!("--set takes KEY=VALUE, not {set:?}"));
        Exit::Usage
    })
}

/// The run, kept in the state unless it is a trial.
async fn night(
    executor: Arc<Executor<'static>>,
    settings: Settings,
    job: &Arc<Job>,
    options: RunOptions,
    arguments: &RunArguments,
) -> Result<End, Exit> {
    if !arguments.is_kept() {
        return follow(executor, job, options, Start::Unkept, &mut Signals::take()?).await;
    }
    let world = World::real(executor.clone());
    let opened = Opened::open(&settings, &world, arguments.accept_new_state)?;
    let desk = Desk { settings, executor, world, state: opened.state.clone() };
    let end = async { kept(&desk, job, options, arguments, &mut Signals::take()?).await }.await;
    if end.is_ok() {
        upkeep::retain(&desk).await;
    }
    opened.close().await;
    end
}

/// A run that is kept, once what stands in its way is settled.
pub async fn kept(
    desk: &Desk,
    job: &Arc<Job>,
    options: RunOptions,
    arguments: &RunArguments,
    signals: &mut Signals,
) -> Result<End, Exit> {
    let (job, options, start) = signals.end(settled(desk, job, options, arguments)).await?;
    follow(desk.executor.clone(), &job, options, start, signals).await
}

/// How a run of the job starts now that what stands in its way is settled.
async fn settled(
    desk: &Desk,
    job: &Arc<Job>,
    mut options: RunOptions,
    arguments: &RunArguments,
) -> Result<(Arc<Job>, RunOptions, Start), Exit> {
    let state = &desk.state;
    options.instance = state.instance().await.map_err(lost)?;
    let unfinished = state.unfinished(Some(&job.name)).await.map_err(lost)?;
    let working: Vec<_> = unfinished.iter().filter(|head| head.alive).collect();
    if working.len() >= job.runs_at_once() as usize {
        complain(&format!("the job runs already: {}: nothing was done", working[0].run));
        return Err(Exit::Refused);
    }
    let mut left = unfinished.into_iter().filter(|head| !head.alive && head.kind == RunKind::Foreground).rev();
    if arguments.resume {
        if let Some(head) = left.next() {
            upkeep::send_notices(desk, &job.name, &options.instance).await?;
            let Some(details) = state.details(&head.run).await.map_err(lost)? else {
                complain(&format!("{} is not kept any more: nothing was done", head.run));
                return Err(Exit::Refused);
            };
            let start = Start::Resumed(state.clone(), head.run.to_string());
            let (job, resumed) = job_of(&desk.settings, &details)?;
            return Ok((job, RunOptions { instance: options.instance, ..resumed }, start));
        }
        if talk::daemon(&desk.settings)?.is_some() {
            complain(&format!(
                "there is no run of `{0}` to go on with here: `serve` goes on with its own by itself, `run {0}` begins a new one",
                job.name
            ));
            return Err(Exit::Refused);
        }
        complain(&format!("there is no run of `{}` to go on with: a new one begins", job.name));
    }
    for head in left {
        // Nobody asked to go on with it, and its place is wanted.
        if give_up(&desk.world, state, &head, &desk.settings.surroundings()).await.map_err(lost)? {
            let times = format!("{} did not come to its end and is settled as interrupted", head.run);
            complain(&format!("{times} (`run {} --resume` would have gone on with it)", job.name));
        }
    }
    // Those that dead processes did not send, and those of the runs that were just settled.
    upkeep::send_notices(desk, &job.name, &options.instance).await?;
    // Looked at above; where only one may run nobody comes between.
    let keeping = keeping(state, "manual", job);
    Ok((job.clone(), options, Start::Kept(keeping)))
}

/// How a run of a foreground command is kept: beside others of the job as the job says.
pub fn keeping(state: &State, trigger: &str, job: &Job) -> Keeping {
    let alone = job.runs_at_once() == 1;
    Keeping { state: state.clone(), trigger: trigger.to_owned(), fire_key: None, kind: RunKind::Foreground, alone }
}

/// The job that a run began with, and options for it.
pub fn job_of(settings: &Settings, details: &RunDetails) -> Result<(Arc<Job>, RunOptions), Exit> {
    let job = kept_job(details, &settings.surroundings()).map_err(|problems| {
        say(&problems.render(screen::ink(&std::io::stderr()).colour));
        complain(&format!("{} cannot go on: its job is not understood any more", details.head.run));
        Exit::Usage
    })?;
    let job = Arc::new(job.job);
    let options = settings.run_options(&job).map_err(usage)?;
    Ok((job, options))
}

/// The state failed: nothing more can be promised.
pub fn lost(error: StoreError) -> Exit {
    complain(&error.to_string());
    Exit::Io
}

/// What the arguments say; of two due times none.
pub fn prepare(global: &Global, arguments: &RunArguments) -> Result<(Settings, Arc<Job>, RunOptions), Exit> {
    let settings = Settings::read(global)?;
    let job = Arc::new(settings.job(&arguments.job)?.job);
    let mut options = settings.run_options(&job).map_err(usage)?;
    for set in &arguments.set {
        let (name, text) = key_and_value(set)?;
        let value = job.param(&name, &text).map_err(usage)?;
        options.params.insert(name, value);
    }
    options.deadline = arguments.deadline.map(Span::get);
    if arguments.span().is_none() {
        let due = arguments.due.as_deref().map(|text| job.due(text)).transpose().map_err(usage)?;
        options.due = due.map(|(due, _)| due);
    }
    (options.removes_old, options.pings) = (!arguments.is_trial(), !arguments.is_trial());
    options.limit = arguments.limit;
    options.key = arguments.key.clone();
    options.until = arguments.until.clone();
    if arguments.dry_run {
        // With JSON nothing else stands on stdout.
        options.preview = Some(match arguments.format {
            Format::Human => Arc::new(|line| drop(screen::write_out(&format!("{line}\n")))),
            Format::Json => Arc::new(say),
        });
    }
    Ok((settings, job, options))
}

/// What was asked cannot be done as it was asked.
pub fn usage(why: String) -> Exit {
    complain(&why);
    Exit::Usage
}

/// How a foreground run ended.
pub struct End {
    pub record: RunRecord,
    /// Root of its outputs.
    pub out: PathBuf,
    signal: Option<u8>,
    /// What the `--until` stage gave was printed.
    printed: Result<(), Exit>,
}

impl End {
    /// Of a run that `serve` had.
    pub fn of_daemon(record: RunRecord, out: PathBuf, signal: Option<u8>) -> End {
        End { record, out, signal, printed: Ok(()) }
    }

    /// A signal cancelled it.
    pub fn is_signalled(&self) -> bool {
        self.signal.is_some()
    }

    /// Its exit code.
    pub fn exit(&self) -> Exit {
        if let Some(why) = &self.record.unsaved {
            complain(&format!(
                "how the run ended is not on the disk: {why}. `run {} --resume` goes on with it",
                self.record.job
            ));
            return Exit::Io;
        }
        Exit::of(self.record.outcome, self.signal).after(self.printed)
    }
}

/// How a foreground run starts.
pub enum Start {
    /// Nothing of it is kept.
    Unkept,
    /// It is kept from its beginning.
    Kept(Keeping),
    /// A run that did not come to its end goes on.
    Resumed(State, String),
    /// A run that has ended is repeated, held items too or not.
    Retried(Keeping, Box<RunDetails>, bool),
}

/// Starts the job and follows it: progress on a terminal, log lines without one, signals cancel and then kill.
pub async fn follow(
    executor: Arc<Executor<'static>>,
    job: &Arc<Job>,
    mut options: RunOptions,
    start: Start,
    signals: &mut Signals,
) -> Result<End, Exit> {
    // What is printed line by line would land in the picture when both go to the terminal.
    let lines = options.until.is_some() || options.preview.is_some();
    let live = std::io::stderr().is_terminal() && !(lines && std::io::stdout().is_terminal());
    logging::install(live, job.stages.iter().filter(|stage| !stage.hidden).count());
    let world = World::real(executor.clone());
    let tap = options.until.is_some().then(Tap::open).transpose()?;
    let (sender, mut tap) = tap.unzip();
    options.tap = sender;
    // Orphans of our children come to us, so that a run can end them: see docs/DESIGN.md, "Why is no process left".
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    // From here on children are born in it.
    let cgroup = Cgroup::enter();
    let runner = Runner::new(world.clone());
    let started = match &start {
        Start::Unkept => runner.start(job, options),
        Start::Kept(keeping) => runner.begin(job, options, keeping).await,
        Start::Resumed(state, run) => runner.resume(job, options, state, run).await,
        Start::Retried(keeping, parent, held) => runner.retry(job, options, keeping, parent, *held).await,
    };
    let mut run = started.map_err(|error| {
        complain(&format!("{error}: nothing was done"));
        match error {
            StartError::Busy(_)
            | StartError::Begun(_)
            | StartError::Settled
            | StartError::NotResumable(_)
            | StartError::NotEnded(_)
            | StartError::Gone(_) => Exit::Refused,
            StartError::Poison(_) => Exit::Failed,
            StartError::State(_) => Exit::Io,
            _ => Exit::Usage,
        }
    })?;
    let out = run.out().to_owned();
    let mut picture = live.then(Picture::new);
    let mut signal = None;
    let mut record = loop {
        match next(&world, &mut run, signals, &mut tap, picture.is_some()).await {
            Next::Ended(record) => break *record,
            Next::Tick => {}
            Next::Signal(number) => obey(&run, number, &mut signal),
            Next::NoReader => run.cancel("stdout, which takes no more"),
        }
        if let Some(picture) = &mut picture {
            picture.draw(&job.name, &run.progress());
        }
    };
    drop(run);
    if let Some(cgroup) = cgroup {
        record.leaked += cgroup.end(&world).await;
    }
    let mut printed = Ok(());
    if let Some(tap) = tap.filter(|_| signal.is_none()) {
        // What was given is printed; a signal ends the wait for a reader that does not read.
        let signalled = async {
            signals.next().await;
            Ok(())
        };
        printed = first(tap.printed(), signalled).await;
    }
    Ok(End { record, out, signal, printed })
}

enum Next {
    Ended(Box<RunRecord>),
    Signal(u8),
    NoReader,
    Tick,
}

/// How often the picture is drawn.
const TICK: Duration = Duration::from_millis(100);

async fn next(world: &World, run: &mut Run, signals: &mut Signals, tap: &mut Option<Tap>, ticks: bool) -> Next {
    let ended = async { Next::Ended(Box::new(run.await)) };
    let signal = async { Next::Signal(signals.next().await) };
    let gone = async {
        match tap {
            Some(tap) => tap.broken().await,
            None => std::future::pending().await,
        }
        Next::NoReader
    };
    let tick = async {
        if !ticks {
            std::future::pending::<()>().await;
        }
        world.sleep(TICK).await;
        Next::Tick
    };
    first(ended, first(signal, first(gone, tick))).await
}

/// The values of the `--until` stage on their way to stdout, on a thread of their own: a reader that takes its time slows
/// the run and holds up nothing else.
struct Tap {
    /// Says once that stdout takes no more, `Err` when that is a failure; closed when all is printed.
    ended: async_channel::Receiver<Result<(), Exit>>,
    end: Option<Result<(), Exit>>,
}

/// Values that may wait for the reader of stdout.
const TAP: usize = 64;

impl Tap {
    fn open() -> Result<(async_channel::Sender<Value>, Tap), Exit> {
        let (sender, values) = async_channel::bounded::<Value>(TAP);
        let (end, ended) = async_channel::bounded(1);
        let lines = move || {
            while let Ok(value) = values.recv_blocking() {
                if let Err(error) = screen::write_out(&format!("{value}\n")) {
                    let _ = end.try_send(screen::judge(&error));
                    return;
                }
            }
        };
        match std::thread::Builder::new().name("lamplighter-out".into()).spawn(lines) {
            Ok(_) => Ok((sender, Tap { ended, end: None })),
            Err(error) => {
                complain(&format!("no thread could be started: {error}"));
                Err(Exit::Io)
            }
        }
    }

    /// Ready, once, when stdout takes no more.
    async fn broken(&mut self) {
        match self.ended.recv().await {
            Ok(end) if self.end.is_none() => self.end = Some(end),
            _ => std::future::pending().await,
        }
    }

    /// Waits until all is printed that will be.
    async fn printed(self) -> Result<(), Exit> {
        match self.end {
            Some(end) => end,
            None => self.ended.recv().await.unwrap_or(Ok(())),
        }
    }
}

/// The first signal cancels, the second kills, the third ends this program.
fn obey(run: &Run, number: u8, first: &mut Option<u8>) {
    let name = talk::signal_name(number);
    match first {
        None => {
            *first = Some(number);
            complain(&format!("{name}: the run is cancelled; once more kills what is left"));
            run.cancel(name);
        }
        Some(_) if !run.is_killed() => {
            complain(&format!("{name}: what is left is killed"));
            run.kill(name);
        }
        Some(_) => std::process::exit(i32::from(128 + number)),
    }
}

/// What is printed besides the summary.
#[derive(Clone, Copy, Default)]
pub struct Trial {
    /// Something else stands on stdout.
    beside: bool,
    /// Nothing was done.
    dry: bool,
}

impl Trial {
    /// The values of `--until` and what a dry run would do are what was asked for: the summary stands beside them.
    pub fn of(arguments: &RunArguments) -> Trial {
        Trial { beside: arguments.until.is_some() || arguments.dry_run, dry: arguments.dry_run }
    }
}

/// Prints how the run ended.
pub fn show(record: &RunRecord, out: &Path, format: Format, trial: Trial) -> Result<(), Exit> {
    let watched = std::io::stderr().is_terminal() && !std::io::stdout().is_terminal();
    if watched && (format == Format::Json || !trial.beside) {
        say(&report::summary_line(record));
    }
    if format == Format::Json {
        return print(&format!("{}\n", serde_json::to_string(record).unwrap_or_default()));
    }
    let ink = if trial.beside { screen::ink(&std::io::stderr()) } else { screen::ink(&std::io::stdout()) };
    let width = (if trial.beside { std::io::stderr().is_terminal() } else { std::io::stdout().is_terminal() })
        .then(|| screen::size().0);
    let mut text = report::painted(record, Look { ink, out: Some(out), width });
    if trial.dry {
        text.push_str("\na dry run: nothing was sent, started or written\n");
    }
    if trial.beside {
        say(&text);
        return Ok(());
    }
    print(&text)
}
