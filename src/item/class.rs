//! Why an item failed.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;

/// The kind of a failure: what reports group by and what `Retry` decides on.
///
/// Shown and stored as snake_case text (`http_404`, `too_large`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// An answer whose `retry_if` or `fail_if` was true.
    Answer,
    /// A Rust handler returned an error.
    Call,
    /// A 409 to a repeated idempotency key.
    Conflict,
    /// The item's own data: a missing field, a bad row, a value that does not render.
    Data,
    /// A body that is not the JSON or gzip it claims to be.
    Decode,
    /// A second listed item with a key that another one has.
    DuplicateKey,
    /// A child process ended with a code that is not among `success_codes`, by a signal, or could not start.
    Exit,
    /// An HTTP status that is not a success.
    Http(u16),
    /// A listing that ended before its end.
    Listing,
    /// A token that was never settled: a defect of this program, never of the job.
    Lost,
    /// A file that could not be written.
    Output,
    /// Another item of this run has written that path already.
    OutputConflict,
    /// A handler or action panicked.
    Panic,
    /// A redirect that is not followed.
    Redirect,
    /// The private store is full (`spool_max`) or could not be written.
    Spool,
    /// The stage has abandoned too many computations that never ended.
    Stuck,
    /// The last attempt took longer than its timeout.
    Timeout,
    /// More values or bytes than `max_value`, `max_body` or `max_file` allow.
    TooLarge,
    /// The connection failed: refused, reset, closed early, name not found, TLS.
    Transport,
}

impl Class {
    /// Parses what `Display` writes; `None` for any other text.
    pub fn parse(text: &str) -> Option<Class> {
        if let Some(code) = text.strip_prefix("http_") {
            return code.parse().ok().map(Class::Http);
        }
        ALL.iter().copied().find(|class| class.name() == text)
    }

    fn name(self) -> &'static str {
        match self {
            Class::Answer => "answer",
            Class::Call => "call",
            Class::Conflict => "conflict",
            Class::Data => "data",
            Class::Decode => "decode",
            Class::DuplicateKey => "duplicate_key",
            Class::Exit => "exit",
            Class::Http(_) => "http",
            Class::Listing => "listing",
            Class::Lost => "lost",
            Class::Output => "output",
            Class::OutputConflict => "output_conflict",
            Class::Panic => "panic",
            Class::Redirect => "redirect",
            Class::Spool => "spool",
            Class::Stuck => "stuck",
            Class::Timeout => "timeout",
            Class::TooLarge => "too_large",
            Class::Transport => "transport",
        }
    }
}

/// Every class without a number.
const ALL: [Class; 18] = [
    Class::Answer,
    Class::Call,
    Class::Conflict,
    Class::Data,
    Class::Decode,
    Class::DuplicateKey,
    Class::Exit,
    Class::Listing,
    Class::Lost,
    Class::Output,
    Class::OutputConflict,
    Class::Panic,
    Class::Redirect,
    Class::Spool,
    Class::Stuck,
    Class::Timeout,
    Class::TooLarge,
    Class::Transport,
];

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Class::Http(status) => write!(f, "http_{status}"),
            other => f.write_str(other.name()),
        }
    }
}

impl Serialize for Class {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Class {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Class, D::Error> {
        let text = String::deserialize(deserializer)?;
        Class::parse(&text).ok_or_else(|| de::Error::custom(format!("`{text}` is no class of failures")))
    }
}

/// One failure: its class and a message for people, at most [`crate::limits::MESSAGE_BYTES_MAX`] bytes, without control
/// characters and without item values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What reports group by.
    pub class: Class,
    /// What, where and what to do.
    pub message: String,
}

impl Failure {
    /// Makes a failure; a message that is too long is cut at a character, control characters become spaces.
    pub fn new(class: Class, message: impl Into<String>) -> Failure {
        let mut message: String = message.into();
        if message.len() > crate::limits::MESSAGE_BYTES_MAX {
            let mut end = crate::limits::MESSAGE_BYTES_MAX - '…'.len_utf8();
            while !message.is_char_boundary(end) {
                end -= 1;
            }
            message.truncate(end);
            message.push('…');
        }
        if message.chars().any(char::is_control) {
            message = message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        }
        Failure { class, message }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.class, self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_is_read_back_from_its_text() {
        for class in ALL.into_iter().chain([Class::Http(404), Class::Http(599)]) {
            assert_eq!(Class::parse(&class.to_string()), Some(class));
        }
        assert_eq!(Class::parse("http_x"), None);
        assert_eq!(Class::parse("unknown"), None);
    }

    #[test]
    fn a_long_message_is_cut_at_a_character_and_control_characters_go() {
        let failure = Failure::new(Class::Data, "ä\n".repeat(2000));
        assert!(failure.message.len() <= crate::limits::MESSAGE_BYTES_MAX);
        assert!(failure.message.ends_with('…'));
        assert!(!failure.message.contains('\n'));
    }
}
