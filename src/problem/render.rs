//! Problems as people and editors read them. Called by the commands, the API and the log; never writes anything itself.

use annotate_snippets::{AnnotationKind, Level as Severity, Origin, Renderer, Snippet};
use serde_json::{Value, json};

use super::{Level, Problem, Source};
use crate::limits::PROBLEMS_MAX;

/// How much of a line is looked at on each side of a place, in bytes: more than any terminal shows.
const AROUND_BYTES: usize = 400;

/// The problems of one file with file, line and column, the line underlined, and what to write instead. At most
/// [`PROBLEMS_MAX`] of them; ends with a line break unless there are none.
pub fn render(problems: &[Problem], source: &Source, color: bool) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let name = escape(&source.name);
    let mut shown = String::new();
    for problem in problems.iter().take(PROBLEMS_MAX) {
        let severity = match problem.level {
            Level::Error => Severity::ERROR,
            Level::Remark => Severity::WARNING.with_name("remark"),
        };
        // Only the first line of what is meant is underlined: a whole stage in red helps nobody.
        let start = source.boundary(problem.span.start);
        let line_start = source.text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_start = if line_start == 0 && source.text.starts_with('\u{feff}') { 3.min(start) } else { line_start };
        let line_end = source.text[start..].find(['\n', '\r']).map_or(source.text.len(), |length| start + length);
        let end = source.boundary(problem.span.end).clamp(start, line_end);
        // Of a very long line only what is around the place is looked at.
        let from = source.boundary(start.saturating_sub(AROUND_BYTES)).max(line_start);
        let to = source.boundary(start.saturating_add(AROUND_BYTES)).min(line_end);
        let line = visible(&source.text[from..to]);
        let position = source.position(start);
        let annotation = AnnotationKind::Primary.span(start - from..end.min(to) - from);
        let snippet = Snippet::source(line).line_start(position.line).annotation(annotation);
        let title = severity.primary_title(escape(&problem.message));
        let mut group = if from == line_start {
            title.element(snippet.path(name.as_str()))
        } else {
            let origin = Origin::path(name.as_str()).line(position.line).char_column(position.column);
            title.element(origin).element(snippet)
        };
        if let Some(help) = &problem.help {
            group = group.element(Severity::HELP.message(escape(help)));
        }
        shown.push_str(&renderer.render(&[group]));
        shown.push_str("\n\n");
    }
    if problems.len() > PROBLEMS_MAX {
        shown.push_str(&format!("{} more problems in {name}\n", problems.len() - PROBLEMS_MAX));
    }
    shown
}

/// The problems of one file for editors: an array of objects. Line and column count from 1, columns in characters; the
/// end is the first place after it.
pub fn to_json(problems: &[Problem], source: &Source) -> Value {
    let one = |problem: &Problem| {
        let (start, end) = (source.position(problem.span.start), source.position(problem.span.end));
        json!({
            "file": source.name,
            "line": start.line,
            "column": start.column,
            "end_line": end.line,
            "end_column": end.column,
            "severity": match problem.level { Level::Error => "error", Level::Remark => "remark" },
            "path": problem.path,
            "message": escape(&problem.message),
            "hint": problem.help.as_deref().map(escape),
        })
    };
    problems.iter().take(PROBLEMS_MAX).map(one).collect()
}

/// A text in which control characters and those that turn the direction of writing are shown as `\u{…}`, so that what
/// comes from a file can neither steer a terminal nor disguise itself.
pub fn escape(text: &str) -> String {
    if !text.contains(steers) {
        return text.to_owned();
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if steers(c) {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// The same width in bytes, so that spans stay true: what steers is shown as question marks.
fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if steers(c) && c != '\t' {
            shown.extend(std::iter::repeat_n('?', c.len_utf8()));
        } else {
            shown.push(c);
        }
    }
    shown
}

fn steers(c: char) -> bool {
    c.is_control() || is_bidi(c)
}

/// Characters that turn the direction of writing.
pub(super) fn is_bidi(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> Source {
        Source::new("jobs/a.ron", "Job(\n    näme: \"x\",\n)\n")
    }

    #[test]
    fn a_problem_is_shown_with_its_line_and_its_help() {
        let problem = Problem::error("", 9..14, "`näme` is not a field of `Job`").with_help("did you mean `name`?");
        let shown = render(&[problem], &source(), false);
        assert_eq!(
            shown,
            "\
error: `näme` is not a field of `Job`
 --> jobs/a.ron:2:5
  |
2 |     näme: \"x\",
  |     ^^^^
  |
  = help: did you mean `name`?

"
        );
    }

    #[test]
    fn a_remark_and_a_place_past_the_end_are_shown() {
        let shown = render(&[Problem::remark("", 900..901, "odd"), Problem::error("", 0..25, "all")], &source(), false);
        assert!(shown.starts_with("remark: odd\n --> jobs/a.ron:"), "{shown}");
        assert!(shown.contains("1 | Job(\n  | ^^^^\n"), "{shown}");
        assert!(render(&[Problem::error("", 10..11, "inside ä")], &source(), true).contains("inside ä"));
    }

    #[test]
    fn editors_get_lines_and_columns_in_characters() {
        let problem = Problem::error("name", 16..19, "m\u{1b}").with_help("h");
        let json = to_json(&[problem], &source());
        assert_eq!(
            json,
            json!([{"file": "jobs/a.ron", "line": 2, "column": 11, "end_line": 2, "end_column": 14, "severity": "error",
                "path": "name", "message": "m\\u{1b}", "hint": "h"}])
        );
    }

    #[test]
    fn what_comes_from_a_file_cannot_steer_a_terminal() {
        let source = Source::new("a\u{1b}[31m.ron", "Job(\u{202e}x\u{1b}[2J\t\"y\")");
        let shown = render(&[Problem::error("", 4..8, "bad \u{202e} \u{7}")], &source, false);
        assert!(!shown.contains(|c: char| steers(c) && c != '\n'), "{shown:?}");
        assert!(shown.contains("bad \\u{202e} \\u{7}"), "{shown}");
    }

    #[test]
    fn a_very_long_line_is_shown_in_part() {
        let source = Source::new("a.ron", format!("Job(\n{}bad{})", "ä".repeat(9000), "é".repeat(9000)));
        let at = source.text.find("bad").expect("there");
        let shown = render(&[Problem::error("", at..at + 3, "odd")], &source, false);
        assert!(shown.contains("--> a.ron:2:9001\n") && shown.contains("^^^") && shown.len() < 2000, "{shown}");
    }

    #[test]
    fn not_more_than_people_mend_in_one_go_is_shown() {
        let problems = vec![Problem::error("", 0..3, "x"); PROBLEMS_MAX + 5];
        let shown = render(&problems, &source(), false);
        assert_eq!(shown.matches("error: x").count(), PROBLEMS_MAX);
        assert!(shown.ends_with("5 more problems in jobs/a.ron\n"));
    }
}
