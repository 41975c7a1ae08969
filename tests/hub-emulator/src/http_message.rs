//! HTTP/1.1 messages of the HTTPS and WebSocket port.

use std::collections::HashMap;
use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::percent_decode;

/// Largest head of a request.
const MAX_HEAD: usize = 64 * 1024;
/// Largest body of a request.
const MAX_BODY: usize = 64 * 1024 * 1024;

/// The head of a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Head {
    pub(crate) method: String,
    /// The target without its query, not decoded, with one leading slash.
    pub(crate) path: String,
    /// Decoded members of the query.
    pub(crate) query: HashMap<String, String>,
    /// By lower-case name; repeated headers are joined to a list.
    headers: HashMap<String, String>,
    /// HTTP/1.0 instead of 1.1.
    is_old: bool,
}

impl Head {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// Returns whether a list header contains `item`, in any case.
    pub(crate) fn lists(&self, name: &str, item: &str) -> bool {
        self.header(name).is_some_and(|list| list.split(',').any(|one| one.trim().eq_ignore_ascii_case(item)))
    }

    /// Returns whether the client keeps the connection open after the response.
    pub(crate) fn stays_open(&self) -> bool {
        if self.is_old { self.lists("connection", "keep-alive") } else { !self.lists("connection", "close") }
    }

    /// Returns the requested host name, in lower case and without a port.
    pub(crate) fn host(&self) -> String {
        let host = self.header("host").unwrap_or_default();
        host.rsplit_once(':').map_or(host, |(name, _)| name).to_ascii_lowercase()
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.split("\r\n");
        let mut first = lines.next()?.split(' ');
        let (method, target, version) = (first.next()?, first.next()?, first.next()?);
        if !version.starts_with("HTTP/1.") {
            return None;
        }
        // RFC 9112, 3.2.2: a server also accepts absolute URIs, which older Python SDKs send.
        let target = match target.split_once("://") {
            Some((_, rest)) if !target.starts_with('/') => rest.find('/').map_or("/", |at| &rest[at..]),
            _ => target,
        };
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let mut headers: HashMap<String, String> = HashMap::new();
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            let list = headers.entry(name.trim().to_ascii_lowercase()).or_default();
            if !list.is_empty() {
                list.push_str(", ");
            }
            list.push_str(value.trim());
        }
        Some(Self {
            method: method.to_owned(),
            // The same SDKs send a doubled slash.
            path: format!("/{}", path.trim_start_matches('/')),
            query: pairs.map(|(key, value)| (percent_decode(key), percent_decode(value))).collect(),
            headers,
            is_old: version == "HTTP/1.0",
        })
    }
}

/// A response.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }

    pub(crate) fn json(status: u16, body: &serde_json::Value) -> Self {
        Self::new(status).header("Content-Type", "application/json; charset=utf-8").body(body.to_string())
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }
}

/// A stream of sequential requests.
pub(crate) struct Conversation<S> {
    pub(crate) stream: S,
    /// Bytes that were read but not yet consumed.
    pub(crate) input: Vec<u8>,
    pub(crate) received: u64,
    pub(crate) sent: u64,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Conversation<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, input: Vec::new(), received: 0, sent: 0 }
    }

    /// Reads the head of the next request; none when the client closes first.
    pub(crate) async fn head(&mut self) -> io::Result<Option<Head>> {
        loop {
            if let Some(at) = self.input.windows(4).position(|four| four == b"\r\n\r\n") {
                let rest = self.input.split_off(at + 4);
                let head = std::mem::replace(&mut self.input, rest);
                let text = std::str::from_utf8(&head[..at]).ok();
                return text.and_then(Head::parse).map(Some).ok_or_else(|| invalid("not an HTTP/1.1 request head"));
            }
            if self.input.len() > MAX_HEAD {
                return Err(invalid("head too large"));
            }
            if self.more().await? == 0 {
                return if self.input.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    /// Reads the body that belongs to `head`; none when it is longer than `limit` bytes, after reading that many.
    pub(crate) async fn body(&mut self, head: &Head, limit: Option<u64>) -> io::Result<Option<Vec<u8>>> {
        if head.lists("expect", "100-continue") {
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        let limit = limit.map_or(MAX_BODY, |limit| usize::try_from(limit).unwrap_or(MAX_BODY));
        if head.lists("transfer-encoding", "chunked") {
            return self.chunks(limit).await;
        }
        let length = match head.header("content-length") {
            None => 0,
            Some(text) => text.parse::<usize>().map_err(|_| invalid("content length is not a number"))?,
        };
        let taken = length.min(limit);
        self.fill(taken).await?;
        if length > limit {
            return Ok(None);
        }
        let rest = self.input.split_off(length);
        Ok(Some(std::mem::replace(&mut self.input, rest)))
    }

    async fn chunks(&mut self, limit: usize) -> io::Result<Option<Vec<u8>>> {
        let mut body = Vec::new();
        loop {
            let line = self.line().await?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(|_| invalid("chunk size is not a number"))?;
            if size == 0 {
                while !self.line().await?.is_empty() {}
                return Ok(Some(body));
            }
            if body.len().saturating_add(size) > limit {
                return Ok(None);
            }
            self.fill(size + 2).await?;
            body.extend(self.input.drain(..size + 2).take(size));
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(at) = self.input.windows(2).position(|two| two == b"\r\n") {
                let line = self.input.drain(..at + 2).take(at).collect();
                return String::from_utf8(line).map_err(|_| invalid("line is not UTF-8"));
            }
            if self.input.len() > MAX_HEAD || self.more().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    async fn fill(&mut self, length: usize) -> io::Result<()> {
        while self.input.len() < length {
            if self.more().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    async fn more(&mut self) -> io::Result<usize> {
        let count = self.stream.read_buf(&mut self.input).await?;
        self.received += count as u64;
        Ok(count)
    }

    pub(crate) async fn answer(&mut self, response: &Response) -> io::Result<()> {
        let Response { status, headers, body } = response;
        let mut head = format!("HTTP/1.1 {status} {}\r\n", reason(*status));
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        // A 204 and an upgrade have no body, not even an empty one.
        if !matches!(status, 101 | 204) {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        head += "\r\n";
        self.write(&[head.as_bytes(), body].concat()).await
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await?;
        self.sent += bytes.len() as u64;
        Ok(())
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn reason(status: u16) -> &'static str {
    match status {
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        413 => "Payload Too Large",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Status",
    }
}
