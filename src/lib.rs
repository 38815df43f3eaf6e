//! Lamplighter

#[cfg(panic = "abort")]
compile_error!("lamplighter isolates panics by unwinding: build with panic = \"unwind\"");

pub mod item;
pub mod lang;
pub mod limits;
pub mod problem;
