//! What an earlier process left: runs to go on with, notices to send, firings to start.

use super::{
    Daemon, DaemonError,
    means::Means,
    trust::Trust,
    watched::{AfterEnd, Mark, Moment, Watched},
};
use crate::world::plant::{Bug, planted};
use crate::{
    item::RunOutcome,
    run::{Run, StartError, give_up},
    store::{Notice, RunHead, RunKind, RunPhase, StoreError},
};
use jiff::Timestamp;
use std::{collections::BTreeMap, sync::Arc};

impl Daemon {
    pub(super) async fn recover(&mut self) -> Result<(), DaemonError> {
        self.instance = self.state.instance().await?;
        let mut known = Vec::new();
        for kept in self.state.marks().await? {
            let mark = Mark::read(&kept);
            known.push((kept.job.clone(), mark.newest_ms()));
            self.unwatched.insert(kept.job, mark);
        }
        let left = self.state.unfinished(None).await?;
        self.to_resume = left.into_iter().filter(|head| head.kind == RunKind::Serve && !head.alive).collect();
        self.ready = self.world.boot();
        self.next_catch_up = self.ready + self.options.catch_up_delay;
        // The clock is not judged before it is known what has been.
        let found = self.find_files().await;
        self.take_files(found).await?;
        if !self.trust.is_trusted() {
            self.trust = Trust::new(self.options.clock, self.newest(&known).await?);
        }
        self.send_notices().await
    }

    /// What waits for jobs, when it is known for the first time which there are.
    pub(super) async fn find_what_waits(&mut self) -> Result<(), DaemonError> {
        for firing in self.state.waiting_firings().await? {
            if !planted(Bug::WaitingForgotten) {
                self.wait(firing);
            }
        }
        for firing in self.state.firings_to_tell().await? {
            self.notify_missed(&firing);
        }
        if planted(Bug::AfterLostInCrash) {
            return Ok(());
        }
        self.fire_what_ended().await
    }

    /// The newest time that has been: of this program, of jobs that are there or may be, of runs.
    async fn newest(&self, known: &[(String, i64)]) -> Result<Timestamp, DaemonError> {
        let is_there = |job: &String| !self.is_listed || self.watched.contains_key(job);
        let marks = known.iter().filter(|(job, _)| is_there(job)).map(|(_, newest_ms)| *newest_ms);
        let last = self.state.history(None, None, 1).await?;
        let runs = last.iter().map(|head| head.ended_ms.unwrap_or(head.started_ms));
        let newest = marks.chain(runs).max().and_then(|ms| Timestamp::from_millisecond(ms).ok());
        Ok(newest.map_or(self.options.built, |newest| newest.max(self.options.built)))
    }

    /// Goes on with a run of an earlier process, beside everything else: what that one left is ended first, which may take
    /// its time.
    pub(super) fn begin_resume(&mut self, head: RunHead) {
        let (means, handle, of) = (self.means(), self.handle.clone(), head.clone());
        let task = self.world.spawn(async move {
            let resumed = means.resume(&of).await;
            handle.resumed(of.run, resumed).await;
        });
        self.resuming.push((head, task));
    }

    /// What became of it.
    pub(super) async fn handle_resumed(
        &mut self,
        run: &str,
        resumed: Result<Resumed, StoreError>,
    ) -> Result<(), DaemonError> {
        let Some(place) = self.resuming.iter().position(|(head, _)| *head.run == *run) else { return Ok(()) };
        let (head, _) = self.resuming.remove(place);
        match resumed? {
            Resumed::Goes(run) => {
                let due = Timestamp::from_millisecond(head.due_ms).unwrap_or_default();
                let handle = run.handle();
                self.follow(*run, &head.job, &head.trigger, due);
                if self.stopping && !planted(Bug::StopWaits) {
                    handle.stop();
                }
            }
            Resumed::Ended(_) if self.stopping => {}
            Resumed::Ended(outcome) => {
                let now = self.look();
                self.fire_after(&head.job, outcome, &head.run, head.due_ms, &now).await?;
            }
            Resumed::Settled => {}
        }
        Ok(())
    }

    /// Runs of a job that an earlier process left, and that are not gone on with yet.
    pub(super) fn left_of<'a>(&'a self, job: &'a str) -> impl Iterator<Item = &'a RunHead> {
        let left = self.to_resume.iter().chain(self.resuming.iter().map(|(head, _)| head));
        left.filter(move |head| head.job == job)
    }

    /// Notices of runs whose process died, or was stopped, before they were sent.
    async fn send_notices(&mut self) -> Result<(), DaemonError> {
        let mut left: BTreeMap<Arc<str>, Vec<u16>> = BTreeMap::new();
        for Notice { run, place, alive } in self.state.notices().await? {
            if !alive {
                left.entry(run).or_default().push(place);
            }
        }
        for (run, places) in left {
            let means = self.means();
            self.run_errand(async move {
                // What is not sent now is asked for again by the next start.
                if let Err(why) = means.send_notices(&run, &places).await {
                    log::error!(target: "lamplighter::daemon", run = &*run; "its notices cannot be sent: {why}");
                }
            });
        }
        Ok(())
    }

    /// Ends of runs that nobody has heard yet: what is due after them.
    pub(super) async fn fire_what_ended(&mut self) -> Result<(), DaemonError> {
        let now = Moment { is_trusted: true, ..self.look() };
        loop {
            let unheard = self.state.unheard().await?;
            if unheard.is_empty() {
                return Ok(());
            }
            self.heard.clear();
            let ended = unheard.iter().filter_map(|head| Some((head, AfterEnd::Run(head.outcome?))));
            let due = ended
                .flat_map(|(head, end)| self.due_after(&head.job, end, &head.run, head.due_ms, &now, Watched::hears));
            let due = due.collect();
            let written = self.state.hear(unheard.into_iter().map(|head| head.run).collect(), due).await?;
            self.act_on(written);
        }
    }
}

/// What became of a run that an earlier process left.
pub(super) enum Resumed {
    /// It goes on.
    Goes(Box<Run>),
    /// It has ended so, now, and whoever wants to know of it is told.
    Ended(RunOutcome),
    /// It had ended, or somebody else works on it.
    Settled,
}

impl Means {
    async fn resume(&self, head: &RunHead) -> Result<Resumed, StoreError> {
        let Some(details) =
            self.state.details(&head.run).await?.filter(|details| details.head.phase != RunPhase::Ended)
        else {
            return Ok(Resumed::Settled);
        };
        let started = match self.kept_job(&details).await {
            Ok(job) => match self.options_of(&job).await {
                Ok(options) => {
                    let runner = self.runner.clone();
                    runner.resume(&job, options, &self.state, &head.run).await
                }
                Err(why) => Err(StartError::Out(why)),
            },
            Err(problems) => Err(StartError::Out(problems.to_string())),
        };
        match started {
            Ok(run) => Ok(Resumed::Goes(Box::new(run))),
            Err(StartError::State(error)) => Err(error),
            Err(StartError::Poison(_)) => Ok(Resumed::Ended(RunOutcome::Quarantined)),
            Err(why) => {
                log::error!(target: "lamplighter::daemon", job = head.job.as_str(), run = &*head.run; "cannot be resumed: {why}");
                Ok(match give_up(&self.world, &self.state, head, &self.surroundings().await).await? {
                    true => Resumed::Ended(RunOutcome::Interrupted),
                    false => Resumed::Settled,
                })
            }
        }
    }

    /// Sends notices of a run of an earlier process.
    async fn send_notices(&self, run: &str, places: &[u16]) -> Result<(), String> {
        let details = self.state.details(run).await.map_err(|error| error.to_string())?;
        let Some(details) = details.filter(|details| details.head.kind == RunKind::Serve) else { return Ok(()) };
        let job = self.kept_job(&details).await.map_err(|problems| problems.to_string())?;
        let options = self.options_of(&job).await?;
        self.runner.send_notices(&job, options, &self.state, &details, places).await.map_err(|error| error.to_string())
    }
}
