//! The durable state, as several processes have it: they are killed, they share it, and a file of every format opens.
//!
//! A child is this test binary once more, told by a variable which part to play.

use flate2::read::GzDecoder;
use futures_lite::future::block_on;
use lamplighter::{
    item::{Class, Key, Lineage, Outcome, OutputRecord, RunOutcome},
    store::{
        Begun, Clocks, EventQuery, FiringEnd, FiringRow, GroupMember, Mark, Membership, NewRun, Page, Row, RowEnd,
        RowQuery, RunEnd, RunEvent, RunKind, State, TakenOver,
        sqlite::{Sqlite, StateOptions},
    },
};
use serde_json::json;
use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
};

/// Which part a child plays, with the folder of the state.
const PART: &str = "LAMPLIGHTER_TEST_PART";

fn open(dir: &Path) -> (Arc<Sqlite>, State) {
    let options = StateOptions { dir, now_ms: 1_700_000_000_000, instance: "fixture", accept_new: false };
    let store = Arc::new(Sqlite::durable(&options).unwrap_or_else(|error| panic!("{error}")).0);
    (store.clone(), State::new(store))
}

fn new_run(run: &str) -> NewRun {
    NewRun {
        run: run.into(),
        job: "nightly".into(),
        trigger: "schedule".into(),
        fire_key: Some(format!("firing of {run}")),
        kind: RunKind::Serve,
        due_ms: 1000,
        clocks: Clocks { wall_ms: 2000, boot_ms: 300 },
        deadline_ms: Some(7_200_000),
        budget_ms: Some(3_600_000),
        definition: "Job(stages: [])".into(),
        params: r#"{"night":"2026-01-02"}"#.into(),
        options: "{}".into(),
        alone: false,
    }
}

fn row(stage: u16, ordinal: u64, end: RowEnd) -> Row {
    Row {
        stage,
        lineage: Lineage::listed(0, ordinal),
        key: Key::ordinal(ordinal),
        end,
        attempts: 1,
        message: None,
        values: vec![json!({"n": ordinal})],
        took_ms: Some(12),
    }
}

fn ok(stage: u16, ordinal: u64) -> Row {
    row(stage, ordinal, RowEnd::Done(Outcome::Ok))
}

const NOW: Clocks = Clocks { wall_ms: 9000, boot_ms: 1 << 40 };

pub struct Killed(pub Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn child(part: &str, dir: &Path) -> (Killed, impl Iterator<Item = String>) {
    let mut child = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "state::plays_a_part_when_it_is_a_child", "--nocapture", "--test-threads=1"])
        .env(PART, format!("{part} {}", dir.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("a child");
    let out = BufReader::new(child.stdout.take().expect("its output"));
    // The harness writes the name of the test before the first line.
    let lines = out.lines().map_while(Result::ok);
    (Killed(child), lines.filter_map(|line| line.rsplit_once("said ").map(|(_, said)| said.to_owned())))
}

fn say(what: &str) {
    println!("said {what}");
    std::io::stdout().flush().expect("a pipe");
}

#[test]
fn plays_a_part_when_it_is_a_child() {
    let Ok(part) = std::env::var(PART) else { return };
    let (part, dir) = part.split_once(' ').expect("a part and a folder");
    let (store, state) = open(Path::new(dir));
    match part {
        "write" => write_until_killed(&state),
        run => {
            share(&state, run);
            block_on(store.close());
        }
    }
}

/// Goes on with the run, and says each row that is on the disk.
fn write_until_killed(state: &State) {
    block_on(async {
        if let Begun::Before(_) = state.begin(new_run("r")).await.unwrap() {
            let taken = state.take_over("r", NOW).await.unwrap();
            assert!(matches!(taken, TakenOver::Now(_)), "{taken:?}");
        }
        let rows = state.rows("r");
        let first = rows.tally(0).await.unwrap().counts.items;
        for ordinal in first.. {
            rows.put(ok(0, ordinal)).await.unwrap();
            if ordinal % 3 == 2 {
                rows.flush().await.unwrap();
                say(&ordinal.to_string());
            }
        }
    });
}

/// A firing that all want to begin, and a run of its own, with a question and a commit for each row.
fn share(state: &State, run: &str) {
    block_on(async {
        let firing = NewRun { fire_key: Some("of all".into()), ..new_run(&format!("firing of {run}")) };
        let begun = state.begin(firing).await.unwrap();
        assert!(matches!(begun, Begun::Now | Begun::Before(_)), "{begun:?}");
        assert_eq!(state.begin(new_run(run)).await.unwrap(), Begun::Now);
        let rows = state.rows(run);
        for ordinal in 0..SHARED_ROWS {
            rows.claim_key(0, &Key::ordinal(ordinal), &Lineage::listed(0, ordinal)).await.unwrap();
            rows.put(ok(0, ordinal)).await.unwrap();
            if ordinal % 4 == 0 {
                rows.flush().await.unwrap();
            }
        }
        rows.listing_done(0).await.unwrap();
        rows.flush().await.unwrap();
        say("done");
    });
}

const SHARED_ROWS: u64 = 200;

/// What a process said to be done is there, whole and once, however often it is killed.
#[test]
fn what_was_acknowledged_outlives_a_kill() {
    let dir = tempfile::tempdir().expect("a folder");
    let (mut acknowledged, mut crashes) = (0, 0);
    for round in 0..12_usize {
        let (mut process, mut said) = child("write", dir.path());
        let ordinal = said.nth(round * 7 % 5).expect("it writes").parse::<u64>().expect("a number");
        let (store, state) = open(dir.path());
        block_on(async {
            let open = state.unfinished(None).await.unwrap();
            assert!(open[0].alive, "slow is not dead");
            assert!(matches!(state.take_over("r", NOW).await, Ok(TakenOver::Refused(_))));
            process.0.kill().expect("killed");
            process.0.wait().expect("gone");
            assert!(!state.unfinished(None).await.unwrap()[0].alive, "the kernel let its lock go");
            let left = said.last().map_or(ordinal, |last| last.parse().expect("a number"));
            let counts = state.rows("r").tally(0).await.unwrap().counts;
            assert!(counts.items > left, "{} rows, {left} was acknowledged", counts.items);
            assert!(counts.items >= acknowledged, "nothing is lost by a later kill");
            (acknowledged, crashes) = (counts.items, crashes + 1);
            let mut rows = Vec::new();
            let mut query = RowQuery { limit: 100, ..RowQuery::default() };
            loop {
                let page = state.rows("r").row_heads(query.clone()).await.unwrap();
                let Some(last) = page.last() else { break };
                query.after = Some((last.stage, last.lineage.clone()));
                rows.extend(page.into_iter().map(|row| row.lineage.ordinal()));
            }
            assert_eq!(rows, (0..counts.items).collect::<Vec<_>>(), "each once, without a gap");
            store.close().await;
        });
    }
    let (_store, state) = open(dir.path());
    let head = block_on(state.details("r")).unwrap().expect("the run").head;
    assert_eq!((head.pass, head.crashes), (crashes, crashes - 1));
    let held = std::fs::read_dir(dir.path().join("epochs")).expect("the locks").count();
    assert!(held <= 2, "dead epochs are cleared away: {held}");
}

/// Processes that ask and commit all the time leave each other room.
#[test]
fn processes_share_one_state() {
    let dir = tempfile::tempdir().expect("a folder");
    let (store, state) = open(dir.path());
    let children = ["a", "b"].map(|run| child(run, dir.path()));
    share(&state, "c");
    for (mut process, said) in children {
        assert_eq!(said.last().as_deref(), Some("done"));
        assert!(process.0.wait().expect("it ends").success());
    }
    block_on(async {
        for run in ["a", "b", "c"] {
            assert_eq!(state.rows(run).tally(0).await.unwrap().counts.ok, SHARED_ROWS);
            let head = state.details(run).await.unwrap().expect("the run").head;
            assert_eq!(head.alive, run == "c");
        }
        let runs = state.history(Some("nightly"), None, 99).await.unwrap();
        let firings = runs.iter().filter(|head| head.fire_key.as_deref() == Some("of all"));
        assert_eq!(firings.count(), 1, "a firing is begun once, whoever is first");
        store.close().await;
    });
}

/// A state with one of everything.
pub fn fill(dir: &Path) {
    let (store, state) = open(dir);
    block_on(async {
        state.begin(new_run("ended")).await.unwrap();
        let rows = state.rows("ended");
        rows.put_all(vec![ok(0, 0), ok(0, 1)]).await.unwrap();
        let failed = RowEnd::Done(Outcome::Failed(Class::Http(503)));
        rows.put(Row { attempts: 4, message: Some("no".into()), ..row(1, 0, failed) }).await.unwrap();
        rows.listing_done(0).await.unwrap();
        rows.claim_key(0, &Key::ordinal(0), &Lineage::listed(0, 0)).await.unwrap();
        rows.claim_output("a.html", 1, &Key::ordinal(0), &Lineage::listed(0, 0)).await.unwrap();
        rows.record_output(OutputRecord { path: "a.html".into(), sha256: "00".into(), bytes: 7 }).await.unwrap();
        let event = RunEvent { wall_ms: 5, level: 2, stage: Some(1), key: Some(Key::ordinal(0)), text: "no".into() };
        rows.add_events(vec![event]).await.unwrap();
        state.keep("ended", "nightly", &Key::ordinal(0), 1000, json!({"mean": 51.5})).await.unwrap();
        let end = RunEnd {
            outcome: RunOutcome::Partial,
            reason: Some("one is missing".into()),
            record: r#"{"failures":[]}"#.into(),
            ended_ms: 8000,
            ran_ms: 6000,
            notices: vec![1],
            folds: None,
        };
        assert!(rows.end(end).await.unwrap());
        state.begin(new_run("open")).await.unwrap();
        let rows = state.rows("open").timed(Arc::new(|| 4000));
        rows.stage_began(0, 10, 2010).await.unwrap();
        let waits = RowEnd::Retry { at_ms: 600_000, deadline_ms: Some(700_000) };
        rows.put_all(vec![ok(0, 0), ok(0, 1), ok(0, 2), ok(0, 3)]).await.unwrap();
        rows.put_all(vec![ok(1, 0), row(1, 1, waits), row(1, 2, RowEnd::Started)]).await.unwrap();
        for membership in [Membership::Value, Membership::MissingOfParent] {
            let (text, lineage) = ("ward".to_owned(), Lineage::listed(0, 0));
            rows.assign_groups(2, vec![GroupMember { text, stage: 1, lineage, index: 0, membership }]).await.unwrap();
        }
        let waits = |key: &str| FiringRow {
            job: "nightly".into(),
            key: key.into(),
            trigger: "schedule".into(),
            due_ms: 1000,
            last_ms: 1000,
            count: Some(1),
            end: FiringEnd::Waiting,
            reason: None,
            told_ms: 2000,
            to_tell: false,
        };
        let mark = Mark { job: "nightly".into(), text: "{}".into() };
        state.consider(vec![mark], vec![waits("due 1"), waits("due 2")]).await.unwrap();
        let skipped = FiringRow { end: FiringEnd::Skipped, reason: Some("overlap".into()), ..waits("due 2") };
        assert_eq!(state.consider(Vec::new(), vec![skipped]).await.unwrap().len(), 1);
        store.close().await;
    });
}

/// That a state has one of everything that its format knows, and that the run in it goes on.
fn check(dir: &Path, format: u32) {
    let (store, state) = open(dir);
    block_on(async {
        assert_eq!(state.instance().await.unwrap(), "fixture");
        let ended = state.details("ended").await.unwrap().expect("the run");
        assert_eq!(
            (ended.head.outcome, ended.head.ended_ms, ended.head.ran_ms),
            (Some(RunOutcome::Partial), Some(8000), 6000)
        );
        assert_eq!((&*ended.definition, &*ended.options), ("Job(stages: [])", "{}"));
        let rows = state.rows("ended");
        let counts = rows.tally(1).await.unwrap().counts;
        assert_eq!((counts.failed, counts.attempts, counts.classes.get(&Class::Http(503))), (1, 4, Some(&1)));
        assert_eq!(rows.outputs(9).await.unwrap().0[0].bytes, 7);
        let events = rows.events(EventQuery { limit: 9, ..EventQuery::default() }).await.unwrap();
        assert_eq!((events.len(), &*events[0].1.text), (1, "no"));
        assert_eq!(state.state_of("nightly", &Key::ordinal(0), 2000).await.unwrap(), Some(json!({"mean": 51.5})));
        assert_eq!(state.notices().await.unwrap().len(), 1);
        assert!(matches!(state.begin(new_run("ended")).await, Ok(Begun::Before(_))));
        let Ok(TakenOver::Now(resume)) = state.take_over("open", NOW).await else { panic!("not taken over") };
        let head = &resume.details.head;
        assert_eq!((head.pass, head.ran_ms, head.budget_ms, resume.held), (2, 4000, Some(3_600_000), 1));
        assert_eq!(resume.details.stages[0].began.map(|began| began.ran_ms), Some(10));
        let rows = state.rows("open");
        let left = rows.unsettled(0, 1, None, 9).await.unwrap();
        assert_eq!(left.iter().map(|item| &item.values[0]).collect::<Vec<_>>(), [&json!({"n": 3})]);
        assert_eq!(rows.deferred(1, None, 9).await.unwrap().len(), 1);
        assert_eq!(rows.groups(2, None, 9).await.unwrap(), ["ward"]);
        let page = Page { after: None, limit: 9 };
        assert_eq!(rows.values(&[1], Some((2, "ward")), page).await.unwrap().len(), 1);
        let firings = usize::from(format >= 2);
        assert_eq!(state.marks().await.unwrap().len(), firings);
        assert_eq!(state.waiting_firings().await.unwrap().len(), firings);
        assert_eq!(state.past_firings(Some("nightly"), None, 9).await.unwrap().len(), firings);
        let unheard: Vec<_> = state.unheard().await.unwrap().into_iter().map(|head| head.run).collect();
        assert_eq!(unheard, if format >= 3 { vec!["ended".into()] } else { Vec::<Arc<str>>::new() });
        store.close().await;
    });
}

pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/state")
}

pub fn schema(dir: &Path) -> Vec<String> {
    let raw = rusqlite::Connection::open(dir.join("state.db")).expect("the file");
    let mut all = raw.prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name").expect("its schema");
    all.query_map([], |row| row.get(0)).and_then(Iterator::collect).expect("its texts")
}

fn unpacked(fixture: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    GzDecoder::new(File::open(fixture).expect("the fixture")).read_to_end(&mut bytes).expect("gzip");
    bytes
}

/// Of every format that was released a file is kept: it opens, becomes one of today's schema, says what it said, and its run
/// goes on. Where schemas differ the format must be another one. A new file is made by
/// `LAMPLIGHTER_TEST_FIXTURE=format-N.db.gz`.
#[test]
fn a_state_of_every_format_opens() {
    let fresh = tempfile::tempdir().expect("a folder");
    fill(fresh.path());
    let today = schema(fresh.path());
    if let Ok(name) = std::env::var("LAMPLIGHTER_TEST_FIXTURE") {
        std::fs::create_dir_all(fixtures()).expect("the folder");
        let mut packed = flate2::write::GzEncoder::new(
            File::create(fixtures().join(name)).expect("the fixture"),
            flate2::Compression::best(),
        );
        packed.write_all(&std::fs::read(fresh.path().join("state.db")).expect("the state")).expect("written");
        packed.finish().expect("written");
    }
    check(fresh.path(), u32::MAX);
    let mut names: Vec<_> =
        std::fs::read_dir(fixtures()).expect("fixtures").map(|entry| entry.expect("one").path()).collect();
    names.sort();
    let format_of = |bytes: &[u8]| u32::from_be_bytes(bytes[60..64].try_into().expect("a header"));
    let current = format_of(&std::fs::read(fresh.path().join("state.db")).expect("the state"));
    let mut newest = 0;
    for path in names {
        let dir = tempfile::tempdir().expect("a folder");
        let bytes = unpacked(&path);
        let format = format_of(&bytes);
        newest = newest.max(format);
        std::fs::write(dir.path().join("state.db"), bytes).expect("written");
        // Made that of today as it is opened.
        check(dir.path(), format);
        assert_eq!(schema(dir.path()), today, "{}", path.display());
    }
    assert_eq!(newest, current, "today's format has a fixture");
}

/// In the first format a firing was one of its trigger: what a schedule and a start of the machine began by one name stands in
/// such a file twice.
#[test]
fn a_firing_that_an_old_state_has_twice_keeps_nobody_from_opening_it() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("state.db"), unpacked(&fixtures().join("format-1.db.gz"))).expect("written");
    let raw = rusqlite::Connection::open(dir.path().join("state.db")).expect("the state");
    raw.execute_batch(
        "CREATE TEMP TABLE twin AS SELECT * FROM head WHERE run = 1;
         UPDATE twin SET run = 77, cause = 'boot';
         INSERT INTO run(id, name) VALUES(77, 'twin');
         INSERT INTO head SELECT * FROM twin;",
    )
    .expect("as the first format allowed");
    drop(raw);
    check(dir.path(), 1);
    let (store, state) = open(dir.path());
    block_on(async {
        let key_of = async |run: &str| state.details(run).await.unwrap().expect("the run").head.fire_key;
        assert_eq!(key_of("ended").await.as_deref(), Some("firing of ended"), "who came first has it");
        assert_eq!(key_of("twin").await, None);
        store.close().await;
    });
}

/// A lock that its process could not remove, or that was left between two steps, goes with the next who opens the
/// state, but never one that is held or that tells of what the state does not know.
#[test]
fn locks_of_epochs_that_are_over_go() {
    let dir = tempfile::tempdir().expect("a folder");
    for _ in 0..3 {
        block_on(open(dir.path()).0.close());
    }
    let lock = |id: u32| dir.path().join(format!("epochs/{id}.lock"));
    for id in [1, 2] {
        std::fs::write(lock(id), "4711\n").expect("a lock that is left");
    }
    std::fs::write(dir.path().join("epochs/notes"), "by hand").expect("a file");
    let held = File::open(lock(2)).expect("it is there");
    held.lock().expect("nobody has it");
    let (store, _) = open(dir.path());
    let left = |id| lock(id).exists();
    assert_eq!([1, 2, 4].map(left), [false, true, true]);
    // Two who are there: neither takes the other's.
    let (beside, _) = open(dir.path());
    assert_eq!([2, 4, 5].map(left), [true, true, true]);
    drop(held);
    block_on(store.close());
    block_on(beside.close());
    block_on(open(dir.path()).0.close());
    assert_eq!([1, 2, 4, 5, 6].map(left), [false; 5]);
    assert!(dir.path().join("epochs/notes").exists());
}
