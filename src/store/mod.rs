//! What is kept of runs: rows of items, keys, groups, outputs; how runs began and ended; what jobs remember.
//!
//! `run` asks through [`RunStore`] for the rows of one run, through [`State`] for what stands above single runs. All lives
//! in a SQLite file ([`sqlite`]), private and gone with the process or durable, or in memory ([`memory`], for tests and
//! embedders). One conformance suite holds for all. Rows of one run never see those of another.

mod codec;
mod crash;
mod firing;
mod forget;
mod kept;
pub mod memory;
mod request;
mod run;
pub mod sqlite;
mod state;

#[cfg(test)]
mod conformance;

pub use firing::{FiringEnd, FiringRow, Mark, after_key};
pub use kept::{
    Began, Begun, Clocks, Copied, CopyPlan, EventQuery, Forgotten, NewRun, Notice, Resume, Retained, Retention,
    RowFilter, RowHead, RowQuery, RunDetails, RunEnd, RunEvent, RunHead, RunKind, RunPhase, StageMark, TakenOver,
    Tally, Unsettled,
};
pub use request::{
    Claim, GroupMember, Membership, Page, Reply, Request, Row, RowEnd, StoreError, StoredFailure, StoredValue,
};
pub use state::State;

use crate::{
    flow::panic_text,
    item::{Key, Lineage, OutputRecord},
    limits::PAGE_ROWS,
    world::BoxFuture,
};
use futures_lite::FutureExt;
use std::{
    any::Any,
    iter,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    vec,
};

/// Where rows live. Requests of one store are served in the order in which they were made (FIFO).
///
/// Cancel safety: a request whose future is dropped is done or not done as a whole.
pub trait Store: Send + Sync {
    /// Serves one request. `Put`, `AssignGroups`, `RecordOutput`, `AddEvents` and `Keep` return when they are accepted: they wait while two
    /// batches are uncommitted, and are committed behind; every other request sees all that was accepted before it.
    ///
    /// An accepted row that cannot be written later fails every request after it: see [`StoreError`].
    fn call(&self, request: Request) -> BoxFuture<'_, Result<Reply, StoreError>>;
    /// The same for a CPU thread, which may block.
    fn call_blocking(&self, request: Request) -> Result<Reply, StoreError>;
}

/// The rows of one run in a store, with typed questions. Cheap to clone.
///
/// Every method fails as [`StoreError`] says; none panics.
#[derive(Clone)]
pub struct RunStore {
    store: Arc<dyn Store>,
    run: Arc<str>,
    ran_ms: Option<Arc<RanClock>>,
}

/// How long a run has run in all its passes, in milliseconds.
pub type RanClock = dyn Fn() -> u64 + Send + Sync;

impl RunStore {
    /// The rows of `run` in `store`.
    pub fn new(store: Arc<dyn Store>, run: &str) -> RunStore {
        RunStore { store, run: run.into(), ran_ms: None }
    }

    /// The same, and every row that is put says how long the run has run.
    pub fn timed(self, ran_ms: Arc<RanClock>) -> RunStore {
        RunStore { ran_ms: Some(ran_ms), ..self }
    }

    /// Puts one row; returns when it is accepted.
    pub async fn put(&self, row: Row) -> Result<(), StoreError> {
        self.put_all(vec![row]).await
    }

    /// Puts rows; returns when they are accepted.
    pub async fn put_all(&self, rows: Vec<Row>) -> Result<(), StoreError> {
        let ran_ms = self.ran_ms.as_ref().map(|ran_ms| ran_ms());
        done(self.ask(Request::Put(self.run.clone(), rows, ran_ms)).await?)
    }

    /// Returns when everything that was accepted before is committed.
    pub async fn flush(&self) -> Result<(), StoreError> {
        done(self.ask(Request::Flush(self.run.clone())).await?)
    }

    /// Takes a key among the listed items of a stage for a lineage; who comes first has it.
    pub async fn claim_key(&self, stage: u16, key: &Key, lineage: &Lineage) -> Result<Claim, StoreError> {
        claim(self.ask(Request::ClaimKey(self.run.clone(), stage, key.clone(), lineage.clone())).await?)
    }

    /// Takes many keys, one after the other; answers in their order.
    pub async fn claim_keys(&self, stage: u16, keys: Vec<(Key, Lineage)>) -> Result<Vec<Claim>, StoreError> {
        match self.ask(Request::ClaimKeys(self.run.clone(), stage, keys)).await? {
            Reply::Claims(claims) => Ok(claims),
            other => Err(defect(&other)),
        }
    }

    /// Takes an output path for an item of a stage; who comes first has it.
    pub async fn claim_output(
        &self,
        path: &str,
        stage: u16,
        key: &Key,
        lineage: &Lineage,
    ) -> Result<Claim, StoreError> {
        let request = Request::ClaimOutput(self.run.clone(), path.to_owned(), stage, key.clone(), lineage.clone());
        claim(self.ask(request).await?)
    }

    /// Records a written file; returns when it is accepted.
    pub async fn record_output(&self, output: OutputRecord) -> Result<(), StoreError> {
        done(self.ask(Request::RecordOutput(self.run.clone(), output)).await?)
    }

    /// The first files in the order of their paths, and how many there are.
    pub async fn outputs(&self, limit: usize) -> Result<(Vec<OutputRecord>, u64), StoreError> {
        match self.ask(Request::Outputs(self.run.clone(), limit)).await? {
            Reply::Outputs(first, total) => Ok((first, total)),
            other => Err(defect(&other)),
        }
    }

    /// One page of the values of ok rows in (lineage, stage, index) order, of all or of one group (gather, text). An
    /// empty page is the end; a short one is not.
    pub async fn values(
        &self,
        stages: &[u16],
        group: Option<(u16, &str)>,
        page: Page,
    ) -> Result<Vec<StoredValue>, StoreError> {
        values(self.ask(self.ask_values(stages, group, page)).await?)
    }

    /// [`RunStore::values`] for a CPU thread, which may block.
    pub fn values_blocking(
        &self,
        stages: &[u16],
        group: Option<(u16, &str)>,
        page: Page,
    ) -> Result<Vec<StoredValue>, StoreError> {
        values(self.ask_blocking(self.ask_values(stages, group, page))?)
    }

    /// All the values, read page by page, for a CPU thread. Ends behind an error.
    pub fn values_iter(
        &self,
        stages: &[u16],
        group: Option<(u16, &str)>,
    ) -> impl Iterator<Item = Result<StoredValue, StoreError>> + Send + use<> {
        let (store, stages, group) = (self.clone(), stages.to_vec(), owned(group));
        pages(
            move |after| store.values_blocking(&stages, borrowed(&group), Page { after, limit: PAGE_ROWS }),
            |last: &StoredValue| (last.lineage.clone(), last.stage, last.index),
        )
    }

    /// One page of the missing items of some stages in (stage, lineage) order, of all or of one group (gather, text).
    /// An empty page is the end; a short one is not.
    pub async fn failures(
        &self,
        stages: &[u16],
        group: Option<(u16, &str)>,
        page: Page,
    ) -> Result<Vec<StoredFailure>, StoreError> {
        failures(self.ask(self.ask_failures(stages, group, page)).await?)
    }

    /// [`RunStore::failures`] for a CPU thread, which may block.
    pub fn failures_blocking(
        &self,
        stages: &[u16],
        group: Option<(u16, &str)>,
        page: Page,
    ) -> Result<Vec<StoredFailure>, StoreError> {
        failures(self.ask_blocking(self.ask_failures(stages, group, page))?)
    }

    /// All the missing items, read page by page, for a CPU thread. Ends behind an error.
    pub fn failures_iter(
        &self,
        stages: &[u16],
        group: Option<(u16, &str)>,
    ) -> impl Iterator<Item = Result<StoredFailure, StoreError>> + Send + use<> {
        let (store, stages, group) = (self.clone(), stages.to_vec(), owned(group));
        pages(
            move |after| store.failures_blocking(&stages, borrowed(&group), Page { after, limit: PAGE_ROWS }),
            |last: &StoredFailure| (last.lineage.clone(), last.stage, 0),
        )
    }

    /// Puts members into groups of a gather; returns when they are accepted.
    pub async fn assign_groups(&self, gather: u16, members: Vec<GroupMember>) -> Result<(), StoreError> {
        done(self.ask(Request::AssignGroups(self.run.clone(), gather, members)).await?)
    }

    /// Texts of a gather's groups in byte order behind a text.
    pub async fn groups(&self, gather: u16, after: Option<&str>, limit: usize) -> Result<Vec<String>, StoreError> {
        match self.ask(Request::Groups(self.run.clone(), gather, after.map(str::to_owned), limit)).await? {
            Reply::Texts(texts) => Ok(texts),
            other => Err(defect(&other)),
        }
    }

    /// One page of the rows of a stage that wait, in (at, lineage) order behind a place. An empty page is the end.
    pub async fn deferred(
        &self,
        stage: u16,
        after: Option<(u64, Lineage)>,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        match self.ask(Request::Deferred(self.run.clone(), stage, after, limit)).await? {
            Reply::Rows(rows) => Ok(rows),
            other => Err(defect(&other)),
        }
    }

    /// Forgets all rows of the run.
    pub async fn forget(&self) -> Result<(), StoreError> {
        done(self.ask(Request::Forget(self.run.clone())).await?)
    }

    /// Asks the store. It may be of the caller's own making: its panic is an error of the store, whoever asks.
    async fn ask(&self, request: Request) -> Result<Reply, StoreError> {
        // Making the future is code of the store as well.
        let answer = AssertUnwindSafe(async { self.store.call(request).await }).catch_unwind().await;
        answer.unwrap_or_else(|panic| Err(panicked(panic)))
    }

    fn ask_blocking(&self, request: Request) -> Result<Reply, StoreError> {
        let answer = catch_unwind(AssertUnwindSafe(|| self.store.call_blocking(request)));
        answer.unwrap_or_else(|panic| Err(panicked(panic)))
    }

    fn ask_values(&self, stages: &[u16], group: Option<(u16, &str)>, page: Page) -> Request {
        Request::Values { run: self.run.clone(), stages: stages.to_vec(), group: owned(group), page }
    }

    fn ask_failures(&self, stages: &[u16], group: Option<(u16, &str)>, page: Page) -> Request {
        Request::Failures { run: self.run.clone(), stages: stages.to_vec(), group: owned(group), page }
    }
}

/// What a line of a log counts for, in bytes.
fn event_bytes(event: &RunEvent) -> u64 {
    let key = event.key.as_ref().map_or(0, |key| key.as_str().len());
    (32 + key + event.text.len()) as u64
}

/// Reads page after page, each from behind the place of the last row, until an empty one or an error.
fn pages<T>(
    mut next_page: impl FnMut(Option<(Lineage, u16, u32)>) -> Result<Vec<T>, StoreError>,
    place_of: fn(&T) -> (Lineage, u16, u32),
) -> impl Iterator<Item = Result<T, StoreError>> {
    let mut page: vec::IntoIter<T> = Vec::new().into_iter();
    let mut last = None;
    let mut is_over = false;
    iter::from_fn(move || {
        if page.as_slice().is_empty() && !is_over {
            match next_page(last.take()) {
                Ok(rows) => page = rows.into_iter(),
                Err(error) => {
                    is_over = true;
                    return Some(Err(error));
                }
            }
            last = page.as_slice().last().map(place_of);
            is_over = last.is_none();
        }
        page.next().map(Ok)
    })
}

fn owned(group: Option<(u16, &str)>) -> Option<(u16, String)> {
    group.map(|(gather, text)| (gather, text.to_owned()))
}

fn borrowed(group: &Option<(u16, String)>) -> Option<(u16, &str)> {
    group.as_ref().map(|(gather, text)| (*gather, text.as_str()))
}

fn done(reply: Reply) -> Result<(), StoreError> {
    match reply {
        Reply::Done => Ok(()),
        other => Err(defect(&other)),
    }
}

fn claim(reply: Reply) -> Result<Claim, StoreError> {
    match reply {
        Reply::Claim(claim) => Ok(claim),
        other => Err(defect(&other)),
    }
}

fn values(reply: Reply) -> Result<Vec<StoredValue>, StoreError> {
    match reply {
        Reply::Values(values) => Ok(values),
        other => Err(defect(&other)),
    }
}

fn failures(reply: Reply) -> Result<Vec<StoredFailure>, StoreError> {
    match reply {
        Reply::Failures(failures) => Ok(failures),
        other => Err(defect(&other)),
    }
}

fn panicked(panic: Box<dyn Any + Send>) -> StoreError {
    StoreError::Io(format!("it panicked: {}", panic_text(panic)))
}

/// A store that answers something else than was asked.
fn defect(reply: &Reply) -> StoreError {
    let kind = reply.kind();
    StoreError::Io(format!("it answered {kind} to another question: a defect of the store, please report it"))
}
