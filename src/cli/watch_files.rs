//! Tells the daemon when job files may have changed: by inotify, when it has been quiet for a moment.

use super::runtime::first;
use lamplighter::{daemon::Handle, world::World};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use smol::Async;
use std::{
    fs, io,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

/// An editor writes a file in several steps; what happens within this of each other is one change.
const QUIET: Duration = Duration::from_millis(300);
/// A folder that is never quiet is looked at nevertheless.
const PATIENCE: Duration = Duration::from_secs(3);
/// Folders below the job folder that are watched: those of side files.
const FOLDERS: usize = 256;

/// Watches the folder until the task is dropped.
pub async fn watch(world: World, folder: PathBuf, handle: Handle) {
    let watch = match Watch::new() {
        Ok(watch) => watch,
        Err(error) => {
            log::warn!(target: "lamplighter::daemon", "changed job files are not noticed ({error}): send SIGHUP to reload");
            return;
        }
    };
    loop {
        // Folders that came since are watched too; one that is watched already stays so.
        if let Err(error) = watch.add(&folder) {
            log::warn!(target: "lamplighter::daemon", "{} is not watched ({error}): send SIGHUP to reload", folder.display());
        }
        watch.something_happens().await;
        let long = async {
            world.sleep(PATIENCE).await;
            false
        };
        let quiet = async {
            loop {
                let again = async {
                    watch.something_happens().await;
                    true
                };
                let silence = async {
                    world.sleep(QUIET).await;
                    false
                };
                if !first(again, silence).await {
                    return true;
                }
            }
        };
        first(quiet, long).await;
        handle.files_changed().await;
    }
}

struct Watch(Async<OwnedFd>);

impl Watch {
    fn new() -> io::Result<Watch> {
        Ok(Watch(Async::new_nonblocking(inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?)?))
    }

    fn add(&self, folder: &Path) -> io::Result<()> {
        let what =
            WatchFlags::CLOSE_WRITE | WatchFlags::MOVE | WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::ATTRIB;
        inotify::add_watch(&self.0, folder, what | WatchFlags::ONLYDIR)?;
        let below = fs::read_dir(folder)?.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        for entry in below.take(FOLDERS) {
            // One that has just gone is no loss.
            let _ = inotify::add_watch(&self.0, entry.path(), what | WatchFlags::ONLYDIR);
        }
        Ok(())
    }

    /// Returns when something has happened; what, is not told.
    async fn something_happens(&self) {
        let mut room = [MaybeUninit::uninit(); 4096];
        loop {
            if self.0.readable().await.is_err() {
                return std::future::pending().await;
            }
            let mut reader = inotify::Reader::new(&self.0, &mut room);
            let mut happened = false;
            loop {
                match reader.next() {
                    Ok(event) => happened |= !event.events().contains(ReadFlags::IGNORED),
                    Err(rustix::io::Errno::AGAIN) => break,
                    Err(_) => return std::future::pending().await,
                }
            }
            if happened {
                return;
            }
        }
    }
}
