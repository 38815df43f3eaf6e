//! Rows in a SQLite file, written and read by one thread over one connection.
//!
//! `run` reaches it through [`crate::store::RunStore`] and [`crate::store::State`]. Rows are committed in groups, behind the
//! backs of those who give them; questions see everything that was accepted before. The file of [`Sqlite::private`] has no
//! name, is never synced and goes with the process; that of [`Sqlite::durable`] is synced with every commit and shared by
//! processes. This room never prints, never retries, and never holds rows in memory beyond a batch.

mod answer;
mod epoch;
mod firing;
mod listing;
mod mount;
mod open;
mod query;
mod queue;
mod resume;
mod retain;
mod runs;
mod schema;
mod tables;

#[cfg(test)]
mod plan_tests;

pub use open::{StateError, StateOptions};

pub(super) use answer::sorted;
pub(super) use query::lines_before;
pub(super) use retain::{is_taken_over, may_hold};
pub(super) use tables::settled_twice;

use super::{
    Reply, Request, Store, StoreError,
    codec::{self, KeptValue, Packed},
};
use crate::{
    limits::{BATCH_BYTES, BATCH_ROWS, TURNS_PER_COMMIT},
    world::{
        BoxFuture,
        failpoint::{Point, pass},
        plant::{plant_here, planted_here},
    },
};
use queue::{Answer, Asker, Queue, Weight, Work};
use std::{collections::VecDeque, path::Path, sync::Arc, thread};
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
        let tables = Tables::create(open::private(dir, limit_bytes)?, limit_bytes)?;
        let mut remarks = Remarks::new();
        if mount::lies_in_memory(dir) {
            remarks.push(format!(
                "the run's private store lies in memory: {} is a tmpfs; it may take up to {limit_bytes} bytes of RAM \
                 (`spool_max`); an output folder on a disk avoids that",
                dir.display()
            ));
        }
        Ok((Sqlite::start(tables)?, remarks))
    }

    /// Opens the durable state, made when it is not there; several processes may have it open. What was committed is
    /// there after a power cut.
    ///
    /// Blocks: after a process that did not end by itself the whole file is looked through.
    ///
    /// # Errors
    /// When it cannot be used: see [`StateError`]. Nothing was changed then, and no new one begun.
    pub fn durable(options: &StateOptions<'_>) -> Result<(Sqlite, Remarks), StateError> {
        let (tables, remarks) = open::durable(options)?;
        let store = Sqlite::start(tables).map_err(|error| StateError::Io(error.to_string()))?;
        Ok((store, remarks))
    }

    /// Opens the durable state for questions only, where there is one: nothing is written, so that it also works on a disk
    /// that is full or read-only, and costs flash nothing. What would change it fails.
    ///
    /// Blocks for as long as it takes to read the state's log. A state of an older format is opened as [`Sqlite::durable`]
    /// does, which makes the format of today of it.
    ///
    /// # Errors
    /// As [`Sqlite::durable`].
    pub fn reading(options: &StateOptions<'_>) -> Result<Option<(Sqlite, Remarks)>, StateError> {
        let Some((tables, remarks)) = open::reading(options)? else { return Ok(None) };
        let store = Sqlite::start(tables).map_err(|error| StateError::Io(error.to_string()))?;
        Ok(Some((store, remarks)))
    }

    /// The same with a connection that a test has spoilt.
    #[cfg(test)]
    pub(super) fn durable_of(options: &StateOptions<'_>, spoil: impl FnOnce(&rusqlite::Connection)) -> Sqlite {
        let (tables, _) = open::durable(options).unwrap_or_else(|error| panic!("{error}"));
        spoil(&tables.connection);
        Sqlite::start(tables).unwrap_or_else(|error| panic!("{error}"))
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
        let bug = planted_here();
        thread::Builder::new()
            .name("lamplighter-store".into())
            .spawn(move || {
                plant_here(bug);
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
        // After a failure the epoch is left as if the process had been killed: whoever comes next looks the file through.
        if self.failed.is_none() {
            pass(Point::EpochEnds);
            self.tables.end();
        }
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
            Work::Put(run, rows, ran_ms) => self.tables.put(&run, &rows, ran_ms),
            Work::Assign(run, gather, members) => {
                self.tables.assign(&run, gather, &members).map_err(|error| self.tables.error(error))
            }
            Work::Record(run, output) => self.tables.record(&run, &output).map_err(|error| self.tables.error(error)),
            Work::Log(run, events) => self.tables.add_events(&run, &events).map_err(|error| self.tables.error(error)),
            Work::Keep(kept) => self.tables.keep(&kept).map_err(|error| self.tables.error(error)),
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
        if request.begins_alone() {
            self.try_commit()?;
        }
        let is_final = request.is_committed();
        let reply = self.tables.answer(request).map_err(|fault| self.tables.told(fault))?;
        if is_final {
            self.try_commit()?;
        }
        Ok(reply)
    }

    fn commit(&mut self) {
        if let Err(error) = self.try_commit() {
            self.fail(error);
        }
    }

    fn try_commit(&mut self) -> Result<(), StoreError> {
        if self.tables.is_open() {
            pass(Point::CommitBegins);
            self.tables.commit().map_err(|error| self.tables.error(error))?;
            pass(Point::Committed);
        }
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
        Request::Put(run, rows, ran_ms) => {
            (Work::Put(run, rows.into_iter().map(Packed::new).collect::<Result<_, _>>()?, ran_ms), None)
        }
        Request::AssignGroups(run, gather, members) => (Work::Assign(run, gather, members), None),
        Request::RecordOutput(run, output) => (Work::Record(run, output), None),
        Request::AddEvents(run, events) => (Work::Log(run, events), None),
        Request::Keep { run, job, key, due_ms, value } => {
            let json = codec::line("the value of `Keep`", &value)?;
            (Work::Keep(KeptValue { run, job, key, due_ms, json }), None)
        }
        question => {
            let (answer, reply) = async_channel::bounded(1);
            (Work::Ask(question, answer), Some(reply))
        }
    })
}

/// Answers; an asker that has gone away is no error.
fn reply(answer: &Answer, result: Result<Reply, StoreError>) {
    let _ = answer.try_send(result);
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
