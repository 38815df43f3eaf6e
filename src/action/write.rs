//! `Write`: the current value, or all items of a gather, as one file.
//!
//! The bytes depend on the values only: pretty JSON with two spaces, one line a value, or csv with the columns in the
//! order of their first appearance. Items of a gather are streamed, so memory stays flat.

use super::{Acted, Action, Checked, Gives, ItemContext, Out, Place, Stop, compute::Lost, files};
use crate::{
    item::{Class, Failure, Value},
    lang::{Checker, Facts, Rows, Template},
    limits::{CSV_COLUMNS_MAX, OUTPUT_BLOCK_BYTES},
    world::BoxFuture,
};
use std::{collections::HashSet, ops::ControlFlow};

crate::spec! {
    /// Writes the current value to a file; in a gather, before any Jq, all its items. The value passes on.
    pub struct WriteSpec as "Write" {
        /// The file, as JSON; a template, below the output folder.
        json: Option<String>, example "\"{{ run.night }}/vitals.json\"";
        /// The file, as one JSON value a line; a list is its elements.
        ndjson: Option<String>, example "\"{{ run.date }}/rows.ndjson\"";
        /// The file, as csv: an object, or a list of objects.
        csv: Option<String>, example "\"weekly/{{ run.date }}.csv\"";
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Json,
    Ndjson,
    Csv,
}

struct Write {
    format: Format,
    to: Template,
    /// It stands in a gather before any Jq: all items are written.
    all: bool,
    lost: Lost,
}

/// See [`super::check`].
pub(super) fn check(spec: &WriteSpec, path: &str, place: &Place<'_>, checker: &mut Checker<'_>) -> Option<Checked> {
    let said: Vec<(Format, &str, &String)> =
        [(Format::Json, "json", &spec.json), (Format::Ndjson, "ndjson", &spec.ndjson), (Format::Csv, "csv", &spec.csv)]
            .into_iter()
            .filter_map(|(format, field, text)| Some((format, field, text.as_ref()?)))
            .collect();
    let [(format, field, text)] = said[..] else {
        let help = "write exactly one of `json:`, `ndjson:` and `csv:`, as in `json: \"{{ run.date }}/rows.json\"`";
        let fields: Vec<String> = said.iter().map(|(_, field, _)| format!("`{field}`")).collect();
        let message = match fields.is_empty() {
            true => "nothing says what is written".to_owned(),
            false => format!("{} say what is written, and only one can", fields.join(" and ")),
        };
        checker.error(path, message, Some(help));
        return None;
    };
    let to = files::check_output(&format!("{path}.{field}"), text, checker)?;
    let action = Write { format, to, all: place.gather && !place.after_jq, lost: Lost::default() };
    Some(Checked { kind: "Write", action: Box::new(action), gives: Gives::PassesOn, writes: true })
}

impl Action for Write {
    fn run<'a>(&'a self, cx: &'a ItemContext, facts: &'a Facts, _out: &'a mut dyn Out) -> BoxFuture<'a, Acted> {
        Box::pin(async move {
            let path = files::render(cx, &self.to, facts, "the name of the file").await?;
            let mut file = cx.run.outputs.create(cx, &path).await?;
            let (format, all, seen) = (self.format, self.all, facts.clone());
            // Also a single value may be large, and the items of a gather are read by a thread that may wait.
            let mut computing = self.lost.start(cx, move |each| {
                let mut sink = Sink { block: Vec::new(), each };
                let written = match (&seen.group, all) {
                    (Some(group), true) => format.write(&mut sink, true, &|| group.items(None)),
                    _ => {
                        format.write(&mut sink, false, &|| Ok(Box::new(std::iter::once(Ok(Value::clone(&seen.value))))))
                    }
                };
                written.map(|()| sink.end())
            })?;
            while let Some(block) = computing.next().await? {
                file.write(block).await?;
            }
            computing
                .result()
                .map_err(|message| Stop::given_up(Class::Data, format!("cannot write `{path}`: {message}")))?;
            file.commit().await.map(drop)
        })
    }

    fn preview(&self, facts: &Facts) -> Option<Result<String, Failure>> {
        let path = files::preview(&self.to, facts, "the name of the file");
        let what = match self.format {
            Format::Json => "json",
            Format::Ndjson => "ndjson",
            Format::Csv => "csv",
        };
        Some(path.map(|path| format!("Write {what} {}", files::quoted(&path))))
    }
}

/// Gathers bytes into blocks and hands these on.
struct Sink<'a> {
    block: Vec<u8>,
    each: &'a mut dyn FnMut(Vec<u8>) -> ControlFlow<()>,
}

impl Sink<'_> {
    /// Hands a full block on; `Err` when nobody wants it any more.
    fn flush(&mut self) -> Result<(), String> {
        if self.block.len() < OUTPUT_BLOCK_BYTES {
            return Ok(());
        }
        match (self.each)(std::mem::take(&mut self.block)) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err("it was cut".into()),
        }
    }

    fn end(self) {
        if !self.block.is_empty() {
            // It is the last: whether more is wanted does not matter.
            let _ = (self.each)(self.block);
        }
    }
}

impl Format {
    /// Writes what `rows` gives (csv reads it twice): many values, or one.
    fn write(self, sink: &mut Sink<'_>, many: bool, rows: &dyn Fn() -> Result<Rows, String>) -> Result<(), String> {
        match self {
            Format::Json if many => write_list(sink, rows()?),
            Format::Json => rows()?.try_for_each(|value| {
                pretty(&value?, &mut sink.block)?;
                sink.block.push(b'\n');
                sink.flush()
            }),
            Format::Ndjson => rows()?.try_for_each(|value| match value? {
                Value::Array(values) if !many => values.iter().try_for_each(|value| line(sink, value)),
                value => line(sink, &value),
            }),
            Format::Csv => write_csv(sink, rows),
        }
    }
}

fn line(sink: &mut Sink<'_>, value: &Value) -> Result<(), String> {
    serde_json::to_writer(&mut sink.block, value).map_err(|error| error.to_string())?;
    sink.block.push(b'\n');
    sink.flush()
}

fn pretty(value: &Value, into: &mut Vec<u8>) -> Result<(), String> {
    serde_json::to_writer_pretty(into, value).map_err(|error| error.to_string())
}

/// A pretty JSON list, element by element: the same bytes as if it were one value.
fn write_list(sink: &mut Sink<'_>, mut rows: Rows) -> Result<(), String> {
    let mut first = true;
    rows.try_for_each(|value| {
        let mut element = Vec::new();
        pretty(&value?, &mut element)?;
        sink.block.extend_from_slice(if first { b"[" } else { b"," });
        first = false;
        // A line feed inside a text is escaped, so these are only those of the layout.
        for line in element.split(|byte| *byte == b'\n') {
            sink.block.extend_from_slice(b"\n  ");
            sink.block.extend_from_slice(line);
        }
        sink.flush()
    })?;
    sink.block.extend_from_slice(if first { b"[]\n" } else { b"\n]\n" });
    Ok(())
}

fn write_csv(sink: &mut Sink<'_>, rows: &dyn Fn() -> Result<Rows, String>) -> Result<(), String> {
    let (mut columns, mut known) = (Vec::new(), HashSet::new());
    each_object(rows()?, &mut |fields| {
        for name in fields.keys() {
            if known.insert(name.clone()) {
                columns.push(name.clone());
            }
        }
        if columns.len() > CSV_COLUMNS_MAX {
            return Err(format!("it has more than {CSV_COLUMNS_MAX} columns"));
        }
        Ok(())
    })?;
    if columns.is_empty() {
        return Ok(());
    }
    let names: Vec<Value> = columns.iter().cloned().map(Value::String).collect();
    write_row(sink, &names.iter().map(Some).collect::<Vec<_>>())?;
    each_object(rows()?, &mut |fields| {
        write_row(sink, &columns.iter().map(|name| fields.get(name)).collect::<Vec<_>>())
    })
}

type Fields = serde_json::Map<String, Value>;

fn each_object(mut rows: Rows, each: &mut dyn FnMut(&Fields) -> Result<(), String>) -> Result<(), String> {
    let not_an_object = "csv is made of objects: give it an object, or a list of objects";
    rows.try_for_each(|value| match value? {
        Value::Object(fields) => each(&fields),
        Value::Array(values) => values.iter().try_for_each(|value| match value {
            Value::Object(fields) => each(fields),
            _ => Err(not_an_object.to_owned()),
        }),
        _ => Err(not_an_object.to_owned()),
    })
}

fn write_row(sink: &mut Sink<'_>, cells: &[Option<&Value>]) -> Result<(), String> {
    let start = sink.block.len();
    for (place, cell) in cells.iter().enumerate() {
        if place > 0 {
            sink.block.push(b',');
        }
        match cell {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) => cell_text(&mut sink.block, text, true),
            Some(value @ (Value::Array(_) | Value::Object(_))) => cell_text(&mut sink.block, &value.to_string(), false),
            Some(plain) => sink.block.extend_from_slice(plain.to_string().as_bytes()),
        }
    }
    if sink.block.len() == start {
        // An empty line would be no row at all.
        sink.block.extend_from_slice(b"\"\"");
    }
    sink.block.push(b'\n');
    sink.flush()
}

/// A text that a spreadsheet would take for a formula gets a leading `'`: data must not become code there. A negative
/// number as a text (`-0.1349`, digits kept by its author) is none.
fn cell_text(into: &mut Vec<u8>, text: &str, guarded: bool) {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r', '\0']) && !is_negative_number(text);
    let guard = if guarded && formula { "'" } else { "" };
    if !text.contains([',', '"', '\n', '\r', ';', '\t']) && !text.starts_with(' ') && !text.ends_with(' ') {
        into.extend_from_slice(guard.as_bytes());
        into.extend_from_slice(text.as_bytes());
        return;
    }
    into.push(b'"');
    into.extend_from_slice(guard.as_bytes());
    into.extend_from_slice(text.replace('"', "\"\"").as_bytes());
    into.push(b'"');
}

/// A minus, digits, and perhaps a point and digits.
fn is_negative_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.strip_prefix('-').is_some_and(|number| match number.split_once('.') {
        Some((whole, part)) => digits(whole) && digits(part),
        None => digits(number),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn written(format: Format, many: bool, values: &[Value]) -> Result<String, String> {
        let mut bytes = Vec::new();
        let mut each = |block: Vec<u8>| {
            bytes.extend(block);
            ControlFlow::Continue(())
        };
        let mut sink = Sink { block: Vec::new(), each: &mut each };
        let values = values.to_vec();
        format.write(&mut sink, many, &|| Ok(Box::new(values.clone().into_iter().map(Ok))))?;
        sink.end();
        Ok(String::from_utf8(bytes).expect("UTF-8"))
    }

    #[test]
    fn csv_has_its_columns_in_order_of_first_appearance_and_empty_for_null() {
        let rows = [json!({"b": 1, "a": null}), json!([{"c": "x,y", "b": -2.5}, {"a": "say \"hi\"\n"}])];
        assert_eq!(
            written(Format::Csv, true, &rows).expect("writes"),
            "b,a,c\n1,,\n-2.5,,\"x,y\"\n,\"say \"\"hi\"\"\n\",\n"
        );
        assert_eq!(written(Format::Csv, false, &[json!([])]).expect("writes"), "");
        assert_eq!(written(Format::Csv, false, &[json!({"a": null})]).expect("writes"), "a\n\"\"\n");
        assert!(written(Format::Csv, false, &[json!([1])]).is_err());
    }

    #[test]
    fn a_text_never_becomes_a_formula_and_a_number_stays_one() {
        let row = json!({"a": "=1+1", "b": "+1", "c": "-1", "d": "@x", "e": "\tx", "f": "\rx", "g": -1, "h": [1], "i": true,
                "j": "-0.1349", "k": "-1+2", "l": "-1.2.3", "m": "-"});
        assert_eq!(
            written(Format::Csv, false, &[row]).expect("writes"),
            "a,b,c,d,e,f,g,h,i,j,k,l,m\n'=1+1,'+1,-1,'@x,\"'\tx\",\"'\rx\",-1,[1],true,-0.1349,'-1+2,'-1.2.3,'-\n"
        );
        assert_eq!(written(Format::Csv, false, &[json!({"=a": 1})]).expect("writes"), "'=a\n1\n");
    }

    #[test]
    fn streamed_json_is_the_same_bytes_as_one_value() {
        for values in [vec![], vec![json!(1)], vec![json!({"a": [1, "x\ny"]}), json!([]), json!("z")]] {
            let whole = format!("{}\n", serde_json::to_string_pretty(&values).expect("json"));
            assert_eq!(written(Format::Json, true, &values).expect("writes"), whole);
            assert_eq!(written(Format::Json, false, &[json!(values)]).expect("writes"), whole);
        }
    }

    #[test]
    fn ndjson_has_a_line_a_value_and_a_list_is_its_elements() {
        assert_eq!(written(Format::Ndjson, false, &[json!([1, {"a": 2}])]).expect("writes"), "1\n{\"a\":2}\n");
        assert_eq!(written(Format::Ndjson, true, &[json!([1]), json!(2)]).expect("writes"), "[1]\n2\n");
    }
}
