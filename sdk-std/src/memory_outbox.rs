//! The outbox in memory: bounded by count and bytes, without memory when empty.

use std::cell::Cell;
use std::collections::VecDeque;

use steadfast_core::{Destination, Entry, Instant, MessageId, Outbox, OutboxError, Outcome, Priority, Usage};

/// Removed slots tolerated in addition to the number of live ones.
const SPARE_SLOTS: usize = 64;

/// Capacity up to which an empty table is kept.
const KEPT_SLOTS: usize = 16;

/// Keeps messages in memory; they do not survive the process.
pub(crate) struct MemoryOutbox {
    urgent: Slots,
    normal: Slots,
    used: Usage,
    capacity: Usage,
    /// Removed messages that were not yet passed on.
    ended: Cell<Vec<(MessageId, Outcome)>>,
}

/// The messages of one priority.
///
/// Slots in order of their ids. Ids are consecutive, so the index of an id is nearly always its distance from the first
/// one; removed slots in the middle are compacted when they outnumber the live ones.
#[derive(Debug, Default)]
struct Slots {
    slots: VecDeque<Slot>,
    live: usize,
}

#[derive(Debug)]
struct Slot {
    id: MessageId,
    /// Property bag or topic, then payload; `None` once removed.
    body: Option<Box<[u8]>>,
    text_len: usize,
    properties_len: u16,
    retain: bool,
    telemetry: bool,
    expires: Option<Instant>,
    created_unix_ms: Option<u64>,
}

impl MemoryOutbox {
    pub(crate) const fn new(capacity: Usage) -> Self {
        const NONE: Slots = Slots { slots: VecDeque::new(), live: 0 };
        Self {
            urgent: NONE,
            normal: NONE,
            used: Usage { messages: 0, bytes: 0 },
            capacity,
            ended: Cell::new(Vec::new()),
        }
    }

    /// Returns the messages that ended since the last call, with their outcome. Called in each turn.
    pub(crate) fn drain_ended(&self, mut each: impl FnMut(MessageId, Outcome)) {
        let mut ended = self.ended.take();
        ended.drain(..).for_each(|(id, outcome)| each(id, outcome));
        if (1..=KEPT_SLOTS).contains(&ended.capacity()) {
            self.ended.set(ended);
        }
    }

    fn has_room_for(&self, size: usize) -> bool {
        self.used.messages < self.capacity.messages && size <= self.capacity.bytes.saturating_sub(self.used.bytes)
    }

    const fn priority(&self, priority: Priority) -> &Slots {
        match priority {
            Priority::Urgent => &self.urgent,
            Priority::Normal => &self.normal,
        }
    }

    const fn priority_mut(&mut self, priority: Priority) -> &mut Slots {
        match priority {
            Priority::Urgent => &mut self.urgent,
            Priority::Normal => &mut self.normal,
        }
    }
}

impl Slots {
    fn next(&self, from: MessageId) -> Option<MessageId> {
        let place = self.place(from).unwrap_or_else(|place| place);
        self.slots.range(place..).find(|slot| slot.body.is_some()).map(|slot| slot.id)
    }

    fn last(&self) -> Option<MessageId> {
        self.slots.iter().rev().find(|slot| slot.body.is_some()).map(|slot| slot.id)
    }

    /// Returns the bytes of the message removed.
    fn remove(&mut self, id: MessageId) -> Option<usize> {
        let place = self.place(id).ok()?;
        let body = self.slots.get_mut(place)?.body.take()?;
        self.live = self.live.saturating_sub(1);
        self.tidy();
        Some(body.len())
    }

    /// The index of `id`, or of the first id after it.
    fn place(&self, id: MessageId) -> Result<usize, usize> {
        let Some(first) = self.slots.front() else { return Err(0) };
        let Some(ahead) = id.get().checked_sub(first.id.get()) else { return Err(0) };
        let guess = usize::try_from(ahead).unwrap_or(usize::MAX);
        match self.slots.get(guess) {
            Some(slot) if slot.id == id => Ok(guess),
            _ => self.slots.binary_search_by_key(&id, |slot| slot.id),
        }
    }

    fn tidy(&mut self) {
        while self.slots.front().is_some_and(|slot| slot.body.is_none()) {
            self.slots.pop_front();
        }
        if self.slots.is_empty() {
            if self.slots.capacity() > KEPT_SLOTS {
                self.slots = VecDeque::new();
            }
        } else if self.slots.len() > self.live.saturating_mul(2).saturating_add(SPARE_SLOTS) {
            self.slots.retain(|slot| slot.body.is_some());
        }
    }
}

impl Outbox for MemoryOutbox {
    fn push(&mut self, entry: Entry<'_>) -> Result<(), OutboxError> {
        let text = entry.destination.text();
        let size = entry.size();
        let Some(properties_len) = u16::try_from(entry.properties.len()).ok().filter(|_| size <= self.capacity.bytes)
        else {
            return Err(OutboxError::TooLarge { size, limit: self.capacity.bytes });
        };
        if !self.has_room_for(size) {
            return Err(OutboxError::Full);
        }
        let mut body = Vec::with_capacity(size);
        body.extend_from_slice(text.as_bytes());
        body.extend_from_slice(entry.properties);
        body.extend_from_slice(entry.payload);
        let priority = self.priority_mut(entry.id.priority());
        priority.live += 1;
        priority.slots.push_back(Slot {
            id: entry.id,
            body: Some(body.into_boxed_slice()),
            text_len: text.len(),
            properties_len,
            retain: entry.retain,
            telemetry: matches!(entry.destination, Destination::Telemetry(_)),
            expires: entry.expires,
            created_unix_ms: entry.created_unix_ms,
        });
        self.used.messages += 1;
        self.used.bytes += size;
        Ok(())
    }

    fn get(&self, id: MessageId) -> Option<Entry<'_>> {
        let priority = self.priority(id.priority());
        let slot = priority.slots.get(priority.place(id).ok()?)?;
        let (text, rest) = slot.body.as_deref()?.split_at_checked(slot.text_len)?;
        let (properties, payload) = rest.split_at_checked(slot.properties_len.into())?;
        let text = std::str::from_utf8(text).ok()?;
        let destination = if slot.telemetry { Destination::Telemetry(text) } else { Destination::Topic(text) };
        let Slot { retain, expires, created_unix_ms, .. } = *slot;
        Some(Entry { id, destination, properties, payload, retain, expires, created_unix_ms })
    }

    fn next(&self, from: MessageId) -> Option<MessageId> {
        match from.priority() {
            Priority::Urgent => self.urgent.next(from).or_else(|| self.normal.next(from)),
            Priority::Normal => self.normal.next(from),
        }
    }

    fn remove(&mut self, id: MessageId, outcome: Outcome) -> bool {
        let Some(bytes) = self.priority_mut(id.priority()).remove(id) else { return false };
        self.ended.get_mut().push((id, outcome));
        self.used.messages = self.used.messages.saturating_sub(1);
        self.used.bytes = self.used.bytes.saturating_sub(bytes);
        true
    }

    fn last(&self) -> Option<MessageId> {
        self.normal.last().or_else(|| self.urgent.last())
    }

    fn usage(&self) -> Usage {
        self.used
    }

    fn capacity(&self) -> Usage {
        self.capacity
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: u64, payload: &[u8]) -> Entry<'_> {
        let expires = Some(Instant::from_millis(id));
        Entry { expires, ..Entry::new(MessageId::new(id), Destination::Topic("t"), payload) }
    }

    fn outbox(messages: usize, bytes: usize) -> MemoryOutbox {
        MemoryOutbox::new(Usage { messages, bytes })
    }

    fn ids(outbox: &MemoryOutbox) -> Vec<u64> {
        let mut from = MessageId::new(0);
        let mut all = Vec::new();
        while let Some(id) = outbox.next(from) {
            all.push(id.get());
            from = id.next();
        }
        all
    }

    #[test]
    fn it_keeps_the_contract_of_every_outbox() {
        for (messages, bytes) in [(1, 16), (8, 100), (64, 4096)] {
            steadfast_sim::outbox_contract(|| outbox(messages, bytes));
        }
    }

    #[test]
    fn what_was_taken_is_given_back_in_order() {
        let mut outbox = outbox(8, 64);
        let created_unix_ms = Some(7);
        let bag =
            Entry { destination: Destination::Telemetry("a=b"), expires: None, created_unix_ms, ..entry(9, b"three") };
        for entry in [entry(7, b"one"), entry(8, b""), bag] {
            outbox.push(entry).unwrap();
            assert_eq!(outbox.get(entry.id), Some(entry));
        }
        assert_eq!(ids(&outbox), [7, 8, 9]);
        assert_eq!((outbox.first(), outbox.last()), (Some(MessageId::new(7)), Some(MessageId::new(9))));
        assert_eq!(outbox.usage(), Usage { messages: 3, bytes: 4 + 1 + 8 });
        assert_eq!(outbox.get(MessageId::new(6)), None);
        assert_eq!(outbox.get(MessageId::new(10)), None);
    }

    #[test]
    fn the_urgent_come_first_whenever_they_were_taken() {
        let mut outbox = outbox(8, 64);
        let normal = Priority::Normal.first_id().get();
        for id in [normal + 7, 5, normal + 8, 6, normal + 9] {
            outbox.push(entry(id, b"x")).unwrap();
        }
        assert_eq!(ids(&outbox), [5, 6, normal + 7, normal + 8, normal + 9]);
        assert_eq!(outbox.last(), Some(MessageId::new(normal + 9)));
        assert!(
            outbox.remove(MessageId::new(5), Outcome::Delivered)
                && outbox.remove(MessageId::new(normal + 8), Outcome::Delivered)
        );
        assert_eq!(ids(&outbox), [6, normal + 7, normal + 9]);
        assert_eq!(outbox.get(MessageId::new(6)), Some(entry(6, b"x")));
        assert_eq!(outbox.first_of(Priority::Normal), Some(MessageId::new(normal + 7)));
        assert_eq!(outbox.usage(), Usage { messages: 3, bytes: 6 });
    }

    #[test]
    fn messages_go_in_any_order_and_only_once() {
        for order in [[1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]] {
            let mut outbox = outbox(3, 64);
            for id in 1..=3 {
                outbox.push(entry(id, b"x")).unwrap();
            }
            for (removed, id) in order.into_iter().enumerate() {
                assert!(outbox.remove(MessageId::new(id), Outcome::Delivered));
                assert!(!outbox.remove(MessageId::new(id), Outcome::Delivered));
                assert_eq!(outbox.usage().messages, 2 - removed);
                assert!(!ids(&outbox).contains(&id));
            }
            assert_eq!((outbox.usage(), outbox.first(), outbox.last()), (Usage::default(), None, None));
        }
    }

    #[test]
    fn count_and_bytes_are_limits_of_their_own_and_a_refusal_changes_nothing() {
        let mut outbox = outbox(2, 10);
        outbox.push(entry(1, b"12345")).unwrap();
        assert_eq!(outbox.push(entry(2, b"1234")), Err(OutboxError::Full));
        assert_eq!(outbox.push(entry(2, &[0; 10])), Err(OutboxError::TooLarge { size: 11, limit: 10 }));
        outbox.push(entry(2, b"")).unwrap();
        assert_eq!(outbox.push(entry(3, b"")), Err(OutboxError::Full));
        assert_eq!((ids(&outbox), outbox.usage()), (vec![1, 2], Usage { messages: 2, bytes: 7 }));
        outbox.remove(MessageId::new(1), Outcome::Delivered);
        assert!(outbox.has_room_for(9) && !outbox.has_room_for(10));
        outbox.push(entry(3, b"12345678")).unwrap();
    }

    #[test]
    fn one_old_message_does_not_keep_the_places_of_those_that_left() {
        let mut outbox = outbox(4, 64);
        outbox.push(entry(1, b"stays")).unwrap();
        for id in 2..10_000 {
            outbox.push(entry(id, b"goes")).unwrap();
            assert!(outbox.remove(MessageId::new(id), Outcome::Delivered));
        }
        assert!(outbox.urgent.slots.len() < 200, "{}", outbox.urgent.slots.len());
        outbox.push(entry(10_000, b"new")).unwrap();
        assert_eq!(ids(&outbox), [1, 10_000]);
        assert_eq!(outbox.next(MessageId::new(500)), Some(MessageId::new(10_000)));
        assert!(outbox.get(MessageId::new(500)).is_none());
    }

    #[test]
    fn an_empty_outbox_holds_no_memory() {
        let mut outbox = outbox(1000, 100_000);
        for id in 1..=1000 {
            outbox.push(entry(id, b"x")).unwrap();
        }
        for id in 1..=1000 {
            outbox.remove(MessageId::new(id), Outcome::Delivered);
        }
        assert_eq!(outbox.urgent.slots.capacity(), 0);
    }
}
