//! One contract for every world, held against the real one and many seeds of the simulated one; then what only the
//! simulated one can show.

use std::{
    future::{Future, pending, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use futures_lite::{FutureExt, future};
use jiff::Timestamp;

use super::{
    Due, WallWake, World,
    sim::{Sim, Stalled},
};

const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

/// Runs one contract in the real world and in a hundred simulated ones.
fn in_both<F: Future<Output = ()>>(contract: impl Fn(World) -> F) {
    in_real(&contract);
    for seed in 0..100 {
        let sim = Sim::new(seed);
        sim.run(contract(sim.world())).expect("it ends");
        assert_eq!(sim.leaked(), 0, "seed {seed}");
    }
}

fn in_real<F: Future<Output = ()>>(contract: impl Fn(World) -> F) {
    let executor = Arc::new(async_executor::Executor::new());
    let world = World::real(executor.clone());
    future::block_on(executor.run(contract(world)));
    // What was cancelled last is dropped by the executor.
    while executor.try_tick() {}
    assert!(executor.is_empty(), "a task is left");
}

fn after(world: &World, boot: bool, wait: Duration) -> Due {
    if boot { Due::Boot(world.boot() + wait) } else { Due::Awake(world.awake() + wait) }
}

/// A flag that is raised when it is dropped.
struct Dropped(Arc<AtomicBool>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn alarms_come_in_the_order_of_their_dues_and_never_early() {
    in_both(|world| async move {
        for boot in [false, true] {
            let order = Arc::new(Mutex::new(Vec::new()));
            let mut tasks = Vec::new();
            for n in [3, 1, 2, 0] {
                let due = after(&world, boot, MS * 8 * n);
                let (world, order) = (world.clone(), order.clone());
                tasks.push(world.clone().spawn(async move {
                    world.until(due).await;
                    match due {
                        Due::Awake(due) => assert!(world.awake() >= due),
                        Due::Boot(due) => assert!(world.boot() >= due),
                    }
                    order.lock().expect("no test panicked").push((due_of(due), n));
                }));
            }
            for task in tasks {
                task.await;
            }
            let order = std::mem::take(&mut *order.lock().expect("no test panicked"));
            assert_eq!(order.len(), 4);
            assert!(order.is_sorted(), "{order:?}");
        }
    });
}

fn due_of(due: Due) -> Duration {
    match due {
        Due::Awake(due) => due.0,
        Due::Boot(due) => due.0,
    }
}

#[test]
fn a_due_that_moves_replaces_the_one_before() {
    in_both(|world| async move {
        for boot in [false, true] {
            let mut alarm = world.alarm();
            let (first, later, earlier) =
                (after(&world, boot, MS * 5), after(&world, boot, MS * 15), after(&world, boot, MS * 10));
            let far = after(&world, boot, HOUR);
            let mut polls = 0;
            poll_fn(|cx| {
                polls += 1;
                if polls == 1 {
                    assert!(alarm.poll(cx, first).is_pending());
                    assert!(alarm.poll(cx, far).is_pending());
                    // The other clock and back.
                    assert!(alarm.poll(cx, after(&world, !boot, HOUR)).is_pending());
                    assert!(alarm.poll(cx, far).is_pending());
                    assert!(alarm.poll(cx, later).is_pending());
                }
                alarm.poll(cx, earlier)
            })
            .await;
            assert!(due_of(after(&world, boot, Duration::ZERO)) >= due_of(earlier));
            // And it serves again.
            let again = after(&world, boot, MS);
            poll_fn(|cx| alarm.poll(cx, again)).await;
            assert!(due_of(after(&world, boot, Duration::ZERO)) >= due_of(again));
        }
    });
}

#[test]
fn a_due_in_the_past_is_ready_at_once_and_the_end_of_time_never() {
    in_both(|world| async move {
        for boot in [false, true] {
            let past = after(&world, boot, Duration::ZERO);
            assert!(future::poll_once(world.until(past)).await.is_some());
            let mut never = Box::pin(world.until(after(&world, boot, Duration::MAX)));
            assert!(future::poll_once(&mut never).await.is_none());
            world.sleep(MS).await;
            assert!(future::poll_once(&mut never).await.is_none());
        }
    });
}

#[test]
fn who_comes_later_with_an_earlier_due_is_woken_first() {
    in_both(|world| async move {
        for boot in [false, true] {
            let late = world.until(after(&world, boot, HOUR));
            let soon = world.until(after(&world, boot, MS * 2));
            let late = async {
                late.await;
                "late"
            };
            let soon = async {
                soon.await;
                "soon"
            };
            assert_eq!(late.or(soon).await, "soon");
        }
    });
}

#[test]
fn a_dropped_alarm_wakes_nobody() {
    in_both(|world| async move {
        for boot in [false, true] {
            let mut polls = 0;
            let mut alarm = Some(world.alarm());
            let (soon, end) = (after(&world, boot, MS), after(&world, boot, MS * 10));
            let mut last = world.alarm();
            poll_fn(|cx| {
                polls += 1;
                if let Some(mut alarm) = alarm.take() {
                    assert!(alarm.poll(cx, soon).is_pending());
                }
                last.poll(cx, end)
            })
            .await;
            assert!(polls <= 3, "polled {polls} times");
        }
    });
}

#[test]
fn spawned_tasks_are_joined_and_cancelled() {
    in_both(|world| async move {
        let done = Arc::new(AtomicUsize::new(0));
        let tasks: Vec<_> = (0..10)
            .map(|_| {
                let done = done.clone();
                world.spawn(async move {
                    future::yield_now().await;
                    done.fetch_add(1, Ordering::SeqCst);
                })
            })
            .collect();
        for task in tasks {
            task.await;
        }
        assert_eq!(done.load(Ordering::SeqCst), 10);

        let dropped = Arc::new(AtomicBool::new(false));
        let guard = Dropped(dropped.clone());
        let task = world.spawn(async move {
            let _guard = guard;
            pending::<()>().await;
        });
        future::yield_now().await;
        assert!(task.cancel().await.is_none());
        assert!(dropped.load(Ordering::SeqCst), "a cancelled future is dropped");
    });
}

#[test]
fn work_gives_its_result() {
    in_both(|world| async move {
        assert_eq!(world.unblock(|| 6 * 7).await, 42);
        assert_eq!(world.compute(|| "computed".to_owned()).await.as_deref(), Some("computed"));
        let mut tasks = Vec::new();
        let sum = Arc::new(AtomicUsize::new(0));
        for n in 0..50 {
            let (world, sum) = (world.clone(), sum.clone());
            tasks.push(world.clone().spawn(async move {
                let n = world.compute(move || n).await.expect("it ends");
                let n = world.unblock(move || n).await;
                sum.fetch_add(n, Ordering::SeqCst);
            }));
        }
        for task in tasks {
            task.await;
        }
        assert_eq!(sum.load(Ordering::SeqCst), 49 * 50 / 2);
    });
}

#[test]
fn a_panic_in_work_comes_back_to_who_asked() {
    in_both(|world| async move {
        let unblock =
            AssertUnwindSafe(world.unblock(|| std::panic::resume_unwind(Box::new("blocking")))).catch_unwind();
        let () = unblock
            .await
            .map_err(|panic| *panic.downcast_ref::<&str>().expect("a text"))
            .map_or_else(|text| assert_eq!(text, "blocking"), |()| panic!("no panic"));
        let compute =
            AssertUnwindSafe(world.compute(|| std::panic::resume_unwind(Box::new("computing")))).catch_unwind();
        let result: Result<Option<()>, _> = compute.await;
        assert_eq!(*result.expect_err("it failed").downcast_ref::<&str>().expect("a text"), "computing");
        assert_eq!(world.compute(|| 1).await, Some(1), "and the next one is computed");
    });
}

#[test]
fn the_wall_clock_is_waited_for() {
    in_both(|world| async move {
        let due = world.wall() + 5 * MS;
        assert_eq!(world.until_wall(due).await, WallWake::Reached);
        assert!(world.wall() >= due);
        assert_eq!(future::poll_once(world.until_wall(due)).await, Some(WallWake::Reached));
        assert_eq!(future::poll_once(world.until_wall(Timestamp::MIN)).await, Some(WallWake::Reached));
        let mut never = Box::pin(world.until_wall(Timestamp::MAX));
        assert!(future::poll_once(&mut never).await.is_none());
    });
}

#[test]
fn random_numbers_lie_in_their_range_and_differ() {
    in_both(|world| async move {
        assert_ne!((world.random(), world.random()), (world.random(), world.random()));
        assert!((0..1000).map(|_| world.random_unit()).all(|unit| (0.0..1.0).contains(&unit)));
    });
}

#[test]
fn many_sleepers_on_several_threads_all_wake_and_leave_no_task() {
    let executor = Arc::new(async_executor::Executor::new());
    let world = World::real(executor.clone());
    let (stop, stopped) = async_channel::bounded::<()>(1);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| future::block_on(executor.run(stopped.recv())));
        }
        let tasks: Vec<_> = (0..200_u32)
            .map(|n| {
                let world = world.clone();
                world.clone().spawn(async move {
                    for round in 0..10 {
                        let due = Due::Boot(world.boot() + MS * ((n * 7 + round) % 5));
                        let cut = world.sleep(MS * (n % 4));
                        world.until(due).or(cut).await;
                    }
                })
            })
            .collect();
        future::block_on(async {
            for task in tasks {
                task.await;
            }
        });
        drop(stop);
    });
    while executor.try_tick() {}
    assert!(executor.is_empty(), "the driver of the timer is left");
}

#[test]
fn an_endless_computation_that_was_abandoned_blocks_nobody() {
    in_real(|world| async move {
        let end = Arc::new(AtomicBool::new(false));
        let flag = end.clone();
        let (begin, begun) = async_channel::bounded(1);
        let endless = world.compute(move || {
            begin.try_send(()).expect("who receives is there");
            while !flag.load(Ordering::SeqCst) {
                std::hint::spin_loop();
            }
        });
        let gave_up = async {
            begun.recv().await.expect("who sends is there");
            None
        };
        assert_eq!(endless.or(gave_up).await, None);
        for n in 0..20 {
            assert_eq!(world.compute(move || n).await, Some(n));
        }
        end.store(true, Ordering::SeqCst);
    });
}

#[test]
fn endless_and_refused_computations_are_simulated() {
    let sim = Sim::new(1);
    let world = sim.world();
    let ran = Arc::new(AtomicBool::new(false));
    let flag = ran.clone();
    sim.run(async {
        sim.compute_endlessly(1);
        let endless = async { world.compute(move || flag.store(true, Ordering::SeqCst)).await.is_some() };
        let timeout = async {
            world.sleep(HOUR).await;
            false
        };
        assert!(!endless.or(timeout).await);
        assert_eq!(world.compute(|| 1).await, Some(1));
        sim.lose_cpu(true);
        assert_eq!(world.compute(|| 1).await, None);
        sim.lose_cpu(false);
        // Given up before its turn: never run.
        let mut given_up = Box::pin(world.compute(|| panic!("it runs")));
        assert!(future::poll_once(&mut given_up).await.is_none());
        drop(given_up);
    })
    .expect("it ends");
    assert!(!ran.load(Ordering::SeqCst));
    assert_eq!(sim.leaked(), 0);
}

/// A small pipeline with waits and draws; gives what it saw.
async fn pipeline(world: World) -> Vec<u32> {
    let (sender, receiver) = async_channel::bounded(2);
    let (out, results) = async_channel::bounded(4);
    let mut tasks = Vec::new();
    for _ in 0..4 {
        let (world, receiver, out) = (world.clone(), receiver.clone(), out.clone());
        tasks.push(world.clone().spawn(async move {
            while let Ok(n) = receiver.recv().await {
                world.sleep(Duration::from_millis(world.random() % 3)).await;
                let _ = out.send(n).await;
            }
        }));
    }
    drop((receiver, out));
    tasks.push(world.spawn(async move {
        for n in 0..20 {
            let _ = sender.send(n).await;
        }
    }));
    let mut seen = Vec::new();
    while let Ok(n) = results.recv().await {
        seen.push(n);
    }
    for task in tasks {
        task.await;
    }
    seen
}

#[test]
fn one_seed_is_one_trace_and_other_seeds_are_others() {
    let run = |seed| {
        let sim = Sim::new(seed);
        let seen = sim.run(pipeline(sim.world())).expect("it ends");
        assert_eq!(sim.leaked(), 0);
        (sim.trace(), sim.steps(), sim.elapsed(), seen)
    };
    let mut traces = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let first = run(seed);
        assert_eq!(first, run(seed), "seed {seed}");
        traces.insert(first.0);
    }
    assert_eq!(traces.len(), 200);
}

#[test]
fn seeds_bring_tasks_into_every_order() {
    let mut orders = std::collections::BTreeSet::new();
    for seed in 0..100 {
        let sim = Sim::new(seed);
        orders.insert(sim.run(order_of_three(sim.world())).expect("it ends"));
    }
    assert_eq!(orders.len(), 6);
}

/// Spawns three tasks and gives the order in which they ran.
async fn order_of_three(world: World) -> Vec<u32> {
    let order = Arc::new(Mutex::new(Vec::new()));
    let tasks: Vec<_> = (0..3)
        .map(|n| {
            let order = order.clone();
            world.spawn(async move { order.lock().expect("no test panicked").push(n) })
        })
        .collect();
    for task in tasks {
        task.await;
    }
    std::mem::take(&mut *order.lock().expect("no test panicked"))
}

#[test]
fn a_deadlock_is_found_and_counted() {
    let sim = Sim::new(3);
    let world = sim.world();
    let dropped = Arc::new(AtomicBool::new(false));
    let guard = Dropped(dropped.clone());
    let out = sim.run(async {
        world.sleep(HOUR).await;
        let (sender, receiver) = async_channel::bounded::<()>(1);
        let spare = sender.clone();
        world
            .spawn(async move {
                let _guard = guard;
                let _spare = spare;
                pending::<()>().await;
            })
            .detach();
        drop(sender);
        let _ = receiver.recv().await;
    });
    let at = "2026-11-23T03:30:00Z".parse().expect("it is well formed");
    let Err(stalled @ Stalled::Deadlock { seed: 3, tasks: 1, .. }) = out else { panic!("{out:?}") };
    let Stalled::Deadlock { at: when, .. } = stalled else { unreachable!() };
    assert_eq!(when, at);
    assert!(stalled.to_string().starts_with("seed 3: deadlock at 2026-11-23T03:30:00Z"), "{stalled}");
    assert_eq!(sim.leaked(), 1);
    assert!(dropped.load(Ordering::SeqCst), "what is left over is dropped");
    assert_eq!(sim.run(async { 1 }), Ok(1), "and the simulation can go on");
    assert_eq!(sim.leaked(), 0);
}

#[test]
fn an_alarm_at_the_end_of_time_hides_no_deadlock() {
    let sim = Sim::new(0);
    let world = sim.world();
    assert!(matches!(sim.run(world.sleep(Duration::MAX)), Err(Stalled::Deadlock { .. })));
}

#[test]
fn a_livelock_is_found() {
    let sim = Sim::new(5).step_limit(1000);
    let world = sim.world();
    let out = sim.run(async {
        let until = world.awake() + MS;
        while world.awake() < until {
            future::yield_now().await;
        }
    });
    assert!(matches!(out, Err(Stalled::Livelock { seed: 5, steps: 1000, .. })), "{out:?}");
}

#[test]
fn what_comes_from_outside_comes_at_its_poll() {
    for polls in 0..10usize {
        let seen = Arc::new(AtomicUsize::new(0));
        let (now, at) = (seen.clone(), Arc::new(AtomicUsize::new(usize::MAX)));
        let (mut sim, comes) = (Sim::new(5), at.clone());
        sim = sim.at_poll(polls as u64, move || comes.store(now.load(Ordering::Relaxed), Ordering::Relaxed));
        let turns = async {
            for _ in 0..7 {
                seen.fetch_add(1, Ordering::Relaxed);
                future::yield_now().await;
            }
        };
        assert_eq!(sim.run(turns), Ok(()));
        // One poll for each turn, one that ends; behind it nothing comes any more.
        let then = if polls < 9 { polls.min(7) } else { usize::MAX };
        assert_eq!(at.load(Ordering::Relaxed), then, "{polls}");
    }
}

#[test]
fn a_panic_comes_out_with_the_seed() {
    for in_task in [false, true] {
        let sim = Sim::new(42);
        let world = sim.world();
        let caught = catch_unwind(AssertUnwindSafe(|| {
            sim.run(async {
                if in_task {
                    world.spawn(async { panic!("planned: {}", 1) }).detach();
                    world.sleep(HOUR).await;
                } else {
                    panic!("planned: {}", 1);
                }
            })
        }));
        let panic = caught.unwrap_err();
        let text = panic.downcast_ref::<String>().expect("a text");
        assert!(text.starts_with("seed 42: planned: 1 (at step "), "{text}");
    }
}

#[test]
fn tasks_left_over_are_counted_and_dropped() {
    let sim = Sim::new(9);
    let world = sim.world();
    let inner = world.clone();
    sim.run(async {
        world.spawn(async move { inner.sleep(HOUR).await }).detach();
        // Cancelled, and not left over.
        drop(world.spawn(pending()));
    })
    .expect("it ends");
    assert_eq!(sim.leaked(), 1);
    assert_eq!(sim.elapsed(), Duration::ZERO);
}

#[test]
fn what_a_simulation_leaves_over_is_freed_also_when_it_holds_itself() {
    let held_by_itself = |world: &World| {
        let dropped = Arc::new(AtomicBool::new(false));
        let guard = Dropped(dropped.clone());
        let inner = world.clone();
        world
            .spawn(async move {
                let _guard = (guard, inner);
                let (_sender, receiver) = async_channel::bounded::<()>(1);
                let _ = receiver.recv().await;
            })
            .detach();
        dropped
    };
    let sim = Sim::new(0);
    let world = sim.world();
    let in_run = held_by_itself(&world);
    sim.run(world.sleep(MS)).expect("it ends");
    assert_eq!(sim.leaked(), 1);
    assert!(in_run.load(Ordering::SeqCst));
    let outside = held_by_itself(&world);
    drop(sim);
    assert!(outside.load(Ordering::SeqCst));
    drop(world.spawn(async {}));
}

#[test]
fn suspend_moves_boot_and_wall_only() {
    let sim = Sim::new(7);
    let world = sim.world();
    sim.run(async {
        let (awake, boot, wall) = (world.awake(), world.boot(), world.wall());
        let mut timeout = Box::pin(world.until(Due::Awake(awake + HOUR)));
        let mut deadline = Box::pin(world.until(Due::Boot(boot + HOUR)));
        assert!(future::poll_once((&mut timeout).or(&mut deadline)).await.is_none());
        sim.suspend(HOUR * 2);
        assert_eq!((world.awake(), world.boot(), world.wall()), (awake, boot + HOUR * 2, wall + HOUR * 2));
        deadline.await;
        assert_eq!(world.awake(), awake, "slept through: due at once");
        timeout.await;
        assert_eq!((world.awake(), world.boot()), (awake + HOUR, boot + HOUR * 3));
    })
    .expect("it ends");
}

#[test]
fn who_waits_for_the_wall_clock_hears_that_it_was_set() {
    let sim = Sim::new(7);
    let world = sim.world();
    sim.run(async {
        let due = world.wall() + HOUR;
        for (set_to, expected) in
            [(due - HOUR * 30, WallWake::ClockSet), (due - MS, WallWake::ClockSet), (due + HOUR, WallWake::Reached)]
        {
            sim.set_wall(due - HOUR);
            let step = async {
                world.sleep(MS).await;
                sim.set_wall(set_to);
            };
            let (woken, ()) = future::zip(world.until_wall(due), step).await;
            assert_eq!(woken, expected);
            assert_eq!(world.wall(), set_to);
        }
        let due = world.wall() + HOUR;
        let (woken, ()) = future::zip(world.until_wall(due), async {
            world.sleep(MS).await;
            sim.suspend(HOUR * 2);
        })
        .await;
        assert_eq!(woken, WallWake::Reached, "slept through is reached");
    })
    .expect("it ends");
}

#[test]
fn the_wall_clock_may_stand_anywhere() {
    for start in ["1970-01-01T00:00:00Z", "2040-02-29T23:59:59Z", "9999-12-30T22:00:00Z", "-009999-01-02T01:59:59Z"] {
        let sim = Sim::new(0);
        let world = sim.world();
        let at: Timestamp = start.parse().expect("it is well formed");
        sim.set_wall(at);
        sim.run(async {
            assert_eq!(world.until_wall(at.checked_add(HOUR).unwrap_or(Timestamp::MAX)).await, WallWake::Reached);
            world.sleep(HOUR * 48).await;
            assert!(world.wall() >= at);
        })
        .expect("it ends");
        assert!(sim.elapsed() >= HOUR * 48);
    }
}

#[test]
fn every_order_of_a_small_case_is_visited() {
    let mut orders = std::collections::BTreeSet::new();
    let mut script = Vec::new();
    let mut runs = 0;
    loop {
        let sim = Sim::scripted(script);
        orders.insert(sim.run(order_of_three(sim.world())).expect("it ends"));
        runs += 1;
        match sim.next_choices(12) {
            Some(next) => script = next,
            None => break,
        }
    }
    assert_eq!(orders.len(), 6);
    assert!(runs < 200, "{runs}");
}

#[test]
fn a_script_without_choices_is_first_come_first_served() {
    let sim = Sim::scripted(Vec::new());
    let world = sim.world();
    let turns = Arc::new(Mutex::new(Vec::new()));
    sim.run(async {
        let tasks: Vec<_> = (0..3)
            .map(|n| {
                let turns = turns.clone();
                world.spawn(async move {
                    for _ in 0..2 {
                        turns.lock().expect("no test panicked").push(n);
                        future::yield_now().await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await;
        }
    })
    .expect("it ends");
    assert_eq!(*turns.lock().expect("no test panicked"), [0, 1, 2, 0, 1, 2]);
    assert!(sim.choices().iter().all(|choice| choice.taken == 0 && choice.width > 1));
}

#[test]
fn a_task_that_is_woken_twice_runs_once() {
    let sim = Sim::new(0);
    let mut polls = 0;
    sim.run(poll_fn(|cx| {
        polls += 1;
        if polls == 3 {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        cx.waker().wake_by_ref();
        Poll::Pending
    }))
    .expect("it ends");
    assert_eq!(sim.steps(), 3);
}
