//! A source: its first action lists, the later ones complete each value, and what comes out becomes items.

use super::{
    chain::{self, Dry, Within},
    guard::{Alarms, Guarded, guard},
    state::{Cut, CutWatch, End, RunState, null},
    worker::{Child, deliver, end_stage, render_key},
};
use crate::{
    action::{Acted, Checked, Handed, ItemContext, Line, Out, Stop},
    flow::{Inbox, Refused, Slot},
    item::{Class, Failure, Key, Lineage, Outcome, Value},
    lang::Facts,
    limits::{BATCH_AGE, BATCH_ROWS, LISTED_AHEAD},
    store::{Claim, StoreError},
    world::{
        failpoint::{Point, pass},
        plant::{Bug, planted},
    },
};
use futures_lite::{FutureExt, future::zip};
use log::Level;
use std::{
    pin::pin,
    sync::{Arc, atomic::Ordering},
};

/// Where items go whose place in the listing is taken, by one that stood there when an earlier pass listed: behind all others.
const BEHIND_ALL: u64 = 1 << 62;

/// One thing that a listing gave.
enum Listed {
    Value(Arc<Value>),
    Bad(Box<Failure>),
}

/// How many values are listed ahead, and taken in at a time: in a run that is kept as many as one commit takes.
fn batch(run: &RunState) -> usize {
    if run.kept.is_some() { BATCH_ROWS } else { LISTED_AHEAD }
}

/// Runs the source at `place` until its listing has ended and everything that it listed is delivered.
pub async fn run_source(run: Arc<RunState>, place: u16) {
    super::kept::feed_readers(&run, place).await;
    let stage = run.stage(place);
    if stage.listed.load(Ordering::Acquire) {
        // An earlier pass has listed it all.
        return end(&run, place);
    }
    if stage.began.settle(run.world().boot()) {
        run.note_began(place).await;
    }
    if let Some(kept) = run.kept.as_ref().filter(|_| planted(Bug::ListedEarly)) {
        let _ = kept.rows.listing_done(place).await;
    }
    let listed = Inbox::new(batch(&run));
    let list = async {
        list(&run, place, &listed).await;
        listed.close();
    };
    let take_in = async {
        take_in(&run, place, &listed).await;
        // Where it ended early the listing ends too.
        listed.close();
    };
    zip(list, take_in).await;
    if let Some(kept) = &run.kept
        && !stage.incomplete.load(Ordering::Acquire)
        && run.cancel.get().is_none()
    {
        pass(Point::ListingDoneBegins);
        if let Err(error) = kept.rows.listing_done(place).await {
            run.store_failed(&error);
        }
        pass(Point::ListingDone);
    }
    end(&run, place);
}

/// Nothing more will be listed.
fn end(run: &Arc<RunState>, place: u16) {
    if !run.leaves_unfinished(place) {
        run.stage(place).fed.store(true, Ordering::Release);
        run.check_fail_fast(place);
    }
    end_stage(run, place);
}

/// Runs the actions of the source; values go to `listed`.
async fn list(run: &Arc<RunState>, place: u16, listed: &Inbox<Listed>) {
    let (stage, plan) = (run.stage(place), run.plan(place));
    let Some((first, rest)) = plan.actions.split_first() else {
        // The hidden source of the short form: one null item.
        let _ = listed.send_with(Listed::Value(null()), |_| {}).await;
        return;
    };
    let slot = Arc::new(Slot::free(run.world().clone()));
    let context = || ItemContext::new(run.context.clone(), slot.clone(), stage.name.clone(), place);
    let waits_until = plan.deadline.map(|bound| run.world().boot() + stage.left_of(bound));
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
        listed,
        response: null(),
    };
    let mut listing = first.action.run(&cx, &facts, &mut out);
    let mut watch = CutWatch::new(run.clone(), place);
    let mut alarms = Alarms::new(run.world());
    let note_cut = || {
        if !run.limit_reached(place) {
            stage.incomplete.store(true, Ordering::Release);
            run.leave(place);
        }
    };
    let failure = match guard(listing.as_mut(), &slot, &mut watch, &mut alarms, None, plan.timeout).await {
        Guarded::Done(Ok(())) => None,
        Guarded::Done(Err(stop)) => match *stop {
            Stop::Empty => None,
            Stop::Failed { failure, .. } => Some(failure),
            Stop::Defer { .. } | Stop::PastDeadline => {
                Some(Failure::new(Class::Timeout, "a wait of the listing would have ended past the deadline"))
            }
            Stop::Cut => {
                note_cut();
                None
            }
        },
        Guarded::Panicked(message) => Some(Failure::new(Class::Panic, message)),
        Guarded::TimedOut => {
            let bound = plan.timeout.unwrap_or_default();
            Some(Failure::new(Class::Timeout, format!("the listing worked longer than its timeout of {bound:?}")))
        }
        Guarded::Cut(_) | Guarded::PastDeadline => {
            note_cut();
            None
        }
    };
    if let Some(failure) = failure {
        stage.incomplete.store(true, Ordering::Release);
        let what = format!("the listing of stage `{}` failed: {failure}", stage.name);
        run.context.journal.write(&Line::of_run(Level::Warn, &what).stage(place, &stage.name));
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
    listed: &'a Inbox<Listed>,
    response: Arc<Value>,
}

impl Listing<'_> {
    /// Waiting for the readers is no work: the timeout of the listing does not count it (RUNS T3).
    fn send(&self, item: Listed) -> Handed<'_> {
        match self.listed.try_send_with(item, |_| {}) {
            Ok(()) => Handed::now(Ok(())),
            Err(Refused::Closed(_)) => Handed::now(Err(Stop::Cut.into())),
            Err(Refused::Full(item)) => Handed::Later(Box::pin(async move {
                self.cx.slot.parked(self.listed.send_with(item, |_| {})).await.map_err(|_| Stop::Cut.into())
            })),
        }
    }

    /// The later actions of the source complete the value.
    async fn complete(&mut self, value: Arc<Value>) -> Acted {
        let mut facts = self.facts.clone();
        facts.response = self.response.clone();
        self.cx.value_place = self.index;
        self.index += 1;
        let (run, place) = (self.run, self.cx.stage_place);
        let dry = run.dry.as_ref().map(|dry| Dry { run: dry, print: dry.print_this_item(place), in_source: true });
        let is_cut = || run.cut(run.stage(place)).is_some();
        let within = Within { max_bytes: u64::MAX, fits: true, dry, is_cut: &is_cut };
        match chain::work(self.rest, &mut self.cx, &mut facts, value, within).await {
            Ok(values) => {
                for value in values {
                    self.send(listed(value)).await?;
                }
                Ok(())
            }
            Err(stop) => match *stop {
                Stop::Empty => Ok(()),
                Stop::Failed { failure, .. } => self.send(Listed::Bad(failure.into())).await,
                other => Err(other.into()),
            },
        }
    }
}

/// A value that can be an item, or why it cannot.
fn listed(value: Arc<Value>) -> Listed {
    match chain::too_deep(&value) {
        None => Listed::Value(value),
        Some(failure) => Listed::Bad(failure.into()),
    }
}

impl Out for Listing<'_> {
    fn hand(&mut self, value: Arc<Value>) -> Handed<'_> {
        if self.run.limit_reached(self.cx.stage_place) {
            return Handed::now(Err(Stop::Cut.into()));
        }
        if chain::json_bytes(&value) > self.max_value {
            let message = "a listed value has more bytes of JSON than `max_value` allows";
            return self.send(Listed::Bad(Failure::new(Class::TooLarge, message).into()));
        }
        if self.rest.is_empty() {
            return self.send(listed(value));
        }
        Handed::Later(Box::pin(self.complete(value)))
    }

    fn bad(&mut self, failure: Failure) -> Handed<'_> {
        self.send(Listed::Bad(failure.into()))
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
async fn take_in(run: &Arc<RunState>, place: u16, listed: &Inbox<Listed>) {
    let mut ordinal = 0;
    let mut aside = Aside::new(run, place);
    let watch = CutWatch::new(run.clone(), place);
    let (mut taken, most) = (Vec::new(), batch(run));
    while let Some(first) = listed.drain().await {
        taken.push(first);
        fill(run, listed, &mut taken, most).await;
        let mut named = name(run, place, taken.drain(..), &mut ordinal);
        let claims = async {
            aside.put(run, place, &mut named).await?;
            claim(run, place, &named).await
        };
        let claims = match claims.await {
            Ok(claims) => claims,
            Err(error) => {
                run.store_failed(&error);
                run.stage(place).incomplete.store(true, Ordering::Release);
                return;
            }
        };
        let mut claims = claims.into_iter();
        let mut kept = Vec::new();
        for item in named {
            if watch.now().is_some_and(|cut| cut != Cut::Closed) {
                // What was listed and is not taken in any more has no row: the counts are "at least".
                run.stage(place).incomplete.store(true, Ordering::Release);
                run.leave(place);
                return;
            }
            if run.limit_reached(place) {
                return;
            }
            // Those without a key of their own claim none: they are unique by construction.
            let claim = claims.next().unwrap_or(Claim::Mine);
            if !settle(run, place, &item, claim).await {
                continue;
            }
            match &run.kept {
                Some(_) => kept.push(item.child),
                None => deliver(run, place, [item.child]).await,
            }
        }
        // What is listed is on the disk before it is worked on: a resumed run sees the same items (RUNS S2).
        if let Some(of) = run.kept.as_ref().filter(|_| !kept.is_empty()) {
            pass(Point::ListedBegins);
            if let Err(error) = of.rows.flush().await {
                run.store_failed(&error);
                return;
            }
            pass(Point::Listed);
            for child in kept {
                deliver(run, place, [child]).await;
            }
        }
    }
}

/// Takes what else has been listed. In a run that is kept it waits a moment for more: each batch is a commit.
async fn fill(run: &RunState, listed: &Inbox<Listed>, taken: &mut Vec<Listed>, most: usize) {
    listed.take_all(taken, most);
    if run.kept.is_none() {
        return;
    }
    let mut time = pin!(run.world().sleep(BATCH_AGE));
    while taken.len() < most {
        let more = async { Some(listed.drain().await) };
        let over = async {
            time.as_mut().await;
            None
        };
        match more.or(over).await {
            Some(Some(next)) => taken.push(next),
            Some(None) | None => return,
        }
    }
}

/// A listing that is read again gives its items the places that they had, so that it names them as before. Where another
/// item has the place, because the listing has changed since, the new one goes behind all (RUNS S3).
struct Aside {
    /// The next place behind all; `None` where no earlier pass has listed, or the place is the key.
    next: Option<u64>,
}

impl Aside {
    fn new(run: &RunState, place: u16) -> Aside {
        let first_free = run.stage(place).first_ordinal.load(Ordering::Acquire);
        let is_again = first_free > 0 && run.plan(place).key.is_some();
        Aside { next: is_again.then(|| first_free.max(BEHIND_ALL)) }
    }

    async fn put(&mut self, run: &RunState, place: u16, named: &mut [Named]) -> Result<(), StoreError> {
        let Some(next) = &mut self.next else { return Ok(()) };
        let lineages = named.iter().map(|item| item.child.lineage.clone()).collect();
        let taken = run.rows().await?.settled(place, lineages).await?;
        for (item, _) in named.iter_mut().zip(taken).filter(|(_, taken)| *taken) {
            item.child.lineage = Lineage::listed(place, *next);
            *next += 1;
        }
        Ok(())
    }
}

/// A listed value with its identity and its name.
struct Named {
    /// Its place in this reading of the listing, from 0.
    at: u64,
    child: Child,
    /// Why it cannot be an item; its value is null then.
    bad: Option<Box<Failure>>,
}

fn name(run: &RunState, place: u16, batch: impl ExactSizeIterator<Item = Listed>, ordinal: &mut u64) -> Vec<Named> {
    let mut named = Vec::with_capacity(batch.len());
    for listed in batch {
        let at = *ordinal;
        *ordinal += 1;
        let lineage = Lineage::listed(place, at);
        let nameless = |failure| (Key::nameless(at), null(), Some(failure));
        let (key, value, bad) = match (listed, &run.plan(place).key) {
            (Listed::Bad(failure), _) => nameless(failure),
            (Listed::Value(value), None) => (Key::ordinal(at), value, None),
            (Listed::Value(value), Some(template)) => {
                let facts = Facts::new(value.clone(), Key::ordinal(at), run.facts.clone());
                match render_key(template, &facts) {
                    Ok(key) => (key, value, None),
                    Err(failure) => nameless(failure.into()),
                }
            }
        };
        if bad.is_some() || run.options.wants(key.as_str()) {
            named.push(Named { at, child: Child { lineage, key, value }, bad });
        }
    }
    named
}

/// Claims the keys of a batch; nothing where the items have no key of their own and no later pass will ask for them.
async fn claim(run: &RunState, place: u16, named: &[Named]) -> Result<Vec<Claim>, StoreError> {
    if (run.plan(place).key.is_none() && run.kept.is_none()) || planted(Bug::DuplicateKey) {
        return Ok(Vec::new());
    }
    let keys = named.iter().filter(|item| item.bad.is_none());
    let keys = keys.map(|Named { child, .. }| (child.key.clone(), child.lineage.clone())).collect();
    let mut claims = run.rows().await?.claim_keys(place, keys).await?.into_iter();
    Ok(named
        .iter()
        .map(|item| if item.bad.is_none() { claims.next().unwrap_or(Claim::Mine) } else { Claim::Mine })
        .collect())
}

/// Settles what was listed as an item of the source; `true` when it goes on to the readers.
async fn settle(run: &Arc<RunState>, place: u16, item: &Named, claim: Claim) -> bool {
    if let Claim::Known { .. } = claim {
        // An earlier pass listed it: it is counted and worked on from its row.
        return false;
    }
    run.arrive(place);
    let Named { at, child: Child { lineage, key, value }, bad } = item;
    let end =
        |outcome, message| End { lineage, key, outcome, attempts: 1, message, has_row: false, by: None, took_ms: None };
    if let Some(failure) = bad {
        let end = end(Outcome::Failed(failure.class), Some(&failure.message));
        run.settle(place, end, Vec::new()).await;
        return false;
    }
    if let Claim::Taken { lineage: first, .. } = claim {
        let first = match first.ordinal() {
            BEHIND_ALL.. => "of one before it".to_owned(),
            ordinal => format!("of item {}", ordinal + 1),
        };
        let message = format!("item {} of the listing has the key `{key}` {first}: the first one keeps it", at + 1);
        let inputs = if run.stage(place).keep_inputs { vec![(**value).clone()] } else { Vec::new() };
        run.settle(place, end(Outcome::Failed(Class::DuplicateKey), Some(&message)), inputs).await;
        return false;
    }
    let kept = if run.stage(place).keep_values { vec![(**value).clone()] } else { Vec::new() };
    run.settle(place, end(Outcome::Ok, None), kept).await;
    true
}
