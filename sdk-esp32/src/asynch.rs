//! The asynchronous device, for embassy and other executors without threads.

use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::Poll as Ready;
use core::time::Duration;

use embedded_io_async::{Read, Write};
use steadfast_core::hub::orders::Orders;
use steadfast_core::{
    Assignment, CallId, ConfigError, Failure, HubLink, HubProfile, Instant, Link, Memory, MessageId, Outbox, Profile,
    PublishError, ReportError, ReportId, RespondError, Seed,
};

use crate::any_link::{AnyLink, Place, WithServices};
use crate::board::{Board, Dial};
use crate::commands::{FLUSH, STEPS, Turn, commands, service_commands};
use crate::engine::{Ack, Buffers, Engine, Poll, ServiceBuffers, SetupError, Step};

/// Dials.
#[expect(async_fn_in_trait, reason = "executors of microcontrollers have one thread: no Send bound is wanted")]
pub trait Connect {
    /// An open connection. Dropping it closes it.
    ///
    /// Its `read` and `write` must have no effect when they are dropped unfinished, as those of embassy-net's
    /// `TcpSocket`: a wait ends that way.
    type Stream: Read + Write;

    /// Resolves the name anew, connects, and completes TLS with the certificate verified. It is dropped unfinished when
    /// the link's patience ends.
    ///
    /// # Errors
    /// What failed, as exactly as it is known: it decides how long the device waits and whom it asks next.
    async fn connect(&mut self, dial: &Dial<'_>) -> Result<Self::Stream, Failure>;
}

/// Waits.
#[expect(async_fn_in_trait, reason = "executors of microcontrollers have one thread: no Send bound is wanted")]
pub trait Timer {
    /// Returns when the clock of the [`Board`] shows `at` or more.
    async fn wait_until(&mut self, at: Instant);
}

/// A device whose waiting lets other tasks run.
///
/// [`poll`](Self::poll) may be dropped unfinished at any point: nothing is lost, and a dial begins anew.
#[derive(Debug)]
pub struct Device<'b, B, C: Connect, T, O, P, L = Link<O, P>> {
    engine: Engine<'b, O, P, L>,
    board: B,
    connector: C,
    timer: T,
    stream: Option<C::Stream>,
    /// What was written is not flushed.
    unflushed: bool,
}

impl<'b, B: Board, C: Connect, T: Timer, O: Outbox, P: Profile<Error = ConfigError>> Device<'b, B, C, T, O, P> {
    /// Sets a device up. The seed must differ from device to device: take it from the chip's random number generator.
    ///
    /// # Errors
    /// [`SetupError`] when configuration and buffers cannot work; nothing was sent then.
    pub fn new(
        board: B,
        connector: C,
        timer: T,
        profile: P,
        outbox: O,
        seed: Seed,
        buffers: Buffers<'b>,
    ) -> Result<Self, SetupError> {
        let engine = Engine::new(profile, outbox, seed, buffers, board.now())?;
        Ok(Self { engine, board, connector, timer, stream: None, unflushed: false })
    }
}

impl<'b, B: Board, C: Connect, T: Timer, O: Outbox, P: HubProfile> Device<'b, B, C, T, O, P> {
    /// Adds the services of a hub: twin, direct methods, cloud-to-device messages, inputs of modules, as far as
    /// [`Config::subscriptions`](steadfast_core::Config::subscriptions) asks for them. To be called before
    /// [`start`](Self::start).
    #[must_use]
    pub fn with_services(self, memory: ServiceBuffers<'b>) -> Device<'b, B, C, T, O, P, WithServices<'b, O, P>> {
        let Self { engine, board, connector, timer, stream, unflushed } = self;
        let ServiceBuffers { reports, answers } = memory;
        let engine = engine.wrap(|link| HubLink::new(link, reports, answers));
        Device { engine, board, connector, timer, stream, unflushed }
    }
}

impl<'b, B: Board, C: Connect, T: Timer, O: Outbox, P: HubProfile> Device<'b, B, C, T, O, P, WithServices<'b, O, P>> {
    service_commands!();
}

impl<B: Board, C: Connect, T: Timer, O: Outbox, P: Profile, L: AnyLink<O, P>> Device<'_, B, C, T, O, P, L> {
    /// Returns the bytes of RAM that a device with buffers of `rx` and `tx` bytes takes, its outbox, board, connector
    /// and stream included; what the last three point to comes on top, and the future of [`poll`](Self::poll).
    #[must_use]
    pub const fn ram(rx: usize, tx: usize) -> usize {
        size_of::<Self>() + rx + tx
    }

    commands!();

    /// Does what is due, and waits for something to happen for `timeout` at most, longer only for a dial.
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
            // A dial that an earlier call was dropped in.
            if self.engine.dial(self.board.now()).is_some() {
                self.connect().await;
            }
            match self.engine.step(&mut self.board) {
                Step::Event(event) => return Turn::Event(event),
                Step::Received(found) => return Turn::Received(found),
                Step::Connect => self.connect().await,
                Step::Close { flush } => self.close(flush).await,
                Step::Wait(deadline) => {
                    let now = self.board.now();
                    if looked && now >= until {
                        return Turn::Idle;
                    }
                    looked = true;
                    self.transfer(deadline.map_or(until, |deadline| deadline.min(until))).await;
                }
            }
        }
        Turn::Idle
    }

    async fn connect(&mut self) {
        self.stream = None;
        self.unflushed = false;
        let now = self.board.now();
        let Some(dial) = self.engine.dial(now) else { return };
        let until = now.after(dial.limit);
        match race(self.connector.connect(&dial), self.timer.wait_until(until)).await {
            Some(Ok(stream)) => {
                self.stream = Some(stream);
                self.engine.opened(self.board.now());
            }
            Some(Err(failure)) => self.engine.failed(failure, self.board.now()),
            // The link's own deadline tells which failure it is; one moment later it has passed for sure.
            None => {
                let now = self.board.now().max(until);
                self.engine.link.handle_timeout(now);
                self.engine.closed();
            }
        }
    }

    async fn close(&mut self, flush: bool) {
        if flush {
            let until = self.board.now().after(FLUSH);
            while self.board.now() < until && self.write(until).await {}
        }
        self.stream = None;
        self.engine.closed();
    }

    /// Writes what waits, then reads what comes until `until`.
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
