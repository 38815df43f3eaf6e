//! What becomes of the times that have passed: on time, late, made up for, missed. One code path, whether the daemon was
//! down, asleep or busy, or the clock was set (SCHEDULE section 5 of the design).
//!
//! Pure: a watermark and an instant in, decisions out. Who calls it records them and acts.

use super::{Calendar, Firing};
use crate::limits::FIRINGS_LOOKED_AT_MAX;
use jiff::{Timestamp, ToSpan};
use std::{collections::VecDeque, time::Duration};

/// A missed time is not made up for when it is older than this, unless the job says so.
const CATCH_UP_WINDOW_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// Which of the missed times are made up for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CatchUp {
    /// The newest one.
    Latest,
    /// The newest ones, oldest first, at most so many.
    All(usize),
    /// None.
    Never,
}

/// What a job says about times that have passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lateness {
    /// A firing this old is on time.
    pub start_window: Duration,
    /// What is made up for of those that are older.
    pub catch_up: CatchUp,
    /// Nothing older than this is made up for. `None`: half the distance to the next firing, at most seven days; with
    /// [`CatchUp::All`] however old, since each is older than the next one by the whole distance: its number is the bound.
    pub catch_up_window: Option<Duration>,
}

impl Lateness {
    /// Nothing older than this is made up for, where the next firing comes so long behind; `None`: where none does.
    pub fn window(&self, distance: Option<Duration>) -> Duration {
        self.catch_up_window.unwrap_or_else(|| match self.catch_up {
            CatchUp::All(_) => Duration::MAX,
            CatchUp::Latest | CatchUp::Never => {
                distance.map_or(CATCH_UP_WINDOW_MAX, |distance| (distance / 2).min(CATCH_UP_WINDOW_MAX))
            }
        })
    }
}

/// What becomes of one firing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It starts now.
    OnTime,
    /// It is late, and made up for.
    CatchUp,
    /// It is not made up for.
    Missed,
}

/// Everything that became due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Oldest first.
    pub firings: Vec<(Firing, Verdict)>,
    /// Firings between these two instants (the first not among them) were not looked at: too many, all missed.
    pub unseen: Option<(Timestamp, Timestamp)>,
    /// The next one behind `now`.
    pub next: Option<Firing>,
}

/// Judges every firing in (`watermark`, `now`]. A watermark behind `now` gives an empty plan: nothing repeats when the
/// clock was set back.
pub fn plan(calendar: &Calendar, lateness: &Lateness, watermark: Timestamp, now: Timestamp) -> Plan {
    let next = calendar.next(now.max(watermark));
    let (due, unseen) = due(calendar, watermark, now);
    let age = |firing: &Firing| Duration::try_from(now.duration_since(firing.at)).unwrap_or_default();
    let is_late = |firing: &Firing| age(firing) > lateness.start_window;
    let window = |firing: &Firing, after: Option<&Firing>| {
        let distance = after.map(|after| Duration::try_from(after.at.duration_since(firing.at)).unwrap_or_default());
        lateness.window(distance)
    };
    let may_catch_up = match lateness.catch_up {
        CatchUp::Latest => 1,
        CatchUp::All(max) => max,
        CatchUp::Never => 0,
    };
    // One on time is newer than any that is late: then `Latest` has nothing to make up for.
    let newest_is_on_time = due.last().is_some_and(|firing| !is_late(firing));
    let late = due.iter().filter(|firing| is_late(firing)).count();
    let mut left = if newest_is_on_time && lateness.catch_up == CatchUp::Latest { 0 } else { may_catch_up.min(late) };
    let mut verdicts: Vec<Verdict> = Vec::with_capacity(due.len());
    for (place, firing) in due.iter().enumerate().rev() {
        let after = due.get(place + 1).or(next.as_ref());
        verdicts.push(if !is_late(firing) {
            Verdict::OnTime
        } else if left > 0 && age(firing) < window(firing, after) {
            left -= 1;
            Verdict::CatchUp
        } else {
            left = left.saturating_sub(1);
            Verdict::Missed
        });
    }
    verdicts.reverse();
    Plan { firings: due.into_iter().zip(verdicts).collect(), unseen, next }
}

/// The newest firings in (`watermark`, `now`], and the time before them in which there are more.
fn due(calendar: &Calendar, watermark: Timestamp, now: Timestamp) -> (Vec<Firing>, Option<(Timestamp, Timestamp)>) {
    // From the end backwards in windows that double, so that years of a rhythm of minutes are not walked through.
    let mut window = 1.hours();
    loop {
        let from = now.checked_sub(window).unwrap_or(Timestamp::MIN).max(watermark);
        let mut firings = VecDeque::new();
        let mut dropped = false;
        let mut after = from;
        while let Some(firing) = calendar.next(after).filter(|firing| firing.at <= now) {
            after = firing.at;
            firings.push_back(firing);
            if firings.len() > FIRINGS_LOOKED_AT_MAX {
                firings.pop_front();
                dropped = true;
            }
        }
        if from == watermark || dropped {
            let first = firings.front().map(|firing: &Firing| firing.at);
            return (firings.into(), first.filter(|_| dropped).map(|first| (watermark, first)));
        }
        window = window.checked_mul(2).unwrap_or(window);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::tz::TimeZone;

    const MINUTE: Duration = Duration::from_secs(60);
    const HOUR: Duration = Duration::from_secs(3600);

    fn planned(expression: &str, catch_up: CatchUp, from: &str, now: &str) -> Vec<String> {
        let calendar = Calendar::cron(expression, TimeZone::UTC, 0).expect("good");
        let lateness = Lateness { start_window: MINUTE, catch_up, catch_up_window: None };
        let at = |text: &str| format!("{text}Z").parse::<Timestamp>().expect("an instant");
        let plan = plan(&calendar, &lateness, at(from), at(now));
        let told = |(firing, verdict): &(Firing, Verdict)| format!("{} {verdict:?}", firing.at.strftime("%d %H:%M"));
        plan.firings.iter().map(told).collect()
    }

    #[test]
    fn within_the_start_window_a_firing_is_on_time() {
        let on_time = planned("30 2 * * *", CatchUp::Never, "2026-11-22T12:00:00", "2026-11-23T02:31:00");
        assert_eq!(on_time, ["23 02:30 OnTime"]);
        let late = planned("30 2 * * *", CatchUp::Never, "2026-11-22T12:00:00", "2026-11-23T02:31:01");
        assert_eq!(late, ["23 02:30 Missed"]);
        let nothing = planned("30 2 * * *", CatchUp::Latest, "2026-11-22T12:00:00", "2026-11-23T02:29:59");
        assert!(nothing.is_empty());
    }

    #[test]
    fn after_days_of_downtime_the_newest_night_is_made_up_for_if_it_is_young_enough() {
        let of = |now| planned("30 2 * * *", CatchUp::Latest, "2026-11-20T12:00:00", now);
        assert_eq!(of("2026-11-23T10:00:00"), ["21 02:30 Missed", "22 02:30 Missed", "23 02:30 CatchUp"]);
        // More than half the way to the next one.
        assert_eq!(of("2026-11-23T15:00:00"), ["21 02:30 Missed", "22 02:30 Missed", "23 02:30 Missed"]);
        // The next one is due: it is what the missed ones were for.
        assert_eq!(of("2026-11-22T02:30:10"), ["21 02:30 Missed", "22 02:30 OnTime"]);
    }

    #[test]
    fn all_makes_up_for_the_newest_in_their_order_within_the_window() {
        let calendar = Calendar::cron("0 * * * *", TimeZone::UTC, 0).expect("good");
        let lateness =
            Lateness { start_window: MINUTE, catch_up: CatchUp::All(3), catch_up_window: Some(2 * HOUR + 31 * MINUTE) };
        let at = |text: &str| text.parse::<Timestamp>().expect("an instant");
        let plan = plan(&calendar, &lateness, at("2026-11-23T00:30:00Z"), at("2026-11-23T06:30:00Z"));
        let verdicts: Vec<&Verdict> = plan.firings.iter().map(|(_, verdict)| verdict).collect();
        let (missed, made_up_for) = (&Verdict::Missed, &Verdict::CatchUp);
        assert_eq!(verdicts, [missed, missed, missed, made_up_for, made_up_for, made_up_for]);
        assert_eq!(plan.next.map(|firing| firing.at), Some(at("2026-11-23T07:00:00Z")));
    }

    #[test]
    fn all_makes_up_for_as_many_as_it_says_where_no_window_is_given() {
        let of = |max, now| planned("30 2 * * *", CatchUp::All(max), "2026-11-20T12:00:00", now);
        let (one, two, three) = ("21 02:30", "22 02:30", "23 02:30");
        let told = |first: &str, second: &str, third: &str| {
            [(one, first), (two, second), (three, third)].map(|(at, what)| format!("{at} {what}"))
        };
        assert_eq!(of(2, "2026-11-23T20:00:00"), told("Missed", "CatchUp", "CatchUp"));
        assert_eq!(of(7, "2026-11-23T20:00:00"), told("CatchUp", "CatchUp", "CatchUp"));
    }

    #[test]
    fn a_clock_that_was_set_back_repeats_nothing() {
        let nothing = planned("*/5 * * * *", CatchUp::All(9), "2026-11-23T12:00:00", "2026-11-23T09:00:00");
        assert!(nothing.is_empty());
        let calendar = Calendar::cron("*/5 * * * *", TimeZone::UTC, 0).expect("good");
        let lateness = Lateness { start_window: MINUTE, catch_up: CatchUp::Latest, catch_up_window: None };
        let at = |text: &str| text.parse::<Timestamp>().expect("an instant");
        let plan = plan(&calendar, &lateness, at("2026-11-23T12:00:00Z"), at("2026-11-23T09:00:00Z"));
        assert_eq!(plan.next.map(|firing| firing.at), Some(at("2026-11-23T12:05:00Z")));
    }

    #[test]
    fn years_of_minutes_are_not_walked_through() {
        let calendar = Calendar::cron("* * * * *", TimeZone::UTC, 0).expect("good");
        let lateness = Lateness { start_window: MINUTE, catch_up: CatchUp::Latest, catch_up_window: None };
        let at = |text: &str| text.parse::<Timestamp>().expect("an instant");
        let plan = plan(&calendar, &lateness, at("1970-01-01T00:00:00Z"), at("2026-11-23T00:00:30Z"));
        assert_eq!(plan.firings.len(), FIRINGS_LOOKED_AT_MAX);
        assert_eq!(plan.firings.last().map(|(_, verdict)| verdict.clone()), Some(Verdict::OnTime));
        assert_eq!(plan.unseen.map(|(from, _)| from), Some(at("1970-01-01T00:00:00Z")));
        // A yearly one is looked at from the beginning.
        let yearly = Calendar::cron("@yearly", TimeZone::UTC, 0).expect("good");
        let plan = super::plan(&yearly, &lateness, at("1970-01-01T00:00:00Z"), at("2026-11-23T00:00:30Z"));
        assert_eq!((plan.firings.len(), plan.unseen), (56, None));
    }
}
