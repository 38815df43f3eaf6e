//! Runs in a list.

use super::{
    Standing,
    ink::{Ink, Tone, cells},
    span, tone_of, words,
};
use crate::item::RunOutcome;
use serde::{Serialize, Serializer};
use std::{fmt::Write, time::Duration};

/// A run in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Past {
    /// Its id.
    pub run: String,
    /// Name of its job.
    pub job: String,
    /// What started it.
    pub trigger: String,
    /// How it stands.
    pub state: Standing,
    /// RFC 3339 with an offset.
    pub started: String,
    /// How long it has run in all its passes.
    #[serde(rename = "ran_ms", serialize_with = "millis")]
    pub ran: Duration,
    /// How it ended.
    pub outcome: Option<RunOutcome>,
    /// Why.
    pub reason: Option<String>,
    /// The run that it repeats.
    pub repeats: Option<String>,
    /// How often a process died over it.
    pub crashes: u32,
    /// `run --resume` goes on with it, when it is the last one of its job.
    pub is_resumable: bool,
    /// It listed nothing, and stands for the runs before it that did not either.
    pub folded: Option<PastRuns>,
}

/// Runs that listed nothing, of which the last stands for all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PastRuns {
    /// How many they are.
    pub runs: u64,
    /// When the first one started: RFC 3339 with an offset.
    pub first: String,
}

/// A time of a job, or several of them, at which no run was started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PastFiring {
    /// Name of its job.
    pub job: String,
    /// What would have started the run.
    pub trigger: String,
    /// `skipped`: it came in time; `missed`: nobody looked then.
    pub end: &'static str,
    /// When it was due, the first of several: RFC 3339 with an offset.
    pub due: String,
    /// When the last of several was due.
    pub last_due: String,
    /// How many there are; `None`: too many to look at.
    pub count: Option<u64>,
    /// Why, in a word: `down`, `overlap`.
    pub reason: Option<String>,
}

/// A line of the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A run.
    Run(Past),
    /// A time that started none.
    Firing(PastFiring),
}

impl Entry {
    fn job(&self) -> &str {
        match self {
            Entry::Run(run) => &run.job,
            Entry::Firing(firing) => &firing.job,
        }
    }

    /// How it ended, with its colour and its mark.
    fn word(&self) -> (Tone, &'static str, String) {
        match self {
            Entry::Run(run) => match (run.state, run.outcome) {
                (Standing::Ended, Some(outcome)) => (tone_of(outcome), "●", words(outcome)),
                (Standing::Running, _) => (Tone::Busy, "●", "running".to_owned()),
                _ => (Tone::Warn, "●", "interrupted".to_owned()),
            },
            Entry::Firing(firing) => (Tone::Warn, "○", firing.end.to_owned()),
        }
    }

    fn ran(&self) -> String {
        match self {
            Entry::Run(run) => span(run.ran),
            Entry::Firing(_) => "-".to_owned(),
        }
    }

    /// What stands in the second line.
    fn below(&self) -> String {
        match self {
            Entry::Run(run) => {
                let mut below = run.run.clone();
                if let Some(parent) = &run.repeats {
                    let _ = write!(below, "  repeats {parent}");
                }
                if let Some(folded) = &run.folded {
                    let _ = write!(below, "  {}", nothing_listed(folded));
                }
                if let Some(reason) = &run.reason {
                    let _ = write!(below, "  {reason}");
                }
                if run.is_resumable {
                    let _ = write!(below, "  `run {} --resume` goes on with it", run.job);
                }
                below
            }
            Entry::Firing(firing) => {
                let mut below = firing.reason.as_deref().map_or_else(String::new, |reason| why(reason).to_owned());
                let times = firing.count.map_or("very many".to_owned(), |count| count.to_string());
                if firing.count != Some(1) {
                    let _ = write!(below, "  {times} times, the last {}", readable(&firing.last_due));
                }
                below
            }
        }
    }
}

/// `nothing to do`, and how often.
pub fn nothing_listed(folded: &PastRuns) -> String {
    match folded.runs {
        1 => "nothing to do".to_owned(),
        runs => format!("nothing to do, {runs} times since {}", readable(&folded.first)),
    }
}

/// Why a time has started no run, in words.
fn why(reason: &str) -> &str {
    match reason {
        "down" => "no `serve` ran",
        "asleep" => "the machine slept",
        "busy" => "`serve` came too late",
        "clock" => "the clock was set past it",
        "overlap" => "the run before had not ended",
        "superseded" => "a later time was due as well",
        "overload" => "as many runs as may run at a time did not end",
        "blackout" => "in a blackout",
        "paused" => "the job was paused",
        other => other,
    }
}

fn millis<S: Serializer>(of: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(of.as_millis()).unwrap_or(u64::MAX))
}

/// The list, two lines for each entry, cut to `width`: how and when, then its id and why.
pub fn history(entries: &[Entry], ink: Ink, width: usize) -> String {
    let widest = |cell: &dyn Fn(&Entry) -> String| entries.iter().map(|entry| cells(&cell(entry))).max().unwrap_or(0);
    let job = widest(&|entry| entry.job().to_owned());
    let end = widest(&|entry| entry.word().2);
    let ran = widest(&Entry::ran);
    let mut text = String::new();
    for entry in entries {
        let (tone, mark, word) = entry.word();
        let (job_pad, end_pad) = (" ".repeat(job - cells(entry.job())), " ".repeat(end - cells(&word)));
        let (started, trigger) = match entry {
            Entry::Run(run) => (&run.started, &run.trigger),
            Entry::Firing(firing) => (&firing.due, &firing.trigger),
        };
        let _ = writeln!(
            text,
            "{} {}{job_pad}  {}{end_pad}  {}  {:>ran$}  {}",
            ink.paint(tone, mark),
            ink.paint(Tone::Strong, entry.job()),
            ink.paint(tone, &word),
            readable(started),
            entry.ran(),
            ink.paint(Tone::Faint, trigger),
        );
        let mut below = entry.below();
        let room = width.saturating_sub(GAP).max(GAP);
        if cells(&below) > room {
            below = below.chars().take(room - 1).chain(['…']).collect();
        }
        let _ = writeln!(text, "  {}", ink.paint(Tone::Faint, &below));
    }
    text
}

/// Cells before the second line.
const GAP: usize = 2;

/// `2026-11-23T02:30:12+08:00` with its parts apart.
pub fn readable(time: &str) -> String {
    match (time.get(..10), time.get(11..19), time.get(19..)) {
        (Some(date), Some(clock), Some(offset)) => format!("{date} {clock} {offset}"),
        _ => time.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_listed_with_how_and_why_none_wider_than_the_terminal() {
        let ended = Past {
            run: "20261122T183000Z-1f0c9a4b".into(),
            job: "nightly-vitals".into(),
            trigger: "manual".into(),
            state: Standing::Ended,
            started: "2026-11-23T02:30:00+08:00".into(),
            ran: Duration::from_secs(37),
            outcome: Some(RunOutcome::DeadlineExceeded),
            reason: Some("the deadline passed while stage `vitals` still worked on 40 of 5000 items".into()),
            repeats: None,
            crashes: 0,
            is_resumable: false,
            folded: None,
        };
        let idle = Past {
            outcome: Some(RunOutcome::Succeeded),
            reason: None,
            job: "poll".into(),
            folded: Some(PastRuns { runs: 37, first: "2026-11-23T01:54:00+08:00".into() }),
            ..ended.clone()
        };
        let open = Past {
            state: Standing::Interrupted,
            outcome: None,
            reason: None,
            is_resumable: true,
            job: "n".into(),
            ..ended.clone()
        };
        let missed = PastFiring {
            job: "nightly-vitals".into(),
            trigger: "schedule".into(),
            end: "missed",
            due: "2026-11-21T02:30:00+08:00".into(),
            last_due: "2026-11-22T02:30:00+08:00".into(),
            count: Some(2),
            reason: Some("down".into()),
        };
        let entries = [Entry::Run(ended), Entry::Run(open), Entry::Run(idle), Entry::Firing(missed)];
        let text = history(&entries, Ink::default(), 80);
        let expected = "\
● nightly-vitals  deadline exceeded  2026-11-23 02:30:00 +08:00  37s  manual
  20261122T183000Z-1f0c9a4b  the deadline passed while stage `vitals` still wor…
● n               interrupted        2026-11-23 02:30:00 +08:00  37s  manual
  20261122T183000Z-1f0c9a4b  `run n --resume` goes on with it
● poll            succeeded          2026-11-23 02:30:00 +08:00  37s  manual
  20261122T183000Z-1f0c9a4b  nothing to do, 37 times since 2026-11-23 01:54:00 …
○ nightly-vitals  missed             2026-11-21 02:30:00 +08:00    -  schedule
  no `serve` ran  2 times, the last 2026-11-22 02:30:00 +08:00
";
        assert_eq!(text, expected);
    }
}
