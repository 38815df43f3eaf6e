//! The way to the store's thread: one queue in the order of asking, bounded by what is not committed yet.
//!
//! Writers are let in first come, first served while there is room, and go on at once; the thread sleeps until a batch
//! is full, somebody asks a question, or the oldest row has waited [`BATCH_AGE`]. Nothing here touches a file.

use crate::{
    item::OutputRecord,
    limits::{BATCH_AGE, BATCH_BYTES, BATCH_ROWS, STORE_QUESTIONS_MAX, UNCOMMITTED_BYTES_MAX},
    store::{
        GroupMember, Reply, Request, RunEvent, StoreError,
        codec::{KeptValue, Packed},
    },
};
use std::{
    collections::{BTreeMap, VecDeque},
    future::Future,
    mem,
    pin::Pin,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

/// Where the answer to a question goes.
pub(super) type Answer = async_channel::Sender<Result<Reply, StoreError>>;

/// Where an asker waits for it.
pub(super) type Asker = async_channel::Receiver<Result<Reply, StoreError>>;

/// What the thread does next.
pub(super) enum Work {
    /// Rows to write, and how long the run has run, in milliseconds.
    Put(Arc<str>, Vec<Packed>, Option<u64>),
    /// Members of groups to write.
    Assign(Arc<str>, u16, Vec<GroupMember>),
    /// A file to record.
    Record(Arc<str>, OutputRecord),
    /// Lines of a log to write.
    Log(Arc<str>, Vec<RunEvent>),
    /// A value to keep.
    Keep(KeptValue),
    /// Everything that waits for an answer.
    Ask(Request, Answer),
}

/// How much of it is written.
#[derive(Clone, Copy, Default)]
pub(super) struct Weight {
    /// Rows.
    pub rows: usize,
    /// Bytes, about.
    pub bytes: usize,
}

/// See the module.
pub(super) struct Queue {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    queued: VecDeque<Work>,
    questions: usize,
    /// Accepted and not committed, queued or in the open transaction.
    open: Weight,
    /// Who waits before the door, in order.
    waiting: BTreeMap<u64, Waker>,
    next_ticket: u64,
    closing: bool,
    ended: bool,
    failed: Option<StoreError>,
}

/// Waits to be let in.
///
/// # Cancel safety
/// Dropped before it is ready nothing was handed over, and whoever is behind moves up.
pub(super) struct Admission<'a> {
    queue: &'a Queue,
    work: Option<Work>,
    ticket: Option<u64>,
}

impl Work {
    /// How much it writes.
    pub fn weight(&self) -> Weight {
        let small = |rows: usize| Weight { rows, bytes: 128 * rows };
        match self {
            Work::Put(_, rows, _) => Weight { rows: rows.len(), bytes: rows.iter().map(Packed::bytes).sum() },
            Work::Assign(_, _, members) => {
                Weight { rows: members.len(), bytes: members.iter().map(|member| 128 + member.text.len()).sum() }
            }
            Work::Log(_, events) => {
                Weight { rows: events.len(), bytes: events.iter().map(|event| 128 + event.text.len()).sum() }
            }
            Work::Keep(kept) => Weight { rows: 1, bytes: 128 + kept.json.len() },
            Work::Record(..) | Work::Ask(Request::ClaimKey(..) | Request::ClaimOutput(..), _) => small(1),
            Work::Ask(Request::ClaimKeys(_, _, keys), _) => small(keys.len()),
            Work::Ask(..) => Weight::default(),
        }
    }

    /// True when it only reads.
    pub fn only_reads(&self) -> bool {
        matches!(self, Work::Ask(request, _) if request.only_reads())
    }
}

impl Queue {
    /// An empty queue.
    pub fn new() -> Queue {
        Queue { state: Mutex::default(), work: Condvar::new() }
    }

    /// Hands work over when there is room.
    pub fn admit(&self, work: Work) -> Admission<'_> {
        Admission { queue: self, work: Some(work), ticket: None }
    }

    /// For the thread: sleeps until there is something to do and moves it into `into`, which is empty. True when the
    /// oldest uncommitted row has waited long enough, or nothing more will come. `None` at the end: closed, all taken.
    pub fn take(&self, into: &mut VecDeque<Work>, transaction_is_open: bool) -> Option<bool> {
        let mut state = self.lock();
        if !transaction_is_open {
            let idle = |state: &mut State| state.queued.is_empty() && !state.closing;
            state = self.work.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner);
        }
        let mut age_is_over = state.closing;
        if !state.is_urgent() {
            let (guard, waited) = self
                .work
                .wait_timeout_while(state, BATCH_AGE, |state| !state.is_urgent())
                .unwrap_or_else(PoisonError::into_inner);
            state = guard;
            age_is_over = waited.timed_out() || state.closing;
        }
        if state.closing && state.queued.is_empty() {
            return None;
        }
        mem::swap(&mut state.queued, into);
        state.questions = 0;
        let front = state.front();
        drop(state);
        wake(front);
        Some(age_is_over)
    }

    /// For the thread: so much more is committed, or refused.
    pub fn committed(&self, weight: Weight) {
        let mut state = self.lock();
        state.open.rows = state.open.rows.saturating_sub(weight.rows);
        state.open.bytes = state.open.bytes.saturating_sub(weight.bytes);
        let front = state.front();
        drop(state);
        wake(front);
    }

    /// For the thread: everybody gets this error from now on.
    pub fn fail(&self, error: StoreError) {
        let mut state = self.lock();
        state.failed.get_or_insert(error);
        state.release();
    }

    /// Nothing more is let in; the thread ends when it has done what it has.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closing = true;
        state.release();
        self.work.notify_one();
    }

    /// For the thread's last act, also when it ends by a defect: whoever still waits for an answer gets `Closed`.
    pub fn end(&self) {
        let mut state = self.lock();
        state.ended = true;
        let queued = mem::take(&mut state.queued);
        state.release();
        drop(queued);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_urgent(&self) -> bool {
        self.questions > 0 || self.open.rows >= BATCH_ROWS || self.open.bytes >= BATCH_BYTES || self.closing
    }

    fn has_room(&self, weight: Weight) -> bool {
        let Weight { rows, bytes } = self.open;
        self.questions < STORE_QUESTIONS_MAX
            && (rows == 0 || (rows + weight.rows <= 2 * BATCH_ROWS && bytes + weight.bytes <= UNCOMMITTED_BYTES_MAX))
    }

    fn refusal(&self, work: &Work) -> Option<StoreError> {
        match &self.failed {
            Some(StoreError::Full { .. }) if work.only_reads() => None,
            Some(error) => Some(error.clone()),
            None => None,
        }
        .or((self.closing || self.ended).then_some(StoreError::Closed))
    }

    fn front(&self) -> Option<Waker> {
        self.waiting.first_key_value().map(|(_, waker)| waker.clone())
    }

    /// Wakes all who wait before the door: none of them will be let in.
    fn release(&self) {
        self.waiting.values().for_each(Waker::wake_by_ref);
    }
}

impl Future for Admission<'_> {
    type Output = Result<(), StoreError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let Some(work) = this.work.take() else {
            return Poll::Ready(Err(StoreError::Io("a request was polled after its end".into())));
        };
        let mut state = this.queue.lock();
        if let Some(error) = state.refusal(&work) {
            return Poll::Ready(Err(error));
        }
        let is_next = match this.ticket {
            None => state.waiting.is_empty(),
            Some(ticket) => state.waiting.first_key_value().is_some_and(|(first, _)| *first == ticket),
        };
        let weight = work.weight();
        if !is_next || !state.has_room(weight) {
            let ticket = *this.ticket.get_or_insert_with(|| {
                state.next_ticket += 1;
                state.next_ticket
            });
            state.waiting.insert(ticket, cx.waker().clone());
            this.work = Some(work);
            return Poll::Pending;
        }
        if let Some(ticket) = this.ticket.take() {
            state.waiting.remove(&ticket);
        }
        state.open.rows += weight.rows;
        state.open.bytes += weight.bytes;
        state.questions += usize::from(matches!(work, Work::Ask(..)));
        state.queued.push_back(work);
        // The thread sleeps until the first of a batch, which starts its age, and then until something is urgent.
        let rouse = state.queued.len() == 1 || state.is_urgent();
        let front = state.front();
        drop(state);
        if rouse {
            this.queue.work.notify_one();
        }
        wake(front);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Admission<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            let mut state = self.queue.lock();
            state.waiting.remove(&ticket);
            let front = state.front();
            drop(state);
            wake(front);
        }
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::{Key, Lineage, Outcome};
    use crate::store::{Row, RowEnd};
    use futures_lite::future::{block_on, poll_once};

    fn put(rows: u64, value_bytes: usize) -> Work {
        let row = |ordinal| Row {
            stage: 0,
            lineage: Lineage::listed(0, ordinal),
            key: Key::ordinal(ordinal),
            end: RowEnd::Done(Outcome::Ok),
            attempts: 1,
            message: None,
            values: vec!["x".repeat(value_bytes).into()],
            took_ms: None,
        };
        Work::Put("r".into(), (0..rows).map(|ordinal| Packed::new(row(ordinal)).expect("it is small")).collect(), None)
    }

    #[test]
    fn two_batches_of_rows_and_so_many_bytes_get_in_the_rest_waits_in_order() {
        let queue = Queue::new();
        block_on(async {
            let batch = BATCH_ROWS as u64;
            queue.admit(put(batch, 0)).await.expect("there is room");
            queue.admit(put(batch, 0)).await.expect("there is room");
            let mut first = queue.admit(put(1, 0));
            let mut second = queue.admit(put(2, 0));
            assert!(poll_once(&mut first).await.is_none() && poll_once(&mut second).await.is_none());
            // What is taken and not yet committed still counts.
            let mut works = VecDeque::new();
            assert_eq!(queue.take(&mut works, false), Some(false));
            assert_eq!(works.len(), 2);
            assert!(poll_once(&mut first).await.is_none());
            queue.committed(works[0].weight());
            assert!(poll_once(&mut second).await.is_none(), "the second does not overtake");
            drop(first);
            assert_eq!(poll_once(&mut second).await, Some(Ok(())), "who gives up holds up nobody");
        });
    }

    #[test]
    fn uncommitted_bytes_are_bounded_and_one_that_is_larger_gets_in_alone() {
        let queue = Queue::new();
        block_on(async {
            queue.admit(put(1, UNCOMMITTED_BYTES_MAX - 1000)).await.expect("there is room");
            assert!(poll_once(&mut queue.admit(put(1, 1000))).await.is_none());
            queue.committed(put(1, UNCOMMITTED_BYTES_MAX - 1000).weight());
            let giant = put(2 * BATCH_ROWS as u64 + 1, UNCOMMITTED_BYTES_MAX / BATCH_ROWS);
            queue.admit(giant).await.expect("there is room");
            assert!(poll_once(&mut queue.admit(put(1, 0))).await.is_none());
        });
    }

    #[test]
    fn who_waits_before_a_door_that_closes_or_fails_is_told() {
        for close in [true, false] {
            let queue = Queue::new();
            block_on(async {
                queue.admit(put(2 * BATCH_ROWS as u64, 0)).await.expect("there is room");
                let mut waiting = queue.admit(put(1, 0));
                assert!(poll_once(&mut waiting).await.is_none());
                let error = if close { StoreError::Closed } else { StoreError::Full { limit: 1 } };
                if close {
                    queue.close()
                } else {
                    queue.fail(error.clone())
                }
                assert_eq!(poll_once(&mut waiting).await, Some(Err(error)));
            });
        }
    }

    #[test]
    fn asked_questions_that_nobody_will_answer_end_as_closed() {
        let queue = Queue::new();
        let (answer, asker) = async_channel::bounded(1);
        block_on(queue.admit(Work::Ask(Request::Flush("r".into()), answer))).expect("there is room");
        queue.end();
        assert!(block_on(asker.recv()).is_err());
    }
}
