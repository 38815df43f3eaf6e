//! A vendor that lies: real sockets, answers by the byte.
#![allow(clippy::disallowed_methods, reason = "the vendor is no part of the program: it has threads of its own")]

use super::bench::{Ended, Night};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

/// What the vendor does with a request, by its path.
enum Answer {
    /// These bytes; the connection stays open.
    Whole(Vec<u8>),
    /// These bytes and the end.
    Cut(Vec<u8>),
    /// These bytes, then those again and again; with a pause where it drips.
    Endless(Vec<u8>, Vec<u8>, bool),
    /// These bytes, then a reset.
    Reset(Vec<u8>),
    /// Nothing at all.
    Silence,
}

use Answer::{Cut, Endless, Reset, Silence, Whole};

struct Vendor {
    base: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Vendor {
    fn start(answer: fn(&str) -> Answer) -> Vendor {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let seen = requests.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let seen = seen.clone();
                thread::spawn(move || serve(stream, &seen, answer));
            }
        });
        Vendor { base, requests }
    }

    /// Request lines so far.
    fn asked(&self) -> Vec<String> {
        self.requests.lock().expect("requests").clone()
    }
}

fn serve(stream: TcpStream, seen: &Mutex<Vec<String>>, answer: fn(&str) -> Answer) {
    let Ok(mut out) = stream.try_clone() else { return };
    let mut input = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if !matches!(input.read_line(&mut head), Ok(1..)) {
                return;
            }
        }
        seen.lock().expect("requests").push(head.clone());
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let done = match answer(&path) {
            Whole(bytes) => out.write_all(&bytes),
            Cut(bytes) => {
                let _ = out.write_all(&bytes);
                return;
            }
            Endless(first, more, drips) => {
                let (_never, pause) = mpsc::channel::<()>();
                let mut sent = out.write_all(&first);
                while sent.is_ok() {
                    if drips {
                        let _ = pause.recv_timeout(Duration::from_millis(50));
                    }
                    sent = out.write_all(&more);
                }
                sent
            }
            Reset(bytes) => {
                let _ = out.write_all(&bytes);
                // A close that lingers for no time is a reset.
                let _ = rustix::net::sockopt::set_socket_linger(&out, Some(Duration::ZERO));
                return;
            }
            Silence => {
                let _ = input.read(&mut [0; 1]);
                return;
            }
        };
        if done.is_err() {
            return;
        }
    }
}

fn answer(status: &str, headers: &str, body: &[u8]) -> Answer {
    let mut bytes = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    Whole(bytes)
}

fn ok(body: &str) -> Answer {
    answer("200 OK", JSON, body.as_bytes())
}

const JSON: &str = "Content-Type: application/json\r\n";

/// One item for each path or text, keyed by its place; `http` is the action.
fn ask(vendor: &Vendor, texts: &[&str], service: &str, http: &str) -> (Night, Ended) {
    let items: Vec<Value> =
        texts.iter().enumerate().map(|(place, text)| json!({"k": place.to_string(), "p": text})).collect();
    let night = Night::of(&json!(items), &format!("workers: 40, run: [{http}, Write(json: \"{{{{ key }}}}\")]"));
    let text = std::fs::read_to_string(night.jobs().join("night.ron")).expect("a job");
    let retry = r#"Retry(max_attempts: 2, initial_interval: "1ms", max_interval: "2ms")"#;
    let service =
        format!("Service(name: \"v\", base: \"{}\", timeout: \"1500ms\", retry: {retry}, {service})", vendor.base);
    night.file("night.ron", text.replacen("Job(", &format!("Job(deadline: \"20s\", services: [{service}], "), 1));
    let ended = night.run();
    (night, ended)
}

const GET: &str = r#"Http(via: "v", get: "{{ item.p | url }}")"#;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

fn liar(path: &str) -> Answer {
    let head = |more: &str| format!("HTTP/1.1 200 OK\r\n{JSON}{more}\r\n").into_bytes();
    let with = |more: &str, body: &str| [head(more), body.as_bytes().to_vec()].concat();
    let redirect = |to: &str| answer("302 Found", &format!("Location: {to}\r\n"), b"");
    match path {
        "/large-head" => answer("200 OK", &format!("X: {}\r\n", "x".repeat(1_000_000)), b"{}"),
        "/many-heads" => answer("200 OK", &"X: y\r\n".repeat(20_000), b"{}"),
        "/large-body" => Endless(head("Content-Length: 10000000000\r\n"), vec![b' '; 65_536], false),
        "/large-chunks" => {
            let chunk = [b"10000\r\n".to_vec(), vec![b' '; 65_536], b"\r\n".to_vec()].concat();
            Endless(head("Transfer-Encoding: chunked\r\n"), chunk, false)
        }
        "/bomb" => answer("200 OK", &format!("{JSON}Content-Encoding: gzip\r\n"), &gzip(&vec![b' '; 30_000_000])),
        "/no-gzip" => answer("200 OK", &format!("{JSON}Content-Encoding: gzip\r\n"), b"nonsense"),
        "/half-gzip" => {
            let whole = gzip(b"{\"a\": 1}");
            answer("200 OK", &format!("{JSON}Content-Encoding: gzip\r\n"), &whole[..whole.len() - 9])
        }
        "/cut" => Cut(with("Content-Length: 100\r\n", "{\"a\": 1}")),
        "/cut-chunk" => Cut(with("Transfer-Encoding: chunked\r\n", "7\r\n{\"a\":1}\r\n")),
        "/reset" => Reset(Vec::new()),
        "/reset-head" => Reset(b"HTTP/1.1 200 OK\r\nContent-".to_vec()),
        "/reset-body" => Reset(with("Content-Length: 100\r\n", "{\"a\": 1}")),
        "/reset-chunk" => Reset(with("Transfer-Encoding: chunked\r\n", "7\r\n{\"a\":1}\r\n")),
        // Without a length the end of the connection is the end of the body: only a reset tells that it is none.
        "/reset-open" => Reset(with("", "{\"a\":1}")),
        "/bad-chunk" => Cut(with("Transfer-Encoding: chunked\r\n", "zz\r\n{\"a\":1}\r\n0\r\n\r\n")),
        "/two-lengths" => Cut(with("Content-Length: 3\r\nContent-Length: 7\r\n", "{\"a\":1}")),
        "/garbage" => Cut(b"\0\x01nonsense\r\n\r\n".to_vec()),
        "/nothing" => Cut(Vec::new()),
        "/html-as-json" => ok("<html>Log in</html>"),
        "/not-utf8" => answer("200 OK", JSON, b"{\"a\": \"\xff\"}"),
        "/deep" => ok(&("[".repeat(100_000) + &"]".repeat(100_000))),
        "/nan" => ok("{\"a\": NaN}"),
        "/101" => Cut(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n".to_vec()),
        "/999" => answer("999 Odd", JSON, b"{}"),
        "/loop" => redirect("/loop"),
        "/elsewhere" => redirect("http://127.0.0.1:1/x"),
        "/no-scheme" => redirect("//evil.example/x"),
        "/file" => redirect("file:///etc/passwd"),
        "/user" => redirect("http://me@127.0.0.1/"),
        "/drip" => Endless(head("Content-Length: 1000\r\n"), b" ".to_vec(), true),
        "/drip-head" => Endless(b"HTTP/1.1 200 OK\r\n".to_vec(), b"X: y\r\n".to_vec(), true),
        "/continue" => Endless(Vec::new(), b"HTTP/1.1 100 Continue\r\n\r\n".repeat(100), false),
        "/silence" => Silence,
        "/204" => Whole(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()),
        "/204-with-body" => Cut(b"HTTP/1.1 204 No Content\r\nContent-Length: 7\r\n\r\n{\"a\":1}".to_vec()),
        "/html" => answer("200 OK", "Content-Type: text/html\r\n", b"<p>"),
        "/both-lengths" => {
            Cut(with("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "7\r\n{\"a\":1}\r\n0\r\n\r\n"))
        }
        _ => ok("{\"a\": 1}"),
    }
}

/// Faults 61 to 64 and 66: reset, drip, flood, bomb, short, wrong and no JSON at all.
#[test]
fn an_answer_that_lies_is_a_failure_of_its_class_and_never_a_short_success() {
    let vendor = Vendor::start(liar);
    let bad = [
        ("/large-head", "too_large"),
        ("/many-heads", "too_large"),
        ("/large-body", "too_large"),
        ("/large-chunks", "too_large"),
        ("/bomb", "too_large"),
        ("/no-gzip", "decode"),
        ("/half-gzip", "decode"),
        ("/cut", "transport"),
        ("/cut-chunk", "transport"),
        ("/reset", "transport"),
        ("/reset-head", "transport"),
        ("/reset-body", "transport"),
        ("/reset-chunk", "transport"),
        ("/reset-open", "transport"),
        ("/bad-chunk", "transport"),
        ("/two-lengths", "transport"),
        ("/garbage", "transport"),
        ("/nothing", "transport"),
        ("/html-as-json", "decode"),
        ("/not-utf8", "decode"),
        ("/deep", "decode"),
        ("/nan", "decode"),
        ("/101", "http_101"),
        ("/999", "http_999"),
        ("/loop", "redirect"),
        ("/elsewhere", "redirect"),
        ("/no-scheme", "redirect"),
        ("/file", "redirect"),
        ("/user", "redirect"),
        ("/drip", "timeout"),
        ("/drip-head", "timeout"),
        ("/continue", "timeout"),
        ("/silence", "timeout"),
    ];
    let good = ["/fine", "/204", "/204-with-body", "/html", "/both-lengths"];
    let paths: Vec<&str> = bad.iter().map(|(path, _)| *path).chain(good).collect();
    let (night, ended) = ask(&vendor, &paths, "", GET);
    ended.is(1, "failed");
    for (place, (path, class)) in bad.iter().enumerate() {
        let failure = ended.failure(&place.to_string());
        assert!(failure.starts_with(&format!("{class} ")), "{path}: {failure}");
    }
    let values: Vec<String> =
        (bad.len()..paths.len()).map(|place| night.read(&place.to_string()).split_whitespace().collect()).collect();
    assert_eq!(values, ["{\"a\":1}", "null", "null", "\"<p>\"", "{\"a\":1}"]);
}

/// Fault 61: a port that takes no connection any more and refuses none: the kernel drops what comes.
#[test]
fn a_connect_that_is_never_answered_has_its_own_timeout() {
    use rustix::net::{AddressFamily, SocketType, bind, getsockname, listen, socket};
    let full = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    bind(&full, &std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listen(&full, 0).expect("it listens");
    let address = std::net::SocketAddr::try_from(getsockname(&full).expect("an address")).expect("an address");
    // Nobody accepts: with one or two the queue is full.
    let waiting: Vec<_> = (0..4).map(|_| TcpStream::connect_timeout(&address, Duration::from_millis(200))).collect();
    assert!(waiting.iter().any(Result::is_err), "the queue is full");
    let vendor = Vendor { base: format!("http://{address}"), requests: Arc::default() };
    let (_night, ended) = ask(&vendor, &["/x", "/y"], "connect_timeout: \"300ms\",", GET);
    ended.is(1, "failed");
    for key in ["0", "1"] {
        ended.fails(key, "transport GET {{ item.p | url }} failed: no connection to");
    }
}

/// Fault 64: a body that is longer than it says. What comes behind it is not taken for the answer to the next request.
#[test]
fn what_stands_behind_a_body_is_no_answer() {
    let vendor = Vendor::start(|path| match path {
        "/long" => {
            let forged = format!("HTTP/1.1 200 OK\r\n{JSON}Content-Length: 8\r\n\r\n\"forged\"");
            let head = format!("HTTP/1.1 200 OK\r\n{JSON}Content-Length: 7\r\n\r\n");
            Whole(format!("{head}{{\"a\":1}}{forged}{forged}").into_bytes())
        }
        "/longer" => {
            let head = format!("HTTP/1.1 200 OK\r\n{JSON}Content-Length: 7\r\n\r\n");
            Whole(format!("{head}{{\"a\":1}}, and much more of it").into_bytes())
        }
        _ => ok("{\"a\":1}"),
    });
    let paths = ["/long", "/fine", "/fine", "/longer", "/fine", "/long", "/longer", "/fine"];
    let (night, ended) = ask(&vendor, &paths, "max_in_flight: 1,", GET);
    ended.is(0, "succeeded");
    for (place, path) in paths.iter().enumerate() {
        let value: Value = serde_json::from_str(&night.read(&place.to_string())).expect("JSON");
        assert_eq!(value, json!({"a": 1}), "{place}: {path}");
    }
}

/// Fault 66: what a vendor answers is not what it was yesterday. Each is one item's failure with its class, is found in the
/// report, and the others are done.
#[test]
fn an_answer_that_is_not_what_it_was_is_counted_by_class_in_the_report() {
    let vendor = Vendor::start(|path| match path {
        "/patients" => ok(r#"[{"id": "P1"}, {"id": "P2"}, {"id": "P1"}, {"id": ""}, {"name": "x"}, {"id": 7}, "P8",
            {"id": "P3"}, {"id": "P4"}, {"id": "P5"}, {"id": "P6"}, {"id": "P9"}]"#),
        "/v/P1" => ok(r#"{"hr": 60}"#),
        "/v/P2" => ok(r#"{"heart_rate": 60}"#),
        "/v/P3" => ok(r#"{"hr": "sixty"}"#),
        "/v/P4" => ok(r#"{"hr": NaN}"#),
        "/v/P5" => answer("200 OK", "Content-Type: text/html\r\n", b"<html>Please log in</html>"),
        "/v/P6" => ok("<html>Please log in</html>"),
        "/v/P9" => ok(r#"{"hr": 1e999}"#),
        _ => ok(r#"{"hr": 61}"#),
    });
    let retry = r#"Retry(max_attempts: 2, initial_interval: "1ms", max_interval: "2ms")"#;
    let service = format!("Service(name: \"v\", base: \"{}\", retry: {retry})", vendor.base);
    let night = Night::new(&format!(
        r#"Job(services: [{service}], stages: [
            Stage(name: "s", key: "{{{{ item.id }}}}", run: [Http(via: "v", get: "/patients"), Jq(filter: ".[]")]),
            Stage(name: "w", workers: 4, run: [
                Http(via: "v", get: "/v/{{{{ item.id }}}}"),
                Jq(filter: "{{k: $key, hr: (.hr | if type == \"number\" then . else error(\"no heart rate\") end)}}"),
            ]),
            Stage(name: "g", gather: All, run: [
                Jq(filter: "{{hr: ([items] | map({{(.k): .hr}}) | add), missing: ([failures] | group_by(.class) | map({{(.[0].class): map(.key)}}) | add)}}"),
                Write(json: "report.json"),
            ]),
        ])"#
    ));
    let ended = night.run();
    ended.is(1, "failed");
    let report: Value = serde_json::from_str(&night.read("report.json")).expect("JSON");
    assert_eq!(report["hr"], json!({"P1": 60, "7": 61}));
    assert_eq!(
        report["missing"],
        json!({"data": ["#4", "#5", "#7", "P2", "P3", "P5"], "decode": ["P4", "P6", "P9"], "duplicate_key": ["P1"]})
    );
    assert_eq!(ended.record["stages"][0]["classes"], json!({"data": 3, "duplicate_key": 1}));
}

#[test]
fn a_download_is_whole_or_not_there() {
    let vendor = Vendor::start(liar);
    let paths = ["/fine", "/cut", "/cut-chunk", "/large-body", "/large-chunks", "/drip"];
    let get = r#"Http(via: "v", get: "{{ item.p | url }}", to: "files/{{ key }}")"#;
    let (night, ended) = ask(&vendor, &paths, "max_file: \"1MB\",", get);
    ended.is(1, "failed").fails("1", "transport").fails("2", "transport").fails("3", "max_file").fails("4", "max_file");
    assert_eq!(night.outputs(), ["0", "files/0"]);
}

#[test]
fn a_text_from_data_can_change_nothing_but_its_place_in_the_path() {
    let vendor = Vendor::start(|_| ok("{}"));
    let long = "x".repeat(100_000);
    let texts =
        ["//evil", "@evil", "a?b=c", "a#b", "a\r\nX: y", "\0", "é", "%2e%2e", "http://evil/", "..", ".", "", &long];
    let (_night, ended) = ask(&vendor, &texts, "", r#"Http(via: "v", get: "/v1/{{ item.p }}/x")"#);
    ended.is(1, "failed").fails("9", "data GET").fails("10", "data GET").fails("11", "data GET");
    ended.fails("12", "data GET /v1/{{ item.p }}/x: the path with its query has 100006 bytes");
    let mut asked: Vec<String> =
        vendor.asked().iter().map(|head| head.split(' ').nth(1).unwrap_or_default().to_owned()).collect();
    asked.sort();
    let expected = ["%00", "%252e%252e", "%2F%2Fevil", "%40evil", "%C3%A9", "a%0D%0AX%3A%20y", "a%23b", "a%3Fb%3Dc"];
    let mut expected: Vec<String> = expected.map(|part| format!("/v1/{part}/x")).to_vec();
    expected.push("/v1/http%3A%2F%2Fevil%2F/x".into());
    assert_eq!(asked, expected);
}

#[test]
fn a_whole_url_from_data_is_refused_unless_it_is_of_the_service() {
    let vendor = Vendor::start(|_| ok("{}"));
    let user = vendor.base.replace("http://", "http://a@");
    let after = format!("{}@evil/", vendor.base);
    let texts = [
        "//evil/x",
        "@evil",
        ".evil",
        ":80@evil",
        "ok",
        "\\evil",
        "http://evil/",
        "http://127.0.0.1:1/",
        &user,
        &after,
        "https://127.0.0.1/",
        "",
        "javascript:1",
        "file:///etc/passwd",
        "/ok x",
        "/\0",
        "/a/../b",
        "/ok\r\nX: y",
    ];
    let (_night, ended) = ask(&vendor, &texts, "", GET);
    assert_eq!((ended.count("w", "failed"), vendor.asked().len()), (texts.len() as u64, 0), "{}", ended.record);
    assert_eq!(ended.record["stages"][1]["classes"], json!({"data": texts.len()}));
    let good = format!("{}/ok?a=b", vendor.base);
    ask(&vendor, &["/ok", &good], "", GET).1.is(0, "succeeded");
}

#[test]
fn a_line_break_cannot_become_a_header() {
    let vendor = Vendor::start(|_| ok("{}"));
    let texts = ["a\r\nX-Evil: y", "a\nb", "\0", "\u{7f}", "fine"];
    let (_night, ended) = ask(&vendor, &texts, "", r#"Http(via: "v", get: "/x", headers: {"X-A": "{{ item.p }}"})"#);
    assert_eq!((ended.count("w", "failed"), ended.count("w", "ok")), (4, 1));
    ended.fails("0", "data the value of header x-a has a line break or control character");
    let (_night, ended) = ask(&vendor, &texts, "", r#"Http(via: "v", get: "/x", query: {"q": "{{ item.p }}"})"#);
    ended.is(0, "succeeded");
    let long = "x".repeat(70_000);
    let (_night, ended) = ask(&vendor, &[&long], "", r#"Http(via: "v", get: "/x", query: {"q": "{{ item.p }}"})"#);
    ended.is(1, "failed").fails("0", "data GET /x");
    let asked = vendor.asked().concat().to_lowercase();
    assert!(asked.lines().all(|line| !line.starts_with("x-evil")), "{asked}");
}

#[test]
fn pages_without_end_are_an_error_and_never_a_cut() {
    let vendor = Vendor::start(|path| {
        let page = path.split("c=").nth(1).and_then(|page| page.parse().ok()).unwrap_or(0u64);
        match path.split('?').next().unwrap_or_default() {
            "/same" => ok(r#"{"d": [1], "n": "same"}"#),
            "/on" => ok(&format!(r#"{{"d": [1], "n": "{}"}}"#, page + 1)),
            "/object" => ok(r#"{"d": [1], "n": {"a": 1}}"#),
            "/break" => ok(r#"{"d": [1], "n": "a\r\nX: y"}"#),
            "/html" => answer("200 OK", "Content-Type: text/html\r\n", b"<p>"),
            "/link" => answer("200 OK", &format!("{JSON}Link: </link>; rel=\"next\"\r\n"), b"[1]"),
            "/evil" => answer("200 OK", &format!("{JSON}Link: <http://evil/>; rel=\"next\"\r\n"), b"[1]"),
            "/broken" => answer("200 OK", &format!("{JSON}Link: <<>;;; rel=next, x\r\n"), b"[1]"),
            _ => ok(r#"{"d": [1]}"#),
        }
    });
    let cursor = r#"Http(via: "v", get: "{{ item.p | url }}", pages: Cursor(items: ".d", next: ".n", param: "c"), max_pages: 50, into: "x")"#;
    let (_night, ended) = ask(&vendor, &["/same", "/on", "/object", "/break", "/html", "/fine"], "", cursor);
    ended.is(1, "failed").fails("0", "data").fails("0", "the pages have no end").fails("1", "has more than 50 pages");
    ended.fails("2", "data").fails("3", "the pages have no end").fails("4", "data");
    assert_eq!(ended.count("w", "ok"), 1);
    let link = r#"Http(via: "v", get: "{{ item.p | url }}", pages: Link(items: "."), into: "x")"#;
    let (_night, ended) = ask(&vendor, &["/link", "/evil", "/broken"], "", link);
    ended.fails("0", "the pages have no end").fails("1", "another scheme, host or port").fails("2", "data");
    assert!(vendor.asked().concat().lines().all(|line| !line.starts_with("X: y")));
}

#[test]
fn absurd_waits_are_cut_and_nonsense_is_no_wait() {
    // Each says 503 once for each item, then answers.
    static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let vendor = Vendor::start(|path| {
        let mut seen = SEEN.lock().expect("paths");
        if seen.iter().any(|known| known == path) {
            return ok("{}");
        }
        seen.push(path.to_owned());
        let wait = match path {
            "/huge" => "99999999999999999999999999",
            "/long" => "86400",
            "/negative" => "-5",
            "/garbage" => "Foo, 99 Bar",
            "/past" => "Sun, 06 Nov 1994 08:49:37 GMT",
            "/infinite" => "1e400",
            _ => "0",
        };
        answer("503 Busy", &format!("{JSON}Retry-After: {wait}\r\n"), b"{}")
    });
    let paths = ["/huge", "/long", "/negative", "/garbage", "/past", "/infinite", "/zero"];
    let (_night, ended) = ask(&vendor, &paths, "retry_after_max: \"200ms\",", GET);
    ended.is(0, "succeeded");
    // Those with a stated wait used up no attempt.
    assert_eq!(ended.count("w", "attempts"), 12);
}

#[test]
fn a_vendor_that_is_not_there_is_a_transport_failure() {
    for base in ["http://127.0.0.1:1", "http://no-such-host.invalid", "http://[::1]:1"] {
        let vendor = Vendor { base: base.into(), requests: Arc::default() };
        let (_night, ended) = ask(&vendor, &["/x"], "connect_timeout: \"2s\",", GET);
        ended.is(1, "failed").fails("0", "transport GET {{ item.p | url }} failed: no connection to");
    }
    let vendor = Vendor::start(|_| Silence);
    let vendor = Vendor { base: vendor.base.replace("http://", "https://"), requests: Arc::default() };
    let (_night, ended) = ask(&vendor, &["/x"], "connect_timeout: \"300ms\",", GET);
    ended.is(1, "failed").fails("0", "transport");
}

#[test]
fn few_descriptors_make_calls_wait_and_fail_none() {
    let vendor = Vendor::start(|_| ok("{}"));
    let items: Vec<Value> = (0..300).map(|k| json!({"k": k.to_string()})).collect();
    let get = r#"Http(via: "v", get: "/{{ item.k }}")"#;
    let mut night = Night::of(&json!(items), &format!("workers: 100, run: [{get}]"));
    let text = std::fs::read_to_string(night.jobs().join("night.ron")).expect("a job");
    let service = format!("services: [Service(name: \"v\", base: \"{}\")]", vendor.base);
    night.file("night.ron", text.replacen("Job(", &format!("Job({service}, "), 1));
    night.before = "ulimit -n 48".into();
    let ended = night.run();
    ended.is(0, "succeeded");
    assert_eq!(ended.count("w", "ok"), 300);
}

#[test]
fn a_head_request_has_no_body_whatever_is_announced() {
    let vendor = Vendor::start(|path| match path {
        "/lies" => Whole(format!("HTTP/1.1 200 OK\r\n{JSON}Content-Length: 10000000000\r\n\r\n").into_bytes()),
        _ => Whole(format!("HTTP/1.1 200 OK\r\n{JSON}Content-Length: 2\r\n\r\n").into_bytes()),
    });
    let (night, ended) = ask(&vendor, &["/lies", "/fine"], "", r#"Http(via: "v", head: "{{ item.p | url }}")"#);
    ended.is(0, "succeeded");
    assert_eq!((night.read("0").trim(), night.read("1").trim()), ("null", "null"));
}
