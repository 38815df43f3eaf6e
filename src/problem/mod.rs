//! What is wrong with a file, and where.

pub mod schema;
