//! A fair semaphore: permits go to waiters in the order in which they came, by direct hand-over.

use std::{
    collections::{BTreeSet, VecDeque},
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

/// `permits` at most are out at a time; nobody overtakes.
///
/// async-channel and async-lock let a newcomer take what a woken waiter was promised; here a returned permit belongs to
/// the longest waiter at once, so no waiter is passed by.
#[derive(Clone)]
pub struct Semaphore(Arc<Mutex<State>>);

struct State {
    free: usize,
    next_id: u64,
    queue: VecDeque<(u64, Waker)>,
    granted: BTreeSet<u64>,
}

/// One permit; dropping it returns it.
pub struct SemaphoreGuard(Semaphore);

impl Semaphore {
    /// A semaphore with this many permits, all free.
    pub fn new(permits: usize) -> Semaphore {
        Semaphore(Arc::new(Mutex::new(State {
            free: permits,
            next_id: 0,
            queue: VecDeque::new(),
            granted: BTreeSet::new(),
        })))
    }

    /// Waits for a permit, behind all who wait already.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the place, or the permit where it was granted already.
    pub fn acquire(&self) -> impl Future<Output = SemaphoreGuard> + Send + use<> {
        Acquire { semaphore: self.clone(), first: false, id: None }
    }

    /// Waits for a permit before all who wait already: for who holds something that they need.
    ///
    /// # Cancel safety
    /// As [`Semaphore::acquire`].
    pub fn acquire_first(&self) -> impl Future<Output = SemaphoreGuard> + Send + use<> {
        Acquire { semaphore: self.clone(), first: true, id: None }
    }

    /// A permit, if one is free and nobody waits.
    pub fn try_acquire(&self) -> Option<SemaphoreGuard> {
        let mut state = self.lock();
        if state.free == 0 {
            return None;
        }
        state.free -= 1;
        drop(state);
        Some(SemaphoreGuard(self.clone()))
    }

    /// Permits that are free now.
    pub fn free(&self) -> usize {
        self.lock().free
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn release(&self) {
        let mut state = self.lock();
        let Some((id, waker)) = state.queue.pop_front() else {
            state.free += 1;
            return;
        };
        state.granted.insert(id);
        drop(state);
        waker.wake();
    }
}

impl Drop for SemaphoreGuard {
    fn drop(&mut self) {
        self.0.release();
    }
}

struct Acquire {
    semaphore: Semaphore,
    /// It goes before those who wait.
    first: bool,
    id: Option<u64>,
}

impl Future for Acquire {
    type Output = SemaphoreGuard;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<SemaphoreGuard> {
        let semaphore = self.semaphore.clone();
        let mut state = semaphore.lock();
        match self.id {
            None if state.free > 0 => {
                state.free -= 1;
                return Poll::Ready(SemaphoreGuard(self.semaphore.clone()));
            }
            None => {
                let id = state.next_id;
                state.next_id += 1;
                match self.first {
                    true => state.queue.push_front((id, cx.waker().clone())),
                    false => state.queue.push_back((id, cx.waker().clone())),
                }
                drop(state);
                self.id = Some(id);
            }
            Some(id) if state.granted.remove(&id) => {
                drop(state);
                self.id = None;
                return Poll::Ready(SemaphoreGuard(self.semaphore.clone()));
            }
            Some(id) => {
                if let Some(entry) = state.queue.iter_mut().find(|entry| entry.0 == id) {
                    entry.1.clone_from(cx.waker());
                }
            }
        }
        Poll::Pending
    }
}

impl Drop for Acquire {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        let mut state = self.semaphore.lock();
        if state.granted.remove(&id) {
            drop(state);
            self.semaphore.release();
        } else {
            state.queue.retain(|entry| entry.0 != id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};

    #[test]
    fn permits_go_to_waiters_in_their_order_and_nobody_overtakes() {
        block_on(async {
            let semaphore = Semaphore::new(1);
            let held = semaphore.try_acquire().expect("free");
            let (mut a, mut b) = (Box::pin(semaphore.acquire()), Box::pin(semaphore.acquire()));
            assert!(poll_once(&mut a).await.is_none() && poll_once(&mut b).await.is_none());
            drop(held);
            assert!(semaphore.try_acquire().is_none(), "a newcomer does not take what was handed over");
            assert!(poll_once(&mut b).await.is_none());
            let first = poll_once(&mut a).await.expect("the first waiter has it");
            drop(first);
            assert!(poll_once(&mut b).await.is_some());
            assert_eq!(semaphore.free(), 1);
        });
    }

    #[test]
    fn who_comes_first_goes_before_those_who_wait() {
        block_on(async {
            let semaphore = Semaphore::new(1);
            let held = semaphore.try_acquire().expect("free");
            let (mut a, mut b) = (Box::pin(semaphore.acquire()), Box::pin(semaphore.acquire_first()));
            assert!(poll_once(&mut a).await.is_none() && poll_once(&mut b).await.is_none());
            drop(held);
            assert!(poll_once(&mut a).await.is_none());
            drop(poll_once(&mut b).await.expect("it is the first"));
            assert!(poll_once(&mut a).await.is_some());
        });
    }

    #[test]
    fn a_waiter_that_goes_gives_up_its_place_or_its_permit() {
        block_on(async {
            let semaphore = Semaphore::new(1);
            let held = semaphore.try_acquire().expect("free");
            let (mut a, mut b) = (Box::pin(semaphore.acquire()), Box::pin(semaphore.acquire()));
            assert!(poll_once(&mut a).await.is_none() && poll_once(&mut b).await.is_none());
            drop(held); // granted to a
            drop(a); // and passed on to b
            drop(poll_once(&mut b).await.expect("handed on"));
            let held = semaphore.try_acquire().expect("free");
            let mut c = Box::pin(semaphore.acquire());
            assert!(poll_once(&mut c).await.is_none());
            drop(c);
            drop(held);
            assert_eq!(semaphore.free(), 1);
        });
    }
}
