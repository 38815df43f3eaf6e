//! What every store promises of runs: that they begin once, change hands, go on and end once; history, log, what jobs
//! remember, what is forgotten.

use super::{ROOM, durable, failed, ok, promises, sqlite};
use crate::{
    item::{Key, Lineage, Outcome, OutputRecord, RunOutcome, Value},
    limits::{EVENTS_BYTES_MAX, PAGE_ROWS},
    store::{
        Began, Begun, Claim, Clocks, Copied, CopyPlan, EventQuery, FiringEnd, FiringRow, Mark, NewRun, Retention,
        RowEnd, RowFilter, RowQuery, RunEnd, RunEvent, RunKind, RunPhase, State, Store, TakenOver, Unsettled,
        after_key, memory::Memory,
    },
};
use futures_lite::future::block_on;
use serde_json::json;
use std::sync::Arc;

pub(super) fn new_run(run: &str, job: &str) -> NewRun {
    NewRun {
        run: run.into(),
        job: job.into(),
        trigger: "manual".into(),
        fire_key: None,
        kind: RunKind::Foreground,
        due_ms: 1000,
        clocks: Clocks { wall_ms: 2000, boot_ms: 100 },
        deadline_ms: Some(9000),
        budget_ms: Some(7000),
        definition: format!("Job({job})"),
        params: r#"{"a":1}"#.into(),
        options: "{}".into(),
        alone: false,
    }
}

pub(super) fn an_end(outcome: RunOutcome) -> RunEnd {
    RunEnd {
        outcome,
        reason: None,
        record: r#"{"failures":[]}"#.into(),
        ended_ms: 5000,
        ran_ms: 3000,
        notices: vec![0, 2],
        folds: None,
    }
}

pub(super) fn firing(key: &str, due_ms: i64, end: FiringEnd) -> FiringRow {
    let (job, trigger, key) = ("nightly".into(), "schedule".into(), key.into());
    FiringRow {
        job,
        key,
        trigger,
        due_ms,
        last_ms: due_ms,
        count: Some(1),
        end,
        reason: None,
        told_ms: 40,
        to_tell: false,
    }
}

fn key(text: &str) -> Key {
    Key::parse(text).expect("a key")
}

promises! {
    fn a_run_begins_once_and_ends_once(store: Arc<dyn Store>) {
        let state = State::new(store);
        let firing = NewRun { fire_key: Some("17".into()), trigger: "schedule".into(), ..new_run("a", "nightly") };
        block_on(async {
            assert_eq!(state.begin(firing.clone()).await, Ok(Begun::Now));
            let head = state.details("a").await.expect("the store answers").expect("it is kept").head;
            assert_eq!((head.phase, head.alive, head.pass), (RunPhase::Running, true, 1));
            assert_eq!((head.started_ms, head.due_ms, head.deadline_ms, head.budget_ms), (2000, 1000, Some(9000), Some(7000)));
            // The same id; the same firing under another id, whatever triggers it; another firing.
            assert_eq!(state.begin(firing.clone()).await, Ok(Begun::Before(head.clone())));
            let again = NewRun { run: "b".into(), ..firing.clone() };
            assert_eq!(state.begin(again.clone()).await, Ok(Begun::Before(head.clone())));
            let made_up = NewRun { trigger: "catch_up".into(), ..again };
            assert_eq!(state.begin(made_up.clone()).await, Ok(Begun::Before(head.clone())));
            assert_eq!(state.begin(NewRun { fire_key: Some("18".into()), ..made_up }).await, Ok(Begun::Now));
            // One at a time, where that is asked for.
            let alone = NewRun { alone: true, ..new_run("c", "nightly") };
            assert_eq!(state.begin(alone.clone()).await, Ok(Begun::Busy(head)));
            assert_eq!(state.begin(NewRun { job: "other".into(), ..alone.clone() }).await, Ok(Begun::Now));
            let rows = state.rows("a");
            assert_eq!(rows.end(an_end(RunOutcome::Partial)).await, Ok(true));
            assert_eq!(rows.end(an_end(RunOutcome::Succeeded)).await, Ok(false));
            assert_eq!((rows.release().await, state.interrupt("a", an_end(RunOutcome::Failed)).await), (Ok(false), Ok(false)));
            let details = state.details("a").await.expect("the store answers").expect("it is kept");
            assert_eq!((details.head.outcome, details.head.phase, details.head.alive), (Some(RunOutcome::Partial), RunPhase::Ended, false));
            assert_eq!((details.record.as_deref(), &*details.definition, &*details.params), (Some(r#"{"failures":[]}"#), "Job(nightly)", r#"{"a":1}"#));
            assert!(matches!(state.take_over("a", firing.clocks).await, Ok(TakenOver::Refused(_))));
            assert_eq!(state.take_over("nobody", firing.clocks).await, Ok(TakenOver::Unknown));
            // The firing has been, though its run has ended.
            assert!(matches!(state.begin(NewRun { run: "d".into(), ..firing }).await, Ok(Begun::Before(_))));
            // Notices are sent once.
            let open: Vec<_> = state.notices().await.expect("the store answers").into_iter().map(|notice| (notice.run, notice.place)).collect();
            assert_eq!(open, [("a".into(), 0), ("a".into(), 2)]);
            assert_eq!((rows.notice_done(0).await, rows.notice_done(0).await), (Ok(true), Ok(false)));
            assert_eq!(state.notices().await.expect("the store answers").len(), 1);
        });
    }

    /// A firing waits until it is a run, or ends without one; each once.
    fn a_firing_comes_to_one_end(store: Arc<dyn Store>) {
        let state = State::new(store);
        block_on(async {
            let mark = |text: &str| Mark { job: "nightly".into(), text: text.into() };
            let all = vec![firing("1", 10, FiringEnd::Missed), firing("3", 30, FiringEnd::Waiting), firing("2", 20, FiringEnd::Waiting)];
            // What is there stays as it is, and is told apart from what is new.
            let mut twice = all.clone();
            twice.insert(1, firing("1", 10, FiringEnd::Waiting));
            assert_eq!(state.consider(vec![mark("one")], twice).await.expect("the store answers"), all);
            // Considered once more, as after a crash.
            assert_eq!(state.consider(vec![mark("two")], vec![all[1].clone(), all[2].clone()]).await.expect("the store answers"), []);
            assert_eq!(state.marks().await.expect("the store answers"), [mark("two")]);
            let keys = |rows: Vec<FiringRow>| rows.into_iter().map(|row| row.key).collect::<Vec<_>>();
            assert_eq!(keys(state.waiting_firings().await.expect("the store answers")), ["2", "3"]);
            let past = state.past_firings(None, None, 9).await.expect("the store answers");
            assert_eq!(past.iter().map(|(_, row)| row).collect::<Vec<_>>(), [&all[0]]);

            let of = |run: &str, key: &str| NewRun { fire_key: Some(key.into()), ..new_run(run, "nightly") };
            assert_eq!(state.begin(of("a", "2")).await, Ok(Begun::Now));
            assert_eq!(state.begin(of("b", "1")).await, Ok(Begun::Settled), "it was missed");
            let end = |key: &str, due_ms, end, reason: &str, told_ms| FiringRow {
                reason: Some(reason.into()), told_ms, to_tell: true, ..firing(key, due_ms, end)
            };
            let written = async |firing: FiringRow| state.consider(Vec::new(), vec![firing]).await.expect("the store answers").len();
            assert_eq!(written(end("2", 20, FiringEnd::Skipped, "overlap", 50)).await, 0, "it runs");
            assert_eq!(written(end("3", 30, FiringEnd::Skipped, "overlap", 50)).await, 1);
            assert_eq!(written(end("3", 30, FiringEnd::Missed, "down", 51)).await, 0, "once");
            assert_eq!(written(firing("3", 30, FiringEnd::Waiting)).await, 0, "for good");
            assert_eq!(state.begin(of("c", "3")).await, Ok(Begun::Settled));
            assert_eq!(state.waiting_firings().await.expect("the store answers"), []);
            // One that has a run is not considered again.
            assert_eq!(state.consider(vec![mark("three")], vec![firing("2", 20, FiringEnd::Waiting)]).await.expect("the store answers"), []);
            assert_eq!(state.waiting_firings().await.expect("the store answers"), []);

            state.consider(vec![mark("")], Vec::new()).await.expect("the store answers");
            assert_eq!(state.marks().await.expect("the store answers"), [], "it is forgotten");

            // Whoever is to be told of one is told once.
            assert_eq!(keys(state.firings_to_tell().await.expect("the store answers")), ["3"]);
            assert_eq!((state.firing_told("nightly", "3").await, state.firing_told("nightly", "3").await), (Ok(true), Ok(false)));
            assert_eq!(state.firings_to_tell().await.expect("the store answers"), []);

            let page = state.past_firings(Some("nightly"), None, 1).await.expect("the store answers");
            let (number, newest) = &page[0];
            assert_eq!((&*newest.key, newest.end, newest.reason.as_deref(), newest.told_ms), ("3", FiringEnd::Skipped, Some("overlap"), 50));
            let before = state.past_firings(Some("nightly"), Some(*number), 9).await.expect("the store answers");
            assert_eq!(before.iter().map(|(_, row)| &*row.key).collect::<Vec<_>>(), ["1"]);
            assert_eq!(state.past_firings(Some("other"), None, 9).await.expect("the store answers"), []);

            let keep = Retention { max_runs: 9, max_age_ms: 10, max_bytes: u64::MAX, now_ms: 55 };
            while state.retain(keep).await.expect("the store answers").more {}
            assert_eq!(state.past_firings(None, None, 9).await.expect("the store answers").len(), 1, "the missed one was told at 40");
        });
    }

    /// Everything that waits, or is to be told, is read, however much it is, and in its order.
    fn firings_are_read_to_their_end(store: Arc<dyn Store>) {
        let state = State::new(store);
        block_on(async {
            let number = |number: i64| FiringRow { to_tell: true, ..firing(&number.to_string(), number / 7, FiringEnd::Waiting) };
            let all: Vec<FiringRow> = (0..2 * PAGE_ROWS as i64 + 3).map(number).collect();
            state.consider(Vec::new(), all.clone()).await.expect("the store answers");
            assert_eq!(state.waiting_firings().await.expect("the store answers"), all);
            assert_eq!(state.firings_to_tell().await.expect("the store answers"), all);
        });
    }

    /// What is left of runs is read to its end too.
    fn what_is_left_is_read_to_its_end(store: Arc<dyn Store>) {
        let state = State::new(store);
        block_on(async {
            let many = PAGE_ROWS as u16 + 3;
            for run in 0..many {
                state.begin(new_run(&run.to_string(), "nightly")).await.expect("the store answers");
            }
            assert_eq!(state.unfinished(None).await.expect("the store answers").len(), usize::from(many));
            let end = RunEnd { notices: (0..many).collect(), ..an_end(RunOutcome::Failed) };
            assert_eq!(state.rows("0").end(end).await, Ok(true));
            assert_eq!(state.notices().await.expect("the store answers").len(), usize::from(many));
        });
    }

    /// The end of a run is heard once, with what came of it.
    fn an_end_is_heard_once(store: Arc<dyn Store>) {
        let state = State::new(store);
        block_on(async {
            let unheard = async || state.unheard().await.expect("the store answers").into_iter().map(|head| head.run.to_string()).collect::<Vec<_>>();
            for run in ["b", "a", "open"] {
                state.begin(new_run(run, "nightly")).await.expect("the store answers");
            }
            assert_eq!(unheard().await, [""; 0], "none has ended");
            for run in ["a", "b"] {
                assert_eq!(state.rows(run).end(an_end(RunOutcome::Succeeded)).await, Ok(true));
            }
            assert_eq!(unheard().await, ["b", "a"]);
            let after = || vec![firing("after nightly b", 10, FiringEnd::Waiting)];
            assert_eq!(state.hear(vec!["b".into(), "unknown".into()], after()).await.expect("the store answers"), after());
            assert_eq!(unheard().await, ["a"]);
            assert_eq!(state.hear(vec!["b".into(), "a".into()], after()).await.expect("the store answers"), []);
            assert_eq!(unheard().await, [""; 0]);
            // With its head a run is forgotten.
            state.begin(new_run("old", "nightly")).await.expect("the store answers");
            assert_eq!(state.rows("old").end(an_end(RunOutcome::Failed)).await, Ok(true));
            while state.retain(Retention { max_runs: 0, max_age_ms: u64::MAX, max_bytes: u64::MAX, now_ms: 55 }).await.expect("the store answers").more {}
            assert_eq!(unheard().await, [""; 0]);
        });
    }

    fn a_run_that_was_let_go_is_taken_over_as_it_stood(store: Arc<dyn Store>) {
        let state = State::new(store);
        block_on(async {
            state.begin(new_run("r", "nightly")).await.expect("the store answers");
            let rows = state.rows("r").timed(Arc::new(|| 1234));
            rows.stage_began(0, 5, 2005).await.expect("the store answers");
            rows.stage_began(0, 6, 2006).await.expect("the store answers");
            rows.listing_done(0).await.expect("the store answers");
            rows.put_all(vec![
                ok(0, 0, vec![json!("one")]), ok(0, 1, vec![json!("a"), json!("b"), json!("c")]), ok(0, 2, vec![json!("two")]),
                failed(0, 3, None),
                // Of stage 1: the first is done, one child of the second waits, another one had begun.
                ok(1, 0, vec![json!("done")]),
            ]).await.expect("the store answers");
            let child = |index| Lineage::listed(0, 1).child(index);
            let wait = RowEnd::Retry { at_ms: 700, deadline_ms: Some(800) };
            rows.put(crate::store::Row { lineage: child(0), end: wait, ..ok(1, 1, vec![json!("a")]) }).await.expect("the store answers");
            rows.put(crate::store::Row { lineage: child(2), end: RowEnd::Started, ..ok(1, 1, vec![json!("c")]) }).await.expect("the store answers");
            assert_eq!(rows.release().await, Ok(true));
            assert_eq!(rows.end(an_end(RunOutcome::Succeeded)).await, Ok(false), "it is nobody's");
            assert_eq!(rows.unsettled(0, 1, None, 9).await.expect("the store answers"), [], "there is no earlier pass");

            let now = Clocks { wall_ms: 2000, boot_ms: 100 };
            let Ok(TakenOver::Now(resume)) = state.take_over("r", now).await else { panic!("not taken") };
            let head = &resume.details.head;
            assert_eq!((head.pass, head.alive, head.ran_ms, head.crashes, resume.is_poison), (2, true, 1234, 0, false));
            assert_eq!(resume.held, 1);
            assert_eq!(resume.details.stages.len(), 1);
            let mark = resume.details.stages[0];
            assert_eq!((mark.listed, mark.began), (true, Some(Began { ran_ms: 5, wall_ms: 2005 })));
            let tally = rows.tally(1).await.expect("the store answers");
            assert_eq!((tally.counts.items, tally.counts.ok, tally.counts.held, tally.waiting), (2, 1, 1, 1));
            let listed = rows.tally(0).await.expect("the store answers").counts;
            assert_eq!((listed.items, listed.ok, listed.failed, listed.attempts), (4, 3, 1, 7));
            assert_eq!(listed.classes.len(), 1);

            // What waits has a row, what was held has one: the second child and the third item are left.
            let open = [
                Unsettled {
                    lineage: Lineage::listed(0, 1), key: Key::ordinal(1),
                    values: vec![json!("a"), json!("b"), json!("c")], open: vec![1],
                },
                Unsettled { lineage: Lineage::listed(0, 2), key: Key::ordinal(2), values: vec![json!("two")], open: vec![0] },
            ];
            assert_eq!(rows.unsettled(0, 1, None, 9).await.expect("the store answers"), open);
            assert_eq!(rows.unsettled(0, 1, None, 1).await.expect("the store answers"), open[..1]);
            assert_eq!(rows.unsettled(0, 1, Some(Lineage::listed(0, 1)), 9).await.expect("the store answers"), open[1..]);
            // Another reader has all before it; what this pass lists comes by its channel.
            rows.put(ok(0, 4, vec![json!("new")])).await.expect("the store answers");
            assert_eq!(rows.unsettled(0, 2, None, 9).await.expect("the store answers").len(), 3);
            let waiting = rows.deferred(1, None, 9).await.expect("the store answers");
            assert_eq!(waiting.len(), 1);
            assert_eq!(waiting[0].end, RowEnd::Retry { at_ms: 700, deadline_ms: None }, "the item's deadline begins anew");
            let asked = vec![Lineage::listed(0, 0), child(0), child(1), child(2)];
            assert_eq!(rows.settled(1, asked).await.expect("the store answers"), [true, false, false, true]);
            assert_eq!(rows.end(an_end(RunOutcome::Succeeded)).await, Ok(true));
        });
    }

    fn a_listing_that_is_read_again_knows_what_it_recorded(store: Arc<dyn Store>) {
        let state = State::new(store);
        let (a, b, c) = (key("a"), key("b"), key("c"));
        let at = |ordinal| Lineage::listed(0, ordinal);
        block_on(async {
            state.begin(new_run("r", "nightly")).await.expect("the store answers");
            let rows = state.rows("r");
            let claim = async |key: &Key, ordinal| rows.claim_key(0, key, &at(ordinal)).await.expect("the store answers");
            assert_eq!(claim(&a, 0).await, Claim::Mine);
            rows.put(ok(0, 0, vec![json!(0)])).await.expect("the store answers");
            // The second `a` is a duplicate; of `b` the claim is kept and the row is lost.
            assert_eq!(claim(&a, 1).await, Claim::Taken { stage: 0, key: a.clone(), lineage: at(0) });
            rows.put(failed(0, 1, None)).await.expect("the store answers");
            assert_eq!(claim(&b, 2).await, Claim::Mine);
            rows.release().await.expect("the store answers");
            state.take_over("r", Clocks { wall_ms: 0, boot_ms: 0 }).await.expect("the store answers");
            assert_eq!(rows.relist(0).await.expect("the store answers"), 2);
            assert_eq!(rows.tally(0).await.expect("the store answers").counts.items, 1, "duplicates are found again");
            assert_eq!(claim(&a, 2).await, Claim::Known { lineage: at(0) });
            assert_eq!(claim(&a, 3).await, Claim::Taken { stage: 0, key: a.clone(), lineage: at(0) });
            assert_eq!(claim(&b, 4).await, Claim::Mine);
            assert_eq!(claim(&b, 4).await, Claim::Mine);
            assert_eq!(claim(&b, 5).await, Claim::Taken { stage: 0, key: b.clone(), lineage: at(4) });
            assert_eq!(claim(&c, 6).await, Claim::Mine);
            assert_eq!(rows.relist(7).await.expect("the store answers"), 0);
        });
    }

    fn runs_are_listed_newest_first(store: Arc<dyn Store>) {
        let state = State::new(store);
        block_on(async {
            for number in 0..5 {
                let run = format!("r{number}");
                state.begin(new_run(&run, if number % 2 == 0 { "even" } else { "odd" })).await.expect("the store answers");
                state.rows(&run).put(ok(0, 0, Vec::new())).await.expect("the store answers");
            }
            // A store may hold rows of runs that were never begun: they are no history.
            state.rows("private").put(ok(0, 0, Vec::new())).await.expect("the store answers");
            let names = async |job, before, limit| -> Vec<String> {
                let heads = state.history(job, before, limit).await.expect("the store answers");
                heads.into_iter().map(|head| head.run.to_string()).collect()
            };
            assert_eq!(names(None, None, 9).await, ["r4", "r3", "r2", "r1", "r0"]);
            assert_eq!(names(None, Some("r3"), 2).await, ["r2", "r1"]);
            assert_eq!(names(Some("even"), None, 2).await, ["r4", "r2"]);
            assert_eq!(names(Some("even"), Some("r2"), 2).await, ["r0"]);
            assert_eq!(names(Some("none"), None, 2).await, [""; 0]);
            assert_eq!(names(None, Some("gone"), 2).await, [""; 0]);
            assert_eq!(&*state.details("odd").await.expect("the store answers").expect("it is kept").head.run, "r3", "a job means its last run");
            assert_eq!((state.details("private").await, state.details("gone").await), (Ok(None), Ok(None)));
            state.rows("r2").end(an_end(RunOutcome::Failed)).await.expect("the store answers");
            let open: Vec<_> = state.unfinished(Some("even")).await.expect("the store answers").into_iter().map(|head| head.run).collect();
            assert_eq!(open, ["r0".into(), "r4".into()]);
            assert_eq!(state.unfinished(None).await.expect("the store answers").len(), 4);
        });
    }

    fn rows_and_log_of_a_run_can_be_asked_for(store: Arc<dyn Store>) {
        let state = State::new(store);
        let rows = state.rows("r");
        block_on(async {
            let timed = |stage, ordinal, took_ms| crate::store::Row { took_ms: Some(took_ms), ..ok(stage, ordinal, Vec::new()) };
            rows.put_all(vec![timed(0, 0, 5), timed(1, 0, 80), timed(1, 1, 9), failed(1, 2, Some(json!("in")))]).await.expect("the store answers");
            rows.put(crate::store::Row { key: key("P1/heart"), ..failed(2, 3, None) }).await.expect("the store answers");
            let places = async |query: RowQuery| -> Vec<(u16, String)> {
                let found = rows.row_heads(query).await.expect("the store answers");
                found.into_iter().map(|row| (row.stage, row.key.to_string())).collect()
            };
            let named = |place: (u16, &str)| (place.0, place.1.to_owned());
            let all = RowQuery { limit: 9, ..RowQuery::default() };
            assert_eq!(places(all.clone()).await, [(0, "1"), (1, "1"), (1, "2"), (1, "3"), (2, "P1/heart")].map(named));
            assert_eq!(places(RowQuery { stage: Some(1), limit: 2, ..all.clone() }).await, [(1, "1"), (1, "2")].map(named));
            let after = Some((1, Lineage::listed(0, 0)));
            assert_eq!(places(RowQuery { stage: Some(1), after, ..all.clone() }).await, [(1, "2"), (1, "3")].map(named));
            assert_eq!(places(RowQuery { filter: RowFilter::Missing, ..all.clone() }).await, [(1, "3"), (2, "P1/heart")].map(named));
            assert_eq!(places(RowQuery { key: Some(key("P1")), ..all.clone() }).await, [(2, "P1/heart")].map(named));
            assert_eq!(places(RowQuery { key: Some(key("P1/h")), ..all.clone() }).await, []);
            let one = rows.row_heads(RowQuery { filter: RowFilter::Missing, limit: 1, ..all }).await.expect("the store answers");
            assert_eq!((one[0].attempts, one[0].message.as_deref(), one[0].pass), (4, Some("no"), 1));
            let slow = rows.slowest(None, 2).await.expect("the store answers");
            assert_eq!(slow.iter().map(|row| row.took_ms.expect("it was timed")).collect::<Vec<_>>(), [80, 9]);
            assert_eq!(rows.slowest(Some(0), 2).await.expect("the store answers").len(), 1);

            let event = |text: &str, of: Option<&str>| RunEvent {
                wall_ms: 1, level: 2, stage: Some(1), key: of.map(key), text: text.to_owned(),
            };
            rows.add_events(vec![event("one", None), event("two", Some("P1/heart")), event("three", Some("P2"))]).await.expect("the store answers");
            let log = async |query| rows.events(query).await.expect("the store answers");
            let all = EventQuery { limit: 9, ..EventQuery::default() };
            assert_eq!(log(all.clone()).await[1], (2, event("two", Some("P1/heart"))));
            assert_eq!(log(EventQuery { after: Some(1), limit: 1, ..all.clone() }).await.len(), 1);
            assert_eq!(log(EventQuery { key: Some(key("P1")), ..all.clone() }).await.len(), 1);
            // The ring: as many as fit stay, the newest ones.
            let long = "x".repeat(1000);
            for _ in 0..4 {
                rows.add_events(vec![event(&long, None); 100]).await.expect("the store answers");
            }
            let rest = log(EventQuery { limit: 1000, ..all }).await;
            let bytes = rest.len() as u64 * 1032;
            assert!(bytes <= EVENTS_BYTES_MAX && bytes + 1032 > EVENTS_BYTES_MAX, "{bytes}");
            assert_eq!(rest.last().expect("there is one").0, 403);
        });
    }

    /// A night that is run twice never sees itself.
    fn a_run_sees_the_newest_value_of_an_earlier_due(store: Arc<dyn Store>) {
        let state = State::new(store);
        let (p1, p2) = (key("P1"), key("P2"));
        block_on(async {
            for due in [10, 20, 30] {
                assert_eq!(state.state_of("j", &p1, due).await.expect("the store answers"), (due > 10).then(|| json!(due - 10)));
                state.keep("r", "j", &p1, due, json!(due)).await.expect("the store answers");
            }
            assert_eq!(state.state_of("j", &p1, 30).await.expect("the store answers"), Some(json!(20)), "run once more");
            state.keep("r", "j", &p1, 30, json!("anew")).await.expect("the store answers");
            assert_eq!(state.state_of("j", &p1, 31).await.expect("the store answers"), Some(json!("anew")));
            assert_eq!(state.state_of("j", &p1, 20).await.expect("the store answers"), None, "all before the one before is gone");
            assert_eq!((state.state_of("j", &p2, 99).await, state.state_of("k", &p1, 99).await), (Ok(None), Ok(None)));
            // Days in the past do not take away newer ones, and see each other.
            state.keep("r", "j", &p1, 5, json!(5)).await.expect("the store answers");
            state.keep("r", "j", &p1, 6, json!(6)).await.expect("the store answers");
            assert_eq!(state.state_of("j", &p1, 6).await.expect("the store answers"), Some(json!(5)));
            assert_eq!(state.state_of("j", &p1, 30).await.expect("the store answers"), Some(json!(20)));
            let deep = (0..200).fold(Value::Null, |inner, _| json!([inner]));
            assert!(state.keep("r", "j", &p1, 40, deep).await.unwrap_err().to_string().contains("nested"));
            assert_eq!(state.state_of("j", &p1, 40).await.expect("the store answers"), Some(json!("anew")), "refused alone");
        });
    }

    fn a_repetition_takes_over_what_was_done(store: Arc<dyn Store>) {
        let state = State::new(store);
        block_on(async {
            state.begin(new_run("r", "nightly")).await.expect("the store answers");
            let rows = state.rows("r");
            let held = |ordinal| crate::store::Row { end: RowEnd::Done(Outcome::Held), ..failed(1, ordinal, None) };
            rows.put_all(vec![
                ok(0, 0, vec![json!("a")]), ok(0, 1, vec![json!("b")]), ok(0, 2, vec![json!("c")]), failed(0, 3, None),
                ok(1, 0, vec![json!("A")]), failed(1, 1, None), held(2), ok(2, 0, vec![json!("report")]),
            ]).await.expect("the store answers");
            rows.listing_done(0).await.expect("the store answers");
            rows.claim_key(0, &key("a"), &Lineage::listed(0, 0)).await.expect("the store answers");
            for (path, stage, ordinal) in [("a.html", 1, 0), ("report.html", 2, 0)] {
                rows.claim_output(path, stage, &key("a"), &Lineage::listed(0, ordinal)).await.expect("the store answers");
                rows.record_output(OutputRecord { path: path.into(), sha256: "00".into(), bytes: 1 }).await.expect("the store answers");
            }
            let plan = CopyPlan { parent: "r".into(), anew: vec![2], held: false };
            let copy = async |name: &str, plan: &CopyPlan| state.copy_for_retry(plan.clone(), new_run(name, "nightly")).await.expect("the store answers");
            assert!(matches!(copy("x", &plan).await, Copied::NotEnded(_)));
            rows.end(an_end(RunOutcome::Partial)).await.expect("the store answers");
            assert_eq!(copy("x", &CopyPlan { parent: "none".into(), ..plan.clone() }).await, Copied::Unknown);
            assert_eq!(copy("s", &plan).await, Copied::Now(6));
            assert!(matches!(copy("s", &plan).await, Copied::Refused(Begun::Before(_))));
            let again = state.rows("s");
            let head = state.details("s").await.expect("the store answers").expect("it is kept").head;
            assert_eq!((head.parent.as_deref(), &*head.chain_first, head.alive), (Some("r"), "r", true));
            let counts = again.tally(1).await.expect("the store answers").counts;
            assert_eq!((counts.ok, counts.held, counts.failed), (1, 1, 0));
            assert_eq!(again.tally(0).await.expect("the store answers").counts.failed, 1, "the listing was whole");
            assert_eq!(again.tally(2).await.expect("the store answers").counts.items, 0);
            let open = again.unsettled(0, 1, None, 9).await.expect("the store answers");
            assert_eq!(open.iter().map(|item| item.values[0].clone()).collect::<Vec<_>>(), [json!("b")]);
            assert_eq!(again.outputs(9).await.expect("the store answers").0.len(), 1);
            assert!(state.details("s").await.expect("the store answers").expect("it is kept").stages[0].listed);
            assert_eq!(again.claim_key(0, &key("a"), &Lineage::listed(0, 9)).await.expect("the store answers"), Claim::Known { lineage: Lineage::listed(0, 0) });
            // A chain of repetitions; this one runs held items too.
            again.end(an_end(RunOutcome::Partial)).await.expect("the store answers");
            let plan = CopyPlan { parent: "s".into(), held: true, ..plan };
            assert_eq!(copy("t", &plan).await, Copied::Now(5));
            assert_eq!(&*state.details("t").await.expect("the store answers").expect("it is kept").head.chain_first, "r");
            assert_eq!(state.rows("t").unsettled(0, 1, None, 9).await.expect("the store answers").len(), 2);
        });
    }

    fn a_key_is_forgotten_everywhere_and_what_still_holds_it_is_named(store: Arc<dyn Store>) {
        let state = State::new(store);
        let (p1, p10) = (key("P1"), key("P10"));
        let named = |stage, ordinal, key: &Key| crate::store::Row { key: key.clone(), ..ok(stage, ordinal, vec![json!("secret")]) };
        block_on(async {
            for run in ["over", "open"] {
                state.begin(new_run(run, "nightly")).await.expect("the store answers");
                let rows = state.rows(run);
                rows.put_all(vec![named(0, 0, &p1), named(0, 1, &p10), named(1, 0, &key("P1/heart")), named(1, 1, &p10)]).await.expect("the store answers");
                rows.listing_done(0).await.expect("the store answers");
                rows.put(crate::store::Row { lineage: Lineage::listed(2, 0), ..named(2, 0, &Key::all()) }).await.expect("the store answers");
                rows.claim_key(0, &p1, &Lineage::listed(0, 0)).await.expect("the store answers");
                rows.claim_output("P1.html", 1, &p1, &Lineage::listed(0, 0)).await.expect("the store answers");
                rows.claim_output("P10.html", 1, &p10, &Lineage::listed(0, 1)).await.expect("the store answers");
                rows.claim_output("all.html", 2, &Key::all(), &Lineage::listed(2, 0)).await.expect("the store answers");
                let event = |of: &Key| RunEvent { wall_ms: 0, level: 3, stage: None, key: Some(of.clone()), text: "x".into() };
                rows.add_events(vec![event(&p1), event(&p10)]).await.expect("the store answers");
            }
            let record = r#"{"failures":[{"key":"P1"},{"key":"P10"}]}"#.to_owned();
            state.rows("over").end(RunEnd { record, ..an_end(RunOutcome::Partial) }).await.expect("the store answers");
            for of in [&p1, &p10] {
                state.keep("over", "nightly", of, 1, json!(1)).await.expect("the store answers");
            }
            let forgotten = state.forget_key(&p1).await.expect("the store answers");
            assert_eq!((forgotten.rows, forgotten.kept, forgotten.events), (2, 1, 1));
            let over: Arc<str> = "over".into();
            assert_eq!(forgotten.outputs, [(over.clone(), "P1.html".to_owned()), (over.clone(), "all.html".to_owned())]);
            assert_eq!(forgotten.gathers, [(over, 2, Key::all())]);
            assert_eq!(forgotten.unfinished, ["open".into()]);
            let rows = state.rows("over");
            let left = rows.row_heads(RowQuery { limit: 9, ..RowQuery::default() }).await.expect("the store answers");
            assert_eq!(left.iter().map(|row| row.key.as_str()).collect::<Vec<_>>(), ["P10", "P10", "all"]);
            assert_eq!(rows.values(&[0, 1], None, crate::store::Page { after: None, limit: 9 }).await.expect("the store answers").len(), 2);
            assert_eq!(rows.events(EventQuery { limit: 9, ..EventQuery::default() }).await.expect("the store answers").len(), 1);
            let record = state.details("over").await.expect("the store answers").expect("it is kept").record;
            assert_eq!(record.as_deref(), Some(r#"{"failures":[{"key":"P10"}]}"#));
            assert_eq!(state.state_of("nightly", &p1, 9).await.expect("the store answers"), None);
            assert_eq!(state.state_of("nightly", &p10, 9).await.expect("the store answers"), Some(json!(1)));
            assert_eq!(state.rows("open").tally(0).await.expect("the store answers").counts.items, 2);
            assert_eq!(state.forget_key(&key("P2")).await.expect("the store answers"), crate::store::Forgotten::default());
        });
    }

    fn an_end_takes_the_place_of_a_run_that_nobody_needs(store: Arc<dyn Store>) {
        let state = State::new(store);
        let quiet = RunEnd { notices: Vec::new(), ..an_end(RunOutcome::Succeeded) };
        block_on(async {
            for (run, job) in [("over", "poll"), ("told", "poll"), ("open", "poll"), ("needed", "poll"), ("before", "poll"), ("other", "nightly")] {
                state.begin(new_run(run, job)).await.expect("the store answers");
                state.rows(run).put_all((0..1500).map(|ordinal| ok(0, ordinal, vec![json!("value")])).collect()).await.expect("the store answers");
                state.rows(run).add_events(vec![RunEvent { wall_ms: 0, level: 3, stage: None, key: None, text: "said".into() }]).await.expect("the store answers");
            }
            for run in ["over", "needed", "before", "other"] {
                assert!(state.rows(run).end(quiet.clone()).await.expect("the store answers"));
            }
            assert!(state.rows("told").end(an_end(RunOutcome::Succeeded)).await.expect("the store answers"));
            let plan = CopyPlan { parent: "needed".into(), anew: Vec::new(), held: false };
            state.copy_for_retry(plan, new_run("again", "poll")).await.expect("the store answers");
            let due_ms = state.details("before").await.expect("the store answers").expect("it is there").head.due_ms;
            let after = vec![firing(&after_key("poll", "before"), due_ms, FiringEnd::Waiting), firing(&after_key("poll", "over"), due_ms + 1, FiringEnd::Waiting)];
            state.consider(Vec::new(), after).await.expect("the store answers");
            for (run, is_needed) in [("told", true), ("needed", true), ("before", true), ("over", false), ("other", false), ("nobody", false)] {
                assert_eq!(state.is_needed(run).await.expect("the store answers"), is_needed, "{run}");
            }
            for (number, folds) in ["told", "open", "needed", "before", "other", "nobody", "over"].into_iter().enumerate() {
                let run = format!("r{number}");
                state.begin(new_run(&run, "poll")).await.expect("the store answers");
                assert!(state.rows(&run).end(RunEnd { folds: Some(folds.into()), ..quiet.clone() }).await.expect("the store answers"));
                // An end that comes twice folds nothing.
                assert!(!state.rows(&run).end(RunEnd { folds: Some("other".into()), ..quiet.clone() }).await.expect("the store answers"));
            }
            let kept = state.history(None, None, 99).await.expect("the store answers");
            let kept: Vec<&str> = kept.iter().map(|head| &*head.run).collect();
            assert_eq!(kept, ["r6", "r5", "r4", "r3", "r2", "r1", "r0", "again", "other", "before", "needed", "open", "told"]);
            assert_eq!(state.rows("over").tally(0).await.expect("the store answers").counts.items, 0);
            assert_eq!(state.rows("over").events(EventQuery { limit: 9, ..EventQuery::default() }).await.expect("the store answers"), []);
            assert_eq!(state.rows("needed").tally(0).await.expect("the store answers").counts.items, 1500);
        });
    }

    fn retention_lets_go_old_runs_but_none_that_is_needed(store: Arc<dyn Store>) {
        let state = State::new(store);
        let keep = Retention { max_runs: 100, max_age_ms: 1_000_000, max_bytes: u64::MAX, now_ms: 0 };
        block_on(async {
            for number in 0..6 {
                let run = format!("r{number}");
                state.begin(new_run(&run, "nightly")).await.expect("the store answers");
                state.rows(&run).put_all((0..1500).map(|ordinal| ok(0, ordinal, vec![json!("value")])).collect()).await.expect("the store answers");
                if number != 1 {
                    state.rows(&run).end(RunEnd { ended_ms: number * 100, ..an_end(RunOutcome::Succeeded) }).await.expect("the store answers");
                }
            }
            let plan = CopyPlan { parent: "r0".into(), anew: Vec::new(), held: false };
            state.copy_for_retry(plan.clone(), new_run("again", "nightly")).await.expect("the store answers");
            state.begin(new_run("lone", "other")).await.expect("the store answers");
            state.rows("lone").end(RunEnd { ended_ms: 350, ..an_end(RunOutcome::Succeeded) }).await.expect("the store answers");
            let retain = async |keep: Retention| {
                let (mut runs, mut stripped) = (0, 0);
                for call in 0.. {
                    assert!(call < 100, "it has no end");
                    let retained = state.retain(keep).await.expect("the store answers");
                    (runs, stripped) = (runs + retained.runs, stripped + retained.stripped);
                    if !retained.more {
                        break;
                    }
                }
                (runs, stripped)
            };
            let names = async || -> Vec<String> {
                let heads = state.history(None, None, 99).await.expect("the store answers");
                heads.into_iter().map(|head| head.run.to_string()).collect()
            };
            assert_eq!(retain(keep).await, (0, 0));
            // Four of the job have ended besides the parent: the oldest goes.
            assert_eq!(retain(Retention { max_runs: 3, ..keep }).await, (1, 0));
            assert_eq!(names().await, ["lone", "again", "r5", "r4", "r3", "r1", "r0"]);
            assert_eq!(state.rows("r2").tally(0).await.expect("the store answers").counts.items, 0);
            assert_eq!(retain(Retention { now_ms: 1_000_400, ..keep }).await, (2, 0));
            assert_eq!(names().await, ["again", "r5", "r4", "r1", "r0"]);
            // By bytes rows go and heads stay.
            assert_eq!(retain(Retention { max_bytes: 1, ..keep }).await, (0, 2));
            assert_eq!(names().await, ["again", "r5", "r4", "r1", "r0"]);
            assert!(!state.details("r4").await.expect("the store answers").expect("it is kept").head.has_rows);
            assert_eq!(state.rows("r4").tally(0).await.expect("the store answers").counts.items, 0);
            let notices = state.notices().await.expect("the store answers");
            assert_eq!(notices.iter().filter(|notice| &*notice.run == "r4").count(), 2, "they are still to be sent");
            assert_eq!(state.rows("again").tally(0).await.expect("the store answers").counts.items, 1500);
            let gone = CopyPlan { parent: "r4".into(), ..plan };
            assert!(matches!(state.copy_for_retry(gone, new_run("x", "nightly")).await, Ok(Copied::Gone(_))));
        });
    }
}
