//! Calls against small scripted servers on loopback: every fault that a network has, with waits of milliseconds.

#![allow(clippy::disallowed_methods, reason = "the servers stand outside the world: real threads, real pauses")]

use super::*;
use crate::{
    flow::Slot,
    item::{Class, Failure, Value},
    lang::RunFacts,
    world::BoxFuture,
};
use futures_lite::future::block_on;
use hyper::{Method, body::Bytes};
use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, mpsc},
    thread,
};

/// A server whose connections are served by `serve`, each on a thread of its own.
pub(crate) struct Server {
    pub(crate) url: String,
    requests: Arc<Mutex<Vec<String>>>,
    connections: Arc<Mutex<usize>>,
    closed: Mutex<mpsc::Receiver<usize>>,
}

/// One connection of a [`Server`].
pub(crate) struct Served {
    stream: TcpStream,
    /// Its number, from 0.
    pub(crate) number: usize,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub(crate) fn start(serve: impl Fn(&mut Served) + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (requests, connections) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(0)));
        let (closing, closed) = mpsc::channel();
        let (log, count, serve) = (requests.clone(), connections.clone(), Arc::new(serve));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let number = std::mem::replace(&mut *count.lock().expect("lock"), 0);
                *count.lock().expect("lock") = number + 1;
                let mut served = Served { stream: stream.expect("a connection"), number, requests: log.clone() };
                let (serve, closing) = (serve.clone(), closing.clone());
                thread::spawn(move || {
                    serve(&mut served);
                    let _ = closing.send(served.number);
                });
            }
        });
        Server { url, requests, connections, closed: Mutex::new(closed) }
    }

    /// Answers every request by `answer`, with keep-alive.
    pub(crate) fn answering(answer: impl Fn(usize, &str) -> String + Send + Sync + 'static) -> Server {
        Server::start(move |conn| {
            while let Some(request) = conn.request() {
                let number = conn.requests.lock().expect("lock").len();
                conn.send(answer(number, &request));
            }
        })
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("lock").clone()
    }

    pub(crate) fn connections(&self) -> usize {
        *self.connections.lock().expect("lock")
    }

    /// Waits until the server is done with a connection.
    fn wait_closed(&self) -> usize {
        self.closed.lock().expect("lock").recv().expect("a connection ends")
    }
}

impl Served {
    /// The next request with its body; `None` when the client has closed the connection.
    pub(crate) fn request(&mut self) -> Option<String> {
        let mut bytes = Vec::new();
        let mut byte = [0];
        while !bytes.ends_with(b"\r\n\r\n") {
            if self.stream.read(&mut byte).unwrap_or(0) == 0 {
                return None;
            }
            bytes.push(byte[0]);
        }
        let head = String::from_utf8(bytes).expect("text");
        let length =
            head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().expect("n"));
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).expect("a body");
        let request = head + std::str::from_utf8(&body).expect("text");
        self.requests.lock().expect("lock").push(request.clone());
        Some(request)
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// The socket itself, for a server that does not speak plain HTTP.
    pub(crate) fn stream(&self) -> TcpStream {
        self.stream.try_clone().expect("a socket")
    }

    fn reset(&mut self) {
        rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO)).expect("a socket");
    }
}

pub(crate) fn ok(body: &str) -> String {
    answer("200 OK", "", body)
}

pub(crate) fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len())
}

pub(crate) fn in_world<T>(test: impl AsyncFnOnce(World) -> T) -> T {
    let executor = Arc::new(async_executor::Executor::new());
    block_on(executor.run(test(World::real(executor.clone()))))
}

fn plan(server: &Server) -> ServicePlan {
    let mut plan = ServicePlan::anonymous(url::split(&server.url).expect("a url").0);
    plan.retry = Retry::quick(4);
    plan
}

pub(crate) fn no_facts() -> Arc<RunFacts> {
    Arc::new(RunFacts { params: Value::Null, run: Value::Null, secrets: BTreeMap::new() })
}

fn start(plan: &ServicePlan, world: &World) -> Service {
    plan.start(world, &no_facts(), &SharedLimits::new(world.clone())).expect("starts")
}

fn request(method: Method, target: &str) -> Request {
    Request {
        label: format!("{method} /x"),
        method,
        target: target.to_owned(),
        headers: HeaderMap::new(),
        body: Bytes::new(),
        timeout: None,
        digest: true,
    }
}

/// One attempt of a GET.
async fn once(service: &Service) -> Result<Answer, Failure> {
    service.exchange(&request(Method::GET, "/x"), None, &Slot::free(service.world.clone())).await
}

/// A whole call that takes any 2xx for good; with the attempts that it counted.
async fn call(service: &Service, slot: &Slot, request: &Request) -> Result<Answer, Ended> {
    let mut attempts = Attempts::new(service, slot);
    loop {
        let (failure, stated) = match attempts.send(request, None).await? {
            Ok(answer) if answer.status < 300 => {
                attempts.done();
                return Ok(answer);
            }
            Ok(answer) => {
                let stated = answer.stated_wait(service.world.wall());
                (Failure::new(Class::Http(answer.status), "status"), stated)
            }
            Err(failure) => (failure, None),
        };
        attempts.again(failure, stated).await?;
    }
}

fn class_of(server: &Server, change: impl FnOnce(&mut ServicePlan)) -> (String, String) {
    let mut plan = plan(server);
    change(&mut plan);
    in_world(async move |world| match once(&start(&plan, &world)).await {
        Ok(answer) => (answer.status.to_string(), format!("{:?}", answer.body)),
        Err(failure) => (failure.class.to_string(), failure.message),
    })
}

/// A server that sends these bytes after the first request and closes.
fn sending(bytes: impl AsRef<[u8]> + Send + Sync + 'static) -> Server {
    Server::start(move |conn| {
        conn.request();
        conn.send(bytes.as_ref());
    })
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

fn gzipped(body: &[u8]) -> Vec<u8> {
    let mut answer =
        format!("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
    answer.extend_from_slice(body);
    answer
}

#[test]
fn an_answer_is_read_whole_with_its_head() {
    let server = Server::answering(|_, _| answer("200 OK", "X-A: 1\r\nx-a: 2\r\n", "hello"));
    let answer = in_world(async move |world| once(&start(&plan(&server), &world)).await).expect("answers");
    assert_eq!(answer.body, Body::Whole(b"hello".to_vec()));
    let head = answer.head();
    assert_eq!(head["status"], 200);
    assert_eq!(head["headers"]["x-a"], "1, 2");
    assert_eq!(head["sha256"], "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
}

#[test]
fn what_a_broken_connection_gives_is_transport_and_never_a_short_success() {
    let cases: [(&str, &[u8], bool); 6] = [
        ("closed before the head", b"", false),
        ("reset before the head", b"", true),
        ("reset in the body", b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\nabc", true),
        ("short body", b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\nabc", false),
        ("bad chunk", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nabc\r\n", false),
        ("no last chunk", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n", false),
    ];
    for (what, bytes, reset) in cases {
        let server = Server::start(move |conn| {
            conn.request();
            conn.send(bytes);
            if reset {
                conn.reset();
            }
        });
        let (class, message) = class_of(&server, |_| ());
        assert_eq!(class, "transport", "{what}: {message}");
        assert!(message.starts_with("GET /x "), "{message}");
    }
    let (class, _) = class_of(&sending("SSH-2.0-OpenSSH_9.6\r\n\r\n"), |_| ());
    assert_eq!(class, "transport", "not HTTP");
}

#[test]
fn a_refused_connection_says_so() {
    let mut server = Server::answering(|_, _| ok(""));
    let free = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    server.url = format!("http://{free}");
    let (class, message) = class_of(&server, |_| ());
    assert_eq!((class.as_str(), message.contains("refused")), ("transport", true), "{message}");
}

#[test]
fn a_name_is_looked_up_once_and_all_its_addresses_are_tried() {
    let mut server = Server::answering(|_, _| answer("200 OK", "connection: close\r\n", "hello"));
    server.url = server.url.replace("127.0.0.1", "localhost");
    in_world(async |world| {
        let service = start(&plan(&server), &world);
        for _ in 0..2 {
            once(&service).await.expect("answers");
        }
    });
    assert_eq!(server.connections(), 2);
    let host = server.url.trim_start_matches("http://");
    assert!(server.requests()[0].contains(&format!("host: {host}\r\n")));
}

#[test]
fn a_hang_and_a_drip_end_at_the_timeout() {
    let server = Server::start(|conn| {
        conn.request();
        conn.request();
    });
    let (class, message) = class_of(&server, |plan| plan.timeout = Duration::from_millis(30));
    assert_eq!((class.as_str(), message.as_str()), ("timeout", "GET /x took longer than its timeout of 30ms"));
    let server = Server::start(|conn| {
        conn.request();
        conn.send("HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n");
        while conn.send("x") {
            // A vendor that drips: else the body would be whole before the timeout.
            thread::sleep(Duration::from_millis(5));
        }
    });
    assert_eq!(class_of(&server, |plan| plan.timeout = Duration::from_millis(40)).0, "timeout");
}

#[test]
fn a_body_is_never_larger_than_allowed() {
    let endless = || {
        Server::start(|conn| {
            conn.request();
            conn.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
            while conn.send(format!("400\r\n{}\r\n", "x".repeat(1024))) {}
        })
    };
    let server = endless();
    let (class, message) = class_of(&server, |_| ());
    assert_eq!((class.as_str(), message.contains("max_body")), ("too_large", true), "{message}");
    server.wait_closed();
    let stated = sending("HTTP/1.1 200 OK\r\ncontent-length: 1000001\r\n\r\n");
    assert_eq!(class_of(&stated, |_| ()).0, "too_large", "at once, by its head");
    let bomb = gzip(&vec![0; 20_000_000]);
    assert!(bomb.len() < 30_000);
    assert_eq!(class_of(&sending(gzipped(&bomb)), |_| ()).0, "too_large", "unpacked");
    let exact = ok(&"x".repeat(1000));
    assert_eq!(class_of(&sending(exact), |plan| plan.max_body = 1000).0, "200");
    let head = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(1 << 20));
    assert_eq!(class_of(&sending(head), |_| ()).0, "too_large", "the head");
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(5000));
    assert_eq!(class_of(&sending(many), |_| ()).0, "too_large", "headers");
}

#[test]
fn a_large_body_of_an_error_does_not_hide_its_status() {
    let body = format!("HTTP/1.1 500 No\r\ncontent-length: 2000000\r\n\r\n{}", "x".repeat(2_000_000));
    assert_eq!(class_of(&sending(body), |_| ()), ("500".to_owned(), "TooLarge".to_owned()));
}

#[test]
fn gzip_is_asked_for_and_unpacked_and_a_broken_one_is_seen() {
    let server = sending(gzipped(&gzip(b"hello")));
    let (status, body) = class_of(&server, |_| ());
    assert_eq!((status.as_str(), body), ("200", format!("{:?}", Body::Whole(b"hello".to_vec()))));
    assert!(server.requests()[0].contains("accept-encoding: gzip\r\n"));
    let mut cut = gzip(&b"hello".repeat(100));
    cut.truncate(cut.len() - 9);
    for broken in [&cut[..], b"no gzip at all"] {
        assert!(class_of(&sending(gzipped(broken)), |_| ()).1.contains("Undecodable"));
    }
}

#[test]
fn redirects_are_followed_within_the_origin_only() {
    let to = |status: &'static str, location: &'static str| {
        Server::answering(move |_, request| match request.starts_with("GET /x ") || request.starts_with("POST /x ") {
            true => answer(status, &format!("location: {location}\r\n"), ""),
            false => ok("there"),
        })
    };
    let ask = |server: &Server, method: Method| {
        let plan = plan(server);
        in_world(async move |world| {
            let mut request = request(method, "/x");
            request.headers.insert("authorization", "Bearer t".parse().expect("a value"));
            start(&plan, &world).exchange(&request, None, &Slot::free(world.clone())).await.expect("an answer")
        })
    };
    let server = to("307 Again", "/y?r=1");
    assert_eq!(ask(&server, Method::GET).status, 200);
    assert!(
        server.requests()[1].starts_with("GET /y?r=1 ") && server.requests()[1].contains("authorization: Bearer t")
    );
    let server = to("308 Again", "y");
    assert_eq!(ask(&server, Method::POST).status, 200);
    assert!(server.requests()[1].starts_with("POST /y "), "the method stays");
    assert_eq!(ask(&to("302 Found", "/y"), Method::GET).status, 200);
    for (status, location, method) in [
        ("307 Again", "http://127.0.0.1:9/y", Method::GET),
        ("307 Again", "//evil.example/y", Method::GET),
        ("302 Found", "/y", Method::POST),
        ("307 Again", "/x", Method::GET),
    ] {
        let server = to(status, location);
        let answer = ask(&server, method);
        assert!(answer.redirect.is_some(), "{status} {location}");
        assert!(server.requests().len() <= 6);
    }
}

#[test]
fn a_connection_is_used_again_after_its_body_has_ended() {
    let server = Server::answering(|_, _| ok("hello"));
    in_world(async |world| {
        let service = start(&plan(&server), &world);
        for _ in 0..5 {
            once(&service).await.expect("answers");
        }
        assert_eq!(service.pool.idle(), 1);
    });
    assert_eq!((server.connections(), server.requests().len()), (1, 5));
}

#[test]
fn a_connection_that_was_closed_while_idle_costs_no_attempt() {
    // Closed after each answer, at once or only when the next request has come.
    for late in [false, true] {
        let server = Server::start(move |conn| {
            conn.request();
            conn.send(ok("hello"));
            if late {
                conn.request();
            }
        });
        in_world(async |world| {
            let service = start(&plan(&server), &world);
            for _ in 0..3 {
                once(&service).await.expect("a stale connection is no failure");
            }
            if late {
                let post = service.exchange(&request(Method::POST, "/x"), None, &Slot::free(world.clone())).await;
                assert_eq!(post.expect_err("may have been done").class, Class::Transport);
            }
        });
    }
}

#[test]
fn a_dropped_call_closes_its_connection_at_once() {
    let server = Server::start(|conn| {
        conn.request();
        assert!(conn.request().is_none(), "the client is gone");
    });
    in_world(async |world| {
        let service = start(&plan(&server), &world);
        let slot = Slot::free(world.clone());
        let get = request(Method::GET, "/x");
        let mut call = Box::pin(call(&service, &slot, &get));
        while server.requests().is_empty() {
            assert!(futures_lite::future::poll_once(&mut call).await.is_none());
            futures_lite::future::yield_now().await;
        }
        drop(call);
        server.wait_closed();
        assert_eq!(service.pool.idle(), 0);
    });
}

#[test]
fn a_dropped_service_closes_its_idle_connections() {
    let server = Server::answering(|_, _| ok("hello"));
    in_world(async |world| {
        let service = start(&plan(&server), &world);
        once(&service).await.expect("answers");
        drop(service);
        server.wait_closed();
    });
}

#[test]
fn failures_are_tried_again_up_to_the_attempts_and_only_where_it_helps() {
    for (status, attempts) in
        [("500 No", 3), ("408 Late", 3), ("429 Much", 3), ("404 Gone", 1), ("409 No", 1), ("304 Same", 1)]
    {
        let server = Server::answering(move |_, _| answer(status, "", ""));
        let mut plan = plan(&server);
        plan.retry = Retry::quick(3);
        in_world(async move |world| {
            let slot = Slot::free(world.clone());
            let ended = call(&start(&plan, &world), &slot, &request(Method::GET, "/x")).await;
            assert!(matches!(ended, Err(Ended::Failed(Failure { class: Class::Http(_), .. }))));
            assert_eq!(slot.attempts(), attempts, "{status}");
        });
        assert_eq!(server.requests().len(), attempts as usize, "{status}");
    }
}

#[test]
fn a_stated_wait_uses_no_attempt_and_is_cut_to_its_ceiling() {
    let server = Server::answering(|number, _| match number {
        1..=6 => answer("429 Much", "retry-after: 3600\r\n", ""),
        7 => answer("500 No", "", ""),
        _ => ok("hello"),
    });
    let mut plan = plan(&server);
    plan.retry = Retry::quick(2);
    plan.retry_after_max = Duration::from_millis(2);
    in_world(async move |world| {
        let slot = Slot::free(world.clone());
        call(&start(&plan, &world), &slot, &request(Method::GET, "/x")).await.expect("waits");
        assert_eq!(slot.attempts(), 2);
    });
}

#[test]
fn a_wait_past_the_deadline_settles_at_once_with_the_last_failure() {
    let server = Server::answering(|_, _| answer("503 No", "retry-after: 30\r\n", ""));
    let plan = plan(&server);
    in_world(async move |world| {
        let slot = Slot::free(world.clone());
        slot.begin_item(Some(world.boot() + Duration::from_secs(20)), 0);
        let ended = call(&start(&plan, &world), &slot, &request(Method::GET, "/x")).await;
        assert!(matches!(ended, Err(Ended::Failed(Failure { class: Class::Http(503), .. }))), "{ended:?}");
        assert_eq!(slot.attempts(), 0);
    });
}

#[test]
fn no_more_calls_are_in_flight_than_allowed() {
    let now = Arc::new(Mutex::new((0, 0)));
    let seen = now.clone();
    let server = Server::start(move |conn| {
        while conn.request().is_some() {
            {
                let mut now = seen.lock().expect("lock");
                now.0 += 1;
                now.1 = now.1.max(now.0);
            }
            // Long enough that calls meet; one that came too many is seen however long it is.
            thread::sleep(Duration::from_millis(2));
            seen.lock().expect("lock").0 -= 1;
            conn.send(ok("hello"));
        }
    });
    let mut plan = plan(&server);
    plan.max_in_flight = Some(3);
    in_world(async move |world| {
        let service = Arc::new(start(&plan, &world));
        let calls: Vec<_> = (0..20)
            .map(|_| {
                let (service, slot) = (service.clone(), Slot::free(world.clone()));
                world.spawn(async move {
                    call(&service, &slot, &request(Method::GET, "/x")).await.expect("answers");
                })
            })
            .collect();
        for call in calls {
            call.await;
        }
    });
    assert_eq!(now.lock().expect("lock").1, 3);
    assert_eq!(server.connections(), 3);
}

#[test]
fn a_download_goes_to_its_sink_and_only_if_it_is_a_success() {
    struct Bytewise(Vec<u8>);
    impl Sink for Bytewise {
        fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<(), Failure>> {
            self.0.extend_from_slice(&bytes);
            Box::pin(async { if self.0.len() > 2_000_000 { Err(Failure::new(Class::Output, "full")) } else { Ok(()) } })
        }
    }
    let server = Server::answering(|number, _| match number {
        1 => ok(&"x".repeat(1_500_000)),
        2 => answer("404 No", "", "nothing"),
        _ => ok(&"x".repeat(2_500_000)),
    });
    let plan = plan(&server);
    in_world(async |world| {
        let (service, slot) = (start(&plan, &world), Slot::free(world.clone()));
        let mut sink = Bytewise(Vec::new());
        let get = request(Method::GET, "/x");
        let answer = service.exchange(&get, Some(&mut sink), &slot).await.expect("answers");
        assert_eq!((answer.body, sink.0.len()), (Body::Streamed(1_500_000), 1_500_000));
        let mut sink = Bytewise(Vec::new());
        let answer = service.exchange(&get, Some(&mut sink), &slot).await.expect("answers");
        assert_eq!((answer.status, sink.0.len()), (404, 0));
        let failure = service.exchange(&get, Some(&mut sink), &slot).await.expect_err("the sink is full");
        assert_eq!(failure.class, Class::Output);
    });
    assert!(server.requests()[0].contains("accept-encoding: identity\r\n"));
}
