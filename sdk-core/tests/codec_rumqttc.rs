//! The codec against an independent one, that of rumqttc, in both directions.

mod codec_support;

use bytes::{Bytes, BytesMut};
use codec_support::Who;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use rumqttc::mqttbytes::v4;
use rumqttc::mqttbytes::{Error as TheirError, QoS as TheirQos};
use steadfast_core::mqtt::{
    Connect, DecodeError, Decoded, Incoming, Packet, PacketId, PacketType, Publish, QoS, Received, Subscribe,
    Unsubscribe, decode,
};

const LIMIT: usize = 1 << 20;

/// Returns what they read from our bytes, after checking that they took all of them.
fn read(bytes: &[u8]) -> Result<v4::Packet, TheirError> {
    let mut stream = BytesMut::from(bytes);
    let packet = v4::Packet::read(&mut stream, LIMIT)?;
    assert!(stream.is_empty(), "{packet:?} leaves {stream:?}");
    Ok(packet)
}

fn write(packet: &v4::Packet) -> Vec<u8> {
    let mut stream = BytesMut::new();
    packet.write(&mut stream, LIMIT).expect("generated packets keep their limits");
    stream.to_vec()
}

fn encoded(packet: Packet<'_>) -> Vec<u8> {
    let mut buffer = vec![0; packet.encoded_len().expect("generated packets keep the limits")];
    assert_eq!(packet.encode_to_slice(&mut buffer), Ok(buffer.len()));
    buffer
}

/// Asserts that they read `theirs` from `ours` and write the same bytes for it.
fn assert_agreed(ours: Packet<'_>, theirs: &v4::Packet) {
    let bytes = encoded(ours);
    assert_eq!(read(&bytes).expect("they read what we write"), *theirs);
    assert_eq!(write(theirs), bytes, "{theirs:?}");
}

fn level(qos: QoS) -> TheirQos {
    match qos {
        QoS::AtMostOnce => TheirQos::AtMostOnce,
        QoS::AtLeastOnce => TheirQos::AtLeastOnce,
    }
}

fn packet_ids() -> impl Strategy<Value = PacketId> {
    (1..=u16::MAX).prop_map(|number| PacketId::new(number).expect("the range leaves out 0"))
}

fn levels() -> impl Strategy<Value = QoS> {
    prop::sample::select(vec![QoS::AtMostOnce, QoS::AtLeastOnce])
}

fn payloads() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..400)
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(0x311), ..ProptestConfig::default() })]

    #[test]
    fn they_read_our_connect(
        client_id in ".{1,40}",
        // They take an empty text for an absent one.
        login in prop::option::of((".{1,80}", ".{1,200}")),
        will in prop::option::of(("[^+#\0]{1,40}", payloads(), levels(), any::<bool>())),
        clean_session in any::<bool>(),
        keep_alive in any::<u16>(),
    ) {
        let who = Who {
            client_id: &client_id,
            user_name: login.as_ref().map(|(user_name, _)| user_name.as_str()),
            password: login.as_ref().map(|(_, password)| password.as_str()),
            will: will.as_ref().map(|(topic, payload, qos, retain)| (topic.as_str(), payload.as_slice(), *qos, *retain)),
        };
        let mut theirs = v4::Connect::new(&client_id);
        theirs.clean_session = clean_session;
        theirs.keep_alive = keep_alive;
        theirs.last_will = will
            .as_ref()
            .map(|(topic, payload, qos, retain)| v4::LastWill::new(topic, payload.as_slice(), level(*qos), *retain));
        if let Some((user_name, password)) = &login {
            theirs.set_login(user_name, password);
        }
        let ours = Packet::Connect(Connect { login: &who, clean_session, keep_alive_secs: keep_alive });
        assert_agreed(ours, &v4::Packet::Connect(theirs));
    }

    #[test]
    fn messages_pass_both_ways(
        topic in "[^+#\0]{1,80}",
        payload in payloads(),
        packet_id in prop::option::of(packet_ids()),
        dup in any::<bool>(),
        retain in any::<bool>(),
    ) {
        let dup = dup && packet_id.is_some();
        let ours = Publish { topic: topic.as_str().into(), payload: &payload, packet_id, dup, retain };
        let theirs = v4::Publish {
            dup,
            qos: if packet_id.is_some() { TheirQos::AtLeastOnce } else { TheirQos::AtMostOnce },
            retain,
            topic: topic.clone(),
            pkid: packet_id.map_or(0, PacketId::get),
            payload: Bytes::from(payload.clone()),
        };
        let theirs = v4::Packet::Publish(theirs);
        assert_agreed(Packet::Publish(ours), &theirs);

        let bytes = write(&theirs);
        let received = Received { topic: &topic, payload: &payload, packet_id, dup, retain };
        let whole = Decoded::Packet { packet: Incoming::Publish(received), len: bytes.len() };
        prop_assert_eq!(decode(&bytes, LIMIT), Ok(whole));
    }

    #[test]
    fn they_read_our_subscriptions_and_acknowledgements(id in packet_ids(), filter in ".{1,80}", qos in levels()) {
        let mut theirs = v4::Subscribe::new(&filter, level(qos));
        theirs.pkid = id.get();
        let ours = Subscribe { packet_id: id, filter: filter.as_str().into(), qos };
        assert_agreed(Packet::Subscribe(ours), &v4::Packet::Subscribe(theirs));

        let mut theirs = v4::Unsubscribe::new(&filter);
        theirs.pkid = id.get();
        let ours = Unsubscribe { packet_id: id, filter: filter.as_str().into() };
        assert_agreed(Packet::Unsubscribe(ours), &v4::Packet::Unsubscribe(theirs));

        assert_agreed(Packet::PubAck(id), &v4::Packet::PubAck(v4::PubAck::new(id.get())));
    }

    #[test]
    fn we_read_their_answers(id in packet_ids(), code in 0_u8..4, session_present in any::<bool>()) {
        let granted = match code {
            0 => v4::SubscribeReasonCode::Success(TheirQos::AtMostOnce),
            1 => v4::SubscribeReasonCode::Success(TheirQos::AtLeastOnce),
            2 => v4::SubscribeReasonCode::Success(TheirQos::ExactlyOnce),
            _ => v4::SubscribeReasonCode::Failure,
        };
        let code = if code == 3 { 0x80 } else { code };
        let codes = [code, 1];
        let granted = vec![granted, v4::SubscribeReasonCode::Success(TheirQos::AtLeastOnce)];
        for (theirs, packet) in [
            (v4::Packet::PubAck(v4::PubAck::new(id.get())), Incoming::PubAck { packet_id: id, reason: steadfast_core::mqtt::Reason::SUCCESS }),
            (v4::Packet::UnsubAck(v4::UnsubAck::new(id.get())), Incoming::UnsubAck(id)),
            (v4::Packet::SubAck(v4::SubAck::new(id.get(), granted)), Incoming::SubAck { packet_id: id, codes: &codes }),
            (v4::Packet::PingResp, Incoming::PingResp),
            (
                v4::Packet::ConnAck(v4::ConnAck::new(v4::ConnectReturnCode::Success, session_present)),
                Incoming::ConnAck { session_present, code: 0 },
            ),
        ] {
            let bytes = write(&theirs);
            prop_assert_eq!(decode(&bytes, LIMIT), Ok(Decoded::Packet { packet, len: bytes.len() }));
        }
    }
}

#[test]
fn packets_without_fields_are_the_same() {
    assert_agreed(Packet::PingReq, &v4::Packet::PingReq);
    assert_agreed(Packet::Disconnect, &v4::Packet::Disconnect);
}

#[test]
fn refusals_keep_their_code() {
    use v4::ConnectReturnCode as Code;
    for (theirs, code) in [
        (Code::RefusedProtocolVersion, 1),
        (Code::BadClientId, 2),
        (Code::ServiceUnavailable, 3),
        (Code::BadUserNamePassword, 4),
        (Code::NotAuthorized, 5),
    ] {
        let bytes = write(&v4::Packet::ConnAck(v4::ConnAck::new(theirs, false)));
        let packet = Incoming::ConnAck { session_present: false, code };
        assert_eq!(decode(&bytes, LIMIT), Ok(Decoded::Packet { packet, len: 4 }));
    }
}

/// All kinds of packets that they take and we refuse, each with the statement that asks for it.
#[test]
fn we_are_stricter_where_the_standard_asks_for_it() {
    use DecodeError as E;
    use PacketType as T;
    let cases: &[(&[u8], E)] = &[
        // A client is sent none of these (section 2.2.1, table 2.1).
        (b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a", E::UnexpectedType(T::Connect)),
        (b"\x50\x02\x00\x01", E::UnexpectedType(T::PubRec)),
        (b"\x62\x02\x00\x01", E::UnexpectedType(T::PubRel)),
        (b"\x70\x02\x00\x01", E::UnexpectedType(T::PubComp)),
        (b"\x82\x06\x00\x01\x00\x01a\x00", E::UnexpectedType(T::Subscribe)),
        (b"\xa2\x05\x00\x01\x00\x01a", E::UnexpectedType(T::Unsubscribe)),
        (b"\xc0\x00", E::UnexpectedType(T::PingReq)),
        (b"\xe0\x00", E::UnexpectedType(T::Disconnect)),
        // [MQTT-2.2.2-2]: reserved flags close the connection.
        (b"\x22\x02\x00\x00", E::WrongFlags { packet: T::ConnAck, flags: 2 }),
        (b"\x41\x02\x00\x01", E::WrongFlags { packet: T::PubAck, flags: 1 }),
        (b"\xd8\x00", E::WrongFlags { packet: T::PingResp, flags: 8 }),
        // [MQTT-3.8.4-6]: never more than the QoS granted, and we ask for 1 at most.
        (b"\x34\x05\x00\x01a\x00\x01", E::UnsupportedQos),
        // [MQTT-3.3.1-2]
        (b"\x38\x03\x00\x01a", E::DupWithQos0),
        // Sections 3.2.1, 3.4.1 and 3.13.1 fix the remaining length.
        (b"\x20\x03\x00\x00\x00", E::TrailingBytes { packet: T::ConnAck, extra: 1 }),
        (b"\x40\x03\x00\x01\x00", E::TrailingBytes { packet: T::PubAck, extra: 1 }),
        (b"\xd0\x01\x00", E::TrailingBytes { packet: T::PingResp, extra: 1 }),
        // [MQTT-2.3.1-1]; they see it in PUBLISH only.
        (b"\x40\x02\x00\x00", E::ZeroPacketId { packet: T::PubAck }),
        (b"\x90\x03\x00\x00\x00", E::ZeroPacketId { packet: T::SubAck }),
        (b"\xb0\x02\x00\x00", E::ZeroPacketId { packet: T::UnsubAck }),
        // [MQTT-4.7.3-1], [MQTT-1.5.3-2] and [MQTT-3.3.2-2]
        (b"\x30\x02\x00\x00", E::EmptyTopic),
        (b"\x30\x03\x00\x01\x00", E::NulInTopic),
        (b"\x30\x03\x00\x01+", E::WildcardInTopic),
        // Section 3.2.2.1 and [MQTT-3.2.2-4]
        (b"\x20\x02\x04\x00", E::ReservedConnAckFlags(4)),
        (b"\x20\x02\x01\x04", E::SessionWithRefusal { code: 4 }),
    ];
    for (bytes, error) in cases {
        assert_eq!(decode(bytes, LIMIT), Err(*error), "{bytes:02x?}");
        assert!(read(bytes).is_ok(), "{bytes:02x?}: {:?}", read(bytes));
    }
}

/// The one packet that we take and they refuse: a code that no version of the standard defines is no fault in the form
/// of the packet, and what it means to the connection is not the codec's business.
#[test]
fn unknown_refusals_pass_us_and_not_them() {
    let bytes = b"\x20\x02\x00\x06";
    let packet = Incoming::ConnAck { session_present: false, code: 6 };
    assert_eq!(decode(bytes, LIMIT), Ok(Decoded::Packet { packet, len: 4 }));
    assert!(matches!(read(bytes), Err(TheirError::InvalidConnectReturnCode(6))));
}

/// Their limit counts the bytes behind the fixed header, ours all of them.
#[test]
fn limits_are_counted_differently() {
    let bytes = b"\x30\x03\x00\x01a";
    assert_eq!(decode(bytes, 4), Err(DecodeError::TooLarge { size: 5, limit: 4 }));
    assert!(v4::Packet::read(&mut BytesMut::from(&bytes[..]), 3).is_ok());
    assert!(matches!(
        v4::Packet::read(&mut BytesMut::from(&bytes[..]), 2),
        Err(TheirError::PayloadSizeLimitExceeded(3))
    ));
}
