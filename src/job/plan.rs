//! What we run: a job whose every text was compiled and whose every relation holds.

use crate::{
    action::Checked,
    item::{RunOutcome, Value},
    lang::Template,
    schedule::{Overlap, Timing},
    service::{Retry, ServicePlan},
    units::Tolerance,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

/// A checked job. Immutable; runs share it.
pub struct Job {
    /// The file's stem.
    pub name: Arc<str>,
    /// For people.
    pub description: Option<String>,
    /// Folder of the job file: its inputs are relative to it.
    pub base_dir: PathBuf,
    /// When it starts.
    pub timing: Timing,
    /// The zone of its dates.
    pub zone: jiff::tz::TimeZone,
    /// Of a run, from its start.
    pub deadline: Duration,
    /// Defaults; `--set` replaces them.
    pub params: Value,
    /// Services that its actions name, each once.
    pub services: Vec<ServicePlan>,
    /// In the order of the file; `from` and `readers` are places in this list.
    pub stages: Vec<Stage>,
    /// Some action is `Keep`: items see what earlier dues kept.
    pub keeps: bool,
    /// What is asked when a run begins; empty: nothing.
    pub start_ping: Vec<Checked>,
    /// What is done after a run: its notices, then its pings.
    pub on_finish: Vec<Notice>,
    /// Dated folders that its runs wrote are removed after this.
    pub keep_out: Option<Duration>,
    /// Secrets that its texts name.
    pub secrets: BTreeSet<String>,
    /// Data files that it reads, as far as they are known before a run.
    pub inputs: Vec<PathBuf>,
    /// The text of the job file.
    pub text: String,
    /// Side files (jq, templates) by the name that the job gives them.
    pub side_files: BTreeMap<String, String>,
}

/// A checked stage.
pub struct Stage {
    /// Unique in the job.
    pub name: Arc<str>,
    /// What kind of stage it is.
    pub kind: StageKind,
    /// Made by us to feed the short form `run: [..]`: it is not shown.
    pub hidden: bool,
    /// Places of the stages that it reads.
    pub from: Vec<u16>,
    /// Places of the stages that read it.
    pub readers: Vec<u16>,
    /// In sequence on one item.
    pub actions: Vec<Checked>,
    /// Names what is listed (source) or adds a part at a fan-out.
    pub key: Option<Template>,
    /// Items worked on at once.
    pub workers: usize,
    /// Items that may wait outside the workers.
    pub waiting: usize,
    /// Capacity of the channel before it; 0 = hand over.
    pub buffer: usize,
    /// Results leave in the order of arrival.
    pub ordered: bool,
    /// Of one attempt, time with a work permit only.
    pub timeout: Option<Duration>,
    /// Of an item with all its attempts and waits.
    pub item_deadline: Option<Duration>,
    /// Of the stage, from its first item taken.
    pub deadline: Option<Duration>,
    /// At its deadline the stage takes no more and the run goes on; else the run ends.
    pub on_deadline_continue: bool,
    /// Of attempts that fail without a service.
    pub retry: Option<Retry>,
    /// How much may be missing.
    pub tolerate: Tolerance,
    /// Cancel the run as soon as more is missing.
    pub fail_fast: bool,
    /// Fewer items fail the run.
    pub min_items: u64,
    /// Bytes of JSON that one item may give.
    pub max_value: u64,
    /// An attempt that was under way at a crash is not repeated.
    pub holds: bool,
}

/// The kinds of stages.
pub enum StageKind {
    /// Runs once and lists.
    Source,
    /// Works on the items of one stage.
    Worker,
    /// Works on one group made of everything.
    GatherAll,
    /// Works on one group for each distinct text.
    GatherBy(Template),
}

/// A notice of `on_finish`, or a ping of an end.
pub struct Notice {
    /// The field that asks for it, as in `on_finish[0]` or `ping.success`.
    pub field: Arc<str>,
    /// It is sent after a run that ended so.
    pub when: BTreeSet<RunOutcome>,
    /// It is sent of a time at which no run was started.
    pub missed: bool,
    /// In sequence.
    pub actions: Vec<Checked>,
}

impl Notice {
    /// It is a ping.
    pub fn is_ping(&self) -> bool {
        self.field.starts_with("ping.")
    }
}

impl Stage {
    /// True for `GatherAll` and `GatherBy`.
    pub fn is_gather(&self) -> bool {
        matches!(self.kind, StageKind::GatherAll | StageKind::GatherBy(_))
    }

    /// True for a source.
    pub fn is_source(&self) -> bool {
        matches!(self.kind, StageKind::Source)
    }
}

impl Job {
    /// How many runs of it there may be at a time.
    pub fn runs_at_once(&self) -> u32 {
        match self.timing.overlap {
            Overlap::Allow(max) => max,
            Overlap::Skip | Overlap::Queue | Overlap::Replace => 1,
        }
    }

    /// Places of all stages that feed the stage at `place`, directly or further up, in order.
    pub fn ancestors(&self, place: u16) -> Vec<u16> {
        let mut seen = BTreeSet::new();
        let mut open = self.stages[usize::from(place)].from.clone();
        while let Some(next) = open.pop() {
            if seen.insert(next) {
                open.extend(&self.stages[usize::from(next)].from);
            }
        }
        seen.into_iter().collect()
    }

    /// Places of the notices that are sent after a run that ended so.
    pub fn notices_after(&self, outcome: RunOutcome) -> Vec<u16> {
        let asked = self.on_finish.iter().enumerate().filter(|(_, notice)| notice.when.contains(&outcome));
        asked.map(|(place, _)| place as u16).collect()
    }

    /// Places of the notices that are sent of a time at which no run was started.
    pub fn notices_of_missed(&self) -> Vec<u16> {
        let asked = self.on_finish.iter().enumerate().filter(|(_, notice)| notice.missed);
        asked.map(|(place, _)| place as u16).collect()
    }

    /// The stage that people mean by `name`.
    pub fn stage_place(&self, name: &str) -> Option<u16> {
        self.stages.iter().position(|stage| &*stage.name == name && !stage.hidden).map(|place| place as u16)
    }
}
