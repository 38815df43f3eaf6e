//! Random requests, put to every store: none may tell them apart.

use super::{ROOM, durable, sqlite};
use crate::{
    item::{Class, Key, Lineage, Outcome, OutputRecord, RunOutcome, Value},
    store::{
        Clocks, CopyPlan, EventQuery, FiringEnd, FiringRow, GroupMember, Mark, Membership, NewRun, Page, Reply,
        Request, Retention, Row, RowEnd, RowFilter, RowQuery, RunEnd, RunEvent, RunKind, Store, StoreError,
        memory::Memory,
    },
};
use futures_lite::future::block_on;
use proptest::prelude::*;
use std::sync::Arc;

#[derive(Clone, Debug)]
enum Step {
    Ask(Box<Request>),
    /// The process dies when all is committed, and another one goes on.
    Restart,
}

proptest! {
    // Every answer of the durable store waits for the disk.
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_requests_tell_the_private_store_from_memory(requests in prop::collection::vec(request(), 1..60)) {
        let dir = tempfile::tempdir().expect("a folder");
        let (memory, sqlite) = (Memory::new(ROOM), sqlite(dir.path(), ROOM));
        for request in requests {
            let (one, other) = (ask(&memory, &request), ask(&sqlite, &request));
            prop_assert_eq!(&one, &other, "{:?}", request);
            if one.is_err() {
                break;
            }
        }
    }

    #[test]
    fn nor_the_durable_one_when_processes_come_and_go(steps in prop::collection::vec(step(), 1..60)) {
        let dir = tempfile::tempdir().expect("a folder");
        let (mut memory, mut losing) = (Memory::new(ROOM), Memory::losing(ROOM));
        let mut sqlite = durable(dir.path());
        for step in steps {
            match step {
                Step::Restart => {
                    (memory, losing) = (memory.restart(""), losing.restart(""));
                    block_on(sqlite.close());
                    sqlite = durable(dir.path());
                }
                Step::Ask(request) => {
                    let (one, two, other) = (ask(&memory, &request), ask(&losing, &request), ask(&sqlite, &request));
                    let nameless = matches!(*request, Request::Instance);
                    prop_assert!(one == other || nameless, "{:?}: {:?} {:?}", request, one, other);
                    prop_assert_eq!(&one, &two, "{:?}", request);
                    if one.is_err() {
                        break;
                    }
                }
            }
        }
    }
}

/// The answer, when all that was accepted is written.
fn ask(store: &dyn Store, request: &Request) -> Result<Reply, StoreError> {
    let mut reply = store.call_blocking(request.clone());
    // Which part of its work retention does in which call is its own affair.
    while let Ok(Reply::Retained(retained)) = &reply {
        reply = if retained.more { store.call_blocking(request.clone()) } else { Ok(Reply::Done) };
    }
    // A write may fail behind: the flush tells.
    store.call_blocking(Request::Flush("r0".into())).and(reply)
}

fn lineage() -> impl Strategy<Value = Lineage> {
    (0..2_u16, 0..4_u64, prop::option::of(0..2_u32)).prop_map(|(source, ordinal, child)| {
        let listed = Lineage::listed(source, ordinal);
        child.map_or(listed.clone(), |child| listed.child(child))
    })
}

fn key() -> impl Strategy<Value = Key> {
    "[a-c]{1,2}".prop_map(|text| Key::parse(&text).expect("a key"))
}

fn row() -> impl Strategy<Value = Row> {
    let end = prop_oneof![
        4 => Just(RowEnd::Done(Outcome::Ok)),
        1 => Just(RowEnd::Done(Outcome::Empty)),
        2 => Just(RowEnd::Done(Outcome::Failed(Class::Data))),
        1 => Just(RowEnd::Done(Outcome::NotReached)),
        4 => (0..3_u64).prop_map(|at_ms| RowEnd::Retry { at_ms, deadline_ms: Some(at_ms + 1) }),
        1 => Just(RowEnd::Started),
    ];
    let value = prop_oneof![
        any::<f64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from)
    ];
    let rest = (0..9_u32, prop::option::of(".{0,9}"), prop::collection::vec(value, 0..4), prop::option::of(0..9_u32));
    (0..3_u16, lineage(), key(), end, rest).prop_map(
        |(stage, lineage, key, end, (attempts, message, values, took_ms))| Row {
            stage,
            lineage,
            key,
            end,
            attempts,
            message,
            values,
            took_ms,
        },
    )
}

fn request() -> impl Strategy<Value = Request> {
    let run = || (0..2_u8).prop_map(|run| Arc::<str>::from(format!("r{run}")));
    let group = || prop::option::of((0..2_u16, "[abé]{0,1}"));
    let stages = || prop::collection::vec(0..3_u16, 0..4);
    let page = || {
        let after = prop::option::of((lineage(), 0..3_u16, 0..3_u32));
        (after, 0..6_usize).prop_map(|(after, limit)| Page { after, limit })
    };
    let membership =
        prop_oneof![Just(Membership::Value), Just(Membership::MissingOfParent), Just(Membership::MissingOfAncestor)];
    let member = ("[abé]{0,1}", 0..3_u16, lineage(), 0..3_u32, membership)
        .prop_map(|(text, stage, lineage, index, membership)| GroupMember { text, stage, lineage, index, membership });
    let output = ("[ab]{1,2}", any::<u32>()).prop_map(|(path, bytes)| OutputRecord {
        path,
        sha256: "00".into(),
        bytes: bytes.into(),
    });
    prop_oneof![
        12 => (run(), prop::collection::vec(row(), 1..3), prop::option::of(0..99_u64))
            .prop_map(|(run, rows, ran_ms)| Request::Put(run, rows, ran_ms)),
        4 => (run(), 0..2_u16, prop::collection::vec(member, 0..5))
            .prop_map(|(run, gather, members)| Request::AssignGroups(run, gather, members)),
        2 => (run(), output).prop_map(|(run, output)| Request::RecordOutput(run, output)),
        2 => (run(), 0..2_u16, key(), lineage()).prop_map(|(run, stage, key, at)| Request::ClaimKey(run, stage, key, at)),
        1 => (run(), 0..2_u16, prop::collection::vec((key(), lineage()), 0..4))
            .prop_map(|(run, stage, keys)| Request::ClaimKeys(run, stage, keys)),
        2 => (run(), "[ab]{1,2}", 0..2_u16, key(), lineage())
            .prop_map(|(run, path, stage, key, at)| Request::ClaimOutput(run, path, stage, key, at)),
        1 => (run(), 0..4_usize).prop_map(|(run, limit)| Request::Outputs(run, limit)),
        4 => (run(), stages(), group(), page())
            .prop_map(|(run, stages, group, page)| Request::Values { run, stages, group, page }),
        4 => (run(), stages(), group(), page())
            .prop_map(|(run, stages, group, page)| Request::Failures { run, stages, group, page }),
        2 => (run(), 0..2_u16, prop::option::of("[abé]{0,1}"), 0..4_usize)
            .prop_map(|(run, gather, after, limit)| Request::Groups(run, gather, after, limit)),
        2 => (run(), 0..3_u16, prop::option::of((0..3_u64, lineage())), 0..4_usize)
            .prop_map(|(run, stage, after, limit)| Request::Deferred(run, stage, after, limit)),
        1 => run().prop_map(Request::Forget),
        30 => above(),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![9 => request().prop_map(|request| Step::Ask(Box::new(request))), 1 => Just(Step::Restart)]
}

/// Requests of runs as a whole, and above them.
fn above() -> impl Strategy<Value = Request> {
    let run = || (0..3_u8).prop_map(|run| Arc::<str>::from(format!("r{run}")));
    let job = || (0..2_u8).prop_map(|job| format!("j{job}"));
    let clocks = || (0..99_i64, 0..99_u64).prop_map(|(wall_ms, boot_ms)| Clocks { wall_ms, boot_ms });
    let new = move || {
        (run(), job(), prop::option::of("[ab]"), any::<bool>(), clocks()).prop_map(
            |(run, job, fire_key, alone, clocks)| {
                Box::new(NewRun {
                    run,
                    job,
                    trigger: "manual".into(),
                    fire_key,
                    kind: RunKind::Serve,
                    due_ms: clocks.wall_ms,
                    clocks,
                    deadline_ms: Some(7),
                    budget_ms: None,
                    definition: "Job()".into(),
                    params: "{}".into(),
                    options: "".into(),
                    alone,
                })
            },
        )
    };
    let end = || {
        let folds = prop::option::of(run());
        (prop::collection::vec(0..3_u16, 0..2), 0..99_i64, "[a-c]", folds).prop_map(
            |(notices, ended_ms, key, folds)| {
                let record = format!(r#"{{"failures":[{{"key":"{key}"}}]}}"#);
                let outcome = RunOutcome::Partial;
                Box::new(RunEnd { outcome, reason: Some("why".into()), record, ended_ms, ran_ms: 50, notices, folds })
            },
        )
    };
    let query = (prop::option::of(0..3_u16), any::<bool>(), prop::option::of(key()), 0..5_usize);
    let query = (query, prop::option::of((0..3_u16, lineage()))).prop_map(|((stage, all, key, limit), after)| {
        let filter = if all { RowFilter::All } else { RowFilter::Missing };
        RowQuery { stage, filter, key, after, limit }
    });
    let event = (prop::option::of(key()), ".{0,9}", prop::option::of(0..2_u16))
        .prop_map(|(key, text, stage)| RunEvent { wall_ms: 5, level: 3, stage, key, text });
    let events = (prop::option::of(key()), prop::option::of(0..3_u64), 0..4_usize)
        .prop_map(|(key, after, limit)| EventQuery { key, after, limit });
    let firing =
        (job(), "[ab]", 0..99_i64, 0..3_u8, prop::option::of(1..9_u64)).prop_map(|(job, key, due_ms, end, count)| {
            let end = [FiringEnd::Waiting, FiringEnd::Skipped, FiringEnd::Missed][usize::from(end)];
            let trigger = "schedule".into();
            FiringRow {
                job,
                key,
                trigger,
                due_ms,
                last_ms: due_ms,
                count,
                end,
                reason: None,
                told_ms: due_ms,
                to_tell: count.is_none(),
            }
        });
    let runs = prop_oneof![
        4 => new().prop_map(Request::Begin),
        4 => (run(), clocks()).prop_map(|(run, clocks)| Request::TakeOver(run, clocks)),
        1 => run().prop_map(Request::Release),
        3 => (run(), end()).prop_map(|(run, end)| Request::End(run, end)),
        1 => (run(), end()).prop_map(|(run, end)| Request::Interrupt(run, end)),
        1 => (run(), 0..3_u16).prop_map(|(run, place)| Request::NoticeDone(run, place)),
        1 => (0..4_usize).prop_map(Request::Notices),
        1 => (prop::option::of(job()), 0..4_usize).prop_map(|(job, limit)| Request::Unfinished(job, limit)),
        1 => run().prop_map(Request::Details),
        1 => (prop::option::of(job()), prop::option::of(run()), 0..4_usize)
            .prop_map(|(job, before, limit)| Request::History(job, before, limit)),
        2 => (run(), new(), prop::collection::vec(0..3_u16, 0..2), any::<bool>())
            .prop_map(|(parent, new, anew, held)| Request::CopyForRetry(CopyPlan { parent, anew, held }, new)),
        1 => key().prop_map(Request::ForgetKey),
        1 => (0..4_u64, 0..99_u64).prop_map(|(max_runs, max_age_ms)| {
            Request::Retain(Retention { max_runs, max_age_ms, max_bytes: u64::MAX, now_ms: 99 })
        }),
        1 => Just(Request::Instance),
        4 => (job(), "[ab]?", prop::collection::vec(firing, 0..3), prop::collection::vec(run(), 0..2))
            .prop_map(|(job, text, firings, heard)| Request::Consider(vec![Mark { job, text }], firings, heard)),
        1 => (0..4_usize).prop_map(Request::Unheard),
        2 => run().prop_map(Request::IsNeeded),
        1 => (job(), "[ab]").prop_map(|(job, key)| Request::FiringTold(job, key)),
        1 => (prop::option::of(0..5_u64), 0..4_usize).prop_map(|(after, limit)| Request::FiringsToTell(after, limit)),
        1 => Just(Request::Marks),
        1 => (prop::option::of((0..99_i64, 0..5_u64)), 0..4_usize)
            .prop_map(|(after, limit)| Request::WaitingFirings(after, limit)),
        1 => (prop::option::of(job()), prop::option::of(0..5_u64), 0..4_usize)
            .prop_map(|(job, before, limit)| Request::PastFirings(job, before, limit)),
    ];
    let rows = prop_oneof![
        1 => (run(), 0..2_u16).prop_map(|(run, source)| Request::ListingDone(run, source)),
        1 => (run(), 0..2_u16).prop_map(|(run, source)| Request::Relist(run, source)),
        1 => (run(), 0..2_u16, 0..9_u64, 0..9_i64)
            .prop_map(|(run, stage, ran_ms, wall_ms)| Request::StageBegan(run, stage, ran_ms, wall_ms)),
        1 => (run(), 0..3_u16).prop_map(|(run, stage)| Request::Tally(run, stage)),
        4 => (run(), 0..3_u16, 0..3_u16, prop::option::of(lineage()), 0..4_usize)
            .prop_map(|(run, parent, stage, after, limit)| Request::Unsettled { run, parent, stage, after, limit }),
        1 => (run(), 0..3_u16, prop::collection::vec(lineage(), 0..4))
            .prop_map(|(run, stage, lineages)| Request::Settled(run, stage, lineages)),
        2 => (run(), query).prop_map(|(run, query)| Request::RowHeads(run, query)),
        1 => (run(), prop::option::of(0..3_u16), 0..3_usize)
            .prop_map(|(run, stage, limit)| Request::Slowest(run, stage, limit)),
        1 => (run(), prop::collection::vec(event, 0..3)).prop_map(|(run, events)| Request::AddEvents(run, events)),
        1 => (run(), events).prop_map(|(run, query)| Request::Events(run, query)),
        2 => (run(), job(), key(), 0..4_i64, any::<i64>()).prop_map(|(run, job, key, due_ms, value)| Request::Keep {
            run, job, key, due_ms, value: value.into(),
        }),
        2 => (job(), key(), 0..5_i64).prop_map(|(job, key, due_ms)| Request::StateOf(job, key, due_ms)),
    ];
    prop_oneof![runs, rows]
}
