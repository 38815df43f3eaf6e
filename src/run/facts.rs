//! What `run.…` says in templates and jq.

use super::options::After;
use crate::item::Value;
use jiff::{Timestamp, ToSpan, tz::TimeZone};
use serde_json::json;
use std::path::{Path, PathBuf};

/// The identity of a run, as its texts see it.
pub struct RunIdentity<'a> {
    pub id: &'a str,
    pub job: &'a str,
    pub due: Timestamp,
    pub started: Timestamp,
    pub zone: &'a TimeZone,
    pub out: &'a Path,
    pub jobs: &'a Path,
    /// Which pass of the run this is, from 1.
    pub attempt: u32,
    /// What came before, where it starts after another.
    pub after: Option<&'a After>,
}

impl RunIdentity<'_> {
    /// The object `run`.
    pub fn facts(&self) -> Value {
        let date = self.due.to_zoned(self.zone.clone()).date();
        let night = date.checked_sub(1.day()).unwrap_or(date);
        let mut facts = json!({
            "id": self.id,
            "job": self.job,
            "due": rfc3339(self.due, self.zone),
            "started": rfc3339(self.started, self.zone),
            "date": date.to_string(),
            "night": night.to_string(),
            "attempt": self.attempt,
            "out": absolute(self.out).to_string_lossy(),
            "jobs": absolute(self.jobs).to_string_lossy(),
            "host": rustix::system::uname().nodename().to_string_lossy(),
        });
        if let Some(after) = self.after {
            facts["after"] = json!(after);
        }
        facts
    }
}

/// The same place from any folder: a child does not run where this program does.
pub fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// An instant in a zone, with its offset, to the second: `2026-11-23T02:30:00+08:00`.
pub fn rfc3339(instant: Timestamp, zone: &TimeZone) -> String {
    instant.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
}

/// An id that sorts by time and names its run everywhere: `20261123T023000Z-1f0c9a4b`.
pub fn new_id(started: Timestamp, random: u64) -> String {
    format!("{}-{:08x}", started.strftime("%Y%m%dT%H%M%SZ"), random >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_night_is_the_day_before_the_local_date_of_the_due_time() {
        let zone = TimeZone::get("Asia/Shanghai").expect("a zone of the tz database");
        let due: Timestamp = "2026-11-22T18:30:00Z".parse().expect("a timestamp");
        let identity = RunIdentity {
            id: "r",
            job: "j",
            due,
            started: due,
            zone: &zone,
            out: Path::new("out"),
            jobs: Path::new("jobs"),
            attempt: 1,
            after: None,
        };
        let facts = identity.facts();
        assert_eq!(facts["date"], "2026-11-23");
        assert_eq!(facts["night"], "2026-11-22");
        assert_eq!(facts["due"], "2026-11-23T02:30:00+08:00");
        let is_absolute = |name: &str| facts[name].as_str().is_some_and(|path| Path::new(path).is_absolute());
        assert!(is_absolute("out") && is_absolute("jobs"), "{facts}");
        assert_eq!(new_id(due, u64::MAX), "20261122T183000Z-ffffffff");
    }
}
