//! The daemon on the simulated world: what it starts, when, and what becomes of the times at which it does not.
//!
//! [`lab`] is a machine whose daemon can crash, whose clocks can be set and whose job files can change; the other modules
//! hold one subject each, `swarm` all of them under seeds.

mod lab;
pub mod oracles;

mod clocks;
mod ends;
mod files;
mod gates;
mod late;
mod once;
mod polls;
pub mod swarm;
