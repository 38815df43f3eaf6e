//! When a cron expression is due: public vectors, and an oracle that looks at every minute of forty years.

use jiff::{
    Timestamp,
    civil::{Date, Weekday},
    tz::TimeZone,
};
use lamplighter::schedule::Calendar;
use std::fs;

use super::util::{Place, repository};

#[test]
fn every_public_vector_holds() {
    let text = fs::read_to_string(repository("tests/data/cron/vectors.jsonl")).expect("the vectors");
    let (mut held, mut wrong) = (0, Vec::new());
    for (at, line) in text.lines().enumerate() {
        let vector: serde_json::Value = serde_json::from_str(line).expect("a vector");
        let field = |name: &str| vector[name].as_str().expect("a text").to_owned();
        let (expression, zone) = (field("expr"), TimeZone::get(&field("tz")).expect("a zone"));
        let calendar = Calendar::cron(&expression, zone.clone(), 0);
        let found = match (&calendar, vector["expect"].as_array()) {
            (Err(_), None) => Ok(()),
            (Err(mistake), Some(_)) => Err(format!("refused: {}", mistake.message)),
            (Ok(_), None) => Err("accepted, though it is wrong".to_owned()),
            (Ok(calendar), Some(expected)) => {
                let mut after: Timestamp = field("from").parse().expect("an instant");
                expected.iter().try_for_each(|expected| {
                    let expected = expected.as_str().expect("a text");
                    let firing = calendar.next(after).ok_or("it never comes")?;
                    after = firing.at;
                    let found = firing.at.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
                    (found == expected).then_some(()).ok_or(format!("{found} instead of {expected}"))
                })
            }
        };
        match found {
            Ok(()) => held += 1,
            Err(why) => wrong.push(format!("line {}: {expression:?} in {}: {why}", at + 1, field("tz"))),
        }
    }
    assert!(wrong.is_empty(), "{held} hold, {} do not:\n{}", wrong.len(), wrong.join("\n"));
    assert!(held > 1000);
}

/// What an expression says, in other words: of a date, and of an hour and minute.
struct Named {
    expression: &'static str,
    on: fn(Date) -> bool,
    at: fn(i64, i64) -> bool,
}

const EVERY_DAY: fn(Date) -> bool = |_| true;

/// Fixed times.
const FIXED: [Named; 7] = [
    Named { expression: "30 2 * * *", on: EVERY_DAY, at: |hour, minute| (hour, minute) == (2, 30) },
    Named { expression: "0 0 * * *", on: EVERY_DAY, at: |hour, minute| (hour, minute) == (0, 0) },
    Named { expression: "59 23 * * *", on: EVERY_DAY, at: |hour, minute| (hour, minute) == (23, 59) },
    Named {
        expression: "0,20,40 1-3 * * *",
        on: EVERY_DAY,
        at: |hour, minute| (1..=3).contains(&hour) && minute % 20 == 0,
    },
    Named { expression: "15 0 1 * *", on: |date| date.day() == 1, at: |hour, minute| (hour, minute) == (0, 15) },
    Named {
        expression: "5 2 * * SUN",
        on: |date| date.weekday() == Weekday::Sunday,
        at: |hour, minute| (hour, minute) == (2, 5),
    },
    Named { expression: "0 12 30,31 * *", on: |date| date.day() >= 30, at: |hour, minute| (hour, minute) == (12, 0) },
];

/// Rhythms: they run in real time.
const RHYTHMS: [Named; 3] = [
    Named { expression: "*/10 * * * *", on: EVERY_DAY, at: |_, minute| minute % 10 == 0 },
    Named { expression: "25 * * * *", on: EVERY_DAY, at: |_, minute| minute == 25 },
    Named { expression: "10 */3 * * *", on: EVERY_DAY, at: |hour, minute| minute == 10 && hour % 3 == 0 },
];

/// Half-hour shifts, shifts at midnight, a zone that skipped a day, zones that changed their rules, some without any shift.
const ZONES: [&str; 20] = [
    "Europe/Berlin",
    "Europe/London",
    "Europe/Istanbul",
    "Europe/Moscow",
    "America/New_York",
    "America/Los_Angeles",
    "America/St_Johns",
    "America/Havana",
    "America/Santiago",
    "America/Sao_Paulo",
    "America/Caracas",
    "Asia/Shanghai",
    "Asia/Tehran",
    "Asia/Gaza",
    "Asia/Kathmandu",
    "Asia/Pyongyang",
    "Africa/Casablanca",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Pacific/Chatham",
];

/// The clock of a zone from 2000 to 2040: what it shows at every minute.
struct Shown {
    zone: TimeZone,
    start: i64,
    /// Offset in minutes at every quarter of an hour. Where two differ the change lies somewhere between them.
    quarters: Vec<i64>,
}

impl Shown {
    fn of(zone: TimeZone) -> Shown {
        let at = |year: i16| Date::constant(year, 1, 1).to_zoned(TimeZone::UTC).expect("a day").timestamp().as_second();
        let mut shown = Shown { zone, start: at(2000) / 60, quarters: Vec::new() };
        shown.quarters = (at(2000)..at(2041)).step_by(900).map(|second| shown.offset(second / 60)).collect();
        shown
    }

    /// Minutes east of Greenwich at a minute since 1970.
    fn offset(&self, minute: i64) -> i64 {
        i64::from(self.zone.to_offset(Timestamp::from_second(minute * 60).expect("an instant")).seconds()) / 60
    }

    /// Calls `see(instant, shown)`, both in minutes, for every minute of these quarters.
    fn walk(&self, quarters: std::ops::Range<usize>, mut see: impl FnMut(i64, i64)) {
        for quarter in quarters {
            let begin = self.start + quarter as i64 * 15;
            let offset = self.quarters[quarter];
            let changes = self.quarters.get(quarter + 1).is_some_and(|next| *next != offset);
            for minute in begin..begin + 15 {
                see(minute, minute + if changes { self.offset(minute) } else { offset });
            }
        }
    }
}

impl Named {
    /// True of a local minute, counted from 1970. Days are asked once in a row.
    fn teller(&self) -> impl FnMut(i64) -> bool + use<> {
        let table: Vec<bool> = (0..1440).map(|minute| (self.at)(minute / 60, minute % 60)).collect();
        let on = self.on;
        let mut last = (i64::MIN, false);
        move |shown| {
            if !table[shown.rem_euclid(1440) as usize] {
                return false;
            }
            let day = shown.div_euclid(1440);
            if last.0 != day {
                let date = Date::constant(1970, 1, 1).checked_add(jiff::Span::new().days(day)).expect("a date");
                last = (day, on(date));
            }
            last.1
        }
    }
}

/// Every instant at which a fixed time is due: the first time that the clock shows a local minute, or, where it jumps over
/// one, the first instant after the jump.
fn fixed(clock: &Shown, quarters: std::ops::Range<usize>, named: &Named) -> Vec<i64> {
    let (mut found, mut newest, mut is_due) = (Vec::new(), None, named.teller());
    clock.walk(quarters, |instant, shown| {
        let last = newest.unwrap_or(shown - 1);
        if shown > last {
            if (last + 1..=shown).any(&mut is_due) {
                found.push(instant * 60);
            }
            newest = Some(shown);
        }
    });
    found
}

/// The same for a rhythm: every instant at which the clock shows such a minute.
fn rhythm(clock: &Shown, quarters: std::ops::Range<usize>, named: &Named) -> Vec<i64> {
    let (mut found, mut is_due) = (Vec::new(), named.teller());
    clock.walk(quarters, |instant, shown| {
        if is_due(shown) {
            found.push(instant * 60);
        }
    });
    found
}

fn agrees(zone: &TimeZone, expression: &str, expected: &[i64]) {
    let calendar = Calendar::cron(expression, zone.clone(), 0).expect("a good expression");
    for pair in expected.windows(2) {
        let after = Timestamp::from_second(pair[0]).expect("an instant");
        let found = calendar.next(after).map(|firing| firing.at.as_second());
        assert_eq!(found, Some(pair[1]), "{expression} in {zone:?} behind {after}");
    }
}

fn oracle(zones: &[&str]) {
    for name in zones {
        let zone = TimeZone::get(name).expect("a zone");
        let clock = Shown::of(zone.clone());
        // Some days around each change, for all of them.
        let days = 2 * 96;
        for change in (1..clock.quarters.len()).filter(|at| clock.quarters[*at] != clock.quarters[*at - 1]) {
            let range = change.saturating_sub(days)..(change + days).min(clock.quarters.len());
            for named in &FIXED {
                agrees(&zone, named.expression, &fixed(&clock, range.clone(), named));
            }
            for named in &RHYTHMS {
                agrees(&zone, named.expression, &rhythm(&clock, range.clone(), named));
            }
        }
        // Every minute of all the years, for one of each kind.
        let all = 0..clock.quarters.len();
        agrees(&zone, FIXED[0].expression, &fixed(&clock, all.clone(), &FIXED[0]));
        agrees(&zone, RHYTHMS[2].expression, &rhythm(&clock, all, &RHYTHMS[2]));
    }
}

#[test]
fn a_minute_oracle_agrees_in_the_first_zones() {
    oracle(&ZONES[..10]);
}

#[test]
fn a_minute_oracle_agrees_in_the_other_zones() {
    oracle(&ZONES[10..]);
}

#[test]
fn next_prints_instants_with_their_offset_as_json() {
    let arguments =
        ["next", "--cron", "30 2 * * *", "--timezone", "Europe/Berlin", "--from", "2026-10-24T12:00:00Z", "-n", "2"];
    let json = [&arguments[..], &["--format", "json"]].concat();
    let done = Place::new().run(&json).exits(0);
    assert_eq!(done.json(), serde_json::json!(["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"]));
    Place::new().run(&arguments).exits(0).prints("Sun 2026-10-25 02:30:00 +02:00").prints("due the first time only");
}

#[test]
fn next_refuses_a_bad_expression_and_a_zone_that_is_not_there() {
    let next = |expression: &str, zone: &str| Place::new().run(&["next", "--cron", expression, "--timezone", zone]);
    next("0 22-4 * * *", "UTC").exits(2).says("the range `22-4` runs backwards: write `22-23,0-4`");
    next("30 2 30 2 *", "UTC").exits(2).says("never fires");
    next("0 2 * * *", "Europe/Berln").exits(2).says("did you mean Europe/Berlin?");
}

#[test]
fn next_says_of_each_job_when_it_is_due_or_what_it_waits_for() {
    let place = Place::with_job(
        "a",
        "Job(schedule: Cron(\"30 2 * * *\"), timezone: \"Europe/Berlin\", run: [Log(message: \"x\")])",
    );
    place.write("jobs/b.ron", "Job(schedule: AnyOf([Every(\"15m\"), After(job: \"a\")]), run: [Log(message: \"x\")])");
    let done = place.run(&["next", "--from", "2027-03-27T12:00:00Z", "-n", "1"]).exits(0);
    let done = done.prints("a  Sun 2027-03-28 03:00:00 +02:00").prints("02:30 does not exist on 2027-03-28");
    done.prints("b  every 15m 0s, counted from the start of the daemon").prints("b  after runs of `a`");
    place.write("jobs/0.ron", "Job(");
    place.run(&["next"]).exits(2).says("jobs/0.ron").prints("b  after runs of `a`");
    let done = place.run(&["next", "b", "--format", "json"]).exits(0);
    assert_eq!(done.json()[1], serde_json::json!({"job": "b", "at": null, "remark": "after runs of `a`"}));
}

#[test]
fn a_zone_is_known_where_the_system_has_no_tz_database() {
    let place = Place::new();
    let arguments = ["next", "--cron", "0 2 * * *", "--timezone", "Asia/Tokyo", "-n", "1", "--format", "json"];
    let mut command = place.command(&arguments);
    command.env("TZDIR", "/nonexistent");
    let done = super::util::finish(&mut command).exits(0);
    assert!(done.json()[0].as_str().expect("a text").ends_with("T02:00:00+09:00"));
}
