use super::*;
use crate::{
    item::Key,
    lang::{Group, Rows, RunFacts},
};
use serde_json::json;
use std::collections::BTreeMap;

fn facts() -> Facts {
    let run =
        RunFacts { params: json!({"ids": [1, 2]}), run: json!({"night": "2026-11-22"}), secrets: BTreeMap::new() };
    Facts::new(Arc::new(json!({"id": "P1"})), Key::parse("P1").expect("a key"), Arc::new(run))
}

fn all(filter: &str, input: Value) -> Result<Vec<Value>, String> {
    all_with(filter, input, &facts())
}

fn all_with(filter: &str, input: Value, facts: &Facts) -> Result<Vec<Value>, String> {
    let filter = Filter::compile(filter, None).map_err(|errors| format!("{errors:?}"))?;
    let mut values = Vec::new();
    filter
        .run(&input, facts, &mut |value| {
            values.push(value);
            ControlFlow::Continue(())
        })
        .map_err(|e| e.to_string())?;
    Ok(values)
}

#[track_caller]
fn gives(filter: &str, input: Value, expected: Value) {
    assert_eq!(all(filter, input).map(Value::Array), Ok(expected), "{filter}");
}

#[test]
fn filters_compute_what_jq_computes() {
    gives(".", json!({"b": 1, "a": [15.0, 1e300]}), json!([{"b": 1, "a": [15.0, 1e300]}]));
    gives(". / 2", json!(30), json!([15]));
    gives("[.[] | . * 2] | add", json!([1, 2.5]), json!([7]));
    gives(". + 1", json!(9_007_199_254_740_992_i64), json!([9_007_199_254_740_993_i64]));
    gives(
        "[$item.id, $key, $params.ids[1], $run.night, $state, $response]",
        json!(null),
        json!([["P1", "P1", 2, "2026-11-22", null, null]]),
    );
    gives("[limit(3; repeat(. * 2))]", json!(1), json!([[1, 2, 4]]));
    gives("[1, \"a,\\\"b\", null, true, 1.5] | @csv", json!(null), json!(["1,\"a,\"\"b\",,true,1.5"]));
    gives("[1, \"a\\tb\", null] | @tsv", json!(null), json!(["1\ta\\tb\t"]));
    gives("@csv \"\\([1, \"x\"])!\"", json!(null), json!(["1,\"x\"!"]));
    gives("1700000000 | todate", json!(null), json!(["2023-11-14T22:13:20Z"]));
    gives("\"2026-11-22\" | strptime(\"%Y-%m-%d\") | mktime", json!(null), json!([1795305600]));
    gives("sub(\"(?<x>[0-9]+)\"; \"<\\(.x)>\")", json!("a12b3"), json!(["a<12>b3"]));
    gives("ltrimstr(\"a\") | ascii_upcase", json!("abc"), json!(["BC"]));
    gives("fromjson | .a", json!("{\"a\": 1.50}"), json!([1.5]));
    gives("tonumber", json!("12"), json!([12]));
    gives("infinite, nan, -infinite", json!(null), json!([null, null, null]));
    gives("IN(1, 2), (INDEX({id: 7}; .id) | .[\"7\"])", json!(2), json!([true, {"id": 7}]));
    gives("to_entries", json!({"z": 1, "a": 2}), json!([[{"key": "z", "value": 1}, {"key": "a", "value": 2}]]));
    gives("unique", json!([3, 1, 1.0, "a", null, [2], {"a": 1}, [2], 3]), json!([[null, 1, 3, "a", [2], {"a": 1}]]));
    gives("try unique catch 0", json!({"a": 1}), json!([0]));
    gives("empty", json!(1), json!([]));
    gives("[combinations(2)]", json!([0, 1]), json!([[[0, 0], [0, 1], [1, 0], [1, 1]]]));
}

#[test]
fn the_statistics_are_built_in() {
    gives("median, mad, quantile(0.25)", json!([10, 20, 30, 40]), json!([25, 10, 17.5]));
    gives("median, mad, mod_z(1), quantile(0.5)", json!([]), json!([null, null, null, null]));
    gives("mod_z(70), mod_z(60)", json!([58, 59, 60, 61, 62]), json!([6.745, 0]));
    gives("mod_z(70)", json!([60, 60, 60, 61]), json!([null]));
    gives("hampel(5; 3) | index(true)", json!([60, 61, 60, 110, 61, 60, 61]), json!([3]));
    gives("ewma(0.5)", json!([10, 20, 20]), json!([[10, 15, 17.5]]));
    for (filter, input, sentence) in [
        ("median", json!("x"), "jq: median needs an array of numbers, not \"x\""),
        ("mad", json!([1, null]), "jq: mad needs an array of numbers: it holds null"),
        ("quantile(2)", json!([1]), "jq: quantile needs a number from 0 to 1, not 2"),
        ("hampel(2.5; 3)", json!([1]), "jq: the window of hampel must be a whole number from 1, not 2.5"),
        ("ewma(0)", json!([1]), "jq: ewma needs a number above 0 and up to 1, not 0"),
        ("mod_z(\"a\")", json!([1]), "jq: the argument of mod_z must be a number, not \"a\""),
    ] {
        assert_eq!(all(filter, input), Err(sentence.to_owned()), "{filter}");
    }
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    for (text, message, help, marked) in [
        (".a |", "the filter ends where a value or a filter is missing", "", ""),
        ("(.a", "this `(` is never closed", "write `)` where it ends", "("),
        (".a)", "this `)` closes nothing", "", ")"),
        (".a = 'x'", "jq texts stand in double quotes", "write \"…\"", "'"),
        ("if .a then 1", "the filter ends where `else` or `end` is missing", "", ""),
        (".a == 1 && .b", "`&` is no operator of jq", "write `and`", "&"),
        (".a || .b", "expected an operator such as `|`, or the end, found `||`", "write `or`", "||"),
        ("$itm.id", "there is no variable `$itm`", "did you mean `$item`?", "$itm"),
        ("$ENV.HOME", "there is no variable `$ENV`", "a filter cannot see the environment: use $params", "$ENV"),
        ("selct(.a)", "there is no function `selct`", "did you mean `select`?", "selct"),
        ("item.id", "there is no function `item`", "write $item", "item"),
        (
            "now",
            "there is no function `now`",
            "outputs must not depend on when they are made: use $run.due, $run.night or $run.started",
            "now",
        ),
        ("env", "there is no function `env`", "a filter computes only; it cannot see or change what is outside", "env"),
        ("input", "there is no function `input`", "a filter sees one value, `.`; in a gather write `items`", "input"),
        ("map", "`map` takes 1 arguments, not 0", "separate arguments by `;`", "map"),
        (
            "include \"x\"; .",
            "`include` is not available: a filter is one text",
            "put the definitions at the beginning of the same file",
            "include",
        ),
        ("", "the filter is empty", "write `.` to hand the value on as it is, or `empty` to give nothing", ""),
        ("lamplighter_main_filter", "there is no function `lamplighter_main_filter`", "", "lamplighter_main_filter"),
    ] {
        let errors = Filter::compile(text, None).expect_err(text);
        let first = &errors[0];
        assert_eq!(first.message, message, "{text}");
        assert_eq!(first.help.as_deref().unwrap_or(""), help, "{text}");
        assert_eq!(first.range.clone().map_or("", |r| &text[r]), marked, "{text}");
    }
    let both = Filter::compile("foo_bar | bar_foo", None).expect_err("two unknown functions");
    assert_eq!(both.len(), 2);
}

#[test]
fn a_failing_filter_says_what_without_the_whole_value() {
    let long = "x".repeat(500);
    assert_eq!(all(".a", json!([1])), Err("jq: cannot index [1] with \"a\"".into()));
    let message = all(".a.b", json!({"a": long})).expect_err("a text has no fields");
    assert_eq!(message, format!("jq: cannot index \"{}… with \"b\"", "x".repeat(59)));
    assert!(all("error(\"no vitals\")", json!(1)).is_err_and(|m| m == "jq: no vitals"));
    assert!(all("error({a: 1})", json!(1)).is_err_and(|m| m == "jq: error({\"a\":1})"));
    assert!(all("{(1): 2}", json!(1)).is_err());
    let file = Filter::compile(".a", Some("x/assess.jq")).expect("compiles");
    assert!(file.first(&json!(1), &facts()).is_err_and(|e| e.to_string().starts_with("x/assess.jq: cannot index 1")));
}

#[test]
fn the_filters_of_the_documentation_compile() {
    for text in [
        ". + {type: (\"steps\", \"heart-rate\", \"sleep\")}",
        "$response.status == 404",
        "reduce items as $i ({id: $key}; .[$i.type] = $i.data)",
        ".files[] + {device: $item.id}",
        "$response.sha256 != $item.sha256",
        "{device: $key, files: ([items] | length), failed: ([failures] | length), bytes: ([items.saved.size] | add // 0)}",
        "{patient: $key, visits: [items(\"visits\").visit], answers: ([items(\"answers\")] | length)}",
        "select(.sha256 != $state)",
        "$params.ids[]",
        ".status? == 601",
        "counts.vitals.ok, (failures | select(.class == \"http_404\") | .key)",
    ] {
        assert!(Filter::compile(text, None).is_ok(), "{text}");
    }
}

#[test]
fn deleting_keeps_the_order_of_the_fields_that_stay() {
    gives("del(.a)", json!({"a": 1, "b": 2, "c": 3}), json!([{"b": 2, "c": 3}]));
    let text = |filter: &str, input: Value| all(filter, input).map(|v| Value::Array(v).to_string());
    assert_eq!(text("del(.a)", json!({"a": 1, "b": 2, "c": 3})).as_deref(), Ok("[{\"b\":2,\"c\":3}]"));
    assert_eq!(
        text("del(.b.x, .a)", json!({"a": 1, "b": {"x": 1, "y": 2, "z": 3}, "c": 3})).as_deref(),
        Ok("[{\"b\":{\"y\":2,\"z\":3},\"c\":3}]")
    );
    gives("del(.[0, 2])", json!([1, 2, 3, 4]), json!([[2, 4]]));
    gives("del(.[] | select(. > 1))", json!([1, 2, 3, 1]), json!([[1, 1]]));
    gives("del(.[1:3])", json!([1, 2, 3, 4]), json!([[1, 4]]));
    gives("del(.x?, .y[0]?)", json!({"a": 1}), json!([{"a": 1}]));
    gives("delpaths([[\"a\"], [\"b\", 0]])", json!({"a": 1, "b": [1, 2]}), json!([{"b": [2]}]));
    gives("del(.)", json!(1), json!([null]));
    gives("del(.[-1])", json!([1, 2, 3]), json!([[1, 2]]));
}

#[test]
fn assignments_make_what_is_missing() {
    gives(".a.b = 1", json!({}), json!([{"a": {"b": 1}}]));
    gives(".[1].x |= 2", json!(null), json!([[null, {"x": 2}]]));
    gives(".list[0] += 5 | .n //= 7", json!({}), json!([{"list": [5], "n": 7}]));
    gives(".a[.k] = 1", json!({"k": "x", "a": {"y": 2}}), json!([{"k": "x", "a": {"y": 2, "x": 1}}]));
    gives(".[.k].v = 1", json!({"k": "x"}), json!([{"k": "x", "x": {"v": 1}}]));
    gives("(.a, .b.c) = 1", json!({}), json!([{"a": 1, "b": {"c": 1}}]));
    gives(
        "(.[] | select(.id == 2) | .tags.seen) = true",
        json!([{"id": 1}, {"id": 2}]),
        json!([[{"id": 1}, {"id": 2, "tags": {"seen": true}}]]),
    );
    gives("setpath([\"a\", 0]; 1) | getpath([\"a\", 0]), getpath([\"x\", \"y\"])", json!({}), json!([1, null]));
    gives("([paths] | length), (map_values(. + 1) | .a)", json!({"a": 1}), json!([1, 2]));
    gives(".a.b += 1", json!({"a": {"b": 1, "c": 2}}), json!([{"a": {"b": 2, "c": 2}}]));
    assert!(all(".a.b = 1", json!({"a": 5})).is_err());
    gives(
        "reduce (\"x\", \"y\") as $k (null; .[$k][\"n\"] += 1)",
        json!(null),
        json!([{"x": {"n": 1}, "y": {"n": 1}}]),
    );
}

#[test]
fn conditions_take_the_first_value() {
    for (text, expected) in
        [("true", true), ("false", false), ("null", false), ("empty", false), ("0", true), ("false, true", false)]
    {
        let filter = Filter::compile(text, None).expect(text);
        assert_eq!(filter.first_bool(&json!(null), &facts()), Ok(expected), "{text}");
    }
}

struct Counted(std::sync::atomic::AtomicUsize, usize);

impl Group for Counted {
    fn items(&self, stage: Option<&str>) -> Result<Rows, String> {
        if stage.is_some_and(|stage| stage != "vitals") {
            return Err("the stage `x` is no parent of this gather".into());
        }
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let rows = self.1 as u64;
        Ok(Box::new((0..rows).map(|n| if n == 100_000 { Err("disk".into()) } else { Ok(json!({ "n": n })) })))
    }

    fn failures(&self) -> Rows {
        Box::new(std::iter::once(Ok(json!({"stage": "vitals", "key": "P2", "class": "http_404"}))))
    }

    fn counts(&self) -> Arc<Value> {
        Arc::new(json!({"vitals": {"items": 2}}))
    }
}

fn gather(rows: usize) -> Facts {
    Facts { group: Some(Arc::new(Counted(Default::default(), rows))), ..facts() }
}

#[test]
fn a_gather_streams_its_group() {
    let facts = gather(3);
    let run = |text: &str| all_with(text, json!(null), &facts);
    assert_eq!(run("[items.n]"), Ok(vec![json!([0, 1, 2])]));
    assert_eq!(run("[items(\"vitals\")] | length"), Ok(vec![json!(3)]));
    assert_eq!(run("failures.key, counts.vitals.items"), Ok(vec![json!("P2"), json!(2)]));
    assert_eq!(run("items(\"x\")"), Err("jq: the stage `x` is no parent of this gather".into()));
    assert_eq!(run("items(1)"), Err("jq: items(…) needs the name of a stage, not 1".into()));
    assert_eq!(all("failures", json!(1)), Err("jq: `items`, `failures` and `counts` exist in a gather only".into()));
    let endless = gather(usize::MAX);
    assert_eq!(all_with("first(items).n", json!(null), &endless), Ok(vec![json!(0)]), "one row is read");
    assert_eq!(all_with("reduce items as $i (0; . + 1)", json!(null), &endless), Err("jq: disk".into()));
}

#[test]
fn filters_that_need_a_gather_are_known() {
    let text = "[items] | map(.n)";
    let filter = Filter::compile(text, None).expect("compiles");
    assert!(filter.uses_group());
    assert_eq!(filter.group_uses().iter().map(|r| &text[r.clone()]).collect::<Vec<_>>(), ["items"]);
    assert!(!Filter::compile(".items", None).expect("compiles").uses_group());
    assert!(!Filter::compile("def items: .x; items", None).expect("compiles").uses_group());
}

#[test]
fn what_recurses_without_end_is_an_error_on_a_small_stack() {
    let work = || {
        for text in [
            "def f: 1 + f; f",
            "def f: [f]; f",
            "def f: {a: f}; f",
            "def f(g): g | f(g) + 1; f(.)",
            "def f: def g: f; g + 1; f",
            "def f: (f | .) , 1; f",
            "def f: . as $x | f | $x; f",
            "def f: try f catch error; f",
            "path(def f: .a | f | .b; f)",
            "(def f: . | f | .; f) |= 1",
            "reduce range(1000000) as $i (null; [.])",
            "last(foreach range(1000000) as $i (null; {a: .}))",
            "def f: [.] | f; f",
            "last(recurse([.]))",
            "until(false; [.])",
            "last(while(true; {a: .}))",
            "[limit(1000000; repeat([.]))] | length",
            // A given filter that is handed on and on is a row of calls, though each call came back.
            "def f(g): if . > 100000 then g else . + 1 | f(g) end; 0 | f(.)",
            "def f(g): if . != 0 then g | f(g) end; 1 | f(empty, .)",
            "def f(g): def h(k): if . > 100000 then k else . + 1 | h(k) end; h(g); 0 | f(.)",
            "path(def f(g): if . == null then f(g | .a) else g end; f(.))",
        ] {
            let message = all(text, json!(null)).expect_err(text);
            assert!(message.contains("deep"), "{text}: {message}");
        }
        // What ends is not harmed: tail calls use no stack.
        gives("def f: if . > 100000 then . else . + 1 | f end; f", json!(0), json!([100001]));
        gives("[range(100000)] | length", json!(0), json!([100000]));
        gives("def f(g): if . >= 50 then g else . + 1 | f(g) end; f(. * 2)", json!(0), json!([100]));
        gives("def f($n): if $n > 100000 then $n else f($n + 1) end; f(0)", json!(0), json!([100001]));
        // A bounded definition is what it was: other definitions of its name, paths, updates, variables.
        gives(
            "def f(a; b): a + b; def f(g): if . > 2 then f(g; 10) else . + 1 | f(g) end; f(.)",
            json!(0),
            json!([13]),
        );
        gives("def f(g): def f(g): g * 2; if . > 2 then f(g) else . + 1 end; f(.)", json!(3), json!([6]));
        gives("def f(g): def h(k): if . > 2 then k else . + 1 | f(k) end; h(g); f(., 7)", json!(0), json!([3, 7]));
        gives(
            "def f($n; g): if $n == 0 then g else f($n - 1; g | .a) end; path(f(2; .))",
            json!(null),
            json!([["a", "a"]]),
        );
        gives(
            "def f(g): if type == \"array\" then .[] | f(g) else g end; f(.) |= . + 1",
            json!([1, [2]]),
            json!([[2, [3]]]),
        );
        gives("def f(g): 1, if . < 2 then . + 1 | f(g), f(g) else g end; [f(.)]", json!(1), json!([[1, 1, 2, 1, 2]]));
        gives("last(recurse(if . < 100000 then . + 1 else empty end))", json!(0), json!([100000]));
    };
    std::thread::Builder::new().stack_size(2 << 20).spawn(work).expect("a thread").join().expect("no panic");
}

#[test]
fn what_grows_without_end_is_an_error_before_it_takes_the_memory() {
    for (text, told) in [
        ("[range(1000000000)]", "more than 4194304 values"),
        ("reduce range(64) as $i ([1]; . + .) | length", "more than 4194304 values"),
        ("reduce range(64) as $i ([1]; . += .) | length", "more than 4194304 values"),
        ("reduce range(64) as $i (\"x\"; . + .) | length", "longer than 16777216 bytes"),
        (
            "[range(2000) | \"a long text, many times over\" * 400] | join(\", \") | length",
            "longer than 16777216 bytes",
        ),
        ("[range(2000) | \"a long text, many times over\" * 400] | add | length", "longer than 16777216 bytes"),
        ("reduce range(64) as $i (\"\\\"\"; tojson) | length", "too large"),
        ("reduce range(64) as $i (\"'\"; @sh) | length", "longer than 16777216 bytes"),
        ("reduce range(64) as $i (1; [., .])", "too large"),
        ("reduce range(64) as $i (1; [., .]) | tojson", "too large"),
        ("reduce range(64) as $i (1; {a: ., b: .}) | tostring", "too large"),
        ("reduce range(64) as $i (1; [., .]) | \"\\(.)!\"", "too large"),
        ("reduce range(60) as $i (1; [., .]) | error", "very large value"),
        ("reduce range(64) as $i (10; . * .) | tostring | length", "a whole number of more than 65536 bits"),
        ("reduce range(64) as $i (10; . *= .) | tostring | length", "a whole number of more than 65536 bits"),
    ] {
        let message = all(text, json!(null)).expect_err(text);
        assert!(message.contains(told), "{text}: {message}");
    }
    // What is merely large is not harmed.
    gives("[range(1000000)] | add", json!(null), json!([499999500000_i64]));
    gives("[range(300000) | tostring] | join(\",\") | length", json!(null), json!([1988889]));
    gives("reduce range(100000) as $i ([]; . + [$i]) | length", json!(null), json!([100000]));
    gives("reduce range(1000) as $i ({}; . + {\"k\\($i)\": $i}) | length", json!(null), json!([1000]));
}

#[test]
fn long_and_deep_texts_are_refused_before_they_recurse() {
    let work = || {
        let row = |part: &str, n: usize, between: &str| vec![part; n].join(between);
        for text in [
            row(".", 1500, "|"),
            row("1", 1500, ","),
            format!("[{}] | length", row("\"P00001\"", 1500, ", ")),
            row("1", 120, "+"),
            format!("{}1", row("def f: 1;", 1000, " ")),
            format!("{{{}}}", row("a: 1", 400, ", ")),
            format!("\"{}\"", row("\\(1)", 400, "")),
            format!("if . == 0 then 0 {} else 1 end", row("elif . == 0 then 0", 99, " ")),
            format!("null | {}", row(".a", 99, "")),
            format!("{}1{}", "[".repeat(120), "]".repeat(120)),
            format!(".a{}", "?".repeat(100_000)),
        ] {
            let shown: String = text.chars().take(20).collect();
            let filter = Filter::compile(&text, None).unwrap_or_else(|e| panic!("{shown}: {e:?}"));
            let mut given = 0;
            let ran = filter.run(&json!(1), &facts(), &mut |_| {
                given += 1;
                ControlFlow::Continue(())
            });
            assert!(ran.is_ok(), "{shown}: {ran:?}");
        }
        for unit in [
            "1 |",
            "1,",
            "1 + ",
            "1 //",
            "- ",
            "try ",
            ". as $x | ",
            "def f: ",
            "def f: def g: 1; ",
            "reduce ",
            "if ",
            "if 1 then ",
            "if 1 then 1 else ",
            "label $x | ",
            "(",
            "[",
            "{a: ",
            "f(",
            "\"\\(",
            ".[",
            "reduce . as [$x] (1; ",
            "1 and ",
            "1 | 1 | - ",
            "def f: 1; 1 | ",
            "\"\\(1)",
            "[0]",
            ".a[0:",
            ". as [",
            ". as {a: ",
        ] {
            let text = format!("{}1", unit.repeat(30_000));
            assert!(Filter::compile(&text, None).is_err(), "{unit}");
        }
    };
    std::thread::Builder::new().stack_size(2 << 20).spawn(work).expect("a thread").join().expect("no panic");
}

#[test]
fn filters_are_shared_by_threads() {
    let filter = Filter::compile("[.[] | . * 2] | add", None).expect("compiles");
    std::thread::scope(|scope| {
        for n in 0..4 {
            let filter = filter.clone();
            scope.spawn(move || assert_eq!(filter.first(&json!([n, n]), &facts()), Ok(Some(json!(4 * n)))));
        }
    });
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_compiler_panic(text in "[\\PC\n]{0,60}") {
        let _ = Filter::compile(&text, None);
    }

    #[test]
    fn no_row_of_words_makes_the_compiler_or_a_run_panic(words in proptest::collection::vec(
        proptest::sample::select(vec![".", "|", "[", "]", "(", ")", "{", "}", "$item", "as", "$x", "def", "f", ":", ";",
            "reduce", "foreach", "if", "then", "else", "end", "\"a\"", "1", "+", "//", "?", ",", ".a", "..", "try",
            "path", "del", "first", "items", "@csv", "|=", "label", "break", "not", "-", "\"\\(", "select", "sort_by"]), 0..12)) {
        if let Ok(filter) = Filter::compile(&words.join(" "), None) {
            let mut left = 100;
            let _ = filter.run(&json!([{"a": 1}, null]), &gather(2), &mut |_| {
                left -= 1;
                if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
        }
    }
}
