//! One attempt: a request, its redirects, and its answer read to the last byte, all within one timeout.
//!
//! Called by [`super::call`]. It never waits for a limit, never retries but on a connection that was closed while it was
//! idle, and never reads more than the service allows.

use super::{
    Service,
    answer::{Answer, Body},
    body::{Broken, Reader},
    pool::Conn,
    url,
};
use crate::{
    flow::Slot,
    item::{Class, Failure},
    limits::{REDIRECTS_MAX, URL_BYTES_MAX},
    world::{Alarm, Awake, BoxFuture, Due, World},
};
use http_body_util::Full;
use hyper::{
    HeaderMap, Method, Response,
    body::{Bytes, Incoming},
    header::{self, HeaderValue},
};
use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
    time::Duration,
};

/// What is sent: the same bytes at every attempt.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// How messages name it: the method and the path as the author wrote it, never rendered.
    pub label: String,
    /// Path and query within the service's origin, percent-encoded ([`Service::target`]).
    pub target: String,
    /// Headers of this call; they win over the service's.
    pub headers: HeaderMap,
    /// The body; empty for none.
    pub body: Bytes,
    /// Instead of the service's timeout.
    pub timeout: Option<Duration>,
    /// Somebody reads [`Answer::sha256`]; else it stays empty.
    pub digest: bool,
}

/// Where the body of a download goes.
pub trait Sink: Send {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// When they cannot be kept: the attempt fails with it.
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<(), Failure>>;
}

impl Service {
    /// Sends `request` once. With a `sink` the body of a success goes there, else into memory.
    ///
    /// # Errors
    /// `transport`, `timeout`, `too_large`, or what the sink says.
    ///
    /// # Cancel safety
    /// Dropping it closes the connection at once.
    pub(super) async fn exchange(
        &self,
        request: &Request,
        mut sink: Option<&mut (dyn Sink + '_)>,
        slot: &Slot,
    ) -> Result<Answer, Failure> {
        let headers = self.headers_of(request, sink.is_some());
        let mut clock = Clock::new(&self.world, slot, request.timeout.unwrap_or(self.timeout));
        let mut target = request.target.clone();
        let mut redirects = 0;
        loop {
            // Queries and cursors are added behind the checked path.
            if target.len() > URL_BYTES_MAX {
                let message = format!(
                    "{}: the path with its query has {} bytes, more than {URL_BYTES_MAX}: send large values in the body",
                    request.label,
                    target.len()
                );
                return Err(Failure::new(Class::Data, message));
            }
            let (mut conn, response) = self.send(request, &target, &headers, &mut clock).await?;
            let redirect = match followed(request, &response, redirects, self.origin(), &target) {
                None => None,
                Some(Ok(next)) => {
                    // The connection is closed with it: what a redirect says beside its head is of no use.
                    (target, redirects) = (next, redirects + 1);
                    continue;
                }
                Some(Err(why)) => Some(why),
            };
            let (head, incoming) = response.into_parts();
            let success = head.status.is_success();
            let download = sink.as_deref_mut().filter(|_| success);
            let (field, cap) = match download {
                Some(_) => ("max_file", self.max_file),
                None => ("max_body", self.max_body),
            };
            let mut reader = Reader::new(&head.headers, cap, download.is_some(), request.digest);
            let whole = match clock.bound(reader.read(&mut conn, incoming, download)).await {
                None => return Err(clock.late(request)),
                Some(Err(Broken::Cut(cause))) => {
                    let message = format!("{} broke in the middle of the body: {cause}", request.label);
                    return Err(Failure::new(Class::Transport, message));
                }
                Some(Err(Broken::Sink(failure))) => return Err(failure),
                Some(Ok(whole)) => whole,
            };
            if whole {
                self.pool.give_back(conn, &self.world).await;
            } else {
                drop(conn);
            }
            let (body, sha256) = reader.finish();
            if success && body == Body::TooLarge {
                let message = format!("the answer to {} is larger than {field}, which is {cap} bytes", request.label);
                return Err(Failure::new(Class::TooLarge, message));
            }
            return Ok(Answer { status: head.status.as_u16(), headers: head.headers, body, sha256, redirect });
        }
    }

    /// Sends the request on a kept connection or on a fresh one, until the head of the answer is there.
    async fn send(
        &self,
        request: &Request,
        target: &str,
        headers: &HeaderMap,
        clock: &mut Clock<'_>,
    ) -> Result<(Conn, Response<Incoming>), Failure> {
        // What may be sent twice: the server may have done it before it closed the connection.
        let repeatable = matches!(request.method, Method::GET | Method::HEAD | Method::PUT | Method::DELETE)
            || headers.contains_key("idempotency-key");
        let mut kept = self.pool.reuse(&self.world).await;
        loop {
            let reused = kept.is_some();
            let mut conn = match kept.take() {
                Some(conn) => conn,
                None => self.connect(request, clock.slot).await?,
            };
            clock.start();
            match clock.bound(conn.send(build(request, target, headers))).await {
                None => return Err(clock.late(request)),
                Some(Ok(response)) => return Ok((conn, response)),
                Some(Err(lost)) if reused && (lost.unsent || lost.stale && repeatable) => {}
                Some(Err(lost)) => {
                    let class = if lost.too_large { Class::TooLarge } else { Class::Transport };
                    return Err(Failure::new(class, format!("{} failed: {}", request.label, lost.cause)));
                }
            }
        }
    }

    async fn connect(&self, request: &Request, slot: &Slot) -> Result<Conn, Failure> {
        let mut clock = Clock::new(&self.world, slot, self.connect_timeout);
        clock.start();
        let failed = |why: &str| {
            let message = format!("{} failed: no connection to {}: {why}", request.label, self.origin());
            Failure::new(Class::Transport, message)
        };
        match clock.bound(self.pool.open(&self.world)).await {
            None => Err(failed(&format!("not within {:?} (connect_timeout)", self.connect_timeout))),
            Some(Err(cause)) => Err(failed(&cause)),
            Some(Ok(conn)) => Ok(conn),
        }
    }

    fn headers_of(&self, request: &Request, download: bool) -> HeaderMap {
        let mut headers = self.headers.clone();
        for name in request.headers.keys() {
            headers.remove(name);
            for value in request.headers.get_all(name) {
                headers.append(name, value.clone());
            }
        }
        let encoding = HeaderValue::from_static(if download { "identity" } else { "gzip" });
        headers.insert(header::ACCEPT_ENCODING, encoding);
        headers
    }
}

/// The one bound of an attempt: it starts when the first request leaves.
struct Clock<'a> {
    world: &'a World,
    slot: &'a Slot,
    timeout: Duration,
    due: Option<Awake>,
    /// That of the worker, once something had to wait.
    alarm: Option<Box<dyn Alarm>>,
}

impl<'a> Clock<'a> {
    fn new(world: &'a World, slot: &'a Slot, timeout: Duration) -> Clock<'a> {
        Clock { world, slot, timeout, due: None, alarm: None }
    }

    fn start(&mut self) {
        self.due.get_or_insert_with(|| self.world.awake() + self.timeout);
    }

    /// The result of `work`, or `None` when the time is over. The timer is armed only when `work` has to wait.
    async fn bound<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let due = self.due.unwrap_or_else(|| self.world.awake() + self.timeout);
        let (slot, alarm) = (self.slot, &mut self.alarm);
        let mut work = pin!(work);
        poll_fn(|cx| {
            if let Poll::Ready(result) = work.as_mut().poll(cx) {
                return Poll::Ready(Some(result));
            }
            alarm.get_or_insert_with(|| slot.take_alarm()).poll(cx, Due::Awake(due)).map(|()| None)
        })
        .await
    }

    fn late(&self, request: &Request) -> Failure {
        Failure::new(Class::Timeout, format!("{} took longer than its timeout of {:?}", request.label, self.timeout))
    }
}

impl Drop for Clock<'_> {
    fn drop(&mut self) {
        if let Some(alarm) = self.alarm.take() {
            self.slot.keep_alarm(alarm);
        }
    }
}

fn build(request: &Request, target: &str, headers: &HeaderMap) -> hyper::Request<Full<Bytes>> {
    let mut built = hyper::Request::new(Full::new(request.body.clone()));
    *built.method_mut() = request.method.clone();
    *built.uri_mut() = target.parse().expect("a target was checked by url::usable");
    *built.headers_mut() = headers.clone();
    built
}

/// Where a redirect leads, if it is one, or why it is not followed.
fn followed(
    request: &Request,
    response: &Response<Incoming>,
    before: u32,
    origin: &url::Origin,
    target: &str,
) -> Option<Result<String, String>> {
    let status = response.status().as_u16();
    if !matches!(status, 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let reference = response.headers().get(header::LOCATION)?;
    if !matches!(status, 307 | 308) && !matches!(request.method, Method::GET | Method::HEAD) {
        return Some(Err(format!("a {status} is followed only for GET and HEAD")));
    }
    if before == REDIRECTS_MAX {
        return Some(Err(format!("there were {REDIRECTS_MAX} redirects before it")));
    }
    Some(match reference.to_str() {
        Ok(reference) => url::resolve(origin, target, reference),
        Err(_) => Err("its Location is no URL".to_owned()),
    })
}
