//! One script for the official Python SDK and for this one: what the cloud sees of both has to agree, message by message.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails where it is, and tells what it compares"
)]

use std::time::Duration;

use e2e::sdk::{DPS, HUB, Language, STEP, STORAGE, Sdk, inside};
use hub_emulator::{Config, DeviceHandle, DpsConfig, Emulator, Enrollment, Fault, Key, Operation};
use serde_json::{Value, json};
use steadfast::{Desired, Device, Dps, MethodAnswer, Methods, Subscriptions, Telemetry, Tls, UploadSource};
use tokio::time::timeout;

const SCOPE: &str = "0ne00PARITY";
const MODEL: &str = "dtmi:example:Thermostat;1";

#[tokio::test]
async fn the_cloud_sees_the_same_of_both() {
    inside(Language::Python, "the_cloud_sees_the_same_of_both", compare()).await;
}

async fn compare() {
    let key = Key::from_seed("parity");
    let config = Config::new()
        .hub(HUB)
        .dps(DpsConfig::new().host(DPS).id_scope(SCOPE))
        .enroll(Enrollment::group("keys", key.clone()).payload(json!({"hello": "device"})))
        .storage_host(STORAGE)
        .tls_port(8883)
        .https_port(443);
    let emulator = Emulator::start(config).await.unwrap();
    let files = tempfile::tempdir().unwrap();
    let ca = files.path().join("ca.pem");
    std::fs::write(&ca, emulator.ca_pem()).unwrap();
    let theirs = "parity-theirs";
    let setup = json!({"scope": SCOPE, "registration_id": theirs, "ca": ca, "key": key.derive(theirs).to_base64(),
        "websockets": false, "gateway": null});
    python(&emulator, theirs, &setup).await;
    let ours = "parity-ours";
    steadfast(&emulator, ours, &key.derive(ours).to_base64()).await;
    let (theirs, ours) = (seen(&emulator, theirs), seen(&emulator, ours));
    // Seven messages, one of them twice; a report, an answer, a completion, an upload; the twin and the model.
    assert!(ours.len() >= 13, "{ours:#?}");
    assert_eq!(theirs.len(), ours.len(), "{theirs:#?}\n{ours:#?}");
    for (theirs, ours) in theirs.iter().zip(&ours) {
        assert_eq!(theirs, ours);
    }
    emulator.stop().await;
}

/// What the cloud side does while the device listens.
async fn act(device: &DeviceHandle) {
    let answer = device.invoke("reboot", &json!({"delay": 5}), STEP).await.unwrap();
    assert_eq!((answer.status, serde_json::from_slice::<Value>(&answer.payload).unwrap()), (200, json!({"ok": true})));
    device.send(&[("$.mid", "m-1"), ("$.cid", "corr/1"), ("note", "a b,d")], b"clouds say hi").unwrap();
    device.set_desired(&json!({"interval": 30})).unwrap();
}

async fn python(emulator: &Emulator, id: &str, setup: &Value) {
    let mut sdk = Sdk::start(Language::Python, "judge.py", setup).await;
    sdk.step("provisioned").await;
    let device = emulator.hub(HUB).device(id);
    device.set_desired(&json!({"interval": 10})).unwrap();
    for step in ["connected", "sent", "twin", "reported", "listening"] {
        sdk.step(step).await;
    }
    act(&device).await;
    for step in ["method", "message", "desired", "uploaded", "calm"] {
        sdk.step(step).await;
    }
    device.inject(Fault::DropAfterStoreBeforePuback);
    sdk.tell(&json!("continue")).await;
    sdk.step("sent again").await;
    sdk.step("done").await;
    sdk.ended().await;
}

/// The same as `python/judge.py` does, with this SDK.
async fn steadfast(emulator: &Emulator, id: &str, key: &str) {
    let (device, driver) = Device::builder()
        .provision_with(Dps::new(SCOPE, id))
        .shared_key(key)
        .model_id(MODEL)
        .tls(Tls::without_system_roots().and_pem(emulator.ca_pem()))
        .subscriptions(Subscriptions::ALL)
        .window(1)
        .build()
        .unwrap();
    let driver = tokio::spawn(driver);
    let cloud = emulator.hub(HUB).device(id);
    let reading = Telemetry::json(r#"{"t": 21.5}"#);
    let reading = reading.message_id("msg-1").unwrap().correlation_id("c/1").unwrap();
    let reading = reading.property("k", "").unwrap().property("note", "a b&c=d/é").unwrap();
    deliver(&device, &reading).await;
    cloud.set_desired(&json!({"interval": 10})).unwrap();

    let mut changes = device.twin().desired();
    let twin = timeout(STEP, device.twin().get()).await.unwrap().unwrap();
    assert_eq!(serde_json::from_str::<Value>(&twin.desired).unwrap(), json!({"interval": 10, "$version": 2}));
    let report = device.twin().report(r#"{"fw": "1.2.3", "gone": null}"#).unwrap();
    timeout(STEP, report.accepted()).await.unwrap().unwrap();
    let answering = device.clone();
    tokio::spawn(async move {
        let methods = Methods::new().on("reboot", |_| async { MethodAnswer::ok(r#"{"ok": true}"#) });
        methods.serve(&answering).await;
    });
    act(&cloud).await;
    let message = timeout(STEP, device.messages().next()).await.unwrap().unwrap();
    assert_eq!((message.message_id().as_deref(), message.payload()), (Some("m-1"), &b"clouds say hi"[..]));
    assert!(message.acknowledge());
    loop {
        let desired = timeout(STEP, changes.next()).await.unwrap().unwrap();
        if let Desired::Patch { patch, version: 3 } = desired {
            assert_eq!(serde_json::from_str::<Value>(&patch).unwrap(), json!({"interval": 30, "$version": 3}));
            break;
        }
    }
    let upload = device.upload("log.txt", UploadSource::bytes(b"lines of a log".to_vec()));
    timeout(STEP, upload.into_future()).await.unwrap().unwrap();

    cloud.inject(Fault::DropAfterStoreBeforePuback);
    for number in 2..7 {
        let message = Telemetry::new(number.to_string()).message_id(&format!("msg-{number}")).unwrap();
        deliver(&device, &message).await;
    }
    device.stop(Duration::from_secs(5)).await;
    timeout(STEP, driver).await.unwrap().unwrap();
}

async fn deliver(device: &Device, message: &Telemetry) {
    let receipt = device.send(message).await.unwrap();
    timeout(STEP, receipt).await.unwrap().unwrap();
}

/// What the cloud has of a device: every message as it was stored, the answers, the completions, the file, the twin.
fn seen(emulator: &Emulator, id: &str) -> Vec<Value> {
    let ledger = emulator.ledger();
    let mut all = Vec::new();
    for message in ledger.messages(id) {
        let mut properties = message.properties.clone();
        properties.sort();
        let body = String::from_utf8_lossy(&message.payload).into_owned();
        all.push(json!({"message": message.message_id, "body": body, "properties": properties, "dup": message.dup}));
    }
    for operation in ledger.operations_of(id) {
        match operation {
            Operation::TwinReported { status, version } => all.push(json!({"reported": status, "version": version})),
            Operation::MethodAnswered { status, .. } => all.push(json!({"answered": status})),
            Operation::MessageCompleted { message_id, .. } => all.push(json!({"completed": message_id})),
            Operation::UploadNotified { success, status, .. } => {
                all.push(json!({"uploaded": success, "status": status}))
            }
            _ => {}
        }
    }
    let device = emulator.hub(HUB).device(id);
    all.push(device.twin().unwrap());
    all.push(
        json!({"model": device.model_id().unwrap(), "file": emulator.uploaded(id, "log.txt").map(|file| file.len())}),
    );
    all
}
