//! The whole way of a call: as it is written, checked, run against a server on loopback, and what becomes of the item.

use super::*;
use crate::{
    action::{ActionSpec, Checked, Gives, Handed, Handlers, Leftovers, Outputs, Place},
    flow::Slot,
    item::{Key, Lineage},
    lang::{Checker, RunFacts, Scope, Secret},
    service::{
        self, ServiceSpec,
        tests::{Server, answer, in_world, ok},
    },
};
use serde_json::json;
use std::{collections::BTreeMap, path::Path};

const RETRY: &str =
    "retry: Retry(max_attempts: 3, initial_interval: \"1ms\", max_interval: \"1ms\"), retry_after_max: \"2ms\"";

/// What an item's action gave, and how.
struct Seen {
    end: Result<(), Stop>,
    values: Vec<Value>,
    response: Value,
    attempts: u32,
}

#[derive(Default)]
struct Given(Vec<Value>, Option<Arc<Value>>);

impl Out for Given {
    fn hand(&mut self, value: Arc<Value>) -> Handed<'_> {
        self.0.push(Arc::unwrap_or_clone(value));
        Handed::now(Ok(()))
    }
    fn bad(&mut self, failure: Failure) -> Handed<'_> {
        Handed::now(Err(given_up(failure)))
    }
    fn response(&mut self, head: Arc<Value>) {
        self.1 = Some(head);
    }
}

fn read<T: serde::de::DeserializeOwned>(text: &str) -> T {
    let options = ron::Options::default().with_default_extension(ron::extensions::Extensions::IMPLICIT_SOME);
    options.from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn checked(text: &str) -> Result<Checked, Vec<String>> {
    let mut checker = Checker::new(Path::new("."), Scope::worker(json!({ "vendor": "x" })));
    // As if an action behind it did.
    checker.reads_response().note();
    let (handlers, services) = (Handlers::new(), ["v".to_owned()]);
    let place = Place { gather: false, source: false, after_jq: false, handlers: &handlers, services: &services };
    let checked = crate::action::check(&read::<ActionSpec>(text), "stages[0].run[0]", &place, &mut checker);
    checked.ok_or_else(|| checker.into_findings().into_iter().map(|f| format!("{}: {}", f.path, f.message)).collect())
}

fn action(text: &str) -> Checked {
    checked(text).unwrap_or_else(|problems| panic!("{text}: {problems:?}"))
}

async fn context(world: &World, server: &Server, fields: &str, out: &Path) -> (ItemContext, Facts) {
    let run_facts = Arc::new(RunFacts {
        params: json!({}),
        run: json!({ "night": "2026-11-22" }),
        secrets: BTreeMap::from([("token".to_owned(), Secret::new("canary"))]),
    });
    let spec: ServiceSpec = read(&format!("Service(name: \"v\", base: {:?}, {RETRY}, {fields})", server.url));
    let mut checker = Checker::new(Path::new("."), Scope::service(json!({})));
    let plan = service::check(&spec, "services[0]", &mut checker);
    let plan = plan.unwrap_or_else(|| panic!("{:?}", checker.into_findings()));
    let service = Arc::new(plan.start(world, &run_facts, &SharedLimits::new(world.clone())).expect("starts"));
    let run = Arc::new(RunContext {
        world: world.clone(),
        id: "r1".to_owned(),
        chain: "r1".into(),
        job: "j".to_owned(),
        facts: run_facts.clone(),
        deadline: None,
        grace: Duration::ZERO,
        zone: jiff::tz::TimeZone::UTC,
        journal: crate::action::Journal::new(world.clone(), "r1", "j", false),
        outputs: Outputs::new(world.clone(), out.to_owned(), "r1"),
        base_dir: out.to_owned(),
        services: BTreeMap::from([("v".to_owned(), service)]),
        instance: "i".to_owned(),
        environment: BTreeMap::new(),
        leftovers: Leftovers::new(world.clone(), Duration::ZERO, "run-1"),
        temporary: out.to_owned(),
    });
    let key = Key::parse("P1").expect("a key");
    let item = json!({
        "id": "P 1/2", "day": "a&b=c", "href": format!("{}/from?data=1", server.url), "port": format!("{}1/x", server.url),
        "double": "//evil/x", "meta": "http://169.254.169.254/x", "inject": "/a\r\nX: evil", "climb": "/../evil",
    });
    let facts = Facts::new(Arc::new(item), key.clone(), run_facts);
    let mut cx = ItemContext::new(run, Arc::new(Slot::free(world.clone())), "s".into(), 0);
    (cx.key, cx.lineage) = (Some(key), Lineage::listed(0, 1));
    (cx, facts)
}

/// Runs an action once for one item.
fn run_with(server: &Server, fields: &str, text: &str, out: &Path) -> Seen {
    let checked = action(text);
    in_world(async |world| {
        let (cx, facts) = context(&world, server, fields, out).await;
        let mut given = Given::default();
        let end = checked.action.run(&cx, &facts, &mut given).await;
        let response = given.1.map_or(Value::Null, |head| (*head).clone());
        Seen { end: end.map_err(|stop| *stop), values: given.0, response, attempts: cx.slot.attempts() }
    })
}

fn run(server: &Server, text: &str) -> Seen {
    run_with(server, "", text, Path::new("/nonexistent"))
}

fn failure(seen: &Seen) -> (String, String) {
    match &seen.end {
        Err(Stop::Failed { failure, given_up: true }) => (failure.class.to_string(), failure.message.clone()),
        other => panic!("{other:?}"),
    }
}

fn json_answer(body: &str) -> String {
    answer("200 OK", "content-type: application/json\r\n", body)
}

#[test]
fn values_are_encoded_and_the_body_is_given_decoded() {
    let server = Server::answering(|_, _| json_answer("{\"a\":[1,2]}"));
    let seen = run_with(
        &server,
        "auth: Bearer(\"{{ secret.token }}\"), headers: { \"X-A\": \"1\", \"X-B\": \"2\" }",
        r#"Http(via: "v", get: "/p/{{ item.id }}/x", query: { "date": "{{ item.day }}" }, headers: { "x-b": "{{ key }}" })"#,
        Path::new("."),
    );
    assert_eq!((seen.end, seen.values, seen.attempts), (Ok(()), vec![json!({ "a": [1, 2] })], 1));
    assert_eq!(seen.response["status"], 200);
    let request = server.requests().remove(0);
    assert!(request.starts_with("GET /p/P%201%2F2/x?date=a%26b%3Dc HTTP/1.1\r\n"), "{request}");
    for line in
        ["authorization: Bearer canary", "x-a: 1", "x-b: P1", "accept-encoding: gzip", "user-agent: lamplighter/"]
    {
        assert!(request.contains(line), "{line} in {request}");
    }
    assert!(
        !request.contains("x-b: 2")
            && !request.contains("idempotency-key")
            && !request.contains("lamplighter-deadline")
    );
}

#[test]
fn failures_name_the_path_as_written_and_never_a_value() {
    let server = Server::answering(|_, _| answer("404 Gone", "", "canary"));
    let seen = run(&server, r#"Http(via: "v", get: "/p/{{ item.id }}/x", query: { "q": "{{ item.day }}" })"#);
    let expected = "GET /p/{{ item.id }}/x answered 404".to_owned();
    assert_eq!((failure(&seen), seen.attempts), (("http_404".to_owned(), expected), 1));
    let server = Server::answering(|_, _| answer("503 No", "", ""));
    let seen = run(&server, r#"Http(via: "v", get: "/x")"#);
    assert_eq!((failure(&seen).0.as_str(), seen.attempts, server.requests().len()), ("http_503", 3, 3));
    let server = Server::answering(|_, _| json_answer("{\"secret\": canary"));
    let seen = run(&server, r#"Http(via: "v", get: "/x")"#);
    assert_eq!((failure(&seen).0.as_str(), seen.attempts), ("decode", 3));
    assert!(!failure(&seen).1.contains("canary"));
}

#[test]
fn the_if_fields_are_judged_in_their_order_before_the_status() {
    let serve = |status: &'static str, body: &'static str| {
        Server::answering(move |_, _| answer(status, "content-type: application/json\r\n", body))
    };
    let all = |server: &Server, fields: &str| run(server, &format!("Http(via: \"v\", get: \"/x\", {fields})"));
    let three = r#"empty_if: ".a? == 1", fail_if: ".b? == 1", retry_if: ".c? == 1 or .c? == 2""#;
    assert_eq!(all(&serve("200 OK", r#"{"a":1,"b":1,"c":1}"#), three).end, Err(Stop::Empty));
    let seen = all(&serve("500 No", r#"{"b":1,"c":1}"#), three);
    assert_eq!((failure(&seen).0.as_str(), seen.attempts), ("answer", 1));
    let seen = all(&serve("404 No", r#"{"c":2}"#), three);
    assert_eq!((failure(&seen).0.as_str(), seen.attempts), ("answer", 3));
    assert_eq!(failure(&seen).1, "GET /x answered 404 and retry_if holds");
    let seen = all(&serve("404 No", r#"{"c":3}"#), three);
    assert_eq!(failure(&seen).0, "http_404");
    assert_eq!(all(&serve("404 No", "<broken"), r#"empty_if: "$response.status == 404""#).end, Err(Stop::Empty));
    assert_eq!(
        all(&serve("200 OK", "<broken"), r#"empty_if: ". == null""#).end,
        Err(Stop::Empty),
        "null where it does not decode"
    );
    let seen = all(&serve("200 OK", "[1]"), r#"fail_if: ".status == 1""#);
    assert_eq!(failure(&seen).0, "data", "a filter that fails");
}

#[test]
fn pages_are_read_to_the_last_one() {
    let server = Server::answering(|number, request| match number {
        1 => {
            assert!(request.starts_with("GET /p?limit=2 "));
            json_answer(r#"{"data":[1,2],"next":"a b&"}"#)
        }
        2 => {
            assert!(request.starts_with("GET /p?limit=2&cursor=a%20b%26 "));
            answer("500 No", "", "")
        }
        3 => json_answer(r#"{"data":[],"next":7}"#),
        4 => {
            assert!(request.starts_with("GET /p?limit=2&cursor=7 "));
            json_answer(r#"{"data":{"x":3},"next":""}"#)
        }
        _ => unreachable!(),
    });
    let text = r#"Http(via: "v", get: "/p", query: { "limit": "2" }, pages: Cursor(items: ".data", next: ".next", param: "cursor"))"#;
    let seen = run(&server, text);
    assert_eq!((seen.end, seen.values, seen.attempts), (Ok(()), vec![json!(1), json!(2), json!({ "x": 3 })], 2));
    assert_eq!(action(text).gives, Gives::Values);
}

#[test]
fn the_other_kinds_of_pages_end_too() {
    let server = Server::answering(|number, request| match number {
        1 => answer("200 OK", "content-type: application/json\r\nlink: <?page=2>; rel=\"next\"\r\n", "[1]"),
        _ => {
            assert!(request.starts_with("GET /p?page=2 "), "{request}");
            json_answer("[2,3]")
        }
    });
    let seen = run(&server, r#"Http(via: "v", get: "/p", query: { "x": "1" }, pages: Link(items: "."))"#);
    assert_eq!(seen.values, vec![json!(1), json!(2), json!(3)]);
    let server = Server::answering(|_, _| {
        answer("200 OK", "content-type: application/json\r\nlink: <http://127.0.0.1:9/>; rel=next\r\n", "[1]")
    });
    assert_eq!(
        failure(&run(&server, r#"Http(via: "v", get: "/p", pages: Link(items: "."))"#)).0,
        "data",
        "another origin"
    );
    let server = Server::answering(|number, request| {
        assert_eq!(request.contains("pageToken"), number > 1);
        assert!(request.starts_with("POST /p "));
        json_answer(if number == 1 { r#"{"points":[1],"nextPageToken":"t"}"# } else { r#"{"points":[2]}"# })
    });
    let pages = r#"pages: BodyToken(items: ".points", next: ".nextPageToken", field: "pageToken")"#;
    let seen = run(&server, &format!("Http(via: \"v\", post: \"/p\", body: Json, {pages})"));
    assert_eq!(seen.values, vec![json!(1), json!(2)]);
    let key =
        |request: &str| request.lines().find_map(|line| line.strip_prefix("idempotency-key: ").map(str::to_owned));
    let requests = server.requests();
    assert!(key(&requests[0]).is_some() && key(&requests[0]) != key(&requests[1]), "another page is another request");
    let server = Server::answering(|number, request| {
        assert_eq!(request.starts_with("GET /p?offset=2 "), number == 2);
        json_answer(if number == 1 { "[1,2]" } else { "[3]" })
    });
    let seen = run(&server, r#"Http(via: "v", get: "/p", pages: Offset(items: ".", param: "offset", size: 2))"#);
    assert_eq!(seen.values, vec![json!(1), json!(2), json!(3)]);
}

#[test]
fn pages_without_end_are_an_error_never_a_cut() {
    let pages = r#"pages: Cursor(items: ".d", next: ".n", param: "c")"#;
    let server = Server::answering(|number, _| json_answer(&format!(r#"{{"d":[1],"n":"{}"}}"#, number % 2)));
    let seen = run(&server, &format!("Http(via: \"v\", get: \"/p\", {pages})"));
    assert_eq!((failure(&seen).0.as_str(), server.requests().len()), ("data", 3));
    let server = Server::answering(|number, _| json_answer(&format!(r#"{{"d":[1],"n":{number}}}"#)));
    let seen = run(&server, &format!("Http(via: \"v\", get: \"/p\", max_pages: 4, {pages})"));
    assert_eq!((failure(&seen).0.as_str(), server.requests().len()), ("too_large", 4));
    let server = Server::answering(|_, _| json_answer(r#"{"d":[1],"n":{"x":1}}"#));
    assert_eq!(failure(&run(&server, &format!("Http(via: \"v\", get: \"/p\", {pages})"))).0, "data");
}

#[test]
fn a_post_carries_its_key_through_all_attempts_and_a_conflict_is_named() {
    let server =
        Server::answering(|number, _| if number == 1 { answer("500 No", "", "") } else { answer("409 Seen", "", "") });
    let seen = run(&server, r#"Http(via: "v", post: "/acks", body: Form({ "a b": "{{ item.day }}" }))"#);
    assert_eq!((failure(&seen).0.as_str(), seen.attempts), ("conflict", 2));
    let requests = server.requests();
    let key = |request: &str| request.lines().find(|line| line.starts_with("idempotency-key: ")).map(str::to_owned);
    assert!(key(&requests[0]).is_some_and(|k| k.len() == 17 + 32) && key(&requests[0]) == key(&requests[1]));
    assert!(requests[0].ends_with("\r\n\r\na%20b=a%26b%3Dc"), "{}", requests[0]);
    assert!(requests[0].contains("content-type: application/x-www-form-urlencoded"));
    let server = Server::answering(|_, _| answer("204 Done", "", ""));
    let text = r#"Http(via: "v", post: "/acks", body: Text("{{ key }}"), headers: { "Idempotency-Key": "mine" })"#;
    assert_eq!(run(&server, text).values, vec![Value::Null]);
    assert!(server.requests()[0].contains("idempotency-key: mine\r\n") && server.requests()[0].ends_with("\r\n\r\nP1"));
}

#[test]
fn a_url_from_data_is_followed_within_its_service_only() {
    let server = Server::answering(|_, _| ok("hello"));
    let seen = run(&server, r#"Http(via: "v", get: "{{ item.href | url }}")"#);
    assert_eq!(seen.values, vec![json!("hello")]);
    assert!(server.requests()[0].starts_with("GET /from?data=1 "));
    for name in ["double", "meta", "inject", "climb", "port"] {
        let seen = run(&server, &format!("Http(via: \"v\", get: \"{{{{ item.{name} | url }}}}\")"));
        assert_eq!(failure(&seen).0, "data", "{name}");
        assert!(!failure(&seen).1.contains("evil"), "no value in a message");
    }
    assert_eq!(server.requests().len(), 1);
    let seen = run(&server, r#"Http(via: "v", get: "/a/{{ '..' }}/b")"#);
    assert_eq!(failure(&seen).0, "data", "a value that climbs");
    let seen = run(&server, r#"Http(via: "v", get: "/a", headers: { "x": "{{ 'a\r\nEvil: 1' }}" })"#);
    assert_eq!(failure(&seen).0, "data", "a value that begins another header");
}

#[test]
fn a_call_without_a_service_keeps_its_connection_within_a_run() {
    let server = Server::answering(|_, _| json_answer("1"));
    let checked = action(&format!("Http(get: \"{}/x/{{{{ key }}}}\")", server.url));
    in_world(async |world| {
        let (cx, facts) = context(&world, &server, "", Path::new(".")).await;
        for _ in 0..3 {
            checked.action.run(&cx, &facts, &mut Given::default()).await.expect("answers");
        }
    });
    assert!(server.requests().iter().all(|request| request.starts_with("GET /x/P1 ")));
    assert_eq!(server.connections(), 1);
}

#[test]
fn a_download_is_whole_or_absent() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::answering(|number, _| match number {
        1 => answer("500 No", "", "broken"),
        2 => ok("first"),
        _ => ok("hello"),
    });
    let sha = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    let text = format!(
        r#"Http(via: "v", get: "/f", to: "{{{{ run.night }}}}/f.txt", retry_if: "$response.sha256 != \"{sha}\"")"#
    );
    let seen = run_with(&server, "", &text, folder.path());
    assert_eq!((seen.end, seen.attempts), (Ok(()), 3));
    assert_eq!(seen.values, vec![json!({ "path": "2026-11-22/f.txt", "size": 5, "sha256": sha })]);
    let written = std::fs::read_dir(folder.path().join("2026-11-22")).expect("a folder").count();
    assert_eq!(
        (written, std::fs::read(folder.path().join("2026-11-22/f.txt")).expect("a file")),
        (1, b"hello".to_vec())
    );
    assert!(action(&text).writes);
    let server = Server::answering(|_, _| ok(&"x".repeat(3000)));
    let seen = run_with(&server, "max_file: \"2KB\"", r#"Http(via: "v", get: "/f", to: "big")"#, folder.path());
    assert_eq!(failure(&seen).0, "too_large");
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1, "nothing is left of it");
}

#[test]
fn a_deadline_goes_down_as_a_header() {
    let server = Server::answering(|_, _| ok("x"));
    let checked = action(r#"Http(via: "v", get: "/x")"#);
    in_world(async |world| {
        let (cx, facts) = context(&world, &server, "", Path::new(".")).await;
        cx.slot.begin_item(Some(world.boot() + Duration::from_secs(60)), 0);
        checked.action.run(&cx, &facts, &mut Given::default()).await.expect("answers");
        let request = server.requests().remove(0);
        let line = request.lines().find_map(|line| line.strip_prefix("lamplighter-deadline: ")).expect("the header");
        let left = line.parse::<jiff::Timestamp>().expect("RFC 3339").duration_since(world.wall()).as_secs();
        assert!((50..=60).contains(&left), "{line}");
    });
}

#[test]
fn a_dry_run_shows_the_call() {
    let checked =
        action(r#"Http(via: "v", post: "/p/{{ item.id }}", query: { "t": "{{ secret.token }}" }, body: Json)"#);
    in_world(async |world| {
        let server = Server::answering(|_, _| ok("x"));
        let (_, mut facts) = context(&world, &server, "", Path::new(".")).await;
        let secrets = BTreeMap::from([("token".to_owned(), Secret::new("***"))]);
        facts.run = Arc::new(RunFacts { params: json!({}), run: json!({}), secrets });
        assert_eq!(checked.action.preview(&facts), Some(Ok("POST /p/P%201%2F2?t=%2A%2A%2A via v".to_owned())));
    });
}

#[test]
fn what_is_wrong_is_said_where_it_stands() {
    for (fields, at) in [
        (r#"via: "v""#, "stages[0].run[0]:"),
        (r#"via: "v", get: "/x", post: "/x""#, "stages[0].run[0]:"),
        (r#"via: "w", get: "/x""#, "stages[0].run[0].via"),
        (r#"get: "/x""#, "stages[0].run[0].get"),
        (r#"get: "http://{{ item.host }}/x""#, "stages[0].run[0].get"),
        (r#"get: "http://""#, "stages[0].run[0].get"),
        (r#"get: "http://ä""#, "stages[0].run[0].get"),
        (r#"get: "https://h@evil/x""#, "stages[0].run[0].get"),
        (r#"via: "v", get: "http://h/x""#, "stages[0].run[0].get"),
        (r#"via: "v", get: "/a b""#, "stages[0].run[0].get"),
        (r#"via: "v", get: "/x", body: Json"#, "stages[0].run[0].body"),
        (r#"via: "v", get: "/x", timeout: "0s""#, "stages[0].run[0].timeout"),
        (r#"via: "v", get: "/x", max_pages: 5"#, "stages[0].run[0].max_pages"),
        (r#"via: "v", get: "/x", headers: { "Host": "evil" }"#, "stages[0].run[0].headers"),
        (r#"via: "v", get: "/x", headers: { "a b": "c" }"#, "stages[0].run[0].headers"),
        (
            r#"via: "v", get: "/x", query: { "c": "1" }, pages: Cursor(items: ".", next: ".n", param: "c")"#,
            "stages[0].run[0].pages",
        ),
        (r#"via: "v", get: "/x", pages: BodyToken(items: ".", next: ".n", field: "c")"#, "stages[0].run[0].pages"),
        (r#"via: "v", get: "/x", pages: Link(items: "."), to: "f""#, "stages[0].run[0].to"),
        (r#"via: "v", get: "/x", retry_if: ".a ==""#, "stages[0].run[0].retry_if"),
        (r#"via: "v", get: "/x", pages: Link(items: ".a |")"#, "stages[0].run[0].pages.items"),
    ] {
        let problems = checked(&format!("Http({fields})")).err().unwrap_or_default();
        assert!(problems.len() == 1 && problems[0].starts_with(at), "{fields}: {problems:?}");
    }
}

#[test]
fn a_head_that_nobody_reads_is_not_made() {
    let server = Server::answering(|_, _| ok("hello"));
    let mut checker = Checker::new(Path::new("."), Scope::worker(json!({})));
    let (handlers, services) = (Handlers::new(), ["v".to_owned()]);
    let place = Place { gather: false, source: false, after_jq: false, handlers: &handlers, services: &services };
    let spec = read::<ActionSpec>(r#"Http(via: "v", get: "/f")"#);
    let checked = crate::action::check(&spec, "stages[0].run[0]", &place, &mut checker).expect("an action");
    in_world(async |world| {
        let (cx, facts) = context(&world, &server, "", Path::new("/nonexistent")).await;
        let mut given = Given::default();
        checked.action.run(&cx, &facts, &mut given).await.expect("answered");
        assert_eq!((given.0.len(), given.1), (1, None));
        // An action that is checked after it reads the head.
        checker.filter("stages[0].run[1]", "$response.sha256").expect("a filter");
        let mut given = Given::default();
        checked.action.run(&cx, &facts, &mut given).await.expect("answered");
        assert!(given.1.expect("a head")["sha256"].as_str().is_some_and(|hash| hash.starts_with("2cf24dba")));
    });
}
