//! Walks what was read of a file along the shape that it should have, and notes every difference.
//!
//! Called by `load` when RON or a rule of ours refused a file. What cannot be understood is skipped, so that one mistake
//! is one problem; a misspelt name is taken for what was meant and read on.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::hints::{
    as_list, crontab, fields, form, found, kind_for_list, kind_for_text, kinds, meant_bool, meant_text, quote,
    repeated, wanted, with_unit, written_out,
};
use super::parse::{Entry, Fault, Group, Kind, Node, Tree, parse};
use super::schema::{ChoiceSchema, FieldsSchema, Payload, Shape, VariantSchema};
use super::suggest::closest;
use super::synonyms;
use super::text::decode;
use super::{Json, Problem, in_file_order};
use crate::limits::PROBLEMS_MAX;

/// What is wrong with a file.
pub(super) struct Explained {
    /// Everything, in the order of the file.
    pub problems: Vec<Problem>,
    /// Those of them that break a rule of ours that RON does not know.
    pub ours: Vec<Problem>,
}

/// Reads a file that should have a shape and says everything that is wrong with it.
pub(super) fn explain(text: &str, shape: Shape) -> Explained {
    let root = match &shape {
        Shape::Fields(schema) => schema().name,
        Shape::Choice(schema) => schema().name,
        _ => "Value",
    };
    let Tree { root: node, faults, stop } = parse(text, root);
    let mut walk = Walk { text, stop, path: String::new(), problems: Vec::new(), ours: Vec::new() };
    for Fault { span, message, help, ours } in faults {
        let problem = Problem::error("", span, message).with_help(help);
        if ours {
            walk.ours.push(problem.clone());
        }
        walk.problems.push(problem);
    }
    if let Some(node) = node {
        let place = Place { name: "the file".to_owned(), write: String::new(), example: "" };
        walk.value(&node, shape, &place);
    }
    let Walk { mut problems, mut ours, .. } = walk;
    for problems in [&mut problems, &mut ours] {
        in_file_order(problems);
        problems.dedup();
        problems.truncate(PROBLEMS_MAX);
    }
    Explained { problems, ours }
}

/// What a value belongs to, for the messages.
struct Place {
    /// "`workers`", "an element of `argv`".
    name: String,
    /// What stands before the value: "workers: ".
    write: String,
    /// A value as it would be written; empty where there is none.
    example: &'static str,
}

impl Place {
    /// "write `workers: 4`".
    fn write(&self, value: &str) -> String {
        format!("write `{}{value}`", self.write)
    }

    /// "write `workers: 32`" with the example of the field, else the words for the shape.
    fn example(&self, shape: &Shape) -> String {
        if self.example.is_empty() { format!("write {}", wanted(shape)) } else { self.write(self.example) }
    }

    fn inside(&self, name: String) -> Place {
        Place { name, write: String::new(), example: "" }
    }
}

struct Walk<'a> {
    text: &'a str,
    stop: Option<usize>,
    path: String,
    problems: Vec<Problem>,
    ours: Vec<Problem>,
}

impl<'a> Walk<'a> {
    fn value(&mut self, node: &Node, shape: Shape, place: &Place) {
        if matches!(node.kind, Kind::Hole) {
            return;
        }
        match shape {
            Shape::Text => self.word(node, place, &shape, |_| Ok(())),
            Shape::Word { check, .. } => self.word(node, place, &shape, check),
            Shape::Int { min, max } => self.int(node, place, &shape, min, max),
            Shape::Number => self.number(node, place, &shape),
            Shape::Bool => self.bool(node, place, &shape),
            Shape::Any => self.any(node, place),
            Shape::List(element) => self.list(node, place, &shape, element),
            Shape::Map(value) => self.map(node, place, &shape, value),
            Shape::Pair(first, second) => self.pair(node, place, &shape, first, second),
            Shape::Fields(schema) => self.fields_value(node, place, &shape, schema()),
            Shape::Choice(schema) => self.choice(node, place, &shape, schema()),
        }
    }

    fn word(&mut self, node: &Node, place: &Place, shape: &Shape, check: fn(&str) -> Result<(), String>) {
        let Some(meant) = meant_text(self.text, node) else { return self.wrong(node, place, shape) };
        let help = match check(&meant) {
            Ok(()) => place.write(&quote(&meant)),
            Err(_) => match with_unit(&meant, check) {
                Some(text) => format!("{}, or with another unit", place.write(&quote(&text))),
                None => place.example(shape),
            },
        };
        match node.kind {
            Kind::Text => {
                self.no_nul(node, &meant);
                if let Err(why) = check(&meant) {
                    self.report(node.span.clone(), format!("{}: {why}", place.name), Some(help));
                }
            }
            Kind::Single | Kind::Curly => self.wrong_quotes(node, help),
            Kind::Word if meant == "None" || meant == "Some" => self.wrong(node, place, shape),
            Kind::Word | Kind::Bare if matches!(&*meant, "null" | "nil" | "~") && !place.write.is_empty() => {
                let help = format!("leave {} out", place.name);
                self.report(node.span.clone(), not_a(place, shape, &format!("`{meant}`")), Some(help));
            }
            _ => self.report(node.span.clone(), format!("{} must stand in quotes", place.name), Some(help)),
        }
    }

    fn wrong_quotes(&mut self, node: &Node, help: String) {
        let which = if matches!(node.kind, Kind::Single) { "single" } else { "typographic" };
        self.report(node.span.clone(), format!("a text stands in double quotes, not in {which} ones"), Some(help));
    }

    fn no_nul(&mut self, node: &Node, text: &str) {
        // One that stands there as it is, and not as an escape, is said for the whole file.
        if text.contains('\0') && !self.text[node.span.clone()].contains('\0') {
            let help = "remove it: no command, file or service takes one".to_owned();
            self.report_ours(node.span.clone(), "there is a NUL character in this text".to_owned(), help);
        }
    }

    fn int(&mut self, node: &Node, place: &Place, shape: &Shape, min: i64, max: i64) {
        let token = &self.text[node.span.clone()];
        match node.kind {
            Kind::Number => {
                let whole = token.trim_start_matches(['+', '-']).chars().all(|c| c.is_ascii_digit() || c == '_');
                match ron::from_str::<i64>(token) {
                    Ok(number) if (min..=max).contains(&number) => {}
                    Err(_) if !whole && !token.contains("0x") => {
                        let message = format!("{} must be a whole number, not {}", place.name, repeated(token));
                        self.report(node.span.clone(), message, Some(place.example(shape)));
                    }
                    read => {
                        let low = read.map_or(token.starts_with('-'), |number| number < min);
                        let bound = if low { format!("at least {min}") } else { format!("at most {max}") };
                        let message = format!("{} must be {bound}", place.name);
                        self.report(node.span.clone(), message, Some(place.example(shape)));
                    }
                }
            }
            Kind::Text | Kind::Single | Kind::Curly => {
                let meant = meant_text(self.text, node).unwrap_or_default();
                let help = match meant.parse::<i64>() {
                    Ok(number) => format!("{}, without quotes", place.write(&number.to_string())),
                    Err(_) => place.example(shape),
                };
                self.report(node.span.clone(), not_a(place, shape, "a text"), Some(help));
            }
            _ => self.wrong(node, place, shape),
        }
    }

    fn number(&mut self, node: &Node, place: &Place, shape: &Shape) {
        let token = &self.text[node.span.clone()];
        match node.kind {
            Kind::Number | Kind::Word => match ron::from_str::<f64>(token) {
                Ok(number) if number.is_finite() => {}
                Ok(_) => {
                    self.report_ours(node.span.clone(), format!("{} must be finite", place.name), place.example(shape))
                }
                Err(_) => {
                    let message = format!("{} must be a number, not `{}`", place.name, repeated(token));
                    self.report(node.span.clone(), message, Some(place.example(shape)));
                }
            },
            Kind::Text => {
                let meant = decode(token);
                let help = match meant.parse::<f64>() {
                    Ok(_) => format!("{}, without quotes", place.write(&repeated(&meant))),
                    Err(_) => place.example(shape),
                };
                self.report(node.span.clone(), not_a(place, shape, "a text"), Some(help));
            }
            _ => self.wrong(node, place, shape),
        }
    }

    fn bool(&mut self, node: &Node, place: &Place, shape: &Shape) {
        let token = &self.text[node.span.clone()];
        if matches!(node.kind, Kind::Word) && (token == "true" || token == "false") {
            return;
        }
        let meant = match node.kind {
            Kind::Text | Kind::Single | Kind::Word | Kind::Number => meant_bool(token),
            _ => None,
        };
        let help = match meant {
            Some(value) if matches!(node.kind, Kind::Text) => {
                format!("{}, without quotes", place.write(&value.to_string()))
            }
            Some(value) => place.write(&value.to_string()),
            None => place.example(shape),
        };
        self.report(node.span.clone(), not_a(place, shape, &found(self.text, node)), Some(help));
    }

    fn any(&mut self, node: &Node, place: &Place) {
        let token = &self.text[node.span.clone()];
        let inner = place.inside(place.name.clone());
        match &node.kind {
            Kind::Text => self.no_nul(node, &decode(token)),
            Kind::Single if ron::from_str::<char>(token).is_ok() => {}
            Kind::Single | Kind::Curly => {
                let meant = meant_text(self.text, node).unwrap_or_default();
                self.wrong_quotes(node, place.write(&quote(&meant)));
            }
            Kind::Number => {
                if ron::from_str::<Json>(token).is_err() {
                    let finite = ron::from_str::<f64>(token).is_ok();
                    let message = format!(
                        "`{}` is {}",
                        repeated(token),
                        if finite { "not finite" } else { "neither a number nor a text in quotes" }
                    );
                    self.report(node.span.clone(), message, Some(place.write(&quote(token))));
                }
            }
            Kind::Word if matches!(token, "true" | "false" | "None") => {}
            Kind::Word | Kind::Bare => {
                let help = match token {
                    "null" | "nil" | "undefined" | "~" => "write `None` for nothing".to_owned(),
                    _ if meant_bool(token).is_some() => place.write(&meant_bool(token).unwrap_or_default().to_string()),
                    _ => format!("{}; `None` is nothing", place.write(&quote(token))),
                };
                self.report(node.span.clone(), format!("`{}` is no value", repeated(token)), Some(help));
            }
            Kind::Bytes => {
                let message = "bytes are no value here".to_owned();
                self.report(node.span.clone(), message, Some("write a text, or a list of numbers".to_owned()));
            }
            Kind::List(nodes) => {
                for (place_in_list, node) in nodes.iter().enumerate() {
                    self.inside(&format!("[{place_in_list}]"), |walk| walk.any(node, &inner));
                }
            }
            Kind::Map(entries) => self.keyed(entries, |walk, entry, _| walk.any(&entry.value, &inner)),
            Kind::Group(group) => self.any_group(node, group, &inner),
            Kind::Hole => {}
        }
    }

    fn any_group(&mut self, node: &Node, group: &Group, place: &Place) {
        if &self.text[node.span.clone()] == "()" {
            let help = "write `None` for nothing, `[]` for an empty list, `{}` for an empty map".to_owned();
            return self.report(node.span.clone(), "`()` is no value".to_owned(), Some(help));
        }
        let written = group.name.clone().map_or("", |name| &self.text[name]);
        if written.contains(['-', '.', '+']) && !written.starts_with("r#") {
            let message = format!("`{}` is no name", repeated(written));
            self.report(group.head(), message, Some("write a map: `{\"name\": value}`".to_owned()));
        }
        let named = group.entries.iter().any(|entry| entry.key.is_some());
        let mut seen = HashSet::new();
        for entry in &group.entries {
            match &entry.key {
                None if named => self.report(
                    entry.value.span.clone(),
                    "a value has no name".to_owned(),
                    Some("write `{\"name\": value}`".to_owned()),
                ),
                None => {}
                Some(key) => {
                    let name = &self.text[key.span.clone()];
                    let plain =
                        name.starts_with(|c: char| c == '_' || c.is_alphabetic()) && !name.contains(['-', '.', '+']);
                    if !matches!(key.kind, Kind::Text) && !plain {
                        let message = format!("`{}` is no name of a field", repeated(name));
                        self.report(key.span.clone(), message, Some("write a map: `{\"name\": value}`".to_owned()));
                    } else if !seen.insert(name) {
                        self.twice(key, name);
                    }
                }
            }
            self.any(&entry.value, place);
        }
    }

    fn list(&mut self, node: &Node, place: &Place, shape: &Shape, element: fn() -> Shape) {
        if let Kind::List(nodes) = &node.kind {
            let inner = place.inside(format!("an element of {}", place.name));
            for (place_in_list, node) in nodes.iter().enumerate() {
                self.inside(&format!("[{place_in_list}]"), |walk| walk.value(node, element(), &inner));
            }
            return;
        }
        let texts = matches!(element(), Shape::Text);
        let help = match (&node.kind, meant_text(self.text, node)) {
            (Kind::Text | Kind::Single | Kind::Curly | Kind::Bare, Some(meant)) if texts => {
                place.write(&as_list(&meant))
            }
            (_, Some(meant)) if matches!(node.kind, Kind::Word | Kind::Number) && texts => {
                place.write(&format!("[{}]", quote(&meant)))
            }
            (_, Some(_)) => place.write(&format!("[{}]", repeated(&self.text[node.span.clone()]))),
            (Kind::Group(group), _) => {
                let name = group.name.clone().map_or("", |name| &self.text[name]);
                place.write(&format!("[{}(..)]", repeated(name)))
            }
            _ => place.example(shape),
        };
        self.report(head(node), format!("{} must be a list, also for one element", place.name), Some(help));
        if let Kind::Group(_) = node.kind {
            self.value(node, element(), &place.inside(format!("an element of {}", place.name)));
        }
    }

    fn map(&mut self, node: &Node, place: &Place, shape: &Shape, value: fn() -> Shape) {
        match &node.kind {
            Kind::Map(entries) => self.keyed(entries, |walk, entry, key| {
                let inner = Place { name: format!("the value of {key}"), write: format!("{key}: "), example: "" };
                walk.value(&entry.value, value(), &inner);
            }),
            Kind::Group(group) => {
                let help = "write `{\"name\": value}` with braces, and names in quotes".to_owned();
                self.report(group.head(), format!("{} must be a map, in braces", place.name), Some(help));
            }
            _ => self.wrong(node, place, shape),
        }
    }

    /// The entries of a map: each has a key, a text, once.
    fn keyed(&mut self, entries: &[Entry], mut each: impl FnMut(&mut Walk<'a>, &Entry, &str)) {
        let mut seen = HashSet::new();
        for entry in entries {
            let Some(key) = &entry.key else {
                let help = "write `\"name\": value`".to_owned();
                self.report(head(&entry.value), "a value in a map has no name".to_owned(), Some(help));
                continue;
            };
            let meant = meant_text(self.text, key).unwrap_or_default();
            if !matches!(key.kind, Kind::Text) {
                let message = "the names in a map stand in quotes".to_owned();
                self.report(key.span.clone(), message, Some(format!("write `{}:`", quote(&meant))));
            }
            let plain = !meant.is_empty() && meant.chars().all(|c| c.is_alphanumeric() || c == '_');
            let step = if plain { format!(".{meant}") } else { format!("[{:?}]", repeated(&meant)) };
            self.inside(&step, |walk| each(walk, entry, &quote(&meant)));
            if seen.contains(&meant) {
                self.twice(key, &meant);
            }
            seen.insert(meant);
        }
    }

    fn twice(&mut self, key: &Node, name: &str) {
        let message = format!("`{}` is given twice", repeated(name));
        self.report(key.span.clone(), message, Some("keep one of the two".to_owned()));
    }

    fn pair(&mut self, node: &Node, place: &Place, shape: &Shape, first: fn() -> Shape, second: fn() -> Shape) {
        let Kind::Group(group) = &node.kind else { return self.wrong(node, place, shape) };
        match &group.entries[..] {
            [Entry { key: None, value: a }, Entry { key: None, value: b }] if group.name.is_none() => {
                let inner = place.inside(place.name.clone());
                self.inside("[0]", |walk| walk.value(a, first(), &inner));
                self.inside("[1]", |walk| walk.value(b, second(), &inner));
            }
            _ if !group.whole => {}
            entries if group.name.is_none() => {
                let found = entries.len().to_string();
                self.report(group.head(), not_a(place, shape, &found), Some(place.example(shape)));
            }
            _ => self.wrong(node, place, shape),
        }
    }

    fn fields_value(&mut self, node: &Node, place: &Place, shape: &Shape, schema: &'static FieldsSchema) {
        match &node.kind {
            Kind::Group(group) => {
                if let Some(name) = &group.name {
                    let written = &self.text[name.clone()];
                    let plain = written.strip_prefix("r#").unwrap_or(written);
                    if plain != schema.name {
                        let near = closest(plain, [schema.name]).is_some();
                        let message = format!("`{}(..)` stands where `{}(..)` should", repeated(plain), schema.name);
                        let help = match near || !self.path.is_empty() || plain.is_empty() {
                            true => format!("write `{}(..)`", schema.name),
                            false => {
                                format!("this file holds one `{}(..)`; what is none has a file of its own", schema.name)
                            }
                        };
                        self.report(name.clone(), message, Some(help));
                        // What has another name probably has other fields too; the whole file has no other meaning.
                        if !near && !self.path.is_empty() {
                            return;
                        }
                    }
                }
                self.fields(group, schema, schema.name);
            }
            Kind::Map(entries) => {
                let help = format!("write `{}(field: value)`, names without quotes", schema.name);
                self.report(head(node), format!("`{}` takes round parentheses, not braces", schema.name), Some(help));
                self.given(entries, schema, schema.name);
            }
            Kind::Word if &self.text[node.span.clone()] == schema.name => {
                let message = format!("`{}` needs its fields in parentheses", schema.name);
                self.report(node.span.clone(), message, Some(format!("write `{}(..)`", schema.name)));
            }
            _ => self.wrong(node, place, shape),
        }
    }

    /// The fields of a group, and those that it lacks.
    fn fields(&mut self, group: &Group, schema: &'static FieldsSchema, name: &str) {
        // `Http((get: ..))` means `Http(get: ..)`.
        if let Some(Node { kind: Kind::Group(inner), .. }) = group.only()
            && inner.name.is_none()
        {
            let help = format!("write `{name}(field: value)` with one pair");
            self.report(inner.head(), format!("`{name}` has one pair of parentheses too many"), Some(help));
            return self.fields(inner, schema, name);
        }
        let given = self.given(&group.entries, schema, name);
        if !group.whole {
            return;
        }
        for field in schema.fields.iter().filter(|field| field.required && !given.contains(field.name)) {
            let help = format!("write `{}: {}`", field.name, field.example);
            self.report(group.head(), format!("`{name}` needs the field `{}`", field.name), Some(help));
        }
    }

    /// Explains the fields that are given, and says which.
    fn given(&mut self, entries: &[Entry], schema: &'static FieldsSchema, name: &str) -> HashSet<&'static str> {
        let mut written: HashMap<&'static str, usize> = HashMap::new();
        for entry in entries {
            let Some(key) = &entry.key else {
                let help = format!("write `field: value`; {}", fields(schema));
                self.report(head(&entry.value), format!("a value of `{name}` has no name"), Some(help));
                continue;
            };
            let meant = meant_text(self.text, key).unwrap_or_default();
            let plain = meant.strip_prefix("r#").unwrap_or(&meant);
            let known = schema.fields.iter().find(|field| field.name == plain);
            let names = schema.fields.iter().map(|field| field.name);
            let field = known.or_else(|| {
                let synonym = synonyms::field(plain, names.clone());
                let suggestion = closest(plain, names).filter(|_| synonym.is_none());
                let meant = synonym.or(suggestion);
                let help = meant.map_or_else(|| fields(schema), |field| format!("did you mean `{field}`?"));
                let message = format!("`{}` is not a field of `{name}`", repeated(plain));
                self.report(key.span.clone(), message, Some(help));
                schema.fields.iter().find(|field| Some(field.name) == suggestion)
            });
            let Some(field) = field else { continue };
            let times = written.entry(field.name).or_default();
            *times += 1;
            if *times > 1 && known.is_some() {
                self.twice(key, field.name);
            }
            let place =
                Place { name: format!("`{}`", field.name), write: format!("{}: ", field.name), example: field.example };
            let value = if field.required { Some(&entry.value) } else { self.given_option(&entry.value) };
            if let Some(value) = value {
                self.inside(&format!(".{}", field.name), |walk| walk.value(value, (field.shape)(), &place));
            }
        }
        written.into_keys().collect()
    }

    /// What people who know RON write for a field that may be left out: `None`, `Some(4)`.
    fn given_option<'n>(&self, node: &'n Node) -> Option<&'n Node> {
        match &node.kind {
            Kind::Word if &self.text[node.span.clone()] == "None" => None,
            Kind::Group(group) if group.name.as_ref().is_some_and(|name| &self.text[name.clone()] == "Some") => {
                Some(group.only().unwrap_or(node))
            }
            _ => Some(node),
        }
    }

    fn choice(&mut self, node: &Node, place: &Place, shape: &Shape, schema: &'static ChoiceSchema) {
        let (name, group) = match &node.kind {
            Kind::Word => (node.span.clone(), None),
            Kind::Group(group) => match &group.name {
                Some(name) => (name.clone(), Some(group)),
                None => {
                    let message = format!("the kind of {} is missing before the parenthesis", schema.name);
                    return self.report(head(node), message, Some(kinds(schema)));
                }
            },
            Kind::List(_) => {
                let help = match kind_for_list(schema) {
                    Some(kind) => place.write(&format!("{kind}([..])")),
                    None => format!("{}, without brackets", kinds(schema)),
                };
                return self.report(head(node), not_a(place, shape, "a list"), Some(help));
            }
            _ => {
                let meant = meant_text(self.text, node).and_then(|text| kind_for_text(schema, &text));
                let help = meant.map_or_else(|| kinds(schema), |kind| place.write(&kind));
                return self.report(head(node), not_a(place, shape, &found(self.text, node)), Some(help));
            }
        };
        let written = &self.text[name.clone()];
        let plain = written.strip_prefix("r#").unwrap_or(written);
        let known = schema.variants.iter().find(|variant| variant.name == plain);
        let variant = known.or_else(|| {
            let names = schema.variants.iter().map(|variant| variant.name);
            let synonym = synonyms::kind(plain, names.clone());
            let suggestion = closest(plain, names).filter(|_| synonym.is_none());
            let meant = synonym.or(suggestion);
            let help = meant.map_or_else(|| kinds(schema), |kind| format!("did you mean `{kind}`?"));
            self.report(name.clone(), format!("`{}` is not a kind of {}", repeated(plain), schema.name), Some(help));
            schema.variants.iter().find(|variant| Some(variant.name) == suggestion)
        });
        if let Some(variant) = variant {
            self.payload(name, group, variant);
        }
    }

    fn payload(&mut self, name: Range<usize>, group: Option<&Group>, variant: &'static VariantSchema) {
        match (&variant.payload, group) {
            (Payload::Unit, None) => {}
            (Payload::Unit, Some(group)) => {
                let what = if group.entries.is_empty() { "is written without parentheses" } else { "takes no value" };
                let message = format!("`{}` {what}", variant.name);
                self.report(name, message, Some(format!("write `{}`", variant.name)));
            }
            (Payload::Fields(schema), Some(group)) => self.fields(group, schema(), variant.name),
            (Payload::Fields(_), None) => {
                let message = format!("`{}` needs its fields in parentheses", variant.name);
                self.report(name, message, Some(written_out(variant)));
            }
            (Payload::Value(shape), Some(group)) => self.payload_value(name, group, variant, shape()),
            (Payload::Value(_), None) => {
                let message = format!("`{}` needs a value in parentheses", variant.name);
                self.report(name, message, Some(written_out(variant)));
            }
        }
    }

    fn payload_value(&mut self, name: Range<usize>, group: &Group, variant: &'static VariantSchema, shape: Shape) {
        let takes_text = matches!(shape, Shape::Text | Shape::Word { .. });
        let loose = |entry: &Entry| matches!(entry.value.kind, Kind::Number | Kind::Word | Kind::Bare);
        if let Some(value) = group.only() {
            let place = Place { name: format!("the value of `{}`", variant.name), write: String::new(), example: "" };
            if takes_text && loose(&group.entries[0]) && group.whole {
                let meant = &self.text[value.span.clone()];
                let help = format!("write `{}({})`", variant.name, quote(meant));
                return self.report(value.span.clone(), format!("{} must stand in quotes", place.name), Some(help));
            }
            return self.value(value, shape, &place);
        }
        if !group.whole {
            return;
        }
        let (first, last) = (group.entries.first(), group.entries.last());
        let (Some(first), Some(last)) = (first, last) else {
            let message = format!("`{}` needs a value", variant.name);
            return self.report(name, message, Some(written_out(variant)));
        };
        let start = first.key.as_ref().map_or(first.value.span.start, |key| key.span.start);
        let all = start..last.value.span.end;
        let keyed = group.entries.iter().any(|entry| entry.key.is_some());
        if takes_text && !keyed && group.entries.iter().all(loose) {
            let help = format!("write `{}({})`", variant.name, quote(&self.text[all.clone()]));
            let message = format!("the value of `{}` must stand in quotes", variant.name);
            return self.report(all, message, Some(help));
        }
        let what = if keyed { "a value, not fields" } else { "one value" };
        self.report(all, format!("`{}` takes {what}", form(variant)), Some(written_out(variant)));
    }

    fn wrong(&mut self, node: &Node, place: &Place, shape: &Shape) {
        let written = found(self.text, node);
        if self.path.is_empty()
            && let Some(help) = crontab(&self.text[node.span.clone()])
        {
            return self.report(head(node), "this is a line of a crontab".to_owned(), Some(help));
        }
        let help = match &node.kind {
            Kind::Group(group) if group.name.as_ref().is_some_and(|name| &self.text[name.clone()] == "Some") => {
                "write the value itself, without `Some(..)`".to_owned()
            }
            _ => place.example(shape),
        };
        self.report(head(node), not_a(place, shape, &written), Some(help));
    }

    fn inside(&mut self, step: &str, work: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        self.path.push_str(if length == 0 { step.trim_start_matches('.') } else { step });
        work(self);
        self.path.truncate(length);
    }

    /// Notes a problem, unless it stands where nothing was understood.
    fn report(&mut self, span: Range<usize>, message: String, help: Option<String>) {
        if self.stop.is_none_or(|stop| span.end <= stop) && self.problems.len() < 2 * PROBLEMS_MAX {
            let problem = Problem::error(self.path.as_str(), span, message);
            self.problems.push(match help {
                Some(help) => problem.with_help(help),
                None => problem,
            });
        }
    }

    /// Notes a problem that RON does not know of.
    fn report_ours(&mut self, span: Range<usize>, message: String, help: String) {
        self.ours.push(Problem::error(self.path.as_str(), span.clone(), message.clone()).with_help(help.as_str()));
        self.report(span, message, Some(help));
    }
}

/// "`workers` must be a whole number, not a text".
fn not_a(place: &Place, shape: &Shape, found: &str) -> String {
    format!("{} must be {}, not {found}", place.name, wanted(shape))
}

/// What is underlined for a value: its name or opening bracket where it may have many lines.
fn head(node: &Node) -> Range<usize> {
    match &node.kind {
        Kind::Group(group) => group.head(),
        Kind::List(_) | Kind::Map(_) => node.span.start..node.span.start + 1,
        _ => node.span.clone(),
    }
}
