//! The MQTT 3.1.1 decoder alone: whatever arrives, in whatever pieces, ends in packets or one error.

use steadfast_core::mqtt::{DecodeError, Decoded, Incoming, decode};

/// Largest packet taken; small enough for the fuzzer to reach it.
const LIMIT: usize = 1024;

/// Splits `data` into packets, whole and byte by byte, and compares.
///
/// # Panics
/// When the two differ, or an answer contradicts the bytes it is about.
pub fn target(data: &[u8]) {
    let mut rest = data;
    // Each packet takes a byte at least, so this ends.
    loop {
        let whole = decode(rest, LIMIT);
        check_answer(rest, whole);
        check_prefixes(rest, whole);
        match whole {
            Ok(Decoded::Packet { len, .. }) => rest = &rest[len..],
            Ok(Decoded::Incomplete { .. }) | Err(_) => break,
        }
    }
}

fn check_answer(bytes: &[u8], answer: Result<Decoded<'_>, DecodeError>) {
    match answer {
        Ok(Decoded::Packet { packet, len }) => {
            assert!((2..=bytes.len().min(LIMIT)).contains(&len), "{len} of {}", bytes.len());
            assert_eq!(decode(&bytes[..len], len), answer, "the packet needs no more than its bytes and its limit");
            let refused = Err(DecodeError::TooLarge { size: len, limit: len - 1 });
            assert_eq!(decode(&bytes[..len], len - 1), refused);
            check_packet(&bytes[..len], &packet);
        }
        Ok(Decoded::Incomplete { needed }) => {
            assert!(needed > bytes.len() && needed <= LIMIT.max(5), "{needed} with {}", bytes.len());
        }
        Err(error) => assert!(error.to_string().len() > 8, "{error:?} is explained"),
    }
}

/// Asserts that what a packet borrows lies at its end and keeps the rules of the standard.
fn check_packet(bytes: &[u8], packet: &Incoming<'_>) {
    assert_eq!(bytes[0] >> 4, packet.packet_type() as u8);
    match packet {
        Incoming::Publish(received) => {
            assert!(bytes.ends_with(received.payload));
            assert!(!received.topic.is_empty() && !received.topic.contains(['+', '#', '\0']));
            assert!(received.packet_id.is_some() || !received.dup);
        }
        Incoming::SubAck { codes, .. } => {
            assert!(bytes.ends_with(codes));
            assert!(!codes.is_empty() && codes.iter().all(|code| matches!(code, 0..=2 | 0x80)));
        }
        Incoming::ConnAck { session_present, code } => assert!(!session_present || *code == 0),
        Incoming::PubAck { .. } | Incoming::UnsubAck(_) | Incoming::PingResp => {}
    }
}

/// Asserts that every beginning of `bytes` gives the answer of the whole, or asks for more and for no more than it needs.
fn check_prefixes(bytes: &[u8], whole: Result<Decoded<'_>, DecodeError>) {
    let mut needed_before = 0;
    for end in 0..=bytes.len().min(LIMIT) {
        match decode(&bytes[..end], LIMIT) {
            Ok(Decoded::Incomplete { needed }) => {
                assert!(needed >= needed_before, "{needed} after {needed_before}");
                needed_before = needed;
                match whole {
                    Ok(Decoded::Packet { len, .. }) => assert!(needed <= len, "{needed} of {len}"),
                    Ok(Decoded::Incomplete { needed: all }) => assert!(needed <= all, "{needed} of {all}"),
                    // A fault may show before all bytes asked for are there.
                    Err(_) => {}
                }
            }
            answer => {
                assert_eq!(answer, whole, "{end} bytes");
                return;
            }
        }
    }
    assert!(matches!(whole, Ok(Decoded::Incomplete { .. })), "{whole:?} after {needed_before}");
}
