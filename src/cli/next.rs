//! `lamplighter next`: when jobs, or a bare cron expression, are due.

use super::{
    Format, Global,
    exit::Exit,
    screen::{complain, ink, print},
    settings::Settings,
};
use async_executor::Executor;
use jiff::{Timestamp, tz::TimeZone};
use lamplighter::{
    problem::closest,
    report::{Tone, span, table},
    run::rfc3339,
    schedule::{Calendar, Firing, Moved, ScheduleSpec, seed},
    world::World,
};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

/// Arguments of `next`.
#[derive(clap::Args)]
pub struct NextArguments {
    /// Jobs or files [default: every job of the job folder]
    #[arg(value_name = "JOB|FILE", conflicts_with = "cron")]
    named: Vec<String>,
    /// A cron expression instead of jobs
    #[arg(long, value_name = "EXPRESSION")]
    cron: Option<String>,
    /// The zone of the expression [default: the system's]
    #[arg(long, value_name = "ZONE", requires = "cron")]
    timezone: Option<String>,
    /// Firings behind this instant, with its offset: 2026-11-23T02:30:00+08:00 [default: now]
    #[arg(long, value_name = "TIME")]
    from: Option<Timestamp>,
    /// How many firings of each
    #[arg(short, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    n: u32,
    /// How they are printed
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
}

/// Runs the command.
pub fn main(global: &Global, arguments: &NextArguments) -> Exit {
    let now = || World::real(Arc::new(Executor::new())).wall();
    let from = arguments.from.unwrap_or_else(now);
    let printed = match &arguments.cron {
        Some(expression) => of_expression(expression, from, arguments).map(|text| (text, Exit::Done)),
        None => of_jobs(global, from, arguments),
    };
    match printed {
        Ok((text, exit)) => exit.after(print(&text)),
        Err(exit) => exit,
    }
}

fn firings(calendar: &Calendar, from: Timestamp, n: u32) -> Vec<Firing> {
    let next = |after: &Firing| calendar.next(after.at);
    std::iter::successors(calendar.next(from), next).take(n as usize).collect()
}

fn of_expression(expression: &str, from: Timestamp, arguments: &NextArguments) -> Result<String, Exit> {
    let zone = match &arguments.timezone {
        None => TimeZone::system(),
        Some(name) => TimeZone::get(name).map_err(|_| {
            let known: Vec<String> = jiff::tz::db().available().map(|zone| zone.as_str().to_owned()).collect();
            let help = closest(name, known.iter().map(String::as_str));
            let help =
                help.map_or("an IANA name such as Europe/Berlin".to_owned(), |near| format!("did you mean {near}?"));
            complain(&format!("there is no time zone {name:?}: {help}"));
            Exit::Usage
        })?,
    };
    let calendar = Calendar::cron(expression, zone.clone(), seed(&Settings::machine(), "")).map_err(|mistake| {
        complain(&format!("{expression:?}: {}: {}", mistake.message, mistake.help));
        Exit::Usage
    })?;
    let firings = firings(&calendar, from, arguments.n);
    if arguments.format == Format::Json {
        let times: Vec<Value> = firings.iter().map(|firing| rfc3339(firing.at, &zone).into()).collect();
        return Ok(format!("{}\n", Value::from(times)));
    }
    Ok(rows("", &firings, &zone, from))
}

fn of_jobs(global: &Global, from: Timestamp, arguments: &NextArguments) -> Result<(String, Exit), Exit> {
    let settings = Settings::read(global)?;
    let named: Vec<String> = match arguments.named.is_empty() {
        false => arguments.named.clone(),
        true => settings.all_job_files()?.iter().map(|path| path.display().to_string()).collect(),
    };
    let (mut text, mut list, mut exit) = (String::new(), Vec::new(), Exit::Done);
    for named in &named {
        // A broken job hides no other.
        let job = match settings.job(named) {
            Ok(checked) => checked.job,
            Err(broken) => {
                exit = broken;
                continue;
            }
        };
        let Ok(calendar) = Calendar::of(&job.timing.schedule, job.zone.clone(), seed(&Settings::machine(), &job.name))
        else {
            continue;
        };
        let firings = firings(&calendar, from, arguments.n);
        let others = others(&job.timing.schedule);
        if arguments.format == Format::Json {
            list.extend(firings.iter().map(|firing| {
                let remark = firing.moved.as_ref().map(Moved::remark);
                json!({"job": &*job.name, "at": rfc3339(firing.at, &job.zone), "remark": remark})
            }));
            list.extend(others.iter().map(|other| json!({"job": &*job.name, "at": null, "remark": other})));
            continue;
        }
        text.push_str(&rows(&job.name, &firings, &job.zone, from));
        for other in &others {
            text.push_str(&table(&[], &[vec![paint(Tone::Strong, &job.name), other.clone()]], &[]));
        }
        if firings.is_empty() && others.is_empty() {
            let never = vec![paint(Tone::Strong, &job.name), "its time is over: it is not due any more".to_owned()];
            text.push_str(&table(&[], &[never], &[]));
        }
    }
    let text = match arguments.format {
        Format::Json => format!("{}\n", Value::from(list)),
        Format::Human => text,
    };
    Ok((text, exit))
}

fn paint(tone: Tone, text: &str) -> String {
    ink(&std::io::stdout()).paint(tone, text)
}

/// Firings as a table: which job, when in its zone, how far off, and what daylight saving time does to it.
fn rows(job: &str, firings: &[Firing], zone: &TimeZone, from: Timestamp) -> String {
    let row = |firing: &Firing| {
        let ahead = Duration::try_from(firing.at.duration_since(from)).unwrap_or_default();
        let local = firing.at.to_zoned(zone.clone());
        let mut row = vec![
            local.strftime("%a %Y-%m-%d %H:%M:%S %:z").to_string(),
            paint(Tone::Faint, &format!("in {}", span(ahead))),
            firing.moved.as_ref().map(|moved| paint(Tone::Warn, &moved.remark())).unwrap_or_default(),
        ];
        if !job.is_empty() {
            row.insert(0, paint(Tone::Strong, job));
        }
        row
    };
    table(&[], &firings.iter().map(row).collect::<Vec<_>>(), &[])
}

/// The kinds that do not follow from the calendar, in words.
fn others(spec: &ScheduleSpec) -> Vec<String> {
    match spec {
        ScheduleSpec::Every(period) => {
            vec![format!("every {}, counted from the start of the daemon", span(period.get()))]
        }
        ScheduleSpec::OnBoot(delay) => vec![format!("{} after each boot", span(delay.get()))],
        ScheduleSpec::After(after) => vec![format!("after runs of `{}`", after.job)],
        ScheduleSpec::Manual => vec!["only when somebody runs it".to_owned()],
        ScheduleSpec::AnyOf(list) => list.iter().flat_map(others).collect(),
        ScheduleSpec::Cron(_) | ScheduleSpec::At(_) => Vec::new(),
    }
}
