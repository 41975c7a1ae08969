//! Faults of identities, credentials and clocks, and moves from hub to hub, over real TLS.

#![expect(clippy::unwrap_used, reason = "a test fails where it is")]

use std::time::Duration;

use e2e::{Actor, DEVICE, GROUP, HUB_A, HUB_B, Pipe, Scene, on_every_pipe, policy, until};
use hub_emulator::{
    CloseReason, Config, DeviceAuth, DpsConfig, DpsRefusal, Enrollment, Fault, HubConfig, Injection, Key, Outcome,
    Refusal,
};
use steadfast::{Advice, Failure, FailureClass, LinkEvent as Event, Reprovisioning, Subscriptions};

on_every_pipe!(
    a_disabled_device_waits_and_comes_back_when_enabled,
    a_deleted_device_registers_again_and_loses_nothing,
    a_rotated_key_of_a_device_leads_to_the_provisioning_service,
    a_device_with_a_new_primary_and_its_own_key_as_secondary_goes_on,
    a_moved_device_follows_with_its_queue,
    a_move_with_a_full_window_in_flight_resends_it_in_order,
    all_devices_of_a_hub_move,
    a_hub_that_vanishes_for_long_is_asked_for_at_the_provisioning_service,
    an_order_to_register_again_moves_a_healthy_device,
    overload_never_leads_to_the_provisioning_service,
    a_connection_that_ends_with_its_token_comes_back_with_a_fresh_one,
    a_clock_that_is_wrong_is_learnt_from_the_provisioning_service,
    a_clock_that_is_wrong_at_a_hub_is_told_as_a_refusal,
    a_wrong_key_is_told_as_a_refusal_at_the_pace_of_refusals,
);

async fn a_disabled_device_waits_and_comes_back_when_enabled(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let device = scene.emulator.hub(HUB_A).device(DEVICE);
    let mut actor = scene.run_device(pipe);
    actor.send(10).await;
    actor.delivered().await;
    device.disable().unwrap();
    actor.send(10).await;
    let status = actor.failed(Failure::ConnectRefused(5)).await;
    assert_eq!(status.advice(), Advice::CheckCredential);
    assert!(status.first_failure.is_some_and(Failure::is_loss), "{status}");
    until("refused thrice", || actor.device.status().failures >= 4).await;
    device.enable().unwrap();
    let verdict = actor.finish(&scene).await;
    assert_eq!(verdict.accepted, 2);
    let why = |outcome| matches!(outcome, Outcome::Refused { code: 5, why: Refusal::Disabled });
    assert!(scene.emulator.ledger().connections().iter().any(|record| why(record.outcome)));
}

async fn a_deleted_device_registers_again_and_loses_nothing(pipe: Pipe) {
    let scene = Scene::provisioned().await;
    let mut actor = scene.run_member(pipe);
    actor.send(10).await;
    actor.delivered().await;
    scene.emulator.hub(HUB_A).device(DEVICE).delete().unwrap();
    actor.send(10).await;
    actor.failed(Failure::ConnectRefused(5)).await;
    let verdict = actor.finish(&scene).await;
    assert_eq!(verdict.accepted, 2);
    assert_eq!(scene.emulator.dps().registration_count(DEVICE), 2);
}

async fn a_rotated_key_of_a_device_leads_to_the_provisioning_service(pipe: Pipe) {
    let mut scene = Scene::provisioned().await;
    let mut actor = scene.run_member(pipe);
    actor.send(10).await;
    actor.delivered().await;
    let other = Key::from_seed("rotated");
    scene.keep_secret(&other);
    scene.emulator.hub(HUB_A).device(DEVICE).set_auth(other).unwrap();
    actor.send(10).await;
    actor.failed(Failure::ConnectRefused(5)).await;
    actor.finish(&scene).await;
    assert_eq!(scene.emulator.dps().registration_count(DEVICE), 2);
}

async fn a_device_with_a_new_primary_and_its_own_key_as_secondary_goes_on(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let mut actor = scene.run_device(pipe);
    actor.send(10).await;
    actor.delivered().await;
    let auth = DeviceAuth::Keys { primary: Key::from_seed("next"), secondary: Some(e2e::key()) };
    scene.emulator.hub(HUB_A).device(DEVICE).set_auth(auth).unwrap();
    actor.send(10).await;
    let failures = actor.failures();
    assert!(failures.iter().all(|failure| failure.is_loss()), "{failures:?}");
    assert_eq!(actor.finish(&scene).await.accepted, 2);
}

async fn a_moved_device_follows_with_its_queue(pipe: Pipe) {
    let scene = Scene::provisioned().await;
    let builder = scene.member(pipe).subscriptions(Subscriptions::ALL);
    let mut actor = Actor::start(&scene, DEVICE, builder, 10);
    actor.send(20).await;
    actor.delivered().await;
    scene.emulator.dps().repoint(GROUP, HUB_B).unwrap();
    scene.emulator.move_device(DEVICE, HUB_A, HUB_B).unwrap();
    actor.send(20).await;
    actor.status("up again", |status| status.registrations == 2).await;
    actor.delivered().await;
    scene.emulator.hub(HUB_B).device(DEVICE).send(&[], b"welcome").unwrap();
    e2e::soon(actor.device.messages().next()).await.unwrap().acknowledge();
    assert_eq!(actor.device.assignment().unwrap().hub(), HUB_B);
    assert!(actor.events().iter().any(|(_, event)| *event == Event::Provisioned { migrated: true }));
    let verdict = actor.finish(&scene).await;
    assert_eq!((verdict.duplicates, verdict.accepted), (0, 2));
    let hubs: Vec<_> = scene.emulator.ledger().messages(DEVICE).into_iter().map(|message| message.hub).collect();
    assert!(hubs[..20].iter().all(|hub| hub == HUB_A) && hubs[20..].iter().all(|hub| hub == HUB_B), "{hubs:?}");
}

async fn a_move_with_a_full_window_in_flight_resends_it_in_order(pipe: Pipe) {
    let scene = Scene::provisioned().await;
    let mut actor = scene.run_member(pipe);
    actor.up().await;
    scene.emulator.hub(HUB_A).inject(Injection::until_cleared(Fault::WithholdPubacks));
    actor.send(25).await;
    until("a window is there", || scene.emulator.ledger().counts(DEVICE).stored == 10).await;
    scene.emulator.dps().repoint(GROUP, HUB_B).unwrap();
    scene.emulator.move_device(DEVICE, HUB_A, HUB_B).unwrap();
    let verdict = actor.finish(&scene).await;
    assert_eq!((verdict.duplicates, verdict.dup_flags), (10, 0), "hub-b knows nothing of the session at hub-a");
}

async fn all_devices_of_a_hub_move(pipe: Pipe) {
    let scene = Scene::provisioned().await;
    let mut actors = Vec::new();
    for number in 0..5 {
        let name = format!("pump-{number}");
        let dps = steadfast::Dps::new(&scene.emulator.dps().id_scope(), &name);
        let builder = scene.builder(pipe).provision_with(dps).group_key(&e2e::key().to_base64());
        let mut actor = Actor::start(&scene, &name, builder, 10);
        actor.send(5).await;
        actors.push(actor);
    }
    for actor in &actors {
        actor.delivered().await;
    }
    scene.emulator.move_all(HUB_A, HUB_B).unwrap();
    for actor in &mut actors {
        actor.send(5).await;
    }
    for actor in actors {
        assert_eq!(actor.finish_among_others(&scene).await.accepted, 2);
    }
}

async fn a_hub_that_vanishes_for_long_is_asked_for_at_the_provisioning_service(pipe: Pipe) {
    let scene = Scene::provisioned().await;
    let mut actor = scene.run_member(pipe);
    actor.send(10).await;
    actor.delivered().await;
    // Once it was stable, a loss is no overload.
    tokio::time::sleep(policy().reset_after + Duration::from_millis(200)).await;
    scene.emulator.hub(HUB_A).down().unwrap();
    scene.emulator.dps().repoint(GROUP, HUB_B).unwrap();
    actor.send(10).await;
    actor.status("registered again", |status| status.registrations == 2).await;
    let verdict = actor.finish(&scene).await;
    assert_eq!((verdict.duplicates, verdict.accepted), (0, 2));
}

async fn an_order_to_register_again_moves_a_healthy_device(pipe: Pipe) {
    let scene = Scene::provisioned().await;
    let mut actor = scene.run_member(pipe);
    actor.send(10).await;
    actor.delivered().await;
    scene.emulator.dps().repoint(GROUP, HUB_B).unwrap();
    actor.device.reprovision();
    actor.send(10).await;
    let verdict = actor.finish(&scene).await;
    assert_eq!((verdict.duplicates, verdict.accepted), (0, 2));
    let records = scene.emulator.ledger().connections_of(DEVICE);
    assert!(records.iter().all(|record| record.closed == Some(CloseReason::Disconnected)), "{records:?}");
    assert_eq!(scene.logs.alarms(), Vec::<String>::new(), "a move on order is no failure");
}

async fn overload_never_leads_to_the_provisioning_service(pipe: Pipe) {
    let scene = Scene::provisioned().await;
    let mut rules = Reprovisioning::DEFAULT;
    rules.after_unreachable = Duration::from_millis(100);
    rules.spacing = Duration::from_millis(1);
    let mut actor = Actor::start(&scene, DEVICE, scene.member(pipe).reprovisioning(rules), 10);
    actor.up().await;
    let hub = scene.emulator.hub(HUB_A);
    hub.inject(Injection::times(Fault::RefuseConnect { code: 3 }, 2));
    hub.inject(Injection::times(Fault::CloseOnConnect, 2));
    hub.disconnect_all(true).unwrap();
    actor.send(5).await;
    until("all met", || actor.device.status().failures >= 4 || actor.failures().len() >= 5).await;
    actor.delivered().await;
    assert!(actor.failures().iter().all(|failure| failure.class() == FailureClass::Overload), "{:?}", actor.failures());
    actor.finish(&scene).await;
    assert_eq!(scene.emulator.dps().registration_count(DEVICE), 1);
}

async fn a_connection_that_ends_with_its_token_comes_back_with_a_fresh_one(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let mut actor = scene.run_device(pipe);
    actor.send(5).await;
    actor.delivered().await;
    scene.emulator.clock().advance(Duration::from_secs(3600 + 601));
    actor.lost().await;
    scene.emulator.clock().set_offset_seconds(0);
    actor.send(5).await;
    actor.finish(&scene).await;
    let closed = scene.emulator.ledger().connections()[0].closed.clone();
    assert_eq!(closed, Some(CloseReason::TokenExpired));
}

async fn a_clock_that_is_wrong_is_learnt_from_the_provisioning_service(pipe: Pipe) {
    for offset in [2 * 3600, 30 * 86_400] {
        let dps = DpsConfig::new().assigning_polls(0).refusal(DpsRefusal::Register);
        let config = Config::new().hub(HUB_A).dps(dps).enroll(Enrollment::group(GROUP, e2e::key()));
        let scene = Scene::start(config).await;
        scene.emulator.clock().set_offset_seconds(offset);
        let mut actor = scene.run_member(pipe);
        actor.send(5).await;
        actor.delivered().await;
        let status = actor.device.status();
        let skew = status.clock_skew_secs.unwrap();
        assert!((offset - 5..=offset + 5).contains(&skew), "{skew}");
        assert_eq!(status.advice(), Advice::SetClock);
        let told = |event: &Event| matches!(event, Event::ClockSkew { .. });
        assert!(actor.events().iter().any(|(_, event)| told(event)));
        actor.finish(&scene).await;
    }
}

async fn a_clock_that_is_wrong_at_a_hub_is_told_as_a_refusal(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    scene.emulator.clock().set_offset_seconds(2 * 3600);
    let mut actor = scene.run_device(pipe);
    actor.send(5).await;
    actor.failed(Failure::ConnectRefused(5)).await;
    let expired = |outcome| matches!(outcome, Outcome::Refused { why: Refusal::Expired, .. });
    assert!(scene.emulator.ledger().connections().iter().any(|record| expired(record.outcome)));
    scene.emulator.clock().set_offset_seconds(0);
    actor.finish(&scene).await;
}

async fn a_wrong_key_is_told_as_a_refusal_at_the_pace_of_refusals(pipe: Pipe) {
    let mut scene =
        Scene::start(Config::new().hub_with(HubConfig::new(HUB_A).device(DEVICE, Key::from_seed("another")))).await;
    scene.keep_secret(&Key::from_seed("another"));
    let mut actor = scene.run_device(pipe);
    actor.send(5).await;
    until("refused four times", || actor.device.status().failures >= 4).await;
    assert_eq!(actor.device.status().advice(), Advice::CheckCredential);
    let waits: Vec<_> = actor
        .events()
        .into_iter()
        .filter_map(|(_, event)| if let Event::Retrying { delay, .. } = event { Some(delay) } else { None })
        .collect();
    // A fresh token first, then slower and slower.
    assert!(waits[0] <= policy().first_jitter, "{waits:?}");
    assert!(waits[1] >= policy().refused_first && waits[2] >= policy().refused_first * 2, "{waits:?}");
    scene.emulator.hub(HUB_A).device(DEVICE).set_auth(e2e::key()).unwrap();
    actor.finish(&scene).await;
}
