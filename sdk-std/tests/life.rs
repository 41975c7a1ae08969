//! Connections that come and go, messages to the device, status and events.

mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{ConnectReturnCode, Packet, Publish};
use steadfast::{Device, Failure, LinkEvent, Message, MethodAnswer, Methods, SharedKey, State, Subscriptions};
use support::{Server, hasty, soon};
use tokio::io::AsyncWriteExt;

/// The key of the bytes 0 to 31.
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

#[tokio::test]
async fn status_and_events_tell_the_scenario() {
    let server = Server::start().await;
    let (device, driver) = server.client().build().unwrap();
    let mut status = device.status_changes();
    let mut events = device.events();
    assert_eq!(device.status().state, State::Idle);
    let _driver = tokio::spawn(driver);
    let mut peer = server.accept().await;
    let Some(Packet::Connect(_)) = peer.next().await else { panic!("no CONNECT") };
    soon(status.wait_for(|status| status.state == State::Connecting)).await.unwrap();
    peer.answer(ConnectReturnCode::ServiceUnavailable, false).await;
    let refused = Failure::ConnectRefused(3);
    // The next attempt may have begun already; its CONNECT waits for an answer.
    let status_then = soon(status.wait_for(|status| status.failures == 1)).await.unwrap().clone();
    assert_eq!(status_then.last_failure, Some(refused));
    assert_eq!(status_then.next_attempt.is_some(), status_then.state == State::BackingOff);
    assert!(status_then.next_attempt.is_none_or(|(at, _)| at >= status_then.since));
    let peer = server.welcome(false).await;
    soon(status.wait_for(|status| status.state == State::Up)).await.unwrap();
    assert_eq!(device.status().state, State::Up);
    drop(peer);
    let _peer = server.welcome(true).await;
    soon(status.wait_for(|status| status.state == State::Up)).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 5 {
        let event = soon(events.next()).await.unwrap();
        seen.push(match event.link() {
            Some(LinkEvent::Retrying { failure, .. }) => format!("retrying: {failure:?}"),
            link => format!("{:?}", link.unwrap()),
        });
    }
    let scenario = [
        "retrying: ConnectRefused(3)",
        "Up { session_present: false }",
        "Down(Lost)",
        "retrying: Lost",
        "Up { session_present: true }",
    ];
    assert_eq!(seen, scenario);
}

#[tokio::test]
async fn a_hub_device_subscribes_receives_and_acknowledges() {
    let server = Server::start().await;
    let (device, driver) = Device::builder()
        .hub("hub.example", "device-1")
        .resolve("hub.example", [server.address])
        .signer(SharedKey::from_base64(KEY).unwrap())
        .plaintext_unprotected()
        .subscriptions(Subscriptions::CLOUD_TO_DEVICE)
        .retry(hasty())
        .build()
        .unwrap();
    let _driver = tokio::spawn(driver);
    let mut peer = server.accept().await;
    let connect = peer.welcome(false).await;
    let login = connect.login.unwrap();
    assert_eq!(connect.client_id, "device-1");
    assert!(login.username.starts_with("hub.example/device-1/?api-version="), "{}", login.username);
    assert!(login.password.starts_with("SharedAccessSignature sr=hub.example%2Fdevices%2Fdevice-1&sig="));
    peer.suback().await;
    let topic = "devices/device-1/messages/devicebound/a=b";
    for number in 1..=2_u16 {
        let mut publish = Publish::new(topic, QoS::AtLeastOnce, format!("order {number}"));
        publish.pkid = number;
        peer.send(Packet::Publish(publish)).await;
    }
    peer.send(Packet::Publish(Publish::new(topic, QoS::AtMostOnce, "no answer"))).await;
    let first = soon(device.messages().next()).await.unwrap();
    let second = soon(device.messages().next()).await.unwrap();
    let third = soon(device.messages().next()).await.unwrap();
    assert_eq!((first.topic(), first.payload(), first.dup()), ("", &b"order 1"[..], false));
    assert_eq!(first.property("a").as_deref(), Some("b"));
    assert!(third.acknowledge());
    // The order on the wire is that of the messages.
    assert!(second.acknowledge());
    assert!(first.acknowledge());
    for number in 1..=2 {
        let Some(Packet::PubAck(ack)) = peer.next().await else { panic!("no PUBACK") };
        assert_eq!(ack.pkid, number);
    }
    // What was not taken when the connection ended comes again, and an acknowledgement for it is too late.
    let mut publish = Publish::new(topic, QoS::AtLeastOnce, "order 3");
    publish.pkid = 3;
    peer.send(Packet::Publish(publish)).await;
    let third = soon(device.messages().next()).await.unwrap();
    drop(peer);
    let mut peer = server.accept().await;
    peer.welcome(false).await;
    peer.suback().await;
    assert!(!third.acknowledge());
}

#[tokio::test]
async fn packets_in_pieces_and_many_at_once_are_all_understood() {
    let server = Server::start().await;
    let (device, driver) = server.client().build().unwrap();
    let _driver = tokio::spawn(driver);
    let mut peer = server.accept().await;
    let Some(Packet::Connect(_)) = peer.next().await else { panic!("no CONNECT") };
    for byte in [0x20, 2, 0, 0] {
        peer.stream.write_all(&[byte]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let mut receipts = Vec::new();
    let mut acks = Vec::new();
    for number in 0..100_u8 {
        receipts.push(device.send(Message::to_topic("t", &[number])).await.unwrap());
    }
    for _ in 0..100 {
        let [high, low] = peer.publish().await.pkid.to_be_bytes();
        acks.extend([0x40, 2, high, low]);
    }
    // All but the last byte at once, twice PINGRESP in front.
    let mut bytes = vec![0xd0, 0, 0xd0, 0];
    bytes.extend(&acks);
    let (most, last) = bytes.split_at(bytes.len() - 1);
    peer.stream.write_all(most).await.unwrap();
    let mut last_receipt = receipts.pop().unwrap();
    for receipt in receipts {
        soon(receipt.delivered()).await.unwrap();
    }
    assert_eq!((device.ledger().delivered, last_receipt.outcome()), (99, None));
    peer.stream.write_all(last).await.unwrap();
    soon(last_receipt.delivered()).await.unwrap();
}

#[tokio::test]
async fn a_message_larger_than_all_buffers_passes_beside_small_ones() {
    let server = Server::start().await;
    let (device, driver) = server.client().build().unwrap();
    let _driver = tokio::spawn(driver);
    let serving = tokio::spawn(async move { server.welcome(false).await.serve().await.0 });
    let large: Vec<u8> = (0..250_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    let mut receipts = Vec::new();
    for size in [10, 250_000, 10, 60_000, 60_000, 10, 100_000, 10] {
        receipts.push(device.send(Message::to_topic("t", &large[..size])).await.unwrap());
    }
    for receipt in receipts {
        soon(receipt.delivered()).await.unwrap();
    }
    device.stop(Duration::from_secs(1)).await;
    let received = soon(serving).await.unwrap();
    assert_eq!(received.len(), 8);
    assert_eq!(received[1].payload, large);
}

#[tokio::test]
async fn a_server_that_does_not_read_fills_the_outbox_and_no_more() {
    let server = Server::start().await;
    let (device, driver) = server.client().outbox(200, 16 << 20).window(1000).build().unwrap();
    let _driver = tokio::spawn(driver);
    let mut peer = server.welcome(false).await;
    let payload = vec![7; 60_000];
    let mut receipts = Vec::new();
    for _ in 0..200 {
        receipts.push(device.send(Message::to_topic("t", &payload)).await.unwrap());
    }
    assert!(device.try_send(Message::to_topic("t", b"x")).is_err());
    tokio::time::sleep(Duration::from_millis(50)).await;
    let serving = tokio::spawn(async move { peer.serve().await.0.len() });
    for receipt in receipts {
        soon(receipt.delivered()).await.unwrap();
    }
    device.stop(Duration::from_secs(1)).await;
    assert_eq!(soon(serving).await.unwrap(), 200);
}

#[tokio::test]
async fn garbage_is_a_failure_of_the_service_and_not_of_the_credential() {
    let server = Server::start().await;
    let (device, driver) = server.client().build().unwrap();
    let _driver = tokio::spawn(driver);
    let mut status = device.status_changes();
    let mut peer = server.accept().await;
    peer.next().await;
    peer.stream.write_all(b"HTTP/1.1 302 Found\r\nLocation: http://portal/\r\n\r\n").await.unwrap();
    let status = soon(status.wait_for(|status| status.failures == 1)).await.unwrap().clone();
    assert!(matches!(status.last_failure, Some(Failure::Malformed(_) | Failure::UnexpectedPacket)), "{status}");
    let _peer = server.welcome(false).await;
}

#[tokio::test]
async fn an_address_that_is_dead_does_not_keep_the_device_from_the_next() {
    let server = Server::start().await;
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let v6: SocketAddr = format!("[::1]:{}", unused.port()).parse().unwrap();
    let (_device, driver) = server.client().resolve("broker.test", [unused, v6, server.address]).build().unwrap();
    let _driver = tokio::spawn(driver);
    server.welcome(false).await;
}

#[tokio::test]
async fn names_and_refusals_have_failures_of_their_own() {
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refused = Device::builder()
        .broker("localhost", "c")
        .resolve("localhost", [SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0)])
        .port(unused.port());
    let unresolved = Device::builder().broker("no-such-host.invalid", "c");
    for (builder, failure) in [(refused, Failure::ConnectionRefused), (unresolved, Failure::Unresolved)] {
        let (device, driver) = builder.anonymous().plaintext_unprotected().retry(hasty()).build().unwrap();
        let _driver = tokio::spawn(driver);
        let mut status = device.status_changes();
        let status = soon(status.wait_for(|status| status.failures > 0)).await.unwrap().clone();
        assert_eq!(status.last_failure, Some(failure));
    }
}

#[tokio::test]
async fn a_token_never_leaves_the_machine_without_tls() {
    // The name resolves to an address elsewhere only after the device was built.
    let (device, driver) = Device::builder()
        .broker("localhost", "c")
        .resolve("localhost", ["127.0.0.1:1".parse().unwrap(), "192.0.2.1:8883".parse().unwrap()])
        .password("user", "secret")
        .plaintext_unprotected()
        .retry(hasty())
        .build()
        .unwrap();
    let _driver = tokio::spawn(driver);
    let mut status = device.status_changes();
    let status = soon(status.wait_for(|status| status.failures > 0)).await.unwrap().clone();
    assert_eq!(status.last_failure, Some(Failure::ConnectionRefused), "only the loopback address was tried");
}

#[tokio::test]
async fn a_driver_works_on_any_runtime_and_moves_between_tasks() {
    let server = Server::start().await;
    let (device, driver) = server.client().build().unwrap();
    let mut driver = Box::pin(driver);
    let serving = tokio::spawn(async move { server.welcome(false).await.serve().await.0.len() });
    // Polled here, then in a task of its own.
    let _ = tokio::time::timeout(Duration::from_millis(30), driver.as_mut()).await;
    let driver = tokio::spawn(driver);
    for _ in 0..10 {
        let receipt = device.send(Message::to_topic("t", b"x")).await.unwrap();
        soon(receipt.delivered()).await.unwrap();
    }
    device.stop(Duration::from_secs(1)).await;
    assert_eq!(soon(serving).await.unwrap(), 10);
    soon(driver).await.unwrap();
}

#[tokio::test]
async fn as_many_method_calls_as_may_be_open_reach_their_handlers_at_the_same_time() {
    for (set, open) in [(None, 64_usize), (Some(3), 3)] {
        let server = Server::start().await;
        let mut builder = Device::builder()
            .hub("hub.example", "device-1")
            .resolve("hub.example", [server.address])
            .shared_key(KEY)
            .plaintext_unprotected()
            .subscriptions(Subscriptions::METHODS)
            .retry(hasty());
        if let Some(most) = set {
            builder = builder.method_calls(most);
        }
        let (device, driver) = builder.build().unwrap();
        let _driver = tokio::spawn(driver);
        let mut peer = server.welcome(false).await;
        peer.suback().await;
        // Each handler ends only once all have begun.
        let all = Arc::new(tokio::sync::Barrier::new(open));
        let methods = Methods::new().on("slow", move |body| {
            let all = Arc::clone(&all);
            async move {
                all.wait().await;
                MethodAnswer::ok(body)
            }
        });
        let _serving = tokio::spawn(async move { methods.serve(&device).await });
        for number in 0..=open {
            let topic = format!("$iothub/methods/POST/slow/?$rid={number:x}");
            peer.send(Packet::Publish(Publish::new(topic, QoS::AtMostOnce, number.to_string()))).await;
        }
        let mut answers = Vec::new();
        for _ in 0..=open {
            let answer = peer.publish().await;
            answers.push((answer.topic, String::from_utf8(answer.payload.to_vec()).unwrap()));
        }
        answers.sort();
        let served = |number: usize| (format!("$iothub/methods/res/200/?$rid={number:x}"), number.to_string());
        let mut expected: Vec<_> = (0..open).map(served).collect();
        expected.push((format!("$iothub/methods/res/503/?$rid={open:x}"), String::new()));
        expected.sort();
        assert_eq!(answers, expected);
    }
}
