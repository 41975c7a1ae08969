//! Recordings: a session of the official Python SDK, and published tokens.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test ends where something is not as expected"
)]

mod support;

use std::path::Path;

use hub_emulator::{Config, DpsConfig, Enrollment, Key, percent_encode};
use rumqttc::mqttbytes::v4::{Connect, Login, Packet};
use serde_json::{Value, json};
use support::{Answer, Client, SOON, not_authorized, start};

const HUB: &str = "hub-a.azure-devices.net";
const SCOPE: &str = "0ne00TEST01";
const DEVICE: &str = "dev-1";

fn golden(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../golden").join(name)).unwrap()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn device_key() -> Key {
    Key::from_bytes(b"golden-test-key-not-a-secret-0001")
}

/// Replays the bytes of the recorded client to the emulator, packet by packet, and the recorded actions of the cloud.
#[tokio::test]
async fn the_recorded_python_session_is_served_from_its_first_byte_to_its_last() {
    let lines: Vec<Value> =
        golden("python-sdk-session.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let config = Config::new()
        .hub(HUB)
        .dps(DpsConfig::new().id_scope(SCOPE))
        .enroll(Enrollment::individual(DEVICE, device_key()))
        .plain_port(0);
    let emulator = start(config).await;
    // The tokens of the recording expire in November 2026.
    let recorded_at = 1_795_373_000_i64;
    let now = i64::try_from(emulator.clock().unix()).unwrap();
    emulator.clock().set_offset_seconds(recorded_at - now);
    let plain = emulator.plain_addr().unwrap();
    let mut clients = [Client::plain(plain).await, Client::plain(plain).await];
    let mut operation = (String::new(), String::new());
    let device = emulator.hub(HUB).device(DEVICE);
    let mut call = None;
    for line in &lines {
        let (direction, kind) = (line["dir"].as_str().unwrap(), line["type"].as_str().unwrap());
        let Some(number) = line["c"].as_u64().filter(|_| direction != "TLS") else { continue };
        let client = &mut clients[usize::try_from(number).unwrap() - 1];
        let topic = line["topic"].as_str().unwrap_or_default();
        if direction == "C>S" {
            let mut frame = bytes(line["hex"].as_str().unwrap());
            if topic.contains("get-operationstatus") {
                // The emulator's operation id replaces the recorded one; both sides treat it as opaque.
                let topic = topic.replace(&operation.0, &operation.1);
                client.publish_as(&topic, b" ", u16::try_from(line["pid"].as_u64().unwrap()).unwrap(), false).await;
                continue;
            }
            if topic.starts_with("$iothub/methods/res/") {
                // The call below has another request id.
                let rid = topic.split("$rid=").nth(1).unwrap();
                let ours: String = operation.1.clone();
                let text = String::from_utf8_lossy(&frame).replace(&format!("$rid={rid}"), &format!("$rid={ours}"));
                assert_eq!(rid.len(), ours.len(), "so that the lengths of the packet stay right");
                frame = text.into_bytes();
            }
            client.send_bytes(&frame).await;
            continue;
        }
        if topic.starts_with("$iothub/methods/POST/") {
            let device = device.clone();
            call = Some(tokio::spawn(async move { device.invoke("reboot", &json!({"delay": 5}), SOON).await }));
        } else if topic.starts_with("devices/") {
            let properties = [("$.mid", "m-1"), ("$.cid", "corr/1"), ("iothub-ack", "full"), ("note", "a b,d")];
            device.send(&properties, b"clouds say hi").unwrap();
        } else if topic.starts_with("$iothub/twin/PATCH/properties/desired/") {
            device.set_desired(&json!({"interval": 30})).unwrap();
        }
        let answer = client.packet().await;
        let name = format!("{answer:?}").split(['(', ' ']).next().unwrap().to_uppercase();
        match &answer {
            Packet::Publish(publish) => {
                assert_eq!(kind, "PUBLISH", "{topic}");
                let stem = |topic: &str| topic.split(['?', '%']).next().unwrap().to_owned();
                assert_eq!(stem(&publish.topic), stem(topic));
                let body = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
                if topic.starts_with("$dps/") {
                    let (theirs, ours) = (&line["payload"], String::from_utf8_lossy(&publish.payload).into_owned());
                    let (theirs, ours) = (body(theirs.as_str().unwrap_or_default()), body(&ours));
                    operation =
                        ("4.0123456789abcdef.op-1".to_owned(), ours["operationId"].as_str().unwrap().to_owned());
                    assert_eq!(ours["status"], theirs["status"]);
                    assert_eq!(ours["registrationState"]["assignedHub"], theirs["registrationState"]["assignedHub"]);
                }
                if topic.starts_with("$iothub/methods/POST/") {
                    operation.1 = publish.topic.split("$rid=").nth(1).unwrap().to_owned();
                }
            }
            _ => assert_eq!(name, kind),
        }
        if let (Packet::PubAck(ack), Some(id)) = (&answer, line["pid"].as_u64()) {
            assert_eq!(u64::from(ack.pkid), id);
        }
    }
    let answer = call.unwrap().await.unwrap().unwrap();
    assert_eq!((answer.status, &answer.payload[..]), (200, &b"{\"ok\": true}"[..]));
    let [message] = &emulator.ledger().messages(DEVICE)[..] else { panic!("one message") };
    assert_eq!((message.message_id.as_deref(), message.property("note")), (Some("msg-1"), Some("a b&c=d/é")));
    assert_eq!(device.twin().unwrap()["reported"]["fw"], "1.2.3");
    assert_eq!(emulator.dps().registrations()[0].payload, Some(json!({"modelId": "dtmi:example:Thermostat;1"})));
    for client in &mut clients {
        client.closed().await;
    }
}

#[tokio::test]
async fn every_published_token_is_accepted_and_every_wrong_one_is_refused() {
    let vectors: Value = serde_json::from_str(&golden("sas-vectors.json")).unwrap();
    let mut tokens = 0;
    for vector in vectors["vectors"].as_array().unwrap() {
        let text = |name: &str| vector[name].as_str().unwrap_or_default();
        let (name, resource, expected) = (text("name"), text("resource"), text("expected_token_or_signature"));
        let expiry = vector["expiry"].as_u64().unwrap_or_default();
        match text("kind") {
            "token" | "token-mismatch" => {
                let key = Key::from_base64(text("key_base64")).unwrap();
                let mismatch = text("kind") == "token-mismatch";
                let password = if mismatch {
                    let encoded = percent_encode(resource);
                    format!("SharedAccessSignature sr={encoded}&sig={expected}&se={expiry}&skn=registration")
                } else {
                    expected.to_owned()
                };
                if !password.contains("%2f") && !mismatch {
                    assert_eq!(key.token(resource, expiry, vector["skn"].as_str()), expected, "{name}");
                }
                assert_eq!(accepts(resource, &key, &password, expiry - 100).await, !mismatch, "{name}");
                assert!(!accepts(resource, &key, &password, expiry + 1_000).await, "{name} is over");
                assert!(!accepts(resource, &Key::from_seed("other"), &password, expiry - 100).await, "{name}");
                tokens += 1;
            }
            "derived-key" => {
                let key = Key::from_base64(text("key_base64")).unwrap();
                assert_eq!(key.derive(resource).to_base64(), expected, "{name}");
            }
            "hmac" => {
                let key = Key::from_base64(text("key_base64")).unwrap();
                assert_eq!(Key::from_bytes(&key.sign(resource.as_bytes())).to_base64(), expected, "{name}");
            }
            "signature" => match Key::from_base64(text("key_base64")) {
                Ok(key) => {
                    let signature = key.sign(format!("{resource}\n{expiry}").as_bytes());
                    assert_eq!(Key::from_bytes(&signature).to_base64(), expected, "{name}");
                }
                Err(_) => assert!(name.contains("unpadded"), "{name}"),
            },
            "invalid-key" => assert!(Key::from_base64(text("key_base64")).is_err(), "{name}"),
            "string-to-sign" => {
                assert_eq!(format!("{}\n{expiry}", percent_encode(resource)), expected, "{name}");
            }
            "token-format" => {
                let shape = Key::from_seed("any").token(resource, expiry, None);
                let fields = |token: &str| {
                    let fields = token.split(['?', '&', ' ']).filter_map(|field| field.split_once('='));
                    fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect::<Vec<_>>()
                };
                let (ours, theirs) = (fields(&shape), fields(expected));
                assert_eq!((&ours[0], &ours[2], &ours[1].0), (&theirs[0], &theirs[2], &theirs[1].0), "{name}");
            }
            kind => panic!("unknown kind {kind} of {name}"),
        }
    }
    assert!(tokens >= 8, "{tokens} tokens");
}

/// Returns whether `password` is accepted for `resource` at the Unix time `at`.
async fn accepts(resource: &str, key: &Key, password: &str, at: u64) -> bool {
    let (host, rest) = resource.split_once('/').unwrap();
    let id = rest.trim_start_matches("devices/").trim_start_matches("registrations/").replace("/modules/", "/");
    let is_dps = rest.starts_with("registrations/");
    let config = if is_dps {
        let dps = DpsConfig::new().id_scope(host);
        Config::new().hub("hub-a").dps(dps).enroll(Enrollment::individual(&id, key.clone()))
    } else {
        Config::new().hub_with(hub_emulator::HubConfig::new(host).device(&id, key.clone()))
    };
    let emulator = start(config.plain_port(0)).await;
    let now = emulator.clock().unix();
    let offset = i64::try_from(at).unwrap() - i64::try_from(now).unwrap();
    emulator.clock().set_offset_seconds(offset);
    let user_name = if is_dps { format!("{resource}/api-version=2019-03-31") } else { support::user_name(host, &id) };
    let mut connect = Connect::new(id.as_str());
    connect.login = Some(Login::new(user_name, password));
    let mut client = Client::plain(emulator.plain_addr().unwrap()).await;
    let answer = client.connect_with(connect).await;
    emulator.stop().await;
    let opened = matches!(&answer, Answer::Packet(Packet::ConnAck(ack)) if ack.code as u8 == 0);
    assert!(opened || answer == not_authorized(), "{answer:?}");
    opened
}
