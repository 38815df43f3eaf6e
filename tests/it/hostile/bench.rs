//! A folder with a job in it, and the program run on it under a watch.

use crate::left::{nothing_of, temporary_folder};
use serde_json::Value;
use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use tempfile::TempDir;

/// A run that takes longer is a hang, in seconds.
const HANG_AFTER: &str = "600";

/// A job and its files in a folder of their own.
pub struct Night {
    pub dir: TempDir,
    pub env: Vec<(String, String)>,
    /// Shell text that is run before the program, in the shell that becomes it.
    pub before: String,
    /// A program with its arguments that starts ours, such as `strace`.
    pub through: Vec<String>,
}

/// How the program ended.
pub struct Ended {
    pub code: Option<i32>,
    pub record: Value,
    pub stderr: String,
}

impl Night {
    pub fn new(job: &str) -> Night {
        let dir = tempfile::tempdir().expect("a folder");
        fs::create_dir(dir.path().join("jobs")).expect("a job folder");
        fs::create_dir(temporary_folder(dir.path())).expect("a folder");
        let night = Night { dir, env: Vec::new(), before: String::new(), through: Vec::new() };
        night.file("night.ron", job);
        night
    }

    /// A job whose source reads items as JSON from a file, each with a field `k` as its key, into one worker stage `w`.
    pub fn of(items: &Value, worker: &str) -> Night {
        let source = r#"Stage(name: "s", key: "{{ item.k }}", max_value: "20MB", run: [Read(json: "items.json")])"#;
        let night = Night::new(&format!("Job(stages: [{source}, Stage(name: \"w\", {worker})])"));
        night.file("items.json", items.to_string());
        night
    }

    /// Writes a file into the job folder.
    pub fn file(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.jobs().join(name);
        fs::create_dir_all(path.parent().expect("below the job folder")).expect("folders");
        fs::write(&path, text).expect("a file");
        path
    }

    pub fn jobs(&self) -> PathBuf {
        self.dir.path().join("jobs")
    }

    pub fn out(&self, name: &str) -> PathBuf {
        let root = self.dir.path().join("out");
        if name.is_empty() { root } else { root.join(name) }
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.out(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Names of all files below the output folder, sorted.
    pub fn outputs(&self) -> Vec<String> {
        let mut names = Vec::new();
        let root = self.out("");
        let mut open = vec![root.clone()];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    open.push(path);
                } else {
                    names.push(path.strip_prefix(&root).expect("below").to_string_lossy().into_owned());
                }
            }
        }
        names.sort();
        names
    }

    pub fn run(&self) -> Ended {
        self.run_with(&[])
    }

    pub fn run_with(&self, arguments: &[&str]) -> Ended {
        let script = format!("{}\nexec timeout -s KILL {HANG_AFTER} \"$@\"", self.before);
        let mut command = Command::new("bash");
        command.args(["-c", &script, "night"]).args(&self.through).args([env!("CARGO_BIN_EXE_lamplighter"), "run"]);
        command.arg(self.jobs().join("night.ron")).args(["--format", "json"]).args(arguments);
        command.env("XDG_STATE_HOME", self.dir.path().join("kept"));
        command.current_dir(self.dir.path()).env("LAMPLIGHTER_LOG", "info");
        command.env("HOME", self.dir.path()).env("TMPDIR", temporary_folder(self.dir.path()));
        command.envs(self.env.iter().cloned());
        let output = command.output().expect("bash");
        let stdout = String::from_utf8(output.stdout).expect("UTF-8");
        let record =
            stdout.lines().last().map(|line| serde_json::from_str(line).expect("a record")).unwrap_or_default();
        let ended =
            Ended { code: output.status.code(), record, stderr: String::from_utf8_lossy(&output.stderr).into_owned() };
        ended.holds_the_promise(self);
        ended
    }
}

/// Says that something cannot be tested here, for want of a tool or a right: [`hostile`](super) says how to get it. Where
/// everything is checked (`CI=true`) that is a failure, unless `LAMPLIGHTER_CI_WITHOUT_RIGHTS` allows it.
pub fn skip(why: &str) {
    let is = |name: &str, wanted: fn(&str) -> bool| std::env::var(name).is_ok_and(|value| wanted(&value));
    let is_allowed = is("LAMPLIGHTER_CI_WITHOUT_RIGHTS", |value| !value.is_empty());
    assert!(is_allowed || !is("CI", |value| value == "true"), "not tested: {why}");
    // Of a test that passes nothing is shown that `eprintln!` writes.
    let _ = writeln!(io::stderr(), "skipped: {why}");
}

/// Whether there is a program of this name.
pub fn there_is(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// The same program where nothing says that the clock of the machine is right, whatever this one says of it: with folders of
/// its own in the place of those where who sets the clock leaves its word. `None` where that cannot be had.
pub fn with_no_word_of_the_clock(command: &Command) -> Option<Command> {
    let folders = ["/run/systemd/timesync", "/run/lamplighter"];
    let script: String = folders
        .iter()
        .filter(|folder| Path::new(folder).is_dir())
        .map(|folder| format!("mount -t tmpfs tmpfs {folder} || exit 99; "))
        .collect();
    let mut other = if script.is_empty() {
        // Nobody can have left a word: nothing is to be hidden.
        Command::new(command.get_program())
    } else {
        // A namespace of users is for who may not mount without one.
        let namespaces = [&["--mount"][..], &["--user", "--map-root-user", "--mount"]];
        let can_be_had = |namespace: &&&[&str]| {
            let unshare = Command::new("unshare").args(**namespace).arg("true").stderr(Stdio::null()).status();
            unshare.is_ok_and(|status| status.success())
        };
        let Some(namespace) = namespaces.iter().find(can_be_had) else {
            skip(
                "a clock that nobody knows to be right needs `unshare`, and root or a kernel that lets users have namespaces",
            );
            return None;
        };
        let mut other = Command::new("unshare");
        other.args(*namespace).args(["sh", "-c", &format!("{script}exec \"$0\" \"$@\"")]).arg(command.get_program());
        other
    };
    other.args(command.get_args()).current_dir(command.get_current_dir()?).env_clear();
    other.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    Some(other)
}

/// A small file system; `None` where it cannot be mounted (that needs root).
pub struct Tmpfs(PathBuf);

impl Tmpfs {
    pub fn mount(at: &Path, options: &str) -> Option<Tmpfs> {
        fs::create_dir_all(at).expect("a folder");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).output();
        if mounted.is_ok_and(|mounted| mounted.status.success()) {
            return Some(Tmpfs(at.to_owned()));
        }
        skip("a small disk needs the right to mount a tmpfs");
        None
    }

    /// Mounts it anew with these options, what is in it stays.
    pub fn remount(&self, options: &str) {
        let mounted = Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(&self.0).status();
        assert!(mounted.expect("mount").success(), "{options}");
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A memory controller of its own; gone when dropped.
pub struct MemoryGroup {
    path: PathBuf,
    peak: &'static str,
}

impl MemoryGroup {
    /// `None` where there is none to be had (it needs root and a mounted controller).
    pub fn new(name: &str, bytes: u64) -> Option<MemoryGroup> {
        let name = format!("lamplighter-test-{name}-{}", std::process::id());
        for (root, limit, peak) in [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.max_usage_in_bytes"),
            ("/sys/fs/cgroup", "memory.max", "memory.peak"),
        ] {
            let path = Path::new(root).join(&name);
            if Path::new(root).join("cgroup.procs").exists() && fs::create_dir(&path).is_ok() {
                let group = MemoryGroup { path, peak };
                if fs::write(group.path.join(limit), bytes.to_string()).is_ok() {
                    return Some(group);
                }
            }
        }
        skip("a limit of memory needs root and a memory controller that can be written to");
        None
    }

    /// A line of shell that takes the shell, and what it starts or becomes, into it.
    pub fn enter(&self) -> String {
        format!("echo $$ >{}", self.path.join("cgroup.procs").display())
    }

    /// The most bytes that were in use at once, what it holds of the page cache included; nothing where the kernel does not count.
    pub fn peak(&self) -> Option<u64> {
        fs::read_to_string(self.path.join(self.peak)).ok()?.trim().parse().ok()
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.path);
    }
}

impl Ended {
    fn holds_the_promise(&self, night: &Night) {
        let code = self.code.unwrap_or_else(|| panic!("it was killed: {}", self.stderr));
        assert_ne!(code, 137, "a hang: {}", self.stderr);
        assert!(code < 128, "ended with {code}: {}", self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        nothing_of(night.dir.path(), self.record["run"].as_str());
        if self.record.is_null() {
            return;
        }
        for stage in self.record["stages"].as_array().expect("stages") {
            let count = |name: &str| stage[name].as_u64().expect(name);
            let ends = ["ok", "empty", "failed", "timed_out", "cancelled", "not_reached", "held"];
            assert_eq!(ends.iter().map(|end| count(end)).sum::<u64>(), count("items"), "{stage}");
        }
        for failure in self.record["failures"].as_array().expect("failures") {
            assert_ne!(failure["class"], "panic", "{failure}");
            assert!(failure["message"].as_str().is_none_or(|message| !message.contains('\u{1b}')), "{failure}");
        }
    }

    pub fn count(&self, stage: &str, end: &str) -> u64 {
        let stages = self.record["stages"].as_array().unwrap_or_else(|| panic!("no record: {}", self.stderr));
        let found = stages.iter().find(|found| found["name"] == stage).expect(stage);
        found[end].as_u64().expect(end)
    }

    pub fn complete(&self, stage: &str) -> bool {
        let stages = self.record["stages"].as_array().expect("stages");
        stages.iter().find(|found| found["name"] == stage).expect(stage)["complete"] == true
    }

    pub fn reason(&self) -> &str {
        self.record["reason"].as_str().unwrap_or_default()
    }

    /// `class message` of the failure of this item.
    pub fn failure(&self, key: &str) -> String {
        let failures = self.record["failures"].as_array().unwrap_or_else(|| panic!("no record: {}", self.stderr));
        let found = failures.iter().find(|failure| failure["key"] == key);
        let found = found.unwrap_or_else(|| panic!("{key} is no failure: {}", self.record));
        format!("{} {}", found["class"].as_str().unwrap_or("?"), found["message"].as_str().unwrap_or_default())
    }

    /// Asserts exit code and outcome.
    pub fn is(&self, code: i32, outcome: &str) -> &Ended {
        assert_eq!((self.code, self.record["outcome"].as_str()), (Some(code), Some(outcome)), "{}", self.stderr);
        self
    }

    /// Asserts that nothing was run, and that this is said.
    pub fn refused(&self, says: &str) {
        assert_eq!((self.code, &self.record), (Some(2), &Value::Null), "{}", self.stderr);
        assert!(self.stderr.contains(says), "{}", self.stderr);
    }

    /// Asserts that the item failed so.
    pub fn fails(&self, key: &str, says: &str) -> &Ended {
        let failure = self.failure(key);
        assert!(failure.contains(says), "{key}: {failure}");
        self
    }
}
