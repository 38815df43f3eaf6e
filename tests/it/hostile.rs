//! Bad input and bad days, against the program itself: real children, sockets, folders and signals.
//!
//! Every test holds the same promise: no panic, no hang, nothing silent. What is bad is a counted and named failure, the
//! other items are done, the exit code says so, and no process, temporary file or descriptor is left.
//!
//! `Fault 33` names a row of the catalogue in `docs/FAULTS.md`. A few faults need a tool or a right that a machine may lack
//! (root, `strace`, mounts, a cgroup): then their tests say so and do nothing, but fail under `CI=true`; `.ci/run` says which,
//! installs what can be, and can go without.

pub mod bench;
mod children;
mod commands;
mod computing;
mod depth;
mod disks;
mod escapes;
mod files;
mod inputs;
mod outputs;
mod panics;
mod scarcity;
mod stops;
mod vendor;
