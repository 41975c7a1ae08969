//! A status names the host that it is about.

mod support;

use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{ConnectReturnCode, Packet, PubAck, Publish};
use steadfast::{Advice, Device, Dps, Failure, State};
use support::{Server, hasty, soon};

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

#[tokio::test]
async fn a_status_names_the_broker_from_the_start() {
    let server = Server::start().await;
    let (device, driver) = server.client().build().unwrap();
    assert_eq!((device.status().host(), device.status().failed_host()), (Some("broker.test"), None));
    let _driver = tokio::spawn(driver);
    let _peer = server.welcome(false).await;
    let mut status = device.status_changes();
    let up = soon(status.wait_for(|status| status.state == State::Up)).await.unwrap().clone();
    assert_eq!(up.host(), Some("broker.test"));
    assert!(up.to_string().starts_with("broker broker.test: up for "), "{up}");
}

#[tokio::test]
async fn a_refusal_of_the_protocol_names_the_service_that_refused_though_another_is_asked_next() {
    let (dps, hub) = (Server::start().await, Server::start().await);
    let (device, driver) = Device::builder()
        .provision_with(Dps::new("0ne00AB12CD", "pump-7").host("dps.example"))
        .resolve("dps.example", [dps.address])
        .resolve("hub.example", [hub.address])
        .shared_key(KEY)
        .plaintext_unprotected()
        .retry(hasty().divided_by(100))
        .build()
        .unwrap();
    let _driver = tokio::spawn(driver);
    let mut status = device.status_changes();
    assert_eq!(device.status().host(), None);
    assert!(device.status().to_string().starts_with("idle for "), "{}", device.status());

    // DPS itself refuses first.
    let mut peer = dps.accept().await;
    peer.next().await;
    peer.answer(ConnectReturnCode::RefusedProtocolVersion, false).await;
    let refused = soon(status.wait_for(|status| status.failures == 1)).await.unwrap().clone();
    assert_eq!((refused.host(), refused.failed_host()), (Some("dps.example"), Some("dps.example")));
    assert_eq!(refused.advice(), Advice::CheckProtocol);
    let text = refused.to_string();
    assert!(text.contains("check which service answers, DPS, IoT Hub or broker"), "{text}");
    assert!(text.contains("another profile"), "{text}");

    // Then it names a hub, which refuses too.
    let mut peer = dps.welcome(false).await;
    peer.suback().await;
    let register = peer.publish().await;
    peer.send(Packet::PubAck(PubAck { pkid: register.pkid })).await;
    let request = register.topic.split_once("$rid=").unwrap().1.to_owned();
    let assigned = r#"{"operationId":"o","status":"assigned","registrationState":{"registrationId":"pump-7","status":"assigned","assignedHub":"hub.example","deviceId":"pump-7"}}"#;
    peer.send(Packet::Publish(Publish::new(
        format!("$dps/registrations/res/200/?$rid={request}"),
        QoS::AtMostOnce,
        assigned,
    )))
    .await;
    let mut peer = hub.accept().await;
    peer.next().await;
    assert_eq!(device.status().host(), Some("hub.example"));
    peer.answer(ConnectReturnCode::RefusedProtocolVersion, false).await;
    let refused = soon(status.wait_for(|status| status.failed_host() == Some("hub.example"))).await.unwrap().clone();
    assert_eq!(refused.last_failure, Some(Failure::ConnectRefused(1)));

    // The device asks DPS for its hub again, and still says who refused.
    let _peer = dps.accept().await;
    let asking = soon(status.wait_for(|status| status.host() == Some("dps.example"))).await.unwrap().clone();
    assert_eq!(asking.failed_host(), Some("hub.example"));
    let text = asking.to_string();
    assert!(text.starts_with("DPS dps.example: "), "{text}");
    assert!(text.ends_with("; the latest failure was at the IoT hub hub.example"), "{text}");
}
