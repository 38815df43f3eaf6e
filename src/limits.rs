//! Every ceiling of the program, with its unit and its reason.
//!
//! Limits that depend on each other say so in a compile-time assertion at the end. Nothing here is read from the
//! environment; what an author may set has its default here and its ceiling beside it.

use std::time::Duration;

/// Largest job file, template or jq file that is read, in bytes. A job file of a real night has 2 KB.
pub const FILE_BYTES_MAX: u64 = 1 << 20;
/// Deepest nesting of a RON or JSON value that is read. Deeper ones would use up the stack of a small thread.
pub const DEPTH_MAX: usize = 128;
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
pub const READY_ITEMS_BEFORE_YIELD: u32 = 8;

/// Most values that one item may give in a worker stage.
pub const VALUES_PER_ITEM_MAX: usize = 10_000;
/// Most bytes of JSON that one item may give: default of `max_value`.
pub const VALUE_BYTES_DEFAULT: u64 = 1_000_000;
/// The same for a gather.
pub const GATHER_VALUE_BYTES_DEFAULT: u64 = 16_000_000;
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
/// A wait longer than this leaves memory: the item is put into the store and read back later.
pub const WAIT_IN_MEMORY_MAX: Duration = Duration::from_secs(10);
/// Longest duration that an author may write: ten years.
pub const DURATION_MAX: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

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
/// Redirects followed in one attempt.
pub const REDIRECTS_MAX: u32 = 5;
/// Pages of one call when `max_pages` is not said.
pub const PAGES_MAX_DEFAULT: u32 = 10_000;

/// Rows of one commit, and the oldest that an uncommitted row may be.
pub const BATCH_ROWS: usize = 512;
/// See [`BATCH_ROWS`].
pub const BATCH_BYTES: usize = 1 << 20;
/// See [`BATCH_ROWS`].
pub const BATCH_AGE: Duration = Duration::from_millis(250);
/// Uncommitted bytes of results; past that settling waits.
pub const UNCOMMITTED_BYTES_MAX: usize = 4 << 20;
/// Bytes that the private temporary store may use (`spool_max`).
pub const SPOOL_BYTES_DEFAULT: u64 = 256_000_000;

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
/// File names that a `Read(glob:)` lists; they are sorted, so they are in memory at once.
pub const GLOB_FILES_MAX: usize = 1_000_000;
/// Columns of a csv file. A line of nothing but commas must not become a row of a million fields.
pub const CSV_COLUMNS_MAX: usize = 4096;
/// Bytes of standard output that become values (Json, Text, one line of Lines).
pub const CHILD_VALUE_BYTES_MAX: usize = 1_000_000;
/// Lines and bytes of a child's output that are logged; what comes after is counted.
pub const CHILD_LOG_LINES_MAX: u64 = 1000;
/// See [`CHILD_LOG_LINES_MAX`].
pub const CHILD_LOG_BYTES_MAX: u64 = 256 << 10;
/// A longer line of output is logged and kept only so far, in bytes.
pub const CHILD_LINE_BYTES_MAX: usize = 2048;
/// Last lines of a child's output that are kept for reports.
pub const CHILD_TAIL_LINES: usize = 20;
/// Bytes of the last line that a failure's message quotes.
pub const CHILD_LAST_LINE_BYTES: usize = 200;
/// After its exit a child's output may be silent for this long, then who holds it open is `leaked`.
pub const CHILD_DRAIN_IDLE: Duration = Duration::from_millis(200);
/// So many of these waits at most: who floods the pipe after the exit is `leaked` too.
pub const CHILD_DRAIN_TURNS: u32 = 5;
/// A start that the system refused for now (no process, memory or file descriptor free) is tried again so often.
pub const CHILD_START_TRIES: u32 = 10;
/// The first wait before it, doubled each time.
pub const CHILD_START_WAIT: Duration = Duration::from_millis(50);
/// The longest.
pub const CHILD_START_WAIT_MAX: Duration = Duration::from_secs(5);
/// How often at least a process group that ends is looked at.
pub const LEFTOVER_POLL_MAX: Duration = Duration::from_millis(20);
/// How often all processes are looked through for one that only nobody has reaped.
pub const LEFTOVER_SCAN_EVERY: Duration = Duration::from_millis(200);
/// A process that is there this long after KILL hangs in the kernel: nobody waits for it any more.
pub const LEFTOVER_UNKILLABLE_AFTER: Duration = Duration::from_secs(5);
/// Values that a computation hands over at once.
pub const COMPUTE_BATCH: usize = 16;
/// Computations of one action that may be abandoned without an end; then it fails `stuck`.
pub const COMPUTE_LOST_MAX: u32 = 2;

/// Failures and outputs named in the JSON summary of a run.
pub const SUMMARY_LIST_MAX: usize = 100;

const _: () = assert!(WAITING_MIN <= WAITING_MAX);
const _: () = assert!(VALUE_BYTES_DEFAULT <= GATHER_VALUE_BYTES_DEFAULT);
const _: () = assert!(BATCH_BYTES * 2 <= UNCOMMITTED_BYTES_MAX);
