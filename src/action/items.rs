//! `Items`: lists values that stand in the job file, or every combination of several lists.

use super::{Action, Checked, Gives, ItemContext, Out, Place, Stop, values::Tree};
use crate::{
    item::{Failure, Value},
    lang::{Checker, Facts},
    limits::ITEMS_MAX,
    problem::{Json, UniqueMap},
    world::BoxFuture,
};

crate::spec! {
    /// Lists values of the job file: a list, or every combination of several lists.
    pub struct ItemsSpec as "Items" {
        /// Any values, one item each; texts are templates.
        list: Option<Vec<Json>>, example "[\"eu\", \"us\"]";
        /// Named lists; every combination is an item, the last list varies fastest. Texts are templates.
        matrix: Option<UniqueMap<Vec<Json>>>, example "{\"region\": [\"eu\", \"us\"], \"year\": [2025, 2026]}";
        /// Puts the list into this field of the value.
        into: Option<String>, example "\"regions\"";
    }
}

enum Items {
    List(Vec<Tree>),
    Matrix(Vec<(String, Vec<Tree>)>),
}

/// See [`super::check`].
pub(super) fn check(spec: &ItemsSpec, path: &str, _place: &Place<'_>, checker: &mut Checker<'_>) -> Option<Checked> {
    let items = match (&spec.list, &spec.matrix) {
        (Some(list), None) => Items::List(trees(list, &format!("{path}.list"), checker)?),
        (None, Some(matrix)) => {
            let count = matrix.0.iter().try_fold(1usize, |count, (_, list)| count.checked_mul(list.len()));
            if count.is_none_or(|count| count > ITEMS_MAX) {
                checker.error(
                    &format!("{path}.matrix"),
                    format!("these lists have more than {ITEMS_MAX} combinations"),
                    Some("combine fewer lists here, and fan out in a later stage"),
                );
                return None;
            }
            if matrix.0.is_empty() {
                checker.error(
                    &format!("{path}.matrix"),
                    "a matrix without lists has no combination",
                    Some("write `matrix: {\"region\": [\"eu\", \"us\"]}`"),
                );
                return None;
            }
            let lists: Vec<Option<(String, Vec<Tree>)>> = matrix
                .0
                .iter()
                .map(|(name, list)| Some((name.clone(), trees(list, &format!("{path}.matrix[{name:?}]"), checker)?)))
                .collect();
            Items::Matrix(lists.into_iter().collect::<Option<_>>()?)
        }
        (Some(_), Some(_)) => {
            checker.error(path, "`list` and `matrix` exclude each other", Some("keep one of them"));
            return None;
        }
        (None, None) => {
            checker.error(path, "nothing is listed", Some("write `list: [..]` or `matrix: {\"name\": [..]}`"));
            return None;
        }
    };
    let gives = Gives::named(spec.into.as_ref(), true);
    Some(Checked { kind: "Items", action: Box::new(items), gives, writes: false })
}

fn trees(list: &[Json], path: &str, checker: &mut Checker<'_>) -> Option<Vec<Tree>> {
    let trees: Vec<Option<Tree>> = list
        .iter()
        .enumerate()
        .map(|(place, value)| Tree::check(&value.0, &format!("{path}[{place}]"), checker))
        .collect();
    trees.into_iter().collect()
}

impl Action for Items {
    fn run<'a>(
        &'a self,
        cx: &'a ItemContext,
        facts: &'a Facts,
        out: &'a mut dyn Out,
    ) -> BoxFuture<'a, Result<(), Stop>> {
        Box::pin(async move {
            match self {
                Items::List(list) => {
                    for tree in list {
                        out.give(tree.render(cx, facts, "list").await?).await?;
                    }
                }
                Items::Matrix(lists) => {
                    let mut rendered = Vec::new();
                    for (name, list) in lists {
                        let mut values = Vec::new();
                        for tree in list {
                            values.push(tree.render(cx, facts, "matrix").await?);
                        }
                        rendered.push((name, values));
                    }
                    let mut places = vec![0; rendered.len()];
                    while let Some(value) = combination(&rendered, &mut places) {
                        out.give(value).await?;
                    }
                }
            }
            Ok(())
        })
    }

    fn preview(&self, _facts: &Facts) -> Option<Result<String, Failure>> {
        None
    }
}

/// The combination at `places`, which then stand at the next one; `None` behind the last.
fn combination(lists: &[(&String, Vec<Value>)], places: &mut [usize]) -> Option<Value> {
    let mut fields = serde_json::Map::with_capacity(lists.len());
    for ((name, values), place) in lists.iter().zip(&*places) {
        fields.insert((*name).clone(), values.get(*place)?.clone());
    }
    // The last list varies fastest; the first one runs over its end.
    for (list, place) in (0..places.len()).rev().map(|at| (at, lists[at].1.len())) {
        places[list] += 1;
        if places[list] < place || list == 0 {
            break;
        }
        places[list] = 0;
    }
    Some(Value::Object(fields))
}
