//! Events and received values of a link with the services of a hub.

use super::operator_commands::OperatorCommand;
use super::{CallId, ReportId, TwinDocument};
use crate::iothub::property_bag::Encoded;
use crate::link;
use crate::mqtt::PacketId;

/// An event of the link or of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Of the link.
    Link(link::Event),
    /// The service has the reported properties of this name and of all earlier ones.
    Reported {
        /// The name [`crate::HubLink::report`] gave.
        report: ReportId,
        /// The version of the reported properties, if the service sent it.
        version: Option<u64>,
    },
    /// The service refused these reported properties; they are dropped.
    ReportRefused {
        /// The name [`crate::HubLink::report`] gave.
        report: ReportId,
        /// The service's HTTP-like status.
        status: u16,
    },
    /// The service throttled a twin request or failed on it: it is sent again later.
    TwinThrottled {
        /// The service's HTTP-like status, such as 429.
        status: u16,
    },
    /// The service refused to give the twin.
    TwinRefused {
        /// The service's HTTP-like status.
        status: u16,
    },
    /// Three connections in a row ended before the twin arrived: it may be larger than
    /// [`crate::SessionConfig::max_inbound`]. From now on the link requests it less and less often, at last every 8
    /// hours.
    TwinGivenUp,
    /// This many method calls, or answers to them, were dropped: their connection ended, or the caller timed out.
    CallsDropped {
        /// How many.
        count: u8,
    },
    /// A method call exceeded the limit of open calls, and was answered as busy if possible.
    CallRefused,
    /// An operator command was accepted.
    OperatorCommand(OperatorCommand),
}

impl Event {
    /// Returns the event of the link, if it is one.
    #[must_use]
    pub const fn link(&self) -> Option<&link::Event> {
        if let Self::Link(event) = self { Some(event) } else { None }
    }
}

impl From<link::Event> for Event {
    fn from(event: link::Event) -> Self {
        Self::Link(event)
    }
}

/// Data from a hub for the application. `S` is the type of its texts, `B` that of its bytes: borrowed from the input,
/// or as converted by [`map`](Self::map).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Received<S, B> {
    /// Data of no service: a broker's message, or the payload of an assignment.
    Link(link::Received<S, B>),
    /// The twin: requested, or after a missed patch.
    Twin(TwinDocument<S>),
    /// A change of desired properties: the one that follows the version delivered before.
    Desired {
        /// The version of the desired properties after it.
        version: u64,
        /// The change, a JSON object in which `null` deletes.
        patch: S,
    },
    /// A method call.
    Call {
        /// The handle for [`crate::HubLink::respond`].
        call: CallId,
        /// The method's name.
        name: Encoded<S>,
        /// The body: JSON or empty.
        payload: B,
    },
    /// A cloud-to-device message.
    CloudToDevice {
        /// Its properties; [`crate::iothub::property_bag::properties`] lists them.
        properties: S,
        /// Its body.
        payload: B,
        /// The handle for [`crate::HubLink::acknowledge`] once the application has handled it. Without that the service
        /// redelivers it on a later connection.
        packet_id: Option<PacketId>,
        /// Whether the service has sent it before.
        dup: bool,
        /// Whether the application has acknowledged it before, as far as the latest message ids are remembered.
        duplicate: bool,
    },
    /// A message routed to a module.
    Input {
        /// The input's name.
        name: Encoded<S>,
        /// Its properties.
        properties: S,
        /// Its body.
        payload: B,
        /// The handle for [`crate::HubLink::acknowledge`].
        packet_id: Option<PacketId>,
        /// Whether the service has sent it before.
        dup: bool,
    },
}

impl<S, B> Received<S, B> {
    /// Converts the texts with `text` and the bytes with `bytes`.
    pub fn map<T, C>(self, mut text: impl FnMut(S) -> T, bytes: impl FnOnce(B) -> C) -> Received<T, C> {
        match self {
            Self::Link(received) => Received::Link(received.map(text, bytes)),
            Self::Twin(twin) => Received::Twin(twin.map(text)),
            Self::Desired { version, patch } => Received::Desired { version, patch: text(patch) },
            Self::Call { call, name, payload } => {
                Received::Call { call, name: name.map(text), payload: bytes(payload) }
            }
            Self::CloudToDevice { properties, payload, packet_id, dup, duplicate } => {
                let (properties, payload) = (text(properties), bytes(payload));
                Received::CloudToDevice { properties, payload, packet_id, dup, duplicate }
            }
            Self::Input { name, properties, payload, packet_id, dup } => {
                let (name, properties, payload) = (name.map(&mut text), text(properties), bytes(payload));
                Received::Input { name, properties, payload, packet_id, dup }
            }
        }
    }
}
