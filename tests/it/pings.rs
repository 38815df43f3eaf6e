//! The pings of a run: a service outside hears that it began, and how it ended.

#![allow(clippy::disallowed_methods, reason = "the program is another process, asked from real threads")]

use super::util::{Act, Going, Place, Scripted, until};
use lamplighter::{action::Handlers, item::RunOutcome, job::Job};
use rustix::process::Signal;
use std::{
    cell::Cell,
    sync::{Arc, Mutex},
};

/// A service that hears pings, and in which order they came.
struct Watcher {
    vendor: Scripted,
    heard: Arc<Mutex<Vec<String>>>,
    /// How many of them were asked for already.
    known: Cell<usize>,
}

impl Watcher {
    /// It answers as `script` says, by the path and how often it was asked before.
    fn start(script: impl Fn(&str, usize) -> Act + Send + Sync + 'static) -> Watcher {
        let heard: Arc<Mutex<Vec<String>>> = Arc::default();
        let note = heard.clone();
        let vendor = Scripted::start(move |path| {
            let mut heard = note.lock().expect("no test panicked");
            let before = heard.iter().filter(|other| *other == path).count();
            heard.push(path.to_owned());
            drop(heard);
            script(path, before)
        });
        Watcher { vendor, heard, known: Cell::new(0) }
    }

    fn content() -> Watcher {
        Watcher::start(|_, _| Act::Answer(200, "\"OK\"".into()))
    }

    /// What it heard since it was asked last.
    fn heard(&self) -> Vec<String> {
        let heard = self.heard.lock().expect("no test panicked");
        heard[self.known.replace(heard.len())..].to_vec()
    }

    /// The pings of a file: each names the job and the end that is told.
    fn ping(&self) -> String {
        let base = &self.vendor.base;
        format!(
            r#"Ping(start: "{base}/{{{{ run.job }}}}/start", success: "{base}/{{{{ run.job }}}}/{{{{ run.outcome }}}}",
                failure: "{base}/{{{{ run.job }}}}/fail/{{{{ run.outcome }}}}")"#
        )
    }
}

const WORK: &str = r#"stages: [
    Stage(name: "list", key: "{{ item }}", run: [Items(list: ["a", "b", "c"])]),
    Stage(name: "work", tolerate: "TOLERATED", run: [Exec(sh: "test $LAMPLIGHTER_KEY != FAILS")]),
]"#;

fn job(fails: &str, tolerated: &str, more: &str) -> String {
    format!("Job({}, {more})", WORK.replace("FAILS", fails).replace("TOLERATED", tolerated))
}

#[test]
fn a_service_outside_hears_that_a_run_began_and_how_it_ended() {
    let watcher = Watcher::content();
    let place = Place::new();
    place.write("lamplighter.ron", &format!("Config(ping: {})", watcher.ping()));
    place.write("jobs/good.ron", &job("-", "0", ""));
    place.write("jobs/partly.ron", &job("b", "50%", ""));
    place.write("jobs/bad.ron", &job("b", "0", ""));
    place.write("jobs/late.ron", r#"Job(deadline: "200ms", run: [Exec(sh: "exec sleep 60")])"#);
    place.write("jobs/quiet.ron", &job("-", "0", "ping: Ping()"));
    let own = format!(r#"ping: Ping(success: "{}/own")"#, watcher.vendor.base);
    place.write("jobs/own.ron", &job("-", "0", &own));
    let of = |name: &str, code: i32| {
        place.run(&["run", name]).exits(code);
        watcher.heard()
    };
    assert_eq!(of("good", 0), ["/good/start", "/good/succeeded"]);
    assert_eq!(of("partly", 3), ["/partly/start", "/partly/partial"]);
    assert_eq!(of("bad", 1), ["/bad/start", "/bad/fail/failed"]);
    assert_eq!(of("late", 124), ["/late/start", "/late/fail/deadline_exceeded"]);
    assert_eq!(of("quiet", 0), [""; 0]);
    assert_eq!(of("own", 0), ["/own"]);
    // What does not stand for the night: trials, and days that are made up for.
    place.write("jobs/nightly.ron", &job("-", "0", r#"schedule: Cron("30 2 * * *"), timezone: "UTC""#));
    let others: [&[&str]; 5] = [
        &["good", "--dry-run"],
        &["good", "--limit", "1"],
        &["good", "--key", "a"],
        &["good", "--until", "list"],
        &["nightly", "--due", "2026-11-20..2026-11-22"],
    ];
    for arguments in others {
        place.run(&[&["run"], arguments].concat()).exits(0);
        assert_eq!(watcher.heard(), [""; 0], "{arguments:?}");
    }
}

#[test]
fn a_beginning_that_is_not_answered_does_not_hold_up_the_end() {
    let watcher = Watcher::start(|path, _| match path.ends_with("start") {
        true => Act::Silence,
        false => Act::Answer(200, "\"OK\"".into()),
    });
    let place = Place::with_job("quick", &job("-", "0", &format!("ping: {}", watcher.ping())));
    place.run(&["run", "quick"]).exits(0);
    assert_eq!(watcher.heard(), ["/quick/start", "/quick/succeeded"]);
    let logged = place.run(&["logs", "quick"]).exits(0).stdout;
    assert!(logged.contains("ping.start failed: it was not answered before the run ended"), "{logged}");
}

#[test]
fn a_run_that_is_cancelled_is_told_as_one_that_did_not_succeed() {
    let watcher = Watcher::content();
    let text = format!(r#"Job(ping: {}, run: [Exec(sh: "touch ../there; exec sleep 60")])"#, watcher.ping());
    let place = Place::with_job("slow", &text);
    let going = Going::start(&mut place.command(&["run", "slow"]));
    until("it works", || place.path("there").exists());
    going.signal(Signal::INT);
    going.end().exits(130);
    assert_eq!(watcher.heard(), ["/slow/start", "/slow/fail/cancelled"]);
}

#[test]
fn a_ping_is_tried_again_and_one_that_fails_changes_nothing() {
    let watcher = Watcher::start(|path, before| match (path, before) {
        ("/good/start", _) => Act::Answer(404, "{}".into()),
        (_, 0) => Act::Answer(503, "{}".into()),
        _ => Act::Answer(200, "{}".into()),
    });
    let place = Place::new();
    place.write("jobs/good.ron", &job("-", "0", &format!("ping: {}", watcher.ping())));
    let told = place.run(&["run", "good"]).exits(0).says("ping.start failed: ");
    assert_eq!(watcher.heard(), ["/good/start", "/good/succeeded", "/good/succeeded"]);
    assert!(!told.stderr.contains("ping.success"), "{}", told.stderr);
    place.write("jobs/good.ron", &job("-", "0", r#"ping: Ping(success: "http://127.0.0.1:1/")"#));
    place.run(&["run", "good"]).exits(0).says("ping.success failed: ");
}

/// Whoever hears of the beginning behind the end would wait for an end that has been.
#[test]
fn the_end_is_told_behind_the_beginning_however_slow_that_is() {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = Mutex::new(held);
    let watcher = Watcher::start(move |path, _| {
        if path == "/quick/start" {
            let _ = held.lock().expect("no test panicked").recv();
        }
        Act::Answer(200, "{}".into())
    });
    let place = Place::with_job("quick", &format!(r#"Job(ping: {}, run: [Exec(argv: ["true"])])"#, watcher.ping()));
    let mut going = Going::start(place.command(&["run", "quick"]).env("LAMPLIGHTER_LOG", "info"));
    going.until_it_says("run ended");
    assert_eq!(watcher.heard(), ["/quick/start"]);
    release.send(()).expect("it is waited for");
    going.end().exits(0);
    assert_eq!(watcher.heard(), ["/quick/succeeded"]);
}

#[test]
fn a_ping_that_a_dead_process_did_not_send_is_sent_by_the_next_run() {
    let watcher = Watcher::start(|path, before| match (path, before) {
        ("/quick/succeeded", 0) => Act::Silence,
        _ => Act::Answer(200, "{}".into()),
    });
    let place = Place::with_job("quick", &format!(r#"Job(ping: {}, run: [Exec(argv: ["true"])])"#, watcher.ping()));
    let mut going = Going::start(&mut place.command(&["run", "quick"]));
    until("the end is told", || watcher.vendor.requests("/quick/succeeded") > 0);
    going.child.kill().expect("it can be killed");
    going.end();
    assert_eq!(watcher.vendor.next_closed(), "/quick/succeeded");
    assert_eq!(watcher.heard(), ["/quick/start", "/quick/succeeded"]);
    place.run(&["run", "quick"]).exits(0).says("were not sent");
    assert_eq!(watcher.heard(), ["/quick/succeeded", "/quick/start", "/quick/succeeded"]);
}

#[test]
fn a_notice_is_not_taken_for_another_one_that_has_its_place_by_now() {
    let watcher = Watcher::start(|_, _| Act::Silence);
    let place = Place::with_job("quick", r#"Job(run: [Exec(argv: ["true"])])"#);
    let config = |kind: &str| {
        let base = &watcher.vendor.base;
        place.write("lamplighter.ron", &format!(r#"Config(ping: Ping({kind}: "{base}/{kind}"))"#));
    };
    config("success");
    let mut going = Going::start(&mut place.command(&["run", "quick"]));
    until("the ping is asked", || watcher.vendor.requests("/success") > 0);
    going.child.kill().expect("it can be killed");
    going.end();
    assert_eq!(watcher.heard(), ["/success"]);
    config("failure");
    place.run(&["run", "quick"]).exits(0).says("were not sent");
    assert_eq!(watcher.heard(), [""; 0], "the run succeeded");
    assert!(!place.run(&["run", "quick"]).exits(0).stderr.contains("were not sent"), "nothing is left to send");
}

#[test]
fn every_end_has_one_ping_and_a_missed_time_is_a_failure() {
    let text = r#"Job(run: [Exec(argv: ["true"])], ping: Ping(success: "https://hc.example/s", failure: "https://hc.example/f"))"#;
    let job = Job::from_ron("watched", text, ".".as_ref(), &Handlers::new()).expect("it is right").job;
    let named = |places: Vec<u16>| -> Vec<String> {
        places.into_iter().map(|place| job.on_finish[usize::from(place)].field.to_string()).collect()
    };
    for outcome in RunOutcome::ALL {
        let good = matches!(outcome, RunOutcome::Succeeded | RunOutcome::Partial);
        let wanted = if good { "ping.success" } else { "ping.failure" };
        assert_eq!(named(job.notices_after(outcome)), [wanted], "{outcome}");
    }
    assert_eq!(named(job.notices_of_missed()), ["ping.failure"]);
}
