//! `lamplighter new`: a job file to begin with. It passes `check --strict` as it is, and its comments say what to change.

use super::{
    Global,
    exit::Exit,
    screen::{complain, ink, print},
    settings::Settings,
};
use lamplighter::{job::Job, report::Tone};
use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::Path,
};

/// Arguments of `new`.
#[derive(clap::Args)]
pub struct NewArguments {
    /// Name of the job: its file will be NAME.ron in the job folder
    #[arg(value_name = "NAME")]
    name: String,
    /// What it begins with
    #[arg(long, value_enum, default_value = "command")]
    template: Template,
}

/// Jobs to begin with.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Template {
    /// One command, tried again when it fails
    Command,
    /// A call for each row of a table, and a report
    Items,
}

/// Stands for the job's name in a template.
const NAME: &str = "NAME";

impl Template {
    /// Its files, by their path below the job folder.
    fn files(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Template::Command => &[("NAME.ron", include_str!("new/command.ron"))],
            // The job comes last: it is there only when all that it needs is.
            Template::Items => {
                &[("NAME/items.csv", include_str!("new/items.csv")), ("NAME.ron", include_str!("new/items.ron"))]
            }
        }
    }

    /// What is changed first.
    fn first(self) -> &'static str {
        match self {
            Template::Command => "the command in `run`, the time in `schedule`",
            Template::Items => "the rows of items.csv, the address in `params`, the call in stage 2",
        }
    }
}

/// Runs the command.
pub fn main(global: &Global, arguments: &NewArguments) -> Exit {
    let name = arguments.name.strip_suffix(".ron").unwrap_or(&arguments.name);
    if let Err(problem) = Job::check_name(name) {
        complain(&format!("{}: {}", problem.message, problem.help.unwrap_or_default()));
        return Exit::Usage;
    }
    let settings = match Settings::read(global) {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    let files = arguments.template.files().iter().map(|(path, text)| {
        let named = |text: &str| text.replace(NAME, name);
        (settings.jobs.join(named(path)), named(text))
    });
    let files: Vec<_> = files.collect();
    let off = settings.jobs.join(format!("{name}.ron.off"));
    let there = files.iter().map(|(path, _)| path).chain([&off]).find(|path| path.symlink_metadata().is_ok());
    if let Some(path) = there {
        complain(&format!("{} is there already: nothing was written; choose another name", path.display()));
        return Exit::Usage;
    }
    for (path, text) in &files {
        if let Err(error) = write_new(path, text) {
            complain(&format!("{} cannot be written: {error}", path.display()));
            return Exit::Io;
        }
    }
    let strong = |text: &str| ink(&io::stdout()).paint(Tone::Strong, text);
    let mut text = String::new();
    for (path, _) in files.iter().rev() {
        text.push_str(&format!("{} is written.\n", strong(&path.display().to_string())));
    }
    text.push_str(&format!(
        "\nNext:\n\n  \
         change it     {}\n  \
         check it      lamplighter check\n  \
         try it        lamplighter run {name} --dry-run\n  \
         run it        lamplighter run {name}\n  \
         a field       lamplighter explain stage.tolerate\n",
        arguments.template.first()
    ));
    Exit::Done.after(print(&text))
}

/// Writes a file that is not there yet, and its folders.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
