//! An identity of a hub: its credentials, twin, session, connection and queue.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::config::DeviceAuth;
use crate::connections::CloseReason;
use crate::control::MethodAnswer;
use crate::inbox::{Inbox, completed};
use crate::operations::Operation;
use crate::topic::{Feed, Query, is_below};
use crate::twin::Twin;

/// An identity of a hub: a device, or a module under the name `device/module`.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) auth: DeviceAuth,
    pub(crate) enabled: bool,
    pub(crate) twin: Twin,
    pub(crate) subscriptions: Vec<Subscription>,
    pub(crate) has_session: bool,
    pub(crate) ever_connected: bool,
    pub(crate) live: Option<Live>,
    pub(crate) inbox: Inbox,
    pub(crate) calls: HashMap<String, oneshot::Sender<MethodAnswer>>,
    /// The user name query of the last CONNECT.
    pub(crate) user_query: Query,
    /// Message ids whose fault properties were applied.
    pub(crate) applied_faults: HashSet<String>,
    pub(crate) effects: Effects,
}

/// Lasting effects of fault properties: each ends at a time since start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Effects {
    pub(crate) unreachable_until: Duration,
    pub(crate) refused_until: Duration,
    pub(crate) throttled_until: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subscription {
    pub(crate) filter: String,
    pub(crate) feeds: &'static [Feed],
    pub(crate) qos: u8,
}

/// The connection of an identity.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) connection: u64,
    pub(crate) pushes: mpsc::Sender<Push>,
}

/// An instruction to a connection.
#[derive(Debug)]
pub(crate) enum Push {
    /// Sends a publish, at QoS 1 when it has a packet id.
    Publish { topic: String, payload: Bytes, packet_id: Option<u16>, dup: bool },
    /// Checks the active faults again.
    Faults { cleared: bool },
    /// Closes the socket, with a TCP reset if `reset` is true.
    Close { reason: CloseReason, reset: bool },
}

impl Device {
    pub(crate) fn new(auth: DeviceAuth) -> Self {
        Self {
            auth,
            enabled: true,
            twin: Twin::default(),
            subscriptions: Vec::new(),
            has_session: false,
            ever_connected: false,
            live: None,
            inbox: Inbox::default(),
            calls: HashMap::new(),
            user_query: Query::default(),
            applied_faults: HashSet::new(),
            effects: Effects::default(),
        }
    }

    /// Sends an instruction to the connection of this identity; false when it is not connected or does not keep up.
    pub(crate) fn push(&mut self, push: Push) -> bool {
        let Some(live) = &self.live else { return false };
        live.pushes.try_send(push).is_ok()
    }

    /// Closes the connection and detaches it, so that the identity ignores its later packets.
    pub(crate) fn cut(&mut self, reason: CloseReason) {
        self.push(Push::Close { reason, reset: false });
        self.live = None;
        self.calls.clear();
    }

    pub(crate) fn forget_session(&mut self) {
        self.has_session = false;
        if self.live.is_none() {
            self.subscriptions.clear();
        }
        self.inbox.forget_deliveries();
    }

    /// Returns the granted QoS of a feed this identity is subscribed to.
    pub(crate) fn subscribed(&self, feed: Feed) -> Option<u8> {
        let of_feed = self.subscriptions.iter().filter(|subscription| subscription.feeds.contains(&feed));
        of_feed.map(|subscription| subscription.qos).max()
    }

    /// Returns whether this identity is subscribed to a topic of a feed.
    pub(crate) fn takes(&self, feed: Feed, topic: &str) -> bool {
        self.subscriptions.iter().any(|one| one.feeds.contains(&feed) && is_below(topic, &one.filter))
    }

    /// Returns whether the device is connected and subscribed to this feed.
    pub(crate) fn listens(&self, feed: Feed) -> bool {
        self.live.is_some() && self.subscribed(feed).is_some()
    }

    /// Publishes to the device if it is connected and subscribed.
    pub(crate) fn deliver(&mut self, feed: Feed, topic: String, payload: Bytes) -> bool {
        self.subscribed(feed).is_some() && self.push(Push::Publish { topic, payload, packet_id: None, dup: false })
    }

    /// Sends the queued messages that were not yet sent on this connection.
    pub(crate) fn pump(&mut self, now: Duration, notes: &mut Vec<Operation>) {
        self.inbox.expire(now, notes);
        let Some(connection) = self.live.as_ref().map(|live| live.connection) else { return };
        let (device_qos, input_qos) = (self.subscribed(Feed::CloudToDevice), self.subscribed(Feed::Inputs));
        let mut kept = VecDeque::new();
        let mut keeps_up = true;
        while let Some(mut message) = self.inbox.messages.pop_front() {
            let qos = if message.to_input { input_qos } else { device_qos };
            let sent_here = message.sent.is_some_and(|(_, on)| on == connection);
            let Some(qos) = qos.filter(|_| keeps_up && !sent_here) else {
                kept.push_back(message);
                continue;
            };
            let packet_id = match message.sent {
                Some((packet_id, _)) => packet_id,
                None => self.inbox.packet_id_besides(&kept),
            };
            let dup = qos > 0 && message.sent.is_some();
            keeps_up = self.push(Push::Publish {
                topic: message.topic.clone(),
                payload: message.payload.clone(),
                packet_id: (qos > 0).then_some(packet_id),
                dup,
            });
            if !keeps_up {
                kept.push_back(message);
                continue;
            }
            message.deliveries += 1;
            notes.push(Operation::MessageDelivered {
                number: message.number,
                message_id: message.message_id.clone(),
                delivery: message.deliveries,
                dup,
            });
            if qos == 0 {
                notes.push(completed(&message));
            } else {
                message.sent = Some((packet_id, connection));
                kept.push_back(message);
            }
        }
        self.inbox.messages = kept;
    }
}
