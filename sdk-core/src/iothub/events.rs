//! What a link with the services of a hub reports, and what it hands to the application.

use super::operator_commands::OperatorCommand;
use super::{CallId, ReportId, TwinDocument};
use crate::iothub::property_bag::Encoded;
use crate::link;
use crate::mqtt::PacketId;

/// What became true, of the link or of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Of the link.
    Link(link::Event),
    /// The service has the reported properties of this name and of all earlier ones.
    Reported {
        /// The name [`crate::HubLink::report`] gave.
        report: ReportId,
        /// The version of the reported properties, when the service told it.
        version: Option<u64>,
    },
    /// The service will not take these reported properties; they are dropped.
    ReportRefused {
        /// The name [`crate::HubLink::report`] gave.
        report: ReportId,
        /// The service's HTTP-like status.
        status: u16,
    },
    /// The service asks for patience, or fails, on a twin request: it is sent again later.
    TwinThrottled {
        /// The service's HTTP-like status, such as 429.
        status: u16,
    },
    /// The service refused to give the twin.
    TwinRefused {
        /// The service's HTTP-like status.
        status: u16,
    },
    /// Three connections in a row ended while the twin was awaited: it may be larger than
    /// [`crate::SessionConfig::max_inbound`]. By itself the link asks ever less often from here on, at last every 8 hours.
    TwinGivenUp,
    /// This many method calls, or answers to them, were dropped: their connection ended, or nobody waits any more.
    CallsDropped {
        /// How many.
        count: u8,
    },
    /// A method call found no place, and was answered as busy if that was possible.
    CallRefused,
    /// An operator's order was taken.
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

/// Something a hub sent to the application. `S` are its texts, `B` its bytes: borrowed from the input, as a link hands
/// them out, or what [`map`](Self::map) makes of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Received<S, B> {
    /// What is of no service: a broker's message, or what came with an assignment.
    Link(link::Received<S, B>),
    /// The twin: asked for, or because a change was missed.
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
        /// What [`crate::HubLink::respond`] wants.
        call: CallId,
        /// The method's name.
        name: Encoded<S>,
        /// The body: JSON or nothing.
        payload: B,
    },
    /// A cloud-to-device message.
    CloudToDevice {
        /// Its properties; [`crate::iothub::property_bag::properties`] lists them.
        properties: S,
        /// Its body.
        payload: B,
        /// What [`crate::HubLink::acknowledge`] wants once the application is done with it. Without that the service sends it
        /// again on a later connection.
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
        /// What [`crate::HubLink::acknowledge`] wants.
        packet_id: Option<PacketId>,
        /// Whether the service has sent it before.
        dup: bool,
    },
}

impl<S, B> Received<S, B> {
    /// Replaces the texts by what `text` makes of them, and the bytes by what `bytes` makes of them.
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
