//! What an earlier process left: runs to go on with, notices to send, firings to start.

use super::{
    Daemon, DaemonError,
    trust::Trust,
    watched::{AfterEnd, Mark, Moment},
};
use crate::world::plant::{Bug, planted};
use crate::{
    item::RunOutcome,
    run::{Runner, StartError, give_up},
    store::{Notice, RunHead, RunKind, RunPhase},
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
        self.handle_files().await?;
        if !self.trust.is_trusted() {
            self.trust = Trust::new(self.options.clock, self.newest(&known).await?);
        }
        for firing in self.state.waiting_firings().await? {
            if !planted(Bug::WaitingForgotten) {
                self.wait(firing);
            }
        }
        self.send_notices().await?;
        for firing in self.state.firings_to_tell().await? {
            self.notify_missed(&firing).await;
        }
        if planted(Bug::AfterLostInCrash) {
            return Ok(());
        }
        self.fire_what_ended().await
    }

    /// The newest time that has been: of this program, of jobs that are there, of runs.
    async fn newest(&self, known: &[(String, i64)]) -> Result<Timestamp, DaemonError> {
        let marks = known.iter().filter(|(job, _)| self.watched.contains_key(job)).map(|(_, newest_ms)| *newest_ms);
        let last = self.state.history(None, None, 1).await?;
        let runs = last.iter().map(|head| head.ended_ms.unwrap_or(head.started_ms));
        let newest = marks.chain(runs).max().and_then(|ms| Timestamp::from_millisecond(ms).ok());
        Ok(newest.map_or(self.options.built, |newest| newest.max(self.options.built)))
    }

    /// Goes on with a run of an earlier process.
    pub(super) async fn resume(&mut self, head: &RunHead, now: &Moment<'_>) -> Result<(), DaemonError> {
        let Some(details) =
            self.state.details(&head.run).await?.filter(|details| details.head.phase != RunPhase::Ended)
        else {
            return Ok(());
        };
        let started = match self.kept_job(&details).await {
            Ok(job) => match self.options_of(&job).await {
                Ok(options) => {
                    let runner = Runner::new(self.world.clone());
                    runner.resume(&job, options, &self.state, &head.run).await
                }
                Err(why) => Err(StartError::Out(why)),
            },
            Err(problems) => Err(StartError::Out(problems.to_string())),
        };
        match started {
            Ok(run) => {
                let due = Timestamp::from_millisecond(head.due_ms).unwrap_or_default();
                self.follow(run, &head.job, &head.trigger, due);
            }
            Err(StartError::State(error)) => return Err(error.into()),
            // It is settled, and whoever wants to know of it was told.
            Err(StartError::Poison(_)) => {
                self.fire_after(&head.job, RunOutcome::Quarantined, &head.run, head.due_ms, now).await?;
            }
            Err(why) => {
                log::error!(target: "lamplighter::daemon", job = head.job.as_str(), run = &*head.run; "cannot be resumed: {why}");
                if give_up(&self.world, &self.state, head, &self.jobs.surroundings()).await? {
                    self.fire_after(&head.job, RunOutcome::Interrupted, &head.run, head.due_ms, now).await?;
                }
            }
        }
        Ok(())
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
            let Some(details) = self.state.details(&run).await?.filter(|details| details.head.kind == RunKind::Serve)
            else {
                continue;
            };
            let Ok(job) = self.kept_job(&details).await else { continue };
            let Ok(options) = self.options_of(&job).await else { continue };
            let (runner, state) = (Runner::new(self.world.clone()), self.state.clone());
            self.errands.retain(|errand| !errand.is_finished());
            self.errands.push(self.world.spawn(async move {
                // What is not sent now is asked for again by the next start.
                if let Err(error) = runner.send_notices(&job, options, &state, &details, &places).await {
                    log::error!(target: "lamplighter::daemon", run = &*run; "its notices cannot be sent: {error}");
                }
            }));
        }
        Ok(())
    }

    /// Ends of runs that came when nobody looked: what is due after them.
    async fn fire_what_ended(&mut self) -> Result<(), DaemonError> {
        let (wall, boot, why_late) = self.look();
        let boot_id = self.options.boot.clone();
        let now = Moment { wall, boot, boot_id: &boot_id, why_late, is_trusted: true, ready: self.ready };
        loop {
            let unheard = self.state.unheard().await?;
            if unheard.is_empty() {
                return Ok(());
            }
            let due = unheard.iter().flat_map(|head| {
                let ended = head.outcome.map(AfterEnd::Run).zip(head.ended_ms);
                let waits = self.watched.values().filter_map(|watched| {
                    let (end, _) = ended.filter(|(_, ended_ms)| watched.was_watched(*ended_ms))?;
                    watched.after(&head.job, end, &head.run, head.due_ms, &now)
                });
                waits.collect::<Vec<_>>()
            });
            let due = due.collect();
            let written = self.state.hear(unheard.into_iter().map(|head| head.run).collect(), due).await?;
            self.act_on(written).await;
        }
    }
}
