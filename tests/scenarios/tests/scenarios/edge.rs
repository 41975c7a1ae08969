//! Modules of an IoT Edge device, whose tokens the workload API signs, and whose hub is a gateway beside them.

use scenarios::{days, hours, mins, secs, seeds};
use steadfast_core::edge::retry::Trust;
use steadfast_core::{Advice, Event, Failure, Instant, LocalFailure, RetryPolicy, State, TlsFailure};
use steadfast_sim::service::Greeting;
use steadfast_sim::{Reach, Signing, World};

const GATEWAY: &str = "edgehub";
const AWAY: LocalFailure = LocalFailure::WorkloadUnreachable;

/// Modules of one Edge device; the world's devices stand for them.
fn modules(seed: u64, count: usize) -> World {
    let builder = World::builder().seed(seed).devices(count).fixed_hub();
    let builder = builder.configure(|config| {
        config.gateway = Some(GATEWAY.into());
        config.session.retry = RetryPolicy::EDGE;
    });
    let mut world = builder.build();
    let hub = world.hub(0).name().to_owned();
    world.network().add_gateway(GATEWAY, &hub);
    world
}

fn ups(world: &World) -> usize {
    world.count(|event| matches!(event, Event::Up { .. }))
}

#[test]
fn a_module_that_boots_before_the_workload_api_and_the_gateway_waits_for_one_after_the_other() {
    seeds(20, |seed| {
        let mut world = modules(seed, 1);
        world.set_signing(Signing::Fails(AWAY));
        world.network().set(GATEWAY, Reach::Refused);
        world.start();
        world.publish_many(3);
        world.run_for(mins(2));
        assert!(world.attempts().is_empty(), "without a signature nobody is dialled");
        let status = world.status();
        assert_eq!((status.last_failure, status.advice()), (Some(Failure::Local(AWAY)), Advice::CheckDevice));
        assert!(status.next_attempt.is_some() && status.state == State::BackingOff, "{status}");

        world.set_signing(Signing::After(200));
        world.run_for(mins(2));
        assert_eq!(world.status().last_failure, Some(Failure::ConnectionRefused));
        world.network().set(GATEWAY, Reach::Open);
        let took = world.run_until_delivered();
        assert!(took < mins(3), "{took:?} for an absence of 4 minutes");
        assert_eq!(ups(&world), 1);
    });
}

#[test]
fn a_refusal_of_the_workload_api_is_outlasted_at_a_slow_pace_for_as_long_as_it_takes() {
    seeds(5, |seed| {
        let mut world = modules(seed, 1);
        for status in [403, 404, 500, 0] {
            let refused = LocalFailure::WorkloadRefused(status);
            world.set_signing(Signing::Fails(refused));
            world.start();
            world.run_for(hours(6));
            assert_eq!(world.status().last_failure, Some(Failure::Local(refused)));
            assert_ne!(world.state(), State::Stopped);
        }
        let delays = world.delays_ms();
        let slowest = delays.iter().rev().take(20).copied().max().unwrap_or_default();
        assert!((10_000..=20_000).contains(&slowest), "{slowest} ms apart after a day");
        world.publish("21.5");
        world.set_signing(Signing::Prompt);
        let took = world.run_until_delivered();
        assert!(took < secs(25), "{took:?}");
    });
}

#[test]
fn a_gateway_that_goes_right_after_the_module_came_is_found_again_within_seconds_of_its_return() {
    seeds(20, |seed| {
        let mut world = modules(seed, 1);
        world.start();
        world.run_until_up();
        world.run_for(secs(5));
        world.network().set(GATEWAY, Reach::ClosedAfterTls);
        world.reset_all();
        world.run_for(hours(3));
        world.network().set(GATEWAY, Reach::Refused);
        world.run_for(hours(3));
        world.network().set(GATEWAY, Reach::Open);
        world.publish("21.5");
        let took = world.run_until_delivered();
        assert!(took < secs(25), "{took:?}");
    });
}

#[test]
fn an_edge_device_that_restarts_under_its_modules_loses_nothing_of_theirs() {
    seeds(20, |seed| {
        let mut world = modules(seed, 1);
        world.start();
        world.run_until_up();
        for _ in 0..10 {
            // The gateway goes first, and the workload API comes back first, or last.
            let order = world.rng().between(0, 1);
            world.publish_many(3);
            world.network().set(GATEWAY, Reach::Refused);
            world.reset_all();
            world.set_signing(Signing::Fails(AWAY));
            let (one, other) = (world.rng().between(1, 90), world.rng().between(1, 90));
            world.publish_many(3);
            world.run_for(secs(one));
            if order == 0 {
                world.set_signing(Signing::Prompt);
            } else {
                world.network().set(GATEWAY, Reach::Open);
            }
            world.run_for(secs(other));
            world.set_signing(Signing::Prompt);
            world.network().set(GATEWAY, Reach::Open);
            world.run_until_delivered();
        }
        assert_eq!(world.ledger().delivered, 60);
    });
}

#[test]
fn a_workload_api_that_is_away_when_tokens_run_out_costs_the_connection_and_no_message() {
    seeds(5, |seed| {
        let mut world = modules(seed, 1);
        world.start();
        world.run_until_up();
        world.set_signing(Signing::Fails(AWAY));
        for _ in 0..40 {
            world.publish("21.5");
            world.run_for(mins(3));
        }
        assert_eq!(world.status().last_failure, Some(Failure::Local(AWAY)), "the token was to be renewed by then");
        world.set_signing(Signing::Prompt);
        world.run_until_delivered();
        assert_eq!(world.ledger().delivered, 40);
        world.run_for(days(1));
        assert_eq!(world.state(), State::Up);
    });
}

#[test]
fn modules_that_waited_for_the_workload_api_do_not_ask_it_all_at_once() {
    let mut world = modules(7, 100);
    world.set_all_signing(Signing::Fails(AWAY));
    world.start();
    world.run_for(mins(1));
    let back = world.now_ms();
    world.set_all_signing(Signing::After(50));
    world.run_until_up();
    assert!(world.now_ms() - back < 60_000, "back {} ms after the workload API", world.now_ms() - back);
    let mut seconds = [0_u32; 61];
    for number in 0..world.devices() {
        let first = world.attempts_of(number).first().map_or(u64::MAX, |attempt| attempt.at_ms);
        seconds[usize::try_from((first - back) / 1000).unwrap_or(60).min(60)] += 1;
    }
    // Seven a second would be even.
    assert!(seconds.iter().all(|count| *count <= 20), "{seconds:?}");
}

#[test]
fn a_module_whose_key_was_made_anew_is_refused_until_the_workload_api_has_it_and_never_gives_up() {
    seeds(10, |seed| {
        let mut world = modules(seed, 1);
        world.start();
        world.run_until_up();
        world.publish_many(3);
        world.hub_mut(0).faults.greeting = Greeting::Code(5);
        world.reset_all();
        world.publish_many(3);
        world.run_for(mins(20));
        assert_eq!(world.status().last_failure, Some(Failure::ConnectRefused(5)));
        assert!(world.registrations().is_empty(), "a module has no provisioning service to turn to");
        let attempts = world.attempts().len();
        assert!((3..=60).contains(&attempts), "{attempts} attempts in 20 minutes of refusals");
        world.hub_mut(0).faults.greeting = Greeting::Judge;
        let took = world.run_until_delivered();
        assert!(took < mins(11), "{took:?}");
        assert_eq!(world.ledger().delivered, 6);
    });
}

#[test]
fn a_renewed_certificate_of_the_gateway_is_trusted_at_the_attempt_after_the_new_roots_are_named() {
    seeds(10, |seed| {
        let mut world = modules(seed, 1);
        let mut trust = Trust::new();
        // The frontend asks before a connection when it is due.
        trust.named(Instant::from_millis(world.now_ms()));
        world.start();
        world.run_until_up();
        world.run_for(mins(10));
        world.publish_many(3);
        world.network().set(GATEWAY, Reach::Tls(TlsFailure::UnknownIssuer));
        world.reset_all();
        world.run_until_down();
        let (lost, mut asked) = (world.now_ms(), 0);
        while world.state() != State::Up {
            let attempts = world.attempts().len();
            let next = |world: &World| world.attempts().len() > attempts || world.state() == State::Up;
            world.run_until("another attempt", mins(5), next);
            let now = Instant::from_millis(world.now_ms());
            if trust.is_due(now) {
                asked += 1;
                trust.named(now);
                // The Edge device knows its new roots after five minutes.
                if world.now_ms() - lost > 300_000 {
                    world.network().set(GATEWAY, Reach::Open);
                }
            }
            trust.doubt(TlsFailure::UnknownIssuer);
        }
        world.run_until_delivered();
        let took = world.now_ms() - lost;
        assert!((300_000..600_000).contains(&took), "{took} ms");
        let attempts = world.attempts().len();
        assert!(asked >= 2 && asked < attempts, "asked {asked} times, with {attempts} attempts");
    });
}
