//! MQTT over WebSockets: binary frames carry the byte stream, and packets may span frames (MQTT 3.1.1, section 6).

use std::fmt;
use std::io;
use std::task::{Context, Poll, ready};

use steadfast_core::transport::{CONTROL_FRAME, Frames, Opening, Upgrade};
use steadfast_core::{Failure, LocalFailure, Seed, ServiceKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadBuf};
use zeroize::Zeroizing;

use crate::connection::{self, Stream};
use crate::tls;

/// Most bytes of data in a frame to the service.
const DATA: usize = u16::MAX as usize;

/// The longest frame header: head, length and mask (RFC 6455, section 5.2).
const HEAD: usize = 8;

/// Bytes in frames.
pub(crate) struct WebSocket {
    stream: Stream,
    frames: Frames,
    /// The outgoing frame, already sent up to `sent`. It may contain the device's password.
    out: Zeroizing<Vec<u8>>,
    sent: usize,
    /// The service has closed.
    closed: bool,
    /// The close frame was queued.
    leaving: bool,
}

impl WebSocket {
    /// Upgrades `stream`. `shown`: the device presented a certificate.
    pub(crate) async fn upgrade(
        mut stream: Stream,
        host: &str,
        port: u16,
        role: ServiceKind,
        broker: bool,
        shown: bool,
    ) -> Result<Self, Failure> {
        let mut entropy = [0; 16];
        let drawn = tls::provider().secure_random.fill(&mut entropy);
        drawn.map_err(|_| Failure::Local(LocalFailure::Resources))?;
        let mut upgrade = Upgrade::new(Seed::new(entropy));
        let opening = Opening { role, broker, certificate: shown };
        let answered = ask(&mut stream, opening.request(host, port, &upgrade).to_string(), &mut upgrade).await;
        let refused = match answered {
            Ok(Ok(())) => {
                let (frames, out) = (upgrade.frames(), Zeroizing::default());
                return Ok(Self { stream, frames, out, sent: 0, closed: false, leaving: false });
            }
            Ok(Err(failure)) => failure,
            Err(error) => {
                tracing::debug!(host, %error, "the connection broke before the answer");
                connection::lost_by(&error, shown)
            }
        };
        tracing::warn!(host, failure = %refused, "no upgrade to WebSockets");
        Err(refused)
    }

    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while !self.closed {
            let before = buffer.filled().len();
            ready!(self.stream.poll_read(cx, buffer))?;
            let came = buffer.filled_mut().get_mut(before..).unwrap_or_default();
            if came.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let taken = self.frames.take(came);
            buffer.set_filled(before + taken.map_or(0, |taken| taken.data));
            let taken = taken.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            if self.frames.owes_answer() {
                // The next write reports a failure.
                let _ = self.poll_flush(cx);
            }
            if taken.closed {
                self.closed = true;
                tracing::debug!(code = self.frames.close_code(), "the service closes the WebSocket");
            }
            if taken.data > 0 {
                return Poll::Ready(Ok(()));
            }
        }
        // No data follows (RFC 6455, section 5.5.1), and a service that keeps TCP open would hold up the link.
        Poll::Ready(Ok(()))
    }

    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.push(cx))?;
        let room = bytes.len().min(DATA) + HEAD;
        let taken = self.put(room, |frames, out| frames.put(bytes, out));
        // The rest of it goes with the next write or flush.
        if let Poll::Ready(Err(error)) = self.push(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(taken))
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.push(cx))?;
        self.stream.poll_flush(cx)
    }

    /// Sends a close frame. The service's own is read, and TCP is closed when the stream is dropped.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.leaving {
            ready!(self.push(cx))?;
            self.leaving = true;
            self.put(CONTROL_FRAME, |frames, out| (0, frames.put_close(out)));
        }
        self.poll_flush(cx)
    }

    /// Writes a frame of at most `room` bytes; returns how much data it contains.
    fn put(&mut self, room: usize, put: impl FnOnce(&mut Frames, &mut [u8]) -> (usize, usize)) -> usize {
        self.out = Zeroizing::new(vec![0; room]);
        self.sent = 0;
        let (taken, len) = put(&mut self.frames, &mut self.out);
        self.out.truncate(len);
        taken
    }

    /// Writes the frame that is on its way, and then the answer to a ping.
    fn push(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while let Some(rest) = self.out.get(self.sent..).filter(|rest| !rest.is_empty()) {
                match ready!(self.stream.poll_write(cx, rest))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    written => self.sent += written,
                }
            }
            // An idle connection holds no buffer.
            self.out = Zeroizing::default();
            self.sent = 0;
            if !self.frames.owes_answer() || self.leaving {
                return Poll::Ready(Ok(()));
            }
            self.put(CONTROL_FRAME, |frames, out| (0, frames.put_answer(out)));
        }
    }
}

/// Sends the request and reads exactly the answer: frames follow it.
async fn ask(stream: &mut Stream, request: String, upgrade: &mut Upgrade) -> io::Result<Result<(), Failure>> {
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    loop {
        match upgrade.take(stream.read_u8().await?) {
            Ok(false) => {}
            Ok(true) => return Ok(Ok(())),
            Err(failure) => return Ok(Err(failure)),
        }
    }
}

impl fmt::Debug for WebSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stream, closed, .. } = self;
        f.debug_struct("WebSocket").field("stream", stream).field("closed", closed).finish_non_exhaustive()
    }
}
