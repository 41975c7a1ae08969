//! Registration over HTTPS, and devices whose key is in a TPM, which go no other way.

#![expect(clippy::unwrap_used, reason = "a test fails where it is")]

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use e2e::{Actor, DEVICE, DPS_HOST, HUB_A, HUB_B, Pipe, Scene, on_every_pipe, until};
use hub_emulator::{Attestation, Authority, Config, DpsConfig, DpsFault, Enrollment, Injection, SoftTpm};
use steadfast::{
    BuildError, Builder, ClientCertificate, Device, Dps, Failure, LocalFailure, ProvisioningFailure, ServiceKind,
    SignError, SignRequest, Signing, Tpm, TpmKeys, TpmWork,
};

on_every_pipe!(
    a_device_with_a_tpm_registers_delivers_and_follows_its_assignment,
    a_tpm_that_the_enrollment_does_not_name_is_refused,
    a_tpm_that_fails_is_told_and_asked_again,
    a_kept_assignment_spares_a_device_with_a_tpm_the_registration,
    a_key_and_a_certificate_register_over_https_too,
    a_throttled_registration_over_https_is_told_with_its_retry_after,
    a_service_that_is_away_over_https_is_found_again,
);

/// The TPM of one device.
#[derive(Clone, Default)]
struct Chip {
    tpm: Arc<SoftTpm>,
    broken: Arc<AtomicBool>,
    activations: Arc<AtomicUsize>,
}

fn place(role: ServiceKind) -> usize {
    usize::from(role == ServiceKind::Hub)
}

impl Tpm for Chip {
    fn keys(&self) -> TpmWork<TpmKeys> {
        let endorsement_key = self.tpm.endorsement_key();
        Box::pin(ready(Ok(TpmKeys { endorsement_key, storage_root_key: b"a storage root key".to_vec() })))
    }

    fn activate(&self, role: ServiceKind, wrapped: Vec<u8>) -> TpmWork<()> {
        self.activations.fetch_add(1, Ordering::Relaxed);
        let taken = self.tpm.activate(place(role), &wrapped);
        Box::pin(ready(if taken { Ok(()) } else { Err(SignError::new("not for this TPM")) }))
    }

    fn sign(&self, request: SignRequest<'_>) -> Signing {
        let signature = self
            .tpm
            .sign(place(request.role), &request.text.to_string())
            .filter(|_| !self.broken.load(Ordering::Relaxed));
        Box::pin(ready(signature.ok_or_else(|| SignError::new("no key there"))))
    }
}

fn enrollment(chip: &Chip) -> Enrollment {
    let attestation = Attestation::Tpm { endorsement_key: chip.tpm.endorsement_key() };
    Enrollment::individual_with(DEVICE, attestation).hub(HUB_A)
}

async fn scene(enrollment: Enrollment) -> Scene {
    let dps = DpsConfig::new().assigning_polls(1).retry_after(1).polls_per_ten_seconds(1000);
    Scene::start(Config::new().hub(HUB_A).hub(HUB_B).dps(dps).enroll(enrollment).https_port(0)).await
}

fn member(scene: &Scene, pipe: Pipe) -> Builder {
    let https = scene.emulator.https_addr().unwrap();
    let dps = Dps::new(&scene.emulator.dps().id_scope(), DEVICE);
    scene.builder(pipe).provision_with(dps).resolve_https(DPS_HOST, [https])
}

fn run(scene: &Scene, builder: Builder) -> Actor {
    Actor::start(scene, DEVICE, builder, 10)
}

async fn a_device_with_a_tpm_registers_delivers_and_follows_its_assignment(pipe: Pipe) {
    let chip = Chip::default();
    let scene = scene(enrollment(&chip)).await;
    let mut actor = run(&scene, member(&scene, pipe).tpm(chip.clone()));
    actor.send(5).await;
    actor.delivered().await;
    // One key for the registration, one for the hub.
    assert_eq!(chip.activations.load(Ordering::Relaxed), 2);
    scene.emulator.control().move_device(DEVICE, HUB_A, HUB_B).unwrap();
    actor.send(5).await;
    actor.delivered().await;
    assert_eq!(chip.activations.load(Ordering::Relaxed), 4);
    assert_eq!(scene.emulator.dps().registrations().len(), 2);
    actor.finish(&scene).await;
}

async fn a_tpm_that_the_enrollment_does_not_name_is_refused(pipe: Pipe) {
    let scene = scene(enrollment(&Chip::default())).await;
    let actor = run(&scene, member(&scene, pipe).tpm(Chip::default()));
    let refused = |failure| matches!(failure, Failure::Provisioning(ProvisioningFailure::Refused { status: 401, .. }));
    actor.status("refused", move |status| status.last_failure.is_some_and(refused)).await;
    assert!(scene.emulator.ledger().messages(DEVICE).is_empty());
}

async fn a_tpm_that_fails_is_told_and_asked_again(pipe: Pipe) {
    let chip = Chip::default();
    let scene = scene(enrollment(&chip)).await;
    chip.broken.store(true, Ordering::Relaxed);
    let mut actor = run(&scene, member(&scene, pipe).tpm(chip.clone()));
    let told = |status: &steadfast::Status| status.last_failure == Some(Failure::Local(LocalFailure::Signing));
    actor.status("told in the middle of the registration", told).await;
    chip.broken.store(false, Ordering::Relaxed);
    actor.up().await;
    chip.broken.store(true, Ordering::Relaxed);
    scene.emulator.hub(HUB_A).device(DEVICE).disconnect(false).unwrap();
    actor.send(5).await;
    actor.status("told", told).await;
    chip.broken.store(false, Ordering::Relaxed);
    actor.delivered().await;
    actor.finish(&scene).await;
}

async fn a_kept_assignment_spares_a_device_with_a_tpm_the_registration(pipe: Pipe) {
    let chip = Chip::default();
    let scene = scene(enrollment(&chip)).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("assignment");
    for _ in 0..2 {
        let builder = member(&scene, pipe).tpm(chip.clone()).assignment_file(&file);
        let mut actor = run(&scene, builder);
        actor.send(2).await;
        actor.delivered().await;
        until("it is kept", || file.exists()).await;
        stop(actor).await;
    }
    assert_eq!(scene.emulator.dps().registrations().len(), 1);
}

async fn stop(actor: Actor) {
    e2e::soon(actor.device.stop(std::time::Duration::from_secs(5))).await;
}

async fn a_key_and_a_certificate_register_over_https_too(pipe: Pipe) {
    let key = e2e::key();
    let with_key = scene(Enrollment::individual(DEVICE, key.clone()).hub(HUB_A)).await;
    let builder = member(&with_key, pipe).shared_key(&key.to_base64()).register_over_https();
    // MQTT does not lead there.
    let mut actor = run(&with_key, builder.resolve(DPS_HOST, ["127.0.0.1:1".parse().unwrap()]));
    actor.send(3).await;
    actor.delivered().await;
    actor.finish(&with_key).await;

    let certificate = Authority::new().unwrap().device_certificate(DEVICE).unwrap();
    let attestation = Attestation::Thumbprint(certificate.thumbprint.clone());
    let with_certificate = scene(Enrollment::individual_with(DEVICE, attestation).hub(HUB_A)).await;
    let shown = ClientCertificate::from_pem(certificate.certificate_pem, certificate.key_pem);
    let builder = member(&with_certificate, pipe).client_certificate(shown).register_over_https();
    let mut actor = run(&with_certificate, builder);
    actor.send(3).await;
    actor.delivered().await;
    actor.finish(&with_certificate).await;
}

async fn a_throttled_registration_over_https_is_told_with_its_retry_after(pipe: Pipe) {
    let chip = Chip::default();
    let scene = scene(enrollment(&chip)).await;
    scene.emulator.dps().inject(Injection::once(DpsFault::Throttled { retry_after: Some(1) }));
    let mut actor = run(&scene, member(&scene, pipe).tpm(chip));
    actor.send(3).await;
    actor.delivered().await;
    let throttled = ProvisioningFailure::Unavailable { status: 429, retry_after_secs: Some(1) };
    assert_eq!(actor.failures(), [Failure::Provisioning(throttled)]);
    actor.finish(&scene).await;
}

async fn a_service_that_is_away_over_https_is_found_again(pipe: Pipe) {
    let chip = Chip::default();
    let scene = scene(enrollment(&chip)).await;
    scene.emulator.dps().down();
    let mut actor = run(&scene, member(&scene, pipe).tpm(chip));
    actor.send(3).await;
    until("it was tried", || actor.failures().len() > 2).await;
    scene.emulator.dps().up();
    actor.delivered().await;
    actor.finish(&scene).await;
}

#[test]
fn a_tpm_without_the_provisioning_service_is_a_mistake_told_before_the_first_packet() {
    let built = Device::builder().hub("h.azure-devices.net", "pump-7").tpm(Chip::default()).build();
    assert!(matches!(built, Err(BuildError::HttpsWithoutProvisioning)));
}
