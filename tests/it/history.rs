//! What the program keeps of runs, and the commands that read and steer it.

#![allow(clippy::disallowed_methods, reason = "the program is another process, watched from real threads")]

use super::util::{Done, Going, Place, until};
use async_executor::Executor;
use lamplighter::{
    query::{Form, HistoryQuestion, Items, LogsQuestion, Piece, Runs, ShowQuestion, Unanswered},
    store::{
        State,
        sqlite::{Sqlite, StateOptions},
    },
    world::World,
};
use serde_json::{Value, json};
use std::{convert::Infallible, sync::Arc};

/// Four items, two at a time; P3 fails while the file `there` is not among the outputs.
const NIGHTLY: &str = r#"Job(
    timezone: "Asia/Shanghai",
    stages: [
        Stage(name: "patients", key: "{{ item.id }}", run: [Items(list: [{"id": "P1"}, {"id": "P2"}, {"id": "P3"}, {"id": "P4"}])]),
        Stage(name: "vitals", workers: 2, tolerate: "50%", run: [
            Log(message: "asking for {{ key }}"),
            Exec(argv: ["sh", "-c", "echo looking for $0 >> seen; echo $0 $LAMPLIGHTER_IDEMPOTENCY_KEY >> keys; echo here is $0; test $0 != P3 || test -e there", "{{ item.id }}"], stdout: Log),
        ]),
        Stage(name: "report", gather: All, run: [Write(json: "report.json")]),
    ],
)"#;

/// An item that does not end while the file `go` is not there, behind one that does.
const SLOW: &str = r#"Job(stages: [
    Stage(name: "list", key: "{{ item }}", run: [Items(list: ["a", "b", "c"])]),
    Stage(name: "work", run: [Exec(argv: ["sh", "-c", "echo $0 >> seen; test $0 = a || while test -d ../jobs && ! test -e go; do sleep 0.02; done", "{{ item }}"])]),
    Stage(name: "report", gather: All, run: [Write(json: "report.json")]),
])"#;

fn nightly() -> Place {
    Place::with_job("nightly", NIGHTLY)
}

fn names(report: &str) -> Vec<String> {
    let items: Vec<Value> = serde_json::from_str(report).expect("JSON");
    items.iter().map(|item| item["id"].as_str().or(item.as_str()).unwrap_or_default().to_owned()).collect()
}

fn runs(place: &Place) -> Vec<Value> {
    let told = place.run(&["history", "--format", "json"]).exits(0).json();
    told["runs"].as_array().expect("a list").clone()
}

fn shown(place: &Place, of: &str) -> Value {
    place.run(&["show", of, "--format", "json"]).exits(0).json()
}

/// Waits until a child has written this.
#[track_caller]
fn until_file_says(place: &Place, file: &str, text: &str) {
    until(&format!("{file} says {text:?}"), || place.path(file).exists() && place.read(file).contains(text));
}

/// The job `slow` up to where it waits for the file `go`, killed there.
fn killed() -> Place {
    let place = Place::with_job("slow", SLOW);
    let mut going = Going::start(place.command(&["run", "slow"]).env("LAMPLIGHTER_LOG", "info"));
    going.until_it_says("run started");
    until_file_says(&place, "out/seen", "b");
    // What is done is on the disk a moment later.
    until("its row", || shown(&place, "slow")["stages"][1]["ok"] == 1);
    going.child.kill().expect("it can be killed");
    let Done { code, .. } = going.end();
    assert_eq!(code, 1000 + 9);
    place
}

#[test]
fn before_the_first_run_there_is_nothing_and_the_commands_say_so() {
    let place = nightly();
    place.run(&["history"]).exits(0).says("no run was kept");
    assert_eq!(place.run(&["history", "--format", "json"]).exits(0).json(), json!({ "runs": [], "firings": [] }));
    for command in ["show", "logs", "retry"] {
        place.run(&[command, "nightly"]).exits(2).says("no run was kept");
    }
    place.run(&["forget", "--key", "P1"]).exits(2).says("no run was kept");
    assert_eq!(place.files(), ["jobs/nightly.ron"], "who only asks makes nothing");
}

#[test]
fn a_name_that_is_not_known_is_answered_with_the_likely_one() {
    let place = nightly();
    place.write("jobs/other.ron", r#"Job(run: [Exec(argv: ["true"])])"#);
    place.run(&["run", "nightly"]).exits(3);
    for command in ["show", "logs", "retry", "history"] {
        place.run(&[command, "nihgtly"]).exits(2).says("did you mean `nightly`?");
        place.run(&[command, "other"]).exits(2).says("no run of `other` is kept");
    }
    place.run(&["forget", "--key", "a//b"]).exits(2).says("`--key` is no key");
    place.run(&["logs", "nightly", "--item", ""]).exits(2).says("`--item` is no key");
}

#[test]
fn a_run_is_in_the_history_and_is_shown_with_its_stages_over_its_time() {
    let place = nightly();
    let record = place.run(&["run", "nightly", "--format", "json"]).exits(3).json();
    place.run(&["run", "nightly", "--dry-run"]).exits(0);
    place.run(&["run", "nightly", "--no-state"]).exits(3);
    let [run] = &runs(&place)[..] else { panic!("trials are not kept") };
    assert_eq!((&run["run"], &run["outcome"], &run["state"]), (&record["run"], &json!("partial"), &json!("ended")));
    assert_eq!((&run["trigger"], &run["started"]), (&json!("manual"), &record["started"]));
    assert!(run["started"].as_str().is_some_and(|time| time.ends_with("+08:00")), "{run}");
    let utc = place.run(&["history", "nightly", "-n", "1", "--utc", "--format", "json"]).exits(0).json();
    assert!(utc["runs"][0]["started"].as_str().is_some_and(|time| time.ends_with("+00:00")), "{utc}");
    let history = place.run(&["history"]).exits(0).prints("nightly  partial");
    history.prints("1 of 4 items of stage `vitals` are missing");

    let shown = shown(&place, "nightly");
    for (field, value) in record.as_object().expect("an object") {
        if field != "stages" {
            assert_eq!(&shown[field], value, "{field}");
        }
    }
    for stage in shown["stages"].as_array().expect("a list") {
        let (began, ended) =
            (stage["began_ms"].as_u64().expect("it began"), stage["ended_ms"].as_u64().expect("it ended"));
        assert!(began <= ended && ended <= shown["ran_ms"].as_u64().expect("it ran"), "{stage}");
    }
    assert_eq!((&shown["passes"], &shown["crashes"], &shown["repeats"]), (&json!(1), &json!(0), &Value::Null));
    let in_utc = place.run(&["show", "nightly", "--utc", "--format", "json"]).exits(0).json();
    assert!(in_utc["started"].as_str().is_some_and(|time| time.ends_with("+00:00")), "{in_utc}");
    assert!(shown["slowest"].as_array().is_some_and(|slowest| slowest.len() == 5), "{shown}");
    let id = record["run"].as_str().expect("an id");
    let text =
        place.run(&["show", id, "--items", "missing"]).exits(0).prints("nightly partial").prints("━").prints("slowest");
    let last = text.stdout.lines().last().unwrap_or_default();
    assert!(last.contains("P3") && last.contains("exit") && last.contains("`sh` ended with code 1"), "{}", text.stdout);

    let missing = place.run(&["show", id, "--items", "missing", "--format", "json"]).exits(0).json();
    let [item] = &missing["items"].as_array().expect("a list")[..] else { panic!("{missing}") };
    assert_eq!((&item["key"], &item["outcome"], &item["class"]), (&json!("P3"), &json!("failed"), &json!("exit")));
    let all = place.run(&["show", id, "--items", "all", "--format", "json"]).exits(0).json();
    assert_eq!(all["items"].as_array().map(Vec::len), Some(9), "{all}");
}

#[test]
fn the_log_of_a_run_has_what_its_author_children_and_items_said() {
    let place = nightly();
    place.run(&["run", "nightly"]).exits(3);
    let text = place.run(&["logs", "nightly"]).exits(0).stdout;
    for told in [
        "run started",
        "vitals P1  asking for P1",
        "vitals P2  here is P2",
        "vitals P3  failed: exit: `sh` ended with code 1",
        "vitals  stage ended items=4 ok=3 empty=0 missing=1",
        "run ended: 1 of 4 items of stage `vitals` are missing job=nightly outcome=partial",
    ] {
        assert!(text.contains(told), "no {told:?} in:\n{text}");
    }
    let day = text.lines().next().unwrap_or_default();
    assert!(day.len() == 17 && day.ends_with(" +08:00"), "{day}");
    let utc = place.run(&["logs", "nightly", "--utc"]).exits(0).stdout;
    assert!(utc.lines().next().is_some_and(|day| day.ends_with(" +00:00")), "{utc}");
    let json = place.run(&["logs", "nightly", "--item", "P3", "--format", "json", "--follow"]).exits(0).stdout;
    let lines: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(lines.iter().all(|line| line["key"] == "P3" && line["stage"] == "vitals"), "{json}");
    assert_eq!(lines.last().map(|line| &line["level"]), Some(&json!("warn")), "{json}");
    assert_eq!(lines.len(), 3, "{json}");
}

#[test]
fn a_retry_does_what_was_left_and_its_report_is_whole() {
    let place = nightly();
    place.run(&["run", "nightly"]).exits(3);
    assert_eq!(names(&place.read("out/report.json")), ["P1", "P2", "P4"]);
    let first = runs(&place)[0]["run"].clone();
    place.write("out/there", "");
    // The job file is not needed any more: a run is repeated by the definition that it began with.
    std::fs::remove_file(place.path("jobs/nightly.ron")).expect("removed");
    let record = place.run(&["retry", "nightly", "--format", "json"]).exits(0).json();
    assert_eq!(record["outcome"], "succeeded");
    assert_eq!((&record["stages"][1]["items"], &record["stages"][1]["ok"]), (&json!(4), &json!(4)), "{record}");
    assert_eq!(names(&place.read("out/report.json")), ["P1", "P2", "P3", "P4"]);
    let mut seen: Vec<String> = place.read("out/seen").lines().map(str::to_owned).collect();
    seen.sort();
    let looked = ["P1", "P2", "P3", "P3", "P4"].map(|id| format!("looking for {id}"));
    assert_eq!(seen, looked, "what was done is not done again");
    let keys = place.read("out/keys");
    let [first_key, second_key] = &keys.lines().filter(|line| line.starts_with("P3 ")).collect::<Vec<_>>()[..] else {
        panic!("{keys}")
    };
    assert!(first_key == second_key && first_key.len() > 10, "a service must know the repeated call: {keys}");
    let shown = shown(&place, "nightly");
    assert_eq!((&shown["repeats"], &shown["trigger"], &shown["passes"]), (&first, &json!("retry"), &json!(1)));
    place.run(&["logs", "nightly"]).exits(0).prints("run started job=nightly repeats=");
}

#[test]
fn an_item_is_forgotten_everywhere_and_what_still_holds_it_is_named() {
    let place = nightly();
    place.run(&["run", "nightly"]).exits(3);
    let told = place.run(&["forget", "--key", "P1", "--format", "json"]).exits(0).json();
    assert_eq!((&told["rows"], &told["gathers"][0]["stage"]), (&json!(2), &json!("report")), "{told}");
    assert_eq!(told["outputs"][0]["path"], "report.json", "{told}");
    let items = place.run(&["show", "nightly", "--items", "all", "--format", "json"]).exits(0).json();
    assert!(items["items"].as_array().is_some_and(|items| items.iter().all(|item| item["key"] != "P1")), "{items}");
    assert_eq!(place.run(&["logs", "nightly", "--item", "P1"]).exits(0).stdout, "");
    place.run(&["forget", "--key", "P3"]).exits(0).prints("P3 is forgotten").prints("they are not rewritten");
    place.run(&["show", "nightly"]).exits(0).prints("and 1 more whose names are not kept");
    place.run(&["forget", "--key", "P9"]).exits(0).prints("nothing of P9 is kept");
}

#[test]
fn a_run_that_was_killed_is_shown_as_unfinished_and_ended_by_a_resume() {
    let place = killed();
    let [run] = &runs(&place)[..] else { panic!("one run") };
    let parts = (&run["state"], &run["outcome"], &run["is_resumable"]);
    assert_eq!(parts, (&json!("interrupted"), &Value::Null, &json!(true)));
    place.run(&["history"]).exits(0).prints("slow  interrupted").prints("`run slow --resume` goes on with it");
    let open = shown(&place, "slow");
    assert_eq!((&open["state"], &open["ended"]), (&json!("interrupted"), &Value::Null));
    assert_eq!((&open["stages"][0]["ok"], &open["stages"][1]["ok"]), (&json!(3), &json!(1)), "{open}");
    place.run(&["show", "slow"]).exits(0).prints("slow interrupted after").prints("run slow --resume");
    place.run(&["logs", "slow", "--follow"]).exits(0).prints("run started").says("has no process now");
    place.run(&["retry", "slow"]).exits(4).says("has not ended");
    place.run(&["forget", "--key", "z"]).exits(0);
    let held = place.run(&["forget", "--key", "a", "--format", "json"]).exits(4).json();
    assert_eq!(held["unfinished"][0], run["run"]);

    place.write("out/go", "");
    place.run(&["run", "slow", "--resume"]).exits(0).says("run resumed");
    assert_eq!(names(&place.read("out/report.json")), ["a", "b", "c"]);
    let ended = shown(&place, "slow");
    assert_eq!((&ended["run"], &ended["outcome"]), (&run["run"], &json!("succeeded")));
    assert_eq!((&ended["passes"], &ended["crashes"]), (&json!(2), &json!(1)));
    place.run(&["show", "slow"]).exits(0).prints("in 2 passes, its process died once");
    let log = place.run(&["logs", "slow"]).exits(0).stdout;
    let order = ["run started", "run resumed", "run ended"]
        .map(|told| log.find(told).unwrap_or_else(|| panic!("{told}: {log}")));
    assert!(order.is_sorted(), "{log}");
}

#[test]
fn the_commands_read_while_another_process_runs() {
    let place = Place::with_job("slow", SLOW);
    let mut going = Going::start(place.command(&["run", "slow"]).env("LAMPLIGHTER_LOG", "info"));
    going.until_it_says("run started");
    let follow = Going::start(&mut place.command(&["logs", "slow", "--follow"]));
    assert_eq!(runs(&place)[0]["state"], "running");
    place.run(&["show", "slow"]).exits(0).prints("slow running after");
    place.run(&["retry", "slow"]).exits(4).says("has not ended");
    place.run(&["run", "slow"]).exits(4).says("the job runs already");
    place.write("out/go", "");
    going.end().exits(0);
    follow.end().exits(0).prints("run started").prints("run ended");
}

#[test]
fn a_run_whose_items_are_gone_is_not_repeated_and_old_runs_are_let_go() {
    let place = nightly();
    place.write("lamplighter.ron", r#"Config(history: History(max_runs: 2, max_bytes: "1B"))"#);
    for _ in 0..4 {
        place.run(&["run", "nightly"]).exits(3);
    }
    assert_eq!(runs(&place).len(), 2);
    let oldest = runs(&place)[1]["run"].as_str().expect("an id").to_owned();
    let shown = shown(&place, &oldest);
    assert_eq!((&shown["has_items"], &shown["outcome"]), (&json!(false), &json!("partial")));
    place.run(&["show", &oldest, "--items", "all"]).exits(0).prints("its items are not stored any more");
    place.run(&["retry", &oldest]).exits(4).says("is not stored any more");
}

#[test]
fn notices_that_a_dead_process_did_not_send_are_sent_by_the_next_run_of_the_job() {
    let notice = r#"Notify(when: [Succeeded], run: [Exec(argv: ["sh", "-c", "echo begin $0 >> told; test -e go || sleep 60; echo end $0 >> told", "{{ run.id }}"])])"#;
    let place = Place::with_job("quick", &format!(r#"Job(run: [Exec(argv: ["true"])], on_finish: [{notice}])"#));
    let mut going = Going::start(place.command(&["run", "quick"]).env("LAMPLIGHTER_LOG", "info"));
    going.until_it_says("run ended");
    until_file_says(&place, "out/told", "begin");
    going.child.kill().expect("it can be killed");
    going.end();
    let first = runs(&place)[0]["run"].as_str().expect("an id").to_owned();
    place.write("out/go", "");
    place.write("out/told", "");
    place.run(&["run", "quick"]).exits(0).says("were not sent");
    let second = runs(&place)[0]["run"].as_str().expect("an id").to_owned();
    let told = format!("begin {first}\nend {first}\nbegin {second}\nend {second}\n");
    assert_eq!(place.read("out/told"), told);
    place.run(&["run", "quick"]).exits(0);
    assert!(place.read("out/told").starts_with(&told) && place.read("out/told").matches(&*first).count() == 2);
}

/// `Interrupted` is told where it is final: when somebody runs the job anew instead of going on with the run.
#[test]
fn a_run_that_nobody_goes_on_with_is_told_as_interrupted_and_one_that_goes_on_is_not() {
    let notice = |when: &str| {
        format!(
            r#"Notify({when}run: [Exec(argv: ["sh", "-c", "echo $0 $1 >> told; test -e sent || sleep 60", "{{{{ run.id }}}}", "{{{{ run.summary }}}}"])])"#
        )
    };
    let slow = SLOW.strip_suffix("])").expect("the end of the stages");
    for when in ["when: [Interrupted], ", ""] {
        let place = Place::with_job("slow", &format!("{slow}], on_finish: [{}])", notice(when)));
        let kill = |going: &mut Going| {
            going.child.kill().expect("it can be killed");
        };
        let begin = || {
            let mut going = Going::start(place.command(&["run", "slow"]).env("LAMPLIGHTER_LOG", "info"));
            until_file_says(&place, "out/seen", "b");
            kill(&mut going);
            going.end();
            runs(&place)[0]["run"].as_str().expect("an id").to_owned()
        };
        let first = begin();
        place.write("out/go", "");
        place.run(&["run", "slow", "--resume"]).exits(0);
        assert!(!place.path("out/told").exists(), "a run that goes on is not told of");
        std::fs::remove_file(place.path("out/go")).expect("removed");
        place.write("out/seen", "");
        let second = begin();
        assert_ne!(first, second);
        place.write("out/go", "");
        // The process dies over the notice: that is written down with the end of the run, and sent by the next.
        let mut going = Going::start(&mut place.command(&["run", "slow"]));
        until_file_says(&place, "out/told", &second);
        kill(&mut going);
        going.end();
        place.write("out/sent", "");
        place.write("out/told", "");
        place.run(&["run", "slow"]).exits(0).says(&format!("the notices of {second} were not sent"));
        let told = place.read("out/told");
        let expected = format!("{second} slow interrupted: its process ended before it, and nobody went on with it\n");
        assert_eq!(told, expected, "{when}");
        place.run(&["run", "slow"]).exits(0);
        assert_eq!(place.read("out/told"), told, "it is sent once more only where nobody knows that it was");
    }
}

/// Whoever has the state open gives the answers that the commands print, to the byte: a daemon, over its socket, too.
#[test]
fn the_library_gives_the_bytes_that_the_commands_print() {
    let place = nightly();
    place.run(&["run", "nightly"]).exits(3);
    place.run(&["retry", "nightly"]).exits(3);
    let world = World::real(Arc::new(Executor::new()));
    let dir = place.state();
    let options = StateOptions { dir: &dir, now_ms: 0, instance: "", accept_new: false };
    let (store, _) = Sqlite::durable(&options).expect("a state that others read meanwhile");
    let state = State::new(Arc::new(store));
    let runs = Runs { state: &state, world: &world, jobs: Arc::new(|| vec!["nightly".into()]) };
    // They can be given by a task on any thread.
    fn is_send(_: impl Send) {}
    let ignores = async |_: Piece| Ok::<(), Infallible>(());
    is_send(runs.history(&HistoryQuestion { job: None, number: 1, utc: false }, Form::default(), ignores));
    is_send(runs.show(&ShowQuestion { run: String::new(), items: None, utc: false }, Form::default(), ignores));
    let logs = LogsQuestion { run: String::new(), follow: true, item: None, utc: false };
    is_send(runs.logs(&logs, Form::default(), ignores));
    for json in [false, true] {
        let form = Form { json, ..Form::default() };
        let same = |command: &[&str], answer: &dyn Fn(&mut String) -> Result<(), Unanswered<Infallible>>| {
            let format = if json { "json" } else { "human" };
            let printed = place.run(&[command, &["--format", format]].concat());
            let mut told = String::new();
            match answer(&mut told) {
                Ok(()) => assert_eq!(told, printed.exits(0).stdout, "{command:?}"),
                Err(Unanswered::Refused(why)) => drop(printed.exits(2).says(&why)),
                Err(other) => panic!("{command:?}: {other:?}"),
            }
        };
        let into = |told: &mut String, piece: Piece| {
            if let Piece::Answer(text) = piece {
                told.push_str(&text);
            }
            Ok(())
        };
        for job in [None, Some("nightly"), Some("nigthly")] {
            let question = HistoryQuestion { job: job.map(str::to_owned), number: 20, utc: false };
            let command: Vec<&str> = ["history"].into_iter().chain(job).collect();
            same(&command, &|told| {
                smol::block_on(runs.history(&question, form, async |piece: Piece| into(told, piece)))
            });
        }
        for run in ["nightly", "nigthly"] {
            let question = ShowQuestion { run: run.into(), items: Some(Items::All), utc: true };
            same(&["show", run, "--items", "all", "--utc"], &|told| {
                smol::block_on(runs.show(&question, form, async |piece: Piece| into(told, piece)))
            });
            let question = LogsQuestion { run: run.into(), follow: false, item: Some("P3".into()), utc: false };
            same(&["logs", run, "--item", "P3"], &|told| {
                smol::block_on(runs.logs(&question, form, async |piece: Piece| into(told, piece)))
            });
        }
    }
}
