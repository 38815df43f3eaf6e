//! Deadlines of stages and of the run (RUNS D1, D2).

use super::lab::{Lab, ms, options, source};
use lamplighter::{item::RunOutcome, run::RunOptions};
use std::time::Duration;

const REPORT: &str = "Stage(name: \"report\", gather: All, run: [
    Jq(filter: \"{ok: [items | .id], missing: [failures | [.stage, .key, .class]], counts: counts}\"), Call(handler: \"sink\")])";

#[test]
fn continue_closes_the_stage_and_the_report_names_what_is_missing() {
    let lab = Lab::new(&format!(
        "{}, Stage(name: \"work\", workers: 2, deadline: \"35ms\", on_deadline: Continue, tolerate: \"4\",
            run: [Call(handler: \"act\", args: {{\"ms\": 10}})]), {REPORT}",
        source(10, |_| String::new())
    ));
    lab.seeds(60, |done| {
        assert_eq!(done.outcome(), RunOutcome::Partial, "{:?}", done.record);
        assert_eq!(done.six("work"), [10, 6, 0, 2, 0, 2], "seed {}", done.seed);
        assert_eq!(done.elapsed, ms(35));
        let report = &done.sunk[0].2;
        assert_eq!(report["ok"].as_array().map(Vec::len), Some(6));
        let classes: Vec<&str> =
            report["missing"].as_array().expect("a list").iter().filter_map(|missing| missing[2].as_str()).collect();
        assert_eq!(classes, ["timed_out", "timed_out", "not_reached", "not_reached"]);
        assert_eq!(report["counts"]["work"]["not_reached"], 2);
    });
}

#[test]
fn more_than_is_tolerated_in_a_closed_stage_is_deadline_exceeded_with_its_report() {
    let lab = Lab::new(&format!(
        "{}, Stage(name: \"work\", deadline: \"15ms\", on_deadline: Continue, run: [Call(handler: \"act\", args: {{\"ms\": 10}})]), {REPORT}",
        source(4, |_| String::new())
    ));
    lab.seeds(30, |done| {
        assert_eq!(done.outcome(), RunOutcome::DeadlineExceeded);
        assert_eq!(done.sunk.len(), 1);
    });
}

#[test]
fn at_any_deadline_every_missing_item_is_named_in_the_report_once() {
    for (buffer, waiting) in [(0, 0), (0, 5), (1, 5), (3, 2)] {
        for after in 1..14 {
            let lab = Lab::new(&format!(
                "{}, Stage(name: \"work\", workers: 2, buffer: {buffer}, waiting: {waiting}, tolerate: \"99\",
                    deadline: \"{after}ms\", on_deadline: Continue, retry: Retry(max_attempts: 3, initial_interval: \"3ms\"),
                    run: [Call(handler: \"act\", args: {{\"jit\": 2}})]), {REPORT}",
                source(12, |i| format!("\"fails\": {}", i % 4))
            ));
            lab.seeds(12, |done| {
                let counts = done.counts("work");
                let report = &done.sunk[0].2;
                let len = |name: &str| report[name].as_array().map_or(0, Vec::len) as u64;
                assert_eq!(
                    (len("ok"), len("missing")),
                    (counts.ok, counts.missing()),
                    "seed {} buffer {buffer} waiting {waiting} after {after}: {report}",
                    done.seed
                );
                assert_eq!(counts.items, 12);
                assert!(done.elapsed >= ms(0) && counts.cancelled == 0, "{:?}", done.record);
                if counts.timed_out + counts.not_reached > 0 {
                    assert_eq!(done.elapsed, ms(after));
                }
            });
        }
    }
}

#[test]
fn a_worker_stage_all_of_whose_readers_are_closed_closes_too_and_the_source_lists_on() {
    let lab = Lab::new(&format!(
        "{}, Stage(name: \"first\", workers: 2, buffer: 1, tolerate: \"99\", run: [Call(handler: \"act\", args: {{\"ms\": 10}})]),
         Stage(name: \"second\", deadline: \"25ms\", on_deadline: Continue, tolerate: \"99\", run: [Call(handler: \"act\", args: {{\"ms\": 10}})]),
         {REPORT}",
        source(30, |_| String::new())
    ));
    lab.seeds(60, |done| {
        // `second` takes its first item at 10 ms and closes at 35.
        assert_eq!(done.elapsed, ms(35), "seed {}", done.seed);
        assert_eq!(done.counts("list").ok, 30);
        let (first, second) = (done.counts("first"), done.counts("second"));
        assert_eq!((first.items, second.items, second.ok), (30, first.ok, 2));
        assert!(first.not_reached >= 20 && first.failed + first.cancelled == 0, "{first:?}");
        assert_eq!(done.outcome(), RunOutcome::Partial);
        let named = done.sunk[0].2["missing"].as_array().map(Vec::len);
        assert_eq!(named, Some((first.missing() + second.missing()) as usize));
    });
}

#[test]
fn a_stage_goes_on_while_one_of_its_readers_is_open() {
    let lab = Lab::new(&format!(
        "{}, Stage(name: \"first\", run: [Call(handler: \"act\", args: {{\"ms\": 10}})]),
         Stage(name: \"closes\", from: [\"first\"], deadline: \"25ms\", on_deadline: Continue, tolerate: \"99\", run: [Call(handler: \"act\")]),
         Stage(name: \"stays\", from: [\"first\"], run: [Call(handler: \"sink\")])",
        source(8, |_| String::new())
    ));
    lab.seeds(30, |done| {
        assert_eq!(done.sunk.len(), 8);
        assert_eq!(done.six("closes"), [8, 3, 0, 0, 0, 5]);
        assert_eq!(done.outcome(), RunOutcome::Partial);
    });
}

#[test]
fn without_continue_the_deadline_of_a_stage_ends_the_run() {
    let lab = Lab::new(&format!(
        "{}, Stage(name: \"work\", workers: 2, deadline: \"25ms\", run: [Call(handler: \"act\", args: {{\"ms\": 10}})]), {REPORT}",
        source(20, |_| String::new())
    ));
    lab.seeds(40, |done| {
        assert_eq!(done.outcome(), RunOutcome::DeadlineExceeded);
        assert!(done.reason().contains("stage `work`"));
        let counts = done.counts("work");
        assert_eq!((counts.ok, counts.timed_out, counts.cancelled), (4, 2, 0));
        assert_eq!((done.elapsed, done.sunk.len()), (ms(25), 0));
    });
}

#[test]
fn the_deadline_of_a_source_stops_its_listing() {
    let lab = Lab::new(&format!(
        "Stage(name: \"list\", deadline: \"35ms\", on_deadline: Continue, run: [{}, Call(handler: \"act\", args: {{\"ms\": 10}})]),
         Stage(name: \"work\", run: [Call(handler: \"act\")]), {REPORT}",
        super::lab::items(9, |_| String::new())
    ));
    lab.seeds(30, |done| {
        assert_eq!(done.outcome(), RunOutcome::Partial, "{:?}", done.record);
        assert_eq!(done.six("work"), [3, 3, 0, 0, 0, 0]);
        assert!(!done.counts("list").complete && !done.counts("report").complete);
        assert_eq!(done.sunk[0].2["counts"]["work"]["complete"], false);
    });
}

fn at_deadline(work: &str, report: &str) -> Lab {
    Lab::job(&format!(
        "Job(deadline: \"1s\", stages: [{}, Stage(name: \"work\", workers: 2, {work} run: [Call(handler: \"act\", args: {{\"ms\": 300}})]),
            Stage(name: \"report\", gather: All, run: [Jq(filter: \"{{ok: [items | .id]}}\"), Call(handler: \"act\", args: {{{report}}}), Call(handler: \"sink\")])])",
        source(20, |_| String::new())
    ))
}

#[test]
fn at_the_runs_deadline_what_may_continue_is_closed_and_the_report_is_made() {
    at_deadline("on_deadline: Continue, tolerate: \"99\",", "\"ms\": 5000").seeds(40, |done| {
        assert_eq!(done.outcome(), RunOutcome::DeadlineExceeded);
        assert_eq!(done.six("work"), [20, 6, 0, 2, 0, 12]);
        assert_eq!((done.sunk.len(), done.elapsed), (1, ms(6000)));
    });
}

#[test]
fn at_the_runs_deadline_what_may_not_continue_is_cancelled_without_a_report() {
    at_deadline("", "\"ms\": 1").seeds(40, |done| {
        assert_eq!(done.outcome(), RunOutcome::DeadlineExceeded);
        let counts = done.counts("work");
        assert_eq!((counts.ok, counts.timed_out, counts.cancelled), (6, 2, 0));
        assert_eq!((done.sunk.len(), done.elapsed), (0, ms(1000)));
    });
}

#[test]
fn the_report_has_until_the_end_of_the_grace_period_and_then_it_is_cut() {
    let lab = at_deadline("on_deadline: Continue, tolerate: \"99\",", "\"hang\": 1");
    lab.seeds(20, |done| {
        assert_eq!(done.outcome(), RunOutcome::DeadlineExceeded);
        assert_eq!(done.six("report"), [1, 0, 0, 1, 0, 0]);
        assert_eq!(done.elapsed, ms(1000) + Duration::from_secs(10));
    });
    let options = RunOptions { grace: ms(500), deadline: Some(ms(700)), ..options() };
    let done = lab.run_with(1, options, super::lab::Script::Await);
    assert_eq!(done.elapsed, ms(1200));
}

#[test]
fn a_run_whose_last_stage_ends_in_the_tick_of_its_deadline_is_not_late() {
    let lab = Lab::job(&format!(
        "Job(deadline: \"1s\", stages: [{}, Stage(name: \"work\", run: [Call(handler: \"act\", args: {{\"ms\": 1000}})])])",
        source(1, |_| String::new())
    ));
    // Which of the two is seen first is open; the item is done in either case and the record says so.
    lab.seeds(60, |done| {
        assert_eq!(done.elapsed, ms(1000));
        assert_eq!(done.counts("work").ok, 1, "seed {}: {:?}", done.seed, done.record);
    });
}

#[test]
fn a_listing_that_never_ends_is_stopped_in_time_for_the_report() {
    let lab = Lab::job(&format!(
        "Job(deadline: \"1s\", stages: [
            Stage(name: \"list\", run: [Items(list: [{{}}, {{}}, {{\"hang\": 1}}]), Call(handler: \"act\")]),
            Stage(name: \"work\", on_deadline: Continue, tolerate: \"9\", run: [Call(handler: \"act\", args: {{\"ms\": 2000, \"hang\": 1}})]), {REPORT}])",
    ));
    lab.seeds(20, |done| {
        assert_eq!(done.outcome(), RunOutcome::DeadlineExceeded);
        assert_eq!((done.elapsed, done.sunk.len()), (ms(6000), 1));
        assert_eq!(done.six("work"), [2, 0, 0, 1, 0, 1]);
        assert_eq!(done.sunk[0].2["counts"]["list"]["complete"], false);
    });
}

#[test]
fn a_stage_whose_items_are_all_settled_is_not_late_while_it_delivers() {
    let lab = Lab::new(&format!(
        "{}, Stage(name: \"work\", workers: 4, deadline: \"20ms\", run: [Call(handler: \"act\", args: {{\"ms\": 5}})]),
         Stage(name: \"slow\", buffer: 0, run: [Call(handler: \"act\", args: {{\"ms\": 100}})])",
        source(4, |_| String::new())
    ));
    lab.seeds(30, |done| {
        assert_eq!(done.outcome(), RunOutcome::Succeeded, "seed {}: {}", done.seed, done.reason());
        assert_eq!(done.counts("slow").ok, 4);
    });
}
