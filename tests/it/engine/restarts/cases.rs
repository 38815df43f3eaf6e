//! What the seeds have found, each as small as it can be.

use super::{
    Came, Gateway, Goal,
    disk::Bad,
    draw::{Case, Life},
    outside::lock,
    undisturbed,
};
use lamplighter::item::RunOutcome;

const NIGHT: Goal = Goal::Night(1);

/// Dies at this poll, and goes on so much later.
fn dies(polls: u64, down_ms: u64) -> [Life; 2] {
    [Life { polls: Some(polls), ..Life::default() }, Life { down_ms, ..Life::default() }]
}

/// The run of a night whose process dies at this poll and is followed by one so much later.
fn night(case: &Case, polls: u64, down_ms: u64) -> (Gateway, String) {
    let mut gateway = Gateway::new(1, case, false);
    for life in dies(polls, down_ms) {
        if let [Came::Settled(run)] = &gateway.live(&life, &NIGHT, 1, true)[..] {
            return (gateway, run.clone());
        }
    }
    panic!("poll {polls}: the second process comes to an end");
}

#[test]
fn a_listing_that_is_read_again_names_what_it_lists_as_before() {
    // Keys with the place in them, keys that come twice, and a bad row.
    for key in ["{{ item.id }}", "{{ key }}-{{ item.id }}"] {
        let case = Case::of(&format!(
            "Job(stages: [
                Stage(name: \"s0\", key: \"{key}\", tolerate: \"9\", run: [
                    Items(list: [{{\"id\": \"P0\"}}, {{\"id\": \"P1\"}}, {{\"id\": \"P1\"}}, {{\"id\": \"bad\"}}, {{\"id\": \"P4\"}}]),
                    Jq(filter: \"if .id == \\\"bad\\\" then error(\\\"row\\\") else . end\"),
                ]),
                Stage(name: \"w0\", run: [Call(handler: \"work\")]),
                Stage(name: \"report\", gather: All, run: [
                    Jq(filter: \"{{items: [items], missing: [failures], counts: counts}}\"), Call(handler: \"report\"),
                ]),
            ])"
        ));
        let whole = undisturbed(1, &case, 1, false);
        for polls in 1..whole.steps {
            let (gateway, run) = night(&case, polls, 0);
            gateway.compare(&run, &whole, None);
        }
    }
}

const TELLS: &str = "Job(
    on_finish: [Notify(when: [Succeeded, Failed, Interrupted], run: [Call(handler: \"notice\", args: {\"outcome\": \"{{ run.outcome }}\"})])],
    stages: [Stage(name: \"s0\", run: [Items(list: [1, 2, 3])]), Stage(name: \"w0\", run: [Call(handler: \"work\")])],
)";

#[test]
fn a_run_that_nobody_goes_on_with_is_told_of() {
    let case = Case::of(TELLS);
    let mut given_up = 0;
    for polls in 1..40 {
        let mut gateway = Gateway::new(1, &case, false);
        gateway.live(&dies(polls, 0)[0], &NIGHT, 1, true);
        let came = gateway.live(&Life { gives_up: true, ..Life::default() }, &NIGHT, 1, true);
        if matches!(came[..], [Came::Refused]) {
            given_up += 1;
            gateway.live(&Life::default(), &Goal::Notices, 1, true);
            let told: Vec<String> = lock(&gateway.seen).told.iter().map(|told| told.outcome.clone()).collect();
            assert_eq!(told, ["interrupted"], "crash at {polls}");
        }
    }
    assert!(given_up > 5, "{given_up}");
}

#[test]
fn nobody_is_told_of_an_end_that_is_not_on_the_disk() {
    let case = Case::of(TELLS);
    let mut unsaved = 0;
    for request in 1..60 {
        let mut gateway = Gateway::new(1, &case, false);
        let bad = Bad { fails_at: Some((request, false)), ..Bad::default() };
        if let [Came::Settled(_)] = gateway.live(&Life { bad, ..Life::default() }, &NIGHT, 1, true)[..] {
            break;
        }
        unsaved += 1;
        let before = lock(&gateway.seen).told.len();
        gateway.live(&Life::default(), &NIGHT, 1, true);
        let told: Vec<(String, bool)> =
            lock(&gateway.seen).told.iter().map(|told| (told.outcome.clone(), told.was_settled)).collect();
        assert!(told.iter().all(|told| *told == ("succeeded".to_owned(), true)), "request {request}: {told:?}");
        assert!(told.len() == 1 || before == 1, "request {request}: {told:?}");
    }
    assert!(unsaved > 10, "{unsaved}");
}

#[test]
fn a_stage_that_was_done_in_time_is_not_late_because_the_next_process_is() {
    let text = |on_deadline: &str| {
        format!(
            "Job(stages: [
                Stage(name: \"s0\", deadline: \"10s\", {on_deadline} run: [Items(list: [1, 2, 3])]),
                Stage(name: \"w0\", deadline: \"10s\", {on_deadline} run: [Call(handler: \"work\")]),
                Stage(name: \"report\", gather: All, run: [
                    Call(handler: \"work\"), Jq(filter: \"[items, counts.w0.ok]\"), Call(handler: \"report\"),
                ]),
            ])"
        )
    };
    for on_deadline in ["", "on_deadline: Continue,"] {
        let case = Case::of(&text(on_deadline));
        let whole = undisturbed(1, &case, 1, false);
        let mut done_in_time = 0;
        for polls in 1..whole.steps {
            let mut gateway = Gateway::new(1, &case, false);
            let [first, then] = dies(polls, 3_600_000);
            let came = gateway.live(&first, &NIGHT, 1, true);
            let began_late = !lock(&gateway.seen).reports.is_empty() || matches!(came[..], [Came::Settled(_)]);
            let came = gateway.live(&then, &NIGHT, 1, true);
            let [Came::Settled(run)] = &came[..] else { panic!("{came:?}") };
            let record = gateway.record(run);
            // The report is made behind a flush of what it sees.
            if began_late {
                done_in_time += 1;
                assert_eq!(record.outcome, RunOutcome::Succeeded, "crash at {polls}: {record:#?}");
                gateway.compare(run, &whole, None);
            }
        }
        assert!(done_in_time > 3, "{done_in_time}");
    }
}

#[test]
fn nothing_of_a_stage_begins_in_a_process_that_comes_after_its_deadline() {
    let case = Case::of(
        "Job(stages: [
            Stage(name: \"s0\", run: [Items(list: [1, 2, 3, 4, 5, 6])]),
            Stage(name: \"w0\", workers: 2, deadline: \"10s\", on_deadline: Continue, tolerate: \"9\", run: [Call(handler: \"work\")]),
            Stage(name: \"w1\", run: [Call(handler: \"work\")]),
        ])",
    );
    let mut late = 0;
    for polls in 1..undisturbed(1, &case, 1, false).steps {
        let mut gateway = Gateway::new(1, &case, false);
        let [first, then] = dies(polls, 3_600_000);
        // That it has begun is on the disk.
        let first = Life { bad: Bad { ages: 100, ..Bad::default() }, ..first };
        gateway.live(&first, &NIGHT, 1, true);
        let before = gateway.processes;
        let came = gateway.live(&then, &NIGHT, 1, true);
        let [Came::Settled(run)] = &came[..] else { panic!("{came:?}") };
        let record = gateway.record(run);
        if record.stages[1].counts.missing() > 0 {
            late += 1;
            let seen = lock(&gateway.seen);
            let begun = seen.effects.iter().find(|effect| effect.process > before && effect.stage == "w0");
            assert!(begun.is_none(), "crash at {polls}: {begun:?}");
        }
    }
    assert!(late > 5, "{late}");
}

#[test]
fn a_run_that_goes_on_after_its_deadline_counts_what_was_done() {
    let case = Case::of(
        "Job(deadline: \"10s\", stages: [
            Stage(name: \"s0\", run: [Items(list: [1, 2, 3, 4, 5, 6])]),
            Stage(name: \"w0\", workers: 2, run: [Call(handler: \"work\")]),
        ])",
    );
    let mut counted = 0;
    for seed in 1..5 {
        for polls in 1..undisturbed(seed, &case, 1, false).steps {
            let mut gateway = Gateway::new(seed, &case, false);
            let [first, then] = dies(polls, 3_600_000);
            // The disk answers a turn later, as a real one does.
            let bad = Bad { ages: 100, slow_turns: 1, ..Bad::default() };
            gateway.live(&Life { bad, ..first }, &NIGHT, 1, true);
            let came = gateway.live(&Life { bad, ..then }, &NIGHT, 1, true);
            let [Came::Settled(run)] = &came[..] else { panic!("{came:?}") };
            let record = gateway.record(run);
            if record.outcome == RunOutcome::DeadlineExceeded {
                counted += record.stages[0].counts.ok;
            }
        }
    }
    assert!(counted > 5, "{counted}");
}
