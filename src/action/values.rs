//! JSON values written in a job file, whose texts are templates: rows of `Items`, arguments of `Call`.

use super::{ItemContext, Stop, files};
use crate::{
    item::{Failure, Value},
    lang::{Checker, Facts, Flavor, Template},
    world::BoxFuture,
};

/// A value with its texts compiled.
pub(super) enum Tree {
    /// Nothing to render.
    Plain(Value),
    /// A text with expressions.
    Text(Template),
    /// A list with something to render in it.
    List(Vec<Tree>),
    /// An object with something to render in it, in the order in which it was written.
    Object(Vec<(String, Tree)>),
}

impl Tree {
    /// Compiles the texts of `value`, which stands at `path`.
    pub fn check(value: &Value, path: &str, checker: &mut Checker<'_>) -> Option<Tree> {
        let tree = match value {
            Value::String(text) => match checker.template_or_literal(path, text, Flavor::Text)? {
                template if template.is_literal() => Tree::Plain(value.clone()),
                template => {
                    if let Some(secret) = template.secrets_used().first() {
                        let message = format!("the secret `{secret}` would become part of a value that is stored");
                        checker.error(path, message, Some("use it where it is sent: in a service"));
                        return None;
                    }
                    Tree::Text(template)
                }
            },
            Value::Array(values) => {
                let trees: Vec<Option<Tree>> = values
                    .iter()
                    .enumerate()
                    .map(|(place, value)| Tree::check(value, &format!("{path}[{place}]"), checker))
                    .collect();
                Tree::List(trees.into_iter().collect::<Option<_>>()?)
            }
            Value::Object(fields) => {
                let trees: Vec<Option<(String, Tree)>> = fields
                    .iter()
                    .map(|(name, value)| {
                        Some((name.clone(), Tree::check(value, &format!("{path}[{name:?}]"), checker)?))
                    })
                    .collect();
                Tree::Object(trees.into_iter().collect::<Option<_>>()?)
            }
            plain => Tree::Plain(plain.clone()),
        };
        Some(tree.simplified(value))
    }

    /// The value for these facts. `what` names the field.
    ///
    /// # Errors
    /// Class `data` when a text does not render.
    pub fn render<'a>(
        &'a self,
        cx: &'a ItemContext,
        facts: &'a Facts,
        what: &'a str,
    ) -> BoxFuture<'a, Result<Value, Box<Stop>>> {
        Box::pin(async move {
            Ok(match self {
                Tree::Plain(value) => value.clone(),
                Tree::Text(template) => Value::String(files::render(cx, template, facts, what).await?),
                Tree::List(trees) => {
                    let mut values = Vec::with_capacity(trees.len());
                    for tree in trees {
                        values.push(tree.render(cx, facts, what).await?);
                    }
                    Value::Array(values)
                }
                Tree::Object(trees) => {
                    let mut fields = serde_json::Map::new();
                    for (name, tree) in trees {
                        fields.insert(name.clone(), tree.render(cx, facts, what).await?);
                    }
                    Value::Object(fields)
                }
            })
        })
    }

    /// The same for a dry run.
    pub fn preview(&self, facts: &Facts, what: &str) -> Result<Value, Failure> {
        Ok(match self {
            Tree::Plain(value) => value.clone(),
            Tree::Text(template) => Value::String(files::preview(template, facts, what)?),
            Tree::List(trees) => {
                Value::Array(trees.iter().map(|tree| tree.preview(facts, what)).collect::<Result<_, _>>()?)
            }
            Tree::Object(trees) => Value::Object(
                trees
                    .iter()
                    .map(|(name, tree)| Ok((name.clone(), tree.preview(facts, what)?)))
                    .collect::<Result<_, Failure>>()?,
            ),
        })
    }

    /// A list or an object without expressions is a plain value.
    fn simplified(self, value: &Value) -> Tree {
        let plain = |tree: &Tree| matches!(tree, Tree::Plain(_));
        match &self {
            Tree::List(trees) if trees.iter().all(plain) => Tree::Plain(value.clone()),
            Tree::Object(trees) if trees.iter().all(|(_, tree)| plain(tree)) => Tree::Plain(value.clone()),
            _ => self,
        }
    }
}
