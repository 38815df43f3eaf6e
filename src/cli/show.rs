//! `lamplighter show`: one run as a timeline, with counts, what is missing and why.

use super::{
    Format, Global,
    exit::Exit,
    state::{Access, Desk, consult, form},
    talk::relayed,
};
use clap::ValueEnum;
use lamplighter::{
    api::Request,
    query::{Items, ShowQuestion},
};

/// Arguments of `show`.
#[derive(clap::Args)]
pub struct ShowArguments {
    /// Id of a run, or name of a job: its last run
    #[arg(value_name = "RUN|JOB")]
    run: String,
    /// List its items as well
    #[arg(long, value_enum, value_name = "WHICH")]
    items: Option<Which>,
    /// Times in UTC instead of the job's zone
    #[arg(long)]
    utc: bool,
    /// How it is printed
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
}

/// Which items are listed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    /// Those that are missing
    #[value(alias = "failed")]
    Missing,
    /// All
    All,
}

/// Runs the command.
pub fn main(global: &Global, arguments: &ShowArguments) -> Exit {
    let items = arguments.items.map(|which| match which {
        Which::Missing => Items::Missing,
        Which::All => Items::All,
    });
    let question = ShowQuestion { run: arguments.run.clone(), items, utc: arguments.utc };
    if let Some(exit) = relayed(global, &Request::Show(question.clone(), form(arguments.format))) {
        return exit;
    }
    let told = consult(global, Access::Reads, async |desk: &Desk| {
        desk.answer(desk.runs().show(&question, form(arguments.format), Desk::prints).await)
    });
    told.unwrap_or(Exit::Usage)
}
