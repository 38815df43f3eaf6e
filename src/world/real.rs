//! The operating system's clocks, timers, threads and randomness.
//!
//! Made by [`World::real`](super::World::real). Tasks run on the executor that it is given and nowhere else. Blocking work
//! and computations run on two small pools of the world (`threads`): the pool of the `blocking` crate grows to 500 threads
//! unless an environment variable says otherwise, and this library never touches the environment.
//!
//! This file and its neighbours are the only ones that may name a clock, a timer or a thread.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

use super::{
    Alarm, Awake, Boot, BoxFuture, Computation, Due, Ports, Task, WallWake, Withdraw, Work,
    threads::ThreadPool,
    timerfd::{KernelClock, Place, Sleepers, duration},
};
use crate::limits::{
    BLOCKING_THREADS_MAX, CPU_THREADS_MAX, CPU_THREADS_MIN, POOL_THREAD_IDLE, WALL_RECHECK, WALL_STEP_MIN,
};

/// The caller's executor. Its tasks hold worlds, so a world must not hold the executor: it would never go away.
#[derive(Clone)]
pub(super) struct Executor(Weak<async_executor::Executor<'static>>);

impl Executor {
    pub(super) fn of(executor: &Arc<async_executor::Executor<'static>>) -> Executor {
        Executor(Arc::downgrade(executor))
    }

    /// Spawns a task. When the executor is gone, or just goes, the future is dropped at once, as it would be there.
    pub(super) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) -> Task<()> {
        match self.0.upgrade() {
            Some(executor) => executor.spawn(future),
            None => async_task::spawn(future, drop).1,
        }
    }
}

/// The real world.
pub(super) struct Real {
    executor: Executor,
    boot: Arc<Sleepers>,
    wall: Arc<Sleepers>,
    cpu: ThreadPool,
    blocking: Arc<ThreadPool>,
    rng: Mutex<fastrand::Rng>,
}

impl Real {
    /// No thread, no timer and no task yet: all of them begin when they are needed.
    pub(super) fn new(executor: &Arc<async_executor::Executor<'static>>) -> Real {
        let executor = Executor::of(executor);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Real {
            boot: Arc::new(Sleepers::new(KernelClock::Boot, executor.clone())),
            wall: Arc::new(Sleepers::new(KernelClock::Wall, executor.clone())),
            cpu: ThreadPool::new("lamplighter-cpu", cores.clamp(CPU_THREADS_MIN, CPU_THREADS_MAX), POOL_THREAD_IDLE),
            blocking: Arc::new(ThreadPool::patient("lamplighter-io", BLOCKING_THREADS_MAX, POOL_THREAD_IDLE)),
            rng: Mutex::new(fastrand::Rng::new()),
            executor,
        }
    }
}

impl Ports for Real {
    fn wall(&self) -> jiff::Timestamp {
        wall()
    }

    fn awake(&self) -> Awake {
        awake()
    }

    fn boot(&self) -> Boot {
        Boot(KernelClock::Boot.now())
    }

    fn alarm(&self) -> Box<dyn Alarm> {
        Box::new(RealAlarm { timer: LazyTimer::default(), sleepers: self.boot.clone(), place: None })
    }

    fn spawn(&self, future: BoxFuture<'static, ()>) -> Task<()> {
        self.executor.spawn(future)
    }

    fn random(&self) -> u64 {
        self.rng.lock().unwrap_or_else(PoisonError::into_inner).u64(..)
    }

    fn block(&self, work: Box<dyn FnOnce() + Send>) -> Withdraw {
        let pool = self.blocking.clone();
        let submitted = pool.submit(work);
        Withdraw::new(move || {
            if let Ok(work) = submitted {
                pool.abandon(work);
            }
        })
    }

    fn until_wall(&self, due: jiff::Timestamp) -> BoxFuture<'static, WallWake> {
        Box::pin(until_wall(self.wall.clone(), due))
    }

    fn compute(&self, work: Work) -> Result<Computation, Option<Work>> {
        self.cpu.submit(work)
    }

    fn waiting(&self, begins: bool) {
        self.cpu.waiting(begins);
    }

    fn abandon(&self, computation: Computation) {
        self.cpu.abandon(computation);
    }

    fn degraded(&self) -> bool {
        self.cpu.degraded()
    }
}

/// 64-bit seconds also where the C library's time has 32.
fn wall() -> jiff::Timestamp {
    let now = clock_gettime(ClockId::Realtime);
    let nanos = i32::try_from(now.tv_nsec).unwrap_or(0);
    let end = if now.tv_sec < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
    jiff::Timestamp::new(now.tv_sec, nanos).unwrap_or(end)
}

fn awake() -> Awake {
    Awake(duration(clock_gettime(ClockId::Monotonic)))
}

/// A timer on the awake clock that is set again only when it must be.
#[derive(Default)]
struct LazyTimer {
    timer: Option<smol::Timer>,
    /// What the timer is set to, until it fires: never later than what was asked for last, when that is pending.
    armed: Option<Awake>,
}

impl LazyTimer {
    #[expect(clippy::disallowed_methods, reason = "this is the door to timers")]
    fn poll(&mut self, cx: &mut Context<'_>, due: Awake) -> Poll<()> {
        loop {
            if let Some(timer) = &mut self.timer
                && self.armed.is_some_and(|armed| armed <= due)
            {
                if Pin::new(timer).poll(cx).is_pending() {
                    return Poll::Pending;
                }
                self.armed = None;
            }
            let now = awake();
            if now >= due {
                return Poll::Ready(());
            }
            // The timer reads its clock after this one, so it is never early by more than rounding.
            self.timer.get_or_insert_with(smol::Timer::never).set_after(due.since(now));
            self.armed = Some(due);
        }
    }

    fn disarm(&mut self) {
        if self.armed.take().is_some() {
            self.timer = None;
        }
    }
}

/// An alarm on either clock. A due that moves later leaves the timer where it is: it fires early once and is set again.
struct RealAlarm {
    timer: LazyTimer,
    sleepers: Arc<Sleepers>,
    /// Where this sleeps on the boot clock, and the waker that is there.
    place: Option<(Place, Waker)>,
}

impl Alarm for RealAlarm {
    fn poll(&mut self, cx: &mut Context<'_>, due: Due) -> Poll<()> {
        match due {
            Due::Awake(due) => {
                self.leave();
                self.timer.poll(cx, due)
            }
            Due::Boot(due) => self.poll_boot(cx, due),
        }
    }
}

impl RealAlarm {
    fn poll_boot(&mut self, cx: &mut Context<'_>, Boot(due): Boot) -> Poll<()> {
        let now = KernelClock::Boot.now();
        if now >= due {
            self.leave();
            self.timer.disarm();
            return Poll::Ready(());
        }
        if let Some((place, waker)) = &self.place
            && now < place.due
            && place.due <= due
            && self.sleepers.stands(*place)
            && waker.will_wake(cx.waker())
        {
            return Poll::Pending;
        }
        self.leave();
        match self.sleepers.sleep(due, cx.waker().clone()) {
            Ok(place) => {
                self.timer.disarm();
                self.place = Some((place, cx.waker().clone()));
                Poll::Pending
            }
            Err(error) => {
                // The awake clock never runs faster, so this comes too late at worst by the time the machine slept.
                log::debug!("no timer on the boot clock, using one that stops in suspend: {error}");
                let ready = self.timer.poll(cx, awake() + (due - now));
                if ready.is_ready() && KernelClock::Boot.now() < due {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                ready
            }
        }
    }

    fn leave(&mut self) {
        if let Some((place, _)) = self.place.take() {
            self.sleepers.leave(place);
        }
    }
}

impl Drop for RealAlarm {
    fn drop(&mut self) {
        self.leave();
    }
}

/// See [`super::World::until_wall`].
async fn until_wall(sleepers: Arc<Sleepers>, due: jiff::Timestamp) -> WallWake {
    /// Gives the place back when the future is dropped.
    struct Asleep(Arc<Sleepers>, Option<(Place, Waker)>);
    impl Asleep {
        fn leave(&mut self) {
            if let Some((place, _)) = self.1.take() {
                self.0.leave(place);
            }
        }
    }
    impl Drop for Asleep {
        fn drop(&mut self) {
            self.leave();
        }
    }

    let since_1970 = Duration::try_from(due.duration_since(jiff::Timestamp::UNIX_EPOCH)).unwrap_or(Duration::ZERO);
    let sets = sleepers.sets();
    let began = (wall(), KernelClock::Boot.now());
    let mut timer = LazyTimer::default();
    let mut recheck = None;
    let mut asleep = Asleep(sleepers, None);
    poll_fn(|cx| {
        loop {
            let now = wall();
            if now >= due {
                return Poll::Ready(WallWake::Reached);
            }
            if asleep.0.sets() != sets {
                return Poll::Ready(WallWake::ClockSet);
            }
            if let Some((place, waker)) = &asleep.1
                && KernelClock::Wall.now() < place.due
                && asleep.0.stands(*place)
                && waker.will_wake(cx.waker())
            {
                return Poll::Pending;
            }
            asleep.leave();
            if recheck.is_none() {
                match asleep.0.sleep(since_1970, cx.waker().clone()) {
                    Ok(place) => {
                        asleep.1 = Some((place, cx.waker().clone()));
                        return Poll::Pending;
                    }
                    Err(error) => log::debug!("no timer on the wall clock, looking at it now and then: {error}"),
                }
            }
            // Without the kernel's help: wait a while, then compare what both clocks say has passed.
            let left = Duration::try_from(due.duration_since(now)).unwrap_or(Duration::ZERO);
            let at = *recheck.get_or_insert_with(|| awake() + left.min(WALL_RECHECK));
            if timer.poll(cx, at).is_pending() {
                return Poll::Pending;
            }
            recheck = None;
            if stepped(began, (wall(), KernelClock::Boot.now())) {
                return Poll::Ready(WallWake::ClockSet);
            }
        }
    })
    .await
}

/// Whether the wall clock moved noticeably more or less than the boot clock between two readings of both.
fn stepped(began: (jiff::Timestamp, Duration), now: (jiff::Timestamp, Duration)) -> bool {
    let passed = jiff::SignedDuration::try_from(now.1.saturating_sub(began.1)).unwrap_or(jiff::SignedDuration::MAX);
    now.0.duration_since(began.0).saturating_sub(passed).unsigned_abs() >= WALL_STEP_MIN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_the_wall_clock_hears_that_it_was_set() {
        let executor = Arc::new(async_executor::Executor::new());
        let sleepers = Arc::new(Sleepers::new(KernelClock::Wall, Executor::of(&executor)));
        smol::block_on(executor.run(async {
            let mut waits = Box::pin(until_wall(sleepers.clone(), jiff::Timestamp::MAX));
            assert_eq!(smol::future::poll_once(&mut waits).await, None);
            sleepers.clock_set();
            assert_eq!(waits.await, WallWake::ClockSet);
            let due = wall() + Duration::from_millis(2);
            assert_eq!(until_wall(sleepers.clone(), due).await, WallWake::Reached, "and it serves again");
        }));
        while executor.try_tick() {}
        assert!(executor.is_empty());
    }

    #[test]
    fn without_a_timer_of_the_kernel_the_awake_clock_serves() {
        let executor = Arc::new(async_executor::Executor::new());
        let sleepers = |clock| Arc::new(Sleepers::refused(clock, Executor::of(&executor)));
        let mut alarm = RealAlarm { timer: LazyTimer::default(), sleepers: sleepers(KernelClock::Boot), place: None };
        let wall_sleepers = sleepers(KernelClock::Wall);
        smol::block_on(executor.run(async {
            let due = KernelClock::Boot.now() + Duration::from_millis(5);
            poll_fn(|cx| alarm.poll(cx, Due::Boot(Boot(due)))).await;
            assert!(KernelClock::Boot.now() >= due);
            let due = wall() + Duration::from_millis(5);
            assert_eq!(until_wall(wall_sleepers, due).await, WallWake::Reached);
            assert!(wall() >= due);
        }));
        assert!(executor.is_empty());
    }

    #[test]
    fn a_stepped_wall_clock_is_told_from_drift() {
        let start = jiff::Timestamp::UNIX_EPOCH;
        let at = |wall: i64, boot: u64| (start + jiff::SignedDuration::from_millis(wall), Duration::from_millis(boot));
        assert!(!stepped(at(0, 0), at(60_000, 60_000)));
        assert!(!stepped(at(0, 0), at(60_400, 60_000)));
        assert!(stepped(at(0, 0), at(3_660_000, 60_000)));
        assert!(stepped(at(0, 0), at(-3_600_000, 60_000)));
    }
}
