//! What a newcomer asks first: `explain` says what a field means, `new` writes a job to begin with.

use super::util::{Act, PROGRAM, Place, Scripted, finish};
use lamplighter::{
    item::Value,
    job::{Config, JobSpec},
    problem::{Entry, Reference, Type},
};
use std::{collections::BTreeSet, fs, process::Command};

fn reference() -> Reference {
    Reference::of(&[JobSpec::schema(), Config::schema()])
}

#[test]
fn everything_of_the_format_has_a_type_a_default_a_meaning_and_an_example() {
    let (mut fields, mut kinds) = (0, 0);
    for entry in reference().entries() {
        let path = entry.path();
        assert!(!entry.meaning().is_empty(), "{path}");
        match entry {
            Entry::Field(..) => {
                fields += 1;
                assert!(entry.takes(&str::to_owned).is_some_and(|takes| !takes.is_empty()), "{path}");
                assert!(entry.required() != entry.default().is_some_and(|default| !default.is_empty()), "{path}");
                assert!(entry.example().is_some_and(|example| !example.ends_with(": ")), "{path}");
            }
            Entry::Kind(..) => {
                kinds += 1;
                assert!(entry.example().is_some_and(|example| !example.is_empty()), "{path}");
            }
            Entry::Type(each) => assert!(!each.entries().is_empty(), "{path}"),
        }
    }
    assert!(fields > 120 && kinds > 50, "{fields} fields, {kinds} kinds");
}

#[test]
fn every_path_finds_what_it_names_and_a_bare_name_everything_that_is_called_so() {
    let reference = reference();
    for entry in reference.entries() {
        let path = entry.path();
        let found: Vec<String> =
            reference.find(&path).unwrap_or_else(|_| panic!("{path}")).into_iter().map(Entry::path).collect();
        assert!(found.contains(&path), "{path}: {found:?}");
        let by_name = reference.find(entry.name()).unwrap_or_else(|_| panic!("{}", entry.name()));
        assert!(by_name.into_iter().any(|other| other.path() == path), "{path} is not found by its name");
    }
    for (path, found) in [
        ("stage.tolerate", &["Stage.tolerate"][..]),
        ("stages.tolerate", &["Stage.tolerate"]),
        ("job.stages.run.Exec.argv", &["Exec.argv"]),
        ("HTTP.Pages", &["Http.pages"]),
        ("http.pages.cursor.next", &["Cursor.next"]),
        ("Items", &["Action.Items"]),
        ("retry", &["Retry", "Job.retry", "Stage.retry", "Service.retry"]),
        ("max", &["All.max", "Allow.max"]),
    ] {
        let entries: Vec<String> = reference.find(path).expect(path).into_iter().map(Entry::path).collect();
        assert_eq!(entries, found, "{path}");
    }
}

#[test]
fn a_field_is_explained_in_full() {
    let place = Place::new();
    let told = place.run(&["explain", "stage.tolerate"]).exits(0);
    assert_eq!(
        told.stdout,
        "Stage.tolerate

  How many items may be missing, as a count or share: more make the run
  `failed`.

  takes    a count such as \"5\" or a share such as \"2%\"
  default  0
  example  tolerate: \"2%\"
"
    );
    let told = place.run(&["explain", "Http.pages"]).exits(0);
    for line in ["  takes    Pages\n", "  kinds    Cursor, Link, BodyToken, Offset\n", "  default  none\n"] {
        assert!(told.stdout.contains(line), "{line:?} in {}", told.stdout);
    }
    let told = place.run(&["explain", "service.base"]).exits(0);
    assert!(told.stdout.contains("  default  must be given\n"), "{}", told.stdout);
    // Everything that is called so, one after the other.
    let told = place.run(&["explain", "retry"]).exits(0);
    for title in ["Retry\n\n", "\nJob.retry\n\n", "\nStage.retry\n\n", "\nService.retry\n\n"] {
        assert!(told.stdout.contains(title), "{title:?} in {}", told.stdout);
    }
}

#[test]
fn no_line_of_an_explanation_is_wider_than_a_terminal() {
    let place = Place::new();
    let names: BTreeSet<&str> = reference().types().iter().map(|each| each.name()).collect();
    for name in names.into_iter().chain(["run", "default", "schedule"]).filter(|name| *name != "default") {
        let told = place.run(&["explain", name]).exits(0).stdout;
        for line in told.lines() {
            // A single word (an address, a long name) cannot be broken.
            let fits = line.chars().count() <= 80 || line.split_whitespace().count() <= 2;
            assert!(fits, "explain {name}: {line}");
        }
    }
}

#[test]
fn explain_alone_lists_the_types_and_their_kinds() {
    let told = Place::new().run(&["explain"]).exits(0).stdout;
    for each in reference().top() {
        assert!(told.lines().any(|line| line.split_whitespace().next() == Some(each.name())), "{}", each.name());
        if let Type::Choice(choice) = each {
            choice.variants.iter().for_each(|kind| assert!(told.contains(kind.name), "{}", kind.name));
        }
    }
}

#[test]
fn what_nothing_is_called_gets_a_suggestion() {
    let place = Place::new();
    for (name, told) in [
        ("stage.tolerat", "nothing of a job file is called `stage.tolerat`: did you mean `stage.tolerate`?"),
        ("shedule", "did you mean `Schedule`?"),
        ("Http.colour", "in `Http` stand `body`, `delete`"),
        ("colour", "`lamplighter explain` lists what there is"),
    ] {
        let done = place.run(&["explain", name]).exits(2).says(told);
        assert_eq!(done.stdout, "");
    }
}

#[test]
fn programs_get_explanations_as_json() {
    let place = Place::new();
    let told = place.run(&["explain", "max_attempts", "--format", "json"]).exits(0).json();
    assert_eq!(
        told,
        serde_json::json!([{"name": "Retry.max_attempts", "what": "field", "meaning": "Attempts in all, the first one too.",
            "takes": "whole number", "required": false, "default": "4", "example": "max_attempts: 4", "within": []}])
    );
    let all = place.run(&["explain", "--format", "json"]).exits(0).json();
    let names: Vec<&Value> = all.as_array().expect("a list").iter().map(|each| &each["name"]).collect();
    assert_eq!(names[0], "Job");
    assert_eq!(names.len(), reference().top().count());
}

#[test]
fn a_new_job_passes_a_strict_check_and_runs() {
    let place = Place::new();
    let told = place.run(&["new", "nightly-copy"]).exits(0).prints("jobs/nightly-copy.ron is written.");
    for next in ["lamplighter check", "lamplighter run nightly-copy --dry-run", "lamplighter explain"] {
        assert!(told.stdout.contains(next), "{next:?} in {}", told.stdout);
    }
    place.run(&["check", "--strict"]).exits(0);
    assert_eq!(place.files(), ["jobs/nightly-copy.ron"]);
    assert!(!place.read("jobs/nightly-copy.ron").contains("NAME"));
    place.run(&["run", "nightly-copy", "--dry-run"]).exits(0);
    place.run(&["run", "nightly-copy"]).exits(0).prints("nightly-copy succeeded");
}

#[test]
fn a_new_job_of_items_calls_once_for_each_row_and_reports() {
    let place = Place::new();
    place.run(&["new", "devices", "--template", "items"]).exits(0).prints("jobs/devices/items.csv is written.");
    place.run(&["check", "--strict"]).exits(0).prints("jobs/devices.ron: ok");
    let dry = place.run(&["run", "devices", "--dry-run"]).exits(0);
    assert!(dry.stdout.contains("GET /v1/devices/d-1"), "{}", dry.stdout);
    let vendor = Scripted::start(|path| match path {
        "/v1/devices/d-1" => Act::Answer(200, r#"{"state": "on"}"#.into()),
        _ => Act::Answer(404, "{}".into()),
    });
    let set = format!("vendor={}", vendor.base);
    let done = place.run(&["run", "devices", "--set", &set, "--due", "2026-11-23", "--format", "json"]).exits(1);
    assert_eq!(done.json()["stages"][1]["classes"], serde_json::json!({"http_404": 1}));
    let report: Value = serde_json::from_str(&place.read("out/2026-11-23/devices.json")).expect("JSON");
    assert_eq!(report["done"], serde_json::json!([{"id": "d-1", "state": "on"}]));
    assert_eq!(report["missing"][0]["key"], "d-2");
}

#[test]
fn every_name_that_a_job_can_have_gives_a_job_that_passes() {
    for name in
        ["a", "9", "0-_-9", "x.ron", "a-very-long-name-of-a-job-that-somebody-thought-out-in-the-night-of-the-audit"]
    {
        for template in ["command", "items"] {
            let place = Place::new();
            place.run(&["new", name, "--template", template]).exits(0);
            place.run(&["check", "--strict"]).exits(0);
        }
    }
}

#[test]
fn what_cannot_be_written_whole_is_not_left_there() {
    for template in ["command", "items"] {
        let place = Place::new();
        // A file may have no byte: what a full disk does, without one.
        let mut command = Command::new("sh");
        let program = format!("trap '' XFSZ; ulimit -f 0; exec {PROGRAM} new full --template {template}");
        finish(command.args(["-c", &program]).current_dir(place.path(""))).exits(74).says("cannot be written");
        assert_eq!(place.files(), [""; 0], "half a job is none");
        place.run(&["new", "full", "--template", template]).exits(0);
    }
}

#[test]
fn nothing_is_overwritten_and_nothing_is_left_half_there() {
    let place = Place::with_job("mine", "Job(run: [Log(message: \"x\")])");
    place.write("jobs/off.ron.off", "switched off");
    place.write("jobs/table/items.csv", "id\n1\n");
    std::os::unix::fs::symlink("/nowhere", place.path("jobs/dangling.ron")).expect("a link");
    let before = place.files();
    for (arguments, told) in [
        (&["new", "mine"][..], "jobs/mine.ron is there already: nothing was written; choose another name"),
        (&["new", "mine.ron"], "jobs/mine.ron is there already"),
        (&["new", "off"], "jobs/off.ron.off is there already"),
        (&["new", "table", "--template", "items"], "jobs/table/items.csv is there already"),
        (&["new", "dangling"], "jobs/dangling.ron is there already"),
        (&["new", "Bad Name"], "\"Bad Name\" is no name of a job: name the file with a-z, 0-9, - and _: bad-name.ron"),
        (&["new", "../up"], "is no name of a job"),
        (&["new", "ünï"], "is no name of a job"),
        (&["new", ""], "\"\" is no name of a job: name the file with a-z, 0-9, - and _: nightly-vitals.ron"),
        (&["new", "lamplighter"], "lamplighter.ron is the configuration, not a job: choose another name"),
        (&["new", "x", "--template", "cake"], "command, items"),
        (&["new"], "<NAME>"),
    ] {
        let done = place.run(arguments).exits(2).says(told);
        assert_eq!(done.stdout, "", "{arguments:?}");
    }
    assert_eq!(place.files(), before);
}

#[test]
fn a_new_job_goes_where_the_jobs_are() {
    let place = Place::new();
    place.write("lamplighter.ron", "Config(jobs: \"rounds\")");
    place.run(&["new", "a"]).exits(0);
    place.run(&["new", "b", "--jobs", "elsewhere"]).exits(0);
    assert_eq!(place.files(), ["elsewhere/b.ron", "lamplighter.ron", "rounds/a.ron"]);
    // A folder that cannot be made is told.
    fs::write(place.path("file"), "").expect("a file");
    place.run(&["new", "c", "--jobs", "file/jobs"]).exits(74).says("file/jobs/c.ron cannot be written");
}
