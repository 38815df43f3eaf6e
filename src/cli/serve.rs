//! `lamplighter serve`: all jobs of the folder, always.

use super::{
    Global,
    exit::Exit,
    logging, orphans,
    run::lost,
    runtime::{self, Signals},
    screen::{self, complain},
    service_manager::ServiceManager,
    settings::Settings,
    state::Opened,
    talk, watch_files,
};
use async_executor::Executor;
use lamplighter::{
    api::{self, SOCKET, Server},
    daemon::{ClockPolicy, ClockSigns, Daemon, DaemonError, DaemonOptions, Handle, Jobs, News},
    job::{CheckedJob, ClockSpec, Job, JobProblems, Surroundings},
    limits::{CLOCK_WAIT_MAX_DEFAULT, LOG_PATIENCE},
    run::RunOptions,
    units::Span,
    world::{Task, World},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    io::{Read as _, Write as _},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Arguments of `serve`.
#[derive(clap::Args)]
pub struct ServeArguments {
    /// Set a state that cannot be used aside, and begin a new one
    #[arg(long)]
    accept_new_state: bool,
}

/// Runs the command.
pub fn main(global: &Global, arguments: &ServeArguments) -> Exit {
    let settings = match Settings::read(global) {
        Ok(settings) => Arc::new(settings),
        Err(exit) => return exit,
    };
    if let Err(why) = settings.job_files() {
        complain(&why);
        return Exit::Usage;
    }
    if let Err(error) = runtime::has_means() {
        complain(&format!("{error}: nothing was done"));
        return Exit::Io;
    }
    screen::write_aside();
    logging::install_for_serve();
    let executor = Arc::new(Executor::new());
    let threads = settings.threads();
    let story = serve(executor.clone(), settings, arguments.accept_new_state);
    let exit = runtime::block_on(&executor, threads, story).unwrap_or_else(|exit| exit);
    screen::settle(LOG_PATIENCE);
    exit
}

async fn serve(executor: Arc<Executor<'static>>, settings: Arc<Settings>, accept_new: bool) -> Result<Exit, Exit> {
    let world = World::real(executor.clone());
    let opened = Opened::open(&settings, &world, accept_new)?;
    // Before it is seen that it serves: whoever sees that may stop it.
    let signals = Signals::take()?;
    // Held until the program ends, however it ends.
    let _place = place(&world, &opened.folder).await?;
    let listener = api::bind(&opened.folder);
    // Orphans of our children come to us, so that a run can end them: see docs/DESIGN.md, "Why is no process left".
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    let manager = ServiceManager::find();
    let zones: Arc<AtomicU64> = Arc::default();
    let jobs = Arc::new(Folder {
        settings: settings.clone(),
        side_files: Mutex::default(),
        zones: zones.clone(),
        manager: manager.clone(),
    });
    let (daemon, handle) = Daemon::new(world.clone(), opened.state.clone(), jobs.clone(), options(&settings));
    let (farewell, end) = async_channel::bounded(1);
    let server = Server::new(world.clone(), opened.state.clone(), jobs, handle.clone(), settings.whereabouts());
    let socket = opened.folder.join(SOCKET);
    let path = socket.clone();
    let answers = world.spawn(async move {
        let served = match listener {
            Ok(listener) => server.serve(listener, end).await,
            Err(error) => Err(error),
        };
        if let Err(error) = served {
            // The night is worth more than the talk about it.
            log::error!(target: "lamplighter::api", "{} cannot be used, jobs run: {error}", path.display());
        }
    });
    // To the very end: a third signal ends whatever is waited for.
    let _steered = world.spawn(steer(world.clone(), signals, zones.clone(), handle.clone()));
    let beside = [
        world.spawn(watch_files::watch(world.clone(), settings.jobs.clone(), handle.clone())),
        world.spawn(watch_files::watch_zones(world.clone(), zones, handle.clone())),
        world.spawn(manager.feed(world.clone(), handle)),
        world.spawn(orphans::reap(world.clone())),
    ];
    let served = daemon.serve().await;
    drop(farewell);
    answers.await;
    let _ = fs::remove_file(socket);
    for task in beside {
        task.cancel().await;
    }
    opened.close().await;
    match served {
        Ok(()) => Ok(Exit::Done),
        Err(DaemonError::State(error)) => Err(lost(error)),
    }
}

/// The file whose lock is the one place of a `serve` at a state. It says who has it.
const LOCK: &str = "serve.lock";

/// How often the place is tried for: whoever looks who has it, has its lock shared for a moment.
const TRIES: u32 = 20;

/// Between two tries.
const TRY_AGAIN: Duration = Duration::from_millis(50);

/// The process id of the `serve` that has the state, as it wrote it itself; `None` when none has.
pub fn holder(folder: &Path) -> Option<String> {
    let mut file = fs::File::open(folder.join(LOCK)).ok()?;
    let Err(fs::TryLockError::WouldBlock) = file.try_lock_shared() else { return None };
    let mut pid = String::new();
    let _ = file.read_to_string(&mut pid);
    Some(pid.trim().to_owned())
}

/// The one place of a `serve` at a state.
async fn place(world: &World, folder: &Path) -> Result<fs::File, Exit> {
    let path = folder.join(LOCK);
    let refuse = |error: &dyn std::fmt::Display| {
        complain(&format!("{}: {error}", path.display()));
        Exit::Io
    };
    let options = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).clone();
    let mut file = options.open(&path).map_err(|error| refuse(&error))?;
    for _ in 0..TRIES {
        match file.try_lock() {
            Ok(()) => {
                let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
                written.map_err(|error| refuse(&error))?;
                return Ok(file);
            }
            Err(fs::TryLockError::WouldBlock) => world.sleep(TRY_AGAIN).await,
            Err(fs::TryLockError::Error(error)) => return Err(refuse(&error)),
        }
    }
    let mut pid = String::new();
    let _ = file.read_to_string(&mut pid);
    complain(&format!("another `serve` (pid {}) has the state {}: nothing was done", pid.trim(), folder.display()));
    Err(Exit::Held)
}

/// What the configuration and the machine say.
fn options(settings: &Settings) -> DaemonOptions {
    let config = &settings.config;
    let default = DaemonOptions::default();
    // What made this file was not later than the file.
    let built = fs::metadata("/proc/self/exe").ok().and_then(|exe| jiff::Timestamp::from_second(exe.mtime()).ok());
    DaemonOptions {
        machine: Settings::machine(),
        boot: fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned(),
        max_running_jobs: config.max_running_jobs.map_or(default.max_running_jobs, |jobs| jobs as usize),
        catch_up_delay: config.catch_up_delay.map_or(default.catch_up_delay, Span::get),
        clock: match &config.clock {
            None | Some(ClockSpec::Auto) => ClockPolicy::Auto,
            Some(ClockSpec::Trusted) => ClockPolicy::Trusted,
            Some(ClockSpec::WaitForSync(wait)) => {
                ClockPolicy::WaitForSync(wait.max_wait.map_or(CLOCK_WAIT_MAX_DEFAULT, Span::get))
            }
        },
        built: built.unwrap_or(default.built),
        retention: config.retention(0),
    }
}

/// Signals: reload; stop, then kill what runs, then end this program, whatever its loop waits for.
async fn steer(world: World, mut signals: Signals, zones: Arc<AtomicU64>, handle: Handle) {
    // The loop is told beside: one that stands takes nothing more.
    let mut told: Vec<Task<()>> = Vec::new();
    let mut ends = 0;
    loop {
        let number = signals.next().await;
        told.retain(|task| !task.is_finished());
        let handle = handle.clone();
        match (number, ends) {
            (1, _) if !told.is_empty() => {}
            (1, _) => {
                watch_files::zones_changed(&zones);
                told.push(world.spawn(async move { handle.files_changed().await }));
            }
            (_, 0) => {
                ends = 1;
                told.push(world.spawn(async move { handle.stop().await }));
            }
            (_, 1) => {
                ends = 2;
                let name = talk::signal_name(number);
                log::warn!(target: "lamplighter::daemon", "{name}: what runs is killed; once more ends the program");
                told.push(world.spawn(async move { handle.kill().await }));
            }
            _ => std::process::exit(i32::from(128 + number)),
        }
    }
}

/// The job folder.
struct Folder {
    settings: Arc<Settings>,
    /// What each job reads besides its own file.
    side_files: Mutex<BTreeMap<String, BTreeSet<PathBuf>>>,
    /// Counts changes of zones.
    zones: Arc<AtomicU64>,
    manager: ServiceManager,
}

impl Folder {
    fn side_files(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, BTreeSet<PathBuf>>> {
        // Plain data, whole between statements.
        self.side_files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Jobs for Folder {
    fn list(&self) -> Result<BTreeMap<String, String>, String> {
        // A folder that cannot be read to its end is no folder with fewer jobs.
        let files = self.settings.job_files()?;
        let read = self.side_files();
        let zones = self.zones.load(Ordering::SeqCst);
        let stamped = files.into_iter().filter_map(|path| {
            let name = path.file_stem()?.to_str()?.to_owned();
            let mut all = stamp(&path);
            read.get(&name).into_iter().flatten().for_each(|side| all.push_str(&stamp(side)));
            let _ = write!(all, "{zones}");
            Some((name, all))
        });
        Ok(stamped.collect())
    }

    fn load(&self, name: &str) -> Result<CheckedJob, JobProblems> {
        let path = self.settings.jobs.join(format!("{name}.ron"));
        let checked = Job::from_file_in(&path, &self.settings.surroundings());
        let named: Vec<&String> = match &checked {
            Ok(checked) => checked.job.side_files.keys().collect(),
            Err(problems) => problems.side_files.iter().collect(),
        };
        let named = named.into_iter().map(|side| self.settings.jobs.join(side));
        // Of one that is not understood counts what it named before, too.
        let before = self.side_files().remove(name).filter(|_| checked.is_err());
        let known = before.into_iter().flatten().chain(named).collect();
        self.side_files().insert(name.to_owned(), known);
        checked
    }

    fn surroundings(&self) -> Surroundings {
        self.settings.surroundings()
    }

    fn options(&self, job: &Job) -> Result<RunOptions, String> {
        self.settings.run_options(job)
    }

    fn clock(&self) -> ClockSigns {
        // Who sets the clock leaves its word here: systemd-timesyncd by itself, others by a hook (docs/OPERATING.md).
        let words = ["/run/systemd/timesync/synchronized", "/run/lamplighter/clock-synchronized"];
        ClockSigns {
            is_synchronised: words.iter().any(|word| Path::new(word).exists()),
            has_battery: Path::new("/dev/rtc0").exists(),
        }
    }

    fn tell(&self, news: &News<'_>) {
        self.manager.tell(news);
    }
}

/// What tells one version of a file from another.
fn stamp(path: &Path) -> String {
    let mut stamp = String::new();
    match fs::metadata(path) {
        Ok(meta) => {
            let _ = write!(stamp, "{}.{} {} {};", meta.mtime(), meta.mtime_nsec(), meta.size(), meta.ino());
        }
        Err(error) => {
            let _ = write!(stamp, "{};", error.kind());
        }
    }
    stamp
}
