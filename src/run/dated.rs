//! What `keep_out` keeps and removes: noted before a run is settled, removed behind its notices.

use super::state::RunState;
use crate::{
    action::{KeepOut, Line},
    item::RunOutcome,
    limits::{LEFTOVER_UNKILLABLE_AFTER, ON_FINISH_TIMEOUT},
};
use futures_lite::FutureExt;
use log::Level;

impl RunState {
    /// What was written into dated folders is noted there, where it will be removed one day.
    pub async fn note_dated(&self) {
        if self.job.keep_out.is_none() || self.dry.is_some() {
            return;
        }
        // Folders are not the store: where they hang the end of the run is on the disk all the same.
        let hurried = async {
            self.takes_no_more().await;
            self.world().sleep(LEFTOVER_UNKILLABLE_AFTER).await;
        };
        let patience = async {
            self.world().sleep(ON_FINISH_TIMEOUT).or(hurried).await;
            Err("it takes too long".to_owned())
        };
        if let Err(why) = self.context.outputs.note_dated(&self.job.name).or(patience).await {
            let text = format!("what `keep_out` is to remove one day is not all noted: {why}");
            self.context.journal.write(&Line::of_run(Level::Warn, &text));
        }
    }

    /// Dated folders of earlier runs go when their time is over (`keep_out`).
    pub async fn remove_dated(&self, outcome: RunOutcome) {
        let Some(after) = self.job.keep_out.filter(|_| self.options.removes_old && self.dry.is_none()) else { return };
        if outcome == RunOutcome::Interrupted || self.killed.is_settled() || self.stop.is_settled() {
            return;
        }
        let (zone, now) = (self.job.zone.clone(), self.world().wall());
        let keep = KeepOut { job: self.job.name.to_string(), after, zone, now };
        let removing = async { Some(self.context.outputs.remove_dated(keep).await) };
        let patience = async {
            self.world().sleep(ON_FINISH_TIMEOUT).await;
            None
        };
        let say = |level, text: &str| self.context.journal.write(&Line::of_run(level, text));
        let Some((removed, left)) = removing.or(patience).await else {
            return say(
                Level::Warn,
                &format!("dated folders are removed for more than {ON_FINISH_TIMEOUT:?}: it is not waited for"),
            );
        };
        if let (Some(first), Some(last)) = (removed.first(), removed.last()) {
            say(
                Level::Info,
                &format!("dated folders that are over were removed: {}, {first} to {last}", removed.len()),
            );
        }
        for why in left {
            say(Level::Warn, &format!("a dated folder that is over cannot be removed: {why}"));
        }
    }
}
