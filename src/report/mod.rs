//! How a run ended, as text for people. Pure: a [`RunRecord`] in, text out.
//!
//! Called by the command line for its summary and by `on_finish` for `run.report`.

mod account;
mod forgotten;
mod history;
mod ink;
mod journal;
mod table;

pub use account::{Account, NotReached, SlowItem, StageBar, Standing, account, item_row};
pub use forgotten::{GatherRow, forgotten};
pub use history::{Entry, Past, PastFiring, PastRuns, history};
pub use ink::{Ink, Tone, cells};
pub use journal::{LogLine, log_day, log_line};
pub use table::{count, table};
use table::{short, table_within, wrapped};

use crate::item::{FailureRecord, RunOutcome, RunRecord, StageRecord};
use std::{collections::BTreeMap, fmt::Write, path::Path, time::Duration};

/// Up to so many missing items are named one by one; of more, the first of each class.
const NAMED: usize = 20;

/// How many keys stand for a class.
const KEYS_OF_CLASS: usize = 3;

/// How many files are named.
const FILES: usize = 20;

/// How a report is written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Look<'a> {
    /// Colours or none.
    pub ink: Ink,
    /// Stands before the paths of outputs, so that they can be opened.
    pub out: Option<&'a Path>,
    /// Cells of a line of the terminal: what is longer is broken between words, and names of stages are shortened. `None`:
    /// lines are as long as what they say.
    pub width: Option<usize>,
}

/// Names of stages take at most so many cells where a line has an end.
const NAME: usize = 24;

impl Look<'_> {
    fn stage(self, name: &str) -> String {
        if self.width.is_some() { short(name, NAME) } else { name.to_owned() }
    }
}

/// One line: `nightly-vitals partial: 40 of 5,000 items of stage `vitals` are missing`.
pub fn summary_line(record: &RunRecord) -> String {
    let mut line = format!("{} {}", record.job, words(record.outcome));
    match &record.reason {
        Some(reason) => {
            let _ = write!(line, ": {reason}");
        }
        None => {
            let done: u64 = record.stages.last().map_or(0, |stage| stage.counts.ok + stage.counts.empty);
            let _ = write!(line, ": {} done", items(done));
        }
    }
    line
}

/// The report of a run: how it ended, each stage, what is missing and why, what was written.
pub fn text(record: &RunRecord) -> String {
    painted(record, Look::default())
}

/// The same with the colours and paths of a [`Look`].
pub fn painted(record: &RunRecord, look: Look<'_>) -> String {
    let mut text = title(record, look);
    let times = format!("run {}, {} to {}", record.run, record.started, record.ended);
    let _ = writeln!(text, "  {}\n", look.ink.paint(Tone::Faint, &times));
    text.push_str(&stages(&record.stages, look));
    text.push_str(&missing(record, look));
    text.push_str(&leaked(record, look.ink));
    text.push_str(&written(record, look));
    text
}

fn leaked(record: &RunRecord, ink: Ink) -> String {
    let what = match record.leaked {
        0 => return String::new(),
        1 => "process that outlived its child, ended",
        _ => "processes that outlived their children, ended",
    };
    format!("\n{} {} {what}\n", ink.paint(Tone::Strong, "leaked"), count(record.leaked))
}

/// The first files that were written.
fn written(record: &RunRecord, look: Look<'_>) -> String {
    let mut text = String::new();
    if !record.outputs.is_empty() {
        let _ = writeln!(text, "\n{}", look.ink.paint(Tone::Strong, "written"));
        let shown = &record.outputs[..record.outputs.len().min(FILES)];
        let rows: Vec<Vec<String>> = shown
            .iter()
            .map(|output| {
                let path =
                    look.out.map_or_else(|| output.path.clone(), |out| out.join(&output.path).display().to_string());
                vec![path, look.ink.paint(Tone::Faint, &bytes(output.bytes))]
            })
            .collect();
        text.push_str(&table(&[], &rows, &[1]));
        let more = record.outputs_total.saturating_sub(shown.len() as u64);
        if more > 0 {
            let _ = writeln!(text, "  and {} more", count(more));
        }
    }
    text
}

/// What every report begins with: `nightly-vitals partial after 37s`, and why.
pub fn title(record: &RunRecord, look: Look<'_>) -> String {
    // The times of a record are whole seconds.
    let took = match took(record) {
        Some(Duration::ZERO) => " within a second".to_owned(),
        Some(took) => format!(" after {}", span(took)),
        None => String::new(),
    };
    headed(record, &took, look)
}

fn headed(record: &RunRecord, took: &str, look: Look<'_>) -> String {
    let outcome = look.ink.paint(tone_of(record.outcome), &words(record.outcome));
    let mut text = format!("{} {outcome}{took}\n", look.ink.paint(Tone::Strong, &record.job));
    if let Some(reason) = &record.reason {
        let _ = writeln!(text, "{}", wrapped("  ", reason, look.width));
    }
    text
}

/// How the end of a run is coloured: what somebody has asked for is no failure.
pub fn tone_of(outcome: RunOutcome) -> Tone {
    match outcome {
        RunOutcome::Succeeded => Tone::Good,
        RunOutcome::Partial | RunOutcome::Cancelled | RunOutcome::Interrupted => Tone::Warn,
        RunOutcome::Failed | RunOutcome::DeadlineExceeded | RunOutcome::Quarantined => Tone::Bad,
    }
}

fn words(outcome: RunOutcome) -> String {
    outcome.name().replace('_', " ")
}

/// From start to end, by the wall clock; nothing when it was set back meanwhile.
fn took(record: &RunRecord) -> Option<Duration> {
    let read = |text: &str| text.parse::<jiff::Timestamp>().ok();
    read(&record.ended)?.duration_since(read(&record.started)?).try_into().ok()
}

/// A duration for people, its two largest units: `850ms`, `1.4s`, `37s`, `1m 4s`, `2h 5m`, `3d 1h`.
pub fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) if seconds == 0 => format!("{}ms", duration.as_millis()),
        (0, 0, 0) if seconds < 10 && duration.subsec_millis() >= 100 => {
            format!("{seconds}.{}s", duration.subsec_millis() / 100)
        }
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, _, _) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

/// Who is missing, and why: each by name, or, when they are many, the first of each class.
fn missing(record: &RunRecord, look: Look<'_>) -> String {
    let ink = look.ink;
    let missing: u64 = record.stages.iter().map(|stage| stage.counts.missing()).sum();
    if missing == 0 {
        return String::new();
    }
    let mut text = format!("\n{} {}\n", ink.paint(Tone::Strong, "missing"), count(missing));
    if missing <= NAMED as u64 {
        let rows: Vec<_> = record.failures.iter().map(|failure| item(failure, look)).collect();
        text.push_str(&table_within(&[], &rows, &[], look.width));
    } else {
        let classes = classes(record);
        let rows: Vec<_> = classes.iter().map(|((stage, class), n)| group(record, stage, class, *n, look)).collect();
        text.push_str(&table_within(&[], &rows, &[1], look.width));
    }
    let unnamed = missing.saturating_sub(record.failures.len() as u64);
    if missing <= NAMED as u64 && unnamed > 0 {
        // What was cancelled before a worker took it has no name here, nor has what was forgotten.
        let untaken: u64 = record.stages.iter().map(|stage| stage.counts.not_reached + stage.counts.cancelled).sum();
        let why = if unnamed <= untaken { "that no worker has taken" } else { "whose names are not kept" };
        let _ = writeln!(text, "  and {} more {why}", count(unnamed));
    }
    text
}

fn item(failure: &FailureRecord, look: Look<'_>) -> Vec<String> {
    let class = look.ink.paint(Tone::Bad, &failure.class);
    vec![look.stage(&failure.stage), class, failure.key.to_string(), message(failure, look.ink)]
}

fn group(record: &RunRecord, stage: &str, class: &str, n: u64, look: Look<'_>) -> Vec<String> {
    let ink = look.ink;
    let mut those =
        record.failures.iter().filter(|failure| failure.stage == stage && failure.class == class).peekable();
    let first = those.peek().map(|failure| message(failure, ink)).unwrap_or_default();
    let mut keys: Vec<&str> = those.take(KEYS_OF_CLASS).map(|failure| failure.key.as_str()).collect();
    if n > keys.len() as u64 && !keys.is_empty() {
        keys.push("…");
    }
    vec![look.stage(stage), count(n), ink.paint(Tone::Bad, class), keys.join(" "), first]
}

fn message(failure: &FailureRecord, ink: Ink) -> String {
    match failure.attempts {
        0 | 1 => failure.message.clone(),
        n => format!("{} {}", failure.message, ink.paint(Tone::Faint, &format!("({n} attempts)")))
            .trim_start()
            .to_owned(),
    }
}

/// The stages as a table.
fn stages(stages: &[StageRecord], look: Look<'_>) -> String {
    let ink = look.ink;
    let all: Vec<Vec<String>> = stages
        .iter()
        .map(|stage| {
            let counts = &stage.counts;
            let items = if counts.complete { count(counts.items) } else { format!("{}+", count(counts.items)) };
            let numbers = [
                items,
                count(counts.ok),
                count(counts.empty),
                count(counts.failed),
                count(counts.timed_out),
                count(counts.cancelled),
                count(counts.not_reached),
                count(counts.held),
                count(counts.attempts),
            ];
            std::iter::once(look.stage(&stage.name)).chain(numbers).collect()
        })
        .collect();
    let names =
        ["stage", "items", "ok", "empty", "failed", "timed out", "cancelled", "not reached", "held", "attempts"];
    // Outcomes that no stage has are left out: the table of a good night is short.
    let shown: Vec<usize> = (0..names.len())
        .filter(|at| matches!(at, 0..=2) || *at == 9 || all.iter().any(|row| row[*at] != "0"))
        .collect();
    let paint = |at: usize, cell: &str| match at {
        0 => ink.paint(Tone::Strong, cell),
        _ if cell == "0" => ink.paint(Tone::Faint, cell),
        4..=8 => ink.paint(Tone::Bad, cell),
        _ => cell.to_owned(),
    };
    let pick = |row: &[String]| shown.iter().map(|at| paint(*at, &row[*at])).collect::<Vec<_>>();
    let header: Vec<String> = shown.iter().map(|at| ink.paint(Tone::Faint, names[*at])).collect();
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    let rows: Vec<Vec<String>> = all.iter().map(|row| pick(row)).collect();
    table(&header, &rows, &(1..header.len()).collect::<Vec<_>>())
}

/// Missing items by stage and class.
pub fn classes(record: &RunRecord) -> BTreeMap<(&str, String), u64> {
    let mut classes = BTreeMap::new();
    for stage in &record.stages {
        let counts = &stage.counts;
        for (class, n) in &counts.classes {
            classes.insert((stage.name.as_str(), class.to_string()), *n);
        }
        let others = [
            ("timed_out", counts.timed_out),
            ("cancelled", counts.cancelled),
            ("not_reached", counts.not_reached),
            ("held", counts.held),
        ];
        for (outcome, n) in others.into_iter().filter(|(_, n)| *n > 0) {
            classes.insert((stage.name.as_str(), outcome.to_owned()), n);
        }
    }
    classes
}

fn items(n: u64) -> String {
    if n == 1 { "1 item".to_owned() } else { format!("{} items", count(n)) }
}

/// A size for people: `7.2 KB`.
pub fn bytes(n: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "KB")];
    match UNITS.iter().find(|(unit, _)| n >= *unit) {
        Some((unit, name)) => format!("{}.{} {name}", n / unit, n % unit * 10 / unit),
        None => format!("{n} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::{Class, Counts, FailureRecord, Key, Outcome, OutputRecord};

    fn record() -> RunRecord {
        let mut counts = Counts { items: 1205, complete: true, ..Counts::default() };
        for _ in 0..1203 {
            counts.settle(Outcome::Ok, 1);
        }
        counts.settle(Outcome::Failed(Class::Http(404)), 1);
        counts.settle(Outcome::Failed(Class::Timeout), 4);
        RunRecord {
            run: "20261123T023000Z-1f0c9a4b".into(),
            job: "nightly".into(),
            outcome: RunOutcome::Partial,
            reason: Some("2 of 1205 items of stage `vitals` are missing".into()),
            started: "2026-11-23T02:30:00+08:00".into(),
            ended: "2026-11-23T02:31:00+08:00".into(),
            stages: vec![StageRecord { name: "vitals".into(), counts }],
            failures: vec![FailureRecord {
                stage: "vitals".into(),
                key: Key::parse("P00007").expect("a key"),
                class: "timeout".into(),
                message: "GET /v1 took longer than 5s".into(),
                attempts: 4,
            }],
            outputs: vec![OutputRecord { path: "2026-11-22/vitals.json".into(), sha256: "0".repeat(64), bytes: 7_250 }],
            outputs_total: 3,
            leaked: 0,
            unsaved: None,
        }
    }

    #[test]
    fn the_report_says_what_was_done_and_what_was_not() {
        let expected = "\
nightly partial after 1m 0s
  2 of 1205 items of stage `vitals` are missing
  run 20261123T023000Z-1f0c9a4b, 2026-11-23T02:30:00+08:00 to 2026-11-23T02:31:00+08:00

  stage   items     ok  failed  attempts
  vitals  1,205  1,203       2     1,208

missing 2
  vitals  timeout  P00007  GET /v1 took longer than 5s (4 attempts)
  and 1 more whose names are not kept

written
  2026-11-22/vitals.json  7.2 KB
  and 2 more
";
        assert_eq!(text(&record()), expected);
        assert_eq!(summary_line(&record()), "nightly partial: 2 of 1205 items of stage `vitals` are missing");
    }

    #[test]
    fn many_missing_items_are_told_by_class_with_the_first_of_each() {
        let mut record = record();
        for at in 0..40 {
            record.stages[0].counts.settle(Outcome::Failed(Class::Http(404)), 1);
            record.failures.push(FailureRecord {
                stage: "vitals".into(),
                key: Key::parse(&format!("Q{at}")).expect("a key"),
                class: "http_404".into(),
                message: "GET /v1 answered 404".into(),
                attempts: 1,
            });
        }
        let text = text(&record);
        let told = "missing 42\n  vitals  41  http_404  Q0 Q1 Q2 …  GET /v1 answered 404\n  \
                    vitals   1  timeout   P00007      GET /v1 took longer than 5s (4 attempts)\n";
        assert!(text.contains(told), "{text}");
    }

    #[test]
    fn colours_change_no_column_and_paths_can_be_opened() {
        let look = Look { ink: Ink { colour: true }, out: Some(Path::new("/srv/out")), width: None };
        let painted = painted(&record(), look);
        assert!(painted.contains("\x1b[33mpartial\x1b[0m"), "{painted}");
        assert!(painted.contains("/srv/out/2026-11-22/vitals.json"), "{painted}");
        let mut plain = String::new();
        let mut escape = false;
        for c in painted.chars() {
            match c {
                '\x1b' => escape = true,
                'm' if escape => escape = false,
                _ if escape => {}
                c => plain.push(c),
            }
        }
        assert_eq!(plain.replace("/srv/out/", ""), text(&record()));
    }

    #[test]
    fn a_duration_is_told_by_its_two_largest_units() {
        let told = [0.85, 1.0, 1.47, 9.99, 37.2, 64.0, 7_500.0, 266_400.0];
        let told = told.map(|seconds| span(Duration::from_secs_f64(seconds)));
        assert_eq!(told, ["850ms", "1s", "1.4s", "9.9s", "37s", "1m 4s", "2h 5m", "3d 2h"]);
    }
}
