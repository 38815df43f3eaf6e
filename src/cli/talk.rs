//! Asking the `serve` that holds the state, where one does.

use super::{Format, logging};
use super::{
    Global,
    exit::Exit,
    progress::Picture,
    run::{End, Trial, show},
    runtime::{Signals, first},
    screen::{complain, print, say},
    settings::Settings,
    state::folder,
};
use lamplighter::{
    action::Said,
    api::{Answer, Answers, Begun, Client, Follow, Request},
    daemon::Refusal,
    item::RunOutcome,
    run::Progress,
};
use std::{
    io::{self, IsTerminal},
    path::PathBuf,
};

/// The `serve` that holds the state; `None` when none does.
pub fn daemon(settings: &Settings) -> Result<Option<Client>, Exit> {
    Client::find(&folder(settings)?).map_err(|error| gone(&error))
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

/// Asks something that has one answer. A refusal is told.
pub fn ask(client: &Client, request: &Request) -> Result<Answer, Exit> {
    smol::block_on(async { next(&mut client.ask(request).await.map_err(|error| gone(&error))?).await })
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

/// Has the daemon answer what is otherwise answered here; `None` when there is no daemon.
pub fn relayed(global: &Global, request: &Request) -> Option<Exit> {
    let client = match Settings::read(global).and_then(|settings| daemon(&settings)) {
        Ok(client) => client?,
        Err(exit) => return Some(exit),
    };
    let relay = async {
        let mut signals = Signals::take().map_err(|error| no_signals(&error))?;
        let told = async {
            let mut answers = client.ask(request).await.map_err(|error| gone(&error))?;
            loop {
                match answers.next().await.map_err(|error| gone(&error))? {
                    Some(Answer::Text(text)) => print(&text)?,
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
        first(told, async { Err(Exit::Signal(signals.next().await)) }).await
    };
    Some(smol::block_on(relay).unwrap_or_else(|exit| exit))
}

fn no_signals(error: &io::Error) -> Exit {
    complain(&format!("signals cannot be received: {error}"));
    Exit::Io
}

/// How a run of the daemon is followed by this command; `None`: it is not.
pub fn follow(detach: bool) -> Option<Follow> {
    let debug = std::env::var_os("LAMPLIGHTER_LOG").is_some_and(|filter| !filter.is_empty());
    (!detach).then(|| Follow { debug, picture: std::io::stderr().is_terminal() })
}

/// Has the daemon begin a run, and follows it as if it ran here; or only names it.
pub fn hand_over(client: &Client, request: &Request, format: Format) -> Exit {
    smol::block_on(async { handed_over(client, request, format).await }).unwrap_or_else(|exit| exit)
}

async fn handed_over(client: &Client, request: &Request, format: Format) -> Result<Exit, Exit> {
    let mut signals = Signals::take().map_err(|error| no_signals(&error))?;
    let mut answers = client.ask(request).await.map_err(|error| gone(&error))?;
    let Answer::Begun(begun) = next(&mut answers).await? else { return Err(unexpected()) };
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
    let record = loop {
        let answer = async { Next::Answer(answers.next().await) };
        let next = first(answer, async { Next::Signal(signals.next().await) }).await;
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
                // One that has just ended tells so by itself.
                match client.ask(&request).await {
                    Ok(mut told) => drop(told.next().await),
                    Err(error) => complain(&format!("`serve` cannot be told: {error}")),
                }
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
fn seen_from_here(path: &std::path::Path) -> PathBuf {
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
