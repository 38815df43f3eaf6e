//! Tells the daemon when job files may have changed: by inotify, when it has been quiet for a moment.

use super::runtime::first;
use lamplighter::{daemon::Handle, world::World};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use smol::Async;
use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs, io,
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    time::Duration,
};

/// An editor writes a file in several steps; what happens within this of each other is one change.
const QUIET: Duration = Duration::from_millis(300);
/// A folder that is never quiet is looked at nevertheless.
const PATIENCE: Duration = Duration::from_secs(3);
/// Folders below the job folder that are watched: those of side files.
const FOLDERS: usize = 256;

/// Watches the folder until the task is dropped, and whatever takes its place.
pub async fn watch(world: World, folder: PathBuf, handle: Handle) {
    let mut watch = match Watch::new(folder) {
        Ok(watch) => watch,
        Err(error) => {
            log::warn!(target: "lamplighter::daemon", "changed job files are not noticed ({error}): send SIGHUP to reload");
            return;
        }
    };
    let (mut renewed, mut is_told) = (watch.renew(), false);
    loop {
        if let Err(error) = renewed {
            if !std::mem::replace(&mut is_told, true) {
                let folder = watch.folder.display();
                log::warn!(target: "lamplighter::daemon", "{folder} is not watched ({error}); it is looked for again and again");
            }
            // It may have gone with the folder that it stood in: nobody tells when they are back.
            world.sleep(PATIENCE).await;
        } else {
            is_told = false;
            watch.something_happens().await;
            until_quiet(&world, &watch).await;
        }
        // Before it is read: what changes later is noticed.
        renewed = watch.renew();
        if renewed.is_ok() {
            handle.files_changed().await;
        }
    }
}

/// Returns when nothing has happened for a moment, or too much for too long.
async fn until_quiet(world: &World, watch: &Watch) {
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
                return;
            }
        }
    };
    first(quiet, world.sleep(PATIENCE)).await;
}

struct Watch {
    inotify: Async<OwnedFd>,
    folder: PathBuf,
    /// The folder that it stands in, and what it is called there: another one may take its place.
    parent: Option<(i32, OsString)>,
    /// The folder, and those below.
    within: BTreeSet<i32>,
}

impl Watch {
    fn new(folder: PathBuf) -> io::Result<Watch> {
        let inotify = Async::new_nonblocking(inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?)?;
        Ok(Watch { inotify, folder, parent: None, within: BTreeSet::new() })
    }

    /// Watches what is there now. One that is watched already stays so.
    fn renew(&mut self) -> io::Result<()> {
        let add = |path: &Path, what: WatchFlags| inotify::add_watch(&self.inotify, path, what | WatchFlags::ONLYDIR);
        let names = WatchFlags::MOVE | WatchFlags::CREATE | WatchFlags::DELETE;
        // Where it cannot be watched the folder itself still is.
        let path = std::path::absolute(&self.folder)?;
        let parent = path.parent().zip(path.file_name());
        let parent = parent.and_then(|(parent, name)| Some((add(parent, names).ok()?, name.to_owned())));
        let what = names | WatchFlags::CLOSE_WRITE | WatchFlags::ATTRIB | WatchFlags::MOVE_SELF;
        let mut within = BTreeSet::from([add(&path, what)?]);
        let below = fs::read_dir(&path)?.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        // One that has just gone is no loss.
        within.extend(below.take(FOLDERS).filter_map(|entry| add(&entry.path(), what).ok()));
        let before = self.within.iter().chain(self.parent.iter().map(|(parent, _)| parent));
        for gone in before.filter(|watch| !within.contains(watch) && parent.as_ref().is_none_or(|of| of.0 != **watch)) {
            // It was given back with what was removed.
            let _ = inotify::remove_watch(&self.inotify, *gone);
        }
        (self.parent, self.within) = (parent, within);
        Ok(())
    }

    /// Whether something in the folder has happened, or to it.
    fn is_ours(&self, event: &inotify::Event<'_>) -> bool {
        let is_called = |name: &OsString| event.file_name().is_some_and(|of| of.to_bytes() == name.as_bytes());
        match &self.parent {
            // Of what stands beside it nothing is wanted.
            Some((parent, name)) if *parent == event.wd() => is_called(name),
            _ => !event.events().contains(ReadFlags::IGNORED) || self.within.contains(&event.wd()),
        }
    }

    /// Returns when something has happened; what, is not told.
    async fn something_happens(&self) {
        let mut room = [MaybeUninit::uninit(); 4096];
        loop {
            if self.inotify.readable().await.is_err() {
                return std::future::pending().await;
            }
            let mut reader = inotify::Reader::new(&self.inotify, &mut room);
            let mut happened = false;
            loop {
                match reader.next() {
                    Ok(event) => happened |= self.is_ours(&event),
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
