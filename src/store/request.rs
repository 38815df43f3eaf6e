//! What can be asked of a store, as plain data.

use crate::item::{Key, Lineage, Outcome, OutputRecord, Value};
use std::{fmt, sync::Arc};

/// One item in one stage (RUNS S1).
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Place of the stage in the job.
    pub stage: u16,
    /// The item's identity.
    pub lineage: Lineage,
    /// Its name.
    pub key: Key,
    /// How it stands.
    pub end: RowEnd,
    /// Counted attempts.
    pub attempts: u32,
    /// The message of a failure.
    pub message: Option<String>,
    /// What it gave, in order (ok); what came in (a missing item, where a `By` gather below needs it; a deferred one).
    /// Empty where nobody reads them.
    pub values: Vec<Value>,
}

/// How an item of a stage stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowEnd {
    /// Terminal. A row with a terminal end is never replaced.
    Done(Outcome),
    /// Waits outside memory until this reading of the boot clock, in milliseconds since its start.
    Retry {
        /// Milliseconds.
        at_ms: u64,
        /// Its item deadline, on the same clock: it began when the item was first taken, and goes on while it waits.
        deadline_ms: Option<u64>,
    },
}

/// Answer to a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is the asker's, now or since before.
    Mine,
    /// Somebody else of the run has it: stage and key of the first.
    Taken {
        /// Stage of the holder.
        stage: u16,
        /// Key of the holder.
        key: Key,
        /// Lineage of the holder.
        lineage: Lineage,
    },
}

/// How a member belongs to a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Membership {
    /// An ok value of a direct parent: makes the group.
    Value,
    /// A missing item of a direct parent: makes the group.
    MissingOfParent,
    /// A missing item of a further ancestor: seen by a group that others make.
    MissingOfAncestor,
}

/// One member of a group of a `By` gather.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMember {
    /// The text of the group.
    pub text: String,
    /// Stage of the member's row.
    pub stage: u16,
    /// Its lineage.
    pub lineage: Lineage,
    /// Place among the values of the row; 0 for a missing item.
    pub index: u32,
    /// Why it belongs.
    pub membership: Membership,
}

/// A place in a listing of values: read on from behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Stage, lineage and value index of the last one read; `None` at the beginning.
    pub after: Option<(Lineage, u16, u32)>,
    /// At most so many. An answer may hold fewer: it also ends behind [`crate::limits::PAGE_BYTES`] of values. Only an
    /// empty answer is the end.
    pub limit: usize,
}

/// A value of an ok row.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredValue {
    /// Stage that gave it.
    pub stage: u16,
    /// Lineage of the row.
    pub lineage: Lineage,
    /// Key of the row.
    pub key: Key,
    /// Place among the values of the row.
    pub index: u32,
    /// The value.
    pub value: Value,
}

/// A missing item.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredFailure {
    /// Stage in which it is missing.
    pub stage: u16,
    /// Its lineage.
    pub lineage: Lineage,
    /// Its key.
    pub key: Key,
    /// How it ended.
    pub outcome: Outcome,
    /// The message of its failure; empty where it has none.
    pub message: String,
    /// Counted attempts.
    pub attempts: u32,
    /// What came in, where it was stored.
    pub value: Option<Value>,
}

/// One request. Every one names its run.
#[derive(Clone, Debug)]
pub enum Request {
    /// Writes rows (one transaction with what is queued). A `Retry` row is replaced by the next row of its item; a second
    /// row for a settled item is a defect of the engine and stops the store. Answer: `Done`.
    Put(Arc<str>, Vec<Row>),
    /// Commits all that was accepted before. Answer: `Done`.
    Flush(Arc<str>),
    /// Takes a key among the listed items of a stage for a lineage. Answer: `Claim`.
    ClaimKey(Arc<str>, u16, Key, Lineage),
    /// The same for many, one after the other. Answer: `Claims`, in the order of the question.
    ClaimKeys(Arc<str>, u16, Vec<(Key, Lineage)>),
    /// Takes an output path for an item, which is (stage, lineage). Answer: `Claim`.
    ClaimOutput(Arc<str>, String, u16, Key, Lineage),
    /// Records a written file; the same path again replaces it. Answer: `Done`.
    RecordOutput(Arc<str>, OutputRecord),
    /// The first files in path order, and how many there are. Answer: `Outputs`.
    Outputs(Arc<str>, usize),
    /// Values of ok rows of these stages in (lineage, stage, index) order, of one group of a gather or all. Answer: `Values`.
    Values {
        /// The run.
        run: Arc<str>,
        /// Stages whose values are asked for.
        stages: Vec<u16>,
        /// Gather and text.
        group: Option<(u16, String)>,
        /// Where to go on.
        page: Page,
    },
    /// Missing items of these stages in (stage, lineage) order, of one group or all; `page.after` holds the last one read.
    /// Answer: `Failures`.
    Failures {
        /// The run.
        run: Arc<str>,
        /// Stages whose missing items are asked for.
        stages: Vec<u16>,
        /// Gather and text.
        group: Option<(u16, String)>,
        /// Where to go on.
        page: Page,
    },
    /// Puts members into groups of a gather; the same member again replaces itself. Answer: `Done`.
    AssignGroups(Arc<str>, u16, Vec<GroupMember>),
    /// Distinct texts of a gather's groups (made by `Value` or `MissingOfParent`) in byte order behind a text. Answer: `Texts`.
    Groups(Arc<str>, u16, Option<String>, usize),
    /// `Retry` rows of a stage in (at, lineage) order, at most so many, and at most so many bytes as a [`Page`]; they stay
    /// until a later row replaces them. Answer: `Rows`.
    Deferred(Arc<str>, u16, Option<(u64, Lineage)>, usize),
    /// Forgets all rows of the run. Answer: `Done`.
    Forget(Arc<str>),
}

impl Request {
    /// True when it writes nothing: such a request is answered by a full store too.
    pub(super) fn only_reads(&self) -> bool {
        matches!(
            self,
            Request::Values { .. }
                | Request::Failures { .. }
                | Request::Outputs(..)
                | Request::Groups(..)
                | Request::Deferred(..)
        )
    }
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// Accepted, or committed.
    Done,
    /// Of `ClaimKey` and `ClaimOutput`.
    Claim(Claim),
    /// Of `ClaimKeys`.
    Claims(Vec<Claim>),
    /// Of `Outputs`: the first ones, and how many there are.
    Outputs(Vec<OutputRecord>, u64),
    /// Of `Values`.
    Values(Vec<StoredValue>),
    /// Of `Failures`.
    Failures(Vec<StoredFailure>),
    /// Of `Groups`.
    Texts(Vec<String>),
    /// Of `Deferred`.
    Rows(Vec<Row>),
}

/// Why a store could not do what it was asked. Every error stays: after `Full` nothing more is written, though what was
/// committed can be read; after `Io` nothing is answered any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// It may not grow further (`spool_max`).
    Full {
        /// The ceiling in bytes.
        limit: u64,
    },
    /// The file could not be read or written; the text of the cause.
    Io(String),
    /// Its thread has ended.
    Closed,
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Full { limit } => {
                write!(f, "the store of the run is full at {limit} bytes: raise `spool_max` in lamplighter.ron")
            }
            StoreError::Io(cause) => write!(f, "the store of the run cannot be read or written: {cause}"),
            StoreError::Closed => f.write_str("the store of the run is closed"),
        }
    }
}

impl std::error::Error for StoreError {}
