//! A device of the world: a link and what its frontend knows.

use std::rc::Rc;

use steadfast_core::azure::key_choice::KeyChoice;
use steadfast_core::{
    AnyProfile, Assignment, Attempt, BackoffSnapshot, CallId, Config, Event, HubLink, LocalFailure, ServiceKind,
    Settings, iothub,
};

use crate::https::{Chip, Dialogue};
use crate::oracle::Oracle;
use crate::recorded::Recorded;
use crate::service::Key;

/// A configuration that links of the world share.
#[derive(Clone, Debug)]
pub struct Shared(pub(crate) Rc<Config<String>>);

impl Settings for Shared {
    type Text = String;

    const HTTPS: bool = true;

    fn config(&self) -> &Config<String> {
        &self.0
    }
}

/// The link of a device of the world, with room for 4 KiB of reported properties and of answers.
pub type DeviceLink<O> = HubLink<Recorded<O>, AnyProfile<Shared>, Box<[u8]>>;

/// How bytes from a service reach the link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Feed {
    /// As they were sent.
    #[default]
    Whole,
    /// In pieces of random length.
    Pieces,
    /// One by one.
    Bytes,
    /// As decoded packets, as frontends over another MQTT client hand them in.
    Packets,
}

/// How the holder of the key answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Signing {
    /// At once.
    #[default]
    Prompt,
    /// After so many milliseconds.
    After(u64),
    /// Never.
    Never,
    /// It fails, for this reason.
    Fails(LocalFailure),
}

/// A connection attempt, as the frontend saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AttemptRecord {
    /// When it began, in milliseconds.
    pub at_ms: u64,
    /// Its number.
    pub attempt: Attempt,
    /// Where it went.
    pub host: String,
    /// Which service that is.
    pub role: ServiceKind,
}

/// Something the application received.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Inbound {
    /// During which attempt.
    pub attempt: Attempt,
    /// The topic, `inputs/` and the rest for an input of a module; empty for the payload of an assignment.
    pub topic: String,
    /// The body.
    pub payload: Vec<u8>,
    /// The packet id, for QoS 1.
    pub packet_id: Option<steadfast_core::mqtt::PacketId>,
    /// Whether it was marked as a repetition.
    pub dup: bool,
    /// Whether the link knew it by its message id.
    pub duplicate: bool,
}

/// What a service of a hub told the application.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Told {
    /// The twin.
    Twin {
        /// Its desired properties.
        desired: serde_json::Value,
        /// Their version.
        version: u64,
        /// It was made anew.
        reset: bool,
    },
    /// A change of desired properties.
    Desired {
        /// The change.
        patch: serde_json::Value,
        /// Their version.
        version: u64,
    },
    /// A method call.
    Call {
        /// What answers it.
        call: CallId,
        /// The method.
        name: String,
        /// The body.
        payload: Vec<u8>,
    },
}

/// A frontend that takes bytes only as fast as its uplink carries them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Uplink {
    pub(crate) buffer: usize,
    pub(crate) bytes_per_tick: usize,
}

/// Milliseconds between two movements of an uplink.
pub(crate) const TICK_MS: u64 = 100;

#[derive(Debug)]
pub(crate) struct Device<O> {
    pub(crate) id: String,
    pub(crate) link: DeviceLink<O>,
    pub(crate) key: Option<Key>,
    pub(crate) second_key: Option<Key>,
    /// Which of the two to sign with, for the provisioning service and for the hub.
    pub(crate) choices: [KeyChoice; 2],
    /// The TPM that signs for it, in place of a key.
    pub(crate) chip: Option<Chip>,
    pub(crate) feed: Feed,
    pub(crate) signing: Signing,
    pub(crate) uplink: Option<Uplink>,
    pub(crate) timer_lag_ms: u64,
    pub(crate) acknowledges: bool,
    pub(crate) asleep_until: u64,
    pub(crate) armed: Option<u64>,
    pub(crate) spins: (u64, u32),
    pub(crate) last_hub: String,
    pub(crate) events: Vec<(u64, Event)>,
    /// Events of the hub's services.
    pub(crate) service_events: Vec<(u64, iothub::Event)>,
    pub(crate) attempts: Vec<AttemptRecord>,
    pub(crate) inbound: Vec<Inbound>,
    pub(crate) told: Vec<(u64, Told)>,
    pub(crate) saved: Option<Assignment>,
    pub(crate) memory: Option<BackoffSnapshot>,
    pub(crate) oracle: Oracle,
    pub(crate) published: u64,
    /// Whether it was up, and had messages, at the latest look.
    pub(crate) up: bool,
    pub(crate) busy: bool,
}

/// A connection of a device to a service.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) device: usize,
    pub(crate) attempt: Attempt,
    pub(crate) host: String,
    pub(crate) role: ServiceKind,
    /// Whether the frontend still has its end.
    pub(crate) here: bool,
    /// Whether bytes can flow.
    pub(crate) ready: bool,
    /// Whether the service still has its end.
    pub(crate) there: bool,
    /// Nothing passes any more, and nobody is told.
    pub(crate) frozen: bool,
    /// The service reads no more.
    pub(crate) deaf: bool,
    pub(crate) received: Vec<u8>,
    pub(crate) backlog: Vec<u8>,
    pub(crate) ticking: bool,
    pub(crate) stream: bytes::BytesMut,
    pub(crate) last_to_service: u64,
    pub(crate) last_to_device: u64,
    pub(crate) sent_connect: bool,
    pub(crate) sent_disconnect: bool,
    /// It carries HTTPS and no packet.
    pub(crate) https: bool,
    /// A registration over HTTPS, if it is one.
    pub(crate) dialogue: Dialogue,
}
