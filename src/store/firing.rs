//! What is kept of schedules, as plain data: how far the times of a job were considered, and what became of those that
//! started no run.

/// What became of a firing so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FiringEnd {
    /// It will start a run, or be skipped.
    Waiting,
    /// It came in time and started nothing.
    Skipped,
    /// Its time had passed when somebody looked.
    Missed,
}

/// A firing that has started no run; or several that came to the same end one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FiringRow {
    /// Name of its job.
    pub job: String,
    /// With the job its identity: a run of the same [`super::NewRun::fire_key`] takes its place.
    pub key: String,
    /// What would have started the run.
    pub trigger: String,
    /// When it was due; the first of several.
    pub due_ms: i64,
    /// When the last of several was due.
    pub last_ms: i64,
    /// How many there are; `None`: too many to look at.
    pub count: Option<u64>,
    /// What became of it.
    pub end: FiringEnd,
    /// Why: `overlap`, `down`, ..
    pub reason: Option<String>,
    /// When this was written.
    pub told_ms: i64,
    /// Somebody is still to be told of it.
    pub to_tell: bool,
}

/// The identity of what is due after the end of a run of another job.
pub fn after_key(job: &str, run: &str) -> String {
    format!("after {job} {run}")
}

/// How far the times of a job were considered. Who writes it knows what stands in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Name of the job.
    pub job: String,
    /// What is known of its schedule. To be kept without a text it is forgotten.
    pub text: String,
}
