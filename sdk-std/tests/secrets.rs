//! A whole session, from provisioning to a stop, logged at the most talkative level.

mod support;

use std::time::Duration;

use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{ConnectReturnCode, Packet, Publish};
use steadfast::{Device, Dps, Subscriptions, Telemetry};
use support::{Log, Server, hasty, soon};

/// The key of an enrollment group: the bytes 0 to 31.
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

#[tokio::test]
async fn no_secret_and_no_payload_is_logged_and_the_assignment_is_kept() {
    let (log, _guard) = Log::begin();

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("assignment");
    let server = Server::start().await;
    let hub = "hub-b.azure-devices.net";
    let (device, driver) = Device::builder()
        .provision_with(Dps::new("0ne00AB12CD", "pump-7").host("dps.example"))
        .group_key(KEY)
        .resolve("dps.example", [server.address])
        .resolve(hub, [server.address])
        .plaintext_unprotected()
        .assignment_file(&path)
        .subscriptions(Subscriptions::CLOUD_TO_DEVICE)
        .retry(hasty())
        .build()
        .unwrap();
    let driver = tokio::spawn(driver);

    let mut peer = server.accept().await;
    let connect = peer.welcome(false).await;
    let mut passwords = vec![connect.login.unwrap().password];
    peer.suback().await;
    let request = peer.publish().await;
    let request_id = request.topic.split("$rid=").nth(1).unwrap();
    let body = format!(
        r#"{{"operationId":"op-1","status":"assigned","registrationState":{{"assignedHub":"{hub}","deviceId":"pump-7","status":"assigned","payload":{{"a":1}}}}}}"#
    );
    peer.send(Packet::Publish(Publish::new(
        format!("$dps/registrations/res/200/?$rid={request_id}"),
        QoS::AtMostOnce,
        body,
    )))
    .await;

    // The hub refuses once, then takes the device.
    let mut peer = server.accept().await;
    let Some(Packet::Connect(connect)) = peer.next().await else { panic!("no CONNECT") };
    passwords.push(connect.login.unwrap().password);
    peer.answer(ConnectReturnCode::NotAuthorized, false).await;
    let mut peer = server.accept().await;
    passwords.push(peer.welcome(false).await.login.unwrap().password);
    peer.suback().await;
    let reading = Telemetry::json(r#"{"secret":"payload-secret"}"#).property("p", "property-secret").unwrap();
    let mut receipt = device.send(&reading).await.unwrap();
    let publish = peer.publish().await;
    peer.ack(&publish).await;
    soon(&mut receipt).await.unwrap();
    assert_eq!(device.provisioning_payload().as_deref(), Some(&br#"{"a":1}"#[..]));
    let mut command =
        Publish::new("devices/pump-7/messages/devicebound/x=topic-secret", QoS::AtLeastOnce, "command-secret");
    command.pkid = 1;
    peer.send(Packet::Publish(command)).await;
    let command = soon(device.messages().next()).await.unwrap();
    tracing::trace!(?command, ?device, ?receipt, "what the application has");
    assert!(command.acknowledge());
    drop(tokio::spawn(async move { peer.serve().await }));
    soon(device.stop(Duration::from_secs(1))).await;
    soon(driver).await.unwrap();

    let kept = std::fs::read_to_string(&path).unwrap();
    assert!(kept.contains(hub), "{kept}");
    let back_off = std::fs::read_to_string(directory.path().join("assignment.back-off")).unwrap();
    assert!(back_off.starts_with("steadfast memory 1\ndevice 0ne00AB12CD pump-7\n"), "{back_off}");
    let log = log.text();
    for expected in ["CONNECT", "PUBLISH", "assigned to a hub", "not authorized", "stopped"] {
        assert!(log.contains(expected), "{expected} is logged");
    }
    let signatures: Vec<&str> =
        passwords.iter().map(|password| password.split("sig=").nth(1).unwrap().split('&').next().unwrap()).collect();
    assert_eq!(signatures.len(), 3);
    let secrets = ["AAECAwQF", "sig=", "SharedAccess", "-secret"];
    for secret in secrets.into_iter().chain(signatures) {
        if secret == "-secret" {
            // The application's own line shows the topic it was given.
            let own = log.lines().filter(|line| line.contains(secret) && !line.contains("what the application has"));
            assert_eq!(own.count(), 0);
        } else {
            assert!(!log.contains(secret), "{secret} is logged");
        }
    }
}
