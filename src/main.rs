//! `lamplighter`: the command line. Arguments in, exit code out; everything else is the library's.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Tests of the program as a process name the mistake that it makes.
    #[cfg(feature = "plant")]
    if let Ok(name) = std::env::var("LAMPLIGHTER_PLANTED") {
        lamplighter::world::plant::everywhere(&name);
    }
    cli::main()
}
