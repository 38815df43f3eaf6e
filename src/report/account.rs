//! One run as `show` draws it: its stages on a line of time, counts, what is missing and why, what took longest.

use super::{
    Look, NAME, count, headed,
    history::{PastRuns, nothing_listed, readable},
    ink::{Ink, Tone, cells},
    leaked, missing, short, span, stages, table, table_within, wrapped, written,
};
use crate::item::{Key, RunRecord, StageRecord, Value};
use serde::Serialize;
use serde_json::json;
use std::{fmt::Write, time::Duration};

/// What is known of a run, whether it has ended or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its record; of a run that has not ended, what its rows say so far.
    pub record: RunRecord,
    /// How it stands.
    pub standing: Standing,
    /// A `serve` has it: where it was interrupted, one goes on with it by itself.
    pub is_served: bool,
    /// What started it.
    pub trigger: String,
    /// When it was due, RFC 3339.
    pub due: String,
    /// 1, and one more for each time that it was gone on with.
    pub passes: u32,
    /// How often a process died over it.
    pub crashes: u32,
    /// The run that it repeats.
    pub repeats: Option<String>,
    /// How long it has run in all its passes: the time between them is not counted.
    pub ran: Duration,
    /// A bar for each stage of the record.
    pub bars: Vec<StageBar>,
    /// The items that took longest, the slowest first.
    pub slowest: Vec<SlowItem>,
    /// Stages with items that no worker took, and why.
    pub not_reached: Vec<NotReached>,
    /// Its items can still be listed.
    pub has_rows: bool,
    /// It listed nothing, and stands for the runs before it that did not either.
    pub folded: Option<PastRuns>,
}

/// How a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// A living process works on it.
    Running,
    /// Its process has died or let it go: it waits to be resumed.
    Interrupted,
    /// Settled.
    Ended,
}

/// When a stage ran, counted from the beginning of the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageBar {
    /// Its first item was taken, or its listing began; `None`: it never began.
    pub began: Option<Duration>,
    /// It ended; `None`: it did not, or that is not known.
    pub ended: Option<Duration>,
}

/// An item that took long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlowItem {
    /// Its stage.
    pub stage: String,
    /// Its key.
    pub key: Key,
    /// From being taken to being settled.
    pub took: Duration,
    /// The class of its end when it is missing.
    pub missing: Option<String>,
}

/// Items that no worker took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NotReached {
    /// Where they arrived.
    pub stage: String,
    /// How many.
    pub items: u64,
    /// Why, in a sentence.
    pub why: String,
}

/// Cells between the columns of the line of time.
const GAP: usize = 2;

/// The line of time is as wide as the terminal, and as this where there is none.
const WIDTH: usize = 80;

/// Cells that it takes at least and at most, where the terminal is very wide or names are long.
const ROOM: (usize, usize) = (16, 100);

impl Account {
    /// The object that `show --format json` prints: the record, and what is known beside it. What has not come to pass is
    /// `null`.
    pub fn json(&self) -> Value {
        let mut told = serde_json::to_value(&self.record).unwrap_or_default();
        let Some(fields) = told.as_object_mut() else { return told };
        let millis = |at: Option<Duration>| at.map(|at| at.as_millis() as u64);
        if let Some(stages) = fields.get_mut("stages").and_then(Value::as_array_mut) {
            for (stage, bar) in stages.iter_mut().zip(&self.bars) {
                stage["began_ms"] = json!(millis(bar.began));
                stage["ended_ms"] = json!(millis(bar.ended));
            }
        }
        if self.standing != Standing::Ended {
            fields.insert("outcome".into(), Value::Null);
            fields.insert("ended".into(), Value::Null);
        }
        let slowest = self.slowest.iter().map(|item| {
            let took = item.took.as_millis() as u64;
            json!({ "stage": item.stage, "key": item.key, "took_ms": took, "class": item.missing })
        });
        let beside = json!({
            "state": self.standing, "trigger": self.trigger, "due": self.due, "passes": self.passes,
            "crashes": self.crashes, "repeats": self.repeats, "ran_ms": self.ran.as_millis() as u64,
            "not_reached": self.not_reached, "slowest": slowest.collect::<Vec<_>>(), "has_items": self.has_rows, "folded": self.folded,
        });
        if let Value::Object(beside) = beside {
            fields.extend(beside);
        }
        told
    }
}

/// The whole account as text, no line of the picture wider than the terminal.
pub fn account(of: &Account, look: Look<'_>) -> String {
    let ink = look.ink;
    let record = &of.record;
    let mut text = match of.standing {
        Standing::Ended => headed(record, &format!(" after {}", span(of.ran)), look),
        Standing::Running => going(of, look, Tone::Busy, "running", "a process works on it now"),
        Standing::Interrupted => {
            let who = match of.is_served {
                true => "the next `serve` goes on with it".to_owned(),
                false => format!("`lamplighter run {} --resume` goes on with it", record.job),
            };
            let how = format!("it did not come to its end: {who}");
            going(of, look, Tone::Warn, "interrupted", &how)
        }
    };
    let times = match of.standing {
        Standing::Ended => format!("{}  {}", record.run, from_to(&record.started, &record.ended)),
        _ => format!("{}  since {}", record.run, readable(&record.started)),
    };
    let _ = writeln!(text, "  {}", ink.paint(Tone::Faint, &times));
    let _ = writeln!(text, "  {}\n", ink.paint(Tone::Faint, &origin(of)));
    text.push_str(&timeline(of, ink, look.width.unwrap_or(WIDTH)));
    let _ = writeln!(text, "\n{}", stages(&record.stages, look).trim_end_matches('\n'));
    text.push_str(&missing(record, look));
    if !of.not_reached.is_empty() {
        let _ = writeln!(text, "\n{}", ink.paint(Tone::Strong, "not reached"));
        let row = |of: &NotReached| vec![look.stage(&of.stage), count(of.items), of.why.clone()];
        let rows: Vec<_> = of.not_reached.iter().map(row).collect();
        text.push_str(&table_within(&[], &rows, &[1], look.width));
    }
    if !of.slowest.is_empty() {
        let _ = writeln!(text, "\n{}", ink.paint(Tone::Strong, "slowest"));
        let row = |item: &SlowItem| {
            let end = ink.paint(Tone::Bad, item.missing.as_deref().unwrap_or_default());
            vec![look.stage(&item.stage), item.key.to_string(), span(item.took), end]
        };
        text.push_str(&table(&[], &of.slowest.iter().map(row).collect::<Vec<_>>(), &[2]));
    }
    text.push_str(&leaked(record, ink));
    text.push_str(&written(record, look));
    text
}

/// The title of a run that has not ended.
fn going(of: &Account, look: Look<'_>, tone: Tone, word: &str, how: &str) -> String {
    let (job, word) = (look.ink.paint(Tone::Strong, &of.record.job), look.ink.paint(tone, word));
    format!("{job} {word} after {}\n{}\n", span(of.ran), wrapped("  ", how, look.width))
}

/// `2026-11-23 02:30:00 to 02:31:04 +08:00`: what is the same is said once.
fn from_to(started: &str, ended: &str) -> String {
    let parts =
        |time: &'_ str| Some((time.get(..10)?.to_owned(), time.get(11..19)?.to_owned(), time.get(19..)?.to_owned()));
    match (parts(started), parts(ended)) {
        (Some((date, from, zone)), Some((other, to, same))) if zone == same => match date == other {
            true => format!("{date} {from} to {to} {zone}"),
            false => format!("{date} {from} to {} {to} {zone}", other.trim_start_matches(&date[..5])),
        },
        _ => format!("{} to {}", readable(started), readable(ended)),
    }
}

/// `manual, in 2 passes after 1 crash, repeats 2026..`.
fn origin(of: &Account) -> String {
    let mut text = of.trigger.clone();
    if of.due != of.record.started {
        let _ = write!(text, ", due {}", of.due);
    }
    if of.passes > 1 {
        let _ = write!(text, ", in {} passes", of.passes);
    }
    match of.crashes {
        0 => {}
        1 => text.push_str(", its process died once"),
        n => {
            let _ = write!(text, ", its process died {n} times");
        }
    }
    if let Some(parent) = &of.repeats {
        let _ = write!(text, ", repeats {parent}");
    }
    if let Some(folded) = &of.folded {
        let _ = write!(text, "; {}", nothing_listed(folded));
    }
    text
}

/// A bar for each stage over the time of the run.
fn timeline(of: &Account, ink: Ink, width: usize) -> String {
    let stages = &of.record.stages;
    let took = |(stage, bar): (&StageRecord, &StageBar)| match (bar.began, bar.ended) {
        // What was done by the run that this one repeats is not done again.
        (None, _) if of.repeats.is_some() && stage.counts.items > 0 => "taken over".to_owned(),
        (None, _) => String::new(),
        (Some(began), Some(ended)) => span(ended.saturating_sub(began)),
        // Nobody wrote down when it ended.
        (Some(_), None) if stage.counts.complete => "done".to_owned(),
        (Some(_), None) if of.standing == Standing::Ended => String::new(),
        (Some(began), None) => format!("{}+", span(of.ran.saturating_sub(began))),
    };
    let names: Vec<String> = stages.iter().map(|stage| short(&stage.name, NAME)).collect();
    let times: Vec<String> = stages.iter().zip(&of.bars).map(took).collect();
    let name = names.iter().map(|name| cells(name)).max().unwrap_or(0);
    let time = times.iter().map(|time| cells(time)).max().unwrap_or(0);
    let room = width.saturating_sub(name + time + 3 * GAP).clamp(ROOM.0, ROOM.1);
    let total = span(of.ran);
    let scale = format!("{}0s{total:>rest$}", " ".repeat(name + 2 * GAP), rest = room - 2);
    let mut text = format!("{}\n", ink.paint(Tone::Faint, &scale));
    for (((stage, bar), name_text), time_text) in stages.iter().zip(&of.bars).zip(&names).zip(&times) {
        let pad = " ".repeat(name - cells(name_text));
        let tone = match (bar.ended, stage.counts.missing()) {
            (None, _) if of.standing == Standing::Running && !stage.counts.complete => Tone::Busy,
            (Some(_), 0) => Tone::Good,
            (None, 0) if stage.counts.complete => Tone::Good,
            (_, missing) if missing > 0 && missing == stage.counts.items => Tone::Bad,
            _ => Tone::Warn,
        };
        let (from, long) = match (bar.ended, stage.counts.complete) {
            // That it ended is known, and not when: it is marked where it began.
            (None, true) => place_of(&StageBar { ended: bar.began, ..*bar }, of.ran, room),
            _ => place_of(bar, of.ran, room),
        };
        let line = format!(
            "  {}{pad}  {}{}{}  {time_text:>time$}",
            ink.paint(Tone::Strong, name_text),
            ink.paint(Tone::Faint, &"─".repeat(from)),
            ink.paint(tone, &"━".repeat(long)),
            ink.paint(Tone::Faint, &"─".repeat(room - from - long)),
        );
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Cells before a bar, and of it: at least one where the stage began.
fn place_of(bar: &StageBar, all: Duration, room: usize) -> (usize, usize) {
    let Some(began) = bar.began else { return (0, 0) };
    let all = all.as_millis().max(1);
    let cell = |at: Duration| ((at.as_millis().min(all) * room as u128) / all) as usize;
    let from = cell(began).min(room - 1);
    let to = bar.ended.map_or(room, |ended| ((ended.as_millis().min(all) * room as u128).div_ceil(all)) as usize);
    (from, to.clamp(from + 1, room) - from)
}

/// A row of a list of items: stage, key, how it ended, attempts, how long it took, message.
pub fn item_row(
    look: Look<'_>,
    stage: &str,
    key: &Key,
    end: (bool, &str),
    attempts: u32,
    took: Option<u32>,
    message: &str,
) -> Vec<String> {
    let (missing, word) = end;
    let word = look.ink.paint(if missing { Tone::Bad } else { Tone::Good }, word);
    let took = took.map(|took| span(Duration::from_millis(took.into()))).unwrap_or_default();
    vec![look.stage(stage), key.to_string(), word, attempts.to_string(), took, message.to_owned()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        item::{Class, Counts, Outcome, RunOutcome, StageRecord},
        report::Look,
    };

    fn sample() -> Account {
        let stage = |name: &str, outcomes: &[Outcome]| {
            let mut counts = Counts { items: outcomes.len() as u64, complete: true, ..Counts::default() };
            outcomes.iter().for_each(|outcome| counts.settle(*outcome, 1));
            StageRecord { name: name.into(), counts }
        };
        let at = |began: u64, ended: u64| StageBar {
            began: Some(Duration::from_secs(began)),
            ended: Some(Duration::from_secs(ended)),
        };
        Account {
            record: RunRecord {
                run: "20261123T023000Z-1f0c9a4b".into(),
                job: "nightly".into(),
                outcome: RunOutcome::Partial,
                reason: Some("2 of 3 items of stage `vitals` are missing".into()),
                started: "2026-11-23T02:30:00+08:00".into(),
                ended: "2026-11-23T02:32:00+08:00".into(),
                stages: vec![
                    stage("patients", &[Outcome::Ok, Outcome::Ok, Outcome::Ok]),
                    stage("vitals", &[Outcome::Ok, Outcome::Failed(Class::Http(404)), Outcome::NotReached]),
                    stage("report", &[]),
                ],
                failures: Vec::new(),
                outputs: Vec::new(),
                outputs_total: 0,
                leaked: 0,
                unsaved: None,
            },
            standing: Standing::Ended,
            is_served: false,
            trigger: "manual".into(),
            due: "2026-11-23T02:30:00+08:00".into(),
            passes: 2,
            crashes: 1,
            repeats: None,
            ran: Duration::from_secs(100),
            bars: vec![at(0, 10), at(5, 90), StageBar::default()],
            slowest: vec![SlowItem {
                stage: "vitals".into(),
                key: Key::parse("P1").expect("a key"),
                took: Duration::from_millis(4200),
                missing: Some("http_404".into()),
            }],
            not_reached: vec![NotReached { stage: "vitals".into(), items: 1, why: "it was late".into() }],
            has_rows: true,
            folded: None,
        }
    }

    #[test]
    fn a_run_is_drawn_as_bars_over_its_time() {
        let text = account(&sample(), Look { width: Some(42), ..Look::default() });
        let picture = "\
            0s              1m 40s
  patients  ━━━───────────────────     10s
  vitals    ─━━━━━━━━━━━━━━━━━━━──  1m 25s
  report    ──────────────────────
";
        assert!(text.contains(picture), "{text}");
        for told in [
            "  manual, in 2 passes, its process died once\n",
            "not reached\n  vitals  1  it was late\n",
            "slowest\n  vitals  P1  4.2s  http_404\n",
        ] {
            assert!(text.contains(told), "{told:?} in {text}");
        }
        assert!(text.lines().filter(|line| line.contains('━')).all(|line| line.chars().count() <= 42), "{text}");
    }

    #[test]
    fn times_say_once_what_is_the_same() {
        let from = "2026-11-23T02:30:00+08:00";
        for (to, told) in [
            ("2026-11-23T02:31:04+08:00", "2026-11-23 02:30:00 to 02:31:04 +08:00"),
            ("2026-11-24T02:31:04+08:00", "2026-11-23 02:30:00 to 11-24 02:31:04 +08:00"),
            ("2027-01-01T02:31:04+08:00", "2026-11-23 02:30:00 to 2027-01-01 02:31:04 +08:00"),
            ("2026-11-23T02:31:04+07:00", "2026-11-23 02:30:00 +08:00 to 2026-11-23 02:31:04 +07:00"),
            ("soon", "2026-11-23 02:30:00 +08:00 to soon"),
        ] {
            assert_eq!(from_to(from, to), told);
        }
    }

    #[test]
    fn what_has_not_ended_says_so() {
        let open = Account { standing: Standing::Interrupted, ..sample() };
        assert!(account(&open, Look::default()).starts_with("nightly interrupted after 1m 40s\n"));
        let json = open.json();
        assert_eq!((&json["outcome"], &json["ended"]), (&Value::Null, &Value::Null));
        assert_eq!((&json["state"], &json["stages"][1]["ended_ms"]), (&json!("interrupted"), &json!(90_000)));
        assert_eq!(sample().json()["outcome"], "partial");
    }

    #[test]
    fn a_bar_never_leaves_its_room() {
        let all = Duration::from_secs(10);
        for began in 0..12 {
            for ended in [None, Some(0), Some(5), Some(12)] {
                let bar = StageBar { began: Some(Duration::from_secs(began)), ended: ended.map(Duration::from_secs) };
                for all in [all, Duration::ZERO] {
                    let (from, long) = place_of(&bar, all, 16);
                    assert!(long >= 1 && from + long <= 16, "{bar:?}");
                }
            }
        }
    }
}
