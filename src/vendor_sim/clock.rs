//! The simulated vendor's own clocks: it stands for the outside world, whose time is never the scheduler's.
//!
//! Called by the endpoints, the server and its writers; nothing else in this room reads a clock or waits.

#![allow(
    clippy::disallowed_methods,
    reason = "the vendor is not part of the scheduler's world: it must not follow a simulated clock"
)]

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use smol::Timer;

/// Now, for token lives, rates and outages.
pub(super) fn now() -> Instant {
    Instant::now()
}

/// Waits.
pub(super) async fn sleep(duration: Duration) {
    Timer::after(duration).await;
}

/// Waits until an instant.
pub(super) async fn sleep_until(instant: Instant) {
    Timer::at(instant).await;
}

/// The time of day `ahead` of now, as HTTP headers write it.
pub(super) fn http_date(ahead: Duration) -> String {
    let now = Timestamp::now();
    // Only the end of the calendar is out of range.
    let then = SignedDuration::try_from(ahead).ok().and_then(|ahead| now.checked_add(ahead).ok()).unwrap_or(now);
    then.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}
