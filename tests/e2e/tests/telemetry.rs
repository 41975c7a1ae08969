//! Telemetry over real TLS, as the hub's ledger shows it: the order of the priorities, the properties, the size.

#![expect(clippy::unwrap_used, reason = "a test fails where it is")]

use std::time::{Duration, SystemTime};

use e2e::{DEVICE, HUB_A, HUB_B, Pipe, Scene, on_every_pipe, soon, until};
use hub_emulator::{Fault, Injection};
use steadfast::{Builder, DeliveryError, Device, Overflow, Receipt, SendError, State, Telemetry};

on_every_pipe!(
    an_alarm_overtakes_a_backlog_gathered_offline,
    an_alarm_on_a_busy_link_waits_only_for_what_is_in_flight,
    each_priority_arrives_in_order_across_cuts_and_a_move,
    an_alarm_takes_the_place_of_the_oldest_normal_message,
    an_alarm_goes_before_those_who_wait_for_room,
    every_property_arrives_as_it_was_set,
    a_message_that_waited_tells_when_it_was_accepted,
    the_largest_message_arrives_and_one_byte_more_is_refused_in_words,
);

/// A device whose driver has not begun.
struct Offline {
    device: Device,
    driver: steadfast::Driver,
}

fn offline(builder: Builder) -> Offline {
    let (device, driver) = builder.build().unwrap();
    Offline { device, driver }
}

impl Offline {
    /// Runs the device until all is delivered.
    async fn deliver(self, receipts: Vec<Receipt>) {
        let driver = tokio::spawn(self.driver);
        for receipt in receipts {
            soon(receipt).await.unwrap();
        }
        let books = soon(self.device.stop(Duration::from_secs(5))).await;
        assert!(books.balances() && books.queued == 0, "{books:?}");
        soon(driver).await.unwrap();
    }
}

fn normal(device: &Device, bodies: impl Iterator<Item = u32>) -> Vec<Receipt> {
    bodies.map(|body| device.try_send(&Telemetry::new(body.to_string())).unwrap()).collect()
}

fn alarm(device: &Device, body: &str) -> Receipt {
    device.try_send(&Telemetry::new(body).urgent()).unwrap()
}

/// Bodies in the order they first arrived anywhere.
fn bodies(scene: &Scene) -> Vec<String> {
    let mut bodies = Vec::new();
    for message in scene.emulator.ledger().messages(DEVICE) {
        let body = String::from_utf8(message.payload.to_vec()).unwrap();
        if !bodies.contains(&body) {
            bodies.push(body);
        }
    }
    bodies
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

async fn an_alarm_overtakes_a_backlog_gathered_offline(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let offline = offline(scene.device(pipe));
    let mut receipts = normal(&offline.device, 0..500);
    receipts.push(alarm(&offline.device, "fire"));
    receipts.push(alarm(&offline.device, "flood"));
    offline.deliver(receipts).await;
    let bodies = bodies(&scene);
    assert_eq!(bodies[..2], ["fire", "flood"]);
    assert_eq!(bodies[2..], numbers(0..500));
}

async fn an_alarm_on_a_busy_link_waits_only_for_what_is_in_flight(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let withheld = scene.emulator.hub(HUB_A).inject(Injection::until_cleared(Fault::WithholdPubacks));
    let Offline { device, driver } = offline(scene.device(pipe).window(4));
    let mut receipts = normal(&device, 0..50);
    let driver = tokio::spawn(driver);
    until("the window is full", || scene.emulator.ledger().messages(DEVICE).len() == 4).await;
    receipts.push(alarm(&device, "fire"));
    assert!(scene.emulator.clear_fault(withheld));
    for receipt in receipts {
        soon(receipt).await.unwrap();
    }
    soon(device.stop(Duration::from_secs(5))).await;
    soon(driver).await.unwrap();
    let bodies = bodies(&scene);
    assert_eq!(bodies[..4], numbers(0..4));
    assert_eq!(bodies[4], "fire");
    assert_eq!(bodies[5..], numbers(4..50));
}

async fn each_priority_arrives_in_order_across_cuts_and_a_move(pipe: Pipe) {
    let scene = Scene::provisioned().await;
    let Offline { device, driver } = offline(scene.member(pipe).window(5));
    let mut receipts = Vec::new();
    let mut alarms = Vec::new();
    let driver = tokio::spawn(driver);
    for round in 0..6_u32 {
        receipts.extend(normal(&device, round * 20..round * 20 + 20));
        alarms.push(format!("alarm {round}"));
        receipts.push(alarm(&device, &alarms[round as usize]));
        match round {
            1 | 2 => scene.emulator.hub(HUB_A).inject(Injection::once(Fault::DropAfterStoreBeforePuback).after(3)),
            3 => scene.emulator.hub(HUB_A).inject(Injection::once(Fault::DropBeforeStore).after(2)),
            4 => {
                until("it is up", || device.status().state == State::Up).await;
                scene.emulator.move_device(DEVICE, HUB_A, HUB_B).unwrap();
                continue;
            }
            _ => continue,
        };
        until("something arrives", || bodies(&scene).len() > round as usize * 20).await;
    }
    for receipt in receipts {
        soon(receipt).await.unwrap();
    }
    let books = soon(device.stop(Duration::from_secs(5))).await;
    soon(driver).await.unwrap();
    assert_eq!((books.delivered, books.balances()), (126, true));
    let (normal, urgent): (Vec<_>, Vec<_>) = bodies(&scene).into_iter().partition(|body| body.parse::<u32>().is_ok());
    assert_eq!((normal, urgent), (numbers(0..120), alarms));
}

async fn an_alarm_takes_the_place_of_the_oldest_normal_message(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let offline = offline(scene.device(pipe).outbox(3, 1000).overflow(Overflow::DropForUrgent));
    let mut receipts = normal(&offline.device, 0..3);
    assert!(offline.device.try_send(&Telemetry::new("3")).is_err());
    receipts.push(alarm(&offline.device, "fire"));
    let evicted = receipts.remove(0);
    let driver = tokio::spawn(offline.driver);
    assert_eq!(soon(evicted.delivered()).await, Err(DeliveryError::Evicted));
    for receipt in receipts {
        soon(receipt).await.unwrap();
    }
    let books = soon(offline.device.stop(Duration::from_secs(5))).await;
    soon(driver).await.unwrap();
    assert_eq!((books.accepted, books.delivered, books.evicted), (4, 3, 1));
    assert_eq!(bodies(&scene), ["fire", "1", "2"]);
}

async fn an_alarm_goes_before_those_who_wait_for_room(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let withheld = scene.emulator.hub(HUB_A).inject(Injection::until_cleared(Fault::WithholdPubacks));
    let offline = offline(scene.device(pipe).outbox(2, 1000));
    let (device, driver) = (offline.device, tokio::spawn(offline.driver));
    drop(normal(&device, 0..2));
    until("the outbox is full", || scene.emulator.ledger().messages(DEVICE).len() == 2).await;
    let mut waiting = Vec::new();
    for message in [Telemetry::new("2"), Telemetry::new("3"), Telemetry::new("fire").urgent()] {
        let device = device.clone();
        waiting.push(tokio::spawn(async move { device.send(&message).await.unwrap().await }));
        // Each is to wait before the next one comes.
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }
    assert!(scene.emulator.clear_fault(withheld));
    for one in waiting {
        soon(one).await.unwrap().unwrap();
    }
    soon(device.stop(Duration::from_secs(5))).await;
    soon(driver).await.unwrap();
    assert_eq!(bodies(&scene), ["0", "1", "fire", "2", "3"]);
}

async fn every_property_arrives_as_it_was_set(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let offline = offline(scene.device(pipe));
    let created = SystemTime::UNIX_EPOCH + Duration::from_millis(1_586_496_262_471);
    let value = serde_json::json!({"celsius": 21.5, "text": "ä\"b"});
    let described = |message: Telemetry| {
        message
            .message_id("m-1")?
            .correlation_id("a/b c")?
            .user_id("née")?
            .created_at(created)?
            .expiry("2030-01-01T00:00:00Z")?
            .component("thermostat")?
            .output_name("out")?
            .property("room", "a&b=c/%20+")?
            .property("empty", "")
    };
    let message = described(Telemetry::json_of(&value).unwrap()).unwrap();
    let receipts = vec![
        offline.device.try_send(&message).unwrap(),
        offline.device.try_send(&Telemetry::cbor([0xa1, 0x61, 0x74, 0x15])).unwrap(),
        offline.device.try_send(&Telemetry::new([0, 255]).content_type("application/octet-stream").unwrap()).unwrap(),
    ];
    offline.deliver(receipts).await;
    let messages = scene.emulator.ledger().messages(DEVICE);
    let expected = [
        ("$.ct", "application/json"),
        ("$.ce", "utf-8"),
        ("$.mid", "m-1"),
        ("$.cid", "a/b c"),
        ("$.uid", "née"),
        ("$.ctime", "2020-04-10T05:24:22.471Z"),
        ("$.exp", "2030-01-01T00:00:00Z"),
        ("$.sub", "thermostat"),
        ("$.on", "out"),
        ("room", "a&b=c/%20+"),
        ("empty", ""),
    ];
    let expected: Vec<_> = expected.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    assert_eq!(messages[0].properties, expected);
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&messages[0].payload).unwrap(), value);
    assert_eq!(messages[1].property("$.ct"), Some("application/cbor"));
    assert_eq!(messages[2].property("$.ct"), Some("application/octet-stream"));
    assert!(messages[1..].iter().all(|message| message.message_id.as_ref().is_some_and(|id| id.len() == 16)));
}

async fn a_message_that_waited_tells_when_it_was_accepted(pipe: Pipe) {
    let scene = Scene::at_hub().await;
    let before = unix_secs();
    let offline = offline(scene.device(pipe).stamp_creation_time(true));
    let own = Telemetry::new("own").creation_time("2020-04-10T05:24:22Z").unwrap();
    let mut receipts = vec![offline.device.try_send(&own).unwrap(), alarm(&offline.device, "fire")];
    let after = unix_secs();
    tokio::time::sleep(Duration::from_millis(2100)).await;
    receipts.push(offline.device.try_send(&Telemetry::new("later")).unwrap());
    offline.deliver(receipts).await;
    let messages = scene.emulator.ledger().messages(DEVICE);
    let time = |place: usize| {
        let text = messages[place].property("$.ctime").unwrap();
        (std::str::from_utf8(&messages[place].payload).unwrap(), unix_secs_of(text))
    };
    let (fire, at) = time(0);
    assert!(fire == "fire" && (before - 1..=after).contains(&at), "{before} {at} {after}");
    assert_eq!(time(1), ("own", 1_586_496_262));
    let (later, at) = time(2);
    assert!(later == "later" && at > before, "{before} {at}");
}

/// Seconds since 1970 of a UTC time of this day, by its time of day, or those of the one day known.
fn unix_secs_of(text: &str) -> u64 {
    if text.starts_with("2020-04-10") {
        return 1_586_496_262;
    }
    let part = |range: std::ops::Range<usize>| text[range].parse::<u64>().unwrap();
    let of_day = part(11..13) * 3600 + part(14..16) * 60 + part(17..19);
    let now = unix_secs();
    let today = now - now % 86_400;
    // Just after midnight it is a time of yesterday.
    if today + of_day > now + 60 { today + of_day - 86_400 } else { today + of_day }
}

fn unix_secs() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

async fn the_largest_message_arrives_and_one_byte_more_is_refused_in_words(pipe: Pipe) {
    const LIMIT: usize = 262_144;
    let scene = Scene::at_hub().await;
    let offline = offline(scene.device(pipe));
    // The property's name and value, and the message id made for it.
    let room = LIMIT - "room".len() - "ä b".len() - 16;
    let message = |len: usize| Telemetry::new(vec![b'x'; len]).property("room", "ä b").unwrap();
    let refused = offline.device.send(message(room + 1)).await.unwrap_err();
    assert_eq!(refused, SendError::TooLarge { size: LIMIT + 1, limit: LIMIT });
    assert_eq!(refused.to_string(), "the message counts 262145 bytes; the limit is 262144");
    let receipt = offline.device.send(message(room)).await.unwrap();
    offline.deliver(vec![receipt]).await;
    let messages = scene.emulator.ledger().messages(DEVICE);
    assert_eq!((messages.len(), messages[0].payload.len()), (1, room));
}
