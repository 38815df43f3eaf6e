//! `lamplighter logs`: what a run said.

use super::{
    Format, Global,
    exit::Exit,
    runtime::Signals,
    state::{Access, Desk, consult, form},
    talk::{relayed, while_read},
};
use lamplighter::{api::Request, query::LogsQuestion};

/// Arguments of `logs`.
#[derive(clap::Args)]
pub struct LogsArguments {
    /// Id of a run, or name of a job: its last run
    #[arg(value_name = "RUN|JOB")]
    run: String,
    /// Go on until the run has ended
    #[arg(long, short)]
    follow: bool,
    /// Only what is about this item, and those below it
    #[arg(long, value_name = "KEY")]
    item: Option<String>,
    /// Times in UTC instead of the job's zone
    #[arg(long)]
    utc: bool,
    /// How it is printed: JSON is one object a line
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
}

/// Runs the command.
pub fn main(global: &Global, arguments: &LogsArguments) -> Exit {
    let LogsArguments { run, follow, item, utc, format } = arguments;
    let question = LogsQuestion { run: run.clone(), follow: *follow, item: item.clone(), utc: *utc };
    if let Some(exit) = relayed(global, &Request::Logs(question.clone(), form(*format))) {
        return exit;
    }
    let told = consult(global, Access::Reads, async |desk: &Desk| {
        let runs = desk.runs();
        let answer = async { desk.answer(runs.logs(&question, form(*format), Desk::prints).await) };
        if !question.follow {
            return answer.await;
        }
        Signals::take()?.end(while_read(&desk.world, answer)).await
    });
    told.unwrap_or(Exit::Usage)
}
