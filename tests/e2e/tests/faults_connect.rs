//! Faults before the link is up, and of sessions, over real TLS.

#![expect(clippy::unwrap_used, reason = "a test fails where it is")]

use std::time::Duration;

use e2e::{Actor, DEVICE, HUB_A, PATIENCE, Pipe, Scene, on_every_pipe, policy, soon, timeouts, until};
use hub_emulator::{CloseReason, Config, Fault, Flaw, HubConfig, Injection, Outcome, Rate};
use steadfast::{Failure, FailureClass, LinkEvent as Event, Subscriptions, TlsFailure};

on_every_pipe!(
    refusals_are_told_by_their_code_and_overcome,
    an_unacceptable_protocol_version_is_tried_again_at_the_slowest_pace,
    a_hub_that_closes_or_says_nonsense_is_tried_again,
    a_silent_hub_is_left_in_time_and_with_more_patience_each_time,
    a_late_connack_is_waited_for,
    accept_then_close_is_no_hot_loop,
    a_captive_portal_is_a_network_failure,
    each_flaw_of_a_certificate_is_told_and_no_mqtt_byte_is_sent,
    a_refused_subscription_is_told_and_asked_for_again,
    a_forgotten_session_is_subscribed_anew_and_resent,
    a_session_said_to_be_kept_is_not_believed_in_for_messages,
    a_session_said_to_be_forgotten_costs_only_repetitions,
    a_session_kept_against_the_order_is_left,
    two_devices_of_one_name_do_not_chase_each_other,
    a_hub_that_is_down_is_found_again,
    a_closed_port_is_tried_at_the_pace_of_the_policy,
    a_hub_that_fails_over_is_found_again,
    the_second_address_serves_when_the_first_is_dead,
    a_hub_at_the_limit_of_its_admission_takes_everyone_in_the_end,
);

/// Lets the hub do `fault` to the first `times` connections.
async fn meet(pipe: Pipe, fault: Fault, times: u32) -> (Scene, Actor) {
    let scene = Scene::at_hub().await;
    scene.emulator.hub(HUB_A).inject(Injection::times(fault, times));
    let mut actor = scene.run_device(pipe);
    actor.send(15).await;
    (scene, actor)
}

async fn refusals_are_told_by_their_code_and_overcome(pipe: Pipe) {
    for code in [2, 3, 4, 5, 77] {
        let (scene, actor) = meet(pipe, Fault::RefuseConnect { code }, 2).await;
        actor.failed(Failure::ConnectRefused(code)).await;
        actor.up().await;
        assert_eq!(actor.failures(), [Failure::ConnectRefused(code); 2]);
        let verdict = actor.finish(&scene).await;
        assert_eq!((verdict.duplicates, verdict.accepted, verdict.connections), (0, 1, 3));
    }
}

async fn an_unacceptable_protocol_version_is_tried_again_at_the_slowest_pace(pipe: Pipe) {
    let (scene, actor) = meet(pipe, Fault::RefuseConnect { code: 1 }, 1).await;
    actor.failed(Failure::ConnectRefused(1)).await;
    actor.up().await;
    assert_eq!(actor.finish(&scene).await.connections, 2);
}

async fn a_hub_that_closes_or_says_nonsense_is_tried_again(pipe: Pipe) {
    for fault in [Fault::CloseOnConnect, Fault::GarbageInsteadOfConnack, Fault::HtmlInsteadOfConnack] {
        let told = fault == Fault::CloseOnConnect;
        let (scene, actor) = meet(pipe, fault.clone(), 2).await;
        actor.up().await;
        let failures = actor.failures();
        assert_eq!(failures.len(), 2, "{fault:?}");
        for failure in failures {
            let class = failure.class();
            // Over another MQTT client nonsense and a close look the same.
            let fits = if told {
                class == FailureClass::Overload
            } else {
                class == FailureClass::Protocol || pipe != Pipe::Bytes
            };
            assert!(fits, "{fault:?}: {failure}");
        }
        actor.finish(&scene).await;
    }
}

async fn a_silent_hub_is_left_in_time_and_with_more_patience_each_time(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    scene.emulator.hub(HUB_A).inject(Injection::times(Fault::SilentConnect, 3));
    let mut patience = timeouts();
    patience.connack = Duration::from_millis(150);
    let mut actor = Actor::start(&scene, DEVICE, scene.device(pipe).timeouts(patience), 10);
    actor.send(5).await;
    actor.up().await;
    assert_eq!(actor.failures(), [Failure::ConnackTimeout; 3]);
    let records = scene.emulator.ledger().connections();
    let waits: Vec<_> = records[..3].iter().map(|one| one.closed_at.unwrap() - one.connect_at.unwrap()).collect();
    for (wait, least) in waits.iter().zip([150, 300, 600]) {
        assert!(*wait + Duration::from_millis(20) >= Duration::from_millis(least), "{waits:?}");
    }
    actor.finish(&scene).await;
}

async fn a_late_connack_is_waited_for(pipe: Pipe) {
    let (scene, actor) = meet(pipe, Fault::DelayConnack { delay: Duration::from_millis(800) }, 1).await;
    let verdict = actor.finish(&scene).await;
    assert_eq!((verdict.accepted, verdict.connections), (1, 1));
}

async fn accept_then_close_is_no_hot_loop(pipe: Pipe) {
    let (scene, actor) = meet(pipe, Fault::CloseAfterConnack, 5).await;
    until("five in vain", || actor.failures().len() >= 5).await;
    let waits: Vec<_> = actor
        .events()
        .into_iter()
        .filter_map(|(_, event)| if let Event::Retrying { delay, .. } = event { Some(delay) } else { None })
        .collect();
    assert!(waits[1..].iter().all(|wait| *wait >= policy().overload_jitter / 2), "{waits:?}");
    let verdict = actor.finish(&scene).await;
    assert_eq!(verdict.accepted, 6);
}

async fn a_captive_portal_is_a_network_failure(pipe: Pipe) {
    for fault in [Fault::HtmlInsteadOfTls, Fault::CloseBeforeTls] {
        let (scene, actor) = meet(pipe, fault, 2).await;
        actor.up().await;
        let failures = actor.failures();
        assert!(failures.iter().all(|failure| failure.class() == FailureClass::Unreachable), "{failures:?}");
        let verdict = actor.finish(&scene).await;
        assert_eq!((verdict.accepted, verdict.connections), (1, 3));
    }
}

async fn each_flaw_of_a_certificate_is_told_and_no_mqtt_byte_is_sent(pipe: Pipe) {
    let flaws = [
        (Flaw::Expired, TlsFailure::Expired),
        (Flaw::NotYetValid, TlsFailure::NotYetValid),
        (Flaw::WrongName, TlsFailure::WrongName),
        (Flaw::SelfSigned, TlsFailure::UnknownIssuer),
        (Flaw::UnknownIssuer, TlsFailure::UnknownIssuer),
    ];
    for (flaw, told) in flaws {
        let hub = HubConfig::new(HUB_A).device(DEVICE, e2e::key()).certificate_flaw(flaw);
        let scene = Scene::start(Config::new().hub_with(hub)).await;
        let mut actor = scene.run_device(pipe);
        actor.send(3).await;
        actor.failed(Failure::Tls(told)).await;
        actor.status("tried again", |status| status.failures >= 3).await;
        for record in scene.emulator.ledger().connections() {
            assert_eq!((record.bytes_received, record.connect_at), (0, None), "{flaw:?}");
        }
        scene.emulator.hub(HUB_A).set_certificate_flaw(None).unwrap();
        assert_eq!(actor.finish(&scene).await.accepted, 1);
    }
}

async fn a_refused_subscription_is_told_and_asked_for_again(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let hub = scene.emulator.hub(HUB_A);
    hub.inject(Fault::RefuseSubscribe);
    let mut actor = Actor::start(&scene, DEVICE, scene.device(pipe).subscriptions(Subscriptions::ALL), 10);
    actor.send(3).await;
    actor.failed(Failure::SubscribeRefused).await;
    actor.up().await;
    hub.device(DEVICE).send(&[("$.mid", "order-1")], b"open").unwrap();
    let inbound = soon(actor.device.messages().next()).await.unwrap();
    assert_eq!(inbound.payload(), b"open");
    inbound.acknowledge();
    until("the hub knows that it arrived", || hub.device(DEVICE).waiting().unwrap() == 0).await;
    actor.finish(&scene).await;
}

async fn a_forgotten_session_is_subscribed_anew_and_resent(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let hub = scene.emulator.hub(HUB_A);
    let mut actor = Actor::start(&scene, DEVICE, scene.device(pipe).subscriptions(Subscriptions::ALL), 10);
    actor.up().await;
    hub.inject(Injection::until_cleared(Fault::WithholdPubacks));
    actor.send(15).await;
    until("a window is there", || scene.emulator.ledger().counts(DEVICE).stored >= 10).await;
    hub.forget_sessions().unwrap();
    hub.disconnect_all(true).unwrap();
    hub.clear_faults();
    actor.lost().await;
    actor.up().await;
    hub.device(DEVICE).send(&[], b"still there?").unwrap();
    let inbound = soon(actor.device.messages().next()).await.unwrap();
    inbound.acknowledge();
    let verdict = actor.finish(&scene).await;
    assert_eq!((verdict.duplicates, verdict.dup_flags), (10, 0), "a new session knows no duplicates");
}

async fn a_session_said_to_be_kept_is_not_believed_in_for_messages(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let hub = scene.emulator.hub(HUB_A);
    hub.inject(Injection::until_cleared(Fault::SessionPresent { present: true }));
    let mut actor = Actor::start(&scene, DEVICE, scene.device(pipe).subscriptions(Subscriptions::ALL), 10);
    actor.up().await;
    hub.device(DEVICE).send(&[], b"the first connection is subscribed all the same").unwrap();
    soon(actor.device.messages().next()).await.unwrap().acknowledge();
    hub.inject(Injection::once(Fault::DropBeforeStore).after(4));
    actor.send(15).await;
    let verdict = actor.finish(&scene).await;
    assert!(verdict.duplicates <= pipe.lost_with_the_end(4), "{verdict:?}");
    assert_eq!(verdict.accepted, 2);
}

async fn a_session_said_to_be_forgotten_costs_only_repetitions(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let hub = scene.emulator.hub(HUB_A);
    hub.inject(Injection::until_cleared(Fault::SessionPresent { present: false }));
    hub.inject(Injection::once(Fault::DropAfterStoreBeforePuback).after(4));
    let mut actor = scene.run_device(pipe);
    actor.send(15).await;
    let verdict = actor.finish(&scene).await;
    assert!((1..=1 + pipe.lost_with_the_end(4)).contains(&verdict.duplicates), "{verdict:?}");
    assert_eq!((verdict.dup_flags, verdict.accepted), (0, 2));
}

async fn a_session_kept_against_the_order_is_left(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    scene.emulator.hub(HUB_A).inject(Fault::SessionPresent { present: true });
    let mut actor = Actor::start(&scene, DEVICE, scene.device(pipe).clean_session(true), 10);
    actor.send(3).await;
    actor.failed(Failure::UnexpectedSession).await;
    actor.up().await;
    assert_eq!(actor.finish(&scene).await.connections, 2);
}

async fn two_devices_of_one_name_do_not_chase_each_other(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let mut one = scene.run_device(pipe);
    one.send(5).await;
    one.up().await;
    let mut other = scene.run_device(pipe);
    other.send(5).await;
    let before = std::time::Instant::now();
    tokio::time::sleep(Duration::from_secs(2)).await;
    until("one takes over from the other", || scene.emulator.ledger().connections().len() >= 3).await;
    let count = scene.emulator.ledger().connections().len();
    // At least half a spread apart each, beside the first two of both: 300 ms of back-off here, a minute in the field.
    let most = 15.0 * before.elapsed().as_secs_f64();
    assert!(f64::from(u32::try_from(count).unwrap()) <= most, "{count} connections, and {most} at most in that time");
    let taken = |reason: &Option<CloseReason>| *reason == Some(CloseReason::TakenOver);
    assert!(scene.emulator.ledger().connections().iter().any(|record| taken(&record.closed)));
    other.delivered().await;
    let sent = other.outcomes().await;
    assert!(sent.iter().all(|sent| sent.outcome.is_ok()));
    soon(other.device.stop(Duration::ZERO)).await;
    one.send(5).await;
    one.delivered().await;
    soon(one.device.stop(Duration::from_secs(5))).await;
    let accepted: Vec<String> = one.ids();
    let report = scene.emulator.ledger().check(DEVICE, accepted.iter().cloned());
    assert!(report.lost.is_empty() && report.reordered.is_empty(), "{report}");
}

/// Takes the hub down for a while under load, and returns how often the device tried meanwhile.
async fn outage(scene: &Scene, actor: &mut Actor, span: Duration) -> usize {
    let hub = scene.emulator.hub(HUB_A);
    actor.send(10).await;
    actor.delivered().await;
    hub.down().unwrap();
    actor.send(20).await;
    actor.lost().await;
    let before = actor.device.status().failures;
    tokio::time::sleep(span).await;
    let tried = actor.device.status().failures - before;
    hub.up().unwrap();
    actor.up().await;
    usize::try_from(tried).unwrap()
}

async fn a_hub_that_is_down_is_found_again(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let mut actor = scene.run_device(pipe);
    let tried = outage(&scene, &mut actor, Duration::from_millis(1200)).await;
    assert!((1..=60).contains(&tried), "{tried} attempts in 1.2 s");
    let verdict = actor.finish(&scene).await;
    assert_eq!(verdict.accepted, 2);
}

async fn a_closed_port_is_tried_at_the_pace_of_the_policy(pipe: Pipe) {
    let hub = HubConfig::new(HUB_A).device(DEVICE, e2e::key()).port(0);
    let scene = Scene::start(Config::new().hub_with(hub)).await;
    let mut actor = scene.run_device(pipe);
    let tried = outage(&scene, &mut actor, Duration::from_millis(1200)).await;
    assert!((1..=60).contains(&tried), "{tried} attempts in 1.2 s");
    assert!(actor.failures().contains(&Failure::ConnectionRefused), "{:?}", actor.failures());
    actor.finish(&scene).await;
}

async fn a_hub_that_fails_over_is_found_again(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let mut actor = Actor::start(&scene, DEVICE, scene.device(pipe).subscriptions(Subscriptions::ALL), 10);
    actor.send(10).await;
    actor.up().await;
    scene.emulator.hub(HUB_A).fail_over(Duration::from_millis(500)).unwrap();
    actor.send(10).await;
    actor.lost().await;
    actor.up().await;
    scene.emulator.hub(HUB_A).device(DEVICE).send(&[], b"hello again").unwrap();
    soon(actor.device.messages().next()).await.unwrap().acknowledge();
    actor.finish(&scene).await;
}

async fn the_second_address_serves_when_the_first_is_dead(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let builder = scene.device(pipe).resolve(HUB_A, [dead, scene.emulator.tls_addr()]);
    let mut actor = Actor::start(&scene, DEVICE, builder, 10);
    actor.send(5).await;
    actor.up().await;
    assert_eq!(actor.failures(), []);
    actor.finish(&scene).await;
}

async fn a_hub_at_the_limit_of_its_admission_takes_everyone_in_the_end(pipe: Pipe) {
    let mut hub = HubConfig::new(HUB_A).admission(Rate::new(15.0, 2, 3));
    let names: Vec<String> = (0..12).map(|number| format!("pump-{number}")).collect();
    for name in &names {
        hub = hub.device(name, e2e::key());
    }
    let scene = Scene::start(Config::new().hub_with(hub)).await;
    let mut actors = Vec::new();
    for name in &names {
        let builder = scene.builder(pipe).hub(HUB_A, name).shared_key(&e2e::key().to_base64());
        let mut actor = Actor::start(&scene, name, builder, 10);
        actor.send(3).await;
        actors.push(actor);
    }
    for actor in &actors {
        actor.delivered().await;
    }
    let immediate_closes = |record: &hub_emulator::ConnectionRecord| record.outcome == Outcome::Unanswered;
    let records = scene.emulator.ledger().connections();
    assert!(records.iter().any(immediate_closes), "some were turned away");
    assert!(records.len() <= 12 * 12, "{} connections", records.len());
    for actor in actors {
        actor.finish_among_others(&scene).await;
    }
    assert!(scene.emulator.now() < PATIENCE);
}
