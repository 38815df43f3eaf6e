//! Rows in a SQLite file, written and read by one thread over one connection.
//!
//! `run` reaches it through [`crate::store::RunStore`]. Rows are committed in groups, behind the backs of those who give them;
//! questions see everything that was accepted before. The file of [`Sqlite::private`] has no name, is never synced and
//! goes with the process. This room never prints, never retries, and never holds rows in memory beyond a batch.

mod query;
mod queue;
mod tables;

pub(super) use query::lines_before;
pub(super) use tables::settled_twice;

use super::{Reply, Request, Store, StoreError, codec::Packed};
use crate::{
    limits::{BATCH_BYTES, BATCH_ROWS, STORE_CACHE_KIB, STORE_PAGE_BYTES, TURNS_PER_COMMIT},
    world::BoxFuture,
};
use queue::{Answer, Asker, Queue, Weight, Work};
use rusqlite::{Connection, OpenFlags};
use std::{
    collections::VecDeque,
    fs, io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process, slice,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};
use tables::Tables;

/// What an operator should know about a store that was opened; each a sentence.
pub type Remarks = Vec<String>;

/// A store in a SQLite file. Dropping it ends its thread, soon; [`Sqlite::close`] waits for that end.
pub struct Sqlite {
    queue: Arc<Queue>,
    ended: async_channel::Receiver<()>,
}

impl Sqlite {
    /// Opens the private store of one run: a file in `dir` that has no name from the start, is written without syncs and
    /// may take `limit_bytes`. A remark when `dir` lies in memory.
    ///
    /// Blocks for as long as it takes to make a file.
    ///
    /// # Errors
    /// When the file or the thread cannot be made; the text names `dir`.
    pub fn private(dir: &Path, limit_bytes: u64) -> Result<(Sqlite, Remarks), StoreError> {
        let tables = Tables::create(private_connection(dir, limit_bytes)?, limit_bytes)?;
        let mut remarks = Remarks::new();
        if lies_in_memory(dir) {
            remarks.push(format!(
                "the run's private store lies in memory: {} is a tmpfs; it may take up to {limit_bytes} bytes of RAM \
                 (`spool_max`); an output folder on a disk avoids that",
                dir.display()
            ));
        }
        Ok((Sqlite::start(tables)?, remarks))
    }

    /// Lets nothing more in, waits until all that was accepted is written and the thread has ended. Callers that still
    /// wait to be let in get [`StoreError::Closed`]. A second call waits for the same end.
    ///
    /// # Cancel safety
    /// Dropped early the store is closed all the same.
    pub async fn close(&self) {
        self.queue.close();
        // Nothing is ever sent: this waits for the thread to drop its end.
        let _ = self.ended.recv().await;
    }

    fn start(tables: Tables) -> Result<Sqlite, StoreError> {
        Sqlite::serve_by(move |queue| {
            Server { queue, tables, open: Weight::default(), turns: 0, failed: None }.serve();
        })
    }

    /// A store whose thread does this.
    fn serve_by(serve: impl FnOnce(Arc<Queue>) + Send + 'static) -> Result<Sqlite, StoreError> {
        let queue = Arc::new(Queue::new());
        let (alive, ended) = async_channel::bounded(1);
        let theirs = queue.clone();
        thread::Builder::new()
            .name("lamplighter-store".into())
            .spawn(move || {
                let _end = End { queue: theirs.clone(), _alive: alive };
                serve(theirs);
            })
            .map_err(|error| StoreError::Io(format!("the thread of the store cannot be started: {error}")))?;
        Ok(Sqlite { queue, ended })
    }
}

impl Store for Sqlite {
    /// # Cancel safety
    /// Dropped before it is accepted nothing was asked; dropped later the request is done all the same.
    fn call(&self, request: Request) -> BoxFuture<'_, Result<Reply, StoreError>> {
        Box::pin(async move {
            let (work, reply) = pack(request)?;
            self.queue.admit(work).await?;
            match reply {
                None => Ok(Reply::Done),
                Some(reply) => reply.recv().await.unwrap_or(Err(StoreError::Closed)),
            }
        })
    }

    fn call_blocking(&self, request: Request) -> Result<Reply, StoreError> {
        futures_lite::future::block_on(self.call(request))
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// Dropped as the last act of the thread, also when it ends by a defect.
struct End {
    queue: Arc<Queue>,
    _alive: async_channel::Sender<()>,
}

impl Drop for End {
    fn drop(&mut self) {
        self.queue.end();
    }
}

/// The thread's own.
struct Server {
    queue: Arc<Queue>,
    tables: Tables,
    /// Written in the open transaction.
    open: Weight,
    /// Turns that left the transaction open.
    turns: u32,
    failed: Option<StoreError>,
}

impl Server {
    fn serve(mut self) {
        let mut works = VecDeque::new();
        while let Some(age_is_over) = self.queue.take(&mut works, self.tables.is_open()) {
            for work in works.drain(..) {
                self.work(work);
                if self.open.rows >= BATCH_ROWS || self.open.bytes >= BATCH_BYTES {
                    self.commit();
                }
            }
            self.turns += 1;
            if age_is_over || self.turns >= TURNS_PER_COMMIT {
                self.commit();
            }
        }
        self.commit();
    }

    fn work(&mut self, work: Work) {
        let weight = work.weight();
        if let Some(error) = &self.failed
            && !(matches!(error, StoreError::Full { .. }) && work.only_reads())
        {
            if let Work::Ask(_, answer) = work {
                reply(&answer, Err(error.clone()));
            }
            self.queue.committed(weight);
            return;
        }
        self.open.rows += weight.rows;
        self.open.bytes += weight.bytes;
        let done = match work {
            Work::Put(run, rows) => self.tables.put(&run, &rows),
            Work::Assign(run, gather, members) => {
                self.tables.assign(&run, gather, &members).map_err(|error| self.tables.error(error))
            }
            Work::Record(run, output) => self.tables.record(&run, &output).map_err(|error| self.tables.error(error)),
            Work::Ask(request, answer) => {
                let result = self.answer(request);
                // It fails before the asker hears of it: whatever is asked next meets the same error.
                let failure = result.as_ref().err().cloned();
                if let Some(error) = &failure {
                    self.fail(error.clone());
                }
                reply(&answer, result);
                return;
            }
        };
        if let Err(error) = done {
            self.fail(error);
        }
    }

    fn answer(&mut self, request: Request) -> Result<Reply, StoreError> {
        match request {
            Request::Flush(_) => {
                self.try_commit()?;
                return Ok(Reply::Done);
            }
            Request::Forget(run) => {
                self.try_commit()?;
                self.tables.forget(&run).map_err(|error| self.tables.error(error))?;
                return Ok(Reply::Done);
            }
            _ => {}
        }
        let tables = &mut self.tables;
        match request {
            Request::ClaimKey(run, stage, key, lineage) => tables
                .claim_keys(&run, stage, slice::from_ref(&(key, lineage)))
                .map(|mut claims| claims.pop().map_or(Reply::Claims(Vec::new()), Reply::Claim)),
            Request::ClaimKeys(run, stage, keys) => tables.claim_keys(&run, stage, &keys).map(Reply::Claims),
            Request::ClaimOutput(run, path, stage, key, lineage) => {
                tables.claim_output(&run, &path, stage, &key, &lineage).map(Reply::Claim)
            }
            Request::Outputs(run, limit) => match tables.known_run(&run) {
                Ok(Some(id)) => tables.outputs(id, limit).map(|(first, total)| Reply::Outputs(first, total)),
                other => other.map(|_| Reply::Outputs(Vec::new(), 0)),
            },
            Request::Groups(run, gather, after, limit) => match tables.known_run(&run) {
                Ok(Some(id)) => tables.groups(id, gather, after.as_deref(), limit).map(Reply::Texts),
                other => other.map(|_| Reply::Texts(Vec::new())),
            },
            Request::Values { run, stages, group, page } => match tables.known_run(&run) {
                Ok(Some(id)) => return tables.values(id, &sorted(stages), group.as_ref(), &page).map(Reply::Values),
                other => other.map(|_| Reply::Values(Vec::new())),
            },
            Request::Failures { run, stages, group, page } => match tables.known_run(&run) {
                Ok(Some(id)) => {
                    return tables.failures(id, &sorted(stages), group.as_ref(), &page).map(Reply::Failures);
                }
                other => other.map(|_| Reply::Failures(Vec::new())),
            },
            Request::Deferred(run, stage, after, limit) => match tables.known_run(&run) {
                Ok(Some(id)) => return tables.deferred(id, stage, after.as_ref(), limit).map(Reply::Rows),
                other => other.map(|_| Reply::Rows(Vec::new())),
            },
            Request::Put(..)
            | Request::AssignGroups(..)
            | Request::RecordOutput(..)
            | Request::Flush(_)
            | Request::Forget(_) => Ok(Reply::Done),
        }
        .map_err(|error| self.tables.error(error))
    }

    fn commit(&mut self) {
        if let Err(error) = self.try_commit() {
            self.fail(error);
        }
    }

    fn try_commit(&mut self) -> Result<(), StoreError> {
        self.tables.commit().map_err(|error| self.tables.error(error))?;
        self.turns = 0;
        self.queue.committed(std::mem::take(&mut self.open));
        Ok(())
    }

    /// The open rows are lost; the run is told by every later request.
    fn fail(&mut self, error: StoreError) {
        self.tables.roll_back();
        self.failed.get_or_insert_with(|| error.clone());
        self.queue.fail(error);
        self.queue.committed(std::mem::take(&mut self.open));
    }
}

/// What the thread is given for a request, and where its answer comes from.
fn pack(request: Request) -> Result<(Work, Option<Asker>), StoreError> {
    Ok(match request {
        Request::Put(run, rows) => (Work::Put(run, rows.into_iter().map(Packed::new).collect::<Result<_, _>>()?), None),
        Request::AssignGroups(run, gather, members) => (Work::Assign(run, gather, members), None),
        Request::RecordOutput(run, output) => (Work::Record(run, output), None),
        question => {
            let (answer, reply) = async_channel::bounded(1);
            (Work::Ask(question, answer), Some(reply))
        }
    })
}

/// Stages in order, each once.
pub(super) fn sorted(mut stages: Vec<u16>) -> Vec<u16> {
    stages.sort_unstable();
    stages.dedup();
    stages
}

/// Answers; an asker that has gone away is no error.
fn reply(answer: &Answer, result: Result<Reply, StoreError>) {
    let _ = answer.try_send(result);
}

/// A connection to a new file in `dir` whose name is gone again.
fn private_connection(dir: &Path, limit_bytes: u64) -> Result<Connection, StoreError> {
    let refuse = |cause: &dyn std::fmt::Display| {
        StoreError::Io(format!("the private store cannot be made in {}: {cause}", dir.display()))
    };
    let path = new_file(dir).map_err(|error| refuse(&error))?;
    let opened = Connection::open_with_flags(
        &path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW,
    )
    .and_then(|connection| {
        // Locks are taken once and for all: nobody else can open a file without a name, nor leave it a journal.
        connection.execute_batch(&format!(
            "PRAGMA page_size = {STORE_PAGE_BYTES}; PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF;
             PRAGMA temp_store = MEMORY; PRAGMA automatic_index = OFF; PRAGMA cache_size = -{STORE_CACHE_KIB};
             BEGIN EXCLUSIVE; COMMIT;"
        ))?;
        let page_bytes: u64 = connection.query_row("PRAGMA page_size", [], |row| row.get::<_, i64>(0))?.unsigned_abs();
        connection.execute_batch(&format!("PRAGMA max_page_count = {}", (limit_bytes / page_bytes.max(512)).max(1)))?;
        Ok(connection)
    });
    let removed = fs::remove_file(&path);
    let connection = opened.map_err(|error| refuse(&error))?;
    removed.map_err(|error| refuse(&error))?;
    Ok(connection)
}

/// Makes an empty file that only we may read, under a name that nobody has.
fn new_file(dir: &Path) -> io::Result<PathBuf> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = dir.join(format!(".lamplighter-spool-{}-{number}", process::id()));
        match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => return result.map(|_| path),
        }
    }
}

fn lies_in_memory(dir: &Path) -> bool {
    const TMPFS: u32 = 0x0102_1994;
    const RAMFS: u32 = 0x8584_58f6;
    // The type of the field differs between machines; its lower 32 bits are the number.
    rustix::fs::statfs(dir).is_ok_and(|found| matches!(found.f_type as u32, TMPFS | RAMFS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::RunStore;
    use futures_lite::future::block_on;

    /// Fault 50: a defect on the thread itself. Who was accepted, who waits for an answer and who comes later are told.
    #[test]
    fn a_thread_that_panics_is_told_to_all_who_ask() {
        let (asked, goes) = std::sync::mpsc::channel::<()>();
        let store = Arc::new(
            Sqlite::serve_by(move |queue| {
                let mut works = VecDeque::new();
                queue.take(&mut works, false);
                goes.recv().expect("the test goes on");
                // Silent: the hook is not called.
                std::panic::resume_unwind(Box::new("planted"));
            })
            .expect("a thread"),
        );
        let run = RunStore::new(store.clone(), "r");
        block_on(async {
            let mut flush = Box::pin(run.flush());
            assert!(futures_lite::future::poll_once(&mut flush).await.is_none(), "it is asked");
            asked.send(()).expect("the thread waits");
            assert_eq!(flush.await, Err(StoreError::Closed));
            assert_eq!(run.flush().await, Err(StoreError::Closed));
            store.close().await;
        });
    }
}
