//! Any text as a jq filter: it is refused, or runs to an end, or is broken off for a reason.

#![no_main]

use lamplighter::lang::Filter;
use libfuzzer_sys::fuzz_target;
use std::ops::ControlFlow;

#[path = "../facts.rs"]
mod facts;

/// Values of one filter that are looked at: a stage takes no more of an item either.
const VALUES_MAX: usize = 1000;

fuzz_target!(init: {
    assert!(Filter::compile(".", None).is_ok(), "built without jq, every filter is refused");
}, |text: &str| {
    match Filter::compile(text, Some("x.jq")) {
        Ok(filter) => {
            let facts = facts::of_an_item();
            let mut given = 0;
            let _ = filter.run(&facts.value, &facts, &mut |value| {
                given += 1;
                assert!(serde_json::to_string(&value).is_ok());
                if given < VALUES_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
        }
        Err(errors) => {
            assert!(!errors.is_empty(), "refused without a reason");
            for error in errors {
                let inside = error.range.is_none_or(|range| text.get(range).is_some());
                assert!(inside, "the place of {:?} is no place of the text", error.message);
            }
        }
    }
});
