//! `lamplighter status` and `lamplighter list`: how jobs are, and what there is.

use super::{
    Format, Global,
    exit::Exit,
    run::lost,
    screen::{self, complain, print},
    settings::Settings,
    state::{Access, Opened, say_there_is_none},
    talk::{self, Heard},
};
use async_executor::Executor;
use jiff::{Timestamp, tz::TimeZone};
use lamplighter::{
    api::{Answer, Request},
    daemon::{JobStatus, Overview, look_at},
    item::RunOutcome,
    job::Job,
    problem::closest,
    report::{Ink, Tone, cells, span, table, tone_of},
    run::rfc3339,
    world::World,
};
use serde_json::json;
use std::{io::IsTerminal, sync::Arc, time::Duration};

/// Arguments of `status`.
#[derive(clap::Args)]
pub struct StatusArguments {
    /// Name of a job [default: all]
    #[arg(value_name = "JOB")]
    job: Option<String>,
    /// Only jobs that are overdue; the exit code is 1 when there are any
    #[arg(long)]
    overdue: bool,
    /// Times in UTC instead of the job's zone
    #[arg(long)]
    utc: bool,
    /// How it is printed
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
}

/// Arguments of `list`.
#[derive(clap::Args)]
pub struct ListArguments {
    /// How it is printed
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
}

/// Runs `status`.
pub fn main(global: &Global, arguments: &StatusArguments) -> Exit {
    status(global, arguments).unwrap_or_else(|exit| exit)
}

fn status(global: &Global, arguments: &StatusArguments) -> Result<Exit, Exit> {
    let Seen { mut overview, is_silent } = overview(global, true)?;
    if arguments.utc {
        overview.jobs.iter_mut().for_each(in_utc);
    }
    if let Some(job) = &arguments.job {
        if overview.jobs.iter().all(|status| status.job != *job) {
            let near = closest(job, overview.jobs.iter().map(|status| status.job.as_str()));
            let help =
                near.map_or("`lamplighter list` names them".to_owned(), |near| format!("did you mean `{near}`?"));
            complain(&format!("there is no job `{job}`: {help}"));
            return Err(Exit::Usage);
        }
        overview.jobs.retain(|status| status.job == *job);
    }
    let text = {
        let shown = Overview {
            jobs: overview.jobs.iter().filter(|job| !arguments.overdue || job.overdue).cloned().collect(),
            ..overview.clone()
        };
        match arguments.format {
            Format::Json => format!("{}\n", serde_json::to_string(&shown).unwrap_or_default()),
            Format::Human => {
                let stdout = std::io::stdout();
                let width = stdout.is_terminal().then(|| screen::size().0);
                let board = Board { ink: screen::ink(&stdout), width, whole: arguments.job.is_some(), is_silent };
                board.text(&overview, &shown.jobs)
            }
        }
    };
    let any = arguments.overdue && overview.jobs.iter().any(|job| job.overdue);
    let exit = if any { Exit::Failed } else { Exit::Done };
    Ok(exit.after(print(&text)))
}

/// Runs `list`.
pub fn list(global: &Global, arguments: &ListArguments) -> Exit {
    let overview = match overview(global, false) {
        Ok(Seen { overview, .. }) => overview,
        Err(exit) => return exit,
    };
    if arguments.format == Format::Json {
        let job = |job: &JobStatus| {
            json!({
                "job": job.job, "description": job.description, "schedule": job.schedule, "zone": job.zone,
                "next": job.next, "paused": job.paused, "problem": job.problem,
            })
        };
        let jobs: Vec<_> = overview.jobs.iter().map(job).collect();
        return Exit::Done.after(print(&format!("{}\n", json!({ "served": overview.served, "jobs": jobs }))));
    }
    let ink = screen::ink(&std::io::stdout());
    let row = |job: &JobStatus| {
        let schedule = match (&job.problem, job.schedule.is_empty()) {
            (Some(_), true) => ink.paint(Tone::Bad, "its file has errors"),
            _ => job.schedule.clone(),
        };
        let zone = ink.paint(Tone::Faint, &job.zone);
        vec![ink.paint(Tone::Strong, &job.job), schedule, zone, job.description.clone().unwrap_or_default()]
    };
    let text = table(&[], &overview.jobs.iter().map(row).collect::<Vec<_>>(), &[]);
    let width = std::io::stdout().is_terminal().then(|| screen::size().0);
    Exit::Done.after(print(&text.lines().map(|line| cut(line, width) + "\n").collect::<String>()))
}

/// The same with all its times in UTC.
fn in_utc(job: &mut JobStatus) {
    let times = [&mut job.next, &mut job.paused_until, &mut job.overdue_since].into_iter().flatten();
    let times = times.chain(job.waiting.iter_mut().map(|waiting| &mut waiting.due));
    for time in times.chain(job.last.iter_mut().map(|last| &mut last.ended)) {
        if let Ok(instant) = time.parse::<Timestamp>() {
            *time = rfc3339(instant, &TimeZone::UTC);
        }
    }
}

/// All jobs, and whether a `serve` should have told of them and did not.
struct Seen {
    overview: Overview,
    is_silent: bool,
}

/// What the daemon says; without one that answers, what files and state say.
fn overview(global: &Global, with_runs: bool) -> Result<Seen, Exit> {
    let settings = Settings::read(global)?;
    let request = if with_runs { Request::Overview } else { Request::List };
    let is_silent = match talk::hear(&settings, &request)? {
        Heard::Answer(Answer::Overview(overview)) => return Ok(Seen { overview, is_silent: false }),
        Heard::Answer(_) => return Err(talk::unexpected()),
        Heard::Silence => true,
        Heard::Nobody => false,
    };
    let files = settings.all_job_files()?;
    let world = World::real(Arc::new(Executor::new()));
    let opened = Opened::existing(&settings, &world, Access::Reads)?;
    if opened.is_none() {
        say_there_is_none(&settings)?;
    }
    let read = files.into_iter().filter_map(|path| {
        let name = path.file_stem()?.to_str()?.to_owned();
        Some((name, Job::from_file_in(&path, &settings.surroundings())))
    });
    let files = read.collect();
    smol::block_on(async {
        let state = opened.as_ref().map(|opened| &opened.state);
        let seen = look_at(&world, state, files, &Settings::machine(), with_runs).await;
        if let Some(opened) = opened {
            opened.close().await;
        }
        seen.map(|overview| Seen { overview, is_silent }).map_err(lost)
    })
}

/// The overview as text.
struct Board {
    ink: Ink,
    /// Cells of the terminal; `None` where there is none.
    width: Option<usize>,
    /// Everything of a job is told, not only what wants attention.
    whole: bool,
    /// A `serve` holds the state and does not answer.
    is_silent: bool,
}

impl Board {
    fn text(&self, overview: &Overview, jobs: &[JobStatus]) -> String {
        let mut lines = self.head(overview);
        if !jobs.is_empty() {
            lines.push(String::new());
        }
        let rows: Vec<[String; 4]> = jobs.iter().map(|job| self.row(job)).collect();
        let widest = |at: usize| rows.iter().map(|row| cells(&row[at])).max().unwrap_or(0);
        let widths = [0, 1, 2, 3].map(widest);
        for (job, row) in jobs.iter().zip(&rows) {
            let mut line = self.mark(job);
            for (cell, width) in row.iter().zip(widths).filter(|(_, width)| *width > 0) {
                line.push_str("  ");
                line.push_str(cell);
                line.push_str(&" ".repeat(width - cells(cell)));
            }
            // The mark stands a little nearer.
            lines.push(line.replacen("  ", " ", 1).trim_end().to_owned());
            lines.extend(self.details(job));
        }
        lines.iter().map(|line| cut(line, self.width) + "\n").collect()
    }

    /// Who looks after the jobs, how many want attention, and what holds for all of them.
    fn head(&self, overview: &Overview) -> Vec<String> {
        let ink = self.ink;
        let (tone, who) = match (overview.served, overview.stopping) {
            (false, _) if self.is_silent => (Tone::Bad, "`serve` does not answer"),
            (false, _) => (Tone::Warn, "no `serve` runs: nothing starts by schedule"),
            (true, true) => (Tone::Warn, "`serve` stops: nothing more starts"),
            (true, false) => (Tone::Good, "`serve` runs"),
        };
        let jobs = &overview.jobs;
        let number = |is: &dyn Fn(&JobStatus) -> bool| jobs.iter().filter(|job| is(job)).count();
        let mut told = vec![format!("{} {}", jobs.len(), if jobs.len() == 1 { "job" } else { "jobs" })];
        for (n, tone, word) in [
            (number(&|job| !job.running.is_empty()), Tone::Busy, "running"),
            (number(&|job| !job.waiting.is_empty()), Tone::Warn, "waiting"),
            (number(&|job| job.paused), Tone::Warn, "paused"),
            (number(&|job| job.overdue), Tone::Bad, "overdue"),
            (number(&|job| job.problem.is_some()), Tone::Bad, "with errors"),
        ] {
            if n > 0 {
                told.push(ink.paint(tone, &format!("{n} {word}")));
            }
        }
        let head = |form: &str| {
            let now = overview.now.strftime(form).to_string();
            format!("{}  {}  {}", ink.paint(tone, who), told.join(", "), ink.paint(Tone::Faint, &now))
        };
        let (whole, short) = (head("%F %T UTC"), head("%T UTC"));
        let fits = self.width.is_none_or(|width| cells(&whole) <= width);
        let mut lines = vec![if fits { whole } else { short }];
        if !overview.clock_trusted {
            lines.push(ink.paint(Tone::Warn, "the wall clock is not believed yet: nothing starts by the calendar"));
        }
        if overview.degraded {
            let lost = "threads are lost to computations that never ended: restart `serve` when it is idle";
            lines.push(ink.paint(Tone::Warn, lost));
        }
        lines
    }

    /// One cell that says how it is, told apart without colours too.
    fn mark(&self, job: &JobStatus) -> String {
        let bad = |last: RunOutcome| !matches!(last, RunOutcome::Succeeded | RunOutcome::Partial);
        let (tone, mark) = match job {
            job if job.overdue || job.problem.is_some() => (Tone::Bad, "!"),
            job if !job.running.is_empty() => (Tone::Busy, "▸"),
            job if job.paused => (Tone::Warn, "‖"),
            job => match &job.last {
                None => (Tone::Faint, "·"),
                Some(last) if bad(last.outcome) => (Tone::Bad, "✗"),
                Some(last) if last.outcome == RunOutcome::Partial => (Tone::Warn, "◐"),
                Some(_) => (Tone::Good, "✓"),
            },
        };
        self.ink.paint(tone, mark)
    }

    /// Name, when it starts next, which time that is, how it ended last.
    fn row(&self, job: &JobStatus) -> [String; 4] {
        let ink = self.ink;
        let until = job.next_in_ms.map(|ms| span(whole_seconds(ms)));
        let (next, at) = match (&job.next, until) {
            _ if job.schedule.is_empty() => (ink.paint(Tone::Bad, "cannot start"), String::new()),
            (Some(next), Some(_)) if job.paused => (ink.paint(Tone::Warn, "paused"), self.time(next)),
            (None, _) if job.paused => (ink.paint(Tone::Warn, "paused"), String::new()),
            (Some(next), _) if job.next_in_ms.is_some_and(|ms| ms < 1000) => ("now".to_owned(), self.time(next)),
            (Some(next), Some(until)) => (format!("in {until}"), self.time(next)),
            // By hand, after another job, or from a start of `serve` on.
            _ => (ink.paint(Tone::Faint, &job.schedule), String::new()),
        };
        let last = match &job.last {
            None => ink.paint(Tone::Faint, "never ran"),
            Some(last) => {
                let ago = match whole_seconds(last.age_ms) {
                    Duration::ZERO => "just now".to_owned(),
                    age => format!("{} ago", span(age)),
                };
                let tone = tone_of(last.outcome);
                let word = last.outcome.name().replace('_', " ");
                format!("{} {}", ink.paint(tone, &word), ink.paint(Tone::Faint, &ago))
            }
        };
        [ink.paint(Tone::Strong, &job.job), next, at, last]
    }

    fn time(&self, time: &str) -> String {
        self.ink.paint(Tone::Faint, &readable(time))
    }

    /// What wants attention, a line each.
    fn details(&self, job: &JobStatus) -> Vec<String> {
        let ink = self.ink;
        let mut lines = Vec::new();
        let mut tell = |tone: Tone, word: &str, text: &str| {
            lines.push(format!("    {} {text}", ink.paint(tone, &format!("{word:<11}"))));
        };
        for running in &job.running {
            let ran = Duration::from_millis(running.ran_ms);
            tell(Tone::Busy, "running", &format!("for {}, {}, {}", span(ran), running.trigger, running.run));
        }
        for waiting in &job.waiting {
            let due = readable(&waiting.due);
            tell(Tone::Warn, "waiting", &format!("since {due}, {}: {}", waiting.trigger, waiting.reason));
        }
        for run in &job.interrupted {
            tell(Tone::Warn, "interrupted", &format!("{run}, it waits to be resumed"));
        }
        if let Some((last, reason)) = job.last.as_ref().and_then(|last| Some((last, last.reason.as_ref()?))) {
            tell(tone_of(last.outcome), "last run", reason);
        }
        if job.paused {
            let until = job.paused_until.as_deref();
            let until = until.map_or("until it is resumed".to_owned(), |until| format!("until {}", readable(until)));
            tell(Tone::Warn, "paused", &until);
        }
        if let Some(due) = &job.overdue_since {
            tell(Tone::Bad, "overdue", &format!("no run of {} or later has succeeded", readable(due)));
        }
        if let Some(problem) = &job.problem {
            let last = if job.schedule.is_empty() { "" } else { " (its last good version goes on)" };
            let said: Vec<&str> = problem.lines().filter(|line| !line.trim().is_empty()).collect();
            match self.whole {
                false => tell(Tone::Bad, "file", &format!("{}{last}", said.first().unwrap_or(&""))),
                true => {
                    tell(Tone::Bad, "file", &format!("it has errors{last}"));
                    lines.extend(said.iter().map(|line| format!("    {line}")));
                }
            }
        }
        if self.whole {
            let faint =
                |word: &str, text: &str| format!("    {} {text}", ink.paint(Tone::Faint, &format!("{word:<11}")));
            if !job.schedule.is_empty() {
                lines.push(faint("schedule", &format!("{}, {}", job.schedule, job.zone)));
            }
            if let Some(last) = &job.last {
                lines.push(faint("its id", &format!("{}, ended {}", last.run, readable(&last.ended))));
            }
            lines.extend(job.description.iter().map(|text| faint("what for", text)));
        }
        lines
    }
}

/// Milliseconds, down to seconds: more is noise here.
fn whole_seconds(ms: i64) -> Duration {
    Duration::from_secs(u64::try_from(ms).unwrap_or_default() / 1000)
}

/// `2026-11-23T02:30:12+08:00` with its parts apart.
fn readable(time: &str) -> String {
    match (time.get(..10), time.get(11..16), time.get(19..)) {
        (Some(date), Some(clock), Some(offset)) => format!("{date} {clock} {offset}"),
        _ => time.to_owned(),
    }
}

/// A line in the terminal's width; colours take no room.
fn cut(line: &str, width: Option<usize>) -> String {
    let Some(width) = width.filter(|width| cells(line) > *width) else { return line.to_owned() };
    super::progress::cut(line, width) + "…"
}
