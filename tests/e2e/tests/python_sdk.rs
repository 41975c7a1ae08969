//! The official Python device SDK, unmodified, judges the emulator: what passes here is worth testing against.

use e2e::sdk::{DPS, HUB, Language, STEP, STORAGE, Sdk, inside};
use e2e::until;
use hub_emulator::{Attestation, Authority, Carrier, Config, DpsConfig, Emulator, Enrollment, Fault, Key, Operation};
use serde_json::{Value, json};

const SCOPE: &str = "0ne00JUDGE";

#[tokio::test]
async fn the_official_python_sdk_provisions_sends_reads_its_twin_answers_and_resends() {
    inside(Language::Python, "the_official_python_sdk_provisions_sends_reads_its_twin_answers_and_resends", judge())
        .await;
}

/// Lets the SDK run its session with a symmetric key and with a certificate, over TLS and over WebSockets, and through a
/// gateway name.
async fn judge() {
    let key = Key::from_seed("judge");
    let authority = Authority::new().expect("an authority");
    let hello = || json!({"hello": "device"});
    let config = Config::new()
        .hub(HUB)
        .dps(DpsConfig::new().host(DPS).id_scope(SCOPE))
        .enroll(Enrollment::group("keys", key.clone()).payload(hello()))
        .enroll(
            Enrollment::group_with("x509", Attestation::CertificateAuthority(authority.pem().to_owned()))
                .payload(hello()),
        )
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
    for (id, websockets, gateway) in
        [("judge-key", false, Value::Null), ("judge-ws", true, Value::Null), ("judge-gw", false, json!("localhost"))]
    {
        let key = key.derive(id).to_base64();
        let setup = json!({"scope": SCOPE, "registration_id": id, "ca": ca, "key": key, "websockets": websockets,
            "gateway": gateway});
        session(&emulator, id, &setup).await;
    }
    for (id, websockets) in [("judge-x509", false), ("judge-x509-ws", true)] {
        let own = authority.device_certificate(id).expect("a certificate");
        let setup = json!({
            "scope": SCOPE,
            "registration_id": id,
            "ca": ca,
            "certificate": write("device.pem", &own.certificate_pem),
            "certificate_key": write("device-key.pem", &own.key_pem),
            "websockets": websockets,
            "gateway": null,
        });
        session(&emulator, id, &setup).await;
    }
    emulator.stop().await;
}

async fn session(emulator: &Emulator, id: &str, setup: &Value) {
    let mut sdk = Sdk::start(Language::Python, "judge.py", setup).await;

    let provisioned = sdk.step("provisioned").await;
    assert_eq!((&provisioned["status"], &provisioned["hub"]), (&json!("assigned"), &json!(HUB)));
    assert_eq!((&provisioned["device"], &provisioned["payload"]), (&json!(id), &json!({"hello": "device"})));
    let mut registrations = emulator.dps().registrations();
    registrations.retain(|one| one.registration_id == id);
    assert_eq!(registrations.len(), 1, "{registrations:?}");
    assert_eq!(registrations[0].payload, Some(json!({"modelId": "dtmi:example:Thermostat;1"})));
    let device = emulator.hub(HUB).device(id);
    device.set_desired(&json!({"interval": 10})).expect("the device exists");

    assert_eq!(sdk.step("connected").await["connected"], true);
    sdk.step("sent").await;
    let messages = emulator.ledger().messages(id);
    let [message] = &messages[..] else { panic!("one message: {messages:?}") };
    assert_eq!((message.message_id.as_deref(), &message.payload[..]), (Some("msg-1"), &b"{\"t\": 21.5}"[..]));
    for (name, value) in
        [("$.cid", "c/1"), ("$.ct", "application/json"), ("$.ce", "utf-8"), ("k", ""), ("note", "a b&c=d/é")]
    {
        assert_eq!(message.property(name), Some(value), "{name}");
    }
    assert!(message.acknowledged_at.is_some());

    let twin = sdk.step("twin").await["twin"].clone();
    assert_eq!(twin, json!({"desired": {"interval": 10, "$version": 2}, "reported": {"$version": 1}}));
    sdk.step("reported").await;
    let reported = device.twin().expect("the device exists")["reported"].clone();
    assert_eq!(reported, json!({"fw": "1.2.3", "$version": 2}));

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
    assert_eq!(sdk.step("desired").await["patch"], json!({"interval": 30, "$version": 3}));
    until("the SDK has acknowledged the message", || device.waiting().is_ok_and(|waiting| waiting == 0)).await;

    let stored = sdk.step("uploaded").await;
    assert_eq!((&stored["status"], &stored["blob"]), (&json!(201), &json!(format!("{id}/log.txt"))));
    assert_eq!(emulator.uploaded(id, "log.txt").expect("the file is there"), b"lines of a log");
    let operations = emulator.ledger().operations_of(id);
    let Some(Operation::UploadNotified { success, code, status, .. }) = operations.last() else {
        panic!("the SDK notifies last: {operations:?}")
    };
    assert_eq!((*success, *code, *status), (true, Some(200), 204));

    sdk.step("calm").await;
    device.inject(Fault::DropAfterStoreBeforePuback);
    sdk.tell(&json!("continue")).await;
    sdk.step("sent again").await;
    sdk.step("done").await;
    sdk.ended().await;

    let report = emulator.ledger().check(id, (1..7).map(|number| format!("msg-{number}")));
    assert!(report.is_complete(), "{report}");
    assert_eq!(report.duplicated, [("msg-2".to_owned(), 1)], "only the message whose PUBACK was lost comes twice");
    assert_eq!(emulator.ledger().counts(id).dup_flags, 1, "and it says so");
    let connections = emulator.ledger().connections_of(id);
    assert_eq!(connections.len(), 3, "one at DPS, two at the hub");
    let carrier = if setup["websockets"] == true { Carrier::WebSocket } else { Carrier::Tls };
    let dialled = setup["gateway"].as_str().unwrap_or(HUB);
    for record in &connections[1..] {
        assert_eq!((record.carrier, record.server_name.as_deref()), (carrier, Some(dialled)));
        assert_eq!(record.model_id.as_deref(), Some("dtmi:example:Thermostat;1"));
    }
    assert_eq!(device.model_id().expect("the device exists").as_deref(), Some("dtmi:example:Thermostat;1"));
}
