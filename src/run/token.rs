//! An open item: settled exactly once, whatever happens to it.

use super::state::{End, RunState};
use crate::{
    flow::OrderPlace,
    item::{Key, Lineage, Outcome, Value},
    world::{
        Boot,
        plant::{Bug, planted},
    },
};
use std::sync::{Arc, Weak, atomic::Ordering};

/// One item of one stage, from its arrival until it is settled. Dropping it settles it: `not_reached` when it was never
/// taken, else as what cut it (RUNS E1).
pub struct Token {
    run: Weak<RunState>,
    body: Option<Box<Body>>,
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
    /// Its place in the order of arrival, in a stage with `order: Input`.
    pub order: Option<OrderPlace>,
    taken: bool,
}

impl Token {
    /// Makes an item of the stage at `place` and counts its arrival.
    pub fn arrive(run: &Arc<RunState>, place: u16, lineage: Lineage, key: Key, value: Arc<Value>) -> Token {
        run.arrive(place);
        Token::open(run, place, lineage, key, value)
    }

    /// Sends it into the inbox of its stage; when that is closed its drop settles it. In a stage with `order: Input` it
    /// takes its place as it goes in, so that places have the order of the inbox.
    pub async fn send(self, run: &RunState) {
        let place = self.body().place;
        let (stage, ordered) = (run.stage(place), run.plan(place).ordered);
        let take_place = |token: &mut Token| {
            if ordered {
                token.body_mut().order = Some(stage.order.take());
            }
        };
        if let Err(token) = stage.inbox.send_with(self, take_place).await {
            if planted(Bug::SendForgets) {
                return std::mem::forget(token);
            }
            drop(token);
        }
    }

    /// Takes back an item that was deferred: it arrived before.
    pub fn open(run: &Arc<RunState>, place: u16, lineage: Lineage, key: Key, value: Arc<Value>) -> Token {
        let body = Body {
            place,
            lineage,
            key,
            value,
            group: None,
            carried: 0,
            item_deadline: None,
            has_row: false,
            order: None,
            taken: false,
        };
        Token { run: Arc::downgrade(run), body: Some(Box::new(body)) }
    }

    /// What it holds.
    pub fn body(&self) -> &Body {
        self.body.as_deref().expect("a token has its body until it is settled")
    }

    /// The same, to complete it before it is sent.
    pub fn body_mut(&mut self) -> &mut Body {
        self.body.as_deref_mut().expect("a token has its body until it is settled")
    }

    /// A worker has it now.
    pub fn take(&mut self) {
        let body = self.body_mut();
        if std::mem::replace(&mut body.taken, true) {
            return;
        }
        let place = body.place;
        if let Some(run) = self.run.upgrade() {
            run.stage(place).open.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Settles it, with its row.
    pub async fn settle(mut self, outcome: Outcome, attempts: u32, message: Option<&str>, values: Vec<Value>) {
        // The body leaves only after the row was accepted: until then dropping the future settles it by Drop.
        let Some(run) = self.run.upgrade() else { return };
        let body = self.body();
        let place = body.place;
        let stage = run.stage(place);
        let values = if outcome.is_missing() && stage.keep_inputs { vec![(*body.value).clone()] } else { values };
        let has_row = body.has_row;
        let end = End { lineage: &body.lineage, key: &body.key, outcome, attempts, message, has_row };
        if outcome == Outcome::TimedOut && planted(Bug::SettledTwice) {
            run.count_end(place, &end);
        }
        run.settle(place, end, values).await;
        self.finish(&run);
    }

    /// It waits in the store: it stays open, and its rows know it.
    pub fn into_deferred(mut self) {
        if let Some(run) = self.run.upgrade() {
            run.stage(self.body().place).deferred.fetch_add(1, Ordering::AcqRel);
            self.finish(&run);
        }
    }

    fn finish(&mut self, run: &RunState) {
        if let Some(body) = self.body.take()
            && body.taken
        {
            run.stage(body.place).open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        let (Some(body), Some(run)) = (&self.body, self.run.upgrade()) else { return };
        let outcome = match (body.taken, run.cancel.get()) {
            (false, _) => Outcome::NotReached,
            (true, Some(reason)) => reason.cut_outcome(),
            (true, None) => Outcome::Cancelled,
        };
        let attempts = body.carried;
        let has_row = body.has_row;
        let end = End { lineage: &body.lineage, key: &body.key, outcome, attempts, message: None, has_row };
        run.count_end(body.place, &end);
        self.finish(&run);
    }
}
