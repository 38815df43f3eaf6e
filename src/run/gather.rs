//! A gather: waits until its inputs have ended, makes groups of what is stored, and works on each as an item.

use super::{
    pool::SlotPool,
    state::{End, RunState, lock, null},
    token::Token,
    worker::{end_stage, feed_ended, join},
};
use crate::{
    flow::Group as Tasks,
    item::{Class, Counts, Failure, Key, Lineage, Outcome, Value},
    job::StageKind,
    lang::{Facts, Group, Rows, Template},
    limits::BATCH_ROWS,
    store::{GroupMember, Membership, Page, RunStore, StoreError},
    world::{
        failpoint::{Point, pass},
        plant::{Bug, planted},
    },
};
use serde_json::json;
use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

/// Runs the gather at `place`.
pub async fn run_gather(run: Arc<RunState>, place: u16) {
    super::kept::feed_readers(&run, place).await;
    for parent in run.plan(place).from.iter().skip(usize::from(planted(Bug::GatherEarly))) {
        run.stage(*parent).ended.wait().await;
    }
    if run.cancel.get().is_some() {
        feed_ended(&run, place);
        return end_stage(&run, place);
    }
    if run.is_stopping() {
        run.leave(place);
        return end_stage(&run, place);
    }
    let frozen = freeze_counts(&run, place);
    lock(&run.frozen).insert(place, Arc::new(frozen));
    if run.plan(place).from.iter().any(|parent| run.stage(*parent).incomplete.load(Ordering::Acquire)) {
        run.stage(place).incomplete.store(true, Ordering::Release);
    }
    let tasks = Tasks::new(run.world().clone());
    let pool = SlotPool::new(&run, place, &tasks);
    pool.start();
    if let Err(error) = feed(&run, place).await {
        run.store_failed(&error);
    }
    if !run.leaves_unfinished(place) {
        feed_ended(&run, place);
    }
    join(&run, place, &tasks).await;
    while run.stage(place).deferred.load(Ordering::Acquire) > 0 && !run.is_stopping() {
        super::deferred::run_round(&run, place).await;
    }
    end_stage(&run, place);
}

/// `counts` by stage name: of every stage that feeds this one, however far above. Those beside it and behind it are left
/// out: how far they are by now is a matter of timing, and outputs must not depend on it (RUNS K7).
fn freeze_counts(run: &RunState, place: u16) -> Value {
    let all = (0..run.stages.len() as u16).filter(|_| planted(Bug::CountsOfRunning));
    let above = run.job.ancestors(place).into_iter().chain(all).filter(|at| !run.plan(*at).hidden);
    let counts = above.map(|at| (run.stage(at).name.to_string(), counts_value(&run.stage(at).snapshot())));
    Value::Object(counts.collect())
}

fn counts_value(counts: &Counts) -> Value {
    json!({
        "items": counts.items, "ok": counts.ok, "empty": counts.empty, "failed": counts.failed,
        "timed_out": counts.timed_out, "cancelled": counts.cancelled, "not_reached": counts.not_reached,
        "held": counts.held, "attempts": counts.attempts, "complete": counts.complete,
    })
}

/// Sends every group into the inbox of the gather.
async fn feed(run: &Arc<RunState>, place: u16) -> Result<(), StoreError> {
    let rows = run.rows().await?;
    rows.flush().await?;
    pass(Point::GatherBegins);
    match &run.plan(place).kind {
        StageKind::GatherBy(template) => {
            group_values(run, place, &rows, template).await?;
            rows.flush().await?;
            send_groups(run, place, &rows).await
        }
        _ => {
            let lineage = Lineage::listed(place, 0);
            if !settled(run, place, &rows, vec![lineage.clone()]).await?[0] {
                Token::arrive(run, place, lineage, Key::all(), null()).send(run).await;
            }
            Ok(())
        }
    }
}

/// Renders the text of every ok value of the parents and of every missing item above, and stores who belongs where.
async fn group_values(run: &Arc<RunState>, place: u16, rows: &RunStore, template: &Template) -> Result<(), StoreError> {
    let plan = run.plan(place);
    let mut bad = 0;
    let mut page = Page { after: None, limit: BATCH_ROWS };
    loop {
        let values = rows.values(&plan.from, None, page.clone()).await?;
        let Some(last) = values.last() else { break };
        page.after = Some((last.lineage.clone(), last.stage, last.index));
        let mut members = Vec::with_capacity(values.len());
        for value in values {
            match group_text(run, template, &value.key, value.value) {
                Ok(text) => members.push(GroupMember {
                    text,
                    stage: value.stage,
                    lineage: value.lineage,
                    index: value.index,
                    membership: Membership::Value,
                }),
                Err(failure) => {
                    // A failed item of the gather, behind all groups in lineage order.
                    let lineage = Lineage::listed(place, u64::MAX / 2 + bad);
                    bad += 1;
                    if settled(run, place, rows, vec![lineage.clone()]).await?[0] {
                        continue;
                    }
                    run.arrive(place);
                    let end = End {
                        lineage: &lineage,
                        key: &value.key,
                        outcome: Outcome::Failed(failure.class),
                        attempts: 0,
                        message: Some(&failure.message),
                        has_row: false,
                        by: None,
                        took_ms: None,
                    };
                    run.settle(place, end, Vec::new()).await;
                }
            }
        }
        rows.assign_groups(place, members).await?;
        if run.cuts_feed(place) {
            return Ok(());
        }
    }
    let ancestors = run.job.ancestors(place);
    let mut page = Page { after: None, limit: BATCH_ROWS };
    loop {
        let missing = rows.failures(&ancestors, None, page.clone()).await?;
        let Some(last) = missing.last() else { return Ok(()) };
        page.after = Some((last.lineage.clone(), last.stage, 0));
        let mut members = Vec::new();
        for item in missing {
            let Some(value) = item.value else { continue };
            // One that does not render is seen by `All` only.
            if let Ok(text) = group_text(run, template, &item.key, value) {
                let direct = plan.from.contains(&item.stage);
                let membership = if direct { Membership::MissingOfParent } else { Membership::MissingOfAncestor };
                members.push(GroupMember { text, stage: item.stage, lineage: item.lineage, index: 0, membership });
            }
        }
        rows.assign_groups(place, members).await?;
        if run.cuts_feed(place) {
            return Ok(());
        }
    }
}

fn group_text(run: &RunState, template: &Template, key: &Key, value: Value) -> Result<String, Failure> {
    let facts = Facts::new(Arc::new(value), key.clone(), run.facts.clone());
    let text =
        template.render(&facts).map_err(|error| Failure::new(Class::Data, format!("`gather: By(..)`: {error}")))?;
    match Key::parse(&text) {
        Ok(_) => Ok(text),
        Err(error) => Err(Failure::new(Class::Data, format!("`gather: By(..)`: {error}"))),
    }
}

async fn send_groups(run: &Arc<RunState>, place: u16, rows: &RunStore) -> Result<(), StoreError> {
    let mut after: Option<String> = None;
    let mut ordinal = 0;
    loop {
        let texts = rows.groups(place, after.as_deref(), BATCH_ROWS).await?;
        let Some(last) = texts.last() else { return Ok(()) };
        after = Some(last.clone());
        let lineages = (ordinal..).take(texts.len()).map(|at| Lineage::listed(place, at)).collect();
        let settled = settled(run, place, rows, lineages).await?;
        for (text, settled) in texts.into_iter().zip(settled) {
            if run.cuts_feed(place) {
                return Ok(());
            }
            let lineage = Lineage::listed(place, ordinal);
            ordinal += 1;
            let Ok(key) = Key::parse(&text) else { continue };
            if settled {
                continue;
            }
            let mut token = Token::arrive(run, place, lineage, key, null());
            token.body_mut().group = Some(text);
            token.send(run).await;
        }
    }
}

/// Which items of the gather an earlier pass has settled.
async fn settled(run: &RunState, place: u16, rows: &RunStore, lineages: Vec<Lineage>) -> Result<Vec<bool>, StoreError> {
    match run.kept.as_ref().is_some_and(|kept| kept.resume.is_some()) {
        true => rows.settled(place, lineages).await,
        false => Ok(vec![false; lineages.len()]),
    }
}

/// What a gather sees of one group, read from the store page by page.
pub struct StoredGroup {
    rows: RunStore,
    place: u16,
    text: Option<String>,
    parents: BTreeMap<String, u16>,
    ancestors: Vec<u16>,
    names: Vec<String>,
    counts: Arc<Value>,
}

impl StoredGroup {
    /// The group with this text, or of everything. `None` before the gather has begun.
    pub fn of(run: &RunState, place: u16, text: Option<String>) -> Option<StoredGroup> {
        let rows = run.store.opened()?;
        let counts = lock(&run.frozen).get(&place)?.clone();
        let plan = run.plan(place);
        Some(StoredGroup {
            rows,
            place,
            text,
            parents: plan.from.iter().map(|at| (run.stage(*at).name.to_string(), *at)).collect(),
            ancestors: run.job.ancestors(place),
            names: run.stages.iter().map(|stage| stage.name.to_string()).collect(),
            counts,
        })
    }

    fn group(&self) -> Option<(u16, &str)> {
        self.text.as_deref().map(|text| (self.place, text))
    }
}

impl Group for StoredGroup {
    fn items(&self, stage: Option<&str>) -> Result<Rows, String> {
        let stages = match stage {
            None => self.parents.values().copied().collect(),
            Some(name) => match self.parents.get(name) {
                Some(at) => vec![*at],
                None => {
                    let known: Vec<&str> = self.parents.keys().map(String::as_str).collect();
                    return Err(format!("`{name}` is none of the stages that this gather reads: {}", known.join(", ")));
                }
            },
        };
        let values = self.rows.values_iter(&stages, self.group());
        Ok(Box::new(values.map(|value| value.map(|value| value.value).map_err(|error| error.to_string()))))
    }

    fn failures(&self) -> Rows {
        let names = self.names.clone();
        let failures = self.rows.failures_iter(&self.ancestors, self.group());
        Box::new(failures.map(move |failure| {
            let failure = failure.map_err(|error| error.to_string())?;
            Ok(json!({
                "stage": names.get(usize::from(failure.stage)),
                "key": failure.key.as_str(),
                "class": failure.outcome.class_text(),
                "message": failure.message,
                "attempts": failure.attempts,
            }))
        }))
    }

    fn counts(&self) -> Arc<Value> {
        self.counts.clone()
    }
}
