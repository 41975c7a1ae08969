//! Stopping in order.

use scenarios::{hours, mins, secs, seeds};
use steadfast_core::{Event, State};
use steadfast_sim::World;
use steadfast_sim::service::PublishFault;

fn up(seed: u64) -> World {
    let mut world = World::builder().seed(seed).assigned().build();
    world.start();
    world.run_until_up();
    world
}

fn stopped(event: &Event) -> bool {
    matches!(event, Event::Stopped)
}

#[test]
fn a_stop_first_sends_what_is_queued() {
    let mut world = up(1);
    world.publish_many(50);
    world.stop(secs(30));
    world.run_until("stopped", secs(30), |world| world.state() == State::Stopped);
    assert_eq!((world.ledger().delivered, world.ledger().queued), (50, 0));
    assert_eq!(world.count(stopped), 1);
    world.run_for(secs(1));
    assert_eq!(world.sizes().0, 0);
}

#[test]
fn a_stop_ends_at_its_deadline_and_keeps_the_rest() {
    let mut world = up(2);
    world.hub_mut(0).faults.publish = PublishFault::Withhold;
    world.publish_many(20);
    world.stop(secs(5));
    let took = world.run_until("stopped", secs(6), |world| world.state() == State::Stopped);
    assert_eq!(took, secs(5));
    assert_eq!(world.ledger().queued, 20);
    world.hub_mut(0).faults.publish = PublishFault::None;
    world.start();
    world.run_until_delivered();
    assert_eq!(world.count(|event| matches!(event, Event::Down(_))), 0);
}

#[test]
fn a_stop_is_final_in_every_phase_until_the_next_start() {
    seeds(80, |seed| {
        let mut world = World::builder().seed(seed).build();
        world.start();
        world.publish("21.5");
        world.run_for(std::time::Duration::from_millis(seed * 50));
        world.stop(secs(2));
        world.run_for(secs(3));
        assert_eq!((world.state(), world.count(stopped)), (State::Stopped, 1));
        let attempts = world.attempts().len();
        world.run_for(hours(5));
        assert_eq!((world.attempts().len(), world.sizes().0), (attempts, 0));
        world.start();
        world.run_until_delivered();
    });
}

#[test]
fn a_connection_that_breaks_during_a_stop_ends_it() {
    let mut world = up(3);
    world.hub_mut(0).faults.publish = PublishFault::Withhold;
    world.publish_many(5);
    world.stop(mins(1));
    world.reset_all();
    world.run_for(secs(1));
    assert_eq!((world.state(), world.count(stopped)), (State::Stopped, 1));
    assert_eq!(world.ledger().queued, 5);
}

#[test]
fn a_stop_before_a_start_is_a_stop() {
    let mut world = World::builder().build();
    world.stop(secs(1));
    assert_eq!((world.state(), world.count(stopped)), (State::Stopped, 1));
    world.stop(secs(1));
    assert_eq!(world.count(stopped), 1);
}

#[test]
fn starts_and_stops_in_a_row_leave_one_link_and_one_connection() {
    let mut world = up(4);
    for _ in 0..30 {
        world.stop(secs(0));
        world.start();
        world.start();
        world.run_for(std::time::Duration::from_millis(700));
    }
    world.publish("21.5");
    world.run_until_delivered();
    assert_eq!(world.sizes().0, 1);
}

#[test]
fn a_start_during_a_stop_brings_the_link_back() {
    let mut world = up(5);
    world.hub_mut(0).faults.next_publishes.push_back(PublishFault::Withhold);
    world.publish_many(3);
    world.stop(secs(30));
    world.run_for(secs(1));
    world.start();
    world.run_until_delivered();
    world.run_until_up();
    world.run_for(mins(10));
    assert_eq!((world.state(), world.count(stopped)), (State::Up, 0));
    assert_eq!(world.count(|event| matches!(event, Event::Down(_))), 0);
}
