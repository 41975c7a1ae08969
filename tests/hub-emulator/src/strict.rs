//! The checks that MQTT 3.1.1 requires of a server but the codec does not make.

use rumqttc::mqttbytes::v4::Packet;

/// Largest accepted packet: the largest message of a hub with its topic, and some reserve.
pub(crate) const MAX_PACKET: usize = 512 * 1024;

/// Returns the length of the first packet in `input`; none while its header is incomplete.
pub(crate) fn frame_length(input: &[u8]) -> Result<Option<usize>, &'static str> {
    let mut length = 0_usize;
    for (at, byte) in input.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            if length > MAX_PACKET {
                return Err("packet larger than any message may be");
            }
            return Ok(Some(2 + at + length));
        }
    }
    if input.len() >= 5 { Err("remaining length of more than four bytes") } else { Ok(None) }
}

/// Checks the raw bytes of a frame, and that the packet read from it accounts for all of them.
pub(crate) fn check(frame: &[u8], packet: &Packet) -> Result<(), &'static str> {
    let first = frame.first().copied().unwrap_or_default();
    let flags = first & 0x0f;
    let used = packet.size();
    match packet {
        Packet::Publish(publish) => {
            if publish.dup && publish.pkid == 0 {
                return Err("DUP at QoS 0 [3.3.1-2]");
            }
            if publish.topic.is_empty() || publish.topic.contains(['#', '+', '\0']) {
                return Err("topic empty or with a wildcard or NUL [3.3.2-2]");
            }
            return Ok(());
        }
        Packet::Connect(_) => return check_connect(frame, flags, used),
        Packet::Subscribe(subscribe) if subscribe.pkid == 0 => return Err("packet id 0 [2.3.1-1]"),
        Packet::Unsubscribe(unsubscribe) if unsubscribe.pkid == 0 => return Err("packet id 0 [2.3.1-1]"),
        Packet::Unsubscribe(unsubscribe) if unsubscribe.topics.is_empty() => return Err("no filter [3.10.3-2]"),
        Packet::Subscribe(_) | Packet::Unsubscribe(_) | Packet::PubRel(_) if flags != 2 => {
            return Err("reserved flags [2.2.2-2]");
        }
        Packet::PubAck(_) | Packet::PingReq | Packet::Disconnect if flags != 0 => {
            return Err("reserved flags [2.2.2-2]");
        }
        Packet::PubRec(_) | Packet::PubRel(_) | Packet::PubComp(_) => return Err("QoS 2 packet"),
        Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
            return Err("packet type of a server");
        }
        Packet::Subscribe(_) | Packet::Unsubscribe(_) | Packet::PubAck(_) | Packet::PingReq | Packet::Disconnect => {}
    }
    if used == frame.len() { Ok(()) } else { Err("trailing bytes in a packet") }
}

fn check_connect(frame: &[u8], flags: u8, used: usize) -> Result<(), &'static str> {
    // Fixed header, protocol name with its length, protocol level, then the connect flags.
    let header = frame.iter().skip(1).position(|byte| byte & 0x80 == 0).unwrap_or(0) + 2;
    let connect_flags = frame.get(header + 7).copied().unwrap_or_default();
    if flags != 0 || connect_flags & 1 != 0 {
        return Err("reserved flags [3.1.2-3]");
    }
    if connect_flags & 0x40 != 0 && connect_flags & 0x80 == 0 {
        return Err("password without user name [3.1.2-22]");
    }
    // The codec leaves out user name and password when they are empty, each two bytes of length.
    if frame.len() < used || frame.len() - used > 4 {
        return Err("trailing bytes in a packet");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;

    fn verdict(frame: &[u8]) -> Result<(), &'static str> {
        assert_eq!(frame_length(frame), Ok(Some(frame.len())));
        let mut input = BytesMut::from(frame);
        match Packet::read(&mut input, MAX_PACKET) {
            Ok(packet) => check(frame, &packet),
            Err(_) => Err("codec"),
        }
    }

    #[test]
    fn good_packets_pass() {
        for frame in [
            &[0xc0, 0][..],
            &[0xe0, 0],
            &[0x40, 2, 0, 1],
            &[0x82, 6, 0, 1, 0, 1, b'a', 1],
            &[0xa2, 5, 0, 1, 0, 1, b'a'],
            &[0x32, 5, 0, 1, b'a', 0, 1],
            &[0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 0, 0, 9, 0, 1, b'd'],
        ] {
            assert_eq!(verdict(frame), Ok(()), "{frame:02x?}");
        }
    }

    #[test]
    fn packets_that_break_the_standard_are_refused() {
        for frame in [
            &[0xc1, 0][..],
            &[0x00, 0],
            &[0xf0, 0],
            &[0x40, 3, 0, 1, 9],
            &[0x80, 6, 0, 1, 0, 1, b'a', 1],
            &[0x82, 6, 0, 0, 0, 1, b'a', 1],
            &[0x36, 5, 0, 1, b'a', 0, 1],
            &[0x38, 3, 0, 1, b'a'],
            &[0x30, 3, 0, 1, b'#'],
            &[0x30, 2, 0, 0],
            &[0x62, 2, 0, 1],
            &[0x20, 2, 0, 0],
            &[0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 1, 0, 9, 0, 1, b'd'],
        ] {
            assert!(verdict(frame).is_err(), "{frame:02x?}");
        }
        assert!(frame_length(&[0x30, 0xff, 0xff, 0xff, 0xff]).is_err());
        assert_eq!(frame_length(&[0x30, 0xff]), Ok(None));
    }
}
