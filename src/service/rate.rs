//! How many calls may leave in each window of time, exactly.
//!
//! Used by [`super::admission`]. Pure: it is told the time. In any span as long as a window, wherever it begins, no more
//! calls are recorded than the window allows; all of them may be at its beginning.

use crate::{limits::RATE_GROUPS_MAX, world::Awake};
use std::{collections::VecDeque, time::Duration};

/// Several windows that hold at once.
pub(super) struct Windows {
    windows: Vec<Window>,
    /// The last call of all.
    last: Option<Awake>,
}

/// One window. Up to [`RATE_GROUPS_MAX`] calls are remembered one by one; larger counts in groups of equal size, of which
/// the last call's time is kept: a few calls less than allowed may leave then, never more.
struct Window {
    length: Duration,
    /// Calls of one group.
    group: u64,
    /// Groups in a window.
    groups: u64,
    /// The last call of each full group of the last window, oldest first.
    ends: VecDeque<Awake>,
    /// The group that is being filled.
    filling: u64,
}

impl Windows {
    /// Windows of so many calls in so long a time. A count or length of zero counts as the smallest there is.
    pub(super) fn new(rates: impl IntoIterator<Item = (u64, Duration)>) -> Windows {
        let window = |(count, length): (u64, Duration)| {
            let count = count.max(1);
            let group = count.div_ceil(RATE_GROUPS_MAX);
            let length = length.max(Duration::from_millis(1));
            Window { length, group, groups: count / group, ends: VecDeque::new(), filling: 0 }
        };
        Windows { windows: rates.into_iter().map(window).collect(), last: None }
    }

    /// When the next call may leave, at the earliest `now`.
    pub(super) fn ready_at(&self, now: Awake) -> Awake {
        self.after(now, 0)
    }

    /// The earliest that a call may leave when `ahead` others go before it: exact if they leave as soon as they may.
    pub(super) fn after(&self, now: Awake, ahead: u64) -> Awake {
        self.windows.iter().map(|window| window.after(now, ahead)).fold(now, Awake::max)
    }

    /// A call leaves.
    pub(super) fn record(&mut self, now: Awake) {
        self.last = Some(now);
        for window in &mut self.windows {
            window.record(now);
        }
    }

    /// When the last call left.
    pub(super) fn last(&self) -> Option<Awake> {
        self.last
    }
}

impl Window {
    fn after(&self, now: Awake, ahead: u64) -> Awake {
        // The group that the call would belong to, counted from the one that is being filled. It begins when the group
        // that stands a whole window before it has ended for `length`; one that is still to come takes `length` more.
        let group = (self.filling + ahead) / self.group;
        let (rounds, group) = (group / self.groups, group % self.groups);
        let before =
            (self.ends.len() as u64 + group).checked_sub(self.groups).and_then(|at| self.ends.get(at as usize));
        let first = before.map_or(now, |end| now.max(*end + self.length));
        first + self.length.saturating_mul(u32::try_from(rounds).unwrap_or(u32::MAX))
    }

    fn record(&mut self, now: Awake) {
        self.filling += 1;
        if self.filling == self.group {
            self.filling = 0;
            self.ends.push_back(now);
            if self.ends.len() as u64 > self.groups {
                self.ends.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(ms: u64) -> Awake {
        Awake(Duration::from_millis(ms))
    }

    /// Lets calls leave as soon as they may, with pauses between them; the times they left.
    fn leave(windows: &mut Windows, pauses: &[u64]) -> Vec<u64> {
        let mut now = ms(1_000_000);
        let mut left = Vec::new();
        for pause in pauses {
            now = windows.ready_at(now + Duration::from_millis(*pause));
            windows.record(now);
            left.push(now.0.as_millis() as u64);
        }
        left
    }

    #[test]
    fn several_windows_hold_at_once() {
        let mut windows = Windows::new([(2, Duration::from_secs(1)), (3, Duration::from_secs(10))]);
        let left = leave(&mut windows, &[0; 7]);
        let from_start: Vec<_> = left.iter().map(|at| at - 1_000_000).collect();
        assert_eq!(from_start, [0, 0, 1000, 10_000, 10_000, 11_000, 20_000]);
    }

    #[test]
    fn a_place_in_the_queue_knows_its_time() {
        let mut windows = Windows::new([(3, Duration::from_secs(1))]);
        let start = ms(1_000_000);
        windows.record(start);
        let times: Vec<_> = (0..8).map(|ahead| windows.after(start, ahead).since(start).as_secs()).collect();
        assert_eq!(times, [0, 0, 1, 1, 1, 2, 2, 2]);
    }

    #[test]
    fn a_large_count_takes_little_memory_and_nearly_all_of_its_calls() {
        let mut windows = Windows::new([(1_000_000, Duration::from_secs(60))]);
        let left = leave(&mut windows, &vec![0; 1_000_000]);
        let at_once = left.iter().filter(|at| **at == left[0]).count();
        assert!((990_000..=1_000_000).contains(&at_once), "{at_once}");
        assert!(windows.windows[0].ends.len() as u64 <= RATE_GROUPS_MAX);
    }

    proptest! {
        #[test]
        fn no_span_as_long_as_a_window_sees_more_calls_than_it_allows(
            count in 1u64..2000, length in 1u64..500, pauses in prop::collection::vec(0u64..40, 1..3000),
        ) {
            let mut windows = Windows::new([(count, Duration::from_millis(length))]);
            let left = leave(&mut windows, &pauses);
            for (at, first) in left.iter().enumerate() {
                if let Some(one_more) = left.get(at + count as usize) {
                    prop_assert!(one_more - first >= length);
                }
            }
        }
    }
}
