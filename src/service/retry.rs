//! How often a failure is tried again, and how long before: what authors write and what it computes.
//!
//! Used by services for calls and by stages for whole attempts. It never waits itself.

use crate::{
    item::Class,
    lang::Checker,
    limits::{ATTEMPTS_MAX, DURATION_MAX},
    units::Span,
    world::World,
};
use std::time::Duration;

crate::spec! {
    /// How often a failure is tried again, and how long to wait before it.
    pub struct RetrySpec as "Retry" {
        /// Attempts in all, the first one too.
        max_attempts: Option<u32>, default "4", example "4";
        /// Longest wait before the second attempt.
        initial_interval: Option<Span>, default "500ms", example "\"200ms\"";
        /// Longest wait before any attempt.
        max_interval: Option<Span>, default "10s", example "\"10s\"";
        /// By how much the wait grows from one attempt to the next.
        multiplier: Option<f64>, default "2", example "2";
        /// How the wait is spread, so that many items do not come back at once.
        jitter: Option<Jitter>, default "Full", example "Full";
    }
}

crate::choice! {
    /// How a wait is spread.
    pub enum Jitter as "Jitter" {
        /// Anything from nothing to the whole wait.
        Full,
        /// Always the whole wait.
        Exact,
    }
}

/// A checked [`RetrySpec`].
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// Attempts in all, at least 1.
    pub max_attempts: u32,
    initial: Duration,
    max: Duration,
    multiplier: f64,
    full_jitter: bool,
}

impl Retry {
    /// One attempt: what a stage does that says nothing.
    pub fn once() -> Retry {
        Retry { max_attempts: 1, ..Retry::default() }
    }

    /// Waits of a millisecond.
    #[cfg(test)]
    pub(crate) fn quick(max_attempts: u32) -> Retry {
        Retry { max_attempts, initial: Duration::from_millis(1), max: Duration::from_millis(1), ..Retry::default() }
    }

    /// How long to wait after `attempts` counted ones (at least 1).
    pub fn backoff(&self, attempts: u32, world: &World) -> Duration {
        self.wait(attempts, world.random_unit())
    }

    /// The same with a random number in [0, 1).
    fn wait(&self, attempts: u32, unit: f64) -> Duration {
        let exponent = i32::try_from(attempts.saturating_sub(1)).unwrap_or(i32::MAX);
        let grown = self.initial.as_secs_f64() * self.multiplier.powi(exponent);
        // Too large, and not a number (nothing times infinity), are the longest wait.
        let whole = if grown < self.max.as_secs_f64() { Duration::from_secs_f64(grown) } else { self.max };
        if self.full_jitter { whole.mul_f64(unit.clamp(0.0, 1.0)) } else { whole }
    }
}

impl Default for Retry {
    /// What a service does that says nothing.
    fn default() -> Retry {
        Retry {
            max_attempts: 4,
            initial: Duration::from_millis(500),
            max: Duration::from_secs(10),
            multiplier: 2.0,
            full_jitter: true,
        }
    }
}

/// Checks a `retry` field at `path`. `None` when there were errors.
pub fn check(spec: &RetrySpec, path: &str, checker: &mut Checker<'_>) -> Option<Retry> {
    let default = Retry::default();
    let initial = spec.initial_interval.map_or(default.initial, Span::get);
    let retry = Retry {
        max_attempts: spec.max_attempts.unwrap_or(default.max_attempts),
        initial,
        // A first wait longer than the usual ceiling raises it, where the author did not say one.
        max: spec.max_interval.map_or(default.max.max(initial), Span::get),
        multiplier: spec.multiplier.unwrap_or(default.multiplier),
        full_jitter: !matches!(spec.jitter, Some(Jitter::Exact)),
    };
    let mut ok = true;
    let mut error = |field: &str, message: &str, help: &str| {
        checker.error(&format!("{path}.{field}"), message, Some(help));
        ok = false;
    };
    if !(1..=ATTEMPTS_MAX).contains(&retry.max_attempts) {
        error(
            "max_attempts",
            "`max_attempts` must be 1 to 100",
            "write `max_attempts: 4`; 1 means that nothing is tried again",
        );
    }
    if retry.initial.is_zero() && retry.max_attempts > 1 {
        error(
            "initial_interval",
            "a retry without any wait only makes a bad moment worse",
            "write `initial_interval: \"200ms\"`",
        );
    }
    if retry.max < retry.initial || retry.max > DURATION_MAX {
        error("max_interval", "`max_interval` is shorter than `initial_interval`", "make it longer, or leave it out");
    }
    if !(1.0..=100.0).contains(&retry.multiplier) {
        error("multiplier", "`multiplier` must be 1 to 100", "write `multiplier: 2`; 1 means the same wait each time");
    }
    ok.then_some(retry)
}

/// Whether a service tries again after a failure of this class (RUNS T1). `answer` is that of `retry_if`.
pub fn is_retried(class: Class) -> bool {
    match class {
        Class::Transport | Class::Timeout | Class::Decode | Class::Answer => true,
        Class::Http(status) => matches!(status, 408 | 425 | 429 | 500..=599),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_classes_that_are_tried_again_are_those_that_another_attempt_may_mend() {
        let retried =
            ["transport", "timeout", "decode", "answer", "http_408", "http_425", "http_429", "http_500", "http_599"];
        let final_ones = [
            "http_400",
            "http_401",
            "http_404",
            "http_409",
            "http_301",
            "http_600",
            "too_large",
            "redirect",
            "data",
            "output",
            "panic",
            "conflict",
        ];
        for text in retried {
            assert!(is_retried(Class::parse(text).expect("a class")), "{text}");
        }
        for text in final_ones {
            assert!(!is_retried(Class::parse(text).expect("a class")), "{text}");
        }
    }

    #[test]
    fn waits_grow_to_their_ceiling() {
        let retry = Retry { full_jitter: false, ..Retry::default() };
        let waits: Vec<_> = (1..8).map(|n| retry.wait(n, 0.3).as_millis()).collect();
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
        assert_eq!(retry.wait(u32::MAX, 0.3).as_secs(), 10);
    }

    proptest! {
        #[test]
        fn full_jitter_is_between_nothing_and_the_whole_wait(attempts in 1u32..200, unit in 0.0f64..1.0) {
            let retry = Retry::default();
            let whole = Retry { full_jitter: false, ..retry.clone() }.wait(attempts, unit);
            let wait = retry.wait(attempts, unit);
            prop_assert!(wait <= whole);
            prop_assert!((wait.as_secs_f64() - whole.as_secs_f64() * unit).abs() < 1e-6);
        }
    }
}
