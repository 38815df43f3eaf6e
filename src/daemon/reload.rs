//! Job files that come, change and go. A bad edit harms only itself: the last good version goes on.

use super::{
    Daemon, DaemonError,
    watched::{Moment, Watched},
};
use crate::{
    job::{CheckedJob, JobProblems},
    limits::JOB_GONE_AFTER,
};
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
                self.unwatched.insert(name.clone(), (watched.mark().clone(), Some(boot)));
                log::info!(target: "lamplighter::daemon", job = name.as_str(); "job removed");
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
            // An editor's save takes a file away for a moment; a job that was gone for longer is a new one.
            (None, Some((mark, gone))) => {
                gone.is_none_or(|gone| now.boot.since(gone) <= JOB_GONE_AFTER).then_some(mark)
            }
            (None, None) => None,
        };
        match Watched::new(Arc::new(checked.job), stamp, mark.clone(), &self.options.machine, now) {
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
