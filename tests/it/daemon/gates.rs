//! What holds a firing up: overlap, blackout, pause, places, priority.

use super::lab::{DAY, HOUR, Lab, MINUTE, at};
use lamplighter::daemon::Which;
use std::time::Duration;

fn hourly(more: &str) -> String {
    format!("schedule: Cron(\"0 * * * *\"), {more}")
}

#[test]
fn each_policy_of_overlap() {
    let of = |more: &str, work: Duration| {
        let mut lab = Lab::new(1);
        lab.write("a", &hourly(more), work);
        lab.serve(async |p| p.until("2026-11-22T17:59:00Z").await);
        lab.told("a")
    };
    let work = 150 * MINUTE;
    assert_eq!(
        of("overlap: Skip", work),
        [
            "22 13:00 schedule succeeded",
            "22 14:00 Skipped overlap",
            "22 15:00 Skipped overlap",
            "22 16:00 schedule unfinished",
            "22 17:00 Skipped overlap"
        ]
    );
    // The newest waits.
    assert_eq!(
        of("overlap: Queue", work),
        [
            "22 13:00 schedule succeeded",
            "22 14:00 Skipped superseded",
            "22 15:00 schedule unfinished",
            "22 16:00 Skipped superseded",
            "22 17:00 waits"
        ]
    );
    assert_eq!(
        of("overlap: Replace", work),
        [
            "22 13:00 schedule cancelled",
            "22 14:00 schedule cancelled",
            "22 15:00 schedule cancelled",
            "22 16:00 schedule cancelled",
            "22 17:00 schedule unfinished"
        ]
    );
    assert_eq!(
        of("overlap: Allow(max: 2)", work),
        [
            "22 13:00 schedule succeeded",
            "22 14:00 schedule succeeded",
            "22 15:00 Skipped overlap",
            "22 16:00 schedule unfinished",
            "22 17:00 schedule unfinished"
        ]
    );
}

#[test]
fn after_a_crash_nothing_is_blocked_by_what_ran() {
    let mut lab = Lab::new(2);
    lab.write("a", &hourly("overlap: Skip"), 30 * MINUTE);
    lab.serve(async |p| p.until("2026-11-22T13:10:00Z").await);
    lab.desk.write("a", &super::lab::job(&hourly("overlap: Skip"), MINUTE));
    lab.serve(async |p| p.until("2026-11-22T15:10:00Z").await);
    assert_eq!(
        lab.told("a"),
        ["22 13:00 schedule succeeded", "22 14:00 schedule succeeded", "22 15:00 schedule succeeded"]
    );
}

#[test]
fn what_an_earlier_process_left_goes_first() {
    // It is resumed before anything new of its job starts, also while the clock is not believed.
    let mut lab = Lab::new(3);
    lab.options.clock = lamplighter::daemon::ClockPolicy::Auto;
    super::lab::lock(&lab.desk.signs).is_synchronised = true;
    lab.write("a", "schedule: Every(\"5m\"), overlap: Skip", 20 * MINUTE);
    lab.serve(async |p| p.pass(7 * MINUTE).await);
    super::lab::lock(&lab.desk.signs).is_synchronised = false;
    lab.reboot(MINUTE, Some(at("1970-01-01T00:00:10Z")));
    lab.serve(async |p| p.pass(8 * MINUTE).await);
    assert_eq!(lab.effects().len(), 1, "{:?}", lab.effects());
    lab.serve(async |p| {
        p.pass(10 * MINUTE).await;
        assert!(p.run("a").await.is_err(), "it runs");
        p.pass(HOUR).await;
    });
    let runs: std::collections::BTreeSet<String> = lab.effects()[..2].iter().map(|effect| effect.run.clone()).collect();
    assert_eq!(runs.len(), 1, "the old one went on: {:?}", lab.effects());
}

#[test]
fn a_blackout_skips_or_delays() {
    for (policy, told, began) in [
        (
            "Skip",
            ["22 13:00 schedule succeeded", "22 14:00 Skipped blackout", "22 15:00 schedule succeeded"],
            vec!["22 13:00:00", "22 15:00:00"],
        ),
        (
            "Delay",
            ["22 13:00 schedule succeeded", "22 14:00 schedule succeeded", "22 15:00 schedule succeeded"],
            vec!["22 13:00:00", "22 14:30:00", "22 15:00:00"],
        ),
    ] {
        let mut lab = Lab::new(4);
        lab.write("a", &hourly(&format!("blackout: [(\"13:50\", \"14:30\")], blackout_policy: {policy}")), MINUTE);
        lab.serve(async |p| p.until("2026-11-22T14:10:00Z").await);
        lab.serve(async |p| p.until("2026-11-22T15:10:00Z").await);
        assert_eq!(lab.told("a"), told);
        assert_eq!(lab.began("a"), began);
    }
}

#[test]
fn a_pause_holds_over_restarts_and_until_it_ends() {
    let mut lab = Lab::new(5);
    lab.write("a", &hourly(""), MINUTE);
    lab.write("b", &hourly(""), MINUTE);
    lab.serve(async |p| {
        let until = Some(at("2026-11-22T15:30:00Z"));
        assert_eq!(p.handle.pause(Which::Job("a".into()), until).await, Ok(vec!["a".to_owned()]));
        assert_eq!(p.handle.pause(Which::Job("b".into()), None).await, Ok(vec!["b".to_owned()]));
        p.until("2026-11-22T13:10:00Z").await;
    });
    lab.reboot(MINUTE, None);
    lab.serve(async |p| {
        p.until("2026-11-22T16:10:00Z").await;
        p.handle.resume(Which::All).await.expect("it lives");
        p.until("2026-11-22T17:10:00Z").await;
    });
    assert_eq!(
        lab.told("a"),
        [
            "22 13:00 Skipped paused",
            "22 14:00 Skipped paused",
            "22 15:00 Skipped paused",
            "22 16:00 schedule succeeded",
            "22 17:00 schedule succeeded"
        ]
    );
    assert_eq!(lab.told("b")[3..], ["22 16:00 Skipped paused", "22 17:00 schedule succeeded"]);
}

#[test]
fn places_go_by_priority_and_who_waits_too_long_is_skipped() {
    let mut lab = Lab::new(6);
    lab.options.max_running_jobs = 1;
    for (name, priority) in [("a", "Low"), ("b", "Normal"), ("c", "High")] {
        let once = format!("schedule: At(\"2026-11-22T13:00\"), priority: {priority}, wait_window: \"50m\"");
        lab.write(name, &once, 30 * MINUTE);
    }
    lab.serve(async |p| p.until("2026-11-22T16:00:00Z").await);
    assert_eq!(lab.began("c"), ["22 13:00:00"]);
    assert_eq!(lab.began("b"), ["22 13:30:00"]);
    assert_eq!(lab.told("a"), ["22 13:00 Skipped overload"]);
}

#[test]
fn who_is_skipped_does_not_hold_up_who_waits_for_that() {
    // The end of one firing makes another one due, which stands before those that were looked at.
    let mut lab = Lab::new(7);
    lab.options.max_running_jobs = 1;
    lab.write("z", "schedule: At(\"2026-11-22T13:00\"), priority: High", 3 * HOUR);
    lab.write("a", "schedule: Cron(\"30 2 * * *\"), catch_up: Never", MINUTE);
    lab.write("after", "schedule: After(job: \"a\", when: [Missed]), priority: High", MINUTE);
    lab.serve(async |p| p.pass(MINUTE).await);
    lab.down(20 * HOUR);
    lab.serve(async |p| p.pass(4 * HOUR).await);
    assert_eq!(lab.told("a"), ["23 02:30 Missed down"]);
    assert_eq!(lab.told("after"), ["23 02:30 dependency succeeded"]);
}

#[test]
fn a_job_that_cannot_start_ends_its_own_firing_and_nobody_elses() {
    let mut lab = Lab::new(8);
    super::lab::lock(&lab.desk.refused).insert("m".into());
    lab.write("m", "schedule: At(\"2026-11-22T13:00\")", MINUTE);
    lab.write("after", "schedule: After(job: \"m\", when: [Missed]), priority: High", MINUTE);
    lab.write("n", "schedule: At(\"2026-11-22T13:00\"), priority: Low", MINUTE);
    lab.serve(async |p| p.pass(DAY).await);
    assert_eq!(lab.told("n"), ["22 13:00 schedule succeeded"]);
    assert_eq!(lab.told("m").len(), 1, "{:?}", lab.told("m"));
    assert!(lab.told("m")[0].starts_with("22 13:00 Missed cannot start"), "{:?}", lab.told("m"));
    assert_eq!(lab.told("after"), ["22 13:00 dependency succeeded"]);
}

#[test]
fn who_makes_up_for_an_older_time_cancels_no_newer_run() {
    let mut lab = Lab::new(9);
    lab.options.catch_up_delay = 20 * MINUTE;
    lab.write("a", &hourly("overlap: Replace, catch_up_window: \"3h\""), 30 * MINUTE);
    lab.serve(async |p| p.pass(MINUTE).await);
    lab.down(109 * MINUTE);
    // The time before is made up for twenty minutes later, when the next one runs.
    lab.serve(async |p| p.until("2026-11-22T14:50:00Z").await);
    assert_eq!(lab.told("a"), ["22 13:00 Skipped superseded", "22 14:00 schedule succeeded"]);
    // A run that somebody asked for is no firing that could stand for it.
    let mut lab = Lab::new(9);
    lab.write("a", "schedule: Cron(\"30 2 * * *\"), overlap: Replace", 30 * MINUTE);
    lab.serve(async |p| p.pass(MINUTE).await);
    lab.down(16 * HOUR);
    lab.serve(async |p| {
        p.run("a").await.expect("it starts");
        p.pass(2 * HOUR).await;
    });
    assert_eq!(lab.told("a"), ["23 02:30 catch_up succeeded", "23 04:01 api succeeded"]);
    assert_eq!(lab.began("a"), ["23 04:01:00", "23 04:31:00"]);
}

#[test]
fn the_wait_for_a_place_counts_while_nothing_else_holds_a_firing_up() {
    let mut lab = Lab::new(10);
    lab.options.max_running_jobs = 1;
    lab.write("one", "schedule: At(\"2026-11-22T12:55\")", 40 * MINUTE);
    lab.write("two", "schedule: At(\"2026-11-22T13:58\")", 30 * MINUTE);
    let more = "wait_window: \"50m\", blackout: [(\"13:20\", \"14:00\")], blackout_policy: Delay";
    lab.write("a", &format!("schedule: At(\"2026-11-22T13:00\"), {more}"), MINUTE);
    lab.serve(async |p| p.until("2026-11-22T15:00:00Z").await);
    assert_eq!(lab.told("a"), ["22 13:00 schedule succeeded"]);
    assert_eq!(lab.began("a"), ["22 14:28:00"]);
}

#[test]
fn of_those_that_queue_for_a_place_only_the_newest_is_left() {
    let mut lab = Lab::new(11);
    lab.options.max_running_jobs = 1;
    lab.write("long", "schedule: At(\"2026-11-22T12:50\")", 3 * HOUR);
    lab.write("queue", &hourly("overlap: Queue, wait_window: \"6h\""), MINUTE);
    lab.write("allow", &hourly("overlap: Allow(max: 9), wait_window: \"6h\""), Duration::ZERO);
    lab.serve(async |p| p.until("2026-11-22T15:59:00Z").await);
    let told = ["22 13:00 Skipped superseded", "22 14:00 Skipped superseded", "22 15:00 schedule succeeded"];
    assert_eq!(lab.told("queue"), told);
    let told = lab.told("allow");
    assert_eq!(
        told.iter().filter(|told| told.ends_with("succeeded")).count(),
        3,
        "no queue keeps all of them: {told:?}"
    );
}
