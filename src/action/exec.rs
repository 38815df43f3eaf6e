//! `Exec`: runs a program with each item's values as arguments, environment or input.
//!
//! Arguments are a list, never a line: item data is one argument or one variable, never code. What the child and its
//! process group do when they are cut is told in `process`, what happens in its pipes in `pump`.

use super::{
    Acted, Action, Checked, Gives, ItemContext, Out, Place, RunContext, Stop,
    files::{Scarcity, cause, cut, for_now, preview, quoted, render},
    output,
    process::{Running, Start, Started},
    pump::{LogLines, Pumps},
};
use crate::{
    item::{Class, Failure, Key, Value, parse_json},
    lang::{Checker, Facts, Flavor, Template},
    limits::{CHILD_DRAIN_IDLE, CHILD_DRAIN_TURNS, CHILD_LAST_LINE_BYTES, SCARCE_TRIES},
    problem::UniqueMap,
    units::Size,
    world::BoxFuture,
};
use futures_lite::future::{or, try_zip};
use rustix::io::Errno;
use std::{
    io,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    pin::pin,
    process::{Command, ExitStatus},
    sync::Arc,
};

crate::spec! {
    /// Runs a program: `argv` (a list: program and arguments) or `sh` (a script for `/bin/sh -eu -c`).
    pub struct ExecSpec as "Exec" {
        /// Program and arguments, each a template and one argument. `./x.sh` stands beside the job file.
        argv: Option<Vec<String>>, example "[\"rsync\", \"-a\", \"{{ item.path }}\", \"web:/srv/\"]";
        /// A shell script. It takes no templates: values come by `env`.
        sh: Option<String>, example "\"gzip -c \\\"$FILE\\\" > \\\"$FILE.gz\\\"\"";
        /// Variables of its environment; the values are templates.
        env: Option<UniqueMap<String>>, example "{\"FILE\": \"{{ item.path }}\"}";
        /// Folder in which it runs, a template; relative to the output folder.
        cwd: Option<String>, default "run.out", example "\"/srv/data\"";
        /// What it reads, a template.
        stdin: Option<String>, default "empty", example "\"{{ value }}\"";
        /// What becomes of what it prints.
        stdout: Option<StdoutSpec>, default "Log", example "Json";
        /// Exit codes that are a success.
        success_codes: Option<Vec<i32>>, default "[0]", example "[0, 24]";
        /// Scheduling priority, from -20 to 19; 19 stands back most.
        nice: Option<i32>, default "0", example "15";
        /// Private memory that each of its processes may have.
        memory: Option<Size>, example "\"512MB\"";
        /// Puts what it gives into this field of the value.
        into: Option<String>, example "\"answer\"";
    }
}

crate::choice! {
    /// What becomes of what a program prints.
    pub enum StdoutSpec as "Stdout" {
        /// It is logged; the value before goes on.
        Log,
        /// It is one JSON value.
        Json,
        /// Every line is a value.
        Lines,
        /// It is one text.
        Text,
    }
}

/// What children get when the job says nothing of it.
const PATH_DEFAULT: &str = "/usr/local/bin:/usr/bin:/bin";

/// Shell operators that, alone as an argument, show that a shell was expected.
const OPERATORS: [&str; 10] = ["|", "||", "&", "&&", ">", ">>", "<", "2>", "2>&1", ">&2"];

struct Exec {
    /// Folder of the job file: a program such as `./x.sh` stands there.
    base: PathBuf,
    argv: Vec<Template>,
    script: Option<String>,
    env: Vec<(String, Template)>,
    cwd: Option<Template>,
    stdin: Option<Template>,
    stdout: StdoutSpec,
    success_codes: Vec<i32>,
    nice: Option<i32>,
    memory: Option<u64>,
}

/// Everything about one child, rendered.
struct Rendered {
    run: Arc<RunContext>,
    argv: Vec<String>,
    env: Vec<(String, String)>,
    /// What the run tells each child.
    ours: [(&'static str, String); 6],
    deadline: Option<String>,
    cwd: PathBuf,
    stdin: Option<String>,
}

impl Rendered {
    /// The child's environment; of two variables of one name the later one counts.
    fn environment(&self) -> impl Iterator<Item = (&str, &str)> {
        let given = self.run.environment.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let zone = self.run.zone.iana_name().map(|zone| ("TZ", zone));
        let own = self.env.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let ours = self.ours.iter().map(|(name, value)| (*name, value.as_str()));
        let deadline = self.deadline.as_deref().map(|deadline| ("LAMPLIGHTER_DEADLINE", deadline));
        given.chain(zone).chain(own).chain(ours).chain(deadline)
    }

    /// Where the child's programs are looked for.
    fn path(&self) -> &str {
        self.environment().filter(|(name, _)| *name == "PATH").last().map_or(PATH_DEFAULT, |(_, path)| path)
    }
}

/// See [`super::check`].
pub(super) fn check(spec: &ExecSpec, path: &str, _place: &Place<'_>, checker: &mut Checker<'_>) -> Option<Checked> {
    let mut ok = true;
    let mut error = |checker: &mut Checker<'_>, field: &str, message: &str, help: &str| {
        checker.error(&format!("{path}{field}"), message, Some(help));
        ok = false;
    };
    match (&spec.argv, &spec.sh) {
        (Some(_), Some(_)) => error(checker, "", "`argv` and `sh` exclude each other", "keep one of them"),
        (None, None) => {
            error(checker, "", "nothing to run", "write `argv: [\"program\", \"argument\"]` or `sh: \"script\"`")
        }
        (Some(argv), None) if argv.first().is_none_or(|program| program.is_empty()) => {
            error(checker, ".argv", "`argv` names no program", "write `argv: [\"program\", \"argument\"]`");
        }
        (None, Some(script)) if script.contains("{{") || script.contains("{%") => error(
            checker,
            ".sh",
            "a shell script takes no templates: a value could become code",
            "hand the value over by `env: {\"NAME\": \"{{ item.name }}\"}` and write \"$NAME\" in the script",
        ),
        (None, Some(script)) if script.trim().is_empty() => {
            error(checker, ".sh", "the script is empty", "write what it should do")
        }
        _ => {}
    }
    if spec.nice.is_some_and(|nice| !(-20..=19).contains(&nice)) {
        error(checker, ".nice", "`nice` is out of range", "write a number from -20 to 19");
    }
    if spec.memory.is_some_and(|memory| memory.bytes() == 0) {
        error(checker, ".memory", "no program runs without memory", "write a size such as \"512MB\"");
    }
    let codes = spec.success_codes.clone().unwrap_or_else(|| vec![0]);
    if codes.is_empty() || codes.iter().any(|code| !(0..=255).contains(code)) {
        error(checker, ".success_codes", "exit codes are numbers from 0 to 255", "write `success_codes: [0, 24]`");
    }
    let stdout = spec.stdout.clone().unwrap_or(StdoutSpec::Log);
    if spec.into.is_some() && matches!(stdout, StdoutSpec::Log) {
        error(
            checker,
            ".into",
            "what it prints goes to the log: nothing is given to put there",
            "add `stdout: Json`, `Lines` or `Text`",
        );
    }
    for (name, _) in spec.env.iter().flat_map(|env| &env.0) {
        let usable = !name.is_empty() && !name.contains(['=', '\0']) && !name.starts_with("LAMPLIGHTER_");
        if !usable {
            error(
                checker,
                &format!(".env[{name:?}]#"),
                "this name of a variable cannot be used",
                "write a name without `=` that does not begin with LAMPLIGHTER_: those are set by the run",
            );
        }
    }
    let argv = check_argv(spec.argv.as_deref().unwrap_or_default(), path, checker);
    let mut env = Vec::new();
    for (name, text) in spec.env.iter().flat_map(|env| &env.0) {
        match checker.template_or_literal(&format!("{path}.env[{name:?}]"), text, Flavor::Text) {
            Some(template) => env.push((name.clone(), template)),
            None => ok = false,
        }
    }
    let mut text = |field: &str, text: &Option<String>| {
        let text = text.as_ref()?;
        let template = checker.template_or_literal(&format!("{path}{field}"), text, Flavor::Text);
        ok &= template.is_some();
        template
    };
    let (cwd, stdin) = (text(".cwd", &spec.cwd), text(".stdin", &spec.stdin));
    let argv = argv?;
    let gives = match (&stdout, &spec.into) {
        (StdoutSpec::Log, _) => Gives::PassesOn,
        (_, None) => Gives::Values,
        (stdout, Some(name)) => Gives::Into { name: name.clone(), list: matches!(stdout, StdoutSpec::Lines) },
    };
    let memory = spec.memory.map(Size::bytes);
    let base = absolute(checker.base_dir());
    let action = Exec {
        base,
        argv,
        script: spec.sh.clone(),
        env,
        cwd,
        stdin,
        stdout,
        success_codes: codes,
        nice: spec.nice,
        memory,
    };
    ok.then(|| Checked { kind: "Exec", action: Box::new(action), gives, writes: false })
}

/// Checks each argument, and what people write who expect a shell.
fn check_argv(argv: &[String], path: &str, checker: &mut Checker<'_>) -> Option<Vec<Template>> {
    let mut templates = Some(Vec::new());
    if let [line] = argv
        && line.trim().contains(char::is_whitespace)
        && !line.contains("{{")
        && !Path::new(line).exists()
    {
        let words: Vec<String> = line.split_whitespace().map(|word| format!("{word:?}")).collect();
        let help = format!("write each argument as a text of its own: `argv: [{}]`", words.join(", "));
        let help = if words.iter().any(|word| OPERATORS.contains(&word.trim_matches('"'))) {
            format!("a command line for a shell is a script: `sh: {line:?}`")
        } else {
            help
        };
        checker.error(
            &format!("{path}.argv[0]"),
            "this is a whole command line, not the name of a program",
            Some(&help),
        );
        templates = None;
    }
    let tests = matches!(argv.first().map(String::as_str), Some("expr" | "test" | "["));
    for (place, text) in argv.iter().enumerate() {
        let at = format!("{path}.argv[{place}]");
        let after_option = place > 0 && argv[place - 1].starts_with('-');
        if place > 0 && !tests && !after_option && OPERATORS.contains(&text.as_str()) {
            checker.error(
                &at,
                format!("`{text}` is an argument here: no shell reads `argv`"),
                Some("write the whole line as a script: `sh: \"..\"`"),
            );
            templates = None;
        } else if place > 0 && !after_option && expects_shell(text) {
            checker.remark(
                &at,
                format!("`{text}` reaches the program as it is: no shell replaces it"),
                Some("write the whole line as a script (`sh: \"..\"`), or the value itself"),
            );
        }
        let Some(template) = checker.template_or_literal(&at, text, Flavor::Text) else {
            templates = None;
            continue;
        };
        if let Some(secret) = template.secrets_used().first() {
            checker.error(
                &at,
                format!("the secret `{secret}` would be seen by everybody in the list of processes"),
                Some("give it by `env` or `stdin`"),
            );
            templates = None;
        }
        if let Some(templates) = &mut templates {
            templates.push(template);
        }
    }
    templates
}

/// `*.csv`, `$HOME/x`, `~/x`.
fn expects_shell(text: &str) -> bool {
    let variable = text
        .match_indices('$')
        .any(|(at, _)| text[at + 1..].starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == '{'));
    variable || text == "~" || text.starts_with("~/") || (text.contains('*') && !text.contains("{{"))
}

impl Action for Exec {
    fn run<'a>(&'a self, cx: &'a ItemContext, facts: &'a Facts, out: &'a mut dyn Out) -> BoxFuture<'a, Acted> {
        Box::pin(async move {
            let rendered = Arc::new(self.render(cx, facts).await?);
            let program = program_name(&rendered.argv[0]);
            let started = self.start(cx, &rendered).await?;
            let pumps = Pumps::new(cx.run.world.clone());
            let done = Tailed { cx, pumps: &pumps };
            let (status, text) = self.attend(cx, started, rendered.stdin.as_deref(), &program, &pumps, out).await?;
            drop(done);
            if !status.code().is_some_and(|code| self.success_codes.contains(&code)) {
                return Err(Stop::failed(Class::Exit, ended(&program, status, pumps.last_line())));
            }
            match self.stdout {
                StdoutSpec::Log | StdoutSpec::Lines => Ok(()),
                StdoutSpec::Text => match String::from_utf8(text) {
                    Ok(text) => out.give(Value::String(text)).await,
                    Err(_) => Err(Stop::given_up(Class::Data, format!("what `{program}` printed is not UTF-8"))),
                },
                StdoutSpec::Json => match parse_json(&text) {
                    Ok(value) => out.give(value).await,
                    Err(error) => {
                        let message = format!(
                            "what `{program}` printed is no JSON value: line {}, column {}",
                            error.line(),
                            error.column()
                        );
                        Err(Stop::given_up(Class::Decode, message))
                    }
                },
            }
        })
    }

    fn preview(&self, facts: &Facts) -> Option<Result<String, Failure>> {
        let words = || -> Result<String, Failure> {
            let mut words = Vec::new();
            for (name, template) in &self.env {
                words.push(format!("{name}={}", quoted(&preview(template, facts, "env")?)));
            }
            match &self.script {
                Some(script) => words.extend(["sh -eu -c".to_owned(), quoted(script)]),
                None => {
                    for template in &self.argv {
                        words.push(quoted(&preview(template, facts, "argv")?));
                    }
                }
            }
            Ok(format!("Exec {}", words.join(" ")))
        };
        Some(words())
    }
}

/// Leaves the last lines of output with the item, however the child ends.
struct Tailed<'a> {
    cx: &'a ItemContext,
    pumps: &'a Pumps,
}

impl Drop for Tailed<'_> {
    fn drop(&mut self) {
        *self.cx.tail.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = self.pumps.tail();
    }
}

impl Exec {
    async fn render(&self, cx: &ItemContext, facts: &Facts) -> Result<Rendered, Box<Stop>> {
        let mut argv = Vec::new();
        if let Some(script) = &self.script {
            argv.extend(["/bin/sh", "-eu", "-c", script].map(str::to_owned));
        }
        let mut options_ended = false;
        for (place, template) in self.argv.iter().enumerate() {
            let argument = render(cx, template, facts, &format!("argv[{place}]")).await?;
            if argument.starts_with('-') && template.starts_with_data() && !options_ended {
                return Err(Stop::given_up(
                    Class::Data,
                    format!(
                        "argv[{place}] begins with `-` from data and could become an option: write a \"--\" before it"
                    ),
                ));
            }
            options_ended |= template.source() == "--";
            argv.push(argument);
        }
        let run = &cx.run;
        let mut env = Vec::with_capacity(self.env.len());
        for (name, template) in &self.env {
            env.push((name.clone(), render(cx, template, facts, &format!("env.{name}")).await?));
        }
        let ours = [
            ("LAMPLIGHTER_RUN", run.id.clone()),
            ("LAMPLIGHTER_JOB", run.job.clone()),
            ("LAMPLIGHTER_STAGE", cx.stage.to_string()),
            ("LAMPLIGHTER_KEY", cx.key.as_ref().map_or("", Key::as_str).to_owned()),
            ("LAMPLIGHTER_ATTEMPT", cx.attempt.to_string()),
            ("LAMPLIGHTER_IDEMPOTENCY_KEY", cx.idempotency_key()),
        ];
        let deadline = cx.slot.deadline().or(run.deadline).map(|deadline| {
            let left = deadline.since(run.world.boot());
            let left = jiff::SignedDuration::try_from(left).unwrap_or(jiff::SignedDuration::MAX);
            run.world.wall().saturating_add(left).unwrap_or(jiff::Timestamp::MAX).to_string()
        });
        let root = run.outputs.root();
        let cwd = match &self.cwd {
            Some(template) => root.join(render(cx, template, facts, "cwd").await?),
            None => root.to_owned(),
        };
        let stdin = match &self.stdin {
            Some(template) => Some(render(cx, template, facts, "stdin").await?).filter(|text| !text.is_empty()),
            None => None,
        };
        Ok(Rendered { run: run.clone(), argv, env, ours, deadline, cwd, stdin })
    }

    /// Starts the child; where the system has no process, memory or file descriptor for it now, waits and tries again.
    async fn start(&self, cx: &ItemContext, rendered: &Arc<Rendered>) -> Result<Started, Box<Stop>> {
        let run = &cx.run;
        let mut scarcity = Scarcity::default();
        loop {
            let (base, child) = (self.base.clone(), rendered.clone());
            let own_stderr = !matches!(self.stdout, StdoutSpec::Log);
            let (nice, memory) = (self.nice, self.memory);
            let makes_folder = self.cwd.is_none();
            let expected = run.leftovers.expect((cx.stage_place, cx.lineage.clone()));
            // Work of the pool begins also when nobody waits for it any more: then there must be no child.
            let waiting = Arc::new(());
            let wanted = Arc::downgrade(&waiting);
            let started = run.world.unblock(move || -> Result<Started, (io::Error, String)> {
                if wanted.strong_count() == 0 {
                    return Err((io::ErrorKind::Interrupted.into(), "cut before it was started".into()));
                }
                let Rendered { argv, cwd, stdin, .. } = &*child;
                let not_found = |message| (io::Error::from(io::ErrorKind::NotFound), message);
                let program = if argv[0].contains('/') {
                    base.join(&argv[0])
                } else {
                    find_program(&argv[0], child.path(), &base).map_err(not_found)?
                };
                if makes_folder && !cwd.is_dir() {
                    output::open_root(cwd)?;
                }
                let mut command = Command::new(&program);
                // The path is complete: the standard library would else search it in a fork of the whole program.
                command.arg0(&argv[0]).args(&argv[1..]).env_clear().envs(child.environment()).current_dir(cwd);
                let start = Start { command, stdin: stdin.is_some(), own_stderr, nice, memory };
                start.start(expected).map_err(|error| match find_program(&argv[0], child.path(), &base) {
                    Err(message) if !for_now(&error) => not_found(message),
                    _ => {
                        let message = cannot_start(&error, &child, &program);
                        (error, message)
                    }
                })
            });
            let started = started.await;
            drop(waiting);
            let (error, message) = match started {
                Ok(started) => return Ok(started),
                Err(refused) => refused,
            };
            if error.raw_os_error() == Some(Errno::TXTBSY.raw_os_error()) {
                // Somebody is writing the program just now: of use to repeat, where the stage says so.
                return Err(Stop::failed(Class::Exit, message));
            }
            if !for_now(&error) {
                return Err(Stop::given_up(Class::Exit, message));
            }
            if !scarcity.wait(cx, &message).await? {
                let program = program_name(&rendered.argv[0]);
                return Err(Stop::failed(
                    Class::Exit,
                    format!(
                        "the system had no process, memory or file descriptor for `{program}`, {SCARCE_TRIES} times"
                    ),
                ));
            }
        }
    }

    /// Serves the pipes until the child has ended and they are at their end, or are held open by somebody else.
    async fn attend(
        &self,
        cx: &ItemContext,
        started: Started,
        input: Option<&str>,
        program: &str,
        pumps: &Pumps,
        out: &mut dyn Out,
    ) -> Result<(ExitStatus, Vec<u8>), Box<Stop>> {
        let Started { mut running, stdin, stdout, stderr } = started;
        let world = &cx.run.world;
        let log = || LogLines::new(cx);
        let mut text = Vec::new();
        let status = {
            let feed = async {
                if let (Some(pipe), Some(input)) = (stdin, input) {
                    pumps.feed(pipe, input).await;
                }
                Ok(())
            };
            let errors = async {
                if let Some(pipe) = stderr {
                    pumps.log(pipe, log()).await;
                }
                Ok(())
            };
            let output = async {
                match self.stdout {
                    StdoutSpec::Log => pumps.log(stdout, log()).await,
                    StdoutSpec::Lines => pumps.lines(stdout, program, out).await?,
                    StdoutSpec::Json | StdoutSpec::Text => text = pumps.text(stdout, program, out.max_value()).await?,
                }
                Ok(())
            };
            let mut pipes = pin!(async { try_zip(feed, try_zip(errors, output)).await.map(drop) });
            let mut ended: Option<Acted> = None;
            let exited = or(
                async {
                    ended = Some(pipes.as_mut().await);
                    false
                },
                async {
                    running.exited(world).await;
                    true
                },
            )
            .await;
            if let Some(result) = ended {
                result?;
            }
            if exited {
                drain(cx, pumps, pipes, program).await?;
            } else {
                running.exited(world).await;
            }
            finish(running, program)?
        };
        Ok((status, text))
    }
}

/// After the exit: what is still in the pipes is read; who else holds them open is not waited for.
async fn drain(
    cx: &ItemContext,
    pumps: &Pumps,
    mut pipes: std::pin::Pin<&mut impl Future<Output = Acted>>,
    program: &str,
) -> Acted {
    let (mut turns, mut read) = (0, pumps.read());
    loop {
        let idle = async {
            cx.run.world.sleep(CHILD_DRAIN_IDLE).await;
            None
        };
        if let Some(result) = or(async { Some(pipes.as_mut().await) }, idle).await {
            return result;
        }
        if pumps.giving() {
            continue;
        }
        turns += 1;
        if pumps.read() == read || turns >= CHILD_DRAIN_TURNS {
            let what = "has ended and left a process behind that holds its output open; it is ended";
            cx.say("lamplighter::child", log::Level::Warn, &format!("leaked: `{program}` {what}"));
            cx.run.leftovers.note_leaked();
            pumps.cut();
            return pipes.await;
        }
        read = pumps.read();
    }
}

fn finish(running: Running, program: &str) -> Result<ExitStatus, Box<Stop>> {
    running
        .finish()
        .map_err(|error| Stop::failed(Class::Exit, format!("how `{program}` ended cannot be known: {}", cause(&error))))
}

/// "`rsync` ended with code 23; last line: …"
fn ended(program: &str, status: ExitStatus, last_line: Option<String>) -> String {
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with code {code}"),
        (None, Some(9)) => "was killed by signal 9 (perhaps for want of memory)".to_owned(),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended without a code".to_owned(),
    };
    match last_line {
        Some(line) => format!("`{program}` {how}; last line: {}", cut(&line, CHILD_LAST_LINE_BYTES)),
        None => format!("`{program}` {how}"),
    }
}

/// Where the program stands: beside the job file, at its path, or in one of the folders of the child's PATH.
fn find_program(name: &str, folders: &str, base: &Path) -> Result<PathBuf, String> {
    use rustix::fs::{Access, access};
    if name.contains('/') {
        let path = base.join(name);
        return match path.metadata() {
            Ok(about) if about.is_dir() => Err(format!("cannot start `{name}`: it is a folder")),
            Ok(_) if access(&path, Access::EXEC_OK).is_err() => {
                Err(format!("cannot start `{name}`: it is not executable: chmod +x {}", path.display()))
            }
            Ok(_) => Ok(path),
            Err(error) => Err(format!("cannot start `{name}`: {}: {}", path.display(), cause(&error))),
        };
    }
    let mut found = None;
    for folder in folders.split(':').filter(|folder| folder.starts_with('/')) {
        let path = Path::new(folder).join(name);
        if path.is_file() {
            if access(&path, Access::EXEC_OK).is_ok() {
                return Ok(path);
            }
            found = Some(path);
        }
    }
    Err(match found {
        Some(path) => format!("cannot start `{name}`: {} is not executable", path.display()),
        None => format!("cannot start `{name}`: no program of that name in PATH ({folders})"),
    })
}

/// Why the program, which is there, could not be started.
fn cannot_start(error: &io::Error, child: &Rendered, program: &Path) -> String {
    let Rendered { argv, cwd, .. } = child;
    let name = program_name(&argv[0]);
    let is = |errno: Errno| error.raw_os_error() == Some(errno.raw_os_error());
    if is(Errno::TOOBIG) {
        let size = argv.iter().map(|word| word.len() + 1).sum::<usize>()
            + child.environment().map(|(name, value)| name.len() + value.len() + 2).sum::<usize>();
        return format!(
            "cannot start `{name}`: its arguments and environment have {size} bytes, more than the system takes: give large values by `stdin`"
        );
    }
    if error.kind() == io::ErrorKind::InvalidInput {
        return format!("cannot start `{name}`: an argument or variable has a NUL character");
    }
    if is(Errno::NOENT) && !cwd.is_dir() {
        return format!("cannot start `{name}`: there is no folder {} to run it in", cwd.display());
    }
    if is(Errno::NOENT) {
        let line = interpreter(program).unwrap_or_else(|| "?".into());
        return format!("cannot start `{name}`: its interpreter `{line}` is not there");
    }
    if is(Errno::NOEXEC) {
        return format!(
            "cannot start `{name}`: it is no program for this machine, and has no first line such as `#!/bin/sh`"
        );
    }
    format!("cannot start `{name}`: {}", cause(error))
}

/// What stands behind `#!`.
fn interpreter(program: &Path) -> Option<String> {
    let mut head = vec![0; 256];
    let mut file = super::files::open_regular(program).ok()?;
    let count = super::files::read_some(&mut file, &mut head).ok()?;
    let head = head[..count].strip_prefix(b"#!")?;
    let line = head.split(|byte| *byte == b'\n').next()?;
    Some(super::files::one_line(String::from_utf8_lossy(line).trim()))
}

/// The last part of its path, for messages.
fn program_name(argv0: &str) -> String {
    let name = argv0.rsplit('/').find(|part| !part.is_empty()).unwrap_or(argv0);
    super::files::one_line(cut(name, CHILD_LAST_LINE_BYTES))
}

/// The child runs in another folder: paths that it is given must not depend on ours.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
