//! The MQTT 3.1.1 decoder against that of rumqttc: the same packets, the same lengths, and no difference but those listed.

use bytes::BytesMut;
use rumqttc::mqttbytes::{Error as TheirError, QoS as TheirQos, v4};
use steadfast_core::mqtt::{DecodeError, Decoded, Incoming, PacketType, decode};

/// Largest packet either takes; beyond it the limits are counted differently, so that both refuse well before.
const LIMIT: usize = 1 << 20;

/// Decodes `data` with both and compares, packet after packet.
///
/// # Panics
/// When they differ in a way that is not listed here.
pub fn target(data: &[u8]) {
    let mut rest = data;
    // Each packet takes a byte at least, so this ends.
    while !rest.is_empty() {
        let ours = decode(rest, LIMIT);
        let mut stream = BytesMut::from(rest);
        let theirs = v4::Packet::read(&mut stream, LIMIT);
        match (ours, &theirs) {
            (Ok(Decoded::Packet { packet, len }), Ok(their_packet)) => {
                assert_eq!(len, rest.len() - stream.len(), "{packet:?}");
                assert!(is_same(&packet, their_packet), "{packet:?} is not {their_packet:?}");
            }
            (Ok(Decoded::Incomplete { needed }), Err(TheirError::InsufficientBytes(missing))) => {
                assert_eq!(needed, rest.len() + missing);
            }
            // Unknown codes are passed on by us and refused by them.
            (
                Ok(Decoded::Packet { packet: Incoming::ConnAck { code: 6.., .. }, len: _ }),
                Err(TheirError::InvalidConnectReturnCode(6..)),
            ) => {}
            (Err(error), Ok(packet)) => assert!(is_stricter(error), "{error:?} but {packet:?}"),
            (Err(error), Err(TheirError::InsufficientBytes(_))) => assert!(is_earlier(error), "{error:?}"),
            (Err(_), Err(_)) => {}
            _ => panic!("{ours:?} but {theirs:?}"),
        }
        match ours {
            Ok(Decoded::Packet { len, .. }) => rest = &rest[len..],
            Ok(Decoded::Incomplete { .. }) | Err(_) => break,
        }
    }
}

fn is_same(ours: &Incoming<'_>, theirs: &v4::Packet) -> bool {
    match (ours, theirs) {
        (Incoming::ConnAck { session_present, code }, v4::Packet::ConnAck(theirs)) => {
            *session_present == theirs.session_present && *code == theirs.code as u8
        }
        (Incoming::Publish(ours), v4::Packet::Publish(theirs)) => {
            let qos = if ours.packet_id.is_some() { TheirQos::AtLeastOnce } else { TheirQos::AtMostOnce };
            ours.topic == theirs.topic
                && ours.payload == theirs.payload
                && ours.packet_id.map_or(0, |id| id.get()) == theirs.pkid
                && ours.dup == theirs.dup
                && ours.retain == theirs.retain
                && qos == theirs.qos
        }
        (Incoming::PubAck { packet_id: id, .. }, v4::Packet::PubAck(theirs)) => id.get() == theirs.pkid,
        (Incoming::SubAck { packet_id, codes }, v4::Packet::SubAck(theirs)) => {
            let their_codes = theirs.return_codes.iter().map(|code| match code {
                v4::SubscribeReasonCode::Success(qos) => *qos as u8,
                v4::SubscribeReasonCode::Failure => 0x80,
            });
            packet_id.get() == theirs.pkid && their_codes.eq(codes.iter().copied())
        }
        (Incoming::UnsubAck(id), v4::Packet::UnsubAck(theirs)) => id.get() == theirs.pkid,
        (Incoming::PingResp, v4::Packet::PingResp) => true,
        _ => false,
    }
}

/// Tells whether they may take a packet that we refuse for `error`: rules of the standard that they leave to others.
fn is_stricter(error: DecodeError) -> bool {
    if let DecodeError::TrailingBytes { packet, .. } = error {
        return matches!(packet, PacketType::ConnAck | PacketType::PubAck | PacketType::PingResp);
    }
    if let DecodeError::ZeroPacketId { packet } = error {
        return packet != PacketType::Publish;
    }
    matches!(
        error,
        DecodeError::UnexpectedType(_)
            | DecodeError::WrongFlags { .. }
            | DecodeError::UnsupportedQos
            | DecodeError::DupWithQos0
            | DecodeError::EmptyTopic
            | DecodeError::NulInTopic
            | DecodeError::WildcardInTopic
            | DecodeError::ReservedConnAckFlags(_)
            | DecodeError::SessionWithRefusal { .. }
            | DecodeError::TooLarge { .. }
    )
}

/// Tells whether `error` shows in the type, the flags or the length, so that we need not wait for the body as they do.
fn is_earlier(error: DecodeError) -> bool {
    matches!(
        error,
        DecodeError::ReservedType(_)
            | DecodeError::UnexpectedType(_)
            | DecodeError::WrongFlags { .. }
            | DecodeError::ReservedQos
            | DecodeError::UnsupportedQos
            | DecodeError::DupWithQos0
            | DecodeError::TooLarge { .. }
            | DecodeError::Truncated { .. }
            | DecodeError::TrailingBytes { .. }
    )
}
