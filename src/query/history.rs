//! The runs that are kept, and the times that started none, newest first.

use super::{Form, Runs, Unanswered, outline, ran, standing, tell};
use crate::{
    item::{Folded, StoredRecord, Value},
    limits::HISTORY_LISTED_MAX,
    report::{self, Entry, Ink, Past, PastFiring, PastRuns, Standing},
    run::{Outline, rfc3339},
    store::{FiringEnd, FiringRow, RunHead, RunKind, StoreError},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Which runs are listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryQuestion {
    /// Those of this job; `None`: of all.
    pub job: Option<String>,
    /// At most so many, and the times between them that started none, no more of those either; more than
    /// [`HISTORY_LISTED_MAX`] are not listed.
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
        let question = &HistoryQuestion { number: question.number.min(HISTORY_LISTED_MAX), ..question.clone() };
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
        let firings = self.firings(question, &heads).await?;
        if let Some(job) = job.filter(|_| heads.is_empty() && firings.is_empty() && question.number > 0) {
            return Err(self.unknown(job).await?);
        }
        let now_ms = self.world.wall().as_millisecond();
        let (mut entries, mut seen) = (Vec::new(), BTreeSet::new());
        let mut outlines: BTreeMap<String, Outline> = BTreeMap::new();
        for head in heads {
            // Gone meanwhile: another process has let go of old runs.
            let Some(details) = self.state.details(&head.run).await? else { continue };
            let outline = outline(&details, question.utc);
            let state = standing(&head);
            let is_last = seen.insert(head.job.clone());
            let stored = details.record.as_deref().and_then(|text| serde_json::from_str::<StoredRecord>(text).ok());
            let folded = stored.and_then(|stored| stored.folded);
            let started_ms = head.started_ms;
            outlines.entry(head.job.clone()).or_insert_with(|| outline.clone());
            let run = Past {
                run: head.run.to_string(),
                state,
                started: outline.time(head.started_ms),
                ran: ran(&head, now_ms),
                outcome: head.outcome,
                reason: head.reason.clone(),
                repeats: head.parent.as_ref().map(ToString::to_string),
                crashes: head.crashes,
                is_resumable: is_last && state == Standing::Interrupted && head.kind == RunKind::Foreground,
                folded: folded.map(|Folded { runs, first_ms }| PastRuns { runs, first: outline.time(first_ms) }),
                trigger: head.trigger,
                job: head.job,
            };
            entries.push((started_ms, Entry::Run(run)));
        }
        for firing in firings {
            if !outlines.contains_key(&firing.job)
                && let Some(details) = self.state.details(&firing.job).await?
            {
                outlines.insert(firing.job.clone(), outline(&details, question.utc));
            }
            let outline = outlines.get(&firing.job);
            entries.push((firing.due_ms, Entry::Firing(past(firing, outline))));
        }
        // Those of one moment stay as they came: runs first.
        entries.sort_by_key(|(ms, _)| std::cmp::Reverse(*ms));
        let entries: Vec<Entry> = entries.into_iter().map(|(_, entry)| entry).collect();
        tell(&mut reader, listed(&entries, form)).await
    }

    /// The times that started no run since the oldest of these runs; all, where there are no more runs than these.
    async fn firings(&self, question: &HistoryQuestion, heads: &[RunHead]) -> Result<Vec<FiringRow>, StoreError> {
        let job = question.job.as_deref();
        let mut firings = Vec::new();
        let mut before = None;
        while firings.len() < question.number {
            let page = self.state.past_firings(job, before, question.number - firings.len()).await?;
            let Some((last, _)) = page.last() else { break };
            before = Some(*last);
            firings.extend(page.into_iter().map(|(_, firing)| firing));
        }
        if let Some(oldest) = heads.last().filter(|_| heads.len() >= question.number) {
            firings.retain(|firing| firing.due_ms >= oldest.started_ms);
        }
        Ok(firings)
    }
}

/// A time that started no run, in the zone of its job's last run; in UTC where it never ran.
fn past(firing: FiringRow, outline: Option<&Outline>) -> PastFiring {
    let time = |ms: i64| match outline {
        Some(outline) => outline.time(ms),
        None => rfc3339(Timestamp::from_millisecond(ms).unwrap_or_default(), &jiff::tz::TimeZone::UTC),
    };
    PastFiring {
        end: match firing.end {
            FiringEnd::Waiting => "waiting",
            FiringEnd::Skipped => "skipped",
            FiringEnd::Missed => "missed",
        },
        due: time(firing.due_ms),
        last_due: time(firing.last_ms),
        count: firing.count,
        reason: firing.reason,
        trigger: firing.trigger,
        job: firing.job,
    }
}

/// These entries in that form.
pub fn listed(entries: &[Entry], form: Form) -> String {
    if form.json {
        let (mut runs, mut firings) = (Vec::new(), Vec::new());
        for entry in entries {
            match entry {
                Entry::Run(run) => runs.push(run),
                Entry::Firing(firing) => firings.push(firing),
            }
        }
        let json = |list: Result<Value, serde_json::Error>| list.unwrap_or_default();
        let (runs, firings) = (json(serde_json::to_value(runs)), json(serde_json::to_value(firings)));
        let lists = [("runs".to_owned(), runs), ("firings".to_owned(), firings)];
        return format!("{}\n", Value::Object(lists.into_iter().collect()));
    }
    // A pipe has room for whole lines.
    report::history(entries, Ink { colour: form.colour }, form.width.unwrap_or(usize::MAX))
}
