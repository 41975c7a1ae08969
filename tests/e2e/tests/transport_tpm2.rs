//! Devices with a TPM 2.0, of swtpm: it takes the keys that the service wraps for it, and signs with them.

#![expect(clippy::unwrap_used, reason = "a test fails where it is")]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use e2e::{Actor, DEVICE, DPS_HOST, HUB_A, HUB_B, Pipe, Scene, on_every_pipe, soon, until};
use hub_emulator::{Attestation, Config, DpsConfig, Enrollment, Key, wrap_for_tpm};
use steadfast::{
    Builder, Dps, Failure, LocalFailure, ServiceKind, SignRequest, Signing, Status, Tpm, Tpm2, Tpm2Error, Tpm2Handles,
    TpmKeys, TpmWork,
};
use steadfast_core::text::Text;

on_every_pipe!(
    a_device_with_a_tpm_outlives_restarts_of_both_and_follows_its_assignment,
    a_tpm_whose_keys_are_gone_gets_others,
);

/// A TPM with its state and the device's keys in a directory of its own.
struct Machine {
    directory: tempfile::TempDir,
    swtpm: Option<Child>,
}

impl Machine {
    fn new() -> Self {
        let mut machine = Self { directory: tempfile::tempdir().unwrap(), swtpm: None };
        std::fs::create_dir(machine.keys()).unwrap();
        machine.power_on();
        machine
    }

    fn power_on(&mut self) {
        let _ = std::fs::remove_file(self.socket());
        let directory = self.directory.path().display();
        let swtpm = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--tpmstate"])
            .arg(format!("dir={directory}"))
            .args(["--server", &format!("type=unixio,path={directory}/tpm")])
            .stderr(Stdio::null())
            .spawn();
        self.swtpm = Some(swtpm.expect("swtpm is missing: run `cargo xtask test`, which installs it"));
        let deadline = Instant::now() + Duration::from_secs(20);
        while UnixStream::connect(self.socket()).is_err() {
            assert!(Instant::now() < deadline, "swtpm does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn power_off(&mut self) {
        if let Some(mut swtpm) = self.swtpm.take() {
            swtpm.kill().unwrap();
            swtpm.wait().unwrap();
        }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("tpm")
    }

    fn keys(&self) -> PathBuf {
        self.directory.path().join("keys")
    }

    fn open(&self) -> Tpm2 {
        Tpm2::open(self.socket(), self.keys()).unwrap()
    }

    /// Sends the TPM a command as bytes; it must be carried out.
    fn command(&self, bytes: &[u8]) {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        stream.write_all(bytes).unwrap();
        let mut answer = [0; 10];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer[6..], [0; 4], "{answer:x?}");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.power_off();
    }
}

async fn scene(tpm: &Tpm2) -> Scene {
    let dps = DpsConfig::new().assigning_polls(1).retry_after(1).polls_per_ten_seconds(1000);
    let attestation = Attestation::Tpm { endorsement_key: tpm.endorsement_key().to_vec() };
    let enrollment = Enrollment::individual_with(DEVICE, attestation).hub(HUB_A);
    Scene::start(Config::new().hub(HUB_A).hub(HUB_B).dps(dps).enroll(enrollment).https_port(0)).await
}

fn member(scene: &Scene, pipe: Pipe, tpm: impl Tpm) -> Builder {
    let https = scene.emulator.https_addr().unwrap();
    let dps = Dps::new(&scene.emulator.dps().id_scope(), DEVICE);
    scene.builder(pipe).provision_with(dps).resolve_https(DPS_HOST, [https]).tpm(tpm)
}

async fn stop(actor: Actor) {
    soon(actor.device.stop(Duration::from_secs(5))).await;
}

async fn a_device_with_a_tpm_outlives_restarts_of_both_and_follows_its_assignment(pipe: Pipe) {
    let mut machine = Machine::new();
    let tpm = machine.open();
    let scene = scene(&tpm).await;
    let assignment = machine.directory.path().join("assignment");
    let builder = member(&scene, pipe, tpm.clone()).assignment_file(&assignment);
    let mut actor = Actor::start(&scene, DEVICE, builder, 10);
    actor.send(5).await;
    actor.delivered().await;
    until("it is kept", || assignment.exists()).await;
    stop(actor).await;
    let endorsement_key = tpm.endorsement_key().to_vec();
    drop(tpm);

    machine.power_off();
    machine.power_on();
    let tpm = machine.open();
    assert_eq!(tpm.endorsement_key(), endorsement_key);
    let builder = member(&scene, pipe, tpm).assignment_file(&assignment);
    let mut actor = Actor::start(&scene, DEVICE, builder, 10);
    actor.send(5).await;
    actor.delivered().await;
    assert_eq!(scene.emulator.dps().registrations().len(), 1, "what is kept spares the registration");

    scene.emulator.control().move_device(DEVICE, HUB_A, HUB_B).unwrap();
    actor.send(5).await;
    actor.delivered().await;
    assert_eq!(scene.emulator.dps().registrations().len(), 2);
    stop(actor).await;
}

async fn a_tpm_whose_keys_are_gone_gets_others(pipe: Pipe) {
    let machine = Machine::new();
    let tpm = machine.open();
    let scene = scene(&tpm).await;
    let mut actor = Actor::start(&scene, DEVICE, member(&scene, pipe, tpm), 10);
    actor.send(3).await;
    actor.delivered().await;
    std::fs::remove_dir_all(machine.keys()).unwrap();
    std::fs::create_dir(machine.keys()).unwrap();
    scene.emulator.hub(HUB_A).device(DEVICE).disconnect(false).unwrap();
    actor.send(3).await;
    actor.delivered().await;
    assert!(actor.failures().contains(&Failure::Local(LocalFailure::NoKey)), "{:?}", actor.failures());
    assert_eq!(scene.emulator.dps().registrations().len(), 2);
    actor.finish(&scene).await;
}

/// Shows the keys of one TPM and is another.
struct Impostor {
    shown: Tpm2,
    own: Tpm2,
}

impl Tpm for Impostor {
    fn keys(&self) -> TpmWork<TpmKeys> {
        self.shown.keys()
    }

    fn activate(&self, role: ServiceKind, wrapped: Vec<u8>) -> TpmWork<()> {
        self.own.activate(role, wrapped)
    }

    fn sign(&self, request: SignRequest<'_>) -> Signing {
        self.own.sign(request)
    }
}

fn request(role: ServiceKind, text: &str) -> SignRequest<'_> {
    SignRequest::new(role, 0, Text::from(text))
}

#[tokio::test]
async fn a_tpm_that_the_keys_were_not_wrapped_for_takes_none_and_the_device_says_so() {
    let machines = [Machine::new(), Machine::new()];
    let [shown, own] = [machines[0].open(), machines[1].open()];
    let scene = scene(&shown).await;
    let wrapped = wrapped_for(&shown, &Key::from_seed("a key")).await;
    let refused = own.activate(ServiceKind::Hub, wrapped).await.unwrap_err().to_string();
    assert!(refused.contains("the TPM rejects the key (TPM2_ActivateCredential: 0x"), "{refused}");
    let actor = Actor::start(&scene, DEVICE, member(&scene, Pipe::Bytes, Impostor { shown, own }), 10);
    let told = |status: &Status| status.last_failure == Some(Failure::Local(LocalFailure::Signing));
    actor.status("told", told).await;
    assert!(scene.emulator.ledger().messages(DEVICE).is_empty());
    assert_eq!(std::fs::read_dir(machines[1].keys()).unwrap().count(), 0);
}

async fn wrapped_for(tpm: &Tpm2, key: &Key) -> Vec<u8> {
    let keys = tpm.keys().await.unwrap();
    wrap_for_tpm(&keys.endorsement_key, &keys.storage_root_key, key).unwrap()
}

#[tokio::test]
async fn a_tpm_signs_texts_of_any_length_with_the_key_of_each_role() {
    let machine = Machine::new();
    let tpm = machine.open();
    let keys = [(ServiceKind::Provisioning, Key::from_seed("one")), (ServiceKind::Hub, Key::random())];
    let missing = tpm.sign(request(ServiceKind::Hub, "text")).await.unwrap_err().to_string();
    assert!(missing.contains("the TPM has no key of this device"), "{missing}");
    for (role, key) in &keys {
        tpm.activate(*role, wrapped_for(&tpm, key).await).await.unwrap();
    }
    // What another has opened signs alike.
    let again = machine.open();
    for (role, key) in &keys {
        for length in [0, 1, 1023, 1024, 1025, 2048, 5000] {
            let text = "x".repeat(length);
            assert_eq!(
                tpm.sign(request(*role, &text)).await,
                Ok(key.sign(text.as_bytes())),
                "{role:?}, {length} bytes"
            );
        }
        assert_eq!(again.sign(request(*role, "text")).await, Ok(key.sign(b"text")));
    }
}

/// Shows the TPM of a machine as a character device.
struct CharacterDevice(Child, PathBuf);

impl CharacterDevice {
    fn of(machine: &Machine) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/python/tpm_device.py");
        let mut python = Command::new("python3");
        let mut shown = python.arg(script).arg(machine.socket()).stdout(Stdio::piped()).spawn().unwrap();
        let mut path = String::new();
        BufReader::new(shown.stdout.take().unwrap()).read_line(&mut path).unwrap();
        Self(shown, path.trim().into())
    }
}

impl Drop for CharacterDevice {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[tokio::test]
async fn a_tpm_is_spoken_to_through_a_device_as_through_a_socket() {
    let machine = Machine::new();
    let key = Key::random();
    let device = CharacterDevice::of(&machine);
    let tpm = Tpm2::open(&device.1, machine.keys()).unwrap();
    tpm.activate(ServiceKind::Hub, wrapped_for(&tpm, &key).await).await.unwrap();
    let text = "x".repeat(3000);
    assert_eq!(tpm.sign(request(ServiceKind::Hub, &text)).await, Ok(key.sign(text.as_bytes())));
    drop(device);
    let by_socket = machine.open();
    assert_eq!(by_socket.endorsement_key(), tpm.endorsement_key());
    assert_eq!(by_socket.sign(request(ServiceKind::Hub, &text)).await, Ok(key.sign(text.as_bytes())));
}

#[tokio::test]
async fn keys_that_are_spoilt_or_of_another_tpm_never_sign_and_replace_nothing() {
    let machines = [Machine::new(), Machine::new()];
    let [tpm, other] = [machines[0].open(), machines[1].open()];
    let key = Key::random();
    let wrapped = wrapped_for(&tpm, &key).await;
    tpm.activate(ServiceKind::Hub, wrapped.clone()).await.unwrap();
    for at in (0..wrapped.len()).step_by(97) {
        let mut spoilt = wrapped.clone();
        spoilt[at] ^= 0x40;
        tpm.activate(ServiceKind::Hub, spoilt).await.unwrap_err();
    }
    for end in [0, 1, 60, 400, wrapped.len() - 3] {
        tpm.activate(ServiceKind::Hub, wrapped[..end].to_vec()).await.unwrap_err();
    }
    assert_eq!(tpm.sign(request(ServiceKind::Hub, "text")).await, Ok(key.sign(b"text")));
    let [own, others] = [0, 1].map(|at: usize| machines[at].keys().join("hub.tpm2"));
    std::fs::copy(&own, &others).unwrap();
    let refused = other.sign(request(ServiceKind::Hub, "text")).await.unwrap_err().to_string();
    assert!(refused.contains("the TPM has no key of this device"), "{refused}");
    let kept = std::fs::read_to_string(&own).unwrap();
    for spoilt in [kept.replacen("A", "B", 9), kept[..kept.len() - 9].to_owned() + "\n", String::from("\u{0}")] {
        std::fs::write(&own, spoilt).unwrap();
        let refused = tpm.sign(request(ServiceKind::Hub, "text")).await.unwrap_err().to_string();
        assert!(refused.contains("the TPM has no key of this device"), "{refused}");
    }
}

#[tokio::test]
async fn a_tpm_that_is_away_busy_or_locked_by_its_owner_is_told_as_such() {
    let mut machine = Machine::new();
    // TPM2_HierarchyChangeAuth: the endorsement hierarchy gets the password "x".
    machine.command(&[
        0x80, 2, 0, 0, 0, 30, 0, 0, 1, 0x29, 0x40, 0, 0, 0x0b, 0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 1, 0, 0, 0, 1, b'x',
    ]);
    let locked = Tpm2::open(machine.socket(), machine.keys()).unwrap_err();
    let handle = Tpm2Handles::DEFAULT.endorsement_key;
    assert!(matches!(locked, Tpm2Error::NoPrimaryKey { handle: at, .. } if at == handle), "{locked}");

    let held = UnixStream::connect(machine.socket()).unwrap();
    let (socket, keys) = (machine.socket(), machine.keys());
    let busy = tokio::task::spawn_blocking(move || Tpm2::open(socket, keys).unwrap_err()).await.unwrap();
    assert_eq!(busy, Tpm2Error::Busy);
    drop(held);

    machine.power_off();
    let away = Tpm2::open(machine.socket(), machine.keys()).unwrap_err();
    assert_eq!(away, Tpm2Error::Absent(machine.socket()));
}
