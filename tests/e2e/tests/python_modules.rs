//! The official Python device SDK, unmodified, as a module: twin, methods, inputs and outputs, with a key, with a
//! certificate, and with what an Edge device gives it, over TLS and over WebSockets.

use e2e::EdgePlace;
use e2e::sdk::{DPS, HUB, Language, STEP, STORAGE, Sdk, inside};
use e2e::until;
use hub_emulator::{Authority, Config, DeviceAuth, DpsConfig, Emulator, HubConfig, Key, MessageToDevice, Operation};
use serde_json::{Value, json};

const DEVICE: &str = "line-7";

#[tokio::test]
async fn the_official_python_sdk_works_as_a_module() {
    inside(Language::Python, "the_official_python_sdk_works_as_a_module", judge()).await;
}

async fn judge() {
    let key = Key::from_seed("module");
    let authority = Authority::new().expect("an authority");
    let own = authority.device_certificate("line-7/x509").expect("a certificate");
    let by_certificate = DeviceAuth::Thumbprint { primary: own.thumbprint.clone(), secondary: None };
    let hub = HubConfig::new(HUB)
        .device(DEVICE, Key::from_seed("device"))
        .device("line-7/keyed", key.clone())
        .device("line-7/socket", key.clone())
        .device("line-7/x509", by_certificate);
    let config = Config::new()
        .hub_with(hub)
        .dps(DpsConfig::new().host(DPS))
        .authority(authority)
        .storage_host(STORAGE)
        .tls_port(8883)
        .https_port(443);
    let emulator = Emulator::start(config).await.expect("ports 8883 and 443 are free in a new namespace");
    let files = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str, text: &str| {
        let path = files.path().join(name);
        std::fs::write(&path, text).expect("the file is written");
        path
    };
    let ca = write("ca.pem", emulator.ca_pem());
    for (module, websockets) in [("keyed", false), ("socket", true)] {
        let key = key.to_base64();
        let text = format!("HostName={HUB};DeviceId={DEVICE};ModuleId={module};SharedAccessKey={key}");
        let setup = json!({"ca": ca, "websockets": websockets, "connection_string": text});
        session(&emulator, module, &setup).await;
    }
    let setup = json!({
        "ca": ca,
        "websockets": false,
        "hub": HUB,
        "device": DEVICE,
        "module": "x509",
        "certificate": write("module.pem", &own.certificate_pem),
        "certificate_key": write("module-key.pem", &own.key_pem),
    });
    session(&emulator, "x509", &setup).await;
    emulator.stop().await;
}

#[tokio::test]
async fn the_official_python_sdk_works_as_a_module_of_an_edge_device() {
    inside(Language::Python, "the_official_python_sdk_works_as_a_module_of_an_edge_device", judge_edge()).await;
}

async fn judge_edge() {
    let modules = [("judged", false), ("socket", true)];
    let place = EdgePlace::start(DEVICE, &modules.map(|(module, _)| module)).await;
    for (module, websockets) in modules {
        let api = place.workload_api(module);
        session(&place.emulator, module, &place.setup(module, websockets, &api)).await;
        EdgePlace::check(module, &api);
    }
    place.stop().await;
}

async fn session(emulator: &Emulator, name: &str, setup: &Value) {
    let id = format!("{DEVICE}/{name}");
    let module = emulator.hub(HUB).device(&id);
    let mut sdk = Sdk::start(Language::Python, "module.py", setup).await;
    assert_eq!(sdk.step("connected").await["connected"], true);
    sdk.step("sent").await;
    let messages = emulator.ledger().messages(&id);
    let [plain, alarm] = &messages[..] else { panic!("two messages: {messages:?}") };
    assert_eq!((&plain.payload[..], plain.output()), (&b"plain"[..], None));
    assert_eq!((alarm.output(), alarm.message_id.as_deref()), (Some("alarms"), Some("out-1")));
    assert_eq!((alarm.content_type(), alarm.content_encoding()), (Some("application/json"), Some("utf-8")));

    let empty = json!({"desired": {"$version": 1}, "reported": {"$version": 1}});
    assert_eq!(sdk.step("twin").await["twin"], empty);
    sdk.step("reported").await;
    assert_eq!(module.twin().expect("it exists")["reported"], json!({"filter": {"level": 3}, "$version": 2}));

    sdk.step("listening").await;
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
    assert_eq!(sdk.step("desired").await["patch"], json!({"filter": {"level": 4}, "$version": 2}));
    if let Some(call) = setup.get("call") {
        assert_eq!(sdk.step("called").await["answer"], call["answer"]);
    }
    sdk.step("done").await;
    sdk.ended().await;
    until("the SDK has acknowledged the message to its input", || module.waiting().is_ok_and(|waiting| waiting == 0))
        .await;
    let completed = |operation: &Operation| matches!(operation, Operation::MessageCompleted { .. });
    assert_eq!(emulator.ledger().operations_of(&id).iter().filter(|operation| completed(operation)).count(), 1);
}
