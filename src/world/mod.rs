//! The only doors to time, executor, threads and randomness.
//!
//! The core asks a [`World`] and never the operating system: production uses [`World::real`] on the caller's executor,
//! tests use [`sim::Sim`], a seeded single-threaded executor with a virtual clock. A test holds that no other room
//! names `Instant::now`, `SystemTime::now`, `smol::Timer`, `smol::spawn` or `smol::unblock`.
//!
//! The files: `real` (the operating system), `answer` (a result on its way from a pool), `timerfd` (its sleepers on the kernel's timers), `threads` (pools
//! for computations that may never end and for blocking calls), `names` (names that outlive a power cut), `sim` (the simulated
//! world), `plant` (mistakes that our own tests plant), `failpoint` (points at which they let a process die), `tests` (one
//! contract, held against both worlds).

mod answer;
mod names;
#[macro_use]
pub mod plant;
pub mod failpoint;
mod real;
pub mod sim;
#[cfg(test)]
mod tests;
mod threads;
mod timerfd;

pub use names::sync_above;

use crate::limits::{SCARCE_TRIES, SCARCE_WAIT, SCARCE_WAIT_MAX};
use event_listener::Event;
use std::{
    fmt,
    future::{Future, poll_fn},
    ops::Add,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

/// A boxed future that may move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A spawned task: awaiting it joins, dropping it cancels. Its future never panics outwards (callers fence panics).
pub type Task<T> = async_task::Task<T>;

/// A reading of the clock that stands still while the machine sleeps (CLOCK_MONOTONIC): timeouts and backoff.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Awake(pub Duration);

/// A reading of the clock that goes on while the machine sleeps (CLOCK_BOOTTIME): deadlines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Boot(pub Duration);

/// One of the two monotonic clocks, with a reading of it: what an [`Alarm`] waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// See [`Awake`].
    Awake(Awake),
    /// See [`Boot`].
    Boot(Boot),
}

impl Add<Duration> for Awake {
    type Output = Awake;
    fn add(self, duration: Duration) -> Awake {
        Awake(self.0.saturating_add(duration))
    }
}

impl Add<Duration> for Boot {
    type Output = Boot;
    fn add(self, duration: Duration) -> Boot {
        Boot(self.0.saturating_add(duration))
    }
}

impl Awake {
    /// How long after `earlier` this is; zero when it is not.
    pub fn since(self, earlier: Awake) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Boot {
    /// How long after `earlier` this is; zero when it is not.
    pub fn since(self, earlier: Boot) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// Why [`World::until_wall`] came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WallWake {
    /// The wall clock reads the due time or later.
    Reached,
    /// Somebody set the wall clock (or the machine came back from suspend) and the due time is still ahead: plan anew.
    ClockSet,
}

/// Names one computation that [`Ports::compute`] has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Computation(pub u64);

/// A timer that one future owns and sets again and again; dropping it disarms it.
pub trait Alarm: Send {
    /// Ready when `due` has come; else the task is woken when it comes. A different `due` at the next poll replaces this one.
    fn poll(&mut self, cx: &mut Context<'_>, due: Due) -> Poll<()>;
}

/// Blocking work that was handed over. Dropping it says that nobody waits for it any more: it does not begin, or if it has
/// begun its thread is replaced until it ends.
pub struct Withdraw(Option<Box<dyn FnOnce() + Send>>);

impl Withdraw {
    /// `withdraw` runs at most once.
    pub fn new(withdraw: impl FnOnce() + Send + 'static) -> Withdraw {
        Withdraw(Some(Box::new(withdraw)))
    }

    /// The work has ended: there is nothing to withdraw.
    pub fn forget(&mut self) {
        self.0 = None;
    }
}

impl Drop for Withdraw {
    fn drop(&mut self) {
        if let Some(withdraw) = self.0.take() {
            withdraw();
        }
    }
}

/// What a world is made of. Implemented by the real world and by the simulated one.
pub trait Ports: Send + Sync + 'static {
    /// The wall clock, UTC.
    fn wall(&self) -> jiff::Timestamp;
    /// The awake clock, since an arbitrary start.
    fn awake(&self) -> Awake;
    /// The boot clock, since an arbitrary start.
    fn boot(&self) -> Boot;
    /// A disarmed timer.
    fn alarm(&self) -> Box<dyn Alarm>;
    /// Spawns on the executor that this world was made with.
    fn spawn(&self, future: BoxFuture<'static, ()>) -> Task<()>;
    /// 64 random bits.
    fn random(&self) -> u64;
    /// Runs blocking work (files, name look-ups, spawning a child) on the small blocking pool; simulated: at once, in place.
    fn block(&self, work: Box<dyn FnOnce() + Send>) -> Withdraw;
    /// Ready when the wall clock reads `due`, or when it was set while this waited.
    fn until_wall(&self, due: jiff::Timestamp) -> BoxFuture<'static, WallWake>;
    /// Runs a computation that may never end on a thread of the CPU pool; simulated: at once, in place. An error, without
    /// running it, when all the pool's threads are taken by computations that were abandoned, or not one can be had: then it
    /// is given back. Work that was taken may still be dropped without being run, when the last thread is lost while it waits
    /// in the queue.
    fn compute(&self, work: Work) -> Result<Computation, Option<Work>>;
    /// Says that nobody waits for this computation any more. One that has not begun is dropped and never runs; the thread
    /// of one that runs is counted as lost until it ends; one that has ended is left alone.
    fn abandon(&self, computation: Computation);
    /// A running computation begins (`true`) or ends to wait for others: meanwhile another thread of the CPU pool may be
    /// started in its place. Simulated: nothing.
    fn waiting(&self, begins: bool) {
        let _ = begins;
    }
    /// Whether so many threads of the CPU pool are lost that no more are replaced.
    fn degraded(&self) -> bool;
}

/// What a thread is given.
type Work = Box<dyn FnOnce() + Send>;

/// A cheap handle to the ports.
#[derive(Clone)]
pub struct World(Arc<dyn Ports>, Arc<Live>);

/// Tasks and blocking work that were begun and have not ended, and those who wait for the last of them.
#[derive(Default)]
struct Live {
    count: AtomicUsize,
    ended: Event,
}

/// One of them. Dropped with it, run or not.
struct Begun(Arc<Live>);

impl Begun {
    fn new(live: &Arc<Live>) -> Begun {
        live.count.fetch_add(1, Ordering::AcqRel);
        Begun(live.clone())
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.ended.notify(usize::MAX);
        }
    }
}

impl World {
    /// The operating system's clocks, threads and randomness, with tasks on `executor`.
    ///
    /// Whoever makes it must keep the executor and run it; nothing is spawned anywhere else. When the caller's last handle of
    /// the executor is dropped, its tasks are dropped with it, and their processes killed.
    pub fn real(executor: Arc<async_executor::Executor<'static>>) -> World {
        World(Arc::new(real::Real::new(&executor)), Arc::default())
    }

    /// A world of one's own ports.
    pub fn from_ports(ports: Arc<dyn Ports>) -> World {
        World(ports, Arc::default())
    }

    /// The wall clock, UTC.
    pub fn wall(&self) -> jiff::Timestamp {
        self.0.wall()
    }

    /// See [`Awake`].
    pub fn awake(&self) -> Awake {
        self.0.awake()
    }

    /// See [`Boot`].
    pub fn boot(&self) -> Boot {
        self.0.boot()
    }

    /// A disarmed timer.
    pub fn alarm(&self) -> Box<dyn Alarm> {
        self.0.alarm()
    }

    /// Waits `duration` on the awake clock.
    ///
    /// # Cancel safety
    /// Dropping the future disarms the timer; nothing else happens.
    pub async fn sleep(&self, duration: Duration) {
        self.until(Due::Awake(self.awake() + duration)).await;
    }

    /// Waits until `due`.
    ///
    /// # Cancel safety
    /// As [`World::sleep`].
    pub async fn until(&self, due: Due) {
        let mut alarm = self.alarm();
        poll_fn(|cx| alarm.poll(cx, due)).await;
    }

    /// The same world, which knows of its own tasks and blocking work only: for one run.
    pub fn fork(&self) -> World {
        World(self.0.clone(), Arc::default())
    }

    /// Returns when no task and no blocking work of this world and its clones is left, waited for or not: no file that
    /// they have opened is open then, and no temporary one there. Not to be awaited in a task of this world.
    ///
    /// # Cancel safety
    /// May be dropped at any time.
    pub async fn idle(&self) {
        loop {
            let listener = self.1.ended.listen();
            if self.1.count.load(Ordering::Acquire) == 0 {
                return;
            }
            listener.await;
        }
    }

    /// Spawns on this world's executor. Dropping the task cancels it.
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) -> Task<()> {
        let begun = Begun::new(&self.1);
        self.0.spawn(Box::pin(async move {
            let _begun = begun;
            future.await;
        }))
    }

    /// 64 random bits.
    pub fn random(&self) -> u64 {
        self.0.random()
    }

    /// A random number in [0, 1).
    pub fn random_unit(&self) -> f64 {
        (self.random() >> 11) as f64 / 9_007_199_254_740_992.0
    }

    /// Runs blocking work on the blocking pool and gives its result; a panic in it goes on in the caller.
    ///
    /// # Cancel safety
    /// Dropping the future does not stop work that has begun: its result is dropped when it ends. Work that still waits
    /// for a thread of the pool is dropped and never runs.
    pub async fn unblock<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (giver, taker) = answer::answer();
        let begun = Begun::new(&self.1);
        // Held until the result is there: dropping it takes work that has not begun out of the pool's queue.
        let mut withdraw = self.0.block(Box::new(move || {
            let _begun = begun;
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            // When nobody waits any more the result is dropped here.
            giver.give(result);
        }));
        let result = taker.take().await;
        withdraw.forget();
        match result {
            Some(Ok(value)) => value,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => unreachable!("the blocking pool runs what it is given"),
        }
    }

    /// Waits until the wall clock reads `due`; comes back at once when it already does.
    ///
    /// It also comes back when the wall clock is set meanwhile and `due` is still ahead, so that the caller plans anew.
    /// A step of the clock while nobody waits is not told.
    ///
    /// # Cancel safety
    /// Dropping the future disarms the timer; nothing else happens.
    pub async fn until_wall(&self, due: jiff::Timestamp) -> WallWake {
        self.0.until_wall(due).await
    }

    /// From inside a computation of the CPU pool: waits for others by `wait`, which blocks. Another thread takes the place
    /// meanwhile, so that those who are waited for can compute.
    pub fn waiting<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.0.waiting(true);
        let result = wait();
        self.0.waiting(false);
        result
    }

    /// Runs a computation (jq, a template) on the CPU pool and gives its result, or `None` when every thread of the pool
    /// is lost to computations that never ended. Where the system refuses a thread for now it is asked again, as for a child.
    /// A panic in it goes on in the caller.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the computation: one that has not begun never runs; the result of one that runs is
    /// ignored, its thread counted as lost until it ends.
    pub async fn compute<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (giver, taker) = answer::answer();
        let mut submitted = self.0.compute(Box::new(move || {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            giver.give(result);
        }));
        let (mut tries, mut wait) = (0, SCARCE_WAIT);
        let computation = loop {
            match submitted {
                Ok(computation) => break computation,
                Err(Some(work)) if !self.degraded() && tries < SCARCE_TRIES => {
                    self.sleep(wait).await;
                    (tries, wait) = (tries + 1, (wait * 2).min(SCARCE_WAIT_MAX));
                    submitted = self.0.compute(work);
                }
                Err(_) => return None,
            }
        };
        let mut waiting = Waiting { ports: &*self.0, computation, taker, answered: false };
        let answer = waiting.taker.take().await;
        waiting.answered = true;
        match answer {
            Some(Ok(value)) => Some(value),
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            // The last healthy thread was lost while the work waited in the queue.
            None => None,
        }
    }

    /// Whether the process should be started anew when it is next idle: as many threads of the CPU pool are lost to
    /// computations that never ended as may be replaced (the pool's size - 1). It ends when such a computation ends.
    pub fn degraded(&self) -> bool {
        self.0.degraded()
    }
}

/// Somebody waits for the result of a computation; dropped before the result is there, it abandons the computation.
struct Waiting<'a, T> {
    ports: &'a dyn Ports,
    computation: Computation,
    taker: answer::Taker<T>,
    answered: bool,
}

impl<T> Drop for Waiting<'_, T> {
    fn drop(&mut self) {
        if !self.answered && self.taker.is_empty() {
            self.ports.abandon(self.computation);
        }
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("World")
    }
}
