//! A worker of a stage: pull, work, settle, deliver, again.

use super::{
    chain::{self, Dry, Within},
    guard::{Alarms, Guarded, guard},
    pool::SlotPool,
    state::{Cut, CutWatch, OwnTally, RunState, StageState, null},
    token::{Done, Token},
};
use crate::{
    action::{ItemContext, Line, Stop},
    flow::{Group, ItemBound, PullEnd, Slot, WaitRefused},
    item::{Class, Failure, Key, Lineage, Outcome, Value},
    job::Stage,
    lang::{Facts, Group as GroupFacts},
    limits::READY_ITEMS_BEFORE_YIELD,
    store::{Row, RowEnd, StoreError},
    world::{
        Boot,
        failpoint::{Point, pass},
        plant::{Bug, planted},
    },
};
use futures_lite::{
    FutureExt,
    future::{poll_once, yield_now},
};
use log::Level;
use std::{
    pin::pin,
    sync::{Arc, PoisonError, atomic::Ordering},
};

/// Runs the stage at `place` until its inbox has ended and nothing waits in the store any more; afterwards every item that
/// arrived is settled.
pub async fn run_stage(run: Arc<RunState>, place: u16) {
    let stage = run.stage(place).clone();
    super::kept::feed_readers(&run, place).await;
    let group = Group::new(run.world().clone());
    let pool = SlotPool::new(&run, place, &group);
    pool.start();
    join(&run, place, &group).await;
    while stage.deferred.load(Ordering::Acquire) > 0 && !run.is_stopping() {
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
    pass(Point::StageEnds);
    let (stage, plan) = (run.stage(place), run.plan(place));
    stage.inbox.close();
    while let Some(token) = stage.inbox.try_take() {
        drop(token);
    }
    let unfinished = run.leaves_unfinished(place);
    let (arrived, settled) = (stage.arrived.load(Ordering::Acquire), stage.settled() + stage.left_open());
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
    if whole && arrived < plan.min_items && run.cancel.get().is_none() && !unfinished {
        run.note_broken(format!(
            "too_few_items: stage `{}` had {arrived} items, and `min_items` is {}",
            stage.name, plan.min_items
        ));
    }
    for reader in &plan.readers {
        if stage.incomplete.load(Ordering::Acquire) && !planted(Bug::IncompleteForgotten) {
            run.stage(*reader).incomplete.store(true, Ordering::Release);
        }
        if !run.plan(*reader).is_gather() && !unfinished {
            feed_ended(run, *reader);
        }
    }
    let counts = stage.snapshot();
    if !plan.hidden {
        let missing = counts.missing();
        let fields: [(&str, &dyn std::fmt::Display); 4] =
            [("items", &counts.items), ("ok", &counts.ok), ("empty", &counts.empty), ("missing", &missing)];
        let text = if unfinished { "stage stopped" } else { "stage ended" };
        run.context.journal.write(&Line::of_run(Level::Info, text).stage(place, &stage.name).with(&fields));
    }
    stage.ended.settle(run.ran());
    pass(Point::StageEnded);
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
    let mut worker = Worker::new(&run, place, Some(pool));
    let stage = run.stage(place).clone();
    // The permit of the item before is still held.
    let mut holds = false;
    let mut ready_in_a_row = 0;
    loop {
        if let Some(cut) = worker.watch.now() {
            if holds {
                stage.permits.release_working();
            }
            if cut == Cut::Closed {
                drain(&run, place, &mut worker.watch).await;
            }
            return;
        }
        // What is ready is taken one after the other on the same permit, without a word to anybody.
        let at_once = if holds && stage.permits.may_go_on() { stage.inbox.try_take() } else { None };
        let token = match at_once {
            Some(token) => token,
            None => {
                worker.forget();
                match worker.pull(&run, std::mem::take(&mut holds)).await {
                    Pulled::Token(token) => token,
                    Pulled::Again => continue,
                    Pulled::End => return,
                }
            }
        };
        holds = worker.item(&run, token).await;
        ready_in_a_row += 1;
        if ready_in_a_row >= READY_ITEMS_BEFORE_YIELD {
            ready_in_a_row = 0;
            yield_now().await;
        }
    }
}

/// What came of waiting for an item.
enum Pulled {
    /// One, with a working permit.
    Token(Token),
    /// Something has changed.
    Again,
    /// The inbox is closed and empty.
    End,
}

/// A closed stage goes on pulling and settles each item without running it.
async fn drain(run: &Arc<RunState>, place: u16, watch: &mut CutWatch) {
    let stage = run.stage(place).clone();
    loop {
        let cancelled = async {
            while watch.now() == Some(Cut::Closed) {
                let listener = stage.attention.listen();
                if watch.now() != Some(Cut::Closed) {
                    break;
                }
                listener.await;
            }
            None
        };
        match stage.inbox.drain().or(cancelled).await {
            Some(_) if planted(Bug::ClosedStopsPulling) => return,
            Some(mut token) => token.settle_not_reached(run).await,
            None => return,
        }
    }
}

/// The means of one worker, used for one item after the other.
pub struct Worker {
    place: u16,
    cx: ItemContext,
    slot: Arc<Slot>,
    /// What the actions see, filled anew for each item; its item is null between two items.
    facts: Facts,
    /// See [`Worker::latest_wait`], once the stage has begun.
    latest: Option<Option<Boot>>,
    tally: OwnTally,
    watch: CutWatch,
    alarms: Alarms,
    pool: Option<SlotPool>,
}

/// How an item came out of its attempts.
enum Worked {
    Gave(chain::Values),
    Failed(Failure),
    Ended(Outcome),
    /// A stop has cut it.
    LeftOpen,
    Deferred {
        until: Boot,
        attempts: u32,
    },
}

impl Worked {
    fn cut(cut: &Cut) -> Worked {
        cut.outcome().map_or(Worked::LeftOpen, Worked::Ended)
    }
}

impl Worker {
    pub fn new(run: &Arc<RunState>, place: u16, pool: Option<SlotPool>) -> Worker {
        let (stage, plan) = (run.stage(place), run.plan(place));
        let world = run.world();
        let slot = Arc::new(Slot::new(world.clone(), stage.permits.clone(), !plan.ordered));
        let cx = ItemContext::new(run.context.clone(), slot.clone(), stage.name.clone(), place);
        let facts = Facts {
            item: null(),
            value: null(),
            key: Key::all(),
            run: run.facts.clone(),
            state: null(),
            response: null(),
            group: None,
        };
        let watch = CutWatch::new(run.clone(), place);
        let tally = OwnTally::new(stage);
        Worker { place, cx, slot, facts, latest: None, tally, watch, alarms: Alarms::new(world), pool }
    }

    /// Waits for an item as an idle worker; `holds` the permit of the item before.
    async fn pull(&mut self, run: &Arc<RunState>, holds: bool) -> Pulled {
        let stage = run.stage(self.place);
        let permits = &stage.permits;
        if !(holds && permits.keep_for_next()) {
            let fresh = async {
                permits.acquire_fresh().await;
                true
            };
            let cut = async {
                self.watch.cut().await;
                false
            };
            if !fresh.or(cut).await {
                return Pulled::Again;
            }
        }
        let pull = async { Some(stage.inbox.pull(permits).await) };
        let cut = async {
            self.watch.cut().await;
            None
        };
        let (mut token, mut has_permit) = match pull.or(cut).await {
            None | Some(Err(PullEnd::Revoked)) => return Pulled::Again,
            Some(Err(PullEnd::Closed)) => return Pulled::End,
            Some(Ok(pulled)) => pulled,
        };
        if !has_permit {
            let back = async {
                permits.acquire_returning().await;
                true
            };
            let cut = async {
                self.watch.cut().await;
                false
            };
            has_permit = back.or(cut).await;
        }
        // What is cut before it was begun is not begun: a closed stage names it, a cancelled run counts it.
        if let Some(cut) = self.watch.now() {
            if has_permit {
                permits.release_working();
            }
            if cut == Cut::Closed {
                token.settle_not_reached(run).await;
            }
            return Pulled::Again;
        }
        Pulled::Token(token)
    }

    /// Lets go of what belonged to the item before.
    fn forget(&mut self) {
        (self.facts.value, self.facts.response, self.facts.group) = (null(), null(), None);
    }

    /// Works on one item that was pulled with a working permit, from its first attempt until it is settled and delivered.
    /// Returns whether the worker still holds that permit.
    pub async fn item(&mut self, run: &Arc<RunState>, mut token: Token) -> bool {
        token.take();
        if run.kept.is_some() {
            token.body_mut().taken_at = Some(run.world().boot());
        }
        self.tally.set_open(true);
        let stage = run.stage(self.place);
        let latest = match self.latest {
            Some(latest) => latest,
            None => {
                if !stage.began.is_settled() && stage.began.settle(run.world().boot()) {
                    // Boxed, as all that comes rarely: every worker would hold the room for it.
                    Box::pin(run.note_began(self.place)).await;
                }
                *self.latest.insert(self.latest_wait(run))
            }
        };
        let (body, slot) = (token.body(), &*self.slot);
        slot.begin_item(latest, body.carried);
        match (body.item_deadline, run.plan(self.place).item_deadline) {
            (Some(at), _) => slot.bound_item(ItemBound::Until(at)),
            (None, Some(bound)) => slot.bound_item(ItemBound::For(bound)),
            (None, None) => {}
        }
        self.cx.key = Some(body.key.clone());
        self.cx.lineage = body.lineage.clone();
        if run.kept.is_some() && (run.job.keeps || run.plan(self.place).holds) {
            let cut = async {
                self.watch.cut_at_work().await;
                Ok(null())
            };
            match Box::pin(begin(run, self.place, &token).or(cut)).await {
                Ok(state) => self.facts.state = state,
                // The run is cancelled, so that no attempt begins.
                Err(error) => run.store_failed(&error),
            }
        }
        // While it is worked on its value is in the facts, not counted once more.
        std::mem::swap(&mut self.facts.item, &mut token.body_mut().value);
        pass(Point::EffectBegins);
        let worked = self.attempts(run, &token).await;
        pass(Point::EffectDone);
        std::mem::swap(&mut self.facts.item, &mut token.body_mut().value);
        let attempts = self.slot.attempts();
        let order = token.body_mut().order.take();
        let delivery = match worked {
            Worked::Gave(values) if values.is_empty() => {
                if let Some(value) = self.kept().take() {
                    keep(run, &token, *value).await;
                }
                token.settle(run, self.done(Outcome::Empty, attempts, None), Vec::new()).await;
                Delivery::Done
            }
            Worked::Gave(values) => self.settle_ok(run, token, attempts, values).await,
            Worked::Failed(failure) => {
                let done = self.done(Outcome::Failed(failure.class), attempts, Some(&failure.message));
                token.settle(run, done, Vec::new()).await;
                Delivery::Done
            }
            Worked::Ended(outcome) => {
                token.settle(run, self.done(outcome, attempts, None), Vec::new()).await;
                Delivery::Done
            }
            Worked::LeftOpen => {
                drop(token);
                Delivery::Done
            }
            Worked::Deferred { until, attempts } => {
                Box::pin(self.defer(run, token, until, attempts)).await;
                Delivery::Done
            }
        };
        pass(Point::ItemSettled);
        let held = self.slot.end_item();
        self.tally.set_open(false);
        if let Some(order) = order {
            if held && !planted(Bug::PermitNotReturned) {
                stage.permits.release_working();
            }
            if let Some(pool) = &self.pool {
                // Others work meanwhile: what is done and waits for its turn is open, as what waits for a retry is.
                pool.add_if_spare();
            }
            order.turn().or(run.takes_no_more()).await;
            delivery.finish(run, self.place).await;
            return false;
        }
        let delivery = match delivery.start(run) {
            Delivery::Done => return held,
            delivery => delivery,
        };
        let mut delivery = pin!(delivery.finish(run, self.place));
        if poll_once(&mut delivery).await.is_some() {
            return held;
        }
        // What waits for room behind it does no work: items that come back from a wait may need its permit, and the room
        // may need them (two stages on one service).
        if held && planted(Bug::DeliveryKeepsPermit) {
            delivery.await;
            return held;
        }
        if held {
            stage.permits.release_working();
        }
        self.forget();
        delivery.await;
        false
    }

    fn done<'a>(&'a self, outcome: Outcome, attempts: u32, message: Option<&'a str>) -> Done<'a> {
        Done { outcome, attempts, message, by: Some(&self.tally) }
    }

    /// What `Keep` gave in this attempt.
    fn kept(&mut self) -> &mut Option<Box<Value>> {
        self.cx.kept.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// The end of the last wait that an item may begin, without its own deadline: the earlier of the stage's and the run's.
    fn latest_wait(&self, run: &RunState) -> Option<Boot> {
        let (stage, plan) = (run.stage(self.place), run.plan(self.place));
        let of_stage = plan.deadline.and_then(|bound| stage.began.get().map(|began| *began + stage.left_of(bound)));
        let behind_gather =
            plan.is_gather() || run.job.ancestors(self.place).iter().any(|at| run.plan(*at).is_gather());
        let of_run = run.context.deadline.map(|at| if behind_gather { at + run.context.grace } else { at });
        let bounds = [of_stage, of_run].into_iter().flatten();
        if planted(Bug::ChildLengthens) { bounds.max() } else { bounds.min() }
    }

    /// The stage's own retry around the whole list of actions (RUNS T1).
    async fn attempts(&mut self, run: &Arc<RunState>, token: &Token) -> Worked {
        let (plan, stage) = (run.plan(self.place), run.stage(self.place));
        let most = plan.retry.as_ref().map_or(1, |retry| retry.max_attempts);
        let mut attempt = if plan.retry.is_some() { self.slot.take_carried() } else { 0 };
        let print = run.dry.as_ref().is_some_and(|dry| dry.print_this_item(self.place));
        loop {
            attempt += 1;
            self.cx.attempt = attempt;
            self.slot.begin_attempt();
            *self.kept() = None;
            if let Some(cut) = self.watch.at_work() {
                return Worked::cut(&cut);
            }
            self.see(run, token);
            let dry = run.dry.as_ref().map(|dry| Dry { run: dry, print, in_source: false });
            let (max_bytes, fits) = (plan.max_value, stage.inputs_fit);
            let bounds_of_work = Within { max_bytes, fits, dry, is_cut: &|| run.cut_work(stage).is_some() };
            // The work is gone before what came of it is looked at.
            let guarded = {
                let Worker { cx, facts, slot, watch, alarms, pool, .. } = &mut *self;
                let value = facts.item.clone();
                let work = pin!(chain::work(&plan.actions, cx, facts, value, bounds_of_work));
                guard(work, slot, watch, alarms, pool.as_ref(), plan.timeout).await
            };
            let failure = match guarded {
                Guarded::Done(Ok(values)) => {
                    self.slot.count_attempts(attempt);
                    // What came in was looked at where it was made.
                    let made = |value: &&Arc<Value>| !Arc::ptr_eq(value, &self.facts.item);
                    let given = if plan.readers.is_empty() { &[][..] } else { &values };
                    let wrong = given.iter().filter(made).find_map(|value| chain::too_deep(value));
                    return match wrong.or_else(|| self.kept().as_deref().and_then(chain::too_deep)) {
                        None => Worked::Gave(values),
                        Some(failure) => Worked::Failed(failure),
                    };
                }
                Guarded::Done(Err(stop)) => match *stop {
                    Stop::Empty => {
                        self.slot.count_attempts(attempt);
                        return Worked::Gave(chain::Values::new());
                    }
                    Stop::Failed { failure, given_up } => {
                        self.slot.count_attempts(attempt);
                        if (given_up && !planted(Bug::RetriesGivenUp)) || !retried_by_a_stage(failure.class) {
                            return Worked::Failed(failure);
                        }
                        failure
                    }
                    Stop::Defer { wait, attempts } => {
                        let until = run.world().boot() + wait;
                        return Worked::Deferred { until, attempts };
                    }
                    Stop::PastDeadline => return Worked::Ended(Outcome::TimedOut),
                    Stop::Cut => {
                        return self.watch.now().map_or(Worked::Ended(Outcome::Cancelled), |cut| Worked::cut(&cut));
                    }
                },
                Guarded::Panicked(message) => {
                    self.slot.count_attempts(attempt);
                    return Worked::Failed(Failure::new(Class::Panic, message));
                }
                Guarded::Cut(cut) => return Worked::cut(&cut),
                Guarded::PastDeadline => {
                    self.left_behind(run, token).await;
                    return Worked::Ended(Outcome::TimedOut);
                }
                Guarded::TimedOut => {
                    self.slot.count_attempts(attempt);
                    self.left_behind(run, token).await;
                    let bound = plan.timeout.unwrap_or_default();
                    Failure::new(Class::Timeout, format!("the attempt worked longer than its timeout of {bound:?}"))
                }
            };
            let Some(retry) = plan.retry.as_ref().filter(|_| attempt < most) else { return Worked::Failed(failure) };
            let wait = retry.backoff(attempt, run.world());
            let until = run.world().boot() + wait;
            let waited = {
                let Worker { slot, watch, alarms, pool, .. } = &mut *self;
                guard(pin!(slot.wait(wait)), slot, watch, alarms, pool.as_ref(), None).await
            };
            match waited {
                Guarded::Done(Ok(())) => {}
                Guarded::Done(Err(WaitRefused::PastDeadline)) | Guarded::PastDeadline => {
                    return Worked::Failed(failure);
                }
                Guarded::Done(Err(WaitRefused::Defer(_))) => return Worked::Deferred { until, attempts: attempt },
                // Between two attempts nothing is under way: it goes on waiting in the store.
                Guarded::Cut(Cut::Stopped) if !plan.ordered => return Worked::Deferred { until, attempts: attempt },
                Guarded::Cut(cut) => return Worked::cut(&cut),
                Guarded::Panicked(message) => return Worked::Failed(Failure::new(Class::Panic, message)),
                Guarded::TimedOut => unreachable!("a wait has no timeout"),
            }
        }
    }

    /// Waits until the processes of a cut attempt are gone, keeping the permit, as long as the stage goes on (RUNS T6).
    async fn left_behind(&mut self, run: &RunState, token: &Token) {
        let gone = run.context.leftovers.gone((self.place, token.body().lineage.clone()));
        let cut = async {
            self.watch.cut().await;
        };
        gone.or(cut).await;
    }

    /// Fills the facts with the item, as its first action sees them.
    fn see(&mut self, run: &RunState, token: &Token) {
        let (body, facts) = (token.body(), &mut self.facts);
        facts.key = body.key.clone();
        if !facts.response.is_null() {
            facts.response = null();
        }
        if run.plan(self.place).is_gather() {
            let group = super::gather::StoredGroup::of(run, self.place, body.group.clone());
            facts.group = group.map(|group| Arc::new(group) as Arc<dyn GroupFacts>);
        }
    }

    /// All actions are done: names what was given, settles, and says what is to be delivered.
    async fn settle_ok(
        &mut self,
        run: &Arc<RunState>,
        mut token: Token,
        attempts: u32,
        mut values: chain::Values,
    ) -> Delivery {
        let (plan, stage) = (run.plan(self.place), run.stage(self.place));
        if plan.key.is_none() && run.options.key.is_none() && run.tap_of(self.place).is_none() {
            let one_for_one = matches!((&*values, &*stage.feeds), ([_], [_]));
            if one_for_one || stage.feeds.is_empty() {
                // Most items give one value for one reader, which keeps lineage and key, or are the last of their line.
                if let Some(value) = self.kept().take() {
                    keep(run, &token, *value).await;
                }
                let done = self.done(Outcome::Ok, attempts, None);
                if !token.settle_now(run, &done) {
                    token.settle(run, done, kept(stage, values.iter())).await;
                }
                return match (stage.feeds.first(), values.pop()) {
                    (Some(reader), Some(value)) => Delivery::Same { token, reader: *reader, value },
                    _ => Delivery::Done,
                };
            }
        }
        let children = match children(run, plan, &token.body().lineage, &token.body().key, values) {
            Ok(children) => children,
            Err(failure) => {
                let done = self.done(Outcome::Failed(failure.class), attempts, Some(&failure.message));
                token.settle(run, done, Vec::new()).await;
                return Delivery::Done;
            }
        };
        let children = self.wanted(run, children);
        if let Some(value) = self.kept().take() {
            keep(run, &token, *value).await;
        }
        let kept = kept(stage, children.iter().map(|child| &child.value));
        token.settle(run, self.done(Outcome::Ok, attempts, None), kept).await;
        Delivery::Children(children)
    }

    /// Only what `--key` asks for. Behind a gather keys are texts of groups, which it does not mean.
    fn wanted(&self, run: &RunState, mut children: Vec<Child>) -> Vec<Child> {
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
    async fn defer(&mut self, run: &RunState, token: Token, until: Boot, attempts: u32) {
        let body = token.body();
        let millis = |at: Boot| u64::try_from(at.0.as_millis()).unwrap_or(u64::MAX);
        let row = Row {
            stage: self.place,
            lineage: body.lineage.clone(),
            key: body.key.clone(),
            end: RowEnd::Retry { at_ms: millis(until), deadline_ms: self.slot.own_deadline().map(millis) },
            attempts,
            message: body.group.clone(),
            values: vec![(*body.value).clone()],
            took_ms: None,
        };
        let put = async {
            let rows = run.rows().await?;
            if planted(Bug::DeferredRowLost) { Ok(()) } else { rows.put(row).await }
        };
        pass(Point::DeferBegins);
        match put.await {
            Ok(()) => {
                pass(Point::Deferred);
                token.into_deferred(run);
            }
            Err(error) => {
                run.store_failed(&error);
                drop(token);
            }
        }
    }
}

/// What comes before an item's first action in a run that is kept: the mark of one that must not be repeated, and what earlier dues kept for it.
async fn begin(run: &RunState, place: u16, token: &Token) -> Result<Arc<Value>, StoreError> {
    if run.plan(place).holds {
        pass(Point::HoldBegins);
        token.start(run).await?;
        pass(Point::Held);
    }
    run.state_of(&token.body().key).await
}

/// Stores what `Keep` gave, before the row of its item.
async fn keep(run: &RunState, token: &Token, value: Value) {
    if let Err(error) = run.keep(&token.body().key, value).await {
        run.store_failed(&error);
    }
    pass(Point::ValueKept);
}

/// What goes into the row of an ok item.
fn kept<'a>(stage: &StageState, values: impl Iterator<Item = &'a Arc<Value>>) -> Vec<Value> {
    if stage.keep_values { values.map(|value| (**value).clone()).collect() } else { Vec::new() }
}

/// Which failures of actions without a service the stage's own retry repeats (RUNS T1).
fn retried_by_a_stage(class: Class) -> bool {
    matches!(class, Class::Exit | Class::Timeout | Class::Transport | Class::Call)
}

/// A value on its way to the readers of a stage.
pub struct Child {
    pub lineage: Lineage,
    pub key: Key,
    pub value: Arc<Value>,
}

/// What an item gave, on its way to the readers of its stage.
pub enum Delivery {
    /// There is nothing more to do.
    Done,
    /// One value for one reader: the settled item goes on with it.
    Same { token: Token, reader: u16, value: Arc<Value> },
    /// An item of the next stage that waits for room.
    Waiting(Token),
    /// Values for whoever reads them.
    Children(Vec<Child>),
}

impl Delivery {
    /// What can be done at once, without waiting for room.
    fn start(self, run: &RunState) -> Delivery {
        match self {
            Delivery::Same { token, reader, value } => {
                token.pass_on(run, reader, value).try_send(run).map_or(Delivery::Done, Delivery::Waiting)
            }
            Delivery::Children(children) if children.is_empty() => Delivery::Done,
            delivery => delivery,
        }
    }

    /// Hands it to every reader. In a cancelled run the inboxes are closed, and what did not go in is settled by its drop.
    pub async fn finish(self, run: &Arc<RunState>, place: u16) {
        match self.start(run) {
            Delivery::Waiting(token) => token.send(run).await,
            Delivery::Children(children) => deliver(run, place, children).await,
            Delivery::Done | Delivery::Same { .. } => {}
        }
    }
}

/// Lineage and key of each value that an item gave (RUNS K1, K2).
pub fn children(
    run: &RunState,
    plan: &Stage,
    of: &Lineage,
    named: &Key,
    values: chain::Values,
) -> Result<Vec<Child>, Failure> {
    let several = values.len() > 1;
    let mut parts = std::collections::BTreeSet::new();
    let mut children = Vec::with_capacity(values.len());
    for (index, value) in values.into_iter().enumerate() {
        let lineage = if several { of.child(index as u32) } else { of.clone() };
        let key = match &plan.key {
            Some(template) => {
                let facts = Facts::new(value.clone(), named.clone(), run.facts.clone());
                let part = render_key(template, &facts)?;
                if !parts.insert(part.clone()) {
                    let message = format!("two values of the item have the same `key` `{part}`");
                    return Err(Failure::new(Class::DuplicateKey, message));
                }
                named.join(&part)
            }
            None if several => named.child(index + 1),
            None => named.clone(),
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

/// Hands values to every reader of the stage at `place`.
pub async fn deliver(run: &Arc<RunState>, place: u16, children: impl IntoIterator<Item = Child>) {
    for Child { lineage, key, value } in children {
        if let Some(tap) = run.tap_of(place) {
            let sent = async {
                // It fails when nobody reads any more.
                let _ = tap.send((*value).clone()).await;
            };
            let cancelled = async {
                run.cancel.wait().await;
            };
            sent.or(cancelled).await;
        }
        let Some((last, others)) = run.stage(place).feeds.split_last() else { continue };
        for reader in others {
            offer(run, Token::arrive(run, *reader, lineage.clone(), key.clone(), value.clone())).await;
        }
        offer(run, Token::arrive(run, *last, lineage, key, value)).await;
    }
}

async fn offer(run: &RunState, token: Token) {
    if let Some(token) = token.try_send(run) {
        token.send(run).await;
    }
}
