//! The documents say what is so: their RON loads, and the reference of the job file is what the code declares.

use lamplighter::{
    action::Handlers,
    item::Value,
    job::{Config, Job, JobSpec},
    problem::schema::{ChoiceSchema, FieldsSchema, Payload, Shape},
};
use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// README.md and every page of docs, by path.
fn documents() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let entries = fs::read_dir(root.join("docs")).expect("docs").map(|entry| entry.expect("an entry").file_name());
    let names = entries.map(|name| name.to_string_lossy().into_owned()).filter(|name| name.ends_with(".md"));
    let mut paths: Vec<String> = names.map(|name| format!("docs/{name}")).collect();
    paths.sort();
    paths.insert(0, "README.md".to_owned());
    paths.into_iter().map(|path| (read(&path), path)).map(|(text, path)| (path, text)).collect()
}

/// The blocks between fences of this language, each with the number of its first line.
fn blocks(text: &str, language: &str) -> Vec<(usize, String)> {
    let (mut found, mut open): (_, Option<(usize, String)>) = (Vec::new(), None);
    for (at, line) in text.lines().enumerate() {
        match (&mut open, line.trim_end()) {
            (None, line) if line.strip_prefix("```") == Some(language) => open = Some((at + 2, String::new())),
            (Some(_), "```") => found.extend(open.take()),
            (Some((_, block)), line) => {
                block.push_str(line);
                block.push('\n');
            }
            _ => {}
        }
    }
    found
}

/// The job that a block is, or stands in: a stage, a service or an action on its own gets the rest around it.
fn as_job(block: &str) -> String {
    let code = block.lines().map(str::trim_start).find(|line| !line.is_empty() && !line.starts_with("//"));
    let code = code.unwrap_or_default();
    let list = "Stage(name: \"list\", key: \"{{ item.id }}\", run: [Items(list: [{\"id\": \"a\"}])]),";
    let vendor = "services: [Service(name: \"vendor\", base: \"https://api.vendor.example\")],";
    if code.starts_with("Job(") {
        block.to_owned()
    } else if code.starts_with("Stage(") {
        format!("Job({vendor} stages: [{list} {block}])")
    } else if code.starts_with("Service(") {
        format!("Job(services: [{block}], run: [Log(message: \"x\")])")
    } else {
        format!("Job({vendor} stages: [{list} Stage(name: \"work\", run: [{block}])])")
    }
}

#[test]
fn every_ron_block_of_the_documents_loads() {
    let score = |_: lamplighter::action::Call| async { Ok(Value::Null) };
    let handlers = Handlers::new().add("score", score).expect("a handler");
    let jobs = Path::new(env!("CARGO_MANIFEST_DIR")).join("jobs");
    let (mut wrong, mut loaded) = (Vec::new(), 0);
    for (path, text) in documents() {
        for (line, block) in blocks(&text, "ron") {
            let name = format!("{path}:{line}");
            loaded += 1;
            let problems = if block.contains("Config(") {
                Config::from_ron(&name, &block).err()
            } else {
                Job::from_ron("a-job", &as_job(&block), &jobs, &handlers).err()
            };
            wrong.extend(problems.map(|problems| format!("{name}\n{problems}")));
        }
    }
    assert!(loaded > 0, "the documents show no job");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_job_that_the_readme_shows_is_the_one_of_the_job_folder() {
    let job = format!("```ron\n{}```\n", read("jobs/nightly-vitals.ron"));
    let (begin, end) = ("<!-- jobs/nightly-vitals.ron: begin -->", "<!-- jobs/nightly-vitals.ron: end -->");
    same_or_written("README.md", begin, end, &job);
}

/// Holds that `path` has `wanted` between two marks. `LAMPLIGHTER_WRITE_DOCS=1 cargo test --test it documents` writes it.
fn same_or_written(path: &str, begin: &str, end: &str, wanted: &str) {
    let page = read(path);
    let (head, rest) = page.split_once(begin).expect("the page has its marks");
    let (_, tail) = rest.split_once(end).expect("the page has its marks");
    let wanted = format!("{head}{begin}\n{wanted}{end}{tail}");
    if std::env::var_os("LAMPLIGHTER_WRITE_DOCS").is_some() {
        fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(path), wanted).expect("written");
    } else {
        let how = "LAMPLIGHTER_WRITE_DOCS=1 cargo test --test it documents";
        assert!(page == wanted, "{path} is behind the code or the job; write it anew: {how}");
    }
}

#[test]
fn the_links_of_the_documents_lead_somewhere() {
    let mut wrong = Vec::new();
    for (path, text) in documents() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(&path);
        let folder = folder.parent().expect("a folder");
        for piece in text.split("](").skip(1) {
            let link = piece.split(')').next().unwrap_or_default();
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            if link.starts_with("http") {
                continue;
            }
            let target = if file.is_empty() { Ok(text.clone()) } else { fs::read_to_string(folder.join(file)) };
            match target {
                Err(_) if folder.join(file).is_dir() => {}
                Err(_) => wrong.push(format!("{path}: {link}")),
                Ok(target) if anchor.is_empty() || anchors(&target).contains(&anchor.to_owned()) => {}
                Ok(_) => wrong.push(format!("{path}: {link}: no such heading")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The anchors of headings, as code forges make them.
fn anchors(text: &str) -> Vec<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#').trim())).collect()
}

fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn the_reference_of_the_job_file_is_what_the_code_declares() {
    same_or_written("docs/JOBS.md", "<!-- generated: begin -->", "<!-- generated: end -->", &Reference::make());
}

/// Writes each type once, in the order in which a reader meets it.
#[derive(Default)]
struct Reference {
    text: String,
    /// What was met, by name, so that two types of one name would be seen.
    met: BTreeMap<&'static str, *const u8>,
    open: Vec<Type>,
}

enum Type {
    Fields(&'static FieldsSchema),
    Choice(&'static ChoiceSchema),
}

impl Type {
    fn name(&self) -> &'static str {
        match self {
            Type::Fields(schema) => schema.name,
            Type::Choice(schema) => schema.name,
        }
    }
}

impl Reference {
    fn make() -> String {
        let mut reference = Reference::default();
        reference.meet_fields(JobSpec::schema());
        reference.meet_fields(Config::schema());
        while !reference.open.is_empty() {
            let next = reference.open.remove(0);
            reference.write(next);
        }
        reference.text
    }

    /// Writes a type, and puts those that it names and that are new before all others; stages before everything.
    fn write(&mut self, next: Type) {
        let mut later = std::mem::take(&mut self.open);
        match next {
            Type::Fields(schema) => self.fields(schema),
            Type::Choice(schema) => self.choice(schema),
        }
        if let Some(at) = self.open.iter().position(|next| next.name() == "Stage") {
            let stage = self.open.remove(at);
            // An action is met in `Job` first, but it belongs to a stage.
            let action = self.open.iter().position(|next| next.name() == "Action").map(|at| self.open.remove(at));
            self.open.splice(0..0, [stage].into_iter().chain(action));
        }
        self.open.append(&mut later);
    }

    fn meet_fields(&mut self, schema: &'static FieldsSchema) {
        let at = std::ptr::from_ref(schema).cast();
        match self.met.insert(schema.name, at) {
            None => self.open.push(Type::Fields(schema)),
            Some(before) => assert_eq!(before, at, "two types are called {}", schema.name),
        }
    }

    fn meet_choice(&mut self, schema: &'static ChoiceSchema) {
        let at = std::ptr::from_ref(schema).cast();
        match self.met.insert(schema.name, at) {
            None => self.open.push(Type::Choice(schema)),
            Some(before) => assert_eq!(before, at, "two types are called {}", schema.name),
        }
    }

    fn fields(&mut self, schema: &'static FieldsSchema) {
        let _ = write!(self.text, "\n### {}\n\n{}\n\n", schema.name, sentence(schema.doc));
        self.text.push_str("| field | takes | default | meaning | example |\n| --- | --- | --- | --- | --- |\n");
        for field in schema.fields {
            let default = match (field.required, field.default) {
                (true, _) => "must be given".to_owned(),
                (false, "") => String::new(),
                (false, default) => cell(default),
            };
            let takes = self.shape((field.shape)());
            let (name, meaning) = (field.name, cell(&sentence(field.doc)));
            let _ = writeln!(self.text, "| `{name}` | {takes} | {default} | {meaning} | {} |", code(field.example));
        }
    }

    fn choice(&mut self, schema: &'static ChoiceSchema) {
        let _ = write!(self.text, "\n### {}\n\n{}\n\n", schema.name, sentence(schema.doc));
        self.text.push_str("| kind | takes | meaning |\n| --- | --- | --- |\n");
        for variant in schema.variants {
            let takes = match variant.payload {
                Payload::Unit => String::new(),
                Payload::Value(shape) => self.shape(shape()),
                Payload::Fields(fields) => {
                    let fields = fields();
                    self.meet_fields(fields);
                    format!("[fields](#{})", anchor(fields.name))
                }
            };
            let _ = writeln!(self.text, "| `{}` | {takes} | {} |", variant.name, cell(&sentence(variant.doc)));
        }
    }

    /// What may stand in a place, in a few words; types that have a table of their own are met and linked.
    fn shape(&mut self, shape: Shape) -> String {
        match shape {
            Shape::Text => "text".to_owned(),
            // "a duration such as .." needs its example only once, and the column beside it has one.
            Shape::Word { what, .. } => {
                cell(if what.contains(" or a ") { what } else { what.split(" such as ").next().unwrap_or(what) })
            }
            Shape::Int { min, max } if max == i64::from(u32::MAX) && min == 0 => "whole number".to_owned(),
            Shape::Int { min, max } if min == i64::from(i32::MIN) && max == i64::from(i32::MAX) => {
                "whole number".to_owned()
            }
            Shape::Int { min, max } => format!("whole number, {min} to {max}"),
            Shape::Number => "number".to_owned(),
            Shape::Bool => "`true`, `false`".to_owned(),
            Shape::Any => "any value".to_owned(),
            Shape::List(of) => format!("list: {}", self.shape(of())),
            Shape::Map(of) => format!("map: {}", self.shape(of())),
            Shape::Pair(a, b) => format!("pair: ({}, {})", self.shape(a()), self.shape(b())),
            Shape::Fields(schema) => {
                let schema = schema();
                self.meet_fields(schema);
                format!("[{}](#{})", schema.name, anchor(schema.name))
            }
            Shape::Choice(schema) => {
                let schema = schema();
                self.meet_choice(schema);
                format!("[{}](#{})", schema.name, anchor(schema.name))
            }
        }
    }
}

/// The lines of a doc comment as one.
fn sentence(doc: &str) -> String {
    doc.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Text that may stand in a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn code(text: &str) -> String {
    let fence = if text.contains('`') { "``" } else { "`" };
    if text.is_empty() { String::new() } else { format!("{fence}{}{fence}", cell(text)) }
}

/// Every row of the page of faults names tests, and all of them exist.
#[test]
fn the_page_of_faults_names_tests_that_exist() {
    fn sources(folder: &Path, all: &mut String) {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                sources(&path, all);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                all.push_str(&fs::read_to_string(path).expect("a source"));
            }
        }
    }
    let mut all = String::new();
    for folder in ["src", "tests"] {
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut all);
    }
    let page = read("docs/FAULTS.md");
    let rows: Vec<&str> =
        page.lines().filter(|line| line.starts_with("| ") && line.as_bytes()[2].is_ascii_digit()).collect();
    let numbers: Vec<u32> = rows.iter().filter_map(|row| row.split(' ').nth(1)?.parse().ok()).collect();
    let promised = (29..=33).chain(37..=45).chain(50..=58).chain(61..=64).chain([66]);
    for number in promised {
        assert!(numbers.contains(&number), "no row for fault {number}");
    }
    for row in rows {
        let cell = row.trim_end_matches(" |").rsplit("| ").next().expect("a cell");
        let names: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty() || cell == "the same", "{row}");
        for name in names {
            assert!(all.contains(&format!("fn {name}(")), "there is no test `{name}`: {row}");
        }
    }
}
