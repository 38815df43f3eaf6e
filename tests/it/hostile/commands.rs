//! Words on the command line that make no sense, and job files that are none.

use super::bench::Night;
use std::{fs, os::unix::fs::symlink, process::Command};

const JOB: &str = r#"Job(params: {"n": 1, "t": "x", "l": [1], "b": true}, stages: [
    Stage(name: "s", key: "{{ item }}", run: [Items(list: ["a", "b"])]), Stage(name: "w", run: [Write(json: "{{ key }}")]),
])"#;

#[test]
fn arguments_that_make_no_sense_are_refused_before_anything_runs() {
    for (arguments, says) in [
        (&["--set", "n=abc"][..], "`n` takes a number"),
        (&["--set", "n"], "--set takes KEY=VALUE"),
        (&["--set", "n=1e999"], "`n` takes a number"),
        (&["--set", "n=NaN"], "`n` takes a number"),
        (&["--set", "n=\"x\""], "`n` takes a number, not a text"),
        (&["--set", "zz=1"], "has no param `zz`"),
        (&["--set", "l=[1"], "`l` takes a list"),
        (&["--set", "l={}"], "`l` takes a list, not an object"),
        (&["--set", "b=yes"], "`b` takes true or false"),
        (&["--limit", "-1"], "'-1'"),
        (&["--limit", "99999999999999999999"], "--limit"),
        (&["--deadline", "abc"], "--deadline"),
        (&["--due", "2026-02-30"], "is no time"),
        (&["--due", "9999-12-31T23:59:59Z"], "is no time"),
        (&["--until", "nope"], "no stage `nope`"),
    ] {
        let night = Night::new(JOB);
        let ended = night.run_with(arguments);
        assert_eq!(ended.code, Some(2), "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(says), "{arguments:?}: {}", ended.stderr);
        assert!(night.outputs().is_empty());
    }
}

#[test]
fn nothing_to_do_is_done_and_said() {
    for arguments in [["--limit", "0"], ["--key", "nope"]] {
        let night = Night::new(JOB);
        let ended = night.run_with(&arguments);
        ended.is(0, "succeeded");
        assert_eq!((ended.count("w", "items"), night.outputs().len()), (0, 0));
    }
    let ended = Night::new(JOB).run_with(&["--key", "nope"]);
    assert!(ended.stderr.contains("no item has the key `nope`"), "{}", ended.stderr);
}

#[test]
fn a_deadline_that_is_over_at_once_ends_the_run_by_name() {
    for deadline in ["1ms", "0s"] {
        let ended = Night::new(JOB).run_with(&["--deadline", deadline]);
        if ended.code != Some(0) {
            ended.is(124, "deadline_exceeded");
            assert!(!ended.complete("s") || ended.count("s", "items") == 2, "{}", ended.record);
        }
    }
}

#[test]
fn what_is_no_job_file_is_refused() {
    let night = Night::new(JOB);
    let path = night.jobs().join("night.ron");
    let texts: [(&[u8], &str); 7] = [
        (b"", "the file is empty"),
        (b"\0", "NUL"),
        (b"\xff\xfe\0", "the file is not UTF-8"),
        (&b"Job(".repeat(5000), "at most 128 brackets"),
        (&b"[".repeat(100_000), "at most 128 brackets"),
        (&b"(".repeat(100_000), "cannot run: nothing was done"),
        (&b"x".repeat(2_000_000), "the file has more than 1048576 bytes"),
    ];
    for (text, says) in texts {
        fs::write(&path, text).expect("a file");
        night.run().refused(says);
    }
    fs::remove_file(&path).expect("removed");
    night.run().refused("night.ron");
    symlink("/dev/zero", &path).expect("a symlink");
    night.run().refused("night.ron");
    fs::remove_file(&path).expect("removed");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).expect("a fifo");
    night.run().refused("night.ron");
    fs::remove_file(&path).expect("removed");
    fs::create_dir(&path).expect("a folder");
    night.run().refused("night.ron");
}

#[test]
fn side_files_that_would_block_and_handlers_that_nobody_has_are_refused() {
    for action in [r#"Jq(file: "side")"#, r#"Render(template: "side", to: "x")"#] {
        let night = Night::new(&JOB.replace(r#"Write(json: "{{ key }}")"#, action));
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        let path = night.jobs().join("side");
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).expect("a fifo");
        night.run().refused("cannot run: nothing was done");
    }
    let night = Night::new(&JOB.replace(r#"Write(json: "{{ key }}")"#, r#"Call(handler: "nope")"#));
    night.run().refused("there is no handler named `nope`");
}

#[test]
fn a_taken_port_is_said() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let program = env!("CARGO_BIN_EXE_lamplighter");
    let output = Command::new(program).args(["vendor-sim", "--listen", &address]).output().expect("the program");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code().is_some_and(|code| code != 0 && code < 128), "{stderr}");
    assert!(stderr.contains("Address already in use"), "{stderr}");
}
