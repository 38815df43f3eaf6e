//! `Sql`: what it binds and gives, what it refuses, and what it does when the database is locked, full or cut.

use super::*;
use crate::world::sim::Sim;
use futures_lite::future::or;
use rusqlite::Connection;
use std::path::PathBuf;

const SCHEMA: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT, real REAL, any);
    INSERT INTO t VALUES (1, 'a', 1.5, NULL), (9223372036854775807, 'Grüße', -0.0, 2), (3, NULL, NULL, 'x');";

/// A folder with `q.db`, made by these statements.
fn bench_of(bench: Bench, sql: &str) -> Bench {
    database(&bench, sql);
    bench
}

fn bench(sql: &str) -> Bench {
    bench_of(Bench::new(), sql)
}

fn database(bench: &Bench, sql: &str) -> Connection {
    let connection = Connection::open(bench.path("q.db")).expect("opens");
    connection.execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    connection
}

fn query(sql: &str) -> String {
    format!("Sql(db: \"q.db\", query: {sql:?})")
}

fn execute(sql: &str) -> String {
    format!("Sql(db: \"q.db\", execute: {sql:?})")
}

/// One number that the database says.
fn count(bench: &Bench, sql: &str) -> i64 {
    database(bench, "").query_row(sql, [], |row| row.get(0)).expect("a number")
}

#[test]
fn a_row_is_an_object_with_the_types_of_its_columns() {
    let bench = bench(SCHEMA);
    let rows = bench.values(&query("SELECT id, text, real, any FROM t ORDER BY real DESC, id"), Value::Null);
    assert_eq!(
        rows,
        [
            json!({"id": 1, "text": "a", "real": 1.5, "any": null}),
            json!({"id": i64::MAX, "text": "Grüße", "real": -0.0, "any": 2}),
            json!({"id": 3, "text": null, "real": null, "any": "x"}),
        ]
    );
    assert_eq!(bench.values(&query("SELECT id FROM t WHERE id > 1e300"), Value::Null), [] as [Value; 0]);
    let columns = bench.values(&query("WITH w(n) AS (VALUES (1), (2)) SELECT sum(n) AS \"the sum\" FROM w;"), json!(1));
    assert_eq!(columns, [json!({"the sum": 3})]);
}

#[test]
fn fields_are_bound_with_their_types_and_nothing_else_happens_to_them() {
    let bench = bench(SCHEMA);
    let value = json!({"null": null, "yes": true, "no": false, "int": i64::MIN, "real": 2.0, "text": "'; DROP TABLE t; --",
        "list": [1, "ä"], "object": {"b": 1, "a": null}});
    let names = ["null", "yes", "no", "int", "real", "text", "list", "object"];
    let columns: Vec<String> =
        names.iter().map(|name| format!(":{name} AS {name:?}, typeof(:{name}) AS t_{name}")).collect();
    let row = &bench.values(&query(&format!("SELECT {}", columns.join(", "))), value.clone())[0];
    let types = names.map(|name| row[format!("t_{name}")].as_str().expect("a text").to_owned());
    assert_eq!(types, ["null", "integer", "integer", "integer", "real", "text", "text", "text"]);
    assert_eq!((&row["yes"], &row["no"], &row["int"]), (&json!(1), &json!(0), &json!(i64::MIN)));
    assert_eq!((&row["text"], &row["list"]), (&value["text"], &json!("[1,\"ä\"]")));
    assert_eq!(row["object"], json!("{\"b\":1,\"a\":null}"));
    bench.values(&execute("UPDATE t SET text = :text, any = :text WHERE id = 1"), value.clone());
    assert_eq!(count(&bench, "SELECT count(*) FROM t WHERE text = any AND text LIKE '%DROP%'"), 1);
}

#[test]
fn what_cannot_be_bound_fails_the_item_by_its_name() {
    let bench = bench(SCHEMA);
    let sql = execute("UPDATE t SET text = :name WHERE id = :id");
    let (class, message, given_up) = bench.failure(&sql, json!({"id": 1}));
    assert_eq!((class, given_up), (Class::Data, true));
    assert_eq!(message, "the value has no field `name`, and `:name` needs it");
    for value in [json!(null), json!("secret"), json!([{"id": 1}])] {
        let (class, message, _) = bench.failure(&sql, value);
        assert!(class == Class::Data && !message.contains("secret"), "{message}");
    }
    let (class, message, _) = bench.failure(&sql, json!({"id": u64::MAX, "name": "x"}));
    assert_eq!((class, message.contains("`id` is too large")), (Class::Data, true), "{message}");
    assert_eq!(count(&bench, "SELECT count(*) FROM t WHERE text = 'a'"), 1);
}

#[test]
fn what_json_cannot_say_is_one_bad_row_and_the_listing_goes_on() {
    let sql = "CREATE TABLE t (id, x); INSERT INTO t VALUES (1, x'00ff'), (2, 9e999), (3, CAST(x'ff' AS TEXT)),
        (4, replace(hex(zeroblob(6000)), '0', 'y')), (5, 'good');";
    let bench = Bench { source: true, ..bench(sql) };
    let mut cx = bench.item("k");
    cx.key = None;
    let facts = bench.facts(Value::Null);
    let (given, result) = bench.run_with(&query("SELECT * FROM t ORDER BY id"), &cx, &facts, Given::default());
    assert_eq!((given.values, result), (vec![json!({"id": 5, "x": "good"})], Ok(())));
    let bad: Vec<String> = given.bad.iter().map(Failure::to_string).collect();
    assert_eq!(bad[0], "data: column `x` holds a blob: read it as text, such as hex(..)");
    assert!(bad[1].contains("infinite") && bad[2].contains("UTF-8"), "{bad:?}");
    assert_eq!(bad[3], "too_large: the row has more than 10000 bytes: raise `max_value`");
}

#[test]
fn many_rows_go_through_a_private_file_in_their_order() {
    let numbers = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 99999)";
    let bench = Bench { source: true, ..bench("") };
    let mut cx = bench.item("k");
    cx.key = None;
    let facts = bench.facts(Value::Null);
    let sql = query(&format!("{numbers} SELECT i, iif(i = 77777, x'00', 'text') AS x FROM n"));
    let (given, result) = bench.run_with(&sql, &cx, &facts, Given::default());
    assert_eq!((result, given.bad.len(), given.values.len()), (Ok(()), 1, 99_999));
    let wanted = (0..100_000).filter(|i| *i != 77_777).map(|i| json!({"i": i, "x": "text"}));
    assert!(given.values.into_iter().eq(wanted));
    // An item may not ask for more than it may give, and never gets a part of it.
    let endless = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n)";
    let (class, message, given_up) = bench.failure(&query(&format!("{endless} SELECT i FROM n")), Value::Null);
    assert_eq!((class, given_up), (Class::TooLarge, true));
    assert!(message.contains("more than 10000 bytes: raise `max_value`"), "{message}");
    let mut given = Given { max: Some(u64::MAX), ..Given::default() };
    let action = bench.action(&query(&format!("{endless} SELECT NULL AS i FROM n")));
    let result = bench.block_on(action.run(&bench.item("k"), &facts, &mut given)).map_err(|stop| *stop);
    let Err(Stop::Failed { failure, given_up: true }) = result else { panic!("{result:?}") };
    assert!(failure.message.contains("more than 10000 rows for one item"), "{failure}");
    assert!(given.values.is_empty());
}

#[test]
fn rows_that_nobody_takes_yet_keep_nobody_from_writing() {
    /// Writes into the database at each row that it is given.
    struct Writer(Connection, i64);
    impl Out for Writer {
        fn hand(&mut self, value: Arc<Value>) -> Handed<'_> {
            self.1 += self.0.execute("DELETE FROM t WHERE id = ?1", [value["id"].as_i64()]).expect("writes") as i64;
            Handed::now(Ok(()))
        }
        fn bad(&mut self, failure: Failure) -> Handed<'_> {
            panic!("{failure}")
        }
        fn response(&mut self, _head: Arc<Value>) {}
    }
    for mode in ["DELETE", "WAL"] {
        let rows = "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) SELECT i FROM n";
        let bench = bench(&format!("PRAGMA journal_mode = {mode}; CREATE TABLE t (id INTEGER PRIMARY KEY); {rows};"));
        let mut cx = bench.item("k");
        cx.key = None;
        let connection = database(&bench, "PRAGMA synchronous = OFF");
        connection.busy_timeout(Duration::ZERO).expect("no wait");
        let mut out = Writer(connection, 0);
        let action = bench.action(&query("SELECT id FROM t ORDER BY id"));
        let facts = bench.facts(Value::Null);
        assert_eq!(bench.block_on(action.run(&cx, &facts, &mut out)), Ok(()), "{mode}");
        assert_eq!((out.1, count(&bench, "SELECT count(*) FROM t")), (2000, 0), "{mode}");
    }
}

#[test]
fn a_statement_that_fails_has_done_nothing() {
    let bench = bench(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, x TEXT NOT NULL UNIQUE); INSERT INTO t VALUES (1, 'a'), (2, 'b');",
    );
    let (class, message, given_up) = bench.failure(
        &execute("INSERT INTO t SELECT id + 10, x || :x FROM t UNION ALL SELECT 99, 'a'"),
        json!({"x": "canary"}),
    );
    assert_eq!((class, given_up), (Class::Data, true));
    assert_eq!(message, "`q.db`: UNIQUE constraint failed: t.x");
    assert_eq!(count(&bench, "SELECT count(*) FROM t"), 2);
    // What SQLite quotes may be a value.
    let (class, message, _) = bench.failure(&query("SELECT json_extract('{}', :x) AS x"), json!({"x": "canary"}));
    assert!(class == Class::Data && !message.contains("canary"), "{message}");
    bench.put("no.db", "this is no database, as everybody can see who reads it from its beginning to its end");
    let (_, findings) = bench.check(r#"Sql(db: "no.db", query: "SELECT 1")"#);
    assert_eq!(findings[0].message, "this file is no SQLite database");
    let params = r#"Sql(db: "{{ params.n }}.db", execute: "DELETE FROM t")"#;
    let (class, message, _) = bench.failure(params, Value::Null);
    assert_eq!(class, Class::Output);
    assert!(
        message.starts_with("`3.db`: cannot open /") && message.ends_with("No such file or directory"),
        "{message}"
    );
    std::fs::create_dir(bench.path("3.db")).expect("makes");
    assert!(bench.failure(params, Value::Null).1.contains("no regular file"));
}

#[test]
fn a_locked_database_is_waited_for_and_then_is_a_timeout_that_a_stage_repeats() {
    let sim = Sim::new(1);
    let bench = bench_of(Bench::on(sim.world(), Arc::default(), Duration::from_secs(10)), SCHEMA);
    let lock = database(&bench, "BEGIN EXCLUSIVE");
    let (cx, facts) = (bench.item("k"), bench.facts(json!({"id": 1})));
    for ron in [execute("DELETE FROM t WHERE id = :id"), query("SELECT * FROM t")] {
        let (action, before) = (bench.action(&ron), sim.elapsed());
        let result = sim.run(action.run(&cx, &facts, &mut Given::default())).expect("ends").map_err(|stop| *stop);
        let Err(Stop::Failed { failure, given_up: false }) = result else { panic!("{result:?}") };
        assert_eq!(failure.to_string(), "timeout: `q.db`: others held the database locked for 10s");
        assert!(sim.elapsed() - before >= crate::limits::SQL_LOCKED_MAX);
    }
    // The lock goes while it waits.
    let action = bench.action(&execute("DELETE FROM t WHERE id = :id"));
    let mut given = Given::default();
    let world = sim.world();
    let free = async {
        world.sleep(Duration::from_secs(3)).await;
        drop(lock);
        std::future::pending().await
    };
    assert_eq!(sim.run(or(action.run(&cx, &facts, &mut given), free)).expect("ends"), Ok(()));
    assert_eq!(count(&bench, "SELECT count(*) FROM t"), 2);
}

#[test]
fn items_of_one_stage_write_in_turns_however_many_they_are() {
    let bench = bench("CREATE TABLE t (id INTEGER PRIMARY KEY, x)");
    let action: Arc<dyn Action> = bench.action(&execute("INSERT INTO t SELECT :id, max(id) FROM t")).into();
    let ids = 0..60;
    let tasks = ids.clone().map(|id| {
        let (action, cx, facts) = (action.clone(), bench.item("k"), bench.facts(json!({"id": id})));
        bench.executor.spawn(async move { action.run(&cx, &facts, &mut Given::default()).await })
    });
    let tasks: Vec<_> = tasks.collect();
    bench.block_on(async {
        for task in tasks {
            assert_eq!(task.await, Ok(()));
        }
    });
    // Each saw what the one before had written: nobody was passed by.
    assert_eq!(count(&bench, "SELECT count(*) FROM t WHERE x IS id - 1 OR id = 0"), 60);
}

#[test]
fn a_database_that_is_written_stays_open_as_long_as_its_workers_and_no_longer() {
    let bench = bench("PRAGMA journal_mode = WAL; CREATE TABLE t (id INTEGER PRIMARY KEY)");
    let (first, second) = (bench.item("a"), bench.item("b"));
    let action = bench.action(&execute("INSERT INTO t VALUES (:id)"));
    let mut id = 0;
    let mut insert = |cx: &ItemContext| {
        id += 1;
        let facts = bench.facts(json!({"id": id}));
        assert_eq!(bench.block_on(action.run(cx, &facts, &mut Given::default())), Ok(()));
        open_files(&bench.path("q.db"))
    };
    assert_eq!((insert(&first), insert(&second), insert(&first)), (1, 1, 1));
    // Another file in its place is another database.
    database(&bench, &format!("VACUUM INTO '{}'", bench.path("new.db").display()));
    std::fs::rename(bench.path("new.db"), bench.path("q.db")).expect("renames");
    assert_eq!(insert(&second), 1);
    drop(first);
    assert_eq!(open_files(&bench.path("q.db")), 1);
    drop(second);
    assert!(!bench.run.leftovers.is_empty(), "the run waits for it");
    bench.block_on(bench.run.leftovers.join());
    assert_eq!(open_files(&bench.path("q.db")), 0);
    assert_eq!(count(&bench, "SELECT count(*) FROM t"), 4);
}

#[test]
fn a_statement_without_end_stops_when_it_is_cut() {
    let bench = bench("CREATE TABLE t (id INTEGER PRIMARY KEY)");
    let endless = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n)";
    let facts = bench.facts(Value::Null);
    let cx = bench.item("k");
    for ron in [
        query(&format!("{endless} SELECT count(*) AS n FROM n")),
        execute(&format!("INSERT INTO t {endless} SELECT i FROM n")),
    ] {
        let action = bench.action(&ron);
        let mut given = Given::default();
        let world = bench.run.world.clone();
        let cut = async {
            // It has begun: its connection keeps the file open.
            while open_files(&bench.path("q.db")) == 0 {
                world.sleep(Duration::from_millis(1)).await;
            }
            Err(Stop::Cut.into())
        };
        assert_eq!(bench.block_on(or(action.run(&cx, &facts, &mut given), cut)), Err(Stop::Cut.into()), "{ron}");
        // The next attempt, and the end of the run, wait for it.
        bench.block_on(bench.run.leftovers.gone((cx.stage_place, cx.lineage.clone())));
        assert_eq!(open_files(&bench.path("q.db")), 0);
        assert_eq!(count(&bench, "SELECT count(*) FROM t"), 0);
    }
}

/// Descriptors of this process that are this file.
fn open_files(path: &Path) -> usize {
    let entries = std::fs::read_dir("/proc/self/fd").expect("a list").flatten();
    entries.filter(|entry| std::fs::read_link(entry.path()).is_ok_and(|target: PathBuf| target == path)).count()
}

#[test]
fn the_mode_of_the_database_stays_what_it_is() {
    for mode in ["delete", "wal", "truncate"] {
        let bench = bench(&format!("PRAGMA journal_mode = {mode}; CREATE TABLE t (id INTEGER PRIMARY KEY);"));
        bench.values(&execute("INSERT INTO t VALUES (:id)"), json!({"id": 7}));
        bench.values(&query("SELECT id FROM t"), Value::Null);
        let kept: String = database(&bench, "").query_row("PRAGMA journal_mode", [], |row| row.get(0)).expect("a mode");
        let lasting = if mode == "wal" { "wal" } else { "delete" };
        assert_eq!(kept, lasting);
        assert_eq!(count(&bench, "SELECT id FROM t"), 7);
    }
}

#[test]
fn a_check_says_what_the_database_says_and_leaves_no_trace() {
    let bench = bench(&format!("PRAGMA journal_mode = WAL; {SCHEMA}"));
    let files = || names(bench.dir.path());
    let before = files();
    let finding = |ron: &str| bench.finding(ron);
    assert!(finding(&query("SELECT idd FROM t")).starts_with("Error run[0].query: no such column: idd"));
    assert!(finding(&execute("DELETE FROM tt")).contains("no such table: tt"));
    let (_, findings) = bench.check(&query("SELECT id, FROM t"));
    assert_eq!(
        (findings[0].message.as_str(), findings[0].within.clone()),
        ("near \"FROM\": syntax error", Some(11..15))
    );
    assert!(finding(&query("SELECT id, id FROM t")).contains("two columns are called `id`"));
    assert!(finding(&execute("DELETE FROM t RETURNING id")).contains("would be lost"));
    assert!(bench.check(&query("SELECT id FROM t")).1.is_empty());
    assert_eq!(files(), before, "a check makes no file");
    // Without a database its grammar is judged, and that it is absent is a remark.
    let (checked, findings) = bench.check(r#"Sql(db: "none.db", query: "SELECT idd FROM nowhere")"#);
    assert!(checked.is_some() && findings.len() == 1, "{findings:?}");
    assert!(findings[0].message.starts_with("there is no file "), "{findings:?}");
    assert!(bench.check(r#"Sql(db: "none.db", query: "SELECT a b c FROM t")"#).1[1].message.contains("syntax error"));
    // The database that params name may be another one when it runs.
    database(&bench, "VACUUM INTO '3.db'".replace("3.db", &bench.path("3.db").to_string_lossy()).as_str());
    let (checked, findings) = bench.check(r#"Sql(db: "{{ params.n }}.db", query: "SELECT idd FROM t")"#);
    assert!(checked.is_some() && findings[0].message == "no such column: idd", "{findings:?}");
}

#[test]
fn a_check_knows_what_can_be_bound_and_what_chooses_a_database() {
    let bench = Bench { source: true, ..bench(SCHEMA) };
    let finding = |ron: &str| bench.finding(ron);
    assert!(finding(&query("SELECT id FROM t WHERE id = :id")).contains("a source begins with none"));
    for name in ["item.db", "value", "key", "run.id", "secret.token"] {
        let found = Bench::new().finding(&format!(r#"Sql(db: "{{{{ {name} }}}}", query: "SELECT 1")"#));
        assert!(found.starts_with("Error run[0].db: ") && found.contains("only `params` can"), "{found}");
    }
    assert!(finding(r#"Sql(db: "", query: "SELECT 1")"#).contains("no name of a file"));
    assert!(finding(r#"Sql(db: "q.db")"#).contains("nothing says what is asked"));
    assert!(finding(r#"Sql(db: "q.db", query: "SELECT 1", execute: "DELETE FROM t")"#).contains("exclude each other"));
    assert!(finding(r#"Sql(db: "q.db", execute: "DELETE FROM t", into: "x")"#).contains("gives nothing to put there"));
}

#[test]
fn a_dry_run_reads_and_prints_what_it_would_write() {
    let bench = bench(SCHEMA);
    let facts = bench.facts(json!({"id": 1, "text": "a'b"}));
    assert!(bench.action(&query("SELECT id FROM t")).preview(&facts).is_none());
    let printed = bench.action(&execute("UPDATE t SET text = :text WHERE id = :id")).preview(&facts);
    assert_eq!(printed, Some(Ok("Sql q.db 'UPDATE t SET text = :text WHERE id = :id' :text=\"a'b\" :id=1".into())));
}
