//! A panic is one item's failure, never the run's end.

use super::lab::{Lab, source};
use lamplighter::item::RunOutcome;

#[test]
fn a_panic_in_a_handler_is_that_items_failure() {
    let lab = Lab::new(&format!(
        "{}, Stage(name: \"work\", workers: 3, tolerate: \"2\", retry: Retry(max_attempts: 4), run: [Call(handler: \"act\", args: {{\"jit\": 3}})]),
         Stage(name: \"end\", run: [Call(handler: \"sink\")])",
        source(12, |i| if i % 6 == 2 { "\"panic\": 1".into() } else { String::new() })
    ));
    lab.seeds(40, |done| {
        assert_eq!(done.outcome(), RunOutcome::Partial);
        assert_eq!(
            done.missing("work").into_iter().collect::<Vec<_>>(),
            [("P2".to_owned(), "panic".to_owned()), ("P8".to_owned(), "panic".to_owned())]
        );
        assert!(done.record.failures.iter().all(|f| f.message.contains("the handler was told to") && f.attempts == 1));
        assert_eq!(done.sunk.len(), 10);
    });
}

#[test]
fn a_panic_in_a_listing_fails_the_listing_by_name() {
    let lab = Lab::new(
        "Stage(name: \"list\", run: [Call(handler: \"act\", args: {\"panic\": 1})]),
         Stage(name: \"work\", run: [Call(handler: \"sink\")]),
         Stage(name: \"all\", gather: All, run: [Call(handler: \"sink\")])",
    );
    lab.seeds(20, |done| {
        assert_eq!(done.outcome(), RunOutcome::Failed);
        assert!(done.reason().contains("panic"), "{}", done.reason());
        assert_eq!(done.sunk_keys("all"), ["all"]);
    });
}

#[test]
fn a_panic_in_the_report_fails_the_run() {
    let lab = Lab::new(&format!(
        "{}, Stage(name: \"all\", gather: All, run: [Call(handler: \"act\", args: {{\"panic\": 1}})])",
        source(2, |_| String::new())
    ));
    lab.seeds(20, |done| {
        assert_eq!(done.outcome(), RunOutcome::Failed);
        assert!(done.reason().contains("gather `all` failed"), "{}", done.reason());
    });
}
