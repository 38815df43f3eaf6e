//! Panics of the embedder's own code, and tasks that do not yield, in a process of their own that has nothing else in it.

use crate::left::{Alone, alone, here, passed};
use lamplighter::{
    action::{Call, CallError, Handlers},
    item::{RunOutcome, RunRecord, Value},
    run::StoreChoice,
    store::{Reply, Request, Store, StoreError, memory::Memory},
    world::BoxFuture,
};
use std::{
    panic::{panic_any, resume_unwind},
    sync::Arc,
    time::Duration,
};

/// Panics when it is dropped, as some payloads do.
struct Mine;

impl Drop for Mine {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            resume_unwind(Box::new("a payload that panics"));
        }
    }
}

/// `boom` panics for the keys `text`, `number`, `payload`, `early` and waits for `late`, whose future panics when it is cut.
fn handlers() -> Handlers {
    let boom = |call: Call| {
        if call.key.as_str() == "early" {
            resume_unwind(Box::new("before its future"));
        }
        async move {
            match call.key.as_str() {
                // Without a word on stderr: the hook would print it.
                "text" => resume_unwind(Box::new("a text")),
                "number" => resume_unwind(Box::new(42)),
                "payload" => resume_unwind(Box::new(Mine)),
                "late" => {
                    let _mine = Mine;
                    call.sleep(Duration::from_secs(3600)).await;
                }
                _ => {}
            }
            Ok::<Value, CallError>((*call.value).clone())
        }
    };
    Handlers::new().add("boom", boom).expect("one handler")
}

fn class_of(record: &RunRecord, key: &str) -> String {
    let failure = record.failures.iter().find(|failure| failure.key.as_str() == key);
    failure.map(|failure| format!("{} {}", failure.class, failure.message)).unwrap_or_default()
}

/// Faults 50 and 51: whatever it panics with, it is that item's failure.
#[test]
fn a_panic_of_any_payload_is_its_items_failure() {
    let test = || {
        let alone = Alone::new();
        let job = r#"Job(stages: [
            Stage(name: "s", key: "{{ item }}", run: [Items(list: ["text", "a", "number", "early", "payload", "b"])]),
            Stage(name: "w", workers: 2, tolerate: "4", run: [Call(handler: "boom"), Write(json: "{{ key }}")]),
            Stage(name: "g", gather: All, run: [Jq(filter: "[failures.class]"), Write(json: "missing")]),
        ])"#;
        let record = alone.run(job, &handlers(), |_| {});
        assert_eq!(record.outcome, RunOutcome::Partial, "{record:?}");
        assert_eq!(class_of(&record, "text"), "panic a text");
        assert_eq!(class_of(&record, "number"), "panic a panic without a text");
        assert_eq!(class_of(&record, "payload"), "panic a panic without a text");
        assert_eq!(class_of(&record, "early"), "panic before its future");
        assert_eq!(record.stages[1].counts.ok, 2);
        assert!(record.stages[2].counts.ok == 1);
    };
    alone(here!(a_panic_of_any_payload_is_its_items_failure), test, passed);
}

/// Fault 50: in the source, in the report, in a notice.
#[test]
fn a_panic_in_the_source_the_report_or_a_notice_ends_the_run_by_name() {
    let test = || {
        let alone = Alone::new();
        let handlers = Handlers::new()
            .add::<_, _, Value>("boom", |_| async { resume_unwind(Box::new("a text")) })
            .expect("one handler");
        let items = r#"Stage(name: "s", key: "{{ item }}", run: [Items(list: ["a"])])"#;
        let all = r#"Stage(name: "g", gather: All, run: [Call(handler: "boom")])"#;
        let source = r#"Stage(name: "s", run: [Call(handler: "boom")])"#;
        let gather = r#"Stage(name: "g", gather: All, run: [Write(json: "x")])"#;
        for stages in [format!("{items}, {all}"), format!("{source}, {gather}")] {
            let record = alone.run(&format!("Job(stages: [{stages}])"), &handlers, |_| {});
            assert_eq!(record.outcome, RunOutcome::Failed);
            assert!(record.reason.as_deref().unwrap_or_default().contains("failed"), "{record:?}");
        }
        let notice = r#"on_finish: [Notify(when: [Succeeded], run: [Call(handler: "boom")])]"#;
        let record = alone.run(&format!("Job(stages: [{items}], {notice})"), &handlers, |_| {});
        assert_eq!(record.outcome, RunOutcome::Succeeded);
    };
    alone(here!(a_panic_in_the_source_the_report_or_a_notice_ends_the_run_by_name), test, passed);
}

/// Fault 51: the future of a handler that is cut and panics in its own `Drop`, outside the fence of its item.
#[test]
fn a_panic_in_a_drop_ends_the_run_by_name_and_leaves_nothing() {
    let test = || {
        let alone = Alone::new();
        let job = r#"Job(stages: [
            Stage(name: "s", key: "{{ item }}", run: [Items(list: ["late", "a", "b"])]),
            Stage(name: "w", timeout: "100ms", run: [Call(handler: "boom"), Write(json: "{{ key }}")]),
            Stage(name: "g", gather: All, run: [Write(json: "all")]),
        ])"#;
        let record = alone.run(job, &handlers(), |_| {});
        assert_eq!(record.outcome, RunOutcome::Failed, "{record:?}");
        let reason = record.reason.unwrap_or_default();
        assert!(reason.contains("a worker of stage `w` panicked: a payload that panics"), "{reason}");
    };
    alone(here!(a_panic_in_a_drop_ends_the_run_by_name_and_leaves_nothing), test, passed);
}

/// Fault 51: a panic while another one unwinds cannot be caught by any program: it ends by SIGABRT, as in a crash.
#[test]
fn a_double_panic_ends_the_program_with_abort() {
    struct Twice;
    impl Drop for Twice {
        fn drop(&mut self) {
            panic_any("the second");
        }
    }
    let test = || {
        let handlers = Handlers::new()
            .add::<_, _, Value>("boom", |_| async {
                let _twice = Twice;
                panic_any("the first")
            })
            .expect("one handler");
        Alone::new().run(r#"Job(stages: [Stage(name: "s", run: [Call(handler: "boom")])])"#, &handlers, |_| {});
    };
    alone(here!(a_double_panic_ends_the_program_with_abort), test, |output| {
        let signal = std::os::unix::process::ExitStatusExt::signal(&output.status);
        assert_eq!(signal, Some(rustix::process::Signal::ABORT.as_raw()), "{output:?}");
    });
}

/// A store that panics at the n-th request.
struct Bad {
    rows: Memory,
    left: std::sync::atomic::AtomicUsize,
}

impl Store for Bad {
    fn call(&self, request: Request) -> BoxFuture<'_, Result<Reply, StoreError>> {
        Box::pin(async move { self.call_blocking(request) })
    }

    fn call_blocking(&self, request: Request) -> Result<Reply, StoreError> {
        let before = self.left.fetch_update(
            std::sync::atomic::Ordering::Relaxed,
            std::sync::atomic::Ordering::Relaxed,
            |left| Some(left.saturating_sub(1)),
        );
        if before == Ok(0) {
            resume_unwind(Box::new("the store is broken"));
        }
        self.rows.call_blocking(request)
    }
}

/// Fault 50: a store of the embedder that panics, at any request of a run, also at the last one.
#[test]
fn a_panic_in_the_store_fails_the_run_by_name_at_any_request() {
    let test = || {
        let alone = Alone::new();
        let job = r#"Job(stages: [
            Stage(name: "s", key: "{{ item }}", run: [Items(list: ["a", "b", "c"])]),
            Stage(name: "w", workers: 2, run: [Write(json: "{{ key }}")]),
            Stage(name: "by", gather: By("{{ item }}"), run: [Jq(filter: "[items]")]),
            Stage(name: "g", from: ["w"], gather: All, run: [Jq(filter: "[items]"), Write(json: "all")]),
        ])"#;
        let mut failed = 0;
        for left in 0.. {
            let store = Arc::new(Bad { rows: Memory::new(1 << 20), left: left.into() });
            let given = store.clone();
            let record = alone.run(job, &Handlers::new(), |options| options.store = StoreChoice::Given(given));
            if record.outcome == RunOutcome::Succeeded {
                // All that is left to ask is to forget the run.
                assert!(store.left.load(std::sync::atomic::Ordering::Relaxed) > 0 || left > 5);
                if store.left.load(std::sync::atomic::Ordering::Relaxed) > 0 {
                    break;
                }
                continue;
            }
            failed += 1;
            assert_eq!(record.outcome, RunOutcome::Failed, "{left}: {record:?}");
            let reason = record.reason.unwrap_or_default();
            assert!(reason.contains("the store is broken"), "{left}: {reason}");
        }
        assert!(failed > 5, "{failed}");
    };
    alone(here!(a_panic_in_the_store_fails_the_run_by_name_at_any_request), test, passed);
}

/// Fault 53: the handle is dropped, or the run cancelled, after each of the first polls, over the real store and its thread.
#[test]
fn a_run_that_is_dropped_at_any_poll_leaves_nothing() {
    let test = || {
        let alone = Alone::new();
        let job = r#"Job(stages: [
            Stage(name: "s", key: "{{ item }}", run: [Items(list: ["a", "b", "c", "d"])]),
            Stage(name: "w", workers: 2, buffer: 0, run: [Exec(argv: ["cat"], stdin: "{{ key }}", stdout: Text), Write(json: "{{ key }}")]),
            Stage(name: "g", gather: All, run: [Jq(filter: "[items]"), Write(json: "all")]),
        ])"#;
        for polls in (0..40).chain((40..400).step_by(23)) {
            alone.drop_after(polls, job, &Handlers::new(), |options| options.grace = Duration::from_millis(50));
        }
    };
    alone(here!(a_run_that_is_dropped_at_any_poll_leaves_nothing), test, passed);
}

/// Fault 54: a handler that computes for half a second without an await. Its executor thread does nothing else meanwhile
/// (that is what `World::compute` is for), but what was due is done right after, and the run ends as it should.
#[test]
fn a_handler_that_does_not_yield_holds_up_its_thread_and_nothing_for_good() {
    let test = || {
        let alone = Alone::new();
        let handlers = Handlers::new()
            .add("spin", |call: Call| async move {
                // The clock of an attempt begins when it first waits.
                call.sleep(Duration::from_millis(1)).await;
                let world = call.world().clone();
                let until = world.awake() + Duration::from_millis(500);
                while call.key.as_str() == "a" && world.awake() < until {}
                call.sleep(Duration::from_millis(1)).await;
                Ok::<Value, CallError>((*call.value).clone())
            })
            .expect("one handler");
        let job = r#"Job(stages: [
            Stage(name: "s", key: "{{ item }}", run: [Items(list: ["a", "b", "c"])]),
            Stage(name: "w", workers: 3, timeout: "200ms", tolerate: "3", run: [Call(handler: "spin")]),
            Stage(name: "g", gather: All, run: [Write(json: "all")]),
        ])"#;
        let record = alone.run(job, &handlers, |_| {});
        assert_eq!(record.outcome, RunOutcome::Partial, "{record:?}");
        assert!(class_of(&record, "a").starts_with("timeout "), "{record:?}");
    };
    alone(here!(a_handler_that_does_not_yield_holds_up_its_thread_and_nothing_for_good), test, passed);
}
