//! What every run promises, as oracles: each is named after its rule (docs/PROOF.md says what it holds) and looks at a run
//! that has ended, at what its handlers saw, and at the moments in which nothing could run.
//!
//! [`hold`] asks all of them after every run of every lab.

use super::lab::{Done, Event, Gave, Quiet, What};
use lamplighter::{
    item::{Class, Counts, RunOutcome},
    job::{Job, Stage, StageKind},
    limits::{SUMMARY_LIST_MAX, WAIT_IN_MEMORY_MAX},
    run::StageProgress,
    units::Tolerance,
};
use std::{collections::BTreeMap, time::Duration};

type Oracle = fn(&Done) -> Result<(), String>;

/// All of them, by name.
const ORACLES: [(&str, Oracle); 32] = [
    ("P9_a_dead_worker_ends_the_run", dead_worker),
    ("D4_the_first_reason_stays", first_reason),
    ("S6_a_cancel_takes_no_time", cancel_takes_no_time),
    ("P8_settled_in_time", settled_in_time),
    ("E1_settled_once", settled_once),
    ("E1_children_arrive", children_arrive),
    ("E1_delivered_once", delivered_once),
    ("E2_hand_over", hand_over),
    ("E3_order_input", order_input),
    ("E3_one_worker_keeps_the_order", one_worker),
    ("E4_incomplete_is_handed_on", incomplete),
    ("K2_one_item_for_a_key", one_item_for_a_key),
    ("K4_ok_is_what_was_done", ok_as_done),
    ("K4_every_loss_has_a_cause", causes),
    ("K5_missing_are_named", missing_named),
    ("K5_a_gather_sees_the_whole_run", gather_sees),
    ("T1_attempts_are_counted_once", attempts),
    ("T1_only_what_may_pass_is_repeated", repeated),
    ("T2_work_permits", work_permits),
    ("T2_only_work_holds_a_permit", only_work),
    ("T2_open_permits", open_permits),
    ("T2_a_free_worker_takes_the_next_item", free_workers),
    ("T2_who_comes_back_gets_a_free_permit", comes_back),
    ("T2_who_comes_back_goes_first", goes_first),
    ("T3_timeout_is_work", timeout_is_work),
    ("T3_item_deadline", item_deadline),
    ("T4_waits_are_not_cut_short", waits_are_kept),
    ("T4_no_wait_past_the_deadline", no_wait_past_deadline),
    ("E2_no_item_is_overtaken_for_long", overtaking),
    ("D1_a_closed_stage_works_no_more", closed_stage),
    ("D3_fail_fast", fail_fast),
    ("D4_outcome", outcome),
];

/// Their names, with those that are held while a run is simulated or by comparing two runs.
pub fn names() -> impl Iterator<Item = &'static str> {
    let elsewhere = [
        "P9_the_join_never_hangs",
        "P11_bounded",
        "S6_nothing_is_left",
        "K7_determinism",
        "K7_the_same_seed_is_the_same_run",
    ];
    ORACLES.iter().map(|(name, _)| *name).chain(elsewhere)
}

/// Holds all of them.
pub fn hold(done: &Done) {
    for (name, oracle) in ORACLES {
        if let Err(what) = oracle(done) {
            broken(name, &format!("{what}\n{:#?}", done.record), done.seed, &done.job);
        }
    }
}

/// Says which oracle was broken, by what, and under which seed.
pub fn broken(name: &str, what: &str, seed: u64, job: &Job) -> ! {
    panic!("oracle {name}: {what}\nseed {seed} of\n{}", job.text)
}

macro_rules! ensure {
    ($holds:expr, $($text:tt)+) => {
        if !$holds {
            return Err(format!($($text)+));
        }
    };
}

impl Done {
    /// The stages that the record shows, with what is written of them.
    fn plans(&self) -> impl Iterator<Item = (&str, &Counts, &Stage)> {
        self.record.stages.iter().map(|stage| (&*stage.name, &stage.counts, self.plan(&stage.name)))
    }

    fn plan(&self, name: &str) -> &Stage {
        &self.job.stages[usize::from(self.job.stage_place(name).expect("a stage of the job"))]
    }

    fn parents<'a>(&'a self, plan: &'a Stage) -> impl Iterator<Item = &'a Stage> {
        plan.from.iter().map(|at| &self.job.stages[usize::from(*at)]).filter(|parent| !parent.hidden)
    }

    /// Something cut it before its stages had ended.
    fn cancelled(&self) -> bool {
        let why = self.reason();
        ["cancelled by", "the deadline passed while", "the deadline of stage", "spool: "]
            .iter()
            .any(|is| why.starts_with(is))
            || why.contains("(fail_fast)")
            || self.outside_panic
    }

    /// When the awake clock stands where the boot clock reaches this, both since the start.
    fn awake_of(&self, boot: Duration) -> Duration {
        match self.slept {
            Some((at, long)) if boot > at + long => boot - long,
            Some((at, _)) if boot > at => at,
            _ => boot,
        }
    }

    /// A deadline may have closed it: its own, its readers', or the run's.
    fn may_close(&self, plan: &Stage) -> bool {
        let late = self.elapsed >= self.awake_of(self.deadline);
        (plan.on_deadline_continue && (plan.deadline.is_some() || late))
            || (plan.is_source() && late)
            || plan.readers.iter().any(|reader| self.may_close(&self.job.stages[usize::from(*reader)]))
    }

    /// What the first action of a stage did. Each attempt begins with it, where it is a handler.
    fn firsts<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Event> {
        self.events.iter().filter(move |event| event.stage == name && !event.later)
    }

    /// Stages that work with a handler first: all that is seen of an item is seen in its events.
    fn handled(&self) -> impl Iterator<Item = (&str, &Counts, &Stage)> {
        let calls = |plan: &Stage| plan.actions.iter().filter(|action| action.kind == "Call").count();
        // Further handlers say that they are that where the job was drawn.
        self.plans().filter(move |(_, _, plan)| {
            let first = plan.actions.first().is_some_and(|first| first.kind == "Call");
            !plan.is_source() && first && (calls(plan) == 1 || self.fans.is_some())
        })
    }

    /// Worker stages in which the handler is all that is done.
    fn told(&self) -> impl Iterator<Item = (&str, &Counts, &Stage)> {
        self.handled().filter(|(_, _, plan)| {
            plan.actions.len() == 1 && plan.key.is_none() && !plan.is_gather() && !self.outside_panic
        })
    }

    /// Waits of a retry are the same each time.
    fn exact(&self) -> bool {
        self.job.text.matches("Retry(").count() == self.job.text.matches("jitter: Exact").count()
    }

    fn backoff(&self, plan: &Stage, attempt: u32) -> Duration {
        plan.retry.as_ref().map_or(Duration::ZERO, |retry| retry.backoff(attempt, &self.world))
    }

    /// The first action's events of each item of a stage, in order.
    fn by_key<'a>(&'a self, name: &'a str) -> BTreeMap<&'a str, Vec<&'a Event>> {
        let mut keys: BTreeMap<&str, Vec<&Event>> = BTreeMap::new();
        for event in self.firsts(name) {
            keys.entry(&event.key).or_default().push(event);
        }
        keys
    }

    /// By how many later ones an item was overtaken at most, between the end of its work in the stage before (its place in
    /// the listing, where that is a source) and its work in `stage`.
    pub fn overtaken(&self, before: &str, stage: &str) -> usize {
        let arrived: BTreeMap<&str, Vec<u64>> = if self.plan(before).is_source() {
            self.of(stage, What::Began).filter_map(|event| Some((&*event.key, place_of(&event.key)?))).collect()
        } else {
            let ended = self.of(before, What::Ended).enumerate();
            ended.map(|(place, event)| (&*event.key, vec![place as u64])).collect()
        };
        let order: Vec<&Vec<u64>> = self.of(stage, What::Began).filter_map(|event| arrived.get(&*event.key)).collect();
        let before = |place: usize| order[..place].iter().filter(|other| **other > order[place]).count();
        (0..order.len()).map(before).max().unwrap_or_default()
    }

    /// The worker stages at each quiet moment before the end.
    fn quiet_stages(&self) -> impl Iterator<Item = (&Quiet, &StageProgress, &Stage)> {
        let all = self.quiet.iter().filter(|quiet| quiet.at < self.elapsed && !self.outside_panic);
        all.flat_map(move |quiet| quiet.stages.iter().map(move |stage| (quiet, stage, self.plan(&stage.name))))
            .filter(|(_, stage, plan)| !plan.is_source() && !stage.ended)
    }

    /// How many handlers of a stage work and how many wait for a service at a quiet moment.
    fn handlers(quiet: &Quiet, stage: &StageProgress) -> (u64, u64) {
        quiet.handlers.get(&stage.name).map_or((0, 0), |(work, wait)| (*work as u64, *wait as u64))
    }
}

/// RUNS E1: items = the sum of the outcomes, and nothing was lost.
fn settled_once(done: &Done) -> Result<(), String> {
    for (name, counts, plan) in done.plans() {
        let sum = counts.ok + counts.empty + counts.failed + counts.timed_out + counts.cancelled + counts.not_reached;
        ensure!(counts.items == sum + counts.held, "`{name}`: {} items arrived, {sum} were settled", counts.items);
        ensure!(counts.failed == counts.classes.values().sum::<u64>(), "`{name}`: failures and classes differ");
        ensure!(!counts.classes.contains_key(&Class::Lost) || done.outside_panic, "`{name}` lost items");
        let most = done.limit.filter(|_| plan.is_source()).unwrap_or(u64::MAX);
        ensure!(counts.items <= most, "`{name}` listed more than {most}");
    }
    Ok(())
}

/// RUNS E1, P18: what a stage gave arrived at each reader, closed or not; nothing else did.
fn children_arrive(done: &Done) -> Result<(), String> {
    let Some(fans) = &done.fans else { return Ok(()) };
    for (name, counts, plan) in done.plans().filter(|(_, _, plan)| matches!(plan.kind, StageKind::Worker)) {
        for parent in done.parents(plan) {
            let given = done.counts(&parent.name).ok * fans.get(&*parent.name).copied().unwrap_or(1);
            let fits = if done.cancelled() { counts.items <= given } else { counts.items == given };
            ensure!(fits, "`{name}` has {} items, and `{}` gave {given}", counts.items, parent.name);
        }
    }
    Ok(())
}

/// RUNS E1: no item is delivered twice.
fn delivered_once(done: &Done) -> Result<(), String> {
    let mut seen = std::collections::BTreeSet::new();
    for (stage, key, _) in &done.sunk {
        ensure!(seen.insert((stage, key)), "`{key}` reached `{stage}` twice");
    }
    Ok(())
}

/// RUNS E2: with `buffer: 0` only what is in the hand of its sender waits; with more, that and the buffer.
fn hand_over(done: &Done) -> Result<(), String> {
    for (quiet, stage, plan) in done.quiet_stages() {
        if !done.parents(plan).all(Stage::is_source) || plan.is_gather() {
            continue;
        }
        let waits = not_taken(stage);
        // A worker whose permit was taken away while an item was on its way to it has that in its hand.
        let in_hands = if plan.buffer == 0 { plan.workers as u64 } else { 0 };
        ensure!(
            waits <= plan.buffer as u64 + 1 + in_hands,
            "at {:?} {waits} items wait before `{}`, whose buffer is {}",
            quiet.at,
            stage.name,
            plan.buffer
        );
    }
    Ok(())
}

/// Items that have arrived and that no worker has taken.
fn not_taken(stage: &StageProgress) -> u64 {
    stage.counts.items.saturating_sub(stage.counts.settled() + stage.working + stage.waiting)
}

/// Place in the listing and in the fan-outs of an item with a key of the lab.
fn place_of(key: &str) -> Option<Vec<u64>> {
    key.split('/').map(|part| part.trim_start_matches('P').parse().ok()).collect()
}

/// RUNS E3: what an ordered stage gives leaves in the order of the listing before it.
fn order_input(done: &Done) -> Result<(), String> {
    for (name, _, plan) in done.handled() {
        for parent in done.parents(plan).filter(|parent| parent.ordered && done.parents(parent).all(Stage::is_source)) {
            in_order(done, name, plan, &parent.name)?;
        }
    }
    Ok(())
}

/// RUNS E2: one worker takes items in the order in which they were listed.
fn one_worker(done: &Done) -> Result<(), String> {
    for (name, _, plan) in done.handled() {
        for parent in done.parents(plan).filter(|parent| parent.is_source()) {
            in_order(done, name, plan, &parent.name)?;
        }
    }
    Ok(())
}

/// With one worker and nothing that comes back, items are taken as they arrive.
fn in_order(done: &Done, name: &str, plan: &Stage, parent: &str) -> Result<(), String> {
    if plan.workers != 1 || plan.retry.is_some() || plan.is_gather() {
        return Ok(());
    }
    let began = done.firsts(name).filter(|event| event.what == What::Began);
    let places: Option<Vec<Vec<u64>>> = began.map(|event| place_of(&event.key)).collect();
    let sorted = places.as_ref().is_none_or(|places| places.is_sorted());
    ensure!(sorted, "`{name}` took what `{parent}` gave in the order {places:?}");
    Ok(())
}

/// RUNS E4, D1: who reads a listing that ended before its end knows that its counts are "at least".
fn incomplete(done: &Done) -> Result<(), String> {
    for (name, counts, plan) in done.plans().filter(|_| !done.outside_panic) {
        for parent in done.parents(plan) {
            let whole = done.counts(&parent.name).complete || !counts.complete;
            ensure!(whole, "`{name}` says that it is complete, and `{}` is not", parent.name);
        }
    }
    Ok(())
}

/// RUNS K2: in a stage there is one item for a key.
fn one_item_for_a_key(done: &Done) -> Result<(), String> {
    for (name, ..) in done.handled() {
        for (key, events) in done.by_key(name) {
            let first = events.iter().filter(|event| event.what == What::Began && event.attempt == 1).count();
            ensure!(first <= 1, "`{name}` began {first} items with the key `{key}`");
        }
    }
    Ok(())
}

/// RUNS K4: an item is `ok` exactly when its action was done, whatever came in the same tick.
fn ok_as_done(done: &Done) -> Result<(), String> {
    for (name, counts, _) in done.told() {
        let given = done.firsts(name).filter(|event| event.gave == Some(Gave::Value)).count() as u64;
        ensure!(counts.ok == given, "`{name}`: {given} items were done, {} are ok", counts.ok);
    }
    Ok(())
}

/// RUNS K4, P18: what is missing was failed by its action, or cut by a bound or a cancel; nothing is dropped.
fn causes(done: &Done) -> Result<(), String> {
    for (name, counts, plan) in done.plans() {
        let (cut, closes) = (done.cancelled(), done.may_close(plan));
        ensure!(counts.cancelled == 0 || cut, "`{name}` has cancelled items in a run that was not cancelled");
        ensure!(counts.not_reached == 0 || cut || closes, "`{name}` did not reach items, and nothing closed it");
        let bounded = plan.item_deadline.is_some() || closes || cut;
        ensure!(counts.timed_out == 0 || bounded, "`{name}` has timed out items, and no deadline");
    }
    for (name, _, plan) in done.told() {
        let keys = done.by_key(name);
        for (key, class) in done.missing(name) {
            let last = keys.get(&*key).and_then(|events| events.last());
            let fits = match class.as_str() {
                "call" => last.is_some_and(|event| matches!(event.gave, Some(Gave::Retry | Gave::Nothing))),
                "panic" => last.is_some_and(|event| event.gave == Some(Gave::Panic)),
                "timeout" => last.is_some_and(|event| event.what == What::Cut && Some(event.worked) == plan.timeout),
                "timed_out" | "cancelled" | "not_reached" | "lost" => true,
                _ => false,
            };
            ensure!(fits, "`{key}` of `{name}` is `{class}`, and the last that was seen of it is {last:?}");
        }
    }
    Ok(())
}

/// RUNS K4, K5: every missing item is named once, with its class.
fn missing_named(done: &Done) -> Result<(), String> {
    let missing: u64 = done.record.stages.iter().map(|stage| stage.counts.missing()).sum();
    let named = done.record.failures.len() as u64;
    ensure!(
        named == missing.min(SUMMARY_LIST_MAX as u64) || done.outside_panic,
        "{missing} items are missing, {named} are named"
    );
    for (name, counts, _) in done.plans().filter(|_| missing <= SUMMARY_LIST_MAX as u64 && !done.outside_panic) {
        let mut classes: BTreeMap<&str, u64> = BTreeMap::new();
        for failure in done.record.failures.iter().filter(|failure| failure.stage == name) {
            *classes.entry(&failure.class).or_default() += 1;
        }
        let of = |class: &str| classes.get(class).copied().unwrap_or_default();
        let cut = (of("timed_out"), of("cancelled"), of("not_reached"));
        ensure!(cut == (counts.timed_out, counts.cancelled, counts.not_reached), "`{name}` names {classes:?}");
        for (class, count) in &counts.classes {
            ensure!(of(&class.to_string()) == *count, "`{name}` names {classes:?}, and {count} are `{class}`");
        }
    }
    Ok(())
}

/// RUNS K5: items, failures and counts that a gather is given are those of the ended stages that feed it, and no others.
fn gather_sees(done: &Done) -> Result<(), String> {
    for (name, _, value) in &done.sunk {
        let (Some(ok), Some(missing), Some(counts)) = (value.get("ok"), value.get("missing"), value.get("counts"))
        else {
            continue;
        };
        let (Some(ok), Some(missing), Some(counts), Some(fans)) =
            (ok.as_u64(), missing.as_u64(), counts.as_object(), &done.fans)
        else {
            continue;
        };
        let plan = done.plan(name);
        let given = |parent: &Stage| done.counts(&parent.name).ok * fans.get(&*parent.name).copied().unwrap_or(1);
        let expected: u64 = done.parents(plan).map(given).sum();
        ensure!(ok == expected, "`{name}` saw {ok} values of {expected}");
        let place = done.job.stage_place(name).expect("a stage");
        let above: Vec<&Stage> =
            done.job.ancestors(place).iter().map(|at| &done.job.stages[usize::from(*at)]).collect();
        let expected: u64 = above.iter().map(|stage| done.counts(&stage.name).missing()).sum();
        ensure!(missing == expected, "`{name}` saw {missing} failures of {expected}");
        let mut names: Vec<&str> = counts.keys().map(String::as_str).collect();
        let mut known: Vec<&str> = above.iter().map(|stage| &*stage.name).collect();
        names.sort_unstable();
        known.sort_unstable();
        ensure!(names == known, "`{name}` saw the counts of {names:?}, and {known:?} feed it");
        for stage in known {
            let (seen, last) = (&counts[stage], done.counts(stage));
            let same = seen["items"] == last.items && seen["ok"] == last.ok && seen["attempts"] == last.attempts;
            let same = same && seen["complete"] == last.complete && seen["not_reached"] == last.not_reached;
            ensure!(same, "`{name}` saw {seen} of `{stage}`, which ended with {last:?}");
        }
    }
    Ok(())
}

/// RUNS T1, K4: each attempt that came to an end by itself or by its timeout counts once.
fn attempts(done: &Done) -> Result<(), String> {
    for (name, counts, plan) in done.told() {
        let ended = done.firsts(name).filter(|event| event.what == What::Ended).count() as u64;
        let timeouts = done.firsts(name).filter(|event| event.what == What::Cut && Some(event.worked) == plan.timeout);
        let most = ended + timeouts.count() as u64;
        let least = if done.cancelled() || done.may_close(plan) { 0 } else { ended };
        let fits = (least..=most).contains(&counts.attempts);
        ensure!(fits, "`{name}` counts {} attempts, and {least} to {most} were made", counts.attempts);
    }
    Ok(())
}

/// RUNS T1: what was done, given up or panicked is not repeated, and nothing more often than it may be.
fn repeated(done: &Done) -> Result<(), String> {
    for (name, _, plan) in done.handled() {
        let most = plan.retry.as_ref().map_or(1, |retry| retry.max_attempts);
        for (key, events) in done.by_key(name) {
            for pair in events.windows(2) {
                let last = matches!(pair[0].gave, Some(Gave::Nothing | Gave::Panic));
                ensure!(!last || pair[1].what != What::Began, "`{key}` of `{name}` began again after {:?}", pair[0]);
            }
            let tried = events.iter().map(|event| event.attempt).max().unwrap_or_default();
            ensure!(tried <= most, "`{key}` of `{name}` was tried {tried} times, and {most} is the most");
        }
    }
    Ok(())
}

/// RUNS T2: never more than `workers` items are worked on.
fn work_permits(done: &Done) -> Result<(), String> {
    for (name, _, plan) in done.plans() {
        let most = done.most.get(name).copied().unwrap_or_default();
        ensure!(most <= plan.workers, "`{name}` worked on {most} items at once, and has {} workers", plan.workers);
    }
    let limit = done.job.text.split("max_in_flight: ").nth(1).and_then(|rest| rest.split(',').next()?.parse().ok());
    let limit: usize = limit.unwrap_or(usize::MAX);
    ensure!(done.most_admitted <= limit, "{} calls were in flight, and {limit} may be", done.most_admitted);
    Ok(())
}

/// RUNS T2: an item that waits (for a retry, a service, a timer of the run) holds no work permit. The one wait with a permit
/// (docs/DESIGN.md): a call that had to give its place in flight on.
fn only_work(done: &Done) -> Result<(), String> {
    for (quiet, stage, _) in done.quiet_stages() {
        let (work, wait) = Done::handlers(quiet, stage);
        let may_hold = if done.job.text.contains("max_in_flight: ") { wait } else { 0 };
        ensure!(
            (work..=work + may_hold).contains(&stage.working),
            "at {:?} `{}` holds {} work permits; {work} handlers work and {wait} wait",
            quiet.at,
            stage.name,
            stage.working
        );
    }
    Ok(())
}

/// RUNS T2: never more than `workers + waiting` items are open in memory.
fn open_permits(done: &Done) -> Result<(), String> {
    for (quiet, stage, plan) in done.quiet_stages() {
        let longest = if done.exact() { done.backoff(plan, 99) } else { Duration::MAX };
        let in_store = plan.retry.is_some() && !plan.ordered && longest > WAIT_IN_MEMORY_MAX;
        let (open, most) = (stage.working + stage.waiting, (plan.workers + plan.waiting) as u64);
        ensure!(open <= most || in_store, "at {:?} `{}` has {open} items open of {most}", quiet.at, stage.name);
    }
    Ok(())
}

/// RUNS T2: an item that has arrived does not wait while a worker is free and it may be opened.
fn free_workers(done: &Done) -> Result<(), String> {
    for (quiet, stage, plan) in done.quiet_stages() {
        let delivers = plan.readers.iter().any(|at| !done.job.stages[usize::from(*at)].is_gather());
        if plan.ordered || delivers || done.partly || stage.closed {
            continue;
        }
        let work = stage.working;
        let open = stage.working + stage.waiting;
        let free = work < plan.workers as u64 && open < (plan.workers + plan.waiting) as u64;
        let waits = not_taken(stage);
        ensure!(
            !free || waits == 0,
            "at {:?} {waits} items wait for `{}`, where {work} are worked on",
            quiet.at,
            stage.name
        );
    }
    Ok(())
}

/// When an item that failed at `event` may go on, if it waits in memory.
fn back_at(done: &Done, plan: &Stage, event: &Event) -> Option<Duration> {
    let retry = plan.retry.as_ref()?;
    let timed_out = event.what == What::Cut && Some(event.worked) == plan.timeout;
    if !(timed_out || event.gave == Some(Gave::Retry)) || event.attempt >= retry.max_attempts {
        return None;
    }
    let wait = done.backoff(plan, event.attempt);
    (wait <= WAIT_IN_MEMORY_MAX || plan.ordered).then(|| event.at + wait)
}

/// RUNS T2: an item whose wait is over goes on while a worker is free.
fn comes_back(done: &Done) -> Result<(), String> {
    for (quiet, stage, plan) in done.quiet_stages().filter(|(_, stage, _)| !stage.closed && done.exact()) {
        let work = stage.working;
        if work >= plan.workers as u64 || plan.actions.len() != 1 || plan.actions[0].kind != "Call" {
            continue;
        }
        for (key, events) in done.by_key(&stage.name) {
            let last = events.iter().rfind(|event| event.at <= quiet.at);
            let Some(back) = last.and_then(|last| back_at(done, plan, last)) else { continue };
            // One that would come back after its deadline has ended.
            let settled = events.last().map(|event| event.at) == last.map(|event| event.at);
            ensure!(
                back > quiet.at || settled,
                "at {:?} `{key}` of `{}` waits, it was to be back at {back:?}, and {work} are worked on",
                quiet.at,
                stage.name
            );
        }
    }
    Ok(())
}

/// RUNS T2: an item that comes back from a wait goes before new ones.
fn goes_first(done: &Done) -> Result<(), String> {
    for (name, _, plan) in done.told().filter(|_| done.exact()) {
        let new: Vec<&Event> =
            done.firsts(name).filter(|event| event.what == What::Began && event.attempt == 1).collect();
        for (key, events) in done.by_key(name) {
            for pair in events.windows(2) {
                let Some(back) = back_at(done, plan, pair[0]) else { continue };
                let late = new.iter().find(|event| back < event.at && event.at < pair[1].at);
                ensure!(
                    late.is_none(),
                    "`{key}` of `{name}` was back at {back:?} and began at {:?}, after {late:?}",
                    pair[1].at
                );
            }
        }
    }
    Ok(())
}

/// RUNS T3: a timeout counts the time of one attempt with a work permit, and no other.
fn timeout_is_work(done: &Done) -> Result<(), String> {
    for (name, _, plan) in done.told() {
        let Some(timeout) = plan.timeout else { continue };
        for (key, events) in done.by_key(name) {
            for event in events.iter().filter(|event| matches!(event.what, What::Ended | What::Cut)) {
                ensure!(
                    event.worked <= timeout,
                    "`{key}` of `{name}` worked {:?}, {timeout:?} is its timeout",
                    event.worked
                );
                let bounded = done.cancelled() || done.may_close(plan) || plan.item_deadline.is_some();
                ensure!(
                    event.what == What::Ended || event.worked == timeout || bounded,
                    "`{key}` of `{name}` was cut after {:?} of work, {timeout:?} is its timeout",
                    event.worked
                );
            }
        }
    }
    Ok(())
}

/// RUNS T3: an item deadline counts everything from the first attempt on, also over a wait in the store.
fn item_deadline(done: &Done) -> Result<(), String> {
    for (name, _, plan) in done.handled() {
        let Some(bound) = plan.item_deadline else { continue };
        for (key, events) in done.by_key(name) {
            let due = done.awake_of(events[0].boot + bound);
            let late = events.iter().find(|event| event.at > due);
            ensure!(late.is_none(), "`{key}` of `{name}` had until {due:?}, and then there was {late:?}");
        }
    }
    Ok(())
}

/// RUNS T4: nobody comes back before the time that was said.
fn waits_are_kept(done: &Done) -> Result<(), String> {
    for (name, _, plan) in done.told().filter(|(_, _, plan)| plan.retry.is_some() && done.exact()) {
        for (key, events) in done.by_key(name) {
            for pair in events.windows(2).filter(|pair| pair[1].what == What::Began && pair[0].what != What::Began) {
                // Rows keep milliseconds.
                let waited = pair[1].boot - pair[0].boot + Duration::from_millis(1);
                let wait = done.backoff(plan, pair[0].attempt);
                ensure!(waited >= wait, "`{key}` of `{name}` waited {waited:?} of {wait:?} after {:?}", pair[0]);
            }
        }
    }
    Ok(())
}

/// RUNS T4: a wait that would end past the item's deadline is not begun: the item ends with its last failure.
fn no_wait_past_deadline(done: &Done) -> Result<(), String> {
    for (name, _, plan) in done.told() {
        if done.cancelled() || done.may_close(plan) || done.slept.is_some() {
            continue;
        }
        let keys = done.by_key(name);
        for (key, class) in done.missing(name) {
            let last = keys.get(&*key).and_then(|events| events.last());
            // What waits in the store is read back when the inbox has ended, which may be too late.
            let waited = last.filter(|event| event.what == What::Ended);
            let in_memory = waited.is_some_and(|event| back_at(done, plan, event).is_some());
            let fits = class != "timed_out" || !in_memory;
            ensure!(fits, "`{key}` of `{name}` was timed out while it waited after {last:?}");
        }
    }
    for (quiet, stage, plan) in done.quiet_stages().filter(|_| done.exact() && done.slept.is_none()) {
        let told = done.told().any(|(name, ..)| name == stage.name);
        if !told || plan.ordered || plan.retry.is_none() || done.backoff(plan, 99) > WAIT_IN_MEMORY_MAX {
            continue;
        }
        // Items that may wait: for a service, and for a retry that is in time.
        let (_, mut may) = Done::handlers(quiet, stage);
        let began = done.firsts(&stage.name).next().map_or(Duration::ZERO, |event| event.boot);
        for events in done.by_key(&stage.name).values() {
            let last = events.iter().rfind(|event| event.at <= quiet.at);
            let Some(back) = last.and_then(|last| back_at(done, plan, last)) else { continue };
            let of_item = plan.item_deadline.map(|bound| events[0].boot + bound);
            let of_stage = plan.deadline.map(|bound| began + bound);
            let in_time = [of_item, of_stage].into_iter().flatten().all(|due| back <= due);
            may += u64::from(in_time);
        }
        ensure!(
            stage.waiting <= may,
            "at {:?} {} items of `{}` wait, and {may} may",
            quiet.at,
            stage.waiting,
            stage.name
        );
    }
    Ok(())
}

/// `PERF` section 9: among items that are ready at once nobody is overtaken by more than `2 * (workers + buffer)`.
fn overtaking(done: &Done) -> Result<(), String> {
    if done.elapsed > Duration::ZERO || done.cancelled() {
        return Ok(());
    }
    for (name, _, plan) in done.told().filter(|(_, _, plan)| !plan.ordered && plan.retry.is_none()) {
        for parent in done.parents(plan) {
            let most = done.overtaken(&parent.name, name);
            let bound = 2 * (plan.workers + plan.buffer);
            ensure!(most <= bound, "an item was overtaken by {most} in `{name}`, and {bound} is the most");
        }
    }
    Ok(())
}

/// RUNS D1, T3: at its deadline a stage, and all that works in it, ends or is closed.
fn closed_stage(done: &Done) -> Result<(), String> {
    for (name, _, plan) in done.plans() {
        let Some(bound) = plan.deadline else { continue };
        let first = match plan.is_source() {
            // Whether it began before or after a sleep of the machine in the same tick is open.
            true => Some(Duration::ZERO).filter(|_| done.slept.is_none()),
            false => done.firsts(name).next().map(|event| event.boot),
        };
        let Some(due) = first.map(|first| done.awake_of(first + bound)) else { continue };
        let late = done.events.iter().find(|event| event.stage == name && event.at > due);
        ensure!(late.is_none(), "`{name}` had until {due:?}, and then there was {late:?}");
    }
    Ok(())
}

/// RUNS D3: a count is compared at once, a share when the number of items is known.
fn fail_fast(done: &Done) -> Result<(), String> {
    for (name, counts, plan) in done.plans().filter(|(_, _, plan)| plan.fail_fast) {
        let exceeded = plan.tolerate.exceeded(counts.missing(), counts.items);
        ensure!(!exceeded || done.cancelled(), "`{name}` misses {} of {}, and went on", counts.missing(), counts.items);
        let says = format!("stage `{name}` misses more than it tolerates (fail_fast)");
        if !done.reason().starts_with(&says) || !matches!(plan.tolerate, Tolerance::Share(_)) {
            continue;
        }
        for parent in done.parents(plan) {
            let counts = done.counts(&parent.name);
            let known = (counts.complete || parent.deadline.is_some()) && counts.cancelled == 0;
            ensure!(known, "`{name}` failed fast before `{}` had ended: {counts:?}", parent.name);
        }
    }
    Ok(())
}

/// RUNS D4: the first thing that cancels a run says how it ended.
fn first_reason(done: &Done) -> Result<(), String> {
    ensure!(!done.reason().contains("somebody late"), "a later reason is named: {}", done.reason());
    let asked = done.outcome() == RunOutcome::Cancelled;
    ensure!(!asked || done.cut_at.is_some(), "nobody cancelled it");
    Ok(())
}

/// RUNS section 6: a cancel settles everything at once and begins nothing.
fn cancel_takes_no_time(done: &Done) -> Result<(), String> {
    let Some((at, events)) = done.cut_at.filter(|_| done.job.on_finish.is_empty()) else { return Ok(()) };
    ensure!(done.elapsed == at, "it was cancelled at {at:?} and ended at {:?}", done.elapsed);
    let late = done.events[events.min(done.events.len())..].iter().find(|event| event.what == What::Began);
    ensure!(late.is_none(), "after the cancel there was {late:?}");
    Ok(())
}

/// P8: a run is settled at its deadline and the grace period at the latest, also over a sleep of the machine.
fn settled_in_time(done: &Done) -> Result<(), String> {
    let latest = done.awake_of(done.deadline + done.grace);
    ensure!(
        done.elapsed <= latest || !done.job.on_finish.is_empty(),
        "it ended at {:?}, {latest:?} was the latest",
        done.elapsed
    );
    Ok(())
}

/// P9: a worker that dies outside of an item's fence ends the run by name.
fn dead_worker(done: &Done) -> Result<(), String> {
    let named = done.reason().contains("panicked");
    let first = ["cancelled by", "the deadline", "spool: "].iter().any(|is| done.reason().starts_with(is))
        || done.reason().contains("(fail_fast)");
    ensure!(!done.outside_panic || named || first, "a worker died, and the run says {:?}", done.reason());
    Ok(())
}

/// RUNS D4, D2: the first that holds of a run that nobody cancelled.
fn outcome(done: &Done) -> Result<(), String> {
    let (got, why) = (done.outcome(), done.reason());
    ensure!((got == RunOutcome::Succeeded) == done.record.reason.is_none(), "it is {got} because {why:?}");
    let due = done.awake_of(done.deadline);
    let cut_by_it = why.starts_with("the deadline passed");
    ensure!(!cut_by_it || done.elapsed >= due, "its deadline is {due:?}, and it passed at {:?}", done.elapsed);
    if done.cancelled() {
        let expected = match why {
            _ if done.outside_panic => return Ok(()),
            why if why.starts_with("cancelled by") => RunOutcome::Cancelled,
            why if why.starts_with("the deadline") => RunOutcome::DeadlineExceeded,
            _ => RunOutcome::Failed,
        };
        ensure!(got == expected, "it is {got} and not {expected}: {why}");
        return Ok(());
    }
    let late = done.elapsed > due && done.job.on_finish.is_empty();
    let failed =
        |(_, counts, plan): (&str, &Counts, &Stage)| matches!(plan.kind, StageKind::GatherAll) && counts.missing() > 0;
    let exceeded = done.plans().find(|(_, counts, plan)| plan.tolerate.exceeded(counts.missing(), counts.items));
    let by_itself = ["the listing of", "too_few_items", "lost: "].iter().any(|is| why.starts_with(is)) || done.partly;
    let gaps = done.plans().any(|(_, counts, plan)| counts.missing() > 0 || (plan.is_source() && !counts.complete));
    let allowed = match exceeded {
        _ if late => vec![RunOutcome::DeadlineExceeded],
        _ if by_itself || (done.elapsed == due && got == RunOutcome::DeadlineExceeded) => return Ok(()),
        _ if done.plans().any(failed) => vec![RunOutcome::Failed],
        Some((_, _, plan)) if done.may_close(plan) => vec![RunOutcome::Failed, RunOutcome::DeadlineExceeded],
        Some(_) => vec![RunOutcome::Failed],
        None if gaps => vec![RunOutcome::Partial],
        None => vec![RunOutcome::Succeeded],
    };
    ensure!(allowed.contains(&got), "it is {got} ({why}), and {allowed:?} was to be");
    Ok(())
}
