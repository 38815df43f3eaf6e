//! What a process does to the files below a folder, in order, as `strace` sees it.

use super::disk::{Disk, Image};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, mem,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// One thing that a process did. Paths are below the root that is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Create(String),
    MakeFolder(String),
    Remove(String),
    Rename(String, String),
    /// At a place, or at the end.
    Write(String, Option<u64>, Vec<u8>),
    Size(String, u64),
    /// A file or folder was synced: what happened to it before the event of this number is durable.
    Sync(String, usize),
    /// A transaction of the state was called committed: the lock of its writers was let go, others see it.
    Acknowledged,
    /// Something was printed.
    Said(String),
    /// The process is gone.
    Ended,
}

/// How a process ended that was watched.
pub struct Traced {
    /// Its exit code; 1000 + the signal.
    pub code: i32,
    pub stderr: String,
}

/// What processes did below a folder, one after the other.
pub struct Recording {
    root: PathBuf,
    /// What was there before the first.
    pub base: Disk,
    pub events: Vec<Event>,
    /// All of them done.
    disk: Disk,
}

const CALLS: &str = "trace=open,openat,creat,write,pwrite64,writev,pwritev,pwritev2,ftruncate,truncate,fallocate,fsync,\
fdatasync,sync_file_range,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,link,linkat,symlink,symlinkat,\
copy_file_range,sendfile,fcntl";

impl Recording {
    /// Watches what is below `root`; what is there is durable.
    pub fn of(root: &Path) -> Recording {
        let root = root.canonicalize().expect("a folder");
        let base = Disk::of(&root);
        Recording { root, disk: base.clone(), base, events: Vec::new() }
    }

    /// Runs a command and adds what it does. `inject` is an expression for `strace -e`.
    ///
    /// Calls of several threads overlap: a change counts from its end, and a sync holds for what had ended before it began.
    /// Of a call during which the process was killed the folder says whether it was done. At the end the model must be what
    /// is there: nothing was passed over.
    ///
    /// # Panics
    /// When it is not what is there.
    pub fn run(&mut self, command: &Command, inject: Option<&str>) -> Traced {
        self.try_run(command, inject).unwrap_or_else(|why| panic!("{why}"))
    }

    /// The same; `Err` where something was passed over. Of a program that is killed the kernel may have done a part of a call,
    /// and whose call was first is not always told: such a recording is to be begun anew.
    pub fn try_run(&mut self, command: &Command, inject: Option<&str>) -> Result<Traced, String> {
        let log = tempfile::NamedTempFile::new().expect("a file");
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-xx", "-y", "-s", "16777216", "-e", CALLS, "-o"]).arg(log.path());
        match inject {
            Some(inject) => strace.args(["-e", inject]),
            // It stops at these calls alone; what is injected is forgotten with it.
            None => strace.arg("--seccomp-bpf"),
        };
        strace.arg(command.get_program()).args(command.get_args()).env_clear().stdin(Stdio::null());
        strace.current_dir(command.get_current_dir().expect("a folder to run in"));
        strace.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let output = strace.output().expect("strace starts");
        let code = output.status.code().unwrap_or_else(|| 1000 + output.status.signal().unwrap_or(0));
        let traced = Traced { code, stderr: String::from_utf8_lossy(&output.stderr).into_owned() };
        let before = self.events.len();
        let cut =
            Reader { recording: self, log_is_written: false }.read(&fs::read_to_string(log.path()).expect("ASCII"));
        let there = Image::of(&self.root);
        for event in cut {
            let mut done = self.disk.clone();
            done.apply(self.events.len(), &event);
            if differences(&done.now(), &there) < differences(&self.disk.now(), &there) {
                self.push(event);
            }
        }
        self.has_seen(before);
        self.push(Event::Ended);
        let seen = self.disk.now();
        let paths = seen.files.keys().chain(there.files.keys());
        let other: BTreeSet<_> = paths.filter(|path| seen.files.get(*path) != there.files.get(*path)).collect();
        let folders = (&seen.folders, &there.folders);
        match seen == there {
            true => Ok(traced),
            false => Err(format!("something was passed over in {other:?} {folders:?}:\n{}", traced.stderr)),
        }
    }

    /// Everything that a run of the program does was seen behind this event: a recording without it proves nothing.
    fn has_seen(&self, before: usize) {
        let seen = |what: &dyn Fn(&Event) -> bool| self.events[before..].iter().filter(|event| what(event)).count();
        let writes = seen(&|event| matches!(event, Event::Write(..)));
        let syncs = seen(&|event| matches!(event, Event::Sync(..)));
        assert!(writes > 0 && syncs > 0, "{writes} writes and {syncs} syncs were recorded");
    }

    fn push(&mut self, event: Event) {
        match &event {
            // It was told of by what is in it.
            Event::MakeFolder(path) if self.disk.has(path) => return,
            Event::MakeFolder(path) | Event::Create(path) => {
                // Threads overlap: the end of the call that made the folder may be told behind that of one which used it.
                if let Some((folder, _)) = path.rsplit_once('/')
                    && !self.disk.has(folder)
                {
                    self.push(Event::MakeFolder(folder.to_owned()));
                }
            }
            _ => {}
        }
        self.disk.apply(self.events.len(), &event);
        self.events.push(event);
    }
}

/// Files that are not the same.
fn differences(a: &Image, b: &Image) -> usize {
    let all = a.files.keys().chain(b.files.keys().filter(|path| !a.files.contains_key(*path)));
    all.filter(|path| a.files.get(*path) != b.files.get(*path)).count()
}

struct Reader<'a> {
    recording: &'a mut Recording,
    /// The log of the state was written to since its lock was let go.
    log_is_written: bool,
}

impl Reader<'_> {
    /// Reads all lines; what may have been done, or not, when the process was killed.
    fn read(mut self, log: &str) -> Vec<Event> {
        let mut open: BTreeMap<&str, (&str, usize)> = BTreeMap::new();
        for line in log.lines() {
            let (thread, rest) = line.split_once(' ').expect("a number of a thread");
            let (rest, before) = (rest.trim_start(), self.recording.events.len());
            if rest.starts_with("+++") || rest.starts_with("---") {
                continue;
            }
            // A thread that dies in a call has no result.
            let (told, died) = rest.rsplit_once(" = ?").map_or((rest, false), |(told, _)| (told, true));
            let is_open = died || told.contains("<unfinished ...>");
            if is_open && !told.starts_with("<... ") {
                let begun = told.split_once("<unfinished ...>").map_or(told, |(begun, _)| begun);
                open.insert(thread, (begun, before));
            } else if is_open {
                // It went on and died: what it began with is known.
            } else if let Some(resumed) = rest.strip_prefix("<... ") {
                let (begun, before) = open.remove(thread).expect("it was begun");
                let end = resumed.split_once("resumed>").expect("how a call goes on").1;
                self.call(&format!("{begun}{end}"), before);
            } else {
                self.call(rest, before);
            }
        }
        // Without a result: suppose that it was done.
        let cut = open.into_values().filter_map(|(begun, before)| {
            let begun = begun.trim_end().trim_end_matches([',', ')']);
            self.event(&format!("{begun}) = {}", i64::MAX), before)
        });
        cut.filter(|event| !matches!(event, Event::Sync(..) | Event::Said(_) | Event::Acknowledged)).collect()
    }

    fn call(&mut self, call: &str, before: usize) {
        if let Some(event) = self.event(call, before) {
            self.recording.push(event);
        }
    }

    fn event(&mut self, call: &str, before: usize) -> Option<Event> {
        // Texts are printed as hex: what is between two arguments stands nowhere else.
        let (head, result) = call.rsplit_once(" = ").expect("a result");
        let result = number(result).filter(|result| *result >= 0)?;
        let (name, arguments) = head.split_once('(').expect("arguments");
        let arguments: Vec<&str> = arguments.trim_end().trim_end_matches(')').split(", ").map(str::trim).collect();
        let at = |place: usize| arguments.get(place).copied().unwrap_or_default();
        match name {
            "open" | "openat" => {
                let at_folder = usize::from(name == "openat");
                let path = self.path(if at_folder == 1 { at(0) } else { "" }, at(at_folder))?;
                let (flags, is_there) = (at(at_folder + 1), self.recording.disk.has(&path));
                match (flags.contains("O_CREAT"), flags.contains("O_TRUNC")) {
                    (true, _) if !is_there => Some(Event::Create(path)),
                    (_, true) => Some(Event::Size(path, 0)),
                    _ => None,
                }
            }
            "write" if at(0).starts_with("1<") || at(0).starts_with("2<") => {
                Some(Event::Said(String::from_utf8_lossy(&bytes(at(1))).into_owned()))
            }
            "write" | "pwrite64" => {
                let path = self.file(at(0))?;
                self.log_is_written |= path.ends_with("-wal");
                let mut bytes = bytes(at(1));
                bytes.truncate(usize::try_from(result).expect("a length"));
                let place = (name == "pwrite64").then(|| number(at(3)).expect("a place").unsigned_abs());
                Some(Event::Write(path, place, bytes))
            }
            "ftruncate" => Some(Event::Size(self.file(at(0))?, number(at(1)).expect("a size").unsigned_abs())),
            "fsync" | "fdatasync" => Some(Event::Sync(self.file(at(0))?, before)),
            "rename" => Some(Event::Rename(self.path("", at(0))?, self.path("", at(1))?)),
            "renameat" | "renameat2" => Some(Event::Rename(self.path(at(0), at(1))?, self.path(at(2), at(3))?)),
            "unlink" => Some(Event::Remove(self.path("", at(0))?)),
            "unlinkat" => Some(Event::Remove(self.path(at(0), at(1))?)),
            "mkdir" => Some(Event::MakeFolder(self.path("", at(0))?)),
            "mkdirat" => Some(Event::MakeFolder(self.path(at(0), at(1))?)),
            "fcntl" => {
                // Byte 120 of the index is the lock of who writes to the log (SQLite's WAL_WRITE_LOCK).
                let words = ["F_SETLK", "l_type=F_UNLCK", "l_start=120", "l_len=1"];
                let is_let_go = words.iter().all(|word| call.contains(word));
                let of_the_index = at(0).split_once('<').is_some_and(|(_, path)| hex(path).ends_with(b"state.db-shm"));
                (is_let_go && of_the_index && mem::take(&mut self.log_is_written)).then_some(Event::Acknowledged)
            }
            other => {
                let touches = |argument: &&str| self.file(argument).is_some() || self.path("", argument).is_some();
                assert!(!arguments.iter().any(touches), "the model knows no {other}");
                None
            }
        }
    }

    /// The path behind a descriptor, when it is one that is watched. What has no name any more is lost in any case.
    fn file(&self, descriptor: &str) -> Option<String> {
        let (_, path) = descriptor.split_once('<').filter(|(_, path)| !path.ends_with("(deleted)"))?;
        self.below(hex(path))
    }

    /// The path of a text argument, from a folder that is open or from where the process runs.
    fn path(&self, folder: &str, text: &str) -> Option<String> {
        let text = bytes(text);
        if text.is_empty() || text.starts_with(b"/") {
            return self.below(text);
        }
        let root = self.recording.root.as_os_str().as_encoded_bytes();
        let base = folder.split_once('<').map_or_else(|| root.to_vec(), |(_, path)| hex(path));
        self.below([&base, &b"/"[..], &text].concat())
    }

    fn below(&self, path: Vec<u8>) -> Option<String> {
        let path = String::from_utf8(path).ok()?;
        let below = path.strip_prefix(self.recording.root.to_str().expect("UTF-8"))?;
        let below = below.strip_prefix('/').or_else(|| below.is_empty().then_some(""))?;
        (!below.ends_with("-shm")).then(|| below.trim_end_matches('/').to_owned())
    }
}

fn number(text: &str) -> Option<i64> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(text.len());
    text[..end].parse().ok()
}

/// The bytes of a text argument; none when it is something else.
fn bytes(argument: &str) -> Vec<u8> {
    argument.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).map(hex).unwrap_or_default()
}

/// The bytes of `\x2f\x74..`, up to what is no such byte.
fn hex(text: &str) -> Vec<u8> {
    let digit = |byte: u8| (byte as char).to_digit(16).expect("a digit") as u8;
    let bytes = text.as_bytes().chunks_exact(4).take_while(|four| four.starts_with(b"\\x"));
    bytes.map(|four| digit(four[2]) * 16 + digit(four[3])).collect()
}

#[test]
fn what_is_in_a_folder_may_be_told_of_before_the_folder() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut recording = Recording::of(dir.path());
    for event in [Event::Create("a/b/file".into()), Event::MakeFolder("a".into()), Event::MakeFolder("a/b".into())] {
        recording.push(event);
    }
    assert!(recording.disk.has("a/b/file"));
    assert_eq!(recording.events.len(), 3);
}
