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
pub const STORE_CACHE_KIB: u32 = 1024;
/// Bytes that the private temporary store may use (`spool_max`).
pub const SPOOL_BYTES_DEFAULT: u64 = 256_000_000;

/// Failures and outputs named in the JSON summary of a run.
pub const SUMMARY_LIST_MAX: usize = 100;

/// Fewest and most threads that compute (Jq, Render) at a time, between them one for each core. At least two, so that one
/// computation that never ends leaves a thread for the others; at most four, so that a large host does not change what a
/// gateway runs.
pub const CPU_THREADS_MIN: usize = 2;
/// See [`CPU_THREADS_MIN`].
pub const CPU_THREADS_MAX: usize = 4;
/// A thread of the CPU pool ends after it had nothing to do for this long: an idle daemon does not wake up.
pub const CPU_THREAD_IDLE: Duration = Duration::from_secs(5);
/// Stack of a thread of the CPU pool, in bytes (address space; only what is used takes memory).
pub const CPU_STACK_BYTES: usize = 4 << 20;
/// Where the kernel refuses a timer on the wall clock, the clock is looked at this often.
pub const WALL_RECHECK: Duration = Duration::from_secs(60);
/// A wall clock that moved this much more or less than the time that passed was set; less is drift.
pub const WALL_STEP_MIN: Duration = Duration::from_secs(1);
/// Polls of one simulated run after which it counts as a livelock.
pub const SIM_STEPS_MAX: u64 = 5_000_000;

const _: () = assert!(CPU_THREADS_MIN >= 2 && CPU_THREADS_MIN <= CPU_THREADS_MAX);
const _: () = assert!(WAITING_MIN <= WAITING_MAX);
const _: () = assert!(VALUE_BYTES_DEFAULT <= GATHER_VALUE_BYTES_DEFAULT);
const _: () = assert!(BATCH_BYTES * 2 <= UNCOMMITTED_BYTES_MAX);
