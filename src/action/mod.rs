//! What a stage does with an item: one file for each kind (what is written, its check, its work).
//!
//! `job` checks what authors wrote into [`Checked`] actions; `run` calls them, one after the other, for each item. An
//! action never spawns on its own, never waits without its [`Slot`], and gives up everything when its future is dropped.

mod children;
mod compute;
mod dated;
mod exec;
mod files;
mod find;
mod handler;
mod http;
mod items;
mod journal;
mod jq;
mod keep;
mod log;
mod output;
mod process;
mod pump;
mod read;
mod render;
mod rows;
mod sql;
mod values;
mod write;

#[cfg(test)]
mod tests;

pub use children::reap_orphans;
pub(crate) use dated::KeepOut;
pub use handler::{Call, CallError, HandlerError, Handlers};
pub use http::check_ping;
pub use journal::{Journal, Line, Listener, Said};
pub use output::{OutputError, OutputFile, OutputPath, Outputs};
pub use process::{Leftovers, Owner};

use crate::{
    flow::Slot,
    item::{Class, Failure, Key, Lineage, Value, hex},
    lang::{Checker, Facts, RunFacts},
    service::Service,
    world::{Boot, BoxFuture, World},
};
use std::{
    collections::BTreeMap,
    future::Future,
    ops::Deref,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

crate::choice! {
    /// What a stage does with an item; `run: [..]` is a list of them.
    pub enum ActionSpec as "Action" {
        /// Lists values that stand in the job file, or every combination of several lists.
        Items { items::ItemsSpec } example "Items(list: [\"eu\", \"us\"])",
        /// Reads rows, lines, values or file names.
        Read { read::ReadSpec } example "Read(csv: \"nightly/patients.csv\")",
        /// Runs a program.
        Exec { exec::ExecSpec } example "Exec(argv: [\"rsync\", \"-a\", \"{{ item.path }}\", \"web:/srv/\"])",
        /// Asks an HTTP service.
        Http { http::HttpSpec } example "Http(via: \"vendor\", get: \"/v1/patients/{{ item.id }}\")",
        /// Reads or changes rows of a SQLite database.
        Sql { sql::SqlSpec } example "Sql(db: \"queue.db\", query: \"SELECT id, body FROM queue WHERE sent IS NULL\")",
        /// Computes with jq.
        Jq { jq::JqSpec } example "Jq(filter: \".data[] | {id, steps}\")",
        /// Writes values into a file.
        Write { write::WriteSpec } example "Write(json: \"{{ run.date }}/visits.json\")",
        /// Writes a text, a page or a mail from a template.
        Render { render::RenderSpec } example "Render(template: \"nightly/page.html\", to: \"{{ run.date }}/page.html\")",
        /// Remembers a value for the item's key, for runs that are due later.
        Keep { keep::KeepSpec } example "Keep(filter: \".sha256\")",
        /// Calls a handler written in Rust.
        Call { handler::CallSpec } example "Call(handler: \"score\", args: {\"threshold\": 3})",
        /// Writes a line to the log.
        Log { log::LogSpec } example "Log(message: \"{{ key }} has {{ value.steps }} steps\")",
    }
}

impl ActionSpec {
    /// The service that it calls through, if it names one.
    pub fn service(&self) -> Option<&str> {
        match self {
            ActionSpec::Http(spec) => spec.via.as_deref(),
            _ => None,
        }
    }
}

/// An action that was checked and can run.
pub struct Checked {
    /// The kind, as it is written: `Http`.
    pub kind: &'static str,
    /// Its work.
    pub action: Box<dyn Action>,
    /// What becomes of the current value.
    pub gives: Gives,
    /// It writes files: their paths are claimed in the store.
    pub writes: bool,
}

/// What an action does to the value that goes on to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gives {
    /// Nothing: the value before goes on.
    PassesOn,
    /// What it gives replaces the value; several go on one after the other, none ends the item `empty`.
    Values,
    /// What it gives becomes the field `name` of the value before.
    Into {
        /// Name of the field.
        name: String,
        /// Always a list; else the value alone, a list where there are several, and none ends the item `empty`.
        list: bool,
    },
}

impl Gives {
    /// Values, or the field that `into` names; `list`: the field always holds a list.
    fn named(into: Option<&String>, list: bool) -> Gives {
        into.map_or(Gives::Values, |name| Gives::Into { name: name.clone(), list })
    }
}

/// The work of an action. Shared by all workers of its stage.
pub trait Action: Send + Sync {
    /// Works on `facts.value` and hands what it gives to `out`.
    ///
    /// # Errors
    /// [`Stop`] says how the item goes on.
    ///
    /// # Cancel safety
    /// May be dropped at any await: connections close, a child's process group goes to [`RunContext::leftovers`],
    /// a half-written file is removed.
    fn run<'a>(&'a self, cx: &'a ItemContext, facts: &'a Facts, out: &'a mut dyn Out) -> BoxFuture<'a, Acted>;

    /// What a dry run prints instead of running it; `None` for an action that runs in a dry run too. `facts` hold secrets
    /// as `***`.
    fn preview(&self, facts: &Facts) -> Option<Result<String, Failure>>;
}

/// Where an action hands what it gives.
pub trait Out: Send {
    /// One value. Waits while what comes after is full (a source), or collects it (a worker stage).
    ///
    /// # Errors
    /// When no more may be given: too many values or bytes, or the listing was cut. The action returns it at once.
    fn hand(&mut self, value: Arc<Value>) -> Handed<'_>;
    /// The same with a value that nobody else has.
    ///
    /// # Errors
    /// As [`Out::hand`].
    fn give(&mut self, value: Value) -> Handed<'_> {
        self.hand(Arc::new(value))
    }
    /// One bad row of a listing: it becomes one failed item and the listing goes on. In a worker stage the item fails.
    ///
    /// # Errors
    /// As [`Out::hand`].
    fn bad(&mut self, failure: Failure) -> Handed<'_>;
    /// The head of an answer, seen by the actions after this one as `response`.
    fn response(&mut self, head: Arc<Value>);
    /// Bytes of JSON that one value may have (`max_value`): what is larger is refused before it is in memory.
    fn max_value(&self) -> u64 {
        crate::limits::VALUE_BYTES_DEFAULT
    }
}

/// A value on its way out of an action: mostly there at once, so it is boxed only where it waits.
pub enum Handed<'a> {
    /// It was taken, or refused; `None` once that was told.
    Now(Option<Acted>),
    /// There is no room for it yet.
    Later(BoxFuture<'a, Acted>),
}

impl Handed<'_> {
    /// It was taken, or refused.
    pub fn now(end: Acted) -> Self {
        Handed::Now(Some(end))
    }
}

impl Future for Handed<'_> {
    type Output = Acted;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Acted> {
        match self.get_mut() {
            Handed::Now(end) => end.take().map_or(Poll::Pending, Poll::Ready),
            Handed::Later(wait) => wait.as_mut().poll(cx),
        }
    }
}

/// How an action ended. Boxed: nearly every call ends without a [`Stop`], and then hands back one word.
pub type Acted = Result<(), Box<Stop>>;

/// Why an action ended early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The attempt failed. `given_up`: a service has retried it already, or it is of no use; the stage does not retry it.
    Failed {
        /// What happened.
        failure: Failure,
        /// True when the stage's own `retry` does not apply.
        given_up: bool,
    },
    /// The item ends `empty`.
    Empty,
    /// The item waits outside memory and begins again at its first action.
    Defer {
        /// How long.
        wait: Duration,
        /// Counted attempts so far.
        attempts: u32,
    },
    /// A wait would have ended past the item's deadline and nothing was counted as tried: the item is `timed_out`.
    PastDeadline,
    /// The listing was cut from outside (a cancel, a closed stage): nothing is wrong with the action.
    Cut,
}

impl Stop {
    /// A failure that the stage's own `retry` may repeat.
    pub fn failed(class: Class, message: impl Into<String>) -> Box<Stop> {
        Box::new(Stop::Failed { failure: Failure::new(class, message), given_up: false })
    }

    /// A failure that nobody retries.
    pub fn given_up(class: Class, message: impl Into<String>) -> Box<Stop> {
        Box::new(Stop::Failed { failure: Failure::new(class, message), given_up: true })
    }
}

/// What is the same for all items of a run, as actions need it.
pub struct RunContext {
    /// Clocks, threads, randomness.
    pub world: World,
    /// Id of the run.
    pub id: String,
    /// Id of the first run of its chain of repetitions: itself where it repeats none.
    pub chain: String,
    /// Name of the job.
    pub job: String,
    /// Params, secrets, what `run` says.
    pub facts: Arc<RunFacts>,
    /// The run's deadline on the boot clock.
    pub deadline: Option<Boot>,
    /// What is cancelled may use this long.
    pub grace: Duration,
    /// The job's time zone.
    pub zone: jiff::tz::TimeZone,
    /// The log of the run.
    pub journal: Journal,
    /// Where outputs go and who owns which path.
    pub outputs: Outputs,
    /// Folder of the job file: inputs are relative to it.
    pub base_dir: PathBuf,
    /// The services of the job, by name.
    pub services: BTreeMap<String, Arc<Service>>,
    /// First part of every idempotency key.
    pub instance: String,
    /// PATH, HOME, USER, LANG as the program was given them: what children get.
    pub environment: BTreeMap<String, String>,
    /// Process groups that were cut and are being ended: joined by the end of the run.
    pub leftovers: Leftovers,
    /// Where the private temporary files go.
    pub temporary: PathBuf,
}

/// Where items are worked on, one after the other: what is the same for all of them.
pub struct Seat {
    /// What is the same for all items of the run.
    pub run: Arc<RunContext>,
    /// Permit, clocks, attempts.
    pub slot: Arc<Slot>,
    /// Name of the stage.
    pub stage: Arc<str>,
    /// Place of the stage in the job.
    pub stage_place: u16,
}

/// The item that an action works on, and its place in the run. One for each worker; what it says of the worker's [`Seat`]
/// is read through it.
pub struct ItemContext {
    seat: Arc<Seat>,
    /// Key of the item; `None` while a source lists.
    pub key: Option<Key>,
    /// Identity of the item.
    pub lineage: Lineage,
    /// Place of the action in the stage.
    pub action_place: u16,
    /// Place of the value among those that the action before gave.
    pub value_place: u32,
    /// Which attempt of the stage's own retry this is, from 1.
    pub attempt: u32,
    /// Last lines of output of the item's last child, for reports.
    pub tail: std::sync::Mutex<String>,
    /// Databases that its actions have written, kept open for the next item.
    databases: sql::Databases,
    /// What `Keep` gave: stored when the item is done.
    pub kept: std::sync::Mutex<Option<Box<Value>>>,
}

impl Deref for ItemContext {
    type Target = Seat;

    fn deref(&self) -> &Seat {
        &self.seat
    }
}

impl ItemContext {
    /// The context of a worker of a stage, before its first item.
    pub fn new(run: Arc<RunContext>, slot: Arc<Slot>, stage: Arc<str>, stage_place: u16) -> ItemContext {
        ItemContext {
            seat: Arc::new(Seat { run, slot, stage, stage_place }),
            key: None,
            lineage: Lineage::listed(stage_place, 0),
            action_place: 0,
            value_place: 0,
            attempt: 1,
            tail: std::sync::Mutex::default(),
            databases: sql::Databases::default(),
            kept: std::sync::Mutex::default(),
        }
    }

    /// Writes a line about this item into the log of the run; `target` names who speaks.
    pub fn say(&self, target: &str, level: ::log::Level, text: &str) {
        let line = Line::of_run(level, text).from_target(target).stage(self.stage_place, &self.stage);
        self.run.journal.write(&line.key(self.key.as_ref()));
    }

    /// The idempotency key of the call that runs now: the same over retries and resume (RUNS S6).
    pub fn idempotency_key(&self) -> String {
        let key = self.key.as_ref().map_or("", Key::as_str);
        self.seat.idempotency_key(key, self.action_place, self.value_place)
    }
}

impl Seat {
    fn idempotency_key(&self, key: &str, action_place: u16, value_place: u32) -> String {
        use sha2::{Digest, Sha256};
        let mut hash = Sha256::new();
        for part in [&self.run.instance, &self.run.chain, &*self.stage, key] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        hash.update(action_place.to_be_bytes());
        hash.update(value_place.to_be_bytes());
        hex(&hash.finalize()[..16])
    }
}

/// What the check of an action knows besides its own text.
pub struct Place<'a> {
    /// The action is among those of a gather: `items`, `failures`, `counts` exist.
    pub gather: bool,
    /// It stands in a source.
    pub source: bool,
    /// An action before it in a gather was Jq: `Write` writes the value, not the items.
    pub after_jq: bool,
    /// Handlers that exist.
    pub handlers: &'a Handlers,
    /// Names of the services that exist.
    pub services: &'a [String],
}

/// The fields that the values of a listing have, where that is known before it runs: the columns of a csv file or
/// a query whose file is there. Blocks for one read.
pub fn columns(spec: &ActionSpec, checker: &Checker<'_>) -> Option<Vec<String>> {
    match spec {
        ActionSpec::Read(spec) => read::columns(spec, checker.base_dir()),
        ActionSpec::Sql(spec) => sql::columns(spec, checker.base_dir()),
        _ => None,
    }
}

/// Checks one action. Problems go to `checker`; `None` when there were errors.
pub fn check(spec: &ActionSpec, path: &str, place: &Place<'_>, checker: &mut Checker<'_>) -> Option<Checked> {
    match spec {
        ActionSpec::Items(spec) => items::check(spec, path, place, checker),
        ActionSpec::Read(spec) => read::check(spec, path, place, checker),
        ActionSpec::Exec(spec) => exec::check(spec, path, place, checker),
        ActionSpec::Http(spec) => http::check(spec, path, place, checker),
        ActionSpec::Sql(spec) => sql::check(spec, path, place, checker),
        ActionSpec::Jq(spec) => jq::check(spec, path, place, checker),
        ActionSpec::Write(spec) => write::check(spec, path, place, checker),
        ActionSpec::Render(spec) => render::check(spec, path, place, checker),
        ActionSpec::Keep(spec) => keep::check(spec, path, place, checker),
        ActionSpec::Call(spec) => handler::check(spec, path, place, checker),
        ActionSpec::Log(spec) => log::check(spec, path, place, checker),
    }
}
