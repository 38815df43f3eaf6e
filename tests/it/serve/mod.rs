//! Talking to a `serve`: its commands, what they answer, and what it does with who does not know how to ask.

#![allow(clippy::disallowed_methods, reason = "the program is another process, watched from real threads")]

mod changes;

use super::{
    signals::{WORK, on_a_terminal},
    util::{Done, Going, Place, finish, found, until},
};
use lamplighter::{
    api::{Answer, Client, Request, Whereabouts},
    daemon::{Refusal, RunWish},
    item::Value,
    limits::{API_CONNECTIONS_MAX, API_REQUEST_BYTES_MAX},
};
use rustix::process::Signal;
use serde_json::json;
use std::{
    fs,
    io::{Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::Path,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// Three items of which none, one or all fail, and a job that is past its deadline.
const JOBS: [(&str, &str); 4] = [
    (
        "good",
        r#"Job(description: "All is well", schedule: Cron("30 2 * * *"), timezone: "Asia/Shanghai", params: {"word": "hello"}, stages: [
            Stage(name: "list", key: "{{ item }}", run: [Items(list: ["a", "b", "c"])]),
            Stage(name: "work", workers: 1, run: [Exec(argv: ["echo", "{{ params.word }}", "{{ item }}"])]),
            Stage(name: "end", gather: All, run: [Write(json: "good.json")]),
        ])"#,
    ),
    (
        "partly",
        r#"Job(schedule: Manual, stages: [
            Stage(name: "list", key: "{{ item }}", run: [Items(list: ["a", "b", "c"])]),
            Stage(name: "work", workers: 1, tolerate: "50%", run: [Exec(sh: "test $LAMPLIGHTER_KEY != b")]),
        ])"#,
    ),
    (
        "bad",
        r#"Job(schedule: Manual, stages: [
            Stage(name: "list", key: "{{ item }}", run: [Items(list: ["a", "b", "c"])]),
            Stage(name: "work", workers: 1, run: [Exec(sh: "test -e THERE")]),
        ])"#,
    ),
    (
        "late",
        r#"Job(schedule: Manual, deadline: "300ms", stages: [
            Stage(name: "list", key: "{{ item }}", run: [Items(list: ["a"])]),
            Stage(name: "work", workers: 1, run: [Exec(sh: "exec sleep 60")]),
        ])"#,
    ),
];

/// Works until the file `go` is there.
const SLOW: &str = r#"Job(schedule: Manual, overlap: Skip, stages: [
    Stage(name: "list", key: "{{ item }}", run: [Items(list: ["a", "b"])]),
    Stage(name: "work", workers: 1, run: [Exec(sh: "echo item $LAMPLIGHTER_KEY waits; while [ ! -e ../go ] && [ -d ../jobs ]; do sleep 0.02; done")]),
    Stage(name: "end", gather: All, run: [Write(json: "slow.json")]),
])"#;

fn place() -> Place {
    let place = Place::new();
    place.write("lamplighter.ron", r#"Config(clock: Trusted, grace_period: "1s")"#);
    for (name, text) in JOBS {
        let there = place.path("there").display().to_string();
        place.write(&format!("jobs/{name}.ron"), &text.replace("THERE", &there));
    }
    place.write("jobs/slow.ron", SLOW);
    place
}

/// A `serve` that answers.
fn serve(place: &Place) -> Going {
    let going = Going::start(&mut place.command(&["serve"]));
    found("serve answers", || ask(place, &Request::Overview));
    going
}

/// Asks the `serve` of a place; nothing where none runs.
fn ask(place: &Place, request: &Request) -> Option<Answer> {
    smol::block_on(async {
        let client = Client::find(&place.state()).ok()??;
        client.ask(request).await.ok()?.next().await.ok()?
    })
}

fn status(place: &Place, job: &str) -> Value {
    let told = place.run(&["status", job, "--format", "json"]).exits(0).json();
    told["jobs"][0].clone()
}

fn stop(going: Going) -> Done {
    going.signal(Signal::TERM);
    going.end().exits(0)
}

/// The id of a run of `slow` that works.
fn detached(place: &Place) -> String {
    let id = place.run(&["run", "slow", "--detach"]).exits(0).stdout.trim().to_owned();
    until("it works", || place.run(&["logs", "slow"]).stdout.contains("waits"));
    id
}

/// The lines of a log without what differs from run to run: their times, the id of the run, and which of two stages that work
/// at once was the faster one.
fn without_times(stderr: &str) -> Vec<String> {
    let words = |line: &str| {
        let words = line.split(' ').skip(1).filter(|word| !word.starts_with("run="));
        words.collect::<Vec<_>>().join(" ")
    };
    let mut lines = stderr.lines().map(words).collect::<Vec<_>>();
    lines.sort();
    lines
}

#[test]
fn a_run_that_is_handed_over_looks_and_ends_as_one_in_the_foreground() {
    let place = place();
    let codes = [("good", 0), ("partly", 3), ("bad", 1), ("late", 124)];
    let here = codes.map(|(job, code)| {
        let json = place.run(&["run", job, "--format", "json"]).exits(code).json();
        (json, place.run(&["run", job]).exits(code))
    });
    let serving = serve(&place);
    for ((job, code), (json, text)) in codes.into_iter().zip(here) {
        let handed = place.run(&["run", job, "--format", "json"]).exits(code).json();
        assert_eq!(
            json.as_object().map(|o| o.keys().collect::<Vec<_>>()),
            handed.as_object().map(|o| o.keys().collect())
        );
        // How far one comes until its deadline is a matter of the machine.
        let how_far = if job == "late" { &[][..] } else { &["stages", "failures"] };
        for field in ["job", "outcome", "reason", "outputs", "outputs_total"].iter().chain(how_far) {
            assert_eq!(json[field], handed[field], "{job}: {field}");
        }
        let there = place.run(&["run", job]).exits(code);
        let shown = place.run(&["show", job, "--format", "json"]).exits(0).json();
        assert_eq!((&shown["trigger"], &shown["outcome"]), (&json!("manual"), &handed["outcome"]));
        if job == "late" {
            there.says("run ended");
            continue;
        }
        assert_eq!(without_times(&text.stderr), without_times(&there.stderr), "{job}");
        // Times and ids apart; how long it took may differ.
        let tables = |text: &str| {
            let lines = text.lines().skip(1).filter(|line| !line.starts_with("  run "));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(tables(&text.stdout), tables(&there.stdout), "{job}");
    }
    place.run(&["run", "good", "--set", "word=bye", "--due", "2026-11-20T02:30"]).exits(0).says("bye a");
    let shown = place.run(&["show", "good", "--format", "json"]).exits(0).json();
    assert_eq!(shown["due"], "2026-11-20T02:30:00+08:00");
    place.run(&["run", "good", "--set", "wrod=x"]).exits(2).says("did you mean `word`?");
    place.run(&["run", "good", "--due", "soon"]).exits(2).says("is no time");
    place.run(&["run", "goood"]).exits(2).says("did you mean `good`?");
    // Trials and files are run here: nothing of them is kept.
    let kept = place.run(&["history", "--format", "json"]).exits(0).stdout;
    place.run(&["run", "good", "--no-state"]).exits(0);
    place.run(&["run", "good", "--limit", "1"]).exits(0);
    assert_eq!(place.run(&["history", "--format", "json"]).exits(0).stdout, kept);
    place.run(&["run", "jobs/good.ron", "--detach"]).exits(4).says("a file is run here");
    place.run(&["run", "good", "--resume"]).exits(4).says("`serve` goes on with its own by itself");
    stop(serving);
}

#[test]
fn what_a_caller_names_is_what_serve_has_or_nothing_is_handed_over() {
    let place = place();
    let good = place.read("jobs/good.ron");
    place.write("elsewhere/jobs/good.ron", &good);
    place.write("elsewhere/lamplighter.ron", "Config()");
    place.write("else.ron", "Config()");
    fs::create_dir_all(place.path("nowhere")).expect("a folder");
    std::os::unix::fs::symlink(place.path("jobs"), place.path("link")).expect("a link");
    let serving = serve(&place);
    let id = place.run(&["run", "good", "--format", "json"]).exits(0).json()["run"].as_str().expect("an id").to_owned();
    let kept = place.run(&["history", "--format", "json"]).exits(0).stdout;
    let jobs = place.path("jobs").display().to_string();
    let out = place.path("out").display().to_string();
    let config = place.path("lamplighter.ron").display().to_string();
    for (option, named, has) in
        [("--jobs", "elsewhere/jobs", &jobs), ("--out", "elsewhere/out", &out), ("--config", "else.ron", &config)]
    {
        let there = place.path(named).display().to_string();
        for command in [&["run", "good"][..], &["run", "good", "--detach"], &["retry", &id]] {
            let done = place.run(&[command, &[option, named]].concat()).exits(2);
            done.says(&there).says(has).says("--no-state").says("nothing was done");
        }
    }
    let there = |folder: &str| {
        let mut command = place.command(&["run", "good"]);
        finish(command.current_dir(place.path(folder)))
    };
    there("elsewhere").exits(2).says(&place.path("elsewhere/lamplighter.ron").display().to_string()).says(&config);
    fs::remove_file(place.path("elsewhere/lamplighter.ron")).expect("removed");
    there("elsewhere").exits(2).says(&place.path("elsewhere/jobs").display().to_string()).says(&jobs);
    assert_eq!(place.run(&["history", "--format", "json"]).exits(0).stdout, kept, "nothing has run");
    place.run(&["run", "good", "--jobs", "elsewhere/jobs", "--out", "elsewhere/out", "--no-state"]).exits(0);
    assert!(place.path("elsewhere/out/good.json").exists(), "where the caller has said");
    // The same by other names; and who names nothing means what `serve` has.
    place.run(&["run", "good", "--jobs", "./link", "--out", "elsewhere/../out", "--config", &config]).exits(0);
    there("nowhere").exits(0);
    stop(serving);
}

#[test]
fn on_a_terminal_a_run_that_is_handed_over_is_a_picture_too() {
    let place = place();
    place.write("jobs/work.ron", WORK);
    place.write("jobs/short.ron", WORK);
    let serving = serve(&place);
    let Some((code, shown)) = on_a_terminal(&place, "run short", b"", &[]) else { return };
    assert_eq!(code, 0, "{shown}");
    for part in ["short", "3 in flight", "0/3", "to the deadline", "━", "\x1b[J", "hello", "\x1b[32msucceeded"] {
        assert!(shown.contains(part), "{part:?} in {shown:?}");
    }
    let (code, shown) = on_a_terminal(&place, "run work", b"\x03", &[]).expect("script is there");
    assert_eq!(code, 130, "{shown}");
    let last = shown.rsplit("\x1b[J").next().expect("an end");
    assert!(last.contains("cancelled by SIGINT") && !last.contains("in flight"), "{last:?}");
    let (_, shown) = on_a_terminal(&place, "status", b"", &[]).expect("script is there");
    assert!(shown.contains("\x1b[32m✓") && shown.contains("\x1b[33mcancelled"), "{shown:?}");
    let (_, shown) = on_a_terminal(&place, "status", b"", &[("NO_COLOR", "1")]).expect("script is there");
    assert!(shown.contains("✓ short") && !shown.contains("\x1b["), "{shown:?}");
    stop(serving);
}

#[test]
fn a_retry_is_handed_over_too() {
    let place = place();
    let serving = serve(&place);
    place.run(&["run", "bad"]).exits(1);
    place.write("there", "");
    let record = place.run(&["retry", "bad", "--format", "json"]).exits(0).json();
    assert_eq!((&record["outcome"], &record["stages"][1]["ok"]), (&json!("succeeded"), &json!(3)), "{record}");
    let id = place.run(&["retry", "bad", "--detach"]).exits(0).stdout;
    let end = || place.run(&["show", id.trim(), "--format", "json"]).json();
    until("it has ended", || end()["state"] == "ended");
    place.run(&["retry", "slow"]).exits(2).says("no run of `slow` is kept");
    place.run(&["retry", "bda"]).exits(2).says("did you mean `bad`?");
    stop(serving);
    place.run(&["retry", "bad", "--detach"]).exits(4).says("no `serve` holds the state");
}

#[test]
fn what_is_kept_is_told_in_the_same_bytes_with_and_without_a_serve() {
    let place = place();
    let serving = serve(&place);
    place.run(&["run", "partly"]).exits(3);
    place.run(&["run", "good"]).exits(0);
    let commands: [&[&str]; 10] = [
        &["history"],
        &["history", "good", "-n", "1", "--utc"],
        &["history", "--format", "json"],
        &["show", "partly", "--items", "all"],
        &["show", "partly", "--items", "missing", "--format", "json"],
        &["logs", "partly"],
        &["logs", "good", "--follow", "--format", "json"],
        &["logs", "partly", "--item", "b"],
        &["show", "prtly"],
        &["logs", "slow"],
    ];
    let ask = || {
        commands.map(|command| {
            let Done { code, stdout, stderr } = place.run(command);
            (code, stdout, stderr)
        })
    };
    let served = ask();
    stop(serving);
    for ((with, without), command) in served.into_iter().zip(ask()).zip(commands) {
        assert_eq!(with, without, "{command:?}");
        assert_eq!(with.0, if command == ["show", "prtly"] || command == ["logs", "slow"] { 2 } else { 0 });
    }
}

#[test]
fn ctrl_c_cancels_the_run_that_is_followed_and_a_second_one_kills_it() {
    let place = place();
    place.write("lamplighter.ron", r#"Config(clock: Trusted, grace_period: "1h")"#);
    place.write("jobs/deaf.ron", &SLOW.replace("echo item", "trap '' TERM; echo item"));
    let serving = serve(&place);
    let mut following = Going::start(&mut place.command(&["run", "slow", "--format", "json"]));
    following.until_it_says("item a waits");
    following.signal(Signal::INT);
    let done = following.end().exits(130).says("SIGINT: the run is cancelled; once more kills what is left");
    let record = done.json();
    assert_eq!((&record["outcome"], &record["reason"]), (&json!("cancelled"), &json!("cancelled by SIGINT")));
    let mut following = Going::start(&mut place.command(&["run", "deaf"]));
    following.until_it_says("item a waits");
    following.signal(Signal::TERM);
    following.until_it_says("once more kills");
    following.signal(Signal::TERM);
    following.end().exits(143).says("what is left is killed").prints("cancelled by SIGTERM");
    stop(serving);
}

#[test]
fn whoever_follows_a_run_may_go_and_two_may_ask_at_once() {
    let place = place();
    let serving = serve(&place);
    let mut following = Going::start(&mut place.command(&["run", "slow"]));
    following.until_it_says("item a waits");
    place.run(&["run", "slow"]).exits(4).says("the job runs already").says("nothing was done");
    let other = Going::start(&mut place.command(&["run", "late"]));
    following.child.kill().expect("it is killed");
    following.end();
    other.end().exits(124);
    assert_eq!(status(&place, "slow")["running"].as_array().map(Vec::len), Some(1), "the run goes on");
    place.write("go", "");
    until("it has ended", || status(&place, "slow")["last"]["outcome"] == "succeeded");
    stop(serving);
}

#[test]
fn a_run_is_begun_and_cancelled_from_outside() {
    let place = place();
    place.run(&["run", "slow", "--detach"]).exits(4).says("no `serve` holds the state");
    place.run(&["cancel", "slow"]).exits(4).says("no `serve` holds the state");
    let serving = serve(&place);
    let id = detached(&place);
    let told = status(&place, "slow");
    assert_eq!((&told["running"][0]["run"], &told["running"][0]["trigger"]), (&json!(id), &json!("manual")));
    place.run(&["status"]).exits(0).prints("1 running").prints("▸ slow").prints(&id);
    place.run(&["cancel", "slwo"]).exits(4).says("no run `slwo` is running: did you mean `slow`?");
    place.run(&["cancel", "good"]).exits(4).says("`good` is not running");
    let mut logs = Going::start(&mut place.command(&["logs", "slow", "--follow"]));
    place.run(&["cancel", &id]).exits(0).prints(&id);
    until("it has ended", || status(&place, "slow")["last"]["outcome"] == "cancelled");
    assert!(logs.child.wait().expect("it ends with the run").success());
    logs.end().exits(0).prints("run ended");
    place.run(&["show", &id]).exits(0).prints("cancelled by `lamplighter cancel`");
    place.run(&["cancel", &id]).exits(4).says("is running");
    place.run(&["cancel", "slow", "--kill"]).exits(4).says("`slow` is not running");
    // Who lists jobs asks nothing of their runs.
    let Some(Answer::Overview(listed)) = ask(&place, &Request::List) else { panic!("a list") };
    let slow = listed.jobs.iter().find(|job| job.job == "slow").expect("it is watched");
    assert!(listed.served && slow.schedule == "Manual" && slow.last.is_none(), "{slow:?}");
    stop(serving);
}

#[test]
fn a_stop_lets_runs_go_and_the_next_serve_goes_on_with_them() {
    let place = place();
    let serving = serve(&place);
    let mut following = Going::start(&mut place.command(&["run", "slow"]));
    following.until_it_says("item a waits");
    serving.signal(Signal::TERM);
    following.end().exits(1).says("`serve` stops: its next start goes on with");
    serving.end().exits(0);
    assert!(!place.state().join("serve.sock").exists(), "the socket is taken away");
    let told = status(&place, "slow");
    let run = told["interrupted"][0].as_str().expect("it waits to be resumed").to_owned();
    place.run(&["status"]).exits(0).prints("no `serve` runs").prints(&format!("{run}, it waits to be resumed"));
    let shown = place
        .run(&["show", "slow"])
        .exits(0)
        .prints("slow interrupted")
        .prints("the next `serve` goes on with it")
        .stdout;
    assert!(!shown.contains("--resume"), "a run of `serve` is resumed by `serve` alone:\n{shown}");
    place.write("go", "");
    let serving = serve(&place);
    until("it has ended", || status(&place, "slow")["last"]["run"] == run);
    assert_eq!(status(&place, "slow")["last"]["outcome"], "succeeded");
    stop(serving);
}

#[test]
fn one_that_dies_is_told_of_and_leaves_a_socket_that_is_replaced() {
    let place = place();
    let mut serving = serve(&place);
    let mut following = Going::start(&mut place.command(&["run", "slow"]));
    following.until_it_says("item a waits");
    serving.child.kill().expect("it is killed");
    serving.end();
    following.end().exits(74).says("`serve` has gone").says("the next one goes on with");
    assert!(place.state().join("serve.sock").exists(), "nobody took it away");
    place.run(&["status"]).exits(0).prints("no `serve` runs");
    place.write("go", "");
    let serving = serve(&place);
    until("it has ended", || status(&place, "slow")["last"]["outcome"] == "succeeded");
    stop(serving);
}

#[test]
fn the_socket_is_its_users_alone_and_a_second_serve_is_refused() {
    let place = place();
    fs::create_dir_all(place.state()).expect("a folder");
    fs::set_permissions(place.state(), fs::Permissions::from_mode(0o755)).expect("a mode");
    let serving = serve(&place);
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode(&place.state()), mode(&place.state().join("serve.sock"))), (0o700, 0o600));
    place.run(&["serve"]).exits(75).says("another `serve` (pid").says("nothing was done");
    assert!(ask(&place, &Request::Overview).is_some(), "the first one still has its socket");
    stop(serving);
}

#[test]
fn a_third_signal_ends_it_whatever_it_waits_for() {
    let place = place();
    let mut serving = Going::start(place.command(&["serve"]).env("LAMPLIGHTER_LOG", "info"));
    found("serve answers", || ask(&place, &Request::Overview));
    // Its end is written to the state, which somebody else holds.
    let db = rusqlite::Connection::open(place.state().join("state.db")).expect("the state");
    db.execute_batch("BEGIN IMMEDIATE").expect("a lock");
    serving.signal(Signal::TERM);
    serving.until_it_says("stopping");
    serving.signal(Signal::INT);
    serving.until_it_says("once more ends");
    serving.signal(Signal::TERM);
    let Done { code, stderr, .. } = serving.end();
    assert_eq!(code, 143, "{stderr}");
    drop(db);
    stop(serve(&place));
}

#[test]
fn who_floods_a_connection_starves_nobody() {
    let place = place();
    let serving = serve(&place);
    let request =
        br#"{"run": {"wish": {"job": "slow", "trigger": "api"}, "follow": {"debug": true, "picture": false}}}"#;
    let mut flood = UnixStream::connect(place.state().join("serve.sock")).expect("serve listens");
    flood.write_all(request).and_then(|()| flood.write_all(b"\n")).expect("it is asked");
    until("it works", || place.run(&["logs", "slow"]).stdout.contains("waits"));
    // Faster than it is read, in pieces much larger: it is hung up on long before this is over.
    let flooding = std::thread::spawn(move || (0..64).all(|_| flood.write_all(&[b'x'; 1 << 20]).is_ok()));
    assert!(!flooding.join().expect("a flood"), "64 MiB that nobody has asked for were read");
    // Who is hung up on comes back at once, as long as there is somebody to flood.
    let floods = Arc::new(AtomicUsize::new(0));
    for _ in 0..2 {
        let (floods, socket) = (floods.clone(), place.state().join("serve.sock"));
        std::thread::spawn(move || {
            while let Ok(mut flood) = UnixStream::connect(&socket) {
                let _ = flood.write_all(b"\"overview\"\n");
                while flood.write_all(&[b'x'; 1 << 20]).is_ok() {}
                floods.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    for _ in 0..5 {
        let before = floods.load(Ordering::Relaxed);
        until("it is flooded", || floods.load(Ordering::Relaxed) > before);
        place.run(&["status"]).exits(0).prints("`serve` runs");
    }
    assert_eq!(status(&place, "slow")["running"].as_array().map(Vec::len), Some(1), "the run goes on");
    place.run(&["cancel", "slow"]).exits(0);
    stop(serving);
}

/// Whether a process has a handler for SIGINT.
fn hears_sigint(going: &Going) -> Option<()> {
    let status = fs::read_to_string(format!("/proc/{}/status", going.child.id())).ok()?;
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
    (u64::from_str_radix(caught.trim(), 16).ok()? & 0b10 != 0).then_some(())
}

#[test]
fn a_serve_that_is_silent_holds_up_nobody_for_ever() {
    let place = place();
    let serving = serve(&place);
    place.run(&["run", "good"]).exits(0);
    let mut following = Going::start(&mut place.command(&["run", "slow"]));
    following.until_it_says("item a waits");
    serving.signal(Signal::STOP);
    let starts = [&["run", "good"][..], &["retry", "good"], &["logs", "good"]].map(|command| {
        let going = Going::start(&mut place.command(command));
        found("it hears Ctrl-C", || hears_sigint(&going));
        going
    });
    let run = &["run", "good", "--detach"];
    let asks = [&["reload"][..], &["cancel", "slow"], &["pause", "good"], &["history"], run]
        .map(|command| Going::start(&mut place.command(command)));
    let looks = ["status", "list"].map(|command| Going::start(&mut place.command(&[command])));
    let mut patient = Going::start(&mut place.command(&["run", "bad"]));
    for going in starts {
        going.signal(Signal::INT);
        going.end().exits(130);
    }
    following.signal(Signal::INT);
    following.until_it_says("once more kills");
    following.signal(Signal::INT);
    following.until_it_says("what is left is killed");
    following.signal(Signal::INT);
    following.end().exits(130);
    for going in asks {
        going.end().exits(74).says("has not answered for").says("may be done nevertheless");
    }
    // What files and state say changes nothing: it is told without it.
    let [status, list] = looks.map(|going| going.end().exits(0).says("has not answered for").says("files and state"));
    status.prints("`serve` does not answer").prints("good").prints("1 running");
    list.prints("All is well");
    // A run that is followed has somebody who ends the wait.
    patient.until_it_says("Ctrl-C ends the wait");
    serving.signal(Signal::CONT);
    patient.end().exits(1).prints("bad failed");
    stop(serving);
}

#[test]
fn a_serve_that_cannot_be_reached_is_told_from_one_that_is_not_there() {
    let place = place();
    place.run(&["run", "good"]).exits(0);
    let lock = place.state().join("serve.lock");
    fs::write(&lock, "4711\n").expect("a lock file");
    place.run(&["status"]).exits(0).prints("no `serve` runs");
    let held = fs::File::open(&lock).expect("a lock file");
    held.lock().expect("a lock");
    for command in [&["run", "good"][..], &["cancel", "good"], &["reload"], &["pause", "good"]] {
        let done = place.run(command).exits(74).says("`serve` (pid 4711) holds the state");
        done.says("nobody listens on").says("serve.sock").says("nothing was done");
    }
    // What is kept is read without it.
    for command in ["status", "list"] {
        let done = place.run(&[command]).exits(0).says("`serve` (pid 4711) holds the state").says("nobody listens on");
        done.says("files and state").prints("good");
    }
    place.run(&["status"]).exits(0).prints("`serve` does not answer").prints("✓ good");
    place.run(&["history"]).exits(0).prints("good  succeeded");
    place.run(&["show", "good"]).exits(0).prints("good succeeded");
    place.run(&["logs", "good"]).exits(0).prints("run ended");
    place.run(&["serve"]).exits(75).says("another `serve` (pid 4711)");
    drop(held);
    stop(serve(&place));
}

#[test]
fn logs_that_are_followed_end_with_their_reader() {
    let place = place();
    let follow = || {
        let mut going = Going::start_as_it_is(place.command(&["logs", "slow", "--follow"]).stdout(Stdio::piped()));
        going.close_stdout_after_a_line();
        going.end().exits(0)
    };
    let waits = || place.run(&["logs", "slow"]).stdout.contains("item a waits");
    // Nothing more is said while the item waits.
    let here = Going::start(&mut place.command(&["run", "slow"]));
    until("it works", waits);
    assert_eq!(follow().stderr, "");
    here.signal(Signal::INT);
    here.end().exits(130);
    let serving = serve(&place);
    detached(&place);
    assert_eq!(follow().stderr, "");
    place.run(&["cancel", "slow"]).exits(0);
    stop(serving);
}

#[test]
fn a_bad_edit_keeps_the_last_good_version_and_is_told_of() {
    let place = place();
    let good = place.read("jobs/good.ron");
    place.run(&["reload"]).exits(4).says("no `serve` holds the state");
    let serving = serve(&place);
    place.run(&["reload"]).exits(0).prints("as they should be");
    place.write("jobs/good.ron", &good.replace("workers: 1", "wrokers: 1"));
    place.write("jobs/worse.ron", "Job(");
    place.run(&["reload"]).exits(2).says("wrokers").says("the file of `good` has errors");
    let told = place.run(&["reload", "--format", "json"]).exits(2).json();
    let names: Vec<&String> = told["problems"].as_object().expect("an object").keys().collect();
    assert_eq!(names, ["good", "worse"]);
    assert!(status(&place, "good")["problem"].as_str().is_some_and(|problem| problem.contains("wrokers")));
    assert!(status(&place, "good")["next"].is_string(), "its last good version goes on");
    place.run(&["status"]).exits(0).prints("2 with errors").prints("! good").prints("its last good version goes on");
    place.run(&["status", "worse"]).exits(0).prints("cannot start");
    place.run(&["run", "good"]).exits(2).says("wrokers").says("nothing was done");
    // As an editor saves, told by a signal; and by nothing at all.
    place.write("jobs/good.ron", &good.replace("hello", "hi"));
    fs::remove_file(place.path("jobs/worse.ron")).expect("removed");
    serving.signal(Signal::HUP);
    until("it is read", || status(&place, "good")["problem"].is_null());
    place.run(&["run", "good"]).exits(0).says("hi a");
    place.write("jobs/good.ron", &good.replace("hello", "welcome"));
    place.run(&["run", "good"]).exits(0).says("welcome a");
    stop(serving);
}

#[test]
fn jobs_are_paused_and_resumed_with_and_without_a_serve() {
    let place = place();
    let second = r#"Job(schedule: Cron("* * * * * *"), run: [Log(message: "tick")])"#;
    place.write("jobs/tick.ron", second);
    place.run(&["pause", "tick"]).exits(0).prints("tick is paused");
    place.run(&["pause", "tcik"]).exits(2).says("did you mean `tick`?");
    place.run(&["pause"]).exits(2);
    place.run(&["pause", "--all", "--until", "2020-01-01"]).exits(2).says("has passed");
    place.run(&["pause", "good", "--until", "2h"]).exits(0).prints("good is paused until");
    assert!(!place.state().join("serve.lock").exists(), "who pauses is no `serve`, and is not taken for one");
    assert_eq!(status(&place, "tick")["paused"], true);
    let serving = serve(&place);
    assert_eq!(status(&place, "tick")["paused"], true);
    let until_then = status(&place, "good");
    assert!(until_then["paused_until"].as_str().is_some_and(|time| time.ends_with("+08:00")), "{until_then}");
    let history = || place.run(&["history", "tick", "--format", "json"]);
    let skipped = found("a time is skipped", || {
        let told = history();
        let told = if told.code == 0 { told.json() } else { Value::Null };
        told["firings"].as_array().and_then(|firings| firings.first().cloned())
    });
    assert_eq!((&skipped["end"], &skipped["reason"]), (&json!("skipped"), &json!("paused")), "{skipped}");
    assert_eq!(history().json()["runs"], json!([]));
    place.run(&["history", "tick"]).exits(0).prints("○ tick  skipped").prints("the job was paused");
    place.run(&["resume", "--all"]).exits(0).prints("tick is resumed");
    until("it runs", || history().json()["runs"][0]["trigger"] == "schedule");
    place.run(&["pause", "--all", "--until", "1h"]).exits(0).prints("tick is paused until");
    place.run(&["pause", "nothing"]).exits(2).says("there is no job `nothing`");
    stop(serving);
    assert_eq!(status(&place, "tick")["paused"], true, "the next one knows");
    place.run(&["resume", "tick"]).exits(0);
    assert_eq!(status(&place, "tick")["paused"], false);
}

#[test]
fn a_job_that_has_not_succeeded_when_it_should_have_is_overdue() {
    let place = place();
    let text =
        r#"Job(schedule: Cron("* * * * * *"), start_window: "1s", deadline: "1s", run: [Exec(argv: ["false"])])"#;
    place.write("jobs/tick.ron", text);
    place.run(&["status", "--overdue"]).exits(0);
    // It fails by itself, or by its deadline where the machine is slow.
    let failed = place.run(&["run", "tick"]);
    assert!([1, 124].contains(&failed.code), "{failed:?}");
    let told = found("it is overdue", || {
        let told = place.run(&["status", "--overdue", "--format", "json"]);
        (told.code == 1).then(|| told.json())
    });
    let [job] = &told["jobs"].as_array().expect("a list")[..] else { panic!("one is overdue: {told}") };
    assert!(job["job"] == "tick" && job["overdue_since"].is_string() && job["last"]["outcome"] != "succeeded", "{job}");
    place.run(&["status"]).exits(0).prints("1 overdue").prints("! tick").prints("or later has succeeded");
    // Who asks from cron is told so when `serve` is what is wrong.
    let held = fs::File::create(place.state().join("serve.lock")).expect("a lock file");
    held.lock().expect("a lock");
    place.run(&["status", "--overdue"]).exits(1).says("holds the state").prints("! tick");
    drop(held);
    place.run(&["status", "tikc"]).exits(2).says("did you mean `tick`?");
    place.run(&["pause", "tick"]).exits(0);
    place.run(&["status", "--overdue"]).exits(0);
}

#[test]
fn without_a_state_status_and_list_make_none() {
    let place = place();
    place.run(&["status"]).exits(0).prints("no `serve` runs: nothing starts by schedule").prints("never ran");
    place.run(&["list"]).exits(0).prints("Asia/Shanghai").prints("All is well");
    let next = |told: Value| told["jobs"][0]["next"].as_str().expect("a time").to_owned();
    let here = next(place.run(&["status", "good", "--format", "json"]).exits(0).json());
    let utc = next(place.run(&["status", "good", "--utc", "--format", "json"]).exits(0).json());
    assert!(here.ends_with("T02:30:00+08:00") && utc.ends_with("T18:30:00+00:00"), "{here} {utc}");
    let told = place.run(&["list", "--format", "json"]).exits(0).json();
    assert_eq!((&told["served"], told["jobs"].as_array().map(Vec::len)), (&json!(false), Some(5)));
    assert!(!place.state().exists());
    // What cannot be right is no answer.
    fs::create_dir_all(place.path("empty")).expect("a folder");
    for command in ["status", "list"] {
        place.run(&[command, "--jobs", "nowhere"]).exits(2).says("there is no job folder nowhere");
        place.run(&[command, "--jobs", "lamplighter.ron"]).exits(2).says("lamplighter.ron");
        place.run(&[command, "--jobs", "empty"]).exits(2).says("there is no job file in empty");
    }
    place.run(&["status", "--overdue", "--jobs", "nowhere"]).exits(2);
    place.run(&["pause", "--all", "--jobs", "nowhere"]).exits(2).says("there is no job folder nowhere");
    place.run(&["status"]).exits(0).says("no run was kept in");
    assert!(!place.state().exists());
}

#[test]
fn who_does_not_read_holds_up_nobody() {
    let place = place();
    let flood = r#"Job(stages: [
        Stage(name: "list", run: [Items(list: ["a"])]),
        Stage(name: "work", run: [Exec(sh: "i=0; while [ $i -lt 900 ]; do i=$((i+1)); echo line $i of a flood; done; while [ ! -e ../go ] && [ -d ../jobs ]; do sleep 0.02; done")]),
    ])"#;
    place.write("jobs/flood.ron", flood);
    let serving = serve(&place);
    let request =
        br#"{"run": {"wish": {"job": "flood", "trigger": "api"}, "follow": {"debug": true, "picture": true}}}"#;
    let mut deaf = UnixStream::connect(place.state().join("serve.sock")).expect("serve listens");
    deaf.write_all(request).and_then(|()| deaf.write_all(b"\n")).expect("it is asked");
    until("all is said", || place.run(&["logs", "flood"]).stdout.contains("line 900 of"));
    place.run(&["run", "good"]).exits(0);
    place.write("go", "");
    until("it has ended", || status(&place, "flood")["last"]["outcome"] == "succeeded");
    // What waits for who reads late is bounded, in order, and says what is left out; how it ended comes last.
    let mut answer = String::new();
    deaf.read_to_string(&mut answer).expect("it is read at last");
    let lines: Vec<Value> = answer.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(lines.first().is_some_and(|line| line["begun"]["job"] == "flood"), "{:?}", lines.first());
    let said = answer.matches("of a flood").count();
    assert!(said == 900 || answer.contains("more lines were written faster than they were read"), "{said} of 900");
    assert!(lines.last().is_some_and(|line| line["ended"]["outcome"] == "succeeded"), "{:?}", lines.last());
    stop(serving);
}

/// Sends these bytes, and says nothing more; what is answered.
fn send(place: &Place, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(place.state().join("serve.sock")).expect("serve listens");
    stream.set_read_timeout(Some(Duration::from_secs(120))).expect("a timeout");
    // It may hang up before it has taken all.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

#[test]
fn what_is_no_request_is_answered_and_harms_nobody() {
    let place = place();
    let serving = serve(&place);
    assert!(send(&place, b"\"overview\"").starts_with("{\"overview\":{"), "a line without an end is one at the end");
    assert!(send(&place, b"\"overview\"\n\"overview\"\n").lines().count() == 1, "one request a connection");
    let deep = "[".repeat(API_REQUEST_BYTES_MAX - 1);
    let long = "x".repeat(4 * API_REQUEST_BYTES_MAX);
    let garbage: [&[u8]; 12] = [
        b"\n",
        b"\0\0\0\n",
        b"GET / HTTP/1.1\r\nHost: evil\r\n\r\n",
        b"\xff\xfe\"overview\"\n",
        b"\"overview",
        b"null\n",
        b"{\"run\":{\"wish\":{\"job\":\"good\",\"trigger\":\"catch_up\"}}}\n",
        b"{\"run\":{\"definition\":\"Job()\"}}\n",
        b"{\"cancel\":{\"run\":\"slow\",\"by\":\"a\\nb\"}}\n",
        b"{\"pause\":{\"which\":\"all\",\"until\":\"2020-01-01T00:00:00Z\"}}\n",
        deep.as_bytes(),
        long.as_bytes(),
    ];
    for bytes in garbage {
        let answer = send(&place, bytes);
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        if bytes == b"\n" {
            assert_eq!(answer, "", "nothing is asked, nothing is answered");
            continue;
        }
        assert!(answer.starts_with("{\"refused\":{\"wrong\":"), "{shown:?}: {answer}");
        assert_eq!(answer.lines().count(), 1, "{shown:?}: {answer}");
    }
    let nobody = RunWish { job: "../../etc/passwd".into(), trigger: "api".into(), ..RunWish::default() };
    let answer = ask(&place, &Request::Run { wish: nobody, follow: None, named: Whereabouts::default() });
    assert!(matches!(answer, Some(Answer::Refused(Refusal::NoJob(_)))), "{answer:?}");
    let wish = RunWish { job: "good".into(), trigger: "api".into(), ..RunWish::default() };
    let answer = ask(&place, &Request::Run { wish, follow: None, named: Whereabouts::default() });
    assert!(matches!(answer, Some(Answer::Begun(_))), "{answer:?}");
    until("it has ended", || status(&place, "good")["last"]["outcome"] == "succeeded");
    stop(serving);
}

#[test]
fn a_hundred_who_say_nothing_keep_nobody_out() {
    let place = place();
    let serving = serve(&place);
    let connect = || UnixStream::connect(place.state().join("serve.sock")).expect("serve listens");
    let idle: Vec<UnixStream> = (0..100).map(|_| connect()).collect();
    place.run(&["status"]).exits(0).prints("`serve` runs");
    place.run(&["run", "good"]).exits(0);
    // As many as there are places, but for one, begin to ask and go on with it: they are not hung up on.
    let mut slow: Vec<UnixStream> = (0..API_CONNECTIONS_MAX - 1).map(|_| connect()).collect();
    place.run(&["status"]).exits(0).prints("`serve` runs");
    slow[API_CONNECTIONS_MAX - 2].write_all(b"\"overview\"\n").expect("it is there");
    let mut answer = [0; 12];
    slow[API_CONNECTIONS_MAX - 2].read_exact(&mut answer).expect("it is answered");
    assert_eq!(&answer, b"{\"overview\":");
    drop(idle);
    stop(serving);
}

#[test]
fn without_descriptors_it_goes_on_and_answers_when_there_are_some() {
    let place = place();
    let mut command = std::process::Command::new("sh");
    let program = format!("ulimit -n 40; exec {} serve", super::util::PROGRAM);
    command.args(["-c", &program]).current_dir(place.path("")).env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("XDG_STATE_HOME", place.state().parent().expect("a folder"));
    let serving = Going::start(&mut command);
    found("serve answers", || ask(&place, &Request::Overview));
    let idle: Vec<UnixStream> =
        (0..60).map(|_| UnixStream::connect(place.state().join("serve.sock")).expect("it listens")).collect();
    place.run(&["status"]).exits(0).prints("`serve` runs");
    drop(idle);
    until("a run finds descriptors", || place.run(&["run", "good"]).code == 0);
    stop(serving).says("a connection cannot be taken");
}
