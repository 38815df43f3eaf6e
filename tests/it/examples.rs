//! The design's examples: those whose fields exist load, the others are refused for exactly the kinds and fields that do
//! not exist yet. And the sample jobs of `jobs/`, of which `check` says nothing but ok.

use lamplighter::{
    action::Handlers,
    job::{CheckedJob, Config, Job, JobProblems},
    problem::Problem,
};
use std::{fs, path::Path, process::Command};

const EXAMPLES: &str = "tests/data/job_examples";

fn load(name: &str) -> Result<CheckedJob, JobProblems> {
    Job::from_file(&Path::new(EXAMPLES).join(format!("{name}.ron")), &Handlers::new())
}

fn names(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<String> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
    names.retain(|name| name.ends_with(".ron"));
    names.iter_mut().for_each(|name| name.truncate(name.len() - ".ron".len()));
    names.sort();
    names
}

/// Examples that use what this version does not know, with what that is.
const NOT_YET: [(&str, &[&str]); 2] =
    [("03-vendor-sync", &["`OAuth2` is not a kind of Auth"]), ("13-export", &["`poll` is not a field of `Http`"])];

#[test]
fn every_example_of_the_design_loads_without_a_remark() {
    let names = names(EXAMPLES);
    assert_eq!(names.len(), 15, "{names:?}");
    for name in names.iter().filter(|name| *name != "lamplighter") {
        if NOT_YET.iter().any(|(other, _)| other == name) {
            continue;
        }
        let checked = load(name).unwrap_or_else(|problems| panic!("{problems}"));
        // The database of the queue stands on its author's machine.
        let absent = |remark: &Problem| name == "06-queue" && remark.message.ends_with("/queue.db yet");
        assert!(checked.remarks.iter().all(absent), "{name}: {:?}", checked.remarks);
        assert_eq!(&*checked.job.name, name);
    }
}

#[test]
fn examples_that_need_more_are_refused_for_just_that() {
    for (name, expected) in NOT_YET {
        let problems = load(name).expect_err(name).problems;
        let messages: Vec<&str> = problems.iter().map(|problem| problem.message.as_str()).collect();
        assert_eq!(messages, expected, "{name}");
        for problem in &problems {
            assert!(problem.help.is_some() && !problem.span.is_empty(), "{name}: {problem:?}");
        }
    }
}

#[test]
fn the_configuration_of_the_design_loads() {
    let path = Path::new(EXAMPLES).join("lamplighter.ron");
    let checked = Config::checked(&path, &Handlers::new()).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(checked.remarks.is_empty(), "{:?}", checked.remarks);
    assert!(checked.config.on_finish.is_some_and(|notices| notices.len() == 1));
}

#[test]
fn the_job_that_ended_before_is_known_after_it_only() {
    let text = fs::read_to_string(Path::new(EXAMPLES).join("09c-page-someone.ron")).expect("the example");
    let begin = text.find("    schedule:").expect("its schedule");
    let end = begin + text[begin..].find('\n').expect("the end of the line") + 1;
    let manual = format!("{}{}", &text[..begin], &text[end..]);
    let problems = Job::from_ron("page", &manual, Path::new("."), &Handlers::new()).expect_err("run.after").problems;
    assert_eq!(problems.len(), 3, "{problems:?}");
    assert!(problems.iter().all(|problem| problem.message.contains("`run.after`")), "{problems:?}");
    let nested = text.replace("schedule: After(", "schedule: AnyOf([Manual, After(").replace("Missed])", "Missed])])");
    Job::from_ron("page", &nested, Path::new("."), &Handlers::new()).unwrap_or_else(|problems| panic!("{problems}"));
}

#[test]
fn check_says_nothing_but_ok_of_the_sample_jobs() {
    let output = Command::new(env!("CARGO_BIN_EXE_lamplighter"))
        .args(["check", "--strict"])
        .env("LAMPLIGHTER_SECRET_VENDOR_TOKEN", "x")
        .env_remove("LAMPLIGHTER_CONFIG")
        .output()
        .expect("starts");
    let names = names("jobs");
    let mut expected: String = names.iter().map(|name| format!("jobs/{name}.ron: ok\n")).collect();
    expected.push_str(&format!("{} files, 0 errors, 0 remarks\n", names.len()));
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    assert_eq!(output.status.code(), Some(0));
}
