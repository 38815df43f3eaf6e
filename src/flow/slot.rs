//! The place in which one item is worked on: its work permit, its clocks, its attempts.

use super::WorkPermits;
use crate::{
    limits::WAIT_IN_MEMORY_MAX,
    world::{
        Alarm, Awake, Boot, World,
        plant::{Bug, planted},
    },
};
use std::{
    future::Future,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// What a running item asks of its stage. One for each worker, used for one item after the other; services and actions
/// see it through a shared reference.
///
/// Only the worker's own task changes it, so its cells are plain stores. Clocks are read when somebody asks for them: an
/// item whose actions never wait costs no reading of a clock.
pub struct Slot {
    world: World,
    permits: Option<WorkPermits>,
    may_defer: bool,
    /// True while a work permit is held.
    working: AtomicBool,
    /// Time with a work permit in this attempt, up to `since`.
    worked: Nanos,
    /// When the attempt began to work again, on the awake clock; unset until it is asked for.
    since: Nanos,
    /// The stage's and the run's deadline, on the boot clock.
    latest: Nanos,
    /// The item's own deadline, on the boot clock; unset until it is asked for.
    own: Nanos,
    /// How long the item has from its beginning.
    bound: Nanos,
    attempts: AtomicU32,
    carried: AtomicU32,
    alarm: Mutex<Option<Box<dyn Alarm>>>,
}

/// A duration that may be unset, in a cell.
struct Nanos(AtomicU64);

impl Nanos {
    const UNSET: u64 = u64::MAX;

    fn unset() -> Nanos {
        Nanos(AtomicU64::new(Nanos::UNSET))
    }

    fn get(&self) -> Option<Duration> {
        let nanos = self.0.load(Relaxed);
        (nanos != Nanos::UNSET).then(|| Duration::from_nanos(nanos))
    }

    fn set(&self, duration: Option<Duration>) {
        // 584 years is for ever.
        let nanos = duration.map_or(Nanos::UNSET, |of| u64::try_from(of.as_nanos()).unwrap_or(Nanos::UNSET));
        self.0.store(nanos, Relaxed);
    }

    fn get_or_set(&self, make: impl FnOnce() -> Duration) -> Duration {
        self.get().unwrap_or_else(|| {
            let made = make();
            self.set(Some(made));
            made
        })
    }
}

/// The bound of an item by itself (`item_deadline`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemBound {
    /// It has so long, from when it is taken.
    For(Duration),
    /// It was taken before.
    Until(Boot),
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
        Slot {
            world,
            permits,
            may_defer,
            working: AtomicBool::new(false),
            worked: Nanos(AtomicU64::new(0)),
            since: Nanos::unset(),
            latest: Nanos::unset(),
            own: Nanos::unset(),
            bound: Nanos::unset(),
            attempts: AtomicU32::new(0),
            carried: AtomicU32::new(0),
            alarm: Mutex::new(None),
        }
    }

    /// The clocks and threads of the run.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// A new item is taken (its work permit is held): clears what belonged to the one before. `latest`: the stage's or the
    /// run's deadline. `carried`: counted attempts from before it was deferred.
    pub fn begin_item(&self, latest: Option<Boot>, carried: u32) {
        self.attempts.store(carried, Relaxed);
        self.carried.store(carried, Relaxed);
        self.latest.set(latest.map(|at| at.0));
        self.own.set(None);
        self.bound.set(None);
        self.working.store(true, Relaxed);
    }

    /// The item that was begun has a bound of its own.
    pub fn bound_item(&self, bound: ItemBound) {
        match bound {
            ItemBound::For(bound) => self.bound.set(Some(bound)),
            ItemBound::Until(at) => self.own.set(Some(at.0)),
        }
    }

    /// A new attempt begins: its work clock starts at zero.
    pub fn begin_attempt(&self) {
        self.worked.set(Some(Duration::ZERO));
        self.since.set(None);
    }

    /// The item has ended. `true` when its work permit is still held and must be given back or kept by the caller.
    pub fn end_item(&self) -> bool {
        let held = self.working.load(Relaxed);
        self.working.store(false, Relaxed);
        held
    }

    /// The item's own deadline. Its time begins when this is first asked, which is at the latest when the item first waits:
    /// in the turn in which it was taken.
    pub fn own_deadline(&self) -> Option<Boot> {
        let Some(bound) = self.bound.get() else { return self.own.get().map(Boot) };
        Some(Boot(self.own.get_or_set(|| (self.world.boot() + bound).0)))
    }

    /// The bound of this item with all its attempts and waits: the earliest of item, stage and run deadline.
    pub fn deadline(&self) -> Option<Boot> {
        let bounds = [self.own_deadline(), self.latest.get().map(Boot)].into_iter().flatten();
        if planted(Bug::ChildLengthens) { bounds.max() } else { bounds.min() }
    }

    /// True while the item waits without a work permit.
    pub fn is_parked(&self) -> bool {
        !self.working.load(Relaxed)
    }

    /// When the work clock of this attempt will have run for `timeout`, if the item goes on working; `None` while it waits.
    /// The work clock begins when this is first asked: as [`Slot::own_deadline`].
    pub fn timeout_at(&self, timeout: Duration) -> Option<Awake> {
        if self.is_parked() && !planted(Bug::TimeoutCountsWaiting) {
            return None;
        }
        let since = self.since.get_or_set(|| self.world.awake().0);
        Some(Awake(since) + timeout.saturating_sub(self.worked.get().unwrap_or_default()))
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
        self.attempts.store(self.attempts().max(attempts << twice), Relaxed);
    }

    /// The highest count so far; 0 when nothing was tried.
    pub fn attempts(&self) -> u32 {
        self.attempts.load(Relaxed)
    }

    /// Attempts that a retry loop had counted before the item was deferred: it goes on from there. Reading takes them: the
    /// next loop begins at 0.
    pub fn take_carried(&self) -> u32 {
        let carried = self.carried.load(Relaxed);
        self.carried.store(0, Relaxed);
        carried
    }

    /// A timer for one call. It may be armed still for the call before: set again it costs less than a new one.
    pub fn take_alarm(&self) -> Box<dyn Alarm> {
        let kept = self.alarm.lock().unwrap_or_else(PoisonError::into_inner).take();
        kept.unwrap_or_else(|| self.world.alarm())
    }

    /// Gives a timer back for the next call.
    pub fn keep_alarm(&self, alarm: Box<dyn Alarm>) {
        *self.alarm.lock().unwrap_or_else(PoisonError::into_inner) = Some(alarm);
    }

    /// `false` when the item waits already.
    fn park(&self) -> bool {
        if self.is_parked() {
            return false;
        }
        self.working.store(false, Relaxed);
        if let Some(since) = self.since.get() {
            let worked = self.worked.get().unwrap_or_default() + self.world.awake().since(Awake(since));
            self.worked.set(Some(worked));
        }
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
        self.since.set(None);
        self.working.store(true, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{Due, sim::Sim};
    use futures_lite::FutureExt;
    use std::future::poll_fn;

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
    fn an_item_has_its_time_from_when_it_is_first_asked_for() {
        let sim = Sim::new(1);
        let world = sim.world();
        let slot = Slot::free(world.clone());
        let second = Duration::from_secs(1);
        sim.run(async {
            let until = world.boot() + 9 * second;
            slot.begin_item(Some(until), 0);
            assert_eq!((slot.own_deadline(), slot.deadline()), (None, Some(until)));
            slot.bound_item(ItemBound::For(5 * second));
            let own = world.boot() + 5 * second;
            assert_eq!(slot.own_deadline(), Some(own));
            world.sleep(second).await;
            assert_eq!((slot.own_deadline(), slot.deadline()), (Some(own), Some(own)), "and it stays");
            slot.begin_item(Some(until), 2);
            assert_eq!((slot.own_deadline(), slot.attempts()), (None, 2));
            slot.bound_item(ItemBound::Until(until + second));
            assert_eq!((slot.own_deadline(), slot.deadline()), (Some(until + second), Some(until)));
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

    #[test]
    fn a_timer_kept_from_the_call_before_ends_the_next_one_neither_early_nor_late() {
        let sim = Sim::new(1);
        let world = sim.world();
        let slot = Slot::free(world.clone());
        sim.run(async {
            for (call, timeout, took) in [(0, 10, 1), (1, 30, 30), (2, 2, 2), (3, 20, 5)] {
                let (began, mut alarm) = (world.awake(), slot.take_alarm());
                let due = Due::Awake(began + Duration::from_secs(timeout));
                let late = poll_fn(|cx| alarm.poll(cx, due));
                late.or(world.sleep(Duration::from_secs(if took == timeout { 99 } else { took }))).await;
                assert_eq!(world.awake().since(began), Duration::from_secs(took), "call {call}");
                slot.keep_alarm(alarm);
            }
        })
        .expect("no deadlock");
    }
}
