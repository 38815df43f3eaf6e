//! Connections that are kept for the next call, and how one request runs on one of them.
//!
//! Called by [`super::exchange`]. A connection is polled by the call that uses it and by nobody else: there is no task to
//! leak, a dropped call closes its connection at once, and a dropped service closes all. One comes back only after the
//! body of its answer has ended.

use super::transport::{Dialer, Ears, Io, describe};
use crate::{
    limits::{POOL_IDLE_TIME, RESPONSE_HEAD_BYTES_MAX},
    world::{Awake, World},
};
use futures_lite::future::poll_once;
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    client::conn::http1,
};
use std::{
    error::Error,
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    task::Poll,
};

/// Idle connections to one origin.
pub(super) struct Pool {
    dialer: Dialer,
    idle: Mutex<Vec<Conn>>,
    idle_max: usize,
}

/// One connection with what drives it.
pub(super) struct Conn {
    sender: http1::SendRequest<Full<Bytes>>,
    driver: Option<Driver>,
    ears: Arc<Ears>,
    used: bool,
    idle_since: Awake,
}

/// What reads and writes a connection; boxed, as it moves with it.
type Driver = Pin<Box<http1::Connection<Io, Full<Bytes>>>>;

/// Why there is no answer on a connection.
pub(super) struct Lost {
    /// In words.
    pub(super) cause: String,
    /// The head was larger than is read.
    pub(super) too_large: bool,
    /// The connection had served before and nothing came back on it: it was closed while it was idle.
    pub(super) stale: bool,
    /// Not a byte of the request was written.
    pub(super) unsent: bool,
}

impl Pool {
    pub(super) fn new(dialer: Dialer, idle_max: usize) -> Pool {
        Pool { dialer, idle: Mutex::new(Vec::new()), idle_max }
    }

    pub(super) fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    /// The connection that was used last, if one still stands.
    pub(super) async fn reuse(&self, world: &World) -> Option<Conn> {
        loop {
            let mut conn = {
                let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
                let now = world.awake();
                idle.retain(|conn| now.since(conn.idle_since) < POOL_IDLE_TIME);
                idle.pop()?
            };
            // One poll reads what came meanwhile: the end of a connection that the server has closed.
            conn.ears.look.store(true, Ordering::Relaxed);
            if conn.turn().await && conn.sender.is_ready() {
                return Some(conn);
            }
        }
    }

    /// A fresh connection. The caller bounds the time.
    ///
    /// # Errors
    /// A sentence.
    pub(super) async fn open(&self, world: &World) -> Result<Conn, String> {
        let io = self.dialer.connect(world).await?;
        let ears = io.ears();
        let (sender, driver) = http1::Builder::new()
            .max_buf_size(RESPONSE_HEAD_BYTES_MAX)
            .handshake(io)
            .await
            .map_err(|error| cause(&error))?;
        Ok(Conn { sender, driver: Some(Box::pin(driver)), ears, used: false, idle_since: world.awake() })
    }

    /// Keeps a connection whose answer has ended, or closes it where it cannot be used again.
    pub(super) async fn give_back(&self, mut conn: Conn, world: &World) {
        if !conn.turn().await || !conn.sender.is_ready() {
            return;
        }
        conn.used = true;
        conn.idle_since = world.awake();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < self.idle_max {
            idle.push(conn);
        }
    }

    /// Connections that wait for a call.
    #[cfg(test)]
    pub(super) fn idle(&self) -> usize {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Conn {
    /// Sends one request and gives the head of its answer.
    ///
    /// # Errors
    /// See [`Lost`]; the connection is of no more use then.
    pub(super) async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Lost> {
        self.ears.heard.store(false, Ordering::Relaxed);
        let answer = self.sender.try_send_request(request);
        let result = drive(&mut self.driver, answer).await;
        result.map_err(|mut error| {
            let unsent = error.take_message().is_some();
            let error = error.into_error();
            Lost {
                cause: cause(&error),
                too_large: is_too_large(&error),
                stale: self.used && !self.ears.heard.load(Ordering::Relaxed),
                unsent,
            }
        })
    }

    /// The next bytes of the body; `None` at its end.
    ///
    /// # Errors
    /// A sentence, when the body was cut or is malformed.
    pub(super) async fn next(&mut self, body: &mut Incoming) -> Result<Option<Bytes>, String> {
        loop {
            match drive(&mut self.driver, body.frame()).await {
                None => return Ok(None),
                Some(Err(error)) => return Err(cause(&error)),
                Some(Ok(frame)) => {
                    // Trailers are read and dropped.
                    if let Ok(bytes) = frame.into_data() {
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }

    /// Lets the connection do what it can without waiting; `false` when it has ended.
    async fn turn(&mut self) -> bool {
        if let Some(driver) = &mut self.driver
            && poll_once(driver.as_mut()).await.is_some()
        {
            self.driver = None;
        }
        self.driver.is_some()
    }
}

/// Runs `work` and the connection together, in the task of the call.
async fn drive<T>(driver: &mut Option<Driver>, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(|cx| {
        if let Poll::Ready(result) = work.as_mut().poll(cx) {
            return Poll::Ready(result);
        }
        if let Some(connection) = driver
            && connection.as_mut().poll(cx).is_ready()
        {
            // What it had to say has gone to `work`; dropping it ends what still waits on it.
            *driver = None;
        }
        work.as_mut().poll(cx)
    })
    .await
}

/// Whether the head was larger than we read. hyper has a method for it only where it is built as a server too (feature
/// `demo`); its text is the same in every build.
fn is_too_large(error: &hyper::Error) -> bool {
    error.is_parse() && error.to_string() == "message head is too large"
}

/// A hyper error in words, without values.
fn cause(error: &hyper::Error) -> String {
    if is_too_large(error) {
        return format!("the head of the answer is larger than {} KiB", RESPONSE_HEAD_BYTES_MAX / 1024);
    }
    if error.is_parse() {
        return "the answer is not HTTP".to_owned();
    }
    if error.is_incomplete_message() {
        return "the connection was closed before the answer ended".to_owned();
    }
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(io) = inner.downcast_ref::<io::Error>() {
            return describe(io);
        }
        source = inner.source();
    }
    if error.is_canceled() || error.is_closed() {
        return "the connection was closed".to_owned();
    }
    error.to_string()
}
