//! What holds for any packet and any bytes.

mod codec_support;

use codec_support::Who;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use steadfast_core::mqtt::{
    Connect, DecodeError, Decoded, Incoming, Packet, PacketId, Publish, QoS, Received, Subscribe, Unsubscribe, decode,
};
use steadfast_core::text::{Part, Text};

const LIMIT: usize = 4096;

/// A message that owns its parts.
#[derive(Clone, Debug)]
struct Message {
    topic: String,
    payload: Vec<u8>,
    packet_id: Option<PacketId>,
    dup: bool,
    retain: bool,
}

impl Message {
    fn encoded(&self) -> Vec<u8> {
        encoded(Packet::Publish(Publish {
            topic: self.topic.as_str().into(),
            payload: &self.payload,
            packet_id: self.packet_id,
            dup: self.dup,
            retain: self.retain,
        }))
    }
}

fn encoded(packet: Packet<'_>) -> Vec<u8> {
    let mut buffer = vec![0; packet.encoded_len().expect("generated packets keep the limits")];
    assert_eq!(packet.encode_to_slice(&mut buffer), Ok(buffer.len()));
    buffer
}

fn packet_ids() -> impl Strategy<Value = PacketId> {
    (1..=u16::MAX).prop_map(|number| PacketId::new(number).expect("the range leaves out 0"))
}

fn messages() -> impl Strategy<Value = Message> {
    let flags = (any::<bool>(), any::<bool>());
    ("[^+#\0]{1,80}", prop::collection::vec(any::<u8>(), 0..300), prop::option::of(packet_ids()), flags)
        .prop_map(|(topic, payload, packet_id, (dup, retain))| Message { topic, payload, packet_id, dup, retain })
}

/// Bytes of a packet that a server may send.
fn server_packets() -> impl Strategy<Value = Vec<u8>> {
    let codes = prop::collection::vec(prop::sample::select(vec![0, 1, 2, 0x80_u8]), 1..9);
    let with_id = |first: u8| move |id: PacketId| [&[first, 2][..], &id.get().to_be_bytes()].concat();
    prop_oneof![
        messages().prop_map(|message| message.encoded()),
        packet_ids().prop_map(with_id(0x40)),
        packet_ids().prop_map(with_id(0xb0)),
        any::<u8>().prop_map(|code| vec![0x20, 2, 0, code]),
        Just(vec![0x20, 2, 1, 0]),
        Just(vec![0xd0, 0]),
        (packet_ids(), codes).prop_map(|(id, codes)| {
            let length = u8::try_from(codes.len() + 2).expect("there are few codes");
            [&[0x90, length][..], &id.get().to_be_bytes(), &codes].concat()
        }),
    ]
}

/// Bytes that look like packets more often than chance.
fn near_packets() -> impl Strategy<Value = Vec<u8>> {
    let any_bytes = prop::collection::vec(any::<u8>(), 0..64);
    let spoilt = (server_packets(), any::<prop::sample::Index>(), any::<u8>(), any::<prop::sample::Index>());
    prop_oneof![
        any_bytes,
        spoilt.prop_map(|(mut bytes, place, value, end)| {
            let place = place.index(bytes.len());
            bytes[place] = value;
            bytes.truncate(end.index(bytes.len()) + 1);
            bytes
        }),
    ]
}

/// Splits a stream into packets as a frontend does: the buffer grows by `chunks` in turn, whole packets leave it.
fn packets_in_chunks(stream: &[u8], chunks: &[usize]) -> (Vec<String>, Option<DecodeError>) {
    let mut packets = Vec::new();
    let mut buffer = Vec::new();
    let mut chunks = chunks.iter().copied().cycle();
    let mut rest = stream;
    loop {
        match decode(&buffer, LIMIT) {
            Ok(Decoded::Packet { packet, len }) => {
                packets.push(format!("{packet:?}"));
                buffer.drain(..len);
            }
            Ok(Decoded::Incomplete { needed }) => {
                assert!(needed > buffer.len() && needed <= LIMIT, "{needed} with {}", buffer.len());
                if rest.is_empty() {
                    return (packets, None);
                }
                let (chunk, behind) = rest.split_at(chunks.next().unwrap_or(1).clamp(1, rest.len()));
                buffer.extend_from_slice(chunk);
                rest = behind;
            }
            Err(error) => return (packets, Some(error)),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(0x311), ..ProptestConfig::default() })]

    #[test]
    fn a_message_decodes_to_what_was_encoded_and_encodes_to_the_same_bytes(message in messages()) {
        let bytes = message.encoded();
        let received = Received {
            topic: &message.topic,
            payload: &message.payload,
            packet_id: message.packet_id,
            dup: message.dup && message.packet_id.is_some(),
            retain: message.retain,
        };
        let whole = Decoded::Packet { packet: Incoming::Publish(received), len: bytes.len() };
        prop_assert_eq!(decode(&bytes, LIMIT), Ok(whole));
        let Received { topic, payload, packet_id, dup, retain } = received;
        let again = encoded(Packet::Publish(Publish { topic: topic.into(), payload, packet_id, dup, retain }));
        prop_assert_eq!(again, bytes);
    }

    #[test]
    fn a_topic_in_parts_is_the_same_as_in_one(message in messages(), id in any::<u64>()) {
        let parts = [Part::Plain("d/"), Part::Encoded(&message.topic), Part::Plain("&$rid="), Part::Hex(id), Part::Number(id)];
        let topic = Text::of(parts);
        let mut whole = [0; 2048];
        let whole = topic.to_str(&mut whole).expect("the topic has at most 12 bytes for each of 80 characters");
        let publish = Publish { topic, payload: &message.payload, packet_id: message.packet_id, dup: false, retain: false };
        let plain = Publish { topic: whole.into(), ..publish };
        prop_assert_eq!(encoded(Packet::Publish(publish)), encoded(Packet::Publish(plain)));
    }

    #[test]
    fn any_chunking_of_a_stream_gives_the_same_packets(
        packets in prop::collection::vec(server_packets(), 0..8),
        chunks in prop::collection::vec(1_usize..40, 1..8),
    ) {
        let stream = packets.concat();
        let (whole, error) = packets_in_chunks(&stream, &[stream.len()]);
        prop_assert_eq!(error, None);
        prop_assert_eq!(whole.len(), packets.len());
        prop_assert_eq!(&packets_in_chunks(&stream, &chunks), &(whole.clone(), None));
        prop_assert_eq!(&packets_in_chunks(&stream, &[1]), &(whole, None));
    }

    #[test]
    fn any_chunking_of_a_faulty_stream_fails_alike(
        packets in prop::collection::vec(server_packets(), 0..3),
        fault in near_packets(),
        chunks in prop::collection::vec(1_usize..40, 1..8),
    ) {
        let stream = [packets.concat(), fault].concat();
        let whole = packets_in_chunks(&stream, &[stream.len()]);
        prop_assert_eq!(&packets_in_chunks(&stream, &chunks), &whole);
        prop_assert_eq!(&packets_in_chunks(&stream, &[1]), &whole);
    }

    #[test]
    fn the_limit_is_the_largest_packet_taken(bytes in server_packets()) {
        let size = bytes.len();
        let is_whole = matches!(decode(&bytes, size), Ok(Decoded::Packet { len, .. }) if len == size);
        prop_assert!(is_whole);
        let limit = size - 1;
        prop_assert_eq!(decode(&bytes, limit), Err(DecodeError::TooLarge { size, limit }));
    }

    #[test]
    fn the_length_is_known_before_anything_is_written(
        message in messages(),
        id in packet_ids(),
        keep_alive_secs in any::<u16>(),
        clean_session in any::<bool>(),
        texts in ("[a-z]{1,20}", prop::option::of(".{0,40}"), prop::option::of(".{0,40}")),
    ) {
        let (client_id, user_name, password) = &texts;
        let who = Who {
            client_id,
            user_name: user_name.as_deref(),
            password: password.as_deref().filter(|_| user_name.is_some()),
            will: message.dup.then_some((message.topic.as_str(), &message.payload, QoS::AtLeastOnce, message.retain)),
        };
        let filter = message.topic.as_str().into();
        for packet in [
            Packet::Connect(Connect { login: &who, clean_session, keep_alive_secs }),
            Packet::Subscribe(Subscribe { packet_id: id, filter, qos: QoS::AtMostOnce }),
            Packet::Unsubscribe(Unsubscribe { packet_id: id, filter }),
        ] {
            // The remaining length is below 128 x 128, so it takes one byte or two.
            let bytes = encoded(packet);
            let [low, high] = [bytes[1], bytes[2]].map(usize::from);
            let remaining = if low < 128 { low + 2 } else { low - 128 + high * 128 + 3 };
            prop_assert_eq!(remaining, bytes.len());
        }
    }
}
