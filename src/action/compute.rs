//! Computations that may never end (jq, templates), on the CPU threads of the world, with what they give handed over in
//! small batches so that memory stays flat.
//!
//! A computation whose future is dropped stops at its next output. One that gives nothing and never ends keeps its
//! thread; an action may lose two, then it fails `stuck` at once.

use super::{ItemContext, Stop, files::pool_is_lost};
use crate::{
    item::Class,
    limits::{COMPUTE_BATCH, COMPUTE_LOST_MAX, VALUES_PER_ITEM_MAX},
    world::BoxFuture,
};
use async_channel::{SendError, TrySendError};
use futures_lite::future::or;
use std::{
    collections::VecDeque,
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU32, Ordering},
    },
};

/// How many computations of one action were abandoned and have not ended since.
#[derive(Clone, Default)]
pub(super) struct Lost(Arc<AtomicU32>);

/// A computation that runs and hands over values of `T`; `R` is its result.
pub(super) struct Computing<T, R> {
    batches: async_channel::Receiver<Vec<T>>,
    ready: VecDeque<T>,
    work: Option<BoxFuture<'static, End<T, R>>>,
    result: Option<R>,
    watch: Arc<Watch>,
}

/// The result and the last values; `None` when no thread was left.
type End<T, R> = Option<(R, Vec<T>)>;

/// Who ends first: the computation, or the interest in it.
struct Watch {
    state: AtomicU8,
    lost: Lost,
}

const RUNNING: u8 = 0;
const ABANDONED: u8 = 1;
const ENDED: u8 = 2;

impl Lost {
    /// Begins `work`; it hands each value to the function that it is given, until that says `Break`.
    ///
    /// # Errors
    /// Class `stuck` when too many computations of this action never ended.
    pub fn start<T: Send + 'static, R: Send + 'static>(
        &self,
        cx: &ItemContext,
        work: impl FnOnce(&mut dyn FnMut(T) -> ControlFlow<()>) -> R + Send + 'static,
    ) -> Result<Computing<T, R>, Box<Stop>> {
        if self.0.load(Ordering::SeqCst) >= COMPUTE_LOST_MAX {
            return Err(Stop::given_up(
                Class::Stuck,
                format!("{COMPUTE_LOST_MAX} computations of this action never ended: mend its filter or template"),
            ));
        }
        let (sender, batches) = async_channel::bounded::<Vec<T>>(1);
        let watch = Arc::new(Watch { state: AtomicU8::new(RUNNING), lost: self.clone() });
        let ended = Ended(watch.clone());
        let caller = std::thread::current().id();
        // A source may give any number, an item no more than it is allowed to.
        let most = if cx.key.is_some() { VALUES_PER_ITEM_MAX + 1 } else { usize::MAX };
        // What a source gives waits for the stages behind it, and they may need a thread to go on.
        let lists = cx.key.is_none();
        let world = cx.run.world.clone();
        let pool = world.clone();
        let work = async move {
            world
                .compute(move || {
                    let _ended = ended;
                    // A simulated world computes in place: nobody could empty the channel meanwhile.
                    let in_place = std::thread::current().id() == caller;
                    let (mut batch, mut given) = (Vec::new(), 0usize);
                    let result = work(&mut |value| {
                        batch.push(value);
                        given += 1;
                        if given >= most || sender.is_closed() {
                            return ControlFlow::Break(());
                        }
                        if batch.len() >= COMPUTE_BATCH && !in_place {
                            let full = std::mem::take(&mut batch);
                            let sent = match sender.try_send(full) {
                                Err(TrySendError::Full(full)) if lists => pool.waiting(|| sender.send_blocking(full)),
                                Err(TrySendError::Full(full)) => sender.send_blocking(full),
                                sent => sent.map_err(|refused| SendError(refused.into_inner())),
                            };
                            if sent.is_err() {
                                return ControlFlow::Break(());
                            }
                        }
                        ControlFlow::Continue(())
                    });
                    (result, batch)
                })
                .await
        };
        Ok(Computing { batches, ready: VecDeque::new(), work: Some(Box::pin(work)), result: None, watch })
    }
}

impl<T, R> Computing<T, R> {
    /// The next value; `None` when the computation has ended.
    ///
    /// # Errors
    /// Class `stuck` when no thread is left for it.
    pub async fn next(&mut self) -> Result<Option<T>, Box<Stop>> {
        enum Came<T, R> {
            Batch(Vec<T>),
            End(End<T, R>),
        }
        loop {
            if let Some(value) = self.ready.pop_front() {
                return Ok(Some(value));
            }
            let Some(work) = &mut self.work else { return Ok(None) };
            let batches = &self.batches;
            let came = or(
                async {
                    match batches.recv().await {
                        Ok(batch) => Came::Batch(batch),
                        // The computation is at its end: only its result is missing.
                        Err(_) => std::future::pending().await,
                    }
                },
                async { Came::End(work.await) },
            );
            match came.await {
                Came::Batch(batch) => self.ready.extend(batch),
                Came::End(end) => {
                    self.work = None;
                    let (result, last) = end.ok_or_else(pool_is_lost)?;
                    while let Ok(batch) = self.batches.try_recv() {
                        self.ready.extend(batch);
                    }
                    self.ready.extend(last);
                    self.result = Some(result);
                }
            }
        }
    }

    /// The result, after [`Computing::next`] gave `None`.
    pub fn result(mut self) -> R {
        self.result.take().expect("asked after the last value")
    }

    /// Nobody wants more: it stops at its next output, and that it runs on until then is not held against the action.
    pub fn stop(self) {
        self.batches.close();
        let _ = self.watch.state.compare_exchange(RUNNING, ENDED, Ordering::SeqCst, Ordering::SeqCst);
    }
}

impl<T, R> Drop for Computing<T, R> {
    fn drop(&mut self) {
        self.batches.close();
        let started = self.work.is_some();
        if started && self.watch.state.compare_exchange(RUNNING, ABANDONED, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        {
            self.watch.lost.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Dropped on the CPU thread when the computation ends, also by a panic.
struct Ended(Arc<Watch>);

impl Drop for Ended {
    fn drop(&mut self) {
        if self.0.state.swap(ENDED, Ordering::SeqCst) == ABANDONED {
            self.0.lost.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
}
