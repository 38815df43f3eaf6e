//! The workers of a stage: as many as may be open, started only when they are needed.

use super::{state::RunState, worker};
use crate::{
    flow::{Group, panic_text},
    world::plant::{Bug, planted},
};
use futures_lite::FutureExt;
use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Starts workers in the stage's group: at first as many as may work at once, and one more whenever an item begins to wait
/// and its permit lies idle, up to `workers + waiting` (the open permits of RUNS T2: a worker is one).
#[derive(Clone)]
pub struct SlotPool {
    run: Arc<RunState>,
    place: u16,
    group: Group,
    live: Arc<AtomicUsize>,
    most: usize,
}

impl SlotPool {
    pub fn new(run: &Arc<RunState>, place: u16, group: &Group) -> SlotPool {
        let plan = run.plan(place);
        let most = plan.workers + plan.waiting;
        SlotPool { run: run.clone(), place, group: group.clone(), live: Arc::default(), most }
    }

    /// Starts the first workers.
    pub fn start(&self) {
        for _ in 0..self.run.plan(self.place).workers {
            self.add();
        }
    }

    /// Starts one more if a work permit is free and nobody waits for it.
    pub fn add_if_spare(&self) {
        if self.run.stage(self.place).permits.has_spare() {
            self.add();
        }
    }

    fn add(&self) {
        let taken = self.live.fetch_update(Ordering::AcqRel, Ordering::Acquire, |live| {
            (live < self.most || planted(Bug::OpenUnbounded)).then_some(live + 1)
        });
        if taken.is_ok() {
            let (run, place) = (self.run.clone(), self.place);
            // Each future around it would hold it twice: as what it was given and as what it waits for.
            let work = Box::pin(worker::work_through(run.clone(), place, self.clone()));
            self.group.spawn(async move {
                let stage = run.stage(place).clone();
                let work = stage.inbox.telling_senders(work);
                if let Err(panic) = AssertUnwindSafe(work).catch_unwind().await
                    && !planted(Bug::PanicNotJoined)
                {
                    run.died(&format!("a worker of stage `{}`", run.stage(place).name), &panic_text(panic));
                }
            });
        }
    }
}
