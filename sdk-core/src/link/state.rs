//! The state of a link: attempt, session and outage.

use heapless::Vec;

use super::INBOUND;
use super::subscriptions::{Asked, Held};
use crate::failure::Failure;
use crate::io::Attempt;
use crate::mqtt::PacketId;
use crate::outbox::{MessageId, Outbox, Priority};
use crate::rng::Rng;
use crate::time::Instant;

/// The phase of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Idle,
    /// Waits for the retry timer.
    Waiting,
    /// Waits for a signature.
    Signing,
    /// Waits for TCP and TLS.
    Connecting,
    /// Waits for CONNACK.
    AwaitingConnack,
    /// Waits for SUBACK.
    Subscribing,
    /// Registers with the Device Provisioning Service.
    Registering,
    Up,
    /// Disconnects.
    Draining,
    Stopped,
}

/// The reason for a planned disconnect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    Renew,
    /// To reconnect, through another service if necessary.
    Reconnect,
    Stop,
}

/// The conditions of a registration with the Device Provisioning Service.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ladder {
    /// The next attempt goes to the Device Provisioning Service.
    pub(super) wanted: bool,
    /// Earliest next registration, except on an explicit command.
    pub(super) not_before: Instant,
    /// How long the hub must be unreachable.
    pub(super) unreachable_ms: u32,
    /// Start of that time; `None` after a reply.
    pub(super) absent: Option<Instant>,
    /// Registrations since the last stable connection.
    pub(super) failed_registrations: u8,
    /// Connections in a row that the hub accepted and closed immediately, without acknowledged messages.
    pub(super) immediate_closes: u8,
    /// Registrations since the link was created; each is billed.
    pub(super) registrations: u32,
}

/// The session state that survives a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Session {
    pub(super) normal: Progress,
    pub(super) urgent: Progress,
    pub(super) subscriptions: Held,
    /// Connections in a row that the service accepted and closed before they were stable.
    pub(super) takeovers: u8,
    /// Connections with acknowledged messages that ended early, since the last lasting one.
    pub(super) early_ends: u8,
    /// The message that was the oldest in flight when connections broke, and how often in a row it was the only one.
    pub(super) suspect: Option<(MessageId, u8)>,
}

/// The state of the connection since its CONNACK; reset for each.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Connection {
    /// The service kept the session.
    pub(super) resumed: bool,
    /// An acknowledgement came.
    pub(super) progressed: bool,
    /// It has lasted for `reset_after`.
    pub(super) stable: bool,
    /// Messages below the cursor of their priority that are still in the outbox.
    pub(super) in_flight: u16,
}

/// The progress of a priority.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    /// The id of the next message accepted.
    pub(super) next_id: MessageId,
    /// Every message of the priority below it was sent on this connection.
    pub(super) cursor: MessageId,
    /// Every message of the priority below it may have been sent in this session before.
    pub(super) sent_before: MessageId,
    /// Every message of the priority from it on was never sent.
    pub(super) high: MessageId,
    /// When the priority's oldest message in flight became that.
    pub(super) since: Instant,
}

/// Packets to write on the connection, and packets written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wire {
    pub(super) connect: bool,
    pub(super) asked: Asked,
    pub(super) ping: bool,
    /// Time of the unanswered ping.
    pub(super) pinged: Option<Instant>,
    pub(super) request: bool,
    pub(super) last_sent: Instant,
    pub(super) last_received: Instant,
    /// When the transport last moved bytes of a backlog.
    pub(super) last_moved: Instant,
    /// The attempt with an open transport.
    pub(super) open: bool,
}

/// Lifetime of an attempt's token.
#[derive(Clone, Copy, Debug)]
pub(super) struct TokenLife {
    pub(super) secs: u64,
    /// Time of its signing request.
    pub(super) from: Instant,
}

/// Actions queued for [`Link::poll_output`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pending {
    /// A connection to close, after a DISCONNECT if that flag is set.
    pub(super) close: Option<(Attempt, bool)>,
    /// DISCONNECT is sent before the close.
    pub(super) disconnect: bool,
    pub(super) save: bool,
    pub(super) remember: bool,
    pub(super) sign: bool,
    pub(super) connect: bool,
}

/// Inbound QoS 1 messages that the application has, the oldest first.
#[derive(Clone, Debug)]
pub(super) struct Inbound {
    owed: Vec<PacketId, INBOUND, u8>,
    /// A bit for each, from the lowest: the application is done with it.
    handled: u64,
}

/// The failures of the current outage.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Trouble {
    pub(super) first: Option<Failure>,
    pub(super) last: Option<Failure>,
    pub(super) failures: u32,
}

impl Inbound {
    pub(super) const fn new() -> Self {
        Self { owed: Vec::new(), handled: 0 }
    }

    pub(super) fn clear(&mut self) {
        self.owed.clear();
        self.handled = 0;
    }

    /// Returns whether there was room.
    pub(super) fn push(&mut self, packet_id: PacketId) -> bool {
        self.owed.push(packet_id).is_ok()
    }

    /// Notes that the application is done with a message, and returns whether it was not before.
    pub(super) fn handle(&mut self, packet_id: PacketId) -> bool {
        let place = self.place(packet_id);
        self.handled |= place.map_or(0, bit);
        place.is_some()
    }

    /// Forgets a message that is not to be acknowledged, and returns whether it was not yet.
    pub(super) fn abandon(&mut self, packet_id: PacketId) -> bool {
        let place = self.place(packet_id);
        if let Some(place) = place {
            self.remove(place);
        }
        place.is_some()
    }

    /// The acknowledgement that is due, if the application is done with the oldest message.
    pub(super) fn due(&mut self) -> Option<PacketId> {
        let packet_id = *self.owed.first()?;
        if self.handled & 1 == 0 {
            return None;
        }
        self.remove(0);
        Some(packet_id)
    }

    fn place(&self, packet_id: PacketId) -> Option<usize> {
        let mut bits = self.handled;
        self.owed.iter().position(|owed| {
            let waits = bits & 1 == 0;
            bits >>= 1;
            waits && *owed == packet_id
        })
    }

    fn remove(&mut self, place: usize) {
        // The comparison lets the compiler remove the panic.
        if place < self.owed.len() {
            self.owed.remove(place);
            let below = bit(place).wrapping_sub(1);
            self.handled = (self.handled & below) | ((self.handled >> 1) & !below);
        }
    }
}

fn bit(place: usize) -> u64 {
    u32::try_from(place).ok().and_then(|place| 1_u64.checked_shl(place)).unwrap_or(0)
}

const _: () = assert!(INBOUND <= u64::BITS as usize, "there is a bit for each");

impl Session {
    pub(super) fn new<O: Outbox>(outbox: &O, rng: &mut Rng, now: Instant) -> Self {
        let mut urgent = None;
        let mut from = Priority::Urgent.first_id();
        while let Some(id) = outbox.next(from).filter(|id| id.priority() == Priority::Urgent) {
            urgent = Some(id);
            from = id.next();
        }
        let normal = outbox.last().filter(|id| id.priority() == Priority::Normal);
        // Half of a priority's numbers are above the first one.
        let first = if urgent.is_some() && normal.is_some() { 0 } else { rng.long() >> 2 };
        let progress = |priority: Priority, last: Option<MessageId>| {
            let fresh = MessageId::new(priority.first_id().get() | first);
            let next_id = last.map_or(fresh, MessageId::next);
            let oldest = outbox.first_of(priority).unwrap_or(next_id);
            Progress { next_id, cursor: oldest, sent_before: priority.first_id(), high: oldest, since: now }
        };
        Self {
            normal: progress(Priority::Normal, normal),
            urgent: progress(Priority::Urgent, urgent),
            subscriptions: Held::default(),
            takeovers: 0,
            early_ends: 0,
            suspect: None,
        }
    }

    pub(super) const fn priority(&self, priority: Priority) -> &Progress {
        match priority {
            Priority::Normal => &self.normal,
            Priority::Urgent => &self.urgent,
        }
    }

    pub(super) const fn priority_mut(&mut self, priority: Priority) -> &mut Progress {
        match priority {
            Priority::Normal => &mut self.normal,
            Priority::Urgent => &mut self.urgent,
        }
    }

    /// Nothing was sent in this session before.
    pub(super) const fn forget_sent(&mut self) {
        self.normal.sent_before = Priority::Normal.first_id();
        self.urgent.sent_before = Priority::Urgent.first_id();
    }
}

impl Wire {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            connect: false,
            asked: Asked::new(),
            ping: false,
            pinged: None,
            request: false,
            last_sent: now,
            last_received: now,
            last_moved: now,
            open: false,
        }
    }
}
