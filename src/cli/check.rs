//! `lamplighter check`: everything that is wrong with job files.

use super::{
    Format, Global,
    exit::Exit,
    screen::{complain, ink, print},
    settings::Settings,
};
use async_executor::Executor;
use lamplighter::{
    action::Handlers,
    job::{CheckedConfig, CheckedJob, Config, Job, JobProblems},
    problem::{Level, Problem, Source, in_file_order, render, to_json},
    world::World,
};
use std::{
    collections::BTreeSet,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Arguments of `check`.
#[derive(clap::Args)]
pub struct CheckArguments {
    /// Job files or folders of them [default: the job folder]
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Remarks fail the check as well
    #[arg(long)]
    strict: bool,
    /// How the problems are printed
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
}

/// Runs the command.
pub fn main(global: &Global, arguments: &CheckArguments) -> Exit {
    // The configuration is a file as the others: what is wrong with it is said, and the jobs are looked at all the same.
    let config_file = Settings::config_file(global);
    let config = config_file.as_deref().map(|path| Config::checked(path, &Handlers::new()));
    let usable = match &config {
        Some(Ok(checked)) => Some(checked.config.clone()),
        Some(Err(_)) => None,
        None => Some(Config::default()),
    };
    let broken = usable.is_none();
    let settings = Settings::with(global, usable.unwrap_or_default());
    let files = match files(&settings, &arguments.paths) {
        Ok(files) => files,
        // A broken configuration may name the wrong folder: it comes first.
        Err(_) if broken => Vec::new(),
        Err(exit) => return exit,
    };
    let mut all: Vec<(PathBuf, Source, Vec<Problem>)> = Vec::new();
    if let (Some(path), Some(config)) = (config_file, config)
        && (arguments.paths.is_empty() || broken)
        && !files.contains(&path)
    {
        let (source, problems) = of_config(&settings, config);
        all.push((path, source, problems));
    }
    let now = World::real(Arc::new(Executor::new())).wall();
    for path in files {
        let (source, mut problems) = problems(&settings, &path, now);
        if broken {
            // Whether a service stands there is not known.
            problems.retain(|problem| !problem.path.ends_with(".via"));
        }
        all.push((path, source, problems));
    }
    let count = |level: Level| all.iter().flat_map(|(.., found)| found).filter(|found| found.level == level).count();
    let (errors, remarks) = (count(Level::Error), count(Level::Remark));
    let exit = if errors > 0 || arguments.strict && remarks > 0 { Exit::Usage } else { Exit::Done };
    let text = match arguments.format {
        Format::Human => human(&all, errors, remarks),
        Format::Json => {
            let each = all.iter().map(|(_, source, problems)| to_json(problems, source));
            let flat: Vec<_> = each.flat_map(|list| list.as_array().cloned().unwrap_or_default()).collect();
            format!("{}\n", serde_json::Value::from(flat))
        }
    };
    exit.after(print(&text))
}

fn human(all: &[(PathBuf, Source, Vec<Problem>)], errors: usize, remarks: usize) -> String {
    let colour = ink(&std::io::stdout()).colour;
    let mut text = String::new();
    for (path, source, problems) in all {
        if problems.is_empty() {
            text.push_str(&format!("{}: ok\n", path.display()));
        } else {
            text.push_str(&render(problems, source, colour));
        }
    }
    if all.len() > 1 || errors + remarks > 0 {
        let many = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        let counts = [many(all.len(), "file"), many(errors, "error"), many(remarks, "remark")];
        text.push_str(&format!("{}\n", counts.join(", ")));
    }
    text
}

fn problems(settings: &Settings, path: &Path, now: jiff::Timestamp) -> (Source, Vec<Problem>) {
    if path.file_name().is_some_and(|name| name == "lamplighter.ron") {
        return of_config(settings, Config::checked(path, &Handlers::new()));
    }
    match Job::from_file_in(path, &settings.surroundings()) {
        Ok(checked) => {
            let coming = checked.remarks_at(now);
            let CheckedJob { job, source, mut remarks } = checked;
            remarks.extend(coming);
            absent_secrets(settings, &job.secrets, &source, &mut remarks);
            (source, remarks)
        }
        Err(problems) => (problems.source, problems.problems),
    }
}

fn of_config(settings: &Settings, checked: Result<CheckedConfig, JobProblems>) -> (Source, Vec<Problem>) {
    match checked {
        Ok(CheckedConfig { source, mut remarks, secrets, .. }) => {
            absent_secrets(settings, &secrets, &source, &mut remarks);
            (source, remarks)
        }
        Err(problems) => (problems.source, problems.problems),
    }
}

/// Remarks on secrets that a run would not find, where they are first named.
fn absent_secrets(settings: &Settings, names: &BTreeSet<String>, source: &Source, remarks: &mut Vec<Problem>) {
    for name in names {
        let message = match settings.secret(name) {
            Ok(Some(_)) => continue,
            Ok(None) => format!("the secret `{name}` is not there yet: no run could start"),
            Err(problem) => problem,
        };
        let (file, variable) = (settings.secret_file(name), Settings::secret_variable(name));
        let help = format!("put it into the file {} (chmod 600) or the variable {variable}", file.display());
        remarks.push(Problem::remark("", first_use(&source.text, name), message).with_help(help));
    }
    in_file_order(remarks);
}

/// Where `secret.NAME` stands first; the beginning of the file when only a side file names it.
fn first_use(text: &str, name: &str) -> Range<usize> {
    let wanted = format!("secret.{name}");
    let whole = |end: usize| !text[end..].starts_with(|c: char| c.is_alphanumeric() || c == '_');
    let mut places = text.match_indices(&wanted).map(|(at, _)| at..at + wanted.len());
    places.find(|place| whole(place.end)).unwrap_or(0..0)
}

/// The files that are meant: those named, those of folders that are named, or those of the job folder.
fn files(settings: &Settings, paths: &[PathBuf]) -> Result<Vec<PathBuf>, Exit> {
    if paths.is_empty() {
        return settings.all_job_files();
    }
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            let found = Job::files_in(path).map_err(|error| {
                complain(&format!("the folder {} cannot be read: {error}", path.display()));
                Exit::Usage
            })?;
            if found.is_empty() {
                complain(&format!("there is no job file in {}", path.display()));
                return Err(Exit::Usage);
            }
            files.extend(found);
        } else if path.symlink_metadata().is_err() {
            complain(&format!("there is no file or folder {}", path.display()));
            return Err(Exit::Usage);
        } else {
            files.push(path.clone());
        }
    }
    Ok(files)
}
