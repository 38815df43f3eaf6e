//! A cgroup for the run, where the service manager delegates one (`Delegate=yes`): nothing that is born in it gets out.
//!
//! `run` uses it. A run ends its processes by their groups and by the mark in their environment; who leaves the group and
//! takes the mark away is seen by nobody but the kernel. So the program makes a cgroup below its own, stands in it itself
//! while the run goes on (each child is then born there, without a race), and when the run has ended it leaves, and has the
//! kernel kill whoever is still there.

use lamplighter::{limits::LEFTOVER_UNKILLABLE_AFTER, world::World};
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

/// What systemd puts on the cgroup of a unit whose inside is the unit's own business.
const DELEGATED: &str = "user.delegate";

/// How often the kernel is asked whether all are dead.
const POLL: Duration = Duration::from_millis(5);

/// The cgroup of a run, with this program in it.
pub struct Cgroup {
    parent: PathBuf,
    group: PathBuf,
}

impl Cgroup {
    /// Enters a new one; `None` where none is delegated to this program, or the kernel cannot kill one (before 5.14).
    pub fn enter() -> Option<Cgroup> {
        let parent = own()?;
        let mut answer = [0; 8];
        let length = rustix::fs::getxattr(&parent, DELEGATED, &mut answer[..]).ok()?;
        if answer.get(..length) != Some(b"1") {
            return None;
        }
        let group = parent.join(format!("lamplighter-{}", std::process::id()));
        match enter(&group) {
            Ok(true) => Some(Cgroup { parent, group }),
            Ok(false) => None,
            Err(error) => {
                log::warn!("{}: the delegated cgroup cannot be used: {error}", parent.display());
                None
            }
        }
    }

    /// Leaves it and kills who is still in it; how many there were.
    pub async fn end(self, world: &World) -> u64 {
        let left = match self.leave() {
            Ok(left) => left,
            Err(error) => {
                log::warn!("{}: the cgroup cannot be left: {error}", self.group.display());
                return 0;
            }
        };
        if left > 0 {
            log::warn!("leaked: {left} processes of the run hid from it; its cgroup is killed");
            let begun = world.awake();
            while !self.is_empty() && world.awake().since(begun) < LEFTOVER_UNKILLABLE_AFTER {
                world.sleep(POLL).await;
            }
        }
        left
    }

    fn leave(&self) -> io::Result<u64> {
        fs::write(self.parent.join("cgroup.procs"), "0")?;
        let left = fs::read_to_string(self.group.join("cgroup.procs"))?.lines().count() as u64;
        if left > 0 {
            fs::write(self.group.join("cgroup.kill"), "1")?;
        }
        Ok(left)
    }

    fn is_empty(&self) -> bool {
        let events = fs::read_to_string(self.group.join("cgroup.events")).unwrap_or_default();
        events.lines().any(|line| line == "populated 0")
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Also where no run came of it. One that cannot be removed goes with the unit.
        let _ = self.leave();
        let _ = fs::remove_dir(&self.group);
    }
}

/// Makes a cgroup and moves this program into it; false when it could not be killed later.
fn enter(group: &Path) -> io::Result<bool> {
    fs::create_dir(group)?;
    let can_kill = group.join("cgroup.kill").exists();
    let moved = if can_kill { fs::write(group.join("cgroup.procs"), "0") } else { Ok(()) };
    if !can_kill || moved.is_err() {
        let _ = fs::remove_dir(group);
    }
    moved.map(|()| can_kill)
}

/// The folder of the cgroup (version 2) that this program stands in.
fn own() -> Option<PathBuf> {
    let cgroups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = cgroups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mounted = mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (folder, kind) = (words.nth(1)?, words.next()?);
        (kind == "cgroup2").then_some(folder)
    })?;
    Some(Path::new(mounted).join(path))
}
