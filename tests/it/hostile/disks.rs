//! Disks of the state that are full, out of inodes, read-only of a sudden, or held up by a reader.

use super::bench::{Tmpfs, skip};
use crate::util::{Going, Place, until};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Items whose values fill a small disk, each written down by its child.
const NIGHT: &str = r#"Job(stages: [
    Stage(name: "list", key: "K{{ item.n }}", run: [Jq(filter: "range(200) | {n: .}")]),
    Stage(name: "work", workers: 4, run: [
        Exec(sh: "echo \"$LAMPLIGHTER_KEY\" >> ../log"), Jq(filter: ". + {x: (\"y\" * 8000)}"),
    ]),
    Stage(name: "report", gather: All, run: [Jq(filter: "[items.n] | length"), Write(json: "n.json")]),
])"#;

/// The program with the state at `state`.
fn at<'a>(state: &'a str, arguments: &[&'a str]) -> Vec<&'a str> {
    [arguments, &["--state", state]].concat()
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// How often each key stands in the log.
fn worked(place: &Place) -> BTreeMap<String, u32> {
    let mut times = BTreeMap::new();
    for key in fs::read_to_string(place.path("log")).unwrap_or_default().lines() {
        *times.entry(key.to_owned()).or_default() += 1;
    }
    times
}

/// A file that takes all the room there is.
fn ballast(folder: &Path) -> PathBuf {
    let path = folder.join("ballast");
    let _ = Command::new("dd").args(["if=/dev/zero", "bs=4k"]).arg(format!("of={}", path.display())).output();
    path
}

/// Goes on when there is room, and repeats nothing that was on the disk.
fn goes_on(place: &Place, state: &str) {
    let shown = place.run(&at(state, &["show", "night", "--format", "json"])).exits(0).json();
    assert_eq!(shown["state"], "interrupted", "it is not called ended: {shown}");
    let done = shown["stages"][1]["ok"].as_u64().expect("a count") as usize;
    let before = worked(place);
    place.run(&at(state, &["run", "night", "--resume"])).exits(0);
    assert_eq!(place.read("out/n.json").trim(), "200");
    let after = worked(place);
    assert!(after.len() == 200 && after.values().all(|times| *times <= 2), "{after:?}");
    let repeated = after.iter().filter(|(key, times)| before.contains_key(*key) && **times == 2).count();
    assert!(repeated <= before.len() - done, "{repeated} of {} were repeated, and {done} were done", before.len());
}

/// Faults 9 and 10: the disk of the state fills up under a run, and is full when the next one should start.
#[test]
fn a_full_disk_under_the_state_ends_the_run_by_name_and_what_is_there_can_be_read() {
    let place = Place::with_job("night", NIGHT);
    let folder = place.path("state");
    let Some(disk) = Tmpfs::mount(&folder, "size=1200k") else { return };
    let state = text(&folder);
    let done = place.run(&at(&state, &["run", "night"])).exits(74);
    done.says("state.db: there is no room left on its disk").says("`run night --resume` goes on with it");
    let full = ballast(&folder);
    let begun = worked(&place).len();
    assert!((1..200).contains(&begun), "{begun} items");
    place.run(&at(&state, &["history"])).exits(0).prints("night  interrupted");
    place.run(&at(&state, &["show", "night"])).exits(0).prints("run night --resume");
    place.run(&at(&state, &["logs", "night"])).exits(0).prints("run started");
    fs::remove_file(full).expect("removed");
    disk.remount("size=32m");
    goes_on(&place, &state);
}

/// Faults 10 and 12: no room and no inode for a state that is to be made, or for one that is there: that can still be read.
#[test]
fn a_state_that_cannot_be_made_is_named_and_nothing_is_done() {
    for options in ["size=16k", "nr_inodes=3"] {
        let place = Place::with_job("night", NIGHT);
        let folder = place.path("state");
        let Some(_disk) = Tmpfs::mount(&folder, options) else { return };
        let done = place.run(&at(&text(&folder), &["run", "night"])).exits(74);
        assert!(done.stderr.contains(&text(&folder)), "{options}: {done:?}");
        assert!(worked(&place).is_empty(), "{options}");
        place.run(&at(&text(&folder), &["history"])).exits(0).says("no run was kept");
    }
    for options in ["nr_inodes=12", "size=1m"] {
        let place = Place::with_job("quick", r#"Job(run: [Exec(sh: "echo x >> ../log")])"#);
        let folder = place.path("a state? 100%");
        let Some(_disk) = Tmpfs::mount(&folder, options) else { return };
        let state = text(&folder);
        place.run(&at(&state, &["run", "quick"])).exits(0);
        for n in 0..12 {
            let _ = fs::write(folder.join(format!("inode-{n}")), "");
        }
        ballast(&folder);
        let refused = place.run(&at(&state, &["run", "quick"])).exits(74);
        assert!(
            refused.stderr.contains("No space left") || refused.stderr.contains("no room"),
            "{options}: {refused:?}"
        );
        assert_eq!(place.read("log"), "x\n", "nothing was done");
        let shown = place.run(&at(&state, &["history"])).exits(0).prints("quick  succeeded");
        shown.says("the state is only read, its disk takes no writes now");
        place.run(&at(&state, &["show", "quick"])).exits(0).prints("quick succeeded");
    }
}

/// Fault 11: results are kept when only the report has no room; it alone is made again.
#[test]
fn a_report_without_room_is_made_again_without_its_items() {
    let report = r#"Jq(filter: "[items.x]"), Write(json: "n.json")"#;
    let old = r#"Jq(filter: "[items.n] | length"), Write(json: "n.json")"#;
    let place = Place::with_job("night", &NIGHT.replace(old, report));
    let Some(disk) = Tmpfs::mount(&place.path("out"), "size=64k") else { return };
    place.run(&["run", "night"]).exits(1).prints("No space left on device");
    let first = worked(&place);
    assert!(first.len() == 200 && !place.path("out/n.json").exists());
    disk.remount("size=8m");
    place.run(&["retry", "night"]).exits(0);
    assert_eq!(worked(&place), first, "no item is worked on again");
    assert!(place.read("out/n.json").len() > 200 * 8000);
}

/// A file system in a file; `None` where it cannot be mounted.
struct Ext4(PathBuf);

impl Ext4 {
    fn mount(image: &Path, at: &Path) -> Option<Ext4> {
        fs::create_dir_all(at).expect("a folder");
        let succeeds = |command: &mut Command| command.output().is_ok_and(|done| done.status.success());
        let made = image.exists()
            || fs::File::create(image).and_then(|file| file.set_len(16 << 20)).is_ok()
                && succeeds(Command::new("mkfs.ext4").arg("-q").arg(image));
        if made && succeeds(Command::new("mount").args(["-o", "loop,errors=remount-ro"]).args([image, at])) {
            return Some(Ext4(at.to_owned()));
        }
        skip("a disk that fails needs root, `mkfs.ext4` and the right to mount a file");
        None
    }
}

impl Drop for Ext4 {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// Fault 13: an error of the file system makes it read-only under a run.
#[test]
fn a_disk_that_becomes_read_only_ends_the_run_by_name_and_what_is_there_can_be_read() {
    let slow =
        NIGHT.replace(r#"../log"), "#, r#"../log; while test -d ../jobs && ! test -e ../go; do sleep 0.02; done"), "#);
    let place = Place::with_job("night", &slow);
    let (image, folder) = (place.path("image"), place.path("disk"));
    let Some(disk) = Ext4::mount(&image, &folder) else { return };
    let state = text(&folder.join("state"));
    let going = Going::start(&mut place.command(&at(&state, &["run", "night"])));
    until("four items work", || worked(&place).len() >= 4);
    // What the kernel does when it finds the file system damaged.
    let aborted = Command::new("mount").args(["-o", "remount,abort"]).arg(&folder).status();
    assert!(aborted.expect("mount").success());
    place.write("go", "");
    let done = going.end().exits(74);
    done.says("state.db: ").says("`run night --resume` goes on with it");
    place.run(&at(&state, &["run", "night"])).exits(74).says("Read-only file system");
    for command in ["history", "show", "logs"] {
        let arguments = if command == "history" { vec![command] } else { vec![command, "night"] };
        place.run(&at(&state, &arguments)).exits(0);
    }
    drop(disk);
    let Some(_disk) = Ext4::mount(&image, &folder) else { panic!("it was mounted before") };
    goes_on(&place, &state);
}

/// Fault 17: files of locks that a power cut has left, whatever stands in them.
#[test]
fn files_of_locks_that_were_left_are_in_nobodys_way() {
    let place = Place::with_job("quick", r#"Job(run: [Exec(argv: ["true"])])"#);
    let state = text(&place.path("state"));
    place.run(&at(&state, &["run", "quick"])).exits(0);
    // The number of a process that lives, in files of epochs that are over and of the one that comes next.
    let living = std::process::id().to_string();
    for name in ["open.lock", "turn.lock", "epochs/1.lock", "epochs/nonsense", "epochs/x.lock"] {
        place.write(&format!("state/{name}"), &living);
    }
    place.write("state/epochs/2.lock", "");
    place.run(&at(&state, &["run", "quick"])).exits(0);
    place.run(&at(&state, &["history"])).exits(0).prints("quick  succeeded");
}

/// Fault 74: somebody reads the state for a whole run, so that its log cannot be cut: it is said, and cut when that ends.
/// Our own commands never hold it up.
#[test]
fn a_long_reader_makes_the_log_grow_and_is_told_of() {
    let place = Place::with_job("night", NIGHT);
    let state = text(&place.path("state"));
    let log = || fs::metadata(place.path("state/state.db-wal")).map_or(0, |found| found.len());
    place.run(&at(&state, &["run", "night"])).exits(0);
    let reader = rusqlite::Connection::open(place.path("state/state.db")).expect("the state");
    reader.execute_batch("BEGIN; SELECT count(*) FROM item;").expect("it reads");
    for _ in 0..3 {
        place.run(&at(&state, &["run", "night"])).exits(0);
    }
    assert!(log() > 3 << 20, "{} bytes of log", log());
    let told = place.run(&at(&state, &["run", "night"])).exits(0);
    told.says("another program keeps reading it");
    drop(reader);
    place.run(&at(&state, &["run", "night"])).exits(0);
    assert!(log() <= 1 << 20, "{} bytes of log", log());
}
