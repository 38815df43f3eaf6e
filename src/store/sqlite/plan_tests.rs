//! That every question walks an index, in a private file and in a durable one: their schema is one.

use super::{firing, listing, open, query, resume, retain, runs, tables, tables::Tables};

/// A sort in memory would grow with the run, a scan with the state: every question must walk an index from its place to its
/// end.
#[test]
fn no_question_scans_a_table_or_sorts() {
    let dir = tempfile::tempdir().expect("a folder");
    let tables =
        Tables::create(open::private(dir.path(), 1 << 20).expect("SQLite takes it"), 1 << 20).expect("SQLite takes it");
    let questions = [
        query::STAGE_VALUES,
        query::GROUP_VALUES,
        query::VALUE,
        query::STAGE_FAILURES,
        query::GROUP_FAILURES,
        query::OUTPUTS,
        query::OUTPUTS_TOTAL,
        query::FIRST_MEMBER,
        query::FIRST_ABSENT,
        query::NEXT_MEMBER,
        query::NEXT_ABSENT,
        query::DEFERRED,
        tables::HOLDER_OF_KEY,
        tables::HOLDER_OF_PATH,
        tables::RUN_ID,
        tables::VALUES_OF,
        tables::SET_PROGRESS,
        tables::REPLACE_OPEN,
        runs::HEAD,
        runs::FIRING,
        runs::OPEN,
        runs::NEWEST,
        runs::NEWEST_OF_JOB,
        runs::TEXTS,
        runs::STAGES,
        runs::PROGRESS,
        runs::NOTICES,
        runs::UNHEARD,
        runs::HOLD,
        runs::REBASE,
        runs::TAKE_OVER,
        runs::END,
        resume::HIGHEST,
        resume::ENDS,
        resume::PARENTS,
        resume::HAS_ROW,
        listing::ROWS,
        listing::MISSING_ROWS,
        listing::TIMES,
        listing::ONE_ROW,
        listing::EVENTS,
        listing::STATE_OF,
        listing::DROP_OLDER,
        retain::LISTED,
        retain::WHOLE_ROWS,
        retain::COPY_CLAIMS,
        retain::COPY_OUTPUT_CLAIMS,
        retain::COPY_OUTPUTS,
        retain::RUNS,
        retain::NAMES,
        retain::CLAIMED,
        retain::CLAIMED_KEYS,
        retain::EVENT_KEYS,
        retain::KEPT_KEYS,
        retain::NEXT_JOB,
        retain::BEYOND,
        retain::OLDER,
        retain::OLDEST_WITH_ROWS,
        retain::REPEATED,
        retain::TO_TELL,
        firing::END_OF,
        firing::HEARD,
        firing::WAITING,
        firing::WAITS_AFTER,
        firing::TO_TELL,
        firing::TOLD,
        firing::PAST,
        firing::PAST_OF_JOB,
        firing::OLD,
        firing::NEXT_JOB_OF_FIRINGS,
        firing::TOO_MANY,
    ]
    .into_iter()
    .chain(resume::FORGET_MISSING);
    for question in questions {
        let mut plan = tables.connection.prepare(&format!("EXPLAIN QUERY PLAN {question}")).expect("SQLite takes it");
        let steps: Vec<String> = plan.raw_query().mapped(|row| row.get(3)).map(Result::unwrap).collect();
        assert!(!steps.is_empty());
        for step in steps {
            let is_walk = ["SEARCH", "CORRELATED SCALAR SUBQUERY", "SCALAR SUBQUERY", "LIST SUBQUERY"]
                .iter()
                .any(|word| step.starts_with(word));
            assert!(is_walk && !step.contains("AUTOMATIC"), "{question}: {step}");
        }
    }
}
