//! Times that were not met: made up for, or missed.

use super::lab::{DAY, HOUR, Lab, MINUTE};
use std::time::Duration;

fn nightly(more: &str) -> String {
    format!("schedule: Cron(\"30 2 * * *\"), {more}")
}

/// Serves a night, is down until then, and serves some hours.
fn down_until(lab: &mut Lab, wall: &str) {
    lab.serve(async |p| p.until("2026-11-23T03:00:00Z").await);
    let off = super::lab::at(wall).duration_since(lab.sim.world().wall());
    lab.down(Duration::try_from(off).expect("later"));
    lab.serve(async |p| p.pass(2 * HOUR).await);
}

#[test]
fn after_days_of_downtime_the_newest_night_is_made_up_for() {
    let mut lab = Lab::new(1);
    lab.write("a", &nightly(""), MINUTE);
    down_until(&mut lab, "2026-11-26T04:00:00Z");
    assert_eq!(
        lab.told("a"),
        ["23 02:30 schedule succeeded", "24 02:30 x2 Missed down", "26 02:30 catch_up succeeded"]
    );
    assert_eq!(lab.began("a")[1..], ["26 04:00:30"], "some time behind the start");
}

#[test]
fn a_night_that_is_too_old_is_missed() {
    let mut lab = Lab::new(1);
    lab.write("a", &nightly(""), MINUTE);
    lab.write("b", &nightly("catch_up_window: \"3h\""), MINUTE);
    lab.write("c", &nightly("catch_up: Never"), MINUTE);
    down_until(&mut lab, "2026-11-26T06:00:00Z");
    assert_eq!(lab.told("a")[1..], ["24 02:30 x2 Missed down", "26 02:30 catch_up succeeded"]);
    assert_eq!(lab.told("b")[1..], ["24 02:30 x3 Missed down"]);
    assert_eq!(lab.told("c")[1..], ["24 02:30 x3 Missed down"]);
}

#[test]
fn all_are_made_up_for_in_their_order_one_at_a_time() {
    let mut lab = Lab::new(2);
    lab.write("a", &nightly("catch_up: All(max: 2), catch_up_window: \"7d\""), 10 * MINUTE);
    lab.write("b", &nightly(""), 10 * MINUTE);
    lab.write("c", &nightly("catch_up: All(max: 2)"), Duration::ZERO);
    down_until(&mut lab, "2026-11-26T04:00:00Z");
    assert_eq!(
        lab.told("c")[1..],
        ["24 02:30 Missed down", "25 02:30 catch_up succeeded", "26 02:30 catch_up succeeded"],
        "where no window is given"
    );
    let told = lab.told("a");
    assert_eq!(
        told[1..],
        ["24 02:30 Missed down", "25 02:30 catch_up succeeded", "26 02:30 catch_up succeeded"],
        "{told:?}"
    );
    let mut effects: Vec<_> =
        lab.effects().into_iter().filter(|effect| effect.began > super::lab::at("2026-11-26T04:00:00Z")).collect();
    effects.sort_by_key(|effect| effect.began);
    assert_eq!(effects.len(), 5);
    for pair in effects.windows(2) {
        let gap = pair[1].began.duration_since(pair[0].ended.expect("it ended"));
        assert!(gap.as_secs() >= 30, "{effects:?}");
    }
}

#[test]
fn within_the_start_window_a_late_start_is_no_catch_up() {
    let mut lab = Lab::new(3);
    lab.write("a", &nightly("start_window: \"2h\", catch_up: Never"), MINUTE);
    lab.write("b", &nightly("catch_up: Never"), MINUTE);
    lab.down(HOUR);
    lab.serve(async |p| p.pass(HOUR).await);
    lab.down(13 * HOUR + 30 * MINUTE);
    lab.serve(async |p| p.pass(HOUR).await);
    assert_eq!(lab.told("a"), ["23 02:30 schedule succeeded"]);
    assert_eq!(lab.told("b"), ["23 02:30 Missed down"]);
}

#[test]
fn who_sleeps_over_a_due_time_makes_up_for_it_when_it_wakes() {
    let mut lab = Lab::new(4);
    lab.write("a", &nightly(""), MINUTE);
    lab.write("never", &nightly("catch_up: Never"), MINUTE);
    lab.serve(async |p| {
        p.until("2026-11-22T23:00:00Z").await;
        p.sim.suspend(8 * HOUR);
        p.pass(2 * MINUTE).await;
    });
    assert_eq!(lab.told("a"), ["23 02:30 catch_up succeeded"]);
    assert_eq!(lab.began("a"), ["23 07:00:00"]);
    assert_eq!(lab.told("never"), ["23 02:30 Missed asleep"]);
}

#[test]
fn a_firing_that_waited_when_the_machine_went_down_is_late_like_any_other() {
    for (more, told) in [("catch_up: Never", "23 02:30 Missed down"), ("", "23 02:30 catch_up succeeded")] {
        let mut lab = Lab::new(5);
        lab.write("a", &nightly(&format!("splay: \"2h\", {more}")), MINUTE);
        // Written down, and in its splay.
        lab.serve(async |p| p.until("2026-11-23T02:30:01Z").await);
        assert_eq!(lab.told("a"), ["23 02:30 waits"]);
        lab.down(8 * HOUR);
        lab.serve(async |p| p.pass(HOUR).await);
        assert_eq!(lab.told("a"), [told]);
    }
    // Asleep, and a night later: only the newest is made up for.
    let mut lab = Lab::new(5);
    lab.write("a", &nightly("splay: \"2h\""), MINUTE);
    lab.serve(async |p| {
        p.until("2026-11-23T02:30:01Z").await;
        p.sim.suspend(DAY + HOUR * 6);
        p.pass(HOUR).await;
    });
    assert_eq!(lab.told("a"), ["23 02:30 Missed asleep", "24 02:30 catch_up succeeded"]);
}

#[test]
fn a_firing_in_its_splay_goes_on_over_a_restart() {
    let mut lab = Lab::new(6);
    lab.write("a", &nightly("splay: \"2h\", catch_up: Never"), MINUTE);
    lab.serve(async |p| p.until("2026-11-23T02:30:01Z").await);
    lab.serve(async |p| p.until("2026-11-23T08:00:00Z").await);
    lab.reboot(MINUTE, None);
    lab.serve(async |p| p.until("2026-11-24T08:00:00Z").await);
    assert_eq!(lab.told("a"), ["23 02:30 schedule succeeded", "24 02:30 schedule succeeded"]);
    let began = lab.began("a");
    assert_eq!(began[0][3..], began[1][3..], "the same at every firing");
    assert!(began[0].as_str() > "23 02:30:00" && began[0].as_str() < "23 04:30:00", "{began:?}");
}
