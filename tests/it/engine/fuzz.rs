//! Random jobs under random scripts: what must hold of any run at all.

use super::lab::{Done, Lab, Script, lazy, ms, options};
use lamplighter::{
    item::RunOutcome,
    run::{RunOptions, StoreChoice},
};

/// One stage of a random job, as the oracles need it.
struct Made {
    name: String,
    from: Option<usize>,
    /// It passes each item on as one value.
    plain: bool,
    /// The report over it, which sees everything.
    report: bool,
}

fn pick<'a>(dice: &mut fastrand::Rng, of: &[&'a str]) -> &'a str {
    of[dice.usize(..of.len())]
}

fn behaviour(dice: &mut fastrand::Rng) -> String {
    match dice.u32(..12) {
        0 => format!("\"fails\": {}", dice.u32(1..4)),
        1 => "\"bad\": 1".into(),
        2 => format!("\"ms\": {}", dice.u32(1..60)),
        3 if dice.bool() => "\"panic\": 1".into(),
        4 if dice.bool() => "\"hang\": 1".into(),
        _ => format!("\"jit\": {}", dice.u32(..6)),
    }
}

/// A job with one or two sources, some worker stages, each reading one before it, and a report over each leaf.
fn random_job(dice: &mut fastrand::Rng) -> (String, Vec<Made>) {
    let mut made: Vec<Made> = Vec::new();
    let mut text = String::new();
    for at in 0..1 + dice.usize(..2) {
        let items: Vec<String> = (0..dice.usize(..14))
            .map(|i| format!("{{\"id\": \"P{i}\", \"g\": {}, {}}}", i % 3, behaviour(dice)))
            .collect();
        let key = pick(dice, &["", "key: \"{{ item.id }}\","]);
        let acts = pick(dice, &["", "", ", Call(handler: \"act\", args: {\"jit\": 2, \"hang\": 0, \"panic\": 0})"]);
        let acts = if acts.is_empty() { "" } else { ", Jq(filter: \"., empty\")" };
        text += &format!(
            "Stage(name: \"s{at}\", from: [], {key} tolerate: \"99\", run: [Items(list: [{}]){acts}]), ",
            items.join(", ")
        );
        made.push(Made { name: format!("s{at}"), from: None, plain: true, report: false });
    }
    for at in 0..1 + dice.usize(..4) {
        let from = dice.usize(..made.len());
        let retry = pick(
            dice,
            &[
                "",
                "retry: Retry(max_attempts: 3, initial_interval: \"3ms\"),",
                "retry: Retry(max_attempts: 2, initial_interval: \"12s\", max_interval: \"12s\"),",
            ],
        );
        let order = pick(dice, &["", "", "order: Input,"]);
        // Without a bound an item may hang for ever: each stage has at least one.
        let bound = pick(
            dice,
            &[
                "timeout: \"20ms\",",
                "item_deadline: \"50ms\",",
                "deadline: \"45ms\", on_deadline: Continue,",
                "deadline: \"15ms\", on_deadline: Continue, item_deadline: \"9ms\",",
                "deadline: \"2m\", on_deadline: Continue, timeout: \"7ms\",",
            ],
        );
        let tolerate =
            pick(dice, &["\"99\"", "\"99\"", "\"30%\"", "\"1\", fail_fast: true", "\"50%\", fail_fast: true"]);
        let plain = dice.u32(..4) > 0;
        let fan = if plain { "" } else { ", Jq(filter: \"., .\")" };
        text += &format!(
            "Stage(name: \"w{at}\", from: [\"{}\"], workers: {}, waiting: {}, buffer: {}, {retry} {order} {bound} tolerate: {tolerate},
                run: [Call(handler: \"act\"){fan}]), ",
            made[from].name,
            dice.u32(1..4),
            dice.u32(..4),
            dice.u32(..3),
        );
        made.push(Made { name: format!("w{at}"), from: Some(from), plain, report: false });
    }
    for at in 0..made.len() {
        if made.iter().any(|stage| stage.from == Some(at)) {
            continue;
        }
        let name = made[at].name.clone();
        text += &format!(
            "Stage(name: \"r-{name}\", from: [\"{name}\"], gather: All, run: [Jq(filter: \"{{ok: ([items] | length), missing: ([failures] | length), counts: counts}}\"), Call(handler: \"sink\")]), "
        );
        made.push(Made { name: format!("r-{name}"), from: Some(at), plain: true, report: true });
        if dice.bool() {
            text += &format!(
                "Stage(name: \"b-{name}\", from: [\"{name}\"], gather: By(\"{{{{ item.g }}}}\"), tolerate: \"99\", run: [Jq(filter: \"[items] | length\"), Call(handler: \"sink\")]), "
            );
        }
    }
    let deadline = pick(dice, &["", "", "deadline: \"40ms\", ", "deadline: \"5m\", "]);
    // A stage may not have longer bounds than its job.
    let text = if deadline.contains("40ms") {
        text.replace("\"2m\"", "\"39ms\"").replace("\"45ms\"", "\"30ms\"").replace("\"50ms\"", "\"31ms\"")
    } else {
        text
    };
    (format!("Job({deadline}stages: [{text}])"), made)
}

fn hold(done: &Done, made: &[Made]) {
    let cancelled = done.reason().contains("cancelled by") || done.reason().contains("fail_fast");
    let deadline = done.reason().contains("while stages still ran");
    for stage in made {
        let Some(from) = stage.from else { continue };
        let (here, above) = (done.counts(&stage.name), done.counts(&made[from].name));
        let context = || format!("seed {} stage {}: {:?}", done.seed, stage.name, done.record);
        if !stage.report {
            let (plain, several) = (made[from].plain, 2 * above.ok);
            let expected = if plain { above.ok } else { several };
            if cancelled || deadline {
                assert!(here.items <= expected, "{}", context());
            } else {
                assert_eq!(here.items, expected, "{}", context());
            }
        } else if here.ok == 1 {
            let seen = &done.sunk.iter().find(|(at, ..)| *at == stage.name).expect("it was sunk").2;
            let given = if made[from].plain { above.ok } else { 2 * above.ok };
            assert_eq!(seen["ok"], given, "{}", context());
            let mut missing = 0;
            let mut at = Some(from);
            while let Some(place) = at {
                missing += done.counts(&made[place].name).missing();
                assert_eq!(seen["counts"][&made[place].name]["items"], done.counts(&made[place].name).items);
                at = made[place].from;
            }
            assert_eq!(seen["missing"], missing, "{}", context());
        }
        if cancelled {
            assert_ne!(done.outcome(), RunOutcome::Succeeded);
        } else if !deadline {
            assert_eq!(here.cancelled, 0, "{}", context());
        }
    }
}

fn runs(from: u64, to: u64, lazily: bool) {
    for number in from..to {
        let mut dice = fastrand::Rng::with_seed(number);
        let (text, made) = random_job(&mut dice);
        let lab = Lab::job(&text).deferring();
        for seed in 0..4 {
            let script = match dice.u32(..4) {
                0 => Script::CancelTwice(ms(dice.u64(..60)), dice.usize(..40)),
                _ => Script::Await,
            };
            let store = if lazily { StoreChoice::Given(lazy(64 << 20)) } else { options().store };
            let done = lab.run_with(number * 100 + seed, RunOptions { store, ..options() }, script);
            hold(&done, &made);
        }
    }
}

#[test]
fn random_jobs_hold_what_must_hold() {
    runs(0, 150, false);
}

#[test]
fn random_jobs_hold_it_too_over_a_store_that_takes_its_time() {
    runs(1000, 1100, true);
}
