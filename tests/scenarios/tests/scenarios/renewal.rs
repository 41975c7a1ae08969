//! Tokens are renewed without a fuss.

use scenarios::{chi_square, days, hours, mins, secs, seeds};
use steadfast_core::{Event, LocalFailure, RamOutbox, State};
use steadfast_sim::World;
use steadfast_sim::service::PublishFault;

fn up(seed: u64) -> World {
    let mut world = World::builder().seed(seed).assigned().build();
    world.start();
    world.run_until_up();
    world
}

fn renewing(event: &Event) -> bool {
    matches!(event, Event::Renewing)
}

#[test]
fn a_renewal_is_no_outage() {
    seeds(5, |seed| {
        let mut world = up(seed);
        for _ in 0..24 * 60 {
            world.publish("21.5");
            world.run_for(mins(1));
        }
        world.run_until_delivered();
        let renewals = world.count(renewing);
        assert!((26..33).contains(&renewals), "{renewals}");
        assert_eq!(world.count(|event| matches!(event, Event::Down(_) | Event::Retrying { .. })), 0);
        assert_eq!((world.duplicates(), world.attempts().len()), (0, renewals + 1));
        assert_eq!(world.status().last_failure, None);
    });
}

#[test]
fn a_renewal_waits_for_what_is_in_flight() {
    let mut world = up(1);
    let at = world.events().len();
    world.run_for(mins(40));
    for _ in 0..1_000 {
        if world.count(renewing) > 0 {
            break;
        }
        world.hub_mut(0).faults.publish = PublishFault::AckLate(3_000);
        world.publish("21.5");
        world.run_for(secs(1));
    }
    assert!(world.status().renewing);
    assert_eq!(world.state(), State::Draining);
    world.run_until_delivered();
    assert_eq!(world.duplicates(), 0);
    assert!(world.events()[at..].iter().all(|(_, event)| !matches!(event, Event::Down(_))));
}

#[test]
fn a_renewal_does_not_wait_for_ever() {
    let builder = World::builder().seed(2).assigned().configure(|config| config.session.timeouts.puback = hours(1));
    let mut world = builder.build();
    world.start();
    world.run_until_up();
    world.run_for(mins(43));
    world.hub_mut(0).faults.next_publishes.push_back(PublishFault::Withhold);
    world.publish("21.5");
    world.run_until("renewing", mins(12), |world| world.state() == State::Draining);
    let took = world.run_until_delivered();
    assert!(took >= secs(10) && took < secs(12), "{took:?}");
    assert_eq!(world.count(|event| matches!(event, Event::Down(_))), 0);
}

#[test]
fn renewals_of_a_fleet_that_started_together_are_spread_flat() {
    let mut world = World::builder().seed(3).devices(10_000).assigned();
    world = world.configure(|config| config.session.keep_alive = secs(1100));
    let mut world = world.build_with(|_| RamOutbox::<1, 8>::new());
    world.start();
    world.run_for(mins(56));
    let at = |number: usize| {
        let renewed = world.events_of(number).iter().find(|(_, event)| renewing(event)).expect("a renewal").0;
        renewed - world.attempts_of(number)[0].at_ms
    };
    let ages: Vec<u64> = (0..world.devices()).map(at).collect();
    assert!(ages.iter().all(|age| (2_700_000..=3_240_000).contains(age)));
    let offsets: Vec<u64> = ages.iter().map(|age| age - 2_700_000).collect();
    let statistic = chi_square(&offsets, 540_000, 20);
    assert!(statistic < 43.8, "{statistic}");
}

#[test]
fn the_token_never_runs_out_on_a_connection() {
    let mut world = World::builder().assigned().configure(|config| config.token_lifetime = mins(10)).build();
    world.start();
    world.run_until_up();
    world.run_for(days(2));
    assert_eq!(world.count(|event| matches!(event, Event::Down(_))), 0);
}

#[test]
fn certificates_need_no_renewal() {
    let mut world = World::builder().certificate().build();
    world.start();
    world.run_until_up();
    world.run_for(days(3));
    assert_eq!((world.count(renewing), world.attempts().len()), (0, 2));
}

#[test]
fn a_key_holder_that_is_slow_silent_or_broken_is_waited_for_and_tried_again() {
    use steadfast_sim::Signing;
    for signing in [Signing::Never, Signing::Fails(LocalFailure::Signing), Signing::After(40_000)] {
        let mut world = World::builder().assigned().build();
        world.set_signing(signing);
        world.start();
        world.run_for(mins(10));
        assert!(world.attempts().is_empty());
        world.set_signing(Signing::After(5_000));
        world.publish("21.5");
        world.run_until_delivered();
    }
}

#[test]
fn a_reset_during_a_renewal_s_drain_loses_nothing() {
    let mut world = up(4);
    world.run_for(mins(40));
    for _ in 0..1_000 {
        if world.count(renewing) > 0 {
            break;
        }
        world.hub_mut(0).faults.publish = PublishFault::AckLate(5_000);
        world.publish("21.5");
        world.run_for(secs(2));
    }
    world.reset_all();
    world.run_until_delivered();
    world.run_for(hours(2));
}

#[test]
fn a_hub_that_is_away_for_a_moment_after_a_renewal_is_a_short_outage() {
    seeds(20, |seed| {
        let mut world = up(seed);
        world.run_until("renewing", mins(55), |world| world.count(renewing) == 1);
        let host = world.hub(0).name().to_owned();
        world.network().set(&host, steadfast_sim::Reach::Refused);
        world.run_for(secs(10));
        world.network().set(&host, steadfast_sim::Reach::Open);
        let took = world.run_until_up();
        assert!(took < secs(8), "{took:?}");
        assert!(world.registrations().is_empty());
    });
}
