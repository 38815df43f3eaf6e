//! What is kept of runs: rows of items, keys, groups, outputs.
//!
//! `run` asks through [`RunStore`]; the rows live in SQLite ([`sqlite`]) or in memory ([`memory`], for tests and
//! embedders). One conformance suite holds for both. Rows of one run never see those of another.

pub mod memory;
pub mod sqlite;
mod request;

#[cfg(test)]
mod conformance;

pub use request::{Claim, GroupMember, Membership, Page, Reply, Request, Row, RowEnd, StoreError, StoredFailure, StoredValue};

use crate::{
    item::{Key, Lineage, OutputRecord},
    world::BoxFuture,
};
use std::sync::Arc;

/// Where rows live. Requests of one store are served in the order in which they were made (FIFO).
pub trait Store: Send + Sync {
    /// Serves one request. `Put`, `AssignGroup` and `RecordOutput` return when they are accepted: they wait while two
    /// batches are uncommitted, and are committed behind; every other request sees all that was accepted before it.
    fn call(&self, request: Request) -> BoxFuture<'_, Result<Reply, StoreError>>;
    /// The same for a CPU thread, which may block.
    fn call_blocking(&self, request: Request) -> Result<Reply, StoreError>;
}

/// The rows of one run in a store, with typed questions. Cheap to clone.
#[derive(Clone)]
pub struct RunStore {
    store: Arc<dyn Store>,
    run: Arc<str>,
}

impl RunStore {
    /// The rows of `run` in `store`.
    pub fn new(store: Arc<dyn Store>, run: &str) -> RunStore {
        RunStore { store, run: run.into() }
    }
}
