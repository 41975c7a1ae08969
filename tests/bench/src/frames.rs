//! The few MQTT 3.1.1 packets that the sink and the limits need.

/// Takes every whole packet from the front of `bytes`, calling `each` with its first byte and its body, and returns how
/// many bytes were taken.
///
/// # Errors
/// When a remaining length is malformed.
pub(crate) fn each_frame(bytes: &[u8], mut each: impl FnMut(u8, &[u8])) -> Result<usize, String> {
    let mut taken = 0;
    while let Some((first, rest)) = bytes[taken..].split_first() {
        let Some((length, digits)) = remaining_length(rest)? else { break };
        let Some(body) = rest.get(digits..digits + length) else { break };
        each(*first, body);
        taken += 1 + digits + length;
    }
    Ok(taken)
}

/// Reads a remaining length: its value and the bytes it took, or `None` when it is not complete.
fn remaining_length(bytes: &[u8]) -> Result<Option<(usize, usize)>, String> {
    let mut length = 0;
    for (at, byte) in bytes.iter().take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(Some((length, at + 1)));
        }
    }
    if bytes.len() < 4 { Ok(None) } else { Err("a remaining length has more than four bytes".into()) }
}

/// Appends a CONNECT with a clean session and no credentials.
pub(crate) fn put_connect(client: &str, out: &mut Vec<u8>) {
    let keep_alive = 1200_u16.to_be_bytes();
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, 2, keep_alive[0], keep_alive[1]];
    put_text(client, &mut body);
    put_frame(0x10, &body, out);
}

/// Appends a PUBLISH at QoS 1.
pub(crate) fn put_publish(topic: &str, id: u16, payload: &[u8], out: &mut Vec<u8>) {
    let mut body = Vec::with_capacity(topic.len() + payload.len() + 4);
    put_text(topic, &mut body);
    body.extend(id.to_be_bytes());
    body.extend(payload);
    put_frame(0x32, &body, out);
}

/// Appends the answer of a server that accepts everything, if the packet wants one, and returns true when that was a
/// PUBACK.
pub(crate) fn put_answer(first: u8, body: &[u8], out: &mut Vec<u8>) -> bool {
    match first >> 4 {
        1 => out.extend([0x20, 2, 0, 0]),
        3 => {
            let topic = body.first_chunk().map_or(0, |length| usize::from(u16::from_be_bytes(*length)));
            if let (1, Some([high, low])) = ((first >> 1) & 3, body.get(2 + topic..4 + topic)) {
                out.extend([0x40, 2, *high, *low]);
                return true;
            }
        }
        8 => {
            let mut codes = body.first_chunk::<2>().copied().unwrap_or_default().to_vec();
            let mut filters = body.get(2..).unwrap_or_default();
            while let Some(length) = filters.first_chunk().map(|length| usize::from(u16::from_be_bytes(*length))) {
                let Some(qos) = filters.get(2 + length) else { break };
                codes.push(qos & 1);
                filters = &filters[3 + length..];
            }
            put_frame(0x90, &codes, out);
        }
        10 => out.extend([0xb0, 2, body.first().copied().unwrap_or(0), body.get(1).copied().unwrap_or(0)]),
        12 => out.extend([0xd0, 0]),
        _ => {}
    }
    false
}

fn put_frame(first: u8, body: &[u8], out: &mut Vec<u8>) {
    out.push(first);
    let mut rest = body.len();
    loop {
        let digit = (rest & 0x7f).to_le_bytes()[0];
        rest >>= 7;
        out.push(if rest == 0 { digit } else { digit | 0x80 });
        if rest == 0 {
            break;
        }
    }
    out.extend(body);
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    // Texts here are constants far below the limit.
    out.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        assert_eq!(each_frame(bytes, |first, body| _ = put_answer(first, body, &mut out)), Ok(bytes.len()));
        out
    }

    #[test]
    fn each_packet_of_a_client_gets_its_answer() {
        let mut bytes = Vec::new();
        put_connect("c", &mut bytes);
        put_publish("t", 0x0102, &[0; 300], &mut bytes);
        bytes.extend([0x82, 10, 0, 7, 0, 1, b'a', 1, 0, 1, b'b', 0]);
        bytes.extend([0xc0, 0, 0xe0, 0]);
        assert_eq!(answers(&bytes), [0x20, 2, 0, 0, 0x40, 2, 1, 2, 0x90, 4, 0, 7, 1, 0, 0xd0, 0]);
    }

    #[test]
    fn half_a_packet_is_left_and_a_malformed_one_is_an_error() {
        let mut bytes = Vec::new();
        put_publish("t", 1, &[0; 300], &mut bytes);
        let whole = bytes.len();
        bytes.extend_from_within(..whole - 1);
        assert_eq!(each_frame(&bytes, |_, _| ()), Ok(whole));
        assert!(each_frame(&[0x30, 0xff, 0xff, 0xff, 0xff, 1], |_, _| ()).is_err());
    }

    #[test]
    fn qos_0_wants_no_answer() {
        assert_eq!(answers(&[0x30, 3, 0, 1, b't']), Vec::<u8>::new());
    }
}
