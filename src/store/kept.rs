//! What is kept of runs besides their rows, as plain data: how a run began, how it stands, what a resume needs.
//!
//! Times are milliseconds since 1970 in UTC (`_ms` of a wall clock, `i64`) or readings of a clock that only goes forward
//! (`u64`). Definitions, parameters, options and records are texts that only their owners read.

use super::RowEnd;
use crate::item::{Counts, Key, Lineage, RunOutcome, Value};
use std::sync::Arc;

/// The wall clock and the boot clock at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// Wall clock.
    pub wall_ms: i64,
    /// Boot clock, since the start of the machine.
    pub boot_ms: u64,
}

/// Who works on a run, and so who may go on with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunKind {
    /// A command in the foreground.
    Foreground,
    /// The daemon.
    Serve,
}

/// A run that is about to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRun {
    /// Its id, never used before.
    pub run: Arc<str>,
    /// Name of its job.
    pub job: String,
    /// What started it (`manual`, `schedule`, ..).
    pub trigger: String,
    /// With the job the identity of the firing: it is begun once, whatever triggers it. `None`: always a run of its own.
    pub fire_key: Option<String>,
    /// Who works on it.
    pub kind: RunKind,
    /// When it was due.
    pub due_ms: i64,
    /// Now.
    pub clocks: Clocks,
    /// Its deadline on the wall clock.
    pub deadline_ms: Option<i64>,
    /// How long it may run, in milliseconds.
    pub budget_ms: Option<u64>,
    /// Everything of the job that a resume needs: its text and the texts of its files.
    pub definition: String,
    /// Effective parameters.
    pub params: String,
    /// What else it was started with.
    pub options: String,
    /// Refuses to begin while a living process works on another run of the job.
    pub alone: bool,
}

/// Answer to a run that wants to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// It has begun, on the disk.
    Now,
    /// This id or this firing has begun before.
    Before(RunHead),
    /// Another run of the job is worked on; asked for with [`NewRun::alone`].
    Busy(RunHead),
    /// This firing was skipped or missed, which stands.
    Settled,
}

/// How far a run is. `Ended` is never left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunPhase {
    /// Some process works on it, or has died over it.
    Running,
    /// Its process has let it go, to be resumed.
    Interrupted,
    /// Settled.
    Ended,
}

/// A run in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunHead {
    /// Its id.
    pub run: Arc<str>,
    /// Name of its job.
    pub job: String,
    /// What started it.
    pub trigger: String,
    /// See [`NewRun::fire_key`].
    pub fire_key: Option<String>,
    /// Who works on it.
    pub kind: RunKind,
    /// When it was due.
    pub due_ms: i64,
    /// When it began.
    pub started_ms: i64,
    /// Its deadline on the wall clock.
    pub deadline_ms: Option<i64>,
    /// How long it may run, in milliseconds.
    pub budget_ms: Option<u64>,
    /// How long it has run by its last commit, in milliseconds.
    pub ran_ms: u64,
    /// How far it is.
    pub phase: RunPhase,
    /// A living process works on it.
    pub alive: bool,
    /// 1, and one more with each take-over.
    pub pass: u32,
    /// How often a process died over it.
    pub crashes: u32,
    /// How it ended.
    pub outcome: Option<RunOutcome>,
    /// Why.
    pub reason: Option<String>,
    /// When it ended.
    pub ended_ms: Option<i64>,
    /// The run that this one repeats.
    pub parent: Option<Arc<str>>,
    /// The first run of the chain of repetitions; itself where it repeats none.
    pub chain_first: Arc<str>,
    /// Its rows are there. Retention takes them before it takes the head.
    pub has_rows: bool,
}

/// What is known of one stage of a run besides its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageMark {
    /// Place of the stage.
    pub stage: u16,
    /// A source whose listing has ended.
    pub listed: bool,
    /// When its first item was taken, or its listing began.
    pub began: Option<Began>,
}

/// When a stage began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Began {
    /// How long the run had run, in milliseconds.
    pub ran_ms: u64,
    /// Wall clock.
    pub wall_ms: i64,
}

/// A notice of a run that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The run.
    pub run: Arc<str>,
    /// Its place in `on_finish`.
    pub place: u16,
    /// A living process sends it.
    pub alive: bool,
}

/// All of a run but its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunDetails {
    /// How it stands.
    pub head: RunHead,
    /// See [`NewRun::definition`].
    pub definition: String,
    /// Effective parameters.
    pub params: String,
    /// What else it was started with.
    pub options: String,
    /// What [`RunEnd::record`] gave.
    pub record: Option<String>,
    /// In the order of their places; only stages that have begun.
    pub stages: Vec<StageMark>,
}

/// What a run that was taken over needs to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resume {
    /// All of it, `head.pass` being the new one.
    pub details: RunDetails,
    /// Items that are `held` from now on: attempts that had begun and must not be repeated.
    pub held: u64,
    /// It crashed the program too often (three times without progress in 72 hours, or ten times): end it `quarantined`.
    pub is_poison: bool,
}

/// Answer to a take-over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TakenOver {
    /// It is the asker's.
    Now(Box<Resume>),
    /// It has ended, or a living process works on it.
    Refused(Box<RunHead>),
    /// There is no such run.
    Unknown,
}

/// How a run ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunEnd {
    /// How.
    pub outcome: RunOutcome,
    /// Why.
    pub reason: Option<String>,
    /// What is shown of it later.
    pub record: String,
    /// When.
    pub ended_ms: i64,
    /// How long it ran in all passes, in milliseconds.
    pub ran_ms: u64,
    /// Places in `on_finish` that are to be sent.
    pub notices: Vec<u16>,
    /// A run of the job that this one stands for from now on: it is forgotten with this end, if it has ended, nothing is to be
    /// told of it any more, and no run that is open repeats it.
    pub folds: Option<Arc<str>>,
}

/// Counts of a stage from its rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Of terminal rows; `items` is their number, `complete` true.
    pub counts: Counts,
    /// Rows that wait for a retry.
    pub waiting: u64,
}

/// An ok item of an earlier pass with children that a stage has no row of.
#[derive(Clone, Debug, PartialEq)]
pub struct Unsettled {
    /// Its lineage.
    pub lineage: Lineage,
    /// Its key.
    pub key: Key,
    /// All that it gave.
    pub values: Vec<Value>,
    /// Places of the values without a row, in order. The child of an only value has its parent's lineage, that of one of
    /// several [`Lineage::child`].
    pub open: Vec<u32>,
}

/// Which rows are listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RowFilter {
    /// All.
    #[default]
    All,
    /// Missing items.
    Missing,
}

/// Which rows of a run are asked for, in (stage, lineage) order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowQuery {
    /// Of this stage.
    pub stage: Option<u16>,
    /// How they stand.
    pub filter: RowFilter,
    /// Of this key and those below it (`P1` and `P1/heart`).
    pub key: Option<Key>,
    /// Behind this one.
    pub after: Option<(u16, Lineage)>,
    /// At most so many.
    pub limit: usize,
}

/// A row without its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowHead {
    /// Its stage.
    pub stage: u16,
    /// Its lineage.
    pub lineage: Lineage,
    /// Its key.
    pub key: Key,
    /// How it stands.
    pub end: RowEnd,
    /// Counted attempts.
    pub attempts: u32,
    /// The message of a failure.
    pub message: Option<String>,
    /// How long it took from being taken to being settled, in milliseconds.
    pub took_ms: Option<u32>,
    /// The pass of the run that wrote it.
    pub pass: u32,
}

/// A line of the log of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunEvent {
    /// When.
    pub wall_ms: i64,
    /// As the log counts: 1 error, 2 warning, 3 information, 4 debug.
    pub level: u8,
    /// The stage that it is about.
    pub stage: Option<u16>,
    /// The item that it is about.
    pub key: Option<Key>,
    /// What happened.
    pub text: String,
}

/// Which lines of a log are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventQuery {
    /// About this key and those below it.
    pub key: Option<Key>,
    /// Behind this number.
    pub after: Option<u64>,
    /// At most so many.
    pub limit: usize,
}

/// Answer to a wish to repeat a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Copied {
    /// The new run has begun, with the rows that it takes over. Counted: rows.
    Now(u64),
    /// The new run could not begin.
    Refused(Begun),
    /// The parent has not ended.
    NotEnded(RunHead),
    /// The parent's rows are gone: retention took them.
    Gone(RunHead),
    /// There is no such parent.
    Unknown,
}

/// How a run is repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyPlan {
    /// The run that is repeated.
    pub parent: Arc<str>,
    /// Stages that begin anew: gathers and what follows them.
    pub anew: Vec<u16>,
    /// Runs held items too.
    pub held: bool,
}

/// What was forgotten of a key, and what still holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Rows of items that are gone.
    pub rows: u64,
    /// Values of `Keep` that are gone.
    pub kept: u64,
    /// Lines of logs that are gone.
    pub events: u64,
    /// Files that hold it, or may: not rewritten. The first ones, by run and path.
    pub outputs: Vec<(Arc<str>, String)>,
    /// Rows of gathers that hold it, or may: not rewritten. The first ones: run, stage, key.
    pub gathers: Vec<(Arc<str>, u16, Key)>,
    /// Runs that have not ended and hold it: nothing of them is forgotten.
    pub unfinished: Vec<Arc<str>>,
}

/// How much of what has ended stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Runs of one job.
    pub max_runs: u64,
    /// Age since the end of a run, in milliseconds.
    pub max_age_ms: u64,
    /// Bytes of the file; above it the rows of the oldest runs go, their heads stay.
    pub max_bytes: u64,
    /// Now.
    pub now_ms: i64,
}

/// What retention took in one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retained {
    /// Runs of which nothing is left.
    pub runs: u64,
    /// Runs that lost their rows.
    pub stripped: u64,
    /// There may be more: ask again.
    pub more: bool,
}
