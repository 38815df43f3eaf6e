//! The engine on the simulated world: every rule of a run under many seeds.
//!
//! [`lab`] runs a job under a seed and holds what must hold in every run; the other modules hold one subject each.

mod lab;
mod oracles;

mod backpressure;
mod cancel;
mod clocks;
mod deadlines;
mod ends;
mod gather;
mod kept;
mod keys;
mod options;
mod order;
mod outcomes;
mod panics;
mod planted;
mod restarts;
mod retries;
mod rows;
mod silent;
mod small;
mod stop;
mod swarm;
