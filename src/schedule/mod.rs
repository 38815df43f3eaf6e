//! When a job is due: what authors write, checked for its shape.

use crate::{problem::closest, units::Span};

crate::choice! {
    /// When a job is due, in its `timezone`.
    pub enum ScheduleSpec as "Schedule" {
        /// By the calendar: minute, hour, day of month, month, day of week; six fields begin with seconds.
        Cron(String),
        /// In a fixed rhythm, whatever the calendar says.
        Every(Span),
        /// Once, at a local time of the job's zone or an instant with an offset.
        At(String),
        /// Once for each boot, that long after the daemon is ready.
        OnBoot(Span),
        /// When a run of another job has ended.
        After { AfterSpec },
        /// Only when somebody runs it.
        Manual,
        /// Whenever one of several is due.
        AnyOf(Vec<ScheduleSpec>),
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

crate::choice! {
    /// Which of several missed times are made up for.
    pub enum CatchUpSpec as "CatchUp" {
        /// The newest one.
        Latest,
        /// The newest ones, oldest first.
        All { CatchUpAllSpec },
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
        /// At most one waits.
        Queue,
        /// The running one is cancelled.
        Replace,
        /// Both run.
        Allow { OverlapAllowSpec },
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

/// A mistake in a schedule: where below the schedule's own path, what, and what to write.
pub type Mistake = (String, String, Option<String>);

/// The shape of a schedule: fields of a cron expression, dates, durations. Instants are computed elsewhere.
pub fn check(spec: &ScheduleSpec, path: &str, mistakes: &mut Vec<Mistake>) {
    let mut add = |what: String, help: Option<&str>| mistakes.push((path.to_owned(), what, help.map(str::to_owned)));
    match spec {
        ScheduleSpec::Cron(text) => {
            if let Some((what, help)) = cron_shape(text) {
                add(what, help.as_deref());
            }
        }
        ScheduleSpec::Every(span) | ScheduleSpec::OnBoot(span) if span.is_zero() => {
            add("a rhythm of no time".to_owned(), Some("write a duration such as \"15m\""));
        }
        ScheduleSpec::At(text) => {
            let local = text.parse::<jiff::civil::DateTime>().is_ok();
            if !local && text.parse::<jiff::Timestamp>().is_err() {
                add(
                    format!("{text:?} is no time"),
                    Some("write At(\"2026-12-01T02:00\"), or with an offset: \"2026-12-01T02:00+01:00\""),
                );
            }
        }
        ScheduleSpec::AnyOf(list) => {
            if list.is_empty() {
                add("AnyOf without a schedule never fires".to_owned(), Some("write Manual"));
            }
            for (place, spec) in list.iter().enumerate() {
                check(spec, &format!("{path}[{place}]"), mistakes);
            }
        }
        _ => {}
    }
}

const MACROS: [&str; 7] = ["@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually"];

fn cron_shape(text: &str) -> Option<(String, Option<String>)> {
    let text = text.trim();
    if let Some(rest) = text.strip_prefix("@every") {
        return Some(("@every is no cron expression".into(), Some(format!("write Every({:?})", rest.trim()))));
    }
    if text == "@reboot" {
        return Some(("@reboot is no cron expression".into(), Some("write OnBoot(\"2m\")".into())));
    }
    if text.starts_with('@') {
        if MACROS.contains(&text) {
            return None;
        }
        let help = closest(text, MACROS.iter().copied()).map(|near| format!("did you mean {near}?"));
        return Some((
            format!("{text} is not known"),
            help.or_else(|| Some(format!("known are {}", MACROS.join(", ")))),
        ));
    }
    let fields: Vec<&str> = text.split_whitespace().collect();
    let order = "minute hour day-of-month month day-of-week";
    match fields.len() {
        5 | 6 => {}
        7 => return Some(("a cron expression has no year".into(), Some(format!("write five fields: {order}")))),
        n => return Some((format!("a cron expression has 5 fields, not {n}"), Some(format!("write {order}")))),
    }
    let strange =
        fields.iter().find(|field| field.chars().any(|c| !(c.is_ascii_alphanumeric() || "*/,-?#+()".contains(c))));
    strange.map(|field| (format!("{field:?} is no field of a cron expression"), Some(format!("write {order}"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(spec: ScheduleSpec) -> Vec<Mistake> {
        let mut mistakes = Vec::new();
        check(&spec, "schedule", &mut mistakes);
        mistakes
    }

    #[test]
    fn a_schedule_has_its_shape() {
        for good in [
            "30 2 * * *",
            "*/5 * * * MON-FRI",
            "0 30 2 * * *",
            "@daily",
            "H(0-29) 2 * * *",
            "0 0 L * FRIL",
            "0 0 1 * +MON#2",
        ] {
            assert_eq!(mistakes(ScheduleSpec::Cron(good.into())), [], "{good}");
        }
        for (bad, what) in [
            ("30 2 * *", "a cron expression has 5 fields, not 4"),
            ("0 30 2 * * * 2026", "a cron expression has no year"),
            ("@dayly", "@dayly is not known"),
            ("@reboot", "@reboot is no cron expression"),
            ("30 2 * * $", "\"$\" is no field of a cron expression"),
        ] {
            assert_eq!(mistakes(ScheduleSpec::Cron(bad.into()))[0].1, what, "{bad}");
        }
        assert_eq!(mistakes(ScheduleSpec::At("2026-12-01T02:00".into())), []);
        assert_eq!(mistakes(ScheduleSpec::At("2026-12-01T02:00:00+01:00".into())), []);
        assert_eq!(mistakes(ScheduleSpec::At("tomorrow".into()))[0].1, "\"tomorrow\" is no time");
        let nested = ScheduleSpec::AnyOf(vec![ScheduleSpec::Manual, ScheduleSpec::Cron("x".into())]);
        assert_eq!(mistakes(nested)[0].0, "schedule[1]");
    }
}
