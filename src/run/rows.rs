//! The store of a run, opened by whoever needs it first.

use super::state::RunState;
use crate::{
    action::Line,
    flow::Semaphore,
    store::{RunStore, Store, StoreError, memory::Memory, sqlite::Sqlite},
};
use log::Level;
use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

/// Where a runner keeps the rows of its runs.
#[derive(Clone)]
pub enum StoreChoice {
    /// A private file in this folder, unlinked at once, at most so many bytes (RUNS S4). Opened only by a run that needs it.
    Private {
        /// Its folder; the output folder when `None`.
        folder: Option<PathBuf>,
        /// `spool_max`.
        limit: u64,
    },
    /// In memory, at most so many bytes: for tests and embedders.
    Memory {
        /// Ceiling in bytes.
        limit: u64,
    },
    /// A store that was opened by the caller.
    Given(Arc<dyn Store>),
    /// The rows of a run that is kept: they stay when it has ended. See [`Runner::begin`](super::Runner::begin).
    Kept(RunStore),
}

/// Makes the folder as needed.
fn open_private(folder: &Path, limit: u64) -> Result<(Sqlite, Vec<String>), StoreError> {
    std::fs::create_dir_all(folder)
        .map_err(|error| StoreError::Io(format!("the folder {} cannot be made: {error}", folder.display())))?;
    // The store follows no symlink, and the folder that the operator names may well be one.
    let folder = folder
        .canonicalize()
        .map_err(|error| StoreError::Io(format!("the folder {} cannot be used: {error}", folder.display())))?;
    Sqlite::private(&folder, limit)
}

/// Opens the store once.
pub struct Rows {
    choice: StoreChoice,
    opened: OnceLock<Result<RunStore, StoreError>>,
    /// The private one, to close it.
    private: OnceLock<Arc<Sqlite>>,
    /// One who opens at a time.
    turn: Semaphore,
}

impl Rows {
    pub fn new(choice: StoreChoice) -> Rows {
        Rows { choice, opened: OnceLock::new(), private: OnceLock::new(), turn: Semaphore::new(1) }
    }

    /// The store of `run`.
    pub async fn get(&self, run: &RunState) -> Result<RunStore, StoreError> {
        if let Some(opened) = self.opened.get() {
            return opened.clone();
        }
        let _turn = self.turn.acquire().await;
        if let Some(opened) = self.opened.get() {
            return opened.clone();
        }
        let opened = self.open(run).await;
        self.opened.get_or_init(|| opened).clone()
    }

    /// The store, if somebody has opened it.
    pub fn opened(&self) -> Option<RunStore> {
        self.opened.get().and_then(|opened| opened.clone().ok())
    }

    /// The run is over: a private store ends with its thread and its file, another one forgets the run.
    pub async fn end(&self) {
        match (self.private.get(), self.opened()) {
            (Some(private), _) => private.close().await,
            (None, Some(rows)) if !matches!(self.choice, StoreChoice::Kept(_)) => {
                // A store that cannot forget any more was said to be broken before.
                let _ = rows.forget().await;
            }
            (None, _) => {}
        }
    }

    async fn open(&self, run: &RunState) -> Result<RunStore, StoreError> {
        let store: Arc<dyn Store> = match &self.choice {
            StoreChoice::Kept(rows) => return Ok(rows.clone()),
            StoreChoice::Given(store) => store.clone(),
            StoreChoice::Memory { limit } => Arc::new(Memory::new(*limit)),
            StoreChoice::Private { folder, limit } => {
                let folder = folder.clone().unwrap_or_else(|| run.context.temporary.clone());
                let limit = *limit;
                let (store, remarks) = run.world().unblock(move || open_private(&folder, limit)).await?;
                for remark in remarks {
                    run.context.journal.write(&Line::of_run(Level::Warn, &remark));
                }
                let store = Arc::new(store);
                // Opened once, by the turn.
                let _ = self.private.set(store.clone());
                store
            }
        };
        Ok(RunStore::new(store, &run.context.id))
    }
}
