//! `lamplighter cancel`: ends a run of the daemon.

use super::{
    Global,
    exit::Exit,
    screen::{complain, print},
    settings::Settings,
    talk,
};
use lamplighter::api::{Answer, Request};

/// Arguments of `cancel`.
#[derive(clap::Args)]
pub struct CancelArguments {
    /// Id of a run, or name of a job: its last run
    #[arg(value_name = "RUN|JOB")]
    run: String,
    /// Do not wait for its processes: kill them now
    #[arg(long)]
    kill: bool,
}

/// Runs the command.
pub fn main(global: &Global, arguments: &CancelArguments) -> Exit {
    cancel(global, arguments).unwrap_or_else(|exit| exit)
}

fn cancel(global: &Global, arguments: &CancelArguments) -> Result<Exit, Exit> {
    let Some(daemon) = talk::daemon(&Settings::read(global)?)? else {
        complain("no `serve` holds the state; a run in the foreground is cancelled by Ctrl-C there: nothing was done");
        return Err(Exit::Refused);
    };
    let request =
        Request::Cancel { run: arguments.run.clone(), by: "`lamplighter cancel`".to_owned(), kill: arguments.kill };
    // What does not run cannot be cancelled: that is no mistake of whoever asked.
    let told = talk::ask(&daemon, &request).map_err(|exit| if exit == Exit::Usage { Exit::Refused } else { exit })?;
    let Answer::Names(runs) = told else { return Err(talk::unexpected()) };
    Ok(Exit::Done.after(print(&format!("{} is cancelled\n", runs.join(", ")))))
}
