//! A state that was damaged, has lost its log, or was left half-way between two formats: it is refused by name or it is
//! whole, and never taken for an empty one.

use super::{
    hostile::bench::{skip, there_is},
    state::{child, fill, fixtures, schema},
    util::Place,
};
use flate2::read::GzDecoder;
use futures_lite::future::block_on;
use lamplighter::store::{
    EventQuery, RowQuery, State, StoreError,
    sqlite::{Sqlite, StateError, StateOptions},
};
use std::{
    fs::{self, File},
    io::Read,
    path::Path,
    process::Command,
    sync::Arc,
};

const PAGE: usize = 4096;

fn options(dir: &Path) -> StateOptions<'_> {
    StateOptions { dir, now_ms: 1_700_000_000_000, instance: "another", accept_new: false }
}

/// Asks for everything; how many runs there are.
fn read_all(store: Sqlite) -> Result<usize, StoreError> {
    let store = Arc::new(store);
    let state = State::new(store.clone());
    block_on(async {
        let heads = state.history(None, None, 99).await?;
        for head in &heads {
            state.details(&head.run).await?;
            let rows = state.rows(&head.run);
            rows.row_heads(RowQuery { limit: 99, ..RowQuery::default() }).await?;
            rows.events(EventQuery { limit: 99, ..EventQuery::default() }).await?;
            rows.outputs(99).await?;
            rows.tally(1).await?;
        }
        state.notices().await?;
        state.unfinished(None).await?;
        store.close().await;
        Ok(heads.len())
    })
}

/// Fault 14a: each page of a file whose last process did not end by itself is damaged, in several ways. It is refused and
/// left as it is, or an answer fails by name, or all its runs are there.
#[test]
fn no_page_can_be_damaged_and_the_state_begin_anew_in_silence() {
    let whole = tempfile::tempdir().expect("a folder");
    fill(whole.path());
    let raw = rusqlite::Connection::open(whole.path().join("state.db")).expect("the state");
    raw.execute("UPDATE epoch SET is_over = 0", []).expect("as after a kill");
    drop(raw);
    let bytes = fs::read(whole.path().join("state.db")).expect("the state");
    type Damage<'a> = (&'a str, &'a dyn Fn(&mut [u8]));
    let damages: [Damage; 4] = [
        ("its head is flipped", &|page| page[..8].iter_mut().for_each(|byte| *byte = !*byte)),
        ("its end is flipped", &|page| page[PAGE - 64..].iter_mut().for_each(|byte| *byte = !*byte)),
        ("it is zeros", &|page| page.fill(0)),
        ("it is garbage", &|page| page.fill(0xa5)),
    ];
    let (mut refused, mut failed, mut read) = (0, 0, 0);
    for page in 0..bytes.len() / PAGE {
        for (how, damage) in damages {
            let dir = tempfile::tempdir().expect("a folder");
            let file = dir.path().join("state.db");
            let mut damaged = bytes.clone();
            damage(&mut damaged[page * PAGE..(page + 1) * PAGE]);
            fs::write(&file, &damaged).expect("written");
            match Sqlite::durable(&options(dir.path())) {
                Err(error @ (StateError::Unusable { .. } | StateError::Newer { .. })) => {
                    assert!(error.to_string().contains("--accept-new-state"), "page {page}, {how}: {error}");
                    assert_eq!(fs::read(&file).expect("the state"), damaged, "page {page}, {how}: nothing was changed");
                    refused += 1;
                }
                Err(error) => panic!("page {page}, {how}: {error}"),
                Ok((store, _)) => match read_all(store) {
                    Ok(runs) => {
                        assert_eq!(runs, 2, "page {page}, {how}");
                        read += 1;
                    }
                    Err(error) => {
                        assert!(error.to_string().contains("state.db"), "page {page}, {how}: {error}");
                        failed += 1;
                    }
                },
            }
            // Who only reads does not look it through, and begins nothing either.
            fs::write(&file, &damaged).expect("written");
            if let Ok(Some((store, _))) = Sqlite::reading(&options(dir.path()))
                && let Ok(runs) = read_all(store)
            {
                assert_eq!(runs, 2, "page {page}, {how}");
            }
        }
    }
    println!("{refused} refused, {failed} failed by name, {read} read");
    assert!(refused > 10 * read.max(failed), "{refused} refused, {failed} failed by name, {read} read");
}

/// The state of a process that was killed, with a log that holds more than the file.
fn killed(dir: &Path) {
    let (mut process, mut said) = child("write", dir);
    said.nth(4).expect("it writes");
    process.0.kill().expect("killed");
    process.0.wait().expect("gone");
}

fn copied(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().expect("a folder");
    fs::create_dir(to.path().join("epochs")).expect("a folder");
    for name in ["state.db", "state.db-wal"] {
        fs::copy(from.join(name), to.path().join(name)).expect("copied");
    }
    for lock in fs::read_dir(from.join("epochs")).expect("locks").flatten() {
        fs::copy(lock.path(), to.path().join("epochs").join(lock.file_name())).expect("copied");
    }
    to
}

/// Fault 14a: the log, in which stands what was committed last, is gone or cut: what lacks a process that had begun is
/// refused.
#[test]
fn a_log_that_is_gone_is_told_and_one_that_is_cut_is_whole_up_to_there() {
    let dir = tempfile::tempdir().expect("a folder");
    fill(dir.path());
    killed(dir.path());
    let log = fs::read(dir.path().join("state.db-wal")).expect("a log");
    let frames = (log.len() - 32) / (PAGE + 24);
    assert!(frames > 3, "{frames} frames");
    let (mut refused, mut whole) = (0, 0);
    for kept in (0..=frames).step_by(frames.div_ceil(12)) {
        let dir = copied(dir.path());
        fs::write(dir.path().join("state.db-wal"), &log[..32 + kept * (PAGE + 24)]).expect("cut");
        match Sqlite::durable(&options(dir.path())) {
            Err(error) => {
                assert!(error.to_string().contains("its log is gone"), "{kept} frames: {error}");
                refused += 1;
            }
            Ok((store, _)) => {
                let runs = read_all(store).unwrap_or_else(|error| panic!("{kept} frames: {error}"));
                assert!(runs >= 2, "{kept} frames");
                whole += 1;
            }
        }
    }
    assert!(refused > 0 && whole > 0, "{refused} refused, {whole} whole");
    let gone = copied(dir.path());
    fs::remove_file(gone.path().join("state.db-wal")).expect("removed");
    for error in [
        Sqlite::durable(&options(gone.path())).map(|_| ()).expect_err("it is told"),
        Sqlite::reading(&options(gone.path())).map(|_| ()).expect_err("it is told"),
    ] {
        assert!(error.to_string().contains("its log is gone, or it is an older copy"), "{error}");
    }
    // It can be set aside, or gone on with.
    let aside = copied(dir.path());
    fs::remove_file(aside.path().join("state.db-wal")).expect("removed");
    let accepted = Sqlite::durable(&StateOptions { accept_new: true, ..options(aside.path()) });
    assert_eq!(read_all(accepted.expect("a new one").0), Ok(0));
    fs::remove_dir_all(gone.path().join("epochs")).expect("removed");
    assert_eq!(read_all(Sqlite::durable(&options(gone.path())).expect("the older one").0), Ok(2));
    // Not even the file is left.
    let nothing = copied(dir.path());
    for name in ["state.db", "state.db-wal"] {
        fs::remove_file(nothing.path().join(name)).expect("removed");
    }
    let error = Sqlite::durable(&options(nothing.path())).map(|_| ()).expect_err("it is told");
    assert!(error.to_string().contains("did not end by itself"), "{error}");
}

/// A state of format 1.
fn older(dir: &Path) {
    let mut bytes = Vec::new();
    let packed = File::open(fixtures().join("format-1.db.gz")).expect("the fixture");
    GzDecoder::new(packed).read_to_end(&mut bytes).expect("gzip");
    fs::create_dir_all(dir).expect("a folder");
    fs::write(dir.join("state.db"), bytes).expect("written");
}

fn format(dir: &Path) -> u32 {
    let raw = rusqlite::Connection::open(dir.join("state.db")).expect("the file");
    raw.query_row("PRAGMA user_version", [], |row| row.get(0)).expect("its format")
}

/// Fault 15: the program is killed at each write while it makes the new format of an old one: it is one or the other.
#[test]
fn a_change_of_the_format_happens_as_a_whole() {
    let place = Place::new();
    let today = place.path("today");
    fill(&today);
    let (old, new) = (place.path("old"), schema(&today));
    older(&old);
    let before = schema(&old);
    assert_ne!(before, new);
    if !there_is("strace") {
        return skip("a kill at each write needs `strace`");
    }
    let (mut kills, mut formats) = (0, Vec::new());
    loop {
        kills += 1;
        let dir = place.path(&format!("state-{kills}"));
        older(&dir);
        let mut command = Command::new("strace");
        let inject = format!("inject=pwrite64:signal=KILL:when={kills}");
        command.args(["-f", "-qq", "-o", "/dev/null", "-e", &inject]).arg(super::util::PROGRAM);
        command.arg("history").arg("--state").arg(&dir).current_dir(place.path(""));
        let done = command.output().expect("strace");
        let found = format(&dir);
        assert_eq!(schema(&dir), if found == 1 { before.clone() } else { new.clone() }, "killed at write {kills}");
        formats.push(found);
        assert_eq!(read_all(Sqlite::durable(&options(&dir)).expect("it opens").0), Ok(2));
        if done.status.success() {
            break;
        }
        assert!(kills < 60, "it writes without an end");
    }
    assert!(formats[0] == 1 && formats.last() == Some(&3) && formats.is_sorted(), "{formats:?}");
}

/// Fault 15: a step that fails changes nothing, and a format that is not known yet is let alone, by every command.
#[test]
fn a_format_that_cannot_be_made_or_is_not_known_is_refused_and_let_alone() {
    let place = Place::with_job("quick", r#"Job(run: [Exec(sh: "echo x >> ../log")])"#);
    let dir = place.path("state");
    older(&dir);
    let raw = rusqlite::Connection::open(dir.join("state.db")).expect("the file");
    raw.execute_batch("DROP INDEX head_firing").expect("spoilt");
    drop(raw);
    let before = schema(&dir);
    place.run(&["run", "quick", "--state", "state"]).exits(74).says("state.db");
    assert_eq!((format(&dir), schema(&dir)), (1, before));
    let raw = rusqlite::Connection::open(dir.join("state.db")).expect("the file");
    raw.execute_batch("PRAGMA user_version = 99; PRAGMA wal_checkpoint(TRUNCATE);").expect("spoilt");
    drop(raw);
    let bytes = fs::read(dir.join("state.db")).expect("the state");
    for command in [
        &["run", "quick"][..],
        &["history"],
        &["show", "quick"],
        &["logs", "quick"],
        &["retry", "quick"],
        &["forget", "--key", "x"],
    ] {
        let refused = place.run(&[command, &["--state", "state"]].concat()).exits(74);
        refused.says("has format 99").says("--accept-new-state");
        assert_eq!(fs::read(dir.join("state.db")).expect("the state"), bytes, "{command:?}");
    }
    assert!(!place.path("log").exists(), "nothing was done");
    place.run(&["run", "quick", "--state", "state", "--accept-new-state"]).exits(0).says("was set aside as");
}
