//! What each clock counts (RUNS T3), and ends in the same tick.

use super::lab::{Lab, ms, source};
use lamplighter::item::RunOutcome;

fn one(fields: &str, act: &str) -> Lab {
    Lab::new(&format!(
        "{}, Stage(name: \"work\", {fields}, tolerate: \"99\", run: [Call(handler: \"act\", args: {{{act}}})]),
         Stage(name: \"end\", run: [Call(handler: \"sink\")])",
        source(1, |_| String::new())
    ))
}

#[test]
fn a_success_in_the_tick_of_a_bound_is_a_success() {
    for fields in [
        "timeout: \"30ms\"",
        "item_deadline: \"30ms\"",
        "deadline: \"30ms\"",
        "deadline: \"30ms\", on_deadline: Continue",
    ] {
        one(fields, "\"ms\": 30").seeds(60, |done| {
            assert_eq!(done.counts("work").ok, 1, "{fields}, seed {}: {:?}", done.seed, done.record);
        });
        one(fields, "\"ms\": 31").seeds(60, |done| {
            assert_eq!(done.counts("work").ok, 0, "{fields}, seed {}: {:?}", done.seed, done.record);
            assert_eq!(done.elapsed, ms(30), "{fields}");
        });
    }
}

#[test]
fn a_timeout_is_of_one_attempt_and_its_class_is_timeout() {
    let fields = "timeout: \"30ms\", retry: Retry(max_attempts: 3, initial_interval: \"20ms\", jitter: Exact)";
    one(fields, "\"ms\": 50").seeds(20, |done| {
        assert_eq!(done.began("work", "P0"), [0, 50, 120]);
        assert_eq!(done.missing("work")["P0"], "timeout");
        assert_eq!(done.counts("work").attempts, 3);
        assert_eq!(done.elapsed, ms(150));
    });
}

#[test]
fn an_item_deadline_counts_retries_and_waits() {
    let fields = "item_deadline: \"100ms\", retry: Retry(max_attempts: 9, initial_interval: \"20ms\", max_interval: \"20ms\", jitter: Exact)";
    // Attempts of 30 ms at 0 and 50; the third would begin at 100 and is cut there.
    one(fields, "\"ms\": 35, \"fails\": 9").seeds(20, |done| {
        assert_eq!(done.began("work", "P0"), [0, 55]);
        assert_eq!(done.elapsed, ms(90));
        assert_eq!(done.missing("work")["P0"], "call", "a wait past the deadline: its last failure");
    });
    one(fields, "\"ms\": 30, \"fails\": 9").seeds(20, |done| {
        assert_eq!(done.six("work")[3], 1, "{:?}", done.record);
        assert_eq!(done.elapsed, ms(100));
    });
}

#[test]
fn an_item_deadline_counts_neither_the_buffer_before_nor_the_delivery_after() {
    let lab = Lab::new(&format!(
        "{}, Stage(name: \"work\", buffer: 8, item_deadline: \"30ms\", run: [Call(handler: \"act\", args: {{\"ms\": 25}})]),
         Stage(name: \"end\", buffer: 0, waiting: 0, run: [Call(handler: \"sink\", args: {{\"ms\": 200}})])",
        source(6, |_| String::new())
    ));
    lab.seeds(40, |done| assert_eq!(done.outcome(), RunOutcome::Succeeded, "{:?}", done.record));
}

#[test]
fn a_stage_deadline_begins_with_its_first_item() {
    let lab = Lab::new(&format!(
        "Stage(name: \"list\", key: \"{{{{ item.id }}}}\", run: [{}, Call(handler: \"act\", args: {{\"ms\": 500}})]),
         Stage(name: \"work\", deadline: \"550ms\", on_deadline: Continue, tolerate: \"9\", run: [Call(handler: \"act\", args: {{\"ms\": 20}})])",
        super::lab::items(3, |_| String::new())
    ));
    lab.seeds(20, |done| {
        // Items come at 500, 1000 and 1500; the stage closes at 1050.
        assert_eq!(done.six("work"), [3, 2, 0, 0, 0, 1]);
        assert_eq!(done.elapsed, ms(1500));
    });
}

#[test]
fn the_timeout_of_a_source_does_not_count_what_its_readers_need() {
    // The listing itself is done at once; its reader takes 10 s.
    let lab = Lab::new(
        "Stage(name: \"list\", timeout: \"1s\", run: [Jq(filter: \"range(3000)\")]),
         Stage(name: \"work\", buffer: 1, run: [Call(handler: \"act\", args: {\"ms\": 10})])",
    );
    let done = lab.run(3);
    assert_eq!(done.outcome(), RunOutcome::Succeeded, "{:?}", done.record);
}

#[test]
fn the_timeout_of_a_source_ends_a_listing_that_hangs() {
    let lab = Lab::new(
        "Stage(name: \"list\", timeout: \"1s\", run: [Items(list: [{}, {\"hang\": 1}, {}]), Call(handler: \"act\")]),
         Stage(name: \"work\", run: [Call(handler: \"sink\")])",
    );
    lab.seeds(20, |done| {
        assert_eq!(done.outcome(), RunOutcome::Failed);
        assert!(done.reason().contains("timeout"), "{}", done.reason());
        assert_eq!((done.elapsed, done.sunk.len()), (ms(1000), 1));
    });
}

#[test]
fn while_the_machine_sleeps_deadlines_go_on_and_timeouts_stand_still() {
    let sleeps = |fields: &str| {
        let lab = one(fields, "\"ms\": 1000");
        lab.run_with(
            1,
            super::lab::options(),
            super::lab::Script::Suspend(ms(500), std::time::Duration::from_secs(3600)),
        )
    };
    assert_eq!(sleeps("timeout: \"1500ms\"").counts("work").ok, 1);
    assert_eq!(sleeps("item_deadline: \"30m\"").counts("work").timed_out, 1);
    assert_eq!(sleeps("deadline: \"30m\", on_deadline: Continue").counts("work").timed_out, 1);
    let done = sleeps("deadline: \"30m\"");
    assert_eq!((done.outcome(), done.elapsed), (RunOutcome::DeadlineExceeded, ms(500)));
}
