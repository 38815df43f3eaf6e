//! Values that are not fields of a type of ours: maps whose keys are given once, any value as JSON, and what the
//! schema says of the units.

use std::collections::HashSet;
use std::fmt;

use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::schema::{Described, Shape};
use crate::limits::DEPTH_MAX;
use crate::units::{Rate, Size, Span, Tolerance};

/// `{"key": …}` in the order in which it was written; a key given twice is refused.
#[derive(Clone, Debug, PartialEq)]
pub struct UniqueMap<T>(pub Vec<(String, T)>);

/// Any value that authors write, as JSON: structs and maps are objects, lists and tuples arrays, `None` is null. Bare
/// words, numbers that are not finite and byte strings are refused.
#[derive(Clone, Debug, PartialEq)]
pub struct Json(pub Value);

impl<T> UniqueMap<T> {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&T> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, value)| value)
    }
}

impl<T> Default for UniqueMap<T> {
    fn default() -> UniqueMap<T> {
        UniqueMap(Vec::new())
    }
}

impl<T: Described> Described for UniqueMap<T> {
    fn shape() -> Shape {
        Shape::Map(T::shape)
    }
}

impl Described for Json {
    fn shape() -> Shape {
        Shape::Any
    }
}

/// Says of a unit what the schema needs to know.
macro_rules! described_as_word {
    ($($unit:ident),+) => {$(
        impl Described for $unit {
            fn shape() -> Shape {
                Shape::Word {
                    what: $unit::WHAT,
                    check: |text| text.parse::<$unit>().map(drop).map_err(|e| e.to_string()),
                }
            }
        }
    )+};
}

described_as_word!(Span, Size, Tolerance, Rate);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for UniqueMap<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<UniqueMap<T>, D::Error> {
        struct Visit<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Visit<T> {
            type Value = UniqueMap<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map such as {\"key\": value}")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<UniqueMap<T>, A::Error> {
                let (mut entries, mut seen) = (Vec::new(), HashSet::new());
                while let Some(key) = access.next_key::<String>()? {
                    if !seen.insert(key.clone()) {
                        return Err(de::Error::custom(given_twice(&key)));
                    }
                    entries.push((key, access.next_value()?));
                }
                Ok(UniqueMap(entries))
            }
        }
        deserializer.deserialize_map(Visit(std::marker::PhantomData))
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Json, D::Error> {
        AnyValue { depth: 0 }.deserialize(deserializer).map(Json)
    }
}

fn given_twice(key: &str) -> String {
    format!("the key {key:?} is given twice")
}

/// Reads a value that stands inside `depth` others.
#[derive(Clone, Copy)]
struct AnyValue {
    depth: usize,
}

impl AnyValue {
    fn deeper<E: de::Error>(self) -> Result<AnyValue, E> {
        if self.depth >= DEPTH_MAX {
            return Err(E::custom(format!("values stand at most {DEPTH_MAX} deep inside each other")));
        }
        Ok(AnyValue { depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for AnyValue {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number, true, false, None, a list or a map")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        let number = serde_json::Number::from_f64(value);
        number.map(Value::Number).ok_or_else(|| E::custom("a number must be finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deeper()?.deserialize(deserializer)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        // RON gives `()`, `null` and `fast` alike: taken for nothing, a forgotten quote would pass in silence.
        Err(E::custom("a bare word is no value: write it in quotes, or None for nothing"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let (inner, mut values) = (self.deeper()?, Vec::new());
        while let Some(value) = access.next_element_seed(inner)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let (inner, mut object) = (self.deeper()?, serde_json::Map::new());
        while let Some(key) = access.next_key::<String>()? {
            if object.contains_key(&key) {
                return Err(de::Error::custom(given_twice(&key)));
            }
            let value = access.next_value_seed(inner)?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn any(text: &str) -> Result<Value, String> {
        ron::from_str::<Json>(text).map(|json| json.0).map_err(|e| e.code.to_string())
    }

    #[test]
    fn any_value_becomes_json() {
        for (text, value) in [
            (r#"{"a": 1, "b": [true, 'c', None, Some(2.5)]}"#, json!({"a": 1, "b": [true, "c", null, 2.5]})),
            ("(x: -1, y: (1, 2))", json!({"x": -1, "y": [1, 2]})),
            ("Point(x: 1)", json!({"x": 1})),
            ("18446744073709551615", json!(18446744073709551615u64)),
            ("{}", json!({})),
            (r##"r#"a"b"#"##, json!("a\"b")),
        ] {
            assert_eq!(any(text), Ok(value), "{text}");
        }
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for (text, message) in [
            ("NaN", "a number must be finite"),
            ("[inf]", "a number must be finite"),
            ("1e999", "a number must be finite"),
            ("fast", "a bare word is no value: write it in quotes, or None for nothing"),
            ("()", "a bare word is no value: write it in quotes, or None for nothing"),
            (r#"{"a": 1, "a": 2}"#, "the key \"a\" is given twice"),
            ("(a: 1, a: 2)", "the key \"a\" is given twice"),
        ] {
            assert_eq!(any(text), Err(message.to_owned()), "{text}");
        }
        assert!(any(r#"{1: "a"}"#).is_err() && any(r#"b"x""#).is_err());
        assert!(any(&format!("{}{}", "[".repeat(100_000), "]".repeat(100_000))).is_err());
        let deep = format!("{}1{}", "[".repeat(DEPTH_MAX + 1), "]".repeat(DEPTH_MAX + 1));
        let unlimited = ron::Options::default().without_recursion_limit();
        assert!(unlimited.from_str::<Json>(&deep).is_err());
        assert!(unlimited.from_str::<Json>(&deep[1..deep.len() - 1]).is_ok());
    }

    #[test]
    fn a_map_keeps_its_order_and_refuses_a_key_given_twice() {
        let map: UniqueMap<u32> = ron::from_str(r#"{"b": 1, "a": 2}"#).expect("reads");
        assert_eq!(map.0, [("b".to_owned(), 1), ("a".to_owned(), 2)]);
        assert_eq!(map.get("a"), Some(&2));
        let twice = ron::from_str::<UniqueMap<u32>>(r#"{"b": 1, "b": 2}"#).expect_err("refuses");
        assert_eq!(twice.code.to_string(), "the key \"b\" is given twice");
    }
}
