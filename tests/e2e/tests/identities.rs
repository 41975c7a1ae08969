//! Every way to be somebody: keys, certificates, modules, gateways, connection strings, kept assignments.

#![expect(clippy::unwrap_used, reason = "a test fails where it is")]

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use e2e::{Actor, DEVICE, GROUP, HUB_A, HUB_B, Pipe, Scene, on_every_pipe, timeouts, until};
use hub_emulator::{Attestation, Authority, Config, DeviceAuth, DpsConfig, Enrollment, HubConfig, Key};
use steadfast::{
    Builder, ClientCertificate, Device, Dps, Failure, LocalFailure, SharedKey, SignError, SignRequest, Signer, Signing,
};

on_every_pipe!(
    a_device_with_a_thumbprint,
    a_device_with_a_certificate_of_an_authority,
    a_device_with_a_certificate_in_an_individual_enrollment,
    a_device_with_a_certificate_in_a_group_of_an_authority,
    a_wrong_certificate_is_told_and_replaced_on_disk,
    a_device_in_an_individual_enrollment_with_another_name_at_the_hub,
    a_module,
    a_device_behind_a_gateway,
    connection_strings,
    a_key_holder_that_fails_and_hangs_is_asked_again,
    a_payload_goes_to_the_custom_allocation_and_comes_back,
    what_a_device_says_of_itself_is_in_its_user_name,
    a_restart_goes_straight_to_the_hub,
    a_restart_after_a_move_finds_the_new_hub_and_keeps_it,
    a_damaged_assignment_costs_one_registration,
);

/// Lets a device deliver a few messages.
async fn delivers(scene: &Scene, name: &str, builder: Builder) {
    let mut actor = Actor::start(scene, name, builder, 10);
    actor.send(5).await;
    let verdict = actor.finish(scene).await;
    assert_eq!((verdict.duplicates, verdict.accepted), (0, 1));
}

fn show(certificate: &hub_emulator::DeviceCertificate) -> ClientCertificate {
    ClientCertificate::from_pem(certificate.certificate_pem.clone(), certificate.key_pem.clone())
}

/// A hub that knows the device by its certificate, and that certificate.
async fn with_certificate(
    auth: impl Fn(&Authority, &hub_emulator::DeviceCertificate) -> DeviceAuth,
) -> (Scene, hub_emulator::DeviceCertificate) {
    let authority = Authority::new().unwrap();
    let certificate = authority.device_certificate(DEVICE).unwrap();
    let hub = HubConfig::new(HUB_A).device(DEVICE, auth(&authority, &certificate));
    (Scene::start(Config::new().hub_with(hub)).await, certificate)
}

fn by_thumbprint(certificate: &hub_emulator::DeviceCertificate) -> DeviceAuth {
    DeviceAuth::Thumbprint { primary: certificate.thumbprint.clone(), secondary: None }
}

async fn a_device_with_a_thumbprint(pipe: Pipe) {
    let (scene, certificate) = with_certificate(|_, certificate| by_thumbprint(certificate)).await;
    let builder = scene.builder(pipe).hub(HUB_A, DEVICE).client_certificate(show(&certificate));
    delivers(&scene, DEVICE, builder).await;
}

async fn a_device_with_a_certificate_of_an_authority(pipe: Pipe) {
    let by_authority = |authority: &Authority, _: &_| DeviceAuth::CertificateAuthority {
        pem: authority.pem().to_owned(),
        common_name: None,
    };
    let (scene, certificate) = with_certificate(by_authority).await;
    let builder = scene.builder(pipe).hub(HUB_A, DEVICE).client_certificate(show(&certificate));
    delivers(&scene, DEVICE, builder).await;
}

/// Lets a device with a certificate register and deliver.
async fn registers(pipe: Pipe, certificate: &hub_emulator::DeviceCertificate, enrollment: Enrollment) {
    let config = Config::new().hub(HUB_A).dps(DpsConfig::new().assigning_polls(0)).enroll(enrollment);
    let scene = Scene::start(config).await;
    let dps = Dps::new(&scene.emulator.dps().id_scope(), DEVICE);
    delivers(&scene, DEVICE, scene.builder(pipe).provision_with(dps).client_certificate(show(certificate))).await;
}

async fn a_device_with_a_certificate_in_an_individual_enrollment(pipe: Pipe) {
    let certificate = Authority::new().unwrap().device_certificate(DEVICE).unwrap();
    let attestation = Attestation::Thumbprint(certificate.thumbprint.clone());
    registers(pipe, &certificate, Enrollment::individual_with(DEVICE, attestation)).await;
}

async fn a_device_with_a_certificate_in_a_group_of_an_authority(pipe: Pipe) {
    let authority = Authority::new().unwrap();
    let certificate = authority.device_certificate(DEVICE).unwrap();
    let attestation = Attestation::CertificateAuthority(authority.pem().to_owned());
    registers(pipe, &certificate, Enrollment::group_with(GROUP, attestation)).await;
}

async fn a_wrong_certificate_is_told_and_replaced_on_disk(pipe: Pipe) {
    let (scene, right) = with_certificate(|_, certificate| by_thumbprint(certificate)).await;
    let wrong = Authority::new().unwrap().device_certificate(DEVICE).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (chain, key) = (directory.path().join("chain.pem"), directory.path().join("key.pem"));
    let write = |certificate: &hub_emulator::DeviceCertificate| {
        std::fs::write(&chain, &certificate.certificate_pem).unwrap();
        std::fs::write(&key, &certificate.key_pem).unwrap();
    };
    write(&wrong);
    let certificate = ClientCertificate::from_files(&chain, &key);
    let builder = scene.builder(pipe).hub(HUB_A, DEVICE).client_certificate(certificate);
    let mut actor = Actor::start(&scene, DEVICE, builder, 10);
    actor.send(5).await;
    actor.failed(Failure::ConnectRefused(5)).await;
    // Half of the new pair is worse than the old one, which is kept to.
    std::fs::write(&key, &right.key_pem).unwrap();
    let before = actor.device.status().failures;
    actor.status("two more refusals", |status| status.failures > before + 1).await;
    assert!(actor.failures().iter().all(|failure| *failure == Failure::ConnectRefused(5)), "{:?}", actor.failures());
    write(&right);
    actor.finish(&scene).await;
}

async fn a_device_in_an_individual_enrollment_with_another_name_at_the_hub(pipe: Pipe) {
    let key = Key::from_seed("one of a kind");
    let enrollment = Enrollment::individual(DEVICE, key.clone()).device_id("Pump:7@hall");
    let config = Config::new().hub(HUB_A).dps(DpsConfig::new().assigning_polls(0)).enroll(enrollment);
    let mut scene = Scene::start(config).await;
    scene.keep_secret(&key);
    let dps = Dps::new(&scene.emulator.dps().id_scope(), DEVICE);
    let builder = scene.builder(pipe).provision_with(dps).shared_key(&key.to_base64());
    delivers(&scene, "Pump:7@hall", builder).await;
}

async fn a_module(pipe: Pipe) {
    let hub = HubConfig::new(HUB_A).device("pump-7/filter", e2e::key());
    let scene = Scene::start(Config::new().hub_with(hub)).await;
    delivers(&scene, "pump-7/filter", scene.device(pipe).module_id("filter")).await;
}

async fn a_device_behind_a_gateway(pipe: Pipe) {
    let hub = HubConfig::new(HUB_A).device(DEVICE, e2e::key());
    let scene = Scene::start(Config::new().hub_with(hub).gateway_name("edge-1")).await;
    let builder = scene.device(pipe).gateway("edge-1").resolve("edge-1", [scene.emulator.tls_addr()]);
    delivers(&scene, DEVICE, builder).await;
    let records = scene.emulator.ledger().connections();
    assert_eq!(records[0].server_name.as_deref(), Some("edge-1"));
    assert_eq!(records[0].service.as_deref(), Some(HUB_A));
}

async fn connection_strings(pipe: Pipe) {
    let key = e2e::key().to_base64();
    let hub = || HubConfig::new(HUB_A).device(DEVICE, e2e::key()).device("pump-7/filter", e2e::key());
    let scene = Scene::start(Config::new().hub_with(hub()).gateway_name("edge-1")).await;
    let with = |text: &str| {
        let edge = [scene.emulator.tls_addr()];
        scene.builder(pipe).connection_string(text).resolve("edge-1", edge)
    };
    let expiry = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() + 3600;
    let token = e2e::key().token(&format!("{HUB_A}/devices/{DEVICE}"), expiry, None);
    let texts = [
        (DEVICE, format!("HostName={HUB_A};DeviceId={DEVICE};SharedAccessKey={key}")),
        (DEVICE, format!("DeviceId={DEVICE};SharedAccessKey={key};HostName={HUB_A};GatewayHostName=edge-1")),
        ("pump-7/filter", format!("HostName={HUB_A};DeviceId={DEVICE};ModuleId=filter;SharedAccessKey={key}")),
        (DEVICE, format!("HostName={HUB_A};DeviceId={DEVICE};SharedAccessSignature={token}")),
    ];
    for (name, text) in texts {
        let mut actor = Actor::start(&scene, name, with(&text), 10);
        actor.send(3).await;
        actor.delivered().await;
        assert_eq!(actor.failures(), []);
        e2e::soon(actor.device.stop(Duration::from_secs(5))).await;
    }
    assert_eq!(scene.emulator.ledger().total().distinct, 12);
}

/// Signs as [`SharedKey`], but fails the first time and hangs the second.
struct Unsteady(SharedKey, AtomicU32);

impl Signer for Unsteady {
    fn sign(&self, request: SignRequest<'_>) -> Signing {
        match self.1.fetch_add(1, Ordering::Relaxed) {
            0 => Box::pin(std::future::ready(Err(SignError::new("the token was pulled out")))),
            1 => Box::pin(std::future::pending()),
            _ => self.0.sign(request),
        }
    }
}

async fn a_key_holder_that_fails_and_hangs_is_asked_again(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let key = SharedKey::from_base64(&e2e::key().to_base64()).unwrap();
    let mut patience = timeouts();
    patience.sign = Duration::from_millis(150);
    let builder = scene.device(pipe).signer(Unsteady(key, AtomicU32::new(0))).timeouts(patience);
    let mut actor = Actor::start(&scene, DEVICE, builder, 10);
    actor.send(3).await;
    actor.delivered().await;
    let local = [LocalFailure::Signing, LocalFailure::SigningTimeout].map(Failure::Local);
    assert_eq!(actor.failures(), local);
    assert_eq!(actor.finish(&scene).await.connections, 1);
}

async fn a_payload_goes_to_the_custom_allocation_and_comes_back(pipe: Pipe) {
    let enrollment =
        Enrollment::group(GROUP, e2e::key()).payload(serde_json::json!({"site": "hall 3", "limits": [1, 2]}));
    let config = Config::new().hub(HUB_A).dps(DpsConfig::new().assigning_polls(0)).enroll(enrollment);
    let scene = Scene::start(config).await;
    let dps = Dps::new(&scene.emulator.dps().id_scope(), DEVICE).payload(r#"{"region":"north"}"#);
    let builder = scene.member(pipe).provision_with(dps).model_id("dtmi:example:Pump;2");
    let mut actor = Actor::start(&scene, DEVICE, builder, 10);
    actor.send(1).await;
    actor.delivered().await;
    let registrations = scene.emulator.dps().registrations();
    let sent = registrations[0].payload.clone().unwrap();
    assert_eq!(sent["region"], "north");
    let came: serde_json::Value = serde_json::from_slice(&actor.device.provisioning_payload().unwrap()).unwrap();
    assert_eq!(came, serde_json::json!({"site": "hall 3", "limits": [1, 2]}));
    actor.finish(&scene).await;
}

async fn what_a_device_says_of_itself_is_in_its_user_name(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let builder = scene.device(pipe).model_id("dtmi:example:Pump;2").product_info("acme pump/1.0 (ö)");
    delivers(&scene, DEVICE, builder).await;
    let records = scene.emulator.ledger().connections();
    let user_name = records[0].user_name.clone().unwrap();
    assert!(user_name.contains("model-id=dtmi%3Aexample%3APump%3B2"), "{user_name}");
    assert!(user_name.contains("DeviceClientType=acme%20pump%2F1.0%20%28%C3%B6%29"), "{user_name}");
    assert_eq!((records[0].clean_session, records[0].keep_alive), (Some(false), Some(240)));
}

/// Runs the member once, until it has delivered.
async fn one_life(scene: &Scene, builder: Builder) -> (Device, Vec<Failure>) {
    let mut actor = Actor::start(scene, DEVICE, builder, 10);
    actor.send(3).await;
    actor.delivered().await;
    let failures = actor.failures();
    let books = e2e::soon(actor.device.stop(Duration::from_secs(5))).await;
    assert!(books.balances() && books.delivered == 3, "{books:?}");
    e2e::soon(actor.driver).await.unwrap();
    (actor.device, failures)
}

async fn a_restart_goes_straight_to_the_hub(pipe: Pipe) {
    let scene = Scene::provisioned().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("assignment");
    one_life(&scene, scene.member(pipe).assignment_file(&path)).await;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    for _ in 0..2 {
        let (device, failures) = one_life(&scene, scene.member(pipe).assignment_file(&path)).await;
        assert_eq!(failures, []);
        assert_eq!(device.assignment().unwrap().hub(), HUB_A);
    }
    assert_eq!(scene.emulator.dps().registration_count(DEVICE), 1);
    assert_eq!(scene.emulator.ledger().connections().len(), 1 + 3);
    assert_eq!(scene.emulator.ledger().counts(DEVICE).distinct, 9);
}

async fn a_restart_after_a_move_finds_the_new_hub_and_keeps_it(pipe: Pipe) {
    let scene = Scene::provisioned().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("assignment");
    one_life(&scene, scene.member(pipe).assignment_file(&path)).await;
    scene.emulator.dps().repoint(GROUP, HUB_B).unwrap();
    scene.emulator.move_device(DEVICE, HUB_A, HUB_B).unwrap();
    let (device, failures) = one_life(&scene, scene.member(pipe).assignment_file(&path)).await;
    assert_eq!(failures, [Failure::ConnectRefused(5); 2], "a fresh token was tried before the provisioning service");
    assert_eq!(device.assignment().unwrap().hub(), HUB_B);
    let (_, failures) = one_life(&scene, scene.member(pipe).assignment_file(&path)).await;
    assert_eq!(failures, []);
    assert_eq!(scene.emulator.dps().registration_count(DEVICE), 2);
}

async fn a_damaged_assignment_costs_one_registration(pipe: Pipe) {
    let scene = Scene::provisioned().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("assignment");
    one_life(&scene, scene.member(pipe).assignment_file(&path)).await;
    let good = std::fs::read(&path).unwrap();
    for (number, bad) in (2..).zip([&b"\x00\xff"[..], &good[..good.len() - 3], b""]) {
        std::fs::write(&path, bad).unwrap();
        one_life(&scene, scene.member(pipe).assignment_file(&path)).await;
        until("kept anew", || std::fs::read(&path).is_ok_and(|now| now == good)).await;
        assert_eq!(scene.emulator.dps().registration_count(DEVICE), number);
    }
}
