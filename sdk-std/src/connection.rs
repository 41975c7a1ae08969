//! The byte pipe: one connection of one attempt.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use steadfast_core::mqtt::{EncodeError, Packet};
use steadfast_core::text::{Sink, SinkFull};
use steadfast_core::transport::FrameError;
use steadfast_core::{Attempt, Failure, LocalFailure};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use zeroize::{Zeroize, Zeroizing};

use crate::connect::lacks_resources;
use crate::tls;

/// Most bytes that wait for the socket, one packet that is longer apart.
const BACKLOG: usize = 64 * 1024;

/// Most bytes read in one go.
pub(crate) const READ: usize = 16 * 1024;

/// How long the end of a connection may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// Bytes in both directions.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    #[cfg(feature = "websocket")]
    WebSocket(Box<crate::websocket::WebSocket>),
    #[cfg(feature = "rumqttc")]
    Client(Box<crate::rumqttc::ClientStream>),
}

impl Stream {
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
            #[cfg(feature = "websocket")]
            Self::WebSocket(stream) => stream.poll_read(cx, buffer),
            #[cfg(feature = "rumqttc")]
            Self::Client(stream) => stream.poll_read(cx, buffer),
        }
    }

    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
            #[cfg(feature = "websocket")]
            Self::WebSocket(stream) => stream.poll_write(cx, bytes),
            #[cfg(feature = "rumqttc")]
            Self::Client(stream) => stream.poll_write(cx, bytes),
        }
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            #[cfg(feature = "websocket")]
            Self::WebSocket(stream) => stream.poll_flush(cx),
            #[cfg(feature = "rumqttc")]
            Self::Client(stream) => stream.poll_flush(cx),
        }
    }

    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            #[cfg(feature = "websocket")]
            Self::WebSocket(stream) => stream.poll_shutdown(cx),
            #[cfg(feature = "rumqttc")]
            Self::Client(stream) => stream.poll_shutdown(cx),
        }
    }

    /// Prepares for the end of the connection: from here on it is polled to the end of what it holds.
    const fn leave(&mut self) {
        match self {
            Self::Plain(_) | Self::Tls(_) => {}
            #[cfg(feature = "websocket")]
            Self::WebSocket(_) => {}
            #[cfg(feature = "rumqttc")]
            Self::Client(stream) => stream.leave(),
        }
    }

    /// Bytes it took that are known not to be on their way.
    fn held(&self) -> usize {
        match self {
            Self::Plain(_) | Self::Tls(_) => 0,
            #[cfg(feature = "websocket")]
            Self::WebSocket(_) => 0,
            #[cfg(feature = "rumqttc")]
            Self::Client(stream) => stream.held(),
        }
    }

    /// Whether bytes it held went on their way since the last look.
    fn has_moved(&mut self) -> bool {
        match self {
            Self::Plain(_) | Self::Tls(_) => false,
            #[cfg(feature = "websocket")]
            Self::WebSocket(_) => false,
            #[cfg(feature = "rumqttc")]
            Self::Client(stream) => stream.has_moved(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Self::poll_read(&mut self, cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Self::poll_write(&mut self, cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::poll_flush(&mut self, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Self::poll_shutdown(&mut self, cx)
    }
}

/// Packets gathered for one write. It grows as needed; the link bounds what it puts in.
#[derive(Default)]
pub(crate) struct Scratch {
    bytes: Vec<u8>,
    /// A CONNECT is or was among them, and with it the device's password: nothing of it is to stay in memory.
    secret: bool,
}

impl Scratch {
    /// Appends the packet and returns its length; what cannot be encoded leaves nothing behind.
    pub(crate) fn put_packet(&mut self, packet: &Packet<'_>) -> Result<usize, EncodeError> {
        self.secret |= matches!(packet, Packet::Connect(_));
        let before = self.bytes.len();
        match packet.encode(self) {
            Ok(()) => Ok(self.bytes.len() - before),
            Err(error) => {
                if self.secret {
                    self.bytes.get_mut(before..).unwrap_or_default().zeroize();
                }
                self.bytes.truncate(before);
                Err(error)
            }
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) const fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    pub(crate) fn clear(&mut self) {
        if std::mem::take(&mut self.secret) {
            self.bytes.zeroize();
        }
        self.bytes.clear();
    }

    /// Takes the bytes out.
    pub(crate) fn take(&mut self) -> Zeroizing<Vec<u8>> {
        self.secret = false;
        Zeroizing::new(std::mem::take(&mut self.bytes))
    }
}

impl Sink for Scratch {
    fn put(&mut self, bytes: &[u8]) -> Result<(), SinkFull> {
        grow(&mut self.bytes, bytes, self.secret);
        Ok(())
    }
}

/// Appends `more`. `secret`: a vector that has to move leaves nothing behind.
fn grow(bytes: &mut Vec<u8>, more: &[u8], secret: bool) {
    let len = bytes.len() + more.len();
    if secret && len > bytes.capacity() {
        let mut larger = Vec::with_capacity(len.max(1024).next_power_of_two());
        larger.extend_from_slice(bytes);
        bytes.zeroize();
        *bytes = larger;
    }
    bytes.extend_from_slice(more);
}

/// One connection. An idle one holds no buffers.
pub(crate) struct Connection {
    pub(crate) attempt: Attempt,
    stream: Stream,
    /// What the socket did not take, up to `written` gone already. A CONNECT may be among it.
    backlog: Zeroizing<Vec<u8>>,
    written: usize,
    /// The part of a packet that has come.
    pub(crate) partial: Vec<u8>,
    /// TLS records may wait in the stream.
    unflushed: bool,
    /// The device showed a certificate.
    shown: bool,
}

/// What [`Connection::read`] found.
#[derive(Debug)]
pub(crate) enum Read {
    /// Nothing, or all there was.
    Drained,
    /// The buffer is full; there may be more.
    More,
    /// The service has closed its side.
    End,
    /// The connection broke.
    Broken(io::Error),
}

impl Connection {
    pub(crate) fn new(attempt: Attempt, stream: Stream, shown: bool) -> Self {
        Self {
            attempt,
            stream,
            backlog: Zeroizing::new(Vec::new()),
            written: 0,
            partial: Vec::new(),
            unflushed: false,
            shown,
        }
    }

    /// Bytes that wait for the socket.
    pub(crate) fn waiting(&self) -> usize {
        self.backlog.len() - self.written
    }

    /// Bytes that are not on their way to the service.
    pub(crate) fn pending(&self) -> usize {
        self.waiting().saturating_add(self.stream.held())
    }

    /// Whether [`write`](Self::write) has anything to do.
    pub(crate) fn has_unwritten(&self) -> bool {
        self.waiting() > 0 || self.unflushed
    }

    /// How many bytes of packets it takes at present, with `scratch` bytes gathered already.
    pub(crate) fn room(&self, scratch: usize) -> usize {
        // A single packet may be longer than the backlog; alone, it is taken.
        match self.waiting().saturating_add(scratch) {
            0 => usize::MAX,
            used => BACKLOG.saturating_sub(used),
        }
    }

    /// Reads until the socket has no more or `buffer` is full. Unless it says `More`, the task is woken for what comes.
    pub(crate) fn read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Read {
        while buffer.remaining() > 0 {
            let before = buffer.filled().len();
            match self.stream.poll_read(cx, buffer) {
                Poll::Pending => return Read::Drained,
                Poll::Ready(Ok(())) if buffer.filled().len() == before => return Read::End,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Read::Broken(error),
            }
        }
        Read::More
    }

    /// Writes the backlog and then `bytes`; keeps what the socket does not take. Returns whether any bytes moved.
    pub(crate) fn write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> io::Result<bool> {
        let mut moved = false;
        let mut bytes = bytes;
        if self.waiting() > 0 {
            grow(&mut self.backlog, bytes, true);
            bytes = &[];
            while let Some(rest) = self.backlog.get(self.written..).filter(|rest| !rest.is_empty()) {
                let Poll::Ready(result) = self.stream.poll_write(cx, rest) else { break };
                self.written += some(result?)?;
                moved = true;
                self.unflushed = true;
            }
            if self.waiting() == 0 {
                self.backlog = Zeroizing::default();
                self.written = 0;
            } else if self.written > BACKLOG {
                self.backlog.drain(..self.written);
                self.written = 0;
            }
        }
        while !bytes.is_empty() {
            let Poll::Ready(result) = self.stream.poll_write(cx, bytes) else {
                grow(&mut self.backlog, bytes, true);
                break;
            };
            bytes = bytes.get(some(result?)?..).unwrap_or(&[]);
            moved = true;
            self.unflushed = true;
        }
        if self.unflushed
            && let Poll::Ready(result) = self.stream.poll_flush(cx)
        {
            result?;
            self.unflushed = false;
        }
        Ok(moved | self.stream.has_moved())
    }

    /// What the end of the connection means.
    pub(crate) fn failure(&self, error: &io::Error) -> Failure {
        lost_by(error, self.shown)
    }

    /// Sends what waits and `rest`, and leaves in order, within a second.
    pub(crate) async fn finish(mut self, rest: Zeroizing<Vec<u8>>) {
        self.stream.leave();
        let goodbye = async {
            self.backlog.drain(..self.written);
            self.written = 0;
            grow(&mut self.backlog, &rest, true);
            poll_fn(|cx| {
                match self.write(cx, &[]) {
                    Ok(_) if self.waiting() > 0 || self.unflushed => return Poll::Pending,
                    Ok(_) => {}
                    Err(error) => return Poll::Ready(Err(error)),
                }
                self.stream.poll_shutdown(cx)
            })
            .await?;
            // A socket closed with bytes unread resets the connection, and DISCONNECT with it.
            poll_fn(|cx| {
                loop {
                    let mut space = [MaybeUninit::uninit(); 512];
                    let mut buffer = ReadBuf::uninit(&mut space);
                    ready!(self.stream.poll_read(cx, &mut buffer))?;
                    if buffer.filled().is_empty() {
                        return Poll::Ready(Ok::<_, io::Error>(()));
                    }
                }
            })
            .await
        };
        match timeout(GOODBYE, goodbye).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the connection broke while it was closed"),
            Err(_) => tracing::debug!("the service did not close the connection in time"),
        }
    }
}

/// What an error means that ends a connection on which TLS, if any, is up. `shown`: the device showed a certificate.
#[expect(clippy::wildcard_enum_match_arm, reason = "all others say no more than that the connection ended")]
pub(crate) fn lost_by(error: &io::Error, shown: bool) -> Failure {
    if let Some(inner) = error.get_ref() {
        if let Some(failure) = inner.downcast_ref::<Failure>() {
            return *failure;
        }
        if inner.is::<FrameError>() {
            return Failure::BadFrame;
        }
    }
    if let Some(failure) = tls::failure(error, shown) {
        return Failure::Tls(failure);
    }
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe => Failure::Reset,
        io::ErrorKind::TimedOut
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::NetworkDown => Failure::Network,
        _ if lacks_resources(error) => Failure::Local(LocalFailure::Resources),
        _ => Failure::Lost,
    }
}

/// A socket that takes nothing takes nothing any more.
fn some(written: usize) -> io::Result<usize> {
    if written == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(written) }
}
