//! Children that do not start, do not end, flood, hide and lie.

use super::bench::Night;
use crate::util::write_program;
use serde_json::{Value, json};
use std::{
    fs,
    io::Read,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
};

/// One item for each text, with its place as its key and the text as `p`.
fn each(texts: &[&str], worker: &str) -> Night {
    let items: Vec<Value> =
        texts.iter().enumerate().map(|(place, text)| json!({"k": place.to_string(), "p": text})).collect();
    Night::of(&json!(items), worker)
}

/// The script as the only child of one item.
fn one(exec: &str, stage: &str) -> Night {
    each(&[""], &format!("{stage} run: [Exec({exec}), Write(json: \"x.json\")]"))
}

/// Fault 38, and what data may do to a command line.
#[test]
fn an_argument_from_data_is_one_argument_and_never_an_option() {
    let big = "x".repeat(200_000);
    let texts = ["-rf", "--out=/x", "a\0b", &big, "; id", "$(id)", "a\nb", "", "'\"", "é"];
    let exec = r#"run: [Exec(argv: ["printf", "%s|", "{{ item.p }}"], stdout: Text), Write(json: "{{ key }}")]"#;
    let night = each(&texts, exec);
    let ended = night.run();
    ended.is(1, "failed");
    for key in ["0", "1"] {
        ended.fails(key, "data argv[2] begins with `-` from data");
    }
    ended.fails("2", "a NUL character").fails("3", "more than the system takes: give large values by `stdin`");
    ended.fails("3", "its arguments and environment have 200");
    for (place, text) in texts.iter().enumerate().skip(4) {
        let printed: String = serde_json::from_str(&night.read(&place.to_string())).expect("JSON");
        assert_eq!(printed, format!("{text}|"));
    }
    let exec = r#"run: [Exec(argv: ["echo", "--", "{{ item.p }}"], stdout: Text), Write(json: "{{ key }}")]"#;
    each(&["-rf"], exec).run().is(0, "succeeded");
}

/// Fault 37.
#[test]
fn what_cannot_be_started_is_named_with_its_cause() {
    // A whole program, for a machine that does not exist.
    let mut elsewhere = fs::read("/bin/true").expect("a program");
    elsewhere[18..20].copy_from_slice(&[0xfe, 0xff]);
    for (mode, body, says) in [
        (0o644, &b"#!/bin/sh\n"[..], "it is not executable: chmod +x"),
        (0o755, b"#!/no/such\n", "its interpreter `/no/such` is not there"),
        (0o755, b"echo hi\n", "no program for this machine"),
        (0o755, b"\x7fELFnonsense", "no program for this machine"),
        (0o755, b"", "no program for this machine"),
        (0o755, &elsewhere, "no program for this machine"),
    ] {
        let night = one(r#"argv: ["./x.sh"]"#, "");
        let path = night.jobs().join("x.sh");
        write_program(&path, body);
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
        night.run().is(1, "failed").fails("0", "exit cannot start `").fails("0", says);
    }
    one(r#"argv: ["no-such-program"]"#, "").run().is(1, "failed").fails("0", "no program of that name in PATH");
    one(r#"argv: ["./missing.sh"]"#, "").run().fails("0", "No such file or directory");
    one(r#"argv: ["./"]"#, "").run().fails("0", "it is a folder");
}

/// Fault 37: a program that somebody still writes. It is started again only where the stage says so.
#[test]
fn a_program_that_is_being_written_is_named_and_repeated_only_where_the_stage_says_so() {
    let retry = r#"retry: Retry(max_attempts: 3, initial_interval: "1ms"),"#;
    for (stage, attempts) in [("", 1), (retry, 3)] {
        let night = one(r#"argv: ["./x"]"#, stage);
        let path = night.jobs().join("x");
        write_program(&path, &fs::read("/bin/true").expect("a program"));
        // Another process: what this one has open, a child that another test just starts has too.
        let mut writer = Command::new("sh");
        writer.args(["-c", "exec 9>> \"$0\"; echo open; exec cat"]).arg(&path);
        let mut writer = writer.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a shell");
        let mut says = [0; 4];
        writer.stdout.take().expect("stdout is piped").read_exact(&mut says).expect("it is open");
        let ended = night.run();
        ended.is(1, "failed").fails("0", "exit cannot start `x`: Text file busy");
        assert_eq!(ended.count("w", "attempts"), attempts);
        drop(writer.stdin.take());
        assert!(writer.wait().expect("it ends").success());
        night.run().is(0, "succeeded");
    }
    // What cannot be mended by waiting is never repeated.
    let ended = one(r#"argv: ["./nope"]"#, retry).run();
    assert_eq!(ended.is(1, "failed").count("w", "attempts"), 1);
}

/// Fault 42: what a child prints, to the byte where it is a value, and harmless where people read it.
#[test]
fn what_a_child_prints_is_kept_as_it_is_and_steers_nothing() {
    let evil = "printf 'a\\r\\nb\\0c\\033[2J\\033]0;title\\007\\302\\233 <script>&\\nlast'";
    let worker = format!(
        r#"run: [Exec(sh: {}, stdout: Text), Write(json: "x.json"), Render(template: "t.html", to: "x.html"),
            Exec(sh: {})]"#,
        json!(evil),
        json!(format!("{evil}; {evil} >&2; exit 3"))
    );
    let night = each(&[""], &worker);
    night.file("t.html", "<p>{{ value }}</p>");
    let ended = night.run();
    ended.is(1, "failed").fails("0", "ended with code 3; last line: last");
    let text: String = serde_json::from_str(&night.read("x.json")).expect("JSON");
    assert_eq!(text, "a\r\nb\0c\u{1b}[2J\u{1b}]0;title\u{7}\u{9b} <script>&\nlast");
    assert!(!night.read("x.html").contains("<script>"), "{}", night.read("x.html"));
    for shown in [&ended.stderr, &ended.record.to_string()] {
        assert!(!shown.contains(['\u{1b}', '\u{7}', '\u{9b}', '\0', '\r']), "{shown:?}");
    }
    assert!(ended.stderr.contains("\\u{1b}[2J"), "{}", ended.stderr);
    // The summary for people.
    let human = std::process::Command::new(env!("CARGO_BIN_EXE_lamplighter"))
        .arg("run")
        .arg(night.jobs().join("night.ron"))
        .current_dir(night.dir.path())
        .env("XDG_STATE_HOME", night.dir.path())
        .output()
        .expect("the program runs");
    let human = String::from_utf8(human.stdout).expect("UTF-8");
    assert!(human.contains("last line: last") && !human.contains(['\u{1b}', '\u{7}', '\0']), "{human:?}");
    // Bytes that are no text are refused by name, and shown with a mark in the log.
    let broken = r##"run: [Exec(sh: r#"printf 'a\377b\n'"#), Exec(sh: r#"printf '\377'"#, stdout: Text)]"##;
    let ended = each(&[""], broken).run();
    ended.is(1, "failed").fails("0", "data what `sh` printed is not UTF-8");
    assert!(ended.stderr.contains("a\u{fffd}b"), "{}", ended.stderr);
}

/// Fault 43: a child has SIGPIPE as it was born with: `yes | head` ends.
#[test]
fn a_child_is_ended_by_a_broken_pipe_as_anywhere() {
    let script = "yes | head -n 1 >/dev/null; test ${PIPESTATUS[0]} = 141";
    each(&[script], r#"run: [Exec(argv: ["bash", "-c", "{{ item.p }}"])]"#).run().is(0, "succeeded");
}

#[test]
fn large_and_broken_environment_and_folders_are_item_failures() {
    let big = "x".repeat(200_000);
    let night = each(&["a\0b", &big, "ok"], r#"run: [Exec(argv: ["true"], env: {"X": "{{ item.p }}"})]"#);
    let ended = night.run();
    ended.is(1, "failed").fails("0", "a NUL character").fails("1", "more than the system takes");
    assert_eq!(ended.count("w", "ok"), 1);
    let night = each(&["nope", "a\0b"], r#"run: [Exec(argv: ["true"], cwd: "{{ item.p }}")]"#);
    night.run().is(1, "failed").fails("0", "there is no folder").fails("1", "a NUL character");
}

/// Fault 41: gigabytes without a line end, in 400 MB of address space; what is not logged is counted.
#[test]
fn a_flood_without_a_line_end_is_read_in_flat_memory() {
    let mut night = one(r#"sh: "head -c 300000000 /dev/zero""#, "");
    night.before = "ulimit -v 400000".into();
    night.run().is(0, "succeeded");
    let mut night = one(r#"sh: "yes | head -n 3000000""#, "");
    night.before = "ulimit -v 400000".into();
    let ended = night.run();
    assert!(ended.is(0, "succeeded").stderr.contains("and 2999000 more lines that are not logged"));
    for stdout in ["Text", "Lines"] {
        let mut night = one(&format!(r#"sh: "head -c 20000000000 /dev/zero", stdout: {stdout}"#), "");
        night.before = "ulimit -v 400000".into();
        night.run().is(1, "failed").fails("0", "too_large `sh` printed");
    }
    one(r#"argv: ["yes"], stdout: Lines"#, "").run().fails("0", "too_large the item gave more than 10000 values");
    one(r#"argv: ["yes"]"#, "timeout: \"300ms\",").run().is(1, "failed").fails("0", "timeout");
}

/// Faults 31 and 32.
#[test]
fn a_grandchild_that_holds_or_floods_the_pipe_is_cut_off() {
    for script in ["sleep 1000 & echo hi", "yes >&2 & echo hi", "(trap '' TERM HUP; sleep 1000) & echo hi"] {
        let night = one(&format!("sh: {}, stdout: Text", json!(script)), "");
        fs::write(night.dir.path().join("lamplighter.ron"), r#"Config(grace_period: "300ms")"#).expect("a file");
        let ended = night.run();
        ended.is(0, "succeeded");
        assert!(ended.stderr.contains("leaked"), "{}", ended.stderr);
        assert_eq!(night.read("x.json"), "\"hi\\n\"\n");
    }
}

/// Faults 29 and 30.
#[test]
fn a_child_that_ignores_term_or_is_stopped_ends_with_its_timeout() {
    for script in
        ["trap '' TERM; while test -d ../jobs; do sleep 0.05; done", "kill -STOP $$; sleep 1000", "sleep 1000 & wait"]
    {
        let night = one(&format!("sh: {}", json!(script)), "timeout: \"200ms\",");
        fs::write(night.dir.path().join("lamplighter.ron"), r#"Config(grace_period: "300ms")"#).expect("a file");
        night.run().is(1, "failed").fails("0", "timeout the attempt worked longer");
    }
}

/// Faults 43 and 44.
#[test]
fn a_megabyte_each_way_neither_blocks_nor_is_lost() {
    let text = "0123456789abcdef".repeat(65_536);
    let exec = r#"max_value: "8MB", run: [Exec(argv: ["cat"], stdin: "{{ item.p }}", stdout: Text), Jq(filter: "length"), Write(json: "n")]"#;
    let night = each(&[&text], exec);
    night.run().is(0, "succeeded");
    assert_eq!(night.read("n").trim(), "1048576");
    let exec = r#"run: [Exec(sh: "exec 0<&-; echo done", stdin: "{{ item.p }}", stdout: Text), Write(json: "n")]"#;
    let night = each(&[&text], exec);
    night.run().is(0, "succeeded");
    assert_eq!(night.read("n"), "\"done\\n\"\n");
}

#[test]
fn codes_signals_and_broken_output_are_told_apart() {
    let scripts = ["exit 3", "kill -9 $$", "kill -SEGV $$", "kill -PIPE $$", "echo oops >&2; exit 255", "exit 0"];
    let ended = each(&scripts, r#"run: [Exec(argv: ["sh", "-c", "{{ item.p }}"])]"#).run();
    ended.is(1, "failed").fails("0", "exit `sh` ended with code 3").fails("1", "signal 9").fails("2", "signal 11");
    ended.fails("3", "signal 13").fails("4", "code 255; last line: oops");
    assert_eq!(ended.count("w", "ok"), 1);
    let scripts = ["echo", "echo 1 2", "echo NaN", "printf '\\377'", "echo {", "echo 1"];
    let ended = each(&scripts, r#"run: [Exec(argv: ["sh", "-c", "{{ item.p }}"], stdout: Json)]"#).run();
    assert_eq!((ended.count("w", "failed"), ended.count("w", "ok")), (5, 1));
    ended.fails("2", "decode what `sh` printed is no JSON value: line 1, column 1");
    let night = each(&["printf 'a\\n\\377\\nb'"], r#"run: [Exec(argv: ["sh", "-c", "{{ item.p }}"], stdout: Lines)]"#);
    night.run().fails("0", "data line 2 that `sh` printed is not UTF-8");
}

/// Fault 40.
#[test]
fn few_descriptors_make_items_wait_and_fail_none() {
    let items: Vec<Value> = (0..120).map(|k| json!({"k": k.to_string()})).collect();
    let exec = r#"Exec(argv: ["sleep", "0.05"], stdin: "x", stdout: Text)"#;
    let mut night = Night::of(&json!(items), &format!(r#"workers: 50, run: [{exec}, Write(json: "{{{{ key }}}}")]"#));
    night.before = "ulimit -n 64".into();
    let ended = night.run();
    ended.is(0, "succeeded");
    assert_eq!((ended.count("w", "ok"), night.outputs().len()), (120, 120));
}

#[test]
fn two_hundred_children_at_once_are_all_reaped() {
    let items: Vec<Value> = (0..200).map(|k| json!({"k": k.to_string()})).collect();
    let ended = Night::of(&json!(items), r#"workers: 200, run: [Exec(argv: ["sleep", "0.5"])]"#).run();
    ended.is(0, "succeeded");
    assert_eq!(ended.count("w", "ok"), 200);
}

#[test]
fn a_child_has_three_descriptors_and_nothing_of_our_environment() {
    let mut night = one(r#"sh: "ls -x /proc/self/fd; env; tr '\\0' ' ' < /proc/$PPID/cmdline", stdout: Text"#, "");
    // What the program itself inherited open is not ours to hide: only what it opened.
    night.before =
        r#"for fd in /proc/$$/fd/*; do fd=${fd##*/}; if (( fd > 2 )); then eval "exec $fd>&-"; fi; done"#.into();
    night.env = vec![
        ("LAMPLIGHTER_SECRET_TOKEN".into(), "canary-of-a-secret".into()),
        ("SOMETHING_PRIVATE".into(), "canary-of-the-environment".into()),
    ];
    night.run().is(0, "succeeded");
    let text: String = serde_json::from_str(&night.read("x.json")).expect("JSON");
    assert!(!text.contains("canary"), "{text}");
    // `ls` itself has the folder open that it lists.
    let descriptors: Vec<_> = text.lines().next().unwrap_or_default().split_whitespace().collect();
    assert_eq!(descriptors, ["0", "1", "2", "3"]);
}

#[test]
fn a_secret_reaches_a_child_only_where_it_was_asked_for() {
    let mut night = one(
        r#"sh: "test ${#TOKEN} = 18; if grep -q \"$TOKEN\" /proc/$$/cmdline /proc/$PPID/cmdline; then exit 9; fi""#,
        "",
    );
    let text = fs::read_to_string(night.jobs().join("night.ron")).expect("a job");
    night.file("night.ron", text.replace("Exec(", "Exec(env: {\"TOKEN\": \"{{ secret.token }}\"}, "));
    night.run().refused("the secret `token` is not there");
    night.env = vec![("LAMPLIGHTER_SECRET_TOKEN".into(), "canary-of-a-secret".into())];
    let ended = night.run();
    ended.is(0, "succeeded");
    assert!(!ended.record.to_string().contains("canary"));
}
