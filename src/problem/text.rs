//! Texts as they stand in a file: `"…"` with escapes and `r#"…"#`. Decodes them, finds a bad escape, and maps a place
//! inside the decoded text back to the file. Called by the tolerant parser and by `locate`; never fails, never decides.

use std::borrow::Cow;
use std::ops::Range;

/// What stands between the quotes of a token, as a range in the token. A token of another kind is taken whole.
fn inside(token: &str) -> (Range<usize>, bool) {
    if let Some(hashed) = token.strip_prefix('r') {
        let hashes = hashed.len() - hashed.trim_start_matches('#').len();
        let (start, end) = (hashes + 2, token.len().saturating_sub(hashes + 1));
        if token.as_bytes().get(hashes + 1) == Some(&b'"') && start <= end {
            return (start..end, true);
        }
    } else if token.len() >= 2 && token.starts_with('"') && token.ends_with('"') {
        return (1..token.len() - 1, false);
    }
    (0..token.len(), true)
}

/// The decoded text of a token. A bad escape stands for itself.
pub(super) fn decode(token: &str) -> Cow<'_, str> {
    let (range, raw) = inside(token);
    let text = &token[range];
    if raw || !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut decoded = String::with_capacity(text.len());
    walk(text, |piece, value| {
        match value {
            Ok(value) => decoded.extend(value),
            Err(()) => decoded.push_str(&text[piece]),
        }
        true
    });
    Cow::Owned(decoded)
}

/// Where the first escape that does not exist stands in the token.
pub(super) fn bad_escape(token: &str) -> Option<Range<usize>> {
    let (range, raw) = inside(token);
    let (text, mut bad) = (&token[range.clone()], None);
    if !raw && text.contains('\\') {
        walk(text, |piece, value| {
            if value.is_err() {
                bad = Some(range.start + piece.start..range.start + piece.end);
            }
            value.is_ok()
        });
    }
    bad
}

/// Where the byte `offset` of the decoded text stands in the token. An offset past the end is the closing quote.
pub(super) fn offset_in_token(token: &str, offset: usize) -> usize {
    let (range, raw) = inside(token);
    let text = &token[range.clone()];
    if raw || !text.contains('\\') {
        let mut offset = offset.min(text.len());
        while !text.is_char_boundary(offset) {
            offset -= 1;
        }
        return range.start + offset;
    }
    let (mut length, mut found) = (0, None);
    walk(text, |piece, value| {
        let piece_length = value.map_or(piece.len(), |c| c.map_or(0, char::len_utf8));
        if length + piece_length > offset {
            found = Some(range.start + piece.start);
        }
        length += piece_length;
        found.is_none()
    });
    found.unwrap_or(range.end)
}

/// Gives each character or escape of a plain text with its range: the character it stands for, none for a line that is
/// continued, an error for an escape that does not exist. Ends when `each` says false.
fn walk(text: &str, mut each: impl FnMut(Range<usize>, Result<Option<char>, ()>) -> bool) {
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let (length, value) = if c == '\\' { escape(&text[at..]) } else { (c.len_utf8(), Ok(Some(c))) };
        if !each(at..at + length, value) {
            return;
        }
        at += length;
    }
}

/// Reads the escape at the beginning of `text`: how long it is and what it stands for.
fn escape(text: &str) -> (usize, Result<Option<char>, ()>) {
    let rest = &text[1..];
    let Some(c) = rest.chars().next() else { return (1, Err(())) };
    let bad = (1 + c.len_utf8(), Err(()));
    let simple = match c {
        '\'' | '"' | '\\' => c,
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        '0' => '\0',
        'x' => return bytes(text).unwrap_or(bad),
        'u' => return unicode(text).unwrap_or(bad),
        '\n' | '\r' => {
            let Some(line) = rest.strip_prefix("\r\n").or_else(|| rest.strip_prefix('\n')) else { return bad };
            let next = line.trim_start_matches([' ', '\t', '\n', '\r']);
            return (text.len() - next.len(), Ok(None));
        }
        _ => return bad,
    };
    (2, Ok(Some(simple)))
}

/// `\xNN`, up to four of them for one character.
fn bytes(text: &str) -> Option<(usize, Result<Option<char>, ()>)> {
    let mut read = Vec::with_capacity(4);
    for at in (0..16).step_by(4) {
        let digits = text.get(at..at + 4)?.strip_prefix("\\x")?;
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        read.push(u8::from_str_radix(digits, 16).ok()?);
        if let Some(c) = std::str::from_utf8(&read).ok().and_then(|s| s.chars().next()) {
            return Some((at + 4, Ok(Some(c))));
        }
    }
    None
}

/// `\u{N…}`.
fn unicode(text: &str) -> Option<(usize, Result<Option<char>, ()>)> {
    let digits = text.strip_prefix("\\u{")?;
    let end = digits.find('}').filter(|end| (1..=6).contains(end))?;
    if !digits[..end].bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let c = u32::from_str_radix(&digits[..end], 16).ok().and_then(char::from_u32)?;
    Some((end + 4, Ok(Some(c))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_decoded_as_ron_decodes_them() {
        for token in [
            r#""plain""#,
            r#""""#,
            r#""a\n\t\\\"b\'\r\0""#,
            r#""\u{48}\u{1F600}x\x41\xc3\xa9""#,
            "\"a\\\n   b\\\r\n  \n c\"",
            r##"r#"raw "x" \d"#"##,
            r#"r"raw""#,
        ] {
            assert_eq!(Ok(decode(token).into_owned()), ron::from_str::<String>(token), "{token}");
            assert_eq!(bad_escape(token), None);
        }
    }

    #[test]
    fn a_bad_escape_is_found_where_it_stands() {
        for (token, bad) in [
            (r#""a\d+""#, r"\d"),
            (r#""\x4""#, r"\x"),
            (r#""\xff""#, r"\x"),
            (r#""\u{110000}""#, r"\u"),
            (r#""\u{}""#, r"\u"),
            (r#""\é""#, r"\é"),
        ] {
            assert_eq!(bad_escape(token).map(|r| &token[r]), Some(bad), "{token}");
            assert!(ron::from_str::<String>(token).is_err());
        }
    }

    #[test]
    fn a_place_in_a_text_is_found_in_the_file() {
        for (token, needle) in
            [(r#""a\n\u{48}b|c""#, '|'), (r##"r#"x"y|z"#"##, '|'), ("\"é|\"", '|'), ("\"a\\\n  |\"", '|')]
        {
            let offset = decode(token).find(needle).expect("there");
            assert_eq!(Some(offset_in_token(token, offset)), token.find(needle), "{token}");
        }
        assert_eq!(offset_in_token(r#""abc""#, 99), 4);
        assert_eq!(offset_in_token("\"é\"", 1), 1);
    }
}
