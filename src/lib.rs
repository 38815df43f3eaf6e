//! Lamplighter

#[cfg(panic = "abort")]
compile_error!("lamplighter isolates panics by unwinding: build with panic = \"unwind\"");

pub mod item;
pub mod limits;
pub mod problem;
pub mod units;
pub mod lang;
