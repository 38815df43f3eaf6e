//! Random jobs under random faults. Each seed draws which faults there are at all (a swarm), then the job, then what
//! happens to it; the oracles hold what must hold of any run.
//!
//! One seed alone: `LAMPLIGHTER_SEED=1234 cargo test --test it -- engine::swarm`.

use super::{
    lab::{Done, Lab, Script, lazy, ms, options, panicking},
    oracles,
};
use crate::seeds::{Swarm, parts};
use lamplighter::{
    run::{RunOptions, StoreChoice},
    world::sim::Sim,
};
use std::collections::BTreeMap;

/// Polls of a run after which it does not end any more; the longest has a tenth.
const POLLS: u64 = 200_000;

/// Which faults a seed has.
#[derive(Debug)]
struct Faults {
    /// Of a hundred calls: fail and may be repeated, give up, panic, hang, work for long.
    acts: [u64; 5],
    retries: bool,
    defers: bool,
    ordered: bool,
    fans: bool,
    doubles: bool,
    sources: bool,
    gathers: bool,
    service: bool,
    fail_fast: bool,
    timeouts: bool,
    item_deadlines: bool,
    stage_deadlines: bool,
    run_deadline: bool,
    chain: bool,
    /// Handlers that panic when they are cut, outside of every fence.
    spring: bool,
}

/// A job that was drawn, and what happens to it.
struct Case {
    text: String,
    fans: BTreeMap<String, u64>,
    /// Polls after which it is cut, and so on.
    script: Script,
    store: Kept,
    /// Nothing in it depends on the order of things: the same bytes come out at any worker count.
    steady: bool,
    panics: Option<usize>,
}

#[derive(Clone, Copy)]
enum Kept {
    Memory(u64),
    Lazy,
    Panics(usize),
}

impl Faults {
    fn draw(dice: &mut fastrand::Rng) -> Faults {
        let mut on = |of: u32| dice.u32(..of) == 0;
        let acts = [on(2), on(3), on(4), on(6), on(2)];
        let mut faults = Faults {
            acts: [0; 5],
            retries: on(2),
            defers: on(4),
            ordered: on(3),
            fans: on(3),
            doubles: on(6),
            sources: on(3),
            gathers: !on(4),
            service: on(3),
            fail_fast: on(4),
            timeouts: on(3),
            item_deadlines: on(3),
            stage_deadlines: on(3),
            run_deadline: on(4),
            chain: on(20),
            spring: on(12),
        };
        for (share, (on, most)) in faults.acts.iter_mut().zip(acts.into_iter().zip([60, 25, 20, 15, 60])) {
            *share = if on { dice.u64(5..most) } else { 0 };
        }
        faults
    }

    /// What every handler is given: the dice and their weights.
    fn args(&self, dice: &mut fastrand::Rng, more: &str) -> String {
        let [fails, bad, panic, hang, ms] = self.acts;
        let p = format!("{{\"fails\": {fails}, \"bad\": {bad}, \"panic\": {panic}, \"hang\": {hang}, \"ms\": {ms}}}");
        format!("args: {{\"dice\": {}, \"p\": {p}{more}}}", dice.u32(..))
    }
}

fn pick<'a>(dice: &mut fastrand::Rng, of: &[&'a str]) -> &'a str {
    of[dice.usize(..of.len())]
}

fn listed(at: usize, faults: &Faults, dice: &mut fastrand::Rng) -> String {
    let count = if faults.chain { 60 } else { dice.usize(..13) };
    let items: Vec<String> = (0..count)
        .map(|i| {
            // Keys that come twice.
            let id = if faults.doubles && dice.u32(..4) == 0 { i.saturating_sub(1) } else { i };
            format!("{{\"id\": \"P{id}\", \"g\": {}}}", i % 3)
        })
        .collect();
    let key = if faults.doubles || dice.bool() { "key: \"{{ item.id }}\"," } else { "" };
    let slow = if faults.chain || dice.u32(..3) > 0 {
        String::new()
    } else {
        format!(", Call(handler: \"act\", args: {{\"jit\": {}}})", dice.u32(..4))
    };
    let deadline =
        if faults.stage_deadlines && dice.u32(..4) == 0 { "deadline: \"10ms\", on_deadline: Continue," } else { "" };
    format!(
        "Stage(name: \"s{at}\", from: [], {key} {deadline} tolerate: \"99\", run: [Items(list: [{}]){slow}]), ",
        items.join(", ")
    )
}

impl Case {
    fn draw(seed: u64) -> Case {
        let mut dice = fastrand::Rng::with_seed(seed);
        let dice = &mut dice;
        let faults = Faults::draw(dice);
        if faults.chain {
            return Case::chain(dice);
        }
        let mut names: Vec<String> = Vec::new();
        let mut parents: Vec<Option<usize>> = Vec::new();
        let mut fans = BTreeMap::new();
        let mut stages = String::new();
        for at in 0..1 + usize::from(faults.sources && dice.bool()) {
            stages += &listed(at, &faults, dice);
            names.push(format!("s{at}"));
            parents.push(None);
        }
        let run_deadline = [20, 30, 45, 300_000][dice.usize(..4)];
        let bound = |dice: &mut fastrand::Rng, of: &[u64], outer: u64| {
            let most = if faults.run_deadline { outer.min(run_deadline) } else { outer };
            let fits: Vec<u64> = of.iter().copied().filter(|bound| *bound <= most).collect();
            fits[dice.usize(..fits.len())]
        };
        let mut bounded = faults.run_deadline;
        for at in 0..1 + dice.usize(..3) {
            let from = if dice.bool() { names.len() - 1 } else { dice.usize(..names.len()) };
            let mut fields = String::new();
            if faults.retries && dice.u32(..3) > 0 {
                let wait = bound(dice, &[3, 5, 5, 10], u64::MAX);
                fields += &format!(
                    "retry: Retry(max_attempts: {}, initial_interval: \"{wait}ms\", jitter: Exact), ",
                    dice.u32(2..5)
                );
            } else if faults.defers && !faults.run_deadline {
                fields +=
                    "retry: Retry(max_attempts: 3, initial_interval: \"12s\", max_interval: \"15s\", jitter: Exact), ";
            }
            if faults.ordered && dice.bool() {
                fields += "order: Input, ";
            }
            // An outer bound first: an inner one that is longer could never be reached, and is refused.
            let mut inner = u64::MAX;
            if faults.stage_deadlines && dice.bool() {
                let goes_on = dice.u32(..5) > 0;
                inner = bound(dice, &[5, 10, 15, 30, 45, 25_000], inner);
                fields += &format!("deadline: \"{inner}ms\", ");
                fields += if goes_on { "on_deadline: Continue, " } else { "" };
                bounded = true;
            } else if faults.run_deadline && dice.bool() {
                fields += "on_deadline: Continue, ";
            }
            if faults.item_deadlines && dice.bool() {
                inner = bound(dice, &[5, 10, 15, 30, 60, 20_000], inner);
                fields += &format!("item_deadline: \"{inner}ms\", ");
            }
            if faults.timeouts && dice.bool() {
                fields += &format!("timeout: \"{}ms\", ", bound(dice, &[5, 10, 15, 20], inner));
            }
            let tolerate = if faults.fail_fast && dice.bool() {
                ["\"1\", fail_fast: true", "\"20%\", fail_fast: true", "\"50%\", fail_fast: true"][dice.usize(..3)]
            } else {
                pick(dice, &["\"99\"", "\"99\"", "\"2\"", "\"30%\""])
            };
            let admit = match dice.u32(..6) {
                0 | 1 => String::new(),
                2 => format!(", \"admit\": \"vendor\", \"patience\": {}", dice.u32(1..6)),
                _ => ", \"admit\": \"vendor\"".to_owned(),
            };
            let admit = if faults.service { admit } else { String::new() };
            let admit = if faults.spring { format!("{admit}, \"spring\": 1") } else { admit };
            let mut actions = format!("Call(handler: \"act\", {})", faults.args(dice, &admit));
            let name = format!("w{at}");
            if faults.fans && dice.bool() {
                let (fan, several) =
                    [("., .", 2), ("{id, g, part: (1, 2, 3)}", 3), ("select(false)", 0)][dice.usize(..3)];
                actions += &format!(", Jq(filter: \"{fan}\")");
                if several > 0 && dice.bool() {
                    actions += &format!(", Call(handler: \"act\", {})", faults.args(dice, ", \"later\": 1"));
                }
                fans.insert(name.clone(), several);
            }
            stages += &format!(
                "Stage(name: \"{name}\", from: [\"{}\"], workers: {}, waiting: {}, buffer: {}, {fields} tolerate: {tolerate}, run: [{actions}]), ",
                names[from],
                dice.u32(1..4),
                dice.u32(..4),
                pick(dice, &["0", "0", "1", "2", "4"]),
            );
            names.push(name);
            parents.push(Some(from));
        }
        for at in 0..names.len() {
            if !faults.gathers || parents.contains(&Some(at)) {
                continue;
            }
            let name = names[at].clone();
            let other = if dice.u32(..3) == 0 { dice.usize(..names.len()) } else { at };
            let from = if other == at { format!("\"{name}\"") } else { format!("\"{name}\", \"{}\"", names[other]) };
            stages += &format!(
                "Stage(name: \"r-{name}\", from: [{from}], gather: All, run: [Jq(filter: \"{{ok: ([items] | length), missing: ([failures] | length), counts: counts}}\"), Call(handler: \"sink\")]), "
            );
            if dice.bool() {
                stages += &format!(
                    "Stage(name: \"b-{name}\", from: [\"{name}\"], gather: By(\"{{{{ item.g }}}}\"), workers: 2, tolerate: \"99\", run: [Jq(filter: \"[items] | length\"), Call(handler: \"sink\")]), "
                );
            }
        }
        let service = if faults.service {
            let limits = pick(
                dice,
                &[
                    "max_in_flight: 1,",
                    "max_in_flight: 2,",
                    "rate: [\"1/3ms\"],",
                    "rate: [\"2/10ms\"], max_in_flight: 1,",
                ],
            );
            format!("services: [Service(name: \"vendor\", base: \"http://127.0.0.1:1\", {limits})], ")
        } else {
            String::new()
        };
        let deadline = if faults.run_deadline { format!("deadline: \"{run_deadline}ms\", ") } else { String::new() };
        let script = Case::script(dice);
        let store = match dice.u32(..16) {
            0 => Kept::Memory(dice.u64(300..3000)),
            1 => Kept::Panics(dice.usize(..20)),
            2..5 => Kept::Lazy,
            _ => Kept::Memory(64 << 20),
        };
        let steady = matches!(script, Script::Await) && matches!(store, Kept::Lazy | Kept::Memory(4096..));
        let steady =
            steady && !bounded && !faults.item_deadlines && !faults.fail_fast && faults.acts[3] == 0 && !faults.spring;
        let steady = steady && !(stages.contains("deadline") || faults.service);
        let panics = match store {
            Kept::Panics(after) => Some(after),
            _ => None,
        };
        Case { text: format!("Job({deadline}{service}stages: [{stages}])"), fans, script, store, steady, panics }
    }

    /// What happens from outside, most often nothing.
    fn script(dice: &mut fastrand::Rng) -> Script {
        // Some cuts come in the tick of something else, some in the middle of a tick.
        let mut soon =
            |polls: usize| (ms([0, 0, 1, 3, 5, 5, 10, 15, 20, 30, 45][dice.usize(..11)]), dice.usize(..polls));
        let ((at, polls), (later, _)) = (soon(50), soon(1));
        match dice.u32(..12) {
            0 | 1 => Script::Cancel(at, polls),
            2 => Script::CancelTwice(at, polls),
            3 => Script::Drop(at, polls),
            4 | 5 => Script::Suspend(at, ms([10, 25, 60_000][dice.usize(..3)])),
            6 => Script::SuspendAndCancel(at, ms([10, 25][dice.usize(..2)]), later, polls),
            _ => Script::Await,
        }
    }

    /// A long chain of stages whose items are ready at once: who is before, stays before.
    fn chain(dice: &mut fastrand::Rng) -> Case {
        let (workers, buffer) = (dice.u32(1..5), [0, 1, 4][dice.usize(..3)]);
        let stage = |at: usize, from: &str| {
            format!(
                "Stage(name: \"c{at}\", from: [\"{from}\"], workers: {workers}, buffer: {buffer}, run: [Call(handler: \"act\")]), "
            )
        };
        let stages = stage(0, "s0") + &stage(1, "c0") + &stage(2, "c1");
        let text = format!("Job(stages: [Stage(name: \"s0\", from: [], run: [Jq(filter: \"range(90)\")]), {stages}])");
        let store = Kept::Memory(1 << 20);
        Case { text, fans: BTreeMap::new(), script: Script::Await, store, steady: true, panics: None }
    }

    fn lab(&self, text: &str) -> Lab {
        let lab = Lab::job(text).fanning(self.fans.clone());
        if text.contains("\"12s\"") { lab.deferring() } else { lab }
    }

    fn options(&self, lab: &Lab) -> RunOptions {
        let store = match self.store {
            Kept::Memory(limit) => StoreChoice::Memory { limit },
            Kept::Lazy => StoreChoice::Given(lazy(64 << 20)),
            Kept::Panics(after) => StoreChoice::Given(panicking(after, lab.outside_panic.clone())),
        };
        RunOptions { store, ..options() }
    }

    /// The job with other numbers of workers and buffers.
    fn wider(&self) -> String {
        let mut text = self.text.clone();
        for at in 1..4 {
            text = text.replace(&format!("workers: {at},"), &format!("workers: {},", 9 - 2 * at));
        }
        text.replace("buffer: 0,", "buffer: 3,")
    }
}

/// Runs one seed and holds everything.
pub fn seed(seed: u64) {
    let case = Case::draw(seed);
    let lab = case.lab(&case.text);
    let run = |lab: &Lab, seed: u64| {
        let sim = Sim::new(seed).step_limit(POLLS);
        lab.run_in(seed, sim, case.options(lab), case.script)
    };
    let Some(done) = run(&lab, seed) else { return };
    // The same seed is the same run, and other numbers of workers give the same outputs.
    if seed.is_multiple_of(16) && case.panics.is_none() {
        let again = run(&lab, seed).expect("it was awaited");
        if again.trace != done.trace {
            oracles::broken("K7_the_same_seed_is_the_same_run", "the traces differ", seed, &done.job);
        }
    }
    if case.steady && seed.is_multiple_of(2) {
        let wider = case.lab(&case.wider());
        let other = run(&wider, seed + 1).expect("it was awaited");
        if outputs(&other) != outputs(&done) {
            let what = format!("{:#?}\nand\n{:#?}", outputs(&done), outputs(&other));
            oracles::broken("K7_determinism", &what, seed, &done.job);
        }
    }
}

/// What a run gives to the world.
fn outputs(done: &Done) -> impl PartialEq + std::fmt::Debug {
    let mut sunk = done.sunk.clone();
    sunk.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    (done.outcome(), done.record.reason.clone(), done.record.failures.clone(), sunk)
}

pub const SWARM: Swarm = Swarm { module: "engine::swarm", seeds: 6000, parts: 8, in_a_row: 1, seed };

parts! {
    every_promise_holds_under_every_seed_0: 0,
    every_promise_holds_under_every_seed_1: 1,
    every_promise_holds_under_every_seed_2: 2,
    every_promise_holds_under_every_seed_3: 3,
    every_promise_holds_under_every_seed_4: 4,
    every_promise_holds_under_every_seed_5: 5,
    every_promise_holds_under_every_seed_6: 6,
    every_promise_holds_under_every_seed_7: 7,
}
