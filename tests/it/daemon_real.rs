//! `lamplighter serve` as it is: the real program, as process 1, beside a service manager, without a reader of its log, asleep,
//! under a storm of edits, on a disk that is full.

#![allow(clippy::disallowed_methods, reason = "the program is another process, watched in real time")]

use super::{
    hostile::bench::{Tmpfs, skip, there_is, with_no_word_of_the_clock},
    util::{Done, Going, PROGRAM, Place, finish, until},
};
use rusqlite::{Connection, OpenFlags};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{Read, Write},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram, UnixStream},
    },
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Where a clock that nobody doubts is said to be right.
const TRUSTED: &str = r#"Config(clock: Trusted, catch_up_delay: "0s")"#;

/// A place with a trusted clock and these jobs.
fn place(jobs: &[(&str, &str)]) -> Place {
    let place = Place::new();
    place.write("lamplighter.ron", TRUSTED);
    fs::create_dir_all(place.path("jobs")).expect("a folder");
    for (name, text) in jobs {
        place.write(&format!("jobs/{name}.ron"), text);
    }
    place
}

/// Something that runs and is ended with the test.
struct Served(Child);

impl Served {
    fn pid(&self) -> Pid {
        Pid::from_child(&self.0)
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("a signal is sent");
    }

    /// Stops it; its exit code.
    #[track_caller]
    fn stop(mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        let mut code = None;
        until("the end of `serve`", || {
            code = self.0.try_wait().expect("it is waited for").map(|status| status.code());
            code.is_some()
        });
        code.flatten()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `(pid, state)` of the children of a process.
fn children(parent: u32) -> Vec<(u32, String)> {
    let stats = fs::read_dir("/proc").expect("/proc").flatten().filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let mut words = stat.rsplit_once(") ")?.1.split(' ').map(str::to_owned);
        let (state, of) = (words.next()?, words.next()?);
        (of.parse() == Ok(parent)).then_some((pid, state))
    });
    stats.collect()
}

/// What the state says, in one number.
fn number(place: &Place, question: &str) -> i64 {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let answer = Connection::open_with_flags(place.state().join("state.db"), flags)
        .and_then(|db| db.query_row(question, [], |row| row.get(0)));
    // Not made yet, or just being written.
    answer.unwrap_or(-1)
}

const SUCCEEDED: &str = "SELECT count(*) FROM head WHERE outcome = 'succeeded'";

/// Faults 36 and 47: process 1 of a namespace inherits a thousand orphans that end at once while five hundred short children of
/// a run do. It reaps the orphans, and takes no status of a child away from the run.
#[test]
fn as_process_one_it_leaves_no_zombie_and_loses_no_status() {
    let namespace = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"];
    if !Command::new(namespace[0]).args(&namespace[1..]).arg("true").status().is_ok_and(|status| status.success()) {
        return skip("process 1 of a namespace needs `unshare` and a kernel that lets users have namespaces");
    }
    let orphans = r#"Job(schedule: OnBoot("0s"), stages: [Stage(name: "s", run: [Exec(sh: "
        for n in $(seq 1000); do
            (env -u LAMPLIGHTER_RUN setsid sh -c ': < ../gate' > /dev/null 2>&1 < /dev/null &)
        done")])])"#;
    let storm = r#"Job(schedule: Every("1s"), deadline: "5m", stages: [
        Stage(name: "list", run: [Jq(filter: "range(500)")]),
        Stage(name: "work", workers: 500, run: [Exec(argv: ["true"])])])"#;
    let place = place(&[("orphans", orphans)]);
    fs::create_dir_all(place.path("out")).expect("a folder");
    let gate = place.path("gate");
    let made = Command::new("mkfifo").arg(&gate).status();
    assert!(made.expect("mkfifo").success());
    let serve = place.command(&["serve"]);
    let mut command = Command::new(namespace[0]);
    command.args(&namespace[1..]).arg(PROGRAM).arg("serve").current_dir(place.path("")).env_clear();
    command.envs(serve.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let outer = Served(command.stderr(Stdio::null()).spawn().expect("unshare"));
    let mut serve = 0;
    until("process 1", || {
        serve = children(outer.0.id()).first().map_or(0, |(pid, _)| *pid);
        serve != 0 && number(&place, SUCCEEDED) == 1
    });
    let count = |state: &str| children(serve).iter().filter(|(_, of)| of == state).count();
    // A shell that may not fork for a moment goes on with the next one.
    until("a thousand orphans", || count("S") >= 900);
    place.write("jobs/storm.ron", storm);
    until("a run of the storm", || number(&place, "SELECT count(*) FROM head WHERE job = 'storm'") >= 1);
    // All of them end.
    let gate = File::options().read(true).write(true).open(&gate).expect("the gate");
    until("runs of the storm", || number(&place, SUCCEEDED) >= 3);
    fs::remove_file(place.path("jobs/storm.ron")).expect("the storm is over");
    until("that no orphan is left, alive or dead", || children(serve).is_empty());
    drop(gate);
    assert_eq!(number(&place, "SELECT count(*) FROM head WHERE outcome <> 'succeeded'"), 0, "a status was lost");
    kill_process(Pid::from_raw(serve.cast_signed()).expect("a process"), Signal::TERM).expect("a signal is sent");
    let mut outer = outer;
    assert_eq!(outer.0.wait().expect("it is waited for").code(), Some(0));
}

/// The protocol of systemd, with a socket of the test in place of systemd.
#[test]
fn a_service_manager_is_told_of_the_start_the_life_and_the_stop() {
    for is_abstract in [true, false] {
        let place =
            place(&[("idle", r#"Job(schedule: OnBoot("0s"), stages: [Stage(name: "s", run: [Log(message: "x")])])"#)]);
        let name = format!("{}/notify", place.path("").display());
        let (address, name) = match is_abstract {
            true => (SocketAddr::from_abstract_name(&name), format!("@{name}")),
            false => (SocketAddr::from_pathname(&name), name),
        };
        let socket = UnixDatagram::bind_addr(&address.expect("an address")).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        let hear = || {
            let mut room = [0; 4096];
            let length = socket.recv(&mut room).expect("news");
            String::from_utf8_lossy(&room[..length]).into_owned()
        };
        let mut command = place.command(&["serve"]);
        command.env("NOTIFY_SOCKET", &name).env("WATCHDOG_USEC", "300000").stderr(Stdio::null());
        let serve = Served(command.spawn().expect("it starts"));
        let (mut heard, mut fed) = (Vec::new(), 0);
        // It is fed from the start, so that a recovery that hangs is noticed as well.
        while fed < 4 || !heard.iter().any(|news: &String| news.starts_with("STATUS=")) {
            match hear() {
                news if news == "WATCHDOG=1" => fed += 1,
                news => heard.push(news),
            }
        }
        assert!(heard.contains(&"READY=1".to_owned()), "{heard:?}");
        let status = heard.iter().find(|news| news.starts_with("STATUS=")).expect("a status");
        assert!(status.starts_with("STATUS=1 jobs"), "{status}");
        // Who is stopped feeds nothing: systemd would start it anew.
        serve.signal(Signal::STOP);
        let state = || fs::read_to_string(format!("/proc/{}/stat", serve.0.id())).unwrap_or_default();
        until("that it is stopped", || state().rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')));
        socket.set_read_timeout(Some(Duration::from_millis(900))).expect("a timeout");
        while socket.recv(&mut [0; 4096]).is_ok() {}
        assert!(socket.recv(&mut [0; 4096]).is_err(), "three periods of the watchdog");
        serve.signal(Signal::CONT);
        socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        while hear() != "WATCHDOG=1" {}
        serve.signal(Signal::TERM);
        while hear() != "STOPPING=1" {}
        assert_eq!(serve.stop(), Some(0));
    }
}

/// What the service manager hears comes from the loop that starts jobs: when that stands, here because another process does not
/// let go of the state, the rest of the program goes on and nothing is fed.
#[test]
fn a_loop_that_stands_feeds_no_watchdog_though_the_rest_goes_on() {
    let beat = r#"Job(schedule: Every("1s"), stages: [Stage(name: "s", run: [Log(message: "x")])])"#;
    let place = place(&[("beat", beat)]);
    let name = place.path("notify");
    let socket = UnixDatagram::bind(&name).expect("a socket");
    let hears = |within: Duration| {
        let mut room = [0; 4096];
        socket.set_read_timeout(Some(within)).expect("a timeout");
        socket.recv(&mut room).ok().map(|length| room[..length] == *b"WATCHDOG=1")
    };
    let mut command = place.command(&["serve"]);
    command.env("NOTIFY_SOCKET", &name).env("WATCHDOG_USEC", "300000").stderr(Stdio::null());
    let serve = Served(command.spawn().expect("it starts"));
    until("runs", || number(&place, SUCCEEDED) >= 2);
    let turn = File::options().write(true).open(place.state().join("turn.lock")).expect("a lock");
    turn.lock().expect("the turn");
    // The next firing cannot be written down. What was said before is heard first.
    let falls_silent = (0..200).any(|_| hears(Duration::from_millis(900)).is_none());
    assert!(falls_silent, "it is fed by who does not know whether the loop goes round");
    let mut asks = UnixStream::connect(place.state().join("serve.sock")).expect("it listens");
    asks.write_all(b"nonsense\n").expect("it is asked");
    let mut answer = String::new();
    asks.read_to_string(&mut answer).expect("it answers");
    assert!(answer.starts_with("{\"refused\":"), "{answer}");
    assert_eq!(hears(Duration::from_millis(900)), None, "it is fed while the loop stands");
    turn.unlock().expect("the turn is given back");
    until("that it is fed again", || hears(Duration::from_secs(60)) == Some(true));
    assert_eq!(serve.stop(), Some(0));
}

/// Many lines for the log.
const TALKATIVE: &str = r#"Job(schedule: OnBoot("0s"), stages: [
    Stage(name: "list", run: [Jq(filter: "range(4000)")]),
    Stage(name: "talk", run: [Log(message: "{{ item }} WORDS")])])"#;

fn talkative() -> Place {
    place(&[("talkative", &TALKATIVE.replace("WORDS", &"x".repeat(200)))])
}

/// Fault 77: nobody reads the log. Runs go on, lines are dropped and counted, and the end is not waited for.
#[test]
fn a_log_that_nobody_reads_holds_up_nothing_and_what_is_dropped_is_counted() {
    // Never read.
    let place = talkative();
    let mut serve = Served(place.command(&["serve"]).stderr(Stdio::piped()).spawn().expect("it starts"));
    let pipe = serve.0.stderr.take().expect("stderr is piped");
    until("the end of the run", || number(&place, SUCCEEDED) == 1);
    assert_eq!(serve.stop(), Some(0));
    drop(pipe);

    // Read when it was full.
    let place = talkative();
    let mut serve = Served(place.command(&["serve"]).stderr(Stdio::piped()).spawn().expect("it starts"));
    let mut pipe = serve.0.stderr.take().expect("stderr is piped");
    until("the end of the run", || number(&place, SUCCEEDED) == 1);
    let (sender, pieces) = std::sync::mpsc::channel();
    let reader = thread::spawn(move || {
        let mut room = [0; 65536];
        while let Ok(length @ 1..) = pipe.read(&mut room) {
            let _ = sender.send(room[..length].to_vec());
        }
    });
    let mut bytes = Vec::new();
    // The end of the program waits for a reader a moment only: what was dropped is told before.
    until("what was dropped", || {
        bytes.extend(pieces.try_iter().flatten());
        String::from_utf8_lossy(&bytes).contains("lines were dropped")
    });
    assert_eq!(serve.stop(), Some(0));
    reader.join().expect("a reader");
    bytes.extend(pieces.try_iter().flatten());
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let counted = text.lines().find(|line| line.contains("lines were dropped")).expect("a count");
    let dropped = counted.split(' ').find_map(|word| word.parse::<usize>().ok()).expect("a number");
    let written = text.lines().filter(|line| line.contains("xxx")).count();
    assert!(dropped > 0 && written < 4000 && written + dropped >= 4000, "{written} written, {counted}");
    assert!(text.lines().any(|line| line.contains("stopping")), "it goes on behind the gap");
}

/// Fault 77: there is no stderr at all.
#[test]
fn without_a_standard_error_it_serves() {
    let place = talkative();
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" serve 2>&-", PROGRAM]).current_dir(place.path("")).env_clear();
    command.envs(place.command(&[]).get_envs().filter_map(|(name, value)| Some((name, value?))));
    let serve = Served(command.spawn().expect("it starts"));
    until("the end of the run", || number(&place, SUCCEEDED) == 1);
    assert_eq!(serve.stop(), Some(0));
}

/// How often threads of a process have gone to sleep.
fn naps(pid: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("threads").flatten();
    let of = |text: String| {
        let line = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:").map(str::to_owned));
        line.and_then(|count| count.trim().parse::<u64>().ok())
    };
    threads.filter_map(|thread| fs::read_to_string(thread.path().join("status")).ok().and_then(of)).sum()
}

/// A hundred jobs that wait for the next leap day, and nothing else: not one thread wakes up.
#[test]
fn idle_means_asleep() {
    let place = place(&[]);
    for job in 0..100 {
        let text = r#"Job(schedule: Cron("0 3 29 2 *"), deadline: "5m", stages: [Stage(name: "s", run: [Log(message: "x")])])"#;
        place.write(&format!("jobs/job{job}.ron"), text);
    }
    let mut going = Going::start(place.command(&["serve"]).env("LAMPLIGHTER_LOG", "info"));
    going.until_it_says("the wall clock is believed");
    let pid = going.child.id();
    let threads = || fs::read_dir(format!("/proc/{pid}/task")).expect("threads").count();
    // Threads for blocking work end a moment after the start. A daemon that wakes up three times a minute never passes; what
    // it does in longer is measured by the bench `daemon`.
    let mut quiet = false;
    for _ in 0..6 {
        let before = (naps(pid), threads());
        thread::sleep(Duration::from_secs(21));
        quiet = (naps(pid), threads()) == before;
        if quiet {
            break;
        }
    }
    let naps_now = naps(pid);
    going.signal(Signal::TERM);
    going.end().exits(0);
    assert!(quiet, "it wakes up although nothing is due: {naps_now}");
}

/// Fault 19: a thousand renames a second in the job folder, half of them of a file that is no job, while it runs each second.
#[test]
fn a_storm_of_edits_is_one_change_now_and_then_and_the_last_good_version_goes_on() {
    let job = r#"Job(schedule: Every("1s"), stages: [Stage(name: "s", run: [
        Exec(sh: "echo $LAMPLIGHTER_RUN >> ../ran")])])"#;
    let place = place(&[("beat", job)]);
    fs::create_dir_all(place.path("out")).expect("a folder");
    let going = Going::start(place.command(&["serve"]).env("LAMPLIGHTER_LOG", "debug"));
    let ran = || fs::read_to_string(place.path("ran")).unwrap_or_default().lines().count();
    until("a run", || ran() >= 1);
    let (over, began) = (Arc::new(AtomicBool::new(false)), Instant::now());
    let storm = {
        let (over, jobs, aside) = (over.clone(), place.path("jobs"), place.path("aside"));
        let job = job.to_owned();
        thread::spawn(move || {
            let mut renames = 0_u32;
            while !over.load(Ordering::SeqCst) {
                let text = if renames.is_multiple_of(2) { "Job(" } else { job.as_str() };
                fs::write(&aside, text).and_then(|()| fs::rename(&aside, jobs.join("beat.ron"))).expect("a rename");
                renames += 1;
                thread::sleep(Duration::from_millis(1));
            }
            renames
        })
    };
    let before = ran();
    until("runs under the storm", || ran() >= before + 5);
    over.store(true, Ordering::SeqCst);
    let (renames, lasted) = (storm.join().expect("a storm"), began.elapsed());
    place.write("jobs/beat.ron", job);
    let after = ran();
    until("runs behind the storm", || ran() >= after + 4);
    going.signal(Signal::TERM);
    let done = going.end().exits(0);
    let told = done.stderr.lines().filter(|line| line.contains("beat.ron:") || line.contains("job watched"));
    // At most one change each time that the folder can have been quiet for 300 ms.
    let (told, changes) = (told.count() as u128, lasted.as_millis() / 300 + 4);
    assert!(told <= 2 * changes, "{renames} renames in {lasted:?} are not {told} changes");
    let text = place.read("ran");
    let runs: BTreeSet<&str> = text.lines().collect();
    assert_eq!(runs.len(), text.lines().count(), "a run twice");
    let (dues, all) = ("SELECT count(DISTINCT due_ms) FROM head", "SELECT count(*) FROM head");
    assert_eq!(number(&place, dues), number(&place, all), "one due time, two runs");
}

/// Faults 21 to 23, as far as a faked clock goes: the real program, whose wall clock stands in 1970, five years later, two weeks
/// before that. Nothing starts by a clock that cannot be right; what was missed is made up for once, and nothing is repeated.
#[test]
fn a_clock_that_jumps_between_two_lives_repeats_nothing() {
    let program = std::env::var("LAMPLIGHTER_TEST_LIBC_PROGRAM").ok().filter(|_| there_is("faketime"));
    let Some(program) = program else {
        return skip(
            "a faked clock needs `faketime`, and LAMPLIGHTER_TEST_LIBC_PROGRAM: the program built with \
             RUSTFLAGS=\"--cfg rustix_use_libc\", as it asks the kernel for the time without the C library",
        );
    };
    let preload = finish(Command::new("faketime").args(["-f", "+0", "sh", "-c", "echo \"$LD_PRELOAD\""])).stdout;
    let day = r#"Job(schedule: Cron("0 3 * * *"), deadline: "1h", catch_up: Latest, stages: [
        Stage(name: "s", run: [Log(message: "x")])])"#;
    let place = place(&[("day", day)]);
    let succeeded = || number(&place, SUCCEEDED).max(0);
    let ready = place.path("ready");
    let socket = UnixDatagram::bind(&ready).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    // A life that begins then, in which so many runs are expected. (It wakes up at no time: timers of a faked
    // clock are not faked well. What is due is begun before it hears that it shall stop.)
    let life = |config: &str, wall: &str, expected: i64| {
        place.write("lamplighter.ron", config);
        let had = succeeded();
        // The wrapper would stand between the program and its signals.
        let command = place.command(&["serve"]);
        let mut faked = Command::new(&program);
        faked.arg("serve").current_dir(place.path("")).env_clear();
        faked.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        faked
            .env("LD_PRELOAD", preload.trim())
            .env("FAKETIME", format!("@{wall}"))
            .env("TZ", "UTC")
            .env("NOTIFY_SOCKET", &ready);
        faked.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        let Some(mut faked) = with_no_word_of_the_clock(&faked) else { return };
        let serve = Served(faked.stderr(Stdio::null()).spawn().expect("it starts"));
        let mut room = [0; 4096];
        while socket.recv(&mut room).expect("news") < 7 || !room.starts_with(b"READY=1") {}
        until("what is expected", || succeeded() >= had + expected);
        assert_eq!(serve.stop(), Some(0));
        assert_eq!(succeeded(), had + expected, "{wall}");
    };
    // It is watched from noon on.
    life(TRUSTED, "2026-11-24 12:00:00", 0);
    // Nobody believes 1970.
    life("Config()", "1970-01-01 00:00:10", 0);
    // Five years make one run.
    life(TRUSTED, "2031-11-20 12:00:00", 1);
    // Two weeks are not lived twice.
    life(TRUSTED, "2031-11-06 12:00:00", 0);
    let due = number(&place, "SELECT due_ms / 1000 FROM head WHERE job = 'day' AND cause = 'catch_up'");
    assert_eq!(due, 1_952_910_000, "the night of 2031-11-20");
}

/// Fault 16.
#[test]
fn a_second_serve_is_refused_and_told_who_has_the_place() {
    let place = place(&[]);
    let mut going = Going::start(place.command(&["serve"]).env("LAMPLIGHTER_LOG", "info"));
    going.until_it_says("the wall clock is believed");
    let holder = format!("another `serve` (pid {}) has the state", going.child.id());
    place.run(&["serve"]).exits(75).says(&holder);
    // Dead is dead, whatever its file says.
    going.signal(Signal::KILL);
    assert_eq!(going.end().code, 1009);
    let serve = Served(place.command(&["serve"]).stderr(Stdio::null()).spawn().expect("it starts"));
    until("the next one", || {
        fs::read_to_string(place.state().join("serve.lock")).is_ok_and(|pid| pid.trim() == serve.0.id().to_string())
    });
    assert_eq!(serve.stop(), Some(0));
}

/// Fills a file system to the last page.
fn fill(at: &Path) {
    let mut file = File::create(at.join("filler")).expect("a file");
    while file.write_all(&[0; 4096]).is_ok() {}
}

/// Faults 9, 10 and 13: a disk that is full or read-only, at the start and later. It says so and ends with the exit code of
/// `EX_IOERR`; the service manager starts it again, and with room it goes on.
#[test]
fn a_full_or_read_only_disk_ends_it_by_name_and_with_room_it_goes_on() {
    let beat = r#"Job(schedule: Every("1s"), stages: [Stage(name: "s", run: [Log(message: "x")])])"#;
    let place = place(&[("beat", beat)]);
    let folder = place.state();
    let Some(disk) = Tmpfs::mount(&folder, "size=1m") else { return };
    let serve = || -> Done { finish(&mut place.command(&["serve"])) };
    fill(&folder);
    serve().exits(74).says("state");
    fs::remove_file(folder.join("filler")).expect("room");
    disk.remount("ro");
    serve().exits(74).says("state");
    disk.remount("rw");

    let going = Going::start(&mut place.command(&["serve"]));
    until("runs", || number(&place, SUCCEEDED) >= 2);
    fill(&folder);
    going.end().exits(74).says("state");
    fs::remove_file(folder.join("filler")).expect("room");
    let had = number(&place, SUCCEEDED);
    let going = Going::start(&mut place.command(&["serve"]));
    until("runs with room", || number(&place, SUCCEEDED) >= had + 2);
    going.signal(Signal::TERM);
    going.end().exits(0);
}
