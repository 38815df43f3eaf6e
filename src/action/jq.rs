//! `Jq`: computes with a jq filter. It runs on a CPU thread: a filter that never ends holds up no timer.

use super::{Acted, Action, Checked, Gives, ItemContext, Out, Place, Stop, compute::Lost};
use crate::{
    item::{Class, Failure},
    lang::{Checker, Facts, Filter},
    world::BoxFuture,
};

crate::spec! {
    /// Computes with jq: gives what the filter gives; nothing ends the item `empty`.
    pub struct JqSpec as "Jq" {
        /// The filter. `.` is what the action before gave.
        filter: Option<String>, example "\".data[] | {id, steps}\"";
        /// A file with the filter, relative to the job file.
        file: Option<String>, example "\"nightly-vitals/assess.jq\"";
        /// Puts what it gives into this field of the value: the value, or a list where it gives several.
        into: Option<String>, example "\"summary\"";
    }
}

struct Jq {
    filter: Filter,
    lost: Lost,
}

/// See [`super::check`].
pub(super) fn check(spec: &JqSpec, path: &str, _place: &Place<'_>, checker: &mut Checker<'_>) -> Option<Checked> {
    let filter = match (&spec.filter, &spec.file) {
        (Some(text), None) => checker.filter(&format!("{path}.filter"), text)?,
        (None, Some(name)) => checker.filter_file(&format!("{path}.file"), name)?,
        (Some(_), Some(_)) => {
            checker.error(path, "`filter` and `file` exclude each other", Some("keep one of them"));
            return None;
        }
        (None, None) => {
            checker.error(path, "nothing to compute", Some("write `filter: \".data[]\"` or `file: \"name.jq\"`"));
            return None;
        }
    };
    let gives = Gives::named(spec.into.as_ref(), false);
    Some(Checked { kind: "Jq", action: Box::new(Jq { filter, lost: Lost::default() }), gives, writes: false })
}

impl Action for Jq {
    fn run<'a>(&'a self, cx: &'a ItemContext, facts: &'a Facts, out: &'a mut dyn Out) -> BoxFuture<'a, Acted> {
        Box::pin(async move {
            let (filter, seen) = (self.filter.clone(), facts.clone());
            let mut computing = self.lost.start(cx, move |each| filter.run(&seen.value, &seen, each))?;
            while let Some(value) = computing.next().await? {
                if let Err(stop) = out.give(value).await {
                    computing.stop();
                    return Err(stop);
                }
            }
            computing.result().map_err(|error| Stop::given_up(Class::Data, error.to_string()))
        })
    }

    fn preview(&self, _facts: &Facts) -> Option<Result<String, Failure>> {
        None
    }
}
