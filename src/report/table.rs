//! Columns of text.

use super::ink::cells;

/// A number with thousands apart: `4,960`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Rows in aligned columns, two spaces before each; columns whose place is in `right` end at the right. An empty header is
/// left out. Colours take no room.
pub fn table(header: &[&str], rows: &[Vec<String>], right: &[usize]) -> String {
    table_within(header, rows, right, None)
}

/// The same, in which the last cell of a row that would pass `width` goes on in the lines below.
pub fn table_within(header: &[&str], rows: &[Vec<String>], right: &[usize], width: Option<usize>) -> String {
    let header: Vec<String> = header.iter().map(|name| (*name).to_owned()).collect();
    let lines: Vec<&Vec<String>> = std::iter::once(&header).filter(|header| !header.is_empty()).chain(rows).collect();
    let columns = lines.iter().map(|line| line.len()).max().unwrap_or(0);
    let widest = |at: usize| lines.iter().filter_map(|line| line.get(at)).map(|cell| cells(cell)).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(widest).collect();
    let mut text = String::new();
    for line in lines {
        let mut row = String::new();
        for (at, cell) in line.iter().enumerate() {
            let pad = " ".repeat(widths[at] - cells(cell));
            row.push_str("  ");
            if right.contains(&at) {
                row.push_str(&pad);
                row.push_str(cell);
            } else if at + 1 == line.len() {
                row = wrapped(&row, cell, width);
            } else {
                row.push_str(cell);
                row.push_str(&pad);
            }
        }
        text.push_str(row.trim_end());
        text.push('\n');
    }
    text
}

/// A text behind what stands before it, broken at spaces so that no line passes `width`; further lines begin below its
/// first word, or a little further in where little room is left. A word that is too long for a line is broken nowhere.
pub fn wrapped(before: &str, text: &str, width: Option<usize>) -> String {
    let mut whole = before.to_owned();
    let Some(width) = width.filter(|width| cells(before) + cells(text) > *width) else {
        whole.push_str(text);
        return whole;
    };
    let indent = if cells(before) + ROOM_MIN > width { DEEP } else { cells(before) };
    let mut at = cells(before);
    let mut begins = true;
    for word in text.split(' ') {
        let long = cells(word);
        if !begins && at + 1 + long > width {
            whole.truncate(whole.trim_end().len());
            whole.push('\n');
            whole.push_str(&" ".repeat(indent));
            (at, begins) = (indent, true);
        }
        if !begins {
            whole.push(' ');
            at += 1;
        }
        whole.push_str(word);
        at += long;
        begins = false;
    }
    whole
}

/// Cells that a broken text needs beside what stands before it.
const ROOM_MIN: usize = 24;

/// Where it goes on when it has fewer.
const DEEP: usize = 4;

/// A name in at most so many cells.
pub fn short(name: &str, most: usize) -> String {
    match cells(name) > most {
        true => format!("{}…", name.chars().take(most.saturating_sub(1)).collect::<String>()),
        false => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_stand_apart() {
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn a_text_that_is_too_long_goes_on_below() {
        let text = "one of the items of this stage is missing";
        assert_eq!(wrapped("  ", text, None), format!("  {text}"));
        assert_eq!(wrapped("  ", text, Some(43)), format!("  {text}"));
        assert_eq!(wrapped("  ", text, Some(32)), "  one of the items of this stage\n  is missing");
        assert_eq!(
            wrapped("0123456789  ", text, Some(36)),
            "0123456789  one of the items of this\n            stage is missing"
        );
        assert_eq!(
            wrapped("0123456789  ", "one two three four five", Some(24)),
            "0123456789  one two\n    three four five"
        );
        assert_eq!(wrapped("", "a averyverylongword b", Some(8)), "a\n    averyverylongword\n    b");
        let rows = [vec!["a".to_owned(), text.to_owned()], vec!["long".to_owned(), "short".to_owned()]];
        let table = table_within(&[], &rows, &[], Some(34));
        assert_eq!(table, "  a     one of the items of this\n        stage is missing\n  long  short\n");
    }

    #[test]
    fn a_name_that_is_too_long_says_so() {
        assert_eq!([short("vitals", 6), short("vitals", 5), short("vitals", 1)], ["vitals", "vita…", "…"]);
    }
}
