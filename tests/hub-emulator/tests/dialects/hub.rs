//! Sessions at a hub.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hub_emulator::{Config, DeviceAuth, Emulator, HubConfig, Key, MessageToDevice, percent_encode};
use rumqttc::mqttbytes::v4::{Packet, SubscribeReasonCode};
use serde_json::{Value, json};

use crate::packets::{Connect, DISCONNECT, PINGREQ, puback, publish, subscribe, unsubscribe};
use crate::support::{Client, HUB, LATER, SOON, eventually, socket, start};

/// Creates a token for a resource with a signing function.
type MakeToken = fn(&str, &dyn Fn(&str) -> String) -> String;

/// The credentials of a device.
#[derive(Clone, Copy, Debug)]
enum Credentials {
    Token(MakeToken),
    /// A certificate, and this password.
    Certificate(Option<&'static str>),
}

/// The twin requests of a device.
#[derive(Clone, Copy, Debug)]
struct Twin {
    /// Topics of GET and PATCH before and after the request id.
    get: &'static str,
    patch: &'static str,
    request: &'static str,
    after: &'static str,
    /// QoS 1 instead of 0.
    acknowledged: bool,
}

/// The dialect of one SDK.
#[derive(Clone, Debug)]
struct Dialect {
    name: &'static str,
    /// Source files, `repository: path`.
    sources: &'static [&'static str],
    /// `device`, or `device/module`.
    id: &'static str,
    /// The rest of the user name after the identity.
    query: &'static str,
    product: &'static str,
    model: Option<&'static str>,
    credentials: Credentials,
    clean: bool,
    keep_alive: u16,
    will: bool,
    /// Path and subprotocol; none for TLS on 8883.
    socket: Option<(&'static str, &'static str)>,
    /// The SUBSCRIBE packets, each with its filters and their QoS.
    filters: &'static [&'static [(&'static str, u8)]],
    /// Topic of a message, and the properties that the hub reads from it.
    message: &'static str,
    properties: &'static [(&'static str, &'static str)],
    twin: Twin,
    /// The filter it unsubscribes from at the end.
    gives_back: Option<&'static str>,
    /// Ends with a DISCONNECT.
    says_goodbye: bool,
}

fn encoded_upper(resource: &str, sign: &dyn Fn(&str) -> String) -> String {
    let sr = percent_encode(resource);
    format!("SharedAccessSignature sr={sr}&sig={}&se={LATER}", percent_encode(&sign(&format!("{sr}\n{LATER}"))))
}

/// Hexadecimal digits in lower case, and an empty key name.
fn encoded_lower(resource: &str, sign: &dyn Fn(&str) -> String) -> String {
    let lower = |text: &str| percent_encode(text).replace("%2F", "%2f").replace("%2B", "%2b").replace("%3D", "%3d");
    let sr = lower(resource);
    format!("SharedAccessSignature sr={sr}&sig={}&se={LATER}&skn=", lower(&sign(&format!("{sr}\n{LATER}"))))
}

fn signature_first(resource: &str, sign: &dyn Fn(&str) -> String) -> String {
    let sig = percent_encode(&sign(&format!("{resource}\n{LATER}")));
    format!("SharedAccessSignature sig={sig}&se={LATER}&sr={resource}")
}

/// As documented: the resource in lower case.
fn lower_case(resource: &str, sign: &dyn Fn(&str) -> String) -> String {
    encoded_upper(&resource.to_lowercase(), sign)
}

const GUID: &str = "7d1b3a52-0c5e-4a6f-9b1d-3f6d0d6f2c11";
const TWIN: Twin = Twin {
    get: "$iothub/twin/GET/?$rid=",
    patch: "$iothub/twin/PATCH/properties/reported/?$rid=",
    request: GUID,
    after: "",
    acknowledged: true,
};

/// The common part of most dialects.
const COMMON: Dialect = Dialect {
    name: "",
    sources: &[],
    id: "Dev-1",
    query: "",
    product: "",
    model: None,
    credentials: Credentials::Token(encoded_upper),
    clean: false,
    keep_alive: 300,
    will: false,
    socket: None,
    filters: &[],
    message: "",
    properties: &[],
    twin: TWIN,
    gives_back: None,
    says_goodbye: true,
};

const CSHARP_SOURCES: &[&str] = &[
    "Azure/azure-iot-sdk-csharp: iothub/device/src/Transport/Mqtt/MqttIotHubAdapter.cs",
    "Azure/azure-iot-sdk-csharp: iothub/device/src/Transport/Mqtt/MqttTransportHandler.cs",
];
const C_SOURCES: &[&str] = &[
    "Azure/azure-iot-sdk-c: iothub_client/src/iothubtransport_mqtt_common.c",
    "Azure/azure-iot-sdk-c: iothub_client/src/iothubtransportmqtt_websockets.c",
    "Azure/azure-c-shared-utility: src/sastoken.c",
    "Azure/azure-c-shared-utility: src/uws_client.c",
    "Azure/azure-umqtt-c: src/mqtt_codec.c",
];
const JAVA_SOURCES: &[&str] = &[
    "Azure/azure-iot-sdk-java: .../device/transport/mqtt/MqttIotHubConnection.java",
    "Azure/azure-iot-sdk-java: .../device/transport/mqtt/MqttMessaging.java",
    "Azure/azure-iot-sdk-java: .../device/transport/mqtt/MqttTwin.java",
];
const EMBEDDED_SOURCES: &[&str] = &[
    "Azure/azure-sdk-for-c: sdk/docs/iot/mqtt_state_machine.md",
    "Azure/azure-sdk-for-c: sdk/src/azure/iot/az_iot_hub_client_sas.c",
    "Azure/azure-sdk-for-c: sdk/tests/iot/hub/test_az_iot_hub_client.c",
];

const CSHARP: Dialect = Dialect {
    name: "C#",
    sources: CSHARP_SOURCES,
    // The model id is not encoded and is last.
    query: "/?api-version=2020-09-30&DeviceClientType=.NET%2F1.42.0%20%28.NET%206.0.1%3B%20Linux%3B%20X64%29&model-id=dtmi:com:example:Thermostat;1",
    product: ".NET/1.42.0 (.NET 6.0.1; Linux; X64)",
    model: Some("dtmi:com:example:Thermostat;1"),
    will: true,
    filters: &[
        &[("$iothub/twin/res/#", 0)],
        &[("$iothub/methods/POST/#", 0)],
        &[("$iothub/twin/PATCH/properties/desired/#", 0)],
        &[("devices/Dev-1/messages/devicebound/#", 1)],
    ],
    message: "devices/Dev-1/messages/events/%24.mid=m-1&%24.ctime=2026-01-02T03%3A04%3A05.0000000Z&%24.sub=thermo&a%20b=c%26d&nothing",
    properties: &[("$.sub", "thermo"), ("a b", "c&d"), ("nothing", "")],
    gives_back: Some("$iothub/methods/POST/#"),
    ..COMMON
};

const C: Dialect = Dialect {
    name: "C",
    sources: C_SOURCES,
    query: "/?api-version=2020-09-30&DeviceClientType=iothubclient%2f1.14.0%20(native%3b%20Linux%3b%20x86_64)&model-id=dtmi%3acom%3aexample%3aThermostat%3b1",
    product: "iothubclient/1.14.0 (native; Linux; x86_64)",
    model: Some("dtmi:com:example:Thermostat;1"),
    credentials: Credentials::Token(encoded_lower),
    keep_alive: 240,
    // One packet for all filters; QoS 0 for responses.
    filters: &[
        &[("devices/Dev-1/messages/devicebound/#", 1)],
        &[("$iothub/twin/res/#", 0), ("$iothub/twin/PATCH/properties/desired/#", 0), ("$iothub/methods/POST/#", 0)],
    ],
    // Values are not encoded unless the application asks for it.
    message: "devices/Dev-1/messages/events/key=a value/with slashes&%24.mid=m-1&%24.ct=application/json&%24.ce=utf-8",
    properties: &[("key", "a value/with slashes"), ("$.ct", "application/json"), ("$.ce", "utf-8")],
    twin: Twin { request: "4", acknowledged: false, ..TWIN },
    gives_back: Some("devices/Dev-1/messages/devicebound/#"),
    ..COMMON
};

const JAVA: Dialect = Dialect {
    name: "Java",
    sources: JAVA_SOURCES,
    // The model id comes before the product.
    query: "/?api-version=2020-09-30&model-id=dtmi%3Acom%3Aexample%3AThermostat%3B1&DeviceClientType=com.microsoft.azure.sdk.iot.iot-device-client%2F2.1.4",
    product: "com.microsoft.azure.sdk.iot.iot-device-client/2.1.4",
    model: Some("dtmi:com:example:Thermostat;1"),
    credentials: Credentials::Token(signature_first),
    keep_alive: 230,
    filters: &[
        &[("devices/Dev-1/messages/devicebound/#", 1)],
        &[("$iothub/twin/res/#", 1)],
        &[("$iothub/twin/PATCH/properties/desired/#", 1)],
        &[("$iothub/methods/POST/#", 1)],
    ],
    message: "devices/Dev-1/messages/events/$.mid=m-1&$.cid=c%2F1&$.ce=utf-8&$.ct=application%2Fjson&my%20key=my%20value",
    properties: &[("$.cid", "c/1"), ("$.ct", "application/json"), ("my key", "my value")],
    // The version of a property collection that was never read.
    twin: Twin { after: "&$version=0", ..TWIN },
    ..COMMON
};

fn dialects() -> Vec<Dialect> {
    vec![
        CSHARP,
        Dialect {
            name: "C#, certificate, WebSockets",
            credentials: Credentials::Certificate(None),
            socket: Some(("/$iothub/websocket", "mqtt")),
            ..CSHARP
        },
        Dialect {
            name: "C#, module",
            id: "Dev-1/Filter",
            model: None,
            query: "/?api-version=2020-09-30&DeviceClientType=.NET%2F1.42.0&auth-chain=Dev-1%3BEdge",
            product: ".NET/1.42.0",
            filters: &[
                &[("$iothub/twin/res/#", 0)],
                &[("devices/Dev-1/modules/Filter/#", 1)],
                &[("$iothub/methods/POST/#", 0)],
                &[("$iothub/twin/PATCH/properties/desired/#", 0)],
            ],
            message: "devices/Dev-1/modules/Filter/messages/events/%24.mid=m-1&%24.on=out",
            properties: &[("$.on", "out")],
            gives_back: Some("devices/Dev-1/modules/Filter/#"),
            ..CSHARP
        },
        C,
        Dialect {
            name: "C, WebSockets, no goodbye",
            socket: Some(("/$iothub/websocket", "MQTT")),
            says_goodbye: false,
            ..C
        },
        Dialect { name: "C, certificate", credentials: Credentials::Certificate(None), ..C },
        Dialect {
            name: "C, module",
            id: "Dev-1/Filter",
            filters: &[&[
                ("$iothub/twin/res/#", 0),
                ("$iothub/twin/PATCH/properties/desired/#", 0),
                ("$iothub/methods/POST/#", 0),
                ("devices/Dev-1/modules/Filter/#", 1),
            ]],
            message: "devices/Dev-1/modules/Filter/messages/events/%24.mid=m-1&%24.on=out",
            properties: &[("$.on", "out")],
            gives_back: Some("devices/Dev-1/modules/Filter/#"),
            ..C
        },
        JAVA,
        Dialect {
            name: "Java, WebSockets",
            socket: Some(("/$iothub/websocket?iothub-no-client-cert=true", "mqtt")),
            ..JAVA
        },
        Dialect {
            name: "Java, module",
            id: "Dev-1/Filter",
            filters: &[
                &[("devices/Dev-1/modules/Filter/messages/devicebound/#", 1)],
                &[("devices/Dev-1/modules/Filter/inputs/#", 1)],
                &[("$iothub/twin/res/#", 1)],
                &[("$iothub/twin/PATCH/properties/desired/#", 1)],
                &[("$iothub/methods/POST/#", 1)],
            ],
            // Topics of modules end with a slash.
            message: "devices/Dev-1/modules/Filter/messages/events/$.mid=m-1&$.on=out/",
            properties: &[("$.on", "out")],
            ..JAVA
        },
        Dialect {
            name: "embedded C",
            sources: EMBEDDED_SOURCES,
            query: "/?api-version=2020-09-30&DeviceClientType=azsdk-c%2F1.5.0&model-id=dtmi%3Acom%3Aexample%3AThermostat%3B1",
            product: "azsdk-c/1.5.0",
            model: Some("dtmi:com:example:Thermostat;1"),
            keep_alive: 240,
            filters: CSHARP.filters,
            message: "devices/Dev-1/messages/events/%24.mid=m-1&key=value&key_two=value2",
            properties: &[("key", "value"), ("key_two", "value2")],
            twin: Twin { request: "id_one", acknowledged: false, ..TWIN },
            ..COMMON
        },
        Dialect {
            name: "embedded C, certificate",
            sources: EMBEDDED_SOURCES,
            query: "/?api-version=2020-09-30&DeviceClientType=c%2F1.5.0(FreeRTOS)",
            product: "c/1.5.0(FreeRTOS)",
            credentials: Credentials::Certificate(Some("")),
            clean: true,
            filters: CSHARP.filters,
            message: "devices/Dev-1/messages/events/%24.mid=m-1",
            twin: Twin { request: "2", acknowledged: false, ..TWIN },
            ..COMMON
        },
        Dialect {
            name: "nanoFramework",
            sources: &["nanoframework/nanoFramework.Azure.Devices: nanoFramework.Azure.Devices.Client/DeviceClient.cs"],
            query: "/?api-version=2021-04-12&model-id=dtmi%3acom%3aexample%3aThermostat%3b1",
            model: Some("dtmi:com:example:Thermostat;1"),
            keep_alive: 60,
            filters: &[&[
                ("devices/Dev-1/messages/devicebound/#", 1),
                ("$iothub/twin/#", 1),
                ("$iothub/methods/POST/#", 1),
            ]],
            message: "devices/Dev-1/messages/events/%24.mid=m-1",
            gives_back: Some("$iothub/twin/#"),
            ..COMMON
        },
        Dialect {
            name: "documented by hand",
            sources: &["MicrosoftDocs/azure-docs: articles/iot/iot-mqtt-connect-to-iot-hub.md"],
            // Without the question mark, as the documentation of 2017 wrote it and browsers' MQTT clients copied it.
            query: "/api-version=2018-06-30",
            credentials: Credentials::Token(lower_case),
            clean: true,
            keep_alive: 0,
            filters: &[
                &[("devices/Dev-1/messages/devicebound/#", 1), ("$iothub/twin/res/#", 1)],
                &[("$iothub/methods/POST/#", 1), ("$iothub/twin/PATCH/properties/desired/#", 1)],
            ],
            message: "devices/Dev-1/messages/events/?$.mid=m-1&k=v",
            properties: &[("k", "v")],
            twin: Twin { request: "-1.a%20b", ..TWIN },
            ..COMMON
        },
    ]
}

#[tokio::test]
async fn every_dialect_has_its_whole_session() {
    for dialect in dialects() {
        assert!(!dialect.sources.is_empty(), "{} names its sources", dialect.name);
        println!("{} ({})", dialect.name, dialect.sources.join(", "));
        session(&dialect).await;
    }
}

/// A hub with the identity of a dialect, and the dialect connected to it.
async fn connected(dialect: &Dialect) -> (Emulator, Client) {
    let key = Key::from_seed("dialect");
    let authority = hub_emulator::Authority::new().unwrap();
    let own = authority.device_certificate("Dev-1").unwrap();
    let auth = match dialect.credentials {
        Credentials::Token(_) => DeviceAuth::from(key.clone()),
        Credentials::Certificate(_) => DeviceAuth::Thumbprint { primary: own.thumbprint.clone(), secondary: None },
    };
    let mut hub = HubConfig::new(HUB).device(dialect.id, auth);
    if dialect.id.contains('/') {
        hub = hub.device("Dev-1", Key::from_seed("parent"));
    }
    let emulator = start(Config::new().hub_with(hub).authority(authority).https_port(0)).await;
    let resource = match dialect.id.split_once('/') {
        None => format!("{HUB}/devices/{}", dialect.id),
        Some((device, module)) => format!("{HUB}/devices/{device}/modules/{module}"),
    };
    let (password, certificate) = match dialect.credentials {
        Credentials::Token(make) => (Some(make(&resource, &|text| STANDARD.encode(key.sign(text.as_bytes())))), None),
        Credentials::Certificate(password) => {
            (password.map(str::to_owned), Some((own.certificate_pem.as_str(), own.key_pem.as_str())))
        }
    };
    let mut client = match dialect.socket {
        None => Client::tls(emulator.tls_addr(), emulator.ca_pem(), HUB, certificate).await.unwrap(),
        Some((path, protocol)) => socket(&emulator, HUB, path, protocol, certificate, 4096).await.unwrap(),
    };
    let topic = dialect.message.split('%').next().unwrap().to_owned();
    let connect = Connect {
        client_id: dialect.id.to_owned(),
        user_name: format!("{HUB}/{}{}", dialect.id, dialect.query),
        password,
        clean: dialect.clean,
        keep_alive: dialect.keep_alive,
        will: dialect.will.then(|| (topic, "gone".to_owned())),
    };
    client.send_bytes(&connect.bytes()).await;
    match client.packet().await {
        Packet::ConnAck(ack) => assert_eq!(ack.code as u8, 0, "{}", dialect.name),
        other => panic!("{}: {other:?}", dialect.name),
    }
    (emulator, client)
}

async fn session(dialect: &Dialect) {
    let (emulator, mut client) = connected(dialect).await;
    let identity = emulator.hub(HUB).device(dialect.id);
    let record = emulator.ledger().connections_of(dialect.id).pop().unwrap();
    let product = record.product.as_deref().unwrap_or_default();
    assert_eq!((product, record.model_id.as_deref()), (dialect.product, dialect.model), "{}", dialect.name);

    for (filters, id) in dialect.filters.iter().zip(1..) {
        client.send_bytes(&subscribe(id, filters)).await;
        let Packet::SubAck(ack) = client.packet().await else { panic!("{}: no SUBACK", dialect.name) };
        let granted = filters.iter().map(|(_, qos)| *qos);
        let codes = ack.return_codes.iter().map(|code| match code {
            SubscribeReasonCode::Success(qos) => *qos as u8,
            SubscribeReasonCode::Failure => 0x80,
        });
        assert_eq!((ack.pkid, codes.collect::<Vec<u8>>()), (id, granted.collect()), "{}", dialect.name);
    }
    client.send_bytes(&PINGREQ).await;
    assert_eq!(client.packet().await, Packet::PingResp);

    client.send_bytes(&publish(dialect.message, 11, b"{}")).await;
    client.acknowledged(11).await;
    let messages = emulator.ledger().messages(dialect.id);
    for (name, value) in [&[("$.mid", "m-1")][..], dialect.properties].concat() {
        assert_eq!(messages[0].property(name), Some(value), "{}: {name}", dialect.name);
    }

    twin(dialect, &mut client).await;
    cloud(dialect, &identity, &mut client).await;

    if let Some(filter) = dialect.gives_back {
        client.send_bytes(&unsubscribe(33, filter)).await;
        assert!(matches!(client.packet().await, Packet::UnsubAck(ack) if ack.pkid == 33), "{}", dialect.name);
    }
    if dialect.says_goodbye {
        client.send_bytes(&DISCONNECT).await;
        client.closed().await;
    }
    drop(client);
    eventually("the session is over", || !identity.is_connected()).await;
    let wills = emulator.ledger().messages(dialect.id).iter().filter(|message| message.payload[..] == *b"gone").count();
    assert_eq!(wills, 0, "{}: a will is sent only without DISCONNECT", dialect.name);
    emulator.stop().await;
}

async fn twin(dialect: &Dialect, client: &mut Client) {
    let Twin { get, patch, request, after, acknowledged } = dialect.twin;
    let id = |id| if acknowledged { id } else { 0 };
    client.send_bytes(&publish(&format!("{get}{request}"), id(21), b"")).await;
    if acknowledged {
        client.acknowledged(21).await;
    }
    let answer = client.publish_packet().await;
    assert_eq!(answer.topic, format!("$iothub/twin/res/200/?$rid={request}"), "{}", dialect.name);
    let document: Value = serde_json::from_slice(&answer.payload).unwrap();
    assert_eq!(document, json!({"desired": {"$version": 1}, "reported": {"$version": 1}}));
    client.send_bytes(&publish(&format!("{patch}{request}{after}"), id(22), b"{\"a\":{\"b\":null,\"c\":1.5}}")).await;
    if acknowledged {
        client.acknowledged(22).await;
    }
    let answer = client.publish_packet().await;
    assert_eq!(answer.topic, format!("$iothub/twin/res/204/?$rid={request}&$version=2"), "{}", dialect.name);
    assert!(answer.payload.is_empty());
}

/// A method, a message and a desired property change.
async fn cloud(dialect: &Dialect, identity: &hub_emulator::DeviceHandle, client: &mut Client) {
    let payload = json!({"delay": 5});
    let call = identity.invoke("thermo*reboot", &payload, SOON);
    let answer = async {
        let call = client.publish_packet().await;
        let request = call.topic.strip_prefix("$iothub/methods/POST/thermo*reboot/?$rid=").unwrap().to_owned();
        assert_eq!(call.payload, "{\"delay\":5}");
        let id = if dialect.twin.acknowledged { 31 } else { 0 };
        client.send_bytes(&publish(&format!("$iothub/methods/res/-7/?$rid={request}"), id, b"")).await;
        if id > 0 {
            client.acknowledged(id).await;
        }
    };
    let (answered, ()) = tokio::join!(call, answer);
    assert_eq!((answered.as_ref().unwrap().status, answered.unwrap().payload.len()), (-7, 0), "{}", dialect.name);

    let message = MessageToDevice::new("hi").id("c-1").property("k", "v w");
    let expected = match dialect.id.split_once('/') {
        None => {
            identity.send_message(message).unwrap();
            "devices/Dev-1/messages/devicebound/%24.mid=c-1&k=v%20w&%24.to=%2Fdevices%2FDev-1%2Fmessages%2FdeviceBound"
        }
        Some(_) => {
            identity.send_to_input("in", message).unwrap();
            "devices/Dev-1/modules/Filter/inputs/in/%24.mid=c-1&k=v%20w"
        }
    };
    let message = client.publish_packet().await;
    assert_eq!((message.topic.as_str(), &message.payload[..]), (expected, &b"hi"[..]), "{}", dialect.name);
    client.send_bytes(&puback(message.pkid)).await;
    eventually("the message is completed", || identity.waiting().unwrap() == 0).await;

    identity.set_desired(&json!({"interval": 30})).unwrap();
    let change = client.publish_packet().await;
    assert_eq!(change.topic, "$iothub/twin/PATCH/properties/desired/?$version=2");
    assert_eq!(serde_json::from_slice::<Value>(&change.payload).unwrap(), json!({"interval": 30, "$version": 2}));
}
