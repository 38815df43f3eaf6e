//! When a job is due: what authors write, checked, and the instants that follow from it. Nothing here looks at a clock:
//! every answer is a function of given times.

mod calendar;
mod circles;
mod cron;
mod due;
mod plan;
mod remarks;
mod timing;

pub use calendar::{Firing, Moved};
pub use circles::circles;
pub use due::{Calendar, seed};
pub use plan::{CatchUp, Lateness, Plan, Verdict, plan};
pub use remarks::{coming, remarks, rhythm};
pub use timing::{Overlap, Priority, Timing, Window};

use crate::{item::RunOutcome, units::Span};
use cron::Cron;
use std::{fmt, ops::Range, time::Duration};

crate::choice! {
    /// When a job is due, in its `timezone`.
    pub enum ScheduleSpec as "Schedule" {
        /// By the calendar: minute, hour, day of month, month, day of week; six fields begin with seconds.
        Cron(String) example "Cron(\"30 2 * * *\")",
        /// In a fixed rhythm, whatever the calendar says.
        Every(Span) example "Every(\"15m\")",
        /// Once, at a local time of the job's zone or an instant with an offset.
        At(String) example "At(\"2026-12-01T02:00\")",
        /// Once for each boot, that long after the daemon is ready.
        OnBoot(Span) example "OnBoot(\"2m\")",
        /// When a run of another job has ended.
        After { AfterSpec } example "After(job: \"nightly-vitals\")",
        /// Only when somebody runs it.
        Manual,
        /// Whenever one of several is due.
        AnyOf(Vec<ScheduleSpec>) example "AnyOf([Cron(\"30 2 * * *\"), OnBoot(\"2m\")])",
    }
}

crate::spec! {
    /// When a run of another job has ended.
    pub struct AfterSpec as "After" {
        /// The other job.
        job: String, example "\"nightly-vitals\"";
        /// How it must have ended.
        when: Option<Vec<EndSpec>>, default "[Succeeded, Partial]", example "[Failed, DeadlineExceeded]";
    }
}

crate::choice! {
    /// How a run, or a time at which none was started, ended.
    pub enum EndSpec as "Outcome" {
        /// Everything was done.
        Succeeded,
        /// Something is missing, no more than was tolerated.
        Partial,
        /// More is missing than was tolerated, or the report failed.
        Failed,
        /// The deadline passed before the end.
        DeadlineExceeded,
        /// Somebody cancelled it.
        Cancelled,
        /// It was cut short and will not be resumed.
        Interrupted,
        /// It crashed the program too often.
        Quarantined,
        /// It was due and never started.
        Missed,
    }
}

impl EndSpec {
    /// The outcome of a run that it means; `None` for a time at which none was started.
    pub fn outcome(&self) -> Option<RunOutcome> {
        match self {
            EndSpec::Succeeded => Some(RunOutcome::Succeeded),
            EndSpec::Partial => Some(RunOutcome::Partial),
            EndSpec::Failed => Some(RunOutcome::Failed),
            EndSpec::DeadlineExceeded => Some(RunOutcome::DeadlineExceeded),
            EndSpec::Cancelled => Some(RunOutcome::Cancelled),
            EndSpec::Interrupted => Some(RunOutcome::Interrupted),
            EndSpec::Quarantined => Some(RunOutcome::Quarantined),
            EndSpec::Missed => None,
        }
    }
}

impl fmt::Display for ScheduleSpec {
    /// As authors write it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ScheduleSpec::Cron(text) => write!(f, "Cron({text:?})"),
            ScheduleSpec::Every(period) => write!(f, "Every(\"{period}\")"),
            ScheduleSpec::At(text) => write!(f, "At({text:?})"),
            ScheduleSpec::OnBoot(delay) => write!(f, "OnBoot(\"{delay}\")"),
            ScheduleSpec::After(after) => match &after.when {
                None => write!(f, "After(job: {:?})", after.job),
                Some(when) => {
                    let when: Vec<String> = when.iter().map(|end| format!("{end:?}")).collect();
                    write!(f, "After(job: {:?}, when: [{}])", after.job, when.join(", "))
                }
            },
            ScheduleSpec::Manual => f.write_str("Manual"),
            ScheduleSpec::AnyOf(list) => {
                let list: Vec<String> = list.iter().map(ScheduleSpec::to_string).collect();
                write!(f, "AnyOf([{}])", list.join(", "))
            }
        }
    }
}

crate::choice! {
    /// Which of several missed times are made up for.
    pub enum CatchUpSpec as "CatchUp" {
        /// The newest one.
        Latest,
        /// The newest ones, oldest first.
        All { CatchUpAllSpec } example "All(max: 7)",
        /// None.
        Never,
    }
}

crate::spec! {
    /// The newest missed times, oldest first.
    pub struct CatchUpAllSpec as "All" {
        /// At most so many.
        max: u32, example "7";
    }
}

crate::choice! {
    /// What happens when the job is due while it runs.
    pub enum OverlapSpec as "Overlap" {
        /// The new one is skipped, and that is recorded.
        Skip,
        /// At most one waits, the newest; an older one is skipped.
        Queue,
        /// The running one is cancelled; one that is due later is not, and the new one is skipped.
        Replace,
        /// Both run.
        Allow { OverlapAllowSpec } example "Allow(max: 2)",
    }
}

crate::spec! {
    /// Several runs of the job at once.
    pub struct OverlapAllowSpec as "Allow" {
        /// At most so many.
        max: u32, example "2";
    }
}

crate::choice! {
    /// What happens to a time inside a blackout window.
    pub enum BlackoutPolicySpec as "BlackoutPolicy" {
        /// It is skipped, and that is recorded.
        Skip,
        /// It waits for the end of the window.
        Delay,
    }
}

crate::choice! {
    /// Who goes first when more jobs are due than may run.
    pub enum PrioritySpec as "Priority" {
        /// Before the others.
        High,
        /// The default.
        Normal,
        /// After the others.
        Low,
    }
}

/// A mistake in a schedule, or what in it is probably not meant so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The field that it is about.
    pub path: String,
    /// Bytes of the text at `path`.
    pub within: Option<Range<usize>>,
    /// What is wrong.
    pub message: String,
    /// What to write.
    pub help: String,
}

/// The shape of a schedule: fields of a cron expression, dates, durations. Instants are computed elsewhere.
pub fn check(spec: &ScheduleSpec, path: &str, mistakes: &mut Vec<Mistake>) {
    let mut add = |path: &str, within: Option<Range<usize>>, message: String, help: &str| {
        mistakes.push(Mistake { path: path.to_owned(), within, message, help: help.to_owned() });
    };
    match spec {
        ScheduleSpec::Cron(text) => {
            if let Err(wrong) = Cron::parse(text, 0) {
                add(path, wrong.within, wrong.message, &wrong.help);
            }
        }
        ScheduleSpec::Every(span) if span.is_zero() => {
            add(path, None, "a rhythm of no time".to_owned(), "write a duration such as `Every(\"15m\")`");
        }
        ScheduleSpec::At(text) => {
            let local = text.parse::<jiff::civil::DateTime>().is_ok();
            if !local && text.parse::<jiff::Timestamp>().is_err() {
                let help = "write `At(\"2026-12-01T02:00\")`, or with an offset `At(\"2026-12-01T02:00+01:00\")`";
                add(path, None, format!("{text:?} is no time"), help);
            }
        }
        ScheduleSpec::After(after) => {
            if after.job.trim().is_empty() {
                let help = "write `After(job: \"nightly-vitals\")`: the name of its file without `.ron`";
                add(&format!("{path}.job"), None, "no job is named".to_owned(), help);
            } else if let Some(stem) = after.job.strip_suffix(".ron") {
                let help = format!("write `job: {stem:?}`");
                add(&format!("{path}.job"), None, "a job is named without `.ron`".to_owned(), &help);
            }
            if after.when.as_ref().is_some_and(Vec::is_empty) {
                let help = "leave `when` out for [Succeeded, Partial], or name at least one";
                add(&format!("{path}.when"), None, "after no end at all the job is never due".to_owned(), help);
            }
        }
        ScheduleSpec::AnyOf(list) => {
            if list.is_empty() {
                add(
                    path,
                    None,
                    "`AnyOf` without a schedule is never due".to_owned(),
                    "name schedules, or write `Manual`",
                );
            }
            for (place, spec) in list.iter().enumerate() {
                check(spec, &format!("{path}[{place}]"), mistakes);
            }
        }
        _ => {}
    }
}

/// True when it is certain that the job is due again within less than `span` now and then.
pub fn is_due_within(spec: &ScheduleSpec, span: Duration) -> bool {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    match spec {
        ScheduleSpec::Every(every) => !every.is_zero() && every.get() < span,
        ScheduleSpec::Cron(text) => span >= DAY && Cron::parse(text, 0).is_ok_and(|cron| cron.times_a_day() > 1),
        ScheduleSpec::AnyOf(list) => list.iter().any(|spec| is_due_within(spec, span)),
        _ => false,
    }
}

/// Every job after whose end this schedule is due, with the path of its name.
pub fn jobs_before<'s>(spec: &'s ScheduleSpec, path: &str) -> Vec<(String, &'s str)> {
    match spec {
        ScheduleSpec::After(after) => vec![(format!("{path}.job"), &after.job)],
        ScheduleSpec::AnyOf(list) => {
            let inner = list.iter().enumerate();
            inner.flat_map(|(place, spec)| jobs_before(spec, &format!("{path}[{place}]"))).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(spec: ScheduleSpec) -> Vec<String> {
        let mut mistakes = Vec::new();
        check(&spec, "schedule", &mut mistakes);
        mistakes.into_iter().map(|mistake| format!("{}: {}", mistake.path, mistake.message)).collect()
    }

    #[test]
    fn a_schedule_has_its_shape() {
        let none: [String; 0] = [];
        assert_eq!(mistakes(ScheduleSpec::Cron("30 2 * * *".into())), none);
        assert_eq!(mistakes(ScheduleSpec::At("2026-12-01T02:00".into())), none);
        assert_eq!(mistakes(ScheduleSpec::At("2026-12-01T02:00:00+01:00".into())), none);
        assert_eq!(mistakes(ScheduleSpec::At("tomorrow".into())), ["schedule: \"tomorrow\" is no time"]);
        let nested = ScheduleSpec::AnyOf(vec![ScheduleSpec::Manual, ScheduleSpec::Cron("x".into())]);
        assert_eq!(mistakes(nested), ["schedule[1]: a cron expression has 5 fields, not 1"]);
    }

    #[test]
    fn what_is_due_more_than_once_a_day_is_due_within_a_day() {
        let day = Duration::from_secs(24 * 3600);
        let cron = |text: &str| ScheduleSpec::Cron(text.into());
        assert!(!is_due_within(&cron("30 2 * * *"), day));
        assert!(is_due_within(&cron("30 2,14 * * *"), day));
        assert!(!is_due_within(&cron("nonsense"), day));
        assert!(is_due_within(&ScheduleSpec::AnyOf(vec![ScheduleSpec::Manual, cron("@hourly")]), day));
        assert!(!is_due_within(&ScheduleSpec::Every("24h".parse().expect("a span")), day));
    }
}
