//! Templates, by minijinja: URLs, arguments, headers, file names, pages and mails.
//!
//! [`super::Checker`] compiles them, services and actions render them. What does not exist is an error, never an empty text.
//! A template reads no other template. Messages of a rendering name variables, never values: they end up in logs.

mod facts;
mod filters;
mod scan;

use super::{Facts, LangError};
use crate::limits::{RENDER_FUEL, RENDERED_BYTES_MAX, TEMPLATE_BRANCHES_MAX, TEMPLATE_DEPTH_MAX};
use facts::{Broken, Json, Listing, Root};
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State, UndefinedBehavior, Value, value::ValueKind};
use scan::{Kind, Piece, Word, WordKind};
use std::{
    fmt, io,
    ops::Range,
    sync::{Arc, OnceLock, PoisonError},
};

/// Before the messages of our own filters: all others may hold values.
const OWN: &str = "\u{1}";
/// Around each value of a URL until it is whole: no author's text and no encoded value holds them.
const VALUE_OPEN: char = '\u{1}';
/// See [`VALUE_OPEN`].
const VALUE_CLOSE: char = '\u{2}';
/// Name of the one template of an environment.
const NAME: &str = "template";

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
pub struct Template(Arc<Inner>);

struct Inner {
    environment: Environment<'static>,
    source: String,
    flavor: Flavor,
    secrets: Vec<String>,
    variables: Vec<String>,
    literal: bool,
    starts_with_data: bool,
    whole_url: bool,
}

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
        let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
        let escaped = ["html", "htm", "svg", "xml"].iter().any(|html| ending.eq_ignore_ascii_case(html));
        if escaped { Flavor::Html } else { Flavor::Text }
    }
}

impl Template {
    /// Compiles a template.
    ///
    /// # Errors
    /// The first thing that is wrong with it, with the bytes it is about.
    pub fn compile(text: &str, flavor: Flavor) -> Result<Template, LangError> {
        if let Some(at) = text.find([VALUE_OPEN, VALUE_CLOSE]) {
            return Err(wrong("a control character cannot stand in a template", None, Some(at..at + 1)));
        }
        let pieces = scan::pieces(text);
        check_depth(text, &pieces)?;
        let mut environment = base(flavor).clone();
        environment.add_template_owned(NAME, text.to_owned()).map_err(|e| syntax_error(text, &e))?;
        check_words(text, &pieces, flavor)?;
        let template = environment.get_template(NAME).expect("it was added above");
        let globals: Vec<String> = environment.globals().map(|(name, _)| name.to_owned()).collect();
        let mut variables: Vec<String> = template.undeclared_variables(true).into_iter().collect();
        variables.retain(|name| !globals.contains(name));
        variables.sort_unstable();
        if variables.iter().any(|name| name == "secret") {
            let range = find_variable(text, &pieces, "secret");
            return Err(wrong("a secret is used by its name", Some("write secret.NAME"), range));
        }
        let mut secrets: Vec<String> = variables.iter().filter_map(|name| secret_name(name)).collect();
        secrets.dedup();
        let first = pieces.iter().find(|piece| !is_trimmed_away(text, piece, &pieces));
        let whole_url = matches!(&pieces[..], [only] if only.kind == Kind::Expression && ends_in_url(text, only));
        let inner = Inner {
            literal: pieces.iter().all(|piece| piece.kind == Kind::Text),
            starts_with_data: first.is_some_and(|piece| piece.kind != Kind::Text),
            whole_url,
            source: text.to_owned(),
            environment,
            flavor,
            secrets,
            variables,
        };
        Ok(Template(Arc::new(inner)))
    }

    /// The text for these facts. CPU-bound; reads a gather's group from the store.
    ///
    /// # Errors
    /// A variable that does not exist, a filter that does not fit, too much output, in a URL a value that would not be a
    /// segment of its own.
    pub fn render(&self, facts: &Facts) -> Result<String, RenderError> {
        let template = self.0.environment.get_template(NAME).expect("it was added when this was compiled");
        let broken = Broken::default();
        let root = Value::from_object(Root::new(facts, broken.clone()));
        let mut output = Bounded(Vec::new());
        let rendered = template.render_captured_to(root, &mut output).map(|_| ());
        if let Some(sentence) = broken.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(RenderError(sentence));
        }
        rendered.map_err(|e| self.render_error(&e))?;
        let text = String::from_utf8(output.0).map_err(|_| RenderError("the text is not UTF-8".into()))?;
        if self.0.flavor == Flavor::UrlPath { unmark(&text) } else { Ok(text) }
    }

    /// Names of the secrets that it uses, sorted.
    pub fn secrets_used(&self) -> &[String] {
        &self.0.secrets
    }

    /// Variables that it uses, with their attributes (`item.id`), sorted.
    pub fn variables(&self) -> &[String] {
        &self.0.variables
    }

    /// Where a variable of [`Template::variables`] stands first.
    pub fn find(&self, variable: &str) -> Option<Range<usize>> {
        find_variable(&self.0.source, &scan::pieces(&self.0.source), variable)
    }

    /// Some use of a variable asks whether it exists: `| default(..)`, `is defined`.
    pub fn asks_for(&self, variable: &str) -> bool {
        let text = &self.0.source;
        scan::pieces(text).iter().any(|piece| {
            let words: Vec<&str> = piece.words.iter().map(|word| &text[word.range.clone()]).collect();
            let last = variable.rsplit('.').next().unwrap_or(variable);
            words.iter().enumerate().any(|(at, word)| {
                *word == last
                    && matches!(
                        words[at + 1..],
                        ["|", "default" | "d", ..]
                            | ["is", "defined" | "undefined", ..]
                            | ["is", "not", "defined" | "undefined", ..]
                    )
            })
        })
    }

    /// It has no expression: it always gives the same text.
    pub fn is_literal(&self) -> bool {
        self.0.literal
    }

    /// Its first piece is an expression, not text (an argument that data could turn into an option).
    pub fn starts_with_data(&self) -> bool {
        self.0.starts_with_data
    }

    /// It is exactly `{{ expression | url }}`: it may be a whole URL from data.
    pub fn whole_url(&self) -> bool {
        self.0.whole_url
    }

    /// It reads `items`, `failures` or `counts`: render it on a CPU thread.
    pub fn uses_group(&self) -> bool {
        self.0.variables.iter().any(|name| matches!(root_of(name), "items" | "failures" | "counts"))
    }

    /// The text that it was compiled from.
    pub fn source(&self) -> &str {
        &self.0.source
    }

    fn render_error(&self, error: &Error) -> RenderError {
        let place = error.range().and_then(|range| self.0.source.get(range)).map(str::trim).filter(|s| !s.is_empty());
        let exact = error.kind() == ErrorKind::UndefinedError;
        // minijinja points at the filter alone: the whole expression says more.
        let place = if exact { place } else { self.expression_around(error).or(place) };
        let what = |otherwise: &str| place.map_or(otherwise.to_owned(), |place| format!("`{}`", shown(place)));
        if let Some(sentence) = error.detail().and_then(|detail| detail.strip_prefix(OWN)) {
            return RenderError(match place {
                Some(place) => format!("`{}`: {sentence}", shown(place)),
                None => sentence.to_owned(),
            });
        }
        RenderError(match error.kind() {
            ErrorKind::UndefinedError => format!("{} does not exist", what("a variable")),
            ErrorKind::OutOfFuel => "the template does too much work".into(),
            ErrorKind::WriteFailure => format!("the text is longer than {RENDERED_BYTES_MAX} bytes"),
            ErrorKind::UnknownFilter => format!("{} uses a filter that does not exist", what("an expression")),
            ErrorKind::UnknownFunction | ErrorKind::UnknownMethod => {
                format!("{} calls what does not exist", what("an expression"))
            }
            ErrorKind::MissingArgument | ErrorKind::TooManyArguments => {
                format!("{} has too few or too many arguments", what("a call"))
            }
            _ => format!("{} does not work with the value that is there", what("an expression")),
        })
    }

    fn expression_around(&self, error: &Error) -> Option<&str> {
        let range = error.range()?;
        let pieces = scan::pieces(&self.0.source);
        let piece = pieces.iter().find(|p| p.range.start <= range.start && range.start < p.range.end)?;
        let (first, last) = (piece.words.first()?, piece.words.last()?);
        (piece.kind == Kind::Expression).then(|| &self.0.source[first.range.start..last.range.end])
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Template").field(&self.source()).finish()
    }
}

/// The environment of a flavor; templates clone it (it shares its filters).
fn base(flavor: Flavor) -> &'static Environment<'static> {
    static BASES: [OnceLock<Environment<'static>>; 3] = [OnceLock::new(), OnceLock::new(), OnceLock::new()];
    BASES[flavor as usize].get_or_init(|| {
        let mut env = Environment::new();
        env.set_undefined_behavior(UndefinedBehavior::Strict);
        let syntax = SyntaxConfig::builder().keep_trailing_newline(true).build();
        env.set_syntax(syntax.expect("the usual braces are a syntax"));
        env.set_fuel(Some(RENDER_FUEL));
        // Errors say where they happened only so.
        env.set_debug(true);
        // It prints every variable, the secrets, too.
        env.remove_global("debug");
        filters::add(&mut env);
        match flavor {
            Flavor::Text => env.set_auto_escape_callback(|_| AutoEscape::None),
            Flavor::Html => env.set_auto_escape_callback(|_| AutoEscape::Html),
            Flavor::UrlPath => {
                env.set_auto_escape_callback(|_| AutoEscape::Custom("url".into()));
                env.remove_filter("safe");
            }
        }
        env.set_formatter(move |out, state, value| write_value(flavor, out, state, value));
        env
    })
}

/// Writes the value of an expression.
fn write_value(flavor: Flavor, out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    let own = |sentence: &str| Err(Error::new(ErrorKind::InvalidOperation, format!("{OWN}{sentence}")));
    if value.downcast_object_ref::<Listing>().is_some() {
        return own("rows are read in a loop: {% for i in items %}");
    }
    let container = matches!(value.kind(), ValueKind::Map | ValueKind::Seq | ValueKind::Iterable);
    if flavor == Flavor::UrlPath {
        let text = match value.kind() {
            _ if value.is_safe() => {
                // Marked by `url`, or caught from this template and encoded already.
                return Ok(out.write_str(value.as_str().unwrap_or_default())?);
            }
            ValueKind::None | ValueKind::Undefined => return own("a URL needs a value, this is null"),
            ValueKind::String => value.as_str().unwrap_or_default().to_owned(),
            ValueKind::Number => number_text(value),
            ValueKind::Bool => number_text(value),
            _ => return own("a URL needs one text, number or boolean"),
        };
        out.write_str(&marked(&text))?;
        return Ok(());
    }
    match value.kind() {
        ValueKind::None | ValueKind::Undefined => Ok(()),
        ValueKind::Number | ValueKind::Bool => Ok(out.write_str(&number_text(value))?),
        _ if container => {
            let json = match value.downcast_object_ref::<Json>() {
                Some(json) => json.value().to_string(),
                None => serde_json::to_string(value)
                    .map_err(|_| Error::new(ErrorKind::InvalidOperation, format!("{OWN}this cannot be written")))?,
            };
            minijinja::escape_formatter(out, state, &Value::from(json))
        }
        _ => minijinja::escape_formatter(out, state, value),
    }
}

/// A number or boolean as JSON has it: integers whole, floats in their shortest form.
fn number_text(value: &Value) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| value.to_string())
}

/// Percent-encodes everything but the unreserved characters of RFC 3986, and puts the marks around it.
fn marked(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() + 2);
    encoded.push(VALUE_OPEN);
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(byte as char),
            _ => {
                const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
                encoded.extend(['%', DIGITS[(byte >> 4) as usize] as char, DIGITS[(byte & 15) as usize] as char]);
            }
        }
    }
    encoded.push(VALUE_CLOSE);
    encoded
}

/// Takes the marks out of a URL. A segment of its path that holds a value must not be empty, `.` or `..`: it would name
/// another resource.
fn unmark(text: &str) -> Result<String, RenderError> {
    let path = text.split(['?', '#']).next().unwrap_or_default();
    for segment in path.split('/') {
        if !segment.contains(VALUE_OPEN) {
            continue;
        }
        let plain: String = segment.chars().filter(|c| !matches!(*c, VALUE_OPEN | VALUE_CLOSE)).collect();
        let dots = plain.to_ascii_lowercase().replace("%2e", ".");
        if matches!(&*dots, "" | "." | "..") {
            let what = if plain.is_empty() { "empty" } else { "`.` or `..`" };
            return Err(RenderError(format!("a segment of the URL's path that comes from data is {what}")));
        }
    }
    Ok(text.chars().filter(|c| !matches!(*c, VALUE_OPEN | VALUE_CLOSE)).collect())
}

/// A writer that ends at [`RENDERED_BYTES_MAX`].
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > RENDERED_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn wrong(message: impl Into<String>, help: Option<&str>, range: Option<Range<usize>>) -> LangError {
    LangError { message: message.into(), help: help.map(str::to_owned), range }
}

/// minijinja bounds brackets and blocks, but not chains (`not not ..`, `1 + 1 + ..`, `elif`): each link is a level of its
/// syntax tree, and a stack that overflows ends the program.
fn check_depth(text: &str, pieces: &[Piece]) -> Result<(), LangError> {
    if let Some(piece) = pieces.iter().find(|piece| piece.depth(text) > TEMPLATE_DEPTH_MAX) {
        let message = format!("an expression of more than {TEMPLATE_DEPTH_MAX} words");
        return Err(wrong(message, Some("cut it with `{% set %}`, or compute it with Jq"), Some(piece.range.clone())));
    }
    let mut branches = pieces.iter().filter(|piece| piece.keyword(text) == Some("elif"));
    match branches.nth(TEMPLATE_BRANCHES_MAX) {
        None => Ok(()),
        Some(piece) => {
            let message = format!("a template of more than {TEMPLATE_BRANCHES_MAX} `elif`");
            Err(wrong(message, Some("look the value up in a map"), Some(piece.range.clone())))
        }
    }
}

fn syntax_error(text: &str, error: &Error) -> LangError {
    let detail = error.detail().unwrap_or("this is no template").to_owned();
    if detail.starts_with("unexpected end of input")
        && let Some(error) = never_ended(text)
    {
        return error;
    }
    let range = error.range().filter(|range| text.get(range.clone()).is_some());
    let around = range.clone().and_then(|range| text.get(range)).unwrap_or_default();
    let help = match around {
        "$" => Some("variables of a template have no `$`: write {{ item.id }}"),
        "." => Some("begin with the variable: write {{ item.id }}"),
        "}" if detail.ends_with("expected end of variable block") => {
            return wrong("a single `}` cannot end a value", Some("write `}}`"), range);
        }
        _ if detail.contains("end of input") => Some("every {{ needs a }}, every {% if … %} an {% endif %}"),
        _ => None,
    };
    wrong(detail, help, range)
}

/// Where the text ends inside something: minijinja points at the end, people look for the beginning.
fn never_ended(text: &str) -> Option<LangError> {
    let at = text.rfind("{{").max(text.rfind("{%"))?;
    let (open, close) = if text[at..].starts_with("{{") { ("{{", "}}") } else { ("{%", "%}") };
    if !text[at..].contains(close) {
        let help = format!("write `{close}` where it ends");
        return Some(wrong(format!("this `{open}` is never closed"), Some(&help), Some(at..at + 2)));
    }
    let mut open: Vec<(&str, usize)> = Vec::new();
    for (at, _) in text.match_indices("{%") {
        let inside = text[at + 2..].split("%}").next().unwrap_or_default().trim_matches(['-', '+']);
        let word = inside.split_whitespace().next().unwrap_or_default();
        match word {
            "if" | "for" | "macro" | "filter" | "call" | "block" | "with" | "autoescape" => open.push((word, at)),
            "set" if !inside.contains('=') => open.push((word, at)),
            _ if word.starts_with("end") => drop(open.pop()),
            _ => {}
        }
    }
    let (word, at) = open.pop()?;
    let help = format!("write `{{% end{word} %}}` where it ends");
    Some(wrong(format!("this `{{% {word}` has no end"), Some(&help), Some(at..at + 2)))
}

/// What minijinja would say only when it renders: filters, tests and other templates.
fn check_words(text: &str, pieces: &[Piece], flavor: Flavor) -> Result<(), LangError> {
    let env = base(flavor);
    for piece in pieces {
        let word = |at: usize| piece.words.get(at).map_or("", |w| &text[w.range.clone()]);
        if piece.kind == Kind::Block && matches!(word(0), "include" | "import" | "from" | "extends") {
            let range = piece.words[0].range.clone();
            return Err(wrong(
                format!("`{}` is not available: a template is one text", word(0)),
                Some("put everything into this file"),
                Some(range),
            ));
        }
        for (at, Word { kind, range }) in piece.words.iter().enumerate() {
            if *kind != WordKind::Name {
                continue;
            }
            let name = word(at);
            let before = if at == 0 { "" } else { word(at - 1) };
            let test = before == "is" || (before == "not" && at > 1 && word(at - 2) == "is");
            if before == "|" || (piece.kind == Kind::Block && at == 1 && before == "filter") {
                check_filter(env, name, range.clone(), flavor)?;
                if name == "url" && flavor == Flavor::UrlPath && (pieces.len() > 1 || !ends_in_url(text, piece)) {
                    return Err(wrong(
                        "`url` takes a whole URL or path from data and stands alone in its field",
                        Some("write {{ item.href | url }} and nothing else; leave `url` out for a part of a URL"),
                        Some(range.clone()),
                    ));
                }
            } else if test && name != "not" && !knows_test(env, name) {
                return Err(wrong(format!("there is no test `{name}`"), None, Some(range.clone())));
            }
        }
    }
    Ok(())
}

fn check_filter(env: &Environment<'_>, name: &str, range: Range<usize>, flavor: Flavor) -> Result<(), LangError> {
    if flavor == Flavor::UrlPath && matches!(name, "urlencode" | "e" | "escape" | "safe") {
        let help = Some("leave it out; `url` alone in a field takes a whole URL as it stands");
        return Err(wrong(
            format!("`{name}` is not for URLs: each value is percent-encoded already"),
            help,
            Some(range),
        ));
    }
    if knows_filter(env, name) {
        return Ok(());
    }
    let known = FILTERS.iter().map(|known| (known, strsim::damerau_levenshtein(name, known)));
    let near = known.min_by_key(|(_, far)| *far).filter(|(_, far)| *far <= 2);
    let help = near.map(|(near, _)| format!("did you mean `{near}`?"));
    Err(wrong(format!("there is no filter `{name}`"), help.as_deref(), Some(range)))
}

/// Names to suggest.
const FILTERS: [&str; 52] = [
    "abs",
    "add_days",
    "attr",
    "batch",
    "bool",
    "capitalize",
    "chain",
    "count",
    "default",
    "dictsort",
    "escape",
    "first",
    "float",
    "format",
    "format_date",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "lines",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "pprint",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "slice",
    "sort",
    "split",
    "string",
    "sum",
    "thousands",
    "title",
    "tojson",
    "trim",
    "unique",
    "upper",
    "url",
    "urlencode",
    "zip",
    "d",
];

fn knows_filter(env: &Environment<'_>, name: &str) -> bool {
    evaluates(env, &format!("\"{name}\" is filter"))
}

fn knows_test(env: &Environment<'_>, name: &str) -> bool {
    evaluates(env, &format!("\"{name}\" is test"))
}

fn evaluates(env: &Environment<'_>, question: &str) -> bool {
    let answer = env.compile_expression(question).and_then(|expression| expression.eval(()));
    answer.is_ok_and(|answer| answer.is_true())
}

/// True for white space that a following `{{-` takes away.
fn is_trimmed_away(text: &str, piece: &Piece, pieces: &[Piece]) -> bool {
    let next = pieces.iter().find(|other| other.range.start == piece.range.end);
    let trims =
        next.is_some_and(|next| text[next.range.clone()].get(2..).is_some_and(|inside| inside.starts_with('-')));
    piece.kind == Kind::Text && trims && text[piece.range.clone()].trim().is_empty()
}

/// True when an expression's last filter is `url`.
fn ends_in_url(text: &str, piece: &Piece) -> bool {
    let words: Vec<&str> = piece.words.iter().map(|word| &text[word.range.clone()]).collect();
    matches!(&words[..], [.., "|", "url"]) && words.iter().filter(|word| **word == "url").count() == 1
}

fn find_variable(text: &str, pieces: &[Piece], variable: &str) -> Option<Range<usize>> {
    let parts: Vec<&str> = variable.split('.').collect();
    for piece in pieces {
        let words: Vec<&str> = piece.words.iter().map(|word| &text[word.range.clone()]).collect();
        for at in 0..words.len() {
            let attribute = at > 0 && matches!(words[at - 1], "." | "|");
            if attribute || piece.words[at].kind != WordKind::Name {
                continue;
            }
            let same = parts.iter().enumerate().all(|(i, part)| {
                words.get(at + 2 * i) == Some(part) && (i == 0 || words.get(at + 2 * i - 1) == Some(&"."))
            });
            if same {
                let last = at + 2 * (parts.len() - 1);
                return Some(piece.words[at].range.start..piece.words[last].range.end);
            }
        }
    }
    None
}

fn secret_name(variable: &str) -> Option<String> {
    let rest = variable.strip_prefix("secret.")?;
    Some(rest.split('.').next().unwrap_or(rest).to_owned())
}

/// The variable without its attributes.
fn root_of(variable: &str) -> &str {
    variable.split('.').next().unwrap_or(variable)
}

/// At most 60 characters of an author's text.
fn shown(text: &str) -> String {
    if text.chars().count() <= 60 { text.to_owned() } else { text.chars().take(60).chain(['…']).collect() }
}

#[cfg(test)]
mod tests;
