//! Packets of a client.

use core::fmt;

use crate::mqtt::{PacketId, PacketType, QoS};
use crate::text::Text;

/// The identity and credential of CONNECT.
///
/// The texts are composed while they are written, so that no password is stored whole. Each method is called once per
/// encoding.
pub trait Login {
    /// Returns the client identifier; for a hub the device id, or `{device}/{module}` for a module.
    fn client_id(&self) -> Text<'_>;

    /// Returns the user name, if any.
    fn user_name(&self) -> Option<Text<'_>>;

    /// Returns the password, if any; only beside a user name. `[MQTT-3.1.2-22]`
    fn password(&self) -> Option<Text<'_>>;

    /// Returns the message that the server publishes when the connection ends without DISCONNECT.
    fn will(&self) -> Option<Will<'_>> {
        None
    }
}

/// The will message, which the server publishes if the connection breaks (section 3.1.2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the fields are those of the standard")]
pub struct Will<'a> {
    /// Topic name, without wildcards.
    pub topic: Text<'a>,
    /// Payload, at most 65,535 bytes.
    pub payload: &'a [u8],
    /// Level of delivery.
    pub qos: QoS,
    /// The RETAIN flag: the server keeps it for later subscribers.
    pub retain: bool,
}

/// CONNECT: asks for a connection (section 3.1).
#[derive(Clone, Copy)]
#[expect(clippy::exhaustive_structs, reason = "the fields are those of the standard")]
pub struct Connect<'a> {
    /// Who connects.
    pub login: &'a dyn Login,
    /// Whether the server forgets what it kept of earlier connections.
    pub clean_session: bool,
    /// Longest silence of the client in seconds; 0 switches the check off.
    pub keep_alive_secs: u16,
}

/// Prints the client identifier, and neither user name nor password.
impl fmt::Debug for Connect<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("client_id", &format_args!("{}", self.login.client_id()))
            .field("clean_session", &self.clean_session)
            .field("keep_alive_secs", &self.keep_alive_secs)
            .finish_non_exhaustive()
    }
}

/// PUBLISH: a message (section 3.3).
///
/// The topic is written unchanged. The caller must ensure that it is not empty and contains neither a wildcard nor
/// U+0000; otherwise a server closes the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the fields are those of the standard")]
pub struct Publish<'a> {
    /// Topic name, at most 65,535 bytes.
    pub topic: Text<'a>,
    /// The message itself; may be empty.
    pub payload: &'a [u8],
    /// `Some` sends it with QoS 1 under this id, `None` with QoS 0.
    pub packet_id: Option<PacketId>,
    /// The DUP flag; without effect for QoS 0. `[MQTT-3.3.1-2]`
    pub dup: bool,
    /// The RETAIN flag: the server keeps it for later subscribers.
    pub retain: bool,
}

/// Composes a message while it is written, such as a provisioning request. Each method is called once per encoding.
pub trait Compose {
    /// Returns the topic name, at most 65,535 bytes.
    fn topic(&self) -> Text<'_>;

    /// Returns the message itself; may be empty.
    fn payload(&self) -> Text<'_>;
}

/// PUBLISH of a message that is composed while it is written.
#[derive(Clone, Copy)]
#[expect(clippy::exhaustive_structs, reason = "the fields are those of the standard")]
pub struct PublishText<'a> {
    /// Topic name and payload.
    pub message: &'a dyn Compose,
    /// `Some` sends it with QoS 1 under this id, `None` with QoS 0.
    pub packet_id: Option<PacketId>,
}

impl fmt::Debug for PublishText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublishText")
            .field("topic", &format_args!("{}", self.message.topic()))
            .field("packet_id", &self.packet_id)
            .finish_non_exhaustive()
    }
}

/// SUBSCRIBE with one topic filter (section 3.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the fields are those of the standard")]
pub struct Subscribe<'a> {
    /// The packet id, valid until SUBACK.
    pub packet_id: PacketId,
    /// Topic filter, at most 65,535 bytes; its form is up to the caller.
    pub filter: Text<'a>,
    /// Requested QoS; the server may grant less.
    pub qos: QoS,
}

/// UNSUBSCRIBE with one topic filter (section 3.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the fields are those of the standard")]
pub struct Unsubscribe<'a> {
    /// The packet id, valid until UNSUBACK.
    pub packet_id: PacketId,
    /// Topic filter, exactly as subscribed.
    pub filter: Text<'a>,
}

/// A packet that a client sends.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Packet<'a> {
    /// Opens a connection; the first packet on it, once. `[MQTT-3.1.0-1]`
    Connect(Connect<'a>),
    /// A message.
    Publish(Publish<'a>),
    /// A message whose payload is composed while it is written.
    PublishText(PublishText<'a>),
    /// Acknowledges a message received with QoS 1.
    PubAck(PacketId),
    /// Subscribes to a filter.
    Subscribe(Subscribe<'a>),
    /// Ends a subscription.
    Unsubscribe(Unsubscribe<'a>),
    /// Pings the server.
    PingReq,
    /// Disconnects; the last packet of a connection. `[MQTT-3.14.4-2]`
    Disconnect,
}

impl Packet<'_> {
    /// Returns the type.
    #[must_use]
    pub const fn packet_type(&self) -> PacketType {
        match self {
            Self::Connect(_) => PacketType::Connect,
            Self::Publish(_) | Self::PublishText(_) => PacketType::Publish,
            Self::PubAck(_) => PacketType::PubAck,
            Self::Subscribe(_) => PacketType::Subscribe,
            Self::Unsubscribe(_) => PacketType::Unsubscribe,
            Self::PingReq => PacketType::PingReq,
            Self::Disconnect => PacketType::Disconnect,
        }
    }

    /// Returns the name as in the standard, such as `PUBLISH`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.packet_type().name()
    }
}
