//! CONNECT: accepted and refused credentials, and the end of connections.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test ends where something is not as expected"
)]

mod support;

use std::time::Duration;

use hub_emulator::{CloseReason, HubConfig, Key, Outcome, Refusal};
use rumqttc::mqttbytes::v4::{ConnectReturnCode, Login, Packet};
use support::{
    Answer, Client, DEVICE, HUB, LATER, config, config_with, connect_for, connect_packet, eventually, hub, key,
    not_authorized, refused, start, token, user_name, will,
};

fn login(user_name: &str, password: &str) -> rumqttc::mqttbytes::v4::Connect {
    let mut connect = connect_packet();
    connect.login = Some(Login::new(user_name, password));
    connect
}

#[tokio::test]
async fn a_device_with_a_good_token_connects_and_gets_its_pings_answered() {
    let emulator = start(config()).await;
    let mut client = Client::device(&emulator).await;
    client.send(Packet::PingReq).await;
    assert_eq!(client.packet().await, Packet::PingResp);
    assert_eq!(emulator.hub("hub-a").connected().unwrap(), [DEVICE]);
    emulator.stop().await;
    client.closed().await;
}

#[tokio::test]
async fn every_refusal_is_connack_5_and_the_log_has_the_reason() {
    let emulator = start(config_with(hub().device("off", key()))).await;
    emulator.hub(HUB).device("off").disable().unwrap();
    let good = token(HUB, DEVICE, &key());
    let other = "hub-z.azure-devices.net";
    let resource = format!("{HUB}/devices/{DEVICE}");
    let mut wrong_client_id = connect_packet();
    wrong_client_id.client_id = "dev-2".to_owned();
    let cases = [
        (login(&user_name(HUB, DEVICE), &token(HUB, DEVICE, &Key::from_seed("x"))), Refusal::BadSignature),
        (login(&user_name(HUB, DEVICE), &token(HUB, "dev-2", &key())), Refusal::WrongResource),
        (login(&user_name(HUB, DEVICE), &token(other, DEVICE, &key())), Refusal::WrongResource),
        (login(&user_name(HUB, DEVICE), &key().token(&resource, 1_000, None)), Refusal::Expired),
        (login(&user_name(HUB, DEVICE), "SharedAccessSignature sr=x"), Refusal::NoToken),
        (login(&user_name(HUB, DEVICE), ""), Refusal::NoToken),
        (login(&format!("{HUB}/{DEVICE}"), &good), Refusal::NoApiVersion),
        (login("nonsense", &good), Refusal::UserName),
        (connect_for(HUB, "nobody", &key()), Refusal::Unknown),
        (connect_for(HUB, "off", &key()), Refusal::Disabled),
        (connect_for(other, DEVICE, &key()), Refusal::WrongHub),
        (wrong_client_id, Refusal::ClientId),
    ];
    for (number, (connect, why)) in cases.into_iter().enumerate() {
        let mut client = Client::plain(emulator.plain_addr().unwrap()).await;
        assert_eq!(client.connect_with(connect).await, not_authorized(), "{why:?}");
        client.closed().await;
        let record = &emulator.ledger().connections()[number];
        assert_eq!(record.outcome, Outcome::Refused { code: 5, why });
    }
}

#[tokio::test]
async fn a_client_of_another_protocol_version_is_refused_with_1() {
    let emulator = start(config()).await;
    let mut client = Client::plain(emulator.plain_addr().unwrap()).await;
    let mut connect = connect_packet();
    connect.protocol = rumqttc::mqttbytes::Protocol::V5;
    assert_eq!(client.connect_with(connect).await, refused(ConnectReturnCode::RefusedProtocolVersion));
}

#[tokio::test]
async fn a_module_token_and_a_policy_token_are_accepted() {
    let owner = Key::from_seed("owner");
    let hub = hub().device("dev-1/mod-1", Key::from_seed("mod")).policy("iothubowner", owner.clone());
    let emulator = start(config_with(hub)).await;
    let resource = format!("{HUB}/devices/{DEVICE}/modules/mod-1");
    let mut connect = connect_for(HUB, "dev-1/mod-1", &key());
    let password = Key::from_seed("mod").token(&resource, LATER, None);
    connect.login = Some(Login::new(user_name(HUB, "dev-1/mod-1"), password));
    Client::connected(&emulator, connect).await;
    let policy = owner.token(HUB, LATER, Some("iothubowner"));
    Client::connected(&emulator, login(&user_name(HUB, DEVICE), &policy)).await;
}

#[tokio::test]
async fn the_secondary_key_is_accepted_and_a_new_key_closes_the_connection() {
    let (old, new) = (key(), Key::from_seed("new"));
    let emulator = start(config()).await;
    let device = emulator.hub(HUB).device(DEVICE);
    let keys = |primary: &Key, secondary: &Key| hub_emulator::DeviceAuth::Keys {
        primary: primary.clone(),
        secondary: Some(secondary.clone()),
    };
    device.set_auth(keys(&new, &old)).unwrap();
    let mut client = Client::device(&emulator).await;
    device.set_auth(new.clone()).unwrap();
    client.closed().await;
    let mut client = Client::plain(emulator.plain_addr().unwrap()).await;
    assert_eq!(client.connect_with(connect_packet()).await, not_authorized());
    Client::connected(&emulator, connect_for(HUB, DEVICE, &new)).await;
}

#[tokio::test]
async fn the_newest_connection_of_an_identity_wins_and_the_older_is_closed_without_a_packet() {
    let emulator = start(config()).await;
    let mut older = Client::device(&emulator).await;
    let mut newer = Client::device(&emulator).await;
    older.closed().await;
    newer.delivered("m-1").await;
    let closed = || emulator.ledger().connections()[0].closed.clone();
    eventually("the older connection is closed", || closed() == Some(CloseReason::TakenOver)).await;
}

#[tokio::test]
async fn a_disabled_device_is_disconnected_and_reconnects_when_enabled() {
    let emulator = start(config()).await;
    let device = emulator.hub(HUB).device(DEVICE);
    let mut client = Client::device(&emulator).await;
    device.disable().unwrap();
    client.closed().await;
    let mut client = Client::plain(emulator.plain_addr().unwrap()).await;
    assert_eq!(client.connect_with(connect_packet()).await, not_authorized());
    device.enable().unwrap();
    Client::device(&emulator).await;
    device.delete().unwrap();
    let mut client = Client::plain(emulator.plain_addr().unwrap()).await;
    assert_eq!(client.connect_with(connect_packet()).await, not_authorized());
}

#[tokio::test]
async fn an_expired_token_closes_the_connection_after_its_grace_period() {
    let emulator = start(config_with(hub().sas_grace(Duration::from_secs(600)))).await;
    let expiry = emulator.clock().unix() + 3600;
    let password = key().token(&format!("{HUB}/devices/{DEVICE}"), expiry, None);
    let (mut client, _) = Client::connected(&emulator, login(&user_name(HUB, DEVICE), &password)).await;
    emulator.clock().advance(Duration::from_secs(4100));
    client.silent().await;
    emulator.clock().advance(Duration::from_secs(110));
    client.closed().await;
    let closed = || emulator.ledger().connections()[0].closed.clone();
    eventually("the token ended it", || closed() == Some(CloseReason::TokenExpired)).await;
}

#[tokio::test]
async fn a_clock_that_is_set_back_accepts_an_old_token() {
    let emulator = start(config()).await;
    let expiry = emulator.clock().unix() - 1_000;
    let connect = login(&user_name(HUB, DEVICE), &key().token(&format!("{HUB}/devices/{DEVICE}"), expiry, None));
    let mut client = Client::plain(emulator.plain_addr().unwrap()).await;
    assert_eq!(client.connect_with(connect.clone()).await, not_authorized());
    emulator.clock().set_offset_seconds(-5_000);
    Client::connected(&emulator, connect).await;
}

#[tokio::test]
async fn a_silent_client_is_closed_after_one_and_a_half_times_its_keep_alive() {
    let emulator = start(config()).await;
    let mut connect = connect_packet();
    connect.keep_alive = 1;
    let before = std::time::Instant::now();
    let (mut client, _) = Client::connected(&emulator, connect).await;
    client.closed().await;
    let silence = before.elapsed();
    assert!(silence >= Duration::from_millis(1450) && silence < Duration::from_secs(4), "{silence:?}");
}

#[tokio::test]
async fn a_will_becomes_telemetry_unless_the_device_sends_disconnect() {
    let emulator = start(config()).await;
    let ledger = emulator.ledger();
    for (goodbye, wills) in [(true, 0), (false, 1)] {
        let mut connect = connect_packet();
        connect.last_will = Some(will(&format!("devices/{DEVICE}/messages/events/a=b"), "gone"));
        let (mut client, _) = Client::connected(&emulator, connect).await;
        if goodbye {
            client.send(Packet::Disconnect).await;
            client.closed().await;
        }
        drop(client);
        eventually("the connection is over", || ledger.connections().iter().all(|one| one.closed.is_some())).await;
        assert_eq!(ledger.messages(DEVICE).len(), wills);
    }
    let message = &ledger.messages(DEVICE)[0];
    assert_eq!(message.property("iothub-MessageType"), Some("Will"));
    assert_eq!((message.property("a"), &message.payload[..]), (Some("b"), &b"gone"[..]));
}

#[tokio::test]
async fn a_first_packet_other_than_connect_and_a_second_connect_close() {
    let emulator = start(config()).await;
    let mut client = Client::plain(emulator.plain_addr().unwrap()).await;
    client.send(Packet::PingReq).await;
    client.closed().await;
    let mut client = Client::device(&emulator).await;
    assert_eq!(client.connect_with(connect_packet()).await, Answer::Closed);
}

#[tokio::test]
async fn user_names_of_older_clients_are_accepted() {
    let emulator = start(config()).await;
    let password = token(HUB, DEVICE, &key());
    for user_name in [
        format!("{HUB}/{DEVICE}/api-version=2016-11-14"),
        format!("{HUB}/{DEVICE}/?model-id=dtmi:com:example:T;1&api-version=2020-09-30&DeviceClientType=x%2F1"),
        format!("HUB-A.azure-devices.net/{DEVICE}/?api-version=2021-04-12"),
    ] {
        Client::connected(&emulator, login(&user_name, &password)).await;
    }
}

#[tokio::test]
async fn bad_names_and_taken_ports_are_clear_errors() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = hub_emulator::Emulator::start(config().tls_port(port)).await.unwrap_err().to_string();
    assert!(error.contains(&port.to_string()) && error.contains("shared TLS port"), "{error}");
    let error = hub_emulator::Emulator::start(config().hub("bad name!")).await.unwrap_err().to_string();
    assert!(error.contains("bad name!"), "{error}");
    let twice = config().hub_with(HubConfig::new("hub-a"));
    assert!(hub_emulator::Emulator::start(twice).await.is_err());
}

#[tokio::test]
async fn no_bytes_from_a_client_stop_the_emulator() {
    let emulator = start(config()).await;
    let mut frames = Vec::new();
    for packet in [Packet::Connect(connect_packet()), Packet::PingReq, Packet::Disconnect] {
        let mut bytes = bytes::BytesMut::new();
        packet.write(&mut bytes, usize::MAX).unwrap();
        frames.push(bytes.to_vec());
    }
    frames.push(vec![0xa2, 5, 0, 1, 0, 1, b'a']);
    frames.push([&[0x32, 32, 0, 28][..], b"devices/dev-1/messages/event", &[0, 1]].concat());
    let mut state = 7_u32;
    let mut random = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as usize
    };
    for round in 0..300 {
        let mut client = Client::plain(emulator.plain_addr().unwrap()).await;
        if round % 2 == 0 {
            client.send(Packet::Connect(connect_packet())).await;
        }
        for _ in 0..3 {
            let mut frame = frames[random() % frames.len()].clone();
            let (at, value) = (random() % frame.len(), random() % 256);
            frame[at] = u8::try_from(value).unwrap();
            client.send_bytes(&frame).await;
        }
    }
    Client::device(&emulator).await.delivered("still here").await;
}
