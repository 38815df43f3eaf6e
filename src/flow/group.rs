//! Tasks that are always joined: done, failed, panicked or cancelled, one end for each.

use crate::world::{Task, World};
use futures_lite::FutureExt;
use std::{
    any::Any,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A set of tasks with one owner. Dropping its last clone cancels what still runs; [`Group::join`] waits for all, also for those that
/// are added while it waits. A task that panics ends alone; its message is kept.
#[derive(Clone)]
pub struct Group {
    world: World,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    tasks: Vec<Task<()>>,
    panics: Vec<String>,
}

impl Group {
    /// An empty group on `world`.
    pub fn new(world: World) -> Group {
        Group { world, state: Arc::default() }
    }

    /// Adds a task. A large future comes boxed: the futures that are put around it would each hold it twice.
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        let state = Arc::downgrade(&self.state);
        let task = self.world.spawn(async move {
            if let Err(panic) = AssertUnwindSafe(future).catch_unwind().await
                && let Some(state) = state.upgrade()
            {
                lock(&state).panics.push(panic_text(panic));
            }
        });
        let mut state = lock(&self.state);
        if state.tasks.len() == state.tasks.capacity() {
            // Only when the list would grow: a thousand workers do not look at each other.
            state.tasks.retain(|task| !task.is_finished());
        }
        state.tasks.push(task);
    }

    /// Waits until no task is left.
    ///
    /// # Errors
    /// The message of the first task that panicked.
    ///
    /// # Cancel safety
    /// Dropping the future cancels every task.
    pub async fn join(&self) -> Result<(), String> {
        /// Tasks may hold clones of their group: it would never go by itself.
        struct Cut<'a>(&'a Group);
        impl Drop for Cut<'_> {
            fn drop(&mut self) {
                let tasks = std::mem::take(&mut lock(&self.0.state).tasks);
                drop(tasks);
            }
        }
        let _cut = Cut(self);
        loop {
            let task = lock(&self.state).tasks.pop();
            match task {
                Some(task) => task.await,
                None => break,
            }
        }
        match lock(&self.state).panics.first() {
            Some(message) => Err(message.clone()),
            None => Ok(()),
        }
    }

    /// Cancels every task; their futures are dropped when this returns.
    ///
    /// # Cancel safety
    /// Dropping the future cancels them all the same.
    pub async fn cancel(&self) {
        let tasks = std::mem::take(&mut lock(&self.state).tasks);
        for task in tasks {
            task.cancel().await;
        }
    }
}

/// The text of a panic's payload. A payload that is no text is anybody's value, whose drop may panic in turn: that one is
/// left alone.
pub fn panic_text(payload: Box<dyn Any + Send>) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a text".to_owned());
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(second);
    }
    text
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // No code that can panic runs under this lock.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
