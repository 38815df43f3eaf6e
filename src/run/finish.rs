//! What is told of a run: its notices, and the pings of its beginning and end.

use super::{
    MISSED, Missed,
    chain::{self, Within},
    state::{RunState, null},
};
use crate::{
    action::{Checked, ItemContext, Line, Stop},
    flow::{Group, Slot},
    item::{Key, Lineage, RunOutcome, RunRecord, Value},
    lang::{Facts, RunFacts},
    limits::{ON_FINISH_TIMEOUT, START_PING_PATIENCE, VALUE_BYTES_DEFAULT},
    report,
    world::{
        Due,
        failpoint::{Point, pass},
    },
};
use futures_lite::FutureExt;
use log::Level;
use std::{panic::AssertUnwindSafe, sync::Arc};

impl RunState {
    /// Places of the notices that this outcome asks for.
    pub fn notices_after(&self, outcome: RunOutcome) -> Vec<u16> {
        if self.dry.is_some() {
            return Vec::new();
        }
        let is_told = |place: &u16| self.options.pings || !self.job.on_finish[usize::from(*place)].is_ping();
        self.job.notices_after(outcome).into_iter().filter(is_told).collect()
    }
}

/// What notices tell.
pub struct Told {
    outcome: &'static str,
    summary: String,
    report: String,
}

impl Told {
    /// How a run ended.
    pub fn of(record: &RunRecord) -> Told {
        Told { outcome: record.outcome.name(), summary: report::summary_line(record), report: report::text(record) }
    }

    /// That nothing was started at a time of a job.
    pub fn missed(job: &str, missed: &Missed) -> Told {
        let summary = format!("{job} missed: {missed}");
        Told { outcome: MISSED, report: format!("{summary}\n"), summary }
    }
}

/// Runs these notices one after the other, each in its own time. What fails is logged and changes no outcome. A run that
/// stops begins none: the next start sends what is left (RUNS D5).
pub async fn notify(run: &Arc<RunState>, told: &Told, places: &[u16]) {
    let is_cut = || run.killed.is_settled() || run.stop_cut.is_settled();
    for place in places.iter().copied() {
        if is_cut() || run.stop.is_settled() {
            return;
        }
        let Some(notice) = run.job.on_finish.get(usize::from(place)) else { continue };
        let stopped = async {
            run.stop_cut.wait().await;
            Err("the run was stopped".to_owned())
        };
        pass(Point::NoticeBegins);
        let facts = Arc::new(facts_after(&run.facts, told));
        let sent = bounded(run, send(run, &notice.actions, &notice.field, u64::from(place), facts)).or(stopped).await;
        pass(Point::NoticeSent);
        // One that was cut short is sent again by the next start.
        if !is_cut() {
            notice_done(run, place).await;
        }
        pass(Point::NoticeDone);
        if let Err(why) = sent {
            said(run, place, &format!("{} failed: {why}", notice.field));
        }
    }
}

/// Takes a notice out of the outbox that the job does not want of such an end any more: what it wants of one has been changed since.
pub async fn give_up(run: &Arc<RunState>, place: u16) {
    said(
        run,
        place,
        "a notice of this run was not sent before what its job has for notices was changed: it is not sent",
    );
    notice_done(run, place).await;
}

/// Takes it out of the outbox.
async fn notice_done(run: &Arc<RunState>, place: u16) {
    if let Some(kept) = &run.kept
        && let Err(error) = run.kept_in_time(kept.rows.notice_done(place)).await.unwrap_or_else(super::silent)
    {
        said(run, place, &error.to_string());
    }
}

/// Asks what is to be asked when a run begins, beside its work. What fails is logged. A run that stops does not wait for it.
pub async fn ping_start(run: Arc<RunState>) {
    let stopped = async {
        run.stop.wait().await;
        Err("the run was stopped".to_owned())
    };
    let field = Arc::from("ping.start");
    let sent = bounded(&run, send(&run, &run.job.start_ping, &field, u64::MAX, run.facts.clone())).or(stopped).await;
    if let Err(why) = sent {
        run.context.journal.write(&Line::of_run(Level::Error, &format!("{field} failed: {why}")));
    }
}

/// Nobody hears of the beginning after the end, which does not wait long for that.
pub async fn end_start_ping(run: &RunState, pings: &Group) {
    let late = async {
        run.world().sleep(START_PING_PATIENCE).await;
        let text = "ping.start failed: it was not answered before the run ended";
        run.context.journal.write(&Line::of_run(Level::Error, text));
    };
    // A panic is fenced within.
    async { drop(pings.join().await) }.or(late).await;
    pings.cancel().await;
}

/// The work of a notice or a ping, in its own time and until the run is killed; a panic is an error.
async fn bounded(run: &RunState, work: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    let time = async {
        run.world().until(Due::Boot(run.world().boot() + ON_FINISH_TIMEOUT)).await;
        Err(format!("it took longer than {ON_FINISH_TIMEOUT:?}"))
    };
    let killed = async {
        run.killed.wait().await;
        Err("the run was killed".to_owned())
    };
    let work = AssertUnwindSafe(work).catch_unwind();
    let work = async { work.await.unwrap_or_else(|panic| Err(crate::flow::panic_text(panic))) };
    work.or(time).or(killed).await
}

fn said(run: &RunState, place: u16, text: &str) {
    run.context.journal.write(&Line::of_run(Level::Error, text).with(&[("notice", &place)]));
}

async fn send(
    run: &Arc<RunState>,
    actions: &[Checked],
    field: &Arc<str>,
    place: u64,
    facts: Arc<RunFacts>,
) -> Result<(), String> {
    let slot = Arc::new(Slot::free(run.world().clone()));
    slot.begin_item(Some(run.world().boot() + ON_FINISH_TIMEOUT), 0);
    let mut cx = ItemContext::new(run.context.clone(), slot, field.clone(), u16::MAX);
    cx.lineage = Lineage::listed(u16::MAX, place);
    let mut facts = Facts::new(null(), Key::all(), facts);
    let within = Within { max_bytes: VALUE_BYTES_DEFAULT, fits: false, dry: None, is_cut: &|| false };
    match chain::work(actions, &mut cx, &mut facts, null(), within).await {
        Ok(_) => Ok(()),
        Err(stop) => match *stop {
            Stop::Empty => Ok(()),
            Stop::Failed { failure, .. } => Err(failure.to_string()),
            Stop::Defer { .. } | Stop::PastDeadline | Stop::Cut => Err("it would have waited too long".to_owned()),
        },
    }
}

/// `run` with what is known only after the run.
fn facts_after(facts: &RunFacts, told: &Told) -> RunFacts {
    let mut run = facts.run.clone();
    if let Value::Object(fields) = &mut run {
        fields.insert("outcome".into(), told.outcome.into());
        fields.insert("summary".into(), told.summary.as_str().into());
        fields.insert("report".into(), told.report.as_str().into());
    }
    RunFacts { params: facts.params.clone(), run, secrets: facts.secrets.clone() }
}
