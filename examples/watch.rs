//! Watches a run from the same program: its progress, line by line, and a cancel when it takes too long.
//!
//! ```text
//! cargo run --example watch
//! ```

use async_executor::Executor;
use lamplighter::{
    action::{Call, CallError, Handlers},
    item::Value,
    job::Job,
    report,
    run::{Progress, RunOptions, Runner, StoreChoice},
    world::World,
};
use std::{error::Error, path::Path, sync::Arc, time::Duration};

/// A thousand items of a tenth of a second each, four at a time: 25 seconds.
const JOB: &str = r#"
Job(stages: [
    Stage(name: "list", run: [Jq(filter: "range(1000)")]),
    Stage(name: "work", workers: 4, run: [Call(handler: "nap")]),
])
"#;

/// The caller has no more time than this.
const PATIENCE: Duration = Duration::from_secs(2);

async fn nap(call: Call) -> Result<Value, CallError> {
    call.sleep(Duration::from_millis(100)).await;
    Ok(Value::Null)
}

/// One line: what each stage has done, and what it does now.
fn line(progress: &Progress) -> String {
    let stage = |stage: &lamplighter::run::StageProgress| {
        format!("{} {} of {}, {} in work", stage.name, stage.counts.ok, stage.counts.items, stage.working)
    };
    let stages: Vec<String> = progress.stages.iter().map(stage).collect();
    format!("{:4.1} s  {}", progress.elapsed.as_secs_f64(), stages.join("   "))
}

fn main() -> Result<(), Box<dyn Error>> {
    let handlers = Handlers::new().add("nap", nap)?;
    let job = Arc::new(Job::from_ron("naps", JOB, Path::new("."), &handlers)?.job);
    let executor = Arc::new(Executor::new());
    let world = World::real(executor.clone());
    let runner = Runner::new(world.clone());
    let options = RunOptions {
        out: std::env::temp_dir(),
        store: StoreChoice::Memory { limit: 1 << 20 },
        ..RunOptions::default()
    };
    let run = runner.start(&job, options)?;

    // The watcher and the run share one thread; a snapshot never slows the run.
    let record = smol::block_on(executor.run(async {
        while run.progress().elapsed < PATIENCE {
            println!("{}", line(&run.progress()));
            world.sleep(Duration::from_millis(250)).await;
        }
        run.cancel("a caller without patience");
        run.await
    }));
    print!("{}", report::text(&record));

    // Nothing of it goes on.
    while executor.try_tick() {}
    assert!(executor.is_empty());
    Ok(())
}
