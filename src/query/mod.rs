//! What is asked about the runs that are kept, answered to the byte: `history`, `show` and `logs`, for whoever has the state
//! open. A command prints what it is given; a process that answers others sends it on, so that both say the same.
//!
//! Nothing here writes anywhere: an answer is handed over piece by piece, and whoever takes it slowly holds up nobody else.

mod account;
mod history;
mod logs;
mod show;

pub use account::{account, ran, standing};
pub use history::{HistoryQuestion, listed};
pub use logs::LogsQuestion;
pub use show::{Items, ShowQuestion};

use crate::{
    problem::closest,
    report::{Ink, Look},
    run::Outline,
    store::{RunDetails, State, StoreError},
    world::World,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, sync::Arc};

/// The runs that are kept.
pub struct Runs<'a> {
    /// What they are kept in.
    pub state: &'a State,
    /// Clocks: how long something has run until now.
    pub world: &'a World,
    /// Names of the jobs that there are, run or not: for help alone. It may block, and is asked on the blocking pool when
    /// something is not found.
    pub jobs: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
}

/// In which form an answer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Form {
    /// JSON for programs, not text for people.
    pub json: bool,
    /// The text goes to a terminal that shows colours.
    pub colour: bool,
    /// Cells of a line of the terminal; `None` where there is none.
    pub width: Option<usize>,
}

impl Form {
    fn look(self) -> Look<'static> {
        Look { ink: Ink { colour: self.colour }, out: None, width: self.width }
    }
}

/// A part of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// What was asked for: it goes to stdout as it is.
    Answer(String),
    /// A line about it, for stderr.
    Note(String),
}

/// Why there is no answer, or no whole one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unanswered<E> {
    /// Nothing of that name is kept, or the question is none: a sentence for whoever asked.
    Refused(String),
    /// The state cannot be read.
    State(StoreError),
    /// Whoever was to take the answer did not.
    Reader(E),
}

impl<E> From<StoreError> for Unanswered<E> {
    fn from(error: StoreError) -> Unanswered<E> {
        Unanswered::State(error)
    }
}

/// Takes the pieces of an answer.
trait Reader<E>: AsyncFnMut(Piece) -> Result<(), E> {}

impl<E, F: AsyncFnMut(Piece) -> Result<(), E>> Reader<E> for F {}

/// Hands over a part of what was asked for.
async fn tell<E>(reader: &mut impl Reader<E>, text: String) -> Result<(), Unanswered<E>> {
    if text.is_empty() {
        return Ok(());
    }
    reader(Piece::Answer(text)).await.map_err(Unanswered::Reader)
}

/// What is known of the job of a run, with times in its zone or in UTC.
fn outline(details: &RunDetails, utc: bool) -> Outline {
    let outline = Outline::of(details);
    if utc { outline.in_utc() } else { outline }
}

/// Runs whose names are looked at for a likely one.
const NAMES: usize = 500;

impl Runs<'_> {
    /// The run of this id, or the last run of the job of this name.
    ///
    /// # Errors
    /// When there is none, with what was probably meant, or the state cannot be read.
    pub async fn find<E>(&self, named: &str) -> Result<RunDetails, Unanswered<E>> {
        match self.state.details(named).await? {
            Some(details) => Ok(details),
            None => Err(self.unknown(named).await?),
        }
    }

    /// Says that there is no such run, and what was probably meant.
    async fn unknown<E>(&self, named: &str) -> Result<Unanswered<E>, StoreError> {
        let jobs = self.jobs.clone();
        if self.world.unblock(move || jobs()).await.iter().any(|job| job == named) {
            return Ok(Unanswered::Refused(format!("no run of `{named}` is kept")));
        }
        let heads = self.state.history(None, None, NAMES).await?;
        let jobs: BTreeSet<&str> = heads.iter().map(|head| head.job.as_str()).collect();
        let help = match closest(named, jobs.iter().copied().chain(heads.iter().map(|head| &*head.run))) {
            Some(near) => format!("did you mean `{near}`?"),
            None if jobs.is_empty() => "no run is kept".to_owned(),
            None => {
                let jobs: Vec<&str> = jobs.into_iter().collect();
                format!("runs are kept of {}; `lamplighter history` lists them", jobs.join(", "))
            }
        };
        Ok(Unanswered::Refused(format!("there is no run and no job `{named}`: {help}")))
    }
}
