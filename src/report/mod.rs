//! How a run ended, as text for people. Pure: a [`RunRecord`] in, text out.

mod table;

pub use table::{count, table};

use crate::item::{RunOutcome, RunRecord, StageRecord};
use std::{collections::BTreeMap, fmt::Write};

/// How many missing items are named in the text of a report.
const NAMED: usize = 20;

/// One line: `nightly-vitals partial: 40 of 5,000 items of stage `vitals` are missing`.
pub fn summary_line(record: &RunRecord) -> String {
    let mut line = format!("{} {}", record.job, record.outcome.name().replace('_', " "));
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
    let mut text = String::new();
    let _ = writeln!(text, "{} {}", record.job, record.outcome.name().replace('_', " "));
    if let Some(reason) = &record.reason {
        let _ = writeln!(text, "  {reason}");
    }
    let _ = writeln!(text, "  run {}, {} to {}", record.run, record.started, record.ended);
    text.push('\n');
    text.push_str(&stages(&record.stages));
    let classes = classes(record);
    if !classes.is_empty() {
        text.push_str("\nmissing, by stage and class\n");
        let rows: Vec<Vec<String>> =
            classes.iter().map(|((stage, class), n)| vec![(*stage).to_owned(), class.clone(), count(*n)]).collect();
        text.push_str(&table(&[], &rows, &[2]));
    }
    if !record.failures.is_empty() {
        let missing: u64 = record.stages.iter().map(|stage| stage.counts.missing()).sum();
        let shown = record.failures.len().min(NAMED);
        let _ = writeln!(text, "\nfirst {} of {} missing", shown, count(missing));
        let rows: Vec<Vec<String>> = record.failures[..shown]
            .iter()
            .map(|failure| {
                let mut message = failure.message.clone();
                if failure.attempts > 1 {
                    let _ = write!(message, " ({} attempts)", failure.attempts);
                }
                vec![failure.stage.clone(), failure.key.to_string(), failure.class.clone(), message]
            })
            .collect();
        text.push_str(&table(&[], &rows, &[]));
    }
    if !record.outputs.is_empty() {
        text.push_str("\nwritten\n");
        for output in &record.outputs {
            let _ = writeln!(text, "  {} ({})", output.path, bytes(output.bytes));
        }
        let more = record.outputs_total - record.outputs.len() as u64;
        if more > 0 {
            let _ = writeln!(text, "  and {} more", count(more));
        }
    }
    text
}

/// The stages as a table.
fn stages(stages: &[StageRecord]) -> String {
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
                count(counts.attempts),
            ];
            std::iter::once(stage.name.clone()).chain(numbers).collect()
        })
        .collect();
    let names = ["stage", "items", "ok", "empty", "failed", "timed out", "cancelled", "not reached", "attempts"];
    // Outcomes that no stage has are left out: the table of a good night is short.
    let shown: Vec<usize> = (0..names.len())
        .filter(|at| matches!(at, 0..=2) || *at == 8 || all.iter().any(|row| row[*at] != "0"))
        .collect();
    let pick = |row: &[String]| shown.iter().map(|at| row[*at].clone()).collect::<Vec<_>>();
    let header: Vec<&str> = shown.iter().map(|at| names[*at]).collect();
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

/// True when somebody should look: everything but succeeded and partial.
pub fn is_bad(outcome: RunOutcome) -> bool {
    !matches!(outcome, RunOutcome::Succeeded | RunOutcome::Partial)
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
        }
    }

    #[test]
    fn the_report_says_what_was_done_and_what_was_not() {
        assert_eq!(
            text(&record()),
            "nightly partial\n  2 of 1205 items of stage `vitals` are missing\n  run 20261123T023000Z-1f0c9a4b, \
             2026-11-23T02:30:00+08:00 to 2026-11-23T02:31:00+08:00\n\n  stage   items     ok  failed  attempts\n  \
             vitals  1,205  1,203       2     1,208\n\nmissing, by stage and class\n  vitals  http_404  1\n  vitals  \
             timeout   1\n\nfirst 1 of 2 missing\n  vitals  P00007  timeout  GET /v1 took longer than 5s (4 attempts)\n\n\
             written\n  2026-11-22/vitals.json (7.2 KB)\n  and 2 more\n"
        );
        assert_eq!(summary_line(&record()), "nightly partial: 2 of 1205 items of stage `vitals` are missing");
    }
}
