//! How a run ends (RUNS D3, D4, D5).

use super::lab::{Lab, ms, source};
use lamplighter::item::RunOutcome::{self, DeadlineExceeded, Failed, Partial, Succeeded};

fn with_bad(n: usize, bad: usize, fields: &str) -> Lab {
    Lab::new(&format!(
        "{}, Stage(name: \"work\", workers: 2, {fields} run: [Call(handler: \"act\", args: {{\"ms\": 10}})]),
         Stage(name: \"report\", gather: All, run: [Jq(filter: \"[items] | length\"), Call(handler: \"sink\")])",
        source(n, |i| if i < bad { "\"bad\": 1".into() } else { String::new() })
    ))
}

#[test]
fn a_tolerance_is_compared_exactly() {
    for (n, bad, tolerate, expected) in [
        (8, 0, "0", Succeeded),
        (8, 1, "0", Failed),
        (8, 1, "1", Partial),
        (8, 2, "1", Failed),
        (8, 2, "25%", Partial),
        (8, 3, "25%", Failed),
        (3, 1, "33%", Failed),
        (3, 1, "34%", Partial),
        (4, 4, "100%", Partial),
        (0, 0, "0%", Succeeded),
    ] {
        with_bad(n, bad, &format!("tolerate: \"{tolerate}\",")).seeds(10, |done| {
            assert_eq!(done.outcome(), expected, "{bad} of {n}, tolerate {tolerate}: {:?}", done.record);
            assert_eq!(done.sunk.len(), 1, "the report is made");
        });
    }
}

#[test]
fn fail_fast_by_a_count_cancels_at_once() {
    with_bad(20, 20, "tolerate: \"3\", fail_fast: true,").seeds(40, |done| {
        assert_eq!(done.outcome(), Failed);
        assert!(done.reason().contains("fail_fast"), "{}", done.reason());
        let counts = done.counts("work");
        assert_eq!(counts.failed, 4, "{:?}", done.record);
        assert_eq!((done.elapsed, done.sunk.len()), (ms(20), 0));
    });
}

#[test]
fn fail_fast_by_a_share_waits_until_the_number_of_items_is_known() {
    let lab = Lab::new(&format!(
        "Stage(name: \"list\", key: \"{{{{ item.id }}}}\", run: [{}, Call(handler: \"act\", args: {{\"ms\": 100}})]),
         Stage(name: \"work\", tolerate: \"20%\", fail_fast: true, run: [Jq(filter: \"if .broken then error(\\\"x\\\") else . end\"), Call(handler: \"act\", args: {{\"ms\": 250}})])",
        super::lab::items(5, |i| if i == 0 || i == 1 { "\"broken\": 1".into() } else { String::new() })
    ));
    lab.seeds(20, |done| {
        // Two of five are missing at 200 ms; that they are five is known at 500.
        assert_eq!(done.outcome(), Failed);
        assert_eq!(done.elapsed, ms(500), "{:?}", done.record);
        assert!(done.reason().contains("fail_fast"));
    });
}

#[test]
fn a_listing_that_fails_with_fail_fast_cancels_the_run() {
    let lab = Lab::new(
        "Stage(name: \"list\", fail_fast: true, tolerate: \"99\", run: [Jq(filter: \"range(3), error(\\\"gone\\\")\")]),
         Stage(name: \"work\", run: [Call(handler: \"act\", args: {\"ms\": 10})]),
         Stage(name: \"report\", gather: All, run: [Call(handler: \"sink\")])",
    );
    lab.seeds(20, |done| {
        assert_eq!(done.outcome(), Failed);
        assert_eq!(done.sunk.len(), 0);
        assert_eq!(done.elapsed, ms(0));
    });
}

#[test]
fn too_few_items_fail_the_run_by_name() {
    for (min, expected) in [(3, Succeeded), (4, Failed)] {
        with_bad(3, 0, &format!("min_items: {min},")).seeds(10, |done| {
            assert_eq!(done.outcome(), expected);
            if expected == Failed {
                assert!(done.reason().contains("too_few_items"), "{}", done.reason());
            }
            assert_eq!(done.sunk.len(), 1);
        });
    }
}

#[test]
fn the_first_reason_that_holds_decides() {
    // (fields of the job, fields of work, act of work, report) -> outcome
    let cases: [(&str, &str, &str, &str, RunOutcome); 6] = [
        // The run's deadline stands before a gather that failed.
        ("deadline: \"1s\",", "on_deadline: Continue,", "\"ms\": 5000", "\"bad\": 1", DeadlineExceeded),
        // A gather that failed stands before a stage that a deadline closed.
        ("", "deadline: \"20ms\", on_deadline: Continue,", "\"ms\": 50", "\"bad\": 1", Failed),
        // A stage that a deadline closed.
        ("", "deadline: \"20ms\", on_deadline: Continue,", "\"ms\": 50", "\"ms\": 1", DeadlineExceeded),
        // The same, tolerated.
        ("", "deadline: \"20ms\", on_deadline: Continue, tolerate: \"100%\",", "\"ms\": 50", "\"ms\": 1", Partial),
        // A stage that fails by itself.
        ("", "", "\"bad\": 1", "\"ms\": 1", Failed),
        // Too few items stand before what is missing in a closed stage.
        ("", "min_items: 99, deadline: \"20ms\", on_deadline: Continue,", "\"ms\": 50", "\"ms\": 1", Failed),
    ];
    for (job, fields, act, report, expected) in cases {
        let lab = Lab::job(&format!(
            "Job({job} stages: [{}, Stage(name: \"work\", {fields} run: [Call(handler: \"act\", args: {{{act}}})]),
                Stage(name: \"report\", gather: All, run: [Call(handler: \"act\", args: {{{report}}})])])",
            source(3, |_| String::new())
        ));
        lab.seeds(15, |done| assert_eq!(done.outcome(), expected, "{job} {fields} {act}: {:?}", done.record));
    }
}

#[test]
fn a_notice_runs_after_the_run_in_its_own_time_and_changes_nothing() {
    let lab = |act: &str| {
        Lab::job(&format!(
            "Job(stages: [{}, Stage(name: \"work\", run: [Call(handler: \"act\", args: {{\"bad\": 1}})])],
                on_finish: [Notify(when: [Failed], run: [Call(handler: \"act\", args: {{{act}}})]),
                            Notify(when: [Failed], run: [Call(handler: \"sink\", args: {{\"x\": \"{{{{ run.outcome }}}}\"}})]),
                            Notify(when: [Succeeded], run: [Call(handler: \"sink\")])])",
            source(1, |_| String::new())
        ))
    };
    for (act, elapsed) in [("\"ms\": 5", 5), ("\"panic\": 1", 0), ("\"hang\": 1", 60_000), ("\"bad\": 1", 0)] {
        lab(act).seeds(10, |done| {
            assert_eq!(done.outcome(), Failed);
            assert_eq!((done.elapsed, done.sunk.len()), (ms(elapsed), 1), "{act}");
        });
    }
}
