//! How a run ended, and why, in a sentence (RUNS D4).

use super::state::{CancelReason, RunState, lock};
use crate::{
    item::RunOutcome,
    world::plant::{Bug, planted},
};
use std::sync::atomic::Ordering;

/// The outcome of a run whose stages have all ended, or were left unfinished by a stop.
pub fn decide(run: &RunState) -> (RunOutcome, Option<String>) {
    if let Some(reason) = run.cancel.get().filter(|_| !planted(Bug::LaterReasonWins) || lock(&run.broken).is_none()) {
        return of_cancel(run, reason);
    }
    if run.stages.iter().any(|stage| stage.unfinished.load(Ordering::Acquire)) {
        return (RunOutcome::Interrupted, Some("stopped: it will be resumed".to_owned()));
    }
    if run.deadline_passed.load(Ordering::Acquire) && !planted(Bug::LateIsFine) {
        return (RunOutcome::DeadlineExceeded, Some("the deadline passed before the last stage ended".to_owned()));
    }
    if let Some(what) = lock(&run.broken).clone() {
        return (RunOutcome::Failed, Some(what));
    }
    for (stage, plan) in run.stages.iter().zip(&run.job.stages) {
        let counts = stage.snapshot();
        if matches!(plan.kind, crate::job::StageKind::GatherAll) && counts.missing() > 0 {
            return (
                RunOutcome::Failed,
                Some(format!("the gather `{}` failed{}", stage.name, first_failure(run, stage.place))),
            );
        }
    }
    let mut missing = Vec::new();
    for (stage, plan) in run.stages.iter().zip(&run.job.stages) {
        let counts = stage.snapshot();
        if counts.missing() > 0 {
            missing.push(format!(
                "{} of {} items of stage `{}` are missing",
                counts.missing(),
                counts.items,
                stage.name
            ));
        }
        let one_more = u64::from(planted(Bug::ToleranceOffByOne) && counts.missing() > 0);
        if plan.tolerate.exceeded(counts.missing() + one_more, counts.items) {
            let (outcome, closed) = if stage.is_closed() {
                (RunOutcome::DeadlineExceeded, ": its deadline closed it")
            } else {
                (RunOutcome::Failed, "")
            };
            let counts =
                format!("{} of {} items of stage `{}` are missing", counts.missing(), counts.items, stage.name);
            let (tolerate, first) = (&plan.tolerate, first_failure(run, stage.place));
            return (outcome, Some(format!("{counts}: more than it tolerates ({tolerate}){closed}{first}")));
        }
        if !counts.complete && plan.is_source() {
            missing.push(format!("the listing of stage `{}` was cut at its deadline", stage.name));
        }
    }
    if missing.is_empty() { (RunOutcome::Succeeded, None) } else { (RunOutcome::Partial, Some(missing.join("; "))) }
}

fn of_cancel(run: &RunState, reason: &CancelReason) -> (RunOutcome, Option<String>) {
    match reason {
        CancelReason::Asked(by) => (RunOutcome::Cancelled, Some(format!("cancelled by {by}"))),
        CancelReason::RunDeadline => {
            (RunOutcome::DeadlineExceeded, Some("the deadline passed while stages still ran".to_owned()))
        }
        CancelReason::StageDeadline(stage) => {
            (RunOutcome::DeadlineExceeded, Some(format!("the deadline of stage `{stage}` passed")))
        }
        CancelReason::FailFast(stage) => (RunOutcome::Failed, Some(fail_fast(run, stage))),
        CancelReason::Broken(failure) => (RunOutcome::Failed, Some(failure.to_string())),
    }
}

/// Why a stage with `fail_fast` cancelled the run: its listing, or the first item that it misses.
fn fail_fast(run: &RunState, name: &str) -> String {
    let listing = format!("the listing of stage `{name}` failed");
    if let Some(broken) = lock(&run.broken).as_ref().filter(|what| what.starts_with(&listing)) {
        return format!("{broken} (fail_fast)");
    }
    let place = run.stages.iter().find(|stage| &*stage.name == name).map(|stage| stage.place);
    let first = place.map(|place| first_failure(run, place)).unwrap_or_default();
    format!("stage `{name}` misses more than it tolerates (fail_fast){first}")
}

fn first_failure(run: &RunState, place: u16) -> String {
    let failures = lock(&run.failures);
    let first = failures.iter().find(|((at, _), _)| *at == place).map(|(_, failure)| failure);
    first.map_or_else(String::new, |failure| {
        if failure.message.is_empty() {
            format!("; first: {} {}", failure.key, failure.class)
        } else {
            format!("; first: {} {}: {}", failure.key, failure.class, failure.message)
        }
    })
}
