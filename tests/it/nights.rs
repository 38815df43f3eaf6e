//! What a job remembers from night to night, by the sample that judges each night against the ones before: the same
//! judgements as the sample that reads all nights at once, also when its process is killed.

#![allow(clippy::disallowed_methods, reason = "the program is another process, killed from real threads")]

use super::util::{Done, Going, Place, repository};
use jiff::{ToSpan, civil::Date};
use lamplighter::store::{
    State,
    sqlite::{Sqlite, StateOptions},
};
use std::{fs, process::Command, thread, time::Duration};

const JOB: &str = "fitbit-night-by-night";

/// Every date of the data, those without data too.
fn nights() -> impl Iterator<Item = Date> {
    let (first, last) = (jiff::civil::date(2016, 3, 29), jiff::civil::date(2016, 5, 12));
    first.series(1.day()).take_while(move |night| *night <= last)
}

/// The program on this job, with its state and outputs in the place.
fn command(place: &Place, arguments: &[&str]) -> Command {
    let jobs = repository("jobs");
    let jobs = jobs.to_string_lossy();
    let mut all = vec!["run", JOB, "--jobs", &jobs, "--out", "out", "--format", "json"];
    all.extend(arguments);
    place.command(&all)
}

fn run(place: &Place, arguments: &[&str]) -> Done {
    Going::start(&mut command(place, arguments)).end()
}

/// The judgements of all nights as one file, in the order of the reference.
fn judgements(place: &Place) -> String {
    let (mut head, mut rows) = (String::new(), Vec::new());
    for night in nights() {
        let text = place.read(&format!("out/{JOB}/{night}.csv"));
        let mut lines = text.lines().map(|line| format!("{line}\n"));
        if let Some(line) = lines.next() {
            head = line;
        }
        rows.extend(lines);
    }
    rows.sort();
    head + &rows.concat()
}

fn reference() -> String {
    fs::read_to_string(repository("tests/data/fitbit_nights.csv")).expect("the reference")
}

#[test]
fn nights_judged_one_by_one_are_those_judged_at_once() {
    let place = Place::new();
    for night in nights() {
        let due = night.to_string();
        run(&place, &["--state", "state", "--due", &due]).exits(0);
        if due == "2016-05-06" {
            // Run once more, a night does not see itself.
            let file = format!("out/{JOB}/{due}.csv");
            let before = place.read(&file);
            assert!(before.lines().any(|row| row.ends_with(",0")), "some are judged: {before}");
            run(&place, &["--state", "state", "--due", &due]).exits(0);
            assert_eq!(place.read(&file), before);
        }
    }
    assert_eq!(judgements(&place), reference());
}

#[test]
fn nights_that_are_killed_and_resumed_are_judged_the_same() {
    let place = Place::new();
    let mut dice = fastrand::Rng::with_seed(14);
    let (mut killed, mut resumed) = (0, 0);
    for night in nights() {
        let due = night.to_string();
        let mut kills = dice.u32(0..3);
        loop {
            let goes_on = is_unfinished(&place);
            resumed += u32::from(goes_on);
            let arguments = if goes_on { vec!["--resume"] } else { vec!["--due", &due] };
            let mut going = Going::start(&mut command(&place, &[&["--state", "state"], &arguments[..]].concat()));
            if kills == 0 {
                going.end().exits(0);
                break;
            }
            kills -= 1;
            match dice.u32(0..4) {
                0 => {}
                1 => going.until_it_says("INFO  run "),
                2 => going.until_it_says("stage=rows"),
                _ => going.until_it_says("stage=nights"),
            }
            thread::sleep(Duration::from_millis(dice.u64(0..60)));
            going.signal(rustix::process::Signal::KILL);
            let done = going.end();
            assert!([0, 1009].contains(&done.code), "{done:?}");
            killed += u32::from(done.code == 1009);
        }
    }
    assert!(killed >= 10 && resumed >= 10, "{killed} killed, {resumed} resumed");
    assert_eq!(judgements(&place), reference());
}

/// A run of the job in the place's state has not come to its end.
fn is_unfinished(place: &Place) -> bool {
    let dir = place.path("state");
    let options = StateOptions { dir: &dir, now_ms: 0, instance: "test", accept_new: false };
    let (store, _) = Sqlite::durable(&options).expect("the state opens");
    let store = std::sync::Arc::new(store);
    futures_lite::future::block_on(async {
        let unfinished = State::new(store.clone()).unfinished(Some(JOB)).await.expect("it answers");
        store.close().await;
        !unfinished.is_empty()
    })
}

#[test]
fn a_run_that_is_not_kept_says_once_that_it_remembers_nothing() {
    let remark = "this run is not kept: `state` is null in it, and what `Keep` is given is forgotten";
    let place = Place::new();
    for trial in [&["--no-state"][..], &["--limit", "900"], &["--dry-run"]] {
        let arguments = [trial, &["--due", "2016-04-08", "--state", "state"]].concat();
        let done = run(&place, &arguments).exits(0);
        assert_eq!(done.stderr.matches(remark).count(), 1, "{trial:?}: {}", done.stderr);
        let kept = "nights F04: Keep '($state // []) + [select(.valid == 1).median_hr] | .[-14:]'";
        assert_eq!(done.stderr.contains(kept), trial == ["--dry-run"], "{trial:?}: {}", done.stderr);
        assert!(!place.path("state").exists(), "{trial:?}");
    }
    let done = run(&place, &["--state", "state", "--due", "2016-04-08"]).exits(0);
    assert!(!done.stderr.contains("not kept"), "{}", done.stderr);
}
