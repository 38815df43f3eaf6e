//! `lamplighter pause` and `lamplighter resume`: whether jobs start by schedule.

use super::{
    Global,
    exit::Exit,
    run::{lost, usage},
    screen::print,
    settings::{Settings, job_name},
    state::Opened,
    talk,
};
use async_executor::Executor;
use jiff::{SignedDuration, Timestamp, civil, tz::TimeZone};
use lamplighter::{
    api::{Answer, Request},
    daemon::{Which, set_kept_pause},
    units::Span,
    world::World,
};
use std::sync::Arc;

/// Arguments of `pause`.
#[derive(clap::Args)]
pub struct PauseArguments {
    #[command(flatten)]
    which: Chosen,
    /// Until then: a duration from now (2h), a time with its offset, or local time of this machine [default: until it is resumed]
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

/// Arguments of `resume`.
#[derive(clap::Args)]
pub struct ResumeArguments {
    #[command(flatten)]
    which: Chosen,
}

/// Which jobs are meant.
#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct Chosen {
    /// Name of a job
    #[arg(value_name = "JOB")]
    job: Option<String>,
    /// All jobs
    #[arg(long)]
    all: bool,
}

/// Runs `pause`.
pub fn pause(global: &Global, arguments: &PauseArguments) -> Exit {
    let executor = Arc::new(Executor::new());
    let world = World::real(executor.clone());
    let until = arguments.until.as_deref().map(|text| until(text, world.wall())).transpose();
    let done = until.map_err(usage).and_then(|until| set(global, &world, &arguments.which, true, until));
    done.unwrap_or_else(|exit| exit)
}

/// Runs `resume`.
pub fn resume(global: &Global, arguments: &ResumeArguments) -> Exit {
    let executor = Arc::new(Executor::new());
    set(global, &World::real(executor), &arguments.which, false, None).unwrap_or_else(|exit| exit)
}

fn until(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    let span = text.parse::<Span>().ok().and_then(|span| SignedDuration::try_from(span.get()).ok());
    let after = span.and_then(|span| now.checked_add(span).ok());
    let local = || {
        let local = text.parse::<civil::DateTime>().or_else(|_| text.parse::<civil::Date>().map(civil::Date::into));
        local.ok()?.to_zoned(TimeZone::system()).ok().map(|zoned| zoned.timestamp())
    };
    let until = after.or_else(|| text.parse().ok()).or_else(local);
    match until {
        Some(until) if until <= now => Err(format!("{text:?} has passed")),
        Some(until) => Ok(until),
        None => Err(format!("{text:?} is no time: write 2h, 2026-11-23T06:00 or 2026-11-23T06:00+08:00")),
    }
}

fn set(global: &Global, world: &World, chosen: &Chosen, paused: bool, until: Option<Timestamp>) -> Result<Exit, Exit> {
    let settings = Settings::read(global)?;
    let told = || {
        let Some(daemon) = talk::daemon(&settings)? else { return Ok(None) };
        let which = chosen.job.clone().map_or(Which::All, Which::Job);
        let request = if paused { Request::Pause { which, until } } else { Request::Resume { which } };
        match talk::ask(&daemon, &request)? {
            Answer::Names(names) => Ok(Some(names)),
            _ => Err(talk::unexpected()),
        }
    };
    let names = match told()? {
        Some(names) => names,
        None => {
            let names = set_here(&settings, world, chosen, paused, until)?;
            // One that has started meanwhile may have read the state before.
            told()?.unwrap_or(names)
        }
    };
    let word = if paused { "paused" } else { "resumed" };
    let until = until.map(|until| format!(" until {}", until.to_zoned(TimeZone::system()).strftime("%F %T %:z")));
    let lines = names.iter().map(|name| format!("{name} is {word}{}\n", until.as_deref().unwrap_or_default()));
    Ok(Exit::Done.after(print(&lines.collect::<String>())))
}

/// Writes it into the state, for the next `serve`.
fn set_here(
    settings: &Settings,
    world: &World,
    chosen: &Chosen,
    paused: bool,
    until: Option<Timestamp>,
) -> Result<Vec<String>, Exit> {
    let files = match &chosen.job {
        Some(job) => vec![settings.job_file(job)?],
        None => settings.all_job_files()?,
    };
    let names: Vec<String> = files.iter().filter_map(|path| job_name(path)).collect();
    let opened = Opened::open(settings, world, false)?;
    let written = smol::block_on(async {
        let written = set_kept_pause(&opened.state, &names, paused, until).await;
        opened.close().await;
        written
    });
    written.map_err(lost)?;
    Ok(names)
}
