//! jq filters.
use super::{Facts, LangError};
use crate::item::Value;
use std::{fmt, ops::ControlFlow, sync::Arc};

/// A compiled jq filter. Cheap to clone, shared by threads.
#[derive(Clone)]
pub struct Filter(Arc<()>);

/// Why a filter gave no (further) value. Values in its message are cut short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterError(String);

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for FilterError {}

impl Filter {
    /// Compiles a filter. `name` is that of its file, for messages of a run.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with the bytes it is about.
    pub fn compile(text: &str, name: Option<&str>) -> Result<Filter, Vec<LangError>> {
        let _ = (text, name);
        Ok(Filter(Arc::new(())))
    }

    /// Runs the filter on `input` and hands what it gives to `each` until that says `Break`. CPU-bound, and without end
    /// for a filter without end: call it on a CPU thread.
    ///
    /// # Errors
    /// What went wrong; values that came before were handed out.
    pub fn run(
        &self,
        input: &Value,
        facts: &Facts,
        each: &mut dyn FnMut(Value) -> ControlFlow<()>,
    ) -> Result<(), FilterError> {
        let _ = (input, facts, each);
        Ok(())
    }

    /// The first value that it gives.
    ///
    /// # Errors
    /// As [`Filter::run`].
    pub fn first(&self, input: &Value, facts: &Facts) -> Result<Option<Value>, FilterError> {
        let _ = (input, facts);
        Ok(None)
    }

    /// For `_if` fields and `until`: whether the first value that it gives is neither null nor false; no value is false.
    ///
    /// # Errors
    /// As [`Filter::run`].
    pub fn first_bool(&self, input: &Value, facts: &Facts) -> Result<bool, FilterError> {
        let _ = (input, facts);
        Ok(false)
    }

    /// It uses `items`, `failures` or `counts`, which exist in a gather only.
    pub fn uses_group(&self) -> bool {
        false
    }

    /// The text that it was compiled from.
    pub fn source(&self) -> &str {
        ""
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Filter").field(&self.source()).finish()
    }
}
