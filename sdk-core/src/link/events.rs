//! What a link reports, and the queue of it.

use core::mem::discriminant;
use core::time::Duration;

use heapless::Vec;

use crate::failure::Failure;
use crate::io::SubscriptionId;
use crate::mqtt::QoS;
use crate::outbox::{DropReason, MessageId};
use crate::queue::pop_front;

/// Most events that wait.
const PLACES: usize = 15;

/// Places among them kept for what is not about a single message, one for each reason to drop messages included.
const KEPT: usize = 9;

/// What became true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The link is up: subscriptions hold and messages flow.
    Up {
        /// Whether the service had kept the session.
        session_present: bool,
    },
    /// The link was up and is no longer.
    Down(Failure),
    /// An attempt failed, or the link went down; the next attempt begins after the delay.
    Retrying {
        /// Why.
        failure: Failure,
        /// How long until the next attempt.
        delay: Duration,
    },
    /// The link leaves the hub for a moment to come back with a new token. Not a fault.
    Renewing,
    /// The Device Provisioning Service named a hub; [`crate::Link::assignment`] tells which.
    Provisioned {
        /// Whether it is another hub than before; the outbox moves with the device.
        migrated: bool,
    },
    /// The service acknowledged the message.
    Delivered(MessageId),
    /// Messages left the outbox undelivered. What is dropped for one reason before the frontend asks is one event.
    Dropped(Dropped),
    /// More inbound messages wait for [`crate::Link::acknowledge`] than the link can keep track of; the service will
    /// send this one again on a later connection.
    InboundOverflow,
    /// The broker granted a subscription, with this level of delivery, which may be lower than the one asked for.
    Subscribed {
        /// The name [`crate::Link::subscribe`] gave.
        subscription: SubscriptionId,
        /// The level granted.
        qos: QoS,
    },
    /// The broker refused a subscription. It is asked for again on the next connection, unless the application
    /// [unsubscribes](crate::Link::unsubscribe).
    SubscriptionRefused {
        /// The name [`crate::Link::subscribe`] gave.
        subscription: SubscriptionId,
    },
    /// The broker holds a subscription no longer that the application ended; its name is free again.
    Unsubscribed {
        /// The name [`crate::Link::subscribe`] gave.
        subscription: SubscriptionId,
    },
    /// The wall clock differs from the service's by this many seconds (positive: the device is behind); tokens are
    /// given the service's time until the clock is set right.
    ClockSkew {
        /// Service's time minus the device's.
        seconds: i64,
    },
    /// The link has stopped at the application's wish.
    Stopped,
}

/// Messages that left the outbox undelivered for the same reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dropped {
    /// Why.
    pub reason: DropReason,
    /// How many.
    pub count: u32,
    /// The smallest id among them.
    pub first: MessageId,
    /// The greatest id among them. Not every message between the two was dropped, nor for this reason.
    pub last: MessageId,
}

/// A bounded queue of events. It never decides what becomes of a message.
#[derive(Clone, Debug)]
pub(super) struct Events(Vec<Event, PLACES>);

impl Events {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    /// Whether an event about a single message has a place.
    pub(super) fn has_room(&self) -> bool {
        self.0.len() < const { PLACES - KEPT }
    }

    /// Takes an event about a message that was acknowledged. Bytes are taken only while there [is room](Self::has_room) for
    /// it.
    pub(super) fn delivered(&mut self, id: MessageId) {
        let _ = self.0.push(Event::Delivered(id));
    }

    /// Takes note of a message that was dropped, in the event of earlier ones if that still waits.
    pub(super) fn dropped(&mut self, id: MessageId, reason: DropReason) {
        for event in &mut self.0 {
            if let Event::Dropped(dropped) = event
                && dropped.reason == reason
            {
                dropped.count = dropped.count.saturating_add(1);
                dropped.first = dropped.first.min(id);
                dropped.last = dropped.last.max(id);
                return;
            }
        }
        self.push(Event::Dropped(Dropped { reason, count: 1, first: id, last: id }));
    }

    /// Takes an event that is not about a single message.
    ///
    /// The places kept for them suffice, since each follows an action that had to be polled for, or a command; of
    /// commands repeated without polling the latest counts.
    pub(super) fn report(&mut self, event: Event) {
        if self.0.last().is_some_and(|last| discriminant(last) == discriminant(&event)) {
            self.0.pop();
        }
        self.push(event);
    }

    /// Takes an event whatever the one before it was. Where there is no place it takes that of the latest.
    pub(super) fn push(&mut self, event: Event) {
        if self.0.is_full() {
            self.0.pop();
        }
        let _ = self.0.push(event);
    }

    pub(super) fn pop(&mut self) -> Option<Event> {
        pop_front(&mut self.0)
    }
}
