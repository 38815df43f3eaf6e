//! `lamplighter new`: a job file to begin with, which passes `check --strict` as it is and whose comments say what to change;
//! or one for each line of a crontab.

use super::{
    Global,
    crontab::{self, Reading, Written},
    exit::Exit,
    screen::{complain, ink, print, say},
    settings::Settings,
};
use lamplighter::{job::Job, limits::FILE_BYTES_MAX, problem::Source, report::Tone};
use std::{
    env,
    fs::{self, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

/// Arguments of `new`.
#[derive(clap::Args)]
pub struct NewArguments {
    /// Name of the job: its file will be NAME.ron in the job folder
    #[arg(value_name = "NAME", required_unless_present = "from_crontab")]
    name: Option<String>,
    /// What it begins with
    #[arg(long, value_enum, default_value = "command")]
    template: Template,
    /// A job for each line of a crontab instead; `-` reads standard input: crontab -l | lamplighter new --from-crontab -
    #[arg(long, value_name = "FILE", conflicts_with_all = ["name", "template"])]
    from_crontab: Option<PathBuf>,
    /// Its lines name a user before the command. So it is with /etc/crontab and what is in /etc/cron.d
    #[arg(long, requires = "from_crontab")]
    system: bool,
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
    if let Some(file) = &arguments.from_crontab {
        return from_crontab(global, file, arguments.system).unwrap_or_else(|exit| exit);
    }
    let name = arguments.name.as_deref().unwrap_or_default();
    let name = name.strip_suffix(".ron").unwrap_or(name);
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
    if let Err(exit) = write_all(&files, &[off], "choose another name") {
        return exit;
    }
    let mut text = String::new();
    for (path, _) in files.iter().rev() {
        text.push_str(&is_written(path));
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

/// One job file for each line of a crontab, all of them or none.
fn from_crontab(global: &Global, file: &Path, system: bool) -> Result<Exit, Exit> {
    let settings = Settings::read(global)?;
    let label = if file == Path::new("-") { "crontab".to_owned() } else { file.display().to_string() };
    let text = read_text(file).map_err(|why| {
        complain(&format!("{label} cannot be read: {why}"));
        Exit::Usage
    })?;
    let (user, home) = (user(), env::var("HOME").ok());
    let is_system = system || file == Path::new("/etc/crontab") || file.parent() == Some(Path::new("/etc/cron.d"));
    let reading = Reading { system: is_system, user: user.as_deref(), home: home.as_deref() };
    let jobs = crontab::jobs(&text, &label, &reading).map_err(|wrong| {
        for wrong in wrong {
            complain(&format!("{label}:{}:{}: {}: {}", wrong.line, wrong.column, wrong.message, wrong.help));
        }
        complain("nothing was written");
        Exit::Usage
    })?;
    if jobs.is_empty() {
        say(&format!("lamplighter: {label} has no line that starts something: nothing was written"));
        return Ok(Exit::Done);
    }
    jobs.iter().try_for_each(|job| is_accepted(job, &settings, &label))?;
    let place = |job: &Written, ending: &str| settings.jobs.join(format!("{}.{ending}", job.name));
    let ending = |job: &Written| if job.of.is_some() { "ron.off" } else { "ron" };
    let files: Vec<_> = jobs.iter().map(|job| (place(job, ending(job)), job.text.clone())).collect();
    let taken: Vec<_> = jobs.iter().flat_map(|job| [place(job, "ron"), place(job, "ron.off")]).collect();
    write_all(&files, &taken, "move it away, or name another folder by `--jobs DIR`")?;
    for job in &jobs {
        for remark in &job.remarks {
            say(&format!("{label}:{}: {}: {remark}", job.line, job.name));
        }
    }
    let mut text: String = files.iter().map(|(path, _)| is_written(path)).collect();
    text.push_str(
        "\nNext:\n\n  \
         check them    lamplighter check\n  \
         when          lamplighter next\n  \
         try one       lamplighter run NAME\n\n\
         Take the lines out of the crontab before `lamplighter serve` has this folder: else both start them.\n",
    );
    Ok(Exit::Done.after(print(&text)))
}

/// A job that was made of a line passes the check, or the line is named.
fn is_accepted(job: &Written, settings: &Settings, label: &str) -> Result<(), Exit> {
    let source = Source::new(format!("{}.ron", job.name), &*job.text);
    Job::from_source(&job.name, source, &settings.jobs, &settings.surroundings()).map(drop).map_err(|problems| {
        say(&problems.render(ink(&io::stderr()).colour));
        complain(&format!("{label}:{}:1: no job can be made of this line: nothing was written", job.line));
        Exit::Usage
    })
}

/// The text of a file, or of standard input.
fn read_text(file: &Path) -> Result<String, String> {
    let mut text = Vec::new();
    let read = match file == Path::new("-") {
        true => io::stdin().lock().take(FILE_BYTES_MAX + 1).read_to_end(&mut text),
        false => fs::File::open(file).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text)),
    };
    read.map_err(|error| error.to_string())?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("it has more than {FILE_BYTES_MAX} bytes"));
    }
    String::from_utf8(text).map_err(|error| format!("byte {} is no UTF-8", error.utf8_error().valid_up_to()))
}

/// Name of the user that runs this program.
fn user() -> Option<String> {
    let id = rustix::process::getuid().as_raw().to_string();
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let found = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == id).then(|| name.to_owned())
    });
    found.or_else(|| env::var("USER").ok())
}

fn is_written(path: &Path) -> String {
    format!("{} is written.\n", ink(&io::stdout()).paint(Tone::Strong, &path.display().to_string()))
}

/// Writes files in their order, none of them when one of them or of `taken` is there.
fn write_all(files: &[(PathBuf, String)], taken: &[PathBuf], remedy: &str) -> Result<(), Exit> {
    let there = files.iter().map(|(path, _)| path).chain(taken).find(|path| path.symlink_metadata().is_ok());
    if let Some(path) = there {
        complain(&format!("{} is there already: nothing was written; {remedy}", path.display()));
        return Err(Exit::Usage);
    }
    for (place, (path, text)) in files.iter().enumerate() {
        if let Err(error) = write_new(path, text) {
            complain(&format!("{} cannot be written: {error}: nothing was written", path.display()));
            // Half of them would be taken for all of them.
            for (path, _) in &files[..place] {
                let _ = fs::remove_file(path);
            }
            return Err(Exit::Io);
        }
    }
    Ok(())
}

/// Writes a file that is not there yet, and its folders.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    if written.is_err() {
        // Half of it would be taken for all of it.
        let _ = fs::remove_file(path);
    }
    written
}
