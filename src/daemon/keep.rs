//! Firings that are written down, and what is done about those that are new: they wait, or somebody is told.

use super::{
    Daemon, DaemonError,
    watched::{AfterEnd, Moment, Watched},
};
use crate::{
    run::Missed,
    store::{self, FiringEnd, FiringRow},
    world::plant::{Bug, planted},
};
use jiff::Timestamp;

impl Daemon {
    /// Keeps what came of a look at schedules, in one piece with what is due after times that were missed; acts on what of it
    /// is new.
    pub(super) async fn keep(
        &mut self,
        marks: Vec<store::Mark>,
        mut firings: Vec<FiringRow>,
        now: &Moment,
    ) -> Result<(), DaemonError> {
        let missed = firings.iter().filter(|firing| firing.end == FiringEnd::Missed);
        let after = missed.flat_map(|firing| {
            // Once, for the last of several.
            let id = Timestamp::from_millisecond(firing.last_ms).unwrap_or_default().to_string();
            self.due_after(&firing.job, AfterEnd::Missed, &id, firing.last_ms, now, |_| true)
        });
        let after: Vec<FiringRow> = after.collect();
        firings.extend(after);
        if marks.is_empty() && firings.is_empty() {
            return Ok(());
        }
        let written = match planted(Bug::MarkBeforeFirings) {
            true => {
                self.state.consider(marks, Vec::new()).await?;
                firings
            }
            false => self.state.consider(marks, firings).await?,
        };
        self.act_on(written);
        Ok(())
    }

    /// Firings that were written now, by this process.
    pub(super) fn act_on(&mut self, written: Vec<FiringRow>) {
        for firing in written {
            match firing.end {
                FiringEnd::Waiting => self.wait(firing),
                FiringEnd::Missed => self.tell_missed(&firing),
                FiringEnd::Skipped => {
                    let due = Timestamp::from_millisecond(firing.due_ms).unwrap_or_default();
                    let reason = firing.reason.as_deref().unwrap_or_default();
                    log::info!(target: "lamplighter::daemon", job = firing.job.as_str(), due:%, reason; "firing skipped");
                }
            }
        }
    }

    /// The firings that an end is to those jobs that wait for it and hear it. Jobs that wait for each other would start each
    /// other without an end.
    pub(super) fn due_after(
        &self,
        job: &str,
        end: AfterEnd,
        id: &str,
        due_ms: i64,
        now: &Moment,
        hears: impl Fn(&Watched) -> bool,
    ) -> Vec<FiringRow> {
        let watched = self.watched.values().filter(|watched| hears(watched));
        let mut due: Vec<FiringRow> = watched.filter_map(|watched| watched.after(job, end, id, due_ms, now)).collect();
        for firing in &mut due {
            if self.circles.iter().any(|circle| circle.contains(job) && circle.contains(&firing.job)) {
                (firing.end, firing.reason) = (FiringEnd::Skipped, Some("circle".to_owned()));
            }
        }
        due
    }

    /// A time of a job at which nothing was started, and nothing will be.
    fn tell_missed(&mut self, firing: &FiringRow) {
        let due = Timestamp::from_millisecond(firing.last_ms).unwrap_or_default();
        let count = firing.count.map_or("very many".to_owned(), |count| count.to_string());
        log::warn!(
            target: "lamplighter::daemon",
            job = firing.job.as_str(), due:%, count = count.as_str(), reason = firing.reason.as_deref().unwrap_or_default();
            "firing missed"
        );
        if firing.to_tell {
            self.notify_missed(firing);
        }
    }

    /// Sends the notices of a missed firing, beside everything else. What is not sent now is sent by the next start.
    pub(super) fn notify_missed(&mut self, firing: &FiringRow) {
        let Some(watched) = self.watched.get(&firing.job) else { return };
        let (means, wake) = (self.means(), watched.job.wake());
        let missed = Missed {
            last: Timestamp::from_millisecond(firing.last_ms).unwrap_or_default(),
            count: firing.count,
            reason: firing.reason.clone().unwrap_or_default(),
        };
        let (job, key) = (firing.job.clone(), firing.key.clone());
        self.run_errand(async move {
            if let Err(why) = means.notify_missed(wake, &key, &missed).await {
                log::error!(target: "lamplighter::daemon", job = &*job; "the notices of a missed firing cannot be sent: {why}");
            }
        });
    }

    /// What nobody waits for.
    pub(super) fn run_errand(&mut self, errand: impl Future<Output = ()> + Send + 'static) {
        self.errands.retain(|errand| !errand.is_finished());
        self.errands.push(self.world.spawn(errand));
    }
}
