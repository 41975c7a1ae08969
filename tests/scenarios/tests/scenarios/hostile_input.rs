//! Bytes that no service should send.

use scenarios::{mins, secs};
use steadfast_core::{Event, Failure, Subscriptions};
use steadfast_sim::service::{Greeting, PublishFault};
use steadfast_sim::{Feed, World};

const CONNACK: [u8; 4] = [0x20, 2, 0, 0];

fn world(feed: Feed) -> World {
    let builder = World::builder().seed(1).feed(feed).assigned();
    builder.configure(|config| config.subscriptions = Subscriptions::ALL).build()
}

/// Bytes that end the connection, whatever came before.
fn malformed() -> Vec<(&'static str, Vec<u8>)> {
    let mut long = vec![0x30, 0xff, 0xff, 0xff, 0x7f];
    long.extend_from_slice(&[0; 64]);
    vec![
        ("a captive portal", b"HTTP/1.1 302 Found\r\nLocation: http://login\r\n\r\n".to_vec()),
        ("type 0", vec![0x00, 0x00]),
        ("type 15", vec![0xf0, 0x00]),
        ("a client's packet", vec![0x10, 0x00]),
        ("QoS 2", vec![0x34, 5, 0, 1, b'a', 0, 1]),
        ("QoS 3", vec![0x36, 5, 0, 1, b'a', 0, 1]),
        ("packet id 0", vec![0x40, 2, 0, 0]),
        ("flags of PUBACK", vec![0x42, 2, 0, 1]),
        ("a long PUBACK", vec![0x40, 3, 0, 1, 0]),
        ("a length of five bytes", vec![0x30, 0x80, 0x80, 0x80, 0x80, 0x01]),
        ("a length of 256 MiB", long),
        ("a topic with U+0000", vec![0x30, 3, 0, 1, 0]),
        ("a topic that is not UTF-8", vec![0x30, 4, 0, 2, 0xc3, 0x28]),
        ("a surrogate", vec![0x30, 5, 0, 3, 0xed, 0xa0, 0x80]),
        ("a wildcard topic", vec![0x30, 3, 0, 1, b'#']),
        ("an empty topic", vec![0x30, 2, 0, 0]),
    ]
}

#[test]
fn nonsense_instead_of_a_greeting_ends_the_attempt_and_nothing_more() {
    for feed in [Feed::Whole, Feed::Bytes] {
        for (what, bytes) in malformed() {
            let mut world = world(feed);
            world.hub_mut(0).faults.next_greetings.push_back(Greeting::Bytes(bytes));
            world.start();
            world.run_until("failed", mins(2), |world| world.status().last_failure.is_some());
            assert!(matches!(world.status().last_failure, Some(Failure::Malformed(_))), "{what}");
            world.run_until_up();
        }
    }
}

#[test]
fn nonsense_on_a_live_connection_ends_it_and_loses_nothing() {
    for (what, bytes) in malformed() {
        let mut world = world(Feed::Pieces);
        world.start();
        world.run_until_up();
        world.hub_mut(0).faults.next_publishes.push_back(PublishFault::Bytes(bytes));
        world.publish_many(3);
        world.run_until_delivered();
        let down = world.events().iter().any(|(_, event)| matches!(event, Event::Down(Failure::Malformed(_))));
        assert!(down, "{what}");
    }
}

#[test]
fn packets_out_of_their_place_end_the_connection() {
    let pingresp = [0xd0, 0];
    let puback = [0x40, 2, 0, 1];
    let suback = [0x90, 3, 0xff, 0, 1];
    for (what, bytes) in [("PINGRESP", &pingresp[..]), ("PUBACK", &puback), ("SUBACK", &suback)] {
        let mut world = world(Feed::Whole);
        let greeting = [bytes, &CONNACK].concat();
        world.hub_mut(0).faults.next_greetings.push_back(Greeting::Bytes(greeting));
        world.start();
        world.run_until("failed", mins(2), |world| world.status().last_failure.is_some());
        assert_eq!(world.status().last_failure, Some(Failure::UnexpectedPacket), "{what} before CONNACK");
        world.run_until_up();
    }
    let mut second = world(Feed::Whole);
    second.start();
    second.run_until_up();
    second.hub_mut(0).faults.next_publishes.push_back(PublishFault::Bytes(CONNACK.to_vec()));
    second.publish("21.5");
    second.run_until_delivered();
    assert!(second.events().iter().any(|(_, event)| *event == Event::Down(Failure::UnexpectedPacket)));
}

#[test]
fn a_session_kept_although_a_clean_one_was_asked_for_is_refused() {
    let builder = World::builder().assigned().configure(|config| config.session.clean_session = true);
    let mut world = builder.build();
    world.hub_mut(0).faults.claim_session = true;
    world.start();
    world.run_until("failed", mins(2), |world| world.status().last_failure.is_some());
    assert_eq!(world.status().last_failure, Some(Failure::UnexpectedSession));
    world.hub_mut(0).faults.claim_session = false;
    world.run_until_up();
}

#[test]
fn an_unasked_ping_answer_does_no_harm() {
    let mut world = world(Feed::Whole);
    world.start();
    world.run_until_up();
    let bytes = [[0xd0, 0]; 50].concat();
    world.hub_mut(0).faults.next_publishes.push_back(PublishFault::Bytes(bytes));
    world.publish("21.5");
    world.run_for(secs(60));
    assert_eq!(world.attempts().len(), 1);
}
