//! What is left when a process dies: a store that loses what was not committed, and a spy before it that knows what was
//! answered, is slow, and fails when it is told to.

use super::outside::{Outside, Seen, lock};
use lamplighter::{
    flow::Semaphore,
    item::{Key, Lineage, RunOutcome},
    store::{
        Begun, Copied, Reply, Request, RowEnd, Store, StoreError,
        memory::Memory,
        sqlite::{Sqlite, StateOptions},
    },
    world::{BoxFuture, World},
};
use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{Arc, Mutex},
};
use tempfile::TempDir;

const STORE_BYTES: u64 = 64 << 20;

/// A disk with the state on it.
pub enum Disk {
    /// The rules of the store without its file: fast, and the same seed is the same run.
    Memory(Memory),
    /// The real one. What a crash leaves is a copy of its file and log, without what the process holds in memory.
    File(TempDir),
}

impl Disk {
    pub fn new(is_file: bool) -> Disk {
        match is_file {
            true => Disk::File(folder()),
            false => Disk::Memory(Memory::losing(STORE_BYTES)),
        }
    }

    /// A process opens the state. On [`Disk::Memory`] those before it are dead from then on.
    pub fn open(&self, boot: &str, now_ms: i64) -> Opened {
        match self {
            Disk::Memory(memory) => Opened { store: Arc::new(memory.restart(boot)), file: None },
            Disk::File(dir) => {
                let options = StateOptions { dir: dir.path(), now_ms, instance: "gateway", accept_new: false };
                let (store, _) = Sqlite::durable(&options).unwrap_or_else(|error| panic!("{error}"));
                let store = Arc::new(store);
                Opened { store: store.clone(), file: Some(store) }
            }
        }
    }

    /// All processes die now: what was committed is there for those who come.
    pub fn crash(&mut self, died: Vec<Opened>) {
        let Disk::File(dir) = self else { return };
        let left = folder();
        // A reader keeps the log from being written over while it is copied.
        let reader = rusqlite::Connection::open(dir.path().join("state.db")).expect("the file is there");
        reader.execute_batch("BEGIN; SELECT count(*) FROM meta").expect("it can be read");
        for name in ["state.db", "state.db-wal"] {
            if let Err(error) = fs::copy(dir.path().join(name), left.path().join(name)) {
                assert!(name != "state.db" && error.kind() == std::io::ErrorKind::NotFound, "{error}");
            }
        }
        drop(reader);
        // Their threads must not write into a folder that is going away.
        died.into_iter().for_each(Opened::close);
        *self = Disk::File(left);
    }
}

/// The state as one process has it open.
#[derive(Clone)]
pub struct Opened {
    pub store: Arc<dyn Store>,
    file: Option<Arc<Sqlite>>,
}

impl Opened {
    /// The process is done with it.
    pub fn close(self) {
        let flushed = self.store.call_blocking(Request::Flush("".into()));
        if let Some(file) = self.file {
            futures_lite::future::block_on(file.close());
        }
        drop(flushed);
    }
}

/// A folder in memory where there is one: nothing here is about power cuts.
pub fn folder() -> TempDir {
    let shared = Path::new("/dev/shm");
    let made = if shared.is_dir() { tempfile::tempdir_in(shared) } else { tempfile::tempdir() };
    made.expect("a folder")
}

/// What a store has promised.
#[derive(Clone, Debug, Default)]
pub struct Promised {
    /// Rows by run, stage and lineage: how they stand, and their attempts.
    pub rows: BTreeMap<(String, u16, Lineage), (RowEnd, u32)>,
    /// Runs that have begun.
    pub begun: Vec<String>,
    /// Runs that have ended, and the notices that follow.
    pub ended: BTreeMap<String, (RunOutcome, Vec<u16>)>,
    /// Notices that were sent.
    pub sent: Vec<(String, u16)>,
    /// Sources whose listing has ended.
    pub listed: Vec<(String, u16)>,
    /// Values of `Keep`: job, key, due.
    pub kept: Vec<(String, Key, i64)>,
}

impl Promised {
    fn take(&mut self, more: Promised) {
        self.rows.extend(more.rows);
        self.begun.extend(more.begun);
        self.ended.extend(more.ended);
        self.sent.extend(more.sent);
        self.listed.extend(more.listed);
        self.kept.extend(more.kept);
    }
}

/// How a disk misbehaves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bad {
    /// It answers so many turns later, at most.
    pub slow_turns: usize,
    /// Or so many milliseconds later, at most.
    pub slow_ms: u64,
    /// The n-th request fails, and every one after it; the second says that there was no room.
    pub fails_at: Option<(u64, bool)>,
    /// What was asked when it failed is on the disk all the same.
    pub fails_late: bool,
    /// Of a hundred rows that are accepted, after so many the batch is committed by its age.
    pub ages: u64,
}

/// Who wrote last, where several processes have one disk.
pub type LastWriter = Arc<Mutex<Option<(u32, Arc<dyn Store>)>>>;

/// Stands before the store of one process.
pub struct Spy {
    process: u32,
    inner: Arc<dyn Store>,
    last: LastWriter,
    world: World,
    outside: Arc<Mutex<Outside>>,
    bad: Bad,
    turn: Semaphore,
    state: Mutex<State>,
}

struct State {
    dice: fastrand::Rng,
    asked: u64,
    accepted: Promised,
    failed: Option<StoreError>,
}

impl Spy {
    pub fn new(opened: &Opened, process: u32, last: &LastWriter, world: World, outside: &Seen, bad: Bad) -> Spy {
        let dice = fastrand::Rng::with_seed(u64::from(process) ^ lock(outside).acts.dice);
        let state = State { dice, asked: 0, accepted: Promised::default(), failed: None };
        let (inner, last, outside) = (opened.store.clone(), last.clone(), outside.clone());
        Spy { process, inner, last, world, outside, bad, turn: Semaphore::new(1), state: Mutex::new(state) }
    }

    /// One transaction at a time: what another process has open is committed first, as by its age.
    fn take_turn(&self) {
        let before = lock(&self.last).replace((self.process, self.inner.clone()));
        if let Some((_, other)) = before.filter(|(process, _)| *process != self.process) {
            let _ = other.call_blocking(Request::Flush("".into()));
        }
    }

    fn serve(&self, request: Request) -> Result<Reply, StoreError> {
        self.take_turn();
        let mut state = lock(&self.state);
        state.asked += 1;
        let reads = request.only_reads();
        if let Some(error) = &state.failed {
            let answers = reads && matches!(error, StoreError::Full { .. });
            return if answers { self.inner.call_blocking(request) } else { Err(error.clone()) };
        }
        if let Some((_, is_full)) = self.bad.fails_at.filter(|(at, _)| *at == state.asked) {
            let error = match is_full {
                true => StoreError::Full { limit: STORE_BYTES },
                false => StoreError::Io("the disk was told to fail".into()),
            };
            state.failed = Some(error.clone());
            if self.bad.fails_late {
                let _ = self.inner.call_blocking(request);
            }
            return Err(error);
        }
        let (run, is_final) = (run_of(&request), is_promised(&request));
        let asked = (!reads).then(|| request.clone());
        let reply = self.inner.call_blocking(request)?;
        if let Some(asked) = asked {
            note(&mut state.accepted, asked, &reply);
        }
        let ages = run.filter(|_| !is_final && !reads && state.dice.u64(..100) < self.bad.ages);
        let aged = ages.map(|run| self.inner.call_blocking(Request::Flush(run)));
        if is_final || matches!(aged, Some(Ok(_))) {
            let promised = std::mem::take(&mut state.accepted);
            lock(&self.outside).promised.take(promised);
        }
        Ok(reply)
    }

    async fn linger(&self) {
        let (turns, time) = {
            let mut state = lock(&self.state);
            let (turns, time) = (self.bad.slow_turns, self.bad.slow_ms);
            (state.dice.u64(..=turns as u64) as usize, state.dice.u64(..=time))
        };
        for _ in 0..turns {
            futures_lite::future::yield_now().await;
        }
        if time > 0 {
            self.world.sleep(std::time::Duration::from_millis(time)).await;
        }
    }
}

impl Store for Spy {
    fn call(&self, request: Request) -> BoxFuture<'_, Result<Reply, StoreError>> {
        Box::pin(async move {
            // In the order of asking.
            let turn = self.turn.acquire().await;
            self.linger().await;
            let reply = self.serve(request);
            drop(turn);
            self.linger().await;
            reply
        })
    }

    fn call_blocking(&self, request: Request) -> Result<Reply, StoreError> {
        self.serve(request)
    }
}

/// Remembers what was accepted.
fn note(accepted: &mut Promised, asked: Request, reply: &Reply) {
    match (asked, reply) {
        (Request::Put(run, rows, _), _) => {
            for row in rows {
                accepted.rows.insert((run.to_string(), row.stage, row.lineage), (row.end, row.attempts));
            }
        }
        (Request::Begin(new), Reply::Begun(Begun::Now)) => accepted.begun.push(new.run.to_string()),
        (Request::CopyForRetry(_, new), Reply::Copied(Copied::Now(_))) => accepted.begun.push(new.run.to_string()),
        (Request::End(run, end), Reply::Changed(true)) => {
            accepted.ended.insert(run.to_string(), (end.outcome, end.notices));
        }
        (Request::Interrupt(run, end), Reply::Changed(true)) => {
            accepted.ended.insert(run.to_string(), (RunOutcome::Interrupted, end.notices));
        }
        (Request::NoticeDone(run, place), Reply::Changed(true)) => accepted.sent.push((run.to_string(), place)),
        (Request::ListingDone(run, source), _) => accepted.listed.push((run.to_string(), source)),
        (Request::Keep { job, key, due_ms, .. }, _) => accepted.kept.push((job, key, due_ms)),
        _ => {}
    }
}

fn run_of(request: &Request) -> Option<Arc<str>> {
    match request {
        Request::Put(run, ..)
        | Request::AssignGroups(run, ..)
        | Request::RecordOutput(run, _)
        | Request::ClaimKeys(run, ..)
        | Request::ClaimOutput(run, ..)
        | Request::ListingDone(run, _)
        | Request::AddEvents(run, _)
        | Request::StageBegan(run, ..)
        | Request::Keep { run, .. } => Some(run.clone()),
        _ => None,
    }
}

/// Requests whose answer says that all is on the disk: the promise, which the program's own list may break.
fn is_promised(request: &Request) -> bool {
    matches!(
        request,
        Request::Flush(_)
            | Request::Begin(_)
            | Request::TakeOver(..)
            | Request::Release(_)
            | Request::End(..)
            | Request::Interrupt(..)
            | Request::NoticeDone(..)
            | Request::CopyForRetry(..)
    )
}
