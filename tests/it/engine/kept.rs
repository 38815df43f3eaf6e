//! A run that is kept, and crashes: whatever poll its process dies at, the next one goes on where it was.

use super::lab::ms;
use lamplighter::{
    action::{Call, CallError, Handlers},
    item::Value,
    job::{Job, Surroundings},
    run::{Keeping, RunOptions, Runner, kept_job},
    store::{RunKind, State, Store, memory::Memory},
    world::sim::Sim,
};
use serde_json::json;
use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

/// What the outside has seen: it does not crash with us.
#[derive(Default)]
struct Outside {
    /// Attempts by stage and key.
    effects: BTreeMap<(String, String), u32>,
    /// Idempotency keys by stage and key.
    names: BTreeMap<(String, String), String>,
    reports: Vec<Value>,
}

type Seen = Arc<Mutex<Outside>>;

fn lock(seen: &Seen) -> std::sync::MutexGuard<'_, Outside> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn handlers(seen: &Seen) -> Handlers {
    let (a, b) = (seen.clone(), seen.clone());
    let work = move |call: Call| {
        let seen = a.clone();
        async move {
            let place = (call.stage().to_string(), call.key.to_string());
            {
                let mut seen = lock(&seen);
                *seen.effects.entry(place.clone()).or_default() += 1;
                let name = call.idempotency_key();
                assert_eq!(
                    *seen.names.entry(place).or_insert_with(|| name.clone()),
                    name,
                    "{:?}: not the same over crashes",
                    call.key
                );
            }
            call.sleep(ms(call.world().random() % 4)).await;
            match call.value.get("bad") {
                Some(_) => Err(CallError::give_up("bad")),
                None => Ok((*call.value).clone()),
            }
        }
    };
    let report = move |call: Call| {
        let seen = b.clone();
        async move {
            lock(&seen).reports.push((*call.value).clone());
            Ok(Value::Null)
        }
    };
    Handlers::new().add("work", work).and_then(|handlers| handlers.add("report", report)).expect("new names")
}

/// One job, run until it has ended, its process dying at each of these polls of its passes.
struct Night {
    record: Value,
    outside: Outside,
    crashes: usize,
    /// Polls of the pass that came to its end.
    steps: u64,
}

const STORE_BYTES: u64 = 64 << 20;

fn night(text: &str, seed: u64, crash_at: &[u64]) -> Night {
    let seen = Seen::default();
    let handlers = handlers(&seen);
    let job = Arc::new(Job::from_ron("night", text, Path::new("."), &handlers).expect("a good job").job);
    let mut memory = Memory::losing(STORE_BYTES);
    let mut crashes = 0;
    let mut crash_at = crash_at.iter();
    for pass in 0.. {
        assert!(pass < 200, "it never comes to an end");
        let limit = crash_at.next();
        let sim = Sim::new(seed * 1000 + pass);
        let sim = match limit {
            Some(polls) => sim.step_limit(*polls),
            None => sim,
        };
        let store: Arc<dyn Store> = Arc::new(memory.restart("boot"));
        let state = State::new(store);
        let runner = Runner::new(sim.world());
        let surroundings = Surroundings { handlers: handlers.clone(), ..Surroundings::default() };
        let story = async {
            let unfinished = state.unfinished(Some("night")).await.expect("the state answers");
            if unfinished.is_empty()
                && let Some(details) = state.details("night").await.expect("the state answers")
            {
                // It died when everything was on the disk.
                return serde_json::from_str(&details.record.expect("it has ended")).expect("a record");
            }
            let run = match unfinished.first() {
                None => {
                    let keeping = Keeping {
                        state: state.clone(),
                        trigger: "manual".into(),
                        fire_key: None,
                        kind: RunKind::Foreground,
                        alone: true,
                    };
                    runner.begin(&job, RunOptions::default(), &keeping).await
                }
                Some(head) => {
                    let details = state.details(&head.run).await.expect("the state answers").expect("it is there");
                    let job = Arc::new(kept_job(&details, &surroundings).expect("the same job").job);
                    runner.resume(&job, RunOptions::default(), &state, &head.run).await
                }
            };
            serde_json::to_value(run.expect("it starts").await).expect("JSON")
        };
        match sim.run(story) {
            Ok(record) => {
                assert_eq!(sim.leaked(), 0);
                let outside = std::mem::take(&mut *lock(&seen));
                return Night { record, outside, crashes, steps: sim.steps() };
            }
            Err(_) => {
                assert!(limit.is_some(), "seed {seed}: it hangs");
                crashes += 1;
                memory = memory.restart("boot");
            }
        }
    }
    unreachable!("the loop ends by itself");
}

fn job(items: usize, source: &str, work: &str) -> String {
    let list: Vec<String> = (0..items)
        .map(|at| format!("{{\"id\": \"P{at}\", \"g\": {}{}}}", at % 3, if at % 5 == 4 { ", \"bad\": 1" } else { "" }))
        .collect();
    format!(
        "Job(stages: [
            Stage(name: \"list\", {source} run: [Items(list: [{}])]),
            Stage(name: \"work\", {work} tolerate: \"99\", run: [Call(handler: \"work\"), Jq(filter: \"., .\")]),
            Stage(name: \"more\", from: [\"work\"], workers: 2, tolerate: \"99\", run: [Call(handler: \"work\")]),
            Stage(name: \"groups\", from: [\"more\"], gather: By(\"{{{{ item.g }}}}\"), run: [Jq(filter: \"[items] | length\")]),
            Stage(name: \"report\", from: [\"groups\", \"more\"], gather: All, run: [
                Jq(filter: \"{{groups: [items(\\\"groups\\\")], more: [items(\\\"more\\\").id], missing: [failures], counts: counts}}\"),
                Call(handler: \"report\"),
            ]),
        ])",
        list.join(", ")
    )
}

/// A night that crashed ends as one that did not, and repeats no more than it may.
fn holds(night: &Night, whole: &Night, crash_at: &[u64], workers: u32) {
    let context = || format!("crashes at {crash_at:?}: {:?}", night.record);
    for field in ["outcome", "reason", "stages", "failures", "unsaved"] {
        assert_eq!(night.record[field], whole.record[field], "{field}: {}", context());
    }
    // The report was made at least once, and always the same.
    assert!(!night.outside.reports.is_empty());
    for report in &night.outside.reports {
        assert_eq!(*report, whole.outside.reports[0], "{}", context());
    }
    // O5: what ran again was in flight or not committed when a process died.
    assert_eq!(night.outside.effects.len(), whole.outside.effects.len());
    for (place, times) in &night.outside.effects {
        assert!(*times <= 1 + night.crashes as u32, "{place:?} ran {times} times: {}", context());
    }
    let _ = workers;
}

#[test]
fn a_process_that_dies_at_any_poll_is_followed_by_one_that_ends_the_night() {
    for (source, work) in [("key: \"{{ item.id }}\",", "workers: 3, buffer: 2,"), ("", "workers: 1, buffer: 0,")] {
        let text = job(6, source, work);
        let whole = night(&text, 1, &[]);
        assert_eq!(whole.record["outcome"], "partial", "{:?}", whole.record);
        assert_eq!(whole.outside.reports[0]["groups"], json!([4, 2, 4]));
        for polls in 1..whole.steps {
            let crashed = night(&text, 1, &[polls]);
            assert_eq!(crashed.crashes, 1);
            holds(&crashed, &whole, &[polls], 3);
        }
    }
}

#[test]
fn a_night_that_dies_again_and_again_comes_to_its_end() {
    let text = job(9, "key: \"{{ item.id }}\",", "workers: 3, order: Input,");
    let whole = night(&text, 7, &[]);
    for seed in 0..200 {
        let mut dice = fastrand::Rng::with_seed(seed);
        let crash_at: Vec<u64> = (0..dice.usize(2..5)).map(|_| dice.u64(1..whole.steps)).collect();
        let crashed = night(&text, seed, &crash_at);
        holds(&crashed, &whole, &crash_at, 3);
    }
}
