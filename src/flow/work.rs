//! Work permits of a stage: who may work on an item now.
//!
//! A worker that waits for an item holds a permit; an item that comes back from a wait takes it away from such an idle
//! worker, so that it goes on before new items do and the stage never works on more items than it may (RUNS T2).

use crate::world::plant::{Bug, planted};
use std::{
    collections::{BTreeSet, VecDeque},
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

/// The work permits of one stage.
#[derive(Clone)]
pub struct WorkPermits(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Items that come back wait for a permit: told without the lock, for who asks for each item.
    wanted_back: AtomicBool,
}

struct State {
    /// Permits in all.
    permits: usize,
    /// Held by items that are worked on.
    working: usize,
    /// Held by idle workers that wait for an item.
    pulling: usize,
    /// Idle workers whose permit was taken away and who do not know it yet.
    revoked: usize,
    next_id: u64,
    /// Items that come back from a wait: served first.
    returning: VecDeque<(u64, Waker)>,
    /// Workers that want to wait for a new item.
    fresh: VecDeque<(u64, Waker)>,
    granted: BTreeSet<u64>,
    /// Wakers of idle workers, woken when a permit is taken away.
    idle: Vec<Waker>,
}

/// What an idle worker learns of its permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pulled {
    /// It still holds it.
    Held,
    /// It was taken away: ask for a new one before pulling.
    Revoked,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Lane {
    Returning,
    Fresh,
}

impl WorkPermits {
    /// `permits` at least 1.
    pub fn new(permits: usize) -> WorkPermits {
        let state = Mutex::new(State {
            permits: permits.max(1),
            working: 0,
            pulling: 0,
            revoked: 0,
            next_id: 0,
            returning: VecDeque::new(),
            fresh: VecDeque::new(),
            granted: BTreeSet::new(),
            idle: Vec::new(),
        });
        WorkPermits(Arc::new(Shared { state, wanted_back: AtomicBool::new(false) }))
    }

    /// Waits until this worker may wait for a new item; afterwards it holds a pulling permit.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the place or the permit.
    pub fn acquire_fresh(&self) -> impl Future<Output = ()> + Send + use<> {
        Acquire { permits: self.clone(), lane: Lane::Fresh, id: None }
    }

    /// Waits until an item that comes back may go on; afterwards it holds a working permit.
    ///
    /// # Cancel safety
    /// As [`WorkPermits::acquire_fresh`].
    pub fn acquire_returning(&self) -> impl Future<Output = ()> + Send + use<> {
        Acquire { permits: self.clone(), lane: Lane::Returning, id: None }
    }

    /// A working permit for an item that comes back, if it need not wait for one.
    pub fn try_returning(&self) -> bool {
        let mut state = self.lock();
        if !state.returning.is_empty() {
            return false;
        }
        if state.working + state.pulling < state.permits {
            state.working += 1;
            return true;
        }
        if state.pulling == 0 {
            return false;
        }
        let idle = State::revoke_one(&mut state);
        drop(state);
        idle.into_iter().for_each(Waker::wake);
        true
    }

    /// Asks, in each poll of an idle worker before it looks for an item, whether it still holds its permit; if it does,
    /// the waker is kept and woken when the permit is taken away.
    pub fn poll_pulling(&self, cx: &Context<'_>) -> Pulled {
        let mut state = self.lock();
        if state.revoked > 0 {
            state.revoked -= 1;
            return Pulled::Revoked;
        }
        if !state.idle.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.idle.push(cx.waker().clone());
        }
        Pulled::Held
    }

    /// An idle worker has got an item. `false`: its permit was taken away at that moment, and it must
    /// [`acquire_returning`](WorkPermits::acquire_returning) one before it begins.
    pub fn start_work(&self, cx: &Context<'_>) -> bool {
        let mut state = self.lock();
        state.idle.retain(|waker| !waker.will_wake(cx.waker()));
        if state.pulling > 0 {
            state.pulling -= 1;
            state.working += 1;
            return true;
        }
        state.revoked = state.revoked.saturating_sub(1);
        false
    }

    /// A working item ends or begins to wait: its permit goes to the longest returning item, else to the longest worker.
    pub fn release_working(&self) {
        let mut state = self.lock();
        state.working -= 1;
        let waker = self.grant_next(&mut state);
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether a worker whose item has ended may begin with the next one, if there is one, on the same permit: nobody who
    /// comes back waits for it.
    pub fn may_go_on(&self) -> bool {
        !self.0.wanted_back.load(Ordering::Acquire) || planted(Bug::NewBeforeReturning)
    }

    /// A worker whose item has ended keeps its permit to pull the next item, unless a returning item wants it.
    /// `false`: the permit is given back, and it must [`acquire_fresh`](WorkPermits::acquire_fresh) one.
    pub fn keep_for_next(&self) -> bool {
        let mut state = self.lock();
        if state.returning.is_empty() || planted(Bug::NewBeforeReturning) {
            state.working -= 1;
            state.pulling += 1;
            return true;
        }
        drop(state);
        self.release_working();
        false
    }

    /// An idle worker goes without an item.
    pub fn release_pulling(&self, cx_waker: Option<&Waker>) {
        let mut state = self.lock();
        if let Some(waker) = cx_waker {
            state.idle.retain(|idle| !idle.will_wake(waker));
        }
        if state.revoked > 0 && state.pulling == 0 {
            state.revoked -= 1;
            return;
        }
        state.pulling = state.pulling.saturating_sub(1);
        let waker = self.grant_next(&mut state);
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Permits held by items that are worked on.
    pub fn working(&self) -> usize {
        self.lock().working
    }

    /// True when a permit is free and nobody waits for one: one more worker could pull.
    pub fn has_spare(&self) -> bool {
        let state = self.lock();
        state.working + state.pulling < state.permits && state.fresh.is_empty() && state.returning.is_empty()
    }

    fn grant_next(&self, state: &mut State) -> Option<Waker> {
        let waker = state.grant();
        self.note_wanted(state);
        waker
    }

    /// After every change of the items that wait to go on.
    fn note_wanted(&self, state: &State) {
        self.0.wanted_back.store(!state.returning.is_empty(), Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under this lock.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes the permit of an idle worker for an item; whom to wake.
    fn revoke_one(state: &mut State) -> Vec<Waker> {
        state.pulling -= 1;
        state.working += 1;
        state.revoked += 1;
        std::mem::take(&mut state.idle)
    }

    fn grant(&mut self) -> Option<Waker> {
        let state = self;
        if state.working + state.pulling >= state.permits {
            return None;
        }
        if let Some((id, waker)) = state.returning.pop_front() {
            state.working += 1;
            state.granted.insert(id);
            return Some(waker);
        }
        if let Some((id, waker)) = state.fresh.pop_front() {
            state.pulling += 1;
            state.granted.insert(id);
            return Some(waker);
        }
        None
    }
}

struct Acquire {
    permits: WorkPermits,
    lane: Lane,
    id: Option<u64>,
}

impl Future for Acquire {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let permits = self.permits.clone();
        let mut state = permits.lock();
        if let Some(id) = self.id {
            if state.granted.remove(&id) {
                drop(state);
                self.id = None;
                return Poll::Ready(());
            }
            let lane = self.lane;
            let queue = if lane == Lane::Returning { &mut state.returning } else { &mut state.fresh };
            if let Some(entry) = queue.iter_mut().find(|entry| entry.0 == id) {
                entry.1.clone_from(cx.waker());
            }
            return Poll::Pending;
        }
        match self.lane {
            Lane::Returning if state.returning.is_empty() && state.working + state.pulling < state.permits => {
                state.working += 1;
                return Poll::Ready(());
            }
            Lane::Returning if state.returning.is_empty() && state.pulling > 0 => {
                let idle = State::revoke_one(&mut state);
                drop(state);
                idle.into_iter().for_each(Waker::wake);
                return Poll::Ready(());
            }
            Lane::Fresh if state.returning.is_empty() && state.working + state.pulling < state.permits => {
                state.pulling += 1;
                return Poll::Ready(());
            }
            _ => {}
        }
        let id = state.next_id;
        state.next_id += 1;
        let lane = self.lane;
        let queue = if lane == Lane::Returning { &mut state.returning } else { &mut state.fresh };
        queue.push_back((id, cx.waker().clone()));
        permits.note_wanted(&state);
        drop(state);
        self.id = Some(id);
        Poll::Pending
    }
}

impl Drop for Acquire {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        let mut state = self.permits.lock();
        if !state.granted.remove(&id) {
            state.returning.retain(|entry| entry.0 != id);
            state.fresh.retain(|entry| entry.0 != id);
            self.permits.note_wanted(&state);
            return;
        }
        drop(state);
        match self.lane {
            Lane::Returning => self.permits.release_working(),
            Lane::Fresh => self.permits.release_pulling(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_fn, poll_once};

    #[test]
    fn a_returning_item_takes_the_permit_of_an_idle_worker() {
        block_on(async {
            let permits = WorkPermits::new(1);
            permits.acquire_fresh().await;
            assert_eq!(poll_fn(|cx| Poll::Ready(permits.poll_pulling(cx))).await, Pulled::Held);
            permits.acquire_returning().await;
            assert_eq!(permits.working(), 1);
            assert_eq!(poll_fn(|cx| Poll::Ready(permits.poll_pulling(cx))).await, Pulled::Revoked);
            let mut again = Box::pin(permits.acquire_fresh());
            assert!(poll_once(&mut again).await.is_none(), "never more than the permits");
            permits.release_working();
            assert!(poll_once(&mut again).await.is_some());
        });
    }

    #[test]
    fn a_worker_that_got_an_item_while_its_permit_was_taken_waits_in_front() {
        block_on(async {
            let permits = WorkPermits::new(1);
            permits.acquire_fresh().await;
            permits.acquire_returning().await;
            assert!(!poll_fn(|cx| Poll::Ready(permits.start_work(cx))).await);
            let mut fresh = Box::pin(permits.acquire_fresh());
            let mut with_item = Box::pin(permits.acquire_returning());
            assert!(poll_once(&mut fresh).await.is_none() && poll_once(&mut with_item).await.is_none());
            permits.release_working();
            assert!(poll_once(&mut fresh).await.is_none());
            assert!(poll_once(&mut with_item).await.is_some());
        });
    }

    #[test]
    fn a_worker_keeps_its_permit_unless_an_item_comes_back() {
        block_on(async {
            let permits = WorkPermits::new(1);
            permits.acquire_returning().await;
            assert!(permits.keep_for_next());
            assert!(poll_fn(|cx| Poll::Ready(permits.start_work(cx))).await);
            let mut back = Box::pin(permits.acquire_returning());
            assert!(poll_once(&mut back).await.is_none());
            assert!(!permits.keep_for_next());
            assert!(poll_once(&mut back).await.is_some());
            permits.release_working();
            assert_eq!(permits.working(), 0);
        });
    }

    #[test]
    fn who_goes_in_the_moment_of_its_grant_gives_the_permit_on() {
        block_on(async {
            let permits = WorkPermits::new(1);
            permits.acquire_returning().await;
            let (mut a, mut b) = (Box::pin(permits.acquire_returning()), Box::pin(permits.acquire_returning()));
            assert!(poll_once(&mut a).await.is_none() && poll_once(&mut b).await.is_none());
            permits.release_working(); // granted to a
            drop(a); // and passed on to b
            assert!(poll_once(&mut b).await.is_some());
            assert_eq!(permits.working(), 1);
        });
    }
}
