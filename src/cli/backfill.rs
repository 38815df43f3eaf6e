//! `lamplighter run JOB --due A..B`: the firings of those days, one after the other.

use super::{
    Format, Global,
    exit::Exit,
    run::{RunArguments, Start, Trial, follow, kept, lost, prepare, show, usage},
    runtime::{self, Signals},
    screen::{complain, print, say},
    settings::Settings,
    state::{Desk, Opened},
    upkeep,
};
use async_executor::Executor;
use jiff::{Timestamp, ToSpan};
use lamplighter::{
    item::RunOutcome,
    job::Job,
    limits::{BACKFILL_MAX, PAGE_ROWS},
    run::{RunOptions, rfc3339},
    schedule::{Calendar, ScheduleSpec, seed},
    world::World,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Runs the command; `from` and `to` stand before and behind the two dots.
pub fn main(global: &Global, arguments: &RunArguments, from: &str, to: &str) -> Exit {
    let (settings, job, options) = match prepare(global, arguments) {
        Ok(prepared) => prepared,
        Err(exit) => return exit,
    };
    let executor = Arc::new(Executor::new());
    let world = World::real(executor.clone());
    let dues = match dues(&job, from, to, world.wall()) {
        Ok(dues) => dues,
        Err(why) => return usage(why),
    };
    if dues.is_empty() {
        complain(&format!("`{}` was not due in {from}..{to}: nothing was done", job.name));
        return Exit::Done;
    }
    if let Err(error) = runtime::has_means() {
        complain(&format!("{error}: nothing was done"));
        return Exit::Io;
    }
    let threads = settings.threads();
    let story = nights(executor.clone(), settings, &job, options, arguments, dues);
    runtime::block_on(&executor, threads, story).unwrap_or_else(|exit| exit)
}

/// The firings of the job from `from` to `to`, both included, that are not in the future, oldest first.
fn dues(job: &Job, from: &str, to: &str, now: Timestamp) -> Result<Vec<Timestamp>, String> {
    if !has_calendar(&job.timing.schedule) {
        return Err(format!(
            "`{}` has no times of its own to go back to: its schedule has no Cron and no At; `--due TIME` runs it as if due then",
            job.name
        ));
    }
    let (first, _) = job.due(from)?;
    let (last, is_day) = job.due(to)?;
    // Of a day all of it.
    let end = if is_day {
        let next = last.to_zoned(job.zone.clone()).date().tomorrow().and_then(|next| next.to_zoned(job.zone.clone()));
        next.map_err(|error| error.to_string())?.timestamp()
    } else {
        last.checked_add(1.nanoseconds()).map_err(|error| error.to_string())?
    };
    if first >= end {
        return Err(format!("{from} is behind {to}: write the earlier one first"));
    }
    let calendar = Calendar::of(&job.timing.schedule, job.zone.clone(), seed(&Settings::machine(), &job.name));
    let calendar = calendar.map_err(|mistake| mistake.message)?;
    let mut after = first.checked_sub(1.nanoseconds()).map_err(|error| error.to_string())?;
    let mut dues = Vec::new();
    while let Some(firing) = calendar.next(after).filter(|firing| firing.at < end && firing.at <= now) {
        if dues.len() == BACKFILL_MAX {
            return Err(format!(
                "`{}` is due more than {BACKFILL_MAX} times in {from}..{to}: name fewer days at a time",
                job.name
            ));
        }
        after = firing.at;
        dues.push(firing.at);
    }
    Ok(dues)
}

fn has_calendar(schedule: &ScheduleSpec) -> bool {
    match schedule {
        ScheduleSpec::Cron(_) | ScheduleSpec::At(_) => true,
        ScheduleSpec::AnyOf(list) => list.iter().any(has_calendar),
        _ => false,
    }
}

async fn nights(
    executor: Arc<Executor<'static>>,
    settings: Settings,
    job: &Arc<Job>,
    options: RunOptions,
    arguments: &RunArguments,
    dues: Vec<Timestamp>,
) -> Result<Exit, Exit> {
    if !arguments.is_kept() {
        return each(None, &executor, job, &options, arguments, dues).await;
    }
    let world = World::real(executor.clone());
    let opened = Opened::open(&settings, &world, arguments.accepts_new_state())?;
    let desk = Desk { settings, executor: executor.clone(), world, state: opened.state.clone() };
    let end = each(Some(&desk), &executor, job, &options, arguments, dues).await;
    if end.is_ok() {
        upkeep::retain(&desk).await;
    }
    opened.close().await;
    end
}

async fn each(
    desk: Option<&Desk>,
    executor: &Arc<Executor<'static>>,
    job: &Arc<Job>,
    options: &RunOptions,
    arguments: &RunArguments,
    dues: Vec<Timestamp>,
) -> Result<Exit, Exit> {
    let done = match desk.filter(|_| !arguments.again) {
        Some(desk) => succeeded(desk, job, &dues).await?,
        None => BTreeSet::new(),
    };
    // One and the same for all: what comes between two runs ends the backfill as well.
    let mut signals = Signals::take()?;
    let total = dues.len();
    let (mut skipped, mut ran, mut worst) = (0, 0, Exit::Done);
    let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
    for due in dues {
        if done.contains(&due.as_millisecond()) {
            skipped += 1;
            continue;
        }
        if let Some(number) = signals.pending().await {
            worst = worse(worst, Exit::Signal(number));
            break;
        }
        say(&format!("lamplighter: `{}` as if due {}", job.name, rfc3339(due, &job.zone)));
        let options = RunOptions { due: Some(due), pings: false, ..options.clone() };
        let end = match desk {
            Some(desk) => kept(desk, job, options, arguments, &mut signals).await,
            None => follow(executor.clone(), job, options, Start::Unkept, &mut signals).await,
        };
        let end = match end {
            Ok(end) => end,
            // What keeps one from its start keeps the others too.
            Err(exit) => {
                worst = worse(worst, exit);
                break;
            }
        };
        ran += 1;
        *outcomes.entry(end.record.outcome.name()).or_default() += 1;
        let shown = show(&end.record, &end.out, arguments.format, Trial::of(arguments));
        let exit = end.exit().after(shown);
        worst = worse(worst, exit);
        if end.is_signalled() || exit == Exit::Io {
            break;
        }
    }
    let outcomes: Vec<String> = outcomes.iter().map(|(outcome, count)| format!("{count} {outcome}")).collect();
    let outcomes = if outcomes.is_empty() { String::new() } else { format!(" ({})", outcomes.join(", ")) };
    let mut line = format!("{total} firings: {ran} ran{outcomes}");
    if skipped > 0 {
        line.push_str(&format!(", {skipped} skipped: they had succeeded (`--again` runs them too)"));
    }
    let left = total - ran - skipped;
    if left > 0 {
        line.push_str(&format!(", {left} not begun"));
    }
    // With JSON nothing but the records stands on stdout.
    let printed = match arguments.format {
        Format::Human => print(&format!("\n{line}\n")),
        Format::Json => {
            say(&format!("lamplighter: {line}"));
            Ok(())
        }
    };
    Ok(worst.after(printed))
}

/// Which of these times have a run that succeeded, as far as the history goes back.
async fn succeeded(desk: &Desk, job: &Job, dues: &[Timestamp]) -> Result<BTreeSet<i64>, Exit> {
    let dues: BTreeSet<i64> = dues.iter().map(|due| due.as_millisecond()).collect();
    let mut found = BTreeSet::new();
    let mut before: Option<Arc<str>> = None;
    loop {
        let page = desk.state.history(Some(&job.name), before.as_deref(), PAGE_ROWS).await.map_err(lost)?;
        let Some(last) = page.last() else { return Ok(found) };
        before = Some(last.run.clone());
        let good = page.iter().filter(|head| head.outcome == Some(RunOutcome::Succeeded));
        found.extend(good.map(|head| head.due_ms).filter(|due| dues.contains(due)));
    }
}

/// The one of two exits that more is wrong with.
fn worse(one: Exit, other: Exit) -> Exit {
    let rank = |exit: &Exit| match exit {
        Exit::Done => 0,
        Exit::Partial => 1,
        Exit::Failed => 2,
        Exit::Deadline => 3,
        Exit::Refused | Exit::Held => 4,
        Exit::Usage => 5,
        Exit::Io => 6,
        Exit::Signal(_) => 7,
    };
    if rank(&other) > rank(&one) { other } else { one }
}
