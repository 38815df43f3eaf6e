//! `lamplighter check`: everything that is wrong with job files.

use super::{
    Format, Global,
    exit::Exit,
    screen::{complain, ink, print},
    settings::Settings,
};
use lamplighter::{
    job::{Config, Job},
    problem::{Level, Problem, Source, render, to_json},
};
use std::path::{Path, PathBuf};

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
    let settings = match Settings::read(global) {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    let files = match files(&settings, &arguments.paths) {
        Ok(files) => files,
        Err(exit) => return exit,
    };
    let (mut errors, mut remarks) = (0, 0);
    let (mut text, mut json) = (String::new(), Vec::new());
    let colour = ink(&std::io::stdout()).colour;
    for path in &files {
        let (source, problems) = problems(&settings, path);
        errors += problems.iter().filter(|problem| problem.level == Level::Error).count();
        remarks += problems.iter().filter(|problem| problem.level == Level::Remark).count();
        match arguments.format {
            Format::Human if problems.is_empty() => text.push_str(&format!("{}: ok\n", path.display())),
            Format::Human => text.push_str(&render(&problems, &source, colour)),
            Format::Json => json.extend(to_json(&problems, &source).as_array().cloned().unwrap_or_default()),
        }
    }
    match arguments.format {
        Format::Json => text = format!("{}\n", serde_json::Value::from(json)),
        Format::Human if files.len() > 1 || errors + remarks > 0 => {
            let many = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
            let counts = [many(files.len(), "file"), many(errors, "error"), many(remarks, "remark")];
            text.push_str(&format!("{}\n", counts.join(", ")));
        }
        Format::Human => {}
    }
    let exit = if errors > 0 || arguments.strict && remarks > 0 { Exit::Usage } else { Exit::Done };
    exit.after(print(&text))
}

fn problems(settings: &Settings, path: &Path) -> (Source, Vec<Problem>) {
    if path.file_name().is_some_and(|name| name == "lamplighter.ron") {
        return match Config::from_file(path) {
            Ok(_) => (Source::new("", ""), Vec::new()),
            Err(problems) => (problems.source, problems.problems),
        };
    }
    match Job::from_file_in(path, &settings.surroundings()) {
        Ok(checked) => (checked.source, checked.remarks),
        Err(problems) => (problems.source, problems.problems),
    }
}

/// The files that are meant: those named, those of folders that are named, or those of the job folder.
fn files(settings: &Settings, paths: &[PathBuf]) -> Result<Vec<PathBuf>, Exit> {
    if paths.is_empty() {
        let files = settings.job_files();
        if files.is_empty() {
            complain(&format!("there is no job file in {}", settings.jobs.display()));
            return Err(Exit::Usage);
        }
        return Ok(files);
    }
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            let entries = std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
            let mut found: Vec<PathBuf> =
                entries.filter(|path| path.extension().is_some_and(|ext| ext == "ron")).collect();
            found.sort();
            if found.is_empty() {
                complain(&format!("there is no job file in {}", path.display()));
                return Err(Exit::Usage);
            }
            files.extend(found);
        } else if !path.exists() {
            complain(&format!("there is no file or folder {}", path.display()));
            return Err(Exit::Usage);
        } else {
            files.push(path.clone());
        }
    }
    Ok(files)
}
