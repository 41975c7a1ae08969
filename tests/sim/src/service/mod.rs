//! Models of the services: pure reactions to packets, without network and clock.

mod dps;
mod dps_https;
mod hub;
mod hub_faults;
mod token;
mod twin;

use std::rc::Rc;

use rumqttc::mqttbytes::v4;
use steadfast_core::azure::sas::SymmetricKey;

pub use dps::{Dps, DpsFault, Enrollment};
pub use dps_https::{Asked, HttpAnswer, HttpRequest, HttpsFault};
pub(crate) use dps_https::{key_of, unwrap};
pub use hub::{Delivery, Hub, Receipt};
pub use hub_faults::{Acks, Greeting, HubFaults, PublishFault, SubscribeFault};
pub use twin::{MethodAnswer, Twin, TwinFault, merge};

/// A device's key, held by the device and by the services that know it.
pub type Key = Rc<SymmetricKey>;

/// Names a connection at a service.
pub type ConnectionId = u64;

/// Something a service does on one of its connections, some time after what it reacts to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Reaction {
    /// On which connection.
    pub connection: ConnectionId,
    /// After how many milliseconds.
    pub after_ms: u64,
    /// What.
    pub reply: Reply,
}

/// What a service does.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Reply {
    /// It sends a packet, written by rumqttc's codec.
    Packet(v4::Packet),
    /// It sends bytes of its own.
    Bytes(Vec<u8>),
    /// It closes the connection.
    Close,
}

impl Reaction {
    pub(crate) const fn now(connection: ConnectionId, reply: Reply) -> Self {
        Self { connection, after_ms: 0, reply }
    }

    pub(crate) const fn after(connection: ConnectionId, after_ms: u64, reply: Reply) -> Self {
        Self { connection, after_ms, reply }
    }
}
