//! The command line as a user meets it: what commands print, what they write, and how they exit.

use super::util::{Act, Place, Scripted, Sim, finish, get, repository};
use lamplighter::item::Value;
use std::{fs, os::unix::fs::PermissionsExt, process::Stdio};

/// Three items, of which `b` fails, and a file of those that are done.
const THREE: &str = r#"Job(
    params: { "names": ["a", "b", "c"], "word": "x", "n": 1 },
    stages: [
        Stage(name: "list", key: "{{ item }}", run: [Jq(filter: "$params.names[]")]),
        Stage(name: "work", tolerate: "50%", run: [Exec(sh: "test \"$NAME\" != b || exit 7", env: {"NAME": "{{ item }}"})]),
        Stage(name: "end", gather: All, run: [
            Jq(filter: "{names: [items], word: $params.word, n: $params.n, date: $run.date, night: $run.night}"),
            Write(json: "names.json"),
        ]),
    ],
)"#;

fn read_json(place: &Place, path: &str) -> Value {
    serde_json::from_str(&place.read(path)).expect("JSON")
}

#[test]
fn the_exit_code_tells_the_outcome() {
    for (job, code, outcome) in [
        (r#"Job(run: [Log(message: "x")])"#, 0, "succeeded"),
        (r#"Job(run: [Exec(argv: ["false"])])"#, 1, "failed"),
        (r#"Job(deadline: "200ms", run: [Exec(argv: ["sleep", "60"])])"#, 124, "deadline exceeded"),
        (THREE, 3, "partial"),
    ] {
        let place = Place::with_job("x", job);
        place.run(&["run", "x"]).exits(code).prints(&format!("x {outcome}"));
    }
}

#[test]
fn json_is_one_object_with_the_fields_of_a_run_and_nothing_else() {
    let place = Place::with_job("three", THREE);
    let done = place.run(&["run", "three", "--format", "json"]).exits(3);
    assert_eq!(done.stdout.lines().count(), 1, "{}", done.stdout);
    let record = done.json();
    let names = |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    assert_eq!(
        names(&record),
        [
            "run",
            "job",
            "outcome",
            "reason",
            "started",
            "ended",
            "stages",
            "failures",
            "outputs",
            "outputs_total",
            "leaked"
        ]
    );
    assert_eq!(
        names(&record["stages"][1]),
        [
            "name",
            "items",
            "ok",
            "empty",
            "failed",
            "timed_out",
            "cancelled",
            "not_reached",
            "held",
            "attempts",
            "complete",
            "classes"
        ]
    );
    assert_eq!(record["stages"][1]["classes"], serde_json::json!({"exit": 1}));
    assert_eq!(names(&record["failures"][0]), ["stage", "key", "class", "message", "attempts"]);
    assert_eq!(record["failures"][0]["key"], "b");
    assert_eq!(record["outputs"][0]["path"], "names.json");
    assert_eq!(record["outputs"][0]["bytes"], place.read("out/names.json").len());
    assert_eq!(record["outputs"][0]["sha256"].as_str().map(str::len), Some(64));
    assert_eq!(record["outputs_total"], 1);
}

#[test]
fn the_lists_of_the_json_end_at_a_hundred_and_the_totals_do_not() {
    let place = Place::with_job(
        "many",
        r#"Job(stages: [
            Stage(name: "list", run: [Jq(filter: "range(150)")]),
            Stage(name: "odd", tolerate: "60%", run: [Jq(filter: "if . % 2 == 1 then error(\"odd\") else . end")]),
            Stage(name: "files", run: [Write(json: "{{ item }}.json")]),
            Stage(name: "all", from: ["list"], run: [Write(json: "all/{{ item }}.json")]),
        ])"#,
    );
    let record = place.run(&["run", "many", "--format", "json"]).exits(3).json();
    assert_eq!(record["outputs_total"], 225);
    assert_eq!(record["outputs"].as_array().map(Vec::len), Some(100));
    assert_eq!(record["stages"][1]["failed"], 75);
    assert_eq!(record["failures"].as_array().map(Vec::len), Some(75));
    place.run(&["run", "many"]).exits(3).prints("and 205 more").prints("75  data");
}

#[test]
fn global_options_stand_before_or_after_the_command() {
    let place = Place::new();
    place.write("elsewhere/three.ron", THREE);
    place.run(&["--jobs", "elsewhere", "--out", "a", "run", "three"]).exits(3);
    place.run(&["run", "--out", "b", "three", "--jobs", "elsewhere", "--state", "b"]).exits(3);
    assert_eq!(place.read("a/names.json"), place.read("b/names.json"));
    // Without --out outputs stand beside the job folder.
    place.run(&["run", "elsewhere/three.ron"]).exits(3);
    assert_eq!(place.read("a/names.json"), place.read("out/names.json"));
}

#[test]
fn the_configuration_says_where_things_are_and_flags_override_it() {
    let place = Place::new();
    place.write("gateway/lamplighter.ron", r#"Config(jobs: "rounds", out: "results", threads: 2)"#);
    place.write("gateway/rounds/three.ron", THREE);
    place.run(&["run", "three", "--config", "gateway/lamplighter.ron"]).exits(3);
    place.read("gateway/results/names.json");
    let mut command = place.command(&["run", "three", "--out", "mine"]);
    finish(command.env("LAMPLIGHTER_CONFIG", "gateway/lamplighter.ron")).exits(3);
    place.read("mine/names.json");
    place.write("bad.ron", "Config(thread: 2)");
    place.run(&["--config", "bad.ron", "run", "three"]).exits(2).says("threads");
    place.run(&["--config", "absent.ron", "run", "three"]).exits(2).says("absent.ron");
}

#[test]
fn a_param_is_set_with_the_type_of_its_default() {
    let place = Place::with_job("three", THREE);
    place.run(&["run", "three", "--set", "word=12", "--set", "n=7", "--set", r#"names=["a=b"]"#]).exits(0);
    assert_eq!(read_json(&place, "out/names.json")["word"], "12");
    assert_eq!(read_json(&place, "out/names.json")["n"], 7);
    assert_eq!(read_json(&place, "out/names.json")["names"], serde_json::json!(["a=b"]));
}

#[test]
fn a_due_time_is_taken_in_the_zone_of_the_job() {
    let job = THREE.replace("params:", "timezone: \"Asia/Shanghai\", params:");
    let place = Place::with_job("three", &job);
    for (due, date) in [
        ("2026-11-23", "2026-11-23"),
        ("2026-11-23T02:30", "2026-11-23"),
        ("2026-11-22T20:00:00Z", "2026-11-23"),
        ("2026-11-22T23:00+08:00", "2026-11-22"),
    ] {
        place.run(&["run", "three", "--due", due]).exits(3);
        assert_eq!(read_json(&place, "out/names.json")["date"], date, "{due}");
    }
    assert_eq!(read_json(&place, "out/names.json")["night"], "2026-11-21");
}

#[test]
fn a_deadline_given_by_hand_holds_and_what_is_there_is_reported() {
    let place = Place::with_job(
        "slow",
        r#"Job(stages: [
        Stage(name: "list", run: [Items(list: ["0", "60"])]),
        Stage(name: "work", workers: 2, on_deadline: Continue, run: [Exec(argv: ["sleep", "{{ item }}"])]),
        Stage(name: "end", gather: All, run: [Jq(filter: "[items]"), Write(json: "done.json")]),
    ])"#,
    );
    let record = place.run(&["run", "slow", "--deadline", "6s", "--format", "json"]).exits(124).json();
    assert_eq!(record["outcome"], "deadline_exceeded");
    assert_eq!(record["stages"][1]["timed_out"], 1);
    assert_eq!(read_json(&place, "out/done.json"), serde_json::json!(["0"]));
}

#[test]
fn a_dry_run_shows_what_would_be_done_and_does_nothing() {
    let place = Place::with_job(
        "dry",
        r#"Job(
        services: [Service(name: "v", base: "http://127.0.0.1:9", headers: {"X-Key": "{{ secret.vendor_token }}"})],
        stages: [
            Stage(name: "list", key: "{{ item }}", run: [Items(list: ["a", "b", "c", "d", "e"])]),
            Stage(name: "touch", run: [Exec(argv: ["touch", "{{ item }}.txt"])]),
            Stage(name: "send", run: [Http(via: "v", post: "/x", query: {"k": "{{ secret.vendor_token }}"}, body: Json)]),
            Stage(name: "end", gather: All, run: [Write(json: "x.json")]),
        ])"#,
    );
    let done = place.run_with_token(&["run", "dry", "--dry-run"]).exits(0).says("a dry run: nothing was");
    let lines: Vec<&str> = done.stdout.lines().collect();
    assert_eq!(lines.iter().filter(|line| line.starts_with("touch ")).count(), 3, "{}", done.stdout);
    assert_eq!(lines.iter().filter(|line| line.starts_with("send ")).count(), 3, "{}", done.stdout);
    assert!(lines.iter().any(|line| line.contains("Write json x.json")), "{}", done.stdout);
    assert!(done.stdout.contains("***") && !done.stdout.contains("demo-token"), "{}", done.stdout);
    assert_eq!(place.files(), ["jobs/dry.ron"]);
    place.run_with_token(&["run", "dry", "--dry-run", "--format", "json"]).exits(0).json();
}

#[test]
fn limit_and_key_choose_items() {
    let place = Place::with_job("three", THREE);
    place.run(&["run", "three", "--limit", "1"]).exits(0);
    assert_eq!(read_json(&place, "out/names.json")["names"], serde_json::json!(["a"]));
    place.run(&["run", "three", "--key", "c"]).exits(0);
    assert_eq!(read_json(&place, "out/names.json")["names"], serde_json::json!(["c"]));
}

#[test]
fn until_a_stage_prints_what_it_gave_and_runs_nothing_behind_it() {
    let place = Place::with_job("three", THREE);
    let done = place.run(&["run", "three", "--until", "work"]).exits(3).says("three partial");
    assert_eq!(done.stdout, "\"a\"\n\"c\"\n");
    assert_eq!(place.files(), ["jobs/three.ron"]);
    let done = place.run(&["run", "three", "--until", "list", "--format", "json"]).exits(0);
    let lines: Vec<Value> = done.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 4);
    assert_eq!(lines[3]["stages"].as_array().map(Vec::len), Some(1));
}

#[test]
fn what_is_asked_wrongly_is_told_and_nothing_is_run() {
    let place = Place::with_job("three", THREE);
    place.write(
        "jobs/secret.ron",
        r#"Job(
        services: [Service(name: "v", base: "http://127.0.0.1:9", auth: Bearer("{{ secret.vendor_token }}"))],
        run: [Exec(argv: ["touch", "ran"]), Http(via: "v", get: "/")],
    )"#,
    );
    place.write("jobs/input.ron", r#"Job(stages: [Stage(name: "rows", run: [Read(csv: "absent.csv")])])"#);
    place.write("bad/broken.ron", "Job(stages: [Stage(name: \"x\", run: [Wirte(json: \"x\")])])");
    let before = place.files();
    for (arguments, told) in [
        (&["run", "thre"][..], "did you mean `three`?"),
        (&["run", "quite-another"], "input, secret, three"),
        (&["run", "jobs/absent.ron"], "there is no job file jobs/absent.ron"),
        (&["run", "bad/broken.ron"], "Write"),
        (&["run", "three", "--set", "wrod=x"], "wrod"),
        (&["run", "three", "--set", "word"], "--set takes KEY=VALUE"),
        (&["run", "three", "--set", "n=many"], "n"),
        (&["run", "three", "--until", "wrok"], "no stage `wrok`"),
        (&["run", "three", "--due", "tomorrow"], "\"tomorrow\" is no time: write 2026-11-23"),
        (&["run", "three", "--deadline", "5"], "has no unit"),
        (&["run", "three", "--limit", "all"], "--limit"),
        (&["run", "three", "--format", "xml"], "xml"),
        (&["run", "three", "extra"], "extra"),
        (&["run"], "<JOB|FILE>"),
        (&["rnu", "three"], "unrecognized subcommand 'rnu'"),
        (&["run", "secret"], "the secret `vendor_token` is not there: put it into a file `secrets/vendor_token`"),
        (&["run", "input"], "absent.csv"),
        (&["demo", "--faults", "many"], "off, default, stats"),
        (&["demo", "--workers", "0"], "1..=1024"),
        (&["demo", "--time-scale", "-1"], "from 0"),
        (&["demo", "--night", "2026-02-30"], "2026-02-30"),
        (&["vendor-sim", "--listen", "here"], "here"),
        (&["completions", "cmd"], "cmd"),
        (&["graph", "thre"], "did you mean `three`?"),
        (&["--jobs", "nowhere", "check"], "there is no job folder nowhere"),
    ] {
        let done = place.run(arguments).exits(2).says(told);
        assert_eq!(done.stdout, "", "{arguments:?}");
    }
    assert_eq!(place.files(), before);
}

/// Sends its secret to a vendor that wants it.
fn with_secret() -> (Place, Scripted) {
    let vendor = Scripted::start(|_| Act::Answer(200, "{}".into()));
    let place = Place::with_job(
        "ask",
        &format!(
            "Job(services: [Service(name: \"v\", base: \"{}\", auth: Bearer(\"{{{{ secret.vendor_token }}}}\"))],
             run: [Http(via: \"v\", get: \"/{{{{ run.date }}}}\")])",
            vendor.base
        ),
    );
    (place, vendor)
}

#[test]
fn a_secret_comes_from_a_credential_a_private_file_or_the_environment() {
    let (place, _vendor) = with_secret();
    place.run(&["run", "ask"]).exits(2);
    finish(place.command(&["run", "ask"]).env("LAMPLIGHTER_SECRET_VENDOR_TOKEN", "")).exits(2).says("is not there");
    place.run_with_token(&["run", "ask"]).exits(0);
    place.write("credentials/vendor_token", "one\n");
    finish(place.command(&["run", "ask"]).env("CREDENTIALS_DIRECTORY", place.path("credentials"))).exits(0);
    place.write("secrets/vendor_token", "two\n");
    let mode = |mode| fs::set_permissions(place.path("secrets/vendor_token"), fs::Permissions::from_mode(mode));
    mode(0o644).expect("a mode");
    // The file would be used: that others can read it is told, whatever else is there.
    place.run_with_token(&["run", "ask"]).exits(2).says("chmod 600 secrets/vendor_token");
    mode(0o600).expect("a mode");
    place.run(&["run", "ask"]).exits(0);
    fs::write(place.path("secrets/vendor_token"), "\n").expect("a file");
    place.run(&["run", "ask"]).exits(2).says("secrets/vendor_token is empty");
}

#[test]
fn a_secret_is_never_shown() {
    const CANARY: &str = "c4nary-7f3e9b";
    let vendor = Scripted::start(|path| match path {
        "/good" => Act::Answer(200, "{\"n\": 1}".into()),
        "/bad" => Act::Answer(500, format!("{{\"you sent\": \"{CANARY}\"}}")),
        _ => Act::Answer(403, format!("<p>{CANARY}</p>")),
    });
    let job = r#"Job(
        services: [Service(name: "v", base: "BASE", auth: Bearer("{{ secret.canary }}"),
            headers: {"X-Key": "{{ secret.canary }}"}, retry: Retry(max_attempts: 2, initial_interval: "1ms", max_interval: "2ms"))],
        stages: [
            Stage(name: "list", key: "{{ item }}", run: [Items(list: ["good", "bad", "ugly"])]),
            Stage(name: "ask", tolerate: "90%", run: [
                Http(via: "v", post: "/{{ item }}", query: {"token": "{{ secret.canary }}"}, body: Form({"token": "{{ secret.canary }}"})),
            ]),
            Stage(name: "child", from: ["list"], tolerate: "90%", run: [
                Exec(sh: "test \"${#TOKEN}\" = 13 && test \"$NAME\" = good", env: {"TOKEN": "{{ secret.canary }}", "NAME": "{{ item }}"}),
            ]),
            Stage(name: "end", from: ["ask", "child"], gather: All, run: [
                Write(ndjson: "all.ndjson"),
                Jq(filter: "[failures]"),
                Write(json: "failures.json"),
                Render(template: "page.html", to: "page.html"),
            ]),
        ],
        on_finish: [Notify(when: [Partial], run: [Exec(sh: "echo \"$REPORT\"", env: {"REPORT": "{{ run.report }}"})])],
    )"#;
    let place = Place::with_job("ask", &job.replace("BASE", &vendor.base));
    place.write("jobs/page.html", "{% for f in value %}{{ f.key }} {{ f.message }}{% endfor %}");
    for format in ["human", "json"] {
        for log in ["debug", "trace"] {
            let mut command = place.command(&["run", "ask", "--format", format]);
            let command = command.env("LAMPLIGHTER_LOG", log).env("LAMPLIGHTER_SECRET_CANARY", CANARY);
            let done = finish(command).exits(3);
            assert!(done.stdout.contains("http_500"), "{}", done.stdout);
            assert!(!done.stdout.contains(CANARY), "{}", done.stdout);
            assert!(!done.stderr.contains(CANARY), "{}", done.stderr);
            for file in place.files().iter().filter(|file| !file.starts_with("jobs/")) {
                assert!(!place.read(file).contains(CANARY), "{file}");
            }
        }
    }
    for name in ["state.db", "state.db-wal"] {
        let bytes = fs::read(place.state().join(name)).unwrap_or_default();
        assert!(!bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes()), "{name}");
    }
    for arguments in [&["show", "ask", "--items", "all"][..], &["logs", "ask"], &["logs", "ask", "--format", "json"]] {
        let told = place.run(arguments).exits(0).stdout;
        assert!(told.contains("ask") && !told.contains(CANARY), "{arguments:?}: {told}");
    }
    let mut dry = place.command(&["run", "ask", "--dry-run"]);
    let done = finish(dry.env("LAMPLIGHTER_LOG", "trace").env("LAMPLIGHTER_SECRET_CANARY", CANARY)).exits(0);
    assert!(!format!("{}{}", done.stdout, done.stderr).contains(CANARY), "{}", done.stdout);
}

#[test]
fn an_output_that_cannot_be_written_fails_the_run_by_name_and_the_old_file_stays_whole() {
    let job = r#"Job(params: {"to": "x.json"}, stages: [
        Stage(name: "list", run: [Items(list: ["new"])]),
        Stage(name: "end", gather: All, run: [Write(json: "old.json"), Write(json: "{{ params.to }}")]),
    ])"#;
    let place = Place::with_job("write", job);
    // A folder where the file should be.
    fs::create_dir_all(place.path("out/x.json")).expect("a folder");
    place.write("out/x.json/kept", "old");
    place.write("out/a-file", "old");
    place.run(&["run", "write"]).exits(1).prints("x.json").prints("write failed");
    // A file where a folder should be.
    let done = place.run(&["run", "write", "--set", "to=a-file/x.json", "--format", "json"]).exits(1);
    assert!(done.json()["reason"].as_str().is_some_and(|why| why.contains("a-file")), "{}", done.stdout);
    assert_eq!(place.read("out/a-file"), "old");
    assert_eq!(place.read("out/x.json/kept"), "old");
    // The output root itself is a file.
    place.run(&["run", "write", "--out", "out/a-file"]).exits(2).says("out/a-file");
    let left: Vec<String> =
        place.files().into_iter().filter(|file| file.contains("lamplighter") || file.contains("tmp")).collect();
    assert_eq!(left, [""; 0], "no temporary file stays");
}

#[test]
fn stdout_that_cannot_be_written_is_told_and_one_that_is_closed_is_not() {
    let place = Place::with_job("three", THREE);
    let full = || Stdio::from(fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full"));
    for (arguments, code) in [
        (&["run", "three", "--limit", "1"][..], 74),
        (&["run", "three", "--format", "json"], 3),
        (&["run", "three", "--until", "list"], 74),
        (&["check"], 74),
        (&["graph", "three"], 74),
        (&["completions", "bash"], 74),
        (&["vendor-sim", "--listen", "127.0.0.1:0"], 74),
    ] {
        let done = super::util::Going::start_as_it_is(place.command(arguments).stdout(full())).end();
        done.exits(code).says("stdout cannot be written");
    }
    // A stderr that takes nothing changes nothing.
    let mut command = place.command(&["run", "three"]);
    let status = command.stdout(Stdio::null()).stderr(full()).status().expect("it runs");
    assert_eq!(status.code(), Some(3));
    let mut command = place.command(&["run", "absent"]);
    assert_eq!(command.stdout(Stdio::null()).stderr(full()).status().expect("it runs").code(), Some(2));
}

#[test]
fn a_reader_that_goes_away_ends_the_run_and_panics_nobody() {
    let place = Place::with_job(
        "endless",
        r#"Job(stages: [
        Stage(name: "list", run: [Exec(argv: ["yes"], stdout: Lines)]),
    ])"#,
    );
    let mut going = super::util::Going::start_as_it_is(
        place.command(&["run", "endless", "--until", "list"]).stdout(Stdio::piped()).env("LAMPLIGHTER_LOG", "info"),
    );
    going.close_stdout_after_a_line();
    going.end().exits(130).says("stdout, which takes no more");
}

#[test]
fn without_a_terminal_a_run_writes_few_lines_and_no_colours() {
    let stages: Vec<String> =
        (0..25).map(|at| format!("Stage(name: \"s{at}\", run: [Log(message: \"{{{{ key }}}} here\")])")).collect();
    let list = "Stage(name: \"list\", run: [Jq(filter: \"range(100)\")])";
    let place = Place::with_job("many", &format!("Job(stages: [{list}, {}])", stages.join(", ")));
    let done = place.run(&["run", "many"]).exits(0).says("run started").says("run ended");
    assert!(done.stderr.lines().count() <= 20, "{}", done.stderr);
    assert!(done.stderr.contains("more lines were left out"), "{}", done.stderr);
    assert!(!format!("{}{}", done.stdout, done.stderr).contains('\x1b'));
    let place = Place::with_job("three", THREE);
    let done = place.run(&["run", "three"]).exits(3);
    for stage in ["list", "work", "end"] {
        assert_eq!(done.stderr.lines().filter(|line| line.contains(&format!("stage={stage} "))).count(), 1);
    }
    let mut all = place.command(&["run", "three"]);
    finish(all.env("LAMPLIGHTER_LOG", "error")).exits(3);
}

#[test]
fn the_summary_names_who_is_missing_and_what_was_written() {
    let place = Place::with_job("three", THREE);
    let done = place.run(&["run", "three"]).exits(3);
    let mut lines = done.stdout.lines();
    assert!(lines.next().is_some_and(|line| line.starts_with("three partial")));
    assert_eq!(lines.next(), Some("  1 of 3 items of stage `work` are missing"));
    let done = done.prints("missing 1\n  work  exit  b  ").prints("\nwritten\n  out/names.json  ");
    assert!(done.stdout.contains("  stage  items  ok  failed  attempts\n"), "{}", done.stdout);
}

#[test]
fn check_tells_every_problem_of_every_file_in_both_formats() {
    let place = Place::with_job("good", THREE);
    place.run(&["check"]).exits(0).prints("jobs/good.ron: ok");
    place.write(
        "jobs/bad.ron",
        "Job(\n    deadlin: \"5m\",\n    stages: [Stage(name: \"x\", workers: 0, run: [Log(message: \"x\")])],\n)",
    );
    place.write("jobs/off.ron.off", "nothing of this is read");
    let done = place.run(&["check"]).exits(2).prints("jobs/good.ron: ok").prints("did you mean `deadline`");
    assert!(done.stdout.contains("jobs/bad.ron:2:5"), "{}", done.stdout);
    let problems = place.run(&["check", "--format", "json"]).exits(2).json();
    assert!(
        problems.as_array().is_some_and(|list| !list.is_empty() && list[0]["file"] == "jobs/bad.ron"),
        "{problems}"
    );
    place.run(&["check", "jobs/good.ron"]).exits(0);
    let done = place.run(&["check", "nowhere.ron"]).exits(2);
    assert!(format!("{}{}", done.stdout, done.stderr).contains("nowhere.ron"), "{done:?}");
    place.run(&["check", "jobs/good.ron", "jobs/bad.ron"]).exits(2);
    // A secret that is not there is a remark at most: the gateway may have it.
    place.write("remark/later.ron", r#"Job(stages: [Stage(name: "rows", run: [Read(csv: "absent.csv")])])"#);
    place.run(&["check", "remark"]).exits(0).prints("1 remark");
    place.run(&["check", "remark", "--strict"]).exits(2);
}

#[test]
fn graph_draws_the_stages_in_three_languages() {
    let (place, jobs) = (Place::new(), repository("jobs"));
    let jobs = jobs.to_string_lossy();
    let graph = |format| place.run(&["graph", "trial-report", "--jobs", &jobs, "--format", format]).exits(0).stdout;
    let mermaid = graph("mermaid");
    assert!(mermaid.starts_with("flowchart LR\n") && mermaid.contains("statistics"), "{mermaid}");
    assert_eq!(mermaid.matches("-->").count(), 3, "{mermaid}");
    let dot = graph("dot");
    assert!(dot.starts_with("digraph \"trial-report\" {") && dot.ends_with("}\n"), "{dot}");
    assert_eq!(dot.matches("->").count(), 3, "{dot}");
    let svg = graph("svg");
    assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"), "{svg}");
    assert_eq!(svg.matches("marker-end").count(), 3, "{svg}");
    for name in ["patients", "vitals", "statistics", "report"] {
        assert!(svg.contains(&format!(">{name}</text>")), "{svg}");
    }
}

#[test]
fn completions_know_the_commands() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        place.run(&["completions", shell]).exits(0).prints("vendor-sim");
    }
    place.run(&["--help"]).exits(0).prints("Usage: lamplighter");
    place.run(&["--version"]).exits(0).prints(env!("CARGO_PKG_VERSION"));
    place.run(&[]).exits(2).says("Usage: lamplighter");
}

#[test]
fn the_vendor_prints_its_address_when_it_is_ready_and_ends_on_a_signal() {
    let sim = Sim::start(3, &[]);
    let (status, body) = get(&format!("{}/v1/patients", sim.base), "Authorization: Bearer demo-token\r\n");
    assert_eq!(status, 200);
    assert!(body.contains("P00003") && !body.contains("P00004"), "{body}");
    assert_eq!(get(&format!("{}/v1/patients", sim.base), "").0, 401);
    assert_eq!(sim.stop(rustix::process::Signal::TERM), Some(0));
    assert_eq!(Sim::start(3, &[]).stop(rustix::process::Signal::INT), Some(0));
}

#[test]
fn the_options_of_the_vendor_do_what_they_say() {
    let place = Place::new();
    let csv = place.path("patients.csv");
    let sim =
        Sim::start(4, &["--write-patients", &csv.to_string_lossy(), "--oauth", "--token-ttl", "1h", "--seed", "7"]);
    assert_eq!(place.read("patients.csv").lines().count(), 5);
    assert_eq!(get(&format!("{}/v1/patients", sim.base), "Authorization: Bearer demo-token\r\n").0, 401);
    let address = sim.base.strip_prefix("http://").expect("a URL");
    place.run(&["vendor-sim", "--listen", address]).exits(74).says("cannot listen on");
    place.run(&["vendor-sim", "--write-patients", "no/such/folder.csv"]).exits(74).says("no/such/folder.csv");
    place.run(&["vendor-sim", "--token-ttl", "48h", "--listen", "127.0.0.1:0"]).exits(2).says("a day at most");
    let slow = Sim::start(4, &["--rate", "1/h"]);
    let ask = || get(&format!("{}/v1/patients", slow.base), "Authorization: Bearer demo-token\r\n").0;
    let answers: Vec<u16> = (0..3).map(|_| ask()).collect();
    assert!(answers.contains(&429), "{answers:?}");
}

#[test]
fn the_demo_tells_the_night_in_numbers_and_names_the_report() {
    let place = Place::new();
    let done =
        place.run(&["demo", "--patients", "40", "--time-scale", "0", "--faults", "off", "--out", "here"]).exits(0);
    let told: Vec<&str> =
        done.stdout.lines().skip(2).map(|line| line.split_whitespace().next().unwrap_or("")).collect();
    assert_eq!(told, ["patients", "reached", "no", "failed", "anomalies", "data", "report"], "{}", done.stdout);
    let done = done.prints("nightly-vitals succeeded").prints("here/2026-11-22/vitals.html\n");
    assert!(place.read("here/2026-11-22/vitals.html").contains("<svg"));
    let shown = |name: &str| {
        done.stdout.lines().find_map(|line| line.trim().strip_prefix(name)).map(str::trim).map(str::to_owned)
    };
    let json = place
        .run(&["demo", "--patients", "40", "--time-scale", "0", "--faults", "off", "--format", "json"])
        .exits(0)
        .json();
    assert_eq!(shown("patients"), Some("40".to_owned()));
    assert_eq!(shown("anomalies"), Some(json["anomalies"].to_string()));
    assert_eq!(json["report"], "out/2026-11-22/vitals.html");
    // Another seed is another vendor, another night another file.
    place.run(&[
        "demo",
        "--patients",
        "5",
        "--time-scale",
        "0",
        "--seed",
        "1",
        "--night",
        "2027-01-31",
        "--workers",
        "2",
    ]);
    assert!(read_json(&place, "out/2027-01-31/vitals.json")["night"] == "2027-01-31");
    // A vendor without patients is no green night.
    place.run(&["demo", "--patients", "0", "--time-scale", "0"]).exits(1).prints("too_few_items");
}
