//! What stages, jobs and runs share: a service with its places in flight and its rate.

#![allow(clippy::disallowed_methods, reason = "the program is another process, watched from real threads")]

use super::util::{Act, Going, Place, Scripted, until};
use futures_lite::future;
use lamplighter::{
    action::{Call, CallError, Handlers},
    item::{RunOutcome, Value},
    job::{Config, Job, Surroundings},
    problem::Source,
    run::{RunOptions, Runner, StoreChoice},
    world::sim::Sim,
};
use rustix::process::Signal;
use std::{
    path::Path,
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

#[test]
fn two_stages_that_share_one_place_in_flight_never_wait_for_each_other() {
    // The items of the first stage give many values each, so that its worker waits for room before the second stage while
    // items of both wait for the one place.
    let vendor = Scripted::start(|_| Act::Answer(200, "{}".into()));
    let place = Place::with_job(
        "two",
        &format!(
            r#"Job(
                deadline: "2m",
                services: [Service(name: "v", base: "{}", max_in_flight: 1)],
                stages: [
                    Stage(name: "list", run: [Jq(filter: "range(20)")]),
                    Stage(name: "a", workers: 1, waiting: 4, buffer: 1, run: [
                        Http(via: "v", get: "/a"),
                        Jq(filter: "range(20)"),
                    ]),
                    Stage(name: "b", workers: 1, waiting: 4, buffer: 1, run: [Http(via: "v", get: "/b")]),
                ],
            )"#,
            vendor.base
        ),
    );
    let record = place.run(&["run", "two", "--format", "json"]).exits(0).json();
    assert_eq!(record["stages"][2]["ok"], 400);
}

#[test]
fn a_report_that_does_not_end_is_killed_when_its_grace_is_over() {
    let place = Place::with_job(
        "late",
        r#"Job(
            deadline: "1s",
            stages: [
                Stage(name: "list", run: [Jq(filter: "1")]),
                Stage(name: "work", on_deadline: Continue, run: [Exec(argv: ["sleep", "100"])]),
                Stage(name: "report", gather: All, run: [Exec(sh: "trap '' TERM; while test -d ../jobs; do sleep 1; done")]),
            ],
        )"#,
    );
    place.write("lamplighter.ron", r#"Config(grace_period: "2s")"#);
    let record = place.run(&["run", "late", "--format", "json"]).exits(124).json();
    // How long that takes is held where there is no machine to be slow:
    // `engine::deadlines::the_report_has_until_the_end_of_the_grace_period_and_then_it_is_cut`.
    assert_eq!(record["stages"][2]["timed_out"], 1);
}

/// When calls were let in and gone, and what was seen of them at once.
#[derive(Default)]
struct Seen {
    begun: Vec<Duration>,
    at_once: usize,
    most: usize,
}

/// Jobs whose items each call `vendor` for a second: of the configuration in all but `own`, which has one of that name.
fn callers(seen: &Arc<Mutex<Seen>>, names: &[&str]) -> Vec<Arc<Job>> {
    let seen = seen.clone();
    let call = move |call: Call| {
        let seen = seen.clone();
        async move {
            let _place = call.admit("vendor").await?;
            {
                let mut seen = seen.lock().expect("no call panicked");
                seen.begun.push(call.world().awake().0);
                seen.at_once += 1;
                seen.most = seen.most.max(seen.at_once);
            }
            call.sleep(Duration::from_secs(1)).await;
            seen.lock().expect("no call panicked").at_once -= 1;
            Ok::<_, CallError>(Value::Null)
        }
    };
    let vendor = r#"Service(name: "vendor", base: "http://vendor.example", rate: ["3/1m"], max_in_flight: 2)"#;
    let config = Config::from_ron("lamplighter.ron", &format!("Config(services: [{vendor}])")).expect("it is right");
    let surroundings = Surroundings {
        handlers: Handlers::new().add("call", call).expect("a good name"),
        services: config.services.unwrap_or_default(),
        ..Surroundings::default()
    };
    let job = |name: &&str| {
        let services = if *name == "own" { format!("services: [{vendor}],") } else { String::new() };
        let text = format!(
            r#"Job({services} stages: [
                Stage(name: "list", key: "{{{{ item }}}}", run: [Items(list: [1, 2, 3])]),
                Stage(name: "call", workers: 3, run: [Call(handler: "call")]),
                Stage(name: "names-it", run: [Http(via: "vendor", get: "/")]),
            ])"#
        );
        let source = Source::new(format!("{name}.ron"), text);
        let checked = Job::from_source(name, source, Path::new("."), &surroundings);
        Arc::new(checked.unwrap_or_else(|problems| panic!("{problems}")).job)
    };
    names.iter().map(job).collect()
}

/// Most that began within a minute.
fn most_in_a_minute(begun: &[Duration]) -> usize {
    let after =
        |at: &Duration| begun.iter().filter(|other| (*at..*at + Duration::from_secs(60)).contains(*other)).count();
    begun.iter().map(after).max().unwrap_or(0)
}

#[test]
fn the_limits_of_a_service_hold_for_all_jobs_and_runs_that_name_it() {
    for seed in 0..50 {
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let jobs = callers(&seen, &["a", "b", "own"]);
        let sim = Sim::new(seed);
        let runner = Runner::new(sim.world());
        let options = || RunOptions {
            until: Some("call".into()),
            store: StoreChoice::Memory { limit: 1 << 20 },
            ..RunOptions::default()
        };
        let start = |job: usize| runner.start(&jobs[job], options()).expect("it starts");
        let outcomes = sim
            .run(async {
                // Two jobs at once, then one of them once more: its first call still counts those of the runs before.
                let (first, second) = future::zip(start(0), start(1)).await;
                [first.outcome, second.outcome, start(0).await.outcome]
            })
            .expect("they end");
        assert_eq!(outcomes, [RunOutcome::Succeeded; 3]);
        {
            let seen = seen.lock().expect("no call panicked");
            assert_eq!((seen.begun.len(), most_in_a_minute(&seen.begun)), (9, 3), "seed {seed}: {:?}", seen.begun);
            assert!(seen.most <= 2, "seed {seed}: {} at once", seen.most);
        }
        // One of that name in a job is another one; runs of that job share it.
        let now = Duration::from_secs(3600);
        sim.run(async { sim.world().sleep(now).await }).expect("it passes");
        *seen.lock().expect("no call panicked") = Seen::default();
        sim.run(async { future::zip(start(0), future::zip(start(2), start(2))).await }).expect("they end");
        let seen = seen.lock().expect("no call panicked");
        assert_eq!((seen.begun.len(), most_in_a_minute(&seen.begun)), (9, 6), "seed {seed}: {:?}", seen.begun);
    }
}

#[test]
fn two_jobs_of_serve_share_the_place_in_flight_of_a_service() {
    let (release, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let vendor = Scripted::start(move |path| {
        if path == "/long" {
            let _ = held.lock().expect("no test panicked").recv();
        }
        Act::Answer(200, "{}".into())
    });
    let place = Place::new();
    let service = format!(r#"Service(name: "v", base: "{}", max_in_flight: 1)"#, vendor.base);
    place.write("lamplighter.ron", &format!("Config(clock: Trusted, services: [{service}])"));
    let job = |path: &str, more: &str| {
        format!(
            r#"Job(stages: [
        Stage(name: "list", run: [Items(list: [1])]),
        Stage(name: "ask", {more} run: [Http(via: "v", get: "{path}")]),
    ])"#
        )
    };
    place.write("jobs/long.ron", &job("/long", ""));
    place.write("jobs/short.ron", &job("/short", r#"item_deadline: "300ms","#));
    place.write("jobs/later.ron", &job("/later", ""));
    let serving = Going::start(&mut place.command(&["serve"]));
    until("serve listens", || place.state().join("serve.sock").exists());
    let long = Going::start(&mut place.command(&["run", "long"]));
    until("it has the place", || vendor.requests("/long") == 1);
    // Its item is past its deadline before the other run gives the place back.
    place.run(&["run", "short"]).exits(1).says("short");
    assert_eq!(vendor.requests("/short"), 0);
    release.send(()).expect("it is waited for");
    long.end().exits(0);
    place.run(&["run", "later"]).exits(0);
    assert_eq!(vendor.requests("/later"), 1);
    serving.signal(Signal::TERM);
    serving.end().exits(0);
}
