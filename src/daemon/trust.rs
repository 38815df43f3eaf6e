//! Whether the wall clock can be believed: a gateway without a battery wakes up in 1970, and its jobs must not.
//!
//! Pure: readings in, a verdict out. Once believed, a clock stays so; later steps of it are planned for, not doubted.

use crate::{
    limits::{CLOCK_TRUSTED_AFTER, CLOCK_WAIT_MAX_DEFAULT},
    world::Boot,
};
use jiff::{Timestamp, ToSpan};
use std::time::Duration;

/// What the configuration says of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockPolicy {
    /// It is right from the start.
    Trusted,
    /// It is right when the system says so; after this long one that may be right is taken.
    WaitForSync(Duration),
    /// As `WaitForSync`, and a clock with a battery is taken sooner.
    Auto,
}

/// What the system says of its clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockSigns {
    /// Something that sets it by the network says that it has.
    pub is_synchronised: bool,
    /// It goes on while the machine has no power.
    pub has_battery: bool,
}

/// The verdict so far.
#[derive(Clone, Debug)]
pub(super) struct Trust {
    policy: ClockPolicy,
    /// The newest time that is known to have been: of the program, of anything that was recorded.
    newest: Timestamp,
    is_trusted: bool,
}

impl Trust {
    pub fn new(policy: ClockPolicy, newest: Timestamp) -> Trust {
        Trust { policy, newest, is_trusted: false }
    }

    /// Looks once more. `boot` counts from the start of the machine: who has run for long has had its time.
    pub fn look(&mut self, wall: Timestamp, boot: Boot, signs: ClockSigns) -> bool {
        self.is_trusted |= match self.policy {
            ClockPolicy::Trusted => true,
            _ if signs.is_synchronised => true,
            // One that is known to be wrong is waited for, however long.
            _ if !self.is_plausible(wall) => false,
            ClockPolicy::Auto if signs.has_battery => boot.0 >= CLOCK_TRUSTED_AFTER,
            _ => boot.0 >= self.patience(),
        };
        self.is_trusted
    }

    pub fn is_trusted(&self) -> bool {
        self.is_trusted
    }

    /// Runs of an earlier process may go on: the clock is believed, or was waited for as long as is said. By one that is
    /// years ahead their deadlines would have passed.
    pub fn lets_resume(&self, wall: Timestamp, boot: Boot) -> bool {
        self.is_trusted || boot.0 >= self.patience() && wall <= self.farthest()
    }

    /// When one that may be right is believed, counted from the start of the machine.
    fn patience(&self) -> Duration {
        match self.policy {
            ClockPolicy::Trusted => Duration::ZERO,
            ClockPolicy::WaitForSync(wait) => wait,
            ClockPolicy::Auto => CLOCK_WAIT_MAX_DEFAULT,
        }
    }

    /// Not before anything that has been, nor years behind it.
    fn is_plausible(&self, wall: Timestamp) -> bool {
        (self.newest..=self.farthest()).contains(&wall)
    }

    fn farthest(&self) -> Timestamp {
        self.newest.checked_add((5 * 366 * 24).hours()).unwrap_or(Timestamp::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYNCHRONISED: ClockSigns = ClockSigns { is_synchronised: true, has_battery: false };
    const BATTERY: ClockSigns = ClockSigns { is_synchronised: false, has_battery: true };
    const NOTHING: ClockSigns = ClockSigns { is_synchronised: false, has_battery: false };

    fn trusted(policy: ClockPolicy, wall: &str, up_minutes: u64, signs: ClockSigns) -> bool {
        let newest = "2026-11-23T00:00:00Z".parse().expect("an instant");
        let up = Boot(Duration::from_secs(up_minutes * 60));
        Trust::new(policy, newest).look(wall.parse().expect("an instant"), up, signs)
    }

    #[test]
    fn a_clock_from_1970_is_waited_for_until_somebody_sets_it() {
        for policy in [ClockPolicy::Auto, ClockPolicy::WaitForSync(Duration::ZERO)] {
            assert!(!trusted(policy, "1970-01-01T00:10:00Z", 600, BATTERY));
            assert!(!trusted(policy, "2026-11-22T23:59:59Z", 600, BATTERY), "before what has been");
            assert!(!trusted(policy, "2036-11-22T23:59:59Z", 600, BATTERY), "ten years later");
            assert!(trusted(policy, "2026-11-23T00:10:00Z", 0, SYNCHRONISED));
        }
        assert!(trusted(ClockPolicy::Trusted, "1970-01-01T00:10:00Z", 0, NOTHING));
    }

    #[test]
    fn one_that_may_be_right_is_taken_after_a_while() {
        let wall = "2026-11-23T00:10:00Z";
        assert!(!trusted(ClockPolicy::Auto, wall, 1, BATTERY) && trusted(ClockPolicy::Auto, wall, 2, BATTERY));
        assert!(!trusted(ClockPolicy::Auto, wall, 9, NOTHING) && trusted(ClockPolicy::Auto, wall, 10, NOTHING));
        let half_an_hour = ClockPolicy::WaitForSync(Duration::from_secs(1800));
        assert!(!trusted(half_an_hour, wall, 29, BATTERY) && trusted(half_an_hour, wall, 30, NOTHING));
    }

    #[test]
    fn a_clock_that_was_believed_stays_so() {
        let mut trust = Trust::new(ClockPolicy::Auto, "2026-11-23T00:00:00Z".parse().expect("an instant"));
        assert!(trust.look("2026-11-23T00:00:00Z".parse().expect("an instant"), Boot(Duration::ZERO), SYNCHRONISED));
        assert!(trust.look("2020-11-23T00:00:00Z".parse().expect("an instant"), Boot(Duration::ZERO), NOTHING));
    }
}
