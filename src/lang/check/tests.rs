use super::*;
use serde_json::json;

type Found = (Level, String, Option<String>, Option<Range<usize>>);

fn findings(scope: Scope, check: impl FnOnce(&mut Checker)) -> Vec<Found> {
    let mut checker = Checker::new(Path::new("/nowhere"), scope);
    check(&mut checker);
    checker.into_findings().into_iter().map(|f| (f.level, f.message, f.help, f.within)).collect()
}

fn params() -> Value {
    json!({"vendor": "http://x", "window": {"days": 2}})
}

#[test]
fn variables_that_do_not_exist_are_found_with_their_place() {
    let columns = || Scope { item_fields: Some(vec!["id".into(), "patient".into()]), ..Scope::worker(params()) };
    for (scope, text, message, help) in [
        (Scope::worker(params()), "{{ itm.id }}", "there is no variable `itm`", "did you mean `item`?"),
        (
            Scope::worker(params()),
            "{{ foo }}",
            "there is no variable `foo`",
            "here exist item, value, key, params, run, state, secret",
        ),
        (Scope::worker(params()), "{{ params.vendr }}", "`params` has no field `vendr`", "did you mean `vendor`?"),
        (
            Scope::worker(params()),
            "{{ params.window.hours }}",
            "`params.window` has no field `hours`",
            "`params.window` has days",
        ),
        (Scope::worker(Value::Null), "{{ params.x }}", "`params` has no field `x`", "`params` is empty"),
        (Scope::worker(params()), "{{ run.nigth }}", "`run` has no field `nigth`", "did you mean `night`?"),
        (
            Scope::worker(params()),
            "{{ run.summary }}",
            "`run.summary` exists in `on_finish` only",
            "move this action into `on_finish: [Notify(run: [..])]`",
        ),
        (
            Scope::worker(params()),
            "{{ run.after.id }}",
            "`run.after` exists in a job with `schedule: After(..)` only",
            "write `schedule: After(job: \"nightly-vitals\")`, or leave this out",
        ),
        (
            Scope { after: true, ..Scope::worker(params()) },
            "{{ run.after.name }}",
            "`run.after` has no field `name`",
            "`run.after` has job, id, outcome",
        ),
        (
            Scope::worker(params()),
            "{{ response.status }}",
            "`response` is null here: no Http action stands before",
            "here exist item, value, key, params, run, state, secret",
        ),
        (
            Scope { response: true, ..Scope::worker(params()) },
            "{{ response.body }}",
            "`response` has no field `body`",
            "`response` has status, headers, sha256",
        ),
        (
            Scope::worker(params()),
            "{{ items }}",
            "`items` exists in a gather only",
            "here exist item, value, key, params, run, state, secret",
        ),
        (
            Scope::gather(params()),
            "{{ item.id }}",
            "`item` is null in a gather",
            "write {% for i in items %} … {{ i.id }} … {% endfor %}",
        ),
        (
            Scope::source(params()),
            "{{ item.id }}",
            "`item` is null in the actions of a source",
            "what the action before gave is `value`",
        ),
        (
            Scope::source(params()),
            "{{ key }}",
            "`key` does not exist here: there is no item yet",
            "here exist value, params, run, secret",
        ),
        (
            Scope::service(params()),
            "{{ item.id }}",
            "`item` does not exist in a service: it is the same for all items",
            "here exist params, secret",
        ),
        (
            Scope::service(params()),
            "{{ run.id }}",
            "`run` does not exist in a service: it is the same for all items",
            "here exist params, secret",
        ),
        (columns(), "{{ item.patent }}", "`item` has no field `patent`", "did you mean `patient`?"),
    ] {
        let found = findings(scope, |c| assert!(c.template("key", text, Flavor::Text).is_none(), "{text}"));
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        let (level, found_message, found_help, within) = &found[0];
        assert_eq!(
            (*level, found_message.as_str(), found_help.as_deref().unwrap_or("")),
            (Level::Error, message, help),
            "{text}"
        );
        let marked = &text[within.clone().expect("a place")];
        assert!(text.contains(&format!("{{{{ {marked} }}}}")), "{marked}");
    }
}

#[test]
fn texts_that_are_right_pass() {
    let after = Scope { after: true, response: true, ..Scope::on_finish(params()) };
    for (scope, text) in [
        (
            Scope::worker(params()),
            "{{ item.id }}/{{ value.x }}/{{ key }}/{{ params.window.days }}/{{ run.night }}/{{ state.x }}/{{ secret.t }}",
        ),
        (
            Scope::gather(params()),
            "{% for i in items('a') %}{{ i.x }}{{ loop.index }}{% endfor %}{{ counts.a.ok }}{% for f in failures %}{{ f }}{% endfor %}",
        ),
        (after, "{{ run.outcome }}{{ run.after.job }}{{ response.status }}{{ value }}"),
        (Scope::worker(params()), "{{ params.limit | default(5) }}{% if item.x is defined %}{% endif %}"),
        (Scope::worker(params()), "{% set x = item.a %}{{ x.b }}{{ range(3) }}"),
        (Scope { item: true, ..Scope::source(params()) }, "{{ item.id }}"),
        (Scope::service(params()), "{{ params.vendor }}{{ secret.t }}"),
    ] {
        assert_eq!(findings(scope, |c| assert!(c.template("x", text, Flavor::Text).is_some())), [], "{text}");
    }
}

#[test]
fn a_bare_value_is_an_error_where_data_is_expected() {
    for (text, right) in [
        (".id", "write {{ item.id }}"),
        ("item.id", "write {{ item.id }}"),
        ("$item.id", "write {{ item.id }}"),
        ("$key", "write {{ key }}"),
        ("{item.id}", "write {{ item.id }}"),
        ("{ item.id }", "write {{ item.id }}"),
        ("${item.id}", "write {{ item.id }}"),
        ("run.night", "write {{ run.night }}"),
    ] {
        let found =
            findings(Scope::worker(params()), |c| assert!(c.template("key", text, Flavor::Text).is_none(), "{text}"));
        assert_eq!(
            found,
            [(Level::Error, format!("`{text}` is a plain text here, not a value"), Some(right.into()), None)]
        );
    }
    let literal = findings(Scope::worker(params()), |c| assert!(c.template("key", "patient", Flavor::Text).is_some()));
    assert_eq!(literal[0].0, Level::Remark);
    for text in ["run.sh", "key.pem", "items.csv", "plain", "-x"] {
        assert_eq!(
            findings(Scope::worker(params()), |c| assert!(c.template_or_literal("argv", text, Flavor::Text).is_some())),
            []
        );
    }
    for text in [".id", "item.id", "$key", "{item.id}"] {
        let found =
            findings(Scope::worker(params()), |c| assert!(c.template_or_literal("x", text, Flavor::Text).is_some()));
        assert_eq!(found[0].0, Level::Remark, "{text}");
        let found = findings(Scope::worker(params()), |c| assert!(c.text("x", text, Flavor::Text).is_none()));
        assert_eq!(found[0].0, Level::Error, "{text}");
    }
    assert_eq!(findings(Scope::worker(params()), |c| assert!(c.text("x", "/v1/items", Flavor::Text).is_some())), []);
}

#[test]
fn filters_are_checked_with_their_place() {
    for (text, level, message, help, marked) in [
        ("{{ item.id }}", Level::Error, "this field is a jq filter, not a template", "write $item.id", "{{ item.id }}"),
        (".x == {{ value.y }}", Level::Error, "this field is a jq filter, not a template", "write .y", "{{ value.y }}"),
        (
            "items | length",
            Level::Error,
            "`items` exists in a gather only",
            "write .items for a field of the value, $item.items for one of the item",
            "items",
        ),
        (
            ".a |",
            Level::Error,
            "the filter ends where a value or a filter is missing",
            "compare it with a good filter: .data[] | select(.steps > 0) | {id, steps}",
            "",
        ),
        ("selct(.a)", Level::Error, "there is no function `selct`", "did you mean `select`?", "selct"),
        ("$params.vendr", Level::Remark, "`$params` has no field `vendr`", "did you mean `vendor`?", "$params.vendr"),
        ("$run.nigth", Level::Remark, "`$run` has no field `nigth`", "did you mean `night`?", "$run.nigth"),
    ] {
        let found = findings(Scope::worker(params()), |c| {
            assert_eq!(c.filter("filter", text).is_none(), level == Level::Error, "{text}");
        });
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        let (l, m, h, within) = &found[0];
        assert_eq!((*l, m.as_str(), h.as_deref().unwrap_or("")), (level, message, help), "{text}");
        assert_eq!(&text[within.clone().expect("a place")], marked, "{text}");
    }
    assert_eq!(
        findings(Scope::gather(params()), |c| assert!(c.filter("f", "[items], $params.vendor, $run.id").is_some())),
        []
    );
}

#[test]
fn side_files_are_read_and_their_problems_name_line_and_column() {
    let folder = tempfile::tempdir().expect("a folder");
    let jobs = folder.path();
    fs::create_dir(jobs.join("nightly")).expect("a folder");
    let write = |name: &str, text: &[u8]| fs::write(jobs.join(name), text).expect("a file");
    write("nightly/assess.jq", b"\xef\xbb\xbfdef a: 1;\n.x | a");
    write("nightly/bad.jq", b"def a: 1;\n.x |\n  nope(.) | $foo");
    write("nightly/page.html", b"<p>\n{{ params.vendor }}{{ secret.token }}\xc3\xbc {{ itm }}");
    write("nightly/good.html", b"{{ params.vendor }}");
    write("nightly/latin.jq", b"\"\xe4\"");
    write("nightly/large.jq", &vec![b' '; FILE_BYTES_MAX as usize + 1]);
    let mut checker = Checker::new(jobs, Scope::worker(params()));
    assert!(checker.filter_file("file", "nightly/assess.jq").is_some());
    assert!(checker.template_file("template", "nightly/good.html").is_some());
    for name in ["nightly/bad.jq", "nightly/asess.jq", "nightly", "nightly/latin.jq", "nightly/large.jq"] {
        assert!(checker.filter_file("file", name).is_none(), "{name}");
    }
    assert!(checker.template_file("template", "nightly/page.html").is_none());
    assert_eq!(checker.input("csv", "nightly/patients.csv"), jobs.join("nightly/patients.csv"));
    assert_eq!(checker.secrets_used().iter().collect::<Vec<_>>(), ["token"]);
    assert_eq!(checker.side_files()["nightly/assess.jq"], "def a: 1;\n.x | a");
    assert!(!checker.is_ok());
    let kept = checker.side_files().clone();
    let at = |name: &str| jobs.join(name).display().to_string();
    let found: Vec<_> = checker.into_findings().into_iter().map(|f| (f.level, f.message, f.help)).collect();
    let error = |message: String, help: Option<&str>| (Level::Error, message, help.map(str::to_owned));
    assert!(found.iter().all(|(_, _, help)| help.is_some()), "{found:?}");
    assert_eq!(found[0].1, "nightly/bad.jq:3:3: there is no function `nope`");
    assert_eq!(found[1].1, "nightly/bad.jq:3:13: there is no variable `$foo`");
    assert_eq!(
        found[2],
        error(format!("there is no file {}", at("nightly/asess.jq")), Some("did you mean `nightly/assess.jq`?"))
    );
    assert_eq!(found[3].1, format!("{} is no regular file", at("nightly")));
    assert_eq!(found[4].1, format!("{} is not UTF-8: byte 2", at("nightly/latin.jq")));
    assert_eq!(found[5].1, format!("{} is larger than 1048576 bytes", at("nightly/large.jq")));
    assert_eq!(
        found[6],
        error("nightly/page.html:2:43: there is no variable `itm`".into(), Some("did you mean `item`?"))
    );
    assert_eq!(
        (found[7].0, &found[7].1),
        (Level::Remark, &format!("there is no file {} yet", at("nightly/patients.csv")))
    );
    assert_eq!(found.len(), 8);

    let mut resumed = Checker::new(Path::new("/nowhere"), Scope::worker(params())).with_kept_files(&kept);
    assert!(resumed.filter_file("file", "nightly/assess.jq").is_some());
    assert!(resumed.filter_file("file", "nightly/other.jq").is_none());
}

#[test]
fn whether_a_text_reads_the_head_of_an_answer_is_known() {
    type Text = fn(&mut Checker<'_>);
    let texts: [(Text, bool); 6] = [
        (|checker| drop(checker.text("a", "{{ response.status }}", Flavor::Text)), true),
        (|checker| drop(checker.text("a", "{% if response %}{{ item.x }}{% endif %}", Flavor::Text)), true),
        (|checker| drop(checker.filter("a", ".x | select($response.status == 200)")), true),
        (|checker| drop(checker.filter("a", "{a: $item} | .a[$response.headers.a]")), true),
        (|checker| drop(checker.text("a", "{{ item.response }} response", Flavor::Text)), false),
        (|checker| drop(checker.filter("a", ".response")), false),
    ];
    for (at, (text, reads)) in texts.into_iter().enumerate() {
        let mut checker = Checker::new(Path::new("."), Scope { response: true, ..Scope::worker(params()) });
        text(&mut checker);
        assert_eq!(checker.reads_response().get(), reads, "{at}");
    }
}
