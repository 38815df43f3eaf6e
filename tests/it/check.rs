//! What `check` says of files that are wrong: the exact messages stand in `tests/data/bad/NAME.txt` beside `NAME.ron`.
//!
//! After a message was made better: `LAMPLIGHTER_BLESS=1 cargo test --test it check` writes them anew; read the difference.

use lamplighter::{
    action::{Call, CallError, Handlers},
    job::{Config, Job, JobSpec, Surroundings},
    limits::FILE_BYTES_MAX,
    problem::{Level, Problem, Source, load, render, to_json},
};
use proptest::prelude::*;
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// Relative to the package, where tests run: paths in messages are the same everywhere.
const BAD: &str = "tests/data/bad";

fn bad_files() -> Vec<PathBuf> {
    let entries = fs::read_dir(BAD).expect("the folder of bad files");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "ron"));
    files.sort();
    files
}

fn handlers() -> Handlers {
    let echo = |call: Call| async move { Ok::<_, CallError>((*call.value).clone()) };
    Handlers::new().add("score", echo).expect("a good name")
}

/// Every problem of a file, and how people see them.
fn told(path: &Path) -> (Vec<Problem>, String) {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let (source, problems) = if name.starts_with("config-") {
        match Config::checked(path, &handlers()) {
            Ok(checked) => (checked.source, checked.remarks),
            Err(problems) => (problems.source, problems.problems),
        }
    } else {
        match Job::from_file(path, &handlers()) {
            // What comes depends on the date: it is asked for where the file is about that.
            Ok(checked) if name.starts_with("coming-") => {
                let now = "2026-11-23T00:00:00Z".parse().expect("an instant");
                (checked.source.clone(), [checked.remarks_at(now), checked.remarks].concat())
            }
            Ok(checked) => (checked.source, checked.remarks),
            Err(problems) => (problems.source, problems.problems),
        }
    };
    let text = render(&problems, &source, false);
    (problems, text)
}

#[test]
fn every_bad_file_gets_its_exact_messages() {
    let bless = std::env::var_os("LAMPLIGHTER_BLESS").is_some();
    let files = bad_files();
    assert!(files.len() >= 100, "{} bad files", files.len());
    let mut wrong = String::new();
    for path in &files {
        let (problems, text) = told(path);
        if problems.is_empty() {
            wrong.push_str(&format!("{}: nothing is wrong with it\n", path.display()));
        }
        let ordered = problems.windows(2).all(|pair| pair[0].span.start <= pair[1].span.start);
        assert!(ordered, "{}: not in the order of the file", path.display());
        for problem in problems.iter().filter(|problem| problem.help.is_none()) {
            wrong.push_str(&format!("{}: {:?} does not say what to write\n", path.display(), problem.message));
        }
        let expected = path.with_extension("txt");
        if bless {
            fs::write(&expected, &text).expect("writes the message");
        } else if fs::read_to_string(&expected).unwrap_or_default() != text {
            wrong.push_str(&format!("==== {}\n{text}\n", path.display()));
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// What everybody types who comes from cron, a shell, YAML, Python or JSON: the file that shows it, and what is said.
const BEGINNERS: [(&str, &str, &str); 27] = [
    ("hash-comment", "`#` begins no comment here", "begin a comment with `//`"),
    ("single-quotes", "not in single ones", "write `\"30 2 * * *\"`"),
    ("typographic-quotes", "not in typographic ones", "write `description: \"Rotate the logs\"`"),
    ("no-break-space", "there is a no-break space here", "write a plain space"),
    ("curly-job", "`Job` takes round parentheses", "instead of `Job{` … `}`"),
    ("curly-job", "`Exec` takes round parentheses", "instead of `Exec{` … `}`"),
    ("lower-case-kinds", "`job(..)` stands where `Job(..)` should", "write `Job(..)`"),
    ("lower-case-kinds", "`cron` is not a kind of Schedule", "did you mean `Cron`?"),
    ("quoted-names", "the name of a field stands without quotes", "write `description:`"),
    ("equals-signs", "`=` stands where a colon should", "write `name: value`"),
    ("forgotten-comma", "a comma is missing here", "write `,` after it"),
    ("bare-cron", "the value of `Cron` must stand in quotes", "write `Cron(\"30 2 * * *\")`"),
    ("bare-duration", "`deadline` must stand in quotes", "write `deadline: \"20m\"`"),
    ("bare-duration", "`timeout` must stand in quotes", "write `timeout: \"90s\"`"),
    ("number-in-quotes", "`workers` must be a whole number, not a text", "write `workers: 4`, without quotes"),
    ("text-schedule", "`schedule` must be a kind of Schedule, not a text", "write `schedule: Cron(\"30 2 * * *\")`"),
    ("bad-escape", "`\\d` means nothing in a text", "write the text as r#\"..\"#"),
    ("argv-as-text", "`argv` must be a list", "write `argv: [\"rsync\", \"-a\", \"/data\", \"web:/srv\"]`"),
    ("argv-one-line", "this is a whole command line", "each argument as a text of its own"),
    ("argv-shell", "`|` is an argument here", "`sh: \"..\"`"),
    ("argv-shell", "`>` is an argument here", "`sh: \"..\"`"),
    ("argv-shell", "`/tmp/*.log` reaches the program as it is", "`sh: \"..\"`"),
    ("argv-shell", "`$HOME/old` reaches the program as it is", "`sh: \"..\"`"),
    ("argv-shell", "`~/older` reaches the program as it is", "`sh: \"..\"`"),
    ("key-without-braces", "`item.id` is a plain text here, not a value", "write {{ item.id }}"),
    ("synonyms", "`concurrency` is not a field of `Stage`", "did you mean `workers`?"),
    ("crontab-line", "this is a line of a crontab", "write `Job(schedule: Cron(\"30 2 * * *\")"),
];

#[test]
fn what_a_beginner_types_has_a_message_of_its_own() {
    for (file, message, help) in BEGINNERS {
        let (problems, text) = told(&Path::new(BAD).join(format!("{file}.ron")));
        let said = |problem: &&Problem| problem.message.contains(message);
        let problem = problems.iter().find(said).unwrap_or_else(|| panic!("{file}: {message:?} is not said:\n{text}"));
        let told = problem.help.as_deref().unwrap_or_default();
        assert!(told.contains(help), "{file}: {message:?} is answered by {told:?}");
    }
    // A byte order mark is no mistake: what is said is about the line behind it.
    let (problems, text) = told(&Path::new(BAD).join("bom.ron"));
    assert!(problems.len() == 1 && text.contains("bom.ron:2:5"), "{text}");
    // A comma is missed where the line before ends, not where the next begins.
    let (_, text) = told(&Path::new(BAD).join("forgotten-comma.ron"));
    assert!(text.contains("forgotten-comma.ron:2:35"), "{text}");
}

#[test]
fn several_problems_of_one_file_are_all_said() {
    for (file, errors) in [("several", 8), ("shape-and-meaning", 7), ("many-mistakes", 13), ("many-meanings", 17)] {
        let (problems, text) = told(&Path::new(BAD).join(format!("{file}.ron")));
        let found = problems.iter().filter(|problem| problem.level == Level::Error).count();
        assert!(found >= errors, "{file}: {found} errors\n{text}");
    }
}

/// `check` as people run it, in a folder of its own.
fn check(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lamplighter"));
    command.arg("check").args(arguments).current_dir(folder).env_remove("LAMPLIGHTER_CONFIG").env("NO_COLOR", "1");
    let Output { status, stdout, stderr } = command.output().expect("starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (status.code().expect("a code"), text(stdout), text(stderr))
}

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, text).expect("writes");
    }
    folder
}

const GOOD: &str = "Job(run: [Log(message: \"x\")])\n";
const REMARKED: &str = "Job(schedule: Every(\"5m\"), run: [Log(message: \"x\")])\n";
const BROKEN: &str = "Job(\n    dedline: \"1h\",\n    run: [Log(message: \"x\")],\n)\n";

#[test]
fn every_problem_of_every_file_is_said_and_the_code_says_whether_they_can_run() {
    let all = folder(&[
        ("lamplighter.ron", "Config(threads: 0)\n"),
        ("jobs/a.ron", GOOD),
        ("jobs/b.ron", REMARKED),
        ("jobs/c.ron", BROKEN),
        ("jobs/d.ron.off", "never read"),
    ]);
    let (code, stdout, stderr) = check(all.path(), &[]);
    assert_eq!((code, stderr.as_str()), (2, ""), "{stdout}");
    let order = [
        "`threads` must be 1 to 64",
        " --> lamplighter.ron:1:17",
        "jobs/a.ron: ok\n",
        "remark: the job is due more often",
        " --> jobs/b.ron:1:15",
        "error: `dedline` is not a field of `Job`",
        " --> jobs/c.ron:2:5",
        "4 files, 2 errors, 1 remark\n",
    ];
    let mut from = 0;
    for wanted in order {
        let at = stdout[from..].find(wanted).unwrap_or_else(|| panic!("{wanted:?} is missing or late in\n{stdout}"));
        from += at + wanted.len();
    }
    assert_eq!(from, stdout.len(), "{stdout}");
}

#[test]
fn remarks_fail_a_strict_check_only() {
    let all = folder(&[("jobs/a.ron", GOOD), ("jobs/b.ron", REMARKED)]);
    assert_eq!(check(all.path(), &[]).0, 0);
    assert_eq!(check(all.path(), &["--strict"]).0, 2);
    assert_eq!(check(all.path(), &["--strict", "jobs/a.ron"]), (0, "jobs/a.ron: ok\n".to_owned(), String::new()));
}

#[test]
fn editors_get_one_array_with_places_and_help() {
    let all = folder(&[("lamplighter.ron", "Config(threads: 2)\n"), ("jobs/b.ron", REMARKED), ("jobs/c.ron", BROKEN)]);
    let (code, stdout, stderr) = check(all.path(), &["--format", "json"]);
    assert_eq!((code, stderr.as_str()), (2, ""));
    let found: Value = serde_json::from_str(&stdout).expect("JSON");
    let list = found.as_array().expect("an array");
    assert_eq!(list.len(), 2, "{stdout}");
    assert_eq!(list[0]["severity"], "remark");
    assert_eq!(
        list[1],
        serde_json::json!({"file": "jobs/c.ron", "line": 2, "column": 5, "end_line": 2, "end_column": 12,
            "severity": "error", "path": "", "message": "`dedline` is not a field of `Job`",
            "hint": "did you mean `deadline`?"})
    );
    let good = folder(&[("jobs/a.ron", GOOD)]);
    assert_eq!(check(good.path(), &["--format", "json"]), (0, "[]\n".to_owned(), String::new()));
}

#[test]
fn jobs_that_wait_for_each_other_or_for_nobody_are_named() {
    let after = |schedule: &str| format!("Job(schedule: {schedule}, run: [Log(message: \"x\")])\n");
    let (a, b) = (after("After(job: \"b\")"), after("AnyOf([Cron(\"30 2 * * *\"), After(job: \"a\")])"));
    let (c, d) = (after("After(job: \"a\")"), after("After(job: \"nightly\")"));
    let all = folder(&[("jobs/a.ron", &a), ("jobs/b.ron", &b), ("jobs/c.ron", &c), ("jobs/d.ron", &d)]);
    let (code, stdout, stderr) = check(all.path(), &["jobs"]);
    assert_eq!((code, stderr.as_str()), (2, ""), "{stdout}");
    assert_eq!(stdout.matches("a job cannot wait for itself: `a`, `b` wait for each other").count(), 2, "{stdout}");
    assert!(stdout.contains(" --> jobs/a.ron:1:26") && stdout.contains(" --> jobs/b.ron:1:53"), "{stdout}");
    assert!(stdout.contains("jobs/c.ron: ok"), "who waits for one of them is in no circle: {stdout}");
    assert!(stdout.contains("remark: there is no job \"nightly\" in this folder"), "{stdout}");
    assert!(stdout.contains("4 files, 2 errors, 1 remark\n"), "{stdout}");
    // A file alone is looked at in its folder.
    let (code, stdout, _) = check(all.path(), &["jobs/c.ron", "jobs/d.ron"]);
    assert!(code == 0 && stdout.contains("2 files, 0 errors, 1 remark\n"), "{stdout}");
}

#[test]
fn an_absent_secret_is_a_remark_where_it_is_named() {
    let text = "Job(\n    run: [Exec(argv: [\"true\"], stdin: \"{{ secret.mail }} {{ secret.mail_2 }}\")],\n)\n";
    let all = folder(&[("jobs/a.ron", text), ("secrets/mail_2", "x")]);
    let (code, stdout, _) = check(all.path(), &[]);
    assert_eq!(code, 0, "{stdout}");
    assert!(stdout.contains("the secret `mail` is not there yet") && stdout.contains("jobs/a.ron:2:43"), "{stdout}");
    assert!(stdout.contains("secrets/mail (chmod 600)") && stdout.contains("LAMPLIGHTER_SECRET_MAIL"), "{stdout}");
    // Its file can be read by others.
    assert!(stdout.contains("secrets/mail_2 can be read by others") && stdout.contains("2 remarks"), "{stdout}");
}

#[test]
fn the_configuration_serves_the_check_of_the_jobs() {
    let job = "Job(run: [Http(via: \"vendor\", get: \"/x\")])\n";
    let config = "Config(services: [Service(name: \"vendor\", base: \"https://a.example\")])\n";
    let good = folder(&[("lamplighter.ron", config), ("jobs/a.ron", job)]);
    let (code, stdout, _) = check(good.path(), &[]);
    assert_eq!((code, stdout.as_str()), (0, "lamplighter.ron: ok\njobs/a.ron: ok\n2 files, 0 errors, 0 remarks\n"));
    // One that cannot be read may hold the service.
    let broken = folder(&[("lamplighter.ron", &config.replace("Config(", "Config(x: 1, ")), ("jobs/a.ron", job)]);
    let (code, stdout, _) = check(broken.path(), &["jobs"]);
    assert!(code == 2 && stdout.contains("`x` is not a field of `Config`"), "{stdout}");
    assert!(stdout.contains("jobs/a.ron: ok") && stdout.contains("1 error,"), "{stdout}");
}

#[test]
fn what_is_no_file_of_text_is_refused_with_a_reason() {
    let all = folder(&[("jobs/a.ron", GOOD)]);
    fs::create_dir(all.path().join("jobs/folder.ron")).expect("a folder");
    let file = fs::File::create(all.path().join("jobs/huge.ron")).expect("a file");
    file.set_len(FILE_BYTES_MAX + 1).expect("a sparse file");
    for (name, message) in [
        ("jobs/folder.ron", "no regular file"),
        ("jobs/huge.ron", "more than 1048576 bytes"),
        ("jobs/none.ron", "there is no such file"),
    ] {
        let problems = Job::from_file(&all.path().join(name), &handlers()).expect_err(name);
        assert_eq!(problems.problems.len(), 1, "{problems}");
        assert!(problems.problems[0].message.contains(message), "{problems}");
        assert!(problems.problems[0].help.is_some(), "{problems}");
    }
    let (code, stdout, stderr) = check(all.path(), &["jobs/none.ron", "jobs/a.ron"]);
    assert_eq!((code, stdout.as_str()), (2, ""));
    assert!(stderr.contains("there is no file or folder jobs/none.ron"), "{stderr}");
}

#[test]
fn a_spec_built_in_rust_gets_the_same_problems_without_places() {
    let text = "Job(stages: [Stage(name: \"a\", workers: 0, key: \"item.id\", run: [Items(list: [1])])])";
    let spec: JobSpec = load(&Source::new("x", text)).expect("reads");
    let problems = Job::new("x", &spec, Path::new("."), &handlers()).expect_err("wrong").problems;
    let mut paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
    paths.sort_unstable();
    assert_eq!(paths, ["stages[0].key", "stages[0].workers", "stages[0].workers"]);
    let from_text = Job::from_ron("x", text, Path::new("."), &handlers()).expect_err("wrong").problems;
    assert_eq!(from_text.len(), problems.len());
    assert!(from_text.iter().all(|problem| !problem.span.is_empty()));
}

/// Where names of fields stand: `workers` of `workers: 4`, outside of texts and comments.
fn fields(file: &str) -> Vec<std::ops::Range<usize>> {
    let (mut found, mut start) = (Vec::new(), 0);
    for line in file.split_inclusive('\n') {
        let code = &line[..line.find(" //").unwrap_or(if line.starts_with("//") { 0 } else { line.len() })];
        for (colon, _) in code.match_indices(": ") {
            let before = &code[..colon];
            let begin = before.rfind(|c: char| !c.is_ascii_lowercase() && c != '_').map_or(0, |at| at + 1);
            if before.matches('"').count() % 2 == 0 && begin < colon {
                found.push(start + begin..start + colon);
            }
        }
        start += line.len();
    }
    found
}

#[test]
fn one_mistake_is_one_problem() {
    let mut tried = 0;
    for path in fs::read_dir("jobs").expect("the sample jobs").map(|entry| entry.expect("an entry").path()) {
        if path.extension().is_none_or(|extension| extension != "ron") {
            continue;
        }
        let good = fs::read_to_string(&path).expect("a sample");
        for field in fields(&good) {
            let mut misspelt = good.clone();
            misspelt.replace_range(field.clone(), &format!("{}x", &good[field.clone()]));
            let rest = &good[field.end + 2..];
            let length = match rest.strip_prefix('"') {
                Some(text) => text.find('"').expect("the end of a text") + 2,
                None => rest.find([',', ')', '\n']).expect("the end of a value"),
            };
            let value = field.end + 2..field.end + 2 + length;
            let mut wrong = good.clone();
            wrong.replace_range(value.clone(), "7.5");
            let simple = !good[value.clone()].contains(['(', '[', '{']);
            for text in [Some(misspelt), simple.then_some(wrong)].into_iter().flatten() {
                let problems =
                    Job::from_ron("x", &text, Path::new("jobs"), &handlers()).expect_err("a mistake").problems;
                assert_eq!(problems.len(), 1, "{}: {}: {problems:#?}", path.display(), &good[field.clone()]);
                let near = problems[0].span.start.abs_diff(field.start);
                assert!(near < 120, "{}: {problems:?}", path.display());
                tried += 1;
            }
        }
    }
    assert!(tried > 150, "{tried} mistakes");
}

/// Loads a text as a job of the folder of sample jobs; what comes of it can be shown, whatever it is.
fn survives(text: &str) {
    let source = Source::new("x.ron", text);
    let (source, problems) = match Job::from_source("x", source, Path::new("jobs"), &Surroundings::default()) {
        Ok(checked) => (checked.source, checked.remarks),
        Err(problems) => {
            assert!(problems.problems.iter().any(|problem| problem.level == Level::Error), "refused without a reason");
            (problems.source, problems.problems)
        }
    };
    for problem in &problems {
        assert!(problem.span.start <= problem.span.end && problem.span.end <= source.text.len(), "{problem:?}");
    }
    render(&problems, &source, false);
    to_json(&problems, &source);
}

fn samples() -> Vec<String> {
    let mut files: Vec<PathBuf> =
        fs::read_dir("jobs").expect("the sample jobs").map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "ron"));
    files.sort();
    files.extend(bad_files());
    files.iter().map(|path| String::from_utf8_lossy(&fs::read(path).expect("a file")).into_owned()).collect()
}

/// Where the texts in quotes stand in a file, quotes included; near enough for a test.
fn texts(file: &str) -> Vec<std::ops::Range<usize>> {
    let quotes: Vec<usize> = file.match_indices('"').map(|(at, _)| at).collect();
    quotes.chunks_exact(2).map(|pair| pair[0]..pair[1] + 1).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_mutant_of_a_job_file_never_panics(
        which in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..12, mutation()), 1..6),
    ) {
        let samples = samples();
        let mut text = which.get(&samples).clone();
        for (at, length, new) in edits {
            let places: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
            let start = at.index(places.len());
            let end = (start + length).min(places.len() - 1);
            text.replace_range(places[start]..places[end], &new);
        }
        survives(&text);
    }

    #[test]
    fn no_text_in_a_text_field_panics_the_check(
        which in any::<prop::sample::Index>(),
        place in any::<prop::sample::Index>(),
        new in prop_oneof![
            any::<String>(),
            "[{}%.$|a-z\\[\\]() \"',:0-9]{0,24}",
            Just("{{ item.id | ".to_owned()),
            "(\\{\\{|\\}\\}|\\{%|%\\}|item|items|run|params|\\.|\\||\\[|\\]|\\(|\\)| |as \\$x|reduce|if|then|end|\"){0,12}",
        ],
    ) {
        let samples = samples();
        let mut text = which.get(&samples).clone();
        let texts = texts(&text);
        if !texts.is_empty() {
            text.replace_range(place.get(&texts).clone(), &format!("{new:?}"));
            survives(&text);
        }
    }
}

/// What an edit puts in.
fn mutation() -> impl Strategy<Value = String> {
    let pieces = [
        "", ",", "(", ")", "[", "]", "{", "}", "\"", "'", "\\", "//", "/*", "#", ":", "=", "r#\"", "None", "Some(",
        "0", "-1", "NaN", "\u{feff}", "\0", "\u{202e}", "ä",
    ];
    prop_oneof![prop::sample::select(pieces.to_vec()).prop_map(str::to_owned), any::<String>()]
}
