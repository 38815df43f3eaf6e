//! The log of a run: each line goes to the logger and, in a run that is kept, to its state.
//!
//! Lines wait here, bounded, until [`Journal::pump`] has stored them in batches: nothing that writes one ever waits. What
//! finds no room is counted, and the count is a line itself.

use crate::{
    item::Key,
    limits::{JOURNAL_BYTES_MAX, JOURNAL_EVERY, LEFTOVER_UNKILLABLE_AFTER},
    store::{RunEvent, RunStore},
    world::World,
};
use event_listener::Event;
use futures_lite::FutureExt;
use log::{
    Level,
    kv::{self, VisitSource},
};
use serde::{Deserialize, Serialize};
use std::{
    fmt::{self, Display, Write as _},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

/// A line of the log of a run, as the logger is given it: whoever hears it elsewhere can log it there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// `ERROR`, `WARN`, `INFO`, `DEBUG` or `TRACE`.
    pub level: String,
    /// Which part of the program says it.
    pub target: String,
    /// What it says.
    pub text: String,
    /// What else is known, by name.
    pub fields: Vec<(String, String)>,
}

/// Hears each line of a run when it is written. It must neither block nor panic.
pub type Listener = Arc<dyn Fn(Said) + Send + Sync>;

/// Where the lines of one run go.
pub struct Journal {
    world: World,
    run: String,
    job: String,
    listener: Option<Listener>,
    /// Set in a run that is kept.
    waiting: Option<Waiting>,
}

/// Lines on their way to the state.
#[derive(Default)]
struct Waiting {
    lines: Mutex<Lines>,
    more: Event,
    closed: AtomicBool,
}

#[derive(Default)]
struct Lines {
    events: Vec<RunEvent>,
    bytes: usize,
    dropped: u64,
}

/// One line of the log of a run.
pub struct Line<'a> {
    target: &'a str,
    level: Level,
    kept_as: Level,
    text: &'a str,
    stage: Option<(u16, &'a str)>,
    key: Option<&'a Key>,
    fields: &'a [(&'a str, &'a dyn Display)],
}

impl<'a> Line<'a> {
    /// A line of `lamplighter::run` about the run as a whole.
    pub fn of_run(level: Level, text: &'a str) -> Line<'a> {
        Line { target: RUN, level, kept_as: level, text, stage: None, key: None, fields: &[] }
    }

    /// About a stage: its place and name.
    pub fn stage(self, place: u16, name: &'a str) -> Line<'a> {
        Line { stage: Some((place, name)), ..self }
    }

    /// About an item.
    pub fn key(self, key: Option<&'a Key>) -> Line<'a> {
        Line { key, ..self }
    }

    /// From another part of the program, by its target in the log.
    pub fn from_target(self, target: &'a str) -> Line<'a> {
        Line { target, ..self }
    }

    /// The log of the run takes it for more than the logger does.
    pub fn kept_as(self, kept_as: Level) -> Line<'a> {
        Line { kept_as, ..self }
    }

    /// What else is known, by name.
    pub fn with(self, fields: &'a [(&'a str, &'a dyn Display)]) -> Line<'a> {
        Line { fields, ..self }
    }
}

/// Target of lines about runs.
const RUN: &str = "lamplighter::run";

impl Journal {
    /// Of a run of a job; `kept`: its lines are stored, by whoever calls [`Journal::pump`].
    pub fn new(world: World, run: &str, job: &str, kept: bool) -> Journal {
        let (run, job) = (run.to_owned(), job.to_owned());
        Journal { world, run, job, listener: None, waiting: kept.then(Waiting::default) }
    }

    /// The same, and somebody listens.
    pub fn heard_by(self, listener: Option<Listener>) -> Journal {
        Journal { listener, ..self }
    }

    /// Writes a line. Never waits.
    pub fn write(&self, line: &Line<'_>) {
        if line.level <= log::STATIC_MAX_LEVEL && line.level <= log::max_level() {
            let names = Names { journal: self, line };
            let mut record = log::Record::builder();
            record.level(line.level).target(line.target).key_values(&names);
            log::logger().log(&record.args(format_args!("{}", line.text)).build());
        }
        if let Some(listener) = &self.listener {
            let mut fields = Fields(Vec::new());
            // A visitor that takes everything has no error.
            let _ = kv::Source::visit(&Names { journal: self, line }, &mut fields);
            let level = line.level.as_str().to_owned();
            let (target, text) = (line.target.to_owned(), line.text.to_owned());
            listener(Said { level, target, text, fields: fields.0 });
        }
        let Some(waiting) = &self.waiting else { return };
        let mut text = line.text.to_owned();
        for (name, value) in line.fields {
            let _ = write!(text, " {name}={value}");
        }
        let mut lines = waiting.lock();
        let bytes = text.len() + line.key.map_or(0, |key| key.as_str().len());
        if lines.bytes + bytes > JOURNAL_BYTES_MAX {
            lines.dropped += 1;
            return;
        }
        lines.bytes += bytes;
        lines.events.push(RunEvent {
            wall_ms: self.world.wall().as_millisecond(),
            level: line.kept_as as u8,
            stage: line.stage.map(|(place, _)| place),
            key: line.key.cloned(),
            text,
        });
        drop(lines);
        waiting.more.notify(1);
    }

    /// Stores what is written, batch by batch, until [`Journal::close`] and nothing waits any more. A state that takes no
    /// more lines ends it: whoever waits for a commit hears of that. One that is slow is waited for; one that is silent over a
    /// batch is not when there will be no more lines.
    pub async fn pump(&self, rows: &RunStore) {
        let Some(waiting) = &self.waiting else { return };
        loop {
            let more = waiting.more.listen();
            let batch = waiting.take(self.world.wall().as_millisecond());
            if batch.is_empty() {
                if waiting.closed.load(Ordering::Acquire) {
                    return;
                }
                more.await;
                continue;
            }
            // Each batch has it anew.
            let patience = async {
                waiting.until_closed().await;
                self.world.sleep(LEFTOVER_UNKILLABLE_AFTER).await;
                log::warn!(
                    target: RUN, run = self.run.as_str();
                    "the last lines of its log are not kept: the store does not take them"
                );
                None
            };
            let Some(Ok(())) = async { Some(rows.add_events(batch).await) }.or(patience).await else { return };
            // A line wakes nobody for a while: each batch is a commit.
            self.world.sleep(JOURNAL_EVERY).or(waiting.until_closed()).await;
        }
    }

    /// Nothing is written any more.
    pub fn close(&self) {
        if let Some(waiting) = &self.waiting {
            waiting.closed.store(true, Ordering::Release);
            waiting.more.notify(usize::MAX);
        }
    }
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        // Held for a few statements that do not panic.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All that waits, and how many lines found no room.
    fn take(&self, wall_ms: i64) -> Vec<RunEvent> {
        let mut lines = self.lock();
        let Lines { mut events, dropped, .. } = std::mem::take(&mut *lines);
        drop(lines);
        if dropped > 0 {
            let text = format!("{dropped} more lines were written faster than they could be stored: they are left out");
            events.push(RunEvent { wall_ms, level: Level::Warn as u8, stage: None, key: None, text });
        }
        events
    }

    async fn until_closed(&self) {
        loop {
            let more = self.more.listen();
            if self.closed.load(Ordering::Acquire) {
                return;
            }
            more.await;
        }
    }
}

/// What stands beside a line in the log.
struct Names<'a> {
    journal: &'a Journal,
    line: &'a Line<'a>,
}

impl kv::Source for Names<'_> {
    fn visit<'kvs>(&'kvs self, visitor: &mut dyn VisitSource<'kvs>) -> Result<(), kv::Error> {
        let Names { journal, line } = self;
        let whose = if line.target == RUN { ("run", &journal.run) } else { ("job", &journal.job) };
        visitor.visit_pair(whose.0.into(), whose.1.as_str().into())?;
        if let Some((_, stage)) = line.stage {
            visitor.visit_pair("stage".into(), stage.into())?;
        }
        if let Some(key) = line.key {
            visitor.visit_pair("key".into(), key.as_str().into())?;
        }
        for (name, value) in line.fields {
            visitor.visit_pair((*name).into(), kv::Value::from_dyn_display(value))?;
        }
        Ok(())
    }
}

struct Fields(Vec<(String, String)>);

impl<'kvs> VisitSource<'kvs> for Fields {
    fn visit_pair(&mut self, name: kv::Key<'kvs>, value: kv::Value<'kvs>) -> Result<(), kv::Error> {
        self.0.push((name.as_str().to_owned(), value.to_string()));
        Ok(())
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("run", &self.run).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        store::{EventQuery, Reply, Request, Store, StoreError, memory::Memory},
        world::{BoxFuture, sim::Sim},
    };
    use std::time::Duration;

    /// A store that takes its time over each line; without an end where there is none.
    struct Slow(World, Memory, Option<Duration>);

    impl Store for Slow {
        fn call(&self, request: Request) -> BoxFuture<'_, Result<Reply, StoreError>> {
            Box::pin(async move {
                match self.2.filter(|_| matches!(request, Request::AddEvents(..))) {
                    Some(takes) => self.0.sleep(takes).await,
                    None if matches!(request, Request::AddEvents(..)) => std::future::pending().await,
                    None => {}
                }
                self.1.call_blocking(request)
            })
        }

        fn call_blocking(&self, request: Request) -> Result<Reply, StoreError> {
            self.1.call_blocking(request)
        }
    }

    #[test]
    fn a_store_that_is_slow_is_waited_for_and_one_that_is_silent_is_not() {
        let second = Duration::from_secs(1);
        let slow = LEFTOVER_UNKILLABLE_AFTER - second;
        for (takes, kept, lasts) in [(Some(slow), 2, slow * 2), (None, 0, LEFTOVER_UNKILLABLE_AFTER + second)] {
            let sim = Sim::new(1);
            let journal = Journal::new(sim.world(), "r", "j", true);
            let store: Arc<dyn Store> = Arc::new(Slow(sim.world(), Memory::new(1 << 20), takes));
            let (rows, world) = (RunStore::new(store, "r"), sim.world());
            let seen = sim.run(async move {
                journal.write(&Line::of_run(Level::Info, "run started"));
                let ends = async {
                    world.sleep(second).await;
                    journal.write(&Line::of_run(Level::Info, "run ended"));
                    journal.close();
                };
                futures_lite::future::zip(journal.pump(&rows), ends).await;
                rows.events(EventQuery { limit: 100, ..EventQuery::default() }).await.expect("it answers").len()
            });
            assert_eq!((seen, sim.elapsed()), (Ok(kept), lasts));
        }
    }

    #[test]
    fn lines_are_stored_in_order_and_what_finds_no_room_is_counted() {
        let sim = Sim::new(1);
        let journal = Arc::new(Journal::new(sim.world(), "r", "j", true));
        let store: Arc<dyn Store> = Arc::new(Memory::new(1 << 20));
        let rows = RunStore::new(store, "r");
        let writer = journal.clone();
        let world = sim.world();
        let seen = sim.run(async move {
            let key = Key::parse("P1").expect("a key");
            writer.write(&Line::of_run(Level::Info, "run started").with(&[("pass", &1)]));
            let write = async {
                writer.write(&Line::of_run(Level::Debug, "failed").key(Some(&key)).kept_as(Level::Warn));
                world.sleep(JOURNAL_EVERY * 2).await;
                let long = "x".repeat(JOURNAL_BYTES_MAX / 2);
                (0..5).for_each(|_| writer.write(&Line::of_run(Level::Info, &long)));
                writer.close();
            };
            futures_lite::future::zip(write, writer.pump(&rows)).await;
            rows.events(EventQuery { limit: 100, ..EventQuery::default() }).await.expect("the store answers")
        });
        let seen = seen.expect("it comes to an end");
        let told: Vec<(u8, &str)> = seen.iter().map(|(_, event)| (event.level, &event.text[..6])).collect();
        assert_eq!(told[..2], [(3, "run st"), (2, "failed")]);
        assert_eq!(seen[0].1.text, "run started pass=1");
        assert_eq!(told[2..], [(3, "xxxxxx"), (3, "xxxxxx"), (2, "3 more")]);
    }
}
