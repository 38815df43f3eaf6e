//! What a daemon tells of its jobs, and how it answers what it is asked.

use super::{
    Daemon, DaemonError,
    command::{Question, Refusal, RunWish, Which},
    watched::{Moment, Pause, Watched},
};
use crate::{
    item::RunOutcome,
    limits::OVERDUE_LOOK_BACK,
    problem::closest,
    run::{RunHandle, Runner, StartError, rfc3339},
    store::State,
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};

/// All jobs of a daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overview {
    /// When this was, in UTC.
    pub now: Timestamp,
    /// The wall clock is believed; until then nothing starts by the calendar.
    pub clock_trusted: bool,
    /// Threads are lost to computations that never ended: the program starts anew when it is next idle.
    pub degraded: bool,
    /// It starts nothing more.
    pub stopping: bool,
    /// By name.
    pub jobs: Vec<JobStatus>,
}

/// One job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStatus {
    /// Its name.
    pub job: String,
    /// What it is for.
    pub description: Option<String>,
    /// Its schedule, as written; empty where its file cannot be used.
    pub schedule: String,
    /// The zone of its times.
    pub zone: String,
    /// When it is due next, in its zone.
    pub next: Option<String>,
    /// Milliseconds until then.
    pub next_in_ms: Option<i64>,
    /// Nothing starts by schedule.
    pub paused: bool,
    /// Until then, where it ends by itself.
    pub paused_until: Option<String>,
    /// Its runs that live.
    pub running: Vec<Running>,
    /// Firings that wait for their turn.
    pub waiting: Vec<Waiting>,
    /// Its last run that has ended.
    pub last: Option<LastRun>,
    /// It was due, had its time, and has not succeeded since.
    pub overdue: bool,
    /// What is wrong with its file; what is watched is the last good version.
    pub problem: Option<String>,
}

/// A run that lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Its id.
    pub run: String,
    /// What started it.
    pub trigger: String,
    /// Since then, in milliseconds.
    pub ran_ms: u64,
}

/// A firing that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// When it was due, in the zone of the job.
    pub due: String,
    /// What starts it.
    pub trigger: String,
}

/// A run that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastRun {
    /// Its id.
    pub run: String,
    /// How it ended.
    pub outcome: RunOutcome,
    /// When, in the zone of the job.
    pub ended: String,
    /// How long ago, in milliseconds.
    pub age_ms: i64,
}

impl Daemon {
    pub(super) async fn handle_ask(&mut self, question: Question) -> Result<(), DaemonError> {
        match question {
            Question::Overview(answer) => {
                let overview = self.overview().await?;
                let _ = answer.try_send(overview);
            }
            Question::Run(wish, answer) => {
                let started = self.run_now(wish).await?;
                let _ = answer.try_send(started);
            }
            Question::Retry(run, held, answer) => {
                let started = self.retry_now(&run, held).await?;
                let _ = answer.try_send(started);
            }
            Question::Cancel(run, by, answer) => {
                let found = self.find(&run).map(|live| live.cancel(&by));
                let _ = answer.try_send(found.ok_or_else(|| Refusal::NoRun(format!("no run `{run}` is running"))));
            }
            Question::Find(run, answer) => {
                let _ = answer.try_send(self.find(&run));
            }
            Question::Pause(which, until, answer) => {
                let until_ms = until.map(Timestamp::as_millisecond);
                let paused = self.set_paused(&which, Some(&Pause { until_ms })).await?;
                let _ = answer.try_send(paused);
            }
            Question::Resume(which, answer) => {
                let resumed = self.set_paused(&which, None).await?;
                let _ = answer.try_send(resumed);
            }
            Question::Reload(answer) => {
                self.handle_files().await?;
                let mut wrong: BTreeMap<String, String> =
                    self.broken.iter().map(|(name, (_, why))| (name.clone(), why.clone())).collect();
                let kept =
                    self.watched.iter().filter_map(|(name, watched)| Some((name.clone(), watched.problem.clone()?)));
                wrong.extend(kept);
                let _ = answer.try_send(wrong);
            }
        }
        Ok(())
    }

    /// A run that lives, by its id or the name of its job: the one that began last.
    fn find(&self, run: &str) -> Option<RunHandle> {
        let by_id = self.live.iter().find(|live| live.handle.id() == run);
        let of_job = || self.live.iter().rev().find(|live| live.job == run);
        by_id.or_else(of_job).map(|live| live.handle.clone())
    }

    fn no_job(&self, name: &str) -> Refusal {
        if let Some((_, why)) = self.broken.get(name) {
            return Refusal::NoJob(format!("the file of `{name}` has errors:\n{why}"));
        }
        let near = closest(name, self.watched.keys().map(String::as_str));
        let help = near
            .map_or_else(|| "`lamplighter list` names them all".to_owned(), |near| format!("did you mean `{near}`?"));
        Refusal::NoJob(format!("there is no job `{name}`: {help}"))
    }

    async fn run_now(&mut self, wish: RunWish) -> Result<Result<RunHandle, Refusal>, DaemonError> {
        if self.stopping {
            return Ok(Err(Refusal::Stopping));
        }
        let job = match self.wake(&wish.job).await {
            Some(Ok(job)) => job,
            Some(Err(why)) => return Ok(Err(Refusal::Wrong(why))),
            None => return Ok(Err(self.no_job(&wish.job))),
        };
        let mut options = match self.options_of(&job).await {
            Ok(options) => options,
            Err(why) => return Ok(Err(Refusal::Wrong(why))),
        };
        options.params = wish.params;
        for (name, text) in &wish.set {
            match job.param(name, text) {
                Ok(value) => options.params.insert(name.clone(), value),
                Err(why) => return Ok(Err(Refusal::Wrong(why))),
            };
        }
        options.deadline = wish.deadline_ms.map(Duration::from_millis);
        options.due = wish.due;
        let due = wish.due.unwrap_or_else(|| self.world.wall());
        let left = self.to_resume.iter().filter(|head| *head.job == *job.name).count();
        let running = self.live.iter().filter(|live| *live.job == *job.name).count() + left;
        if running >= job.runs_at_once() as usize && running > 0 {
            let run = self.find(&job.name).map(|live| live.id().to_owned()).unwrap_or_default();
            return Ok(Err(Refusal::Busy(StartError::Busy(run).to_string())));
        }
        let keeping = self.keeping(&job, &wish.trigger, None);
        let started = Runner::new(self.world.clone()).begin(&job, options, &keeping).await;
        self.answer_start(started, &job.name, &wish.trigger, due)
    }

    async fn retry_now(&mut self, run: &str, held: bool) -> Result<Result<RunHandle, Refusal>, DaemonError> {
        if self.stopping {
            return Ok(Err(Refusal::Stopping));
        }
        let Some(details) = self.state.details(run).await? else {
            return Ok(Err(Refusal::NoRun(format!(
                "there is no run and no job `{run}`: `lamplighter history` lists them"
            ))));
        };
        let job = match self.kept_job(&details).await {
            Ok(job) => job,
            Err(problems) => return Ok(Err(Refusal::Wrong(problems.to_string()))),
        };
        let options = match self.options_of(&job).await {
            Ok(options) => options,
            Err(why) => return Ok(Err(Refusal::Wrong(why))),
        };
        let keeping = self.keeping(&job, "retry", None);
        let started = Runner::new(self.world.clone()).retry(&job, options, &keeping, &details, held).await;
        let due = Timestamp::from_millisecond(details.head.due_ms).unwrap_or_default();
        self.answer_start(started, &job.name, "retry", due)
    }

    fn answer_start(
        &mut self,
        started: Result<crate::run::Run, StartError>,
        job: &str,
        trigger: &str,
        due: Timestamp,
    ) -> Result<Result<RunHandle, Refusal>, DaemonError> {
        match started {
            Ok(run) => {
                let handle = run.handle();
                self.follow(run, job, trigger, due);
                Ok(Ok(handle))
            }
            Err(StartError::State(error)) => Err(error.into()),
            Err(
                error @ (StartError::Busy(_)
                | StartError::Begun(_)
                | StartError::Settled
                | StartError::NotEnded(_)
                | StartError::Gone(_)),
            ) => Ok(Err(Refusal::Busy(error.to_string()))),
            Err(error) => Ok(Err(Refusal::Wrong(error.to_string()))),
        }
    }

    async fn set_paused(
        &mut self,
        which: &Which,
        pause: Option<&Pause>,
    ) -> Result<Result<Vec<String>, Refusal>, DaemonError> {
        let names: Vec<String> = match which {
            Which::All => self.watched.keys().cloned().collect(),
            Which::Job(name) if self.watched.contains_key(name) => vec![name.clone()],
            Which::Job(name) => return Ok(Err(self.no_job(name))),
        };
        for name in &names {
            let Some(watched) = self.watched.get_mut(name) else { continue };
            watched.set_paused(pause.cloned());
            let mark = watched.kept_mark();
            self.state.consider(vec![mark], Vec::new()).await?;
        }
        Ok(Ok(names))
    }

    async fn overview(&mut self) -> Result<Overview, DaemonError> {
        let (wall, boot, why_late) = (self.world.wall(), self.world.boot(), "down");
        let boot_id = self.options.boot.clone();
        let now =
            Moment { wall, boot, boot_id: &boot_id, why_late, is_trusted: self.trust.is_trusted(), ready: self.ready };
        let mut jobs = Vec::new();
        for (name, watched) in &self.watched {
            let (last, overdue) = last_of(&self.state, watched, &now).await?;
            let zone = &watched.job.zone;
            let next = watched.next_told(&now);
            let pause = watched.mark().paused.as_ref().filter(|_| watched.is_paused(wall));
            let until = pause.and_then(|pause| Timestamp::from_millisecond(pause.until_ms?).ok());
            let running = self.live.iter().filter(|live| live.job == *name).map(|live| Running {
                run: live.handle.id().to_owned(),
                trigger: live.trigger.clone(),
                ran_ms: u64::try_from(live.handle.progress().elapsed.as_millis()).unwrap_or(u64::MAX),
            });
            let waiting = self.waiting.iter().filter(|waiting| waiting.job == *name);
            jobs.push(JobStatus {
                job: name.clone(),
                description: watched.job.description.as_deref().map(str::to_owned),
                schedule: watched.job.timing.schedule.to_string(),
                zone: zone.iana_name().unwrap_or("the system's").to_owned(),
                next: next.map(|next| rfc3339(next, zone)),
                next_in_ms: next.map(|next| next.as_millisecond() - wall.as_millisecond()),
                paused: pause.is_some(),
                paused_until: until.map(|until| rfc3339(until, zone)),
                running: running.collect(),
                waiting: waiting
                    .map(|waiting| Waiting { due: rfc3339(waiting.due, zone), trigger: waiting.trigger.clone() })
                    .collect(),
                overdue: overdue && pause.is_none(),
                last,
                problem: watched.problem.clone(),
            });
        }
        jobs.extend(self.broken.iter().map(|(name, (_, why))| JobStatus {
            job: name.clone(),
            description: None,
            schedule: String::new(),
            zone: String::new(),
            next: None,
            next_in_ms: None,
            paused: false,
            paused_until: None,
            running: Vec::new(),
            waiting: Vec::new(),
            last: None,
            overdue: false,
            problem: Some(why.clone()),
        }));
        jobs.sort_by(|one, other| one.job.cmp(&other.job));
        Ok(Overview {
            now: wall,
            clock_trusted: now.is_trusted,
            degraded: self.world.degraded(),
            stopping: self.stopping,
            jobs,
        })
    }
}

/// The last run of a job that has ended, and whether the job is overdue: a time of its calendar has passed, with all that a run
/// may take, and no run of that time or a later one has succeeded.
async fn last_of(state: &State, watched: &Watched, now: &Moment<'_>) -> Result<(Option<LastRun>, bool), DaemonError> {
    let heads = state.history(Some(&watched.job.name), None, OVERDUE_LOOK_BACK).await?;
    let last = heads.iter().find_map(|head| Some((head, head.outcome?, head.ended_ms?)));
    let good = |outcome| matches!(outcome, RunOutcome::Succeeded | RunOutcome::Partial);
    let last_good = heads.iter().filter(|head| head.outcome.is_some_and(good)).map(|head| head.due_ms).max();
    let timing = &watched.job.timing;
    let patience = timing.splay + timing.lateness.start_window + watched.job.deadline;
    let patience = SignedDuration::try_from(patience).unwrap_or(SignedDuration::MAX);
    let since = heads.last().map(|head| head.started_ms).and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let expected = now.wall.checked_sub(patience).ok().and_then(|until| watched.newest_due(since?, until));
    let overdue = expected.is_some_and(|due| last_good.is_none_or(|good| good < due.as_millisecond()));
    let told = last.map(|(head, outcome, ended_ms)| LastRun {
        run: head.run.to_string(),
        outcome,
        ended: rfc3339(Timestamp::from_millisecond(ended_ms).unwrap_or_default(), &watched.job.zone),
        age_ms: now.wall.as_millisecond().saturating_sub(ended_ms),
    });
    Ok((told, overdue))
}
