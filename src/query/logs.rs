//! What a run said.

use super::{Form, Piece, Runs, Unanswered, outline, standing, tell};
use crate::{
    item::Key,
    limits::PAGE_ROWS,
    report::{self, LogLine, Standing},
    run::Outline,
    store::{EventQuery, RunEvent},
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Which lines are printed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogsQuestion {
    /// The id of a run, or a job: its last run.
    pub run: String,
    /// Go on until the run has ended.
    pub follow: bool,
    /// Only what is about this item, and those below it.
    pub item: Option<String>,
    /// Times in UTC, not in the job's zone.
    pub utc: bool,
}

/// How often a log that is followed is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The last lines of a run are stored behind its end: so long is looked for them.
const LAST_LINES: Duration = Duration::from_secs(2);

impl Runs<'_> {
    /// Tells what a run said: in JSON one object a line.
    ///
    /// # Errors
    /// When there is no such run, the item is no key, the state cannot be read, or the answer is not taken.
    ///
    /// # Cancel safety
    /// May be dropped at any time: that is how who follows a run stops.
    pub async fn logs<E>(
        &self,
        question: &LogsQuestion,
        form: Form,
        mut reader: impl AsyncFnMut(Piece) -> Result<(), E>,
    ) -> Result<(), Unanswered<E>> {
        let key = question.item.as_deref().map(Key::parse).transpose();
        let key = key.map_err(|error| Unanswered::Refused(format!("`--item` is no key: {error}")))?;
        let details = self.find(&question.run).await?;
        let outline = outline(&details, question.utc);
        let rows = self.state.rows(&details.head.run);
        let ink = form.look().ink;
        let (mut after, mut day) = (None, String::new());
        let mut over: Option<Duration> = None;
        loop {
            let query = EventQuery { key: key.clone(), after, limit: PAGE_ROWS };
            let page = rows.events(query).await?;
            if let Some((last, _)) = page.last() {
                after = Some(*last);
                let mut text = String::new();
                for (seq, event) in page {
                    let line = line(seq, event, &outline);
                    if form.json {
                        text.push_str(&serde_json::to_string(&line).unwrap_or_default());
                    } else {
                        let today = report::log_day(&line, ink);
                        if today != day {
                            text.push_str(&today);
                            text.push('\n');
                            day = today;
                        }
                        text.push_str(&report::log_line(&line, ink));
                    }
                    text.push('\n');
                }
                tell(&mut reader, text).await?;
                continue;
            }
            if !question.follow || over.is_some_and(|over| over >= LAST_LINES) {
                return Ok(());
            }
            self.world.sleep(LOOK_EVERY).await;
            let head = self.state.details(&details.head.run).await?.map(|details| details.head);
            match head.as_ref().map(standing) {
                Some(Standing::Running) => {}
                Some(Standing::Interrupted) if over.is_none() => {
                    let note = format!("{} has no process now: nothing more comes", details.head.run);
                    reader(Piece::Note(note)).await.map_err(Unanswered::Reader)?;
                    over = Some(LAST_LINES);
                }
                _ => over = Some(over.unwrap_or_default() + LOOK_EVERY),
            }
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
