//! A body read to its end: unpacked, hashed and never larger than allowed.
//!
//! Called by [`super::exchange`]. It stops at the first byte too many, on the wire or after gunzip.

use super::{answer::Body, exchange::Sink, pool::Conn};
use crate::item::{Failure, hex};
use flate2::write::MultiGzDecoder;
use hyper::{HeaderMap, body::Incoming, header};
use sha2::{Digest, Sha256};
use std::io::{self, Write};

/// Reads one body.
pub(super) struct Reader {
    cap: u64,
    read: u64,
    stated: Option<u64>,
    form: Form,
    hash: Option<Sha256>,
}

enum Form {
    Plain(Capped),
    Gzip(Box<MultiGzDecoder<Capped>>),
    Download,
    Ended(Body),
}

/// A body in memory with its cap.
struct Capped {
    bytes: Vec<u8>,
    cap: u64,
    over: bool,
}

/// Why a body did not end well.
pub(super) enum Broken {
    /// The connection, in words.
    Cut(String),
    /// The sink.
    Sink(Failure),
}

impl Reader {
    /// A reader for the body that follows `headers`; with `digest` it hashes what it reads.
    pub(super) fn new(headers: &HeaderMap, cap: u64, download: bool, digest: bool) -> Reader {
        let stated = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
        let capped = Capped { bytes: Vec::new(), cap, over: false };
        let encoding = headers.get(header::CONTENT_ENCODING).map(|value| value.to_str().unwrap_or("?").trim());
        let form = match encoding {
            _ if download => Form::Download,
            None | Some("" | "identity") => Form::Plain(capped),
            Some(gzip) if gzip.eq_ignore_ascii_case("gzip") || gzip.eq_ignore_ascii_case("x-gzip") => {
                Form::Gzip(Box::new(MultiGzDecoder::new(capped)))
            }
            Some(_) => Form::Ended(Body::Undecodable("it is encoded otherwise than by gzip".to_owned())),
        };
        Reader { cap, read: 0, stated, form, hash: digest.then(Sha256::new) }
    }

    /// Reads to the end, or to the point from which the rest is of no use. `true` when the body has ended and its
    /// connection may be used again.
    ///
    /// # Errors
    /// When the connection breaks or the sink refuses.
    pub(super) async fn read(
        &mut self,
        conn: &mut Conn,
        mut body: Incoming,
        mut sink: Option<&mut (dyn Sink + '_)>,
    ) -> Result<bool, Broken> {
        let ends = hyper::body::Body::is_end_stream(&body);
        if !ends && !matches!(self.form, Form::Gzip(_)) && self.stated.is_some_and(|stated| stated > self.cap) {
            self.form = Form::Ended(Body::TooLarge);
            return Ok(false);
        }
        if ends && !matches!(self.form, Form::Download) {
            // Nothing comes, as after HEAD: an empty gzip is no broken one.
            self.form = Form::Plain(Capped { bytes: Vec::new(), cap: 0, over: false });
        }
        while let Some(bytes) = conn.next(&mut body).await.map_err(Broken::Cut)? {
            self.read += bytes.len() as u64;
            if self.read > self.cap {
                self.form = Form::Ended(Body::TooLarge);
            }
            match &mut self.form {
                Form::Ended(_) => return Ok(false),
                Form::Download => {
                    if let Some(hash) = &mut self.hash {
                        hash.update(&bytes);
                    }
                    if let Some(sink) = &mut sink {
                        sink.write(bytes).await.map_err(Broken::Sink)?;
                    }
                }
                Form::Plain(capped) => {
                    // Capped refuses only what is too much.
                    if capped.write_all(&bytes).is_err() {
                        self.form = Form::Ended(Body::TooLarge);
                        return Ok(false);
                    }
                }
                Form::Gzip(gzip) => {
                    if gzip.write_all(&bytes).and_then(|()| gzip.flush()).is_err() {
                        self.form = Form::Ended(if gzip.get_ref().over {
                            Body::TooLarge
                        } else {
                            Body::Undecodable("its gzip is broken".to_owned())
                        });
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }

    /// The body, and its SHA-256 as hex if that was asked for.
    pub(super) fn finish(self) -> (Body, String) {
        let Reader { read, form, mut hash, .. } = self;
        let body = match form {
            Form::Plain(capped) => Body::Whole(capped.bytes),
            Form::Gzip(gzip) => unpacked(*gzip),
            Form::Download => Body::Streamed(read),
            Form::Ended(body) => body,
        };
        if let (Some(hash), Body::Whole(bytes)) = (&mut hash, &body) {
            hash.update(bytes);
        }
        (body, hash.map(|hash| hex(&hash.finalize())).unwrap_or_default())
    }
}

fn unpacked(mut gzip: MultiGzDecoder<Capped>) -> Body {
    match gzip.try_finish() {
        Ok(()) => Body::Whole(std::mem::take(&mut gzip.get_mut().bytes)),
        Err(_) if gzip.get_ref().over => Body::TooLarge,
        Err(_) => Body::Undecodable("its gzip ends early or is broken".to_owned()),
    }
}

impl Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if (self.bytes.len() + bytes.len()) as u64 > self.cap {
            self.over = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
