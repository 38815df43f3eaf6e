//! Scopes, groups, permits and bounded channels: structured concurrency without any word of jobs.
//!
//! `service`, `action` and `run` build on it. It spawns only on the world that it was given, and everything that it
//! hands out gives itself back on drop.

mod semaphore;
mod slot;
mod work;

pub use semaphore::{Semaphore, SemaphoreGuard};
pub use slot::{Slot, WaitRefused};
pub use work::{Pulled, WorkPermits};
