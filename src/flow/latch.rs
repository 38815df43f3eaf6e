//! A value that is settled once: the first one stays, whoever comes later.

use event_listener::{Event, EventListener};
use std::sync::OnceLock;

/// Settled at most once, and everybody who listens is woken then.
pub struct Latch<T> {
    value: OnceLock<T>,
    event: Event,
}

impl<T> Latch<T> {
    /// An unsettled latch.
    pub fn new() -> Latch<T> {
        Latch { value: OnceLock::new(), event: Event::new() }
    }

    /// Settles it. `false`, and `value` is dropped, when it is settled already.
    pub fn settle(&self, value: T) -> bool {
        let first = self.value.set(value).is_ok();
        if first {
            self.event.notify(usize::MAX);
        }
        first
    }

    /// The value, once settled.
    pub fn get(&self) -> Option<&T> {
        self.value.get()
    }

    /// True once settled.
    pub fn is_settled(&self) -> bool {
        self.value.get().is_some()
    }

    /// Waits until it is settled.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn wait(&self) -> &T {
        loop {
            if let Some(value) = self.get() {
                return value;
            }
            let listener: EventListener = self.event.listen();
            if let Some(value) = self.get() {
                return value;
            }
            listener.await;
        }
    }
}

impl<T> Default for Latch<T> {
    fn default() -> Latch<T> {
        Latch::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};

    #[test]
    fn the_first_value_stays_and_wakes_all_who_wait() {
        block_on(async {
            let latch = Latch::new();
            let (mut a, mut b) = (Box::pin(latch.wait()), Box::pin(latch.wait()));
            assert!(poll_once(&mut a).await.is_none() && poll_once(&mut b).await.is_none());
            assert!(latch.settle(1));
            assert!(!latch.settle(2));
            assert_eq!((*a.await, *b.await, *latch.wait().await), (1, 1, 1));
        });
    }
}
