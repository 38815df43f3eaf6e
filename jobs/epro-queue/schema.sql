-- The table that jobs/epro-queue.ron works on, and some questionnaires to begin with. It can be run again.
--
--     sqlite3 jobs/epro-queue/queue.db < jobs/epro-queue/schema.sql
--
-- WAL: whoever puts questionnaires into the table and whoever scores them do not wait for each other.
PRAGMA journal_mode = WAL;

CREATE TABLE IF NOT EXISTS questionnaire (
    id         INTEGER PRIMARY KEY,
    patient    TEXT NOT NULL,
    instrument TEXT NOT NULL,                   -- phq9, who5
    answers    TEXT NOT NULL,                   -- a JSON list of numbers
    status     TEXT NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'scored', 'rejected')),
    score      INTEGER,
    reason     TEXT,                            -- why it was rejected
    scored_by  TEXT                             -- the run
);
-- A queue stays fast when most of its rows are done: only those that wait are in this index.
CREATE INDEX IF NOT EXISTS questionnaire_pending ON questionnaire (id) WHERE status = 'pending';

INSERT OR IGNORE INTO questionnaire (id, patient, instrument, answers) VALUES
    (1, 'P00001', 'phq9', '[0,1,0,2,1,0,0,1,0]'),
    (2, 'P00001', 'who5', '[4,3,4,3,5]'),
    (3, 'P00002', 'phq9', '[2,2,3,1,2,1,1,0,0]'),
    (4, 'P00003', 'who5', '[1,2,1,0,2]'),
    (5, 'P00004', 'phq9', '[1,1,1,1]'),
    (6, 'P00005', 'who5', '[5,5,4,5,6]');
