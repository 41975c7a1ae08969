//! The variants of packets that different SDKs send: all are accepted.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test ends where something is not as expected"
)]

mod support;

use bytes::Bytes;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{Login, Packet, Publish, Unsubscribe};
use support::{Client, DEVICE, HUB, config, connect_packet, eventually, key, start, token};

#[tokio::test]
async fn every_api_version_and_form_of_user_name_and_token_connects() {
    let emulator = start(config()).await;
    let good = token(HUB, DEVICE, &key());
    let fields: Vec<&str> = good.strip_prefix("SharedAccessSignature ").unwrap().split('&').collect();
    let turned = format!("SharedAccessSignature {}&{}&{}", fields[2], fields[1], fields[0]);
    for query in [
        "?api-version=2016-11-14",
        "?api-version=2018-06-30&DeviceClientType=Microsoft.Azure.Devices.Client%2F1.41.0%20(.NET)&auth=x",
        "?api-version=2020-09-30&model-id=dtmi:com:example:T;1&DeviceClientType=py-azure-iot-device%2F2.14",
        "?model-id=dtmi%3Acom%3Aexample%3AT%3B1&api-version=2021-04-12",
        "?api-version=2025-08-01-preview&something=else&empty=&alone",
        "api-version=2017-06-30",
    ] {
        for (clean, password) in [(true, &good), (false, &turned)] {
            let mut connect = connect_packet();
            connect.clean_session = clean;
            connect.login = Some(Login::new(format!("{HUB}/{DEVICE}/{query}"), password.clone()));
            Client::connected(&emulator, connect).await;
        }
    }
}

#[tokio::test]
async fn telemetry_comes_at_qos_0_retained_and_with_either_case_of_percent_encoding() {
    let emulator = start(config()).await;
    let mut client = Client::device(&emulator).await;
    for (bag, retain) in [("%24.ct=application%2fjson&k=%c3%a9", false), ("$.ct=application%2Fjson&k=%C3%A9&", true)] {
        let topic = format!("devices/{DEVICE}/messages/events/{bag}");
        let mut publish = Publish::from_bytes(topic, QoS::AtMostOnce, Bytes::from_static(b"x"));
        publish.retain = retain;
        client.send(Packet::Publish(publish)).await;
    }
    let ledger = emulator.ledger();
    eventually("both are there", || ledger.messages(DEVICE).len() == 2).await;
    for message in ledger.messages(DEVICE) {
        assert_eq!((message.content_type(), message.property("k")), (Some("application/json"), Some("é")));
    }
    assert_eq!(ledger.messages(DEVICE)[1].property("mqtt-retain"), Some("true"));
}

#[tokio::test]
async fn request_ids_are_any_text_and_are_returned_unchanged() {
    let emulator = start(config()).await;
    let mut client = Client::device(&emulator).await;
    client.subscribed("$iothub/twin/res/#").await;
    for rid in ["0", "8c1f0c52-5a1c-4e39-9d2a-6d1f9a3a7c55", "a%20b", "id_one", "-1"] {
        for query in [format!("$rid={rid}"), format!("x=y&$rid={rid}")] {
            let topic = format!("$iothub/twin/GET/?{query}");
            client.send(Packet::Publish(Publish::from_bytes(topic, QoS::AtMostOnce, Bytes::new()))).await;
            assert_eq!(client.publish_packet().await.topic, format!("$iothub/twin/res/200/?$rid={rid}"));
        }
    }
    let mut unsubscribe = Unsubscribe::new("$iothub/twin/res/#");
    unsubscribe.pkid = 77;
    client.send(Packet::Unsubscribe(unsubscribe)).await;
    assert!(matches!(client.packet().await, Packet::UnsubAck(ack) if ack.pkid == 77));
    client.send(Packet::PingReq).await;
    assert_eq!(client.packet().await, Packet::PingResp);
}

// adafruit/Adafruit_CircuitPython_AzureIoT: adafruit_azureiot/iot_mqtt.py; filters of the same kind are in IoT Central's samples.
#[tokio::test]
async fn undocumented_filters_deliver_exactly_their_topics() {
    let emulator = start(config()).await;
    let mut client = Client::device(&emulator).await;
    for filter in ["$iothub/methods/#", "$iothub/twin/res/200/#", "devices/dev-1/messages/events/#"] {
        client.subscribed(filter).await;
    }
    let ask = |topic: &str, body: &'static [u8]| {
        Packet::Publish(Publish::from_bytes(topic, QoS::AtMostOnce, Bytes::from_static(body)))
    };
    client.send(ask("$iothub/twin/PATCH/properties/reported/?$rid=0", b"{\"a\":1}")).await;
    client.send(ask("$iothub/twin/GET/?$rid=1", b" ")).await;
    let answer = client.publish_packet().await;
    assert_eq!(answer.topic, "$iothub/twin/res/200/?$rid=1", "and not the 204 of the report");
    client.delivered("m").await;
    let device = emulator.hub(HUB).device(DEVICE);
    let calling = tokio::spawn(async move { device.invoke("m", &serde_json::Value::Null, support::SOON).await });
    let call = client.publish_packet().await;
    let request = call.topic.strip_prefix("$iothub/methods/POST/m/").unwrap();
    client.send(ask(&format!("$iothub/methods/res/200/{request}"), b"{}")).await;
    assert_eq!(calling.await.unwrap().unwrap().status, 200);
}
