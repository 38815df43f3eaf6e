//! Lamplighter

#[cfg(panic = "abort")]
compile_error!("lamplighter isolates panics by unwinding: build with panic = \"unwind\"");

pub mod limits;
pub mod units;

pub mod problem;

pub mod flow;
pub mod world;

pub mod item;

pub mod store;

pub mod report;

pub mod lang;

pub mod schedule;

pub mod service;

pub mod action;

pub mod job;

pub mod run;

#[cfg(feature = "demo")]
pub mod vendor_sim;
