//! `lamplighter.ron`: what is said once for a gateway.

use super::{
    JobProblems, check,
    spec::{NotifySpec, PingSpec},
};
use crate::{
    action::Handlers,
    lang::{Finding, Level},
    limits::{
        HISTORY_AGE_DEFAULT, HISTORY_BYTES_DEFAULT, HISTORY_RUNS_DEFAULT, RUNNING_JOBS_MAX, SPOOL_BYTES_MIN,
        THREADS_MAX,
    },
    problem::{Problem, Source, load},
    service::ServiceSpec,
    store::Retention,
    units::{Size, Span},
};
use std::{collections::BTreeSet, path::Path};

crate::spec! {
    /// The configuration of a gateway. Every field has a default, and the file may be absent.
    pub struct Config as "Config" {
        /// Folder of the job files.
        jobs: Option<String>, default "jobs", example "\"/etc/lamplighter/jobs\"";
        /// Folder below which outputs are written.
        out: Option<String>, default "out", example "\"/var/lib/lamplighter/out\"";
        /// Folder of what is kept of runs.
        state: Option<String>, default "$XDG_STATE_HOME/lamplighter", example "\"/var/lib/lamplighter/state\"";
        /// How much is kept of runs that have ended.
        history: Option<HistorySpec>, default "History()", example "History(max_runs: 400, max_age: \"400d\")";
        /// Threads of the executor.
        threads: Option<u32>, default "1", example "2";
        /// Runs of `serve` at a time; what is due beyond waits.
        max_running_jobs: Option<u32>, default "4", example "2";
        /// Between two runs of `serve` that make up for missed times.
        catch_up_delay: Option<Span>, default "30s", example "\"2m\"";
        /// When `serve` believes the wall clock; until then nothing starts by the calendar.
        clock: Option<ClockSpec>, default "Auto", example "WaitForSync(max_wait: \"10m\")";
        /// What is cancelled may use this long before it is killed.
        grace_period: Option<Span>, default "10s", example "\"30s\"";
        /// Most bytes of the private store of a run.
        spool_max: Option<Size>, default "256MB", example "\"64MB\"";
        /// Services of all jobs; a job's own of the same name wins.
        services: Option<Vec<ServiceSpec>>, example "[Service(name: \"vendor\", base: \"https://api.vendor.example\")]";
        /// What is done after the runs of every job without its own.
        on_finish: Option<Vec<NotifySpec>>, example "[Notify(run: [Exec(argv: [\"logger\", \"{{ run.summary }}\"])])]";
        /// URLs of a service that watches over every job without its own, from outside.
        ping: Option<PingSpec>, example "Ping(success: \"https://hc.example/{{ run.job }}\", failure: \"https://hc.example/{{ run.job }}/fail\")";
    }
}

crate::choice! {
    /// When the wall clock is believed.
    pub enum ClockSpec as "Clock" {
        /// When something has set it by the network, or it may be right and has a battery, or the machine has run for 10 minutes.
        Auto,
        /// From the start.
        Trusted,
        /// When something has set it by the network.
        WaitForSync { WaitForSyncSpec } example "WaitForSync(max_wait: \"10m\")",
    }
}

crate::spec! {
    /// When something has set the clock by the network.
    pub struct WaitForSyncSpec as "WaitForSync" {
        /// One that may be right is believed when the machine has run so long.
        max_wait: Option<Span>, default "10m", example "\"30m\"";
    }
}

crate::spec! {
    /// How much is kept of runs that have ended: whichever bound is met first.
    pub struct HistorySpec as "History" {
        /// Runs of one job.
        max_runs: Option<u32>, default "100", example "400";
        /// How long ago they may have ended.
        max_age: Option<Span>, default "30d", example "\"400d\"";
        /// Bytes of the state: above it the items of the oldest runs go, their summaries stay.
        max_bytes: Option<Size>, default "64MB", example "\"1GB\"";
    }
}

/// A configuration that can be used, and what was remarked on.
#[derive(Debug)]
pub struct CheckedConfig {
    /// The configuration.
    pub config: Config,
    /// Its file.
    pub source: Source,
    /// Remarks: it can be used, but something in it is probably not meant so.
    pub remarks: Vec<Problem>,
    /// Secrets that its texts name.
    pub secrets: BTreeSet<String>,
}

impl Config {
    /// Reads a configuration. Its services, notices and pings are checked with each job that uses them; [`Config::checked`] looks
    /// at all of them.
    ///
    /// # Errors
    /// Every problem of the file.
    pub fn from_ron(name: &str, text: &str) -> Result<Config, JobProblems> {
        let source = Source::new(name, text);
        let config = load::<Config>(&source).map_err(|problems| JobProblems::of(source.clone(), problems))?;
        let problems = check::in_order(config.mistakes(), &source);
        if problems.is_empty() { Ok(config) } else { Err(JobProblems::of(source, problems)) }
    }

    /// Reads a configuration file.
    ///
    /// # Errors
    /// Every problem of the file, or that it cannot be read.
    pub fn from_file(path: &Path) -> Result<Config, JobProblems> {
        let text = super::read_text(path)?;
        Config::from_ron(&path.display().to_string(), &text)
    }

    /// Reads a configuration file and checks its services, notices and pings as well, as far as that goes without the jobs that
    /// use them: any param may exist.
    ///
    /// # Errors
    /// Every problem of the file, or that it cannot be read.
    pub fn checked(path: &Path, handlers: &Handlers) -> Result<CheckedConfig, JobProblems> {
        let source = Source::new(path.display().to_string(), super::read_text(path)?);
        let config = load::<Config>(&source).map_err(|problems| JobProblems::of(source.clone(), problems))?;
        let base_dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let services = config.services.as_deref().unwrap_or_default();
        let notices = config.on_finish.as_deref().unwrap_or_default();
        let shared = (services, notices, config.ping.as_ref());
        let (problems, secrets) = check::check_shared(shared, config.mistakes(), &source, base_dir, handlers);
        if super::has_errors(&problems) {
            return Err(JobProblems::of(source, problems));
        }
        Ok(CheckedConfig { config, source, remarks: problems, secrets })
    }

    /// What is kept of runs that have ended, as of now.
    pub fn retention(&self, now_ms: i64) -> Retention {
        let history = self.history.as_ref();
        let age = history.and_then(|history| history.max_age).map_or(HISTORY_AGE_DEFAULT, Span::get);
        Retention {
            max_runs: history.and_then(|history| history.max_runs).map_or(HISTORY_RUNS_DEFAULT, u64::from),
            max_age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
            max_bytes: history.and_then(|history| history.max_bytes).map_or(HISTORY_BYTES_DEFAULT, Size::bytes),
            now_ms,
        }
    }

    /// Values of its own that cannot be.
    fn mistakes(&self) -> Vec<Finding> {
        let mut mistakes = Vec::new();
        let mut error = |path: &str, message: String, help: &str| {
            let (path, help) = (path.to_owned(), Some(help.to_owned()));
            mistakes.push(Finding { level: Level::Error, path, within: None, message, help });
        };
        for (field, folder) in [("jobs", &self.jobs), ("out", &self.out), ("state", &self.state)] {
            if folder.as_ref().is_some_and(|folder| folder.trim().is_empty()) {
                error(field, format!("`{field}` names no folder"), "write the path of a folder, or leave it out");
            }
        }
        if self.threads.is_some_and(|threads| !(1..=THREADS_MAX).contains(&threads)) {
            error("threads", format!("`threads` must be 1 to {THREADS_MAX}"), "write `threads: 2`, or leave it out");
        }
        if self.max_running_jobs.is_some_and(|jobs| !(1..=RUNNING_JOBS_MAX).contains(&jobs)) {
            let message = format!("`max_running_jobs` must be 1 to {RUNNING_JOBS_MAX}");
            error("max_running_jobs", message, "write `max_running_jobs: 4`, or leave it out");
        }
        if self.spool_max.is_some_and(|size| size.bytes() < SPOOL_BYTES_MIN) {
            let message = format!("`spool_max` must be at least {SPOOL_BYTES_MIN} bytes");
            error("spool_max", message, "write `spool_max: \"64MB\"`, or leave it out");
        }
        mistakes
    }
}

#[expect(clippy::derivable_impls, reason = "the declaration of what authors write derives for all alike")]
impl Default for Config {
    fn default() -> Config {
        Config {
            jobs: None,
            out: None,
            state: None,
            history: None,
            threads: None,
            max_running_jobs: None,
            catch_up_delay: None,
            clock: None,
            grace_period: None,
            spool_max: None,
            services: None,
            on_finish: None,
            ping: None,
        }
    }
}
