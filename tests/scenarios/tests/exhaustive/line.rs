//! The line to the service, as the scene sees it.

use steadfast_core::mqtt::{Packet, PacketId};
use steadfast_core::{Attempt, ServiceKind};

/// A transport and what passed over it.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) attempt: Attempt,
    pub(crate) role: ServiceKind,
    pub(crate) ready: bool,
    pub(crate) connect: bool,
    pub(crate) greeted: bool,
    pub(crate) resumed: bool,
    pub(crate) subscribe: Option<PacketId>,
    pub(crate) granted: bool,
    pub(crate) request: Option<String>,
    /// Message, packet id and whether it was acknowledged.
    pub(crate) sent: Vec<(u64, PacketId, bool)>,
}

/// What the link sent.
pub(crate) enum Sent {
    Connect,
    Subscribe(PacketId),
    Request(String),
    Publish(u64, PacketId, bool),
    Other,
}

impl Sent {
    pub(crate) fn of(packet: &Packet<'_>) -> Self {
        if let Packet::Publish(publish) = packet {
            let topic = publish.topic.to_string();
            let id = topic.split("$.mid=").nth(1).and_then(|id| u64::from_str_radix(id, 16).ok());
            Self::Publish(id.unwrap(), publish.packet_id.unwrap(), publish.dup)
        } else if let Packet::PublishText(request) = packet {
            let topic = request.message.topic().to_string();
            let request = topic.split("$rid=").nth(1).unwrap_or("");
            Self::Request(request.split('&').next().unwrap_or("").to_owned())
        } else if let Packet::Subscribe(subscribe) = packet {
            Self::Subscribe(subscribe.packet_id)
        } else if matches!(packet, Packet::Connect(_)) {
            Self::Connect
        } else {
            Self::Other
        }
    }
}
