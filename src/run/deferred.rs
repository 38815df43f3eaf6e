//! Items that wait outside memory: read back when the inbox has ended (RUNS T4).

use super::{
    state::{Cut, CutWatch, RunState},
    token::{Done, Token},
    worker::{Worker, join},
};
use crate::{
    flow::Group,
    item::{Lineage, Outcome},
    limits::BATCH_ROWS,
    store::{Row, RowEnd, StoreError},
    world::{
        Boot, Due,
        failpoint::{Point, pass},
        plant::{Bug, planted},
    },
};
use futures_lite::FutureExt;
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

/// Feeds every item that waits now to workers, each when its time has come, in (time, lineage) order. Items that are
/// deferred once more wait for the next round.
pub async fn run_round(run: &Arc<RunState>, place: u16) {
    let (sender, receiver) = async_channel::bounded::<Token>(1);
    let group = Group::new(run.world().clone());
    for _ in 0..run.plan(place).workers {
        let (run, receiver) = (run.clone(), receiver.clone());
        group.spawn(Box::pin(async move {
            let mut worker = Worker::new(&run, place, None);
            let watch = CutWatch::new(run.clone(), place);
            while let Ok(mut token) = receiver.recv().await {
                let permits = &run.stage(place).permits;
                permits.acquire_returning().await;
                // It is read back when the inbox has ended, which may be after its own deadline (RUNS T3).
                let late = token.body().item_deadline.is_some_and(|until| run.world().boot() > until);
                let late = late.then_some(Some(Outcome::TimedOut));
                if let Some(outcome) = watch.now().map(|cut| cut.outcome()).or(late) {
                    permits.release_working();
                    let attempts = token.body().carried;
                    if let Some(outcome) = outcome {
                        token.settle(&run, cut_off(outcome, attempts), Vec::new()).await;
                    }
                    continue;
                }
                pass(Point::Returned);
                if worker.item(&run, token).await {
                    permits.release_working();
                }
            }
        }));
    }
    drop(receiver);
    if let Err(error) = feed(run, place, &sender).await {
        run.store_failed(&error);
        settle_rest(run, place);
    }
    drop(sender);
    join(run, place, &group).await;
}

async fn feed(run: &Arc<RunState>, place: u16, sender: &async_channel::Sender<Token>) -> Result<(), StoreError> {
    let rows = run.rows().await?;
    let mut watch = CutWatch::new(run.clone(), place);
    let mut waiting = run.stage(place).deferred.load(Ordering::Acquire);
    let mut after: Option<(u64, Lineage)> = None;
    while waiting > 0 {
        let page = rows.deferred(place, after.clone(), BATCH_ROWS).await?;
        let Some(last) = page.last() else { break };
        after = Some((at_of(last), last.lineage.clone()));
        for row in page {
            if waiting == 0 {
                break;
            }
            waiting -= 1;
            let at = if planted(Bug::DeferredEarly) { 0 } else { at_of(&row) };
            let due = Due::Boot(Boot(Duration::from_millis(at)));
            let cut = {
                let time = async {
                    run.world().until(due).await;
                    None
                };
                let cut = async { Some(watch.cut().await) };
                cut.or(time).await
            };
            if cut == Some(Cut::Stopped) {
                // It goes on waiting in the store.
                return Ok(());
            }
            let attempts = row.attempts;
            let mut token = reopen(run, place, row);
            match cut.and_then(|cut| cut.outcome()) {
                None => {
                    // The workers of the round take until the sender is dropped.
                    let _ = sender.send(token).await;
                }
                Some(outcome) => token.settle(run, cut_off(outcome, attempts), Vec::new()).await,
            }
        }
    }
    Ok(())
}

fn cut_off(outcome: Outcome, attempts: u32) -> Done<'static> {
    Done { outcome, attempts, message: None, by: None }
}

fn at_of(row: &Row) -> u64 {
    match row.end {
        RowEnd::Retry { at_ms, .. } => at_ms,
        RowEnd::Done(_) | RowEnd::Started => 0,
    }
}

fn reopen(run: &Arc<RunState>, place: u16, mut row: Row) -> Token {
    let value = Arc::new(row.values.pop().unwrap_or_default());
    let mut token = Token::open(run, place, row.lineage, row.key, value);
    let is_resumed = run.kept.as_ref().is_some_and(|kept| kept.resume.is_some());
    token.body_mut().carried = if is_resumed && planted(Bug::AttemptsForgotten) { 0 } else { row.attempts };
    token.body_mut().group = row.message;
    token.body_mut().has_row = true;
    if let RowEnd::Retry { deadline_ms: Some(deadline), .. } = row.end
        && !planted(Bug::DeadlineForgotten)
    {
        token.body_mut().item_deadline = Some(Boot(Duration::from_millis(deadline)));
    }
    token.take();
    run.stage(place).deferred.fetch_sub(1, Ordering::AcqRel);
    token
}

/// The store is gone: what waited in it is cancelled, by number.
fn settle_rest(run: &RunState, place: u16) {
    let stage = run.stage(place);
    let left = stage.deferred.swap(0, Ordering::AcqRel);
    let mut counts = stage.counts();
    for _ in 0..left {
        counts.settle(Outcome::Cancelled, 0);
    }
}
