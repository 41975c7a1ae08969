//! Between a link and a stream: the bytes that wait, in the caller's buffers.
//!
//! Both forms of the device drive it. It does no I/O itself.

use core::fmt;
use core::marker::PhantomData;
use core::ops::Range;

use steadfast_core::iothub::property_bag::Encoded;
use steadfast_core::mqtt::PacketId;
use steadfast_core::{
    Action, Attempt, CallId, ConfigError, Failure, Input, Instant, Link, LocalFailure, Outbox, Output, Profile, Seed,
    Taken, TwinDocument, iothub,
};

use crate::board::{Board, OwnedDial};
use crate::services::{AnyLink, Place};

/// Largest size of CONNECT.
const CONNECT_BYTES: usize = 2048;

/// The memory a device works in; both buffers are the caller's.
///
/// CONNECT, with its password or token, passes through the send buffer, and is overwritten there when it has been
/// written or given up.
#[expect(clippy::exhaustive_structs, reason = "applications write it down")]
pub struct Buffers<'b> {
    /// Receive buffer: at least [`SessionConfig::max_inbound`](steadfast_core::SessionConfig::max_inbound).
    pub rx: &'b mut [u8],
    /// Send buffer: at least [`SessionConfig::max_outbound`](steadfast_core::SessionConfig::max_outbound) and 2,048
    /// bytes.
    pub tx: &'b mut [u8],
}

impl fmt::Debug for Buffers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffers").field("rx", &self.rx.len()).field("tx", &self.tx.len()).finish()
    }
}

/// The memory of a hub's services; both buffers are the caller's.
#[expect(clippy::exhaustive_structs, reason = "applications write it down")]
pub struct ServiceBuffers<'b> {
    /// Buffer for queued reported properties; merging temporarily needs as much again.
    pub reports: &'b mut [u8],
    /// Buffer for queued method responses.
    pub answers: &'b mut [u8],
}

impl fmt::Debug for ServiceBuffers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceBuffers")
            .field("reports", &self.reports.len())
            .field("answers", &self.answers.len())
            .finish()
    }
}

/// Why a device cannot be made; nothing has been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SetupError {
    /// The configuration cannot work.
    Config(ConfigError),
    /// The receive buffer is smaller than the configuration's largest inbound packet.
    RxTooSmall {
        /// Bytes it has.
        size: usize,
        /// Bytes it needs.
        needed: usize,
    },
    /// The send buffer is smaller than the configuration's largest outbound packet, or than a CONNECT.
    TxTooSmall {
        /// Bytes it has.
        size: usize,
        /// Bytes it needs.
        needed: usize,
    },
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::RxTooSmall { size, needed } => {
                write!(f, "receive buffer is {size} bytes; the configuration's max_inbound asks for {needed}")
            }
            Self::TxTooSmall { size, needed } => {
                write!(f, "send buffer is {size} bytes; CONNECT and the configuration's max_outbound ask for {needed}")
            }
        }
    }
}

impl core::error::Error for SetupError {}

impl From<ConfigError> for SetupError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

/// The result of `poll`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Poll<'a> {
    /// Something became true; of a device without services always [`iothub::Event::Link`].
    Event(iothub::Event),
    /// A message from the service.
    Message(Message<'a>),
    /// The JSON text that came with an assignment.
    ProvisioningPayload(&'a [u8]),
    /// The twin, to a device with services: requested, or after a missed patch.
    Twin(TwinDocument<&'a str>),
    /// A patch of desired properties, to a device with services: the one after the last delivered version.
    Desired {
        /// The version of the desired properties after it.
        version: u64,
        /// The change, a JSON object in which `null` deletes; [`steadfast_core::iothub::pnp::properties`] lists it.
        patch: &'a str,
    },
    /// A method call, to a device with services.
    Call {
        /// The handle for `respond`.
        call: CallId,
        /// The method's name.
        name: Encoded<&'a str>,
        /// The body: JSON or empty.
        payload: &'a [u8],
    },
    /// A cloud-to-device message, to a device with services; to one without services it is a [`Poll::Message`].
    CloudToDevice(CloudToDevice<'a>),
    /// A message routed to a module, to a device with services.
    Input(ModuleInput<'a>),
    /// The timeout has passed. It is not a regular tick: every event restarts the wait, so periodic work needs its own
    /// deadline.
    Idle,
}

/// A message from the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Message<'a> {
    /// Its topic; [`steadfast_core::iothub::topics`] parses it.
    pub topic: &'a str,
    /// Its body.
    pub payload: &'a [u8],
    /// Whether the service has sent it before.
    pub dup: bool,
    /// The handle for `acknowledge` once the message is handled, or for `abandon` to get it redelivered.
    pub ack: Ack,
}

/// A cloud-to-device message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CloudToDevice<'a> {
    /// Its properties; [`steadfast_core::iothub::property_bag::properties`] lists them.
    pub properties: &'a str,
    /// Its body.
    pub payload: &'a [u8],
    /// Whether the service has sent it before.
    pub dup: bool,
    /// Whether the application has acknowledged it before, as far as the latest message ids are remembered.
    pub duplicate: bool,
    /// The handle for `acknowledge` once the message is handled, or for `abandon` to get it redelivered.
    pub ack: Ack,
}

/// A message routed to a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModuleInput<'a> {
    /// The input's name.
    pub name: Encoded<&'a str>,
    /// Its properties; [`steadfast_core::iothub::property_bag::properties`] lists them.
    pub properties: &'a str,
    /// Its body.
    pub payload: &'a [u8],
    /// Whether the service has sent it before.
    pub dup: bool,
    /// The handle for `acknowledge` once the message is handled, or for `abandon` to get it redelivered.
    pub ack: Ack,
}

/// The handle to acknowledge one message; empty for a QoS 0 message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    pub(crate) packet_id: Option<PacketId>,
    pub(crate) attempt: Attempt,
}

/// The next step.
pub(crate) enum Step<R> {
    Event(iothub::Event),
    Received(R),
    /// Connect to the target of [`Engine::dial`].
    Connect,
    /// Close the stream, after sending pending bytes if that flag is set.
    Close {
        flush: bool,
    },
    /// Nothing until this time.
    Wait(Option<Instant>),
}

pub(crate) struct Engine<'b, O, P, L> {
    pub(crate) link: L,
    of: PhantomData<fn() -> (O, P)>,
    rx: &'b mut [u8],
    /// The part of `rx` that the link has not consumed.
    unread: Range<usize>,
    /// The link has seen all of `unread` and needs more.
    starved: bool,
    tx: &'b mut [u8],
    /// The part of `tx` that the stream has not accepted.
    unsent: Range<usize>,
    /// A requested connection, until it is answered.
    dialling: Option<OwnedDial>,
    /// The attempt the stream belongs to.
    attempt: Attempt,
}

impl<O, P, L: fmt::Debug> fmt::Debug for Engine<'_, O, P, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the buffers: a password may be in them.
        let (link, unread, unsent) = (&self.link, self.unread.len(), self.unsent.len());
        f.debug_struct("Engine")
            .field("link", link)
            .field("unread", &unread)
            .field("unsent", &unsent)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

impl<'b, O: Outbox, P: Profile<Error = ConfigError>> Engine<'b, O, P, Link<O, P>> {
    /// Whether profile and buffers go together.
    pub(crate) fn check(profile: &P, buffers: &Buffers<'_>) -> Result<(), SetupError> {
        let (inbound, outbound) = (profile.session().max_inbound, profile.session().max_outbound.max(CONNECT_BYTES));
        // With the default of `Settings::HTTPS` the link refuses a configuration that asks for it.
        const { assert!(!P::HTTPS, "steadfast-esp32 registers over MQTT only: leave Settings::HTTPS false") };
        let (rx, tx) = (buffers.rx.len(), buffers.tx.len());
        if rx < inbound {
            return Err(SetupError::RxTooSmall { size: rx, needed: inbound });
        }
        if tx < outbound {
            return Err(SetupError::TxTooSmall { size: tx, needed: outbound });
        }
        Ok(profile.check()?)
    }

    /// Drives a link with a checked profile and buffers. It is constructed in place, not moved.
    #[inline(always)]
    pub(crate) fn of_checked(profile: P, outbox: O, seed: Seed, buffers: Buffers<'b>, now: Instant) -> Self {
        let Buffers { rx, tx } = buffers;
        Self {
            link: Link::of_checked(profile, outbox, seed, now),
            of: PhantomData,
            rx,
            unread: 0..0,
            starved: true,
            tx,
            unsent: 0..0,
            dialling: None,
            attempt: Attempt::default(),
        }
    }
}

impl<'b, O: Outbox, P: Profile, L: AnyLink<O, P>> Engine<'b, O, P, L> {
    /// Drives what `wrap` makes of the link.
    pub(crate) fn wrap<W>(self, wrap: impl FnOnce(L) -> W) -> Engine<'b, O, P, W> {
        let Self { link, of, rx, unread, starved, tx, unsent, dialling, attempt } = self;
        Engine { link: wrap(link), of, rx, unread, starved, tx, unsent, dialling, attempt }
    }

    /// Does all work without the stream, until there is something for the application or the stream.
    pub(crate) fn step(&mut self, board: &mut impl Board) -> Step<L::Received<Place, Place>> {
        loop {
            let now = board.now();
            self.link.handle_timeout(now);
            let room = self.room();
            match self.link.poll_output_within(room) {
                Output::Event(event) => return Step::Event(event.into()),
                Output::Action(Action::Sign { attempt, request }) => {
                    let signed = board.sign(request);
                    let now = board.now();
                    let answer = match &signed {
                        Ok(signature) => Input::Signed(signature),
                        Err(failure) => Input::Failed(*failure),
                    };
                    self.link.handle_input(answer, attempt, now);
                }
                Output::Action(Action::Connect { attempt, endpoint, .. }) => {
                    self.attempt = attempt;
                    self.tx.get_mut(self.unsent.clone()).unwrap_or_default().fill(0);
                    (self.unread, self.unsent, self.starved) = (0..0, 0..0, true);
                    if !OwnedDial::keep(&mut self.dialling, &endpoint) {
                        self.failed(Failure::Unresolved, now);
                        continue;
                    }
                    let limit = self.link.patience(now);
                    if let Some(dial) = &mut self.dialling {
                        dial.limit = limit;
                    }
                    return Step::Connect;
                }
                Output::Action(Action::Send { attempt, packet, .. }) => {
                    let free = self.tx.get_mut(self.unsent.end..).unwrap_or_default();
                    match packet.encode_to_slice(free) {
                        Ok(len) => self.unsent.end += len,
                        Err(_) => {
                            let failure = Failure::Local(LocalFailure::Buffer);
                            self.link.handle_input(Input::Failed(failure), attempt, now);
                            return Step::Close { flush: false };
                        }
                    }
                }
                Output::Action(Action::Close { flush, .. }) => return Step::Close { flush },
                Output::Action(Action::SaveAssignment(assignment)) => board.save(assignment),
                Output::Action(Action::SaveBackoff(memory)) => board.save_backoff(memory),
                Output::Action(_) => {}
                Output::Wait(deadline) => {
                    if self.starved {
                        return Step::Wait(deadline.map(|deadline| deadline.at));
                    }
                    if let Some(found) = self.hand_in(now) {
                        return Step::Received(found);
                    }
                }
                _ => return Step::Wait(None),
            }
        }
    }

    /// Passes received bytes to the link.
    fn hand_in(&mut self, now: Instant) -> Option<L::Received<Place, Place>> {
        let bytes = self.rx.get(self.unread.clone()).unwrap_or_default();
        let Taken { bytes: taken, received, .. } = self.link.handle_input(Input::Bytes(bytes), self.attempt, now);
        // If nothing was consumed, the link needs more bytes; if all was, nothing is left.
        self.starved = taken == 0 || taken >= bytes.len();
        let found = received.map(|received| L::find(received, |part| place_of(part, self.rx)));
        self.unread.start += taken;
        found
    }

    /// Room in the send buffer, after moving pending bytes to its front.
    fn room(&mut self) -> usize {
        if self.unsent.start > 0 {
            self.tx.copy_within(self.unsent.clone(), 0);
            self.wipe(self.unsent.len().max(self.unsent.start)..self.unsent.end);
            self.unsent = 0..self.unsent.len();
        }
        self.tx.len() - self.unsent.end
    }

    /// The requested connection, `None` once it is answered.
    pub(crate) const fn dial(&self) -> Option<&OwnedDial> {
        self.dialling.as_ref()
    }

    /// The stream is there.
    pub(crate) fn opened(&mut self, now: Instant) {
        self.dialling = None;
        self.link.handle_input(Input::Ready, self.attempt, now);
    }

    /// The connection attempt failed, or the stream is closed.
    pub(crate) fn failed(&mut self, failure: Failure, now: Instant) {
        self.closed();
        self.link.handle_input(Input::Failed(failure), self.attempt, now);
    }

    /// The stream was given up.
    pub(crate) fn closed(&mut self) {
        self.wipe(self.unsent.clone());
        self.dialling = None;
        (self.unread, self.unsent, self.starved) = (0..0, 0..0, true);
    }

    /// The bytes to write.
    pub(crate) fn unsent(&self) -> &[u8] {
        self.tx.get(self.unsent.clone()).unwrap_or_default()
    }

    /// The stream accepted `len` of the bytes to write.
    pub(crate) fn wrote(&mut self, len: usize, now: Instant) {
        let start = self.unsent.start;
        self.unsent.start = start.saturating_add(len).min(self.unsent.end);
        self.wipe(start..self.unsent.start);
        let pending = self.unsent.len();
        if len > 0 {
            self.link.handle_input(Input::Wrote { pending }, self.attempt, now);
        }
    }

    /// Overwrites sent bytes in the send buffer.
    fn wipe(&mut self, place: Range<usize>) {
        self.tx.get_mut(place).unwrap_or_default().fill(0);
    }

    /// The free part of the receive buffer; empty only if the link must be polled first.
    pub(crate) fn free(&mut self) -> &mut [u8] {
        if self.unread.start > 0 {
            self.rx.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
        }
        self.rx.get_mut(self.unread.end..).unwrap_or_default()
    }

    /// The stream has read `len` bytes.
    pub(crate) fn got(&mut self, len: usize) {
        self.unread.end = (self.unread.end + len).min(self.rx.len());
        self.starved = false;
    }

    /// Whether no packet that is allowed can fill the receive buffer any more.
    pub(crate) fn is_choked(&self) -> bool {
        self.starved && self.unread.len() >= self.rx.len()
    }

    pub(crate) fn show(&self, found: &L::Received<Place, Place>) -> Poll<'_> {
        L::show(found, self.attempt, self.rx)
    }

    pub(crate) fn acknowledge(&mut self, ack: Ack, now: Instant) -> bool {
        ack.packet_id.is_some_and(|packet_id| self.link.acknowledge(packet_id, ack.attempt, now))
    }

    pub(crate) fn abandon(&mut self, ack: Ack) -> bool {
        ack.packet_id.is_some_and(|packet_id| self.link.abandon(packet_id, ack.attempt))
    }
}

/// The position of `part` in `whole`; empty if it is not part of it.
pub(crate) fn place_of(part: &[u8], whole: &[u8]) -> Range<usize> {
    let start = part.as_ptr().addr().wrapping_sub(whole.as_ptr().addr());
    let end = start.wrapping_add(part.len());
    if start <= end && end <= whole.len() { start..end } else { 0..0 }
}
