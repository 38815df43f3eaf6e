//! Nesting without measure: a stack that overflows cannot be caught, so everything that recurses has a bound (fault 58).

use super::bench::Night;
use serde_json::json;

/// A job whose worker stage runs this action on one item.
fn action(action: &str) -> Night {
    Night::of(&json!([{"k": "a"}]), &format!("run: [{action}]"))
}

/// It is refused when it is loaded, or its item fails; a signal or a panic would have been seen by the bench.
fn ends_by_name(night: &Night, what: &str) {
    let ended = night.run();
    match ended.code {
        Some(2) => assert!(ended.stderr.contains("error"), "{what}: {}", ended.stderr),
        _ => assert_eq!(ended.is(1, "failed").count("w", "failed"), 1, "{what}"),
    }
}

#[test]
fn templates_that_nest_without_measure_are_refused() {
    let nested = |open: &str, inner: &str, close: &str, n: usize| open.repeat(n) + inner + &close.repeat(n);
    for (what, template) in [
        ("brackets", format!("{{{{ {} }}}}", nested("(", "1", ")", 50_000))),
        ("lists", format!("{{{{ {} }}}}", nested("[", "1", "]", 50_000))),
        ("maps", format!("{{{{ {} }}}}", nested("{\"a\": ", "1", "}", 50_000))),
        ("nots", format!("{{{{ {}1 }}}}", "not ".repeat(50_000))),
        ("minuses", format!("{{{{ {}1 }}}}", "-".repeat(50_000))),
        ("conditions", format!("{{{{ {}1 }}}}", "1 if 1 else ".repeat(50_000))),
        ("blocks", nested("{% if 1 %}", "x", "{% endif %}", 30_000)),
        ("loops", nested("{% for a in [1] %}", "x", "{% endfor %}", 20_000)),
        ("filters", format!("{{{{ 1{} }}}}", "|string".repeat(50_000))),
        ("sums", format!("{{{{ 1{} }}}}", " + 1".repeat(50_000))),
        ("sums in brackets", format!("{{{{ {}1{} }}}}", "(".repeat(100), " + 1 + 1 + 1 + 1 + 1 + 1 + 1)".repeat(100))),
        ("branches", format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 1 %}x".repeat(50_000))),
        ("tests", format!("{{{{ 1{} }}}}", " is defined".repeat(50_000))),
        ("indices", format!("{{{{ item{} }}}}", "[0]".repeat(50_000))),
        ("fields", format!("{{{{ item{} }}}}", ".a".repeat(50_000))),
        ("calls", format!("{{{{ {} }}}}", nested("range(", "1", ")", 50_000))),
        ("macros", "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(1) }}".to_owned()),
    ] {
        let night = action(r#"Render(template: "t.txt", to: "x")"#);
        night.file("t.txt", template);
        ends_by_name(&night, what);
    }
}

#[test]
fn filters_that_nest_without_measure_are_refused() {
    let nested = |open: &str, inner: &str, close: &str, n: usize| open.repeat(n) + inner + &close.repeat(n);
    for (what, filter) in [
        ("brackets", nested("(", ".", ")", 50_000)),
        ("lists", nested("[", ".", "]", 50_000)),
        ("objects", nested("{a: ", ".", "}", 50_000)),
        ("minuses", format!("{}1", "-".repeat(50_000))),
        ("conditions", nested("if . then ", ".", " else . end", 20_000)),
        ("tries", format!("{} .", "try ".repeat(50_000))),
        ("reductions", nested("reduce ", ".", " as $x (.; .)", 20_000)),
        ("functions", nested("def f: ", ".", "; f", 20_000)),
        ("recursion", "def f: [f]; f".to_owned()),
        ("parsing", "(\"[\" * 100000) | fromjson".to_owned()),
        ("printing", "reduce range(100000) as $i (1; [.]) | tojson".to_owned()),
        ("comparing", "reduce range(100000) as $i (1; [.]) | . == .".to_owned()),
    ] {
        let night = action(r#"Jq(file: "f.jq")"#);
        night.file("f.jq", filter);
        ends_by_name(&night, what);
    }
}

#[test]
fn values_that_nest_without_measure_are_refused_wherever_they_come_from() {
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    let night = Night::of(
        &json!([{"k": "a", "deep": deep}]),
        r#"run: [Exec(argv: ["cat"], stdin: "{{ item.deep }}", stdout: Json)]"#,
    );
    night.run().is(1, "failed").fails("a", "decode what `cat` printed is no JSON value");
    let night = action(r#"Items(list: [{"a": 1}])"#);
    let ended = night.run_with(&["--set", &format!("l={}", &deep[..60_000])]);
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    let night = action(&format!("Items(list: [{deep}])"));
    night.run().refused("at most 128 brackets");
}
