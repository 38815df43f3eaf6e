//! Files that a run writes: safe names, one owner for each path, whole files only.
//!
//! `Http(to:)`, `Render(to:)` and `Write` create them here. Nothing is ever appended, no symlink below the root is
//! followed, and a name appears only when the file is whole: temporary name, fsync, rename, fsync of the folder.

use super::{
    Acted, ItemContext, Stop,
    files::{self, Scarcity},
};
use crate::{
    item::{Class, Key, Lineage, OutputRecord, hex},
    limits::{
        OUTPUT_BLOCK_BYTES, OUTPUT_FOLDERS_KNOWN_MAX, OUTPUT_PATH_BYTES_MAX, OUTPUT_PATH_PART_BYTES_MAX, SWEEP_NAMES,
    },
    store::{Claim, RunStore, StoreError},
    world::{
        World,
        failpoint::{Point, pass},
        plant::{Bug, planted},
        sync_above,
    },
};
use rustix::{
    fs::{AtFlags, Mode, OFlags},
    io::Errno,
};
use sha2::{Digest, Sha256};
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt,
    fs::{self, File},
    io::Write,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

/// Bytes of a name that cannot be used which its message quotes.
const PATH_SHOWN_BYTES: usize = 200;

/// An id of a run that is longer does not stand in names.
const RUN_IN_NAMES_BYTES: usize = 64;

/// How every name of ours begins; no output may be called so.
pub(super) const TEMPORARY_PREFIX: &str = ".lamplighter-";

/// Where a run's files go and who owns which path. Cheap to clone.
#[derive(Clone)]
pub struct Outputs(Arc<Inner>);

struct Inner {
    world: World,
    root: PathBuf,
    run: String,
    store: OnceLock<RunStore>,
    memory: Mutex<Memory>,
}

/// What is known without a store: sources and gathers write few files.
#[derive(Default)]
struct Memory {
    claims: BTreeMap<String, (u16, Key, Lineage)>,
    written: BTreeMap<String, OutputRecord>,
    /// Names of the stages that wrote, by their places: for messages.
    stages: BTreeMap<u16, Arc<str>>,
    /// Temporary files that are on their way.
    halves: BTreeSet<String>,
    /// Folders whose names are on the disk, by their paths below the root; the root is the empty one.
    synced: BTreeSet<String>,
}

/// The name of a file below the output root: relative, no `..`, no empty part, no control character.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OutputPath(String);

/// Why a text is no [`OutputPath`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputError {
    /// Nothing was written, or a part between two `/` is empty.
    Empty,
    /// It begins with `/`.
    Absolute,
    /// A part is `.` or `..`.
    Dots,
    /// A part has a control character or NUL.
    Control,
    /// A part has more than 255 bytes, or the whole more than 4,000.
    TooLong,
    /// A part begins as the temporary files do.
    Reserved,
}

/// A file on its way: it has its name only after [`OutputFile::commit`]. Dropped before, it leaves nothing behind.
pub struct OutputFile {
    world: World,
    outputs: Outputs,
    path: OutputPath,
    block: Vec<u8>,
    /// Away while the blocking pool works on it.
    half: Option<Half>,
}

/// The temporary file. Dropping it removes the file, wherever that happens: here, or on the blocking pool when nobody
/// waits for the work any more.
pub(super) struct Half {
    outputs: Outputs,
    folder: OwnedFd,
    temporary: String,
    file: File,
    hash: Sha256,
    bytes: u64,
    renamed: bool,
}

impl Outputs {
    /// Files of `run` go below `root`. Who owns which path is kept in memory until [`Outputs::keep_in`].
    pub fn new(world: World, root: PathBuf, run: &str) -> Outputs {
        let (store, memory) = (OnceLock::new(), Mutex::default());
        // A child runs in another folder: paths that it is given must not depend on ours.
        let root = std::path::absolute(&root).unwrap_or(root);
        Outputs(Arc::new(Inner { world, root, run: run.to_owned(), store, memory }))
    }

    /// From now on claims and records go to the store: for stages that write many files. The first store stays.
    pub fn keep_in(&self, store: RunStore) {
        let _ = self.0.store.set(store);
    }

    /// Removes the temporary files that a dead process of this run has left below the root. What cannot be looked at is left, and
    /// what is written by these outputs meanwhile.
    ///
    /// # Cancel safety
    /// Dropped early it ends after a few more names.
    pub async fn sweep(&self) {
        let mut left = Some(Sweep::new(self.clone()));
        while let Some(sweep) = left {
            left = self.0.world.unblock(move || sweep.go_on()).await;
        }
    }

    /// The folder that everything is below: `run.out`. It is made when the first file or child needs it.
    pub fn root(&self) -> &Path {
        &self.0.root
    }

    /// Begins a file at `path` for the item of `cx`, and claims the path for it.
    ///
    /// # Errors
    /// `data` when the path is not safe, `output_conflict` when another item of the run has it, `output` when the file
    /// cannot be made, `spool` when the claim cannot be stored. None of them is of use to try again.
    ///
    /// # Cancel safety
    /// When it is dropped no file is left; the claim stays (it is the item's).
    pub async fn create(&self, cx: &ItemContext, path: &str) -> Result<OutputFile, Box<Stop>> {
        let safe = OutputPath::parse(path).map_err(|error| {
            let shown = files::one_line(files::cut(path, PATH_SHOWN_BYTES));
            Stop::given_up(Class::Data, format!("`{shown}` is no usable name of an output: {error}"))
        })?;
        self.claim(cx, &safe).await?;
        let world = self.0.world.clone();
        let mut scarcity = Scarcity::default();
        let half = loop {
            let (outputs, name, random) = (self.clone(), safe.clone(), world.random());
            let (stop, for_now) = match world.unblock(move || Half::create(&outputs, &name, random)).await {
                Ok(half) => break half,
                Err((error, cause)) => (failed(&safe, &cause), files::for_now(&error)),
            };
            if !for_now || !scarcity.wait(cx, &format!("`{safe}` cannot be written for now")).await? {
                return Err(stop);
            }
        };
        Ok(OutputFile { world, outputs: self.clone(), path: safe, block: Vec::new(), half: Some(half) })
    }

    pub(super) fn world(&self) -> World {
        self.0.world.clone()
    }

    /// The first files written, in the order of their paths, and how many there are; of those that are kept in memory
    /// (see [`Outputs::stored`]).
    pub fn written(&self, limit: usize) -> (Vec<OutputRecord>, u64) {
        let memory = self.lock();
        (memory.written.values().take(limit).cloned().collect(), memory.written.len() as u64)
    }

    /// The same, of those in the store too.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn stored(&self, limit: usize) -> Result<(Vec<OutputRecord>, u64), StoreError> {
        let (mut first, mut total) = self.written(limit);
        if let Some(store) = self.0.store.get() {
            let (more, count) = store.outputs(limit).await?;
            first.extend(more);
            first.sort_by(|a, b| a.path.cmp(&b.path));
            first.truncate(limit);
            total += count;
        }
        Ok((first, total))
    }

    async fn claim(&self, cx: &ItemContext, path: &OutputPath) -> Acted {
        let key = cx.key.clone().unwrap_or_else(|| Key::nameless(0));
        let mine = (cx.stage_place, key.clone(), cx.lineage.clone());
        let store = self.0.store.get();
        let known = {
            let mut memory = self.lock();
            memory.stages.entry(cx.stage_place).or_insert_with(|| cx.stage.clone());
            match store {
                Some(_) => memory.claims.get(path.as_str()).cloned(),
                None => Some(memory.claims.entry(path.0.clone()).or_insert_with(|| mine.clone()).clone()),
            }
        };
        let claim = match (known, store) {
            (Some((stage, _, lineage)), _) if (stage, &lineage) == (mine.0, &mine.2) => Claim::Mine,
            (Some((stage, key, lineage)), _) => Claim::Taken { stage, key, lineage },
            (None, Some(store)) => store
                .claim_output(path.as_str(), cx.stage_place, &key, &cx.lineage)
                .await
                .map_err(|error| Stop::given_up(Class::Spool, error.to_string()))?,
            (None, None) => Claim::Mine,
        };
        let Claim::Taken { stage, key: holder, .. } = claim else { return Ok(()) };
        let holder_stage = self.lock().stages.get(&stage).map_or_else(|| format!("{stage}"), |name| name.to_string());
        Err(Stop::given_up(
            Class::OutputConflict,
            format!(
                "`{path}` belongs to item `{holder}` of stage `{holder_stage}`; `{key}` of stage `{}` renders the same \
                 path: put what tells them apart into the path",
                cx.stage
            ),
        ))
    }

    /// True when the name of a folder is on the disk. Whoever says so has synced the folder above it.
    fn is_synced(&self, folder: &str) -> bool {
        planted(Bug::FolderNameUnsynced) || self.lock().synced.contains(folder)
    }

    fn synced(&self, folder: &str) {
        let mut memory = self.lock();
        if memory.synced.len() >= OUTPUT_FOLDERS_KNOWN_MAX {
            memory.synced.clear();
        }
        memory.synced.insert(folder.to_owned());
    }

    async fn record(&self, record: &OutputRecord) -> Acted {
        let in_memory = self.lock().claims.contains_key(&record.path);
        match self.0.store.get() {
            Some(store) if !in_memory => store
                .record_output(record.clone())
                .await
                .map_err(|error| Stop::given_up(Class::Spool, error.to_string())),
            _ => {
                self.lock().written.insert(record.path.clone(), record.clone());
                Ok(())
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        // No code that can panic runs under this lock.
        self.0.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OutputPath {
    /// Reads a rendered path.
    ///
    /// # Errors
    /// When it could leave the root or is no usable name.
    pub fn parse(text: &str) -> Result<OutputPath, OutputError> {
        if text.starts_with('/') {
            return Err(OutputError::Absolute);
        }
        if text.len() > OUTPUT_PATH_BYTES_MAX {
            return Err(OutputError::TooLong);
        }
        for part in text.split('/') {
            if part.is_empty() {
                return Err(OutputError::Empty);
            }
            if part == "." || part == ".." {
                return Err(OutputError::Dots);
            }
            if part.chars().any(char::is_control) {
                return Err(OutputError::Control);
            }
            if part.len() > OUTPUT_PATH_PART_BYTES_MAX {
                return Err(OutputError::TooLong);
            }
            if part.starts_with(TEMPORARY_PREFIX) {
                return Err(OutputError::Reserved);
            }
        }
        Ok(OutputPath(text.to_owned()))
    }

    /// A name that no job can write to: it was made here.
    pub(super) fn of_ours(text: String) -> OutputPath {
        OutputPath(text)
    }

    /// The text, parts joined by `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for OutputPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for OutputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OutputError::Empty => "the path, or a part of it between two `/`, is empty",
            OutputError::Absolute => "it begins with `/`; outputs are relative to the output folder",
            OutputError::Dots => "a part of it is `.` or `..`",
            OutputError::Control => "it has a control character",
            OutputError::TooLong => "a part has more than 255 bytes, or the whole has more than 4,000",
            OutputError::Reserved => "a part begins with `.lamplighter-`, as temporary files do",
        })
    }
}

impl std::error::Error for OutputError {}

impl OutputFile {
    /// Appends bytes. Small ones are gathered before they go to the disk.
    ///
    /// # Errors
    /// Class `output`, naming the path and the cause. The file is then removed.
    ///
    /// # Cancel safety
    /// When it is dropped the file can only be dropped too.
    pub async fn write(&mut self, bytes: Vec<u8>) -> Acted {
        if self.block.is_empty() && bytes.len() >= OUTPUT_BLOCK_BYTES {
            self.block = bytes;
        } else {
            self.block.extend_from_slice(&bytes);
        }
        if self.block.len() < OUTPUT_BLOCK_BYTES {
            return Ok(());
        }
        let block = std::mem::take(&mut self.block);
        let half = self.blocking(move |half| half.append(&block)).await?;
        self.half = Some(half);
        Ok(())
    }

    /// Bytes written so far.
    pub fn bytes(&self) -> u64 {
        self.half.as_ref().map_or(0, |half| half.bytes) + self.block.len() as u64
    }

    /// Gives the file its name, replacing an older one, and records it.
    ///
    /// # Errors
    /// Class `output`, naming the path and the cause: an older file of that name is then left whole.
    ///
    /// # Cancel safety
    /// When it is dropped the file is either not there or whole; it may then be whole without a record.
    pub async fn commit(mut self) -> Result<OutputRecord, Box<Stop>> {
        let block = std::mem::take(&mut self.block);
        let name = self.path.clone();
        let half = self.blocking(move |half| half.append(&block).and_then(|()| half.rename(&name))).await?;
        let sha256 = hex(&half.hash.clone().finalize());
        let record = OutputRecord { path: self.path.0.clone(), sha256, bytes: half.bytes };
        self.outputs.record(&record).await?;
        pass(Point::FileRecorded);
        Ok(record)
    }

    async fn blocking(
        &mut self,
        work: impl FnOnce(&mut Half) -> Result<(), String> + Send + 'static,
    ) -> Result<Half, Box<Stop>> {
        let Some(mut half) = self.half.take() else {
            return Err(failed(&self.path, "an earlier write failed"));
        };
        let done = self.world.unblock(move || work(&mut half).map(|()| half)).await;
        done.map_err(|cause| failed(&self.path, &cause))
    }
}

/// The name of a half-written file: the run's id lets a recovery tell whose it was, the random part keeps others from
/// planting the name.
fn temporary_name(run: &str, random: u64) -> String {
    format!("{TEMPORARY_PREFIX}{}-{random:016x}.tmp", in_names(run))
}

/// True for what [`temporary_name`] gives for this run, and for no other name: what is called so is removed.
fn is_temporary(name: &str, run: &str) -> bool {
    let rest = name.strip_prefix(TEMPORARY_PREFIX).and_then(|rest| rest.strip_prefix(&*in_names(run)));
    let random = rest.and_then(|rest| rest.strip_prefix('-')?.strip_suffix(".tmp"));
    random.is_some_and(|hex| hex.len() == 16 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

/// A run's id as it stands in names: an id that is no part of one is told by its digest.
fn in_names(run: &str) -> Cow<'_, str> {
    let fits = run.len() <= RUN_IN_NAMES_BYTES && run.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if fits { run.into() } else { hex(&Sha256::digest(run)).into() }
}

/// On its way through all folders below a root, for what a run has half written there; no symlink is followed.
struct Sweep {
    outputs: Outputs,
    folders: Vec<PathBuf>,
    open: Option<fs::ReadDir>,
}

impl Sweep {
    fn new(outputs: Outputs) -> Sweep {
        let folders = vec![outputs.root().to_owned()];
        Sweep { outputs, folders, open: None }
    }

    /// Looks at some more names; nothing when it has looked at all. Blocks.
    fn go_on(mut self) -> Option<Sweep> {
        for _ in 0..SWEEP_NAMES {
            match self.open.as_mut().and_then(Iterator::next) {
                Some(Ok(entry)) => self.look_at(&entry),
                // The end of it, or it cannot be read on.
                Some(Err(_)) | None => self.open = fs::read_dir(self.folders.pop()?).ok(),
            }
        }
        Some(self)
    }

    fn look_at(&mut self, entry: &fs::DirEntry) {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => self.folders.push(entry.path()),
            Ok(kind) if kind.is_file() && entry.file_name().to_str().is_some_and(|name| self.is_left(name)) => {
                // One that cannot be removed costs room and nothing else.
                let _ = fs::remove_file(entry.path());
            }
            _ => {}
        }
    }

    /// A step that nobody waited for may come to its end when the run writes already.
    fn is_left(&self, name: &str) -> bool {
        is_temporary(name, &self.outputs.0.run) && !self.outputs.lock().halves.contains(name)
    }
}

impl Half {
    /// Makes the folders and the temporary file for `path`. Blocks, as all of it.
    pub(super) fn create(outputs: &Outputs, path: &OutputPath, random: u64) -> Result<Half, Refused> {
        let Inner { root, run, .. } = &*outputs.0;
        let mut folder = open_root(root)?;
        if !outputs.is_synced("") {
            sync_above(root).map_err(|error| {
                let message = format!("`{}`: {}", root.display(), files::cause(&error));
                (error, message)
            })?;
            outputs.synced("");
        }
        for (end, _) in path.as_str().match_indices('/') {
            let below = &path.as_str()[..end];
            let name = below.rsplit('/').next().unwrap_or(below);
            let (inner, is_new) = open_folder(&folder, name)?;
            // One that is there may be of another worker, or of a process that died, before its name was synced.
            if (is_new && !planted(Bug::FolderNameUnsynced)) || !outputs.is_synced(below) {
                rustix::fs::fsync(&folder).map_err(refused)?;
                outputs.synced(below);
            }
            folder = inner;
        }
        let temporary = temporary_name(run, random);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // Before it is there for a sweep to find.
        outputs.lock().halves.insert(temporary.clone());
        let file = match rustix::fs::openat(&folder, &temporary, flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => File::from(file),
            Err(errno) => {
                outputs.lock().halves.remove(&temporary);
                return Err(refused(errno));
            }
        };
        pass(Point::FileMade);
        let outputs = outputs.clone();
        Ok(Half { outputs, folder, temporary, file, hash: Sha256::new(), bytes: 0, renamed: false })
    }

    pub(super) fn append(&mut self, block: &[u8]) -> Result<(), String> {
        self.file.write_all(block).map_err(|error| files::cause(&error))?;
        self.hash.update(block);
        self.bytes += block.len() as u64;
        Ok(())
    }

    pub(super) fn rename(&mut self, path: &OutputPath) -> Result<(), String> {
        let name = path.as_str().rsplit('/').next().expect("a safe path has a part");
        pass(Point::FileWritten);
        if !planted(Bug::OutputUnsynced) {
            rustix::fs::fsync(&self.file).map_err(text)?;
        }
        pass(Point::FileSynced);
        rustix::fs::renameat(&self.folder, &self.temporary, &self.folder, name).map_err(text)?;
        self.renamed = true;
        pass(Point::FileNamed);
        match planted(Bug::OutputNameUnsynced) {
            true => Ok(()),
            false => rustix::fs::fsync(&self.folder).map_err(text),
        }
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        if !self.renamed {
            // Nobody can be told any more; a sweep finds what is left.
            let _ = rustix::fs::unlinkat(&self.folder, &self.temporary, AtFlags::empty());
        }
        self.outputs.lock().halves.remove(&self.temporary);
    }
}

/// What the system said, and the sentence about it.
pub(super) type Refused = (std::io::Error, String);

/// Opens the root folder, making it if needed. Blocks.
pub(super) fn open_root(root: &Path) -> Result<OwnedFd, Refused> {
    let name = |error: std::io::Error| {
        let message = format!("`{}`: {}", root.display(), files::cause(&error));
        (error, message)
    };
    if !root.is_dir() {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(name)?;
    }
    open_root_there(root).map_err(|errno| name(errno.into()))
}

/// The same of one that is there.
pub(super) fn open_root_there(root: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(root, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// Opens a folder inside `parent` that is there, and no symlink.
pub(super) fn open_below(parent: &OwnedFd, name: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// Opens a folder inside `parent`, making it if needed, and never through a symlink. True when it was not there.
fn open_folder(parent: &OwnedFd, name: &str) -> Result<(OwnedFd, bool), Refused> {
    let mut is_new = false;
    let opened = match open_below(parent, name) {
        Err(Errno::NOENT) => {
            is_new = true;
            match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
                // Another worker may have been faster.
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => {
                    return Err((errno.into(), format!("cannot make the folder `{name}`: {}", text(errno))));
                }
            }
            open_below(parent, name)
        }
        other => other,
    };
    opened.map(|opened| (opened, is_new)).map_err(|errno| {
        let message = match errno {
            Errno::LOOP | Errno::NOTDIR => format!("`{name}` is a symlink or a file, not a folder"),
            other => format!("cannot open the folder `{name}`: {}", text(other)),
        };
        (errno.into(), message)
    })
}

fn refused(errno: Errno) -> Refused {
    (errno.into(), text(errno))
}

fn text(errno: Errno) -> String {
    files::cause(&errno.into())
}

fn failed(path: &OutputPath, cause: &str) -> Box<Stop> {
    Stop::given_up(Class::Output, format!("cannot write the output `{path}`: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::sim::Sim;

    #[test]
    fn only_what_a_run_has_half_written_is_taken_for_it() {
        let long = "x".repeat(65);
        for run in ["20261123T023000Z-1f0c9a4b", "a", "wrote", "a_b", "", "../x", "é", &long] {
            let name = temporary_name(run, 0x0123_4567_89ab_cdef);
            assert!(is_temporary(&name, run), "{name}");
            assert!(!name.contains('/') && name.len() <= OUTPUT_PATH_PART_BYTES_MAX, "{name}");
            for other in ["20261123T023000Z-1f0c9a4", "ab", "a-b", "wrote-a", "x", &"x".repeat(64)] {
                assert!(!is_temporary(&name, other), "{name} is not of {other}");
            }
        }
        for name in [
            ".lamplighter-a-0123456789abcdef.tmp.bak",
            ".lamplighter-a-0123456789abcde.tmp",
            ".lamplighter-a-0123456789ABCDEF.tmp",
            ".lamplighter-a-0-0123456789abcdef.tmp",
            ".lamplighter-a-0123456789abcdef",
            ".lamplighter-a-.tmp",
            ".lamplighter-a-notes.txt",
            ".lamplighter-a",
            "lamplighter-a-0123456789abcdef.tmp",
        ] {
            assert!(!is_temporary(name, "a"), "{name}");
        }
        assert!(!is_temporary(".lamplighter-wrote-nightly", "wrote"), "what a job notes for `keep_out`");
    }

    #[test]
    fn what_this_process_writes_is_not_taken_for_what_a_dead_one_has_left() {
        let dir = tempfile::tempdir().expect("a folder");
        let sim = Sim::new(1);
        let outputs = Outputs::new(sim.world(), dir.path().to_owned(), "r");
        let path = OutputPath::parse("a/x").expect("a path");
        let mut halves =
            [1, 2].map(|random| Half::create(&outputs, &path, random).map_err(|(error, _)| error).expect("it is made"));
        let left = dir.path().join("a").join(temporary_name("r", 3));
        fs::write(&left, "").expect("a file");
        sim.run(outputs.sweep()).expect("it ends");
        assert!(!left.exists());
        halves[0].append(b"whole").and_then(|()| halves[0].rename(&path)).expect("it is still there");
        drop(halves);
        assert!(outputs.lock().halves.is_empty(), "nothing of them is remembered");
        assert_eq!(fs::read_dir(dir.path().join("a")).expect("a folder").count(), 1, "what is dropped is removed");
    }

    #[test]
    fn what_is_half_written_is_looked_for_step_by_step() {
        let dir = tempfile::tempdir().expect("a folder");
        let folders = ["", "a", "a/b", "c"].map(|folder| dir.path().join(folder));
        for (at, folder) in folders.iter().enumerate() {
            fs::create_dir_all(folder).expect("a folder");
            fs::write(folder.join(temporary_name("r", at as u64)), "").expect("a file");
            fs::write(folder.join("report.html"), "").expect("a file");
        }
        for at in 0..2 * SWEEP_NAMES {
            fs::write(folders[2].join(format!("{at}")), "").expect("a file");
        }
        let (mut left, mut steps) =
            (Some(Sweep::new(Outputs::new(Sim::new(1).world(), dir.path().to_owned(), "r"))), 0);
        while let Some(sweep) = left {
            left = sweep.go_on();
            steps += 1;
        }
        assert_eq!(steps, 3, "one step looks at {SWEEP_NAMES} names");
        for (at, folder) in folders.iter().enumerate() {
            assert!(!folder.join(temporary_name("r", at as u64)).exists() && folder.join("report.html").exists());
        }
    }
}
