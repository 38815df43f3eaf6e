//! Groups, permits, latches and bounded channels: structured concurrency without any word of jobs.
//!
//! `service`, `action` and `run` build on it. It spawns only on the world that it was given, and everything that it
//! hands out gives itself back on drop.

mod group;
mod inbox;
mod latch;
mod order;
mod semaphore;
mod slot;
mod work;

pub use group::{Group, panic_text};
pub use inbox::{Inbox, PullEnd, Refused};
pub use latch::Latch;
pub use order::{Order, OrderPlace};
pub use semaphore::{Semaphore, SemaphoreGuard};
pub use slot::{ItemBound, Slot, WaitRefused};
pub use work::{Pulled, WorkPermits};
