//! `lamplighter history`: the runs that are kept, newest first.

use super::{
    Format, Global,
    exit::Exit,
    print,
    run::lost,
    screen,
    state::{Desk, consult, no_run},
};
use lamplighter::{
    item::Value,
    report::{self, Past, Standing},
    run::{Outline, ran, standing},
    store::{RunHead, RunKind},
};
use std::{collections::BTreeSet, io::IsTerminal};

/// Arguments of `history`.
#[derive(clap::Args)]
pub struct HistoryArguments {
    /// Name of a job [default: all]
    #[arg(value_name = "JOB")]
    job: Option<String>,
    /// At most so many runs
    #[arg(short = 'n', value_name = "N", default_value_t = 20)]
    number: usize,
    /// Times in UTC instead of the job's zone
    #[arg(long)]
    utc: bool,
    /// How they are printed
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
}

/// Runs the command.
pub fn main(global: &Global, arguments: &HistoryArguments) -> Exit {
    match consult(global, async |desk: &Desk| list(desk, arguments).await) {
        Some(exit) => exit,
        None => Exit::Done.after(show(&[], arguments)),
    }
}

async fn list(desk: &Desk, arguments: &HistoryArguments) -> Result<Exit, Exit> {
    let job = arguments.job.as_deref();
    let mut heads: Vec<RunHead> = Vec::new();
    while heads.len() < arguments.number {
        let before = heads.last().map(|head| head.run.to_string());
        let page = desk.state.history(job, before.as_deref(), arguments.number - heads.len()).await.map_err(lost)?;
        if page.is_empty() {
            break;
        }
        heads.extend(page);
    }
    if let Some(job) = job.filter(|_| heads.is_empty() && arguments.number > 0) {
        return Err(no_run(desk, job).await?);
    }
    let now_ms = desk.world.wall().as_millisecond();
    let (mut runs, mut seen) = (Vec::new(), BTreeSet::new());
    for head in heads {
        // Gone meanwhile: another process has let go of old runs.
        let Some(details) = desk.state.details(&head.run).await.map_err(lost)? else { continue };
        let mut outline = Outline::of(&details);
        if arguments.utc {
            outline = outline.in_utc();
        }
        let state = standing(&head);
        let is_last = seen.insert(head.job.clone());
        runs.push(Past {
            run: head.run.to_string(),
            state,
            started: outline.time(head.started_ms),
            ran: ran(&head, now_ms),
            outcome: head.outcome,
            reason: head.reason.clone(),
            repeats: head.parent.as_ref().map(ToString::to_string),
            crashes: head.crashes,
            is_resumable: is_last && state == Standing::Interrupted && head.kind == RunKind::Foreground,
            trigger: head.trigger,
            job: head.job,
        });
    }
    show(&runs, arguments).map(|()| Exit::Done)
}

fn show(runs: &[Past], arguments: &HistoryArguments) -> Result<(), Exit> {
    if arguments.format == Format::Json {
        let runs = serde_json::to_value(runs).unwrap_or_default();
        return print(&format!("{}\n", Value::Object([("runs".to_owned(), runs)].into_iter().collect())));
    }
    let stdout = std::io::stdout();
    // A pipe has room for whole lines.
    let width = if stdout.is_terminal() { screen::size().0 } else { usize::MAX };
    print(&report::history(runs, screen::ink(&stdout), width))
}
