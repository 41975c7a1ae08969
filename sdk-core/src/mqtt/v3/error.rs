//! Errors of packets.

use core::fmt;

use crate::mqtt::PacketType;
use crate::text::SinkFull;

/// Why a packet was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncodeError {
    /// A field, or all fields together, are longer than MQTT can say.
    TooLong {
        /// Which: `topic`, `filter`, `client id`, `user name`, `password`, `will topic`, `will payload`, or `packet` for
        /// all behind the fixed header.
        what: &'static str,
        /// Its size in bytes.
        size: usize,
        /// The greatest size that can be sent.
        limit: usize,
    },
    /// CONNECT asks for a kept session without a client identifier. `[MQTT-3.1.3-7]`
    NoClientId,
    /// CONNECT has a password and no user name. `[MQTT-3.1.2-22]`
    NoUserName,
    /// There is no room for the packet; it can be encoded again into another buffer.
    Full,
}

impl From<SinkFull> for EncodeError {
    fn from(_: SinkFull) -> Self {
        Self::Full
    }
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { what, size, limit } => write!(f, "{what} is {size} bytes; MQTT can send {limit}"),
            Self::NoClientId => f.write_str("CONNECT asks for a kept session without a client id"),
            Self::NoUserName => f.write_str("CONNECT has a password and no user name"),
            Self::Full => SinkFull.fmt(f),
        }
    }
}

impl core::error::Error for EncodeError {}

/// Why bytes received are not a packet that a server may send to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// The first byte names one of the reserved types 0 and 15 (section 2.2.1).
    ReservedType(u8),
    /// A type that only a client sends, or one of QoS 2, which is never requested (section 2.2.1).
    UnexpectedType(PacketType),
    /// The lower half of the first byte is not 0, as required. `[MQTT-2.2.2-2]`
    WrongFlags {
        /// The type.
        packet: PacketType,
        /// The lower four bits.
        flags: u8,
    },
    /// A PUBLISH with both bits of its level set. `[MQTT-3.3.1-4]`
    ReservedQos,
    /// A PUBLISH with QoS 2, although no subscription requests more than QoS 1. `[MQTT-3.8.4-6]`
    UnsupportedQos,
    /// A PUBLISH with QoS 0 and DUP. `[MQTT-3.3.1-2]`
    DupWithQos0,
    /// The remaining length goes on behind its fourth byte (section 2.2.3).
    LongLength,
    /// The packet is larger than the caller's limit.
    TooLarge {
        /// Size of the whole packet in bytes.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// A field ends behind the end of the packet.
    Truncated {
        /// The type.
        packet: PacketType,
    },
    /// The packet goes on behind its last field.
    TrailingBytes {
        /// The type.
        packet: PacketType,
        /// How many bytes are too much.
        extra: usize,
    },
    /// The packet id is 0. `[MQTT-2.3.1-1]`
    ZeroPacketId {
        /// The type.
        packet: PacketType,
    },
    /// A PUBLISH without a topic. `[MQTT-4.7.3-1]`
    EmptyTopic,
    /// The topic is not UTF-8, or has a surrogate in it. `[MQTT-1.5.3-1]`
    TopicNotUtf8,
    /// The topic has U+0000 in it. `[MQTT-1.5.3-2]`
    NulInTopic,
    /// The topic has `+` or `#` in it. `[MQTT-3.3.2-2]`
    WildcardInTopic,
    /// CONNACK has one of its reserved flags set (section 3.2.2.1).
    ReservedConnAckFlags(u8),
    /// CONNACK refuses the connection and yet speaks of a kept session. `[MQTT-3.2.2-4]`
    SessionWithRefusal {
        /// The return code.
        code: u8,
    },
    /// SUBACK has a code other than 0, 1, 2 and 0x80. `[MQTT-3.9.3-2]`
    ReservedSubAckCode(u8),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReservedType(first) => write!(f, "first byte {first:#04x} names a reserved packet type"),
            Self::UnexpectedType(packet) => write!(f, "no server sends {packet} to this client"),
            Self::WrongFlags { packet, flags } => write!(f, "{packet} has the flags {flags:#06b}; they have to be 0"),
            Self::ReservedQos => f.write_str("PUBLISH has the reserved QoS 3"),
            Self::UnsupportedQos => f.write_str("PUBLISH has QoS 2; at most 1 was asked for"),
            Self::DupWithQos0 => f.write_str("PUBLISH has DUP set with QoS 0"),
            Self::LongLength => f.write_str("remaining length is over four bytes long"),
            Self::TooLarge { size, limit } => write!(f, "packet is {size} bytes; the limit is {limit}"),
            Self::Truncated { packet } => write!(f, "{packet} ends within a field"),
            Self::TrailingBytes { packet, extra } => write!(f, "{packet} goes on for {extra} bytes behind its end"),
            Self::ZeroPacketId { packet } => write!(f, "{packet} has the packet id 0"),
            Self::EmptyTopic => f.write_str("PUBLISH has an empty topic"),
            Self::TopicNotUtf8 => f.write_str("topic of PUBLISH is not UTF-8"),
            Self::NulInTopic => f.write_str("topic of PUBLISH has U+0000 in it"),
            Self::WildcardInTopic => f.write_str("topic of PUBLISH has a wildcard in it"),
            Self::ReservedConnAckFlags(flags) => write!(f, "CONNACK has the flags {flags:#04x}; only 0x01 is defined"),
            Self::SessionWithRefusal { code } => write!(f, "CONNACK with code {code} speaks of a kept session"),
            Self::ReservedSubAckCode(code) => write!(f, "SUBACK has the reserved code {code:#04x}"),
        }
    }
}

impl core::error::Error for DecodeError {}
