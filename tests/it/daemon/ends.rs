//! Jobs that start when a run of another one has ended.

use super::lab::{DAY, HOUR, Lab, MINUTE, job};
use lamplighter::{
    item::RunOutcome,
    store::{Clocks, NewRun, RunEnd, RunKind},
};
use std::time::Duration;

const NIGHTLY: &str = "schedule: Cron(\"30 2 * * *\")";

fn failing(timing: &str) -> String {
    format!("Job(timezone: \"UTC\", {timing}, run: [Call(handler: \"fail\")])")
}

#[test]
fn a_job_starts_after_another_and_knows_which() {
    let mut lab = Lab::new(1);
    lab.write("a", NIGHTLY, MINUTE);
    lab.write("b", "schedule: After(job: \"a\")", MINUTE);
    lab.write("c", "schedule: After(job: \"b\")", MINUTE);
    lab.write("bad", "schedule: After(job: \"a\", when: [Failed])", MINUTE);
    lab.serve(async |p| p.until("2026-11-23T03:00:00Z").await);
    assert_eq!(lab.told("b"), ["23 02:30 dependency succeeded"], "the due of the first");
    assert_eq!(lab.told("c"), ["23 02:30 dependency succeeded"]);
    assert!(lab.told("bad").is_empty());
    let after: Vec<String> = lab.effects().into_iter().map(|effect| effect.after).collect();
    assert_eq!(after, ["", "a succeeded", "b succeeded"]);
    lab.desk.write("a", &failing(NIGHTLY));
    lab.serve(async |p| p.until("2026-11-24T03:00:00Z").await);
    assert_eq!(lab.told("bad"), ["24 02:30 dependency succeeded"]);
    assert_eq!(lab.told("b").len(), 1);
}

#[test]
fn a_run_that_is_repeated_counts_and_a_time_that_was_missed() {
    let mut lab = Lab::new(2);
    lab.desk.write("a", &failing(NIGHTLY));
    lab.write("b", "schedule: After(job: \"a\", when: [Failed, Missed])", MINUTE);
    lab.serve(async |p| {
        p.until("2026-11-23T03:00:00Z").await;
        let run = p.handle.overview().await.expect("it lives").jobs[0].last.clone().expect("it ran").run;
        p.handle.retry(&run, false, None).await.expect("it is repeated");
        p.pass(HOUR).await;
    });
    assert_eq!(lab.told("b").len(), 2, "{:?}", lab.told("b"));
    lab.down(3 * DAY - 8 * HOUR);
    lab.serve(async |p| p.pass(HOUR).await);
    assert_eq!(lab.told("b")[2..], ["25 02:30 dependency succeeded"], "one for those that were missed together");
    assert!(lab.effects().iter().any(|effect| effect.after == "a missed"));
}

#[test]
fn a_crash_between_the_two_loses_nothing() {
    for when in ["Succeeded", "Missed"] {
        for polls in 1..150 {
            let mut lab = Lab::new(polls);
            lab.write("a", &format!("{NIGHTLY}, catch_up: Never"), Duration::ZERO);
            lab.write("b", &format!("schedule: After(job: \"a\", when: [{when}])"), Duration::ZERO);
            let (due, told) = match when {
                "Missed" => ("2026-11-23T02:40:00Z", "Missed down"),
                _ => ("2026-11-23T02:29:59Z", "schedule succeeded"),
            };
            lab.serve(async |p| p.pass(HOUR).await);
            let off = super::lab::at(due).duration_since(lab.sim.world().wall());
            lab.down(off.try_into().expect("later"));
            lab.serve_until_poll(polls, async |p| p.pass(MINUTE).await);
            lab.serve(async |p| p.pass(DAY / 2).await);
            assert_eq!(lab.told("a"), [format!("23 02:30 {told}")], "died at {polls}");
            assert_eq!(lab.told("b"), ["23 02:30 dependency succeeded"], "{when}, died at {polls}");
        }
    }
}

#[test]
fn what_ended_long_ago_starts_nothing_again_although_it_is_forgotten() {
    let mut lab = Lab::new(4);
    lab.write("a", NIGHTLY, MINUTE);
    lab.write("b", "schedule: AnyOf([After(job: \"a\"), Every(\"10m\")])", MINUTE);
    // Five runs of each job are kept.
    lab.options.retention.max_runs = 5;
    lab.serve(async |p| p.pass(3 * DAY).await);
    let after = |lab: &Lab| lab.effects().into_iter().filter(|effect| !effect.after.is_empty()).count();
    assert_eq!(after(&lab), 3);
    lab.serve(async |p| p.pass(HOUR).await);
    assert_eq!(after(&lab), 3);
}

#[test]
fn the_end_of_a_run_that_cannot_be_resumed_counts() {
    let mut lab = Lab::new(5);
    lab.desk.write("a", &job(NIGHTLY, HOUR));
    lab.write("b", "schedule: After(job: \"a\", when: [Quarantined])", MINUTE / 2);
    lab.serve(async |p| p.until("2026-11-23T02:40:00Z").await);
    for _ in 0..5 {
        lab.serve(async |p| p.pass(2 * MINUTE).await);
    }
    assert_eq!(lab.told("a"), ["23 02:30 schedule quarantined"]);
    assert_eq!(lab.told("b"), ["23 02:30 dependency succeeded"]);
}

#[test]
fn jobs_that_wait_for_each_other_do_not_start_each_other() {
    let mut lab = Lab::new(6);
    let due = "schedule: AnyOf([Cron(\"30 2 * * *\"), After(job: \"c\")])";
    let work = "Call(handler: \"work\", args: {\"due\": \"{{ run.due }}\"})";
    lab.desk.write("a", &format!("Job(timezone: \"UTC\", {due}, run: [{work}])"));
    lab.write("b", "schedule: After(job: \"a\")", MINUTE);
    lab.write("c", "schedule: After(job: \"b\")", MINUTE);
    lab.write("beside", "schedule: After(job: \"a\")", MINUTE);
    lab.serve(async |p| {
        p.until("2026-11-23T12:00:00Z").await;
        assert_eq!(that_ran(p).await, ["a", "beside"]);
        // With one of them gone the others do what they say, and what ended before counts for none.
        p.desk.remove("c");
        p.reload().await;
        p.pass(MINUTE).await;
        p.until("2026-11-24T12:00:00Z").await;
    });
    lab.serve(async |p| p.pass(HOUR).await);
    assert_eq!(lab.told("a"), ["23 02:30 schedule succeeded", "24 02:30 schedule succeeded"]);
    assert_eq!(lab.told("b"), ["23 02:30 Skipped circle", "24 02:30 dependency succeeded"]);
    assert_eq!(lab.told("beside").len(), 2);
    assert!(lab.told("c").is_empty());
}

#[test]
fn an_end_that_came_while_nothing_served_goes_round_no_circle() {
    let mut lab = Lab::new(9);
    for (job, before) in [("a", "b"), ("b", "a"), ("beside", "a")] {
        lab.write(job, &format!("schedule: After(job: \"{before}\")"), MINUTE);
    }
    lab.serve(async |p| p.pass(HOUR).await);
    in_the_foreground(&lab, "a", ["by hand".to_owned()].into_iter());
    lab.serve(async |p| p.pass(HOUR).await);
    assert_eq!(lab.told("b"), ["22 13:00 Skipped circle"]);
    assert_eq!(lab.told("beside"), ["22 13:00 dependency succeeded"]);
}

/// Jobs that have run.
async fn that_ran(p: &super::lab::Process<'_>) -> Vec<String> {
    let jobs = p.handle.overview().await.expect("it lives").jobs;
    jobs.into_iter().filter(|job| job.last.is_some()).map(|job| job.job).collect()
}

/// Runs of a command in the foreground, that begin and end while nothing serves.
fn in_the_foreground(lab: &Lab, job: &str, names: impl Iterator<Item = String>) {
    let now = lab.sim.world().wall().as_millisecond();
    lab.look(async |state| {
        for run in names {
            let new = NewRun {
                run: run.as_str().into(),
                job: job.into(),
                trigger: "manual".into(),
                fire_key: None,
                kind: RunKind::Foreground,
                due_ms: now,
                clocks: Clocks { wall_ms: now, boot_ms: 0 },
                deadline_ms: None,
                budget_ms: None,
                definition: String::new(),
                params: String::new(),
                options: String::new(),
                alone: false,
            };
            state.begin(new).await.expect("it begins");
            let (reason, record) = (None, String::new());
            let end = RunEnd {
                outcome: RunOutcome::Succeeded,
                reason,
                record,
                ended_ms: now,
                ran_ms: 0,
                notices: vec![],
                folds: None,
            };
            assert!(state.rows(&run).end(end).await.expect("it ends"));
        }
    });
}

/// What became of the ends that a job waits for, by name.
fn heard(lab: &Lab, job: &str) -> Vec<String> {
    let runs = lab.runs().into_iter().filter(|head| head.job == job).filter_map(|head| head.fire_key);
    let rows = lab.rows().into_iter().chain(lab.waiting()).filter(|row| row.job == job).map(|row| row.key);
    let mut heard: Vec<String> = runs.chain(rows).collect();
    heard.sort();
    heard
}

#[test]
fn a_job_hears_only_ends_since_it_was_watched_itself() {
    let mut lab = Lab::new(6);
    lab.write("a", NIGHTLY, MINUTE);
    lab.write("bad", "schedule: After(job: \"a\", when: [Failed])", MINUTE);
    lab.serve(async |p| p.until("2026-11-23T03:00:00Z").await);
    in_the_foreground(&lab, "a", ["by hand".to_owned()].into_iter());
    // Another one waits for it already; this one comes later.
    lab.write("late", "schedule: After(job: \"a\")", MINUTE);
    lab.down(MINUTE);
    lab.serve(async |p| p.pass(HOUR).await);
    assert_eq!(lab.told("late"), [""; 0]);
    lab.serve(async |p| p.pass(DAY).await);
    assert_eq!(lab.told("late"), ["24 02:30 dependency succeeded"]);
}

#[test]
fn ends_that_came_while_nothing_served_are_heard_once_wherever_the_next_process_dies() {
    for requests in 1..40 {
        let mut lab = Lab::new(7);
        lab.write("a", NIGHTLY, Duration::ZERO);
        lab.write("b", "schedule: After(job: \"a\"), overlap: Allow(max: 9)", Duration::ZERO);
        lab.serve(async |p| p.pass(HOUR).await);
        for run in ["one", "two", "three"] {
            lab.down(HOUR);
            in_the_foreground(&lab, "a", [run.to_owned()].into_iter());
        }
        lab.down(HOUR);
        lab.serve_until_request(requests, async |p| p.pass(MINUTE).await);
        lab.serve(async |p| p.pass(HOUR).await);
        assert_eq!(heard(&lab, "b"), ["after a one", "after a three", "after a two"], "died at {requests}");
    }
}

#[test]
fn every_end_is_heard_however_many_there_are_and_wherever_the_clock_was() {
    let mut lab = Lab::new(8);
    lab.write("a", NIGHTLY, Duration::ZERO);
    lab.write("b", "schedule: After(job: \"a\")", Duration::ZERO);
    lab.serve(async |p| {
        p.until("2026-11-23T03:00:00Z").await;
    });
    let before = heard(&lab, "b").len();
    assert_eq!(before, 1);
    // The clock is set back while nothing serves, to before anything was known of these jobs.
    lab.sim.set_wall(super::lab::at("2026-11-21T01:00:00Z"));
    in_the_foreground(&lab, "a", (0..600).map(|n| format!("run {n:03}")));
    lab.serve(async |p| p.pass(HOUR).await);
    assert_eq!(heard(&lab, "b").len(), before + 600);
}
