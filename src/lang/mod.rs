//! What authors compute with: templates (minijinja) and jq (jaq), and the facts that both of them see.
//!
//! `service` and `action` compile texts with [`Checker`] when a job is checked and render or run them for each item.
//! Nothing here waits or knows of stages; only [`Checker`] reads files, those that a job names.

mod check;
mod facts;
#[cfg_attr(not(feature = "jq"), path = "no_jq.rs")]
mod jq;
#[cfg(feature = "jq")]
mod stats;
mod template;

pub use check::{Checker, Finding, Level, ReadsResponse, Scope};
pub use facts::{Facts, Group, Rows, RunFacts, Secret};
pub use jq::{Filter, FilterError};
pub use template::{Flavor, RenderError, Template};

use std::{fmt, ops::Range};

/// What is wrong with a text of an author: a template or a jq filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LangError {
    /// What is wrong, a sentence without the place.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
    /// Bytes of the text that are meant.
    pub range: Option<Range<usize>>,
}

impl fmt::Display for LangError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for LangError {}
