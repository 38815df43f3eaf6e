//! One job as the daemon watches it: what of its schedule has been considered, and what becomes due. Pure: readings of
//! clocks in, firings out; who calls keeps them.

use super::dormant::Dormant;
use crate::{
    item::RunOutcome,
    limits::JOB_GONE_AFTER,
    schedule::{Calendar, CatchUp, EndSpec, Mistake, ScheduleSpec, Verdict, plan, seed},
    store::{self, FiringEnd, FiringRow, after_key},
    world::{
        Boot,
        plant::{Bug, planted},
    },
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

/// A step of the wall clock backwards by more than this is taken for the repair of one that was wrong.
const REPAIR: SignedDuration = SignedDuration::from_hours(24);

/// What time it is, and what happened to the clocks since the last look.
#[derive(Clone, Debug)]
pub(super) struct Moment {
    pub wall: Timestamp,
    pub boot: Boot,
    /// Which start of the machine this is.
    pub boot_id: Arc<str>,
    /// Why a time that has passed was not met: `down`, `asleep`, `clock`.
    pub why_late: &'static str,
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
    /// It counts from this moment, whose wall clock nobody believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unsure: Option<Beat>,
    /// When its file went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gone: Option<Beat>,
}

/// A moment, on the clocks of then. On the clock of another start of the machine it may lie before that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Beat {
    boot: String,
    boot_ms: i64,
    wall_ms: i64,
}

impl Beat {
    fn now(now: &Moment) -> Beat {
        Beat { boot: now.boot_id.to_string(), boot_ms: millis(now.boot.0), wall_ms: now.wall.as_millisecond() }
    }

    /// How long ago that was, in milliseconds: by the boot clock, or by the wall clock in another start of the machine.
    fn age_ms(&self, now: &Moment) -> i64 {
        match *self.boot == *now.boot_id {
            true => millis(now.boot.0).saturating_sub(self.boot_ms),
            false => now.wall.as_millisecond().saturating_sub(self.wall_ms),
        }
    }
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
        let mark: Mark = serde_json::from_str(&kept.text).unwrap_or_default();
        Mark {
            paused: mark.paused.filter(|_| !planted(Bug::PauseForgotten)),
            booted: mark.booted.filter(|_| !planted(Bug::BootForgotten)),
            ..mark
        }
    }

    /// To be kept.
    pub fn kept(&self, job: &str) -> store::Mark {
        store::Mark { job: job.to_owned(), text: serde_json::to_string(self).unwrap_or_default() }
    }

    /// The newest time that it knows of.
    pub fn newest_ms(&self) -> i64 {
        self.rhythms.iter().map(|beat| beat.wall_ms).fold(self.considered_ms, i64::max)
    }

    /// Its file is gone; true when that was not known.
    pub fn goes(&mut self, now: &Moment) -> bool {
        let is_known = self.gone.is_some();
        self.gone.get_or_insert_with(|| Beat::now(now));
        !is_known
    }

    /// What holds of a file that is there. An editor's save takes it away for a moment; one that was gone for longer is a
    /// new job, which is paused if that one was.
    pub fn back(self, now: &Moment) -> Mark {
        let is_new = self.gone.is_some() && self.may_be_back_within(now).is_zero();
        let schedule = if is_new { String::new() } else { self.schedule };
        Mark { gone: None, schedule, ..self }
    }

    /// Nothing of it is worth keeping: its job has been gone for longer, and was not paused.
    pub fn is_over(&self, max_age: Duration, now: &Moment) -> bool {
        self.paused.is_none() && self.gone.as_ref().is_some_and(|gone| gone.age_ms(now) > millis(max_age))
    }

    /// So long it is still the same job when its file comes back; nothing where that is not away.
    pub fn may_be_back_within(&self, now: &Moment) -> Duration {
        let age_ms = self.gone.as_ref().map_or(i64::MAX, |gone| gone.age_ms(now));
        JOB_GONE_AFTER.saturating_sub(Duration::from_millis(u64::try_from(age_ms).unwrap_or_default()))
    }

    /// The local time of its zone is another one by now: times of that which have passed were none of its times.
    pub fn moved(self, now: &Moment) -> Mark {
        let wall_ms = if now.is_trusted { now.wall.as_millisecond() } else { self.considered_ms };
        Mark { considered_ms: self.considered_ms.max(wall_ms), ..self }
    }
}

/// A job that is watched.
pub(super) struct Watched {
    pub job: Dormant,
    /// What its files were like when it was read.
    pub stamp: u64,
    /// What is wrong with its files of today, where this is the last good version.
    pub problem: Option<String>,
    /// Tells machines and jobs apart: for `H` and the splay.
    seed: u64,
    mark: Mark,
    /// This process was the first to watch it so.
    is_fresh: bool,
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
    pub fn new(job: Dormant, stamp: u64, mark: Option<Mark>, machine: &str, now: &Moment) -> Result<Watched, Mistake> {
        let seed = seed(machine, &job.name);
        Calendar::of(&job.timing.schedule, job.zone.clone(), seed)?;
        let schedule = format!("{} {}", job.timing.schedule, job.zone.iana_name().unwrap_or_default());
        let unsure = (!now.is_trusted).then(|| Beat::now(now));
        let considered_ms = now.wall.as_millisecond();
        let fresh = Mark { schedule, considered_ms, unsure, ..Mark::default() };
        let (mark, is_fresh) = match mark {
            Some(mark) if mark.schedule == fresh.schedule && !planted(Bug::ReloadCountsFromNow) => (mark, false),
            Some(mark) => (Mark { paused: mark.paused, booted: mark.booted, ..fresh }, true),
            None => (fresh, true),
        };
        let mut watched = Watched {
            seed,
            is_fresh,
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
    fn set_rhythms(&mut self, now: &Moment) {
        let fresh = Beat::now(now);
        let old = std::mem::take(&mut self.mark.rhythms);
        for (place, period) in self.everies.iter().enumerate() {
            self.mark.rhythms.push(match old.get(place) {
                Some(_) if planted(Bug::RhythmAtStart) => {
                    Beat { boot_ms: fresh.boot_ms - millis(*period), ..fresh.clone() }
                }
                Some(beat) if *beat.boot == *now.boot_id && !planted(Bug::RhythmAnew) => beat.clone(),
                Some(_) if planted(Bug::RhythmAnew) => fresh.clone(),
                Some(beat) => {
                    let passed = beat.age_ms(now).clamp(0, millis(*period));
                    Beat { boot_ms: fresh.boot_ms - passed, wall_ms: fresh.wall_ms - passed, ..fresh.clone() }
                }
                None => fresh.clone(),
            });
        }
    }

    fn find_next(&mut self) {
        self.next = self.next_by_calendar(self.considered());
    }

    /// What of its schedule follows from the calendar: made when it is asked, which is seldom. A job that is watched has one.
    fn calendar(&self) -> Option<Calendar> {
        Calendar::of(&self.job.timing.schedule, self.job.zone.clone(), self.seed).ok()
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
        self.mark.kept(&self.job.name)
    }

    pub fn set_paused(&mut self, paused: Option<Pause>) {
        self.mark.paused = paused;
    }

    /// Nothing of it starts by schedule now.
    pub fn is_paused(&self, now: Timestamp) -> bool {
        let paused = self.mark.paused.as_ref();
        paused.is_some_and(|pause| pause.until_ms.is_none_or(|until| now.as_millisecond() < until))
    }

    /// How much later than due a firing may start, but for other gates. Only what is met in time is spread out.
    pub fn spread(&self, trigger: &str) -> Duration {
        if trigger == SCHEDULE { self.job.timing.offset(self.seed) } else { Duration::ZERO }
    }

    /// When something of it is due next, by each clock.
    pub fn next_dues(&self, now: &Moment) -> impl Iterator<Item = NextDue> {
        let calendar = self.next.filter(|_| now.is_trusted).map(NextDue::Wall);
        let beats = self.mark.rhythms.iter().zip(&self.everies);
        let beats = beats.map(|(beat, period)| {
            let at = beat.boot_ms.saturating_add(millis(*period));
            NextDue::Boot(Boot(Duration::from_millis(u64::try_from(at).unwrap_or_default())))
        });
        let boots = self.boots.iter().filter(|_| self.mark.booted.as_deref() != Some(&*now.boot_id));
        calendar.into_iter().chain(beats).chain(boots.map(|delay| NextDue::Boot(now.ready + *delay)))
    }

    /// The next time that people are told of; it may be behind a wait for the clock.
    pub fn next_told(&self, now: &Moment) -> Option<Timestamp> {
        let told = |next| match next {
            NextDue::Wall(at) => at,
            NextDue::Boot(at) => now
                .wall
                .checked_add(SignedDuration::try_from(at.since(now.boot)).unwrap_or_default())
                .unwrap_or(now.wall),
        };
        self.next_dues(&Moment { is_trusted: true, ..now.clone() }).map(told).min()
    }

    /// The next time of its calendar, whatever was considered.
    pub fn next_by_calendar(&self, now: Timestamp) -> Option<Timestamp> {
        self.calendar()?.next(now).map(|firing| firing.at)
    }

    /// The last time of its calendar in a span, its end among them.
    pub fn newest_due(&self, after: Timestamp, until: Timestamp) -> Option<Timestamp> {
        let lateness = crate::schedule::Lateness { catch_up: CatchUp::Never, ..self.job.timing.lateness };
        plan(&self.calendar()?, &lateness, after, until).firings.last().map(|(firing, _)| firing.at)
    }

    /// Everything that became due since the last look. The mark has moved when there is something, or when it had to.
    pub fn consider(&mut self, now: &Moment) -> Considered {
        let state = |mark: &Mark| (mark.considered_ms, mark.unsure.is_some());
        let before = state(&self.mark);
        let mut rows = Vec::new();
        if now.is_trusted {
            self.make_sure(now);
            self.consider_calendar(now, &mut rows);
        }
        self.consider_rhythms(now, &mut rows);
        self.consider_boot(now, &mut rows);
        // Rhythms and starts of the machine move with their firings.
        Considered { is_changed: !rows.is_empty() || state(&self.mark) != before, firings: rows }
    }

    /// The clock is believed, or was set: what was written by one that went wrong is put right.
    fn make_sure(&mut self, now: &Moment) {
        let wall_ms = now.wall.as_millisecond();
        if let Some(unsure) = self.mark.unsure.take() {
            let age = if *unsure.boot == *now.boot_id { unsure.age_ms(now).max(0) } else { 0 };
            self.mark.considered_ms = wall_ms.saturating_sub(age);
            self.find_next();
        }
    }

    fn consider_calendar(&mut self, now: &Moment, rows: &mut Vec<FiringRow>) {
        let considered = self.considered();
        if planted(Bug::BackAgain) && considered > now.wall {
            self.mark.considered_ms = now.wall.as_millisecond();
            self.find_next();
        }
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
        let mut lateness = self.job.timing.lateness;
        if planted(Bug::WindowIgnored) {
            lateness.catch_up_window = Some(Duration::MAX);
        }
        if planted(Bug::Burst) && lateness.catch_up != CatchUp::Never {
            lateness.catch_up = CatchUp::All(usize::MAX);
        }
        let Some(calendar) = self.calendar() else { return };
        let plan = plan(&calendar, &lateness, considered, now.wall);
        if let Some((from, to)) = plan.unseen {
            let first = calendar.next(from).map_or(from, |firing| firing.at);
            let row = self.row(format!("until {to}"), SCHEDULE, first, FiringEnd::Missed, now);
            rows.push(FiringRow { last_ms: to.as_millisecond(), count: None, ..row });
        }
        for (firing, verdict) in plan.firings {
            let (trigger, end) = match verdict {
                Verdict::OnTime => (SCHEDULE, FiringEnd::Waiting),
                Verdict::CatchUp => (CATCH_UP, FiringEnd::Waiting),
                Verdict::Missed => (SCHEDULE, FiringEnd::Missed),
            };
            // One that was missed only because the clock was wrong may still come: its name is not taken.
            let key = match end {
                FiringEnd::Missed => format!("missed {}", firing.at),
                _ if planted(Bug::IdentityOfNow) => format!("{DUE} {}", now.wall),
                _ => format!("{DUE} {}", firing.at),
            };
            let row = self.row(key, trigger, firing.at, end, now);
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
    fn consider_rhythms(&mut self, now: &Moment, rows: &mut Vec<FiringRow>) {
        let boot_ms = millis(now.boot.0);
        for place in 0..self.everies.len() {
            let period = millis(self.everies[place]).max(1);
            let last = self.mark.rhythms[place].boot_ms;
            let passed = boot_ms.saturating_sub(last) / period;
            if passed <= 0 {
                continue;
            }
            let due_of = |beat: i64| {
                let ago = SignedDuration::from_millis(boot_ms.saturating_sub(last + beat * period));
                now.wall.checked_sub(ago).unwrap_or(now.wall)
            };
            let key = |beat: i64| format!("{EVERY} {} {}", now.boot_id, last + beat * period);
            if passed > 1 {
                let row = self.row(key(passed - 1), SCHEDULE, due_of(1), FiringEnd::Missed, now);
                let last_ms = due_of(passed - 1).as_millisecond();
                rows.push(FiringRow { last_ms, count: Some((passed - 1).unsigned_abs()), ..row });
            }
            let age = Duration::from_millis((boot_ms - (last + passed * period)).unsigned_abs());
            let (trigger, end) = match self.verdict_of_rhythm(self.everies[place], age) {
                Verdict::OnTime => (SCHEDULE, FiringEnd::Waiting),
                Verdict::CatchUp => (CATCH_UP, FiringEnd::Waiting),
                Verdict::Missed => (SCHEDULE, FiringEnd::Missed),
            };
            rows.push(self.row(key(passed), trigger, due_of(passed), end, now));
            let wall_ms = due_of(passed).as_millisecond();
            self.mark.rhythms[place] = Beat { boot: now.boot_id.to_string(), boot_ms: last + passed * period, wall_ms };
        }
    }

    /// What becomes of the newest firing of an `Every`, so long behind its time.
    fn verdict_of_rhythm(&self, period: Duration, age: Duration) -> Verdict {
        let lateness = &self.job.timing.lateness;
        let window = lateness.window(Some(period));
        match lateness.catch_up {
            _ if age <= lateness.start_window => Verdict::OnTime,
            CatchUp::Latest | CatchUp::All(_) if age < window => Verdict::CatchUp,
            _ => Verdict::Missed,
        }
    }

    /// A firing that was written down in time, and waited while the machine was down or slept or its clock was set: it may
    /// be late by now like any other.
    pub fn judge_again(&self, waiting: (&str, &str), due: Timestamp, now: &Moment) -> Verdict {
        let (trigger, key) = waiting;
        let beat = self.beat(key, due, now);
        let due = beat.map_or(due, |beat| beat.due);
        let timing = &self.job.timing;
        let start = due
            .checked_add(SignedDuration::try_from(self.job.timing.offset(self.seed)).unwrap_or_default())
            .unwrap_or(due);
        let start = timing.blackout_end(start, &self.job.zone).filter(|_| timing.blackout_delays).unwrap_or(start);
        let late = Duration::try_from(now.wall.duration_since(start)).unwrap_or_default();
        if trigger != CATCH_UP && late <= timing.lateness.start_window + timing.wait_window {
            return Verdict::OnTime;
        }
        if let Some(beat) = beat {
            return self.verdict_of_rhythm(beat.period, late);
        }
        let before = due.checked_sub(SignedDuration::from_nanos(1)).unwrap_or(due);
        let Some(calendar) = self.calendar() else { return Verdict::OnTime };
        let plan = plan(&calendar, &timing.lateness, before, now.wall);
        let found = plan.firings.into_iter().find(|(firing, _)| firing.at == due);
        found.map_or(Verdict::Missed, |(_, verdict)| verdict)
    }

    /// What a firing of an `Every` is one of, by its identity. In the start of the machine in which it was due the boot clock
    /// says how long ago that was, whatever the wall clock reads by now.
    fn beat(&self, key: &str, due: Timestamp, now: &Moment) -> Option<OfRhythm> {
        let (boot, boot_ms) = key.strip_prefix(EVERY)?.trim_start().rsplit_once(' ')?;
        let boot_ms: i64 = boot_ms.parse().ok()?;
        let is_of_this_boot = *boot == *now.boot_id;
        let is_of = |beat: &Beat, period: i64| match is_of_this_boot {
            true => (beat.boot_ms - boot_ms) % period == 0,
            false => (beat.wall_ms - due.as_millisecond()) % period == 0,
        };
        let rhythms = self.mark.rhythms.iter().zip(&self.everies);
        let of = rhythms.filter(|(beat, period)| is_of(beat, millis(**period).max(1))).map(|(_, period)| *period).max();
        // One whose rhythm is not known any more is as old as it can be.
        let period = of.or_else(|| self.everies.iter().min().copied())?;
        let ago = SignedDuration::from_millis(millis(now.boot.0).saturating_sub(boot_ms));
        let by_boot = || now.wall.checked_sub(ago).unwrap_or(due);
        Some(OfRhythm { period, due: if is_of_this_boot { by_boot() } else { due } })
    }

    fn consider_boot(&mut self, now: &Moment, rows: &mut Vec<FiringRow>) {
        let Some(delay) = self.boots.iter().min().filter(|_| self.mark.booted.as_deref() != Some(&*now.boot_id)) else {
            return;
        };
        if now.boot >= now.ready + *delay {
            self.mark.booted = Some(now.boot_id.to_string());
            let of = if planted(Bug::BootForgotten) { now.wall.to_string() } else { now.boot_id.to_string() };
            rows.push(self.row(format!("boot {of}"), BOOT, now.wall, FiringEnd::Waiting, now));
        }
    }

    /// The firing that the end of a run of another job is to this one.
    pub fn after(&self, job: &str, end: AfterEnd, id: &str, due_ms: i64, now: &Moment) -> Option<FiringRow> {
        let waits = self.afters.iter().any(|(before, ends)| before == job && ends.contains(&end));
        let due = Timestamp::from_millisecond(due_ms).ok().filter(|_| waits)?;
        Some(self.row(after_key(job, id), DEPENDENCY, due, FiringEnd::Waiting, now))
    }

    /// Ends that nobody has heard yet are for it: it was watched already when they came.
    pub fn hears(&self) -> bool {
        !self.is_fresh
    }

    /// What was not heard until now has been; whatever ends from now on is for it.
    pub fn hear_from_now(&mut self) {
        self.is_fresh = false;
    }

    /// Jobs whose ends it waits for.
    pub fn jobs_before(&self) -> impl Iterator<Item = &str> {
        self.afters.iter().map(|(job, _)| job.as_str())
    }

    fn row(&self, key: String, trigger: &str, due: Timestamp, end: FiringEnd, now: &Moment) -> FiringRow {
        let (due_ms, told_ms) = (due.as_millisecond(), now.wall.as_millisecond());
        let reason = (end == FiringEnd::Missed).then(|| now.why_late.to_owned());
        let (job, trigger) = (self.job.name.to_string(), trigger.to_owned());
        let to_tell = end == FiringEnd::Missed && self.job.tells_missed;
        FiringRow { job, key, trigger, due_ms, last_ms: due_ms, count: Some(1), end, reason, told_ms, to_tell }
    }
}

/// Of what rhythm a firing is, and when it was due by the wall clock of now.
#[derive(Clone, Copy)]
struct OfRhythm {
    period: Duration,
    due: Timestamp,
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

/// How the identity of a firing of the calendar begins, and that of an `Every`.
const DUE: &str = "due";
const EVERY: &str = "every";

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
