//! One file for each command. The library does the work; here are arguments, signals, the terminal and exit codes.

mod aside;
mod backfill;
mod cancel;
mod cgroup;
mod check;
#[cfg(feature = "completions")]
mod completions;
mod crontab;
#[cfg(feature = "demo")]
mod demo;
mod exit;
mod explain;
mod forget;
mod graph;
mod history;
mod logging;
mod logs;
mod new;
mod next;
mod orphans;
mod pause;
mod progress;
mod reload;
mod retry;
mod run;
mod runtime;
mod screen;
mod serve;
mod service_manager;
mod settings;
mod show;
mod state;
mod status;
mod talk;
mod upkeep;
#[cfg(feature = "demo")]
mod vendor_sim;
mod watch_files;

use clap::{Args, Parser, Subcommand, ValueEnum};
use exit::Exit;
#[cfg(feature = "demo")]
use screen::complain;
use screen::print;
use std::{path::PathBuf, process::ExitCode};

/// Runs jobs at night, keeps them to their deadlines, and says what was done and what was not.
#[derive(Parser)]
#[command(name = "lamplighter", version, propagate_version = true, arg_required_else_help = true)]
struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Where things are.
#[derive(Args, Clone)]
struct Global {
    /// The configuration [default: lamplighter.ron, if it is there]
    #[arg(long, global = true, help_heading = "Where things are", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder of the job files [default: jobs]
    #[arg(long, global = true, help_heading = "Where things are", value_name = "DIR")]
    jobs: Option<PathBuf>,
    /// Folder of what is kept of runs [default: $XDG_STATE_HOME/lamplighter]
    #[arg(long, global = true, help_heading = "Where things are", value_name = "DIR")]
    state: Option<PathBuf>,
    /// Folder below which outputs are written [default: out beside the job folder]
    #[arg(long, global = true, help_heading = "Where things are", value_name = "DIR")]
    out: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Run a job now; a `serve` that holds the state is handed it, and followed
    Run(run::RunArguments),
    /// Start every job of the folder when it is due, always
    Serve(serve::ServeArguments),
    /// Say how the jobs are: when they start next, how they ended, what wants attention
    Status(status::StatusArguments),
    /// List the jobs, with their schedules
    List(status::ListArguments),
    /// Cancel a run of `serve`
    Cancel(cancel::CancelArguments),
    /// Let jobs start no more by schedule
    Pause(pause::PauseArguments),
    /// Let jobs start by schedule again
    Resume(pause::ResumeArguments),
    /// Have `serve` read changed job files now, and say what is wrong with them
    Reload(reload::ReloadArguments),
    /// List the runs that are kept and the times that started none, newest first
    History(history::HistoryArguments),
    /// Show a run: its timeline, counts, what is missing and why
    Show(show::ShowArguments),
    /// Print what a run said
    Logs(logs::LogsArguments),
    /// Run what a run left undone, and its report anew
    Retry(retry::RetryArguments),
    /// Forget an item in everything that is kept
    Forget(forget::ForgetArguments),
    /// Check job files and say everything that is wrong with them
    Check(check::CheckArguments),
    /// Say when jobs are due next
    Next(next::NextArguments),
    /// Write a new job file, with comments, to begin with
    New(new::NewArguments),
    /// Say what a field of a job file means, takes and defaults to
    Explain(explain::ExplainArguments),
    /// Draw the stages of a job
    Graph(graph::GraphArguments),
    /// Run nightly-vitals against a simulated vendor: a first look
    #[cfg(feature = "demo")]
    Demo(demo::DemoArguments),
    /// Run the simulated vendor alone
    #[cfg(feature = "demo")]
    VendorSim(vendor_sim::VendorSimArguments),
    /// Print the completions of a shell
    #[cfg(feature = "completions")]
    Completions(completions::CompletionsArguments),
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Human,
    /// For programs: JSON on stdout
    Json,
}

/// From the arguments to the exit code.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are no errors; clap prints them to stdout and says so by its code.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() };
        }
    };
    #[cfg(feature = "plant")]
    if let Ok(point) = std::env::var("LAMPLIGHTER_FAILPOINT")
        && !lamplighter::world::failpoint::arm(&point)
    {
        screen::complain(&format!("LAMPLIGHTER_FAILPOINT: there is no point `{point}`"));
        return Exit::Usage.into();
    }
    #[cfg(feature = "plant")]
    if let Ok(bug) = std::env::var("LAMPLIGHTER_PLANTED")
        && !lamplighter::world::plant::everywhere(&bug)
    {
        screen::complain(&format!("LAMPLIGHTER_PLANTED: there is no bug `{bug}`"));
        return Exit::Usage.into();
    }
    let global = arguments.global;
    let exit = match arguments.command {
        Command::Run(arguments) => run::main(&global, &arguments),
        Command::Serve(arguments) => serve::main(&global, &arguments),
        Command::Status(arguments) => status::main(&global, &arguments),
        Command::List(arguments) => status::list(&global, &arguments),
        Command::Cancel(arguments) => cancel::main(&global, &arguments),
        Command::Pause(arguments) => pause::pause(&global, &arguments),
        Command::Resume(arguments) => pause::resume(&global, &arguments),
        Command::Reload(arguments) => reload::main(&global, &arguments),
        Command::History(arguments) => history::main(&global, &arguments),
        Command::Show(arguments) => show::main(&global, &arguments),
        Command::Logs(arguments) => logs::main(&global, &arguments),
        Command::Retry(arguments) => retry::main(&global, &arguments),
        Command::Forget(arguments) => forget::main(&global, &arguments),
        Command::Check(arguments) => check::main(&global, &arguments),
        Command::Next(arguments) => next::main(&global, &arguments),
        Command::New(arguments) => new::main(&global, &arguments),
        Command::Explain(arguments) => explain::main(&arguments),
        Command::Graph(arguments) => graph::main(&global, &arguments),
        #[cfg(feature = "demo")]
        Command::Demo(arguments) => demo::main(&global, &arguments),
        #[cfg(feature = "demo")]
        Command::VendorSim(arguments) => vendor_sim::main(&arguments),
        #[cfg(feature = "completions")]
        Command::Completions(arguments) => completions::main(&arguments),
    };
    exit.into()
}
