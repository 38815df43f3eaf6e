//! In the place of `jq.rs` in a program without the feature `jq`: there is no filter, and a job that has one is refused
//! when it is loaded.

use super::{Facts, LangError};
use crate::item::Value;
use std::{
    fmt,
    ops::{ControlFlow, Range},
};

/// There is none.
#[derive(Clone, Debug)]
pub enum Filter {}

/// There is none, since no filter runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FilterError {}

impl fmt::Display for FilterError {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

impl std::error::Error for FilterError {}

impl Filter {
    /// Refuses.
    ///
    /// # Errors
    /// Always: that this program was built without jq.
    pub fn compile(text: &str, _name: Option<&str>) -> Result<Filter, Vec<LangError>> {
        let message = "this program was built without jq (the feature `jq`)".to_owned();
        Err(vec![LangError { message, help: None, range: Some(0..text.len()) }])
    }

    /// Cannot be called.
    ///
    /// # Errors
    /// None.
    pub fn run(
        &self,
        _input: &Value,
        _facts: &Facts,
        _each: &mut dyn FnMut(Value) -> ControlFlow<()>,
    ) -> Result<(), FilterError> {
        match *self {}
    }

    /// Cannot be called.
    ///
    /// # Errors
    /// None.
    pub fn first(&self, _input: &Value, _facts: &Facts) -> Result<Option<Value>, FilterError> {
        match *self {}
    }

    /// Cannot be called.
    ///
    /// # Errors
    /// None.
    pub fn first_bool(&self, _input: &Value, _facts: &Facts) -> Result<bool, FilterError> {
        match *self {}
    }

    /// Cannot be called.
    pub fn uses_group(&self) -> bool {
        match *self {}
    }

    /// Cannot be called.
    pub fn group_uses(&self) -> &[Range<usize>] {
        match *self {}
    }

    /// Cannot be called.
    pub fn source(&self) -> &str {
        match *self {}
    }
}
