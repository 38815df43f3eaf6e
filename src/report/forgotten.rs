//! What was forgotten of an item, and what still holds it.

use super::{
    count,
    ink::{Ink, Tone},
    table,
};
use crate::{item::Key, store::Forgotten};
use serde::Serialize;
use std::fmt::Write;

/// A row of a gather that holds an item, or may.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GatherRow {
    /// Its run.
    pub run: String,
    /// Its stage, where that is known.
    pub stage: Option<String>,
    /// Its key: the text of its group.
    pub key: Key,
}

/// What became of a key, as text.
pub fn forgotten(key: &Key, of: &Forgotten, gathers: &[GatherRow], ink: Ink) -> String {
    let mut text = match of.rows + of.kept + of.events {
        0 => format!("nothing of {} is kept\n", ink.paint(Tone::Strong, key.as_str())),
        _ => {
            let parts = [(of.rows, "row"), (of.kept, "value of a job"), (of.events, "line of a log")];
            let plural = ["rows", "values of jobs", "lines of logs"];
            let told = parts.iter().zip(plural).map(|((n, one), many)| match n {
                1 => format!("1 {one}"),
                n => format!("{} {many}", count(*n)),
            });
            let told: Vec<String> = told.collect();
            format!("{} is forgotten: {}\n", ink.paint(Tone::Strong, key.as_str()), told.join(", "))
        }
    };
    let mut part = |title: &str, rows: Vec<Vec<String>>| {
        if !rows.is_empty() {
            let _ = write!(text, "\n{}\n{}", ink.paint(Tone::Strong, title), table(&[], &rows, &[]));
        }
    };
    let outputs = of.outputs.iter().map(|(run, path)| vec![path.clone(), ink.paint(Tone::Faint, run)]);
    part("files that hold it, or may: they are not rewritten", outputs.collect());
    let rows = gathers.iter().map(|row| {
        let stage = row.stage.clone().unwrap_or_default();
        vec![stage, row.key.to_string(), ink.paint(Tone::Faint, &row.run)]
    });
    part("rows of gathers that hold it, or may: they are not rewritten", rows.collect());
    let open = of.unfinished.iter().map(|run| vec![run.to_string()]);
    part("runs that have not ended and hold it: forget it again when they have", open.collect());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_still_holds_it_is_named() {
        let key = Key::parse("P1").expect("a key");
        let of = Forgotten {
            rows: 1200,
            events: 1,
            outputs: vec![("r1".into(), "a.json".into())],
            unfinished: vec!["r2".into()],
            ..Forgotten::default()
        };
        let gathers = [GatherRow { run: "r1".into(), stage: Some("report".into()), key: Key::all() }];
        let expected = "\
P1 is forgotten: 1,200 rows, 0 values of jobs, 1 line of a log

files that hold it, or may: they are not rewritten
  a.json  r1

rows of gathers that hold it, or may: they are not rewritten
  report  all  r1

runs that have not ended and hold it: forget it again when they have
  r2
";
        assert_eq!(forgotten(&key, &of, &gathers, Ink::default()), expected);
        let nothing = forgotten(&key, &Forgotten::default(), &[], Ink::default());
        assert_eq!(nothing, "nothing of P1 is kept\n");
    }
}
