//! What the service sends to the application.

use scenarios::{secs, seeds};
use steadfast_core::{Event, Subscriptions};
use steadfast_sim::{Feed, World};

fn up(seed: u64) -> World {
    let builder = World::builder().seed(seed).assigned().feed(Feed::Pieces);
    let mut world = builder.configure(|config| config.subscriptions = Subscriptions::ALL).build();
    world.start();
    world.run_until_up();
    world
}

fn bodies(world: &World) -> Vec<String> {
    world.inbound().iter().map(|inbound| String::from_utf8_lossy(&inbound.payload).into_owned()).collect()
}

#[test]
fn messages_to_the_device_arrive_and_are_acknowledged_once() {
    seeds(10, |seed| {
        let mut world = up(seed);
        for number in 0..50 {
            world.send_to_device(0, &number.to_string(), number % 3 != 0);
            world.run_for(secs(number % 2));
        }
        world.run_for(secs(5));
        let expected: Vec<String> = (0..50).map(|number| number.to_string()).collect();
        assert_eq!(bodies(&world), expected);
        world.reset_all();
        world.run_until_down();
        world.run_until_up();
        world.run_for(secs(5));
        assert_eq!(world.inbound().len(), 50);
    });
}

#[test]
fn messages_wait_for_a_device_that_is_away() {
    let mut world = up(1);
    world.hub_down(0);
    world.run_for(secs(10));
    world.send_to_device(0, "while away", true);
    world.hub_up(0);
    world.run_until_up();
    world.run_for(secs(2));
    assert_eq!(bodies(&world), ["while away"]);
}

#[test]
fn a_message_that_was_not_acknowledged_comes_again_marked_so() {
    let mut world = up(2);
    world.set_acknowledging(false);
    world.send_to_device(0, "unlock", true);
    world.run_for(secs(2));
    world.set_acknowledging(true);
    world.reset_all();
    world.run_until_down();
    world.run_until_up();
    world.run_for(secs(2));
    assert_eq!(bodies(&world), ["unlock", "unlock"]);
    assert_eq!(world.inbound().iter().map(|inbound| inbound.dup).collect::<Vec<_>>(), [false, true]);
}

#[test]
fn acknowledgements_keep_the_order_of_the_messages() {
    let mut world = up(3);
    world.set_acknowledging(false);
    for number in 0..5 {
        world.send_to_device(0, &number.to_string(), true);
    }
    world.run_for(secs(2));
    let received = world.inbound().to_vec();
    // The hub objects to an acknowledgement out of order, and the world would end.
    for place in [4, 2, 0, 1, 3] {
        let (packet_id, attempt) = (received[place].packet_id.unwrap(), received[place].attempt);
        assert!(world.command(0, |link, now| link.acknowledge(packet_id, attempt, now)));
        assert!(!world.command(0, |link, now| link.acknowledge(packet_id, attempt, now)));
        world.run_for(secs(1));
    }
    world.reset_all();
    world.run_until_down();
    world.run_until_up();
    world.run_for(secs(2));
    assert_eq!(world.inbound().len(), 5);
}

#[test]
fn an_acknowledgement_from_before_a_reconnection_is_dropped() {
    let mut world = up(4);
    world.set_acknowledging(false);
    world.send_to_device(0, "unlock", true);
    world.run_for(secs(2));
    let first = world.inbound()[0].clone();
    world.reset_all();
    world.run_until_down();
    let late = |world: &mut World| {
        let (packet_id, attempt) = (first.packet_id.unwrap(), first.attempt);
        world.command(0, |link, now| link.acknowledge(packet_id, attempt, now))
    };
    assert!(!late(&mut world));
    world.run_until_up();
    assert!(!late(&mut world));
    world.run_for(secs(2));
    assert_eq!(world.inbound().len(), 2);
}

#[test]
fn an_abandoned_message_holds_nothing_up_and_comes_again_on_the_next_connection() {
    let mut world = up(9);
    world.set_acknowledging(false);
    for number in 0..5 {
        world.send_to_device(0, &number.to_string(), true);
    }
    world.run_for(secs(2));
    let received = world.inbound().to_vec();
    let place = |place: usize| (received[place].packet_id.unwrap(), received[place].attempt);
    for handled in [1, 4, 2] {
        let (packet_id, attempt) = place(handled);
        assert!(world.command(0, |link, now| link.acknowledge(packet_id, attempt, now)));
    }
    for abandoned in [0, 3] {
        let (packet_id, attempt) = place(abandoned);
        assert!(world.command(0, |link, _| link.abandon(packet_id, attempt)));
        assert!(!world.command(0, |link, _| link.abandon(packet_id, attempt)));
        assert!(!world.command(0, |link, now| link.acknowledge(packet_id, attempt, now)));
    }
    world.run_for(secs(2));
    world.set_acknowledging(true);
    world.reset_all();
    world.run_until_down();
    world.run_until_up();
    world.run_for(secs(2));
    assert_eq!(bodies(&world)[5..], ["0", "3"]);
}

#[test]
fn a_full_queue_of_a_hub_comes_on_one_connection() {
    let mut world = up(10);
    world.set_acknowledging(false);
    for number in 0..50 {
        world.send_to_device(0, &number.to_string(), true);
    }
    world.run_for(secs(2));
    assert_eq!(world.inbound().len(), 50);
    let received = world.inbound().to_vec();
    for message in received.iter().rev() {
        let (packet_id, attempt) = (message.packet_id.unwrap(), message.attempt);
        assert!(world.command(0, |link, now| link.acknowledge(packet_id, attempt, now)));
    }
    world.run_for(secs(2));
    world.reset_all();
    world.run_until_down();
    world.run_until_up();
    world.run_for(secs(2));
    assert_eq!(world.inbound().len(), 50);
}

#[test]
fn more_than_the_link_can_track_is_reported_and_comes_later() {
    let mut world = up(5);
    world.set_acknowledging(false);
    for number in 0..80 {
        world.send_to_device(0, &number.to_string(), true);
    }
    world.run_for(secs(2));
    assert_eq!(world.inbound().len(), 50);
    assert!(world.count(|event| matches!(event, Event::InboundOverflow)) > 0);
    world.set_acknowledging(true);
    world.reset_all();
    world.run_until_down();
    world.run_until_up();
    world.run_for(secs(5));
    let mut all = bodies(&world);
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 80);
}

#[test]
fn a_forgotten_session_gets_its_subscriptions_back() {
    let mut world = up(6);
    world.hub_mut(0).forget_sessions();
    world.reset_all();
    world.run_until_down();
    world.run_until_up();
    assert_eq!(world.hub(0).filters("pump-7").map(<[String]>::len), Some(4));
    world.send_to_device(0, "hello", true);
    world.run_for(secs(2));
    assert_eq!(bodies(&world), ["hello"]);
}

#[test]
fn a_kept_session_is_not_subscribed_to_again() {
    let mut world = up(7);
    world.hub_mut(0).faults.subscribe = steadfast_sim::service::SubscribeFault::Silence;
    world.run_for(secs(200));
    world.reset_all();
    world.run_until_down();
    let took = world.run_until_up();
    assert!(took < secs(4), "{took:?}");
}

#[test]
fn a_session_whose_greeting_was_lost_gets_its_subscriptions_back() {
    let mut world = up(8);
    world.run_for(secs(200));
    world.hub_mut(0).forget_sessions();
    world.hub_mut(0).faults.next_greetings.push_back(steadfast_sim::service::Greeting::Late(300_000));
    world.reset_all();
    world.run_until_down();
    world.run_until_up();
    assert!(world.events().iter().any(|(_, event)| *event == Event::Up { session_present: true }));
    world.send_to_device(0, "hello", true);
    world.run_for(secs(2));
    assert_eq!(bodies(&world), ["hello"]);
}
