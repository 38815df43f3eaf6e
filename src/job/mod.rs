//! What the author wrote ([`JobSpec`]), what we run ([`Job`]), and every problem between the two.
//!
//! [`Job::from_file`] reads, checks and compiles; it reports all problems at once, each with its place. After it nothing
//! of a job is checked again.

mod check;
mod config;
mod further;
mod plan;
mod relations;
mod remarks;
mod spec;
mod timing;

pub use config::{CheckedConfig, ClockSpec, Config};
pub use plan::{Job, Notice, Stage, StageKind};
pub use spec::{GatherSpec, JobSpec, NotifySpec, OnCrashSpec, OnDeadlineSpec, OrderSpec, PingSpec, StageSpec};

use crate::{
    action::Handlers,
    item::Value,
    limits::{FILE_BYTES_MAX, PROBLEMS_MAX},
    problem::{Level, Problem, Source, in_file_order, load, render, to_json, without_wrong_fields},
    service::ServiceSpec,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    io::{self, Read},
    os::unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    path::{Path, PathBuf},
};

/// What a job file may name besides what stands in it.
///
/// ```
/// use lamplighter::job::{Config, Job, Surroundings};
/// use lamplighter::problem::Source;
///
/// let config = Config::from_ron("lamplighter.ron", r#"Config(
///     services: [Service(name: "vendor", base: "https://api.vendor.example")],
/// )"#)?;
/// let surroundings = Surroundings { services: config.services.unwrap_or_default(), ..Surroundings::default() };
/// let source = Source::new("list.ron", r#"Job(run: [Http(via: "vendor", get: "/v1/patients")])"#);
/// let job = Job::from_source("list", source, ".".as_ref(), &surroundings)?.job;
/// assert_eq!(job.services.len(), 1);
/// # Ok::<(), lamplighter::job::JobProblems>(())
/// ```
#[derive(Clone, Default)]
pub struct Surroundings {
    /// Handlers written in Rust, for `Call`.
    pub handlers: Handlers,
    /// Services of the configuration.
    pub services: Vec<ServiceSpec>,
    /// `on_finish` of the configuration.
    pub on_finish: Option<Vec<NotifySpec>>,
    /// `ping` of the configuration.
    pub ping: Option<PingSpec>,
    /// Texts of jq and template files, by the names that the job gives them, in place of those on the disk: what was kept
    /// with a run that is resumed.
    pub side_files: Option<BTreeMap<String, String>>,
}

/// A file with errors: nothing of it can run.
///
/// ```
/// use lamplighter::{action::Handlers, job::Job};
///
/// let text = "Job(\n    dedline: \"1h\",\n    run: [Exec(argv: \"ls\")],\n)";
/// let problems = Job::from_ron("tidy-up", text, ".".as_ref(), &Handlers::new()).unwrap_err();
/// assert_eq!(problems.problems.len(), 2);
/// // For people, with the line underlined ..
/// assert!(problems.render(false).contains("help: did you mean `deadline`?"));
/// // .. and for editors.
/// assert_eq!(problems.to_json()[0]["line"], 2);
/// ```
#[derive(Clone, Debug)]
pub struct JobProblems {
    /// The file.
    pub source: Source,
    /// All of its problems, remarks too, in the order of the file.
    pub problems: Vec<Problem>,
    /// Files that it names as parts of it, relative to its folder, as far as it was understood: the mistake may stand in one.
    pub side_files: BTreeSet<String>,
}

/// A job that can run, and what was remarked on.
///
/// ```
/// use lamplighter::{action::Handlers, job::Job};
///
/// let text = "Job(schedule: Every(\"5m\"), run: [Exec(argv: [\"/usr/local/bin/poll\"])])";
/// let checked = Job::from_ron("poll", text, ".".as_ref(), &Handlers::new())?;
/// assert_eq!(&*checked.job.name, "poll");
/// // It is due every five minutes and may run for a day: that can be, but is it meant?
/// assert!(checked.remarks[0].message.contains("more often than its default deadline"));
/// # Ok::<(), lamplighter::job::JobProblems>(())
/// ```
pub struct CheckedJob {
    /// The job.
    pub job: Job,
    /// Its file.
    pub source: Source,
    /// Remarks: it can run, but something in it is probably not meant so.
    pub remarks: Vec<Problem>,
}

impl Job {
    /// Reads and checks a job file. Its name is the stem of the file.
    ///
    /// # Errors
    /// Every problem of the file at once.
    pub fn from_file(path: &Path, handlers: &Handlers) -> Result<CheckedJob, JobProblems> {
        Job::from_file_in(path, &Surroundings { handlers: handlers.clone(), ..Surroundings::default() })
    }

    /// The same beside the services and notices of a configuration.
    ///
    /// # Errors
    /// As [`Job::from_file`].
    pub fn from_file_in(path: &Path, surroundings: &Surroundings) -> Result<CheckedJob, JobProblems> {
        let text = read_text(path)?;
        let source = Source::new(path.display().to_string(), text);
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let base_dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Job::from_source(&stem, source, base_dir, surroundings)
    }

    /// Checks the text of a job file; side files are read below `base_dir`.
    ///
    /// # Errors
    /// As [`Job::from_file`].
    pub fn from_ron(name: &str, text: &str, base_dir: &Path, handlers: &Handlers) -> Result<CheckedJob, JobProblems> {
        let surroundings = Surroundings { handlers: handlers.clone(), ..Surroundings::default() };
        Job::from_source(name, Source::new(format!("{name}.ron"), text), base_dir, &surroundings)
    }

    /// Checks a spec that was built in Rust. Problems have paths and no places.
    ///
    /// ```
    /// use lamplighter::{action::Handlers, job::{Job, JobSpec}, problem::{Source, load}};
    ///
    /// // Read, changed, and then checked.
    /// let text = r#"Job(run: [Exec(argv: ["true"])])"#;
    /// let mut spec: JobSpec = load(&Source::new("tidy-up", text)).expect("RON of the right shape");
    /// spec.timezone = Some("Europe/Berln".into());
    /// let problems = Job::new("tidy-up", &spec, ".".as_ref(), &Handlers::new()).unwrap_err().problems;
    /// assert_eq!(problems[0].path, "timezone");
    /// spec.timezone = Some("Europe/Berlin".into());
    /// assert!(Job::new("tidy-up", &spec, ".".as_ref(), &Handlers::new()).is_ok());
    /// ```
    ///
    /// # Errors
    /// As [`Job::from_file`].
    #[expect(clippy::new_ret_no_self, reason = "a job comes with what was remarked on, or not at all")]
    pub fn new(name: &str, spec: &JobSpec, base_dir: &Path, handlers: &Handlers) -> Result<CheckedJob, JobProblems> {
        let surroundings = Surroundings { handlers: handlers.clone(), ..Surroundings::default() };
        check::check(name, spec, Source::new(name, ""), base_dir, &surroundings)
    }

    /// Checks a file that was read already.
    ///
    /// # Errors
    /// As [`Job::from_file`].
    pub fn from_source(
        name: &str,
        source: Source,
        base_dir: &Path,
        surroundings: &Surroundings,
    ) -> Result<CheckedJob, JobProblems> {
        match load::<JobSpec>(&source) {
            Ok(spec) => check::check(name, &spec, source, base_dir, surroundings),
            Err(mut problems) => {
                // Single fields that cannot be read do not hide what is wrong with the others.
                if let Some(spared) = without_wrong_fields::<JobSpec>(&source, &problems) {
                    problems.extend(further::check(name, &spared, base_dir, surroundings));
                    in_file_order(&mut problems);
                    problems.truncate(PROBLEMS_MAX);
                }
                Err(JobProblems::of(source, problems))
            }
        }
    }

    /// The files of a folder that are jobs by their names, sorted: `*.ron` but for hidden ones, which editors and those who
    /// copy files leave. `x.ron.off`, `x.ron~` and `x.ron.swp` are none. What cannot be a job all the same (a folder, a
    /// pipe, a name that no job has) is among them: it is refused by name when it is read.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn files_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let is_hidden = entry.file_name().as_bytes().starts_with(b".");
            let path = entry.path();
            if !is_hidden && path.extension().is_some_and(|extension| extension == "ron") {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }

    /// Whether a job can be called so: its file is the name with `.ron` behind it.
    ///
    /// # Errors
    /// What is wrong with it, and a name that is near and good.
    pub fn check_name(name: &str) -> Result<(), Problem> {
        let usable = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        if name == "lamplighter" {
            let problem = Problem::error("", 0..0, "lamplighter.ron is the configuration, not a job");
            return Err(problem.with_help("choose another name, such as nightly-vitals"));
        }
        if name.is_empty() || !name.chars().all(usable) {
            let near: String = name.to_lowercase().chars().map(|c| if usable(c) { c } else { '-' }).collect();
            let near = near.split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-");
            let near = if near.is_empty() { "nightly-vitals" } else { &near };
            let problem = Problem::error("", 0..0, format!("{name:?} is no name of a job"));
            return Err(problem.with_help(format!("name the file with a-z, 0-9, - and _: {near}.ron")));
        }
        Ok(())
    }

    /// Reads a text from a command line as the type of the param's default: texts as they are, everything else as JSON.
    ///
    /// # Errors
    /// A sentence when there is no such param, or the text is no value of its type.
    pub fn param(&self, name: &str, text: &str) -> Result<Value, String> {
        let Some(default) = self.params.get(name) else {
            let known: Vec<&String> = self.params.as_object().into_iter().flatten().map(|(name, _)| name).collect();
            let near = crate::problem::closest(name, known.iter().map(|name| name.as_str()));
            let help = near.map_or_else(
                || format!("it has {}", if known.is_empty() { "none".to_owned() } else { join(&known) }),
                |near| format!("did you mean `{near}`?"),
            );
            return Err(format!("job `{}` has no param `{name}`: {help}", self.name));
        };
        if default.is_string() {
            return Ok(Value::String(text.to_owned()));
        }
        let value: Value = serde_json::from_str(text)
            .map_err(|error| format!("`{name}` takes {} as JSON, and {text:?} is none: {error}", what(default)))?;
        if default.is_null() || std::mem::discriminant(&value) == std::mem::discriminant(default) {
            Ok(value)
        } else {
            Err(format!("`{name}` takes {}, not {}", what(default), what(&value)))
        }
    }

    /// Reads a due time from a command line: an instant with its offset, or local time of the job's zone; true where it is a
    /// day, which begins then.
    ///
    /// # Errors
    /// A sentence when it is neither.
    pub fn due(&self, text: &str) -> Result<(jiff::Timestamp, bool), String> {
        if let Ok(instant) = text.parse::<jiff::Timestamp>() {
            return Ok((instant, false));
        }
        // A time can be read as its date, too.
        let is_day = !text.contains([':', 'T', ' ']);
        let local = text
            .parse::<jiff::civil::DateTime>()
            .or_else(|_| text.parse::<jiff::civil::Date>().map(jiff::civil::Date::into));
        let zoned = local.and_then(|local| local.to_zoned(self.zone.clone()));
        let help = "write 2026-11-23, 2026-11-23T02:30 or 2026-11-23T02:30+08:00";
        zoned.map(|zoned| (zoned.timestamp(), is_day)).map_err(|_| format!("{text:?} is no time: {help}"))
    }
}

fn join(names: &[&String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn what(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

impl CheckedJob {
    /// What is remarked on because of what comes within a year of `now`: a fixed local time that a change of the clocks moves,
    /// a run that may last until a blackout begins.
    ///
    /// ```
    /// use lamplighter::{action::Handlers, job::Job};
    ///
    /// let text = r#"Job(schedule: Cron("30 2 * * *"), timezone: "Europe/Berlin", run: [Exec(argv: ["true"])])"#;
    /// let checked = Job::from_ron("nightly", text, ".".as_ref(), &Handlers::new())?;
    /// let remarks = checked.remarks_at("2026-11-23T00:00:00Z".parse().expect("an instant"));
    /// assert!(remarks[0].message.starts_with("02:30 does not exist on 2027-03-28"));
    /// # Ok::<(), lamplighter::job::JobProblems>(())
    /// ```
    pub fn remarks_at(&self, now: jiff::Timestamp) -> Vec<Problem> {
        remarks::coming(&self.job, &self.source, now)
    }
}

impl JobProblems {
    /// As people read them.
    pub fn render(&self, color: bool) -> String {
        render(&self.problems, &self.source, color)
    }

    /// As editors read them.
    pub fn to_json(&self) -> Value {
        to_json(&self.problems, &self.source)
    }

    /// Those of a file that names no other ones.
    fn of(source: Source, problems: Vec<Problem>) -> JobProblems {
        JobProblems { source, problems, side_files: BTreeSet::new() }
    }

    /// What was kept as the definition of a run is none.
    pub(crate) fn of_definition(run: &str, message: String) -> JobProblems {
        JobProblems::whole(Path::new(run), message, "begin the job anew")
    }

    /// A problem of the file as a whole.
    fn whole(path: &Path, message: String, help: &str) -> JobProblems {
        let problem = Problem::error("", 0..0, message).with_help(help);
        JobProblems::of(Source::new(path.display().to_string(), ""), vec![problem])
    }
}

impl fmt::Display for JobProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for JobProblems {}

impl fmt::Debug for CheckedJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckedJob").field("job", &self.job.name).field("remarks", &self.remarks).finish()
    }
}

/// Reads a file that authors write: regular, not too large, UTF-8. It is judged when it is open, and opened without
/// waiting: what stands behind a name may be a pipe that nobody writes into, or another thing a moment later.
fn read_text(path: &Path) -> Result<String, JobProblems> {
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => {
            JobProblems::whole(path, "there is no such file".to_owned(), "check its name and folder")
        }
        _ => JobProblems::whole(path, format!("the file cannot be read: {error}"), "check its name and rights"),
    };
    let no_wait = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let irregular =
        || JobProblems::whole(path, "this is no regular file".into(), "name a file such as jobs/nightly.ron");
    let mut file = match fs::OpenOptions::new().read(true).custom_flags(no_wait).open(path) {
        Ok(file) => file,
        // A socket, or a device that is not there.
        Err(_) if fs::metadata(path).is_ok_and(|found| !found.is_file()) => return Err(irregular()),
        Err(error) => return Err(unreadable(error)),
    };
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err(irregular());
    }
    let mut bytes = Vec::new();
    file.by_ref().take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let message = format!("the file has more than {FILE_BYTES_MAX} bytes");
        return Err(JobProblems::whole(path, message, "move data into a file of its own, and read it with `Read`"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
        let end = at + char::REPLACEMENT_CHARACTER.len_utf8();
        let problem = Problem::error("", at..end, "from here on the file is not UTF-8")
            .with_help("save it as UTF-8: most editors ask for the encoding in `Save as`");
        JobProblems::of(Source::new(path.display().to_string(), text), vec![problem])
    })
}

/// True when any of the problems is an error.
fn has_errors(problems: &[Problem]) -> bool {
    problems.iter().any(|problem| problem.level == Level::Error)
}
