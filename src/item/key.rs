//! The name of an item, for people, services and state.

use crate::limits::KEY_PART_BYTES_MAX;
use serde::{Serialize, Serializer};
use std::{fmt, sync::Arc};

/// A path of parts, shown joined by `/`: `P00042`, `P00042/heart-rate`.
///
/// Cheap to clone. A part has 1 to 256 bytes and no control characters; `/` separates parts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

/// Why a text is no usable key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// The text, or a part of it, is empty.
    Empty,
    /// A part has more than 256 bytes.
    TooLong,
    /// A part has a control character.
    Control,
}

impl Key {
    /// Reads a rendered key.
    ///
    /// # Errors
    /// When a part is empty, too long, or has a control character.
    pub fn parse(text: &str) -> Result<Key, KeyError> {
        for part in text.split('/') {
            if part.is_empty() {
                return Err(KeyError::Empty);
            }
            if part.len() > KEY_PART_BYTES_MAX {
                return Err(KeyError::TooLong);
            }
            if part.chars().any(char::is_control) {
                return Err(KeyError::Control);
            }
        }
        Ok(Key(text.into()))
    }

    /// The key of a listed item that has none of its own: its place in the listing, from 1.
    pub fn ordinal(ordinal: u64) -> Key {
        Key((ordinal + 1).to_string().into())
    }

    /// The name of a listed item without a usable key: `#7`.
    pub fn nameless(ordinal: u64) -> Key {
        Key(format!("#{}", ordinal + 1).into())
    }

    /// The one key of a gather of everything.
    pub fn all() -> Key {
        Key("all".into())
    }

    /// This key with a further part (itself perhaps a path) behind it.
    pub fn join(&self, part: &Key) -> Key {
        Key(format!("{}/{}", self.0, part.0).into())
    }

    /// This key with a number behind it: the value's place at a fan-out, from 1.
    pub fn child(&self, index: usize) -> Key {
        Key(format!("{}/{index}", self.0).into())
    }

    /// The text, parts joined by `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KeyError::Empty => "the key, or a part of it between `/`, is empty",
            KeyError::TooLong => "a part of the key has more than 256 bytes",
            KeyError::Control => "the key has a control character",
        })
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_path_of_usable_parts() {
        assert_eq!(Key::parse("P1/steps").map(|k| k.to_string()), Ok("P1/steps".into()));
        assert_eq!(Key::parse(""), Err(KeyError::Empty));
        assert_eq!(Key::parse("a//b"), Err(KeyError::Empty));
        assert_eq!(Key::parse("a/"), Err(KeyError::Empty));
        assert_eq!(Key::parse("a\u{1b}b"), Err(KeyError::Control));
        assert_eq!(Key::parse(&"x".repeat(257)), Err(KeyError::TooLong));
        assert!(Key::parse(&"x".repeat(256)).is_ok());
    }
}
