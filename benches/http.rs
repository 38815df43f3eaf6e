//! `Http` over 5,000 answers of 2 KB that take 20 ms each, 64 in flight (N5, N6): Lamplighter with every guard of a service
//! on, beside bare smol + hyper and Go's net/http; and the demo's night of 5,000 patients, with bodies of 64 MiB among them.
//!
//! The server is a process of its own, the same for all. All of them parse what they are answered.
//!
//! `cargo bench --bench http`

mod common;

use common::{Bench, Table, figure, now, seconds_since};
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Bytes, client::conn::http1, rt::ReadBufCursor};
use lamplighter::{
    action::Handlers,
    item::RunOutcome,
    job::Job,
    run::{RunOptions, Runner},
    world::World,
};
use smol::net::{TcpListener, TcpStream};
use std::{
    cell::Cell,
    env, fs,
    hint::black_box,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    pin::Pin,
    process::{Child, Command, ExitCode, Stdio},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

const REQUESTS: u64 = 5_000;
const IN_FLIGHT: u64 = 64;
const DELAY: Duration = Duration::from_millis(20);
const PATIENTS: u64 = 5_000;

fn main() -> ExitCode {
    let args: Vec<String> = env::args().collect();
    if args.get(1).is_some_and(|arg| arg == "--serve") {
        return serve();
    }
    let child = args.get(1).is_some_and(|arg| arg.starts_with("--child") || arg == "--exec" || arg == "--list");
    let servers = (!child).then(Servers::start);
    let go = common::go("http", &[&REQUESTS.to_string(), &IN_FLIGHT.to_string(), &address("server")]);
    let program = env!("CARGO_BIN_EXE_lamplighter");
    let out = scratch().join("out").to_string_lossy().into_owned();
    let patients = PATIENTS.to_string();
    let demo = [program, "--out", &out, "demo", "--patients", &patients, "--format", "json"];
    // A partial night is what the demo ends with: 40 patients fail for good.
    let partly = |command: &[&str]| {
        let mut line = vec![
            "sh".to_owned(),
            "-c".to_owned(),
            "LAMPLIGHTER_SECRET_VENDOR_TOKEN=demo-token \"$@\" >/dev/null; test $? = 3".to_owned(),
            "sh".to_owned(),
        ];
        line.extend(command.iter().map(|part| (*part).to_owned()));
        Ok(line)
    };
    let jobs = concat!(env!("CARGO_MANIFEST_DIR"), "/jobs");
    let vendor = format!("vendor={}", address("vendor"));
    let night = [
        program,
        "--jobs",
        jobs,
        "--out",
        &out,
        "run",
        "--no-state",
        "nightly-vitals",
        "--due",
        "2026-11-23T02:30",
        "--set",
        &vendor,
    ];
    let ended = Bench::new("http")
        .table(
            Table::new("fanout", "5,000 answers of 2 KB after 20 ms, 64 in flight", REQUESTS, "request")
                .rounds(5)
                .own("bare smol + hyper", bare)
                .own("Lamplighter", lamplighter)
                .peer("Go net/http", go)
                .beside("Go net/http")
                .note("to ideal: wall time to requests x delay / in flight, from the first request to the end of the process."),
        )
        .table(
            Table::new("night", "nightly-vitals over 5,000 patients, two bodies of 64 MiB among them", PATIENTS, "patient")
                .rounds(1)
                .peer("nightly-vitals", partly(&night))
                .peer("demo, the vendor in it", partly(&demo))
                .note("The job asks for at most 200 pages a second: that, not the machine, decides the wall time."),
        )
        .main();
    drop(servers);
    ended
}

fn scratch() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-http")
}

/// Where a server of [`Servers`] stands: `http://127.0.0.1:PORT`.
fn address(name: &str) -> String {
    fs::read_to_string(scratch().join(name)).unwrap_or_default()
}

/// The processes that answer. They end with this.
struct Servers(Vec<Child>);

impl Servers {
    fn start() -> Servers {
        fs::create_dir_all(scratch()).expect("a folder");
        let me = env::current_exe().expect("this program");
        let mut servers = Servers(Vec::new());
        servers.add("server", Command::new(me).arg("--serve"));
        let patients = PATIENTS.to_string();
        let mut vendor = Command::new(env!("CARGO_BIN_EXE_lamplighter"));
        servers.add("vendor", vendor.args(["vendor-sim", "--listen", "127.0.0.1:0", "--patients", &patients]));
        servers
    }

    /// Starts one and keeps the first line that it prints: its address.
    fn add(&mut self, name: &str, command: &mut Command) {
        let mut server = command.stdout(Stdio::piped()).spawn().expect("the server starts");
        let mut line = String::new();
        BufReader::new(server.stdout.take().expect("piped")).read_line(&mut line).expect("its address");
        fs::write(scratch().join(name), line.trim()).expect("its address is kept");
        self.0.push(server);
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for server in &mut self.0 {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// A server that does as little as can be: the same answer to every request, [`DELAY`] after it.
fn serve() -> ExitCode {
    let answer: Arc<[u8]> = answer().into();
    let executor = async_executor::LocalExecutor::new();
    smol::block_on(executor.run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        println!("http://{}", listener.local_addr().expect("an address"));
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let _ = stream.set_nodelay(true);
            executor.spawn(converse(stream, answer.clone())).detach();
        }
    }))
}

#[expect(clippy::disallowed_methods, reason = "the server stands for the outside world")]
async fn converse(mut stream: TcpStream, answer: Arc<[u8]>) {
    let (mut block, mut seen) = ([0; 4096], Vec::new());
    loop {
        match stream.read(&mut block).await {
            Ok(0) | Err(_) => return,
            Ok(count) => seen.extend_from_slice(&block[..count]),
        }
        if seen.ends_with(b"\r\n\r\n") {
            seen.clear();
            smol::Timer::after(DELAY).await;
            if stream.write_all(&answer).await.is_err() {
                return;
            }
        }
    }
}

fn answer() -> Vec<u8> {
    let readings: Vec<String> = (0..37)
        .map(|n| {
            format!("{{\"at\":\"22:{n:02}\",\"hr\":{},\"spo2\":{},\"temp\":36.{}}}", 55 + n % 9, 94 + n % 5, n % 10)
        })
        .collect();
    let body = format!("{{\"patient\":\"P00001\",\"next\":null,\"readings\":[{}]}}", readings.join(","));
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
}

fn to_ideal(wall: f64) {
    figure("to ideal", wall / (REQUESTS as f64 * DELAY.as_secs_f64() / IN_FLIGHT as f64));
}

fn lamplighter() {
    let text = format!(
        "Job(services: [Service(name: \"vendor\", base: \"{}\", timeout: \"5s\", max_in_flight: {IN_FLIGHT}, \
         rate: [\"100000/s\"], retry: Retry(max_attempts: 4, initial_interval: \"200ms\", max_interval: \"10s\"))], \
         stages: [Stage(name: \"list\", run: [Jq(filter: \"range({REQUESTS})\")]), \
         Stage(name: \"answers\", workers: {IN_FLIGHT}, timeout: \"1m\", item_deadline: \"5m\", \
         run: [Http(via: \"vendor\", get: \"/v1/patients/{{{{ item }}}}/vitals\")])])",
        address("server")
    );
    let job = Arc::new(Job::from_ron("answers", &text, Path::new("."), &Handlers::new()).expect("a job").job);
    let executor = Arc::new(async_executor::Executor::new());
    let runner = Runner::new(World::real(executor.clone()));
    let options = RunOptions { out: scratch().join("out"), ..RunOptions::default() };
    let began = now();
    let run = runner.start(&job, options).expect("it starts");
    let record = smol::block_on(executor.run(run));
    to_ideal(seconds_since(began));
    assert_eq!(record.outcome, RunOutcome::Succeeded, "{:?}", record.reason);
    assert_eq!(record.stages[1].counts.ok, REQUESTS);
}

/// The same requests with nothing around them.
fn bare() {
    let address = address("server");
    let authority = address.strip_prefix("http://").expect("an address").to_owned();
    let next = Cell::new(0);
    // Leaked: what it runs refers to it.
    let executor: &async_executor::LocalExecutor = Box::leak(Box::default());
    let began = now();
    smol::block_on(executor.run(async {
        let clients: Vec<_> = (0..IN_FLIGHT)
            .map(|_| {
                let (next, authority) = (&next, &authority);
                executor.spawn(async move {
                    let stream = TcpStream::connect(authority).await.expect("it connects");
                    stream.set_nodelay(true).expect("a socket");
                    let (mut sender, driver) = http1::handshake(Io(stream)).await.expect("a client");
                    let driver = executor.spawn(driver);
                    while next.get() < REQUESTS {
                        next.set(next.get() + 1);
                        let request = hyper::Request::get(format!("/v1/patients/{}/vitals", next.get()))
                            .header("host", authority)
                            .body(Empty::<Bytes>::new())
                            .expect("a request");
                        let response = sender.send_request(request).await.expect("an answer");
                        assert_eq!(response.status(), 200);
                        let body = response.into_body().collect().await.expect("its body").to_bytes();
                        black_box(serde_json::from_slice::<serde_json::Value>(&body).expect("JSON"));
                    }
                    drop(sender);
                    let _ = driver.await;
                })
            })
            .collect();
        for client in clients {
            client.await;
        }
    }));
    to_ideal(seconds_since(began));
}

/// A socket as hyper reads and writes it.
struct Io(TcpStream);

impl hyper::rt::Read for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, mut buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        use futures_lite::AsyncRead;
        let mut bytes = [0; 8192];
        let room = bytes.len().min(buf.remaining());
        let count = ready!(Pin::new(&mut self.get_mut().0).poll_read(cx, &mut bytes[..room]))?;
        buf.put_slice(&bytes[..count]);
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        use futures_lite::AsyncWrite;
        Pin::new(&mut self.get_mut().0).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        use futures_lite::AsyncWrite;
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        use futures_lite::AsyncWrite;
        Pin::new(&mut self.get_mut().0).poll_close(cx)
    }
}
