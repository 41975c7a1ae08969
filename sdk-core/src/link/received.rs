//! Received values for the application.

use crate::mqtt::PacketId;

/// Data from the service for the application. `S` is the type of its texts, `B` that of its bytes: borrowed from the
/// input, or as converted by [`map`](Self::map).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Received<S, B> {
    /// A publish.
    Message {
        /// Its topic.
        topic: S,
        /// Its body.
        payload: B,
        /// The handle for [`crate::Link::acknowledge`], for QoS 1.
        packet_id: Option<PacketId>,
        /// Whether the service has sent it before.
        dup: bool,
    },
    /// The JSON text that came with an assignment.
    ProvisioningPayload(B),
}

impl<S, B> Received<S, B> {
    /// Converts the texts with `text` and the bytes with `bytes`.
    pub fn map<T, C>(self, text: impl FnOnce(S) -> T, bytes: impl FnOnce(B) -> C) -> Received<T, C> {
        match self {
            Self::Message { topic, payload, packet_id, dup } => {
                Received::Message { topic: text(topic), payload: bytes(payload), packet_id, dup }
            }
            Self::ProvisioningPayload(payload) => Received::ProvisioningPayload(bytes(payload)),
        }
    }
}
