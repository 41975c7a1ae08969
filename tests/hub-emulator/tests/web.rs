//! The HTTPS and WebSocket port: MQTT in frames, and file uploads.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test ends where something is not as expected"
)]

mod support;

use std::time::Duration;

use hub_emulator::{Carrier, Config, DeviceAuth, Emulator, Enrollment, Fault, Operation, percent_encode};
use rumqttc::mqttbytes::v4::{Connect, Login};
use serde_json::{Value, json};
use support::{DEVICE, HUB, SOON, config_with, connect_packet, hub, key, start, tls_stream, token};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

const FILES: &str = "/devices/dev-1/files?api-version=2021-04-12";
const NOTIFY: &str = "/devices/dev-1/files/notifications?api-version=2021-04-12";

fn web(config: Config) -> Config {
    config.https_port(0).storage_host("localhost")
}

#[tokio::test]
async fn packets_cross_a_web_socket_however_frames_cut_and_join_them() {
    let emulator = start(web(config_with(hub())).websocket_frame(3)).await;
    for (cut, protocol, path) in
        [(1, "mqtt", "/$iothub/websocket"), (4096, "MQTT", "/$iothub/websocket?iothub-no-client-cert=true")]
    {
        let mut client = support::socket(&emulator, HUB, path, protocol, None, cut).await.unwrap();
        client.accepted(connect_packet()).await;
        client.delivered("m").await;
        client.subscribed("devices/dev-1/messages/devicebound/#").await;
        emulator.hub(HUB).device(DEVICE).send(&[], b"to you").unwrap();
        let message = client.publish_packet().await;
        assert_eq!(&message.payload[..], b"to you");
        client.send(rumqttc::mqttbytes::v4::Packet::PubAck(rumqttc::mqttbytes::v4::PubAck::new(message.pkid))).await;
        support::eventually("taken", || emulator.hub(HUB).device(DEVICE).waiting().unwrap() == 0).await;
    }
    let carriers: Vec<Carrier> = emulator.ledger().connections().iter().map(|record| record.carrier).collect();
    assert_eq!(carriers, [Carrier::WebSocket; 2]);
}

#[tokio::test]
async fn dps_answers_on_a_web_socket_too_and_other_paths_and_protocols_are_refused() {
    let emulator = start(web(config_with(hub()).enroll(Enrollment::individual("reg-1", key())))).await;
    let name = emulator.dps().host();
    let mut client = support::socket(&emulator, &name, "/$iothub/websocket", "mqtt", None, 64).await.unwrap();
    let scope = emulator.dps().id_scope();
    let mut connect = Connect::new("reg-1");
    let password = key().token(&format!("{scope}/registrations/reg-1"), support::LATER, Some("registration"));
    connect.login = Some(Login::new(format!("{scope}/registrations/reg-1/api-version=2021-06-01"), password));
    client.accepted(connect).await;
    client.subscribed("$dps/registrations/res/#").await;
    assert_eq!(support::socket(&emulator, HUB, "/mqtt", "mqtt", None, 64).await.err(), Some(404));
    assert_eq!(support::socket(&emulator, HUB, "/$iothub/websocket", "amqp", None, 64).await.err(), Some(400));
}

/// Sends one request; returns status and body of the response, or nothing when the connection ends.
async fn ask(
    emulator: &Emulator,
    certificate: Option<(&str, &str)>,
    method: &str,
    target: &str,
    headers: &str,
    body: &[u8],
) -> Option<(u16, Value)> {
    let address = emulator.https_addr().unwrap();
    let mut stream = tls_stream(address, emulator.ca_pem(), "localhost", certificate).await.unwrap();
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all(&[head.as_bytes(), body].concat()).await;
    let mut answer = Vec::new();
    let _ = timeout(SOON, stream.read_to_end(&mut answer)).await.unwrap();
    let text = String::from_utf8(answer).unwrap();
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().unwrap(), serde_json::from_str(body).unwrap_or(Value::Null)))
}

fn by_token() -> String {
    format!("Authorization: {}\r\n", token(HUB, DEVICE, &key()))
}

/// Requests a SAS URI; returns the response and the target of the blob.
async fn begin(emulator: &Emulator, name: &str) -> (Value, String) {
    let body = json!({ "blobName": name }).to_string();
    let (status, place) = ask(emulator, None, "POST", FILES, &by_token(), body.as_bytes()).await.unwrap();
    assert_eq!(status, 200, "{place}");
    let text = |name: &str| place[name].as_str().unwrap().to_owned();
    assert_eq!(text("hostName"), format!("localhost:{}", emulator.https_addr().unwrap().port()));
    assert_eq!(text("blobName"), format!("dev-1/{name}"));
    let target = format!("/{}/{}{}", text("containerName"), text("blobName"), text("sasToken"));
    (place, target)
}

#[tokio::test]
async fn a_file_is_uploaded_whole_or_in_blocks_and_its_end_notified() {
    let emulator = start(web(config_with(hub()))).await;
    let (place, target) = begin(&emulator, "whole.bin").await;
    let put = ask(&emulator, None, "PUT", &target, "x-ms-blob-type: BlockBlob\r\n", b"all of it").await;
    assert_eq!(put.unwrap().0, 201);
    assert_eq!(emulator.uploaded(DEVICE, "whole.bin").unwrap(), b"all of it");
    let notification = json!({"correlationId": place["correlationId"], "isSuccess": true, "statusCode": 200,
        "statusDescription": "fine"});
    for expected in [204, 400] {
        let answer = ask(&emulator, None, "POST", NOTIFY, &by_token(), notification.to_string().as_bytes()).await;
        assert_eq!(answer.unwrap().0, expected, "the second notification finds the upload ended");
    }
    let (place, target) = begin(&emulator, "parts.bin").await;
    for (id, part) in [("QUE=", "one "), ("QkI=", "two")] {
        let id = percent_encode(id);
        let put = ask(&emulator, None, "PUT", &format!("{target}&comp=block&blockid={id}"), "", part.as_bytes()).await;
        assert_eq!(put.unwrap().0, 201);
    }
    let list = "<?xml version=\"1.0\"?><BlockList><Latest>QUE=</Latest><Latest>QkI=</Latest></BlockList>";
    let put = ask(&emulator, None, "PUT", &format!("{target}&comp=blocklist"), "", list.as_bytes()).await;
    assert_eq!(put.unwrap().0, 201);
    assert_eq!(emulator.uploaded(DEVICE, "parts.bin").unwrap(), b"one two");
    let correlation = percent_encode(place["correlationId"].as_str().unwrap());
    let path = format!("/devices/dev-1/files/notifications/{correlation}?api-version=2021-04-12");
    let notification = json!({"isSuccess": false, "statusCode": 500, "statusDescription": "gone"}).to_string();
    assert_eq!(ask(&emulator, None, "POST", &path, &by_token(), notification.as_bytes()).await.unwrap().0, 204);
    let operations = emulator.ledger().operations_of(DEVICE);
    let Some(Operation::UploadNotified { success, code, status, .. }) = operations.last() else {
        panic!("{operations:?}")
    };
    assert_eq!((*success, *code, *status), (false, Some(500), 204));
}

#[tokio::test]
async fn bad_requests_and_bad_credentials_are_refused_and_ten_uploads_are_the_limit() {
    let emulator = start(web(config_with(hub()))).await;
    let body = br#"{"blobName":"f"}"#;
    for (target, headers, body, expected) in [
        (FILES, String::new(), &body[..], 401),
        (FILES, format!("Authorization: {}\r\n", token(HUB, DEVICE, &hub_emulator::Key::from_seed("x"))), body, 401),
        ("/devices/dev-1/files", by_token(), body, 400),
        (FILES, by_token(), b"{}", 400),
        (FILES, by_token(), b"", 400),
        ("/devices/nobody/files?api-version=1", by_token(), body, 404),
        ("/container/blob?sig=x", String::new(), body, 403),
    ] {
        let answer = ask(&emulator, None, "POST", target, &headers, body).await;
        assert_eq!(answer.unwrap().0, expected, "{target} {headers}");
    }
    for number in 0..10 {
        begin(&emulator, &format!("f{number}")).await;
    }
    let eleventh = ask(&emulator, None, "POST", FILES, &by_token(), body).await.unwrap();
    assert_eq!((eleventh.0, &eleventh.1["Message"].as_str().unwrap()[..16]), (403, "ErrorCode:403006"));
    emulator.clock().advance(Duration::from_secs(3601));
    begin(&emulator, "after the first ten are over").await;
}

#[tokio::test]
async fn faults_strike_the_hub_and_the_storage_and_an_old_token_is_refused() {
    let emulator = start(web(config_with(hub()))).await;
    let device = emulator.hub(HUB).device(DEVICE);
    device.inject(Fault::UploadStatus { status: 429 });
    let answer = ask(&emulator, None, "POST", FILES, &by_token(), br#"{"blobName":"f"}"#).await;
    assert_eq!(answer.unwrap().0, 429);
    let (_, target) = begin(&emulator, "f").await;
    let block_blob = "x-ms-blob-type: BlockBlob\r\n";
    for status in [500, 503, 403] {
        device.inject(Fault::StorageStatus { status });
        assert_eq!(ask(&emulator, None, "PUT", &target, block_blob, b"x").await.unwrap().0, status);
    }
    device.inject(Fault::StorageDrop { bytes: 1000 });
    assert_eq!(ask(&emulator, None, "PUT", &target, block_blob, &[7; 100_000]).await, None);
    assert_eq!(emulator.uploaded(DEVICE, "f"), None);
    assert_eq!(ask(&emulator, None, "PUT", &target, block_blob, b"at last").await.unwrap().0, 201);
    emulator.clock().advance(Duration::from_secs(3601));
    assert_eq!(ask(&emulator, None, "PUT", &target, block_blob, b"too late").await.unwrap().0, 403);
    assert_eq!(emulator.uploaded(DEVICE, "f").unwrap(), b"at last");
}

#[tokio::test]
async fn a_certificate_authenticates_file_uploads_too() {
    let authority = hub_emulator::Authority::new().unwrap();
    let own = authority.device_certificate("by-cert").unwrap();
    let auth = DeviceAuth::Thumbprint { primary: own.thumbprint.clone(), secondary: None };
    let emulator = start(web(config_with(hub().device("by-cert", auth))).authority(authority)).await;
    let certificate = Some((own.certificate_pem.as_str(), own.key_pem.as_str()));
    let target = "/devices/by-cert/files?api-version=2021-04-12";
    for (certificate, expected) in [(certificate, 200), (None, 401)] {
        let answer = ask(&emulator, certificate, "POST", target, "", br#"{"blobName":"f"}"#).await;
        assert_eq!(answer.unwrap().0, expected);
    }
}

#[tokio::test]
async fn a_body_that_no_service_takes_is_refused_before_it_is_read() {
    let emulator = start(web(config_with(hub()))).await;
    let address = emulator.https_addr().unwrap();
    for target in ["/devices/dev-1/files", "/nowhere", "/account/container/blob"] {
        let mut stream = tls_stream(address, emulator.ca_pem(), "localhost", None).await.unwrap();
        let head = format!("POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 67108864\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        timeout(SOON, stream.read_exact(&mut answer)).await.unwrap().unwrap();
        assert_eq!(&answer[..], b"HTTP/1.1 413", "{target}");
    }
}
