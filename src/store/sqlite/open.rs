//! Opening the file: the private one that has no name, and the durable one, which is never begun anew in silence.

use super::{
    Remarks,
    epoch::{Epoch, is_held, lock_path, locks},
    mount,
    schema::{APPLICATION_ID, FORMAT, SCHEMA, STEPS},
    tables::{Home, Tables},
};
use crate::{
    limits::{
        STATE_BUSY_TIMEOUT, STATE_LOG_ALARM_BYTES, STATE_LOG_BYTES, STATE_LOG_PAGES, STATE_PAGE_BYTES, STORE_CACHE_KIB,
        STORE_PAGE_BYTES,
    },
    store::StoreError,
    world::{
        failpoint::{Point, pass},
        plant::{Bug, planted},
        sync_above,
    },
};
use rusqlite::{Connection, ErrorCode, OpenFlags, params};
use std::{
    fmt,
    fs::{self, DirBuilder, File},
    io::{self, Read},
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Where the durable state is and how it is opened.
#[derive(Clone, Debug)]
pub struct StateOptions<'a> {
    /// Its folder, made when it is not there.
    pub dir: &'a Path,
    /// Now, on the wall clock.
    pub now_ms: i64,
    /// The id of a state that is made now: random.
    pub instance: &'a str,
    /// A file that cannot be used (damaged, of a newer version, not ours) is set aside, and a new one begun.
    pub accept_new: bool,
}

/// Why the durable state cannot be opened. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateError {
    /// It could not be read or written: what and why.
    Io(String),
    /// It is damaged or is no state of this program.
    Unusable {
        /// The file.
        path: PathBuf,
        /// What was found.
        cause: String,
    },
    /// A newer version of this program wrote it.
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: u32,
    },
    /// It is to be set aside, and other processes work with it.
    InUse {
        /// The file.
        path: PathBuf,
    },
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StateError::Io(cause) => write!(f, "the state cannot be opened: {cause}"),
            StateError::Unusable { path, cause } => write!(
                f,
                "the state {} cannot be used: {cause}. Nothing of it was changed. Restore it from a copy, or begin anew with \
                 `--accept-new-state`, which sets it aside and loses what it knows of runs and jobs",
                path.display()
            ),
            StateError::Newer { path, format } => write!(
                f,
                "the state {} has format {format}, this version of lamplighter knows up to {FORMAT}. Nothing of it was \
                 changed. Use the newer version, another folder (`--state`), or begin anew with `--accept-new-state`, which \
                 sets it aside",
                path.display()
            ),
            StateError::InUse { path } => write!(
                f,
                "the state {} cannot be set aside: another process works with it. End that first",
                path.display()
            ),
        }
    }
}

impl std::error::Error for StateError {}

/// Opens the durable tables, as an epoch of their own. Openers come one after the other.
pub(super) fn durable(options: &StateOptions<'_>) -> Result<(Tables, Remarks), StateError> {
    let place = Place::make(options.dir)?;
    let _door = place.lock("open.lock")?;
    let mut remarks = place.remarks.clone();
    match place.look().and_then(|found| if found { place.connect(options).map(Some) } else { Ok(None) }) {
        Ok(Some(tables)) => {
            remarks.extend(place.cut_log(&tables.connection));
            return Ok((tables, remarks));
        }
        Ok(None) => {}
        Err(error @ (StateError::Unusable { .. } | StateError::Newer { .. })) => {
            if !options.accept_new {
                return Err(error);
            }
            remarks.push(place.set_aside(options.now_ms, &error)?);
        }
        Err(error) => return Err(error),
    }
    place.create(options)?;
    Ok((place.connect(options)?, remarks))
}

/// Opens the durable tables for questions only; `None` where there is no state.
pub(super) fn reading(options: &StateOptions<'_>) -> Result<Option<(Tables, Remarks)>, StateError> {
    let place = match options.dir.canonicalize() {
        Ok(dir) => Place::at(dir, Remarks::new()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StateError::Io(format!("the folder {}: {error}", options.dir.display()))),
    };
    if !place.look()? {
        return Ok(None);
    }
    let mut remarks = Remarks::new();
    let (connection, format) = match place.connect_to_read(false) {
        Ok(opened) => opened,
        // The index of the log cannot be written: no room, or a file system that takes no writes any more. Where nobody is
        // at work the log is read without one.
        Err(error @ StateError::Io(_)) if !place.is_in_use() => {
            let opened = place.connect_to_read(true)?;
            remarks.push(format!("the state is only read, its disk takes no writes now ({error})"));
            opened
        }
        Err(error) => return Err(error),
    };
    if format < FORMAT {
        drop(connection);
        return durable(options).map(Some);
    }
    let home = Home::Durable { path: place.file.clone(), turn: None };
    Ok(Some((Tables::new(connection, Epoch::reader(&place.epochs), home), remarks)))
}

/// The folder of the state.
struct Place {
    dir: PathBuf,
    file: PathBuf,
    epochs: PathBuf,
    remarks: Remarks,
}

impl Place {
    fn make(dir: &Path) -> Result<Place, StateError> {
        let refuse = |error: io::Error| StateError::Io(format!("the folder {}: {error}", dir.display()));
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(refuse)?;
        // SQLite follows no symlink, and the folder that the operator names may well be one.
        let dir = dir.canonicalize().map_err(refuse)?;
        let mode = fs::metadata(&dir).map_err(refuse)?.permissions().mode();
        let mut remarks = Remarks::new();
        if mode & 0o077 != 0 {
            remarks.push(format!(
                "others may look into the state's folder {} (mode {:o}): `chmod 700` it, it tells of patients",
                dir.display(),
                mode & 0o777
            ));
        }
        if mount::lies_in_memory(&dir) {
            remarks.push(format!("the state lies in memory and goes with the power: {} is a tmpfs", dir.display()));
        }
        remarks.extend(mount::remark(&dir));
        let place = Place::at(dir, remarks);
        DirBuilder::new().recursive(true).mode(0o700).create(&place.epochs).map_err(refuse)?;
        Ok(place)
    }

    fn at(dir: PathBuf, remarks: Remarks) -> Place {
        Place { file: dir.join("state.db"), epochs: dir.join("epochs"), dir, remarks }
    }

    /// A process works with the state, or that cannot be told.
    fn is_in_use(&self) -> bool {
        match fs::read_dir(&self.epochs) {
            Ok(locks) => locks.flatten().any(|lock| is_held(&lock.path())),
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        }
    }

    /// Waits for a lock on a file of its own.
    fn lock(&self, name: &str) -> Result<File, StateError> {
        let lock = self.open_lock(name)?;
        lock.lock().map_err(|error| self.io(name, &error))?;
        Ok(lock)
    }

    fn open_lock(&self, name: &str) -> Result<File, StateError> {
        fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.dir.join(name))
            .map_err(|error| self.io(name, &error))
    }

    /// Looks at the head of the file, which changes nothing. False when there is none.
    fn look(&self) -> Result<bool, StateError> {
        let mut file = match File::open(&self.file) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let log = self.beside("-wal");
                let has_log = fs::metadata(&log).is_ok_and(|found| found.len() > 0);
                return match self.recorded()?.first() {
                    _ if has_log => Err(self.unusable(format!("it is gone, and its log {} is there", log.display()))),
                    Some(id) => Err(self.unusable(format!(
                        "it is gone, and {} says that a process worked with it and did not end by itself",
                        lock_path(&self.epochs, *id).display()
                    ))),
                    None => Ok(false),
                };
            }
            Err(error) => return Err(self.io("state.db", &error)),
        };
        let mut head = Vec::with_capacity(100);
        file.by_ref().take(100).read_to_end(&mut head).map_err(|error| self.io("state.db", &error))?;
        let number = |at: usize| head.get(at..).and_then(<[u8]>::first_chunk).map(|bytes| u32::from_be_bytes(*bytes));
        match (number(68), number(60)) {
            (Some(APPLICATION_ID), Some(format)) if head.starts_with(b"SQLite format 3\0") => self.judge(format),
            (Some(_), _) => Err(self.unusable("it is no state of lamplighter".into())),
            _ => Err(self.unusable(format!("it has {} bytes", head.len()))),
        }
    }

    fn judge(&self, format: u32) -> Result<bool, StateError> {
        match format {
            1..=FORMAT => Ok(true),
            0 => Err(self.unusable("it has no format".into())),
            format => Err(StateError::Newer { path: self.file.clone(), format }),
        }
    }

    /// Makes a whole file under another name, and then gives it its own: a power cut leaves none or all of it.
    fn create(&self, options: &StateOptions<'_>) -> Result<(), StateError> {
        let new = self.dir.join("state.db.new");
        for end in ["", "-wal", "-shm", "-journal"] {
            let mut name = new.clone().into_os_string();
            name.push(end);
            match fs::remove_file(&name) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(self.io("state.db.new", &error)),
                _ => {}
            }
        }
        let file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)
            .map_err(|error| self.io("state.db.new", &error))?;
        let made = open_connection(&new).and_then(|connection| {
            connection.execute_batch(&format!(
                "PRAGMA page_size = {STATE_PAGE_BYTES}; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA synchronous = FULL;
                 BEGIN; {SCHEMA} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT}; COMMIT;"
            ))?;
            connection.execute("INSERT INTO meta(instance) VALUES(?1)", [options.instance])?;
            connection.close().map_err(|(_, error)| error)
        });
        made.map_err(|error| self.sql(error))?;
        pass(Point::StateMade);
        // The folder may be as new as the file.
        let named = file
            .sync_all()
            .and_then(|()| if planted(Bug::FolderNameUnsynced) { Ok(()) } else { sync_above(&self.dir) })
            .and_then(|()| fs::rename(&new, &self.file))
            .and_then(|()| self.sync_dir());
        named.map_err(|error| self.io("state.db", &error))?;
        pass(Point::StateNamed);
        Ok(())
    }

    fn connect(&self, options: &StateOptions<'_>) -> Result<Tables, StateError> {
        let sql = |error| self.sql(error);
        let connection = open_connection(&self.file).map_err(sql)?;
        // The answer counts: where the log cannot be used the call succeeds and nothing is changed. So does what comes
        // behind it: the change is committed after the answer is given, and a disk that fails then leaves the old mode.
        let modes: Vec<String> = connection
            .prepare("PRAGMA journal_mode = WAL")
            .and_then(|mut change| change.query_map([], |row| row.get(0))?.collect())
            .map_err(sql)?;
        let mode = modes.concat();
        if mode != "wal" {
            let cause = format!("{}: its file system takes no log (journal_mode is {mode})", self.file.display());
            return Err(StateError::Io(cause));
        }
        connection
            .execute_batch(&format!(
                "PRAGMA synchronous = {}; PRAGMA wal_autocheckpoint = {STATE_LOG_PAGES};
                 PRAGMA journal_size_limit = {STATE_LOG_BYTES}; PRAGMA foreign_keys = ON; PRAGMA secure_delete = ON;
                 PRAGMA temp_store = MEMORY; PRAGMA automatic_index = OFF; PRAGMA cache_size = -{STORE_CACHE_KIB};",
                synchronous()
            ))
            .map_err(sql)?;
        // A newer format may stand in the log only.
        self.judge(connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(sql)?)?;
        self.settle_dead_epochs(&connection)?;
        self.make_current(&connection)?;
        let epoch = self.begin_epoch(&connection, options)?;
        // The log may be as new as the epoch, and SQLite does not say when its name could not be synced.
        self.sync_dir().map_err(|error| self.io("state.db-wal", &error))?;
        let turn = self.open_lock("turn.lock")?;
        Ok(Tables::new(connection, epoch, Home::Durable { path: self.file.clone(), turn: Some(turn) }))
    }

    /// Cuts a log that has grown beyond measure. What to tell the operator when that cannot be done.
    fn cut_log(&self, connection: &Connection) -> Option<String> {
        let log = || fs::metadata(self.beside("-wal")).map_or(0, |found| found.len());
        if log() <= STATE_LOG_ALARM_BYTES {
            return None;
        }
        // Nobody waits for a reader that takes its time. Where it fails the log stays as it is.
        let _ = connection.busy_timeout(Duration::ZERO);
        let _ = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        let _ = connection.busy_timeout(STATE_BUSY_TIMEOUT);
        let bytes = log();
        (bytes > STATE_LOG_ALARM_BYTES).then(|| {
            let log = self.beside("-wal");
            format!("{} has {bytes} bytes: another program keeps reading it, so that it cannot be cut", log.display())
        })
    }

    /// Makes the format of today of an older one: all of it or nothing.
    fn make_current(&self, connection: &Connection) -> Result<(), StateError> {
        let sql = |error| self.sql(error);
        let format: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(sql)?;
        if format == FORMAT {
            return Ok(());
        }
        if self.is_in_use() {
            let cause = "a process of an older version works with it: end that first";
            return Err(StateError::Io(format!("{}: {cause}", self.file.display())));
        }
        let steps = STEPS[format.saturating_sub(1) as usize..].concat();
        let made = format!("BEGIN IMMEDIATE; {steps} PRAGMA user_version = {FORMAT}; COMMIT;");
        // A step that fails leaves its transaction open: it goes with the connection.
        connection.execute_batch(&made).map_err(sql)
    }

    /// A connection that only reads, and the format that it found. `alone`: without the index of the log that processes
    /// share, and without their locks.
    fn connect_to_read(&self, alone: bool) -> Result<(Connection, u32), StateError> {
        let flags =
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let has_log = fs::metadata(self.beside("-wal")).is_ok_and(|found| found.len() > 0);
        let opened = match (alone, has_log) {
            (false, _) => Connection::open_with_flags(&self.file, flags),
            (true, true) => Connection::open_with_flags_and_vfs(&self.file, flags, c"unix-none"),
            // Without a log one would be made.
            (true, false) => Connection::open_with_flags(unchanging(&self.file), flags | OpenFlags::SQLITE_OPEN_URI),
        };
        let found = opened.and_then(|connection| {
            connection.busy_timeout(STATE_BUSY_TIMEOUT)?;
            // With it the index is in memory.
            let mode = if alone { "EXCLUSIVE" } else { "NORMAL" };
            connection.execute_batch(&format!(
                "PRAGMA locking_mode = {mode}; PRAGMA temp_store = MEMORY; PRAGMA automatic_index = OFF;
                 PRAGMA cache_size = -{STORE_CACHE_KIB};"
            ))?;
            // The first that is read: the log is looked through.
            let format = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
            Ok((connection, format))
        });
        let (connection, format) = found.map_err(|error| self.sql(error))?;
        self.judge(format)?;
        self.misses_nothing(&connection)?;
        Ok((connection, format))
    }

    /// Epochs whose processes recorded them and did not end by themselves.
    fn recorded(&self) -> Result<Vec<i64>, StateError> {
        let recorded = self.locks()?.into_iter().filter(|(_, is_recorded)| *is_recorded);
        Ok(recorded.map(|(id, _)| id).collect())
    }

    fn locks(&self) -> Result<Vec<(i64, bool)>, StateError> {
        match locks(&self.epochs) {
            Ok(found) => Ok(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(self.io("epochs", &error)),
        }
    }

    /// Refuses a state that lacks what a process had committed: its log is gone, or it is an older copy.
    fn misses_nothing(&self, connection: &Connection) -> Result<(), StateError> {
        // In this order: an epoch is recorded behind its commit.
        let recorded = self.recorded()?;
        let last = last_epoch(connection).map_err(|error| self.sql(error))?;
        match recorded.into_iter().find(|id| *id > last && !is_held(&lock_path(&self.epochs, *id))) {
            None => Ok(()),
            Some(id) => Err(self.unusable(format!(
                "what the process of {} committed is not in it: its log is gone, or it is an older copy. To go on with what \
                 it has, remove that file",
                lock_path(&self.epochs, id).display()
            ))),
        }
    }

    /// After an epoch that did not end by itself the whole file is looked through, once. Epochs that no unfinished run
    /// belongs to go.
    fn settle_dead_epochs(&self, connection: &Connection) -> Result<(), StateError> {
        let sql = |error| self.sql(error);
        self.misses_nothing(connection)?;
        let running: Vec<i64> = connection
            .prepare("SELECT id FROM epoch WHERE is_over = 0")
            .and_then(|mut running| running.query_map([], |row| row.get(0))?.collect())
            .map_err(sql)?;
        let dead: Vec<i64> = running.into_iter().filter(|id| !is_held(&lock_path(&self.epochs, *id))).collect();
        if !dead.is_empty() {
            pass(Point::DeadEpochFound);
            let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(sql)?;
            if found != "ok" {
                return Err(self.unusable(found));
            }
        }
        for id in &dead {
            connection.execute("UPDATE epoch SET is_over = 1 WHERE id = ?1", [id]).map_err(sql)?;
            pass(Point::DeadEpochOver);
        }
        self.remove_locks_of_the_over(connection)?;
        connection
            .execute(
                "DELETE FROM epoch WHERE is_over = 1 AND NOT EXISTS
                    (SELECT 1 FROM head WHERE head.epoch = epoch.id AND head.phase < 2)",
                [],
            )
            .map_err(sql)?;
        Ok(())
    }

    /// Locks of epochs that are over go, also those that their processes could not remove. Who begins an epoch holds the door, as we
    /// do, and takes a number that is greater than all: nobody takes one of these any more.
    fn remove_locks_of_the_over(&self, connection: &Connection) -> Result<(), StateError> {
        let last = last_epoch(connection).map_err(|error| self.sql(error))?;
        let is_running = "SELECT EXISTS (SELECT 1 FROM epoch WHERE id = ?1 AND is_over = 0)";
        let mut is_running = connection.prepare(is_running).map_err(|error| self.sql(error))?;
        for (id, _) in self.locks()?.into_iter().filter(|(id, _)| *id <= last) {
            let lock = lock_path(&self.epochs, id);
            if !is_running.query_row([id], |row| row.get(0)).map_err(|error| self.sql(error))? && !is_held(&lock) {
                // One that stays does no harm: nobody holds it.
                let _ = fs::remove_file(lock);
            }
        }
        Ok(())
    }

    /// The lock is held before the row is seen by anybody.
    fn begin_epoch(&self, connection: &Connection, options: &StateOptions<'_>) -> Result<Epoch, StateError> {
        let sql = |error| self.sql(error);
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
        connection.execute_batch("BEGIN IMMEDIATE").map_err(sql)?;
        let mut id = last_epoch(connection).map_err(sql)? + 1;
        let epoch = loop {
            // Somebody may still work with a file that was set aside.
            match Epoch::take(&self.epochs, id, boot.clone()).map_err(|error| self.io("epochs", &error))? {
                Some(epoch) => break epoch,
                None => id += 1,
            }
        };
        connection
            .execute(
                "INSERT INTO epoch(id, boot, pid, started_ms, is_over) VALUES(?1, ?2, ?3, ?4, 0)",
                params![epoch.id, epoch.boot, process::id(), options.now_ms],
            )
            .and_then(|_| connection.execute_batch("COMMIT"))
            .map_err(sql)?;
        pass(Point::EpochBegun);
        epoch.is_recorded();
        Ok(epoch)
    }

    /// Gives the file another name, with its log: SQLite opens both by it. What to tell the operator.
    fn set_aside(&self, now_ms: i64, error: &StateError) -> Result<String, StateError> {
        if self.is_in_use() {
            return Err(StateError::InUse { path: self.file.clone() });
        }
        let what = if matches!(error, StateError::Newer { .. }) { "newer" } else { "corrupt" };
        let when = jiff::Timestamp::from_millisecond(now_ms).unwrap_or_default().strftime("%Y%m%dT%H%M%SZ").to_string();
        let mut aside = format!("state.db.{what}-{when}");
        let mut number = 1;
        while fs::symlink_metadata(self.dir.join(&aside)).is_ok() {
            number += 1;
            aside = format!("state.db.{what}-{when}-{number}");
        }
        for end in ["", "-wal", "-shm"] {
            match fs::rename(self.beside(end), self.dir.join(format!("{aside}{end}"))) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(self.io("state.db", &error)),
                _ => {}
            }
        }
        // They tell of the old one.
        for lock in fs::read_dir(&self.epochs).map_err(|error| self.io("epochs", &error))?.flatten() {
            fs::remove_file(lock.path()).map_err(|error| self.io("epochs", &error))?;
        }
        self.sync_dir().map_err(|error| self.io("state.db", &error))?;
        Ok(format!("the old state was set aside as {}: a new one begins", self.dir.join(aside).display()))
    }

    fn beside(&self, end: &str) -> PathBuf {
        let mut name = self.file.clone().into_os_string();
        name.push(end);
        name.into()
    }

    /// SQLite does not say when the folder could not be synced; a name is only there after that.
    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }

    /// Whether a file can be made and written here.
    fn takes_a_file(&self) -> io::Result<()> {
        let path = self.dir.join(format!("state.try-{}", process::id()));
        let taken = fs::write(&path, [0; STATE_PAGE_BYTES as usize]);
        let _ = fs::remove_file(&path);
        taken
    }

    fn io(&self, name: &str, error: &io::Error) -> StateError {
        StateError::Io(format!("{}: {error}", self.dir.join(name).display()))
    }

    fn unusable(&self, cause: String) -> StateError {
        StateError::Unusable { path: self.file.clone(), cause }
    }

    fn sql(&self, error: rusqlite::Error) -> StateError {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => self.unusable(error.to_string()),
            Some(ErrorCode::CannotOpen | ErrorCode::SystemIoFailure) => match self.takes_a_file() {
                // SQLite keeps the cause for itself.
                Err(cause) => StateError::Io(format!("{}: {error} ({cause})", self.file.display())),
                Ok(()) => StateError::Io(format!("{}: {error}", self.file.display())),
            },
            _ => StateError::Io(format!("{}: {error}", self.file.display())),
        }
    }
}

/// A commit is on the disk before it is called done.
fn synchronous() -> &'static str {
    match () {
        () if planted(Bug::StateUnsynced) => "OFF",
        () if planted(Bug::StateSyncedLate) => "NORMAL",
        () => "FULL",
    }
}

/// The name of a file that does not change while it is open, as SQLite understands it.
fn unchanging(file: &Path) -> String {
    let mut name = "file:".to_owned();
    for byte in file.as_os_str().as_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => name.push(char::from(*byte)),
            _ => name.push_str(&format!("%{byte:02x}")),
        }
    }
    name + "?immutable=1"
}

/// The last epoch that began.
fn last_epoch(connection: &Connection) -> rusqlite::Result<i64> {
    let last = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'epoch'";
    connection.query_row(last, [], |row| row.get(0))
}

/// A connection to a new file in `dir` whose name is gone again.
pub(super) fn private(dir: &Path, limit_bytes: u64) -> Result<Connection, StoreError> {
    let refuse = |cause: &dyn std::fmt::Display| {
        StoreError::Io(format!("the private store cannot be made in {}: {cause}", dir.display()))
    };
    let path = new_file(dir).map_err(|error| refuse(&error))?;
    let opened = open_connection(&path).and_then(|connection| {
        // Locks are taken once and for all: nobody else can open a file without a name, nor leave it a journal.
        connection.execute_batch(&format!(
            "PRAGMA page_size = {STORE_PAGE_BYTES}; PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF;
             PRAGMA temp_store = MEMORY; PRAGMA automatic_index = OFF; PRAGMA cache_size = -{STORE_CACHE_KIB};
             BEGIN EXCLUSIVE; COMMIT;"
        ))?;
        let page_bytes: u64 = connection.query_row("PRAGMA page_size", [], |row| row.get::<_, i64>(0))?.unsigned_abs();
        connection.execute_batch(&format!("PRAGMA max_page_count = {}", (limit_bytes / page_bytes.max(512)).max(1)))?;
        Ok(connection)
    });
    let removed = fs::remove_file(&path);
    let connection = opened.map_err(|error| refuse(&error))?;
    removed.map_err(|error| refuse(&error))?;
    Ok(connection)
}

/// A connection to a file that is there.
fn open_connection(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW,
    )?;
    connection.busy_timeout(STATE_BUSY_TIMEOUT)?;
    Ok(connection)
}

/// Makes an empty file that only we may read, under a name that nobody has.
fn new_file(dir: &Path) -> io::Result<PathBuf> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = dir.join(format!(".lamplighter-spool-{}-{number}", process::id()));
        match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => return result.map(|_| path),
        }
    }
}
