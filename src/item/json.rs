//! JSON as a value, with little memory: what stands in a list is mostly as large as its neighbour, so each
//! element is made with the room that the one before it needed.

use super::Value;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Error, Map, Number};
use std::{cell::Cell, fmt};

/// Most elements or fields that room is made for before they have come: a neighbour may have been much larger.
const AHEAD_MAX: usize = 64;

/// Reads what [`serde_json::from_slice`] reads, into the same value.
///
/// # Errors
/// As that.
pub(crate) fn parse_json(text: &[u8]) -> Result<Value, Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = After(&Cell::new(0)).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// Reads one value. The cell has the length of the list or object that stood before it in the same list.
struct After<'a>(&'a Cell<usize>);

impl<'de> DeserializeSeed<'de> for After<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for After<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any valid JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, yes: bool) -> Result<Value, E> {
        Ok(Value::Bool(yes))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::from(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::from(number))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Number::from_f64(number).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let before = Cell::new(0);
        let mut list = Vec::with_capacity(self.0.get().min(AHEAD_MAX));
        while let Some(element) = elements.next_element_seed(After(&before))? {
            list.push(element);
        }
        self.0.set(list.len());
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut object = Map::with_capacity(self.0.get().min(AHEAD_MAX));
        while let Some(name) = fields.next_key_seed(Name)? {
            object.insert(name, fields.next_value_seed(After(&Cell::new(0)))?);
        }
        self.0.set(object.len());
        Ok(Value::Object(object))
    }
}

/// Reads the name of a field.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        String::deserialize(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn assert_as_serde_json(text: &str) {
        let (ours, theirs) = (parse_json(text.as_bytes()), serde_json::from_slice::<Value>(text.as_bytes()));
        match (ours, theirs) {
            // As text too: of two objects with their fields in another order it is not the same.
            (Ok(ours), Ok(theirs)) => {
                assert_eq!(ours, theirs, "{text}");
                assert_eq!(ours.to_string(), theirs.to_string(), "{text}");
            }
            (ours, theirs) => {
                let message = |result: Result<Value, Error>| result.map_err(|error| error.to_string());
                assert_eq!(message(ours), message(theirs), "{text}");
            }
        }
    }

    #[test]
    fn it_reads_what_serde_json_reads() {
        let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        for text in [
            r#"{"b": 1, "a": [{"x": 1, "y": [1, 2]}, {"y": null}, [], {}, [[1, 2], [3, 4], []]], "b": 2}"#,
            r#"[0, -0, -0.0, 1e2, 1.5e300, 18446744073709551615, 18446744073709551616, -9223372036854775808, 0.1]"#,
            r#"["", "\u00e4\n\ud83d\ude00", "plain", true, false, null]"#,
            "1e999",
            "[1,]",
            "[1] 2",
            "{\"a\" 1}",
            "",
            &deep(127),
            &deep(129),
        ] {
            assert_as_serde_json(text);
        }
        assert!(parse_json(b"[\"\xff\"]").is_err());
    }

    proptest! {
        #[test]
        fn it_reads_any_text_as_serde_json(text in "[\\[\\]{}\",:0-9a-c.e\\\\ -]{0,24}") {
            assert_as_serde_json(&text);
        }
    }
}
