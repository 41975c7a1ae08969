//! The cloud side: twin, methods, messages to the device.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test ends where something is not as expected"
)]

mod support;

use std::time::Duration;

use hub_emulator::{Error, Fault, Injection, Rate};
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{Packet, PubAck};
use serde_json::{Value, json};
use support::{Client, DEVICE, HUB, SOON, config, config_with, connect_packet, eventually, hub, start};

const TWIN: &str = "$iothub/twin/res/#";
const INBOX: &str = "devices/dev-1/messages/devicebound/#";

async fn ask(client: &mut Client, topic: &str, body: &str) -> (String, Vec<u8>) {
    let id = client.publish(topic, body.as_bytes()).await;
    client.acknowledged(id).await;
    let answer = client.publish_packet().await;
    assert_eq!(answer.qos, QoS::AtMostOnce);
    (answer.topic, answer.payload.to_vec())
}

#[tokio::test]
async fn the_twin_is_read_reported_to_and_changed() {
    let emulator = start(config()).await;
    let device = emulator.hub(HUB).device(DEVICE);
    let mut client = Client::device(&emulator).await;
    client.subscribed(TWIN).await;
    client.subscribed("$iothub/twin/PATCH/properties/desired/#").await;
    let (topic, body) = ask(&mut client, "$iothub/twin/GET/?$rid=id_one", " ").await;
    assert_eq!(topic, "$iothub/twin/res/200/?$rid=id_one");
    let twin: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(twin, json!({"desired": {"$version": 1}, "reported": {"$version": 1}}));
    let patch = "$iothub/twin/PATCH/properties/reported/?$rid=2";
    let (topic, body) = ask(&mut client, patch, "{\"fw\":\"1.2.3\",\"a\":{\"b\":1}}").await;
    assert_eq!((topic.as_str(), &body[..]), ("$iothub/twin/res/204/?$rid=2&$version=2", &b""[..]));
    let (topic, _) = ask(&mut client, "$iothub/twin/PATCH/properties/reported/?$rid=3", "{").await;
    assert_eq!(topic, "$iothub/twin/res/400/?$rid=3");
    assert_eq!(device.twin().unwrap()["reported"]["fw"], "1.2.3");
    assert_eq!(device.set_desired(&json!({"interval": 30})).unwrap(), 2);
    let change = client.publish_packet().await;
    assert_eq!(change.topic, "$iothub/twin/PATCH/properties/desired/?$version=2");
    let body: Value = serde_json::from_slice(&change.payload).unwrap();
    assert_eq!(body, json!({"interval": 30, "$version": 2}));
}

#[tokio::test]
async fn twin_responses_go_only_to_subscribers_and_may_be_throttled_or_missing() {
    let emulator = start(config_with(hub().twin(Rate::new(0.01, 1, 0)))).await;
    let device = emulator.hub(HUB).device(DEVICE);
    let mut client = Client::device(&emulator).await;
    device.inject(Fault::TwinStatus { status: 503 });
    let get = "$iothub/twin/GET/?$rid=1";
    let id = client.publish(get, b"").await;
    client.acknowledged(id).await;
    client.silent().await;
    client.subscribed(TWIN).await;
    assert_eq!(ask(&mut client, get, "").await.0, "$iothub/twin/res/429/?$rid=1");
    device.inject(Fault::TwinStatus { status: 500 });
    assert_eq!(ask(&mut client, get, "").await.0, "$iothub/twin/res/500/?$rid=1");
    device.inject(Fault::TwinSilent);
    let id = client.publish(get, b"").await;
    client.acknowledged(id).await;
    client.silent().await;
}

#[tokio::test]
async fn a_method_call_returns_the_response() {
    let emulator = start(config()).await;
    let device = emulator.hub(HUB).device(DEVICE);
    let nobody = device.invoke("reboot", &Value::Null, SOON).await.unwrap_err();
    assert!(matches!(nobody, Error::NotListening(_)), "{nobody}");
    let mut client = Client::device(&emulator).await;
    client.subscribed("$iothub/methods/POST/#").await;
    let call = tokio::spawn({
        let device = device.clone();
        async move { device.invoke("reboot", &json!({"delay": 5}), SOON).await }
    });
    let request = client.publish_packet().await;
    let rid = request.topic.strip_prefix("$iothub/methods/POST/reboot/?$rid=").unwrap().to_owned();
    assert_eq!(&request.payload[..], b"{\"delay\":5}");
    let id = client.publish(&format!("$iothub/methods/res/200/?$rid={rid}"), b"{\"ok\":true}").await;
    client.acknowledged(id).await;
    let answer = call.await.unwrap().unwrap();
    assert_eq!((answer.status, &answer.payload[..]), (200, &b"{\"ok\":true}"[..]));
    let late = device.invoke("slow", &Value::Null, Duration::from_millis(50)).await.unwrap_err();
    assert!(matches!(late, Error::NoAnswer), "{late}");
}

#[tokio::test]
async fn messages_to_a_device_are_redelivered_until_their_puback() {
    let emulator = start(config()).await;
    let device = emulator.hub(HUB).device(DEVICE);
    assert!(matches!(device.send(&[], b"early"), Err(Error::NeverConnected(_))));
    let mut client = Client::device(&emulator).await;
    client.subscribed(INBOX).await;
    device.send(&[("$.mid", "m-1"), ("note", "a b,d")], b"clouds").unwrap();
    let first = client.publish_packet().await;
    assert_eq!((first.qos, first.dup), (QoS::AtLeastOnce, false));
    let to = "%24.to=%2Fdevices%2Fdev-1%2Fmessages%2FdeviceBound";
    assert_eq!(first.topic, format!("devices/dev-1/messages/devicebound/%24.mid=m-1&note=a%20b%2Cd&{to}"));
    drop(client);
    eventually("offline", || !device.is_connected()).await;
    device.send(&[], b"second").unwrap();
    let (mut client, present) = Client::connected(&emulator, connect_packet()).await;
    assert!(present);
    let again = client.publish_packet().await;
    assert_eq!((again.dup, again.pkid, &again.payload[..]), (true, first.pkid, &b"clouds"[..]));
    let second = client.publish_packet().await;
    assert_eq!((second.dup, &second.payload[..]), (false, &b"second"[..]));
    assert_eq!(device.waiting().unwrap(), 2);
    client.send(Packet::PubAck(PubAck::new(first.pkid))).await;
    client.send(Packet::PubAck(PubAck::new(second.pkid))).await;
    eventually("all taken", || device.waiting().unwrap() == 0).await;
}

#[tokio::test]
async fn fifty_messages_are_queued_and_the_next_is_refused_until_they_expire() {
    let emulator = start(config()).await;
    let device = emulator.hub(HUB).device(DEVICE);
    drop(Client::device(&emulator).await);
    for _ in 0..50 {
        device.send_for(&[], b"x", Duration::from_millis(200)).unwrap();
    }
    assert!(matches!(device.send(&[], b"x"), Err(Error::QueueFull)));
    tokio::time::sleep(Duration::from_millis(210)).await;
    device.send(&[], b"x").unwrap();
    assert_eq!(device.waiting().unwrap(), 1);
}

#[tokio::test]
async fn an_unanswered_ping_is_a_fault_too() {
    let emulator = start(config()).await;
    emulator.inject(Injection::times(Fault::SilentPing, 1));
    let mut client = Client::device(&emulator).await;
    client.send(Packet::PingReq).await;
    client.silent().await;
    client.send(Packet::PingReq).await;
    assert_eq!(client.packet().await, Packet::PingResp);
}
