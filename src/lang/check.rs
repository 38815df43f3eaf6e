//! The check of everything that authors compute: collects what is wrong with the texts of a job, each with its place.
//!
//! `service`, `action` and `job` hand their texts to a [`Checker`] and get compiled ones back. It is the only part of this
//! room that reads files: templates and jq files that a job names.

use super::{Filter, Flavor, LangError, Template};
use crate::{item::Value, limits::FILE_BYTES_MAX};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Read as _,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
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
    /// The params are those of jobs that are not known here: any name may exist.
    pub any_params: bool,
    /// `item` holds something: in a worker stage, and in the `key` of a source.
    pub item: bool,
    /// `key` and `state` exist.
    pub key: bool,
    /// `items`, `failures`, `counts` exist.
    pub gather: bool,
    /// `response` holds something: after Http, and in its own filters.
    pub response: bool,
    /// `run` and `value` exist: everywhere but in a service.
    pub run: bool,
    /// `run.outcome`, `run.summary`, `run.report` exist.
    pub finish: bool,
    /// `run.after` exists: the job has `After(..)` in its schedule.
    pub after: bool,
    /// The columns of `item`, where they are known.
    pub item_fields: Option<Vec<String>>,
    /// The fields of `value`, where they are known; an action that gives something makes them unknown.
    pub value_fields: Option<Vec<String>>,
    /// `secret` exists.
    pub secrets: bool,
}

impl Scope {
    /// A worker stage. `response` is to be set after an Http action.
    pub fn worker(params: Value) -> Scope {
        Scope { params, item: true, key: true, run: true, secrets: true, ..Scope::default() }
    }

    /// A gather: `item` is null in it, what it works on are `items`.
    pub fn gather(params: Value) -> Scope {
        Scope { item: false, gather: true, ..Scope::worker(params) }
    }

    /// The actions of a source: `item` is null in them, and there is no key yet. For its `key` set `item` and leave it.
    pub fn source(params: Value) -> Scope {
        Scope { item: false, key: false, ..Scope::worker(params) }
    }

    /// The fields of a service: `params` and `secret`. For OAuth2's `account` and `refresh_token` set `item`.
    pub fn service(params: Value) -> Scope {
        Scope { params, secrets: true, ..Scope::default() }
    }

    /// The actions of `on_finish`.
    pub fn on_finish(params: Value) -> Scope {
        Scope { finish: true, ..Scope::source(params) }
    }

    /// Variables that a template can use here.
    fn variables(&self) -> Vec<&'static str> {
        let known = [
            ("item", self.item),
            ("value", self.run),
            ("key", self.key),
            ("params", true),
            ("run", self.run),
            ("state", self.key),
            ("response", self.response),
            ("secret", self.secrets),
            ("items", self.gather),
            ("failures", self.gather),
            ("counts", self.gather),
        ];
        known.into_iter().filter(|(_, here)| *here).map(|(name, _)| name).collect()
    }

    fn run_fields(&self) -> Vec<&'static str> {
        let mut fields = vec!["id", "job", "due", "started", "date", "night", "attempt", "out", "jobs", "host"];
        if self.finish {
            fields.extend(["outcome", "summary", "report"]);
        }
        if self.after {
            fields.push("after");
        }
        fields
    }
}

/// Whether some template or filter of a job reads `response`: if none does, no head of an answer need be made. Clones
/// share it: it is known only when all texts are checked, and actions ask while they work.
#[derive(Clone, Default)]
pub struct ReadsResponse(Arc<AtomicBool>);

impl ReadsResponse {
    /// Some text does.
    pub fn note(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Some text does, as far as they are checked.
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Collects what is wrong with the texts of a job.
pub struct Checker<'a> {
    base: &'a Path,
    scope: Scope,
    findings: Vec<Finding>,
    secrets: BTreeSet<String>,
    side: BTreeMap<String, String>,
    inputs: Vec<PathBuf>,
    reads_response: ReadsResponse,
    kept: Option<&'a BTreeMap<String, String>>,
}

impl<'a> Checker<'a> {
    /// A checker for a job whose file stands in `base`.
    pub fn new(base: &'a Path, scope: Scope) -> Checker<'a> {
        Checker {
            base,
            scope,
            findings: Vec::new(),
            secrets: BTreeSet::new(),
            side: BTreeMap::new(),
            inputs: Vec::new(),
            reads_response: ReadsResponse::default(),
            kept: None,
        }
    }

    /// Takes template and jq files from what was kept with a run, by their names, and reads none.
    pub fn with_kept_files(self, files: &'a BTreeMap<String, String>) -> Checker<'a> {
        Checker { kept: Some(files), ..self }
    }

    /// Notes in `reads_response` whether a text reads the head of an answer.
    pub fn with_reads_response(self, reads_response: ReadsResponse) -> Checker<'a> {
        Checker { reads_response, ..self }
    }

    /// Whether a text of the job reads the head of an answer; final when the whole job is checked.
    pub fn reads_response(&self) -> &ReadsResponse {
        &self.reads_response
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
        let (path, message, help) = (path.to_owned(), message.into(), help.map(str::to_owned));
        self.findings.push(Finding { level, path, within, message, help });
    }

    /// Checks a text that is a template and is expected to hold data, such as a `key`: a bare `item.id` or `.id` is an
    /// error, any other text without data a remark. `None` when there were errors.
    pub fn template(&mut self, path: &str, text: &str, flavor: Flavor) -> Option<Template> {
        if let Some(right) = bare(text) {
            let message = format!("`{}` is a plain text here, not a value", text.trim());
            self.error(path, message, Some(&format!("write {right}")));
            return None;
        }
        let template = self.compile(path, text, flavor)?;
        if template.is_literal() {
            self.remark(path, "this text is the same for every item", Some("write a value as {{ item.id }}"));
        }
        Some(template)
    }

    /// Checks a text that is a template or a plain text, in a place where a bare `.id` or `item.id` is hardly ever meant
    /// as it stands: that is an error. `None` when there were errors.
    pub fn text(&mut self, path: &str, text: &str, flavor: Flavor) -> Option<Template> {
        if let Some(right) = bare(text) {
            let message = format!("`{}` is a plain text here, not a value", text.trim());
            let help = format!("write {right}; if the text itself is meant {{{{ {:?} }}}}", text.trim());
            self.error(path, message, Some(&help));
            return None;
        }
        self.compile(path, text, flavor)
    }

    /// Checks a text that is a template or, just as well, a plain text, also one like `.gz` or `items.csv`: an argument,
    /// the name of a file. `None` when there were errors.
    pub fn template_or_literal(&mut self, path: &str, text: &str, flavor: Flavor) -> Option<Template> {
        if (text.starts_with(['.', '$', '{']) || text.starts_with("item."))
            && let Some(right) = bare(text)
        {
            let message = format!("`{}` is a plain text here, not a value", text.trim());
            self.remark(path, message, Some(&format!("write {right} if the value is meant")));
        }
        self.compile(path, text, flavor)
    }

    /// Checks a jq filter. `None` when there were errors.
    pub fn filter(&mut self, path: &str, text: &str) -> Option<Filter> {
        if let Some(at) = text.find("{{") {
            let end = text[at..].find("}}").map_or(text.len(), |end| at + end + 2);
            let help = jq_of(&text[at..end]).map(|jq| format!("write {jq}"));
            let message = "this field is a jq filter, not a template";
            self.within(path, Some(at..end), Level::Error, message, help.as_deref());
            return None;
        }
        match Filter::compile(text, None) {
            Err(errors) => {
                for e in errors.into_iter().map(with_filter_help) {
                    self.within(path, e.range, Level::Error, e.message, e.help.as_deref());
                }
                None
            }
            Ok(filter) => {
                self.note_filter(&filter);
                for e in self.filter_problems(&filter) {
                    self.within(path, e.1.range, e.0, e.1.message, e.1.help.as_deref());
                }
                (!self.misplaced(&filter)).then_some(filter)
            }
        }
    }

    /// Reads and checks a template file; its flavor is that of its name. `None` when there were errors.
    pub fn template_file(&mut self, path: &str, name: &str) -> Option<Template> {
        let text = self.side_file(path, name)?;
        let (template, problems) = match Template::compile(&text, Flavor::of_file(name)) {
            Err(e) => (None, vec![e]),
            Ok(template) => {
                let problems = self.variable_problems(&template);
                self.note_response(&template);
                self.secrets.extend(template.secrets_used().iter().cloned());
                (problems.is_empty().then_some(template), problems)
            }
        };
        for e in problems {
            self.file_finding(path, name, &text, Level::Error, with_template_help(e));
        }
        template
    }

    /// Reads and checks a jq file. `None` when there were errors.
    pub fn filter_file(&mut self, path: &str, name: &str) -> Option<Filter> {
        let text = self.side_file(path, name)?;
        match Filter::compile(&text, Some(name)) {
            Err(errors) => {
                for e in errors.into_iter().map(with_filter_help) {
                    self.file_finding(path, name, &text, Level::Error, e);
                }
                None
            }
            Ok(filter) => {
                self.note_filter(&filter);
                for (level, e) in self.filter_problems(&filter) {
                    self.file_finding(path, name, &text, level, e);
                }
                (!self.misplaced(&filter)).then_some(filter)
            }
        }
    }

    /// Where a data file stands. That it is absent is a remark: it may come later.
    pub fn input(&mut self, path: &str, name: &str) -> PathBuf {
        let file = self.base.join(name);
        if !file.exists() {
            let help = match self.similar(&file) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "put it there before the job runs: names are relative to the job file's folder".to_owned(),
            };
            self.remark(path, format!("there is no file {} yet", file.display()), Some(&help));
        }
        self.inputs.push(file.clone());
        file
    }

    /// The data files that are read, as far as they are known before a run.
    pub fn inputs(&self) -> &[PathBuf] {
        &self.inputs
    }

    /// Folder of the job file.
    pub fn base_dir(&self) -> &Path {
        self.base
    }

    /// Names of all secrets that the templates use.
    pub fn secrets_used(&self) -> &BTreeSet<String> {
        &self.secrets
    }

    /// The contents of all template and jq files, by the names that the job gives them; of one that cannot be read nothing.
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

    fn compile(&mut self, path: &str, text: &str, flavor: Flavor) -> Option<Template> {
        let problems = match Template::compile(text, flavor) {
            Err(e) => vec![e],
            Ok(template) => {
                self.note_response(&template);
                self.secrets.extend(template.secrets_used().iter().cloned());
                match self.variable_problems(&template) {
                    none if none.is_empty() => return Some(template),
                    problems => problems,
                }
            }
        };
        for e in problems {
            let e = with_template_help(e);
            self.within(path, e.range, Level::Error, e.message, e.help.as_deref());
        }
        None
    }

    fn note_response(&self, template: &Template) {
        if template.variables().iter().any(|name| name.split('.').next() == Some("response")) {
            self.reads_response.note();
        }
    }

    fn note_filter(&self, filter: &Filter) {
        if filter.source().contains("$response") {
            self.reads_response.note();
        }
    }

    /// Variables of a template that do not exist here.
    fn variable_problems(&self, template: &Template) -> Vec<LangError> {
        let problem = |variable: &String| {
            if template.asks_for(variable) {
                return None;
            }
            let (message, help) = self.variable_problem(variable)?;
            Some(LangError { message, help, range: template.find(variable) })
        };
        template.variables().iter().filter_map(problem).collect()
    }

    fn variable_problem(&self, variable: &str) -> Option<(String, Option<String>)> {
        let scope = &self.scope;
        let mut parts = variable.split('.');
        let root = parts.next().unwrap_or_default();
        let rest: Vec<&str> = parts.collect();
        let here = scope.variables();
        if !here.contains(&root) {
            return self.absent(root, variable, &here);
        }
        let field = *rest.first()?;
        match root {
            "params" if scope.any_params => None,
            "params" => {
                let mut value = &scope.params;
                for (depth, part) in rest.iter().enumerate() {
                    let fields = match value {
                        Value::Object(fields) => fields,
                        Value::Null if depth == 0 => return unknown_field("params", part, &[]),
                        _ => return None,
                    };
                    match fields.get(*part) {
                        Some(inner) => value = inner,
                        None => {
                            let names: Vec<&str> = fields.keys().map(String::as_str).collect();
                            let of = std::iter::once("params").chain(rest[..depth].iter().copied());
                            return unknown_field(&of.collect::<Vec<_>>().join("."), part, &names);
                        }
                    }
                }
                None
            }
            "run" if !scope.run_fields().contains(&field) => match field {
                "outcome" | "summary" | "report" => {
                    let help = "move this action into `on_finish: [Notify(run: [..])]`".to_owned();
                    Some((format!("`run.{field}` exists in `on_finish` only"), Some(help)))
                }
                "after" => {
                    let help = "write `schedule: After(job: \"nightly-vitals\")`, or leave this out".to_owned();
                    Some(("`run.after` exists in a job with `schedule: After(..)` only".into(), Some(help)))
                }
                _ => unknown_field("run", field, &scope.run_fields()),
            },
            "run" if field == "after" => match rest.get(1) {
                Some(part) if !["job", "id", "outcome"].contains(part) => {
                    unknown_field("run.after", part, &["job", "id", "outcome"])
                }
                _ => None,
            },
            "response" if !["status", "headers", "sha256"].contains(&field) => {
                unknown_field("response", field, &["status", "headers", "sha256"])
            }
            "item" => known_field("item", field, scope.item_fields.as_deref()),
            "value" => known_field("value", field, scope.value_fields.as_deref()),
            _ => None,
        }
    }

    /// Says why a variable does not exist here.
    fn absent(&self, root: &str, variable: &str, here: &[&str]) -> Option<(String, Option<String>)> {
        let scope = &self.scope;
        let exist = format!("here exist {}", here.join(", "));
        let (message, help) = match root {
            // Null, and asked for as a whole: nothing is wrong.
            "item" | "response" if scope.run && variable == root => return None,
            "items" | "failures" | "counts" => (format!("`{root}` exists in a gather only"), exist),
            _ if !scope.run && KNOWN.contains(&root) => {
                (format!("`{root}` does not exist in a service: it is the same for all items"), exist)
            }
            "item" if scope.gather => (
                "`item` is null in a gather".to_owned(),
                "write {% for i in items %} … {{ i.id }} … {% endfor %}".to_owned(),
            ),
            "item" if scope.finish => ("`item` is null in `on_finish`".to_owned(), exist),
            "item" => (
                "`item` is null in the actions of a source".to_owned(),
                "what the action before gave is `value`".to_owned(),
            ),
            "response" => ("`response` is null here: no Http action stands before".to_owned(), exist),
            "key" | "state" => (format!("`{root}` does not exist here: there is no item yet"), exist),
            _ => {
                let help = near(root, here.iter().copied()).map_or(exist, |near| format!("did you mean `{near}`?"));
                (format!("there is no variable `{root}`"), help)
            }
        };
        Some((message, Some(help)))
    }

    /// Uses of `items` outside a gather (errors), of params and run fields that do not exist (remarks: jq gives null).
    fn filter_problems(&self, filter: &Filter) -> Vec<(Level, LangError)> {
        let mut problems = Vec::new();
        if self.misplaced(filter) {
            for range in filter.group_uses() {
                let name = &filter.source()[range.clone()];
                let help = format!("write .{name} for a field of the value, $item.{name} for one of the item");
                let message = format!("`{name}` exists in a gather only");
                problems.push((Level::Error, LangError { message, help: Some(help), range: Some(range.clone()) }));
            }
        }
        let params: Vec<&str> =
            self.scope.params.as_object().map_or(Vec::new(), |p| p.keys().map(String::as_str).collect());
        for (root, fields) in [("params", params), ("run", self.scope.run_fields())] {
            if root == "params" && self.scope.any_params {
                continue;
            }
            for (name, range) in fields_of(filter.source(), &format!("${root}.")) {
                if let Some((message, help)) =
                    unknown_field(&format!("${root}"), name, &fields).filter(|_| !fields.contains(&name))
                {
                    problems.push((Level::Remark, LangError { message, help, range: Some(range) }));
                }
            }
        }
        problems
    }

    fn misplaced(&self, filter: &Filter) -> bool {
        filter.uses_group() && !self.scope.gather
    }

    fn file_finding(&mut self, path: &str, name: &str, text: &str, level: Level, e: LangError) {
        let at = e.range.map_or(0, |range| range.start.min(text.len()));
        let before = text.get(..at).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        self.within(path, None, level, format!("{name}:{line}:{column}: {}", e.message), e.help.as_deref());
    }

    /// The text of a file that is part of the job's definition.
    fn side_file(&mut self, path: &str, name: &str) -> Option<String> {
        let text = match self.kept {
            Some(kept) => kept.get(name).cloned().ok_or_else(|| format!("the file {name} was not kept with the run")),
            None => read(&self.base.join(name)),
        };
        match text {
            Ok(text) => {
                self.side.insert(name.to_owned(), text.clone());
                Some(text)
            }
            Err(message) => {
                // Who waits for it to come must know of it.
                self.side.entry(name.to_owned()).or_default();
                let help = match self.similar(&self.base.join(name)) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => {
                        format!("write the path of a text file, from the job file's folder {}", self.base.display())
                    }
                };
                self.error(path, message, Some(&help));
                None
            }
        }
    }

    /// A file beside an absent one whose name is like its name, relative to the job file.
    fn similar(&self, file: &Path) -> Option<String> {
        if file.exists() {
            return None;
        }
        let wanted = file.file_name()?.to_str()?;
        let folder = file.parent()?;
        let mut names: Vec<String> = fs::read_dir(folder)
            .ok()?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| strsim::damerau_levenshtein(wanted, name) <= 3)
            .collect();
        names.sort_by_key(|name| (strsim::damerau_levenshtein(wanted, name), name.clone()));
        let found = folder.join(names.first()?);
        Some(found.strip_prefix(self.base).unwrap_or(&found).display().to_string())
    }
}

/// All variables of templates.
const KNOWN: [&str; 11] =
    ["item", "value", "key", "params", "run", "state", "response", "secret", "items", "failures", "counts"];

fn known_field(root: &str, field: &str, known: Option<&[String]>) -> Option<(String, Option<String>)> {
    let known: Vec<&str> = known?.iter().map(String::as_str).collect();
    if known.contains(&field) { None } else { unknown_field(root, field, &known) }
}

fn unknown_field(root: &str, field: &str, known: &[&str]) -> Option<(String, Option<String>)> {
    let help = match near(field, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => format!("`{root}` is empty"),
        None => format!("`{root}` has {}", known.join(", ")),
    };
    Some((format!("`{root}` has no field `{field}`"), Some(help)))
}

fn near<'n>(word: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let far = if word.chars().count() <= 4 { 1 } else { 2 };
    let near = names.map(|name| (name, strsim::damerau_levenshtein(word, name))).min_by_key(|(_, distance)| *distance);
    near.filter(|(_, distance)| *distance <= far).map(|(name, _)| name)
}

/// What the template engine says gets what to write; it knows no help of its own.
fn with_template_help(mut e: LangError) -> LangError {
    if e.help.is_none() {
        let help = if e.message.contains("end of variable block") {
            "a value stands between `{{` and `}}`: {{ item.id }}"
        } else if e.message.contains("end of block") {
            "a condition is {% if item.id %} .. {% endif %}, a loop {% for i in items %} .. {% endfor %}"
        } else {
            "compare it with {{ item.id }}, {{ run.date | add_days(-1) }}, {% if item.id %} .. {% endif %}"
        };
        e.help = Some(help.to_owned());
    }
    e
}

/// The same for jq.
fn with_filter_help(mut e: LangError) -> LangError {
    if e.help.is_none() {
        let help = if e.message.contains("`else` or `end`") {
            "compare it with: if .a then .b else .c end"
        } else if e.message.starts_with("there is no function") {
            "define it before it is used: def name: ..; or see the functions of the jq manual"
        } else if e.message.starts_with("there is no variable") {
            "there are $item, $key, $params, $run, $state, $response, and what `.. as $name |` has bound"
        } else {
            "compare it with a good filter: .data[] | select(.steps > 0) | {id, steps}"
        };
        e.help = Some(help.to_owned());
    }
    e
}

/// What to write instead of a text that looks like a value but is plain: `.id`, `item.id`, `$item.id`, `{item.id}`,
/// `${item.id}`.
fn bare(text: &str) -> Option<String> {
    let text = text.trim();
    let inner = text.strip_prefix('$').unwrap_or(text);
    let (inner, wrapped) = match inner.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')) {
        Some(inner) => (inner.trim(), true),
        None => (inner, inner.len() < text.len()),
    };
    let path = |path: &str| {
        !path.is_empty()
            && path.split('.').all(|part| {
                part.chars().next().is_some_and(|c| c.is_alphabetic() || c == '_')
                    && part.chars().all(|c| c.is_alphanumeric() || c == '_')
            })
    };
    if let Some(fields) = inner.strip_prefix('.') {
        return path(fields).then(|| format!("{{{{ item.{fields} }}}}"));
    }
    let (root, fields) = inner.split_once('.').unwrap_or((inner, ""));
    let known = KNOWN.contains(&root) && (wrapped || !fields.is_empty());
    (known && path(inner)).then(|| format!("{{{{ {inner} }}}}"))
}

/// `{{ item.id }}` as jq.
fn jq_of(template: &str) -> Option<String> {
    let inner = template.strip_prefix("{{")?.strip_suffix("}}")?.trim();
    let root = inner.split('.').next().unwrap_or(inner);
    match root {
        "value" => Some(if inner == root { ".".to_owned() } else { inner["value".len()..].to_owned() }),
        "items" | "failures" | "counts" => Some(inner.to_owned()),
        "item" | "key" | "params" | "run" | "state" | "response" => Some(format!("${inner}")),
        _ => None,
    }
}

/// Names that follow `$params.` or `$run.` in a filter outside of comments, with their bytes.
fn fields_of<'t>(text: &'t str, root: &str) -> Vec<(&'t str, Range<usize>)> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices(root) {
        let line = text[..at].rsplit('\n').next().unwrap_or_default();
        let start = at + root.len();
        let name = text[start..].split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default();
        if !name.is_empty() && !line.trim_start().starts_with('#') {
            found.push((name, at..start + name.len()));
        }
    }
    found
}

/// Reads a file of the definition; the error names the full path.
fn read(file: &Path) -> Result<String, String> {
    let shown = file.display();
    let kind = fs::metadata(file).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => format!("there is no file {shown}"),
        _ => format!("{shown} cannot be read: {e}"),
    })?;
    if !kind.is_file() {
        return Err(format!("{shown} is no regular file"));
    }
    let mut bytes = Vec::new();
    let opened = fs::File::open(file).and_then(|f| f.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    opened.map_err(|e| format!("{shown} cannot be read: {e}"))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("{shown} is larger than {FILE_BYTES_MAX} bytes"));
    }
    let text = String::from_utf8(bytes)
        .map_err(|e| format!("{shown} is not UTF-8: byte {}", e.utf8_error().valid_up_to() + 1))?;
    Ok(text.strip_prefix('\u{feff}').map_or(text.clone(), str::to_owned))
}

#[cfg(test)]
mod tests;
