//! What must stay true of the source: imports point one way, time and threads have one door, nothing of a machine is
//! committed. Each rule is one test that names file and line.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The rooms, in the order of what may use what: each uses only itself and those before it.
const ROOMS: [&str; 19] = [
    "limits",
    "units",
    "problem",
    "world",
    "flow",
    "item",
    "store",
    "report",
    "lang",
    "schedule",
    "service",
    "action",
    "job",
    "run",
    "query",
    "daemon",
    "api",
    "vendor_sim",
    "cli",
];

/// Macros that stand at the crate's root and belong to `problem`.
const MACROS: [&str; 2] = ["spec", "choice"];

/// Files that may name a hash map or set: its order cannot reach an output, because it is only asked what it holds.
const HASH_FILES: [&str; 5] = [
    "src/action/http/mod.rs", // cursors that were seen
    "src/action/read.rs",     // columns that were seen
    "src/action/write.rs",    // columns that were seen; their order is a list's
    "src/problem/explain.rs", // fields that were given
    "src/problem/values.rs",  // keys that were given
];

/// A text file of the repository.
struct File {
    /// Relative to the root, with `/`.
    path: String,
    text: String,
}

impl File {
    /// Lines that are code of the product, with their numbers: without comment lines and the file's own tests at its end.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(at, line)| (at + 1, line));
        let product = lines.take_while(|(_, line)| *line != "mod tests {");
        product.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// The room of a source file: `src/run/token.rs` and `src/limits.rs` have one, `src/lib.rs` has none.
    fn room(&self) -> Option<&str> {
        let below = self.path.strip_prefix("src/")?;
        let room = below.split_once('/').map_or_else(|| below.strip_suffix(".rs"), |(room, _)| Some(room))?;
        (!["lib", "main"].contains(&room)).then_some(room)
    }

    fn is_library(&self) -> bool {
        self.path == "src/lib.rs" || self.room().is_some_and(|room| room != "cli")
    }

    fn is_test(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        self.path.starts_with("tests/") || name.contains("tests") || self.path.contains("/tests/")
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every text file below `folder` with one of these endings, sorted by path. What is built or written by a run is no part
/// of the repository.
fn files(folder: &str, endings: &[&str]) -> Vec<File> {
    let mut found = Vec::new();
    let mut open = vec![root().join(folder)];
    while let Some(folder) = open.pop() {
        let entries: Vec<PathBuf> =
            fs::read_dir(&folder).expect("a folder").map(|e| e.expect("entry").path()).collect();
        for path in entries {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && ![".git", "target", "out"].contains(&name.as_str()) {
                open.push(path);
            } else if endings.iter().any(|ending| name.ends_with(ending)) && path.is_file() {
                let short = path.strip_prefix(root()).expect("below the root").to_string_lossy().replace('\\', "/");
                // Some files of test data are no UTF-8 on purpose.
                let text = String::from_utf8_lossy(&fs::read(&path).expect("a file")).into_owned();
                found.push(File { path: short, text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!found.is_empty(), "no file below {folder}");
    found
}

fn sources() -> Vec<File> {
    files("src", &[".rs"])
}

/// Fails with every finding at once.
fn none(what: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

/// Lines of code in which one of the words stands.
fn lines_with(file: &File, words: &[&str]) -> Vec<String> {
    let hit = |line: &str| words.iter().find(|word| line.contains(**word)).copied();
    file.code().filter_map(|(at, line)| hit(line).map(|word| format!("{}:{at}: {word}", file.path))).collect()
}

/// What stands first in each path that begins with `start`: `crate::{a::B, c}` gives a and c. With the byte it stands at.
fn heads(text: &str, start: &str) -> Vec<(usize, String)> {
    let ident = |text: &str| -> String { text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect() };
    let mut found = Vec::new();
    for (at, _) in text.match_indices(start) {
        if text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &text[at + start.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            found.push((at, ident(rest)));
            continue;
        };
        let (mut depth, mut begins) = (0, true);
        for (place, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => begins = true,
                c if begins && !c.is_whitespace() => {
                    found.push((at, ident(&group[place..])));
                    begins = false;
                }
                _ => {}
            }
        }
    }
    found.retain(|(_, name)| !name.is_empty());
    found
}

/// The code of a file without its comment lines, which stay as empty lines.
fn code_text(file: &File) -> String {
    let keep = |line: &str| if line.trim_start().starts_with("//") { String::new() } else { line.to_owned() };
    file.text.lines().map(keep).collect::<Vec<_>>().join("\n")
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

fn place(room: &str) -> usize {
    ROOMS.iter().position(|known| *known == room).unwrap_or_else(|| panic!("`{room}` is no room: name it in ROOMS"))
}

#[test]
fn a_room_uses_only_itself_and_the_rooms_before_it() {
    let mut wrong = Vec::new();
    for file in sources() {
        let Some(room) = file.room().filter(|room| *room != "cli") else { continue };
        let own = place(room);
        let code = code_text(&file);
        for (at, used) in heads(&code, "crate::") {
            if MACROS.contains(&used.as_str()) || place(&used) <= own {
                continue;
            }
            wrong.push(format!("{}:{}: `{room}` uses `{used}`", file.path, line_of(&code, at)));
        }
        // The way around by `super`, from the head of a room.
        for (at, used) in heads(&code, "super::") {
            let is_head = file.path == format!("src/{room}/mod.rs") || file.path == format!("src/{room}.rs");
            let climbs = is_head || code[..at].ends_with("super::");
            if climbs && ROOMS.contains(&used.as_str()) && used != room {
                wrong.push(format!("{}:{}: write `crate::{used}`", file.path, line_of(&code, at)));
            }
        }
    }
    none("imports point one way: limits first, vendor_sim last", wrong);
}

#[test]
fn the_parser_of_imports_sees_every_form() {
    let heads = |text: &str| heads(text, "crate::").into_iter().map(|(_, name)| name).collect::<Vec<_>>();
    assert_eq!(heads("use crate::run::Run;"), ["run"]);
    assert_eq!(heads("use crate::{\n    flow::{A, b::C},\n    job,\n};"), ["flow", "job"]);
    assert_eq!(heads("$crate::spec! {} fn x(a: crate::world::World)"), ["spec", "world"]);
    assert_eq!(heads("mycrate::x"), [""; 0]);
}

#[test]
fn the_rooms_are_declared_in_their_order() {
    let text = fs::read_to_string(root().join("src/lib.rs")).expect("lib.rs");
    let declared: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    let order: Vec<&str> = ROOMS.into_iter().filter(|room| declared.contains(room)).collect();
    assert_eq!(declared, order);
    let rooms: BTreeSet<String> = sources().iter().filter_map(|file| file.room().map(str::to_owned)).collect();
    let missing: Vec<String> = rooms.into_iter().filter(|r| r != "cli" && !declared.contains(&r.as_str())).collect();
    none("rooms that lib.rs does not tell of", missing);
}

#[test]
fn the_program_uses_only_the_public_api() {
    let mut wrong = Vec::new();
    for file in sources().iter().filter(|file| file.path == "src/main.rs" || file.room() == Some("cli")) {
        let code = code_text(file);
        for (at, used) in heads(&code, "crate::").into_iter().filter(|(_, used)| used != "cli") {
            wrong.push(format!("{}:{}: crate::{used}", file.path, line_of(&code, at)));
        }
        wrong.extend(lines_with(file, &["#[path"]));
    }
    none("the program sees the library as everybody does", wrong);
}

#[test]
fn time_and_threads_have_one_door() {
    let words = [
        "Instant::now",
        "SystemTime::now",
        "Timestamp::now",
        "Zoned::now",
        "smol::Timer",
        "Timer::after",
        "smol::spawn",
        "smol::unblock",
        "blocking::unblock",
        "thread::sleep",
    ];
    let doors = |file: &&File| file.room() != Some("world") && file.path != "src/vendor_sim/clock.rs";
    // A server of the tests drips its bytes on the real clock: test files are not asked.
    let sources = sources();
    let wrong =
        sources.iter().filter(doors).filter(|file| !file.is_test()).flat_map(|file| lines_with(file, &words)).collect();
    none("ask the `World`", wrong);
}

#[test]
fn every_channel_is_bounded() {
    let words = ["unbounded(", "unbounded_channel", "mpsc::channel("];
    let sources = sources();
    let wrong = sources.iter().filter(|file| !file.is_test()).flat_map(|file| lines_with(file, &words)).collect();
    none("give the channel a capacity with a name", wrong);
}

#[test]
fn the_library_does_not_print_exit_or_read_the_environment() {
    let words = [
        "println!",
        "eprintln!",
        "print!(",
        "eprint!(",
        "dbg!(",
        "std::env",
        " env::",
        "(env::",
        "process::exit",
        "process::abort",
        "env_logger",
        "async_signal",
        "set_logger",
    ];
    let sources = sources();
    let wrong = sources.iter().filter(|file| file.is_library()).flat_map(|file| lines_with(file, &words)).collect();
    none("that is the caller's", wrong);
}

#[test]
fn nothing_is_left_to_do() {
    // In two pieces, so that this file does not find itself.
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("to", "do!("),
        concat!("unimpl", "emented!("),
        concat!("#[ign", "ore"),
    ];
    let mut wrong = Vec::new();
    for folder in
        ["src", "tests", "examples", "benches", "jobs", "docs", ".ci"].iter().filter(|f| root().join(f).is_dir())
    {
        for file in files(folder, &[".rs", ".ron", ".jq", ".html", ".md", ".py", "run", "arm"]) {
            for (at, line) in file.text.lines().enumerate() {
                wrong.extend(
                    words.iter().filter(|w| line.contains(**w)).map(|w| format!("{}:{}: {w}", file.path, at + 1)),
                );
            }
        }
    }
    none("finish it, or take it out", wrong);
}

#[test]
fn files_are_short_enough_to_read() {
    let mut all = sources();
    all.extend(files("tests", &[".rs"]));
    let long = all.iter().map(|file| (file, file.text.lines().count())).filter(|(_, lines)| *lines >= 800);
    none("files of 800 lines and more", long.map(|(file, lines)| format!("{}: {lines}", file.path)).collect());
}

#[test]
fn every_source_file_begins_with_what_it_is_for() {
    let bare = sources().into_iter().filter(|file| !file.is_test() && !file.text.starts_with("//!"));
    none("files without a module doc", bare.map(|file| file.path).collect());
}

#[test]
fn nothing_of_a_machine_is_committed() {
    // In two pieces, so that this file does not find itself.
    let words = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("../sh", "ared"), concat!("/tmp/", "tgt")];
    let endings = [".rs", ".ron", ".jq", ".html", ".md", ".toml", ".json", ".pem", ".py", "run", "arm", ".gitignore"];
    let mut wrong = Vec::new();
    for file in files(".", &endings) {
        for (at, line) in file.text.lines().enumerate() {
            wrong.extend(words.iter().filter(|w| line.contains(**w)).map(|w| format!("{}:{}: {w}", file.path, at + 1)));
        }
    }
    none("paths of a machine", wrong);
}

#[test]
fn the_order_of_a_hash_map_reaches_no_output() {
    let sources = sources();
    let named = sources.iter().filter(|file| !file.is_test() && !HASH_FILES.contains(&file.path.as_str()));
    let wrong = named.flat_map(|file| lines_with(file, &["HashMap", "HashSet"])).collect();
    none("use a BTreeMap, or say in HASH_FILES why the order cannot be seen", wrong);
}

#[test]
fn of_tokio_only_the_sync_types_are_built() {
    let Some(cargo) = std::env::var_os("CARGO") else { return };
    let mut tree = Command::new(cargo);
    tree.args(["tree", "--offline", "--edges", "features,normal", "--invert", "tokio", "--all-features"])
        .current_dir(root());
    let tree = tree.output().expect("cargo starts");
    let text = String::from_utf8_lossy(&tree.stdout);
    if !tree.status.success() {
        let error = String::from_utf8_lossy(&tree.stderr).into_owned();
        // No tokio at all is better still; a cargo that has no index offline cannot say.
        assert!(!error.contains("panicked"), "{error}");
        return;
    }
    let features: BTreeSet<&str> =
        text.lines().filter_map(|line| line.split_once("tokio feature \"")?.1.split('"').next()).collect();
    let allowed = BTreeSet::from(["default", "sync"]);
    assert!(features.is_subset(&allowed), "tokio is built with {features:?}: a runtime must not come in\n{text}");
}
