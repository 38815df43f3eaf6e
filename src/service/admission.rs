//! The way into a service: the rate, then the in-flight limit, each in the order of arrival.
//!
//! Called by [`super::call`] before each attempt. An item that has to wait does so without its work permit; nothing waits
//! while it holds an in-flight permit, also not for its work permit (RUNS T5), and everything gives itself back on drop.

use super::rate::Windows;
use crate::{
    flow::{Semaphore, SemaphoreGuard, Slot, WaitRefused},
    world::{Awake, Due, World},
};
use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// The limits of one service, shared by all its calls, of all runs that name it.
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
pub struct Admitted(#[allow(dead_code, reason = "held until the answer has ended")] Option<SemaphoreGuard>);

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
        loop {
            if let Some(admitted) = self.at_once() {
                return Ok(admitted);
            }
            let place = self.rate.as_ref().map(|rate| (rate, Place::behind(&rate.waiting)));
            if let Some((rate, place)) = &place {
                self.in_time(rate, place.ahead, slot)?;
            }
            let waited = slot.parked_for(async {
                let turn = match &self.rate {
                    Some(rate) => {
                        let turn = rate.turn.acquire().await;
                        self.in_time(rate, 0, slot)?;
                        let ready = rate.windows().ready_at(self.world.awake());
                        self.world.until(Due::Awake(ready)).await;
                        Some(turn)
                    }
                    None => None,
                };
                let permit = match &self.in_flight {
                    Some(in_flight) => Some(in_flight.acquire().await),
                    None => None,
                };
                Ok((turn, permit))
            });
            if let Some(waited) = waited.await {
                let (_turn, permit) = waited?;
                if let Some(rate) = &self.rate {
                    rate.windows().record(self.world.awake());
                }
                return Ok(Admitted(permit));
            }
            if let Some(admitted) = self.before_others().await {
                return Ok(admitted);
            }
        }
    }

    /// For a call whose work permit is there, and that had to give on what it had waited for: with the permit it waits before
    /// all others. Else those with a permit and those with a place could pass both on for ever, and nobody would have both.
    /// Who holds a place goes on by itself, so this wait is as long as a call at most. `None` when the rate says to wait:
    /// that is done without a permit.
    async fn before_others(&self) -> Option<Admitted> {
        let _turn = match &self.rate {
            Some(rate) if rate.windows().ready_at(self.world.awake()) <= self.world.awake() => {
                Some(rate.turn.acquire_first().await)
            }
            Some(_) => return None,
            None => None,
        };
        let is_ready = |rate: &Rate| rate.windows().ready_at(self.world.awake()) <= self.world.awake();
        if !self.rate.as_ref().is_none_or(is_ready) {
            return None;
        }
        let permit = match &self.in_flight {
            Some(in_flight) => Some(in_flight.acquire_first().await),
            None => None,
        };
        if let Some(rate) = &self.rate {
            rate.windows().record(self.world.awake());
        }
        Some(Admitted(permit))
    }

    /// Lets a call in that need not wait, and counts it.
    fn at_once(&self) -> Option<Admitted> {
        let turn = match &self.rate {
            Some(rate) => Some((rate, rate.turn.try_acquire()?)),
            None => None,
        };
        let now = self.world.awake();
        if let Some((rate, _)) = &turn
            && rate.windows().ready_at(now) > now
        {
            return None;
        }
        let permit = match &self.in_flight {
            Some(in_flight) => Some(in_flight.try_acquire()?),
            None => None,
        };
        if let Some((rate, _turn)) = turn {
            rate.windows().record(now);
        }
        Some(Admitted(permit))
    }

    /// When a call has last been counted by the rate.
    pub(super) fn last_call(&self) -> Option<Awake> {
        self.rate.as_ref().and_then(|rate| rate.windows().last())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        flow::WorkPermits,
        world::{Task, sim::Sim},
    };
    use std::sync::Arc;

    /// Lets `calls` in, each of which takes `took`; when each began, in the order of arrival.
    fn enter_all(sim: &Sim, admission: Admission, calls: usize, took: Duration) -> Vec<Duration> {
        let world = sim.world();
        let admission = Arc::new(admission);
        let begun = Arc::new(Mutex::new(vec![Duration::MAX; calls]));
        let start = world.awake();
        sim.run(async {
            let tasks: Vec<Task<()>> = (0..calls)
                .map(|call| {
                    let (admission, begun, world) = (admission.clone(), begun.clone(), world.clone());
                    world.clone().spawn(async move {
                        // They arrive one after the other.
                        world.sleep(Duration::from_micros(call as u64)).await;
                        let _admitted = admission.enter(&Slot::free(world.clone())).await.expect("no deadline");
                        begun.lock().expect("lock")[call] = world.awake().since(start);
                        world.sleep(took).await;
                    })
                })
                .collect();
            for task in tasks {
                task.await;
            }
        })
        .expect("ends");
        assert_eq!(sim.leaked(), 0);
        Arc::into_inner(begun).expect("all have ended").into_inner().expect("lock")
    }

    #[test]
    fn a_call_without_a_work_permit_gives_its_place_in_flight_to_others() {
        let sim = Sim::new(7);
        let world = sim.world();
        let done = sim.run(async {
            let admission = Arc::new(Admission::new(world.clone(), &[], Some(1)));
            let other = Slot::free(world.clone());
            let permits = WorkPermits::new(1);
            permits.acquire_returning().await;
            let slot = Slot::new(world.clone(), permits.clone(), false);
            slot.begin_item(None, 0);
            let first = admission.enter(&other).await.expect("a place is free");
            let waiting = {
                let (admission, world) = (admission.clone(), world.clone());
                world.clone().spawn(async move {
                    drop(admission.enter(&slot).await.expect("let in"));
                    assert!(world.awake() >= Awake(Duration::from_secs(1_060)), "only with a work permit");
                    assert!(slot.end_item());
                })
            };
            world.sleep(Duration::from_secs(1)).await;
            // It waits without its permit, which another item takes now for a minute.
            permits.acquire_returning().await;
            drop(first);
            world.sleep(Duration::from_secs(1)).await;
            drop(admission.enter(&other).await.expect("nobody holds the place"));
            assert!(world.awake() < Awake(Duration::from_secs(1_010)));
            world.sleep(Duration::from_secs(60)).await;
            permits.release_working();
            waiting.await;
        });
        assert_eq!(done, Ok(()));
    }

    #[test]
    fn calls_leave_in_the_order_of_arrival_and_never_faster_than_the_rate() {
        for seed in 0..20 {
            let sim = Sim::new(seed);
            let rates = [(10, Duration::from_secs(1)), (25, Duration::from_secs(60))];
            let begun = enter_all(&sim, Admission::new(sim.world(), &rates, None), 60, Duration::from_millis(50));
            assert!(begun.is_sorted(), "seed {seed}");
            for (count, window) in rates {
                for pair in begun.windows(count as usize + 1) {
                    assert!(pair[count as usize] - pair[0] >= window, "seed {seed}");
                }
            }
            assert_eq!(begun[59].as_secs(), 120, "and no slower");
        }
    }

    #[test]
    fn rate_and_in_flight_hold_together() {
        let sim = Sim::new(7);
        let rates = [(100, Duration::from_secs(1))];
        let begun = enter_all(&sim, Admission::new(sim.world(), &rates, Some(4)), 40, Duration::from_secs(1));
        assert!(begun.is_sorted());
        for pair in begun.windows(5) {
            assert!(pair[4] - pair[0] >= Duration::from_secs(1));
        }
    }

    #[test]
    fn who_goes_gives_its_place_back_and_counts_nothing() {
        let sim = Sim::new(1);
        let world = sim.world();
        sim.run(async {
            let admission = Admission::new(world.clone(), &[(1, Duration::from_secs(1))], Some(1));
            let slot = Slot::free(world.clone());
            let first = admission.enter(&slot).await.expect("at once");
            let mut gone: Vec<_> = (0..3).map(|_| Box::pin(admission.enter(&slot))).collect();
            for waiting in &mut gone {
                assert!(futures_lite::future::poll_once(waiting).await.is_none());
            }
            drop((gone, first));
            let start = world.awake();
            drop(admission.enter(&slot).await.expect("waits"));
            assert_eq!(world.awake().since(start), Duration::from_secs(1), "only the one that left was counted");
            assert_eq!(admission.rate.as_ref().expect("a rate").waiting.load(Ordering::Relaxed), 0);
        })
        .expect("ends");
    }

    #[test]
    fn a_call_that_would_leave_after_the_deadline_does_not_wait() {
        let sim = Sim::new(1);
        let world = sim.world();
        sim.run(async {
            let admission = Admission::new(world.clone(), &[(1, Duration::from_secs(10))], None);
            let slot = Slot::free(world.clone());
            drop(admission.enter(&slot).await.expect("at once"));
            let others = [Slot::free(world.clone()), Slot::free(world.clone())];
            let mut waiting: Vec<_> = others.iter().map(|slot| Box::pin(admission.enter(slot))).collect();
            for waiting in &mut waiting {
                assert!(futures_lite::future::poll_once(waiting).await.is_none());
            }
            let begun: Awake = world.awake();
            slot.begin_item(Some(world.boot() + Duration::from_secs(25)), 0);
            assert_eq!(admission.enter(&slot).await.err(), Some(WaitRefused::PastDeadline), "the third leaves at 30 s");
            assert_eq!(world.awake(), begun);
        })
        .expect("ends");
    }
}
