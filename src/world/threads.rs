//! Threads for what would hold up the executor: computations that may never end (jq, templates) in one pool, blocking calls
//! (files, name look-ups, starting a child) in another.
//!
//! Used by the real world only. At most `size` computations that somebody waits for run at a time; what comes on top
//! waits in a queue, first come, first served. The queue has no limit of its own: each entry has a caller that waits for
//! it, and a caller that goes away takes its entry with it, so it is never longer than what the callers have in flight.
//!
//! A running computation that its caller gave up cannot be stopped: its thread is *lost* until it ends. For the first
//! `size - 1` lost threads others are started in their place; further ones make the pool smaller, and when none is left
//! work is refused until a lost computation ends (in the pool of blocking calls it waits). So there are never more than
//! `2 * size - 1` threads, and one more for each computation that waits for others instead of computing.
//!
//! Threads are started on demand and end when idle. Nothing here joins a thread: a lost one might never end.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{Computation, Work};
use crate::limits::POOL_STACK_BYTES;

/// The pool; dropping it drops what waits and lets the threads end after what they run.
pub(super) struct ThreadPool {
    shared: Arc<Shared>,
}

struct Shared {
    name: &'static str,
    size: usize,
    /// What is asked for while every thread is lost is refused; else it waits for a thread that comes back.
    refuses: bool,
    idle_end: Duration,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    /// By number, so that the smallest is the oldest.
    queue: BTreeMap<u64, Work>,
    /// What runs, and whether it was abandoned.
    running: BTreeMap<u64, bool>,
    /// Threads that exist, lost ones too.
    threads: usize,
    /// Threads that wait for work, also those that were told of some and did not wake up yet.
    idle: usize,
    /// Entries of `running` that were abandoned.
    lost: usize,
    /// Entries of `running` that wait for others instead of computing.
    waiting: usize,
    next: u64,
    closed: bool,
}

impl ThreadPool {
    /// A pool without threads yet; `size` computations run at a time, a thread ends after `idle_end` without work.
    pub(super) fn new(name: &'static str, size: usize, idle_end: Duration) -> ThreadPool {
        let (state, wake) = (Mutex::default(), Condvar::new());
        ThreadPool { shared: Arc::new(Shared { name, size: size.max(1), refuses: true, idle_end, state, wake }) }
    }

    /// The same for work that ends at some time, whoever waits for it: it is never refused.
    pub(super) fn patient(name: &'static str, size: usize, idle_end: Duration) -> ThreadPool {
        let (state, wake) = (Mutex::default(), Condvar::new());
        ThreadPool { shared: Arc::new(Shared { name, size: size.max(1), refuses: false, idle_end, state, wake }) }
    }

    /// Queues `work`. Given back when every thread is lost and no further one may be started, or none can be for now; in
    /// the pool of blocking calls it is done here then, and nothing is given back.
    pub(super) fn submit(&self, work: Work) -> Result<Computation, Option<Work>> {
        let mut state = self.shared.lock();
        let id = state.next;
        state.next += 1;
        state.queue.insert(id, work);
        self.shared.staff(&mut state);
        let stuck = if self.shared.refuses { state.healthy() == 0 } else { state.threads == 0 };
        let refused = if stuck { state.queue.remove(&id) } else { None };
        // Who works looks into the queue before it sleeps.
        let wakes = state.idle > 0;
        drop(state);
        if let Some(work) = refused {
            if self.shared.refuses {
                return Err(Some(work));
            }
            // Not one thread can be had: better late here than never.
            work();
            return Err(None);
        }
        if wakes {
            self.shared.wake.notify_one();
        }
        Ok(Computation(id))
    }

    /// See [`super::Ports::abandon`].
    pub(super) fn abandon(&self, Computation(id): Computation) {
        let mut state = self.shared.lock();
        // What is dropped may be anything that a caller put into its closure: never under the lock.
        let mut dropped = BTreeMap::new();
        if let Some(work) = state.queue.remove(&id) {
            dropped.insert(id, work);
        } else if let Some(lost @ false) = state.running.get_mut(&id) {
            *lost = true;
            state.lost += 1;
            self.shared.staff(&mut state);
            if self.shared.refuses && state.healthy() == 0 {
                // Nobody is left to run it: its callers must hear that now, not at their deadlines.
                dropped = std::mem::take(&mut state.queue);
            }
        }
        drop(state);
        drop(dropped);
    }

    /// See [`super::Ports::waiting`].
    pub(super) fn waiting(&self, begins: bool) {
        let mut state = self.shared.lock();
        match begins {
            true => {
                state.waiting += 1;
                self.shared.staff(&mut state);
            }
            // A thread too many ends after what it runs.
            false => state.waiting = state.waiting.saturating_sub(1),
        }
    }

    /// See [`super::World::degraded`].
    pub(super) fn degraded(&self) -> bool {
        self.shared.lock().lost >= (self.shared.size - 1).max(1)
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closed = true;
        let queue = std::mem::take(&mut state.queue);
        drop(state);
        drop(queue);
        self.shared.wake.notify_all();
    }
}

impl State {
    /// Threads that are not lost.
    fn healthy(&self) -> usize {
        self.threads - self.lost
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock panics half-way, so a poisoned state is a whole one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Most threads that may exist now.
    fn threads_max(&self, state: &State) -> usize {
        self.size + state.lost.min(self.size - 1) + state.waiting
    }

    /// Starts a thread when more waits than idle threads can take, and one more may exist.
    fn staff(self: &Arc<Self>, state: &mut State) {
        if state.queue.len() <= state.idle || state.threads >= self.threads_max(state) {
            return;
        }
        let shared = self.clone();
        let builder = std::thread::Builder::new().name(self.name.to_owned()).stack_size(POOL_STACK_BYTES);
        match builder.spawn(move || shared.work()) {
            Ok(_) => state.threads += 1,
            Err(error) => log::warn!("no further thread {} could be started: {error}", self.name),
        }
    }

    /// A thread's life. It begins while the starter holds the lock, so its first lock sees itself counted.
    fn work(&self) {
        let mut state = self.lock();
        while !state.closed {
            let Some((id, work)) = state.queue.pop_first() else {
                state.idle += 1;
                let (woken, timeout) =
                    self.wake.wait_timeout(state, self.idle_end).unwrap_or_else(PoisonError::into_inner);
                state = woken;
                state.idle -= 1;
                if timeout.timed_out() && state.queue.is_empty() {
                    break;
                }
                continue;
            };
            state.running.insert(id, false);
            drop(state);
            if let Err(payload) = catch_unwind(AssertUnwindSafe(work)) {
                // Work fences its own panics; this one came from dropping a result. Dropping its payload could panic again.
                std::mem::forget(payload);
            }
            state = self.lock();
            if state.running.remove(&id) == Some(true) {
                state.lost -= 1;
            }
            if state.threads > self.threads_max(&state) {
                break;
            }
        }
        state.threads -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A computation that says when it runs and ends when told.
    struct Endless {
        id: Computation,
        end: mpsc::Sender<()>,
    }

    fn endless(pool: &ThreadPool) -> Option<Endless> {
        let (end, ended) = mpsc::channel::<()>();
        let (begin, begun) = mpsc::channel();
        let id = pool.submit(Box::new(move || {
            begin.send(()).expect("who receives is there");
            let _ = ended.recv();
        }));
        let id = id.ok()?;
        begun.recv().expect("who sends is there");
        Some(Endless { id, end })
    }

    fn answers(pool: &ThreadPool) -> bool {
        let (sender, receiver) = mpsc::channel();
        pool.submit(Box::new(move || sender.send(()).expect("who receives is there"))).is_ok()
            && receiver.recv().is_ok()
    }

    fn wait_until(pool: &ThreadPool, ready: impl Fn(&State) -> bool) {
        while !ready(&pool.shared.lock()) {
            std::thread::yield_now();
        }
    }

    #[test]
    fn lost_threads_are_replaced_up_to_the_cap_and_given_back() {
        let pool = ThreadPool::new("test", 2, Duration::from_secs(60));
        let mut lost = Vec::new();
        // size - 1 = 1 replacement, then the pool shrinks: 3 threads at most.
        for n in 1..=3 {
            let work = endless(&pool).expect("a thread makes progress");
            pool.abandon(work.id);
            lost.push(work);
            assert_eq!(pool.shared.lock().lost, n);
            assert_eq!(answers(&pool), n < 3, "with {n} lost");
        }
        assert_eq!(pool.shared.lock().threads, 3);
        assert!(pool.degraded());
        assert!(endless(&pool).is_none(), "no thread makes progress: refused");
        lost.pop().expect("it is there").end.send(()).expect("who receives is there");
        wait_until(&pool, |state| state.lost == 2);
        assert!(answers(&pool), "an ended one gives its thread back");
        lost.clear();
        wait_until(&pool, |state| state.lost == 0 && state.threads <= 2);
        assert!(!pool.degraded());
        assert!(answers(&pool));
    }

    #[test]
    fn what_was_abandoned_in_the_queue_is_dropped_and_never_runs() {
        let pool = ThreadPool::new("test", 1, Duration::from_secs(60));
        let busy = endless(&pool).expect("a thread");
        let (sender, receiver) = mpsc::channel();
        let queued =
            pool.submit(Box::new(move || sender.send(()).expect("who receives is there"))).ok().expect("it is taken");
        pool.abandon(queued);
        assert_eq!(receiver.recv(), Err(mpsc::RecvError), "dropped at once");
        busy.end.send(()).expect("who receives is there");
        assert!(answers(&pool));
        assert_eq!(pool.shared.lock().lost, 0);
    }

    #[test]
    fn a_patient_pool_keeps_what_waits_until_a_thread_comes_back() {
        let pool = ThreadPool::patient("test", 1, Duration::from_secs(60));
        let busy = endless(&pool).expect("a thread");
        pool.abandon(busy.id);
        let (sender, receiver) = mpsc::channel();
        assert!(pool.submit(Box::new(move || sender.send(()).expect("who receives is there"))).is_ok(), "not refused");
        busy.end.send(()).expect("who receives is there");
        assert_eq!(receiver.recv(), Ok(()));
    }

    #[test]
    fn what_waits_is_dropped_when_the_last_thread_is_lost() {
        let pool = ThreadPool::new("test", 1, Duration::from_secs(60));
        let busy = endless(&pool).expect("a thread");
        let (sender, receiver) = mpsc::channel::<()>();
        pool.submit(Box::new(move || sender.send(()).expect("who receives is there"))).ok().expect("it is taken");
        pool.abandon(busy.id);
        pool.abandon(busy.id);
        assert_eq!(receiver.recv(), Err(mpsc::RecvError));
        assert_eq!(pool.shared.lock().lost, 1, "abandoned twice is lost once");
    }

    #[test]
    fn who_waits_for_others_keeps_no_thread_from_them() {
        let pool = ThreadPool::new("test", 1, Duration::ZERO);
        let busy = endless(&pool).expect("a thread");
        pool.waiting(true);
        assert!(answers(&pool), "another thread is there");
        pool.waiting(false);
        busy.end.send(()).expect("who receives is there");
        wait_until(&pool, |state| state.threads == 0);
        assert!(answers(&pool));
    }

    #[test]
    fn idle_threads_end() {
        let pool = ThreadPool::new("test", 2, Duration::ZERO);
        assert!(answers(&pool));
        wait_until(&pool, |state| state.threads == 0);
        assert!(answers(&pool), "and are started again");
    }

    #[test]
    fn a_panic_costs_no_thread() {
        let pool = ThreadPool::new("test", 1, Duration::from_secs(60));
        pool.submit(Box::new(|| panic!("planned"))).ok().expect("it is taken");
        assert!(answers(&pool));
        assert_eq!(pool.shared.lock().threads, 1);
    }
}
