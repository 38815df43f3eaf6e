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

use super::{Task, real::Executor};

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
    executor: Executor,
    shared: Arc<Shared>,
}

/// One place among the sleepers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// The reading of the clock at which the sleeper is woken.
    pub(super) due: Duration,
    number: u64,
    /// How often everybody had been woken when it was taken.
    rouses: usize,
}

/// What the driver shares with the sleepers.
struct Shared {
    clock: KernelClock,
    /// Makes the timerfd, or is refused one.
    make: fn(KernelClock) -> io::Result<Async<OwnedFd>>,
    state: Mutex<State>,
    /// How often the clock was set while somebody slept.
    sets: AtomicUsize,
    /// How often everybody was woken, due or not.
    rouses: AtomicUsize,
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
    pub(super) fn new(clock: KernelClock, executor: Executor) -> Sleepers {
        Sleepers::with(clock, executor, KernelClock::timer)
    }

    /// The same as on a kernel that gives no timerfd.
    #[cfg(test)]
    pub(super) fn refused(clock: KernelClock, executor: Executor) -> Sleepers {
        Sleepers::with(clock, executor, |_| Err(io::ErrorKind::PermissionDenied.into()))
    }

    fn with(clock: KernelClock, executor: Executor, make: fn(KernelClock) -> io::Result<Async<OwnedFd>>) -> Sleepers {
        let shared =
            Shared { clock, make, state: Mutex::default(), sets: AtomicUsize::new(0), rouses: AtomicUsize::new(0) };
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
        let mut roused = Vec::new();
        if state.armed.is_none_or(|armed| due < armed) {
            let clock_set = set(&fd, self.shared.clock, due)?;
            state.armed = Some(due);
            if clock_set {
                self.shared.sets.fetch_add(1, Ordering::SeqCst);
                roused.extend(self.shared.rouse(&mut state).into_values());
                // The step may have come after the caller looked at the clock.
                roused.push(waker.clone());
            }
        }
        let place = Place { due, number: state.next, rouses: self.shared.rouses.load(Ordering::SeqCst) };
        state.next += 1;
        state.sleepers.insert(place, waker);
        if state.driver.is_none() {
            let driver = self.executor.spawn(self.shared.clone().drive(fd, place.number));
            state.driver = Some((place.number, driver));
        }
        drop(state);
        roused.into_iter().for_each(Waker::wake);
        Ok(place)
    }

    /// Whether this place's waker is still to be woken, as long as it is not due.
    pub(super) fn stands(&self, place: Place) -> bool {
        place.rouses == self.shared.rouses.load(Ordering::SeqCst)
    }

    /// What happens when the kernel says that the clock was set.
    #[cfg(test)]
    pub(super) fn clock_set(&self) {
        let (fd, number) = {
            let state = self.shared.lock();
            (state.fd.clone().expect("it is armed"), state.driver.as_ref().expect("it is armed").0)
        };
        let Fired { woken, ended, driver } = self.shared.fired(&fd, number, false, true);
        assert!(ended && driver.is_some());
        woken.into_iter().for_each(Waker::wake);
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

    /// Takes everybody out, to be woken without the lock.
    fn rouse(&self, state: &mut State) -> BTreeMap<Place, Waker> {
        self.rouses.fetch_add(1, Ordering::SeqCst);
        std::mem::take(&mut state.sleepers)
    }

    /// The timer fired: takes out who is due and sets it again for the next; everybody, when the clock was set or the
    /// timer is broken: they look again and find out what to do.
    fn fired(&self, fd: &Async<OwnedFd>, number: u64, broken: bool, clock_set: bool) -> Fired {
        let mut state = self.lock();
        let now = self.clock.now();
        let mut woken = Vec::new();
        while let Some(first) = state.sleepers.first_entry()
            && first.key().due <= now
        {
            woken.push(first.remove());
        }
        state.armed = None;
        let next = state.sleepers.first_key_value().map(|(place, _)| place.due);
        let again = match next {
            Some(due) if !broken && !clock_set => set(fd, self.clock, due).map(|clock_set| (due, clock_set)).ok(),
            _ => None,
        };
        if let Some((due, false)) = again {
            state.armed = Some(due);
            // A driver that was cancelled while it ran leaves the rest to the one that followed it.
            let ended = state.driver.as_ref().is_none_or(|(current, _)| *current != number);
            return Fired { woken, ended, driver: None };
        }
        if clock_set || matches!(again, Some((_, true))) {
            self.sets.fetch_add(1, Ordering::SeqCst);
        } else if broken || next.is_some() {
            state.fd = None;
        }
        woken.extend(self.rouse(&mut state).into_values());
        let driver = state.disarm(self.clock);
        Fired { woken, ended: true, driver }
    }

    /// Waits for the timer and wakes who is due, until nobody sleeps any more or another driver has taken over.
    async fn drive(self: Arc<Self>, fd: Arc<Async<OwnedFd>>, number: u64) {
        loop {
            let broken = fd.readable().await.is_err();
            let clock_set = matches!(rustix::io::read(&fd, &mut [0; 8]), Err(rustix::io::Errno::CANCELED));
            let Fired { woken, ended, driver } = self.fired(&fd, number, broken, clock_set);
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

/// Sets the timer to an absolute time; zero stops it. Says whether the clock was set since the last look: the kernel
/// tells it only once, here or at the next read.
fn set(fd: &Async<OwnedFd>, clock: KernelClock, due: Duration) -> io::Result<bool> {
    let mut flags = TimerfdTimerFlags::ABSTIME;
    if clock == KernelClock::Wall && !due.is_zero() {
        flags |= TimerfdTimerFlags::CANCEL_ON_SET;
    }
    let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
    let value =
        Timespec { tv_sec: i64::try_from(due.as_secs()).unwrap_or(i64::MAX), tv_nsec: due.subsec_nanos().into() };
    match timerfd_settime(fd, flags, &Itimerspec { it_interval: zero, it_value: value }) {
        Ok(_) => Ok(false),
        // The timer is set nevertheless.
        Err(rustix::io::Errno::CANCELED) => Ok(true),
        Err(errno) => Err(errno.into()),
    }
}
