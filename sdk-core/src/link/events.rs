//! What a link reports, and the queue of it.

use core::fmt;
use core::time::Duration;

use heapless::Vec;

use crate::failure::Failure;
use crate::io::SubscriptionId;
use crate::mqtt::QoS;
use crate::outbox::MessageId;
use crate::queue::pop_front;

/// Most events that wait.
const PLACES: usize = 16;

/// Places among them kept for what is not about a single message.
const KEPT: usize = 6;

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
    /// The message left the outbox undelivered.
    Dropped(MessageId, DropReason),
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

/// Why a message left the outbox undelivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DropReason {
    /// Its time ran out.
    Expired,
    /// It made room for a newer one.
    Evicted,
    /// The service does not take it.
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

/// A bounded queue of events.
#[derive(Clone, Debug)]
pub(super) struct Events(Vec<Event, PLACES>);

impl Events {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    /// Whether an event about a single message has a place.
    pub(super) fn has_room(&self) -> bool {
        self.room() > 0
    }

    /// How many events about single messages have a place.
    pub(super) fn room(&self) -> usize {
        PLACES.saturating_sub(KEPT).saturating_sub(self.0.len())
    }

    /// Takes an event about a single message; the caller has made sure of a place.
    pub(super) fn delivered(&mut self, id: MessageId) {
        let _ = self.0.push(Event::Delivered(id));
    }

    /// Takes an event about a single message; the caller has made sure of a place.
    pub(super) fn dropped(&mut self, id: MessageId, reason: DropReason) {
        let _ = self.0.push(Event::Dropped(id, reason));
    }

    /// Takes an event that is not about a single message.
    ///
    /// The places kept for them suffice, since each follows an action that had to be polled for, or a command; of
    /// commands repeated without polling the latest counts.
    pub(super) fn report(&mut self, event: Event) {
        if self.0.last() == Some(&event) {
            return;
        }
        if self.0.is_full() {
            self.0.pop();
        }
        let _ = self.0.push(event);
    }

    pub(super) fn pop(&mut self) -> Option<Event> {
        pop_front(&mut self.0)
    }
}
