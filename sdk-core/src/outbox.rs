//! The queue of messages that wait for their acknowledgement.

use core::fmt;

use heapless::Vec;

use crate::time::Instant;

/// A message's priority.
///
/// Each priority keeps its own order; urgent messages overtake normal ones that have not been sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "the priority is one bit of a message's id")]
pub enum Priority {
    /// After everything urgent.
    #[default]
    Normal,
    /// Before everything normal that has not been sent, after a reconnection and a reboot too: an alarm.
    Urgent,
}

impl Priority {
    /// Returns the smallest id of this priority. Those of [`Priority::Urgent`] are below those of [`Priority::Normal`].
    #[must_use]
    pub const fn first_id(self) -> MessageId {
        match self {
            Self::Urgent => MessageId(0),
            Self::Normal => MessageId(NORMAL),
        }
    }
}

/// Bit of the ids of normal messages.
const NORMAL: u64 = 1 << 63;

/// Names a message from its acceptance to its end, also to the service (`$.mid`).
///
/// Ids of one priority are consecutive; the first is random, so that they differ across reboots. The first bit is the
/// priority, so that the order of ids is the order of sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(u64);

impl MessageId {
    /// Makes an id from its number, for an outbox that reads messages from storage.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Returns the number; the service sees it as sixteen hexadecimal digits.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Returns the priority of the message.
    #[must_use]
    pub const fn priority(self) -> Priority {
        if self.0 < NORMAL { Priority::Urgent } else { Priority::Normal }
    }

    /// Returns the id of the message of the same priority accepted after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The destination of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Destination<'a> {
    /// The device's telemetry endpoint, with an encoded property bag (see [`crate::azure`]), which may be empty.
    ///
    /// The topic is made when the message is sent, so that the message can move to another hub with the device.
    Telemetry(&'a str),
    /// This topic.
    Topic(&'a str),
}

impl<'a> Destination<'a> {
    /// Returns the property bag or the topic.
    #[must_use]
    pub const fn text(self) -> &'a str {
        match self {
            Self::Telemetry(text) | Self::Topic(text) => text,
        }
    }
}

/// A message in an outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "outboxes outside this crate make and take entries")]
pub struct Entry<'a> {
    /// Its name.
    pub id: MessageId,
    /// Its destination.
    pub destination: Destination<'a>,
    /// Its MQTT 5 properties, encoded (MQTT 5, section 2.2.2.2) and without the length before them; empty for MQTT
    /// 3.1.1.
    pub properties: &'a [u8],
    /// Its body.
    pub payload: &'a [u8],
    /// The RETAIN flag: the service keeps it for later subscribers ( MQTT 3.1.1, section 3.3.1.3).
    pub retain: bool,
    /// When it is of no more use.
    pub expires: Option<Instant>,
    /// Time of its acceptance, in milliseconds since 1970-01-01 00:00 UTC, if telemetry is to contain it.
    pub created_unix_ms: Option<u64>,
}

impl<'a> Entry<'a> {
    /// Makes an entry without expiry, properties and time of acceptance.
    #[must_use]
    pub const fn new(id: MessageId, destination: Destination<'a>, payload: &'a [u8]) -> Self {
        Self { id, destination, properties: &[], payload, retain: false, expires: None, created_unix_ms: None }
    }

    /// Returns how many bytes count towards [`Usage::bytes`]: property bag or topic, properties and payload.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.destination.text().len().saturating_add(self.properties.len()).saturating_add(self.payload.len())
    }
}

/// The contents or the capacity of an outbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "outboxes outside this crate make it")]
pub struct Usage {
    /// Messages.
    pub messages: usize,
    /// Bytes of property bags, topics, properties and payloads, as [`Entry::size`] counts them.
    pub bytes: usize,
}

/// Why an outbox refused a message; its contents are unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OutboxError {
    /// There is no room now.
    Full,
    /// The message does not fit even when the outbox is empty.
    TooLarge {
        /// Bytes of the message.
        size: usize,
        /// The outbox's capacity in bytes.
        limit: usize,
    },
    /// The storage below failed.
    Storage,
}

impl fmt::Display for OutboxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the outbox is full"),
            Self::TooLarge { size, limit } => write!(f, "the message is {size} bytes; the outbox holds {limit}"),
            Self::Storage => f.write_str("the outbox's storage failed"),
        }
    }
}

impl core::error::Error for OutboxError {}

/// How a message ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The service acknowledged it.
    Delivered,
    /// It left the outbox undelivered.
    Dropped(DropReason),
}

/// Why a message left the outbox undelivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DropReason {
    /// Its time ran out.
    Expired,
    /// It was evicted to make room for a newer one.
    Evicted,
    /// It was dead-lettered: the service does not accept it.
    Rejected,
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "expired",
            Self::Evicted => "evicted",
            Self::Rejected => "rejected",
        })
    }
}

/// Holds accepted messages in the order of their ids until the link removes them.
///
/// Contract: an entry accepted by [`Outbox::push`] stays, unchanged and in order, until [`Outbox::remove`], as far as
/// this outbox's storage allows (power, file system). A failed `push` changes nothing. The outbox never removes entries
/// by itself. Ids ascend within each [`Priority`], so that an urgent message goes before all normal ones.
pub trait Outbox {
    /// Adds a message whose id is greater than every id of the same priority.
    ///
    /// # Errors
    /// [`OutboxError`]; nothing changes then.
    fn push(&mut self, entry: Entry<'_>) -> Result<(), OutboxError>;

    /// Returns the message named `id`.
    fn get(&self, id: MessageId) -> Option<Entry<'_>>;

    /// Returns the smallest id that is `from` or greater.
    fn next(&self, from: MessageId) -> Option<MessageId>;

    /// Removes the message `id`, which has this outcome, and returns whether there was one.
    ///
    /// Events of dropped messages may be merged; an outbox that must report the outcome of each message records it
    /// here.
    fn remove(&mut self, id: MessageId, outcome: Outcome) -> bool;

    /// Returns the greatest id.
    fn last(&self) -> Option<MessageId>;

    /// Returns its contents.
    fn usage(&self) -> Usage;

    /// Returns its capacity.
    fn capacity(&self) -> Usage;

    /// After a push without room: the message that must be removed first to make room, if any. Storage that is used
    /// cyclically has one.
    fn first_to_leave(&self) -> Option<MessageId> {
        None
    }

    /// Returns the smallest id.
    fn first(&self) -> Option<MessageId> {
        self.next(MessageId(0))
    }

    /// Returns the smallest id of `priority`.
    fn first_of(&self, priority: Priority) -> Option<MessageId> {
        self.next(priority.first_id()).filter(|id| id.priority() == priority)
    }
}

/// A borrowed outbox, such as in a static variable, which is not moved over the stack with the link.
impl<O: Outbox + ?Sized> Outbox for &mut O {
    fn push(&mut self, entry: Entry<'_>) -> Result<(), OutboxError> {
        (**self).push(entry)
    }

    fn get(&self, id: MessageId) -> Option<Entry<'_>> {
        (**self).get(id)
    }

    fn next(&self, from: MessageId) -> Option<MessageId> {
        (**self).next(from)
    }

    fn remove(&mut self, id: MessageId, outcome: Outcome) -> bool {
        (**self).remove(id, outcome)
    }

    fn last(&self) -> Option<MessageId> {
        (**self).last()
    }

    fn usage(&self) -> Usage {
        (**self).usage()
    }

    fn capacity(&self) -> Usage {
        (**self).capacity()
    }

    fn first_to_leave(&self) -> Option<MessageId> {
        (**self).first_to_leave()
    }

    fn first(&self) -> Option<MessageId> {
        (**self).first()
    }

    fn first_of(&self, priority: Priority) -> Option<MessageId> {
        (**self).first_of(priority)
    }
}

/// An outbox of `SLOTS` messages and `BYTES` bytes in RAM, without a heap. It does not survive a power failure.
#[derive(Clone, Debug)]
pub struct RamOutbox<const SLOTS: usize, const BYTES: usize> {
    /// Sorted by id.
    slots: Vec<Slot, SLOTS>,
    /// Each message's property bag or topic, then its properties and its payload, in order of acceptance and without
    /// gaps.
    bytes: Vec<u8, BYTES>,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    id: MessageId,
    /// [`NEVER`] for never.
    expires: Instant,
    /// 0 for none.
    created_unix_ms: u64,
    /// Where its bytes start.
    start: usize,
    text_len: usize,
    payload_len: usize,
    properties_len: u16,
    telemetry: bool,
    retain: bool,
}

/// Marks a message without expiry.
const NEVER: Instant = Instant::from_millis(u64::MAX);

impl<const SLOTS: usize, const BYTES: usize> RamOutbox<SLOTS, BYTES> {
    /// Makes an empty outbox.
    #[must_use]
    pub const fn new() -> Self {
        Self { slots: Vec::new(), bytes: Vec::new() }
    }

    fn find(&self, id: MessageId) -> Result<usize, usize> {
        self.slots.binary_search_by_key(&id, |slot| slot.id)
    }
}

impl<const SLOTS: usize, const BYTES: usize> Default for RamOutbox<SLOTS, BYTES> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const SLOTS: usize, const BYTES: usize> Outbox for RamOutbox<SLOTS, BYTES> {
    fn push(&mut self, entry: Entry<'_>) -> Result<(), OutboxError> {
        let (text, size) = (entry.destination.text(), entry.size());
        let properties_len = u16::try_from(entry.properties.len());
        let Some(properties_len) = properties_len.ok().filter(|_| size <= BYTES) else {
            return Err(OutboxError::TooLarge { size, limit: BYTES });
        };
        if self.slots.is_full() || size > BYTES.saturating_sub(self.bytes.len()) {
            return Err(OutboxError::Full);
        }
        let slot = Slot {
            id: entry.id,
            expires: entry.expires.unwrap_or(NEVER),
            created_unix_ms: entry.created_unix_ms.unwrap_or(0),
            start: self.bytes.len(),
            text_len: text.len(),
            payload_len: entry.payload.len(),
            properties_len,
            telemetry: matches!(entry.destination, Destination::Telemetry(_)),
            retain: entry.retain,
        };
        for part in [text.as_bytes(), entry.properties, entry.payload] {
            self.bytes.extend_from_slice(part).map_err(|_| OutboxError::Full)?;
        }
        let place = self.find(entry.id).unwrap_or_else(|place| place);
        self.slots.push(slot).map_err(|_| OutboxError::Full)?;
        // Moves it to its sorted position.
        for at in (place..self.slots.len()).rev() {
            if let Some([before, behind]) = self.slots.get_mut(at..).and_then(<[Slot]>::first_chunk_mut) {
                core::mem::swap(before, behind);
            }
        }
        Ok(())
    }

    fn get(&self, id: MessageId) -> Option<Entry<'_>> {
        let slot = self.slots.get(self.find(id).ok()?)?;
        let middle = slot.start.saturating_add(slot.text_len);
        let text = core::str::from_utf8(self.bytes.get(slot.start..middle)?).ok()?;
        let (properties, rest) = self.bytes.get(middle..)?.split_at_checked(slot.properties_len.into())?;
        let payload = rest.get(..slot.payload_len)?;
        let destination = if slot.telemetry { Destination::Telemetry(text) } else { Destination::Topic(text) };
        let expires = Some(slot.expires).filter(|at| *at != NEVER);
        let created_unix_ms = Some(slot.created_unix_ms).filter(|at| *at != 0);
        let retain = slot.retain;
        Some(Entry { id, destination, properties, payload, retain, expires, created_unix_ms })
    }

    fn next(&self, from: MessageId) -> Option<MessageId> {
        let at = self.find(from).unwrap_or_else(|place| place);
        self.slots.get(at).map(|slot| slot.id)
    }

    fn remove(&mut self, id: MessageId, _: Outcome) -> bool {
        let Ok(at) = self.find(id) else { return false };
        let Some(gone) = self.slots.get(at).copied() else { return false };
        let size = gone.text_len.saturating_add(gone.properties_len.into()).saturating_add(gone.payload_len);
        let end = gone.start.saturating_add(size);
        let len = self.bytes.len();
        if end <= len {
            self.bytes.copy_within(end..len, gone.start);
            self.bytes.truncate(len.saturating_sub(size));
        }
        // It moves backward to the end.
        for at in at..self.slots.len() {
            if let Some([before, behind]) = self.slots.get_mut(at..).and_then(<[Slot]>::first_chunk_mut) {
                core::mem::swap(before, behind);
            }
        }
        self.slots.pop();
        for slot in &mut self.slots {
            if slot.start > gone.start {
                slot.start = slot.start.saturating_sub(size);
            }
        }
        true
    }

    fn first(&self) -> Option<MessageId> {
        self.slots.first().map(|slot| slot.id)
    }

    fn last(&self) -> Option<MessageId> {
        self.slots.last().map(|slot| slot.id)
    }

    fn usage(&self) -> Usage {
        Usage { messages: self.slots.len(), bytes: self.bytes.len() }
    }

    fn capacity(&self) -> Usage {
        Usage { messages: SLOTS, bytes: BYTES }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outbox_that_lies_elsewhere_holds_what_is_pushed_through_the_reference() {
        let mut elsewhere = RamOutbox::<2, 64>::new();
        let destination = Destination::Telemetry("");
        let entry = |id| Entry::new(MessageId(id), destination, b"21");
        let mut outbox = &mut elsewhere;
        for id in [5, 6] {
            assert_eq!(Outbox::push(&mut outbox, entry(id)), Ok(()));
        }
        assert_eq!(Outbox::push(&mut outbox, entry(7)), Err(OutboxError::Full));
        assert!(Outbox::remove(&mut outbox, MessageId(5), Outcome::Delivered));
        assert_eq!(
            (elsewhere.first(), elsewhere.last(), elsewhere.usage().messages),
            (Some(MessageId(6)), Some(MessageId(6)), 1)
        );
        assert_eq!(elsewhere.get(MessageId(6)).map(|entry| entry.payload), Some(&b"21"[..]));
    }
}
