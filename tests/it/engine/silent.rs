//! A store that falls silent under a run, or for a while: the run ends, a stop of it most of all, and nothing is called done
//! that is not.

use super::{
    kept::{STORE_BYTES, Seen, handlers, lock},
    lab::ms,
};
use futures_lite::FutureExt;
use lamplighter::{
    action::Handlers,
    item::{RunOutcome, RunRecord},
    job::Job,
    lang::Secret,
    limits::KEEP_OUT_FILES_MAX,
    run::{Keeping, Run, RunOptions, Runner, StartError},
    store::{EventQuery, Reply, Request, RunKind, State, Store, StoreError, memory::Memory},
    world::{BoxFuture, World, sim::Sim},
};
use std::{
    future::pending,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// A store of which some requests hang, in the kernel for what the engine knows.
pub struct Hung {
    rows: Arc<Memory>,
    hangs: Box<dyn Fn(&Request) -> bool + Send + Sync>,
}

impl Hung {
    pub fn new(rows: &Arc<Memory>, hangs: impl Fn(&Request) -> bool + Send + Sync + 'static) -> Arc<Hung> {
        Arc::new(Hung { rows: rows.clone(), hangs: Box::new(hangs) })
    }

    /// Answers so many requests, and never again.
    pub fn after(rows: &Arc<Memory>, answers: usize) -> Arc<Hung> {
        let asked = AtomicUsize::new(0);
        Hung::new(rows, move |_| asked.fetch_add(1, Ordering::Relaxed) >= answers)
    }
}

impl Store for Hung {
    fn call(&self, request: Request) -> BoxFuture<'_, Result<Reply, StoreError>> {
        Box::pin(async move {
            if (self.hangs)(&request) {
                pending::<()>().await;
            }
            self.rows.call_blocking(request)
        })
    }

    fn call_blocking(&self, request: Request) -> Result<Reply, StoreError> {
        self.rows.call_blocking(request)
    }
}

fn memory() -> Arc<Memory> {
    Arc::new(Memory::new(STORE_BYTES))
}

fn keeping(store: Arc<dyn Store>) -> Keeping {
    let (trigger, kind) = ("manual".into(), RunKind::Foreground);
    Keeping { state: State::new(store), trigger, fire_key: None, kind, alone: true }
}

fn job_of(text: &str, handlers: &Handlers) -> Arc<Job> {
    Arc::new(Job::from_ron("night", text, Path::new("."), handlers).expect("a good job").job)
}

/// Begins a run over `store` and stops it so much later, if at all.
async fn begun(
    world: World,
    job: &Arc<Job>,
    options: RunOptions,
    store: Arc<dyn Store>,
    stop: Option<Duration>,
) -> RunRecord {
    let run = Runner::new(world.clone()).begin(job, options, &keeping(store)).await.expect("it starts");
    stopped(world, run, stop).await
}

/// A run to its end, which is asked to stop after a while.
async fn stopped(world: World, run: Run, after: Option<Duration>) -> RunRecord {
    let handle = run.handle();
    let stops = async {
        if let Some(after) = after {
            world.sleep(after).await;
            handle.stop();
        }
        pending().await
    };
    run.or(stops).await
}

/// Goes on with the run that `memory` keeps, in a new process.
async fn resumed(
    world: World,
    job: &Arc<Job>,
    options: RunOptions,
    store: Arc<dyn Store>,
    stop: Option<Duration>,
) -> RunRecord {
    let state = State::new(store);
    let open = state.unfinished(None).await.expect("it answers");
    let run = Runner::new(world.clone()).resume(job, options, &state, &open[0].run).await.expect("it is resumed");
    stopped(world, run, stop).await
}

const TELLS: &str = r#"Job(deadline: "60s", on_finish: [Notify(when: [Succeeded], run: [Call(handler: "work")])], stages: [
    Stage(name: "list", key: "{{ item.id }}", run: [Items(list: [{"id": "P0"}, {"id": "P1", "slow": 2000}, {"id": "P2"}])]),
    Stage(name: "work", workers: 2, run: [Call(handler: "work")]),
    Stage(name: "more", from: ["list"], run: [Call(handler: "work")]),
    Stage(name: "all", from: ["work"], gather: All, run: [Jq(filter: "[items] | length"), Call(handler: "report")]),
])"#;

/// What a run that has succeeded must have done.
fn is_whole(record: &RunRecord, seen: &Seen) {
    assert_eq!(lock(seen).reports, [3], "{record:?}");
    let counts: Vec<(u64, u64, bool)> =
        record.stages.iter().map(|stage| (stage.counts.items, stage.counts.ok, stage.counts.complete)).collect();
    assert_eq!(counts, [(3, 3, true), (3, 3, true), (3, 3, true), (1, 1, true)], "{record:?}");
}

#[test]
fn a_run_that_stops_over_a_silent_store_ends_soon_and_is_called_done_only_when_it_is() {
    let (mut let_go, mut done) = (0, 0);
    for answers in 1..50 {
        for after in [0, 5, 1000, 1999, 4000] {
            let (sim, seen) = (Sim::new(answers as u64), Seen::default());
            let job = job_of(TELLS, &handlers(&seen));
            let store = Hung::after(&memory(), answers);
            let night = begun(sim.world(), &job, RunOptions::default(), store, Some(ms(after)));
            let record = sim.run(night).unwrap_or_else(|stalled| panic!("{answers}, {after}: {stalled:?}"));
            assert_eq!(sim.leaked(), 0, "{answers}, {after}");
            assert!(sim.elapsed() <= ms(after + 30_000), "{answers}, {after}: {:?}", sim.elapsed());
            match record.outcome {
                RunOutcome::Succeeded => {
                    is_whole(&record, &seen);
                    done += 1;
                }
                _ => let_go += 1,
            }
        }
    }
    assert!(let_go > 50 && done > 20, "{let_go} {done}");
}

#[test]
fn a_run_whose_store_falls_silent_ends_by_name() {
    let mut done = 0;
    for answers in 1..60 {
        let (sim, seen) = (Sim::new(answers as u64), Seen::default());
        let job = job_of(TELLS, &handlers(&seen));
        let store = Hung::after(&memory(), answers);
        let night = begun(sim.world(), &job, RunOptions::default(), store, None);
        let record = sim.run(night).unwrap_or_else(|stalled| panic!("{answers}: {stalled:?}"));
        assert_eq!(sim.leaked(), 0, "{answers}");
        // The deadline, a minute for the end to be written, another for the notice, and what is spared to each stall.
        assert!(sim.elapsed() <= ms(150_000), "{answers}: {:?}", sim.elapsed());
        if record.outcome == RunOutcome::Succeeded {
            is_whole(&record, &seen);
            done += 1;
        } else {
            assert!(record.reason.is_some(), "{answers}: {record:?}");
        }
    }
    assert!(done > 5, "{done}");
}

#[test]
fn a_stop_while_a_resumed_run_is_looked_up_forgets_nothing_that_waits() {
    // Two of three wait for their second attempt, all that was listed is on the disk.
    let text = r#"Job(stages: [
        Stage(name: "list", key: "{{ item.id }}", run: [Items(list: [{"id": "P0"}, {"id": "P1", "once": 1}, {"id": "P2", "once": 1}])]),
        Stage(name: "work", workers: 3, retry: Retry(max_attempts: 3, initial_interval: "1h", max_interval: "1h", jitter: Exact), run: [Call(handler: "work")]),
        Stage(name: "more", run: [Call(handler: "work")]),
    ])"#;
    let mut hung = 0;
    for request in 0..30 {
        let job = job_of(text, &handlers(&Seen::default()));
        let first = memory();
        let sim = Sim::new(1);
        let record = begun(sim.world(), &job, RunOptions::default(), first.clone(), Some(ms(60_000)));
        let record = sim.run(record).expect("it ends");
        assert_eq!((record.outcome, &record.unsaved), (RunOutcome::Interrupted, &None), "{record:?}");
        let (sim, second, asked) = (Sim::new(2), Arc::new(first.restart("boot")), Arc::new(AtomicUsize::new(0)));
        let counted = asked.clone();
        // One question takes longer than the stop; then the disk is back.
        let store = Hung::new(&second, move |_| counted.fetch_add(1, Ordering::Relaxed) == request + 2);
        let night = resumed(sim.world(), &job, RunOptions::default(), store, Some(ms(1)));
        let record = sim.run(night).unwrap_or_else(|stalled| panic!("{request}: {stalled:?}"));
        assert_eq!(record.outcome, RunOutcome::Interrupted, "{request}: {record:?}");
        hung += u32::from(asked.load(Ordering::Relaxed) > request + 2);
    }
    assert!(hung > 8, "{hung}");
}

#[test]
fn notices_are_sent_over_a_store_that_takes_neither_the_word_of_it_nor_the_log() {
    let (seen, memory) = (Seen::default(), memory());
    let job = job_of(TELLS, &handlers(&seen));
    // Its process does not come to the notice.
    let sim = Sim::new(1);
    let silent = Hung::new(&memory, |request| matches!(request, Request::NoticeDone(..)));
    let ended = begun(sim.world(), &job, RunOptions::default(), silent, None);
    let record = sim.run(ended).expect("it ends");
    assert_eq!((record.outcome, &record.unsaved), (RunOutcome::Succeeded, &None), "{record:?}");
    let told = || lock(&seen).effects.keys().filter(|(stage, _)| stage == "on_finish[0]").count();
    assert_eq!(told(), 1);
    lock(&seen).effects.clear();
    // The next one does, and the store takes no word of it.
    let (sim, memory) = (Sim::new(2), Arc::new(memory.restart("boot")));
    let silent = Hung::new(&memory, |request| matches!(request, Request::NoticeDone(..) | Request::AddEvents(..)));
    let state = State::new(silent);
    let world = sim.world();
    let send = async {
        let left = state.notices().await.expect("it answers");
        let details = state.details(&left[0].run).await.expect("it answers").expect("it is there");
        Runner::new(world).send_notices(&job, RunOptions::default(), &state, &details, &[left[0].place]).await
    };
    sim.run(send).expect("it ends").expect("they are sent");
    assert!(sim.elapsed() <= ms(80_000), "{:?}", sim.elapsed());
    assert_eq!(told(), 1);
    // It is told of again: at least once.
    let left = State::new(Arc::new(memory.restart("boot")));
    assert_eq!(Sim::new(3).run(async { left.notices().await.expect("it answers").len() }), Ok(1));
}

#[test]
fn what_cannot_be_noted_for_keep_out_does_not_cost_a_run_its_end() {
    let text = r#"Job(keep_out: "30d", stages: [
        Stage(name: "list", key: "{{ item.id }}", run: [Items(list: [{"id": "P0"}, {"id": "P1", "slow": 20000}])]),
        Stage(name: "work", workers: 1, run: [Call(handler: "work"), Write(json: "{{ run.date }}/{{ key }}.json")]),
    ])"#;
    for stop in [None, Some(ms(500))] {
        let (sim, memory, out) = (Sim::new(1), memory(), tempfile::tempdir().expect("a folder"));
        let job = job_of(text, &handlers(&Seen::default()));
        // So many are asked for only when they are noted.
        let store =
            Hung::new(&memory, |request| matches!(request, Request::Outputs(_, limit) if *limit == KEEP_OUT_FILES_MAX));
        let options = RunOptions { out: out.path().to_owned(), ..RunOptions::default() };
        let record = sim.run(begun(sim.world(), &job, options, store, stop)).expect("it ends");
        let outcome = if stop.is_some() { RunOutcome::Interrupted } else { RunOutcome::Succeeded };
        assert_eq!((record.outcome, &record.unsaved), (outcome, &None), "{record:?}");
        let state = State::new(memory.clone());
        let look = async move {
            let details = state.details("night").await.expect("it answers").expect("it is there");
            let rows = state.rows(&details.head.run);
            let said = rows.events(EventQuery { limit: 99, ..EventQuery::default() }).await.expect("it answers");
            assert!(said.iter().any(|(_, line)| line.level == 2 && line.text.contains("keep_out")), "{said:?}");
            details.head.outcome
        };
        let kept = Sim::new(2).run(look).expect("it ends");
        assert_eq!(kept, if stop.is_some() { None } else { Some(RunOutcome::Succeeded) });
    }
}

#[test]
fn a_run_that_cannot_be_resumed_is_let_go_again() {
    let text = r#"Job(services: [Service(name: "vendor", base: "http://127.0.0.1:1", auth: Bearer("{{ secret.token }}"))], stages: [
        Stage(name: "list", key: "{{ item.id }}", run: [Items(list: [{"id": "P0"}, {"id": "P1", "slow": 20000}])]),
        Stage(name: "work", workers: 1, run: [Call(handler: "work")]),
    ])"#;
    let job = job_of(text, &handlers(&Seen::default()));
    let with = || RunOptions { secrets: [("token".to_owned(), Secret::new("x"))].into(), ..RunOptions::default() };
    let (sim, first) = (Sim::new(1), memory());
    let record = sim.run(begun(sim.world(), &job, with(), first.clone(), Some(ms(500)))).expect("it ends");
    assert_eq!(record.outcome, RunOutcome::Interrupted, "{record:?}");
    let (sim, second) = (Sim::new(2), Arc::new(first.restart("boot")));
    let (world, state) = (sim.world(), State::new(second.clone()));
    let story = async {
        let run = state.unfinished(None).await.expect("it answers")[0].run.clone();
        let refused = Runner::new(world.clone()).resume(&job, RunOptions::default(), &state, &run).await;
        assert!(matches!(refused, Err(StartError::NoSecret(_))), "{:?}", refused.err());
        let head = state.unfinished(None).await.expect("it answers").remove(0);
        assert!(!head.alive, "nobody works on it");
        assert_eq!(head.crashes, 0, "nobody died");
        // The secret is there now.
        resumed(world, &job, with(), second, None).await
    };
    let record = sim.run(story).expect("it ends");
    assert_eq!(record.outcome, RunOutcome::Succeeded, "{record:?}");
}

#[test]
fn a_file_that_could_not_be_written_fails_the_run_in_whatever_pass_that_was() {
    let text = r#"Job(stages: [
        Stage(name: "list", key: "{{ item.id }}", run: [Items(list: [{"id": "P0", "to": "blocked/x"}, {"id": "P1", "to": "y", "slow": 20000}])]),
        Stage(name: "work", workers: 1, tolerate: "9", run: [Call(handler: "work"), Write(json: "{{ item.to }}")]),
    ])"#;
    let mut reasons = Vec::new();
    for stop in [None, Some(ms(500))] {
        let out = tempfile::tempdir().expect("a folder");
        std::fs::write(out.path().join("blocked"), "a file").expect("written");
        let options = || RunOptions { out: out.path().to_owned(), ..RunOptions::default() };
        let job = job_of(text, &handlers(&Seen::default()));
        let (sim, memory) = (Sim::new(1), memory());
        let first = begun(sim.world(), &job, options(), memory.clone(), stop);
        let mut record = sim.run(first).expect("it ends");
        if stop.is_some() {
            assert_eq!(record.outcome, RunOutcome::Interrupted, "{record:?}");
            let (sim, second) = (Sim::new(2), Arc::new(memory.restart("boot")));
            record = sim.run(resumed(sim.world(), &job, options(), second, None)).expect("it ends");
        }
        assert_eq!(record.outcome, RunOutcome::Failed, "{record:?}");
        reasons.push(record.reason);
    }
    assert_eq!(reasons[0], reasons[1], "as if it had not been stopped");
}
