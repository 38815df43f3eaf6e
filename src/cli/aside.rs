//! Lines to stderr from a program that must not wait for whoever reads them: `serve`. A thread writes them out of a queue of
//! bounded size; what does not fit is dropped, counted, and told of.

use super::screen::write_err;
use lamplighter::limits::LOG_QUEUE_BYTES;
use std::{
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// Bytes of stack: it only writes.
const STACK: usize = 128 << 10;

/// What waits to be written. Cheap to clone.
#[derive(Clone, Default)]
pub struct Queue(Arc<Inner>);

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    text: String,
    /// Lines that did not fit.
    dropped: u64,
    /// The thread writes what it has taken.
    is_writing: bool,
}

impl State {
    fn is_idle(&self) -> bool {
        self.text.is_empty() && self.dropped == 0
    }
}

impl Queue {
    /// With its thread.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start() -> io::Result<Queue> {
        let queue = Queue::default();
        let work = {
            let queue = queue.clone();
            move || queue.write()
        };
        thread::Builder::new().name("lamplighter-log".into()).stack_size(STACK).spawn(work)?;
        Ok(queue)
    }

    /// Leaves lines to be written; never waits for their reader.
    pub fn push(&self, text: &str) {
        let mut state = self.lock();
        if state.text.len() + text.len() > LOG_QUEUE_BYTES {
            state.dropped += 1;
        } else {
            state.text.push_str(text);
        }
        drop(state);
        self.0.changed.notify_all();
    }

    /// Returns when everything is written, or nobody has read it for so long.
    pub fn settle(&self, patience: Duration) {
        let is_busy = |state: &mut State| state.is_writing || !state.is_idle();
        drop(self.0.changed.wait_timeout_while(self.lock(), patience, is_busy));
    }

    fn write(&self) {
        loop {
            let waited = self.0.changed.wait_while(self.lock(), |state| state.is_idle());
            let mut state = waited.unwrap_or_else(PoisonError::into_inner);
            let (text, dropped) = (std::mem::take(&mut state.text), std::mem::take(&mut state.dropped));
            state.is_writing = true;
            drop(state);
            write_err(&text);
            if dropped > 0 {
                log::warn!("{dropped} lines were dropped: nobody read them in time");
            }
            self.lock().is_writing = false;
            self.0.changed.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Plain data, whole between statements.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
