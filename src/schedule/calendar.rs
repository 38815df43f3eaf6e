//! When a cron expression is due in a zone. Pure: an instant in, the next firing out.
//!
//! Fixed times (minute and hour without a wildcard or a step) are local times, each due once: one inside a gap is due at
//! the first instant after it, one inside a fold at its first pass. Expressions with a wildcard or a step run through both
//! in real time. Offsets are never kept: every firing is computed from the rules of the zone.

use super::cron::Cron;
use jiff::{
    Span, Timestamp, ToSpan,
    civil::{Date, DateTime},
    tz::{AmbiguousOffset, TimeZone},
};

/// An instant at which a job is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Firing {
    /// The instant.
    pub at: Timestamp,
    /// What a change of the clocks did to it.
    pub moved: Option<Moved>,
}

/// How daylight saving time, or another change of a zone, touches a firing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moved {
    /// The local time does not exist on that day: it is due at the first instant after the gap.
    Gap {
        /// The local time as written.
        from: DateTime,
    },
    /// The local time comes twice on that day: it is due the first time only.
    Fold,
}

/// Years behind which nothing is looked for: 29 February on a certain day of the week comes within forty.
const YEARS: i64 = 100;

/// The first firing behind `after`; `None` when there is none within a hundred years.
pub(super) fn next(cron: &Cron, zone: &TimeZone, after: Timestamp) -> Option<Firing> {
    let end = zone.to_datetime(after).date().checked_add(Span::new().years(YEARS)).unwrap_or(Date::MAX);
    if cron.interval { next_in_real_time(cron, zone, after, end) } else { next_local(cron, zone, after, end) }
}

fn next_local(cron: &Cron, zone: &TimeZone, after: Timestamp, end: Date) -> Option<Firing> {
    // A time that is due behind `after` also reads later: only in the second pass of a fold, or behind a gap, is the first
    // found not behind it.
    let mut local = zone.to_datetime(after);
    loop {
        local = next_match(cron, local, false, end)?;
        let firing = resolve(zone, local)?;
        if firing.at > after {
            return Some(firing);
        }
    }
}

/// The instant of a local time that is due once.
pub(super) fn resolve(zone: &TimeZone, local: DateTime) -> Option<Firing> {
    let ambiguous = zone.to_ambiguous_timestamp(local);
    let moved = match ambiguous.offset() {
        AmbiguousOffset::Unambiguous { .. } => None,
        AmbiguousOffset::Fold { .. } => Some(Moved::Fold),
        AmbiguousOffset::Gap { before, .. } => {
            // Read by the rules from before the gap it lies behind the change; the change is the last one until then.
            let behind = before.to_timestamp(local).ok()?;
            let at = zone.preceding(behind.checked_add(1.nanoseconds()).ok()?).next()?.timestamp();
            return Some(Firing { at, moved: Some(Moved::Gap { from: local }) });
        }
    };
    Some(Firing { at: ambiguous.earlier().ok()?, moved })
}

fn next_in_real_time(cron: &Cron, zone: &TimeZone, after: Timestamp, end: Date) -> Option<Firing> {
    let mut from = after;
    let mut inclusive = false;
    loop {
        // Up to the next change of the offset local time runs like the instants.
        let offset = zone.to_offset(from);
        let change = zone.following(from).map(|change| change.timestamp()).find(|at| zone.to_offset(*at) != offset);
        let local = offset.to_datetime(from);
        let found = next_match(cron, local, inclusive, end).and_then(|local| offset.to_timestamp(local).ok());
        match (found, change) {
            (Some(at), Some(change)) if at < change => return Some(Firing { at, moved: None }),
            (Some(at), None) => return Some(Firing { at, moved: None }),
            (_, Some(change)) if offset.to_datetime(change).date() <= end => (from, inclusive) = (change, true),
            _ => return None,
        }
    }
}

/// The first local time behind `local`, or at it where `inclusive`, that the expression names.
fn next_match(cron: &Cron, local: DateTime, inclusive: bool, end: Date) -> Option<DateTime> {
    // Whole seconds only: what is between two of them has passed the first.
    let between = local.subsec_nanosecond() != 0;
    let mut second = local.second() as u32 + u32::from(!inclusive || between);
    let (mut date, mut hour, mut minute) = (local.date(), local.hour() as u32, local.minute() as u32);
    loop {
        if cron.matches(date) {
            while let Some(next_hour) = next_bit(cron.hour, hour) {
                if next_hour > hour {
                    (minute, second) = (0, 0);
                }
                hour = next_hour;
                while let Some(next_minute) = next_bit(cron.minute, minute) {
                    if next_minute > minute {
                        second = 0;
                    }
                    minute = next_minute;
                    if let Some(second) = next_bit(cron.second, second) {
                        return Some(date.at(hour as i8, minute as i8, second as i8, 0));
                    }
                    (minute, second) = (minute + 1, 0);
                }
                (hour, minute, second) = (hour + 1, 0, 0);
            }
        }
        date = date.tomorrow().ok().filter(|date| *date <= end)?;
        (hour, minute, second) = (0, 0, 0);
    }
}

/// The lowest bit that is set, from bit `from` on.
fn next_bit(bits: u64, from: u32) -> Option<u32> {
    let rest = bits.checked_shr(from)?;
    (rest != 0).then(|| from + rest.trailing_zeros())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The next firings of an expression, as texts with offset, and what moved them.
    fn next_of(text: &str, zone: &str, after: &str, n: usize) -> Vec<String> {
        let cron = Cron::parse(text, 0).unwrap_or_else(|wrong| panic!("{text}: {wrong:?}"));
        let zone = TimeZone::get(zone).expect("a zone");
        let mut after: Timestamp = after.parse().expect("an instant");
        let mut found = Vec::new();
        for _ in 0..n {
            let Some(firing) = next(&cron, &zone, after) else { break };
            after = firing.at;
            let moved = match firing.moved {
                None => String::new(),
                Some(Moved::Fold) => " fold".to_owned(),
                Some(Moved::Gap { from }) => format!(" gap {from}"),
            };
            found.push(firing.at.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M%:z").to_string() + &moved);
        }
        found
    }

    #[test]
    fn a_fixed_time_in_a_gap_is_due_at_the_first_instant_after_it_once() {
        let found = next_of("0,15,30 2 * * *", "Europe/Berlin", "2027-03-27T12:00:00Z", 4);
        assert_eq!(
            found,
            [
                "2027-03-28T03:00+02:00 gap 2027-03-28T02:00:00",
                "2027-03-29T02:00+02:00",
                "2027-03-29T02:15+02:00",
                "2027-03-29T02:30+02:00"
            ]
        );
        let found = next_of("0 3 * * *", "Europe/Berlin", "2027-03-28T00:59:59Z", 2);
        assert_eq!(found, ["2027-03-28T03:00+02:00", "2027-03-29T03:00+02:00"]);
    }

    #[test]
    fn a_fixed_time_in_a_fold_is_due_the_first_time_only() {
        let found = next_of("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2);
        assert_eq!(found, ["2026-10-25T02:30+02:00 fold", "2026-10-26T02:30+01:00"]);
        // Asked in the second pass.
        let found = next_of("30 2 * * *", "Europe/Berlin", "2026-10-25T01:10:00Z", 1);
        assert_eq!(found, ["2026-10-26T02:30+01:00"]);
    }

    #[test]
    fn wildcards_and_steps_run_through_both_in_real_time() {
        let found = next_of("*/30 * * * *", "Europe/Berlin", "2026-10-25T00:00:00Z", 4);
        assert_eq!(
            found,
            ["2026-10-25T02:30+02:00", "2026-10-25T02:00+01:00", "2026-10-25T02:30+01:00", "2026-10-25T03:00+01:00"]
        );
        let found = next_of("*/30 * * * *", "Europe/Berlin", "2027-03-28T00:29:00Z", 3);
        assert_eq!(found, ["2027-03-28T01:30+01:00", "2027-03-28T03:00+02:00", "2027-03-28T03:30+02:00"]);
        // Only the hours that are there.
        let found = next_of("*/20 2 * * *", "Europe/Berlin", "2027-03-28T00:00:00Z", 1);
        assert_eq!(found, ["2027-03-29T02:00+02:00"]);
    }

    #[test]
    fn shifts_of_half_an_hour_at_midnight_and_days_that_are_missing() {
        let found = next_of("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T10:00:00Z", 2);
        assert_eq!(found, ["2026-04-05T01:45+11:00 fold", "2026-04-06T01:45+10:30"]);
        let found = next_of("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T10:00:00Z", 2);
        assert_eq!(found, ["2026-10-04T02:30+11:00 gap 2026-10-04T02:15:00", "2026-10-05T02:15+11:00"]);
        let found = next_of("0 12 * * *", "Pacific/Apia", "2011-12-30T00:00:00Z", 3);
        assert_eq!(
            found,
            ["2011-12-31T00:00+14:00 gap 2011-12-30T12:00:00", "2011-12-31T12:00+14:00", "2012-01-01T12:00+14:00"]
        );
        let found = next_of("30 0 * * *", "America/Santiago", "2026-09-05T20:00:00Z", 2);
        assert_eq!(found, ["2026-09-06T01:00-03:00 gap 2026-09-06T00:30:00", "2026-09-07T00:30-03:00"]);
    }

    #[test]
    fn the_days_of_a_month_that_have_no_number() {
        let of = |text: &str, n: usize| {
            let firings = next_of(text, "UTC", "2026-01-01T00:00:00Z", n);
            firings.into_iter().map(|firing| firing[..10].to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(of("0 1 L * *", 3), ["2026-01-31", "2026-02-28", "2026-03-31"]);
        assert_eq!(of("0 1 LW * *", 3), ["2026-01-30", "2026-02-27", "2026-03-31"]);
        assert_eq!(of("0 1 15W * *", 3), ["2026-01-15", "2026-02-16", "2026-03-16"]);
        assert_eq!(of("0 1 1W 8 *", 1), ["2026-08-03"]);
        assert_eq!(of("0 1 31W 5 *", 1), ["2026-05-29"]);
        assert_eq!(of("0 1 * * FRIL", 3), ["2026-01-30", "2026-02-27", "2026-03-27"]);
        assert_eq!(of("0 1 * * 1#2,TUE#5", 4), ["2026-01-12", "2026-02-09", "2026-03-09", "2026-03-31"]);
        assert_eq!(of("0 1 13 * FRI", 3), ["2026-01-02", "2026-01-09", "2026-01-13"]);
        assert_eq!(of("0 1 13 * +FRI", 3), ["2026-02-13", "2026-03-13", "2026-11-13"]);
        assert_eq!(of("0 1 29 2 +MON", 2), ["2044-02-29", "2072-02-29"]);
    }

    #[test]
    fn h_is_stable_for_a_seed_and_spreads_over_its_range() {
        let of = |seed: u64| Cron::parse("H(10-29) H/6 * * *", seed).expect("good");
        assert_eq!(of(3), of(3));
        let minutes: std::collections::BTreeSet<u64> = (0..200).map(|seed| of(seed).minute).collect();
        assert!(minutes.len() > 15 && minutes.iter().all(|bits| (10..30).contains(&bits.trailing_zeros())));
        assert!((0..50).all(|seed| of(seed).hour.count_ones() == 4));
    }
}
