//! A million items through 3 stages of 4 workers: Lamplighter by its public API with every guard on, beside bare loops over
//! async-channel that move the same items one by one, and beside Go. Then what each guard costs, what memory it takes, and
//! how fast a thousand pending items are cancelled.
//!
//! `cargo bench --bench pipeline`; `-- cap64` for one table. Peers: `apt-get install golang-go`.
//!
//! The items: a key and an object of 4 numbers. `Items(matrix:)` makes them in Lamplighter, the producer makes the same ones
//! in the bare loops. The action is one boxed future that gives back what it was called with.

mod common;

use common::{Bench, Table};
use lamplighter::{
    action::{Call, CallError, Handlers},
    flow::{Inbox, WorkPermits},
    item::{RunOutcome, Value},
    job::Job,
    run::{RunOptions, Runner, StoreChoice},
    world::World,
};
use std::{
    future::Future,
    hint::black_box,
    panic::AssertUnwindSafe,
    path::Path,
    pin::Pin,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

const ITEMS: u64 = 1_000_000;
const STAGES: usize = 3;
const WORKERS: usize = 4;
/// Items that hang when a run is cancelled.
const PENDING: u64 = 1000;

fn main() -> ExitCode {
    let mut bench = Bench::new("pipeline");
    for (name, capacity, title) in [
        ("cap64", 64, "JSON items, 3 stages x 4 workers, capacity 64"),
        ("cap1", 1, "JSON items, 3 stages x 4 workers, capacity 1"),
        ("cap0", 0, "JSON items, 3 stages x 4 workers, hand-over (async-channel has none: capacity 1)"),
    ] {
        let go = |how: &str| common::go("pipeline", &[&ITEMS.to_string(), &capacity.to_string(), how]);
        bench = bench.table(
            Table::new(name, title, ITEMS, "item")
                .own("async-channel, bare", move || bare(capacity.max(1), json_item))
                .own("Lamplighter", move || lamplighter(&Shape { capacity, ..GUARDED }))
                .peer("Go, plain", go("plain"))
                .peer("Go, WithTimeout", go("timeout"))
                .idle(idle)
                .note("Lamplighter: panic fence, cancel, item deadline, timeout, settled tokens, counts."),
        );
    }
    for (name, capacity, title) in [
        ("flow64", 64, "opaque items (a number), the channel and the permits of a stage alone, capacity 64"),
        ("flow1", 1, "opaque items (a number), the channel and the permits of a stage alone, capacity 1"),
        ("flow0", 0, "opaque items (a number), hand-over"),
    ] {
        bench = bench.table(
            Table::new(name, title, ITEMS, "item")
                .own("async-channel, bare", move || bare(capacity.max(1), |place| place))
                .own("flow::Inbox, bare", move || inbox(capacity, false))
                .own("flow::Inbox, fence, permits", move || inbox(capacity, true))
                .peer("Go, plain", common::go("pipeline", &[&ITEMS.to_string(), &capacity.to_string(), "plain"])),
        );
    }
    bench = bench.table(
        Table::new(
            "opaque",
            "items that are numbers, by a whole job, 3 stages x 4 workers, capacity 64",
            ITEMS,
            "item",
        )
        .own("async-channel, bare", || bare(64, |place| place))
        .own("Lamplighter", || lamplighter(&Shape { opaque: true, ..GUARDED }))
        .own("only the source", || lamplighter(&Shape { opaque: true, stages: 0, ..GUARDED })),
    );
    let guards: [(&str, Shape); 10] = [
        ("no guard that can be left out", PLAIN),
        ("timeout", Shape { timeout: true, ..PLAIN }),
        ("item_deadline", Shape { item_deadline: true, ..PLAIN }),
        ("retry", Shape { retry: true, ..PLAIN }),
        ("all three", Shape { retry: true, ..GUARDED }),
        ("order: Input", Shape { ordered: true, ..PLAIN }),
        ("every action waits once", Shape { handler: "yield", ..PLAIN }),
        ("every action waits once, all three", Shape { handler: "yield", retry: true, ..GUARDED }),
        ("key: a template on the source", Shape { key: true, ..PLAIN }),
        ("a row for each item (gather)", Shape { gather: true, ..PLAIN }),
    ];
    let mut table = Table::new("guards", "what a guard costs, all 3 stages together", ITEMS, "item");
    for (name, shape) in guards {
        table = table.own(name, move || lamplighter(&shape));
    }
    bench = bench.table(table.own("only the source", || lamplighter(&Shape { stages: 0, ..PLAIN })));
    let fence = |name: &'static str, fenced: bool, yields: bool| (name, move || loops(fenced, yields));
    let mut table = Table::new("fence", "what cannot be left out: one worker loop, boxed action", ITEMS, "item");
    for (name, work) in [
        fence("ready at once", false, false),
        fence("ready at once, panic fence", true, false),
        fence("waits once", false, true),
        fence("waits once, panic fence", true, true),
    ] {
        table = table.own(name, work);
    }
    bench = bench.table(table);
    bench = bench.table(
        Table::new("memory", "peak of resident memory", ITEMS, "item")
            .rounds(1)
            .own("guarded", || lamplighter(&GUARDED))
            .own("key and store in the loop", || lamplighter(&Shape { key: true, gather: true, ..GUARDED }))
            .idle(idle),
    );
    bench
        .table(
            Table::new("cancel", "1,000 pending items, until the run is joined", PENDING, "item")
                .rounds(9)
                .own("Run::cancel", cancel),
        )
        .main()
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

/// A job of the bench.
#[derive(Clone, Copy)]
struct Shape {
    stages: usize,
    capacity: usize,
    timeout: bool,
    item_deadline: bool,
    retry: bool,
    ordered: bool,
    key: bool,
    gather: bool,
    /// Items are numbers.
    opaque: bool,
    handler: &'static str,
}

const PLAIN: Shape = Shape {
    stages: STAGES,
    capacity: 64,
    timeout: false,
    item_deadline: false,
    retry: false,
    ordered: false,
    key: false,
    gather: false,
    opaque: false,
    handler: "pass",
};

const GUARDED: Shape = Shape { timeout: true, item_deadline: true, ..PLAIN };

impl Shape {
    /// The job file: `Items` makes the values that `json_item` makes.
    fn job(&self) -> String {
        let list = |n: u64| (0..n).map(|n| n.to_string()).collect::<Vec<_>>().join(", ");
        let (ten, hundred) = (list(10), list(100));
        let set = |on: bool, text: &'static str| if on { text } else { "" };
        let stage = |place: usize| {
            format!(
                "Stage(name: \"s{place}\", workers: {WORKERS}, buffer: {}, {}{}{}{} run: [Call(handler: \"{}\")]),\n",
                self.capacity,
                set(self.timeout, "timeout: \"1m\","),
                set(self.item_deadline, "item_deadline: \"5m\","),
                set(self.retry, "retry: Retry(max_attempts: 3),"),
                set(self.ordered, "order: Input,"),
                self.handler,
            )
        };
        let stages: String = (1..=self.stages).map(stage).collect();
        let gather = set(self.gather, "Stage(name: \"end\", gather: All, run: [Jq(filter: \"counts.s3.ok\")]),");
        let key = set(self.key, "key: \"{{ item.a }}-{{ item.b }}-{{ item.c }}-{{ item.d }}\",");
        let list = match self.opaque {
            true => format!("Jq(filter: \"range({ITEMS})\")"),
            false => {
                format!("Items(matrix: {{\"a\": [{ten}], \"b\": [{ten}], \"c\": [{hundred}], \"d\": [{hundred}]}})")
            }
        };
        format!("Job(deadline: \"1h\", stages: [Stage(name: \"list\", {key} run: [{list}]),\n{stages}{gather}])")
    }
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

/// The same over the channel of a stage; `guarded` with its permits and the panic fence.
fn inbox(capacity: usize, guarded: bool) {
    let executor = async_executor::Executor::new();
    let action: Action<u64> = |item| Box::pin(async move { black_box(item) });
    let boxes: Vec<Arc<Inbox<u64>>> = (0..=STAGES).map(|_| Arc::new(Inbox::new(capacity))).collect();
    for place in 0..STAGES {
        // Of the workers of a stage the last one closes the next inbox.
        let (left, permits) = (Arc::new(AtomicU64::new(WORKERS as u64)), WorkPermits::new(WORKERS));
        for _ in 0..WORKERS {
            let (from, to, left, permits) =
                (boxes[place].clone(), boxes[place + 1].clone(), left.clone(), permits.clone());
            let worker = async move {
                let mut in_a_row = 0;
                loop {
                    let at_once = if !guarded || permits.may_go_on() { from.try_take() } else { None };
                    let item = match at_once {
                        Some(item) => item,
                        None => match from.drain().await {
                            Some(item) => item,
                            None => break,
                        },
                    };
                    let work = action(item);
                    let item = if guarded { fenced(work).await } else { work.await };
                    let sent = match to.try_send_with(item, |_| {}) {
                        Ok(()) => Ok(()),
                        Err(lamplighter::flow::Refused::Full(item) | lamplighter::flow::Refused::Closed(item)) => {
                            to.send_with(item, |_| {}).await
                        }
                    };
                    if sent.is_err() {
                        break;
                    }
                    in_a_row += 1;
                    if in_a_row % lamplighter::limits::READY_ITEMS_BEFORE_YIELD == 0 {
                        futures_lite::future::yield_now().await;
                    }
                }
                if left.fetch_sub(1, Ordering::AcqRel) == 1 {
                    to.close();
                }
            };
            let from = boxes[place].clone();
            executor.spawn(async move { from.telling_senders(worker).await }).detach();
        }
    }
    let (first, last) = (boxes[0].clone(), boxes[STAGES].clone());
    executor
        .spawn(async move {
            for place in 0..ITEMS {
                if first.send_with(place, |_| {}).await.is_err() {
                    break;
                }
            }
            first.close();
        })
        .detach();
    let seen = smol::block_on(executor.run(async {
        let (mut seen, mut batch) = (0, Vec::new());
        while let Some(item) = last.drain().await {
            black_box(item);
            last.take_all(&mut batch, usize::MAX);
            seen += 1 + batch.len() as u64;
            batch.clear();
        }
        seen
    }));
    assert_eq!(seen, ITEMS);
}

async fn fenced<T>(work: impl Future<Output = T>) -> T {
    use futures_lite::FutureExt;
    AssertUnwindSafe(work).catch_unwind().await.expect("no panic here")
}

/// One loop that runs a boxed action.
fn loops(guarded: bool, yields: bool) {
    let action = move |item: u64| -> Pin<Box<dyn Future<Output = u64> + Send>> {
        Box::pin(async move {
            if yields {
                futures_lite::future::yield_now().await;
            }
            black_box(item)
        })
    };
    let executor = async_executor::Executor::new();
    smol::block_on(executor.run(executor.spawn(async move {
        for item in 0..ITEMS {
            if guarded {
                fenced(action(item)).await
            } else {
                action(item).await
            };
        }
    })));
}

fn handlers() -> Handlers {
    Handlers::new()
        .add("pass", |call: Call| async move { Ok::<_, CallError>(call.value) })
        .and_then(|handlers| {
            handlers.add("yield", |call: Call| async move {
                futures_lite::future::yield_now().await;
                Ok::<_, CallError>(call.value)
            })
        })
        .expect("names")
}

fn lamplighter(shape: &Shape) {
    let job = Arc::new(Job::from_ron("pipeline", &shape.job(), Path::new("."), &handlers()).expect("a job").job);
    let executor = Arc::new(async_executor::Executor::new());
    let runner = Runner::new(World::real(executor.clone()));
    let folder = tempfile::tempdir().expect("a folder");
    let mut options = RunOptions { out: folder.path().to_owned(), ..RunOptions::default() };
    options.store = StoreChoice::Private { folder: Some(folder.path().to_owned()), limit: 2_000_000_000 };
    let run = runner.start(&job, options).expect("it starts");
    let record = smol::block_on(executor.run(run));
    assert_eq!(record.outcome, RunOutcome::Succeeded, "{:?}", record.reason);
    assert!(record.stages.iter().take(1 + shape.stages).all(|stage| stage.counts.ok == ITEMS));
}

/// All items hang; the time from the cancel until the run is joined is a figure of its own.
fn cancel() {
    let began = Arc::new(AtomicU64::new(0));
    let seen = began.clone();
    let handlers = Handlers::new().add("hang", move |call: Call| {
        let seen = seen.clone();
        async move {
            seen.fetch_add(1, Ordering::Relaxed);
            call.sleep(Duration::from_secs(3600)).await;
            Ok::<_, CallError>(call.value)
        }
    });
    let text = format!(
        "Job(stages: [Stage(name: \"list\", run: [Items(matrix: {{\"a\": [{}]}})]), \
         Stage(name: \"hang\", workers: {PENDING}, item_deadline: \"2h\", timeout: \"2h\", run: [Call(handler: \"hang\")])])",
        (0..PENDING).map(|n| n.to_string()).collect::<Vec<_>>().join(", ")
    );
    let job = Arc::new(Job::from_ron("cancel", &text, Path::new("."), &handlers.expect("a name")).expect("a job").job);
    let executor = Arc::new(async_executor::Executor::new());
    let run = Runner::new(World::real(executor.clone())).start(&job, RunOptions::default()).expect("it starts");
    smol::block_on(executor.run(async {
        while began.load(Ordering::Relaxed) < PENDING {
            futures_lite::future::yield_now().await;
        }
        common::begin();
        let then = common::now();
        run.cancel("the bench");
        let record = run.await;
        common::figure("ms to the join", common::seconds_since(then) * 1e3);
        common::end();
        assert_eq!(record.stages[1].counts.cancelled, PENDING);
    }));
}

/// What is there before the first item: the runtime, a job, a run of one item.
fn idle() {
    let text = "Job(stages: [Stage(name: \"list\", run: [Items(list: [1])])])";
    let job = Arc::new(Job::from_ron("idle", text, Path::new("."), &Handlers::new()).expect("a job").job);
    let executor = Arc::new(async_executor::Executor::new());
    let run = Runner::new(World::real(executor.clone())).start(&job, RunOptions::default()).expect("it starts");
    smol::block_on(executor.run(run));
}
