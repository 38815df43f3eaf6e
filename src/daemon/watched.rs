//! One job as the daemon watches it: what of its schedule has been considered, and what becomes due. Pure: readings of
//! clocks in, firings out; who calls keeps them.

use super::dormant::Dormant;
use crate::{
    item::RunOutcome,
    schedule::{Calendar, CatchUp, EndSpec, Mistake, ScheduleSpec, Verdict, plan, seed},
    store::{self, FiringEnd, FiringRow},
    world::Boot,
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, time::Duration};

/// A step of the wall clock backwards by more than this is taken for the repair of one that was wrong.
const REPAIR: SignedDuration = SignedDuration::from_hours(24);

/// What time it is, and what happened to the clocks since the last look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment<'a> {
    pub wall: Timestamp,
    pub boot: Boot,
    /// Which start of the machine this is.
    pub boot_id: &'a str,
    /// Why a time that has passed was not met: `down`, `asleep`, `clock`.
    pub why_late: &'a str,
    /// The wall clock is believed.
    pub is_trusted: bool,
    /// When the daemon was ready.
    pub ready: Boot,
}

/// How far the schedule of a job was considered, as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// The schedule and zone that this is about.
    schedule: String,
    /// Every time of the calendar up to here was considered.
    considered_ms: i64,
    /// The last firing of each `Every`, or where it begins to count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    rhythms: Vec<Beat>,
    /// The start of the machine for which `OnBoot` was due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    booted: Option<String>,
    /// Nothing starts by schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Pause>,
}

/// A firing of an `Every`, on the clocks of that moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Beat {
    boot: String,
    boot_ms: u64,
    wall_ms: i64,
}

/// How long a job is paused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pause {
    /// Until somebody resumes it where `None`.
    pub until_ms: Option<i64>,
}

impl Mark {
    /// As it was kept; nothing where that cannot be read.
    pub fn read(kept: &store::Mark) -> Mark {
        serde_json::from_str(&kept.text).unwrap_or_default()
    }

    /// The newest time that it knows of.
    pub fn newest_ms(&self) -> i64 {
        self.rhythms.iter().map(|beat| beat.wall_ms).fold(self.considered_ms, i64::max)
    }
}

/// A job that is watched.
pub(super) struct Watched {
    pub job: Dormant,
    /// What its files were like when it was read.
    pub stamp: String,
    /// What is wrong with its files of today, where this is the last good version.
    pub problem: Option<String>,
    calendar: Calendar,
    /// How much later than due it starts.
    offset: Duration,
    mark: Mark,
    /// The next time of the calendar behind what was considered.
    next: Option<Timestamp>,
    everies: Vec<Duration>,
    boots: Vec<Duration>,
    afters: Vec<(String, BTreeSet<AfterEnd>)>,
}

/// How the job before must have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum AfterEnd {
    Run(RunOutcome),
    Missed,
}

/// When a job is due next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextDue {
    Wall(Timestamp),
    Boot(Boot),
}

impl Watched {
    /// Begins to watch a job. A schedule that is not the one of the mark counts from now.
    ///
    /// # Errors
    /// A mistake in the schedule; a checked job has none.
    pub fn new(
        job: Dormant,
        stamp: String,
        mark: Option<Mark>,
        machine: &str,
        now: &Moment<'_>,
    ) -> Result<Watched, Mistake> {
        let seed = seed(machine, &job.name);
        let calendar = Calendar::of(&job.timing.schedule, job.zone.clone(), seed)?;
        let schedule = format!("{} {}", job.timing.schedule, job.zone.iana_name().unwrap_or_default());
        let fresh = Mark { schedule, considered_ms: now.wall.as_millisecond(), ..Mark::default() };
        let mark = match mark {
            Some(mark) if mark.schedule == fresh.schedule => mark,
            Some(mark) => Mark { paused: mark.paused, booted: mark.booted, ..fresh },
            None => fresh,
        };
        let offset = job.timing.offset(seed);
        let mut watched = Watched {
            offset,
            calendar,
            next: None,
            mark,
            everies: Vec::new(),
            boots: Vec::new(),
            afters: Vec::new(),
            problem: None,
            stamp,
            job,
        };
        let spec = watched.job.timing.schedule.clone();
        watched.sort(&spec);
        watched.set_rhythms(now);
        watched.find_next();
        Ok(watched)
    }

    fn sort(&mut self, spec: &ScheduleSpec) {
        match spec {
            ScheduleSpec::Every(period) => self.everies.push(period.get()),
            ScheduleSpec::OnBoot(delay) => self.boots.push(delay.get()),
            ScheduleSpec::After(after) => {
                let default = [EndSpec::Succeeded, EndSpec::Partial];
                let ends = after.when.as_deref().unwrap_or(&default).iter();
                let ends = ends.map(|end| end.outcome().map_or(AfterEnd::Missed, AfterEnd::Run)).collect();
                self.afters.push((after.job.clone(), ends));
            }
            ScheduleSpec::AnyOf(list) => list.iter().for_each(|spec| self.sort(spec)),
            ScheduleSpec::Cron(_) | ScheduleSpec::At(_) | ScheduleSpec::Manual => {}
        }
    }

    /// Where each `Every` counts from, on the boot clock of this start of the machine. After another start the rest of the
    /// period is counted by the wall clock.
    fn set_rhythms(&mut self, now: &Moment<'_>) {
        let boot_ms = millis(now.boot.0);
        let wall_ms = now.wall.as_millisecond();
        let fresh = Beat { boot: now.boot_id.to_owned(), boot_ms, wall_ms };
        let old = std::mem::take(&mut self.mark.rhythms);
        for (place, period) in self.everies.iter().enumerate() {
            self.mark.rhythms.push(match old.get(place) {
                Some(beat) if beat.boot == now.boot_id => beat.clone(),
                Some(beat) => {
                    let passed = wall_ms.saturating_sub(beat.wall_ms).clamp(0, signed(millis(*period)));
                    // It may lie before the start of the machine: then it counts from there.
                    Beat { boot_ms: boot_ms.saturating_sub(passed.unsigned_abs()), ..fresh.clone() }
                }
                None => fresh.clone(),
            });
        }
    }

    fn find_next(&mut self) {
        self.next = self.calendar.next(self.considered()).map(|firing| firing.at);
    }

    fn considered(&self) -> Timestamp {
        Timestamp::from_millisecond(self.mark.considered_ms).unwrap_or_default()
    }

    pub fn mark(&self) -> &Mark {
        &self.mark
    }

    /// It is due by itself: how far its times were considered must be known.
    pub fn is_scheduled(&self) -> bool {
        self.next.is_some() || !self.everies.is_empty() || !self.boots.is_empty() || !self.afters.is_empty()
    }

    /// The mark, to be kept.
    pub fn kept_mark(&self) -> store::Mark {
        let text = serde_json::to_string(&self.mark).unwrap_or_default();
        store::Mark { job: self.job.name.to_string(), text }
    }

    pub fn set_paused(&mut self, paused: Option<Pause>) {
        self.mark.paused = paused;
    }

    /// Nothing of it starts by schedule now.
    pub fn is_paused(&self, now: Timestamp) -> bool {
        let paused = self.mark.paused.as_ref();
        paused.is_some_and(|pause| pause.until_ms.is_none_or(|until| now.as_millisecond() < until))
    }

    /// From when on a firing that is due may start, but for other gates. Only what is met in time is spread out.
    pub fn starts_at(&self, trigger: &str, due: Timestamp) -> Timestamp {
        let is_spread = trigger == SCHEDULE;
        let offset = if is_spread { self.offset } else { Duration::ZERO };
        due.checked_add(SignedDuration::try_from(offset).unwrap_or_default()).unwrap_or(due)
    }

    /// When something of it is due next, by each clock.
    pub fn next_dues(&self, now: &Moment<'_>) -> impl Iterator<Item = NextDue> {
        let calendar = self.next.filter(|_| now.is_trusted).map(NextDue::Wall);
        let beats = self.mark.rhythms.iter().zip(&self.everies);
        let beats = beats.map(|(beat, period)| NextDue::Boot(Boot(Duration::from_millis(beat.boot_ms) + *period)));
        let boots = self.boots.iter().filter(|_| self.mark.booted.as_deref() != Some(now.boot_id));
        calendar.into_iter().chain(beats).chain(boots.map(|delay| NextDue::Boot(now.ready + *delay)))
    }

    /// The next time that people are told of; it may be behind a wait for the clock.
    pub fn next_told(&self, now: &Moment<'_>) -> Option<Timestamp> {
        let told = |next| match next {
            NextDue::Wall(at) => at,
            NextDue::Boot(at) => now
                .wall
                .checked_add(SignedDuration::try_from(at.since(now.boot)).unwrap_or_default())
                .unwrap_or(now.wall),
        };
        self.next_dues(&Moment { is_trusted: true, ..*now }).map(told).min()
    }

    /// The last time of its calendar in a span, its end among them.
    pub fn newest_due(&self, after: Timestamp, until: Timestamp) -> Option<Timestamp> {
        let lateness = crate::schedule::Lateness { catch_up: CatchUp::Never, ..self.job.timing.lateness };
        plan(&self.calendar, &lateness, after, until).firings.last().map(|(firing, _)| firing.at)
    }

    /// Everything that became due since the last look. The mark has moved when there is something, or when it had to.
    pub fn consider(&mut self, now: &Moment<'_>) -> Considered {
        let before = self.mark.clone();
        let mut rows = Vec::new();
        if now.is_trusted {
            self.consider_calendar(now, &mut rows);
        }
        self.consider_rhythms(now, &mut rows);
        self.consider_boot(now, &mut rows);
        Considered { firings: rows, is_changed: self.mark != before }
    }

    fn consider_calendar(&mut self, now: &Moment<'_>, rows: &mut Vec<FiringRow>) {
        let considered = self.considered();
        if considered.duration_since(now.wall) > REPAIR {
            // The clock was wrong when that was written: the next night must not be lost to it.
            log::warn!(
                target: "lamplighter::daemon", job = &*self.job.name;
                "the wall clock went back from {considered} by more than a day: times count from now"
            );
            self.mark.considered_ms = now.wall.as_millisecond();
            self.find_next();
            return;
        }
        if self.next.is_none_or(|next| next > now.wall) {
            return;
        }
        let plan = plan(&self.calendar, &self.job.timing.lateness, considered, now.wall);
        if let Some((from, to)) = plan.unseen {
            let row = self.row(format!("until {to}"), SCHEDULE, from, FiringEnd::Missed, now);
            rows.push(FiringRow { last_ms: to.as_millisecond(), count: None, ..row });
        }
        for (firing, verdict) in plan.firings {
            let (trigger, end) = match verdict {
                Verdict::OnTime => (SCHEDULE, FiringEnd::Waiting),
                Verdict::CatchUp => (CATCH_UP, FiringEnd::Waiting),
                Verdict::Missed => (SCHEDULE, FiringEnd::Missed),
            };
            let row = self.row(format!("due {}", firing.at), trigger, firing.at, end, now);
            match rows.last_mut() {
                // Neighbours that were missed for one reason are one row.
                Some(last) if end == FiringEnd::Missed && last.end == end && last.count.is_some() => {
                    last.last_ms = row.due_ms;
                    last.count = last.count.map(|count| count + 1);
                    last.key = row.key;
                }
                _ => rows.push(row),
            }
        }
        self.mark.considered_ms = now.wall.as_millisecond();
        self.next = plan.next.map(|firing| firing.at);
    }

    /// A rhythm that was not looked at for several periods is due once, now; the others are missed.
    fn consider_rhythms(&mut self, now: &Moment<'_>, rows: &mut Vec<FiringRow>) {
        let boot_ms = millis(now.boot.0);
        for place in 0..self.everies.len() {
            let period = millis(self.everies[place]).max(1);
            let last = self.mark.rhythms[place].boot_ms;
            let passed = boot_ms.saturating_sub(last) / period;
            if passed == 0 {
                continue;
            }
            let due_of = |beat: u64| {
                let ago = SignedDuration::from_millis(signed(boot_ms.saturating_sub(last + beat * period)));
                now.wall.checked_sub(ago).unwrap_or(now.wall)
            };
            let key = |beat: u64| format!("every {} {}", now.boot_id, last + beat * period);
            if passed > 1 {
                let row = self.row(key(passed - 1), SCHEDULE, due_of(1), FiringEnd::Missed, now);
                let last_ms = due_of(passed - 1).as_millisecond();
                rows.push(FiringRow { last_ms, count: Some(passed - 1), ..row });
            }
            let age = Duration::from_millis(boot_ms - (last + passed * period));
            let lateness = &self.job.timing.lateness;
            let window = lateness.catch_up_window.unwrap_or(self.everies[place] / 2);
            let (trigger, end) = match lateness.catch_up {
                _ if age <= lateness.start_window => (SCHEDULE, FiringEnd::Waiting),
                CatchUp::Latest | CatchUp::All(_) if age < window => (CATCH_UP, FiringEnd::Waiting),
                _ => (SCHEDULE, FiringEnd::Missed),
            };
            rows.push(self.row(key(passed), trigger, due_of(passed), end, now));
            let wall_ms = due_of(passed).as_millisecond();
            self.mark.rhythms[place] = Beat { boot: now.boot_id.to_owned(), boot_ms: last + passed * period, wall_ms };
        }
    }

    fn consider_boot(&mut self, now: &Moment<'_>, rows: &mut Vec<FiringRow>) {
        let Some(delay) = self.boots.iter().min().filter(|_| self.mark.booted.as_deref() != Some(now.boot_id)) else {
            return;
        };
        if now.boot >= now.ready + *delay {
            self.mark.booted = Some(now.boot_id.to_owned());
            rows.push(self.row(format!("boot {}", now.boot_id), BOOT, now.wall, FiringEnd::Waiting, now));
        }
    }

    /// The firing that the end of a run of another job is to this one.
    pub fn after(&self, job: &str, end: AfterEnd, id: &str, due_ms: i64, now: &Moment<'_>) -> Option<FiringRow> {
        let waits = self.afters.iter().any(|(before, ends)| before == job && ends.contains(&end));
        let due = Timestamp::from_millisecond(due_ms).ok().filter(|_| waits)?;
        Some(self.row(format!("after {job} {id}"), DEPENDENCY, due, FiringEnd::Waiting, now))
    }

    /// Jobs whose ends it waits for.
    pub fn jobs_before(&self) -> impl Iterator<Item = &str> {
        self.afters.iter().map(|(job, _)| job.as_str())
    }

    fn row(&self, key: String, trigger: &str, due: Timestamp, end: FiringEnd, now: &Moment<'_>) -> FiringRow {
        let (due_ms, told_ms) = (due.as_millisecond(), now.wall.as_millisecond());
        let reason = (end == FiringEnd::Missed).then(|| now.why_late.to_owned());
        let (job, trigger) = (self.job.name.to_string(), trigger.to_owned());
        let to_tell = end == FiringEnd::Missed && self.job.tells_missed;
        FiringRow { job, key, trigger, due_ms, last_ms: due_ms, count: Some(1), end, reason, told_ms, to_tell }
    }
}

/// What came of a look at a job.
pub(super) struct Considered {
    /// Oldest first.
    pub firings: Vec<FiringRow>,
    /// The mark must be kept.
    pub is_changed: bool,
}

/// Triggers of firings.
pub(super) const SCHEDULE: &str = "schedule";
pub(super) const CATCH_UP: &str = "catch_up";
pub(super) const BOOT: &str = "boot";
pub(super) const DEPENDENCY: &str = "dependency";

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
