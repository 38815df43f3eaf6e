//! From an origin to an open connection: name look-up, TCP, TLS, and the bytes between hyper and the socket.
//!
//! Called by [`super::pool`]. It bounds look-ups (a look-up that hangs keeps its thread), tries every address, and knows
//! whether a connection has heard anything since a request left.

use super::{
    tls::{self, Connector},
    url::Origin,
};
use crate::{
    flow::Semaphore,
    limits::{LOOKUP_KEPT, LOOKUPS_MAX, READS_BEFORE_YIELD, SCARCE_WAIT},
    world::{Awake, BoxFuture, World},
};
use futures_lite::io::{AsyncRead, AsyncWrite};
use hyper::rt::ReadBufCursor;
use rustix::io::Errno;
use smol::{Async, net::TcpStream};
use std::{
    cell::RefCell,
    io::{self, Read as _},
    net::{self, IpAddr, SocketAddr, ToSocketAddrs},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

thread_local! {
    /// What is read goes through it: hyper's buffer may be uninitialised, and filling it or an array with zeros at each poll
    /// costs more. No read begins inside another.
    static READ_BLOCK: RefCell<Box<[u8]>> = RefCell::new(vec![0; 8192].into());
}

/// Opens connections to one origin.
pub(super) struct Dialer {
    origin: Origin,
    tls: Option<Connector>,
    lookups: Semaphore,
    known: Mutex<Option<(Awake, Vec<SocketAddr>)>>,
}

/// One open connection, as hyper reads and writes it.
pub(super) struct Io {
    stream: Box<dyn Wire>,
    ears: Arc<Ears>,
    /// Reads in a row that did not have to wait.
    ready: u32,
}

/// What the pool tells a connection, and hears of it.
#[derive(Default)]
pub(super) struct Ears {
    /// True once a byte of an answer was read; the pool clears it before each request.
    pub(super) heard: AtomicBool,
    /// The next read asks the socket itself, also where no event has come: what came a moment ago counts.
    pub(super) look: AtomicBool,
}

/// A socket that is read only when something may have come: hyper asks at each of its turns, and every asking in vain
/// would be a system call.
pub(super) struct Socket {
    stream: TcpStream,
    source: Arc<Async<net::TcpStream>>,
    /// The wait for the next event, after a read found nothing.
    event: Option<BoxFuture<'static, io::Result<()>>>,
    ears: Arc<Ears>,
}

/// What bytes of a connection go through: a socket, or TLS over one.
pub(super) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<W: AsyncRead + AsyncWrite + Send + Unpin> Wire for W {}

impl Dialer {
    /// `tls` must be there when the origin is https.
    pub(super) fn new(origin: Origin, tls: Option<Connector>) -> Dialer {
        Dialer { origin, tls, lookups: Semaphore::new(LOOKUPS_MAX), known: Mutex::new(None) }
    }

    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Opens a connection. The caller bounds the time.
    ///
    /// # Errors
    /// A sentence about the last address that was tried.
    ///
    /// # Cancel safety
    /// Dropping it closes what was opened; a look-up that has begun ends by itself, and counts until then.
    pub(super) async fn connect(&self, world: &World) -> Result<Io, String> {
        let addresses = self.addresses(world).await?;
        let mut last = "the name has no address".to_owned();
        for address in addresses {
            loop {
                match self.open(address).await {
                    Ok((stream, ears)) => return Ok(Io { stream, ears, ready: 0 }),
                    // Others give descriptors back; the caller bounds the time.
                    Err(error) if is_scarce(&error) => world.sleep(SCARCE_WAIT).await,
                    Err(error) => {
                        last = describe(&error);
                        break;
                    }
                }
            }
        }
        // The addresses may have changed: the next attempt looks them up again.
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Err(last)
    }

    async fn open(&self, address: SocketAddr) -> io::Result<(Box<dyn Wire>, Arc<Ears>)> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let ears = Arc::new(Ears::default());
        let socket = Socket { source: stream.clone().into(), stream, event: None, ears: ears.clone() };
        let stream: Box<dyn Wire> = match &self.tls {
            None => Box::new(socket),
            Some(tls) => tls.connect(&self.origin.host, socket).await?,
        };
        Ok((stream, ears))
    }

    async fn addresses(&self, world: &World) -> Result<Vec<SocketAddr>, String> {
        if let Ok(ip) = self.origin.host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, self.origin.port)]);
        }
        if let Some((at, known)) = &*self.known.lock().unwrap_or_else(PoisonError::into_inner)
            && world.awake().since(*at) < LOOKUP_KEPT
        {
            return Ok(known.clone());
        }
        let permit = self.lookups.acquire().await;
        let (host, port) = (self.origin.host.clone(), self.origin.port);
        let found = world
            .unblock(move || {
                // The permit goes with the thread: one that hangs in a look-up counts although nobody waits for it.
                let _permit = permit;
                (host.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<_>>)
            })
            .await;
        let found = found.map_err(|error| format!("the name {:?} cannot be looked up: {error}", self.origin.host))?;
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some((world.awake(), found.clone()));
        Ok(found)
    }
}

/// No file descriptor or memory is free at the moment.
fn is_scarce(error: &io::Error) -> bool {
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

impl Io {
    /// Shared with the pool.
    pub(super) fn ears(&self) -> Arc<Ears> {
        self.ears.clone()
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let mut look = this.ears.look.swap(false, Ordering::Relaxed);
        loop {
            if let Some(event) = &mut this.event
                && !std::mem::take(&mut look)
            {
                let came = ready!(event.as_mut().poll(cx));
                this.event = None;
                came?;
            }
            match this.source.get_ref().read(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let source = &this.source;
                    this.event.get_or_insert_with(|| Box::pin(source.clone().readable_owned()));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return Poll::Ready(read),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_close(cx)
    }
}

/// An I/O error in words, without addresses.
pub(super) fn describe(error: &io::Error) -> String {
    if let Some(tls) = tls::describe(error) {
        return tls;
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "the connection was refused".to_owned(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "the connection was reset".to_owned(),
        io::ErrorKind::UnexpectedEof => "the connection was closed early".to_owned(),
        io::ErrorKind::TimedOut => "the connection timed out".to_owned(),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "the host cannot be reached".to_owned(),
        _ => error.to_string(),
    }
}

impl hyper::rt::Read for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, mut buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ready == READS_BEFORE_YIELD {
            // A server that floods us faster than we read must not keep the thread from timers and other calls.
            this.ready = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        READ_BLOCK.with_borrow_mut(|bytes| {
            let room = bytes.len().min(buf.remaining());
            let read = Pin::new(&mut this.stream).poll_read(cx, &mut bytes[..room]);
            this.ready = if read.is_ready() { this.ready + 1 } else { 0 };
            let count = ready!(read)?;
            if count > 0 {
                this.ears.heard.store(true, Ordering::Relaxed);
            }
            buf.put_slice(&bytes[..count]);
            Poll::Ready(Ok(()))
        })
    }
}

impl hyper::rt::Write for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_close(cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bytes)
    }
}
