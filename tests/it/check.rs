//! What `check` says of files that are wrong: the exact messages stand in `tests/data/bad/NAME.txt` beside `NAME.ron`.
//!
//! After a message was made better: `LAMPLIGHTER_BLESS=1 cargo test --test it check` writes them anew; read the difference.

use lamplighter::{
    action::{Call, CallError, Handlers},
    job::{Config, Job},
    problem::{Problem, render},
};
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
    assert!(files.len() >= 60, "{} bad files", files.len());
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
