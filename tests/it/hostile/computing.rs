//! Filters and templates that never end, never stop growing, or give what nobody can keep.

use super::bench::Night;
use serde_json::{Value, json};

/// Three items; the filter is run for `a` only.
fn filter(filter: &str, more: &str) -> Night {
    let filter = format!("if .k == \"a\" then ({filter}) else . end");
    let gather = r#"Stage(name: "g", gather: All, run: [Jq(filter: "[items] | length"), Write(json: "n")])"#;
    let night = Night::of(
        &json!([{"k": "a"}, {"k": "b"}, {"k": "c"}]),
        &format!("workers: 2, {more} run: [Jq(filter: r#\"{filter}\"#)]"),
    );
    let text = std::fs::read_to_string(night.jobs().join("night.ron")).expect("a job");
    night.file("night.ron", text.replace("])])", &format!("]), {gather}])")));
    night
}

#[test]
fn a_value_that_the_store_could_not_keep_fails_its_item_and_not_the_run() {
    for deep in ["reduce range(128) as $i (1; [.])", "{x: reduce range(127) as $i (1; {a: .})}"] {
        let night = filter(deep, "");
        let ended = night.run();
        ended.is(1, "failed").fails("a", "data the item gave a value that is nested deeper than 127 levels");
        assert_eq!((ended.count("w", "ok"), night.read("n").trim()), (2, "2"));
    }
    let night = filter("reduce range(127) as $i (1; [.])", "");
    night.run().is(0, "succeeded");
    // The same where `into` adds the last level, and where a source lists it.
    let gather = r#"Stage(name: "g", gather: All, run: [Jq(filter: "[items] | length"), Write(json: "n")])"#;
    let deep = r#"Jq(filter: "reduce range(127) as $i (1; [.])", into: "x")"#;
    let night =
        Night::new(&format!(r#"Job(stages: [Stage(name: "s", run: [Items(list: [{{"k": 1}}]), {deep}]), {gather}])"#));
    night.run().is(1, "failed").fails("#1", "data the item gave a value that is nested deeper");
    let night = Night::of(
        &json!([{"k": "a"}]),
        &format!("run: [{deep}]), {gather}, Stage(name: \"x\", from: [\"w\"], run: [Log(message: \"x\")]"),
    );
    night.run().is(1, "failed").fails("a", "data the item gave a value that is nested deeper");
}

#[test]
fn a_filter_that_never_ends_times_out_and_the_others_go_on() {
    let endless = [
        "def f: f; f",
        "last(range(1e18))",
        "reduce range(1e18) as $i (0; . + $i)",
        "last(repeat(1))",
        "until(false; .)",
    ];
    for text in endless {
        let mut night = filter(text, "timeout: \"2s\",");
        night.before = "ulimit -v 4000000".into();
        let ended = night.run();
        ended.is(1, "failed").fails("a", "timeout the attempt worked longer than its timeout of 2s");
        assert_eq!((ended.count("w", "ok"), night.read("n").trim()), (2, "2"), "{text}");
    }
    // One that only grows is refused before it has taken its time.
    let ended = filter("def f(x): f(x | x); f(.)", "").run();
    ended.is(1, "failed").fails("a", "data jq: a filter calls itself deeper than 200 times");
}

#[test]
fn after_two_abandoned_computations_the_others_fail_stuck_at_once() {
    let items: Vec<Value> = (0..6).map(|k| json!({"k": k.to_string()})).collect();
    let night = Night::of(&json!(items), r#"timeout: "200ms", run: [Jq(filter: "last(range(1e18))")]"#);
    let ended = night.run();
    ended.is(1, "failed");
    let classes = ended.record["stages"][1]["classes"].to_string();
    assert!(classes.contains(r#""stuck":4"#) && classes.contains(r#""timeout":2"#), "{classes}");
    ended.fails("5", "stuck 2 computations of this action never ended: mend its filter or template");
}

#[test]
fn a_text_times_a_number_from_data_cannot_take_all_memory() {
    for text in [
        r#""x" * 1000000000000 | length"#,
        r#"1e3 as $n | "x" * ($n * $n * $n * $n | floor) | length"#,
        r#"9223372036854775807 * "x" | length"#,
        r#"1000000000000000000000000000000 * "xy" | length"#,
        r#"{a: "x"} | .a *= 1000000000000"#,
        r#"[range(3) | "xxxxxxxxxxxxxxxx" * 2000000000] | length"#,
    ] {
        let mut night = filter(text, "");
        night.before = "ulimit -v 1000000".into();
        let ended = night.run();
        ended.is(1, "failed").fails("a", "data jq: a text of");
        assert_eq!(ended.count("w", "ok"), 2, "{text}");
    }
    // What products are for still works, and in the same order as before.
    let text = r#"[(1, 2) * (3, 4), "ab" * 3, ("x" * 0), ({a: {b: 1}} * {a: {c: 2}}), ([1, 2] | .[] *= (10, 100))] == [3, 4, 6, 8, "ababab", null, {a: {b: 1, c: 2}}, [10, 20], [100, 200]] | if . then . else error("differs") end"#;
    filter(text, "").run().is(0, "succeeded");
}

#[test]
fn a_template_has_an_end_and_a_largest_size() {
    let night = |template: &str| {
        let mut night =
            Night::of(&json!([{"k": "a"}, {"k": "b"}]), r#"run: [Render(template: "t.txt", to: "{{ key }}.txt")]"#);
        night.file("t.txt", format!("{{% if key == \"a\" %}}{template}{{% endif %}}"));
        night.before = "ulimit -v 1000000".into();
        night
    };
    let loops = "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}";
    let long = format!("{{% for a in range(100000) %}}{}{{% endfor %}}", "x".repeat(1000));
    for (template, says) in [
        (loops, "the template does too much work"),
        (&long, "the text is longer than 16777216 bytes"),
        ("{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}", "does not render"),
        ("{{ ('a' * 1000000000)|length }}", "does not render"),
        ("{{ item.nothing.more }}", "does not exist"),
    ] {
        let night = night(template);
        let ended = night.run();
        ended.is(1, "failed").fails("a", "data `t.txt`").fails("a", says);
        assert_eq!(night.outputs(), ["b.txt"], "{template}");
    }
}

#[test]
fn too_many_and_too_large_values_fail_their_item() {
    let ended = filter("range(10001)", "").run();
    ended.is(1, "failed").fails("a", "too_large the item gave more than 10000 values");
    let ended = filter("[range(300000)]", "").run();
    ended.fails("a", "too_large the item gave more bytes of JSON than `max_value` allows");
    let night = filter("range(10000)", "");
    night.run().is(0, "succeeded");
    assert_eq!(night.read("n").trim(), "10002");
}

#[test]
fn a_group_without_a_usable_text_is_a_failed_item_of_the_gather() {
    let items = json!([
        {"k": "a", "g": ""}, {"k": "b", "g": "x\u{0}"}, {"k": "c"}, {"k": "d", "g": "../up"}, {"k": "e", "g": "fine"},
        {"k": "f", "g": "fine"}
    ]);
    let by = r#"Stage(name: "g", gather: By("{{ item.g }}"), run: [Jq(filter: "[items.k]"), Write(json: "{{ key }}.json")])"#;
    let night = Night::of(
        &items,
        &format!("run: [Jq(filter: \".\")]), {by}, Stage(name: \"x\", from: [\"w\"], run: [Log(message: \"x\")]"),
    );
    let ended = night.run();
    ended.is(1, "failed");
    assert_eq!((ended.count("g", "ok"), ended.count("g", "failed")), (1, 4));
    ended.fails("a", "is empty").fails("b", "control character").fails("c", "`item.g` does not exist");
    ended.fails("../up", "is no usable name of an output");
    assert_eq!(night.outputs(), ["fine.json"]);
}

/// More listings than threads that compute: each waits for stages behind it that want to compute too.
#[test]
fn listings_by_filters_leave_the_stages_behind_them_a_thread() {
    let branch = |at: usize| {
        format!(
            r#"Stage(name: "s{at}", from: [], run: [Jq(filter: "range(2000)")]),
               Stage(name: "w{at}", workers: 2, run: [Jq(filter: ". + 1")])"#
        )
    };
    let branches: Vec<String> = (0..6).map(branch).collect();
    let night = Night::new(&format!(r#"Job(deadline: "60s", stages: [{}])"#, branches.join(", ")));
    let ended = night.run();
    ended.is(0, "succeeded");
    assert!((0..6).all(|at| ended.count(&format!("w{at}"), "ok") == 2000));
}
