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
}

fn millis<S: Serializer>(of: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(of.as_millis()).unwrap_or(u64::MAX))
}

/// The list, two lines for each run, cut to `width`: how and when, then its id and why.
pub fn history(runs: &[Past], ink: Ink, width: usize) -> String {
    let word = |run: &Past| match (run.state, run.outcome) {
        (Standing::Ended, Some(outcome)) => (tone_of(outcome), words(outcome)),
        (Standing::Running, _) => (Tone::Busy, "running".to_owned()),
        _ => (Tone::Warn, "interrupted".to_owned()),
    };
    let widest = |cell: &dyn Fn(&Past) -> String| runs.iter().map(|run| cells(&cell(run))).max().unwrap_or(0);
    let job = widest(&|run| run.job.clone());
    let end = widest(&|run| word(run).1);
    let ran = widest(&|run| span(run.ran));
    let mut text = String::new();
    for run in runs {
        let (tone, word) = word(run);
        let (job_pad, end_pad) = (" ".repeat(job - cells(&run.job)), " ".repeat(end - cells(&word)));
        let started = readable(&run.started);
        let _ = writeln!(
            text,
            "{} {}{job_pad}  {}{end_pad}  {started}  {:>ran$}  {}",
            ink.paint(tone, "●"),
            ink.paint(Tone::Strong, &run.job),
            ink.paint(tone, &word),
            span(run.ran),
            ink.paint(Tone::Faint, &run.trigger),
        );
        let mut below = run.run.clone();
        if let Some(parent) = &run.repeats {
            let _ = write!(below, "  repeats {parent}");
        }
        if let Some(reason) = &run.reason {
            let _ = write!(below, "  {reason}");
        }
        if run.is_resumable {
            let _ = write!(below, "  `run {} --resume` goes on with it", run.job);
        }
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
        };
        let open = Past {
            state: Standing::Interrupted,
            outcome: None,
            reason: None,
            is_resumable: true,
            job: "n".into(),
            ..ended.clone()
        };
        let text = history(&[ended, open], Ink::default(), 80);
        let expected = "\
● nightly-vitals  deadline exceeded  2026-11-23 02:30:00 +08:00  37s  manual
  20261122T183000Z-1f0c9a4b  the deadline passed while stage `vitals` still wor…
● n               interrupted        2026-11-23 02:30:00 +08:00  37s  manual
  20261122T183000Z-1f0c9a4b  `run n --resume` goes on with it
";
        assert_eq!(text, expected);
    }
}
