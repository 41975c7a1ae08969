//! The services of a hub in the operation log: limits, versions, late responses, expiry.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test ends where something is not as expected"
)]

mod support;

use std::time::Duration;

use hub_emulator::{Ack, CloseReason, Error, Fault, MessageToDevice, Notification, Operation};
use rumqttc::mqttbytes::v4::{Packet, PubAck};
use serde_json::{Value, json};
use support::{Client, DEVICE, HUB, SOON, config, config_with, connect_packet, eventually, hub, start};

const TWIN: &str = "$iothub/twin/res/#";
const DESIRED: &str = "$iothub/twin/PATCH/properties/desired/#";
const METHODS: &str = "$iothub/methods/POST/#";
const INBOX: &str = "devices/dev-1/messages/devicebound/#";

#[tokio::test]
async fn a_lost_notification_leaves_a_gap_and_a_change_while_offline_is_not_notified_later() {
    let emulator = start(config()).await;
    let device = emulator.hub(HUB).device(DEVICE);
    device.set_desired(&json!({"a": 1})).unwrap();
    let mut client = Client::device(&emulator).await;
    client.subscribed(DESIRED).await;
    device.inject(Fault::LoseDesired);
    assert_eq!(device.set_desired(&json!({"a": 2})).unwrap(), 3);
    assert_eq!(device.set_desired(&json!({"a": {"b": 1}, "c": null})).unwrap(), 4);
    let change = client.publish_packet().await;
    assert_eq!(change.topic, "$iothub/twin/PATCH/properties/desired/?$version=4");
    assert_eq!(
        serde_json::from_slice::<Value>(&change.payload).unwrap(),
        json!({"a": {"b": 1}, "c": null, "$version": 4})
    );
    let notifications: Vec<_> = emulator
        .ledger()
        .operations_of(DEVICE)
        .into_iter()
        .filter_map(|operation| match operation {
            Operation::DesiredChanged { notification, .. } => Some(notification),
            _ => None,
        })
        .collect();
    assert_eq!(notifications, [Notification::NotListening, Notification::Lost, Notification::Sent]);
}

#[tokio::test]
async fn a_recreated_identity_closes_the_connection_and_restarts_its_versions() {
    let emulator = start(config()).await;
    let device = emulator.hub(HUB).device(DEVICE);
    let mut client = Client::device(&emulator).await;
    client.subscribed(INBOX).await;
    device.set_desired(&json!({"a": 1})).unwrap();
    device.recreate().unwrap();
    client.closed().await;
    assert_eq!(device.twin().unwrap(), json!({"desired": {"$version": 1}, "reported": {"$version": 1}}));
    let (_, present) = Client::connected(&emulator, connect_packet()).await;
    assert!(!present, "the session is gone");
    device.set_desired(&json!({"a": 1})).unwrap();
    device.roll_back_twin().unwrap();
    assert!(device.is_connected(), "a rollback of the twin alone keeps the connection");
    assert_eq!(device.set_desired(&json!({"a": 1})).unwrap(), 2);
}

#[tokio::test]
async fn twin_requests_are_throttled_with_a_hint_and_logged_with_their_status() {
    let emulator = start(config()).await;
    let device = emulator.hub(HUB).device(DEVICE);
    let mut client = Client::device(&emulator).await;
    client.subscribed(TWIN).await;
    device.inject(Fault::TwinThrottled { retry_after: Some(5) });
    for (topic, answer) in [
        ("$iothub/twin/GET/?$rid=a", "$iothub/twin/res/429/?$rid=a&retry-after=5"),
        ("$iothub/twin/PATCH/properties/reported/?$rid=b", "$iothub/twin/res/204/?$rid=b&$version=2"),
    ] {
        let id = client.publish(topic, b"{\"a\":1}").await;
        client.acknowledged(id).await;
        assert_eq!(client.publish_packet().await.topic, answer);
    }
    let expected =
        [Operation::TwinRead { status: Some(429) }, Operation::TwinReported { status: Some(204), version: Some(2) }];
    assert_eq!(emulator.ledger().operations_of(DEVICE), expected);
}

#[tokio::test]
async fn a_change_with_an_outdated_version_is_a_conflict_and_limits_apply_to_the_service_too() {
    let emulator = start(config()).await;
    let device = emulator.hub(HUB).device(DEVICE);
    assert_eq!(device.set_desired_if(1, &json!({"a": 1})).unwrap(), 2);
    assert!(matches!(device.set_desired_if(1, &json!({"a": 2})), Err(Error::Conflict)));
    assert!(matches!(device.set_desired(&json!({"a.b": 2})), Err(Error::Request(_))));
    assert_eq!(device.twin().unwrap()["desired"], json!({"a": 1, "$version": 2}));
}

#[tokio::test]
async fn calls_run_concurrently_in_any_order_and_a_late_response_is_logged() {
    let emulator = start(config()).await;
    let device = emulator.hub(HUB).device(DEVICE);
    let mut client = Client::device(&emulator).await;
    client.subscribed(METHODS).await;
    let mut calls = Vec::new();
    let mut requests = Vec::new();
    for number in 0..3 {
        let device = device.clone();
        let name = format!("m{number}");
        calls.push(tokio::spawn(async move { device.invoke(&name, &Value::Null, SOON).await }));
        let request = client.publish_packet().await;
        requests.push(request.topic.split_once("$rid=").unwrap().1.to_owned());
    }
    for (number, request) in requests.iter().enumerate().rev() {
        let id = client.publish(&format!("$iothub/methods/res/{number}/?$rid={request}"), b"").await;
        client.acknowledged(id).await;
    }
    for (status, call) in calls.into_iter().enumerate() {
        assert_eq!(usize::try_from(call.await.unwrap().unwrap().status).unwrap(), status);
    }
    let slow = device.invoke("slow", &Value::Null, Duration::from_millis(30)).await;
    assert!(matches!(slow, Err(Error::NoAnswer)));
    let request = client.publish_packet().await.topic.split_once("$rid=").unwrap().1.to_owned();
    let id = client.publish(&format!("$iothub/methods/res/200/?$rid={request}"), b"").await;
    client.acknowledged(id).await;
    let operations = emulator.ledger().operations_of(DEVICE);
    let end = [
        Operation::MethodTimedOut { request: request.clone() },
        Operation::MethodAnsweredLate { request, status: 200 },
    ];
    assert_eq!(operations[operations.len() - 2..], end);
}

#[tokio::test]
async fn a_call_may_wait_for_the_device_to_connect() {
    let emulator = start(config()).await;
    let device = emulator.hub(HUB).device(DEVICE);
    let none = device.invoke_within("m", &Value::Null, Duration::from_millis(30), SOON).await;
    assert!(matches!(none, Err(Error::NotListening(_))));
    let call = tokio::spawn({
        let device = device.clone();
        async move { device.invoke_within("m", &Value::Null, SOON, SOON).await }
    });
    let mut client = Client::device(&emulator).await;
    client.subscribed(METHODS).await;
    let request = client.publish_packet().await.topic.split_once("$rid=").unwrap().1.to_owned();
    client.publish(&format!("$iothub/methods/res/204/?$rid={request}"), b"").await;
    assert_eq!(call.await.unwrap().unwrap().status, 204);
}

#[tokio::test]
async fn a_message_has_its_properties_in_the_topic_and_its_outcome_in_the_log() {
    let emulator = start(config()).await;
    let device = emulator.hub(HUB).device(DEVICE);
    let mut client = Client::device(&emulator).await;
    emulator.clock().set_offset_seconds(0);
    let message = MessageToDevice::new("hi").id("m/1").correlation_id("c").content_type("text/plain");
    let message = message.content_encoding("utf-8").property("user", "ä").ack(Ack::Full).expires_in(SOON * 100);
    device.send_message(message).unwrap();
    device.send_message(MessageToDevice::new("old").id("m-2").expires_in(Duration::from_millis(40))).unwrap();
    client.silent().await;
    client.subscribed(INBOX).await;
    let received = client.publish_packet().await;
    let bag = received.topic.strip_prefix("devices/dev-1/messages/devicebound/").unwrap();
    for pair in ["%24.mid=m%2F1", "%24.cid=c", "%24.ct=text%2Fplain", "%24.ce=utf-8", "user=%C3%A4", "iothub-ack=full"]
    {
        assert!(bag.split('&').any(|member| member == pair), "{pair} in {bag}");
    }
    assert!(bag.contains("%24.exp=2"), "{bag}");
    client.send(Packet::PubAck(PubAck::new(received.pkid))).await;
    eventually("it is taken", || device.waiting().unwrap() == 0).await;
    let (first, second) = (Some("m/1".to_owned()), Some("m-2".to_owned()));
    let fate = [
        Operation::MessageQueued { number: 1, message_id: first.clone() },
        Operation::MessageQueued { number: 2, message_id: second.clone() },
        Operation::MessageExpired { number: 2, message_id: second, feedback: false },
        Operation::MessageDelivered { number: 1, message_id: first.clone(), delivery: 1, dup: false },
        Operation::MessageCompleted { number: 1, message_id: first, feedback: true },
    ];
    assert_eq!(emulator.ledger().operations_of(DEVICE), fate);
    device.send(&[], b"never asked for").unwrap();
    assert_eq!(device.purge().unwrap(), 1);
}

#[tokio::test]
async fn a_used_up_quota_closes_connections_until_midnight() {
    let emulator = start(config_with(hub().daily_quota(3))).await;
    let clock = emulator.clock();
    // Noon, independent of the machine's clock.
    let noon = i64::try_from(clock.unix() % 86_400).unwrap();
    clock.set_offset_seconds(86_400 + 43_200 - noon);
    let mut client = Client::device(&emulator).await;
    client.delivered("one").await;
    client.publish(&support::telemetry("two"), &[0; 5000]).await;
    client.packet().await;
    client.message("four").await;
    client.closed().await;
    let (mut again, _) = Client::connected(&emulator, connect_packet()).await;
    again.closed().await;
    let closed = || emulator.ledger().connections()[1].closed.clone();
    eventually("the log has the reason", || closed() == Some(CloseReason::QuotaExceeded)).await;
    clock.advance(Duration::from_secs(43_200));
    let mut client = Client::device(&emulator).await;
    client.delivered("four").await;
    emulator.hub(HUB).exhaust_quota().unwrap();
    client.closed().await;
}

#[tokio::test]
async fn a_report_with_an_outdated_version_gets_412() {
    let emulator = start(config()).await;
    let mut client = Client::device(&emulator).await;
    client.subscribed(TWIN).await;
    for (version, answer) in [(1, "204/?$rid=1&$version=2"), (1, "412/?$rid=1"), (2, "204/?$rid=1&$version=3")] {
        let topic = format!("$iothub/twin/PATCH/properties/reported/?$rid=1&$version={version}");
        let id = client.publish(&topic, b"{\"a\":1}").await;
        client.acknowledged(id).await;
        assert_eq!(client.publish_packet().await.topic, format!("$iothub/twin/res/{answer}"));
    }
}

#[tokio::test]
async fn a_message_to_a_module_output_reaches_the_routed_input() {
    let module = |name: &str| format!("{DEVICE}/{name}");
    let (from, to) = (module("a"), module("b"));
    let emulator = start(config_with(hub().device(&from, support::key()).device(&to, support::key()))).await;
    emulator.hub(HUB).route(&from, "alarms", &to, "in").unwrap();
    let connect = |id: &str| {
        let mut connect = support::connect_for(HUB, id, &support::key());
        let resource = format!("{HUB}/devices/{}", id.replace('/', "/modules/"));
        let password = support::key().token(&resource, support::LATER, None);
        connect.login = Some(rumqttc::mqttbytes::v4::Login::new(support::user_name(HUB, id), password));
        connect
    };
    let (mut sender, _) = Client::connected(&emulator, connect(&from)).await;
    let (mut receiver, _) = Client::connected(&emulator, connect(&to)).await;
    receiver.subscribed(&format!("devices/{DEVICE}/modules/b/inputs/#")).await;
    for output in ["other", "alarms"] {
        let topic = format!("devices/{DEVICE}/modules/a/messages/events/%24.on={output}&%24.mid={output}&k=v");
        let id = sender.publish(&topic, b"hot").await;
        sender.acknowledged(id).await;
    }
    let input = receiver.publish_packet().await;
    assert_eq!(
        input.topic,
        format!("devices/{DEVICE}/modules/b/inputs/in/%24.mid=alarms&k=v&%24.cdid=dev-1&%24.cmid=a")
    );
    receiver.silent().await;
}

#[tokio::test]
async fn a_rotated_key_stays_valid_for_one_rotation() {
    let emulator = start(config()).await;
    let device = emulator.hub(HUB).device(DEVICE);
    let (first, second) = (hub_emulator::Key::from_seed("1"), hub_emulator::Key::from_seed("2"));
    device.rotate_key(first.clone()).unwrap();
    Client::device(&emulator).await;
    device.rotate_key(second).unwrap();
    let mut client = Client::plain(emulator.plain_addr().unwrap()).await;
    assert_eq!(client.connect_with(connect_packet()).await, support::not_authorized());
    Client::connected(&emulator, support::connect_for(HUB, DEVICE, &first)).await;
}
