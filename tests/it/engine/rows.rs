//! Rows of items, and stores that are slow, full or broken (RUNS S1, S2, S4).

use super::{
    lab::{Lab, Script, lazy, ms, options, source, spied},
    silent::Hung,
};
use lamplighter::{
    action::{Call, CallError, Handlers},
    item::{RunOutcome, Value},
    job::Job,
    run::{RunOptions, Runner, StoreChoice},
    store::{Request, Row, RowEnd, memory::Memory},
    world::sim::Sim,
};
use std::{path::Path, sync::Arc, time::Duration};

fn job() -> Lab {
    Lab::new(&format!(
        "{}, Stage(name: \"a\", workers: 3, tolerate: \"99\", retry: Retry(max_attempts: 2, initial_interval: \"15s\", max_interval: \"15s\", jitter: Exact),
            run: [Call(handler: \"act\", args: {{\"jit\": 3}})]),
         Stage(name: \"b\", workers: 2, buffer: 0, run: [Jq(filter: \"., .\"), Call(handler: \"act\", args: {{\"fails\": 0, \"jit\": 2}})]),
         Stage(name: \"all\", gather: All, run: [Jq(filter: \"[items] | length\"), Call(handler: \"sink\")])",
        source(14, |i| if i % 7 == 3 { "\"bad\": 1".into() } else { format!("\"fails\": {}", i % 3) })
    ))
    .deferring()
}

#[test]
fn every_item_has_one_last_row_and_a_row_that_waits_before_it_only_if_it_was_deferred() {
    let lab = job();
    for seed in 0..40 {
        let (store, spy) = spied();
        let options = RunOptions { store: StoreChoice::Given(store), ..options() };
        let done = lab.run_with(seed, options, Script::Await);
        assert_eq!(done.outcome(), RunOutcome::Partial, "{:?}", done.record);
        let rows: Vec<Row> = spy
            .lock()
            .expect("one thread")
            .iter()
            .filter_map(|request| match request {
                Request::Put(_, rows, _) => Some(rows.clone()),
                _ => None,
            })
            .flatten()
            .collect();
        let mut ends = std::collections::BTreeMap::new();
        for row in &rows {
            let waits = matches!(row.end, RowEnd::Retry { .. });
            let (waited, ended) = ends.entry((row.stage, row.lineage.clone())).or_insert((0, 0));
            assert!(*ended == 0, "a settled item has no further row: {row:?}");
            *(if waits { waited } else { ended }) += 1;
        }
        assert!(ends.values().all(|(_, ended)| *ended == 1));
        // Missing ones of every stage above the report, ok ones of the stage that it reads, and those that waited.
        let of = |place: u16, ok: bool| {
            let rows = rows.iter().filter(|row| row.stage == place);
            rows.filter(|row| matches!(row.end, RowEnd::Done(outcome) if outcome.is_missing() != ok)).count() as u64
        };
        let waited = ends.iter().filter(|((place, _), (waited, _))| *place == 1 && *waited > 0).count() as u64;
        assert_eq!(of(1, false), done.counts("a").missing());
        assert!(waited > 0 && of(1, true) <= waited);
        assert_eq!((of(0, true), of(2, true)), (0, done.counts("b").ok));
        // Only those that the gather reads keep their values.
        let kept: usize =
            rows.iter().filter(|row| matches!(row.end, RowEnd::Done(_))).map(|row| row.values.len()).sum();
        assert_eq!(kept as u64, 2 * done.counts("b").ok);
    }
}

#[test]
fn a_slow_store_changes_no_output_and_loses_nothing() {
    let lab = job();
    let expected = lab.run(0);
    for seed in 0..60 {
        let options = RunOptions { store: StoreChoice::Given(lazy(64 << 20)), ..options() };
        let done = lab.run_with(seed, options, Script::Await);
        assert_eq!((done.outcome(), &done.sunk), (expected.outcome(), &expected.sunk));
        assert_eq!(done.record.failures, expected.record.failures);
    }
}

#[test]
fn a_cancel_over_a_slow_store_is_whole() {
    let lab = job();
    for seed in 0..150 {
        let options = RunOptions { store: StoreChoice::Given(lazy(64 << 20)), ..options() };
        let script = Script::CancelTwice(ms(seed % 50), (seed % 11) as usize);
        let done = lab.run_with(seed, options, script);
        assert_eq!(done.outcome(), RunOutcome::Cancelled, "{:?}", done.record);
        let (at, _) = done.cut_at.expect("it was cut");
        assert!(done.elapsed <= at + ms(40), "only what the store was given is waited for: {:?}", done.elapsed - at);
    }
}

#[test]
fn a_full_store_fails_the_run_by_name_and_settles_everything() {
    let lab = job();
    let mut failed = 0;
    for limit in (0..9000).step_by(300) {
        for seed in 0..3 {
            let options = RunOptions { store: StoreChoice::Memory { limit }, ..options() };
            let done = lab.run_with(seed, options, Script::Await);
            if done.outcome() == RunOutcome::Failed {
                assert!(done.reason().contains("spool"), "{}", done.reason());
                failed += 1;
            }
        }
    }
    assert!(failed > 20, "{failed}");
}

#[test]
fn a_run_that_needs_no_rows_opens_no_store() {
    let lab = Lab::new(
        "Stage(name: \"list\", run: [Jq(filter: \"range(9)\")]), Stage(name: \"work\", tolerate: \"9\", run: [Call(handler: \"act\")])",
    );
    for seed in 0..5 {
        let (store, spy) = spied();
        lab.run_with(seed, RunOptions { store: StoreChoice::Given(store), ..options() }, Script::Await);
        assert_eq!(spy.lock().expect("one thread").len(), 0);
    }
}

#[test]
fn a_gather_begins_after_a_flush() {
    let lab = job();
    let (store, spy) = spied();
    lab.run_with(1, RunOptions { store: StoreChoice::Given(store), ..options() }, Script::Await);
    let spy = spy.lock().expect("one thread");
    let place = |of: fn(&Request) -> bool| spy.iter().position(of).expect("it was asked");
    let flush = place(|request| matches!(request, Request::Flush(_)));
    let read = place(|request| matches!(request, Request::Values { .. }));
    let last_put = spy.iter().rposition(|request| matches!(request, Request::Put(_, rows, _) if rows[0].stage < 3));
    assert!(last_put < Some(flush) && flush < read);
}

/// Fault 52: whatever the engine waits for in vain, the run ends by name no later than its deadline, the grace period and the
/// patience with what hangs in the kernel.
#[test]
fn a_store_that_never_answers_again_ends_the_run_by_name() {
    let text = r#"Job(deadline: "60s", stages: [
        Stage(name: "list", key: "{{ item }}", run: [Items(list: ["a", "b", "c"])]),
        Stage(name: "work", workers: 2, run: [Call(handler: "give"), Write(json: "{{ key }}.json")]),
        Stage(name: "by", gather: By("{{ item }}"), run: [Call(handler: "give")]),
        Stage(name: "all", from: ["work"], gather: All, run: [Call(handler: "give")]),
    ])"#;
    let handlers = Handlers::new()
        .add("give", |call: Call| async move { Ok::<Value, CallError>((*call.value).clone()) })
        .expect("one handler");
    let job = Arc::new(Job::from_ron("hung", text, Path::new("."), &handlers).expect("a job").job);
    let mut ended_well = false;
    for left in 0..60 {
        let dir = tempfile::tempdir().expect("a folder");
        let sim = Sim::new(left as u64);
        let store = Hung::after(&Arc::new(Memory::new(1 << 20)), left);
        let options = RunOptions { store: StoreChoice::Given(store), out: dir.path().to_owned(), ..options() };
        let run = Runner::new(sim.world()).start(&job, options).expect("starts");
        let record = sim.run(run).unwrap_or_else(|stalled| panic!("{left}: {stalled:?}"));
        assert!(sim.elapsed() <= Duration::from_secs(60 + 10 + 5), "{left}: {:?}", sim.elapsed());
        assert_eq!(sim.leaked(), 0, "{left}");
        ended_well = record.outcome == RunOutcome::Succeeded;
        for stage in &record.stages {
            assert_eq!(stage.counts.items, stage.counts.settled(), "{left}: {record:?}");
        }
        if !ended_well {
            assert!(record.reason.is_some(), "{left}: {record:?}");
        }
    }
    assert!(ended_well, "with so many answers it succeeds");
}
