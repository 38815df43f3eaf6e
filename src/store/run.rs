//! Typed questions of one run that is kept: how far it was, what is left to do, what it said.

use super::{
    EventQuery, Reply, Request, RowHead, RowQuery, RunEnd, RunEvent, RunStore, StoreError, Tally, Unsettled, defect,
    done,
};
use crate::item::Lineage;

impl RunStore {
    /// Says that a stage has begun, after so many milliseconds of the run and at this time of the wall clock. The first
    /// word stands.
    pub async fn stage_began(&self, stage: u16, ran_ms: u64, wall_ms: i64) -> Result<(), StoreError> {
        done(self.ask(Request::StageBegan(self.run.clone(), stage, ran_ms, wall_ms)).await?)
    }

    /// Says that the listing of a source has ended, behind all rows that were put before.
    pub async fn listing_done(&self, source: u16) -> Result<(), StoreError> {
        done(self.ask(Request::ListingDone(self.run.clone(), source)).await?)
    }

    /// Forgets the missing rows of a source whose listing is read again; the first ordinal that no row of it has had. Asked
    /// before the stage is counted.
    pub async fn relist(&self, source: u16) -> Result<u64, StoreError> {
        match self.ask(Request::Relist(self.run.clone(), source)).await? {
            Reply::Ordinal(ordinal) => Ok(ordinal),
            other => Err(defect(&other)),
        }
    }

    /// Counts of a stage from its rows.
    pub async fn tally(&self, stage: u16) -> Result<Tally, StoreError> {
        match self.ask(Request::Tally(self.run.clone(), stage)).await? {
            Reply::Tally(tally) => Ok(tally),
            other => Err(defect(&other)),
        }
    }

    /// One page of the ok items of `parent` that an earlier pass wrote and that have children of which `stage` has no row,
    /// in lineage order. A child that waits for a retry has a row: see [`RunStore::deferred`]. An empty page is the end.
    pub async fn unsettled(
        &self,
        parent: u16,
        stage: u16,
        after: Option<Lineage>,
        limit: usize,
    ) -> Result<Vec<Unsettled>, StoreError> {
        let request = Request::Unsettled { run: self.run.clone(), parent, stage, after, limit };
        match self.ask(request).await? {
            Reply::Unsettled(items) => Ok(items),
            other => Err(defect(&other)),
        }
    }

    /// Which of these items of a stage have a terminal row, in the order of the question.
    pub async fn settled(&self, stage: u16, lineages: Vec<Lineage>) -> Result<Vec<bool>, StoreError> {
        match self.ask(Request::Settled(self.run.clone(), stage, lineages)).await? {
            Reply::Flags(flags) => Ok(flags),
            other => Err(defect(&other)),
        }
    }

    /// Settles the run with its notices, committed when this returns. False when it is not this process that works on it:
    /// nothing was changed.
    pub async fn end(&self, end: RunEnd) -> Result<bool, StoreError> {
        changed(self.ask(Request::End(self.run.clone(), Box::new(end))).await?)
    }

    /// Lets the run go, to be resumed; committed when this returns. False when it is not this process that works on it.
    pub async fn release(&self) -> Result<bool, StoreError> {
        changed(self.ask(Request::Release(self.run.clone())).await?)
    }

    /// Says that the notice at a place was sent, committed when this returns. False when none was to be sent.
    pub async fn notice_done(&self, place: u16) -> Result<bool, StoreError> {
        changed(self.ask(Request::NoticeDone(self.run.clone(), place)).await?)
    }

    /// One page of rows without their values. An empty page is the end.
    pub async fn row_heads(&self, query: RowQuery) -> Result<Vec<RowHead>, StoreError> {
        row_heads(self.ask(Request::RowHeads(self.run.clone(), query)).await?)
    }

    /// The rows of the run, or of one stage, that took longest, the longest first.
    pub async fn slowest(&self, stage: Option<u16>, limit: usize) -> Result<Vec<RowHead>, StoreError> {
        row_heads(self.ask(Request::Slowest(self.run.clone(), stage, limit)).await?)
    }

    /// Adds lines to the run's log; returns when they are accepted. The oldest make room:
    /// [`crate::limits::EVENTS_BYTES_MAX`].
    pub async fn add_events(&self, events: Vec<RunEvent>) -> Result<(), StoreError> {
        done(self.ask(Request::AddEvents(self.run.clone(), events)).await?)
    }

    /// One page of the run's log, oldest first, with the numbers of the lines. An empty page is the end.
    pub async fn events(&self, query: EventQuery) -> Result<Vec<(u64, RunEvent)>, StoreError> {
        match self.ask(Request::Events(self.run.clone(), query)).await? {
            Reply::Events(events) => Ok(events),
            other => Err(defect(&other)),
        }
    }
}

/// What was asked for was done, or was not as it was supposed.
pub(super) fn changed(reply: Reply) -> Result<bool, StoreError> {
    match reply {
        Reply::Changed(changed) => Ok(changed),
        other => Err(defect(&other)),
    }
}

fn row_heads(reply: Reply) -> Result<Vec<RowHead>, StoreError> {
    match reply {
        Reply::RowHeads(rows) => Ok(rows),
        other => Err(defect(&other)),
    }
}
