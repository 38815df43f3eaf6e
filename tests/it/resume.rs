//! A run whose process is killed: what the next one does with it.

use super::util::{Going, Place, until};
use rustix::process::Signal;
use std::{collections::BTreeMap, fs};

/// Forty items, each a child that writes its key into a log. While there is a file `most`, with a number in it, those that find
/// so many lines in the log do not end, but for `K0`.
const JOB: &str = r#"Job(stages: [
    Stage(name: "list", key: "K{{ item.n }}", run: [Jq(filter: "range(40) | {n: .}")]),
    Stage(name: "work", workers: 4, run: [Exec(sh: "echo \"$LAMPLIGHTER_KEY\" >> ../log
        while test $LAMPLIGHTER_KEY != K0 && test -e ../most && test $(wc -l < ../log) -ge $(cat ../most); do sleep 0.02; done")]),
    Stage(name: "report", gather: All, run: [Jq(filter: "[items.n] | sort | length"), Write(json: "n.json")]),
])"#;

/// How often each key stands in the log.
fn worked(place: &Place) -> BTreeMap<String, u32> {
    let mut times = BTreeMap::new();
    for key in fs::read_to_string(place.path("log")).unwrap_or_default().lines() {
        *times.entry(key.to_owned()).or_default() += 1;
    }
    times
}

/// Items of the second stage that are done, as another process sees them.
fn on_the_disk(place: &Place) -> usize {
    let shown = place.run(&["show", "night", "--format", "json"]);
    if shown.code != 0 { 0 } else { shown.json()["stages"][1]["ok"].as_u64().unwrap_or(0) as usize }
}

/// A run of the job that is at work, and does not end while there is a file `most`.
fn begun(place: &Place, most: usize) -> Going {
    place.write("most", &most.to_string());
    Going::start(&mut place.command(&["run", "night"]))
}

/// A run of the job that was killed when so many items had begun.
fn killed(place: &Place, most: usize) {
    killed_when(place, most, || worked(place).len() >= most);
}

fn killed_when(place: &Place, most: usize, is_time: impl Fn() -> bool) {
    let going = begun(place, most);
    until("the time to kill it", is_time);
    going.signal(Signal::KILL);
    assert_eq!(going.end().code, 1000 + 9);
    fs::remove_file(place.path("most")).expect("it was there");
}

#[test]
fn a_killed_run_goes_on_where_it_was() {
    for begun in [1, 9, 39, 0] {
        let place = Place::with_job("night", JOB);
        match begun {
            0 => killed_when(&place, 20, || on_the_disk(&place) >= 4),
            begun => killed(&place, begun),
        }
        let done = on_the_disk(&place);
        let record = place.run(&["run", "night", "--resume", "--format", "json"]).exits(0).json();
        assert_eq!((&record["stages"][1]["items"], &record["stages"][1]["ok"]), (&40.into(), &40.into()), "{record}");
        assert_eq!(place.read("out/n.json").trim(), "40");
        let after = worked(&place);
        assert_eq!(after.len(), 40);
        // What is on the disk is done; the rest may have been in flight.
        assert!(after.values().all(|times| *times <= 2), "{after:?}");
        let repeated = after.values().filter(|times| **times > 1).count();
        assert!(repeated <= 40 - done, "{repeated} were repeated, and {done} were on the disk");
        // There is nothing to go on with: a new one begins.
        let done = place.run(&["run", "night", "--resume"]).exits(0);
        done.says("there is no run of `night` to go on with");
        assert!(worked(&place).values().all(|times| *times >= 2));
    }
}

#[test]
fn a_plain_run_settles_the_one_that_was_killed_and_says_so() {
    let place = Place::with_job("night", JOB);
    killed(&place, 5);
    place.run(&["run", "night"]).exits(0).says("is settled as interrupted");
    place.run(&["run", "night", "--resume"]).exits(0).says("there is no run of `night` to go on with");
}

#[test]
fn a_job_that_runs_is_not_started_again_and_a_trial_is() {
    let place = Place::with_job("night", JOB);
    let going = begun(&place, 1);
    until("it works", || !worked(&place).is_empty());
    place.run(&["run", "night"]).exits(4).says("the job runs already: ");
    place.run(&["run", "night", "--limit", "1"]).exits(0);
    place.run(&["run", "night", "--limit", "1", "--no-state"]).exits(0);
    fs::remove_file(place.path("most")).expect("it was there");
    going.end().exits(0);
}

#[test]
fn children_of_a_killed_run_are_ended_before_anything_runs_again() {
    left_by_a_kill(&["--resume"]);
    // A new run settles the old one.
    left_by_a_kill(&[]);
}

fn left_by_a_kill(how: &[&str]) {
    let job = r#"Job(stages: [
        Stage(name: "one", run: [Items(list: [1])]),
        Stage(name: "work", run: [Exec(sh: "if test -e ../second; then exit 0; fi; touch ../second; echo $$ > ../log; exec sleep 600")]),
    ])"#;
    let place = Place::with_job("night", job);
    killed(&place, 1);
    let child = fs::read_to_string(place.path("log")).expect("its number").trim().to_owned();
    let is_there = || fs::read_to_string(format!("/proc/{child}/cmdline")).is_ok_and(|line| line.contains("sleep"));
    assert!(is_there(), "the child outlives a program that is killed");
    place.run(&[&["run", "night"], how].concat()).exits(0);
    assert!(!is_there(), "it was ended");
}

#[test]
fn temporary_files_of_a_killed_run_are_gone_after_the_next_one_and_those_of_others_stay() {
    left_half_written(true);
    left_half_written(false);
}

fn left_half_written(resumed: bool) {
    let place = Place::with_job("night", JOB);
    killed(&place, 5);
    let history = place.run(&["history", "--format", "json"]).exits(0).json();
    let run = history["runs"][0]["run"].as_str().expect("an id").to_owned();
    let half = format!("out/deep/er/.lamplighter-{run}-0123456789abcdef.tmp");
    place.write(&half, "half a report");
    place.write("out/deep/.lamplighter-another-0123456789abcdef.tmp", "of a run that may be alive");
    // Also when nobody goes on with it.
    let how = if resumed { &["run", "night", "--resume"][..] } else { &["run", "night"] };
    place.run(how).exits(0);
    assert!(!place.path(&half).exists(), "{how:?}");
    assert!(place.path("out/deep/.lamplighter-another-0123456789abcdef.tmp").exists());
}

#[test]
fn items_in_flight_at_a_crash_are_held_until_somebody_says_so() {
    let job = r#"Job(stages: [
        Stage(name: "list", key: "{{ item }}", run: [Items(list: ["a", "b", "c", "d", "e", "f"])]),
        Stage(name: "work", workers: 2, on_crash: Hold, tolerate: "100%", run: [
            Exec(sh: "echo \"$LAMPLIGHTER_KEY\" >> ../log; test -e ../go || exec sleep 600"),
        ]),
    ])"#;
    let place = Place::with_job("night", job);
    killed(&place, 2);
    let held: Vec<String> = worked(&place).into_keys().collect();
    place.write("go", "");
    let ended = |arguments: &[&str], code| {
        let record = place.run(&[arguments, &["--format", "json"]].concat()).exits(code).json();
        (record["stages"][1]["ok"].as_u64(), record["stages"][1]["held"].as_u64())
    };
    assert_eq!(ended(&["run", "night", "--resume"], 3), (Some(4), Some(2)));
    assert!(worked(&place).values().all(|times| *times == 1), "nothing ran twice");
    assert_eq!(ended(&["retry", "night"], 3), (Some(4), Some(2)), "they stay held");
    assert_eq!(ended(&["retry", "night", "--held"], 0), (Some(6), Some(0)));
    let twice: Vec<String> = worked(&place).into_iter().filter(|(_, times)| *times == 2).map(|(key, _)| key).collect();
    assert_eq!(twice, held);
}

#[test]
fn a_run_that_ends_the_program_again_and_again_is_quarantined() {
    let job = r#"Job(stages: [
        Stage(name: "list", key: "{{ item }}", run: [Items(list: ["poison"])]),
        Stage(name: "work", run: [Exec(sh: "echo \"$LAMPLIGHTER_KEY\" >> ../log; kill -9 $PPID")]),
    ], on_finish: [Notify(run: [Exec(argv: ["sh", "-c", "echo $0 >> ../told", "{{ run.summary }}"])])])"#;
    let place = Place::with_job("night", job);
    place.run(&["run", "night"]).exits(1000 + 9);
    let mut crashes = 1;
    let end = loop {
        let done = place.run(&["run", "night", "--resume"]);
        if done.code != 1000 + 9 {
            break done;
        }
        crashes += 1;
        assert!(crashes < 10, "it goes on for ever");
    };
    end.exits(1).says("it is quarantined and not resumed any more");
    assert!((3..=4).contains(&crashes), "{crashes} crashes, of which three without progress are too many");
    assert_eq!(worked(&place)["poison"], crashes);
    assert_eq!(place.read("told"), "night quarantined: it ended the program too often without getting on\n", "at once");
    place.run(&["history"]).exits(0).prints("night  quarantined");
    place.run(&["show", "night"]).exits(0).prints("it ended the program too often without getting on");
    // The job is free for a new run.
    place.run(&["run", "night"]).exits(1000 + 9);
}
