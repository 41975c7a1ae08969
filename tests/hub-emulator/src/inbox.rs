//! The cloud-to-device queue: messages are delivered at QoS 1 and redelivered until their PUBACK.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use crate::Error;
use crate::operations::Operation;

/// The limit of queued messages for a device.
pub(crate) const CAPACITY: usize = 50;

/// A message to a device, kept until its PUBACK.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    /// Counted from 1 for each device.
    pub(crate) number: u64,
    pub(crate) message_id: Option<String>,
    pub(crate) topic: String,
    pub(crate) payload: Bytes,
    pub(crate) expires_at: Duration,
    /// Whether the sender requested feedback on completion, and on expiry.
    pub(crate) feedback: (bool, bool),
    /// The input of a module, if the message is for one.
    pub(crate) to_input: bool,
    /// Packet id and connection of its last delivery.
    pub(crate) sent: Option<(u16, u64)>,
    pub(crate) deliveries: u32,
}

/// The queue of one identity.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    pub(crate) messages: VecDeque<Waiting>,
    last_number: u64,
    last_packet_id: u16,
}

impl Inbox {
    /// Numbers and queues a message.
    pub(crate) fn add(&mut self, mut message: Waiting, notes: &mut Vec<Operation>) -> Result<(), Error> {
        if self.messages.len() >= CAPACITY {
            return Err(Error::QueueFull);
        }
        self.last_number += 1;
        message.number = self.last_number;
        notes.push(Operation::MessageQueued { number: message.number, message_id: message.message_id.clone() });
        self.messages.push_back(message);
        Ok(())
    }

    /// Drops expired messages.
    pub(crate) fn expire(&mut self, now: Duration, notes: &mut Vec<Operation>) {
        self.messages.retain(|message| {
            let fresh = message.expires_at > now;
            if !fresh {
                notes.push(Operation::MessageExpired {
                    number: message.number,
                    message_id: message.message_id.clone(),
                    feedback: message.feedback.1,
                });
            }
            fresh
        });
    }

    /// Completes the message delivered under `packet_id` on `connection`.
    pub(crate) fn complete(&mut self, packet_id: u16, connection: u64, notes: &mut Vec<Operation>) {
        self.messages.retain(|message| {
            let done = message.sent == Some((packet_id, connection));
            if done {
                notes.push(completed(message));
            }
            !done
        });
    }

    /// Empties the queue.
    pub(crate) fn purge(&mut self, notes: &mut Vec<Operation>) {
        if !self.messages.is_empty() {
            notes.push(Operation::MessagesPurged { count: self.messages.len() });
            self.messages.clear();
        }
    }

    /// Clears the packet ids: the next deliveries are the first of a new session.
    pub(crate) fn forget_deliveries(&mut self) {
        self.messages.iter_mut().for_each(|message| message.sent = None);
    }

    /// Returns a packet id that neither a delivered message of the queue nor `others` uses.
    pub(crate) fn packet_id_besides(&mut self, others: &VecDeque<Waiting>) -> u16 {
        loop {
            self.last_packet_id = self.last_packet_id.checked_add(1).unwrap_or(1);
            let taken = |message: &Waiting| message.sent.is_some_and(|(id, _)| id == self.last_packet_id);
            if !self.messages.iter().chain(others).any(taken) {
                return self.last_packet_id;
            }
        }
    }
}

/// Returns the operation for a completed message.
pub(crate) fn completed(message: &Waiting) -> Operation {
    Operation::MessageCompleted {
        number: message.number,
        message_id: message.message_id.clone(),
        feedback: message.feedback.0,
    }
}
