//! Power cuts: at each write and each sync of real runs of the program, every kind of disk that a cut could leave.
//!
//! The program runs under `strace`, which sees each change of a file, each sync, and each moment in which a transaction was
//! called committed (`power/trace.rs`). The changes are done again on a model of a disk that has lost what was not synced, or
//! a part of it, in ten ways (`power/disk.rs`). Each image must be one of the states that there were, and none older than
//! what had been called done (`power/judge.rs`). From some of them the program goes on until the night is whole.
//!
//! What counts as called done: a transaction whose writer has let its lock go, because from then on `show`, `history`, a
//! summary or a resume say so; whatever is printed comes later.

mod disk;
mod judge;
mod trace;

use super::hostile::bench::{skip, there_is};
use disk::{Disk, Image, LOSSES};
use judge::{OUT, STATE, Story};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};
use tempfile::TempDir;
use trace::{Event, Recording};

/// Items of a night.
const ITEMS: u64 = 48;

/// A file for each item, and a report of all.
fn night(text_bytes: usize) -> String {
    format!(
        r#"Job(stages: [
    Stage(name: "list", key: "K{{{{ item.n }}}}", run: [Jq(filter: "range({ITEMS}) | {{n: ., text: (\"x\" * {text_bytes})}}")]),
    Stage(name: "work", workers: 3, run: [Write(json: "items/{{{{ key }}}}.json")]),
    Stage(name: "report", gather: All, run: [Jq(filter: "[items.n] | sort | map(tostring) | join(\" \")"), Write(json: "report.json")]),
])"#
    )
}

/// A machine: a folder in memory, where it can be, because syncing is what is modelled.
struct Machine(TempDir);

impl Machine {
    fn new() -> Machine {
        let shm = Path::new("/dev/shm");
        let dir = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() };
        Machine(dir.expect("a temporary folder"))
    }

    fn with_job(text: &str) -> Machine {
        let machine = Machine::new();
        machine.write("jobs/night.ron", text);
        machine
    }

    fn write(&self, below: &str, text: &str) {
        let path = self.root().join(below);
        fs::create_dir_all(path.parent().expect("a folder")).and_then(|()| fs::write(path, text)).expect("a file");
    }

    fn root(&self) -> PathBuf {
        self.path("on")
    }

    fn path(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(super::util::PROGRAM);
        command.args(["--state", STATE, "--out", OUT]).args(arguments).current_dir(self.root()).env_clear();
        for name in ["PATH", "HOME", "LLVM_PROFILE_FILE"] {
            command.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        command
    }
}

/// Which states an image may be, or what is wrong with it.
type Verdict = Result<BTreeSet<usize>, String>;

/// What came of the images of a recording.
#[derive(Default)]
struct Replayed {
    images: usize,
    /// Of them.
    distinct: usize,
    /// What was wrong, with where.
    wrong: Vec<String>,
}

/// Cuts the power behind each event, in `losses` of the ways that there are.
fn replay(recording: &Recording, story: &Story, losses: usize) -> Replayed {
    let judged: Mutex<BTreeMap<Vec<u8>, Verdict>> = Mutex::default();
    let (images, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for half in 0..2 {
            let (judged, images, wrong) = (&judged, &images, &wrong);
            scope.spawn(move || {
                let scratch = Machine::new();
                for (number, image, loss) in cuts(recording, losses) {
                    if images_of_half(number, loss, half) {
                        continue;
                    }
                    images.fetch_add(1, Ordering::Relaxed);
                    let hash = hash(&image);
                    let known = judged.lock().expect("nobody panics").get(&hash).cloned();
                    let which = known.unwrap_or_else(|| {
                        let which = story.judge(&image, &scratch.path("state"));
                        judged.lock().expect("nobody panics").insert(hash, which.clone());
                        which
                    });
                    let bounds = story.bounds(number);
                    let is_wrong = match which {
                        Ok(which) if which.iter().any(|state| bounds.contains(state)) => continue,
                        Ok(which) => {
                            format!("it is state {which:?}, and {bounds:?} may be: what was called done is lost")
                        }
                        Err(error) => error,
                    };
                    let event = brief(&recording.events[number]);
                    wrong
                        .lock()
                        .expect("nobody panics")
                        .push(format!("behind {number} {event}, {:?}: {is_wrong}", LOSSES[loss]));
                }
            });
        }
    });
    Replayed {
        images: images.into_inner(),
        distinct: judged.into_inner().expect("nobody panics").len(),
        wrong: wrong.into_inner().expect("nobody panics"),
    }
}

fn images_of_half(number: usize, loss: usize, half: usize) -> bool {
    (number + loss) % 2 != half
}

/// Every image, with the event that it is behind and the place of its loss.
fn cuts(recording: &Recording, losses: usize) -> impl Iterator<Item = (usize, Image, usize)> {
    let mut disk: Disk = recording.base.clone();
    recording.events.iter().enumerate().flat_map(move |(number, event)| {
        disk.apply(number, event);
        let first = number * losses % LOSSES.len();
        let of_a_cut = (0..losses).map(|place| (first + place) % LOSSES.len());
        let image = |loss: usize| {
            let mut chance = fastrand::Rng::with_seed((number * LOSSES.len() + loss) as u64);
            (number, disk.image(LOSSES[loss], &mut chance), loss)
        };
        of_a_cut.map(image).collect::<Vec<_>>()
    })
}

fn hash(image: &Image) -> Vec<u8> {
    let mut hash = Sha256::new();
    for (path, bytes) in &image.files {
        hash.update((path.len() as u64).to_le_bytes());
        hash.update(path);
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    }
    image.folders.iter().for_each(|path| hash.update(path));
    hash.finalize().to_vec()
}

fn brief(event: &Event) -> String {
    match event {
        Event::Write(path, at, bytes) => format!("Write({path}, {at:?}, {} bytes)", bytes.len()),
        other => format!("{other:?}"),
    }
}

/// True when the machine can record; says so when it cannot.
fn can_record() -> bool {
    let there = there_is("strace");
    if !there {
        skip("power cuts are recorded with `strace`");
    }
    there
}

/// All images hold, and there are at least so many that differ.
#[track_caller]
fn holds(name: &str, recording: &Recording, losses: usize, at_least: usize) -> Story {
    let scratch = Machine::new();
    let story = Story::of(recording, &scratch.path("state"));
    let replayed = replay(recording, &story, losses);
    let Replayed { images, distinct, wrong } = replayed;
    println!(
        "{name}: {} events, {} states, {images} images, {distinct} of them differ, {} wrong",
        recording.events.len(),
        story.states(),
        wrong.len()
    );
    assert!(wrong.is_empty(), "{name}: {} images are wrong:\n{}", wrong.len(), wrong[..wrong.len().min(10)].join("\n"));
    assert!(distinct >= at_least, "{name}: only {distinct} images differ");
    story
}

/// From some images, evenly spread, the program goes on: the outputs are those of a night without a power cut.
fn goes_on(machine: &Machine, recording: &Recording, count: usize, arguments: &[&str]) {
    let whole = Image::of(&machine.root());
    let every = (recording.events.len() / count).max(1);
    let cuts = cuts(recording, 1).filter(|(number, ..)| number % every == every / 2);
    let mut went_on = 0;
    for (number, image, loss) in cuts {
        went_on += 1;
        // In the place where it was: a run goes on with its outputs where they are.
        image.write("", &machine.root());
        let output = machine.command(arguments).output().expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr);
        let from = format!("behind {number} {}, {:?}:\n{said}", brief(&recording.events[number]), LOSSES[loss]);
        assert_eq!(output.status.code(), Some(0), "{from}");
        assert!(Image::of(&machine.root()).below(OUT).eq(whole.below(OUT)), "other outputs {from}");
    }
    assert!(went_on >= count, "only from {went_on} images it went on");
}

/// A night from the very beginning: the state is made, rows are committed, files and a report are written.
#[test]
fn a_night_survives_a_power_cut_at_every_write() {
    if !can_record() {
        return;
    }
    let machine = Machine::with_job(&night(200));
    let mut recording = Recording::of(&machine.root());
    let traced = recording.run(&machine.command(&["run", "night"]), None);
    assert_eq!(traced.code, 0, "{}", traced.stderr);
    let story = holds("a night", &recording, LOSSES.len(), 2000);
    // What is said, and what is begun, waits for the disk.
    for (number, event) in recording.events.iter().enumerate() {
        let seen = story.acknowledged(number);
        let settled =
            |stage: u16| seen.settled.iter().filter(|((_, of), _)| *of == stage).map(|(_, rows)| rows).sum::<u64>();
        match event {
            Event::Create(path) if path.starts_with(&format!("{OUT}/items/")) => {
                assert!(seen.begun == 1 && settled(0) > 0, "an item is worked on before it was listed: {seen:?}");
            }
            Event::Create(path) if path.starts_with(&format!("{OUT}/")) => {
                assert_eq!(settled(1), ITEMS, "a report is begun before all is committed: {seen:?}");
            }
            Event::Said(text) if text.contains("night succeeded") => assert_eq!(seen.ended, 1, "{seen:?}"),
            _ => {}
        }
    }
    goes_on(&machine, &recording, 20, &["run", "night", "--resume"]);
}

/// A night that is killed in the middle of its writes, again and again, and resumed.
#[test]
fn a_night_that_is_killed_and_resumed_survives_a_power_cut_at_every_write() {
    if !can_record() {
        return;
    }
    let killed = || {
        let machine = Machine::with_job(&night(200));
        let mut recording = Recording::of(&machine.root());
        // Each thread counts its own syncs: the first kill comes while the state is made, the others while files are written.
        let resume = &["run", "night", "--resume"][..];
        for (arguments, sync) in [(&["run", "night"][..], 6), (resume, 30), (resume, 10)] {
            let killed = format!("inject=fsync:signal=SIGKILL:when={sync}");
            let traced =
                recording.try_run(&machine.command(arguments), Some(&killed)).map_err(|why| eprintln!("{why}"));
            let Ok(traced) = traced else { return None };
            assert_eq!(traced.code, 1000 + 9, "{sync}: {}", traced.stderr);
        }
        Some((machine, recording))
    };
    let (machine, mut recording) = (0..5).find_map(|_| killed()).expect("a recording of which nothing was passed over");
    let traced = recording.run(&machine.command(&["run", "night", "--resume"]), None);
    assert_eq!(traced.code, 0, "{}", traced.stderr);
    holds("killed and resumed", &recording, LOSSES.len() / 2, 1200);
    goes_on(&machine, &recording, 20, &["run", "night", "--resume"]);
}

/// A power cut, and another one at every write of what goes on after it.
#[test]
fn a_resume_after_a_power_cut_survives_the_next_one_at_every_write() {
    if !can_record() {
        return;
    }
    let machine = Machine::with_job(&night(200));
    let mut first = Recording::of(&machine.root());
    assert_eq!(first.run(&machine.command(&["run", "night"]), None).code, 0);
    let is_written = |event: &Event| matches!(event, Event::Rename(_, path) if path.contains("/items/"));
    let written: Vec<usize> = (0..first.events.len()).filter(|number| is_written(&first.events[*number])).collect();
    let middle = written[written.len() / 2];
    let (_, image, _) = cuts(&first, LOSSES.len()).find(|(number, ..)| *number == middle).expect("it was written");
    image.write("", &machine.root());
    let mut recording = Recording::of(&machine.root());
    let traced = recording.run(&machine.command(&["run", "night", "--resume"]), None);
    assert!(traced.code == 0 && traced.stderr.contains("run resumed"), "{}", traced.stderr);
    holds("resumed after a power cut", &recording, LOSSES.len() / 2, 800);
    goes_on(&machine, &recording, 10, &["run", "night", "--resume"]);
}

/// Long values: the log is copied into the file while rows are written, and begun anew over its old frames.
#[test]
fn a_log_that_begins_anew_survives_a_power_cut_at_every_write() {
    if !can_record() {
        return;
    }
    let job = night(30_000).replace("run: [Write", "run: [Jq(filter: \"{n}\"), Write");
    let machine = Machine::with_job(&job);
    let mut recording = Recording::of(&machine.root());
    let traced = recording.run(&machine.command(&["run", "night"]), None);
    assert_eq!(traced.code, 0, "{}", traced.stderr);
    let log = format!("{STATE}/state.db-wal");
    let begins = |event: &&Event| matches!(event, Event::Write(path, Some(0), _) if *path == log);
    assert!(recording.events.iter().filter(begins).count() >= 2, "the log is not begun anew");
    holds("a log that begins anew", &recording, 1, 500);
    goes_on(&machine, &recording, 10, &["run", "night", "--resume"]);
}

/// Attempts that are held, a repetition, a key that is forgotten, runs that retention lets go.
#[test]
fn retries_and_forgetting_survive_a_power_cut_at_every_write() {
    if !can_record() {
        return;
    }
    let machine = Machine::with_job(
        r#"Job(stages: [
    Stage(name: "list", key: "K{{ item }}", run: [Jq(filter: "range(12)")]),
    Stage(name: "work", workers: 2, on_crash: Hold, tolerate: "100%", run: [Write(json: "items/{{ key }}.json"), Keep(filter: ".")]),
    Stage(name: "report", gather: All, run: [Jq(filter: "[items] | length"), Write(json: "report.json")]),
])"#,
    );
    machine.write("lamplighter.ron", "Config(history: History(max_runs: 2))");
    let mut recording = Recording::of(&machine.root());
    let mut run = |arguments: &[&str], inject, code| {
        let traced = recording.run(&machine.command(arguments), inject);
        assert_eq!(traced.code, code, "{arguments:?}: {}", traced.stderr);
    };
    run(&["run", "night"], Some("inject=renameat:signal=SIGKILL:when=3"), 1000 + 9);
    run(&["run", "night", "--resume"], None, 3);
    run(&["retry", "night", "--held"], None, 0);
    run(&["run", "night"], None, 0);
    run(&["forget", "--key", "K5"], None, 0);
    run(&["run", "night"], None, 0);
    holds("retries and forgetting", &recording, LOSSES.len() / 3, 2500);
    goes_on(&machine, &recording, 20, &["run", "night"]);
}

/// Mistakes that are planted in the program, each of which the images must show.
#[cfg(feature = "plant")]
#[test]
fn planted_bugs_of_the_disk_are_found() {
    use super::seeds::planted;
    use lamplighter::world::plant::Bug;

    if !can_record() {
        return;
    }
    println!("| bug | what the program does then | wrong images | the state is damaged in | the first |");
    println!("| --- | --- | ---: | ---: | --- |");
    let mut missed = Vec::new();
    for bug in planted(Bug::OF_THE_DISK) {
        let machine = Machine::with_job(&night(200));
        let mut recording = Recording::of(&machine.root());
        let mut command = machine.command(&["run", "night"]);
        let traced = recording.run(command.env("LAMPLIGHTER_PLANTED", format!("{bug:?}")), None);
        assert_eq!(traced.code, 0, "{bug:?}: {}", traced.stderr);
        let scratch = Machine::new();
        let story = Story::of(&recording, &scratch.path("state"));
        let Replayed { images, wrong, .. } = replay(&recording, &story, LOSSES.len() / 2);
        let what = |wrong: &String| wrong.rsplit("}: ").next().unwrap_or_default().to_owned();
        let damaged = wrong.iter().filter(|wrong| what(wrong).starts_with("the state")).count();
        let first = wrong.first().map_or_else(|| "none".to_owned(), what);
        println!("| `{bug:?}` | {} | {} of {images} | {damaged} | {first} |", bug.what(), wrong.len());
        if wrong.is_empty() {
            missed.push(bug);
        }
    }
    assert!(missed.is_empty(), "no seed finds {missed:?}: no image shows them");
}
