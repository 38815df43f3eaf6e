//! Which question is answered by what.

use super::tables::{Fault, Known, Tables};
use crate::store::{Reply, Request};
use std::{slice, sync::Arc};

impl Tables {
    /// Answers a request. A transaction that it opens stays open.
    pub fn answer(&mut self, request: Request) -> Result<Reply, Fault> {
        Ok(match request {
            Request::ClaimKey(run, stage, key, lineage) => {
                let mut claims = self.claim_keys(&run, stage, slice::from_ref(&(key, lineage)))?;
                claims.pop().map_or(Reply::Claims(Vec::new()), Reply::Claim)
            }
            Request::ClaimKeys(run, stage, keys) => Reply::Claims(self.claim_keys(&run, stage, &keys)?),
            Request::ClaimOutput(run, path, stage, key, lineage) => {
                Reply::Claim(self.claim_output(&run, &path, stage, &key, &lineage)?)
            }
            Request::Outputs(run, limit) => {
                let (first, total) = self.of(&run, |tables, run| Ok(tables.outputs(run.id, limit)?))?;
                Reply::Outputs(first, total)
            }
            Request::Groups(run, gather, after, limit) => {
                Reply::Texts(self.of(&run, |tables, run| Ok(tables.groups(run.id, gather, after.as_deref(), limit)?))?)
            }
            Request::Values { run, stages, group, page } => Reply::Values(
                self.of(&run, |tables, run| Ok(tables.values(run.id, &sorted(stages), group.as_ref(), &page)?))?,
            ),
            Request::Failures { run, stages, group, page } => Reply::Failures(
                self.of(&run, |tables, run| Ok(tables.failures(run.id, &sorted(stages), group.as_ref(), &page)?))?,
            ),
            Request::Deferred(run, stage, after, limit) => {
                Reply::Rows(self.of(&run, |tables, run| Ok(tables.deferred(run.id, stage, after.as_ref(), limit)?))?)
            }
            Request::Forget(run) => {
                self.forget(&run)?;
                Reply::Done
            }
            Request::Begin(new) => Reply::Begun(self.begin_run(&new, None)?),
            Request::TakeOver(run, now) => Reply::TakenOver(self.take_over(&run, now)?),
            Request::Release(run) => Reply::Changed(self.release(&run)?),
            Request::End(run, end) => Reply::Changed(self.end_run(&run, &end)?),
            Request::Interrupt(run, end) => Reply::Changed(self.interrupt(&run, &end)?),
            Request::NoticeDone(run, place) => Reply::Changed(self.notice_done(&run, place)?),
            Request::Notices(limit) => Reply::Notices(self.notices(limit)?),
            Request::Unfinished(job, limit) => Reply::Heads(self.open_heads(job.as_deref(), limit)?),
            Request::Details(run) => Reply::Details(self.of(&run, |tables, run| tables.details(run.id))?.map(Box::new)),
            Request::History(job, before, limit) => {
                Reply::Heads(self.history(job.as_deref(), before.as_ref(), limit)?)
            }
            Request::ListingDone(run, source) => {
                self.listing_done(&run, source)?;
                Reply::Done
            }
            Request::Relist(run, source) => Reply::Ordinal(self.relist(&run, source)?),
            Request::StageBegan(run, stage, ran_ms, wall_ms) => {
                self.stage_began(&run, stage, ran_ms, wall_ms)?;
                Reply::Done
            }
            Request::Tally(run, stage) => Reply::Tally(match self.known_run(&run)? {
                Some(run) => self.tally(run.id, stage)?,
                None => self.tally(-1, stage)?,
            }),
            Request::Unsettled { run, parent, stage, after, limit } => Reply::Unsettled(
                self.of(&run, |tables, run| tables.unsettled(run, (parent, stage), after.as_ref(), limit))?,
            ),
            Request::Settled(run, stage, lineages) => Reply::Flags(match self.known_run(&run)? {
                Some(run) => self.settled(run.id, stage, &lineages)?,
                None => vec![false; lineages.len()],
            }),
            Request::RowHeads(run, query) => {
                Reply::RowHeads(self.of(&run, |tables, run| tables.row_heads(run.id, &query))?)
            }
            Request::Slowest(run, stage, limit) => {
                Reply::RowHeads(self.of(&run, |tables, run| tables.slowest(run.id, stage, limit))?)
            }
            Request::Events(run, query) => Reply::Events(self.of(&run, |tables, run| tables.events(run.id, &query))?),
            Request::StateOf(job, key, due_ms) => Reply::Kept(self.state_of(&job, &key, due_ms)?),
            Request::CopyForRetry(plan, new) => Reply::Copied(self.copy_for_retry(&plan, &new)?),
            Request::ForgetKey(key) => Reply::Forgotten(Box::new(self.forget_key(&key)?)),
            Request::Retain(retention) => Reply::Retained(self.retain(&retention)?),
            Request::Instance => Reply::Texts(vec![self.instance()?]),
            Request::Consider(marks, firings, heard) => Reply::Flags(self.consider(&marks, &firings, &heard)?),
            Request::Unheard(limit) => Reply::Heads(self.unheard(limit)?),
            Request::IsNeeded(run) => Reply::Flags(vec![self.is_needed(&run)?]),
            Request::FiringTold(job, key) => Reply::Changed(self.firing_told(&job, &key)?),
            Request::FiringsToTell(after, limit) => Reply::Firings(self.firings_to_tell(after, limit)?),
            Request::Marks => Reply::Marks(self.marks()?),
            Request::WaitingFirings(after, limit) => Reply::Firings(self.waiting_firings(after, limit)?),
            Request::PastFirings(job, before, limit) => {
                Reply::Firings(self.past_firings(job.as_deref(), before, limit)?)
            }
            // What is committed behind comes another way; a flush is the commit that follows it.
            Request::Put(..)
            | Request::AssignGroups(..)
            | Request::RecordOutput(..)
            | Request::AddEvents(..)
            | Request::Keep { .. }
            | Request::Flush(_) => Reply::Done,
        })
    }

    /// Asks of a run; nothing where there is none.
    fn of<T: Default>(
        &mut self,
        run: &Arc<str>,
        ask: impl FnOnce(&Tables, Known) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        match self.known_run(run)? {
            Some(known) => ask(self, known),
            None => Ok(T::default()),
        }
    }

    fn instance(&self) -> rusqlite::Result<String> {
        self.connection.query_row("SELECT instance FROM meta", [], |row| row.get(0))
    }
}

/// Stages in order, each once.
pub(in crate::store) fn sorted(mut stages: Vec<u16>) -> Vec<u16> {
    stages.sort_unstable();
    stages.dedup();
    stages
}
