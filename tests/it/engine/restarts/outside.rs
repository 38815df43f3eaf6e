//! The outside: what the handlers of every process do and see. It does not crash with us.

use super::{disk::Promised, draw::Acts};
use lamplighter::{
    action::{Call, CallError, Handlers},
    item::Value,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// One call of a handler: something happened outside.
#[derive(Clone, Debug)]
pub struct Effect {
    pub run: String,
    /// Which process called.
    pub process: u32,
    pub stage: String,
    pub key: String,
    /// Place of the handler in its stage, and of the value in the item's.
    pub place: String,
    pub attempt: u32,
    /// The idempotency key.
    pub name: String,
    /// Of a value that is being listed: listings are made again.
    pub in_source: bool,
    /// On the wall clock, in milliseconds.
    pub wall_ms: i64,
}

/// A notice that was sent.
#[derive(Clone, Debug)]
pub struct Told {
    pub run: String,
    pub process: u32,
    pub place: u16,
    pub outcome: String,
    /// It was known then that the run has ended.
    pub was_settled: bool,
}

/// One process that works on a run.
#[derive(Clone, Debug)]
pub struct Worker {
    pub process: u32,
    pub job: String,
}

#[derive(Default)]
pub struct Outside {
    pub acts: Acts,
    /// Nothing goes wrong outside any more.
    pub healed: bool,
    pub effects: Vec<Effect>,
    /// What reports said, by run.
    pub reports: BTreeMap<String, Vec<Value>>,
    pub told: Vec<Told>,
    pub promised: Promised,
    /// Runs that were found ended on the disk.
    pub ended: BTreeSet<String>,
    /// Who works on which run now.
    pub workers: BTreeMap<String, Worker>,
    /// Handlers that run now.
    pub running: usize,
    /// The due of each run, in milliseconds.
    pub dues: BTreeMap<String, i64>,
    /// Days of which something was kept on the disk, by job and key.
    pub kept: BTreeMap<(String, String), BTreeSet<i64>>,
    /// Oracles that were broken on the way, with what was seen.
    pub wrong: Vec<(&'static str, String)>,
}

pub type Seen = Arc<Mutex<Outside>>;

pub fn lock<T>(seen: &Mutex<T>) -> MutexGuard<'_, T> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whose outside it is just now: one job is checked once for several gateways.
#[derive(Clone, Default)]
pub struct Around(Arc<Mutex<Seen>>);

impl Around {
    pub fn set(&self, seen: &Seen) {
        *lock(&self.0) = seen.clone();
    }

    fn get(&self) -> Seen {
        lock(&self.0).clone()
    }
}

pub fn handlers(around: &Around) -> Handlers {
    let (a, b, c, d) = (around.clone(), around.clone(), around.clone(), around.clone());
    Handlers::new()
        .add("work", move |call| work(a.get(), call))
        .and_then(|handlers| handlers.add("list", move |call| list(b.get(), call)))
        .and_then(|handlers| handlers.add("report", move |call| report(c.get(), call)))
        .and_then(|handlers| handlers.add("notice", move |call| notice(d.get(), call)))
        .expect("new names")
}

/// Counts a handler while it runs.
struct Running(Seen);

impl Running {
    fn new(seen: &Seen) -> Running {
        lock(seen).running += 1;
        Running(seen.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        lock(&self.0).running -= 1;
    }
}

/// What the dice say of an item in a stage: the same for every attempt, process and night.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drawn {
    Good,
    Slow(u64),
    Fails(u32),
    Bad,
    Panics,
    Hangs,
}

fn drawn(acts: &Acts, text: &str) -> Drawn {
    let mixed = text
        .bytes()
        .fold(acts.dice ^ 0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    let mut dice = fastrand::Rng::with_seed(mixed);
    let mut left = dice.u64(..100);
    for (share, what) in [
        (acts.fails, Drawn::Fails(dice.u32(1..4))),
        (acts.bad, Drawn::Bad),
        (acts.panics, Drawn::Panics),
        (acts.hangs, Drawn::Hangs),
        (acts.slow, Drawn::Slow(5 * dice.u64(1..9))),
    ] {
        if left < share {
            return what;
        }
        left -= share;
    }
    Drawn::Good
}

async fn work(seen: Seen, call: Call) -> Result<Value, CallError> {
    let _running = Running::new(&seen);
    let part = call.value.get("part").and_then(Value::as_u64).unwrap_or_default();
    let place = format!("{}/{part}", call.args().get("place").and_then(Value::as_u64).unwrap_or_default());
    let (what, healed) = {
        let mut seen = lock(&seen);
        let process = match seen.workers.get(call.run()) {
            Some(worker) => worker.process,
            None => {
                let text = format!("{:?} of {} was worked on, and nobody has the run", call.key, call.run());
                seen.wrong.push(("O1_one_process_works_on_a_run", text));
                0
            }
        };
        seen.effects.push(Effect {
            run: call.run().to_owned(),
            process,
            stage: call.stage().to_owned(),
            key: call.key.to_string(),
            place: place.clone(),
            attempt: call.attempt,
            name: call.idempotency_key(),
            in_source: call.stage().starts_with('s'),
            wall_ms: call.world().wall().as_millisecond(),
        });
        if let Some(before) = call.value.get("before") {
            look_back(&mut seen, &call, before);
        }
        (drawn(&seen.acts, &format!("{}/{}/{place}", call.stage(), call.key)), seen.healed)
    };
    let what = if healed { Drawn::Good } else { what };
    let time = match what {
        Drawn::Slow(time) => time,
        // Where a timeout counts it the time is always the same.
        _ if call.args().get("exact").is_some() => 2,
        _ => call.world().random() % 4,
    };
    call.sleep(Duration::from_millis(time)).await;
    match what {
        Drawn::Fails(times) if call.attempt <= times => Err(CallError::retry(format!("attempt {}", call.attempt))),
        Drawn::Bad => Err(CallError::give_up("bad")),
        // Silent: the hook is not called.
        Drawn::Panics => std::panic::resume_unwind(Box::new("the handler was told to")),
        Drawn::Hangs => std::future::pending().await,
        _ => Ok((*call.value).clone()),
    }
}

/// RUNS S10: `$state` is what the newest run with an earlier due has kept.
fn look_back(seen: &mut Outside, call: &Call, before: &Value) {
    let due = seen.dues.get(call.run()).copied().unwrap_or(i64::MAX);
    let days = seen.kept.get(&(call.job().to_owned(), call.key.to_string()));
    let known = days.and_then(|days| days.range(..due).next_back()).copied();
    let saw = before.as_i64();
    let wrong = match (saw, known) {
        (Some(saw), _) if saw >= due => Some("its own due or a later one"),
        (None, Some(_)) => Some("nothing, and something was kept"),
        (Some(saw), Some(known)) if saw < known => Some("an older one than was kept"),
        _ => None,
    };
    if let Some(wrong) = wrong {
        let text = format!("{} of {} is due at {due} and saw {saw:?}, {wrong} ({known:?})", call.key, call.run());
        seen.wrong.push(("S10_state_is_of_an_earlier_due", text));
    }
}

/// A listing by the outside: `args.items`, or nothing at all where it is told to fail.
async fn list(seen: Seen, call: Call) -> Result<Value, CallError> {
    let _running = Running::new(&seen);
    call.sleep(Duration::from_millis(call.world().random() % 3)).await;
    let fails = call.args().get("fails").is_some() && !lock(&seen).healed;
    match fails {
        true => Err(CallError::give_up("the vendor lists nothing")),
        false => Ok(call.args()["items"].clone()),
    }
}

async fn report(seen: Seen, call: Call) -> Result<Value, CallError> {
    let _running = Running::new(&seen);
    lock(&seen).reports.entry(call.run().to_owned()).or_default().push((*call.value).clone());
    call.sleep(Duration::from_millis(call.world().random() % 2)).await;
    Ok(Value::Null)
}

async fn notice(seen: Seen, call: Call) -> Result<Value, CallError> {
    let _running = Running::new(&seen);
    let place = call.args().get("place").and_then(Value::as_u64).unwrap_or_default() as u16;
    let outcome = call.args().get("outcome").and_then(Value::as_str).unwrap_or_default().to_owned();
    {
        let mut seen = lock(&seen);
        let run = call.run().to_owned();
        let was_settled = seen.promised.ended.contains_key(&run) || seen.ended.contains(&run);
        let process = seen.workers.get(&run).map_or(0, |worker| worker.process);
        seen.told.push(Told { run, process, place, outcome, was_settled });
    }
    call.sleep(Duration::from_millis(call.world().random() % 3)).await;
    Ok(Value::Null)
}
