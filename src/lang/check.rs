//! The check of everything that is computed.
use super::{Filter, Flavor, Template};
use crate::item::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    path::{Path, PathBuf},
};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The job cannot run.
    Error,
    /// It can run, but probably not as meant.
    Remark,
}

/// One thing that a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// Place in the job: `stages[1].run[0].get`.
    pub path: String,
    /// Bytes inside the text at `path`.
    pub within: Option<Range<usize>>,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}

/// What exists where a text stands.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// The job's `params` with their defaults: an object.
    pub params: Value,
    /// `item`, `value` hold something: not in a source's first action, nor in a service.
    pub item: bool,
    /// `key` and `state` exist.
    pub key: bool,
    /// `items`, `failures`, `counts` exist.
    pub gather: bool,
    /// `response` holds something: after Http, and in its own filters.
    pub response: bool,
    /// `run` exists: everywhere but in a service.
    pub run: bool,
    /// `run.outcome`, `run.summary`, `run.report` exist.
    pub finish: bool,
    /// `run.after` exists: the job has `After(..)` in its schedule.
    pub after: bool,
    /// The columns of `item`, where they are known.
    pub item_fields: Option<Vec<String>>,
    /// The fields of `value`, where they are known; unknown after any action that gives something.
    pub value_fields: Option<Vec<String>>,
    /// `secret` exists.
    pub secrets: bool,
}

impl Scope {
    /// A worker stage.
    pub fn worker(params: Value) -> Scope {
        let _ = params;
        Scope::default()
    }

    /// A gather.
    pub fn gather(params: Value) -> Scope {
        let _ = params;
        Scope::default()
    }

    /// The actions of a source. After its first that gives values call `scope_mut().item = true`.
    pub fn source(params: Value) -> Scope {
        let _ = params;
        Scope::default()
    }

    /// The fields of a service: `params` and `secret`.
    pub fn service(params: Value) -> Scope {
        let _ = params;
        Scope::default()
    }

    /// The actions of `on_finish`.
    pub fn on_finish(params: Value) -> Scope {
        let _ = params;
        Scope::default()
    }
}

/// Collects what is wrong with the texts of a job.
pub struct Checker<'a> {
    base: &'a Path,
    scope: Scope,
    findings: Vec<Finding>,
    secrets: BTreeSet<String>,
    side: BTreeMap<String, String>,
}

impl<'a> Checker<'a> {
    /// A checker for a job whose file stands in `base`.
    pub fn new(base: &'a Path, scope: Scope) -> Checker<'a> {
        Checker { base, scope, findings: Vec::new(), secrets: BTreeSet::new(), side: BTreeMap::new() }
    }

    /// What exists where the next texts stand.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The same, to change it on the way through a job.
    pub fn scope_mut(&mut self) -> &mut Scope {
        &mut self.scope
    }

    /// Notes an error at `path`.
    pub fn error(&mut self, path: &str, message: impl Into<String>, help: Option<&str>) {
        self.within(path, None, Level::Error, message, help);
    }

    /// Notes a remark at `path`.
    pub fn remark(&mut self, path: &str, message: impl Into<String>, help: Option<&str>) {
        self.within(path, None, Level::Remark, message, help);
    }

    /// Notes a finding about some bytes of the text at `path`.
    pub fn within(
        &mut self,
        path: &str,
        within: Option<Range<usize>>,
        level: Level,
        message: impl Into<String>,
        help: Option<&str>,
    ) {
        self.findings.push(Finding {
            level,
            path: path.to_owned(),
            within,
            message: message.into(),
            help: help.map(str::to_owned),
        });
    }

    /// Checks a text that is a template and is expected to hold data: a bare `item.id` or `.id` is an error.
    pub fn template(&mut self, path: &str, text: &str, flavor: Flavor) -> Option<Template> {
        let _ = (path, text, flavor);
        None
    }

    /// Checks a text that is a template or, just as well, a plain text.
    pub fn template_or_literal(&mut self, path: &str, text: &str, flavor: Flavor) -> Option<Template> {
        let _ = (path, text, flavor);
        None
    }

    /// Checks a jq filter.
    pub fn filter(&mut self, path: &str, text: &str) -> Option<Filter> {
        let _ = (path, text);
        None
    }

    /// Reads and checks a template file; its flavor is that of its name.
    pub fn template_file(&mut self, path: &str, name: &str) -> Option<Template> {
        let _ = (path, name);
        None
    }

    /// Reads and checks a jq file.
    pub fn filter_file(&mut self, path: &str, name: &str) -> Option<Filter> {
        let _ = (path, name);
        None
    }

    /// Where a data file stands. That it is absent is a remark: it may come later.
    pub fn input(&mut self, path: &str, name: &str) -> PathBuf {
        let _ = path;
        self.base.join(name)
    }

    /// Folder of the job file.
    pub fn base_dir(&self) -> &Path {
        self.base
    }

    /// Names of all secrets that the templates use.
    pub fn secrets_used(&self) -> &BTreeSet<String> {
        &self.secrets
    }

    /// The contents of all template and jq files, by the names that the job gives them.
    pub fn side_files(&self) -> &BTreeMap<String, String> {
        &self.side
    }

    /// True when nothing that was found is an error.
    pub fn is_ok(&self) -> bool {
        self.findings.iter().all(|finding| finding.level != Level::Error)
    }

    /// Everything that was found, in the order in which it was found.
    pub fn into_findings(self) -> Vec<Finding> {
        self.findings
    }
}
