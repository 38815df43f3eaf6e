//! The only doors to time, executor, threads and randomness.
//!
//! The core asks a [`World`] and never the operating system: production uses [`World::real`] on the caller's executor,
//! tests use [`sim::Sim`], a seeded single-threaded executor with a virtual clock. A test holds that no other room
//! names `Instant::now`, `SystemTime::now`, `smol::Timer`, `smol::spawn` or `smol::unblock`.

mod real;
pub mod sim;

use std::{
    fmt,
    future::{Future, poll_fn},
    ops::Add,
    pin::Pin,
    sync::Arc,
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

/// A timer that one future owns and sets again and again; dropping it disarms it.
pub trait Alarm: Send {
    /// Ready when `due` has come; else the task is woken when it comes. A different `due` at the next poll replaces this one.
    fn poll(&mut self, cx: &mut Context<'_>, due: Due) -> Poll<()>;
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
    fn block(&self, work: Box<dyn FnOnce() + Send>) -> Task<()>;
    /// Runs a computation that may never end on a thread of the CPU pool; simulated: at once, in place. Returns `false`,
    /// without running it, when all the pool's threads are taken by computations that were abandoned.
    fn compute(&self, work: Box<dyn FnOnce() + Send>) -> bool;
    /// Says that nobody waits for one running computation any more: its thread is counted as lost until it ends.
    fn abandon(&self);
}

/// A cheap handle to the ports.
#[derive(Clone)]
pub struct World(Arc<dyn Ports>);

impl World {
    /// The operating system's clocks, threads and randomness, with tasks on `executor`.
    ///
    /// Whoever makes it must run the executor; nothing is spawned anywhere else.
    pub fn real(executor: Arc<async_executor::Executor<'static>>) -> World {
        World(Arc::new(real::Real::new(executor)))
    }

    /// A world of one's own ports.
    pub fn from_ports(ports: Arc<dyn Ports>) -> World {
        World(ports)
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

    /// Spawns on this world's executor. Dropping the task cancels it.
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) -> Task<()> {
        self.0.spawn(Box::pin(future))
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
    /// Dropping the future does not stop work that has begun: its result is dropped when it ends.
    pub async fn unblock<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, receiver) = async_channel::bounded(1);
        self.0
            .block(Box::new(move || {
                let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
                let _ = sender.try_send(result);
            }))
            .detach();
        match receiver.recv().await {
            Ok(Ok(value)) => value,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(_) => unreachable!("the blocking pool runs what it is given"),
        }
    }

    /// Runs a computation (jq, a template) on the CPU pool and gives its result, or `None` when every thread of the pool
    /// is lost to computations that never ended. A panic in it goes on in the caller.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the computation: its result is ignored, its thread counted as lost until it ends.
    pub async fn compute<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        struct Abandon<'a>(&'a World, bool);
        impl Drop for Abandon<'_> {
            fn drop(&mut self) {
                if self.1 {
                    self.0.0.abandon();
                }
            }
        }
        let (sender, receiver) = async_channel::bounded(1);
        let taken = self.0.compute(Box::new(move || {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            let _ = sender.try_send(result);
        }));
        if !taken {
            return None;
        }
        let mut abandon = Abandon(self, true);
        let result = receiver.recv().await;
        abandon.1 = false;
        match result {
            Ok(Ok(value)) => Some(value),
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(_) => unreachable!("the CPU pool runs what it has taken"),
        }
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("World")
    }
}
