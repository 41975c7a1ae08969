//! Time: the wrong, the late, the long.

use scenarios::{hours, mins, secs, seeds};
use steadfast_core::{Event, Failure, LocalFailure};
use steadfast_sim::World;
use steadfast_sim::service::PublishFault;

#[test]
fn without_a_wall_clock_the_link_says_so_and_goes_on_once_it_is_set() {
    let mut world = World::builder().clock_offset_secs(None).build();
    world.start();
    world.run_for(hours(1));
    assert!(world.attempts().is_empty());
    assert_eq!(world.status().last_failure, Some(Failure::Local(LocalFailure::ClockUnset)));
    world.set_clock(0);
    let took = world.run_until_up();
    assert!(took < secs(130), "{took:?}");
}

#[test]
fn a_clock_before_the_product_s_time_counts_as_unset() {
    let mut world = World::builder().clock_offset_secs(Some(-1_780_000_000)).build();
    world.start();
    world.run_for(mins(10));
    assert_eq!(world.status().last_failure, Some(Failure::Local(LocalFailure::ClockUnset)));
}

#[test]
fn certificates_need_no_wall_clock() {
    let mut world = World::builder().certificate().clock_offset_secs(None).build();
    world.start();
    world.run_until_up();
}

#[test]
fn a_clock_that_is_behind_is_healed_by_the_provisioning_service_s_refusal() {
    for behind in [2 * 3600, 86_400, 365 * 86_400] {
        let mut world = World::builder().clock_offset_secs(Some(-behind)).build();
        world.start();
        world.publish("21.5");
        let took = world.run_until_delivered();
        assert!(took < mins(2), "{behind}: {took:?}");
        let skew = world.status().clock_skew_secs.unwrap();
        assert!((behind - 5..behind + 5).contains(&skew), "{skew}");
        assert_eq!(world.count(|event| matches!(event, Event::ClockSkew { .. })), 1);
        world.run_for(hours(3));
        assert_eq!(world.count(|event| matches!(event, Event::Down(_))), 0);
        world.set_clock(0);
        assert_eq!(world.status().clock_skew_secs, None);
    }
}

#[test]
fn a_hub_s_refusal_of_a_wrong_clock_heals_through_the_provisioning_service() {
    let mut world = World::builder().assigned().clock_offset_secs(Some(-86_400)).build();
    world.start();
    world.publish("21.5");
    let took = world.run_until_delivered();
    assert!(took < mins(6), "{took:?}");
    assert!(world.status().clock_skew_secs.is_some());
}

#[test]
fn a_clock_set_right_helps_without_a_restart() {
    let mut world = World::builder().fixed_hub().clock_offset_secs(Some(-86_400)).build();
    world.start();
    world.publish("21.5");
    world.run_for(mins(10));
    assert_eq!(world.ledger().delivered, 0);
    world.set_clock(0);
    world.run_until_delivered();
}

#[test]
fn a_clock_set_right_is_a_reason_to_try_soon() {
    for offset in [Some(-365 * 86_400), None] {
        let mut world = World::builder().fixed_hub().clock_offset_secs(offset).build();
        world.start();
        world.publish("21.5");
        world.run_for(hours(12));
        assert_eq!(world.ledger().delivered, 0);
        world.set_clock(0);
        let took = world.run_until_delivered();
        assert!(took <= secs(4), "{offset:?}: {took:?}");
    }
}

#[test]
fn a_clock_that_is_right_to_the_second_moves_no_attempt() {
    let mut world = World::builder().fixed_hub().build();
    world.hub_mut(0).faults.greeting = steadfast_sim::service::Greeting::Code(5);
    world.start();
    world.run_for(hours(12));
    let attempts = world.attempts().len();
    for offset in [0, 200, -60, 100] {
        world.set_clock(offset);
        world.run_for(mins(1));
    }
    assert!(world.attempts().len() <= attempts + 1, "{attempts}: {}", world.attempts().len());
}

#[test]
fn jumps_of_the_wall_clock_move_no_timer() {
    let scenario = |jumps: bool| {
        let mut world = World::builder().seed(4).assigned().certificate().build();
        world.start();
        for round in 0..100 {
            if jumps {
                world.set_clock(if round % 2 == 0 { 3_600 } else { -86_400 });
            }
            world.publish("21.5");
            world.run_for(mins(1));
        }
        (world.attempts().to_vec(), world.ledger())
    };
    assert_eq!(scenario(false), scenario(true));
}

#[test]
fn monotonic_time_may_begin_anywhere() {
    let scenario = |start_ms: u64| {
        let mut world = World::builder().seed(5).start_at_ms(start_ms).build();
        world.start();
        for _ in 0..100 {
            let _ = world.try_publish(b"21.5", Some(mins(5)));
            world.run_for(mins(1));
            world.reset_all();
        }
        world.run_until_delivered();
        (world.attempts().iter().map(|attempt| attempt.at_ms - start_ms).collect::<Vec<_>>(), world.ledger())
    };
    let expected = scenario(0);
    for start_ms in [u64::from(u32::MAX) - 1_000, u64::from(u32::MAX) - 1_000_000, 1 << 40] {
        assert_eq!(scenario(start_ms), expected);
    }
}

#[test]
fn forty_nine_days_pass_without_a_trace() {
    let mut world = World::builder().build();
    world.start();
    for round in 0..49 * 24 * 4 {
        world.publish("21.5");
        world.run_for(mins(15));
        if round % 100 == 99 {
            world.reset_all();
        }
        if round % 1000 == 999 {
            world.hub_mut(0).faults.next_publishes.push_back(PublishFault::CloseAfterStore);
        }
    }
    world.run_until_delivered();
    assert_eq!(world.ledger().delivered, 49 * 24 * 4);
    assert_eq!(world.registrations().len(), 1);
    let (held, known, _) = world.sizes();
    assert_eq!((held, known), (1, 1));
}

#[test]
fn a_sleep_of_eight_hours_ends_in_one_renewal_and_no_storm() {
    seeds(10, |seed| {
        let mut world = World::builder().seed(seed).assigned().build();
        world.start();
        world.run_until_up();
        world.run_for(mins(4));
        let before = world.attempts().len();
        world.suspend(hours(8));
        world.run_for(hours(8));
        let took = world.run_until_up();
        assert!(took < secs(70), "{took:?}");
        world.run_for(mins(10));
        assert!(world.attempts().len() <= before + 3, "{:?}", world.attempts());
        world.publish("21.5");
        world.run_until_delivered();
    });
}

#[test]
fn a_sleep_in_any_phase_is_survived() {
    seeds(60, |seed| {
        let mut world = World::builder().seed(seed).build();
        world.start();
        world.publish_many(5);
        world.run_for(std::time::Duration::from_millis(seed * 60));
        world.suspend(hours(1));
        world.run_for(hours(1));
        world.run_until_delivered();
        world.run_until_up();
    });
}

#[test]
fn late_timers_only_make_the_link_late() {
    let mut world = World::builder().seed(6).build();
    world.set_timer_lag_ms(5_000);
    world.start();
    for _ in 0..500 {
        world.publish("21.5");
        world.run_for(mins(3));
    }
    world.run_until_delivered();
    assert_eq!(world.count(|event| matches!(event, Event::Down(_))), 0);
}

#[test]
fn the_earliest_time_an_assignment_proves_yields_to_a_clock_set_right() {
    let mut world = World::builder().certificate().clock_offset_secs(Some(-3 * 86_400)).build();
    world.run_for(hours(48));
    world.start();
    world.run_until_up();
    let behind = world.status().clock_skew_secs.unwrap();
    assert!((86_395..=86_405).contains(&behind), "{behind}");
    world.set_clock(0);
    assert_eq!(world.status().clock_skew_secs, None, "{}", world.status());
}
