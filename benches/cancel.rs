//! 64 process trees (a shell and two sleepers each) ended by a run's cancel (N11): until the run has ended and nobody of
//! them is left, not even as a zombie. Beside it what the system calls alone take.
//!
//! `cargo bench --bench cancel`

mod common;

use common::{Bench, Table, figure, now, seconds_since};
use lamplighter::{
    action::Handlers,
    item::RunOutcome,
    job::Job,
    run::{RunOptions, Runner},
    world::World,
};
use rustix::process::{Pid, Signal, WaitOptions};
use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    sync::Arc,
    time::Duration,
};

const TREES: usize = 64;
/// How long what is cancelled may take in the table where half of it is deaf.
const GRACE: Duration = Duration::from_millis(300);

fn main() -> ExitCode {
    Bench::new("cancel")
        .table(
            Table::new("trees", "64 trees of 3 processes, ended and reaped", TREES as u64, "tree")
                .rounds(5)
                .own("kill and waitpid alone", by_hand)
                .own("Lamplighter, cancel", || lamplighter(Asked::Cancel, false))
                .own("Lamplighter, half are deaf", || lamplighter(Asked::Cancel, true))
                .own("Lamplighter, kill", || lamplighter(Asked::Kill, true))
                .note("ms: from TERM (cancel), from the end of the grace period (half are deaf) or from KILL (kill) to the end of the run.")
                .note("left: processes of the trees that are there afterwards, dead or alive."),
        )
        .main()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Cancel,
    Kill,
}

/// A folder in which every tree leaves a file when it stands.
fn fresh_folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-cancel");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder");
    // Whose parent has ended comes to us.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).expect("a subreaper");
    folder
}

fn script(deaf: bool) -> &'static str {
    if deaf {
        "trap '' TERM; sleep 1000 & sleep 1000 & : > $STANDS; wait"
    } else {
        "sleep 1000 & sleep 1000 & : > $STANDS; wait"
    }
}

#[expect(clippy::disallowed_methods, reason = "other processes are waited for, in real time")]
fn wait_until_all_stand(folder: &Path) {
    while fs::read_dir(folder).expect("the folder").count() < TREES {
        std::thread::sleep(Duration::from_millis(5));
    }
    // The sleepers were forked: this long is enough for them to be loaded.
    std::thread::sleep(Duration::from_millis(200));
}

/// Processes whose parent we are.
fn left() -> f64 {
    let me = std::process::id().to_string();
    let mut left = 0;
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1));
        left += u32::from(parent == Some(&me));
    }
    f64::from(left)
}

fn lamplighter(asked: Asked, deaf: bool) {
    let folder = fresh_folder();
    let half = if deaf { TREES / 2 } else { 0 };
    let text = format!(
        "Job(stages: [Stage(name: \"list\", run: [Jq(filter: \"range({TREES}) | {{n: ., deaf: (. < {half})}}\")]), \
         Stage(name: \"trees\", workers: {TREES}, run: [Exec(argv: [\"sh\", \"-c\", \
         \"{{% if item.deaf %}}{}{{% else %}}{}{{% endif %}}\"], env: {{\"STANDS\": \"{}/{{{{ item.n }}}}\"}})])])",
        script(true),
        script(false),
        folder.display()
    );
    let job = Arc::new(Job::from_ron("trees", &text, Path::new("."), &Handlers::new()).expect("a job").job);
    let executor = Arc::new(async_executor::Executor::new());
    let world = World::real(executor.clone());
    let out = folder.with_file_name("bench-cancel-out");
    let options = RunOptions { out, grace: GRACE, ..RunOptions::default() };
    let run = Runner::new(world.clone()).start(&job, options).expect("it starts");
    let (record, took) = smol::block_on(executor.run(async {
        let ready = folder.clone();
        world.unblock(move || wait_until_all_stand(&ready)).await;
        common::begin();
        let began = now();
        match asked {
            Asked::Cancel => run.cancel("the bench"),
            Asked::Kill => run.kill("the bench"),
        }
        let record = run.await;
        (record, seconds_since(began))
    }));
    common::end();
    assert_eq!(record.outcome, RunOutcome::Cancelled, "{:?}", record.reason);
    let granted = if deaf && asked == Asked::Cancel { GRACE.as_secs_f64() } else { 0.0 };
    figure("ms", (took - granted) * 1e3);
    figure("left", left());
}

/// The same trees killed group by group and reaped, by nothing but system calls.
fn by_hand() {
    let folder = fresh_folder();
    let mut leaders: Vec<Child> = (0..TREES)
        .map(|place| {
            let mut command = Command::new("sh");
            command.args(["-c", script(false)]).env("STANDS", folder.join(place.to_string()));
            command.stdin(Stdio::null()).process_group(0).spawn().expect("sh starts")
        })
        .collect();
    wait_until_all_stand(&folder);
    common::begin();
    let began = now();
    let groups: Vec<Pid> =
        leaders.iter().map(|leader| Pid::from_raw(leader.id().cast_signed()).expect("a child")).collect();
    for group in &groups {
        rustix::process::kill_process_group(*group, Signal::KILL).expect("it is there");
    }
    for leader in &mut leaders {
        leader.wait().expect("it ends");
    }
    for group in groups {
        // Until nobody of the group is a child of ours any more.
        while rustix::process::waitpgid(group, WaitOptions::empty()).is_ok() {}
    }
    figure("ms", seconds_since(began) * 1e3);
    common::end();
    figure("left", left());
}
