//! `lamplighter reload`: has the daemon read changed job files now.

use super::{
    Format, Global,
    exit::Exit,
    screen::{complain, print, say},
    settings::Settings,
    talk,
};
use lamplighter::api::{Answer, Request};
use serde_json::json;

/// Arguments of `reload`.
#[derive(clap::Args)]
pub struct ReloadArguments {
    /// How problems are printed
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
}

/// Runs the command.
pub fn main(global: &Global, arguments: &ReloadArguments) -> Exit {
    reload(global, arguments).unwrap_or_else(|exit| exit)
}

fn reload(global: &Global, arguments: &ReloadArguments) -> Result<Exit, Exit> {
    let Some(daemon) = talk::daemon(&Settings::read(global)?)? else {
        complain("no `serve` holds the state: there is nothing to reload");
        return Err(Exit::Refused);
    };
    let Answer::Problems(problems) = talk::ask(&daemon, &Request::Reload)? else { return Err(talk::unexpected()) };
    let exit = if problems.is_empty() { Exit::Done } else { Exit::Usage };
    if arguments.format == Format::Json {
        return Ok(exit.after(print(&format!("{}\n", json!({ "problems": problems })))));
    }
    for (job, problem) in &problems {
        say(problem);
        complain(&format!("the file of `{job}` has errors: its last good version, if there is one, goes on"));
    }
    if problems.is_empty() {
        print("all job files are as they should be\n")?;
    }
    Ok(exit)
}
