//! What every store promises, held to each of them; and that no row of requests tells them apart.
//!
//! Rows of one run here; runs, their resume and what is above them in `state`; random requests in `alike`. As in all tests
//! an `unwrap` is an assertion: that this does not fail is part of what is held.

mod alike;
mod durable;
mod state;

use super::{
    Claim, GroupMember, Membership, Page, Request, Row, RowEnd, RunStore, Store, StoreError,
    memory::Memory,
    sqlite::{Sqlite, StateOptions},
};
use crate::{
    item::{Class, Key, Lineage, Outcome, OutputRecord, Value},
    limits::{BATCH_ROWS, PAGE_BYTES, PAGE_ROWS},
    world::BoxFuture,
};
use futures_lite::future::{block_on, poll_once};
use serde_json::json;
use std::{path::Path, sync::Arc};

const ROOM: u64 = 64 << 20;

/// Each promise becomes one test for each store.
macro_rules! promises {
    ($($(#[$doc:meta])* fn $name:ident($store:ident: Arc<dyn Store>) $body:block)*) => {
        $($(#[$doc])* fn $name($store: Arc<dyn Store>) $body)*
        mod in_memory {
            use super::*;
            $(#[test] fn $name() { super::$name(Arc::new(Memory::new(ROOM))) })*
        }
        mod in_sqlite {
            use super::*;
            $(#[test] fn $name() {
                let dir = tempfile::tempdir().expect("a folder");
                super::$name(Arc::new(sqlite(dir.path(), ROOM)))
            })*
        }
        mod in_a_durable_file {
            use super::*;
            $(#[test] fn $name() {
                let dir = tempfile::tempdir().expect("a folder");
                super::$name(Arc::new(durable(dir.path())))
            })*
        }
    };
}
use promises;

promises! {
    /// Lineage order over two parents, whatever the order of arrival; every page size gives the same.
    fn values_come_in_lineage_order_page_by_page(store: Arc<dyn Store>) {
        let run = RunStore::new(store, "r");
        block_on(async {
            for ordinal in [2, 0, 1] {
                for stage in [3, 1] {
                    let name = format!("{stage}-{ordinal}");
                    let row = ok(stage, ordinal, vec![json!([&name, 0]), json!([&name, 1]), json!([&name, 2])]);
                    run.put(row).await.expect("the store answers");
                }
            }
            // A deeper child, a row without values, a failed one, another stage: only the first is listed.
            let child = Lineage::listed(0, 1).child(4);
            run.put(Row { lineage: child, ..ok(3, 1, vec![json!("child")]) }).await.expect("the store answers");
            run.put(Row { end: RowEnd::Done(Outcome::Empty), ..ok(1, 8, Vec::new()) }).await.expect("the store answers");
            run.put(failed(3, 9, Some(json!("came in")))).await.expect("the store answers");
            run.put(ok(2, 0, vec![json!("other stage")])).await.expect("the store answers");
            let mut expected = Vec::new();
            for ordinal in 0..3 {
                for stage in [1, 3] {
                    expected.extend((0..3).map(|index| json!([format!("{stage}-{ordinal}"), index])));
                }
                if ordinal == 1 {
                    expected.push(json!("child"));
                }
            }
            for limit in [1, 2, 4, 5, 100] {
                assert_eq!(all_values(&run, &[3, 1, 3], None, limit).await, expected, "limit {limit}");
            }
            let read: Result<Vec<_>, _> = run.values_iter(&[1, 3], None).collect();
            assert_eq!(read.expect("the store answers").into_iter().map(|value| value.value).collect::<Vec<_>>(), expected);
            assert_eq!(all_values(&run, &[], None, 5).await, Vec::<Value>::new());
            let none = run.values(&[1], None, Page { after: None, limit: 0 }).await.expect("the store answers");
            assert!(none.is_empty());
        });
    }

    fn a_page_is_bounded_in_bytes_and_a_large_value_is_a_page_of_its_own(store: Arc<dyn Store>) {
        let run = RunStore::new(store, "r");
        block_on(async {
            let large = Value::from("x".repeat(PAGE_BYTES + 5));
            run.put(ok(0, 0, vec![json!(1), large.clone(), json!(2), large])).await.expect("the store answers");
            let first = run.values(&[0], None, Page { after: None, limit: 100 }).await.expect("the store answers");
            assert_eq!(first.len(), 2);
            assert_eq!(all_values(&run, &[0], None, 100).await.len(), 4);
            assert_eq!(run.values_iter(&[0], None).count(), 4);
        });
    }

    fn values_survive_exactly(store: Arc<dyn Store>) {
        let run = RunStore::new(store, "r");
        let values = vec![
            json!(u64::MAX), json!(i64::MIN), json!(0.1), json!(-0.0), json!(5e-324), json!(1.7976931348623157e308),
            json!(9.5367431640625e-7), json!(2.225_073_858_507_201e-308), json!(1e23), json!(1.0), json!(1),
            json!("\u{0}\n\r\u{2028}\"\\ 患者 \u{1f319}"), json!({"z": 1, "a": {"": [null, true, {}]}, "\n": []}), Value::Null,
            json!(""),
        ];
        block_on(async {
            run.put(ok(0, 0, values.clone())).await.expect("the store answers");
            run.flush().await.expect("the store answers");
            let read = all_values(&run, &[0], None, 4).await;
            assert_eq!(format!("{read:?}"), format!("{values:?}"));
        });
    }

    fn failures_come_in_stage_and_lineage_order_with_what_came_in(store: Arc<dyn Store>) {
        let run = RunStore::new(store, "r");
        block_on(async {
            let ends = [Outcome::TimedOut, Outcome::Cancelled, Outcome::NotReached, Outcome::Held];
            for (ordinal, end) in (0..4_u32).zip(ends).rev() {
                run.put(Row { end: RowEnd::Done(end), ..failed(2, ordinal.into(), None) }).await.expect("the store answers");
            }
            run.put(failed(1, 7, Some(json!({"id": 7})))).await.expect("the store answers");
            run.put(ok(1, 8, vec![json!(8)])).await.expect("the store answers");
            run.put(Row { end: RowEnd::Retry { at_ms: 5, deadline_ms: Some(9) }, ..failed(1, 9, None) }).await.expect("the store answers");
            for limit in [1, 2, 100] {
                let found = all_failures(&run, &[2, 1], None, limit).await;
                let ends: Vec<_> = found.iter().map(|failure| (failure.stage, failure.outcome)).collect();
                assert_eq!(ends, [
                    (1, Outcome::Failed(Class::Http(503))), (2, Outcome::TimedOut), (2, Outcome::Cancelled),
                    (2, Outcome::NotReached), (2, Outcome::Held),
                ]);
                assert_eq!((found[0].value.clone(), &*found[0].message, found[0].attempts), (Some(json!({"id": 7})), "no", 4));
                assert_eq!((found[1].value.clone(), found[1].key.as_str()), (None, "1"));
            }
            assert_eq!(run.failures_iter(&[1, 2], None).count(), 5);
        });
    }

    /// `B` is made by a value, `a` by a missing item of a parent, `Z` by nobody: a further ancestor only joins.
    fn groups_come_in_byte_order_and_hold_their_members(store: Arc<dyn Store>) {
        let run = RunStore::new(store, "r");
        block_on(async {
            for ordinal in 0..3 {
                run.put(ok(1, ordinal, vec![json!([ordinal, 0]), json!([ordinal, 1])])).await.expect("the store answers");
            }
            run.put(failed(1, 3, Some(json!("in")))).await.expect("the store answers");
            run.put(failed(0, 4, None)).await.expect("the store answers");
            let member = |text: &str, stage, ordinal, index, membership| GroupMember {
                text: text.into(), stage, lineage: Lineage::listed(0, ordinal), index, membership,
            };
            let members = vec![
                member("é", 1, 2, 0, Membership::Value),
                member("B", 1, 2, 1, Membership::Value),
                member("B", 1, 0, 1, Membership::Value),
                member("B", 1, 0, 0, Membership::Value),
                member("B", 1, 0, 0, Membership::Value),
                member("a", 1, 3, 0, Membership::MissingOfParent),
                member("B", 1, 3, 0, Membership::MissingOfParent),
                member("B", 0, 4, 0, Membership::MissingOfAncestor),
                member("Z", 0, 4, 0, Membership::MissingOfAncestor),
            ];
            run.assign_groups(5, members).await.expect("the store answers");
            run.assign_groups(6, vec![member("other", 1, 1, 0, Membership::Value)]).await.expect("the store answers");
            assert_eq!(run.groups(5, None, 10).await.expect("the store answers"), ["B", "a", "é"]);
            assert_eq!(run.groups(5, None, 1).await.expect("the store answers"), ["B"]);
            assert_eq!(run.groups(5, Some("B"), 1).await.expect("the store answers"), ["a"]);
            assert_eq!(run.groups(5, Some("é"), 1).await.expect("the store answers"), [""; 0]);
            for limit in [1, 2, 9] {
                let values = all_values(&run, &[0, 1], Some((5, "B")), limit).await;
                assert_eq!(values, [json!([0, 0]), json!([0, 1]), json!([2, 1])]);
                let missing = all_failures(&run, &[0, 1], Some((5, "B")), limit).await;
                let keys: Vec<_> = missing.iter().map(|failure| (failure.stage, failure.key.to_string())).collect();
                assert_eq!(keys, [(0, "5".to_owned()), (1, "4".to_owned())]);
            }
            assert_eq!(all_values(&run, &[0], Some((5, "B")), 9).await, [Value::Null; 0]);
            assert_eq!(all_failures(&run, &[1], Some((5, "nobody")), 9).await, []);
            assert_eq!(all_failures(&run, &[0, 1], Some((5, "Z")), 9).await.len(), 1);
            assert_eq!(run.values_iter(&[1], Some((5, "é"))).count(), 1);
        });
    }

    fn deferred_rows_come_by_time_and_go_when_they_are_settled(store: Arc<dyn Store>) {
        let run = RunStore::new(store, "r");
        block_on(async {
            let wait = |ordinal, at_ms| Row {
                end: RowEnd::Retry { at_ms, deadline_ms: at_ms.checked_mul(2) }, attempts: 2, ..ok(1, ordinal, vec![json!({"n": ordinal})])
            };
            run.put_all(vec![wait(0, 50), wait(1, 10), wait(2, 50), wait(3, 0)]).await.expect("the store answers");
            let ordinals = |rows: &[Row]| rows.iter().map(|row| row.key.to_string()).collect::<Vec<_>>();
            let rows = run.deferred(1, None, 10).await.expect("the store answers");
            assert_eq!(ordinals(&rows), ["4", "2", "1", "3"]);
            assert_eq!(rows[2], wait(0, 50));
            let behind = Some((50, Lineage::listed(0, 0)));
            assert_eq!(ordinals(&run.deferred(1, behind, 10).await.expect("the store answers")), ["3"]);
            assert_eq!(ordinals(&run.deferred(1, None, 2).await.expect("the store answers")), ["4", "2"]);
            assert_eq!(run.deferred(2, None, 10).await.expect("the store answers"), []);
            assert_eq!(all_values(&run, &[1], None, 10).await, [Value::Null; 0]);
            // Deferred again, later; settled; settled without a value.
            run.put(wait(1, 99)).await.expect("the store answers");
            run.put(ok(1, 0, vec![json!("done")])).await.expect("the store answers");
            run.put(failed(1, 3, None)).await.expect("the store answers");
            assert_eq!(ordinals(&run.deferred(1, None, 10).await.expect("the store answers")), ["3", "2"]);
            assert_eq!(all_values(&run, &[1], None, 10).await, [json!("done")]);
            assert_eq!(all_failures(&run, &[1], None, 10).await.len(), 1);
        });
    }

    fn who_claims_first_has_it(store: Arc<dyn Store>) {
        let run = RunStore::new(store.clone(), "r");
        let other = RunStore::new(store, "other");
        let (a, b) = (Lineage::listed(0, 0), Lineage::listed(0, 1));
        let key = Key::parse("P1/steps").expect("a key");
        let taken = |stage| Claim::Taken { stage, key: key.clone(), lineage: a.clone() };
        block_on(async {
            assert_eq!(run.claim_key(0, &key, &a).await.expect("the store answers"), Claim::Mine);
            assert_eq!(run.claim_key(0, &key, &a).await.expect("the store answers"), Claim::Mine);
            assert_eq!(run.claim_key(0, &key, &b).await.expect("the store answers"), taken(0));
            assert_eq!(run.claim_key(1, &key, &b).await.expect("the store answers"), Claim::Mine);
            assert_eq!(other.claim_key(0, &key, &b).await.expect("the store answers"), Claim::Mine);
            let fresh = Key::ordinal(4);
            let many = vec![(fresh.clone(), b.clone()), (key.clone(), b.clone()), (fresh.clone(), a.clone())];
            let again = Claim::Taken { stage: 0, key: fresh, lineage: b.clone() };
            assert_eq!(run.claim_keys(0, many).await.expect("the store answers"), [Claim::Mine, taken(0), again]);
            assert_eq!(run.claim_output("x.html", 2, &key, &a).await.expect("the store answers"), Claim::Mine);
            assert_eq!(run.claim_output("x.html", 2, &key, &a).await.expect("the store answers"), Claim::Mine);
            assert_eq!(run.claim_output("x.html", 2, &key, &b).await.expect("the store answers"), taken(2));
            assert_eq!(run.claim_output("x.html", 3, &key, &a).await.expect("the store answers"), taken(2));
            assert_eq!(other.claim_output("x.html", 3, &key, &b).await.expect("the store answers"), Claim::Mine);
        });
    }

    fn outputs_come_in_path_order_and_are_replaced(store: Arc<dyn Store>) {
        let run = RunStore::new(store, "r");
        let output = |path: &str, bytes| OutputRecord { path: path.into(), sha256: "00ff".into(), bytes };
        block_on(async {
            for path in ["b/2", "a", "b/10", "b"] {
                run.record_output(output(path, 1)).await.expect("the store answers");
            }
            run.record_output(output("a", 2)).await.expect("the store answers");
            let (first, total) = run.outputs(3).await.expect("the store answers");
            assert_eq!((first, total), (vec![output("a", 2), output("b", 1), output("b/10", 1)], 4));
        });
    }

    fn runs_do_not_see_each_other_and_can_be_forgotten(store: Arc<dyn Store>) {
        let (one, two) = (RunStore::new(store.clone(), "one"), RunStore::new(store, "two"));
        let rows = BATCH_ROWS as u64 * 5;
        let lineage = Lineage::listed(0, 0);
        block_on(async {
            for run in [&one, &two] {
                run.put_all((0..rows).map(|ordinal| ok(0, ordinal, vec![json!(ordinal)])).collect()).await.expect("the store answers");
                run.put(failed(1, 0, None)).await.expect("the store answers");
                run.put(Row { end: RowEnd::Retry { at_ms: 0, deadline_ms: None }, ..failed(1, 1, None) }).await.expect("the store answers");
                run.claim_key(0, &Key::all(), &lineage).await.expect("the store answers");
                run.claim_output("p", 0, &Key::all(), &lineage).await.expect("the store answers");
                run.record_output(OutputRecord { path: "p".into(), sha256: String::new(), bytes: 0 }).await.expect("the store answers");
                for membership in [Membership::Value, Membership::MissingOfParent] {
                    let (text, lineage) = ("t".to_owned(), lineage.clone());
                    run.assign_groups(2, vec![GroupMember { text, stage: 0, lineage, index: 0, membership }]).await.expect("the store answers");
                }
            }
            one.forget().await.expect("the store answers");
            one.forget().await.expect("the store answers");
            assert_eq!(one.values_iter(&[0], None).count(), 0);
            assert_eq!((one.failures_iter(&[1], None).count(), one.deferred(1, None, 9).await.expect("the store answers").len()), (0, 0));
            assert_eq!((one.groups(2, None, 9).await.expect("the store answers").len(), one.outputs(9).await.expect("the store answers").1), (0, 0));
            assert_eq!(one.claim_key(0, &Key::all(), &Lineage::listed(0, 9)).await.expect("the store answers"), Claim::Mine);
            assert_eq!(one.claim_output("p", 9, &Key::all(), &lineage).await.expect("the store answers"), Claim::Mine);
            assert_eq!(two.values_iter(&[0], None).count() as u64, rows);
            assert_eq!((two.failures_iter(&[1], None).count(), two.deferred(1, None, 9).await.expect("the store answers").len()), (1, 1));
            assert_eq!((two.groups(2, None, 9).await.expect("the store answers").len(), two.outputs(9).await.expect("the store answers").1), (1, 1));
            one.put(ok(0, 0, vec![json!("anew")])).await.expect("the store answers");
            assert_eq!(all_values(&one, &[0], None, 9).await, [json!("anew")]);
        });
    }

    fn an_item_settled_twice_stops_the_store_loudly(store: Arc<dyn Store>) {
        let run = RunStore::new(store, "r");
        block_on(async {
            run.put(ok(0, 0, vec![json!(1)])).await.expect("the store answers");
            let second = run.put(failed(0, 0, None)).await;
            let error = second.and(run.flush().await).unwrap_err();
            assert!(error.to_string().contains("settled twice"), "{error}");
            assert_eq!(run.put(ok(0, 1, Vec::new())).await, Err(error.clone()));
            assert_eq!(run.outputs(1).await, Err(error.clone()));
            assert_eq!(run.values_iter(&[0], None).collect::<Vec<_>>(), [Err(error)]);
        });
    }

    fn a_retry_does_not_replace_a_settled_item(store: Arc<dyn Store>) {
        let run = RunStore::new(store, "r");
        block_on(async {
            run.put(ok(0, 0, Vec::new())).await.expect("the store answers");
            let second = run.put(Row { end: RowEnd::Retry { at_ms: 1, deadline_ms: None }, ..ok(0, 0, Vec::new()) }).await;
            assert!(second.and(run.flush().await).is_err());
        });
    }

    fn a_value_that_could_not_be_read_back_is_refused_alone(store: Arc<dyn Store>) {
        let run = RunStore::new(store, "r");
        let deep = (0..200).fold(Value::Null, |inner, _| json!([inner]));
        block_on(async {
            assert!(run.put(ok(0, 0, vec![deep])).await.unwrap_err().to_string().contains("nested"));
            run.put(ok(0, 0, vec![json!(1)])).await.expect("the store answers");
            assert_eq!(all_values(&run, &[0], None, 9).await, [json!(1)]);
        });
    }
}

/// What was committed before can be read for the report; nothing more is written.
#[test]
fn a_full_store_says_so_and_can_still_be_read() {
    let dir = tempfile::tempdir().expect("a folder");
    let limit = 1 << 20;
    let stores: [Arc<dyn Store>; 2] = [Arc::new(Memory::new(limit)), Arc::new(sqlite(dir.path(), limit))];
    for store in stores {
        let run = RunStore::new(store, "r");
        block_on(async {
            run.put(failed(0, 0, None)).await.expect("the store answers");
            run.flush().await.expect("the store answers");
            let mut ordinal = 0;
            let error = loop {
                ordinal += 1;
                assert!(ordinal < 1000, "the store grows past its limit");
                if let Err(error) = run.put(ok(0, ordinal, vec![json!("x".repeat(4000))])).await {
                    break error;
                }
            };
            assert_eq!(error, StoreError::Full { limit });
            assert_eq!(run.flush().await, Err(error.clone()));
            assert_eq!(run.put(failed(0, 5000, None)).await, Err(error.clone()));
            assert_eq!(run.claim_key(0, &Key::all(), &Lineage::listed(0, 0)).await, Err(error));
            assert_eq!(all_failures(&run, &[0], None, 9).await.len(), 1);
        });
    }
}

#[test]
fn a_private_file_has_no_name_and_its_thread_ends_with_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = Arc::new(sqlite(dir.path(), ROOM));
    assert_eq!(std::fs::read_dir(dir.path()).expect("a folder").count(), 0);
    let run = RunStore::new(store.clone(), "r");
    block_on(async {
        run.put(ok(0, 0, Vec::new())).await.expect("the store answers");
        store.close().await;
        store.close().await;
        assert_eq!(run.put(ok(0, 1, Vec::new())).await, Err(StoreError::Closed));
        assert_eq!(run.flush().await, Err(StoreError::Closed));
    });
    let missing = Sqlite::private(&dir.path().join("none"), ROOM).err().expect("it opens");
    assert!(missing.to_string().contains("none"), "{missing}");
}

/// Many writers at once, more than two batches: all get in, and one that gives up holds up nobody.
#[test]
fn writers_wait_for_room_and_all_get_in() {
    let dir = tempfile::tempdir().expect("a folder");
    let run = RunStore::new(Arc::new(sqlite(dir.path(), ROOM)), "r");
    let large = json!("x".repeat(100_000));
    block_on(async {
        let mut puts: Vec<_> = (0..200).map(|ordinal| Box::pin(run.put(ok(0, ordinal, vec![large.clone()])))).collect();
        let mut accepted = 0;
        for put in &mut puts {
            if poll_once(put.as_mut()).await.is_some() {
                accepted += 1;
            } else {
                break;
            }
        }
        let given_up = puts.split_off(accepted.max(100));
        let kept = puts.split_off(accepted.min(puts.len()));
        let more = kept.len();
        drop(given_up);
        for put in kept {
            put.await.expect("the store answers");
        }
        assert_eq!(run.values_iter(&[0], None).count(), accepted + more);
    });
}

/// Fault 53, over the real store and its thread: whatever is asked is dropped after each of its first polls. It is done as a
/// whole or not at all, everything else is answered, and the store ends.
#[test]
fn a_request_that_is_dropped_at_any_poll_is_whole_or_not_there() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = Arc::new(sqlite(dir.path(), ROOM));
    let run = RunStore::new(store.clone(), "r");
    block_on(async {
        let mut ordinal = 0;
        for polls in 0..4 {
            for _ in 0..50 {
                // Two batches at a time fill the queue, so that some wait before the door.
                let large = vec![json!("x".repeat(20_000))];
                let rows: Vec<Row> = (ordinal..ordinal + 3).map(|at| ok(0, at, large.clone())).collect();
                let (key, lineage) = (Key::ordinal(ordinal), Lineage::listed(0, ordinal));
                ordinal += 3;
                let mut asked: Vec<BoxFuture<'_, ()>> = vec![
                    Box::pin(async { drop(run.put_all(rows).await) }),
                    Box::pin(async { drop(run.claim_key(0, &key, &lineage).await) }),
                    Box::pin(async { drop(run.flush().await) }),
                    Box::pin(async { drop(run.values(&[0], None, Page { after: None, limit: 2 }).await) }),
                ];
                for future in &mut asked {
                    for _ in 0..polls {
                        if poll_once(&mut *future).await.is_some() {
                            break;
                        }
                    }
                }
            }
        }
        run.flush().await.expect("the store answers");
        let found: Vec<u64> =
            run.values_iter(&[0], None).map(|value| value.expect("the store answers").lineage.ordinal()).collect();
        assert!(!found.is_empty() && (found.len() as u64) < ordinal, "{} of {ordinal}", found.len());
        for batch in found.chunks(3) {
            assert_eq!((batch[0] % 3, batch[1] - batch[0], batch[2] - batch[0]), (0, 1, 2), "{batch:?}");
        }
        assert_eq!(run.claim_key(1, &Key::ordinal(0), &Lineage::listed(0, 0)).await, Ok(Claim::Mine));
        store.close().await;
    });
}

fn sqlite(dir: &Path, limit: u64) -> Sqlite {
    Sqlite::private(dir, limit).expect("it opens").0
}

/// A durable store, as one process has it.
fn durable(dir: &Path) -> Sqlite {
    Sqlite::durable(&StateOptions { dir, now_ms: 0, instance: "here", accept_new: false }).expect("it opens").0
}

fn ok(stage: u16, ordinal: u64, values: Vec<Value>) -> Row {
    let (lineage, key) = (Lineage::listed(0, ordinal), Key::ordinal(ordinal));
    Row { stage, lineage, key, end: RowEnd::Done(Outcome::Ok), attempts: 1, message: None, values, took_ms: None }
}

fn failed(stage: u16, ordinal: u64, came_in: Option<Value>) -> Row {
    Row {
        end: RowEnd::Done(Outcome::Failed(Class::Http(503))),
        attempts: 4,
        message: Some("no".into()),
        ..ok(stage, ordinal, came_in.into_iter().collect())
    }
}

async fn all_values(run: &RunStore, stages: &[u16], group: Option<(u16, &str)>, limit: usize) -> Vec<Value> {
    let mut all: Vec<Value> = Vec::new();
    let mut after = None;
    loop {
        let page = run.values(stages, group, Page { after, limit }).await.expect("the store answers");
        assert!(page.len() <= limit);
        let Some(last) = page.last() else { return all };
        after = Some((last.lineage.clone(), last.stage, last.index));
        all.extend(page.into_iter().map(|value| value.value));
    }
}

async fn all_failures(
    run: &RunStore,
    stages: &[u16],
    group: Option<(u16, &str)>,
    limit: usize,
) -> Vec<super::StoredFailure> {
    let mut all: Vec<super::StoredFailure> = Vec::new();
    let mut after = None;
    loop {
        let page = run.failures(stages, group, Page { after, limit }).await.expect("the store answers");
        let Some(last) = page.last() else { return all };
        after = Some((last.lineage.clone(), last.stage, 0));
        all.extend(page);
    }
}

#[test]
fn a_page_of_the_iterators_is_smaller_than_what_they_read() {
    let run = RunStore::new(Arc::new(Memory::new(ROOM)), "r");
    let rows = PAGE_ROWS as u64 + 3;
    run.store
        .call_blocking(Request::Put(
            run.run.clone(),
            (0..rows).map(|ordinal| ok(0, ordinal, vec![json!(0)])).collect(),
            None,
        ))
        .expect("it opens");
    assert_eq!(run.values_iter(&[0], None).count() as u64, rows);
}
