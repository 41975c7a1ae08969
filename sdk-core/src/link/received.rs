//! What a link hands to the application.

use crate::mqtt::PacketId;

/// Something the service sent to the application. `S` are its texts, `B` its bytes: borrowed from the input, as a link
/// hands them out, or what [`map`](Self::map) makes of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Received<S, B> {
    /// A publish.
    Message {
        /// Its topic.
        topic: S,
        /// Its body.
        payload: B,
        /// What [`crate::Link::acknowledge`] wants, for QoS 1.
        packet_id: Option<PacketId>,
        /// Whether the service has sent it before.
        dup: bool,
    },
    /// The JSON text that came with an assignment.
    ProvisioningPayload(B),
}

impl<S, B> Received<S, B> {
    /// Replaces the texts by what `text` makes of them, and the bytes by what `bytes` makes of them.
    pub fn map<T, C>(self, text: impl FnOnce(S) -> T, bytes: impl FnOnce(B) -> C) -> Received<T, C> {
        match self {
            Self::Message { topic, payload, packet_id, dup } => {
                Received::Message { topic: text(topic), payload: bytes(payload), packet_id, dup }
            }
            Self::ProvisioningPayload(payload) => Received::ProvisioningPayload(bytes(payload)),
        }
    }
}
