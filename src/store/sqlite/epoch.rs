//! One process at the state: it holds a lock on a file of its own for as long as it lives, and the kernel lets go of the
//! lock when it dies, however it dies. Nobody is taken for dead because they are slow.
//!
//! The lock belongs to the open file, not to the process (`flock`), so two stores of one process are two epochs, and a
//! child that was started does not inherit it.

use crate::world::plant::{Bug, planted};
use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// This process's time with a store.
pub(super) struct Epoch {
    /// Its number, never used again; 0 of who only reads.
    pub id: i64,
    /// Which start of the machine it belongs to; empty where nobody says.
    pub boot: String,
    /// Where the locks are; a private store has none: nobody else is there.
    folder: Option<PathBuf>,
    /// Open for as long as the epoch lives.
    lock: Option<File>,
}

impl Epoch {
    /// Of a store that nobody else opens.
    pub fn private() -> Epoch {
        Epoch { id: 1, boot: String::new(), folder: None, lock: None }
    }

    /// Of who only reads: no epoch, but it can tell which of the others live.
    pub fn reader(folder: &Path) -> Epoch {
        Epoch { id: 0, boot: String::new(), folder: Some(folder.to_owned()), lock: None }
    }

    /// Takes the lock of epoch `id`. `None` when somebody holds it.
    pub fn take(folder: &Path, id: i64, boot: String) -> io::Result<Option<Epoch>> {
        let lock =
            fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(lock_path(folder, id))?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Epoch { id, boot, folder: Some(folder.to_owned()), lock: Some(lock) })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Its row is on the disk: from now on a file of it that is left says that a state without the row has lost something.
    pub fn is_recorded(&self) {
        if let Some(mut lock) = self.lock.as_ref() {
            // Without it less is found out.
            let _ = lock.write_all(format!("{}\n", std::process::id()).as_bytes());
        }
    }

    /// True while the process of epoch `id` lives, and when that cannot be told.
    pub fn is_alive(&self, id: i64) -> bool {
        id == self.id
            || !planted(Bug::LockNotAsked) && self.folder.as_ref().is_some_and(|folder| is_held(&lock_path(folder, id)))
    }

    /// True when there is nothing to end: nothing says that this process was here.
    pub fn only_reads(&self) -> bool {
        self.id == 0
    }

    /// The process is done with the store: its lock and the file go.
    pub fn end(&mut self) {
        if let Some((folder, _lock)) = self.folder.as_ref().zip(self.lock.take()) {
            // A file that stays is taken away by the next who opens the state.
            let _ = fs::remove_file(lock_path(folder, self.id));
        }
    }
}

/// Numbers of the epochs of which a file is left, in order, and whether it says that they were recorded.
pub(super) fn locks(folder: &Path) -> io::Result<Vec<(i64, bool)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let id = entry.file_name().to_str().and_then(|name| name.strip_suffix(".lock")?.parse().ok());
        if let Some(id) = id {
            match entry.metadata() {
                Ok(file) => found.push((id, file.len() > 0)),
                // Its process has ended meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// The lock of an epoch.
pub(super) fn lock_path(folder: &Path, id: i64) -> PathBuf {
    folder.join(format!("{id}.lock"))
}

/// True when somebody holds the lock, or when that cannot be told. Asking does not keep others from asking.
pub(super) fn is_held(lock: &Path) -> bool {
    match File::open(lock) {
        Ok(file) => file.try_lock_shared().is_err(),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_lives_as_long_as_its_lock_is_held() {
        let dir = tempfile::tempdir().expect("a folder");
        let take = |id| Epoch::take(dir.path(), id, String::new()).expect("the folder takes it");
        let mut one = take(1).expect("nobody has it");
        let two = take(2).expect("nobody has it");
        assert!(take(1).is_none() && one.is_alive(1) && one.is_alive(2) && two.is_alive(1));
        assert!(!one.is_alive(3), "nobody has been there");
        drop(two);
        assert!(!one.is_alive(2) && lock_path(dir.path(), 2).exists(), "as after a kill");
        // Who asks holds a shared lock for a moment: others who ask are not misled.
        let asking = File::open(lock_path(dir.path(), 2)).expect("its lock is there");
        asking.try_lock_shared().expect("nobody holds it");
        assert!(!one.is_alive(2));
        one.end();
        assert!(!lock_path(dir.path(), 1).exists() && take(1).is_some());
    }

    #[test]
    fn what_cannot_be_looked_at_is_taken_for_alive() {
        let dir = tempfile::tempdir().expect("a folder");
        let one = Epoch::take(dir.path(), 1, String::new()).expect("the folder takes it").expect("nobody has it");
        std::os::unix::fs::symlink("2.lock", dir.path().join("2.lock")).expect("the folder takes it");
        assert!(one.is_alive(2), "a loop of links");
    }
}
