//! Keys, lineages, all-or-nothing, determinism (RUNS K1 - K5, K7).

use super::lab::{Lab, items, source};
use lamplighter::item::RunOutcome;
use serde_json::json;

#[test]
fn the_first_of_two_equal_keys_keeps_it_and_the_later_one_fails_naming_both() {
    let lab = Lab::new(
        "Stage(name: \"list\", tolerate: \"2\", key: \"{{ item.id }}\",
            run: [Items(list: [{\"id\": \"a\", \"n\": 1}, {\"id\": \"b\"}, {\"id\": \"a\", \"n\": 2}, {\"id\": \"a\", \"n\": 3}])]),
         Stage(name: \"work\", workers: 3, run: [Call(handler: \"sink\")])",
    );
    lab.seeds(40, |done| {
        assert_eq!(done.outcome(), RunOutcome::Partial);
        assert_eq!(done.sunk_keys("work"), ["a", "b"]);
        assert!(done.sunk.iter().any(|(_, key, value)| key == "a" && value["n"] == 1));
        let messages: Vec<&str> = done.record.failures.iter().map(|failure| failure.message.as_str()).collect();
        assert_eq!(messages.len(), 2);
        assert!(messages[0].contains("item 3") && messages[0].contains("item 1"), "{messages:?}");
    });
}

#[test]
fn a_listed_item_without_a_usable_key_fails_by_its_place() {
    let lab = Lab::new(
        "Stage(name: \"list\", tolerate: \"9\", key: \"{{ item.id }}\",
            run: [Items(list: [{\"id\": \"a\"}, {\"x\": 1}, {\"id\": \"\"}, {\"id\": \"a//b\"}, {\"id\": \"c/d\"}])]),
         Stage(name: \"work\", run: [Call(handler: \"sink\")])",
    );
    lab.seeds(20, |done| {
        assert_eq!(done.sunk_keys("work"), ["a", "c/d"]);
        let missing = done.missing("list");
        assert_eq!(missing.keys().collect::<Vec<_>>(), ["#2", "#3", "#4"]);
        assert!(missing.values().all(|class| class == "data"));
    });
}

#[test]
fn a_fan_out_adds_a_place_and_a_key_of_the_stage_adds_its_own_part() {
    let lab = Lab::new(
        "Stage(name: \"list\", key: \"{{ item.id }}\", run: [Items(list: [
            {\"id\": \"P1\", \"have\": [{\"k\": \"steps\", \"days\": [1, 2]}, {\"k\": \"sleep\", \"days\": [7]}]},
            {\"id\": \"P2\", \"have\": [{\"k\": \"steps\", \"days\": [3]}]}])]),
         Stage(name: \"kinds\", key: \"{{ item.k }}\", workers: 2, run: [Jq(filter: \".have[]\")]),
         Stage(name: \"days\", workers: 2, run: [Jq(filter: \".days[]\")]),
         Stage(name: \"end\", workers: 2, run: [Call(handler: \"sink\")])",
    );
    lab.seeds(40, |done| {
        // One with its own key always adds its part, one without adds a place only where it gives several.
        assert_eq!(done.sunk_keys("end"), ["P1/sleep", "P1/steps/1", "P1/steps/2", "P2/steps"]);
    });
}

#[test]
fn two_values_of_an_item_with_the_same_part_fail_the_item_whole() {
    let lab = Lab::new(
        "Stage(name: \"list\", run: [Items(list: [[1, 2], [3, 3]])]),
         Stage(name: \"fan\", tolerate: \"1\", key: \"{{ item }}\", run: [Jq(filter: \".[]\")]),
         Stage(name: \"end\", run: [Call(handler: \"sink\")])",
    );
    lab.seeds(20, |done| {
        assert_eq!(done.sunk_keys("end"), ["1/1", "1/2"]);
        assert_eq!(done.missing("fan")["2"], "duplicate_key");
    });
}

#[test]
fn an_item_is_all_or_nothing() {
    // The second of three values fails in the later action: nothing of the item flows.
    let lab = Lab::new(
        "Stage(name: \"list\", run: [Items(list: [[{}, {\"bad\": 1}, {}], [{}, {}], []])]),
         Stage(name: \"fan\", workers: 2, tolerate: \"1\", run: [Jq(filter: \".[]\"), Call(handler: \"act\")]),
         Stage(name: \"end\", run: [Call(handler: \"sink\")])",
    );
    lab.seeds(40, |done| {
        assert_eq!(done.outcome(), RunOutcome::Partial);
        assert_eq!(done.counts("fan").empty, 1);
        assert_eq!(done.sunk_keys("end"), ["2/1", "2/2"]);
    });
}

#[test]
fn more_values_or_bytes_than_allowed_fail_the_item() {
    let lab = Lab::new(
        "Stage(name: \"list\", run: [Items(list: [10000, 10001])]),
         Stage(name: \"fan\", tolerate: \"1\", buffer: 1, run: [Jq(filter: \"range(.)\")]),
         Stage(name: \"end\", run: [Jq(filter: \"empty\")])",
    );
    let done = lab.run(1);
    assert_eq!(done.missing("fan")["2"], "too_large");
    assert_eq!(done.counts("end").empty, 10_000);
    let lab = Lab::new(
        "Stage(name: \"list\", run: [Items(list: [3, 99])]),
         Stage(name: \"fat\", tolerate: \"1\", max_value: \"50B\", run: [Jq(filter: \"[range(.)]\")])",
    );
    assert_eq!(lab.run(1).missing("fat")["2"], "too_large");
}

#[test]
fn a_reading_action_sees_the_bound_that_the_stage_states() {
    // A text of 1.5 MB, more than the default of `max_value`.
    let folder = tempfile::tempdir().expect("a folder");
    let text = format!("\"{}\"", "x".repeat(1_500_000));
    std::fs::write(folder.path().join("large.json"), format!("{text}\n")).expect("it is written");
    for (most, ok) in [("2MB", 1), ("1MB", 0)] {
        let path = folder.path().join("large.json");
        let lab = Lab::new(&format!(
            "Stage(name: \"list\", tolerate: \"1\", max_value: \"{most}\", run: [Read(ndjson: \"{0}\")]),
             Stage(name: \"work\", tolerate: \"9\", max_value: \"{most}\", run: [Read(ndjson: \"{0}\")])",
            path.display()
        ));
        let done = lab.run(1);
        assert_eq!((done.counts("list").ok, done.counts("work").ok), (ok, ok), "{most}: {:?}", done.record.failures);
    }
}

#[test]
fn outputs_are_the_same_at_any_worker_count_and_seed() {
    let job = |workers: usize, buffer: usize| {
        Lab::new(&format!(
            "{}, Stage(name: \"work\", workers: {workers}, buffer: {buffer}, tolerate: \"9\",
                    retry: Retry(max_attempts: 2, initial_interval: \"5ms\"),
                    run: [Call(handler: \"act\", args: {{\"jit\": 9}}), Jq(filter: \"., {{id, again: true, g: (.n % 3)}}\")]),
             Stage(name: \"all\", gather: All, run: [Jq(filter: \"{{items: [items], failures: [failures], counts: counts}}\"), Call(handler: \"sink\")]),
             Stage(name: \"by\", from: [\"work\"], gather: By(\"{{{{ item.g }}}}\"), workers: {workers}, tolerate: \"9\",
                run: [Jq(filter: \"{{items: [items], failures: [failures]}}\"), Call(handler: \"sink\")])",
            source(17, |i| format!("\"n\": {i}, \"g\": {}, \"fails\": {}", i % 3, if i % 5 == 4 { 2 } else { i % 2 }))
        ))
    };
    let outputs = |done: &super::lab::Done| {
        let mut sunk = done.sunk.clone();
        sunk.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        (done.outcome(), done.record.reason.clone(), done.record.failures.clone(), sunk)
    };
    let expected = outputs(&job(1, 1).run(0));
    assert_eq!(expected.0, RunOutcome::Partial);
    assert_eq!(expected.3.len(), 4);
    for (workers, buffer) in [(1, 0), (2, 0), (3, 1), (8, 2), (32, 64)] {
        job(workers, buffer).seeds(25, |done| assert_eq!(outputs(done), expected, "seed {}", done.seed));
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let lab = Lab::new(&format!(
        "{}, Stage(name: \"work\", workers: 3, retry: Retry(max_attempts: 3), tolerate: \"99\", run: [Call(handler: \"act\", args: {{\"jit\": 9}})])",
        source(15, |i| format!("\"fails\": {}", i % 4))
    ));
    let mut traces = std::collections::BTreeSet::new();
    for seed in 0..20 {
        let (a, b) = (lab.run(seed), lab.run(seed));
        assert_eq!((a.trace, a.elapsed), (b.trace, b.elapsed));
        traces.insert(a.trace);
    }
    assert!(traces.len() > 15);
}

#[test]
fn counts_and_failures_are_those_of_the_whole_run_when_the_gather_starts() {
    let lab = Lab::new(&format!(
        "Stage(name: \"list\", key: \"{{{{ item.id }}}}\", tolerate: \"9\", run: [{}, Call(handler: \"act\")]),
         Stage(name: \"work\", workers: 2, tolerate: \"9\", run: [Call(handler: \"act\", args: {{\"jit\": 4}}), Jq(filter: \"if .drop then empty else . end\"), Jq(filter: \"if .broken then error(\\\"x\\\") else . end\")]),
         Stage(name: \"all\", gather: All, run: [Jq(filter: \"{{counts: counts, failures: [failures | {{stage, key, class, attempts}}]}}\"), Call(handler: \"sink\")])",
        items(6, |i| match i {
            1 => "\"bad\": 1".into(),
            2 => "\"drop\": 1".into(),
            4 => "\"broken\": 1".into(),
            _ => String::new(),
        })
    ));
    lab.seeds(30, |done| {
        let seen = &done.sunk[0].2;
        let of = |items: u64, ok: u64, empty: u64, failed: u64, attempts: u64| {
            json!({"items": items, "ok": ok, "empty": empty, "failed": failed, "timed_out": 0, "cancelled": 0,
                "not_reached": 0, "held": 0, "attempts": attempts, "complete": true})
        };
        assert_eq!(seen["counts"]["list"], of(6, 5, 0, 1, 6));
        assert_eq!(seen["counts"]["work"], of(5, 3, 1, 1, 5));
        assert_eq!(
            seen["failures"],
            json!([
                {"stage": "list", "key": "#2", "class": "call", "attempts": 1},
                {"stage": "work", "key": "P4", "class": "data", "attempts": 1},
            ])
        );
    });
}
