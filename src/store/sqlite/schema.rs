//! Everything that is kept, as tables. A change of it is a new format: [`FORMAT`], a step that makes the new one of the old
//! one, and a stored file of the old one in the tests.

/// `PRAGMA user_version` of this schema.
pub(super) const FORMAT: u32 = 3;
/// `PRAGMA application_id`: "Lamp".
pub(super) const APPLICATION_ID: u32 = 0x4c61_6d70;

/// What is kept of schedules, from format 2.
macro_rules! of_schedules {
    () => {
        "
CREATE TABLE mark(job TEXT PRIMARY KEY, text TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE firing(
    id INTEGER PRIMARY KEY, job TEXT NOT NULL, key TEXT NOT NULL, cause TEXT NOT NULL, due_ms INTEGER NOT NULL,
    last_ms INTEGER NOT NULL, count INTEGER, end INTEGER NOT NULL, reason TEXT, told_ms INTEGER NOT NULL,
    to_tell INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX firing_key ON firing(job, key);
CREATE INDEX firing_waits ON firing(due_ms, id) WHERE end = 0;
CREATE INDEX firing_past ON firing(job, id) WHERE end > 0;
CREATE INDEX firing_told ON firing(told_ms) WHERE end > 0;
CREATE INDEX firing_to_tell ON firing(id) WHERE to_tell = 1;
"
    };
}

/// Runs that have ended and whose ends nobody has heard, from format 3.
macro_rules! of_ends {
    () => {
        "
CREATE TABLE unheard(run INTEGER PRIMARY KEY) STRICT;
"
    };
}

/// `state` of an item: see `codec`; below 0 it is not terminal, above 1 missing. `phase` of a head: see `runs`.
/// `has_rows` of one is 2 while retention takes its rows. `width` of an item is the number of its values, which stand in one row of `value`.
pub(super) const SCHEMA: &str = concat!("
CREATE TABLE meta(instance TEXT NOT NULL) STRICT;
CREATE TABLE epoch(
    id INTEGER PRIMARY KEY AUTOINCREMENT, boot TEXT NOT NULL, pid INTEGER NOT NULL, started_ms INTEGER NOT NULL,
    is_over INTEGER NOT NULL
) STRICT;
CREATE TABLE run(
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, next_event INTEGER NOT NULL DEFAULT 1,
    event_bytes INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE def(id INTEGER PRIMARY KEY, hash TEXT NOT NULL UNIQUE, body TEXT NOT NULL) STRICT;
CREATE TABLE head(
    run INTEGER PRIMARY KEY REFERENCES run(id), job TEXT NOT NULL, cause TEXT NOT NULL, fire_key TEXT,
    kind INTEGER NOT NULL, due_ms INTEGER NOT NULL, started_ms INTEGER NOT NULL, deadline_ms INTEGER, budget_ms INTEGER,
    ran_ms INTEGER NOT NULL, wall_ms INTEGER NOT NULL, boot_ms INTEGER NOT NULL, def INTEGER NOT NULL REFERENCES def(id),
    params TEXT NOT NULL, options TEXT NOT NULL, parent TEXT, chain_first TEXT NOT NULL,
    epoch INTEGER NOT NULL, pass INTEGER NOT NULL, phase INTEGER NOT NULL, outcome TEXT, reason TEXT,
    record TEXT, ended_ms INTEGER, progress INTEGER NOT NULL, progress_at_crash INTEGER NOT NULL,
    crashes INTEGER NOT NULL, counted TEXT NOT NULL, has_rows INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX head_firing ON head(job, fire_key) WHERE fire_key IS NOT NULL;
CREATE INDEX head_job ON head(job, run);
CREATE INDEX head_open ON head(run) WHERE phase < 2;
CREATE INDEX head_ended ON head(ended_ms, run) WHERE phase = 2;
CREATE INDEX head_rows ON head(run) WHERE phase = 2 AND has_rows > 0;
CREATE INDEX head_def ON head(def);
CREATE INDEX head_epoch ON head(epoch);
CREATE TRIGGER head_is_over BEFORE UPDATE OF phase, outcome, ended_ms ON head WHEN old.phase = 2
BEGIN SELECT raise(ABORT, 'a run that has ended is settled once more'); END;
CREATE TABLE stage(
    run INTEGER NOT NULL, place INTEGER NOT NULL, listed INTEGER NOT NULL, began_ran_ms INTEGER, began_wall_ms INTEGER,
    PRIMARY KEY(run, place)
) STRICT, WITHOUT ROWID;
CREATE TABLE notice(run INTEGER NOT NULL, place INTEGER NOT NULL, PRIMARY KEY(run, place)) STRICT, WITHOUT ROWID;
CREATE TABLE value(id INTEGER PRIMARY KEY, json TEXT NOT NULL) STRICT;
CREATE TABLE item(
    run INTEGER NOT NULL, stage INTEGER NOT NULL, lineage BLOB NOT NULL, key TEXT NOT NULL, state INTEGER NOT NULL,
    pass INTEGER NOT NULL, class TEXT, attempts INTEGER NOT NULL, at_ms INTEGER, deadline_ms INTEGER, message TEXT,
    took_ms INTEGER, width INTEGER NOT NULL, vals INTEGER,
    PRIMARY KEY(run, stage, lineage)
) STRICT, WITHOUT ROWID;
CREATE INDEX item_missing ON item(run, stage, lineage) WHERE state > 1;
CREATE INDEX item_open ON item(run, stage, at_ms, lineage) WHERE state < 0;
CREATE TABLE claim(
    run INTEGER NOT NULL, stage INTEGER NOT NULL, key TEXT NOT NULL, lineage BLOB NOT NULL, pass INTEGER NOT NULL,
    PRIMARY KEY(run, stage, key)
) STRICT, WITHOUT ROWID;
CREATE TABLE output_claim(
    run INTEGER NOT NULL, path TEXT NOT NULL, stage INTEGER NOT NULL, key TEXT NOT NULL, lineage BLOB NOT NULL,
    PRIMARY KEY(run, path)
) STRICT, WITHOUT ROWID;
CREATE TABLE output(
    run INTEGER NOT NULL, path TEXT NOT NULL, sha256 TEXT NOT NULL, bytes INTEGER NOT NULL,
    PRIMARY KEY(run, path)
) STRICT, WITHOUT ROWID;
CREATE TABLE member(
    run INTEGER NOT NULL, gather INTEGER NOT NULL, grp TEXT NOT NULL, lineage BLOB NOT NULL, stage INTEGER NOT NULL,
    idx INTEGER NOT NULL,
    PRIMARY KEY(run, gather, grp, lineage, stage, idx)
) STRICT, WITHOUT ROWID;
CREATE TABLE absent(
    run INTEGER NOT NULL, gather INTEGER NOT NULL, grp TEXT NOT NULL, stage INTEGER NOT NULL, lineage BLOB NOT NULL,
    makes_group INTEGER NOT NULL,
    PRIMARY KEY(run, gather, grp, stage, lineage)
) STRICT, WITHOUT ROWID;
CREATE TABLE event(
    run INTEGER NOT NULL, seq INTEGER NOT NULL, wall_ms INTEGER NOT NULL, level INTEGER NOT NULL, stage INTEGER,
    key TEXT, text TEXT NOT NULL,
    PRIMARY KEY(run, seq)
) STRICT, WITHOUT ROWID;
CREATE TABLE kept(
    job TEXT NOT NULL, key TEXT NOT NULL, due_ms INTEGER NOT NULL, run TEXT NOT NULL, json TEXT NOT NULL,
    PRIMARY KEY(job, key, due_ms)
) STRICT, WITHOUT ROWID;
", of_schedules!(), of_ends!());

/// What makes the format at its place, from 2, of the one before. A firing was begun once for each trigger in format 1: of
/// several runs of one the first keeps its name.
pub(super) const STEPS: [&str; 2] = [
    concat!(
        "UPDATE head SET fire_key = NULL WHERE fire_key IS NOT NULL AND run NOT IN
            (SELECT min(run) FROM head WHERE fire_key IS NOT NULL GROUP BY job, fire_key);
        DROP INDEX head_firing; CREATE UNIQUE INDEX head_firing ON head(job, fire_key) WHERE fire_key IS NOT NULL;",
        of_schedules!()
    ),
    of_ends!(),
];

const _: () = assert!(STEPS.len() as u32 + 1 == FORMAT);

/// Tables that grow with a run, with what tells its rows apart; `item` and `value`, which belong together, are forgotten by
/// themselves, marks of stages, notices and what is unheard with the head.
pub(super) const OF_A_RUN: [(&str, &str); 6] = [
    ("claim", "stage, key"),
    ("output_claim", "path"),
    ("output", "path"),
    ("member", "gather, grp, lineage, stage, idx"),
    ("absent", "gather, grp, stage, lineage"),
    ("event", "seq"),
];
