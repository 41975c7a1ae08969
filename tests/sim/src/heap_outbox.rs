//! An outbox on the heap, for worlds of one large or many small queues.

use std::collections::BTreeMap;

use steadfast_core::{Destination, Entry, Instant, MessageId, Outbox, OutboxError, Outcome, Usage};

/// An outbox whose size is a number, not a type.
#[derive(Clone, Debug)]
pub struct HeapOutbox {
    capacity: Usage,
    bytes: usize,
    messages: BTreeMap<MessageId, Message>,
}

#[derive(Clone, Debug)]
struct Message {
    telemetry: bool,
    text: String,
    properties: Vec<u8>,
    payload: Vec<u8>,
    retain: bool,
    expires: Option<Instant>,
    created_unix_ms: Option<u64>,
}

impl HeapOutbox {
    /// Makes an outbox for so many messages and bytes.
    #[must_use]
    pub const fn new(messages: usize, bytes: usize) -> Self {
        Self { capacity: Usage { messages, bytes }, bytes: 0, messages: BTreeMap::new() }
    }
}

impl Outbox for HeapOutbox {
    fn push(&mut self, entry: Entry<'_>) -> Result<(), OutboxError> {
        let (text, size) = (entry.destination.text(), entry.size());
        if size > self.capacity.bytes {
            return Err(OutboxError::TooLarge { size, limit: self.capacity.bytes });
        }
        if self.messages.len() >= self.capacity.messages || self.bytes + size > self.capacity.bytes {
            return Err(OutboxError::Full);
        }
        self.bytes += size;
        let telemetry = matches!(entry.destination, Destination::Telemetry(_));
        let Entry { retain, expires, created_unix_ms, .. } = entry;
        let (properties, payload) = (entry.properties.into(), entry.payload.into());
        let message = Message { telemetry, text: text.into(), properties, payload, retain, expires, created_unix_ms };
        self.messages.insert(entry.id, message);
        Ok(())
    }

    fn get(&self, id: MessageId) -> Option<Entry<'_>> {
        let message = self.messages.get(&id)?;
        let text = message.text.as_str();
        let destination = if message.telemetry { Destination::Telemetry(text) } else { Destination::Topic(text) };
        let Message { properties, payload, retain, expires, created_unix_ms, .. } = message;
        let (retain, expires, created_unix_ms) = (*retain, *expires, *created_unix_ms);
        Some(Entry { properties, retain, expires, created_unix_ms, ..Entry::new(id, destination, payload) })
    }

    fn next(&self, from: MessageId) -> Option<MessageId> {
        self.messages.range(from..).next().map(|(id, _)| *id)
    }

    fn remove(&mut self, id: MessageId, _: Outcome) -> bool {
        let gone = self.messages.remove(&id);
        self.bytes -=
            gone.as_ref().map_or(0, |message| message.text.len() + message.properties.len() + message.payload.len());
        gone.is_some()
    }

    fn last(&self) -> Option<MessageId> {
        self.messages.keys().next_back().copied()
    }

    fn usage(&self) -> Usage {
        Usage { messages: self.messages.len(), bytes: self.bytes }
    }

    fn capacity(&self) -> Usage {
        self.capacity
    }
}
