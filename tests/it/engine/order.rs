//! `order: Input` (RUNS E3), and that no item is overtaken for long.

use super::lab::{Done, Lab, What, ms, source};
use lamplighter::item::RunOutcome;

fn order_of(done: &Done, stage: &str) -> Vec<usize> {
    let of = done.sunk.iter().filter(|(at, ..)| at == stage);
    of.map(|(_, key, _)| key.trim_start_matches('P').split('/').next().and_then(|i| i.parse().ok()).expect("a number"))
        .collect()
}

#[test]
fn results_leave_in_the_order_of_arrival() {
    for (buffer, waiting, retry) in [
        (0, 0, ""),
        (0, 16, "retry: Retry(max_attempts: 3, initial_interval: \"9ms\"), item_deadline: \"1m\","),
        (
            3,
            2,
            "retry: Retry(max_attempts: 3, initial_interval: \"20s\", max_interval: \"20s\"), item_deadline: \"10m\",",
        ),
    ] {
        let lab = Lab::new(&format!(
            "{}, Stage(name: \"work\", workers: 3, order: Input, buffer: {buffer}, waiting: {waiting}, tolerate: \"99\", {retry}
                run: [Call(handler: \"act\", args: {{\"jit\": 20}}), Jq(filter: \"., .\")]),
             Stage(name: \"end\", run: [Call(handler: \"sink\")])",
            source(20, |i| if retry.is_empty() { String::new() } else { format!("\"fails\": {}", i % 4) })
        ));
        lab.seeds(40, |done| {
            let order = order_of(done, "end");
            assert!(order.is_sorted(), "seed {}: {order:?}", done.seed);
            assert_eq!(order.len(), if retry.is_empty() { 40 } else { 30 });
        });
    }
}

#[test]
fn one_slow_item_lets_as_many_go_on_as_may_be_open_and_no_more() {
    for (workers, waiting) in [(2, 4), (1, 3), (3, 0)] {
        let lab = Lab::new(&format!(
            "{}, Stage(name: \"work\", workers: {workers}, waiting: {waiting}, buffer: 2, order: Input,
                run: [Call(handler: \"act\")]),
             Stage(name: \"end\", run: [Call(handler: \"sink\")])",
            source(20, |i| format!("\"ms\": {}", if i == 0 { 1000 } else { 1 }))
        ));
        lab.seeds(30, |done| {
            let before = done.of("work", What::Began).filter(|event| event.at < ms(1000)).count();
            // With one worker the slow item itself holds the only work permit.
            let expected = if workers == 1 { 1 } else { workers + waiting };
            assert_eq!(before, expected, "workers {workers} waiting {waiting} seed {}", done.seed);
            assert!(order_of(done, "end").is_sorted());
        });
    }
}

#[test]
fn an_ordered_stage_that_is_closed_still_delivers_what_is_done_in_order() {
    let lab = Lab::new(&format!(
        "{}, Stage(name: \"work\", workers: 3, order: Input, deadline: \"30ms\", on_deadline: Continue, tolerate: \"99\",
            run: [Call(handler: \"act\", args: {{\"jit\": 12}})]),
         Stage(name: \"end\", run: [Call(handler: \"sink\")])",
        source(20, |_| String::new())
    ));
    let mut closed = 0;
    lab.seeds(60, |done| {
        assert!(order_of(done, "end").is_sorted());
        assert_eq!(done.sunk.len() as u64, done.counts("work").ok);
        // A seed that is lucky is done in time.
        let took = |what| done.of("work", what).map(|event| event.at);
        let is_done =
            took(What::Ended).max().zip(took(What::Began).min()).is_some_and(|(end, began)| end - began <= ms(30));
        let in_time = is_done && done.counts("work").ok == 20;
        let expected = if in_time { RunOutcome::Succeeded } else { RunOutcome::Partial };
        assert_eq!(done.outcome(), expected, "seed {}", done.seed);
        closed += u32::from(!in_time);
    });
    assert!(closed >= 40, "{closed} seeds of 60 met the deadline");
}

/// A long chain of stages, each of which is ready at once with every item.
fn chain(workers: usize, buffer: usize, items: usize) -> Lab {
    let mut stages = format!("Stage(name: \"c0\", run: [Jq(filter: \"range({items})\")])");
    for at in 1..=CHAIN {
        let before = at - 1;
        stages += &format!(
            ", Stage(name: \"c{at}\", from: [\"c{before}\"], workers: {workers}, buffer: {buffer}, run: [Call(handler: \"act\")])"
        );
    }
    Lab::new(&stages)
}

const CHAIN: usize = 6;

fn nobody_is_overtaken(done: &Done, workers: usize, buffer: usize) {
    for at in 1..=CHAIN {
        let (before, stage) = (format!("c{}", at - 1), format!("c{at}"));
        let most = done.overtaken(&before, &stage);
        let bound = 2 * (workers + buffer);
        assert!(most <= bound, "{most} at `{stage}`, workers {workers}, buffer {buffer}, seed {}", done.seed);
        assert_eq!(done.counts(&stage).ok, done.counts("c0").ok);
    }
}

#[test]
fn no_item_is_overtaken_for_long_when_all_are_ready_at_once() {
    for buffer in [0, 1, 4, 64] {
        for workers in [1, 2, 4, 16] {
            chain(workers, buffer, 250).seeds(4, |done| nobody_is_overtaken(done, workers, buffer));
        }
    }
}

#[test]
fn no_item_is_overtaken_for_long_on_the_real_executor() {
    for buffer in [0, 1, 4, 64] {
        for workers in [1, 4, 16] {
            nobody_is_overtaken(&chain(workers, buffer, 500).run_on_the_machine(), workers, buffer);
        }
    }
}
