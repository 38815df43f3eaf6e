//! The simulated world: one thread, a seed, virtual clocks.
//!
//! Used by tests (of this crate and of embedders), never by production. Whenever more than one task could run, the seed
//! picks one; when none can, the clocks jump to the next alarm; when there is no alarm either, the run is deadlocked and
//! says so. So a year of nights takes a second, and whatever went wrong goes wrong again with the same seed.
//!
//! Nothing inside may wait for the outside: no other thread, no socket, no real timer. Determinism also ends where
//! something draws from the process: hash order, `async_lock::Mutex` (it reads the clock). `futures_lite::race` draws from
//! fastrand's generator of the thread, which [`Sim::run`] seeds.
//!
//! ```
//! use lamplighter::world::sim::Sim;
//! use std::time::Duration;
//!
//! let sim = Sim::new(42);
//! let world = sim.world();
//! let out = sim.run(async { world.sleep(Duration::from_secs(3600)).await });
//! assert_eq!(out, Ok(()));
//! assert_eq!(sim.elapsed(), Duration::from_secs(3600));
//! assert_eq!(sim.leaked(), 0);
//! ```

use std::{
    any::Any,
    collections::{BTreeMap, VecDeque},
    error::Error,
    fmt,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use async_task::Runnable;
use jiff::Timestamp;

use super::{Alarm, Awake, Boot, BoxFuture, Computation, Due, Ports, Task, WallWake, Withdraw, Work, World};
use crate::limits::SIM_STEPS_MAX;

/// Where the wall clock of a new simulation starts: 2026-11-23T02:30:00Z.
const WALL_START: i64 = 1_795_401_000;
/// Where the other clocks start: apart, so that mixing them up is seen.
const AWAKE_START: Duration = Duration::from_secs(1_000);
/// See [`AWAKE_START`].
const BOOT_START: Duration = Duration::from_secs(2_000);
/// An alarm further away than this never comes (a due time that was cut off at the end of the type).
const HORIZON: Duration = Duration::from_secs(1_000 * 366 * 24 * 3600);

/// A simulation.
pub struct Sim {
    shared: Arc<Shared>,
    seed: u64,
    steps_max: u64,
    /// What happens from outside, and after how many polls.
    outside: Mutex<BTreeMap<u64, Box<dyn FnOnce() + Send>>>,
}

/// Why a simulated run did not come to its end. Every text names the seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stalled {
    /// Nothing can run and no alarm is set, but the main future has not ended.
    Deadlock {
        /// Replays it.
        seed: u64,
        /// The wall clock then.
        at: Timestamp,
        /// Polls until then.
        steps: u64,
        /// Tasks that had not ended, without the main future.
        tasks: usize,
    },
    /// The limit of polls was reached.
    Livelock {
        /// Replays it.
        seed: u64,
        /// The wall clock then.
        at: Timestamp,
        /// Polls until then.
        steps: u64,
    },
}

/// One choice that was made: `taken` of `width` possible ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Which one, from 0.
    pub taken: usize,
    /// How many there were; at least 2.
    pub width: usize,
}

impl Sim {
    /// A simulation whose every choice follows from `seed`.
    pub fn new(seed: u64) -> Sim {
        Sim::with(seed, None)
    }

    /// A simulation whose n-th choice is `choices[n]` (the last possible one where that is too large), and after those
    /// always the task that waits longest. With [`Sim::next_choices`] it visits every order of a small case. Random draws
    /// are those of seed 0.
    pub fn scripted(choices: Vec<usize>) -> Sim {
        Sim::with(0, Some(choices))
    }

    fn with(seed: u64, script: Option<Vec<usize>>) -> Sim {
        let state = State {
            rng: fastrand::Rng::with_seed(seed),
            script,
            choices: Vec::new(),
            trace: 0xcbf2_9ce4_8422_2325,
            steps: 0,
            awake: AWAKE_START,
            boot: BOOT_START,
            wall: WallClock {
                at: Timestamp::from_second(WALL_START).expect("a year jiff knows"),
                when: BOOT_START,
                sets: 0,
            },
            awake_alarms: BTreeMap::new(),
            boot_alarms: BTreeMap::new(),
            wall_waits: BTreeMap::new(),
            next: 0,
            computations: BTreeMap::new(),
            endless: 0,
            hanging: (0, None),
            cpu_lost: false,
            leaked: 0,
        };
        let shared = Shared {
            ready: Mutex::default(),
            alive: Mutex::default(),
            closed: AtomicBool::new(false),
            state: Mutex::new(state),
        };
        Sim { shared: Arc::new(shared), seed, steps_max: SIM_STEPS_MAX, outside: Mutex::default() }
    }

    /// Ends each run after this many polls with [`Stalled::Livelock`]. It also serves as a crash at any poll.
    pub fn step_limit(mut self, polls: u64) -> Sim {
        self.steps_max = polls;
        self
    }

    /// The machine has been up for so long when this begins.
    pub fn up_for(self, duration: Duration) -> Sim {
        let mut state = self.shared.state();
        state.boot = duration;
        state.wall.when = duration;
        drop(state);
        self
    }

    /// Calls `act` once a run has had so many polls, before the next one: what comes from outside comes at any poll. One for
    /// each number of polls.
    pub fn at_poll(self, polls: u64, act: impl FnOnce() + Send + 'static) -> Sim {
        self.act_at(polls, act);
        self
    }

    /// As [`Sim::at_poll`], of a simulation that is there.
    pub fn act_at(&self, polls: u64, act: impl FnOnce() + Send + 'static) {
        lock(&self.outside).insert(polls, Box::new(act));
    }

    /// A handle to this world, for the code under test.
    pub fn world(&self) -> World {
        World::from_ports(Arc::new(SimWorld(self.shared.clone())))
    }

    /// Runs `main` to its end, and with it all tasks that are spawned on this world.
    ///
    /// When `main` has ended, what can still run without the clocks moving runs (so that cancelled tasks are dropped);
    /// what is left then is counted as [`Sim::leaked`] and dropped. Clocks, trace and counters go on in a further run.
    ///
    /// # Errors
    /// See [`Stalled`].
    ///
    /// # Panics
    /// With the panic of `main` or of a task, the seed before it. When called from inside a run.
    pub fn run<T>(&self, main: impl Future<Output = T>) -> Result<T, Stalled> {
        fastrand::seed(self.seed);
        let mut main = Box::pin(main);
        let outcome = catch_unwind(AssertUnwindSafe(|| self.drive(main.as_mut())));
        self.shared.state().leaked = self.shared.alive().len();
        let ended = catch_unwind(AssertUnwindSafe(|| {
            drop(main);
            self.shared.clear();
        }));
        match (outcome, ended) {
            (Err(panic), _) | (Ok(_), Err(panic)) => self.panicked(panic),
            (Ok(outcome), Ok(())) => outcome,
        }
    }

    /// True when it was made by [`Sim::scripted`].
    pub fn is_scripted(&self) -> bool {
        self.shared.state().script.is_some()
    }

    /// Tasks that had neither ended nor been cancelled when the last run ended.
    pub fn leaked(&self) -> usize {
        self.shared.state().leaked
    }

    /// Polls so far.
    pub fn steps(&self) -> u64 {
        self.shared.state().steps
    }

    /// How far the awake clock has moved.
    pub fn elapsed(&self) -> Duration {
        self.shared.state().awake - AWAKE_START
    }

    /// A hash of every choice, every random draw and every move of the clocks. The same for the same seed and code: a
    /// test that finds two traces of one seed has found something that is not deterministic.
    pub fn trace(&self) -> u64 {
        self.shared.state().trace
    }

    /// The choices made so far, where there was more than one possibility. Recorded by [`Sim::scripted`] only.
    pub fn choices(&self) -> Vec<Choice> {
        self.shared.state().choices.clone()
    }

    /// What to give to [`Sim::scripted`] next, after this simulation's choices, to visit every order of the first `depth`
    /// choices; `None` after the last.
    pub fn next_choices(&self, depth: usize) -> Option<Vec<usize>> {
        let mut choices = self.choices();
        choices.truncate(depth);
        while let Some(last) = choices.last_mut() {
            if last.taken + 1 < last.width {
                last.taken += 1;
                return Some(choices.iter().map(|choice| choice.taken).collect());
            }
            choices.pop();
        }
        None
    }

    /// The machine sleeps: boot and wall clock move on, the awake clock stands still.
    pub fn suspend(&self, duration: Duration) {
        let mut state = self.shared.state();
        state.boot = state.boot.saturating_add(duration);
        // The kernel tells sleepers on the wall clock of a resume as of a clock that was set.
        let mut woken = state.due();
        woken.extend(std::mem::take(&mut state.wall_waits).into_values());
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Sets the wall clock; the others do not move.
    pub fn set_wall(&self, at: Timestamp) {
        let mut state = self.shared.state();
        state.wall = WallClock { at, when: state.boot, sets: state.wall.sets + 1 };
        let woken = std::mem::take(&mut state.wall_waits);
        drop(state);
        woken.into_values().for_each(Waker::wake);
    }

    /// The next `count` pieces of blocking work hang, as on a mount that does not answer, until what this gives is dropped.
    pub fn hang_blocking(&self, count: usize) -> async_channel::Sender<()> {
        let (sender, hangs) = async_channel::bounded(1);
        self.shared.state().hanging = (count, Some(hangs));
        sender
    }

    /// The next `count` computations never end; they hold no thread of the pool (see [`Sim::lose_cpu`]).
    pub fn compute_endlessly(&self, count: usize) {
        self.shared.state().endless = count;
    }

    /// While `lost`, computations are refused as if every thread of the pool were lost.
    pub fn lose_cpu(&self, lost: bool) {
        self.shared.state().cpu_lost = lost;
    }

    /// Polls what can run, moves the clocks when nothing can, until `main` has ended.
    fn drive<T>(&self, mut main: Pin<&mut (impl Future<Output = T> + ?Sized)>) -> Result<T, Stalled> {
        let shared = &self.shared;
        let own = Arc::new(MainWaker { shared: shared.clone(), queued: AtomicBool::new(false) });
        let waker = Waker::from(own.clone());
        waker.wake_by_ref();
        let began = self.steps();
        let mut value = None;
        loop {
            if self.steps() - began >= self.steps_max {
                let (at, steps) = self.now();
                return value.ok_or(Stalled::Livelock { seed: self.seed, at, steps });
            }
            let act = lock(&self.outside).remove(&(self.steps() - began));
            if let Some(act) = act {
                act();
            }
            match shared.pick() {
                Some(Ready::Main) => {
                    own.queued.store(false, Ordering::SeqCst);
                    if value.is_none()
                        && let Poll::Ready(result) = main.as_mut().poll(&mut Context::from_waker(&waker))
                    {
                        value = Some(result);
                    }
                }
                Some(Ready::Task(task)) => {
                    task.run();
                }
                None => {
                    if let Some(value) = value {
                        return Ok(value);
                    }
                    let woken = shared.state().advance();
                    if woken.is_empty() {
                        let (at, steps) = self.now();
                        let tasks = shared.alive().len();
                        return Err(Stalled::Deadlock { seed: self.seed, at, steps, tasks });
                    }
                    woken.into_iter().for_each(Waker::wake);
                }
            }
        }
    }

    fn now(&self) -> (Timestamp, u64) {
        let state = self.shared.state();
        (state.wall_now(), state.steps)
    }

    /// Goes on with a panic, the seed before its text.
    fn panicked(&self, payload: Box<dyn Any + Send>) -> ! {
        let text = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
            (Some(text), _) => (*text).to_owned(),
            (_, Some(text)) => text.clone(),
            _ => resume_unwind(payload),
        };
        let (at, steps) = self.now();
        panic!("seed {}: {text} (at step {steps}, {at})", self.seed);
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        // Tasks that were spawned outside a run. From now on nothing is queued any more.
        self.shared.clear();
        self.shared.closed.store(true, Ordering::SeqCst);
    }
}

impl fmt::Debug for Sim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sim").field("seed", &self.seed).finish_non_exhaustive()
    }
}

impl fmt::Display for Stalled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stalled::Deadlock { seed, at, steps, tasks } => write!(
                f,
                "seed {seed}: deadlock at {at} after {steps} steps: the main future and {tasks} tasks wait, nothing can \
                 run and no alarm is set"
            ),
            Stalled::Livelock { seed, at, steps } => {
                write!(f, "seed {seed}: not done at {at} after {steps} steps, the limit of this simulation")
            }
        }
    }
}

impl Error for Stalled {}

/// What tasks, alarms and the driver share. Locks: `ready` and `alive` are taken by wakers, so no waker is woken or dropped
/// under any lock; `state` is never taken together with another.
struct Shared {
    ready: Mutex<VecDeque<Ready>>,
    /// Tasks that have not ended, to find what was left over.
    alive: Mutex<BTreeMap<u64, Waker>>,
    /// The simulation is gone: what becomes ready is dropped.
    closed: AtomicBool,
    state: Mutex<State>,
}

/// Something that can be polled.
enum Ready {
    Main,
    Task(Runnable),
}

struct State {
    rng: fastrand::Rng,
    script: Option<Vec<usize>>,
    choices: Vec<Choice>,
    trace: u64,
    steps: u64,
    awake: Duration,
    boot: Duration,
    wall: WallClock,
    awake_alarms: BTreeMap<(Duration, u64), Waker>,
    boot_alarms: BTreeMap<(Duration, u64), Waker>,
    /// Who must hear of a wall clock that is set.
    wall_waits: BTreeMap<u64, Waker>,
    next: u64,
    computations: BTreeMap<u64, Task<()>>,
    endless: usize,
    /// So many more pieces of blocking work hang, until this says otherwise.
    hanging: (usize, Option<async_channel::Receiver<()>>),
    cpu_lost: bool,
    leaked: usize,
}

/// The wall clock read `at` when the boot clock read `when`.
#[derive(Clone, Copy)]
struct WallClock {
    at: Timestamp,
    when: Duration,
    sets: u64,
}

impl State {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn mix(&mut self, value: u64) {
        self.trace = (self.trace.rotate_left(5) ^ value).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn choose(&mut self, width: usize) -> usize {
        if width < 2 {
            return 0;
        }
        let taken = match &self.script {
            Some(script) => {
                let taken = script.get(self.choices.len()).copied().unwrap_or(0).min(width - 1);
                self.choices.push(Choice { taken, width });
                taken
            }
            // The same on processors of 32 bits, where a `usize` is drawn otherwise.
            None => self.rng.u64(..width as u64) as usize,
        };
        self.mix(width as u64);
        self.mix(taken as u64);
        taken
    }

    fn wall_now(&self) -> Timestamp {
        self.wall.at.checked_add(self.boot.saturating_sub(self.wall.when)).unwrap_or(Timestamp::MAX)
    }

    /// Moves the clocks to the next alarm and gives who is due then; nobody when no alarm is set.
    fn advance(&mut self) -> Vec<Waker> {
        let awake = self.awake_alarms.first_key_value().map(|((due, _), _)| due.saturating_sub(self.awake));
        let boot = self.boot_alarms.first_key_value().map(|((due, _), _)| due.saturating_sub(self.boot));
        match awake.into_iter().chain(boot).min() {
            Some(step) if step <= HORIZON => {
                self.awake = self.awake.saturating_add(step);
                self.boot = self.boot.saturating_add(step);
                self.mix(step.as_secs());
                self.mix(step.subsec_nanos().into());
                self.due()
            }
            _ => Vec::new(),
        }
    }

    /// Takes out everybody who is due now.
    fn due(&mut self) -> Vec<Waker> {
        let mut woken = Vec::new();
        for (alarms, now) in [(&mut self.awake_alarms, self.awake), (&mut self.boot_alarms, self.boot)] {
            while let Some(first) = alarms.first_entry()
                && first.key().0 <= now
            {
                woken.push(first.remove());
            }
        }
        woken
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn alive(&self) -> MutexGuard<'_, BTreeMap<u64, Waker>> {
        lock(&self.alive)
    }

    fn push(&self, ready: Ready) {
        // Who wakes may hold a lock that the future takes when it is dropped: while a run ends `clear` drops it.
        if !self.closed.load(Ordering::SeqCst) {
            lock(&self.ready).push_back(ready);
        }
    }

    /// Takes one of those that can run.
    fn pick(&self) -> Option<Ready> {
        let width = lock(&self.ready).len();
        if width == 0 {
            return None;
        }
        let mut state = self.state();
        let taken = state.choose(width);
        state.steps += 1;
        drop(state);
        lock(&self.ready).remove(taken)
    }

    fn spawn(self: &Arc<Self>, future: BoxFuture<'static, ()>) -> Task<()> {
        /// Counts the task out when its future is dropped, done or not.
        struct Alive(Arc<Shared>, u64);
        impl Drop for Alive {
            fn drop(&mut self) {
                let waker = self.0.alive().remove(&self.1);
                drop(waker);
            }
        }
        let number = self.state().number();
        let alive = Alive(self.clone(), number);
        let shared = self.clone();
        let (runnable, task) = async_task::spawn(
            async move {
                let _alive = alive;
                future.await;
            },
            move |runnable| shared.push(Ready::Task(runnable)),
        );
        self.alive().insert(number, runnable.waker());
        runnable.schedule();
        task
    }

    /// Drops every task, and what it held.
    fn clear(&self) {
        loop {
            let ready = std::mem::take(&mut *lock(&self.ready));
            let alive = std::mem::take(&mut *self.alive());
            let mut state = self.state();
            let alarms = (std::mem::take(&mut state.awake_alarms), std::mem::take(&mut state.boot_alarms));
            let rest = (std::mem::take(&mut state.wall_waits), std::mem::take(&mut state.computations));
            drop(state);
            if ready.is_empty() && alive.is_empty() && rest.1.is_empty() {
                return;
            }
            drop(ready);
            // A woken task is pushed, and dropped by the next turn.
            alive.into_values().for_each(Waker::wake);
            drop((alarms, rest));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Wakes the main future, which is polled in place.
struct MainWaker {
    shared: Arc<Shared>,
    queued: AtomicBool,
}

impl Wake for MainWaker {
    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Ordering::SeqCst) {
            self.shared.push(Ready::Main);
        }
    }
}

/// The ports of a simulation.
struct SimWorld(Arc<Shared>);

impl Ports for SimWorld {
    fn wall(&self) -> Timestamp {
        self.0.state().wall_now()
    }

    fn awake(&self) -> Awake {
        Awake(self.0.state().awake)
    }

    fn boot(&self) -> Boot {
        Boot(self.0.state().boot)
    }

    fn alarm(&self) -> Box<dyn Alarm> {
        Box::new(SimAlarm { shared: self.0.clone(), armed: None })
    }

    fn spawn(&self, future: BoxFuture<'static, ()>) -> Task<()> {
        self.0.spawn(future)
    }

    fn random(&self) -> u64 {
        let mut state = self.0.state();
        let drawn = state.rng.u64(..);
        state.mix(drawn);
        drawn
    }

    fn block(&self, work: Box<dyn FnOnce() + Send>) -> Withdraw {
        let hangs = {
            let mut state = self.0.state();
            let hangs = state.hanging.1.clone().filter(|_| state.hanging.0 > 0);
            state.hanging.0 -= usize::from(hangs.is_some());
            hangs
        };
        let task = self.0.spawn(Box::pin(async move {
            if let Some(hangs) = hangs {
                let _ = hangs.recv().await;
            }
            work();
        }));
        Withdraw::new(move || drop(task))
    }

    fn until_wall(&self, due: Timestamp) -> BoxFuture<'static, WallWake> {
        Box::pin(until_wall(self.0.clone(), due))
    }

    fn compute(&self, work: Work) -> Result<Computation, Option<Work>> {
        let (id, endless) = {
            let mut state = self.0.state();
            if state.cpu_lost {
                return Err(None);
            }
            let endless = state.endless > 0;
            state.endless -= usize::from(endless);
            (state.number(), endless)
        };
        let shared = self.0.clone();
        let task = self.0.spawn(Box::pin(async move {
            if endless {
                std::future::pending::<()>().await;
            }
            work();
            // Its own handle: nothing is left to cancel.
            let own = shared.state().computations.remove(&id);
            if let Some(own) = own {
                own.detach();
            }
        }));
        self.0.state().computations.insert(id, task);
        Ok(Computation(id))
    }

    fn abandon(&self, Computation(id): Computation) {
        let task = self.0.state().computations.remove(&id);
        drop(task);
    }

    fn degraded(&self) -> bool {
        self.0.state().cpu_lost
    }
}

struct SimAlarm {
    shared: Arc<Shared>,
    armed: Option<(Due, u64)>,
}

impl Alarm for SimAlarm {
    fn poll(&mut self, cx: &mut Context<'_>, due: Due) -> Poll<()> {
        let mut state = self.shared.state();
        let old = self.armed.take().and_then(|(due, number)| match due {
            Due::Awake(due) => state.awake_alarms.remove(&(due.0, number)),
            Due::Boot(due) => state.boot_alarms.remove(&(due.0, number)),
        });
        let come = match due {
            Due::Awake(due) => state.awake >= due.0,
            Due::Boot(due) => state.boot >= due.0,
        };
        if !come {
            let number = state.number();
            match due {
                Due::Awake(due) => state.awake_alarms.insert((due.0, number), cx.waker().clone()),
                Due::Boot(due) => state.boot_alarms.insert((due.0, number), cx.waker().clone()),
            };
            self.armed = Some((due, number));
        }
        drop(state);
        drop(old);
        if come { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for SimAlarm {
    fn drop(&mut self) {
        if let Some((due, number)) = self.armed.take() {
            let mut state = self.shared.state();
            let waker = match due {
                Due::Awake(due) => state.awake_alarms.remove(&(due.0, number)),
                Due::Boot(due) => state.boot_alarms.remove(&(due.0, number)),
            };
            drop(state);
            drop(waker);
        }
    }
}

/// See [`World::until_wall`]. The wall clock moves with the boot clock, so the wait is one on that, or for it to be set.
async fn until_wall(shared: Arc<Shared>, due: Timestamp) -> WallWake {
    /// Takes the waker out when the future is dropped.
    struct Waits(Arc<Shared>, u64);
    impl Drop for Waits {
        fn drop(&mut self) {
            let waker = self.0.state().wall_waits.remove(&self.1);
            drop(waker);
        }
    }
    let (number, sets) = {
        let mut state = shared.state();
        (state.number(), state.wall.sets)
    };
    let waits = Waits(shared.clone(), number);
    let mut alarm = SimAlarm { shared, armed: None };
    poll_fn(|cx| {
        let (left, boot, set) = {
            let state = waits.0.state();
            (due.duration_since(state.wall_now()), state.boot, state.wall.sets != sets)
        };
        let Some(left) = Duration::try_from(left).ok().filter(|left| !left.is_zero()) else {
            return Poll::Ready(WallWake::Reached);
        };
        if set {
            return Poll::Ready(WallWake::ClockSet);
        }
        let old = waits.0.state().wall_waits.insert(number, cx.waker().clone());
        drop(old);
        alarm.poll(cx, Due::Boot(Boot(boot.saturating_add(left)))).map(|()| WallWake::Reached)
    })
    .await
}
