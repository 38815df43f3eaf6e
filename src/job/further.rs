//! What else is wrong with a job file of which some fields cannot be read: everything that is certain without them.
//!
//! Called when a file was refused for its fields alone. An error that may only come from what was taken out is not said:
//! one mistake is one problem.

use super::{JobSpec, Surroundings, check};
use crate::{
    lang::{Finding, Level},
    problem::{Problem, Spared},
};
use std::path::Path;

/// Errors of meaning, with their places in the file.
pub fn check(name: &str, spared: &Spared<JobSpec>, base_dir: &Path, surroundings: &Surroundings) -> Vec<Problem> {
    let gone = Gone::new(&spared.removed);
    let findings = check::findings(name, &spared.value, base_dir, surroundings, (gone.params, gone.schedule));
    let certain = findings.into_iter().filter(|finding| gone.leaves(finding)).collect();
    check::in_order(certain, &spared.source)
}

/// What was taken out, by what depends on it.
struct Gone<'a> {
    removed: &'a [String],
    /// A field of the job that is not known: it could be any.
    unknown: bool,
    params: bool,
    schedule: bool,
    services: bool,
    deadlines: bool,
}

impl Gone<'_> {
    fn new(removed: &[String]) -> Gone<'_> {
        let known = |field: &str| JobSpec::schema().fields.iter().any(|known| known.name == field);
        let unknown = removed.iter().any(|path| !path.contains(['.', '[']) && !known(path));
        let begins = |root: &str| removed.iter().any(|path| first(path) == root) || unknown;
        Gone {
            removed,
            unknown,
            params: begins("params"),
            schedule: begins("schedule"),
            services: begins("services"),
            deadlines: unknown || removed.iter().any(|path| path.ends_with("deadline")),
        }
    }

    /// True for an error that stands whatever the fields said that were taken out.
    fn leaves(&self, finding: &Finding) -> bool {
        let path = finding.path.trim_end_matches('#');
        if finding.level != Level::Error || path.is_empty() {
            return false;
        }
        let last = path.rsplit('.').next().unwrap_or(path);
        let plain = !path.contains(['.', '[']);
        if self.unknown && plain && !matches!(path, "timezone" | "schedule") {
            return false;
        }
        if self.services && last == "via" {
            return false;
        }
        if self.deadlines && matches!(last, "deadline" | "item_deadline" | "timeout") {
            return false;
        }
        self.removed.iter().all(|removed| {
            let (parent, field) = removed.rsplit_once('.').unwrap_or(("", removed));
            if parent.is_empty() {
                return first(path) != first(removed);
            }
            let inside = path.strip_prefix(parent).is_some_and(|rest| rest.starts_with(['.', '[']) || rest.is_empty());
            if !inside {
                return true;
            }
            if is_stage(parent) {
                // What a stage is decides what its texts may use.
                return !matters(field);
            }
            // Inside an action or service only its texts are certain.
            finding.within.is_some()
        })
    }
}

/// The first step of a path.
fn first(path: &str) -> &str {
    path.split(['.', '[']).next().unwrap_or(path)
}

/// `stages[3]`, and nothing in it.
fn is_stage(path: &str) -> bool {
    path.strip_prefix("stages[").and_then(|rest| rest.strip_suffix(']')).is_some_and(|rest| !rest.contains(['.', '[']))
}

/// Fields of a stage without which nothing is certain in it; a field that is not known could be one of them.
fn matters(field: &str) -> bool {
    let known = super::StageSpec::schema().fields.iter().any(|known| known.name == field);
    !known || matches!(field, "from" | "gather" | "run")
}
