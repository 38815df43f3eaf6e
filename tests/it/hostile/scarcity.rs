//! Machines that have no process, descriptor or memory left.

use super::bench::{MemoryGroup, Night, skip, there_is};
use crate::util::{Going, PROGRAM, Place};
use serde_json::{Value, json};
use std::{path::Path, process::Command};

fn items(count: usize) -> Value {
    (0..count).map(|k| json!({"k": k.to_string()})).collect()
}

/// A user that nobody is: another one for each test and for processes of tests that live at once, since a limit counts all
/// processes of a user. Of those that a namespace of users commonly maps, and none of a package.
fn nobody(test: u32) -> u32 {
    20_000 + (2 * std::process::id() + test) % 40_000
}

/// The program, where everybody can read it. Copied by another process: see [`write_program`](crate::util::write_program).
fn copy_program(to: &Path) {
    assert!(Command::new("cp").arg(PROGRAM).arg(to).status().expect("cp").success());
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Fault 39: a user with few processes. Children wait for those before them, and none fails.
#[test]
fn few_processes_make_items_wait_and_fail_none() {
    if !is_root() || !there_is("setpriv") || !there_is("prlimit") {
        return skip("a limit of processes needs root, `setpriv` and `prlimit`");
    }
    // Long enough that many are there at once, however slowly they are started.
    let exec = r#"Exec(argv: ["sleep", "1"], stdin: "x", stdout: Text)"#;
    let mut night = Night::of(&items(60), &format!(r#"workers: 40, run: [{exec}, Write(json: "{{{{ key }}}}")]"#));
    // The program itself may stand where nobody else can read it.
    let copy = night.dir.path().join("lamplighter");
    copy_program(&copy);
    let nobody = nobody(0);
    let owner = Command::new("chown").arg("-R").arg(nobody.to_string()).arg(night.dir.path()).status();
    assert!(owner.expect("chown").success());
    let (user, copy) = (format!("--reuid={nobody}"), copy.display().to_string());
    // The shell runs the copy in place of the program that the bench names.
    let words =
        ["setpriv", &user, "--clear-groups", "prlimit", "--nproc=16", "sh", "-c", r#"shift; exec "$0" "$@""#, &copy];
    night.through = words.map(str::to_owned).to_vec();
    let ended = night.run();
    ended.is(0, "succeeded");
    assert_eq!((ended.count("w", "ok"), night.outputs().len()), (60, 60));
    assert!(ended.stderr.contains("it is tried again until there is room"), "the limit was met: {}", ended.stderr);
}

/// Fault 39: not one thread can be had for a filter, for a moment: the item waits, and is not taken for one whose filter hangs.
#[test]
fn a_filter_waits_for_a_thread_that_cannot_be_had_for_now() {
    if !is_root() || !there_is("setpriv") || !there_is("prlimit") {
        return skip("a limit of processes needs root, `setpriv` and `prlimit`");
    }
    let job = r#"Job(stages: [
        Stage(name: "list", run: [Items(list: [1])]),
        Stage(name: "work", run: [Exec(argv: ["sh", "-c", "while test -d ../jobs && ! test -e ../go; do sleep 0.02; done"]), Jq(filter: ". + 1")]),
    ])"#;
    let place = Place::with_job("night", job);
    let copy = place.path("lamplighter");
    copy_program(&copy);
    let nobody = nobody(1);
    let owner = Command::new("chown").arg("-R").arg(nobody.to_string()).arg(place.path("")).status();
    assert!(owner.expect("chown").success());
    let as_nobody = || {
        let mut command = Command::new("setpriv");
        command.arg(format!("--reuid={nobody}")).arg("--clear-groups");
        command
    };
    let mut command = as_nobody();
    command.arg(&copy).args(["run", "night", "--no-state"]);
    command.current_dir(place.path("")).env("LAMPLIGHTER_LOG", "info").env("HOME", place.path(""));
    let mut going = Going::start(&mut command);
    going.until_it_says("run started");
    let pid = format!("--pid={}", going.child.id());
    let limit = |processes: &str| {
        let done = as_nobody().arg("prlimit").arg(&pid).arg(format!("--nproc={processes}:")).status();
        assert!(done.expect("prlimit").success());
    };
    limit("1");
    place.write("go", "");
    going.until_it_says("no further thread lamplighter-cpu could be started");
    limit("1000");
    going.end().exits(0);
}

/// Fault 39: the kernel refuses to fork, some times and always.
#[test]
fn a_fork_that_is_refused_is_tried_again_and_at_last_fails_by_name() {
    if !there_is("strace") {
        return skip("refused forks need `strace`");
    }
    for error in ["ENOMEM", "EAGAIN"] {
        let traced = |when: &str, count| {
            let mut night = Night::of(&items(count), r#"workers: 2, run: [Exec(argv: ["true"])]"#);
            let inject = format!("inject=vfork,fork,clone,clone3:error={error}:when={when}");
            night.through = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &inject].map(str::to_owned).to_vec();
            night
        };
        // Each thread counts by itself: further threads of the pools are refused, and then some children.
        let ended = traced("3..6", 40).run_with(&["--no-state"]);
        assert_eq!(ended.is(0, "succeeded").count("w", "ok"), 40, "{error}");
        assert!(ended.stderr.contains("it is tried again until there is room"), "{error}: {}", ended.stderr);
        // From the first: not even a thread can be had.
        let ended = traced("1+", 1).run_with(&["--no-state"]);
        assert_eq!((ended.code, ended.record.is_null()), (Some(74), true), "{}", ended.stderr);
        assert!(ended.stderr.contains("no thread can be started"), "{}", ended.stderr);
    }
}

/// Fault 40: files are opened and written, rows are stored, children started, with 40 workers and few descriptors.
#[test]
fn few_descriptors_make_files_and_rows_wait_and_fail_none() {
    let worker = r#"workers: 40, run: [
        Read(lines: "{{ item.k }}.txt", into: "lines"), Exec(argv: ["cat"], stdin: "{{ key }}", stdout: Text, into: "said"),
        Write(json: "{{ key }}"),
    ]), Stage(name: "g", gather: By("{{ item.said }}"), workers: 10, run: [Write(json: "g/{{ key }}")]"#;
    let mut night = Night::of(&items(120), worker);
    for k in 0..120 {
        night.file(&format!("{k}.txt"), "one\ntwo\n");
    }
    night.before = "ulimit -n 40".into();
    let ended = night.run();
    ended.is(0, "succeeded");
    assert_eq!((ended.count("w", "ok"), ended.count("g", "ok"), night.outputs().len()), (120, 120, 240));
}

/// Fault 40: with hardly a descriptor a run is refused or fails by name; whatever happens it ends.
#[test]
fn hardly_any_descriptors_end_the_run_by_name() {
    for most in 4..24 {
        let worker = r#"workers: 4, run: [Exec(argv: ["true"]), Write(json: "{{ key }}")]"#;
        let mut night = Night::of(&items(8), worker);
        night.before = format!("ulimit -n {most}");
        let ended = night.run();
        match ended.code {
            Some(0) => assert_eq!(ended.count("w", "ok"), 8),
            // The program, or its loader, says what it could not open.
            code => assert!(code.is_some() && !ended.stderr.is_empty(), "{most}: {code:?} {}", ended.stderr),
        }
    }
}

/// Fault 45: the bound that a job sets.
#[test]
fn a_child_over_its_memory_fails_its_item_and_nobody_else() {
    // Of a line without an end `tail` keeps it all.
    let scripts = ["sleep 0.2; head -c 2000000000 /dev/zero | tail -n 1 >/dev/null", "sleep 0.2; echo fine"];
    let items: Vec<Value> = scripts.iter().enumerate().map(|(k, p)| json!({"k": k.to_string(), "p": p})).collect();
    let exec = r#"Exec(argv: ["bash", "-e", "-o", "pipefail", "-c", "{{ item.p }}"], memory: "64MB")"#;
    let ended = Night::of(&json!(items), &format!("workers: 2, run: [{exec}]")).run();
    ended.is(1, "failed").fails("0", "exit `bash` ended with code 1; last line:").fails("0", "memory");
    assert_eq!(ended.count("w", "ok"), 1);
}

/// Fault 45: the kernel runs out of memory and takes the child, not the program.
#[test]
fn when_memory_runs_out_a_child_is_taken_and_the_run_goes_on() {
    let Some(group) = MemoryGroup::new("child", 200_000_000) else { return };
    let scripts = ["head -c 2000000000 /dev/zero | tail -n 1 | wc -c", "sleep 0.2; cat /proc/$$/oom_score_adj"];
    let items: Vec<Value> = scripts.iter().enumerate().map(|(k, p)| json!({"k": k.to_string(), "p": p})).collect();
    let exec = r#"Exec(argv: ["bash", "-e", "-o", "pipefail", "-c", "{{ item.p }}"], stdout: Text)"#;
    let mut night = Night::of(&json!(items), &format!(r#"workers: 2, run: [{exec}, Write(json: "{{{{ key }}}}")]"#));
    night.before = group.enter();
    let ended = night.run();
    ended.is(1, "failed").fails("0", "exit `bash` ended with code 137");
    assert_eq!(night.read("1"), "\"500\\n\"\n");
}
