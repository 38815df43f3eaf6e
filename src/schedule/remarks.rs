//! What in a schedule is probably not meant so: by its text alone, and by what comes within a year.

use super::{Calendar, Firing, Mistake, Moved, ScheduleSpec, Timing, cron::Cron};
use crate::{
    limits::{FIRINGS_LOOKED_AT_MAX, REMARKS_LOOK_AHEAD},
    units::Span,
};
use jiff::{Timestamp, tz::TimeZone};
use std::time::Duration;

/// What the text alone says; `path` is that of the schedule. One with mistakes has no remarks.
pub fn remarks(spec: &ScheduleSpec, path: &str) -> Vec<Mistake> {
    each_cron(spec, path).into_iter().flat_map(|(path, text)| of_text(&path, text)).collect()
}

/// The longest rest between two firings of a job that is due all the time: a minute for `* * * * *`. `None` when it is not
/// certain that it is due in a rhythm.
pub fn rhythm(spec: &ScheduleSpec) -> Option<Duration> {
    match spec {
        ScheduleSpec::Every(span) => Some(span.get()).filter(|span| !span.is_zero()),
        ScheduleSpec::Cron(text) => Cron::parse(text, 0).ok()?.rhythm(),
        ScheduleSpec::AnyOf(list) => list.iter().filter_map(rhythm).min(),
        _ => None,
    }
}

/// What comes within [`REMARKS_LOOK_AHEAD`] of `now`: fixed local times that a change of the clocks moves, and runs that may
/// last until a blackout begins. `deadline` is that of a run.
pub fn coming(timing: &Timing, zone: &TimeZone, deadline: Duration, now: Timestamp) -> Vec<Mistake> {
    let end = now.saturating_add(jiff::SignedDuration::try_from(REMARKS_LOOK_AHEAD).unwrap_or_default());
    let end = end.unwrap_or(Timestamp::MAX);
    let mut found = Vec::new();
    for (path, spec) in each(&timing.schedule, "schedule") {
        let Some(calendar) = known(spec, zone) else { continue };
        let mut after = now;
        let (mut gap, mut fold, mut dark) = (None, None, None);
        for _ in 0..FIRINGS_LOOKED_AT_MAX {
            let Some(firing) = calendar.next(after).filter(|firing| firing.at < end) else { break };
            after = firing.at;
            match firing.moved {
                Some(Moved::Gap { .. }) => drop(gap.get_or_insert_with(|| firing.clone())),
                Some(Moved::Fold) => drop(fold.get_or_insert_with(|| firing.clone())),
                None => {}
            }
            dark = dark.or_else(|| timing.reaches_into_a_blackout(firing.at, zone, deadline));
        }
        found.extend(gap.into_iter().chain(fold).map(|firing| moved(&path, zone, &firing)));
        if let Some((start, begin)) = dark {
            let local = |at: Timestamp| zone.to_datetime(at).strftime("%H:%M").to_string();
            let message = format!(
                "a run that starts at {} may last until its deadline of {}, into the blackout from {}",
                local(start),
                Span::new(deadline),
                local(begin)
            );
            let help =
                "a blackout holds up starts and ends no run: be due earlier, or end sooner by a shorter `deadline`";
            found.push(Mistake { path, within: None, message, help: help.to_owned() });
        }
    }
    found
}

/// What a change of the clocks does to a firing.
fn moved(path: &str, zone: &TimeZone, firing: &Firing) -> Mistake {
    let local = zone.to_datetime(firing.at);
    let time = local.strftime("%H:%M").to_string();
    let message = match &firing.moved {
        Some(Moved::Gap { from }) => format!(
            "{} does not exist on {}, the clocks go forward: it is due at {time} then, the first instant after the gap",
            from.time().strftime("%H:%M"),
            from.date(),
        ),
        _ => format!("{time} comes twice on {}, the clocks go back: it is due the first time only", local.date()),
    };
    let help = "nothing is lost or doubled; a time that no change of the clocks touches in this zone is never moved";
    Mistake { path: path.to_owned(), within: None, message, help: help.to_owned() }
}

/// The calendar of one schedule, where it is the same on every machine.
fn known(spec: &ScheduleSpec, zone: &TimeZone) -> Option<Calendar> {
    if let ScheduleSpec::Cron(text) = spec {
        // Where it says `H` each machine has its own times.
        if Cron::is_hashed(text) {
            return None;
        }
    }
    Calendar::of(spec, zone.clone(), 0).ok()
}

/// Every schedule that is no list, with its path.
fn each<'s>(spec: &'s ScheduleSpec, path: &str) -> Vec<(String, &'s ScheduleSpec)> {
    match spec {
        ScheduleSpec::AnyOf(list) => {
            list.iter().enumerate().flat_map(|(place, spec)| each(spec, &format!("{path}[{place}]"))).collect()
        }
        spec => vec![(path.to_owned(), spec)],
    }
}

fn each_cron<'s>(spec: &'s ScheduleSpec, path: &str) -> Vec<(String, &'s str)> {
    let crons = each(spec, path).into_iter().filter_map(|(path, spec)| match spec {
        ScheduleSpec::Cron(text) => Some((path, text.as_str())),
        _ => None,
    });
    crons.collect()
}

fn of_text(path: &str, text: &str) -> Vec<Mistake> {
    let Ok(cron) = Cron::parse(text, 0) else { return Vec::new() };
    let told = cron.remarks(text).into_iter();
    told.map(|wrong| Mistake { path: path.to_owned(), within: wrong.within, message: wrong.message, help: wrong.help })
        .collect()
}
