//! A device as one of many: planned moves, hints, patience that is asked for, and what outlives a reboot.

use scenarios::{chi_square, hours, mins, secs, seeds};
use steadfast_core::{BackoffSnapshot, Event, Instant, ServiceKind};
use steadfast_sim::service::{DpsFault, Greeting};
use steadfast_sim::{EPOCH_SECS, World};

fn fleet(devices: usize, seed: u64) -> World {
    let mut world = World::builder().seed(seed).devices(devices).certificate().assigned().build();
    world.start();
    world.run_until_up();
    world.run_for(mins(5));
    world
}

/// When each device's attempt after the first one began, since `since`.
fn second_attempts(world: &World, since: u64) -> Vec<u64> {
    (0..world.devices()).map(|number| world.attempts_of(number)[1].at_ms - since).collect()
}

#[test]
fn a_planned_move_is_made_in_order_by_each_device_at_a_moment_of_its_own() {
    let mut world = fleet(400, 1);
    let ordered = world.now_ms();
    for number in 0..world.devices() {
        world.command(number, |link, now| link.move_within(mins(10), ServiceKind::Hub, now));
    }
    world.run_for(mins(11));
    world.run_until_up();
    let moments = second_attempts(&world, ordered);
    assert!(moments.iter().all(|at| *at <= 600_000 + 5_000), "{:?}", moments.iter().max());
    let statistic = chi_square(&moments, 605_000, 20);
    assert!(statistic < 43.8, "{statistic}");
    for number in 0..world.devices() {
        assert_eq!(world.attempts_of(number).len(), 2);
        assert!(world.events_of(number).iter().all(|(_, event)| !matches!(event, Event::Down(_))));
    }
}

#[test]
fn a_service_that_closes_before_the_ordered_moment_does_not_hasten_the_move() {
    let mut world = fleet(400, 2);
    let ordered = world.now_ms();
    for number in 0..world.devices() {
        world.command(number, |link, now| link.move_within(mins(10), ServiceKind::Hub, now));
    }
    world.run_for(secs(1));
    world.reset_all();
    world.run_for(mins(11));
    world.run_until_up();
    let moments = second_attempts(&world, ordered);
    let soon = moments.iter().filter(|at| **at < 60_000).count();
    assert!(soon < 80, "{soon} of 400 came within the first tenth");
}

#[test]
fn a_move_through_provisioning_registers_once_and_loses_nothing() {
    seeds(5, |seed| {
        let mut world = World::builder().seed(seed).assigned().build();
        world.start();
        world.run_until_up();
        world.run_for(mins(5));
        world.add_to_hub(1);
        let other = world.hub(1).name().to_owned();
        world.dps_mut().assign("pump-7", &other, EPOCH_SECS);
        let ids = world.publish_many(20);
        world.command(0, |link, now| link.move_within(mins(10), ServiceKind::Provisioning, now));
        world.run_for(mins(11));
        world.run_until_delivered();
        assert_eq!((world.registrations().len(), world.hub(1).accepted()), (1, 1));
        assert_eq!(world.delivered(), ids);
    });
}

#[test]
fn with_a_hint_a_fleet_that_is_turned_away_spreads_over_it() {
    let mut world = fleet(300, 3);
    for number in 0..world.devices() {
        world.command(number, |link, now| link.set_spread(mins(20), now));
    }
    world.hub_mut(0).faults.greeting = Greeting::Code(3);
    world.reset_all();
    world.run_for(secs(10));
    world.hub_mut(0).faults.greeting = Greeting::Judge;
    let refused = world.now_ms();
    world.run_for(mins(21));
    world.run_until_up();
    let back: Vec<u64> =
        (0..world.devices()).filter_map(|number| world.attempts_of(number).get(2)).map(|one| one.at_ms).collect();
    assert!(back.len() > 250);
    let late = back.iter().filter(|at| **at > refused + 600_000).count();
    assert!((back.len() * 2 / 5..=back.len() * 3 / 5).contains(&late), "{late} of {}", back.len());
    assert!((0..world.devices()).all(|number| world.attempts_of(number).len() <= 4));
}

#[test]
fn a_hostile_hint_silences_a_device_for_four_hours_at_most() {
    seeds(20, |seed| {
        let mut world = World::builder().seed(seed).assigned().build();
        world.start();
        world.run_until_up();
        world.run_for(mins(5));
        world.command(0, |link, now| link.set_spread(std::time::Duration::MAX, now));
        world.hub_mut(0).faults.next_greetings.push_back(Greeting::Code(3));
        world.reset_all();
        world.run_until_down();
        let took = world.run_until_up();
        assert!(took <= hours(4) + mins(1), "{took:?}");
        world.run_for(mins(5));
        world.command(0, |link, now| link.move_within(std::time::Duration::MAX, ServiceKind::Hub, now));
        let attempts = world.attempts().len();
        let took = world.run_until("moved", hours(5), |world| world.attempts().len() > attempts);
        assert!(took <= hours(4) + mins(1), "{took:?}");
    });
}

#[test]
fn a_hostile_retry_after_silences_a_device_for_an_hour_and_a_half_at_most() {
    seeds(20, |seed| {
        let mut world = World::builder().seed(seed).build();
        world.dps_mut().fault = DpsFault::Status { status: 429, retry_after_secs: Some(604_800) };
        world.start();
        world.run_until("throttled", mins(5), |world| world.status().failures == 1);
        world.dps_mut().fault = DpsFault::None;
        let took = world.run_until_up();
        assert!((hours(1)..=mins(91)).contains(&took), "{took:?}");
    });
}

#[test]
fn an_identity_that_two_devices_share_is_named_and_fought_over_less_and_less() {
    seeds(5, |seed| {
        let mut world = World::builder().seed(seed).assigned().build();
        world.start();
        world.run_until_up();
        world.run_for(mins(5));
        assert!(!world.status().duplicate_identity);
        // Whenever this device connects, the other one takes the session over.
        world.hub_mut(0).faults.close_after_ms = Some(1_000);
        world.reset_all();
        world.run_for(mins(10));
        assert!(world.status().duplicate_identity);
        let fights = world.attempts().len() - 1;
        assert!(fights <= 10, "{fights}");
        world.hub_mut(0).faults.close_after_ms = None;
        world.run_until_up();
        world.run_for(mins(3));
        assert!(!world.status().duplicate_identity);
        assert!(world.registrations().is_empty());
    });
}

/// What a device remembers that was turned away for an hour.
fn immediate_closes(hint: bool) -> BackoffSnapshot {
    let mut world = World::builder().seed(4).assigned().build();
    world.start();
    world.run_until_up();
    world.run_for(mins(5));
    if hint {
        world.command(0, |link, now| link.set_spread(mins(20), now));
    }
    world.hub_mut(0).faults.greeting = Greeting::Code(3);
    world.reset_all();
    world.run_for(hours(1));
    world.backoff_snapshot().expect("overload is worth remembering")
}

/// When devices that remember this make their first attempts after a reboot `off_secs` after the world began.
fn first_attempts(memory: BackoffSnapshot, off_secs: i64) -> Vec<Instant> {
    let first = |seed| {
        let mut world = World::builder().seed(seed).assigned().clock_offset_secs(Some(off_secs)).build();
        world.command(0, |link, now| link.restore_backoff(memory, now));
        world.start();
        world.status().next_attempt.expect("it is about to try").0
    };
    (1..=100).map(first).collect()
}

#[test]
fn a_device_that_loses_power_while_it_is_turned_away_comes_back_as_one_that_was() {
    let away = first_attempts(immediate_closes(false), 600);
    let late = away.iter().filter(|at| at.as_millis() > 3_000).count();
    assert!(late >= 85, "{late} of 100 waited for longer than a new device");
}

#[test]
fn a_hint_outlives_a_reboot_and_trouble_long_past_does_not() {
    let mut world = World::builder().seed(5).assigned().clock_offset_secs(Some(30 * 86_400)).build();
    let memory = immediate_closes(true);
    world.command(0, |link, now| link.restore_backoff(memory, now));
    world.start();
    let took = world.run_until_up();
    assert!(took <= secs(5), "{took:?}");
    world.run_for(mins(5));
    let kept = world.command(0, |link, _| link.link().backoff_snapshot());
    let hint = u32::from_le_bytes(kept.to_bytes()[12..16].try_into().expect("four bytes"));
    assert_eq!(hint, 1_200);
}

#[test]
fn a_reboot_while_the_hub_turns_devices_away_sends_nobody_to_provisioning() {
    let memory = immediate_closes(false);
    seeds(5, |seed| {
        let mut world = World::builder().seed(seed).assigned().clock_offset_secs(Some(600)).build();
        world.command(0, |link, now| link.restore_backoff(memory, now));
        world.hub_mut(0).faults.greeting = Greeting::Close;
        world.start();
        world.run_for(hours(24));
        assert!(world.registrations().is_empty());
        assert!(world.attempts().len() < 40, "{}", world.attempts().len());
    });
}
