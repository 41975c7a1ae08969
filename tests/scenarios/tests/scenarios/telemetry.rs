//! What a telemetry message says of itself, and how large it may be.

use scenarios::{hours, secs};
use steadfast_core::azure::timestamp;
use steadfast_core::iothub::property_bag::{CBOR, JSON, PropertyBag, properties};
use steadfast_core::iothub::topics::{CREATION_TIME_SIZE, MESSAGE_ID_SIZE, TELEMETRY_MAX, telemetry_size};
use steadfast_core::{Message, PublishError};
use steadfast_sim::{EPOCH_SECS, HeapOutbox, World};

fn stamping() -> World<HeapOutbox> {
    let builder = World::builder().assigned().configure(|config| config.stamp_creation_time = true);
    builder.build_with(|_| HeapOutbox::new(100, 1 << 20))
}

/// A property of the message a hub received as the n-th.
fn property(world: &World<HeapOutbox>, receipt: usize, key: &str) -> Option<String> {
    let topic = &world.hub(0).receipts()[receipt].topic;
    let bag = topic.rsplit('/').next()?;
    let found = properties(bag).find(|property| property.key == key)?;
    let mut buffer = [0; 256];
    found.value?.decode(&mut buffer).ok().map(str::to_owned)
}

#[test]
fn a_message_delayed_by_an_outage_keeps_the_time_of_its_acceptance() {
    let mut world = stamping();
    world.run_for(secs(100));
    world.publish("while offline");
    world.run_for(hours(7));
    world.start();
    world.run_until_delivered();
    let stamped = property(&world, 0, "$.ctime").unwrap();
    assert_eq!(timestamp::unix_secs(&stamped), Some(EPOCH_SECS + 100), "{stamped}");
}

#[test]
fn a_resent_message_tells_the_same_time() {
    let mut world = stamping();
    world.start();
    world.run_until_up();
    world.hub_mut(0).faults.next_publishes.push_back(steadfast_sim::service::PublishFault::CloseAfterStore);
    world.publish_urgent("x");
    world.run_until_delivered();
    assert_eq!(world.hub(0).receipts().len(), 2);
    assert_eq!(property(&world, 0, "$.ctime"), property(&world, 1, "$.ctime"));
}

#[test]
fn a_message_that_brings_its_time_is_left_alone() {
    let mut world = stamping();
    world.start();
    world.run_until_up();
    for bag in ["$.ctime=2020-04-10T05%3A24%3A22Z", "iothub-creation-time-utc=2020-04-10T05%3A24%3A22Z"] {
        world.publish_as(0, Message::telemetry(bag, b"x")).unwrap();
    }
    world.run_until_delivered();
    assert_eq!(property(&world, 0, "$.ctime").as_deref(), Some("2020-04-10T05:24:22Z"));
    assert_eq!(property(&world, 1, "$.ctime"), None);
    assert_eq!(property(&world, 1, "iothub-creation-time-utc").as_deref(), Some("2020-04-10T05:24:22Z"));
}

#[test]
fn an_unset_clock_and_a_setting_that_does_not_ask_stamp_nothing() {
    let unset = World::builder().assigned().certificate().clock_offset_secs(None);
    let unset = unset.configure(|config| config.stamp_creation_time = true);
    for builder in [unset, World::builder().assigned()] {
        let mut world = builder.build_with(|_| HeapOutbox::new(10, 1000));
        world.publish("x");
        world.start();
        world.run_until_delivered();
        assert_eq!(property(&world, 0, "$.ctime"), None);
    }
}

#[test]
fn the_size_limit_is_exact_to_the_byte_and_counts_what_the_link_adds() {
    // The decoded key and value of the property; of system properties the value alone.
    let bag = "$.ct=application%2Fjson&%C3%B6=%20%20";
    let counted = "application/json".len() + "ö".len() + 2;
    assert_eq!(telemetry_size(bag, b""), counted);
    for (world, added) in [
        (stamping(), MESSAGE_ID_SIZE + CREATION_TIME_SIZE),
        (World::builder().build_with(|_| HeapOutbox::new(4, 1 << 20)), MESSAGE_ID_SIZE),
    ] {
        let mut world = world;
        let body = vec![b'x'; TELEMETRY_MAX - counted - added + 1];
        let refused = world.publish_as(0, Message::telemetry(bag, &body)).unwrap_err();
        assert_eq!(refused, PublishError::TooLarge { size: TELEMETRY_MAX + 1, limit: TELEMETRY_MAX });
        assert_eq!(refused.to_string(), "the message counts 262145 bytes; the limit is 262144");
        assert_eq!((world.ledger().accepted, world.ledger().refused), (0, 1));
        world.publish_as(0, Message::telemetry(bag, &body[1..])).unwrap();
        world.start();
        world.run_until_delivered();
        let topic = &world.hub(0).receipts()[0].topic;
        let sent = topic.rsplit('/').next().unwrap();
        assert_eq!(telemetry_size(sent, &body[1..]), TELEMETRY_MAX, "what went out is counted alike");
    }
}

#[test]
fn properties_that_no_topic_has_room_for_are_refused_and_break_no_connection() {
    let mut world = stamping();
    world.start();
    world.run_until_up();
    let bag = |len: usize| format!("k={}", "v".repeat(len - 2));
    let longest = 65_535 - 384;
    let refused = world.publish_as(0, Message::telemetry(&bag(longest + 1), b"x")).unwrap_err();
    assert_eq!(refused, PublishError::LongProperties { size: longest + 1, limit: longest });
    assert_eq!(refused.to_string(), "the properties are 65152 bytes when encoded; the limit is 65151");
    world.publish_as(0, Message::telemetry(&bag(longest), b"x")).unwrap();
    world.run_until_delivered();
    assert_eq!(world.hub(0).receipts().len(), 1);
}

#[test]
fn properties_that_grow_when_they_are_encoded_take_nothing_from_the_largest_message() {
    let mut world = World::builder().assigned().build_with(|_| HeapOutbox::new(100, 1 << 20));
    world.start();
    world.run_until_up();
    // Each character counts two bytes and takes six in the topic.
    let bag = format!("k={}", "%C3%A9".repeat((65_535 - 384 - 2) / 6));
    let largest = TELEMETRY_MAX - MESSAGE_ID_SIZE - telemetry_size(&bag, b"");
    let body = vec![0; largest + 1];
    let refused = world.publish_as(0, Message::telemetry(&bag, &body)).unwrap_err();
    assert_eq!(refused, PublishError::TooLarge { size: TELEMETRY_MAX + 1, limit: TELEMETRY_MAX });
    world.publish_as(0, Message::telemetry(&bag, &body[1..])).unwrap();
    world.run_until_delivered();
    assert_eq!(world.hub(0).receipts()[0].payload.len(), largest);
}

#[test]
fn shortcuts_say_what_builders_say() {
    let mut buffer = [0; 64];
    let mut bag = PropertyBag::new(&mut buffer);
    bag.json().unwrap();
    assert_eq!((bag.as_str(), Message::json(b"{}")), (JSON, Message::telemetry(bag.as_str(), b"{}")));
    let mut buffer = [0; 64];
    let mut bag = PropertyBag::new(&mut buffer);
    bag.cbor().unwrap();
    assert_eq!((bag.as_str(), Message::cbor(&[0xa0])), (CBOR, Message::telemetry(bag.as_str(), &[0xa0])));
}
