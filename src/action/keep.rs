//! `Keep`: what a job remembers of an item from one due to the next.
//!
//! The action only computes the value. It is stored by the run when the item is done, so that an item that failed is
//! remembered as it was before.

use super::{Acted, Action, Checked, Gives, ItemContext, Out, Place, Stop, compute::Lost, files};
use crate::{
    item::{Class, Failure},
    lang::{Checker, Facts, Filter},
    limits::KEPT_VALUE_BYTES_MAX,
    world::BoxFuture,
};
use std::sync::PoisonError;

crate::spec! {
    /// Remembers a small value for the item's key: runs of the job that are due later see it as `state`; the value passes on.
    pub struct KeepSpec as "Keep" {
        /// jq that gives exactly one value, 64 KiB of JSON at most. `.` is what the action before gave.
        filter: String, example "\".sha256\"";
    }
}

struct Keep {
    filter: Filter,
    lost: Lost,
}

/// See [`super::check`].
pub(super) fn check(spec: &KeepSpec, path: &str, _place: &Place<'_>, checker: &mut Checker<'_>) -> Option<Checked> {
    if !checker.scope().key {
        let (message, help) = match checker.scope().finish {
            true => ("a notice has no item, so there is no key to keep a value for", "keep it in a stage"),
            false => ("a source has no item yet, so there is no key to keep a value for", "put it into the next stage"),
        };
        checker.error(path, message, Some(help));
        return None;
    }
    let filter = checker.filter(&format!("{path}.filter"), &spec.filter)?;
    let action = Box::new(Keep { filter, lost: Lost::default() });
    Some(Checked { kind: "Keep", action, gives: Gives::PassesOn, writes: false })
}

impl Action for Keep {
    fn run<'a>(&'a self, cx: &'a ItemContext, facts: &'a Facts, _out: &'a mut dyn Out) -> BoxFuture<'a, Acted> {
        Box::pin(async move {
            let data = |message: String| Stop::given_up(Class::Data, message);
            if cx.value_place > 0 {
                return Err(data("`Keep` met a second value of the item, and an item has one state".to_owned()));
            }
            let (filter, seen) = (self.filter.clone(), facts.clone());
            let mut computing = self.lost.start(cx, move |each| filter.run(&seen.value, &seen, each))?;
            let given = computing.next().await?;
            if given.is_some() && computing.next().await?.is_some() {
                computing.stop();
                return Err(data("the filter of `Keep` gave several values: give one, such as a list".to_owned()));
            }
            computing.result().map_err(|error| data(error.to_string()))?;
            let value = given.ok_or_else(|| data("the filter of `Keep` gave nothing: give one value".to_owned()))?;
            let bytes = value.to_string().len();
            if bytes > KEPT_VALUE_BYTES_MAX {
                let most = format!("`Keep` takes {KEPT_VALUE_BYTES_MAX} bytes of JSON at most, and this are {bytes}");
                return Err(Stop::given_up(Class::TooLarge, most));
            }
            *cx.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(value));
            Ok(())
        })
    }

    fn preview(&self, _facts: &Facts) -> Option<Result<String, Failure>> {
        Some(Ok(format!("Keep {}", files::quoted(self.filter.source()))))
    }
}
