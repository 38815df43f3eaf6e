//! One result on its way from a thread of a pool to the task that waits for it.
//!
//! Used by [`super::World::unblock`] and [`super::World::compute`]. A channel would do, but it wakes the task while it holds a
//! lock that the task needs at once: both threads then wait for each other's turn, for each piece of work anew.

use std::{
    future::{Future, poll_fn},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
};

/// Gives the result, once. Dropped without one it says that there will be none.
pub(super) struct Giver<T>(Arc<Place<T>>);

/// Waits for the result.
pub(super) struct Taker<T>(Arc<Place<T>>);

struct Place<T>(Mutex<State<T>>);

struct State<T> {
    result: Option<T>,
    waker: Option<Waker>,
    ended: bool,
}

/// Both ends of one result.
pub(super) fn answer<T>() -> (Giver<T>, Taker<T>) {
    let place = Arc::new(Place(Mutex::new(State { result: None, waker: None, ended: false })));
    (Giver(place.clone()), Taker(place))
}

impl<T> Giver<T> {
    /// Gives it. When nobody waits any more it is dropped with the last of both ends.
    pub(super) fn give(self, result: T) {
        self.0.lock().result = Some(result);
    }
}

impl<T> Drop for Giver<T> {
    fn drop(&mut self) {
        let waker = {
            let mut state = self.0.lock();
            state.ended = true;
            state.waker.take()
        };
        // Without the lock, which who is woken takes at once.
        waker.into_iter().for_each(Waker::wake);
    }
}

impl<T> Taker<T> {
    /// The result; `None` when there will be none.
    ///
    /// # Cancel safety
    /// May be dropped at any time and called again.
    pub(super) fn take(&self) -> impl Future<Output = Option<T>> {
        poll_fn(|cx| {
            let mut state = self.0.lock();
            if state.ended {
                return Poll::Ready(state.result.take());
            }
            if state.waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
                state.waker = Some(cx.waker().clone());
            }
            Poll::Pending
        })
    }

    /// Whether nothing was given yet.
    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().result.is_none()
    }
}

impl<T> Place<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // No code that can panic runs under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};

    #[test]
    fn what_is_given_is_taken_before_or_after_somebody_waits() {
        let (giver, taker) = answer();
        giver.give(7);
        assert_eq!(block_on(taker.take()), Some(7));
        let (giver, taker) = answer();
        assert_eq!(block_on(poll_once(taker.take())), None);
        let other = std::thread::Builder::new().spawn(move || giver.give(8)).expect("a thread");
        assert_eq!(block_on(taker.take()), Some(8));
        other.join().expect("it ends");
    }

    #[test]
    fn without_a_result_the_end_is_told() {
        let (giver, taker) = answer::<u8>();
        assert!(taker.is_empty());
        drop(giver);
        assert_eq!(block_on(taker.take()), None);
    }
}
