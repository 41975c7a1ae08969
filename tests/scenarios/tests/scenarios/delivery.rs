//! What is accepted arrives, in order, and is reported once it has been acknowledged.

use scenarios::{hours, mins, secs, seeds};
use steadfast_core::{DropReason, Event, Failure, Subscriptions};
use steadfast_sim::service::{Acks, PublishFault};
use steadfast_sim::{Feed, HeapOutbox, World};

fn up(seed: u64) -> World {
    let mut world = World::builder().seed(seed).assigned().configure(|config| config.session.window = 4).build();
    world.start();
    world.run_until_up();
    world
}

#[test]
fn messages_arrive_in_order_and_once_on_a_healthy_link() {
    seeds(10, |seed| {
        let mut world = up(seed);
        for round in 0..20 {
            world.publish_many(usize::try_from(round % 7).unwrap());
            world.run_for(secs(round));
        }
        world.run_until_delivered();
        assert_eq!((world.duplicates(), world.ledger().resent), (0, 0));
    });
}

#[test]
fn a_lost_acknowledgement_brings_the_message_again_with_dup_and_its_packet_id() {
    let mut world = up(1);
    world.hub_mut(0).faults.next_publishes.push_back(PublishFault::CloseAfterStore);
    world.publish("21.5");
    world.run_until_delivered();
    let [first, second] = world.hub(0).receipts() else { panic!("{:?}", world.hub(0).receipts()) };
    assert!(!first.dup && second.dup);
    assert_eq!((first.packet_id, &first.topic), (second.packet_id, &second.topic));
    assert_eq!(world.ledger().resent, 1);
}

#[test]
fn on_a_forgotten_session_everything_is_sent_afresh() {
    let mut world = up(2);
    world.hub_mut(0).faults.publish = PublishFault::Withhold;
    world.publish_many(3);
    world.run_for(secs(5));
    world.hub_mut(0).forget_sessions();
    world.hub_mut(0).faults.publish = PublishFault::None;
    world.reset_all();
    world.run_until_delivered();
    assert!(world.hub(0).receipts().iter().all(|receipt| !receipt.dup));
    assert_eq!(world.bodies(0), ["0", "1", "2", "0", "1", "2"]);
    assert!(world.events().iter().any(|(_, event)| *event == Event::Up { session_present: false }));
}

#[test]
fn a_close_before_the_message_was_stored_costs_nothing() {
    let mut world = up(3);
    world.hub_mut(0).faults.next_publishes.push_back(PublishFault::CloseBeforeStore);
    world.publish_many(6);
    world.run_until_delivered();
    assert_eq!(world.bodies(0), ["0", "1", "2", "3", "4", "5"]);
    assert_eq!(world.duplicates(), 0);
}

#[test]
fn a_reconnection_repeats_no_more_than_the_window() {
    let mut world = up(4);
    world.hub_mut(0).faults.publish = PublishFault::Withhold;
    world.publish_many(20);
    world.run_for(secs(10));
    world.hub_mut(0).faults.publish = PublishFault::None;
    world.reset_all();
    world.run_until_delivered();
    assert_eq!((world.duplicates(), world.ledger().resent), (4, 4));
}

#[test]
fn a_live_link_repeats_nothing_however_late_the_acknowledgement() {
    let mut world = up(5);
    world.hub_mut(0).faults.publish = PublishFault::AckLate(110_000);
    world.publish_many(3);
    world.run_until_delivered();
    assert_eq!((world.duplicates(), world.attempts().len()), (0, 1));
}

#[test]
fn a_service_that_acknowledges_nothing_is_left_after_the_patience_for_it() {
    let mut world = up(6);
    world.hub_mut(0).faults.next_publishes.push_back(PublishFault::Withhold);
    world.publish("21.5");
    let took = world.run_until_down();
    assert!(took >= secs(119) && took < secs(121), "{took:?}");
    assert!(world.events().iter().any(|(_, event)| *event == Event::Down(Failure::PubackTimeout)));
    world.run_until_delivered();
}

#[test]
fn acknowledgements_out_of_order_end_the_right_messages() {
    seeds(5, |seed| {
        let mut world = up(seed);
        world.hub_mut(0).faults.acks = Acks::Reversed(4);
        let ids = world.publish_many(4);
        world.run_until_delivered();
        let reversed: Vec<_> = ids.into_iter().rev().collect();
        assert_eq!(world.delivered(), reversed);
        assert_eq!(world.duplicates(), 0);
    });
}

#[test]
fn acknowledgements_that_come_twice_or_name_nothing_end_no_other_message() {
    let mut world = up(7);
    for fault in [PublishFault::AckTwice, PublishFault::AckUnknown(40_000), PublishFault::AckUnknown(1)] {
        world.hub_mut(0).faults.next_publishes.push_back(fault);
    }
    world.hub_mut(0).faults.publish = PublishFault::AckLate(1000);
    let ids = world.publish_many(8);
    world.run_until_delivered();
    assert_eq!(world.delivered().len(), ids.len());
    assert_eq!(world.attempts().len(), 1);
}

#[test]
fn a_cut_after_any_byte_towards_the_service_loses_nothing() {
    for bytes in 0..400 {
        let mut world = up(8);
        world.cut_to_service(bytes);
        world.publish_many(8);
        world.run_until_delivered();
    }
}

#[test]
fn a_cut_after_any_byte_towards_the_device_loses_nothing() {
    for feed in [Feed::Whole, Feed::Pieces] {
        for bytes in 0..60 {
            let builder = World::builder().seed(9).feed(feed).assigned();
            let mut world = builder.configure(|config| config.subscriptions = Subscriptions::ALL).build();
            world.cut_to_device(bytes);
            world.start();
            world.publish_many(8);
            world.run_until_delivered();
        }
    }
}

#[test]
fn nothing_is_published_before_all_subscriptions_hold() {
    seeds(10, |seed| {
        let builder = World::builder().seed(seed).feed(Feed::Pieces);
        let mut world = builder.configure(|config| config.subscriptions = Subscriptions::ALL).build();
        world.start();
        world.publish_many(5);
        world.run_until_delivered();
        assert_eq!(world.hub(0).filters("pump-7").map(<[String]>::len), Some(4));
    });
}

#[test]
fn packet_ids_wrap_without_two_messages_on_one() {
    let builder = World::builder().assigned().configure(|config| config.session.window = 1000);
    let mut world = builder.build_with(|_| HeapOutbox::new(4000, 1 << 20));
    world.start();
    world.run_until_up();
    for _ in 0..18 {
        world.publish_many(4000);
        world.run_until_delivered();
    }
    assert_eq!((world.ledger().delivered, world.duplicates()), (72_000, 0));
}

#[test]
fn a_window_of_every_packet_id_is_full_and_no_fuller() {
    let builder = World::builder().assigned().configure(|config| config.session.window = 0x7fff);
    let mut world = builder.build_with(|_| HeapOutbox::new(40_000, 1 << 20));
    world.start();
    world.run_until_up();
    world.hub_mut(0).faults.publish = PublishFault::Withhold;
    // One drain of so many outputs would be taken for a loop.
    for _ in 0..100 {
        world.publish_many(400);
    }
    world.run_for(secs(10));
    assert_eq!(world.status().in_flight, 0x7fff);
    world.hub_mut(0).faults.publish = PublishFault::None;
    world.run_for(hours(1));
    world.run_until_delivered();
}

#[test]
fn a_deep_queue_does_not_delay_the_reconnection() {
    let time = |messages| {
        let mut world = World::builder().seed(11).assigned().build_with(|_| HeapOutbox::new(5000, 1 << 20));
        world.start();
        world.run_until_up();
        world.run_for(mins(5));
        world.hub_down(0);
        world.run_for(secs(1));
        world.publish_many(messages);
        world.run_for(mins(10));
        world.hub_up(0);
        let took = world.run_until_up();
        world.run_until_delivered();
        took
    };
    assert_eq!(time(0), time(5000));
}

#[test]
fn an_acknowledgement_that_never_comes_is_noticed_although_others_do() {
    let mut world = up(10);
    world.hub_mut(0).faults.next_publishes.push_back(PublishFault::Withhold);
    let first = world.publish("first");
    for _ in 0..30 {
        world.publish("later");
        world.run_for(secs(10));
    }
    assert!(world.delivered().contains(&first), "{:?}", world.status());
    assert!(world.events().iter().any(|(_, event)| *event == Event::Down(Failure::PubackTimeout)));
}

#[test]
fn a_message_that_breaks_every_connection_is_set_aside_and_the_others_flow() {
    // Alone it takes as many connections as configured; in company one more to suspect it.
    for (before, after, connections) in [(0, 0, 3), (0, 5, 4), (5, 5, 5)] {
        let builder = World::builder().assigned().configure(|config| config.session.poison_threshold = Some(3));
        let mut world = builder.build();
        world.hub_mut(0).faults.poison = Some(b"poison".to_vec());
        world.publish_many(before);
        let poison = world.publish("poison");
        world.publish_many(after);
        world.start();
        world.run_until("set aside", hours(3), |world| !world.dropped().is_empty());
        assert_eq!(world.hub(0).accepted(), connections);
        world.run_until_delivered();
        assert_eq!(world.dropped(), [(poison, DropReason::Rejected)]);
        assert_eq!(world.ledger().delivered, (before + after) as u64);
    }
}

#[test]
fn without_leave_to_set_messages_aside_none_is() {
    let mut world = World::builder().assigned().build();
    world.hub_mut(0).faults.poison = Some(b"poison".to_vec());
    world.start();
    world.publish("poison");
    world.run_for(hours(24));
    assert_eq!((world.ledger().queued, world.ledger().rejected), (1, 0));
    world.hub_mut(0).faults.poison = None;
    world.run_until_delivered();
}
