//! Everybody who sleeps on one kernel clock, on one timerfd.
//!
//! Used by the real world: one of these for the boot clock, one for the wall clock. The timerfd is made at the first
//! sleeper and set to the earliest. A driver task on the world's executor waits for it, only while somebody sleeps; so
//! an executor without other tasks is empty once the last sleeper is gone. It holds no executor (no cycle).

use std::{
    collections::BTreeMap,
    io,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::Waker,
    time::Duration,
};

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use smol::Async;

use super::Task;

/// Which clock a timerfd follows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum KernelClock {
    /// CLOCK_BOOTTIME, since the machine's boot.
    Boot,
    /// CLOCK_REALTIME, since 1970; sleepers are woken when it is set.
    Wall,
}

/// The sleepers of one clock.
pub(super) struct Sleepers {
    executor: Arc<async_executor::Executor<'static>>,
    shared: Arc<Shared>,
}

/// One place among the sleepers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// The reading of the clock at which the sleeper is woken.
    pub(super) due: Duration,
    number: u64,
}

/// What the driver shares with the sleepers.
struct Shared {
    clock: KernelClock,
    /// Makes the timerfd, or is refused one.
    make: fn(KernelClock) -> io::Result<Async<OwnedFd>>,
    state: Mutex<State>,
    /// How often the clock was set while somebody slept.
    sets: AtomicUsize,
}

#[derive(Default)]
struct State {
    fd: Option<Arc<Async<OwnedFd>>>,
    sleepers: BTreeMap<Place, Waker>,
    /// What the timerfd is set to: never later than the first sleeper.
    armed: Option<Duration>,
    /// The task that waits for the timer, and its number.
    driver: Option<(u64, Task<()>)>,
    next: u64,
}

impl KernelClock {
    /// The clock's reading; a time before 1970 reads as zero.
    pub(super) fn now(self) -> Duration {
        let id = match self {
            KernelClock::Boot => ClockId::Boottime,
            KernelClock::Wall => ClockId::Realtime,
        };
        duration(rustix::time::clock_gettime(id))
    }
}

/// A kernel time as a duration; negative ones are zero.
pub(super) fn duration(time: Timespec) -> Duration {
    match (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec)) {
        (Ok(seconds), Ok(nanos)) => Duration::new(seconds, nanos),
        _ => Duration::ZERO,
    }
}

impl Sleepers {
    /// Nobody sleeps yet; the driver will run on `executor`.
    pub(super) fn new(clock: KernelClock, executor: Arc<async_executor::Executor<'static>>) -> Sleepers {
        Sleepers::with(clock, executor, KernelClock::timer)
    }

    /// The same as on a kernel that gives no timerfd.
    #[cfg(test)]
    pub(super) fn refused(clock: KernelClock, executor: Arc<async_executor::Executor<'static>>) -> Sleepers {
        Sleepers::with(clock, executor, |_| Err(io::ErrorKind::PermissionDenied.into()))
    }

    fn with(
        clock: KernelClock,
        executor: Arc<async_executor::Executor<'static>>,
        make: fn(KernelClock) -> io::Result<Async<OwnedFd>>,
    ) -> Sleepers {
        let shared = Shared { clock, make, state: Mutex::default(), sets: AtomicUsize::new(0) };
        Sleepers { executor, shared: Arc::new(shared) }
    }

    /// How often the clock was set while somebody slept.
    pub(super) fn sets(&self) -> usize {
        self.shared.sets.load(Ordering::SeqCst)
    }

    /// Wakes `waker` once when the clock reads `due`, or when it is set.
    ///
    /// # Errors
    /// The kernel gives no timerfd (none left, or forbidden); nothing is registered then.
    pub(super) fn sleep(&self, due: Duration, waker: Waker) -> io::Result<Place> {
        let mut state = self.shared.lock();
        let fd = match &state.fd {
            Some(fd) => fd.clone(),
            None => state.fd.insert(Arc::new((self.shared.make)(self.shared.clock)?)).clone(),
        };
        if state.armed.is_none_or(|armed| due < armed) {
            set(&fd, self.shared.clock, due)?;
            state.armed = Some(due);
        }
        let place = Place { due, number: state.next };
        state.next += 1;
        state.sleepers.insert(place, waker);
        if state.driver.is_none() {
            let driver = self.executor.spawn(self.shared.clone().drive(fd, place.number));
            state.driver = Some((place.number, driver));
        }
        Ok(place)
    }

    /// Gives a place back, if its waker was not woken yet.
    pub(super) fn leave(&self, place: Place) {
        let mut state = self.shared.lock();
        let waker = state.sleepers.remove(&place);
        let driver = if state.sleepers.is_empty() { state.disarm(self.shared.clock) } else { None };
        drop(state);
        // Dropping the driver cancels it; dropping a waker may drop a task. Neither under the lock.
        drop((waker, driver));
    }
}

impl KernelClock {
    fn timer(self) -> io::Result<Async<OwnedFd>> {
        let id = match self {
            KernelClock::Boot => TimerfdClockId::Boottime,
            KernelClock::Wall => TimerfdClockId::Realtime,
        };
        Async::new_nonblocking(timerfd_create(id, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?)
    }
}

impl State {
    /// Nobody sleeps: no wake-up must come. Gives the driver, to be dropped without the lock.
    fn disarm(&mut self, clock: KernelClock) -> Option<(u64, Task<()>)> {
        if self.armed.take().is_some()
            && let Some(fd) = &self.fd
            && set(fd, clock, Duration::ZERO).is_err()
        {
            // A timer that cannot be stopped is closed.
            self.fd = None;
        }
        self.driver.take()
    }

    /// The timer fired: takes out who is due (or everybody) and sets it again for the next.
    fn fired(&mut self, fd: &Async<OwnedFd>, clock: KernelClock, everybody: bool, broken: bool, number: u64) -> Fired {
        let now = clock.now();
        let mut woken = Vec::new();
        while let Some(first) = self.sleepers.first_entry()
            && (everybody || first.key().due <= now)
        {
            woken.push(first.remove());
        }
        self.armed = None;
        let next = self.sleepers.first_key_value().map(|(place, _)| place.due);
        if let Some(due) = next
            && set(fd, clock, due).is_ok()
        {
            self.armed = Some(due);
            // A driver that was cancelled while it ran leaves the rest to the one that followed it.
            let ended = self.driver.as_ref().is_none_or(|(current, _)| *current != number);
            return Fired { woken, ended, driver: None };
        }
        if next.is_some() || broken {
            // The timer is of no use: everybody looks again, with a new one or another way to wait.
            woken.extend(std::mem::take(&mut self.sleepers).into_values());
            self.fd = None;
        }
        Fired { woken, ended: true, driver: self.disarm(clock) }
    }
}

/// What is to be done without the lock after the timer fired.
struct Fired {
    woken: Vec<Waker>,
    /// Whether the driver that asked ends.
    ended: bool,
    /// The driver that is not needed any more.
    driver: Option<(u64, Task<()>)>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock panics half-way, so a poisoned state is a whole one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the timer and wakes who is due, until nobody sleeps any more or another driver has taken over.
    async fn drive(self: Arc<Self>, fd: Arc<Async<OwnedFd>>, number: u64) {
        loop {
            let broken = fd.readable().await.is_err();
            let cancelled = matches!(rustix::io::read(&fd, &mut [0; 8]), Err(rustix::io::Errno::CANCELED));
            if cancelled {
                self.sets.fetch_add(1, Ordering::SeqCst);
            }
            let Fired { woken, ended, driver } =
                self.lock().fired(&fd, self.clock, cancelled || broken, broken, number);
            match driver {
                // This task's own handle: it ends by itself.
                Some((own, task)) if own == number => task.detach(),
                other => drop(other),
            }
            woken.into_iter().for_each(Waker::wake);
            if ended {
                return;
            }
        }
    }
}

/// Sets the timer to an absolute time; zero stops it.
fn set(fd: &Async<OwnedFd>, clock: KernelClock, due: Duration) -> io::Result<()> {
    let mut flags = TimerfdTimerFlags::ABSTIME;
    if clock == KernelClock::Wall {
        flags |= TimerfdTimerFlags::CANCEL_ON_SET;
    }
    let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
    let value =
        Timespec { tv_sec: i64::try_from(due.as_secs()).unwrap_or(i64::MAX), tv_nsec: due.subsec_nanos().into() };
    match timerfd_settime(fd, flags, &Itimerspec { it_interval: zero, it_value: value }) {
        // The clock was set since the last look: the timer is set nevertheless, and is readable.
        Ok(_) | Err(rustix::io::Errno::CANCELED) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
