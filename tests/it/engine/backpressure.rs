//! Bounds: who works, who waits, who must stay outside (RUNS T2).

use super::lab::{Lab, What, ms, source};
use lamplighter::item::RunOutcome;

#[test]
fn as_many_items_as_may_be_open_are_taken_and_then_the_source_waits() {
    for (workers, waiting, buffer) in [(1, 3, 2), (2, 0, 1), (3, 5, 0), (2, 16, 4)] {
        let lab = Lab::new(&format!(
            "Stage(name: \"list\", run: [Jq(filter: \"range(60)\"), Call(handler: \"act\")]),
             Stage(name: \"work\", workers: {workers}, waiting: {waiting}, buffer: {buffer}, tolerate: \"99\",
                retry: Retry(max_attempts: 2, initial_interval: \"1s\", jitter: Exact), run: [Call(handler: \"act\", args: {{\"fails\": 1}})])"
        ));
        lab.seeds(20, |done| {
            let before = done.of("work", What::Began).filter(|event| event.at < ms(1000)).count();
            assert_eq!(before, workers + waiting, "workers {workers} waiting {waiting} seed {}", done.seed);
            assert_eq!(done.outcome(), RunOutcome::Succeeded);
        });
    }
}

#[test]
fn a_bounded_channel_holds_up_the_stages_before_it() {
    let lab = Lab::new(&format!(
        "{}, Stage(name: \"fast\", workers: 2, buffer: 1, run: [Call(handler: \"act\")]),
         Stage(name: \"slow\", buffer: 3, waiting: 0, run: [Call(handler: \"act\", args: {{\"ms\": 1000}})])",
        source(40, |_| String::new())
    ));
    lab.seeds(30, |done| {
        // In the first second: one works, three in the channel, one in the hand of each of two workers.
        let before = done.of("fast", What::Ended).filter(|event| event.at < ms(1000)).count();
        assert_eq!(before, 1 + 3 + 2, "seed {}", done.seed);
    });
}

#[test]
fn an_item_that_comes_back_goes_before_new_ones() {
    let lab = Lab::new(&format!(
        "{}, Stage(name: \"work\", workers: 1, buffer: 4, retry: Retry(max_attempts: 2, initial_interval: \"15ms\", jitter: Exact),
            run: [Call(handler: \"act\", args: {{\"ms\": 10}})])",
        source(12, |i| if i == 0 { "\"fails\": 1".into() } else { String::new() })
    ));
    lab.seeds(40, |done| {
        // P0 fails at 10 and comes back at 25, while another works until 30.
        assert_eq!(done.began("work", "P0"), [0, 30], "seed {}", done.seed);
        assert_eq!(done.elapsed, ms(130));
    });
}

#[test]
fn an_item_that_comes_back_goes_before_workers_that_wait_for_a_new_one() {
    let lab = Lab::new(&format!(
        "{}, Stage(name: \"work\", workers: 1, buffer: 4, retry: Retry(max_attempts: 2, initial_interval: \"15ms\", jitter: Exact),
            run: [Call(handler: \"act\", args: {{\"ms\": 10}})])",
        source(12, |i| if i < 2 { "\"fails\": 1".into() } else { String::new() })
    ));
    lab.seeds(40, |done| {
        // P0 fails at 10, P1 at 20; P2 works until 30, P0 until 40: by then P1 is back, and the worker of P2 waits for a permit.
        assert_eq!((done.began("work", "P0"), done.began("work", "P1")), (vec![0, 30], vec![10, 40]));
        assert_eq!(done.elapsed, ms(140));
    });
}

#[test]
fn permits_are_all_there_again_whatever_was_cut() {
    // Timeouts, panics, failures and waits in turn; then all workers work at once again.
    let lab = Lab::new(&format!(
        "{}, Stage(name: \"work\", workers: 4, waiting: 4, buffer: 2, tolerate: \"99\", timeout: \"5ms\", item_deadline: \"40ms\",
            retry: Retry(max_attempts: 3, initial_interval: \"3ms\"), run: [Call(handler: \"act\")])",
        source(48, |i| if i >= 40 {
            "\"ms\": 4".to_owned()
        } else {
            match i % 5 {
                0 => "\"hang\": 1".to_owned(),
                1 => "\"panic\": 1".to_owned(),
                2 => "\"fails\": 9".to_owned(),
                3 => "\"fails\": 1, \"ms\": 2".to_owned(),
                _ => "\"bad\": 1".to_owned(),
            }
        })
    ));
    lab.seeds(60, |done| {
        assert_eq!(done.counts("work").ok, 16, "{:?}", done.record);
        assert_eq!(done.most["work"], 4);
        let mut working = 0;
        let tail = done.events.iter().filter(|event| {
            event.stage == "work" && event.key.trim_start_matches('P').parse::<u32>().is_ok_and(|i| i >= 40)
        });
        let mut most = 0;
        for event in tail {
            if event.what == What::Began {
                working += 1
            } else {
                working -= 1
            }
            most = most.max(working);
        }
        assert!(most >= 3, "seed {}: only {most} of the last eight at once", done.seed);
    });
}
