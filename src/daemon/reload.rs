//! Job files that come, change and go. A bad edit harms only itself: the last good version goes on.

use super::{
    Daemon, DaemonError, Jobs,
    dormant::Dormant,
    watched::{Mark, Moment, Watched},
};
use crate::{job::JobProblems, limits::MARKS_AT_ONCE, store};
use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hash, Hasher},
    path::Path,
    sync::Arc,
};

impl Daemon {
    /// Reads the jobs whose files are not as they were. One that cannot be used keeps its last good version.
    pub(super) async fn handle_files(&mut self) -> Result<(), DaemonError> {
        let jobs = self.jobs.clone();
        let found = match self.world.unblock(move || jobs.list()).await {
            Ok(found) => found,
            Err(why) => {
                log::error!(target: "lamplighter::daemon", "jobs cannot be listed: {why}");
                return Ok(());
            }
        };
        let (wall, boot, _) = self.look();
        let boot_id = self.options.boot.clone();
        let now = Moment {
            wall,
            boot,
            boot_id: &boot_id,
            why_late: "down",
            is_trusted: self.trust.is_trusted(),
            ready: self.ready,
        };
        let gone: Vec<String> = self.watched.keys().filter(|name| !found.contains_key(*name)).cloned().collect();
        for name in gone {
            if let Some(watched) = self.watched.remove(&name) {
                self.unwatch(watched.mark().clone(), &name, &now).await?;
                log::info!(target: "lamplighter::daemon", job = name.as_str(); "job removed");
            }
        }
        // An earlier process has watched those.
        for name in self.unwatched.keys().filter(|name| !found.contains_key(*name)).cloned().collect::<Vec<_>>() {
            if let Some(mark) = self.unwatched.remove(&name) {
                self.unwatch(mark, &name, &now).await?;
            }
        }
        self.broken.retain(|name, _| found.contains_key(name));
        let is_known = |name: &String, stamp: u64| {
            let watched = self.watched.get(name).map(|watched| watched.stamp);
            watched.or_else(|| self.broken.get(name).map(|(stamp, _)| *stamp)) == Some(stamp)
        };
        let found = found.into_iter().map(|(name, stamp)| (name, short(&stamp)));
        let mut changed: Vec<(String, u64)> = found.filter(|(name, stamp)| !is_known(name, *stamp)).collect();
        if !changed.is_empty() && !self.heard.is_empty() {
            // Who is watched from now on is not to hear of them.
            self.state.hear(std::mem::take(&mut self.heard), Vec::new()).await?;
        }
        let mut dirs: BTreeSet<Arc<Path>> =
            self.watched.values().map(|watched| watched.job.base_dir().clone()).collect();
        while !changed.is_empty() {
            let some = changed.split_off(changed.len().saturating_sub(MARKS_AT_ONCE));
            let (jobs, mut known) = (self.jobs.clone(), std::mem::take(&mut dirs));
            let (read, known) = self
                .world
                .unblock(move || {
                    let read: Vec<_> =
                        some.into_iter().map(|(name, stamp)| read(&*jobs, &mut known, name, stamp)).collect();
                    (read, known)
                })
                .await;
            dirs = known;
            let mut marks = Vec::new();
            for (name, stamp, job) in read {
                match job {
                    Ok(job) => marks.extend(self.watch(name, stamp, job, &now)),
                    Err(problems) => self.keep_last_good(name, stamp, &problems),
                }
            }
            if !marks.is_empty() {
                self.state.consider(marks, Vec::new()).await?;
            }
        }
        self.tell_what_runs();
        Ok(())
    }

    /// Watches a job from now on, or its new version; its mark, where that must be kept.
    fn watch(&mut self, name: String, stamp: u64, job: Dormant, now: &Moment<'_>) -> Option<store::Mark> {
        let mark = match (self.watched.get(&name), self.unwatched.remove(&name)) {
            (Some(watched), _) => Some(watched.mark().clone()),
            (None, kept) => kept,
        };
        let old = mark.clone().map(|mark| mark.back(now));
        match Watched::new(job, stamp, old, &self.options.machine, now) {
            Ok(watched) => {
                let must_be_kept = watched.is_scheduled() && mark.as_ref() != Some(watched.mark());
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
    pub(super) async fn unwatch(&mut self, mut mark: Mark, name: &str, now: &Moment<'_>) -> Result<(), DaemonError> {
        if mark.goes(now) {
            self.state.consider(vec![mark.kept(name)], Vec::new()).await?;
        }
        self.unwatched.insert(name.to_owned(), mark);
        Ok(())
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
