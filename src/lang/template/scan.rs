//! Cuts the text of a template into its pieces and their words: what minijinja's public parser does not tell.

use std::ops::Range;

/// A piece of a template.
pub struct Piece {
    /// What it is.
    pub kind: Kind,
    /// Bytes of the text, with the braces.
    pub range: Range<usize>,
    /// Words inside the braces; none for text.
    pub words: Vec<Word>,
}

/// What a piece is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Given out as it stands.
    Text,
    /// `{{ … }}`
    Expression,
    /// `{% … %}`
    Block,
}

/// A word of an expression.
pub struct Word {
    /// What it is.
    pub kind: WordKind,
    /// Bytes of the text.
    pub range: Range<usize>,
}

/// What a word is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WordKind {
    /// A name.
    Name,
    /// A quoted text or a number.
    Literal,
    /// Any other character.
    Sign,
}

/// The pieces of a text in their order. Comments are left out, what `raw` blocks hold is text. Never fails: of a text with
/// errors it gives what it can, minijinja refuses such a text.
pub fn pieces(text: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < text.len() {
        // Looked for once from here, not once for each kind: a long text without comments would be read at each piece.
        let mut braces = text[at..].match_indices('{').map(|(open, _)| at + open);
        let open = braces.find(|open| matches!(text.as_bytes().get(open + 1), Some(b'{' | b'%' | b'#')));
        let Some(open) = open else {
            push_text(&mut pieces, at..text.len());
            break;
        };
        push_text(&mut pieces, at..open);
        let (kind, close) = match &text[open..open + 2] {
            "{{" => (Kind::Expression, "}}"),
            "{%" => (Kind::Block, "%}"),
            _ => {
                at = text[open..].find("#}").map_or(text.len(), |end| open + end + 2);
                continue;
            }
        };
        let (words, end) = words(text, open + 2, close);
        let raw = kind == Kind::Block && words.len() == 1 && &text[words[0].range.clone()] == "raw";
        if raw {
            let (inside, after) = end_of_raw(text, end);
            push_text(&mut pieces, end..inside);
            at = after;
            continue;
        }
        pieces.push(Piece { kind, range: open..end, words });
        at = end;
    }
    pieces
}

impl Piece {
    /// How deep its words can nest when they are parsed, at most: those between two commas count, a bracket counts as the
    /// deepest of what stands between its commas.
    pub fn depth(&self, text: &str) -> usize {
        // For each open bracket: words since the last comma, and the most so far.
        let mut open = vec![(0, 0)];
        for word in &self.words {
            let last = open.len() - 1;
            match &text[word.range.clone()] {
                "(" | "[" | "{" => open.push((0, 0)),
                ")" | "]" | "}" if last > 0 => {
                    let (since, most): (usize, usize) = open.pop().unwrap_or_default();
                    open[last - 1].0 += 1 + since.max(most);
                }
                "," => open[last] = (0, open[last].0.max(open[last].1)),
                _ => open[last].0 += 1,
            }
        }
        open.iter().map(|(since, most)| since.max(most)).sum()
    }

    /// The keyword of a block.
    pub fn keyword<'a>(&self, text: &'a str) -> Option<&'a str> {
        let word = self.words.first().filter(|_| self.kind == Kind::Block)?;
        Some(&text[word.range.clone()])
    }
}

fn push_text(pieces: &mut Vec<Piece>, range: Range<usize>) {
    if !range.is_empty() {
        pieces.push(Piece { kind: Kind::Text, range, words: Vec::new() });
    }
}

/// Where a raw block's text ends, and where its end tag does.
fn end_of_raw(text: &str, from: usize) -> (usize, usize) {
    let mut at = from;
    while let Some(open) = text[at..].find("{%").map(|open| at + open) {
        let (words, end) = words(text, open + 2, "%}");
        if words.len() == 1 && &text[words[0].range.clone()] == "endraw" {
            return (open, end);
        }
        at = open + 2;
    }
    (text.len(), text.len())
}

/// Words up to `close`, and where that ends. The signs that trim white space are no words.
fn words(text: &str, from: usize, close: &str) -> (Vec<Word>, usize) {
    let mut words = Vec::new();
    let mut at = from;
    if text[at..].starts_with(['-', '+']) {
        at += 1;
    }
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        if rest.starts_with(close) {
            return (words, at + 2);
        }
        if rest.starts_with('-') && rest[1..].starts_with(close) {
            return (words, at + 3);
        }
        let (kind, length) = match c {
            c if c.is_whitespace() => {
                at += c.len_utf8();
                continue;
            }
            '"' | '\'' => (WordKind::Literal, quoted(rest, c)),
            c if c.is_ascii_digit() => {
                (WordKind::Literal, rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len()))
            }
            c if c.is_alphabetic() || c == '_' => {
                (WordKind::Name, rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len()))
            }
            c => (WordKind::Sign, c.len_utf8()),
        };
        words.push(Word { kind, range: at..at + length });
        at += length;
    }
    (words, text.len())
}

/// Length of a quoted text with its quotes.
fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<(Kind, &str, Vec<&str>)> {
        let word = |w: &Word| &text[w.range.clone()];
        pieces(text).iter().map(|p| (p.kind, &text[p.range.clone()], p.words.iter().map(word).collect())).collect()
    }

    #[test]
    fn a_text_is_cut_into_pieces_and_words() {
        assert_eq!(
            shown("a {{- item.id|url -}} b{# {{ no }} #}{% if x == \"}}\" %}c"),
            [
                (Kind::Text, "a ", vec![]),
                (Kind::Expression, "{{- item.id|url -}}", vec!["item", ".", "id", "|", "url"]),
                (Kind::Text, " b", vec![]),
                (Kind::Block, "{% if x == \"}}\" %}", vec!["if", "x", "=", "=", "\"}}\""]),
                (Kind::Text, "c", vec![]),
            ]
        );
        assert_eq!(
            shown("{% raw %}{{ a }}{% endraw %}{{ 1.5e3 }}"),
            [(Kind::Text, "{{ a }}", vec![]), (Kind::Expression, "{{ 1.5e3 }}", vec!["1", ".", "5e3"])]
        );
        assert!(shown("").is_empty());
    }

    #[test]
    fn the_depth_of_an_expression_is_that_of_its_longest_way_down() {
        let depth = |text: &str| pieces(text)[0].depth(text);
        assert_eq!(depth("{{ a }}"), 1);
        assert_eq!(depth("{{ 1 + 1 + 1 }}"), 5);
        assert_eq!(depth("{{ [1, 2, 3, 1 + 1] }}"), 4);
        assert_eq!(depth("{{ f(1 + 1) + f(1) }}"), 1 + 4 + 1 + 1 + 2);
        assert_eq!(depth("{{ ((1 }} }}"), 1, "what is never closed is refused later");
        assert_eq!(depth("{{ )) }}"), 2);
    }

    proptest::proptest! {
        #[test]
        fn every_text_can_be_cut(text in "[\\PC\n{}%#'\"-]{0,40}") {
            for piece in pieces(&text) {
                let _ = (&text[piece.range.clone()], piece.depth(&text), piece.keyword(&text));
                for word in piece.words {
                    let _ = &text[word.range];
                }
            }
        }
    }
}
