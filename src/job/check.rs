//! From what was written to what runs: every relation is checked, every text compiled, every problem named with its place.

mod notices;

use super::{
    CheckedJob, JobProblems, Surroundings, has_errors,
    plan::{Job, Stage, StageKind},
    relations::{self, Relations},
    remarks,
    spec::{GatherSpec, JobSpec, NotifySpec, OnCrashSpec, OnDeadlineSpec, OrderSpec, PingSpec, StageSpec},
    timing,
};
use crate::{
    action::{self, ActionSpec, Checked, Handlers, Place},
    item::Value,
    lang::{self, Checker, Finding, Flavor, ReadsResponse, Scope, Template},
    limits::{
        ACTIONS_MAX, BUFFER_MAX, GATHER_VALUE_BYTES_DEFAULT, GRACE_PERIOD_DEFAULT, RUN_DEADLINE_DEFAULT, SERVICES_MAX,
        STAGES_MAX, VALUE_BYTES_DEFAULT, WAITING_MAX, WAITING_MIN, WORKERS_MAX,
    },
    problem::{Level, Problem, Source, closest, in_file_order, locate, locate_in_text, locate_key},
    schedule::{self, CatchUpSpec, OverlapSpec, Window},
    service::{self, ServicePlan, ServiceSpec},
    units::{Span, Tolerance},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// Checks a job. Errors and remarks come in the order of the file.
pub fn check(
    name: &str,
    spec: &JobSpec,
    source: Source,
    base_dir: &Path,
    surroundings: &Surroundings,
) -> Result<CheckedJob, JobProblems> {
    let mut check = Check::new(base_dir, surroundings, params(spec));
    check.after = spec.schedule.as_ref().is_some_and(|schedule| !schedule::jobs_before(schedule, "").is_empty());
    let job = check.job(spec, name, &source.text);
    let problems = in_order(check.findings, &source);
    match job {
        Some(job) if !has_errors(&problems) => Ok(CheckedJob { job, source, remarks: problems }),
        job => {
            let side_files = job.map_or(check.side_files, |job| job.side_files).into_keys().collect();
            Err(JobProblems { source, problems, side_files })
        }
    }
}

/// What is wrong with the meaning of a file of which fields were taken out: `any_params` and `after` where it cannot be
/// known what they said.
pub fn findings(
    name: &str,
    spec: &JobSpec,
    base_dir: &Path,
    surroundings: &Surroundings,
    (any_params, after): (bool, bool),
) -> Vec<Finding> {
    let mut check = Check::new(base_dir, surroundings, params(spec));
    check.any_params = any_params;
    check.after =
        after || spec.schedule.as_ref().is_some_and(|schedule| !schedule::jobs_before(schedule, "").is_empty());
    check.job(spec, name, "");
    check.findings
}

/// Checks what `lamplighter.ron` says for all jobs. Texts may name any param: the jobs are not known here.
pub fn check_shared(
    (services, notices, ping): (&[ServiceSpec], &[NotifySpec], Option<&PingSpec>),
    mut findings: Vec<Finding>,
    source: &Source,
    base_dir: &Path,
    handlers: &Handlers,
) -> (Vec<Problem>, BTreeSet<String>) {
    let surroundings = Surroundings { handlers: handlers.clone(), ..Surroundings::default() };
    let mut check = Check::new(base_dir, &surroundings, Value::Object(serde_json::Map::new()));
    check.any_params = true;
    let own = check.own_services(services);
    let names: Vec<String> = own.into_iter().map(|(name, _)| name).collect();
    check.notices(notices, &names);
    if let Some(ping) = ping {
        check.pings(ping);
    }
    findings.append(&mut check.findings);
    (in_order(findings, source), check.secrets)
}

/// Findings with their places, in the order of the file.
pub fn in_order(findings: Vec<Finding>, source: &Source) -> Vec<Problem> {
    let mut problems: Vec<Problem> = findings.into_iter().map(|finding| placed(finding, source)).collect();
    in_file_order(&mut problems);
    problems.dedup();
    problems
}

/// Gives a finding its place in the file.
fn placed(finding: Finding, source: &Source) -> Problem {
    let span = match finding.within {
        Some(within) => locate_in_text(source, &finding.path, within),
        None if finding.path.ends_with('#') => locate_key(source, finding.path.trim_end_matches('#')),
        None => locate(source, &finding.path),
    };
    let level = match finding.level {
        lang::Level::Error => Level::Error,
        lang::Level::Remark => Level::Remark,
    };
    let path = finding.path.trim_end_matches('#').to_owned();
    Problem { level, path, span, message: finding.message, help: finding.help }
}

fn params(spec: &JobSpec) -> Value {
    let params = spec.params.iter().flat_map(|params| &params.0);
    Value::Object(params.map(|(name, value)| (name.clone(), value.0.clone())).collect())
}

struct Check<'a> {
    base_dir: &'a Path,
    surroundings: &'a Surroundings,
    params: Value,
    any_params: bool,
    /// The job is due after another: `run.after` exists.
    after: bool,
    findings: Vec<Finding>,
    secrets: BTreeSet<String>,
    inputs: Vec<PathBuf>,
    side_files: BTreeMap<String, String>,
    reads_response: ReadsResponse,
}

impl<'a> Check<'a> {
    fn new(base_dir: &'a Path, surroundings: &'a Surroundings, params: Value) -> Check<'a> {
        Check {
            base_dir,
            surroundings,
            params,
            any_params: false,
            after: false,
            findings: Vec::new(),
            secrets: BTreeSet::new(),
            inputs: Vec::new(),
            side_files: BTreeMap::new(),
            reads_response: ReadsResponse::default(),
        }
    }

    fn job(&mut self, spec: &JobSpec, name: &str, text: &str) -> Option<Job> {
        self.name(name);
        let zone = self.zone(spec);
        self.schedule(spec, name);
        let deadline = self.positive("deadline", spec.deadline).unwrap_or(RUN_DEADLINE_DEFAULT);
        let services = self.services(spec);
        let service_names: Vec<String> = services.iter().map(|(name, _)| name.clone()).collect();
        let stages = self.stages(spec, name, deadline, &service_names);
        let mut on_finish = self.on_finish(spec, &service_names);
        let (start_ping, end_pings) = self.ping(spec);
        on_finish.extend(end_pings);
        let services: Vec<ServicePlan> = services.into_iter().filter_map(|(_, plan)| plan).collect();
        Some(Job {
            name: name.into(),
            description: spec.description.clone(),
            base_dir: self.base_dir.to_owned(),
            timing: timing::of(spec),
            zone: zone?,
            deadline,
            params: self.params.clone(),
            services,
            stages: stages?,
            keeps: keeps(spec),
            start_ping,
            on_finish,
            keep_out: spec.keep_out.map(Span::get),
            secrets: std::mem::take(&mut self.secrets),
            inputs: std::mem::take(&mut self.inputs),
            text: text.to_owned(),
            side_files: std::mem::take(&mut self.side_files),
        })
    }

    fn error(&mut self, path: impl Into<String>, message: impl Into<String>, help: Option<&str>) {
        self.find(lang::Level::Error, path.into(), message.into(), help);
    }

    fn remark(&mut self, path: impl Into<String>, message: impl Into<String>, help: Option<&str>) {
        self.find(lang::Level::Remark, path.into(), message.into(), help);
    }

    fn find(&mut self, level: lang::Level, path: String, message: String, help: Option<&str>) {
        self.findings.push(Finding { level, path, within: None, message, help: help.map(str::to_owned) });
    }

    /// Checks with a checker of this scope and keeps what it found.
    fn with_checker<T>(&mut self, mut scope: Scope, check: impl FnOnce(&mut Checker<'_>) -> T) -> T {
        scope.any_params = self.any_params;
        scope.after = self.after;
        let mut checker = Checker::new(self.base_dir, scope).with_reads_response(self.reads_response.clone());
        if let Some(kept) = &self.surroundings.side_files {
            checker = checker.with_kept_files(kept);
        }
        let result = check(&mut checker);
        self.secrets.extend(checker.secrets_used().iter().cloned());
        self.inputs.extend(checker.inputs().iter().cloned());
        self.side_files.extend(checker.side_files().iter().map(|(name, text)| (name.clone(), text.clone())));
        self.findings.extend(checker.into_findings());
        result
    }

    fn name(&mut self, name: &str) {
        if let Err(problem) = Job::check_name(name) {
            self.error("", problem.message, problem.help.as_deref());
        }
    }

    fn zone(&mut self, spec: &JobSpec) -> Option<jiff::tz::TimeZone> {
        let Some(name) = &spec.timezone else { return Some(jiff::tz::TimeZone::system()) };
        match jiff::tz::TimeZone::get(name) {
            Ok(zone) => Some(zone),
            Err(_) => {
                let known: Vec<String> = jiff::tz::db().available().map(|zone| zone.as_str().to_owned()).collect();
                // `CEST` and `UTC+2` are no misspelt places.
                let near = closest(name, known.iter().map(String::as_str)).filter(|near| near.contains('/'));
                let help = match near {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => "write the IANA name of a place, such as \"Europe/Berlin\", or \"UTC\"".to_owned(),
                };
                self.error("timezone", format!("there is no time zone {name:?}"), Some(&help));
                None
            }
        }
    }

    fn schedule(&mut self, spec: &JobSpec, name: &str) {
        if let Some(schedule) = &spec.schedule {
            let mut mistakes = Vec::new();
            schedule::check(schedule, "schedule", &mut mistakes);
            for schedule::Mistake { path, within, message, help } in mistakes {
                self.findings.push(Finding { level: lang::Level::Error, path, within, message, help: Some(help) });
            }
            for (path, before) in schedule::jobs_before(schedule, "schedule") {
                if before == name {
                    self.error(path, "a job cannot wait for itself", Some("name another job"));
                }
            }
            self.findings.extend(remarks::of_schedule(spec, schedule));
            if spec.deadline.is_none() && schedule::is_due_within(schedule, RUN_DEADLINE_DEFAULT) {
                let help = "say how long a run may take: `deadline: \"20m\"`";
                let message =
                    "the job is due more often than its default deadline of 24h: a run that hangs holds up the next";
                self.remark("schedule", message, Some(help));
            }
        }
        for (place, (begin, end)) in spec.blackout.iter().flatten().enumerate() {
            let mut good = true;
            for (side, time) in [begin, end].into_iter().enumerate() {
                if Window::read(time, time).is_none() {
                    let help = "write hours and minutes, as in `(\"07:00\", \"19:00\")`";
                    self.error(format!("blackout[{place}][{side}]"), format!("{time:?} is no local time"), Some(help));
                    good = false;
                }
            }
            if good && begin == end {
                let help =
                    "write a window such as `(\"07:00\", \"19:00\")`; one past midnight is `(\"22:00\", \"06:00\")`";
                self.error(format!("blackout[{place}]"), "this window begins when it ends", Some(help));
            }
        }
        if matches!(&spec.catch_up, Some(CatchUpSpec::All(all)) if all.max == 0) {
            self.error("catch_up.max", "none at all would be made up for", Some("write `Never`, or `All(max: 7)`"));
        }
        if matches!(&spec.overlap, Some(OverlapSpec::Allow(allow)) if allow.max == 0) {
            self.error("overlap.max", "no run at all would be allowed", Some("write `Skip`, or `Allow(max: 2)`"));
        }
    }

    /// A duration that may not be nothing.
    fn positive(&mut self, path: &str, span: Option<Span>) -> Option<Duration> {
        let span = span?;
        if span.is_zero() {
            self.error(path, "no time at all: nothing could ever be done", Some("write a duration such as \"90s\""));
        }
        Some(span.get())
    }

    /// The job's own services and those of the configuration that it names; a plan is `None` where it has errors.
    fn services(&mut self, spec: &JobSpec) -> Vec<(String, Option<ServicePlan>)> {
        let own: &[ServiceSpec] = spec.services.as_deref().unwrap_or_default();
        let mut services = self.own_services(own);
        let named = self.named_services(spec);
        for spec in &self.surroundings.services {
            let shadowed = services.iter().any(|(name, _)| *name == spec.name);
            if shadowed || !named.contains(spec.name.as_str()) {
                continue;
            }
            let before = self.findings.len();
            let plan =
                self.with_checker(Scope::service(self.params.clone()), |checker| service::check(spec, "", checker));
            self.of_the_configuration(before, &format!("service `{}`", spec.name));
            let plan = plan.map(ServicePlan::for_all_jobs);
            services.push((spec.name.clone(), plan));
        }
        for (place, spec) in own.iter().enumerate().filter(|(_, spec)| !spec.name.is_empty()) {
            // A service that is not there is a misspelt one: that is said already.
            let all_known = named.iter().all(|name| services.iter().any(|(known, _)| known == name));
            if all_known && !named.contains(spec.name.as_str()) {
                let message = format!("no action calls through service `{}`", spec.name);
                let help = format!("write `via: {:?}` in an Http action, or remove the service", spec.name);
                self.remark(format!("services[{place}].name"), message, Some(&help));
            }
        }
        services
    }

    fn own_services(&mut self, own: &[ServiceSpec]) -> Vec<(String, Option<ServicePlan>)> {
        if own.len() > SERVICES_MAX {
            let message = format!("more than {SERVICES_MAX} services");
            self.error("services", message, Some("move some into a job of their own"));
        }
        let mut services: Vec<(String, Option<ServicePlan>)> = Vec::new();
        for (place, spec) in own.iter().enumerate() {
            let path = format!("services[{place}]");
            let first = own[..place].iter().position(|other| !spec.name.is_empty() && other.name == spec.name);
            if let Some(first) = first {
                let message = format!("two services are called `{}`", spec.name);
                let help = format!("the other is services[{first}]: give each its own name");
                self.error(format!("{path}.name"), message, Some(&help));
            }
            let plan =
                self.with_checker(Scope::service(self.params.clone()), |checker| service::check(spec, &path, checker));
            if first.is_none() {
                services.push((spec.name.clone(), plan));
            }
        }
        services
    }

    /// What was found since `before` stands in `lamplighter.ron`, not in the job file.
    fn of_the_configuration(&mut self, before: usize, what: &str) {
        for finding in &mut self.findings[before..] {
            finding.message = format!("{what} of lamplighter.ron: {}", finding.message);
            (finding.path, finding.within) = (String::new(), None);
        }
    }

    /// Every service that an action names.
    fn named_services(&self, spec: &JobSpec) -> BTreeSet<String> {
        let stages = spec.stages.iter().flatten().flat_map(|stage| &stage.run);
        let notices = spec.on_finish.as_ref().or(self.surroundings.on_finish.as_ref()).into_iter().flatten();
        let actions = stages.chain(spec.run.iter().flatten()).chain(notices.flat_map(|notice| &notice.run));
        actions.filter_map(ActionSpec::service).map(str::to_owned).collect()
    }

    fn stages(&mut self, spec: &JobSpec, name: &str, deadline: Duration, services: &[String]) -> Option<Vec<Stage>> {
        match (&spec.stages, &spec.run) {
            (Some(stages), Some(run)) => {
                let message = "a job has either `run` or `stages`, and this one has both";
                self.error("run#", message, Some("move the actions of `run` into a stage"));
                self.short_form(spec, name, run, deadline, services);
                self.long_form(stages, deadline, services);
                None
            }
            (None, None) => {
                self.error("", "the job has nothing to do", Some(RUN_EXAMPLE));
                None
            }
            (None, Some(run)) => self.short_form(spec, name, run, deadline, services),
            (Some(stages), None) => {
                for (field, given) in [("retry", spec.retry.is_some()), ("timeout", spec.timeout.is_some())] {
                    if given {
                        let message = format!("`{field}` stands beside `run`, and this job has `stages`");
                        self.error(format!("{field}#"), message, Some("move it into the stage that it is meant for"));
                    }
                }
                self.long_form(stages, deadline, services)
            }
        }
    }

    /// `run: [..]`: one worker stage named as the job, fed one null item by a hidden source.
    fn short_form(
        &mut self,
        spec: &JobSpec,
        name: &str,
        run: &[ActionSpec],
        deadline: Duration,
        services: &[String],
    ) -> Option<Vec<Stage>> {
        self.one_keep(run, "run");
        let params = self.params.clone();
        let place = ActionPlace { gather: false, source: false, services };
        let actions = self.actions(run, "run", Scope::worker(params), &place, false);
        let retry = self.retry(spec.retry.as_ref(), "retry", run, false);
        let timeout = self.positive("timeout", spec.timeout);
        if let Some(timeout) = timeout {
            self.fits("timeout", timeout, "the job's `deadline`", deadline);
        }
        let actions = actions?.0;
        let source =
            Stage { hidden: true, readers: vec![1], ..bare(format!("{name}.source").into(), StageKind::Source) };
        let worker = Stage { from: vec![0], actions, retry, timeout, ..bare(name.into(), StageKind::Worker) };
        Some(vec![source, worker])
    }

    fn long_form(&mut self, stages: &[StageSpec], deadline: Duration, services: &[String]) -> Option<Vec<Stage>> {
        if stages.is_empty() {
            let help = "write `stages: [Stage(name: \"list\", run: [..])]`, or `run: [..]` for one thing to do";
            self.error("stages", "the job has no stage", Some(help));
            return None;
        }
        if stages.len() > STAGES_MAX {
            self.error("stages", format!("more than {STAGES_MAX} stages"), Some("split the job"));
            return None;
        }
        let mut wrong = Vec::new();
        let relations = relations::resolve(stages, &mut wrong);
        for (path, message, help) in wrong {
            self.error(path, message, help.as_deref());
        }
        self.kept_keys(stages, &relations);
        let mut columns: Vec<Option<Vec<String>>> = vec![None; stages.len()];
        let mut checked = Vec::with_capacity(stages.len());
        for (place, spec) in stages.iter().enumerate() {
            checked.push(self.stage(place, spec, &relations, deadline, services, &mut columns));
        }
        checked.into_iter().collect()
    }

    fn stage(
        &mut self,
        place: usize,
        spec: &StageSpec,
        relations: &Relations,
        run_deadline: Duration,
        services: &[String],
        columns: &mut [Option<Vec<String>>],
    ) -> Option<Stage> {
        let path = format!("stages[{place}]");
        let at = |field: &str| format!("{path}.{field}");
        let from = relations.from[place].clone();
        // By what was written: a misspelt `from` makes no source of a stage.
        let lists = spec.from.as_ref().map_or(place == 0, Vec::is_empty);
        let is_source = lists && spec.gather.is_none();
        if spec.name.is_empty() || spec.name.chars().any(|c| c.is_control() || c == '/') {
            let help = "write a name without `/`, such as `name: \"vitals\"`";
            let message = if spec.name.is_empty() { "a stage needs a name" } else { "this is no name of a stage" };
            self.error(at("name"), message, Some(help));
        }
        self.bounds(spec, &path, is_source, run_deadline);
        let known = from.first().filter(|_| from.len() == 1).and_then(|from| columns[usize::from(*from)].clone());
        let mut scope = match (&spec.gather, is_source) {
            (Some(_), _) => Scope::gather(self.params.clone()),
            (None, true) => Scope::source(self.params.clone()),
            (None, false) => Scope::worker(self.params.clone()),
        };
        if spec.gather.is_none() {
            scope.item_fields = known.clone();
            scope.value_fields = known.clone();
        }
        let action_place = ActionPlace { gather: spec.gather.is_some(), source: is_source, services };
        let actions = self.actions(&spec.run, &at("run"), scope, &action_place, true);
        let (actions, listed_columns) = actions.map_or((None, None), |(actions, columns)| (Some(actions), columns));
        columns[place] = listed_columns.or_else(|| {
            let untouched =
                !is_source && actions.as_ref()?.iter().all(|action| action.gives == action::Gives::PassesOn);
            known.clone().filter(|_| untouched)
        });
        let key = self.key(spec, &at("key"), columns[place].clone());
        let kind = match &spec.gather {
            Some(GatherSpec::All) => Some(StageKind::GatherAll),
            Some(GatherSpec::By(text)) => {
                let mut scope = Scope::worker(self.params.clone());
                scope.item_fields = known;
                let by = self.with_checker(scope, |checker| checker.template(&at("gather"), text, Flavor::Text));
                by.map(StageKind::GatherBy)
            }
            None if is_source => Some(StageKind::Source),
            None => Some(StageKind::Worker),
        };
        let is_gather = spec.gather.is_some();
        let workers = spec.workers.unwrap_or(1) as usize;
        let retry = self.retry(spec.retry.as_ref(), &at("retry"), &spec.run, is_source);
        let ordered = matches!(spec.order, Some(OrderSpec::Input));
        if ordered && retry.is_some() && spec.item_deadline.is_none() {
            let help = "bound it: `item_deadline: \"5m\"`";
            self.remark(at("order"), "one item that is tried again and again holds up all behind it", Some(help));
        }
        if spec.key.is_some() && key.is_none() {
            return None;
        }
        let value_default = if is_gather { GATHER_VALUE_BYTES_DEFAULT } else { VALUE_BYTES_DEFAULT };
        Some(Stage {
            from,
            readers: relations.readers[place].clone(),
            actions: actions?,
            key,
            workers,
            waiting: spec.waiting.map_or((2 * workers).max(WAITING_MIN), |waiting| waiting as usize),
            buffer: spec.buffer.map_or(2 * workers, |buffer| buffer as usize),
            ordered,
            timeout: spec.timeout.map(Span::get),
            item_deadline: spec.item_deadline.map(Span::get),
            deadline: spec.deadline.map(Span::get),
            on_deadline_continue: matches!(spec.on_deadline, Some(OnDeadlineSpec::Continue)),
            retry,
            tolerate: spec.tolerate.unwrap_or(Tolerance::NONE),
            fail_fast: spec.fail_fast.unwrap_or(false),
            min_items: u64::from(spec.min_items.unwrap_or(0)),
            max_value: spec.max_value.map_or(value_default, |size| size.bytes()),
            holds: matches!(spec.on_crash, Some(OnCrashSpec::Hold)),
            ..bare(spec.name.as_str().into(), kind?)
        })
    }

    /// An item has one state.
    fn one_keep(&mut self, actions: &[ActionSpec], path: &str) {
        let keeps = actions.iter().enumerate().filter(|(_, action)| matches!(action, ActionSpec::Keep(_)));
        for (at, _) in keeps.skip(1) {
            let help = "keep both in one object: `Keep(filter: \"{sha256, size}\")`";
            self.error(format!("{path}[{at}]"), "a second `Keep` for the same item: it has one state", Some(help));
        }
    }

    /// What is kept is found again by the key, so keys must name the same thing in each run.
    fn kept_keys(&mut self, stages: &[StageSpec], relations: &Relations) {
        let mut keeper: Option<&str> = None;
        for (place, stage) in stages.iter().enumerate() {
            let path = format!("stages[{place}].run");
            self.one_keep(&stage.run, &path);
            let Some(at) = stage.run.iter().position(|action| matches!(action, ActionSpec::Keep(_))) else { continue };
            let path = format!("{path}[{at}]");
            if let Some(other) = keeper.replace(&stage.name) {
                let message = format!(
                    "stage `{other}` keeps as well: for a key that both have, the later value replaces the other"
                );
                self.remark(&path, message, Some("make sure that their keys differ, or keep in one of them"));
            }
            if let Some(source) = numbered(place, stages, relations) {
                let message = format!(
                    "the items of `{}` are known by their place in the listing: what is kept for one place is seen by \
                     whatever stands there next time",
                    source.name
                );
                let help = format!("name them: `key: \"{{{{ item.id }}}}\"` in stage `{}`", source.name);
                self.remark(path, message, Some(&help));
            }
        }
    }

    /// Numbers, durations, and what a kind of stage cannot have.
    fn bounds(&mut self, spec: &StageSpec, path: &str, is_source: bool, run_deadline: Duration) {
        let at = |field: &str| format!("{path}.{field}");
        let bounded = [
            ("workers", spec.workers, 1, WORKERS_MAX),
            ("waiting", spec.waiting, 0, WAITING_MAX),
            ("buffer", spec.buffer, 0, BUFFER_MAX),
        ];
        for (field, value, least, most) in bounded {
            if let Some(value) = value
                && !(least..=most).contains(&(value as usize))
            {
                let message = format!("`{field}` must be {least} to {most}, not {value}");
                let help = match value {
                    0 => format!("write `{field}: 1`: with none of them nothing would ever be done"),
                    _ => format!("write at most `{field}: {most}`"),
                };
                self.error(at(field), message, Some(&help));
            }
        }
        if is_source {
            let given = [
                ("workers", spec.workers.is_some()),
                ("waiting", spec.waiting.is_some()),
                ("buffer", spec.buffer.is_some()),
                ("order", spec.order.is_some()),
                ("item_deadline", spec.item_deadline.is_some()),
                ("retry", spec.retry.is_some()),
                ("on_crash", spec.on_crash.is_some()),
            ];
            for (field, _) in given.into_iter().filter(|(_, given)| *given) {
                let message =
                    format!("`{field}` has no meaning here: stage `{}` is a source, it runs once and lists", spec.name);
                let help = "remove it, or put it into the stage that works on the items";
                self.error(format!("{}#", at(field)), message, Some(help));
            }
        }
        if spec.gather.is_some() && matches!(spec.on_deadline, Some(OnDeadlineSpec::Continue)) {
            let message = "a gather cannot go on with what there is: at its deadline it has given nothing yet";
            let help = "remove it, and write `on_deadline: Continue` in the stages that it gathers from";
            self.error(at("on_deadline"), message, Some(help));
        }
        let durations = [("timeout", spec.timeout), ("item_deadline", spec.item_deadline), ("deadline", spec.deadline)];
        let mut outer = ("the job's `deadline`".to_owned(), run_deadline);
        for (field, span) in durations.into_iter().rev() {
            let Some(span) = self.positive(&at(field), span) else { continue };
            self.fits(&at(field), span, &outer.0, outer.1);
            if span < outer.1 {
                outer = (format!("the stage's `{field}`"), span);
            }
        }
        if spec.max_value.is_some_and(|size| size.bytes() == 0) {
            let help = "write a size such as `max_value: \"1MB\"`";
            self.error(at("max_value"), "no value at all would be small enough", Some(help));
        }
    }

    /// A part may not have more time than the whole.
    fn fits(&mut self, path: &str, span: Duration, outer: &str, most: Duration) {
        if span > most {
            let field = path.rsplit('.').next().unwrap_or(path);
            let message = format!("`{field}` is longer than {outer} of {}: it could never be reached", Span::new(most));
            let help = format!("write at most `{field}: \"{}\"`, or make the other longer", Span::new(most));
            self.error(path, message, Some(&help));
        }
    }

    fn key(&mut self, spec: &StageSpec, path: &str, columns: Option<Vec<String>>) -> Option<Template> {
        let text = spec.key.as_ref()?;
        let mut scope = Scope::worker(self.params.clone());
        scope.item_fields = columns;
        self.with_checker(scope, |checker| checker.template(path, text, Flavor::Text))
    }

    fn retry(
        &mut self,
        spec: Option<&service::RetrySpec>,
        path: &str,
        actions: &[ActionSpec],
        is_source: bool,
    ) -> Option<service::Retry> {
        let spec = spec?;
        if !is_source
            && !actions.is_empty()
            && actions
                .iter()
                .all(|action| !matches!(action, ActionSpec::Exec(_) | ActionSpec::Call(_) | ActionSpec::Sql(_)))
        {
            let help = "remove it; calls through a service are tried again by the service's own `retry`";
            self.remark(path, "none of these actions is tried again by this `retry`", Some(help));
        }
        self.with_checker(Scope::service(Value::Null), |checker| service::retry::check(spec, path, checker))
    }

    /// Checks actions in sequence. Also gives the columns of what they list, where they are known.
    fn actions(
        &mut self,
        specs: &[ActionSpec],
        path: &str,
        mut scope: Scope,
        place: &ActionPlace<'_>,
        stage: bool,
    ) -> Option<(Vec<Checked>, Option<Vec<String>>)> {
        if specs.is_empty() {
            self.error(path, "there is no action in this list", Some(RUN_EXAMPLE));
            return None;
        }
        if specs.len() > ACTIONS_MAX {
            let message = format!("more than {ACTIONS_MAX} actions in one {}", if stage { "stage" } else { "list" });
            self.error(path, message, Some("split it into stages"));
            return None;
        }
        let mut actions = Some(Vec::with_capacity(specs.len()));
        let mut columns = None;
        let mut after_jq = false;
        for (at, spec) in specs.iter().enumerate() {
            let path = format!("{path}[{at}]");
            let handlers = &self.surroundings.handlers;
            let (services, gather, source) = (place.services, place.gather, place.source && at == 0);
            let here = Place { gather, source, after_jq, handlers, services };
            let (checked, found) = self.with_checker(scope.clone(), |checker| {
                let checked = action::check(spec, &path, &here, checker);
                let found = if source { action::columns(spec, checker) } else { None };
                (checked, found)
            });
            if place.source && at == 0 {
                columns = found.clone();
                scope.value_fields = found;
            } else if checked.as_ref().is_none_or(|checked| checked.gives != action::Gives::PassesOn) {
                columns = None;
                scope.value_fields = None;
            }
            scope.response |= matches!(spec, ActionSpec::Http(_));
            after_jq |= matches!(spec, ActionSpec::Jq(_));
            match (checked, &mut actions) {
                (Some(checked), Some(actions)) => actions.push(checked),
                _ => actions = None,
            }
        }
        actions.map(|actions| (actions, columns))
    }
}

/// What to write where nothing is said to be done.
const RUN_EXAMPLE: &str = "write what it does: `run: [Exec(argv: [\"/usr/local/bin/rotate-logs.sh\"])]`";

/// True when a run of the job remembers something.
fn keeps(spec: &JobSpec) -> bool {
    let stages = spec.stages.iter().flatten().flat_map(|stage| &stage.run);
    stages.chain(spec.run.iter().flatten()).any(|action| matches!(action, ActionSpec::Keep(_)))
}

/// The source whose numbers are the keys of the stage at `place`, if they are. Behind a gather keys are texts of groups.
fn numbered<'a>(place: usize, stages: &'a [StageSpec], relations: &Relations) -> Option<&'a StageSpec> {
    let mut at = place;
    // A cycle, which is an error of its own, is walked once.
    for _ in 0..stages.len() {
        if stages[at].gather.is_some() {
            return None;
        }
        match relations.from[at].first() {
            Some(parent) => at = usize::from(*parent),
            None => break,
        }
    }
    (at != place && stages[at].key.is_none()).then(|| &stages[at])
}

/// What the actions of one list have in common.
struct ActionPlace<'a> {
    gather: bool,
    source: bool,
    services: &'a [String],
}

/// A stage with every default.
fn bare(name: Arc<str>, kind: StageKind) -> Stage {
    Stage {
        name,
        kind,
        hidden: false,
        from: Vec::new(),
        readers: Vec::new(),
        actions: Vec::new(),
        key: None,
        workers: 1,
        waiting: WAITING_MIN,
        buffer: 2,
        ordered: false,
        timeout: None,
        item_deadline: None,
        deadline: None,
        on_deadline_continue: false,
        retry: None,
        tolerate: Tolerance::NONE,
        fail_fast: false,
        min_items: 0,
        max_value: VALUE_BYTES_DEFAULT,
        holds: false,
    }
}

const _: () = assert!(GRACE_PERIOD_DEFAULT.as_secs() < RUN_DEADLINE_DEFAULT.as_secs());
