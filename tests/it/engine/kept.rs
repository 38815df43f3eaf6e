//! A run that is kept, and crashes: whatever poll its process dies at, the next one goes on where it was.

use super::lab::ms;
use jiff::Timestamp;
use lamplighter::{
    action::{Call, CallError, Handlers},
    item::{RunOutcome, Value},
    job::{Job, Surroundings},
    run::{Keeping, RunHandle, RunOptions, Runner, StartError, StoreChoice, kept_job},
    store::{Clocks, Copied, CopyPlan, NewRun, Reply, Request, RunKind, State, Store, StoreError, memory::Memory},
    world::{Awake, BoxFuture, sim::Sim},
};
use serde_json::json;
use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

/// What the outside has seen: it does not crash with us.
#[derive(Default)]
pub struct Outside {
    /// Attempts by stage and key.
    pub effects: BTreeMap<(String, String), u32>,
    /// Those of them that came to their end.
    pub ended: BTreeMap<(String, String), u32>,
    /// Idempotency keys by stage and key.
    names: BTreeMap<(String, String), String>,
    pub reports: Vec<Value>,
}

pub type Seen = Arc<Mutex<Outside>>;

pub fn lock(seen: &Seen) -> std::sync::MutexGuard<'_, Outside> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn handlers(seen: &Seen) -> Handlers {
    let (a, b) = (seen.clone(), seen.clone());
    let work = move |call: Call| {
        let seen = a.clone();
        async move {
            let place = (call.stage().to_string(), call.key.to_string());
            let number = |name: &str| call.value.get(name).and_then(Value::as_u64);
            let _place = match call.value.get("admit") {
                Some(_) => Some(call.admit("vendor").await?),
                None => None,
            };
            let times;
            {
                let mut seen = lock(&seen);
                let effects = seen.effects.entry(place.clone()).or_default();
                *effects += 1;
                times = *effects;
                let name = call.idempotency_key();
                assert_eq!(
                    *seen.names.entry(place.clone()).or_insert_with(|| name.clone()),
                    name,
                    "{:?}: not the same over crashes",
                    call.key
                );
            }
            call.sleep(ms(call.world().random() % 4)).await;
            if let Some(slow) = number("slow") {
                call.sleep(ms(slow)).await;
            }
            if call.value.get("hang").is_some() && times == 1 {
                std::future::pending::<()>().await;
            }
            *lock(&seen).ended.entry(place).or_default() += 1;
            match (call.value.get("bad"), call.value.get("once")) {
                (Some(_), _) => Err(CallError::give_up("bad")),
                (None, Some(_)) if call.attempt == 1 => Err(CallError::retry("once")),
                (None, _) => Ok((*call.value).clone()),
            }
        }
    };
    let report = move |call: Call| {
        let seen = b.clone();
        async move {
            lock(&seen).reports.push((*call.value).clone());
            Ok(Value::Null)
        }
    };
    Handlers::new().add("work", work).and_then(|handlers| handlers.add("report", report)).expect("new names")
}

/// What comes over the process of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hit {
    /// It dies at this poll.
    Crash(u64),
    /// It stops at this poll.
    Stop(u64),
    /// It stops at this poll, is asked to stop once more so many polls later, and is killed after as many again.
    StopAndKill(u64, u64),
    /// It stops at this poll, and dies so many polls later.
    StopAndCrash(u64, u64),
    /// It stops at this poll, and somebody cancels the run so many polls later.
    StopAndCancel(u64, u64),
}

/// One job, run until it has ended, whatever comes over the processes of its passes.
pub struct Night {
    pub record: Value,
    pub outside: Outside,
    pub crashes: usize,
    /// Passes that let the run go in a stop.
    pub stops: usize,
    /// Polls of the pass that came to its end.
    pub steps: u64,
    /// What it has left in the state.
    pub memory: Memory,
}

/// Who steers a run while somebody else awaits it.
#[derive(Clone, Default)]
struct FromOutside {
    run: Arc<Mutex<Option<RunHandle>>>,
    stopped_at: Arc<Mutex<Option<Awake>>>,
}

impl FromOutside {
    fn knows(&self, run: RunHandle) {
        *self.run.lock().expect("one thread") = Some(run);
    }

    fn stopped_at(&self) -> Option<Awake> {
        *self.stopped_at.lock().expect("one thread")
    }

    fn at(&self, sim: Sim, polls: u64, act: impl Fn(&RunHandle) + Send + 'static) -> Sim {
        let run = self.run.clone();
        sim.at_poll(polls, move || {
            if let Some(run) = &*run.lock().expect("one thread") {
                act(run);
            }
        })
    }

    fn stops(&self, sim: Sim, polls: u64) -> Sim {
        let (world, at) = (sim.world(), self.stopped_at.clone());
        self.at(sim, polls, move |run| {
            at.lock().expect("one thread").get_or_insert(world.awake());
            run.stop();
        })
    }

    fn hits(&self, sim: Sim, hit: Option<Hit>) -> Sim {
        match hit {
            None => sim,
            Some(Hit::Crash(polls)) => sim.step_limit(polls),
            Some(Hit::Stop(polls)) => self.stops(sim, polls),
            Some(Hit::StopAndCrash(polls, more)) => self.stops(sim.step_limit(polls + more), polls),
            Some(Hit::StopAndKill(polls, more)) => {
                let sim = self.stops(self.stops(sim, polls), polls + more);
                self.at(sim, polls + 2 * more, |run| run.kill("the test"))
            }
            Some(Hit::StopAndCancel(polls, more)) => {
                self.at(self.stops(sim, polls), polls + more, |run| run.cancel("a person"))
            }
        }
    }
}

pub const STORE_BYTES: u64 = 64 << 20;
/// 2026-01-01, in seconds since 1970.
const WALL_START: i64 = 1_767_225_600;

fn night(text: &str, seed: u64, crash_at: &[u64]) -> Night {
    night_of(&mut Memory::losing(STORE_BYTES), text, 1, seed, crash_at)
}

/// The night that is due on that day, with the state that the nights before have left.
fn night_of(memory: &mut Memory, text: &str, day: i64, seed: u64, crash_at: &[u64]) -> Night {
    let hits: Vec<Hit> = crash_at.iter().map(|polls| Hit::Crash(*polls)).collect();
    hit_night(memory, text, day, seed, &hits)
}

/// The same, hit by something in each of its first passes.
pub fn hit_night(memory: &mut Memory, text: &str, day: i64, seed: u64, hits: &[Hit]) -> Night {
    let seen = Seen::default();
    let handlers = handlers(&seen);
    let due = Timestamp::from_second(WALL_START + day * 86_400).expect("a day");
    let options = || RunOptions { due: Some(due), ..RunOptions::default() };
    let job = Arc::new(Job::from_ron("night", text, Path::new("."), &handlers).expect("a good job").job);
    let (mut crashes, mut stops) = (0, 0);
    let mut hits = hits.iter().copied();
    for pass in 0.. {
        assert!(pass < 200, "it never comes to an end");
        let hit = hits.next();
        let outside = FromOutside::default();
        let sim = outside.hits(Sim::new(seed * 1000 + pass), hit);
        let world = sim.world();
        let store: Arc<dyn Store> = Arc::new(memory.restart("boot"));
        let state = State::new(store);
        let runner = Runner::new(sim.world());
        let surroundings = Surroundings { handlers: handlers.clone(), ..Surroundings::default() };
        let story = async {
            let unfinished = state.unfinished(Some("night")).await.expect("the state answers");
            if unfinished.is_empty()
                && crashes + stops > 0
                && let Some(details) = state.details("night").await.expect("the state answers")
                && details.head.due_ms == due.as_millisecond()
            {
                // It died when everything was on the disk.
                return serde_json::from_str(&details.record.expect("it has ended")).expect("a record");
            }
            let run = match unfinished.first() {
                None => {
                    let keeping = Keeping {
                        state: state.clone(),
                        trigger: "manual".into(),
                        fire_key: None,
                        kind: RunKind::Foreground,
                        alone: true,
                    };
                    runner.begin(&job, options(), &keeping).await
                }
                Some(head) => {
                    let details = state.details(&head.run).await.expect("the state answers").expect("it is there");
                    let job = Arc::new(kept_job(&details, &surroundings).expect("the same job").job);
                    runner.resume(&job, options(), &state, &head.run).await
                }
            };
            match run {
                Ok(run) => {
                    outside.knows(run.handle());
                    let record = serde_json::to_value(run.await).expect("JSON");
                    if let Some(asked) = outside.stopped_at() {
                        let took = world.awake().since(asked);
                        assert!(took <= RunOptions::default().grace, "the stop took {took:?}");
                    }
                    record
                }
                Err(StartError::Poison(run)) => {
                    let details = state.details(&run).await.expect("the state answers").expect("it is there");
                    serde_json::from_str(&details.record.expect("it has ended")).expect("a record")
                }
                Err(error) => panic!("{error}"),
            }
        };
        match sim.run(story) {
            Ok(record) if record["outcome"] == "interrupted" => {
                assert_eq!(sim.leaked(), 0);
                stops += 1;
                *memory = memory.restart("boot");
                super::stop::was_let_go(memory, &record, crashes);
            }
            Ok(record) => {
                assert_eq!(sim.leaked(), 0);
                let outside = std::mem::take(&mut *lock(&seen));
                let memory = memory.restart("boot");
                return Night { record, outside, crashes, stops, steps: sim.steps(), memory };
            }
            Err(_) => {
                assert!(matches!(hit, Some(Hit::Crash(_) | Hit::StopAndCrash(..))), "seed {seed}: it hangs");
                crashes += 1;
                *memory = memory.restart("boot");
            }
        }
    }
    unreachable!("the loop ends by itself");
}

pub fn job(items: usize, source: &str, work: &str) -> String {
    let list: Vec<String> = (0..items)
        .map(|at| format!("{{\"id\": \"P{at}\", \"g\": {}{}}}", at % 3, if at % 5 == 4 { ", \"bad\": 1" } else { "" }))
        .collect();
    format!(
        "Job(stages: [
            Stage(name: \"list\", {source} run: [Items(list: [{}])]),
            Stage(name: \"work\", {work} tolerate: \"99\", run: [Call(handler: \"work\"), Jq(filter: \"., .\")]),
            Stage(name: \"more\", from: [\"work\"], workers: 2, tolerate: \"99\", run: [Call(handler: \"work\")]),
            Stage(name: \"groups\", from: [\"more\"], gather: By(\"{{{{ item.g }}}}\"), run: [Jq(filter: \"[items] | length\")]),
            Stage(name: \"report\", from: [\"groups\", \"more\"], gather: All, run: [
                Jq(filter: \"{{groups: [items(\\\"groups\\\")], more: [items(\\\"more\\\").id], missing: [failures], counts: counts}}\"),
                Call(handler: \"report\"),
            ]),
        ])",
        list.join(", ")
    )
}

/// A night that was hit ends as one that was not, and repeats no more than it may.
pub fn holds(night: &Night, whole: &Night, hits: &dyn std::fmt::Debug) {
    let context = || format!("hit by {hits:?}: {:?}", night.record);
    for field in ["outcome", "reason", "stages", "failures", "unsaved"] {
        assert_eq!(night.record[field], whole.record[field], "{field}: {}", context());
    }
    // The report was made at least once, and always the same.
    assert!(!night.outside.reports.is_empty());
    for report in &night.outside.reports {
        assert_eq!(*report, whole.outside.reports[0], "{}", context());
    }
    // O5: what ran again was in flight or not committed when a process died.
    assert_eq!(night.outside.effects.len(), whole.outside.effects.len());
    for (place, times) in &night.outside.effects {
        let passes = 1 + (night.crashes + night.stops) as u32;
        assert!(*times <= passes * whole.outside.effects[place], "{place:?} ran {times} times: {}", context());
    }
}

#[test]
fn a_process_that_dies_at_any_poll_is_followed_by_one_that_ends_the_night() {
    for (source, work) in [("key: \"{{ item.id }}\",", "workers: 3, buffer: 2,"), ("", "workers: 1, buffer: 0,")] {
        let text = job(6, source, work);
        let whole = night(&text, 1, &[]);
        assert_eq!(whole.record["outcome"], "partial", "{:?}", whole.record);
        assert_eq!(whole.outside.reports[0]["groups"], json!([4, 2, 4]));
        for polls in 1..whole.steps {
            let crashed = night(&text, 1, &[polls]);
            assert_eq!(crashed.crashes, 1);
            holds(&crashed, &whole, &[polls]);
        }
    }
}

#[test]
fn a_night_that_dies_again_and_again_comes_to_its_end_or_is_quarantined() {
    let text = job(9, "key: \"{{ item.id }}\",", "workers: 3, order: Input,");
    let whole = night(&text, 7, &[]);
    let (mut ended, mut quarantined) = (0, 0);
    for seed in 0..200 {
        let mut dice = fastrand::Rng::with_seed(seed);
        let crash_at: Vec<u64> = (0..dice.usize(2..5)).map(|_| dice.u64(1..whole.steps)).collect();
        let crashed = night(&text, seed, &crash_at);
        if crashed.record["outcome"] == "quarantined" {
            // S8: three crashes behind each other without an item that got on.
            assert!(crashed.crashes >= 3, "{crash_at:?}");
            quarantined += 1;
            continue;
        }
        holds(&crashed, &whole, &crash_at);
        ended += 1;
    }
    assert!(ended > 100 && quarantined > 0, "{ended} came to their end, {quarantined} were quarantined");
}

/// Items of the stage `work` that must not run twice.
pub fn hold(extra: &str) -> String {
    let list: Vec<String> = (0..5).map(|at| format!("{{\"id\": \"P{at}\"}}")).collect();
    format!(
        "Job(stages: [
            Stage(name: \"list\", key: \"{{{{ item.id }}}}\", run: [Items(list: [{}])]),
            Stage(name: \"work\", workers: 3, tolerate: \"99\", on_crash: Hold, {extra} run: [Call(handler: \"work\")]),
            Stage(name: \"more\", run: [Call(handler: \"work\")]),
            Stage(name: \"each\", from: [\"work\"], gather: By(\"{{{{ item.id }}}}\"), run: [
                Jq(filter: \"[$key, ([items] | length), [failures.class]]\"),
            ]),
            Stage(name: \"report\", from: [\"more\", \"each\"], gather: All, run: [
                Jq(filter: \"{{ok: [items(\\\"more\\\").id], each: [items(\\\"each\\\")], missing: [failures | {{key, class}}]}}\"),
                Call(handler: \"report\"),
            ]),
        ])",
        list.join(", ")
    )
}

#[test]
fn an_item_that_was_worked_on_when_the_process_died_is_held_and_the_night_goes_on() {
    let text = hold("");
    let whole = night(&text, 3, &[]);
    assert_eq!(whole.record["outcome"], "succeeded", "{:?}", whole.record);
    let (mut nights_with_held, mut nights_without) = (0, 0);
    for seed in 0..4 {
        for polls in 1..night(&text, seed, &[]).steps {
            let crashed = night(&text, seed, &[polls]);
            let (record, work) = (&crashed.record, &crashed.record["stages"][1]);
            let held = work["held"].as_u64().expect("a number");
            match held {
                0 => nights_without += 1,
                _ => nights_with_held += 1,
            }
            // O6: outside, nothing has happened twice.
            for ((stage, key), times) in &crashed.outside.effects {
                assert!(stage != "work" || *times == 1, "{key} ran {times} times, crash at {polls} of seed {seed}");
            }
            assert!(held <= 3, "no more than the workers had: {record}");
            assert_eq!(work["items"], 5, "{record}");
            assert_eq!(work["ok"], 5 - held, "{record}");
            assert_eq!(record["stages"][2]["items"], 5 - held, "{record}");
            assert_eq!(record["outcome"], if held == 0 { "succeeded" } else { "partial" }, "{record}");
            let failures = record["failures"].as_array().expect("a list");
            assert_eq!(failures.len() as u64, held);
            for failure in failures {
                assert_eq!((&failure["stage"], &failure["class"]), (&json!("work"), &json!("held")));
                let why = "it was worked on when the process died or stopped, and its stage says `on_crash: Hold`";
                assert_eq!(failure["message"], why);
            }
            let report = &crashed.outside.reports[0];
            assert_eq!(report["ok"].as_array().map(Vec::len), Some(5 - held as usize), "{report}");
            let named: Vec<Value> = failures.iter().map(|of| json!({"key": of["key"], "class": "held"})).collect();
            assert_eq!(report["missing"], json!(named));
            let is_held = |key: &str| failures.iter().any(|failure| failure["key"] == key);
            let each = ["P0", "P1", "P2", "P3", "P4"].map(|key| match is_held(key) {
                true => json!([key, 0, ["held"]]),
                false => json!([key, 1, []]),
            });
            assert_eq!(report["each"], json!(each), "what came into a held item is known to gathers");
        }
    }
    assert!(nights_with_held > 20 && nights_without > 20, "{nights_with_held} {nights_without}");
}

#[test]
fn an_item_of_such_a_stage_that_waits_long_is_not_held() {
    // Nothing happens while it waits: a crash then costs nobody an attempt.
    let text = hold("retry: Retry(max_attempts: 2, initial_interval: \"1m\", jitter: Exact),");
    let text = text.replace("\"P1\"}", "\"P1\", \"once\": 1}");
    let whole = night(&text, 3, &[]);
    assert_eq!(whole.record["stages"][1]["attempts"], 6, "{:?}", whole.record);
    let place = ("work".to_owned(), "P1".to_owned());
    let mut twice = 0;
    for polls in 1..whole.steps {
        let crashed = night(&text, 3, &[polls]);
        let held = crashed.record["stages"][1]["held"].as_u64().expect("a number");
        assert_eq!(crashed.record["stages"][1]["ok"], 5 - held, "{}", crashed.record);
        assert!(crashed.outside.effects[&place] <= 2, "crash at {polls}");
        twice += u32::from(held == 0 && crashed.outside.effects[&place] == 2);
    }
    assert!(twice > 5, "a crash while it waited: {twice}");
}

const REMEMBERS: &str = r#"Job(timezone: "UTC", stages: [
    Stage(name: "list", key: "{{ item.id }}", run: [Items(list: [{"id": "P0"}, {"id": "P1"}])]),
    Stage(name: "work", workers: 2, tolerate: "9", run: [
        Jq(filter: "{id: .id, before: $state}"),
        Keep(filter: "($state // []) + [$run.date[8:]]"),
        Jq(filter: "if $run.date == \"2026-01-03\" and .id == \"P1\" then error(\"bad\") else . end"),
    ]),
    Stage(name: "report", gather: All, run: [Jq(filter: "[items.before, $state, $run.attempt]"), Call(handler: "report")]),
])"#;

#[test]
fn what_an_item_kept_is_seen_by_later_dues_only_and_a_night_run_twice_sees_the_same() {
    // By day: what P0 and P1 saw. P1 fails on the second day, after its `Keep`: it is remembered as it was.
    let days = [
        (1, json!([null, null, null])),
        (2, json!([["02"], null])),
        (3, json!([["02", "03"], ["02"], null])),
        (3, json!([["02", "03"], ["02"], null])),
        (4, json!([["02", "03", "04"], ["02", "04"], null])),
    ];
    let steps = night(REMEMBERS, 1, &[]).steps;
    let mut resumed = 0;
    for polls in 1..steps + 5 {
        let mut memory = Memory::losing(STORE_BYTES);
        for (at, (day, seen)) in days.iter().enumerate() {
            let night = night_of(&mut memory, REMEMBERS, *day, polls * 10 + at as u64, &[polls]);
            let mut report = night.outside.reports.last().expect("a report").clone();
            let pass = report.as_array_mut().and_then(Vec::pop).expect("it says which pass it was");
            assert!(pass == 1 || pass == 2, "{pass}");
            resumed += u32::from(pass == 2);
            assert_eq!(report, *seen, "day {day}, crash at {polls}");
            memory = memory.restart("boot");
        }
    }
    assert!(resumed > 50, "{resumed}");
}

#[test]
fn a_run_that_is_not_kept_remembers_nothing() {
    let seen = Seen::default();
    let job = Arc::new(Job::from_ron("night", REMEMBERS, Path::new("."), &handlers(&seen)).expect("a good job").job);
    for seed in 0..2 {
        let sim = Sim::new(seed);
        let store = StoreChoice::Memory { limit: STORE_BYTES };
        let options = RunOptions { store, ..RunOptions::default() };
        let record = sim.run(Runner::new(sim.world()).start(&job, options).expect("it starts")).expect("it ends");
        assert_eq!(record.outcome, RunOutcome::Succeeded);
        assert_eq!(lock(&seen).reports.pop(), Some(json!([null, null, null, 1])));
    }
}

/// A disk that never says what was kept.
struct Hangs(Memory);

impl Store for Hangs {
    fn call(&self, request: Request) -> BoxFuture<'_, Result<Reply, StoreError>> {
        match request {
            Request::StateOf(..) => Box::pin(std::future::pending()),
            request => self.0.call(request),
        }
    }

    fn call_blocking(&self, request: Request) -> Result<Reply, StoreError> {
        self.0.call_blocking(request)
    }
}

#[test]
fn a_disk_that_does_not_say_what_was_kept_holds_up_nobody_beyond_the_deadline() {
    let handlers = handlers(&Seen::default());
    let job = Arc::new(Job::from_ron("night", REMEMBERS, Path::new("."), &handlers).expect("a good job").job);
    let sim = Sim::new(1);
    let keeping = Keeping {
        state: State::new(Arc::new(Hangs(Memory::new(STORE_BYTES)))),
        trigger: "manual".into(),
        fire_key: None,
        kind: RunKind::Foreground,
        alone: true,
    };
    let options = RunOptions { deadline: Some(ms(10_000)), ..RunOptions::default() };
    let runner = Runner::new(sim.world());
    let night = async { runner.begin(&job, options, &keeping).await.expect("it starts").await };
    let record = sim.run(night).expect("it ends");
    assert_eq!(record.outcome, RunOutcome::DeadlineExceeded);
    assert_eq!((record.stages[1].counts.items, record.stages[1].counts.timed_out), (2, 2));
    assert_eq!(sim.leaked(), 0);
}

#[test]
fn a_repetition_runs_held_items_only_when_it_is_asked_to() {
    let text = hold("");
    let whole = night(&text, 3, &[]);
    let mut seen_held = 0;
    for polls in (1..whole.steps).step_by(7) {
        for held in [false, true] {
            let mut memory = Memory::losing(STORE_BYTES);
            let first = night_of(&mut memory, &text, 1, 3, &[polls]);
            let left = first.record["stages"][1]["held"].as_u64().expect("a number");
            if left == 0 {
                continue;
            }
            seen_held += 1;
            let again = Seen::default();
            let sim = Sim::new(9);
            let state = State::new(Arc::new(memory.restart("boot")));
            let repeated = async {
                let of = state.details("night").await.expect("the state answers").expect("it is there");
                let run = NewRun {
                    run: "again".into(),
                    job: "night".into(),
                    trigger: "retry".into(),
                    fire_key: None,
                    kind: RunKind::Foreground,
                    due_ms: of.head.due_ms,
                    clocks: Clocks { wall_ms: 0, boot_ms: 0 },
                    deadline_ms: None,
                    budget_ms: None,
                    definition: of.definition.clone(),
                    params: of.params.clone(),
                    options: of.options.clone(),
                    alone: true,
                };
                let plan = CopyPlan { parent: of.head.run.clone(), anew: vec![3, 4], held };
                let copied = state.copy_for_retry(plan, run).await.expect("the state answers");
                assert!(matches!(copied, Copied::Now(_)), "{copied:?}");
                assert!(state.rows("again").release().await.expect("the state answers"));
                let surroundings = Surroundings { handlers: handlers(&again), ..Surroundings::default() };
                let job = Arc::new(kept_job(&of, &surroundings).expect("the same job").job);
                let runner = Runner::new(sim.world());
                let run = runner.resume(&job, RunOptions::default(), &state, "again").await.expect("it starts");
                serde_json::to_value(run.await).expect("JSON")
            };
            let record = sim.run(repeated).expect("it ends");
            let again = std::mem::take(&mut *lock(&again));
            let ran = again.effects.keys().filter(|(stage, _)| stage == "work").count() as u64;
            let work = &record["stages"][1];
            assert_eq!((ran, work["held"].as_u64()), if held { (left, Some(0)) } else { (0, Some(left)) }, "{record}");
            assert_eq!(record["outcome"], if held { "succeeded" } else { "partial" }, "{record}");
            let report = again.reports.last().expect("it is made anew");
            let missing = report["missing"].as_array().map(Vec::len);
            assert_eq!(missing, Some(if held { 0 } else { left as usize }), "{report}");
        }
    }
    assert!(seen_held >= 4, "{seen_held}");
}
