//! The official Python device SDK, unmodified, judges the emulator: what passes here is worth testing against.
//!
//! That SDK always dials port 8883 of the names it was given. So the test runs itself again inside a network namespace
//! of its own, where the port is free, and with a hosts file of its own, where the names lead to loopback.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use hub_emulator::{Attestation, Authority, Config, DpsConfig, Emulator, Enrollment, Fault, Key};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

const INSIDE: &str = "STEADFAST_INSIDE_NAMESPACE";
const HUB: &str = "hub-a.azure-devices.net";
const DPS: &str = "global.azure-devices-provisioning.net";
const SCOPE: &str = "0ne00JUDGE";
const STEP: Duration = Duration::from_secs(40);
const WHOLE: Duration = Duration::from_secs(180);

#[tokio::test]
async fn the_official_python_sdk_provisions_sends_reads_its_twin_answers_and_resends() {
    if std::env::var_os(INSIDE).is_some() {
        return timeout(WHOLE, judge()).await.expect("the judge takes less than three minutes");
    }
    let python = python();
    assert!(
        python.exists(),
        "the official Python SDK is not installed ({} is missing): run `cargo xtask test`, which installs it",
        python.display()
    );
    let status = timeout(WHOLE + STEP, run_again_inside()).await.expect("the run inside the namespace ends");
    assert!(status.success(), "the run inside the namespace failed: {status}");
}

/// Lets the SDK run its session twice: with a symmetric key, and with a certificate of its own.
async fn judge() {
    let (by_key, by_certificate) = ("judge-key", "judge-x509");
    let key = Key::from_seed("judge");
    let authority = Authority::new().expect("an authority");
    let config = Config::new()
        .hub(HUB)
        .dps(DpsConfig::new().host(DPS).id_scope(SCOPE))
        .enroll(Enrollment::individual(by_key, key.clone()).payload(json!({"hello": "device"})))
        .enroll(
            Enrollment::group_with("x509", Attestation::CertificateAuthority(authority.pem().to_owned()))
                .payload(json!({"hello": "device"})),
        )
        .authority(authority.clone())
        .tls_port(8883);
    let emulator = Emulator::start(config).await.expect("port 8883 is free in a new namespace");
    let files = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str, text: &str| {
        let path = files.path().join(name);
        std::fs::write(&path, text).expect("the file is written");
        path
    };
    let ca = write("ca.pem", emulator.ca_pem());
    let setup = json!({"scope": SCOPE, "registration_id": by_key, "ca": ca, "key": key.to_base64()});
    session(&emulator, by_key, &setup).await;
    let own = authority.device_certificate(by_certificate).expect("a certificate");
    let setup = json!({
        "scope": SCOPE,
        "registration_id": by_certificate,
        "ca": ca,
        "certificate": write("device.pem", &own.certificate_pem),
        "certificate_key": write("device-key.pem", &own.key_pem),
    });
    session(&emulator, by_certificate, &setup).await;
    emulator.stop().await;
}

async fn session(emulator: &Emulator, id: &str, setup: &Value) {
    let mut sdk = Sdk::start().await;
    sdk.tell(setup).await;

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
    assert_eq!(device.waiting().expect("the device exists"), 0, "the SDK acknowledged the message");

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
    assert_eq!(emulator.ledger().connections_of(id).len(), 3, "one at DPS, two at the hub");
}

/// The Python process.
struct Sdk {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Sdk {
    async fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/judge.py");
        let mut child = Command::new(python())
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("python starts");
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { child, input, output }
    }

    async fn tell(&mut self, what: &Value) {
        let line = format!("{what}\n");
        self.input.write_all(line.as_bytes()).await.expect("python listens");
    }

    async fn step(&mut self, wanted: &str) -> Value {
        let line = timeout(STEP, self.output.next_line()).await;
        let line = line.unwrap_or_else(|_| panic!("the SDK did not come to {wanted:?} in {STEP:?}"));
        let line = line.expect("readable").unwrap_or_else(|| panic!("the SDK ended before {wanted:?}"));
        let step: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("not a step: {line}"));
        assert_eq!(step["step"], wanted, "{line}");
        step
    }

    async fn ended(mut self) {
        let status = timeout(STEP, self.child.wait()).await.expect("python ends").expect("and is waited for");
        assert!(status.success(), "{status}");
    }
}

/// Runs this test again in new network and mount namespaces; as an ordinary user inside a user namespace.
async fn run_again_inside() -> std::process::ExitStatus {
    let hosts = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(hosts.path(), format!("127.0.0.1 localhost {HUB} {DPS}\n")).expect("the hosts file is written");
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|me| std::os::unix::fs::MetadataExt::uid(&me) == 0);
    let mut command = Command::new("unshare");
    if !is_root {
        command.arg("--map-root-user");
    }
    command
        .args(["--net", "--mount", "--", "sh", "-c"])
        .arg("ip link set lo up && mount --bind \"$1\" /etc/hosts && shift && exec \"$@\"")
        .arg("sh")
        .arg(hosts.path())
        .arg(std::env::current_exe().expect("this test has a path"))
        .args(["--exact", "--nocapture"])
        .arg("the_official_python_sdk_provisions_sends_reads_its_twin_answers_and_resends")
        .env(INSIDE, "1")
        .kill_on_drop(true);
    command.status().await.expect("`unshare` of util-linux and `ip` of iproute2 are installed")
}

fn python() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/python-judge/bin/python");
    std::env::var_os("STEADFAST_PYTHON").map_or_else(default, PathBuf::from)
}
