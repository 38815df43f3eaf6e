//! The n-th call of the program that writes, syncs, opens or renames fails, for n = 1, 2, 3 .. until none is left to fail: what
//! it says then, what is on the disk, and that the next run makes it whole.
//!
//! `strace` makes the calls fail; it counts those of each thread by itself. Where it is missing the tests say so and do nothing,
//! but fail under `CI=true`.

#![allow(clippy::disallowed_methods, reason = "the program is another process, watched in real time")]

use super::{
    hostile::bench::{skip, there_is},
    left::nothing_of,
    util::{Done, Going, Place, until},
};
use rusqlite::{Connection, OpenFlags};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{BufRead, BufReader},
    os::unix::fs::DirBuilderExt,
    process::{Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

/// Six items that write a file each, and a report.
const JOB: &str = r#"Job(
    stages: [
        Stage(name: "list", key: "{{ item.id }}", run: [Jq(filter: "range(6) | {id: \"P\\(.)\"}")]),
        Stage(name: "work", workers: 2, run: [Write(json: "items/{{ key }}.json")]),
        Stage(name: "report", gather: All, run: [Jq(filter: "[items.id]"), Write(json: "report.json")]),
    ],
)"#;
const KEYS: [&str; 6] = ["P0", "P1", "P2", "P3", "P4", "P5"];

/// When calls begin to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    /// With the first one that touches the state: it is made, and the run goes as far as it can.
    Opening,
    /// When the state is open and nothing is written of the run.
    Claim,
}

/// Which call fails, and how.
#[derive(Clone, Copy, Debug)]
struct Fault {
    from: From,
    call: &'static str,
    error: &'static str,
}

fn faults() -> Vec<Fault> {
    // The calls of `open` and `fsync` have other names in some libraries.
    let opening = ["openat", "pwrite64", "fsync", "rename"].map(|call| (From::Opening, call));
    let running = ["pwrite64", "fsync", "write", "openat,open", "renameat,renameat2"].map(|call| (From::Claim, call));
    let calls = opening.into_iter().chain(running);
    calls.flat_map(|(from, call)| ["EIO", "ENOSPC"].map(|error| Fault { from, call, error })).collect()
}

impl Fault {
    /// Arguments of `strace`: `when` says which calls fail. It writes them and all that is written into a file.
    fn inject(&self, when: &str) -> Vec<String> {
        let trace = format!("trace=write,{}", self.call);
        let inject = format!("inject={}:error={}:when={when}", self.call, self.error);
        ["-f", "-y", "-s", "200", "-o", "calls", "-e", &trace, "-e", &inject].map(str::to_owned).to_vec()
    }

    /// A run in which these calls fail.
    fn meet(&self, place: &Place, when: &str) -> Met {
        let done = match self.from {
            From::Opening => self.watched_from_the_start(place, when, &OF_THE_STATE),
            From::Claim => self.watched_from_the_claim(place, when),
        };
        assert!(!done.stderr.contains("panicked"), "{done:?}");
        let calls = place.read("calls");
        let (mut failed, mut begun, mut is_settled) = (Vec::new(), BTreeMap::new(), false);
        for line in calls.lines() {
            let (thread, call) = line.split_once(' ').unwrap_or_default();
            is_settled |= call.contains("INFO  run ended");
            if call.contains("<unfinished ...>") {
                begun.insert(thread, call);
            }
            if call.contains("(INJECTED)") {
                let call = if call.contains(" resumed>") { begun[thread] } else { call };
                failed.push((call.split(" = -1 ").next().unwrap_or_default().to_owned(), is_settled));
            }
        }
        Met { done, failed }
    }

    /// Only calls that name one of these files in the folder of the state.
    fn watched_from_the_start(&self, place: &Place, when: &str, names: &[&str]) -> Done {
        let program = place.command(&RUN);
        let mut command = Command::new("strace");
        command.args(self.inject(when)).args(["-qq", "--seccomp-bpf"]);
        let state = place.path("state").canonicalize().expect("the state's folder");
        for name in names {
            let path = if name.is_empty() { state.clone() } else { state.join(name) };
            command.arg("-P").arg(path);
        }
        command.arg("--").arg(program.get_program()).args(program.get_args());
        command.current_dir(place.path("")).env_clear().stdin(Stdio::null());
        command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
        Going::start(&mut command).end()
    }

    /// The state is open when `strace` comes, and who wants to write waits for its turn.
    fn watched_from_the_claim(&self, place: &Place, when: &str) -> Done {
        let turn = File::options().write(true).open(place.path("state/turn.lock")).expect("a lock");
        turn.lock().expect("the turn");
        let mut going = Going::start(&mut place.command(&RUN));
        let pid = going.child.id().to_string();
        until("it waits for its turn", || {
            let locks = fs::read_to_string("/proc/locks").expect("what is locked");
            locks.lines().any(|line| line.contains("->") && line.split(' ').any(|word| word == pid))
        });
        let mut command = Command::new("strace");
        command.args(self.inject(when)).args(["-p", &pid]).current_dir(place.path(""));
        let mut strace = command.stderr(Stdio::piped()).spawn().expect("strace");
        let mut says = BufReader::new(strace.stderr.take().expect("stderr is piped"));
        let mut line = String::new();
        says.read_line(&mut line).expect("it says so");
        assert!(line.contains("attached"), "{line}");
        turn.unlock().expect("the turn is given back");
        // A thread is woken by a write, too: one that is lost is no fault of a disk, and its thread sleeps for ever.
        while going.child.try_wait().expect("it is watched").is_none() {
            let calls = fs::read_to_string(place.path("calls")).unwrap_or_default();
            if calls.lines().any(|call| call.contains("[eventfd]") && call.contains("(INJECTED)")) {
                going.signal(rustix::process::Signal::KILL);
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        let done = going.end();
        thread::spawn(move || says.lines().count());
        strace.wait().expect("it ends with what it watches");
        done
    }
}

const RUN: [&str; 6] = ["run", "night", "--state", "state", "--format", "json"];

/// The folder of the state and what is written in it.
const OF_THE_STATE: [&str; 9] = [
    "",
    "state.db",
    "state.db-wal",
    "state.db-journal",
    "state.db.new",
    "state.db.new-journal",
    "epochs/1.lock",
    "open.lock",
    "turn.lock",
];

/// A run some of whose calls failed.
struct Met {
    done: Done,
    /// The calls, and whether it had said by then that the run has ended. What it says is seen from the claim on.
    failed: Vec<(String, bool)>,
}

impl Met {
    /// Something failed in a file of that path before the run was settled.
    fn before_the_end(&self, path: &str) -> bool {
        self.failed.iter().any(|(call, is_settled)| call.contains(path) && !is_settled)
    }
}

/// `strace` may be attached to a program that it has not started.
fn may_attach() -> bool {
    let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    rustix::process::geteuid().is_root() || ["", "0"].contains(&scope.trim())
}

fn open(place: &Place) -> Option<Connection> {
    let file = place.path("state/state.db");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    file.exists().then(|| Connection::open_with_flags(&file, flags).expect("the state"))
}

/// Outcome and done items of the last run, as they are on the disk.
fn stored(place: &Place) -> (Option<String>, BTreeSet<String>) {
    let Some(state) = open(place) else { return Default::default() };
    let last: Option<(i64, Option<String>)> = state
        .query_row("SELECT run, outcome FROM head ORDER BY run DESC LIMIT 1", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .ok();
    let Some((run, outcome)) = last else { return Default::default() };
    let mut keys = state.prepare("SELECT key FROM item WHERE run = ?1 AND stage = 1 AND state = 0").expect("its rows");
    let keys = keys.query_map([run], |row| row.get(0)).expect("their keys");
    (outcome, keys.collect::<Result<_, _>>().expect("texts"))
}

/// The file of an item is there, and whole.
fn is_written(place: &Place, key: &str) -> bool {
    let text = fs::read_to_string(place.path(&format!("out/items/{key}.json"))).unwrap_or_default();
    text.split_whitespace().collect::<String>() == format!(r#"{{"id":"{key}"}}"#)
}

fn is_whole(place: &Place) {
    assert!(KEYS.iter().all(|key| is_written(place, key)), "{:?}", place.files());
    let report = place.read("out/report.json");
    assert_eq!(report.split_whitespace().collect::<String>(), r#"["P0","P1","P2","P3","P4","P5"]"#);
    let state = open(place).expect("a state");
    let check: String = state.query_row("PRAGMA quick_check", [], |row| row.get(0)).expect("an answer");
    assert_eq!(check, "ok");
    let mode: String = state.query_row("PRAGMA journal_mode", [], |row| row.get(0)).expect("an answer");
    assert_eq!(mode, "wal", "it has its log");
    assert_eq!(stored(place).1, KEYS.map(str::to_owned).into());
    let open: i64 =
        state.query_row("SELECT count(*) FROM head WHERE phase < 2", [], |row| row.get(0)).expect("a number");
    assert_eq!(open, 0);
}

/// A place with the job; where a run begins with its claim there was one before.
fn place(fault: &Fault) -> Place {
    let place = Place::with_job("night", JOB);
    let mut folder = fs::DirBuilder::new();
    folder.mode(0o700).create(place.path("state")).expect("a folder");
    if fault.from == From::Claim {
        place.run(&["run", "night", "--state", "state", "--due", "2026-01-01"]).exits(0);
        fs::remove_dir_all(place.path("out")).expect("outputs");
    }
    place
}

/// One run in which the n-th call fails, and what makes it whole. The exit code, or `None` when no call was left to fail.
fn one(fault: &Fault, nth: u32) -> Option<i32> {
    let place = place(fault);
    let runs = || {
        let count = |state: Connection| state.query_row("SELECT count(*) FROM run", [], |row| row.get(0)).unwrap_or(0);
        open(&place).map_or(0, count)
    };
    let before: i64 = runs();
    let met = fault.meet(&place, &nth.to_string());
    let done = &met.done;
    let (outcome, ok) = if runs() > before { stored(&place) } else { Default::default() };
    for key in &ok {
        assert!(is_written(&place, key), "{key} is called done: {done:?}");
    }
    // SQLite keeps silent about the folder of the state, which is synced by us too.
    let state_failed = match fault.from {
        From::Opening => met.before_the_end("/state.db.new") || met.before_the_end("/state.db-journal"),
        From::Claim => met.before_the_end("/state.db"),
    };
    let why = || format!("{fault:?} {nth}: {:?} {done:?}", met.failed);
    match done.code {
        0 => {
            assert!(outcome.as_deref() == Some("succeeded") && ok.len() == KEYS.len(), "{}", why());
            assert!(!state_failed && !met.before_the_end("/out"), "{}", why());
            is_whole(&place);
        }
        // An output could not be written, and that is on the disk.
        1 => assert!(outcome.as_deref() == Some("failed") && !state_failed && met.before_the_end("/out"), "{}", why()),
        // The state failed, and does not say that the run has ended; or all that failed is what was to be printed.
        74 => {
            assert!(done.stderr.contains("lamplighter: "), "{}", why());
            let is_print = |(call, _): &(String, bool)| call.trim_start().starts_with("write(1<");
            let is_unprinted = !met.failed.is_empty() && met.failed.iter().all(is_print);
            let is_lost = met.before_the_end("/state") && outcome.is_none();
            assert!(is_lost != is_unprinted, "{outcome:?} {}", why());
        }
        // It lost a wake-up, and was killed.
        1009 if met.failed.iter().any(|(call, _)| call.contains("[eventfd]")) => {}
        _ => panic!("{}", why()),
    }
    // Of what was killed half-written files are left, until the next pass.
    if done.code != 1009 {
        nothing_of(&place.path(""), None);
    }
    if done.code != 0 {
        let again = |arguments: &[&str]| place.run(&[arguments, &["--state", "state"]].concat());
        // Items whose outputs failed before the state did stay failed until somebody repeats them.
        if outcome.as_deref() == Some("failed") || again(&["run", "night", "--resume"]).code == 1 {
            again(&["retry", "night"]).exits(0);
        }
        is_whole(&place);
    }
    (!met.failed.is_empty()).then_some(done.code)
}

#[test]
fn every_call_that_fails_is_said_and_made_up_for() {
    if !there_is("strace") || !may_attach() {
        return skip("calls that fail need `strace`, and the right to attach it");
    }
    let (all, next, told) = (faults(), AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(fault) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let mut codes = Vec::new();
                    let mut nth = 1;
                    while let Some(code) = one(fault, nth) {
                        codes.push(code);
                        nth += 1;
                    }
                    told.lock().expect("nobody panics").push((*fault, codes));
                }
            });
        }
    });
    let told = told.into_inner().expect("nobody panics");
    for (Fault { from, call, error }, codes) in &told {
        let count = |code| codes.iter().filter(|found| **found == code).count();
        println!(
            "{from:?} {call} {error}: {} runs; exit 74: {}, 1: {}, 0: {}",
            codes.len(),
            count(74),
            count(1),
            count(0)
        );
        assert!(!codes.is_empty(), "{call} was never met");
    }
    println!("{} calls failed", told.iter().map(|(_, codes)| codes.len()).sum::<usize>());
}

/// SQLite keeps silent when the folder of a new log cannot be synced: the log could be gone after a power cut, and what was
/// committed with it.
#[test]
fn a_folder_of_the_state_that_cannot_be_synced_is_said() {
    if !there_is("strace") {
        return skip("calls that fail need `strace`");
    }
    let fault = Fault { from: From::Claim, call: "fsync", error: "EIO" };
    let place = place(&fault);
    let done = fault.watched_from_the_start(&place, "1+", &[""]);
    assert!(place.read("calls").contains("(INJECTED)"));
    done.exits(74).says("the state cannot be opened");
}
