//! The control API and the program.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test ends where something is not as expected"
)]

mod support;

use std::process::Stdio;
use std::time::Duration;

use hub_emulator::{CONTROL_ROUTES, Emulator, serve_control};
use rumqttc::mqttbytes::v4::{Connect, Login, Packet};
use serde_json::{Value, json};
use support::{Client, DEVICE, HUB, SOON, config, not_authorized, start};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;

struct Curl {
    address: std::net::SocketAddr,
}

impl Curl {
    async fn new(emulator: &Emulator) -> Self {
        Self { address: serve_control(emulator.control(), 0).await.unwrap() }
    }

    async fn raw(&self, request: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(SOON, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    async fn ask(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let length = body.len();
        let (status, body) =
            self.raw(&format!("{method} {path} HTTP/1.1\r\nContent-Length: {length}\r\n\r\n{body}")).await;
        (status, serde_json::from_str(&body).unwrap_or(Value::String(body)))
    }

    async fn done(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, answer) = self.ask(method, path, body).await;
        assert_eq!(status, 200, "{method} {path}: {answer}");
        answer
    }
}

#[tokio::test]
async fn numbers_of_any_size_are_taken_or_refused_and_end_nothing() {
    let emulator = start(config()).await;
    let curl = Curl::new(&emulator).await;
    let device = "/hubs/hub-a/devices/pump-7";
    let members = [
        ("/hubs/hub-a/fail-over".to_owned(), "seconds"),
        (format!("{device}/messages"), "expires_ms"),
        (format!("{device}/methods/m"), "timeout_ms"),
        (format!("{device}/methods/m"), "connect_timeout_ms"),
        ("/clock".to_owned(), "advance_seconds"),
        ("/clock".to_owned(), "offset_seconds"),
    ];
    let numbers = ["0", "-1", "1.5", "1e300", "9223372036854775807", "18446744073709551615", "18446744073709551616"];
    for (path, member) in &members {
        for number in numbers {
            let body = format!("{{\"body\":\"x\",\"{member}\":{number}}}");
            let body = if path == "/clock" { format!("{{\"{member}\":{number}}}") } else { body };
            let length = body.len();
            let request = format!("POST {path} HTTP/1.1\r\nContent-Length: {length}\r\n\r\n{body}");
            let (status, answer) = curl.raw(&request).await;
            assert!((200..600).contains(&status) && status != 500, "{path} {body}: {status} {answer}");
        }
        curl.done("POST", "/clock", json!({"offset_seconds": 0})).await;
    }
    for kind in ["delay-connack", "delay-pubacks"] {
        let fault = json!({"fault": {"kind": kind, "delay_ms": u64::MAX}, "hub": "hub-a"});
        assert_eq!(curl.ask("POST", "/faults", fault).await.0, 400, "{kind}");
    }
    let endless = json!({"seconds": u64::MAX});
    assert_eq!(curl.ask("POST", "/hubs/hub-a/fail-over", endless).await.0, 400);
    curl.done("POST", "/hubs/hub-a/up", Value::Null).await;
    assert_eq!(curl.ask("GET", "/connections", Value::Null).await.0, 200);
}

#[tokio::test]
async fn a_device_is_registered_faulted_and_read_by_http() {
    let emulator = start(config().hub("hub-b")).await;
    let curl = Curl::new(&emulator).await;
    let answer = curl.done("POST", "/hubs/hub-a/devices", json!({"id": "d2", "key": "AAAA"})).await;
    assert_eq!(answer["connectionString"], format!("HostName={HUB};DeviceId=d2;SharedAccessKey=AAAA"));
    let answer = curl.done("POST", "/hubs/hub-a/devices", json!({"id": "d3"})).await;
    assert!(answer["connectionString"].as_str().unwrap().len() > 80, "{answer}");
    let fault = json!({"fault": {"kind": "refuse-connect", "code": 5}, "hub": "hub-a", "device": DEVICE});
    curl.done("POST", "/faults", fault).await;
    assert_eq!(curl.done("GET", "/faults", Value::Null).await["faults"][0]["fault"]["code"], 5);
    let mut client = Client::plain(emulator.plain_addr().unwrap()).await;
    assert_eq!(client.connect_with(support::connect_packet()).await, not_authorized());
    let mut client = Client::device(&emulator).await;
    client.publish("devices/dev-1/messages/events/%24.mid=a&seq=0", b"{\"t\":1}").await;
    assert!(matches!(client.packet().await, Packet::PubAck(_)));
    let messages = curl.done("GET", "/messages?device=dev-1", Value::Null).await;
    assert_eq!((&messages[0]["message_id"], &messages[0]["body"]), (&json!("a"), &json!({"t": 1})));
    let check = curl.done("GET", "/check?device=dev-1&first=0&end=2", Value::Null).await;
    assert_eq!((&check["complete"], &check["report"]["lost_count"]), (&json!(false), &json!(1)));
    assert_eq!(curl.done("GET", "/connections", Value::Null).await.as_array().unwrap().len(), 2);
    let status = curl.done("GET", "/status", Value::Null).await;
    assert_eq!((&status["hubs"][HUB]["connected"], &status["telemetry"]["distinct"]), (&json!(1), &json!(1)));
    curl.done("POST", "/hubs/hub-a/down", Value::Null).await;
    client.closed().await;
    curl.done("POST", "/hubs/hub-a/up", Value::Null).await;
    let clock = curl.done("POST", "/clock", json!({"offset_seconds": -3600})).await;
    assert_eq!(emulator.clock().offset_seconds(), -3600, "{clock}");
}

#[tokio::test]
async fn the_twin_methods_and_messages_work_by_http() {
    let emulator = start(config()).await;
    let curl = Curl::new(&emulator).await;
    let path = |rest: &str| format!("/hubs/hub-a/devices/{DEVICE}{rest}");
    let mut client = Client::device(&emulator).await;
    client.subscribed("$iothub/methods/POST/#").await;
    client.subscribed("devices/dev-1/messages/devicebound/#").await;
    assert_eq!(curl.done("POST", &path("/desired"), json!({"a": 1})).await["version"], 2);
    assert_eq!(curl.done("GET", &path("/twin"), Value::Null).await["desired"]["a"], 1);
    curl.done("POST", &path("/messages"), json!({"body": "hi", "properties": {"$.mid": "7"}})).await;
    assert_eq!(&client.publish_packet().await.payload[..], b"hi");
    let (status, _) = curl.ask("POST", &path("/methods/slow"), json!({"timeout_ms": 50})).await;
    assert_eq!(status, 504);
    assert_eq!(curl.done("GET", &path(""), Value::Null).await["connected"], true);
    curl.done("DELETE", &path(""), Value::Null).await;
    assert_eq!(curl.ask("GET", &path(""), Value::Null).await.0, 404);
}

#[tokio::test]
async fn dps_is_controlled_by_http() {
    let emulator = start(config().hub("hub-b")).await;
    let curl = Curl::new(&emulator).await;
    let key = hub_emulator::Key::from_seed("g");
    let new = json!({"name": "g", "group": true, "key": key.to_base64(), "hub": "hub-b"});
    curl.done("POST", "/dps/enrollments", new).await;
    curl.done("POST", "/dps/enrollments/g/repoint", json!({"hub": "hub-a"})).await;
    curl.done("POST", "/dps/faults", json!({"fault": {"kind": "throttled", "retry_after": 9}, "times": 1})).await;
    let (scope, derived) = (emulator.dps().id_scope(), key.derive("x"));
    let mut connect = Connect::new("x");
    let token = derived.token(&format!("{scope}/registrations/x"), support::LATER, None);
    connect.login = Some(Login::new(format!("{scope}/registrations/x/api-version=2019-03-31"), token));
    let (mut client, _) = Client::connected(&emulator, connect).await;
    client.subscribed("$dps/registrations/res/#").await;
    let id = client.publish("$dps/registrations/PUT/iotdps-register/?$rid=1", b"{}").await;
    client.acknowledged(id).await;
    assert_eq!(client.publish_packet().await.topic, "$dps/registrations/res/429/?$rid=1&retry-after=9");
    assert_eq!(curl.done("GET", "/dps/registrations", Value::Null).await[0]["status"], 429);
    assert_eq!(curl.ask("POST", "/dps/enrollments/g/repoint", json!({"hub": "z"})).await.0, 404);
    curl.done("DELETE", "/dps/enrollments/g", Value::Null).await;
    assert_eq!(curl.ask("DELETE", "/dps/enrollments/g", Value::Null).await.0, 404);
}

#[tokio::test]
async fn devices_and_enrollments_with_certificates_and_tpms_are_added_by_http() {
    let emulator = start(config()).await;
    let curl = Curl::new(&emulator).await;
    let certificate = curl.done("POST", "/certificates", json!({"common_name": "x1"})).await;
    let by_thumbprint = json!({"id": "x1", "thumbprint": certificate["thumbprint"]});
    for (body, id) in [(by_thumbprint, "x1"), (json!({"id": "x2", "ca": true}), "x2")] {
        let answer = curl.done("POST", "/hubs/hub-a/devices", body).await;
        assert_eq!(answer["connectionString"], format!("HostName={HUB};DeviceId={id};x509=true"));
    }
    let second = curl.done("POST", "/certificates", json!({"common_name": "x2"})).await;
    for (id, shown, opens) in [("x1", &certificate, true), ("x2", &second, true), ("x2", &certificate, false)] {
        let pem = (shown["certificate"].as_str().unwrap(), shown["key"].as_str().unwrap());
        let mut client = Client::tls(emulator.tls_addr(), emulator.ca_pem(), HUB, Some(pem)).await.unwrap();
        let mut connect = Connect::new(id);
        connect.login = Some(Login::new(support::user_name(HUB, id), ""));
        assert_eq!(client.connect_with(connect).await != not_authorized(), opens, "{id}");
    }
    let group = json!({"name": "line-x", "group": true, "ca": true});
    let one = json!({"name": "x1", "thumbprint": certificate["thumbprint"]});
    let chip = json!({"name": "x3", "tpm": "AAAA"});
    for enrollment in [group, one, chip] {
        curl.done("POST", "/dps/enrollments", enrollment).await;
    }
}

#[tokio::test]
async fn a_method_response_that_is_not_json_is_reported_to_the_caller() {
    let emulator = start(config()).await;
    let curl = Curl::new(&emulator).await;
    let mut client = Client::device(&emulator).await;
    client.subscribed("$iothub/methods/POST/#").await;
    let path = format!("/hubs/hub-a/devices/{DEVICE}/methods/status");
    for (answer, named) in [(&b"done"[..], true), (b"\"done\"", false), (b"", false)] {
        let call = curl.done("POST", &path, json!({"timeout_ms": 20_000}));
        let respond = async {
            let topic = client.publish_packet().await.topic;
            let (_, request) = topic.split_once("$rid=").unwrap();
            let id = client.publish(&format!("$iothub/methods/res/200/?$rid={request}"), answer).await;
            client.acknowledged(id).await;
        };
        let (reply, ()) = tokio::join!(call, respond);
        assert_eq!(reply["problem"].is_string(), named, "{reply}");
    }
}

#[tokio::test]
async fn bad_requests_get_clear_answers() {
    let emulator = start(config()).await;
    let curl = Curl::new(&emulator).await;
    let cases = [
        ("POST", "/faults", json!({"fault": {"kind": "no-such"}}), "no-such"),
        ("POST", "/faults", json!({"fault": {"kind": "half-open"}, "device": "d"}), "needs `hub`"),
        ("POST", "/faults", json!({"fault": {"kind": "half-open"}, "hub": "hub-z"}), "hub-z"),
        ("POST", "/hubs/hub-a/devices", json!({"id": "d", "keys": "AAAA"}), "keys"),
        ("POST", "/hubs/hub-a/devices", json!({"id": "d", "key": "AAAA", "ca": true}), "exactly one of"),
        ("POST", "/dps/enrollments", json!({"name": "g", "group": true, "thumbprint": "00"}), "exactly one of"),
        ("POST", "/dps/enrollments", json!({"name": "g", "group": true, "tpm": "AAAA"}), "exactly one of"),
        ("POST", "/dps/enrollments", json!({"name": "d", "tpm": "!"}), "an endorsement key must be base64"),
        ("POST", "/hubs", json!({"name": "bad name"}), "bad name"),
        ("POST", "/hubs/hub-a/devices", json!({"id": "d", "key": "!"}), "base64"),
        ("POST", "/hubs/hub-z/down", Value::Null, "hub-z"),
        ("GET", "/nothing", Value::Null, "GET / lists the routes"),
        ("GET", "/messages?limit=x", Value::Null, "limit"),
    ];
    for (method, path, body, why) in cases {
        let (status, answer) = curl.ask(method, path, body).await;
        assert!(matches!(status, 400 | 404), "{method} {path}: {status}");
        assert!(answer["error"].as_str().unwrap().contains(why), "{method} {path}: {answer}");
    }
    assert_eq!(curl.raw("POST /faults HTTP/1.1\r\nContent-Length: 2\r\n\r\n{!").await.0, 400);
    assert_eq!(curl.raw("POST /faults HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n").await.0, 400);
}

#[tokio::test]
async fn every_route_is_described_in_the_readme() {
    let readme = include_str!("../README.md");
    for (method, path, _) in CONTROL_ROUTES {
        assert!(readme.contains(&format!("`{method} {path}`")), "{method} {path} is missing in README.md");
    }
}

#[tokio::test]
async fn the_program_prints_what_a_device_needs_and_keeps_its_ca() {
    let folder = tempfile::tempdir().unwrap();
    let mut authorities = Vec::new();
    for _ in 0..2 {
        let mut child = Command::new(env!("CARGO_BIN_EXE_hub-emulator"))
            .args(["--port", "0", "--plain-port", "0", "--control-port", "0", "--run-for", "20", "--hub", "hub-x"])
            .args(["--device", "pump-7=AAAA", "--ca-dir"])
            .arg(folder.path())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut control = None;
        let mut connection_string = None;
        while let Some(line) = timeout(SOON, lines.next_line()).await.unwrap().unwrap() {
            if let Some(rest) = line.strip_prefix("control  http://") {
                control = Some(rest.split(' ').next().unwrap().parse().unwrap());
            }
            if let Some(rest) = line.strip_prefix("device   ") {
                connection_string = Some(rest.to_owned());
            }
            if line.ends_with("/messages") {
                break;
            }
        }
        let wanted = "HostName=hub-x.azure-devices.net;DeviceId=pump-7;SharedAccessKey=AAAA";
        assert_eq!(connection_string.as_deref(), Some(wanted));
        let curl = Curl { address: control.unwrap() };
        authorities.push(curl.raw("GET /ca.pem HTTP/1.1\r\n\r\n").await.1);
        curl.done("POST", "/stop", Value::Null).await;
        assert!(timeout(Duration::from_secs(10), child.wait()).await.unwrap().unwrap().success());
    }
    assert_eq!(authorities[0], authorities[1]);
    for (option, value, expected) in [("--hub", "no good", "\"no good"), ("--tpm", "pump-7", "expected ID=BASE64KEY")] {
        let output = Command::new(env!("CARGO_BIN_EXE_hub-emulator")).args([option, value]).output().await.unwrap();
        assert!(!output.status.success());
        assert!(String::from_utf8_lossy(&output.stderr).contains(expected), "{output:?}");
    }
}
