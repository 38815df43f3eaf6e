//! Which of the firings that wait may start now, which never will, and why.

use super::{
    Daemon,
    watched::{CATCH_UP, Moment, NextDue},
};
use crate::{
    limits::FILE_MENDED_WITHIN,
    schedule::{Overlap, Priority},
    store::{FiringEnd, FiringRow},
    world::{
        Boot,
        plant::{Bug, planted},
    },
};
use jiff::Timestamp;
use std::time::Duration;

/// A firing that has neither a run nor an end.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    pub job: String,
    /// With the job its identity.
    pub key: String,
    pub trigger: String,
    pub due: Timestamp,
    /// Its splay is over then.
    pub not_before: Boot,
    /// This process knows of it since then.
    pub since: Boot,
    pub priority: Priority,
    /// In the order in which they came.
    pub number: u64,
    /// Since when only other runs keep it from starting.
    pub held_since: Option<Boot>,
    /// Somebody else works on its job: it is tried again then.
    pub look_again: Option<Boot>,
    /// What it waits for, as it was last looked at.
    pub why: &'static str,
}

impl Waiting {
    /// Who goes first.
    pub fn rank(&self) -> (Priority, Timestamp, u64) {
        let priority = if planted(Bug::PriorityIgnored) { Priority::Normal } else { self.priority };
        (priority, self.due, self.number)
    }

    /// How it comes to its end; when that is said, and whether somebody is to be told of it.
    pub fn row(&self, end: FiringEnd, reason: &str, (told_ms, to_tell): (i64, bool)) -> FiringRow {
        let due_ms = self.due.as_millisecond();
        FiringRow {
            job: self.job.clone(),
            key: self.key.clone(),
            trigger: self.trigger.clone(),
            due_ms,
            last_ms: due_ms,
            count: Some(1),
            end,
            reason: Some(reason.to_owned()),
            told_ms,
            to_tell,
        }
    }
}

/// What becomes of a firing that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    Start,
    /// For this: until then, or until something else happens.
    Wait(&'static str, Option<NextDue>),
    /// The runs of its job are cancelled, and it waits for their end.
    Replace,
    End(FiringEnd, &'static str),
}

impl Daemon {
    /// Looks at the firing at `place` of those that wait. The gates stand in this order: the job is there, pause, what an
    /// earlier process left, splay, catch-up, blackout, overlap, places.
    pub(super) fn judge(&mut self, place: usize, now: &Moment) -> Judgement {
        // It counts without a break.
        let held_since = self.waiting[place].held_since.take();
        let waiting = &self.waiting[place];
        let Some(watched) = self.watched.get(&waiting.job) else {
            // It may come back with the next edit; else its time is over.
            let (why, rest) = match self.broken.contains_key(&waiting.job) {
                true => ("its file cannot be used", (waiting.since + FILE_MENDED_WITHIN).since(now.boot)),
                false => {
                    let mark = self.unwatched.get(&waiting.job);
                    ("its job is gone", mark.map_or(Duration::ZERO, |mark| mark.may_be_back_within(now)))
                }
            };
            return match rest.is_zero() {
                true => Judgement::End(FiringEnd::Missed, why),
                false => Judgement::Wait(why, Some(NextDue::Boot(now.boot + rest))),
            };
        };
        let timing = &watched.job.timing;
        if watched.is_paused(now.wall) {
            return Judgement::End(FiringEnd::Skipped, "paused");
        }
        // What an earlier process left goes first.
        if self.left_of(&waiting.job).next().is_some() && !planted(Bug::ResumeLast) {
            return Judgement::Wait("its run before is resumed first", None);
        }
        if waiting.not_before > now.boot {
            return Judgement::Wait("splay", Some(NextDue::Boot(waiting.not_before)));
        }
        if waiting.trigger == CATCH_UP {
            if self.live.iter().any(|live| live.trigger == CATCH_UP) {
                return Judgement::Wait(CATCHING_UP, None);
            }
            if now.boot < self.next_catch_up {
                return Judgement::Wait(CATCHING_UP, Some(NextDue::Boot(self.next_catch_up)));
            }
        }
        let dark_at = match planted(Bug::BlackoutShort) {
            true => now.wall.checked_add(jiff::SignedDuration::from_hours(1)).unwrap_or(now.wall),
            false => now.wall,
        };
        if let Some(end) = timing.blackout_end(dark_at, &watched.job.zone) {
            return match timing.blackout_delays {
                true if self.is_superseded(waiting, timing.overlap) => SUPERSEDED,
                true => Judgement::Wait("blackout", Some(NextDue::Wall(end))),
                false => Judgement::End(FiringEnd::Skipped, "blackout"),
            };
        }
        if let Some(held_up) = self.overlapped(place, watched.job.overlap()) {
            return held_up;
        }
        if let Some(at) = waiting.look_again.filter(|at| *at > now.boot) {
            return Judgement::Wait("its job runs in the foreground", Some(NextDue::Boot(at)));
        }
        let places = self.options.max_running_jobs + usize::from(planted(Bug::PlaceTooMany));
        if self.live.len() + self.resuming.len() >= places {
            if self.is_superseded(waiting, timing.overlap) {
                return SUPERSEDED;
            }
            let since = held_since.unwrap_or(now.boot);
            let until = since + timing.lateness.start_window + timing.wait_window;
            self.waiting[place].held_since = Some(since);
            return match now.boot < until {
                true => Judgement::Wait("max_running_jobs", Some(NextDue::Boot(until))),
                false => Judgement::End(FiringEnd::Skipped, "overload"),
            };
        }
        Judgement::Start
    }

    /// At most one waits in a queue for what holds it up, the newest. One that makes up for something has its own order.
    fn is_superseded(&self, waiting: &Waiting, overlap: Overlap) -> bool {
        let is_queue = matches!(overlap, Overlap::Queue | Overlap::Replace);
        is_queue && waiting.trigger != CATCH_UP && self.has_newer(waiting)
    }

    /// A later time of its job waits. One that makes up for something comes after another, and waits for it.
    fn has_newer(&self, waiting: &Waiting) -> bool {
        let is_newer =
            |other: &Waiting| other.job == waiting.job && other.due > waiting.due && other.trigger != CATCH_UP;
        self.waiting.iter().any(is_newer)
    }

    /// What the runs of the same job mean for a firing; `None`: nothing.
    fn overlapped(&self, place: usize, overlap: Overlap) -> Option<Judgement> {
        let waiting = &self.waiting[place];
        let running = self.live.iter().filter(|live| live.job == waiting.job).count();
        if running == 0 {
            return None;
        }
        let has_newer = self.has_newer(waiting);
        let mut later = self.live.iter().filter(|live| live.job == waiting.job && live.due > waiting.due).peekable();
        match overlap {
            Overlap::Allow(max) if running < max as usize + usize::from(planted(Bug::OverlapTooMany)) => None,
            Overlap::Skip | Overlap::Allow(_) => Some(Judgement::End(FiringEnd::Skipped, "overlap")),
            Overlap::Queue | Overlap::Replace if has_newer => Some(SUPERSEDED),
            Overlap::Queue => Some(Judgement::Wait(BEFORE, None)),
            // What runs is for a later time than this one, which makes up for something: that is not cancelled for it. One
            // that somebody asked for has no time that would stand for this one.
            Overlap::Replace if later.peek().is_some() => {
                Some(if later.any(|live| live.is_firing()) { SUPERSEDED } else { Judgement::Wait(BEFORE, None) })
            }
            Overlap::Replace => {
                let all_told = self.live.iter().filter(|live| live.job == waiting.job).all(|live| live.is_replaced);
                Some(if all_told { Judgement::Wait(BEFORE, None) } else { Judgement::Replace })
            }
        }
    }
}

/// A later time of its job stands for it.
const SUPERSEDED: Judgement = Judgement::End(FiringEnd::Skipped, "superseded");

/// It makes up for a time that has passed: one after the other.
const CATCHING_UP: &str = "one catches up at a time";

/// See [`Overlap`].
const BEFORE: &str = "its run before has not ended";
