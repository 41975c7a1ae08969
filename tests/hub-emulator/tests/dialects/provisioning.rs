//! Sessions at DPS.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hub_emulator::{Attestation, Config, DpsConfig, Emulator, Enrollment, Key, percent_encode};
use rumqttc::mqttbytes::v4::{Packet, Publish};
use serde_json::{Value, json};

use crate::packets::{Connect, DISCONNECT, puback, publish, subscribe};
use crate::support::{Client, LATER, socket, start};

const SCOPE: &str = "0ne00DIALECT";
const DPS: &str = "global.azure-devices-provisioning.net";
/// Registration ids are case-insensitive.
const ID: &str = "Reg-1";

/// The registration dialect of one SDK.
#[derive(Clone, Debug)]
struct Dialect {
    name: &'static str,
    /// Source files, `repository: path`.
    sources: &'static [&'static str],
    /// The rest of the user name after `api-version=`.
    version: &'static str,
    /// `%2F` in the letter case of this SDK; with a certificate none, and the content of the password field.
    slash: Option<&'static str>,
    password: Option<&'static str>,
    clean: bool,
    socket: Option<(&'static str, &'static str)>,
    /// Request ids of the registration and of each poll.
    requests: [&'static str; 3],
    /// QoS 1 instead of 0.
    acknowledged: bool,
    body: &'static str,
    payload: Option<&'static str>,
    /// Acknowledges messages even at QoS 0.
    acknowledges_all: bool,
}

const CSHARP: Dialect = Dialect {
    name: "C#",
    sources: &[
        "Azure/azure-iot-sdk-csharp: provisioning/transport/mqtt/src/ProvisioningChannelHandlerAdapter.cs",
        "Azure/azure-iot-sdk-csharp: provisioning/transport/mqtt/src/ProvisioningTransportHandlerMqtt.cs",
    ],
    version: "2021-06-01&ClientVersion=.NET%2F1.19.2%20%28.NET%206.0.1%3B%20Linux%29",
    slash: Some("%2F"),
    password: None,
    clean: true,
    socket: None,
    requests: ["2", "3", "4"],
    acknowledged: true,
    body: r#"{"registrationId":null,"tpm":null,"payload":{"modelId":"dtmi:a:b;1"}}"#,
    payload: Some(r#"{"modelId":"dtmi:a:b;1"}"#),
    acknowledges_all: true,
};

const C: Dialect = Dialect {
    name: "C",
    sources: &[
        "Azure/azure-iot-sdk-c: provisioning_client/src/prov_transport_mqtt_common.c",
        "Azure/azure-iot-sdk-c: provisioning_client/src/prov_transport_mqtt_ws_client.c",
    ],
    version: "2019-03-31&ClientVersion=prov_device_client%2f1.14.0",
    slash: Some("%2f"),
    password: None,
    clean: true,
    socket: None,
    requests: ["1", "2", "3"],
    acknowledged: false,
    body: "",
    payload: None,
    acknowledges_all: false,
};

fn dialects() -> Vec<Dialect> {
    vec![
        CSHARP,
        // The address has no path: it is the root.
        Dialect { name: "C#, WebSockets", socket: Some(("/", "mqtt")), body: "", payload: None, ..CSHARP },
        Dialect { name: "C#, certificate, WebSockets", slash: None, socket: Some(("/", "mqtt")), ..CSHARP },
        C,
        Dialect { name: "C, WebSockets", socket: Some(("/$iothub/websocket", "MQTT")), ..C },
        Dialect { name: "C, certificate", slash: None, body: r#"{"registrationId":"reg-1"}"#, ..C },
        Dialect {
            name: "Java",
            sources: &[
                "Azure/azure-iot-sdk-java: provisioning/provisioning-device-client/src/main/java/com/microsoft/azure/sdk/iot/provisioning/device/internal/contract/mqtt/ContractAPIMqtt.java",
            ],
            version: "2019-03-31&ClientVersion=2019-03-31",
            requests: ["1", "2", "3"],
            acknowledged: false,
            clean: false,
            body: r#"{"registrationId":"Reg-1","payload":{"a":1}}"#,
            payload: Some(r#"{"a":1}"#),
            acknowledges_all: false,
            ..CSHARP
        },
        Dialect {
            name: "embedded C",
            sources: &["Azure/azure-sdk-for-c: sdk/src/azure/iot/az_iot_provisioning_client.c"],
            version: "2019-03-31&ClientVersion=azsdk-c%2F1.5.0",
            slash: Some("%2f"),
            // Every request has the same id.
            requests: ["1", "1", "1"],
            body: "{ \"registrationId\" : \"Reg-1\" }",
            payload: None,
            acknowledges_all: false,
            ..CSHARP
        },
        Dialect {
            name: "embedded C, certificate",
            sources: &["Azure/azure-sdk-for-c: sdk/src/azure/iot/az_iot_provisioning_client.c"],
            version: "2019-03-31&ClientVersion=azsdk-c%2F1.5.0",
            slash: None,
            password: Some(""),
            requests: ["1", "1", "1"],
            body: "{ \"registrationId\" : \"Reg-1\" }",
            payload: None,
            acknowledges_all: false,
            ..CSHARP
        },
        Dialect {
            name: "Node",
            sources: &["Azure/azure-iot-sdk-node: provisioning/transport/mqtt/src/mqtt.ts"],
            version: "2019-03-31&ClientVersion=azure-iot-provisioning-device%2F1.9.1",
            requests: [
                "0d1f7a1e-5a63-4c9c-a8f5-0b8d0b1f4a11",
                "1d1f7a1e-5a63-4c9c-a8f5-0b8d0b1f4a12",
                "2d1f7a1e-5a63-4c9c-a8f5-0b8d0b1f4a13",
            ],
            body: r#"{"registrationId":"Reg-1"}"#,
            payload: None,
            acknowledges_all: false,
            ..CSHARP
        },
    ]
}

#[tokio::test]
async fn every_dialect_registers_and_gets_its_hub() {
    for dialect in dialects() {
        assert!(!dialect.sources.is_empty(), "{} names its sources", dialect.name);
        println!("{} ({})", dialect.name, dialect.sources.join(", "));
        register(&dialect).await;
    }
}

async fn connected(dialect: &Dialect) -> (Emulator, Client) {
    let key = Key::from_seed("dialect");
    let authority = hub_emulator::Authority::new().unwrap();
    let own = authority.device_certificate(ID).unwrap();
    let enrollment = if dialect.slash.is_some() {
        Enrollment::group("keys", key.clone())
    } else {
        Enrollment::group_with("x509", Attestation::CertificateAuthority(authority.pem().to_owned()))
    };
    let dps = DpsConfig::new().host(DPS).id_scope(SCOPE).assigning_polls(1);
    let config = Config::new().hub("hub-a").dps(dps).enroll(enrollment).authority(authority).https_port(0);
    let emulator = start(config).await;
    let token = |slash: &str| {
        let sr = percent_encode(&format!("{SCOPE}/registrations/{ID}")).replace("%2F", slash);
        let signature = key.derive(ID).sign(format!("{sr}\n{LATER}").as_bytes());
        let sig = percent_encode(&STANDARD.encode(signature));
        format!("SharedAccessSignature sr={sr}&sig={sig}&se={LATER}&skn=registration")
    };
    let password = dialect.slash.map(token).or_else(|| dialect.password.map(str::to_owned));
    let certificate = dialect.slash.is_none().then_some((own.certificate_pem.as_str(), own.key_pem.as_str()));
    let mut client = match dialect.socket {
        None => Client::tls(emulator.tls_addr(), emulator.ca_pem(), DPS, certificate).await.unwrap(),
        Some((path, protocol)) => socket(&emulator, DPS, path, protocol, certificate, 4096).await.unwrap(),
    };
    let connect = Connect {
        client_id: ID.to_owned(),
        user_name: format!("{SCOPE}/registrations/{ID}/api-version={}", dialect.version),
        password,
        clean: dialect.clean,
        keep_alive: 0,
        will: None,
    };
    client.send_bytes(&connect.bytes()).await;
    match client.packet().await {
        Packet::ConnAck(ack) => assert_eq!((ack.code as u8, ack.session_present), (0, false), "{}", dialect.name),
        other => panic!("{}: {other:?}", dialect.name),
    }
    (emulator, client)
}

async fn register(dialect: &Dialect) {
    let (emulator, mut client) = connected(dialect).await;
    client.send_bytes(&subscribe(1, &[("$dps/registrations/res/#", 1)])).await;
    assert!(matches!(client.packet().await, Packet::SubAck(ack) if ack.pkid == 1), "{}", dialect.name);

    let [first, second, third] = dialect.requests;
    let topic = format!("$dps/registrations/PUT/iotdps-register/?$rid={first}");
    let answer = ask(dialect, &mut client, &topic, 2, dialect.body.as_bytes()).await;
    assert_eq!(answer.topic, format!("$dps/registrations/res/202/?$rid={first}&retry-after=1"), "{}", dialect.name);
    let body: Value = serde_json::from_slice(&answer.payload).unwrap();
    assert_eq!(body["status"], "assigning");
    let operation = body["operationId"].as_str().unwrap();

    let poll = |request: &str| {
        format!("$dps/registrations/GET/iotdps-get-operationstatus/?$rid={request}&operationId={operation}")
    };
    let answer = ask(dialect, &mut client, &poll(second), 3, b"").await;
    assert!(answer.topic.starts_with("$dps/registrations/res/202/?$rid="), "{}", dialect.name);
    // The final response can be requested again: it may have been lost.
    let mut ends = Vec::new();
    for id in [4, 5] {
        let answer = ask(dialect, &mut client, &poll(third), id, b"").await;
        assert_eq!(answer.topic, format!("$dps/registrations/res/200/?$rid={third}"), "{}", dialect.name);
        ends.push(serde_json::from_slice::<Value>(&answer.payload).unwrap());
    }
    assert_eq!(ends[0], ends[1]);
    let state = &ends[0]["registrationState"];
    assert_eq!((&ends[0]["status"], &state["status"]), (&json!("assigned"), &json!("assigned")));
    assert_eq!((&state["assignedHub"], &state["deviceId"]), (&json!("hub-a.azure-devices.net"), &json!(ID)));
    client.send_bytes(&DISCONNECT).await;
    client.closed().await;

    let registrations = emulator.dps().registrations();
    let payload = dialect.payload.map(|payload| serde_json::from_str::<Value>(payload).unwrap());
    assert_eq!((registrations.len(), &registrations[0].payload), (1, &payload), "{}", dialect.name);
    emulator.stop().await;
}

/// Publishes a request, and returns the response.
async fn ask(dialect: &Dialect, client: &mut Client, topic: &str, id: u16, body: &[u8]) -> Publish {
    client.send_bytes(&publish(topic, if dialect.acknowledged { id } else { 0 }, body)).await;
    if dialect.acknowledged {
        client.acknowledged(id).await;
    }
    let answer = client.publish_packet().await;
    if dialect.acknowledges_all {
        client.send_bytes(&puback(answer.pkid)).await;
    }
    answer
}
