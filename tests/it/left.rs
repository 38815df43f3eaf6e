//! What may not be left after a run: no process, no descriptor, no temporary file, no task.
//!
//! Tests of faults end here: those of the program by [`nothing_of`] (the benches call it after every run), those of the
//! library by [`Alone`].

#![allow(clippy::disallowed_methods, reason = "processes of the system are watched, in real time")]

use lamplighter::{
    action::Handlers,
    item::RunRecord,
    job::Job,
    run::{RunOptions, Runner},
    world::World,
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
    time::Duration,
};

/// Asserts that nothing is left of runs of the program in `place`, of which `run` is one: no live process that carries the
/// run's id, has `HOME` there or stands in it, and no temporary file. Descriptors and tasks went with the program.
#[track_caller]
pub fn nothing_of(place: &Path, run: Option<&str>) {
    assert_eq!(processes_of(place, run), Vec::<String>::new(), "processes of the run are left");
    assert_eq!(temporary_files(place), Vec::<PathBuf>::new(), "temporary files are left");
}

/// `pid name` of every live process of a run.
pub fn processes_of(place: &Path, run: Option<&str>) -> Vec<String> {
    let marks = [run.map(|run| format!("LAMPLIGHTER_RUN={run}")), Some(format!("HOME={}", place.display()))];
    let ours = |process: &Path| {
        let environment = fs::read(process.join("environ")).unwrap_or_default();
        let mut variables = environment.split(|byte| *byte == 0);
        variables.any(|variable| marks.iter().flatten().any(|mark| mark.as_bytes() == variable))
            || fs::read_link(process.join("cwd")).is_ok_and(|folder| folder.starts_with(place))
    };
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let processes = processes.filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok());
    let found = processes.map(|entry| entry.path()).filter(|path| ours(path));
    found
        .map(|path| {
            let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
            format!("{} {}", path.file_name().unwrap_or_default().to_string_lossy(), name.trim())
        })
        .collect()
}

/// Every file of ours that is no output, anywhere below `place`, and whatever stands in its folder for temporary files.
fn temporary_files(place: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![place.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_name().to_string_lossy().starts_with(".lamplighter-") || folder == temporary_folder(place) {
                found.push(path.clone());
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(path);
            }
        }
    }
    found
}

/// The folder that a program under test has for temporary files.
pub fn temporary_folder(place: &Path) -> PathBuf {
    place.join("tmp")
}

/// Set in the process in which one test runs alone.
const ALONE: &str = "LAMPLIGHTER_TEST_ALONE";

/// Runs `test` in a process of its own, where descriptors and children are those of nobody else; in the outer process its
/// output and status are handed to `judge`. `name` is the path of the calling test.
pub fn alone(name: &str, test: impl FnOnce(), judge: impl FnOnce(Output)) {
    let name = name.strip_prefix("it::").unwrap_or(name);
    if std::env::var_os(ALONE).is_some_and(|wanted| wanted == name) {
        return test();
    }
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args([name, "--exact", "--nocapture", "--test-threads=1"]).env(ALONE, name);
    judge(command.output().expect("this program runs"));
}

/// For [`alone`]: the test passed.
pub fn passed(output: Output) {
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{}\n{out}\n{error}", output.status);
}

/// The path of the test with this name in the calling module.
macro_rules! here {
    ($name:ident) => {
        concat!(module_path!(), "::", stringify!($name))
    };
}
pub(crate) use here;

/// Runs of the library in a process that has nothing else in it.
pub struct Alone {
    pub dir: tempfile::TempDir,
    descriptors: Vec<String>,
}

impl Alone {
    /// Takes stock, after a first run has made what stays for the life of a process (the reactor of `async-io`).
    pub fn new() -> Alone {
        let mut alone = Alone { dir: tempfile::tempdir().expect("a folder"), descriptors: Vec::new() };
        let first = r#"Job(stages: [Stage(name: "s", key: "{{ item }}", run: [Items(list: [1])]), Stage(name: "w", run: [Exec(sh: ":")])])"#;
        alone.start(first, &Handlers::new(), |_| {}, |run, _| Some(run));
        alone.descriptors = descriptors();
        alone
    }

    /// Runs a job to its end, and asserts that nothing of it is left.
    pub fn run(&self, job: &str, handlers: &Handlers, options: impl FnOnce(&mut RunOptions)) -> RunRecord {
        let record = self.start(job, handlers, options, |run, _| Some(run)).expect("it was awaited");
        self.nothing_is_left(&record.run);
        record
    }

    /// Starts a run, polls it `polls` times, and drops its handle; asserts that nothing of it is left when the executor
    /// has nothing more to do.
    pub fn drop_after(&self, polls: usize, job: &str, handlers: &Handlers, options: impl FnOnce(&mut RunOptions)) {
        let mut id = String::new();
        self.start(job, handlers, options, |run, executor| {
            id = run.id().to_owned();
            for _ in 0..polls {
                executor.try_tick();
            }
            None
        });
        self.nothing_is_left(&id);
    }

    fn start(
        &self,
        job: &str,
        handlers: &Handlers,
        options: impl FnOnce(&mut RunOptions),
        keep: impl FnOnce(lamplighter::run::Run, &async_executor::Executor<'static>) -> Option<lamplighter::run::Run>,
    ) -> Option<RunRecord> {
        let job = Job::from_ron("alone", job, self.dir.path(), handlers)
            .unwrap_or_else(|problems| panic!("{}", problems.render(false)));
        let executor = Arc::new(async_executor::Executor::new());
        let runner = Runner::new(World::real(executor.clone()));
        let mut all = RunOptions {
            out: self.dir.path().join("out"),
            environment: [("PATH".to_owned(), "/usr/bin:/bin".to_owned())].into(),
            grace: Duration::from_millis(300),
            ..RunOptions::default()
        };
        options(&mut all);
        let run = runner.start(&Arc::new(job.job), all).expect("it starts");
        let record = keep(run, &executor).map(|run| smol::block_on(executor.run(run)));
        drop(runner);
        // A task that has ended is taken off when it is next run; one that was left to itself has until it is done.
        let patience = std::time::Instant::now() + Duration::from_secs(60);
        while !executor.is_empty() && std::time::Instant::now() < patience {
            if !executor.try_tick() {
                assert!(record.is_none(), "a task is left that waits for something");
                smol::block_on(executor.run(smol::Timer::after(Duration::from_millis(5))));
            }
        }
        assert!(executor.is_empty(), "tasks are left");
        record
    }

    fn nothing_is_left(&self, run: &str) {
        assert_eq!(processes_of(self.dir.path(), Some(run)), Vec::<String>::new(), "processes are left");
        assert_eq!(children(), Vec::<String>::new(), "children are left, alive or not reaped");
        assert_eq!(temporary_files(self.dir.path()), Vec::<PathBuf>::new(), "temporary files are left");
        assert_eq!(descriptors(), self.descriptors, "descriptors are left");
    }
}

/// What every open descriptor of this process is.
fn descriptors() -> Vec<String> {
    let all = fs::read_dir("/proc/self/fd").expect("/proc").flatten();
    // The folder that is read here is open while it is read.
    let targets = all.filter_map(|entry| fs::read_link(entry.path()).ok());
    let kinds = targets.filter(|target| !target.starts_with("/proc")).map(|target| {
        let text = target.to_string_lossy().into_owned();
        // Pipes and sockets have numbers of their own each time.
        text.split(":[").next().unwrap_or_default().to_owned()
    });
    let mut kinds: Vec<String> = kinds.collect();
    kinds.sort();
    kinds
}

/// Numbers of the children of this process, zombies too.
fn children() -> Vec<String> {
    let threads = fs::read_dir("/proc/self/task").expect("/proc").flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect()
}

#[test]
fn what_is_left_is_seen() {
    let dir = tempfile::tempdir().expect("a folder");
    // The name of a run that nobody else has.
    let run = format!("seen-by-{}", std::process::id());
    nothing_of(dir.path(), Some(&run));
    fs::create_dir(temporary_folder(dir.path())).expect("a folder");
    let root = dir.path();
    for (folder, variable) in [
        (root, ("A", Path::new("b"))),
        (Path::new("/"), ("HOME", root)),
        (Path::new("/"), ("LAMPLIGHTER_RUN", Path::new(&run))),
    ] {
        let mut command = Command::new("sleep");
        command.arg("60").current_dir(folder).env_clear().env(variable.0, variable.1);
        let mut child = command.spawn().expect("sleep");
        assert_eq!(processes_of(root, Some(&run)), [format!("{} sleep", child.id())]);
        assert!(children().contains(&child.id().to_string()));
        child.kill().expect("it is killed");
        child.wait().expect("it is reaped");
    }
    for file in ["tmp/x", "out/.lamplighter-x"] {
        let path = dir.path().join(file);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        let open = fs::File::create(&path).expect("a file");
        assert!(descriptors().iter().any(|name| path.ends_with(file) && Path::new(name) == path), "{file}");
        assert_eq!(temporary_files(dir.path()), std::slice::from_ref(&path));
        drop(open);
        fs::remove_file(path).expect("removed");
    }
    nothing_of(dir.path(), Some(&run));
}
