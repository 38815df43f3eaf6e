//! What the command line, `lamplighter.ron` and the environment say together.

use super::{
    Global,
    exit::Exit,
    screen::{complain, ink, say},
};
use lamplighter::{
    action::Handlers,
    api::Whereabouts,
    job::{CheckedJob, Config, Job, Surroundings},
    lang::Secret,
    limits::{GRACE_PERIOD_DEFAULT, SPOOL_BYTES_DEFAULT},
    problem::{closest, render},
    run::{RunOptions, StoreChoice},
    units::Size,
};
use std::{
    collections::BTreeMap,
    env, fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// Everything that is not said by a command's own arguments.
pub struct Settings {
    pub config: Config,
    /// Folder of `lamplighter.ron`, or where it would be: secrets stand beside it.
    pub home: PathBuf,
    pub jobs: PathBuf,
    /// Somebody says so, or the folder is there.
    names_jobs: bool,
    out: Option<PathBuf>,
    state: Option<PathBuf>,
    /// The file of the configuration, if there is one.
    file: Option<PathBuf>,
}

impl Settings {
    /// Reads the configuration, if there is one.
    pub fn read(global: &Global) -> Result<Settings, Exit> {
        let config = match Settings::config_file(global) {
            Some(path) => Config::from_file(&path).map_err(|problems| {
                say(&problems.render(ink(&std::io::stderr()).colour));
                Exit::Usage
            })?,
            None => Config::default(),
        };
        Ok(Settings::with(global, config))
    }

    /// The configuration that is named, or the one that is there.
    pub fn config_file(global: &Global) -> Option<PathBuf> {
        let path = PathBuf::from("lamplighter.ron");
        named_config(global).or_else(|| path.exists().then_some(path))
    }

    /// What the command line says beside this configuration.
    pub fn with(global: &Global, config: Config) -> Settings {
        let path = named_config(global).unwrap_or_else(|| PathBuf::from("lamplighter.ron"));
        let home = path.parent().unwrap_or(Path::new("")).to_owned();
        let below = |text: &Option<String>| text.as_ref().map(|text| home.join(text));
        let jobs = global.jobs.clone().or_else(|| below(&config.jobs));
        let names_jobs = jobs.is_some() || home.join("jobs").is_dir();
        let jobs = jobs.unwrap_or_else(|| home.join("jobs"));
        let out = global.out.clone().or_else(|| below(&config.out));
        let state = global.state.clone().or_else(|| below(&config.state));
        Settings { jobs, names_jobs, out, state, home, config, file: Settings::config_file(global) }
    }

    /// What is named of it: a default that is not there names nothing.
    pub fn named(&self) -> Whereabouts {
        Whereabouts {
            config: self.file.as_deref().map(whole),
            jobs: self.names_jobs.then(|| whole(&self.jobs)),
            out: self.out.as_deref().map(whole),
        }
    }

    /// Where it all is for a `serve`.
    pub fn whereabouts(&self) -> Whereabouts {
        Whereabouts { jobs: Some(whole(&self.jobs)), out: Some(whole(&self.out_of(&self.jobs))), ..self.named() }
    }

    /// Where the state is, if anybody says so.
    pub fn state(&self) -> Option<PathBuf> {
        self.state.clone()
    }

    /// Threads of the executor.
    pub fn threads(&self) -> usize {
        self.config.threads.unwrap_or(1).clamp(1, 64) as usize
    }

    /// What tells this machine from others: its machine id, else its name.
    pub fn machine() -> String {
        let id = ["/etc/machine-id", "/var/lib/dbus/machine-id"].iter().find_map(|path| fs::read_to_string(path).ok());
        let name = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        id.map(|id| id.trim().to_owned()).filter(|id| !id.is_empty()).unwrap_or_else(name)
    }

    /// What job files may name.
    pub fn surroundings(&self) -> Surroundings {
        Surroundings {
            handlers: Handlers::new(),
            services: self.config.services.clone().unwrap_or_default(),
            on_finish: self.config.on_finish.clone(),
            ping: self.config.ping.clone(),
            side_files: None,
        }
    }

    /// The file that `JOB|FILE` names.
    pub fn job_file(&self, named: &str) -> Result<PathBuf, Exit> {
        if is_file(named) {
            let path = PathBuf::from(named);
            if path.symlink_metadata().is_ok() {
                return Ok(path);
            }
            complain(&format!("there is no job file {named}"));
            return Err(Exit::Usage);
        }
        let path = self.jobs.join(format!("{named}.ron"));
        if path.symlink_metadata().is_ok() {
            return Ok(path);
        }
        let known = job_names(&self.jobs);
        let help = match closest(named, known.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None if known.is_empty() => format!("there is no job file in {}", self.jobs.display()),
            None => format!("{} has {}", self.jobs.display(), known.join(", ")),
        };
        complain(&format!("there is no job `{named}`: {help}"));
        Err(Exit::Usage)
    }

    /// Every file of the job folder that is a job by its name, sorted.
    ///
    /// # Errors
    /// A sentence that names the folder, when it cannot be read.
    pub fn job_files(&self) -> Result<Vec<PathBuf>, String> {
        Job::files_in(&self.jobs).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                format!("there is no job folder {}: name it with `--jobs DIR`", self.jobs.display())
            }
            _ => format!("the job folder {} cannot be read: {error}", self.jobs.display()),
        })
    }

    /// The same for a command that is about all of them: none, or no folder, is a mistake of whoever asks.
    pub fn all_job_files(&self) -> Result<Vec<PathBuf>, Exit> {
        let files = self.job_files().and_then(|files| match files.is_empty() {
            true => Err(format!("there is no job file in {}", self.jobs.display())),
            false => Ok(files),
        });
        files.map_err(|why| {
            complain(&why);
            Exit::Usage
        })
    }

    /// Reads and checks a job; problems are printed.
    pub fn job(&self, named: &str) -> Result<CheckedJob, Exit> {
        let path = self.job_file(named)?;
        match Job::from_file_in(&path, &self.surroundings()) {
            Ok(checked) => {
                if !checked.remarks.is_empty() {
                    say(&render(&checked.remarks, &checked.source, ink(&std::io::stderr()).colour));
                }
                Ok(checked)
            }
            Err(problems) => {
                say(&problems.render(ink(&std::io::stderr()).colour));
                complain(&format!("{} cannot run: nothing was done", path.display()));
                Err(Exit::Usage)
            }
        }
    }

    /// Options of a run of `job`, before a command's own arguments. `Err` says why a secret cannot be used.
    pub fn run_options(&self, job: &Job) -> Result<RunOptions, String> {
        let limit = self.config.spool_max.map_or(SPOOL_BYTES_DEFAULT, Size::bytes);
        let mut environment = BTreeMap::new();
        for name in ["PATH", "HOME", "USER", "LANG"] {
            if let Ok(value) = env::var(name) {
                environment.insert(name.to_owned(), value);
            }
        }
        Ok(RunOptions {
            secrets: self.secrets(job)?,
            out: self.out_of(&job.base_dir),
            jobs: self.jobs.clone(),
            environment,
            grace: self.config.grace_period.map_or(GRACE_PERIOD_DEFAULT, |span| span.get()),
            instance: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            store: StoreChoice::Private { folder: None, limit },
            ..RunOptions::default()
        })
    }

    /// Root of the outputs of jobs in this folder.
    fn out_of(&self, folder: &Path) -> PathBuf {
        self.out.clone().unwrap_or_else(|| match folder == Path::new(".") {
            true => PathBuf::from("out"),
            false => tidy(folder.join("..").join("out")),
        })
    }

    /// The secrets that the job names, as far as they are there; a run without one of them is not started.
    fn secrets(&self, job: &Job) -> Result<BTreeMap<String, Secret>, String> {
        let mut secrets = BTreeMap::new();
        for name in &job.secrets {
            if let Some(value) = self.secret(name)? {
                secrets.insert(name.clone(), value);
            }
        }
        Ok(secrets)
    }

    /// A systemd credential, then a file of ours that nobody else can read, then the environment. `Err` says why the file
    /// cannot be used.
    pub fn secret(&self, name: &str) -> Result<Option<Secret>, String> {
        if let Some(folder) = env::var_os("CREDENTIALS_DIRECTORY")
            && let Ok(text) = fs::read_to_string(Path::new(&folder).join(name))
        {
            return Ok(Some(Secret::new(text.trim_end_matches(['\n', '\r']))));
        }
        let path = self.secret_file(name);
        if let Ok(meta) = fs::metadata(&path) {
            if meta.permissions().mode() & 0o077 != 0 {
                return Err(format!("{} can be read by others: chmod 600 {}", path.display(), path.display()));
            }
            return match fs::read_to_string(&path) {
                Ok(text) if text.trim().is_empty() => Err(format!("the secret {} is empty", path.display())),
                Ok(text) => Ok(Some(Secret::new(text.trim_end_matches(['\n', '\r'])))),
                Err(error) => Err(format!("the secret {} cannot be read: {error}", path.display())),
            };
        }
        // An empty variable is how a shell script says that there is none.
        Ok(env::var(Settings::secret_variable(name)).ok().filter(|value| !value.is_empty()).map(Secret::new))
    }

    /// Where the file of a secret would be.
    pub fn secret_file(&self, name: &str) -> PathBuf {
        self.home.join("secrets").join(name)
    }

    /// The variable of the environment that may hold a secret.
    pub fn secret_variable(name: &str) -> String {
        format!("LAMPLIGHTER_SECRET_{}", name.to_uppercase())
    }
}

/// Whether `JOB|FILE` names a file.
pub fn is_file(named: &str) -> bool {
    named.contains('/') || named.ends_with(".ron")
}

/// Names of the jobs in a folder: for help alone.
pub fn job_names(folder: &Path) -> Vec<String> {
    Job::files_in(folder).unwrap_or_default().iter().filter_map(|path| job_name(path)).collect()
}

/// The job that a file of the job folder has.
pub fn job_name(file: &Path) -> Option<String> {
    file.file_stem().map(|stem| stem.to_string_lossy().into_owned())
}

/// A path from the root on, without links as far as it is there.
fn whole(path: &Path) -> String {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let there = path.ancestors().find_map(|part| Some((part.canonicalize().ok()?, path.strip_prefix(part).ok()?)));
    // Joined with nothing it would end with a slash.
    let whole = there.map(|(there, rest)| if rest.as_os_str().is_empty() { there } else { there.join(rest) });
    whole.unwrap_or(path).to_string_lossy().into_owned()
}

/// The configuration that the command line or the environment names.
fn named_config(global: &Global) -> Option<PathBuf> {
    global.config.clone().or_else(|| env::var_os("LAMPLIGHTER_CONFIG").map(PathBuf::from))
}

/// `jobs/../out` is `out`.
fn tidy(path: PathBuf) -> PathBuf {
    let mut tidy = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir if tidy.file_name().is_some_and(|name| name != "..") => {
                tidy.pop();
            }
            part => tidy.push(part),
        }
    }
    tidy
}
