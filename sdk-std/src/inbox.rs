//! Messages from the service to the device.

use std::fmt;
use std::sync::Arc;

use steadfast_core::mqtt::PacketId;
use steadfast_core::{Attempt, Received};

use crate::clock;
use crate::shared::Shared;

/// Most messages without acknowledgement (QoS 0) that wait for the application.
pub(crate) const INBOX: usize = 64;

/// A message as it waits in the inbox.
#[derive(Debug)]
pub(crate) struct Body {
    topic: Box<str>,
    payload: Box<[u8]>,
    dup: bool,
    /// What acknowledges it, for QoS 1.
    pub(crate) owed: Option<(PacketId, Attempt)>,
}

impl Body {
    /// Copies a message out of the bytes received; other things received are none.
    pub(crate) fn copy(received: &Received<'_>, attempt: Attempt) -> Option<Self> {
        let Received::Message { topic, payload, packet_id, dup } = *received else { return None };
        let owed = packet_id.map(|packet_id| (packet_id, attempt));
        Some(Self { topic: topic.into(), payload: payload.into(), dup, owed })
    }
}

/// A message from the service.
///
/// One of QoS 1 is to be [acknowledged](Self::acknowledge) once it is handled; dropped without that, the service sends
/// it again on a later connection, and the acknowledgements of later ones wait, since MQTT wants them in order.
pub struct Inbound {
    body: Body,
    shared: Arc<Shared>,
}

impl Inbound {
    pub(crate) const fn new(body: Body, shared: Arc<Shared>) -> Self {
        Self { body, shared }
    }

    /// Returns the topic.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.body.topic
    }

    /// Returns the body.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.body.payload
    }

    /// Returns whether the service says it may have sent the message before.
    #[must_use]
    pub const fn dup(&self) -> bool {
        self.body.dup
    }

    /// Tells the service that the message is handled, so that it is not sent again.
    ///
    /// Returns false when the connection it came on has ended: the service sends it again. A message of QoS 0 needs no
    /// acknowledgement and returns true.
    #[expect(clippy::must_use_candidate, reason = "the acknowledgement is the point")]
    pub fn acknowledge(self) -> bool {
        let Some((packet_id, attempt)) = self.body.owed else { return true };
        self.shared.command(|inner| inner.link.acknowledge(packet_id, attempt, clock::now()))
    }
}

impl fmt::Debug for Inbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbound")
            .field("topic", &self.topic())
            .field("len", &self.payload().len())
            .finish_non_exhaustive()
    }
}
