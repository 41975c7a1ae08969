//! Messages from acceptance to acknowledgement.

use core::fmt;
use core::time::Duration;

use super::config::Overflow;
use super::state::{Connection, Phase, Plan};
use super::{Link, Profile};
use crate::failure::Failure;
use crate::mqtt::{MAX_FIELD_LEN, PacketId, Reason, Terms};
use crate::outbox::{Destination, DropReason, Entry, MessageId, Outbox, OutboxError, Outcome, Priority};
use crate::time::Instant;
use crate::timer::TimerReason;

/// The packet id is the last bits of the message id, so that a message keeps its packet id across connections and an
/// acknowledgement needs no table. Each priority has its own packet ids: those of urgent messages follow those of
/// normal ones.
const NORMAL_IDS: u16 = 0x8000;
const URGENT_IDS: u16 = 0x4000;

/// Looks for expired messages are at least this far apart.
const EXPIRY_STEP_MS: u32 = 500;

/// A sleep this long is the frontend's, not the service's.
const OVERSLEPT: Duration = Duration::from_secs(5);

/// A message for [`Link::publish`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "applications write it down")]
pub struct Message<'a> {
    /// Its destination.
    pub destination: Destination<'a>,
    /// Its MQTT 5 properties, encoded and without the length before them; not allowed with MQTT 3.1.1.
    pub properties: &'a [u8],
    /// Its body.
    pub payload: &'a [u8],
    /// The RETAIN flag: a broker keeps it for later subscribers; not supported by an IoT hub.
    pub retain: bool,
    /// Its expiry; by default that of the configuration.
    pub expires_after: Option<Duration>,
    /// Its priority.
    pub priority: Priority,
}

impl<'a> Message<'a> {
    /// Makes a message to a destination.
    #[must_use]
    pub const fn to(destination: Destination<'a>, payload: &'a [u8]) -> Self {
        Self { destination, properties: &[], payload, retain: false, expires_after: None, priority: Priority::Normal }
    }

    /// Makes a message to a topic.
    #[must_use]
    pub const fn to_topic(topic: &'a str, payload: &'a [u8]) -> Self {
        Self::to(Destination::Topic(topic), payload)
    }

    /// Sends the message before all normal ones that have not been sent.
    #[must_use]
    pub const fn urgent(mut self) -> Self {
        self.priority = Priority::Urgent;
        self
    }

    /// Sets RETAIN: a broker keeps the message for later subscribers (MQTT 3.1.1, section 3.3.1.3).
    #[must_use]
    pub const fn retained(mut self) -> Self {
        self.retain = true;
        self
    }

    /// Sets the expiry, counted from acceptance.
    #[must_use]
    pub const fn expires_after(mut self, span: Duration) -> Self {
        self.expires_after = Some(span);
        self
    }
}

/// Why [`Link::publish`] did not accept a message; nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublishError {
    /// There is no room until a message is delivered, expires or is dropped.
    Full,
    /// The message is too large for the service, for the empty outbox or for the frontend.
    TooLarge {
        /// Bytes that count.
        size: usize,
        /// Most bytes allowed.
        limit: usize,
    },
    /// The encoded property bag does not fit a topic.
    LongProperties {
        /// Bytes of the encoded bag.
        size: usize,
        /// Most bytes allowed.
        limit: usize,
    },
    /// The property bag is not correctly encoded.
    BadProperties {
        /// Offset of the first byte that is not percent-encoded.
        at: usize,
        /// The byte.
        byte: u8,
    },
    /// The topic is empty, too long, or has a wildcard or U+0000.
    BadTopic,
    /// Telemetry is for a hub; a broker needs a topic.
    NoTelemetryEndpoint,
    /// The message has MQTT 5 properties, but the service uses MQTT 3.1.1.
    NoProperties,
    /// The message has RETAIN, which an IoT hub does not support.
    NotRetained,
    /// The outbox's storage failed.
    Storage,
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the outbox is full; wait for a delivery and try again"),
            Self::TooLarge { size, limit } => write!(f, "the message counts {size} bytes; the limit is {limit}"),
            Self::LongProperties { size, limit } => {
                write!(f, "the properties are {size} bytes when encoded; the limit is {limit}")
            }
            Self::BadProperties { at, byte } => {
                write!(f, "the properties are not percent-encoded at offset {at}: byte 0x{byte:02x}")
            }
            Self::BadTopic => f.write_str("the topic is empty, longer than 65535 bytes, or has a wildcard or U+0000"),
            Self::NoTelemetryEndpoint => f.write_str("a broker has no telemetry endpoint; name a topic"),
            Self::NoProperties => f.write_str("the service uses MQTT 3.1.1, which has no properties"),
            Self::NotRetained => f.write_str("an IoT hub retains no messages; send it without RETAIN"),
            Self::Storage => f.write_str("the outbox's storage failed"),
        }
    }
}

impl core::error::Error for PublishError {}

impl<O: Outbox, P: Profile> Link<O, P> {
    /// Queues a QoS 1 publish until the service acknowledges it, across every reconnection and move.
    ///
    /// Each [`Priority`] is sent in the order of acceptance, also after a reconnection, urgent messages first: even if
    /// the service kept the session, MQTT's order of repetitions (3.1.1 \[MQTT-4.6.0-1\]) holds for each priority
    /// separately. Each broken connection causes at most as many repetitions as messages in flight.
    ///
    /// It can be called in any state. A message whose id it returns is accepted: it ends in exactly one
    /// [`crate::Event::Delivered`] or [`crate::Event::Dropped`].
    ///
    /// # Errors
    /// [`PublishError`]; the message was not accepted.
    pub fn publish(&mut self, message: Message<'_>, now: Instant) -> Result<MessageId, PublishError> {
        match self.offer(message, now) {
            Ok(Some(id)) => Ok(id),
            Ok(None) => {
                self.ledger.refused = self.ledger.refused.saturating_add(1);
                Err(PublishError::Full)
            }
            Err(error) => Err(error),
        }
    }

    /// As [`publish`](Self::publish), for a sender that waits for room: `None` without room, which the ledger does not
    /// count as refused. Call it again when messages have left the outbox, and when a connection has ended: messages in
    /// flight are not evicted.
    ///
    /// # Errors
    /// [`PublishError`], but never [`PublishError::Full`]; the message was not accepted.
    pub fn offer(&mut self, message: Message<'_>, now: Instant) -> Result<Option<MessageId>, PublishError> {
        let now = self.tick(now);
        let created_unix_ms = self.creation_time(message.destination);
        let accepted = self.check(&message, created_unix_ms.is_some()).and_then(|()| {
            let expires = message.expires_after.or(self.profile.session().expiry).map(|span| now.after(span));
            let id = self.session.priority(message.priority).next_id;
            self.make_room_and_push(Entry {
                id,
                destination: message.destination,
                properties: message.properties,
                payload: message.payload,
                retain: message.retain,
                expires,
                created_unix_ms,
            })
        });
        match accepted {
            Ok(id) => {
                self.ledger.accepted = self.ledger.accepted.saturating_add(1);
                self.session.priority_mut(id.priority()).next_id = id.next();
                Ok(Some(id))
            }
            Err(PublishError::Full) => Ok(None),
            Err(error) => {
                self.ledger.refused = self.ledger.refused.saturating_add(1);
                Err(error)
            }
        }
    }

    /// Whether the message is accepted as soon as there is room: false if it violates a rule of the service or is
    /// larger than the outbox.
    #[must_use]
    pub fn can_accept(&self, message: &Message<'_>) -> bool {
        let (text, properties) = (message.destination.text(), message.properties);
        let size = text.len().saturating_add(properties.len()).saturating_add(message.payload.len());
        let stamped = self.creation_time(message.destination).is_some();
        size <= self.outbox.capacity().bytes && self.check(message, stamped).is_ok()
    }

    /// The time to stamp on a message, in milliseconds since 1970.
    fn creation_time(&self, destination: Destination<'_>) -> Option<u64> {
        if self.profile.stamps(destination) { self.clock.unix_millis(self.now) } else { None }
    }

    fn check(&self, message: &Message<'_>, stamped: bool) -> Result<(), PublishError> {
        self.profile.check_message(message, stamped)?;
        if let Destination::Topic(topic) = message.destination {
            let bad = |byte| matches!(byte, b'+' | b'#' | 0);
            if topic.is_empty() || topic.len() > MAX_FIELD_LEN || topic.bytes().any(bad) {
                return Err(PublishError::BadTopic);
            }
        }
        let text = message.destination.text().len();
        let size = text.saturating_add(message.properties.len()).saturating_add(message.payload.len());
        let size = size.saturating_add(P::FRAME);
        let limit = self.profile.session().max_outbound.min(self.terms().packet_max);
        if size > limit { Err(PublishError::TooLarge { size, limit }) } else { Ok(()) }
    }

    fn make_room_and_push(&mut self, entry: Entry<'_>) -> Result<MessageId, PublishError> {
        loop {
            match self.outbox.push(entry) {
                Ok(()) => {
                    if let Some(at) = entry.expires {
                        self.expect_expiry(at);
                    }
                    return Ok(entry.id);
                }
                Err(OutboxError::TooLarge { size, limit }) => return Err(PublishError::TooLarge { size, limit }),
                Err(OutboxError::Storage) => return Err(PublishError::Storage),
                Err(OutboxError::Full) => {}
            }
            if self.expire_due() {
                continue;
            }
            let oldest = self.victim(self.session.normal.cursor, entry.id.priority());
            let Some(oldest) = oldest.filter(|_| self.can_make_room(&entry)) else { return Err(PublishError::Full) };
            if !self.drop_message(oldest, DropReason::Evicted) {
                return Err(PublishError::Full);
            }
        }
    }

    /// Whether evicting messages that are not in flight makes room for `entry`.
    fn can_make_room(&self, entry: &Entry<'_>) -> bool {
        let may = match self.profile.session().overflow {
            Overflow::RejectNewest => false,
            Overflow::DropOldest => true,
            Overflow::DropForUrgent => entry.id.priority() == Priority::Urgent,
        };
        let priority = entry.id.priority();
        let stays = |id: MessageId| match id.priority() {
            Priority::Normal => id < self.session.normal.cursor,
            Priority::Urgent => !self.evicts_urgent(priority) || id < self.session.urgent.cursor,
        };
        if !may || self.outbox.first_to_leave().is_some_and(stays) {
            return false;
        }
        let (held, limit) = (self.outbox.usage(), self.outbox.capacity());
        let (mut messages, mut bytes) = (held.messages, held.bytes.saturating_add(entry.size()));
        let mut from = self.session.normal.cursor;
        loop {
            let Some(id) = self.victim(from, priority) else { return false };
            messages = messages.saturating_sub(1);
            bytes = bytes.saturating_sub(self.outbox.get(id).as_ref().map_or(0, Entry::size));
            if messages < limit.messages && bytes <= limit.bytes {
                return true;
            }
            from = id.next();
        }
    }

    /// The next message, from `from` on, that may be evicted for one of `priority`: normal messages that are not in
    /// flight, and then, for an urgent one, urgent messages that are not in flight.
    fn victim(&self, from: MessageId, priority: Priority) -> Option<MessageId> {
        let urgent = |from| self.outbox.next(from).filter(|id| id.priority() == Priority::Urgent);
        if from.priority() == Priority::Urgent {
            return urgent(from);
        }
        let urgent = || urgent(self.session.urgent.cursor).filter(|_| self.evicts_urgent(priority));
        self.outbox.next(from).or_else(urgent)
    }

    fn evicts_urgent(&self, priority: Priority) -> bool {
        priority == Priority::Urgent && self.profile.session().overflow == Overflow::DropOldest
    }

    /// The next message that was not sent on this connection, the urgent ones first.
    fn next_unsent(&self) -> Option<MessageId> {
        let id = self.outbox.next(self.session.urgent.cursor)?;
        match id.priority() {
            Priority::Urgent => Some(id),
            Priority::Normal => self.outbox.next(self.session.normal.cursor),
        }
    }

    /// Returns the next message to send, when one may be sent now, and counts it as in flight.
    pub(super) fn next_to_send(&mut self, room: usize) -> Option<(MessageId, PacketId, bool)> {
        let may_send = self.phase == Phase::Up || (self.phase == Phase::Draining && self.plan == Some(Plan::Stop));
        if !may_send || self.connection.in_flight >= self.window() {
            return None;
        }
        let id = loop {
            let id = self.next_unsent()?;
            let entry = self.outbox.get(id)?;
            if entry.expires.is_none_or(|at| at > self.now) {
                // Fixed header of at most five bytes, length of the topic, packet id.
                let frame = || self.profile.topic(&entry).len().saturating_add(entry.payload.len()).saturating_add(9);
                if room != usize::MAX && frame() > room {
                    return None;
                }
                break id;
            }
            self.drop_message(id, DropReason::Expired);
        };
        let first = self.outbox.first_of(id.priority()).unwrap_or(id);
        if id.get().wrapping_sub(first.get()) >= u64::from(packet_ids(id.priority())) {
            return None;
        }
        let packet_id = packet_id(id)?;
        let now = self.now;
        let progress = self.session.priority_mut(id.priority());
        let sent_before = id < progress.sent_before;
        let resent = id < progress.high;
        progress.cursor = id.next();
        progress.high = progress.high.max(id.next());
        if first == id {
            progress.since = now;
        }
        if resent {
            self.ledger.resent = self.ledger.resent.saturating_add(1);
        }
        if self.timers.get(TimerReason::Puback).is_none() {
            self.set_timer(TimerReason::Puback, self.profile.session().timeouts.puback);
        }
        self.connection.in_flight = self.connection.in_flight.saturating_add(1);
        Some((id, packet_id, self.connection.resumed && sent_before))
    }

    /// The terms of the connection.
    #[expect(clippy::unused_self, reason = "an MQTT 5 server sets it for each connection")]
    pub(super) const fn terms(&self) -> Terms {
        Terms::MQTT_3_1_1
    }

    /// The maximum of messages in flight: one while there may be a poison message.
    fn window(&self) -> u16 {
        let config = self.profile.session();
        let suspected = config.poison_threshold.is_some() && self.session.suspect.is_some();
        if suspected && !self.connection.progressed { 1 } else { config.window.min(self.terms().receive_max) }
    }

    pub(super) fn take_puback(&mut self, packet_id: PacketId, reason: Reason) {
        // Late acknowledgements of a provisioning request and unknown ids acknowledge no message (fault 52).
        if let Some(id) = self.in_flight_message(packet_id) {
            // Acknowledgements arrive in the order of the publishes [MQTT-4.6.0-2], so the timeout is that of the
            // oldest, for each priority separately.
            if self.outbox.first_of(id.priority()) == Some(id) {
                self.session.priority_mut(id.priority()).since = self.now;
            }
            if reason.is_failure() {
                self.drop_message(id, DropReason::Rejected);
            } else {
                self.outbox.remove(id, Outcome::Delivered);
                self.ledger.delivered = self.ledger.delivered.saturating_add(1);
                self.events.delivered(id);
            }
            self.connection.in_flight = self.connection.in_flight.saturating_sub(1);
            self.connection.progressed = true;
            self.session.suspect = None;
            self.finish_drain_when_empty();
        }
    }

    fn in_flight_message(&self, packet_id: PacketId) -> Option<MessageId> {
        let low = packet_id.get().wrapping_sub(1);
        let (priority, low) = match low.checked_sub(NORMAL_IDS) {
            None => (Priority::Normal, low),
            Some(low) if low < URGENT_IDS => (Priority::Urgent, low),
            Some(_) => return None,
        };
        let first = self.outbox.first_of(priority)?;
        let ahead = u64::from(low).wrapping_sub(first.get()) & u64::from(packet_ids(priority).wrapping_sub(1));
        let id = MessageId::new(first.get().wrapping_add(ahead));
        (id < self.session.priority(priority).cursor && self.outbox.next(id) == Some(id)).then_some(id)
    }

    /// The oldest message of a priority, if it is in flight.
    fn oldest_in_flight(&self, priority: Priority) -> Option<MessageId> {
        self.outbox.first_of(priority).filter(|id| self.is_in_flight(*id))
    }

    fn is_in_flight(&self, id: MessageId) -> bool {
        self.connection.in_flight > 0 && id < self.session.priority(id.priority()).cursor
    }

    pub(super) fn begin_delivery(&mut self) {
        for priority in PRIORITIES {
            let oldest = self.outbox.first_of(priority);
            let progress = self.session.priority_mut(priority);
            progress.cursor = oldest.unwrap_or(progress.next_id);
            progress.since = self.now;
        }
    }

    /// Everything unacknowledged is to be sent again.
    pub(super) fn end_delivery(&mut self) {
        self.judge_suspect();
        for priority in PRIORITIES {
            let progress = self.session.priority_mut(priority);
            progress.sent_before = progress.sent_before.max(progress.cursor);
        }
        self.connection = Connection::default();
        self.begin_delivery();
    }

    /// Dead-letters a poison message, if the configuration has a threshold.
    fn judge_suspect(&mut self) {
        let Some(limit) = self.profile.session().poison_threshold else { return };
        let oldest = self.oldest_in_flight(Priority::Urgent).or_else(|| self.oldest_in_flight(Priority::Normal));
        let Some(oldest) = oldest.filter(|_| !self.connection.progressed && self.plan.is_none()) else { return };
        let alone = self.connection.in_flight == 1;
        let times = match self.session.suspect {
            Some((id, times)) if id == oldest => times,
            _ => 0,
        };
        let times = times.saturating_add(u8::from(alone));
        self.session.suspect = Some((oldest, times));
        if alone && times >= limit && self.events.has_room() {
            self.session.suspect = None;
            self.connection.in_flight = 0;
            self.drop_message(oldest, DropReason::Rejected);
        }
    }

    /// Detects that the service answers pings but acknowledges nothing.
    pub(super) fn watch_acknowledgements(&mut self, late: Duration) {
        if self.connection.in_flight == 0 {
            return;
        }
        let mut since = self.now;
        for priority in PRIORITIES {
            if self.oldest_in_flight(priority).is_some() {
                let progress = self.session.priority_mut(priority);
                if late > OVERSLEPT {
                    progress.since = self.now;
                }
                since = since.min(progress.since);
            }
        }
        let patience = self.profile.session().timeouts.puback;
        let at = since.max(self.wire.last_moved).after(patience);
        if self.now >= at {
            self.attempt_failed(Failure::PubackTimeout);
        } else {
            self.timers.set(TimerReason::Puback, at);
        }
    }

    fn expect_expiry(&mut self, at: Instant) {
        let at = at.max(self.now.after_millis(1));
        if self.timers.get(TimerReason::Expiry).is_none_or(|earlier| at < earlier) {
            self.timers.set(TimerReason::Expiry, at);
        }
    }

    /// Drops expired messages, if there may be any.
    fn expire_due(&mut self) -> bool {
        // The timer is set up to a step later than the first message expires.
        let due = self.timers.get(TimerReason::Expiry).is_some_and(|at| self.now.after_millis(EXPIRY_STEP_MS) >= at);
        let before = self.ledger.expired;
        if due {
            self.expire();
        }
        self.ledger.expired != before
    }

    /// Drops expired messages that are not in flight, and sets the timer for the next one.
    pub(super) fn expire(&mut self) {
        self.timers.clear(TimerReason::Expiry);
        let mut next: Option<Instant> = None;
        let mut from = MessageId::new(0);
        while let Some(id) = self.outbox.next(from) {
            from = id.next();
            let Some(at) = self.outbox.get(id).and_then(|entry| entry.expires) else { continue };
            if at <= self.now && !self.is_in_flight(id) {
                self.drop_message(id, DropReason::Expired);
            } else {
                next = Some(next.map_or(at, |earliest| earliest.min(at)));
            }
        }
        if let Some(at) = next {
            self.timers.set(TimerReason::Expiry, at.max(self.now.after_millis(EXPIRY_STEP_MS)));
        }
        self.finish_drain_when_empty();
    }

    /// Returns whether the outbox had the message.
    fn drop_message(&mut self, id: MessageId, reason: DropReason) -> bool {
        let is_removed = self.outbox.remove(id, Outcome::Dropped(reason));
        if is_removed {
            let count = match reason {
                DropReason::Expired => &mut self.ledger.expired,
                DropReason::Evicted => &mut self.ledger.evicted,
                DropReason::Rejected => &mut self.ledger.rejected,
            };
            *count = count.saturating_add(1);
            self.events.dropped(id, reason);
        }
        is_removed
    }
}

const PRIORITIES: [Priority; 2] = [Priority::Urgent, Priority::Normal];

const fn packet_ids(priority: Priority) -> u16 {
    match priority {
        Priority::Normal => NORMAL_IDS,
        Priority::Urgent => URGENT_IDS,
    }
}

fn packet_id(id: MessageId) -> Option<PacketId> {
    let low = u16::try_from(id.get() & u64::from(packet_ids(id.priority()).wrapping_sub(1))).ok()?;
    let before = match id.priority() {
        Priority::Normal => 0,
        Priority::Urgent => NORMAL_IDS,
    };
    PacketId::new(low.wrapping_add(before).wrapping_add(1))
}
