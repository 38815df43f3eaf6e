//! What signals and terminals do to a run in the foreground.

use super::{
    hostile::bench::skip,
    left::nothing_of,
    util::{Going, PROGRAM, Place},
};
use lamplighter::item::Value;
use rustix::process::Signal;
use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

/// Says its process id and sleeps; `TRAP` is done on SIGTERM.
const SLEEPER: &str = r#"Job(stages: [
    Stage(name: "list", key: "{{ item }}", run: [Items(list: ["a", "b", "c"])]),
    Stage(name: "sleep", workers: 1, run: [Exec(sh: "TRAP; echo \"sleeper $$ is ready\"; while test -d ../jobs; do sleep 1; done")]),
    Stage(name: "end", gather: All, run: [Write(json: "x.json")]),
])"#;

/// A run of the sleeper that has begun.
fn sleeper(place: &Place, trap: &str, arguments: &[&str]) -> Going {
    place.write("jobs/sleeper.ron", &SLEEPER.replace("TRAP", trap));
    let mut all = vec!["run", "sleeper"];
    all.extend(arguments);
    let mut going = Going::start(place.command(&all).env("LAMPLIGHTER_LOG", "info"));
    going.until_it_says("is ready");
    going
}

/// The process that said it was ready is gone.
fn sleeper_is_gone(stderr: &str) -> bool {
    let pid = stderr.split("sleeper ").nth(1).and_then(|rest| rest.split(' ').next()).expect("a process id");
    !Path::new("/proc").join(pid).exists()
}

#[test]
fn a_signal_cancels_the_run_and_the_summary_is_still_written() {
    for (signal, name, code) in
        [(Signal::INT, "SIGINT", 130), (Signal::TERM, "SIGTERM", 143), (Signal::HUP, "SIGHUP", 129)]
    {
        let place = Place::new();
        let going = sleeper(&place, ":", &["--format", "json"]);
        going.signal(signal);
        let done = going.end().exits(code).says(&format!("{name}: the run is cancelled; once more kills what is left"));
        let record: Value = done.json();
        assert_eq!(record["outcome"], "cancelled");
        assert_eq!(record["reason"], format!("cancelled by {name}"));
        assert_eq!(record["stages"][1]["cancelled"], 1, "{record}");
        assert_eq!(record["stages"][1]["not_reached"], 2, "{record}");
        assert_eq!(record["outputs_total"], 0);
        assert!(sleeper_is_gone(&done.stderr));
        nothing_of(&place.path(""), record["run"].as_str());
        assert_eq!(place.files(), ["jobs/sleeper.ron"]);
    }
}

#[test]
fn a_second_signal_kills_what_does_not_end() {
    let place = Place::new();
    place.write("lamplighter.ron", r#"Config(grace_period: "1h")"#);
    let mut going = sleeper(&place, "trap '' TERM", &[]);
    going.signal(Signal::TERM);
    going.until_it_says("once more kills");
    going.signal(Signal::TERM);
    let done = going.end().exits(143).says("what is left is killed").prints("sleeper cancelled");
    assert!(sleeper_is_gone(&done.stderr));
    nothing_of(&place.path(""), None);
}

#[test]
fn a_child_that_does_not_end_is_killed_after_the_grace_period() {
    let place = Place::new();
    place.write("lamplighter.ron", r#"Config(grace_period: "300ms")"#);
    let going = sleeper(&place, "trap '' TERM", &[]);
    going.signal(Signal::INT);
    let done = going.end().exits(130);
    assert!(sleeper_is_gone(&done.stderr));
    nothing_of(&place.path(""), None);
}

#[test]
fn a_hangup_that_was_ignored_stays_ignored() {
    let place = Place::new();
    place.write("jobs/sleeper.ron", &SLEEPER.replace("TRAP", ":"));
    let mut command = Command::new("nohup");
    command.arg(PROGRAM).args(["run", "sleeper"]).current_dir(place.path("")).stdin(Stdio::null());
    let mut going = Going::start(command.env("LAMPLIGHTER_LOG", "info"));
    going.until_it_says("is ready");
    going.signal(Signal::HUP);
    going.signal(Signal::TERM);
    going.end().exits(143);
    nothing_of(&place.path(""), None);
}

/// Runs the program on a terminal of its own, made by `script`; what it showed. When all three items of [`WORK`] are seen to
/// be in flight the keys are pressed; without keys the items may end then. Nothing where there is no `script`.
pub fn on_a_terminal(
    place: &Place,
    arguments: &str,
    keys: &[u8],
    environment: &[(&str, &str)],
) -> Option<(i32, String)> {
    let mut command = Command::new("script");
    command.args(["-qefc", &format!("stty cols 100 rows 30; exec {PROGRAM} {arguments}"), "/dev/null"]);
    command.current_dir(place.path("")).env_remove("NO_COLOR").envs(environment.iter().copied());
    command.env("XDG_STATE_HOME", place.state().parent().expect("a folder"));
    let _ = fs::remove_file(place.path("go"));
    let Ok(mut child) = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn() else {
        skip("a terminal needs `script`");
        return None;
    };
    let mut input = child.stdin.take().expect("stdin is piped");
    // Once: a second Ctrl-C is another order.
    let (mut shown, mut pressed) = (String::new(), false);
    let mut output = std::io::BufReader::new(child.stdout.take().expect("stdout is piped"));
    loop {
        let mut bytes = Vec::new();
        if std::io::BufRead::read_until(&mut output, b'\n', &mut bytes).unwrap_or(0) == 0 {
            break;
        }
        shown.push_str(&String::from_utf8_lossy(&bytes));
        if shown.contains("3 in flight") && !std::mem::replace(&mut pressed, true) {
            input.write_all(keys).and_then(|()| input.flush()).expect("keys are pressed");
            if keys.is_empty() {
                place.write("go", "");
            }
        }
    }
    Some((child.wait().expect("it is waited for").code().unwrap_or(-1), shown))
}

/// Three items that work until the file `go` is there.
pub const WORK: &str = r#"Job(stages: [
    Stage(name: "list", run: [Items(list: ["a", "b", "c"])]),
    Stage(name: "work", workers: 3, run: [Exec(sh: "echo hello; while test -d ../jobs && ! test -e ../go; do sleep 0.02; done")]),
    Stage(name: "end", gather: All, run: [Write(json: "x.json")]),
])"#;

#[test]
fn on_a_terminal_a_picture_of_the_stages_is_shown_and_taken_away() {
    let place = Place::with_job("work", WORK);
    let Some((code, shown)) = on_a_terminal(&place, "run work", b"", &[]) else { return };
    assert_eq!(code, 0, "{shown}");
    for part in ["work", "3 in flight", "0/3", "to the deadline", "━", "\x1b[J", "hello", "\x1b[32msucceeded"] {
        assert!(shown.contains(part), "{part:?} in {shown:?}");
    }
    // After the picture is gone only the summary stands there.
    let last = shown.rsplit("\x1b[J").next().expect("an end");
    assert!(last.contains("succeeded") && !last.contains("in flight"), "{last:?}");
    let (_, shown) = on_a_terminal(&place, "run work", b"", &[("NO_COLOR", "1")]).expect("script is there");
    assert!(shown.contains("3 in flight") && !shown.contains("\x1b[3") && !shown.contains("\x1b[1m"), "{shown:?}");
}

#[test]
fn ctrl_c_on_a_terminal_cancels_and_the_summary_follows_the_picture() {
    let place = Place::with_job("work", WORK);
    let Some((code, shown)) = on_a_terminal(&place, "run work", b"\x03", &[]) else { return };
    assert_eq!(code, 130, "{shown}");
    assert!(shown.contains("SIGINT: the run is cancelled"), "{shown:?}");
    let last = shown.rsplit("\x1b[J").next().expect("an end");
    assert!(last.contains("cancelled by SIGINT"), "{last:?}");
}
