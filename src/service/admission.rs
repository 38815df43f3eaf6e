//! The way into a service: the rate, then the in-flight limit, each in the order of arrival.
//!
//! Called by [`super::call`] before each attempt. An item that has to wait does so without its work permit; nothing waits
//! for the rate while it holds an in-flight permit, and everything gives itself back on drop.

use super::rate::Windows;
use crate::{
    flow::{Semaphore, SemaphoreGuard, Slot, WaitRefused},
    world::{Due, World},
};
use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// The limits of one service, shared by all its calls.
pub(super) struct Admission {
    world: World,
    rate: Option<Rate>,
    in_flight: Option<Semaphore>,
}

struct Rate {
    windows: Mutex<Windows>,
    /// Whose turn it is to wait for the windows: one call, the others behind it.
    turn: Semaphore,
    waiting: AtomicU64,
}

/// A call that is let in; dropping it returns its in-flight permit.
pub(super) struct Admitted(#[allow(dead_code, reason = "held until the answer has ended")] Option<SemaphoreGuard>);

impl Admission {
    pub(super) fn new(world: World, rates: &[(u64, Duration)], in_flight: Option<usize>) -> Admission {
        let rate = (!rates.is_empty()).then(|| Rate {
            windows: Mutex::new(Windows::new(rates.iter().copied())),
            turn: Semaphore::new(1),
            waiting: AtomicU64::new(0),
        });
        Admission { world, rate, in_flight: in_flight.map(Semaphore::new) }
    }

    /// Waits until a call may leave, and counts it.
    ///
    /// # Errors
    /// When the rate alone makes it leave after the item's deadline: at once, without waiting. A wait for the rate is
    /// never deferred: the items behind it wait in their channels, and cost the store nothing.
    ///
    /// # Cancel safety
    /// Dropping it gives the place in the queue back; nothing was counted.
    pub(super) async fn enter(&self, slot: &Slot) -> Result<Admitted, WaitRefused> {
        let Some(rate) = &self.rate else {
            let Some(in_flight) = &self.in_flight else { return Ok(Admitted(None)) };
            return Ok(Admitted(Some(match in_flight.try_acquire() {
                Some(permit) => permit,
                None => slot.parked(in_flight.acquire()).await,
            })));
        };
        if let Some(_turn) = rate.turn.try_acquire() {
            let mut windows = rate.windows();
            let now = self.world.awake();
            let permit = self.in_flight.as_ref().map(Semaphore::try_acquire);
            if windows.ready_at(now) <= now && !matches!(permit, Some(None)) {
                windows.record(now);
                return Ok(Admitted(permit.flatten()));
            }
        }
        let place = Place::behind(&rate.waiting);
        self.in_time(rate, place.ahead, slot)?;
        slot.parked(async {
            let _turn = rate.turn.acquire().await;
            self.in_time(rate, 0, slot)?;
            let ready = rate.windows().ready_at(self.world.awake());
            self.world.until(Due::Awake(ready)).await;
            let permit = match &self.in_flight {
                Some(in_flight) => Some(in_flight.acquire().await),
                None => None,
            };
            rate.windows().record(self.world.awake());
            Ok(Admitted(permit))
        })
        .await
    }

    /// Whether a call with so many before it can leave before the item's deadline.
    fn in_time(&self, rate: &Rate, ahead: u64, slot: &Slot) -> Result<(), WaitRefused> {
        let Some(deadline) = slot.deadline() else { return Ok(()) };
        let now = self.world.awake();
        let wait = rate.windows().after(now, ahead).since(now);
        if self.world.boot() + wait > deadline { Err(WaitRefused::PastDeadline) } else { Ok(()) }
    }
}

impl Rate {
    fn windows(&self) -> MutexGuard<'_, Windows> {
        // No code that can panic runs under this lock.
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among those that wait for the rate.
struct Place<'a> {
    waiting: &'a AtomicU64,
    ahead: u64,
}

impl Place<'_> {
    fn behind(waiting: &AtomicU64) -> Place<'_> {
        let ahead = waiting.fetch_add(1, Ordering::Relaxed);
        Place { waiting, ahead }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
