//! The logger: one line an event, `time level message key=value`, to stderr.
//!
//! Without `LAMPLIGHTER_LOG` a run writes at most [`LINES`] lines where no terminal is: what it says ends up in a mail or in
//! a journal on flash. On a terminal the picture tells how far the run is, so that only what authors and children say, and
//! warnings, are printed.

use super::screen::{self, LogLines};
use lamplighter::report::{Ink, Tone};
use log::kv::{Key, Value, VisitSource};
use std::{
    fmt::Write as _,
    io::Write as _,
    sync::atomic::{AtomicU64, Ordering},
};

/// Most lines of a run.
const LINES: u64 = 20;

/// Those of them that tell the start, the end, and how many were left out.
const FRAME: u64 = 3;

/// Installs the logger. `live`: a terminal shows a picture of the run. `stages`: as many lines are kept free for them.
pub fn install(live: bool, stages: usize) {
    install_with(live, Some(stages));
}

/// Installs the logger of a program that runs for years: every line of information, or what `LAMPLIGHTER_LOG` asks for.
pub fn install_for_serve() {
    install_with(false, None);
}

fn install_with(live: bool, stages: Option<usize>) {
    let mut builder = env_logger::Builder::new();
    builder.filter_level(if live { log::LevelFilter::Warn } else { log::LevelFilter::Info });
    let asked = std::env::var("LAMPLIGHTER_LOG").ok().filter(|filter| !filter.is_empty());
    match &asked {
        Some(filter) => {
            builder.parse_filters(filter);
        }
        None if live => {
            builder.filter_module("lamplighter::job", log::LevelFilter::Info);
            builder.filter_module("lamplighter::child", log::LevelFilter::Info);
        }
        None => {}
    }
    let ink = screen::ink(&std::io::stderr());
    let budget = stages.filter(|_| !live && asked.is_none()).map(|stages| Budget::new(stages as u64));
    let plain = live && asked.is_none();
    let with_time = std::env::var_os("JOURNAL_STREAM").is_none();
    builder.target(env_logger::Target::Pipe(Box::new(LogLines)));
    builder.format(move |out, record| {
        let message = clean(&record.args().to_string());
        if plain {
            return writeln!(out, "{}", short(record, &message, ink));
        }
        let mut line = String::new();
        if with_time {
            let _ = write!(line, "{} ", out.timestamp_seconds());
        }
        if let Some(budget) = &budget {
            match budget.take(record, &message) {
                Take::Drop => return Ok(()),
                Take::Print => {}
                Take::Last(0) => {}
                Take::Last(dropped) => {
                    writeln!(
                        out,
                        "{line}INFO  {dropped} more lines were left out; LAMPLIGHTER_LOG=info shows them all"
                    )?;
                }
            }
        }
        let _ = write!(line, "{:<5} {message}", record.level());
        let _ = record.key_values().visit(&mut Fields(&mut line));
        writeln!(out, "{line}")
    });
    // A second logger in one process is a caller's matter; there is none here.
    let _ = builder.try_init();
}

/// What an author or a child says, or a warning, for somebody who watches.
fn short(record: &log::Record<'_>, message: &str, ink: Ink) -> String {
    let mut names = Names::default();
    let _ = record.key_values().visit(&mut names);
    match record.level() {
        log::Level::Error => format!("{} {message}", ink.paint(Tone::Bad, "error:")),
        log::Level::Warn => format!("{} {message}", ink.paint(Tone::Warn, "warning:")),
        _ => format!("{} {message}", ink.paint(Tone::Faint, &format!("{}:", names.0))),
    }
}

/// Stage and key of a record.
#[derive(Default)]
struct Names(String);

impl<'kvs> VisitSource<'kvs> for Names {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), log::kv::Error> {
        if matches!(key.as_str(), "stage" | "key") {
            if !self.0.is_empty() {
                self.0.push(' ');
            }
            self.0.push_str(&clean(&value.to_string()));
        }
        Ok(())
    }
}

/// How many lines of a run are left: some for its stages, the rest for all else.
struct Budget {
    stages: u64,
    others: u64,
    stage_lines: AtomicU64,
    other_lines: AtomicU64,
    dropped: AtomicU64,
}

enum Take {
    Print,
    Drop,
    /// The run ends, and so many lines were dropped.
    Last(u64),
}

impl Budget {
    fn new(stages: u64) -> Budget {
        let stages = stages.min(LINES - FRAME);
        let zero = || AtomicU64::new(0);
        Budget { stages, others: LINES - FRAME - stages, stage_lines: zero(), other_lines: zero(), dropped: zero() }
    }

    fn take(&self, record: &log::Record<'_>, message: &str) -> Take {
        let of_run = record.target() == "lamplighter::run" && record.level() == log::Level::Info;
        let (taken, most) = match message {
            _ if of_run && (message == "run started" || message == "run resumed") => {
                // Of several runs one after the other each has its own.
                for lines in [&self.stage_lines, &self.other_lines, &self.dropped] {
                    lines.store(0, Ordering::Relaxed);
                }
                return Take::Print;
            }
            _ if of_run && message.starts_with("run ended") => return Take::Last(self.dropped.load(Ordering::Relaxed)),
            _ if of_run => (&self.stage_lines, self.stages),
            // What is an error must be seen: those that are dropped are the harmless ones.
            _ if record.level() == log::Level::Error => return Take::Print,
            _ => (&self.other_lines, self.others),
        };
        if taken.fetch_add(1, Ordering::Relaxed) < most {
            return Take::Print;
        }
        self.dropped.fetch_add(1, Ordering::Relaxed);
        Take::Drop
    }
}

struct Fields<'a>(&'a mut String);

impl<'kvs> VisitSource<'kvs> for Fields<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), log::kv::Error> {
        let value = clean(&value.to_string());
        let _ = if value.is_empty() || value.contains([' ', '"', '=']) {
            write!(self.0, " {key}={value:?}")
        } else {
            write!(self.0, " {key}={value}")
        };
        Ok(())
    }
}

/// One event is one line, and cannot steer a terminal.
fn clean(text: &str) -> String {
    if text.chars().any(char::is_control) { lamplighter::problem::escape(text) } else { text.to_owned() }
}
