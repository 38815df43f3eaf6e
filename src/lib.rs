//! Lamplighter makes the rounds at night: it reads job files in RON, fans their items out over bounded stages, holds every
//! job, stage and item to its deadline, and always ends with a report of what was done and what was not. One job runs once by
//! [`run`], all of a folder whenever they are due by [`daemon`].
//!
//! This is the library below the program of the same name. It stands on the caller's executor and never installs a logger
//! or a signal handler, reads the environment, prints, exits, or opens an unbounded channel.
//!
//! It is not a medical device. Nothing that it computes may raise an alarm or decide about anybody's care.
//!
//! # The story, room by room
//!
//! A job file becomes a checked job, a job becomes a run, a run works its stages and ends as a record. The modules stand in
//! the order of what may use what: each uses itself and those before it, and a test holds that.
//!
//! | room | its part |
//! | --- | --- |
//! | [`limits`] | every ceiling, with unit and reason |
//! | [`units`] | durations, sizes, shares and rates as authors write them |
//! | [`problem`] | what is wrong with a file, where, and what to write instead |
//! | [`world`] | the only doors to time, executor, threads and randomness: real or simulated |
//! | [`flow`] | groups that always join, permits, inboxes: bounded stages without a word of jobs |
//! | [`item`] | what flows and what is recorded, as plain data: keys, lineage, outcomes, counts |
//! | [`store`] | what is kept of runs: SQLite or memory behind one trait |
//! | [`report`] | a record as text for people |
//! | [`lang`] | what authors compute with: templates and jq |
//! | [`schedule`] | when a job is due, as authors write it |
//! | [`service`] | what calls go through: rate, in-flight limit, retries, connections |
//! | [`action`] | what a stage does with an item, one file for each kind, and handlers written in Rust |
//! | [`job`] | what the author wrote, what we run, and every problem between the two |
//! | [`run`] | one job once: the story of a run in named steps |
//! | [`query`] | what is asked about the runs that are kept, answered to the byte |
//! | [`daemon`] | all jobs, always: the loop that starts what is due |
//! | [`api`] | how others talk to a daemon: its socket, and who asks there |
#![cfg_attr(feature = "demo", doc = "| [`vendor_sim`] | a simulated vendor, for the demo and for tests |")]
//!
//! # Words
//!
//! | word | means |
//! | --- | --- |
//! | job | a checked definition, from one file |
//! | run | one execution of a job: id, deadline, outcome |
//! | due, firing | when a schedule says that a job is to start; one such time, which has at most one run |
//! | stage | workers between two bounded channels: the unit of concurrency, record and failure policy |
//! | action | what a worker does with an item; a stage runs one or more in sequence |
//! | item | one JSON value with a key (its name) and a lineage (its identity in the run) |
//! | source, gather | a stage that lists items; a stage that starts when its inputs have ended and sees them all |
//! | attempt | one try of a stage's actions on an item |
//! | outcome | how an item or a run ended: data, never an error |
//! | missing | of items: every outcome but `ok` and `empty` |
//! | scope | deadline and cancel, handed down from run to stage to item to child process; only ever shortened |
//! | timeout, deadline | a duration for one attempt; a point in time for a whole item, stage or run |
//!
//! # Embedding
//!
//! Register handlers, load a job, start it on an executor of your own, await its record.
//!
//! ```
//! use lamplighter::{
//!     action::{Call, CallError, Handlers},
//!     item::{RunOutcome, Value},
//!     job::Job,
//!     run::{RunOptions, Runner},
//!     world::World,
//! };
//! use std::{path::Path, sync::Arc};
//!
//! let handlers = Handlers::new().add("double", |call: Call| async move {
//!     let n = call.value["n"].as_i64().ok_or_else(|| CallError::give_up("the item has no number `n`"))?;
//!     Ok(Value::from(2 * n))
//! })?;
//! let text = r#"
//!     Job(stages: [
//!         Stage(name: "numbers", run: [Items(list: [{"n": 1}, {"n": 2}])]),
//!         Stage(name: "doubled", run: [Call(handler: "double")]),
//!     ])
//! "#;
//! let job = Arc::new(Job::from_ron("numbers", text, Path::new("."), &handlers)?.job);
//!
//! let executor = Arc::new(async_executor::Executor::new());
//! let runner = Runner::new(World::real(executor.clone()));
//! let run = runner.start(&job, RunOptions::default())?;
//! let record = smol::block_on(executor.run(run));
//!
//! assert_eq!(record.outcome, RunOutcome::Succeeded);
//! assert_eq!(record.stages[1].counts.ok, 2);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A run that is awaited to its end leaves no task behind; dropping a [`run::Run`] cancels it. Every problem of a job is
//! found when it is loaded, all at once ([`job::JobProblems`]); nothing of it is checked again while it runs.

#[cfg(panic = "abort")]
compile_error!("lamplighter isolates panics by unwinding: build with panic = \"unwind\"");

pub mod limits;
pub mod units;

pub mod problem;

pub mod world;

pub mod flow;

pub mod item;

pub mod store;

pub mod report;

pub mod lang;

pub mod schedule;

pub mod service;

pub mod action;

pub mod job;

pub mod run;

pub mod query;

pub mod daemon;

pub mod api;

#[cfg(feature = "demo")]
pub mod vendor_sim;
