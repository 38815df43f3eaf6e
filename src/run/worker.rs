//! A worker of a stage: pull, work, settle, deliver, again.

use super::{
    chain::{self, Dry, Within},
    guard::{Alarms, Bounds, Guarded, guard},
    pool::SlotPool,
    state::{Cut, CutWatch, RunState, null},
    token::Token,
};
use crate::{
    action::{ItemContext, Stop},
    flow::{Group, PullEnd, Slot, WaitRefused},
    item::{Class, Failure, Key, Lineage, Outcome, Value},
    job::Stage,
    lang::{Facts, Group as GroupFacts},
    limits::READY_ITEMS_BEFORE_YIELD,
    store::{Row, RowEnd},
    world::{
        Boot,
        plant::{Bug, planted},
    },
};
use futures_lite::{
    FutureExt,
    future::{poll_once, yield_now},
};
use std::{
    pin::pin,
    sync::{Arc, atomic::Ordering},
};

/// Runs the stage at `place` until its inbox has ended and nothing waits in the store any more; afterwards every item that
/// arrived is settled.
pub async fn run_stage(run: Arc<RunState>, place: u16) {
    let stage = run.stage(place).clone();
    let group = Group::new(run.world().clone());
    let pool = SlotPool::new(&run, place, &group);
    pool.start();
    join(&run, place, &group).await;
    while stage.deferred.load(Ordering::Acquire) > 0 {
        super::deferred::run_round(&run, place).await;
    }
    // In a cancelled run the workers end before their feeders, who may still have an item in hand (RUNS E1). Nobody takes
    // any more, so they must not wait for room.
    if !planted(Bug::SpareReceiver) {
        stage.inbox.close();
    }
    for parent in run.plan(place).from.iter().filter(|_| !planted(Bug::JoinByMessages)) {
        run.stage(*parent).ended.wait().await;
    }
    end_stage(&run, place);
}

/// Joins the workers; one that panicked has cancelled the run.
pub async fn join(run: &RunState, place: u16, group: &Group) {
    if let Err(panic) = group.join().await {
        run.died(&format!("a worker of stage `{}`", run.stage(place).name), &panic);
    }
}

/// Everything is joined: settles what is left in the inbox, checks that all that arrived was settled, and tells the readers.
pub fn end_stage(run: &Arc<RunState>, place: u16) {
    let (stage, plan) = (run.stage(place), run.plan(place));
    stage.inbox.close();
    while let Some(token) = stage.inbox.try_take() {
        drop(token);
    }
    let (arrived, settled) = (stage.arrived.load(Ordering::Acquire), stage.counts().settled());
    if arrived != settled {
        let lost = arrived.saturating_sub(settled);
        {
            let mut counts = stage.counts();
            counts.failed += lost;
            *counts.classes.entry(Class::Lost).or_default() += lost;
        }
        run.note_broken(format!("lost: {lost} items of stage `{}` arrived and were never settled", stage.name));
    }
    let whole = run.options.limit.is_none() && run.options.key.is_none();
    if whole && arrived < plan.min_items && run.cancel.get().is_none() {
        run.note_broken(format!(
            "too_few_items: stage `{}` had {arrived} items, and `min_items` is {}",
            stage.name, plan.min_items
        ));
    }
    for reader in &plan.readers {
        if stage.incomplete.load(Ordering::Acquire) && !planted(Bug::IncompleteForgotten) {
            run.stage(*reader).incomplete.store(true, Ordering::Release);
        }
        if !run.plan(*reader).is_gather() {
            feed_ended(run, *reader);
        }
    }
    let counts = stage.snapshot();
    if !plan.hidden {
        log::info!(
            target: "lamplighter::run",
            run = run.context.id.as_str(), stage = &*stage.name, items = counts.items, ok = counts.ok, empty = counts.empty,
            missing = counts.missing();
            "stage ended"
        );
    }
    stage.ended.settle(());
    run.changed.notify(usize::MAX);
}

/// What fed the stage has ended: its number of items is known.
pub fn feed_ended(run: &RunState, place: u16) {
    let stage = run.stage(place);
    stage.fed.store(true, Ordering::Release);
    stage.inbox.close();
    run.check_fail_fast(place);
}

/// One worker: takes items until the inbox is closed and empty.
pub async fn work_through(run: Arc<RunState>, place: u16, pool: SlotPool) {
    let mut worker = Worker::new(run.clone(), place, Some(pool));
    let stage = run.stage(place).clone();
    let mut pulling = false;
    let mut ready_in_a_row = 0;
    loop {
        match worker.watch.now() {
            Some(Cut::Cancelled(_)) => break,
            Some(Cut::Closed) => {
                if pulling {
                    stage.permits.release_pulling(None);
                }
                return drain(&run, place, &mut worker.watch).await;
            }
            None => {}
        }
        if !pulling {
            let fresh = async {
                stage.permits.acquire_fresh().await;
                Some(())
            };
            let cut = async {
                worker.watch.cut().await;
                None
            };
            if fresh.or(cut).await.is_none() {
                continue;
            }
        }
        pulling = false;
        let pull = async { Some(stage.inbox.pull(&stage.permits).await) };
        let cut = async {
            worker.watch.cut().await;
            None
        };
        match pull.or(cut).await {
            None | Some(Err(PullEnd::Revoked)) => continue,
            Some(Err(PullEnd::Closed)) => return,
            Some(Ok((token, mut has_permit))) => {
                if !has_permit {
                    let back = async {
                        stage.permits.acquire_returning().await;
                        true
                    };
                    let cut = async {
                        worker.watch.cut().await;
                        false
                    };
                    has_permit = back.or(cut).await;
                }
                // What is cut before it was begun is not begun: a closed stage names it, a cancelled run counts it.
                if let Some(cut) = worker.watch.now() {
                    if has_permit {
                        stage.permits.release_working();
                    }
                    if cut == Cut::Closed {
                        token.settle(Outcome::NotReached, 0, None, Vec::new()).await;
                    }
                    continue;
                }
                pulling = worker.item(token).await;
                ready_in_a_row += 1;
                if ready_in_a_row >= READY_ITEMS_BEFORE_YIELD {
                    ready_in_a_row = 0;
                    yield_now().await;
                }
            }
        }
    }
    if pulling {
        stage.permits.release_pulling(None);
    }
}

/// A closed stage goes on pulling and settles each item without running it.
async fn drain(run: &Arc<RunState>, place: u16, watch: &mut CutWatch) {
    let stage = run.stage(place).clone();
    loop {
        let cancelled = async {
            while !matches!(watch.now(), Some(Cut::Cancelled(_))) {
                let listener = stage.attention.listen();
                if matches!(watch.now(), Some(Cut::Cancelled(_))) {
                    break;
                }
                listener.await;
            }
            None
        };
        match stage.inbox.drain().or(cancelled).await {
            Some(_) if planted(Bug::ClosedStopsPulling) => return,
            Some(token) if planted(Bug::NotReachedUnnamed) => drop(token),
            Some(token) => token.settle(Outcome::NotReached, 0, None, Vec::new()).await,
            None => return,
        }
    }
}

/// The means of one worker, used for one item after the other.
pub struct Worker {
    run: Arc<RunState>,
    place: u16,
    cx: ItemContext,
    watch: CutWatch,
    alarms: Alarms,
    pool: Option<SlotPool>,
}

/// How an item came out of its attempts.
enum Worked {
    Gave(Vec<Arc<Value>>),
    Failed(Failure),
    Ended(Outcome),
    Deferred { until: Boot, attempts: u32, item_deadline: Option<Boot> },
}

impl Worker {
    pub fn new(run: Arc<RunState>, place: u16, pool: Option<SlotPool>) -> Worker {
        let (stage, plan) = (run.stage(place), run.plan(place));
        let world = run.world().clone();
        let slot = Arc::new(Slot::new(world.clone(), stage.permits.clone(), !plan.ordered));
        let cx = ItemContext::new(run.context.clone(), slot, stage.name.clone(), place);
        let watch = CutWatch::new(run.clone(), place);
        Worker { alarms: Alarms::new(&world), run, place, cx, watch, pool }
    }

    /// Works on one item that was pulled with a working permit, from its first attempt until it is settled and delivered.
    /// Returns whether the worker still holds a (pulling) permit.
    pub async fn item(&mut self, mut token: Token) -> bool {
        token.take();
        let stage = self.run.stage(self.place).clone();
        let now = self.run.world().boot();
        stage.began.settle(now);
        let plan_deadline = self.run.plan(self.place).item_deadline.map(|bound| now + bound);
        let item_deadline = token.body().item_deadline.or(plan_deadline);
        self.cx.slot.begin_item(self.latest_wait(item_deadline), token.body().carried);
        self.cx.key = Some(token.body().key.clone());
        self.cx.lineage = token.body().lineage.clone();
        let worked = self.attempts(&token, item_deadline).await;
        let attempts = self.cx.slot.attempts();
        let order = token.body_mut().order.take();
        let children = match worked {
            Worked::Gave(values) if values.is_empty() => {
                token.settle(Outcome::Empty, attempts, None, Vec::new()).await;
                Vec::new()
            }
            Worked::Gave(values) => self.settle_ok(token, attempts, values).await,
            Worked::Failed(failure) => {
                log::debug!(
                    target: "lamplighter::item",
                    run = self.run.context.id.as_str(), stage = &*stage.name, key = token.body().key.as_str(), attempts;
                    "failed: {failure}"
                );
                token.settle(Outcome::Failed(failure.class), attempts, Some(&failure.message), Vec::new()).await;
                Vec::new()
            }
            Worked::Ended(outcome) => {
                token.settle(outcome, attempts, None, Vec::new()).await;
                Vec::new()
            }
            Worked::Deferred { until, attempts, item_deadline } => {
                self.defer(token, until, attempts, item_deadline).await;
                Vec::new()
            }
        };
        let held = self.cx.slot.end_item();
        if let Some(order) = order {
            if held && !planted(Bug::PermitNotReturned) {
                stage.permits.release_working();
            }
            if let Some(pool) = &self.pool {
                // Others work meanwhile: what is done and waits for its turn is open, as what waits for a retry is.
                pool.add_if_spare();
            }
            let cancelled = async {
                self.run.cancel.wait().await;
            };
            order.turn().or(cancelled).await;
            deliver(&self.run, self.place, children).await;
            return false;
        }
        let mut delivery = pin!(deliver(&self.run, self.place, children));
        if poll_once(&mut delivery).await.is_some() {
            return held && stage.permits.keep_for_next();
        }
        // What waits for room behind it does no work: items that come back from a wait may need its permit, and the room
        // may need them (two stages on one service).
        if held && planted(Bug::DeliveryKeepsPermit) {
            delivery.await;
            return stage.permits.keep_for_next();
        }
        if held {
            stage.permits.release_working();
        }
        delivery.await;
        false
    }

    /// The end of the last wait that an item may begin: the earliest of its own, the stage's and the run's deadline.
    fn latest_wait(&self, item_deadline: Option<Boot>) -> Option<Boot> {
        let (stage, plan) = (self.run.stage(self.place), self.run.plan(self.place));
        let of_stage = plan.deadline.and_then(|bound| stage.began.get().map(|began| *began + bound));
        let behind_gather =
            plan.is_gather() || self.run.job.ancestors(self.place).iter().any(|at| self.run.plan(*at).is_gather());
        let of_run = self.run.context.deadline.map(|at| if behind_gather { at + self.run.context.grace } else { at });
        let bounds = [item_deadline, of_stage, of_run].into_iter().flatten();
        if planted(Bug::ChildLengthens) { bounds.max() } else { bounds.min() }
    }

    /// The stage's own retry around the whole list of actions (RUNS T1).
    async fn attempts(&mut self, token: &Token, item_deadline: Option<Boot>) -> Worked {
        let run = self.run.clone();
        let plan = run.plan(self.place);
        let most = plan.retry.as_ref().map_or(1, |retry| retry.max_attempts);
        let mut attempt = if plan.retry.is_some() { self.cx.slot.take_carried() } else { 0 };
        let print = run.dry.as_ref().is_some_and(|dry| dry.print_this_item(self.place));
        loop {
            attempt += 1;
            self.cx.attempt = attempt;
            self.cx.slot.begin_attempt();
            let facts = self.facts(token);
            let slot = self.cx.slot.clone();
            if let Some(cut) = self.watch.now() {
                return Worked::Ended(outcome_of(&cut));
            }
            let bounds = Bounds { deadline: item_deadline, timeout: plan.timeout };
            let dry = run.dry.as_ref().map(|dry| Dry { run: dry, print, in_source: false });
            let stage = run.stage(self.place);
            let bounds_of_work = Within { max_bytes: plan.max_value, dry, is_cut: &|| run.cut(stage).is_some() };
            let work = chain::work(&plan.actions, &mut self.cx, facts, bounds_of_work);
            let guarded = guard(work, &slot, &mut self.watch, &mut self.alarms, self.pool.as_ref(), bounds).await;
            let failure = match guarded {
                Guarded::Done(Ok(values)) => {
                    slot.count_attempts(attempt);
                    let wrong = || values.iter().find_map(|value| chain::too_deep(value));
                    return match if plan.readers.is_empty() { None } else { wrong() } {
                        None => Worked::Gave(values),
                        Some(failure) => Worked::Failed(failure),
                    };
                }
                Guarded::Done(Err(Stop::Empty)) => {
                    slot.count_attempts(attempt);
                    return Worked::Gave(Vec::new());
                }
                Guarded::Done(Err(Stop::Failed { failure, given_up })) => {
                    slot.count_attempts(attempt);
                    if (given_up && !planted(Bug::RetriesGivenUp)) || !retried_by_a_stage(failure.class) {
                        return Worked::Failed(failure);
                    }
                    failure
                }
                Guarded::Done(Err(Stop::Defer { wait, attempts })) => {
                    let until = run.world().boot() + wait;
                    return Worked::Deferred { until, attempts, item_deadline };
                }
                Guarded::Done(Err(Stop::PastDeadline)) => return Worked::Ended(Outcome::TimedOut),
                Guarded::Done(Err(Stop::Cut)) => return Worked::Ended(self.cut_outcome()),
                Guarded::Panicked(message) => {
                    slot.count_attempts(attempt);
                    return Worked::Failed(Failure::new(Class::Panic, message));
                }
                Guarded::Cut(cut) => return Worked::Ended(outcome_of(&cut)),
                Guarded::PastDeadline => {
                    self.left_behind(token).await;
                    return Worked::Ended(Outcome::TimedOut);
                }
                Guarded::TimedOut => {
                    slot.count_attempts(attempt);
                    self.left_behind(token).await;
                    let bound = plan.timeout.unwrap_or_default();
                    Failure::new(Class::Timeout, format!("the attempt worked longer than its timeout of {bound:?}"))
                }
            };
            let Some(retry) = plan.retry.as_ref().filter(|_| attempt < most) else { return Worked::Failed(failure) };
            let wait = retry.backoff(attempt, run.world());
            let bounds = Bounds { deadline: item_deadline, timeout: None };
            let waiting = slot.wait(wait);
            match guard(waiting, &slot, &mut self.watch, &mut self.alarms, self.pool.as_ref(), bounds).await {
                Guarded::Done(Ok(())) => {}
                Guarded::Done(Err(WaitRefused::PastDeadline)) | Guarded::PastDeadline => {
                    return Worked::Failed(failure);
                }
                Guarded::Done(Err(WaitRefused::Defer(wait))) => {
                    let until = run.world().boot() + wait;
                    return Worked::Deferred { until, attempts: attempt, item_deadline };
                }
                Guarded::Cut(cut) => return Worked::Ended(outcome_of(&cut)),
                Guarded::Panicked(message) => return Worked::Failed(Failure::new(Class::Panic, message)),
                Guarded::TimedOut => unreachable!("a wait has no timeout"),
            }
        }
    }

    /// Waits until the processes of a cut attempt are gone, keeping the permit, as long as the stage goes on (RUNS T6).
    async fn left_behind(&mut self, token: &Token) {
        let run = self.run.clone();
        let gone = run.context.leftovers.gone((self.place, token.body().lineage.clone()));
        let cut = async {
            self.watch.cut().await;
        };
        gone.or(cut).await;
    }

    fn cut_outcome(&self) -> Outcome {
        self.watch.now().map_or(Outcome::Cancelled, |cut| outcome_of(&cut))
    }

    fn facts(&self, token: &Token) -> Facts {
        let body = token.body();
        let mut facts = Facts {
            item: body.value.clone(),
            value: body.value.clone(),
            key: body.key.clone(),
            run: self.run.facts.clone(),
            state: null(),
            response: null(),
            group: None,
        };
        if self.run.plan(self.place).is_gather() {
            let group = super::gather::StoredGroup::of(&self.run, self.place, body.group.clone());
            facts.group = group.map(|group| Arc::new(group) as Arc<dyn GroupFacts>);
        }
        facts
    }

    /// All actions are done: names what was given, settles, and hands back what is to be delivered.
    async fn settle_ok(&mut self, token: Token, attempts: u32, values: Vec<Arc<Value>>) -> Vec<Child> {
        let plan = self.run.plan(self.place);
        let children = match children(&self.run, plan, token.body(), values) {
            Ok(children) => children,
            Err(failure) => {
                token.settle(Outcome::Failed(failure.class), attempts, Some(&failure.message), Vec::new()).await;
                return Vec::new();
            }
        };
        let children = self.wanted(children);
        let kept = if self.run.stage(self.place).keep_values {
            children.iter().map(|child| (*child.value).clone()).collect()
        } else {
            Vec::new()
        };
        token.settle(Outcome::Ok, attempts, None, kept).await;
        children
    }

    /// Only what `--key` asks for. Behind a gather keys are texts of groups, which it does not mean.
    fn wanted(&self, mut children: Vec<Child>) -> Vec<Child> {
        let run = &self.run;
        let is_gather = |at: u16| run.plan(at).is_gather();
        if run.options.key.is_some()
            && !is_gather(self.place)
            && !run.job.ancestors(self.place).into_iter().any(is_gather)
        {
            children.retain(|child| run.options.wants(child.key.as_str()));
        }
        children
    }

    /// Puts an item that waits long into the store; it comes back when the inbox has ended.
    async fn defer(&mut self, token: Token, until: Boot, attempts: u32, item_deadline: Option<Boot>) {
        let body = token.body();
        let millis = |at: Boot| u64::try_from(at.0.as_millis()).unwrap_or(u64::MAX);
        let row = Row {
            stage: self.place,
            lineage: body.lineage.clone(),
            key: body.key.clone(),
            end: RowEnd::Retry { at_ms: millis(until), deadline_ms: item_deadline.map(millis) },
            attempts,
            message: body.group.clone(),
            values: vec![(*body.value).clone()],
        };
        let put = async {
            let rows = self.run.rows().await?;
            if planted(Bug::DeferredRowLost) { Ok(()) } else { rows.put(row).await }
        };
        match put.await {
            Ok(()) => token.into_deferred(),
            Err(error) => {
                self.run.store_failed(&error);
                drop(token);
            }
        }
    }
}

/// Which failures of actions without a service the stage's own retry repeats (RUNS T1).
fn retried_by_a_stage(class: Class) -> bool {
    matches!(class, Class::Exit | Class::Timeout | Class::Transport | Class::Call)
}

/// How an item ends that was taken and is cut so.
pub fn outcome_of(cut: &Cut) -> Outcome {
    match cut {
        Cut::Closed => Outcome::TimedOut,
        Cut::Cancelled(outcome) => *outcome,
    }
}

/// A value on its way to the readers of a stage.
pub struct Child {
    pub lineage: Lineage,
    pub key: Key,
    pub value: Arc<Value>,
}

/// Lineage and key of each value that an item gave (RUNS K1, K2).
fn children(
    run: &RunState,
    plan: &Stage,
    body: &super::token::Body,
    values: Vec<Arc<Value>>,
) -> Result<Vec<Child>, Failure> {
    let several = values.len() > 1;
    let mut parts = std::collections::BTreeSet::new();
    let mut children = Vec::with_capacity(values.len());
    for (index, value) in values.into_iter().enumerate() {
        let lineage = if several { body.lineage.child(index as u32) } else { body.lineage.clone() };
        let key = match &plan.key {
            Some(template) => {
                let facts = Facts::new(value.clone(), body.key.clone(), run.facts.clone());
                let part = render_key(template, &facts)?;
                if !parts.insert(part.clone()) {
                    let message = format!("two values of the item have the same `key` `{part}`");
                    return Err(Failure::new(Class::DuplicateKey, message));
                }
                body.key.join(&part)
            }
            None if several => body.key.child(index + 1),
            None => body.key.clone(),
        };
        children.push(Child { lineage, key, value });
    }
    Ok(children)
}

/// Renders a `key:`.
pub fn render_key(template: &crate::lang::Template, facts: &Facts) -> Result<Key, Failure> {
    let text = template.render(facts).map_err(|error| Failure::new(Class::Data, format!("`key`: {error}")))?;
    Key::parse(&text).map_err(|error| Failure::new(Class::Data, format!("`key`: {error}")))
}

/// Hands values to every reader. In a cancelled run the inboxes are closed, and what did not go in is settled by its drop.
pub async fn deliver(run: &Arc<RunState>, place: u16, children: Vec<Child>) {
    let readers = &run.plan(place).readers;
    for child in children {
        if let Some(tap) = run.tap_of(place) {
            let sent = async {
                // It fails when nobody reads any more.
                let _ = tap.send((*child.value).clone()).await;
            };
            let cancelled = async {
                run.cancel.wait().await;
            };
            sent.or(cancelled).await;
        }
        for reader in readers {
            if run.plan(*reader).is_gather() || !run.is_wanted(*reader) {
                continue;
            }
            let token = Token::arrive(run, *reader, child.lineage.clone(), child.key.clone(), child.value.clone());
            token.send(run).await;
        }
    }
}
