//! What a daemon tells of its jobs, and how it answers what it is asked.

use super::{
    Daemon, DaemonError,
    command::{OfFiles, Question, Refusal, RunWish, Which},
    dormant::Dormant,
    watched::{Mark, Moment, Pause, Watched},
};
use crate::{
    action::Listener,
    item::RunOutcome,
    job::{CheckedJob, JobProblems},
    limits::OVERDUE_LOOK_BACK,
    problem::closest,
    run::{RunHandle, RunOptions, StartError, give_up, rfc3339},
    store::{self, RunHead, RunKind, State, StoreError},
    world::World,
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};

/// All jobs of a daemon, or of a folder that none looks after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overview {
    /// A daemon looks after them; else nothing starts by itself.
    pub served: bool,
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
    /// Its runs that live, those of commands in the foreground too.
    pub running: Vec<Running>,
    /// Its runs that wait to be resumed, by their ids.
    pub interrupted: Vec<String>,
    /// Firings that wait for their turn.
    pub waiting: Vec<Waiting>,
    /// Its last run that has ended.
    pub last: Option<LastRun>,
    /// It was due, had its time, and has not succeeded since.
    pub overdue: bool,
    /// The time of its calendar that it has missed so, in its zone.
    pub overdue_since: Option<String>,
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
    /// What it waits for.
    pub reason: String,
}

/// A run that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastRun {
    /// Its id.
    pub run: String,
    /// How it ended.
    pub outcome: RunOutcome,
    /// Why.
    pub reason: Option<String>,
    /// When, in the zone of the job.
    pub ended: String,
    /// How long ago, in milliseconds.
    pub age_ms: i64,
}

impl Daemon {
    pub(super) async fn handle_ask(&mut self, question: Question) -> Result<(), DaemonError> {
        match question {
            Question::Overview(with_runs, answer) => {
                let overview = self.overview(with_runs).await?;
                let _ = answer.try_send(overview);
            }
            // Whoever asks for a run has just saved the file, more often than not.
            Question::OfFiles(asked) => self.read_files(Some(asked)),
            Question::Retry(run, held, listener, answer) => {
                let started = self.retry_now(&run, held, listener).await?;
                let _ = answer.try_send(started);
            }
            Question::End(run, answer) => {
                // Without a run the sender is dropped, which is an answer.
                if let Some(live) = self.live.iter_mut().find(|live| live.handle.id() == run) {
                    live.watchers.push(answer);
                }
            }
            Question::Cancel(run, by, kill, answer) => {
                let found = self.find(&run).map(|live| {
                    if kill {
                        live.kill(&by);
                    } else {
                        live.cancel(&by);
                    }
                    live.id().to_owned()
                });
                let _ = answer.try_send(found.ok_or_else(|| self.no_run(&run)));
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
        }
        Ok(())
    }

    /// Job files were read: what was asked is answered by them.
    pub(super) async fn answer_read(&mut self, question: OfFiles) -> Result<(), DaemonError> {
        match question {
            OfFiles::Run(wish, listener, answer) => {
                let started = self.run_now(wish, listener).await?;
                let _ = answer.try_send(started);
            }
            OfFiles::Reload(answer) => {
                let broken = self.broken.iter().map(|(name, (_, why))| (name.clone(), why.clone()));
                let kept =
                    self.watched.iter().filter_map(|(name, watched)| Some((name.clone(), watched.problem.clone()?)));
                let _ = answer.try_send(Ok(broken.chain(kept).collect()));
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

    fn no_run(&self, named: &str) -> Refusal {
        if self.watched.contains_key(named) {
            return Refusal::NoRun(format!("`{named}` is not running"));
        }
        let names = self.live.iter().flat_map(|live| [live.handle.id(), live.job.as_str()]);
        let help = closest(named, names).map(|near| format!(": did you mean `{near}`?")).unwrap_or_default();
        Refusal::NoRun(format!("no run `{named}` is running{help}"))
    }

    async fn run_now(
        &mut self,
        wish: RunWish,
        listener: Option<Listener>,
    ) -> Result<Result<RunHandle, Refusal>, DaemonError> {
        if self.stopping {
            return Ok(Err(Refusal::Stopping));
        }
        if let Some(problem) = self.watched.get(&wish.job).and_then(|watched| watched.problem.as_ref()) {
            return Ok(Err(Refusal::NoJob(format!("the file of `{}` has errors:\n{problem}", wish.job))));
        }
        let job = match self.wake(&wish.job).await {
            Some(Ok(job)) => job,
            Some(Err(why)) => return Ok(Err(Refusal::Wrong(why))),
            None => return Ok(Err(self.no_job(&wish.job))),
        };
        let mut options = match self.means().options_of(&job).await {
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
        options.due = match wish.due.as_deref().map(|text| job.due(text)).transpose() {
            Ok(due) => due.map(|(due, _)| due),
            Err(why) => return Ok(Err(Refusal::Wrong(why))),
        };
        options.listener = listener;
        let due = options.due.unwrap_or_else(|| self.world.wall());
        let left: Vec<String> = self.left_of(&job.name).map(|head| head.run.to_string()).collect();
        let running = self.live.iter().filter(|live| *live.job == *job.name).count() + left.len();
        if running >= job.runs_at_once() as usize && running > 0 {
            let living = self.find(&job.name).map(|live| live.id().to_owned());
            let run = living.or_else(|| left.into_iter().next_back()).unwrap_or_default();
            return Ok(Err(Refusal::Busy(StartError::Busy(run).to_string())));
        }
        for head in self.state.unfinished(Some(&job.name)).await? {
            // A command in the foreground left it behind; its place is wanted, as it is there.
            if head.kind == RunKind::Foreground
                && !head.alive
                && give_up(&self.world, &self.state, &head, &self.means().surroundings().await).await?
            {
                log::warn!(target: "lamplighter::daemon", job = &*job.name, run = &*head.run; "settled as interrupted");
            }
        }
        let keeping = self.keeping(&job, &wish.trigger, None);
        let started = self.runner.begin(&job, options, &keeping).await;
        self.answer_start(started, &job.name, &wish.trigger, due)
    }

    async fn retry_now(
        &mut self,
        run: &str,
        held: bool,
        listener: Option<Listener>,
    ) -> Result<Result<RunHandle, Refusal>, DaemonError> {
        if self.stopping {
            return Ok(Err(Refusal::Stopping));
        }
        let Some(details) = self.state.details(run).await? else {
            return Ok(Err(Refusal::NoRun(format!(
                "there is no run and no job `{run}`: `lamplighter history` lists them"
            ))));
        };
        let job = match self.means().kept_job(&details).await {
            Ok(job) => job,
            Err(problems) => return Ok(Err(Refusal::Wrong(problems.to_string()))),
        };
        let options = match self.means().options_of(&job).await {
            Ok(options) => RunOptions { listener, ..options },
            Err(why) => return Ok(Err(Refusal::Wrong(why))),
        };
        let keeping = self.keeping(&job, "retry", None);
        let started = self.runner.retry(&job, options, &keeping, &details, held).await;
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
        let mut marks = Vec::new();
        for name in &names {
            if let Some(watched) = self.watched.get_mut(name) {
                watched.set_paused(pause.cloned());
                marks.push(watched.kept_mark());
            }
        }
        self.state.consider(marks, Vec::new()).await?;
        Ok(Ok(names))
    }

    async fn overview(&mut self, with_runs: bool) -> Result<Overview, DaemonError> {
        let now = self.look();
        let wall = now.wall;
        let unfinished = self.state.unfinished(None).await?;
        let mut jobs = Vec::new();
        for watched in self.watched.values() {
            let mut status = status_of(with_runs.then_some(&self.state), watched, &now, &unfinished).await?;
            let zone = &watched.job.zone;
            status.set_next(watched.next_told(&now), watched, wall);
            for running in &mut status.running {
                // Of our own it is known to this moment, in all passes.
                if let Some(live) = self.live.iter().find(|live| live.handle.id() == running.run) {
                    running.ran_ms = u64::try_from(live.handle.progress().elapsed.as_millis()).unwrap_or(u64::MAX);
                }
            }
            let waiting = self.waiting.iter().filter(|waiting| waiting.job == status.job);
            let told = waiting.map(|waiting| Waiting {
                due: rfc3339(waiting.due, zone),
                trigger: waiting.trigger.clone(),
                reason: waiting.why.to_owned(),
            });
            status.waiting = told.collect();
            jobs.push(status);
        }
        jobs.extend(self.broken.iter().map(|(name, (_, why))| JobStatus::broken(name, why.clone())));
        jobs.sort_by(|one, other| one.job.cmp(&other.job));
        Ok(Overview {
            served: true,
            now: wall,
            clock_trusted: now.is_trusted,
            degraded: self.world.degraded(),
            stopping: self.stopping,
            jobs,
        })
    }
}

impl JobStatus {
    /// A job whose file cannot be used.
    fn broken(name: &str, why: String) -> JobStatus {
        JobStatus {
            job: name.to_owned(),
            description: None,
            schedule: String::new(),
            zone: String::new(),
            next: None,
            next_in_ms: None,
            paused: false,
            paused_until: None,
            running: Vec::new(),
            interrupted: Vec::new(),
            waiting: Vec::new(),
            last: None,
            overdue: false,
            overdue_since: None,
            problem: Some(why),
        }
    }

    fn set_next(&mut self, next: Option<Timestamp>, watched: &Watched, wall: Timestamp) {
        self.next = next.map(|next| rfc3339(next, &watched.job.zone));
        self.next_in_ms = next.map(|next| next.as_millisecond() - wall.as_millisecond());
    }
}

/// Jobs that no daemon looks after, as their files and the state tell of them, `with_runs` with their last ones. `machine`
/// spreads their times, as [`super::DaemonOptions::machine`] does.
///
/// # Errors
/// When the state cannot be read.
pub async fn look_at(
    world: &World,
    state: Option<&State>,
    files: BTreeMap<String, Result<CheckedJob, JobProblems>>,
    machine: &str,
    with_runs: bool,
) -> Result<Overview, StoreError> {
    let (wall, boot) = (world.wall(), world.boot());
    let now = Moment { wall, boot, boot_id: "".into(), why_late: "down", is_trusted: true, ready: boot };
    let (marks, unfinished) = match state {
        Some(state) => (by_name(state.marks().await?), state.unfinished(None).await?),
        None => (BTreeMap::new(), Vec::new()),
    };
    let mut jobs = Vec::new();
    for (name, read) in files {
        let mark = marks.get(&name).map(Mark::read);
        let watched = match read {
            Ok(checked) => {
                Watched::new(Dormant::of(&checked.job, checked.job.base_dir.as_path().into()), 0, mark, machine, &now)
                    .map_err(|mistake| mistake.message)
            }
            Err(problems) => Err(problems.to_string()),
        };
        jobs.push(match watched {
            Ok(watched) => {
                let mut status = status_of(state.filter(|_| with_runs), &watched, &now, &unfinished).await?;
                // What counts from a start of a daemon has no next time without one.
                status.set_next(watched.next_by_calendar(wall), &watched, wall);
                status
            }
            Err(why) => JobStatus::broken(&name, why),
        });
    }
    Ok(Overview { served: false, now: wall, clock_trusted: true, degraded: false, stopping: false, jobs })
}

/// What [`super::Handle::pause`] and [`super::Handle::resume`] do, where no daemon is asked. One that starts meanwhile
/// may have read the state before: it must be asked as well. `paused` until then, or until somebody resumes it.
///
/// # Errors
/// When the state cannot be read or written.
pub async fn set_kept_pause(
    state: &State,
    jobs: &[String],
    paused: bool,
    until: Option<Timestamp>,
) -> Result<(), StoreError> {
    let marks = by_name(state.marks().await?);
    let paused = jobs.iter().map(|job| {
        let mut mark = marks.get(job).map(Mark::read).unwrap_or_default();
        mark.paused = paused.then(|| Pause { until_ms: until.map(Timestamp::as_millisecond) });
        mark.kept(job)
    });
    state.consider(paused.collect(), Vec::new()).await?;
    Ok(())
}

fn by_name(marks: Vec<store::Mark>) -> BTreeMap<String, store::Mark> {
    marks.into_iter().map(|kept| (kept.job.clone(), kept)).collect()
}

/// What can be told of a job without knowing who looks after it.
async fn status_of(
    state: Option<&State>,
    watched: &Watched,
    now: &Moment,
    unfinished: &[RunHead],
) -> Result<JobStatus, StoreError> {
    let (job, zone) = (&watched.job, &watched.job.zone);
    let (last, overdue) = match state {
        Some(state) => last_of(state, watched, now).await?,
        None => (None, None),
    };
    let pause = watched.mark().paused.as_ref().filter(|_| watched.is_paused(now.wall));
    let until = pause.and_then(|pause| Timestamp::from_millisecond(pause.until_ms?).ok());
    let overdue = overdue.filter(|_| pause.is_none());
    let own = || unfinished.iter().filter(|head| *head.job == *job.name);
    let running = own().filter(|head| head.alive).map(|head| Running {
        run: head.run.to_string(),
        trigger: head.trigger.clone(),
        ran_ms: now.wall.as_millisecond().saturating_sub(head.started_ms).unsigned_abs(),
    });
    Ok(JobStatus {
        job: job.name.to_string(),
        description: job.description.as_deref().map(str::to_owned),
        schedule: job.timing.schedule.to_string(),
        zone: zone.iana_name().unwrap_or("the system's").to_owned(),
        next: None,
        next_in_ms: None,
        paused: pause.is_some(),
        paused_until: until.map(|until| rfc3339(until, zone)),
        running: running.collect(),
        interrupted: own().filter(|head| !head.alive).map(|head| head.run.to_string()).collect(),
        waiting: Vec::new(),
        overdue: overdue.is_some(),
        overdue_since: overdue.map(|due| rfc3339(due, zone)),
        last,
        problem: watched.problem.clone(),
    })
}

/// The last run of a job that has ended, and the time since which the job is overdue: a time of its calendar has passed, with
/// all that a run may take, and no run of that time or a later one has succeeded.
async fn last_of(
    state: &State,
    watched: &Watched,
    now: &Moment,
) -> Result<(Option<LastRun>, Option<Timestamp>), StoreError> {
    let heads = state.history(Some(&watched.job.name), None, OVERDUE_LOOK_BACK).await?;
    let last = heads.iter().find_map(|head| Some((head, head.outcome?, head.ended_ms?)));
    let good = |outcome| matches!(outcome, RunOutcome::Succeeded | RunOutcome::Partial);
    let last_good = heads.iter().filter(|head| head.outcome.is_some_and(good)).map(|head| head.due_ms).max();
    let timing = &watched.job.timing;
    let patience = timing.splay + timing.lateness.start_window + watched.job.deadline;
    let patience = SignedDuration::try_from(patience).unwrap_or(SignedDuration::MAX);
    let since_ms = match heads.last() {
        Some(head) => Some(head.started_ms),
        // It has never run: the last time at which it should have.
        None => {
            state.past_firings(Some(&watched.job.name), None, 1).await?.first().map(|(_, firing)| firing.due_ms - 1)
        }
    };
    let since = since_ms.and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let expected = now.wall.checked_sub(patience).ok().and_then(|until| watched.newest_due(since?, until));
    let overdue = expected.filter(|due| last_good.is_none_or(|good| good < due.as_millisecond()));
    let told = last.map(|(head, outcome, ended_ms)| LastRun {
        run: head.run.to_string(),
        outcome,
        reason: head.reason.clone(),
        ended: rfc3339(Timestamp::from_millisecond(ended_ms).unwrap_or_default(), &watched.job.zone),
        age_ms: now.wall.as_millisecond().saturating_sub(ended_ms),
    });
    Ok((told, overdue))
}
