//! `Items` and `Read`: what a listing gives, and what it says of bad rows.

use super::*;

fn source() -> Bench {
    Bench { source: true, ..Bench::new() }
}

#[test]
fn a_list_gives_its_values_with_their_texts_rendered() {
    let bench = source();
    let given =
        bench.values(r#"Items(list: ["{{ params.n }}/x", 2, None, {"a": ["{{ run.date }}", true]}])"#, Value::Null);
    assert_eq!(given, [json!("3/x"), json!(2), json!(null), json!({"a": ["2026-05-01", true]})]);
}

#[test]
fn a_matrix_gives_every_combination_and_the_last_varies_fastest() {
    let bench = source();
    let given =
        bench.values(r#"Items(matrix: {"r": ["eu", "us"], "d": [1, 2], "x": ["{{ params.n }}"]})"#, Value::Null);
    let shown: Vec<String> = given.iter().map(Value::to_string).collect();
    assert_eq!(
        shown,
        [
            r#"{"r":"eu","d":1,"x":"3"}"#,
            r#"{"r":"eu","d":2,"x":"3"}"#,
            r#"{"r":"us","d":1,"x":"3"}"#,
            r#"{"r":"us","d":2,"x":"3"}"#
        ]
    );
    assert!(bench.values(r#"Items(matrix: {"r": [], "d": [1]})"#, Value::Null).is_empty());
    let list = format!("[{}]", "1,".repeat(1001));
    let finding = bench.finding(&format!(r#"Items(matrix: {{"a": {list}, "b": {list}}})"#));
    assert!(finding.contains("combinations"), "{finding}");
    assert!(bench.finding("Items()").contains("nothing is listed"));
}

#[test]
fn a_csv_is_its_rows_as_texts() {
    let bench = source();
    bench.put("p.csv", "\u{feff} id ;\"na;me\"; n\r\nP1;\"A;B\";-3\r\nP2;;7");
    let given = bench.values(r#"Read(csv: "p.csv")"#, Value::Null);
    assert_eq!(given, [json!({"id": "P1", "na;me": "A;B", "n": "-3"}), json!({"id": "P2", "na;me": "", "n": "7"})]);
    bench.put("t.csv", "a|b\n1|2\n");
    assert_eq!(bench.values(r#"Read(csv: "t.csv", delimiter: "|")"#, Value::Null), [json!({"a": "1", "b": "2"})]);
}

#[test]
fn a_bad_row_is_one_failed_item_and_the_listing_goes_on() {
    let bench = source();
    let mut text = b"id,n\nP1,1\nP2\nP3,\"x\"y\nP4,\xff\n".to_vec();
    text.extend(std::iter::repeat_n(b'x', 20_000));
    text.extend(b"\nP6,6\n");
    bench.put("p.csv", text);
    let (given, result) = bench.run(r#"Read(csv: "p.csv")"#, Value::Null);
    assert_eq!(result, Ok(()));
    assert_eq!(given.values, [json!({"id": "P1", "n": "1"}), json!({"id": "P6", "n": "6"})]);
    let bad: Vec<String> = given.bad.iter().map(Failure::to_string).collect();
    assert_eq!(
        bad,
        [
            "data: p.csv:3: 1 fields, the header has 2",
            "data: p.csv:4: text stands behind a closing quote",
            "data: p.csv:5: it is not UTF-8",
            "too_large: p.csv:6: the row has more than 10000 bytes: raise `max_value`"
        ]
    );
}

#[test]
fn a_broken_line_of_ndjson_is_one_failed_item() {
    let bench = source();
    bench.put("q.ndjson", "{\"a\":1}\r\n\n{\"a\":\n[2]");
    let (given, result) = bench.run(r#"Read(ndjson: "q.ndjson")"#, Value::Null);
    assert_eq!((given.values, result), (vec![json!({"a": 1}), json!([2])], Ok(())));
    assert_eq!(given.bad.len(), 1);
    assert!(given.bad[0].message.starts_with("q.ndjson:3: "), "{}", given.bad[0]);
}

#[test]
fn a_json_array_is_its_elements_and_a_broken_one_ends_the_listing() {
    let bench = source();
    bench.put("a.json", "[{\"a\": 1},\n 2, \"x,]\"]\n");
    assert_eq!(bench.values(r#"Read(json: "a.json")"#, Value::Null), [json!({"a": 1}), json!(2), json!("x,]")]);
    bench.put("o.json", "{\"a\": [1, 2]}");
    assert_eq!(bench.values(r#"Read(json: "o.json")"#, Value::Null), [json!({"a": [1, 2]})]);
    for (text, before) in [("[1, 2, tru, 4]", 2), ("[1, 2", 1), ("[1] x", 1), ("", 0)] {
        bench.put("b.json", text);
        let (given, result) = bench.run(r#"Read(json: "b.json")"#, Value::Null);
        assert_eq!(given.values.len(), before, "{text}");
        assert!(
            matches!(result, Err(Stop::Failed { failure, given_up: true }) if failure.class == Class::Listing),
            "{text}"
        );
    }
}

#[test]
fn lines_are_texts() {
    let bench = source();
    bench.put("l.txt", "a\r\n\nb");
    assert_eq!(bench.values(r#"Read(lines: "l.txt")"#, Value::Null), [json!("a"), json!(""), json!("b")]);
}

#[test]
fn a_missing_or_unusable_file_fails_the_listing_by_name() {
    let bench = source();
    bench.put("empty.csv", "");
    bench.put("dir/x", "");
    for (ron, part) in [
        (r#"Read(csv: "no.csv")"#, "no.csv"),
        (r#"Read(lines: "dir")"#, "no regular file"),
        (r#"Read(lines: "/dev/zero")"#, "no regular file"),
        (r#"Read(csv: "{{ params.n }}.csv")"#, "3.csv"),
    ] {
        let (class, message, given_up) = bench.failure(ron, Value::Null);
        assert_eq!((class, given_up), (Class::Listing, true), "{ron}");
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn files_are_listed_in_the_order_of_their_names() {
    let bench = source();
    for name in ["d/b.txt", "d/a.tar.gz", "d/.hidden.txt", "d/sub/c.txt", "d/no.md"] {
        bench.put(name, "abc");
    }
    let given = bench.values(r#"Read(glob: "d/[ab]*", digest: true)"#, Value::Null);
    assert_eq!(given.len(), 2);
    let base = bench.path("d/a.tar.gz");
    assert_eq!(given[0]["path"], json!(base.to_str()));
    assert_eq!(
        (&given[0]["name"], &given[0]["stem"], &given[0]["size"]),
        (&json!("a.tar.gz"), &json!("a.tar"), &json!(3))
    );
    assert_eq!(given[0]["sha256"], json!("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"));
    assert!(given[0]["modified"].as_str().is_some_and(|text| text.parse::<jiff::Timestamp>().is_ok()));
    assert_eq!(bench.values(r#"Read(glob: "d/*.txt")"#, Value::Null).len(), 1);
    assert!(bench.values(r#"Read(glob: "none/*")"#, Value::Null).is_empty());
    assert!(bench.finding(r#"Read(glob: "d/[")"#).contains("pattern"));
}

#[test]
fn the_check_knows_the_columns_and_refuses_two_of_one_name() {
    let bench = source();
    bench.put("p.csv", "id,name\n1,x\n");
    let spec: ActionSpec = ron::Options::default()
        .with_default_extension(ron::extensions::Extensions::IMPLICIT_SOME)
        .from_str(r#"Read(csv: "p.csv")"#)
        .expect("reads");
    let checker = Checker::new(bench.dir.path(), Scope::source(json!({})));
    assert_eq!(crate::action::columns(&spec, &checker), Some(vec!["id".to_owned(), "name".to_owned()]));
    bench.put("p.csv", "id,name, id \n1,x,2\n");
    assert!(bench.finding(r#"Read(csv: "p.csv")"#).contains("two columns are named \"id\""));
    bench.put("p.csv", "id,name\n1,x,2\n");
    assert!(bench.finding(r#"Read(csv: "p.csv")"#).contains("Remark"));
    for (ron, part) in [
        ("Read()", "nothing says what is read"),
        (r#"Read(csv: "p.csv", lines: "x")"#, "`csv` and `lines` say what is read"),
        (r#"Read(lines: "p.csv", delimiter: ";")"#, "only csv"),
        (r#"Read(csv: "p.csv", delimiter: ";;")"#, "one plain character"),
    ] {
        assert!(bench.finding(ron).contains(part), "{ron}: {}", bench.finding(ron));
    }
}
