//! A stop at any moment (RUNS section 6): what was done stays done, what was not goes on in the next pass.

use super::{
    kept::{Hit, Night, STORE_BYTES, handlers, hit_night, hold, holds, job},
    lab::ms,
};
use futures_lite::FutureExt;
use lamplighter::{
    item::{Counts, Outcome, RunOutcome, RunRecord, Value},
    job::Job,
    run::{Keeping, RunHandle, RunOptions, Runner, StoreChoice},
    store::{RowEnd, RowFilter, RowQuery, RunKind, RunPhase, State, memory::Memory},
    world::{World, sim::Sim},
};
use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

/// After a stop: the run waits to be resumed, nothing was recorded as its end, and no item was settled by it.
pub fn was_let_go(memory: &Memory, record: &Value, crashes: usize) {
    assert_eq!(record["reason"], "stopped: it will be resumed", "{record}");
    assert_eq!(record["unsaved"], Value::Null, "{record}");
    for stage in record["stages"].as_array().expect("a list") {
        assert_eq!(stage["classes"]["lost"], Value::Null, "{record}");
        assert_eq!((&stage["cancelled"], &stage["not_reached"]), (&0.into(), &0.into()), "{record}");
    }
    let state = State::new(Arc::new(memory.restart("boot")));
    let look = async {
        let details = state.details("night").await.expect("it answers").expect("it is there");
        assert_eq!((details.head.phase, details.head.outcome), (RunPhase::Interrupted, None));
        assert!(!details.head.alive && details.head.crashes <= crashes as u32, "a stop is no crash");
        assert!(details.record.is_none() && state.notices().await.expect("it answers").is_empty());
        let query = RowQuery { filter: RowFilter::Missing, limit: 1000, ..RowQuery::default() };
        let rows = state.rows(&details.head.run).row_heads(query).await.expect("it answers");
        let by_the_stop =
            |end: &RowEnd| matches!(end, RowEnd::Done(Outcome::Cancelled | Outcome::NotReached | Outcome::TimedOut));
        assert!(!rows.iter().any(|row| by_the_stop(&row.end)), "{rows:?}");
    };
    Sim::new(0).run(look).expect("no deadlock");
}

fn stopped(text: &str, seed: u64, hits: &[Hit]) -> Night {
    hit_night(&mut Memory::losing(STORE_BYTES), text, 1, seed, hits)
}

/// Items of which some do what `extra` says, worked on in two stages.
fn items(work: &str, top: &str, extra: impl Fn(usize) -> &'static str) -> String {
    let list: Vec<String> = (0..6).map(|at| format!("{{\"id\": \"P{at}\"{}}}", extra(at))).collect();
    format!(
        "Job({top} stages: [
            Stage(name: \"list\", key: \"{{{{ item.id }}}}\", run: [Items(list: [{}])]),
            Stage(name: \"work\", {work} tolerate: \"99\", run: [Call(handler: \"work\")]),
            Stage(name: \"more\", from: [\"work\"], tolerate: \"99\", run: [Call(handler: \"work\")]),
            Stage(name: \"report\", from: [\"more\"], gather: All, run: [
                Jq(filter: \"{{items: [items], missing: [failures], counts: counts}}\"),
                Call(handler: \"report\"),
            ]),
        ])",
        list.join(", ")
    )
}

/// Jobs whose items all come to their end within half of the grace period: a stop costs none of them an attempt.
fn quick() -> Vec<String> {
    let once = |at: usize| if at % 2 == 1 { ", \"once\": 1" } else { "" };
    let retry =
        |wait: &str| format!("workers: 2, retry: Retry(max_attempts: 3, initial_interval: \"{wait}\", jitter: Exact),");
    vec![
        job(6, "key: \"{{ item.id }}\",", "workers: 3, buffer: 2,"),
        job(6, "", "workers: 1, buffer: 0,"),
        job(6, "key: \"{{ item.id }}\",", "workers: 3, order: Input,"),
        items(&retry("30ms"), "", once),
        items(&retry("1m"), "", once),
        items("workers: 3, waiting: 1, buffer: 0,", VENDOR, |at| if at < 4 { ", \"admit\": 1" } else { "" }),
        items("workers: 3,", "", |at| if at == 2 { ", \"slow\": 4000" } else { "" }),
        // One of six may be missing, and is: of a part of them it would be too many.
        items("workers: 2, buffer: 0,", "", |_| "").replace(
            "from: [\"work\"], tolerate: \"99\", run: [",
            r#"from: ["work"], tolerate: "20%", fail_fast: true, min_items: 6, run: [
                Jq(filter: "if .id == \"P0\" then error(\"bad\") else . end"), "#,
        ),
        hold(""),
        hold("retry: Retry(max_attempts: 2, initial_interval: \"1m\", jitter: Exact),")
            .replace("\"P1\"}", "\"P1\", \"once\": 1}"),
        hold("retry: Retry(max_attempts: 2, initial_interval: \"5s\", jitter: Exact),")
            .replace("\"P1\"}", "\"P1\", \"once\": 1}"),
    ]
}

#[test]
fn a_stop_at_any_poll_loses_nothing_and_does_nothing_twice() {
    for text in quick() {
        let whole = stopped(&text, 1, &[]);
        let mut stops = 0;
        for polls in 1..whole.steps {
            let night = stopped(&text, 1, &[Hit::Stop(polls)]);
            holds(&night, &whole, &polls);
            assert_eq!(night.outside.effects, whole.outside.effects, "stop at {polls} of {text}");
            assert_eq!(night.outside.ended, whole.outside.ended, "stop at {polls} of {text}");
            assert_eq!(night.outside.reports.len(), 1, "stop at {polls} of {text}");
            stops += night.stops as u64;
        }
        assert!(stops > whole.steps / 2, "{stops} of {} polls: {text}", whole.steps);
    }
}

#[test]
fn a_night_that_is_stopped_again_and_again_comes_to_its_end_without_a_crash() {
    for text in quick() {
        let whole = stopped(&text, 3, &[]);
        let mut stops = 0;
        for seed in 0..6 {
            let mut dice = fastrand::Rng::with_seed(seed);
            let hits: Vec<Hit> = (0..15).map(|_| Hit::Stop(dice.u64(10..whole.steps / 2))).collect();
            let night = stopped(&text, seed, &hits);
            stops += night.stops;
            holds(&night, &whole, &hits);
            assert_eq!(night.outside.ended, whole.outside.ended, "{hits:?} of {text}");
        }
        assert!(stops > 12, "{stops} stops: {text}");
    }
}

/// A vendor that lets in one call at a time, and not too often.
const VENDOR: &str =
    "services: [Service(name: \"vendor\", base: \"http://127.0.0.1:1\", rate: [\"1/40ms\"], max_in_flight: 1)],";

/// Items that do not end within half of the grace period: one takes its time, one never answers, and the report is slow.
fn slow() -> String {
    let text = items("workers: 3,", VENDOR, |at| match at {
        1 => ", \"slow\": 8000",
        // Others wait for its place at the vendor.
        3 => ", \"admit\": 1, \"hang\": 1",
        _ => ", \"admit\": 1",
    });
    text.replace("{items: [items]", "{slow: 8000, items: [items]")
        .replace("Call(handler: \"report\")", "Call(handler: \"work\"), Call(handler: \"report\")")
        .replace("tolerate: \"99\", run", "tolerate: \"99\", timeout: \"1h\", run")
}

#[test]
fn what_does_not_end_is_cut_at_half_of_the_grace_period_and_begun_once_more() {
    let text = slow();
    let whole = stopped(&text.replace(", \"hang\": 1", ""), 1, &[]);
    let mut cut = 0;
    for polls in 1..whole.steps {
        let night = stopped(&text, 1, &[Hit::Stop(polls)]);
        let record = &night.record;
        assert!(record["outcome"] == "succeeded" || record["outcome"] == "partial", "{record}");
        if night.stops == 0 {
            continue;
        }
        for ((stage, key), times) in &night.outside.effects {
            let may = u32::from(["P1", "P3"].contains(&key.as_str()) || stage == "report");
            assert!(*times <= 1 + may, "stop at {polls}: {stage} {key} {times}");
            cut += u32::from(*times == 2);
        }
        let lost = record["stages"].as_array().expect("a list").iter().any(|stage| stage["cancelled"] != 0);
        assert!(!lost, "{record}");
    }
    assert!(cut > 20, "{cut}");
}

#[test]
fn a_kill_ends_a_stop_at_once_and_the_run_is_resumed_all_the_same() {
    for text in quick().into_iter().take(7).chain([slow().replace(", \"hang\": 1", "")]) {
        let whole = stopped(&text, 2, &[]);
        for polls in (1..whole.steps).step_by(3) {
            for more in [1, 5] {
                let night = stopped(&text, 2, &[Hit::StopAndKill(polls, more)]);
                holds(&night, &whole, &(polls, more));
            }
        }
    }
}

#[test]
fn a_person_who_cancels_during_a_stop_has_the_last_word() {
    for text in quick().into_iter().chain([slow()]) {
        let whole = stopped(&text.replace(", \"hang\": 1", ""), 2, &[]);
        let mut cancelled = 0;
        for polls in (1..whole.steps).step_by(2) {
            let night = stopped(&text, 2, &[Hit::StopAndCancel(polls, 1 + polls % 9)]);
            if night.record["outcome"] != "cancelled" {
                continue;
            }
            cancelled += 1;
            assert_eq!((night.stops, &night.record["reason"]), (0, &"cancelled by a person".into()));
            for stage in night.record["stages"].as_array().expect("a list") {
                let of = |name: &str| stage[name].as_u64().unwrap_or_default();
                let ends = ["ok", "empty", "failed", "timed_out", "cancelled", "not_reached", "held"];
                assert_eq!(ends.map(of).iter().sum::<u64>(), of("items"), "{}", night.record);
            }
            let state = State::new(Arc::new(night.memory.restart("boot")));
            let open = Sim::new(0).run(async move { state.unfinished(None).await.expect("it answers") });
            assert!(open.expect("no deadlock").is_empty(), "it is not resumed");
        }
        assert!(cancelled > 5, "{cancelled}: {text}");
    }
}

#[test]
fn stops_kills_and_crashes_in_any_order_end_as_a_night_without() {
    let jobs: Vec<(String, Night)> =
        quick().into_iter().take(7).map(|text| (text.clone(), stopped(&text, 5, &[]))).collect();
    let (mut ended, mut stops, mut crashes) = (0, 0, 0);
    for seed in 0..400 {
        let mut dice = fastrand::Rng::with_seed(seed);
        let (text, whole) = &jobs[dice.usize(..jobs.len())];
        let hits: Vec<Hit> = (0..dice.usize(1..6))
            .map(|_| {
                let (polls, more) = (dice.u64(1..whole.steps), dice.u64(1..40));
                match dice.u32(..6) {
                    0 | 1 => Hit::Crash(polls),
                    2 => Hit::StopAndKill(polls, more),
                    3 => Hit::StopAndCrash(polls, more),
                    _ => Hit::Stop(polls),
                }
            })
            .collect();
        let night = stopped(text, seed, &hits);
        if night.record["outcome"] == "quarantined" {
            assert!(night.crashes >= 3, "{hits:?}");
            continue;
        }
        holds(&night, whole, &(seed, &hits));
        (ended, stops, crashes) = (ended + 1, stops + night.stops, crashes + night.crashes);
    }
    assert!(ended > 350 && stops > 300 && crashes > 200, "{ended} ended, {stops} stops, {crashes} crashes");
}

#[test]
fn an_attempt_that_must_not_be_repeated_is_held_when_a_stop_cuts_it() {
    let text = hold("").replace("\"P1\"}", "\"P1\", \"slow\": 8000}");
    let whole = stopped(&text, 4, &[]);
    let (mut held, mut not) = (0, 0);
    for polls in 1..whole.steps {
        let night = stopped(&text, 4, &[Hit::Stop(polls)]);
        let work = &night.record["stages"][1];
        assert_eq!(work["items"], 5, "{}", night.record);
        for ((stage, key), times) in &night.outside.effects {
            assert!(stage != "work" || *times == 1, "{key} ran {times} times, stop at {polls}");
        }
        match work["held"].as_u64() {
            Some(0) => not += 1,
            Some(1) => {
                held += 1;
                assert_eq!(night.record["failures"][0]["key"], "P1", "what ended in time is not held");
            }
            other => panic!("{other:?}: {}", night.record),
        }
    }
    assert!(held > 10 && not > 10, "{held} {not}");
}

/// Runs a job that is kept, or not, while `steer` does something with its handle: its record, the state, how long it took.
fn steered<F: Future<Output = ()>>(
    text: &str,
    kept: bool,
    options: RunOptions,
    steer: impl FnOnce(RunHandle, World) -> F,
) -> (RunRecord, State, Duration) {
    let handlers = handlers(&super::kept::Seen::default());
    let job = Arc::new(Job::from_ron("night", text, Path::new("."), &handlers).expect("a good job").job);
    let sim = Sim::new(7);
    let world = sim.world();
    let state = State::new(Arc::new(Memory::new(STORE_BYTES)));
    let runner = Runner::new(world.clone());
    let keeping =
        Keeping { state: state.clone(), trigger: "manual".into(), fire_key: None, kind: RunKind::Serve, alone: true };
    let story = async {
        let run = match kept {
            true => runner.begin(&job, options, &keeping).await.expect("it begins"),
            false => runner
                .start(&job, RunOptions { store: StoreChoice::Memory { limit: STORE_BYTES }, ..options })
                .expect("it starts"),
        };
        let steer = steer(run.handle(), world.clone());
        let steered = async {
            steer.await;
            std::future::pending().await
        };
        run.or(steered).await
    };
    let record = sim.run(story).expect("no deadlock");
    assert_eq!(sim.leaked(), 0);
    (record, state, sim.elapsed())
}

async fn head(state: &State) -> lamplighter::store::RunHead {
    state.details("night").await.expect("it answers").expect("it is there").head
}

#[test]
fn a_run_that_is_not_kept_is_cancelled_by_a_stop() {
    let text = items("", "", |_| ", \"slow\": 3000");
    let (record, ..) = steered(&text, false, RunOptions::default(), |run, world| async move {
        world.sleep(ms(1000)).await;
        run.stop();
        assert!(run.progress().ending && !run.is_settled());
    });
    assert_eq!(record.outcome, RunOutcome::Cancelled);
    assert_eq!(record.reason.as_deref(), Some("cancelled by the stop of its program"));
}

#[test]
fn a_deadline_holds_during_a_stop() {
    let text = items("workers: 6,", "deadline: \"2s\",", |_| ", \"slow\": 4000");
    let (record, state, took) = steered(&text, true, RunOptions::default(), |run, world| async move {
        world.sleep(ms(1000)).await;
        run.stop();
    });
    assert_eq!((record.outcome, took), (RunOutcome::DeadlineExceeded, ms(2000)));
    assert_eq!(record.stages[1].counts.timed_out, 6, "{record:?}");
    let head = Sim::new(0).run(head(&state)).expect("no deadlock");
    assert_eq!((head.phase, head.outcome), (RunPhase::Ended, Some(RunOutcome::DeadlineExceeded)));
}

#[test]
fn a_closed_stage_names_nothing_more_in_a_stop() {
    let list: Vec<String> = (0..9).map(|at| format!("{{\"id\": \"P{at}\", \"slow\": 500}}")).collect();
    let text = format!(
        "Job(stages: [
            Stage(name: \"list\", key: \"{{{{ item.id }}}}\", run: [Items(list: [{}]), Call(handler: \"work\")]),
            Stage(name: \"work\", deadline: \"1s\", on_deadline: Continue, tolerate: \"99\", run: [Call(handler: \"work\")]),
        ])",
        list.join(", ")
    );
    let (record, state, took) = steered(&text, true, RunOptions::default(), |run, world| async move {
        world.sleep(ms(3300)).await;
        assert!(run.progress().stages[1].closed && !run.progress().stages[0].ended);
        run.stop();
    });
    assert_eq!((record.outcome, took), (RunOutcome::Interrupted, ms(3300)));
    assert!(record.stages[1].counts.not_reached > 0, "{record:?}");
    let tally = Sim::new(0).run(async move {
        let rows = state.rows(&head(&state).await.run);
        rows.tally(1).await.expect("it answers").counts
    });
    let (tally, counts) = (tally.expect("no deadlock"), &record.stages[1].counts);
    let of = |counts: &Counts| (counts.ok, counts.timed_out, counts.not_reached);
    assert_eq!((of(&tally), tally.items), (of(counts), counts.settled()), "what has a row has ended");
}

#[test]
fn a_stop_takes_half_of_the_grace_period_when_nothing_ends_and_no_time_when_it_is_killed() {
    let text = items("workers: 2,", "", |_| ", \"hang\": 1");
    for (kill, took) in [(None, 6000), (Some(1500), 2500)] {
        let (record, _, elapsed) = steered(&text, true, RunOptions::default(), |run, world| async move {
            world.sleep(ms(1000)).await;
            run.stop();
            run.stop();
            let Some(kill) = kill else { return };
            world.sleep(ms(kill)).await;
            run.stop();
            run.kill("the test");
            assert!(run.is_killed());
        });
        assert_eq!((record.outcome, elapsed), (RunOutcome::Interrupted, ms(took)));
        let work = &record.stages[1].counts;
        assert_eq!((work.items, work.settled(), work.complete), (6, 0, false), "{record:?}");
    }
}

#[test]
fn a_run_whose_stages_have_ended_ends_as_ever_in_a_stop_and_leaves_its_notices() {
    let notice = "on_finish: [Notify(when: [Succeeded], run: [Call(handler: \"work\"), Call(handler: \"report\")]), Notify(when: [Succeeded], run: [Call(handler: \"work\"), Call(handler: \"report\")])],";
    let text = items("workers: 6,", notice, |_| "");
    let steps = stopped(&text, 6, &[]).steps;
    let mut seen = BTreeMap::new();
    for polls in 1..steps {
        let night = stopped(&text, 6, &[Hit::Stop(polls)]);
        assert_eq!(night.record["outcome"], "succeeded", "{:?}", night.record);
        let state = State::new(Arc::new(night.memory.restart("boot")));
        let left = Sim::new(0).run(async move { state.notices().await.expect("it answers").len() });
        let left = left.expect("no deadlock");
        // Each is sent once, or left to the next start.
        assert_eq!(night.outside.reports.len() - 1 + left, 2, "stop at {polls}");
        assert!(night.stops == 0 || left == 0, "who goes on sends them");
        *seen.entry(left).or_insert(0) += 1;
    }
    assert!([0, 1, 2].iter().all(|left| seen.contains_key(left)), "{seen:?}");
}

#[test]
fn a_dropped_run_that_stops_is_let_go_and_not_cancelled() {
    let seen = super::kept::Seen::default();
    let text = items("workers: 2,", "", |_| ", \"hang\": 1");
    let handlers = handlers(&seen);
    let job = Arc::new(Job::from_ron("night", &text, Path::new("."), &handlers).expect("a good job").job);
    for stop in [true, false] {
        let sim = Sim::new(7);
        let world = sim.world();
        let state = State::new(Arc::new(Memory::new(STORE_BYTES)));
        let runner = Runner::new(world.clone());
        let keeping = Keeping {
            state: state.clone(),
            trigger: "manual".into(),
            fire_key: None,
            kind: RunKind::Serve,
            alone: true,
        };
        let head = sim.run(async {
            let run = runner.begin(&job, RunOptions::default(), &keeping).await.expect("it begins");
            world.sleep(ms(1000)).await;
            if stop {
                run.stop();
            }
            drop(run);
            world.sleep(ms(1)).await;
            head(&state).await
        });
        let head = head.expect("no deadlock");
        assert_eq!(head.phase, if stop { RunPhase::Interrupted } else { RunPhase::Ended });
        assert_eq!(sim.leaked(), 0);
    }
}

#[test]
fn a_stop_ends_the_removal_of_dated_folders_between_two_of_them() {
    const DAYS: u64 = 9;
    let text = r#"Job(keep_out: "30d", stages: [Stage(name: "list", run: [Items(list: [1])])])"#;
    let job =
        Arc::new(Job::from_ron("night", text, Path::new("."), &handlers(&Default::default())).expect("a job").job);
    let (mut all, mut none, mut some) = (0, 0, 0);
    for polls in 1.. {
        let out = tempfile::tempdir().expect("a folder");
        let file = |day: u64, name: &str| out.path().join(format!("2020-01-{day:02}/{name}"));
        for day in 1..=DAYS {
            std::fs::create_dir(file(day, "")).expect("it is made");
            std::fs::write(file(day, "x"), "text").expect("it is written");
            let written = std::fs::File::options().write(true).open(file(day, "x")).expect("it is there");
            written.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1_577_900_000)).expect("a time");
            std::fs::write(file(day, ".lamplighter-wrote-night"), r#"{"x": [4, 1577900000, 0]}"#).expect("noted");
        }
        let sim = Sim::new(1);
        let (trigger, kind) = ("manual".into(), RunKind::Foreground);
        let state = State::new(Arc::new(Memory::new(STORE_BYTES)));
        let keeping = Keeping { state, trigger, fire_key: None, kind, alone: true };
        let options = RunOptions { out: out.path().to_owned(), ..RunOptions::default() };
        let (runner, handle) = (Runner::new(sim.world()), Arc::new(std::sync::OnceLock::<RunHandle>::new()));
        let theirs = handle.clone();
        sim.act_at(polls, move || {
            if let Some(handle) = theirs.get() {
                handle.stop();
            }
        });
        let record = sim.run(async {
            let run = runner.begin(&job, options, &keeping).await.expect("it starts");
            let _ = handle.set(run.handle());
            run.await
        });
        let record = record.expect("it ends");
        assert_eq!((sim.leaked(), &record.unsaved), (0, &None), "stop at {polls}");
        let left = (1..=DAYS).filter(|day| file(*day, "x").exists()).count() as u64;
        for day in 1..=DAYS {
            // Whole or gone.
            assert_eq!(file(day, "x").exists(), file(day, ".lamplighter-wrote-night").exists(), "stop at {polls}");
        }
        *match left {
            0 => &mut none,
            DAYS => &mut all,
            _ => &mut some,
        } += 1;
        if sim.steps() < polls {
            break;
        }
    }
    assert!(all > 3 && some >= DAYS - 2 && none > 0, "{all} {some} {none}");
}
