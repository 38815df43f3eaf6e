//! The place in which one item is worked on: its work permit, its clocks, its attempts.

use super::WorkPermits;
use crate::{
    limits::WAIT_IN_MEMORY_MAX,
    world::{
        Awake, Boot, World,
        plant::{Bug, planted},
    },
};
use std::{
    future::Future,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

/// What a running item asks of its stage. One for each worker, used for one item after the other; services and actions
/// see it through a shared reference.
pub struct Slot {
    world: World,
    permits: Option<WorkPermits>,
    may_defer: bool,
    state: Mutex<State>,
    attempts: AtomicU32,
    carried: AtomicU32,
}

struct State {
    /// True while a work permit is held.
    working: bool,
    /// Time with a work permit in this attempt, up to `since`.
    worked: Duration,
    since: Awake,
    deadline: Option<Boot>,
}

/// Why a wait was not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitRefused {
    /// It would end past the item's deadline: settle at once with the last failure.
    PastDeadline,
    /// It is too long to stay in memory: the item is deferred for this long.
    Defer(Duration),
}

impl Slot {
    /// A slot of a stage. `may_defer`: the stage can put an item that waits long into the store.
    pub fn new(world: World, permits: WorkPermits, may_defer: bool) -> Slot {
        Slot::build(world, Some(permits), may_defer)
    }

    /// A slot without permits or deferral: for a source, and for tests of what runs inside one.
    pub fn free(world: World) -> Slot {
        Slot::build(world, None, false)
    }

    fn build(world: World, permits: Option<WorkPermits>, may_defer: bool) -> Slot {
        let since = world.awake();
        Slot {
            world,
            permits,
            may_defer,
            state: Mutex::new(State { working: false, worked: Duration::ZERO, since, deadline: None }),
            attempts: AtomicU32::new(0),
            carried: AtomicU32::new(0),
        }
    }

    /// The clocks and threads of the run.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// A new item is taken (its work permit is held): clears what belonged to the one before.
    /// `carried`: counted attempts from before it was deferred.
    pub fn begin_item(&self, deadline: Option<Boot>, carried: u32) {
        self.attempts.store(carried, Ordering::Relaxed);
        self.carried.store(carried, Ordering::Relaxed);
        let mut state = self.lock();
        state.deadline = deadline;
        state.working = true;
    }

    /// A new attempt begins: its work clock starts at zero.
    pub fn begin_attempt(&self) {
        let now = self.world.awake();
        let mut state = self.lock();
        state.worked = Duration::ZERO;
        state.since = now;
    }

    /// The item has ended. `true` when its work permit is still held and must be given back or kept by the caller.
    pub fn end_item(&self) -> bool {
        let mut state = self.lock();
        std::mem::replace(&mut state.working, false)
    }

    /// The bound of this item with all its attempts and waits: the earliest of item, stage and run deadline.
    pub fn deadline(&self) -> Option<Boot> {
        self.lock().deadline
    }

    /// True while the item waits without a work permit.
    pub fn is_parked(&self) -> bool {
        !self.lock().working
    }

    /// When the work clock of this attempt will have run for `timeout`, if the item goes on working; `None` while it waits.
    pub fn timeout_at(&self, timeout: Duration) -> Option<Awake> {
        let state = self.lock();
        (state.working || planted(Bug::TimeoutCountsWaiting))
            .then(|| state.since + timeout.saturating_sub(state.worked))
    }

    /// Runs `future` without a work permit: what it does is waiting (retry, rate, in-flight limit, token). The permit is
    /// there again when this returns.
    ///
    /// # Cancel safety
    /// If it is dropped the item holds no permit, and the slot knows it.
    pub async fn parked<T>(&self, future: impl Future<Output = T>) -> T {
        let parked = self.park();
        let result = future.await;
        if parked {
            self.unpark().await;
        }
        result
    }

    /// Like [`Slot::parked`], for what others may want as well (a place in flight): when no work permit is free at once what
    /// `future` gave is dropped, so that nobody holds it while waiting for one. `None` then: the permit is there, and the
    /// caller asks again.
    ///
    /// # Cancel safety
    /// As [`Slot::parked`].
    pub async fn parked_for<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let parked = self.park();
        let result = future.await;
        if !parked || self.try_unpark() {
            return Some(result);
        }
        drop(result);
        self.unpark().await;
        None
    }

    /// Waits `duration` without a work permit, if the item's deadline allows it.
    ///
    /// # Errors
    /// Without waiting: when the wait would end past the deadline, or is so long that the item should be deferred.
    pub async fn wait(&self, duration: Duration) -> Result<(), WaitRefused> {
        if let Some(deadline) = self.deadline()
            && self.world.boot() + duration > deadline
        {
            return Err(WaitRefused::PastDeadline);
        }
        if self.may_defer && duration > WAIT_IN_MEMORY_MAX {
            return Err(WaitRefused::Defer(duration));
        }
        if !planted(Bug::RetryHoldsPermit) {
            self.park();
        }
        self.world.sleep(duration).await;
        // Whoever waited before and was dropped had no permit any more: the next attempt needs one all the same.
        if self.is_parked() {
            self.unpark().await;
        }
        Ok(())
    }

    /// One retry loop has counted `attempts` for this item; the highest of all is the item's.
    pub fn count_attempts(&self, attempts: u32) {
        let twice = u32::from(planted(Bug::AttemptsTwice));
        self.attempts.fetch_max(attempts << twice, Ordering::Relaxed);
    }

    /// The highest count so far; 0 when nothing was tried.
    pub fn attempts(&self) -> u32 {
        self.attempts.load(Ordering::Relaxed)
    }

    /// Attempts that a retry loop had counted before the item was deferred: it goes on from there. Reading takes them: the
    /// next loop begins at 0.
    pub fn take_carried(&self) -> u32 {
        self.carried.swap(0, Ordering::Relaxed)
    }

    /// `false` when the item waits already.
    fn park(&self) -> bool {
        let now = self.world.awake();
        let mut state = self.lock();
        if !state.working {
            return false;
        }
        state.working = false;
        let since = state.since;
        state.worked += now.since(since);
        drop(state);
        if let Some(permits) = &self.permits {
            permits.release_working();
        }
        true
    }

    fn try_unpark(&self) -> bool {
        let taken = self.permits.as_ref().is_none_or(WorkPermits::try_returning);
        if taken {
            self.work_again();
        }
        taken
    }

    async fn unpark(&self) {
        if let Some(permits) = &self.permits {
            permits.acquire_returning().await;
        }
        self.work_again();
    }

    fn work_again(&self) {
        let now = self.world.awake();
        let mut state = self.lock();
        state.working = true;
        state.since = now;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::sim::Sim;

    #[test]
    fn the_work_clock_stands_still_while_the_item_waits() {
        let sim = Sim::new(1);
        let world = sim.world();
        let slot = Slot::new(world.clone(), WorkPermits::new(1), true);
        let second = Duration::from_secs(1);
        sim.run(async {
            slot.permits.as_ref().expect("of a stage").acquire_returning().await;
            slot.begin_item(None, 0);
            slot.begin_attempt();
            let began = world.awake();
            assert_eq!(slot.timeout_at(5 * second), Some(began + 5 * second));
            world.sleep(2 * second).await;
            slot.parked(async {
                world.sleep(60 * second).await;
                assert_eq!((slot.timeout_at(5 * second), slot.is_parked()), (None, true));
            })
            .await;
            // Two of five seconds are used up.
            assert_eq!(slot.timeout_at(5 * second), Some(world.awake() + 3 * second));
            slot.begin_attempt();
            assert_eq!(slot.timeout_at(5 * second), Some(world.awake() + 5 * second));
            assert!(slot.end_item());
        })
        .expect("no deadlock");
    }

    #[test]
    fn a_wait_is_refused_past_the_deadline_and_leaves_memory_when_it_is_long() {
        let sim = Sim::new(1);
        let world = sim.world();
        let slot = Slot::new(world.clone(), WorkPermits::new(1), true);
        sim.run(async {
            slot.permits.as_ref().expect("of a stage").acquire_returning().await;
            slot.begin_item(Some(world.boot() + Duration::from_secs(30)), 0);
            assert_eq!(slot.wait(Duration::from_secs(31)).await, Err(WaitRefused::PastDeadline));
            let long = WAIT_IN_MEMORY_MAX + Duration::from_millis(1);
            assert_eq!(slot.wait(long).await, Err(WaitRefused::Defer(long)));
            assert_eq!(slot.wait(WAIT_IN_MEMORY_MAX).await, Ok(()));
        })
        .expect("no deadlock");
        assert_eq!(sim.elapsed(), WAIT_IN_MEMORY_MAX);
    }
}
