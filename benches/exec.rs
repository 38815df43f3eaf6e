//! `Exec` over 5,000 children, 4 at a time (N3), and the same with 512 MiB resident in the parent (N4): Lamplighter beside
//! four plain threads, xargs and Go.
//!
//! The child is a static program of three instructions, so that what is measured is starting and awaiting it. Wall time is
//! a subject here: `wall ratio` is of pairs within a round.
//!
//! `cargo bench --bench exec`

mod common;

use common::{Bench, Table};
use lamplighter::{
    action::Handlers,
    item::RunOutcome,
    job::Job,
    run::{RunOptions, Runner},
    world::World,
};
use std::{
    fs,
    hint::black_box,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

const CHILDREN: u64 = 5_000;
const WORKERS: usize = 4;
/// What is resident in the parent in the second table.
const BALLAST_BYTES: usize = 512 << 20;

/// Ends at once, without a C library.
const CHILD: &str = r#"
void _start(void) {
#if defined(__x86_64__)
    __asm__ volatile("mov $60, %eax; xor %edi, %edi; syscall");
#elif defined(__aarch64__)
    __asm__ volatile("mov x8, #93; mov x0, #0; svc #0");
#elif defined(__arm__)
    __asm__ volatile("mov r7, #1; mov r0, #0; svc #0");
#endif
}
"#;

fn main() -> ExitCode {
    let child = child();
    let program = child.to_string_lossy().into_owned();
    let job = job(&program);
    let folder = scratch().join("jobs");
    fs::create_dir_all(&folder).and_then(|()| fs::write(folder.join("fan.ron"), &job)).expect("the job file");
    let (jobs, out) = (folder.to_string_lossy().into_owned(), scratch().join("out").to_string_lossy().into_owned());
    let cli = [env!("CARGO_BIN_EXE_lamplighter"), "--jobs", &jobs, "--out", &out, "run", "--no-state", "fan"]
        .map(str::to_owned);
    let xargs = format!("seq {CHILDREN} | xargs -P{WORKERS} -n1 {program}");
    let go = |how: &str| common::go("exec", &[&CHILDREN.to_string(), &WORKERS.to_string(), &program, how]);
    let (bare, ours, small, heavy) = (program.clone(), job.clone(), job.clone(), job);
    let bare_heavy = program.clone();
    Bench::new("exec")
        .table(
            Table::new("fanout", "5,000 static children, 4 at a time", CHILDREN, "child")
                .rounds(5)
                .own("4 threads", move || threads(&bare))
                .own("Lamplighter", move || lamplighter(&ours))
                .peer("lamplighter run", Ok(cli.to_vec()))
                .peer("Go, Run()", go("bare"))
                .peer("Go, the same guards", go("guarded"))
                .peer("xargs -P4", common::program("sh", &["-c", &xargs], "apt-get install findutils"))
                .beside("Go, Run()")
                .beside("Go, the same guards")
                .note("The same guards: a deadline, a process group, output read. Lamplighter has them always."),
        )
        .table(
            Table::new("ballast", "the same with 512 MiB resident in the parent", CHILDREN, "child")
                .rounds(5)
                .own("Lamplighter, small", move || lamplighter(&small))
                .own("Lamplighter, 512 MiB", move || with_ballast(|| lamplighter(&heavy)))
                .own("4 threads, 512 MiB", move || with_ballast(|| threads(&bare_heavy))),
        )
        .main()
}

fn scratch() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-exec")
}

/// The static child, built once.
fn child() -> PathBuf {
    let (folder, program) = (scratch(), scratch().join("child"));
    if !program.exists() {
        let source = folder.join("child.c");
        fs::create_dir_all(&folder).and_then(|()| fs::write(&source, CHILD)).expect("a folder for the child");
        let built = Command::new("cc").args(["-static", "-nostdlib", "-O2", "-o"]).arg(&program).arg(&source).status();
        assert!(built.is_ok_and(|status| status.success()), "the child needs a C compiler: apt-get install gcc");
    }
    program
}

fn job(program: &str) -> String {
    format!(
        "Job(stages: [Stage(name: \"list\", run: [Jq(filter: \"range({CHILDREN})\")]), \
         Stage(name: \"children\", workers: {WORKERS}, timeout: \"1m\", item_deadline: \"5m\", \
         run: [Exec(argv: [{program:?}])])])"
    )
}

fn lamplighter(text: &str) {
    let job = Arc::new(Job::from_ron("fan", text, Path::new("."), &Handlers::new()).expect("a job").job);
    let executor = Arc::new(async_executor::Executor::new());
    let runner = Runner::new(World::real(executor.clone()));
    let options = RunOptions { out: scratch().join("out"), ..RunOptions::default() };
    let run = runner.start(&job, options).expect("it starts");
    let record = smol::block_on(executor.run(run));
    assert_eq!(record.outcome, RunOutcome::Succeeded, "{:?}", record.reason);
    assert_eq!(record.stages[1].counts.ok, CHILDREN);
}

/// What anybody would write: threads that start a child and wait for it.
fn threads(program: &str) {
    let started = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while started.fetch_add(1, Ordering::Relaxed) < CHILDREN {
                    assert!(Command::new(program).status().expect("it starts").success());
                }
            });
        }
    });
}

fn with_ballast(work: impl FnOnce()) {
    // Every page is written to: only what is resident has page tables that a fork would copy.
    let mut ballast = vec![0u8; BALLAST_BYTES];
    ballast.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    common::begin();
    work();
    common::end();
    black_box(ballast);
}
