//! The executor and the signals of a foreground command.

use async_executor::Executor;
use futures_lite::{FutureExt, StreamExt, future};
use std::{future::Future, sync::Arc};

/// Runs `main` to its end on this thread, with `threads` - 1 more beside it.
pub fn block_on<T>(executor: &Arc<Executor<'static>>, threads: usize, main: impl Future<Output = T>) -> T {
    let (stop, stopped) = async_channel::bounded::<()>(1);
    let helpers: Vec<_> = (1..threads)
        .filter_map(|at| {
            let (executor, stopped) = (executor.clone(), stopped.clone());
            let work = move || {
                // Ends when the channel closes.
                let _ = smol::block_on(executor.run(stopped.recv()));
            };
            std::thread::Builder::new().name(format!("lamplighter-{at}")).spawn(work).ok()
        })
        .collect();
    let result = smol::block_on(executor.run(main));
    drop(stop);
    drop(stopped);
    for helper in helpers {
        let _ = helper.join();
    }
    result
}

/// SIGINT and SIGTERM as a stream of their numbers.
pub struct Signals(async_signal::Signals);

impl Signals {
    /// Takes the signals over from their defaults.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn take() -> std::io::Result<Signals> {
        async_signal::Signals::new([async_signal::Signal::Int, async_signal::Signal::Term]).map(Signals)
    }

    /// The next one: 2 or 15.
    pub async fn next(&mut self) -> u8 {
        loop {
            match self.0.next().await {
                Some(Ok(async_signal::Signal::Int)) => return 2,
                Some(Ok(async_signal::Signal::Term)) => return 15,
                Some(_) => {}
                None => return future::pending().await,
            }
        }
    }
}

/// The first of two, the first one preferred.
pub async fn first<T>(a: impl Future<Output = T>, b: impl Future<Output = T>) -> T {
    a.or(b).await
}
