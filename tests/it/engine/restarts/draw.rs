//! What a seed draws: a job, what goes wrong outside and on the disk, and when processes die.

use super::{
    disk::Bad,
    outside::{Around, handlers},
};
use lamplighter::{action::Handlers, item::RunOutcome, job::Job};
use std::{path::Path, sync::Arc};

/// How often handlers misbehave, of a hundred.
#[derive(Clone, Copy, Debug, Default)]
pub struct Acts {
    pub dice: u64,
    pub fails: u64,
    pub bad: u64,
    pub panics: u64,
    pub hangs: u64,
    pub slow: u64,
}

/// What an operator does after the first night.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    Nothing,
    /// It is repeated; held items too or not, the outside healed or not.
    Retry {
        held: bool,
        healed: bool,
    },
}

/// A process and how it dies.
#[derive(Clone, Copy, Debug, Default)]
pub struct Life {
    /// It dies at this poll, if it has not ended before.
    pub polls: Option<u64>,
    /// How long it takes until somebody starts the next one, in milliseconds.
    pub down_ms: u64,
    /// The machine starts anew as well.
    pub reboots: bool,
    /// Somebody cancels its run after so many milliseconds and polls.
    pub cancel: Option<(u64, usize)>,
    pub bad: Bad,
    /// It does not go on with a run that was left: it settles that as interrupted and begins anew.
    pub gives_up: bool,
}

/// All that a seed draws.
pub struct Case {
    /// The job, checked once, with handlers that act on what is around them.
    pub job: Arc<Job>,
    pub handlers: Handlers,
    pub around: Around,
    pub acts: Acts,
    /// The state is a real file.
    pub is_file: bool,
    /// Nothing but the order of things can change what comes out: no deadline, no cancel, nobody in a hurry.
    pub steady: bool,
    /// The job has deadlines.
    pub bounded: bool,
    /// What a source lists depends on nothing that heals.
    pub lists_well: bool,
    /// Ends after which each notice is sent.
    pub notices: Vec<Vec<RunOutcome>>,
    /// Two processes at once.
    pub two: bool,
    /// The firing has an identity: it is begun once.
    pub fire_key: bool,
    pub after: After,
    pub second_night: bool,
    pub forgets: bool,
    dice: fastrand::Rng,
    bad: bool,
    dies: bool,
    cancels: bool,
    gives_up: bool,
}

/// The shape of a job while it is drawn.
struct Shape {
    names: Vec<String>,
    stages: String,
    has_reader: Vec<bool>,
}

fn pick<T: Copy>(dice: &mut fastrand::Rng, of: &[T]) -> T {
    of[dice.usize(..of.len())]
}

impl Case {
    pub fn draw(seed: u64) -> Case {
        let mut dice = fastrand::Rng::with_seed(seed ^ 0x005e_ed0f_1a11);
        let is_file = seed.is_multiple_of(8);
        let mut on = |of: u32| dice.u32(..of) == 0;
        let (fails, bad, panics, hangs, slow) = (on(2), on(3), on(5), on(10), on(3));
        let (stage_deadlines, run_deadline, item_deadlines) = (on(6), on(8), on(6));
        let (fail_fast, keeps, writes, holds, gathers, doubles) = (on(10), on(3), on(7), on(4), !on(4), on(6));
        let (bad_disk, dies, cancels, gives_up, two) = (on(3), !on(8), on(10), on(12), is_file && on(3));
        let (fire_key, second_night, forgets, retries) = (on(3), on(4) || keeps, on(8), on(4));
        let share = |dice: &mut fastrand::Rng, on: bool, most: u64| if on { dice.u64(5..most) } else { 0 };
        let acts = Acts {
            dice: dice.u64(..),
            fails: share(&mut dice, fails, 60),
            bad: share(&mut dice, bad, 25),
            panics: share(&mut dice, panics, 20),
            hangs: share(&mut dice, hangs, 15),
            slow: share(&mut dice, slow, 60),
        };
        let mut shape = Shape { names: Vec::new(), stages: String::new(), has_reader: Vec::new() };
        let mut lists_well = true;
        for at in 0..1 + usize::from(dice.u32(..4) == 0) {
            lists_well &= source(&mut shape, &mut dice, at, doubles, stage_deadlines);
        }
        let run_bound = run_deadline.then(|| pick(&mut dice, &[20, 45, 20_000, 3_600_000]));
        for at in 0..1 + dice.usize(..3) {
            let draws = Draws { holds, keeps, writes, fail_fast, stage_deadlines, item_deadlines, run_bound };
            worker(&mut shape, &mut dice, at, &draws);
        }
        if gathers {
            gather(&mut shape, &mut dice, writes);
        }
        let notices: Vec<Vec<RunOutcome>> = (0..dice.usize(..3)).map(|_| ends(&mut dice)).collect();
        let told: Vec<String> = notices.iter().enumerate().map(|(place, when)| notify(place, when)).collect();
        let deadline = run_bound.map(|bound| format!("deadline: \"{bound}ms\", ")).unwrap_or_default();
        let overlap = if two { "overlap: Allow(max: 4), " } else { "" };
        let text = format!(
            "Job(timezone: \"UTC\", {deadline}{overlap}on_finish: [{}], stages: [{}])",
            told.join(", "),
            shape.stages
        );
        let bounded = text.contains("deadline: \"");
        let steady = !bounded && !text.contains("fail_fast") && acts.hangs == 0 && !cancels && !two;
        let retry = After::Retry { held: dice.bool(), healed: dice.bool() };
        Case {
            acts,
            is_file,
            steady,
            bounded,
            lists_well,
            notices,
            two,
            fire_key,
            after: if retries { retry } else { After::Nothing },
            second_night,
            forgets,
            dice,
            bad: bad_disk,
            dies,
            cancels,
            gives_up,
            ..Case::of(&text)
        }
    }

    /// This job, with nothing else.
    pub fn of(text: &str) -> Case {
        let around = Around::default();
        let handlers = handlers(&around);
        let checked = Job::from_ron("night", text, Path::new("."), &handlers)
            .unwrap_or_else(|problems| panic!("{text}\n{}", problems.render(false)));
        Case {
            job: Arc::new(checked.job),
            handlers,
            around,
            acts: Acts::default(),
            is_file: false,
            steady: true,
            bounded: text.contains("deadline: \""),
            lists_well: true,
            notices: Vec::new(),
            two: false,
            fire_key: false,
            after: After::Nothing,
            second_night: false,
            forgets: false,
            dice: fastrand::Rng::with_seed(0),
            bad: false,
            dies: false,
            cancels: false,
            gives_up: false,
        }
    }

    /// The next process, where an undisturbed night takes so many polls. After a few they live until the night has ended.
    pub fn life(&mut self, steps: u64, before: u32) -> Life {
        let calm = !self.dies || before >= 6;
        let dice = &mut self.dice;
        let polls = match dice.u32(..4) {
            _ if calm || (before > 0 && dice.u32(..4) == 0) => None,
            0 => Some(dice.u64(1..40)),
            _ => Some(dice.u64(1..steps.max(2))),
        };
        let cancel =
            (self.cancels && dice.u32(..3) == 0).then(|| (pick(dice, &[0, 1, 3, 5, 10, 20]), dice.usize(..50)));
        let bad = match self.bad {
            true => Bad {
                slow_turns: dice.usize(..6),
                slow_ms: if dice.u32(..4) == 0 { dice.u64(..4) } else { 0 },
                fails_at: (!calm && dice.u32(..3) == 0).then(|| (dice.u64(1..120), dice.bool())),
                fails_late: dice.bool(),
                ages: pick(dice, &[0, 0, 5, 40]),
            },
            false => Bad { ages: pick(dice, &[0, 10]), ..Bad::default() },
        };
        Life {
            polls,
            down_ms: pick(dice, &[0, 0, 3, 40, 10_000, 3_600_000]),
            reboots: !self.is_file && dice.u32(..4) == 0,
            cancel,
            bad,
            gives_up: self.gives_up && dice.u32(..3) == 0,
        }
    }

    /// A repetition runs held items too.
    pub fn runs_held(&self) -> bool {
        matches!(self.after, After::Retry { held: true, .. })
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        pick(&mut self.dice, of)
    }
}

const NOTIFIED: [RunOutcome; 7] = [
    RunOutcome::Succeeded,
    RunOutcome::Partial,
    RunOutcome::Failed,
    RunOutcome::Cancelled,
    RunOutcome::DeadlineExceeded,
    RunOutcome::Interrupted,
    RunOutcome::Quarantined,
];

fn ends(dice: &mut fastrand::Rng) -> Vec<RunOutcome> {
    NOTIFIED.into_iter().filter(|_| dice.u32(..3) > 0).collect()
}

fn notify(place: usize, when: &[RunOutcome]) -> String {
    let when: Vec<String> = when.iter().map(|outcome| format!("{outcome:?}")).collect();
    format!(
        "Notify(when: [{}], run: [Call(handler: \"notice\", args: {{\"place\": {place}, \"outcome\": \"{{{{ run.outcome }}}}\"}})])",
        when.join(", ")
    )
}

/// A source. False when what it lists is not what it should.
fn source(shape: &mut Shape, dice: &mut fastrand::Rng, at: usize, doubles: bool, deadlines: bool) -> bool {
    let items: Vec<String> = (0..dice.usize(..10))
        .map(|i| {
            let id = if doubles && dice.u32(..4) == 0 { i.saturating_sub(1) } else { i };
            format!("{{\"id\": \"P{id}\", \"g\": {}}}", i % 3)
        })
        .collect();
    let key = match dice.u32(..3) {
        0 if !doubles => "",
        1 if !doubles => "key: \"{{ key }}-{{ item.id }}\",",
        _ => "key: \"{{ item.id }}\",",
    };
    let list = items.join(", ");
    let later = if dice.u32(..4) == 0 { ", Call(handler: \"work\", args: {\"place\": 1})" } else { "" };
    let (actions, good) = match dice.u32(..8) {
        0 => (
            format!("Call(handler: \"list\", args: {{\"items\": [{list}], \"fails\": 1}}), Jq(filter: \".[]\")"),
            false,
        ),
        1 => (format!("Call(handler: \"list\", args: {{\"items\": [{list}]}}), Jq(filter: \".[]\")"), true),
        2 => {
            let values: Vec<String> = items.iter().map(|item| format!("{}, ", item.replace('"', "\\\""))).collect();
            (format!("Jq(filter: \"{}error(\\\"cut\\\")\")", values.concat()), false)
        }
        3 => (
            format!("Items(list: [{list}]), Jq(filter: \"if .id == \\\"P2\\\" then error(\\\"row\\\") else . end\")"),
            false,
        ),
        _ => (format!("Items(list: [{list}])"), true),
    };
    let deadline = if deadlines && dice.u32(..3) == 0 { "deadline: \"10ms\", on_deadline: Continue," } else { "" };
    shape.stages +=
        &format!("Stage(name: \"s{at}\", from: [], {key} {deadline} tolerate: \"99\", run: [{actions}{later}]), ");
    shape.names.push(format!("s{at}"));
    shape.has_reader.push(false);
    good && !doubles && later.is_empty()
}

struct Draws {
    holds: bool,
    keeps: bool,
    writes: bool,
    fail_fast: bool,
    stage_deadlines: bool,
    item_deadlines: bool,
    run_bound: Option<u64>,
}

fn worker(shape: &mut Shape, dice: &mut fastrand::Rng, at: usize, draws: &Draws) {
    let from = if dice.bool() { shape.names.len() - 1 } else { dice.usize(..shape.names.len()) };
    let mut fields = String::new();
    let within = |dice: &mut fastrand::Rng, of: &[u64], outer: u64| {
        let fits: Vec<u64> = of.iter().copied().filter(|bound| *bound <= outer).collect();
        fits[dice.usize(..fits.len())]
    };
    match dice.u32(..5) {
        0 | 1 => {
            let wait = pick(dice, &[3, 5, 10]);
            let most = dice.u32(2..5);
            fields += &format!("retry: Retry(max_attempts: {most}, initial_interval: \"{wait}ms\", jitter: Exact), ");
        }
        2 if draws.run_bound.is_none() => {
            fields +=
                "retry: Retry(max_attempts: 3, initial_interval: \"12s\", max_interval: \"15s\", jitter: Exact), ";
        }
        _ => {}
    }
    if dice.u32(..5) == 0 {
        fields += "order: Input, ";
    }
    if draws.holds && dice.bool() {
        fields += "on_crash: Hold, ";
    }
    let mut inner = draws.run_bound.unwrap_or(u64::MAX);
    if draws.stage_deadlines && dice.bool() {
        inner = within(dice, &[5, 15, 20, 45, 25_000, 3_600_000], inner);
        fields += &format!("deadline: \"{inner}ms\", ");
        fields += if dice.u32(..5) > 0 { "on_deadline: Continue, " } else { "" };
    } else if draws.run_bound.is_some() && dice.bool() {
        fields += "on_deadline: Continue, ";
    }
    if draws.item_deadlines && dice.bool() {
        inner = within(dice, &[5, 10, 15, 30, 20_000], inner);
        fields += &format!("item_deadline: \"{inner}ms\", ");
    }
    let times_out = dice.u32(..6) == 0 && inner >= 20;
    let exact = if times_out { ", \"exact\": 1" } else { "" };
    if times_out {
        fields += &format!("timeout: \"{}ms\", ", within(dice, &[7, 12, 17], inner));
    }
    let tolerate = if draws.fail_fast && dice.bool() {
        pick(dice, &["\"1\", fail_fast: true", "\"20%\", fail_fast: true"])
    } else {
        pick(dice, &["\"99\"", "\"99\"", "\"2\"", "\"30%\""])
    };
    let mut actions = String::new();
    let keeps = draws.keeps && dice.u32(..3) > 0;
    if keeps {
        actions += "Jq(filter: \". + {before: $state}\"), ";
    }
    actions += &format!("Call(handler: \"work\", args: {{\"place\": 0{exact}}})");
    if keeps {
        actions += ", Keep(filter: \"$run.date[9:] | tonumber\"), Jq(filter: \"del(.before)\")";
    }
    if draws.writes && dice.bool() {
        actions += &format!(", Write(json: \"w{at}/{{{{ key }}}}.json\")");
    }
    if dice.u32(..3) == 0 {
        let fan = pick(dice, &["., .", "{id, g, part: (1, 2, 3)}", "select(.g != 1)"]);
        actions += &format!(", Jq(filter: \"{fan}\")");
        if !fan.contains("select") && dice.u32(..3) == 0 {
            actions += &format!(", Call(handler: \"work\", args: {{\"place\": 5{exact}}})");
        }
    }
    shape.stages += &format!(
        "Stage(name: \"w{at}\", from: [\"{}\"], workers: {}, waiting: {}, buffer: {}, {fields} tolerate: {tolerate}, run: [{actions}]), ",
        shape.names[from],
        dice.u32(1..4),
        dice.u32(..4),
        pick(dice, &["0", "0", "1", "4"]),
    );
    shape.has_reader[from] = true;
    shape.names.push(format!("w{at}"));
    shape.has_reader.push(false);
}

/// Groups of some leaves, and a report of all.
fn gather(shape: &mut Shape, dice: &mut fastrand::Rng, writes: bool) {
    let leaves: Vec<String> =
        shape.names.iter().zip(&shape.has_reader).filter(|(_, read)| !**read).map(|(name, _)| name.clone()).collect();
    let mut from: Vec<String> = leaves.iter().map(|name| format!("\"{name}\"")).collect();
    for name in leaves {
        if dice.bool() {
            shape.stages += &format!(
                "Stage(name: \"g-{name}\", from: [\"{name}\"], gather: By(\"{{{{ item.g }}}}\"), workers: 2, tolerate: \"99\", \
                 run: [Jq(filter: \"{{g: $key, items: [items], missing: [failures | {{stage, key, class}}]}}\"), \
                 Call(handler: \"work\", args: {{\"place\": 1}})]), "
            );
            from.push(format!("\"g-{name}\""));
        }
    }
    let write = if writes { ", Write(json: \"report.json\")" } else { "" };
    shape.stages += &format!(
        "Stage(name: \"report\", from: [{}], gather: All, run: [Jq(filter: \"{{items: [items], missing: [failures], counts: counts}}\"), \
         Call(handler: \"report\"){write}]), ",
        from.join(", ")
    );
}
