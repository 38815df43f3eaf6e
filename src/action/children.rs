//! Which processes are children that the engine has started: so that a program which inherits orphans (process 1, a child
//! subreaper) can reap those, and takes nobody's exit status.

use rustix::process::{Pid, WaitOptions, waitpid};
use std::{
    collections::BTreeSet,
    fs,
    ops::{Deref, DerefMut},
    process::Child,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// A child that is being started for longer hangs inside the kernel: who may be that child is reaped another time.
const PATIENCE: Duration = Duration::from_secs(1);

/// One for the process, as its children are.
static CHILDREN: Mutex<Children> = Mutex::new(Children { next: 0, starting: BTreeSet::new(), known: BTreeSet::new() });
static STARTED: Condvar = Condvar::new();

struct Children {
    next: u64,
    /// Children that are there for the kernel, or will be at once, and whose process id is not known yet.
    starting: BTreeSet<u64>,
    /// Process ids of those that nobody has waited for.
    known: BTreeSet<i32>,
}

fn children() -> MutexGuard<'static, Children> {
    // Plain data, whole between statements.
    CHILDREN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A child is being started. Dropped, it is not.
pub(super) struct Starting(u64);

impl Starting {
    /// Before the fork.
    pub fn new() -> Starting {
        let mut children = children();
        children.next += 1;
        let number = children.next;
        children.starting.insert(number);
        Starting(number)
    }

    /// After it.
    pub fn started(self, child: Child) -> Started {
        children().known.insert(child.id().cast_signed());
        Started(child)
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        children().starting.remove(&self.0);
        STARTED.notify_all();
    }
}

/// A child of the engine, to be dropped when it was waited for.
pub(super) struct Started(Child);

impl Deref for Started {
    type Target = Child;
    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for Started {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        children().known.remove(&self.0.id().cast_signed());
    }
}

/// A child that has ended and that nobody has waited for.
#[derive(PartialEq, Eq)]
struct Zombie {
    id: Pid,
    /// When it was started, in ticks: a number that was given away again is told by it.
    born: String,
}

/// Reaps the children of this process that have ended and that the engine has not started: orphans that came to it because
/// it is process 1 or a child subreaper. False when some are left for another call. For a program whose every child is the
/// engine's: statuses of others would be lost to whoever waits for them.
///
/// Blocks for a second at most: call it on a thread where that is no harm.
pub fn reap_orphans() -> bool {
    let found = zombies();
    let mut children = children();
    let is_ours = |children: &Children, zombie: &Zombie| children.known.contains(&zombie.id.as_raw_nonzero().get());
    if found.iter().all(|zombie| is_ours(&children, zombie)) {
        return true;
    }
    // Each child of ours that was found is known when every start that had begun by now is over.
    let last = children.next;
    let is_open = |children: &mut Children| children.starting.first().is_some_and(|oldest| *oldest <= last);
    let waited = STARTED.wait_timeout_while(children, PATIENCE, is_open);
    let (locked, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
    children = locked;
    if timeout.timed_out() {
        return false;
    }
    // Nobody of ours gets a free number under the lock without being in `starting`; who has ended keeps its number until then.
    for zombie in found.iter().filter(|zombie| !is_ours(&children, zombie)) {
        if self::zombie(zombie.id).as_ref() == Some(zombie) {
            let _ = waitpid(Some(zombie.id), WaitOptions::NOHANG);
        }
    }
    true
}

/// Children of this process that have ended.
fn zombies() -> Vec<Zombie> {
    let ids = listed().unwrap_or_else(|| {
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    });
    ids.into_iter().filter_map(Pid::from_raw).filter_map(zombie).collect()
}

/// Children as the kernel lists them, if it does (`CONFIG_PROC_CHILDREN`): each thread has its own.
fn listed() -> Option<Vec<i32>> {
    let mut ids = Vec::new();
    for thread in fs::read_dir("/proc/self/task").ok()?.flatten() {
        match fs::read_to_string(thread.path().join("children")) {
            Ok(text) => ids.extend(text.split_whitespace().filter_map(|id| id.parse::<i32>().ok())),
            // The thread has ended.
            Err(_) if !thread.path().exists() => {}
            Err(_) => return None,
        }
    }
    Some(ids)
}

/// Whether it is a child of ours that has ended.
fn zombie(id: Pid) -> Option<Zombie> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", id.as_raw_nonzero())).ok()?;
    // `pid (name) state ppid ..`, the start is the 22nd; the name may hold anything, also `)`.
    let words: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let (state, parent, born) = (words.first()?, words.get(1)?, words.get(19)?);
    let is_ours = parent.parse::<u32>().is_ok_and(|parent| parent == std::process::id());
    (*state == "Z" && is_ours).then(|| Zombie { id, born: (*born).to_owned() })
}
