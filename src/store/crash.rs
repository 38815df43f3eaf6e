//! What a crash does to a run, the same in every store: when it was one too many, and by which clock waits go on.

use super::Clocks;
use crate::{
    limits::{CRASH_WINDOW, CRASHES_MAX, CRASHES_WITHOUT_PROGRESS_MAX},
    world::plant::{Bug, planted},
};

/// The crashes of one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Crashes {
    /// All of them.
    pub total: u32,
    /// When those happened that count: nothing was done between them and the crash before.
    pub counted_ms: Vec<i64>,
}

impl Crashes {
    /// Reads what [`Crashes::text`] wrote.
    pub fn read(counted: &str) -> Vec<i64> {
        counted.split(' ').filter_map(|at| at.parse().ok()).collect()
    }

    /// The times of those that count.
    pub fn text(&self) -> String {
        self.counted_ms.iter().map(i64::to_string).collect::<Vec<_>>().join(" ")
    }

    /// One more. A power cut that interrupts a night which gets on does not count; an item that brings the program down
    /// ends up alone, and then every crash does.
    pub fn add(&mut self, now_ms: i64, made_progress: bool) {
        self.total += 1;
        let window = CRASH_WINDOW.as_millis();
        self.counted_ms.retain(|at| u128::from(now_ms.abs_diff(*at)) <= window);
        if !made_progress || planted(Bug::EveryCrashCounts) {
            self.counted_ms.push(now_ms);
        }
    }

    /// True when the run is not to be resumed once more.
    pub fn are_too_many(&self) -> bool {
        self.total >= CRASHES_MAX || self.counted_ms.len() >= CRASHES_WITHOUT_PROGRESS_MAX
    }
}

/// What is added to times of the boot clock that were written in the pass that began at `then`. The boot clock begins anew
/// with the machine; what passed meanwhile is told by the wall clock, unless that was set back: then nothing has passed.
pub(super) fn rebase(then: Clocks, now: Clocks, same_boot: bool) -> i64 {
    if same_boot {
        return 0;
    }
    let boot = |clocks: Clocks| i64::try_from(clocks.boot_ms).unwrap_or(i64::MAX);
    let passed = now.wall_ms.saturating_sub(then.wall_ms).max(0);
    boot(now).saturating_sub(boot(then)).saturating_sub(passed)
}

/// A time of the boot clock, rebased.
pub(super) fn rebased(at_ms: i64, shift: i64) -> i64 {
    at_ms.min(AT_MAX).saturating_add(shift).max(0)
}

/// Far in the future, and far from an overflow.
pub(super) const AT_MAX: i64 = 1 << 62;

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    #[test]
    fn three_crashes_in_a_row_without_progress_are_too_many_and_ten_of_any_kind() {
        let mut poison = Crashes::default();
        let mut power_cuts = Crashes::default();
        for at in 0..3 {
            assert!(!poison.are_too_many());
            poison.add(at * HOUR, false);
        }
        assert!(poison.are_too_many());
        assert_eq!(Crashes::read(&poison.text()), poison.counted_ms);
        for at in 0..10 {
            assert!(!power_cuts.are_too_many(), "{at}");
            power_cuts.add(at * HOUR, true);
        }
        assert!(power_cuts.are_too_many());
        let mut rare = Crashes::default();
        for at in 0..9 {
            rare.add(at * 40 * HOUR, false);
            assert!(!rare.are_too_many(), "two in 72 hours");
        }
    }

    #[test]
    fn a_wait_goes_on_by_the_wall_clock_over_a_restart_of_the_machine() {
        let clocks = |wall_ms, boot_ms| Clocks { wall_ms, boot_ms };
        let rebased = |at, then, now, same| rebased(at, rebase(then, now, same));
        // Ten minutes were left; four have passed.
        assert_eq!(rebased(1_600_000, clocks(0, 1_000_000), clocks(240_000, 5_000), false), 5_000 + 360_000);
        assert_eq!(rebased(1_600_000, clocks(0, 1_000_000), clocks(900_000, 5_000), false), 0, "it is over");
        // Set back to 1970: nothing has passed, so no wait is longer than it was.
        assert_eq!(rebased(1_600_000, clocks(1 << 40, 1_000_000), clocks(0, 5_000), false), 605_000);
        assert_eq!(rebased(1_600_000, clocks(0, 1_000_000), clocks(1 << 40, 1_500_000), true), 1_600_000);
        assert_eq!(rebased(i64::MAX, clocks(0, 0), clocks(0, u64::MAX), false), i64::MAX);
    }
}
