//! A run as a snapshot that is overwritten: no watcher can slow a run.

use super::state::RunState;
use crate::item::Counts;
use serde::{Deserialize, Serialize};
use std::{sync::atomic::Ordering, time::Duration};

/// Where a run stands now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Since it started, on the boot clock.
    pub elapsed: Duration,
    /// Until its deadline; zero past it.
    pub left: Option<Duration>,
    /// It was cancelled or stopped, and is ending.
    pub ending: bool,
    /// Stages in the order of the job file, without hidden ones.
    pub stages: Vec<StageProgress>,
}

/// Where a stage stands now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageProgress {
    /// Its name.
    pub name: String,
    /// It only lists.
    pub source: bool,
    /// Outcomes so far; `items` = arrived so far.
    pub counts: Counts,
    /// No more items will arrive: `counts.items` is the total.
    pub total_known: bool,
    /// Items with a work permit.
    pub working: u64,
    /// Items that wait: for a retry, a rate, a place, in memory or in the store.
    pub waiting: u64,
    /// It has begun.
    pub began: bool,
    /// It was closed by a deadline.
    pub closed: bool,
    /// It has ended.
    pub ended: bool,
    /// Since it began.
    pub elapsed: Duration,
}

impl Progress {
    /// Reads the state of a run.
    pub(super) fn of(run: &RunState) -> Progress {
        let now = run.world().boot();
        let stages = run.stages.iter().zip(&run.job.stages).filter(|(_, plan)| !plan.hidden);
        let stages = stages.map(|(stage, plan)| {
            let open = stage.open();
            let working = (stage.permits.working() as u64).min(open);
            StageProgress {
                name: stage.name.to_string(),
                source: plan.is_source(),
                counts: stage.snapshot(),
                total_known: stage.fed.load(Ordering::Acquire),
                working,
                waiting: open - working + stage.deferred.load(Ordering::Relaxed),
                began: stage.began.is_settled(),
                closed: stage.is_closed(),
                ended: stage.has_ended() && !stage.unfinished.load(Ordering::Acquire),
                elapsed: stage.began.get().map_or(Duration::ZERO, |began| now.since(*began)),
            }
        });
        Progress {
            elapsed: now.since(run.started),
            left: run.context.deadline.map(|deadline| deadline.since(now)),
            ending: run.cancel.is_settled() || run.stop.is_settled(),
            stages: stages.collect(),
        }
    }
}
