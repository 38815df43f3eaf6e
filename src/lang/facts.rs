//! What a template or a jq filter can see while it works on an item.

use crate::item::{Key, Value};
use std::{collections::BTreeMap, fmt, sync::Arc};

/// Everything at hand for one item, cheap to clone.
#[derive(Clone)]
pub struct Facts {
    /// What came into the stage: `item`, `$item`.
    pub item: Arc<Value>,
    /// What the action before gave, at first the same: `value`, `.`.
    pub value: Arc<Value>,
    /// The item's key: `key`, `$key`.
    pub key: Key,
    /// What is the same for the whole run.
    pub run: Arc<RunFacts>,
    /// The value kept for this key by an earlier due: `state`, `$state`; null when there is none.
    pub state: Arc<Value>,
    /// The head of the last answer: `response`, `$response`; null before the first.
    pub response: Arc<Value>,
    /// In a gather: its items, failures and counts.
    pub group: Option<Arc<dyn Group>>,
}

/// What is the same for all items of a run.
pub struct RunFacts {
    /// `params`, `$params`: an object, defaults and `--set` together.
    pub params: Value,
    /// `run`, `$run`: an object (`run.id`, `run.night`, …).
    pub run: Value,
    /// `secret.NAME`, for templates only.
    pub secrets: BTreeMap<String, Secret>,
}

/// A secret value: it has no `Debug`, `Display` or `Serialize` that would show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value that was read from its source.
    pub fn new(value: impl Into<String>) -> Secret {
        Secret(value.into())
    }

    /// The value itself, for the one place where it is sent.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Values read one after the other; an `Err` (a sentence) ends them.
pub type Rows = Box<dyn Iterator<Item = Result<Value, String>> + Send>;

/// What a gather sees of its group: read from the store in pages, never held in memory as a whole. The iterators block the
/// thread that reads them, so they are read on a CPU thread only.
pub trait Group: Send + Sync {
    /// The ok values of all parents, or of the parent with this name, in lineage order.
    ///
    /// # Errors
    /// A sentence when the stage is no parent of the gather.
    fn items(&self, stage: Option<&str>) -> Result<Rows, String>;
    /// `{stage, key, class, message, attempts}` of every missing item of all ancestors.
    fn failures(&self) -> Rows;
    /// `{stage: {items, ok, …, complete}}` of the whole run, frozen when the gather started.
    fn counts(&self) -> Arc<Value>;
}

impl Facts {
    /// Facts of an item of a stage, before its first action.
    pub fn new(item: Arc<Value>, key: Key, run: Arc<RunFacts>) -> Facts {
        let null = Arc::new(Value::Null);
        Facts { value: item.clone(), item, key, run, state: null.clone(), response: null, group: None }
    }
}

impl fmt::Debug for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Facts").field("key", &self.key.as_str()).finish_non_exhaustive()
    }
}
