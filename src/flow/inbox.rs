//! The bounded channel before a stage.

use super::{Pulled, WorkPermits};
use crate::world::plant::{Bug, planted};
use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

/// A bounded channel in which nobody overtakes: who waits for room is served in the order in which it came, and leaves its
/// item here while it waits, so that the room is never empty while its owner is on its way.
///
/// With capacity 0 an item is handed over: it goes in only when a worker waits for it, or is taken from the hand of the
/// sender that waits longest.
///
/// It is made for many items that are ready at once. At most one idle worker is on its way at a time, and it calls the
/// next one when it leaves something behind; senders whose items went in are told by [`Inbox::tell_senders`], once for all
/// that a worker took in one turn.
pub struct Inbox<T> {
    capacity: usize,
    state: Mutex<State<T>>,
    /// Senders are to be told.
    untold: AtomicBool,
}

struct State<T> {
    items: VecDeque<T>,
    closed: bool,
    /// Who waits for room, in the order of their numbers.
    senders: VecDeque<Waiting<T>>,
    /// Whose items went in, and who do not know it yet.
    gone_in: Vec<Waker>,
    /// Workers that wait for an item and were not called, in the order of their numbers.
    idle: VecDeque<(u64, Waker)>,
    /// Workers that were called and have not come yet. At least one, while an item is here and somebody is idle.
    called: usize,
    next_number: u64,
}

/// A sender that waits, with its item.
struct Waiting<T> {
    number: u64,
    item: T,
    waker: Waker,
}

/// Why a worker got no item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullEnd {
    /// Its permit was taken away: it asks for a new one.
    Revoked,
    /// Closed and empty.
    Closed,
}

/// Why an item did not go in at once.
#[derive(Debug)]
pub enum Refused<T> {
    /// There is no room, or others wait for it already.
    Full(T),
    /// No more can be put in.
    Closed(T),
}

impl<T> Inbox<T> {
    /// `capacity` 0 hands over.
    pub fn new(capacity: usize) -> Inbox<T> {
        let state = State {
            items: VecDeque::new(),
            closed: false,
            senders: VecDeque::new(),
            gone_in: Vec::new(),
            idle: VecDeque::new(),
            called: 0,
            next_number: 0,
        };
        Inbox { capacity, state: Mutex::new(state), untold: AtomicBool::new(false) }
    }

    /// Puts an item in without waiting. `on_turn` sees it before it goes in, in the order in which items do.
    ///
    /// # Errors
    /// The item.
    pub fn try_send_with(&self, mut item: T, on_turn: impl FnOnce(&mut T)) -> Result<(), Refused<T>> {
        let mut state = self.lock();
        if state.closed {
            return Err(Refused::Closed(item));
        }
        if !state.senders.is_empty() || !state.has_room(self.capacity) {
            return Err(Refused::Full(item));
        }
        on_turn(&mut item);
        state.items.push_back(item);
        let called = state.call_idle();
        drop(state);
        wake(called);
        Ok(())
    }

    /// Puts an item in, waiting for room. `on_turn` sees it when it has its place: items go in in the order in which it is
    /// called.
    ///
    /// # Errors
    /// The item, when the inbox was closed.
    ///
    /// # Cancel safety
    /// When the future is dropped before it is ready, the item is dropped too, unless a worker has taken it already.
    pub fn send_with<F: FnOnce(&mut T)>(&self, item: T, on_turn: F) -> Send<'_, T, F> {
        Send { inbox: self, place: Place::Before(item, on_turn) }
    }

    /// Waits for an item as an idle worker that holds a pulling permit. With `true` the worker holds a working permit now;
    /// with `false` its permit was taken away at that moment, and it must
    /// [`acquire_returning`](WorkPermits::acquire_returning) one before it begins.
    ///
    /// # Errors
    /// [`PullEnd`]. After `Revoked` the permit is gone; after `Closed` it is given back.
    ///
    /// # Cancel safety
    /// Dropping it loses no item and gives the permit back.
    pub fn pull<'a>(
        &'a self,
        permits: &'a WorkPermits,
    ) -> impl Future<Output = Result<(T, bool), PullEnd>> + use<'a, T> {
        Pull { inbox: self, permits: Some(permits), number: None }
    }

    /// Waits for an item without any permit: for those that only settle it. `None`: closed and empty.
    ///
    /// # Cancel safety
    /// Dropping it loses no item.
    pub async fn drain(&self) -> Option<T> {
        let pull = Pull { inbox: self, permits: None, number: None };
        let pulled = pull.await;
        self.tell_senders();
        pulled.ok().map(|(item, _)| item)
    }

    /// The longest item, if there is one: also from the hand of a sender that waits, until it is closed.
    pub fn try_take(&self) -> Option<T> {
        let mut state = self.lock();
        let item = state.take(self.capacity);
        let untold = !state.gone_in.is_empty();
        drop(state);
        if untold {
            self.untold.store(true, Ordering::Release);
        }
        item
    }

    /// What is there now, at the end of `into`, until that has `most`.
    pub fn take_all(&self, into: &mut Vec<T>, most: usize) {
        let mut state = self.lock();
        while into.len() < most
            && let Some(item) = state.take(self.capacity)
        {
            into.push(item);
        }
        drop(state);
        self.untold.store(true, Ordering::Release);
        self.tell_senders();
    }

    /// Wakes the senders whose items went in. Whoever takes items does this before it waits for anything: see
    /// [`Inbox::telling_senders`].
    pub fn tell_senders(&self) {
        if self.untold.load(Ordering::Acquire) && self.untold.swap(false, Ordering::AcqRel) {
            let gone_in = std::mem::take(&mut self.lock().gone_in);
            gone_in.into_iter().for_each(Waker::wake);
        }
    }

    /// The same future, after each turn of which the senders are told.
    pub fn telling_senders<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<'_, T, F> {
        /// Also when it is dropped or panics.
        struct Tell<'a, T>(&'a Inbox<T>);
        impl<T> Drop for Tell<'_, T> {
            fn drop(&mut self) {
                self.0.tell_senders();
            }
        }
        async move {
            let _at_the_end = Tell(self);
            let mut future = std::pin::pin!(future);
            std::future::poll_fn(|cx| {
                let _after_this_turn = Tell(self);
                future.as_mut().poll(cx)
            })
            .await
        }
    }

    /// No more can be put in, and who waits for room gets its item back; what is in it can still be taken. Idempotent.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let mut told = std::mem::take(&mut state.gone_in);
        told.extend(state.senders.iter().map(|sender| sender.waker.clone()));
        state.called += state.idle.len();
        told.extend(state.idle.drain(..).map(|(_, waker)| waker));
        drop(state);
        told.into_iter().for_each(Waker::wake);
    }

    /// Items that are in it now.
    pub fn len(&self) -> usize {
        self.lock().items.len()
    }

    /// True when nothing is in it now.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // No code that can panic runs under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    fn has_room(&self, capacity: usize) -> bool {
        // Handed over: each item for a worker that waits.
        let most = if capacity == 0 { self.idle.len() + self.called } else { capacity };
        self.items.len() < most
    }

    fn take(&mut self, capacity: usize) -> Option<T> {
        let first = self.items.pop_front();
        if self.closed || self.senders.is_empty() {
            return first;
        }
        let first = first.or_else(|| self.admit());
        while self.has_room(capacity)
            && let Some(item) = self.admit()
        {
            self.items.push_back(item);
        }
        first
    }

    /// Takes the item of the sender that waits longest.
    fn admit(&mut self) -> Option<T> {
        let last = planted(Bug::SendersOvertake);
        let Waiting { item, waker, .. } = if last { self.senders.pop_back() } else { self.senders.pop_front() }?;
        self.gone_in.push(waker);
        Some(item)
    }

    /// Whom to wake for an item that is there.
    fn call_idle(&mut self) -> Option<Waker> {
        if self.called > 0 || self.items.is_empty() {
            return None;
        }
        let (_, waker) = self.idle.pop_front()?;
        self.called = 1;
        Some(waker)
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    /// The worker of this number waits no more, or has come when it was called.
    fn unlist(&mut self, number: u64) {
        match self.idle.binary_search_by_key(&number, |(number, _)| *number) {
            Ok(at) => drop(self.idle.remove(at)),
            Err(_) => self.called -= 1,
        }
    }

    /// Takes the sender of this number out, unless its item went in.
    fn withdraw(&mut self, number: u64) -> Option<Waiting<T>> {
        let at = self.senders.binary_search_by_key(&number, |sender| sender.number).ok()?;
        self.senders.remove(at)
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// See [`Inbox::send_with`].
pub struct Send<'a, T, F> {
    inbox: &'a Inbox<T>,
    place: Place<T, F>,
}

enum Place<T, F> {
    Before(T, F),
    /// Among the waiting senders.
    Waiting(u64),
    Done,
}

// Nothing of it is pinned.
impl<T, F> Unpin for Send<'_, T, F> {}

impl<T, F: FnOnce(&mut T)> Future for Send<'_, T, F> {
    type Output = Result<(), T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), T>> {
        let inbox = self.inbox;
        match std::mem::replace(&mut self.place, Place::Done) {
            Place::Before(mut item, on_turn) => {
                let mut state = inbox.lock();
                if state.closed {
                    return Poll::Ready(Err(item));
                }
                on_turn(&mut item);
                if state.senders.is_empty() && state.has_room(inbox.capacity) {
                    state.items.push_back(item);
                    let called = state.call_idle();
                    drop(state);
                    wake(called);
                    return Poll::Ready(Ok(()));
                }
                let number = state.number();
                state.senders.push_back(Waiting { number, item, waker: cx.waker().clone() });
                drop(state);
                self.place = Place::Waiting(number);
                Poll::Pending
            }
            Place::Waiting(number) => {
                let mut state = inbox.lock();
                if state.closed {
                    let withdrawn = state.withdraw(number);
                    return Poll::Ready(withdrawn.map_or(Ok(()), |sender| Err(sender.item)));
                }
                match state.senders.binary_search_by_key(&number, |sender| sender.number) {
                    Ok(at) => state.senders[at].waker.clone_from(cx.waker()),
                    Err(_) => return Poll::Ready(Ok(())),
                }
                drop(state);
                self.place = Place::Waiting(number);
                Poll::Pending
            }
            Place::Done => Poll::Pending,
        }
    }
}

impl<T, F> Drop for Send<'_, T, F> {
    fn drop(&mut self) {
        if let Place::Waiting(number) = self.place {
            let withdrawn = self.inbox.lock().withdraw(number);
            // Dropping an item may do anything; not under the lock.
            drop(withdrawn);
        }
    }
}

/// An idle worker. Dropped, it gives its place and its permit back.
struct Pull<'a, T> {
    inbox: &'a Inbox<T>,
    /// None, when it pulls without; taken out when the permit is spent.
    permits: Option<&'a WorkPermits>,
    /// It is among the idle workers, or was called.
    number: Option<u64>,
}

impl<T> Future for Pull<'_, T> {
    type Output = Result<(T, bool), PullEnd>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(T, bool), PullEnd>> {
        let (inbox, permits) = (self.inbox, self.permits);
        if permits.is_some_and(|permits| permits.poll_pulling(cx) == Pulled::Revoked) {
            self.permits = None;
            let mut state = inbox.lock();
            if let Some(number) = self.number.take()
                && !planted(Bug::TokenNotTakenBack)
            {
                state.unlist(number);
            }
            // Handed over to this worker already: the item is on its way, and waits for a permit here.
            let handed = inbox.capacity == 0 && state.items.len() > state.idle.len() + state.called;
            let item = if handed { state.items.pop_front() } else { None };
            let called = state.call_idle();
            drop(state);
            wake(called);
            return Poll::Ready(item.map(|item| (item, false)).ok_or(PullEnd::Revoked));
        }
        let mut state = inbox.lock();
        if let Some(number) = self.number.take() {
            state.unlist(number);
        }
        let item = state.take(inbox.capacity);
        if item.is_none() && !state.closed {
            let number = state.number();
            state.idle.push_back((number, cx.waker().clone()));
            self.number = Some(number);
            return Poll::Pending;
        }
        let called = state.call_idle();
        let untold = !state.gone_in.is_empty();
        drop(state);
        wake(called);
        if untold {
            inbox.untold.store(true, Ordering::Release);
        }
        match item {
            Some(item) => {
                let started = permits.is_none_or(|permits| permits.start_work(cx));
                self.permits = None;
                Poll::Ready(Ok((item, started)))
            }
            None => Poll::Ready(Err(PullEnd::Closed)),
        }
    }
}

impl<T> Drop for Pull<'_, T> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let mut state = self.inbox.lock();
            state.unlist(number);
            let called = state.call_idle();
            drop(state);
            wake(called);
        }
        if let Some(permits) = self.permits {
            permits.release_pulling(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};

    fn called_and_idle(inbox: &Inbox<u32>) -> (usize, usize) {
        let state = inbox.lock();
        (state.called, state.idle.len())
    }

    fn put(inbox: &Inbox<u32>, item: u32) -> bool {
        inbox.try_send_with(item, |_| {}).is_ok()
    }

    #[test]
    fn who_waits_for_room_goes_in_before_who_comes_later() {
        block_on(async {
            let inbox = Inbox::new(1);
            assert!(put(&inbox, 1) && !put(&inbox, 2));
            let (mut two, mut three) = (inbox.send_with(2, |_| {}), inbox.send_with(3, |_| {}));
            assert!(poll_once(&mut two).await.is_none() && poll_once(&mut three).await.is_none());
            assert_eq!(inbox.try_take(), Some(1));
            assert!(!put(&inbox, 4), "its room belongs to the one that waits");
            assert_eq!(inbox.len(), 1, "and its item is in it at once");
            assert_eq!((two.await, inbox.try_take(), inbox.try_take()), (Ok(()), Some(2), Some(3)));
            assert_eq!((three.await, inbox.try_take()), (Ok(()), None));
        });
    }

    #[test]
    fn a_sender_that_goes_takes_its_item_with_it_until_it_went_in() {
        block_on(async {
            let inbox = Inbox::new(1);
            assert!(put(&inbox, 1));
            let (mut two, mut three) = (inbox.send_with(2, |_| {}), inbox.send_with(3, |_| {}));
            assert!(poll_once(&mut two).await.is_none() && poll_once(&mut three).await.is_none());
            drop(two);
            assert_eq!(inbox.try_take(), Some(1));
            drop(three);
            assert_eq!((inbox.try_take(), inbox.try_take()), (Some(3), None));
        });
    }

    #[test]
    fn without_capacity_an_item_goes_in_only_for_a_worker_that_waits() {
        block_on(async {
            let inbox = Inbox::new(0);
            assert!(!put(&inbox, 1));
            let mut one = inbox.send_with(1, |_| {});
            assert!(poll_once(&mut one).await.is_none());
            assert_eq!((inbox.len(), inbox.try_take()), (0, Some(1)), "from hand to hand");
            assert_eq!(one.await, Ok(()));
            let (mut a, mut b) = (Box::pin(inbox.drain()), Box::pin(inbox.drain()));
            assert!(poll_once(&mut a).await.is_none() && poll_once(&mut b).await.is_none());
            assert!(put(&inbox, 2) && put(&inbox, 3) && !put(&inbox, 4));
            assert_eq!((a.await, b.await), (Some(2), Some(3)));
        });
    }

    #[test]
    fn a_worker_that_loses_its_permit_keeps_what_was_handed_to_it() {
        block_on(async {
            let (inbox, permits) = (Inbox::new(0), WorkPermits::new(1));
            permits.acquire_fresh().await;
            let mut pull = Box::pin(inbox.pull(&permits));
            assert!(poll_once(&mut pull).await.is_none());
            assert!(put(&inbox, 1));
            permits.acquire_returning().await;
            assert_eq!(pull.await, Ok((1, false)));
            permits.release_working();
            permits.acquire_fresh().await;
            let mut pull = Box::pin(inbox.pull(&permits));
            assert!(poll_once(&mut pull).await.is_none());
            permits.acquire_returning().await;
            assert_eq!(pull.await, Err(PullEnd::Revoked));
            assert!(!put(&inbox, 2), "nobody waits any more");
        });
    }

    #[test]
    fn who_was_called_and_goes_calls_the_next() {
        block_on(async {
            let inbox = Inbox::new(4);
            let (mut a, mut b) = (Box::pin(inbox.drain()), Box::pin(inbox.drain()));
            assert!(poll_once(&mut a).await.is_none() && poll_once(&mut b).await.is_none());
            assert!(put(&inbox, 1) && put(&inbox, 2));
            assert_eq!(called_and_idle(&inbox), (1, 1), "one is on its way");
            drop(a);
            assert_eq!(called_and_idle(&inbox), (1, 0), "and then the other");
            assert_eq!((b.await, called_and_idle(&inbox)), (Some(1), (0, 0)));
        });
    }

    #[test]
    fn senders_are_told_once_for_all_that_was_taken_and_whatever_becomes_of_the_taker() {
        block_on(async {
            let inbox = Inbox::new(1);
            assert!(put(&inbox, 0));
            let mut senders: Vec<_> = (1..4).map(|item| inbox.send_with(item, |_| {})).collect();
            for sender in &mut senders {
                assert!(poll_once(sender).await.is_none());
            }
            let takes = async {
                for item in 0..3 {
                    assert_eq!(inbox.try_take(), Some(item));
                }
                std::future::pending::<()>().await;
            };
            let mut takes = Box::pin(inbox.telling_senders(takes));
            assert!(poll_once(&mut takes).await.is_none());
            assert!(inbox.lock().gone_in.is_empty(), "told at the end of its turn");
            assert!(poll_once(&mut senders[0]).await.is_some() && poll_once(&mut senders[2]).await.is_some());
            let panics = async {
                assert_eq!(inbox.try_take(), Some(3));
                panic!("on purpose");
            };
            let mut late = inbox.send_with(4, |_| {});
            assert!(poll_once(&mut late).await.is_none());
            let panics = inbox.telling_senders(panics);
            assert!(futures_lite::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(panics)).await.is_err());
            assert!(inbox.lock().gone_in.is_empty(), "also when it panics");
            assert_eq!((late.await, inbox.try_take()), (Ok(()), Some(4)));
        });
    }

    #[test]
    fn closed_it_gives_what_is_in_it_and_refuses_what_waits() {
        block_on(async {
            let inbox = Inbox::new(1);
            assert!(put(&inbox, 1));
            let mut two = inbox.send_with(2, |_| {});
            assert!(poll_once(&mut two).await.is_none());
            inbox.close();
            assert_eq!((two.await, inbox.drain().await, inbox.drain().await), (Err(2), Some(1), None));
            assert!(matches!(inbox.try_send_with(3, |_| {}), Err(Refused::Closed(3))));
        });
    }
}
