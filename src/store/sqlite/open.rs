//! Opening the file: the private one that has no name, and the durable one, which is never begun anew in silence.

use super::{
    Remarks,
    epoch::{Epoch, is_held, lock_path},
    mount,
    schema::{APPLICATION_ID, FORMAT, SCHEMA, STEPS},
    tables::{Home, Tables},
};
use crate::{
    limits::{
        STATE_BUSY_TIMEOUT, STATE_LOG_BYTES, STATE_LOG_PAGES, STATE_PAGE_BYTES, STORE_CACHE_KIB, STORE_PAGE_BYTES,
    },
    store::StoreError,
    world::{
        plant::{Bug, planted},
        sync_above,
    },
};
use rusqlite::{Connection, ErrorCode, OpenFlags, params};
use std::{
    fmt,
    fs::{self, DirBuilder, File},
    io::{self, Read},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
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
        Ok(Some(tables)) => return Ok((tables, remarks)),
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
        if lies_in_memory(&dir) {
            remarks.push(format!("the state lies in memory and goes with the power: {} is a tmpfs", dir.display()));
        }
        remarks.extend(mount::remark(&dir));
        let epochs = dir.join("epochs");
        DirBuilder::new().recursive(true).mode(0o700).create(&epochs).map_err(refuse)?;
        Ok(Place { file: dir.join("state.db"), epochs, dir, remarks })
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
                return match fs::metadata(&log) {
                    Ok(found) if found.len() > 0 => {
                        Err(self.unusable(format!("it is gone, and its log {} is there", log.display())))
                    }
                    _ => Ok(false),
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
        // The folder may be as new as the file.
        let named = file
            .sync_all()
            .and_then(|()| if planted(Bug::FolderNameUnsynced) { Ok(()) } else { sync_above(&self.dir) })
            .and_then(|()| fs::rename(&new, &self.file))
            .and_then(|()| self.sync_dir());
        named.map_err(|error| self.io("state.db", &error))
    }

    fn connect(&self, options: &StateOptions<'_>) -> Result<Tables, StateError> {
        let sql = |error| self.sql(error);
        let connection = open_connection(&self.file).map_err(sql)?;
        // The answer counts: where the log cannot be used the call succeeds and nothing is changed.
        let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(sql)?;
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
        self.make_current(&connection)?;
        self.settle_dead_epochs(&connection)?;
        let epoch = self.begin_epoch(&connection, options)?;
        // The log may be as new as the epoch, and SQLite does not say when its name could not be synced.
        self.sync_dir().map_err(|error| self.io("state.db-wal", &error))?;
        let turn = self.open_lock("turn.lock")?;
        Ok(Tables::new(connection, epoch, Home::Durable { path: self.file.clone(), turn }))
    }

    /// Makes the format of today of an older one: all of it or nothing.
    fn make_current(&self, connection: &Connection) -> Result<(), StateError> {
        let sql = |error| self.sql(error);
        let format: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(sql)?;
        if format == FORMAT {
            return Ok(());
        }
        let steps = STEPS[format.saturating_sub(1) as usize..].concat();
        let made = format!("BEGIN IMMEDIATE; {steps} PRAGMA user_version = {FORMAT}; COMMIT;");
        // A step that fails leaves its transaction open: it goes with the connection.
        connection.execute_batch(&made).map_err(sql)
    }

    /// After an epoch that did not end by itself the whole file is looked through, once. Epochs that no unfinished run
    /// belongs to go.
    fn settle_dead_epochs(&self, connection: &Connection) -> Result<(), StateError> {
        let sql = |error| self.sql(error);
        let running: Vec<i64> = connection
            .prepare("SELECT id FROM epoch WHERE is_over = 0")
            .and_then(|mut running| running.query_map([], |row| row.get(0))?.collect())
            .map_err(sql)?;
        let dead: Vec<i64> = running.into_iter().filter(|id| !is_held(&lock_path(&self.epochs, *id))).collect();
        if !dead.is_empty() {
            let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(sql)?;
            if found != "ok" {
                return Err(self.unusable(found));
            }
        }
        for id in &dead {
            connection.execute("UPDATE epoch SET is_over = 1 WHERE id = ?1", [id]).map_err(sql)?;
            // One that stays does no harm: nobody holds it.
            let _ = fs::remove_file(lock_path(&self.epochs, *id));
        }
        connection
            .execute(
                "DELETE FROM epoch WHERE is_over = 1 AND NOT EXISTS
                    (SELECT 1 FROM head WHERE head.epoch = epoch.id AND head.phase < 2)",
                [],
            )
            .map_err(sql)?;
        Ok(())
    }

    /// The lock is held before the row is seen by anybody.
    fn begin_epoch(&self, connection: &Connection, options: &StateOptions<'_>) -> Result<Epoch, StateError> {
        let sql = |error| self.sql(error);
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
        connection.execute_batch("BEGIN IMMEDIATE").map_err(sql)?;
        let last: i64 = connection
            .query_row("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'epoch'", [], |row| row.get(0))
            .map_err(sql)?;
        let mut id = last + 1;
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
        Ok(epoch)
    }

    /// Gives the file another name, with its log: SQLite opens both by it. What to tell the operator.
    fn set_aside(&self, now_ms: i64, error: &StateError) -> Result<String, StateError> {
        let held = fs::read_dir(&self.epochs).map_err(|error| self.io("epochs", &error))?;
        if held.flatten().any(|lock| is_held(&lock.path())) {
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

    fn io(&self, name: &str, error: &io::Error) -> StateError {
        StateError::Io(format!("{}: {error}", self.dir.join(name).display()))
    }

    fn unusable(&self, cause: String) -> StateError {
        StateError::Unusable { path: self.file.clone(), cause }
    }

    fn sql(&self, error: rusqlite::Error) -> StateError {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => self.unusable(error.to_string()),
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

/// True when a folder is kept in memory only.
pub(super) fn lies_in_memory(dir: &Path) -> bool {
    const TMPFS: u32 = 0x0102_1994;
    const RAMFS: u32 = 0x8584_58f6;
    // The type of the field differs between machines; its lower 32 bits are the number.
    rustix::fs::statfs(dir).is_ok_and(|found| matches!(found.f_type as u32, TMPFS | RAMFS))
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
