//! What tasks beside the loop need, so that it does not wait for job files, leftovers and notices. Only the beginning of a run is
//! awaited in the loop, with the secrets of its job: two runs of one job never begin at once.

use super::{Daemon, Jobs};
use crate::{
    job::{CheckedJob, Job, JobProblems, Surroundings},
    run::{Missed, RunOptions, Runner, kept_job},
    store::{RunDetails, State},
    world::World,
};
use std::sync::Arc;

impl Daemon {
    /// What a task beside the loop needs.
    pub(super) fn means(&self) -> Means {
        Means {
            world: self.world.clone(),
            runner: self.runner.clone(),
            state: self.state.clone(),
            jobs: self.jobs.clone(),
            instance: self.instance.clone(),
            is_trusted: self.trust.is_trusted(),
        }
    }
}

/// What of the daemon its tasks need.
pub(super) struct Means {
    pub world: World,
    pub runner: Runner,
    pub state: State,
    jobs: Arc<dyn Jobs>,
    instance: String,
    is_trusted: bool,
}

impl Means {
    pub async fn surroundings(&self) -> Surroundings {
        let jobs = self.jobs.clone();
        self.world.unblock(move || jobs.surroundings()).await
    }

    /// A job, whole. `Err`: what of its surroundings is not there any more.
    pub async fn wake(
        &self,
        wake: impl FnOnce(&Surroundings) -> Result<CheckedJob, JobProblems> + Send + 'static,
    ) -> Result<Arc<Job>, String> {
        let jobs = self.jobs.clone();
        let woken = self.world.unblock(move || wake(&jobs.surroundings())).await;
        woken.map(|checked| Arc::new(checked.job)).map_err(|problems| problems.to_string())
    }

    /// The job that a run began with.
    pub async fn kept_job(&self, details: &RunDetails) -> Result<Arc<Job>, JobProblems> {
        let (jobs, of) = (self.jobs.clone(), details.clone());
        let kept = self.world.unblock(move || kept_job(&of, &jobs.surroundings())).await;
        kept.map(|checked| Arc::new(checked.job))
    }

    pub async fn options_of(&self, job: &Arc<Job>) -> Result<RunOptions, String> {
        let (jobs, of) = (self.jobs.clone(), job.clone());
        let mut options = self.world.unblock(move || jobs.options(&of)).await?;
        options.instance.clone_from(&self.instance);
        // By a wrong clock everything is old.
        options.removes_old = self.is_trusted;
        Ok(options)
    }

    /// Sends the notices of a missed firing.
    pub async fn notify_missed(
        &self,
        wake: impl FnOnce(&Surroundings) -> Result<CheckedJob, JobProblems> + Send + 'static,
        key: &str,
        missed: &Missed,
    ) -> Result<(), String> {
        let job = self.wake(wake).await?;
        let options = self.options_of(&job).await?;
        self.runner.notify_missed(&job, options, missed).await.map_err(|error| error.to_string())?;
        self.state.firing_told(&job.name, key).await.map(drop).map_err(|error| error.to_string())
    }
}
