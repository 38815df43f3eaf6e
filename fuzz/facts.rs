//! What a template or a filter of the fuzz targets sees: a small item, as of a stage.

use lamplighter::{
    item::{Key, Value},
    lang::{Facts, RunFacts, Secret},
};
use std::sync::Arc;

/// The one secret, `secret.token`.
#[allow(dead_code, reason = "jq sees no secrets")]
pub const SECRET: &str = "s3cr3t-v4lue";

pub fn of_an_item() -> Facts {
    let value = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
    let run = RunFacts {
        params: value(r#"{"vendor": "https://a.example", "n": 3, "ids": ["a", "b"], "deep": {"x": [1, [2, [3]]]}}"#),
        run: value(r#"{"id": "r1", "job": "x", "date": "2026-11-23", "night": "2026-11-22", "attempt": 1}"#),
        secrets: [("token".to_owned(), Secret::new(SECRET))].into(),
    };
    let item = r#"{"id": "P00017", "name": "Zoë <b>", "steps": [1, 2.5, -3, 1e300, null], "big": 9007199254740993,
        "path": "a/../b", "on": true, "none": null, "o": {"k": {"k": "v"}}, "e": "", "t": "2026-11-23T02:30:00Z"}"#;
    Facts::new(Arc::new(value(item)), Key::parse("P00017").expect("a key"), Arc::new(run))
}
