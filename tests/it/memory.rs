//! Memory does not grow with the number of items: the program's peak is read while it works on more than fits. And the
//! night of a gateway fits into [`SMALL_BYTES`].

use crate::{
    hostile::bench::MemoryGroup,
    util::{PROGRAM, Place, finish},
};
use std::{
    fmt::Write as _,
    fs,
    io::Read as _,
    process::{Command, Stdio},
    time::Duration,
};

/// What a small gateway has to spare for the program, vendor and run together.
const SMALL_BYTES: u64 = 32 << 20;

/// Peak of resident memory that a run may have, in KiB. An idle debug build has about 20,000.
const PEAK_KIB_MAX: u64 = 60_000;

/// Runs a job, watching its memory; gives what it wrote.
fn run_small(job: &str, files: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let jobs = folder.path().join("jobs");
    fs::create_dir(&jobs).expect("the job folder");
    fs::write(jobs.join("big.ron"), job).expect("the job file");
    for (name, text) in files {
        fs::write(jobs.join(name), text).expect("an input file");
    }
    let mut child = Command::new(env!("CARGO_BIN_EXE_lamplighter"))
        .args(["run", "big"])
        .current_dir(folder.path())
        .env("XDG_STATE_HOME", folder.path().join("state"))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    let end = loop {
        // The peak is a high-water mark: looking now and then misses nothing but what came after the last look.
        if let Ok(text) = fs::read_to_string(&status)
            && let Some(line) = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))
        {
            peak = peak.max(line.trim().trim_end_matches(" kB").parse().unwrap_or(0));
        }
        match child.try_wait().expect("the child can be waited for") {
            Some(end) => break end,
            None => wait_a_moment(),
        }
    };
    let mut stderr = String::new();
    let _ = child.stderr.take().expect("piped").read_to_string(&mut stderr);
    assert!(end.success(), "{end}: {stderr}");
    assert!(peak > 0, "the memory of the program was seen");
    assert!(peak < PEAK_KIB_MAX, "{peak} KiB at the peak");
    fs::read_to_string(folder.path().join("out/sum.json")).expect("what it wrote")
}

#[expect(clippy::disallowed_methods, reason = "another process is watched, in real time")]
fn wait_a_moment() {
    std::thread::sleep(Duration::from_millis(10));
}

#[test]
fn a_gather_sees_all_items_without_holding_them() {
    // Held at once, these take twice of what it may.
    let job = r##"Job(stages: [
        Stage(name: "list", key: "{{ item.id }}", run: [
            Jq(filter: r#"range(60000) | {id: tostring, v: (. % 97), text: "some text that takes a bit of room"}"#),
        ]),
        Stage(name: "all", gather: All, run: [
            Jq(filter: "reduce items as $i ({n: 0, sum: 0}; .n += 1 | .sum += $i.v)"),
            Write(json: "sum.json"),
        ]),
    ])"##;
    let sum = run_small(job, &[]);
    assert_eq!(sum, "{\n  \"n\": 60000,\n  \"sum\": 2878839\n}\n");
}

#[test]
fn a_large_file_is_read_row_by_row() {
    let mut csv = "patient,time,hr,text\n".to_owned();
    for n in 0..100_000 {
        let _ = writeln!(
            csv,
            "P{n:07},2026-11-22T00:00:00Z,60,\"a text that stands in every row, and makes it long enough: {n}\""
        );
    }
    let job = r#"Job(stages: [
        Stage(name: "rows", run: [Read(csv: "rows.csv")]),
        Stage(name: "all", gather: All, run: [Jq(filter: "{n: counts.rows.items}"), Write(json: "sum.json")]),
    ])"#;
    assert_eq!(run_small(job, &[("rows.csv", &csv)]), "{\n  \"n\": 100000\n}\n");
}

/// A night of nightly-vitals with everything in one process, under a limit that the shell sets first: the vendor and its
/// faults, retries, pages, jq, the report.
const NIGHT: &str = "demo --patients 200 --time-scale 0";

/// Needs more memory than any limit here, and so shows that a limit holds.
const HOG: &str = "head -c 100000000 /dev/zero | tail -c 100000000 >/dev/null";

fn shell(place: &Place, script: &str) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", script]).current_dir(place.path("")).stdin(Stdio::null());
    shell
}

/// Runs the night without a limit and under one: both end alike and write the same bytes.
fn a_night_fits(limit: &str) {
    let (free, small) = (Place::new(), Place::new());
    let expected = finish(&mut shell(&free, &format!("exec {PROGRAM} {NIGHT}")));
    assert!([0, 3].contains(&expected.code), "{expected:?}");
    finish(&mut shell(&small, &format!("{limit} && exec {PROGRAM} {NIGHT}"))).exits(expected.code);
    assert_eq!(free.files(), small.files());
    for file in free.files() {
        assert!(free.read(&file) == small.read(&file), "{file} is another one under `{limit}`");
    }
}

/// What needs more ends badly under the limit: it is in force.
fn it_holds(limit: &str) {
    assert_ne!(finish(&mut shell(&Place::new(), &format!("{limit} && {HOG}"))).code, 0, "`{limit}` does not hold");
}

#[test]
fn a_night_fits_into_a_cgroup_of_32_mib() {
    let Some(group) = MemoryGroup::new("night", SMALL_BYTES) else { return };
    a_night_fits(&group.enter());
    println!("peak of the cgroup, what it holds of the page cache included: {:?} bytes", group.peak());
    it_holds(&group.enter());
}

#[test]
fn a_night_fits_into_64_mib_of_data_with_the_stacks_of_all_its_threads() {
    // Counts what is reserved, and so the stacks of the pools, of which hardly anything is ever used. Needs no rights.
    a_night_fits("ulimit -d 65536");
    it_holds("ulimit -d 65536");
}

#[test]
fn rows_of_a_database_wait_outside_of_memory() {
    let job = r#"Job(stages: [
        Stage(name: "rows", run: [Sql(db: "empty.db", query: "
            WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000)
            SELECT i, hex(zeroblob(250)) AS text FROM n")]),
        Stage(name: "all", gather: All, run: [Jq(filter: "{n: counts.rows.items}"), Write(json: "sum.json")]),
    ])"#;
    assert_eq!(run_small(job, &[("empty.db", "")]), "{\n  \"n\": 200000\n}\n");
}
