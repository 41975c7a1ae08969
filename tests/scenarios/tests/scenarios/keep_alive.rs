//! Dead connections are found, living ones are left alone.

use scenarios::{days, hours, mins, secs, seeds};
use steadfast_core::{Config, Credential, Event, Failure, Service, State};
use steadfast_sim::service::PublishFault;
use steadfast_sim::{HeapOutbox, World};

fn up(seed: u64) -> World {
    let mut world = World::builder().seed(seed).certificate().assigned().build();
    world.start();
    world.run_until_up();
    world
}

#[test]
fn an_idle_connection_stays() {
    let mut world = up(1);
    world.run_for(days(2));
    assert_eq!((world.state(), world.attempts().len()), (State::Up, 1));
}

#[test]
fn a_half_open_connection_is_found_within_one_and_a_half_intervals() {
    seeds(20, |seed| {
        let mut world = up(seed);
        world.run_for(secs(seed * 37));
        world.freeze();
        let took = world.run_until_down();
        assert!(took <= secs(361), "{took:?}");
        assert!(world.events().iter().any(|(_, event)| *event == Event::Down(Failure::KeepAliveTimeout)));
        world.run_until_up();
    });
}

#[test]
fn a_half_open_connection_with_a_queue_is_found_as_soon_and_nothing_is_lost() {
    seeds(10, |seed| {
        let mut world = up(seed);
        world.run_for(secs(100));
        world.freeze();
        world.publish_many(10);
        let took = world.run_until_delivered();
        assert!(took <= secs(370), "{took:?}");
    });
}

#[test]
fn a_service_that_answers_no_ping_is_left() {
    let mut world = up(2);
    world.hub_mut(0).faults.mute = true;
    let took = world.run_until_down();
    assert!((secs(355)..secs(362)).contains(&took), "{took:?}");
    world.hub_mut(0).faults.mute = false;
    world.run_until_up();
}

#[test]
fn any_traffic_counts_as_a_sign_of_life() {
    let mut world = up(3);
    world.hub_mut(0).faults.mute = true;
    for _ in 0..100 {
        world.publish("21.5");
        world.run_for(secs(200));
    }
    assert_eq!(world.attempts().len(), 1);
}

#[test]
fn the_service_hears_of_the_device_within_its_interval() {
    let mut world = up(4);
    for _ in 0..200 {
        world.send_to_device(0, "hello", false);
        world.run_for(secs(50));
    }
    assert_eq!(world.attempts().len(), 1);
}

#[test]
fn a_peer_that_stops_reading_is_found_and_the_queue_stays_bounded() {
    let mut world = up(5);
    world.set_uplink(4096, 0);
    for _ in 0..60 {
        let _ = world.try_publish(&[b'x'; 200], None);
        world.run_for(secs(1));
    }
    let took = world.run_until_down();
    assert!(took <= secs(310), "{took:?}");
    world.set_uplink(4096, 100_000);
    world.run_until_delivered();
}

#[test]
fn a_slow_uplink_is_no_dead_connection() {
    let builder = World::builder().assigned().configure(|config| config.session.keep_alive = secs(10));
    let mut world = builder.build_with(|_| HeapOutbox::new(4, 1 << 20));
    world.start();
    world.run_until_up();
    world.set_uplink(1 << 20, 8_000);
    world.try_publish(&vec![b'x'; 250_000], None).unwrap();
    let took = world.run_until_delivered();
    assert!(took > secs(30) && took < secs(34), "{took:?}");
    assert_eq!(world.attempts().len(), 1);
}

#[test]
fn a_frontend_with_a_small_buffer_sends_everything_in_the_end() {
    let mut world = up(6);
    world.set_uplink(2048, 3_000);
    world.publish_many(60);
    world.run_until_delivered();
    assert_eq!(world.duplicates(), 0);
}

#[test]
fn after_a_sleep_the_link_asks_before_it_judges() {
    seeds(10, |seed| {
        let mut world = up(seed);
        world.run_for(mins(3));
        world.hub_mut(0).faults.publish = PublishFault::AckLate(20);
        world.suspend(hours(8));
        world.run_for(hours(8));
        world.run_for(mins(6));
        assert_eq!((world.state(), world.attempts().len()), (State::Up, 1));
    });
}

#[test]
fn a_message_may_take_longer_than_the_patience_for_its_acknowledgement_while_its_bytes_move() {
    let mut world = World::builder().assigned().build_with(|_| HeapOutbox::new(4, 1 << 20));
    world.start();
    world.run_until_up();
    world.set_uplink(1 << 20, 1_000);
    world.try_publish(&vec![b'x'; 200_000], None).unwrap();
    let took = world.run_until_delivered();
    assert!(took > secs(200) && took < secs(210), "{took:?}");
    assert_eq!(world.attempts().len(), 1);
}

#[test]
fn a_path_of_seconds_with_acknowledgements_overtaken_by_data_is_no_loss() {
    seeds(5, |seed| {
        let mut world = World::builder().seed(seed).assigned().build();
        world.network().latency_ms = 100..=4_000;
        world.start();
        world.run_until_up();
        for round in 0..200 {
            world.publish(&round.to_string());
            world.send_to_device(0, "hello", true);
            world.run_for(secs(2));
        }
        world.run_until_delivered();
        assert_eq!((world.attempts().len(), world.duplicates()), (1, 0));
    });
}

#[test]
fn an_interval_beyond_the_hub_s_limit_is_refused_before_the_first_packet() {
    let service = Service::Hub { host: "hub.example", device_id: "pump-7" };
    for (interval, good) in [(0, false), (1, true), (1_177, true), (1_178, false), (1_767, false)] {
        let mut config = Config::new(service, Credential::Certificate);
        config.session.keep_alive = secs(interval);
        assert_eq!(config.check().is_ok(), good, "{interval} s");
    }
}
