//! What can be asked, and what is answered: plain data.

use crate::{
    action::Said,
    daemon::{Overview, Refusal, RunWish, Which},
    item::RunRecord,
    query::{Form, HistoryQuestion, LogsQuestion, ShowQuestion},
    run::Progress,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf};

/// What is asked of a daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// All jobs, and how they are: [`Answer::Overview`].
    Overview,
    /// The same without their last runs, which the state is not asked for: whether they are overdue is not told either.
    List,
    /// Runs a job now: [`Answer::Begun`], and where it is followed what a [`Follow`] brings.
    Run {
        /// Which, and how.
        wish: RunWish,
        /// `None`: the run is begun, and left alone.
        #[serde(default)]
        follow: Option<Follow>,
        /// What whoever asks names: where the daemon has something else, the run is refused.
        #[serde(default)]
        named: Whereabouts,
    },
    /// Repeats a run that has ended; answered as `Run`.
    Retry {
        /// Its id, or a job: its last run.
        run: String,
        /// Held items too.
        held: bool,
        /// As of `Run`.
        #[serde(default)]
        follow: Option<Follow>,
        /// As of `Run`.
        #[serde(default)]
        named: Whereabouts,
    },
    /// Cancels a run that lives: [`Answer::Names`], its id.
    Cancel {
        /// Its id, or a job.
        run: String,
        /// Completes "cancelled by ..".
        by: String,
        /// What is left of it is killed now.
        #[serde(default)]
        kill: bool,
    },
    /// Nothing of these jobs starts by schedule: [`Answer::Names`] of them.
    Pause {
        /// Which.
        which: Which,
        /// Until then, or until they are resumed.
        #[serde(default)]
        until: Option<Timestamp>,
    },
    /// Their schedules count again: [`Answer::Names`] of them.
    Resume {
        /// Which.
        which: Which,
    },
    /// Reads changed job files now: [`Answer::Problems`].
    Reload,
    /// The runs that are kept: the pieces of `lamplighter history`, then [`Answer::Done`].
    History(HistoryQuestion, Form),
    /// One of them, in the same way.
    Show(ShowQuestion, Form),
    /// What it said, in the same way.
    Logs(LogsQuestion, Form),
}

/// How a run is followed: until its end its lines come as [`Answer::Said`], then [`Answer::Ended`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Follow {
    /// Debug lines too.
    pub debug: bool,
    /// Where it stands comes some times a second, as [`Answer::Progress`].
    pub picture: bool,
}

/// Where a daemon has its things, or where whoever asks it takes them to be: absolute paths without links, as they are told.
/// `None` is what a daemon has not, and what whoever asks does not name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Whereabouts {
    /// File of the configuration.
    pub config: Option<String>,
    /// Folder of the job files.
    pub jobs: Option<String>,
    /// Folder below which outputs are written.
    pub out: Option<String>,
}

impl Whereabouts {
    /// Whether a daemon that is here has all that is named.
    ///
    /// # Errors
    /// A sentence with both where they differ.
    pub(super) fn has(&self, named: &Whereabouts) -> Result<(), String> {
        let pairs = [
            ("the configuration", &self.config, &named.config),
            ("the job folder", &self.jobs, &named.jobs),
            ("the folder of outputs", &self.out, &named.out),
        ];
        let differs = |(what, own, named): (&str, &Option<String>, &Option<String>)| {
            let named = named.as_deref().filter(|named| own.as_deref() != Some(*named))?;
            let own = own.as_deref().unwrap_or("no one at all");
            Some(format!("{what} is {named} here, and the `serve` that holds the state has {own}"))
        };
        let differing: Vec<String> = pairs.into_iter().filter_map(differs).collect();
        match differing.is_empty() {
            true => Ok(()),
            false => {
                let help = "name what it has, or run a job here by `run --no-state`, or name another state";
                Err(format!("{}: {help}", differing.join("; ")))
            }
        }
    }
}

/// One line of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// All jobs.
    Overview(Overview),
    /// A run has begun, which is on the disk.
    Begun(Begun),
    /// Where a run that is followed stands.
    Progress(Progress),
    /// A line of its log.
    Said(Said),
    /// How it ended, which is on the disk unless its record says otherwise.
    Ended(Box<RunRecord>),
    /// What was done was done to these.
    Names(Vec<String>),
    /// Jobs whose files have errors, and what is wrong with them.
    Problems(BTreeMap<String, String>),
    /// A part of an answer that goes to stdout as it is.
    Text(String),
    /// A line about it.
    Note(String),
    /// It was whole.
    Done,
    /// What was asked was not done.
    Refused(Refusal),
    /// The state failed: a sentence.
    Failed(String),
}

/// A run has begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// Its id.
    pub run: String,
    /// Name of its job.
    pub job: String,
    /// Root of its outputs, an absolute path.
    pub out: PathBuf,
    /// Stages that are shown of it.
    pub stages: usize,
}

impl Answer {
    /// True when another one follows, if nothing is cut off. `follows`: the request wants the run to be followed.
    pub fn is_more(&self, follows: bool) -> bool {
        match self {
            Answer::Begun(_) => follows,
            Answer::Progress(_) | Answer::Said(_) | Answer::Text(_) | Answer::Note(_) => true,
            Answer::Overview(_)
            | Answer::Ended(_)
            | Answer::Names(_)
            | Answer::Problems(_)
            | Answer::Done
            | Answer::Refused(_)
            | Answer::Failed(_) => false,
        }
    }
}

impl Request {
    /// Whether a run is followed to its end.
    pub fn follows(&self) -> bool {
        match self {
            Request::Run { follow, .. } | Request::Retry { follow, .. } => follow.is_some(),
            _ => false,
        }
    }

    /// Whether its connection stays for as long as something goes on, and may be silent meanwhile.
    pub fn stays(&self) -> bool {
        self.follows() || matches!(self, Request::Logs(question, _) if question.follow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_lines_that_a_person_can_write() {
        let read = |text: &str| serde_json::from_str::<Request>(text);
        assert_eq!(read(r#""overview""#).ok(), Some(Request::Overview));
        let wish = RunWish { job: "nightly".into(), trigger: "api".into(), ..RunWish::default() };
        let run = read(r#"{"run": {"wish": {"job": "nightly", "trigger": "api"}}}"#);
        assert_eq!(run.ok(), Some(Request::Run { wish, follow: None, named: Whereabouts::default() }));
        let cancel = read(r#"{"cancel": {"run": "nightly", "by": "a test"}}"#);
        assert_eq!(cancel.ok(), Some(Request::Cancel { run: "nightly".into(), by: "a test".into(), kill: false }));
        for wrong in ["", "{}", "null", "overview", r#"{"run": {"definition": "Job()"}}"#, r#"{"cancel": {"run": 1}}"#]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn answers_are_read_back_as_they_were() {
        let answers = [
            Answer::Done,
            Answer::Text("a\nb\u{0}".into()),
            Answer::Refused(Refusal::Stopping),
            Answer::Begun(Begun { run: "r".into(), job: "j".into(), out: "/out".into(), stages: 3 }),
        ];
        for answer in answers {
            let line = serde_json::to_string(&answer).expect("JSON");
            assert!(!line.contains('\n'), "an answer is one line: {line}");
            assert_eq!(serde_json::from_str::<Answer>(&line).expect("the same"), answer);
        }
    }
}
