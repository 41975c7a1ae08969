//! A recorded session of another SDK, packet by packet.

mod codec_support;

use codec_support::Who;
use serde_json::Value;
use steadfast_core::mqtt::{
    Connect, Decoded, Incoming, Packet, PacketId, Publish, QoS, Reason, Received, Subscribe, decode,
};

const CAPTURE: &str = include_str!("../../tests/golden/python-sdk-session.jsonl");
const LIMIT: usize = 64 * 1024;

#[test]
fn every_packet_of_the_recorded_server_decodes_to_its_recorded_fields() {
    let mut seen = 0;
    for line in lines("S>C") {
        let bytes = bytes(&line);
        let packet = match text(&line, "type") {
            "CONNACK" => {
                let code = u8::try_from(number(&line, "rc")).expect("a code is a byte");
                Incoming::ConnAck { session_present: number(&line, "session_present") == 1, code }
            }
            "PUBACK" => Incoming::PubAck { packet_id: id(&line), reason: Reason::SUCCESS },
            "SUBACK" => {
                let (_, codes) = bytes.split_at(4);
                let granted = line["granted"].as_array().expect("granted is a list");
                assert_eq!(codes.iter().map(|code| Value::from(*code)).collect::<Vec<_>>(), *granted);
                let number = u16::from_be_bytes([bytes[2], bytes[3]]);
                Incoming::SubAck { packet_id: PacketId::new(number).expect("a packet id is not 0"), codes }
            }
            "PUBLISH" => Incoming::Publish(Received {
                topic: text(&line, "topic"),
                payload: text(&line, "payload").as_bytes(),
                packet_id: (number(&line, "qos") == 1).then(|| id(&line)),
                dup: false,
                retain: false,
            }),
            other => panic!("the capture has no {other} from the server"),
        };
        assert_eq!(decode(&bytes, LIMIT), Ok(Decoded::Packet { packet, len: bytes.len() }), "{line}");
        assert_eq!(packet.name(), text(&line, "type"));
        seen += 1;
    }
    assert_eq!(seen, 22);
}

#[test]
fn every_packet_of_the_recorded_client_is_written_byte_for_byte() {
    let mut seen = 0;
    for line in lines("C>S").into_iter().filter(|line| text(line, "type") != "TLS ClientHello") {
        let who;
        let packet = match text(&line, "type") {
            "CONNECT" => {
                who = Who {
                    client_id: text(&line, "client_id"),
                    user_name: Some(text(&line, "username")),
                    password: Some(text(&line, "password")),
                    will: None,
                };
                let keep_alive_secs = u16::try_from(number(&line, "keepalive")).expect("a keep-alive has 16 bits");
                Packet::Connect(Connect { login: &who, clean_session: line["clean"] == true, keep_alive_secs })
            }
            "SUBSCRIBE" => {
                assert_eq!(line["filters"][0][1], 1);
                let filter = line["filters"][0][0].as_str().expect("a filter is a text").into();
                Packet::Subscribe(Subscribe { packet_id: id(&line), filter, qos: QoS::AtLeastOnce })
            }
            "PUBLISH" => Packet::Publish(Publish {
                topic: text(&line, "topic").into(),
                payload: text(&line, "payload").as_bytes(),
                packet_id: (number(&line, "qos") == 1).then(|| id(&line)),
                dup: line["dup"] == true,
                retain: line["retain"] == true,
            }),
            "PUBACK" => Packet::PubAck(id(&line)),
            "DISCONNECT" => Packet::Disconnect,
            other => panic!("the capture has no {other} from the client"),
        };
        let mut buffer = [0; 1024];
        let len = packet.encode_to_slice(&mut buffer).expect("the buffer is large enough");
        assert_eq!(buffer[..len], bytes(&line), "{line}");
        assert_eq!(packet.name(), text(&line, "type"));
        seen += 1;
    }
    assert_eq!(seen, 17);
}

fn lines(direction: &str) -> Vec<Value> {
    let lines = CAPTURE.lines().map(|line| serde_json::from_str(line).expect("a line is JSON"));
    lines.filter(|line: &Value| text(line, "dir") == direction).collect()
}

fn text<'v>(line: &'v Value, member: &str) -> &'v str {
    line[member].as_str().unwrap_or_else(|| panic!("{member} is a text"))
}

fn number(line: &Value, member: &str) -> u64 {
    // Flags are recorded as numbers in some lines and as truth values in others.
    line[member].as_u64().or(line[member].as_bool().map(u64::from)).unwrap_or_else(|| panic!("{member} is a number"))
}

fn id(line: &Value) -> PacketId {
    u16::try_from(number(line, "pid")).ok().and_then(PacketId::new).expect("a packet id has 16 bits and is not 0")
}

fn bytes(line: &Value) -> Vec<u8> {
    let digits = text(line, "hex").as_bytes();
    let digit = |at: u8| char::from(at).to_digit(16).and_then(|digit| u8::try_from(digit).ok()).expect("hex digits");
    digits.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}
