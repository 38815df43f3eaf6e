//! The durable state, as commands open it.

use super::{
    Format, Global,
    exit::Exit,
    run::lost,
    runtime,
    screen::{self, complain, print_piece, say},
    settings::{Settings, job_names},
};
use async_executor::Executor;
use lamplighter::{
    query::{Form, Piece, Runs, Unanswered},
    store::{
        RunDetails, State,
        sqlite::{Remarks, Sqlite, StateError, StateOptions},
    },
    world::World,
};
use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The state of this user, open.
pub struct Opened {
    pub state: State,
    /// Where it is.
    pub folder: PathBuf,
    store: Arc<Sqlite>,
}

/// What a command does with the state that is there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It only asks.
    Reads,
    /// It changes something.
    Writes,
}

impl Opened {
    /// Opens the state, and makes it where there is none. `accept_new` sets one that cannot be used aside.
    pub fn open(settings: &Settings, world: &World, accept_new: bool) -> Result<Opened, Exit> {
        let dir = folder(settings)?;
        let instance = instance(world);
        let opened = Sqlite::durable(&StateOptions { accept_new, ..options(&dir, world, &instance) });
        Opened::told(dir, opened)
    }

    /// The same for commands that begin nothing: where there is no state none is made.
    pub fn existing(settings: &Settings, world: &World, access: Access) -> Result<Option<Opened>, Exit> {
        let dir = folder(settings)?;
        let instance = instance(world);
        if access == Access::Writes && dir.join("state.db").exists() {
            return Opened::open(settings, world, false).map(Some);
        }
        let opened = Sqlite::reading(&options(&dir, world, &instance));
        opened.transpose().map(|opened| Opened::told(dir, opened)).transpose()
    }

    fn told(folder: PathBuf, opened: Result<(Sqlite, Remarks), StateError>) -> Result<Opened, Exit> {
        match opened {
            Ok((store, remarks)) => {
                for remark in remarks {
                    say(&format!("lamplighter: {remark}"));
                }
                let store = Arc::new(store);
                Ok(Opened { state: State::new(store.clone()), store, folder })
            }
            Err(error) => {
                complain(&error.to_string());
                Err(Exit::Io)
            }
        }
    }

    /// Ends it cleanly: what was accepted is on the disk.
    pub async fn close(self) {
        self.store.close().await;
    }
}

fn instance(world: &World) -> String {
    format!("{:016x}{:016x}", world.random(), world.random())
}

fn options<'a>(dir: &'a Path, world: &World, instance: &'a str) -> StateOptions<'a> {
    StateOptions { dir, now_ms: world.wall().as_millisecond(), instance, accept_new: false }
}

/// What a command that asks the state works with.
pub struct Desk {
    pub settings: Settings,
    pub executor: Arc<Executor<'static>>,
    pub world: World,
    pub state: State,
}

/// Runs a command on the state that is there. `None`, and said so, when there is none yet.
pub fn consult(
    global: &Global,
    access: Access,
    command: impl AsyncFnOnce(&Desk) -> Result<Exit, Exit>,
) -> Option<Exit> {
    let (desk, opened) = match desk(global, access) {
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
fn desk(global: &Global, access: Access) -> Result<Option<(Desk, Opened)>, Exit> {
    let settings = Settings::read(global)?;
    let executor = Arc::new(Executor::new());
    let world = World::real(executor.clone());
    match Opened::existing(&settings, &world, access)? {
        Some(opened) => Ok(Some((Desk { settings, executor, world, state: opened.state.clone() }, opened))),
        None => {
            say_there_is_none(&settings)?;
            Ok(None)
        }
    }
}

/// Says that there is no state yet, and where.
pub fn say_there_is_none(settings: &Settings) -> Result<(), Exit> {
    let dir = folder(settings)?;
    say(&format!("lamplighter: no run was kept in {} yet: `lamplighter run JOB` does", dir.display()));
    Ok(())
}

impl Desk {
    /// The runs that are kept.
    pub fn runs(&self) -> Runs<'_> {
        let folder = self.settings.jobs.clone();
        Runs { state: &self.state, world: &self.world, jobs: Arc::new(move || job_names(&folder)) }
    }

    /// The run of this id, or the last run of the job of this name.
    pub async fn find(&self, named: &str) -> Result<RunDetails, Exit> {
        self.runs().find(named).await.map_err(unanswered)
    }

    /// The exit code of a question that was answered, or was not.
    pub fn answer(&self, answered: Result<(), Unanswered<Exit>>) -> Result<Exit, Exit> {
        answered.map(|()| Exit::Done).map_err(unanswered)
    }

    /// Prints a piece of an answer.
    pub async fn prints(piece: Piece) -> Result<(), Exit> {
        match piece {
            Piece::Answer(text) => print_piece(&text),
            Piece::Note(line) => {
                say(&format!("lamplighter: {line}"));
                Ok(())
            }
        }
    }
}

/// Says why there is no answer.
fn unanswered(why: Unanswered<Exit>) -> Exit {
    match why {
        Unanswered::Refused(sentence) => {
            complain(&sentence);
            Exit::Usage
        }
        Unanswered::State(error) => lost(error),
        Unanswered::Reader(exit) => exit,
    }
}

/// The form of an answer on this stdout.
pub fn form(format: Format) -> Form {
    let stdout = std::io::stdout();
    let width = stdout.is_terminal().then(|| screen::size().0);
    Form { json: format == Format::Json, colour: screen::ink(&stdout).colour, width }
}

/// `--state`, then the configuration, then the state folder of the user.
pub fn folder(settings: &Settings) -> Result<PathBuf, Exit> {
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
