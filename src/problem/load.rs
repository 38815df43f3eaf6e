//! Reads a file into a type of the schema. RON decides; the tolerant parser explains what RON refused.

use ron::extensions::Extensions;
use serde::de::DeserializeOwned;

use super::explain::explain;
use super::render::is_bidi;
use super::schema::Described;
use super::{Problem, Source, in_file_order};
use crate::limits::{DEPTH_MAX, FILE_BYTES_MAX, PROBLEMS_MAX};

/// Reads a file. A byte order mark is dropped.
///
/// # Errors
/// Every problem that was found, in the order of the file; never none.
pub fn load<T: Described + DeserializeOwned>(source: &Source) -> Result<T, Vec<Problem>> {
    if source.text.len() as u64 > FILE_BYTES_MAX {
        let problem = Problem::error("", 0..0, format!("the file has more than {FILE_BYTES_MAX} bytes"));
        return Err(vec![problem.with_help("move large data into a file of its own, and read it with `Read`")]);
    }
    let verdict = options().from_str::<T>(source.text.strip_prefix('\u{feff}').unwrap_or(&source.text));
    let mut problems = steering(&source.text);
    match verdict {
        Ok(value) => {
            if may_break_our_rules(&source.text) {
                problems.extend(explain(&source.text, T::shape()).ours);
            }
            if problems.is_empty() {
                return Ok(value);
            }
        }
        Err(error) => {
            let explained = explain(&source.text, T::shape()).problems;
            if explained.is_empty() || error.code == ron::Error::ExceededRecursionLimit {
                problems.push(said_by_ron(source, &error));
            }
            problems.extend(explained);
        }
    }
    in_file_order(&mut problems);
    problems.truncate(PROBLEMS_MAX);
    Err(problems)
}

/// How every file of ours is read.
fn options() -> ron::Options {
    ron::Options::default().with_default_extension(Extensions::IMPLICIT_SOME).with_recursion_limit(DEPTH_MAX)
}

/// What RON says itself: where it knows more than the tolerant parser.
fn said_by_ron(source: &Source, error: &ron::error::SpannedError) -> Problem {
    let (start, end) = (offset(source, error.span.start), offset(source, error.span.end));
    let problem = |message: String, help: &str| Problem::error("", start..end.max(start), message).with_help(help);
    match &error.code {
        ron::Error::ExceededRecursionLimit => problem(
            "this is nested too deeply".to_owned(),
            "put less inside each other, or move the data into a file of its own",
        ),
        code => problem(format!("this cannot be read: {code}"), "compare it with the examples of docs/JOBS.md"),
    }
}

/// The byte at a place of RON's, which counts lines and characters from 1, without a byte order mark.
fn offset(source: &Source, position: ron::error::Position) -> usize {
    let mut lines = source.text.split_inclusive('\n');
    let before: usize = lines.by_ref().take(position.line.saturating_sub(1)).map(str::len).sum();
    let line = lines.next().unwrap_or("");
    let mark = if before == 0 && line.starts_with('\u{feff}') { 1 } else { 0 };
    let column = line.char_indices().nth(position.col.saturating_sub(1) + mark).map_or(line.len(), |(at, _)| at);
    before + column
}

/// Whether the file may hold something that RON accepts and we do not: a number that is not finite, an escaped NUL, a
/// `#!` line. A cheap look at the text; most files hold none of it.
fn may_break_our_rules(text: &str) -> bool {
    let exponent = |pair: &[u8]| (pair[0].is_ascii_digit() || pair[0] == b'.') && pair[1].eq_ignore_ascii_case(&b'e');
    ["NaN", "inf", "#!", "\\0", "\\x0", "\\u{0"].iter().any(|sign| text.contains(sign))
        || text.as_bytes().windows(2).any(exponent)
        || text.split(|c: char| !c.is_ascii_digit() && c != '_').any(|number| number.len() > 300)
}

/// Characters that make a file look other than it is.
fn steering(text: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (at, c) in text.char_indices().filter(|(_, c)| *c == '\0' || is_bidi(*c)).take(PROBLEMS_MAX) {
        let what = match c {
            '\0' => "a NUL character",
            _ => "an invisible character that turns the direction of writing",
        };
        let help = match c {
            '\0' => "remove it".to_owned(),
            c => format!("remove it; in a text that needs it write `{}`", c.escape_unicode()),
        };
        problems.push(Problem::error("", at..at + c.len_utf8(), format!("there is {what} here")).with_help(help));
    }
    problems
}
