//! Telemetry and sessions.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test ends where something is not as expected"
)]

mod support;

use std::time::Duration;

use bytes::Bytes;
use hub_emulator::{LedgerMode, Undocumented};
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{Packet, Publish, SubAck, Subscribe, SubscribeFilter, SubscribeReasonCode, Unsubscribe};
use support::{
    Answer, Client, DEVICE, HUB, SOON, config, config_with, connect_packet, eventually, hub, start, telemetry,
};

const EVENTS: &str = "devices/dev-1/messages/events/";

#[tokio::test]
async fn a_message_is_acknowledged_and_the_ledger_has_its_decoded_properties() {
    let emulator = start(config()).await;
    let mut client = Client::device(&emulator).await;
    let topic = format!("{EVENTS}%24.mid=msg-1&%24.cid=c%2F1&k=&note=a%20b%26c%3Dd%2F%C3%A9");
    let id = client.publish(&topic, b"{\"t\":21.5}").await;
    client.acknowledged(id).await;
    let [receipt] = &emulator.ledger().messages(DEVICE)[..] else { panic!("one message") };
    assert_eq!(receipt.message_id.as_deref(), Some("msg-1"));
    assert_eq!(receipt.property("$.cid"), Some("c/1"));
    assert_eq!(receipt.property("k"), Some(""));
    assert_eq!(receipt.property("note"), Some("a b&c=d/é"));
    assert_eq!((&receipt.payload[..], receipt.qos, receipt.dup), (&b"{\"t\":21.5}"[..], 1, false));
    assert_eq!((receipt.order, receipt.packet_id, receipt.hub.as_str()), (1, id, HUB));
    assert!(receipt.acknowledged_at.unwrap() >= receipt.at);
}

#[tokio::test]
async fn duplicates_are_identified_by_message_id_and_never_by_packet_id() {
    let emulator = start(config()).await;
    let mut client = Client::device(&emulator).await;
    for (id, packet_id, dup) in [("a", 1, false), ("b", 1, false), ("a", 9, true), ("c", 2, false)] {
        client.publish_as(&telemetry(id), b"x", packet_id, dup).await;
        client.acknowledged(packet_id).await;
    }
    let counts = emulator.ledger().counts(DEVICE);
    assert_eq!((counts.stored, counts.distinct, counts.duplicates, counts.dup_flags), (4, 3, 1, 1));
    let report = emulator.ledger().check(DEVICE, ["a", "b", "c"]);
    assert!(report.is_complete(), "{report}");
    assert_eq!(report.duplicated, [("a".to_owned(), 1)]);
    assert_eq!(emulator.ledger().check(DEVICE, ["a", "b", "c", "d"]).lost, ["d"]);
}

#[tokio::test]
async fn counting_mode_keeps_no_messages_and_still_finds_gaps_in_seq() {
    let emulator = start(config().ledger(LedgerMode::Counts)).await;
    let mut client = Client::device(&emulator).await;
    for sequence in [0, 1, 2, 4, 4, 3, 7] {
        let id = client.publish(&format!("{EVENTS}seq={sequence}"), b"x").await;
        client.acknowledged(id).await;
    }
    let ledger = emulator.ledger();
    assert!(ledger.messages(DEVICE).is_empty());
    let report = ledger.check_sequence(DEVICE, 0..8);
    assert_eq!((report.lost.first(), report.lost.len(), report.lost_count), (Some(&(5..7)), 1, 2));
    assert_eq!((report.duplicates, report.reordered, report.unexpected), (1, 1, 0));
}

#[tokio::test]
async fn many_messages_in_one_write_are_acknowledged_in_order() {
    let emulator = start(config()).await;
    let mut client = Client::device(&emulator).await;
    let mut bytes = bytes::BytesMut::new();
    for id in 1..=500 {
        let mut publish = Publish::from_bytes(telemetry(&id.to_string()), QoS::AtLeastOnce, Bytes::from_static(b"x"));
        publish.pkid = id;
        Packet::Publish(publish).write(&mut bytes, usize::MAX).unwrap();
    }
    client.send_bytes(&bytes).await;
    for id in 1..=500 {
        client.acknowledged(id).await;
    }
    assert!(emulator.ledger().wait_for(DEVICE, 500, SOON).await);
}

#[tokio::test]
async fn retain_becomes_a_property_and_qos_0_needs_no_acknowledgement() {
    let emulator = start(config()).await;
    let mut client = Client::device(&emulator).await;
    let mut publish = Publish::from_bytes(telemetry("r"), QoS::AtMostOnce, Bytes::from_static(b"x"));
    publish.retain = true;
    client.send(Packet::Publish(publish)).await;
    assert!(emulator.ledger().wait_for(DEVICE, 1, SOON).await);
    client.silent().await;
    assert_eq!(emulator.ledger().messages(DEVICE)[0].property("mqtt-retain"), Some("true"));
}

#[tokio::test]
async fn forbidden_packets_close_the_connection() {
    let emulator = start(config()).await;
    let mut qos_2 = Publish::from_bytes(EVENTS, QoS::ExactlyOnce, Bytes::new());
    qos_2.pkid = 1;
    let large = Publish { pkid: 1, ..Publish::new(EVENTS, QoS::AtLeastOnce, vec![0; 262_145]) };
    let foreign = Publish { pkid: 1, ..Publish::new("devices/dev-2/messages/events/", QoS::AtLeastOnce, "x") };
    let unknown = Publish { pkid: 1, ..Publish::new("a/b", QoS::AtLeastOnce, "x") };
    for publish in [qos_2, large, foreign, unknown] {
        let mut client = Client::device(&emulator).await;
        client.send(Packet::Publish(publish)).await;
        client.closed().await;
    }
    let mut client = Client::device(&emulator).await;
    assert_eq!(client.subscribe("#").await, Answer::Closed);
    let mut client = Client::device(&emulator).await;
    client.publish(EVENTS, &vec![7; 262_144]).await;
    client.acknowledged(1).await;
}

#[tokio::test]
async fn a_lenient_hub_refuses_undocumented_topics_without_closing() {
    let emulator = start(config_with(hub().undocumented(Undocumented::Refuse))).await;
    let mut client = Client::device(&emulator).await;
    let failure = SubAck::new(1, vec![SubscribeReasonCode::Failure]);
    assert_eq!(client.subscribe("#").await, Answer::Packet(Packet::SubAck(failure)));
    let id = client.publish("a/b", b"x").await;
    client.acknowledged(id).await;
    assert!(emulator.ledger().messages(DEVICE).is_empty());
}

#[tokio::test]
async fn five_filters_are_granted_and_the_sixth_closes() {
    let emulator = start(config()).await;
    let mut client = Client::device(&emulator).await;
    let filters = [
        "devices/dev-1/messages/devicebound/#",
        "$iothub/methods/POST/#",
        "$iothub/twin/res/#",
        "$iothub/twin/PATCH/properties/desired/#",
        "$iothub/credentials/res/#",
    ];
    for filter in filters {
        client.subscribed(filter).await;
    }
    client.subscribed(filters[0]).await;
    assert_eq!(client.subscribe("devices/+/messages/devicebound/#").await, Answer::Closed);
}

#[tokio::test]
async fn qos_2_subscriptions_are_granted_1_and_several_filters_come_in_one_packet() {
    let emulator = start(config()).await;
    let mut client = Client::device(&emulator).await;
    let mut subscribe = Subscribe::new_many([
        SubscribeFilter::new("$iothub/twin/res/#".to_owned(), QoS::ExactlyOnce),
        SubscribeFilter::new("$iothub/methods/POST/#".to_owned(), QoS::AtMostOnce),
    ]);
    subscribe.pkid = 7;
    client.send(Packet::Subscribe(subscribe)).await;
    let granted = [QoS::AtLeastOnce, QoS::AtMostOnce].map(SubscribeReasonCode::Success).to_vec();
    assert_eq!(client.packet().await, Packet::SubAck(SubAck::new(7, granted)));
    let mut unsubscribe = Unsubscribe::new("$iothub/twin/res/#");
    unsubscribe.pkid = 8;
    client.send(Packet::Unsubscribe(unsubscribe)).await;
    assert!(matches!(client.packet().await, Packet::UnsubAck(ack) if ack.pkid == 8));
}

#[tokio::test]
async fn subscriptions_survive_a_disconnect_with_clean_session_0_until_the_hub_deletes_the_session() {
    let emulator = start(config()).await;
    let hub = emulator.hub(HUB);
    let (mut client, present) = Client::connected(&emulator, connect_packet()).await;
    assert!(!present);
    client.subscribed("$iothub/twin/PATCH/properties/desired/#").await;
    drop(client);
    eventually("offline", || hub.connected().unwrap().is_empty()).await;
    let (mut client, present) = Client::connected(&emulator, connect_packet()).await;
    assert!(present);
    hub.device(DEVICE).set_desired(&serde_json::json!({"a": 1})).unwrap();
    assert_eq!(client.publish_packet().await.topic, "$iothub/twin/PATCH/properties/desired/?$version=2");
    drop(client);
    eventually("offline", || hub.connected().unwrap().is_empty()).await;
    hub.forget_sessions().unwrap();
    let (mut client, present) = Client::connected(&emulator, connect_packet()).await;
    assert!(!present);
    hub.device(DEVICE).set_desired(&serde_json::json!({"a": 2})).unwrap();
    client.silent().await;
}

#[tokio::test]
async fn clean_session_1_starts_and_leaves_nothing_behind() {
    let emulator = start(config()).await;
    let mut clean = connect_packet();
    clean.clean_session = true;
    for connect in [connect_packet(), clean, connect_packet()] {
        let (mut client, present) = Client::connected(&emulator, connect).await;
        assert!(!present);
        client.send(Packet::Disconnect).await;
        client.closed().await;
    }
    let (_client, present) = Client::connected(&emulator, connect_packet()).await;
    assert!(present);
}

#[tokio::test]
async fn a_client_that_never_reads_does_not_block_the_others() {
    let emulator = start(config_with(hub().device("dev-2", support::key()))).await;
    let mut lazy = Client::device(&emulator).await;
    for _ in 0..2_000 {
        lazy.message("same").await;
    }
    let (mut busy, _) = Client::connected(&emulator, support::connect_for(HUB, "dev-2", &support::key())).await;
    let id = busy.publish("devices/dev-2/messages/events/", b"x").await;
    assert_ne!(busy.answer_within(Duration::from_secs(2)).await, Answer::Nothing, "PUBACK {id}");
}
