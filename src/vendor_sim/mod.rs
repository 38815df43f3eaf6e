//! x
pub mod body;
pub mod decide;
