//! A million items through 3 stages of 4 workers (N1, N2, hand-over): Lamplighter with every guard on beside bare loops
//! over async-channel that move the same items one by one, and beside Go.
//!
//! `cargo bench --bench pipeline`

mod common;

use common::{Bench, Table};
use lamplighter::{
    action::{Call, CallError, Handlers},
    item::{RunOutcome, Value},
    job::Job,
    run::{RunOptions, Runner},
    world::World,
};
use std::{future::Future, hint::black_box, path::Path, pin::Pin, process::ExitCode, sync::Arc};

const ITEMS: u64 = 1_000_000;
const STAGES: usize = 3;
const WORKERS: usize = 4;

fn main() -> ExitCode {
    let mut bench = Bench::new("pipeline");
    for (name, capacity, title) in [
        ("cap64", 64, "JSON items, 3 stages x 4 workers, capacity 64"),
        ("cap1", 1, "JSON items, 3 stages x 4 workers, capacity 1"),
        ("cap0", 0, "JSON items, 3 stages x 4 workers, hand-over (async-channel: capacity 1)"),
    ] {
        let text = job(capacity);
        let go = |how: &str| common::go("pipeline", &[&ITEMS.to_string(), &capacity.to_string(), how]);
        let table = Table::new(name, title, ITEMS, "item")
            .own("async-channel, bare", move || bare(capacity.max(1), json_item))
            .own("Lamplighter", move || lamplighter(&text))
            .peer("Go, plain", go("plain"))
            .peer("Go, WithTimeout", go("timeout"))
            .idle(idle);
        bench = bench.table(table);
    }
    bench.main()
}

/// What a bare loop moves: a key and a value of 4 fields behind one box.
#[expect(dead_code, reason = "it is carried")]
struct Item {
    key: Box<str>,
    value: Value,
}

fn json_item(place: u64) -> Box<Item> {
    let mut fields = serde_json::Map::new();
    for (name, value) in
        [("a", place / 100_000 % 10), ("b", place / 10_000 % 10), ("c", place / 100 % 100), ("d", place % 100)]
    {
        fields.insert(name.to_owned(), value.into());
    }
    Box::new(Item { key: place.to_string().into(), value: Value::Object(fields) })
}

/// The job that does the same: `Items` makes the same values.
fn job(capacity: usize) -> String {
    let list = |n: u64| (0..n).map(|n| n.to_string()).collect::<Vec<_>>().join(", ");
    let (ten, hundred) = (list(10), list(100));
    let stage = |place: usize| {
        format!(
            "Stage(name: \"s{place}\", workers: {WORKERS}, buffer: {capacity}, timeout: \"1m\", item_deadline: \"5m\", \
             run: [Call(handler: \"pass\")]),\n"
        )
    };
    let stages: String = (1..=STAGES).map(stage).collect();
    format!(
        "Job(deadline: \"1h\", stages: [Stage(name: \"list\", run: [Items(matrix: {{\"a\": [{ten}], \"b\": [{ten}], \
         \"c\": [{hundred}], \"d\": [{hundred}]}})]),\n{stages}])"
    )
}

type Action<T> = fn(T) -> Pin<Box<dyn Future<Output = T> + Send>>;

/// A producer, stages of workers and a collector over async-channel, with nothing but a boxed action in between.
fn bare<T: Send + 'static>(capacity: usize, make: fn(u64) -> T) {
    let executor = async_executor::Executor::new();
    let action: Action<T> = |item| Box::pin(async move { black_box(item) });
    let (first, mut last) = async_channel::bounded::<T>(capacity);
    for _ in 0..STAGES {
        let (send, receive) = async_channel::bounded::<T>(capacity);
        for _ in 0..WORKERS {
            let (last, send) = (last.clone(), send.clone());
            executor
                .spawn(async move {
                    while let Ok(item) = last.recv().await {
                        if send.send(action(item).await).await.is_err() {
                            break;
                        }
                    }
                })
                .detach();
        }
        last = receive;
    }
    executor
        .spawn(async move {
            for place in 0..ITEMS {
                if first.send(make(place)).await.is_err() {
                    break;
                }
            }
        })
        .detach();
    let seen = smol::block_on(executor.run(async {
        let mut seen = 0;
        while let Ok(item) = last.recv().await {
            black_box(item);
            seen += 1;
        }
        seen
    }));
    assert_eq!(seen, ITEMS);
}

fn lamplighter(text: &str) {
    let handlers = Handlers::new()
        .add("pass", |call: Call| async move { Ok::<_, CallError>((*call.value).clone()) })
        .expect("a name");
    let job = Arc::new(Job::from_ron("pipeline", text, Path::new("."), &handlers).expect("a job").job);
    let executor = Arc::new(async_executor::Executor::new());
    let runner = Runner::new(World::real(executor.clone()));
    let run = runner.start(&job, RunOptions::default()).expect("it starts");
    let record = smol::block_on(executor.run(run));
    assert_eq!(record.outcome, RunOutcome::Succeeded, "{:?}", record.reason);
    assert!(record.stages.iter().all(|stage| stage.counts.ok == ITEMS));
}

/// What is there before the first item: the runtime, a job, a run of one item.
fn idle() {
    let text = "Job(stages: [Stage(name: \"list\", run: [Items(list: [1])])])";
    let job = Arc::new(Job::from_ron("idle", text, Path::new("."), &Handlers::new()).expect("a job").job);
    let executor = Arc::new(async_executor::Executor::new());
    let run = Runner::new(World::real(executor.clone())).start(&job, RunOptions::default()).expect("it starts");
    smol::block_on(executor.run(run));
}
