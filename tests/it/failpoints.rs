//! The program dies at each of its named points, at each item: what it does then. A point that no run reaches is a defect.
//!
//! `LAMPLIGHTER_FAILPOINT=Committed:3` arms a program that was built with the feature `plant`.

use super::{
    left::nothing_of,
    util::{Done, Place, finish},
};
use lamplighter::world::failpoint::Point::{self, *};
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

const ITEMS: [&str; 3] = ["a", "b", "c"];
const KILLED: i32 = 1000 + 9;

/// Three items that do something that may be repeated, then something that may not, and a report. `flag` makes the first
/// thing fail.
const JOB: &str = r#"Job(
    stages: [
        Stage(name: "list", key: "{{ item.id }}", run: [Jq(filter: "(\"a\", \"b\", \"c\") | {id: .}")]),
        Stage(name: "work", tolerate: "100%", run: [
            Exec(sh: "echo \"$LAMPLIGHTER_KEY $LAMPLIGHTER_IDEMPOTENCY_KEY\" >> ../work; test ! -e ../flag"),
            Jq(filter: "{id}"),
            Keep(filter: "$run.id"),
        ]),
        Stage(name: "once", on_crash: Hold, tolerate: "100%", run: [
            Exec(sh: "echo \"$LAMPLIGHTER_KEY $LAMPLIGHTER_IDEMPOTENCY_KEY\" >> ../once"),
        ]),
        Stage(name: "report", gather: All, from: ["once"], run: [
            Jq(filter: "{ok: [items.id], missing: [failures.key]}"),
            Write(json: "report.json"),
        ]),
    ],
    on_finish: [Notify(when: [Succeeded, Partial, Failed, Quarantined], run: [Exec(sh: "echo told >> ../told")])],
)"#;

/// An item that waits in the store before it is tried again: it must be longer than what waits in memory.
const WAITS: &str = r#"Job(
    stages: [
        Stage(name: "list", key: "{{ item.id }}", run: [Jq(filter: "(\"a\", \"b\", \"c\") | {id: .}")]),
        Stage(name: "work", retry: Retry(max_attempts: 2, initial_interval: "10500ms", max_interval: "10500ms", jitter: Exact), run: [
            Exec(sh: "echo \"$LAMPLIGHTER_KEY $LAMPLIGHTER_IDEMPOTENCY_KEY\" >> ../work; test $(grep -c \"^$LAMPLIGHTER_KEY \" ../work) -ge 2"),
        ]),
        Stage(name: "report", gather: All, run: [
            Jq(filter: "{ok: [items.id], missing: [failures.key]}"),
            Write(json: "report.json"),
        ]),
    ],
)"#;

/// What stands when the program that is to die is started, and how it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scene {
    /// A first run.
    Night,
    /// A run that was killed goes on.
    Resume,
    /// A run that failed is repeated.
    Retry,
    /// A run that was killed is not gone on with: another one begins.
    Anew,
    /// A run was killed before it sent its notice: another one begins.
    Notices,
    /// A run has crashed too often.
    Poison,
    /// Items wait in the store.
    Waits,
}

/// Where a point is passed. The first scene walks it at each item, the others once.
fn scenes(point: Point) -> &'static [Scene] {
    use Scene::*;
    match point {
        StateMade | StateNamed | ClaimBegins | Claimed | ListedBegins | Listed | ListingDoneBegins | ListingDone => {
            &[Night]
        }
        HoldBegins | Held | EffectBegins | EffectDone | ValueKept | ItemSettled | StageEnds | StageEnded => {
            &[Night, Resume, Retry]
        }
        GatherBegins | FileMade | FileWritten | FileSynced | FileNamed | FileRecorded | SettleBegins | Settled => {
            &[Night, Resume, Retry]
        }
        CommitBegins | Committed => &[Night, Resume, Retry, Anew, Poison],
        NoticeBegins | NoticeSent | NoticeDone => &[Night, Notices],
        RetainBegins | EpochBegun | EpochEnds | EpochOver => &[Night, Resume],
        DeadEpochFound | DeadEpochOver => &[Resume, Anew, Poison],
        TakeOverBegins | TakenOver | StrangersEnded | Swept | Restored => &[Resume],
        CopyBegins | CopyWritten | Copied => &[Retry],
        GiveUpBegins | GivenUp => &[Anew],
        QuarantineBegins | Quarantined => &[Poison],
        DeferBegins | Deferred | Returned => &[Waits],
    }
}

/// Points at which a resume dies, and the next one too.
const RECOVERY: [Point; 8] =
    [DeadEpochFound, DeadEpochOver, EpochBegun, TakeOverBegins, TakenOver, StrangersEnded, Swept, Restored];

impl Scene {
    /// What is typed in it.
    fn command(self) -> &'static [&'static str] {
        match self {
            Scene::Night | Scene::Anew | Scene::Notices | Scene::Waits => &["run", "night"],
            Scene::Resume | Scene::Poison => &["run", "night", "--resume"],
            Scene::Retry => &["retry", "night"],
        }
    }

    /// Deaths of the runs that it begins with, and whether all that is done belongs to one run and its repetition.
    fn deaths_before(self) -> u32 {
        match self {
            Scene::Night | Scene::Retry | Scene::Waits => 0,
            Scene::Resume | Scene::Anew | Scene::Notices => 1,
            Scene::Poison => 3,
        }
    }

    /// All that is done belongs to one run, or to one and its repetition.
    fn is_one_chain(self) -> bool {
        matches!(self, Scene::Night | Scene::Resume | Scene::Retry | Scene::Waits)
    }
}

/// A scene in a folder, and how the folder looked: what is stored names it, so that it cannot be copied elsewhere.
struct Stage {
    scene: Scene,
    place: Place,
    before: tempfile::TempDir,
}

/// The last run on the disk.
#[derive(Clone, Debug)]
struct Head {
    run: String,
    phase: i64,
    pass: u32,
    crashes: u32,
    outcome: Option<String>,
    is_copy: bool,
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        let to = to.join(entry.file_name());
        match entry.file_type().expect("a type").is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).expect("a copy")),
        }
    }
}

impl Stage {
    fn new(scene: Scene) -> Stage {
        let place = Place::with_job("night", if scene == Scene::Waits { WAITS } else { JOB });
        let stage = Stage { scene, place, before: tempfile::tempdir().expect("a folder") };
        let dies = |point: &str, arguments: &[&str]| drop(stage.armed(point, arguments).exits(KILLED));
        match scene {
            Scene::Night | Scene::Waits => {}
            Scene::Resume | Scene::Anew => dies("EffectDone:3", &["run", "night"]),
            Scene::Notices => dies("Settled", &["run", "night"]),
            Scene::Retry => {
                stage.place.write("flag", "");
                stage.place.run(&["run", "night", "--state", "state"]).exits(3);
                fs::remove_file(stage.place.path("flag")).expect("the flag");
            }
            Scene::Poison => {
                dies("Claimed", &["run", "night"]);
                dies("TakenOver", &["run", "night", "--resume"]);
                dies("TakenOver", &["run", "night", "--resume"]);
            }
        }
        copy(&stage.place.path(""), stage.before.path());
        stage
    }

    /// The folder as it was.
    fn set(&self) {
        for entry in fs::read_dir(self.place.path("")).expect("a folder").flatten() {
            match entry.file_type().expect("a type").is_dir() {
                true => fs::remove_dir_all(entry.path()),
                false => fs::remove_file(entry.path()),
            }
            .expect("it goes");
        }
        copy(self.before.path(), &self.place.path(""));
    }

    fn armed(&self, point: &str, arguments: &[&str]) -> Done {
        let all = [arguments, &["--state", "state", "--format", "json"]].concat();
        finish(self.place.command(&all).env("LAMPLIGHTER_FAILPOINT", point))
    }

    fn unarmed(&self, arguments: &[&str]) -> Done {
        self.place.run(&[arguments, &["--state", "state", "--format", "json"]].concat())
    }

    fn open(&self) -> Option<Connection> {
        let file = self.place.path("state/state.db");
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        file.exists().then(|| Connection::open_with_flags(&file, flags).expect("the state"))
    }

    fn last(&self) -> Option<Head> {
        let sql = "SELECT r.name, h.phase, h.pass, h.crashes, h.outcome, h.parent IS NOT NULL
            FROM head h JOIN run r ON r.id = h.run ORDER BY r.id DESC LIMIT 1";
        self.open()?
            .query_row(sql, [], |row| {
                let (run, phase, pass) = (row.get(0)?, row.get(1)?, row.get(2)?);
                Ok(Head { run, phase, pass, crashes: row.get(3)?, outcome: row.get(4)?, is_copy: row.get(5)? })
            })
            .ok()
    }

    fn number(&self, sql: &str) -> i64 {
        self.open().expect("a state").query_row(sql, [], |row| row.get(0)).expect("a number")
    }

    /// How often each item stands in a log, by its keys.
    fn log(&self, file: &str) -> BTreeMap<String, BTreeMap<String, u32>> {
        let mut seen: BTreeMap<String, BTreeMap<String, u32>> = BTreeMap::new();
        for line in fs::read_to_string(self.place.path(file)).unwrap_or_default().lines() {
            let (item, key) = line.split_once(' ').expect("two words");
            *seen.entry(item.to_owned()).or_default().entry(key.to_owned()).or_default() += 1;
        }
        seen
    }

    /// Dies at each of these points, passed for that time; goes on, and looks at it all. False when one is not passed so
    /// often.
    fn holds(&self, deaths: &[(Point, u32)]) -> bool {
        self.set();
        // Passes that died before their end was on the disk.
        let mut open_deaths = 0;
        for (point, nth) in deaths {
            let before = self.last();
            let done = self.armed(&format!("{point:?}:{nth}"), self.scene.command());
            if done.code != KILLED {
                return false;
            }
            let after = self.last();
            let is_new =
                |head: &Head| before.as_ref().is_none_or(|before| (&before.run, before.pass) != (&head.run, head.pass));
            open_deaths += u32::from(after.as_ref().is_some_and(|head| is_new(head) && head.phase == 0));
        }
        let before = self.last();
        let done = match (self.scene, &before) {
            (Scene::Retry, Some(head)) if !head.is_copy => Some(self.unarmed(&["retry", "night"])),
            (Scene::Poison, _) => Some(self.unarmed(&["run", "night", "--resume"])),
            (Scene::Night | Scene::Resume | Scene::Retry | Scene::Waits, Some(head)) if head.phase == 2 => None,
            _ => Some(self.unarmed(&["run", "night", "--resume"])),
        };
        let last = self.last().expect("a run");
        if self.scene == Scene::Poison {
            self.is_quarantined(&done.expect("a run"));
            return true;
        }
        if let Some(done) = done {
            assert!([0, 3].contains(&done.code), "{done:?}");
        }
        // Each pass but the last died over it, and each is counted once.
        let first_pass = if last.is_copy { 2 } else { 1 };
        assert_eq!(last.crashes, last.pass - first_pass, "{last:?}");
        let earlier = if self.scene == Scene::Resume { 1 } else { 0 };
        if before.is_some_and(|before| before.run == last.run) && self.scene.is_one_chain() {
            assert_eq!(last.crashes, open_deaths + earlier, "{last:?}");
        }
        self.is_whole(&last, deaths.len() as u32 + self.scene.deaths_before());
        true
    }

    fn is_whole(&self, last: &Head, deaths: u32) {
        assert_eq!(self.number("SELECT count(*) FROM head WHERE phase < 2"), 0, "every run has ended");
        let report: Value = serde_json::from_str(&self.place.read("out/report.json")).expect("a whole report");
        let texts = |what: &str| -> Vec<&str> {
            report[what].as_array().expect("a list").iter().map(|text| text.as_str().expect("a text")).collect()
        };
        let (ok, missing) = (texts("ok"), texts("missing"));
        let all: BTreeSet<&str> = ok.iter().chain(&missing).copied().collect();
        assert_eq!((all, ok.len() + missing.len()), (ITEMS.into(), ITEMS.len()), "each once: {report}");
        let rows = format!(
            "SELECT count(*) FROM item WHERE run = (SELECT id FROM run WHERE name = '{}') AND state >= 0",
            last.run
        );
        let stages = if self.scene == Scene::Waits { 2 } else { 3 };
        assert_eq!(self.number(&rows), stages * 3 + 1, "each has its row");
        let check: String =
            self.open().expect("a state").query_row("PRAGMA quick_check", [], |row| row.get(0)).expect("an answer");
        assert_eq!(check, "ok");
        nothing_of(&self.place.path(""), Some(&last.run));
        if !self.scene.is_one_chain() {
            return;
        }
        // What an item of the first stage does may be repeated once for each death; twice are its attempts where it waits,
        // once more where it was done by the run that is repeated.
        let own = if matches!(self.scene, Scene::Waits | Scene::Retry) { 2 } else { 1 };
        for (item, keys) in self.log("work") {
            assert_eq!(keys.len(), 1, "{item}: one idempotency key");
            assert!(keys.values().all(|times| *times <= own + deaths), "{item}: {keys:?}");
        }
        if self.scene == Scene::Waits {
            assert_eq!(ok, ITEMS);
            return;
        }
        let once = self.log("once");
        for item in &ok {
            assert_eq!(once[*item].values().sum::<u32>(), 1, "{item} was done once");
        }
        assert!(once.values().all(|keys| keys.values().sum::<u32>() <= 1), "never twice: {once:?}");
        let held = format!(
            "SELECT count(*) FROM item WHERE run = (SELECT id FROM run WHERE name = '{}') AND stage = 2 AND state = 6",
            last.run
        );
        assert_eq!(self.number(&held), missing.len() as i64, "only what may have begun is missing");
        assert!(missing.len() <= deaths as usize, "{report}");
        let told = fs::read_to_string(self.place.path("told")).unwrap_or_default().lines().count() as i64;
        let left = self.number("SELECT count(*) FROM notice");
        let wanted = if self.scene == Scene::Retry { 2 } else { 1 };
        assert!(
            told + left >= wanted && told <= wanted + i64::from(deaths),
            "{told} notices were sent, {left} are left"
        );
        // What is left is sent by the next run of the job, which tells of its own end too.
        if left > 0 {
            self.unarmed(&["run", "night"]).exits(0);
            let sent = self.place.read("told").lines().count() as i64;
            assert_eq!(
                (sent, self.number("SELECT count(*) FROM notice")),
                (told + left + 1, 0),
                "all notices are sent"
            );
        }
    }

    fn is_quarantined(&self, done: &Done) {
        let quarantined = self.number("SELECT count(*) FROM head WHERE outcome = 'quarantined'");
        assert_eq!((quarantined, self.number("SELECT count(*) FROM head WHERE phase < 2")), (1, 0), "{done:?}");
        // Either it was quarantined now, or before; then a new run has begun.
        let last = self.last().expect("a run");
        assert!(
            (done.code, last.outcome.as_deref()) == (1, Some("quarantined")) || done.code == 0,
            "{done:?} {last:?}"
        );
        self.unarmed(&["run", "night"]).exits(0);
        assert_eq!(self.number("SELECT count(*) FROM notice"), 0);
        let told = self.place.read("told").lines().count();
        assert!(told >= 2, "of the quarantine and of the run behind it: {told}");
    }
}

/// Walks work on two threads, each in its own folders.
fn walk<T: Sync>(all: &[T], threads: usize, each: impl Fn(&mut BTreeMap<usize, Stage>, &T) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut stages = BTreeMap::new();
                while let Some(one) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    each(&mut stages, one);
                }
            });
        }
    });
}

/// Dies at a point for the first, second, .. time that it is passed, until it is not passed so often any more.
fn walk_through(
    stages: &mut BTreeMap<usize, Stage>,
    (point, scene): &(Point, Scene),
    walked: &Mutex<BTreeMap<String, u32>>,
) {
    let stage = stages.entry(*scene as usize).or_insert_with(|| Stage::new(*scene));
    let mut nth = 1;
    while stage.holds(&[(*point, nth)]) {
        nth += 1;
    }
    assert!(nth > 1, "failpoint {point:?} is not passed in the scene {scene:?}");
    walked.lock().expect("nobody panics").insert(format!("{point:?} in {scene:?}"), nth - 1);
}

#[test]
fn a_death_at_every_point_is_survived() {
    let all: Vec<(Point, Scene)> = Point::ALL
        .iter()
        .flat_map(|point| scenes(*point).iter().map(|scene| (*point, *scene)))
        .filter(|(_, scene)| *scene != Scene::Waits)
        .collect();
    let walked = Mutex::default();
    walk(&all, 2, |stages, one| walk_through(stages, one, &walked));
    let walked = walked.into_inner().expect("nobody panics");
    println!("{} deaths at {} points: {walked:?}", walked.values().sum::<u32>(), Point::ALL.len());
}

#[test]
fn a_death_around_a_wait_in_the_store_is_survived() {
    let all: Vec<(Point, u32)> = Point::ALL
        .iter()
        .flat_map(|point| scenes(*point).iter().map(|scene| (*point, *scene)))
        .filter(|(_, scene)| *scene == Scene::Waits)
        .flat_map(|(point, _)| (1..).take(ITEMS.len()).map(move |nth| (point, nth)))
        .collect();
    // Nearly all of the time is waiting.
    walk(&all, all.len(), |_, (point, nth)| {
        assert!(Stage::new(Scene::Waits).holds(&[(*point, *nth)]), "failpoint {point:?} is not passed {nth} times");
    });
}

#[test]
fn two_deaths_in_a_row_while_a_run_is_recovered_are_survived() {
    let pairs: Vec<(Point, Point)> =
        RECOVERY.iter().flat_map(|first| RECOVERY.iter().map(|second| (*first, *second))).collect();
    walk(&pairs, 2, |stages, (first, second)| {
        let stage = stages.entry(0).or_insert_with(|| Stage::new(Scene::Resume));
        let passed = stage.holds(&[(*first, 1), (*second, 1)]);
        // What the first one did to the dead epoch stays done, and it had not begun one of its own.
        let is_done = *first == DeadEpochOver && matches!(second, DeadEpochFound | DeadEpochOver);
        assert_eq!(passed, !is_done, "failpoint {second:?} after {first:?}");
    });
}
