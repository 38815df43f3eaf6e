//! What authors compute with: templates (minijinja) and jq (jaq), and the facts that both of them see.
//!
//! `service` and `action` compile texts with [`Checker`] when a job is checked and render or run them for each item.
//! Nothing here waits, reads a file by itself or knows of stages.

mod check;
mod facts;
mod jq;
mod stats;
mod template;

pub use check::{Checker, Finding, Level, Scope};
pub use facts::{Facts, Group, Rows, RunFacts, Secret};
pub use jq::{Filter, FilterError};
pub use template::{Flavor, RenderError, Template};
