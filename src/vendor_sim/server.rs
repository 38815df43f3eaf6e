//! The simulated vendor's sockets: accepts, reads requests, waits as told, writes answers whole or broken.
//!
//! Called by the command line's `vendor-sim` and `demo`, and by tests. All of it ends when the future of
//! [`Server::run`] is dropped.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io, mem,
    net::{Shutdown, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_executor::{Executor, Task};
use futures_lite::{AsyncReadExt, future};
use smol::{
    lock::Semaphore,
    net::{TcpListener, TcpStream},
};

use super::{
    Options, clock,
    endpoints::{Reply, answer},
    http::{self, Ending, Request, Response, Unread},
    state::{Counted, OutageMode, State},
};
use crate::limits::{SIM_CONNECTIONS_MAX, SIM_HANG_MAX, SIM_IDLE_MAX};

/// Between two bytes of a drip, at time scale 1.
const DRIP_INTERVAL: Duration = Duration::from_millis(200);
/// Before accepting or binding again after an error.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);
/// How long a client that sent too much may go on sending before it is cut off.
const DRAIN_MAX: Duration = Duration::from_secs(1);

/// A vendor that listens and does not answer yet.
#[derive(Debug)]
pub struct Server {
    executor: Arc<Executor<'static>>,
    listener: TcpListener,
    address: SocketAddr,
    state: Arc<State>,
}

/// Opens the listening socket of a vendor. Its connections will be tasks of `executor`.
///
/// # Errors
/// The address cannot be listened on, or an option is out of its range (`InvalidInput`).
pub async fn bind(executor: Arc<Executor<'static>>, options: Options) -> io::Result<Server> {
    options.check().map_err(|text| io::Error::new(io::ErrorKind::InvalidInput, text))?;
    let listener = TcpListener::bind(options.listen).await?;
    let address = listener.local_addr()?;
    Ok(Server { executor, listener, address, state: Arc::new(State::new(options)) })
}

impl Server {
    /// Where the vendor listens; the port is the real one if port 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the future is dropped; never ends by itself.
    ///
    /// # Cancel safety
    /// Dropping the future closes the listening socket and cancels every connection. The executor drops the cancelled
    /// tasks, and with them their sockets, as soon as it runs.
    pub async fn run(self) -> Infallible {
        let Self { executor, mut listener, address, state } = self;
        let open = Open::default();
        let slots = Arc::new(Semaphore::new(SIM_CONNECTIONS_MAX));
        let mut number = 0;
        loop {
            let slot = slots.acquire_arc().await;
            let accept = async { Some(listener.accept().await) };
            let refusal = async {
                refusal(&state).await;
                None
            };
            match future::or(refusal, accept).await {
                Some(Ok((stream, _))) => {
                    number += 1;
                    let (state, leave) = (state.clone(), Leave { open: open.0.clone(), number });
                    // Locked until the task is in the list, so that it cannot leave before.
                    let mut tasks = lock(&open.0);
                    let task = executor.spawn(async move {
                        let _leave = leave;
                        let connected = state.connected();
                        converse(&state, stream).await;
                        drop((connected, slot));
                    });
                    tasks.insert(number, task);
                }
                // Out of descriptors, or a client that left at once.
                Some(Err(_)) => {
                    clock::sleep(RETRY_INTERVAL).await;
                }
                None => {
                    drop(listener);
                    refused(&state).await;
                    listener = bind_again(address).await;
                }
            }
        }
    }
}

type Tasks = Arc<Mutex<BTreeMap<u64, Task<()>>>>;

/// The tasks of the open connections; dropping it cancels them.
#[derive(Default)]
struct Open(Tasks);

impl Drop for Open {
    fn drop(&mut self) {
        // Dropped after the lock is released: a task that ends takes the lock to leave the list.
        let tasks = mem::take(&mut *lock(&self.0));
        drop(tasks);
    }
}

/// Takes a connection's task off the list when the connection ends.
struct Leave {
    open: Tasks,
    number: u64,
}

impl Drop for Leave {
    fn drop(&mut self) {
        let task = lock(&self.open).remove(&self.number);
        drop(task);
    }
}

fn lock(tasks: &Tasks) -> MutexGuard<'_, BTreeMap<u64, Task<()>>> {
    // Insert and remove leave no half-changed list behind.
    tasks.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Resolves when the vendor is to stop listening.
async fn refusal(state: &State) {
    loop {
        let change = state.outage_change();
        match next_refusal(state) {
            Some((from, _)) if from <= clock::now() => return,
            Some((from, _)) => wait(change, from).await,
            None => change.await,
        }
    }
}

/// Resolves when the vendor may listen again.
async fn refused(state: &State) {
    loop {
        let change = state.outage_change();
        match next_refusal(state) {
            Some((from, until)) if from <= clock::now() => wait(change, until).await,
            _ => return,
        }
    }
}

/// The refusal that is or will be, if its end has not passed.
fn next_refusal(state: &State) -> Option<(Instant, Instant)> {
    let outage = state.outage().filter(|outage| outage.mode == OutageMode::Refuse)?;
    (clock::now() < outage.until).then_some((outage.from, outage.until))
}

async fn wait(change: impl Future<Output = ()>, until: Instant) {
    future::or(change, clock::sleep_until(until)).await;
}

async fn bind_again(address: SocketAddr) -> TcpListener {
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(_) => clock::sleep(RETRY_INTERVAL).await,
        };
    }
}

/// Serves one connection to its end.
async fn converse(state: &Arc<State>, mut stream: TcpStream) {
    // Without it answers in two writes would wait for the client; failing only makes them slower.
    let _ = stream.set_nodelay(true);
    let mut buffer = Vec::new();
    loop {
        let idle = async {
            clock::sleep(SIM_IDLE_MAX).await;
            Err(Unread::Closed)
        };
        match future::or(http::read_request(&mut stream, &mut buffer), idle).await {
            Ok(request) => {
                let counted = (!request.path.starts_with("/_sim/")).then(|| state.received());
                if !respond(state, &mut stream, &request, counted).await {
                    return;
                }
            }
            Err(Unread::Closed) => return,
            Err(Unread::Refused(status, why)) => {
                refuse(state, stream, status, why).await;
                return;
            }
        }
    }
}

/// Answers one request; false if the connection is at its end. `counted` is None for the simulator's own endpoints,
/// which no counter knows.
async fn respond(state: &State, stream: &mut TcpStream, request: &Request, counted: Option<Counted>) -> bool {
    let plan = answer(state, request, clock::now());
    let count_status = |response: &Response| {
        if counted.is_some() {
            state.count_status(response.status);
        }
    };
    if !plan.delay.is_zero() && is_left_within(stream, plan.delay).await {
        state.count_broken("client_left");
        return false;
    }
    let fit = |response: Response| if request.takes_gzip() { response.gzipped() } else { response };
    let date = clock::http_date(Duration::ZERO);
    let (written, keep_alive) = match plan.reply {
        Reply::Answer(response) => {
            count_status(&response);
            let ending = Ending::Whole { keep_alive: request.keep_alive };
            (http::write(stream, &fit(response), &date, ending).await, request.keep_alive)
        }
        Reply::Drip(response) => {
            count_status(&response);
            state.count_broken("drip");
            let interval = state.scaled(DRIP_INTERVAL);
            (http::drip(stream, &fit(response), &date, interval).await, request.keep_alive)
        }
        Reply::Huge => {
            state.count_broken("huge");
            (http::write_huge(stream, &date).await, request.keep_alive)
        }
        Reply::Short(response) => {
            state.count_broken("short_body");
            (http::write(stream, &fit(response), &date, Ending::Short).await, false)
        }
        Reply::ResetMidBody(response) => {
            state.count_broken("reset_mid_body");
            let written = http::write(stream, &fit(response), &date, Ending::Half).await;
            reset_on_close(stream);
            (written, false)
        }
        Reply::Reset => {
            state.count_broken("reset");
            reset_on_close(stream);
            (Ok(0), false)
        }
        Reply::Hang => {
            state.count_broken("hang");
            is_left_within(stream, SIM_HANG_MAX).await;
            (Ok(0), false)
        }
    };
    match written {
        Ok(bytes) => {
            if counted.is_some() {
                state.count_bytes(bytes);
            }
            keep_alive
        }
        Err(_) => {
            state.count_broken("client_left");
            false
        }
    }
}

/// Refuses what is no request, and gives the client the time to read why: closing with unread bytes would reset the
/// connection and take the answer with it.
async fn refuse(state: &State, mut stream: TcpStream, status: u16, why: &str) {
    state.count_status(status);
    let response = Response::error(status, why);
    let ending = Ending::Whole { keep_alive: false };
    if http::write(&mut stream, &response, &clock::http_date(Duration::ZERO), ending).await.is_err() {
        return;
    }
    let drain = async {
        let _ = stream.shutdown(Shutdown::Write);
        let mut bytes = [0; 1024];
        while matches!(stream.read(&mut bytes).await, Ok(1..)) {}
    };
    future::or(drain, clock::sleep(DRAIN_MAX)).await;
}

/// Waits; true as soon as the client has closed its side. A client that has already sent its next request has not.
async fn is_left_within(stream: &TcpStream, duration: Duration) -> bool {
    let left = async {
        match stream.peek(&mut [0]).await {
            Ok(1..) => future::pending().await,
            Ok(0) | Err(_) => true,
        }
    };
    let stays = async {
        clock::sleep(duration).await;
        false
    };
    future::or(left, stays).await
}

/// Makes the coming close a reset. If the system refuses, the client sees a plain close, which is as broken.
fn reset_on_close(stream: &TcpStream) {
    let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
}
