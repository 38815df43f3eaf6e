//! A source: its first action lists, the later ones complete each value, and what comes out becomes items.

use super::{
    chain::{self, Dry, Within},
    guard::{Alarms, Bounds, Guarded, guard},
    state::{CutWatch, End, RunState, null},
    worker::{Child, deliver, end_stage, render_key},
};
use crate::{
    action::{Checked, ItemContext, Out, Stop},
    flow::Slot,
    item::{Class, Failure, Key, Lineage, Outcome, Value},
    lang::Facts,
    limits::BATCH_ROWS,
    store::{Claim, StoreError},
    world::{
        BoxFuture,
        plant::{Bug, planted},
    },
};
use async_channel::{Receiver, Sender, TrySendError};
use futures_lite::future::zip;
use std::sync::{Arc, atomic::Ordering};

/// One thing that a listing gave.
enum Listed {
    Value(Arc<Value>),
    Bad(Failure),
}

/// Runs the source at `place` until its listing has ended and everything that it listed is delivered.
pub async fn run_source(run: Arc<RunState>, place: u16) {
    run.stage(place).began.settle(run.world().boot());
    let (sender, receiver) = async_channel::bounded(BATCH_ROWS);
    zip(list(&run, place, sender), take_in(&run, place, receiver)).await;
    run.stage(place).fed.store(true, Ordering::Release);
    run.check_fail_fast(place);
    end_stage(&run, place);
}

/// Runs the actions of the source; values go to `sender`, which is dropped at the end.
async fn list(run: &Arc<RunState>, place: u16, sender: Sender<Listed>) {
    let (stage, plan) = (run.stage(place), run.plan(place));
    let Some((first, rest)) = plan.actions.split_first() else {
        // The hidden source of the short form: one null item.
        let _ = sender.send(Listed::Value(null())).await;
        return;
    };
    let slot = Arc::new(Slot::free(run.world().clone()));
    let context = || ItemContext::new(run.context.clone(), slot.clone(), stage.name.clone(), place);
    let waits_until = plan.deadline.map(|bound| run.world().boot() + bound);
    let waits_until = [waits_until, run.context.deadline].into_iter().flatten().min();
    slot.begin_item(waits_until, 0);
    slot.begin_attempt();
    let facts = Facts::new(null(), Key::ordinal(0), run.facts.clone());
    let cx = context();
    let mut out = Listing {
        run,
        rest,
        facts: facts.clone(),
        cx: context(),
        max_value: plan.max_value,
        index: 0,
        sender,
        response: null(),
    };
    let listing = first.action.run(&cx, &facts, &mut out);
    let mut watch = CutWatch::new(run.clone(), place);
    let mut alarms = Alarms::new(run.world());
    let bounds = Bounds { deadline: None, timeout: plan.timeout };
    let failure = match guard(listing, &slot, &mut watch, &mut alarms, None, bounds).await {
        Guarded::Done(Ok(()) | Err(Stop::Empty)) => None,
        Guarded::Done(Err(Stop::Failed { failure, .. })) => Some(failure),
        Guarded::Done(Err(Stop::Defer { .. } | Stop::PastDeadline)) => {
            Some(Failure::new(Class::Timeout, "a wait of the listing would have ended past the deadline"))
        }
        Guarded::Panicked(message) => Some(Failure::new(Class::Panic, message)),
        Guarded::TimedOut => {
            let bound = plan.timeout.unwrap_or_default();
            Some(Failure::new(Class::Timeout, format!("the listing worked longer than its timeout of {bound:?}")))
        }
        Guarded::Done(Err(Stop::Cut)) | Guarded::Cut(_) | Guarded::PastDeadline => {
            if !run.limit_reached(place) {
                stage.incomplete.store(true, Ordering::Release);
            }
            None
        }
    };
    if let Some(failure) = failure {
        stage.incomplete.store(true, Ordering::Release);
        let what = format!("the listing of stage `{}` failed: {failure}", stage.name);
        log::warn!(target: "lamplighter::run", run = run.context.id.as_str(), stage = &*stage.name; "{what}");
        run.note_broken(what);
        if plan.fail_fast {
            run.cancel(super::state::CancelReason::FailFast(stage.name.to_string()));
        }
    }
}

/// Where the first action of a source hands what it lists.
struct Listing<'a> {
    run: &'a Arc<RunState>,
    rest: &'a [Checked],
    facts: Facts,
    cx: ItemContext,
    max_value: u64,
    index: u32,
    sender: Sender<Listed>,
    response: Arc<Value>,
}

impl Listing<'_> {
    /// Waiting for the readers is no work: the timeout of the listing does not count it (RUNS T3).
    async fn send(&self, listed: Listed) -> Result<(), Stop> {
        match self.sender.try_send(listed) {
            Ok(()) => Ok(()),
            Err(TrySendError::Closed(_)) => Err(Stop::Cut),
            Err(TrySendError::Full(listed)) => {
                self.cx.slot.parked(self.sender.send(listed)).await.map_err(|_| Stop::Cut)
            }
        }
    }

    async fn complete(&mut self, value: Value) -> Result<(), Stop> {
        if self.run.limit_reached(self.cx.stage_place) {
            return Err(Stop::Cut);
        }
        let bytes = chain::json_bytes(&value);
        if bytes > self.max_value {
            let message = "a listed value has more bytes of JSON than `max_value` allows";
            return self.send(Listed::Bad(Failure::new(Class::TooLarge, message))).await;
        }
        if self.rest.is_empty() {
            return self.send(listed(Arc::new(value))).await;
        }
        let mut facts = self.facts.clone();
        facts.value = Arc::new(value);
        facts.response = self.response.clone();
        self.cx.value_place = self.index;
        self.index += 1;
        let (run, place) = (self.run, self.cx.stage_place);
        let dry = run.dry.as_ref().map(|dry| Dry { run: dry, print: dry.print_this_item(place), in_source: true });
        let is_cut = || run.cut(run.stage(place)).is_some();
        let within = Within { max_bytes: u64::MAX, dry, is_cut: &is_cut };
        match chain::work(self.rest, &mut self.cx, facts, within).await {
            Ok(values) => {
                for value in values {
                    self.send(listed(value)).await?;
                }
                Ok(())
            }
            Err(Stop::Empty) => Ok(()),
            Err(Stop::Failed { failure, .. }) => self.send(Listed::Bad(failure)).await,
            Err(other) => Err(other),
        }
    }
}

/// A value that can be an item, or why it cannot.
fn listed(value: Arc<Value>) -> Listed {
    match chain::too_deep(&value) {
        None => Listed::Value(value),
        Some(failure) => Listed::Bad(failure),
    }
}

impl Out for Listing<'_> {
    fn give(&mut self, value: Value) -> BoxFuture<'_, Result<(), Stop>> {
        Box::pin(self.complete(value))
    }

    fn bad(&mut self, failure: Failure) -> BoxFuture<'_, Result<(), Stop>> {
        Box::pin(self.send(Listed::Bad(failure)))
    }

    fn response(&mut self, head: Arc<Value>) {
        self.response = head;
    }

    fn max_value(&self) -> u64 {
        self.max_value
    }
}

/// Gives each listed value its ordinal and key, settles it as an item of the source, and delivers it. Works on batches of
/// what is there, so that keys are claimed by hundreds at a time.
async fn take_in(run: &Arc<RunState>, place: u16, receiver: Receiver<Listed>) {
    let mut ordinal = 0;
    let watch = CutWatch::new(run.clone(), place);
    while let Ok(first) = receiver.recv().await {
        let mut batch = vec![first];
        while batch.len() < BATCH_ROWS
            && let Ok(next) = receiver.try_recv()
        {
            batch.push(next);
        }
        let named = name(run, place, batch, &mut ordinal);
        let claims = match claim(run, place, &named).await {
            Ok(claims) => claims,
            Err(error) => {
                run.store_failed(&error);
                run.stage(place).incomplete.store(true, Ordering::Release);
                return;
            }
        };
        for (item, claim) in named.into_iter().zip(claims) {
            if watch.now().is_some_and(|cut| matches!(cut, super::state::Cut::Cancelled(_))) {
                // What was listed and is not taken in any more has no row: the counts are "at least".
                run.stage(place).incomplete.store(true, Ordering::Release);
                return;
            }
            if run.limit_reached(place) {
                return;
            }
            settle(run, place, item, claim).await;
        }
    }
}

/// A listed value with its identity and its name.
struct Named {
    lineage: Lineage,
    key: Key,
    value: Result<Arc<Value>, Failure>,
}

fn name(run: &RunState, place: u16, batch: Vec<Listed>, ordinal: &mut u64) -> Vec<Named> {
    let mut named = Vec::with_capacity(batch.len());
    for listed in batch {
        let at = *ordinal;
        *ordinal += 1;
        let lineage = Lineage::listed(place, at);
        let item = match listed {
            Listed::Bad(failure) => Named { lineage, key: Key::nameless(at), value: Err(failure) },
            Listed::Value(value) => match &run.plan(place).key {
                None => Named { lineage, key: Key::ordinal(at), value: Ok(value) },
                Some(template) => {
                    let facts = Facts::new(value.clone(), Key::ordinal(at), run.facts.clone());
                    match render_key(template, &facts) {
                        Ok(key) => Named { lineage, key, value: Ok(value) },
                        Err(failure) => Named { lineage, key: Key::nameless(at), value: Err(failure) },
                    }
                }
            },
        };
        if item.value.is_err() || run.options.wants(item.key.as_str()) {
            named.push(item);
        }
    }
    named
}

/// Claims the keys of a batch; those without a key of their own are unique by construction.
async fn claim(run: &RunState, place: u16, named: &[Named]) -> Result<Vec<Claim>, StoreError> {
    if run.plan(place).key.is_none() || planted(Bug::DuplicateKey) {
        return Ok(vec![Claim::Mine; named.len()]);
    }
    let keys = named.iter().filter(|item| item.value.is_ok()).map(|item| (item.key.clone(), item.lineage.clone()));
    let mut claims = run.rows().await?.claim_keys(place, keys.collect()).await?.into_iter();
    Ok(named
        .iter()
        .map(|item| if item.value.is_ok() { claims.next().unwrap_or(Claim::Mine) } else { Claim::Mine })
        .collect())
}

async fn settle(run: &Arc<RunState>, place: u16, item: Named, claim: Claim) {
    run.arrive(place);
    let keep_values = run.stage(place).keep_values;
    let end = |outcome, message| End {
        lineage: &item.lineage,
        key: &item.key,
        outcome,
        attempts: 1,
        message,
        has_row: false,
    };
    match (&item.value, claim) {
        (Err(failure), _) => {
            run.settle(place, end(Outcome::Failed(failure.class), Some(&failure.message)), Vec::new()).await;
        }
        (Ok(value), Claim::Taken { lineage, .. }) => {
            let message = format!(
                "item {} of the listing has the key `{}` of item {}: the first one keeps it",
                lineage_ordinal(&item.lineage),
                item.key,
                lineage_ordinal(&lineage)
            );
            let inputs = if run.stage(place).keep_inputs { vec![(**value).clone()] } else { Vec::new() };
            run.settle(place, end(Outcome::Failed(Class::DuplicateKey), Some(&message)), inputs).await;
        }
        (Ok(value), Claim::Mine) => {
            let kept = if keep_values { vec![(**value).clone()] } else { Vec::new() };
            run.settle(place, end(Outcome::Ok, None), kept).await;
            let child = Child { lineage: item.lineage.clone(), key: item.key.clone(), value: value.clone() };
            deliver(run, place, vec![child]).await;
        }
    }
}

fn lineage_ordinal(lineage: &Lineage) -> u64 {
    let bytes = lineage.as_bytes();
    bytes.get(2..10).and_then(|bytes| bytes.try_into().ok()).map_or(0, |bytes| u64::from_be_bytes(bytes) + 1)
}
