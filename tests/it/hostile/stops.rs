//! Signals while each kind of stage is at work, and ends of the program that no signal handler sees.

use super::bench::{MemoryGroup, skip, there_is};
use crate::{
    left::nothing_of,
    util::{Act, Going, Place, Scripted},
};
use rustix::process::Signal;
use serde_json::Value;
use std::{fs, process::Command, thread};

/// Says in a file that it is there, and goes on for an hour; TERM ends it.
const WAITS: &str = r#"Exec(sh: "touch ../there; exec sleep 3600")"#;

/// The same, deaf to TERM.
const DEAF: &str = r#"Exec(sh: "trap '' TERM INT; touch ../there; while test -d ../jobs; do sleep 0.05; done")"#;

/// A job that is at work in a stage of this kind when the file `there` appears.
fn at_work_in(kind: &str, base: &str, action: &str) -> String {
    let list = r#"Stage(name: "list", key: "{{ item }}", run: [Items(list: ["a", "b", "c"])])"#;
    let stages = match kind {
        "a source" => format!(r#"Stage(name: "list", run: [{action}])"#),
        "a worker stage" => format!(r#"{list}, Stage(name: "work", workers: 2, run: [{action}])"#),
        "a call" => format!(
            r#"{list}, Stage(name: "work", workers: 2, run: [Exec(sh: "touch ../there"), Http(get: "{base}/silent")])"#
        ),
        "a retry" => format!(
            r#"{list}, Stage(name: "work", retry: Retry(max_attempts: 9, initial_interval: "5s", max_interval: "5s"), run: [Exec(sh: "touch ../there; false")])"#
        ),
        "a wait in the store" => format!(
            r#"{list}, Stage(name: "work", retry: Retry(max_attempts: 9, initial_interval: "1h", max_interval: "1h"), run: [Exec(sh: "touch ../there; false")])"#
        ),
        "a gather" => format!(r#"{list}, Stage(name: "all", gather: All, run: [{action}])"#),
        "a group" => format!(r#"{list}, Stage(name: "by", gather: By("{{{{ key }}}}"), workers: 2, run: [{action}])"#),
        "a filter" => format!(
            r#"{list}, Stage(name: "work", run: [Exec(sh: "touch ../there"), Jq(filter: "[limit(3e7; repeat(1))] | length")])"#
        ),
        other => panic!("{other}"),
    };
    format!("Job(stages: [{stages}, Stage(name: \"end\", gather: All, run: [Write(json: \"x.json\")])])")
}

const KINDS: [&str; 8] =
    ["a source", "a worker stage", "a call", "a retry", "a wait in the store", "a gather", "a group", "a filter"];

fn until_there(place: &Place, going: &mut Going) {
    while !place.path("there").exists() && going.child.try_wait().expect("it is watched").is_none() {
        thread::yield_now();
    }
}

/// Fault 18: the first signal ends the run in any stage: it is settled as cancelled, on the disk, nothing of it is left, and
/// `retry` does the rest. Two at once kill.
#[test]
fn signals_end_a_run_in_every_kind_of_stage() {
    let vendor = Scripted::start(|_| Act::Silence);
    for kind in KINDS {
        for (signals, action, code) in [
            (&[Signal::TERM][..], WAITS, 143),
            (&[Signal::INT], WAITS, 130),
            (&[Signal::TERM, Signal::TERM], DEAF, 143),
            (&[Signal::INT, Signal::TERM], DEAF, 130),
        ] {
            if signals.len() == 2 && !at_work_in(kind, "", DEAF).contains(DEAF) {
                continue;
            }
            let place = Place::with_job("night", &at_work_in(kind, &vendor.base, action));
            place.write("lamplighter.ron", r#"Config(grace_period: "1h")"#);
            let mut going = Going::start(&mut place.command(&["run", "night", "--format", "json"]));
            until_there(&place, &mut going);
            for (at, signal) in signals.iter().enumerate() {
                if at > 0 {
                    going.until_it_says("once more kills what is left");
                }
                going.signal(*signal);
            }
            let done = going.end().exits(code);
            let record: Value = done.json();
            assert_eq!(record["outcome"], "cancelled", "{kind}: {record}");
            nothing_of(&place.path(""), record["run"].as_str());
            assert!(!place.path("out/x.json").exists(), "{kind}");
            let shown = place.run(&["show", "night", "--format", "json"]).exits(0).json();
            let ended = (&shown["run"], &shown["state"], &shown["outcome"]);
            assert_eq!(ended, (&record["run"], &"ended".into(), &"cancelled".into()), "{kind}: it is on the disk");
        }
    }
}

/// Fault 18: what a signal cut is done by `retry`, and what was done is not done again.
#[test]
fn what_a_signal_cut_is_done_by_a_retry() {
    let job = r#"Job(stages: [
        Stage(name: "list", key: "{{ item }}", run: [Items(list: ["a", "b", "c"])]),
        Stage(name: "work", run: [Exec(sh: "echo \"$LAMPLIGHTER_KEY\" >> ../log; test $LAMPLIGHTER_KEY = a || test -e ../go || { touch ../there; exec sleep 3600; }")]),
        Stage(name: "end", gather: All, run: [Write(json: "x.json")]),
    ])"#;
    let place = Place::with_job("night", job);
    let mut going = Going::start(&mut place.command(&["run", "night"]));
    until_there(&place, &mut going);
    going.signal(Signal::TERM);
    going.end().exits(143);
    place.write("go", "");
    place.run(&["retry", "night"]).exits(0);
    assert_eq!(place.read("log").split_whitespace().collect::<Vec<_>>(), ["a", "b", "b", "c"]);
    assert!(place.path("out/x.json").exists());
}

/// Fault 18: in a notice a signal ends the wait for it, and the next run of the job sends it again.
#[test]
fn a_signal_ends_the_wait_for_a_notice() {
    let job = r#"Job(run: [Exec(argv: ["true"])], on_finish: [Notify(when: [Succeeded], run: [
        Exec(sh: "echo told >> ../log; touch ../there; test -e ../go || exec sleep 3600"),
    ])])"#;
    let place = Place::with_job("quick", job);
    let mut going = Going::start(&mut place.command(&["run", "quick"]));
    until_there(&place, &mut going);
    going.signal(Signal::TERM);
    going.end().exits(0);
    place.write("go", "");
    place.run(&["run", "quick"]).exits(0).says("the notices of");
    assert_eq!(place.read("log").lines().count(), 3);
}

/// Fault 34: everything that a killed program left is ended before anything runs again: children, what left their groups,
/// and what stopped itself or is deaf.
#[test]
fn whatever_a_killed_program_left_is_ended_before_anything_runs_again() {
    let job = r#"Job(stages: [
        Stage(name: "list", key: "{{ item }}", run: [Items(list: ["plain", "setsid", "deaf", "stopped", "family"])]),
        Stage(name: "work", workers: 5, run: [Exec(env: {"KIND": "{{ item }}"}, sh: "
            if test -e ../go; then
                for process in /proc/[0-9]*; do
                    test \"$(readlink $process/cwd)\" = \"$PWD\" && grep -x sleep $process/comm >> ../living || true
                done
                exit 0
            fi
            case $KIND in
                plain) echo 1 >> ../log; exec sleep 3600 ;;
                setsid) setsid sleep 3600 & echo 1 >> ../log; wait ;;
                deaf) trap '' TERM; echo 1 >> ../log; while test -d ../jobs; do sleep 3600; done ;;
                stopped) echo 1 >> ../log; kill -STOP $$; exec sleep 3600 ;;
                family) (sleep 3600 & sleep 3600) & echo 1 >> ../log; wait ;;
            esac
        ")]),
    ])"#;
    for how in [&["--resume"][..], &[]] {
        let place = Place::with_job("night", job);
        place.write("lamplighter.ron", r#"Config(grace_period: "200ms")"#);
        let mut going = Going::start(&mut place.command(&["run", "night"]));
        while fs::read_to_string(place.path("log")).unwrap_or_default().lines().count() < 5
            && going.child.try_wait().expect("it is watched").is_none()
        {
            thread::yield_now();
        }
        going.signal(Signal::KILL);
        going.end();
        place.write("go", "");
        place.run(&[&["run", "night"], how].concat()).exits(0);
        assert_eq!(fs::read_to_string(place.path("living")).unwrap_or_default(), "", "{how:?}: they ran beside");
        nothing_of(&place.path(""), None);
    }
}

/// Fault 35: the process ids of a killed run are used again by others, of other runs too: they are let alone.
#[test]
fn a_process_that_has_the_number_of_a_dead_child_is_let_alone() {
    let last = "/proc/sys/kernel/ns_last_pid";
    let spaces = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];
    let works = Command::new(spaces[0]).args(&spaces[1..]).args(["sh", "-c", &format!("echo 9 > {last}")]).output();
    if !there_is("unshare") || !works.is_ok_and(|done| done.status.success()) {
        return skip("to choose process ids needs root and `unshare`");
    }
    let job = r#"Job(stages: [
        Stage(name: "list", run: [Items(list: [1])]),
        Stage(name: "work", run: [Exec(sh: "test -e ../go && exit 0; echo $$ > ../child; exec sleep 3600")]),
    ])"#;
    for mark in ["", "LAMPLIGHTER_RUN=20200101T000000Z-00000000"] {
        let place = Place::with_job("night", job);
        // All dead, one comes back as a stranger; the next run must not touch it.
        let script = format!(
            "\"$0\" run night & program=$!
            until test -s child; do sleep 0.01; done
            child=$(cat child); kill -9 $program $child; wait
            for try in $(seq 50); do
                sleep 0.02
                echo $((child - 1)) > {last}; env {mark} sleep 3600 & stranger=$!
                test $stranger = $child && break; kill $stranger
            done
            echo \"$stranger is $child\"; touch go
            \"$0\" run night --resume || exit
            kill -0 $stranger && echo it lives; kill $stranger"
        );
        let program = crate::util::PROGRAM;
        let mut command = place.command(&[]);
        let done = Command::new(spaces[0])
            .args(&spaces[1..])
            .args(["sh", "-c", &script, program])
            .current_dir(place.path(""))
            .envs(command.env("NO_COLOR", "1").get_envs().filter_map(|(name, value)| Some((name, value?))))
            .output()
            .expect("unshare");
        let said = String::from_utf8_lossy(&done.stdout);
        let numbers = said.lines().find_map(|line| line.split_once(" is ")).unwrap_or_else(|| panic!("{done:?}"));
        assert_eq!(numbers.0, numbers.1, "{said}");
        assert!(said.contains("it lives"), "{mark}: {done:?}");
    }
}

/// A run whose item holds more memory than there is, while the file `small` is there.
const LARGE: &str = r#"Job(stages: [
    Stage(name: "list", key: "{{ item }}", run: [Items(list: ["a", "b", "c", "d"])]),
    Stage(name: "work", run: [Exec(sh: "echo \"$LAMPLIGHTER_KEY\" >> ../log; test -e ../small || test $LAMPLIGHTER_KEY != c || head -c 250000000 /dev/zero | tr '\\0' x", stdout: Text), Jq(filter: "length")], max_value: "300MB"),
    Stage(name: "end", gather: All, run: [Write(json: "x.json")]),
])"#;

/// Goes on after the program ended over `c`.
fn goes_on_after(place: &Place) {
    let shown = place.run(&["show", "night", "--format", "json"]).exits(0).json();
    assert_eq!(shown["state"], "interrupted", "{shown}");
    place.write("small", "");
    place.run(&["run", "night", "--resume"]).exits(0);
    let shown = place.run(&["show", "night", "--format", "json"]).exits(0).json();
    assert_eq!((&shown["passes"], &shown["crashes"], &shown["outcome"]), (&2.into(), &1.into(), &"succeeded".into()));
    let log = place.read("log");
    assert_eq!(log.split_whitespace().filter(|key| *key == "c").count(), 2, "{log}");
    nothing_of(&place.path(""), shown["run"].as_str());
}

/// Fault 59: memory that cannot be had ends the program, as a crash does, and the run goes on.
#[test]
fn an_allocation_that_fails_is_a_crash_and_the_run_goes_on() {
    if !there_is("prlimit") {
        return skip("a limit of address space needs `prlimit`");
    }
    let place = Place::with_job("night", LARGE);
    let run = place.command(&["run", "night"]);
    let mut command = Command::new("prlimit");
    command.args(["--as=300000000", "--core=0"]).arg(run.get_program()).args(run.get_args());
    command.current_dir(place.path("")).envs(run.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let done = Going::start(&mut command).end();
    assert_eq!(done.code, 1000 + 6, "{done:?}");
    done.says("memory allocation of");
    goes_on_after(&place);
}

/// Fault 46: the kernel runs out of memory and takes the program itself.
#[test]
fn when_memory_runs_out_and_the_program_is_taken_the_run_goes_on() {
    let Some(group) = MemoryGroup::new("program", 150_000_000) else { return };
    let place = Place::with_job("night", LARGE);
    let run = place.command(&["run", "night"]);
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{}; exec \"$0\" \"$@\"", group.enter())]).arg(run.get_program());
    command.args(run.get_args()).current_dir(place.path(""));
    command.envs(run.get_envs().filter_map(|(name, value)| Some((name, value?))));
    assert_eq!(Going::start(&mut command).end().code, 1000 + 9);
    goes_on_after(&place);
}
