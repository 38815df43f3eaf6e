//! A line of the log of a run.

use super::ink::{Ink, Tone};
use crate::item::Key;
use serde::Serialize;

/// A line, as `logs` prints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LogLine {
    /// Its number in the run.
    pub seq: u64,
    /// RFC 3339 with an offset.
    pub time: String,
    /// `error`, `warn`, `info` or `debug`.
    pub level: &'static str,
    /// The stage that it is about.
    pub stage: Option<String>,
    /// The item that it is about.
    pub key: Option<Key>,
    /// What happened.
    pub text: String,
}

/// What stands before the first line of a day: `2026-11-23 +08:00`.
pub fn log_day(line: &LogLine, ink: Ink) -> String {
    match (line.time.get(..10), line.time.get(19..)) {
        (Some(date), Some(offset)) => ink.paint(Tone::Faint, &format!("{date} {offset}")),
        _ => ink.paint(Tone::Faint, &line.time),
    }
}

/// One line: `02:31:07 vitals P1  failed: http_404: GET /v1 answered 404`. Control characters are shown, not obeyed.
pub fn log_line(line: &LogLine, ink: Ink) -> String {
    let clock = line.time.get(11..19).unwrap_or(&line.time);
    let mut text = ink.paint(Tone::Faint, clock);
    let about = [line.stage.as_deref(), line.key.as_ref().map(Key::as_str)];
    for name in about.into_iter().flatten() {
        text.push(' ');
        text.push_str(&ink.paint(Tone::Strong, name));
    }
    let tone = match line.level {
        "error" => Some(Tone::Bad),
        "warn" => Some(Tone::Warn),
        _ => None,
    };
    let said = crate::problem::escape(&line.text);
    text.push_str("  ");
    text.push_str(&tone.map_or_else(|| said.clone(), |tone| ink.paint(tone, &said)));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_what_it_is_about_and_cannot_steer_a_terminal() {
        let line = LogLine {
            seq: 7,
            time: "2026-11-23T02:31:07+08:00".into(),
            level: "warn",
            stage: Some("vitals".into()),
            key: Some(Key::parse("P1").expect("a key")),
            text: "failed: exit: \u{1b}[2J".into(),
        };
        assert_eq!(log_line(&line, Ink::default()), "02:31:07 vitals P1  failed: exit: \\u{1b}[2J");
        assert_eq!(log_day(&line, Ink::default()), "2026-11-23 +08:00");
        let of_run = LogLine { stage: None, key: None, level: "info", text: "run started".into(), ..line };
        assert_eq!(log_line(&of_run, Ink { colour: true }), "\u{1b}[2m02:31:07\u{1b}[0m  run started");
    }
}
