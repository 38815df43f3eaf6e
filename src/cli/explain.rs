//! `lamplighter explain`: what a field, a kind or a type of a job file means, takes and defaults to.

use super::{
    Format,
    exit::Exit,
    screen::{complain, ink, print, size},
};
use lamplighter::{
    item::Value,
    job::{Config, JobSpec},
    problem::{Entry, Reference, Type},
    report::{Ink, Tone},
};
use std::fmt::Write as _;

/// Lines are not made longer than this many columns: longer ones are hard to read.
const WIDTH_MAX: usize = 80;

/// Arguments of `explain`.
#[derive(clap::Args)]
pub struct ExplainArguments {
    /// A field (`stage.tolerate`), a kind (`Http`) or a type (`Retry`) [default: all types]
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// How it is printed
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
}

/// Runs the command.
pub fn main(arguments: &ExplainArguments) -> Exit {
    let reference = Reference::of(&[JobSpec::schema(), Config::schema()]);
    let found = match &arguments.name {
        None => reference.top().map(Entry::Type).collect(),
        Some(name) => match reference.find(name) {
            Ok(found) => found,
            Err(help) => {
                complain(&format!("nothing of a job file is called `{name}`: {help}"));
                return Exit::Usage;
            }
        },
    };
    let page = Page { ink: ink(&std::io::stdout()), width: size().0.clamp(40, WIDTH_MAX) };
    Exit::Done.after(print(&match arguments.format {
        Format::Json => format!("{}\n", found.into_iter().map(json).collect::<Value>()),
        Format::Human if arguments.name.is_none() => page.overview(&found),
        Format::Human => found.into_iter().map(|entry| page.entry(&reference, entry)).collect::<Vec<_>>().join("\n"),
    }))
}

/// One entry for programs.
fn json(entry: Entry) -> Value {
    let what = match entry {
        Entry::Type(_) => "type",
        Entry::Kind(..) => "kind",
        Entry::Field(..) => "field",
    };
    serde_json::json!({
        "name": entry.path(),
        "what": what,
        "meaning": entry.meaning(),
        "takes": entry.takes(&str::to_owned),
        "required": entry.required(),
        "default": entry.default(),
        "example": entry.example(),
        "within": entry.within().into_iter().map(Entry::path).collect::<Vec<_>>(),
    })
}

/// How wide, and in which colours.
struct Page {
    ink: Ink,
    width: usize,
}

impl Page {
    /// All types, each with what it is and its kinds.
    fn overview(&self, types: &[Entry]) -> String {
        let mut text = String::from("What can stand in a job file, and in lamplighter.ron:\n\n");
        let column = types.iter().map(|entry| entry.name().len()).max().unwrap_or(0) + 2;
        for entry in types {
            let meaning = entry.meaning();
            let first = meaning.split_inclusive(". ").next().unwrap_or_default().trim_end();
            self.row(&mut text, entry.name(), column, first);
            if let Entry::Type(Type::Choice(_)) = entry {
                self.row(&mut text, "", column, &names(*entry));
            }
        }
        text.push_str("\nMore of one:   lamplighter explain Http\n");
        text.push_str("Of one field:  lamplighter explain stage.tolerate\n");
        text
    }

    /// All that is known of one.
    fn entry(&self, reference: &Reference, entry: Entry) -> String {
        let mut text = format!("{}\n\n", self.ink.paint(Tone::Strong, &entry.path()));
        self.paragraph(&mut text, "  ", &entry.meaning());
        let mut facts: Vec<(&str, String)> = Vec::new();
        if let Entry::Field(..) = entry {
            facts.extend(entry.takes(&str::to_owned).map(|takes| ("takes", takes)));
            let within = entry.within();
            if !within.is_empty() {
                let of = if matches!(within[0], Entry::Field(..)) { "fields" } else { "kinds" };
                facts.push((of, names(entry)));
            }
            facts.push(("default", entry.default().unwrap_or("must be given").to_owned()));
        } else if let Some(takes) = entry.takes(&str::to_owned).filter(|takes| takes != "fields") {
            facts.push(("takes", takes));
        }
        let example = match entry {
            Entry::Type(each) => reference.example_of(each),
            _ => entry.example(),
        };
        facts.extend(example.map(|example| ("example", example)));
        if !facts.is_empty() {
            text.push('\n');
        }
        for (name, fact) in facts {
            self.row(&mut text, name, 9, &fact);
        }
        if !matches!(entry, Entry::Field(..)) && !entry.within().is_empty() {
            text.push('\n');
            self.table(&mut text, &entry.within());
        }
        text
    }

    /// What it is made of.
    fn table(&self, text: &mut String, entries: &[Entry]) {
        let column = entries.iter().map(|entry| entry.name().len()).max().unwrap_or(0) + 2;
        for entry in entries {
            let rest = match entry.default() {
                _ if entry.required() => " [must be given]".to_owned(),
                None | Some("none") => String::new(),
                Some(default) => format!(" [default: {default}]"),
            };
            self.row(text, entry.name(), column, &format!("{}{rest}", entry.meaning()));
        }
        if let Some(first) = entries.first() {
            let _ = writeln!(text, "\n  More of one: lamplighter explain {}", first.path());
        }
    }

    /// A name, and beside it as many lines as its text needs.
    fn row(&self, text: &mut String, name: &str, column: usize, beside: &str) {
        let mut lines = String::new();
        self.paragraph(&mut lines, &" ".repeat(2 + column), beside);
        let pad = column - name.len();
        let _ = write!(text, "  {}{}{}", self.ink.paint(Tone::Strong, name), " ".repeat(pad), lines.trim_start());
    }

    /// A text broken between words.
    fn paragraph(&self, text: &mut String, indent: &str, words: &str) {
        let mut line = String::from(indent);
        for word in words.split(' ') {
            let used = line.chars().count();
            if used > indent.len() && used + 1 + word.chars().count() > self.width {
                let _ = writeln!(text, "{line}");
                line = String::from(indent);
            }
            if line.len() > indent.len() {
                line.push(' ');
            }
            line.push_str(word);
        }
        let _ = writeln!(text, "{line}");
    }
}

/// What can be named in it.
fn names(entry: Entry) -> String {
    entry.within().into_iter().map(Entry::name).collect::<Vec<_>>().join(", ")
}
