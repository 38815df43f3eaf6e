//! Job files that come, change, break and go.

use super::lab::{DAY, HOUR, Lab, MINUTE, job};
use std::time::Duration;

const NIGHTLY: &str = "schedule: Cron(\"30 2 * * *\")";

#[test]
fn a_changed_schedule_counts_from_now() {
    let mut lab = Lab::new(1);
    lab.write("a", "schedule: Cron(\"0 13 * * *\")", MINUTE);
    lab.serve(async |p| {
        p.until("2026-11-22T12:30:00Z").await;
        p.desk.write("a", &job("schedule: Cron(\"0 */2 * * *\")", MINUTE));
        p.reload().await;
        p.until("2026-11-22T14:30:00Z").await;
    });
    assert_eq!(lab.began("a"), ["22 14:00:00"]);
    // Changed while nobody looked: nothing of the new one is made up for.
    lab.write("a", "schedule: Cron(\"0 15 * * *\")", MINUTE);
    lab.down(2 * HOUR);
    lab.serve(async |p| p.pass(HOUR).await);
    assert_eq!(lab.told("a"), ["22 14:00 schedule succeeded"]);
}

#[test]
fn a_job_that_is_new_makes_up_for_nothing() {
    let mut lab = Lab::new(2);
    lab.serve(async |p| p.pass(HOUR).await);
    lab.down(DAY);
    lab.write("a", NIGHTLY, MINUTE);
    lab.serve(async |p| p.pass(HOUR).await);
    assert!(lab.told("a").is_empty());
}

#[test]
fn a_file_that_is_saved_keeps_its_place_and_one_that_was_away_is_new() {
    for (away, told) in [(MINUTE, vec!["23 02:30 catch_up succeeded"]), (10 * MINUTE, vec![])] {
        // Away at the due time, and back behind it.
        let mut lab = Lab::new(3);
        lab.write("a", NIGHTLY, MINUTE);
        lab.serve(async |p| {
            p.until("2026-11-23T02:29:50Z").await;
            p.desk.remove("a");
            p.reload().await;
            p.pass(away + Duration::from_secs(20)).await;
            p.desk.write("a", &job(NIGHTLY, MINUTE));
            p.reload().await;
            p.pass(HOUR).await;
        });
        assert_eq!(lab.told("a"), told);
    }
    // Away for days, and over a restart.
    for restart_in_between in [false, true] {
        let mut lab = Lab::new(3);
        lab.write("a", NIGHTLY, MINUTE);
        lab.serve(async |p| {
            p.pass(HOUR).await;
            p.desk.remove("a");
            p.reload().await;
            p.pass(DAY).await;
        });
        if restart_in_between {
            lab.serve(async |p| p.pass(DAY).await);
        }
        lab.down(MINUTE);
        lab.write("a", NIGHTLY, MINUTE);
        lab.serve(async |p| p.pass(HOUR).await);
        assert!(lab.told("a").is_empty(), "{:?}", lab.told("a"));
    }
    // Taken away while nothing served.
    let mut lab = Lab::new(3);
    lab.write("a", NIGHTLY, MINUTE);
    lab.serve(async |p| p.pass(HOUR).await);
    lab.desk.remove("a");
    lab.serve(async |p| {
        p.pass(2 * DAY).await;
        p.desk.write("a", &job(NIGHTLY, MINUTE));
        p.reload().await;
        p.pass(HOUR).await;
    });
    assert!(lab.told("a").is_empty(), "{:?}", lab.told("a"));
}

#[test]
fn a_bad_edit_keeps_the_last_good_version() {
    let mut lab = Lab::new(4);
    lab.write("a", "schedule: Cron(\"0 * * * *\")", MINUTE);
    lab.serve(async |p| {
        p.pass(30 * MINUTE).await;
        p.desk.write("a", "Job(nonsense");
        assert_eq!(p.reload().await.len(), 1);
        p.pass(2 * HOUR).await;
        p.desk.write("a", &job("schedule: Cron(\"0 * * * *\")", MINUTE));
        assert!(p.reload().await.is_empty());
        p.pass(HOUR).await;
    });
    assert_eq!(lab.began("a"), ["22 13:00:00", "22 14:00:00", "22 15:00:00"]);
}

#[test]
fn a_run_keeps_the_definition_that_it_began_with() {
    let mut lab = Lab::new(5);
    lab.write("a", "schedule: Cron(\"0 13 * * *\")", HOUR);
    lab.serve(async |p| {
        p.until("2026-11-22T13:10:00Z").await;
        p.desk.write("a", &job("schedule: Cron(\"0 13 * * *\")", MINUTE));
        p.reload().await;
        p.until("2026-11-22T13:30:00Z").await;
    });
    lab.desk.remove("a");
    lab.serve(async |p| p.pass(2 * HOUR).await);
    let effects = lab.effects();
    assert_eq!(effects.len(), 2);
    assert_eq!(effects[1].ended.map(|ended| ended.duration_since(effects[1].began).as_secs()), Some(3600));
    assert_eq!(lab.told("a"), ["22 13:00 schedule succeeded"]);
}

#[test]
fn storms_of_edits_make_nothing_due_twice() {
    let mut lab = Lab::new(6);
    lab.write("a", "schedule: Cron(\"* * * * *\")", Duration::ZERO);
    lab.write("b", "schedule: Every(\"1m\")", Duration::ZERO);
    lab.serve(async |p| {
        for edit in 0..600_u64 {
            p.pass(Duration::from_millis(997)).await;
            if edit % 7 == 3 {
                p.desk.remove("a");
            } else {
                p.desk.write("a", &job("schedule: Cron(\"* * * * *\")", Duration::from_millis(edit)));
                p.desk.write("b", &job("schedule: Every(\"1m\")", Duration::from_millis(edit)));
            }
            p.handle.files_changed().await;
        }
        p.desk.write("a", &job("schedule: Cron(\"* * * * *\")", Duration::ZERO));
        p.reload().await;
        p.pass(MINUTE).await;
    });
    let dues: Vec<_> = lab.effects().iter().map(|effect| (effect.job.clone(), effect.due)).collect();
    let mut once = dues.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), dues.len());
    assert_eq!(dues.iter().filter(|(job, _)| job == "a").count(), 10, "{dues:?}");
    assert_eq!(dues.iter().filter(|(job, _)| job == "b").count(), 10, "{dues:?}");
}

#[test]
fn a_firing_waits_for_a_file_that_is_being_saved_however_old_its_due_is() {
    let mut lab = Lab::new(7);
    lab.write("a", NIGHTLY, 3 * HOUR);
    lab.write("b", "schedule: After(job: \"a\")", MINUTE);
    lab.write("c", "schedule: Cron(\"29 5 * * *\"), overlap: Queue", MINUTE);
    lab.options.max_running_jobs = 1;
    lab.serve(async |p| {
        p.until("2026-11-23T05:29:59Z").await;
        p.pass(Duration::from_secs(2)).await;
        // It waits for the place of `c`; its file is away for some seconds.
        p.desk.remove("b");
        p.reload().await;
        p.pass(Duration::from_secs(5)).await;
        p.desk.write("b", &job("schedule: After(job: \"a\")", MINUTE));
        p.reload().await;
        p.pass(HOUR).await;
    });
    assert_eq!(lab.told("b"), ["23 02:30 dependency succeeded"]);
}

#[test]
fn a_firing_that_waits_goes_with_its_job_when_its_file_is_away_for_long() {
    for (away, told) in [(5, "23 02:30 dependency succeeded"), (10 * 60, "23 02:30 Missed its job is gone")] {
        let mut lab = Lab::new(8);
        lab.write("a", NIGHTLY, MINUTE);
        lab.write("b", "schedule: After(job: \"a\"), wait_window: \"3h\"", MINUTE);
        lab.write("c", "schedule: Cron(\"30 30 2 * * *\"), priority: High", 2 * HOUR);
        lab.options.max_running_jobs = 1;
        lab.serve(async |p| {
            // It has waited for the place of `c` for long when its file goes.
            p.until("2026-11-23T04:00:00Z").await;
            p.desk.remove("b");
            p.reload().await;
            p.pass(Duration::from_secs(away)).await;
            p.desk.write("b", &job("schedule: After(job: \"a\"), wait_window: \"3h\"", MINUTE));
            p.reload().await;
            p.pass(HOUR).await;
        });
        assert_eq!(lab.told("b"), [told]);
    }
}

#[test]
fn what_is_kept_of_a_job_that_is_gone_goes_with_its_history() {
    let mut lab = Lab::new(9);
    lab.options.retention.max_age_ms = 30 * 24 * 3_600_000;
    for name in ["a", "paused", "there"] {
        lab.write(name, NIGHTLY, MINUTE);
    }
    lab.serve(async |p| {
        p.handle.pause(lamplighter::daemon::Which::Job("paused".into()), None).await.expect("it is watched");
        p.desk.remove("a");
        p.desk.remove("paused");
        p.reload().await;
    });
    let marks = |lab: &Lab| {
        let marks = lab.look(async |state| state.marks().await.expect("it answers"));
        marks.into_iter().map(|mark| mark.job).collect::<Vec<_>>()
    };
    lab.down(29 * DAY);
    lab.serve(async |p| p.pass(MINUTE).await);
    assert_eq!(marks(&lab), ["a", "paused", "there"]);
    lab.down(DAY);
    lab.serve(async |p| p.pass(MINUTE).await);
    assert_eq!(marks(&lab), ["paused", "there"], "who was paused stays so");
}

#[test]
fn times_at_which_a_job_was_not_due_by_itself_are_not_made_up_for() {
    let mut lab = Lab::new(10);
    lab.write("a", NIGHTLY, MINUTE);
    lab.serve(async |p| {
        p.pass(HOUR).await;
        p.desk.write("a", &job("schedule: Manual", MINUTE));
        p.reload().await;
        p.until("2026-11-23T12:00:00Z").await;
    });
    // Changed while nobody looked.
    lab.write("a", NIGHTLY, MINUTE);
    lab.serve(async |p| p.until("2026-11-24T12:00:00Z").await);
    assert_eq!(lab.told("a"), ["24 02:30 schedule succeeded"]);
}

#[test]
fn who_asks_is_told_that_the_job_files_cannot_be_listed() {
    let mut lab = Lab::new(11);
    lab.write("a", NIGHTLY, MINUTE);
    lab.serve(async |p| {
        p.pass(MINUTE).await;
        *super::lab::lock(&p.desk.unlisted) = Some("the card is gone".into());
        for refused in [p.run("a").await.map(drop), p.handle.reload().await.map(drop).map_err(|why| why.to_string())] {
            let why = refused.expect_err("it cannot be known whether they are as they were");
            assert!(why.contains("the card is gone"), "{why}");
        }
        p.until("2026-11-23T12:00:00Z").await;
    });
    assert_eq!(lab.told("a"), ["23 02:30 schedule succeeded"], "the last good version goes on");
}

#[test]
fn nothing_that_waits_for_a_job_is_lost_where_the_job_files_come_later_than_the_daemon() {
    let mut lab = Lab::new(12);
    lab.write("a", NIGHTLY, MINUTE);
    lab.write("b", "schedule: After(job: \"a\")", MINUTE);
    lab.write("c", "schedule: Cron(\"30 30 2 * * *\"), priority: High", HOUR);
    lab.options.max_running_jobs = 1;
    // It waits for the place of `c`.
    lab.serve(async |p| p.until("2026-11-23T02:45:00Z").await);
    *super::lab::lock(&lab.desk.unlisted) = Some("the card is not there yet".into());
    lab.serve(async |p| {
        p.pass(10 * MINUTE).await;
        *super::lab::lock(&p.desk.unlisted) = None;
        p.handle.files_changed().await;
        p.pass(HOUR).await;
    });
    assert_eq!(lab.told("b"), ["23 02:30 dependency succeeded"]);
}

/// Fault 49.
#[test]
fn a_job_folder_that_hangs_holds_up_nothing_and_whoever_asks_is_told() {
    let mut lab = Lab::new(8);
    lab.write("a", NIGHTLY, MINUTE);
    lab.serve(async |p| {
        p.pass(MINUTE).await;
        let hangs = p.sim.hang_blocking(1);
        p.desk.write("a", &job("schedule: Cron(\"0 1 * * *\")", MINUTE));
        p.handle.files_changed().await;
        let asked = p.world.boot();
        for refused in [p.run("a").await.map(drop), p.handle.reload().await.map(drop).map_err(|why| why.to_string())] {
            assert!(refused.expect_err("nobody waits for ever").contains("has not answered for 30 s"));
        }
        assert_eq!(p.world.boot().since(asked), Duration::from_secs(30), "the second is told at once");
        // The last good version goes on.
        p.until("2026-11-23T12:00:00Z").await;
        assert!(p.handle.is_alive().await);
        drop(hangs);
        p.reload().await;
        p.until("2026-11-24T12:00:00Z").await;
    });
    assert_eq!(lab.told("a"), ["23 02:30 schedule succeeded", "24 01:00 schedule succeeded"]);
}
