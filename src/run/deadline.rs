//! The deadlines of stages and of the run (RUNS D1, D2).

use super::state::{CancelReason, RunState};
use crate::{
    action::Line,
    world::{
        Boot, Due,
        plant::{Bug, planted},
    },
};
use log::Level;
use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

/// Waits for the deadline of one stage, then closes the stage or cancels the run. Dropped when the run has ended.
pub async fn watch_stage(run: Arc<RunState>, place: u16) {
    let (stage, plan) = (run.stage(place).clone(), run.plan(place));
    let Some(bound) = plan.deadline else { return };
    let began = *stage.began.wait().await;
    run.world().until(Due::Boot(began + stage.left_of(bound))).await;
    // T3: until its last item is settled; delivery behind it is not its time.
    if !(stage.has_ended() || stage.all_settled() || stage.is_closed()) {
        end_time(&run, place, bound);
    }
}

/// In a run that goes on after the deadline of a stage nothing of the stage begins any more.
pub fn close_what_is_late(run: &Arc<RunState>, place: u16) {
    let (stage, plan) = (run.stage(place), run.plan(place));
    if let Some(bound) = plan.deadline.filter(|bound| stage.began.is_settled() && stage.left_of(*bound).is_zero()) {
        end_time(run, place, bound);
    }
}

/// A stage is at its deadline.
fn end_time(run: &Arc<RunState>, place: u16, bound: Duration) {
    let (stage, plan) = (run.stage(place), run.plan(place));
    let text = format!("stage is at its deadline of {bound:?}");
    run.context.journal.write(&Line::of_run(Level::Warn, &text).stage(place, &stage.name));
    if plan.on_deadline_continue {
        run.close(place);
    } else {
        run.cancel(CancelReason::StageDeadline(stage.name.to_string()));
    }
}

/// Waits for the run's deadline, then lets the report out of what is there, or cancels. Never ends by itself; dropped when
/// the run has ended.
pub async fn watch_run(run: Arc<RunState>) {
    let Some(deadline) = run.context.deadline else { return std::future::pending().await };
    let asleep = planted(Bug::DeadlineAwake).then(|| run.world().awake() + deadline.since(run.started));
    run.world().until(asleep.map_or(Due::Boot(deadline), Due::Awake)).await;
    let running: Vec<u16> = places(&run).filter(|at| !run.stage(*at).has_ended()).collect();
    if running.is_empty() {
        // The last stage has ended in this tick, and nobody has looked yet.
        return std::future::pending().await;
    }
    run.deadline_passed.store(true, Ordering::Release);
    for place in &running {
        if run.plan(*place).on_deadline_continue && !run.plan(*place).is_gather() {
            run.close(*place);
        }
    }
    let spared = spared(&run);
    if running.iter().any(|at| !spared.contains(at)) {
        run.cancel(CancelReason::RunDeadline);
        return std::future::pending().await;
    }
    let grace = run.context.grace;
    hold(&run, deadline + grace / 2).await;
    // Listings go on after a close so that gaps have names, but the report must come out before the end.
    for place in places(&run).filter(|at| run.plan(*at).is_source() && !run.stage(*at).has_ended()) {
        run.close(place);
    }
    hold(&run, deadline + grace).await;
    // The grace period is over: what is cut now is not asked again.
    run.context.leftovers.kill_now();
    run.cancel(CancelReason::RunDeadline);
    std::future::pending().await
}

async fn hold(run: &RunState, until: Boot) {
    run.world().until(Due::Boot(until)).await;
}

fn places(run: &RunState) -> impl Iterator<Item = u16> + use<> {
    0..run.stages.len() as u16
}

/// Stages that may go on after the run's deadline: gathers, what is closed, what feeds only closed stages, and what stands
/// behind a gather or a closed stage.
fn spared(run: &RunState) -> BTreeSet<u16> {
    let mut spared = BTreeSet::new();
    for place in places(run) {
        let plan = run.plan(place);
        let feeds_closed = run.all_readers_are_closed(place);
        let behind = run.job.ancestors(place).iter().any(|at| run.plan(*at).is_gather() || run.stage(*at).is_closed());
        if plan.is_gather() || run.stage(place).is_closed() || feeds_closed || behind {
            spared.insert(place);
        }
    }
    spared
}
