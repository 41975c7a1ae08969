//! The blocking device: one loop, one thread.

use core::mem::MaybeUninit;
use core::time::Duration;

use embedded_io::{Error as _, ErrorKind, Read as _, Write as _};
use steadfast_core::iothub::operator_commands::OperatorCommands;
use steadfast_core::{
    Assignment, BackoffSnapshot, CallId, ConfigError, Failure, HubLink, HubProfile, Instant, Link, MessageId, Outbox,
    Profile, PublishError, ReportError, ReportId, RespondError, Seed,
};

use crate::board::{Board, Connect, Stream};
use crate::commands::{FLUSH, STEPS, Turn, commands, service_commands};
use crate::engine::{Ack, Buffers, Engine, Poll, ServiceBuffers, SetupError, Step};
use crate::services::{AnyLink, Place, WithServices};

/// Pause after a stream accepted nothing; doubled each further time, up to the maximum.
const WRITE_PAUSE: Duration = Duration::from_millis(10);
const WRITE_PAUSE_LONGEST: Duration = Duration::from_millis(320);

/// A device with a blocking stream, for a main loop without threads or tasks.
///
/// All I/O happens within [`poll`](Self::poll): connecting, writing, reading, waiting. Other methods take effect in the
/// next `poll`.
#[derive(Debug)]
pub struct Device<'b, B, C: Connect, O, P, L = Link<O, P>> {
    engine: Engine<'b, O, P, L>,
    board: B,
    connector: C,
    stream: Option<C::Stream>,
    /// Written bytes are not flushed.
    unflushed: bool,
    write_pause: Duration,
}

impl<'b, B: Board, C: Connect, O: Outbox, P: Profile<Error = ConfigError>> Device<'b, B, C, O, P> {
    /// Makes a device. The seed must differ from device to device: take it from the chip's random number generator.
    ///
    /// # Errors
    /// [`SetupError`] if configuration or buffers are invalid; nothing has been sent.
    pub fn new(
        board: B,
        connector: C,
        profile: P,
        outbox: O,
        seed: Seed,
        buffers: Buffers<'b>,
    ) -> Result<Self, SetupError> {
        Engine::<O, P, Link<O, P>>::check(&profile, &buffers)?;
        let now = board.now();
        let engine = Engine::of_checked(profile, outbox, seed, buffers, now);
        Ok(Self { engine, board, connector, stream: None, unflushed: false, write_pause: WRITE_PAUSE })
    }

    /// Like [`new`](Self::new), but constructs the device in `place`, such as a static variable, without moving it over
    /// the stack.
    ///
    /// # Errors
    /// As [`new`](Self::new); `place` is unchanged.
    #[inline(always)]
    pub fn init<'p>(
        place: &'p mut MaybeUninit<Self>,
        board: B,
        connector: C,
        profile: P,
        outbox: O,
        seed: Seed,
        buffers: Buffers<'b>,
    ) -> Result<&'p mut Self, SetupError> {
        Engine::<O, P, Link<O, P>>::check(&profile, &buffers)?;
        let now = board.now();
        let engine = Engine::of_checked(profile, outbox, seed, buffers, now);
        Ok(place.write(Self { engine, board, connector, stream: None, unflushed: false, write_pause: WRITE_PAUSE }))
    }
}

impl<'b, B: Board, C: Connect, O: Outbox, P: HubProfile> Device<'b, B, C, O, P> {
    /// Adds the services of a hub: twin, direct methods, cloud-to-device messages, inputs of modules, as selected by
    /// [`Config::subscriptions`](steadfast_core::Config::subscriptions). Call it before [`start`](Self::start).
    #[must_use]
    pub fn with_services(self, memory: ServiceBuffers<'b>) -> Device<'b, B, C, O, P, WithServices<'b, O, P>> {
        let Self { engine, board, connector, stream, unflushed, write_pause } = self;
        let ServiceBuffers { reports, answers } = memory;
        let engine = engine.wrap(|link| HubLink::new(link, reports, answers));
        Device { engine, board, connector, stream, unflushed, write_pause }
    }
}

impl<'b, B: Board, C: Connect, O: Outbox, P: HubProfile> Device<'b, B, C, O, P, WithServices<'b, O, P>> {
    service_commands!();
}

impl<B: Board, C: Connect, O: Outbox, P: Profile, L: AnyLink<O, P>> Device<'_, B, C, O, P, L> {
    /// Returns the RAM of a device with buffers of `rx` and `tx` bytes, including its outbox, board, connector and
    /// stream, but not the data that the last three point to.
    #[must_use]
    pub const fn ram(rx: usize, tx: usize) -> usize {
        size_of::<Self>() + rx + tx
    }

    commands!();

    /// Returns the connector, to change it.
    pub const fn connector_mut(&mut self) -> &mut C {
        &mut self.connector
    }

    /// Does all due work, and waits for at most `timeout`.
    ///
    /// Connecting may take longer, up to the configuration's timeouts, since a blocking connector cannot be
    /// interrupted. With a `timeout` of zero it polls once and returns.
    pub fn poll(&mut self, timeout: Duration) -> Poll<'_> {
        match self.turn(timeout) {
            Turn::Idle => Poll::Idle,
            Turn::Event(event) => Poll::Event(event),
            Turn::Received(found) => self.engine.show(&found),
        }
    }

    fn turn(&mut self, timeout: Duration) -> Turn<L::Received<Place, Place>> {
        self.set_clock();
        let until = self.board.now().after(timeout);
        let mut looked = false;
        for _ in 0..STEPS {
            match self.engine.step(&mut self.board) {
                Step::Event(event) => return Turn::Event(event),
                Step::Received(found) => return Turn::Received(found),
                Step::Connect => self.connect(),
                Step::Close { flush } => self.close(flush),
                Step::Wait(deadline) => {
                    let now = self.board.now();
                    if looked && now >= until {
                        return Turn::Idle;
                    }
                    looked = true;
                    let wake = deadline.map_or(until, |deadline| deadline.min(until));
                    self.transfer(wake.since(now));
                }
            }
        }
        Turn::Idle
    }

    fn connect(&mut self) {
        self.stream = None;
        self.unflushed = false;
        let Some(dial) = self.engine.dial() else { return };
        match self.connector.connect(&dial.get()) {
            Ok(stream) => {
                self.stream = Some(stream);
                self.engine.opened(self.board.now());
            }
            Err(failure) => self.engine.failed(failure, self.board.now()),
        }
    }

    fn close(&mut self, flush: bool) {
        if flush {
            let until = self.board.now().after(FLUSH);
            for _ in 0..STEPS {
                let sent = self.engine.unsent().is_empty() && !self.unflushed;
                if sent || self.stream.is_none() || self.board.now() >= until {
                    break;
                }
                if !self.write() {
                    self.board.sleep(self.write_pause);
                }
            }
        }
        self.stream = None;
        self.engine.closed();
    }

    /// Writes pending bytes, then reads within `limit`.
    fn transfer(&mut self, limit: Duration) {
        let before = self.engine.unsent().len();
        let limit = if self.write() {
            self.write_pause = WRITE_PAUSE;
            limit
        } else {
            let moved = self.engine.unsent().len() < before;
            self.write_pause = if moved { WRITE_PAUSE } else { (self.write_pause * 2).min(WRITE_PAUSE_LONGEST) };
            limit.min(self.write_pause)
        };
        let now = self.board.now();
        let Some(stream) = &mut self.stream else {
            self.board.sleep(limit);
            return;
        };
        if self.engine.is_choked() {
            self.lost(now);
            return;
        }
        match stream.wait_readable(limit) {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) if is_not_now(error.kind()) => return,
            Err(_) => {
                let now = self.board.now();
                self.lost(now);
                return;
            }
        }
        match stream.read(self.engine.free()) {
            Ok(0) => {
                let now = self.board.now();
                self.lost(now);
            }
            Ok(len) => self.engine.got(len),
            Err(error) if is_not_now(error.kind()) => {}
            Err(_) => {
                let now = self.board.now();
                self.lost(now);
            }
        }
    }

    /// Writes as much as the stream accepts immediately; returns whether nothing is left.
    fn write(&mut self) -> bool {
        let now = self.board.now();
        let Some(stream) = &mut self.stream else { return true };
        let bytes = self.engine.unsent();
        if bytes.is_empty() {
            if self.unflushed {
                match stream.flush() {
                    Ok(()) => self.unflushed = false,
                    Err(error) if is_not_now(error.kind()) => return false,
                    Err(_) => self.lost(now),
                }
            }
            return true;
        }
        match stream.write(bytes) {
            Ok(0) => self.lost(now),
            Ok(len) => {
                self.engine.wrote(len, self.board.now());
                self.unflushed = true;
                if self.engine.unsent().is_empty() {
                    return self.write();
                }
                return false;
            }
            Err(error) if is_not_now(error.kind()) => return false,
            Err(_) => self.lost(now),
        }
        true
    }

    fn lost(&mut self, now: Instant) {
        self.stream = None;
        self.engine.failed(Failure::Lost, now);
    }
}

fn is_not_now(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::TimedOut | ErrorKind::Interrupted)
}
