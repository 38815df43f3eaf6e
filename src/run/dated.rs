//! What `keep_out` keeps and removes: noted before a run is settled, removed behind its notices.

use super::state::RunState;
use crate::{
    action::{KeepOut, Line},
    item::RunOutcome,
    limits::{KEEP_OUT_FILES_MAX, KEEP_OUT_FOLDERS, LEFTOVER_UNKILLABLE_AFTER, ON_FINISH_TIMEOUT},
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
        let say = |level, text: &str| self.context.journal.write(&Line::of_run(level, text));
        let (mut gone, mut emptied, mut files) = (Vec::new(), Vec::new(), 0);
        let removing = async {
            for name in self.context.outputs.dated_over(&keep).await {
                if gone.len() + emptied.len() >= KEEP_OUT_FOLDERS || files >= KEEP_OUT_FILES_MAX {
                    break;
                }
                match self.context.outputs.remove_dated(&keep, &name).await {
                    Ok(Some(removed)) => {
                        files += removed.files;
                        if removed.whole { &mut gone } else { &mut emptied }.push(name);
                    }
                    Ok(None) => {}
                    Err(error) => {
                        say(Level::Warn, &format!("a dated folder that is over cannot be removed: {name}: {error}"));
                    }
                }
            }
        };
        let patience = async {
            self.world().sleep(ON_FINISH_TIMEOUT).await;
            let text = format!(
                "dated folders are removed for more than {ON_FINISH_TIMEOUT:?}: what is left is the next run's"
            );
            say(Level::Warn, &text);
        };
        let killed = async {
            self.killed.wait().await;
        };
        let stopped = async {
            self.stop.wait().await;
        };
        // Who stops or kills the run ends it between two folders.
        removing.or(patience).or(killed).or(stopped).await;
        let span = |names: &[String]| Some(format!("{}, {} to {}", names.len(), names.first()?, names.last()?));
        if let Some(which) = span(&gone) {
            say(Level::Info, &format!("dated folders that are over were removed: {which}"));
        }
        if let Some(which) = span(&emptied) {
            let text =
                format!("dated folders that are over hold files of others, those of the job were removed: {which}");
            say(Level::Info, &text);
        }
    }
}
