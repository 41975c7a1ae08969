//! Types shared by both protocol versions.

use core::fmt;
use core::num::NonZeroU16;

/// The packet id, valid until its acknowledgement: 1 to 65,535 (section 2.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PacketId(NonZeroU16);

impl PacketId {
    /// Returns the packet id with this number, or `None` for 0, which is invalid. `[MQTT-2.3.1-1]`
    #[must_use]
    pub const fn new(number: u16) -> Option<Self> {
        match NonZeroU16::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// Returns the number, never 0.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

impl fmt::Display for PacketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How surely a message is delivered (section 4.3), as far as IoT Hub offers it.
///
/// QoS 2, "exactly once", is neither sent nor accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "the two levels of the standard that the hub supports")]
pub enum QoS {
    /// Level 0: sent once, never acknowledged.
    AtMostOnce = 0,
    /// QoS 1: repeated until acknowledged, so it may arrive twice.
    AtLeastOnce = 1,
}

/// The type in the upper four bits of a packet's first byte (section 2.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "all types of the standard but the two reserved ones")]
pub enum PacketType {
    /// A client asks for a connection.
    Connect = 1,
    /// A server accepts or refuses it.
    ConnAck = 2,
    /// A message, in either direction.
    Publish = 3,
    /// Acknowledges a message of level 1.
    PubAck = 4,
    /// First answer to a message of level 2.
    PubRec = 5,
    /// Second step of a message of level 2.
    PubRel = 6,
    /// Last step of a message of level 2.
    PubComp = 7,
    /// A client subscribes.
    Subscribe = 8,
    /// A server grants or refuses subscriptions.
    SubAck = 9,
    /// A client unsubscribes.
    Unsubscribe = 10,
    /// A server confirms it.
    UnsubAck = 11,
    /// A client pings the server.
    PingReq = 12,
    /// A server gives it.
    PingResp = 13,
    /// A client disconnects.
    Disconnect = 14,
}

impl PacketType {
    /// Returns the type that the first byte of a packet names, or `None` for the reserved types 0 and 15.
    #[must_use]
    pub const fn of(first_byte: u8) -> Option<Self> {
        Some(match first_byte >> 4 {
            1 => Self::Connect,
            2 => Self::ConnAck,
            3 => Self::Publish,
            4 => Self::PubAck,
            5 => Self::PubRec,
            6 => Self::PubRel,
            7 => Self::PubComp,
            8 => Self::Subscribe,
            9 => Self::SubAck,
            10 => Self::Unsubscribe,
            11 => Self::UnsubAck,
            12 => Self::PingReq,
            13 => Self::PingResp,
            14 => Self::Disconnect,
            _ => return None,
        })
    }

    /// Returns the name as the standard writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "CONNECT",
            Self::ConnAck => "CONNACK",
            Self::Publish => "PUBLISH",
            Self::PubAck => "PUBACK",
            Self::PubRec => "PUBREC",
            Self::PubRel => "PUBREL",
            Self::PubComp => "PUBCOMP",
            Self::Subscribe => "SUBSCRIBE",
            Self::SubAck => "SUBACK",
            Self::Unsubscribe => "UNSUBSCRIBE",
            Self::UnsubAck => "UNSUBACK",
            Self::PingReq => "PINGREQ",
            Self::PingResp => "PINGRESP",
            Self::Disconnect => "DISCONNECT",
        }
    }
}

impl fmt::Display for PacketType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a server answers: the reason code of MQTT 5 (section 2.4), which MQTT 3.1.1 fills with [`SUCCESS`](Self::SUCCESS)
/// where it has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reason(u8);

impl Reason {
    /// 0x00: the packet was accepted.
    pub const SUCCESS: Self = Self(0);

    /// Returns the reason with this code.
    #[must_use]
    pub const fn new(code: u8) -> Self {
        Self(code)
    }

    /// Returns the code.
    #[must_use]
    pub const fn code(self) -> u8 {
        self.0
    }

    /// Returns whether it is a failure: 0x80 or greater (MQTT 5, section 2.4).
    #[must_use]
    pub const fn is_failure(self) -> bool {
        self.0 >= 0x80
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:02x}", self.0)
    }
}

/// A server's limits for a connection. An MQTT 5 server sends them in CONNACK (section 3.2.2.3); an MQTT 3.1.1 server
/// has fixed ones: [`Terms::MQTT_3_1_1`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Terms {
    /// Receive Maximum: limit of QoS 1 messages in flight.
    pub receive_max: u16,
    /// Length of the longest packet, in bytes.
    pub packet_max: usize,
}

impl Terms {
    /// No limit except those of the packet format.
    pub const MQTT_3_1_1: Self = Self { receive_max: u16::MAX, packet_max: usize::MAX };
}
