//! The asynchronous device, for embassy and other executors without threads.

use core::fmt;
use core::future::{Future, poll_fn};
use core::pin::{Pin, pin};
use core::task::Poll as Ready;
use core::time::Duration;

use embedded_io_async::{Read, Write};
use steadfast_core::iothub::operator_commands::OperatorCommands;
use steadfast_core::{
    Assignment, BackoffSnapshot, CallId, ConfigError, Failure, HubLink, HubProfile, Instant, Link, MessageId, Outbox,
    Profile, PublishError, ReportError, ReportId, RespondError, Seed,
};

use crate::board::{Board, OwnedDial};
use crate::commands::{FLUSH, STEPS, Turn, commands, service_commands};
use crate::engine::{Ack, Buffers, Engine, Poll, ServiceBuffers, SetupError, Step};
use crate::services::{AnyLink, Place, WithServices};

/// Opens connections.
///
/// A closure that returns an asynchronous block is a connector:
///
/// ```
/// use core::pin::pin;
/// use steadfast_core::{Failure, Seed};
/// use steadfast_esp32::OwnedDial;
/// use steadfast_esp32::nonblocking::{Connect, Dialler};
/// # #[derive(Clone, Copy)]
/// # struct Network;
/// # impl Network {
/// #     async fn connect(self, _: &str, _: u16) -> Result<Socket, Failure> { Err(Failure::Network) }
/// # }
/// # struct Socket;
/// # impl embedded_io::ErrorType for Socket { type Error = embedded_io::ErrorKind; }
/// # impl embedded_io_async::Read for Socket {
/// #     async fn read(&mut self, _: &mut [u8]) -> Result<usize, Self::Error> { Ok(0) }
/// # }
/// # impl embedded_io_async::Write for Socket {
/// #     async fn write(&mut self, _: &[u8]) -> Result<usize, Self::Error> { Ok(0) }
/// #     async fn flush(&mut self) -> Result<(), Self::Error> { Ok(()) }
/// # }
/// # let network = Network;
///
/// let connector = move |dial: &OwnedDial| {
///     let dial = dial.clone();
///     async move { network.connect(dial.get().host, dial.get().port).await }
/// };
/// // Room for the connection attempt in progress, in the frame of the task.
/// let room = pin!(None);
/// let dialler = Dialler::new(connector, room);
/// # fn is<C: Connect>(_: Dialler<'_, C>) {}
/// # is(dialler);
/// ```
pub trait Connect {
    /// An open connection. Dropping it closes it.
    ///
    /// Its `read` and `write` must have no effect when they are dropped unfinished, as those of embassy-net's
    /// `TcpSocket`: a wait ends that way.
    type Stream: Read + Write;

    /// A connection attempt in progress. Its failure should be as exact as possible, since it decides the delay and the
    /// next service. It stays in the [`Dialler`] across calls of [`Device::poll`], and is dropped unfinished only when
    /// the link times out.
    type Dialling: Future<Output = Result<Self::Stream, Failure>>;

    /// Starts a connection attempt: resolves the name again, connects, and completes TLS with the certificate verified.
    ///
    /// # Errors
    /// Why the attempt cannot start, such as [`Failure::Network`] without Wi-Fi.
    fn connect(&mut self, dial: &OwnedDial) -> Result<Self::Dialling, Failure>;
}

impl<F, W, S> Connect for F
where
    F: FnMut(&OwnedDial) -> W,
    W: Future<Output = Result<S, Failure>>,
    S: Read + Write,
{
    type Stream = S;
    type Dialling = W;

    fn connect(&mut self, dial: &OwnedDial) -> Result<W, Failure> {
        Ok(self(dial))
    }
}

/// A connector, and room for the connection attempt in progress.
pub struct Dialler<'b, C: Connect> {
    connector: C,
    room: Pin<&'b mut Option<C::Dialling>>,
}

impl<'b, C: Connect> Dialler<'b, C> {
    /// Dials with `connector`, in `room`: `pin!(None)` in the frame of the task, or a static variable. What is in it is
    /// dropped.
    pub fn new(connector: C, mut room: Pin<&'b mut Option<C::Dialling>>) -> Self {
        room.set(None);
        Self { connector, room }
    }
}

impl<C: Connect + fmt::Debug> fmt::Debug for Dialler<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialler").field("connector", &self.connector).field("dialling", &self.room.is_some()).finish()
    }
}

/// Waits.
#[expect(async_fn_in_trait, reason = "executors of microcontrollers have one thread: no Send bound is wanted")]
pub trait Timer {
    /// Returns when the clock of the [`Board`] shows `at` or more.
    async fn wait_until(&mut self, at: Instant);
}

/// An asynchronous device.
///
/// [`poll`](Self::poll) may be dropped unfinished at any point, such as by a `select` that another task wins each time:
/// nothing is lost, and a connect, write or close continues with the next call.
#[derive(Debug)]
pub struct Device<'b, B, C: Connect, T, O, P, L = Link<O, P>> {
    engine: Engine<'b, O, P, L>,
    board: B,
    dialler: Dialler<'b, C>,
    timer: T,
    stream: Option<C::Stream>,
    /// Written bytes are not flushed.
    unflushed: bool,
    /// The stream is to be closed, at this time at the latest.
    closing: Option<Instant>,
}

impl<'b, B: Board, C: Connect, T: Timer, O: Outbox, P: Profile<Error = ConfigError>> Device<'b, B, C, T, O, P> {
    /// Makes a device. The seed must differ from device to device: take it from the chip's random number generator.
    ///
    /// # Errors
    /// [`SetupError`] if configuration or buffers are invalid; nothing has been sent.
    pub fn new(
        board: B,
        dialler: Dialler<'b, C>,
        timer: T,
        profile: P,
        outbox: O,
        seed: Seed,
        buffers: Buffers<'b>,
    ) -> Result<Self, SetupError> {
        Engine::<O, P, Link<O, P>>::check(&profile, &buffers)?;
        let now = board.now();
        let engine = Engine::of_checked(profile, outbox, seed, buffers, now);
        Ok(Self { engine, board, dialler, timer, stream: None, unflushed: false, closing: None })
    }
}

impl<'b, B: Board, C: Connect, T: Timer, O: Outbox, P: HubProfile> Device<'b, B, C, T, O, P> {
    /// Adds the services of a hub: twin, direct methods, cloud-to-device messages, inputs of modules, as selected by
    /// [`Config::subscriptions`](steadfast_core::Config::subscriptions). Call it before [`start`](Self::start).
    #[must_use]
    pub fn with_services(self, memory: ServiceBuffers<'b>) -> Device<'b, B, C, T, O, P, WithServices<'b, O, P>> {
        let Self { engine, board, dialler, timer, stream, unflushed, closing } = self;
        let ServiceBuffers { reports, answers } = memory;
        let engine = engine.wrap(|link| HubLink::new(link, reports, answers));
        Device { engine, board, dialler, timer, stream, unflushed, closing }
    }
}

impl<'b, B: Board, C: Connect, T: Timer, O: Outbox, P: HubProfile> Device<'b, B, C, T, O, P, WithServices<'b, O, P>> {
    service_commands!();
}

impl<B: Board, C: Connect, T: Timer, O: Outbox, P: Profile, L: AnyLink<O, P>> Device<'_, B, C, T, O, P, L> {
    /// Returns the bytes of RAM that a device with buffers of `rx` and `tx` bytes takes, its outbox, board, connector
    /// and stream included; what the last three point to comes on top, the room of the dialler, and the future of
    /// [`poll`](Self::poll).
    #[must_use]
    pub const fn ram(rx: usize, tx: usize) -> usize {
        size_of::<Self>() + rx + tx
    }

    commands!();

    /// Returns the connector, to change it.
    pub const fn connector_mut(&mut self) -> &mut C {
        &mut self.dialler.connector
    }

    /// Does all due work, and waits for at most `timeout`.
    pub async fn poll(&mut self, timeout: Duration) -> Poll<'_> {
        match self.turn(timeout).await {
            Turn::Idle => Poll::Idle,
            Turn::Event(event) => Poll::Event(event),
            Turn::Received(found) => self.engine.show(&found),
        }
    }

    async fn turn(&mut self, timeout: Duration) -> Turn<L::Received<Place, Place>> {
        self.set_clock();
        let until = self.board.now().after(timeout);
        let mut looked = false;
        for _ in 0..STEPS {
            // It may be that an earlier call was dropped in it.
            if let Some(until) = self.closing {
                self.close(until).await;
            }
            match self.engine.step(&mut self.board) {
                Step::Event(event) => return Turn::Event(event),
                Step::Received(found) => return Turn::Received(found),
                Step::Connect => self.connect(),
                Step::Close { flush } => {
                    let now = self.board.now();
                    self.closing = Some(if flush { now.after(FLUSH) } else { now });
                }
                Step::Wait(deadline) => {
                    let now = self.board.now();
                    if looked && now >= until {
                        return Turn::Idle;
                    }
                    looked = true;
                    let until = deadline.map_or(until, |deadline| deadline.min(until));
                    if self.engine.dial().is_some() { self.dial(until).await } else { self.transfer(until).await }
                }
            }
        }
        Turn::Idle
    }

    fn connect(&mut self) {
        self.stream = None;
        self.unflushed = false;
        let Some(dial) = self.engine.dial() else { return };
        match self.dialler.connector.connect(dial) {
            Ok(dialling) => self.dialler.room.set(Some(dialling)),
            Err(failure) => self.engine.failed(failure, self.board.now()),
        }
    }

    /// Continues the connection attempt until `until`; the link has its own timeout.
    async fn dial(&mut self, until: Instant) {
        let Some(dialling) = self.dialler.room.as_mut().as_pin_mut() else { return };
        let Some(result) = race(dialling, self.timer.wait_until(until)).await else { return };
        self.dialler.room.set(None);
        let now = self.board.now();
        match result {
            Ok(stream) => {
                self.stream = Some(stream);
                self.engine.opened(now);
            }
            Err(failure) => self.engine.failed(failure, now),
        }
    }

    /// Sends pending bytes until `until`, and closes.
    async fn close(&mut self, until: Instant) {
        while self.board.now() < until && self.write(until).await {}
        self.closing = None;
        self.dialler.room.set(None);
        self.stream = None;
        self.unflushed = false;
        self.engine.closed();
    }

    /// Writes pending bytes, then reads until `until`.
    async fn transfer(&mut self, until: Instant) {
        while self.write(until).await {}
        if self.unflushed {
            // Time ran out with bytes still waiting.
            return;
        }
        let Some(stream) = &mut self.stream else {
            self.timer.wait_until(until).await;
            return;
        };
        if self.engine.is_choked() {
            self.lost();
            return;
        }
        match race(stream.read(self.engine.free()), self.timer.wait_until(until)).await {
            Some(Ok(0) | Err(_)) => self.lost(),
            Some(Ok(len)) => self.engine.got(len),
            None => {}
        }
    }

    /// Writes once; returns whether to call it again: not when nothing waits, time is up or the stream is gone.
    async fn write(&mut self, until: Instant) -> bool {
        let Some(stream) = &mut self.stream else {
            self.unflushed = false;
            return false;
        };
        let bytes = self.engine.unsent();
        if bytes.is_empty() {
            if self.unflushed {
                match race(stream.flush(), self.timer.wait_until(until)).await {
                    Some(Ok(())) => self.unflushed = false,
                    Some(Err(_)) => self.lost(),
                    None => {}
                }
            }
            return false;
        }
        self.unflushed = true;
        match race(stream.write(bytes), self.timer.wait_until(until)).await {
            Some(Ok(0) | Err(_)) => {
                self.lost();
                false
            }
            Some(Ok(len)) => {
                self.engine.wrote(len, self.board.now());
                true
            }
            None => false,
        }
    }

    fn lost(&mut self) {
        self.stream = None;
        self.unflushed = false;
        self.engine.failed(Failure::Lost, self.board.now());
    }
}

/// Returns what `work` returns, or `None` when `limit` ends first; looks after `work` first.
async fn race<R>(work: impl Future<Output = R>, limit: impl Future<Output = ()>) -> Option<R> {
    let (mut work, mut limit) = (pin!(work), pin!(limit));
    poll_fn(|context| {
        if let Ready::Ready(result) = work.as_mut().poll(context) {
            return Ready::Ready(Some(result));
        }
        limit.as_mut().poll(context).map(|()| None)
    })
    .await
}
