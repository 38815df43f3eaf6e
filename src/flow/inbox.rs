//! The bounded channel before a stage.

use super::{Pulled, Semaphore, WorkPermits};
use crate::world::plant::{Bug, planted};
use async_channel::{Receiver, Sender, TrySendError};
use futures_lite::{StreamExt, pin};
use std::{
    future::{Future, poll_fn},
    task::Poll,
};

/// A bounded channel with fair senders: who waits for room is served in the order in which it came, so that no item is
/// overtaken by those behind it (async-channel alone lets a newcomer take the room of a woken sender).
///
/// With capacity 0 an item is handed over: the sender waits until a worker waits for it. async-channel has no rendezvous,
/// so an idle worker puts a token into a second channel; the sender takes a token, then puts the item, with no await
/// between. A sender that is cancelled while it waits has handed nothing over.
pub struct Inbox<T> {
    items: (Sender<T>, Receiver<T>),
    idle: Option<(Sender<()>, Receiver<()>)>,
    turn: Semaphore,
}

/// Why a worker got no item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullEnd {
    /// Its permit was taken away: it asks for a new one.
    Revoked,
    /// Closed and empty.
    Closed,
}

impl<T> Inbox<T> {
    /// `capacity` 0 hands over to `workers` workers.
    pub fn new(capacity: usize, workers: usize) -> Inbox<T> {
        if capacity == 0 {
            let workers = workers.max(1);
            let items = async_channel::bounded(workers);
            Inbox { items, idle: Some(async_channel::bounded(workers)), turn: Semaphore::new(1) }
        } else {
            Inbox { items: async_channel::bounded(capacity), idle: None, turn: Semaphore::new(1) }
        }
    }

    /// Puts an item in, waiting for room.
    ///
    /// # Errors
    /// The item, when the inbox was closed.
    ///
    /// # Cancel safety
    /// When the future is dropped before it is ready, the item was not put in; it is dropped with the future.
    pub async fn send(&self, item: T) -> Result<(), T> {
        self.send_with(item, |_| {}).await
    }

    /// The same; `on_turn` sees the item when its turn has come: items go in in the order in which it is called.
    ///
    /// # Errors
    /// As [`Inbox::send`].
    ///
    /// # Cancel safety
    /// As [`Inbox::send`].
    pub async fn send_with(&self, mut item: T, on_turn: impl FnOnce(&mut T)) -> Result<(), T> {
        let _turn = if planted(Bug::SendersOvertake) { None } else { Some(self.turn.acquire().await) };
        on_turn(&mut item);
        match &self.idle {
            None => self.items.0.send(item).await.map_err(|error| error.0),
            Some((_, tokens)) => {
                if tokens.recv().await.is_err() {
                    return Err(item);
                }
                // There is room: tokens and items have the same bound, and each item was preceded by its token. Only while
                // a closed stage drains, on several threads, a token may come before the item of the one before is gone.
                match self.items.0.try_send(item) {
                    Err(TrySendError::Full(item)) => self.items.0.send(item).await.map_err(|error| error.0),
                    sent => sent.map_err(TrySendError::into_inner),
                }
            }
        }
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
    pub async fn pull(&self, permits: &WorkPermits) -> Result<(T, bool), PullEnd> {
        let mut idle = Idle { inbox: self, permits, token: false, permit: true };
        if let Some((tokens, _)) = &self.idle {
            idle.token = tokens.try_send(()).is_ok();
        }
        let receive = self.items.1.recv();
        pin!(receive);
        let mut started = false;
        let pulled = poll_fn(|cx| {
            if permits.poll_pulling(cx) == Pulled::Revoked {
                return Poll::Ready(Err(PullEnd::Revoked));
            }
            receive.as_mut().poll(cx).map(|item| {
                let item = item.map_err(|_| PullEnd::Closed)?;
                started = permits.start_work(cx);
                Ok(item)
            })
        })
        .await;
        match pulled {
            Ok(item) => {
                (idle.token, idle.permit) = (false, false);
                Ok((item, started))
            }
            Err(PullEnd::Revoked) => {
                idle.permit = false;
                if idle.token && !planted(Bug::TokenNotTakenBack) && !self.retract() {
                    // A sender has this worker's token already: the item is on its way, and waits for a permit here.
                    idle.token = false;
                    let item = self.items.1.recv().await.map_err(|_| PullEnd::Closed)?;
                    return Ok((item, false));
                }
                idle.token = false;
                Err(PullEnd::Revoked)
            }
            Err(PullEnd::Closed) => Err(PullEnd::Closed),
        }
    }

    /// Waits for an item without any permit: for those that only settle it.
    ///
    /// # Cancel safety
    /// Dropping it loses no item.
    pub async fn drain(&self) -> Option<T> {
        if let Some((tokens, _)) = &self.idle {
            let _ = tokens.try_send(());
        }
        let items = self.items.1.clone();
        pin!(items);
        items.next().await
    }

    /// What is in it now, without waiting.
    pub fn try_take(&self) -> Option<T> {
        self.items.1.try_recv().ok()
    }

    /// No more can be put in; what is in it can still be taken. Idempotent.
    pub fn close(&self) {
        self.items.0.close();
        if let Some((tokens, _)) = &self.idle {
            tokens.close();
        }
    }

    /// Items that are in it now.
    pub fn len(&self) -> usize {
        self.items.1.len()
    }

    /// True when nothing is in it now.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn retract(&self) -> bool {
        self.idle.as_ref().is_none_or(|(_, tokens)| tokens.try_recv().is_ok())
    }
}

/// Gives token and permit of an idle worker back.
struct Idle<'a, T> {
    inbox: &'a Inbox<T>,
    permits: &'a WorkPermits,
    token: bool,
    permit: bool,
}

impl<T> Drop for Idle<'_, T> {
    fn drop(&mut self) {
        if self.token {
            self.inbox.retract();
        }
        if self.permit {
            self.permits.release_pulling(None);
        }
    }
}
