//! Gathers: when they start, what they see, in which order (RUNS section 1, K5).

use super::lab::{Lab, What, source};
use lamplighter::item::RunOutcome;
use serde_json::json;

#[test]
fn a_gather_starts_when_all_its_inputs_have_ended() {
    let lab = Lab::new(&format!(
        "{}, Stage(name: \"a\", workers: 3, run: [Call(handler: \"act\", args: {{\"jit\": 9}})]),
         Stage(name: \"other\", from: [], run: [Items(list: [1, 2, 3]), Call(handler: \"act\", args: {{\"jit\": 9}})]),
         Stage(name: \"b\", workers: 2, from: [\"other\"], run: [Call(handler: \"act\", args: {{\"jit\": 9}})]),
         Stage(name: \"join\", from: [\"a\", \"b\"], gather: All, run: [Call(handler: \"act\"), Jq(filter: \"[[items(\\\"a\\\")], [items(\\\"b\\\")], [items]] | map(length)\"), Call(handler: \"sink\")]),
         Stage(name: \"after\", run: [Call(handler: \"sink\")])",
        source(7, |_| String::new())
    ));
    lab.seeds(60, |done| {
        let began = done.events.iter().position(|event| event.stage == "join").expect("it began");
        let rest = &done.events[began..];
        assert!(rest.iter().all(|event| !["a", "b", "other"].contains(&event.stage.as_str())), "seed {}", done.seed);
        assert_eq!(done.sunk[0].2, json!([7, 3, 10]));
        assert_eq!(done.sunk.len(), 2);
    });
}

#[test]
fn groups_come_in_byte_order_of_their_texts() {
    let lab = Lab::new(
        "Stage(name: \"list\", run: [Items(list: [\"b\", \"é\", \"B\", \"a\", \"10\", \"9\", \"a/b\", \"B\"])]),
         Stage(name: \"work\", workers: 4, run: [Call(handler: \"act\", args: {\"jit\": 5})]),
         Stage(name: \"by\", gather: By(\"{{ item }}\"), run: [Call(handler: \"act\")]),
         Stage(name: \"all\", gather: All, run: [Jq(filter: \"[items]\"), Call(handler: \"sink\")])",
    );
    lab.seeds(30, |done| {
        let order: Vec<&str> = done.of("by", What::Began).map(|event| event.key.as_str()).collect();
        assert_eq!(order, ["10", "9", "B", "a", "a/b", "b", "é"]);
        assert_eq!(done.counts("by").items, 7);
    });
}

#[test]
fn groups_are_made_by_values_and_by_missing_items_of_direct_parents() {
    // x: one value; y: only a missing item of the parent; z: only a missing item further above.
    let lab = Lab::new(
        "Stage(name: \"list\", key: \"{{ item.id }}\", run: [Items(list: [
            {\"id\": 1, \"g\": \"x\"}, {\"id\": 2, \"g\": \"y\", \"bad\": 1}, {\"id\": 3, \"g\": \"z\", \"early\": 1}, {\"id\": 4, \"g\": \"x\", \"early\": 1},
            {\"id\": 5, \"bad\": 1}])]),
         Stage(name: \"early\", workers: 2, tolerate: \"9\", run: [Jq(filter: \"if .early then error(\\\"no\\\") else . end\")]),
         Stage(name: \"late\", workers: 2, tolerate: \"9\", run: [Call(handler: \"act\", args: {\"jit\": 3})]),
         Stage(name: \"by\", gather: By(\"{{ item.g }}\"), tolerate: \"9\", workers: 2,
            run: [Jq(filter: \"{items: [items | .id], failures: [failures | [.stage, .key, .class]], n: counts.early.items}\"), Call(handler: \"sink\")]),
         Stage(name: \"all\", from: [\"late\"], gather: All, run: [Jq(filter: \"[failures | .key]\"), Call(handler: \"sink\")])",
    );
    lab.seeds(40, |done| {
        assert_eq!(done.outcome(), RunOutcome::Partial, "{:?}", done.record);
        let of = |key: &str| done.sunk.iter().find(|(_, at, _)| at == key).map(|(.., value)| value.clone());
        assert_eq!(of("x"), Some(json!({"items": [1], "failures": [["early", "4", "data"]], "n": 5})));
        assert_eq!(of("y"), Some(json!({"items": [], "failures": [["late", "2", "call"]], "n": 5})));
        assert_eq!(of("z"), None);
        // One that does not render is seen by `All` only.
        assert_eq!(of("all"), Some(json!(["3", "4", "2", "5"])));
        assert_eq!(done.counts("by").items, 2);
    });
}

#[test]
fn a_value_whose_text_is_no_usable_key_is_a_failed_item_of_the_gather() {
    let lab = Lab::new(
        "Stage(name: \"list\", key: \"{{ item.id }}\", run: [Items(list: [{\"id\": 1, \"g\": \"x\"}, {\"id\": 2}, {\"id\": 3, \"g\": \"\"}])]),
         Stage(name: \"by\", gather: By(\"{{ item.g }}\"), tolerate: \"2\", run: [Jq(filter: \"[items | .id]\"), Call(handler: \"sink\")])",
    );
    lab.seeds(20, |done| {
        assert_eq!(done.outcome(), RunOutcome::Partial);
        assert_eq!(done.six("by"), [3, 1, 2, 0, 0, 0]);
        assert_eq!(
            done.missing("by").into_iter().collect::<Vec<_>>(),
            [("2".into(), "data".into()), ("3".into(), "data".into())]
        );
        assert_eq!(done.sunk[0].2, json!([1]));
    });
}

#[test]
fn nothing_at_all_makes_one_group_of_everything_and_none_by_text() {
    let lab = Lab::new(
        "Stage(name: \"list\", run: [Items(list: [])]),
         Stage(name: \"by\", gather: By(\"{{ item }}\"), run: [Call(handler: \"sink\")]),
         Stage(name: \"all\", gather: All, run: [Jq(filter: \"[items]\"), Call(handler: \"sink\")])",
    );
    lab.seeds(10, |done| {
        assert_eq!((done.counts("by").items, done.counts("all").items), (0, 1));
        assert_eq!(done.sunk.len(), 1);
    });
}

#[test]
fn an_all_gather_that_fails_fails_the_run_and_a_group_that_fails_is_an_item() {
    for (gather, expected) in [("All", RunOutcome::Failed), ("By(\"{{ item.g }}\")", RunOutcome::Partial)] {
        let lab = Lab::new(&format!(
            "{}, Stage(name: \"g\", gather: {gather}, tolerate: \"9\", run: [Call(handler: \"act\", args: {{\"bad\": 1}})])",
            source(4, |i| format!("\"g\": {}", i % 2))
        ));
        lab.seeds(10, |done| assert_eq!(done.outcome(), expected, "{:?}", done.record));
    }
}

#[test]
fn a_gather_is_retried_as_a_whole_and_what_it_gives_flows_on() {
    let lab = Lab::new(&format!(
        "{}, Stage(name: \"g\", gather: By(\"{{{{ item.g }}}}\"), workers: 2, retry: Retry(max_attempts: 3, initial_interval: \"15s\", max_interval: \"15s\", jitter: Exact),
            run: [Jq(filter: \"items | .id\"), Call(handler: \"act\", args: {{\"fails\": 1}})]),
         Stage(name: \"end\", run: [Call(handler: \"sink\")])",
        source(5, |i| format!("\"g\": \"G{}\"", i % 2))
    ))
    .deferring();
    lab.seeds(20, |done| {
        assert_eq!(done.outcome(), RunOutcome::Succeeded, "{:?}", done.record);
        assert_eq!(done.sunk_keys("end"), ["G0/1", "G0/2", "G0/3", "G1/1", "G1/2"]);
        assert_eq!(done.counts("g").attempts, 4);
    });
}
