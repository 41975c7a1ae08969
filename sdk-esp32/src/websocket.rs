//! MQTT over WebSockets on port 443, for networks that allow nothing else.
//!
//! A connector ([`Connect`](crate::Connect), [`nonblocking::Connect`](crate::nonblocking::Connect)) connects and
//! completes TLS as usual, and then opens WebSockets here: [`open`] and [`open_async`] return a stream like the one
//! below. Set [`Config::port`](steadfast_core::Config::port) to [`transport::PORT`](steadfast_core::transport::PORT).
//! Behind a [proxy](crate::proxy) the order is tunnel, TLS, WebSockets.
//!
//! ```
//! use core::time::Duration;
//! use steadfast_core::{Failure, Instant, Seed};
//! use steadfast_esp32::websocket::{self, WebSocket};
//! use steadfast_esp32::{Connect, Dial, Stream};
//!
//! /// WebSockets over what `below` connects by TLS.
//! struct OverWebSockets<C> {
//!     below: C,
//!     now: fn() -> Instant,
//!     entropy: fn() -> [u8; 16],
//! }
//!
//! impl<C: Connect> Connect for OverWebSockets<C> {
//!     type Stream = WebSocket<C::Stream>;
//!
//!     fn connect(&mut self, dial: &Dial<'_>) -> Result<Self::Stream, Failure> {
//!         let deadline = (self.now)().after(dial.limit);
//!         let stream = self.below.connect(dial)?;
//!         let seed = Seed::new((self.entropy)());
//!         let limit = deadline.since((self.now)());
//!         websocket::open(stream, dial, websocket::opening(dial), seed, self.now, limit)
//!     }
//! }
//! ```

use core::fmt;
use core::ops::Range;
use core::time::Duration;

use embedded_io::{Error as _, ErrorKind};
use steadfast_core::transport::{CONTROL_FRAME, FrameError, Frames, Opening, Upgrade};
use steadfast_core::{Failure, Instant, LocalFailure, Seed};

use crate::board::{Dial, Stream};

/// Longest request, with the host name.
const REQUEST_MAX: usize = 512;

/// Longest wait for something to read while the stream has not taken all that was to be written.
const WRITE_PAUSE: Duration = Duration::from_millis(50);

/// Bytes in frames, over a stream below.
///
/// `N` is the size of the longest frame to the service, at least [`CONTROL_FRAME`]; a smaller one does not compile.
/// Sent bytes in it are overwritten. Dropping it closes the stream without a close frame, since MQTT has sent
/// DISCONNECT.
pub struct WebSocket<S, const N: usize = 512> {
    stream: S,
    frames: Frames,
    out: [u8; N],
    /// The part of `out` that the stream has not taken.
    unsent: Range<usize>,
    /// A write has failed. The service may have said why it goes away, and that is still to be read.
    broken: bool,
    /// The service has closed.
    closed: bool,
}

/// Returns the opening that IoT Hub and the Device Provisioning Service expect. For a broker set
/// [`broker`](Opening::broker).
#[must_use]
pub const fn opening(dial: &Dial<'_>) -> Opening {
    Opening { role: dial.role, broker: false, certificate: dial.client_certificate }
}

/// Opens WebSockets on a fresh connection to `dial.host`, secured by TLS, within `limit`.
///
/// `seed` must differ for each connection, from the chip's random number generator; `now` is the board's clock.
///
/// # Errors
/// The failure to return from the connector: [`Failure::UpgradeRefused`] for another answer, [`Failure::Lost`] if the
/// connection breaks, [`Failure::ConnectTimeout`] without a complete answer, [`LocalFailure::Buffer`] if the request is
/// longer than 512 bytes.
pub fn open<S: Stream, const N: usize>(
    mut stream: S,
    dial: &Dial<'_>,
    opening: Opening,
    seed: Seed,
    now: impl Fn() -> Instant,
    limit: Duration,
) -> Result<WebSocket<S, N>, Failure> {
    let deadline = now().after(limit);
    let mut upgrade = Upgrade::new(seed);
    let mut buffer = [0; REQUEST_MAX];
    let mut request = compose(dial, opening, &upgrade, &mut buffer)?;
    while !request.is_empty() {
        let left = deadline.since(now());
        if left.is_zero() {
            return Err(Failure::ConnectTimeout);
        }
        match stream.write(request) {
            Ok(0) => return Err(Failure::Lost),
            Ok(written) => request = request.get(written..).unwrap_or_default(),
            // The service says nothing yet: this is a pause.
            Err(error) if is_not_now(error.kind()) => {
                stream.wait_readable(left.min(WRITE_PAUSE)).map_err(|_| Failure::Lost)?;
            }
            Err(_) => return Err(Failure::Lost),
        }
    }
    stream.flush().map_err(|_| Failure::Lost)?;
    // Byte by byte: what comes behind the answer is of the frames.
    let mut byte = [0];
    loop {
        let left = deadline.since(now());
        if left.is_zero() {
            return Err(Failure::ConnectTimeout);
        }
        if !stream.wait_readable(left).map_err(|_| Failure::Lost)? {
            continue;
        }
        match stream.read(&mut byte) {
            Ok(0) => return Err(Failure::Lost),
            Ok(_) if upgrade.take(byte[0])? => return Ok(WebSocket::new(stream, upgrade)),
            Ok(_) => {}
            Err(error) if is_not_now(error.kind()) => {}
            Err(_) => return Err(Failure::Lost),
        }
    }
}

/// As [`open`], for asynchronous streams. The link bounds it in time, as it does the whole of the connector's work.
///
/// # Errors
/// As [`open`].
pub async fn open_async<S: embedded_io_async::Read + embedded_io_async::Write, const N: usize>(
    mut stream: S,
    dial: &Dial<'_>,
    opening: Opening,
    seed: Seed,
) -> Result<WebSocket<S, N>, Failure> {
    let mut upgrade = Upgrade::new(seed);
    let mut buffer = [0; REQUEST_MAX];
    let request = compose(dial, opening, &upgrade, &mut buffer)?;
    stream.write_all(request).await.map_err(|_| Failure::Lost)?;
    stream.flush().await.map_err(|_| Failure::Lost)?;
    let mut byte = [0];
    loop {
        if stream.read(&mut byte).await.map_err(|_| Failure::Lost)? == 0 {
            return Err(Failure::Lost);
        }
        if upgrade.take(byte[0])? {
            return Ok(WebSocket::new(stream, upgrade));
        }
    }
}

fn compose<'b>(
    dial: &Dial<'_>,
    opening: Opening,
    upgrade: &Upgrade,
    buffer: &'b mut [u8; REQUEST_MAX],
) -> Result<&'b [u8], Failure> {
    let request = opening.request(dial.host, dial.port, upgrade).to_str(buffer);
    request.map(str::as_bytes).ok_or(Failure::Local(LocalFailure::Buffer))
}

fn is_not_now(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::TimedOut | ErrorKind::Interrupted)
}

impl<S, const N: usize> WebSocket<S, N> {
    fn new(stream: S, upgrade: Upgrade) -> Self {
        const { assert!(N >= CONTROL_FRAME, "the answer to a ping has to fit") };
        Self { stream, frames: upgrade.frames(), out: [0; N], unsent: 0..0, broken: false, closed: false }
    }

    /// Puts what waits into frames, first the answer to a ping; returns how much of `data` went in, and nothing while the
    /// stream has not taken the frame before.
    fn fill(&mut self, data: &[u8]) -> usize {
        if !self.unsent.is_empty() {
            return 0;
        }
        let len = self.frames.put_answer(&mut self.out);
        if len > 0 {
            self.unsent = 0..len;
            return 0;
        }
        let (taken, len) = self.frames.put(data, &mut self.out);
        self.unsent = 0..len;
        taken
    }

    /// The stream took `len` bytes of what waits.
    fn sent(&mut self, len: usize) {
        let sent = self.unsent.start..self.unsent.start.saturating_add(len).min(self.unsent.end);
        self.unsent.start = sent.end;
        // The device's password goes through here.
        self.out.get_mut(sent).unwrap_or_default().fill(0);
    }

    /// Takes off the frames of `bytes`, and returns how many bytes of data are left in front.
    fn take<E>(&mut self, bytes: &mut [u8]) -> Result<usize, WebSocketError<E>> {
        let taken = self.frames.take(bytes).map_err(WebSocketError::Frame)?;
        self.closed = taken.closed;
        Ok(taken.data)
    }
}

impl<S: Stream, const N: usize> WebSocket<S, N> {
    /// Writes what waits, the answer to a ping included.
    fn push(&mut self) -> Result<(), WebSocketError<S::Error>> {
        loop {
            self.fill(&[]);
            if self.unsent.is_empty() {
                return Ok(());
            }
            let waiting = self.out.get(self.unsent.clone()).unwrap_or_default();
            match self.stream.write(waiting).map_err(WebSocketError::Stream)? {
                0 => return Err(WebSocketError::WriteZero),
                len => self.sent(len),
            }
        }
    }

    /// Writes of what waits as much as the stream takes at once. A failure is left to the next write or flush to tell.
    fn push_some(&mut self) {
        if !self.broken
            && let Err(error) = self.push()
        {
            self.broken = !is_not_now(error.kind());
        }
    }
}

impl<S: embedded_io::ErrorType, const N: usize> embedded_io::ErrorType for WebSocket<S, N> {
    type Error = WebSocketError<S::Error>;
}

impl<S: Stream, const N: usize> embedded_io::Read for WebSocket<S, N> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Self::Error> {
        if self.closed {
            return Ok(0);
        }
        let len = self.stream.read(buffer).map_err(WebSocketError::Stream)?;
        if len == 0 {
            return Ok(0);
        }
        let data = self.take(buffer.get_mut(..len).unwrap_or_default())?;
        self.push_some();
        if data == 0 && !self.closed { Err(WebSocketError::NoData) } else { Ok(data) }
    }
}

impl<S: Stream, const N: usize> embedded_io::Write for WebSocket<S, N> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Self::Error> {
        self.push()?;
        let taken = self.fill(bytes);
        self.push_some();
        Ok(taken)
    }

    fn flush(&mut self) -> Result<(), Self::Error> {
        self.push()?;
        self.stream.flush().map_err(WebSocketError::Stream)
    }
}

impl<S: Stream, const N: usize> Stream for WebSocket<S, N> {
    fn wait_readable(&mut self, limit: Duration) -> Result<bool, Self::Error> {
        if self.closed {
            return Ok(true);
        }
        self.push_some();
        let limit = if self.unsent.is_empty() || self.broken { limit } else { limit.min(WRITE_PAUSE) };
        self.stream.wait_readable(limit).map_err(WebSocketError::Stream)
    }
}

impl<S: embedded_io_async::Read + embedded_io_async::Write, const N: usize> WebSocket<S, N> {
    /// Writes what waits; when it is dropped unfinished it is known what the stream took.
    async fn push_async(&mut self) -> Result<(), WebSocketError<S::Error>> {
        loop {
            self.fill(&[]);
            if self.unsent.is_empty() {
                return Ok(());
            }
            let waiting = self.out.get(self.unsent.clone()).unwrap_or_default();
            match self.stream.write(waiting).await.map_err(WebSocketError::Stream)? {
                0 => return Err(WebSocketError::WriteZero),
                len => self.sent(len),
            }
        }
    }
}

impl<S: embedded_io_async::Read + embedded_io_async::Write, const N: usize> embedded_io_async::Read
    for WebSocket<S, N>
{
    async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Self::Error> {
        while !self.closed {
            // A failure is left to the next write or flush to tell.
            if !self.broken && (!self.unsent.is_empty() || self.frames.owes_answer()) {
                self.broken = self.push_async().await.is_err() || self.stream.flush().await.is_err();
            }
            let len = self.stream.read(buffer).await.map_err(WebSocketError::Stream)?;
            if len == 0 {
                return Ok(0);
            }
            let data = self.take(buffer.get_mut(..len).unwrap_or_default())?;
            if data > 0 {
                return Ok(data);
            }
        }
        Ok(0)
    }
}

impl<S: embedded_io_async::Read + embedded_io_async::Write, const N: usize> embedded_io_async::Write
    for WebSocket<S, N>
{
    /// Puts a part of `bytes` into a frame, which goes out with the next call: so a write that is dropped unfinished has
    /// had no effect, and one that ended is not waited for.
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, Self::Error> {
        self.push_async().await?;
        Ok(self.fill(bytes))
    }

    async fn flush(&mut self) -> Result<(), Self::Error> {
        self.push_async().await?;
        self.stream.flush().await.map_err(WebSocketError::Stream)
    }
}

impl<S: fmt::Debug, const N: usize> fmt::Debug for WebSocket<S, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stream, closed, .. } = self;
        f.debug_struct("WebSocket").field("stream", stream).field("closed", closed).finish_non_exhaustive()
    }
}

/// What ends a WebSocket, or says "not now".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WebSocketError<E> {
    /// The stream below failed, or says "not now".
    Stream(E),
    /// The stream below takes nothing.
    WriteZero,
    /// The service sent what is no frame.
    Frame(FrameError),
    /// Frames came without data, such as a ping: "not now" of a blocking read.
    NoData,
}

impl<E: embedded_io::Error> fmt::Display for WebSocketError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream(error) => fmt::Display::fmt(error, f),
            Self::WriteZero => f.write_str("the stream takes nothing"),
            Self::Frame(error) => fmt::Display::fmt(error, f),
            Self::NoData => f.write_str("no data has come yet"),
        }
    }
}

impl<E: embedded_io::Error> core::error::Error for WebSocketError<E> {}

impl<E: embedded_io::Error> embedded_io::Error for WebSocketError<E> {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Stream(error) => error.kind(),
            Self::WriteZero => ErrorKind::WriteZero,
            Self::Frame(_) => ErrorKind::InvalidData,
            Self::NoData => ErrorKind::Interrupted,
        }
    }
}

#[cfg(test)]
#[path = "websocket_tests.rs"]
mod tests;
