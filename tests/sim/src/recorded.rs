//! An outbox that keeps how each message ended.

use std::cell::RefCell;

use steadfast_core::{Entry, MessageId, Outbox, OutboxError, Outcome, Usage};

/// Another outbox, and the messages that were removed from it since somebody asked.
#[derive(Clone, Debug)]
pub struct Recorded<O> {
    outbox: O,
    ended: RefCell<Vec<(MessageId, Outcome)>>,
}

impl<O> Recorded<O> {
    pub(crate) const fn new(outbox: O) -> Self {
        Self { outbox, ended: RefCell::new(Vec::new()) }
    }

    pub(crate) fn take_ended(&self) -> Vec<(MessageId, Outcome)> {
        self.ended.take()
    }
}

impl<O: Outbox> Outbox for Recorded<O> {
    fn push(&mut self, entry: Entry<'_>) -> Result<(), OutboxError> {
        self.outbox.push(entry)
    }

    fn get(&self, id: MessageId) -> Option<Entry<'_>> {
        self.outbox.get(id)
    }

    fn next(&self, from: MessageId) -> Option<MessageId> {
        self.outbox.next(from)
    }

    fn remove(&mut self, id: MessageId, outcome: Outcome) -> bool {
        let removed = self.outbox.remove(id, outcome);
        if removed {
            self.ended.get_mut().push((id, outcome));
        }
        removed
    }

    fn last(&self) -> Option<MessageId> {
        self.outbox.last()
    }

    fn usage(&self) -> Usage {
        self.outbox.usage()
    }

    fn capacity(&self) -> Usage {
        self.outbox.capacity()
    }
}
