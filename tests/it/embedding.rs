//! The library inside another program, on a real executor and with real processes: after a run nothing of it is left on the
//! executor; a run that is dropped takes its items and processes with it. (On simulated worlds: `engine::cancel`.)

#![allow(clippy::disallowed_methods, reason = "the executor is the caller's, and processes are real")]

use async_executor::Executor;
use lamplighter::{
    action::{Call, CallError, Handlers},
    item::{RunOutcome, RunRecord, Value},
    job::{Job, JobSpec},
    problem::{Source, load},
    run::{Keeping, RunOptions, Runner, StoreChoice},
    store::{
        RunKind, RunPhase, State,
        memory::Memory,
        sqlite::{Sqlite, StateOptions},
    },
    world::World,
};
use std::{
    fs,
    future::Future,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// Turns of a wait for a condition before it counts as a hang; each is a few milliseconds.
const TURNS: usize = 20_000;

/// A program that embeds the library: its executor, and a folder for what runs write.
struct Program {
    executor: Arc<Executor<'static>>,
    folder: tempfile::TempDir,
}

impl Program {
    fn new() -> Program {
        Program { executor: Arc::new(Executor::new()), folder: tempfile::tempdir().expect("a folder") }
    }

    fn runner(&self) -> Runner {
        Runner::new(World::real(self.executor.clone()))
    }

    fn options(&self) -> RunOptions {
        RunOptions {
            out: self.folder.path().to_owned(),
            environment: [("PATH".to_owned(), "/usr/bin:/bin".to_owned())].into(),
            grace: Duration::from_secs(600),
            store: StoreChoice::Memory { limit: 1 << 20 },
            ..RunOptions::default()
        }
    }

    /// Drives the executor on this thread until `future` is ready.
    fn drive<T>(&self, future: impl Future<Output = T>) -> T {
        smol::block_on(self.executor.run(future))
    }

    /// Drives the executor until `holds`; what is waited for is named in the message of a hang.
    fn until(&self, what: &str, holds: impl Fn() -> bool) {
        self.drive(async {
            for _ in 0..TURNS {
                if holds() {
                    return;
                }
                smol::Timer::after(Duration::from_millis(3)).await;
            }
            panic!("hangs: {what}");
        });
    }

    /// The process ids that children wrote into files, when all are there.
    fn pids(&self, names: &[&str]) -> Vec<u32> {
        let read = |name: &&str| fs::read_to_string(self.folder.path().join(name)).ok()?.trim().parse().ok();
        self.until("the children write their ids", || names.iter().all(|name| read(name).is_some()));
        names.iter().filter_map(read).collect()
    }
}

fn job(text: &str, handlers: &Handlers) -> Arc<Job> {
    let checked = Job::from_ron("embedded", text, Path::new("."), handlers);
    Arc::new(checked.unwrap_or_else(|problems| panic!("{problems}")).job)
}

/// A process that is there and no zombie.
fn lives(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().unwrap_or_default().trim_start();
    !state.is_empty() && !state.starts_with(['Z', 'X'])
}

/// For each of two items a child and a grandchild that would go on for an hour, and say who they are in files.
const FAMILY: &str = r#"Job(stages: [
    Stage(name: "list", key: "{{ item }}", run: [Items(list: ["a", "b"])]),
    Stage(name: "work", workers: 2, run: [
        Exec(sh: "sleep 3600 & echo $! > \"$NAME.grandchild\"; echo $$ > \"$NAME.child\"; wait", env: { "NAME": "{{ item }}" }),
    ]),
])"#;

const FILES: [&str; 4] = ["a.child", "a.grandchild", "b.child", "b.grandchild"];

#[test]
fn after_a_run_was_awaited_no_task_of_it_is_left_however_it_ended() {
    for (text, outcome) in [
        (r#"Job(run: [Exec(argv: ["true"])])"#, RunOutcome::Succeeded),
        (r#"Job(run: [Exec(argv: ["false"])], on_finish: [Notify(run: [Log(message: "bad")])])"#, RunOutcome::Failed),
        (r#"Job(deadline: "30ms", run: [Exec(argv: ["sleep", "3600"])])"#, RunOutcome::DeadlineExceeded),
        (r#"Job(run: [Call(handler: "panics")])"#, RunOutcome::Failed),
    ] {
        let program = Program::new();
        let panics = |_: Call| async { panic!("a handler that panics") };
        let job = job(text, &Handlers::new().add::<_, _, Value>("panics", panics).expect("a name"));
        let run = program.runner().start(&job, program.options()).expect("it starts");
        let record: RunRecord = program.drive(run);
        assert_eq!(record.outcome, outcome, "{record:?}");
        assert!(program.executor.is_empty(), "{text}: a task is left");
    }
}

#[test]
fn a_cancelled_run_is_over_when_it_was_awaited_processes_too() {
    let program = Program::new();
    let job = job(FAMILY, &Handlers::new());
    let run = program.runner().start(&job, program.options()).expect("it starts");
    let pids = program.pids(&FILES);
    assert!(pids.iter().all(|pid| lives(*pid)), "{pids:?}");
    let working = |run: &lamplighter::run::Run| run.progress().stages[1].working;
    assert_eq!(working(&run), 2);
    run.cancel("the test");
    assert!(run.progress().ending);
    let record = program.drive(run);
    assert_eq!(record.outcome, RunOutcome::Cancelled);
    assert_eq!(record.reason.as_deref(), Some("cancelled by the test"));
    assert!(!pids.iter().any(|pid| lives(*pid)), "a process outlives its run: {pids:?}");
    assert!(program.executor.is_empty());
}

#[test]
fn a_dropped_run_takes_its_items_timers_and_processes_with_it() {
    let program = Program::new();
    let begun = Arc::new(AtomicUsize::new(0));
    let counter = begun.clone();
    let waits = move |call: Call| {
        counter.fetch_add(1, Ordering::SeqCst);
        async move {
            call.sleep(Duration::from_secs(3600)).await;
            Ok::<Value, CallError>(Value::Null)
        }
    };
    let handlers = Handlers::new().add("waits", waits).expect("a name");
    // Beside the processes: handlers that wait on a timer, and items that wait for their turn.
    let more = r#"Stage(name: "timers", from: ["list"], workers: 1, run: [Call(handler: "waits")]),
        Stage(name: "retries", from: ["list"], workers: 1, retry: Retry(max_attempts: 9, initial_interval: "1h", max_interval: "1h"),
            run: [Exec(argv: ["false"])]),
    ])"#;
    let text = format!("{}{more}", FAMILY.strip_suffix("])").expect("the end of the stages"));
    let job = job(&text, &handlers);
    let run = program.runner().start(&job, program.options()).expect("it starts");
    let pids = program.pids(&FILES);
    program.until("a handler waits", || begun.load(Ordering::SeqCst) == 1);
    assert!(!program.executor.is_empty() && pids.iter().all(|pid| lives(*pid)));
    drop(run);
    program.until("every task ends", || program.executor.is_empty());
    assert!(!pids.iter().any(|pid| lives(*pid)), "a process outlives its run: {pids:?}");
    assert_eq!(begun.load(Ordering::SeqCst), 1, "work was begun after the drop");
}

/// Three items, each a child that says who it is: one goes on until it is told, one does not listen to TERM, one sleeps. When
/// there is a second pass they are done at once.
const STOPPED: &str = r#"Job(stages: [
    Stage(name: "list", key: "{{ item }}", run: [Items(list: ["a", "b", "c"])]),
    Stage(name: "work", workers: 3, run: [
        Exec(sh: "echo $NAME >> begun; echo $$ > \"$NAME.child\"; test -e second && exit 0
            case $NAME in
                a) while test -d \"$PWD\" && ! test -e go; do sleep 0.01; done;;
                b) trap '' TERM; while test -d \"$PWD\"; do sleep 1; done;;
                c) sleep 3600;;
            esac", cwd: "CWD", env: { "NAME": "{{ item }}" }),
    ]),
    Stage(name: "report", gather: All, run: [Jq(filter: "[items] | join(\" \")"), Write(json: "report.json")]),
])"#;

#[test]
fn a_stopped_run_leaves_no_process_and_the_next_pass_goes_on_with_it() {
    // A kill ends the wait, or the end of a short grace period.
    for (grace, kill) in [(Duration::from_secs(600), true), (Duration::from_millis(200), false)] {
        let program = Program::new();
        let text = STOPPED.replace("CWD", program.folder.path().to_str().expect("a plain path"));
        let options = || RunOptions { grace, ..program.options() };
        let job = job(&text, &Handlers::new());
        let open = |now_ms| {
            let options =
                StateOptions { dir: program.folder.path(), now_ms, instance: "0123456789abcdef", accept_new: false };
            let (store, _) = Sqlite::durable(&options).expect("a state");
            let store = Arc::new(store);
            (State::new(store.clone()), store)
        };
        let (state, store) = open(1);
        let keeping = Keeping { state, trigger: "manual".into(), fire_key: None, kind: RunKind::Serve, alone: true };
        let run = program.drive(program.runner().begin(&job, options(), &keeping)).expect("it begins");
        let handle = run.handle();
        let pids = program.pids(&["a.child", "b.child", "c.child"]);
        assert!(pids.iter().all(|pid| lives(*pid)), "{pids:?}");
        let done = |stage: usize| handle.progress().stages[stage].counts.ok;
        if kill {
            // It comes to its end in the stop, and nothing follows it.
            handle.stop();
            fs::write(program.folder.path().join("go"), "").expect("a file");
            program.until("what works comes to its end", || done(1) == 1);
            assert!(lives(pids[1]) && lives(pids[2]) && !handle.is_settled());
            handle.kill("the test");
        } else {
            handle.stop();
        }
        let record = program.drive(run);
        assert_eq!((record.outcome, &record.unsaved), (RunOutcome::Interrupted, &None), "{record:?}");
        assert_eq!((record.leaked, handle.is_settled()), (0, true));
        assert!(!pids.iter().any(|pid| lives(*pid)), "a process outlives the stop: {pids:?}");
        program.until("every task ends", || program.executor.is_empty());
        let id = handle.id().to_owned();
        drop((handle, keeping));
        program.drive(store.close());
        drop(store);

        fs::write(program.folder.path().join("second"), "").expect("a file");
        let (state, store) = open(2);
        let head = program.drive(state.details(&id)).expect("it answers").expect("it is there").head;
        assert_eq!((head.phase, head.outcome, head.crashes), (RunPhase::Interrupted, None, 0));
        let run = program.drive(program.runner().resume(&job, options(), &state, &id)).expect("it goes on");
        let record = program.drive(run);
        assert_eq!(record.outcome, RunOutcome::Succeeded, "{record:?}");
        let begun = fs::read_to_string(program.folder.path().join("begun")).expect("a file");
        let times = |name: &str| begun.lines().filter(|line| *line == name).count();
        assert_eq!([times("a"), times("b"), times("c")], if kill { [1, 2, 2] } else { [2, 2, 2] });
        assert!(program.folder.path().join("report.json").exists());
        program.drive(store.close());
    }
}

#[test]
fn an_executor_that_goes_away_takes_the_processes_with_it() {
    let program = Program::new();
    let job = job(FAMILY, &Handlers::new());
    let run = program.runner().start(&job, program.options()).expect("it starts");
    let pids = program.pids(&FILES);
    drop(run);
    let Program { executor, folder } = program;
    drop(executor);
    // Nobody drives anything any more: they were killed, or nobody will.
    let gone = (0..TURNS).any(|_| {
        std::thread::sleep(Duration::from_millis(3));
        !pids.iter().any(|pid| lives(*pid))
    });
    assert!(gone, "a process outlives the executor: {pids:?}");
    drop(folder);
}

#[test]
fn a_run_shares_the_executor_with_the_callers_tasks_on_many_threads() {
    let program = Program::new();
    let score = |call: Call| async move { Ok(call.value["n"].clone()) };
    let handlers = Handlers::new().add("score", score).expect("a name");
    let text = r#"Job(stages: [
        Stage(name: "list", run: [Jq(filter: "range(500) | {n: .}")]),
        Stage(name: "work", workers: 8, run: [Call(handler: "score")]),
        Stage(name: "sum", gather: All, run: [Jq(filter: "[items] | add"), Log(message: "{{ value }}")]),
    ])"#;
    // The three ways to a job give the same one.
    let spec: JobSpec = load(&Source::new("embedded", text)).expect("reads");
    let jobs =
        [job(text, &handlers), Arc::new(Job::new("embedded", &spec, Path::new("."), &handlers).expect("good").job)];
    let (stop, stopped) = async_channel::bounded::<()>(1);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let (executor, stopped) = (program.executor.clone(), stopped.clone());
            scope.spawn(move || smol::block_on(executor.run(stopped.recv())));
        }
        let mine = program.executor.spawn(async { smol::Timer::after(Duration::from_millis(1)).await });
        let runs: Vec<_> =
            jobs.iter().map(|job| program.runner().start(job, program.options()).expect("it starts")).collect();
        for run in runs {
            let record = smol::block_on(run);
            assert_eq!(record.outcome, RunOutcome::Succeeded, "{record:?}");
            assert_eq!(record.stages[1].counts.ok, 500);
        }
        smol::block_on(mine);
        // Another thread may be about to drop the task of the shared timer.
        program.until("every task ends", || program.executor.is_empty());
        drop(stop);
    });
}

#[test]
fn a_handler_sees_what_earlier_dues_kept() {
    let program = Program::new();
    let count = |call: Call| async move { Ok(Value::from(call.state().as_i64().unwrap_or(0) + 1)) };
    let text = r#"Job(stages: [
        Stage(name: "list", key: "{{ item }}", run: [Items(list: ["a", "b"])]),
        Stage(name: "work", run: [Call(handler: "count"), Keep(filter: ".")]),
        Stage(name: "report", gather: All, run: [Write(json: "counts.json")]),
    ])"#;
    let job = job(text, &Handlers::new().add("count", count).expect("a name"));
    let state = State::new(Arc::new(Memory::new(1 << 20)));
    let counts_at = |due: &str, kept: bool| {
        let options = RunOptions { due: Some(due.parse().expect("an instant")), ..program.options() };
        let record = program.drive(async {
            if !kept {
                return program.runner().start(&job, options).expect("it starts").await;
            }
            let keeping = Keeping {
                state: state.clone(),
                trigger: "manual".into(),
                fire_key: None,
                kind: RunKind::Foreground,
                alone: true,
            };
            program.runner().begin(&job, options, &keeping).await.expect("it begins").await
        });
        assert_eq!(record.outcome, RunOutcome::Succeeded, "{record:?}");
        let text = fs::read_to_string(program.folder.path().join("counts.json")).expect("a report");
        serde_json::from_str::<Value>(&text).expect("JSON")
    };
    assert_eq!(counts_at("2026-11-23T02:00:00Z", true), serde_json::json!([1, 1]));
    assert_eq!(counts_at("2026-11-24T02:00:00Z", true), serde_json::json!([2, 2]));
    assert_eq!(counts_at("2026-11-24T02:00:00Z", true), serde_json::json!([2, 2]), "a night never sees itself");
    assert_eq!(counts_at("2026-11-25T02:00:00Z", false), serde_json::json!([1, 1]), "nothing is kept of it");
}

#[test]
fn what_a_handler_hands_back_is_held_to_the_bound_of_each_stage() {
    let program = Program::new();
    let handlers = Handlers::new().add("pass", |call: Call| async move { Ok(call.value) }).expect("a name");
    // The item takes 22 bytes of JSON, and 49 with the field.
    let ends = |stages: &str| {
        let job = job(&format!("Job(stages: [{stages}])"), &handlers);
        let record = program.drive(async { program.runner().start(&job, program.options()).expect("it starts").await });
        let last = record.stages.last().expect("stages");
        (last.counts.ok, record.failures.first().map(|failure| failure.class.clone()))
    };
    let (list, pass) = (r#"Items(list: [{"text": "0123456789"}])"#, r#"Call(handler: "pass")"#);
    let two = |list: &str, first: &str, second: &str| {
        ends(&format!(
            r#"Stage(name: "list", {list}),
            Stage(name: "first", tolerate: "1", {first}),
            Stage(name: "second", tolerate: "1", {second})"#
        ))
    };
    let one = |most: &str, run: &str| format!(r#"max_value: "{most}", run: [{run}]"#);
    let too_large = (0, Some("too_large".to_owned()));
    assert_eq!(two(&one("1KB", list), &one("1KB", pass), &one("30B", pass)), (1, None));
    assert_eq!(two(&one("1KB", list), &one("1KB", pass), &one("10B", pass)), too_large);
    assert_eq!(two(&one("1KB", list), &one("10B", r#"Log(message: "x")"#), &one("10B", pass)), too_large);
    let with_field = r#"Call(handler: "pass", into: "more")"#;
    assert_eq!(two(&one("30B", list), &one("30B", with_field), &one("30B", pass)), too_large);
    assert_eq!(two(&one("30B", &format!("{list}, {with_field}")), &one("30B", pass), &one("30B", pass)), too_large);
    assert_eq!(two(&one("30B", list), &one("30B", pass), &one("30B", &format!("{with_field}, {pass}"))), too_large);
    // What a gather works on is null, which nobody gave: four bytes.
    let gather = |most: &str| {
        let list = r#"Stage(name: "list", max_value: "1B", run: [Items(list: [1])])"#;
        ends(&format!(r#"{list}, Stage(name: "all", gather: All, tolerate: "1", {})"#, one(most, pass)))
    };
    assert_eq!((gather("4B"), gather("3B")), ((1, None), too_large));
}
