//! The simulated vendor over real loopback sockets, asked by a raw client that sees what is really sent.

use std::{future::Future, io, io::Read, net::SocketAddr, sync::Arc, time::Duration};

use async_executor::Executor;
use futures_lite::{AsyncReadExt, AsyncWriteExt, future};
use serde_json::{Value, json};
use smol::net::TcpStream;

use super::{
    Faults, Options, bind,
    decide::{Fault, MODEL_ATTEMPTS, PatientClass, Script, patient_id},
};

const NIGHT: &str = "2026-11-22";
const SCRIPT: Script = Script { seed: 2026, faults: true };

/// What came back: status, head, body as text, and how the connection ended if it did.
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
    end: io::Result<()>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("it is well formed")
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// Runs a vendor beside the test's future.
fn with_vendor<F: Future<Output = ()>>(options: Options, test: impl FnOnce(SocketAddr) -> F) {
    let executor = Arc::new(Executor::new());
    smol::block_on(executor.run(async {
        let server = bind(executor.clone(), options).await.expect("it answers");
        let address = server.address();
        future::or(async { match server.run().await {} }, test(address)).await;
    }));
}

fn options() -> Options {
    Options { listen: ([127, 0, 0, 1], 0).into(), patients: 5000, time_scale: 0.0, ..Options::default() }
}

async fn send(address: SocketAddr, method: &str, target: &str, headers: &str, body: &str) -> Answer {
    try_send(address, method, target, headers, body).await.expect("it answers")
}

async fn try_send(address: SocketAddr, method: &str, target: &str, headers: &str, body: &str) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(address).await?;
    let length = body.len();
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: sim\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut bytes = Vec::new();
    let end = stream.read_to_end(&mut bytes).await.map(drop);
    let split = bytes.windows(4).position(|window| window == b"\r\n\r\n").map_or(bytes.len(), |at| at + 4);
    let head = String::from_utf8(bytes[..split].to_vec()).expect("it is well formed");
    let status = head.get(9..12).map_or(0, |status| status.parse().expect("it is well formed"));
    Ok(Answer { status, head, body: bytes[split..].to_vec(), end })
}

async fn get(address: SocketAddr, target: &str) -> Answer {
    send(address, "GET", target, "Authorization: Bearer demo-token\r\n", "").await
}

async fn vitals(address: SocketAddr, id: &str) -> Answer {
    get(address, &format!("/v1/patients/{id}/vitals?date={NIGHT}")).await
}

/// The first patient whose first attempt meets this fault, with one page.
fn patient_with(fault: Fault) -> String {
    let meets = |id: &String| SCRIPT.class(id).is_none() && SCRIPT.fault(id, NIGHT, 1, 1) == Some(fault);
    let calm = |id: &String| SCRIPT.fault(id, NIGHT, 1, 2).is_none() && SCRIPT.pages(id, NIGHT) == 1;
    (1..=5000).map(patient_id).find(|id| meets(id) && calm(id)).expect("there is one")
}

#[test]
fn without_its_token_nothing_is_told() {
    with_vendor(options(), |address| async move {
        for headers in ["", "Authorization: Bearer wrong\r\n", "Authorization: demo-token\r\n"] {
            let answer = send(address, "GET", "/v1/patients", headers, "").await;
            assert_eq!((answer.status, answer.json()), (401, json!({"error": "token_expired"})));
        }
        assert_eq!(get(address, "/_sim/stats").await.json()["by_status"], json!({"401": 3}));
    });
}

#[test]
fn the_list_has_every_patient_once_and_a_validator() {
    with_vendor(Options { patients: 1203, ..options() }, |address| async move {
        let (mut ids, mut target) = (Vec::new(), "/v1/patients".to_owned());
        loop {
            let page = get(address, &target).await.json();
            ids.extend(
                page["data"]
                    .as_array()
                    .expect("a list")
                    .iter()
                    .map(|row| row["id"].as_str().expect("a text").to_owned()),
            );
            let Some(cursor) = page["next_cursor"].as_str() else { break };
            target = format!("/v1/patients?cursor={cursor}");
        }
        assert_eq!(ids, (1..=1203).map(patient_id).collect::<Vec<_>>());
        let tag = get(address, "/v1/patients?limit=2").await.header("ETag").expect("the header").to_owned();
        let headers = format!("Authorization: Bearer demo-token\r\nIf-None-Match: \"x\", {tag}\r\n");
        let known = send(address, "GET", "/v1/patients?limit=2", &headers, "").await;
        assert_eq!((known.status, known.body.len(), known.header("ETag")), (304, 0, Some(tag.as_str())));
        assert_eq!(send(address, "GET", "/v1/patients?limit=3", &headers, "").await.status, 200);
        for target in ["/v1/patients?cursor=o9999", "/v1/patients?cursor=x", "/v1/patients?limit=0"] {
            assert_eq!(get(address, target).await.status, 400, "{target}");
        }
    });
}

#[test]
fn who_is_not_there_and_what_is_not_asked_well_is_said() {
    with_vendor(options(), |address| async move {
        let gone = (1..).map(patient_id).find(|id| SCRIPT.class(id) == Some(PatientClass::Gone)).expect("there is one");
        let revoked =
            (1..).map(patient_id).find(|id| SCRIPT.class(id) == Some(PatientClass::Revoked)).expect("there is one");
        assert_eq!(vitals(address, "P99999").await.status, 404);
        assert_eq!(vitals(address, &gone).await.status, 404);
        assert_eq!(vitals(address, &revoked).await.status, 403);
        assert_eq!(get(address, "/v1/patients/P00001/vitals").await.status, 400);
        assert_eq!(get(address, "/v1/patients/P00001/vitals?date=2026-13-01").await.status, 400);
        assert_eq!(get(address, "/v1/patients/P00001/vitals?date=2026-11-22&cursor=p9").await.status, 400);
        assert_eq!(get(address, "/v1/nothing").await.status, 404);
        assert_eq!(get(address, "/v1/acks").await.header("Allow"), Some("POST"));
    });
}

#[test]
fn an_acknowledgement_counts_once() {
    with_vendor(options(), |address| async move {
        let ack = |key: &str, body: &'static str| {
            let headers = format!("Authorization: Bearer demo-token\r\n{key}");
            async move { send(address, "POST", "/v1/acks", &headers, body).await }
        };
        let (key, body) = ("Idempotency-Key: run/P00001\r\n", r#"{"patient":"P00001","date":"2026-11-22"}"#);
        assert_eq!(ack("", body).await.status, 400);
        assert_eq!(ack(key, body).await.status, 201);
        let again = ack(key, body).await;
        assert_eq!((again.status, again.header("Idempotency-Replayed")), (200, Some("true")));
        assert_eq!(ack(key, "{}").await.status, 409);
        assert_eq!(ack("Idempotency-Key: other\r\n", body).await.status, 201);
        let stats = get(address, "/_sim/stats").await.json();
        let counts = json!({"first": 2, "replayed": 1, "conflicting": 1, "refused": 0, "doubled": 1});
        assert_eq!(stats["acks"], counts);
        let of_night = get(address, "/_sim/acks?date=2026-11-22").await.json();
        let seen = |times| json!({"patient": "P00001", "times": times});
        assert_eq!(of_night, json!({"run/P00001": seen(2), "other": seen(1)}));
        assert_eq!(get(address, "/_sim/acks").await.status, 400);
    });
}

#[test]
fn over_the_rate_a_client_is_told_to_wait() {
    // A bucket that does not fill again while the test runs.
    with_vendor(Options { rate: Some(0.001), ..options() }, |address| async move {
        assert_eq!(get(address, "/v1/patients?limit=1").await.status, 200);
        let second = vitals(address, "P00001").await;
        assert_eq!((second.status, second.header("Retry-After")), (429, Some("1")));
        assert_eq!(get(address, "/_sim/stats").await.json()["attempts"], json!({}), "it is no attempt");
    });
}

#[test]
fn broken_answers_are_broken_on_the_wire_and_whole_the_next_time() {
    with_vendor(options(), |address| async move {
        let reset = vitals(address, &patient_with(Fault::Reset)).await;
        assert_eq!((reset.end.unwrap_err().kind(), reset.head.len()), (io::ErrorKind::ConnectionReset, 0));

        let half = vitals(address, &patient_with(Fault::ResetMidBody)).await;
        assert_eq!((half.end.as_ref().unwrap_err().kind(), half.status), (io::ErrorKind::ConnectionReset, 200));
        let promised: usize = half.header("Content-Length").expect("the header").parse().expect("it is well formed");
        assert_eq!(half.body.len(), promised / 2);

        let short = vitals(address, &patient_with(Fault::ShortBody)).await;
        let promised: usize = short.header("Content-Length").expect("the header").parse().expect("it is well formed");
        assert!(short.end.is_ok());
        assert_eq!(short.body.len() + 500, promised);

        let cut = vitals(address, &patient_with(Fault::BadJson)).await;
        assert_eq!(cut.header("Content-Length"), Some(cut.body.len().to_string().as_str()));
        assert!(serde_json::from_slice::<Value>(&cut.body).is_err());

        for fault in [Fault::Reset, Fault::ResetMidBody, Fault::ShortBody, Fault::BadJson] {
            let id = patient_with(fault);
            let second = vitals(address, &id).await;
            assert_eq!((second.status, second.json()["patient"].as_str()), (200, Some(id.as_str())), "{fault:?}");
        }
        assert_eq!(vitals(address, &patient_with(Fault::Drip)).await.json()["date"], NIGHT);
    });
}

/// Asks for a whole night as a client with four counted attempts a page does. True: every page has come.
async fn reach(address: SocketAddr, id: &str) -> bool {
    let mut cursor = String::new();
    loop {
        let mut target = format!("/v1/patients/{id}/vitals?date={NIGHT}&cursor={cursor}");
        let mut counted = 0;
        let page = loop {
            let answer = get(address, &target).await;
            let length = answer.header("Content-Length").and_then(|length| length.parse().ok());
            let body: Option<Value> = serde_json::from_slice(&answer.body).ok();
            match (answer.status, body) {
                (307, _) => target = answer.header("Location").expect("the header").to_owned(),
                (403 | 404, _) => return false,
                (429, _) => {}
                (503, _) if answer.header("Retry-After").is_some() => {}
                (200, Some(body)) if length == Some(answer.body.len()) && body.get("status").is_none() => break body,
                _ => counted += 1,
            }
            if counted == MODEL_ATTEMPTS {
                return false;
            }
        };
        match page["next_cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => return true,
        }
    }
}

#[test]
fn a_night_ends_as_the_truth_says() {
    // The first who fail are among these; who hangs is left out, as this client never gives up.
    let patients = 600;
    with_vendor(Options { patients, ..options() }, |address| async move {
        let hangs = |id: &String| {
            SCRIPT.class(id) == Some(PatientClass::Hang) || SCRIPT.fault(id, NIGHT, 1, 1) == Some(Fault::Hang)
        };
        let expected = SCRIPT.expected(NIGHT, patients, MODEL_ATTEMPTS);
        let mut failed = Vec::new();
        for id in (1..=patients).map(patient_id).filter(|id| !hangs(id)) {
            if !reach(address, &id).await {
                failed.push(id);
            }
        }
        let failing: Vec<String> = expected.failed.into_iter().filter(|id| !hangs(id)).collect();
        assert_eq!(failed, failing);
        assert!(failed.len() >= 3);
    });
}

#[test]
fn stated_waits_and_disguised_errors_come_as_described() {
    with_vendor(options(), |address| async move {
        let seconds = vitals(address, &patient_with(Fault::TooManySeconds)).await;
        assert!(
            (1..=3).contains(&seconds.header("Retry-After").expect("the header").parse().expect("it is well formed"))
        );
        let date = vitals(address, &patient_with(Fault::TooManyDate)).await;
        assert_eq!((date.status, date.header("Retry-After").expect("the header").ends_with(" GMT")), (429, true));
        let bare = vitals(address, &patient_with(Fault::TooManyBare)).await;
        assert_eq!((bare.header("RateLimit-Reset"), bare.header("Retry-After")), (Some("2"), None));
        let html = vitals(address, &patient_with(Fault::BadGateway)).await;
        assert_eq!((html.status, html.header("Content-Type")), (502, Some("text/html")));
        let disguised = vitals(address, &patient_with(Fault::ErrorBody)).await;
        assert_eq!((disguised.status, &disguised.json()["status"]), (200, &json!(601)));
        let moved = vitals(address, &patient_with(Fault::Redirect)).await;
        let there = get(address, moved.header("Location").expect("the header")).await;
        assert_eq!((moved.status, there.status), (307, 200));
        assert_eq!(get(address, "/_sim/stats").await.json()["attempts"][&patient_with(Fault::Redirect)], 1);
    });
}

#[test]
fn a_huge_body_is_chunked_and_far_too_long() {
    with_vendor(options(), |address| async move {
        let id = (1..).map(patient_id).find(|id| SCRIPT.class(id) == Some(PatientClass::Huge)).expect("there is one");
        let mut stream = TcpStream::connect(address).await.expect("it answers");
        let request =
            format!("GET /v1/patients/{id}/vitals?date={NIGHT} HTTP/1.1\r\nAuthorization: Bearer demo-token\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("it answers");
        let mut bytes = vec![0; 4 << 20];
        stream.read_exact(&mut bytes).await.expect("it answers");
        let head = String::from_utf8_lossy(&bytes[..400]).into_owned();
        assert!(head.contains("Transfer-Encoding: chunked\r\n\r\n4000\r\n{\"heart_rate\":"), "{head}");
    });
}

#[test]
fn one_connection_carries_many_requests_even_sent_at_once() {
    with_vendor(options(), |address| async move {
        let mut stream = TcpStream::connect(address).await.expect("it answers");
        let one = "GET /v1/patients?limit=1 HTTP/1.1\r\nAuthorization: Bearer demo-token\r\n\r\n";
        let last = "GET /v1/patients?limit=1 HTTP/1.1\r\nConnection: close\r\n\r\n";
        stream.write_all(format!("{one}{one}{last}").as_bytes()).await.expect("it answers");
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("it answers");
        assert_eq!((text.matches("200 OK").count(), text.matches("401 Unauthorized").count()), (2, 1));
        stream = TcpStream::connect(address).await.expect("it answers");
        stream.write_all(b"POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\nxxxx").await.expect("it answers");
        text.clear();
        stream.read_to_string(&mut text).await.expect("it answers");
        assert!(text.starts_with("HTTP/1.1 413 "), "{text}");
    });
}

#[test]
fn gzip_holds_the_same_body() {
    with_vendor(Options { faults: Faults::Off, ..options() }, |address| async move {
        let plain = vitals(address, "P00003").await;
        let headers = "Authorization: Bearer demo-token\r\nAccept-Encoding: gzip\r\n";
        let target = format!("/v1/patients/P00003/vitals?date={NIGHT}");
        let packed = send(address, "GET", &target, headers, "").await;
        assert_eq!(packed.header("Content-Encoding"), Some("gzip"));
        assert!(packed.body.len() < plain.body.len() / 2);
        let mut body = Vec::new();
        flate2::read::GzDecoder::new(packed.body.as_slice()).read_to_end(&mut body).expect("it is packed");
        assert!(body == plain.body);
    });
}

#[test]
fn tokens_are_got_rotated_and_wanted() {
    with_vendor(Options { oauth: true, ..options() }, |address| async move {
        assert_eq!(get(address, "/v1/patients").await.status, 401, "the static token is no good");
        let token = |form: String| async move { send(address, "POST", "/oauth/token", "", &form).await };
        let grant = token("grant_type=client_credentials&client_id=x".into()).await.json();
        let headers = format!("Authorization: Bearer {}\r\n", grant["access_token"].as_str().expect("a text"));
        assert_eq!(send(address, "GET", "/v1/patients?limit=1", &headers, "").await.status, 200);
        let refresh =
            format!("grant_type=refresh_token&refresh_token={}", grant["refresh_token"].as_str().expect("a text"));
        assert_eq!(token(refresh.clone()).await.status, 200);
        let again = token(refresh).await;
        assert_eq!((again.status, again.json()), (400, json!({"error": "invalid_grant"})));
        assert_eq!(token("grant_type=password".into()).await.status, 400);
        for _ in 5..50 {
            token(String::new()).await;
        }
        let proxy = token("grant_type=client_credentials".into()).await;
        assert_eq!((proxy.status, proxy.header("Content-Type")), (200, Some("text/html")));
    });
}

#[test]
fn an_export_is_announced_then_ready() {
    with_vendor(Options { patients: 1001, ..options() }, |address| async move {
        let headers = "Authorization: Bearer demo-token\r\n";
        let started = send(address, "POST", "/v1/exports", headers, "{}").await;
        assert_eq!(started.status, 202);
        let files = get(address, started.header("Content-Location").expect("the header")).await.json()["files"].clone();
        assert_eq!((&files[0]["count"], &files[1]["count"]), (&json!(1000), &json!(1)));
        let last = get(address, files[1]["url"].as_str().expect("a text")).await;
        assert_eq!(last.json()["id"], "P01001");
        assert_eq!(get(address, "/v1/exports/1/patients-3.ndjson").await.status, 404);
        assert_eq!(get(address, "/v1/exports/2").await.status, 404);
    });
}

#[test]
fn statistics_are_given_or_fail_as_told() {
    let target = "/v1/statistics?date=2026-11-22";
    with_vendor(options(), |address| async move {
        let figures = get(address, target).await.json();
        assert_eq!((&figures["patients"], &figures["date"]), (&json!(5000), &json!(NIGHT)));
        assert!((60.0..65.0).contains(&figures["hr_median"].as_f64().expect("a number")));
    });
    with_vendor(Options { faults: Faults::Stats, ..options() }, |address| async move {
        assert_eq!(get(address, target).await.status, 500);
    });
}

#[test]
fn an_outage_does_what_it_says_and_ends() {
    with_vendor(options(), |address| async move {
        let outage = |mode: &str, for_s: f64| {
            let order = json!({ "for_s": for_s, "mode": mode }).to_string();
            async move { send(address, "POST", "/_sim/outage", "", &order).await.status }
        };
        assert_eq!(outage("503", 3600.0).await, 200);
        assert_eq!(get(address, "/v1/patients").await.status, 503);
        assert_eq!(outage("reset", 3600.0).await, 200);
        assert!(get(address, "/v1/patients").await.end.is_err());
        assert_eq!(outage("reset", 0.0).await, 200);
        assert_eq!(get(address, "/v1/patients").await.status, 200);
        assert_eq!((outage("sleep", 1.0).await, outage("503", -1.0).await), (400, 400));
        // No clock is looked at: the socket closes soon, and is back soon after a short refusal.
        assert_eq!(outage("refuse", 3600.0).await, 200);
        while TcpStream::connect(address).await.is_ok() {}
    });
    with_vendor(options(), |address| async move {
        let order = json!({ "for_s": 0.05, "mode": "refuse" }).to_string();
        assert_eq!(send(address, "POST", "/_sim/outage", "", &order).await.status, 200);
        loop {
            if TcpStream::connect(address).await.is_err() {
                continue;
            }
            // A connection of the last moment may still be reset.
            if let Ok(answer) =
                try_send(address, "GET", "/v1/patients", "Authorization: Bearer demo-token\r\n", "").await
                && answer.status == 200
            {
                break;
            }
        }
    });
}

#[test]
fn a_patient_who_hangs_is_counted_until_the_client_leaves() {
    with_vendor(options(), |address| async move {
        let id = patient_with(Fault::Hang);
        let asked = future::or(async { Some(vitals(address, &id).await.status) }, async {
            while get(address, "/_sim/stats").await.json()["broken"]["hang"] != 1 {}
            assert_eq!(get(address, "/_sim/stats").await.json()["in_flight"], json!({"now": 1, "max": 1}));
            None
        });
        assert_eq!(asked.await, None);
        while get(address, "/_sim/stats").await.json()["in_flight"]["now"] != 0 {}
    });
}

#[test]
fn dropping_the_server_closes_everything_and_leaves_no_task() {
    let executor = Arc::new(Executor::new());
    smol::block_on(executor.run(async {
        let server = bind(executor.clone(), options()).await.expect("it answers");
        let address = server.address();
        let mut stream = None;
        let connect = async {
            let mut connected = TcpStream::connect(address).await.expect("it answers");
            connected.write_all(b"GET /_sim/stats HTTP/1.1\r\n\r\n").await.expect("it answers");
            connected.read_exact(&mut [0; 17]).await.expect("it answers");
            stream = Some(connected);
        };
        future::or(async { match server.run().await {} }, connect).await;
        // The client sees the end, whichever form it has, and nobody listens.
        let _ = stream.expect("it is there").read_to_end(&mut Vec::new()).await;
        while !executor.is_empty() {
            future::yield_now().await;
        }
        assert!(TcpStream::connect(address).await.is_err());
    }));
}

#[test]
fn the_truth_is_served_and_bad_options_are_refused() {
    with_vendor(options(), |address| async move {
        let served = get(address, "/_sim/expected?date=2026-11-22").await.json();
        assert_eq!(served, serde_json::to_value(SCRIPT.expected(NIGHT, 5000, MODEL_ATTEMPTS)).expect("it is there"));
        assert_eq!(served["failed"].as_array().expect("a list").len(), 40);
    });
    let executor = Arc::new(Executor::new());
    for bad in [
        Options { time_scale: -1.0, ..options() },
        Options { time_scale: f64::NAN, ..options() },
        Options { rate: Some(0.0), ..options() },
        Options { patients: 100_000, ..options() },
        Options { token_ttl: Duration::MAX, ..options() },
    ] {
        let error = smol::block_on(bind(executor.clone(), bad)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
