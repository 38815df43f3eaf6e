//! The durable state, as commands open it.

use super::{
    exit::Exit,
    screen::{complain, say},
    settings::Settings,
};
use lamplighter::{
    store::{
        State,
        sqlite::{Sqlite, StateOptions},
    },
    world::World,
};
use std::{path::PathBuf, sync::Arc};

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
