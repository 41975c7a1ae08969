//! Bytes to packets.

use crate::mqtt::{PacketId, PacketType, Reason};

use super::DecodeError;

/// A packet that a server sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "all packets a server sends with QoS 0 and 1")]
pub enum Incoming<'a> {
    /// Accepts or refuses a connection (section 3.2).
    ConnAck {
        /// Whether the server kept the session of an earlier connection.
        session_present: bool,
        /// 0 accepts; 1 to 5 refuse as section 3.2.2.3 says. Others are reserved there and passed on all the same.
        code: u8,
    },
    /// A message.
    Publish(Received<'a>),
    /// Acknowledges a message sent with QoS 1.
    PubAck {
        /// The packet it acknowledges.
        packet_id: PacketId,
        /// What came of it; MQTT 3.1.1 knows success alone.
        reason: Reason,
    },
    /// Answers a SUBSCRIBE (section 3.9).
    SubAck {
        /// The packet id of the SUBSCRIBE.
        packet_id: PacketId,
        /// One code for each filter, at least one: the granted QoS (0, 1, 2), or 0x80 for a refusal.
        codes: &'a [u8],
    },
    /// Answers an UNSUBSCRIBE.
    UnsubAck(PacketId),
    /// Answers a PINGREQ.
    PingResp,
}

impl Incoming<'_> {
    /// Returns the type.
    #[must_use]
    pub const fn packet_type(&self) -> PacketType {
        match self {
            Self::ConnAck { .. } => PacketType::ConnAck,
            Self::Publish(_) => PacketType::Publish,
            Self::PubAck { .. } => PacketType::PubAck,
            Self::SubAck { .. } => PacketType::SubAck,
            Self::UnsubAck(_) => PacketType::UnsubAck,
            Self::PingResp => PacketType::PingResp,
        }
    }

    /// Returns the name as in the standard, such as `PUBLISH`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.packet_type().name()
    }
}

/// A message received (section 3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the fields are those of the standard")]
pub struct Received<'a> {
    /// Topic name: not empty, without wildcards and U+0000.
    pub topic: &'a str,
    /// The message itself; may be empty.
    pub payload: &'a [u8],
    /// `Some` with QoS 1, to be acknowledged under this id; `None` with QoS 0.
    pub packet_id: Option<PacketId>,
    /// The DUP flag: the server may have sent it before.
    pub dup: bool,
    /// The RETAIN flag: the message is older than the subscription.
    pub retain: bool,
}

/// The result of decoding the received bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there is nothing between a packet and a part of one")]
pub enum Decoded<'a> {
    /// A whole packet.
    Packet {
        /// The packet.
        packet: Incoming<'a>,
        /// How many bytes it took; the next packet starts there.
        len: usize,
    },
    /// The beginning of a packet, as far as it is known without fault.
    Incomplete {
        /// Total bytes that the buffer needs before a further call makes progress. Always more than it has now; the
        /// size of the whole packet as soon as its length field is complete.
        needed: usize,
    },
}

/// Decodes the packet at the front of `bytes`.
///
/// `limit` is the largest packet to accept, in bytes and with its fixed header. Type, flags and length are checked on
/// the first bytes, so that an invalid packet is refused before its body arrives.
///
/// The length field may be longer than necessary, which only MQTT 5 forbids.
///
/// # Errors
/// [`DecodeError`] if a server must not send this to a client. Close the connection then, since the bytes after the
/// error cannot be decoded. `[MQTT-4.8.0-1]`
pub fn decode(bytes: &[u8], limit: usize) -> Result<Decoded<'_>, DecodeError> {
    let Some((&first, rest)) = bytes.split_first() else {
        return Ok(Decoded::Incomplete { needed: SMALLEST });
    };
    let (packet_type, least, most) = shape(first)?;
    let Some((length, body)) = length(rest)? else {
        return Ok(Decoded::Incomplete { needed: bytes.len().saturating_add(1).max(SMALLEST) });
    };
    let header = bytes.len().saturating_sub(body.len());
    let size = header.saturating_add(length);
    if size > limit {
        return Err(DecodeError::TooLarge { size, limit });
    }
    if length < least {
        return Err(DecodeError::Truncated { packet: packet_type });
    }
    if length > most {
        return Err(DecodeError::TrailingBytes { packet: packet_type, extra: length.saturating_sub(most) });
    }
    let Some(body) = body.get(..length) else {
        return Ok(Decoded::Incomplete { needed: size });
    };
    let packet = match packet_type {
        PacketType::ConnAck => conn_ack(body)?,
        PacketType::Publish => Incoming::Publish(publish(first, body)?),
        PacketType::PubAck => Incoming::PubAck { packet_id: packet_id(packet_type, body)?.0, reason: Reason::SUCCESS },
        PacketType::SubAck => sub_ack(body)?,
        PacketType::UnsubAck => Incoming::UnsubAck(packet_id(packet_type, body)?.0),
        PacketType::PingResp => Incoming::PingResp,
        PacketType::Connect
        | PacketType::PubRec
        | PacketType::PubRel
        | PacketType::PubComp
        | PacketType::Subscribe
        | PacketType::Unsubscribe
        | PacketType::PingReq
        | PacketType::Disconnect => return Err(DecodeError::UnexpectedType(packet_type)),
    };
    Ok(Decoded::Packet { packet, len: size })
}

/// Checks the first byte; returns the type and its minimum and maximum remaining length.
fn shape(first: u8) -> Result<(PacketType, usize, usize), DecodeError> {
    // Section 2.2.1, table 2.1: types 0 and 15 are reserved.
    let packet_type = PacketType::of(first).ok_or(DecodeError::ReservedType(first))?;
    let (least, most) = match packet_type {
        PacketType::Publish => {
            let least = match first & QOS_BITS {
                0 if first & DUP != 0 => return Err(DecodeError::DupWithQos0),
                0 => LEN_FIELD,
                QOS_1 => LEN_FIELD + PACKET_ID,
                QOS_2 => return Err(DecodeError::UnsupportedQos),
                _ => return Err(DecodeError::ReservedQos),
            };
            return Ok((packet_type, least, usize::MAX));
        }
        PacketType::ConnAck => (2, 2),
        PacketType::PubAck | PacketType::UnsubAck => (PACKET_ID, PACKET_ID),
        PacketType::SubAck => (PACKET_ID + 1, usize::MAX),
        PacketType::PingResp => (0, 0),
        PacketType::Connect
        | PacketType::PubRec
        | PacketType::PubRel
        | PacketType::PubComp
        | PacketType::Subscribe
        | PacketType::Unsubscribe
        | PacketType::PingReq
        | PacketType::Disconnect => return Err(DecodeError::UnexpectedType(packet_type)),
    };
    // [MQTT-2.2.2-2]
    if first & 0x0f != 0 {
        return Err(DecodeError::WrongFlags { packet: packet_type, flags: first & 0x0f });
    }
    Ok((packet_type, least, most))
}

/// Reads the remaining length (section 2.2.3); returns it and what follows, or `None` when more bytes are needed.
fn length(bytes: &[u8]) -> Result<Option<(usize, &[u8])>, DecodeError> {
    let mut length = 0_usize;
    let mut shift = 0_u32;
    let mut rest = bytes;
    while let Some((&byte, behind)) = rest.split_first() {
        length |= usize::from(byte & 0x7f).wrapping_shl(shift);
        rest = behind;
        if byte < 0x80 {
            return Ok(Some((length, rest)));
        }
        shift = shift.saturating_add(7);
        if shift == 28 {
            return Err(DecodeError::LongLength);
        }
    }
    Ok(None)
}

fn conn_ack(body: &[u8]) -> Result<Incoming<'static>, DecodeError> {
    let &[flags, code] = body else {
        return Err(DecodeError::Truncated { packet: PacketType::ConnAck });
    };
    match (flags, code) {
        (0, _) | (1, 0) => Ok(Incoming::ConnAck { session_present: flags == 1, code }),
        // [MQTT-3.2.2-4]
        (1, _) => Err(DecodeError::SessionWithRefusal { code }),
        // Section 3.2.2.1: bits 7 to 1 are reserved and 0.
        _ => Err(DecodeError::ReservedConnAckFlags(flags)),
    }
}

fn sub_ack(body: &[u8]) -> Result<Incoming<'_>, DecodeError> {
    let (packet_id, codes) = packet_id(PacketType::SubAck, body)?;
    for code in codes {
        // [MQTT-3.9.3-2]
        if !matches!(code, 0 | 1 | 2 | 0x80) {
            return Err(DecodeError::ReservedSubAckCode(*code));
        }
    }
    Ok(Incoming::SubAck { packet_id, codes })
}

fn publish(first: u8, body: &[u8]) -> Result<Received<'_>, DecodeError> {
    let truncated = DecodeError::Truncated { packet: PacketType::Publish };
    let (len, rest) = body.split_first_chunk().ok_or(truncated)?;
    let (topic, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len))).ok_or(truncated)?;
    let topic = topic_name(topic)?;
    // [MQTT-2.3.1-5]
    let (packet_id, payload) = if first & QOS_BITS == QOS_1 {
        let (packet_id, payload) = packet_id(PacketType::Publish, rest)?;
        (Some(packet_id), payload)
    } else {
        (None, rest)
    };
    Ok(Received { topic, payload, packet_id, dup: first & DUP != 0, retain: first & RETAIN != 0 })
}

fn topic_name(bytes: &[u8]) -> Result<&str, DecodeError> {
    // [MQTT-4.7.3-1]
    if bytes.is_empty() {
        return Err(DecodeError::EmptyTopic);
    }
    for byte in bytes {
        match byte {
            // [MQTT-1.5.3-2]
            0 => return Err(DecodeError::NulInTopic),
            // [MQTT-3.3.2-2]
            b'+' | b'#' => return Err(DecodeError::WildcardInTopic),
            _ => {}
        }
    }
    // [MQTT-1.5.3-1]; surrogates are no UTF-8 either.
    core::str::from_utf8(bytes).map_err(|_| DecodeError::TopicNotUtf8)
}

/// Reads a packet id; returns it and what follows.
fn packet_id(packet: PacketType, bytes: &[u8]) -> Result<(PacketId, &[u8]), DecodeError> {
    let (number, rest) = bytes.split_first_chunk().ok_or(DecodeError::Truncated { packet })?;
    // [MQTT-2.3.1-1]
    let id = PacketId::new(u16::from_be_bytes(*number)).ok_or(DecodeError::ZeroPacketId { packet })?;
    Ok((id, rest))
}

/// Bytes of the smallest packet: the first one and a length of 0 (section 2.2).
const SMALLEST: usize = 2;

/// The length in front of a string (section 1.5.3).
const LEN_FIELD: usize = 2;
/// A packet id (section 2.3.1).
const PACKET_ID: usize = 2;

// Flags of PUBLISH (section 3.3.1).
const DUP: u8 = 0x08;
const QOS_BITS: u8 = 0x06;
const QOS_1: u8 = 0x02;
const QOS_2: u8 = 0x04;
const RETAIN: u8 = 0x01;
