//! Ends: every arrival is settled once, capacity 0 hands over, a listing that fails half way (RUNS E1, E2, E4).

use super::lab::{Lab, What, items, ms, source};
use lamplighter::item::RunOutcome;

/// A line of three stages with these fields of the middle one.
fn line(n: usize, fields: &str) -> Lab {
    Lab::new(&format!(
        "{}, Stage(name: \"work\", {fields}, run: [Call(handler: \"act\", args: {{\"jit\": 7}})]),
         Stage(name: \"end\", workers: 3, buffer: 1, run: [Call(handler: \"sink\")])",
        source(n, |_| String::new())
    ))
}

#[test]
fn every_item_is_delivered_exactly_once_at_any_capacity() {
    for fields in [
        "workers: 1, buffer: 0, waiting: 0",
        "workers: 4, buffer: 0, waiting: 0",
        "workers: 4, buffer: 0",
        "workers: 1, buffer: 1",
        "workers: 3, buffer: 1, waiting: 0",
        "workers: 5, buffer: 7",
        "workers: 3, order: Input",
        "workers: 3, order: Input, buffer: 0, waiting: 0",
    ] {
        line(23, fields).seeds(30, |done| {
            assert_eq!(done.outcome(), RunOutcome::Succeeded, "{:?}", done.record);
            assert_eq!(done.six("end"), [23, 23, 0, 0, 0, 0]);
            assert_eq!(done.sunk_keys("end").len(), 23);
        });
    }
}

#[test]
fn a_hand_over_waits_until_a_worker_has_taken_the_item() {
    // One slow worker without a buffer: the source is at most one item ahead of what has begun.
    let lab = Lab::new(&format!(
        "{}, Stage(name: \"pass\", buffer: 0, waiting: 0, run: [Call(handler: \"act\")]),
         Stage(name: \"slow\", buffer: 0, waiting: 0, run: [Call(handler: \"act\", args: {{\"ms\": 10}})])",
        source(8, |_| String::new())
    ));
    lab.seeds(60, |done| {
        // The i-th item of `pass` can only begin when the one before it was taken by `slow`.
        for i in 1..8 {
            let passed = done.began("pass", &format!("P{i}"))[0];
            let earliest = if i < 2 { 0 } else { 10 * (i as u64 - 1) };
            assert!(passed >= earliest, "P{i} at {passed}, seed {}", done.seed);
        }
        assert_eq!(done.elapsed, ms(80));
    });
}

#[test]
fn a_buffer_of_one_lets_the_sender_be_one_item_ahead() {
    let lab = Lab::new(&format!(
        "{}, Stage(name: \"pass\", buffer: 1, waiting: 0, run: [Call(handler: \"act\")]),
         Stage(name: \"slow\", buffer: 1, waiting: 0, run: [Call(handler: \"act\", args: {{\"ms\": 10}})])",
        source(8, |_| String::new())
    ));
    lab.seeds(60, |done| {
        for i in 3..8 {
            let passed = done.began("pass", &format!("P{i}"))[0];
            assert!(passed >= 10 * (i as u64 - 2), "P{i} at {passed}, seed {}", done.seed);
        }
    });
}

#[test]
fn items_that_come_back_from_a_wait_lose_none_that_is_handed_over() {
    // Idle workers lose their permits again and again to items that come back.
    let lab = Lab::new(&format!(
        "{}, Stage(name: \"work\", workers: 1, buffer: 0, waiting: 6, retry: Retry(max_attempts: 4, initial_interval: \"3ms\"),
            run: [Call(handler: \"act\", args: {{\"jit\": 2}})]),
         Stage(name: \"end\", buffer: 0, run: [Call(handler: \"sink\")])",
        source(24, |i| format!("\"fails\": {}", i % 4))
    ));
    lab.seeds(300, |done| {
        assert_eq!(done.outcome(), RunOutcome::Succeeded, "seed {}: {:?}", done.seed, done.record);
        assert_eq!(done.sunk_keys("end").len(), 24);
    });
}

#[test]
fn a_hand_over_loses_nothing_when_permits_come_and_go_in_one_tick() {
    // Everything is ready at once: an idle worker has an item on its way, loses its permit to an item that comes back,
    // and another worker is idle before it notices.
    for (workers, waiting) in [(1, 3), (2, 6), (2, 16)] {
        let lab = Lab::new(&format!(
            "{}, Stage(name: \"work\", workers: {workers}, buffer: 0, waiting: {waiting},
                retry: Retry(max_attempts: 9, initial_interval: \"1ms\", max_interval: \"1ms\", jitter: Exact), run: [Call(handler: \"act\")]),
             Stage(name: \"end\", buffer: 0, run: [Call(handler: \"sink\")])",
            source(24, |i| format!("\"fails\": {}", i % 7))
        ));
        lab.seeds(150, |done| {
            assert_eq!(done.outcome(), RunOutcome::Succeeded, "seed {}: {:?}", done.seed, done.record);
            assert_eq!(done.sunk_keys("end").len(), 24);
        });
    }
}

#[test]
fn a_listing_that_fails_half_way_is_worked_on_and_fails_the_run() {
    let lab = Lab::new(
        "Stage(name: \"list\", run: [Jq(filter: \"range(5), error(\\\"gone\\\")\")]),
         Stage(name: \"work\", workers: 2, run: [Call(handler: \"sink\")]),
         Stage(name: \"report\", gather: All, run: [Jq(filter: \"counts\"), Call(handler: \"sink\")])",
    );
    lab.seeds(30, |done| {
        assert_eq!(done.outcome(), RunOutcome::Failed);
        assert!(done.reason().contains("listing of stage `list` failed"), "{}", done.reason());
        assert_eq!(done.sunk_keys("work").len(), 5);
        assert!(!done.counts("list").complete && !done.counts("work").complete);
        let counts = &done.sunk.iter().find(|(stage, ..)| stage == "report").expect("it was made").2;
        assert_eq!((&counts["work"]["items"], &counts["work"]["complete"]), (&5.into(), &false.into()));
    });
}

#[test]
fn a_value_on_which_a_later_action_of_the_source_fails_is_one_failed_item() {
    let lab = Lab::new(&format!(
        "Stage(name: \"list\", tolerate: \"1\", key: \"{{{{ item.id }}}}\", run: [{}, Call(handler: \"act\")]),
         Stage(name: \"work\", run: [Call(handler: \"sink\")])",
        items(5, |i| if i == 2 { "\"bad\": 1".into() } else { String::new() })
    ));
    lab.seeds(30, |done| {
        assert_eq!(done.outcome(), RunOutcome::Partial, "{:?}", done.record);
        assert_eq!(done.six("list"), [5, 4, 1, 0, 0, 0]);
        assert_eq!(done.missing("list")["#3"], "call");
        assert_eq!(done.sunk_keys("work"), ["P0", "P1", "P3", "P4"]);
    });
}

#[test]
fn several_readers_each_get_every_item_and_the_slowest_sets_the_pace() {
    let lab = Lab::new(&format!(
        "{}, Stage(name: \"work\", workers: 3, run: [Call(handler: \"act\", args: {{\"jit\": 3}})]),
         Stage(name: \"slow\", from: [\"work\"], buffer: 1, run: [Call(handler: \"sink\", args: {{\"ms\": 10}})]),
         Stage(name: \"fast\", from: [\"work\"], workers: 2, buffer: 0, run: [Call(handler: \"sink\")]),
         Stage(name: \"too\", from: [\"list\"], run: [Call(handler: \"sink\")])",
        source(20, |_| String::new())
    ));
    lab.seeds(60, |done| {
        for stage in ["slow", "fast", "too"] {
            assert_eq!(done.sunk_keys(stage).len(), 20);
        }
        let last_fast = done.of("fast", What::Ended).last().expect("20").at;
        assert!(last_fast >= ms(10 * 12), "the fast reader ran ahead: {last_fast:?}");
    });
}

#[test]
fn a_source_that_lists_nothing_succeeds() {
    let lab = Lab::new(
        "Stage(name: \"list\", run: [Items(list: [])]), Stage(name: \"work\", run: [Call(handler: \"sink\")]),
         Stage(name: \"all\", gather: All, run: [Jq(filter: \"[items]\"), Call(handler: \"sink\")])",
    );
    lab.seeds(20, |done| {
        assert_eq!(done.outcome(), RunOutcome::Succeeded);
        assert_eq!(done.sunk, [("all".to_owned(), "all".to_owned(), serde_json::json!([]))]);
    });
}
