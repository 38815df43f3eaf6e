//! A job's schedule, ready to be asked: what of it follows from the calendar alone.

use super::{Firing, Mistake, Moved, ScheduleSpec, calendar, check, cron::Cron};
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use sha2::{Digest, Sha256};

/// When something is due by the calendar of a zone.
#[derive(Clone, Debug)]
pub struct Calendar {
    zone: TimeZone,
    crons: Vec<Cron>,
    instants: Vec<Firing>,
}

impl Calendar {
    /// One cron expression in a zone. `seed` tells machines and jobs apart where it says `H`: see [`seed`].
    ///
    /// # Errors
    /// What is wrong with the expression; the path is empty.
    pub fn cron(text: &str, zone: TimeZone, seed: u64) -> Result<Calendar, Mistake> {
        match Cron::parse(text, seed) {
            Ok(cron) => Ok(Calendar { zone, crons: vec![cron], instants: Vec::new() }),
            Err(wrong) => {
                Err(Mistake { path: String::new(), within: wrong.within, message: wrong.message, help: wrong.help })
            }
        }
    }

    /// What of a schedule follows from the calendar: `Cron` and `At`, within `AnyOf` too. The other kinds depend on when
    /// something happens.
    ///
    /// # Errors
    /// The first mistake of the schedule; a checked job has none.
    pub fn of(spec: &ScheduleSpec, zone: TimeZone, seed: u64) -> Result<Calendar, Mistake> {
        let mut mistakes = Vec::new();
        check(spec, "schedule", &mut mistakes);
        if let Some(first) = mistakes.into_iter().next() {
            return Err(first);
        }
        let mut calendar = Calendar { zone, crons: Vec::new(), instants: Vec::new() };
        calendar.add(spec, seed);
        Ok(calendar)
    }

    fn add(&mut self, spec: &ScheduleSpec, seed: u64) {
        match spec {
            ScheduleSpec::Cron(text) => self.crons.extend(Cron::parse(text, seed)),
            ScheduleSpec::At(text) => {
                let instant = text.parse().ok().map(|at| Firing { at, moved: None });
                let local = || text.parse::<DateTime>().ok().and_then(|local| calendar::resolve(&self.zone, local));
                self.instants.extend(instant.or_else(local));
            }
            ScheduleSpec::AnyOf(list) => list.iter().for_each(|spec| self.add(spec, seed)),
            ScheduleSpec::Every(_) | ScheduleSpec::OnBoot(_) | ScheduleSpec::After(_) | ScheduleSpec::Manual => {}
        }
    }

    /// The first firing behind `after`; equal instants are one firing. `None` when there is none within a hundred years.
    pub fn next(&self, after: Timestamp) -> Option<Firing> {
        let once = self.instants.iter().filter(|firing| firing.at > after).cloned();
        let crons = self.crons.iter().filter_map(|cron| calendar::next(cron, &self.zone, after));
        once.chain(crons).min_by_key(|firing| firing.at)
    }
}

impl Moved {
    /// What happened to a firing, as a remark.
    pub fn remark(&self) -> String {
        match self {
            Moved::Gap { from } => {
                let (date, time) = (from.date(), from.time().strftime("%H:%M").to_string());
                format!(
                    "{time} does not exist on {date}, the clocks go forward: due at the first instant after the gap"
                )
            }
            Moved::Fold => "this local time comes twice, the clocks go back: due the first time only".to_owned(),
        }
    }
}

/// A number that is always the same for a machine and a job, and different over a fleet: for `H` and `splay`.
pub fn seed(machine: &str, job: &str) -> u64 {
    let mut hash = Sha256::new();
    for part in [machine, job] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let bytes = hash.finalize();
    u64::from_be_bytes(std::array::from_fn(|at| bytes[at]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_of_is_the_union_and_equal_instants_are_one() {
        let zone = TimeZone::get("Europe/Berlin").expect("a zone");
        let cron = |text: &str| ScheduleSpec::Cron(text.to_owned());
        let spec = ScheduleSpec::AnyOf(vec![
            cron("0 2 * * *"),
            cron("0 2,14 * * *"),
            ScheduleSpec::At("2026-11-23T03:30".into()),
            ScheduleSpec::Manual,
        ]);
        let calendar = Calendar::of(&spec, zone, 0).expect("no mistake");
        let mut after: Timestamp = "2026-11-22T20:00:00Z".parse().expect("an instant");
        let mut found = Vec::new();
        for _ in 0..4 {
            after = calendar.next(after).expect("one more").at;
            found.push(after.to_string());
        }
        let expected = ["2026-11-23T01:00:00Z", "2026-11-23T02:30:00Z", "2026-11-23T13:00:00Z", "2026-11-24T01:00:00Z"];
        assert_eq!(found, expected);
    }

    #[test]
    fn an_instant_comes_once_and_a_local_one_in_a_gap_comes_behind_it() {
        let zone = TimeZone::get("Europe/Berlin").expect("a zone");
        let at = |text: &str| Calendar::of(&ScheduleSpec::At(text.into()), zone.clone(), 0).expect("no mistake");
        let start: Timestamp = "2027-03-01T00:00:00Z".parse().expect("an instant");
        let firing = at("2027-03-28T02:30").next(start).expect("it comes");
        assert_eq!(firing.at.to_string(), "2027-03-28T01:00:00Z");
        assert!(firing.moved.expect("it was moved").remark().starts_with("02:30 does not exist on 2027-03-28"));
        assert_eq!(at("2027-03-28T02:30").next(firing.at), None);
        assert_eq!(at("2027-03-28T02:00+01:00").next(start).map(|firing| firing.at), Some(firing.at));
        assert_eq!(Calendar::of(&ScheduleSpec::Manual, zone.clone(), 0).expect("no mistake").next(start), None);
    }

    #[test]
    fn a_seed_tells_machines_and_jobs_apart() {
        assert_eq!(seed("a", "b"), seed("a", "b"));
        assert_ne!(seed("a", "bc"), seed("ab", "c"));
    }
}
