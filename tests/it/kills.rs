//! SIGKILL at random moments, on the program itself, against a vendor and children that remember what was done: nothing is
//! lost, nothing is kept twice, and what is on the disk is not done again.
//!
//! `LAMPLIGHTER_SEED=7 cargo test --test it -- kills` draws other moments. A seed fixes what is drawn, not how fast the
//! machine is: a failure is met again by running its seed some times.

#![allow(clippy::disallowed_methods, reason = "the program is another process, killed in real time")]

use super::{
    left::nothing_of,
    seeds::asked_for,
    util::{Done, Going, Place, Sim, get},
};
use jiff::{ToSpan, civil::Date};
use lamplighter::{
    item::Value,
    limits::{BATCH_ROWS, CRASHES_MAX, CRASHES_WITHOUT_PROGRESS_MAX},
};
use rusqlite::{Connection, OpenFlags, OptionalExtension};
use rustix::process::Signal;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    process::Command,
    thread,
    time::{Duration, Instant},
};

/// What an item does to the world outside.
enum Effect {
    /// A POST to a vendor that counts how often each idempotency key came.
    Post(Sim),
    /// A child that writes its keys into a file beside the outputs.
    Child,
}

/// Nights of one job, killed again and again.
struct Lane {
    name: &'static str,
    place: Place,
    effect: Effect,
    items: usize,
    workers: usize,
    /// Kills that are to land in a run.
    wanted: usize,
}

/// What a run says as it goes on.
const BEGUN: &str = "INFO  run ";
const LISTED: &str = " stage=list ";
const WORKED: &str = " stage=work ";
const REPORTED: &str = " stage=report ";
const ENDED: &str = "INFO  run ended";

/// Where a run was when it was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    /// Before it was begun or taken over.
    Start,
    Listing,
    Working,
    Reporting,
    Settling,
    /// Its end was on the disk.
    Leaving,
}

/// What a lane has seen.
#[derive(Default)]
struct Seen {
    kills: BTreeMap<Moment, usize>,
    /// Signals that came when the program had ended.
    late: usize,
    nights: usize,
    repeated: u64,
    /// Most effects that were done and not on the disk at a kill.
    most_open: usize,
    /// Kills that found a part of the work on the disk.
    partly: usize,
}

/// What the disk says of the last run.
struct Stored {
    run: String,
    has_ended: bool,
    crashes: u32,
    /// Crashes without progress.
    counted: usize,
    made_progress: bool,
    /// The listing has ended.
    is_listed: bool,
    /// Keys of the worker stage that have a row that is the last word.
    done: BTreeSet<String>,
}

fn job(source: &str, work: &str, workers: usize) -> String {
    format!(
        r#"Job(
            deadline: "10m",
            params: {{ "vendor": "http://127.0.0.1:1" }},
            services: [Service(name: "vendor", base: "{{{{ params.vendor }}}}", auth: Bearer("{{{{ secret.vendor_token }}}}"))],
            stages: [
                Stage(name: "list", key: "{{{{ item.id }}}}", run: [{source}]),
                Stage(name: "work", workers: {workers}, run: [{work}]),
                Stage(name: "report", gather: All, run: [
                    Jq(filter: "[items]"),
                    Write(json: "{{{{ run.date }}}}/report.json"),
                ]),
            ],
        )"#
    )
}

fn vendor(name: &'static str, items: usize, workers: usize, time_scale: &str, wanted: usize) -> Lane {
    let source = r#"Http(via: "vendor", get: "/v1/patients", query: {"limit": "50"},
        pages: Cursor(items: ".data", next: ".next_cursor", param: "cursor"))"#;
    let work = r#"Jq(filter: "{patient: .id, date: $run.date}"), Http(via: "vendor", post: "/v1/acks", body: Json, into: "ack"),
        Jq(filter: "{patient: .patient, key: .ack.key}")"#;
    let place = Place::with_job("night", &job(source, work, workers));
    let sim = Sim::start(items as u32, &["--faults", "off", "--time-scale", time_scale]);
    Lane { name, place, effect: Effect::Post(sim), items, workers, wanted }
}

fn children(name: &'static str, items: usize, workers: usize, wanted: usize) -> Lane {
    let source = format!(r#"Jq(filter: "range({items}) | {{id: \"P\\(.)\"}}")"#);
    let work = r#"Exec(
            sh: "echo \"$LAMPLIGHTER_KEY $LAMPLIGHTER_IDEMPOTENCY_KEY\" >> ../log-$DATE; echo \"\\\"$LAMPLIGHTER_IDEMPOTENCY_KEY\\\"\"",
            env: {"DATE": "{{ run.date }}"}, stdout: Json, into: "key",
        ), Jq(filter: "{patient: .id, key}")"#;
    let place = Place::with_job("night", &job(&source, work, workers));
    Lane { name, place, effect: Effect::Child, items, workers, wanted }
}

impl Lane {
    fn command(&self, arguments: &[&str]) -> Command {
        let all = [&["run", "night", "--state", "state", "--format", "json"], arguments].concat();
        let mut command = self.place.command(&all);
        command.env("LAMPLIGHTER_SECRET_VENDOR_TOKEN", "demo-token");
        command
    }

    /// A night from its first pass, or the next pass of one that was killed.
    fn start(&self, night: Date, goes_on: bool) -> Going {
        if goes_on {
            return Going::start(&mut self.command(&["--resume"]));
        }
        let (due, mut set) = (night.to_string(), String::new());
        let mut arguments = vec!["--due", &due];
        if let Effect::Post(sim) = &self.effect {
            set.push_str(&sim.set());
            arguments.extend(["--set", &set]);
        }
        Going::start(&mut self.command(&arguments))
    }

    /// How often each item was done: by item, with its idempotency key, which must be one.
    fn done(&self, night: Date) -> BTreeMap<String, (String, u64)> {
        let mut done = BTreeMap::new();
        let mut note = |item: &str, key: &str, times: u64| {
            let (first, sum) = done.entry(item.to_owned()).or_insert_with(|| (key.to_owned(), 0));
            assert_eq!(first, key, "{item} was done under two idempotency keys");
            *sum += times;
        };
        match &self.effect {
            Effect::Post(sim) => {
                let (status, body) = get(&format!("{}/_sim/acks?date={night}", sim.base), "");
                assert_eq!(status, 200, "{body}");
                let log: BTreeMap<String, Value> = serde_json::from_str(&body).expect("what was acknowledged");
                for (key, what) in &log {
                    note(what["patient"].as_str().expect("an id"), key, what["times"].as_u64().expect("a number"));
                }
            }
            Effect::Child => {
                let log = fs::read_to_string(self.place.path(&format!("log-{night}"))).unwrap_or_default();
                for line in log.lines() {
                    let (item, key) = line.split_once(' ').expect("two words");
                    note(item, key, 1);
                }
            }
        }
        done
    }

    /// The items in the order in which they were done, where that is known.
    fn order(&self, night: Date) -> Vec<String> {
        match &self.effect {
            Effect::Post(_) => Vec::new(),
            Effect::Child => {
                let log = fs::read_to_string(self.place.path(&format!("log-{night}"))).unwrap_or_default();
                log.lines().filter_map(|line| Some(line.split_once(' ')?.0.to_owned())).collect()
            }
        }
    }

    /// What is on the disk of the last run, as nobody works on it. Asked without a write, so that the next pass finds what
    /// the kill left.
    fn stored(&self) -> Option<Stored> {
        let file = self.place.path("state/state.db");
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let state = file.exists().then(|| Connection::open_with_flags(&file, flags).expect("the state"))?;
        let head = "SELECT r.id, r.name, h.phase = 2, h.crashes, h.counted, h.progress > h.progress_at_crash,
            EXISTS(SELECT 1 FROM stage s WHERE s.run = r.id AND s.place = 0 AND s.listed = 1)
            FROM head h JOIN run r ON r.id = h.run ORDER BY r.id DESC LIMIT 1";
        let (id, mut stored) = state
            .query_row(head, [], |row| {
                let counted: String = row.get(4)?;
                let stored = Stored {
                    run: row.get(1)?,
                    has_ended: row.get(2)?,
                    crashes: row.get(3)?,
                    counted: counted.split(' ').filter(|at| at.parse::<i64>().is_ok()).count(),
                    made_progress: row.get(5)?,
                    is_listed: row.get(6)?,
                    done: BTreeSet::new(),
                };
                Ok((row.get::<_, i64>(0)?, stored))
            })
            .optional()
            .expect("the last run")?;
        let mut keys =
            state.prepare("SELECT key FROM item WHERE run = ?1 AND stage = 1 AND state >= 0").expect("its rows");
        let keys = keys.query_map([id], |row| row.get(0)).expect("their keys");
        stored.done = keys.collect::<Result<_, _>>().expect("texts");
        Some(stored)
    }

    /// Kills passes of a night until it may not be killed any more, then lets it come to its end, and looks at it all.
    /// `takes` is about how long a whole night takes; it learns from what comes too late.
    fn night(&self, night: Date, dice: &mut fastrand::Rng, takes: &mut Duration, seen: &mut Seen) {
        // What was on the disk at a kill, and how often it had been done.
        let mut settled: BTreeMap<String, u64> = BTreeMap::new();
        let (mut effects, mut seen_before) = (0, 0);
        // What kills may make happen once more: at how many of them each item was open, and what was on its way at any of them.
        let (mut open_at, mut on_its_way) = (BTreeMap::<String, u64>::new(), 0);
        let last = self.stored().map(|stored| stored.run);
        let of_tonight = || self.stored().filter(|stored| Some(&stored.run) != last.as_ref());
        let ended = loop {
            let stored = of_tonight();
            if stored.as_ref().is_some_and(|stored| stored.has_ended) {
                break None;
            }
            let mut going = self.start(night, stored.is_some());
            if !may_be_killed(stored.as_ref()) || self.has_enough(seen) {
                break Some(going.end().exits(0));
            }
            let left = stored.map_or(self.items, |stored| self.items - stored.done.len());
            wait_for_the_moment(&mut going, dice, takes.mul_f64(0.1 + 0.9 * left as f64 / self.items as f64));
            going.signal(Signal::KILL);
            let done = going.end();
            if done.code != 1000 + 9 {
                seen.late += 1;
                *takes = takes.mul_f64(0.9);
                break Some(done.exits(0));
            }
            *takes = takes.mul_f64(1.02);
            let (stored, times) = (of_tonight(), self.done(night));
            let before = std::mem::replace(&mut effects, times.values().map(|(_, times)| times).sum());
            *seen.kills.entry(moment(&done, stored.as_ref(), effects > before)).or_default() += 1;
            let Some(stored) = stored else { continue };
            let open = || times.keys().filter(|item| !stored.done.contains(*item));
            open().for_each(|item| *open_at.entry(item.clone()).or_default() += 1);
            let open = open().count();
            assert!(open <= self.workers + 2 * BATCH_ROWS, "{open} items were done and are not on the disk");
            seen.most_open = seen.most_open.max(open);
            seen.partly += usize::from(!stored.done.is_empty() && stored.done.len() < self.items);
            // What was asked for when it was killed may be done a moment later, once for each worker.
            on_its_way += self.workers as u64;
            // Rows are committed in the order in which items were done, but for those that the workers have in their hands now,
            // and what the pass before had in its own.
            let order = self.order(night);
            let of_this_pass = &order[seen_before..];
            let last_stored = of_this_pass.iter().rposition(|item| stored.done.contains(item)).unwrap_or(0);
            let left_behind = of_this_pass[..last_stored].iter().filter(|item| !stored.done.contains(*item)).count();
            assert!(left_behind <= 2 * self.workers, "{left_behind} items are not on the disk, and later ones are");
            seen_before = order.len();
            for item in &stored.done {
                let (_, times) = times.get(item).unwrap_or_else(|| panic!("{item} is on the disk, and was never done"));
                settled.entry(item.clone()).or_insert(*times);
            }
        };
        self.is_whole(night, &settled, seen);
        let beyond = |(item, (_, times)): (&String, &(String, u64))| {
            (times - 1).saturating_sub(open_at.get(item).copied().unwrap_or(0))
        };
        let beyond: u64 = self.done(night).iter().map(beyond).sum();
        assert!(beyond <= on_its_way, "{beyond} effects were repeated of items that were not open at a kill");
        if let Some(ended) = ended {
            let record = ended.json();
            assert_eq!((&record["outcome"], &record["stages"][1]["ok"]), (&"succeeded".into(), &self.items.into()));
        }
    }

    /// The night has come to its end: nothing is lost, nothing is there twice, nothing is left.
    fn is_whole(&self, night: Date, settled: &BTreeMap<String, u64>, seen: &mut Seen) {
        let done = self.done(night);
        assert_eq!(done.len(), self.items, "each was done");
        for (item, times) in settled {
            assert_eq!(done[item].1, *times, "{item} was on the disk and was done once more");
        }
        seen.repeated += done.values().map(|(_, times)| times - 1).sum::<u64>();
        let report = self.place.read(&format!("out/{night}/report.json"));
        let report: Vec<BTreeMap<String, String>> = serde_json::from_str(&report).expect("a whole report");
        let reported: BTreeMap<_, _> = report.iter().map(|row| (&row["patient"], &row["key"])).collect();
        assert_eq!((report.len(), reported.len()), (self.items, self.items), "each once");
        assert_eq!(reported, done.iter().map(|(item, (key, _))| (item, key)).collect());
        let stored = self.stored().expect("a run");
        assert!(stored.has_ended && stored.done.len() == self.items);
        let state = Connection::open(self.place.path("state/state.db")).expect("the state");
        let rows = "SELECT stage, count(*), count(DISTINCT key), sum(state <> 0) FROM item
            WHERE run = (SELECT max(id) FROM run) GROUP BY stage ORDER BY stage";
        let mut rows = state.prepare(rows).expect("its rows");
        let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))).expect("rows");
        let rows: Vec<(u32, u32, u32, u32)> = rows.collect::<Result<_, _>>().expect("numbers");
        let all = self.items as u32;
        assert_eq!(rows, [(0, all, all, 0), (1, all, all, 0), (2, 1, 1, 0)], "each has one row, and is ok");
        let check: String = state.query_row("PRAGMA quick_check", [], |row| row.get(0)).expect("an answer");
        assert_eq!(check, "ok");
        nothing_of(self.place.path("").as_path(), Some(&stored.run));
        seen.nights += 1;
    }

    /// Nights until enough kills have landed in a run.
    fn go(&self, seed: u64) -> Seen {
        let (mut dice, mut seen) = (fastrand::Rng::with_seed(seed), Seen::default());
        let first = jiff::civil::date(2026, 1, 1);
        // The first is left in peace, to know how long one takes.
        let began = Instant::now();
        self.start(first, false).end().exits(0);
        let mut takes = began.elapsed();
        self.is_whole(first, &BTreeMap::new(), &mut seen);
        assert_eq!(seen.repeated, 0);
        for night in first.series(1.day()).skip(1) {
            if self.has_enough(&seen) {
                break;
            }
            let night_passed = catch_unwind(AssertUnwindSafe(|| self.night(night, &mut dice, &mut takes, &mut seen)));
            if let Err(panic) = night_passed {
                eprintln!("{}: the night of {night} failed: LAMPLIGHTER_SEED={seed}", self.name);
                resume_unwind(panic);
            }
        }
        seen
    }

    fn has_enough(&self, seen: &Seen) -> bool {
        seen.landed() >= self.wanted
    }
}

impl Seen {
    /// Kills that interrupted a run: it had begun, and its end was not on the disk.
    fn landed(&self) -> usize {
        LANDED.iter().map(|moment| self.kills.get(moment).unwrap_or(&0)).sum()
    }
}

const LANDED: [Moment; 4] = [Moment::Listing, Moment::Working, Moment::Reporting, Moment::Settling];

/// By what it had said, what is on the disk, and whether something was done in this pass.
fn moment(done: &Done, stored: Option<&Stored>, has_worked: bool) -> Moment {
    let says = |text: &str| done.stderr.contains(text);
    match stored {
        Some(stored) if stored.has_ended || says(ENDED) => Moment::Leaving,
        Some(_) if says(REPORTED) => Moment::Settling,
        Some(_) if says(WORKED) => Moment::Reporting,
        Some(stored) if says(LISTED) || has_worked || (stored.is_listed && says(BEGUN)) => Moment::Working,
        Some(_) if says(BEGUN) => Moment::Listing,
        _ => Moment::Start,
    }
}

/// One more crash does not quarantine the run, wherever it comes.
fn may_be_killed(stored: Option<&Stored>) -> bool {
    stored.is_none_or(|stored| {
        // The last kill is counted when the run is taken over.
        let crashes = stored.crashes + 1;
        let counted = stored.counted + usize::from(!stored.made_progress);
        crashes + 1 < CRASHES_MAX && counted + 1 < CRASHES_WITHOUT_PROGRESS_MAX
    })
}

/// Waits for a random part of the time that a pass takes; or until the run has come so far, and a random moment longer.
fn wait_for_the_moment(going: &mut Going, dice: &mut fastrand::Rng, takes: Duration) {
    let (says, longer) = match dice.usize(0..10) {
        0..2 => return thread::sleep(takes.mul_f64(dice.f64())),
        2..7 => (BEGUN, takes.mul_f64(0.8)),
        7 => (LISTED, Duration::from_millis(2)),
        8 => (WORKED, Duration::from_millis(2)),
        _ => (REPORTED, Duration::from_micros(300)),
    };
    going.until_it_says(says);
    thread::sleep(longer.mul_f64(dice.f64()));
}

#[test]
fn five_hundred_kills_lose_nothing_and_repeat_only_what_was_not_on_the_disk() {
    let seed = asked_for().unwrap_or(18);
    let lanes = [
        vendor("slow vendor", 200, 4, "0.1", 160),
        vendor("one worker", 1100, 1, "0", 100),
        vendor("fast vendor", 1200, 16, "0", 50),
        children("children", 120, 4, 190),
    ];
    let seen: Vec<Seen> = thread::scope(|scope| {
        let going: Vec<_> = lanes.iter().map(|lane| scope.spawn(|| lane.go(seed))).collect();
        going.into_iter().map(|lane| lane.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    });
    // What can be open at a kill is less than the items of its night.
    let is_bounded = |lane: &Lane| lane.items > lane.workers + 2 * BATCH_ROWS;
    for (lane, seen) in lanes.iter().zip(&seen) {
        let Seen { kills, late, nights, repeated, most_open, partly } = seen;
        let landed = seen.landed();
        println!(
            "{}: {landed} kills in {nights} nights of {} items: {kills:?}, {late} too late; {repeated} effects repeated, at \
             most {most_open} were done and not on the disk; {partly} found a part of the work there",
            lane.name, lane.items
        );
        assert!(*repeated > 0, "no kill came between an effect and its commit");
        // Less than a batch may be on the disk all at once.
        assert!(
            *partly > 0 || !is_bounded(lane),
            "{}: no kill found a part of the work on the disk: nothing is committed before the end",
            lane.name
        );
    }
    let bounded = lanes.iter().filter(|lane| is_bounded(lane));
    assert!(bounded.count() >= 2, "what can be open at a kill is more than all items of a night");
    for moment in LANDED {
        assert!(seen.iter().any(|seen| seen.kills.contains_key(&moment)), "no kill came when it was {moment:?}");
    }
    assert!(seen.iter().map(Seen::landed).sum::<usize>() >= 500);
}
