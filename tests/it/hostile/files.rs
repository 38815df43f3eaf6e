//! What stands in a job folder beside jobs, and what looks like one and is none.

use crate::util::{Place, finish};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::Value;
use std::{fs, os::unix::fs::symlink, os::unix::net::UnixListener};

const GOOD: &str = r#"Job(run: [Exec(argv: ["true"])])"#;

/// Fault 75: each is refused by name, at once, and harms no other job.
#[test]
fn what_is_no_job_file_is_refused_by_name_and_harms_no_other() {
    let place = Place::with_job("good", GOOD);
    place.write("jobs/cut.ron", &GOOD[..20]);
    place.write("jobs/empty.ron", "");
    fs::create_dir(place.path("jobs/folder.ron")).expect("a folder");
    symlink("loop.ron", place.path("jobs/loop.ron")).expect("a link");
    symlink("nowhere", place.path("jobs/dangling.ron")).expect("a link");
    let _ = mknodat(CWD, place.path("jobs/pipe.ron"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0);
    let _socket = UnixListener::bind(place.path("jobs/socket.ron")).expect("a socket");
    symlink("/dev/zero", place.path("jobs/zeros.ron")).expect("a link");
    fs::File::create(place.path("jobs/large.ron")).and_then(|file| file.set_len(100 << 20)).expect("a large file");
    // A job may be a link: folders that are managed by others are full of them.
    place.write("elsewhere/linked.ron", GOOD);
    symlink("../elsewhere/linked.ron", place.path("jobs/linked.ron")).expect("a link");

    let told = place.run(&["check", "--format", "json"]).exits(2).json();
    for (name, says) in [
        ("cut", "is never closed"),
        ("empty", "empty"),
        ("folder", "this is no regular file"),
        ("loop", "Too many levels of symbolic links"),
        ("dangling", "there is no such file"),
        ("pipe", "this is no regular file"),
        ("socket", "this is no regular file"),
        ("zeros", "this is no regular file"),
        ("large", "the file has more than 1048576 bytes"),
    ] {
        let file = format!("jobs/{name}.ron");
        let found = told.as_array().expect("a list").iter().find(|problem| problem["file"] == *file);
        let message = found.unwrap_or_else(|| panic!("{file} is not named: {told}"))["message"].as_str();
        assert!(message.is_some_and(|message| message.contains(says)), "{file}: {message:?}");
        place.run(&["run", name]).exits(2).says("cannot run: nothing was done");
    }
    assert!(!told.to_string().contains("good.ron") && !told.to_string().contains("linked.ron"), "{told}");
    place.run(&["run", "good"]).exits(0);
    place.run(&["run", "linked"]).exits(0);
    // With a limit of memory the large one is not even read.
    let mut check = place.command(&["check", "jobs/large.ron"]);
    finish(&mut check).exits(2).prints("more than 1048576 bytes");
}

/// Fault 75: what editors and those who copy files leave for a moment is no job, and nothing is said of it.
#[test]
fn what_editors_leave_in_the_job_folder_is_no_job() {
    let place = Place::with_job("good", GOOD);
    for name in [
        ".good.ron.swp",
        ".good.ron.x7Bq2",
        "good.ron~",
        "good.ron.swp",
        "#good.ron#",
        "4913",
        "good.ron.tmp",
        "good.ron.off",
        "good.ron___jb_tmp___",
        "._good.ron",
        ".goutputstream-ABC123",
        "good.ron.orig",
        "good.ron.rej",
    ] {
        place.write(&format!("jobs/{name}"), "half a");
    }
    // Emacs: who edits it, as a link to nowhere.
    symlink("me@here.1234:1700000000", place.path("jobs/.#good.ron")).expect("a link");
    for arguments in [&["check"][..], &["check", "jobs"]] {
        assert_eq!(place.run(arguments).exits(0).stdout, "jobs/good.ron: ok\n");
    }
}

/// Fault 76: the name of a job is the name of its file, in small letters of ASCII. So no two jobs have one name, and files that
/// differ in case or in how Unicode writes a letter are refused by name, whichever stands beside them.
#[test]
fn names_that_differ_in_case_or_in_unicode_are_refused_by_name() {
    let place = Place::with_job("nightly-vitals", GOOD);
    let others = [
        "Nightly-Vitals",
        "NIGHTLY-VITALS",
        "nightly\u{2010}vitals",
        "nightly-vitäls",
        "nightly-vita\u{308}ls",
        "nightly-vitals ",
    ];
    for name in others {
        place.write(&format!("jobs/{name}.ron"), GOOD);
    }
    let told: Value = place.run(&["check", "--format", "json"]).exits(2).json();
    let told = told.as_array().expect("a list");
    for name in others {
        let of = |problem: &&Value| problem["file"] == *format!("jobs/{name}.ron");
        let found = told.iter().find(of).unwrap_or_else(|| panic!("{name:?} is not named: {told:?}"));
        assert!(found["message"].as_str().is_some_and(|message| message.contains("is no name of a job")), "{found}");
        place.run(&["run", &format!("jobs/{name}.ron")]).exits(2).says("is no name of a job");
    }
    assert_eq!(told.len(), others.len());
    place.run(&["run", "nightly-vitals"]).exits(0);
}
