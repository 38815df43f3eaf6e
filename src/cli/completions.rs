//! `lamplighter completions`: what a shell needs to complete commands and options.

use super::{Arguments, exit::Exit};
use clap::CommandFactory;

/// Arguments of `completions`.
#[derive(clap::Args)]
pub struct CompletionsArguments {
    /// The shell
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

/// Runs the command.
pub fn main(arguments: &CompletionsArguments) -> Exit {
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "lamplighter", &mut text);
    Exit::Done.after(super::print(&String::from_utf8_lossy(&text)))
}
