//! What the state knows of one run, whether it has ended or not, as `show` tells it.

use crate::{
    item::{Folded, RunOutcome, RunRecord, StoredRecord},
    limits::SLOWEST_MAX,
    report::{Account, NotReached, PastRuns, SlowItem, StageBar, Standing, span},
    run::{Outline, record_so_far},
    store::{RowEnd, RunDetails, RunHead, RunKind, RunPhase, State, StoreError},
    world::World,
};
use std::time::Duration;

/// Gathers it. Times are those of the job's zone, or of `outline` where the caller has set another one.
///
/// # Errors
/// When the state cannot be read.
pub async fn account(
    world: &World,
    state: &State,
    details: &RunDetails,
    outline: &Outline,
) -> Result<Account, StoreError> {
    let head = &details.head;
    let rows = state.rows(&head.run);
    let now_ms = world.wall().as_millisecond();
    let stored: Option<StoredRecord> = details.record.as_deref().and_then(|text| serde_json::from_str(text).ok());
    let folded = stored.as_ref().and_then(|stored| stored.folded);
    let (record, timeline) = match stored {
        Some(stored) => {
            let (started, ended) = (outline.time(head.started_ms), outline.time(head.ended_ms.unwrap_or(now_ms)));
            (RunRecord { started, ended, ..stored.record }, stored.timeline)
        }
        None => {
            let ended_ms = head.ended_ms.unwrap_or(now_ms);
            let mut record = record_so_far(&rows, details, outline, head.reason.clone(), ended_ms).await?;
            record.outcome = head.outcome.unwrap_or(RunOutcome::Interrupted);
            (record, Vec::new())
        }
    };
    let ran = ran(head, now_ms);
    let mut bars = Vec::new();
    for stage in &record.stages {
        let place = outline.places().find(|place| outline.name(*place) == Some(&stage.name));
        let began = details.stages.iter().find(|mark| Some(mark.stage) == place).and_then(|mark| mark.began);
        let ended = timeline.iter().find(|end| Some(end.place) == place);
        bars.push(StageBar {
            began: began.map(|began| Duration::from_millis(began.ran_ms)),
            ended: ended.map(|end| Duration::from_millis(end.ended_ms)),
        });
    }
    let slowest = rows.slowest(None, SLOWEST_MAX).await?.into_iter().filter_map(|row| {
        let outcome = match row.end {
            RowEnd::Done(outcome) => outcome,
            _ => return None,
        };
        let (stage, took) = (outline.name(row.stage)?.to_owned(), Duration::from_millis(row.took_ms?.into()));
        let missing = (outcome.is_missing()).then(|| outcome.class_text());
        Some(SlowItem { stage, key: row.key, took, missing })
    });
    let not_reached = not_reached(&record, outline, &bars);
    Ok(Account {
        standing: standing(head),
        is_served: head.kind == RunKind::Serve,
        trigger: head.trigger.clone(),
        due: outline.time(head.due_ms),
        // What a repetition took over counts as a pass of its own.
        passes: head.pass.saturating_sub(u32::from(head.parent.is_some())).max(1),
        crashes: head.crashes,
        repeats: head.parent.as_ref().map(ToString::to_string),
        ran,
        bars,
        slowest: slowest.collect(),
        not_reached,
        has_rows: head.has_rows,
        folded: folded.map(|Folded { runs, first_ms }| PastRuns { runs, first: outline.time(first_ms) }),
        record,
    })
}

/// How a run stands, for people.
pub fn standing(head: &RunHead) -> Standing {
    match (head.phase, head.alive) {
        (RunPhase::Ended, _) => Standing::Ended,
        (_, true) => Standing::Running,
        (_, false) => Standing::Interrupted,
    }
}

/// How long it has run in all its passes: of one that runs in its first pass it is known to this moment, else to its last
/// commit.
pub fn ran(head: &RunHead, now_ms: i64) -> Duration {
    let first = standing(head) == Standing::Running && head.pass == 1;
    let so_far = u64::try_from(now_ms.saturating_sub(head.started_ms)).unwrap_or_default();
    Duration::from_millis(if first { so_far.max(head.ran_ms) } else { head.ran_ms })
}

fn not_reached(record: &RunRecord, outline: &Outline, bars: &[StageBar]) -> Vec<NotReached> {
    let stages = record.stages.iter().zip(bars).filter(|(stage, _)| stage.counts.not_reached > 0);
    let why = |name: &str, bar: &StageBar| {
        let planned = outline.stages.iter().find(|stage| stage.name == name).and_then(|stage| stage.deadline_ms);
        let planned = planned.map(Duration::from_millis);
        let worked = bar.began.zip(bar.ended).map(|(began, ended)| ended.saturating_sub(began));
        if let (Some(deadline), Some(worked)) = (planned, worked)
            && worked >= deadline
        {
            return format!("the stage was at its deadline of {}", span(deadline));
        }
        let why = match record.outcome {
            RunOutcome::Succeeded | RunOutcome::Partial => "what follows it took no more",
            RunOutcome::DeadlineExceeded => "a deadline passed before they were taken",
            RunOutcome::Cancelled => "the run was cancelled before they were taken",
            RunOutcome::Failed => "the run failed before they were taken",
            RunOutcome::Interrupted | RunOutcome::Quarantined => "the run did not come to its end",
        };
        why.to_owned()
    };
    let told = stages.map(|(stage, bar)| NotReached {
        stage: stage.name.clone(),
        items: stage.counts.not_reached,
        why: why(&stage.name, bar),
    });
    told.collect()
}
