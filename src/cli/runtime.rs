//! The executor and the signals of a foreground command.

use super::{exit::Exit, screen::complain};
use async_executor::Executor;
use futures_lite::{FutureExt, StreamExt, future};
use lamplighter::world::World;
use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

/// Descriptors that must be free at the start.
const DESCRIPTORS_MIN: usize = 20;

/// Whether the system has what the executor cannot do without: a thread and the descriptors of its reactor. They are made
/// when they are first used, by a crate that can only panic when they are refused.
///
/// # Errors
/// What the system refused.
pub fn has_means() -> Result<(), String> {
    let thread = std::thread::Builder::new().name("lamplighter-probe".into()).spawn(|| ());
    let _ = thread.map_err(|error| format!("no thread can be started: {error}"))?.join();
    // The reactor's own, the timers on both clocks and the signals have ten; as many more are for the first item.
    let mut held = Vec::new();
    while held.len() < DESCRIPTORS_MIN {
        held.push(std::fs::File::open("/").map_err(|error| format!("no file descriptors are left: {error}"))?);
    }
    drop(held);
    // They are made now.
    smol::block_on(async {});
    Ok(())
}

/// Runs `main` to its end on this thread, with `threads` - 1 more beside it.
pub fn block_on<T>(executor: &Arc<Executor<'static>>, threads: usize, main: impl Future<Output = T>) -> T {
    let mut result = None;
    drive(executor, threads, pin!(async { result = Some(main.await) }));
    result.expect("it was driven to its end")
}

/// The same, compiled once and not for each command.
fn drive(executor: &Arc<Executor<'static>>, threads: usize, main: Pin<&mut dyn Future<Output = ()>>) {
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
    smol::block_on(executor.run(when_woken(main)));
    drop(stop);
    drop(stopped);
    for helper in helpers {
        let _ = helper.join();
    }
}

/// An executor polls what it runs for whenever it wakes up itself. This polls `future` only when it was woken: it looks at
/// signals, which is a system call each time.
async fn when_woken(mut future: Pin<&mut dyn Future<Output = ()>>) {
    struct Bell {
        rung: AtomicBool,
        outer: Mutex<Option<Waker>>,
    }
    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.rung.store(true, Ordering::SeqCst);
            // Nothing that can panic runs under the lock.
            let outer = self.outer.lock().unwrap_or_else(PoisonError::into_inner).take();
            outer.into_iter().for_each(Waker::wake);
        }
    }
    let bell = Arc::new(Bell { rung: AtomicBool::new(true), outer: Mutex::new(None) });
    let waker = Waker::from(bell.clone());
    poll_fn(|cx| {
        // First the waker, then the look: a bell that rings between the two is heard at the next poll.
        *bell.outer.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        if !bell.rung.swap(false, Ordering::SeqCst) {
            return Poll::Pending;
        }
        future.as_mut().poll(&mut Context::from_waker(&waker))
    })
    .await
}

/// SIGINT, SIGTERM and SIGHUP as a stream of their numbers.
pub struct Signals(async_signal::Signals);

impl Signals {
    /// Takes the signals over from their defaults, for as long as the program lives. A SIGHUP that is ignored (`nohup`) stays
    /// ignored.
    ///
    /// # Errors
    /// When the system refuses, which is told on stderr.
    pub fn take() -> Result<Signals, Exit> {
        use async_signal::Signal;
        let taken = async_signal::Signals::new([Signal::Int, Signal::Term]).and_then(|mut signals| {
            if !hangup_is_ignored() {
                signals.add_signals([Signal::Hup])?;
            }
            Ok(Signals(signals))
        });
        taken.map_err(|error| {
            complain(&format!("signals cannot be received: {error}"));
            Exit::Io
        })
    }

    /// What is done before there is something to cancel: a signal ends it.
    pub async fn end<T>(&mut self, story: impl Future<Output = Result<T, Exit>>) -> Result<T, Exit> {
        first(story, async { Err(Exit::Signal(self.next().await)) }).await
    }

    /// One that has come and was not taken yet.
    pub async fn pending(&mut self) -> Option<u8> {
        future::poll_once(self.next()).await
    }

    /// The next one: 1, 2 or 15.
    pub async fn next(&mut self) -> u8 {
        loop {
            match self.0.next().await {
                Some(Ok(async_signal::Signal::Hup)) => return 1,
                Some(Ok(async_signal::Signal::Int)) => return 2,
                Some(Ok(async_signal::Signal::Term)) => return 15,
                Some(_) => {}
                None => return future::pending().await,
            }
        }
    }
}

/// Whether this program was started with SIGHUP ignored, as the kernel tells it.
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

/// Waits on this thread, where there is nothing else to do meanwhile.
pub fn wait(time: Duration) {
    let executor = Arc::new(Executor::new());
    block_on(&executor, 1, World::real(executor.clone()).sleep(time));
}

/// The first of two, the first one preferred.
pub async fn first<T>(a: impl Future<Output = T>, b: impl Future<Output = T>) -> T {
    a.or(b).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};

    #[test]
    fn what_is_run_is_polled_when_it_was_woken_and_not_else() {
        let (polls, woken_by) = (Cell::new(0), RefCell::new(Waker::noop().clone()));
        let mut counted = pin!(poll_fn(|cx| {
            polls.set(polls.get() + 1);
            *woken_by.borrow_mut() = cx.waker().clone();
            if polls.get() == 3 { Poll::Ready(()) } else { Poll::Pending }
        }));
        let mut woken = pin!(when_woken(counted.as_mut()));
        let cx = &mut Context::from_waker(Waker::noop());
        let mut poll = || woken.as_mut().poll(cx).is_ready();
        assert_eq!([poll(), poll(), poll()], [false; 3]);
        assert_eq!(polls.get(), 1);
        woken_by.borrow().wake_by_ref();
        assert_eq!([poll(), poll()], [false; 2]);
        assert_eq!(polls.get(), 2);
        woken_by.borrow().wake_by_ref();
        assert!(poll());
    }
}
