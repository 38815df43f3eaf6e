//! `--until`, `--limit`, `--key`, `--dry-run`.

use super::lab::{Lab, Script, options, source};
use lamplighter::{
    item::RunOutcome,
    run::{Preview, RunOptions, Runner, StartError},
    world::sim::Sim,
};
use std::sync::{Arc, Mutex};

#[test]
fn until_leaves_out_what_does_not_feed_the_stage_and_hands_out_its_values() {
    let lab = Lab::new(&format!(
        "{}, Stage(name: \"a\", run: [Jq(filter: \"., .\")]), Stage(name: \"b\", run: [Call(handler: \"sink\")]),
         Stage(name: \"c\", from: [\"a\"], run: [Call(handler: \"sink\")])",
        source(4, |_| String::new())
    ));
    for (until, ran, given) in
        [("a", vec!["list", "a"], 8), ("b", vec!["list", "a", "b"], 8), ("list", vec!["list"], 4)]
    {
        for seed in 0..10 {
            let (sender, receiver) = async_channel::bounded(64);
            let options = RunOptions { until: Some(until.into()), tap: Some(sender), ..options() };
            let done = lab.run_with(seed, options, Script::Await);
            assert_eq!(done.outcome(), RunOutcome::Succeeded);
            let names: Vec<&str> = done.record.stages.iter().map(|stage| stage.name.as_str()).collect();
            assert_eq!((names, receiver.len()), (ran.clone(), given));
            assert_eq!(done.sunk.len(), if until == "b" { 8 } else { 0 });
        }
    }
}

#[test]
fn a_stage_whose_only_wanted_reader_is_closed_closes_too() {
    let lab = Lab::new(&format!(
        "{}, Stage(name: \"a\", tolerate: \"99\", run: [Call(handler: \"act\", args: {{\"ms\": 10}})]),
         Stage(name: \"b\", deadline: \"15ms\", on_deadline: Continue, tolerate: \"99\", run: [Call(handler: \"act\")]),
         Stage(name: \"c\", from: [\"a\"], run: [Call(handler: \"sink\")])",
        source(10, |_| String::new())
    ));
    let options = RunOptions { until: Some("b".into()), ..options() };
    let done = lab.run_with(1, options, Script::Await);
    assert_eq!(done.six("a"), [10, 2, 0, 1, 0, 7]);
}

#[test]
fn a_limit_lists_so_many_and_no_more() {
    let lab = Lab::new(
        "Stage(name: \"list\", run: [Jq(filter: \"range(100000)\")]), Stage(name: \"work\", workers: 2, run: [Call(handler: \"sink\")])",
    );
    for limit in [0, 1, 3, 600] {
        let done = lab.run_with(limit, RunOptions { limit: Some(limit), ..options() }, Script::Await);
        assert_eq!(done.outcome(), RunOutcome::Succeeded, "{:?}", done.record.reason);
        assert_eq!((done.counts("list").items, done.counts("work").ok), (limit, limit));
    }
}

#[test]
fn a_key_runs_only_that_item_or_what_is_below_it() {
    let lab = Lab::new(
        "Stage(name: \"list\", key: \"{{ item.id }}\", run: [Items(list: [{\"id\": \"P1\"}, {\"id\": \"P2\"}, {\"id\": \"P10\"}])]),
         Stage(name: \"kinds\", key: \"{{ item.k }}\", run: [Jq(filter: \"{k: \\\"steps\\\"}, {k: \\\"sleep\\\"}\")]),
         Stage(name: \"end\", run: [Call(handler: \"sink\")]),
         Stage(name: \"by\", gather: By(\"{{ value }}\"), tolerate: \"9\", run: [Call(handler: \"act\")]),
         Stage(name: \"all\", from: [\"kinds\"], gather: All, run: [Jq(filter: \"[items]|length\"), Call(handler: \"sink\")])",
    );
    for (key, expected) in
        [("P1", vec!["P1/sleep", "P1/steps"]), ("P1/steps", vec!["P1/steps"]), ("P", vec![]), ("P2/none", vec![])]
    {
        let done = lab.run_with(1, RunOptions { key: Some(key.into()), ..options() }, Script::Await);
        assert_eq!(done.sunk_keys("end"), expected, "{key}");
        let gathered = done.sunk.iter().find(|(stage, ..)| stage == "all").map(|(.., value)| value.clone());
        assert_eq!(gathered, Some(expected.len().into()), "{key}");
    }
}

#[test]
fn a_dry_run_prints_the_first_items_of_each_stage_and_does_nothing() {
    let lab = Lab::new(
        "Stage(name: \"list\", key: \"{{ item.id }}\", run: [Jq(filter: \"range(6) | {id: .}\"), Log(message: \"listed {{ value.id }}\")]),
         Stage(name: \"work\", run: [Jq(filter: \". + {x: 1}\"), Log(message: \"of {{ key }}\"), Write(json: \"{{ item.id }}.json\")]),
         Stage(name: \"call\", run: [Call(handler: \"sink\", args: {\"n\": \"{{ value.x }}\"}), Write(json: \"never.json\")]),
         Stage(name: \"all\", from: [\"work\"], gather: All, run: [Write(json: \"all.json\")])",
    );
    let folder = tempfile::tempdir().expect("a folder");
    let lines: Arc<Mutex<Vec<String>>> = Arc::default();
    let printed = lines.clone();
    let preview: Preview = Arc::new(move |line| printed.lock().expect("one thread").push(line.to_owned()));
    let options = RunOptions { preview: Some(preview), out: folder.path().join("out"), ..options() };
    let done = lab.run_with(3, options, Script::Await);
    assert_eq!(done.outcome(), RunOutcome::Succeeded, "{:?}", done.record);
    assert_eq!((done.sunk.len(), done.record.outputs_total), (0, 0));
    assert_eq!(done.counts("call").empty, 6);
    let lines = lines.lock().expect("one thread").clone();
    let of = |stage: &str| lines.iter().filter(|line| line.starts_with(&format!("{stage} "))).count();
    assert_eq!((of("work"), of("call"), of("all")), (6, 3, 1), "{lines:#?}");
    assert!(
        !folder.path().join("out").exists() || folder.path().join("out").read_dir().expect("reads").next().is_none()
    );
}

#[test]
fn what_is_not_there_is_named_before_anything_runs() {
    let lab = Lab::new(&source(1, |_| String::new()));
    let sim = Sim::new(1);
    let start = |options: RunOptions| Runner::new(sim.world()).start(&lab.job, options).err();
    assert_eq!(start(RunOptions { until: Some("x".into()), ..options() }), Some(StartError::NoStage("x".into())));
    let params = [("p".to_owned(), 1.into())].into_iter().collect();
    assert_eq!(start(RunOptions { params, ..options() }), Some(StartError::NoParam("p".into())));
}
