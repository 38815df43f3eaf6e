//! The retry loop of one call: admission, attempt, judgement by the caller, wait (RUNS T1 to T5).
//!
//! Actions drive it: they send, look at the answer, and say how it was. It counts attempts in the item's slot and decides
//! whether there is another; what an answer means is the caller's business.

use super::{Answer, Request, Service, Sink, retry::is_retried};
use crate::{
    flow::{Slot, WaitRefused},
    item::{Class, Failure},
    limits::SNOOZE_JITTER_MAX,
};
use std::time::Duration;

/// The attempts of one call.
pub struct Attempts<'a> {
    service: &'a Service,
    slot: &'a Slot,
    counted: u32,
    sent: u32,
    last: Option<Failure>,
}

/// Why a call ends without a good answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The service has given up; nobody else retries.
    Failed(Failure),
    /// The item waits outside memory and begins again at its first action.
    Defer {
        /// How long.
        wait: Duration,
        /// Counted attempts so far.
        attempts: u32,
    },
    /// Nothing was tried, and the item's deadline leaves no time to.
    PastDeadline,
}

impl<'a> Attempts<'a> {
    /// A new call for the item in `slot`. The first call after a deferral goes on from the attempts counted before it.
    pub fn new(service: &'a Service, slot: &'a Slot) -> Attempts<'a> {
        Attempts { service, slot, counted: slot.take_carried(), sent: 0, last: None }
    }

    /// Waits for the service's limits, then sends the request once and reads its answer. The inner error is a failed
    /// attempt, for [`Attempts::again`].
    ///
    /// # Errors
    /// When the item's deadline leaves no time for it.
    ///
    /// # Cancel safety
    /// Dropping it closes the connection and gives its place and permits back.
    pub async fn send(
        &mut self,
        request: &Request,
        sink: Option<&mut (dyn Sink + '_)>,
    ) -> Result<Result<Answer, Failure>, Ended> {
        let admitted = match self.service.admit(self.slot).await {
            Ok(admitted) => admitted,
            Err(refused) => return Err(self.refused(refused, None)),
        };
        self.sent += 1;
        let result = self.service.exchange(request, sink, self.slot).await;
        drop(admitted);
        Ok(result)
    }

    /// How often the request has been sent in this call.
    pub fn sent(&self) -> u32 {
        self.sent
    }

    /// The answer was good: the attempt is counted.
    pub fn done(mut self) {
        self.count();
    }

    /// The attempt failed. Waits until there is to be another; `stated` is what the answer asked for.
    ///
    /// # Errors
    /// When there is to be none: the class is not retried, the attempts are used up, or the wait would end past the
    /// item's deadline. Or when the item is to wait outside memory.
    ///
    /// # Cancel safety
    /// Dropping it ends the wait.
    pub async fn again(&mut self, failure: Failure, stated: Option<Duration>) -> Result<(), Ended> {
        let stated = stated.map(|wait| wait.min(self.service.retry_after_max));
        let snooze = stated.is_some() && matches!(failure.class, Class::Http(429 | 503));
        if !snooze {
            self.count();
            if !is_retried(failure.class) || self.counted >= self.service.retry.max_attempts {
                return Err(Ended::Failed(failure));
            }
        }
        let unit = self.service.world.random_unit();
        let wait = match stated {
            // Never earlier than asked for, and not all at the same instant.
            Some(wait) => wait + (wait / 10).min(SNOOZE_JITTER_MAX).mul_f64(unit),
            None => Duration::ZERO,
        };
        let wait = if snooze { wait } else { wait.max(self.service.retry.backoff(self.counted, &self.service.world)) };
        match self.slot.wait(wait).await {
            Ok(()) => {
                self.last = Some(failure);
                Ok(())
            }
            Err(refused) => Err(self.refused(refused, Some(failure))),
        }
    }

    fn count(&mut self) {
        self.counted += 1;
        self.slot.count_attempts(self.counted);
    }

    fn refused(&mut self, refused: WaitRefused, failure: Option<Failure>) -> Ended {
        match refused {
            WaitRefused::Defer(wait) => Ended::Defer { wait, attempts: self.counted },
            WaitRefused::PastDeadline => match failure.or_else(|| self.last.take()) {
                Some(failure) => Ended::Failed(failure),
                None => Ended::PastDeadline,
            },
        }
    }
}
