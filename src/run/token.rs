//! An open item: settled exactly once, whatever happens to it.

use super::state::{End, OwnTally, RunState};
use crate::{
    flow::{OrderPlace, Refused},
    item::{Key, Lineage, Outcome, Value},
    store::{Row, RowEnd, StoreError},
    world::{
        Boot,
        plant::{Bug, planted},
    },
};
use std::sync::{Arc, Weak, atomic::Ordering};

/// One item of one stage, from its arrival until it is settled. Dropping it settles it: `not_reached` when it was never
/// taken, else as what cut it; in a stop it stays open, without a row (RUNS E1). A settled one may go on as an item of the next stage.
pub struct Token {
    run: Weak<RunState>,
    body: Box<Body>,
}

/// What a token holds.
pub struct Body {
    pub place: u16,
    pub lineage: Lineage,
    pub key: Key,
    pub value: Arc<Value>,
    /// Text of the group, in a `By` gather.
    pub group: Option<String>,
    /// Counted attempts from before it was deferred.
    pub carried: u32,
    /// Its item deadline from before it was deferred.
    pub item_deadline: Option<Boot>,
    /// It was deferred before: a row in the store says that it waits, and its end must replace that row.
    pub has_row: bool,
    /// When it was taken, in a run that is kept.
    pub taken_at: Option<Boot>,
    /// Its place in the order of arrival, in a stage with `order: Input`.
    pub order: Option<OrderPlace>,
    step: Step,
}

/// What is said of an item that is held.
const HELD: &str = "it was worked on when the process died or stopped, and its stage says `on_crash: Hold`";

/// How far a token has come in its stage.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Arrived,
    Taken,
    /// Nothing is left to do when it is dropped.
    Settled,
}

/// How an item ended in the hand of whoever settles it.
pub struct Done<'a> {
    pub outcome: Outcome,
    pub attempts: u32,
    pub message: Option<&'a str>,
    /// The worker that has done it.
    pub by: Option<&'a OwnTally>,
}

impl Token {
    /// Makes an item of the stage at `place` and counts its arrival.
    pub fn arrive(run: &Arc<RunState>, place: u16, lineage: Lineage, key: Key, value: Arc<Value>) -> Token {
        run.arrive(place);
        Token::open(run, place, lineage, key, value)
    }

    /// A settled item goes on as one of the stage at `place`, with the same lineage and key.
    pub fn pass_on(mut self, run: &RunState, place: u16, value: Arc<Value>) -> Token {
        run.arrive(place);
        let body = &mut *self.body;
        (body.place, body.value, body.step) = (place, value, Step::Arrived);
        (body.group, body.carried, body.item_deadline, body.has_row) = (None, 0, None, false);
        body.taken_at = None;
        self
    }

    /// Sends it into the inbox of its stage; when that is closed its drop settles it. In a stage with `order: Input` it
    /// takes its place as it goes in, so that places have the order of the inbox.
    pub async fn send(self, run: &RunState) {
        let stage = run.stage(self.body.place);
        if let Err(token) = stage.inbox.send_with(self, |token| token.take_place(run)).await {
            token.refused();
        }
    }

    /// The same without waiting; gives it back when there is no room.
    pub fn try_send(self, run: &RunState) -> Option<Token> {
        let stage = run.stage(self.body.place);
        match stage.inbox.try_send_with(self, |token| token.take_place(run)) {
            Ok(()) => None,
            Err(Refused::Full(token)) => Some(token),
            Err(Refused::Closed(token)) => {
                token.refused();
                None
            }
        }
    }

    /// The inbox was closed: its drop settles it.
    fn refused(self) {
        if planted(Bug::SendForgets) {
            std::mem::forget(self);
        }
    }

    fn take_place(&mut self, run: &RunState) {
        if run.plan(self.body.place).ordered {
            self.body.order = Some(run.stage(self.body.place).order.take());
        }
    }

    /// Takes back an item that was deferred: it arrived before.
    pub fn open(run: &Arc<RunState>, place: u16, lineage: Lineage, key: Key, value: Arc<Value>) -> Token {
        Token { run: Arc::downgrade(run), body: Box::new(Body::new(place, lineage, key, value)) }
    }

    /// What it holds.
    pub fn body(&self) -> &Body {
        &self.body
    }

    /// The same, to complete it before it is sent.
    pub fn body_mut(&mut self) -> &mut Body {
        &mut self.body
    }

    /// A worker has it now.
    pub fn take(&mut self) {
        self.body.step = Step::Taken;
    }

    /// Records that an attempt begins which must not be repeated after a crash: on the disk when this returns (RUNS S2, S7).
    pub async fn start(&self, run: &RunState) -> Result<(), StoreError> {
        let body = &*self.body;
        // It becomes the row of a missing item when the run is taken over.
        let values = if run.stage(body.place).keep_inputs { vec![(*body.value).clone()] } else { Vec::new() };
        let row = Row {
            stage: body.place,
            lineage: body.lineage.clone(),
            key: body.key.clone(),
            end: RowEnd::Started,
            attempts: body.carried + 1,
            message: Some(HELD.to_owned()),
            values,
            took_ms: None,
        };
        let rows = run.rows().await?;
        rows.put(row).await?;
        if planted(Bug::HoldNotCommitted) { Ok(()) } else { rows.flush().await }
    }

    /// Settles it, if it needs no row: that of most items. `false`: it is to be settled by [`Token::settle`].
    pub fn settle_now(&mut self, run: &RunState, done: &Done<'_>) -> bool {
        let body = &*self.body;
        if run.gets_row(body.place, done.outcome, body.has_row) || planted(Bug::SettledTwice) {
            return false;
        }
        run.count_end(body.place, &body.end(done));
        self.body.step = Step::Settled;
        true
    }

    /// Settles it with its row, out of the hand of a worker or on the way. Dropping the future before the row was accepted
    /// settles it by Drop.
    pub async fn settle(&mut self, run: &RunState, done: Done<'_>, values: Vec<Value>) {
        if self.settle_now(run, &done) {
            return;
        }
        let (body, outcome) = (&*self.body, done.outcome);
        let keep_input = outcome.is_missing() && run.stage(body.place).keep_inputs;
        let values = if keep_input { vec![(*body.value).clone()] } else { values };
        let took = |at: Boot| u32::try_from(run.world().boot().since(at).as_millis()).unwrap_or(u32::MAX);
        let took_ms = body.taken_at.map(took);
        let end = End { took_ms, ..body.end(&done) };
        if outcome == Outcome::TimedOut && planted(Bug::SettledTwice) {
            run.count_end(body.place, &end);
        }
        run.settle(body.place, end, values).await;
        self.body.step = Step::Settled;
    }

    /// It was never taken and will not be.
    pub async fn settle_not_reached(&mut self, run: &RunState) {
        if planted(Bug::NotReachedUnnamed) {
            return;
        }
        let done = Done { outcome: Outcome::NotReached, attempts: 0, message: None, by: None };
        self.settle(run, done, Vec::new()).await;
    }

    /// It waits in the store: it stays open, and its rows know it.
    pub fn into_deferred(mut self, run: &RunState) {
        run.stage(self.body.place).deferred.fetch_add(1, Ordering::AcqRel);
        self.body.step = Step::Settled;
    }
}

impl Body {
    fn new(place: u16, lineage: Lineage, key: Key, value: Arc<Value>) -> Body {
        let (step, group, order) = (Step::Arrived, None, None);
        Body {
            place,
            lineage,
            key,
            value,
            group,
            carried: 0,
            item_deadline: None,
            has_row: false,
            taken_at: None,
            order,
            step,
        }
    }

    fn end<'a>(&'a self, done: &Done<'a>) -> End<'a> {
        let Body { lineage, key, has_row, .. } = self;
        let Done { outcome, attempts, message, by } = *done;
        End { lineage, key, outcome, attempts, message, has_row: *has_row, by, took_ms: None }
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        if self.body.step == Step::Settled {
            return;
        }
        let Some(run) = self.run.upgrade() else { return };
        let body = &*self.body;
        if run.is_stopping() {
            run.stage(body.place).left.fetch_add(1, Ordering::AcqRel);
            return;
        }
        let outcome = match (body.step, run.cancel.get()) {
            (Step::Arrived, _) => Outcome::NotReached,
            (_, Some(reason)) => reason.cut_outcome(),
            (_, None) => Outcome::Cancelled,
        };
        let done = Done { outcome, attempts: body.carried, message: None, by: None };
        run.count_end(body.place, &body.end(&done));
    }
}
