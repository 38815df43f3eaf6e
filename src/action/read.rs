//! `Read`: lists the rows, lines or values of a file, or the names of files.
//!
//! Everything is streamed: memory stays flat for a file of any size, and for a line without an end. One bad row is one
//! failed item, named by file and line and without its content; the listing goes on.

use super::{
    Acted, Action, Checked, Gives, ItemContext, Out, Place, Stop,
    files::{self, Blocks, cause},
    find::find_files,
    rows::{BOM, Content, Csv, Cutter, Elements, Lines, Row},
};
use crate::{
    item::{Class, Failure, Value, hex, parse_json},
    lang::{Checker, Facts, Flavor, Template},
    limits::{CSV_COLUMNS_MAX, DEPTH_MAX, READ_BLOCK_BYTES},
    world::BoxFuture,
};
use sha2::{Digest, Sha256};
use std::{
    collections::HashSet,
    io,
    path::{Path, PathBuf},
};

crate::spec! {
    /// Lists rows, lines or values of a file, or names of files. Names are templates, relative to the job file.
    pub struct ReadSpec as "Read" {
        /// A csv file with a header; every value is a text.
        csv: Option<String>, example "\"vendor-sync/patients.csv\"";
        /// What separates the fields of the csv file.
        delimiter: Option<String>, default "found from the header", example "\";\"";
        /// A file with one JSON value a line.
        ndjson: Option<String>, example "\"queue.ndjson\"";
        /// A JSON file; an array is its elements.
        json: Option<String>, example "\"sites.json\"";
        /// A text file, one text a line.
        lines: Option<String>, example "\"ids.txt\"";
        /// Files whose names fit a pattern: path, name, stem, size, modified.
        glob: Option<String>, example "\"/data/gait/*.mov\"";
        /// With `glob`: also the file's sha256.
        digest: Option<bool>, default "false", example "true";
        /// Puts the list into this field of the value.
        into: Option<String>, example "\"rows\"";
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Csv(Option<u8>),
    Ndjson,
    Json,
    Lines,
    Glob { digest: bool },
}

struct Read {
    kind: Kind,
    name: Template,
}

/// See [`super::check`].
pub(super) fn check(spec: &ReadSpec, path: &str, _place: &Place<'_>, checker: &mut Checker<'_>) -> Option<Checked> {
    let delimiter = match spec.delimiter.as_deref().map(str::as_bytes) {
        None => None,
        Some(&[byte]) if byte != b'"' && byte != b'\n' && byte != b'\r' => Some(byte),
        Some(_) => {
            let help = "write `delimiter: \",\"`, `\";\"` or `\"\\t\"`";
            checker.error(&format!("{path}.delimiter"), "a delimiter is one plain character", Some(help));
            return None;
        }
    };
    let said: Vec<(Kind, &str, &String)> = [
        (Kind::Csv(delimiter), "csv", &spec.csv),
        (Kind::Ndjson, "ndjson", &spec.ndjson),
        (Kind::Json, "json", &spec.json),
        (Kind::Lines, "lines", &spec.lines),
        (Kind::Glob { digest: spec.digest.unwrap_or(false) }, "glob", &spec.glob),
    ]
    .into_iter()
    .filter_map(|(kind, field, text)| Some((kind, field, text.as_ref()?)))
    .collect();
    let [(kind, field, text)] = said[..] else {
        let help =
            "write exactly one of `csv:`, `ndjson:`, `json:`, `lines:` and `glob:`, as in `csv: \"patients.csv\"`";
        let fields: Vec<String> = said.iter().map(|(_, field, _)| format!("`{field}`")).collect();
        let message = match fields.is_empty() {
            true => "nothing says what is read".to_owned(),
            false => format!("{} say what is read, and only one can", fields.join(" and ")),
        };
        checker.error(path, message, Some(help));
        return None;
    };
    if delimiter.is_some() && !matches!(kind, Kind::Csv(_)) {
        checker.error(&format!("{path}.delimiter"), "only csv has a delimiter", Some("leave it out"));
        return None;
    }
    if spec.digest.is_some() && !matches!(kind, Kind::Glob { .. }) {
        checker.error(&format!("{path}.digest"), "only files listed by glob have a digest", Some("leave it out"));
        return None;
    }
    let at = format!("{path}.{field}");
    let name = checker.template_or_literal(&at, text, Flavor::Text)?;
    if let Some(secret) = name.secrets_used().first() {
        checker.error(
            &at,
            format!("the secret `{secret}` would stand in the name of a file"),
            Some("leave it out: names are seen by others"),
        );
        return None;
    }
    if name.is_literal() {
        check_input(kind, text, &at, checker)?;
    }
    let gives = Gives::named(spec.into.as_ref(), true);
    Some(Checked { kind: "Read", action: Box::new(Read { kind, name }), gives, writes: false })
}

/// Looks at a file whose name is known: whether it is there, and what columns it has.
fn check_input(kind: Kind, name: &str, at: &str, checker: &mut Checker<'_>) -> Option<()> {
    if matches!(kind, Kind::Glob { .. }) {
        if let Err(error) = glob::Pattern::new(name) {
            checker.error(
                at,
                format!("this pattern cannot be read: {}", error.msg),
                Some("write a pattern such as \"data/*.csv\""),
            );
            return None;
        }
        return Some(());
    }
    let file = checker.input(at, name);
    let Kind::Csv(delimiter) = kind else { return Some(()) };
    if !file.exists() {
        return Some(());
    }
    match head(&file, delimiter) {
        Ok((columns, first)) => {
            if let Some(fields) = first.filter(|fields| *fields != columns.len()) {
                let message =
                    format!("the first row of `{name}` has {fields} fields, its header has {}", columns.len());
                checker.remark(at, message, Some("mend the file, or say its delimiter"));
            }
            Some(())
        }
        Err(message) => {
            checker.error(at, format!("`{name}`: {message}"), Some("mend the file"));
            None
        }
    }
}

/// The columns of the csv file that `spec` reads, where it is there and its name is no template: the fields of the items
/// of a source whose only action it is. Blocks.
pub(super) fn columns(spec: &ReadSpec, base_dir: &Path) -> Option<Vec<String>> {
    let name = spec.csv.as_ref().filter(|name| !name.contains("{{") && spec.into.is_none())?;
    let delimiter = spec.delimiter.as_ref().and_then(|text| text.bytes().next());
    head(&base_dir.join(name), delimiter).ok().map(|(columns, _)| columns)
}

/// Columns of a csv file, and how many fields its first row has.
fn head(file: &Path, delimiter: Option<u8>) -> Result<(Vec<String>, Option<usize>), String> {
    let mut file = files::open_regular(file)?;
    let mut block = vec![0; READ_BLOCK_BYTES];
    let count = files::read_some(&mut file, &mut block).map_err(|error| cause(&error))?;
    let block = without_bom(&block[..count]);
    let mut cutter = Csv::new(delimiter.unwrap_or_else(|| find_delimiter(block)), READ_BLOCK_BYTES);
    let mut rows = Vec::new();
    cutter.push(block, &mut rows)?;
    // What is wrong behind the header is said when it is read: it is the failure of a run, or of a row.
    let whole = count < READ_BLOCK_BYTES;
    if whole
        && let Err(why) = cutter.end(&mut rows)
        && rows.is_empty()
    {
        return Err(why);
    }
    let mut rows = rows.into_iter();
    let columns = header(rows.next())?;
    let first = rows.next().and_then(|row| match row.content {
        Content::Fields(fields) => Some(fields.len()),
        _ => None,
    });
    Ok((columns, first))
}

fn without_bom(block: &[u8]) -> &[u8] {
    block.strip_prefix(BOM).unwrap_or(block)
}

/// Of `,` `;` and tab the one that stands most often in the header, outside quotes.
fn find_delimiter(block: &[u8]) -> u8 {
    let mut counts = [(b',', 0usize), (b';', 0), (b'\t', 0)];
    let mut quoted = false;
    for byte in block {
        match byte {
            b'"' => quoted = !quoted,
            b'\n' if !quoted => break,
            byte if !quoted => counts.iter_mut().filter(|count| count.0 == *byte).for_each(|count| count.1 += 1),
            _ => {}
        }
    }
    let mut best = counts[0];
    for count in counts {
        if count.1 > best.1 {
            best = count;
        }
    }
    best.0
}

/// Column names, trimmed, each once.
fn header(row: Option<Row>) -> Result<Vec<String>, String> {
    let fields = match row.map(|row| row.content) {
        Some(Content::Fields(fields)) => fields,
        Some(Content::Malformed(why)) => return Err(format!("its header is broken: {why}")),
        Some(Content::TooLarge) => return Err("its header is too long".into()),
        Some(Content::Bytes(_)) | None => return Err("it has no header".into()),
    };
    if fields.len() > CSV_COLUMNS_MAX {
        return Err(format!("it has more than {CSV_COLUMNS_MAX} columns"));
    }
    let (mut names, mut known) = (Vec::new(), HashSet::new());
    for field in fields {
        let name = String::from_utf8(field).map_err(|_| "its header is not UTF-8".to_owned())?.trim().to_owned();
        if name.contains('\0') {
            return Err("its header has a NUL character: this is no csv file, or no UTF-8".into());
        }
        if !known.insert(name.clone()) {
            return Err(format!("two columns are named {name:?}"));
        }
        names.push(name);
    }
    Ok(names)
}

impl Action for Read {
    fn run<'a>(&'a self, cx: &'a ItemContext, facts: &'a Facts, out: &'a mut dyn Out) -> BoxFuture<'a, Acted> {
        Box::pin(async move {
            let name = files::render(cx, &self.name, facts, "the name of the input").await?;
            let base = std::path::absolute(&cx.run.base_dir).unwrap_or_else(|_| cx.run.base_dir.clone());
            if let Kind::Glob { digest } = self.kind {
                return list_files(cx, &name, base, digest, out).await;
            }
            let mut blocks = Blocks::open(cx, base.join(&name)).await?;
            let listing = |message: String| Stop::given_up(Class::Listing, format!("`{name}`: {message}"));
            let mut block = blocks.next().await?;
            let row_max = usize::try_from(out.max_value()).unwrap_or(usize::MAX);
            let mut cutter: Box<dyn Cutter> = match self.kind {
                Kind::Csv(delimiter) => {
                    block = without_bom(&block).to_vec();
                    Box::new(Csv::new(delimiter.unwrap_or_else(|| find_delimiter(&block)), row_max))
                }
                Kind::Json => Box::new(Elements::new(row_max)),
                Kind::Ndjson | Kind::Lines | Kind::Glob { .. } => Box::new(Lines::new(row_max)),
            };
            let mut columns = None;
            loop {
                let mut rows = Vec::new();
                let last = block.is_empty();
                let cut = if last { cutter.end(&mut rows) } else { cutter.push(&block, &mut rows) };
                for row in rows {
                    if matches!(self.kind, Kind::Csv(_)) && columns.is_none() {
                        columns = Some(header(Some(row)).map_err(listing)?);
                        continue;
                    }
                    self.give(&name, row, columns.as_deref().unwrap_or_default(), out).await?;
                }
                cut.map_err(listing)?;
                if last {
                    break;
                }
                block = blocks.next().await?;
            }
            if matches!(self.kind, Kind::Csv(_)) && columns.is_none() {
                return Err(listing("it has no header".into()));
            }
            Ok(())
        })
    }

    fn preview(&self, _facts: &Facts) -> Option<Result<String, Failure>> {
        None
    }
}

impl Read {
    async fn give(&self, name: &str, row: Row, columns: &[String], out: &mut dyn Out) -> Acted {
        let bad = |class: Class, message: String| Failure::new(class, format!("{name}:{}: {message}", row.line));
        let value = match row.content {
            Content::TooLarge => {
                let max = out.max_value();
                Err(bad(Class::TooLarge, format!("the row has more than {max} bytes: raise `max_value`")))
            }
            Content::Malformed(why) => Err(bad(Class::Data, why.to_owned())),
            Content::Fields(fields) if fields.len() != columns.len() => {
                Err(bad(Class::Data, format!("{} fields, the header has {}", fields.len(), columns.len())))
            }
            Content::Fields(fields) => {
                let texts: Result<Vec<String>, _> = fields.into_iter().map(String::from_utf8).collect();
                texts.map_err(|_| bad(Class::Data, "it is not UTF-8".into())).map(|texts| {
                    Value::Object(columns.iter().cloned().zip(texts.into_iter().map(Value::String)).collect())
                })
            }
            Content::Bytes(bytes) if self.kind == Kind::Lines => match String::from_utf8(bytes) {
                Ok(text) => Ok(Value::String(text)),
                Err(_) => Err(bad(Class::Data, "it is not UTF-8".into())),
            },
            Content::Bytes(bytes) if self.kind == Kind::Ndjson && bytes.trim_ascii().is_empty() => return Ok(()),
            Content::Bytes(bytes) => match parse_json(&bytes) {
                Ok(value) => Ok(value),
                // Whole, and only too deep for a value: what follows it is not touched by that.
                Err(_) if deeper_than(&bytes, DEPTH_MAX - 1) => {
                    Err(bad(Class::Data, format!("the value is nested deeper than {} levels", DEPTH_MAX - 1)))
                }
                Err(error) if self.kind == Kind::Json => {
                    // Where the text of a value is broken, what follows it cannot be trusted either.
                    let line = row.line + (error.line() as u64).saturating_sub(1);
                    let message = format!("`{name}`: line {line}, column {}: this is no JSON", error.column());
                    return Err(Stop::given_up(Class::Listing, message));
                }
                Err(error) => Err(bad(Class::Data, format!("column {}: this is no JSON", error.column()))),
            },
        };
        match value {
            Ok(value) => out.give(value).await,
            Err(failure) => out.bad(failure).await,
        }
    }
}

/// True when brackets of a JSON text stand deeper inside each other than `most`.
fn deeper_than(text: &[u8], most: usize) -> bool {
    let (mut depth, mut in_text, mut escaped) = (0usize, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => depth += 1,
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > most {
            return true;
        }
    }
    false
}

/// Files whose names fit the pattern, in byte order of their paths.
async fn list_files(cx: &ItemContext, pattern: &str, base: PathBuf, digest: bool, out: &mut dyn Out) -> Acted {
    let world = &cx.run.world;
    let text = pattern.to_owned();
    let listed = world.unblock(move || find_files(&text, &base)).await;
    let paths = listed.map_err(|message| Stop::given_up(Class::Listing, format!("`{pattern}`: {message}")))?;
    for path in paths {
        let file = path.clone();
        let about = match world.unblock(move || file.metadata()).await {
            Ok(about) if about.is_file() => about,
            Ok(_) => continue,
            // It went away since the folder was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => continue,
            Err(error) => {
                out.bad(Failure::new(Class::Data, format!("{}: {}", path.display(), cause(&error)))).await?;
                continue;
            }
        };
        let (Some(full), Some(name), Some(stem)) = (
            path.to_str(),
            path.file_name().and_then(|name| name.to_str()),
            path.file_stem().and_then(|stem| stem.to_str()),
        ) else {
            out.bad(Failure::new(Class::Data, format!("the name of {} is not UTF-8", path.display()))).await?;
            continue;
        };
        let modified = about.modified().ok().and_then(|time| jiff::Timestamp::try_from(time).ok());
        let mut fields = serde_json::Map::new();
        fields.insert("path".into(), full.into());
        fields.insert("name".into(), name.into());
        fields.insert("stem".into(), stem.into());
        fields.insert("size".into(), about.len().into());
        fields.insert("modified".into(), modified.map(|time| time.to_string()).into());
        if digest {
            match sha256(cx, path.clone()).await {
                Ok(sha256) => fields.insert("sha256".into(), sha256.into()),
                Err(stop) => match *stop {
                    Stop::Failed { failure, .. } => {
                        out.bad(Failure::new(Class::Data, failure.message)).await?;
                        continue;
                    }
                    other => return Err(other.into()),
                },
            };
        }
        out.give(Value::Object(fields)).await?;
    }
    Ok(())
}

async fn sha256(cx: &ItemContext, path: PathBuf) -> Result<String, Box<Stop>> {
    let mut blocks = Blocks::open(cx, path).await?;
    let mut hash = Sha256::new();
    loop {
        let block = blocks.next().await?;
        if block.is_empty() {
            return Ok(hex(&hash.finalize()));
        }
        hash.update(&block);
    }
}
