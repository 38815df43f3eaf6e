//! The runs that are kept, newest first.

use super::{Form, Runs, Unanswered, outline, ran, standing, tell};
use crate::{
    item::Value,
    report::{self, Ink, Past, Standing},
    store::{RunHead, RunKind},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Which runs are listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryQuestion {
    /// Those of this job; `None`: of all.
    pub job: Option<String>,
    /// At most so many.
    pub number: usize,
    /// Times in UTC, not in the job's zone.
    pub utc: bool,
}

impl Runs<'_> {
    /// Lists runs, newest first.
    ///
    /// # Errors
    /// When nothing is kept of the job that is named, the state cannot be read, or the answer is not taken.
    pub async fn history<E>(
        &self,
        question: &HistoryQuestion,
        form: Form,
        mut reader: impl AsyncFnMut(super::Piece) -> Result<(), E>,
    ) -> Result<(), Unanswered<E>> {
        let job = question.job.as_deref();
        let mut heads: Vec<RunHead> = Vec::new();
        while heads.len() < question.number {
            let before = heads.last().map(|head| head.run.to_string());
            let page = self.state.history(job, before.as_deref(), question.number - heads.len()).await?;
            if page.is_empty() {
                break;
            }
            heads.extend(page);
        }
        if let Some(job) = job.filter(|_| heads.is_empty() && question.number > 0) {
            return Err(self.unknown(job).await?);
        }
        let now_ms = self.world.wall().as_millisecond();
        let (mut runs, mut seen) = (Vec::new(), BTreeSet::new());
        for head in heads {
            // Gone meanwhile: another process has let go of old runs.
            let Some(details) = self.state.details(&head.run).await? else { continue };
            let outline = outline(&details, question.utc);
            let state = standing(&head);
            let is_last = seen.insert(head.job.clone());
            runs.push(Past {
                run: head.run.to_string(),
                state,
                started: outline.time(head.started_ms),
                ran: ran(&head, now_ms),
                outcome: head.outcome,
                reason: head.reason.clone(),
                repeats: head.parent.as_ref().map(ToString::to_string),
                crashes: head.crashes,
                is_resumable: is_last && state == Standing::Interrupted && head.kind == RunKind::Foreground,
                trigger: head.trigger,
                job: head.job,
            });
        }
        tell(&mut reader, listed(&runs, form)).await
    }
}

/// These runs in that form.
pub fn listed(runs: &[Past], form: Form) -> String {
    if form.json {
        let runs = serde_json::to_value(runs).unwrap_or_default();
        return format!("{}\n", Value::Object([("runs".to_owned(), runs)].into_iter().collect()));
    }
    // A pipe has room for whole lines.
    report::history(runs, Ink { colour: form.colour }, form.width.unwrap_or(usize::MAX))
}
