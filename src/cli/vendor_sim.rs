//! `lamplighter vendor-sim`: the simulated vendor alone.

use super::{
    complain,
    exit::Exit,
    print,
    runtime::{self, Signals, first},
};
use async_executor::Executor;
use lamplighter::{
    units::{Rate, Span},
    vendor_sim::{Faults, Options, bind},
};
use std::{net::SocketAddr, path::PathBuf, sync::Arc};

/// Arguments of `vendor-sim`.
#[derive(clap::Args)]
pub struct VendorSimArguments {
    /// Everything that it decides follows from this
    #[arg(long, default_value_t = 2026)]
    seed: u64,
    /// How many patients it has
    #[arg(long, default_value_t = 5000)]
    patients: u32,
    /// Where it listens; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:8787")]
    listen: SocketAddr,
    /// Factor of its latency; 0 for none
    #[arg(long, value_name = "X", default_value_t = 1.0, allow_negative_numbers = true)]
    time_scale: f64,
    /// What goes wrong: off, default, stats
    #[arg(long, default_value = "default")]
    faults: Faults,
    /// Only tokens of /oauth/token are good
    #[arg(long)]
    oauth: bool,
    /// Answer 429 over this many requests: 400/s
    #[arg(long)]
    rate: Option<Rate>,
    /// How long a token of /oauth/token is good
    #[arg(long, default_value = "600s")]
    token_ttl: Span,
    /// Write the list of patients as CSV
    #[arg(long, value_name = "FILE")]
    write_patients: Option<PathBuf>,
}

/// Runs the command until a signal.
pub fn main(arguments: &VendorSimArguments) -> Exit {
    let options = Options {
        seed: arguments.seed,
        patients: arguments.patients,
        listen: arguments.listen,
        time_scale: arguments.time_scale,
        faults: arguments.faults,
        oauth: arguments.oauth,
        rate: arguments.rate.map(|rate| f64::from(rate.count) / rate.window.as_secs_f64()),
        token_ttl: arguments.token_ttl.get(),
    };
    if let Some(path) = &arguments.write_patients
        && let Err(error) = std::fs::write(path, options.patients_csv())
    {
        complain(&format!("{} cannot be written: {error}", path.display()));
        return Exit::Io;
    }
    let executor = Arc::new(Executor::new());
    runtime::block_on(&executor.clone(), 1, async {
        let mut signals = match Signals::take() {
            Ok(signals) => signals,
            Err(exit) => return exit,
        };
        let server = match bind(executor, options).await {
            Ok(server) => server,
            Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => {
                complain(&format!("the simulated vendor cannot start: {error}"));
                return Exit::Usage;
            }
            Err(error) => {
                complain(&format!(
                    "the simulated vendor cannot listen on {}: {error}; --listen 127.0.0.1:0 takes a free port",
                    arguments.listen
                ));
                return Exit::Io;
            }
        };
        if let Err(exit) = print(&format!("http://{}\n", server.address())) {
            return exit;
        }
        let serve = async {
            server.run().await;
        };
        let stop = async {
            signals.next().await;
        };
        first(serve, stop).await;
        Exit::Done
    })
}
