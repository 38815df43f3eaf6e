//! What is done after a run: its notices.

use super::{
    chain::{self, Within},
    state::{RunState, null},
};
use crate::{
    action::{ItemContext, Stop},
    flow::Slot,
    item::{Key, Lineage, RunRecord, Value},
    job::Notice,
    lang::{Facts, RunFacts},
    limits::{ON_FINISH_TIMEOUT, VALUE_BYTES_DEFAULT},
    report,
    world::Due,
};
use futures_lite::FutureExt;
use std::{panic::AssertUnwindSafe, sync::Arc};

/// Runs the notices that this outcome asks for, one after the other, each in its own time. What fails is logged and
/// changes no outcome (RUNS D5).
pub async fn notify(run: &Arc<RunState>, record: &RunRecord) {
    for (place, notice) in run.job.on_finish.iter().enumerate() {
        if run.killed.is_settled() {
            return;
        }
        if !notice.when.contains(&record.outcome) || run.dry.is_some() {
            continue;
        }
        let time = async {
            run.world().until(Due::Boot(run.world().boot() + ON_FINISH_TIMEOUT)).await;
            Err(format!("it took longer than {ON_FINISH_TIMEOUT:?}"))
        };
        let killed = async {
            run.killed.wait().await;
            Err("the run was killed".to_owned())
        };
        let work = AssertUnwindSafe(send(run, notice, place, record)).catch_unwind();
        let work = async { work.await.unwrap_or_else(|panic| Err(crate::flow::panic_text(panic))) };
        let sent = work.or(time).or(killed).await;
        // One that was cut short is sent again by the next start.
        if let Some(kept) = run.kept.as_ref().filter(|_| !run.killed.is_settled())
            && let Err(error) = kept.rows.notice_done(place as u16).await
        {
            log::error!(target: "lamplighter::run", run = record.run.as_str(), notice = place; "{error}");
        }
        if let Err(why) = sent {
            log::error!(target: "lamplighter::run", run = record.run.as_str(), notice = place; "on_finish failed: {why}");
        }
    }
}

async fn send(run: &Arc<RunState>, notice: &Notice, place: usize, record: &RunRecord) -> Result<(), String> {
    let slot = Arc::new(Slot::free(run.world().clone()));
    slot.begin_item(Some(run.world().boot() + ON_FINISH_TIMEOUT), 0);
    let stage = format!("on_finish[{place}]").into();
    let mut cx = ItemContext::new(run.context.clone(), slot, stage, u16::MAX);
    cx.lineage = Lineage::listed(u16::MAX, place as u64);
    let mut facts = Facts::new(null(), Key::all(), Arc::new(facts_after(&run.facts, record)));
    let within = Within { max_bytes: VALUE_BYTES_DEFAULT, dry: None, is_cut: &|| false };
    match chain::work(&notice.actions, &mut cx, &mut facts, null(), within).await {
        Ok(_) | Err(Stop::Empty) => Ok(()),
        Err(Stop::Failed { failure, .. }) => Err(failure.to_string()),
        Err(Stop::Defer { .. } | Stop::PastDeadline | Stop::Cut) => Err("it would have waited too long".to_owned()),
    }
}

/// `run` with what is known only after the run.
fn facts_after(facts: &RunFacts, record: &RunRecord) -> RunFacts {
    let mut run = facts.run.clone();
    if let Value::Object(fields) = &mut run {
        fields.insert("outcome".into(), record.outcome.name().into());
        fields.insert("summary".into(), report::summary_line(record).into());
        fields.insert("report".into(), report::text(record).into());
    }
    RunFacts { params: facts.params.clone(), run, secrets: facts.secrets.clone() }
}
