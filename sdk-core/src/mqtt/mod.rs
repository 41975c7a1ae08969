//! MQTT packets to bytes and bytes to packets, as a client needs them.
//!
//! [`Packet`] is a packet to send, [`Incoming`] a received one, in protocol version 3.1.1, as used by IoT Hub and DPS.
//! Nothing is allocated, copied or stored: a packet borrows its texts and payload until it is written, and a decoded
//! one borrows the received bytes.
//!
//! ```
//! use steadfast_core::mqtt::{Decoded, Incoming, Packet, PacketId, Publish, decode};
//!
//! let packet_id = PacketId::new(7);
//! let publish = Publish { topic: "a/b".into(), payload: b"21.5", packet_id, dup: false, retain: false };
//! let mut buffer = [0; 64];
//! let len = Packet::Publish(publish).encode_to_slice(&mut buffer)?;
//! assert_eq!(&buffer[..len], b"\x32\x0b\x00\x03a/b\x00\x0721.5");
//!
//! // The answer arrives in two pieces.
//! assert_eq!(decode(&[0x40], 1024), Ok(Decoded::Incomplete { needed: 2 }));
//! let Ok(Decoded::Packet { packet: Incoming::PubAck { packet_id: id, .. }, len: 4 }) = decode(&[0x40, 2, 0, 7], 1024) else { panic!() };
//! assert_eq!(Some(id), packet_id);
//! # Ok::<(), steadfast_core::mqtt::EncodeError>(())
//! ```
//!
//! Section numbers and statements in brackets, such as `[MQTT-2.2.2-2]`, are those of the OASIS standard MQTT 3.1.1.

mod terms;
mod v3;

pub use terms::{PacketId, PacketType, QoS, Reason, Terms};
pub use v3::{
    Compose, Connect, DecodeError, Decoded, EncodeError, Incoming, Login, Packet, Publish, PublishText, Received,
    Subscribe, Unsubscribe, Will, decode,
};

/// Largest value of the remaining length: four bytes of seven bits (section 2.2.3).
pub const MAX_REMAINING_LEN: usize = 0x0fff_ffff;

/// Most bytes a string or a will's payload can have: its length is a 16-bit number (section 1.5.3).
pub const MAX_FIELD_LEN: usize = 0xffff;
