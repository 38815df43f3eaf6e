//! Templates: URLs, arguments, pages, mails.
use super::{Facts, LangError};
use std::{fmt, sync::Arc};

/// How the values of a template's expressions are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flavor {
    /// As they are.
    Text,
    /// Escaped for HTML and XML.
    Html,
    /// Percent-encoded, so that a value stays one segment or one value of a query.
    UrlPath,
}

/// A compiled template. Cheap to clone, shared by threads.
#[derive(Clone)]
pub struct Template(Arc<()>);

/// Why a template gave no text. Never holds a value of an item or a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenderError(String);

impl fmt::Display for RenderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for RenderError {}

impl Flavor {
    /// `Html` for names that end in `.html`, `.htm`, `.svg` or `.xml`, else `Text`.
    pub fn of_file(name: &str) -> Flavor {
        let _ = name;
        Flavor::Text
    }
}

impl Template {
    /// Compiles a template.
    ///
    /// # Errors
    /// A syntax error, with the bytes it is about.
    pub fn compile(text: &str, flavor: Flavor) -> Result<Template, LangError> {
        let _ = (text, flavor);
        Ok(Template(Arc::new(())))
    }

    /// The text for these facts. CPU-bound; reads a gather's group from the store.
    ///
    /// # Errors
    /// A variable that does not exist, a filter that does not fit, too much output.
    pub fn render(&self, facts: &Facts) -> Result<String, RenderError> {
        let _ = facts;
        Err(RenderError(String::new()))
    }

    /// Names of the secrets that it uses, sorted.
    pub fn secrets_used(&self) -> &[String] {
        &[]
    }

    /// Variables that it uses, with their attributes (`item.id`), sorted.
    pub fn variables(&self) -> &[String] {
        &[]
    }

    /// It has no expression: it always gives the same text.
    pub fn is_literal(&self) -> bool {
        false
    }

    /// Its first piece is an expression, not text (an argument that data could turn into an option).
    pub fn starts_with_data(&self) -> bool {
        false
    }

    /// It is exactly `{{ expression | url }}`: it may be a whole URL from data.
    pub fn whole_url(&self) -> bool {
        false
    }

    /// It reads `items`, `failures` or `counts`: render it on a CPU thread.
    pub fn uses_group(&self) -> bool {
        false
    }

    /// The text that it was compiled from.
    pub fn source(&self) -> &str {
        ""
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Template").field(&self.source()).finish()
    }
}
