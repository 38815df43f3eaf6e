//! What only a file keeps: what is committed outlives the process, nothing begins anew in silence, an error ends it all.

use super::{
    ROOM, durable, ok,
    state::{an_end, firing, new_run},
};
use crate::{
    item::{Key, Lineage, Outcome, RunOutcome},
    limits::{FIRINGS_KEPT_MAX, RETAIN_FIRINGS, RETAIN_JOBS},
    store::{
        Clocks, Copied, CopyPlan, FiringEnd, FiringRow, NewRun, Retention, Row, RowEnd, RowQuery, RunEnd, RunEvent,
        RunPhase, State, StoreError, TakenOver,
        memory::Memory,
        sqlite::{Sqlite, StateError, StateOptions},
    },
};
use futures_lite::future::block_on;
use rusqlite::Connection;
use serde_json::json;
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

fn options(dir: &Path) -> StateOptions<'_> {
    StateOptions { dir, now_ms: 1_700_000_000_000, instance: "here", accept_new: false }
}

fn refused(dir: &Path) -> StateError {
    Sqlite::durable(&options(dir)).map(|_| ()).unwrap_err()
}

/// Every file below a folder with its bytes.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => drop(found.insert(path.clone(), fs::read(&path).expect("it is read"))),
        }
    }
    found
}

/// A state with one run, whose process is done with it.
fn one_run(dir: &Path) {
    let store = Arc::new(durable(dir));
    block_on(async {
        let state = State::new(store.clone());
        state.begin(new_run("r", "nightly")).await.expect("the store answers");
        state.rows("r").put(ok(0, 0, vec![json!("kept")])).await.expect("the store answers");
        store.close().await;
    });
}

#[test]
fn what_was_committed_is_there_for_the_next_process() {
    let dir = tempfile::tempdir().expect("a folder");
    one_run(dir.path());
    let store = Arc::new(durable(dir.path()));
    let state = State::new(store.clone());
    block_on(async {
        assert_eq!(state.instance().await.expect("the store answers"), "here");
        let open = state.unfinished(None).await.expect("the store answers");
        assert_eq!((open.len(), open[0].alive), (1, false));
        assert_eq!(state.rows("r").tally(0).await.expect("the store answers").counts.ok, 1);
        let now = Clocks { wall_ms: 3000, boot_ms: 200 };
        assert!(matches!(state.take_over("r", now).await, Ok(TakenOver::Now(_))));
        assert!(matches!(state.take_over("r", now).await, Ok(TakenOver::Refused(_))), "it is ours");
        // A second store at the same file, as another process has it.
        let other = State::new(Arc::new(durable(dir.path())));
        assert!(other.unfinished(None).await.expect("the store answers")[0].alive);
        assert!(matches!(other.take_over("r", now).await, Ok(TakenOver::Refused(_))));
        assert_eq!(other.rows("r").end(an_end(RunOutcome::Failed)).await, Ok(false), "only its own process ends a run");
        assert_eq!(other.interrupt("r", an_end(RunOutcome::Interrupted)).await, Ok(false));
        store.close().await;
        assert!(!other.unfinished(None).await.expect("the store answers")[0].alive);
        assert_eq!(other.interrupt("r", an_end(RunOutcome::Failed)).await, Ok(true));
        let head = other.details("r").await.expect("the store answers").expect("it is kept").head;
        assert_eq!(head.outcome, Some(RunOutcome::Interrupted));
    });
}

/// Another process sees only what is committed: every change of a run is there when its answer is.
#[test]
fn what_an_answer_says_is_on_the_disk() {
    let dir = tempfile::tempdir().expect("a folder");
    let (one, other) = (State::new(Arc::new(durable(dir.path()))), State::new(Arc::new(durable(dir.path()))));
    let now = Clocks { wall_ms: 3000, boot_ms: 200 };
    block_on(async {
        let seen = async |state: &State| state.details("r").await.expect("the store answers").expect("it is kept").head;
        one.begin(new_run("r", "nightly")).await.expect("the store answers");
        assert!(seen(&other).await.alive);
        one.rows("r").put(ok(0, 0, Vec::new())).await.expect("the store answers");
        one.rows("r").flush().await.expect("the store answers");
        assert_eq!(other.rows("r").tally(0).await.expect("the store answers").counts.ok, 1);
        assert_eq!(one.rows("r").release().await, Ok(true));
        assert_eq!(seen(&other).await.phase, RunPhase::Interrupted);
        assert!(matches!(other.take_over("r", now).await, Ok(TakenOver::Now(_))));
        assert_eq!(seen(&one).await.pass, 2);
        assert_eq!(other.rows("r").end(an_end(RunOutcome::Partial)).await, Ok(true));
        assert_eq!(seen(&one).await.outcome, Some(RunOutcome::Partial));
        assert_eq!(other.rows("r").notice_done(0).await, Ok(true));
        assert_eq!(one.notices().await.expect("the store answers").len(), 1);
        let plan = CopyPlan { parent: "r".into(), anew: Vec::new(), held: false };
        assert_eq!(one.copy_for_retry(plan, new_run("again", "nightly")).await, Ok(Copied::Now(1)));
        assert_eq!(other.rows("again").tally(0).await.expect("the store answers").counts.ok, 1);
        other.begin(new_run("left", "nightly")).await.expect("the store answers");
        other.rows("left").release().await.expect("the store answers");
        assert_eq!(one.interrupt("left", an_end(RunOutcome::Interrupted)).await, Ok(true));
        assert_eq!(other.unfinished(None).await.expect("the store answers").len(), 1);
    });
}

#[test]
fn only_the_user_can_look_into_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let below = dir.path().join("a/state");
    let (store, remarks) = Sqlite::durable(&options(&below)).expect("it opens");
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(&below), 0o700);
    for path in files(&below).keys() {
        assert_eq!(mode(path), 0o600, "{}", path.display());
    }
    assert!(!remarks.iter().any(|remark| remark.contains("chmod")), "{remarks:?}");
    block_on(store.close());
    fs::set_permissions(&below, fs::Permissions::from_mode(0o755)).expect("it is done");
    let remarks = Sqlite::durable(&options(&below)).expect("it opens").1;
    assert!(remarks.iter().any(|remark| remark.contains("chmod 700")), "{remarks:?}");
}

#[test]
fn epochs_leave_nothing_behind() {
    let dir = tempfile::tempdir().expect("a folder");
    for _ in 0..20 {
        block_on(durable(dir.path()).close());
    }
    assert_eq!(fs::read_dir(dir.path().join("epochs")).expect("a folder").count(), 0);
    let _store = durable(dir.path());
    let raw = Connection::open(dir.path().join("state.db")).expect("it opens");
    let epochs: (i64, i64) = raw
        .query_row("SELECT count(*), max(id) FROM epoch", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .expect("SQLite does it");
    assert_eq!(epochs, (1, 21), "a number is never used again");
}

/// Changes the bytes of a file.
type Spoil<'a> = &'a dyn Fn(&mut Vec<u8>);

/// Damage of every kind is told and changes nothing; the operator's word sets it aside, and nothing is lost then either.
#[test]
fn a_file_that_cannot_be_used_is_refused_by_name_and_set_aside_on_demand() {
    let spoil: [(&str, Spoil<'_>, &str); 6] = [
        ("empty", &|bytes| bytes.clear(), "it has 0 bytes"),
        ("cut", &|bytes| bytes.truncate(50), "it has 50 bytes"),
        ("foreign", &|bytes| bytes[68] = 0, "no state of lamplighter"),
        ("garbage", &|bytes| bytes.fill(0x5a), "no state of lamplighter"),
        ("newer", &|bytes| bytes[60..64].copy_from_slice(&7_u32.to_be_bytes()), "format 7"),
        ("short", &|bytes| bytes.truncate(3 * 4096), "state.db"),
    ];
    for (name, spoil, expected) in spoil {
        let dir = tempfile::tempdir().expect("a folder");
        one_run(dir.path());
        let file = dir.path().join("state.db");
        let mut bytes = fs::read(&file).expect("it is read");
        spoil(&mut bytes);
        fs::write(&file, &bytes).expect("it is done");
        let error = refused(dir.path());
        assert!(!matches!(error, StateError::Io(_)), "{name}: {error}");
        let text = error.to_string();
        assert!(text.contains(expected) && text.contains("--accept-new-state"), "{name}: {text}");
        assert!(text.contains(&*file.to_string_lossy()), "{name}: {text}");
        assert_eq!(fs::read(&file).expect("it is read"), bytes, "{name}: nothing was changed");
        let (store, remarks) =
            Sqlite::durable(&StateOptions { accept_new: true, ..options(dir.path()) }).expect("it opens");
        let kind = if name == "newer" { "newer" } else { "corrupt" };
        let aside = format!("state.db.{kind}-20231114T221320Z");
        assert!(remarks.iter().any(|remark| remark.contains(&aside)), "{name}: {remarks:?}");
        assert_eq!(fs::read(dir.path().join(&aside)).expect("it is read"), bytes, "{name}");
        assert_eq!(
            block_on(State::new(Arc::new(store)).history(None, None, 9)).expect("the store answers"),
            [],
            "{name}"
        );
    }
}

/// A flipped byte is found when the process before did not end by itself, wherever it is.
#[test]
fn after_an_unclean_end_the_whole_file_is_looked_through() {
    let dir = tempfile::tempdir().expect("a folder");
    one_run(dir.path());
    let file = dir.path().join("state.db");
    let raw = Connection::open(&file).expect("it opens");
    let root: i64 = raw
        .query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'item'", [], |row| row.get(0))
        .expect("SQLite does it");
    raw.execute("UPDATE epoch SET is_over = 0", []).expect("SQLite does it");
    drop(raw);
    let mut bytes = fs::read(&file).expect("it is read");
    let page = usize::try_from(root - 1).expect("a page") * 4096;
    bytes[page..page + 8].fill(0xff);
    fs::write(&file, &bytes).expect("it is done");
    let error = refused(dir.path());
    assert!(matches!(error, StateError::Unusable { .. }), "{error}");
    assert_eq!(fs::read(&file).expect("it is read"), bytes, "nothing was changed");
}

#[test]
fn a_state_whose_file_is_gone_and_whose_log_is_there_does_not_begin_anew() {
    let dir = tempfile::tempdir().expect("a folder");
    one_run(dir.path());
    fs::rename(dir.path().join("state.db"), dir.path().join("elsewhere")).expect("it is done");
    fs::write(dir.path().join("state.db-wal"), "log").expect("it is done");
    assert!(refused(dir.path()).to_string().contains("it is gone"));
}

#[test]
fn a_file_that_others_work_with_is_not_set_aside() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = durable(dir.path());
    let file = dir.path().join("state.db");
    let bytes = fs::read(&file).expect("it is read");
    fs::write(&file, "damaged").expect("it is done");
    let accept = StateOptions { accept_new: true, ..options(dir.path()) };
    assert!(matches!(Sqlite::durable(&accept), Err(StateError::InUse { .. })));
    fs::write(&file, bytes).expect("it is done");
    drop(store);
}

#[test]
fn what_a_power_cut_left_of_a_file_in_the_making_is_in_nobodys_way() {
    let dir = tempfile::tempdir().expect("a folder");
    for name in ["state.db.new", "state.db.new-journal", "state.db.new-wal", "state.db-shm"] {
        fs::write(dir.path().join(name), "half").expect("it is done");
    }
    one_run(dir.path());
    assert!(!files(dir.path()).keys().any(|path| path.to_string_lossy().contains("new")));
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let error = refused(Path::new("/proc/lamplighter/state"));
    assert!(matches!(&error, StateError::Io(cause) if cause.contains("/proc/lamplighter/state")), "{error}");
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("file");
    fs::write(&file, "").expect("it is done");
    assert!(matches!(refused(&file), StateError::Io(_)));
}

/// An error of the disk is not tried again: nothing is acknowledged any more, and what was committed is there.
#[test]
fn a_disk_without_room_ends_the_store_and_loses_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = Arc::new(Sqlite::durable_of(&options(dir.path()), |connection| {
        connection.query_row("PRAGMA max_page_count = 80", [], |_| Ok(())).expect("SQLite does it");
    }));
    let state = State::new(store.clone());
    let mut acknowledged = 0;
    let error = block_on(async {
        state.begin(new_run("r", "nightly")).await.expect("the store answers");
        let rows = state.rows("r");
        loop {
            assert!(acknowledged < 1000, "it grows past its limit");
            let put = rows.put(ok(0, acknowledged, vec![json!("x".repeat(4000))])).await;
            match put.and(rows.flush().await) {
                Ok(()) => acknowledged += 1,
                Err(error) => break error,
            }
        }
    });
    assert!(matches!(&error, StoreError::Io(cause) if cause.contains("no room")), "{error}");
    block_on(async {
        assert_eq!(state.rows("r").tally(0).await, Err(error.clone()), "nor are questions answered");
        assert_eq!(state.rows("r").end(an_end(RunOutcome::Succeeded)).await, Err(error));
        store.close().await;
        let state = State::new(Arc::new(durable(dir.path())));
        assert_eq!(state.rows("r").tally(0).await.expect("the store answers").counts.ok, acknowledged);
        let now = Clocks { wall_ms: 3000, boot_ms: 200 };
        assert!(matches!(state.take_over("r", now).await, Ok(TakenOver::Now(_))));
    });
}

#[test]
fn a_wait_goes_on_by_the_wall_clock_when_the_machine_was_started_anew() {
    let dir = tempfile::tempdir().expect("a folder");
    let wait = |at_ms| RowEnd::Retry { at_ms, deadline_ms: Some(at_ms / 2) };
    let memory = Memory::new(ROOM);
    let now = Clocks { wall_ms: 242_000, boot_ms: 50 };
    let after = |state: State| {
        block_on(async {
            assert!(matches!(state.take_over("r", now).await, Ok(TakenOver::Now(_))));
            let rows = state.rows("r").deferred(0, None, 9).await.expect("the store answers");
            rows.into_iter().map(|row| row.end).collect::<Vec<_>>()
        })
    };
    let before = |state: State| {
        block_on(async {
            state.begin(new_run("r", "nightly")).await.expect("the store answers");
            let rows = [100, 600_100, u64::MAX].into_iter().zip(0..);
            let rows = rows.map(|(at, ordinal)| Row { end: wait(at), ..ok(0, ordinal, Vec::new()) });
            state.rows("r").put_all(rows.collect()).await.expect("the store answers");
            state.rows("r").release().await.expect("the store answers");
        });
    };
    let store = Arc::new(durable(dir.path()));
    before(State::new(store.clone()));
    block_on(store.close());
    let raw = Connection::open(dir.path().join("state.db")).expect("it opens");
    raw.execute("UPDATE epoch SET boot = 'another'", []).expect("SQLite does it");
    drop(raw);
    let in_file = after(State::new(Arc::new(durable(dir.path()))));
    let first = Arc::new(memory);
    before(State::new(first.clone()));
    let in_memory = after(State::new(Arc::new(first.restart("another"))));
    assert_eq!(in_file, in_memory);
    assert_eq!(in_file[..2], [0, 360_050].map(|at_ms| RowEnd::Retry { at_ms, deadline_ms: None }));
}

#[test]
fn what_is_forgotten_stands_in_no_file_any_more() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = Arc::new(durable(dir.path()));
    let state = State::new(store.clone());
    let key = Key::parse("patient-0815").expect("a key");
    let holds = |word: &str| {
        files(dir.path()).values().any(|bytes| bytes.windows(word.len()).any(|window| window == word.as_bytes()))
    };
    block_on(async {
        state.begin(new_run("r", "nightly")).await.expect("the store answers");
        let rows = state.rows("r");
        rows.claim_key(0, &key, &Lineage::listed(0, 0)).await.expect("the store answers");
        rows.put(Row { key: key.clone(), ..ok(0, 0, vec![json!("pulse-of-0815")]) }).await.expect("the store answers");
        let event = RunEvent { wall_ms: 0, level: 3, stage: None, key: Some(key.clone()), text: "said-of-0815".into() };
        rows.add_events(vec![event]).await.expect("the store answers");
        state.keep("r", "nightly", &key, 1, json!("baseline-of-0815")).await.expect("the store answers");
        rows.end(an_end(RunOutcome::Succeeded)).await.expect("the store answers");
        assert!(holds("0815") && holds("pulse-of"));
        state.forget_key(&key).await.expect("the store answers");
        for word in ["patient-0815", "pulse-of", "said-of", "baseline-of"] {
            assert!(!holds(word), "{word}");
        }
        store.close().await;
    });
}

/// A year of nights: the file stops growing when retention begins to take as much as comes.
#[test]
fn the_file_is_bounded_over_a_year_of_nights() {
    const DAY: i64 = 86_400_000;
    let dir = tempfile::tempdir().expect("a folder");
    // A year of syncs takes long and changes no size.
    let store = Arc::new(Sqlite::durable_of(&options(dir.path()), |connection| {
        connection.execute_batch("PRAGMA synchronous = OFF").expect("SQLite does it");
    }));
    let state = State::new(store.clone());
    let size = || fs::metadata(dir.path().join("state.db")).expect("it is there").len();
    let mut sizes = Vec::new();
    for night in 0..365 {
        let now_ms = night * DAY;
        block_on(async {
            let run = format!("night-{night}");
            let new = NewRun { due_ms: now_ms, ..new_run(&run, "nightly") };
            state.begin(new).await.expect("the store answers");
            let rows = state.rows(&run);
            let patients =
                (0..40).map(|patient| ok(0, patient, vec![json!("v".repeat(100 + (night as usize * 7) % 200))]));
            rows.put_all(patients.collect()).await.expect("the store answers");
            let said = RunEvent { wall_ms: now_ms, level: 3, stage: None, key: None, text: "x".repeat(200) };
            rows.add_events(vec![said; 10]).await.expect("the store answers");
            for patient in 0..5 {
                state
                    .keep(&run, "nightly", &Key::ordinal(patient), now_ms, json!([1, 2, 3]))
                    .await
                    .expect("the store answers");
            }
            rows.end(RunEnd { ended_ms: now_ms, notices: Vec::new(), ..an_end(RunOutcome::Succeeded) })
                .await
                .expect("the store answers");
            let keep = Retention { max_runs: 100, max_age_ms: 30 * DAY as u64, max_bytes: 64 << 20, now_ms };
            while state.retain(keep).await.expect("the store answers").more {}
        });
        sizes.push(size());
    }
    let early = *sizes[35..100].iter().max().expect("there is one");
    let late = *sizes[100..].iter().max().expect("there is one");
    assert!(late <= early + early / 4, "it grew from {early} to {late} bytes");
    assert!(late < 2 << 20, "{late} bytes");
    let log = fs::metadata(dir.path().join("state.db-wal")).expect("it is there").len();
    assert!(log <= 4 << 20, "{log} bytes of log");
    let bounded = Retention { max_runs: 100, max_age_ms: u64::MAX, max_bytes: 300_000, now_ms: 0 };
    block_on(async {
        while state.retain(bounded).await.expect("the store answers").more {}
        let heads = state.history(None, None, 99).await.expect("the store answers");
        assert!(heads.len() == 31 && heads[0].has_rows && !heads[30].has_rows, "rows go, oldest first; heads stay");
        store.close().await;
    });
    assert!(size() <= 320_000, "free pages are given back: {}", size());
}

#[test]
fn a_step_of_retention_looks_at_some_jobs_and_the_next_one_goes_on() {
    const JOBS: usize = 3 * RETAIN_JOBS;
    let dir = tempfile::tempdir().expect("a folder");
    let store = Arc::new(durable(dir.path()));
    let state = State::new(store.clone());
    let keep = Retention { max_runs: 1, max_age_ms: u64::MAX, max_bytes: u64::MAX, now_ms: 0 };
    block_on(async {
        let of = |job: usize, due: i64| FiringRow {
            job: format!("job-{job:04}"),
            ..firing(&format!("due {due}"), due, FiringEnd::Skipped)
        };
        let too_many = 2 * i64::from(RETAIN_FIRINGS) + i64::from(FIRINGS_KEPT_MAX);
        state.consider(Vec::new(), (0..JOBS).map(|job| of(job, 0)).collect()).await.expect("the store answers");
        state
            .consider(Vec::new(), (1..too_many).map(|due| of(JOBS - 1, due)).collect())
            .await
            .expect("the store answers");
        for job in 0..JOBS {
            for run in 0..if job % RETAIN_JOBS == RETAIN_JOBS - 1 { 2 } else { 1 } {
                let run = format!("r{job}-{run}");
                state
                    .begin(NewRun { fire_key: None, ..new_run(&run, &format!("job-{job:04}")) })
                    .await
                    .expect("the store answers");
                state
                    .rows(&run)
                    .end(RunEnd { notices: Vec::new(), ..an_end(RunOutcome::Succeeded) })
                    .await
                    .expect("the store answers");
            }
        }
        let (mut steps, mut runs, mut idle) = (0, 0, 0);
        loop {
            let left = state.past_firings(None, None, usize::MAX >> 1).await.expect("the store answers").len();
            let retained = state.retain(keep).await.expect("the store answers");
            let gone = left - state.past_firings(None, None, usize::MAX >> 1).await.expect("the store answers").len();
            assert!(gone <= RETAIN_FIRINGS as usize && retained.runs <= 1);
            (steps, runs) = (steps + 1, runs + retained.runs);
            idle += u32::from(gone == 0 && retained.runs == 0 && retained.more);
            if !retained.more {
                break;
            }
        }
        assert_eq!(
            state.past_firings(Some("job-0191"), None, 9999).await.expect("the store answers").len(),
            FIRINGS_KEPT_MAX as usize
        );
        assert_eq!(runs, 3, "of each job one stays");
        assert!(idle >= 4 && steps < 30, "{steps} steps, {idle} of them only looked");
        store.close().await;
    });
}

#[test]
fn the_tables_themselves_refuse_to_settle_a_run_once_more() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = Arc::new(durable(dir.path()));
    block_on(async {
        let state = State::new(store.clone());
        state.begin(new_run("r", "nightly")).await.expect("the store answers");
        assert_eq!(state.rows("r").end(an_end(RunOutcome::Partial)).await, Ok(true));
        store.close().await;
    });
    let raw = Connection::open(dir.path().join("state.db")).expect("it opens");
    for change in ["phase = 0", "outcome = 'succeeded'", "ended_ms = 1"] {
        let error = raw.execute(&format!("UPDATE head SET {change}"), []).unwrap_err();
        assert!(error.to_string().contains("settled once more"), "{change}: {error}");
    }
}

#[test]
fn a_restart_of_a_losing_memory_loses_what_no_commit_followed() {
    let first = Arc::new(Memory::losing(ROOM));
    let state = State::new(first.clone());
    let count = |state: &State| {
        block_on(state.rows("r").row_heads(RowQuery { limit: 9, ..RowQuery::default() }))
            .expect("the store answers")
            .len()
    };
    block_on(async {
        state.begin(new_run("r", "nightly")).await.expect("the store answers");
        state.rows("r").put(ok(0, 0, Vec::new())).await.expect("the store answers");
        state.rows("r").flush().await.expect("the store answers");
        state.rows("r").put(ok(0, 1, Vec::new())).await.expect("the store answers");
        assert_eq!(count(&state), 2);
        let next = State::new(Arc::new(first.restart("")));
        assert_eq!(state.rows("r").flush().await, Err(StoreError::Closed), "the dead process is told");
        assert_eq!(count(&next), 1);
        assert!(!next.unfinished(None).await.expect("the store answers")[0].alive);
        next.rows("r").put(ok(0, 1, Vec::new())).await.expect("the store answers");
        assert_eq!(count(&next), 2);
    });
}

/// Poison ends up alone and is quarantined; a night that gets on between power cuts is not.
#[test]
fn crashes_without_progress_are_poison() {
    let mut store = Arc::new(Memory::losing(ROOM));
    block_on(async {
        State::new(store.clone()).begin(new_run("r", "nightly")).await.expect("the store answers");
        State::new(store.clone()).begin(new_run("busy", "nightly")).await.expect("the store answers");
        for crash in 1..=3_u32 {
            State::new(store.clone())
                .rows("busy")
                .put(ok(0, crash.into(), Vec::new()))
                .await
                .expect("the store answers");
            State::new(store.clone()).rows("busy").flush().await.expect("the store answers");
            store = Arc::new(store.restart(""));
            let now = Clocks { wall_ms: i64::from(crash) * 1000, boot_ms: 0 };
            for (run, poison) in [("r", crash == 3), ("busy", false)] {
                let Ok(TakenOver::Now(resume)) = State::new(store.clone()).take_over(run, now).await else { panic!() };
                assert_eq!((resume.is_poison, resume.details.head.crashes), (poison, crash), "{run}");
            }
        }
        let rows = State::new(store.clone()).rows("r");
        assert_eq!(rows.end(an_end(RunOutcome::Quarantined)).await, Ok(true));
        let held = Row { end: RowEnd::Done(Outcome::Held), ..ok(0, 0, Vec::new()) };
        assert_eq!(State::new(store).rows("busy").put(held).await, Ok(()));
    });
}
