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

/// Failures and outputs named in the JSON summary of a run.
pub const SUMMARY_LIST_MAX: usize = 100;

const _: () = assert!(WAITING_MIN <= WAITING_MAX);
const _: () = assert!(VALUE_BYTES_DEFAULT <= GATHER_VALUE_BYTES_DEFAULT);
const _: () = assert!(BATCH_BYTES * 2 <= UNCOMMITTED_BYTES_MAX);
