//! How one run is started.

use super::rows::StoreChoice;
use crate::{
    action::Listener,
    item::Value,
    lang::Secret,
    limits::{GRACE_PERIOD_DEFAULT, SPOOL_BYTES_DEFAULT},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc, time::Duration};

/// What a dry run prints, line by line.
pub type Preview = Arc<dyn Fn(&str) + Send + Sync>;

/// The run, or the time at which none was started, after which a run starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct After {
    /// Name of its job.
    pub job: String,
    /// Its id; its due where it was missed.
    pub id: String,
    /// How it ended, in snake_case; `missed`.
    pub outcome: String,
}

/// Options of one run. `RunOptions::default()` runs the job as it is written, with outputs below `./out`.
///
/// ```
/// use lamplighter::{lang::Secret, run::{RunOptions, StoreChoice}};
/// use std::time::Duration;
///
/// let options = RunOptions {
///     deadline: Some(Duration::from_secs(600)),
///     params: [("site".to_owned(), "north".into())].into(),
///     secrets: [("vendor_token".to_owned(), Secret::new("from your own vault"))].into(),
///     out: "/var/lib/study/out".into(),
///     store: StoreChoice::Memory { limit: 1 << 20 },
///     ..RunOptions::default()
/// };
/// ```
#[derive(Clone)]
pub struct RunOptions {
    /// Id of the run; made from the time of its start and 32 random bits when `None`. Children carry it in their environment, and
    /// what carries it when the run ends is ended: no two runs of a machine may have the same one at a time.
    pub id: Option<String>,
    /// Runs as if due at this instant; now when `None`.
    pub due: Option<jiff::Timestamp>,
    /// What `run.after` says of the run after which it starts.
    pub after: Option<After>,
    /// Replaces the job's deadline.
    pub deadline: Option<Duration>,
    /// Replaces params, by name; see [`crate::job::Job::param`] for how a text becomes a value.
    pub params: BTreeMap<String, Value>,
    /// The secrets that the job names.
    pub secrets: BTreeMap<String, Secret>,
    /// Root of the outputs.
    pub out: PathBuf,
    /// Folder of the jobs, seen as `run.jobs`.
    pub jobs: PathBuf,
    /// PATH, HOME, USER, LANG for children: nothing else of the caller's environment reaches them.
    pub environment: BTreeMap<String, String>,
    /// What is cancelled may use this long before it is killed.
    pub grace: Duration,
    /// First part of idempotency keys: the same for all runs of a gateway.
    pub instance: String,
    /// Sources list at most so many items.
    pub limit: Option<u64>,
    /// Only items with this key, or below it.
    pub key: Option<String>,
    /// Stages that do not feed this one are left out; what it gives goes to `tap`.
    pub until: Option<String>,
    /// Receives the values of the `until` stage. Bounded: a slow reader slows the run.
    pub tap: Option<async_channel::Sender<Value>>,
    /// A dry run: actions with an effect are printed for the first items, not run.
    pub preview: Option<Preview>,
    /// Hears each line of the run's log when it is written.
    pub listener: Option<Listener>,
    /// When the run has ended what `keep_out` of its job does not keep is removed. False for trials, and where the wall clock
    /// is not to be believed.
    pub removes_old: bool,
    /// A service outside is told that it begins and how it ended, where the job has a `ping`. False for trials and for days that were
    /// missed: who waits for the run of tonight must not take them for it.
    pub pings: bool,
    /// Where the rows of the run are kept.
    pub store: StoreChoice,
}

impl Default for RunOptions {
    fn default() -> RunOptions {
        RunOptions {
            id: None,
            due: None,
            after: None,
            deadline: None,
            params: BTreeMap::new(),
            secrets: BTreeMap::new(),
            out: PathBuf::from("out"),
            jobs: PathBuf::from("jobs"),
            environment: BTreeMap::new(),
            grace: GRACE_PERIOD_DEFAULT,
            instance: String::new(),
            limit: None,
            key: None,
            until: None,
            tap: None,
            preview: None,
            listener: None,
            removes_old: true,
            pings: true,
            store: StoreChoice::Private { folder: None, limit: SPOOL_BYTES_DEFAULT },
        }
    }
}

impl RunOptions {
    /// True when `key` is one of those that were asked for: it, one below it, or one above it.
    pub fn wants(&self, key: &str) -> bool {
        let Some(wanted) = &self.key else { return true };
        let below = |long: &str, short: &str| {
            long.strip_prefix(short).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        below(key, wanted) || below(wanted, key)
    }
}

impl fmt::Debug for RunOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunOptions").field("id", &self.id).field("due", &self.due).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wanted_key_brings_those_below_and_above_it() {
        let options = RunOptions { key: Some("P1/steps".into()), ..RunOptions::default() };
        assert!(options.wants("P1/steps") && options.wants("P1") && options.wants("P1/steps/2"));
        assert!(!options.wants("P2") && !options.wants("P1/stepsister") && !options.wants("P"));
    }
}
