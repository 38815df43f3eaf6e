//! A stage's own retry, and waits that leave memory (RUNS T1, T4).

use super::lab::{Lab, What, ms, source};
use lamplighter::item::RunOutcome;

#[test]
fn an_attempt_begins_again_at_the_first_action_with_the_original_item() {
    let lab = Lab::new(&format!(
        "{}, Stage(name: \"work\", workers: 2, retry: Retry(max_attempts: 3, initial_interval: \"10ms\"), run: [
            Jq(filter: \". + {{seen: ((.seen // 0) + 1)}}\"), Call(handler: \"act\")]),
         Stage(name: \"end\", run: [Call(handler: \"sink\")])",
        source(6, |i| format!("\"fails\": {}", i % 3))
    ));
    lab.seeds(60, |done| {
        assert_eq!(done.outcome(), RunOutcome::Succeeded);
        assert!(done.sunk.iter().all(|(_, _, value)| value["seen"] == 1));
        assert_eq!(done.counts("work").attempts, 2 * (1 + 2 + 3));
        assert!(done.of("work", What::Began).all(|event| event.value["seen"] == 1));
    });
}

#[test]
fn only_failures_that_may_pass_are_repeated() {
    let lab = Lab::new(
        "Stage(name: \"list\", key: \"{{ item.id }}\", run: [Items(list: [
            {\"id\": \"again\", \"fails\": 9}, {\"id\": \"given-up\", \"bad\": 1}, {\"id\": \"panic\", \"panic\": 1},
            {\"id\": \"data\", \"broken\": 1}, {\"id\": \"slow\", \"ms\": 500}])]),
         Stage(name: \"work\", workers: 3, timeout: \"100ms\", tolerate: \"9\",
            retry: Retry(max_attempts: 3, initial_interval: \"10ms\"),
            run: [Call(handler: \"act\"), Jq(filter: \"if .broken then error(\\\"no\\\") else . end\")])",
    );
    lab.seeds(60, |done| {
        let attempts = |key: &str| done.began("work", key).len();
        assert_eq!(["again", "given-up", "panic", "data", "slow"].map(attempts), [3, 1, 1, 1, 3], "seed {}", done.seed);
        let missing = done.missing("work");
        assert_eq!(
            ["again", "given-up", "panic", "data", "slow"].map(|key| missing[key].as_str()),
            ["call", "call", "panic", "data", "timeout"]
        );
        assert!(done.record.failures.iter().all(|failure| failure.attempts == attempts(failure.key.as_str()) as u32));
    });
}

#[test]
fn waits_grow_and_stay_within_their_bounds() {
    let lab = Lab::new(&format!(
        "{}, Stage(name: \"work\", tolerate: \"1\",
            retry: Retry(max_attempts: 5, initial_interval: \"100ms\", max_interval: \"300ms\", jitter: Exact),
            run: [Call(handler: \"act\")])",
        source(1, |_| "\"fails\": 9".into())
    ));
    lab.seeds(10, |done| assert_eq!(done.began("work", "P0"), [0, 100, 300, 600, 900]));
}

#[test]
fn a_wait_past_the_items_deadline_settles_it_at_once_with_its_last_failure() {
    for (fields, at) in [
        ("item_deadline: \"3s\", retry: Retry(max_attempts: 3, initial_interval: \"5s\", jitter: Exact)", 0),
        ("item_deadline: \"3s\", retry: Retry(max_attempts: 9, initial_interval: \"2s\", jitter: Exact)", 2000),
        ("item_deadline: \"30m\", retry: Retry(max_attempts: 3, initial_interval: \"1h\", jitter: Exact)", 0),
        ("deadline: \"3s\", retry: Retry(max_attempts: 3, initial_interval: \"5s\", jitter: Exact)", 0),
    ] {
        let lab = Lab::new(&format!(
            "{}, Stage(name: \"work\", tolerate: \"9\", {fields}, run: [Call(handler: \"act\")])",
            source(1, |_| "\"fails\": 99".into())
        ));
        lab.seeds(10, |done| {
            assert_eq!(done.elapsed, ms(at), "{fields}");
            let failure = &done.record.failures[0];
            assert_eq!((failure.class.as_str(), failure.attempts), ("call", if at == 0 { 1 } else { 2 }), "{fields}");
        });
    }
}

#[test]
fn a_long_wait_leaves_its_place_to_others_and_keeps_its_attempts() {
    // One worker and no place to wait: without leaving memory the second item would have to wait for the first.
    let lab = Lab::new(&format!(
        "{}, Stage(name: \"work\", waiting: 0, tolerate: \"9\",
            retry: Retry(max_attempts: 3, initial_interval: \"15s\", max_interval: \"15s\", jitter: Exact), run: [Call(handler: \"act\", args: {{\"ms\": 10}})]),
         Stage(name: \"end\", run: [Call(handler: \"sink\")])",
        source(5, |i| format!("\"fails\": {}", i))
    ))
    .deferring();
    lab.seeds(60, |done| {
        assert_eq!(done.sunk_keys("end"), ["P0", "P1", "P2"]);
        for (key, began) in [("P0", 1), ("P1", 2), ("P2", 3), ("P3", 3), ("P4", 3)] {
            assert_eq!(done.began("work", key).len(), began, "{key}, seed {}", done.seed);
        }
        let last_first = (0..5).map(|i| done.began("work", &format!("P{i}"))[0]).max();
        assert_eq!(last_first, Some(40));
        assert!(done.began("work", "P1")[1] >= 15_000);
        assert!(done.record.failures.iter().all(|failure| failure.attempts == 3 && failure.class == "call"));
        assert_eq!(done.counts("work").attempts, 1 + 2 + 3 + 3 + 3);
    });
}

#[test]
fn what_waits_in_the_store_comes_back_when_the_inbox_has_ended() {
    let lab = Lab::new(&format!(
        "Stage(name: \"list\", key: \"{{{{ item.id }}}}\", run: [{}, Call(handler: \"act\")]),
         Stage(name: \"work\", retry: Retry(max_attempts: 2, initial_interval: \"15s\", max_interval: \"15s\", jitter: Exact),
            run: [Call(handler: \"act\", args: {{\"ms\": 0, \"fails\": 1}})])",
        super::lab::items(2, |i| format!("\"ms\": {}", 20_000 * i))
    ))
    .deferring();
    lab.seeds(40, |done| {
        assert_eq!(done.outcome(), RunOutcome::Succeeded);
        assert_eq!(done.began("work", "P0"), [0, 20_000], "seed {}", done.seed);
        assert_eq!(done.began("work", "P1"), [20_000, 35_000]);
    });
}

#[test]
fn an_item_deadline_goes_on_while_the_item_waits_in_the_store() {
    let lab = Lab::new(&format!(
        "{}, Stage(name: \"work\", workers: 2, item_deadline: \"20s\", tolerate: \"9\",
            retry: Retry(max_attempts: 5, initial_interval: \"15s\", max_interval: \"15s\", jitter: Exact), run: [Call(handler: \"act\")]),
         Stage(name: \"all\", gather: All, run: [Jq(filter: \"[failures | .attempts]\"), Call(handler: \"sink\")])",
        source(3, |i| if i == 1 { "\"fails\": 1, \"ms\": 6000".into() } else { "\"fails\": 9".into() })
    ))
    .deferring();
    lab.seeds(40, |done| {
        // P1: fails at 6 s; a wait to 21 s is past its deadline. The others: 0 s, 15 s, then 30 s is past it.
        assert_eq!(done.six("work"), [3, 0, 3, 0, 0, 0]);
        assert_eq!(done.began("work", "P0"), [0, 15_000]);
        assert_eq!(done.began("work", "P1").len(), 1);
        assert_eq!(done.sunk[0].2, serde_json::json!([2, 1, 2]));
    });
}

#[test]
fn an_item_that_came_back_is_timed_out_at_the_deadline_that_began_when_it_was_first_taken() {
    let lab = Lab::new(&format!(
        "{}, Stage(name: \"work\", item_deadline: \"20s\", tolerate: \"9\",
            retry: Retry(max_attempts: 5, initial_interval: \"15s\", max_interval: \"15s\", jitter: Exact),
            run: [Call(handler: \"act\", args: {{\"ms\": 4000, \"fails\": 1}})])",
        source(1, |_| String::new())
    ))
    .deferring();
    lab.seeds(10, |done| {
        assert_eq!(done.began("work", "P0"), [0, 19_000]);
        assert_eq!(done.six("work"), [1, 0, 0, 1, 0, 0]);
        assert_eq!(done.elapsed, ms(20_000));
    });
}

#[test]
fn an_item_whose_deadline_passed_in_the_store_is_not_begun_again() {
    // P0 may come back at 15 s, but it is read back when the listing has ended, at 30 s; it had until 20 s.
    let lab = Lab::new(&format!(
        "Stage(name: \"list\", key: \"{{{{ item.id }}}}\", run: [{}, Call(handler: \"act\")]),
         Stage(name: \"work\", item_deadline: \"20s\", tolerate: \"9\",
            retry: Retry(max_attempts: 3, initial_interval: \"15s\", max_interval: \"15s\", jitter: Exact),
            run: [Call(handler: \"act\", args: {{\"ms\": 0, \"fails\": 1}})]),
         Stage(name: \"all\", gather: All, run: [Jq(filter: \"[failures | [.key, .class, .attempts]]\"), Call(handler: \"sink\")])",
        super::lab::items(2, |i| format!("\"ms\": {}", 30_000 * i))
    ))
    .deferring();
    lab.seeds(20, |done| {
        assert_eq!(done.began("work", "P0"), [0], "seed {}", done.seed);
        assert_eq!(done.six("work"), [2, 1, 0, 1, 0, 0]);
        assert_eq!(done.sunk[0].2, serde_json::json!([["P0", "timed_out", 1]]));
    });
}
