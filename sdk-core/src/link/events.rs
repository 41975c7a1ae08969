//! Events of a link, and their queue.

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

/// Slots reserved for events that are not about a single message, including one for each reason to drop messages.
const KEPT: usize = 9;

/// An event of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The link is up: subscriptions are acknowledged and messages are sent.
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
        /// The delay until the next attempt.
        delay: Duration,
    },
    /// The link disconnects to reconnect with a new token. Not a fault.
    Renewing,
    /// The Device Provisioning Service has assigned a hub; see [`crate::Link::assignment`].
    Provisioned {
        /// Whether it is another hub than before; the outbox moves with the device.
        migrated: bool,
    },
    /// The service acknowledged the message.
    Delivered(MessageId),
    /// Messages left the outbox undelivered. Messages dropped for one reason between two polls are one event.
    Dropped(Dropped),
    /// More inbound messages wait for [`crate::Link::acknowledge`] than the link can track; the service will redeliver
    /// this one on a later connection.
    InboundOverflow,
    /// The broker granted a subscription with this QoS, which may be lower than the requested one.
    Subscribed {
        /// The name [`crate::Link::subscribe`] gave.
        subscription: SubscriptionId,
        /// The granted QoS.
        qos: QoS,
    },
    /// The broker refused a subscription. The link requests it again on the next connection, unless the application
    /// [unsubscribes](crate::Link::unsubscribe).
    SubscriptionRefused {
        /// The name [`crate::Link::subscribe`] gave.
        subscription: SubscriptionId,
    },
    /// The broker has ended a subscription at the application's request; its id is free again.
    Unsubscribed {
        /// The name [`crate::Link::subscribe`] gave.
        subscription: SubscriptionId,
    },
    /// The wall clock differs from the service's by this many seconds (positive: the device is behind); tokens use the
    /// service's time until the clock is corrected.
    ClockSkew {
        /// Service's time minus the device's.
        seconds: i64,
    },
    /// The application has stopped the link.
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

/// A bounded queue of events. It never decides the outcome of a message.
#[derive(Clone, Debug)]
pub(super) struct Events(Vec<Event, PLACES>);

impl Events {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    /// Whether there is room for an event about a single message.
    pub(super) fn has_room(&self) -> bool {
        self.0.len() < const { PLACES - KEPT }
    }

    /// Queues the event of an acknowledged message. The link consumes bytes only while there [is room](Self::has_room)
    /// for it.
    pub(super) fn delivered(&mut self, id: MessageId) {
        let _ = self.0.push(Event::Delivered(id));
    }

    /// Queues a dropped message, in the event of earlier ones if that is still queued.
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

    /// Queues an event that is not about a single message.
    ///
    /// The reserved slots suffice, since each event follows an action that had to be polled, or a command; of commands
    /// repeated without polling the latest counts.
    pub(super) fn report(&mut self, event: Event) {
        if self.0.last().is_some_and(|last| discriminant(last) == discriminant(&event)) {
            self.0.pop();
        }
        self.push(event);
    }

    /// Queues an event regardless of the previous one. Without room it replaces the latest.
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
