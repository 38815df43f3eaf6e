//! `Write`, `Render` and what they share: safe names, one owner, whole files.

use super::*;
use crate::action::{OutputError, OutputPath};

#[test]
fn a_path_can_never_leave_the_output_folder() {
    for (text, error) in [
        ("", OutputError::Empty),
        ("a//b", OutputError::Empty),
        ("a/", OutputError::Empty),
        ("/etc/passwd", OutputError::Absolute),
        ("../x", OutputError::Dots),
        ("a/../../x", OutputError::Dots),
        ("./a", OutputError::Dots),
        ("a\0b", OutputError::Control),
        ("a\nb", OutputError::Control),
        (&"x".repeat(256), OutputError::TooLong),
        (&"x/".repeat(3000), OutputError::TooLong),
        ("a/.lamplighter-1.tmp", OutputError::Reserved),
    ] {
        assert_eq!(OutputPath::parse(text), Err(error), "{text:?}");
    }
    for fine in ["a", "a/b.json", "%2F..", "..a/b..", "CON", "ä/ß", &"x".repeat(255)] {
        assert_eq!(OutputPath::parse(fine).map(|path| path.to_string()), Ok(fine.to_owned()));
    }
}

#[test]
fn a_file_appears_whole_and_is_recorded_with_its_digest() {
    let bench = Bench::new();
    assert_eq!(bench.run(r#"Write(json: "{{ item.d }}/v.json")"#, json!({"d": "n1", "x": [1]})).1, Ok(()));
    assert_eq!(bench.get("out/n1/v.json"), "{\n  \"d\": \"n1\",\n  \"x\": [\n    1\n  ]\n}\n");
    let (records, count) = bench.run.outputs.written(10);
    assert_eq!((records.len(), count, records[0].path.as_str(), records[0].bytes), (1, 1, "n1/v.json", 36));
    assert_eq!(records[0].sha256.len(), 64);
    assert_eq!(names(&bench.path("out/n1")), ["v.json"], "no temporary file is left");
    assert_eq!(bench.block_on(bench.run.outputs.stored(10)), Ok((records, 1)));
}

#[test]
fn a_symlink_below_the_root_is_never_followed() {
    let bench = Bench::new();
    bench.put("elsewhere/keep", "old");
    std::fs::create_dir_all(bench.path("out")).expect("makes");
    std::os::unix::fs::symlink(bench.path("elsewhere"), bench.path("out/link")).expect("links");
    std::os::unix::fs::symlink(bench.path("elsewhere/keep"), bench.path("out/file")).expect("links");
    let (class, message, given_up) = bench.failure(r#"Write(json: "link/x.json")"#, json!(1));
    assert_eq!((class, given_up), (Class::Output, true));
    assert!(message.contains("`link/x.json`") && message.contains("symlink"), "{message}");
    assert_eq!(
        bench.run(r#"Write(json: "file")"#, json!(1)).1,
        Ok(()),
        "a link in its place is replaced, not followed"
    );
    assert_eq!((bench.get("elsewhere/keep").as_str(), bench.get("out/file").as_str()), ("old", "1\n"));
    assert_eq!(names(&bench.path("elsewhere")), ["keep"]);
}

#[test]
fn a_path_belongs_to_the_first_item_and_the_same_item_replaces_its_own() {
    let bench = Bench::new();
    let (first, second, facts) = (bench.item("a"), bench.item("b"), bench.facts(json!(1)));
    let ron = r#"Write(json: "x.json")"#;
    assert_eq!(bench.run_with(ron, &first, &facts, Given::default()).1, Ok(()));
    let (_, result) = bench.run_with(ron, &second, &facts, Given::default());
    let Err(Stop::Failed { failure, given_up: true }) = result else { panic!("{result:?}") };
    assert_eq!(failure.class, Class::OutputConflict);
    assert!(failure.message.contains("item `a` of stage `stage`") && failure.message.contains("`b`"), "{failure}");
    assert_eq!(bench.run_with(ron, &first, &bench.facts(json!(2)), Given::default()).1, Ok(()));
    assert_eq!(bench.get("out/x.json"), "2\n");
    assert_eq!(bench.run.outputs.written(10).1, 1);
}

#[test]
fn claims_and_records_go_to_the_store_once_there_is_one() {
    let bench = Bench::new();
    let (first, second, facts) = (bench.item("a"), bench.item("b"), bench.facts(json!(1)));
    let write = |name: &str, cx: &ItemContext| {
        bench.run_with(&format!(r#"Write(json: "{name}")"#), cx, &facts, Given::default()).1
    };
    assert_eq!(write("b.json", &first), Ok(()));
    let store = Arc::new(crate::store::memory::Memory::new(1 << 20));
    bench.run.outputs.keep_in(crate::store::RunStore::new(store, "run-1"));
    assert_eq!(write("a.json", &first), Ok(()));
    for name in ["a.json", "b.json"] {
        assert_eq!(write(name, &first), Ok(()), "the same item replaces its own");
        let conflict = write(name, &second);
        assert!(
            matches!(&conflict, Err(Stop::Failed { failure, .. }) if failure.class == Class::OutputConflict),
            "{conflict:?}"
        );
    }
    let (records, count) = bench.block_on(bench.run.outputs.stored(10)).expect("reads");
    let paths: Vec<_> = records.iter().map(|record| record.path.as_str()).collect();
    assert_eq!((paths, count), (vec!["a.json", "b.json"], 2));
}

#[test]
fn an_old_file_stays_whole_when_the_new_one_fails_and_nothing_else_is_left() {
    let bench = Bench::new();
    bench.put("out/x.csv", "old");
    let (class, message, _) = bench.failure(r#"Write(csv: "x.csv")"#, json!([{"a": 1}, 2]));
    assert_eq!(class, Class::Data);
    assert!(message.contains("csv is made of objects"), "{message}");
    assert_eq!((bench.get("out/x.csv").as_str(), names(&bench.path("out"))), ("old", vec!["x.csv".to_owned()]));
    bench.put("out/dir/y", "");
    let (class, _, _) = bench.failure(r#"Write(json: "dir")"#, json!(1));
    assert_eq!(class, Class::Output);
    let (class, message, _) = bench.failure(r#"Write(json: "x.csv/below.json")"#, json!(1));
    assert_eq!(class, Class::Output, "{message}");
    assert_eq!(names(&bench.path("out")), ["dir", "x.csv"]);
}

#[test]
fn a_file_that_is_dropped_half_written_leaves_nothing() {
    let bench = Bench::new();
    let cx = bench.item("a");
    bench.block_on(async {
        let mut file = bench.run.outputs.create(&cx, "a/b.bin").await.expect("creates");
        for _ in 0..40 {
            file.write(vec![7; 10_000]).await.expect("writes");
        }
        assert_eq!(file.bytes(), 400_000);
        assert_eq!(names(&bench.path("out/a")).len(), 1);
        drop(file);
        assert!(names(&bench.path("out/a")).is_empty());
        let mut file = bench.run.outputs.create(&cx, "a/b.bin").await.expect("creates again");
        for _ in 0..40 {
            file.write(vec![7; 10_000]).await.expect("writes");
        }
        let record = file.commit().await.expect("commits");
        assert_eq!(record.bytes, 400_000);
    });
    assert_eq!(std::fs::read(bench.path("out/a/b.bin")).expect("reads"), vec![7; 400_000]);
}

#[test]
fn a_gather_writes_all_its_items_until_a_jq_made_one_value_of_them() {
    let mut bench = Bench { gather: true, ..Bench::new() };
    let mut facts = bench.facts(Value::Null);
    let members = (0..2000).map(|n| json!({"n": n, "text": "x".repeat(60)})).collect::<Vec<_>>();
    facts.group = Some(Arc::new(Members(members.clone())));
    for (ron, name) in [("json", "a.json"), ("ndjson", "a.ndjson"), ("csv", "a.csv")] {
        let (_, result) =
            bench.run_with(&format!(r#"Write({ron}: "{name}")"#), &bench.item("k"), &facts, Given::default());
        assert_eq!(result, Ok(()));
    }
    assert_eq!(serde_json::from_str::<Vec<Value>>(&bench.get("out/a.json")).expect("json"), members);
    assert_eq!(bench.get("out/a.ndjson").lines().count(), 2000);
    assert_eq!(bench.get("out/a.csv").lines().count(), 2001);
    bench.after_jq = true;
    facts.value = Arc::new(json!({"sum": 1}));
    let (_, result) = bench.run_with(r#"Write(ndjson: "b.ndjson")"#, &bench.item("k"), &facts, Given::default());
    assert_eq!((result, bench.get("out/b.ndjson").as_str()), (Ok(()), "{\"sum\":1}\n"));
}

#[test]
fn a_page_is_rendered_into_a_file_or_becomes_the_value() {
    let bench = Bench::new();
    bench.put("j/page.html", "<b>{{ item.name }}</b>");
    bench.put("j/mail.txt", "Hi {{ item.name }}");
    let item = json!({"name": "<x>"});
    assert!(bench.values(r#"Render(template: "j/page.html", to: "{{ run.date }}/p.html")"#, item.clone()).is_empty());
    assert_eq!(bench.get("out/2026-05-01/p.html"), "<b>&lt;x&gt;</b>");
    assert_eq!(bench.values(r#"Render(template: "j/mail.txt")"#, item), [json!("Hi <x>")]);
    let (class, message, given_up) = bench.failure(r#"Render(template: "j/mail.txt")"#, json!({}));
    assert_eq!((class, given_up), (Class::Data, true), "{message}");
}

#[test]
fn an_unusable_output_is_found_by_the_check() {
    let bench = Bench::new();
    bench.put("t.txt", "x");
    for (ron, part) in [
        (r#"Write(json: "../x.json")"#, "`.` or `..`"),
        (r#"Write(json: "/tmp/x.json")"#, "begins with `/`"),
        (r#"Write(json: "/tmp/{{ key }}.json")"#, "begins with `/`"),
        (r#"Write(json: "{{ secret.token }}")"#, "secret"),
        ("Write()", "nothing says what is written"),
        (r#"Write(json: "a", csv: "b")"#, "`json` and `csv` say what is written"),
        (r#"Render(template: "no.txt")"#, "no.txt"),
        (r#"Render(template: "t.txt", to: "x", into: "y")"#, "passes on"),
    ] {
        let finding = bench.finding(ron);
        assert!(finding.starts_with("Error") && finding.contains(part), "{ron}: {finding}");
    }
    let (class, message, given_up) = bench.failure(r#"Write(json: "{{ item.n }}")"#, json!({"n": "../../x"}));
    assert_eq!((class, given_up), (Class::Data, true), "{message}");
}

#[test]
fn a_dry_run_names_the_files_and_writes_none() {
    let bench = Bench::new();
    bench.put("t.txt", "x");
    let facts = bench.facts(json!({"n": "a b"}));
    for (ron, shown) in [
        (r#"Write(csv: "{{ item.n }}.csv")"#, "Write csv 'a b.csv'"),
        (r#"Render(template: "t.txt", to: "{{ item.n }}")"#, "Render t.txt to 'a b'"),
        (r#"Log(message: "hi {{ item.n }}")"#, "Log 'hi a b'"),
    ] {
        assert_eq!(bench.action(ron).preview(&facts), Some(Ok(shown.to_owned())));
    }
    assert!(!bench.path("out").exists());
}

#[test]
fn keep_takes_exactly_one_small_value_and_passes_the_other_on() {
    let bench = Bench::new();
    let kept = |ron: &str, value: Value, state: Value| {
        let (mut cx, mut facts) = (bench.item("k"), bench.facts(value));
        facts.state = Arc::new(state);
        let (given, end) = bench.run_with(ron, &cx, &facts, Given::default());
        assert!(given.values.is_empty(), "the value before passes on: {:?}", given.values);
        end.map(|()| cx.kept.get_mut().expect("no panic").take().map(|value| *value))
    };
    let last = r#"Keep(filter: "($state // []) + [.x] | .[-2:]")"#;
    assert_eq!(kept(last, json!({"x": 1}), Value::Null), Ok(Some(json!([1]))));
    assert_eq!(kept(last, json!({"x": 3}), json!([1, 2])), Ok(Some(json!([2, 3]))));
    assert_eq!(kept(r#"Keep(filter: "null")"#, json!(1), Value::Null), Ok(Some(Value::Null)));
    let (checked, _) = bench.check(last);
    assert_eq!(checked.expect("a good action").gives, crate::action::Gives::PassesOn);
    for (filter, class, message) in [
        ("empty", Class::Data, "the filter of `Keep` gave nothing: give one value"),
        (".[]", Class::Data, "the filter of `Keep` gave several values: give one, such as a list"),
        ("error(\\\"no\\\")", Class::Data, "no"),
        ("\\\"x\\\" * 65536", Class::TooLarge, "`Keep` takes 65536 bytes of JSON at most, and this are 65538"),
    ] {
        let (found, said, given_up) = bench.failure(&format!("Keep(filter: \"{filter}\")"), json!([1, 2]));
        assert!(found == class && said.contains(message) && given_up, "{filter}: {found} {said}");
    }
    let mut cx = bench.item("k");
    cx.value_place = 1;
    let (_, end) = bench.run_with(last, &cx, &bench.facts(json!({"x": 1})), Given::default());
    assert_eq!(
        end,
        Err(*Stop::given_up(Class::Data, "`Keep` met a second value of the item, and an item has one state"))
    );
    let preview = bench.action(last).preview(&bench.facts(json!({})));
    assert_eq!(preview, Some(Ok("Keep '($state // []) + [.x] | .[-2:]'".into())));
}
