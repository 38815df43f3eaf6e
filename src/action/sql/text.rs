//! The text of a statement, as far as it can be told without a database: how many statements it is, what kind, and what
//! is bound in it. It never decides what SQLite takes; it finds what must never reach SQLite, and says what to write.

use super::Does;
use crate::lang::{Checker, Level};
use std::ops::Range;

/// Kinds of statements that read rows, and that write them.
const READING: [&str; 2] = ["SELECT", "VALUES"];
const WRITING: [&str; 4] = ["INSERT", "UPDATE", "DELETE", "REPLACE"];

/// What a text holds.
#[derive(Default)]
struct Scanned {
    /// Its first word, and where it stands.
    first: Option<(String, Range<usize>)>,
    /// The word that says what it does: the first one, or the one behind the tables of a `WITH`.
    verb: Option<String>,
    /// Where something begins behind the first `;`.
    second: Option<usize>,
    /// `:name` and every other way to write a parameter, as written.
    params: Vec<Range<usize>>,
}

/// Checks the text at `path` by itself. The names that are bound, each once, in the order of the text; `None` when there
/// were errors.
pub fn check(does: Does, sql: &str, path: &str, checker: &mut Checker<'_>) -> Option<Vec<String>> {
    if let Some(at) = sql.find("{{").or_else(|| sql.find("{%").filter(|_| sql.contains("%}"))) {
        let end = sql[at..].find('}').map_or(sql.len(), |end| (at + end + 2).min(sql.len()));
        let message = "a statement takes no templates: a value could become code";
        let help = "write :name where the value belongs: it is bound to the field `name` of the value, with its type";
        let range = sql.is_char_boundary(end).then_some(at..end);
        checker.within(path, range, Level::Error, message, Some(help));
        return None;
    }
    let scanned = scan(sql);
    let Some((first, place)) = scanned.first else {
        checker.error(path, "there is no statement", Some(does.example()));
        return None;
    };
    let mut ok = true;
    let mut error = |range: Range<usize>, message: String, help: &str| {
        checker.within(path, Some(range), Level::Error, message, Some(help));
        ok = false;
    };
    let verb = scanned.verb.unwrap_or_default();
    let (reads, writes) = (READING.contains(&verb.as_str()), WRITING.contains(&verb.as_str()));
    match does {
        Does::Query if writes => error(place, format!("`query` reads, and this {verb} writes"), "write `execute:`"),
        Does::Execute if reads => error(place, format!("`execute` writes, and this {verb} reads"), "write `query:`"),
        _ if !reads && !writes && first != "WITH" => {
            let help = match first.as_str() {
                "BEGIN" | "COMMIT" | "END" | "ROLLBACK" | "SAVEPOINT" | "RELEASE" => {
                    "leave it out: each item's statement is a transaction of its own"
                }
                "CREATE" | "DROP" | "ALTER" => "make tables once, before the job runs: sqlite3 queue.db < schema.sql",
                "PRAGMA" => "read it as a table: SELECT * FROM pragma_table_info('queue')",
                _ => does.example(),
            };
            error(place, format!("`{first}` is no statement of a job: rows are read and written"), help);
        }
        _ => {}
    }
    if let Some(at) = scanned.second {
        let help = "keep one; an action is one statement, and the next action of the stage can be another";
        error(at..sql.len(), "several statements stand here".into(), help);
    }
    let mut names: Vec<String> = Vec::new();
    for range in scanned.params {
        let written = &sql[range.clone()];
        match written.strip_prefix(':').filter(|name| !name.is_empty()) {
            Some(name) if names.iter().any(|known| known == name) => {}
            Some(name) => names.push(name.to_owned()),
            None => {
                let name = written.trim_start_matches(['?', '@', '$', ':']);
                let good = if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) { "id" } else { name };
                let help = format!("write :{good} for the field `{good}` of the value");
                error(range, format!("`{written}` has no name of a field"), &help);
            }
        }
    }
    ok.then_some(names)
}

fn scan(sql: &str) -> Scanned {
    let bytes = sql.as_bytes();
    let (mut scanned, mut at, mut depth, mut ended) = (Scanned::default(), 0, 0u32, false);
    while at < bytes.len() {
        let start = at;
        match bytes[at] {
            byte if byte.is_ascii_whitespace() => {
                at += 1;
                continue;
            }
            b'-' if bytes[at..].starts_with(b"--") => {
                at = sql[at..].find('\n').map_or(bytes.len(), |end| at + end + 1);
                continue;
            }
            b'/' if bytes[at..].starts_with(b"/*") => {
                at = sql[at + 2..].find("*/").map_or(bytes.len(), |end| at + end + 4);
                continue;
            }
            b';' => {
                ended = true;
                at += 1;
                continue;
            }
            _ if ended => {
                scanned.second = Some(at);
                break;
            }
            // A doubled quote ends one text and begins the next: the same.
            quote @ (b'\'' | b'"' | b'`') => {
                at = bytes[at + 1..].iter().position(|byte| *byte == quote).map_or(bytes.len(), |end| at + end + 2);
            }
            b'[' => at = sql[at..].find(']').map_or(bytes.len(), |end| at + end + 1),
            b'(' => {
                depth += 1;
                at += 1;
            }
            b')' => {
                depth = depth.saturating_sub(1);
                at += 1;
            }
            b'?' | b':' | b'@' | b'$' => {
                at += 1;
                at += bytes[at..].iter().take_while(|byte| is_word(**byte)).count();
                scanned.params.push(start..at);
            }
            byte if is_word(byte) => {
                at += bytes[at..].iter().take_while(|byte| is_word(**byte)).count();
                let word = sql[start..at].to_ascii_uppercase();
                let tells = READING.contains(&word.as_str()) || WRITING.contains(&word.as_str());
                let with = scanned.first.as_ref().is_some_and(|(first, _)| first == "WITH");
                if scanned.verb.is_none() && tells && depth == 0 && (scanned.first.is_none() || with) {
                    scanned.verb = Some(word.clone());
                }
                scanned.first.get_or_insert((word, start..at));
            }
            _ => at += 1,
        }
    }
    scanned
}

/// What a name is made of in SQLite.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || !byte.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lang::Scope;
    use proptest::prelude::*;
    use std::path::Path;

    fn checked(does: Does, sql: &str) -> Result<Vec<String>, String> {
        let mut checker = Checker::new(Path::new("."), Scope::default());
        let names = check(does, sql, "x", &mut checker);
        let findings = checker.into_findings();
        names.ok_or_else(|| findings.iter().map(|finding| finding.message.clone()).collect::<Vec<_>>().join("; "))
    }

    #[test]
    fn names_are_found_outside_of_texts_and_comments() {
        let sql =
            "SELECT ':a', \":b\", `:c`, [:d], 'it''s :e' -- :f\n/* :g */ FROM t WHERE x = :größe_1 AND y=:y AND z>:y;";
        assert_eq!(checked(Does::Query, sql), Ok(vec!["größe_1".into(), "y".into()]));
        assert_eq!(checked(Does::Query, "/* ; */ select ';' ; -- the end;\n"), Ok(vec![]));
    }

    #[test]
    fn what_a_statement_does_is_told_from_its_words() {
        let with = "WITH RECURSIVE a(x) AS (SELECT 1), b AS (DELETE FROM t)";
        for sql in ["select 1", "VALUES (1)", &format!("{with} SELECT 1")] {
            assert!(checked(Does::Query, sql).is_ok(), "{sql}");
            assert!(checked(Does::Execute, sql).is_err_and(|why| why.contains("reads")), "{sql}");
        }
        let upsert = "INSERT INTO t(a) VALUES (:a) ON CONFLICT DO UPDATE SET a = 1";
        for sql in ["REPLACE INTO t SELECT 1", "delete from t", upsert, &format!("{with} UPDATE t SET a = 1")] {
            assert!(checked(Does::Execute, sql).is_ok(), "{sql}");
            assert!(checked(Does::Query, sql).is_err_and(|why| why.contains("writes")), "{sql}");
        }
    }

    #[test]
    fn what_could_do_more_than_rows_is_refused() {
        let refused =
            ["ATTACH :f AS x", "PRAGMA journal_mode = OFF", "BEGIN", "VACUUM INTO :f", "DROP TABLE t", "COMMIT"];
        for sql in refused {
            for does in [Does::Query, Does::Execute] {
                assert!(checked(does, sql).is_err_and(|why| why.contains("no statement of a job")), "{sql}");
            }
        }
        for sql in ["", " -- nothing\n", ";;"] {
            assert_eq!(checked(Does::Query, sql), Err("there is no statement".into()), "{sql:?}");
        }
        let two = checked(Does::Execute, "DELETE FROM t; DROP TABLE t");
        assert_eq!(two, Err("several statements stand here".into()));
        for sql in ["SELECT ?", "SELECT ?1", "SELECT @a", "SELECT $a", "SELECT :"] {
            assert!(checked(Does::Query, sql).is_err_and(|why| why.contains("no name of a field")), "{sql}");
        }
        for sql in ["SELECT '{{ item.id }}'", "SELECT {% if x %}1{% endif %}", "SELECT {{ä"] {
            assert!(checked(Does::Query, sql).is_err_and(|why| why.contains("no templates")), "{sql}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_scanned_to_its_end(sql in "(SELECT |'|\"|;|--|/\\*|\\*/|\n|:|\\?|[(]|[)]|\\[|ä|[a-z ]){0,30}") {
            let _ = checked(Does::Query, &sql);
        }
    }
}
