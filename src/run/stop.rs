//! The stop of a run that is kept: what is done stays done, what is not stays open, and the next pass goes on with it (RUNS
//! section 6).

use super::state::{RunState, StageState};
use crate::{action::Line, item::Outcome, store::StoreError};
use futures_lite::FutureExt;
use log::Level;
use std::{
    future::{Future, pending},
    sync::{Arc, atomic::Ordering},
};

impl StageState {
    /// Items that arrived and have no end: a stop has left them, or they wait in the store.
    pub fn left_open(&self) -> u64 {
        self.left.load(Ordering::Acquire) + self.deferred.load(Ordering::Acquire)
    }
}

impl RunState {
    /// Nothing is begun any more; what works has half of the grace period.
    pub fn stop(&self) {
        if self.stop.settle(()) {
            self.close_inboxes();
        }
    }

    /// What works is cut, too.
    pub fn cut_stopped(&self) {
        if self.stop_cut.settle(()) {
            self.close_inboxes();
        }
    }

    /// What is not done stays open: the run stops, and was not cancelled.
    pub fn is_stopping(&self) -> bool {
        self.stop.is_settled() && self.cancel.get().is_none()
    }

    /// Ready when every inbox is closed: the run is cancelled or stops.
    pub fn takes_no_more(&self) -> impl Future<Output = ()> {
        let cancelled = async {
            self.cancel.wait().await;
        };
        let stopped = async {
            self.stop.wait().await;
        };
        cancelled.or(stopped)
    }

    /// Says that the stop has kept a stage from doing all that it should.
    pub fn leave(&self, place: u16) {
        if self.is_stopping() {
            self.stage(place).unfinished.store(true, Ordering::Release);
        }
    }

    /// Whether the feed of a stage must end now; in a stop the stage is left unfinished.
    pub fn cuts_feed(&self, place: u16) -> bool {
        self.leave(place);
        self.stop.is_settled() || self.cancel.get().is_some()
    }

    /// Whether a stop has left something of a stage undone, whose tasks are joined: then its readers are not done either.
    pub fn leaves_unfinished(&self, place: u16) -> bool {
        let stage = self.stage(place);
        let is_unfinished = |stage: &StageState| stage.unfinished.load(Ordering::Acquire);
        if self.is_stopping()
            && (stage.left_open() > 0 || self.plan(place).from.iter().any(|parent| is_unfinished(self.stage(*parent))))
        {
            stage.unfinished.store(true, Ordering::Release);
            stage.incomplete.store(true, Ordering::Release);
        }
        is_unfinished(stage)
    }

    /// The clock of a stop, from when it is asked for to the end of the run. Never ends by itself.
    pub async fn watch_stop<T>(&self) -> T {
        self.stop.wait().await;
        let half = self.context.grace / 2;
        self.context.journal.write(&Line::of_run(Level::Info, &format!("run stops: what works has {half:?}")));
        let hurried = async {
            self.stop_cut.wait().await;
        };
        let begun = self.world().awake();
        self.world().sleep(half).or(hurried).await;
        self.cut_stopped();
        let left = self.context.grace.saturating_sub(self.world().awake().since(begun));
        self.world().sleep(left).await;
        self.context.leftovers.kill_now();
        pending().await
    }

    /// A run that was cancelled in its stop is not resumed: what the stop had let go ends as what was never taken, and what
    /// waits in the store as what was cancelled.
    pub async fn settle_left(self: &Arc<RunState>) {
        if !self.stop.is_settled() || self.cancel.get().is_none() {
            return;
        }
        for stage in &self.stages {
            let left = stage.left.swap(0, Ordering::AcqRel);
            for _ in 0..left {
                stage.counts().settle(Outcome::NotReached, 0);
            }
            let rounds = async {
                while stage.deferred.load(Ordering::Acquire) > 0 {
                    super::deferred::run_round(self, stage.place).await;
                }
            };
            if self.answered(rounds).await.is_none() {
                return;
            }
        }
    }

    /// Lets the run go, to be resumed. When this returns all that was done is on the disk.
    pub async fn release(&self) -> Result<(), StoreError> {
        let Some(kept) = &self.kept else { return Ok(()) };
        match self.kept_in_time(kept.rows.release()).await.unwrap_or_else(super::silent)? {
            true => Ok(()),
            false => Err(StoreError::Io("another process has taken the run over".to_owned())),
        }
    }
}
