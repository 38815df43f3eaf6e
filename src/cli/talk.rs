//! Asking the `serve` that holds the state, where one does.

use super::{
    Format, Global,
    exit::Exit,
    logging,
    progress::Picture,
    run::{End, Trial, show},
    runtime::{self, Signals, first, wait},
    screen::{complain, print, print_piece, reader_goes, say},
    serve::holder,
    settings::Settings,
    state::folder,
};
use async_executor::Executor;
use lamplighter::{
    action::Said,
    api::{Answer, Answers, Begun, Client, Follow, Request, SOCKET},
    daemon::Refusal,
    item::RunOutcome,
    limits::API_SILENCE_MAX,
    run::Progress,
    world::World,
};
use std::{
    future::Future,
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// How often a `serve` is looked for that holds the state and does not listen: one that starts will in a moment, one that
/// ends lets the state go.
const LOOKS: u32 = 20;

/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Who serves a state.
enum Serving {
    Nobody,
    Listens(Client),
    /// It has the state, and nobody can talk to it.
    IsDeaf {
        pid: String,
    },
}

fn serving(folder: &Path) -> Result<Serving, Exit> {
    Ok(match Client::find(folder).map_err(|error| gone(&error))? {
        Some(client) => Serving::Listens(client),
        None => holder(folder).map_or(Serving::Nobody, |pid| Serving::IsDeaf { pid }),
    })
}

/// The same, where one that starts, or ends, has had a moment for it.
fn settled(folder: &Path) -> Result<Serving, Exit> {
    for _ in 0..LOOKS {
        match serving(folder)? {
            Serving::IsDeaf { .. } => wait(LOOK_AGAIN),
            settled => return Ok(settled),
        }
    }
    serving(folder)
}

/// That a `serve` holds the state and nobody can talk to it.
fn is_deaf(pid: &str, folder: &Path) -> String {
    format!("a `serve` (pid {pid}) holds the state, and nobody listens on {}", folder.join(SOCKET).display())
}

/// The `serve` that holds the state; `None` when none does.
pub fn daemon(settings: &Settings) -> Result<Option<Client>, Exit> {
    let folder = folder(settings)?;
    match settled(&folder)? {
        Serving::Nobody => Ok(None),
        Serving::Listens(client) => Ok(Some(client)),
        Serving::IsDeaf { pid } => {
            let deaf = is_deaf(&pid, &folder);
            complain(&format!("{deaf}: nothing was done. Its log says why; once it is restarted it can be talked to"));
            Err(Exit::Io)
        }
    }
}

/// What is heard of a `serve`.
pub enum Heard {
    /// None holds the state.
    Nobody,
    /// One does, and does not answer.
    Silence,
    /// One does, and this is its answer.
    Answer(Answer),
}

/// Asks what can be answered without a `serve` as well. Where one holds the state and does not answer it is said so, and that
/// files and state are asked.
pub fn hear(settings: &Settings, request: &Request) -> Result<Heard, Exit> {
    let folder = folder(settings)?;
    let silence = |why: &str| {
        complain(&format!("{why}: what follows is what files and state say. Its log says what it does"));
        Ok(Heard::Silence)
    };
    let client = match settled(&folder)? {
        Serving::Nobody => return Ok(Heard::Nobody),
        Serving::IsDeaf { pid } => return silence(&is_deaf(&pid, &folder)),
        Serving::Listens(client) => client,
    };
    talking(|world| async move {
        let late = async {
            world.sleep(API_SILENCE_MAX).await;
            silence(&has_not_answered())
        };
        first(async { answer(&client, request).await.map(Heard::Answer) }, late).await
    })
}

/// There is a `serve`, and it cannot be talked to.
fn gone(error: &io::Error) -> Exit {
    complain(&format!("`serve` holds the state and does not answer: {error}"));
    Exit::Io
}

/// Says why something was not done.
pub fn refused(refusal: &Refusal) -> Exit {
    complain(&format!("{refusal}: nothing was done"));
    match refusal {
        Refusal::NoJob(_) | Refusal::NoRun(_) | Refusal::Wrong(_) => Exit::Usage,
        Refusal::Busy(_) | Refusal::Stopping => Exit::Refused,
    }
}

/// Runs what talks to a daemon, with timers.
fn talking<T, F: Future<Output = T>>(story: impl FnOnce(World) -> F) -> T {
    let executor = Arc::new(Executor::new());
    runtime::block_on(&executor, 1, story(World::real(executor.clone())))
}

fn has_not_answered() -> String {
    format!("`serve` holds the state and has not answered for {} s", API_SILENCE_MAX.as_secs())
}

/// An answer, or that none comes.
async fn in_time<T>(world: &World, answer: impl Future<Output = Result<T, Exit>>) -> Result<T, Exit> {
    let late = async {
        world.sleep(API_SILENCE_MAX).await;
        complain(&format!(
            "{}: what was asked may be done nevertheless. Its log says what it does; one that is restarted goes on with its runs",
            has_not_answered()
        ));
        Err(Exit::Io)
    };
    first(answer, late).await
}

/// Says once that no answer has come, and waits on.
async fn still_silent<T>(world: &World) -> T {
    world.sleep(API_SILENCE_MAX).await;
    complain(&format!("`serve` has not answered for {} s: Ctrl-C ends the wait", API_SILENCE_MAX.as_secs()));
    std::future::pending().await
}

/// Asks something that has one answer. A refusal is told.
pub fn ask(client: &Client, request: &Request) -> Result<Answer, Exit> {
    talking(|world| async move { in_time(&world, answer(client, request)).await })
}

async fn answer(client: &Client, request: &Request) -> Result<Answer, Exit> {
    next(&mut client.ask(request).await.map_err(|error| gone(&error))?).await
}

async fn next(answers: &mut Answers) -> Result<Answer, Exit> {
    match answers.next().await {
        Ok(Some(Answer::Refused(refusal))) => Err(refused(&refusal)),
        Ok(Some(Answer::Failed(why))) => {
            complain(&why);
            Err(Exit::Io)
        }
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => Err(unexpected()),
        Err(error) => Err(gone(&error)),
    }
}

/// What was answered is nothing that this version asks for.
pub fn unexpected() -> Exit {
    complain("`serve` answered something else than was asked: is it of another version?");
    Exit::Io
}

/// Has the daemon answer what is otherwise answered here, from the state; `None` when none can be asked.
pub fn relayed(global: &Global, request: &Request) -> Option<Exit> {
    let found = Settings::read(global).and_then(|settings| serving(&folder(&settings)?));
    let client = match found {
        Ok(Serving::Listens(client)) => client,
        Ok(Serving::Nobody | Serving::IsDeaf { .. }) => return None,
        Err(exit) => return Some(exit),
    };
    let relay = |world: World| async move {
        let mut signals = Signals::take()?;
        let told = async {
            let mut answers =
                in_time(&world, async { client.ask(request).await.map_err(|error| gone(&error)) }).await?;
            loop {
                let next = async { answers.next().await.map_err(|error| gone(&error)) };
                // What is followed may be silent.
                let next = if request.stays() { next.await? } else { in_time(&world, next).await? };
                match next {
                    Some(Answer::Text(text)) => print_piece(&text)?,
                    Some(Answer::Note(line)) => say(&format!("lamplighter: {line}")),
                    Some(Answer::Done) => return Ok(Exit::Done),
                    Some(Answer::Failed(why)) => {
                        complain(&why);
                        return Err(Exit::Io);
                    }
                    Some(Answer::Refused(Refusal::NoRun(why))) => {
                        complain(&why);
                        return Err(Exit::Usage);
                    }
                    Some(Answer::Refused(refusal)) => return Err(refused(&refusal)),
                    _ => return Err(unexpected()),
                }
            }
        };
        signals.end(while_read(&world, told)).await
    };
    Some(talking(relay).unwrap_or_else(|exit| exit))
}

/// Prints what comes for as long as somebody reads it.
pub async fn while_read(world: &World, prints: impl Future<Output = Result<Exit, Exit>>) -> Result<Exit, Exit> {
    let unread = async {
        reader_goes(world).await;
        Ok(Exit::Done)
    };
    first(prints, unread).await
}

/// How a run of the daemon is followed by this command; `None`: it is not.
pub fn follow(detach: bool) -> Option<Follow> {
    let debug = std::env::var_os("LAMPLIGHTER_LOG").is_some_and(|filter| !filter.is_empty());
    (!detach).then(|| Follow { debug, picture: std::io::stderr().is_terminal() })
}

/// Has the daemon begin a run, and follows it as if it ran here; or only names it.
pub fn hand_over(client: &Client, request: &Request, format: Format) -> Exit {
    let story = |world| async move { handed_over(&world, client, request, format).await };
    talking(story).unwrap_or_else(|exit| exit)
}

async fn handed_over(world: &World, client: &Client, request: &Request, format: Format) -> Result<Exit, Exit> {
    let mut signals = Signals::take()?;
    let begun = async {
        let mut answers = client.ask(request).await.map_err(|error| gone(&error))?;
        let answer = next(&mut answers).await?;
        Ok((answers, answer))
    };
    let given_up = async {
        let number = signals.next().await;
        let name = signal_name(number);
        complain(&format!("{name}: `serve` had not answered yet: `lamplighter status` says whether the run has begun"));
        Err(Exit::Signal(number))
    };
    let begun = async {
        match request.follows() {
            // Taking over what a large run has done may take its time, and somebody is there to end the wait.
            true => first(begun, still_silent(world)).await,
            false => in_time(world, begun).await,
        }
    };
    let (mut answers, answer) = first(begun, given_up).await?;
    let Answer::Begun(begun) = answer else { return Err(unexpected()) };
    if !request.follows() {
        let told = match format {
            Format::Human => format!("{}\n", begun.run),
            Format::Json => format!("{}\n", serde_json::json!({ "run": begun.run, "job": begun.job })),
        };
        return Ok(Exit::Done.after(print(&told)));
    }
    let end = followed(client, &begun, &mut answers, &mut signals).await?;
    Ok(end.exit().after(show(&end.record, &end.out, format, Trial::default())))
}

enum Next {
    Answer(io::Result<Option<Answer>>),
    Signal(u8),
}

async fn followed(client: &Client, begun: &Begun, answers: &mut Answers, signals: &mut Signals) -> Result<End, Exit> {
    let live = std::io::stderr().is_terminal();
    logging::install(live, begun.stages);
    let mut picture = live.then(Picture::new);
    let (mut signal, mut is_killed) = (None, false);
    // One that came while `serve` was told of the one before.
    let mut further = None;
    let record = loop {
        let answer = async { Next::Answer(answers.next().await) };
        let next = match further.take() {
            Some(number) => Next::Signal(number),
            None => first(answer, async { Next::Signal(signals.next().await) }).await,
        };
        match next {
            Next::Answer(Ok(Some(Answer::Progress(progress)))) => draw(&mut picture, &begun.job, &progress),
            Next::Answer(Ok(Some(Answer::Said(said)))) => log_again(&said),
            Next::Answer(Ok(Some(Answer::Ended(record)))) => break *record,
            Next::Answer(Ok(_)) => return Err(unexpected()),
            Next::Answer(Err(error)) => {
                drop(picture);
                complain(&format!(
                    "`serve` has gone ({error}): the next one goes on with {}, and `lamplighter show {}` tells of it",
                    begun.run, begun.run
                ));
                return Err(Exit::Io);
            }
            Next::Signal(number) => {
                let name = signal_name(number);
                if is_killed {
                    std::process::exit(i32::from(128 + number));
                }
                is_killed = signal.is_some();
                complain(&match is_killed {
                    false => format!("{name}: the run is cancelled; once more kills what is left"),
                    true => format!("{name}: what is left is killed"),
                });
                signal = signal.or(Some(number));
                let request = Request::Cancel { run: begun.run.clone(), by: name.to_owned(), kill: is_killed };
                let told = async {
                    // One that has just ended tells so by itself.
                    match client.ask(&request).await {
                        Ok(mut told) => drop(told.next().await),
                        Err(error) => complain(&format!("`serve` cannot be told: {error}")),
                    }
                    None
                };
                further = first(told, async { Some(signals.next().await) }).await;
            }
        }
    };
    drop(picture);
    if let Some(why) = &record.unsaved {
        complain(&format!("how {} ended is not on the disk: {why}. The next `serve` goes on with it", begun.run));
        return Err(Exit::Io);
    }
    if record.outcome == RunOutcome::Interrupted {
        complain(&format!("`serve` stops: its next start goes on with {}", begun.run));
    }
    Ok(End::of_daemon(record, seen_from_here(&begun.out), signal))
}

fn draw(picture: &mut Option<Picture>, job: &str, progress: &Progress) {
    if let Some(picture) = picture {
        picture.draw(job, progress);
    }
}

/// The name of a signal, as reasons of cancels tell it.
pub fn signal_name(number: u8) -> &'static str {
    match number {
        1 => "SIGHUP",
        2 => "SIGINT",
        _ => "SIGTERM",
    }
}

/// A path of the daemon as it would be told here.
fn seen_from_here(path: &Path) -> PathBuf {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&here).unwrap_or(path).to_owned()
}

/// Gives a line of the daemon's run to the logger of this command.
fn log_again(said: &Said) {
    let Ok(level) = said.level.parse::<log::Level>() else { return };
    if level > log::max_level() {
        return;
    }
    let fields: Vec<(&str, &str)> = said.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let mut record = log::Record::builder();
    record.level(level).target(&said.target).key_values(&fields);
    log::logger().log(&record.args(format_args!("{}", said.text)).build());
}
