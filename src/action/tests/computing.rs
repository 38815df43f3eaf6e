//! `Jq`, `Call`, `Log`: computations that end, that give much, that never end.

use super::*;
use crate::action::{CallError, HandlerError};
use futures_lite::future::or;

#[test]
fn a_filter_gives_what_it_gives() {
    let bench = Bench::new();
    assert_eq!(bench.values(r#"Jq(filter: ".a[] | . + $params.n")"#, json!({"a": [1, 2]})), [json!(4), json!(5)]);
    assert!(bench.values(r#"Jq(filter: "empty")"#, json!(1)).is_empty());
    bench.put("f.jq", "{id: .x}");
    assert_eq!(bench.values(r#"Jq(file: "f.jq")"#, json!({"x": 1})), [json!({"id": 1})]);
    let (class, _, given_up) = bench.failure(r#"Jq(filter: ".a.b.c")"#, json!({"a": 1}));
    assert_eq!((class, given_up), (Class::Data, true));
    assert!(bench.finding("Jq()").contains("nothing to compute"));
    assert!(bench.finding(r#"Jq(filter: ".[")"#).contains("Error"));
}

#[test]
fn a_source_streams_any_number_and_a_refusal_stops_the_filter() {
    let bench = Bench { source: true, ..Bench::new() };
    let mut cx = bench.item("k");
    cx.key = None;
    let facts = bench.facts(json!(null));
    let (given, result) = bench.run_with(r#"Jq(filter: "range(50000)")"#, &cx, &facts, Given::default());
    assert_eq!((given.values.len(), result), (50_000, Ok(())));
    for round in 0..4 {
        let most = Given { most: Some(100), ..Given::default() };
        let (given, result) = bench.run_with(r#"Jq(filter: "repeat(1)")"#, &cx, &facts, most);
        assert_eq!(given.values.len(), 100, "{round}");
        assert!(matches!(result, Err(Stop::Failed { failure, .. }) if failure.class == Class::TooLarge));
    }
}

#[test]
fn a_simulated_world_computes_in_place_whatever_a_source_gives() {
    let sim = crate::world::sim::Sim::new(7);
    let bench = Bench { source: true, ..Bench::on(sim.world(), Arc::default(), Duration::from_secs(10)) };
    let mut cx = bench.item("k");
    cx.key = None;
    let (action, facts) = (bench.action(r#"Jq(filter: "range(20000)")"#), bench.facts(json!(null)));
    let mut given = Given::default();
    assert_eq!(sim.run(action.run(&cx, &facts, &mut given)).expect("ends"), Ok(()));
    assert_eq!(given.values.len(), 20_000);
    let action = bench.action(r#"Write(json: "x.json")"#);
    assert_eq!(sim.run(action.run(&cx, &facts, &mut given)).expect("ends"), Ok(()));
    assert_eq!(bench.get("out/x.json"), "null\n");
}

/// Says when a value came.
struct Told(async_channel::Sender<()>);

impl Out for Told {
    fn hand(&mut self, _value: Arc<Value>) -> Handed<'_> {
        let _ = self.0.try_send(());
        Handed::now(Ok(()))
    }

    fn bad(&mut self, _failure: Failure) -> Handed<'_> {
        Handed::now(Ok(()))
    }

    fn response(&mut self, _head: Arc<Value>) {}
}

#[test]
fn a_filter_that_never_ends_is_abandoned_and_the_third_is_stuck_at_once() {
    let bench = Bench::new();
    let (cx, facts) = (bench.item("k"), bench.facts(json!(null)));
    // It goes on for long, and stops at its next output, so that the test leaves no busy thread behind.
    let action = bench.action(r#"Jq(filter: "range(16), last(range(5000000)), repeat(1)")"#);
    bench.block_on(async {
        for _ in 0..2 {
            let (sender, came) = async_channel::bounded(1);
            let mut told = Told(sender);
            let running = async { Some(action.run(&cx, &facts, &mut told).await) };
            let begun = async {
                let _ = came.recv().await;
                None
            };
            assert_eq!(or(begun, running).await, None);
        }
        let stuck = action.run(&cx, &facts, &mut Given::default()).await.map_err(|stop| *stop);
        assert!(
            matches!(&stuck, Err(Stop::Failed { failure, given_up: true }) if failure.class == Class::Stuck),
            "{stuck:?}"
        );
    });
}

#[test]
fn a_handler_is_called_with_the_item_and_gives_its_result() {
    let handlers = Handlers::new()
        .add("score", |call: crate::action::Call| async move {
            call.sleep(Duration::from_millis(1)).await;
            match call.value["n"].as_i64() {
                Some(n) => Ok(json!({"n": n, "args": call.args(), "key": call.key.as_str(), "run": call.run()})),
                None => Err(CallError::retry("no n")),
            }
        })
        .expect("adds");
    let bench = Bench { handlers, ..Bench::new() };
    assert_eq!(
        bench.values(r#"Call(handler: "score", args: {"t": "{{ item.n }}", "k": 2})"#, json!({"n": 5})),
        [json!({"n": 5, "args": {"t": "5", "k": 2}, "key": "k", "run": bench.run.id})]
    );
    let (class, message, given_up) = bench.failure(r#"Call(handler: "score")"#, json!({}));
    assert_eq!((class, message.as_str(), given_up), (Class::Call, "handler `score`: no n", false));
    assert!(bench.finding(r#"Call(handler: "scor")"#).contains("did you mean `score`?"));
    let shown = bench.action(r#"Call(handler: "score", args: {"t": "{{ key }}"})"#).preview(&bench.facts(json!(1)));
    assert_eq!(shown, Some(Ok("Call score {\"t\":\"k\"}".to_owned())));
}

#[test]
fn a_handler_has_one_usable_name() {
    let make = |names: &[&str]| {
        names.iter().try_fold(Handlers::new(), |all, name| all.add(name, |_| async { Ok(Value::Null) }))
    };
    assert_eq!(make(&["a", "b", "a"]).err(), Some(HandlerError::Twice("a".into())));
    assert_eq!(make(&["a b"]).err(), Some(HandlerError::Name("a b".into())));
    assert_eq!(make(&[""]).err(), Some(HandlerError::Name(String::new())));
    assert_eq!(make(&["b", "a"]).expect("adds").names().collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn a_log_line_cannot_carry_a_secret_and_needs_its_values() {
    let bench = Bench::new();
    assert_eq!(bench.run(r#"Log(message: "{{ item.a }}\nforged")"#, json!({"a": "x\u{1b}[2J"})).1, Ok(()));
    assert!(bench.finding(r#"Log(message: "{{ secret.token }}")"#).contains("secret"));
    assert_eq!(bench.failure(r#"Log(message: "{{ item.b }}")"#, json!({"a": 1})).0, Class::Data);
}
