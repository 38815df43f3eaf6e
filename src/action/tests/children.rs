//! `Exec` with real children: every way in which one can start, talk, end and be ended.

use super::*;
use crate::action::Owner;
use futures_lite::future::{or, poll_once};

/// True while a process with this number runs (a zombie does not).
fn runs(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Runs until a file has a whole line, then drops the action.
fn cut_when_written(bench: &Bench, ron: &str, file: &str) -> (ItemContext, String) {
    let cx = bench.item("k");
    let (action, facts, path) = (bench.action(ron), bench.facts(json!({})), bench.path(file));
    let mut given = Given::default();
    let written = async {
        loop {
            match std::fs::read_to_string(&path) {
                Ok(text) if text.ends_with('\n') => return text,
                _ => bench.run.world.sleep(Duration::from_millis(2)).await,
            }
        }
    };
    let work = async {
        let result = action.run(&cx, &facts, &mut given).await;
        panic!("it ended: {result:?}");
    };
    let text = bench.block_on(or(work, written));
    (cx, text)
}

fn owner(cx: &ItemContext) -> Owner {
    (cx.stage_place, cx.lineage.clone())
}

#[test]
fn arguments_reach_the_program_as_they_are() {
    let bench = Bench::new();
    let hostile = "; id `id` $(id) 'x' \"y\"\n*";
    let given = bench
        .values(r#"Exec(argv: ["printf", "%s|", "{{ item.name }}", "a b"], stdout: Text)"#, json!({"name": hostile}));
    assert_eq!(given, [json!(format!("{hostile}|a b|"))]);
}

#[test]
fn a_child_gets_its_environment_and_nothing_else() {
    let bench = Bench::new();
    let given =
        bench.values(r#"Exec(argv: ["env"], env: {"NAME": "{{ item.name }}"}, stdout: Lines)"#, json!({"name": "x"}));
    let mut names: Vec<_> = given.iter().filter_map(|line| Some(line.as_str()?.split_once('=')?.0)).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "HOME",
            "LAMPLIGHTER_ATTEMPT",
            "LAMPLIGHTER_IDEMPOTENCY_KEY",
            "LAMPLIGHTER_JOB",
            "LAMPLIGHTER_KEY",
            "LAMPLIGHTER_RUN",
            "LAMPLIGHTER_STAGE",
            "NAME",
            "PATH",
            "TZ"
        ]
    );
    assert!(given.contains(&json!("TZ=Asia/Shanghai")));
    let cx = bench.item("k");
    cx.slot.begin_item(Some(bench.run.world.boot() + Duration::from_secs(60)), 0);
    let (given, _) = bench.run_with(
        r#"Exec(argv: ["printenv", "LAMPLIGHTER_DEADLINE"], stdout: Lines)"#,
        &cx,
        &bench.facts(json!(1)),
        Given::default(),
    );
    let deadline: jiff::Timestamp = given.values[0].as_str().expect("text").parse().expect("RFC 3339");
    assert!(deadline > bench.run.world.wall());
}

#[test]
fn a_child_has_three_files_and_the_output_folder_around_it() {
    let bench = Bench::new();
    let given = bench.values(r#"Exec(argv: ["sh", "-c", "pwd; ls /proc/self/fd | wc -l"], stdout: Lines)"#, json!(1));
    // Whoever runs the tests may hand files down; a plain child shows how many there are without us.
    let plain = std::process::Command::new("sh").args(["-c", "ls /proc/self/fd | wc -l"]).output().expect("runs");
    let plain = String::from_utf8(plain.stdout).expect("text");
    assert_eq!(given, [json!(bench.path("out").to_str()), json!(plain.trim())]);
}

#[test]
fn what_is_printed_becomes_values() {
    let bench = Bench::new();
    let print =
        |stdout: &str, text: &str| bench.run(&format!("Exec(sh: r#\"printf '{text}'\"#, stdout: {stdout})"), json!(1));
    assert_eq!(print("Json", r#"{"a": [1]}"#).0.values, [json!({"a": [1]})]);
    assert_eq!(print("Text", "").0.values, [json!("")]);
    assert_eq!(print("Lines", "a\\r\\n\\nb").0.values, [json!("a"), json!(""), json!("b")]);
    assert_eq!(print("Log", "x").0.values, Vec::<Value>::new());
    let (class, message, given_up) = bench.failure(r#"Exec(argv: ["echo", "{"], stdout: Json)"#, json!(1));
    assert_eq!((class, given_up), (Class::Decode, true));
    assert!(message.starts_with("what `echo` printed is no JSON value"), "{message}");
    let (given, result) = print("Lines", "a\\n\\377\\nb\\n");
    assert_eq!((given.values.len(), given.bad.len(), result), (2, 1, Ok(())));
}

#[test]
fn input_and_output_of_a_megabyte_do_not_block_each_other() {
    let bench = Bench::new();
    let text = "0123456789abcde\n".repeat(65536);
    let (given, result) = bench.run(r#"Exec(argv: ["cat"], stdin: "{{ value }}", stdout: Lines)"#, json!(text));
    assert_eq!((result, given.values.len()), (Ok(()), 65536));
}

#[test]
fn a_child_may_close_its_input_early() {
    let bench = Bench::new();
    let text = "x".repeat(1 << 20);
    assert_eq!(bench.run(r#"Exec(sh: "exec 0<&-; sleep 0.05; true", stdin: "{{ value }}")"#, json!(text)).1, Ok(()));
}

#[test]
fn a_code_that_is_no_success_fails_with_the_last_line() {
    let bench = Bench::new();
    let cx = bench.item("k");
    let script = r#"Exec(sh: "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21; do echo line $i; done; printf 'bad \\033[2J\\377 end\n\n' >&2; exit 23")"#;
    let (_, result) = bench.run_with(script, &cx, &bench.facts(json!(1)), Given::default());
    let Err(Stop::Failed { failure, given_up: false }) = result else { panic!("{result:?}") };
    assert_eq!(failure.class, Class::Exit);
    assert_eq!(failure.message, "`sh` ended with code 23; last line: bad \\u{1b}[2J\u{fffd} end");
    let tail = cx.tail.lock().expect("tail").clone();
    assert_eq!(tail.split('\n').count(), 20);
    assert!(tail.starts_with("line 4\n"), "{tail}");
    assert_eq!(bench.run(r#"Exec(sh: "exit 24", success_codes: [0, 24])"#, json!(1)).1, Ok(()));
    let (_, message, _) = bench.failure(r#"Exec(sh: "kill -9 $$")"#, json!(1));
    assert!(message.contains("killed by signal 9"), "{message}");
}

#[test]
fn a_program_that_cannot_start_is_named_and_not_tried_again() {
    use std::os::unix::fs::PermissionsExt;
    let bench = Bench::new();
    bench.put("plain.sh", "#!/bin/sh\n");
    bench.put("gone.sh", "#!/no/such/interpreter\n");
    bench.put("junk.sh", "\x7fnothing\n");
    for name in ["gone.sh", "junk.sh"] {
        std::fs::set_permissions(bench.path(name), std::fs::Permissions::from_mode(0o755)).expect("chmod");
    }
    for (ron, part) in [
        (r#"Exec(argv: ["no-such-program-here"])"#, "no program of that name in PATH"),
        (r#"Exec(argv: ["./no.sh"])"#, "No such file"),
        (r#"Exec(argv: ["./plain.sh"])"#, "not executable"),
        (r#"Exec(argv: ["./gone.sh"])"#, "`/no/such/interpreter` is not there"),
        (r#"Exec(argv: ["./junk.sh"])"#, "no program for this machine"),
        (r#"Exec(argv: ["true"], cwd: "/no/such/folder")"#, "there is no folder /no/such/folder"),
    ] {
        let (class, message, given_up) = bench.failure(ron, json!(1));
        assert_eq!((class, given_up), (Class::Exit, true), "{ron}");
        assert!(message.starts_with("cannot start `") && message.contains(part), "{ron}: {message}");
    }
}

#[test]
fn too_large_arguments_and_nul_fail_by_name() {
    let bench = Bench::new();
    let big = json!("x".repeat(200_000));
    let (class, message, given_up) = bench.failure(r#"Exec(argv: ["true", "{{ value }}"])"#, big.clone());
    assert_eq!((class, given_up), (Class::Exit, true));
    assert!(message.contains("`true`") && message.contains("200") && message.contains("bytes"), "{message}");
    assert_eq!(bench.run(r#"Exec(argv: ["cat"], stdin: "{{ value }}")"#, big).1, Ok(()));
    let (class, message, _) = bench.failure(r#"Exec(argv: ["true", "{{ value }}"])"#, json!("a\0b"));
    assert_eq!(class, Class::Exit);
    assert!(message.contains("NUL"), "{message}");
}

#[test]
fn data_never_becomes_an_option() {
    let bench = Bench::new();
    let item = json!({"n": "-rf"});
    let (class, message, given_up) = bench.failure(r#"Exec(argv: ["echo", "{{ item.n }}"])"#, item.clone());
    assert_eq!((class, given_up), (Class::Data, true));
    assert!(message.contains("argv[1]") && message.contains("--"), "{message}");
    for ron in [
        r#"Exec(argv: ["echo", "--", "{{ item.n }}"], stdout: Text)"#,
        r#"Exec(argv: ["echo", "-x{{ item.n }}"], stdout: Text)"#,
    ] {
        assert_eq!(bench.values(ron, item.clone()).len(), 1, "{ron}");
    }
}

#[test]
fn a_grandchild_that_holds_the_output_does_not_hold_the_item() {
    let bench = Bench::with_grace(Duration::from_millis(50));
    let begun = bench.run.world.awake();
    let given = bench.values(r#"Exec(sh: "sleep 30 & echo $!; printf half", stdout: Lines)"#, json!(1));
    assert!(bench.run.world.awake().since(begun) < Duration::from_secs(10));
    assert_eq!(given.len(), 2, "what it printed is kept: {given:?}");
    bench.block_on(bench.run.leftovers.join());
    assert!(!runs(given[0].as_str().expect("a number")), "the grandchild is ended with the group");
}

#[test]
fn a_grandchild_that_floods_the_output_does_not_hold_the_item() {
    let bench = Bench::with_grace(Duration::from_millis(50));
    let begun = bench.run.world.awake();
    assert_eq!(bench.run(r#"Exec(sh: "yes & exit 0")"#, json!(1)).1, Ok(()));
    assert!(bench.run.world.awake().since(begun) < Duration::from_secs(10));
    bench.block_on(bench.run.leftovers.join());
}

#[test]
fn output_without_a_line_end_is_counted_not_kept() {
    let bench = Bench::new();
    assert_eq!(bench.run(r#"Exec(argv: ["head", "-c", "20000000", "/dev/zero"])"#, json!(1)).1, Ok(()));
    for stdout in ["Text", "Json", "Lines"] {
        let ron = format!(r#"Exec(argv: ["head", "-c", "20000000", "/dev/zero"], stdout: {stdout})"#);
        let (class, message, given_up) = bench.failure(&ron, json!(1));
        assert_eq!((class, given_up), (Class::TooLarge, true), "{message}");
    }
}

#[test]
fn a_dropped_child_ends_with_its_grandchildren() {
    let bench = Bench::new();
    let (cx, pids) = cut_when_written(&bench, r#"Exec(sh: "sleep 60 & echo $$ $! > pids; wait")"#, "out/pids");
    bench.block_on(bench.run.leftovers.gone(owner(&cx)));
    assert!(pids.split_whitespace().count() == 2 && !pids.split_whitespace().any(runs), "{pids}");
    assert!(bench.run.leftovers.is_empty());
}

#[test]
fn a_child_that_ignores_term_is_killed_at_grace_and_a_stopped_one_too() {
    let bench = Bench::with_grace(Duration::from_millis(60));
    for script in ["trap '' TERM; echo $$ > pid; while :; do sleep 1; done", "echo $$ > pid; kill -STOP $$"] {
        let _ = std::fs::remove_file(bench.path("out/pid"));
        let (cx, pid) = cut_when_written(&bench, &format!(r#"Exec(sh: "{script}")"#), "out/pid");
        bench.block_on(bench.run.leftovers.gone(owner(&cx)));
        assert!(!runs(&pid), "{script}");
    }
}

#[test]
fn the_second_signal_kills_without_grace() {
    let bench = Bench::with_grace(Duration::from_secs(3600));
    let (_, pid) =
        cut_when_written(&bench, r#"Exec(sh: "trap '' TERM; echo $$ > pid; while :; do sleep 1; done")"#, "out/pid");
    let mut join = Box::pin(bench.run.leftovers.join());
    assert!(bench.block_on(poll_once(&mut join)).is_none());
    bench.run.leftovers.kill_now();
    bench.block_on(join);
    assert!(!runs(&pid));
}

#[test]
fn a_process_that_left_its_group_does_not_hold_the_item_and_is_ended_with_the_run() {
    for script in [
        "setsid sh -c 'echo $$ > ../pid; exec sleep 60' >/dev/null 2>&1 & echo ok",
        "setsid sh -c 'trap \\\"\\\" TERM; echo $$ > ../pid; while :; do sleep 1; done' >/dev/null 2>&1 & echo ok",
        "setsid sh -c 'echo $$ > ../pid; kill -STOP $$' >/dev/null 2>&1 & echo ok",
    ] {
        let bench = Bench::with_grace(Duration::from_millis(50));
        let ron = format!(
            r#"Exec(argv: ["sh", "-c", "{script}; while ! test -s ../pid; do sleep 0.01; done"], stdout: Text)"#
        );
        assert_eq!(bench.values(&ron, json!(1)), [json!("ok\n")]);
        let pid = bench.get("pid");
        assert!(runs(&pid), "{script}");
        bench.block_on(bench.run.leftovers.join());
        assert!(!runs(&pid), "{script}");
        assert!(bench.run.leftovers.leaked() > 0, "{script}");
    }
}

#[test]
fn a_process_that_gave_up_the_mark_of_its_run_stays() {
    let bench = Bench::with_grace(Duration::from_millis(50));
    let script = "env -u LAMPLIGHTER_RUN setsid sh -c 'echo $$ > ../pid; exec sleep 60' >/dev/null 2>&1 &";
    let script = format!("{script} while ! test -s ../pid; do sleep 0.01; done");
    assert_eq!(bench.run(&format!(r#"Exec(argv: ["sh", "-c", "{script}"])"#), json!(1)).1, Ok(()));
    bench.block_on(bench.run.leftovers.join());
    let pid = bench.get("pid");
    assert!(runs(&pid));
    assert_eq!(bench.run.leftovers.leaked(), 0);
    std::process::Command::new("kill").args(["-9", pid.trim()]).status().expect("kill");
}

#[test]
fn a_child_that_is_cut_while_it_starts_is_waited_for() {
    let bench = Bench::with_grace(Duration::from_millis(50));
    let (cx, facts) = (bench.item("k"), bench.facts(json!({})));
    let action = bench.action(r#"Exec(sh: "echo $$ > pid; sleep 60")"#);
    bench.block_on(async {
        let mut given = Given::default();
        assert!(poll_once(action.run(&cx, &facts, &mut given)).await.is_none());
        bench.run.leftovers.join().await;
    });
    // It had no time to begin, or is gone: after the join nothing of it runs.
    assert!(bench.run.leftovers.is_empty());
    assert!(!runs(&std::fs::read_to_string(bench.path("out/pid")).unwrap_or_default()));
}

#[test]
fn priority_and_memory_are_those_that_were_said() {
    let bench = Bench::new();
    // The limits are set just after the start.
    let script = "sleep 0.2; nice; ulimit -d";
    let given = bench.values(&format!(r#"Exec(sh: "{script}", nice: 7, memory: "64MiB", stdout: Lines)"#), json!(1));
    assert_eq!(given, [json!("7"), json!("65536")]);
}

#[test]
fn what_beginners_write_is_explained() {
    let bench = Bench::new();
    for (ron, part) in [
        (r#"Exec(argv: ["rsync -a x y"])"#, r#"argv: ["rsync", "-a", "x", "y"]"#),
        (r#"Exec(argv: ["ls", "|", "wc"])"#, "`|` is an argument here"),
        (r#"Exec(argv: ["ls", ">", "x"])"#, "sh: "),
        (r#"Exec(argv: ["rm", "/data/*.tmp"])"#, "Remark"),
        (r#"Exec(argv: ["ls", "$HOME/x"])"#, "no shell replaces it"),
        (r#"Exec(argv: ["ls", "~/x"])"#, "no shell replaces it"),
        (r#"Exec(sh: "rm {{ item.path }}")"#, "a value could become code"),
        (r#"Exec(argv: ["curl", "-H", "X: {{ secret.token }}"])"#, "list of processes"),
        (r#"Exec(argv: [])"#, "no program"),
        (r#"Exec()"#, "nothing to run"),
        (r#"Exec(argv: ["a"], sh: "b")"#, "exclude each other"),
        (r#"Exec(argv: ["a"], into: "x")"#, "nothing is given"),
        (r#"Exec(argv: ["a"], success_codes: [256])"#, "0 to 255"),
        (r#"Exec(argv: ["a"], nice: 20)"#, "-20 to 19"),
        (r#"Exec(argv: ["a"], env: {"LAMPLIGHTER_KEY": "x"})"#, "run[0].env[\"LAMPLIGHTER_KEY\"]"),
    ] {
        let finding = bench.finding(ron);
        assert!(finding.contains(part), "{ron}: {finding}");
    }
    for fine in [
        r#"Exec(argv: ["find", "/data", "-name", "*.mp4", "-delete"])"#,
        r#"Exec(argv: ["cut", "-d", "|", "-f", "1"])"#,
        r#"Exec(argv: ["sqlite3", "{{ params.n }}", ".backup '{{ params.n }}.new'"])"#,
        r#"Exec(argv: ["find", ".", "-exec", "rm", "{}", ";"])"#,
    ] {
        assert_eq!(bench.check(fine).1, [], "{fine}");
    }
}

#[test]
fn a_dry_run_shows_the_command_and_runs_nothing() {
    let bench = Bench::new();
    let action = bench.action(r#"Exec(argv: ["touch", "{{ item.n }}"], env: {"A": "b c"})"#);
    let shown = action.preview(&bench.facts(json!({"n": "x y"})));
    assert_eq!(shown, Some(Ok("Exec A='b c' touch 'x y'".to_owned())));
    assert!(!bench.path("out").exists());
}
