//! A device as part of a process: stopping, dropped futures, a quiet log, many devices side by side.

#![expect(clippy::unwrap_used, reason = "a test fails where it is")]

use std::time::{Duration, Instant};

use e2e::{Actor, DEVICE, HUB_A, Pipe, Scene, on_every_pipe, policy, soon, timeouts, until};
use hub_emulator::{CloseReason, Config, Enrollment, Fault, HubConfig, Injection, Key, LedgerMode};
use steadfast::{
    DeliveryError, Device, Dps, FailureClass, LinkEvent as Event, Overflow, SendError, State, Subscriptions, Telemetry,
};

on_every_pipe!(
    a_healthy_life_is_quiet,
    a_stop_drains_what_is_queued_and_leaves_in_order,
    a_stop_at_a_hub_that_acknowledges_nothing_ends_at_its_deadline,
    a_stop_without_a_hub_ends_at_once_and_hands_back_what_is_left,
    a_stop_during_each_phase_of_an_attempt_ends_at_once,
    a_dropped_driver_tells_every_receipt,
    dropped_futures_lose_nothing_and_queue_nothing,
    receipts_can_be_dropped,
    a_full_outbox_waits_or_evicts_as_told,
    expired_messages_are_told_and_not_sent,
    what_a_dead_process_left_is_sent_by_the_next,
    fifty_devices_with_one_poisoned_identity,
    two_seeds_spread_a_fleet_and_lose_nothing,
    messages_from_the_cloud_come_again_until_acknowledged,
    the_largest_message_passes_and_a_larger_one_is_refused,
    messages_are_sent_from_any_thread,
    an_uplink_of_large_messages_keeps_its_order,
);

async fn a_healthy_life_is_quiet(pipe: Pipe) {
    let scene = Scene::provisioned().await;
    let builder = scene.member(pipe).subscriptions(Subscriptions::ALL).keep_alive(Duration::from_secs(1));
    let mut actor = Actor::start(&scene, DEVICE, builder, 10);
    actor.send(50).await;
    actor.delivered().await;
    scene.emulator.hub(HUB_A).device(DEVICE).send(&[], b"hello").unwrap();
    soon(actor.device.messages().next()).await.unwrap().acknowledge();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    actor.send(50).await;
    let verdict = actor.finish(&scene).await;
    assert_eq!((verdict.duplicates, verdict.connections), (0, 2));
    assert_eq!(scene.logs.alarms(), Vec::<String>::new());
    let records = scene.emulator.ledger().connections();
    assert!(records.iter().all(|record| record.closed == Some(CloseReason::Disconnected)), "{records:?}");
}

async fn a_stop_drains_what_is_queued_and_leaves_in_order(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    scene
        .emulator
        .hub(HUB_A)
        .inject(Injection::until_cleared(Fault::DelayPubacks { delay: Duration::from_millis(60) }));
    let mut actor = scene.run_device(pipe);
    actor.up().await;
    actor.send(40).await;
    let books = soon(actor.device.stop(Duration::from_secs(10))).await;
    assert_eq!((books.delivered, books.queued), (40, 0));
    assert!(actor.outcomes().await.iter().all(|sent| sent.outcome.is_ok()));
    until("closed", || scene.emulator.ledger().connections()[0].closed.is_some()).await;
    assert_eq!(scene.emulator.ledger().connections()[0].closed, Some(CloseReason::Disconnected));
    assert_eq!(scene.emulator.ledger().counts(DEVICE).distinct, 40);
    assert_eq!(scene.logs.alarms(), Vec::<String>::new());
}

async fn a_stop_at_a_hub_that_acknowledges_nothing_ends_at_its_deadline(pipe: Pipe) {
    for fault in [Fault::WithholdPubacks, Fault::StopReading, Fault::HalfOpen] {
        let scene = Scene::at_hub().await;
        let mut actor = scene.run_device(pipe);
        actor.up().await;
        scene.emulator.hub(HUB_A).inject(Injection::until_cleared(fault.clone()));
        actor.send(20).await;
        let before = Instant::now();
        let books = soon(actor.device.stop(Duration::from_millis(300))).await;
        let took = before.elapsed();
        // Whatever the machine's speed, not before the deadline, and long before the hub's silence would be noticed.
        assert!(took >= Duration::from_millis(290), "{fault:?}: {took:?}");
        assert!(books.balances(), "{books:?}");
        let left = actor.device.queued();
        assert_eq!((books.queued, left.len()), (20, 20), "{fault:?}");
        assert!(actor.outcomes().await.iter().all(|sent| sent.outcome == Err(DeliveryError::StillQueued)));
        assert_eq!(actor.device.send(Telemetry::new("late")).await.unwrap_err(), SendError::Stopped);
    }
}

async fn a_stop_without_a_hub_ends_at_once_and_hands_back_what_is_left(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    scene.emulator.hub(HUB_A).down().unwrap();
    let mut actor = scene.run_device(pipe);
    actor.send(7).await;
    until("tried", || !actor.failures().is_empty()).await;
    // Patience is shorter than the time to drain.
    let books = soon(actor.device.stop(Duration::from_secs(60))).await;
    let left: Vec<_> = actor.device.queued().into_iter().map(|queued| queued.id.to_string()).collect();
    assert_eq!((books.queued, left), (7, actor.ids()));
}

async fn a_stop_during_each_phase_of_an_attempt_ends_at_once(pipe: Pipe) {
    let silent = [Fault::SilentConnect, Fault::DelayConnack { delay: Duration::from_secs(20) }, Fault::StopReading];
    for fault in silent {
        let scene = Scene::at_hub().await;
        scene.emulator.hub(HUB_A).inject(Injection::until_cleared(fault.clone()));
        let builder = scene.device(pipe).subscriptions(Subscriptions::ALL);
        let actor = Actor::start(&scene, DEVICE, builder, 10);
        until("asked", || scene.emulator.ledger().connections().iter().any(|one| one.connect_at.is_some())).await;
        soon(actor.device.stop(Duration::from_secs(60))).await;
        assert_eq!(actor.device.status().state, State::Stopped);
    }
}

async fn a_dropped_driver_tells_every_receipt(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let mut actor = scene.run_device(pipe);
    actor.up().await;
    scene.emulator.hub(HUB_A).inject(Injection::until_cleared(Fault::WithholdPubacks));
    actor.send(15).await;
    actor.driver.abort();
    assert!(actor.outcomes().await.iter().all(|sent| sent.outcome == Err(DeliveryError::DriverDropped)));
    assert_eq!(actor.device.queued().len(), 15);
    until("the hub sees the end", || scene.emulator.hub(HUB_A).connected().unwrap().is_empty()).await;
}

async fn dropped_futures_lose_nothing_and_queue_nothing(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let hub = scene.emulator.hub(HUB_A);
    let builder = scene.device(pipe).outbox(5, 1 << 16);
    let mut actor = Actor::start(&scene, DEVICE, builder, 3);
    hub.inject(Injection::times(Fault::DropAfterStoreBeforePuback, 3).after(2));
    // Each future is dropped after a moment, with room or without, before and after a cut.
    let mut number = 0;
    let mut dropped = 0;
    for round in 0..20_000_u64 {
        if number >= 40 {
            break;
        }
        let name = number.to_string();
        let message = Telemetry::new(name.clone()).property("seq", &name).unwrap();
        tokio::select! {
            biased;
            receipt = actor.device.send(&message) => {
                let mut receipt = receipt.unwrap();
                // Waiting for the outcome and giving up changes nothing.
                let _ = tokio::time::timeout(Duration::from_micros(round % 50 * 40), &mut receipt).await;
                actor.watch(receipt);
                number += 1;
            }
            () = tokio::time::sleep(Duration::from_micros(200)) => dropped += 1,
        }
    }
    assert!(dropped > 0 && number == 40, "{dropped} dropped, {number} sent");
    assert_eq!(actor.device.ledger().accepted, number);
    let verdict = actor.finish(&scene).await;
    assert!(verdict.accepted >= 2, "{verdict:?}");
    assert_eq!(scene.emulator.ledger().counts(DEVICE).distinct, number);
}

async fn receipts_can_be_dropped(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let (device, driver) = scene.device(pipe).build().unwrap();
    tokio::spawn(driver);
    for number in 0..50 {
        drop(soon(device.send(Telemetry::new(number.to_string()))).await.unwrap());
    }
    let books = soon(device.stop(Duration::from_secs(10))).await;
    // Before the link is up a stop does not wait: what was not sent stays.
    assert_eq!(books.delivered + books.queued, 50);
    let (device, driver) = scene.device(pipe).build().unwrap();
    tokio::spawn(driver);
    let mut status = device.status_changes();
    soon(status.wait_for(|status| status.state == State::Up)).await.unwrap();
    for number in 0..50 {
        drop(soon(device.send(Telemetry::new(number.to_string()))).await.unwrap());
    }
    assert_eq!(soon(device.stop(Duration::from_secs(10))).await.delivered, 50);
}

async fn a_full_outbox_waits_or_evicts_as_told(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let hub = scene.emulator.hub(HUB_A);
    hub.down().unwrap();
    let builder = scene.device(pipe).outbox(4, 1 << 16);
    let mut waits = Actor::start(&scene, DEVICE, builder, 10);
    waits.send(4).await;
    let message = Telemetry::new("fifth");
    let waited = tokio::time::timeout(Duration::from_millis(50), waits.device.send(&message)).await;
    assert!(waited.is_err(), "there is no room");
    let sending = waits.device.clone();
    let fifth = tokio::spawn(async move { sending.send(Telemetry::new("fifth")).await });
    hub.up().unwrap();
    waits.watch(soon(fifth).await.unwrap().unwrap());
    waits.finish(&scene).await;

    let scene = Scene::at_hub().await;
    scene.emulator.hub(HUB_A).down().unwrap();
    let builder = scene.device(pipe).outbox(4, 1 << 16).overflow(Overflow::DropOldest);
    let mut evicts = Actor::start(&scene, DEVICE, builder, 10);
    evicts.send(10).await;
    scene.emulator.hub(HUB_A).up().unwrap();
    let ids = evicts.ids();
    let outcomes = evicts.outcomes().await;
    assert!(outcomes[..6].iter().all(|sent| sent.outcome == Err(DeliveryError::Evicted)));
    assert!(outcomes[6..].iter().all(|sent| sent.outcome.is_ok()));
    let report = scene.emulator.ledger().check(DEVICE, ids[6..].iter().cloned());
    assert!(report.is_complete(), "{report}");
    let books = evicts.device.ledger();
    assert_eq!((books.accepted, books.delivered, books.evicted, books.balances()), (10, 4, 6, true));
}

async fn expired_messages_are_told_and_not_sent(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    scene.emulator.hub(HUB_A).down().unwrap();
    let mut actor = scene.run_device(pipe);
    let brief = Telemetry::new("stale").expires_after(Duration::from_millis(100));
    let stale = soon(actor.device.send(&brief)).await.unwrap();
    actor.send(3).await;
    assert_eq!(soon(stale.delivered()).await, Err(DeliveryError::Expired));
    scene.emulator.hub(HUB_A).up().unwrap();
    actor.delivered().await;
    let books = soon(actor.device.stop(Duration::from_secs(5))).await;
    assert_eq!((books.accepted, books.delivered, books.expired), (4, 3, 1));
    let messages = scene.emulator.ledger().messages(DEVICE);
    assert!(messages.iter().all(|message| message.payload != "stale"));
}

async fn what_a_dead_process_left_is_sent_by_the_next(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    scene.emulator.hub(HUB_A).down().unwrap();
    let mut first = scene.run_device(pipe);
    first.send(6).await;
    soon(first.device.stop(Duration::ZERO)).await;
    let left = first.device.queued();
    scene.emulator.hub(HUB_A).up().unwrap();
    let second: Device = {
        let (device, driver) = scene.device(pipe).build().unwrap();
        tokio::spawn(driver);
        device
    };
    for queued in &left {
        drop(soon(second.send(queued)).await.unwrap());
    }
    assert!(scene.emulator.ledger().wait_for(DEVICE, 6, e2e::PATIENCE).await);
    let report = scene.emulator.ledger().check_sequence(DEVICE, 0..6);
    assert!(report.is_complete(), "{report:?}");
}

fn fleet(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("pump-{number}")).collect()
}

async fn fifty_devices_with_one_poisoned_identity(pipe: Pipe) {
    let names = fleet(50);
    let mut hub = HubConfig::new(HUB_A);
    for name in &names {
        hub = hub.device(name, e2e::key());
    }
    let scene = Scene::start(Config::new().hub_with(hub)).await;
    let poisoned = scene.emulator.hub(HUB_A).device(&names[17]);
    poisoned.set_auth(Key::from_seed("not this one")).unwrap();
    poisoned.inject(Injection::times(Fault::CloseOnConnect, 3));
    let mut actors = Vec::new();
    for name in &names {
        let builder = scene.builder(pipe).hub(HUB_A, name).shared_key(&e2e::key().to_base64());
        let mut actor = Actor::start(&scene, name, builder, 10);
        actor.send(10).await;
        actors.push(actor);
    }
    let ill = actors.remove(17);
    for actor in &actors {
        actor.delivered().await;
        assert_eq!(actor.failures(), [], "{}", actor.name);
    }
    let healthy_at = scene.emulator.now();
    assert!(ill.device.status().state != State::Up);
    assert!(
        ill.failures().iter().all(|failure| matches!(failure.class(), FailureClass::Overload | FailureClass::Refused))
    );
    for actor in actors {
        let verdict = actor.finish_among_others(&scene).await;
        assert_eq!((verdict.duplicates, verdict.accepted), (0, 1));
    }
    poisoned.set_auth(e2e::key()).unwrap();
    assert_eq!(ill.finish_among_others(&scene).await.accepted, 1);
    assert!(healthy_at < Duration::from_secs(20), "{healthy_at:?}");
}

async fn two_seeds_spread_a_fleet_and_lose_nothing(pipe: Pipe) {
    let mut returns = Vec::new();
    for seed in [1_u8, 2] {
        let config = Config::new()
            .hub(HUB_A)
            .dps(hub_emulator::DpsConfig::new().assigning_polls(0).polls_per_ten_seconds(1000))
            .enroll(Enrollment::group(e2e::GROUP, e2e::key()))
            .ledger(LedgerMode::Full);
        let scene = Scene::start(config).await;
        let mut spread = policy();
        spread.first_jitter = Duration::from_millis(400);
        spread.overload_jitter = Duration::from_millis(400);
        let mut actors = Vec::new();
        for name in fleet(12) {
            let dps = Dps::new(&scene.emulator.dps().id_scope(), &name);
            let builder = scene.builder(pipe).provision_with(dps).group_key(&e2e::key().to_base64());
            let builder = builder.retry(spread).seed(steadfast::Seed::new([seed; 16]));
            let mut actor = Actor::start(&scene, &name, builder, 10);
            actor.send(3).await;
            actors.push(actor);
        }
        for actor in &actors {
            actor.delivered().await;
        }
        scene.emulator.hub(HUB_A).disconnect_all(true).unwrap();
        let mut delays = Vec::new();
        for actor in &mut actors {
            until("lost", || !actor.failures().is_empty()).await;
            let delay = |event| if let Event::Retrying { delay, .. } = event { Some(delay) } else { None };
            delays.extend(actor.events().into_iter().filter_map(|(_, event)| delay(event)).take(1));
            actor.send(3).await;
        }
        for actor in actors {
            actor.finish_among_others(&scene).await;
        }
        let (least, most) = (delays.iter().min().unwrap(), delays.iter().max().unwrap());
        assert!(*most - *least > Duration::from_millis(150), "a herd: {delays:?}");
        returns.push(delays);
    }
    assert_ne!(returns[0], returns[1]);
}

async fn messages_from_the_cloud_come_again_until_acknowledged(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let device = scene.emulator.hub(HUB_A).device(DEVICE);
    let builder = scene.device(pipe).subscriptions(Subscriptions::CLOUD_TO_DEVICE).timeouts(timeouts());
    let actor = Actor::start(&scene, DEVICE, builder, 10);
    actor.up().await;
    for number in 0..3 {
        device.send(&[("$.mid", &number.to_string())], number.to_string().as_bytes()).unwrap();
    }
    let first = soon(actor.device.messages().next()).await.unwrap();
    let second = soon(actor.device.messages().next()).await.unwrap();
    assert_eq!((first.payload(), second.payload()), (&b"0"[..], &b"1"[..]));
    assert!(first.acknowledge());
    until("one is acknowledged", || device.waiting().unwrap() == 2).await;
    device.disconnect(true).unwrap();
    until("lost", || !actor.failures().is_empty()).await;
    actor.up().await;
    assert!(!second.acknowledge(), "it comes again, on another connection");
    for wanted in [&b"1"[..], b"2"] {
        let inbound = soon(actor.device.messages().next()).await.unwrap();
        assert_eq!(inbound.payload(), wanted);
        assert!(inbound.acknowledge());
    }
    until("all are acknowledged", || device.waiting().unwrap() == 0).await;
    actor.finish(&scene).await;
}

async fn the_largest_message_passes_and_a_larger_one_is_refused(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let mut actor = scene.run_device(pipe);
    // A property's name and value count, the topic's own parts do not, and the id made for the message has 16 bytes.
    let room = 262_144 - "kabc".len() - 16;
    let largest = Telemetry::new(vec![b'x'; room]).property("k", "abc").unwrap();
    actor.watch(soon(actor.device.send(&largest)).await.unwrap());
    let larger = Telemetry::new(vec![b'x'; room + 1]).property("k", "abc").unwrap();
    let error = soon(actor.device.send(&larger)).await.unwrap_err();
    assert_eq!(error.to_string(), "the message counts 262145 bytes; the limit is 262144");
    actor.delivered().await;
    assert_eq!(scene.emulator.ledger().messages(DEVICE)[0].payload.len(), room);
    actor.finish(&scene).await;
}

async fn messages_are_sent_from_any_thread(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let actor = scene.run_device(pipe);
    actor.up().await;
    for _ in 0..5 {
        // Alone in the outbox, and without a runtime: the sender itself may do the writing.
        let device = actor.device.clone();
        let sender = std::thread::spawn(move || device.try_send(&Telemetry::new("from elsewhere")));
        until("it has ended", || sender.is_finished()).await;
        drop(sender.join().unwrap().unwrap());
        actor.delivered().await;
    }
    let books = soon(actor.device.stop(Duration::from_secs(5))).await;
    assert_eq!((books.delivered, scene.emulator.ledger().counts(DEVICE).distinct), (5, 5));
    assert_eq!(actor.failures(), []);
}

async fn an_uplink_of_large_messages_keeps_its_order(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let builder = scene.device(pipe).outbox(100, 32 << 20);
    let mut actor = Actor::start(&scene, DEVICE, builder, 20);
    scene.emulator.hub(HUB_A).inject(Injection::once(Fault::DropBeforeStore).after(11));
    for number in 0..40_usize {
        let size = [1, 1000, 70_000, 250_000][number % 4];
        let mut body = vec![b'x'; size];
        body.extend(number.to_string().bytes());
        let message = Telemetry::new(body).property("seq", &number.to_string()).unwrap();
        actor.watch(soon(actor.device.send(&message)).await.unwrap());
    }
    let verdict = actor.finish(&scene).await;
    assert_eq!(verdict.accepted, 2);
}
