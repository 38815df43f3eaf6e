//! The one integration binary: a module for each surface. They use the public API, or the program itself.

mod check;
mod cli;
mod daemon;
mod daemon_real;
mod damage;
mod disk;
mod documents;
mod embedding;
mod engine;
mod examples;
#[cfg(feature = "plant")]
mod failpoints;
mod history;
mod hostile;
mod kills;
mod left;
mod memory;
mod moving;
mod newcomer;
mod nights;
mod pings;
mod power;
mod resume;
mod samples;
mod schedule;
mod schema;
mod seeds;
mod serve;
mod services;
mod signals;
mod sql;
mod state;
mod tidy;
mod util;
