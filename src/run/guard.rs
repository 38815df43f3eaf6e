//! One attempt behind its fences: panic, cut, item deadline, timeout.

use super::{
    pool::SlotPool,
    state::{Cut, CutWatch},
};
use crate::{
    flow::{Slot, panic_text},
    world::{
        Alarm, Due, World,
        plant::{Bug, planted},
    },
};
use std::{
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

/// How an attempt came back.
#[derive(Debug)]
pub enum Guarded<T> {
    /// By itself.
    Done(T),
    /// It panicked with this text.
    Panicked(String),
    /// Its stage was closed or its run cancelled.
    Cut(Cut),
    /// The item's deadline passed.
    PastDeadline,
    /// It worked longer than its timeout.
    TimedOut,
}

/// The alarms of one worker, set again for each item.
pub struct Alarms {
    deadline: Box<dyn Alarm>,
    timeout: Box<dyn Alarm>,
}

impl Alarms {
    pub fn new(world: &World) -> Alarms {
        Alarms { deadline: world.alarm(), timeout: world.alarm() }
    }
}

/// Runs `attempt` until it is done or something cuts it: a cut of the stage or the run (a stop cuts one that waits without a
/// work permit before one that works), the item's own deadline, `timeout`.
/// The attempt is polled first, so a success in the same tick as a deadline is a success; clocks are read only while it is
/// pending.
///
/// The attempt stays where the caller has pinned it: every worker would hold the room for it twice.
pub fn guard<'a, T>(
    mut attempt: Pin<&'a mut (impl Future<Output = T> + ?Sized)>,
    slot: &'a Slot,
    watch: &'a mut CutWatch,
    alarms: &'a mut Alarms,
    pool: Option<&'a SlotPool>,
    timeout: Option<Duration>,
) -> impl Future<Output = Guarded<T>> {
    poll_fn(move |cx| {
        match fenced(attempt.as_mut(), cx) {
            Poll::Ready(Ok(value)) => return Poll::Ready(Guarded::Done(value)),
            Poll::Ready(Err(message)) => return Poll::Ready(Guarded::Panicked(message)),
            Poll::Pending => {}
        }
        let deaf = planted(Bug::CancelMissesParked) && slot.is_parked();
        if !deaf && let Poll::Ready(cut) = watch.poll(cx, !slot.is_parked()) {
            return Poll::Ready(Guarded::Cut(cut));
        }
        if let Some(deadline) = slot.own_deadline()
            && alarms.deadline.poll(cx, Due::Boot(deadline)).is_ready()
        {
            return Poll::Ready(Guarded::PastDeadline);
        }
        if let Some(timeout) = timeout
            && let Some(at) = slot.timeout_at(timeout)
            && alarms.timeout.poll(cx, Due::Awake(at)).is_ready()
        {
            return Poll::Ready(Guarded::TimedOut);
        }
        if let Some(pool) = pool
            && slot.is_parked()
        {
            pool.add_if_spare();
        }
        Poll::Pending
    })
}

fn fenced<T>(attempt: Pin<&mut (impl Future<Output = T> + ?Sized)>, cx: &mut Context<'_>) -> Poll<Result<T, String>> {
    match catch_unwind(AssertUnwindSafe(|| attempt.poll(cx))) {
        Ok(poll) => poll.map(Ok),
        Err(panic) => Poll::Ready(Err(panic_text(panic))),
    }
}
