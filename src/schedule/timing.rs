//! All that a checked job says about when it starts: its schedule and what holds a firing up.

use super::{CatchUp, Lateness, ScheduleSpec, calendar::resolve};
use jiff::{
    Timestamp,
    civil::{DateTime, Time},
    tz::TimeZone,
};
use std::time::Duration;

/// When a job starts.
#[derive(Clone, Debug)]
pub struct Timing {
    /// When it is due, as written.
    pub schedule: ScheduleSpec,
    /// A firing starts later by a part of this that is always the same for a machine and a job: [`Timing::offset`].
    pub splay: Duration,
    /// What becomes of times that have passed.
    pub lateness: Lateness,
    /// A firing that waits for its turn starts within this beyond the start window.
    pub wait_window: Duration,
    /// What happens when it is due while it runs.
    pub overlap: Overlap,
    /// Windows in which it does not start.
    pub blackout: Vec<Window>,
    /// A firing inside one waits for its end; else it is skipped.
    pub blackout_delays: bool,
    /// Who goes first.
    pub priority: Priority,
}

/// What happens when a job is due while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlap {
    /// The new one is skipped.
    Skip,
    /// One waits, the newest.
    Queue,
    /// The running one is cancelled.
    Replace,
    /// So many run at once.
    Allow(u32),
}

/// Who goes first when more jobs are due than may run. High is the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Before the others.
    High,
    /// The default.
    Normal,
    /// After the others.
    Low,
}

/// A window of local time, each day; it may go past midnight. It is what the local clock shows: what a gap leaves out is
/// none of it, and what a fold shows twice is so twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    begin: Time,
    /// Midnight where `None`: 24:00.
    end: Option<Time>,
}

impl Timing {
    /// How much later than due a firing starts: in [0, splay), from the [`super::seed`] of the machine and the job.
    pub fn offset(&self, seed: u64) -> Duration {
        let nanos = u64::try_from(self.splay.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(seed.checked_rem(nanos).unwrap_or(0))
    }

    /// The end of the blackout that holds at an instant; `None` outside of all. Windows that meet are one.
    pub fn blackout_end(&self, at: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let mut end = None;
        // Each window can carry on once, and once more where the clock shows it twice; more often they cover the day.
        for _ in 0..=2 * self.blackout.len() {
            let now = end.unwrap_or(at);
            match self.blackout.iter().filter_map(|window| window.end_at(now, zone)).max() {
                Some(later) if later > now => end = Some(later),
                _ => break,
            }
        }
        end
    }
}

impl Timing {
    /// When a run that is due at an instant starts at the latest, and the beginning of the blackout that it may last into.
    /// `None` when it ends before, or starts none.
    pub(super) fn reaches_into_a_blackout(
        &self,
        due: Timestamp,
        zone: &TimeZone,
        deadline: Duration,
    ) -> Option<(Timestamp, Timestamp)> {
        let later = |at: Timestamp, by: Duration| at.checked_add(jiff::SignedDuration::try_from(by).ok()?).ok();
        let start = match self.blackout_end(due, zone) {
            None => due,
            Some(end) if self.blackout_delays => end,
            Some(_) => return None,
        };
        let start = later(start, self.splay)?;
        let begin = self.blackout.iter().filter_map(|window| window.next_begin(start, zone)).min()?;
        (begin < later(start, deadline)?).then_some((start, begin))
    }
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            schedule: ScheduleSpec::Manual,
            splay: Duration::ZERO,
            lateness: Lateness {
                start_window: crate::limits::START_WINDOW_DEFAULT,
                catch_up: CatchUp::Latest,
                catch_up_window: None,
            },
            wait_window: crate::limits::WAIT_WINDOW_DEFAULT,
            overlap: Overlap::Skip,
            blackout: Vec::new(),
            blackout_delays: false,
            priority: Priority::Normal,
        }
    }
}

impl Window {
    /// Reads `"07:00"` and `"19:00"`; `"24:00"` is the end of the day. `None` when one of them is no local time.
    pub fn read(begin: &str, end: &str) -> Option<Window> {
        let begin = local_time(begin)?.unwrap_or(Time::midnight());
        Some(Window { begin, end: local_time(end)?.filter(|end| *end != Time::midnight()) })
    }

    /// When it begins next, at an instant outside of it.
    fn next_begin(self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let is_begin = |at: &Timestamp| *at > after && self.holds(zone.to_datetime(*at).time());
        let mut date = zone.to_datetime(after).date();
        // Where a day is missing its window is too.
        for _ in 0..3 {
            let local = DateTime::from_parts(date, self.begin);
            // One that begins inside a gap begins behind it, unless all of it is left out.
            let first = resolve(zone, local).map(|firing| firing.at);
            let again = zone.to_ambiguous_timestamp(local).later().ok();
            let begin = first.into_iter().chain(again).filter(is_begin).min();
            date = date.tomorrow().ok()?;
            if let Some(begin) = begin {
                // Where a fold shows some of it again that may begin inside.
                let changes = zone.following(after).map(|change| change.timestamp());
                return changes.take_while(|change| *change < begin).find(is_begin).or(Some(begin));
            }
        }
        None
    }

    /// When it ends, at an instant inside it: the first one at which the local clock shows what is none of it.
    fn end_at(self, mut at: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let mut end = None;
        loop {
            let offset = zone.to_offset(at);
            let local = offset.to_datetime(at);
            if !self.holds(local.time()) {
                return end;
            }
            let on_next_day = self.is_past_midnight() && local.time() >= self.begin;
            let last = if on_next_day { local.date().tomorrow().ok()? } else { local.date() };
            let stop = DateTime::from_parts(last, self.end.unwrap_or(Time::midnight()));
            let stop = offset.to_timestamp(stop).ok()?;
            // Up to the next change of the offset local time runs like the instants.
            let changes = zone.following(at).map(|change| change.timestamp());
            match changes.take_while(|change| *change <= stop).find(|change| zone.to_offset(*change) != offset) {
                Some(change) => (at, end) = (change, Some(change)),
                None => return Some(stop),
            }
        }
    }

    fn is_past_midnight(self) -> bool {
        self.end.is_none_or(|end| end <= self.begin)
    }

    /// What the local clock shows then is some of it.
    fn holds(self, time: Time) -> bool {
        match self.end {
            None => time >= self.begin,
            Some(end) if self.is_past_midnight() => time >= self.begin || time < end,
            Some(end) => time >= self.begin && time < end,
        }
    }
}

/// `Some(None)` for 24:00; `None` for what is no local time.
#[expect(clippy::option_option, reason = "no time, the end of the day, a time of the day")]
fn local_time(text: &str) -> Option<Option<Time>> {
    let two = |part: &str| -> Option<i8> {
        (part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit())).then(|| part.parse().ok())?
    };
    let (hour, minute) = text.split_once(':')?;
    match (two(hour)?, two(minute)?) {
        (24, 0) => Some(None),
        (hour, minute) => Time::new(hour, minute, 0, 0).ok().map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dark(windows: &[(&str, &str)], at: &str) -> Option<String> {
        let blackout = windows.iter().map(|(begin, end)| Window::read(begin, end).expect("a window")).collect();
        let zone = TimeZone::get("Europe/Berlin").expect("a zone");
        let timing = Timing { blackout, ..Timing::default() };
        let local = zone.to_ambiguous_timestamp(at.parse().expect("local")).compatible().expect("an instant");
        timing.blackout_end(local, &zone).map(|end| zone.to_datetime(end).strftime("%d %H:%M").to_string())
    }

    #[test]
    fn a_window_holds_from_its_begin_to_before_its_end() {
        let day = [("07:00", "19:00")];
        assert_eq!(dark(&day, "2026-11-23T06:59:59"), None);
        assert_eq!(dark(&day, "2026-11-23T07:00"), Some("23 19:00".into()));
        assert_eq!(dark(&day, "2026-11-23T19:00"), None);
    }

    #[test]
    fn a_window_past_midnight_ends_on_the_next_day() {
        let night = [("22:00", "06:00")];
        assert_eq!(dark(&night, "2026-11-23T23:00"), Some("24 06:00".into()));
        assert_eq!(dark(&night, "2026-11-24T05:59"), Some("24 06:00".into()));
        assert_eq!(dark(&night, "2026-11-24T06:00"), None);
        assert_eq!(dark(&[("20:00", "24:00")], "2026-11-23T23:00"), Some("24 00:00".into()));
        assert_eq!(dark(&[("20:00", "00:00")], "2026-11-23T23:00"), Some("24 00:00".into()));
    }

    #[test]
    fn windows_that_meet_are_one_and_some_cover_the_day() {
        assert_eq!(dark(&[("20:00", "24:00"), ("00:00", "06:00")], "2026-11-23T23:00"), Some("24 06:00".into()));
        assert!(dark(&[("00:00", "12:00"), ("12:00", "24:00")], "2026-11-23T23:00").is_some());
    }

    #[test]
    fn an_end_inside_a_gap_is_the_first_instant_behind_it() {
        assert_eq!(dark(&[("01:00", "02:30")], "2027-03-28T01:30"), Some("28 03:00".into()));
    }

    #[test]
    fn what_is_dark_is_what_the_local_clock_shows_minute_by_minute() {
        let changes = [
            ("Europe/Berlin", "2026-10-24T20:00:00Z"),
            ("Europe/Berlin", "2027-03-27T20:00:00Z"),
            ("Australia/Lord_Howe", "2026-04-04T10:00:00Z"),
            ("Australia/Lord_Howe", "2026-10-03T10:00:00Z"),
            ("America/Santiago", "2026-04-04T20:00:00Z"),
            ("America/Santiago", "2026-09-05T20:00:00Z"),
            ("Pacific/Apia", "2011-12-29T20:00:00Z"),
        ];
        let all: [&[(&str, &str)]; 8] = [
            &[("01:00", "02:30")],
            &[("02:00", "03:00")],
            &[("02:15", "02:45")],
            &[("02:30", "04:00")],
            &[("22:00", "06:00")],
            &[("23:15", "24:00")],
            &[("01:00", "02:30"), ("02:30", "03:00")],
            &[("20:00", "24:00"), ("00:00", "00:30"), ("02:10", "02:20")],
        ];
        for (name, from) in changes {
            let zone = TimeZone::get(name).expect("a zone");
            let from: Timestamp = from.parse().expect("an instant");
            let at = |minute: i64| from + jiff::SignedDuration::from_mins(minute);
            for windows in all {
                let blackout = windows.iter().map(|(begin, end)| Window::read(begin, end).expect("a window")).collect();
                let timing = Timing { blackout, ..Timing::default() };
                let is_dark = |minute: i64| {
                    let time = zone.to_datetime(at(minute)).strftime("%H:%M").to_string();
                    let holds = |(begin, end): &(&str, &str)| match begin < end {
                        true => *begin <= time.as_str() && time.as_str() < *end,
                        false => *begin <= time.as_str() || time.as_str() < *end,
                    };
                    windows.iter().any(holds)
                };
                let shown: Vec<bool> = (0..4 * 24 * 60).map(is_dark).collect();
                let next = |from: usize, dark: bool| {
                    let ahead = shown[from..].iter().position(|is_dark| *is_dark == dark).expect("it comes");
                    at(i64::try_from(from + ahead).expect("few"))
                };
                for (minute, is_dark) in shown.iter().enumerate().take(16 * 60) {
                    let now = at(i64::try_from(minute).expect("few"));
                    let end = is_dark.then(|| next(minute, false));
                    assert_eq!(timing.blackout_end(now, &zone), end, "{name} {windows:?} {now}");
                    if end.is_none() {
                        let begin = timing.blackout.iter().filter_map(|window| window.next_begin(now, &zone)).min();
                        assert_eq!(begin, Some(next(minute, true)), "{name} {windows:?} {now}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_no_local_time_is_no_window() {
        for (begin, end) in [("7:00", "19:00"), ("07:00", "25:00"), ("07:60", "19:00"), ("", "19:00"), ("07", "19:00")]
        {
            assert_eq!(Window::read(begin, end), None, "{begin} {end}");
        }
    }

    #[test]
    fn the_offset_is_below_the_splay() {
        let timing = Timing { splay: Duration::from_secs(600), ..Timing::default() };
        let offsets = [1, 77, u64::MAX].map(|seed| timing.offset(seed));
        assert!(offsets.iter().all(|offset| *offset < timing.splay));
        assert_eq!(Timing::default().offset(u64::MAX), Duration::ZERO);
    }
}
