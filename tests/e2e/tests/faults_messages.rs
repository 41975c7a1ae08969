//! Faults between PUBLISH and PUBACK, over real TLS; the emulator's ledger tells what came of it.

#![expect(clippy::unwrap_used, reason = "a test fails where it is")]

use std::time::Duration;

use e2e::{DEVICE, HUB_A, Pipe, Scene, Verdict, on_every_pipe, policy, soon, timeouts, until};
use hub_emulator::{CloseReason, Config, Fault, HubConfig, Injection, Rate};
use steadfast::{Failure, State};

on_every_pipe!(
    a_healthy_hub_gets_every_message_once,
    a_cut_before_the_store_loses_nothing,
    a_cut_between_store_and_puback_repeats_at_most_a_window,
    a_cut_after_the_puback_repeats_only_what_was_not_acknowledged,
    cuts_in_a_row_lose_nothing,
    a_connection_cut_after_any_number_of_bytes_received_loses_nothing,
    a_connection_cut_after_any_number_of_bytes_sent_loses_nothing,
    a_reset_connection_loses_nothing,
    late_pubacks_are_waited_for,
    withheld_pubacks_end_the_connection_in_time,
    repeated_pubacks_acknowledge_nothing_else,
    stray_pubacks_acknowledge_nothing,
    a_hub_that_stops_reading_holds_the_outbox_within_its_limit,
    a_half_open_connection_is_found_within_one_and_a_half_keep_alives,
    a_silent_ping_ends_the_connection,
    an_idle_connection_lives_on_pings,
    throttled_telemetry_arrives_late_and_whole,
    telemetry_beyond_the_throttle_is_closed_upon_and_arrives,
    a_message_that_kills_every_connection_is_set_aside_when_asked,
);

async fn a_healthy_hub_gets_every_message_once(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let mut actor = scene.run_device(pipe);
    actor.send(100).await;
    let Verdict { duplicates, accepted, .. } = actor.finish(&scene).await;
    assert_eq!((duplicates, accepted), (0, 1));
}

/// Sends ten messages, ten more with `fault` at the third of them, and ten more.
async fn with_fault(pipe: Pipe, fault: Fault) -> (Scene, Verdict) {
    let scene = Scene::at_hub().await;
    let mut actor = scene.run_device(pipe);
    actor.send(10).await;
    actor.delivered().await;
    scene.emulator.hub(HUB_A).device(DEVICE).inject(Injection::once(fault).after(2));
    actor.send(20).await;
    let verdict = actor.finish(&scene).await;
    (scene, verdict)
}

async fn a_cut_before_the_store_loses_nothing(pipe: Pipe) {
    let (scene, verdict) = with_fault(pipe, Fault::DropBeforeStore).await;
    assert!(verdict.duplicates <= pipe.lost_with_the_end(2), "{verdict:?}");
    assert_eq!(verdict.accepted, 2);
    let vanished: Vec<_> = scene.emulator.ledger().receipts(DEVICE).into_iter().filter(|one| !one.stored).collect();
    assert_eq!(vanished.len(), 1);
    assert_eq!(vanished[0].property("seq"), Some("12"));
}

async fn a_cut_between_store_and_puback_repeats_at_most_a_window(pipe: Pipe) {
    let (scene, verdict) = with_fault(pipe, Fault::DropAfterStoreBeforePuback).await;
    assert!((1..=1 + pipe.lost_with_the_end(2)).contains(&verdict.duplicates), "{verdict:?}");
    assert_eq!(verdict.accepted, 2);
    let times: Vec<_> = scene
        .emulator
        .ledger()
        .messages(DEVICE)
        .into_iter()
        .filter(|message| message.property("seq") == Some("12"))
        .collect();
    assert_eq!(times.len(), 2);
    assert_eq!(times[0].message_id, times[1].message_id);
    assert!(!times[0].dup);
    if pipe == Pipe::Bytes {
        // The session was kept: the same packet again, and it says so (MQTT 3.1.1, section 4.4).
        assert_eq!((times[1].packet_id, times[1].dup), (times[0].packet_id, true));
    }
}

async fn a_cut_after_the_puback_repeats_only_what_was_not_acknowledged(pipe: Pipe) {
    let (_, verdict) = with_fault(pipe, Fault::DropAfterPuback).await;
    // The acknowledgement may still arrive, or go down with the connection.
    assert!(verdict.duplicates <= 1 + pipe.lost_with_the_end(2), "{verdict:?}");
    assert_eq!(verdict.accepted, 2);
}

async fn cuts_in_a_row_lose_nothing(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let mut actor = scene.run_device(pipe);
    let hub = scene.emulator.hub(HUB_A);
    for fault in [Fault::DropAfterStoreBeforePuback, Fault::DropBeforeStore, Fault::DropAfterPuback] {
        hub.inject(Injection::once(fault).after(1));
    }
    actor.send(60).await;
    let verdict = actor.finish(&scene).await;
    assert_eq!(verdict.accepted, 4);
}

/// Cuts a connection again and again, each time after another number of bytes.
async fn cut_at(pipe: Pipe, cut: impl Fn(u64) -> Fault, places: &[u64]) {
    let scene = Scene::at_hub().await;
    // Every connection counts as one that lasted, or the back-off would grow with each cut.
    let mut policy = policy();
    policy.reset_after = Duration::from_millis(1);
    let mut actor = e2e::Actor::start(&scene, DEVICE, scene.device(pipe).retry(policy), 10);
    actor.policy = policy;
    actor.send(1).await;
    actor.delivered().await;
    let device = scene.emulator.hub(HUB_A).device(DEVICE);
    for bytes in places {
        let before = scene.emulator.ledger().connections().len();
        device.inject(cut(*bytes));
        actor.send(5).await;
        until("the connection is cut", || scene.emulator.ledger().connections().len() > before).await;
        actor.delivered().await;
    }
    actor.send(5).await;
    actor.finish(&scene).await;
}

async fn a_connection_cut_after_any_number_of_bytes_received_loses_nothing(pipe: Pipe) {
    // One telemetry packet of these is about 70 bytes.
    cut_at(pipe, |bytes| Fault::CloseAfterReceived { bytes }, &[1, 2, 3, 40, 69, 71, 75, 141, 200]).await;
}

async fn a_connection_cut_after_any_number_of_bytes_sent_loses_nothing(pipe: Pipe) {
    // CONNACK and PUBACK take four bytes each.
    cut_at(pipe, |bytes| Fault::CloseAfterSent { bytes }, &[1, 2, 3, 4, 5, 7, 8, 11]).await;
}

async fn a_reset_connection_loses_nothing(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let mut actor = scene.run_device(pipe);
    actor.send(5).await;
    actor.up().await;
    for _ in 0..3 {
        scene.emulator.hub(HUB_A).device(DEVICE).disconnect(true).unwrap();
        actor.lost().await;
        actor.send(5).await;
        actor.up().await;
    }
    let verdict = actor.finish(&scene).await;
    assert_eq!(verdict.accepted, 4);
}

async fn late_pubacks_are_waited_for(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let delay = Duration::from_millis(300);
    scene.emulator.hub(HUB_A).inject(Injection::until_cleared(Fault::DelayPubacks { delay }));
    let mut actor = scene.run_device(pipe);
    actor.send(20).await;
    let verdict = actor.finish(&scene).await;
    assert_eq!((verdict.duplicates, verdict.accepted), (0, 1));
}

async fn withheld_pubacks_end_the_connection_in_time(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let fault = scene.emulator.hub(HUB_A).inject(Injection::until_cleared(Fault::WithholdPubacks));
    let mut patience = timeouts();
    patience.puback = Duration::from_millis(300);
    let mut actor = e2e::Actor::start(&scene, DEVICE, scene.device(pipe).timeouts(patience), 10);
    actor.send(15).await;
    actor.failed(Failure::PubackTimeout).await;
    assert!(scene.emulator.clear_fault(fault));
    let verdict = actor.finish(&scene).await;
    // Those withheld on the first connection are gone with it.
    assert!(verdict.duplicates >= 10, "{verdict:?}");
}

async fn repeated_pubacks_acknowledge_nothing_else(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    scene.emulator.hub(HUB_A).inject(Injection::times(Fault::RepeatPubacks, 5));
    let mut actor = scene.run_device(pipe);
    actor.send(30).await;
    let verdict = actor.finish(&scene).await;
    if pipe == Pipe::Bytes {
        assert_eq!((verdict.duplicates, verdict.accepted), (0, 1));
    }
}

async fn stray_pubacks_acknowledge_nothing(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let hub = scene.emulator.hub(HUB_A);
    hub.inject(Injection::times(Fault::StrayPubacks, 5));
    let mut actor = scene.run_device(pipe);
    actor.send(30).await;
    let verdict = actor.finish(&scene).await;
    if pipe == Pipe::Bytes {
        assert_eq!((verdict.duplicates, verdict.accepted), (0, 1));
    }
}

async fn a_hub_that_stops_reading_holds_the_outbox_within_its_limit(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let mut patience = timeouts();
    patience.puback = Duration::from_millis(700);
    let builder = scene.device(pipe).timeouts(patience).outbox(40, 1 << 22);
    let mut actor = e2e::Actor::start(&scene, DEVICE, builder, 10);
    actor.send(1).await;
    actor.up().await;
    actor.delivered().await;
    let fault = scene.emulator.hub(HUB_A).inject(Injection::until_cleared(Fault::StopReading));
    actor.send(40).await;
    let full = actor.device.try_send(&steadfast::Telemetry::new("x")).unwrap_err();
    assert_eq!(full, steadfast::SendError::Full);
    actor.failed(Failure::PubackTimeout).await;
    assert!(scene.emulator.clear_fault(fault));
    actor.finish(&scene).await;
}

async fn a_half_open_connection_is_found_within_one_and_a_half_keep_alives(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let builder = scene.device(pipe).keep_alive(Duration::from_secs(1));
    let mut actor = e2e::Actor::start(&scene, DEVICE, builder, 10);
    actor.send(1).await;
    actor.up().await;
    actor.delivered().await;
    let before = scene.emulator.now();
    scene.emulator.hub(HUB_A).inject(Fault::HalfOpen);
    actor.send(3).await;
    actor.failed(Failure::KeepAliveTimeout).await;
    let found = scene.emulator.now() - before;
    assert!(found >= Duration::from_millis(1400), "{found:?}");
    assert!(found < Duration::from_millis(2500), "{found:?}");
    let verdict = actor.finish(&scene).await;
    assert_eq!((verdict.duplicates, verdict.accepted), (0, 2));
}

async fn a_silent_ping_ends_the_connection(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let builder = scene.device(pipe).keep_alive(Duration::from_secs(1));
    let mut actor = e2e::Actor::start(&scene, DEVICE, builder, 10);
    actor.send(1).await;
    scene.emulator.hub(HUB_A).inject(Fault::SilentPing);
    actor.failed(Failure::KeepAliveTimeout).await;
    actor.up().await;
    let verdict = actor.finish(&scene).await;
    assert_eq!((verdict.duplicates, verdict.accepted), (0, 2));
}

async fn an_idle_connection_lives_on_pings(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let builder = scene.device(pipe).keep_alive(Duration::from_secs(1));
    let mut actor = e2e::Actor::start(&scene, DEVICE, builder, 10);
    actor.send(1).await;
    actor.delivered().await;
    tokio::time::sleep(Duration::from_millis(2600)).await;
    actor.send(1).await;
    let verdict = actor.finish(&scene).await;
    assert_eq!((verdict.duplicates, verdict.accepted), (0, 1));
    assert_eq!(scene.logs.alarms(), Vec::<String>::new());
}

async fn throttled_telemetry_arrives_late_and_whole(pipe: Pipe) {
    let hub = HubConfig::new(HUB_A).device(DEVICE, e2e::key()).telemetry(Rate::new(60.0, 5, 1000));
    let scene = Scene::start(Config::new().hub_with(hub)).await;
    let mut actor = scene.run_device(pipe);
    actor.send(65).await;
    let verdict = actor.finish(&scene).await;
    assert_eq!((verdict.duplicates, verdict.accepted), (0, 1));
    let messages = scene.emulator.ledger().messages(DEVICE);
    let span = messages[64].at - messages[0].at;
    assert!(span >= Duration::from_millis(800), "sixty a second: {span:?}");
}

async fn telemetry_beyond_the_throttle_is_closed_upon_and_arrives(pipe: Pipe) {
    let hub = HubConfig::new(HUB_A).device(DEVICE, e2e::key()).telemetry(Rate::new(60.0, 20, 0));
    let scene = Scene::start(Config::new().hub_with(hub)).await;
    let mut actor = scene.run_device(pipe);
    actor.send(40).await;
    let verdict = actor.finish(&scene).await;
    assert!(verdict.accepted > 1, "{verdict:?}");
    let records = scene.emulator.ledger().connections_of(DEVICE);
    assert!(records.iter().any(|record| record.closed == Some(CloseReason::Throttled)), "{records:?}");
}

async fn a_message_that_kills_every_connection_is_set_aside_when_asked(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let mut hasty = policy();
    hasty.overload_jitter = Duration::from_millis(40);
    let builder = scene.device(pipe).poison_threshold(2).retry(hasty).window(4);
    let (device, driver) = builder.build().unwrap();
    let driver = tokio::spawn(driver);
    let first = soon(device.send(steadfast::Telemetry::new("good"))).await.unwrap();
    let first = first;
    soon(first.delivered()).await.unwrap();
    scene.emulator.hub(HUB_A).inject(Injection::until_cleared(Fault::DropBeforeStore));
    let poison = soon(device.send(steadfast::Telemetry::new("poison"))).await.unwrap();
    assert_eq!(soon(poison.delivered()).await, Err(steadfast::DeliveryError::Rejected));
    scene.emulator.hub(HUB_A).clear_faults();
    let later = soon(device.send(steadfast::Telemetry::new("later"))).await.unwrap();
    soon(later.delivered()).await.unwrap();
    let books = soon(device.stop(Duration::from_secs(5))).await;
    assert!(books.balances());
    assert_eq!((books.accepted, books.delivered, books.rejected), (3, 2, 1));
    assert_eq!(soon(driver).await.unwrap(), books);
    assert_eq!(device.status().state, State::Stopped);
}
