//! Dated folders of outputs, and their end (`keep_out`).
//!
//! History is let go long before files are, so what a job wrote is noted in the folder itself: its name, size and time, in a
//! file of the job's own. Only what stands there and is unchanged is ever removed; no symlink is followed.

use super::output::{Half, OutputPath, Outputs, TEMPORARY_PREFIX, open_below, open_root_there};
use crate::{
    item::OutputRecord,
    limits::{KEEP_OUT_FILES_MAX, KEEP_OUT_LOCK_WAIT, KEEP_OUT_NOTES_BYTES_MAX},
    store::StoreError,
};
use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};
use rustix::{
    fs::{AtFlags, FlockOperation, Mode, OFlags},
    io::{Errno, retry_on_intr},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Read},
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::Path,
    time::Duration,
};

/// Folders in which nothing could be noted that a message names.
const NAMED_MAX: usize = 3;

/// What is known of a file that the job wrote: bytes, and when it was changed (seconds, nanoseconds).
type Noted = (u64, i64, i64);

/// Files of one dated folder by their path in it.
type Notes = BTreeMap<String, Noted>;

/// What stands where a job notes.
enum Found {
    Nothing,
    Notes(Notes),
    /// Something that the job did not write so: nothing is removed by it, and it is not replaced.
    Other,
}

/// What went of a dated folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Removed {
    /// How many files the job had noted there.
    pub files: usize,
    /// The folder is gone; else others have files in it.
    pub whole: bool,
}

/// Which dated folders are over.
#[derive(Clone)]
pub(crate) struct KeepOut {
    /// Name of the job.
    pub job: String,
    /// How long they stay.
    pub after: Duration,
    /// The zone of their dates.
    pub zone: TimeZone,
    /// Now.
    pub now: Timestamp,
}

impl Outputs {
    /// Notes in each dated folder which files in it this run has written, for [`Outputs::remove_dated`]. What cannot be noted
    /// is not removed later; `Err` says what. Of runs that note at once none forgets what the other has noted, but for file systems
    /// that lock no folders. A folder that another one holds is waited for without an end, and without a thread.
    ///
    /// # Cancel safety
    /// Dropped early it ends behind the folder that it is at: the others are not noted.
    pub(crate) async fn note_dated(&self, job: &str) -> Result<(), String> {
        let stored: Result<_, StoreError> = self.stored(KEEP_OUT_FILES_MAX).await;
        let (records, total) = stored.map_err(|error| error.to_string())?;
        self.note(job, records).await?;
        if total > KEEP_OUT_FILES_MAX as u64 {
            return Err(format!("of {total} files {KEEP_OUT_FILES_MAX} are noted, the others stay"));
        }
        Ok(())
    }

    async fn note(&self, job: &str, records: Vec<OutputRecord>) -> Result<(), String> {
        let world = self.world();
        let mut noting = Noting::new(self.clone(), job, records, world.random());
        loop {
            noting = world.unblock(move || noting.go_on()).await;
            if noting.folders.is_empty() {
                return noting.end();
            }
            world.sleep(KEEP_OUT_LOCK_WAIT).await;
        }
    }

    /// Names of the dated folders that are over, the oldest first.
    pub(crate) async fn dated_over(&self, keep: &KeepOut) -> Vec<String> {
        let (root, keep) = (self.root().to_owned(), keep.clone());
        self.world().unblock(move || over(&root, &keep)).await
    }

    /// Removes what the job wrote into one of them, and the folder where it is empty then; nothing where the job has noted nothing,
    /// was there lately, or notes just now.
    ///
    /// # Errors
    /// What could not be removed.
    pub(crate) async fn remove_dated(&self, keep: &KeepOut, name: &str) -> io::Result<Option<Removed>> {
        let (root, keep, name) = (self.root().to_owned(), keep.clone(), name.to_owned());
        self.world().unblock(move || remove(&root, &name, &keep)).await
    }
}

/// Name of the file in a dated folder in which a job notes what it wrote there.
fn notes_name(job: &str) -> String {
    format!("{TEMPORARY_PREFIX}wrote-{job}")
}

/// `2026-11-23` and nothing else.
fn dated(name: &str) -> Option<Date> {
    let date: Date = name.parse().ok()?;
    (date.to_string() == name).then_some(date)
}

/// On its way through the dated folders that a run has written into.
struct Noting {
    outputs: Outputs,
    job: String,
    random: u64,
    /// What is not noted yet: folders, with files and their sizes.
    folders: BTreeMap<String, Vec<(String, u64)>>,
    failed: Vec<String>,
}

impl Noting {
    fn new(outputs: Outputs, job: &str, records: Vec<OutputRecord>, random: u64) -> Noting {
        let mut folders: BTreeMap<String, Vec<(String, u64)>> = BTreeMap::new();
        for record in records {
            if let Some((folder, below)) = record.path.split_once('/').filter(|(folder, _)| dated(folder).is_some()) {
                folders.entry(folder.to_owned()).or_default().push((below.to_owned(), record.bytes));
            }
        }
        Noting { outputs, job: job.to_owned(), random, folders, failed: Vec::new() }
    }

    /// Notes in all folders but those that somebody holds just now. Blocks.
    fn go_on(mut self) -> Noting {
        for (name, written) in std::mem::take(&mut self.folders) {
            match note_in(&self.outputs, &name, &self.job, &written, self.random) {
                Ok(true) => {}
                Ok(false) => drop(self.folders.insert(name, written)),
                Err(why) => self.failed.push(format!("{name}: {why}")),
            }
        }
        self
    }

    fn end(mut self) -> Result<(), String> {
        let others = self.failed.len().saturating_sub(NAMED_MAX);
        self.failed.truncate(NAMED_MAX);
        match (self.failed.is_empty(), others) {
            (true, _) => Ok(()),
            (false, 0) => Err(self.failed.join("; ")),
            (false, others) => Err(format!("{}; and in {others} more folders", self.failed.join("; "))),
        }
    }
}

/// Notes in one dated folder what was written there; false when somebody else notes in it, or removes from it.
fn note_in(outputs: &Outputs, name: &str, job: &str, written: &[(String, u64)], random: u64) -> Result<bool, String> {
    let why = |error: io::Error| error.to_string();
    let folder = open_below(&open_root_there(outputs.root()).map_err(text)?, name).map_err(text)?;
    // What is read is what is written again: another run would be forgotten in between. Who holds it may never let go, as on a mount
    // that hangs: no thread waits for that.
    match lock(&folder, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => return Ok(false),
        other => other.map_err(text)?,
    }
    let mut notes = match read_notes(&folder, job).map_err(why)? {
        Found::Nothing => Notes::new(),
        Found::Notes(notes) => notes,
        Found::Other => {
            return Err(format!("{} are no notes of the job; they are left as they are", notes_name(job)));
        }
    };
    for (path, bytes) in written {
        // One that somebody has changed since is not the job's any more.
        match look(&folder, path).map_err(why)? {
            Some(noted) if noted.0 == *bytes => drop(notes.insert(path.clone(), noted)),
            _ => drop(notes.remove(path)),
        }
    }
    let path = OutputPath::of_ours(format!("{name}/{}", notes_name(job)));
    let notes = serde_json::to_vec(&notes).map_err(|error| error.to_string())?;
    let mut half = Half::create(outputs, &path, random).map_err(|(_, cause)| cause)?;
    half.append(&notes).and_then(|()| half.rename(&path)).map(|()| true)
}

fn over(root: &Path, keep: &KeepOut) -> Vec<String> {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut over: Vec<String> = names.filter(|name| dated(name).is_some_and(|date| keep.is_over(date))).collect();
    over.sort();
    over
}

fn remove(root: &Path, name: &str, keep: &KeepOut) -> io::Result<Option<Removed>> {
    let Ok(root) = open_root_there(root) else { return Ok(None) };
    let folder = match open_below(&root, name) {
        Ok(folder) => folder,
        // A link, a file, or gone.
        Err(_) => return Ok(None),
    };
    match lock(&folder, FlockOperation::NonBlockingLockExclusive) {
        // Somebody notes in it, or removes from it.
        Err(Errno::WOULDBLOCK) => return Ok(None),
        other => other?,
    }
    let Found::Notes(notes) = read_notes(&folder, &keep.job)? else { return Ok(None) };
    // Written anew lately, as by a backfill: it stays as long as others.
    if notes.values().any(|(_, seconds, _)| !keep.is_past(Timestamp::from_second(*seconds).unwrap_or(Timestamp::MAX))) {
        return Ok(None);
    }
    let mut parents = BTreeSet::new();
    for (path, noted) in &notes {
        let (parent, file) = path.rsplit_once('/').map_or((None, path.as_str()), |(parent, file)| (Some(parent), file));
        if look(&folder, path)? == Some(*noted) {
            match parent {
                Some(parent) => unlink(&open_path(&folder, parent)?, file, AtFlags::empty())?,
                None => unlink(&folder, file, AtFlags::empty())?,
            }
        }
        parents.extend(parent.into_iter().flat_map(|parent| {
            parent.match_indices('/').map(|(at, _)| &parent[..at]).chain([parent]).collect::<Vec<_>>()
        }));
    }
    // The deepest first; what holds something else stays.
    for parent in parents.into_iter().rev() {
        let (above, last) = parent.rsplit_once('/').map_or((None, parent), |(above, last)| (Some(above), last));
        let opened = above.map(|above| open_path(&folder, above)).transpose();
        if let Ok(above) = opened {
            let _ = unlink(above.as_ref().unwrap_or(&folder), last, AtFlags::REMOVEDIR);
        }
    }
    unlink(&folder, &notes_name(&keep.job), AtFlags::empty())?;
    let whole = match unlink(&root, name, AtFlags::REMOVEDIR) {
        // Others have files in it.
        Err(error)
            if matches!(error.raw_os_error().map(Errno::from_raw_os_error), Some(Errno::NOTEMPTY | Errno::EXIST)) =>
        {
            false
        }
        other => other.map(|()| true)?,
    };
    Ok(Some(Removed { files: notes.len(), whole }))
}

/// Takes the lock of a folder, which goes with what is open of it. A file system that has none for folders lets everybody in.
fn lock(folder: &OwnedFd, how: FlockOperation) -> rustix::io::Result<()> {
    match retry_on_intr(|| rustix::fs::flock(folder, how)) {
        Err(Errno::BADF | Errno::INVAL | Errno::NOLCK | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(()),
        other => other,
    }
}

impl KeepOut {
    /// The whole day has passed so long ago.
    fn is_over(&self, date: Date) -> bool {
        let end = date.tomorrow().and_then(|next| next.to_zoned(self.zone.clone()));
        end.is_ok_and(|end| self.is_past(end.timestamp()))
    }

    fn is_past(&self, at: Timestamp) -> bool {
        let over = SignedDuration::try_from(self.after).ok().and_then(|after| at.checked_add(after).ok());
        over.is_some_and(|over| over <= self.now)
    }
}

fn unlink(folder: &OwnedFd, name: &str, flags: AtFlags) -> io::Result<()> {
    match rustix::fs::unlinkat(folder, name, flags) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn text(errno: Errno) -> String {
    io::Error::from(errno).to_string()
}

/// A folder that is there, several folders deep; no link leads to it.
fn open_path(folder: &OwnedFd, path: &str) -> io::Result<OwnedFd> {
    let mut parts = path.split('/');
    let first = open_below(folder, parts.next().unwrap_or_default())?;
    Ok(parts.try_fold(first, |folder, part| open_below(&folder, part))?)
}

/// What stands at a path: nothing where it is no plain file, or where a link leads there.
fn look(folder: &OwnedFd, path: &str) -> io::Result<Option<Noted>> {
    if OutputPath::parse(path).is_err() {
        return Ok(None);
    }
    let opened = match path.rsplit_once('/') {
        Some((parent, file)) => open_path(folder, parent).map(Some).map(|parent| (parent, file)),
        None => Ok((None, path)),
    };
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = opened.and_then(|(parent, file)| {
        Ok(rustix::fs::openat(parent.as_ref().unwrap_or(folder), file, flags, Mode::empty())?)
    });
    match file {
        Ok(file) => {
            let meta = File::from(file).metadata()?;
            Ok(meta.is_file().then(|| (meta.len(), meta.mtime(), meta.mtime_nsec())))
        }
        Err(error) => match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            _ => Err(error),
        },
    }
}

/// What a job has noted in a folder. Notes that cannot be understood are not the job's.
fn read_notes(folder: &OwnedFd, job: &str) -> io::Result<Found> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(folder, notes_name(job), flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(Found::Nothing),
        Err(Errno::LOOP) => return Ok(Found::Other),
        Err(errno) => return Err(errno.into()),
    };
    if !file.metadata()?.is_file() {
        return Ok(Found::Other);
    }
    let mut text = Vec::new();
    file.take(KEEP_OUT_NOTES_BYTES_MAX).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text).map_or(Found::Other, Found::Notes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        store::{RunStore, memory::Memory},
        world::{World, sim::Sim},
    };
    use async_executor::Executor;
    use std::{os::unix::fs::symlink, sync::Arc};

    /// A folder with what two jobs and somebody else wrote.
    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Place {
            Place(tempfile::tempdir().expect("a folder"))
        }

        fn write(&self, path: &str, text: &str) -> OutputRecord {
            let file = self.0.path().join(path);
            fs::create_dir_all(file.parent().expect("a folder")).expect("folders");
            fs::write(&file, text).expect("a file");
            OutputRecord { path: path.into(), sha256: String::new(), bytes: text.len() as u64 }
        }

        fn note(&self, job: &str, records: &[OutputRecord]) {
            self.try_note(job, records).expect("noted");
        }

        fn try_note(&self, job: &str, records: &[OutputRecord]) -> Result<(), String> {
            let executor = Arc::new(Executor::new());
            let outputs = Outputs::new(World::real(executor.clone()), self.0.path().to_owned(), "a-run");
            smol::block_on(executor.run(outputs.note(job, records.to_vec())))
        }

        /// Removes as job `a` would, so many days from now; what is whole is gone, of the others only files are.
        fn remove(&self, days: i64) -> Vec<(String, bool)> {
            let now = fs::metadata(self.0.path()).expect("a folder").mtime();
            let now = Timestamp::from_second(now + days * 86_400).expect("an instant");
            let keep = KeepOut { job: "a".into(), after: Duration::from_secs(30 * 86_400), zone: TimeZone::UTC, now };
            let removed = over(self.0.path(), &keep).into_iter().filter_map(|name| {
                let removed = remove(self.0.path(), &name, &keep).expect("nothing is in its way")?;
                Some((name, removed.whole))
            });
            removed.collect()
        }

        fn notes(&self, day: &str) -> Vec<String> {
            let text = fs::read(self.0.path().join(format!("{day}/.lamplighter-wrote-a"))).expect("notes");
            serde_json::from_slice::<Notes>(&text).expect("notes").into_keys().collect()
        }

        fn has(&self, path: &str) -> bool {
            self.0.path().join(path).symlink_metadata().is_ok()
        }
    }

    #[test]
    fn a_folder_that_is_over_goes_with_all_that_the_job_wrote() {
        let place = Place::new();
        let records = ["2020-01-01/x.html", "2020-01-01/deep/er/y.json", "2020-01-02/z", "latest/w"];
        place.note("a", &records.map(|path| place.write(path, "text")));
        assert!(!place.has("latest/.lamplighter-wrote-a"));
        assert_eq!(place.remove(29), [], "written lately, whatever the date");
        assert_eq!(place.remove(31), [("2020-01-01".to_owned(), true), ("2020-01-02".to_owned(), true)]);
        assert!(!place.has("2020-01-01") && !place.has("2020-01-02") && place.has("latest/w"));
        assert_eq!(place.remove(31), []);
    }

    #[test]
    fn a_date_that_is_not_over_stays_however_old_its_files() {
        let place = Place::new();
        place.note("a", &[place.write("2999-01-01/x", "text")]);
        assert_eq!(place.remove(400), []);
        let keep = |now: &str| KeepOut {
            job: "a".into(),
            after: Duration::from_secs(86_400),
            zone: TimeZone::get("Asia/Shanghai").expect("a zone"),
            now: now.parse().expect("an instant"),
        };
        let date: Date = "2026-11-23".parse().expect("a date");
        // The day ends at 16:00Z, and stays one more.
        assert!(!keep("2026-11-24T15:59:59Z").is_over(date) && keep("2026-11-24T16:00:00Z").is_over(date));
    }

    #[test]
    fn what_others_wrote_or_changed_stays() {
        let place = Place::new();
        let ours = [place.write("2020-01-01/ours", "text"), place.write("2020-01-01/changed", "text")];
        place.note("a", &ours);
        place.note("b", &[place.write("2020-01-01/theirs", "text")]);
        place.write("2020-01-01/by-hand", "text");
        place.write("2020-01-01/changed", "another text");
        // Only `b` wrote here, and nobody noted anything there.
        place.note("b", &[place.write("2020-01-02/theirs", "text")]);
        place.write("2020-01-03/by-hand", "text");
        assert_eq!(place.remove(31), [("2020-01-01".to_owned(), false)]);
        assert!(!place.has("2020-01-01/ours") && !place.has("2020-01-01/.lamplighter-wrote-a"));
        for path in ["theirs", "by-hand", "changed", ".lamplighter-wrote-b"] {
            assert!(place.has(&format!("2020-01-01/{path}")), "{path}");
        }
        assert!(place.has("2020-01-02/theirs") && place.has("2020-01-03/by-hand"));
    }

    #[test]
    fn no_link_leads_out() {
        let (place, outside) = (Place::new(), Place::new());
        outside.note("a", &[outside.write("2020-01-01/x", "text")]);
        outside.write("y", "text");
        let root = |place: &Place| place.0.path().to_owned();
        // A dated link to a folder with notes; a folder below whose place a link was put; a file that became a link.
        symlink(root(&outside).join("2020-01-01"), root(&place).join("2020-01-05")).expect("a link");
        place.note("a", &[place.write("2020-01-06/deep/x", "text"), place.write("2020-01-06/y", "text")]);
        fs::remove_dir_all(root(&place).join("2020-01-06/deep")).expect("gone");
        symlink(root(&outside).join("2020-01-01"), root(&place).join("2020-01-06/deep")).expect("a link");
        fs::remove_file(root(&place).join("2020-01-06/y")).expect("gone");
        symlink(root(&outside).join("y"), root(&place).join("2020-01-06/y")).expect("a link");
        place.remove(31);
        assert!(outside.has("2020-01-01/x") && outside.has("y") && place.has("2020-01-05"));
        // Notes that somebody forged lead nowhere else either.
        place.write("2020-01-07/.lamplighter-wrote-a", "{\"../../etc/x\": [4, 0, 0], \"/etc/passwd\": [4, 0, 0]}");
        place.write("2020-01-08/.lamplighter-wrote-a", "no notes");
        place.remove(31);
        assert!(place.has("2020-01-08"));
    }

    #[test]
    fn a_folder_in_which_nothing_can_be_noted_costs_the_others_nothing() {
        let place = Place::new();
        let records =
            ["2020-01-01/x", "2020-01-02/x", "2020-01-03/x", "2020-01-04/x"].map(|path| place.write(path, "text"));
        place.write("2020-01-01/.lamplighter-wrote-a", "no notes");
        fs::remove_dir_all(place.0.path().join("2020-01-02")).expect("gone");
        symlink("elsewhere", place.0.path().join("2020-01-03/.lamplighter-wrote-a")).expect("a link");
        let why = place.try_note("a", &records).expect_err("not all is noted");
        for (day, what) in [("2020-01-01", "no notes"), ("2020-01-02", "No such file"), ("2020-01-03", "no notes")] {
            let said = why.split("; ").filter(|part| part.starts_with(day)).collect::<String>();
            assert!(said.contains(what), "{why}");
        }
        assert_eq!(place.notes("2020-01-04"), ["x"]);
        // What is there may be somebody's.
        assert_eq!(fs::read_to_string(place.0.path().join("2020-01-01/.lamplighter-wrote-a")).expect("it"), "no notes");
        assert!(fs::symlink_metadata(place.0.path().join("2020-01-03/.lamplighter-wrote-a")).expect("it").is_symlink());
    }

    #[test]
    fn what_runs_note_at_once_is_all_noted() {
        let place = Place::new();
        let records: Vec<OutputRecord> =
            (0..16).map(|at| place.write(&format!("2020-01-01/{at:02}"), "text")).collect();
        std::thread::scope(|scope| {
            for record in &records {
                let place = &place;
                scope.spawn(move || place.note("a", std::slice::from_ref(record)));
            }
        });
        assert_eq!(place.notes("2020-01-01").len(), 16);
        // Who removes does not wait for one who notes.
        let folder = open_below(&open_root_there(place.0.path()).expect("it"), "2020-01-01").expect("it");
        lock(&folder, FlockOperation::LockExclusive).expect("the lock");
        assert_eq!(place.remove(31), []);
        drop(folder);
        assert_eq!(place.remove(31), [("2020-01-01".to_owned(), true)]);
    }

    #[test]
    fn a_folder_that_somebody_holds_is_noted_when_it_is_let_go_and_holds_up_no_other() {
        let place = Place::new();
        let records = ["2020-01-01/x", "2020-01-02/x"].map(|path| place.write(path, "text"));
        let sim = Sim::new(1);
        let (world, held) = (sim.world(), open_below(&open_root_there(place.0.path()).expect("it"), "2020-01-01"));
        let held = held.expect("a folder");
        lock(&held, FlockOperation::LockExclusive).expect("the lock");
        let outputs = Outputs::new(world.clone(), place.0.path().to_owned(), "a-run");
        let lets_go = async {
            world.sleep(Duration::from_secs(30)).await;
            assert!(!place.has("2020-01-01/.lamplighter-wrote-a"));
            assert_eq!(place.notes("2020-01-02"), ["x"]);
            drop(held);
        };
        let story = async {
            let rows = RunStore::new(Arc::new(Memory::new(1 << 20)), "a-run");
            for record in &records {
                rows.record_output(record.clone()).await.expect("it is recorded");
            }
            outputs.keep_in(rows);
            futures_lite::future::zip(outputs.note_dated("a"), lets_go).await.0
        };
        assert_eq!(sim.run(story), Ok(Ok(())));
        assert_eq!(place.notes("2020-01-01"), ["x"]);
        assert!(sim.elapsed() < Duration::from_secs(31), "{:?}", sim.elapsed());
    }

    #[test]
    fn dates_are_whole_names() {
        for name in
            ["2026-11-23x", "x2026-11-23", "20261123", "2026-11-23T00:00", "2026-W47-1", "2026-13-01", "+002026-11-23"]
        {
            assert_eq!(dated(name), None, "{name}");
        }
        assert!(dated("2026-11-23").is_some());
    }
}
