//! `Items`: lists values that stand in the job file, or every combination of several lists.

use super::{Acted, Action, Checked, Gives, ItemContext, Out, Place, values::Tree};
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
    fn run<'a>(&'a self, cx: &'a ItemContext, facts: &'a Facts, out: &'a mut dyn Out) -> BoxFuture<'a, Acted> {
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
                        rendered.push((name.clone(), values));
                    }
                    for value in Combinations::new(rendered) {
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

/// Every combination of several lists; the last list varies fastest.
struct Combinations {
    lists: Vec<Vec<Value>>,
    /// Where the next one stands in each list.
    places: Vec<usize>,
    /// The next one, of which each is a copy: only the fields that change are written. `None` behind the last.
    next: Option<serde_json::Map<String, Value>>,
}

impl Combinations {
    fn new(lists: Vec<(String, Vec<Value>)>) -> Combinations {
        let first = |(name, values): &(String, Vec<Value>)| Some((name.clone(), values.first()?.clone()));
        let next = lists.iter().map(first).collect();
        Combinations {
            places: vec![0; lists.len()],
            lists: lists.into_iter().map(|(_, values)| values).collect(),
            next,
        }
    }

    /// Moves the last list on; what runs over its end begins again, and moves the one before it.
    fn advance(&mut self) {
        let Some(next) = &mut self.next else { return };
        let fields = next.values_mut().zip(&self.lists).zip(&mut self.places);
        for ((field, list), place) in fields.rev() {
            *place += 1;
            if let Some(value) = list.get(*place) {
                field.clone_from(value);
                return;
            }
            *place = 0;
            field.clone_from(&list[0]);
        }
        self.next = None;
    }
}

impl Iterator for Combinations {
    type Item = Value;

    fn next(&mut self) -> Option<Value> {
        let value = self.next.clone()?;
        self.advance();
        Some(Value::Object(value))
    }
}
