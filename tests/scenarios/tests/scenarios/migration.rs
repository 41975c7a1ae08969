//! The device moves, and its queue with it.

use scenarios::{hours, mins, secs, seeds};
use steadfast_core::{Event, ServiceKind, State, Subscriptions};
use steadfast_sim::service::{DpsFault, Greeting, PublishFault};
use steadfast_sim::{Reach, World};

fn stable(seed: u64) -> World {
    let builder = World::builder().seed(seed).assigned().configure(|config| {
        config.session.window = 8;
        config.subscriptions = Subscriptions::METHODS | Subscriptions::CLOUD_TO_DEVICE;
    });
    let mut world = builder.build();
    world.start();
    world.run_until_up();
    world.run_for(mins(5));
    world
}

#[test]
fn a_moved_device_finds_its_new_hub_with_everything_it_carries() {
    seeds(20, |seed| {
        let mut world = stable(seed);
        world.hub_mut(0).faults.publish = PublishFault::Withhold;
        let ids = world.publish_many(30);
        world.run_for(secs(2));
        world.move_device(0, 1);
        let took = world.run_until_delivered();
        assert!(took < secs(60), "{took:?}");
        assert_eq!(world.delivered(), ids);
        assert!(world.duplicates() <= 8);
        let bodies: Vec<String> = (0..30).map(|number| number.to_string()).collect();
        assert_eq!(world.bodies(1), bodies);
        assert_eq!(world.registrations().len(), 1);
        assert_eq!(world.saved().unwrap().hub(), world.hub(1).name());
        assert_eq!(world.count(|event| matches!(event, Event::Provisioned { migrated: true })), 1);
    });
}

#[test]
fn nothing_of_the_old_hub_s_session_is_taken_to_the_new_one() {
    let mut world = stable(2);
    world.hub_mut(0).faults.next_publishes.push_back(PublishFault::Withhold);
    world.publish("21.5");
    world.run_for(secs(2));
    world.move_device(0, 1);
    world.hub_mut(1).faults.claim_session = true;
    world.run_until_delivered();
    assert!(!world.hub(1).receipts()[0].dup);
    assert_eq!(world.hub(1).filters("pump-7").map(<[String]>::len), Some(2));
}

#[test]
fn a_refusal_is_met_with_a_fresh_token_before_the_provisioning_service_is_asked() {
    let mut world = stable(3);
    let attempts = world.attempts().len();
    world.hub_mut(0).faults.next_greetings.push_back(Greeting::Code(5));
    world.reset_all();
    world.run_until_down();
    let took = world.run_until_up();
    assert!(took < secs(8), "{took:?}");
    assert!(world.attempts()[attempts..].iter().all(|attempt| attempt.role == ServiceKind::Hub));
    assert!(world.registrations().is_empty());
}

#[test]
fn registrations_for_a_hub_that_stays_unreachable_grow_apart() {
    let mut world = stable(4);
    world.hub_down(0);
    world.run_for(hours(48));
    let registrations = world.registrations();
    assert!((4..16).contains(&registrations.len()), "{registrations:?}");
    world.hub_up(0);
    let took = world.run_until_up();
    assert!(took < secs(130), "{took:?}");
}

#[test]
fn an_unreachable_hub_that_has_moved_is_found_through_provisioning() {
    let mut world = stable(5);
    world.hub_down(0);
    world.move_device(0, 1);
    world.publish("21.5");
    let took = world.run_until_delivered();
    assert!(took < mins(44), "{took:?}");
    assert_eq!(world.registrations().len(), 1);
}

#[test]
fn overload_never_causes_a_registration() {
    for greeting in [Greeting::Code(3), Greeting::Silence, Greeting::Close] {
        let mut world = stable(6);
        world.hub_mut(0).faults.greeting = greeting;
        world.reset_all();
        world.run_for(hours(48));
        assert!(world.registrations().is_empty());
    }
    let mut world = stable(6);
    world.hub_mut(0).faults.publish = PublishFault::Withhold;
    world.publish("21.5");
    world.run_for(hours(12));
    assert!(world.registrations().is_empty());
}

#[test]
fn a_silent_syn_after_overload_is_no_reason_to_register() {
    let mut world = stable(7);
    world.hub_mut(0).faults.next_greetings.push_back(Greeting::Code(3));
    world.reset_all();
    world.run_until("overloaded", mins(1), |world| {
        world.status().last_failure.is_some_and(|failure| failure == steadfast_core::Failure::ConnectRefused(3))
    });
    let host = world.hub(0).name().to_owned();
    world.network().set(&host, Reach::BlackHole);
    world.run_for(hours(24));
    assert!(world.registrations().is_empty());
}

#[test]
fn a_provisioning_service_that_is_down_does_not_keep_the_device_from_its_hub() {
    for fault in [DpsFault::Silence, DpsFault::Status { status: 503, retry_after_secs: Some(60) }, DpsFault::Disabled] {
        let mut world = stable(8);
        world.dps_mut().fault = fault;
        world.set_enabled(0, false);
        world.run_for(mins(3));
        world.set_enabled(0, true);
        let took = world.run_until_up();
        assert!(took < mins(15), "{took:?}");
    }
}

#[test]
fn an_operator_s_order_moves_a_connected_device_without_a_loss() {
    let mut world = stable(9);
    world.add_to_hub(1);
    let unix_secs = steadfast_sim::EPOCH_SECS;
    let other = world.hub(1).name().to_owned();
    world.dps_mut().assign("pump-7", &other, unix_secs);
    let ids = world.publish_many(20);
    world.reprovision();
    let took = world.run_until("moved", secs(30), |world| world.hub(1).accepted() == 1);
    assert!(took < secs(15), "{took:?}");
    world.run_until_delivered();
    assert_eq!(world.delivered(), ids);
    assert_eq!(world.count(|event| matches!(event, Event::Down(_))), 0);
    assert_eq!(world.duplicates(), 0);
}

#[test]
fn an_order_to_register_is_obeyed_from_every_state() {
    for wait in [0, 200, 1_000, 1_500, 2_000, 2_500, 3_500] {
        let mut world = World::builder().seed(10).assigned().build();
        world.start();
        world.run_for(std::time::Duration::from_millis(wait));
        world.reprovision();
        world.run_until("registered", mins(1), |world| world.registrations().len() == 1);
        world.run_until_up();
        world.run_for(mins(10));
        assert_eq!(world.registrations().len(), 1, "after {wait} ms");
    }
}

#[test]
fn a_device_with_a_certificate_moves_as_well() {
    let mut world = World::builder().certificate().build();
    world.start();
    world.run_until_up();
    world.run_for(mins(5));
    world.publish_many(5);
    world.move_device(0, 1);
    world.run_until_delivered();
    assert_eq!(world.attempts().last().unwrap().host, world.hub(1).name());
}

#[test]
fn an_overload_of_provisioning_long_past_does_not_slow_the_next_move() {
    let mut world = stable(11);
    world.dps_mut().next_faults.push_back(DpsFault::Status { status: 503, retry_after_secs: None });
    world.reprovision();
    world.run_until("asked", mins(1), |world| world.registrations().len() == 1);
    world.run_until_up();
    world.run_for(hours(240));
    world.dps_mut().next_faults.push_back(DpsFault::Silence);
    world.publish("21.5");
    world.move_device(0, 1);
    let took = world.run_until_delivered();
    assert!(took < mins(20), "{took:?}");
}

#[test]
fn a_hub_that_refuses_for_good_costs_few_registrations() {
    seeds(10, |seed| {
        let mut world = stable(seed);
        world.set_enabled(0, false);
        world.run_for(hours(12));
        let registrations = world.registrations();
        for pair in registrations.windows(2) {
            assert!(pair[1] - pair[0] >= 10 * 60_000, "{registrations:?}");
        }
        assert!((2..12).contains(&registrations.len()), "{registrations:?}");
        assert!(world.attempts().len() < 80, "{}", world.attempts().len());
        world.set_enabled(0, true);
        world.run_for(hours(1) + mins(10));
        assert_eq!(world.state(), State::Up);
    });
}

#[test]
fn an_unreachable_hub_sends_the_device_to_provisioning_after_twenty_to_forty_minutes() {
    let mut first = Vec::new();
    seeds(40, |seed| {
        let mut world = stable(seed);
        let lost = world.now_ms();
        let host = world.hub(0).name().to_owned();
        world.network().set(&host, Reach::Unresolved);
        world.reset_all();
        world.run_until("asked", mins(45), |world| !world.registrations().is_empty());
        first.push((world.registrations()[0] - lost) / 1000);
        let asked = world.attempts().len();
        world.run_for(mins(8));
        assert_eq!(world.registrations().len(), 1, "seed {seed}: {:?}", world.registrations());
        assert!(world.attempts()[asked..].iter().any(|attempt| attempt.role == ServiceKind::Hub));
    });
    // An attempt that is due waits for the end of the one before, and both are up to two minutes apart.
    assert!(first.iter().all(|at| (20 * 60..=44 * 60).contains(at)), "{first:?}");
    let (least, most) = (first.iter().min().unwrap(), first.iter().max().unwrap());
    assert!(most - least > 10 * 60, "{first:?}");
}

#[test]
fn a_hub_that_closed_once_and_is_gone_for_good_is_looked_up() {
    seeds(10, |seed| {
        let mut world = stable(seed);
        world.hub_mut(0).faults.next_greetings.push_back(Greeting::Close);
        world.reset_all();
        let closed = |world: &World| world.status().failures == 2;
        world.run_until("closed again", mins(5), closed);
        let host = world.hub(0).name().to_owned();
        world.network().set(&host, Reach::Unresolved);
        world.move_device(0, 1);
        world.publish("21.5");
        let took = world.run_until_delivered();
        assert!(took < mins(90), "{took:?}");
        assert_eq!(world.registrations().len(), 1);
    });
}

#[test]
fn an_order_to_register_given_on_the_way_to_provisioning_costs_one_registration() {
    for wait in (0..3_200).step_by(20) {
        let mut world = World::builder().seed(5).build();
        world.start();
        world.run_for(std::time::Duration::from_millis(wait));
        let on_the_way = world.state() == State::Provisioning;
        world.reprovision();
        world.run_until_up();
        world.run_for(secs(30));
        assert!(!on_the_way || world.registrations().len() == 1, "after {wait} ms");
    }
}
