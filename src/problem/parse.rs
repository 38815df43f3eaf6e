//! The tolerant parser: reads a file into a tree with spans and goes on where it is certain what was meant.
//!
//! Called only to explain a file that was refused, and to find the place of a path. It never decides whether a file is
//! good, never panics, and takes time in proportion to the file. What was surely meant (a missing comma, `#` for a
//! comment, `=` for `:`) is noted and read on; at the first thing that is not it stops, since what follows would be guesses.

use std::ops::Range;

use super::text;
use crate::limits::{DEPTH_MAX, PROBLEMS_MAX};

/// What was read of a file.
pub(super) struct Tree {
    /// The value of the file, as far as it could be read.
    pub root: Option<Node>,
    /// What is wrong with the writing; the one that ended the reading, if any, is the last.
    pub faults: Vec<Fault>,
    /// Nothing that ends after this byte was understood.
    pub stop: Option<usize>,
}

/// Something wrong with the writing.
#[derive(Debug)]
pub(super) struct Fault {
    pub span: Range<usize>,
    pub message: String,
    pub help: String,
    /// RON would accept it: it is our own rule.
    pub ours: bool,
}

/// A value and where it stands.
#[derive(Debug)]
pub(super) struct Node {
    pub span: Range<usize>,
    pub kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    /// `"…"` or `r#"…"#`.
    Text,
    /// `'…'`.
    Single,
    /// A text in typographic quotes.
    Curly,
    /// What begins like a number: `20`, `-1.5e3`, `20m`, `100/min`.
    Number,
    /// A name without anything behind it.
    Word,
    /// Several words that should stand in quotes.
    Bare,
    /// `b"…"`.
    Bytes,
    /// `[…]`.
    List(Vec<Node>),
    /// `{…}`.
    Map(Vec<Entry>),
    /// `Name(…)` or `(…)`.
    Group(Group),
    /// A value that is missing or was not understood; its fault is noted.
    Hole,
}

/// `Name(…)` or `(…)`.
#[derive(Debug)]
pub(super) struct Group {
    /// Where the name stands.
    pub name: Option<Range<usize>>,
    /// Where the opening parenthesis stands.
    pub open: usize,
    pub entries: Vec<Entry>,
    /// Its end was seen.
    pub whole: bool,
}

/// One value of a group or map, with its key.
#[derive(Debug)]
pub(super) struct Entry {
    pub key: Option<Node>,
    pub value: Node,
}

impl Group {
    /// The name, or the parenthesis where there is none: what is underlined for the whole group.
    pub fn head(&self) -> Range<usize> {
        self.name.clone().unwrap_or(self.open..self.open + 1)
    }

    /// The only value of a group that has no fields.
    pub fn only(&self) -> Option<&Node> {
        match &self.entries[..] {
            [Entry { key: None, value }] => Some(value),
            _ => None,
        }
    }
}

/// Reads a file. `root` is the name that its value should have, for the messages.
pub(super) fn parse(source: &str, root: &str) -> Tree {
    let mut parser = Parser { source, at: 0, faults: Vec::new(), stop: None };
    if source.starts_with('\u{feff}') {
        parser.at = 3;
    }
    let root = parser.file(root);
    let Parser { faults, stop, .. } = parser;
    Tree { root, faults, stop }
}

/// White space as RON has it.
fn is_space(c: char) -> bool {
    matches!(
        c,
        ' ' | '\t' | '\n' | '\r' | '\x0B' | '\x0C' | '\u{85}' | '\u{200E}' | '\u{200F}' | '\u{2028}' | '\u{2029}'
    )
}

/// White space that RON does not have, by the name that people know.
fn odd_space(c: char) -> Option<&'static str> {
    match c {
        '\u{a0}' | '\u{202f}' => Some("a no-break space"),
        '\u{3000}' => Some("a full-width space"),
        '\u{200b}' | '\u{200c}' | '\u{200d}' | '\u{2060}' | '\u{feff}' => Some("an invisible character"),
        c if c.is_whitespace() && !is_space(c) => Some("an unusual kind of space"),
        _ => None,
    }
}

/// The plain sign for a full-width one, as input methods give it.
fn plain_sign(c: char) -> Option<char> {
    Some(match c {
        '，' | '、' => ',',
        '：' => ':',
        '；' => ';',
        '（' => '(',
        '）' => ')',
        '［' => '[',
        '］' => ']',
        '｛' => '{',
        '｝' => '}',
        _ => return None,
    })
}

pub(super) fn is_curly_quote(c: char) -> bool {
    matches!(c, '“' | '”' | '„' | '‟' | '‘' | '’' | '‚' | '«' | '»' | '＂' | '「' | '」')
}

fn is_word_start(c: char) -> bool {
    c == '_' || c.is_alphabetic()
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// What closes what was opened.
fn closer(open: char) -> char {
    match open {
        '(' => ')',
        '[' => ']',
        _ => '}',
    }
}

struct Parser<'a> {
    source: &'a str,
    at: usize,
    faults: Vec<Fault>,
    stop: Option<usize>,
}

impl Parser<'_> {
    fn file(&mut self, name: &str) -> Option<Node> {
        self.space();
        if self.rest().is_empty() {
            if self.stop.is_none() {
                let end = self.source.len();
                self.fatal(end..end, "the file is empty".to_owned(), format!("write `{name}(` … `)`"), end);
            }
            return None;
        }
        let start = self.at;
        if let Some(key) = self.key() {
            let end = key.span.end;
            self.fatal(
                start..end,
                format!("the file does not begin with `{name}(`"),
                format!("put all fields between `{name}(` and `)`"),
                start,
            );
            return None;
        }
        let root = self.value(0);
        self.space();
        if self.stop.is_none() && !self.rest().is_empty() {
            let (at, sign) = (self.at, self.sign());
            let end = at + self.rest().chars().next().map_or(0, char::len_utf8);
            let message = match sign {
                Some(c @ (')' | ']' | '}')) => format!("there is one `{c}` too many"),
                _ => format!("nothing may stand after the end of `{name}(..)`"),
            };
            self.fatal(at..end, message, format!("a file holds one `{name}(..)`; remove what follows it"), at);
        }
        Some(root)
    }

    fn value(&mut self, depth: usize) -> Node {
        let start = self.at;
        let Some(c) = self.rest().chars().next() else { return self.node(start, Kind::Hole) };
        match c {
            '"' => self.text(),
            'r' if self.raw_text_begins(1) => self.raw_text(1, Kind::Text),
            'b' if self.rest().starts_with("b\"") => {
                self.at += 1;
                self.text();
                self.node(start, Kind::Bytes)
            }
            'b' if self.rest().starts_with("br") && self.raw_text_begins(2) => self.raw_text(2, Kind::Bytes),
            'b' if self.rest().starts_with("b'") => {
                self.at += 1;
                self.single();
                self.node(start, Kind::Bytes)
            }
            '\'' => self.single(),
            c if is_curly_quote(c) => self.curly(),
            c if is_word_start(c) => self.word(depth),
            c if c.is_ascii_digit() || matches!(c, '+' | '-' | '.') => self.number(),
            c => match plain_sign(c).unwrap_or(c) {
                '(' => self.group(None, depth),
                '[' => self.list(depth),
                '{' => self.map(depth),
                ',' | ')' | ']' | '}' => {
                    self.hole("a value is missing here", "write a value, or remove the name before it")
                }
                ':' | '=' | ';' => {
                    self.fatal(
                        start..start + c.len_utf8(),
                        format!("`{c}` cannot stand here"),
                        "write a value".to_owned(),
                        start,
                    );
                    self.node(start, Kind::Hole)
                }
                _ => self.bare(start),
            },
        }
    }

    /// A name, or a name with parentheses.
    fn word(&mut self, depth: usize) -> Node {
        let start = self.at;
        self.skip_word();
        let name = start..self.at;
        let after = self.rest().chars().next();
        if after == Some(':')
            || after.is_some_and(|c| matches!(c, '/' | '@' | '%' | '$' | '*' | '~') && !self.comment_begins())
        {
            return self.bare(start);
        }
        self.space();
        let sign = self.sign();
        match sign {
            Some('(') => return self.group(Some(name), depth),
            Some(c @ ('{' | '[')) => {
                let shown = self.source[name.clone()].to_owned();
                self.fault(
                    self.at..self.at + 1,
                    format!("`{shown}` takes round parentheses"),
                    format!("write `{shown}(` … `)` instead of `{shown}{c}` … `{}`", closer(c)),
                );
                return self.group(Some(name), depth);
            }
            _ => {}
        }
        if self.sentence_goes_on(name.end) {
            return self.bare(start);
        }
        self.at = name.end;
        self.node(start, Kind::Word)
    }

    /// Whether the word that ended at `end` is the first of several: `two hours`, `Sync the data`.
    fn sentence_goes_on(&self, end: usize) -> bool {
        let Some(next) = self.rest().chars().next() else { return false };
        if self.at == end || self.source[end..self.at].contains(['\n', '/']) {
            return false;
        }
        if is_word_start(next) {
            if self.raw_text_begins(1) || next.is_uppercase() {
                return false;
            }
            let after = self.rest().trim_start_matches(is_word).trim_start_matches([' ', '\t']);
            return !after.starts_with([':', '=', '(', '"']);
        }
        !matches!(next, ',' | ')' | ']' | '}' | '(' | '[' | '{' | '"' | '\'' | ':' | '=' | ';' | '#')
            && plain_sign(next).is_none()
            && !is_curly_quote(next)
    }

    /// What begins like a number; what goes on like a sentence (`30 2 * * *`, `1h 30m`) is a bare text.
    fn number(&mut self) -> Node {
        let start = self.at;
        self.skip(|c| is_word(c) || matches!(c, '.' | '+' | '-' | '%'));
        while self.rest().starts_with('/') && self.rest()[1..].starts_with(|c: char| c.is_ascii_alphanumeric()) {
            self.at += 1;
            self.skip(is_word);
        }
        let end = self.at;
        let rest = self.rest().trim_start_matches([' ', '\t']);
        let goes_on = match rest.chars().next() {
            None | Some(',' | ')' | ']' | '}' | '\n' | '\r' | '"' | '\'' | '(' | '[' | '{' | '#' | ';') => false,
            Some(':') => rest[1..].starts_with(|c: char| !c.is_whitespace()),
            Some('/') => !rest.starts_with("//") && !rest.starts_with("/*"),
            Some(c) if plain_sign(c).is_some() || is_space(c) || odd_space(c).is_some() || is_curly_quote(c) => false,
            Some(c) if is_word_start(c) => {
                let after = rest.trim_start_matches(is_word).trim_start_matches([' ', '\t']);
                rest.len() < self.rest().len() && !after.starts_with([':', '=', '('])
            }
            Some(_) => true,
        };
        if goes_on {
            return self.bare(start);
        }
        self.at = end;
        self.node(start, Kind::Number)
    }

    /// Several words without quotes, up to what ends a value.
    fn bare(&mut self, start: usize) -> Node {
        let from = self.at.max(start);
        let mut end = self.source.len();
        let mut before = ' ';
        for (at, c) in self.source[from..].char_indices() {
            let comment = c == '/' && before == ' ' && self.source[from + at..].starts_with("//");
            let ends = matches!(c, '\n' | ',' | ')' | ']' | '}' | '"') || plain_sign(c).is_some_and(|c| c != ':');
            if (ends || comment) && from + at > start {
                end = from + at;
                break;
            }
            before = c;
        }
        self.at = start + self.source[start..end].trim_end().len();
        self.node(start, Kind::Bare)
    }

    fn text(&mut self) -> Node {
        let start = self.at;
        let bytes = self.source.as_bytes();
        let mut end = start + 1;
        loop {
            match bytes.get(end) {
                Some(b'"') => break,
                Some(b'\\') => end += 2,
                Some(_) => end += 1,
                None => return self.open_text(start, "end it with `\"`"),
            }
        }
        self.at = end + 1;
        if let Some(bad) = text::bad_escape(&self.source[start..self.at]) {
            let shown = &self.source[start + bad.start..start + bad.end];
            let help = format!("write the text as r#\"..\"#, where a backslash is a backslash, or write `\\{shown}`");
            self.fault(start + bad.start..start + bad.end, format!("`{shown}` means nothing in a text"), help);
        }
        self.node(start, Kind::Text)
    }

    /// Whether `r`, hashes and a quote stand `skip - 1` bytes from here.
    fn raw_text_begins(&self, skip: usize) -> bool {
        self.rest().as_bytes().get(skip - 1) == Some(&b'r')
            && self.rest()[skip..].trim_start_matches('#').starts_with('"')
    }

    fn raw_text(&mut self, skip: usize, kind: Kind) -> Node {
        let start = self.at;
        let after = &self.rest()[skip..];
        let hashes = after.len() - after.trim_start_matches('#').len();
        let end = format!("\"{}", &after[..hashes]);
        match after[hashes + 1..].find(&end) {
            Some(length) => {
                self.at = start + skip + hashes + 1 + length + end.len();
                self.node(start, kind)
            }
            None => self.open_text(start, &format!("end it with `{end}`")),
        }
    }

    /// A text without an end: everything after its beginning is unknown.
    fn open_text(&mut self, start: usize, help: &str) -> Node {
        let end = self.line_end(start);
        let mut help = help.to_owned();
        if self.source[start..end].contains(is_curly_quote) {
            help.push_str("; the typographic quote in it does not count");
        }
        self.fatal(start..end, "this text is never closed".to_owned(), help, start);
        Node { span: start..end, kind: Kind::Hole }
    }

    /// `'…'`, on one line.
    fn single(&mut self) -> Node {
        let start = self.at;
        let mut escaped = false;
        for (at, c) in self.source[start + 1..].char_indices() {
            let end = start + 1 + at;
            // A quote between two others is a character, two of them are nothing at all.
            if c == '\'' && !escaped && (at > 0 || !self.source[end + 1..].starts_with('\'')) {
                self.at = end + 1;
                return self.node(start, Kind::Single);
            }
            if c == '\n' {
                break;
            }
            escaped = c == '\\' && !escaped;
        }
        self.open_text(start, "texts stand in double quotes: begin and end it with `\"`")
    }

    /// A text in typographic quotes, on one line.
    fn curly(&mut self) -> Node {
        let start = self.at;
        let ends = |c: char| is_curly_quote(c) || matches!(c, '"' | '\n');
        match self.source[start..].char_indices().skip(1).find(|(_, c)| ends(*c)) {
            Some((at, c)) if c != '\n' => {
                self.at = start + at + c.len_utf8();
                self.node(start, Kind::Curly)
            }
            _ => self.open_text(start, "begin and end it with `\"`"),
        }
    }

    fn list(&mut self, depth: usize) -> Node {
        let start = self.at;
        let (entries, _) = self.entries('[', None, depth);
        self.node(start, Kind::List(entries.into_iter().map(|entry| entry.value).collect()))
    }

    fn map(&mut self, depth: usize) -> Node {
        let start = self.at;
        let (entries, _) = self.entries('{', None, depth);
        self.node(start, Kind::Map(entries))
    }

    fn group(&mut self, name: Option<Range<usize>>, depth: usize) -> Node {
        let open = self.at;
        let start = name.as_ref().map_or(open, |name| name.start);
        let (entries, whole) = self.entries('(', name.clone(), depth);
        self.node(start, Kind::Group(Group { name, open, entries, whole }))
    }

    /// Everything up to the closing bracket, and whether that was seen. `kind` is the bracket that should stand here.
    fn entries(&mut self, kind: char, name: Option<Range<usize>>, depth: usize) -> (Vec<Entry>, bool) {
        let (open, written) = (self.at, self.sign().unwrap_or(kind));
        self.take_sign();
        let mut entries = Vec::new();
        if depth >= DEPTH_MAX {
            let help = format!("at most {DEPTH_MAX} brackets may stand inside each other");
            self.fatal(open..self.at, "this is nested too deeply".to_owned(), help, open);
            return (entries, false);
        }
        loop {
            self.space();
            if self.stop.is_some() {
                return (entries, false);
            }
            let before = self.at;
            match self.sign() {
                None => {
                    let shown = format!("{}{written}", name.map_or("", |name| &self.source[name]));
                    let help = format!("end it with `{}`", closer(written));
                    let end = self.source.len();
                    self.fatal(open..open + 1, format!("`{shown}` is never closed"), help, end);
                    return (entries, false);
                }
                Some(c @ (')' | ']' | '}')) => {
                    if c == closer(kind) || c == closer(written) {
                        self.take_sign();
                        return (entries, true);
                    }
                    let line = self.source[..open].matches('\n').count() + 1;
                    let help = format!("write `{}` first: `{written}` of line {line} is still open", closer(written));
                    let end = before + self.rest().chars().next().map_or(0, char::len_utf8);
                    self.fatal(before..end, format!("`{c}` closes nothing here"), help, before);
                    return (entries, false);
                }
                Some(',') => {
                    self.take_sign();
                    self.fault(before..self.at, "there is one comma too many".to_owned(), "remove it".to_owned());
                    continue;
                }
                Some(_) => entries.push(self.entry(kind, depth)),
            }
            let end = self.at;
            self.space();
            self.separator(kind, before, end, entries.last());
            if self.at == before && self.stop.is_none() {
                let end = before + self.rest().chars().next().map_or(0, char::len_utf8);
                self.fatal(before..end, "this cannot stand here".to_owned(), "remove it".to_owned(), before);
            }
        }
    }

    /// What stands between two entries, the first of which ended at `end`.
    fn separator(&mut self, kind: char, start: usize, end: usize, last: Option<&Entry>) {
        match self.sign() {
            Some(',') => self.take_sign(),
            Some(';') => {
                let at = self.at;
                self.take_sign();
                self.fault(at..self.at, "`;` stands where a comma should".to_owned(), "write `,`".to_owned());
            }
            None | Some(')' | ']' | '}') => {}
            Some(c) if self.stop.is_none() => {
                let value = last.map_or(start..end, |entry| entry.value.span.clone());
                if last.is_some_and(|entry| matches!(entry.value.kind, Kind::Text)) && self.quote_was_left_open(&value)
                {
                    let line_end = self.line_end(value.start).min(value.end);
                    let help = "end it with `\"`; inside a text write a quote as `\\\"`, or the text as r#\"..\"#";
                    let message = "this text does not end where it should".to_owned();
                    self.fatal(value.start..line_end, message, help.to_owned(), value.start);
                } else if c == ':' || c == '=' {
                    let help = match kind {
                        '[' => "a list has values only; names and values stand in `{\"name\": value}`",
                        _ => "write `name: value`",
                    };
                    let at = self.at;
                    self.fatal(at..at + 1, format!("`{c}` cannot stand here"), help.to_owned(), at);
                } else {
                    let help = "write `,` after it".to_owned();
                    self.fault(end..end, "a comma is missing here".to_owned(), help);
                }
            }
            Some(_) => {}
        }
    }

    /// Whether the text before looks as if it had swallowed the next quote: it has several lines, or something sticks to
    /// its end.
    fn quote_was_left_open(&self, text: &Range<usize>) -> bool {
        let token = &self.source[text.clone()];
        let sticks = self.source[text.end..]
            .starts_with(|c: char| is_word(c) || matches!(c, '"' | '\\' | '{' | '.' | '/' | '-'));
        token.starts_with('"') && (sticks || token.contains('\n'))
    }

    fn entry(&mut self, kind: char, depth: usize) -> Entry {
        let start = self.at;
        let key = if kind == '[' { None } else { self.key() };
        if key.is_none() && kind != '[' && self.stop.is_none() {
            let value = self.value(depth + 1);
            if self.stop.is_some() {
                return Entry { key: None, value };
            }
            let end = self.at;
            self.space();
            let sign = self.sign();
            if let (true, Some(c @ (':' | '='))) = (self.may_be_key(&value), sign) {
                let key_is_field = kind == '(';
                self.assign(c);
                if key_is_field && matches!(value.kind, Kind::Text | Kind::Single | Kind::Curly) {
                    let name = text::decode(&self.source[value.span.clone()]).into_owned();
                    let help = format!("write `{}:`", name.trim_matches(|c| c == '\'' || is_curly_quote(c)));
                    self.fault(value.span.clone(), "the name of a field stands without quotes".to_owned(), help);
                }
                let inner = self.assigned(depth);
                return Entry { key: Some(value), value: inner };
            }
            if kind == '(' && matches!(value.kind, Kind::Word) && self.colon_was_forgotten(&value, end) {
                let name = self.source[value.span.clone()].to_owned();
                self.fault(
                    value.span.clone(),
                    format!("a colon is missing after `{name}`"),
                    format!("write `{name}: …`"),
                );
                let inner = self.value(depth + 1);
                return Entry { key: Some(value), value: inner };
            }
            self.at = end;
            return Entry { key: None, value };
        }
        match key {
            Some(key) => {
                let value = self.assigned(depth);
                Entry { key: Some(key), value }
            }
            None => {
                self.at = self.at.max(start);
                Entry { key: None, value: self.value(depth + 1) }
            }
        }
    }

    fn may_be_key(&self, node: &Node) -> bool {
        matches!(node.kind, Kind::Text | Kind::Single | Kind::Curly | Kind::Number | Kind::Word)
    }

    /// `workers 4`: a small name, and a value behind it in the same line.
    fn colon_was_forgotten(&self, word: &Node, end: usize) -> bool {
        self.source[word.span.clone()].starts_with(|c: char| c.is_lowercase())
            && !self.source[end..self.at].contains('\n')
            && self.rest().starts_with(|c: char| matches!(c, '"' | '[' | '{') || c.is_alphanumeric())
    }

    /// The value after the sign between name and value.
    fn assigned(&mut self, depth: usize) -> Node {
        self.space();
        if self.rest().is_empty() && self.stop.is_none() {
            return self.hole("a value is missing here", "write a value, or remove the name before it");
        }
        self.value(depth + 1)
    }

    /// A name with `:` behind it; else nothing is read.
    fn key(&mut self) -> Option<Node> {
        let (start, faults) = (self.at, self.faults.len());
        if !self.rest().starts_with(is_word_start) || self.raw_text_begins(1) {
            return None;
        }
        self.skip_word();
        let end = self.at;
        if !self.rest().starts_with("://") {
            self.space();
            if let (None, Some(c @ (':' | '='))) = (self.stop, self.sign()) {
                self.assign(c);
                return Some(Node { span: start..end, kind: Kind::Word });
            }
        }
        if self.stop.is_none() {
            self.faults.truncate(faults);
            self.at = start;
        }
        None
    }

    /// Takes the sign between name and value.
    fn assign(&mut self, sign: char) {
        let at = self.at;
        self.take_sign();
        if sign == '=' {
            if self.rest().starts_with('>') {
                self.at += 1;
            }
            let message = format!("`{}` stands where a colon should", &self.source[at..self.at]);
            self.fault(at..self.at, message, "write `name: value`".to_owned());
        }
    }

    fn skip_word(&mut self) {
        if self.rest().starts_with("r#") {
            let start = self.at;
            self.at += 2;
            if !self.rest().starts_with(is_word) {
                let help = "write the text as r#\"..\"#".to_owned();
                self.fault(start..self.at, "`r#` begins a text, but no quote follows".to_owned(), help);
            }
        }
        self.skip(is_word);
        // `max-attempts` and `item.id` are one mistake, not two words.
        while self.rest().starts_with(['-', '.', '+']) && self.rest()[1..].starts_with(is_word) {
            self.at += 1;
            self.skip(is_word);
        }
    }

    /// White space and comments, and what people take for them.
    fn space(&mut self) {
        while let Some(c) = self.rest().chars().next() {
            if is_space(c) {
                self.at += c.len_utf8();
            } else if let Some(what) = odd_space(c) {
                let start = self.at;
                self.skip(|c| odd_space(c).is_some());
                let what = format!("there is {what} here");
                self.fault(start..self.at, what, "remove it, or write a plain space".to_owned());
            } else if self.rest().starts_with("//") {
                self.at = self.line_end(self.at);
            } else if self.rest().starts_with("/*") {
                self.block_comment();
            } else if c == '#' {
                let (start, end) = (self.at, self.line_end(self.at));
                self.at = end;
                if self.source[start..].starts_with("#!") {
                    let help = "remove this line: everything that a job file needs is switched on".to_owned();
                    self.fault(start..end, "job files have no `#!` lines".to_owned(), help);
                    if let Some(fault) = self.faults.last_mut() {
                        fault.ours = true;
                    }
                } else {
                    let end = start + 1;
                    self.fault(
                        start..end,
                        "`#` begins no comment here".to_owned(),
                        "begin a comment with `//`".to_owned(),
                    );
                }
            } else {
                break;
            }
        }
    }

    fn block_comment(&mut self) {
        let (start, bytes) = (self.at, self.source.as_bytes());
        let (mut level, mut at) = (0usize, self.at);
        loop {
            match bytes.get(at..at + 2) {
                Some(b"/*") => (level, at) = (level + 1, at + 2),
                Some(b"*/") => (level, at) = (level - 1, at + 2),
                Some(_) => at += 1,
                None => {
                    let message = "this comment is never closed".to_owned();
                    self.fatal(start..start + 2, message, "end it with `*/`".to_owned(), start);
                    return;
                }
            }
            if level == 0 {
                self.at = at;
                return;
            }
        }
    }

    fn comment_begins(&self) -> bool {
        self.rest().starts_with("//") || self.rest().starts_with("/*")
    }

    fn hole(&mut self, message: &str, help: &str) -> Node {
        let before = self.source[..self.at].trim_end().len();
        self.fault(before..before, message.to_owned(), help.to_owned());
        self.node(self.at, Kind::Hole)
    }

    /// The character here, a full-width sign as its plain one.
    fn sign(&self) -> Option<char> {
        self.rest().chars().next().map(|c| plain_sign(c).unwrap_or(c))
    }

    fn take_sign(&mut self) {
        let Some(c) = self.rest().chars().next() else { return };
        let start = self.at;
        self.at += c.len_utf8();
        if let Some(plain) = plain_sign(c) {
            self.fault(start..self.at, format!("`{c}` is a full-width sign"), format!("write `{plain}`"));
        }
    }

    fn skip(&mut self, condition: impl Fn(char) -> bool) {
        let length = self.rest().find(|c| !condition(c)).unwrap_or(self.rest().len());
        self.at += length;
    }

    fn rest(&self) -> &str {
        &self.source[self.at..]
    }

    fn line_end(&self, from: usize) -> usize {
        self.source[from..].find(['\n', '\r']).map_or(self.source.len(), |length| from + length)
    }

    fn node(&self, start: usize, kind: Kind) -> Node {
        Node { span: start..self.at.max(start), kind }
    }

    fn fault(&mut self, span: Range<usize>, message: String, help: String) {
        if self.stop.is_none() && self.faults.len() < PROBLEMS_MAX {
            self.faults.push(Fault { span, message, help, ours: false });
        }
    }

    /// Notes what ends the reading; nothing that ends after `stop` was understood.
    fn fatal(&mut self, span: Range<usize>, message: String, help: String, stop: usize) {
        if self.stop.is_none() {
            self.faults.retain(|fault| fault.span.end <= stop);
            self.faults.push(Fault { span, message, help, ours: false });
            self.stop = Some(stop);
        }
        self.at = self.source.len();
    }
}
