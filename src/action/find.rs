//! Finds the files whose names fit a pattern, for `Read(glob:)`.
//!
//! Names that are no text and folders that lead in a circle are met in real folders: a name that is not UTF-8 is found as
//! if each wrong byte were a `\u{FFFD}`, and `**` follows no symlink. Never reads a file.

use super::files::cause;
use crate::limits::GLOB_FILES_MAX;
use glob::{MatchOptions, Pattern};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// One part of a pattern between two `/`.
enum Part {
    /// A name, or `..`.
    Name(String),
    /// What a name must fit.
    Fit(Pattern),
    /// `**`: this folder and all below it.
    Deep,
}

/// Paths that fit `pattern`, below `base` unless it begins with `/`, sorted, each once. As a shell does: what begins with a
/// dot is found only by a pattern that says so. Blocks.
///
/// # Errors
/// A sentence, when the pattern is none, a folder cannot be read, or too many names fit.
pub(super) fn find_files(pattern: &str, base: &Path) -> Result<Vec<PathBuf>, String> {
    let parts = parts(pattern)?;
    let start = if pattern.starts_with('/') { Path::new("/") } else { base };
    let mut found = Vec::new();
    let mut open = vec![(start.to_owned(), 0)];
    while let Some((folder, at)) = open.pop() {
        let Some(part) = parts.get(at) else {
            found.push(folder);
            if found.len() > GLOB_FILES_MAX {
                return Err(format!("it fits more than {GLOB_FILES_MAX} files: write a narrower pattern"));
            }
            continue;
        };
        match part {
            Part::Name(name) => {
                let path = folder.join(name);
                if path.symlink_metadata().is_ok() {
                    open.push((path, at + 1));
                }
            }
            Part::Fit(pattern) => {
                for (path, name, _) in entries(&folder)? {
                    let last = at + 1 == parts.len();
                    if pattern.matches_with(&name, OPTIONS) && (last || path.is_dir()) {
                        open.push((path, at + 1));
                    }
                }
            }
            Part::Deep => {
                for (path, name, is_folder) in entries(&folder)? {
                    if is_folder && !name.starts_with('.') {
                        open.push((path, at));
                    }
                }
                open.push((folder, at + 1));
            }
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}

const OPTIONS: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

fn parts(pattern: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    for text in pattern.split('/').filter(|text| !text.is_empty() && *text != ".") {
        match text {
            "**" if matches!(parts.last(), Some(Part::Deep)) => {}
            "**" => parts.push(Part::Deep),
            text if text.contains(['*', '?', '[']) => {
                parts.push(Part::Fit(Pattern::new(text).map_err(|error| error.msg.to_owned())?));
            }
            text => parts.push(Part::Name(text.to_owned())),
        }
    }
    if matches!(parts.last(), Some(Part::Deep)) {
        parts.push(Part::Fit(Pattern::new("*").map_err(|error| error.msg.to_owned())?));
    }
    Ok(parts)
}

/// What is in a folder: path, name as text, and whether it is a folder itself and no symlink to one.
fn entries(folder: &Path) -> Result<Vec<(PathBuf, String, bool)>, String> {
    let named = |error: io::Error| format!("{}: {}", folder.display(), cause(&error));
    let listed = match fs::read_dir(folder) {
        Ok(listed) => listed,
        // It went away, or never was: then nothing fits.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(named(error)),
    };
    let mut entries = Vec::new();
    for entry in listed {
        let entry = entry.map_err(named)?;
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        entries.push((entry.path(), entry.file_name().to_string_lossy().into_owned(), is_folder));
        if entries.len() > GLOB_FILES_MAX {
            return Err(format!("{} has more than {GLOB_FILES_MAX} names", folder.display()));
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(names: &[&str], pattern: &str) -> Vec<String> {
        let dir = tempfile::tempdir().expect("a folder");
        for name in names {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
            fs::write(path, "x").expect("a file");
        }
        std::os::unix::fs::symlink(".", dir.path().join("circle")).expect("a symlink");
        let found = find_files(pattern, dir.path()).expect(pattern);
        found.iter().map(|path| path.strip_prefix(dir.path()).expect("below").display().to_string()).collect()
    }

    const NAMES: [&str; 6] = ["a.csv", "b.csv", ".c.csv", "d.txt", "e/a.csv", "e/.f/g/h.csv"];

    #[test]
    fn patterns_find_what_a_shell_finds() {
        assert_eq!(found(&NAMES, "*.csv"), ["a.csv", "b.csv"]);
        assert_eq!(found(&NAMES, "./[ab].csv"), ["a.csv", "b.csv"]);
        assert_eq!(found(&NAMES, ".*.csv"), [".c.csv"]);
        assert_eq!(found(&NAMES, "e/*.csv"), ["e/a.csv"]);
        assert_eq!(found(&NAMES, "d.txt"), ["d.txt"]);
        assert_eq!(found(&NAMES, "d.txt/x"), [""; 0]);
        assert_eq!(found(&NAMES, "nothing/*.csv"), [""; 0]);
        assert_eq!(found(&NAMES, "e/.f/g/*"), ["e/.f/g/h.csv"]);
    }

    #[test]
    fn a_deep_pattern_follows_no_symlink_and_finds_each_file_once() {
        assert_eq!(found(&NAMES, "**/*.csv"), ["a.csv", "b.csv", "e/a.csv"]);
        assert_eq!(found(&NAMES, "**/**/a.csv"), ["a.csv", "e/a.csv"]);
        assert_eq!(found(&NAMES, "circle/a.csv"), ["circle/a.csv"]);
    }

    #[test]
    fn a_name_that_is_no_text_is_found() {
        use std::os::unix::ffi::OsStrExt;
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join(std::ffi::OsStr::from_bytes(b"\xff.csv"));
        fs::write(&path, "x").expect("a file");
        assert_eq!(find_files("*.csv", dir.path()), Ok(vec![path]));
    }
}
