//! `Sql` as a job uses it, and the sample job that is a queue: nothing is lost and nothing done twice, whenever it is cut.

#![allow(clippy::disallowed_methods, reason = "the program is another process, watched from real threads")]

use super::util::{Done, Going, Place, repository};
use futures_lite::future::yield_now;
use lamplighter::{
    action::Handlers,
    item::{RunOutcome, Value},
    job::Job,
    run::{RunOptions, Runner, StoreChoice},
    world::sim::Sim,
};
use rusqlite::Connection;
use rustix::process::Signal;
use std::{collections::BTreeMap, fs, path::Path, process::Command, sync::Arc, thread};

/// A database of these statements.
fn database(path: &Path, sql: &str) -> Connection {
    fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
    let connection = Connection::open(path).expect("a database");
    connection.execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    connection
}

fn number(connection: &Connection, sql: &str) -> i64 {
    connection.query_row(sql, [], |row| row.get(0)).unwrap_or_else(|error| panic!("{sql}: {error}"))
}

/// Makes the queue of the sample job: its own six questionnaires, and so many more. Whoever ends one is written down.
fn queue(path: &Path, more: u32) -> Connection {
    let connection = database(path, &fs::read_to_string(repository("jobs/epro-queue/schema.sql")).expect("its schema"));
    connection
        .execute_batch(&format!(
            "CREATE TABLE ended (id INTEGER, run TEXT);
             CREATE TRIGGER ends AFTER UPDATE ON questionnaire BEGIN INSERT INTO ended VALUES (new.id, new.scored_by); END;
             INSERT INTO questionnaire (patient, instrument, answers)
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {more})
             SELECT 'P', 'who5', json_array(i % 6, i / 6 % 6, i / 36 % 6, 0, 5) FROM n WHERE i <= {more};"
        ))
        .expect("more of them");
    connection
}

/// A hundred more, where too few runs were cut while there was something to do.
fn refill(connection: &Connection) {
    let again = "INSERT INTO questionnaire (patient, instrument, answers)
        SELECT patient, instrument, answers FROM questionnaire WHERE id BETWEEN 7 AND 106";
    connection.execute_batch(again).expect("more of them");
}

/// What must hold of the queue at any time: a questionnaire waits and has nothing, or was ended, once, by one run.
fn is_whole(queue: &Connection) {
    let wrong = "SELECT count(*) FROM questionnaire AS q WHERE
        (status = 'pending') != (score IS NULL AND reason IS NULL AND scored_by IS NULL)
        OR (SELECT count(*) FROM ended WHERE ended.id = q.id) != (status != 'pending')";
    assert_eq!(number(queue, wrong), 0);
}

/// The same at its end: none waits, and the scores are right.
fn is_done(queue: &Connection, more: i64) {
    is_whole(queue);
    assert_eq!(number(queue, "SELECT count(*) FROM questionnaire"), more + 6);
    assert_eq!(number(queue, "SELECT count(*) FROM questionnaire WHERE status = 'pending'"), 0);
    let sums = "SELECT count(*) FROM questionnaire WHERE id > 6
        AND score = 4 * (SELECT sum(value) FROM json_each(answers)) AND status = 'scored'";
    assert_eq!(number(queue, sums), more);
    let own: Vec<(i64, String, Option<i64>)> = queue
        .prepare("SELECT id, status, score FROM questionnaire WHERE id <= 6 ORDER BY id")
        .and_then(|mut rows| rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?.collect())
        .expect("rows");
    let scores = [Some(5), Some(76), Some(12), Some(24), None, None];
    for ((id, status, score), wanted) in own.into_iter().zip(scores) {
        assert_eq!((status.as_str(), score), (wanted.map_or("rejected", |_| "scored"), wanted), "{id}");
    }
}

/// The arguments that run the sample job on the database of a place.
fn arguments() -> [String; 6] {
    let jobs = repository("jobs").to_string_lossy().into_owned();
    ["run".into(), "epro-queue".into(), "--jobs".into(), jobs, "--format".into(), "json".into()]
}

fn start(place: &Place) -> Going {
    Going::start(&mut command(place))
}

fn command(place: &Place) -> Command {
    let db = format!("db={}", place.path("queue.db").display());
    let arguments = arguments();
    let mut all: Vec<&str> = arguments.iter().map(String::as_str).collect();
    all.extend(["--set", &db]);
    place.command(&all)
}

#[test]
fn the_queue_is_emptied_and_then_there_is_nothing_to_do() {
    let place = Place::new();
    let queue = queue(&place.path("queue.db"), 700);
    let record = start(&place).end().exits(0).json();
    assert_eq!((&record["outcome"], &record["stages"][2]["ok"]), (&"succeeded".into(), &500.into()), "{record}");
    is_whole(&queue);
    assert_eq!(start(&place).end().exits(0).json()["stages"][2]["ok"], 206);
    is_done(&queue, 700);
    assert_eq!(start(&place).end().exits(0).json()["stages"][0]["items"], 0);
}

#[test]
fn signals_at_any_moment_lose_none_and_score_none_twice() {
    let (place, mut more) = (Place::new(), 300);
    let queue = queue(&place.path("queue.db"), more);
    let ended = || number(&queue, "SELECT count(*) FROM ended");
    let (mut rounds, mut cut) = (0, 0);
    // At first as early as can be, then when a run has ended so many.
    let mut signals = [Signal::INT, Signal::TERM, Signal::KILL, Signal::HUP].into_iter().cycle();
    loop {
        if number(&queue, "SELECT count(*) FROM questionnaire WHERE status = 'pending'") == 0 {
            if cut >= 10 {
                break;
            }
            refill(&queue);
            more += 100;
        }
        let (mut going, before) = (start(&place), ended());
        let wanted = before + i64::from(rounds % 12);
        while ended() < wanted && going.child.try_wait().expect("it is watched").is_none() {
            thread::yield_now();
        }
        if going.child.try_wait().expect("it is watched").is_none() {
            going.signal(signals.next().expect("a cycle"));
        }
        let done = going.end();
        cut += u32::from(done.code != 0);
        // Ended before its handler stood (1000 + the signal), by it, or before it came.
        assert!([0, 129, 130, 143, 1001, 1002, 1015, 1009].contains(&done.code), "{done:?}");
        is_whole(&queue);
        rounds += 1;
        assert!(rounds < 2000, "the queue does not become empty");
    }
    is_done(&queue, more.into());
}

/// By its schedule, every second here, under a `serve` that is stopped, or killed, and started again and again.
#[test]
fn a_serve_that_comes_and_goes_loses_none_and_scores_none_twice() {
    let (place, mut more) = (Place::new(), 100);
    let sample = fs::read_to_string(repository("jobs/epro-queue.ron")).expect("the sample");
    assert!(sample.contains("Every(\"1m\")"));
    place.write("jobs/epro-queue.ron", &sample.replace("Every(\"1m\")", "Every(\"1s\")"));
    let score = fs::read_to_string(repository("jobs/epro-queue/score.jq")).expect("its filter");
    place.write("jobs/epro-queue/score.jq", &score);
    place.write("lamplighter.ron", "Config(clock: Trusted)");
    let queue = queue(&place.path("jobs/epro-queue/queue.db"), more);
    let ended = || number(&queue, "SELECT count(*) FROM ended");
    let pending = || number(&queue, "SELECT count(*) FROM questionnaire WHERE status = 'pending'");
    let (mut rounds, mut resumed) = (0, 0);
    loop {
        if pending() == 0 {
            if rounds >= 10 && resumed >= 3 {
                break;
            }
            refill(&queue);
            more += 100;
        }
        let mut serve = Going::start(place.command(&["serve"]).env("LAMPLIGHTER_LOG", "info"));
        let wanted = ended() + 1 + i64::from(rounds % 7);
        while ended() < wanted && pending() > 0 && serve.child.try_wait().expect("it is watched").is_none() {
            thread::yield_now();
        }
        let is_killed = rounds % 3 == 2;
        serve.signal(if is_killed { Signal::KILL } else { Signal::TERM });
        let done = serve.end();
        assert_eq!(done.code, if is_killed { 1009 } else { 0 }, "{done:?}");
        resumed += done.stderr.matches("run resumed").count();
        is_whole(&queue);
        rounds += 1;
        assert!(rounds < 500, "the queue does not become empty");
    }
    is_done(&queue, more.into());
}

#[test]
fn two_runs_at_once_end_each_questionnaire_once() {
    let place = Place::new();
    let queue = queue(&place.path("queue.db"), 200);
    // Each with a state of its own, as on three machines that share a disk: on one state the second is refused.
    let start = |state: &str| Going::start(command(&place).env("XDG_STATE_HOME", place.path(state)));
    let runs = [start("a"), start("b"), start("c")];
    for run in runs {
        run.end().exits(0);
    }
    is_done(&queue, 200);
}

#[test]
fn a_cancel_after_any_number_of_polls_loses_none_and_scores_none_twice() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("queue.db");
    let job = Arc::new(Job::from_file(&repository("jobs/epro-queue.ron"), &Handlers::new()).expect("a job").job);
    let run = |seed: u64, cancel_after: Option<u32>| {
        let sim = Sim::new(seed);
        let options = RunOptions {
            params: BTreeMap::from([("db".to_owned(), Value::from(path.to_string_lossy()))]),
            out: folder.path().join("out"),
            store: StoreChoice::Memory { limit: 1 << 20 },
            ..RunOptions::default()
        };
        let record = sim.run(async {
            let run = Runner::new(sim.world()).start(&job, options).expect("it starts");
            if let Some(polls) = cancel_after {
                for _ in 0..polls {
                    yield_now().await;
                }
                run.cancel("the test");
            }
            run.await
        });
        let record = record.unwrap_or_else(|stalled| panic!("seed {seed}, {cancel_after:?}: {stalled}"));
        assert_eq!(sim.leaked(), 0);
        record.outcome
    };
    let queue = queue(&path, 6);
    let again = "UPDATE questionnaire SET status = 'pending', score = NULL, reason = NULL, scored_by = NULL; DELETE FROM ended;";
    let mut partly = 0;
    for seed in 0..3 {
        for polls in 0.. {
            let outcome = run(seed, Some(polls));
            is_whole(&queue);
            let ended = number(&queue, "SELECT count(*) FROM ended");
            partly += u32::from((1..12).contains(&ended));
            if outcome == RunOutcome::Succeeded {
                assert_eq!(ended, 12);
            } else {
                assert_eq!(outcome, RunOutcome::Cancelled);
                assert_eq!(run(seed, None), RunOutcome::Succeeded);
            }
            is_done(&queue, 6);
            queue.execute_batch(again).expect("once more");
            if outcome == RunOutcome::Succeeded {
                break;
            }
        }
    }
    assert!(partly >= 20, "only {partly} runs were cut between two questionnaires");
}

/// Three items, each written into a table; one that waits long for it tries again.
const WRITES: &str = r#"Job(stages: [
    Stage(name: "list", key: "{{ item.id }}", run: [Items(list: [{"id": 1}, {"id": 2}, {"id": 3}])]),
    Stage(name: "write", workers: 3, timeout: "10m", retry: Retry(max_attempts: 2, initial_interval: "1ms"), run: [
        Sql(db: "q.db", execute: "INSERT INTO t VALUES (:id)"),
    ]),
])"#;

fn check(place: &Place) -> Done {
    place.run(&["check"])
}

#[test]
fn a_database_that_is_absent_is_a_remark_and_stops_a_run_before_it_begins() {
    let place = Place::with_job("writes", WRITES);
    check(&place).exits(0).prints("there is no file").prints("q.db yet");
    place.run(&["run", "writes"]).exits(2).says("q.db is not there");
    database(&place.path("jobs/q.db"), "CREATE TABLE t (id INTEGER PRIMARY KEY)");
    assert_eq!(check(&place).exits(0).stdout, "jobs/writes.ron: ok\n");
    place.run(&["run", "writes"]).exits(0);
    assert_eq!(number(&database(&place.path("jobs/q.db"), ""), "SELECT sum(id) FROM t"), 6);
    // Once more the rows are there already: three items fail, and no row is half there.
    let record = place.run(&["run", "writes", "--format", "json"]).exits(1).json();
    assert_eq!(record["failures"][0]["class"], "data");
    assert_eq!(record["failures"][0]["message"], "`q.db`: UNIQUE constraint failed: t.id");
}

#[test]
fn a_locked_database_is_tried_again_by_the_stage() {
    let place = Place::with_job("writes", &WRITES.replace("10m", "50ms"));
    let lock = database(&place.path("jobs/q.db"), "CREATE TABLE t (id INTEGER PRIMARY KEY); BEGIN EXCLUSIVE");
    let record = place.run(&["run", "writes", "--format", "json"]).exits(1).json();
    assert_eq!(record["failures"].as_array().map(Vec::len), Some(3), "{record}");
    assert_eq!(record["failures"][0]["class"], "timeout", "{record}");
    assert_eq!(record["failures"][0]["attempts"], 2, "{record}");
    assert_eq!(number(&lock, "SELECT count(*) FROM t"), 0);
}

#[test]
fn columns_are_known_to_what_comes_after() {
    let place = Place::new();
    database(&place.path("jobs/q.db"), "CREATE TABLE t (id INTEGER PRIMARY KEY, score REAL)");
    place.write(
        "jobs/wrong.ron",
        r#"Job(stages: [
    Stage(name: "list", key: "{{ item.idd }}", run: [Sql(db: "q.db", query: "SELECT id, score FROM t")]),
    Stage(name: "write", run: [
        Sql(db: "q.db", execute: "UPDATE t SET score = :scor WHERE id = :id"),
        Log(message: "{{ item.scor }}"),
    ]),
    Stage(name: "list-2", from: [], run: [Sql(db: "q.db", query: "SELECT scor FROM t WHERE id = :id")]),
])"#,
    );
    let done = check(&place).exits(2);
    for text in [
        "`item` has no field `idd`",
        "`item` has no field `scor`",
        "the value has no field `scor`",
        "did you mean :score?",
        "a source begins with none",
    ] {
        assert!(done.stdout.contains(text), "no {text:?} in\n{}", done.stdout);
    }
}

#[test]
fn a_query_without_end_ends_with_its_stage() {
    let place = Place::new();
    database(&place.path("jobs/q.db"), "");
    place.write(
        "jobs/endless.ron",
        r#"Job(deadline: "1h", stages: [
    Stage(name: "list", timeout: "50ms", run: [
        Sql(db: "q.db", query: "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n) SELECT max(i) AS i FROM n"),
    ]),
    Stage(name: "log", run: [Log(message: "{{ item.i }}")]),
])"#,
    );
    place.run(&["run", "endless"]).exits(1).says("the listing worked longer than its timeout of 50ms");
}
