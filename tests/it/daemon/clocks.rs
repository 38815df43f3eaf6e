//! Clocks that are set, wrong, or change to summer time.

use super::lab::{DAY, HOUR, Lab, MINUTE, at, lock};
use lamplighter::daemon::{ClockPolicy, ClockSigns};
use std::time::Duration;

const NIGHTLY: &str = "schedule: Cron(\"30 2 * * *\")";
const SYNCHRONISED: ClockSigns = ClockSigns { is_synchronised: true, has_battery: false };
const BATTERY: ClockSigns = ClockSigns { is_synchronised: false, has_battery: true };

#[test]
fn a_step_forward_is_one_catch_up_and_no_burst() {
    for (to, told) in [
        ("2026-11-23T04:00:00Z", vec!["23 02:30 catch_up succeeded"]),
        ("2026-11-26T04:00:00Z", vec!["23 02:30 x3 Missed clock", "26 02:30 catch_up succeeded"]),
    ] {
        let mut lab = Lab::new(1);
        lab.write("a", NIGHTLY, MINUTE);
        lab.serve(async |p| {
            p.until("2026-11-22T20:00:00Z").await;
            p.set(to);
            p.pass(10 * MINUTE).await;
        });
        assert_eq!(lab.told("a"), told);
    }
    let mut lab = Lab::new(1);
    lab.write("a", "schedule: Cron(\"*/5 * * * *\")", MINUTE);
    lab.serve(async |p| {
        p.until("2026-11-22T12:01:00Z").await;
        p.set("2031-11-22T12:02:00Z");
        p.pass(MINUTE).await;
    });
    assert_eq!(lab.effects().len(), 1);
    assert_eq!(lab.rows().len(), 2, "{:?}", lab.rows());
    assert!(lab.rows().iter().all(|row| row.reason.as_deref() == Some("clock")));
}

#[test]
fn a_step_just_over_the_due_second_loses_nothing() {
    let mut lab = Lab::new(2);
    lab.write("a", NIGHTLY, MINUTE);
    lab.serve(async |p| {
        p.until("2026-11-23T02:29:57Z").await;
        p.set("2026-11-23T02:30:12Z");
        p.pass(2 * MINUTE).await;
    });
    assert_eq!(lab.told("a"), ["23 02:30 schedule succeeded"]);
}

#[test]
fn a_clock_that_is_set_back_repeats_nothing_and_loses_no_night() {
    for back in ["2026-11-23T02:29:30Z", "2026-11-22T23:40:00Z", "2026-11-09T02:00:00Z", "1970-01-01T00:00:10Z"] {
        let mut lab = Lab::new(3);
        lab.write("a", NIGHTLY, MINUTE);
        lab.write("b", "schedule: Cron(\"*/10 * * * *\")", Duration::ZERO);
        let is_far = back < "2026-11-22";
        lab.serve(async |p| {
            p.until("2026-11-23T02:40:30Z").await;
            p.set(back);
            p.pass(if is_far { 20 * HOUR } else { 30 * HOUR }).await;
        });
        let effects = lab.effects();
        for one in &effects {
            let same = effects.iter().filter(|other| (&other.job, other.due) == (&one.job, one.due)).count();
            assert_eq!(same, 1, "{back}: {one:?}");
        }
        // What was there before it began was missed by nobody.
        assert!(lab.rows().is_empty(), "{back}: {:?}", lab.rows());
        let nights: Vec<String> = lab.told("a");
        let next = if back.starts_with("1970") {
            "01 02:30"
        } else if is_far {
            "09 02:30"
        } else {
            "24 02:30"
        };
        assert!(nights.iter().any(|told| told.starts_with(next)), "{back}: {nights:?}");
        assert!(effects.iter().filter(|effect| effect.job == "b").count() > 90, "{back}: {}", effects.len());
    }
}

#[test]
fn a_clock_that_was_wrong_for_days_and_is_put_right_loses_no_night() {
    let mut lab = Lab::new(4);
    lab.write("a", &format!("{NIGHTLY}, catch_up: Never"), MINUTE);
    lab.serve(async |p| {
        p.until("2026-11-22T20:00:00Z").await;
        p.set("2026-11-26T20:00:00Z");
        p.pass(HOUR).await;
        p.set("2026-11-22T21:00:00Z");
        p.until("2026-11-27T20:00:00Z").await;
    });
    let nights: Vec<String> = lab.told("a").into_iter().filter(|told| told.contains("schedule")).collect();
    assert_eq!(nights.len(), 5, "{nights:?}");
}

#[test]
fn a_clock_that_is_set_while_the_daemon_is_at_work_is_noticed() {
    // At any poll of the turn that starts the night.
    for polls in 1..60 {
        let mut lab = Lab::new(polls);
        lab.write("a", NIGHTLY, Duration::ZERO);
        lab.write("b", "schedule: Cron(\"0 * * * *\")", Duration::ZERO);
        lab.serve(async |p| {
            p.until("2026-11-23T02:29:59Z").await;
            for _ in 0..polls {
                futures_lite::future::yield_now().await;
            }
            while p.world.wall() < at("2026-11-23T02:30:00Z") {
                p.until("2026-11-23T02:30:00Z").await;
            }
            for _ in 0..polls {
                futures_lite::future::yield_now().await;
            }
            p.set("2026-11-09T03:30:00Z");
            p.pass(2 * HOUR).await;
        });
        let hours =
            lab.effects().into_iter().filter(|effect| effect.job == "b" && effect.began < at("2026-11-10T00:00:00Z"));
        assert_eq!(hours.count(), 2, "polls {polls}");
    }
}

#[test]
fn a_gateway_that_wakes_up_in_1970_waits_for_its_clock() {
    let mut lab = Lab::new(5);
    lab.options.clock = ClockPolicy::Auto;
    *lock(&lab.desk.signs) = SYNCHRONISED;
    lab.write("a", NIGHTLY, MINUTE);
    lab.write("rhythm", "schedule: Every(\"1h\")", MINUTE);
    lab.write("boot", "schedule: OnBoot(\"1m\")", MINUTE);
    lab.serve(async |p| p.until("2026-11-23T03:00:00Z").await);
    *lock(&lab.desk.signs) = BATTERY;
    lab.reboot(MINUTE, Some(at("1970-01-01T00:00:10Z")));
    // A job that comes while nobody knows what time it is.
    lab.write("new", NIGHTLY, MINUTE);
    let before = lab.effects().len();
    lab.serve(async |p| p.pass(5 * HOUR).await);
    let jobs: Vec<String> = lab.effects()[before..].iter().map(|effect| effect.job.clone()).collect();
    assert!(jobs.contains(&"rhythm".to_owned()) && jobs.contains(&"boot".to_owned()), "{jobs:?}");
    assert!(!jobs.contains(&"a".to_owned()) && !jobs.contains(&"new".to_owned()), "{jobs:?}");
    lab.serve(async |p| {
        p.pass(HOUR).await;
        *lock(&p.desk.signs) = SYNCHRONISED;
        p.set("2026-11-25T04:00:00Z");
        p.pass(2 * HOUR).await;
    });
    assert_eq!(lab.told("a"), ["23 02:30 schedule succeeded", "24 02:30 Missed down", "25 02:30 catch_up succeeded"]);
    assert_eq!(lab.told("new"), ["25 02:30 catch_up succeeded"], "it came six hours before the clock was set");
}

#[test]
fn a_clock_that_may_be_right_is_believed_after_a_while() {
    let mut lab = Lab::new(6);
    lab.options.clock = ClockPolicy::Auto;
    *lock(&lab.desk.signs) = BATTERY;
    lab.write("a", NIGHTLY, MINUTE);
    lab.serve(async |p| p.until("2026-11-22T13:00:00Z").await);
    lab.reboot(MINUTE, Some(at("2026-11-23T02:29:30Z")));
    lab.serve(async |p| p.pass(HOUR).await);
    assert_eq!(lab.told("a"), ["23 02:30 catch_up succeeded"]);
    // Behind what was recorded: not before somebody sets it.
    lab.reboot(MINUTE, Some(at("2026-11-20T02:29:30Z")));
    lab.serve(async |p| p.pass(5 * HOUR).await);
    assert_eq!(lab.told("a").len(), 1);
}

#[test]
fn a_mark_of_a_job_that_is_gone_does_not_make_a_clock_unbelievable() {
    let mut lab = Lab::new(7);
    lab.options.clock = ClockPolicy::Auto;
    *lock(&lab.desk.signs) = SYNCHRONISED;
    lab.write("a", NIGHTLY, MINUTE);
    lab.write("b", NIGHTLY, MINUTE);
    lab.serve(async |p| {
        p.pass(HOUR).await;
        p.set("2028-11-22T14:00:00Z");
        p.pass(HOUR).await;
        p.desk.remove("b");
        p.reload().await;
        p.set("2026-11-22T15:00:00Z");
        p.until("2026-11-23T03:00:00Z").await;
    });
    *lock(&lab.desk.signs) = BATTERY;
    lab.reboot(MINUTE, None);
    lab.serve(async |p| p.until("2026-11-24T03:00:00Z").await);
    assert_eq!(lab.began("a").last().map(String::as_str), Some("24 02:30:00"));
}

#[test]
fn nights_of_the_change_to_summer_time_and_back() {
    for (from, to, began) in [
        ("2027-03-27T12:00:00Z", "2027-03-29T12:00:00Z", ["28 01:00:00", "29 00:30:00"]),
        ("2026-10-24T12:00:00Z", "2026-10-26T12:00:00Z", ["25 00:30:00", "26 01:30:00"]),
    ] {
        let mut lab = Lab::new(8);
        lab.sim.set_wall(at(from));
        lab.write("a", "timezone: \"Europe/Berlin\", schedule: Cron(\"30 2 * * *\")", MINUTE);
        lab.serve(async |p| p.until(to).await);
        assert_eq!(lab.began("a"), began);
    }
}

#[test]
fn a_splay_is_over_in_time_whatever_the_clock_does() {
    let mut lab = Lab::new(9);
    lab.write("a", &format!("{NIGHTLY}, splay: \"1h\""), MINUTE);
    lab.serve(async |p| {
        p.until("2026-11-23T02:30:01Z").await;
        p.set("2026-11-08T02:30:00Z");
        p.pass(HOUR).await;
    });
    assert_eq!(lab.effects().iter().filter(|effect| effect.due == at("2026-11-23T02:30:00Z")).count(), 1);
}

#[test]
fn a_clock_that_jumps_years_ahead_stays_a_day() {
    let mut lab = Lab::new(10);
    lab.write("a", NIGHTLY, MINUTE);
    lab.serve(async |p| {
        p.pass(DAY).await;
        p.set("2039-11-22T14:00:00Z");
        p.pass(DAY).await;
    });
    assert_eq!(lab.began("a"), ["23 02:30:00", "22 14:00:00", "23 02:30:00"], "2026, and two in 2039");
}

#[test]
fn by_a_clock_that_is_not_believed_nothing_is_let_go() {
    let mut lab = Lab::new(11);
    lab.options.clock = ClockPolicy::Auto;
    lab.options.retention.max_age_ms = 30 * 24 * 3_600_000;
    *lock(&lab.desk.signs) = SYNCHRONISED;
    lab.write("a", NIGHTLY, MINUTE);
    lab.write("rhythm", "schedule: Every(\"1h\")", MINUTE);
    lab.serve(async |p| p.until("2026-11-23T03:00:00Z").await);
    *lock(&lab.desk.signs) = BATTERY;
    lab.reboot(MINUTE, Some(at("2039-01-01T00:00:00Z")));
    lab.serve(async |p| p.pass(3 * HOUR).await);
    assert_eq!(lab.told("a"), ["23 02:30 schedule succeeded"]);
    // By one that is believed it goes, and by none before.
    *lock(&lab.desk.signs) = SYNCHRONISED;
    lab.reboot(MINUTE, Some(at("2027-02-01T03:00:00Z")));
    lab.serve(async |p| p.pass(2 * HOUR).await);
    assert!(!lab.told("a").contains(&"23 02:30 schedule succeeded".to_owned()), "{:?}", lab.told("a"));
}

#[test]
fn a_step_of_the_clock_makes_no_rhythm_late() {
    let mut lab = Lab::new(12);
    lab.options.max_running_jobs = 1;
    lab.write("long", "schedule: At(\"2026-11-22T17:00\"), priority: High", 2 * HOUR);
    lab.write("rhythm", "schedule: Every(\"6h\"), catch_up: Never", MINUTE);
    lab.serve(async |p| {
        p.until("2026-11-22T18:10:00Z").await;
        p.set("2026-11-23T06:10:00Z");
        p.pass(2 * HOUR).await;
    });
    assert_eq!(lab.told("rhythm"), ["22 18:00 schedule succeeded"]);
    assert_eq!(lab.began("rhythm"), ["23 07:00:00"], "when the place was free");
}

#[test]
fn a_firing_of_a_slow_rhythm_is_not_judged_by_a_fast_one_beside_it() {
    let mut lab = Lab::new(13);
    let timing = "schedule: AnyOf([Every(\"7m\"), Every(\"6h\")]), \
                  blackout: [(\"17:50\", \"20:00\")], blackout_policy: Delay";
    lab.write("a", timing, Duration::ZERO);
    lab.serve(async |p| {
        p.until("2026-11-22T18:10:00Z").await;
        p.sim.suspend(3 * HOUR + 20 * MINUTE);
        p.pass(10 * MINUTE).await;
    });
    let told = lab.told("a");
    assert!(told.contains(&"22 18:00 catch_up succeeded".to_owned()), "{told:?}");
    assert!(told.contains(&"22 17:57 Missed asleep".to_owned()), "a fast one is too old: {told:?}");
}

#[test]
fn what_an_earlier_process_left_waits_for_the_clock_as_long_as_is_said() {
    for (minutes, wait) in [(1, MINUTE), (60_u32, HOUR)] {
        let mut lab = Lab::new(14);
        lab.options.clock = ClockPolicy::WaitForSync(wait);
        *lock(&lab.desk.signs) = SYNCHRONISED;
        lab.write("a", NIGHTLY, 3 * HOUR);
        lab.serve(async |p| p.until("2026-11-23T03:00:00Z").await);
        *lock(&lab.desk.signs) = BATTERY;
        lab.reboot(MINUTE, Some(at("1970-01-01T00:00:10Z")));
        lab.serve(async |p| p.pass((minutes + 2) * MINUTE).await);
        let resumed = lab.effects().pop().expect("it goes on").began_boot;
        let expected = u64::from(minutes) * 60;
        assert!((expected..expected + 40).contains(&resumed.0.as_secs()), "{resumed:?} for {wait:?}");
    }
    // By a clock that is years ahead its deadline would have passed.
    let mut lab = Lab::new(15);
    lab.options.clock = ClockPolicy::WaitForSync(MINUTE);
    *lock(&lab.desk.signs) = SYNCHRONISED;
    lab.write("a", NIGHTLY, HOUR);
    lab.serve(async |p| p.until("2026-11-23T03:00:00Z").await);
    *lock(&lab.desk.signs) = BATTERY;
    lab.reboot(MINUTE, Some(at("2039-01-01T00:00:00Z")));
    lab.serve(async |p| {
        p.pass(HOUR).await;
        assert_eq!(p.handle.overview().await.expect("it lives").jobs[0].interrupted.len(), 1);
        *lock(&p.desk.signs) = SYNCHRONISED;
        p.set("2026-11-23T04:10:00Z");
        p.pass(2 * HOUR).await;
    });
    assert_eq!(lab.told("a"), ["23 02:30 schedule succeeded"]);
}

#[test]
fn a_run_that_is_slow_to_go_on_holds_up_nothing() {
    let mut lab = Lab::new(11);
    lab.options.clock = ClockPolicy::Auto;
    lock(&lab.desk.signs).is_synchronised = true;
    lab.write("a", "schedule: Cron(\"30 2 * * *\")", HOUR);
    lab.write("b", "schedule: Every(\"1h\")", Duration::ZERO);
    lab.serve(async |p| p.until("2026-11-23T02:40:00Z").await);
    lock(&lab.desk.signs).is_synchronised = false;
    lab.reboot(MINUTE, None);
    let before = lab.began("b").len();
    lab.serve(async |p| {
        p.pass(MINUTE).await;
        // Once the clock is believed it is gone on with, and what that reads does not come.
        let hangs = p.sim.hang_blocking(1);
        lock(&p.desk.signs).is_synchronised = true;
        p.pass(3 * HOUR).await;
        assert!(p.handle.is_alive().await);
        drop(hangs);
        p.pass(3 * HOUR).await;
    });
    assert_eq!(lab.began("b").len(), before + 6);
    assert_eq!(lab.began("a")[1..], ["23 05:42:00"]);
    assert_eq!(lab.told("a"), ["23 02:30 schedule succeeded"]);
}
