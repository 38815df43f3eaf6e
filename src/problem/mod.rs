//! What is wrong with a file, and where.
//!
//! RON and the types of the schema decide whether a file is good; only when they refuse, a tolerant parser of our own reads
//! it again to explain everything at once, in the words of people who write job files. Every room that reads what
//! authors write calls [`load`]; rooms that find problems later give them a place by [`locate`]. Nothing here opens a file.

mod explain;
mod hints;
mod load;
mod locate;
mod parse;
mod reference;
mod render;
pub mod schema;
mod spare;
mod suggest;
mod synonyms;
#[cfg(test)]
#[expect(dead_code, reason = "the small job format of the tests is read, not run")]
mod tests;
#[cfg(test)]
mod tests_mutants;
mod text;
mod values;

use std::ops::Range;

pub use load::load;
pub use locate::{locate, locate_in_text, locate_key};
pub use reference::{Entry, Reference, Type};
pub use render::{escape, render, to_json};
pub use spare::{Spared, without_wrong_fields};
pub use suggest::closest;
pub use values::{Json, UniqueMap};

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The file cannot be used.
    Error,
    /// It can, but probably does not do what was meant.
    Remark,
}

/// Something wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub level: Level,
    /// The field that it is about, like `stages[1].from`; empty for the whole file.
    pub path: String,
    /// Where it stands: bytes of [`Source::text`].
    pub span: Range<usize>,
    /// What is wrong, in one short sentence.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}

/// A file as it was read: what spans are counted in.
#[derive(Clone, Debug)]
pub struct Source {
    /// As people call it, usually its path.
    pub name: String,
    /// All of it, a byte order mark included.
    pub text: String,
}

/// A place in a file as editors count: both from 1, the column in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl Problem {
    /// An error at a place that is already known.
    pub fn error(path: impl Into<String>, span: Range<usize>, message: impl Into<String>) -> Problem {
        Problem { level: Level::Error, path: path.into(), span, message: message.into(), help: None }
    }

    /// A remark at a place that is already known.
    pub fn remark(path: impl Into<String>, span: Range<usize>, message: impl Into<String>) -> Problem {
        Problem { level: Level::Remark, ..Problem::error(path, span, message) }
    }

    /// Says what to write instead.
    pub fn with_help(mut self, help: impl Into<String>) -> Problem {
        self.help = Some(help.into());
        self
    }
}

/// Sorts problems by their place in the file.
pub fn in_file_order(problems: &mut [Problem]) {
    problems.sort_by_key(|problem| (problem.span.start, problem.span.end));
}

impl Source {
    /// A file that was read.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Source {
        Source { name: name.into(), text: text.into() }
    }

    /// Where a byte stands. A byte inside a character is that character; one past the end is the end.
    pub fn position(&self, byte: usize) -> Position {
        let before = &self.text[..self.boundary(byte)];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = &before[line_start..];
        Position {
            line: before.matches('\n').count() + 1,
            column: line.strip_prefix('\u{feff}').unwrap_or(line).chars().count() + 1,
        }
    }

    /// The character boundary at or before a byte.
    fn boundary(&self, byte: usize) -> usize {
        let mut at = byte.min(self.text.len());
        while !self.text.is_char_boundary(at) {
            at -= 1;
        }
        at
    }
}
