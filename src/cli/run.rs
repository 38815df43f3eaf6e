//! `lamplighter run`: a job now, in the foreground.

use super::{
    Format, Global, complain,
    exit::Exit,
    logging, print,
    progress::Picture,
    runtime::{self, Signals, first},
    settings::Settings,
};
use async_executor::Executor;
use lamplighter::{
    item::{RunRecord, Value},
    job::Job,
    report,
    run::{Run, RunOptions, Runner},
    units::Span,
    world::World,
};
use std::{io::IsTerminal, sync::Arc, time::Duration};

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
    /// Run as if due then: 2026-11-23, 2026-11-23T02:30 in the job's zone, or with an offset
    #[arg(long, value_name = "TIME")]
    due: Option<String>,
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
    /// How the summary is printed
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
}

/// Runs the command.
pub fn main(global: &Global, arguments: &RunArguments) -> Exit {
    match prepare(global, arguments) {
        Ok((settings, job, options)) => {
            let executor = Arc::new(Executor::new());
            let end = runtime::block_on(
                &executor.clone(),
                settings.threads(),
                follow(executor, &job, options, arguments.format),
            );
            match end {
                Ok(end) => {
                    if let Some(key) = &arguments.key
                        && end.record.stages.iter().all(|stage| stage.counts.items == 0)
                    {
                        complain(&format!("no item has the key `{key}`"));
                    }
                    show(&end.record, arguments.format);
                    end.exit()
                }
                Err(exit) => exit,
            }
        }
        Err(exit) => exit,
    }
}

fn prepare(global: &Global, arguments: &RunArguments) -> Result<(Settings, Arc<Job>, RunOptions), Exit> {
    let settings = Settings::read(global)?;
    let job = Arc::new(settings.job(&arguments.job)?.job);
    let mut options = settings.run_options(&job)?;
    for set in &arguments.set {
        let Some((name, text)) = set.split_once('=') else {
            complain(&format!("--set takes KEY=VALUE, not {set:?}"));
            return Err(Exit::Usage);
        };
        let value = job.param(name, text).map_err(usage)?;
        options.params.insert(name.to_owned(), value);
    }
    options.deadline = arguments.deadline.map(Span::get);
    options.due = arguments.due.as_deref().map(|text| due(text, &job)).transpose().map_err(usage)?;
    options.limit = arguments.limit;
    options.key = arguments.key.clone();
    options.until = arguments.until.clone();
    if arguments.dry_run {
        options.preview = Some(Arc::new(|line| print(&format!("{line}\n"))));
    }
    Ok((settings, job, options))
}

fn usage(why: String) -> Exit {
    complain(&why);
    Exit::Usage
}

/// A due time: an instant, or local time of the job's zone.
fn due(text: &str, job: &Job) -> Result<jiff::Timestamp, String> {
    if let Ok(instant) = text.parse::<jiff::Timestamp>() {
        return Ok(instant);
    }
    let local = text
        .parse::<jiff::civil::DateTime>()
        .or_else(|_| text.parse::<jiff::civil::Date>().map(jiff::civil::Date::into));
    let zoned = local.and_then(|local| local.to_zoned(job.zone.clone()));
    let help = "write 2026-11-23, 2026-11-23T02:30 or 2026-11-23T02:30+08:00";
    zoned.map(|zoned| zoned.timestamp()).map_err(|_| format!("{text:?} is no time: {help}"))
}

/// How a foreground run ended.
pub struct End {
    pub record: RunRecord,
    signal: Option<u8>,
}

impl End {
    /// Its exit code.
    pub fn exit(&self) -> Exit {
        Exit::of(self.record.outcome, self.signal)
    }
}

/// Starts the job and follows it: progress on a terminal, log lines without one, signals cancel and then kill.
pub async fn follow(
    executor: Arc<Executor<'static>>,
    job: &Arc<Job>,
    mut options: RunOptions,
    format: Format,
) -> Result<End, Exit> {
    let to_terminal = std::io::stderr().is_terminal() && format == Format::Human && options.preview.is_none();
    logging::install(to_terminal);
    let mut signals = Signals::take().map_err(|error| {
        complain(&format!("signals cannot be received: {error}"));
        Exit::Io
    })?;
    let world = World::real(executor.clone());
    let tapped = options.until.is_some().then(|| async_channel::bounded::<Value>(64));
    if let Some((sender, values)) = tapped {
        options.tap = Some(sender);
        let lines = async move {
            while let Ok(value) = values.recv().await {
                print(&format!("{value}\n"));
            }
        };
        executor.spawn(lines).detach();
    }
    // Orphans of our children come to us, so that a run can end them: see DESIGN, "no process left".
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    let mut run = Runner::new(world.clone()).start(job, options).map_err(|error| {
        complain(&format!("{error}: nothing was done"));
        Exit::Usage
    })?;
    let mut picture = to_terminal.then(Picture::new);
    let mut signal = None;
    let record = loop {
        match next(&world, &mut run, &mut signals, picture.is_some()).await {
            Next::Ended(record) => break *record,
            Next::Tick => {}
            Next::Signal(number) => obey(&run, number, &mut signal),
        }
        if let Some(picture) = &mut picture {
            picture.draw(job, &run.progress());
        }
    };
    if let Some(picture) = &mut picture {
        picture.clear();
    }
    Ok(End { record, signal })
}

enum Next {
    Ended(Box<RunRecord>),
    Signal(u8),
    Tick,
}

/// How often the picture is drawn.
const TICK: Duration = Duration::from_millis(100);

async fn next(world: &World, run: &mut Run, signals: &mut Signals, ticks: bool) -> Next {
    let ended = async { Next::Ended(Box::new(run.await)) };
    let signal = async { Next::Signal(signals.next().await) };
    let tick = async {
        if !ticks {
            std::future::pending::<()>().await;
        }
        world.sleep(TICK).await;
        Next::Tick
    };
    first(ended, first(signal, tick)).await
}

/// The first signal cancels, the second kills, the third ends this program.
fn obey(run: &Run, number: u8, first: &mut Option<u8>) {
    let name = if number == 2 { "SIGINT" } else { "SIGTERM" };
    match first {
        None => {
            *first = Some(number);
            complain("cancelling; once more kills what is left");
            run.cancel(name);
        }
        Some(_) if !run.is_killed() => run.kill(name),
        Some(_) => std::process::exit(i32::from(128 + number)),
    }
}

/// Prints how the run ended.
fn show(record: &RunRecord, format: Format) {
    match format {
        Format::Human => print(&report::text(record)),
        Format::Json => print(&format!("{}\n", serde_json::to_string(record).unwrap_or_default())),
    }
}
