//! Names that would leave the output folder, folders that take nothing, disks that are full.

use super::bench::{Night, Tmpfs};
use serde_json::{Value, json};
use std::{fs, os::unix::fs::symlink};

/// One item for each name, with the name's place as its key, each written under its name.
fn written(names: &[&str]) -> Night {
    let items: Vec<Value> =
        names.iter().enumerate().map(|(place, name)| json!({"k": place.to_string(), "p": name})).collect();
    Night::of(&json!(items), r#"workers: 3, run: [Write(json: "{{ item.p }}")]"#)
}

#[test]
fn a_name_from_data_never_leaves_the_output_folder() {
    let (long, deep) = ("n".repeat(256), "a/".repeat(2100) + "b");
    let bad = ["../x", "/etc/x", "a//b", "a/../b", ".", "..", "", "a/", "x\0y", "x\ny", &long, &deep, ".lamplighter-x"];
    let good = [".hidden", "CON", "%2e%2e/x", "a\\..\\b", "~x", "$HOME", "-rf", "{{ 1 }}", "é"];
    let night = written(&[&bad[..], &good].concat());
    let ended = night.run();
    ended.is(1, "failed");
    assert_eq!((ended.count("w", "failed"), ended.count("w", "ok")), (bad.len() as u64, good.len() as u64));
    for place in 0..bad.len() {
        ended.fails(&place.to_string(), "data `").fails(&place.to_string(), "is no usable name of an output");
    }
    let mut expected = good.to_vec();
    expected.sort_unstable();
    assert_eq!(night.outputs(), expected);
}

#[test]
fn two_items_that_render_one_path_are_named_both() {
    let night = Night::of(&json!([{"k": "a"}, {"k": "b"}]), r#"run: [Write(json: "same.json")]"#);
    let ended = night.run();
    ended.is(1, "failed").fails("b", "output_conflict `same.json` belongs to item `a` of stage `w`; `b` of stage `w`");
    assert_eq!(serde_json::from_str::<Value>(&night.read("same.json")).expect("JSON"), json!({"k": "a"}));
    // A gather is no exception.
    let gather = r#"Stage(name: "g", gather: All, run: [Write(json: "x.json")])"#;
    let night = Night::new(&format!(
        r#"Job(stages: [Stage(name: "s", key: "{{{{ item }}}}", run: [Items(list: ["a"])]), Stage(name: "w", run: [Write(json: "x.json")]), {gather}])"#
    ));
    night.run().is(1, "failed").fails("all", "output_conflict `x.json` belongs to item `a` of stage `w`");
}

#[test]
fn a_file_and_a_folder_of_one_name_are_one_failure() {
    let night = written(&["a/b", "a"]);
    let ended = night.run();
    ended.is(1, "failed");
    assert_eq!((ended.count("w", "ok"), ended.count("w", "failed")), (1, 1));
    assert!(ended.reason().contains("cannot write the output `a"), "{}", ended.reason());
}

#[test]
fn what_was_planted_in_the_output_folder_is_never_written_through() {
    let night = written(&["d/x", "f", "full", "fifo", "isdir", "ok"]);
    let elsewhere = tempfile::tempdir().expect("a folder");
    let root = night.out("");
    fs::create_dir_all(root.join("isdir")).expect("folders");
    symlink(elsewhere.path(), root.join("d")).expect("a symlink");
    symlink(elsewhere.path().join("planted"), root.join("f")).expect("a symlink");
    symlink("/dev/full", root.join("full")).expect("a symlink");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, root.join("fifo"), rustix::fs::FileType::Fifo, mode, 0).expect("a fifo");
    let ended = night.run();
    ended.is(1, "failed").fails("0", "output cannot write the output `d/x`: `d` is a symlink or a file, not a folder");
    ended.fails("4", "output cannot write the output `isdir`");
    assert_eq!(ended.count("w", "ok"), 4);
    assert_eq!(fs::read_dir(elsewhere.path()).expect("a folder").count(), 0);
    for name in ["f", "full", "fifo", "ok"] {
        assert!(root.join(name).symlink_metadata().expect(name).is_file(), "{name}");
    }
}

#[test]
fn an_output_folder_that_is_a_symlink_or_not_there_yet_is_used() {
    let night = written(&["a", "b"]);
    fs::create_dir(night.dir.path().join("real")).expect("a folder");
    symlink("real", night.out("")).expect("a symlink");
    night.run().is(0, "succeeded");
    assert_eq!(fs::read_dir(night.dir.path().join("real")).expect("a folder").count(), 2);
    let night = written(&["a"]);
    night.run_with(&["--out", "new/of/new"]).is(0, "succeeded");
    assert!(night.dir.path().join("new/of/new/a").is_file());
}

#[test]
fn an_output_folder_that_is_a_file_is_refused_by_name() {
    let night = written(&["a"]);
    fs::write(night.out(""), "x").expect("a file");
    night.run().refused("/out: it is a file");
    assert_eq!(fs::read_to_string(night.out("")).expect("a file"), "x");
}

#[test]
fn a_report_that_fails_leaves_the_old_one_whole() {
    let gather = r#"Stage(name: "g", gather: All, run: [Jq(filter: "items | error(\"no\")"), Write(json: "x.json")])"#;
    let night = Night::new(&format!(r#"Job(stages: [Stage(name: "s", run: [Items(list: ["a"])]), {gather}])"#));
    fs::create_dir(night.out("")).expect("a folder");
    fs::write(night.out("x.json"), "old").expect("a file");
    night.run().is(1, "failed").fails("all", "data jq: no");
    assert_eq!(night.read("x.json"), "old");
}

fn ten_large_files() -> Night {
    let items: Vec<Value> = (0..10).map(|k| json!({"k": k.to_string(), "x": "x".repeat(60_000)})).collect();
    Night::of(&json!(items), r#"run: [Write(json: "{{ key }}.json")]"#)
}

#[test]
fn a_full_disk_fails_what_it_does_not_take_and_leaves_no_half_file() {
    let night = ten_large_files();
    let Some(_disk) = Tmpfs::mount(&night.out(""), "size=256k") else { return };
    let ended = night.run();
    ended.is(1, "failed");
    assert!(ended.reason().contains("No space left on device"), "{}", ended.reason());
    let done = ended.count("w", "ok");
    assert!((1..10).contains(&done) && ended.count("w", "failed") == 10 - done, "{}", ended.record);
    assert_eq!(night.outputs().len() as u64, done);
    for name in night.outputs() {
        serde_json::from_str::<Value>(&night.read(&name)).expect("a whole file");
    }
}

#[test]
fn no_inodes_left_and_a_read_only_disk_fail_the_run_by_name() {
    let night = ten_large_files();
    if let Some(_disk) = Tmpfs::mount(&night.out(""), "nr_inodes=4") {
        let ended = night.run();
        assert!(ended.is(1, "failed").reason().contains("No space left on device"), "{}", ended.reason());
    }
    for options in ["ro", "ro,size=1m"] {
        let night = ten_large_files();
        let Some(_disk) = Tmpfs::mount(&night.out(""), options) else { return };
        let ended = night.run();
        assert!(ended.is(1, "failed").reason().contains("Read-only file system"), "{}", ended.reason());
    }
}
