//! What `serve` costs while nothing is due (N7, N8), to start (N9), and how late it begins what is due (N12).
//!
//! Each variant is a program of its own over jobs in the target folder, seen from outside: `/proc/PID/smaps_rollup` for its memory,
//! `voluntary_ctxt_switches` of all its threads for its wake-ups, the job's own clock for its lateness. Processor time is that of its
//! whole life, to its end by TERM.
//!
//! `cargo bench --bench daemon`

mod common;

use common::{Bench, Table};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_lamplighter");
/// How long wake-ups are counted.
const WATCHED: u64 = 60;
/// Whole seconds at which the job of the lateness is due.
const FIRINGS: usize = 60;

fn main() -> ExitCode {
    Bench::new("daemon")
        .table(idle("idle100", "N7: a hundred jobs of which none is due", 100))
        .table(idle("idle10000", "N8: ten thousand jobs of which none is due", 10_000))
        .table(
            Table::new("start", "N9: from the start to READY=1, and to the end by TERM; new state", 1, "start")
                .rounds(5)
                .own("0 jobs", || cold(0, false))
                .own("100 jobs", || cold(100, false))
                .own("10,000 jobs", || cold(10_000, false))
                .own("10,000 jobs, state there", || cold(10_000, true))
                .note("ready ms is wall time; CPU s is that of the whole life."),
        )
        .table(late("late", "N12: a job that is due each second, on an idle machine", 0))
        .table(late("latebusy", "N12: the same with a busy loop for each core", cores()))
        .main()
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn idle(name: &str, title: &str, jobs: usize) -> Table {
    let title = format!("{title}; {WATCHED} s");
    let table = Table::new(name, &title, jobs as u64, "job").rounds(1);
    let table = table.own("lamplighter serve", move || {
        // Of a program that was just linked the pages are not on the disk yet, and count as changed by who runs it.
        let _ = fs::File::open(PROGRAM).and_then(|file| file.sync_all());
        let dir = jobs_folder("idle", jobs, r#"Cron("0 3 29 2 *")"#, ":");
        watch(serve(&dir));
    });
    let peers = PEERS.iter().fold(table, |table, peer| {
        peer.beside(table, move |command, dir| {
            peer.write(dir, &vec![("0 3 29 2 *", ":"); jobs]);
            watch(start(command, dir));
        })
    });
    peers.note("KiB of the settled process: private pages, and PSS, which counts its part of file pages too.")
}

fn late(name: &str, title: &str, busy: usize) -> Table {
    let table = Table::new(name, &format!("{title}; {FIRINGS} firings"), FIRINGS as u64, "firing").rounds(1);
    let table = table.own("lamplighter serve", move || {
        let dir = jobs_folder("late", 1, r#"Cron("* * * * * *")"#, "date +%s%N >> ../when");
        lateness(|| serve(&dir), &dir.join("when"), busy);
    });
    let table = table.own("a thread that sleeps and starts the shell", move || {
        let dir = scratch("bare");
        lateness(|| bare(&dir), &dir.join("when"), busy);
    });
    let peers = PEERS.iter().filter(|peer| peer.seconds.is_some()).fold(table, |table, peer| {
        peer.beside(table, move |command, dir| {
            peer.write(dir, &[("* * * * *", "date +%s%N >> when")]);
            lateness(|| start(command, dir), &dir.join("when"), busy);
        })
    });
    peers.note("ms from the whole second to the job's own `date`: the start of a shell and of `date` is in it, and for us that the")
        .note("firing and the beginning of its run are on the disk first. Nobody keeps anything of the thread, which shows the rest.")
}

/// A scheduler beside us, over a crontab.
struct Peer {
    name: &'static str,
    /// Its command, or why it is missing.
    find: fn() -> Result<Vec<String>, String>,
    /// The file that it reads, in the folder in which it is started.
    crontab: &'static str,
    /// What stands before and behind the five fields of a line: it knows seconds.
    seconds: Option<(&'static str, &'static str, &'static str)>,
}

const PEERS: [Peer; 4] = [
    Peer {
        name: "busybox crond",
        find: || {
            let install = "apt-get install busybox-static";
            let found = common::program("busybox", &["crond", "-f", "-L", "/dev/null", "-c", "TABS"], install)?;
            // Not every build has every applet.
            let listed = Command::new("busybox").arg("--list").output().map_err(|error| error.to_string())?;
            let has_crond = String::from_utf8_lossy(&listed.stdout).lines().any(|applet| applet == "crond");
            has_crond.then_some(found).ok_or_else(|| format!("the `busybox` here has no `crond`: {install}"))
        },
        crontab: "tabs/root",
        seconds: None,
    },
    Peer {
        name: "robfig/cron (Go)",
        find: || common::go("daemon", &["crontab"]),
        crontab: "crontab",
        // Of a minute of all seconds; of one that is due at its beginning; behind the fields.
        seconds: Some(("* ", "0 ", "")),
    },
    Peer {
        name: "supercronic",
        find: || {
            let install = "go install github.com/aptible/supercronic@latest, and its folder in PATH";
            common::program("supercronic", &["crontab"], install)
        },
        crontab: "crontab",
        seconds: Some(("* ", "0 ", " *")),
    },
    Peer {
        name: "tokio-cron-scheduler",
        find: || common::crate_of("tokio-cron-scheduler", &["crontab"]),
        crontab: "crontab",
        seconds: Some(("* ", "0 ", "")),
    },
];

impl Peer {
    /// Its row, or that it is missing.
    fn beside(&'static self, table: Table, work: impl Fn(&mut Command, &Path) + 'static) -> Table {
        match (self.find)() {
            Ok(parts) => table.own(self.name, move || {
                let dir = scratch("peer");
                let tabs = dir.join("tabs").display().to_string();
                let args = parts[1..].iter().map(|part| if part == "TABS" { &tabs } else { part });
                work(Command::new(&parts[0]).args(args), &dir);
            }),
            Err(why) => table.peer(self.name, Err(why)),
        }
    }

    /// Writes its crontab: five fields and a command each.
    fn write(&self, dir: &Path, lines: &[(&str, &str)]) {
        let line = |(times, command): &(&str, &str)| match self.seconds {
            Some((each, _, behind)) if *times == "* * * * *" => format!("{each}{times}{behind} {command}\n"),
            Some((_, first, behind)) => format!("{first}{times}{behind} {command}\n"),
            None => format!("{times} {command}\n"),
        };
        fs::create_dir_all(dir.join("tabs")).expect("a folder");
        fs::write(dir.join(self.crontab), lines.iter().map(line).collect::<String>()).expect("a crontab");
    }
}

fn scratch(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-daemon").join(name);
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).expect("a folder");
    dir
}

/// A folder with so many jobs.
fn jobs_folder(name: &str, jobs: usize, schedule: &str, script: &str) -> PathBuf {
    let dir = scratch(name);
    fs::create_dir_all(dir.join("jobs")).and_then(|()| fs::create_dir_all(dir.join("out"))).expect("folders");
    fs::write(dir.join("lamplighter.ron"), "Config(clock: Trusted)").expect("the configuration");
    for job in 0..jobs {
        let text = format!(
            r#"Job(schedule: {schedule}, deadline: "5m", stages: [Stage(name: "work", run: [Exec(sh: "{script}")])])"#
        );
        fs::write(dir.join(format!("jobs/job{job:05}.ron")), text).expect("a job");
    }
    dir
}

fn start(command: &mut Command, dir: &Path) -> Child {
    command
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts")
}

fn serve(dir: &Path) -> Child {
    start(Command::new(PROGRAM).args(["--state", "state", "serve"]), dir)
}

/// What any scheduler costs at least: each second a shell is started. The child stands for a program that is watched.
#[expect(clippy::disallowed_methods, reason = "it is measured beside the program, without anything of it")]
fn bare(dir: &Path) -> Child {
    let folder = dir.to_owned();
    std::thread::spawn(move || {
        for _ in 0..FIRINGS + 2 {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock that is set");
            nap(Duration::from_secs(1) - Duration::from_nanos(now.subsec_nanos().into()));
            let _ = start(Command::new("sh").args(["-c", "date +%s%N >> when"]), &folder).wait();
        }
    });
    start(Command::new("sleep").arg("600"), dir)
}

fn stop(mut child: Child) {
    lives(&mut child);
    kill_process(Pid::from_child(&child), Signal::TERM).expect("a signal");
    let _ = child.wait();
}

/// What has ended costs nothing, and would be the best of all.
fn lives(child: &mut Child) {
    let ended = child.try_wait().expect("it is watched");
    assert!(ended.is_none(), "it ended by itself while it was measured: {ended:?}");
}

#[expect(clippy::disallowed_methods, reason = "a bench measures real time")]
fn nap(time: Duration) {
    std::thread::sleep(time);
}

/// How often threads of a process went to sleep.
fn naps(pid: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads.map(|thread| kib(&thread.path().join("status"), "voluntary_ctxt_switches:")).sum()
}

/// The first number behind a name in a file of `/proc`.
fn kib(path: &Path, name: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Waits until it is quiet, then counts.
fn watch(mut child: Child) {
    let pid = child.id();
    let mut before = u64::MAX;
    // Two equal readings in a row, or a minute: who never sleeps is measured as it is.
    for _ in 0..30 {
        nap(Duration::from_secs(2));
        lives(&mut child);
        let now = naps(pid);
        if now == before {
            break;
        }
        before = now;
    }
    let before = naps(pid);
    nap(Duration::from_secs(WATCHED));
    let woken = naps(pid).saturating_sub(before);
    let rollup = PathBuf::from(format!("/proc/{pid}/smaps_rollup"));
    let private = kib(&rollup, "Private_Dirty:") + kib(&rollup, "Private_Clean:");
    common::figure("dirty KiB", kib(&rollup, "Private_Dirty:") as f64);
    common::figure("private KiB", private as f64);
    common::figure("PSS KiB", kib(&rollup, "Pss:") as f64);
    common::figure("wake-ups/min", woken as f64 * 60.0 / WATCHED as f64);
    stop(child);
}

fn cold(jobs: usize, is_there: bool) {
    let dir = jobs_folder("cold", jobs, r#"Cron("0 3 29 2 *")"#, ":");
    let life = || {
        let path = dir.join("notify");
        let _ = fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).expect("a socket");
        let begun = common::now();
        let mut command = Command::new(PROGRAM);
        let child = start(command.args(["--state", "state", "serve"]).env("NOTIFY_SOCKET", &path), &dir);
        let mut room = [0; 4096];
        while !socket.recv(&mut room).is_ok_and(|length| room.starts_with(b"READY=1") && length >= 7) {}
        let ready = common::seconds_since(begun) * 1e3;
        stop(child);
        ready
    };
    if is_there {
        life();
    }
    common::begin();
    common::figure("ready ms", life());
    common::end();
}

/// Busy loops of the machine, which end with this.
struct Busy(Vec<Child>);

impl Drop for Busy {
    fn drop(&mut self) {
        for busy in &mut self.0 {
            let _ = busy.kill();
            let _ = busy.wait();
        }
    }
}

/// `begin` starts a program that writes the time into `file` each second.
fn lateness(begin: impl FnOnce() -> Child, file: &Path, busy: usize) {
    let shell = || Command::new("sh").args(["-c", "while :; do :; done"]).spawn().expect("a shell");
    let busy = Busy((0..busy).map(|_| shell()).collect());
    common::begin();
    let mut child = begin();
    let lines = || fs::read_to_string(file).unwrap_or_default().lines().count();
    for _ in 0..3 * FIRINGS {
        nap(Duration::from_secs(1));
        lives(&mut child);
        if lines() >= FIRINGS {
            break;
        }
    }
    stop(child);
    common::end();
    drop(busy);
    assert!(lines() >= FIRINGS, "it fired {} times in {} seconds", lines(), 3 * FIRINGS);
    let text = fs::read_to_string(file).unwrap_or_default();
    let mut late: Vec<f64> =
        text.lines().filter_map(|line| line.parse::<u64>().ok()).map(|ns| (ns % 1_000_000_000) as f64 / 1e6).collect();
    late.sort_by(f64::total_cmp);
    let at = |share: usize| late.get((late.len() * share / 100).min(late.len().saturating_sub(1))).copied();
    common::figure("p50 ms", at(50).unwrap_or(f64::NAN));
    common::figure("p99 ms", at(99).unwrap_or(f64::NAN));
}
