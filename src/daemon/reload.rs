//! Job files that come, change and go. A bad edit harms only itself: the last good version goes on.

use super::{
    Daemon, DaemonError, Jobs,
    command::OfFiles,
    dormant::Dormant,
    watched::{Mark, Moment, NextDue, Watched},
};
use crate::{
    job::JobProblems,
    limits::{FILES_PATIENCE, MARKS_AT_ONCE},
    schedule::circles,
    store,
    world::{Boot, Task},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    path::Path,
    sync::Arc,
    time::Duration,
};

/// Job files on their way: their folder may hang, and the loop waits for nobody.
pub(super) struct Reading {
    since: Boot,
    /// They may have changed since it began: another one follows.
    again: bool,
    /// It takes too long, and that was said.
    hangs: bool,
    /// Who asked before it began, and who asks for the next.
    asked: Vec<OfFiles>,
    asked_anew: Vec<OfFiles>,
    _task: Task<()>,
}

/// What a reading has found.
pub(super) struct Found {
    /// Every job that has a file.
    names: BTreeSet<String>,
    /// Those whose files are not as they were, and what they are like now.
    changed: Vec<(String, u64, Result<Dormant, JobProblems>)>,
}

impl Daemon {
    /// Job files may have changed: they are read, beside everything else. Who asks is answered then.
    pub(super) fn read_files(&mut self, asked: Option<OfFiles>) {
        match &mut self.reading {
            None => self.begin_reading(asked.into_iter().collect()),
            Some(reading) => {
                reading.again = true;
                match asked {
                    Some(asked) if reading.hangs => asked.refuse(&no_answer()),
                    asked => reading.asked_anew.extend(asked),
                }
            }
        }
    }

    fn begin_reading(&mut self, asked: Vec<OfFiles>) {
        let (found, handle) = (self.find_files(), self.handle.clone());
        let task = self.world.spawn(async move {
            let found = found.await;
            handle.files_read(found).await;
        });
        let since = self.world.boot();
        let (again, hangs, asked_anew) = (false, false, Vec::new());
        self.reading = Some(Reading { since, again, hangs, asked, asked_anew, _task: task });
    }

    /// Reads the jobs whose files are not as they were.
    pub(super) fn find_files(&self) -> impl Future<Output = Result<Found, String>> + Send + use<> {
        let (jobs, world) = (self.jobs.clone(), self.world.clone());
        let broken = self.broken.iter().map(|(name, (stamp, _))| (name.clone(), *stamp));
        let watched = self.watched.iter().map(|(name, watched)| (name.clone(), watched.stamp));
        let known: BTreeMap<String, u64> = broken.chain(watched).collect();
        let dirs = self.watched.values().map(|watched| watched.job.base_dir().clone()).collect();
        async move { world.unblock(move || find(&*jobs, &known, dirs)).await }
    }

    /// A reading has ended.
    pub(super) async fn handle_read(&mut self, found: Result<Found, String>) -> Result<(), DaemonError> {
        let Some(reading) = self.reading.take() else { return Ok(()) };
        let why = found.as_ref().err().map(|why| format!("jobs cannot be listed: {why}"));
        self.take_files(found).await?;
        for asked in reading.asked {
            match &why {
                Some(why) => asked.refuse(why),
                None => self.answer_read(asked).await?,
            }
        }
        if reading.again {
            self.begin_reading(reading.asked_anew);
        }
        Ok(())
    }

    /// A reading that takes too long is told of once, and nobody waits for it any more; until then, when to look again.
    pub(super) fn watch_reading(&mut self, now: Boot) -> Option<NextDue> {
        let reading = self.reading.as_mut().filter(|reading| !reading.hangs)?;
        let until = reading.since + FILES_PATIENCE;
        if now < until {
            return Some(NextDue::Boot(until));
        }
        reading.hangs = true;
        let why = no_answer();
        log::error!(target: "lamplighter::daemon", "{why}; the last good versions of all jobs go on");
        reading.asked.drain(..).chain(reading.asked_anew.drain(..)).for_each(|asked| asked.refuse(&why));
        None
    }

    /// What was found holds from now on. A job that cannot be used keeps its last good version.
    pub(super) async fn take_files(&mut self, found: Result<Found, String>) -> Result<(), DaemonError> {
        let Found { names, changed } = match found {
            Ok(found) => found,
            Err(why) => {
                log::error!(target: "lamplighter::daemon", "jobs cannot be listed: {why}");
                return Ok(());
            }
        };
        let now = Moment { why_late: "down", ..self.look() };
        let mut marks = Vec::new();
        let gone: Vec<String> = self.watched.keys().filter(|name| !names.contains(*name)).cloned().collect();
        for name in gone {
            if let Some(watched) = self.watched.remove(&name) {
                marks.extend(self.unwatch(watched.mark().clone(), &name, &now));
                log::info!(target: "lamplighter::daemon", job = name.as_str(); "job removed");
            }
        }
        // An earlier process has watched those.
        for name in self.unwatched.keys().filter(|name| !names.contains(*name)).cloned().collect::<Vec<_>>() {
            if let Some(mark) = self.unwatched.remove(&name) {
                marks.extend(self.unwatch(mark, &name, &now));
            }
        }
        self.forget_gone(&now).await?;
        self.broken.retain(|name, _| names.contains(name));
        let is_first = !std::mem::replace(&mut self.is_listed, true);
        if !changed.is_empty() && !is_first {
            // Who is watched from now on is not to hear of what has ended, nor is one that was away meanwhile.
            self.fire_what_ended().await?;
        }
        for (name, stamp, job) in changed {
            match job {
                Ok(job) => marks.extend(self.watch(name, stamp, job, &now)),
                Err(problems) => self.keep_last_good(name, stamp, &problems),
            }
        }
        self.find_circles();
        self.tell_what_runs();
        if is_first {
            // Before it is on the disk who is watched: the next process would take those that are new for old ones.
            self.find_what_waits().await?;
        }
        self.watched.values_mut().for_each(|watched| watched.hear_from_now());
        self.keep_marks(marks).await
    }

    async fn keep_marks(&self, mut marks: Vec<store::Mark>) -> Result<(), DaemonError> {
        while !marks.is_empty() {
            let rest = marks.split_off(marks.len().min(MARKS_AT_ONCE));
            self.state.consider(marks, Vec::new()).await?;
            marks = rest;
        }
        Ok(())
    }

    /// Jobs that wait for each other, and a word of those that did not before.
    fn find_circles(&mut self) {
        let waits = self.watched.iter().map(|(name, watched)| (name.as_str(), watched.jobs_before().collect()));
        let before = waits.filter(|(_, before): &(&str, Vec<&str>)| !before.is_empty()).collect();
        let found = circles(&before).into_iter().map(|circle| circle.into_iter().map(str::to_owned).collect());
        let known = std::mem::replace(&mut self.circles, found.collect());
        for circle in self.circles.iter().filter(|circle| !known.contains(circle)) {
            let names: Vec<&str> = circle.iter().map(String::as_str).collect();
            log::warn!(
                target: "lamplighter::daemon",
                "{} wait for each other: none of them starts after another of them", names.join(", ")
            );
        }
    }

    /// Watches a job from now on, or its new version; its mark, where that must be kept.
    fn watch(&mut self, name: String, stamp: u64, job: Dormant, now: &Moment) -> Option<store::Mark> {
        let mark = match (self.watched.get(&name), self.unwatched.remove(&name)) {
            (Some(watched), _) => Some(watched.mark().clone()),
            (None, kept) => kept,
        };
        let is_moved = self.watched.get(&name).is_some_and(|watched| watched.job.zone != job.zone);
        let old = mark.clone().map(|mark| mark.back(now)).map(|mark| if is_moved { mark.moved(now) } else { mark });
        match Watched::new(job, stamp, old, &self.options.machine, now) {
            Ok(watched) => {
                // Of one that is due by itself no more it must be known since when it is not.
                let must_be_kept = (watched.is_scheduled() || mark.is_some()) && mark.as_ref() != Some(watched.mark());
                let kept = must_be_kept.then(|| watched.kept_mark());
                self.broken.remove(&name);
                log::debug!(target: "lamplighter::daemon", job = name.as_str(); "job watched");
                self.watched.insert(name, Box::new(watched));
                kept
            }
            Err(mistake) => {
                self.broken.insert(name, (stamp, mistake.message));
                None
            }
        }
    }

    /// The file of a job is gone. When that was is kept: it may be back in a moment, or be another one in a year.
    fn unwatch(&mut self, mut mark: Mark, name: &str, now: &Moment) -> Option<store::Mark> {
        let kept = mark.goes(now).then(|| mark.kept(name));
        self.unwatched.insert(name.to_owned(), mark);
        kept
    }

    /// Marks of jobs that have been gone for as long as history is kept.
    async fn forget_gone(&mut self, now: &Moment) -> Result<(), DaemonError> {
        let max_age = Duration::from_millis(self.options.retention.max_age_ms);
        let over = self.unwatched.extract_if(.., |_, mark| now.is_trusted && mark.is_over(max_age, now));
        let marks: Vec<_> = over.map(|(job, _)| store::Mark { job, text: String::new() }).collect();
        self.keep_marks(marks).await
    }

    fn keep_last_good(&mut self, name: String, stamp: u64, problems: &JobProblems) {
        // A line for each: a log is read line by line.
        for problem in &problems.problems {
            let at = problems.source.position(problem.span.start);
            let help = problem.help.as_ref().map(|help| format!(": {help}")).unwrap_or_default();
            log::error!(
                target: "lamplighter::daemon", job = name.as_str();
                "{}:{}:{}: {}{help}", problems.source.name, at.line, at.column, problem.message
            );
        }
        match self.watched.get_mut(&name) {
            Some(watched) => {
                watched.stamp = stamp;
                watched.problem = Some(problems.to_string());
            }
            None => drop(self.broken.insert(name, (stamp, problems.to_string()))),
        }
    }
}

/// What is kept of a stamp: it only ever has to differ.
fn short(stamp: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    stamp.hash(&mut hasher);
    hasher.finish()
}

/// Why nobody waits for a reading.
fn no_answer() -> String {
    format!("the job files cannot be read: their folder has not answered for {} s", FILES_PATIENCE.as_secs())
}

/// Lists the jobs, and reads those that are not as they are known.
fn find(jobs: &dyn Jobs, known: &BTreeMap<String, u64>, mut dirs: BTreeSet<Arc<Path>>) -> Result<Found, String> {
    let (mut names, mut changed) = (BTreeSet::new(), Vec::new());
    for (name, stamp) in jobs.list()? {
        let stamp = short(&stamp);
        if known.get(&name) != Some(&stamp) {
            changed.push(read(jobs, &mut dirs, name.clone(), stamp));
        }
        names.insert(name);
    }
    Ok(Found { names, changed })
}

/// Reads a job and packs it; folders are kept once.
fn read(
    jobs: &dyn Jobs,
    dirs: &mut BTreeSet<Arc<Path>>,
    name: String,
    stamp: u64,
) -> (String, u64, Result<Dormant, JobProblems>) {
    let job = jobs.load(&name).map(|checked| {
        let dir: Arc<Path> = match dirs.get(checked.job.base_dir.as_path()) {
            Some(dir) => dir.clone(),
            None => checked.job.base_dir.as_path().into(),
        };
        dirs.insert(dir.clone());
        Dormant::of(&checked.job, dir)
    });
    (name, stamp, job)
}
