//! In the place of `jq.rs` in a program without the feature `jq`: no filter compiles, so a job that has one is refused
//! when it is loaded.

use super::{Facts, LangError};
use crate::item::Value;
use std::{
    fmt,
    ops::{ControlFlow, Range},
};

/// Why nothing is computed.
const WITHOUT_JQ: &str = "this program was built without jq (the feature `jq`)";

/// A compiled filter, of which there is none.
#[derive(Clone, Debug)]
pub struct Filter(());

/// Why a filter gave no value: there is no jq.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterError(());

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(WITHOUT_JQ)
    }
}

impl std::error::Error for FilterError {}

impl Filter {
    /// Refuses.
    ///
    /// # Errors
    /// Always: that this program was built without jq.
    pub fn compile(text: &str, _name: Option<&str>) -> Result<Filter, Vec<LangError>> {
        Err(vec![LangError { message: WITHOUT_JQ.to_owned(), help: None, range: Some(0..text.len()) }])
    }

    /// Gives nothing.
    ///
    /// # Errors
    /// Always.
    pub fn run(
        &self,
        _input: &Value,
        _facts: &Facts,
        _each: &mut dyn FnMut(Value) -> ControlFlow<()>,
    ) -> Result<(), FilterError> {
        Err(FilterError(()))
    }

    /// Gives nothing.
    ///
    /// # Errors
    /// Always.
    pub fn first(&self, _input: &Value, _facts: &Facts) -> Result<Option<Value>, FilterError> {
        Err(FilterError(()))
    }

    /// Gives nothing.
    ///
    /// # Errors
    /// Always.
    pub fn first_bool(&self, _input: &Value, _facts: &Facts) -> Result<bool, FilterError> {
        Err(FilterError(()))
    }

    /// It uses no `items`, `failures` or `counts`.
    pub fn uses_group(&self) -> bool {
        false
    }

    /// Nowhere.
    pub fn group_uses(&self) -> &[Range<usize>] {
        &[]
    }

    /// The text of no filter.
    pub fn source(&self) -> &str {
        ""
    }
}
