//! jq filters, by jaq: `filter`, `items`, `next`, `until`, the `_if` fields and jq files.
//!
//! [`super::Checker`] compiles them, actions run them on a CPU thread. A filter computes from its input and the facts
//! alone: functions that read the environment, the clock or other inputs, or that print, do not exist here.

mod natives;
mod syntax;
mod values;

use super::{Facts, LangError};
use crate::item::Value;
use jaq_core::{
    Compiler, Ctx, DataT, Vars,
    compile::Undefined,
    load::{
        Arena, File, Loader,
        parse::{Def, Term},
    },
};
use jaq_json::Val;
use natives::{Jq, RunData};
use std::{
    borrow::Cow,
    cell::Cell,
    fmt,
    ops::{ControlFlow, Range},
    sync::Arc,
};

/// Variables that a filter can use, in the order in which a run binds them.
const VARIABLES: [&str; 6] = ["$item", "$key", "$params", "$run", "$state", "$response"];
/// Name of the definition that holds the author's text.
const MAIN: &str = "lamplighter_main_filter";
/// Most bytes of a value that a message shows.
const SHOWN_BYTES: usize = 60;
/// Most bytes of a message of jaq, or of an author's `error(..)`.
const SENTENCE_BYTES: usize = 400;

/// A compiled jq filter. Cheap to clone, shared by threads.
#[derive(Clone)]
pub struct Filter(Arc<Inner>);

struct Inner {
    source: String,
    name: Option<String>,
    program: jaq_core::Filter<Jq>,
    group_uses: Vec<Range<usize>>,
}

/// Why a filter gave no (further) value. Values in its message are cut short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterError(String);

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for FilterError {}

impl Filter {
    /// Compiles a filter. `name` is that of its file, for messages of a run.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with the bytes it is about.
    pub fn compile(text: &str, name: Option<&str>) -> Result<Filter, Vec<LangError>> {
        let arena = Arena::default();
        let term = syntax::read(text)?;
        let mut group_uses = Vec::new();
        let mut errors = Vec::new();
        if let Some(at) = text.find(MAIN) {
            errors.push(unknown(MAIN, &Undefined::Filter(0), at..at + MAIN.len()));
        }
        let program = match link(&arena, term.clone(), false) {
            Ok(program) => Some(program),
            Err(undefined) => {
                for (word, kind) in undefined {
                    let Some(range) = within(text, word) else { continue };
                    match kind {
                        Undefined::Filter(arity) if natives::GROUP.contains(&(word, arity)) => group_uses.push(range),
                        kind => errors.push(unknown(word, &kind, range)),
                    }
                }
                None
            }
        };
        if !errors.is_empty() {
            return Err(errors);
        }
        let program = match program {
            Some(program) => program,
            None => link(&arena, term, true).map_err(|_| {
                vec![LangError { message: "the filter cannot be compiled".into(), help: None, range: None }]
            })?,
        };
        let inner = Inner { source: text.to_owned(), name: name.map(str::to_owned), program, group_uses };
        Ok(Filter(Arc::new(inner)))
    }

    /// Runs the filter on `input` and hands what it gives to `each` until that says `Break`. CPU-bound, and without end
    /// for a filter without end: call it on a CPU thread.
    ///
    /// # Errors
    /// What went wrong; values that came before were handed out.
    pub fn run(
        &self,
        input: &Value,
        facts: &Facts,
        each: &mut dyn FnMut(Value) -> ControlFlow<()>,
    ) -> Result<(), FilterError> {
        let enter = |value: &Value| values::to_jq(value).map_err(|sentence| self.error(&sentence));
        // Most filters use none or one of them, and an item can be large.
        let variable = |name: &str, value: &Value| {
            if self.0.source.contains(name) { enter(value) } else { Ok(Val::Null) }
        };
        let [item, _, params, run, state, response] = VARIABLES;
        let variables = [
            variable(item, &facts.item)?,
            values::text(facts.key.as_str()),
            variable(params, &facts.run.params)?,
            variable(run, &facts.run.run)?,
            variable(state, &facts.state)?,
            variable(response, &facts.response)?,
        ];
        let guarded = Cell::new(0);
        let data = RunData { lut: &self.0.program.lut, facts, base: natives::here(), guarded: &guarded };
        let context = Ctx::<Jq>::new(data, Vars::new(variables));
        for given in self.0.program.id.run((context, enter(input)?)) {
            let value = match given {
                Ok(value) => value,
                Err(exception) => return Err(self.exception(exception)),
            };
            let value = values::from_jq(&value).map_err(|sentence| self.error(&sentence))?;
            if each(value).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The first value that it gives.
    ///
    /// # Errors
    /// As [`Filter::run`].
    pub fn first(&self, input: &Value, facts: &Facts) -> Result<Option<Value>, FilterError> {
        let mut first = None;
        self.run(input, facts, &mut |value| {
            first = Some(value);
            ControlFlow::Break(())
        })?;
        Ok(first)
    }

    /// For `_if` fields and `until`: whether the first value that it gives is neither null nor false; no value is false.
    ///
    /// # Errors
    /// As [`Filter::run`].
    pub fn first_bool(&self, input: &Value, facts: &Facts) -> Result<bool, FilterError> {
        Ok(!matches!(self.first(input, facts)?, None | Some(Value::Null | Value::Bool(false))))
    }

    /// It uses `items`, `failures` or `counts`, which exist in a gather only.
    pub fn uses_group(&self) -> bool {
        !self.0.group_uses.is_empty()
    }

    /// Where it uses them.
    pub fn group_uses(&self) -> &[Range<usize>] {
        &self.0.group_uses
    }

    /// The text that it was compiled from.
    pub fn source(&self) -> &str {
        &self.0.source
    }

    fn error(&self, sentence: &str) -> FilterError {
        match &self.0.name {
            Some(name) => FilterError(format!("{name}: {sentence}")),
            None => FilterError(format!("jq: {sentence}")),
        }
    }

    fn exception(&self, exception: jaq_core::Exn<'_, Val>) -> FilterError {
        let Ok(error) = exception.get_err() else { return self.error("the filter broke off") };
        self.error(&say(error))
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Filter").field(&self.source()).finish()
    }
}

/// Compiles a term with everything that it may call. The author's term becomes the last definition of the prelude and the
/// program a call of it: jaq takes syntax trees there only.
fn link<'s>(
    arena: &'s Arena,
    term: Term<&'s str>,
    group: bool,
) -> Result<jaq_core::Filter<Jq>, Vec<(&'s str, Undefined)>> {
    let main = Def { name: MAIN, args: Vec::new(), body: term };
    let prelude = natives::defs().iter().cloned().chain([main]);
    // Neither can fail: the prelude parsed before, and the program is one name.
    let Ok(modules) = Loader::new(prelude).load(arena, File { code: MAIN, path: () }) else { return Err(Vec::new()) };
    let compiler = Compiler::default().with_funs(natives::funs(group)).with_global_vars(VARIABLES);
    compiler.compile(modules).map_err(|errors| errors.into_iter().flat_map(|(_, undefined)| undefined).collect())
}

/// The bytes of a part of a text, `None` when it is no part of it.
fn within(text: &str, part: &str) -> Option<Range<usize>> {
    let start = part.as_ptr().addr().checked_sub(text.as_ptr().addr())?;
    (start + part.len() <= text.len()).then(|| start..start + part.len())
}

fn unknown(word: &str, kind: &Undefined, range: Range<usize>) -> LangError {
    let (message, help) = match kind {
        Undefined::Var => {
            let help = match word {
                "$ENV" | "$__prog_args" => Some("a filter cannot see the environment: use $params".to_owned()),
                "$secret" => Some("secrets exist in templates only".to_owned()),
                "$value" => Some("the value that the action before gave is `.`".to_owned()),
                "$items" | "$failures" | "$counts" => Some(format!("in a gather write `{}`", &word[1..])),
                _ => near(word, VARIABLES.into_iter()),
            };
            let exist = format!("write one of {}", VARIABLES.join(", "));
            (format!("there is no variable `{word}`"), Some(help.unwrap_or(exist)))
        }
        Undefined::Label => (format!("there is no label `{word}` here"), None),
        Undefined::Filter(arity) => unknown_function(word, *arity),
        _ => (format!("there is no `{word}`"), None),
    };
    LangError { message, help, range: Some(range) }
}

fn unknown_function(word: &str, arity: usize) -> (String, Option<String>) {
    let other: Vec<_> =
        natives::names().iter().filter(|(name, _)| *name == word).map(|(_, arity)| arity.to_string()).collect();
    if !other.is_empty() {
        let them = other.join(" or ");
        return (format!("`{word}` takes {them} arguments, not {arity}"), Some("separate arguments by `;`".into()));
    }
    let help = match word {
        "input" | "inputs" | "input_filename" | "input_line_number" => {
            Some("a filter sees one value, `.`; in a gather write `items`".to_owned())
        }
        "now" | "localtime" | "strflocaltime" => {
            Some("outputs must not depend on when they are made: use $run.due, $run.night or $run.started".to_owned())
        }
        "env" | "halt" | "halt_error" | "debug" | "stderr" | "get_search_list" => {
            Some("a filter computes only; it cannot see or change what is outside".to_owned())
        }
        "item" | "key" | "params" | "run" | "state" | "response" => Some(format!("write ${word}")),
        "value" => Some("the value that the action before gave is `.`".to_owned()),
        "secret" => Some("secrets exist in templates only".to_owned()),
        "None" | "nil" | "undefined" => Some("write null".to_owned()),
        "True" | "False" => Some(format!("write {}", word.to_ascii_lowercase())),
        _ => near(word, natives::names().iter().map(|(name, _)| *name)),
    };
    (format!("there is no function `{word}`"), help)
}

/// "did you mean", when a name is near enough.
fn near(word: &str, names: impl Iterator<Item = &'static str>) -> Option<String> {
    let far = if word.chars().count() <= 4 { 1 } else { 2 };
    let (name, distance) = names.map(|n| (n, strsim::damerau_levenshtein(word, n))).min_by_key(|(_, d)| *d)?;
    (distance <= far).then(|| format!("did you mean `{name}`?"))
}

/// jaq's message with the values in it cut short.
fn say(error: jaq_core::Error<Val>) -> String {
    match error.into_val() {
        Val::TStr(bytes) => shorten(&String::from_utf8_lossy(&bytes)),
        other => format!("error({})", values::clip(&other, SHOWN_BYTES)),
    }
}

/// Cuts each JSON value inside a sentence of jaq ("cannot index {…} with "x"") and the sentence itself.
fn shorten(sentence: &str) -> String {
    let mut short = String::new();
    let mut rest = sentence;
    while let Some(at) = rest.find(['{', '[', '"']) {
        short.push_str(&rest[..at]);
        rest = &rest[at..];
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<serde::de::IgnoredAny>();
        let end = match values.next() {
            Some(Ok(_)) => values.byte_offset(),
            _ => 1,
        };
        short.push_str(&cut(&rest[..end], SHOWN_BYTES));
        rest = &rest[end..];
    }
    short.push_str(rest);
    cut(&short, SENTENCE_BYTES).into_owned()
}

/// At most `max` bytes of a text, with a mark where it was cut.
fn cut(text: &str, max: usize) -> Cow<'_, str> {
    if text.len() <= max {
        return text.into();
    }
    let mut end = max;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end]).into()
}

#[cfg(test)]
mod tests;
