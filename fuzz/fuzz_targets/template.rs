//! Any text as a template of each flavor: it is refused, or gives a text within its bounds, or says why not.

#![no_main]

use lamplighter::{
    lang::{Flavor, Template},
    limits::RENDERED_BYTES_MAX,
};
use libfuzzer_sys::fuzz_target;

#[path = "../facts.rs"]
mod facts;

fuzz_target!(|text: &str| {
    let facts = facts::of_an_item();
    for flavor in [Flavor::Text, Flavor::Html, Flavor::UrlPath] {
        match Template::compile(text, flavor) {
            Ok(template) => {
                if let Ok(rendered) = template.render(&facts) {
                    assert!(rendered.len() <= RENDERED_BYTES_MAX);
                    let told = rendered.contains(facts::SECRET) && !text.contains(facts::SECRET);
                    assert!(!told || !template.secrets_used().is_empty(), "a secret that nobody named");
                }
            }
            Err(error) => {
                let inside = error.range.is_none_or(|range| text.get(range).is_some());
                assert!(inside, "the place of {:?} is no place of the text", error.message);
            }
        }
    }
});
