//! The documents say what is so: their RON loads, and the reference of the job file is what the code declares.

use super::util::{Act, Done, Place, Scripted, finish, write_program};
use lamplighter::{
    action::Handlers,
    item::Value,
    job::{Config, Job, JobSpec},
    problem::{Entry, Reference, Type},
};
use std::{collections::BTreeSet, fmt::Write as _, fs, path::Path};

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

/// What follows a heading of the second level, until the next.
fn sections(text: &str) -> Vec<(&str, &str)> {
    text.split("\n## ").skip(1).filter_map(|section| section.split_once('\n')).collect()
}

#[test]
fn every_need_has_a_recipe_that_is_checked_without_a_remark() {
    let text = read("docs/RECIPES.md");
    let recipes = sections(&text);
    let needs = [
        "mail",
        "upload",
        "vendor",
        "downloads",
        "joined",
        "queue",
        "conversions",
        "changed",
        "another job",
        "combination",
        "group",
        "export",
        "Cleaning",
        "did not come",
        "configuration",
    ];
    assert_eq!(recipes.len(), needs.len());
    let mut wrong = Vec::new();
    for ((heading, body), need) in recipes.iter().zip(needs) {
        assert!(heading.contains(need), "{heading:?} is no recipe for {need:?}");
        let jobs = blocks(body, "ron");
        assert!(!jobs.is_empty(), "{heading:?} shows no job");
        for (_, block) in jobs.iter().filter(|(_, block)| block.starts_with("Job(")) {
            let checked = Job::from_ron("a-job", block, Path::new("/nowhere"), &Handlers::new());
            let remarks = checked.unwrap_or_else(|problems| panic!("{heading}: {problems}")).remarks;
            // Tables of the operator's own are not there.
            let ours = remarks.into_iter().filter(|remark| !remark.message.starts_with("there is no file"));
            wrong.extend(ours.map(|remark| format!("{heading}: {}", remark.message)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The job of a recipe, by a word of its heading.
fn recipe(word: &str) -> String {
    let text = read("docs/RECIPES.md");
    let sections = sections(&text);
    let (_, body) = sections.iter().find(|(heading, _)| heading.contains(word)).expect("the recipe");
    blocks(body, "ron").remove(0).1
}

#[test]
fn what_has_not_changed_is_not_loaded_again() {
    let place = Place::with_job("lists", &recipe("changed"));
    place.write("lists/a.csv", "id\n1\n");
    place.write("lists/b.csv", "id\n2\n");
    let load = format!("load={}", place.path("load.sh").display());
    write_program(&place.path("load.sh"), b"#!/bin/sh\nset -e\ncat \"$1\" >> loaded\n");
    let lists = format!("lists={}", place.path("lists").display());
    let stage = |done: Done| done.exits(0).json()["stages"][1].clone();
    let run =
        || stage(place.run(&["run", "lists", "--state", "state", "--set", &load, "--set", &lists, "--format", "json"]));
    assert_eq!(run()["ok"], 2);
    assert_eq!((run()["ok"].clone(), run()["empty"].clone()), (0.into(), 2.into()));
    place.write("lists/b.csv", "id\n3\n");
    let last = run();
    assert_eq!((&last["ok"], &last["empty"]), (&1.into(), &1.into()));
    assert_eq!(place.read("out/loaded"), "id\n1\nid\n2\nid\n3\n");
}

/// Stands for the program: two rows that wait until an UPDATE names them.
const SQLITE3: &str = r#"#!/bin/sh -e
case "$*" in
    *"SELECT json_object"*)
        for id in 7 8; do
            grep -q "id = $id\$" updates 2>/dev/null || echo "{\"id\": $id, \"body\": {\"to\": \"P$id\"}}"
        done ;;
    *UPDATE*) echo "$2" >> updates ;;
esac
"#;

#[test]
fn the_queue_is_worked_off_once() {
    let clinic = Scripted::start(|path| match path {
        "/v2/messages" => Act::Answer(200, "{}".into()),
        _ => Act::Answer(404, "{}".into()),
    });
    let queue =
        recipe("queue").replace("https://clinic.example.org", &clinic.base).replace("clinic_token", "vendor_token");
    let place = Place::with_job("queue", &queue);
    write_program(&place.path("bin/sqlite3"), SQLITE3.as_bytes());
    let path = format!("{}:{}", place.path("bin").display(), std::env::var("PATH").unwrap_or_default());
    for sent in [2, 0] {
        let mut command = place.command(&["run", "queue", "--format", "json"]);
        let done = finish(command.env("PATH", &path).env("LAMPLIGHTER_SECRET_VENDOR_TOKEN", "x")).exits(0);
        assert_eq!(done.json()["stages"][1]["ok"], sent, "{}", done.stdout);
    }
    assert_eq!(clinic.requests("/v2/messages"), 2);
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
    same_or_written("docs/JOBS.md", "<!-- generated: begin -->", "<!-- generated: end -->", &reference());
}

/// The reference as a page: a table for each type, in the order in which a reader meets it.
fn reference() -> String {
    let reference = Reference::of(&[JobSpec::schema(), Config::schema()]);
    let names: Vec<&str> = reference.types().iter().map(|each| each.name()).collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "two types have one name: {names:?}");
    let mut text = String::new();
    for each in reference.types() {
        let whole = Entry::Type(*each);
        let _ = write!(text, "\n### {}\n\n{}\n\n", each.name(), whole.meaning());
        text.push_str(match each {
            Type::Fields(_) => "| field | takes | default | meaning | example |\n| --- | --- | --- | --- | --- |\n",
            Type::Choice(_) => "| kind | takes | meaning | example |\n| --- | --- | --- | --- |\n",
        });
        for entry in each.entries() {
            let (name, meaning) = (entry.name(), cell(&entry.meaning()));
            let takes = cell(&entry.takes(&|name| format!("[{name}](#{})", anchor(name))).unwrap_or_default());
            let takes = if takes == "fields" { format!("[fields](#{})", anchor(name)) } else { takes };
            // "a duration such as .." needs its example only once, and the column beside it has one.
            let takes =
                if takes.contains(" or a ") { &takes } else { takes.split(" such as ").next().unwrap_or_default() };
            let example = entry.example().unwrap_or_default();
            let _ = match entry {
                Entry::Field(..) => {
                    let default = cell(entry.default().unwrap_or("must be given"));
                    let example = code(example.split_once(": ").map_or("", |(_, value)| value));
                    writeln!(text, "| `{name}` | {takes} | {default} | {meaning} | {example} |")
                }
                _ => writeln!(text, "| `{name}` | {takes} | {meaning} | {} |", code(&example)),
            };
        }
    }
    text
}

/// Text that may stand in a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn code(text: &str) -> String {
    let fence = if text.contains('`') { "``" } else { "`" };
    if text.is_empty() { String::new() } else { format!("{fence}{}{fence}", cell(text)) }
}

/// Every crate that is used is in the list of the README.
#[test]
fn the_readme_names_every_dependency() {
    let (manifest, page) = (read("Cargo.toml"), read("README.md"));
    let (_, rest) = manifest.split_once("\n[dependencies]\n").expect("dependencies");
    let names = rest.lines().take_while(|line| !line.starts_with('[')).filter_map(|line| line.split_once(" = "));
    let (_, table) = page.split_once("\n## Dependencies\n").expect("the list");
    let missing: Vec<&str> = names.map(|(name, _)| name).filter(|name| !table.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "the README does not say what {missing:?} are for");
}

/// Every fault has a row on its page, or a reason for there being none; every row names tests, and all of them exist.
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
    let is_row = |line: &&str| line.starts_with("| ") && !line.starts_with("| #") && !line.starts_with("| ---");
    let rows: Vec<&str> = page.lines().filter(is_row).collect();
    let cells = rows.iter().filter_map(|row| row.split('|').nth(1));
    let mut numbers: Vec<u32> = cells.flat_map(|cell| cell.split(',')).filter_map(|n| n.trim().parse().ok()).collect();
    // Those that no test produces are named with the reason, as `(45, 46)` or `(9 to 13)`.
    let design = read("docs/DESIGN.md");
    let section = design.split("## Faults that tests do not produce").nth(1).expect("the section");
    for group in section.split('(').skip(1).filter_map(|rest| rest.split(')').next()) {
        for part in group.split(',') {
            let ends: Vec<u32> = part.split(" to ").filter_map(|n| n.trim().parse().ok()).collect();
            numbers.extend(ends.first().zip(ends.last()).into_iter().flat_map(|(first, last)| *first..=*last));
        }
    }
    let missing: Vec<u32> = (1..=77).filter(|number| !numbers.contains(number)).collect();
    assert!(missing.is_empty(), "no row, and no reason for there being none, of the faults {missing:?}");
    for row in rows {
        let cell = row.trim_end_matches(" |").rsplit("| ").next().expect("a cell");
        let names: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty() || cell == "the same", "{row}");
        for name in names {
            assert!(all.contains(&format!("fn {name}(")), "there is no test `{name}`: {row}");
        }
    }
}
