//! What forgetting a key means for texts that name it, the same in every store.

use crate::item::{Key, Value};

use super::codec::is_below;

/// The record of a run without its failures of a key and those below it. `None` when it names none.
pub(super) fn without_failures_of(record: &str, above: &Key) -> Option<String> {
    let mut record: Value = serde_json::from_str(record).ok()?;
    let failures = record.get_mut("failures")?.as_array_mut()?;
    let before = failures.len();
    failures.retain(|failure| {
        let key = failure.get("key").and_then(Value::as_str).and_then(|text| Key::parse(text).ok());
        !key.is_some_and(|key| is_below(&key, above))
    });
    (failures.len() < before).then(|| record.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_loses_the_failures_of_a_key_and_of_those_below_it() {
        let record = r#"{"run":"r","failures":[{"key":"P1"},{"key":"P1/heart"},{"key":"P10"}],"outputs":[]}"#;
        let without = |key: &str| without_failures_of(record, &Key::parse(key).expect("a key"));
        assert_eq!(without("P1").as_deref(), Some(r#"{"run":"r","failures":[{"key":"P10"}],"outputs":[]}"#));
        assert_eq!((without("P2"), without_failures_of("no json", &Key::all())), (None, None));
    }
}
