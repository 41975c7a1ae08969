//! Packets of known bytes, good and bad.

mod codec_support;

use codec_support::Who;
use steadfast_core::mqtt::{
    Compose, Connect, DecodeError, Decoded, EncodeError, Incoming, Login, MAX_REMAINING_LEN, Packet, PacketId,
    PacketType, Publish, PublishText, QoS, Reason, Received, Subscribe, Unsubscribe, decode,
};
use steadfast_core::text::{Part, Sink, SinkFull, Text};

const LIMIT: usize = 1 << 20;

fn id(number: u16) -> PacketId {
    PacketId::new(number).expect("tests use numbers above 0")
}

fn encoded(packet: Packet<'_>) -> Result<Vec<u8>, EncodeError> {
    let mut buffer = vec![0xee; packet.encoded_len()?];
    assert_eq!(packet.encode_to_slice(&mut buffer), Ok(buffer.len()), "{packet:?}");
    Ok(buffer)
}

fn connect(login: &dyn Login, clean_session: bool, keep_alive_secs: u16) -> Packet<'_> {
    Packet::Connect(Connect { login, clean_session, keep_alive_secs })
}

const MESSAGE: Publish<'_> =
    Publish { topic: Text::EMPTY, payload: b"21.5", packet_id: None, dup: false, retain: false };

#[test]
fn packets_without_text_have_their_four_or_two_bytes() {
    assert_eq!(encoded(Packet::PubAck(id(1))).unwrap(), [0x40, 2, 0, 1]);
    assert_eq!(encoded(Packet::PubAck(id(0xabcd))).unwrap(), [0x40, 2, 0xab, 0xcd]);
    assert_eq!(encoded(Packet::PingReq).unwrap(), [0xc0, 0]);
    assert_eq!(encoded(Packet::Disconnect).unwrap(), [0xe0, 0]);
}

#[test]
fn connect_without_credentials_has_the_client_id_only() {
    let who = Who { client_id: "a", ..Who::default() };
    assert_eq!(encoded(connect(&who, true, 60)).unwrap(), b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a");
    assert_eq!(encoded(connect(&who, false, 0)).unwrap(), b"\x10\x0d\x00\x04MQTT\x04\x00\x00\x00\x00\x01a");
}

#[test]
fn connect_writes_will_user_name_and_password_in_the_order_of_the_standard() {
    let who = Who {
        client_id: "dev",
        user_name: Some("hub/dev"),
        password: Some("pw"),
        will: Some(("w/t", b"gone", QoS::AtLeastOnce, true)),
    };
    let expected = b"\x10\x27\x00\x04MQTT\x04\xec\x01\x2c\x00\x03dev\x00\x03w/t\x00\x04gone\x00\x07hub/dev\x00\x02pw";
    assert_eq!(encoded(connect(&who, false, 300)).unwrap(), expected);

    let who = Who { password: None, will: Some(("w", b"", QoS::AtMostOnce, false)), ..who };
    let expected = b"\x10\x1d\x00\x04MQTT\x04\x86\x01\x2c\x00\x03dev\x00\x01w\x00\x00\x00\x07hub/dev";
    assert_eq!(encoded(connect(&who, true, 300)).unwrap(), expected);
}

#[test]
fn an_empty_password_is_sent_as_an_empty_field() {
    let who = Who { client_id: "d", user_name: Some("u"), password: Some(""), will: None };
    assert_eq!(
        encoded(connect(&who, true, 1)).unwrap(),
        b"\x10\x12\x00\x04MQTT\x04\xc2\x00\x01\x00\x01d\x00\x01u\x00\x00"
    );
}

#[test]
fn connect_breaks_no_rule_of_the_standard() {
    let nameless = Who::default();
    assert_eq!(encoded(connect(&nameless, false, 0)), Err(EncodeError::NoClientId));
    assert_eq!(encoded(connect(&nameless, true, 0)).unwrap(), b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00");
    let userless = Who { client_id: "d", password: Some("p"), ..Who::default() };
    assert_eq!(encoded(connect(&userless, true, 0)), Err(EncodeError::NoUserName));
}

#[test]
fn connect_shows_no_secret_when_printed() {
    let who = Who { client_id: "dev", user_name: Some("user-9"), password: Some("secret-7"), will: None };
    let shown = format!("{:?}", connect(&who, true, 60));
    assert_eq!(shown, "Connect(Connect { client_id: dev, clean_session: true, keep_alive_secs: 60, .. })");
}

#[test]
fn publish_has_a_packet_id_with_qos_1_only() {
    let message = Publish { topic: "a/b".into(), ..MESSAGE };
    assert_eq!(encoded(Packet::Publish(message)).unwrap(), b"\x30\x09\x00\x03a/b21.5");
    let repeated = Publish { packet_id: Some(id(0x0102)), dup: true, ..message };
    assert_eq!(encoded(Packet::Publish(repeated)).unwrap(), b"\x3a\x0b\x00\x03a/b\x01\x0221.5");
    let first = Publish { packet_id: Some(id(0xffff)), payload: b"", ..message };
    assert_eq!(encoded(Packet::Publish(first)).unwrap(), b"\x32\x07\x00\x03a/b\xff\xff");
    let kept = Publish { retain: true, ..message };
    assert_eq!(encoded(Packet::Publish(kept)).unwrap(), b"\x31\x09\x00\x03a/b21.5");
}

#[test]
fn publish_with_qos_0_is_never_a_repetition() {
    let message = Publish { topic: "a".into(), dup: true, ..MESSAGE };
    assert_eq!(encoded(Packet::Publish(message)).unwrap(), b"\x30\x07\x00\x01a21.5");
}

#[test]
fn the_topic_is_composed_while_it_is_written() {
    let topic = Text::of([Part::Plain("devices/d/messages/events/"), Part::Encoded("$.mid"), Part::Plain("=")]);
    let message = Publish { topic, ..MESSAGE };
    let expected = b"\x30\x28\x00\x22devices/d/messages/events/%24.mid=21.5";
    assert_eq!(encoded(Packet::Publish(message)).unwrap(), expected);
}

#[test]
fn the_remaining_length_takes_one_to_four_bytes() {
    for (payload, header) in [
        (124, &[0x30, 0x7f][..]),
        (125, &[0x30, 0x80, 0x01]),
        (16_380, &[0x30, 0xff, 0x7f]),
        (16_381, &[0x30, 0x80, 0x80, 0x01]),
        (2_097_148, &[0x30, 0xff, 0xff, 0x7f]),
        (2_097_149, &[0x30, 0x80, 0x80, 0x80, 0x01]),
    ] {
        let payload = vec![7; payload];
        let bytes = encoded(Packet::Publish(Publish { topic: "a".into(), payload: &payload, ..MESSAGE })).unwrap();
        assert_eq!(bytes.get(..header.len()), Some(header), "{} bytes", payload.len());
        let received = Received { topic: "a", payload: &payload, packet_id: None, dup: false, retain: false };
        let packet = Incoming::Publish(received);
        assert_eq!(decode(&bytes, bytes.len()), Ok(Decoded::Packet { packet, len: bytes.len() }));
    }
}

#[test]
fn head_and_payload_are_the_whole_packet() {
    for packet_id in [None, Some(id(5))] {
        let message = Publish { topic: "a/b".into(), packet_id, ..MESSAGE };
        let mut head = [0; 16];
        let len = message.head(&mut head).unwrap();
        let sent = [&head[..len], message.payload].concat();
        assert_eq!(sent, encoded(Packet::Publish(message)).unwrap());
        assert_eq!(message.head(&mut head[..len - 1]), Err(EncodeError::Full));
    }
}

#[test]
fn a_composed_message_is_written_as_a_plain_one() {
    struct Telemetry;
    impl Compose for Telemetry {
        fn topic(&self) -> Text<'_> {
            Text::of([Part::Plain("d/"), Part::Encoded("a b")])
        }

        fn payload(&self) -> Text<'_> {
            Text::of([Part::Plain("{\"n\":"), Part::Number(42), Part::Plain("}")])
        }
    }
    let composed = PublishText { message: &Telemetry, packet_id: Some(id(7)) };
    assert_eq!(encoded(Packet::PublishText(composed)).unwrap(), b"\x32\x13\x00\x07d/a%20b\x00\x07{\"n\":42}");
    let plain = Publish { topic: "d/a%20b".into(), payload: b"{\"n\":42}", ..MESSAGE };
    let composed = PublishText { packet_id: None, ..composed };
    assert_eq!(encoded(Packet::PublishText(composed)), encoded(Packet::Publish(plain)));
    assert_eq!(Packet::PublishText(composed).name(), "PUBLISH");
    // A payload may name a device's secrets; it is not printed.
    assert_eq!(format!("{composed:?}"), "PublishText { topic: d/a%20b, packet_id: None, .. }");
}

#[test]
fn subscribe_and_unsubscribe_carry_one_filter() {
    let subscribe = Subscribe { packet_id: id(10), filter: "a/#".into(), qos: QoS::AtLeastOnce };
    assert_eq!(encoded(Packet::Subscribe(subscribe)).unwrap(), b"\x82\x08\x00\x0a\x00\x03a/#\x01");
    let subscribe = Subscribe { qos: QoS::AtMostOnce, ..subscribe };
    assert_eq!(encoded(Packet::Subscribe(subscribe)).unwrap(), b"\x82\x08\x00\x0a\x00\x03a/#\x00");
    let unsubscribe = Unsubscribe { packet_id: id(11), filter: "a/#".into() };
    assert_eq!(encoded(Packet::Unsubscribe(unsubscribe)).unwrap(), b"\xa2\x07\x00\x0b\x00\x03a/#");
}

#[test]
fn fields_too_long_for_mqtt_are_named_with_their_size() {
    let long = "x".repeat(65_536);
    let too_long = |what| Err(EncodeError::TooLong { what, size: 65_536, limit: 65_535 });
    let ok = Who { client_id: "d", user_name: Some("u"), password: Some("p"), will: None };

    let who = Who { client_id: &long, ..ok.clone() };
    assert_eq!(encoded(connect(&who, true, 1)), too_long("client id"));
    let who = Who { user_name: Some(&long), ..ok.clone() };
    assert_eq!(encoded(connect(&who, true, 1)), too_long("user name"));
    let who = Who { password: Some(&long), ..ok.clone() };
    assert_eq!(encoded(connect(&who, true, 1)), too_long("password"));
    let who = Who { will: Some((&long, b"", QoS::AtMostOnce, false)), ..ok.clone() };
    assert_eq!(encoded(connect(&who, true, 1)), too_long("will topic"));
    let who = Who { will: Some(("w", long.as_bytes(), QoS::AtMostOnce, false)), ..ok };
    assert_eq!(encoded(connect(&who, true, 1)), too_long("will payload"));
    assert_eq!(encoded(Packet::Publish(Publish { topic: long.as_str().into(), ..MESSAGE })), too_long("topic"));
    let unsubscribe = Unsubscribe { packet_id: id(1), filter: long.as_str().into() };
    assert_eq!(encoded(Packet::Unsubscribe(unsubscribe)), too_long("filter"));

    let longest = long.get(1..).unwrap();
    let bytes = encoded(Packet::Publish(Publish { topic: longest.into(), ..MESSAGE })).unwrap();
    assert!(
        matches!(decode(&bytes, LIMIT), Ok(Decoded::Packet { packet: Incoming::Publish(it), .. }) if it.topic == longest)
    );
}

#[test]
fn a_packet_above_the_greatest_length_is_refused_before_its_first_byte() {
    struct Nothing;
    impl Sink for Nothing {
        fn put(&mut self, _: &[u8]) -> Result<(), SinkFull> {
            panic!("nothing is to be put");
        }
    }
    let payload = vec![0; MAX_REMAINING_LEN - 2];
    let packet = Packet::Publish(Publish { topic: "a".into(), payload: &payload, ..MESSAGE });
    let expected = EncodeError::TooLong { what: "packet", size: MAX_REMAINING_LEN + 1, limit: MAX_REMAINING_LEN };
    assert_eq!(packet.encode(&mut Nothing), Err(expected));
    let packet = Packet::Publish(Publish { topic: "".into(), payload: &payload, ..MESSAGE });
    assert_eq!(packet.encoded_len(), Ok(5 + MAX_REMAINING_LEN));
}

#[test]
fn a_buffer_one_byte_too_small_is_full() {
    let who = Who { client_id: "dev", user_name: Some("u"), password: Some("p"), will: None };
    for packet in [
        connect(&who, true, 1),
        Packet::Publish(Publish { topic: "a".into(), ..MESSAGE }),
        Packet::PubAck(id(1)),
        Packet::Subscribe(Subscribe { packet_id: id(1), filter: "a".into(), qos: QoS::AtMostOnce }),
        Packet::Unsubscribe(Unsubscribe { packet_id: id(1), filter: "a".into() }),
        Packet::PingReq,
        Packet::Disconnect,
    ] {
        for len in 0..packet.encoded_len().unwrap() {
            assert_eq!(packet.encode_to_slice(&mut vec![0; len]), Err(EncodeError::Full), "{packet:?} in {len}");
        }
    }
}

#[test]
fn what_a_server_sends_is_decoded() {
    let message = Received { topic: "a/b", payload: b"x", packet_id: None, dup: false, retain: false };
    let cases: &[(&[u8], Incoming<'_>)] = &[
        (b"\x20\x02\x00\x00", Incoming::ConnAck { session_present: false, code: 0 }),
        (b"\x20\x02\x01\x00", Incoming::ConnAck { session_present: true, code: 0 }),
        (b"\x20\x02\x00\x05", Incoming::ConnAck { session_present: false, code: 5 }),
        (b"\x20\x02\x00\xff", Incoming::ConnAck { session_present: false, code: 255 }),
        (b"\x30\x06\x00\x03a/bx", Incoming::Publish(message)),
        (b"\x31\x06\x00\x03a/bx", Incoming::Publish(Received { retain: true, ..message })),
        (b"\x32\x08\x00\x03a/b\x00\x07x", Incoming::Publish(Received { packet_id: Some(id(7)), ..message })),
        (
            b"\x3b\x07\x00\x03a/b\xff\xfe",
            Incoming::Publish(Received {
                packet_id: Some(id(0xfffe)),
                dup: true,
                retain: true,
                payload: b"",
                ..message
            }),
        ),
        (b"\x30\x04\x00\x02\xc3\xa9", Incoming::Publish(Received { topic: "é", payload: b"", ..message })),
        // [MQTT-1.5.3-3]: U+FEFF belongs to the text wherever it stands.
        (b"\x30\x05\x00\x03\xef\xbb\xbf", Incoming::Publish(Received { topic: "\u{feff}", payload: b"", ..message })),
        (b"\x40\x02\x12\x34", Incoming::PubAck { packet_id: id(0x1234), reason: Reason::SUCCESS }),
        (b"\x90\x03\x00\x02\x01", Incoming::SubAck { packet_id: id(2), codes: &[1] }),
        (b"\x90\x06\x00\x02\x00\x01\x02\x80", Incoming::SubAck { packet_id: id(2), codes: &[0, 1, 2, 0x80] }),
        (b"\xb0\x02\x00\x03", Incoming::UnsubAck(id(3))),
        (b"\xd0\x00", Incoming::PingResp),
        // The length field may be longer than it has to be.
        (b"\xd0\x80\x80\x80\x00", Incoming::PingResp),
        (b"\x40\x82\x00\x00\x01", Incoming::PubAck { packet_id: id(1), reason: Reason::SUCCESS }),
    ];
    for (bytes, packet) in cases {
        let whole = Decoded::Packet { packet: *packet, len: bytes.len() };
        assert_eq!(decode(bytes, bytes.len()), Ok(whole), "{bytes:02x?}");
        assert_eq!(decode(&[bytes, &b"\xff\xff"[..]].concat(), LIMIT), Ok(whole), "{bytes:02x?} and more");
        assert_eq!(packet.name(), packet.packet_type().to_string());
    }
}

/// Every way a packet can be wrong; the number is how many of the bytes suffice to tell.
#[test]
fn what_no_server_may_send_is_refused_as_early_as_it_shows() {
    use DecodeError as E;
    use PacketType as T;
    let cases: &[(&[u8], usize, E)] = &[
        // Types.
        (b"\x00\x00", 1, E::ReservedType(0x00)),
        (b"\x0f\x00", 1, E::ReservedType(0x0f)),
        (b"\xf0\x00", 1, E::ReservedType(0xf0)),
        (b"\xff\xff\xff\xff\xff", 1, E::ReservedType(0xff)),
        (b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a", 1, E::UnexpectedType(T::Connect)),
        (b"\x50\x02\x00\x01", 1, E::UnexpectedType(T::PubRec)),
        (b"\x62\x02\x00\x01", 1, E::UnexpectedType(T::PubRel)),
        (b"\x70\x02\x00\x01", 1, E::UnexpectedType(T::PubComp)),
        (b"\x82\x06\x00\x01\x00\x01a\x00", 1, E::UnexpectedType(T::Subscribe)),
        (b"\xa2\x05\x00\x01\x00\x01a", 1, E::UnexpectedType(T::Unsubscribe)),
        (b"\xc0\x00", 1, E::UnexpectedType(T::PingReq)),
        (b"\xe0\x00", 1, E::UnexpectedType(T::Disconnect)),
        (b"HTTP/1.1 302 Found\r\n", 1, E::WrongFlags { packet: T::PubAck, flags: 8 }),
        (b"<html>", 1, E::UnsupportedQos),
        (b"\x15\x03\x03\x00\x02\x02\x28", 1, E::UnexpectedType(T::Connect)),
        // Flags.
        (b"\x21\x02\x00\x00", 1, E::WrongFlags { packet: T::ConnAck, flags: 1 }),
        (b"\x42\x02\x00\x01", 1, E::WrongFlags { packet: T::PubAck, flags: 2 }),
        (b"\x98\x03\x00\x01\x00", 1, E::WrongFlags { packet: T::SubAck, flags: 8 }),
        (b"\xb4\x02\x00\x01", 1, E::WrongFlags { packet: T::UnsubAck, flags: 4 }),
        (b"\xdf\x00", 1, E::WrongFlags { packet: T::PingResp, flags: 15 }),
        (b"\x34\x05\x00\x01a\x00\x01", 1, E::UnsupportedQos),
        (b"\x3d\x05\x00\x01a\x00\x01", 1, E::UnsupportedQos),
        (b"\x36\x05\x00\x01a\x00\x01", 1, E::ReservedQos),
        (b"\x3f\x05\x00\x01a\x00\x01", 1, E::ReservedQos),
        (b"\x38\x03\x00\x01a", 1, E::DupWithQos0),
        // Length field.
        (b"\x30\xff\xff\xff\xff\x01", 5, E::LongLength),
        (b"\xd0\x80\x80\x80\x80\x00", 5, E::LongLength),
        (b"\x30\xff\xff\xff\x7f\x00\x01a", 5, E::TooLarge { size: 268_435_460, limit: LIMIT }),
        (b"\x30\xfd\xff\x3f\x00\x01a", 4, E::TooLarge { size: LIMIT + 1, limit: LIMIT }),
        // Fixed sizes.
        (b"\x20\x00", 2, E::Truncated { packet: T::ConnAck }),
        (b"\x20\x01\x00", 2, E::Truncated { packet: T::ConnAck }),
        (b"\x20\x03\x00\x00\x00", 2, E::TrailingBytes { packet: T::ConnAck, extra: 1 }),
        (b"\x40\x00", 2, E::Truncated { packet: T::PubAck }),
        (b"\x40\x01\x00", 2, E::Truncated { packet: T::PubAck }),
        (b"\x40\x04\x00\x01\x00\x00", 2, E::TrailingBytes { packet: T::PubAck, extra: 2 }),
        (b"\xb0\x01\x00", 2, E::Truncated { packet: T::UnsubAck }),
        (b"\xb0\x03\x00\x01\x00", 2, E::TrailingBytes { packet: T::UnsubAck, extra: 1 }),
        (b"\xd0\x01\x00", 2, E::TrailingBytes { packet: T::PingResp, extra: 1 }),
        (b"\x90\x00", 2, E::Truncated { packet: T::SubAck }),
        (b"\x90\x02\x00\x01", 2, E::Truncated { packet: T::SubAck }),
        // Packet id 0.
        (b"\x32\x05\x00\x01a\x00\x00", 7, E::ZeroPacketId { packet: T::Publish }),
        (b"\x40\x02\x00\x00", 4, E::ZeroPacketId { packet: T::PubAck }),
        (b"\x90\x03\x00\x00\x00", 5, E::ZeroPacketId { packet: T::SubAck }),
        (b"\xb0\x02\x00\x00", 4, E::ZeroPacketId { packet: T::UnsubAck }),
        // Fields of PUBLISH.
        (b"\x30\x00", 2, E::Truncated { packet: T::Publish }),
        (b"\x30\x01\x00", 2, E::Truncated { packet: T::Publish }),
        (b"\x32\x03\x00\x01a", 2, E::Truncated { packet: T::Publish }),
        (b"\x30\x03\x00\x02a", 5, E::Truncated { packet: T::Publish }),
        (b"\x30\x03\xff\xffa", 5, E::Truncated { packet: T::Publish }),
        (b"\x32\x05\x00\x02ab\x00", 7, E::Truncated { packet: T::Publish }),
        (b"\x30\x02\x00\x00", 4, E::EmptyTopic),
        (b"\x32\x04\x00\x00\x00\x01", 6, E::EmptyTopic),
        (b"\x30\x05\x00\x03a\x00b", 7, E::NulInTopic),
        (b"\x30\x05\x00\x03a/+", 7, E::WildcardInTopic),
        (b"\x30\x03\x00\x01#", 5, E::WildcardInTopic),
        (b"\x30\x04\x00\x02\xc0\x80", 6, E::TopicNotUtf8),
        (b"\x30\x03\x00\x01\x80", 5, E::TopicNotUtf8),
        (b"\x30\x03\x00\x01\xc3", 5, E::TopicNotUtf8),
        // Surrogates, alone and as a pair.
        (b"\x30\x05\x00\x03\xed\xa0\x80", 7, E::TopicNotUtf8),
        (b"\x30\x08\x00\x06\xed\xa0\xbd\xed\xb8\x80", 10, E::TopicNotUtf8),
        // Above U+10FFFF.
        (b"\x30\x06\x00\x04\xf4\x90\x80\x80", 8, E::TopicNotUtf8),
        // Fields of CONNACK and SUBACK.
        (b"\x20\x02\x02\x00", 4, E::ReservedConnAckFlags(2)),
        (b"\x20\x02\x81\x00", 4, E::ReservedConnAckFlags(0x81)),
        (b"\x20\x02\x01\x05", 4, E::SessionWithRefusal { code: 5 }),
        (b"\x90\x03\x00\x01\x03", 5, E::ReservedSubAckCode(3)),
        (b"\x90\x04\x00\x01\x01\x81", 6, E::ReservedSubAckCode(0x81)),
    ];
    for (bytes, suffices, error) in cases {
        assert_eq!(decode(bytes, LIMIT), Err(*error), "{bytes:02x?}");
        for seen in 0..*suffices {
            let answer = decode(&bytes[..seen], LIMIT);
            assert!(
                matches!(answer, Ok(Decoded::Incomplete { needed }) if needed > seen && needed <= (*suffices).max(2)),
                "{seen} of {bytes:02x?}: {answer:?}"
            );
        }
        assert_eq!(decode(&bytes[..*suffices], LIMIT), Err(*error), "{suffices} of {bytes:02x?}");
    }
}

#[test]
fn a_packet_is_awaited_no_longer_than_its_length_says() {
    let packet = b"\x32\x80\x01\x00\x01a\x00\x01";
    for (seen, needed) in [(0, 2), (1, 2), (2, 3), (3, 131), (4, 131), (8, 131)] {
        assert_eq!(decode(&packet[..seen], LIMIT), Ok(Decoded::Incomplete { needed }), "{seen} bytes");
    }
    assert_eq!(decode(&packet[..3], 131), Ok(Decoded::Incomplete { needed: 131 }));
    assert_eq!(decode(&packet[..3], 130), Err(DecodeError::TooLarge { size: 131, limit: 130 }));
}

#[test]
fn errors_say_what_is_wrong_and_where() {
    for (error, text) in [
        (DecodeError::ReservedType(0xf0), "first byte 0xf0 names a reserved packet type"),
        (DecodeError::UnexpectedType(PacketType::PubRec), "no server sends PUBREC to this client"),
        (
            DecodeError::WrongFlags { packet: PacketType::PubAck, flags: 2 },
            "PUBACK has the flags 0b0010; they have to be 0",
        ),
        (DecodeError::TooLarge { size: 300, limit: 256 }, "packet is 300 bytes; the limit is 256"),
        (DecodeError::ZeroPacketId { packet: PacketType::SubAck }, "SUBACK has the packet id 0"),
        (DecodeError::ReservedSubAckCode(3), "SUBACK has the reserved code 0x03"),
    ] {
        assert_eq!(error.to_string(), text);
    }
    let error = EncodeError::TooLong { what: "topic", size: 65_536, limit: 65_535 };
    assert_eq!(error.to_string(), "topic is 65536 bytes; MQTT can send 65535");
}

#[test]
fn packet_ids_are_never_0() {
    assert_eq!(PacketId::new(0), None);
    assert_eq!(PacketId::new(65_535).map(PacketId::get), Some(65_535));
    assert_eq!(id(42).to_string(), "42");
}
