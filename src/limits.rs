//! Every ceiling of the program, with its unit and its reason.
//!
//! Limits that depend on each other say so in a compile-time assertion at the end. Nothing here is read from the
//! environment; what an author may set has its default here and its ceiling beside it.

use std::time::Duration;

/// Largest job file, template or jq file that is read, in bytes. A job file of a real night has 2 KB.
pub const FILE_BYTES_MAX: u64 = 1 << 20;
/// Deepest nesting of a RON or JSON value that is read. Deeper ones would use up the stack of a small thread.
pub const DEPTH_MAX: usize = 128;
/// Stack that a jq filter may use below its caller, in bytes: CPU threads have 2 MiB.
pub const JQ_STACK_BYTES_MAX: usize = 512 << 10;
/// Deepest nesting of a value inside a jq filter; what leaves it is bound by [`DEPTH_MAX`].
pub const JQ_VALUE_DEPTH_MAX: usize = 1000;
/// Index up to which an assignment of jq lengthens an array: 16 MB of nulls.
pub const JQ_INDEX_MAX: usize = 1 << 20;
/// Longest text that a product (`"-" * .n`) makes in a jq filter, in bytes: the largest value of a gather by default.
pub const JQ_TEXT_BYTES_MAX: usize = 16 << 20;
/// How deep a jq definition that is given a filter may call itself, in calls: each hands the filter on, and a level of
/// recursion takes up to 1.5 KB of stack in a debug build when the last one is used.
pub const JQ_HANDED_ON_MAX: usize = 200;
/// Most elements of an array, or fields of an object, that a jq filter makes: four times what an `Items` may list.
pub const JQ_ELEMENTS_MAX: usize = 4 << 20;
/// Largest value that a jq filter gives or writes as text: bytes of its texts and 16 for each value in it. A value that
/// holds another one twice, and so on, is small in memory and without end when it is written.
pub const JQ_WEIGHT_MAX: usize = 128 << 20;
/// Largest whole number that a product makes in a jq filter, in bits: beyond a double's range it helps nobody.
pub const JQ_NUMBER_BITS_MAX: u64 = 1 << 16;
/// Nesting of a jq filter that its parser may meet, in steps: `|` and `,` count 1, what nests more 4. The parser of a debug
/// build needs 2 MiB for 800 prefix operators.
pub const JQ_STEPS_MAX: usize = 2000;
/// Deepest syntax tree of a jq filter (rows of `|` and `,` are balanced before): a level takes 7 KB of stack when a debug
/// build compiles it.
pub const JQ_TREE_DEPTH_MAX: usize = 128;
/// Most branches of one `if` and steps of one path in a jq filter: a level of recursion each at a run.
pub const JQ_PARTS_MAX: usize = 100;
/// Largest text that a template gives, in bytes: a page for a whole night's patients has 2 MB.
pub const RENDERED_BYTES_MAX: usize = 16 << 20;
/// Work that a template may do, in minijinja's fuel (about instructions and 64-byte pieces): some seconds.
pub const RENDER_FUEL: u64 = 50_000_000;
/// Words of one expression of a template that may stand below each other in its syntax tree: the parser of a debug build
/// needs 2 MiB of stack for 5,000. Pages of real nights have 20.
pub const TEMPLATE_DEPTH_MAX: usize = 1000;
/// Most `elif` of a template: each is a level of its syntax tree; 2 MiB of stack hold 1,700.
pub const TEMPLATE_BRANCHES_MAX: usize = 300;
/// Most problems shown of one file: more than a person mends in one go.
pub const PROBLEMS_MAX: usize = 100;

/// Most stages of a job, most services of a job, most actions of a stage.
pub const STAGES_MAX: usize = 64;
/// See [`STAGES_MAX`].
pub const SERVICES_MAX: usize = 64;
/// See [`STAGES_MAX`].
pub const ACTIONS_MAX: usize = 32;
/// Most workers of a stage: each holds one open connection or child at a time.
pub const WORKERS_MAX: usize = 1024;
/// Most items of a stage that may wait outside its workers.
pub const WAITING_MAX: usize = 65_536;
/// Largest channel before a stage, in items.
pub const BUFFER_MAX: usize = 65_536;
/// `waiting` of a stage that does not say it: twice its workers, at least this many.
pub const WAITING_MIN: usize = 16;
/// After this many items that were ready at once a worker lets the others run (no item is overtaken for long).
pub const READY_ITEMS_BEFORE_YIELD: u32 = 32;

/// Most values that one item may give in a worker stage.
pub const VALUES_PER_ITEM_MAX: usize = 10_000;
/// Most bytes of JSON that one item may give: default of `max_value`.
pub const VALUE_BYTES_DEFAULT: u64 = 1_000_000;
/// The same for a gather.
pub const GATHER_VALUE_BYTES_DEFAULT: u64 = 16_000_000;
/// Largest value that `Keep` takes, in bytes of JSON: two weeks of numbers, not a night's data. Each key has two of them.
pub const KEPT_VALUE_BYTES_MAX: usize = 64 << 10;
/// Longest part of a key, in bytes.
pub const KEY_PART_BYTES_MAX: usize = 256;
/// Longest message of a failure that is kept, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 1024;

/// A run that sets no deadline of its own ends after this.
pub const RUN_DEADLINE_DEFAULT: Duration = Duration::from_secs(24 * 3600);
/// What is cancelled may use this long to end by itself, then it is killed.
pub const GRACE_PERIOD_DEFAULT: Duration = Duration::from_secs(10);
/// A notice of `on_finish` has this long.
pub const ON_FINISH_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the end of a run waits for the answer to the ping of its beginning.
pub const START_PING_PATIENCE: Duration = Duration::from_secs(5);
/// A wait longer than this leaves memory: the item is put into the store and read back later.
pub const WAIT_IN_MEMORY_MAX: Duration = Duration::from_secs(10);
/// Firings of one job that are looked at when they have passed; older ones are one record together.
pub const FIRINGS_LOOKED_AT_MAX: usize = 1_000;
/// Services with limits that are remembered when no run uses them.
pub const SHARED_SERVICES_MAX: usize = 64;
/// Runs that listed nothing are one line of the history when they were due no further apart.
pub const FOLD_DISTANCE_MAX: Duration = Duration::from_secs(10 * 60);
/// Within this a time that is due counts as on time, unless the job says otherwise.
pub const START_WINDOW_DEFAULT: Duration = Duration::from_secs(60);
/// A firing that waits for its turn starts within this beyond the start window, unless the job says otherwise.
pub const WAIT_WINDOW_DEFAULT: Duration = Duration::from_secs(3600);
/// A clock with a battery is believed when the machine has run so long.
pub const CLOCK_TRUSTED_AFTER: Duration = Duration::from_secs(2 * 60);
/// Any clock that may be right is believed when the machine has run so long.
pub const CLOCK_WAIT_MAX_DEFAULT: Duration = Duration::from_secs(10 * 60);
/// A clock that is not believed is looked at again after this.
pub const CLOCK_RECHECK: Duration = Duration::from_secs(30);
/// Runs of a daemon at a time, unless the configuration says otherwise.
pub const RUNNING_JOBS_DEFAULT: usize = 4;
/// Most runs of a daemon at a time.
pub const RUNNING_JOBS_MAX: u32 = 64;
/// Between two runs of a daemon that make up for missed times, unless the configuration says otherwise.
pub const CATCH_UP_DELAY_DEFAULT: Duration = Duration::from_secs(30);
/// Events that may wait for the loop of a daemon; who has more waits.
pub const DAEMON_EVENTS: usize = 64;
/// A firing whose job somebody in the foreground works on is tried again after this.
pub const FOREIGN_RECHECK: Duration = Duration::from_secs(10);
/// A job file that is gone for longer is a new one when it comes back.
pub const JOB_GONE_AFTER: Duration = Duration::from_secs(2 * 60);
/// A firing waits so long for a job file that cannot be used to be mended.
pub const FILE_MENDED_WITHIN: Duration = Duration::from_secs(3600);
/// Runs of a job that are looked at for its last good one.
pub const OVERDUE_LOOK_BACK: usize = 50;
/// Texts of a job that sleeps are packed when they have more bytes: below it that gains nothing.
pub const PACK_BYTES: usize = 512;
/// Marks of jobs that are written in one transaction.
pub const MARKS_AT_ONCE: usize = 256;
/// Nobody waits longer for job files that are asked for: a folder on a mount that hangs.
pub const FILES_PATIENCE: Duration = Duration::from_secs(30);
/// Ends of runs that came to nothing and are written down as heard in one transaction.
pub const HEARD_AT_ONCE: usize = 64;
/// Steps of retention after a run: each lets go of a run, gives some pages back or looks at some jobs. What is left is the next one's.
pub const RETAIN_STEPS: usize = 200;
/// Firings that started no run and are kept of one job: about three years of nights.
pub const FIRINGS_KEPT_MAX: u32 = 1_000;
/// Of those that are too old or too many, as many are let go in one transaction.
pub const RETAIN_FIRINGS: u32 = 256;
/// Jobs that one step of retention looks at: some milliseconds, in which nobody else is answered.
pub const RETAIN_JOBS: usize = 64;
/// So far ahead `check` looks for changes of the clocks that touch a job: each comes within a year.
pub const REMARKS_LOOK_AHEAD: Duration = Duration::from_secs(366 * 24 * 3600);
/// A run of a job that is due every minute, or more often, is remarked on when it may last so many times as long.
pub const LONG_RUN_FACTOR: u32 = 10;
/// Longest duration that an author may write: ten years.
pub const DURATION_MAX: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

/// Names that are looked at in one step when what a dead process has half written is looked for.
pub const SWEEP_NAMES: usize = 1_000;
/// Files of one run that are noted for `keep_out`, some 400 bytes each while they are; those beyond stay.
pub const KEEP_OUT_FILES_MAX: usize = 20_000;
/// What is read of the notes of one dated folder, in bytes: hourly runs of a day write into the same one.
pub const KEEP_OUT_NOTES_BYTES_MAX: u64 = 64 << 20;
/// How long a run waits until it looks again at a dated folder in which another one notes: that is done within milliseconds.
pub const KEEP_OUT_LOCK_WAIT: Duration = Duration::from_millis(100);
/// Dated folders that are removed after one run, and files in them up to about [`KEEP_OUT_FILES_MAX`]; what is left is the next
/// one's.
pub const KEEP_OUT_FOLDERS: usize = 64;
/// Firings of one backfill: three years of nights. They run one after the other, and somebody waits for them.
pub const BACKFILL_MAX: usize = 1_000;

/// Default of a service's `timeout`.
pub const SERVICE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// Default of a service's `connect_timeout`.
pub const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// Default of a service's `max_body`, in bytes, after gunzip.
pub const BODY_BYTES_DEFAULT: u64 = 1_000_000;
/// Default of a service's `max_file`, in bytes.
pub const DOWNLOAD_BYTES_DEFAULT: u64 = 1_000_000_000;
/// Default of a service's `retry_after_max`.
pub const RETRY_AFTER_MAX_DEFAULT: Duration = Duration::from_secs(60);
/// Ceiling of `max_body`, in bytes: an answer is held in memory, beside those of all other workers.
pub const BODY_BYTES_MAX: u64 = 256_000_000;
/// Reads of a connection that were ready at once, of 8 KiB at most, after which others have their turn.
pub const READS_BEFORE_YIELD: u32 = 16;
/// Largest head of an answer that is read, in bytes. Real ones have 1 KB; browsers stop at 256 KB.
pub const RESPONSE_HEAD_BYTES_MAX: usize = 64 * 1024;
/// Longest path with its query that is asked for, in bytes. Servers refuse more than 8 to 32 KB; the parser of URLs 64 KB.
pub const URL_BYTES_MAX: usize = 60_000;
/// Ceiling of `max_attempts`.
pub const ATTEMPTS_MAX: u32 = 100;
/// Ceiling of a service's `max_in_flight`: the workers of four of the largest stages.
pub const IN_FLIGHT_MAX: u32 = 4096;
/// Most rates of one service. Vendors have two or three.
pub const RATES_MAX: usize = 8;
/// Most times that one window of a rate remembers; larger counts are remembered in groups. 16 bytes each.
pub const RATE_GROUPS_MAX: u64 = 512;
/// A stated wait is made longer by up to a tenth, at most this: items that were told the same time do not come back
/// in the same instant.
pub const SNOOZE_JITTER_MAX: Duration = Duration::from_secs(10);
/// Idle connections that a service without `max_in_flight` keeps.
pub const POOL_IDLE_MAX: usize = 32;
/// An idle connection older than this is not used again: most servers have closed it by then.
pub const POOL_IDLE_TIME: Duration = Duration::from_secs(30);
/// Name look-ups of one service at a time: one that hangs keeps a thread of the blocking pool.
pub const LOOKUPS_MAX: usize = 2;
/// Addresses are kept this long; they are looked up anew at once when none of them answers.
pub const LOOKUP_KEPT: Duration = Duration::from_secs(60);
/// A larger answer is decoded on a CPU thread, in bytes: below it takes less than a millisecond on a gateway.
pub const INLINE_BODY_BYTES_MAX: usize = 128 << 10;
/// Most elements that one page may give. Vendors have pages of 10,000.
pub const PAGE_ELEMENTS_MAX: usize = 1_000_000;
/// Redirects followed in one attempt.
pub const REDIRECTS_MAX: u32 = 5;
/// Pages of one call when `max_pages` is not said.
pub const PAGES_MAX_DEFAULT: u32 = 10_000;

/// Values that a source lists ahead of what its readers have room for, and whose keys are claimed at a time, in a run that is
/// not kept: enough that listing and taking in do not wake each other for each value. They are whole values, and all of them are
/// in memory.
pub const LISTED_AHEAD: usize = 64;

/// Rows of one commit, and the oldest that an uncommitted row may be.
pub const BATCH_ROWS: usize = 512;
/// See [`BATCH_ROWS`].
pub const BATCH_BYTES: usize = 1 << 20;
/// See [`BATCH_ROWS`].
pub const BATCH_AGE: Duration = Duration::from_millis(250);
/// Uncommitted bytes of results; past that settling waits.
pub const UNCOMMITTED_BYTES_MAX: usize = 4 << 20;
/// Rows and bytes of JSON in one page of an answer: what a reader holds at once. A single larger row is a page of its own.
pub const PAGE_ROWS: usize = 512;
/// See [`PAGE_ROWS`].
pub const PAGE_BYTES: usize = 1 << 20;
/// Questions that may wait for the store's thread at once; later askers wait before the door.
pub const STORE_QUESTIONS_MAX: usize = 256;
/// Turns of the store's thread over which one transaction may stay open, however small, before it is committed.
pub const TURNS_PER_COMMIT: u32 = 32;
/// Size of a page of the private store, in bytes: its journal is in memory and holds each page that a batch of keys in
/// no order touches, so small pages keep it small (1M such items: 5.5 MiB with pages of 4096 bytes).
pub const STORE_PAGE_BYTES: u32 = 2048;
/// Page cache of the private store, in KiB: with 2048 no run was faster, and each took 1 MiB more.
pub const STORE_CACHE_KIB: u32 = 768;
/// Size of a page of the durable state, in bytes: what file systems and flash write at once.
pub const STATE_PAGE_BYTES: u32 = 4096;
/// Pages of the durable state's log after which they are copied into the file: 1 MiB.
pub const STATE_LOG_PAGES: u32 = 256;
/// The log is cut to this size when it was larger, in bytes.
pub const STATE_LOG_BYTES: u32 = 1 << 20;
/// A larger log, in bytes, is one that cannot be cut, since somebody keeps reading: it is told of.
pub const STATE_LOG_ALARM_BYTES: u64 = 4 << 20;
/// How long another process may hold up a write to the durable state: it writes for some milliseconds, on a bad card for
/// seconds.
pub const STATE_BUSY_TIMEOUT: Duration = Duration::from_secs(60);
/// So many crashes of a run with nothing done in between, within [`CRASH_WINDOW`], quarantine it.
pub const CRASHES_WITHOUT_PROGRESS_MAX: usize = 3;
/// See [`CRASHES_WITHOUT_PROGRESS_MAX`].
pub const CRASH_WINDOW: Duration = Duration::from_secs(72 * 3600);
/// So many crashes of a run, of any kind, quarantine it.
pub const CRASHES_MAX: u32 = 10;
/// Runs of a job that are kept: three months of nights.
pub const HISTORY_RUNS_DEFAULT: u64 = 100;
/// How long a run that has ended is kept.
pub const HISTORY_AGE_DEFAULT: Duration = Duration::from_secs(30 * 86_400);
/// Bytes of the durable state above which the items of the oldest runs go.
pub const HISTORY_BYTES_DEFAULT: u64 = 64_000_000;
/// Free pages that retention gives back to the file system in one call: some milliseconds.
pub const RETAIN_VACUUM_PAGES: u32 = 256;
/// Bytes of the log of one run that are kept; the oldest lines make room.
pub const EVENTS_BYTES_MAX: u64 = 256 << 10;
/// Bytes of lines of one run that wait to be stored: a flood is counted, not kept.
pub const JOURNAL_BYTES_MAX: usize = 64 << 10;
/// Items that are named as the slowest of a run.
pub const SLOWEST_MAX: usize = 5;
/// The log of a run is stored this often at most: each time is a commit, and a person who follows it sees no delay.
pub const JOURNAL_EVERY: Duration = Duration::from_millis(500);
/// Bytes that the private temporary store may use (`spool_max`).
pub const SPOOL_BYTES_DEFAULT: u64 = 256_000_000;
/// Least of it that can be said: an empty store has 0.1 MB.
pub const SPOOL_BYTES_MIN: u64 = 1_000_000;
/// Most threads of the executor that a configuration can ask for: cores of the largest gateway, four times over.
pub const THREADS_MAX: u32 = 64;

/// Values or combinations that an `Items` may list.
pub const ITEMS_MAX: usize = 1_000_000;
/// Files are read and written in blocks of this many bytes: memory stays flat whatever their size.
pub const READ_BLOCK_BYTES: usize = 64 << 10;
/// See [`READ_BLOCK_BYTES`].
pub const OUTPUT_BLOCK_BYTES: usize = 64 << 10;
/// Longest path of an output, in bytes: below the system's 4,096 with room for the root.
pub const OUTPUT_PATH_BYTES_MAX: usize = 4000;
/// Longest part of such a path, in bytes: what file systems take.
pub const OUTPUT_PATH_PART_BYTES_MAX: usize = 255;
/// Folders below the output root of which a run remembers that their names are on the disk; of more some are synced again.
pub const OUTPUT_FOLDERS_KNOWN_MAX: usize = 1024;
/// File names that a `Read(glob:)` lists; they are sorted, so they are in memory at once.
pub const GLOB_FILES_MAX: usize = 1_000_000;
/// Columns of a csv file. A line of nothing but commas must not become a row of a million fields.
pub const CSV_COLUMNS_MAX: usize = 4096;
/// How long `Sql` waits for a database that others hold locked; what writes such a file is done within milliseconds.
pub const SQL_LOCKED_MAX: Duration = Duration::from_secs(10);
/// The first wait before it looks again, doubled each time.
pub const SQL_LOCK_WAIT: Duration = Duration::from_millis(2);
/// The longest: a lock that is free is taken soon.
pub const SQL_LOCK_WAIT_MAX: Duration = Duration::from_millis(100);
/// Instructions of a statement after which it looks whether it was cut: well below a millisecond of work.
pub const SQL_OPS_BEFORE_LOOK: i32 = 1000;
/// Lines and bytes of a child's output that are logged; what comes after is counted.
pub const CHILD_LOG_LINES_MAX: u64 = 1000;
/// See [`CHILD_LOG_LINES_MAX`].
pub const CHILD_LOG_BYTES_MAX: u64 = 256 << 10;
/// A longer line of output is logged and kept only so far, in bytes.
pub const CHILD_LINE_BYTES_MAX: usize = 2048;
/// A thread that has started a child waits this long for its first output or its end. Most are over by then; a start every
/// millisecond on each thread of the pool is more than a gateway can run.
pub const CHILD_LINGER: Duration = Duration::from_millis(1);
/// Output of a child is read in blocks of this many bytes at first: most say little, and there are many workers.
pub const CHILD_BLOCK_BYTES_MIN: usize = 1 << 10;
/// Once it has filled one, in blocks of this many bytes.
pub const CHILD_BLOCK_BYTES_MAX: usize = 16 << 10;
/// Blocks of a child's output that are read before others have their turn.
pub const CHILD_READS_BEFORE_YIELD: u32 = 4;
/// Last lines of a child's output that are kept for reports.
pub const CHILD_TAIL_LINES: usize = 20;
/// Bytes of the last line that a failure's message quotes.
pub const CHILD_LAST_LINE_BYTES: usize = 200;
/// After its exit a child's output may be silent for this long, then who holds it open is `leaked`.
pub const CHILD_DRAIN_IDLE: Duration = Duration::from_millis(200);
/// So many of these waits at most: who floods the pipe after the exit is `leaked` too.
pub const CHILD_DRAIN_TURNS: u32 = 5;
/// What the system refused for now (no process, memory or file descriptor free) is tried again so often; not counted while
/// children of the run hold some that will come back.
pub const SCARCE_TRIES: u32 = 40;
/// The first wait before it, doubled each time.
pub const SCARCE_WAIT: Duration = Duration::from_millis(20);
/// The longest: what a child gives back is used soon.
pub const SCARCE_WAIT_MAX: Duration = Duration::from_millis(500);
/// How often at least a process group that ends is looked at.
pub const LEFTOVER_POLL_MAX: Duration = Duration::from_millis(20);
/// How often all processes are looked through for one that only nobody has reaped.
pub const LEFTOVER_SCAN_EVERY: Duration = Duration::from_millis(200);
/// Bytes of log lines of `serve` that wait for a reader of stderr; what comes beyond is dropped and counted.
pub const LOG_QUEUE_BYTES: usize = 256 << 10;
/// How long `serve` waits at its end for that reader.
pub const LOG_PATIENCE: Duration = Duration::from_secs(1);
/// How often at most a program that inherits orphans looks for those that have ended.
pub const ORPHANS_REAP_EVERY: Duration = Duration::from_secs(1);
/// A process that is there this long after KILL hangs in the kernel: nobody waits for it any more. The same holds for
/// blocking work at the end of a run.
pub const LEFTOVER_UNKILLABLE_AFTER: Duration = Duration::from_secs(5);
/// What the kernel adds to a child's badness when memory runs out, of 1000: it should take a child, and not the program
/// that still has to write the report.
pub const CHILD_OOM_SCORE: &str = "500";
/// Values that a computation hands over at once.
pub const COMPUTE_BATCH: usize = 16;
/// Computations of one action that may be abandoned without an end; then it fails `stuck`.
pub const COMPUTE_LOST_MAX: u32 = 2;

/// Failures and outputs named in the JSON summary of a run.
pub const SUMMARY_LIST_MAX: usize = 100;

/// Runs in one answer of the history: they are held while they are listed, a kilobyte each.
pub const HISTORY_LISTED_MAX: usize = 10_000;

/// Longest request on the daemon's socket, in bytes: params of a run have some hundred.
pub const API_REQUEST_BYTES_MAX: usize = 64 << 10;
/// Longest line of an answer that a client takes, in bytes: the overview of ten thousand jobs has 8 MB.
pub const API_ANSWER_BYTES_MAX: usize = 64 << 20;
/// How long a client may take to send its request.
pub const API_REQUEST_MAX: Duration = Duration::from_secs(10);
/// How long a command waits for a daemon that says nothing: one that has just started settles first what an earlier process
/// left, and one that is asked for a run reads all changed job files first.
pub const API_SILENCE_MAX: Duration = Duration::from_secs(30);
/// How long a client may take to read one line of its answer; then it is hung up on.
pub const API_WRITE_MAX: Duration = Duration::from_secs(60);
/// Connections at a time. One more takes the place of the one that has said nothing for longest, or is refused.
pub const API_CONNECTIONS_MAX: usize = 32;
/// Connections at a time that follow a run or a log: the others are left to questions.
pub const API_FOLLOWERS_MAX: usize = 24;
/// Lines of a run that wait for a client that reads slowly; what finds no room is counted.
pub const API_LINES_MAX: usize = 256;
/// How often a client that draws a run is told where it stands.
pub const API_PICTURE_EVERY: Duration = Duration::from_millis(100);
/// After the system has refused a connection (no descriptor is free) the next one is taken so much later.
pub const API_ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a daemon that ends waits until clients have read how their runs ended.
pub const API_FAREWELL_MAX: Duration = Duration::from_secs(2);
/// Longest word of a client for who cancels a run, in bytes.
pub const API_WHO_BYTES_MAX: usize = 100;

/// Simulated vendor: largest head of a request, in bytes. Ours have 300.
pub const SIM_HEAD_BYTES_MAX: usize = 16 << 10;
/// Simulated vendor: largest body of a request, in bytes. An acknowledgement has 100.
pub const SIM_BODY_BYTES_MAX: usize = 64 << 10;
/// Simulated vendor: most open connections, four times the most workers of a stage.
pub const SIM_CONNECTIONS_MAX: usize = 4096;
/// Simulated vendor: a connection with nothing to say is closed after this, as real vendors do.
pub const SIM_IDLE_MAX: Duration = Duration::from_secs(75);
/// Simulated vendor: a request that is never answered is given up after this, so that a forgotten client costs nothing.
pub const SIM_HANG_MAX: Duration = Duration::from_secs(3600);
/// Simulated vendor: nights whose attempts are counted; the oldest date is forgotten first. A trailing window has 7.
pub const SIM_NIGHTS_MAX: usize = 64;
/// Simulated vendor: idempotency keys, tokens, token families and exports remembered, each.
pub const SIM_KEYS_MAX: usize = 100_000;
/// Simulated vendor: most patients: their keys have five digits, and attempts are counted for each.
pub const SIM_PATIENTS_MAX: u32 = 99_999;
/// Simulated vendor: longest life of an access token.
pub const SIM_TOKEN_TTL_MAX: Duration = Duration::from_secs(24 * 3600);
/// Simulated vendor: length of its huge body, in bytes: far over any `max_body`.
pub const SIM_HUGE_BYTES: usize = 64 << 20;

/// Fewest and most threads that compute (Jq, Render) at a time, between them one for each core. At least two, so that one
/// computation that never ends leaves a thread for the others; at most four, so that a large host does not change what a
/// gateway runs.
pub const CPU_THREADS_MIN: usize = 2;
/// See [`CPU_THREADS_MIN`].
pub const CPU_THREADS_MAX: usize = 4;
/// Most threads that block (files, name look-ups, starting a child) at a time.
pub const BLOCKING_THREADS_MAX: usize = 4;
/// A thread of a pool ends after it had nothing to do for this long: an idle daemon does not wake up.
pub const POOL_THREAD_IDLE: Duration = Duration::from_secs(5);
/// Stack of a thread of a pool, in bytes (address space; only what is used takes memory).
pub const POOL_STACK_BYTES: usize = 4 << 20;
/// Where the kernel refuses a timer on the wall clock, the clock is looked at this often.
pub const WALL_RECHECK: Duration = Duration::from_secs(60);
/// A wall clock that moved this much more or less than the time that passed was set; less is drift.
pub const WALL_STEP_MIN: Duration = Duration::from_secs(1);
/// Polls of one simulated run after which it counts as a livelock.
pub const SIM_STEPS_MAX: u64 = 5_000_000;

const _: () = assert!(CPU_THREADS_MIN >= 2 && CPU_THREADS_MIN <= CPU_THREADS_MAX);
const _: () = assert!(API_FOLLOWERS_MAX < API_CONNECTIONS_MAX);
const _: () = assert!(WAITING_MIN <= WAITING_MAX);
const _: () = assert!(JQ_INDEX_MAX <= JQ_ELEMENTS_MAX && ITEMS_MAX <= JQ_ELEMENTS_MAX);
const _: () = assert!(JQ_TEXT_BYTES_MAX <= JQ_WEIGHT_MAX);
const _: () = assert!(VALUE_BYTES_DEFAULT <= GATHER_VALUE_BYTES_DEFAULT);
const _: () = assert!(BATCH_BYTES * 2 <= UNCOMMITTED_BYTES_MAX);
const _: () = assert!(SIM_CONNECTIONS_MAX >= 4 * WORKERS_MAX);
