//! Cancel at any moment (RUNS section 6, D4): first reason kept, items settled at once, nothing left.

use super::lab::{Lab, Script, What, ms, options, source};
use lamplighter::{
    item::RunOutcome,
    run::{RunOptions, Runner},
    world::sim::Sim,
};

use std::future::Future;

/// Sources, retries, hand-over, order, fan-out, a long wait, two kinds of gathers.
fn busy() -> Lab {
    Lab::new(&format!(
        "{}, Stage(name: \"first\", workers: 2, buffer: 0, waiting: 2, tolerate: \"99\",
            retry: Retry(max_attempts: 3, initial_interval: \"4ms\"), run: [Call(handler: \"act\", args: {{\"jit\": 3}}), Jq(filter: \"., .\")]),
         Stage(name: \"second\", workers: 3, buffer: 1, order: Input, run: [Call(handler: \"act\", args: {{\"jit\": 4, \"fails\": 0}})]),
         Stage(name: \"third\", from: [\"first\"], waiting: 0, tolerate: \"99\",
            retry: Retry(max_attempts: 2, initial_interval: \"12s\", max_interval: \"12s\"), run: [Call(handler: \"act\", args: {{\"ms\": 1}})]),
         Stage(name: \"by\", from: [\"second\", \"third\"], gather: By(\"{{{{ item.g }}}}\"), workers: 2, tolerate: \"99\",
            run: [Jq(filter: \"[items] | length\"), Call(handler: \"act\", args: {{\"jit\": 3}})]),
         Stage(name: \"all\", from: [\"by\"], gather: All, run: [Jq(filter: \"[items]\"), Call(handler: \"act\", args: {{\"ms\": 2}})])",
        source(9, |i| format!("\"g\": {}, \"fails\": {}", i % 2, i % 4))
    ))
    .deferring()
}

#[test]
fn a_cancel_at_any_moment_settles_everything_at_once_and_keeps_the_first_reason() {
    let lab = busy();
    let whole = lab.run(0).elapsed;
    let mut cut = 0;
    for k in 0..600u64 {
        let after = match k % 4 {
            0 => ms(0),
            1 => ms(k % 40),
            2 => ms((k * 37) % 30_000),
            _ => ms((whole.as_millis() as u64).saturating_sub(k % 20)),
        };
        let polls = (k * 7 % 60) as usize;
        let done = lab.run_with(k, options(), Script::CancelTwice(after, polls));
        let Some((at, events)) = done.cut_at else { continue };
        if done.outcome() == RunOutcome::Partial && at == done.elapsed && events == done.events.len() {
            continue; // It had ended in the same tick.
        }
        cut += 1;
        assert_eq!(done.outcome(), RunOutcome::Cancelled, "seed {k}: {:?}", done.record);
        assert_eq!(done.reason(), "cancelled by the test");
        assert_eq!(done.elapsed, at, "seed {k}: it takes no time");
        let late = done.events[events..].iter().filter(|event| event.what == What::Began).count();
        assert_eq!(late, 0, "seed {k}: work was begun after the cancel");
        for stage in &done.record.stages {
            assert_eq!(stage.counts.timed_out, 0, "{:?}", done.record);
        }
    }
    assert!(cut > 400, "{cut}");
}

#[test]
fn a_cancel_at_every_early_step_is_whole() {
    for lab in [
        Lab::new(&format!(
            "{}, Stage(name: \"work\", workers: 2, buffer: 0, run: [Call(handler: \"act\")]),
             Stage(name: \"end\", buffer: 0, run: [Call(handler: \"sink\")])",
            source(6, |_| String::new())
        )),
        Lab::new(&format!(
            "{}, Stage(name: \"work\", workers: 2, buffer: 1, run: [Call(handler: \"act\")]),
             Stage(name: \"end\", gather: By(\"{{{{ item.id }}}}\"), run: [Call(handler: \"sink\")])",
            source(6, |_| String::new())
        )),
    ] {
        for polls in 0..120 {
            for seed in 0..6 {
                let done = lab.run_with(seed, options(), Script::Cancel(ms(0), polls));
                if let Some((at, _)) = done.cut_at {
                    // It may have ended in the same tick.
                    let whole = done.counts("end").ok == 6;
                    assert!(done.outcome() == RunOutcome::Cancelled || whole, "{:?}", done.record);
                    assert_eq!(at, ms(0));
                    let (work, end) = (done.counts("work"), done.counts("end"));
                    assert_eq!(done.counts("list").ok, work.items, "every listed item arrived");
                    assert!(end.items <= work.ok || end.items <= 6);
                }
            }
        }
    }
}

#[test]
fn a_dropped_handle_cancels_the_run_and_leaves_no_task() {
    let lab = busy();
    for k in 0..200u64 {
        let after = if k % 2 == 0 { ms(k % 30) } else { ms(k * 131 % 30_000) };
        let events = lab.drop_at(k, after, (k * 5 % 50) as usize);
        let late = events.iter().filter(|event| event.at > after && event.what == What::Began).count();
        assert_eq!(late, 0, "seed {k}");
    }
}

#[test]
fn a_run_that_is_dropped_before_it_was_polled_leaves_nothing() {
    busy().drop_at(1, ms(0), 0);
    let lab = busy();
    let sim = Sim::new(1);
    let world = sim.world();
    let run = Runner::new(world.clone()).start(&lab.job, options()).expect("it starts");
    drop(run);
    sim.run(async move { world.sleep(ms(1)).await }).expect("no deadlock");
    assert_eq!(sim.leaked(), 0);
}

#[test]
fn a_cancel_does_not_wait_for_a_reader_of_the_tap() {
    let lab =
        Lab::new(&format!("{}, Stage(name: \"work\", run: [Call(handler: \"act\")])", source(9, |_| String::new())));
    for seed in 0..20 {
        let (sender, unread) = async_channel::bounded(1);
        let options = RunOptions { until: Some("work".into()), tap: Some(sender), ..options() };
        let done = lab.run_with(seed, options, Script::Cancel(ms(5), 0));
        assert_eq!((done.outcome(), done.elapsed), (RunOutcome::Cancelled, ms(5)));
        assert_eq!(unread.len(), 1);
    }
}

#[test]
fn items_that_wait_in_the_store_are_cancelled_by_name() {
    let lab = Lab::new(&format!(
        "{}, Stage(name: \"work\", workers: 2, retry: Retry(max_attempts: 2, initial_interval: \"1h\", max_interval: \"1h\", jitter: Exact),
            run: [Call(handler: \"act\")])",
        source(5, |i| if i < 3 { "\"fails\": 1".into() } else { String::new() })
    ))
    .deferring();
    for seed in 0..20 {
        let done = lab.run_with(seed, options(), Script::Cancel(ms(600_000), 0));
        assert_eq!(done.six("work"), [5, 2, 0, 0, 3, 0]);
        assert_eq!(done.missing("work").keys().collect::<Vec<_>>(), ["P0", "P1", "P2"]);
        assert!(done.record.failures.iter().all(|failure| failure.attempts == 1), "{:?}", done.record.failures);
        assert_eq!(done.elapsed, ms(600_000));
    }
}

#[test]
fn a_kill_ends_the_wait_for_a_notice() {
    let lab = Lab::job(
        "Job(run: [Call(handler: \"act\", args: {\"bad\": 1})], on_finish: [Notify(when: [Failed], run: [Call(handler: \"act\", args: {\"hang\": 1})])])",
    );
    let sim = Sim::new(1);
    let world = sim.world();
    let record = sim.run(async {
        let run = Runner::new(world.clone()).start(&lab.job, options()).expect("it starts");
        let run = std::sync::Arc::new(std::sync::Mutex::new(run));
        let (killer, clock) = (run.clone(), world.clone());
        let _task = world.spawn(async move {
            clock.sleep(ms(700)).await;
            killer.lock().expect("one thread").kill("the test");
        });
        std::future::poll_fn(|cx| std::pin::Pin::new(&mut *run.lock().expect("one thread")).poll(cx)).await
    });
    assert_eq!(record.expect("no deadlock").outcome, RunOutcome::Failed);
    assert_eq!((sim.elapsed(), sim.leaked()), (ms(700), 0));
}
