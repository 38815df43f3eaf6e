//! A program of your own that runs a job: a handler in Rust, a job from text, a run on your executor, its record.
//!
//! ```text
//! cargo run --example embed
//! ```

use async_executor::Executor;
use lamplighter::{
    action::{Call, CallError, Handlers},
    item::Value,
    job::Job,
    report,
    run::{RunOptions, Runner, StoreChoice},
    world::World,
};
use std::{error::Error, path::Path, sync::Arc, time::Duration};

/// Five readings: one is missing its value, one is far from the others.
const JOB: &str = r#"
Job(
    description: "Score readings by a handler written in Rust",
    deadline: "1m",
    stages: [
        Stage(name: "readings", key: "{{ item.id }}", run: [
            Items(list: [
                {"id": "a", "value": 36.6}, {"id": "b", "value": 36.9}, {"id": "c"},
                {"id": "d", "value": 41.2}, {"id": "e", "value": 36.4},
            ]),
        ]),
        Stage(name: "scores", workers: 4, tolerate: "20%", run: [
            Call(handler: "score", args: {"usual": 36.6}, into: "score"),
        ]),
        Stage(name: "summary", gather: All, run: [
            Jq(filter: "{scored: [items.score] | length, highest: [items] | max_by(.score), missing: [failures.key]}"),
            Log(message: "{{ value.scored }} scored, the highest is {{ value.highest.id }}, missing: {{ value.missing | join(', ') }}"),
        ]),
    ],
)
"#;

/// How far a reading is from the usual value. Whatever it waits for, it waits for on the run's clock.
async fn score(call: Call) -> Result<Value, CallError> {
    let number = |value: &Value, name: &str| value.get(name).and_then(Value::as_f64);
    let value = number(&call.value, "value").ok_or_else(|| CallError::give_up("the reading has no value"))?;
    let usual = number(call.args(), "usual").ok_or_else(|| CallError::give_up("args need `usual`"))?;
    call.sleep(Duration::from_millis(20)).await;
    Ok(((value - usual).abs() * 10.0).round().into())
}

fn main() -> Result<(), Box<dyn Error>> {
    let handlers = Handlers::new().add("score", score)?;
    // Every problem of the text at once, with line and column; remarks are no problems.
    let checked = Job::from_ron("scores", JOB, Path::new("."), &handlers)?;
    for remark in &checked.remarks {
        println!("remark: {}", remark.message);
    }
    let job = Arc::new(checked.job);

    // The executor is yours: run it on as many threads as you like, beside whatever else lives on it.
    let executor = Arc::new(Executor::new());
    let runner = Runner::new(World::real(executor.clone()));
    let options = RunOptions {
        out: std::env::temp_dir(),
        store: StoreChoice::Memory { limit: 1 << 20 },
        ..RunOptions::default()
    };
    let run = runner.start(&job, options)?;
    println!("run {} has started", run.id());
    let record = smol::block_on(executor.run(run));

    print!("{}", report::text(&record));
    println!("{}", serde_json::to_string_pretty(&record)?);
    Ok(())
}
