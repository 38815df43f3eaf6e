//! Steering a run from anywhere: whoever awaits it is somebody else.

use super::{
    progress::Progress,
    state::{CancelReason, RunState},
};
use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
};

/// A handle of a run: it is looked at, cancelled, killed or stopped through it, from any thread. Cheap to clone. It does not
/// keep the run going, and after the run's end its calls do nothing; it keeps the run's state in memory.
///
/// What decides how the run ends: the first [`cancel`](RunHandle::cancel), wherever it came from, also one that comes during
/// a stop; without one a stop that left something undone; else what the stages have come to.
#[derive(Clone)]
pub struct RunHandle {
    state: Arc<RunState>,
}

impl RunHandle {
    pub(super) fn new(state: Arc<RunState>) -> RunHandle {
        RunHandle { state }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.state.context.id
    }

    /// Name of its job.
    pub fn job(&self) -> &str {
        &self.state.context.job
    }

    /// Root of its outputs.
    pub fn out(&self) -> &Path {
        &self.state.options.out
    }

    /// Where it stands now.
    pub fn progress(&self) -> Progress {
        Progress::of(&self.state)
    }

    /// True once how it ended is decided, and on the disk where it is kept; only its notices may still be on their way.
    pub fn is_settled(&self) -> bool {
        self.state.settled.load(Ordering::Acquire)
    }

    /// Cancels it: items settle at once, connections close, processes are asked to end and killed after the grace period.
    /// `by` completes "cancelled by …". The first reason stays. A run that stops is cancelled too, and not resumed: what the
    /// stop has left open is counted as never reached.
    ///
    /// When its stages have ended and only its notices are on their way, this ends the wait for them.
    pub fn cancel(&self, by: &str) {
        self.state.cancel(CancelReason::Asked(by.to_owned()));
        if self.is_settled() {
            self.state.killed.settle(());
        }
    }

    /// True once it was killed.
    pub fn is_killed(&self) -> bool {
        self.state.killed.is_settled()
    }

    /// Cancels it and kills what is left now. A run that stops is not cancelled by this, only hurried: it stays to be resumed.
    pub fn kill(&self, by: &str) {
        if self.state.is_stopping() {
            self.state.cut_stopped();
        } else {
            self.cancel(by);
        }
        self.state.killed.settle(());
        self.state.context.leftovers.kill_now();
    }

    /// Stops it, to be resumed by [`Runner::resume`](super::Runner::resume): its listings end at once, nothing is begun any
    /// more, and what waits is let go. Attempts that work may come to their end for half of the grace period, then they are
    /// cut; at the end of it what is left of their processes is killed. What is done is on the disk, what is not done stays
    /// open, and the run is let go: its record says [`Interrupted`](crate::item::RunOutcome::Interrupted), no notice is sent.
    /// One of which nothing was left undone ends as ever; its notices are left to
    /// [`Runner::send_notices`](super::Runner::send_notices). Deadlines hold all the same.
    ///
    /// A run that is not kept cannot be resumed: it is cancelled.
    pub fn stop(&self) {
        match self.state.kept {
            Some(_) => self.state.stop(),
            None => self.cancel("the stop of its program"),
        }
    }

    /// Nobody awaits the run any more.
    pub(super) fn dropped(&self) {
        if self.state.stop.is_settled() {
            self.state.cut_stopped();
        } else {
            self.state.cancel(CancelReason::Asked("the drop of its handle".to_owned()));
        }
    }
}
