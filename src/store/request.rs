//! What can be asked of a store, as plain data.

use super::firing::{FiringRow, Mark};
use super::kept::{
    Begun, Clocks, Copied, CopyPlan, EventQuery, Forgotten, NewRun, Notice, Retained, Retention, RowHead, RowQuery,
    RunDetails, RunEnd, RunEvent, RunHead, TakenOver, Tally, Unsettled,
};
use crate::{
    item::{Key, Lineage, Outcome, OutputRecord, Value},
    world::plant::{Bug, planted},
};
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
    /// How long it took from being taken to being settled, in milliseconds; `None` where nobody measured.
    pub took_ms: Option<u32>,
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
    /// An attempt has begun that must not be repeated after a crash (`on_crash: Hold`): a take-over makes it `held`.
    Started,
}

/// Answer to a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is the asker's, now or since before.
    Mine,
    /// An earlier pass of the run recorded it, and this pass has not met it before: the recorded item stands.
    Known {
        /// Lineage of the recorded item.
        lineage: Lineage,
    },
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
    /// row for a settled item is a defect of the engine and stops the store. With how long the run has run, in
    /// milliseconds, where that is kept. Answer: `Done`.
    Put(Arc<str>, Vec<Row>, Option<u64>),
    /// Commits all that was accepted before. Answer: `Done`.
    Flush(Arc<str>),
    /// Takes a key among the listed items of a stage for a lineage. A key of an earlier pass whose item has a row is
    /// `Known` once, then `Taken`; one without a row is free. Answer: `Claim`.
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

    /// Begins a run; committed before the answer. Answer: `Begun`.
    Begin(Box<NewRun>),
    /// Takes over a run that nobody works on: its pass is one higher, its item deadlines begin anew, its waits go on by
    /// these clocks. Committed before the answer. Answer: `TakenOver`.
    TakeOver(Arc<str>, Clocks),
    /// The asker lets its run go, to be resumed. Committed before the answer. Answer: `Changed`.
    Release(Arc<str>),
    /// Settles a run that the asker works on. Committed before the answer. Answer: `Changed`.
    End(Arc<str>, Box<RunEnd>),
    /// Settles a run that nobody works on as `interrupted`. Committed before the answer. Answer: `Changed`.
    Interrupt(Arc<str>, Box<RunEnd>),
    /// A notice was sent. Committed before the answer. Answer: `Changed`.
    NoticeDone(Arc<str>, u16),
    /// Notices that were not sent, by run and place, at most so many. Answer: `Notices`.
    Notices(usize),
    /// Runs that have not ended, of one job or all, oldest first, at most so many. Answer: `Heads`.
    Unfinished(Option<String>, usize),
    /// One run without its rows. Answer: `Details`.
    Details(Arc<str>),
    /// Runs of one job or all, newest first, behind a run, at most so many. Answer: `Heads`.
    History(Option<String>, Option<Arc<str>>, usize),
    /// The listing of a source has ended. Answer: `Done`.
    ListingDone(Arc<str>, u16),
    /// A listing is read again: missing rows of the source are forgotten. The first ordinal that no row has had. Answer:
    /// `Ordinal`.
    Relist(Arc<str>, u16),
    /// A stage has begun, after so many milliseconds of the run and at this time; the first word stands. Answer: `Done`.
    StageBegan(Arc<str>, u16, u64, i64),
    /// Counts of a stage from its rows. Answer: `Tally`.
    Tally(Arc<str>, u16),
    /// Ok items of a stage that an earlier pass wrote, with children that another stage has no row of, in lineage order.
    /// Answer: `Unsettled`.
    Unsettled {
        /// The run.
        run: Arc<str>,
        /// The stage that gave the values.
        parent: u16,
        /// The stage that reads them.
        stage: u16,
        /// Behind this one.
        after: Option<Lineage>,
        /// At most so many, and at most so many bytes as a [`Page`].
        limit: usize,
    },
    /// Which of these items of a stage have a terminal row. Answer: `Flags`.
    Settled(Arc<str>, u16, Vec<Lineage>),
    /// Rows without values. Answer: `RowHeads`.
    RowHeads(Arc<str>, RowQuery),
    /// The rows of a run, or one stage of it, that took longest, at most so many. Answer: `RowHeads`.
    Slowest(Arc<str>, Option<u16>, usize),
    /// Adds lines to the log of a run; the oldest make room. Answer: `Done`.
    AddEvents(Arc<str>, Vec<RunEvent>),
    /// Lines of the log of a run with their numbers, oldest first. Answer: `Events`.
    Events(Arc<str>, EventQuery),
    /// Keeps a value for a key of the run's job, as of a due; with it stay those of later dues and the one before. Answer:
    /// `Done`.
    Keep {
        /// The run that keeps it.
        run: Arc<str>,
        /// Its job.
        job: String,
        /// Whose value it is.
        key: Key,
        /// The due of the run.
        due_ms: i64,
        /// The value.
        value: Value,
    },
    /// The newest kept value of a job and key whose due is earlier. Answer: `Kept`.
    StateOf(String, Key, i64),
    /// Begins a run that repeats another one. Committed before the answer. Answer: `Copied`.
    CopyForRetry(CopyPlan, Box<NewRun>),
    /// Forgets a key, and those below it, everywhere. Committed before the answer. Answer: `Forgotten`.
    ForgetKey(Key),
    /// Takes what retention lets go, some of it: bounded work. Answer: `Retained`.
    Retain(Retention),
    /// The id of this store, made when it was. Answer: `Texts`, one.
    Instance,

    /// The times of jobs were considered: their marks, the firings that came of it, and the runs whose ends were heard with
    /// that. A new firing is written, one that waits comes to the end that is said here; one that has an end or a run stays
    /// as it is. Committed as a whole before the answer. Answer: `Flags`, whether each firing was written.
    Consider(Vec<Mark>, Vec<FiringRow>, Vec<Arc<str>>),
    /// Runs that have ended, and whose ends nobody has heard, in the order in which they began, at most so many. Answer: `Heads`.
    Unheard(usize),
    /// Whether somebody still needs a run that has ended: its notices are to be sent, a run that is open repeats it, or a firing that
    /// waits is due after it. Answer: `Flags`, one.
    IsNeeded(Arc<str>),
    /// Everybody was told of a firing of a job. Committed before the answer. Answer: `Changed`.
    FiringTold(String, String),
    /// Firings that somebody is still to be told of, in the order in which they came, behind a number, at most so many.
    /// Answer: `Firings`.
    FiringsToTell(Option<u64>, usize),
    /// The marks of all jobs, by name. Answer: `Marks`.
    Marks,
    /// Firings that wait, oldest first, behind the one of this due and number, at most so many. Answer: `Firings`.
    WaitingFirings(Option<(i64, u64)>, usize),
    /// Firings that started no run and do not wait, of one job or all, newest first, behind a number, at most so many.
    /// Answer: `Firings`.
    PastFirings(Option<String>, Option<u64>, usize),
}

impl Request {
    /// True when it writes nothing: such a request is answered by a full store too.
    pub fn only_reads(&self) -> bool {
        matches!(
            self,
            Request::Values { .. }
                | Request::Failures { .. }
                | Request::Outputs(..)
                | Request::Groups(..)
                | Request::Deferred(..)
                | Request::Notices(_)
                | Request::Unfinished(..)
                | Request::Details(_)
                | Request::History(..)
                | Request::Tally(..)
                | Request::Unsettled { .. }
                | Request::Settled(..)
                | Request::RowHeads(..)
                | Request::Slowest(..)
                | Request::Events(..)
                | Request::StateOf(..)
                | Request::Instance
                | Request::Marks
                | Request::Unheard(_)
                | Request::IsNeeded(_)
                | Request::WaitingFirings(..)
                | Request::FiringsToTell(..)
                | Request::PastFirings(..)
        )
    }
}

impl Request {
    /// True when its answer waits until all that was accepted before it is committed.
    pub fn is_committed(&self) -> bool {
        match self {
            Request::Flush(_) if planted(Bug::AcknowledgedEarly) => return false,
            Request::Begin(_) if planted(Bug::ClaimNotDurable) => return false,
            _ => {}
        }
        matches!(
            self,
            Request::Flush(_)
                | Request::Begin(_)
                | Request::TakeOver(..)
                | Request::Release(_)
                | Request::End(..)
                | Request::Interrupt(..)
                | Request::NoticeDone(..)
                | Request::CopyForRetry(..)
                | Request::Consider(..)
                | Request::FiringTold(..)
        )
    }

    /// True when it makes transactions of its own, behind a commit of what came before.
    pub(super) fn begins_alone(&self) -> bool {
        matches!(self, Request::Forget(_) | Request::ForgetKey(_) | Request::Retain(_))
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
    /// Of `Groups` and `Instance`.
    Texts(Vec<String>),
    /// Of `Deferred`.
    Rows(Vec<Row>),
    /// Of `Begin`.
    Begun(Begun),
    /// Of `TakeOver`.
    TakenOver(TakenOver),
    /// False when it was not as the request supposes: nothing was changed.
    Changed(bool),
    /// Of `Notices`.
    Notices(Vec<Notice>),
    /// Of `Unfinished`, `Unheard` and `History`.
    Heads(Vec<RunHead>),
    /// Of `Details`.
    Details(Option<Box<RunDetails>>),
    /// Of `Relist`.
    Ordinal(u64),
    /// Of `Tally`.
    Tally(Tally),
    /// Of `Unsettled`.
    Unsettled(Vec<Unsettled>),
    /// Of `Settled`, `Consider` and `IsNeeded`, in the order of the question.
    Flags(Vec<bool>),
    /// Of `RowHeads` and `Slowest`.
    RowHeads(Vec<RowHead>),
    /// Of `Events`.
    Events(Vec<(u64, RunEvent)>),
    /// Of `StateOf`.
    Kept(Option<Value>),
    /// Of `CopyForRetry`.
    Copied(Copied),
    /// Of `ForgetKey`.
    Forgotten(Box<Forgotten>),
    /// Of `Retain`.
    Retained(Retained),
    /// Of `Marks`.
    Marks(Vec<Mark>),
    /// Of `WaitingFirings`, `FiringsToTell` and `PastFirings`, with their numbers.
    Firings(Vec<(u64, FiringRow)>),
}

impl Reply {
    /// What it is, for a message.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Reply::Done => "Done",
            Reply::Claim(_) => "Claim",
            Reply::Claims(_) => "Claims",
            Reply::Outputs(..) => "Outputs",
            Reply::Values(_) => "Values",
            Reply::Failures(_) => "Failures",
            Reply::Texts(_) => "Texts",
            Reply::Rows(_) => "Rows",
            Reply::Begun(_) => "Begun",
            Reply::TakenOver(_) => "TakenOver",
            Reply::Changed(_) => "Changed",
            Reply::Notices(_) => "Notices",
            Reply::Heads(_) => "Heads",
            Reply::Details(_) => "Details",
            Reply::Ordinal(_) => "Ordinal",
            Reply::Tally(_) => "Tally",
            Reply::Unsettled(_) => "Unsettled",
            Reply::Flags(_) => "Flags",
            Reply::RowHeads(_) => "RowHeads",
            Reply::Events(_) => "Events",
            Reply::Kept(_) => "Kept",
            Reply::Copied(_) => "Copied",
            Reply::Forgotten(_) => "Forgotten",
            Reply::Retained(_) => "Retained",
            Reply::Marks(_) => "Marks",
            Reply::Firings(_) => "Firings",
        }
    }
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
