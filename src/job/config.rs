//! `lamplighter.ron`: what is said once for a gateway.

use super::{JobProblems, spec::NotifySpec};
use crate::{
    problem::{Source, load},
    service::ServiceSpec,
    units::{Size, Span},
};
use std::path::Path;

crate::spec! {
    /// The configuration of a gateway. Every field has a default, and the file may be absent.
    pub struct Config as "Config" {
        /// Folder of the job files.
        jobs: Option<String>, default "jobs", example "\"/etc/lamplighter/jobs\"";
        /// Folder below which outputs are written.
        out: Option<String>, default "out", example "\"/var/lib/lamplighter/out\"";
        /// Threads of the executor.
        threads: Option<u32>, default "1", example "2";
        /// What is cancelled may use this long before it is killed.
        grace_period: Option<Span>, default "10s", example "\"30s\"";
        /// Most bytes of the private store of a run.
        spool_max: Option<Size>, default "256MB", example "\"64MB\"";
        /// Services of all jobs; a job's own of the same name wins.
        services: Option<Vec<ServiceSpec>>, example "[Service(name: \"vendor\", base: \"https://api.vendor.example\")]";
        /// What is done after the runs of every job without its own.
        on_finish: Option<Vec<NotifySpec>>, example "[Notify(run: [Exec(argv: [\"logger\", \"{{ run.summary }}\"])])]";
    }
}

impl Config {
    /// Reads a configuration.
    ///
    /// # Errors
    /// Every problem of the file.
    pub fn from_ron(name: &str, text: &str) -> Result<Config, JobProblems> {
        let source = Source::new(name, text);
        load::<Config>(&source).map_err(|problems| JobProblems { source, problems })
    }

    /// Reads a configuration file.
    ///
    /// # Errors
    /// Every problem of the file, or that it cannot be read.
    pub fn from_file(path: &Path) -> Result<Config, JobProblems> {
        let text = super::read_text(path)?;
        Config::from_ron(&path.display().to_string(), &text)
    }
}

#[expect(clippy::derivable_impls, reason = "the declaration of what authors write derives for all alike")]
impl Default for Config {
    fn default() -> Config {
        Config {
            jobs: None,
            out: None,
            threads: None,
            grace_period: None,
            spool_max: None,
            services: None,
            on_finish: None,
        }
    }
}
