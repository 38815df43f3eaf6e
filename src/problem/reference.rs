//! Everything that has a name in a file, in the order in which a reader meets it. `explain`, docs/JOBS.md and the tests of
//! the schema walk it; it holds nothing that the declarations of [`super::schema`] do not say.

use super::{
    closest,
    schema::{ChoiceSchema, FieldSchema, FieldsSchema, Payload, Shape, VariantSchema},
    suggest::list,
};
use std::collections::BTreeSet;

/// All types that can be reached from some files.
#[derive(Debug)]
pub struct Reference {
    types: Vec<Type>,
}

/// A type that authors write.
#[derive(Clone, Copy, Debug)]
pub enum Type {
    /// `Name(field: …)`.
    Fields(&'static FieldsSchema),
    /// One of several kinds.
    Choice(&'static ChoiceSchema),
}

/// Something that can be looked up.
#[derive(Clone, Copy, Debug)]
pub enum Entry {
    /// `Stage`, `Action`.
    Type(Type),
    /// `Http`, a kind of `Action`.
    Kind(&'static ChoiceSchema, &'static VariantSchema),
    /// `Stage.tolerate`; of a kind that has fields `Http.pages`.
    Field(&'static FieldsSchema, &'static FieldSchema),
}

impl Type {
    /// As it is written, or called.
    pub fn name(self) -> &'static str {
        match self {
            Type::Fields(schema) => schema.name,
            Type::Choice(schema) => schema.name,
        }
    }

    /// What it is.
    pub fn doc(self) -> &'static str {
        match self {
            Type::Fields(schema) => schema.doc,
            Type::Choice(schema) => schema.doc,
        }
    }

    /// What it is made of: its fields, or its kinds.
    pub fn entries(self) -> Vec<Entry> {
        match self {
            Type::Fields(schema) => schema.fields.iter().map(|field| Entry::Field(schema, field)).collect(),
            Type::Choice(schema) => schema.variants.iter().map(|kind| Entry::Kind(schema, kind)).collect(),
        }
    }

    /// Types that stand in a place of it, in order; some more than once.
    fn within(self) -> Vec<Type> {
        match self {
            Type::Fields(schema) => schema.fields.iter().flat_map(|field| of_shape((field.shape)())).collect(),
            Type::Choice(schema) => schema.variants.iter().flat_map(|kind| kind.payload.types()).collect(),
        }
    }

    /// The same declaration, not only one of the same name.
    fn is(self, other: Type) -> bool {
        match (self, other) {
            (Type::Fields(a), Type::Fields(b)) => std::ptr::eq(a, b),
            (Type::Choice(a), Type::Choice(b)) => std::ptr::eq(a, b),
            _ => false,
        }
    }
}

impl Payload {
    fn types(&self) -> Vec<Type> {
        match self {
            Payload::Unit => Vec::new(),
            Payload::Value(shape) => of_shape(shape()),
            Payload::Fields(schema) => vec![Type::Fields(schema())],
        }
    }
}

/// The types of ours that a shape names.
fn of_shape(shape: Shape) -> Vec<Type> {
    match shape {
        Shape::Fields(schema) => vec![Type::Fields(schema())],
        Shape::Choice(schema) => vec![Type::Choice(schema())],
        Shape::List(of) | Shape::Map(of) => of_shape(of()),
        Shape::Pair(a, b) => of_shape(a()).into_iter().chain(of_shape(b())).collect(),
        Shape::Text | Shape::Word { .. } | Shape::Int { .. } | Shape::Number | Shape::Bool | Shape::Any => Vec::new(),
    }
}

impl Reference {
    /// Everything that can stand in these files, each type once.
    pub fn of(files: &[&'static FieldsSchema]) -> Reference {
        let mut reference = Reference { types: Vec::new() };
        let mut open: Vec<Type> = files.iter().map(|schema| Type::Fields(schema)).collect();
        while !open.is_empty() {
            let next = open.remove(0);
            if reference.types.iter().any(|met| met.is(next)) {
                continue;
            }
            reference.types.push(next);
            let mut within = next.within();
            // A stage and its actions before what else a job may have: they are what a reader looks for.
            if let Some(at) = within.iter().position(|next| next.name() == "Stage") {
                let action = within.iter().find(|next| next.name() == "Action").copied();
                let stage = within.remove(at);
                within.splice(0..0, [stage].into_iter().chain(action));
            }
            // What it is made of stands behind it, before everything that was named earlier.
            open.splice(0..0, within);
        }
        reference
    }

    /// Every type, each before those that it is made of.
    pub fn types(&self) -> &[Type] {
        &self.types
    }

    /// Types that are no kind's fields: those that people know by name.
    pub fn top(&self) -> impl Iterator<Item = Type> {
        self.types.iter().copied().filter(|each| self.kind_of(*each).is_none())
    }

    /// Everything that can be looked up.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        let types = self.top().map(Entry::Type);
        types.chain(self.types.iter().flat_map(|each| each.entries()))
    }

    /// What `path` names: `retry`, `Http.pages`, `stages.run.Exec.argv`. Capitals do not matter, unless the name begins with
    /// one: then it is a type or a kind. A name of several things is all of them.
    ///
    /// # Errors
    /// What to look for instead, a sentence: nothing is called so.
    pub fn find(&self, path: &str) -> Result<Vec<Entry>, String> {
        let mut steps = path.split('.').map(str::trim);
        let first = steps.next().unwrap_or_default();
        let mut found = named(self.entries(), first);
        if found.is_empty() {
            let near = near(self.entries(), first).map(|near| format!("did you mean `{near}`?"));
            return Err(near.unwrap_or_else(|| "`lamplighter explain` lists what there is".to_owned()));
        }
        let mut before = first.to_owned();
        for step in steps {
            let inner = || found.iter().flat_map(|entry| entry.within());
            let next = named(inner(), step);
            if next.is_empty() {
                let names: BTreeSet<&str> = inner().map(Entry::name).collect();
                return Err(match near(inner(), step) {
                    Some(near) => format!("did you mean `{before}.{near}`?"),
                    None if names.is_empty() => format!("nothing stands in `{before}` that has a name"),
                    None => format!("in `{before}` stand {}", list(names)),
                });
            }
            before = format!("{before}.{step}");
            found = next;
        }
        let mut all: Vec<Entry> = Vec::new();
        found.into_iter().for_each(|entry| {
            if !all.iter().any(|one| one.is(entry)) {
                all.push(entry)
            }
        });
        Ok(all)
    }

    /// A value of a type, as it stands in the first field that takes one.
    pub fn example_of(&self, wanted: Type) -> Option<String> {
        let mut fields = self.types.iter().flat_map(|each| each.entries());
        let takes = |entry: &Entry| match entry {
            Entry::Field(_, field) => of_shape((field.shape)()).into_iter().any(|each| each.is(wanted)),
            _ => false,
        };
        fields.find(takes)?.example()
    }

    /// The kind whose fields this type is.
    fn kind_of(&self, fields: Type) -> Option<Entry> {
        let kinds = self.types.iter().flat_map(|each| each.entries());
        kinds.into_iter().find(|entry| matches!(entry, Entry::Kind(_, VariantSchema { payload: Payload::Fields(of), .. }) if Type::Fields(of()).is(fields)))
    }
}

fn named(entries: impl Iterator<Item = Entry>, name: &str) -> Vec<Entry> {
    let all: Vec<Entry> = entries.filter(|entry| entry.name().eq_ignore_ascii_case(name)).collect();
    let exact: Vec<Entry> = all.iter().copied().filter(|entry| entry.name() == name).collect();
    if name.starts_with(|c: char| c.is_ascii_uppercase()) && !exact.is_empty() { exact } else { all }
}

fn near(entries: impl Iterator<Item = Entry>, name: &str) -> Option<String> {
    let names: Vec<&str> = entries.map(Entry::name).collect();
    closest(name, names).map(str::to_owned)
}

impl Entry {
    /// Its own name, without what it belongs to.
    pub fn name(self) -> &'static str {
        match self {
            Entry::Type(each) => each.name(),
            Entry::Kind(_, kind) => kind.name,
            Entry::Field(_, field) => field.name,
        }
    }

    /// Its name with what it belongs to: `Stage.tolerate`, `Schedule.Cron`, `Stage`.
    pub fn path(self) -> String {
        match self {
            Entry::Type(each) => each.name().to_owned(),
            Entry::Kind(of, kind) => format!("{}.{}", of.name, kind.name),
            Entry::Field(of, field) => format!("{}.{}", of.name, field.name),
        }
    }

    /// What it means, as one line.
    pub fn meaning(self) -> String {
        let doc = match self {
            Entry::Type(each) => each.doc(),
            Entry::Kind(_, kind) => kind.doc,
            Entry::Field(_, field) => field.doc,
        };
        doc.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// What may stand there, in a few words, with `of_type` for the name of a type of ours; `None` for a type, and for a kind
    /// that is only a name.
    pub fn takes(self, of_type: &dyn Fn(&str) -> String) -> Option<String> {
        match self {
            Entry::Type(_) | Entry::Kind(_, VariantSchema { payload: Payload::Unit, .. }) => None,
            Entry::Kind(_, VariantSchema { payload: Payload::Value(shape), .. }) => Some(words(shape(), of_type)),
            Entry::Kind(_, VariantSchema { payload: Payload::Fields(_), .. }) => Some("fields".to_owned()),
            Entry::Field(_, field) => Some(words((field.shape)(), of_type)),
        }
    }

    /// Whether it must be given: of a field only.
    pub fn required(self) -> bool {
        matches!(self, Entry::Field(_, field) if field.required)
    }

    /// What holds when a field is left out: `none` where nothing does. `None` where it cannot be left out.
    pub fn default(self) -> Option<&'static str> {
        match self {
            Entry::Field(_, field) if !field.required => {
                Some(if field.default.is_empty() { "none" } else { field.default })
            }
            _ => None,
        }
    }

    /// A value, a kind as they would be written: `tolerate: "2%"`, `Cron("30 2 * * *")`. `None` for a type.
    pub fn example(self) -> Option<String> {
        match self {
            Entry::Type(_) => None,
            Entry::Kind(_, kind) => Some(kind.written().to_owned()),
            Entry::Field(_, field) => Some(format!("{}: {}", field.name, field.example)),
        }
    }

    /// What can be named behind a point: fields, kinds, and what stands in them.
    pub fn within(self) -> Vec<Entry> {
        let types = match self {
            Entry::Type(each) => vec![each],
            Entry::Kind(_, kind) => kind.payload.types(),
            Entry::Field(_, field) => of_shape((field.shape)()),
        };
        types.into_iter().flat_map(Type::entries).collect()
    }

    fn is(self, other: Entry) -> bool {
        match (self, other) {
            (Entry::Type(a), Entry::Type(b)) => a.is(b),
            (Entry::Kind(_, a), Entry::Kind(_, b)) => std::ptr::eq(a, b),
            (Entry::Field(_, a), Entry::Field(_, b)) => std::ptr::eq(a, b),
            _ => false,
        }
    }
}

/// What may stand in a place, in a few words.
fn words(shape: Shape, of_type: &dyn Fn(&str) -> String) -> String {
    match shape {
        Shape::Text => "text".to_owned(),
        Shape::Word { what, .. } => what.to_owned(),
        Shape::Int { .. } => "whole number".to_owned(),
        Shape::Number => "number".to_owned(),
        Shape::Bool => "true or false".to_owned(),
        Shape::Any => "any value".to_owned(),
        Shape::List(of) => format!("list: {}", words(of(), of_type)),
        Shape::Map(of) => format!("map: {}", words(of(), of_type)),
        Shape::Pair(a, b) => format!("pair: ({}, {})", words(a(), of_type), words(b(), of_type)),
        Shape::Fields(schema) => of_type(schema().name),
        Shape::Choice(schema) => of_type(schema().name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::tests::JobSpec;

    fn found(path: &str) -> Result<Vec<String>, String> {
        let reference = Reference::of(&[JobSpec::schema()]);
        reference.find(path).map(|entries| entries.into_iter().map(Entry::path).collect())
    }

    #[test]
    fn a_name_finds_everything_that_is_called_so() {
        assert_eq!(found("Stage.workers"), Ok(vec!["Stage.workers".into()]));
        assert_eq!(found("stages.WORKERS"), Ok(vec!["Stage.workers".into()]));
        assert_eq!(found("Cron"), Ok(vec!["Schedule.Cron".into()]));
        assert_eq!(found("schedule.after.job"), Ok(vec!["After.job".into()]));
        assert_eq!(found("Schedule"), Ok(vec!["Schedule".into()]));
        assert_eq!(found("schedule"), Ok(vec!["Schedule".into(), "Job.schedule".into()]));
        let run = found("run").expect("there are some");
        assert!(run.contains(&"Stage.run".to_owned()), "{run:?}");
    }

    #[test]
    fn what_is_not_there_names_what_is_near() {
        for (wrong, help) in [
            ("stage.wrokers", "did you mean `stage.workers`?"),
            ("shedule", "did you mean `Schedule`?"),
            ("colour", "`lamplighter explain` lists what there is"),
            ("", "`lamplighter explain` lists what there is"),
            ("After.colour", "in `After` stand `job`"),
            ("stage.name.x", "nothing stands in `stage.name` that has a name"),
        ] {
            assert_eq!(found(wrong), Err(help.to_owned()), "{wrong}");
        }
    }
}
