use super::*;
use crate::{
    item::{self, Key},
    lang::{Group, Rows, RunFacts, Secret},
};
use serde_json::json;
use std::sync::atomic::{AtomicUsize, Ordering};

struct Night(Arc<AtomicUsize>);

impl Group for Night {
    fn items(&self, stage: Option<&str>) -> Result<Rows, String> {
        let read = self.0.clone();
        match stage {
            None | Some("vitals") => Ok(Box::new((0..1_000_000).map(move |n| {
                read.fetch_add(1, Ordering::Relaxed);
                if n == 5 { Err("the store cannot be read".into()) } else { Ok(json!({ "id": n, "name": "<b>" })) }
            }))),
            Some(other) => Err(format!("the stage `{other}` is no parent of this gather")),
        }
    }

    fn failures(&self) -> Rows {
        Box::new(["P1", "P2"].into_iter().map(|key| Ok(json!({"key": key, "class": "http_404"}))))
    }

    fn counts(&self) -> Arc<item::Value> {
        Arc::new(json!({"vitals": {"items": 4960, "ok": 4900}}))
    }
}

fn facts_of(item: item::Value) -> Facts {
    let run = RunFacts {
        params: json!({"vendor": "http://127.0.0.1:8787"}),
        run: json!({"night": "2026-11-22", "due": "2026-11-23T02:30:00+08:00"}),
        secrets: [("token".to_owned(), Secret::new("s3cr3t"))].into(),
    };
    Facts::new(Arc::new(item), Key::parse("P1/a b").expect("a key"), Arc::new(run))
}

fn render(text: &str, flavor: Flavor, item: item::Value) -> Result<String, String> {
    let template = Template::compile(text, flavor).map_err(|e| format!("{}: {:?}", e.message, e.help))?;
    template.render(&facts_of(item)).map_err(|e| e.to_string())
}

#[track_caller]
fn gives(text: &str, item: item::Value, expected: &str) {
    assert_eq!(render(text, Flavor::Text, item).as_deref(), Ok(expected), "{text}");
}

#[test]
fn values_are_written_as_json_has_them() {
    gives("a{{ item }}b", json!(1), "a1b");
    gives(
        "{{ item.n }} {{ item.big }} {{ item.f }} {{ item.w }} {{ item.e }}",
        json!({"n": 4960, "big": u64::MAX, "f": 0.1, "w": 15.0, "e": 1e300}),
        "4960 18446744073709551615 0.1 15.0 1e+300",
    );
    gives("{{ item.t }}{{ item.none }}|{{ item.yes }}", json!({"t": "ü", "none": null, "yes": true}), "ü|true");
    gives(
        "{{ item.list }} {{ item.o }} {{ [1, item.list] }}",
        json!({"list": [1, "a"], "o": {"z": 1, "a": null}}),
        "[1,\"a\"] {\"z\":1,\"a\":null} [1,[1,\"a\"]]",
    );
    gives(
        "{% for x in item.list %}{{ x.a }}{{ loop.index }}{% endfor %}",
        json!({"list": [{"a": "x"}, {"a": "y"}]}),
        "x1y2",
    );
    gives("{% for k, v in item | items %}{{ k }}={{ v }};{% endfor %}", json!({"z": 1, "a": [2]}), "z=1;a=[2];");
    gives("{{ item.a.b[1].c }} {{ item['a'].b | length }}", json!({"a": {"b": [0, {"c": "deep"}]}}), "deep 2");
    gives(
        "{{ key }} {{ run.night }} {{ params.vendor }} {{ secret.token }} {{ state is none }}",
        json!(1),
        "P1/a b 2026-11-22 http://127.0.0.1:8787 s3cr3t true",
    );
    gives("{{ item | tojson }}", json!({"a": "<"}), "{\"a\": \"\\u003c\"}");
    gives("{{ item.list | sum }} {{ item.list | map('string') | join('-') }}", json!({"list": [1, 2]}), "3 1-2");
    gives("{{ item.x | default('-') }}", json!({}), "-");
    gives("line\n", json!({}), "line\n");
}

#[test]
fn dates_and_numbers_have_filters() {
    gives("{{ '2026-11-22' | add_days(9) }} {{ '2026-03-01' | add_days(-1) }}", json!(1), "2026-12-01 2026-02-28");
    gives("{{ run.due | add_days(1) }}", json!(1), "2026-11-24T02:30:00+08:00");
    gives(
        "{{ '2027-01-03' | format_date('%G-W%V') }} {{ run.due | format_date('%d.%m.%Y %H:%M %z') }}",
        json!(1),
        "2026-W53 23.11.2026 02:30 +0800",
    );
    gives(
        "{{ 4960 | thousands }} {{ -1234567.5 | thousands }} {{ 999 | thousands }}",
        json!(1),
        "4,960 -1,234,567.5 999",
    );
    for (text, message) in [
        (
            "{{ item.d | add_days(1) }}",
            "`item.d | add_days(1)`: add_days needs a date such as 2026-11-22 or 2026-11-22T02:30:00+08:00",
        ),
        (
            "{{ '2026-11-22' | add_days(99999999) }}",
            "`'2026-11-22' | add_days(99999999)`: add_days leaves the years -9999 to 9999",
        ),
        ("{{ item.d | thousands }}", "`item.d | thousands`: thousands needs a number"),
    ] {
        let found = render(text, Flavor::Text, json!({"d": "PATIENT"})).expect_err(text);
        assert_eq!(found, message, "{text}");
    }
}

#[test]
fn what_does_not_exist_is_named_and_no_value_is_shown() {
    for (text, message) in [
        ("{{ item.idd }}", "`item.idd` does not exist"),
        ("{{ item.a.b.c }}", "`item.a.b.c` does not exist"),
        ("{{ items }}", "`items` does not exist"),
        ("{{ item.name + 1 }}", "`item.name + 1` does not work with the value that is there"),
        ("{{ item.name | int }}", "`item.name | int` does not work with the value that is there"),
        ("{{ secret.token | int }}", "`secret.token | int` does not work with the value that is there"),
        ("{{ secret.token.x }}", "`secret.token.x` does not exist"),
        ("{{ secret.other }}", "`secret.other` does not exist"),
        ("{{ nothing() }}", "`nothing()` calls what does not exist"),
    ] {
        let found = render(text, Flavor::Text, json!({"name": "PATIENT", "a": {"b": {}}})).expect_err(text);
        assert_eq!(found, message, "{text}");
    }
    let template = Template::compile("{{ secret.token }}", Flavor::Text).expect("compiles");
    assert!(!format!("{template:?} {:?}", facts_of(json!(1))).contains("s3cr3t"));
}

#[test]
fn a_value_in_a_url_never_changes_where_it_goes() {
    let url = |text: &str, value: item::Value| render(text, Flavor::UrlPath, json!({ "id": value }));
    for (value, expected) in [
        (json!("P00001"), Ok("/v1/P00001/vitals")),
        (json!("a b/ü"), Ok("/v1/a%20b%2F%C3%BC/vitals")),
        (json!("//evil.example"), Ok("/v1/%2F%2Fevil.example/vitals")),
        (json!("@evil"), Ok("/v1/%40evil/vitals")),
        (json!("?x=1&y"), Ok("/v1/%3Fx%3D1%26y/vitals")),
        (json!("#f"), Ok("/v1/%23f/vitals")),
        (json!("../../admin"), Ok("/v1/..%2F..%2Fadmin/vitals")),
        (json!("%2e%2e"), Ok("/v1/%252e%252e/vitals")),
        (json!("\\\r\n\u{1}\u{2}"), Ok("/v1/%5C%0D%0A%01%02/vitals")),
        (json!(7), Ok("/v1/7/vitals")),
        (json!(".."), Err("a segment of the URL's path that comes from data is `.` or `..`")),
        (json!("."), Err("a segment of the URL's path that comes from data is `.` or `..`")),
        (json!(""), Err("a segment of the URL's path that comes from data is empty")),
        (json!(null), Err("`item.id`: a URL needs a value, this is null")),
        (json!([1]), Err("`item.id`: a URL needs one text, number or boolean")),
    ] {
        let found = url("/v1/{{ item.id }}/vitals", value.clone());
        assert_eq!(found.as_deref().map_err(|e| e.as_str()), expected, "{value}");
    }
    assert_eq!(url("{{ item.id }}", json!("http://evil/")).as_deref(), Ok("http%3A%2F%2Fevil%2F"));
    assert!(url("/a/{{ item.id }}{{ item.id }}/b", json!(".")).is_err(), "two dots from two values");
    assert!(url("/a/.{{ item.id }}", json!(".")).is_err(), "a dot of the author and one of data");
    assert_eq!(url("/a?c={{ item.id }}", json!("")).as_deref(), Ok("/a?c="));
    assert_eq!(url("/a?c={{ item.id }}", json!("..")).as_deref(), Ok("/a?c=.."));
    assert_eq!(url("/{% set x %}{{ item.id }}{% endset %}{{ x }}", json!("a/b")).as_deref(), Ok("/a%2Fb"));
    assert_eq!(url("/{% autoescape false %}{{ item.id }}{% endautoescape %}", json!("a/b")).as_deref(), Ok("/a%2Fb"));
    assert_eq!(url("{{ item.id | url }}", json!("http://x/a?b=c")).as_deref(), Ok("http://x/a?b=c"));
    assert!(url("{{ item.id | url }}", json!("http://x/ a")).is_err());
    assert!(url("{{ item.id | url }}", json!("http://x/\r\nHost: y")).is_err());
}

#[test]
fn html_is_escaped() {
    let found = render("<p>{{ item.a }}</p>{{ item.o }}", Flavor::Html, json!({"a": "<script>\"'&", "o": {"x": "<"}}));
    assert_eq!(found.as_deref(), Ok("<p>&lt;script&gt;&quot;&#x27;&amp;</p>{&quot;x&quot;:&quot;&lt;&quot;}"));
    for (name, flavor) in
        [("a.html", Flavor::Html), ("a/b.SVG", Flavor::Html), ("a.txt", Flavor::Text), ("html", Flavor::Text)]
    {
        assert_eq!(Flavor::of_file(name), flavor, "{name}");
    }
}

#[test]
fn a_template_is_checked_when_it_is_compiled() {
    for (text, flavor, message, help, marked) in [
        ("{{ item.id | uper }}", Flavor::Text, "there is no filter `uper`", "did you mean `upper`?", "uper"),
        (
            "{% filter uper %}a{% endfilter %}",
            Flavor::Text,
            "there is no filter `uper`",
            "did you mean `upper`?",
            "uper",
        ),
        ("{{ item.id is numbr }}", Flavor::Text, "there is no test `numbr`", "", "numbr"),
        (
            "{% include 'x' %}",
            Flavor::Text,
            "`include` is not available: a template is one text",
            "put everything into this file",
            "include",
        ),
        (
            "/a/{{ item.id | url }}",
            Flavor::UrlPath,
            "`url` takes a whole URL or path from data and stands alone in its field",
            "write {{ item.href | url }} and nothing else; leave `url` out for a part of a URL",
            "url",
        ),
        (
            "/a/{{ item.id | urlencode }}",
            Flavor::UrlPath,
            "`urlencode` is not for URLs: each value is percent-encoded already",
            "leave it out; `url` alone in a field takes a whole URL as it stands",
            "urlencode",
        ),
        ("{{ secret }}", Flavor::Text, "a secret is used by its name", "write secret.NAME", "secret"),
        ("{{ secret['x'] }}", Flavor::Text, "a secret is used by its name", "write secret.NAME", "secret"),
        ("a\u{1}", Flavor::Text, "a control character cannot stand in a template", "", "\u{1}"),
    ] {
        let error = Template::compile(text, flavor).expect_err(text);
        assert_eq!(error.message, message, "{text}");
        assert_eq!(error.help.as_deref().unwrap_or(""), help, "{text}");
        assert_eq!(error.range.clone().map_or("", |r| &text[r]), marked, "{text}");
    }
    for text in
        ["{{ item.id", "{{ }}", "{% if x %}", "{{ $item.id }}", "{{ .id }}", "{% for x in %}{% endfor %}", "{{ a b }}"]
    {
        let error = Template::compile(text, Flavor::Text).expect_err(text);
        assert!(error.range.is_some(), "{text}: {error:?}");
    }
    assert!(Template::compile(&"{{ (".repeat(100_000), Flavor::Text).is_err());
    assert!(
        Template::compile(&format!("{{{{ {}1{} }}}}", "(".repeat(50_000), ")".repeat(50_000)), Flavor::Text).is_err()
    );
}

#[test]
fn a_template_knows_what_it_uses() {
    let text =
        "{{ item.id }}{% for i in items('vitals') %}{{ i.x }}{% endfor %}{{ secret.b }}{{ secret.a }}{{ range(3) }}";
    let template = Template::compile(text, Flavor::Text).expect("compiles");
    assert_eq!(template.variables(), ["item.id", "items", "secret.a", "secret.b"]);
    assert_eq!(template.secrets_used(), ["a", "b"]);
    assert!(template.uses_group() && !template.is_literal() && template.starts_with_data());
    assert_eq!(template.find("secret.b").map(|range| &text[range]), Some("secret.b"));
    for (text, literal, data, whole) in [
        ("plain", true, false, false),
        ("{# no #}plain", true, false, false),
        ("-{{ a }}", false, false, false),
        ("{{ a }}b", false, true, false),
        ("  {{- a }}b", false, true, false),
        ("{% if a %}-x{% endif %}", false, true, false),
        ("{{ item.href | url }}", false, true, true),
        ("", true, false, false),
    ] {
        let template = Template::compile(text, Flavor::Text).expect(text);
        assert_eq!(
            (template.is_literal(), template.starts_with_data(), template.whole_url()),
            (literal, data, whole),
            "{text}"
        );
    }
}

#[test]
fn a_gather_is_read_row_by_row() {
    let read = Arc::new(AtomicUsize::new(0));
    let facts = Facts { group: Some(Arc::new(Night(read.clone()))), ..facts_of(json!(null)) };
    let run = |text: &str, flavor| {
        Template::compile(text, flavor).expect("compiles").render(&facts).map_err(|e| e.to_string())
    };
    assert_eq!(run("{% for f in failures %}{{ f.key }} {% endfor %}", Flavor::Text).as_deref(), Ok("P1 P2 "));
    assert_eq!(run("{{ counts.vitals.items | thousands }}", Flavor::Text).as_deref(), Ok("4,960"));
    assert_eq!(run("{{ (items | first).name }}", Flavor::Html).as_deref(), Ok("&lt;b&gt;"));
    assert_eq!(run("{% if items %}yes{% endif %}", Flavor::Text).as_deref(), Ok("yes"));
    assert!(read.load(Ordering::Relaxed) < 10, "a million rows are not read ahead");
    assert_eq!(
        run("{% for i in items('vitals') %}{{ i.id }}{% endfor %}", Flavor::Text),
        Err("the store cannot be read".into())
    );
    assert_eq!(
        run("{% for i in items('x') %}{% endfor %}", Flavor::Text),
        Err("the stage `x` is no parent of this gather".into())
    );
    assert_eq!(run("{{ items }}", Flavor::Text), Err("`items`: rows are read in a loop: {% for i in items %}".into()));
}

#[test]
fn output_and_work_are_bounded() {
    let endless = "{% for a in range(100000) %}{% for b in range(100000) %}{{ item.x }}{% endfor %}{% endfor %}";
    let found = render(endless, Flavor::Text, json!({"x": "y".repeat(100_000)})).expect_err("too long");
    assert_eq!(found, "the text is longer than 16777216 bytes");
    let busy = "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}";
    assert_eq!(render(busy, Flavor::Text, json!(1)), Err("the template does too much work".into()));
    let deep = "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}";
    assert!(render(deep, Flavor::Text, json!(1)).is_err());
}

proptest::proptest! {
    #[test]
    fn no_text_makes_a_template_panic(text in "[\\PC\n{}%#|. ]{0,60}") {
        for flavor in [Flavor::Text, Flavor::Html, Flavor::UrlPath] {
            if let Ok(template) = Template::compile(&text, flavor) {
                let _ = template.render(&facts_of(json!({"a": 1})));
            }
        }
    }

    #[test]
    fn a_url_keeps_its_segments(value in "\\PC{0,20}") {
        if let Ok(url) = render("/v1/{{ item }}/x", Flavor::UrlPath, json!(value)) {
            proptest::prop_assert_eq!(url.split('/').count(), 4);
            proptest::prop_assert!(url.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~%/".contains(&b)));
        }
    }
}
