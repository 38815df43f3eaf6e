//! Results leave in the order in which their items were taken.

use crate::world::plant::{Bug, planted};
use std::{
    collections::BTreeMap,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
};

/// Hands out places and lets each go when all before it have gone.
#[derive(Clone, Default)]
pub struct Order(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    next_place: u64,
    gone: u64,
    left: BTreeMap<u64, ()>,
    waiting: BTreeMap<u64, Waker>,
}

/// A place in the order; dropping it lets the next one go.
pub struct OrderPlace {
    order: Order,
    place: u64,
}

impl Order {
    /// The next place.
    pub fn take(&self) -> OrderPlace {
        let mut state = self.lock();
        let place = state.next_place;
        state.next_place += 1;
        drop(state);
        OrderPlace { order: self.clone(), place }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OrderPlace {
    /// Waits until every place before this one was dropped.
    ///
    /// # Cancel safety
    /// Dropping the future keeps the place.
    pub async fn turn(&self) {
        poll_fn(|cx| {
            let mut state = self.order.lock();
            if state.gone == self.place || (state.gone + 1 == self.place && planted(Bug::OrderSkips)) {
                state.waiting.remove(&self.place);
                return Poll::Ready(());
            }
            state.waiting.insert(self.place, cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Drop for OrderPlace {
    fn drop(&mut self) {
        let mut state = self.order.lock();
        state.waiting.remove(&self.place);
        state.left.insert(self.place, ());
        while state.left.first_key_value().is_some_and(|(place, ())| *place == state.gone) {
            state.left.pop_first();
            state.gone += 1;
        }
        let gone = state.gone;
        let waker = state.waiting.remove(&gone);
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};

    #[test]
    fn a_place_goes_when_all_before_it_have_gone() {
        block_on(async {
            let order = Order::default();
            let (a, b, c) = (order.take(), order.take(), order.take());
            assert!(poll_once(b.turn()).await.is_none());
            drop(b);
            assert!(poll_once(c.turn()).await.is_none());
            a.turn().await;
            drop(a);
            c.turn().await;
        });
    }
}
