//! What all benches share: variants that run in turn (A B C, A B C, ..), each in a process of its own, and a table of
//! medians with the peer beside us.
//!
//! A bench is a program of its own (`harness = false`, `mod common;`):
//!
//! ```ignore
//! fn main() {
//!     common::Bench::new("pipeline")
//!         .table(
//!             Table::new("cap64", "3 stages x 4 workers, capacity 64", 1_000_000, "item")
//!                 .own("bare", bare)              // the first variant is what the others are compared with
//!                 .own("Lamplighter", lamplighter)
//!                 .peer("Go", go)                 // a command, or why there is none
//!                 .idle(idle),                    // its peak of memory is subtracted from that of the others
//!         )
//!         .main();
//! }
//! ```
//!
//! `cargo bench --bench pipeline` runs all of it; `-- cap64` one table, `-- cap64/Go` one variant beside its first one,
//! `--rounds 5` more rounds, `--list` names them. A variant is run by this same program (`--child TABLE/VARIANT`), a peer
//! by a small one in between (`--exec COMMAND..`), so that processor time and peak of memory are of that variant alone.
//! Processor time and memory are what to compare; wall time is of one's own machine and its load.
#![allow(dead_code, reason = "each bench uses a part of it")]

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

use nix::sys::resource::{UsageWho, getrusage};

/// Marks the lines that a child reports with, on its standard output.
const MARK: &str = "measured";

/// Where the measured part of this process began, when its variant said [`begin`].
static BEGAN: Mutex<Option<Mark>> = Mutex::new(None);
/// Where it ended, when its variant said [`end`].
static ENDED: Mutex<Option<Mark>> = Mutex::new(None);

#[derive(Clone, Copy)]
struct Mark {
    cpu: Duration,
    at: Instant,
}

/// The preparation is over: what comes now is measured. Without it the whole process is, its start included.
pub fn begin() {
    *BEGAN.lock().expect("no panic under it") = Some(mark());
}

/// The measured part is over. Without it all is measured to the end of the variant.
pub fn end() {
    *ENDED.lock().expect("no panic under it") = Some(mark());
}

/// Reports a number of a variant's own beside what is measured of every one; medians of it become a column.
pub fn figure(name: &str, value: f64) {
    println!("{MARK} {} {value}", name.replace(' ', "_"));
}

/// A reading of the clock: a bench measures real time.
#[expect(clippy::disallowed_methods, reason = "a bench measures real time")]
pub fn now() -> Instant {
    Instant::now()
}

/// Seconds since `then`.
pub fn seconds_since(then: Instant) -> f64 {
    now().duration_since(then).as_secs_f64()
}

/// Processor time of this process, all its threads and all children that it has waited for.
pub fn cpu() -> Duration {
    [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN].into_iter().map(cpu_of).sum()
}

fn cpu_of(who: UsageWho) -> Duration {
    let usage = getrusage(who).expect("the kernel counts");
    let of = |time: nix::sys::time::TimeVal| {
        Duration::new(time.tv_sec().unsigned_abs(), u32::try_from(time.tv_usec()).unwrap_or(0) * 1000)
    };
    of(usage.user_time()) + of(usage.system_time())
}

fn mark() -> Mark {
    Mark { cpu: cpu(), at: now() }
}

/// The peak of this process's resident memory so far, in KiB.
pub fn peak_kib() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0.0)
}

/// Whether a program is older than one of its sources, or is not there.
fn is_stale(program: &Path, sources: &[PathBuf]) -> bool {
    let age = |path: &Path| fs::metadata(path).and_then(|of| of.modified()).ok();
    age(program).is_none_or(|built| sources.iter().any(|source| age(source).is_none_or(|written| built < written)))
}

/// The command of a peer that lives beside the benches as Go source: `benches/peers/NAME.go`, built into the target folder when it
/// has changed.
///
/// # Errors
/// Why it is missing, with what to do.
pub fn go(name: &str, args: &[&str]) -> Result<Vec<String>, String> {
    let source = PathBuf::from(format!("{}/benches/peers/{name}.go", env!("CARGO_MANIFEST_DIR")));
    let program = env::current_exe().map_err(|error| error.to_string())?.with_file_name(format!("peer-{name}"));
    if is_stale(&program, std::slice::from_ref(&source)) {
        // Packages of Debian stand there.
        let packages = env::var_os("GOPATH").unwrap_or_else(|| "/usr/share/gocode".into());
        let mut go = Command::new("go");
        go.args(["build", "-o"]).arg(&program).arg(&source).env("GO111MODULE", "off").env("GOPATH", packages);
        let built = go.output();
        match built {
            Err(error) => {
                let packages = "apt-get install golang-go golang-github-robfig-cron-dev";
                return Err(format!("no `go` here ({error}): {packages}"));
            }
            Ok(output) if !output.status.success() => {
                return Err(format!("`go build` failed: {}", String::from_utf8_lossy(&output.stderr).trim()));
            }
            Ok(_) => {}
        }
    }
    let mut command = vec![program.to_string_lossy().into_owned()];
    command.extend(args.iter().map(|arg| (*arg).to_owned()));
    Ok(command)
}

/// The command of a peer that lives beside the benches as a crate of its own: `benches/peers/NAME`, copied into the target folder
/// and built there when it has changed, with what its registry has.
///
/// # Errors
/// Why it is missing.
pub fn crate_of(name: &str, args: &[&str]) -> Result<Vec<String>, String> {
    let source = PathBuf::from(format!("{}/benches/peers/{name}", env!("CARGO_MANIFEST_DIR")));
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("peers").join(name);
    let program = folder.join("target/release/peer");
    let files = ["Cargo.toml", "src/main.rs"];
    if is_stale(&program, &files.map(|file| source.join(file))) {
        let copied = fs::create_dir_all(folder.join("src"))
            .and_then(|()| files.iter().try_for_each(|file| fs::copy(source.join(file), folder.join(file)).map(drop)));
        copied.map_err(|error| error.to_string())?;
        let mut cargo = Command::new(env!("CARGO"));
        let built =
            cargo.args(["build", "--release", "--quiet", "--target-dir", "target"]).current_dir(&folder).output();
        let built = built.map_err(|error| error.to_string())?;
        if !built.status.success() {
            return Err(format!("it cannot be built: {}", String::from_utf8_lossy(&built.stderr).trim()));
        }
    }
    let mut command = vec![program.display().to_string()];
    command.extend(args.iter().map(|arg| (*arg).to_owned()));
    Ok(command)
}

/// The command of a program that may be missing; `install` says how it comes.
///
/// # Errors
/// Why it is missing, with what to do.
pub fn program(name: &str, args: &[&str], install: &str) -> Result<Vec<String>, String> {
    let path = env::var_os("PATH").unwrap_or_default();
    if !env::split_paths(&path).any(|folder| folder.join(name).is_file()) {
        return Err(format!("no `{name}` here: {install}"));
    }
    Ok([name].iter().chain(args).map(|part| (*part).to_owned()).collect())
}

enum Work {
    Own(Box<dyn Fn()>),
    Peer(Vec<String>),
    Missing(String),
}

struct Variant {
    name: String,
    work: Work,
}

/// Variants that do the same work, and how much work that is.
pub struct Table {
    name: String,
    title: String,
    units: u64,
    unit: String,
    rounds: usize,
    variants: Vec<Variant>,
    idle: Option<Variant>,
    beside: Vec<String>,
    notes: Vec<String>,
}

impl Table {
    /// `units` of `unit` are worked on by each variant; costs are shown for one of them.
    pub fn new(name: &str, title: &str, units: u64, unit: &str) -> Table {
        let (name, title, unit) = (name.to_owned(), title.to_owned(), unit.to_owned());
        Table {
            name,
            title,
            units,
            unit,
            rounds: 3,
            variants: Vec::new(),
            idle: None,
            beside: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// How often each variant runs when the command line does not say it.
    pub fn rounds(mut self, rounds: usize) -> Table {
        self.rounds = rounds;
        self
    }

    /// A variant of this program.
    pub fn own(mut self, name: &str, work: impl Fn() + 'static) -> Table {
        self.variants.push(Variant { name: name.to_owned(), work: Work::Own(Box::new(work)) });
        self
    }

    /// Another program, or why it is missing.
    pub fn peer(mut self, name: &str, command: Result<Vec<String>, String>) -> Table {
        let work = command.map_or_else(Work::Missing, Work::Peer);
        self.variants.push(Variant { name: name.to_owned(), work });
        self
    }

    /// The same program with nothing to do: its peak of memory is subtracted.
    pub fn idle(mut self, work: impl Fn() + 'static) -> Table {
        self.idle = Some(Variant { name: "idle".to_owned(), work: Work::Own(Box::new(work)) });
        self
    }

    /// One more column: processor time beside that of this variant.
    pub fn beside(mut self, name: &str) -> Table {
        self.beside.push(name.to_owned());
        self
    }

    /// A sentence below the table.
    pub fn note(mut self, text: &str) -> Table {
        self.notes.push(text.to_owned());
        self
    }

    fn find(&self, name: &str) -> Option<&Variant> {
        self.variants.iter().chain(&self.idle).find(|variant| variant.name == name)
    }

    /// Runs every variant in turn, round by round, and prints the table.
    fn run(&self, only: Option<&str>, rounds: Option<usize>) -> bool {
        println!("\n## {}: {}\n", self.name, self.title);
        let wanted = |at: usize, name: &str| at == 0 || only.is_none_or(|only| name == only);
        let variants: Vec<&Variant> = self
            .variants
            .iter()
            .enumerate()
            .filter(|(at, variant)| wanted(*at, &variant.name))
            .map(|(_, v)| v)
            .collect();
        let mut seen: Vec<Vec<Figures>> = variants.iter().map(|_| Vec::new()).collect();
        let mut idle = Vec::new();
        let mut whole = true;
        for _ in 0..rounds.unwrap_or(self.rounds) {
            for (variant, seen) in variants.iter().zip(&mut seen) {
                match self.measure(variant) {
                    Ok(Some(figures)) => seen.push(figures),
                    Ok(None) => {}
                    Err(error) => {
                        println!("{}/{} failed: {error}", self.name, variant.name);
                        whole = false;
                    }
                }
            }
            if let Some(variant) = &self.idle
                && let Ok(Some(figures)) = self.measure(variant)
            {
                idle.push(figures);
            }
        }
        self.print(&variants, &seen, &idle);
        whole
    }

    fn measure(&self, variant: &Variant) -> Result<Option<Figures>, String> {
        let me = env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(me);
        match &variant.work {
            Work::Own(_) => {
                command.arg("--child").arg(format!("{}/{}", self.name, variant.name));
            }
            Work::Peer(parts) => {
                command.arg("--exec").args(parts);
            }
            Work::Missing(_) => return Ok(None),
        }
        let output = command.stderr(Stdio::inherit()).output().map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(output.status.to_string());
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let line = |line: &str| {
            let mut words = line.split_whitespace();
            (words.next() == Some(MARK)).then_some(())?;
            Some((words.next()?.replace('_', " "), words.next()?.parse().ok()?))
        };
        Ok(Some(text.lines().filter_map(line).collect()))
    }

    fn print(&self, variants: &[&Variant], seen: &[Vec<Figures>], idle: &[Figures]) {
        let extra: Vec<&str> = {
            let mut names: Vec<&str> = seen.iter().flatten().flat_map(|of| of.keys().map(String::as_str)).collect();
            names.sort_unstable();
            names.dedup();
            names.retain(|name| !["cpu s", "wall s", "peak KiB"].contains(name));
            names
        };
        let idle = (!idle.is_empty()).then(|| median(idle.iter().map(|of| of["peak KiB"]).collect()));
        let mut head = vec!["variant".to_owned(), "CPU s".into(), format!("ns CPU/{}", self.unit), "ratio".into()];
        head.extend(self.beside.iter().map(|name| format!("to {name}")));
        head.extend(["wall s".into(), "wall ratio".into(), "peak MiB".into()]);
        head.extend(idle.map(|_| "over idle MiB".to_owned()));
        head.extend(extra.iter().map(|name| (*name).to_owned()));
        let mut rows = vec![head];
        let mut missing = Vec::new();
        for (variant, of) in variants.iter().zip(seen) {
            if let Work::Missing(why) = &variant.work {
                missing.push(format!("{}: missing. {why}", variant.name));
                continue;
            }
            if of.is_empty() {
                continue;
            }
            let middle = |name: &str| median(of.iter().filter_map(|of| of.get(name).copied()).collect());
            // Rounds are paired: a load of the machine meets both sides of a ratio.
            let ratio = |name: &str, base: &[Figures]| {
                median(of.iter().zip(base).map(|(of, base)| of[name] / base[name]).collect())
            };
            let cpu = middle("cpu s");
            let mut row =
                vec![variant.name.clone(), format!("{cpu:.3}"), format!("{:.0}", cpu * 1e9 / self.units as f64)];
            row.push(format!("{:.2}", ratio("cpu s", &seen[0])));
            for name in &self.beside {
                let base = variants.iter().position(|variant| variant.name == *name).map_or(&[][..], |at| &seen[at]);
                row.push(if base.is_empty() { "-".to_owned() } else { format!("{:.2}", ratio("cpu s", base)) });
            }
            row.push(format!("{:.3}", middle("wall s")));
            row.push(format!("{:.2}", ratio("wall s", &seen[0])));
            row.push(format!("{:.2}", middle("peak KiB") / 1024.0));
            row.extend(idle.map(|idle| format!("{:.2}", (middle("peak KiB") - idle) / 1024.0)));
            row.extend(extra.iter().map(|name| {
                let has = of.iter().any(|of| of.contains_key(*name));
                if has { format!("{:.3}", middle(name)) } else { "-".to_owned() }
            }));
            rows.push(row);
        }
        print_table(&rows);
        missing.iter().chain(&self.notes).for_each(|line| println!("{line}"));
        println!("Medians of {} rounds; ratios are of pairs within a round.", seen.first().map_or(0, Vec::len));
    }
}

/// What one process reported, by name.
type Figures = BTreeMap<String, f64>;

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Prints rows as a Markdown table; the first is its head.
pub fn print_table(rows: &[Vec<String>]) {
    let columns = rows.first().map_or(0, Vec::len);
    let width =
        |at: usize| rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for (place, row) in rows.iter().enumerate() {
        let cells = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(at, (cell, width))| if at == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") });
        println!("| {} |", cells.collect::<Vec<_>>().join(" | "));
        if place == 0 {
            let rule = widths.iter().enumerate().map(|(at, width)| {
                let line = "-".repeat((*width).max(3));
                if at == 0 { line } else { format!("{}:", &line[1..]) }
            });
            println!("| {} |", rule.collect::<Vec<_>>().join(" | "));
        }
    }
}

/// The tables of one bench program.
pub struct Bench {
    name: String,
    tables: Vec<Table>,
}

impl Bench {
    /// `name` is that of the bench.
    pub fn new(name: &str) -> Bench {
        Bench { name: name.to_owned(), tables: Vec::new() }
    }

    /// Adds a table.
    pub fn table(mut self, table: Table) -> Bench {
        self.tables.push(table);
        self
    }

    /// What `main` does.
    pub fn main(self) -> ExitCode {
        let args: Vec<String> = env::args().skip(1).collect();
        match args.first().map(String::as_str) {
            Some("--child") => return self.child(args.get(1).map_or("", String::as_str)),
            Some("--exec") => return exec(&args[1..]),
            _ => {}
        }
        let mut rounds = None;
        let mut filters = Vec::new();
        let mut list = false;
        let mut rest = args.into_iter();
        while let Some(arg) = rest.next() {
            match arg.as_str() {
                "--rounds" => rounds = rest.next().and_then(|count| count.parse().ok()),
                "--list" => list = true,
                // What cargo passes to every bench.
                "--bench" => {}
                _ => filters.push(arg),
            }
        }
        if list {
            for table in &self.tables {
                table.variants.iter().for_each(|variant| println!("{}/{}", table.name, variant.name));
            }
            return ExitCode::SUCCESS;
        }
        println!("# {}", self.name);
        let mut whole = true;
        for table in &self.tables {
            let of_table = |filter: &&String| filter.split('/').next() == Some(&table.name);
            match filters.iter().find(of_table) {
                None if !filters.is_empty() => {}
                filter => whole &= table.run(filter.and_then(|filter| filter.split_once('/')).map(|at| at.1), rounds),
            }
        }
        if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn child(&self, path: &str) -> ExitCode {
        let (table, variant) = path.split_once('/').unwrap_or((path, ""));
        let found = self.tables.iter().find(|of| of.name == table).and_then(|of| of.find(variant));
        let Some(Variant { work: Work::Own(work), .. }) = found else {
            eprintln!("no variant {path}");
            return ExitCode::FAILURE;
        };
        let start = now();
        work();
        let ended = ENDED.lock().expect("no panic under it").unwrap_or_else(mark);
        let began = BEGAN.lock().expect("no panic under it").unwrap_or(Mark { cpu: Duration::ZERO, at: start });
        report(ended.cpu - began.cpu, ended.at.duration_since(began.at), peak_kib());
        ExitCode::SUCCESS
    }
}

/// Runs a peer and reports what it used. Its output goes on: lines of its own figures are read from it.
fn exec(command: &[String]) -> ExitCode {
    let Some((program, args)) = command.split_first() else { return ExitCode::FAILURE };
    let start = now();
    match Command::new(program).args(args).status() {
        Ok(status) if status.success() => {
            let wall = now().duration_since(start);
            let used = getrusage(UsageWho::RUSAGE_CHILDREN).expect("the kernel counts");
            report(cpu_of(UsageWho::RUSAGE_CHILDREN), wall, used.max_rss() as f64);
            ExitCode::SUCCESS
        }
        Ok(status) => {
            eprintln!("{program}: {status}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{program}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn report(cpu: Duration, wall: Duration, peak_kib: f64) {
    figure("cpu s", cpu.as_secs_f64());
    figure("wall s", wall.as_secs_f64());
    figure("peak KiB", peak_kib);
}
