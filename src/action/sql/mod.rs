//! `Sql`: reads rows of a SQLite database, or changes them, with fields of the value bound by name.
//!
//! `text` knows the statement alone, `database` the file; this is what is written, its check, and the work between item
//! and database. Data is only ever bound: it becomes neither a part of the statement nor the name of a database.

mod database;
mod text;

use super::{Acted, Action, Checked, Gives, ItemContext, Leftovers, Out, Owner, Place, Stop, files};
use crate::{
    flow::Semaphore,
    item::{Class, Failure, Key, Value},
    lang::{Checker, Facts, Flavor, Level, RunFacts, Template},
    limits::{LEFTOVER_UNKILLABLE_AFTER, SQL_LOCK_WAIT, SQL_LOCK_WAIT_MAX, SQL_LOCKED_MAX, VALUES_PER_ITEM_MAX},
    problem::closest,
    world::{BoxFuture, World},
};
use database::{Ask, Most, Open, Refused, Rows, Trouble};
use futures_lite::future::or;
use rusqlite::types::Value as Bound;
use std::{
    collections::BTreeMap,
    future::Future,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

crate::spec! {
    /// Reads rows of a SQLite database (`query`), or changes them (`execute`). `:name` in the statement is bound to the
    /// field `name` of the current value, with its type.
    pub struct SqlSpec as "Sql" {
        /// The database file, relative to the job file; it must be there. A template of `params` only.
        db: String, example "\"epro-queue/queue.db\"";
        /// One SELECT: a value for each row.
        query: Option<String>, example "\"SELECT id, answers FROM queue WHERE status = 'pending'\"";
        /// One INSERT, UPDATE, DELETE or REPLACE, a transaction of its own. The value passes on.
        execute: Option<String>, example "\"UPDATE queue SET score = :score WHERE id = :id\"";
        /// Puts the list of rows into this field of the value.
        into: Option<String>, example "\"visits\"";
    }
}

/// Which of the two a statement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    Query,
    Execute,
}

impl Does {
    fn field(self) -> &'static str {
        match self {
            Does::Query => "query",
            Does::Execute => "execute",
        }
    }

    /// What to write.
    fn example(self) -> &'static str {
        match self {
            Does::Query => "write `query: \"SELECT id, body FROM queue WHERE sent IS NULL ORDER BY id\"`",
            Does::Execute => "write `execute: \"UPDATE queue SET sent = 1 WHERE id = :id\"`",
        }
    }
}

struct Sql {
    db: Template,
    does: Does,
    sql: Arc<str>,
    /// Fields that are bound.
    names: Vec<String>,
    /// Whose turn it is to write: SQLite has one writer, and lets those who wait pass each other by.
    turns: Semaphore,
    /// What the last one has left open, as long as a worker keeps it.
    last: Mutex<Weak<Kept>>,
}

/// Databases that a worker keeps open from one item to the next, by the place of the action: closing one may take as
/// many syncs of the disk as an item. They are closed when the last worker of the stage ends.
#[derive(Default)]
pub(super) struct Databases(Mutex<BTreeMap<u16, Arc<Kept>>>);

/// A database that the workers of a stage share; one uses it at a time.
struct Kept {
    file: PathBuf,
    open: Mutex<Option<Open>>,
    world: World,
    leftovers: Leftovers,
    owner: Owner,
}

impl Kept {
    /// Works with what is open.
    fn with<T>(&self, work: impl FnOnce(&mut Option<Open>) -> T) -> T {
        let mut open = lock(&self.open).take();
        let done = work(&mut open);
        *lock(&self.open) = open;
        done
    }
}

impl Drop for Kept {
    /// Closing blocks, so it is done on the blocking pool.
    fn drop(&mut self) {
        let Some(open) = lock(&self.open).take() else { return };
        let world = self.world.clone();
        let close = async move { world.unblock(move || drop(open)).await };
        wait_for(&self.world, &self.leftovers, self.owner.clone(), close);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that can panic runs under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// See [`super::check`].
pub(super) fn check(spec: &SqlSpec, path: &str, place: &Place<'_>, checker: &mut Checker<'_>) -> Option<Checked> {
    let Some((does, sql)) = said(spec) else {
        let (message, help) = match spec.query.is_some() {
            true => ("`query` and `execute` exclude each other", "keep one of them; the other can be the next action"),
            false => ("nothing says what is asked of the database", Does::Query.example()),
        };
        checker.error(path, message, Some(help));
        return None;
    };
    let db = check_db(&spec.db, &format!("{path}.db"), checker);
    let at = format!("{path}.{}", does.field());
    let names = text::check(does, sql, &at, checker);
    if does == Does::Execute && spec.into.is_some() {
        let help = "leave it out, or use `query`";
        checker.error(&format!("{path}.into"), "`execute` gives nothing to put there: the value passes on", Some(help));
        return None;
    }
    let (db, names) = (db?, names?);
    check_names(&names, sql, &at, place, checker)?;
    check_statement(&db, does, sql, path, checker)?;
    let gives = match does {
        Does::Query => Gives::named(spec.into.as_ref(), true),
        Does::Execute => Gives::PassesOn,
    };
    let action = Sql { db, does, sql: sql.as_str().into(), names, turns: Semaphore::new(1), last: Mutex::default() };
    Some(Checked { kind: "Sql", action: Box::new(action), gives, writes: false })
}

/// The one statement that is written.
fn said(spec: &SqlSpec) -> Option<(Does, &String)> {
    match (&spec.query, &spec.execute) {
        (Some(sql), None) => Some((Does::Query, sql)),
        (None, Some(sql)) => Some((Does::Execute, sql)),
        _ => None,
    }
}

/// The name of a database is the author's, or a param: data that could choose one could choose any file.
fn check_db(text: &str, at: &str, checker: &mut Checker<'_>) -> Option<Template> {
    let db = checker.template_or_literal(at, text, Flavor::Text)?;
    if text.is_empty() {
        checker.error(at, "this is no name of a file", Some("write `db: \"epro-queue/queue.db\"`"));
        return None;
    }
    if let Some(name) = db.variables().iter().find(|name| name.split('.').next() != Some("params")) {
        let message = format!("`{name}` cannot choose the database: only `params` can");
        checker.within(at, db.find(name), Level::Error, message, Some("write the file's name, or {{ params.db }}"));
        return None;
    }
    if db.is_literal() {
        checker.input(at, text);
    }
    Some(db)
}

/// Fields that are bound and that the value cannot have.
fn check_names(names: &[String], sql: &str, at: &str, place: &Place<'_>, checker: &mut Checker<'_>) -> Option<()> {
    let known = checker.scope().value_fields.clone();
    let mut ok = Some(());
    for name in names {
        let (message, help) = match &known {
            _ if place.source => (
                format!("`:{name}` is bound to a field of the value, and a source begins with none"),
                format!("give it one by an action before this: `Jq(filter: \"{{{name}: $params.{name}}}\")`"),
            ),
            Some(known) if !known.contains(name) => (
                format!("the value has no field `{name}`"),
                match closest(name, known.iter().map(String::as_str)) {
                    Some(near) => format!("did you mean :{near}?"),
                    None => format!("it has {}", known.join(", ")),
                },
            ),
            _ => continue,
        };
        let written = format!(":{name}");
        let range = sql.find(&written).map(|start| start..start + written.len());
        checker.within(at, range, Level::Error, message, Some(&help));
        ok = None;
    }
    ok
}

/// Where the database of a job stands when the job is checked, and whether a run may still be given another one.
fn known_db(db: &Template, checker: &Checker<'_>) -> Option<(PathBuf, bool)> {
    let scope = checker.scope();
    if scope.any_params && !db.is_literal() {
        return None;
    }
    let run = RunFacts { params: scope.params.clone(), run: Value::Null, secrets: Default::default() };
    let name = db.render(&Facts::new(Arc::default(), Key::ordinal(0), Arc::new(run))).ok()?;
    Some((file(checker.base_dir(), &name), !db.is_literal())).filter(|(file, _)| file.is_file())
}

/// The whole path: SQLite would take a name such as `file:x?mode=..` for a URI.
fn file(base: &Path, name: &str) -> PathBuf {
    std::path::absolute(base).unwrap_or_else(|_| base.to_owned()).join(name)
}

/// Asks the database of the statement; without one, SQLite's grammar.
fn check_statement(db: &Template, does: Does, sql: &str, path: &str, checker: &mut Checker<'_>) -> Option<()> {
    let known = known_db(db, checker);
    let (file, level) = match &known {
        Some((file, false)) => (Some(file.as_path()), Level::Error),
        // Another one may be named when it runs.
        Some((file, true)) => (Some(file.as_path()), Level::Remark),
        None => (None, Level::Error),
    };
    let mut at = format!("{path}.{}", does.field());
    let (range, message, help) = match database::prepared(file, sql) {
        Err(Refused::Unknown) => return Some(()),
        Err(Refused::NoDatabase) => {
            at = format!("{path}.db");
            (None, "this file is no SQLite database".to_owned(), "name another one, or make it anew".to_owned())
        }
        Err(Refused::Statement(message, offset)) => {
            let range = offset.filter(|offset| *offset < sql.len()).map(|offset| word_at(sql, offset));
            let help = match file {
                Some(file) => format!("this is what {} says of it", file.display()),
                None => does.example().to_owned(),
            };
            (range, message, help)
        }
        Ok(prepared) if prepared.reads != (does == Does::Query) => {
            let other = if prepared.reads { Does::Query } else { Does::Execute };
            (None, format!("`{}` is the other kind of statement", does.field()), other.example().to_owned())
        }
        Ok(prepared) if does == Does::Execute && !prepared.columns.is_empty() => {
            let help = "leave RETURNING out; what was written is read by a `query`".to_owned();
            (None, "`execute` passes the value on: rows that it gives would be lost".to_owned(), help)
        }
        Ok(prepared) => match database::twice(&prepared.columns) {
            Some(name) => {
                let help = "name one of them by AS: SELECT a.id, b.id AS other_id".to_owned();
                (None, format!("two columns are called `{name}`"), help)
            }
            None => return Some(()),
        },
    };
    checker.within(&at, range, level, message, Some(&help));
    (level == Level::Remark).then_some(())
}

/// Bytes of the word that begins at `start`.
fn word_at(sql: &str, start: usize) -> std::ops::Range<usize> {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let rest = sql.get(start..).unwrap_or_default();
    let end = rest.find(|c| !word(c)).filter(|end| *end > 0).or(rest.chars().next().map(char::len_utf8));
    start..start + if rest.chars().all(word) { rest.len() } else { end.unwrap_or(0) }
}

/// The columns of a `query` whose database is there and cannot be another one: the fields of the items of a source whose
/// only action it is. Blocks.
pub(super) fn columns(spec: &SqlSpec, base_dir: &Path) -> Option<Vec<String>> {
    let sql = spec.query.as_ref().filter(|_| spec.into.is_none() && !spec.db.contains("{{"))?;
    let file = file(base_dir, &spec.db);
    file.is_file().then(|| database::prepared(Some(&file), sql).ok())?.map(|prepared| prepared.columns)
}

impl Action for Sql {
    fn run<'a>(&'a self, cx: &'a ItemContext, facts: &'a Facts, out: &'a mut dyn Out) -> BoxFuture<'a, Acted> {
        Box::pin(async move {
            let values = self.values(&facts.value).map_err(|failure| Stop::Failed { failure, given_up: true })?;
            let name = files::render(cx, &self.db, facts, "db").await?;
            let ask = Ask {
                file: file(&cx.run.base_dir, &name),
                name,
                sql: self.sql.clone(),
                values: Arc::new(values),
                cut: Arc::default(),
            };
            match self.does {
                Does::Execute => {
                    let kept = self.kept(cx, &ask.file);
                    when_free(cx, &ask, Some(&self.turns), move |ask| kept.with(|open| ask.execute(open))).await
                }
                Does::Query => {
                    let most = match &cx.key {
                        // A source may give any number of rows, an item no more than it is allowed to.
                        None => Most { rows: usize::MAX, row_bytes: out.max_value(), bytes: u64::MAX },
                        Some(_) => {
                            let bytes = out.max_value();
                            Most { rows: VALUES_PER_ITEM_MAX, row_bytes: bytes, bytes }
                        }
                    };
                    give(cx, when_free(cx, &ask, None, move |ask| ask.rows(most)).await?, out).await
                }
            }
        })
    }

    fn preview(&self, facts: &Facts) -> Option<Result<String, Failure>> {
        if self.does == Does::Query {
            return None;
        }
        let line = || {
            self.values(&facts.value)?;
            let fields = self.names.iter().map(|name| format!(" :{name}={}", facts.value[name]));
            let db = files::preview(&self.db, facts, "db")?;
            Ok(format!("Sql {} {}{}", files::quoted(&db), files::quoted(&self.sql), fields.collect::<String>()))
        };
        Some(line().map(|line: String| files::one_line(&line)))
    }
}

impl Sql {
    /// What another worker or the item before has left open, or room for it.
    fn kept(&self, cx: &ItemContext, file: &Path) -> Arc<Kept> {
        let mut last = lock(&self.last);
        let kept = last.upgrade().filter(|kept| kept.file == file).unwrap_or_else(|| {
            let (world, leftovers) = (cx.run.world.clone(), cx.run.leftovers.clone());
            let kept = Kept { file: file.to_owned(), open: Mutex::default(), world, leftovers, owner: owner(cx) };
            let kept = Arc::new(kept);
            *last = Arc::downgrade(&kept);
            kept
        });
        lock(&cx.databases.0).insert(cx.action_place, kept.clone());
        kept
    }

    /// What is bound, with its type.
    fn values(&self, value: &Value) -> Result<Vec<(String, Bound)>, Failure> {
        let data = |message: String| Failure::new(Class::Data, message);
        let mut values = Vec::with_capacity(self.names.len());
        for name in &self.names {
            let field = value.as_object().and_then(|fields| fields.get(name));
            let field =
                field.ok_or_else(|| data(format!("the value has no field `{name}`, and `:{name}` needs it")))?;
            let bound = match field {
                Value::Null => Bound::Null,
                Value::Bool(yes) => Bound::Integer(i64::from(*yes)),
                Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                    (Some(number), _) => Bound::Integer(number),
                    (None, Some(number)) if !field.is_u64() => Bound::Real(number),
                    _ => {
                        return Err(data(format!(
                            "the number in field `{name}` is too large for an integer of SQLite"
                        )));
                    }
                },
                Value::String(text) => Bound::Text(text.clone()),
                Value::Array(_) | Value::Object(_) => Bound::Text(field.to_string()),
            };
            values.push((name.clone(), bound));
        }
        Ok(values)
    }
}

/// Says to the thread that works for a future that the future was dropped, and lets the run wait for its end: no
/// statement runs beside the next attempt, or behind its run.
struct Cut<'a> {
    cx: &'a ItemContext,
    flag: Arc<AtomicBool>,
    /// Closed as long as no thread works.
    ended: async_channel::Receiver<()>,
}

impl Drop for Cut<'_> {
    fn drop(&mut self) {
        self.flag.store(true, Ordering::Relaxed);
        if !self.ended.is_closed() {
            let ended = self.ended.clone();
            wait_for(&self.cx.run.world, &self.cx.run.leftovers, owner(self.cx), async move {
                let _ = ended.recv().await;
            });
        }
    }
}

fn owner(cx: &ItemContext) -> Owner {
    (cx.stage_place, cx.lineage.clone())
}

/// Lets the run, and the next attempt of the owner, wait for the end of something as for a process that ends; not for
/// ever, where a disk hangs.
fn wait_for(world: &World, leftovers: &Leftovers, owner: Owner, end: impl Future<Output = ()> + Send + 'static) {
    let (expected, late) = (leftovers.expect(owner), world.clone());
    let wait = async move {
        or(end, late.sleep(LEFTOVER_UNKILLABLE_AFTER)).await;
        drop(expected);
    };
    world.spawn(wait).detach();
}

/// Does `work` on the blocking pool, in its turn where there are `turns`; again and again as long as others hold the
/// database, up to a bound. These waits count as work: the attempt's timeout holds for them.
///
/// # Cancel safety
/// See [`Cut`]. A turn that was taken is given back when the thread has ended.
async fn when_free<T: Send + 'static>(
    cx: &ItemContext,
    ask: &Ask,
    turns: Option<&Semaphore>,
    work: impl Fn(&Ask) -> Result<T, Trouble> + Clone + Send + 'static,
) -> Result<T, Box<Stop>> {
    let world = &cx.run.world;
    let mut turn = match turns {
        Some(turns) => Some(turns.acquire().await),
        None => None,
    };
    let mut cut = Cut { cx, flag: ask.cut.clone(), ended: async_channel::bounded(1).1 };
    let (began, mut wait) = (world.awake(), SQL_LOCK_WAIT);
    loop {
        let (theirs, work) = (ask.clone(), work.clone());
        let (working, ended) = async_channel::bounded::<()>(1);
        cut.ended = ended;
        let (held, done) = world
            .unblock(move || {
                let done = work(&theirs);
                // What it keeps open is let go before anybody hears that it has ended.
                drop(work);
                drop(working);
                (turn, done)
            })
            .await;
        turn = held;
        match done {
            Ok(done) => return Ok(done),
            Err(Trouble::Failed(failure)) => return Err(Stop::Failed { failure, given_up: true }.into()),
            Err(Trouble::Cut) => return Err(Stop::Cut.into()),
            Err(Trouble::Locked) if world.awake().since(began) >= SQL_LOCKED_MAX => {
                let message = format!("`{}`: others held the database locked for {SQL_LOCKED_MAX:?}", ask.name);
                return Err(Stop::failed(Class::Timeout, message));
            }
            Err(Trouble::Locked) => {
                world.sleep(wait.mul_f64(0.5 + world.random_unit() / 2.0)).await;
                wait = (wait * 2).min(SQL_LOCK_WAIT_MAX);
            }
        }
    }
}

/// Hands rows on, page by page.
async fn give(cx: &ItemContext, mut rows: Rows, out: &mut dyn Out) -> Acted {
    loop {
        let page = if rows.is_ready() {
            rows.page()
        } else {
            let page;
            (rows, page) = cx
                .run
                .world
                .unblock(move || {
                    let page = rows.page();
                    (rows, page)
                })
                .await;
            page
        };
        let page = page.map_err(|message| Stop::given_up(Class::Spool, message))?;
        if page.is_empty() {
            return Ok(());
        }
        for row in page {
            match row {
                Ok(value) => out.give(value).await?,
                Err(failure) => out.bad(failure).await?,
            }
        }
    }
}
