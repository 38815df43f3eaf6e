//! `lamplighter retry`: a run once more, without what it has done.

use super::{
    Format, Global,
    exit::Exit,
    run::{Start, Trial, follow, job_of, keeping, lost, show},
    runtime::Signals,
    screen::complain,
    settings::Settings,
    state::{Access, Desk, consult},
    talk, upkeep,
};
use lamplighter::{api::Request, run::RunOptions};

/// Arguments of `retry`.
#[derive(clap::Args)]
pub struct RetryArguments {
    /// Id of a run that has ended, or name of a job: its last run
    #[arg(value_name = "RUN|JOB")]
    run: String,
    /// Run the items that are held back after a crash as well
    #[arg(long)]
    held: bool,
    /// Have the `serve` that holds the state repeat it, and print the id of the new run at once
    #[arg(long)]
    detach: bool,
    /// How the summary is printed
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
}

/// Runs the command.
pub fn main(global: &Global, arguments: &RetryArguments) -> Exit {
    let found = Settings::read(global).and_then(|settings| {
        let daemon = talk::daemon(&settings)?;
        Ok((settings, daemon))
    });
    match found {
        Ok((settings, Some(daemon))) => {
            let (run, held) = (arguments.run.clone(), arguments.held);
            let request = Request::Retry { run, held, follow: talk::follow(arguments.detach), named: settings.named() };
            return talk::hand_over(&daemon, &request, arguments.format);
        }
        Ok((_, None)) if arguments.detach => {
            complain("`--detach` leaves a run to `serve`, and no `serve` holds the state: nothing was done");
            return Exit::Refused;
        }
        Ok((_, None)) => {}
        Err(exit) => return exit,
    }
    consult(global, Access::Writes, async |desk: &Desk| retry(desk, arguments).await).unwrap_or(Exit::Usage)
}

async fn retry(desk: &Desk, arguments: &RetryArguments) -> Result<Exit, Exit> {
    let mut signals = Signals::take()?;
    let ready = async {
        let details = desk.find(&arguments.run).await?;
        let instance = desk.state.instance().await.map_err(lost)?;
        upkeep::send_notices(desk, &details.head.job, &instance).await?;
        let (job, options) = job_of(&desk.settings, &details)?;
        let start = Start::Retried(keeping(&desk.state, "retry", &job), Box::new(details), arguments.held);
        Ok((job, RunOptions { instance, ..options }, start))
    };
    let (job, options, start) = signals.end(ready).await?;
    let end = follow(desk.executor.clone(), &job, options, start, &mut signals).await?;
    upkeep::retain(desk).await;
    Ok(end.exit().after(show(&end.record, &end.out, arguments.format, Trial::default())))
}
