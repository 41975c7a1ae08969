//! The official Node device SDK, unmodified, judges the emulator: as a device with keys and with certificates,
//! through a gateway name, and as a module, over TLS and over WebSockets.

use e2e::sdk::{DPS, HUB, Language, STEP, STORAGE, Sdk, inside};
use e2e::until;
use hub_emulator::{
    Attestation, Authority, Carrier, Config, DpsConfig, Emulator, Enrollment, Error, Fault, HubConfig, Key,
    MessageToDevice, Operation,
};
use serde_json::{Value, json};
use tokio::join;

const SCOPE: &str = "0ne00NODE";
const MODEL: &str = "dtmi:example:Thermostat;1";
const LINE: &str = "line-8";

#[tokio::test]
async fn the_official_node_sdk_works_as_a_device() {
    inside(Language::Node, "the_official_node_sdk_works_as_a_device", devices()).await;
}

#[tokio::test]
async fn the_official_node_sdk_works_as_a_module() {
    inside(Language::Node, "the_official_node_sdk_works_as_a_module", modules()).await;
}

async fn devices() {
    let key = Key::from_seed("node");
    let authority = Authority::new().expect("an authority");
    let hello = || json!({"hello": "device"});
    let by_certificate = Attestation::CertificateAuthority(authority.pem().to_owned());
    let config = Config::new()
        .hub(HUB)
        .dps(DpsConfig::new().host(DPS).id_scope(SCOPE))
        .enroll(Enrollment::group("keys", key.clone()).payload(hello()))
        .enroll(Enrollment::group_with("x509", by_certificate).payload(hello()))
        .authority(authority.clone())
        .storage_host(STORAGE)
        .tls_port(8883)
        .https_port(443)
        .websocket_frame(7);
    let emulator = Emulator::start(config).await.expect("ports 8883 and 443 are free in a new namespace");
    let files = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str, text: &str| {
        let path = files.path().join(name);
        std::fs::write(&path, text).expect("the file is written");
        path
    };
    let ca = write("ca.pem", emulator.ca_pem());
    let setup =
        |id: &str, websockets: bool| json!({"scope": SCOPE, "registration_id": id, "ca": ca, "websockets": websockets});
    let with_key = |id: &str, websockets: bool, gateway: Value| {
        let mut setup = setup(id, websockets);
        setup["key"] = json!(key.derive(id).to_base64());
        setup["gateway"] = gateway;
        setup
    };
    let with_certificate = |id: &str, websockets: bool| {
        let own = authority.device_certificate(id).expect("a certificate");
        let mut setup = setup(id, websockets);
        setup["certificate"] = json!(write(&format!("{id}.pem"), &own.certificate_pem));
        setup["certificate_key"] = json!(write(&format!("{id}-key.pem"), &own.key_pem));
        setup
    };
    join!(
        device(&emulator, "node-key", with_key("node-key", false, Value::Null)),
        device(&emulator, "node-ws", with_key("node-ws", true, Value::Null)),
        device(&emulator, "node-gw", with_key("node-gw", false, json!("localhost"))),
        device(&emulator, "node-x509", with_certificate("node-x509", false)),
        device(&emulator, "node-x509-ws", with_certificate("node-x509-ws", true)),
    );
    emulator.stop().await;
}

async fn device(emulator: &Emulator, id: &str, setup: Value) {
    let mut sdk = Sdk::start(Language::Node, "device.js", &setup).await;
    let provisioned = sdk.step("provisioned").await;
    assert_eq!((&provisioned["status"], &provisioned["hub"]), (&json!("assigned"), &json!(HUB)));
    assert_eq!((&provisioned["device"], &provisioned["payload"]), (&json!(id), &json!({"hello": "device"})));
    let mut registrations = emulator.dps().registrations();
    registrations.retain(|one| one.registration_id == id);
    assert_eq!(registrations.len(), 1, "{registrations:?}");
    assert_eq!(registrations[0].payload, Some(json!({"modelId": MODEL})));
    let device = emulator.hub(HUB).device(id);
    device.set_desired(&json!({"interval": 10})).expect("the device exists");

    sdk.step("connected").await;
    sdk.step("sent").await;
    let messages = emulator.ledger().messages(id);
    let [message] = &messages[..] else { panic!("one message: {messages:?}") };
    assert_eq!((message.message_id.as_deref(), &message.payload[..]), (Some("msg-1"), &b"{\"t\":21.5}"[..]));
    for (name, value) in
        [("$.cid", "c/1"), ("$.ct", "application/json"), ("$.ce", "utf-8"), ("k", ""), ("note", "a b&c=d/é")]
    {
        assert_eq!(message.property(name), Some(value), "{name}");
    }
    assert!(message.acknowledged_at.is_some());

    let twin = sdk.step("twin").await;
    assert_eq!((&twin["desired"], &twin["reported_version"]), (&json!({"interval": 10, "$version": 2}), &json!(1)));
    sdk.step("reported").await;
    let reported = device.twin().expect("the device exists")["reported"].clone();
    assert_eq!(reported, json!({"fw": "1.2.3", "$version": 2}));

    let unheard = device.invoke("reboot", &Value::Null, STEP).await;
    assert!(matches!(unheard, Err(Error::NotListening(_))), "nothing asks for methods yet: {unheard:?}");
    sdk.tell(&json!("listen")).await;
    sdk.step("listening").await;
    let answer = device.invoke("reboot", &json!({"delay": 5}), STEP).await.expect("the SDK answers");
    assert_eq!(answer.status, 200);
    assert_eq!(serde_json::from_slice::<Value>(&answer.payload).expect("JSON"), json!({"ok": true}));
    device.send(&[("$.mid", "m-1"), ("$.cid", "corr/1"), ("note", "a b,d")], b"clouds say hi").expect("room");
    device.set_desired(&json!({"interval": 30})).expect("the device exists");
    let method = sdk.step("method").await;
    assert_eq!((&method["name"], &method["payload"]), (&json!("reboot"), &json!({"delay": 5})));
    let message = sdk.step("message").await;
    assert_eq!((&message["id"], &message["correlation"]), (&json!("m-1"), &json!("corr/1")));
    assert_eq!((&message["properties"]["note"], &message["payload"]), (&json!("a b,d"), &json!("clouds say hi")));
    assert_eq!(sdk.step("desired").await["patch"]["interval"], 30);
    until("the SDK completed the message", || device.waiting().expect("the device exists") == 0).await;

    let stored = sdk.step("uploaded").await;
    assert_eq!((&stored["status"], &stored["blob"]), (&json!(201), &json!(format!("{id}/by hand.txt"))));
    for name in ["log.txt", "by hand.txt"] {
        assert_eq!(emulator.uploaded(id, name).expect("the file is there"), b"lines of a log", "{name}");
    }
    let operations = emulator.ledger().operations_of(id);
    let notified =
        |operation: &&Operation| matches!(operation, Operation::UploadNotified { success: true, status: 204, .. });
    assert_eq!(operations.iter().filter(notified).count(), 2, "{operations:?}");

    sdk.step("calm").await;
    device.inject(Fault::DropAfterStoreBeforePuback);
    sdk.tell(&json!("continue")).await;
    sdk.step("sent again").await;
    sdk.step("renewed").await;
    sdk.step("done").await;
    sdk.ended().await;

    let report = emulator.ledger().check(id, (1..8).map(|number| format!("msg-{number}")));
    assert!(report.is_complete(), "{report}");
    assert_eq!(report.duplicated, [("msg-2".to_owned(), 1)], "only the message whose PUBACK was lost comes twice");
    let connections = emulator.ledger().connections_of(id);
    let hub: Vec<_> = connections.iter().filter(|record| record.service.as_deref() == Some(HUB)).collect();
    let renewals = usize::from(setup.get("key").is_some());
    let carrier = if setup["websockets"] == true { Carrier::WebSocket } else { Carrier::Tls };
    let mqtt: Vec<_> = hub.iter().filter(|record| record.carrier == carrier).collect();
    assert_eq!(mqtt.len(), 2 + renewals, "one, another after the cut, and another with a new token: {mqtt:?}");
    let dialled = setup["gateway"].as_str().unwrap_or(HUB);
    for record in mqtt {
        assert_eq!(record.server_name.as_deref(), Some(dialled));
        assert_eq!(record.model_id.as_deref(), Some(MODEL));
        assert_eq!(record.clean_session, Some(false));
    }
}

async fn modules() {
    let key = Key::from_seed("module");
    let hub = HubConfig::new(HUB)
        .device(LINE, Key::from_seed("device"))
        .device("line-8/keyed", key.clone())
        .device("line-8/socket", key.clone());
    let config = Config::new()
        .hub_with(hub)
        .dps(DpsConfig::new().host(DPS))
        .storage_host(STORAGE)
        .tls_port(8883)
        .https_port(443);
    let emulator = Emulator::start(config).await.expect("ports 8883 and 443 are free in a new namespace");
    let files = tempfile::tempdir().expect("a temporary folder");
    let ca = files.path().join("ca.pem");
    std::fs::write(&ca, emulator.ca_pem()).expect("the file is written");
    // This SDK knows no modules with certificates.
    let setup = |module: &str, websockets: bool| {
        let text = format!("HostName={HUB};DeviceId={LINE};ModuleId={module};SharedAccessKey={}", key.to_base64());
        json!({"ca": ca, "websockets": websockets, "connection_string": text})
    };
    join!(module(&emulator, "keyed", setup("keyed", false)), module(&emulator, "socket", setup("socket", true)),);
    emulator.stop().await;
}

async fn module(emulator: &Emulator, name: &str, setup: Value) {
    let id = format!("{LINE}/{name}");
    let module = emulator.hub(HUB).device(&id);
    let mut sdk = Sdk::start(Language::Node, "module.js", &setup).await;
    sdk.step("connected").await;
    sdk.step("sent").await;
    let messages = emulator.ledger().messages(&id);
    let [plain, alarm] = &messages[..] else { panic!("two messages: {messages:?}") };
    assert_eq!((&plain.payload[..], plain.output()), (&b"plain"[..], None));
    assert_eq!((alarm.output(), alarm.message_id.as_deref()), (Some("alarms"), Some("out-1")));
    assert_eq!((alarm.content_type(), alarm.content_encoding()), (Some("application/json"), Some("utf-8")));

    let twin = sdk.step("twin").await;
    assert_eq!((&twin["desired"], &twin["reported_version"]), (&json!({"$version": 1}), &json!(1)));
    sdk.step("listening").await;
    assert_eq!(module.twin().expect("it exists")["reported"], json!({"filter": {"level": 3}, "$version": 2}));
    let answer = module.invoke("flush", &json!([1, 2]), STEP).await.expect("the SDK answers");
    assert_eq!(answer.status, 201);
    let message = MessageToDevice::new("cold").id("in-1").property("from", "other module");
    module.send_to_input("temperatures", message).expect("the module is connected");
    module.set_desired(&json!({"filter": {"level": 4}})).expect("it exists");
    let method = sdk.step("method").await;
    assert_eq!((&method["name"], &method["payload"]), (&json!("flush"), &json!([1, 2])));
    let input = sdk.step("input").await;
    assert_eq!(
        (&input["input"], &input["id"], &input["payload"]),
        (&json!("temperatures"), &json!("in-1"), &json!("cold"))
    );
    assert_eq!(input["properties"]["from"], "other module");
    assert_eq!(sdk.step("desired").await["patch"]["filter"], json!({"level": 4}));
    sdk.step("done").await;
    sdk.ended().await;
    until("the SDK completed the message to its input", || module.waiting().expect("it exists") == 0).await;
}
