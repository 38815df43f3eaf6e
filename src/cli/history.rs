//! `lamplighter history`: the runs that are kept, newest first.

use super::{
    Format, Global,
    exit::Exit,
    print,
    state::{Access, Desk, consult, form},
    talk::relayed,
};
use lamplighter::{
    api::Request,
    query::{HistoryQuestion, listed},
};

/// Arguments of `history`.
#[derive(clap::Args)]
pub struct HistoryArguments {
    /// Name of a job [default: all]
    #[arg(value_name = "JOB")]
    job: Option<String>,
    /// At most so many runs
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
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
    let HistoryArguments { job, number, utc, format } = arguments;
    let question = HistoryQuestion { job: job.clone(), number: *number, utc: *utc };
    if let Some(exit) = relayed(global, &Request::History(question.clone(), form(*format))) {
        return exit;
    }
    let told = consult(global, Access::Reads, async |desk: &Desk| {
        desk.answer(desk.runs().history(&question, form(*format), Desk::prints).await)
    });
    told.unwrap_or_else(|| Exit::Done.after(print(&listed(&[], form(*format)))))
}
