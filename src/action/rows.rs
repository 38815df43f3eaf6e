//! Cuts blocks of a file into rows: lines, csv records, elements of a JSON array. Pure, and in flat memory: of a row that
//! is too long nothing is kept but that it was there.

/// Something that takes a file block by block and gives its rows.
pub(super) trait Cutter: Send {
    /// Takes the next block.
    ///
    /// # Errors
    /// A sentence when the file is broken from here on.
    fn push(&mut self, block: &[u8], rows: &mut Vec<Row>) -> Result<(), String>;
    /// The file has ended.
    ///
    /// # Errors
    /// As [`Cutter::push`].
    fn end(&mut self, rows: &mut Vec<Row>) -> Result<(), String>;
}

/// One row and the line on which it began, from 1.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// From 1.
    pub line: u64,
    /// What it is.
    pub content: Content,
}

/// What a row is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// The bytes of a line without its end, or of a JSON value.
    Bytes(Vec<u8>),
    /// The fields of a csv record.
    Fields(Vec<Vec<u8>>),
    /// It breaks the rules of csv.
    Malformed(&'static str),
    /// It is longer than the limit.
    TooLarge,
}

/// The byte order mark that some programs put before a text.
pub(super) const BOM: &[u8] = b"\xef\xbb\xbf";

/// Lines.
pub(super) struct Lines {
    max: usize,
    line: u64,
    bytes: Vec<u8>,
    too_large: bool,
    begun: bool,
}

impl Lines {
    /// Lines of at most `max` bytes.
    pub fn new(max: usize) -> Lines {
        Lines { max, line: 1, bytes: Vec::new(), too_large: false, begun: false }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.begun |= !bytes.is_empty();
        if self.too_large || self.bytes.len() + bytes.len() > self.max {
            self.too_large = true;
            self.bytes = Vec::new();
            return;
        }
        self.bytes.extend_from_slice(bytes);
    }

    fn give(&mut self, rows: &mut Vec<Row>) {
        let mut bytes = std::mem::take(&mut self.bytes);
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
        if self.line == 1 && bytes.starts_with(BOM) {
            bytes.drain(..BOM.len());
        }
        let content = if self.too_large { Content::TooLarge } else { Content::Bytes(bytes) };
        rows.push(Row { line: self.line, content });
        self.line += 1;
        (self.too_large, self.begun) = (false, false);
    }
}

impl Cutter for Lines {
    fn push(&mut self, mut block: &[u8], rows: &mut Vec<Row>) -> Result<(), String> {
        while let Some(end) = block.iter().position(|byte| *byte == b'\n') {
            self.take(&block[..end]);
            self.give(rows);
            block = &block[end + 1..];
        }
        self.take(block);
        Ok(())
    }

    fn end(&mut self, rows: &mut Vec<Row>) -> Result<(), String> {
        if self.begun {
            self.give(rows);
        }
        Ok(())
    }
}

/// Records of a csv file (RFC 4180, lines ended by LF or CRLF). Blank lines are no records.
pub(super) struct Csv {
    delimiter: u8,
    max: usize,
    line: u64,
    begun_at: u64,
    state: Place,
    fields: Vec<Vec<u8>>,
    field: Vec<u8>,
    size: usize,
    wrong: Option<Content>,
    /// The last byte ended a line.
    ends_line: bool,
}

/// Where in a record the next byte stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    RecordStart,
    FieldStart,
    Plain,
    Quoted,
    /// Behind a quote inside quotes: the end of the field, or the first half of `""`.
    QuoteInQuoted,
}

impl Csv {
    /// Records of at most `max` bytes.
    pub fn new(delimiter: u8, max: usize) -> Csv {
        Csv {
            delimiter,
            max,
            line: 1,
            begun_at: 1,
            state: Place::RecordStart,
            fields: Vec::new(),
            field: Vec::new(),
            size: 0,
            wrong: None,
            ends_line: false,
        }
    }

    fn keep(&mut self, byte: u8) {
        self.size += 1;
        if self.size > self.max {
            self.fields = Vec::new();
            self.field = Vec::new();
            self.wrong = Some(Content::TooLarge);
        } else if self.wrong.is_none() {
            self.field.push(byte);
        }
    }

    fn end_field(&mut self) {
        // A field costs memory also when it is empty.
        self.size += size_of::<Vec<u8>>();
        if self.size > self.max && self.wrong.is_none() {
            self.fields = Vec::new();
            self.wrong = Some(Content::TooLarge);
        }
        let field = std::mem::take(&mut self.field);
        if self.wrong.is_none() {
            self.fields.push(field);
        }
    }

    fn end_record(&mut self, rows: &mut Vec<Row>) {
        if self.state != Place::RecordStart {
            if matches!(self.state, Place::Plain) && self.field.last() == Some(&b'\r') {
                self.field.pop();
            }
            let blank =
                self.wrong.is_none() && self.state == Place::Plain && self.fields.is_empty() && self.field.is_empty();
            self.end_field();
            let fields = std::mem::take(&mut self.fields);
            let content = self.wrong.take().unwrap_or(Content::Fields(fields));
            if !blank {
                rows.push(Row { line: self.begun_at, content });
            }
        }
        (self.state, self.size) = (Place::RecordStart, 0);
        self.field.clear();
    }

    fn malformed(&mut self, why: &'static str) {
        if self.wrong.is_none() {
            self.wrong = Some(Content::Malformed(why));
        }
        self.field = Vec::new();
        self.fields = Vec::new();
    }

    fn byte(&mut self, byte: u8, rows: &mut Vec<Row>) {
        let line_end = byte == b'\n';
        match self.state {
            Place::Quoted if byte == b'"' => self.state = Place::QuoteInQuoted,
            Place::Quoted => self.keep(byte),
            Place::QuoteInQuoted if byte == b'"' => {
                self.keep(byte);
                self.state = Place::Quoted;
            }
            // The rest of the line is what is lost by a stray quote, not the rest of the file.
            _ if line_end => self.end_record(rows),
            Place::QuoteInQuoted if byte == self.delimiter => {
                self.end_field();
                self.state = Place::FieldStart;
            }
            Place::QuoteInQuoted if byte == b'\r' => {}
            Place::QuoteInQuoted => {
                self.malformed("text stands behind a closing quote");
                self.state = Place::Plain;
            }
            Place::RecordStart | Place::FieldStart | Place::Plain if byte == self.delimiter => {
                self.end_field();
                self.state = Place::FieldStart;
            }
            Place::RecordStart | Place::FieldStart if byte == b'"' => self.state = Place::Quoted,
            Place::RecordStart | Place::FieldStart | Place::Plain => {
                if byte == b'"' {
                    self.malformed("a quote stands inside a field that is not quoted");
                }
                self.keep(byte);
                self.state = Place::Plain;
            }
        }
        self.line += u64::from(line_end);
        if self.state == Place::RecordStart {
            self.begun_at = self.line;
        }
    }
}

impl Cutter for Csv {
    fn push(&mut self, block: &[u8], rows: &mut Vec<Row>) -> Result<(), String> {
        for byte in block {
            self.byte(*byte, rows);
        }
        self.ends_line = block.last().map_or(self.ends_line, |byte| *byte == b'\n');
        Ok(())
    }

    fn end(&mut self, rows: &mut Vec<Row>) -> Result<(), String> {
        if matches!(self.state, Place::Quoted) {
            // A last line alone is one bad row; else the rows behind the quote are inside it, and nobody knows how many.
            if self.line > self.begun_at + u64::from(self.ends_line) {
                return Err(format!(
                    "line {}: a quote is opened and never closed: the rows after it are lost",
                    self.begun_at
                ));
            }
            self.malformed("a quote is opened and never closed");
        }
        self.end_record(rows);
        Ok(())
    }
}

/// Elements of a JSON array, each as its bytes; any other value is one row.
pub(super) struct Elements {
    max: usize,
    line: u64,
    state: Json,
    begun_at: u64,
    bytes: Vec<u8>,
    too_large: bool,
    depth: usize,
    in_text: bool,
    escaped: bool,
    given: bool,
    bom: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Json {
    /// Before the first byte of the value.
    Start,
    /// Inside the array.
    Array,
    /// The file is one value that is no array.
    Single,
    /// Behind the array.
    Done,
}

impl Elements {
    /// Elements of at most `max` bytes.
    pub fn new(max: usize) -> Elements {
        Elements {
            max,
            line: 1,
            state: Json::Start,
            begun_at: 1,
            bytes: Vec::new(),
            too_large: false,
            depth: 0,
            in_text: false,
            escaped: false,
            given: false,
            bom: 0,
        }
    }

    fn keep(&mut self, byte: u8) {
        if self.bytes.is_empty() && !self.too_large {
            if byte.is_ascii_whitespace() {
                return;
            }
            self.begun_at = self.line;
        }
        if self.too_large || self.bytes.len() >= self.max {
            self.too_large = true;
            self.bytes = Vec::new();
        } else {
            self.bytes.push(byte);
        }
    }

    fn give(&mut self, rows: &mut Vec<Row>) -> Result<(), String> {
        if self.bytes.is_empty() && !self.too_large {
            return Err(format!("line {}: a value is missing", self.line));
        }
        let bytes = std::mem::take(&mut self.bytes);
        let content = if self.too_large { Content::TooLarge } else { Content::Bytes(bytes) };
        rows.push(Row { line: self.begun_at, content });
        (self.too_large, self.given) = (false, true);
        Ok(())
    }

    fn array_byte(&mut self, byte: u8, rows: &mut Vec<Row>) -> Result<(), String> {
        if self.in_text {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_text = false,
                _ => {}
            }
            self.keep(byte);
            return Ok(());
        }
        match byte {
            b'"' => self.in_text = true,
            b'[' | b'{' => self.depth += 1,
            b',' if self.depth == 0 => return self.give(rows),
            b']' if self.depth == 0 => {
                self.state = Json::Done;
                let empty = !self.given && self.bytes.is_empty() && !self.too_large;
                return if empty { Ok(()) } else { self.give(rows) };
            }
            b']' | b'}' => {
                let Some(depth) = self.depth.checked_sub(1) else {
                    return Err(format!("line {}: a `}}` closes nothing", self.line));
                };
                self.depth = depth;
            }
            _ => {}
        }
        self.keep(byte);
        Ok(())
    }
}

impl Cutter for Elements {
    fn push(&mut self, block: &[u8], rows: &mut Vec<Row>) -> Result<(), String> {
        for byte in block {
            match self.state {
                Json::Start if BOM.get(self.bom) == Some(byte) => self.bom += 1,
                Json::Start if byte.is_ascii_whitespace() => {}
                Json::Start if *byte == b'[' => self.state = Json::Array,
                Json::Start => {
                    self.state = Json::Single;
                    self.keep(*byte);
                }
                Json::Array => self.array_byte(*byte, rows)?,
                Json::Single => self.keep(*byte),
                Json::Done if byte.is_ascii_whitespace() => {}
                Json::Done => return Err(format!("line {}: something stands behind the array", self.line)),
            }
            self.line += u64::from(*byte == b'\n');
        }
        Ok(())
    }

    fn end(&mut self, rows: &mut Vec<Row>) -> Result<(), String> {
        match self.state {
            Json::Start => Err("the file is empty".into()),
            Json::Array => Err(format!("line {}: the file ends inside its array", self.line)),
            Json::Single => self.give(rows),
            Json::Done => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(mut cutter: impl Cutter, text: &[u8], block: usize) -> (Vec<Row>, Result<(), String>) {
        let mut rows = Vec::new();
        let result = text
            .chunks(block.max(1))
            .try_for_each(|block| cutter.push(block, &mut rows))
            .and_then(|()| cutter.end(&mut rows));
        (rows, result)
    }

    fn shown(rows: &[Row]) -> Vec<String> {
        rows.iter()
            .map(|row| match &row.content {
                Content::Bytes(bytes) => format!("{}:{}", row.line, String::from_utf8_lossy(bytes)),
                Content::Fields(fields) => {
                    let fields: Vec<_> = fields.iter().map(|field| String::from_utf8_lossy(field)).collect();
                    format!("{}:{}", row.line, fields.join("|"))
                }
                Content::Malformed(_) => format!("{}:malformed", row.line),
                Content::TooLarge => format!("{}:too large", row.line),
            })
            .collect()
    }

    #[test]
    fn csv_rows_are_cut_and_a_bad_one_harms_only_itself() {
        let text = "a,b\r\n\n1,\"x,\"\"y\"\"\nz\"\n2,q\"r\n\"3\"x,4\n,\n5,6";
        for block in [1, 3, 100] {
            let (rows, _) = cut(Csv::new(b',', 1000), text.as_bytes(), block);
            assert_eq!(
                shown(&rows),
                ["1:a|b", "3:1|x,\"y\"\nz", "5:malformed", "6:malformed", "7:|", "8:5|6"],
                "{block}"
            );
        }
    }

    #[test]
    fn a_row_without_end_is_skipped_in_flat_memory() {
        let mut text = b"a,b\n".to_vec();
        text.extend(std::iter::repeat_n(b'x', 5000));
        text.extend(b"\n1,2\n");
        text.extend(std::iter::repeat_n(b',', 5000));
        text.extend(b"\n3,4\n\"5,6\n7,8\n");
        let (rows, end) = cut(Csv::new(b',', 100), &text, 64);
        assert_eq!(shown(&rows), ["1:a|b", "2:too large", "3:1|2", "4:too large", "5:3|4"]);
        assert!(end.is_err_and(|why| why.contains("line 6: a quote is opened and never closed")));
        let (rows, end) = cut(Csv::new(b',', 100), b"a\n\"5\n", 64);
        assert_eq!((shown(&rows).len(), end), (2, Ok(())), "nothing can be lost behind it");
        let (rows, _) = cut(Lines::new(100), &text, 64);
        assert_eq!(shown(&rows)[1..3], ["2:too large", "3:1,2"]);
    }

    #[test]
    fn lines_lose_their_ends_and_the_mark_before_them() {
        let (rows, _) = cut(Lines::new(100), "\u{feff}a\r\n\nb".as_bytes(), 2);
        assert_eq!(shown(&rows), ["1:a", "2:", "3:b"]);
        assert!(cut(Lines::new(100), b"", 1).0.is_empty());
    }

    #[test]
    fn an_array_is_its_elements_and_anything_else_one_value() {
        let text = " [ {\"a\": [1, \"]},\\\"\"]},\n2 , \"x\", [] ] \n";
        for block in [1, 4, 100] {
            let (rows, end) = cut(Elements::new(100), text.as_bytes(), block);
            assert_eq!(end, Ok(()));
            assert_eq!(shown(&rows), ["1:{\"a\": [1, \"]},\\\"\"]}", "2:2 ", "2:\"x\"", "2:[] "]);
        }
        assert_eq!(shown(&cut(Elements::new(100), "\u{feff}{\"a\": 1}\n".as_bytes(), 3).0), ["1:{\"a\": 1}\n"]);
        assert_eq!(cut(Elements::new(100), b"[]", 1), (vec![], Ok(())));
        for broken in ["", "[1,", "[1,]", "[,1]", "[1] 2", "[1}]"] {
            assert!(cut(Elements::new(100), broken.as_bytes(), 1).1.is_err(), "{broken}");
        }
        let long = format!("[\"{}\", 1]", "x".repeat(500));
        assert_eq!(shown(&cut(Elements::new(100), long.as_bytes(), 7).0), ["1:too large", "1:1"]);
    }

    proptest! {
        #[test]
        fn what_the_csv_crate_writes_is_read_back(
            rows in proptest::collection::vec(proptest::collection::vec("[ab,;\"\n\r' ]{0,4}", 2..4), 0..6),
            block in 1usize..9,
        ) {
            let mut writer = csv::WriterBuilder::new().flexible(true).from_writer(Vec::new());
            for row in &rows {
                writer.write_record(row).expect("writes");
            }
            let text = writer.into_inner().expect("flushes");
            let (cut, _) = cut(Csv::new(b',', 10_000), &text, block);
            let fields: Vec<Vec<String>> = cut
                .into_iter()
                .map(|row| match row.content {
                    Content::Fields(fields) => {
                        fields.into_iter().map(|field| String::from_utf8(field).expect("UTF-8")).collect()
                    }
                    other => vec![format!("{other:?}")],
                })
                .collect();
            prop_assert_eq!(fields, rows);
        }
    }
}
