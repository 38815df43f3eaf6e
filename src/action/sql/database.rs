//! A SQLite file: opened, asked one statement.
//!
//! Everything here blocks, on the blocking pool. Two rules keep other users of the file safe. A lock is held no longer
//! than the statement runs: rows that nobody takes yet wait in a private file, never in an open cursor, or a slow stage
//! would keep everybody else from writing. And the file is never opened but by SQLite: closing any other descriptor of
//! it would drop the locks of the whole process.

use super::super::files::cause;
use crate::{
    item::{Class, Failure, Value},
    limits::{PAGE_BYTES, PAGE_ROWS, SPOOL_BYTES_DEFAULT, SQL_OPS_BEFORE_LOOK, STORE_CACHE_KIB, STORE_PAGE_BYTES},
};
use rusqlite::{
    Connection, ErrorCode, OpenFlags, Statement, params,
    types::{Value as Bound, ValueRef},
};
use std::{
    ffi::OsString,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// A statement for one item.
#[derive(Clone)]
pub struct Ask {
    /// The database.
    pub file: PathBuf,
    /// Its name as the author wrote it, for messages.
    pub name: String,
    /// The statement.
    pub sql: Arc<str>,
    /// What is bound, by name without the colon.
    pub values: Arc<Vec<(String, Bound)>>,
    /// Nobody waits for the answer any more.
    pub cut: Arc<AtomicBool>,
}

/// An open database, and which file it is: one that was put in its place is another.
pub struct Open {
    connection: Connection,
    identity: (u64, u64),
}

/// Bounds of what is read: more is a failure `too_large`, never a part of the rows.
#[derive(Clone, Copy)]
pub struct Most {
    /// Rows.
    pub rows: usize,
    /// Bytes of JSON in one row, at least.
    pub row_bytes: u64,
    /// Bytes of JSON in all rows, at least.
    pub bytes: u64,
}

/// Why a statement gave nothing.
#[derive(Debug)]
pub enum Trouble {
    /// Another connection holds a lock: it may be free in a moment. Nothing was done.
    Locked,
    /// Nobody waits any more. Nothing was done.
    Cut,
    /// It failed, and nothing was done.
    Failed(Failure),
}

/// A row, or why it is none.
pub type Row = Result<Value, Failure>;

/// Rows that were read and that nobody has taken yet: the first ones in memory, the others in a private file.
pub struct Rows {
    ready: Vec<Row>,
    spool: Option<Spool>,
}

/// Rows in a file of SQLite's that has no name and goes with its connection; small ones never reach the disk.
struct Spool {
    connection: Connection,
    taken: i64,
}

impl Ask {
    /// Reads all rows.
    ///
    /// # Errors
    /// See [`Trouble`]; class `listing` where the database or the statement is at fault.
    pub fn rows(&self, most: Most) -> Result<Rows, Trouble> {
        let open = self.open(Class::Listing, None)?;
        let mut statement = self.prepare(&open.connection, Class::Listing)?;
        if !statement.readonly() {
            return Err(self.failed(Class::Listing, "`query` reads, and this statement writes: use `execute`"));
        }
        let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
        if let Some(name) = twice(&columns) {
            return Err(self.failed(Class::Listing, &format!("two columns are called `{name}`: name one by AS")));
        }
        self.bind(&mut statement)?;
        let (mut rows, mut cursor) = (Rows { ready: Vec::new(), spool: None }, statement.raw_query());
        let (mut count, mut bytes) = (0, 0u64);
        while let Some(row) = cursor.next().map_err(|error| self.trouble(error, Class::Listing, true))? {
            if self.cut.load(Ordering::Relaxed) {
                return Err(Trouble::Cut);
            }
            let (row, size) = read_row(row, &columns, most.row_bytes);
            count += 1;
            bytes += size;
            if count > most.rows || bytes > most.bytes {
                let message = match count > most.rows {
                    true => format!("more than {} rows for one item: add a LIMIT, or list them in a source", most.rows),
                    false => {
                        format!("its rows have more than {} bytes: raise `max_value`, or ask for less", most.bytes)
                    }
                };
                return Err(self.failed(Class::TooLarge, &message));
            }
            rows.put(row, bytes).map_err(|error| self.failed(Class::Spool, &error))?;
        }
        Ok(rows)
    }

    /// Changes rows: all that the statement says, durably, or nothing. `kept` is what the last one has left open; it
    /// stays open when this one is done.
    ///
    /// # Errors
    /// See [`Trouble`]; class `output` where the database is at fault, `data` where the statement or the values are.
    pub fn execute(&self, kept: &mut Option<Open>) -> Result<(), Trouble> {
        let open = self.open(Class::Output, kept.take())?;
        let mut statement = self.prepare(&open.connection, Class::Data)?;
        if statement.readonly() || statement.column_count() > 0 {
            return Err(self.failed(Class::Data, "`execute` changes rows and gives none: use `query` to read"));
        }
        self.bind(&mut statement)?;
        statement.raw_execute().map_err(|error| self.trouble(error, Class::Output, true))?;
        drop(statement);
        *kept = Some(open);
        Ok(())
    }

    /// Opens the file, which must be there, or takes what is open if it is still that file. It is opened for writing also
    /// where only reading is asked for: what a writer that was killed has left is then rolled back.
    fn open(&self, class: Class, kept: Option<Open>) -> Result<Open, Trouble> {
        if self.cut.load(Ordering::Relaxed) {
            return Err(Trouble::Cut);
        }
        let identity = match fs::metadata(&self.file) {
            Ok(about) if about.is_file() => (about.dev(), about.ino()),
            Ok(_) => return Err(self.failed(class, "it is no regular file")),
            Err(error) => {
                let message = format!("cannot open {}: {}", self.file.display(), cause(&error));
                return Err(self.failed(class, &message));
            }
        };
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let opened = match kept.filter(|kept| kept.identity == identity) {
            Some(kept) => Ok(kept.connection),
            None => Connection::open_with_flags(&self.file, flags),
        };
        let opened = opened.and_then(|mut connection| {
            // Waiting for a lock is done outside, where it can be cut.
            connection.busy_timeout(Duration::ZERO)?;
            let cut = self.cut.clone();
            connection.progress_handler(SQL_OPS_BEFORE_LOOK, Some(move || cut.load(Ordering::Relaxed)))?;
            Ok(Open { connection, identity })
        });
        opened.map_err(|error| self.trouble(error, class, false))
    }

    fn prepare<'c>(&self, connection: &'c Connection, class: Class) -> Result<Statement<'c>, Trouble> {
        connection.prepare(&self.sql).map_err(|error| self.trouble(error, class, false))
    }

    /// Binds each parameter to the value of its name; an author's text was checked to have no other kind.
    fn bind(&self, statement: &mut Statement<'_>) -> Result<(), Trouble> {
        for at in 1..=statement.parameter_count() {
            let name = statement.parameter_name(at).and_then(|name| name.strip_prefix(':')).unwrap_or_default();
            let Some((_, value)) = self.values.iter().find(|(known, _)| known == name) else {
                return Err(self.failed(Class::Data, &format!("nothing is bound to parameter {at}")));
            };
            let bound = statement.raw_bind_parameter(at, value);
            bound.map_err(|error| self.trouble(error, Class::Data, true))?;
        }
        Ok(())
    }

    fn failed(&self, class: Class, message: &str) -> Trouble {
        Trouble::Failed(Failure::new(class, format!("`{}`: {message}", self.name)))
    }

    /// What an error means. `class`: whose fault it is when it is not the item's. `values`: values were bound, and a
    /// message of SQLite may quote one.
    fn trouble(&self, error: rusqlite::Error, class: Class, values: bool) -> Trouble {
        use ErrorCode as Code;
        let (code, mut message) = said(&error);
        if values && let Some(quote) = message.find(['\'', '"']) {
            message.truncate(quote);
            message.push('…');
        }
        let class = match code {
            Code::DatabaseBusy | Code::DatabaseLocked | Code::FileLockingProtocolFailed => return Trouble::Locked,
            Code::OperationInterrupted => return Trouble::Cut,
            Code::ConstraintViolation | Code::TypeMismatch => Class::Data,
            Code::TooBig => Class::TooLarge,
            Code::Unknown if values => Class::Data,
            _ => class,
        };
        self.failed(class, &message)
    }
}

/// The code of an error, and what SQLite says of it.
fn said(error: &rusqlite::Error) -> (ErrorCode, String) {
    match error {
        rusqlite::Error::SqliteFailure(error, message) => {
            (error.code, message.clone().unwrap_or_else(|| error.to_string()))
        }
        rusqlite::Error::SqlInputError { error, msg, .. } => (error.code, msg.clone()),
        other => (ErrorCode::Unknown, other.to_string()),
    }
}

/// One row as an object, and the least that it has in bytes of JSON.
fn read_row(row: &rusqlite::Row<'_>, columns: &[String], most: u64) -> (Row, u64) {
    let mut bytes = 2;
    let mut fields = serde_json::Map::with_capacity(columns.len());
    for (at, name) in columns.iter().enumerate() {
        let bad = |what: &str| (Err(Failure::new(Class::Data, format!("column `{name}` holds {what}"))), 0);
        let value = match row.get_ref(at) {
            Ok(ValueRef::Null) => Value::Null,
            Ok(ValueRef::Integer(number)) => Value::from(number),
            Ok(ValueRef::Real(number)) => match serde_json::Number::from_f64(number) {
                Some(number) => Value::Number(number),
                None => return bad("an infinite number, which JSON cannot say"),
            },
            Ok(ValueRef::Text(text)) if bytes + text.len() as u64 > most => {
                let message = format!("the row has more than {most} bytes: raise `max_value`");
                return (Err(Failure::new(Class::TooLarge, message)), 0);
            }
            Ok(ValueRef::Text(text)) => match std::str::from_utf8(text) {
                Ok(text) => Value::from(text),
                Err(_) => return bad("a text that is not UTF-8"),
            },
            Ok(ValueRef::Blob(_)) => return bad("a blob: read it as text, such as hex(..)"),
            Err(_) => return bad("nothing that can be read"),
        };
        bytes += name.len() as u64 + 4;
        bytes += if let Value::String(text) = &value { text.len() as u64 + 2 } else { 1 };
        fields.insert(name.clone(), value);
    }
    (Ok(Value::Object(fields)), bytes)
}

impl Rows {
    /// The next rows; none at the end.
    ///
    /// # Errors
    /// A sentence when the private file cannot be read.
    pub fn page(&mut self) -> Result<Vec<Row>, String> {
        if !self.ready.is_empty() {
            return Ok(std::mem::take(&mut self.ready));
        }
        match &mut self.spool {
            None => Ok(Vec::new()),
            Some(spool) => spool.page().map_err(|error| spool_failed(&error)),
        }
    }

    /// True when [`Rows::page`] gives what is in memory.
    pub fn is_ready(&self) -> bool {
        !self.ready.is_empty() || self.spool.is_none()
    }

    /// Puts a row behind the others. `bytes`: of all rows with this one.
    fn put(&mut self, row: Row, bytes: u64) -> Result<(), String> {
        if self.spool.is_none() && self.ready.len() < PAGE_ROWS && (bytes <= PAGE_BYTES as u64 || self.ready.is_empty())
        {
            self.ready.push(row);
            return Ok(());
        }
        let spool = match self.spool.take() {
            Some(spool) => Ok(spool),
            None => Spool::new(),
        };
        let put = spool.and_then(|spool| {
            spool.put(&row)?;
            self.spool = Some(spool);
            Ok(())
        });
        put.map_err(|error| spool_failed(&error))
    }
}

impl Spool {
    fn new() -> rusqlite::Result<Spool> {
        let connection = Connection::open("")?;
        let pages = SPOOL_BYTES_DEFAULT / u64::from(STORE_PAGE_BYTES);
        connection.execute_batch(&format!(
            "PRAGMA page_size = {STORE_PAGE_BYTES}; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;
             PRAGMA cache_size = -{STORE_CACHE_KIB}; PRAGMA max_page_count = {pages};
             CREATE TABLE rows (bad TEXT, text TEXT NOT NULL); BEGIN;"
        ))?;
        Ok(Spool { connection, taken: 0 })
    }

    fn put(&self, row: &Row) -> rusqlite::Result<()> {
        let (bad, text) = match row {
            Ok(value) => (None, value.to_string()),
            Err(failure) => (Some(failure.class.to_string()), failure.message.clone()),
        };
        self.connection.prepare_cached("INSERT INTO rows VALUES (?1, ?2)")?.execute(params![bad, text])?;
        Ok(())
    }

    fn page(&mut self) -> rusqlite::Result<Vec<Row>> {
        let sql = "SELECT rowid, bad, text FROM rows WHERE rowid > ?1 ORDER BY rowid";
        let mut statement = self.connection.prepare_cached(sql)?;
        let (mut page, mut bytes, mut rows) = (Vec::new(), 0, statement.query([self.taken])?);
        while page.len() < PAGE_ROWS
            && bytes < PAGE_BYTES
            && let Some(row) = rows.next()?
        {
            let (bad, text) = (row.get::<_, Option<String>>(1)?, row.get::<_, String>(2)?);
            self.taken = row.get(0)?;
            bytes += text.len();
            page.push(match bad.map(|class| Class::parse(&class).unwrap_or(Class::Data)) {
                None => serde_json::from_str(&text).map_err(|error| Failure::new(Class::Data, error.to_string())),
                Some(class) => Err(Failure::new(class, text)),
            });
        }
        Ok(page)
    }
}

fn spool_failed(error: &rusqlite::Error) -> String {
    let (code, message) = said(error);
    match code {
        ErrorCode::DiskFull => format!(
            "the rows of the query take more than {SPOOL_BYTES_DEFAULT} bytes, or the disk of temporary files is full: \
             add a LIMIT"
        ),
        _ => format!("the rows of the query cannot be put aside: {message}"),
    }
}

/// What a database says of a statement before it runs.
#[derive(Debug, PartialEq, Eq)]
pub struct Prepared {
    /// Names of what it gives.
    pub columns: Vec<String>,
    /// It changes nothing.
    pub reads: bool,
}

/// Why a statement could not be prepared.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// The statement is wrong: what, and the byte at which it is seen.
    Statement(String, Option<usize>),
    /// The file is no database.
    NoDatabase,
    /// It cannot be told now: no database is there, or somebody holds it.
    Unknown,
}

/// Prepares a statement, against the file where it is there, and changes nothing of it or beside it.
///
/// # Errors
/// See [`Refused`].
pub fn prepared(file: Option<&Path>, sql: &str) -> Result<Prepared, Refused> {
    let connection = match file {
        Some(file) => look(file).ok_or(Refused::Unknown)?,
        None => Connection::open_in_memory().map_err(|_| Refused::Unknown)?,
    };
    let prepared = connection.prepare(sql).map(|statement| Prepared {
        columns: statement.column_names().map(str::to_owned).collect(),
        reads: statement.readonly(),
    });
    prepared.map_err(|error| {
        let (code, message) = said(&error);
        match (&error, code) {
            (_, ErrorCode::NotADatabase) => Refused::NoDatabase,
            // Without the tables only its grammar can be judged.
            (_, ErrorCode::Unknown) if file.is_none() && message.starts_with("no such table") => Refused::Unknown,
            (rusqlite::Error::SqlInputError { offset, .. }, ErrorCode::Unknown) => {
                Refused::Statement(message, usize::try_from(*offset).ok())
            }
            (rusqlite::Error::MultipleStatement, _) => Refused::Statement("several statements stand here".into(), None),
            (_, ErrorCode::Unknown) => Refused::Statement(message, None),
            _ => Refused::Unknown,
        }
    })
}

/// Opens a database only to look at it. One that nobody uses is taken as unchangeable, so that no file appears beside
/// it (which would belong to who looked); one with a journal that only its writer can read is left alone.
fn look(file: &Path) -> Option<Connection> {
    let beside = |ending: &str| {
        let mut name = OsString::from(file);
        name.push(ending);
        fs::metadata(name).is_ok_and(|about| about.len() > 0)
    };
    let (wal, journal) = (beside("-wal"), beside("-journal"));
    if wal && !beside("-shm") {
        return None;
    }
    let mut uri = String::from("file:");
    for byte in file.to_str()?.bytes() {
        match byte {
            b'/' | b'-' | b'_' | b'.' => uri.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => uri.push(char::from(byte)),
            byte => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    if !wal && !journal {
        uri.push_str("?immutable=1");
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(uri, flags).ok()?;
    connection.busy_timeout(Duration::ZERO).ok()?;
    Some(connection)
}

/// The first name that stands twice.
pub fn twice(columns: &[String]) -> Option<&str> {
    columns.iter().enumerate().find(|(at, name)| columns[..*at].contains(name)).map(|(_, name)| name.as_str())
}
