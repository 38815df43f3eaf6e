//! Typed questions above single runs: beginning, taking over, history, what jobs remember, what is forgotten.

use super::{
    Begun, Clocks, Copied, CopyPlan, FiringRow, Forgotten, Mark, NewRun, Notice, Reply, Request, Retained, Retention,
    RunDetails, RunEnd, RunHead, RunStore, Store, StoreError, TakenOver, defect, done, run::changed,
};
use crate::{
    item::{Key, Value},
    limits::PAGE_ROWS,
};
use std::sync::Arc;

/// What is kept of all runs. Cheap to clone.
///
/// Every method fails as [`StoreError`] says; none panics.
#[derive(Clone)]
pub struct State {
    store: Arc<dyn Store>,
}

impl State {
    /// What `store` keeps.
    pub fn new(store: Arc<dyn Store>) -> State {
        State { store }
    }

    /// The rows of a run.
    pub fn rows(&self, run: &str) -> RunStore {
        RunStore::new(self.store.clone(), run)
    }

    /// The id of this store, made when the store was.
    pub async fn instance(&self) -> Result<String, StoreError> {
        match self.store.call(Request::Instance).await? {
            Reply::Texts(mut texts) if texts.len() == 1 => Ok(texts.swap_remove(0)),
            other => Err(defect(&other)),
        }
    }

    /// Begins a run, on the disk before this returns. A firing that has begun before is not begun again.
    pub async fn begin(&self, run: NewRun) -> Result<Begun, StoreError> {
        match self.store.call(Request::Begin(Box::new(run))).await? {
            Reply::Begun(begun) => Ok(begun),
            other => Err(defect(&other)),
        }
    }

    /// Takes over a run that nobody works on, on the disk before this returns.
    pub async fn take_over(&self, run: &str, clocks: Clocks) -> Result<TakenOver, StoreError> {
        match self.store.call(Request::TakeOver(run.into(), clocks)).await? {
            Reply::TakenOver(answer) => Ok(answer),
            other => Err(defect(&other)),
        }
    }

    /// Settles a run that nobody works on and nobody will resume, as `interrupted`; on the disk before this returns. False
    /// when it has ended or a living process works on it.
    pub async fn interrupt(&self, run: &str, end: RunEnd) -> Result<bool, StoreError> {
        changed(self.store.call(Request::Interrupt(run.into(), Box::new(end))).await?)
    }

    /// All runs, of one job or all, that have not ended, oldest first.
    pub async fn unfinished(&self, job: Option<&str>) -> Result<Vec<RunHead>, StoreError> {
        let mut limit = PAGE_ROWS;
        loop {
            let found = heads(self.store.call(Request::Unfinished(job.map(str::to_owned), limit)).await?)?;
            if found.len() < limit {
                return Ok(found);
            }
            // They are few, but for a machine on which something is very wrong.
            limit *= 2;
        }
    }

    /// All notices that are still to be sent.
    pub async fn notices(&self) -> Result<Vec<Notice>, StoreError> {
        let mut limit = PAGE_ROWS;
        loop {
            match self.store.call(Request::Notices(limit)).await? {
                Reply::Notices(found) if found.len() < limit => return Ok(found),
                Reply::Notices(_) => limit *= 2,
                other => return Err(defect(&other)),
            }
        }
    }

    /// One page of runs, of one job or all, newest first, behind a run. An empty page is the end.
    pub async fn history(
        &self,
        job: Option<&str>,
        before: Option<&str>,
        limit: usize,
    ) -> Result<Vec<RunHead>, StoreError> {
        heads(self.store.call(Request::History(job.map(str::to_owned), before.map(Arc::from), limit)).await?)
    }

    /// One run, named by its id, or the last one of a job of that name.
    pub async fn details(&self, run_or_job: &str) -> Result<Option<RunDetails>, StoreError> {
        if let Some(found) = self.details_of(run_or_job.into()).await? {
            return Ok(Some(found));
        }
        match self.history(Some(run_or_job), None, 1).await?.pop() {
            Some(head) => self.details_of(head.run).await,
            None => Ok(None),
        }
    }

    /// Keeps a value for a key of a job, as of the due of the run that keeps it.
    pub async fn keep(&self, run: &str, job: &str, key: &Key, due_ms: i64, value: Value) -> Result<(), StoreError> {
        let request = Request::Keep { run: run.into(), job: job.to_owned(), key: key.clone(), due_ms, value };
        done(self.store.call(request).await?)
    }

    /// The newest value that a run of the job with an earlier due kept for a key.
    pub async fn state_of(&self, job: &str, key: &Key, due_ms: i64) -> Result<Option<Value>, StoreError> {
        match self.store.call(Request::StateOf(job.to_owned(), key.clone(), due_ms)).await? {
            Reply::Kept(value) => Ok(value),
            other => Err(defect(&other)),
        }
    }

    /// Begins a run that repeats another one: it takes over what was done. On the disk before this returns.
    pub async fn copy_for_retry(&self, plan: CopyPlan, run: NewRun) -> Result<Copied, StoreError> {
        match self.store.call(Request::CopyForRetry(plan, Box::new(run))).await? {
            Reply::Copied(copied) => Ok(copied),
            other => Err(defect(&other)),
        }
    }

    /// Forgets a key, and those below it, in every run that has ended and in what jobs remember.
    pub async fn forget_key(&self, key: &Key) -> Result<Forgotten, StoreError> {
        match self.store.call(Request::ForgetKey(key.clone())).await? {
            Reply::Forgotten(forgotten) => Ok(*forgotten),
            other => Err(defect(&other)),
        }
    }

    /// Lets go what retention does not keep, some of it: ask again while [`Retained::more`].
    pub async fn retain(&self, retention: Retention) -> Result<Retained, StoreError> {
        match self.store.call(Request::Retain(retention)).await? {
            Reply::Retained(retained) => Ok(retained),
            other => Err(defect(&other)),
        }
    }

    /// Keeps how far the times of jobs were considered, and the firings that came of it: a new one is written, one that waits
    /// comes to the end that it has here; one that has an end or a run stays as it is. On the disk, as a whole, before this
    /// returns. The firings that were written.
    pub async fn consider(&self, marks: Vec<Mark>, firings: Vec<FiringRow>) -> Result<Vec<FiringRow>, StoreError> {
        self.write_firings(marks, firings, Vec::new()).await
    }

    /// The ends of these runs were heard, and these firings came of it, as in [`State::consider`]. On the disk, as a whole,
    /// before this returns. The firings that were written.
    pub async fn hear(&self, runs: Vec<Arc<str>>, firings: Vec<FiringRow>) -> Result<Vec<FiringRow>, StoreError> {
        self.write_firings(Vec::new(), firings, runs).await
    }

    async fn write_firings(
        &self,
        marks: Vec<Mark>,
        firings: Vec<FiringRow>,
        heard: Vec<Arc<str>>,
    ) -> Result<Vec<FiringRow>, StoreError> {
        match self.store.call(Request::Consider(marks, firings.clone(), heard)).await? {
            Reply::Flags(written) if written.len() == firings.len() => {
                let written = firings.into_iter().zip(written);
                Ok(written.filter_map(|(firing, is_written)| is_written.then_some(firing)).collect())
            }
            other => Err(defect(&other)),
        }
    }

    /// The first runs that have ended and whose ends nobody has heard, in the order in which they began.
    pub async fn unheard(&self) -> Result<Vec<RunHead>, StoreError> {
        heads(self.store.call(Request::Unheard(PAGE_ROWS)).await?)
    }

    /// Everybody was told of a firing. On the disk before this returns; false when nobody was to be told.
    pub async fn firing_told(&self, job: &str, key: &str) -> Result<bool, StoreError> {
        changed(self.store.call(Request::FiringTold(job.to_owned(), key.to_owned())).await?)
    }

    /// All firings that somebody is still to be told of, in the order in which they came.
    pub async fn firings_to_tell(&self) -> Result<Vec<FiringRow>, StoreError> {
        let mut all: Vec<(u64, FiringRow)> = Vec::new();
        loop {
            let after = all.last().map(|(number, _)| *number);
            let page = firings(self.store.call(Request::FiringsToTell(after, PAGE_ROWS)).await?)?;
            if page.is_empty() {
                return Ok(all.into_iter().map(|(_, firing)| firing).collect());
            }
            all.extend(page);
        }
    }

    /// How far the times of each job were considered, by name.
    pub async fn marks(&self) -> Result<Vec<Mark>, StoreError> {
        match self.store.call(Request::Marks).await? {
            Reply::Marks(marks) => Ok(marks),
            other => Err(defect(&other)),
        }
    }

    /// All firings that wait, oldest first.
    pub async fn waiting_firings(&self) -> Result<Vec<FiringRow>, StoreError> {
        let mut all: Vec<(u64, FiringRow)> = Vec::new();
        loop {
            let after = all.last().map(|(number, firing)| (firing.due_ms, *number));
            let page = firings(self.store.call(Request::WaitingFirings(after, PAGE_ROWS)).await?)?;
            if page.is_empty() {
                return Ok(all.into_iter().map(|(_, firing)| firing).collect());
            }
            all.extend(page);
        }
    }

    /// One page of the firings that started no run, of one job or all, newest first, behind a number. An empty page is the
    /// end.
    pub async fn past_firings(
        &self,
        job: Option<&str>,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<(u64, FiringRow)>, StoreError> {
        firings(self.store.call(Request::PastFirings(job.map(str::to_owned), before, limit)).await?)
    }

    /// Somebody still needs a run that has ended: its notices are to be sent, a run that is open repeats it, or a firing that waits is
    /// due after it.
    pub async fn is_needed(&self, run: &str) -> Result<bool, StoreError> {
        match self.store.call(Request::IsNeeded(run.into())).await? {
            Reply::Flags(flags) if flags.len() == 1 => Ok(flags[0]),
            other => Err(defect(&other)),
        }
    }

    async fn details_of(&self, run: Arc<str>) -> Result<Option<RunDetails>, StoreError> {
        match self.store.call(Request::Details(run)).await? {
            Reply::Details(details) => Ok(details.map(|details| *details)),
            other => Err(defect(&other)),
        }
    }
}

fn firings(reply: Reply) -> Result<Vec<(u64, FiringRow)>, StoreError> {
    match reply {
        Reply::Firings(firings) => Ok(firings),
        other => Err(defect(&other)),
    }
}

fn heads(reply: Reply) -> Result<Vec<RunHead>, StoreError> {
    match reply {
        Reply::Heads(heads) => Ok(heads),
        other => Err(defect(&other)),
    }
}
