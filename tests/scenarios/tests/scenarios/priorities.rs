//! What is urgent overtakes what waits; each priority keeps its order, and the books hold for both.

use scenarios::{hours, mins, secs, seeds};
use steadfast_core::{DropReason, Message, MessageId, Overflow, Priority, PublishError, RamOutbox};
use steadfast_sim::service::{Acks, PublishFault};
use steadfast_sim::{HeapOutbox, World};

fn large(seed: u64) -> World<HeapOutbox> {
    let builder = World::builder().seed(seed).assigned().configure(|config| config.session.window = 8);
    builder.build_with(|_| HeapOutbox::new(1000, 1 << 16))
}

/// Bodies as a hub first received them.
fn first_receipts<O: steadfast_core::Outbox>(world: &World<O>, hub: usize) -> Vec<String> {
    let mut bodies = Vec::new();
    for body in world.bodies(hub) {
        if !bodies.contains(&body) {
            bodies.push(body);
        }
    }
    bodies
}

fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

/// The normal bodies among `bodies`, which are numbers, and the urgent ones.
fn priorities(bodies: Vec<String>) -> (Vec<String>, Vec<String>) {
    bodies.into_iter().partition(|body| body.parse::<u32>().is_ok())
}

#[test]
fn an_alarm_overtakes_a_backlog_of_five_hundred_that_was_gathered_offline() {
    let mut world = large(1);
    world.publish_many(500);
    let alarm = world.publish_urgent("fire");
    world.start();
    world.run_until_delivered();
    assert_eq!(world.delivered().first(), Some(&alarm));
    let (normal, urgent) = priorities(world.bodies(0)[1..].to_vec());
    assert_eq!((world.bodies(0)[0].as_str(), normal, urgent.len()), ("fire", numbers(500), 0));
}

#[test]
fn an_alarm_on_a_busy_link_waits_for_no_more_than_what_is_in_flight() {
    let mut world = large(2);
    world.start();
    world.run_until_up();
    world.publish_many(500);
    world.run_for(secs(1));
    let before = world.bodies(0).len();
    assert!(before < 400, "the backlog is still there: {before}");
    world.publish_urgent("fire");
    world.run_until_delivered();
    let place = world.bodies(0).iter().position(|body| body == "fire").unwrap();
    assert!(place <= before + 8, "{place} messages came first, {before} of them before the alarm");
    assert_eq!(priorities(first_receipts(&world, 0)).0, numbers(500));
}

#[test]
fn each_priority_keeps_its_order_across_reconnections() {
    seeds(30, |seed| {
        let mut world = large(seed);
        world.start();
        let mut alarms = Vec::new();
        for number in 0..120 {
            world.publish(&number.to_string());
            if number % 7 == 0 {
                let alarm = format!("alarm {number}");
                world.publish_urgent(&alarm);
                alarms.push(alarm);
            }
            let pause = world.rng().between(0, 4);
            world.run_for(secs(pause));
            match number % 24 {
                5 => world.hub_mut(0).faults.next_publishes.push_back(PublishFault::CloseAfterStore),
                11 => world.reset_all(),
                17 => world.hub_mut(0).faults.next_publishes.push_back(PublishFault::Withhold),
                20 => world.hub_mut(0).forget_sessions(),
                _ => {}
            }
        }
        world.run_until_delivered();
        assert_eq!(priorities(first_receipts(&world, 0)), (numbers(120), alarms));
        assert_eq!(world.ledger().delivered, 120 + 18);
    });
}

#[test]
fn a_message_that_comes_again_keeps_its_id_its_packet_id_and_its_priority_s_order() {
    let mut world = large(3);
    world.start();
    world.run_until_up();
    world.hub_mut(0).faults.publish = PublishFault::Withhold;
    world.publish_many(3);
    world.run_for(secs(1));
    world.publish_urgent("fire");
    world.publish_urgent("flood");
    world.run_for(secs(1));
    world.hub_mut(0).faults.publish = PublishFault::None;
    world.reset_all();
    world.run_until_delivered();
    assert_eq!(world.bodies(0), ["0", "1", "2", "fire", "flood", "fire", "flood", "0", "1", "2"]);
    let receipts = world.hub(0).receipts();
    for again in &receipts[5..] {
        let first = receipts[..5].iter().find(|first| first.payload == again.payload).unwrap();
        assert_eq!((first.packet_id, &first.topic, again.dup), (again.packet_id, &again.topic, true));
    }
    let mut packet_ids: Vec<_> = receipts[..5].iter().map(|receipt| receipt.packet_id).collect();
    packet_ids.sort_unstable();
    packet_ids.dedup();
    assert_eq!(packet_ids.len(), 5, "no two in flight share one");
    assert_eq!((world.duplicates(), world.ledger().resent), (5, 5));
}

#[test]
fn the_priority_move_to_another_hub_together() {
    let mut world = large(4);
    world.start();
    world.run_until_up();
    world.hub_mut(0).faults.publish = PublishFault::Withhold;
    world.publish_many(40);
    let alarms = ["fire", "flood"].map(|body| world.publish_urgent(body));
    world.run_for(secs(5));
    world.move_device(0, 1);
    world.publish_urgent("frost");
    world.run_until_delivered();
    let bodies = world.bodies(1);
    assert_eq!(bodies[..3], ["fire", "flood", "frost"]);
    assert_eq!(bodies[3..], numbers(40));
    assert_eq!(world.delivered()[..2], alarms);
    assert!(world.hub(1).receipts().iter().all(|receipt| !receipt.dup), "another hub has seen none of them");
}

#[test]
fn an_alarm_evicts_the_normal_and_nothing_evicts_an_alarm_but_an_alarm() {
    let builder = World::builder().configure(|config| config.session.overflow = Overflow::DropOldest);
    let mut world = builder.build_with(|_| RamOutbox::<4, 64>::new());
    let normal = world.publish_many(4);
    let alarms: Vec<MessageId> = (0..3).map(|number| world.publish_urgent(&format!("alarm {number}"))).collect();
    let evicted = |ids: &[MessageId]| ids.iter().map(|id| (*id, DropReason::Evicted)).collect::<Vec<_>>();
    assert_eq!(world.dropped(), evicted(&normal[..3]));
    let newest = world.publish("newest");
    assert_eq!(world.dropped(), evicted(&normal), "a normal message takes the place of a normal one");
    world.publish_urgent("alarm 3");
    assert_eq!(world.dropped().last(), Some(&(newest, DropReason::Evicted)));
    assert_eq!(world.try_publish(b"one more", None), Err(PublishError::Full), "alarms make no room for it");
    world.publish_urgent("alarm 4");
    assert_eq!(world.dropped().last(), Some(&(alarms[0], DropReason::Evicted)));
    world.start();
    world.run_until_delivered();
    assert_eq!(world.bodies(0), ["alarm 1", "alarm 2", "alarm 3", "alarm 4"]);
    assert!(world.ledger().balances());
}

#[test]
fn an_outbox_that_refuses_the_newest_can_still_make_room_for_alarms() {
    let builder = World::builder().configure(|config| config.session.overflow = Overflow::DropForUrgent);
    let mut world = builder.build_with(|_| RamOutbox::<4, 64>::new());
    let normal = world.publish_many(4);
    assert_eq!(world.try_publish(b"more", None), Err(PublishError::Full));
    for number in 0..4 {
        world.publish_urgent(&format!("alarm {number}"));
    }
    let evicted: Vec<_> = normal.iter().map(|id| (*id, DropReason::Evicted)).collect();
    assert_eq!(world.dropped(), evicted);
    let refused = world.publish_as(0, Message::telemetry("", b"alarm 4").urgent());
    assert_eq!(refused, Err(PublishError::Full), "an alarm is never dropped for another");
    world.start();
    world.run_until_delivered();
    assert_eq!(world.bodies(0), ["alarm 0", "alarm 1", "alarm 2", "alarm 3"]);
}

#[test]
fn what_is_in_flight_is_not_evicted_for_an_alarm() {
    let builder = World::builder().assigned().configure(|config| {
        config.session.overflow = Overflow::DropOldest;
        config.session.window = 2;
    });
    let mut world = builder.build_with(|_| RamOutbox::<3, 64>::new());
    world.start();
    world.run_until_up();
    world.hub_mut(0).faults.publish = PublishFault::AckLate(5_000);
    let normal = world.publish_many(3);
    world.publish_urgent("fire");
    assert_eq!(world.dropped(), [(normal[2], DropReason::Evicted)]);
    world.run_until_delivered();
    assert_eq!(world.bodies(0), ["0", "1", "fire"]);
}

#[test]
fn each_message_expires_by_its_own_time_in_either_priority() {
    let mut world = World::builder().build();
    let short = |body, priority| Message { priority, ..Message::telemetry("", body) }.expires_after(secs(30));
    let day = world.publish_as(0, short(b"reading", Priority::Normal)).unwrap();
    let alarm = world.publish_as(0, short(b"short alarm", Priority::Urgent)).unwrap();
    world.publish("kept");
    world.publish_urgent("alarm kept");
    world.run_for(secs(31));
    assert_eq!(world.dropped(), [(alarm, DropReason::Expired), (day, DropReason::Expired)]);
    world.start();
    world.run_until_delivered();
    assert_eq!(world.bodies(0), ["alarm kept", "kept"]);
}

#[test]
fn alarms_that_are_acknowledged_do_not_excuse_a_message_that_is_not() {
    let mut world = large(5);
    world.start();
    world.run_until_up();
    world.hub_mut(0).faults.next_publishes.push_back(PublishFault::Withhold);
    world.publish("withheld");
    let attempts = world.attempts().len();
    for _ in 0..20 {
        world.publish_urgent("alarm");
        world.run_for(secs(10));
    }
    assert!(world.attempts().len() > attempts, "the connection counts as lost after two minutes");
    world.run_until_delivered();
    assert_eq!(world.ledger().delivered, 21);
}

#[test]
fn acknowledgements_out_of_order_end_the_right_messages_of_the_right_priority() {
    let mut world = large(6);
    world.start();
    world.run_until_up();
    world.hub_mut(0).faults.acks = Acks::Reversed(4);
    for number in 0..40 {
        world.publish(&number.to_string());
        world.publish_urgent(&format!("alarm {number}"));
    }
    world.run_for(mins(1));
    world.hub_mut(0).faults.acks = Acks::default();
    world.run_until_delivered();
    assert_eq!(world.ledger().delivered, 80);
}

#[test]
fn packet_ids_of_both_priority_go_round_without_a_clash() {
    let mut world = large(7);
    world.start();
    world.run_until_up();
    for _ in 0..350 {
        for number in 0..100 {
            world.publish("x");
            if number % 2 == 0 {
                world.publish_urgent("y");
            }
        }
        world.run_until_delivered();
    }
    // More than there are packet ids for either priority.
    assert_eq!(world.ledger().delivered, 52_500);
    let below = world.hub(0).receipts().iter().filter(|receipt| receipt.packet_id <= 0x8000).count();
    assert_eq!(below, 35_000);
}

#[test]
fn alarms_from_before_a_reboot_go_first_and_new_ones_follow_them() {
    let mut before = large(8);
    before.publish_many(3);
    before.publish_urgent("old alarm");
    let kept = before.link().outbox().clone();
    let mut world = World::builder().seed(9).build_with(|_| kept.clone());
    world.publish("new");
    let alarm = world.publish_urgent("new alarm");
    assert_eq!(alarm.priority(), Priority::Urgent);
    world.run_for(hours(1));
    world.start();
    world.run_until_delivered();
    assert_eq!(world.bodies(0), ["old alarm", "new alarm", "0", "1", "2", "new"]);
    let topics: std::collections::HashSet<_> = world.hub(0).receipts().iter().map(|it| &it.topic).collect();
    assert_eq!(topics.len(), 6, "ids go on where they ended");
}
