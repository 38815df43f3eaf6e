//! Small scopes, every order of the first choices.

use super::lab::{Done, Lab, Script, ms, options, source};
use lamplighter::{item::RunOutcome, world::sim::Sim};

/// Visits every order of the first `depth` choices, at most `most` runs; gives how many there were.
fn every_order(lab: &Lab, script: Script, depth: usize, most: usize, check: impl Fn(&Done)) -> usize {
    let mut choices = Some(Vec::new());
    let mut runs = 0;
    while let Some(next) = choices.take() {
        let done = lab.run_in(runs as u64, Sim::scripted(next), options(), script).expect("it was awaited");
        check(&done);
        runs += 1;
        if runs == most {
            break;
        }
        let mut taken = done.choices.clone();
        taken.truncate(depth);
        while let Some(last) = taken.last_mut() {
            if last.taken + 1 < last.width {
                last.taken += 1;
                choices = Some(taken.iter().map(|choice| choice.taken).collect());
                break;
            }
            taken.pop();
        }
    }
    runs
}

fn two_by_two(buffer: usize, fields: &str, n: usize) -> Lab {
    Lab::new(&format!(
        "{}, Stage(name: \"work\", workers: 2, buffer: {buffer}, waiting: 1, {fields} run: [Call(handler: \"act\")]),
         Stage(name: \"end\", buffer: {buffer}, run: [Call(handler: \"sink\")])",
        source(n, |i| if fields.is_empty() { String::new() } else { format!("\"fails\": {}", 1 - i % 2) })
    ))
}

#[test]
fn two_items_two_workers_in_every_order() {
    let mut runs = 0;
    for buffer in [0, 1] {
        for fields in ["", RETRY, ORDERED] {
            runs += every_order(&two_by_two(buffer, fields, 2), Script::Await, 11, 1500, |done| {
                assert_eq!(done.outcome(), RunOutcome::Succeeded, "{:?}", done.record);
                assert_eq!(done.sunk_keys("end"), ["P0", "P1"]);
            });
        }
    }
    assert!(runs > 3000, "{runs}");
}

/// Asks for every poll k, until the run ends by itself before it, in every order of the first choices; gives how many k.
fn every_poll(lab: &Lab, script: impl Fn(usize) -> Script, mut run: impl FnMut(&Lab, Script) -> bool) -> usize {
    for k in 0.. {
        if !run(lab, script(k)) {
            return k;
        }
    }
    unreachable!("every run ends")
}

const RETRY: &str = "retry: Retry(max_attempts: 2, initial_interval: \"1ms\", jitter: Exact),";
const ORDERED: &str =
    "order: Input, item_deadline: \"1s\", retry: Retry(max_attempts: 2, initial_interval: \"1ms\", jitter: Exact),";

#[test]
fn two_items_two_workers_and_a_cancel_at_every_poll() {
    for buffer in [0, 1] {
        for (fields, after) in [("", 0), (RETRY, 1), (ORDERED, 1)] {
            let lab = two_by_two(buffer, fields, 2);
            let polls = every_poll(
                &lab,
                |k| Script::Cancel(ms(after), k),
                |lab, script| {
                    let cut = std::cell::Cell::new(false);
                    every_order(lab, script, 5, 12, |done| {
                        cut.set(cut.get() || done.outcome() == RunOutcome::Cancelled);
                        let whole = done.sunk.len() == 2;
                        assert!(done.outcome() == RunOutcome::Cancelled || whole, "{:?}", done.record);
                        assert_eq!(done.counts("list").ok, done.counts("work").items);
                        assert_eq!(done.counts("end").ok, done.sunk.len() as u64);
                    });
                    cut.get()
                },
            );
            assert!(polls > 2, "{polls} polls, buffer {buffer}, {fields}");
        }
    }
}

#[test]
fn two_items_two_workers_and_a_drop_at_every_poll() {
    for buffer in [0, 1] {
        for (fields, after) in [("", 0), (RETRY, 1), (ORDERED, 1)] {
            let lab = two_by_two(buffer, fields, 2);
            let polls = every_poll(
                &lab,
                |k| Script::Drop(ms(after), k),
                |lab, script| {
                    let mut whole = true;
                    // The lab holds that nothing begins after the drop, and that nothing is left.
                    for seed in 0..6 {
                        lab.run_in(seed, Sim::new(seed), options(), script);
                        whole &= lab.ended_before_the_drop();
                    }
                    !whole
                },
            );
            assert!(polls > 2, "{polls} polls, buffer {buffer}, {fields}");
        }
    }
}

#[test]
fn two_items_two_workers_and_a_deadline_at_every_moment() {
    // Each attempt takes a millisecond, and so does each wait: P1 is done at 1 ms, P0 at 3 ms.
    let act = "args: {\"ms\": 1}";
    for buffer in [0, 1] {
        for (stage, run) in [(true, false), (false, true)] {
            for at in 1..=6 {
                let deadline = format!("deadline: \"{at}ms\",");
                let (of_run, of_stage) = (if run { &*deadline } else { "" }, if stage { &*deadline } else { "" });
                let lab = Lab::job(&format!(
                    "Job({of_run} stages: [{}, Stage(name: \"work\", workers: 2, buffer: {buffer}, waiting: 1, {of_stage} on_deadline: Continue,
                        tolerate: \"9\", {RETRY} run: [Call(handler: \"act\", {act})]),
                     Stage(name: \"all\", gather: All, run: [Jq(filter: \"[failures] | length\"), Call(handler: \"sink\")])])",
                    source(2, |i| format!("\"fails\": {}", 1 - i % 2))
                ));
                every_order(&lab, Script::Await, 8, 120, |done| {
                    let work = done.counts("work");
                    let ok = u64::from(at >= 1) + u64::from(at >= 3);
                    assert_eq!((work.items, work.ok, work.missing()), (2, ok, 2 - ok), "at {at}: {:?}", done.record);
                    assert_eq!((done.sunk.len(), &done.sunk[0].2), (1, &serde_json::json!(2 - ok)));
                });
            }
        }
    }
}
