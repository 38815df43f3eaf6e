//! Child processes in groups of their own: started, awaited, and ended with everything that they started.
//!
//! `Exec` uses it. A group that was cut (timeout, deadline, cancel) gets TERM and CONT at once and goes to [`Leftovers`],
//! which sends KILL after the grace period, reaps, and is joined by the end of the run. Nothing here uses `pre_exec` (it
//! would copy the page tables of the whole program for each child), and only groups of our own are ever waited for.
//!
//! A process that leaves its group (`setsid`) still carries the id of its run in its environment (`LAMPLIGHTER_RUN`): the
//! join looks through all processes for it and ends them too. Who wants to leave a process behind takes that variable away.

use super::{
    children::{self, Starting},
    files::one_line,
    pump::Pipe,
};
use crate::{
    item::Lineage,
    limits::{CHILD_LINGER, CHILD_OOM_SCORE, LEFTOVER_POLL_MAX, LEFTOVER_SCAN_EVERY, LEFTOVER_UNKILLABLE_AFTER},
    world::World,
};
use event_listener::Event;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Resource, Rlimit, Signal, WaitId, WaitIdOptions, WaitOptions},
};
use smol::Async;
use std::{
    collections::BTreeMap,
    fs, io,
    os::{fd::OwnedFd, unix::process::CommandExt},
    path::Path,
    process::{Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Whose process group it is: place of the stage and lineage of the item.
pub type Owner = (u16, Lineage);

/// Process groups that were cut and are being ended. Cheap to clone.
#[derive(Clone)]
pub struct Leftovers(Arc<Inner>);

struct Inner {
    world: World,
    grace: Duration,
    /// What every process of the run has in its environment.
    mark: Vec<u8>,
    state: Mutex<State>,
    changed: Event,
}

#[derive(Default)]
struct State {
    /// Without a number: a child that is being started or runs.
    groups: BTreeMap<u64, (Owner, Option<Pid>)>,
    next: u64,
    /// `next` when processes that left their group were looked for: none can be there before another child was started.
    swept: u64,
    /// Processes that outlived the child that started them and held its output, or left its group.
    leaked: u64,
    /// Children that run.
    running: usize,
    kill_at_once: bool,
}

/// A process that has left its group.
struct Escaped {
    id: Pid,
    /// As the kernel shows it, on one line.
    name: String,
}

/// How a child is to be started.
pub(super) struct Start {
    /// Program, arguments, environment and folder, all complete.
    pub command: Command,
    /// The child reads from a pipe; else it has nothing to read.
    pub stdin: bool,
    /// Standard error has a pipe of its own; else it shares that of standard output.
    pub own_stderr: bool,
    /// Scheduling priority of the group.
    pub nice: Option<i32>,
    /// Bytes of private memory that each process may have.
    pub memory: Option<u64>,
}

/// A child and our ends of its pipes.
pub(super) struct Started {
    /// The process.
    pub running: Running,
    /// Its standard input.
    pub stdin: Option<Pipe>,
    /// Its standard output, and error where that has no pipe of its own.
    pub stdout: Pipe,
    /// Its standard error.
    pub stderr: Option<Pipe>,
}

/// A child that runs. Dropped, its group is cut and left to [`Leftovers`].
pub(super) struct Running {
    group: Option<Group>,
    /// There once its exit had to be waited for.
    pidfd: Option<Async<OwnedFd>>,
    expected: Expected,
}

/// A process group. As long as its leader is not reaped nobody else can get its number.
struct Group {
    id: Pid,
    leader: Option<children::Started>,
}

impl Leftovers {
    /// None yet, of the run with this id. Who is cut has `grace` to end by itself.
    pub fn new(world: World, grace: Duration, run: &str) -> Leftovers {
        let mark = format!("LAMPLIGHTER_RUN={run}").into_bytes();
        Leftovers(Arc::new(Inner { world, grace, mark, state: Mutex::default(), changed: Event::new() }))
    }

    /// Returns when no process group of `owner` is left.
    ///
    /// # Cancel safety
    /// May be dropped at any time; the groups are ended all the same.
    pub async fn gone(&self, owner: Owner) {
        self.wait_until(|state| state.groups.values().all(|(other, _)| *other != owner)).await;
    }

    /// Returns when no process group is left at all, and no process that left its group: no process of the run is alive
    /// then, but for one that the kernel cannot kill (a warning in the log names it) or that hides (it took
    /// `LAMPLIGHTER_RUN` out of its environment, or runs as another user).
    ///
    /// # Cancel safety
    /// As [`Leftovers::gone`]; of those that left their group who was not yet asked to end is not asked any more.
    pub async fn join(&self) {
        self.end_escaped().await;
        self.wait_until(|state| state.groups.is_empty()).await;
    }

    /// Ends what has left its group: TERM and CONT at once, KILL when the grace period that began with this call is over.
    async fn end_escaped(&self) {
        let world = &self.0.world;
        let (begun, mut killed, mut pause) = (world.awake(), None, Duration::from_millis(2));
        let mut known = Vec::new();
        loop {
            let (started, groups): (u64, Vec<Pid>) = {
                let state = self.lock();
                if state.next == state.swept {
                    return;
                }
                (state.next, state.groups.values().filter_map(|(_, group)| *group).collect())
            };
            let (inner, ending) = (self.0.clone(), !groups.is_empty());
            let escaped = world.unblock(move || escaped(&inner.mark, &groups)).await;
            // Orphans come to who is a subreaper. One that is dead has no environment any more, and may not be reaped yet.
            let reap = |id: &Pid| matches!(rustix::process::waitpid(Some(*id), WaitOptions::NOHANG), Ok(None));
            let dying = known.iter().filter(|id| reap(id)).count() > 0;
            if escaped.is_empty() && !dying {
                if ending {
                    // A group that ends may still let one go.
                    self.wait_until(|state| state.groups.is_empty()).await;
                    continue;
                }
                self.lock().swept = started;
                return;
            }
            let now = world.awake();
            let kill = now.since(begun) >= self.0.grace || self.lock().kill_at_once;
            for Escaped { id, name } in &escaped {
                let is_new = !known.contains(id);
                if is_new {
                    known.push(*id);
                    self.note_leaked();
                    log::warn!(
                        "leaked: process {} (`{name}`) has left the group of the child that started it; it is ended (what \
                         should stay is started with `env -u LAMPLIGHTER_RUN`)",
                        number(*id)
                    );
                }
                if kill {
                    signal_marked(*id, &self.0.mark, &[Signal::KILL]);
                } else if is_new {
                    signal_marked(*id, &self.0.mark, &[Signal::TERM, Signal::CONT]);
                }
            }
            if kill && now.since(*killed.get_or_insert(now)) >= LEFTOVER_UNKILLABLE_AFTER {
                for Escaped { id, .. } in &escaped {
                    log::warn!("process {} cannot be killed: it hangs inside the kernel", number(*id));
                }
                self.lock().swept = started;
                return;
            }
            let to_grace = if kill { pause } else { self.0.grace.saturating_sub(now.since(begun)) };
            world.sleep(pause.min(to_grace.max(Duration::from_millis(1)))).await;
            pause = (pause * 2).min(LEFTOVER_SCAN_EVERY);
        }
    }

    /// The run goes on after its process has died: children of that one may be left. The next [`Leftovers::join`] looks for
    /// them.
    pub fn expect_strangers(&self) {
        self.lock().next += 1;
    }

    /// Counts a process that outlived its parent and held on to its output.
    pub(super) fn note_leaked(&self) {
        self.lock().leaked += 1;
    }

    /// How many processes were left behind by the children that started them, and had to be ended.
    pub fn leaked(&self) -> u64 {
        self.lock().leaked
    }

    /// No more grace, for those that are here and those to come.
    pub fn kill_now(&self) {
        let mut state = self.lock();
        state.kill_at_once = true;
        for group in state.groups.values().filter_map(|(_, group)| *group) {
            signal(group, Signal::KILL);
        }
    }

    /// True when no child runs or is being ended.
    pub fn is_empty(&self) -> bool {
        self.lock().groups.is_empty()
    }

    /// True while a child of this run holds processes and file descriptors that it will give back.
    pub(super) fn hold_something(&self) -> bool {
        let state = self.lock();
        state.running > 0 || state.groups.values().any(|(_, group)| group.is_some())
    }

    /// Says that a child of `owner` is about to start: until the guard is dropped nobody takes it for gone, also when its
    /// start is given up half-way.
    pub(super) fn expect(&self, owner: Owner) -> Expected {
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        state.groups.insert(number, (owner.clone(), None));
        drop(state);
        Expected { leftovers: self.clone(), number, owner, runs: false }
    }

    /// Takes over a group that must end: TERM and CONT now, KILL after the grace period.
    fn leave(&self, owner: Owner, group: Group) {
        signal(group.id, Signal::TERM);
        // A stopped process takes its TERM only when it goes on.
        signal(group.id, Signal::CONT);
        let mut state = self.lock();
        if state.kill_at_once {
            signal(group.id, Signal::KILL);
        }
        let number = state.next;
        state.next += 1;
        state.groups.insert(number, (owner, Some(group.id)));
        drop(state);
        let ending = Ending { leftovers: self.clone(), number, group, done: false };
        self.0.world.spawn(ending.run()).detach();
    }

    async fn wait_until(&self, mut reached: impl FnMut(&State) -> bool) {
        loop {
            let listener = self.0.changed.listen();
            if reached(&self.lock()) {
                return;
            }
            listener.await;
        }
    }

    fn forget(&self, number: u64) {
        self.lock().groups.remove(&number);
        self.0.changed.notify(usize::MAX);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under this lock.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A child that is being started or runs.
pub(super) struct Expected {
    leftovers: Leftovers,
    number: u64,
    owner: Owner,
    runs: bool,
}

impl Expected {
    /// The child has started.
    fn started(&mut self) {
        self.runs = true;
        self.leftovers.lock().running += 1;
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        if self.runs {
            self.leftovers.lock().running -= 1;
        }
        self.leftovers.forget(self.number);
    }
}

/// The end of one group. If its task is dropped (the executor went away) the group is killed at once.
struct Ending {
    leftovers: Leftovers,
    number: u64,
    group: Group,
    done: bool,
}

impl Ending {
    async fn run(mut self) {
        let (world, grace) = (self.leftovers.0.world.clone(), self.leftovers.0.grace);
        let begun = world.awake();
        let (mut killed, mut scanned, mut pause) = (None, begun, Duration::from_millis(1));
        while self.group.alive() {
            let now = world.awake();
            if now.since(scanned) >= LEFTOVER_SCAN_EVERY {
                // Where nobody reaps orphans (a container without an init) dead processes keep the group's number.
                let id = self.group.id;
                if !world.unblock(move || has_live_member(id)).await {
                    break;
                }
                scanned = world.awake();
            }
            match killed {
                None if now.since(begun) >= grace || self.leftovers.lock().kill_at_once => {
                    signal(self.group.id, Signal::KILL);
                    killed = Some(now);
                    pause = Duration::from_millis(1);
                }
                Some(at) if now.since(at) >= LEFTOVER_UNKILLABLE_AFTER => {
                    log::warn!("process group {} cannot be killed: it hangs inside the kernel", number(self.group.id));
                    break;
                }
                _ => {}
            }
            let to_grace = if killed.is_none() { grace.saturating_sub(now.since(begun)) } else { pause };
            world.sleep(pause.min(to_grace.max(Duration::from_millis(1)))).await;
            pause = (pause * 2).min(LEFTOVER_POLL_MAX);
        }
        self.done = true;
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if !self.done {
            signal(self.group.id, Signal::KILL);
            let _ = self.group.alive();
        }
        self.leftovers.forget(self.number);
    }
}

impl Start {
    /// Starts the child. Blocks (the parent waits until the program was loaded): call it on the blocking pool.
    ///
    /// Priority and memory limit are set just after the start: what the child does in its first instants is not bound by
    /// them (a limit before the start would need `pre_exec`).
    ///
    /// # Errors
    /// What the system says: the program or a pipe could not be started or made.
    pub fn start(mut self, mut expected: Expected) -> io::Result<Started> {
        let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
        let (stdout, theirs) = pipe()?;
        let stderr = if self.own_stderr {
            let (ours, theirs) = pipe()?;
            self.command.stderr(theirs);
            Some(ours)
        } else {
            self.command.stderr(theirs.try_clone()?);
            None
        };
        self.command.stdout(theirs);
        let stdin = if self.stdin {
            let (theirs, ours) = pipe()?;
            self.command.stdin(theirs);
            Some(ours)
        } else {
            self.command.stdin(Stdio::null());
            None
        };
        let lingers = stdin.is_none();
        let starting = Starting::new();
        let child = starting.started(self.command.process_group(0).spawn()?);
        expected.started();
        // The command holds the child's ends of the pipes: they must close, or no end of file would ever be seen.
        drop(self.command);
        let id = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a child has a positive number");
        let running = Running { group: Some(Group { id, leader: Some(child) }), pidfd: None, expected };
        if let Some(nice) = self.nice {
            // It may have ended already, or a negative value may not be allowed.
            if let Err(error) = rustix::process::setpriority_pgrp(Some(id), nice)
                && error != Errno::SRCH
            {
                log::warn!("cannot set `nice: {nice}`: {error}");
            }
        }
        if let Some(memory) = self.memory {
            let limit = Rlimit { current: Some(memory), maximum: Some(memory) };
            if let Err(error) = rustix::process::prlimit(Some(id), Resource::Data, limit)
                && error != Errno::SRCH
            {
                log::warn!("cannot set `memory`: {error}");
            }
        }
        if !(lingers && is_over_at_once(&stdout)) {
            // When memory runs out the kernel should take a child and not us. It may have ended already.
            let _ = fs::write(format!("/proc/{}/oom_score_adj", number(id)), CHILD_OOM_SCORE);
        }
        Ok(Started {
            running,
            stdin: stdin.map(Pipe::new).transpose()?,
            stdout: Pipe::new(stdout)?,
            stderr: stderr.map(Pipe::new).transpose()?,
        })
    }
}

impl Running {
    /// Waits until the leader has ended. It is not reaped, so its number stays taken.
    pub async fn exited(&mut self, world: &World) {
        let Some(group) = &self.group else { return };
        let mut pause = Duration::from_millis(1);
        loop {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            match rustix::process::waitid(WaitId::Pid(group.id), options) {
                Ok(None) | Err(Errno::INTR) => {}
                Ok(Some(_)) | Err(_) => return,
            }
            if self.pidfd.is_none() {
                let pidfd = rustix::process::pidfd_open(group.id, PidfdFlags::empty());
                self.pidfd = pidfd.ok().and_then(|fd| Async::new_nonblocking(fd).ok());
            }
            if let Some(pidfd) = &self.pidfd
                && pidfd.readable().await.is_ok()
            {
                return;
            }
            // Without a pidfd (an old kernel, no file descriptor left) the exit is polled for.
            world.sleep(pause).await;
            pause = (pause * 2).min(LEFTOVER_POLL_MAX);
        }
    }

    /// Reaps the leader after [`Running::exited`]; what is left of its group must end.
    ///
    /// # Errors
    /// When somebody else has reaped it.
    pub fn finish(mut self) -> io::Result<ExitStatus> {
        let mut group = self.group.take().expect("a running child has a group until it is finished or dropped");
        let status = group.leader.as_mut().expect("the leader is reaped here only").wait();
        group.leader = None;
        // For most children this one question is all; who is there holds the group's number.
        if group.is_there() && group.alive() {
            self.expected.leftovers.leave(self.expected.owner.clone(), group);
        }
        status
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(group) = self.group.take() {
            self.expected.leftovers.leave(self.expected.owner.clone(), group);
        }
    }
}

impl Group {
    /// Reaps what has ended, leader and orphans that came to us, and says whether a process of the group is left.
    fn alive(&mut self) -> bool {
        if let Some(leader) = &mut self.leader {
            if matches!(leader.try_wait(), Ok(None)) {
                return true;
            }
            self.leader = None;
        }
        while let Ok(Some(_)) = rustix::process::waitpgid(self.id, WaitOptions::NOHANG) {}
        self.is_there()
    }

    /// Whether a process of the group is left, be it one that nobody has reaped.
    fn is_there(&self) -> bool {
        rustix::process::test_kill_process_group(self.id) != Err(Errno::SRCH)
    }
}

/// Waits a moment for the end of the pipe: true when nobody holds it any more. Most children are short: seen to their end by
/// the thread that started them, they are never registered with the reactor.
fn is_over_at_once(pipe: &OwnedFd) -> bool {
    let wait = Timespec { tv_sec: 0, tv_nsec: i64::from(CHILD_LINGER.subsec_nanos()) as _ };
    let mut pipe = [PollFd::new(pipe, PollFlags::IN)];
    poll(&mut pipe, Some(&wait)).is_ok() && pipe[0].revents().contains(PollFlags::HUP)
}

fn signal(group: Pid, signal: Signal) {
    // The only error of interest is that nobody is left, and that is what is wanted.
    let _ = rustix::process::kill_process_group(group, signal);
}

fn number(group: Pid) -> i32 {
    group.as_raw_nonzero().get()
}

/// Sends signals to a process if it still carries the mark: its number may belong to somebody else by now.
fn signal_marked(id: Pid, mark: &[u8], signals: &[Signal]) {
    let handle = rustix::process::pidfd_open(id, PidfdFlags::empty());
    if !is_marked(&Path::new("/proc").join(number(id).to_string()), mark) {
        return;
    }
    for signal in signals {
        // The only error of interest is that it is gone, and that is what is wanted.
        let _ = match &handle {
            Ok(handle) => rustix::process::pidfd_send_signal(handle, *signal),
            Err(_) => rustix::process::kill_process(id, *signal),
        };
    }
}

/// Whether the environment with which a process was started has this variable. Zombies have none.
fn is_marked(process: &Path, mark: &[u8]) -> bool {
    let environment = fs::read(process.join("environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|variable| variable == mark)
}

/// All processes that carry the mark and belong to none of these groups.
fn escaped(mark: &[u8], groups: &[Pid]) -> Vec<Escaped> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let escaped = processes.filter_map(|entry| {
        let id = entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw)?;
        let path = entry.path();
        if !is_marked(&path, mark) || rustix::process::getpgid(Some(id)).is_ok_and(|group| groups.contains(&group)) {
            return None;
        }
        let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
        Some(Escaped { id, name: one_line(name.trim_end()) })
    });
    escaped.collect()
}

/// Looks through all processes for one of the group that is not a zombie. True where that cannot be found out.
fn has_live_member(group: Pid) -> bool {
    let Ok(processes) = fs::read_dir("/proc") else { return true };
    let mut seen = false;
    for entry in processes.flatten() {
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        // `pid (name) state ppid pgrp …`; the name may hold anything, also `)`.
        let Some((_, rest)) = stat.rsplit_once(") ") else { continue };
        seen = true;
        let mut words = rest.split(' ');
        let (state, pgrp) = (words.next(), words.nth(1));
        if pgrp.and_then(|text| text.parse().ok()) == Some(number(group)) && !matches!(state, Some("Z" | "X")) {
            return true;
        }
    }
    !seen
}
