//! What to write instead: the words for shapes and values, and the guesses at what a beginner meant. Pure functions,
//! called while explaining.

use super::parse::{Kind, Node, is_curly_quote};
use super::schema::{ChoiceSchema, FieldsSchema, Payload, Shape, VariantSchema};
use super::suggest::list;
use super::text::decode;

/// Longest piece of a file that a message repeats, in characters.
const REPEATED_CHARS_MAX: usize = 60;

/// What a shape is, so that "must be …" goes on with it.
pub(super) fn wanted(shape: &Shape) -> String {
    match shape {
        Shape::Text => "a text in quotes".to_owned(),
        Shape::Word { what, .. } => (*what).to_owned(),
        Shape::Int { .. } => "a whole number".to_owned(),
        Shape::Number => "a number".to_owned(),
        Shape::Bool => "true or false".to_owned(),
        Shape::Any => "a value".to_owned(),
        Shape::List(_) => "a list in brackets".to_owned(),
        Shape::Map(_) => "a map such as {\"key\": ..}".to_owned(),
        Shape::Pair(..) => "two values in parentheses".to_owned(),
        Shape::Fields(schema) => format!("`{}(..)`", schema().name),
        Shape::Choice(schema) => match schema().variants {
            [only] => format!("`{}`", form(only)),
            _ => format!("a kind of {}", schema().name),
        },
    }
}

/// What stands there, so that "not …" goes on with it.
pub(super) fn found(text: &str, node: &Node) -> String {
    match &node.kind {
        Kind::Text => "a text".to_owned(),
        Kind::Single => "a text in single quotes".to_owned(),
        Kind::Curly => "a text in typographic quotes".to_owned(),
        Kind::Number => format!("the number {}", repeated(&text[node.span.clone()])),
        Kind::Word | Kind::Bare => format!("`{}`", repeated(&text[node.span.clone()])),
        Kind::Bytes => "bytes".to_owned(),
        Kind::List(_) => "a list".to_owned(),
        Kind::Map(_) => "a map".to_owned(),
        Kind::Group(group) => match &group.name {
            Some(name) => format!("`{}(..)`", repeated(&text[name.clone()])),
            None => "something in parentheses".to_owned(),
        },
        Kind::Hole => "nothing".to_owned(),
    }
}

/// A piece of the file for a message.
pub(super) fn repeated(text: &str) -> String {
    match text.char_indices().nth(REPEATED_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A text as it is written in a file.
pub(super) fn quote(text: &str) -> String {
    let text = repeated(text);
    if text.contains(['"', '\\']) { format!("r#\"{text}\"#") } else { format!("\"{text}\"") }
}

/// The text that is meant by a value without quotes, or in the wrong ones.
pub(super) fn meant_text(text: &str, node: &Node) -> Option<String> {
    let token = &text[node.span.clone()];
    match &node.kind {
        Kind::Text => Some(decode(token).into_owned()),
        Kind::Single => Some(token.trim_matches('\'').to_owned()),
        Kind::Curly => Some(token.trim_matches(|c| c == '"' || is_curly_quote(c)).to_owned()),
        Kind::Number | Kind::Word | Kind::Bare => Some(token.to_owned()),
        _ => None,
    }
}

/// What people write for true and false in other languages.
pub(super) fn meant_bool(text: &str) -> Option<bool> {
    match text.trim_matches(['"', '\'']).to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "y" | "1" => Some(true),
        "false" | "no" | "off" | "n" | "0" => Some(false),
        _ => None,
    }
}

/// A bare number with the unit that makes it a word of a kind of its own: seconds, bytes, a rate of a minute.
pub(super) fn with_unit(number: &str, check: fn(&str) -> Result<(), String>) -> Option<String> {
    let bare = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let units = ["s", "B", "/min"].into_iter().filter(|_| bare);
    units.map(|unit| format!("{number}{unit}")).find(|text| check(text).is_ok())
}

/// The job of a line of a crontab, in a few words.
pub(super) fn crontab(line: &str) -> Option<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (times, command) = words.split_at_checked(5)?;
    let is_time = |word: &&str| word.chars().all(|c| c.is_ascii_alphanumeric() || "*/,-".contains(c));
    let begins = |word: &str| word.starts_with(|c: char| c.is_ascii_digit() || c == '*');
    (times.iter().all(is_time) && begins(times[0]) && begins(times[1]) && !command.is_empty()).then(|| {
        let (times, command) = (quote(&times.join(" ")), quote(&command.join(" ")));
        format!("write `Job(schedule: Cron({times}), deadline: \"1h\", run: [Exec(sh: {command})])`")
    })
}

/// A command line as the list of its words.
pub(super) fn as_list(text: &str) -> String {
    let words: Vec<String> = repeated(text).split_whitespace().map(quote).collect();
    format!("[{}]", words.join(", "))
}

/// How a kind is written: `All`, `Cron(..)`, `Http(..)`.
pub(super) fn form(variant: &VariantSchema) -> String {
    match variant.payload {
        Payload::Unit => variant.name.to_owned(),
        Payload::Value(_) | Payload::Fields(_) => format!("{}(..)", variant.name),
    }
}

/// "write one of …": the kinds of a choice, as they are written.
pub(super) fn kinds(schema: &ChoiceSchema) -> String {
    let forms: Vec<String> = schema.variants.iter().map(form).collect();
    match &forms[..] {
        [only] => format!("write `{only}`"),
        _ => format!("write one of {}", list(forms.iter().map(String::as_str))),
    }
}

/// "its fields are …".
pub(super) fn fields(schema: &FieldsSchema) -> String {
    match schema.fields {
        [] => "it has no fields".to_owned(),
        [only] => format!("its only field is `{}`", only.name),
        fields => format!("its fields are {}", list(fields.iter().map(|field| field.name))),
    }
}

/// The kind that a plain text probably stands for, written out: `Cron("30 2 * * *")` for "30 2 * * *", `Skip` for "Skip".
pub(super) fn kind_for_text(schema: &ChoiceSchema, text: &str) -> Option<String> {
    if let Some(variant) = schema.variants.iter().find(|variant| variant.name.eq_ignore_ascii_case(text)) {
        return Some(form(variant));
    }
    let takes = |variant: &&VariantSchema, any: bool| match variant.payload {
        Payload::Value(shape) => match shape() {
            Shape::Word { check, .. } => check(text).is_ok(),
            Shape::Text => any,
            _ => false,
        },
        _ => false,
    };
    let mut variants = schema.variants.iter();
    let kind = variants.find(|v| takes(v, false)).or_else(|| schema.variants.iter().find(|v| takes(v, true)))?;
    Some(format!("{}({})", kind.name, quote(text)))
}

/// The kind that takes a list: what is meant by brackets where one kind should stand.
pub(super) fn kind_for_list(schema: &ChoiceSchema) -> Option<&'static str> {
    let takes = |variant: &&VariantSchema| matches!(variant.payload, Payload::Value(shape) if matches!(shape(), Shape::List(_)));
    schema.variants.iter().find(takes).map(|variant| variant.name)
}

/// A kind with what it needs: "write `After(job: "nightly")`".
pub(super) fn written_out(variant: &VariantSchema) -> String {
    format!("write `{}`", variant.written())
}
