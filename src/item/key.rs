//! The name of an item, for people, services and state.

use super::short::Short;
use crate::limits::KEY_PART_BYTES_MAX;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;

/// A path of parts, shown joined by `/`: `P00042`, `P00042/heart-rate`.
///
/// Cheap to clone. A part has 1 to 256 bytes and no control characters; `/` separates parts.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Short);

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
        Ok(Key::of(text))
    }

    fn of(text: &str) -> Key {
        Key(Short::new(text.as_bytes()))
    }

    /// The key of a listed item that has none of its own: its place in the listing, from 1.
    pub fn ordinal(ordinal: u64) -> Key {
        // A listing makes one for each item: without a text in between.
        let mut digits = [0; 20];
        let mut at = digits.len();
        let mut rest = ordinal.saturating_add(1);
        while rest > 0 {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        Key(Short::new(&digits[at..]))
    }

    /// The name of a listed item without a usable key: `#7`.
    pub fn nameless(ordinal: u64) -> Key {
        Key::of(&format!("#{}", ordinal + 1))
    }

    /// The one key of a gather of everything.
    pub fn all() -> Key {
        Key::of("all")
    }

    /// This key with a further part (itself perhaps a path) behind it.
    pub fn join(&self, part: &Key) -> Key {
        Key::of(&format!("{self}/{part}"))
    }

    /// This key with a number behind it: the value's place at a fan-out, from 1.
    pub fn child(&self, index: usize) -> Key {
        Key::of(&format!("{self}/{index}"))
    }

    /// The text, parts joined by `/`.
    pub fn as_str(&self) -> &str {
        // Made of texts only.
        str::from_utf8(self.0.as_bytes()).unwrap_or_default()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Key").field(&self.as_str()).finish()
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
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Key, D::Error> {
        Key::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
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
        assert_eq!(
            [0, 8, 9, u64::MAX - 1].map(|at| Key::ordinal(at).to_string()),
            ["1", "9", "10", "18446744073709551615"]
        );
    }
}
