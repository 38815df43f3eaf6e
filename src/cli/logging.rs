//! The logger: one line an event, `time level message key=value`, to stderr.

use log::kv::{Key, Value, VisitSource};
use std::{fmt::Write as _, io::Write as _};

/// Installs the logger. `quiet` shows warnings only (a terminal that shows progress); `LAMPLIGHTER_LOG` decides otherwise.
pub fn install(quiet: bool) {
    let mut builder = env_logger::Builder::new();
    builder.filter_level(if quiet { log::LevelFilter::Error } else { log::LevelFilter::Info });
    if let Ok(filter) = std::env::var("LAMPLIGHTER_LOG") {
        builder.parse_filters(&filter);
    }
    let with_time = std::env::var_os("JOURNAL_STREAM").is_none();
    builder.format(move |out, record| {
        let mut line = String::new();
        if with_time {
            let _ = write!(line, "{} ", out.timestamp_seconds());
        }
        let _ = write!(line, "{:<5} {}", record.level(), clean(&record.args().to_string()));
        let _ = record.key_values().visit(&mut Fields(&mut line));
        writeln!(out, "{line}")
    });
    // A second logger in one process is a caller's matter; there is none here.
    let _ = builder.try_init();
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
