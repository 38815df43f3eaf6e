//! A panic is one item's failure, never the run's end.

use super::lab::{Lab, options, source};
use lamplighter::{
    action::{Call, CallError, Handlers},
    item::{RunOutcome, Value},
    job::Job,
    run::Runner,
    world::sim::Sim,
};
use std::{path::Path, sync::Arc, time::Duration};

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

/// A handler's future that panics when it is dropped before its end: outside the fence of its item.
struct Spring;

impl Drop for Spring {
    fn drop(&mut self) {
        // resume_unwind is silent: the test prints nothing.
        std::panic::resume_unwind(Box::new("sprung"));
    }
}

#[test]
fn a_panic_outside_the_fence_of_an_item_ends_the_run_by_name_and_nobody_waits() {
    let handlers = Handlers::new()
        .add("trap", |call: Call| async move {
            if call.key.as_str() == "1" {
                // The first item waits for its second attempt while the second one is sprung with the only permit.
                return Err(CallError::retry("later"));
            }
            let spring = Spring;
            call.sleep(Duration::from_secs(3600)).await;
            std::mem::forget(spring);
            Ok::<Value, CallError>(Value::Null)
        })
        .expect("one handler");
    let text = r#"Job(stages: [
        Stage(name: "list", run: [Jq(filter: "range(50)")]),
        Stage(name: "work", workers: 1, timeout: "1s",
            retry: Retry(max_attempts: 2, initial_interval: "5s", jitter: Exact), run: [Call(handler: "trap")]),
        Stage(name: "all", gather: All, run: [Jq(filter: "counts")]),
    ])"#;
    let job = Arc::new(Job::from_ron("trap", text, Path::new("."), &handlers).expect("a job").job);
    for seed in 0..40 {
        let sim = Sim::new(seed);
        let run = Runner::new(sim.world()).start(&job, options()).expect("starts");
        let record = sim.run(run).unwrap_or_else(|stalled| panic!("seed {seed}: {stalled:?}"));
        assert_eq!(record.outcome, RunOutcome::Failed, "seed {seed}");
        let reason = record.reason.unwrap_or_default();
        assert!(reason.contains("a worker of stage `work` panicked: sprung"), "seed {seed}: {reason}");
        assert!(sim.elapsed() < Duration::from_secs(60), "seed {seed}");
        assert_eq!(sim.leaked(), 0, "seed {seed}");
    }
}
