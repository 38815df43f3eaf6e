//! What is done of a run that has ended: it is repeated (RUNS S6), or the notices that its process did not send are sent.

use super::{
    Run, Runner, StartError, facts,
    finish::{self, Told},
    kept::{Keeping, Kept, as_before, let_go},
    options::RunOptions,
    rows::StoreChoice,
};
use crate::{
    item::StoredRecord,
    job::Job,
    store::{Begun, Copied, CopyPlan, Resume, RunDetails, State, StoreError},
    world::failpoint::{Point, pass},
};
use futures_lite::future;
use jiff::Timestamp;
use std::{fmt, sync::Arc};

/// The first pass of a repetition: what it took over was done by the one before.
pub const COPY_PASS: u32 = 2;

impl Runner {
    /// Begins a repetition of a run that has ended, by the definition, due and params that it had: what was done is taken
    /// over, the rest is done, gathers and what follows them begin anew, so that its report is whole. `held` repeats held
    /// items too. `job` is that of the parent: [`super::kept_job`]; of `options` the id, due, params, outputs and store are set here.
    ///
    /// # Errors
    /// As [`Runner::begin`], and when the parent has not ended or what it did is not stored any more.
    pub async fn retry(
        &self,
        job: &Arc<Job>,
        mut options: RunOptions,
        keeping: &Keeping,
        parent: &RunDetails,
        held: bool,
    ) -> Result<Run, StartError> {
        let id = facts::new_id(self.world.wall(), self.world.random());
        as_before(&mut options, parent);
        let kept = Kept::new(&self.world, &keeping.state, &id, &parent.head.chain_first, None);
        options.store = StoreChoice::Kept(kept.rows.clone());
        options.id = Some(id.clone());
        let mut run = self.state(job, options, Some(kept))?;
        let plan = CopyPlan { parent: parent.head.run.clone(), anew: anew(job), held };
        pass(Point::CopyBegins);
        match keeping.state.copy_for_retry(plan, run.new_run(keeping)).await.map_err(StartError::State)? {
            Copied::Now(_) | Copied::Refused(Begun::Now) => {}
            Copied::Refused(Begun::Before(head)) => return Err(StartError::Begun(head.run.to_string())),
            Copied::Refused(Begun::Settled) => return Err(StartError::Settled),
            Copied::Refused(Begun::Busy(head)) => return Err(StartError::Busy(head.run.to_string())),
            Copied::NotEnded(head) => return Err(StartError::NotEnded(head.run.to_string())),
            Copied::Gone(head) => return Err(StartError::Gone(head.run.to_string())),
            Copied::Unknown => return Err(StartError::Gone(parent.head.run.to_string())),
        }
        pass(Point::Copied);
        let details = match keeping.state.details(&id).await {
            Ok(details) => details,
            Err(error) => {
                let_go(&keeping.state, &id).await;
                return Err(StartError::State(error));
            }
        };
        if let (Some(kept), Some(details)) = (&mut run.kept, details) {
            kept.resume = Some(Box::new(Resume { details, held: 0, is_poison: false }));
        }
        Ok(self.launch(run))
    }

    /// Sends notices of a run that has ended, whose process died before it did. Each is sent at least once, and what fails is
    /// logged. `job` is that of the run.
    ///
    /// # Errors
    /// When they cannot be sent for now: as [`Runner::start`], or the record of the run cannot be read.
    pub async fn send_notices(
        &self,
        job: &Arc<Job>,
        mut options: RunOptions,
        state: &State,
        details: &RunDetails,
        places: &[u16],
    ) -> Result<(), StartError> {
        let (id, chain) = (details.head.run.to_string(), details.head.chain_first.to_string());
        let record: StoredRecord =
            serde_json::from_str(details.record.as_deref().unwrap_or_default()).map_err(|error| {
                StartError::State(StoreError::Io(format!("the record of {id} cannot be read: {error}")))
            })?;
        as_before(&mut options, details);
        let resume = Resume { details: details.clone(), held: 0, is_poison: false };
        let kept = Kept::new(&self.world, state, &id, &chain, Some(Box::new(resume)));
        let rows = kept.rows.clone();
        options.store = StoreChoice::Kept(rows.clone());
        options.id = Some(id);
        let run = Arc::new(self.state(job, options, Some(kept))?);
        let wanted = job.notices_after(record.record.outcome);
        let (places, others): (Vec<u16>, Vec<u16>) = places.iter().partition(|place| wanted.contains(place));
        let story = async {
            // They are known by their place, and there was another one in it.
            for place in others {
                finish::give_up(&run, place).await;
            }
            finish::notify(&run, &Told::of(&record.record), &places).await;
            run.context.leftovers.join().await;
            run.context.journal.close();
        };
        future::zip(story, run.context.journal.pump(&rows)).await;
        Ok(())
    }
}

impl Runner {
    /// Sends the notices that a job wants of a time at which nothing was started. Each is sent once, and what fails is logged.
    ///
    /// # Errors
    /// When they cannot be sent for now: as [`Runner::start`].
    pub async fn notify_missed(
        &self,
        job: &Arc<Job>,
        mut options: RunOptions,
        missed: &Missed,
    ) -> Result<(), StartError> {
        // The same whenever it is told: whoever receives it twice can know.
        options.id = Some(format!("missed-{}-{}", missed.last.strftime("%Y%m%dT%H%M%SZ"), job.name));
        options.due = Some(missed.last);
        let run = Arc::new(self.state(job, options, None)?);
        finish::notify(&run, &Told::missed(&job.name, missed), &job.notices_of_missed()).await;
        run.context.leftovers.join().await;
        run.context.journal.close();
        Ok(())
    }
}

/// A time of a job at which nothing was started, or several of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missed {
    /// When it was due; the last of several.
    pub last: Timestamp,
    /// How many there are; `None`: more than were looked at.
    pub count: Option<u64>,
    /// Why.
    pub reason: String,
}

impl fmt::Display for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (last, reason) = (self.last.strftime("%Y-%m-%dT%H:%M:%SZ"), &self.reason);
        match self.count {
            Some(1) => write!(f, "it was due at {last}, and nothing was started ({reason})"),
            Some(count) => write!(f, "it was due {count} times, last at {last}, and nothing was started ({reason})"),
            None => write!(f, "it was due very many times until {last}, and nothing was started ({reason})"),
        }
    }
}

/// How a time at which nothing was started is told of beside outcomes.
pub const MISSED: &str = "missed";

/// Gathers, which see the whole, and all behind them.
fn anew(job: &Job) -> Vec<u16> {
    let is_gather = |place: &u16| job.stages[usize::from(*place)].is_gather();
    let places = 0..job.stages.len() as u16;
    places.filter(|place| is_gather(place) || job.ancestors(*place).iter().any(is_gather)).collect()
}
