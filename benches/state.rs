//! What a state costs: bytes written to the disk by a night (N13), the way from a restart to the first item (N14), and the
//! processor time that durability adds to an item.
//!
//! All of it is the program itself with a state in the target folder, which must lie on a disk: on a tmpfs nothing is
//! written. Bytes are `write_bytes` of `/proc/PID/io`: pages that the process made dirty, each time anew after it was synced.
//! What the file system adds for its own journal is not in it.
//!
//! `cargo bench --bench state`

mod common;

use common::{Bench, Table};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    time::Duration,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_lamplighter");
/// Items of a night.
const NIGHT: u64 = 5_000;
/// Items of the comparison of processor time.
const ITEMS: u64 = 50_000;
/// Rows that are in the state when the program starts again.
const ROWS: u64 = 100_000;

/// Each item gives 200 bytes, which a report reads.
const RESULTS: &str = r#"Job(stages: [
    Stage(name: "list", key: "P{{ value }}", run: [Jq(filter: "range(ITEMS)")]),
    Stage(name: "work", workers: 4, run: [Jq(filter: "\"x\" * 198")]),
    Stage(name: "report", gather: All, run: [Jq(filter: "[items] | length")]),
])"#;

/// The same without a report: nobody needs a row but a resume.
const PLAIN: &str = r#"Job(stages: [
    Stage(name: "list", run: [Jq(filter: "range(ITEMS)")]),
    Stage(name: "work", workers: 4, run: [Jq(filter: "\"x\" * 198")]),
])"#;

/// Listed and worked on: only the report is left. Its child never ends; that of the next pass says that it has begun.
const WORKED: &str = r#"Job(stages: [
    Stage(name: "list", run: [Jq(filter: "range(ITEMS)")]),
    Stage(name: "work", workers: 4, run: [Jq(filter: ".")]),
    Stage(name: "report", gather: All, run: [Exec(sh: "test ! -e ../go || touch ../begun; exec sleep 60")]),
])"#;

fn main() -> ExitCode {
    let cpu = |name: &str, title: &str, job: &'static str| {
        Table::new(name, title, ITEMS, "item")
            .rounds(5)
            .own("--no-state", move || run(&place("without", job, ITEMS), &["--no-state"]))
            .own("with a state", move || run(&place("with", job, ITEMS), &[]))
    };
    Bench::new("state")
        .table(
            Table::new("bytes", "a night of 5,000 items with results of 200 bytes, written to disk", NIGHT, "item")
                .own("with a state", || run(&place("night", RESULTS, NIGHT), &[]))
                .own("--no-state", || run(&place("night-without", RESULTS, NIGHT), &["--no-state"]))
                .note("MB written: pages made dirty by the program; without a state the rows of a report stand in a private file."),
        )
        .table(
            Table::new("restart", "from the start of `run --resume` to the first item, 100,000 rows in the state", ROWS, "row")
                .rounds(7)
                .own("50,000 listed and worked on", || restart(&place("worked", WORKED, ROWS / 2)))
                .note("ready ms is wall time from the start of the process; the goal is 500."),
        )
        .table(cpu("plain", "50,000 items that only a resume needs rows of", PLAIN))
        .table(cpu("report", "50,000 items that a report reads", RESULTS))
        .main()
}

fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-state").join(name)
}

/// A new folder with the job in it.
fn place(name: &str, job: &str, items: u64) -> PathBuf {
    let dir = scratch(name);
    let _ = fs::remove_dir_all(&dir);
    let job = job.replace("ITEMS", &items.to_string());
    fs::create_dir_all(dir.join("jobs")).and_then(|()| fs::write(dir.join("jobs/night.ron"), job)).expect("the job");
    dir
}

fn start(dir: &Path, arguments: &[&str]) -> Child {
    let mut command = Command::new(PROGRAM);
    command.args(["--state", "state", "--out", "out", "run", "night"]).args(arguments).current_dir(dir);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts")
}

/// A run to its end, measured as a child; and what it wrote.
fn run(dir: &Path, arguments: &[&str]) {
    let mut child = start(dir, arguments);
    let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    waitid(WaitId::Pid(Pid::from_child(&child)), ended).expect("it is waited for");
    // It is not reaped yet: the kernel still knows.
    let told = fs::read_to_string(format!("/proc/{}/io", child.id())).expect("what it wrote");
    let of = |name: &str| told.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
    assert!(child.wait().expect("it ends").success());
    common::figure("MB written", of("write_bytes:").unwrap_or(f64::NAN) / 1e6);
}

/// Makes a state with so many rows, once, and goes on from a copy of it.
fn restart(dir: &Path) {
    let kept = scratch("kept");
    if !kept.exists() {
        let mut child = start(dir, &[]);
        // The report is begun when all is committed.
        while rows_of(dir) < ROWS {
            assert!(child.try_wait().expect("it is watched").is_none(), "it ended");
            nap(50_000);
        }
        end(&mut child);
        fs::rename(dir, &kept).expect("it is kept");
    }
    // A run goes on where its outputs were.
    let _ = fs::remove_dir_all(dir);
    copy(&kept, dir);
    fs::write(dir.join("go"), "").expect("the sign");
    common::begin();
    let began = common::now();
    let mut child = start(dir, &["--resume"]);
    while !dir.join("begun").exists() {
        assert!(child.try_wait().expect("it is watched").is_none(), "it ended");
        nap(200);
    }
    common::figure("ready ms", common::seconds_since(began) * 1e3);
    end(&mut child);
    common::end();
}

#[expect(clippy::disallowed_methods, reason = "a bench measures real time")]
fn nap(micros: u64) {
    std::thread::sleep(Duration::from_micros(micros));
}

fn rows_of(dir: &Path) -> u64 {
    let count = |db: rusqlite::Connection| db.query_row("SELECT count(*) FROM item", [], |row| row.get::<_, i64>(0));
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let open = rusqlite::Connection::open_with_flags(dir.join("state/state.db"), flags);
    open.and_then(count).map_or(0, i64::unsigned_abs)
}

/// Kills the program; its child is ended by the next one.
fn end(child: &mut Child) {
    kill_process(Pid::from_child(child), Signal::KILL).expect("it is killed");
    let _ = child.wait();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let (path, to) = (entry.as_ref().expect("an entry").path(), to.join(entry.expect("an entry").file_name()));
        if path.is_dir() { copy(&path, &to) } else { assert!(fs::copy(&path, &to).is_ok(), "a file") }
    }
}
