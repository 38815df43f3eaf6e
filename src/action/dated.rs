//! Dated folders of outputs, and their end (`keep_out`).
//!
//! History is let go long before files are, so what a job wrote is noted in the folder itself: its name, size and time, in a
//! file of the job's own. Only what stands there and is unchanged is ever removed; no symlink is followed.

use super::output::{Half, OutputPath, Outputs, TEMPORARY_PREFIX};
use crate::{
    item::OutputRecord,
    limits::{KEEP_OUT_FILES_MAX, KEEP_OUT_FOLDERS, KEEP_OUT_NOTES_BYTES_MAX},
    store::StoreError,
};
use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};
use rustix::{
    fs::{AtFlags, Mode, OFlags},
    io::Errno,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Read},
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::Path,
    time::Duration,
};

/// What is known of a file that the job wrote: bytes, and when it was changed (seconds, nanoseconds).
type Noted = (u64, i64, i64);

/// Files of one dated folder by their path in it.
type Notes = BTreeMap<String, Noted>;

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
    /// is not removed later; `Err` says what.
    pub(crate) async fn note_dated(&self, job: &str) -> Result<(), String> {
        let stored: Result<_, StoreError> = self.stored(KEEP_OUT_FILES_MAX).await;
        let (records, total) = stored.map_err(|error| error.to_string())?;
        let (outputs, job, world) = (self.clone(), job.to_owned(), self.world());
        let random = world.random();
        world.unblock(move || note(&outputs, &job, &records, random)).await?;
        if total > KEEP_OUT_FILES_MAX as u64 {
            return Err(format!("of {total} files {KEEP_OUT_FILES_MAX} are noted, the others stay"));
        }
        Ok(())
    }

    /// Removes what the job wrote into dated folders that are over, and those of them that are empty then: names of the
    /// folders, and what could not be removed.
    pub(crate) async fn remove_dated(&self, keep: KeepOut) -> (Vec<String>, Vec<String>) {
        let root = self.root().to_owned();
        self.world().unblock(move || remove(&root, &keep)).await
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

fn note(outputs: &Outputs, job: &str, records: &[OutputRecord], random: u64) -> Result<(), String> {
    let mut folders: BTreeMap<&str, Vec<(&str, u64)>> = BTreeMap::new();
    for record in records {
        if let Some((folder, below)) = record.path.split_once('/').filter(|(folder, _)| dated(folder).is_some()) {
            folders.entry(folder).or_default().push((below, record.bytes));
        }
    }
    for (name, written) in folders {
        let why = |error: io::Error| format!("{name}: {error}");
        let folder = open_below(&open_root(outputs.root()).map_err(why)?, name).map_err(why)?;
        let mut notes = read_notes(&folder, job).map_err(why)?.unwrap_or_default();
        for (path, bytes) in written {
            // One that somebody has changed since is not the job's any more.
            match look(&folder, path).map_err(why)? {
                Some(noted) if noted.0 == bytes => drop(notes.insert(path.to_owned(), noted)),
                _ => drop(notes.remove(path)),
            }
        }
        let path = OutputPath::of_ours(format!("{name}/{}", notes_name(job)));
        let text = serde_json::to_vec(&notes).map_err(|error| error.to_string())?;
        let mut half = Half::create(outputs, &path, random).map_err(|(error, _)| why(error))?;
        half.append(&text).and_then(|()| half.rename(&path)).map_err(|error| format!("{name}: {error}"))?;
    }
    Ok(())
}

fn remove(root: &Path, keep: &KeepOut) -> (Vec<String>, Vec<String>) {
    let (mut removed, mut left) = (Vec::new(), Vec::new());
    let Ok(folder) = open_root(root) else { return (removed, left) };
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut over: Vec<String> = names.filter(|name| dated(name).is_some_and(|date| keep.is_over(date))).collect();
    over.sort();
    let mut files = 0;
    for name in over {
        if removed.len() >= KEEP_OUT_FOLDERS || files >= KEEP_OUT_FILES_MAX {
            break;
        }
        match remove_folder(&folder, &name, keep) {
            Ok(Some(count)) => {
                files += count;
                removed.push(name);
            }
            Ok(None) => {}
            Err(error) => left.push(format!("{name}: {error}")),
        }
    }
    (removed, left)
}

/// How many files the job had noted there; `None` when nothing there is over.
fn remove_folder(root: &OwnedFd, name: &str, keep: &KeepOut) -> io::Result<Option<usize>> {
    let folder = match open_below(root, name) {
        Ok(folder) => folder,
        // A link, a file, or gone.
        Err(_) => return Ok(None),
    };
    let Some(notes) = read_notes(&folder, &keep.job)? else { return Ok(None) };
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
    match unlink(root, name, AtFlags::REMOVEDIR) {
        // Others have files in it.
        Err(error)
            if matches!(error.raw_os_error().map(Errno::from_raw_os_error), Some(Errno::NOTEMPTY | Errno::EXIST)) => {}
        other => other?,
    }
    Ok(Some(notes.len()))
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

fn open_root(root: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(root, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// A folder that is there, and no link.
fn open_below(folder: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(folder, name, flags, Mode::empty())?)
}

/// The same, several folders deep.
fn open_path(folder: &OwnedFd, path: &str) -> io::Result<OwnedFd> {
    let mut parts = path.split('/');
    let first = open_below(folder, parts.next().unwrap_or_default())?;
    parts.try_fold(first, |folder, part| open_below(&folder, part))
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

/// What a job has noted in a folder. Notes that cannot be understood are not the job's: nothing is removed by them.
fn read_notes(folder: &OwnedFd, job: &str) -> io::Result<Option<Notes>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(folder, notes_name(job), flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT | Errno::LOOP) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    if !file.metadata()?.is_file() {
        return Ok(None);
    }
    let mut text = Vec::new();
    file.take(KEEP_OUT_NOTES_BYTES_MAX).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::World;
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
            let world = World::real(Arc::new(Executor::new()));
            let outputs = Outputs::new(world, self.0.path().to_owned(), "a-run");
            note(&outputs, job, records, 7).expect("noted");
        }

        /// Removes as job `a` would, so many days from now.
        fn remove(&self, days: i64) -> Vec<String> {
            let now = fs::metadata(self.0.path()).expect("a folder").mtime();
            let now = Timestamp::from_second(now + days * 86_400).expect("an instant");
            let after = Duration::from_secs(30 * 86_400);
            let (removed, left) = remove(self.0.path(), &KeepOut { job: "a".into(), after, zone: TimeZone::UTC, now });
            assert_eq!(left, [""; 0]);
            removed
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
        assert_eq!(place.remove(29), [""; 0], "written lately, whatever the date");
        assert_eq!(place.remove(31), ["2020-01-01", "2020-01-02"]);
        assert!(!place.has("2020-01-01") && !place.has("2020-01-02") && place.has("latest/w"));
        assert_eq!(place.remove(31), [""; 0]);
    }

    #[test]
    fn a_date_that_is_not_over_stays_however_old_its_files() {
        let place = Place::new();
        place.note("a", &[place.write("2999-01-01/x", "text")]);
        assert_eq!(place.remove(400), [""; 0]);
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
        assert_eq!(place.remove(31), ["2020-01-01"]);
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
    fn dates_are_whole_names() {
        for name in
            ["2026-11-23x", "x2026-11-23", "20261123", "2026-11-23T00:00", "2026-W47-1", "2026-13-01", "+002026-11-23"]
        {
            assert_eq!(dated(name), None, "{name}");
        }
        assert!(dated("2026-11-23").is_some());
    }
}
