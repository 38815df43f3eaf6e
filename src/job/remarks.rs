//! What of a job's schedule is probably not meant so, though it can run.

use super::{Job, check::in_order, spec::JobSpec};
use crate::{
    lang::{Finding, Level},
    limits::LONG_RUN_FACTOR,
    problem::{Problem, Source},
    schedule::{self, Mistake, OverlapSpec, ScheduleSpec},
    units::Span,
};
use std::time::Duration;

/// What its text alone says.
pub fn of_schedule(spec: &JobSpec, schedule: &ScheduleSpec) -> Vec<Finding> {
    let told = schedule::remarks(schedule, "schedule").into_iter().map(remark);
    told.chain(long_beside_its_rhythm(spec, schedule)).collect()
}

/// What comes within a year of `now`.
pub fn coming(job: &Job, source: &Source, now: jiff::Timestamp) -> Vec<Problem> {
    let found = schedule::coming(&job.timing, &job.zone, job.deadline, now);
    in_order(found.into_iter().map(remark).collect(), source)
}

fn remark(Mistake { path, within, message, help }: Mistake) -> Finding {
    Finding { level: Level::Remark, path, within, message, help: Some(help) }
}

/// A job that is due all the time, and whose runs may last much longer than the rest between two.
fn long_beside_its_rhythm(spec: &JobSpec, schedule: &ScheduleSpec) -> Option<Finding> {
    let (rhythm, deadline) = schedule::rhythm(schedule).zip(spec.deadline.map(Span::get))?;
    let overlaps = matches!(spec.overlap, Some(OverlapSpec::Allow(_) | OverlapSpec::Replace));
    if overlaps || rhythm > Duration::from_secs(60) || deadline <= rhythm * LONG_RUN_FACTOR {
        return None;
    }
    let (rhythm, deadline) = (Span::new(rhythm), Span::new(deadline));
    let message = format!(
        "it is due every {rhythm}, and a run may last {deadline}: while one hangs all that come meanwhile are skipped"
    );
    let help = format!("write a shorter one, such as `deadline: \"{rhythm}\"`");
    Some(remark(Mistake { path: "deadline".to_owned(), within: None, message, help }))
}
