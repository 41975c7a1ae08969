//! Credentials that change while a device runs: two keys, certificates on disk, tokens from elsewhere.

#![expect(clippy::unwrap_used, reason = "a test fails where it is")]

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use e2e::{Actor, DEVICE, GROUP, HUB_A, Pipe, Scene, key, on_every_pipe, timeouts};
use hub_emulator::{
    Attestation, Authority, Config, DeviceAuth, DeviceCertificate, DeviceHandle, DpsConfig, Enrollment, HubConfig, Key,
};
use steadfast::{
    ClientCertificate, Dps, Failure, LinkEvent as Event, LocalFailure, Obtaining, ServiceKind, SignError, TokenRequest,
    TokenSource,
};

on_every_pipe!(
    the_secondary_key_is_tried_after_a_refusal_and_kept_to,
    keys_are_exchanged_one_after_the_other,
    either_key_of_a_group_registers,
    a_pair_that_is_replaced_file_by_file_is_changed_as_a_whole,
    keys_in_every_form_of_pem_are_taken,
    tokens_from_elsewhere_are_sent_as_they_are,
    a_source_of_tokens_that_fails_hangs_and_lies_is_asked_again,
);

fn at_hub(auth: impl Into<DeviceAuth>) -> Config {
    Config::new().hub_with(HubConfig::new(HUB_A).device(DEVICE, auth))
}

/// How often the device has come up.
fn ups(actor: &Actor) -> usize {
    actor.events().iter().filter(|(_, event)| matches!(event, Event::Up { .. })).count()
}

/// Has the device's connection cut by `cut`, and waits for another one.
async fn reconnect_after(scene: &Scene, actor: &Actor, cut: impl FnOnce(DeviceHandle)) {
    let before = ups(actor);
    cut(scene.emulator.hub(HUB_A).device(DEVICE));
    e2e::until("another connection", || ups(actor) > before).await;
}

async fn reconnect(scene: &Scene, actor: &Actor) {
    reconnect_after(scene, actor, |device| device.disconnect(false).unwrap()).await;
}

async fn the_secondary_key_is_tried_after_a_refusal_and_kept_to(pipe: Pipe) {
    let other = Key::from_seed("a key of before");
    let mut scene = Scene::start(at_hub(key())).await;
    scene.keep_secret(&other);
    let builder = scene.device(pipe).shared_keys(&other.to_base64(), &key().to_base64());
    let mut actor = Actor::start(&scene, DEVICE, builder, 10);
    actor.send(5).await;
    actor.delivered().await;
    e2e::until("up", || ups(&actor) == 1).await;
    reconnect(&scene, &actor).await;
    actor.send(5).await;
    actor.delivered().await;
    let refusals = actor.failures().into_iter().filter(|failure| *failure == Failure::ConnectRefused(5)).count();
    assert_eq!(refusals, 1, "{:?}", actor.failures());
    actor.finish(&scene).await;
}

async fn keys_are_exchanged_one_after_the_other(pipe: Pipe) {
    let (first, second) = (Key::from_seed("the first of two"), Key::from_seed("the second of two"));
    let both = DeviceAuth::Keys { primary: first.clone(), secondary: Some(second.clone()) };
    let mut scene = Scene::start(at_hub(both)).await;
    scene.keep_secret(&first);
    scene.keep_secret(&second);
    let builder = scene.device(pipe).shared_keys(&first.to_base64(), &second.to_base64());
    let mut actor = Actor::start(&scene, DEVICE, builder, 10);
    e2e::until("up", || ups(&actor) == 1).await;
    for taken in [first.clone(), second, first] {
        // Whoever is connected is cut off by that.
        reconnect_after(&scene, &actor, |device| device.set_auth(taken).unwrap()).await;
        actor.send(5).await;
        actor.delivered().await;
    }
    let refusals = actor.failures().into_iter().filter(|failure| *failure == Failure::ConnectRefused(5)).count();
    assert_eq!(refusals, 2, "{:?}", actor.failures());
    actor.finish(&scene).await;
}

async fn either_key_of_a_group_registers(pipe: Pipe) {
    let other = Key::from_seed("a group's key of before");
    let attestation =
        Attestation::Symmetric { primary: Key::from_seed("unknown to the device"), secondary: Some(key()) };
    let config = Config::new()
        .hub(HUB_A)
        .dps(DpsConfig::new().assigning_polls(0))
        .enroll(Enrollment::group_with(GROUP, attestation).hub(HUB_A));
    let mut scene = Scene::start(config).await;
    scene.keep_secret(&other);
    let dps = Dps::new(&scene.emulator.dps().id_scope(), DEVICE);
    let builder = scene.builder(pipe).provision_with(dps).group_keys(&other.to_base64(), &key().to_base64());
    let mut actor = Actor::start(&scene, DEVICE, builder, 10);
    actor.send(5).await;
    actor.finish(&scene).await;
}

fn by_thumbprint(certificate: &DeviceCertificate) -> DeviceAuth {
    DeviceAuth::Thumbprint { primary: certificate.thumbprint.clone(), secondary: None }
}

async fn a_pair_that_is_replaced_file_by_file_is_changed_as_a_whole(pipe: Pipe) {
    let authority = Authority::new().unwrap();
    let (old, new) = (authority.device_certificate(DEVICE).unwrap(), authority.device_certificate(DEVICE).unwrap());
    let scene = Scene::start(at_hub(by_thumbprint(&old))).await;
    let directory = tempfile::tempdir().unwrap();
    let (chain, key) = (directory.path().join("chain.pem"), directory.path().join("key.pem"));
    std::fs::write(&chain, &old.certificate_pem).unwrap();
    std::fs::write(&key, &old.key_pem).unwrap();
    let certificate = ClientCertificate::from_files(&chain, &key);
    let builder = scene.builder(pipe).hub(HUB_A, DEVICE).client_certificate(certificate);
    let mut actor = Actor::start(&scene, DEVICE, builder, 10);
    actor.send(5).await;
    e2e::until("up", || ups(&actor) == 1).await;
    for damage in [new.certificate_pem.as_str(), "", "-----BEGIN CERTIFICATE-----\nMIIB"] {
        std::fs::write(&chain, damage).unwrap();
        reconnect(&scene, &actor).await;
    }
    std::fs::remove_file(&chain).unwrap();
    reconnect(&scene, &actor).await;
    std::fs::write(&chain, &new.certificate_pem).unwrap();
    std::fs::write(&key, &new.key_pem).unwrap();
    reconnect_after(&scene, &actor, |device| device.set_auth(by_thumbprint(&new)).unwrap()).await;
    actor.send(5).await;
    assert!(actor.failures().iter().all(|failure| failure.is_loss()), "{:?}", actor.failures());
    actor.finish(&scene).await;
}

/// Runs openssl in `directory`.
fn openssl(directory: &Path, arguments: &str) -> String {
    let output = Command::new("openssl").args(arguments.split(' ')).current_dir(directory).output();
    let output = output.expect("openssl is missing: run `cargo xtask test`, which installs it");
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

async fn keys_in_every_form_of_pem_are_taken(pipe: Pipe) {
    let forms = [
        ("genrsa -traditional -out key.pem 2048", "BEGIN RSA PRIVATE KEY"),
        ("ecparam -name prime256v1 -genkey -noout -out key.pem", "BEGIN EC PRIVATE KEY"),
        ("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:secp384r1 -out key.pem", "BEGIN PRIVATE KEY"),
        ("genpkey -algorithm ed25519 -out key.pem", "BEGIN PRIVATE KEY"),
    ];
    for (make, form) in forms {
        let directory = tempfile::tempdir().unwrap();
        openssl(directory.path(), make);
        openssl(directory.path(), &format!("req -new -x509 -key key.pem -subj /CN={DEVICE} -days 2 -out chain.pem"));
        let thumbprint = openssl(directory.path(), "x509 -in chain.pem -noout -fingerprint -sha256");
        let thumbprint = thumbprint.trim().rsplit_once('=').unwrap().1.replace(':', "");
        let (chain, key) = (directory.path().join("chain.pem"), directory.path().join("key.pem"));
        assert!(std::fs::read_to_string(&key).unwrap().contains(form), "{make}");
        let scene = Scene::start(at_hub(DeviceAuth::Thumbprint { primary: thumbprint, secondary: None })).await;
        let certificate = ClientCertificate::from_files(chain, key);
        let builder = scene.builder(pipe).hub(HUB_A, DEVICE).client_certificate(certificate);
        let mut actor = Actor::start(&scene, DEVICE, builder, 10);
        actor.send(3).await;
        let verdict = actor.finish(&scene).await;
        assert_eq!((verdict.duplicates, verdict.accepted), (0, 1), "{make}");
    }
}

/// A token of the key, good for an hour.
fn token(resource: &str) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    key().token(resource, now + 3600, None)
}

/// Makes tokens, and notes what was asked for.
struct Plant {
    asked: Arc<Mutex<Vec<TokenRequest>>>,
    answers: AtomicUsize,
    answer: fn(usize, &str) -> Obtaining,
}

impl TokenSource for Plant {
    fn token(&self, request: TokenRequest) -> Obtaining {
        let obtaining = (self.answer)(self.answers.fetch_add(1, Ordering::Relaxed), &request.resource);
        self.asked.lock().unwrap().push(request);
        obtaining
    }
}

fn plant(answer: fn(usize, &str) -> Obtaining) -> (Plant, Arc<Mutex<Vec<TokenRequest>>>) {
    let asked = Arc::<Mutex<Vec<TokenRequest>>>::default();
    (Plant { asked: Arc::clone(&asked), answers: AtomicUsize::new(0), answer }, asked)
}

async fn tokens_from_elsewhere_are_sent_as_they_are(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let (source, asked) = plant(|_, resource| {
        let token = token(resource);
        Box::pin(async { Ok(token) })
    });
    let mut actor = Actor::start(&scene, DEVICE, scene.builder(pipe).hub(HUB_A, DEVICE).tokens_from(source), 10);
    actor.send(5).await;
    let verdict = actor.finish(&scene).await;
    assert_eq!((verdict.duplicates, verdict.accepted), (0, 1));
    let asked = asked.lock().unwrap();
    assert_eq!((asked[0].role, asked[0].refusals, asked.len()), (ServiceKind::Hub, 0, 1));
    assert_eq!(asked[0].resource, format!("{HUB_A}/devices/{DEVICE}"));
}

async fn a_source_of_tokens_that_fails_hangs_and_lies_is_asked_again(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let (source, asked) = plant(|number, resource| {
        let expired = key().token(resource, 1_735_700_000, None);
        let (good, wrong) = (token(resource), token("hub-b.azure-devices.net/devices/pump-7"));
        match number {
            0 => Box::pin(async { Err(SignError::new("the plant sleeps")) }),
            1 => Box::pin(std::future::pending()),
            2 => Box::pin(async { Ok(String::from("no token")) }),
            3 => Box::pin(async { Ok(expired) }),
            4 => Box::pin(async { Ok(wrong) }),
            _ => Box::pin(async { Ok(good) }),
        }
    });
    let mut patience = timeouts();
    patience.sign = Duration::from_millis(200);
    let builder = scene.builder(pipe).hub(HUB_A, DEVICE).tokens_from(source).timeouts(patience);
    let mut actor = Actor::start(&scene, DEVICE, builder, 10);
    actor.send(5).await;
    actor.delivered().await;
    let signing = Failure::Local(LocalFailure::Signing);
    let expected =
        [signing, Failure::Local(LocalFailure::SigningTimeout), signing, signing, Failure::ConnectRefused(5)];
    assert_eq!(actor.failures(), expected);
    let refusals: Vec<u8> = asked.lock().unwrap().iter().map(|request| request.refusals).collect();
    assert_eq!(refusals, [0, 0, 0, 0, 0, 1]);
    actor.finish(&scene).await;
}
