//! Tells the daemon when job files, or the zone of the machine, may have changed: by inotify, when it has been quiet for a
//! moment.

use super::runtime::first;
use lamplighter::{daemon::Handle, world::World};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use smol::Async;
use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs, io,
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// An editor writes a file in several steps; what happens within this of each other is one change.
const QUIET: Duration = Duration::from_millis(300);
/// A folder that is never quiet is looked at nevertheless.
const PATIENCE: Duration = Duration::from_secs(3);
/// Folders below the job folder, or the one of the zones, that are watched: those of side files, of continents and states.
const FOLDERS: usize = 256;
/// How deep folders of side files stand below the job folder.
const SIDE_FILES_DEPTH: usize = 1;
/// How deep folders of zones do: `America/Argentina`.
const ZONES_DEPTH: usize = 2;
/// Links that lead from `/etc/localtime` to the zone.
const LINKS: usize = 8;
/// Where the data of zones are, unless `TZDIR` says it: the first that is there.
const ZONES: [&str; 3] = ["/usr/share/zoneinfo", "/usr/share/lib/zoneinfo", "/etc/zoneinfo"];

/// Watches the folder, and whatever takes its place, from this call on, until the task is dropped.
pub fn watch(world: World, folder: PathBuf, handle: Handle) -> impl Future<Output = ()> + Send + 'static {
    let watch = Watch::new().map(|mut watch| {
        let renewed = watch.renew(&folder);
        (watch, renewed)
    });
    async move {
        let (mut watch, mut renewed) = match watch {
            Ok(watched) => watched,
            Err(error) => {
                log::warn!(target: "lamplighter::daemon", "changed job files are not noticed ({error}): send SIGHUP to reload");
                return;
            }
        };
        let mut is_told = false;
        loop {
            if let Err(error) = renewed {
                if !std::mem::replace(&mut is_told, true) {
                    let folder = folder.display();
                    log::warn!(target: "lamplighter::daemon", "{folder} is not watched ({error}); it is looked for again and again");
                }
                // It may have gone with the folder that it stood in: nobody tells when they are back.
                world.sleep(PATIENCE).await;
            } else {
                is_told = false;
                watch.something_happens().await;
                watch.settles(&world).await;
            }
            // Before it is read: what changes later is noticed.
            renewed = watch.renew(&folder);
            if renewed.is_ok() {
                handle.files_changed().await;
            }
        }
    }
}

/// Watches the zone of the machine and the data of all zones, from this call on, until the task is dropped. `changes` counts
/// what happened to them: a job that was read before is not as it was.
pub fn watch_zones(world: World, changes: Arc<AtomicU64>, handle: Handle) -> impl Future<Output = ()> + Send + 'static {
    let mut watch = Watch::new();
    if let Ok(watch) = &mut watch {
        watch.add_zones();
    }
    async move {
        // Where that cannot be had it is said for the job files.
        let Ok(mut watch) = watch else { return };
        loop {
            watch.something_happens().await;
            watch.settles(&world).await;
            // What is there now, and was not before.
            watch.add_zones();
            log::info!(target: "lamplighter::daemon", "the zone of the machine or the data of zones may have changed: times are planned anew");
            zones_changed(&changes);
            handle.files_changed().await;
        }
    }
}

/// What was read of zones is read anew, and all jobs with it.
pub fn zones_changed(changes: &AtomicU64) {
    jiff::tz::reset_system_time_zone_cache();
    jiff::tz::db().reset();
    changes.fetch_add(1, Ordering::SeqCst);
}

/// What happens to files of a folder when one is written or replaced.
const FILES: WatchFlags =
    WatchFlags::CLOSE_WRITE.union(WatchFlags::MOVE).union(WatchFlags::CREATE).union(WatchFlags::DELETE);

/// What happens to names in a folder.
const NAMES: WatchFlags = WatchFlags::MOVE.union(WatchFlags::CREATE).union(WatchFlags::DELETE);

struct Watch {
    inotify: Async<OwnedFd>,
    /// Of some folders only the file of this name is meant.
    only: BTreeMap<i32, Vec<u8>>,
    /// Folders that are watched whole, and what stood around them when they were last looked at.
    renewed: BTreeSet<i32>,
}

impl Watch {
    fn new() -> io::Result<Watch> {
        let inotify = Async::new_nonblocking(inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?)?;
        Ok(Watch { inotify, only: BTreeMap::new(), renewed: BTreeSet::new() })
    }

    /// What is at this path now, and its name in the folder that it stands in: another one may take its place. What was there
    /// before is let go; what is watched already stays so.
    fn renew(&mut self, folder: &Path) -> io::Result<()> {
        let path = std::path::absolute(folder)?;
        let mut renewed = self.add(&path, FILES | WatchFlags::ATTRIB | WatchFlags::MOVE_SELF, SIDE_FILES_DEPTH)?;
        // Where the folder around it cannot be watched, the folder itself still is.
        if let Some((parent, name)) = path.parent().zip(path.file_name())
            && let Ok(watched) = inotify::add_watch(&self.inotify, parent, NAMES | WatchFlags::ONLYDIR)
        {
            self.only.insert(watched, name.as_bytes().to_owned());
            renewed.insert(watched);
        }
        for gone in self.renewed.difference(&renewed) {
            self.only.remove(gone);
            // It was given back with what was removed.
            let _ = inotify::remove_watch(&self.inotify, *gone);
        }
        self.renewed = renewed;
        Ok(())
    }

    /// A folder, and those that stand at most so deep below it.
    fn add(&mut self, folder: &Path, what: WatchFlags, depth: usize) -> io::Result<BTreeSet<i32>> {
        let what = what | WatchFlags::ONLYDIR;
        let whole = inotify::add_watch(&self.inotify, folder, what)?;
        self.only.remove(&whole);
        let mut added = BTreeSet::from([whole]);
        let (mut level, mut left) = (folders_in(folder)?, FOLDERS);
        for deeper in (0..depth).rev() {
            let mut below = Vec::new();
            for folder in level {
                if left == 0 {
                    return Ok(added);
                }
                left -= 1;
                // One that has just gone is no loss.
                if let Ok(whole) = inotify::add_watch(&self.inotify, &folder, what) {
                    self.only.remove(&whole);
                    added.insert(whole);
                    if deeper > 0 {
                        below.extend(folders_in(&folder).unwrap_or_default());
                    }
                }
            }
            level = below;
        }
        Ok(added)
    }

    /// The file that says the zone of the machine, each link on the way to it, and the data of zones. What is not there is not
    /// watched.
    fn add_zones(&mut self) {
        let named = env::var("TZ").ok().map(|zone| PathBuf::from(zone.trim_start_matches(':')));
        let mut file = named.unwrap_or_else(|| PathBuf::from("/etc/localtime"));
        // A name is none of a file.
        if file.is_absolute() {
            // It is made anew where it was, often with a moment in which it is not there.
            if let (Some(folder), Some(name)) = (file.parent(), file.file_name())
                && let Ok(watched) = inotify::add_watch(&self.inotify, folder, FILES | WatchFlags::ONLYDIR)
            {
                self.only.insert(watched, name.as_bytes().to_owned());
            }
            let itself = WatchFlags::CLOSE_WRITE | WatchFlags::ATTRIB | WatchFlags::MOVE_SELF | WatchFlags::DELETE_SELF;
            for _ in 0..LINKS {
                let _ = inotify::add_watch(&self.inotify, &file, itself | WatchFlags::DONT_FOLLOW);
                let Ok(target) = fs::read_link(&file) else { break };
                file = file.parent().map(|folder| folder.join(&target)).unwrap_or(target);
            }
        }
        let folder = env::var_os("TZDIR").map(PathBuf::from);
        let folder = folder.or_else(|| ZONES.iter().map(PathBuf::from).find(|folder| folder.is_dir()));
        let _ = folder.map(|folder| self.add(&folder, FILES, ZONES_DEPTH));
    }

    /// Returns when nothing has happened for a moment, or when it has gone on for long.
    async fn settles(&self, world: &World) {
        let long = async {
            world.sleep(PATIENCE).await;
            false
        };
        let quiet = async {
            loop {
                let again = async {
                    self.something_happens().await;
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
    }

    /// Returns when something has happened; what, is not told.
    async fn something_happens(&self) {
        loop {
            let happened = self.inotify.readable().await.and_then(|()| self.read());
            match happened {
                Ok(true) => return,
                Ok(false) => {}
                Err(_) => return std::future::pending().await,
            }
        }
    }

    /// Reads what has happened: whether something of that is meant.
    fn read(&self) -> io::Result<bool> {
        // Here, as a future that holds it would keep it for all of its life, once for each that it stands in.
        let mut room = [MaybeUninit::uninit(); 4096];
        let is_meant = |event: &inotify::Event<'_>| {
            let named = || event.file_name().map(|name| name.to_bytes().to_owned());
            (!event.events().contains(ReadFlags::IGNORED) || self.renewed.contains(&event.wd()))
                && self.only.get(&event.wd()).is_none_or(|only| named().is_none_or(|name| name == *only))
        };
        let mut reader = inotify::Reader::new(&self.inotify, &mut room);
        let mut happened = false;
        loop {
            match reader.next() {
                Ok(event) => happened |= is_meant(&event),
                Err(rustix::io::Errno::AGAIN) => return Ok(happened),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The folders in a folder, as many as are watched.
fn folders_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let below = fs::read_dir(folder)?.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    Ok(below.map(|entry| entry.path()).take(FOLDERS).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::runtime::block_on;
    use async_executor::Executor;
    use lamplighter::{
        daemon::{ClockSigns, Daemon, DaemonOptions, Jobs, News},
        job::{CheckedJob, Job, JobProblems, Surroundings},
        run::RunOptions,
        store::{State, memory::Memory},
    };

    /// No jobs; each time that they are listed is told.
    struct Nothing(async_channel::Sender<()>);

    impl Jobs for Nothing {
        fn list(&self) -> Result<BTreeMap<String, String>, String> {
            let _ = self.0.try_send(());
            Ok(BTreeMap::new())
        }

        fn load(&self, name: &str) -> Result<CheckedJob, JobProblems> {
            unreachable!("{name} is not listed")
        }

        fn surroundings(&self) -> Surroundings {
            Surroundings::default()
        }

        fn options(&self, _: &Job) -> Result<RunOptions, String> {
            Ok(RunOptions::default())
        }

        fn clock(&self) -> ClockSigns {
            ClockSigns::default()
        }

        fn tell(&self, _: &News<'_>) {}
    }

    #[test]
    fn what_changes_before_the_watch_is_first_polled_is_noticed() {
        let executor = Arc::new(Executor::new());
        let (world, folder) = (World::real(executor.clone()), tempfile::tempdir().expect("a folder"));
        let (sender, listed) = async_channel::unbounded();
        let state = State::new(Arc::new(Memory::new(1 << 20)));
        let (daemon, handle) = Daemon::new(world.clone(), state, Arc::new(Nothing(sender)), DaemonOptions::default());
        // Boxed, as what serves: they are too large for the stack of a test.
        let watch = Box::pin(watch(world.clone(), folder.path().to_owned(), handle));
        let noticed = async {
            listed.recv().await.expect("what is there at the start");
            fs::write(folder.path().join("new.ron"), "").expect("a file");
            let watch = async {
                watch.await;
                false
            };
            first(async { listed.recv().await.is_ok() }, watch).await
        };
        let late = async {
            world.sleep(Duration::from_secs(60)).await;
            false
        };
        let serves = Box::pin(async {
            let _ = daemon.serve().await;
            false
        });
        assert!(block_on(&executor, 1, first(noticed, first(serves, late))), "the change was not noticed");
    }
}
