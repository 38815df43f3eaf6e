//! Small scopes, every order of the first choices.

use super::lab::{Done, Lab, Script, options, source};
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
    let retry = "retry: Retry(max_attempts: 2, initial_interval: \"1ms\", jitter: Exact),";
    let ordered =
        "order: Input, item_deadline: \"1s\", retry: Retry(max_attempts: 2, initial_interval: \"1ms\", jitter: Exact),";
    let mut runs = 0;
    for buffer in [0, 1] {
        for fields in ["", retry, ordered] {
            runs += every_order(&two_by_two(buffer, fields, 2), Script::Await, 11, 1500, |done| {
                assert_eq!(done.outcome(), RunOutcome::Succeeded, "{:?}", done.record);
                assert_eq!(done.sunk_keys("end"), ["P0", "P1"]);
            });
        }
    }
    assert!(runs > 3000, "{runs}");
}

#[test]
fn two_items_two_workers_and_a_cancel_in_every_order() {
    let mut runs = 0;
    for buffer in [0, 1] {
        for polls in [0, 3, 8, 15] {
            let script = Script::Cancel(std::time::Duration::ZERO, polls);
            runs += every_order(&two_by_two(buffer, "", 2), script, 9, 600, |done| {
                if done.cut_at.is_some() {
                    // It may have ended in the same tick.
                    assert!(done.outcome() == RunOutcome::Cancelled || done.sunk.len() == 2, "{:?}", done.record);
                }
                assert_eq!(done.counts("list").ok, done.counts("work").items);
                assert_eq!(done.counts("end").ok, done.sunk.len() as u64);
            });
        }
    }
    assert!(runs > 2000, "{runs}");
}

#[test]
fn two_items_two_workers_and_a_deadline_in_every_order() {
    let fields = "deadline: \"1ms\", on_deadline: Continue, tolerate: \"9\", retry: Retry(max_attempts: 9, initial_interval: \"1ms\", jitter: Exact),";
    for buffer in [0, 1] {
        let lab = two_by_two(buffer, fields, 3);
        every_order(&lab, Script::Await, 10, 800, |done| {
            let work = done.counts("work");
            assert_eq!((work.items, work.ok), (3, done.sunk.len() as u64), "{:?}", done.record);
        });
    }
}
