//! How the link comes back, and how it does not.

use scenarios::{chi_square, days, hours, mins, secs, seeds};
use steadfast_core::{Event, Failure, LocalFailure, RamOutbox, State, TlsFailure};
use steadfast_sim::service::{Greeting, SubscribeFault};
use steadfast_sim::{Reach, World};

fn stable(seed: u64) -> World {
    let mut world = World::builder().seed(seed).assigned().build();
    world.start();
    world.run_until_up();
    world.run_for(mins(5));
    world
}

#[test]
fn the_link_recovers_from_outages_of_a_second_to_a_week() {
    for (seed, outage) in (1..).zip([secs(1), secs(10), mins(2), mins(30), hours(6), days(1), days(7)]) {
        let mut world = stable(seed);
        world.hub_down(0);
        world.run_for(secs(1));
        world.publish_many(10);
        world.run_for(outage);
        world.hub_up(0);
        let took = world.run_until_up();
        let bound = (outage / 4 + secs(5)).min(secs(125));
        assert!(took <= bound, "after {outage:?}: {took:?}");
        world.run_until_delivered();
        assert!(world.events().iter().all(|(_, event)| !matches!(event, Event::Stopped)));
    }
}

#[test]
fn a_device_that_boots_without_a_network_connects_when_there_is_one() {
    let mut world = World::builder().build();
    world.network().set_all(Some(Reach::Unresolved));
    world.start();
    world.publish("21.5");
    world.run_for(hours(1));
    world.network().set_all(None);
    let took = world.run_until_delivered();
    assert!(took < secs(130), "{took:?}");
}

#[test]
fn an_interface_that_flaps_every_second_is_not_hammered() {
    let mut world = stable(3);
    let before = world.attempts().len();
    for round in 0..600 {
        world.network().set_all((round % 2 == 0).then_some(Reach::NoRoute));
        if round % 2 == 0 {
            world.reset_all();
        }
        world.run_for(secs(1));
    }
    world.network().set_all(None);
    let attempts = world.attempts().len() - before;
    assert!((5..60).contains(&attempts), "{attempts}");
    let took = world.run_until_up();
    assert!(took < mins(10), "{took:?}");
}

#[test]
fn each_failure_on_the_way_is_named_and_tried_again() {
    let tls = Failure::Tls(TlsFailure::UnknownIssuer);
    let local = LocalFailure::Resources;
    let table = [
        (Reach::Refused, Failure::ConnectionRefused),
        (Reach::BlackHole, Failure::ConnectTimeout),
        (Reach::Unresolved, Failure::Unresolved),
        (Reach::NoRoute, Failure::Network),
        (Reach::Tls(TlsFailure::UnknownIssuer), tls),
        (Reach::TlsStalls, Failure::TlsTimeout),
        (Reach::ClosedAfterTls, Failure::Lost),
        (Reach::Local(local), Failure::Local(local)),
    ];
    for (reach, failure) in table {
        let mut world = stable(4);
        let connects = world.hub(0).connects();
        world.network().set_all(Some(reach));
        world.reset_all();
        world.run_for(mins(10));
        assert_eq!(world.status().last_failure, Some(failure), "{reach:?}");
        let sent = u64::from(reach == Reach::ClosedAfterTls) * 100;
        assert!(world.hub(0).connects() <= connects + sent, "{reach:?}");
        world.network().set_all(None);
        world.run_until_up();
    }
}

#[test]
fn each_connack_code_finds_its_way() {
    for code in 1..=7 {
        let mut world = stable(5);
        world.hub_mut(0).faults.greeting = Greeting::Code(code);
        world.reset_all();
        world.run_for(mins(10));
        assert_eq!(world.status().last_failure, Some(Failure::ConnectRefused(code)));
        world.hub_mut(0).faults.greeting = Greeting::Judge;
        world.run_until_up();
    }
}

#[test]
fn a_hub_that_refuses_the_protocol_is_tried_at_the_slowest_pace_and_never_given_up() {
    for fixed in [true, false] {
        let builder = World::builder().seed(5);
        let mut world = if fixed { builder.fixed_hub() } else { builder }.build();
        world.hub_mut(0).faults.greeting = Greeting::Code(1);
        world.start();
        world.publish("21.5");
        world.run_for(mins(1));
        assert_eq!(world.status().advice(), steadfast_core::Advice::CheckProtocol);
        assert!(world.status().to_string().contains("may be of another profile"), "{}", world.status());
        world.run_for(days(2));
        let attempts = world.attempts().len();
        assert!((40..140).contains(&attempts), "{attempts}");
        assert!(world.registrations().len() < 14, "{}", world.registrations().len());
        world.hub_mut(0).faults.greeting = Greeting::Judge;
        let took = world.run_until_delivered();
        assert!(took <= hours(1), "{took:?}");
    }
}

#[test]
fn a_wake_up_after_an_orderly_stop_dials_at_once() {
    seeds(20, |seed| {
        let builder = World::builder().seed(seed).assigned();
        let mut world = builder.configure(|config| config.session.retry = steadfast_core::RetryPolicy::BATTERY).build();
        for cycle in 1..4 {
            world.command(0, |link, now| link.wake(now));
            world.publish("21.5");
            let took = world.run_until_delivered();
            assert!(took < secs(1), "{took:?}");
            assert_eq!(world.attempts().len(), cycle);
            world.stop(secs(5));
            world.run_for(mins(15));
        }
    });
}

#[test]
fn a_device_whose_hub_refuses_the_protocol_is_moved_by_the_provisioning_service() {
    let mut world = stable(5);
    world.hub_mut(0).faults.greeting = Greeting::Code(1);
    world.move_device(0, 1);
    world.reset_all();
    world.publish("21.5");
    let took = world.run_until_delivered();
    assert!(took <= mins(70), "{took:?}");
    assert_eq!(world.bodies(1).len(), 1);
}

#[test]
fn the_wait_for_a_connack_doubles_and_a_late_one_still_counts() {
    let mut world = stable(6);
    let start = world.attempts().len();
    world.hub_mut(0).faults.greeting = Greeting::Silence;
    // A close by the service would lengthen the first wait.
    world.freeze();
    world.run_until("silent three times", hours(1), |world| world.count(silent) == 3);
    world.hub_mut(0).faults.greeting = Greeting::Late(200_000);
    let times: Vec<u64> = world.events().iter().filter(|(_, event)| silent(event)).map(|(at, _)| *at).collect();
    let begun: Vec<u64> = world.attempts()[start..].iter().map(|attempt| attempt.at_ms).collect();
    for (wait, (end, begin)) in [60_000, 120_000, 240_000].into_iter().zip(times.iter().zip(&begun)) {
        assert!((wait..wait + 200).contains(&(end - begin)), "{begin} to {end}");
    }
    world.run_until_up();
}

fn silent(event: &Event) -> bool {
    matches!(event, Event::Retrying { failure: Failure::ConnackTimeout, .. })
}

#[test]
fn a_hub_that_accepts_and_then_closes_is_asked_less_and_less() {
    seeds(5, |seed| {
        let mut world = stable(seed);
        world.hub_mut(0).faults.close_after_ms = Some(2_000);
        world.reset_all();
        world.run_for(hours(6));
        let times: Vec<u64> = world.attempts().iter().map(|attempt| attempt.at_ms).collect();
        assert!(times.len() < 30, "{}", times.len());
        let gaps: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps[gaps.len() - 1] > 20 * 60_000, "{gaps:?}");
        assert!(world.registrations().is_empty());
    });
}

#[test]
fn a_connection_that_lasts_starts_the_back_off_anew() {
    let mut world = stable(7);
    for _ in 0..50 {
        world.reset_all();
        let took = world.run_until_up();
        assert!(took < secs(4), "{took:?}");
        world.run_for(secs(150));
    }
}

#[test]
fn the_first_delay_is_drawn_evenly_from_the_first_spread() {
    let mut delays = Vec::new();
    for seed in 0..4000 {
        let mut world = World::builder().seed(seed).assigned().build_with(|_| RamOutbox::<1, 8>::new());
        world.start();
        delays.push(world.link().next_deadline().unwrap().at.as_millis());
    }
    let statistic = chi_square(&delays, 3_000, 20);
    assert!(statistic < 43.8, "{statistic}");
    assert!(delays.iter().any(|delay| *delay < 30) && delays.iter().any(|delay| *delay > 2_970));
}

#[test]
fn ten_thousand_devices_that_lose_one_hub_return_spread() {
    for seed in [1, 2] {
        let mut world = World::builder().seed(seed).devices(10_000).certificate().assigned();
        world = world.configure(|config| config.session.keep_alive = secs(1000));
        let mut world = world.build_with(|_| RamOutbox::<1, 8>::new());
        world.start();
        world.run_for(secs(10));
        world.run_until_up();
        world.run_for(mins(3));
        let lost = world.now_ms();
        world.reset_all();
        world.run_for(secs(10));
        let back: Vec<u64> = (0..world.devices()).map(|number| world.attempts_of(number)[1].at_ms - lost).collect();
        assert!(back.iter().all(|at| *at <= 3_050));
        let statistic = chi_square(&back, 3_050, 20);
        // The latency of the loss blurs the two ends, so that those are looser than a fair draw.
        assert!(statistic < 120.0, "seed {seed}: {statistic}");
    }
}

#[test]
fn a_constant_seed_still_keeps_devices_apart() {
    let mut world = World::builder().devices(100).constant_seed().assigned().build();
    world.start();
    world.run_until_up();
    let mut first: Vec<u64> = (0..100).map(|number| world.attempts_of(number)[0].at_ms).collect();
    first.sort_unstable();
    first.dedup();
    assert!(first.len() > 90, "{}", first.len());
}

#[test]
fn no_two_delays_are_alike_for_the_same_failure() {
    for reach in [Reach::Refused, Reach::ClosedAfterTls] {
        let mut world = stable(8);
        world.network().set_all(Some(reach));
        world.reset_all();
        world.run_for(hours(2));
        let mut all = world.delays_ms();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert!(all.len() * 10 >= count * 9, "{all:?}");
    }
}

#[test]
fn ten_thousand_reconnections_leave_every_size_as_it_was() {
    let mut world = World::builder().assigned().build_with(|_| RamOutbox::<4, 64>::new());
    world.start();
    world.run_until_up();
    for _ in 0..10_000 {
        world.run_for(secs(130));
        let _ = world.try_publish(b"21.5", None);
        world.reset_all();
        world.run_until("down", secs(5), |world| world.state() != State::Up);
        world.run_until_up();
        let (held, known, queued) = world.sizes();
        assert!(held == 1 && known <= 2 && queued < 80, "{held} {known} {queued}");
    }
    world.run_until_delivered();
    assert!(world.attempts().len() >= 10_000);
    assert!(world.duplicates() <= 10_000);
}

#[test]
fn a_device_connected_elsewhere_does_not_fight_for_the_hub() {
    let mut world = stable(9);
    let id = "pump-7";
    for _ in 0..200 {
        world.hub_acts(0, |hub| hub.set_enabled(id, true));
        world.run_for(secs(6));
    }
    assert!(world.attempts().len() < 20, "{}", world.attempts().len());
}

#[test]
fn a_subscription_that_is_not_granted_is_reported_and_tried_again() {
    let table = [
        (SubscribeFault::Refuse, Failure::SubscribeRefused),
        (SubscribeFault::Silence, Failure::SubackTimeout),
        (SubscribeFault::TwoCodes, Failure::UnexpectedPacket),
        (SubscribeFault::OtherId, Failure::UnexpectedPacket),
    ];
    for (fault, failure) in table {
        let builder = World::builder().assigned();
        let mut world =
            builder.configure(|config| config.subscriptions = steadfast_core::Subscriptions::METHODS).build();
        world.hub_mut(0).faults.subscribe = fault;
        world.start();
        world.publish("21.5");
        world.run_for(mins(10));
        assert_eq!(world.status().last_failure, Some(failure), "{fault:?}");
        assert_eq!(world.count(|event| matches!(event, Event::Up { .. })), 0);
        world.hub_mut(0).faults.subscribe = SubscribeFault::None;
        world.run_until_delivered();
    }
}

#[test]
fn a_certificate_that_cannot_be_read_is_not_tried_in_a_tight_loop() {
    let builder = World::builder().certificate().assigned();
    let mut world = builder.build();
    world.network().set_all(Some(Reach::Local(LocalFailure::Credential)));
    world.start();
    world.run_for(hours(1));
    let attempts = world.attempts().len();
    assert!(attempts < 80, "{attempts}");
    world.network().set_all(None);
    let took = world.run_until_up();
    assert!(took < secs(125), "{took:?}");
}

#[test]
fn a_bad_line_costs_seconds_and_not_minutes() {
    seeds(20, |seed| {
        let mut world = World::builder().seed(seed).assigned().build();
        world.start();
        world.run_until_up();
        for widest in [3, 6, 12] {
            world.publish("useful");
            world.run_until_delivered();
            world.run_for(secs(20));
            world.reset_all();
            world.run_until_down();
            let away = world.run_until_up();
            // Connecting takes some of it.
            assert!(away <= secs(widest + 3), "{away:?} after a cut");
        }
        // A line that never lasts is no better than a service that turns devices away.
        world.publish("useful");
        world.run_until_delivered();
        world.reset_all();
        world.run_until_down();
        let delay = *world.delays_ms().last().expect("a delay");
        assert!(delay > 12_000, "{delay} ms after the fourth");
    });
}

#[test]
fn a_connection_on_which_nothing_was_acknowledged_is_overload() {
    let mut late = 0;
    seeds(40, |seed| {
        let mut world = World::builder().seed(seed).assigned().build();
        world.start();
        world.run_until_up();
        world.reset_all();
        world.run_until_down();
        late += usize::from(world.delays_ms().last().is_some_and(|delay| *delay > 12_000));
    });
    assert!(late > 20, "{late} of 40 waited for longer than after a bad line");
}

#[test]
fn a_hub_whose_daily_quota_is_used_up_is_left_alone_until_it_is_not() {
    seeds(10, |seed| {
        let mut world = stable(seed);
        world.hub_mut(0).faults.close_after_ms = Some(0);
        world.reset_all();
        world.publish("waits for midnight");
        world.run_for(hours(2));
        let status = world.status();
        assert!(status.quota_suspected, "{status}");
        assert_eq!(status.advice(), steadfast_core::Advice::CheckQuota);
        let before = world.attempts().len();
        world.run_for(hours(12));
        let attempts = world.attempts().len() - before;
        assert!((10..=26).contains(&attempts), "{attempts} attempts in twelve hours");
        assert!(world.registrations().is_empty(), "another hub would not help");
        world.hub_mut(0).faults.close_after_ms = None;
        assert!(world.run_until_delivered() <= hours(1));
        world.run_for(mins(3));
        assert!(!world.status().quota_suspected);
    });
}
