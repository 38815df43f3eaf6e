//! Bad input and bad days, against the program itself: real children, sockets, folders and signals.
//!
//! Every test holds the same promise: no panic, no hang, nothing silent. What is bad is a counted and named failure, the
//! other items are done, the exit code says so, and no process, temporary file or descriptor is left.

mod bench;
mod children;
mod commands;
mod computing;
mod inputs;
mod outputs;
mod vendor;
