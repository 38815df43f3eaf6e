//! HTTP/1.1 of the simulated vendor, by hand: a server library would not let us break it on purpose.
//!
//! Called by [`server`](super::server). Reads one bounded request at a time and writes answers, whole or broken in the
//! ways that real vendors break them. Never decides what to answer.

use std::{fmt::Write as _, io, time::Duration};

use flate2::{Compression, write::GzEncoder};
use futures_lite::{AsyncReadExt, AsyncWriteExt, future};
use serde_json::Value;
use smol::net::TcpStream;

use super::clock;
use crate::limits::{SIM_BODY_BYTES_MAX, SIM_HEAD_BYTES_MAX, SIM_HUGE_BYTES};

/// Bodies under this are not worth compressing, in bytes.
const GZIP_FROM_BYTES: usize = 256;
/// How much a short body's `Content-Length` is too long, in bytes.
const SHORT_BY_BYTES: usize = 500;
/// How much of a huge body is written at once, in bytes.
const CHUNK_BYTES: usize = 16 << 10;

/// A request, read whole.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    /// Decoded pairs in order.
    pub(super) query: Vec<(String, String)>,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    /// Whether the client lets the connection go on after the answer.
    pub(super) keep_alive: bool,
}

/// Why no request could be read.
#[derive(Debug)]
pub(super) enum Unread {
    /// The client has closed, in whatever way.
    Closed,
    /// What came is no request that we take: answer with this status and close.
    Refused(u16, &'static str),
}

/// An answer without its framing.
#[derive(Clone, Debug)]
pub(super) struct Response {
    pub(super) status: u16,
    content_type: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

/// What ends the bytes of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The whole body, then perhaps the next request.
    Whole { keep_alive: bool },
    /// Half of the body; the caller resets the connection.
    Half,
    /// The whole body, but `Content-Length` promises more; the caller closes.
    Short,
}

impl Request {
    /// The first query value of this name.
    pub(super) fn query(&self, name: &str) -> Option<&str> {
        first(&self.query, name)
    }

    /// The first header of this name, given in lower case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        first(&self.headers, name)
    }

    /// Whether the client takes gzip.
    pub(super) fn takes_gzip(&self) -> bool {
        self.header("accept-encoding").is_some_and(|codings| {
            codings.split(',').any(|coding| {
                let (name, rest) = coding.split_once(';').unwrap_or((coding, ""));
                let refused = rest.trim().strip_prefix("q=").is_some_and(|q| q.trim().parse() == Ok(0.0));
                name.trim().eq_ignore_ascii_case("gzip") && !refused
            })
        })
    }
}

impl Response {
    pub(super) fn json(status: u16, body: &Value) -> Self {
        Self::json_text(status, body.to_string())
    }

    pub(super) fn json_text(status: u16, body: String) -> Self {
        Self::new(status, "application/json", body.into_bytes())
    }

    pub(super) fn new(status: u16, content_type: &'static str, body: Vec<u8>) -> Self {
        Self { status, content_type, headers: Vec::new(), body }
    }

    /// An answer `{"error":...}`.
    pub(super) fn error(status: u16, error: &str) -> Self {
        Self::json(status, &serde_json::json!({ "error": error }))
    }

    /// The same with one more header. The value is ours and holds no line breaks.
    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The same with its body cut in the middle, as broken JSON.
    pub(super) fn cut(mut self) -> Self {
        self.body.truncate(self.body.len() / 2);
        self
    }

    /// A validator of the body, for `ETag`.
    pub(super) fn digest(&self) -> u64 {
        digest(&self.body)
    }

    /// The same, compressed if that is worth it.
    pub(super) fn gzipped(mut self) -> Self {
        if self.body.len() < GZIP_FROM_BYTES {
            return self;
        }
        let mut gzip = GzEncoder::new(Vec::with_capacity(self.body.len() / 2), Compression::fast());
        // Writing to a vector cannot fail; if it did, the plain body would still be right.
        if let Ok(body) = io::Write::write_all(&mut gzip, &self.body).and_then(|()| gzip.finish()) {
            self.body = body;
            self.headers.push(("Content-Encoding", "gzip".to_owned()));
            self.headers.push(("Vary", "Accept-Encoding".to_owned()));
        }
        self
    }

    /// Head and body as they go over the wire. `date` is the value of the `Date` header.
    fn encode(&self, date: &str, ending: Ending) -> (Vec<u8>, &[u8]) {
        let promised = self.body.len() + if ending == Ending::Short { SHORT_BY_BYTES } else { 0 };
        let mut head = self.head(date);
        // 304 has no body, and no length either.
        if self.status != 304 {
            let _ = write!(head, "Content-Type: {}\r\nContent-Length: {promised}\r\n", self.content_type);
        }
        if ending == (Ending::Whole { keep_alive: false }) {
            head.push_str("Connection: close\r\n");
        }
        head.push_str("\r\n");
        let sent = if ending == Ending::Half { self.body.len() / 2 } else { self.body.len() };
        (head.into_bytes(), &self.body[..sent])
    }

    fn head(&self, date: &str) -> String {
        let mut head = String::with_capacity(512);
        // Writing to a string cannot fail, here and above.
        let _ =
            write!(head, "HTTP/1.1 {} {}\r\nDate: {date}\r\nServer: vendor-sim\r\n", self.status, reason(self.status));
        for (name, value) in &self.headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        head
    }
}

/// Reads the next request. `buffer` keeps what came after the last one and is empty at first.
///
/// # Cancel safety
/// Bytes read stay in `buffer`, so a read that was dropped may be started again.
pub(super) async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<Request, Unread> {
    let head_bytes = loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if buffer.len() > SIM_HEAD_BYTES_MAX {
            return Err(Unread::Refused(431, "head too large"));
        }
        read_some(stream, buffer).await?;
    };
    let (mut request, body_bytes) = parse_head(&buffer[..head_bytes])?;
    while buffer.len() < head_bytes + body_bytes {
        read_some(stream, buffer).await?;
    }
    request.body = buffer[head_bytes..head_bytes + body_bytes].to_vec();
    buffer.drain(..head_bytes + body_bytes);
    Ok(request)
}

/// Writes an answer and says how many bytes went out.
pub(super) async fn write(
    stream: &mut TcpStream,
    response: &Response,
    date: &str,
    ending: Ending,
) -> io::Result<usize> {
    let (mut bytes, body) = response.encode(date, ending);
    bytes.extend_from_slice(body);
    stream.write_all(&bytes).await?;
    Ok(bytes.len())
}

/// Writes the head at once and the body one byte each `interval`.
pub(super) async fn drip(
    stream: &mut TcpStream,
    response: &Response,
    date: &str,
    interval: Duration,
) -> io::Result<usize> {
    let (head, body) = response.encode(date, Ending::Whole { keep_alive: true });
    stream.write_all(&head).await?;
    for byte in body {
        if interval.is_zero() {
            future::yield_now().await;
        } else {
            clock::sleep(interval).await;
        }
        stream.write_all(&[*byte]).await?;
    }
    Ok(head.len() + body.len())
}

/// Writes a chunked body of [`SIM_HUGE_BYTES`] that begins like a night and never becomes one.
pub(super) async fn write_huge(stream: &mut TcpStream, date: &str) -> io::Result<usize> {
    let mut head = Response::new(200, "application/json", Vec::new()).head(date);
    head.push_str("Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut chunk = format!("{CHUNK_BYTES:x}\r\n").into_bytes();
    chunk.extend(b"{\"heart_rate\":[[0,61],".iter().chain(b"[0,61],".iter().cycle()).take(CHUNK_BYTES));
    chunk.extend(b"\r\n");
    for _ in 0..SIM_HUGE_BYTES / CHUNK_BYTES {
        stream.write_all(&chunk).await?;
    }
    stream.write_all(b"0\r\n\r\n").await?;
    Ok(head.len() + chunk.len() * (SIM_HUGE_BYTES / CHUNK_BYTES) + 5)
}

/// The decoded pairs of a query or of a form's body.
pub(super) fn pairs(text: &str) -> Vec<(String, String)> {
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        })
        .collect()
}

/// The first value of a name.
pub(super) fn first<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// 64-bit FNV-1a: enough to tell bodies apart.
pub(super) fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

async fn read_some(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<(), Unread> {
    let mut bytes = [0; 8 << 10];
    match stream.read(&mut bytes).await {
        Ok(0) | Err(_) => Err(Unread::Closed),
        Ok(count) => {
            buffer.extend_from_slice(&bytes[..count]);
            Ok(())
        }
    }
}

/// The request without its body, and the body's length.
fn parse_head(head: &[u8]) -> Result<(Request, usize), Unread> {
    if head.len() > SIM_HEAD_BYTES_MAX {
        return Err(Unread::Refused(431, "head too large"));
    }
    let bad = |why| Unread::Refused(400, why);
    let text = std::str::from_utf8(head).map_err(|_| bad("head is not UTF-8"))?;
    let mut lines = text.trim_end().split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(bad("no request line"));
    };
    if !version.starts_with("HTTP/1.") || !target.starts_with('/') {
        return Err(bad("no HTTP/1 request with a path"));
    }
    let mut headers = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':').ok_or_else(|| bad("header without a colon"))?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    if first(&headers, "transfer-encoding").is_some() {
        return Err(Unread::Refused(411, "a body needs a Content-Length"));
    }
    let body_bytes = match first(&headers, "content-length") {
        None => 0,
        Some(length) => length.parse().map_err(|_| bad("Content-Length is not a number"))?,
    };
    if body_bytes > SIM_BODY_BYTES_MAX {
        return Err(Unread::Refused(413, "body too large"));
    }
    let connection = first(&headers, "connection").unwrap_or_default().to_ascii_lowercase();
    let keep_alive =
        if version == "HTTP/1.0" { connection.contains("keep-alive") } else { !connection.contains("close") };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let request = Request {
        method: method.to_owned(),
        path: decode(path),
        query: pairs(query),
        headers,
        body: Vec::new(),
        keep_alive,
    };
    Ok((request, body_bytes))
}

/// Undoes percent-encoding and `+`. What is no valid escape stays as it is.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = match bytes[at] {
            b'%' => bytes.get(at + 1..at + 3).and_then(hex_byte),
            _ => None,
        };
        decoded.push(escaped.unwrap_or(if bytes[at] == b'+' { b' ' } else { bytes[at] }));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn hex_byte(digits: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    Some((digit(digits[0])? * 16 + digit(digits[1])?) as u8)
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        507 => "Insufficient Storage",
        _ => "Status",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_with_its_pairs_and_length() {
        let head = b"POST /v1/x%41?date=2026-11-22&r=1&a+b=%zz HTTP/1.1\r\nHOST: h\r\nContent-Length: 7\r\n\r\n";
        let (request, body) = parse_head(head).expect("a whole head");
        assert_eq!((request.method.as_str(), request.path.as_str(), body), ("POST", "/v1/xA", 7));
        assert_eq!(
            (request.query("r"), request.query("a b"), request.header("host")),
            (Some("1"), Some("%zz"), Some("h"))
        );
        assert!(request.keep_alive);
    }

    #[test]
    fn what_is_no_request_is_refused_with_its_reason() {
        let cases: [(&[u8], u16); 7] = [
            (b"\r\n\r\n", 400),
            (b"GET / HTTP/2\r\n\r\n", 400),
            (b"GET http://h/ HTTP/1.1\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nContent-Length: 65537\r\n\r\n", 413),
            (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
        ];
        for (head, status) in cases {
            assert!(matches!(parse_head(head), Err(Unread::Refused(s, _)) if s == status), "{head:?}");
        }
    }

    #[test]
    fn gzip_is_used_when_asked_and_not_refused() {
        let takes = |value: &str| {
            let head = format!("GET / HTTP/1.1\r\nAccept-Encoding: {value}\r\n\r\n");
            parse_head(head.as_bytes()).expect("a whole head").0.takes_gzip()
        };
        assert!(takes("br, gzip") && takes("GZIP;q=0.5"));
        assert!(!takes("identity") && !takes("gzip;q=0") && !takes("gzip; q=0.0"));
    }
}
