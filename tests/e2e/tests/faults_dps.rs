//! Faults of the Device Provisioning Service, over real TLS.

#![expect(clippy::unwrap_used, reason = "a test fails where it is")]

use std::time::Duration;

use e2e::{Actor, DEVICE, GROUP, HUB_A, HUB_B, Pipe, Scene, Verdict, on_every_pipe, policy, timeouts, until};
use hub_emulator::{Config, DpsConfig, DpsFault, Enrollment, Fault, Injection, Key};
use steadfast::{Advice, Dps, Failure, FailureClass, LinkEvent as Event, ProvisioningFailure};

on_every_pipe!(
    a_throttled_registration_waits_as_long_as_asked,
    a_throttled_registration_without_a_word_waits_as_for_overload,
    refusals_and_troubles_are_told_by_their_status,
    a_silent_service_is_left_in_time,
    a_slow_service_is_waited_for,
    answers_that_make_no_sense_are_told_and_asked_for_again,
    an_answer_under_another_request_id_is_ignored,
    a_service_that_keeps_assigning_is_left_in_time,
    many_polls_are_made_at_the_pace_asked_for,
    ends_of_a_registration_are_told_by_their_cause,
    an_evil_hub_name_is_never_connected_to,
    an_evil_device_id_is_never_used,
    an_unassigned_device_keeps_asking,
    an_unknown_connection_profile_is_told,
    a_disabled_enrollment_is_told_and_waited_for,
    a_missing_enrollment_is_told_and_waited_for,
    a_wrong_group_key_is_told_as_a_refusal,
    a_service_that_is_down_is_found_again,
    broken_connections_to_the_service_are_made_again,
    the_limit_of_registrations_is_kept_to,
    a_service_that_fails_does_not_keep_a_device_from_its_hub,
);

/// Lets the service do `fault` the first `times` times, and the device find its hub after that.
async fn meet(pipe: Pipe, fault: DpsFault, times: u32) -> (Scene, Actor) {
    meet_within(pipe, fault, times, Duration::from_millis(700)).await
}

/// The time of a registration that four polls fit into, as far apart as they are at least: less would be made longer.
const FOUR_POLLS: Duration = Duration::from_secs(9);

/// Like [`meet`], with another time for a registration.
async fn meet_within(pipe: Pipe, fault: DpsFault, times: u32, limit: Duration) -> (Scene, Actor) {
    let scene = Scene::provisioned().await;
    scene.emulator.dps().inject(Injection::times(fault, times));
    let mut patience = timeouts();
    patience.provisioning_answer = Duration::from_millis(400);
    patience.provisioning = limit;
    let mut actor = Actor::start(&scene, DEVICE, scene.member(pipe).timeouts(patience), 10);
    actor.send(5).await;
    (scene, actor)
}

/// Like [`meet`], to the end: returns the causes of the failures on the way.
async fn overcome(pipe: Pipe, fault: DpsFault, times: u32) -> (Vec<ProvisioningFailure>, Verdict) {
    let (scene, actor) = meet(pipe, fault, times).await;
    actor.delivered().await;
    let causes = actor.failures().into_iter().map(|failure| {
        let Failure::Provisioning(cause) = failure else { panic!("{failure}") };
        cause
    });
    let causes = causes.collect();
    (causes, actor.finish(&scene).await)
}

fn delays(actor: &Actor) -> Vec<Duration> {
    let delay = |event| if let Event::Retrying { delay, .. } = event { Some(delay) } else { None };
    actor.events().into_iter().filter_map(|(_, event)| delay(event)).collect()
}

async fn a_throttled_registration_waits_as_long_as_asked(pipe: Pipe) {
    let scene = Scene::provisioned().await;
    scene.emulator.dps().inject(DpsFault::Throttled { retry_after: Some(1) });
    let mut policy = policy();
    policy.retry_after_cap = Duration::from_secs(1);
    let (device, driver) = scene.member(pipe).retry(policy).build().unwrap();
    tokio::spawn(driver);
    let receipt = device.send(steadfast::Telemetry::new("x")).await.unwrap();
    e2e::soon(receipt.delivered()).await.unwrap();
    let at: Vec<_> = scene.emulator.dps().registrations().into_iter().map(|one| (one.at, one.status)).collect();
    let [(first, Some(429)), (second, Some(202))] = at[..] else { panic!("{at:?}") };
    assert!(second - first >= Duration::from_secs(1), "{at:?}");
}

async fn a_throttled_registration_without_a_word_waits_as_for_overload(pipe: Pipe) {
    let (scene, actor) = meet(pipe, DpsFault::Throttled { retry_after: None }, 3).await;
    actor.delivered().await;
    let told = Failure::Provisioning(ProvisioningFailure::Unavailable { status: 429, retry_after_secs: None });
    assert_eq!(actor.failures(), [told; 3]);
    let delays = delays(&actor);
    assert!(delays[1..].iter().all(|delay| *delay >= policy().overload_jitter / 2), "{delays:?}");
    actor.finish(&scene).await;
}

async fn refusals_and_troubles_are_told_by_their_status(pipe: Pipe) {
    for (status, code) in [(401, 401_002), (404, 404_201)] {
        let (causes, _) = overcome(pipe, DpsFault::Status { status }, 1).await;
        assert_eq!(causes, [ProvisioningFailure::Refused { status, code }]);
    }
    for status in [500, 503] {
        let (causes, _) = overcome(pipe, DpsFault::Status { status }, 1).await;
        assert_eq!(causes, [ProvisioningFailure::Unavailable { status, retry_after_secs: None }]);
    }
}

async fn a_silent_service_is_left_in_time(pipe: Pipe) {
    let (causes, _) = overcome(pipe, DpsFault::Silent, 2).await;
    assert_eq!(causes, [ProvisioningFailure::NoAnswer; 2]);
}

async fn a_slow_service_is_waited_for(pipe: Pipe) {
    let (causes, _) = overcome(pipe, DpsFault::Slow { delay: Duration::from_millis(250) }, 2).await;
    assert_eq!(causes, []);
}

async fn answers_that_make_no_sense_are_told_and_asked_for_again(pipe: Pipe) {
    let deep = format!("{}1{}", "{\"a\":".repeat(500), "}".repeat(500));
    let texts = [
        "",
        "null",
        "[]",
        "{",
        "{}",
        "{\"operationId\":7}",
        "{\"operationId\":NaN}",
        "{\"operationId\":\"a\",\"operationId\":\"b\",\"status\":\"assigning\"}",
        &deep,
    ];
    let bodies = texts.iter().map(|text| DpsFault::Body { text: (*text).to_owned() });
    for fault in bodies.chain([DpsFault::GarbageBody]) {
        let (causes, _) = overcome(pipe, fault.clone(), 1).await;
        assert_eq!(causes, [ProvisioningFailure::BadAnswer], "{fault:?}");
    }
    // Longer than anything the device takes: the connection is left.
    let (scene, actor) = meet(pipe, DpsFault::Body { text: " ".repeat(400_000) }, 1).await;
    actor.delivered().await;
    let [failure] = actor.failures()[..] else { panic!("{:?}", actor.failures()) };
    assert!(matches!(failure, Failure::Malformed(_)) || pipe != Pipe::Bytes, "{failure}");
    actor.finish(&scene).await;
}

async fn an_answer_under_another_request_id_is_ignored(pipe: Pipe) {
    let (causes, _) = overcome(pipe, DpsFault::WrongRequestId, 1).await;
    assert_eq!(causes, [ProvisioningFailure::NoAnswer]);
}

async fn a_service_that_keeps_assigning_is_left_in_time(pipe: Pipe) {
    let (scene, actor) = meet_within(pipe, DpsFault::KeepAssigning, 1_000, FOUR_POLLS).await;
    actor.failed(Failure::Provisioning(ProvisioningFailure::TooSlow)).await;
    scene.emulator.clear_faults();
    actor.finish(&scene).await;
}

async fn many_polls_are_made_at_the_pace_asked_for(pipe: Pipe) {
    let dps = DpsConfig::new().assigning_polls(6).polls_per_ten_seconds(1000);
    let scene = Scene::start(Scene::with_dps().dps(dps)).await;
    let mut actor = scene.run_member(pipe);
    actor.send(5).await;
    let verdict = actor.finish(&scene).await;
    assert_eq!(verdict.connections, 2);
    let records = scene.emulator.ledger().connections();
    let span = records[0].closed_at.unwrap() - records[0].connect_at.unwrap();
    assert!(span >= policy().retry_after_cap * 7, "{span:?}");
}

async fn ends_of_a_registration_are_told_by_their_cause(pipe: Pipe) {
    let cases = [
        (DpsFault::Failed { code: 400_207 }, ProvisioningFailure::Failed { code: 400_207 }),
        (DpsFault::Disabled, ProvisioningFailure::Disabled),
        (DpsFault::NoAssignedHub, ProvisioningFailure::BadAnswer),
    ];
    for (fault, cause) in cases {
        let (causes, _) = overcome(pipe, fault, 2).await;
        assert_eq!(causes, [cause; 2]);
    }
}

async fn an_evil_hub_name_is_never_connected_to(pipe: Pipe) {
    let names = [
        "127.0.0.1",
        "localhost:8883",
        "hub@evil",
        "hub/evil",
        "a b.azure-devices.net",
        "hub\u{0}.azure-devices.net",
        "xn--hub-9ra.azure-devices.net",
        "",
        "-a.azure-devices.net",
        "hub..azure-devices.net",
    ];
    for name in names {
        let (causes, _) = overcome(pipe, DpsFault::AssignedHub { name: name.to_owned() }, 1).await;
        let [ProvisioningFailure::BadHubName | ProvisioningFailure::BadAnswer] = causes[..] else {
            panic!("{name:?}: {causes:?}")
        };
    }
    for name in ["evil.com", "hub-a.azure-devices.net.evil.com", "hub-a-azure-devices.net"] {
        let scene = Scene::provisioned().await;
        scene.emulator.dps().inject(DpsFault::AssignedHub { name: name.to_owned() });
        let dps = Dps::new(&scene.emulator.dps().id_scope(), DEVICE).only_hubs_in("azure-devices.net");
        let builder = scene.member(pipe).provision_with(dps).resolve(name, [scene.emulator.tls_addr()]);
        let mut actor = Actor::start(&scene, DEVICE, builder, 10);
        actor.send(2).await;
        actor.delivered().await;
        assert_eq!(actor.failures(), [Failure::Provisioning(ProvisioningFailure::BadHubName)]);
        let records = scene.emulator.ledger().connections();
        assert!(records.iter().all(|record| record.server_name.as_deref() != Some(name)), "{records:?}");
        actor.finish(&scene).await;
    }
}

async fn an_evil_device_id_is_never_used(pipe: Pipe) {
    for id in ["a/b", "a+", "#", "", "pump 7", &"x".repeat(300)] {
        let (causes, _) = overcome(pipe, DpsFault::DeviceId { id: id.to_owned() }, 1).await;
        assert_eq!(causes, [ProvisioningFailure::BadDeviceId], "{id:?}");
    }
}

async fn an_unassigned_device_keeps_asking(pipe: Pipe) {
    let (scene, actor) = meet_within(pipe, DpsFault::Unassigned, 1, FOUR_POLLS).await;
    actor.finish(&scene).await;
}

async fn an_unknown_connection_profile_is_told(pipe: Pipe) {
    let scene = Scene::provisioned().await;
    let enrollment = || Enrollment::group(GROUP, e2e::key()).hub(HUB_A);
    scene.emulator.dps().enroll(enrollment().connection_profile("SomethingElse"));
    let mut actor = scene.run_member(pipe);
    actor.send(2).await;
    let status = actor.failed(Failure::Provisioning(ProvisioningFailure::UnsupportedProfile)).await;
    assert_eq!(status.advice(), Advice::CheckEnrollment);
    scene.emulator.dps().enroll(enrollment());
    actor.finish(&scene).await;
}

async fn a_disabled_enrollment_is_told_and_waited_for(pipe: Pipe) {
    let scene = Scene::provisioned().await;
    let dps = scene.emulator.dps();
    dps.set_enabled(GROUP, false).unwrap();
    let mut actor = scene.run_member(pipe);
    actor.send(2).await;
    let status = actor.failed(Failure::Provisioning(ProvisioningFailure::Disabled)).await;
    assert_eq!(status.advice(), Advice::CheckEnrollment);
    dps.set_enabled(GROUP, true).unwrap();
    actor.finish(&scene).await;
}

async fn a_missing_enrollment_is_told_and_waited_for(pipe: Pipe) {
    let scene = Scene::start(Config::new().hub(HUB_A).dps(DpsConfig::new().assigning_polls(0))).await;
    let mut actor = scene.run_member(pipe);
    actor.send(2).await;
    let unknown = Failure::Provisioning(ProvisioningFailure::Refused { status: 404, code: 404_201 });
    assert_eq!(actor.failed(unknown).await.advice(), Advice::CheckEnrollment);
    scene.emulator.dps().enroll(Enrollment::group(GROUP, e2e::key()));
    actor.finish(&scene).await;
}

async fn a_wrong_group_key_is_told_as_a_refusal(pipe: Pipe) {
    let mut scene = Scene::provisioned().await;
    let other = Key::from_seed("other");
    scene.keep_secret(&other);
    scene.emulator.dps().set_key(GROUP, other).unwrap();
    let mut actor = scene.run_member(pipe);
    actor.send(2).await;
    assert_eq!(actor.failed(Failure::ConnectRefused(5)).await.advice(), Advice::CheckCredential);
    scene.emulator.dps().set_key(GROUP, e2e::key()).unwrap();
    actor.finish(&scene).await;
}

async fn a_service_that_is_down_is_found_again(pipe: Pipe) {
    let scene = Scene::provisioned().await;
    scene.emulator.dps().down();
    let mut actor = scene.run_member(pipe);
    actor.send(2).await;
    until("tried thrice", || actor.failures().len() >= 3).await;
    assert!(
        actor.failures().iter().all(|failure| failure.class() == FailureClass::Unreachable),
        "{:?}",
        actor.failures()
    );
    scene.emulator.dps().up();
    actor.finish(&scene).await;
}

async fn broken_connections_to_the_service_are_made_again(pipe: Pipe) {
    let faults = [
        Fault::CloseBeforeTls,
        Fault::CloseOnConnect,
        Fault::RefuseConnect { code: 3 },
        Fault::GarbageInsteadOfConnack,
        Fault::CloseAfterConnack,
        Fault::CloseAfterReceived { bytes: 250 },
        Fault::CloseAfterReceived { bytes: 420 },
        Fault::CloseAfterSent { bytes: 6 },
        Fault::CloseAfterSent { bytes: 40 },
    ];
    for fault in faults {
        let scene = Scene::provisioned().await;
        scene.emulator.dps().inject_connection(fault.clone());
        let mut actor = scene.run_member(pipe);
        actor.send(2).await;
        actor.delivered().await;
        assert_eq!(actor.failures().len(), 1, "{fault:?}: {:?}", actor.failures());
        let verdict = actor.finish(&scene).await;
        assert_eq!((verdict.duplicates, verdict.accepted, verdict.connections), (0, 1, 3), "{fault:?}");
    }
}

async fn the_limit_of_registrations_is_kept_to(pipe: Pipe) {
    let dps = DpsConfig::new().assigning_polls(0).registers_per_minute(1);
    let scene = Scene::start(Scene::with_dps().dps(dps)).await;
    let mut first = scene.run_member(pipe);
    first.send(1).await;
    first.delivered().await;
    let dps = Dps::new(&scene.emulator.dps().id_scope(), "pump-8");
    let builder = scene.builder(pipe).provision_with(dps).group_key(&e2e::key().to_base64()).retry({
        let mut policy = policy();
        policy.retry_after_cap = Duration::from_secs(600);
        policy
    });
    let mut second = Actor::start(&scene, "pump-8", builder, 10);
    second.send(1).await;
    until("throttled", || !second.failures().is_empty()).await;
    let failure = second.failures()[0];
    let Failure::Provisioning(ProvisioningFailure::Unavailable { status: 429, retry_after_secs: Some(asked) }) =
        failure
    else {
        panic!("{failure}")
    };
    let wait = delays(&second)[0];
    assert!(wait >= Duration::from_secs(asked.into()), "asked for {asked} s, waits {wait:?}");
    first.finish_among_others(&scene).await;
    let books = e2e::soon(second.device.stop(Duration::ZERO)).await;
    assert_eq!((books.queued, books.balances()), (1, true));
}

async fn a_service_that_fails_does_not_keep_a_device_from_its_hub(pipe: Pipe) {
    let scene = Scene::provisioned().await;
    let mut actor = scene.run_member(pipe);
    actor.send(5).await;
    actor.delivered().await;
    scene.emulator.dps().inject(Injection::until_cleared(DpsFault::Status { status: 500 }));
    scene.emulator.dps().repoint(GROUP, HUB_B).unwrap();
    actor.device.reprovision();
    actor.send(5).await;
    actor.delivered().await;
    assert_eq!(actor.device.assignment().unwrap().hub(), HUB_A);
    actor.finish(&scene).await;
}
