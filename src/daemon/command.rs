//! What can be asked of a daemon that serves, and how it is told of what happens.

use super::{recover::Resumed, reload::Found, status::Overview};
use crate::{
    action::Listener,
    item::{RunRecord, Value},
    run::RunHandle,
    store::StoreError,
};
use async_channel::{Receiver, Sender};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, sync::Arc};

/// What happens to a daemon.
pub(super) enum Event {
    /// A run of its own has ended.
    Ended(String, Box<RunRecord>),
    /// Somebody asks something.
    Ask(Question),
    /// A run that an earlier process left is gone on with, or has ended.
    Resumed(Arc<str>, Result<Resumed, StoreError>),
    /// Job files may have changed.
    FilesChanged,
    /// They were read.
    FilesRead(Result<Found, String>),
    /// Somebody wants to know that the loop goes round: the sender is dropped then.
    Hello(Sender<()>),
    /// It shall let its runs go and end.
    Stop,
    /// It shall end now.
    Kill,
}

/// A question, and where its answer goes.
pub(super) enum Question {
    /// With what the state knows of their runs, or without.
    Overview(bool, Sender<Overview>),
    OfFiles(OfFiles),
    Retry(String, bool, Option<Listener>, Sender<Result<RunHandle, Refusal>>),
    /// Answered when the run has ended.
    End(String, Sender<RunRecord>),
    /// By its end, or killed at once.
    Cancel(String, String, bool, Sender<Result<String, Refusal>>),
    Pause(Which, Option<Timestamp>, Sender<Result<Vec<String>, Refusal>>),
    Resume(Which, Sender<Result<Vec<String>, Refusal>>),
}

/// What is asked of job files as they are now: it is answered when they have been read.
pub(super) enum OfFiles {
    Run(RunWish, Option<Listener>, Sender<Result<RunHandle, Refusal>>),
    Reload(Sender<Result<BTreeMap<String, String>, Refusal>>),
}

impl OfFiles {
    /// Answers with why it waits no longer.
    pub fn refuse(self, why: &str) {
        let refusal = Refusal::Busy(why.to_owned());
        match self {
            OfFiles::Reload(answer) => drop(answer.try_send(Err(refusal))),
            OfFiles::Run(_, _, answer) => drop(answer.try_send(Err(refusal))),
        }
    }
}

/// A run that is wished for now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunWish {
    /// Name of a watched job.
    pub job: String,
    /// Replaces params, as texts of a command line: see [`crate::job::Job::param`].
    #[serde(default)]
    pub set: BTreeMap<String, String>,
    /// Replaces params.
    #[serde(default)]
    pub params: BTreeMap<String, Value>,
    /// Replaces the deadline, in milliseconds.
    #[serde(default)]
    pub deadline_ms: Option<u64>,
    /// Runs as if due then: an instant, or local time of the job's zone; see [`crate::job::Job::due`].
    #[serde(default)]
    pub due: Option<String>,
    /// What it is told as: `manual`, `api`.
    pub trigger: String,
}

/// Which jobs are meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Which {
    /// One.
    Job(String),
    /// All that are watched.
    All,
}

/// Why something that was asked was not done. Nothing has been done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// No such job is watched, or it cannot be used: a sentence.
    NoJob(String),
    /// There is no such run, or none that this can be done with: a sentence.
    NoRun(String),
    /// What was asked cannot be understood: a sentence.
    Wrong(String),
    /// The job runs already, or is not to be started now: a sentence.
    Busy(String),
    /// The daemon stops, or has ended.
    Stopping,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NoJob(why) | Refusal::NoRun(why) | Refusal::Wrong(why) | Refusal::Busy(why) => f.write_str(why),
            Refusal::Stopping => f.write_str("the daemon is stopping"),
        }
    }
}

impl std::error::Error for Refusal {}

/// Asks a daemon, stops it, tells it of changes. Cheap to clone; it outlives the daemon and answers [`Refusal::Stopping`] then.
#[derive(Clone)]
pub struct Handle {
    events: Sender<Event>,
}

impl Handle {
    pub(super) fn new(events: Sender<Event>) -> Handle {
        Handle { events }
    }

    /// A run has ended.
    pub(super) async fn ended(&self, run: String, record: RunRecord) {
        // A daemon that is gone has no use for it.
        let _ = self.events.send(Event::Ended(run, Box::new(record))).await;
    }

    /// What became of a run that an earlier process left.
    pub(super) async fn resumed(&self, run: Arc<str>, resumed: Result<Resumed, StoreError>) {
        let _ = self.events.send(Event::Resumed(run, resumed)).await;
    }

    /// Job files were read.
    pub(super) async fn files_read(&self, found: Result<Found, String>) {
        let _ = self.events.send(Event::FilesRead(found)).await;
    }

    async fn ask<T>(&self, question: impl FnOnce(Sender<T>) -> Question) -> Option<T> {
        let (sender, answer): (Sender<T>, Receiver<T>) = async_channel::bounded(1);
        self.events.send(Event::Ask(question(sender))).await.ok()?;
        answer.recv().await.ok()
    }

    /// All jobs, and how they are.
    ///
    /// # Errors
    /// When the daemon has ended.
    pub async fn overview(&self) -> Result<Overview, Refusal> {
        self.ask(|sender| Question::Overview(true, sender)).await.ok_or(Refusal::Stopping)
    }

    /// All jobs without their last runs, and without whether they are overdue: the state is not asked for each of them.
    ///
    /// # Errors
    /// When the daemon has ended.
    pub async fn list(&self) -> Result<Overview, Refusal> {
        self.ask(|sender| Question::Overview(false, sender)).await.ok_or(Refusal::Stopping)
    }

    /// Runs a job now, by its file of now. Its beginning is on the disk when this returns. `listener` hears its log.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn run(&self, wish: RunWish, listener: Option<Listener>) -> Result<RunHandle, Refusal> {
        self.ask(|sender| Question::OfFiles(OfFiles::Run(wish, listener, sender)))
            .await
            .unwrap_or(Err(Refusal::Stopping))
    }

    /// Repeats a run that has ended: what was done is taken over. `held` repeats held items too. `listener` hears its log.
    ///
    /// # Errors
    /// When it cannot be repeated.
    pub async fn retry(&self, run: &str, held: bool, listener: Option<Listener>) -> Result<RunHandle, Refusal> {
        let run = run.to_owned();
        self.ask(|sender| Question::Retry(run, held, listener, sender)).await.unwrap_or(Err(Refusal::Stopping))
    }

    /// Waits for the end of a run of the daemon, by its id. `None` when it does not live (any more), or the daemon has ended.
    ///
    /// # Cancel safety
    /// May be dropped at any time: the run goes on.
    pub async fn end(&self, run: &str) -> Option<RunRecord> {
        self.ask(|sender| Question::End(run.to_owned(), sender)).await
    }

    /// Cancels a run of the daemon, by its id or the name of its job. `by` completes "cancelled by …". `kill`: what is left of
    /// it is killed now. Its id.
    ///
    /// # Errors
    /// When no such run lives.
    pub async fn cancel(&self, run: &str, by: &str, kill: bool) -> Result<String, Refusal> {
        let (run, by) = (run.to_owned(), by.to_owned());
        self.ask(|sender| Question::Cancel(run, by, kill, sender)).await.unwrap_or(Err(Refusal::Stopping))
    }

    /// From now on nothing of these jobs starts by schedule, until then or until they are resumed. Their names.
    ///
    /// # Errors
    /// When no such job is watched.
    pub async fn pause(&self, which: Which, until: Option<Timestamp>) -> Result<Vec<String>, Refusal> {
        self.ask(|sender| Question::Pause(which, until, sender)).await.unwrap_or(Err(Refusal::Stopping))
    }

    /// The schedules of these jobs count again. Their names.
    ///
    /// # Errors
    /// When no such job is watched.
    pub async fn resume(&self, which: Which) -> Result<Vec<String>, Refusal> {
        self.ask(|sender| Question::Resume(which, sender)).await.unwrap_or(Err(Refusal::Stopping))
    }

    /// Reads changed job files now. The jobs with errors, and what is wrong with them.
    ///
    /// # Errors
    /// When they cannot be read in time, or the daemon has ended.
    pub async fn reload(&self) -> Result<BTreeMap<String, String>, Refusal> {
        self.ask(|sender| Question::OfFiles(OfFiles::Reload(sender))).await.unwrap_or(Err(Refusal::Stopping))
    }

    /// Job files may have changed.
    pub async fn files_changed(&self) {
        let _ = self.events.send(Event::FilesChanged).await;
    }

    /// Returns when the loop has come round: what a watchdog waits for. False when the daemon has ended.
    pub async fn is_alive(&self) -> bool {
        let (sender, answer) = async_channel::bounded(1);
        self.events.send(Event::Hello(sender)).await.is_ok() && answer.recv().await.is_ok()
    }

    /// Lets runs go, to be resumed, and ends.
    pub async fn stop(&self) {
        let _ = self.events.send(Event::Stop).await;
    }

    /// Ends now; what runs is killed, and resumed by the next daemon.
    pub async fn kill(&self) {
        let _ = self.events.send(Event::Kill).await;
    }
}
