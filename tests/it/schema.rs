//! A walk over everything that authors can write: every field says what it means and has an example, every example can be
//! read in its place, and no kind is called as RON calls an absent option.

use lamplighter::{
    job::{Config, JobSpec},
    problem::{
        Source, load,
        schema::{ChoiceSchema, Described, FieldSchema, FieldsSchema, Payload, Shape},
    },
};
use std::collections::BTreeSet;

/// Everything of the schema, each once, with a way to write a whole file around a value in its place.
#[derive(Default)]
struct Walk {
    seen: BTreeSet<&'static str>,
    wrong: Vec<String>,
    examples: usize,
}

/// Writes the file around a value that stands in some place.
type Around<'a> = &'a dyn Fn(&str) -> String;

impl Walk {
    fn fields(&mut self, schema: &'static FieldsSchema, write: Around, kind: &str) {
        if schema.doc.trim().is_empty() || schema.fields.is_empty() && kind.is_empty() {
            self.wrong.push(format!("{} says nothing", schema.name));
        }
        for field in schema.fields {
            let name = format!("{}.{}", schema.name, field.name);
            if field.doc.trim().is_empty() || !field.doc.trim().ends_with(['.', '?']) {
                self.wrong.push(format!("{name}: its meaning is no sentence: {:?}", field.doc));
            }
            if field.example.is_empty() {
                self.wrong.push(format!("{name} has no example"));
                continue;
            }
            if field.required && !field.default.is_empty() {
                self.wrong.push(format!("{name} must be there and has a default"));
            }
            let with = |value: &str| write(&format!("{}({})", schema.name, one_field(schema, field, value)));
            self.example(&name, &with(field.example));
            self.shape((field.shape)(), &with);
        }
    }

    fn choice(&mut self, schema: &'static ChoiceSchema, write: Around) {
        if schema.doc.trim().is_empty() || schema.variants.is_empty() {
            self.wrong.push(format!("{} says nothing", schema.name));
        }
        for variant in schema.variants {
            let name = format!("{}::{}", schema.name, variant.name);
            if ["None", "Some", "true", "false", "inf", "NaN"].contains(&variant.name) {
                self.wrong.push(format!("{name}: RON reads this as something else"));
            }
            if !variant.name.starts_with(|c: char| c.is_ascii_uppercase()) {
                self.wrong.push(format!("{name} is not CamelCase"));
            }
            if variant.doc.trim().is_empty() {
                self.wrong.push(format!("{name} says nothing"));
            }
            if matches!(variant.payload, Payload::Unit) != variant.example.is_empty() {
                self.wrong.push(format!("{name}: a kind has an example if something stands behind its name"));
            }
            self.example(&name, &write(variant.written()));
            match &variant.payload {
                Payload::Unit => {}
                Payload::Value(shape) => {
                    let with = |value: &str| write(&format!("{}({value})", variant.name));
                    self.shape(shape(), &with);
                }
                Payload::Fields(fields) => {
                    assert_eq!(fields().name, variant.name, "{name}: a kind and its fields have one name");
                    if self.seen.insert(fields().name) {
                        self.fields(fields(), write, variant.name);
                    }
                }
            }
        }
    }

    fn shape(&mut self, shape: Shape, write: Around) {
        match shape {
            Shape::Fields(schema) if self.seen.insert(schema().name) => self.fields(schema(), write, ""),
            Shape::Choice(schema) if self.seen.insert(schema().name) => self.choice(schema(), write),
            Shape::List(inner) => self.shape(inner(), &|value| write(&format!("[{value}]"))),
            Shape::Map(inner) => self.shape(inner(), &|value| write(&format!("{{\"key\": {value}}}"))),
            Shape::Pair(..)
            | Shape::Text
            | Shape::Word { .. }
            | Shape::Int { .. }
            | Shape::Number
            | Shape::Bool
            | Shape::Any
            | Shape::Fields(_)
            | Shape::Choice(_) => {}
        }
    }

    /// An example must be read where it stands.
    fn example(&mut self, name: &str, file: &str) {
        self.examples += 1;
        let source = Source::new(name, file);
        let read = match file.starts_with("Config") {
            true => load::<Config>(&source).map(drop),
            false => load::<JobSpec>(&source).map(drop),
        };
        if let Err(problems) = read {
            self.wrong.push(format!("the example of {name} cannot be read: {}\n  {file}", problems[0].message));
        }
    }
}

/// One field with its value, and the others that must be there.
fn one_field(schema: &'static FieldsSchema, field: &FieldSchema, value: &str) -> String {
    let needed = schema.fields.iter().filter(|other| other.required && other.name != field.name);
    let others = needed.map(|other| format!("{}: {}", other.name, other.example));
    others.chain([format!("{}: {value}", field.name)]).collect::<Vec<_>>().join(", ")
}

fn walk() -> Walk {
    let mut walk = Walk::default();
    for shape in [JobSpec::shape(), Config::shape()] {
        walk.shape(shape, &str::to_owned);
    }
    walk
}

#[test]
fn every_field_has_a_meaning_and_an_example_that_is_read_in_its_place() {
    let walk = walk();
    assert!(walk.wrong.is_empty(), "{}", walk.wrong.join("\n"));
    // The walk has seen the file from end to end.
    for name in ["Job", "Config", "Stage", "Notify", "Service", "Retry", "Cursor", "Exec", "Schedule", "Action", "Auth"]
    {
        assert!(walk.seen.contains(name), "{name} was not met: {:?}", walk.seen);
    }
    assert!(walk.examples > 120, "{} examples", walk.examples);
}

#[test]
fn a_walk_finds_what_ron_would_read_as_an_absent_option() {
    static KINDS: ChoiceSchema = ChoiceSchema {
        name: "Kind",
        doc: "A kind.",
        variants: &[lamplighter::problem::schema::VariantSchema {
            name: "None",
            doc: "Nothing.",
            example: "",
            payload: Payload::Unit,
        }],
    };
    let mut walk = Walk::default();
    walk.choice(&KINDS, &|_| "Job(run: [])".to_owned());
    assert_eq!(walk.wrong, ["Kind::None: RON reads this as something else"]);
}
