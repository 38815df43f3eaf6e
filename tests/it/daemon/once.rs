//! Each kind of schedule starts what is due, once.

use super::lab::{DAY, HOUR, Lab, MINUTE};
use lamplighter::{
    daemon::Which,
    store::{FiringEnd, FiringRow},
};
use std::time::Duration;

const NIGHTLY: &str = "schedule: Cron(\"30 2 * * *\")";

#[test]
fn a_night_starts_once_whatever_process_serves() {
    let mut lab = Lab::new(1);
    lab.write("a", NIGHTLY, MINUTE);
    lab.serve(async |p| p.until("2026-11-23T02:31:30Z").await);
    lab.serve(async |p| p.until("2026-11-24T02:30:10Z").await);
    // It dies in the run, and goes on with it.
    lab.serve(async |p| {
        p.until("2026-11-25T01:00:00Z").await;
        p.stop().await;
    });
    lab.serve(async |p| p.until("2026-11-25T12:00:00Z").await);
    assert_eq!(
        lab.told("a"),
        ["23 02:30 schedule succeeded", "24 02:30 schedule succeeded", "25 02:30 schedule succeeded"]
    );
    assert_eq!(lab.began("a"), ["23 02:30:00", "24 02:30:00", "24 02:30:10", "25 02:30:00"]);
}

#[test]
fn a_process_that_dies_at_any_poll_around_a_firing_starts_it_once() {
    for polls in 1..120 {
        let mut lab = Lab::new(polls);
        lab.write("a", NIGHTLY, Duration::ZERO);
        lab.serve(async |p| p.until("2026-11-23T02:29:00Z").await);
        lab.serve_until_poll(polls, async |p| p.until("2026-11-23T02:32:00Z").await);
        lab.serve(async |p| p.until("2026-11-23T12:00:00Z").await);
        assert_eq!(lab.told("a"), ["23 02:30 schedule succeeded"], "died at {polls}");
    }
}

#[test]
fn a_rhythm_goes_on_over_restarts_suspends_and_boots() {
    let mut lab = Lab::new(2);
    lab.write("a", "schedule: Every(\"1h\")", MINUTE);
    lab.serve(async |p| p.until("2026-11-22T13:30:00Z").await);
    lab.down(10 * MINUTE);
    lab.serve(async |p| p.until("2026-11-22T15:10:00Z").await);
    assert_eq!(lab.began("a"), ["22 13:00:00", "22 14:00:00", "22 15:00:00"]);
    // The rest of the period goes by while the machine is off, and over a second boot too.
    lab.reboot(20 * MINUTE, None);
    lab.serve(async |p| p.until("2026-11-22T15:40:00Z").await);
    lab.reboot(10 * MINUTE, None);
    lab.serve(async |p| {
        p.until("2026-11-22T16:30:00Z").await;
        p.sim.suspend(160 * MINUTE);
        p.pass(20 * MINUTE).await;
    });
    assert_eq!(lab.began("a")[3..], ["22 16:00:00", "22 19:10:00"]);
    assert_eq!(lab.rows().len(), 1, "17 and 18 o'clock: {:?}", lab.told("a"));
    assert_eq!((lab.rows()[0].count, lab.rows()[0].reason.as_deref()), (Some(2), Some("asleep")));
}

#[test]
fn a_daily_rhythm_comes_although_the_machine_is_started_anew_each_day() {
    let mut lab = Lab::new(3);
    lab.write("a", "schedule: Every(\"1d\")", MINUTE);
    for _ in 0..10 {
        lab.serve(async |p| p.pass(20 * HOUR).await);
        lab.reboot(MINUTE, None);
    }
    assert!((7..=9).contains(&lab.began("a").len()), "{:?}", lab.began("a"));
}

#[test]
fn a_rhythm_longer_than_the_machine_is_ever_up_comes() {
    let mut lab = Lab::new(3);
    lab.write("a", "schedule: Every(\"15m\")", Duration::ZERO);
    for _ in 0..24 {
        lab.serve(async |p| p.pass(5 * MINUTE).await);
        lab.reboot(MINUTE / 2, None);
    }
    assert!((7..=9).contains(&lab.began("a").len()), "{:?}", lab.began("a"));
}

#[test]
fn a_time_that_comes_once_comes_once() {
    let mut lab = Lab::new(4);
    lab.write("a", "schedule: At(\"2026-11-23T02:00\")", MINUTE);
    lab.write("past", "schedule: At(\"2026-11-22T02:00\")", MINUTE);
    lab.serve(async |p| p.pass(15 * HOUR).await);
    lab.serve(async |p| p.pass(3 * DAY).await);
    assert_eq!(lab.began("a"), ["23 02:00:00"]);
    assert!(lab.told("past").is_empty());
}

#[test]
fn on_boot_is_due_once_for_each_boot() {
    let mut lab = Lab::new(5);
    lab.write("a", "schedule: OnBoot(\"2m\")", Duration::ZERO);
    lab.serve(async |p| p.pass(MINUTE).await);
    lab.serve(async |p| p.pass(HOUR).await);
    lab.serve(async |p| p.pass(HOUR).await);
    assert_eq!(lab.began("a"), ["22 12:03:00"]);
    lab.reboot(HOUR, None);
    lab.serve(async |p| p.pass(HOUR).await);
    assert_eq!(lab.began("a"), ["22 12:03:00", "22 15:03:00"]);
}

#[test]
fn any_of_is_the_union_and_equal_instants_are_one_firing() {
    let mut lab = Lab::new(6);
    lab.write(
        "a",
        "schedule: AnyOf([Cron(\"0 14 * * *\"), Cron(\"0 */2 * * *\"), At(\"2026-11-22T14:00\"), OnBoot(\"10m\")])",
        MINUTE,
    );
    lab.serve(async |p| p.until("2026-11-22T17:00:00Z").await);
    assert_eq!(lab.began("a"), ["22 12:10:00", "22 14:00:00", "22 16:00:00"]);
}

#[test]
fn a_job_that_is_started_by_hand_only_starts_by_hand_only() {
    let mut lab = Lab::new(7);
    lab.write("a", "schedule: Manual", MINUTE);
    lab.serve(async |p| {
        p.pass(DAY).await;
        p.run("a").await.expect("it starts");
        assert!(p.run("a").await.is_err(), "it runs");
        assert!(p.run("b").await.is_err(), "there is none");
        p.pass(HOUR).await;
        p.handle.pause(Which::All, None).await.expect("it lives");
        // Whoever starts by hand means it.
        p.run("a").await.expect("it starts");
        p.pass(HOUR).await;
    });
    assert_eq!(lab.began("a").len(), 2);
}

#[test]
fn a_stop_lets_the_run_go_within_the_grace_period_and_the_next_goes_on() {
    let mut lab = Lab::new(8);
    lab.write("a", NIGHTLY, HOUR);
    let took = lab.serve(async |p| {
        p.until("2026-11-23T02:50:00Z").await;
        p.stop().await
    });
    assert!(took <= Duration::from_secs(15), "{took:?}");
    assert_eq!(lab.told("a"), ["23 02:30 schedule unfinished"]);
    lab.serve(async |p| p.until("2026-11-23T05:00:00Z").await);
    assert_eq!(lab.told("a"), ["23 02:30 schedule succeeded"]);
    let took = lab.serve(async |p| p.stop().await);
    assert_eq!(took, Duration::ZERO, "idle");
    // Killed: at once.
    let took = lab.serve(async |p| {
        p.until("2026-11-24T02:50:00Z").await;
        let began = p.world.boot();
        p.handle.kill().await;
        p.served().await.expect("the state answers");
        p.world.boot().since(began)
    });
    assert_eq!(took, Duration::ZERO);
}

#[test]
fn a_run_that_waits_to_be_resumed_is_what_its_job_is_busy_with() {
    for seed in 0..200 {
        let mut lab = Lab::new(seed);
        lab.write("a", NIGHTLY, HOUR);
        lab.serve(async |p| p.until("2026-11-23T02:50:00Z").await);
        let run = lab.runs()[0].run.to_string();
        let why = lab.serve(async |p| p.run("a").await.expect_err("it is not gone on with yet"));
        assert!(why.contains(&run), "seed {seed}: {why}");
    }
}

#[test]
fn a_restart_finds_every_firing_that_waits_however_many_there_are() {
    let mut lab = Lab::new(9);
    lab.write("a", "schedule: After(job: \"b\")", MINUTE);
    let row = |number: i64| FiringRow {
        job: "a".into(),
        key: format!("after b {number}"),
        trigger: "dependency".into(),
        due_ms: number,
        last_ms: number,
        count: Some(1),
        end: FiringEnd::Waiting,
        reason: None,
        told_ms: number,
        to_tell: false,
    };
    lab.look(async |state| state.consider(Vec::new(), (0..900).map(row).collect()).await.expect("kept"));
    assert_eq!(lab.waiting().len(), 900);
    lab.serve(async |p| p.pass(HOUR).await);
    assert_eq!((lab.runs().len(), lab.rows().len(), lab.waiting().len()), (1, 899, 0));
}
