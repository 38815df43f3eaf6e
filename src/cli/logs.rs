//! `lamplighter logs`: what a run said.

use super::{
    Format, Global,
    exit::Exit,
    print,
    run::lost,
    runtime::{Signals, first},
    screen::{self, complain, say},
    state::{Desk, consult, find},
};
use lamplighter::{
    item::Key,
    limits::PAGE_ROWS,
    report::{self, LogLine, Standing},
    run::{Outline, standing},
    store::{EventQuery, RunEvent},
};
use std::time::Duration;

/// Arguments of `logs`.
#[derive(clap::Args)]
pub struct LogsArguments {
    /// Id of a run, or name of a job: its last run
    #[arg(value_name = "RUN|JOB")]
    run: String,
    /// Go on until the run has ended
    #[arg(long, short)]
    follow: bool,
    /// Only what is about this item, and those below it
    #[arg(long, value_name = "KEY")]
    item: Option<String>,
    /// How it is printed: JSON is one object a line
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
}

/// How often a log that is followed is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The last lines of a run are stored behind its end: so long is looked for them.
const LAST_LINES: Duration = Duration::from_secs(2);

/// Runs the command.
pub fn main(global: &Global, arguments: &LogsArguments) -> Exit {
    consult(global, async |desk: &Desk| logs(desk, arguments).await).unwrap_or(Exit::Usage)
}

async fn logs(desk: &Desk, arguments: &LogsArguments) -> Result<Exit, Exit> {
    let key = arguments.item.as_deref().map(Key::parse).transpose().map_err(|error| {
        complain(&format!("`--item` is no key: {error}"));
        Exit::Usage
    })?;
    let details = find(desk, &arguments.run).await?;
    let outline = Outline::of(&details);
    let rows = desk.state.rows(&details.head.run);
    let mut signals = arguments.follow.then(Signals::take).transpose().map_err(|error| {
        complain(&format!("signals cannot be received: {error}"));
        Exit::Io
    })?;
    let ink = screen::ink(&std::io::stdout());
    let mut after = None;
    let mut over: Option<Duration> = None;
    loop {
        let query = EventQuery { key: key.clone(), after, limit: PAGE_ROWS };
        let page = rows.events(query).await.map_err(lost)?;
        if let Some((last, _)) = page.last() {
            after = Some(*last);
            let mut text = String::new();
            for (seq, event) in page {
                let line = line(seq, event, &outline);
                text.push_str(&match arguments.format {
                    Format::Human => report::log_line(&line, ink),
                    Format::Json => serde_json::to_string(&line).unwrap_or_default(),
                });
                text.push('\n');
            }
            print(&text)?;
            continue;
        }
        let Some(signals) = &mut signals else { return Ok(Exit::Done) };
        if over.is_some_and(|over| over >= LAST_LINES) {
            return Ok(Exit::Done);
        }
        let wait = async {
            desk.world.sleep(LOOK_EVERY).await;
            None
        };
        if let Some(number) = first(wait, async { Some(signals.next().await) }).await {
            return Err(Exit::Signal(number));
        }
        let head = desk.state.details(&details.head.run).await.map_err(lost)?.map(|details| details.head);
        match head.as_ref().map(standing) {
            Some(Standing::Running) => {}
            Some(Standing::Interrupted) if over.is_none() => {
                say(&format!("lamplighter: {} has no process now: nothing more comes", details.head.run));
                over = Some(LAST_LINES);
            }
            _ => over = Some(over.unwrap_or_default() + LOOK_EVERY),
        }
    }
}

fn line(seq: u64, event: RunEvent, outline: &Outline) -> LogLine {
    LogLine {
        seq,
        time: outline.time(event.wall_ms),
        level: match event.level {
            1 => "error",
            2 => "warn",
            3 => "info",
            _ => "debug",
        },
        stage: event.stage.and_then(|place| outline.name(place)).map(str::to_owned),
        key: event.key,
        text: event.text,
    }
}
