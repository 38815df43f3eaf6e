//! The durable state, as commands open it.

use super::{
    Global,
    exit::Exit,
    run::lost,
    runtime,
    screen::{complain, say},
    settings::Settings,
};
use async_executor::Executor;
use lamplighter::{
    problem::closest,
    store::{
        RunDetails, State,
        sqlite::{Sqlite, StateOptions},
    },
    world::World,
};
use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

/// The state of this user, open.
pub struct Opened {
    pub state: State,
    store: Arc<Sqlite>,
}

impl Opened {
    /// Opens the state, and makes it where there is none. `accept_new` sets one that cannot be used aside.
    pub fn open(settings: &Settings, world: &World, accept_new: bool) -> Result<Opened, Exit> {
        let dir = folder(settings)?;
        let instance = format!("{:016x}{:016x}", world.random(), world.random());
        let options =
            StateOptions { dir: &dir, now_ms: world.wall().as_millisecond(), instance: &instance, accept_new };
        match Sqlite::durable(&options) {
            Ok((store, remarks)) => {
                for remark in remarks {
                    say(&format!("lamplighter: {remark}"));
                }
                let store = Arc::new(store);
                Ok(Opened { state: State::new(store.clone()), store })
            }
            Err(error) => {
                complain(&error.to_string());
                Err(Exit::Io)
            }
        }
    }

    /// The same for commands that only ask: where there is no state nothing is made.
    pub fn existing(settings: &Settings, world: &World) -> Result<Option<Opened>, Exit> {
        match folder(settings)?.join("state.db").exists() {
            true => Opened::open(settings, world, false).map(Some),
            false => Ok(None),
        }
    }

    /// Ends it cleanly: what was accepted is on the disk.
    pub async fn close(self) {
        self.store.close().await;
    }
}

/// What a command that asks the state works with.
pub struct Desk {
    pub settings: Settings,
    pub executor: Arc<Executor<'static>>,
    pub world: World,
    pub state: State,
}

/// Runs a command on the state that is there. `None`, and said so, when there is none yet.
pub fn consult(global: &Global, command: impl AsyncFnOnce(&Desk) -> Result<Exit, Exit>) -> Option<Exit> {
    let (desk, opened) = match desk(global) {
        Ok(Some(ready)) => ready,
        Ok(None) => return None,
        Err(exit) => return Some(exit),
    };
    let story = async {
        let end = command(&desk).await;
        opened.close().await;
        end.unwrap_or_else(|exit| exit)
    };
    Some(runtime::block_on(&desk.executor, desk.settings.threads(), story))
}

/// What [`consult`] needs, the same for every command.
fn desk(global: &Global) -> Result<Option<(Desk, Opened)>, Exit> {
    let settings = Settings::read(global)?;
    let executor = Arc::new(Executor::new());
    let world = World::real(executor.clone());
    match Opened::existing(&settings, &world)? {
        Some(opened) => Ok(Some((Desk { settings, executor, world, state: opened.state.clone() }, opened))),
        None => {
            let dir = folder(&settings).map(|dir| dir.display().to_string()).unwrap_or_default();
            say(&format!("lamplighter: no run was kept in {dir} yet: `lamplighter run JOB` does"));
            Ok(None)
        }
    }
}

/// The run of this id, or the last run of the job of this name.
pub async fn find(desk: &Desk, named: &str) -> Result<RunDetails, Exit> {
    match desk.state.details(named).await.map_err(lost)? {
        Some(details) => Ok(details),
        None => Err(no_run(desk, named).await?),
    }
}

/// Runs whose names are looked at for a likely one.
const NAMES: usize = 500;

/// Says that there is no such run, and what was probably meant.
pub async fn no_run(desk: &Desk, named: &str) -> Result<Exit, Exit> {
    let heads = desk.state.history(None, None, NAMES).await.map_err(lost)?;
    let jobs: BTreeSet<&str> = heads.iter().map(|head| head.job.as_str()).collect();
    let files = desk.settings.job_files();
    if files.iter().any(|path| path.file_stem().is_some_and(|stem| stem == named)) {
        complain(&format!("no run of `{named}` is kept"));
        return Ok(Exit::Usage);
    }
    let help = match closest(named, jobs.iter().copied().chain(heads.iter().map(|head| &*head.run))) {
        Some(near) => format!("did you mean `{near}`?"),
        None if jobs.is_empty() => "no run is kept".to_owned(),
        None => {
            let jobs: Vec<&str> = jobs.into_iter().collect();
            format!("runs are kept of {}; `lamplighter history` lists them", jobs.join(", "))
        }
    };
    complain(&format!("there is no run and no job `{named}`: {help}"));
    Ok(Exit::Usage)
}

/// `--state`, then the configuration, then the state folder of the user.
fn folder(settings: &Settings) -> Result<PathBuf, Exit> {
    if let Some(dir) = settings.state() {
        return Ok(dir);
    }
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || absolute("HOME").map(|home| home.join(".local/state"));
    match absolute("XDG_STATE_HOME").or_else(home) {
        Some(dir) => Ok(dir.join("lamplighter")),
        None => {
            complain("there is no place for the state: say `--state DIR`, or `--no-state` to keep none");
            Err(Exit::Usage)
        }
    }
}
