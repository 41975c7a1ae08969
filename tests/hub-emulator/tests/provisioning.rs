//! DPS: registering, polling, assignments and their faults.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test ends where something is not as expected"
)]

mod support;

use std::time::Duration;

use hub_emulator::{
    Attestation, Config, DpsConfig, DpsFault, DpsRefusal, Emulator, Enrollment, Injection, Key, Outcome, Refusal,
    Reprovision,
};
use rumqttc::mqttbytes::v4::{Connect, Login, Packet};
use serde_json::{Value, json};
use support::{Answer, Client, HUB, LATER, not_authorized, start};

const SCOPE: &str = "0ne00TEST01";
const HUB_B: &str = "hub-b.azure-devices.net";

fn group() -> Key {
    Key::from_seed("group")
}

fn config() -> Config {
    config_with(DpsConfig::new().polls_per_ten_seconds(50))
}

fn config_with(dps: DpsConfig) -> Config {
    let dps = dps.id_scope(SCOPE).retry_after(3);
    Config::new().hub(HUB).hub(HUB_B).dps(dps).enroll(Enrollment::group("g", group()).hub(HUB)).plain_port(0)
}

fn connect(id: &str, key: &Key) -> Connect {
    let mut connect = Connect::new(id);
    connect.login = Some(Login::new(
        format!("{SCOPE}/registrations/{id}/api-version=2019-03-31&ClientVersion=x"),
        key.token(&format!("{SCOPE}/registrations/{id}"), LATER, Some("registration")),
    ));
    connect
}

/// A device at DPS, connected and subscribed.
struct AtDps {
    client: Client,
    request: u32,
}

impl AtDps {
    async fn new(emulator: &Emulator, id: &str) -> Self {
        let (mut client, _) = Client::connected(emulator, connect(id, &group().derive(id))).await;
        client.subscribed("$dps/registrations/res/#").await;
        Self { client, request: 0 }
    }

    /// Sends a request and returns the topic and body of the response.
    async fn ask(&mut self, topic: &str, body: &str) -> (String, Vec<u8>) {
        let id = self.client.publish(topic, body.as_bytes()).await;
        self.client.acknowledged(id).await;
        let answer = self.client.publish_packet().await;
        (answer.topic, answer.payload.to_vec())
    }

    async fn register(&mut self) -> (String, Value) {
        self.request += 1;
        let topic = format!("$dps/registrations/PUT/iotdps-register/?$rid={}", self.request);
        let (topic, body) = self.ask(&topic, "{\"payload\":{\"modelId\":\"dtmi:a;1\"}}").await;
        (topic, serde_json::from_slice(&body).unwrap())
    }

    async fn poll(&mut self, operation: &str) -> (String, Value) {
        self.request += 1;
        let rid = self.request;
        let topic = format!("$dps/registrations/GET/iotdps-get-operationstatus/?$rid={rid}&operationId={operation}");
        let (topic, body) = self.ask(&topic, " ").await;
        (topic, serde_json::from_slice(&body).unwrap())
    }

    /// Registers and polls to the end.
    async fn finish(&mut self) -> Value {
        let (_, body) = self.register().await;
        let operation = body["operationId"].as_str().unwrap().to_owned();
        for _ in 0..4 {
            let (_, body) = self.poll(&operation).await;
            if body["status"] != "assigning" {
                return body;
            }
        }
        panic!("still assigning");
    }
}

#[tokio::test]
async fn a_device_of_a_group_is_assigned_after_polls_and_may_connect_with_the_same_key() {
    let emulator = start(config_with(DpsConfig::new().assigning_polls(2))).await;
    let mut device = AtDps::new(&emulator, "pump-7").await;
    let (topic, body) = device.register().await;
    assert_eq!(topic, "$dps/registrations/res/202/?$rid=1&retry-after=3");
    assert_eq!(body["status"], "assigning");
    let operation = body["operationId"].as_str().unwrap().to_owned();
    for rid in 2..4 {
        let (topic, body) = device.poll(&operation).await;
        assert_eq!(topic, format!("$dps/registrations/res/202/?$rid={rid}&retry-after=3"));
        assert_eq!(body["registrationState"]["status"], "assigning");
    }
    let (topic, body) = device.poll(&operation).await;
    assert_eq!(topic, "$dps/registrations/res/200/?$rid=4");
    let state = &body["registrationState"];
    assert_eq!((&body["status"], &state["status"]), (&json!("assigned"), &json!("assigned")));
    assert_eq!((&state["assignedHub"], &state["deviceId"]), (&json!(HUB), &json!("pump-7")));
    assert_eq!(state["substatus"], "initialAssignment");
    Client::connected(&emulator, support::connect_for(HUB, "pump-7", &group().derive("pump-7"))).await;
    let registrations = emulator.dps().registrations();
    assert_eq!(registrations[0].payload, Some(json!({"modelId": "dtmi:a;1"})));
    assert_eq!(emulator.dps().registration_count("pump-7"), 1);
}

#[tokio::test]
async fn an_individual_enrollment_has_its_own_device_id_payload_and_profile() {
    let key = Key::from_seed("one");
    let enrollment = Enrollment::individual("reg-1", key.clone())
        .device_id("other")
        .hub(HUB_B)
        .payload(json!({"a": 1}))
        .connection_profile("classic")
        .initial_desired(json!({"interval": 10}));
    let emulator = start(config().enroll(enrollment)).await;
    let (mut client, _) = Client::connected(&emulator, connect("reg-1", &key)).await;
    client.subscribed("$dps/registrations/res/#").await;
    let state = AtDps { client, request: 0 }.finish().await["registrationState"].clone();
    assert_eq!((&state["assignedHub"], &state["deviceId"]), (&json!(HUB_B), &json!("other")));
    assert_eq!((&state["payload"], &state["connectionProfile"]), (&json!({"a": 1}), &json!("classic")));
    assert_eq!(emulator.hub("hub-b").device("other").twin().unwrap()["desired"]["interval"], 10);
}

#[tokio::test]
async fn wrong_keys_and_scopes_are_refused_with_5_and_unknown_devices_with_404() {
    let individual = Enrollment::individual("known", Key::from_seed("k"));
    let emulator = start(config().enroll(individual)).await;
    let mut wrong_scope = connect("known", &Key::from_seed("k"));
    wrong_scope.login.as_mut().unwrap().username = "0ne00X/registrations/known/api-version=2019-03-31".to_owned();
    for connect in [wrong_scope, connect("known", &Key::from_seed("x"))] {
        let mut client = Client::plain(emulator.plain_addr().unwrap()).await;
        assert_eq!(client.connect_with(connect).await, not_authorized());
    }
    let empty = Config::new().hub(HUB).dps(DpsConfig::new().id_scope(SCOPE)).plain_port(0);
    let emulator = start(empty).await;
    let (topic, body) = AtDps::new(&emulator, "nobody").await.register().await;
    assert_eq!(topic, "$dps/registrations/res/404/?$rid=1");
    for member in ["errorCode", "trackingId", "message", "timestampUtc"] {
        assert!(!body[member].is_null(), "{member} in {body}");
    }
}

#[tokio::test]
async fn bad_credentials_may_be_refused_by_the_answer_to_the_registration() {
    let emulator = start(config_with(DpsConfig::new().refusal(DpsRefusal::Register))).await;
    let (mut client, _) = Client::connected(&emulator, connect("a", &Key::from_seed("wrong"))).await;
    client.subscribed("$dps/registrations/res/#").await;
    let (topic, body) = AtDps { client, request: 0 }.register().await;
    assert_eq!(topic, "$dps/registrations/res/401/?$rid=1");
    assert_eq!(body["errorCode"], 401_002);
}

#[tokio::test]
async fn a_device_with_a_certificate_of_the_ca_registers_and_connects() {
    let authority = hub_emulator::Authority::new().unwrap();
    let enrollment = Enrollment::group_with("x509", Attestation::CertificateAuthority(authority.pem().to_owned()));
    let emulator = start(config().enroll(enrollment)).await;
    let certificate = authority.device_certificate("cam-1").unwrap();
    let identity = Some((certificate.certificate_pem.as_str(), certificate.key_pem.as_str()));
    let name = "global.azure-devices-provisioning.net";
    let dial = |name: &'static str| Client::tls(emulator.tls_addr(), emulator.ca_pem(), name, identity);
    let mut client = dial(name).await.unwrap();
    let mut connect = Connect::new("cam-1");
    let user_name = format!("{SCOPE}/registrations/cam-1/api-version=2019-03-31");
    connect.login = Some(Login::new(user_name, ""));
    client.accepted(connect).await;
    client.subscribed("$dps/registrations/res/#").await;
    let body = AtDps { client, request: 0 }.finish().await;
    assert_eq!(body["status"], "assigned", "{body}");
    let mut connect = Connect::new("cam-1");
    connect.login = Some(Login::new(support::user_name(HUB, "cam-1"), ""));
    dial(HUB).await.unwrap().accepted(connect.clone()).await;
    let mut without = Client::tls(emulator.tls_addr(), emulator.ca_pem(), HUB, None).await.unwrap();
    assert_eq!(without.connect_with(connect).await, not_authorized());
    let outcome = emulator.ledger().connections().last().unwrap().outcome;
    assert_eq!(outcome, Outcome::Refused { code: 5, why: Refusal::BadCertificate });
}

#[tokio::test]
async fn faults_of_requests_strike_as_often_as_asked() {
    let emulator = start(config()).await;
    let dps = emulator.dps();
    dps.inject(Injection::times(DpsFault::Throttled { retry_after: Some(7) }, 2));
    dps.inject(DpsFault::Throttled { retry_after: None });
    dps.inject(DpsFault::Status { status: 503 });
    dps.inject_for("elsewhere", DpsFault::Status { status: 500 });
    let mut device = AtDps::new(&emulator, "a").await;
    let mut topics = Vec::new();
    for _ in 0..5 {
        topics.push(device.register().await.0);
    }
    let wanted = [
        "429/?$rid=1&retry-after=7",
        "429/?$rid=2&retry-after=7",
        "429/?$rid=3",
        "503/?$rid=4",
        "202/?$rid=5&retry-after=3",
    ];
    assert_eq!(topics, wanted.map(|topic| format!("$dps/registrations/res/{topic}")));
    let statuses: Vec<_> = dps.registrations().iter().map(|one| one.status).collect();
    assert_eq!(statuses, [429, 429, 429, 503, 202].map(Some));
}

#[tokio::test]
async fn answers_may_be_garbage_late_missing_or_for_another_request() {
    let emulator = start(config()).await;
    let dps = emulator.dps();
    let mut device = AtDps::new(&emulator, "a").await;
    dps.inject(DpsFault::GarbageBody);
    let (_, body) = device.ask("$dps/registrations/PUT/iotdps-register/?$rid=1", "{}").await;
    assert!(serde_json::from_slice::<Value>(&body).is_err());
    dps.inject(DpsFault::WrongRequestId);
    let (topic, _) = device.ask("$dps/registrations/PUT/iotdps-register/?$rid=2", "{}").await;
    assert!(!topic.contains("$rid=2"), "{topic}");
    dps.inject(DpsFault::Slow { delay: Duration::from_millis(300) });
    let before = std::time::Instant::now();
    device.register().await;
    assert!(before.elapsed() >= Duration::from_millis(300));
    dps.inject(DpsFault::Silent);
    let id = device.client.publish("$dps/registrations/PUT/iotdps-register/?$rid=9", b"").await;
    device.client.acknowledged(id).await;
    device.client.silent().await;
}

#[tokio::test]
async fn a_registration_may_end_in_every_documented_state() {
    let cases = [
        (DpsFault::Failed { code: 400_207 }, "failed"),
        (DpsFault::Disabled, "disabled"),
        (DpsFault::Unassigned, "unassigned"),
    ];
    let emulator = start(config()).await;
    for (fault, status) in cases {
        emulator.dps().inject(fault);
        let body = AtDps::new(&emulator, status).await.finish().await;
        assert_eq!((&body["status"], &body["registrationState"]["status"]), (&json!(status), &json!(status)));
    }
    emulator.dps().inject(DpsFault::NoAssignedHub);
    let body = AtDps::new(&emulator, "b").await.finish().await;
    assert_eq!((&body["status"], &body["registrationState"]["assignedHub"]), (&json!("assigned"), &Value::Null));
    emulator.dps().inject(DpsFault::AssignedHub { name: "evil.com".to_owned() });
    let body = AtDps::new(&emulator, "c").await.finish().await;
    assert_eq!(body["registrationState"]["assignedHub"], "evil.com");
    emulator.dps().set_enabled("g", false).unwrap();
    assert_eq!(AtDps::new(&emulator, "d").await.finish().await["status"], "disabled");
}

#[tokio::test]
async fn registrations_and_polls_beyond_the_limits_get_429() {
    let emulator = start(config_with(DpsConfig::new().registers_per_minute(2).polls_per_ten_seconds(3))).await;
    let mut device = AtDps::new(&emulator, "a").await;
    device.register().await;
    device.register().await;
    let (topic, _) = device.register().await;
    assert!(topic.starts_with("$dps/registrations/res/429/?$rid=3&retry-after=6"), "{topic}");
    let mut topics = Vec::new();
    for _ in 0..4 {
        topics.push(device.poll("unknown").await.0);
    }
    assert!(topics[..3].iter().all(|topic| topic.contains("/404/")), "{topics:?}");
    assert!(topics[3].contains("/429/"), "{topics:?}");
}

#[tokio::test]
async fn a_moved_device_is_disconnected_and_refused_and_finds_its_twin_at_the_new_hub() {
    let emulator = start(config()).await;
    let derived = group().derive("a");
    AtDps::new(&emulator, "a").await.finish().await;
    emulator.hub(HUB).device("a").set_desired(&json!({"interval": 30})).unwrap();
    let (mut client, _) = Client::connected(&emulator, support::connect_for(HUB, "a", &derived)).await;
    emulator.move_device("a", "hub-a", "hub-b").unwrap();
    client.closed().await;
    let mut client = Client::plain(emulator.plain_addr().unwrap()).await;
    assert_eq!(client.connect_with(support::connect_for(HUB, "a", &derived)).await, not_authorized());
    let state = AtDps::new(&emulator, "a").await.finish().await["registrationState"].clone();
    assert_eq!((&state["assignedHub"], &state["substatus"]), (&json!(HUB_B), &json!("deviceDataMigrated")));
    let (mut client, present) = Client::connected(&emulator, support::connect_for(HUB_B, "a", &derived)).await;
    assert!(!present);
    client.send(Packet::PingReq).await;
    assert_eq!(client.packet().await, Packet::PingResp);
    assert_eq!(emulator.hub("hub-b").device("a").twin().unwrap()["desired"]["interval"], 30);
    AtDps::new(&emulator, "b").await.finish().await;
    assert_eq!(emulator.hub("hub-a").devices().unwrap(), ["b"]);
}

#[tokio::test]
async fn all_devices_of_a_hub_move_and_a_repointed_enrollment_moves_on_registering() {
    let emulator = start(config()).await;
    for id in ["a", "b"] {
        AtDps::new(&emulator, id).await.finish().await;
    }
    emulator.move_all(HUB, HUB_B).unwrap();
    assert!(emulator.hub(HUB).devices().unwrap().is_empty());
    let state = AtDps::new(&emulator, "a").await.finish().await["registrationState"].clone();
    assert_eq!(state["assignedHub"], HUB_B);
    emulator.dps().repoint("g", HUB).unwrap();
    assert!(emulator.hub(HUB_B).device("a").exists());
    let state = AtDps::new(&emulator, "a").await.finish().await["registrationState"].clone();
    assert_eq!(state["assignedHub"], HUB);
    assert!(!emulator.hub(HUB_B).device("a").exists());
}

#[tokio::test]
async fn a_service_that_never_reprovisions_keeps_the_first_hub() {
    let emulator = start(config_with(DpsConfig::new().reprovision(Reprovision::Never))).await;
    AtDps::new(&emulator, "a").await.finish().await;
    emulator.dps().repoint("g", HUB_B).unwrap();
    let state = AtDps::new(&emulator, "a").await.finish().await["registrationState"].clone();
    assert_eq!(state["assignedHub"], HUB);
}

#[tokio::test]
async fn undocumented_topics_at_dps_close_the_connection() {
    let emulator = start(config()).await;
    let mut device = AtDps::new(&emulator, "a").await;
    device.client.publish("devices/a/messages/events/", b"x").await;
    device.client.closed().await;
    let mut device = AtDps::new(&emulator, "a").await;
    assert_eq!(device.client.subscribe("#").await, Answer::Closed);
}

#[tokio::test]
async fn dps_that_is_down_refuses_tcp_on_its_own_port_or_accepts_and_closes() {
    let emulator = start(config().dps(DpsConfig::new().port(0))).await;
    let address = emulator.dps().addr();
    let refused = || std::net::TcpStream::connect(address).is_err();
    emulator.dps().down();
    support::eventually("TCP is refused", refused).await;
    emulator.dps().close_what_comes();
    support::eventually("TCP is accepted", || !refused()).await;
    let name = emulator.dps().host();
    assert!(Client::tls(address, emulator.ca_pem(), &name, None).await.is_err(), "closed before TLS");
    emulator.dps().up();
    Client::tls(address, emulator.ca_pem(), &name, None).await.unwrap();
    emulator.set_listening(false);
    let shared = emulator.tls_addr();
    support::eventually("the shared port refuses", || std::net::TcpStream::connect(shared).is_err()).await;
    emulator.set_listening(true);
    support::eventually("and accepts again", || std::net::TcpStream::connect(shared).is_ok()).await;
}
