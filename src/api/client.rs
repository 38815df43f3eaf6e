//! Asking a daemon.

use super::{
    protocol::{Answer, Request},
    socket::connect,
};
use crate::limits::API_ANSWER_BYTES_MAX;
use futures_lite::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, io::BufReader};
use smol::Async;
use std::{
    io,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

/// Somebody listens on the socket of a state.
#[derive(Clone, Debug)]
pub struct Client {
    folder: PathBuf,
}

impl Client {
    /// The daemon that serves the state in this folder; `None` when none does.
    ///
    /// # Errors
    /// When the socket is there and cannot be used.
    pub fn find(folder: &Path) -> io::Result<Option<Client>> {
        // A connection without a request does no harm: it is closed at once.
        Ok(connect(folder)?.map(|_| Client { folder: folder.to_owned() }))
    }

    /// Asks something.
    ///
    /// # Errors
    /// When the daemon has gone, or does not take the request.
    ///
    /// # Cancel safety
    /// May be dropped at any time; what was asked may be done nevertheless.
    pub async fn ask(&self, request: &Request) -> io::Result<Answers> {
        let gone = || io::Error::new(io::ErrorKind::ConnectionRefused, "nobody listens there any more");
        let mut stream = Async::new(connect(&self.folder)?.ok_or_else(gone)?)?;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        // A daemon that refuses the connection may close it before all is sent: its answer says why.
        match stream.write_all(&line).await {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
            _ => {}
        }
        Ok(Answers { lines: BufReader::new(stream), line: Vec::new(), follows: request.follows(), ended: false })
    }
}

/// The lines of one answer, as they come.
#[derive(Debug)]
pub struct Answers {
    lines: BufReader<Async<UnixStream>>,
    /// What has come of the next one.
    line: Vec<u8>,
    follows: bool,
    ended: bool,
}

impl Answers {
    /// The next one; `None` behind the last.
    ///
    /// # Errors
    /// When the connection ends before the answer does, or is not one.
    ///
    /// # Cancel safety
    /// May be dropped at any time: nothing of the answer is lost.
    pub async fn next(&mut self) -> io::Result<Option<Answer>> {
        if self.ended {
            return Ok(None);
        }
        let room = API_ANSWER_BYTES_MAX.saturating_sub(self.line.len());
        (&mut self.lines).take(room as u64).read_until(b'\n', &mut self.line).await?;
        let line = std::mem::take(&mut self.line);
        if line.last() != Some(&b'\n') {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "its answer was cut off"));
        }
        let not_understood = |error| io::Error::new(io::ErrorKind::InvalidData, format!("its answer: {error}"));
        let answer: Answer = serde_json::from_slice(&line).map_err(not_understood)?;
        self.ended = !answer.is_more(self.follows);
        Ok(Some(answer))
    }
}
