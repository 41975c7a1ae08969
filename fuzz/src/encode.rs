//! The MQTT 3.1.1 encoder: what it writes is read back the same, by us and by rumqttc.

use bytes::BytesMut;
use rumqttc::mqttbytes::{QoS as TheirQos, v4};
use steadfast_core::mqtt::{
    Connect, Decoded, EncodeError, Incoming, Login, Packet, PacketId, Publish, QoS, Received, Subscribe, Unsubscribe,
    Will, decode,
};
use steadfast_core::text::Text;

use crate::source::Source;

/// Largest packet either takes.
const LIMIT: usize = 1 << 20;

/// Takes `data` first as the recipe of a packet to encode, then as bytes to decode and encode again.
///
/// # Panics
/// When something is read back differently, or a length is not the one announced.
pub fn target(data: &[u8]) {
    from_recipe(&mut Source::new(data));
    again(data);
}

fn from_recipe(source: &mut Source<'_>) {
    let kind = source.byte() % 8;
    let Some(packet_id) = PacketId::new(source.number()) else { return };
    match kind {
        0 => {
            let who = Who::from_recipe(source);
            let connect = Connect { login: &who, clean_session: source.flag(), keep_alive_secs: source.number() };
            check_connect(&who, connect);
        }
        1 | 2 => {
            let topic = source.text();
            let publish = Publish {
                topic: topic.into(),
                packet_id: (kind == 1).then_some(packet_id),
                dup: source.flag(),
                retain: source.flag(),
                payload: source.rest(),
            };
            check_publish(topic, publish);
        }
        3 => {
            let theirs = v4::Packet::PubAck(v4::PubAck::new(packet_id.get()));
            assert_eq!(read(&encoded(Packet::PubAck(packet_id))), theirs);
        }
        4 => {
            let filter = source.text();
            let mut theirs = v4::Subscribe::new(filter, TheirQos::AtLeastOnce);
            theirs.pkid = packet_id.get();
            let ours = Subscribe { packet_id, filter: filter.into(), qos: QoS::AtLeastOnce };
            assert_eq!(read(&encoded(Packet::Subscribe(ours))), v4::Packet::Subscribe(theirs));
        }
        5 => {
            let filter = source.text();
            let mut theirs = v4::Unsubscribe::new(filter);
            theirs.pkid = packet_id.get();
            let ours = Unsubscribe { packet_id, filter: filter.into() };
            assert_eq!(read(&encoded(Packet::Unsubscribe(ours))), v4::Packet::Unsubscribe(theirs));
        }
        6 => assert_eq!(read(&encoded(Packet::PingReq)), v4::Packet::PingReq),
        _ => assert_eq!(read(&encoded(Packet::Disconnect)), v4::Packet::Disconnect),
    }
}

fn check_connect(who: &Who<'_>, connect: Connect<'_>) {
    let packet = Packet::Connect(connect);
    let expected = if who.client_id.is_empty() && !connect.clean_session {
        Some(EncodeError::NoClientId)
    } else if who.user_name.is_none() && who.password.is_some() {
        Some(EncodeError::NoUserName)
    } else {
        None
    };
    if let Some(error) = expected {
        assert_eq!(packet.encoded_len(), Err(error));
        return;
    }
    let v4::Packet::Connect(theirs) = read(&encoded(packet)) else { panic!("CONNECT is read as another packet") };
    assert_eq!(theirs.client_id, who.client_id);
    assert_eq!(theirs.clean_session, connect.clean_session);
    assert_eq!(theirs.keep_alive, connect.keep_alive_secs);
    // They take an absent text for an empty one.
    let login = theirs.login.unwrap_or_else(|| v4::Login::new("", ""));
    assert_eq!(login.username, who.user_name.unwrap_or_default());
    assert_eq!(login.password, who.password.unwrap_or_default());
    let will =
        who.will.map(|(topic, payload, retain)| v4::LastWill::new(topic, payload, TheirQos::AtLeastOnce, retain));
    assert_eq!(theirs.last_will, will);
}

fn check_publish(topic: &str, publish: Publish<'_>) {
    let bytes = encoded(Packet::Publish(publish));
    let mut head = vec![0; bytes.len()];
    let len = publish.head(&mut head).expect("the whole packet fits");
    assert_eq!([&head[..len], publish.payload].concat(), bytes);

    let v4::Packet::Publish(theirs) = read(&bytes) else { panic!("PUBLISH is read as another packet") };
    assert_eq!(theirs.topic, topic);
    assert_eq!(theirs.payload, publish.payload);
    assert_eq!(theirs.pkid, publish.packet_id.map_or(0, PacketId::get));

    let Publish { payload, packet_id, retain, .. } = publish;
    let received = Received { topic, payload, packet_id, dup: publish.dup && packet_id.is_some(), retain };
    if !topic.is_empty() && !topic.contains(['+', '#', '\0']) {
        let packet = Incoming::Publish(received);
        assert_eq!(decode(&bytes, LIMIT), Ok(Decoded::Packet { packet, len: bytes.len() }));
    } else {
        assert!(decode(&bytes, LIMIT).is_err(), "a server may not send the topic {topic:?}");
    }
}

/// Encodes again what `data` decodes to, where a client can send it too, and decodes that.
fn again(data: &[u8]) {
    let Ok(Decoded::Packet { packet, len }) = decode(data, LIMIT) else { return };
    let copy = match packet {
        Incoming::Publish(Received { topic, payload, packet_id, dup, retain }) => {
            Packet::Publish(Publish { topic: topic.into(), payload, packet_id, dup, retain })
        }
        Incoming::PubAck { packet_id, .. } => Packet::PubAck(packet_id),
        Incoming::ConnAck { .. } | Incoming::SubAck { .. } | Incoming::UnsubAck(_) | Incoming::PingResp => return,
    };
    let bytes = encoded(copy);
    assert_eq!(decode(&bytes, LIMIT), Ok(Decoded::Packet { packet, len: bytes.len() }));
    assert!(bytes.len() <= len, "a length field may only become shorter");
    if bytes.len() == len {
        assert_eq!(bytes, data[..len]);
    }
}

/// Encodes in every way there is and returns the bytes.
fn encoded(packet: Packet<'_>) -> Vec<u8> {
    let len = packet.encoded_len().expect("the recipe keeps the limits");
    let mut bytes = vec![0xa5; len + 1];
    assert_eq!(packet.encode_to_slice(&mut bytes), Ok(len));
    assert_eq!(bytes.pop(), Some(0xa5), "nothing is written behind the packet");
    assert_eq!(packet.encode_to_slice(&mut vec![0; len - 1]), Err(EncodeError::Full));
    bytes
}

fn read(bytes: &[u8]) -> v4::Packet {
    let mut stream = BytesMut::from(bytes);
    let packet = v4::Packet::read(&mut stream, LIMIT).expect("they read what we write");
    assert!(stream.is_empty(), "{packet:?} leaves {stream:?}");
    packet
}

#[derive(Debug)]
struct Who<'a> {
    client_id: &'a str,
    user_name: Option<&'a str>,
    password: Option<&'a str>,
    /// Topic, payload, retain.
    will: Option<(&'a str, &'a [u8], bool)>,
}

impl<'a> Who<'a> {
    fn from_recipe(source: &mut Source<'a>) -> Self {
        Self {
            client_id: source.text(),
            user_name: source.flag().then(|| source.text()),
            password: source.flag().then(|| source.text()),
            will: source.flag().then(|| (source.text(), source.bytes(), source.flag())),
        }
    }
}

impl Login for Who<'_> {
    fn client_id(&self) -> Text<'_> {
        self.client_id.into()
    }

    fn user_name(&self) -> Option<Text<'_>> {
        self.user_name.map(Text::from)
    }

    fn password(&self) -> Option<Text<'_>> {
        self.password.map(Text::from)
    }

    fn will(&self) -> Option<Will<'_>> {
        let qos = QoS::AtLeastOnce;
        self.will.map(|(topic, payload, retain)| Will { topic: topic.into(), payload, qos, retain })
    }
}
