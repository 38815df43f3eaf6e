//! Job files that come, change and go. A bad edit harms only itself: the last good version goes on.

use super::{
    Daemon, DaemonError,
    watched::{Mark, Moment, Watched},
};
use crate::job::{CheckedJob, JobProblems};
use std::sync::Arc;

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
        for (name, stamp) in found {
            let known = self.watched.get(&name);
            if known.is_some_and(|watched| watched.stamp == stamp) {
                continue;
            }
            let (jobs, of) = (self.jobs.clone(), name.clone());
            match self.world.unblock(move || jobs.load(&of)).await {
                Ok(checked) => self.watch(name, stamp, checked, &now).await?,
                Err(problems) => self.keep_last_good(name, stamp, &problems),
            }
        }
        self.tell_what_runs();
        Ok(())
    }

    async fn watch(
        &mut self,
        name: String,
        stamp: String,
        checked: CheckedJob,
        now: &Moment<'_>,
    ) -> Result<(), DaemonError> {
        let is_new = !self.watched.contains_key(&name);
        let mark = match (self.watched.get(&name), self.unwatched.remove(&name)) {
            (Some(watched), _) => Some(watched.mark().clone()),
            (None, kept) => kept,
        };
        let old = mark.clone().map(|mark| mark.back(now));
        match Watched::new(Arc::new(checked.job), stamp, old, &self.options.machine, now) {
            Ok(watched) => {
                if mark.as_ref() != Some(watched.mark()) {
                    self.state.consider(watched.kept_mark(), Vec::new()).await?;
                }
                self.broken.remove(&name);
                if self.last_look.is_some() {
                    let what = if is_new { "job watched" } else { "job reloaded" };
                    log::debug!(target: "lamplighter::daemon", job = name.as_str(); "{what}");
                }
                self.watched.insert(name, watched);
            }
            Err(mistake) => self.note_broken(name, mistake.message),
        }
        Ok(())
    }

    /// The file of a job is gone. When that was is kept: it may be back in a moment, or be another one in a year.
    pub(super) async fn unwatch(&mut self, mut mark: Mark, name: &str, now: &Moment<'_>) -> Result<(), DaemonError> {
        if mark.goes(now) {
            self.state.consider(mark.kept(name), Vec::new()).await?;
        }
        self.unwatched.insert(name.to_owned(), mark);
        Ok(())
    }

    fn keep_last_good(&mut self, name: String, stamp: String, problems: &JobProblems) {
        log::error!(target: "lamplighter::daemon", job = name.as_str(); "job file has errors\n{problems}");
        match self.watched.get_mut(&name) {
            Some(watched) => {
                watched.stamp = stamp;
                watched.problem = Some(problems.to_string());
            }
            None => self.note_broken(name, problems.to_string()),
        }
    }

    fn note_broken(&mut self, name: String, why: String) {
        self.broken.insert(name, why);
    }
}
