//! The byte stream of one connection: buffers, limits, concurrent reading and writing.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use rumqttc::mqttbytes::v4::Packet;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::session::Out;
use crate::strict::{self, MAX_PACKET};

const READ: usize = 64 * 1024;
/// Number of unsent bytes at which reading pauses.
const UNSENT: usize = 1024 * 1024;

/// A stream to a client, with or without TLS.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Unpin + Send {
    /// Returns the socket below.
    fn socket(&mut self) -> &mut TcpStream;

    /// Makes closing the socket send a TCP reset.
    fn reset_on_close(&mut self) {
        // If the option cannot be set, the socket closes normally.
        let _ = self.socket().set_zero_linger();
    }
}

impl Transport for TcpStream {
    fn socket(&mut self) -> &mut TcpStream {
        self
    }
}

impl Transport for TlsStream<TcpStream> {
    fn socket(&mut self) -> &mut TcpStream {
        self.get_mut().0
    }
}

/// The result of one step of input and output.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Bytes were received.
    Read,
    /// Bytes were sent.
    Wrote,
    /// The client closed.
    Ended,
    /// The byte limit of a fault is reached.
    LimitReached,
}

/// A stream with its buffers.
#[derive(Debug)]
pub(crate) struct Wire<S> {
    pub(crate) stream: S,
    pub(crate) out: Out,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) receive_limit: Option<u64>,
    pub(crate) send_limit: Option<u64>,
    input: BytesMut,
    unflushed: bool,
}

impl<S: Transport> Wire<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream,
            out: Out::default(),
            received: 0,
            sent: 0,
            receive_limit: None,
            send_limit: None,
            input: BytesMut::new(),
            unflushed: false,
        }
    }

    /// Takes the next complete packet from the input buffer.
    pub(crate) fn next_packet(&mut self) -> Result<Option<Packet>, String> {
        let Some(length) = strict::frame_length(&self.input)? else { return Ok(None) };
        if self.input.len() < length {
            return Ok(None);
        }
        let frame = self.input.split_to(length);
        let packet = Packet::read(&mut frame.clone(), MAX_PACKET).map_err(|error| error.to_string())?;
        strict::check(&frame, &packet)?;
        Ok(Some(packet))
    }

    /// Discards the input buffer.
    pub(crate) fn discard_input(&mut self) {
        self.input.clear();
    }

    /// Discards the output buffer.
    pub(crate) fn discard_output(&mut self) {
        self.out.bytes.clear();
    }

    /// Sends queued bytes and, if `reads`, receives bytes; whichever is possible first.
    pub(crate) async fn step(&mut self, reads: bool) -> io::Result<Step> {
        poll_fn(|context| self.poll_step(context, reads)).await
    }

    fn poll_step(&mut self, context: &mut Context<'_>, reads: bool) -> Poll<io::Result<Step>> {
        if self.out.bytes.is_empty() {
            if self.unflushed && Pin::new(&mut self.stream).poll_flush(context)?.is_ready() {
                self.unflushed = false;
            }
        } else {
            let left = self.send_limit.map_or(u64::MAX, |limit| limit.saturating_sub(self.sent));
            let allowed = usize::try_from(left).unwrap_or(usize::MAX).min(self.out.bytes.len());
            if allowed == 0 {
                return Poll::Ready(Ok(Step::LimitReached));
            }
            if let Poll::Ready(count) = Pin::new(&mut self.stream).poll_write(context, &self.out.bytes[..allowed])? {
                if count == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.out.bytes.advance(count);
                self.sent += count as u64;
                self.unflushed = true;
                return Poll::Ready(Ok(Step::Wrote));
            }
        }
        if reads && self.out.bytes.len() < UNSENT {
            self.input.reserve(READ);
            let read = pin!(self.stream.read_buf(&mut self.input));
            if let Poll::Ready(count) = read.poll(context)? {
                return Poll::Ready(Ok(self.took(count)));
            }
        }
        Poll::Pending
    }

    fn took(&mut self, count: usize) -> Step {
        self.received += count as u64;
        if count == 0 {
            return Step::Ended;
        }
        if let Some(limit) = self.receive_limit
            && self.received >= limit
        {
            let excess = usize::try_from(self.received - limit).unwrap_or(usize::MAX);
            self.input.truncate(self.input.len().saturating_sub(excess));
            return Step::LimitReached;
        }
        Step::Read
    }

    /// Sends queued bytes, for at most two seconds and within the limit of a fault.
    pub(crate) async fn flush(&mut self) {
        let left = self.send_limit.map_or(u64::MAX, |limit| limit.saturating_sub(self.sent));
        let allowed = usize::try_from(left).unwrap_or(usize::MAX).min(self.out.bytes.len());
        let bytes = self.out.bytes.split_to(allowed);
        self.sent += allowed as u64;
        let write = async {
            self.stream.write_all(&bytes).await?;
            self.stream.flush().await
        };
        // The connection ends after this, so an error loses nothing but these bytes.
        let _ = tokio::time::timeout(Duration::from_secs(2), write).await;
    }

    /// Shuts the transport down, and waits briefly for the client to close first.
    pub(crate) async fn shut_down(&mut self) {
        let goodbye = async {
            self.stream.shutdown().await?;
            // Below TLS, which has ended: later bytes are ignored, whatever they contain.
            let socket = self.stream.socket();
            loop {
                self.input.clear();
                self.input.reserve(READ);
                if socket.read_buf(&mut self.input).await? == 0 {
                    return io::Result::Ok(());
                }
            }
        };
        let _ = tokio::time::timeout(Duration::from_millis(200), goodbye).await;
    }

    /// Reads and discards bytes until the client closes.
    pub(crate) async fn discard_until_closed(&mut self) {
        loop {
            self.discard_input();
            self.input.reserve(READ);
            match self.stream.read_buf(&mut self.input).await {
                Ok(count) if count > 0 => self.received += count as u64,
                Ok(_) | Err(_) => return,
            }
        }
    }
}
