//! What tests of the program share: a temporary folder to run it in, the program as a child process, a simulated vendor,
//! and a scripted one.

#![allow(clippy::disallowed_methods, reason = "the program is another process, watched from real threads")]

use lamplighter::item::Value;
use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    mem,
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

/// A program that takes longer than this hangs: it is killed, and its test fails.
const PATIENCE: Duration = Duration::from_secs(900);

/// Looks again and again until something is found, or [`PATIENCE`] is over.
#[track_caller]
pub fn found<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        if let Some(found) = look() {
            return found;
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("it never came: {what}");
}

/// The same until something is so.
#[track_caller]
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    found(what, || is_so().then_some(()));
}

/// Writes a program that is started at once. Another process writes it: a child that some other test is just starting has
/// what this process has open for writing, and until it is another program the kernel starts nothing of it.
pub fn write_program(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
    let mut writer = Command::new("sh")
        .args(["-c", "cat > \"$0\" && chmod 755 \"$0\""])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .expect("a shell");
    writer.stdin.take().expect("stdin is piped").write_all(bytes).expect("it is written");
    assert!(writer.wait().expect("it ends").success());
}

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_lamplighter");

/// A folder of the repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A temporary folder that the program runs in, and one beside it for the state.
pub struct Place(tempfile::TempDir, tempfile::TempDir);

impl Place {
    /// An empty one.
    pub fn new() -> Place {
        let folder = || tempfile::tempdir().expect("a temporary folder");
        Place(folder(), folder())
    }

    /// One with this job in `jobs/`.
    pub fn with_job(name: &str, text: &str) -> Place {
        let place = Place::new();
        place.write(&format!("jobs/{name}.ron"), text);
        place
    }

    /// The folder of the state.
    pub fn state(&self) -> PathBuf {
        self.1.path().join("lamplighter")
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }

    /// Writes a file, and its folders.
    pub fn write(&self, below: &str, text: &str) {
        let path = self.path(below);
        fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
        fs::write(path, text).expect("a file");
    }

    pub fn read(&self, below: &str) -> String {
        fs::read_to_string(self.path(below)).unwrap_or_else(|error| panic!("{below}: {error}"))
    }

    /// Every file below the folder, by its path in it, sorted.
    pub fn files(&self) -> Vec<String> {
        fn walk(folder: &Path, root: &Path, found: &mut Vec<String>) {
            for entry in fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                match path.is_dir() {
                    true => walk(&path, root, found),
                    false => found.push(path.strip_prefix(root).expect("below").to_string_lossy().into_owned()),
                }
            }
        }
        let mut found = Vec::new();
        walk(self.0.path(), self.0.path(), &mut found);
        found.sort();
        found
    }

    /// The program with these arguments, in this folder, with nothing of ours in its environment.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).current_dir(self.0.path()).env_clear().stdin(Stdio::null());
        for name in ["PATH", "HOME", "LLVM_PROFILE_FILE"] {
            command.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        command.env("XDG_STATE_HOME", self.1.path());
        command
    }

    /// Runs the program to its end.
    pub fn run(&self, arguments: &[&str]) -> Done {
        finish(&mut self.command(arguments))
    }

    /// The same with the token that the simulated vendor takes.
    pub fn run_with_token(&self, arguments: &[&str]) -> Done {
        finish(self.command(arguments).env("LAMPLIGHTER_SECRET_VENDOR_TOKEN", "demo-token"))
    }
}

/// How a program ended, and what it said.
#[derive(Debug)]
pub struct Done {
    /// The exit code; 1000 + the signal that ended it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Done {
    /// Itself when it ended with this code; else the test fails and shows all that was said.
    #[track_caller]
    pub fn exits(self, code: i32) -> Done {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self
    }

    /// Itself when stderr holds this text.
    #[track_caller]
    pub fn says(self, text: &str) -> Done {
        assert!(self.stderr.contains(text), "no {text:?} in stderr:\n{}", self.stderr);
        self
    }

    /// Itself when stdout holds this text.
    #[track_caller]
    pub fn prints(self, text: &str) -> Done {
        assert!(self.stdout.contains(text), "no {text:?} in stdout:\n{}", self.stdout);
        self
    }

    /// Stdout, which is one JSON value and nothing else.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}:\n{}\n{}", self.stdout, self.stderr))
    }
}

/// Runs a command to its end.
pub fn finish(command: &mut Command) -> Done {
    Going::start(command).end()
}

/// A program that runs: its stderr is read as it comes. Killed and reaped when it is dropped, so that a test that fails leaves
/// none behind.
pub struct Going {
    pub child: Child,
    said: String,
    lines: mpsc::Receiver<String>,
    stdout: Option<thread::JoinHandle<String>>,
}

impl Going {
    /// Starts it with both streams piped and read.
    pub fn start(command: &mut Command) -> Going {
        let mut going = Going::start_as_it_is(command.stdout(Stdio::piped()));
        let mut stdout = going.child.stdout.take().expect("stdout is piped");
        going.stdout = Some(thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = stdout.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        }));
        going
    }

    /// Starts it with stdout as the command has it.
    pub fn start_as_it_is(command: &mut Command) -> Going {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the program starts");
        let stderr = child.stderr.take().expect("stderr is piped");
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            let mut reader = BufReader::new(stderr);
            let mut bytes = Vec::new();
            while reader.read_until(b'\n', &mut bytes).is_ok_and(|n| n > 0) {
                if sender.send(String::from_utf8_lossy(&bytes).into_owned()).is_err() {
                    return;
                }
                bytes.clear();
            }
        });
        Going { child, said: String::new(), lines, stdout: None }
    }

    /// Reads one line of stdout and closes it, as `| head -1` does.
    pub fn close_stdout_after_a_line(&mut self) {
        let mut line = String::new();
        let stdout = self.child.stdout.take().expect("stdout is piped");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
    }

    /// Waits until stderr says this.
    #[track_caller]
    pub fn until_it_says(&mut self, text: &str) {
        while !self.said.contains(text) {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => self.said.push_str(&line),
                Err(_) => {
                    let _ = self.child.kill();
                    panic!("it never said {text:?}:\n{}", self.said);
                }
            }
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("a signal is sent");
    }

    /// Waits for its end; one that hangs is killed.
    pub fn end(mut self) -> Done {
        let (sender, ended) = mpsc::channel::<()>();
        let pid = rustix::process::Pid::from_child(&self.child);
        let watch = thread::spawn(move || {
            if ended.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        });
        let status = self.child.wait().expect("it is waited for");
        drop(sender);
        let _ = watch.join();
        self.said.extend(self.lines.iter());
        Done {
            code: status.code().unwrap_or_else(|| 1000 + status.signal().unwrap_or(0)),
            stdout: self.stdout.take().map_or_else(String::new, |reader| reader.join().expect("stdout is read")),
            stderr: mem::take(&mut self.said),
        }
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        // Of one that was waited for nothing is killed: its status is known.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `vendor-sim` as a child process on a free port, without latency unless it is told to have one; ended when dropped.
pub struct Sim {
    child: Child,
    /// `http://127.0.0.1:PORT`
    pub base: String,
    _stdout: BufReader<ChildStdout>,
}

impl Sim {
    /// With this many patients and further arguments.
    pub fn start(patients: u32, arguments: &[&str]) -> Sim {
        let mut command = Command::new(PROGRAM);
        let patients = patients.to_string();
        command.args(["vendor-sim", "--listen", "127.0.0.1:0", "--patients", &patients]);
        if !arguments.contains(&"--time-scale") {
            command.args(["--time-scale", "0"]);
        }
        let mut child = command.args(arguments).stdout(Stdio::piped()).spawn().expect("the vendor starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut base = String::new();
        stdout.read_line(&mut base).expect("an address");
        Sim { child, base: base.trim().to_owned(), _stdout: stdout }
    }

    /// The argument that sends a job to it.
    pub fn set(&self) -> String {
        format!("vendor={}", self.base)
    }

    /// Ends it with a signal; its exit code.
    pub fn stop(mut self, signal: rustix::process::Signal) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("a signal is sent");
        self.child.wait().expect("it is waited for").code()
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One request to `http://HOST/PATH`: the status and the body.
pub fn get(url: &str, headers: &str) -> (u16, String) {
    let (host, path) = url.strip_prefix("http://").and_then(|rest| rest.split_once('/')).expect("a URL");
    let mut stream = TcpStream::connect(host).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n").expect("it is sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head[9..12].parse().expect("a status"), body.to_owned())
}

/// What a [`Scripted`] vendor does with a request.
#[derive(Clone)]
pub enum Act {
    /// Answers with this status and body.
    Answer(u16, String),
    /// Never answers; the connection is watched until the client closes it.
    Silence,
}

/// A vendor that does what a test says, request by request, by its path without the query.
pub struct Scripted {
    pub base: String,
    state: Arc<Mutex<BTreeMap<String, u64>>>,
    closed: mpsc::Receiver<String>,
}

impl Scripted {
    /// Decides with `script`.
    pub fn start(script: impl Fn(&str) -> Act + Send + Sync + 'static) -> Scripted {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        let state: Arc<Mutex<BTreeMap<String, u64>>> = Arc::default();
        let (sender, closed) = mpsc::channel();
        let (seen, script) = (state.clone(), Arc::new(script));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, script, closed) = (seen.clone(), script.clone(), sender.clone());
                thread::spawn(move || serve(stream, &*script, &seen, &closed));
            }
        });
        Scripted { base, state, closed }
    }

    /// How many requests a path had.
    pub fn requests(&self, path: &str) -> u64 {
        self.state.lock().expect("no test panicked").get(path).copied().unwrap_or(0)
    }

    /// Waits until the client has closed a connection that was never answered; its path.
    pub fn next_closed(&self) -> String {
        self.closed.recv_timeout(PATIENCE).expect("a silent connection is closed by the client")
    }
}

fn serve(
    mut stream: TcpStream,
    script: &(dyn Fn(&str) -> Act + Send + Sync),
    seen: &Mutex<BTreeMap<String, u64>>,
    closed: &mpsc::Sender<String>,
) {
    let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
    loop {
        let (mut first, mut length) = (String::new(), 0);
        if reader.read_line(&mut first).unwrap_or(0) == 0 {
            return;
        }
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 || line == "\r\n" {
                break;
            }
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        let mut body = vec![0; length];
        let _ = reader.read_exact(&mut body);
        let path = first.split(' ').nth(1).and_then(|target| target.split('?').next()).unwrap_or("").to_owned();
        *seen.lock().expect("no thread panicked").entry(path.clone()).or_default() += 1;
        match script(&path) {
            Act::Answer(status, body) => {
                let answer = format!(
                    "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                if stream.write_all(answer.as_bytes()).is_err() {
                    return;
                }
            }
            Act::Silence => {
                let mut rest = Vec::new();
                let _ = reader.read_to_end(&mut rest);
                let _ = stream.shutdown(Shutdown::Both);
                let _ = closed.send(path);
                return;
            }
        }
    }
}
