//! Registration over HTTPS, and devices that a TPM proves, which go no other way.

use core::time::Duration;

use scenarios::{hours, mins, secs, seeds};
use steadfast_core::{Failure, LocalFailure, ProvisioningFailure, ServiceKind, State};
use steadfast_sim::World;
use steadfast_sim::service::{Asked, DpsFault, HttpsFault};

use Asked::{Bare, Signed, State as Polled};

fn world(seed: u64) -> World {
    let mut world = World::builder().seed(seed).tpm().build();
    world.dps_mut().fault = DpsFault::Assigning { polls: 1, retry_after_secs: Some(3) };
    world
}

fn started(seed: u64) -> World {
    let mut world = world(seed);
    world.start();
    world.publish_many(3);
    world
}

fn settled(seed: u64) -> World {
    let mut world = started(seed);
    world.run_until_delivered();
    world.run_for(mins(10));
    world
}

/// Every exchange begins without a token, signs with the key it was given, and asks for its own registration.
fn check_order(world: &World) {
    let mut before = None;
    for asked in world.dps().requests() {
        let follows = match asked {
            Bare => true,
            Signed => before == Some(Bare),
            Polled => matches!(before, Some(Signed | Polled)),
            _ => false,
        };
        assert!(follows, "{asked:?} after {before:?} in {:?}", world.dps().requests());
        before = Some(*asked);
    }
}

#[test]
fn a_first_registration_takes_a_key_signs_with_it_polls_and_takes_the_key_for_the_hub() {
    seeds(20, |seed| {
        let mut world = world(seed);
        world.dps_mut().fault = DpsFault::Assigning { polls: 3, retry_after_secs: Some(7) };
        world.start();
        world.publish("21.5");
        world.run_until_delivered();
        assert_eq!(world.dps().requests(), [Bare, Signed, Polled, Polled, Polled]);
        assert_eq!(world.chip().taken(), [ServiceKind::Provisioning, ServiceKind::Hub]);
        let polls = world.dps().polls();
        assert!(polls.windows(2).all(|pair| (7_000..8_900).contains(&(pair[1] - pair[0]))), "{polls:?}");
        assert_eq!((world.hub(0).connects(), world.hub(0).accepted()), (1, 1));
    });
}

#[test]
fn a_kept_assignment_and_a_kept_key_lead_straight_to_the_hub() {
    let mut world = World::builder().tpm().assigned().build();
    world.start();
    world.publish_many(3);
    world.run_until_delivered();
    assert!(world.dps().requests().is_empty() && world.chip().taken().is_empty());
    assert!(world.attempts().iter().all(|attempt| attempt.role == ServiceKind::Hub));
}

#[test]
fn a_tpm_that_has_lost_its_key_gets_another_one_by_a_registration() {
    seeds(20, |seed| {
        let mut world = World::builder().seed(seed).tpm().assigned().build();
        world.chip().clear();
        world.start();
        world.publish_many(3);
        let took = world.run_until_delivered();
        assert!(took < mins(2), "seed {seed}: {took:?}");
        assert_eq!(world.dps().requests(), [Bare, Signed]);
        assert!(world.status().last_failure.is_none_or(|failure| failure == Failure::Local(LocalFailure::NoKey)));
    });
}

#[test]
fn a_device_that_is_moved_registers_again_and_takes_the_key_for_its_new_hub() {
    seeds(20, |seed| {
        let mut world = settled(seed);
        world.move_device(0, 1);
        world.publish_many(3);
        world.run_until_delivered();
        assert_eq!(world.dps().requests(), [Bare, Signed, Polled, Bare, Signed, Polled]);
        assert_eq!(
            world.chip().taken(),
            [ServiceKind::Provisioning, ServiceKind::Hub, ServiceKind::Provisioning, ServiceKind::Hub]
        );
        assert_eq!(world.bodies(1).len(), 3);
    });
}

#[test]
fn a_throttled_request_of_the_exchange_is_repeated_from_the_beginning_after_its_retry_after_and_some_jitter() {
    for at in 0..2 {
        let mut delays = Vec::new();
        seeds(30, |seed| {
            let mut world = world(seed);
            world.dps_mut().fault_request(at, HttpsFault::Status(429, Some(120)));
            world.start();
            world.publish("21.5");
            world.run_until_delivered();
            assert_eq!(world.dps().requests().len(), at + 4);
            check_order(&world);
            delays.extend(world.delays_ms());
        });
        assert!(delays.iter().all(|delay| (120_000..=180_000).contains(delay)), "{delays:?}");
        delays.sort_unstable();
        delays.dedup();
        assert!(delays.len() > 25, "{delays:?}");
    }
}

#[test]
fn a_throttled_question_for_the_state_is_put_again_after_its_retry_after_and_some_jitter() {
    seeds(30, |seed| {
        let mut world = world(seed);
        world.dps_mut().fault_request(2, HttpsFault::Status(429, Some(120)));
        world.start();
        world.publish("21.5");
        let took = world.run_until_delivered();
        assert_eq!(world.dps().requests(), [Bare, Signed, Polled, Polled]);
        assert!((secs(120)..secs(200)).contains(&took), "{took:?}");
        check_order(&world);
    });
}

#[test]
fn whatever_happens_to_any_two_requests_the_device_finds_its_hub_with_a_key_that_it_takes() {
    for first in 0..4 {
        for second in first + 1..first + 5 {
            for one in HttpsFault::ALL {
                for other in HttpsFault::ALL {
                    let mut world = world(3);
                    world.dps_mut().fault_request(first, one.clone());
                    world.dps_mut().fault_request(second, other.clone());
                    world.start();
                    world.publish("21.5");
                    let took = world.run_until_delivered();
                    check_order(&world);
                    assert!(took < mins(12), "{one:?} at {first}, {other:?} at {second}: {took:?}");
                }
            }
        }
    }
}

#[test]
fn whatever_happens_to_the_registration_of_a_device_that_moved_it_arrives() {
    for at in 3..6 {
        for fault in HttpsFault::ALL {
            let mut world = settled(4);
            world.dps_mut().fault_request(at, fault.clone());
            world.move_device(0, 1);
            world.publish_many(3);
            let took = world.run_until_delivered();
            check_order(&world);
            assert!(took < mins(45), "{fault:?} at {at}: {took:?}");
            assert_eq!(world.bodies(1).len(), 3);
        }
    }
}

#[test]
fn an_outage_at_any_moment_of_the_exchange_is_outlasted() {
    for at in (0..5_000).step_by(20) {
        let mut world = started(5);
        world.run_for(Duration::from_millis(at));
        world.network().set_all(Some(steadfast_sim::Reach::BlackHole));
        world.reset_all();
        world.run_for(mins(20));
        world.network().set_all(None);
        let took = world.run_until_delivered();
        check_order(&world);
        assert!(took < mins(12), "from {at} ms on: {took:?}");
    }
}

#[test]
fn a_key_that_the_service_changed_and_the_device_never_heard_of_is_replaced_by_another_registration() {
    seeds(20, |seed| {
        let mut world = settled(seed);
        // The answer with the new key for the same hub is lost.
        world.dps_mut().fault_request(5, HttpsFault::AnswerLost);
        world.reprovision();
        world.publish_many(3);
        let took = world.run_until_delivered();
        assert!(took < mins(45), "seed {seed}: {took:?}");
        assert!(world.dps().requests().len() >= 9, "{:?}", world.dps().requests());
        check_order(&world);
    });
}

#[test]
fn each_answer_of_no_use_has_its_name() {
    let refused = |status, code| ProvisioningFailure::Refused { status, code };
    let unavailable = |status, retry_after_secs| ProvisioningFailure::Unavailable { status, retry_after_secs };
    let table = [
        (0, HttpsFault::Status(401, None), refused(401, 401_002)),
        (1, HttpsFault::Status(404, None), refused(404, 404_002)),
        (1, HttpsFault::Status(503, Some(7)), unavailable(503, Some(7))),
        (1, HttpsFault::Status(429, Some(9)), unavailable(429, Some(9))),
        (2, HttpsFault::Status(404, None), refused(404, 404_002)),
        (0, HttpsFault::Body("{\"authenticationKey\":\"****\"}"), ProvisioningFailure::BadAnswer),
        (1, HttpsFault::Body("<html>Welcome to the hotel</html>"), ProvisioningFailure::BadAnswer),
        (2, HttpsFault::Body(""), ProvisioningFailure::BadAnswer),
        (2, HttpsFault::Silence, ProvisioningFailure::NoAnswer),
    ];
    for (at, fault, failure) in table {
        let mut world = world(6);
        world.dps_mut().fault_request(at, fault.clone());
        world.start();
        world.publish("21.5");
        world.run_until("failed", mins(11), |world| world.status().last_failure.is_some());
        assert_eq!(world.status().last_failure, Some(Failure::Provisioning(failure)), "{fault:?} at {at}");
        world.run_until_delivered();
    }
}

#[test]
fn an_enrollment_that_stays_disabled_or_names_another_tpm_costs_fewer_and_fewer_registrations() {
    for disabled in [true, false] {
        let mut world = world(7);
        if disabled {
            world.dps_mut().fault = DpsFault::Disabled;
        } else {
            world.dps_mut().enroll_tpm("pump-7", "RUsgb3RoZXI");
        }
        world.start();
        world.publish("21.5");
        world.run_for(hours(24));
        let failure = if disabled {
            ProvisioningFailure::Disabled
        } else {
            ProvisioningFailure::Refused { status: 401, code: 401_002 }
        };
        assert_eq!(world.status().last_failure, Some(Failure::Provisioning(failure)));
        let requests = world.dps().requests().len();
        assert!(requests < 90, "{requests}");
        assert_ne!(world.state(), State::Stopped);
        world.dps_mut().fault = DpsFault::None;
        world.dps_mut().enroll_tpm("pump-7", "RUsg0000");
        let took = world.run_until_delivered();
        assert!(took <= mins(61), "{took:?}");
    }
}

#[test]
fn a_tpm_that_fails_in_the_middle_is_told_as_such_and_asked_again() {
    seeds(10, |seed| {
        let mut world = started(seed);
        world.chip().broken = Some(LocalFailure::Signing);
        world.run_for(hours(6));
        assert_eq!(world.status().last_failure, Some(Failure::Local(LocalFailure::Signing)));
        assert!(world.dps().requests().iter().all(|asked| *asked == Bare));
        world.chip().broken = None;
        let took = world.run_until_delivered();
        assert!(took < mins(4), "seed {seed}: {took:?}");
    });
}

#[test]
fn a_device_with_a_key_of_its_own_registers_over_https_as_over_mqtt() {
    seeds(10, |seed| {
        let mut world = World::builder().seed(seed).over_https().build();
        world.start();
        world.publish_many(3);
        world.run_until_delivered();
        assert_eq!(world.dps().requests(), [Signed]);
        world.move_device(0, 1);
        world.publish_many(3);
        world.run_until_delivered();
        assert_eq!(world.dps().requests(), [Signed, Signed]);
    });
}

#[test]
fn faults_moves_and_cleared_tpms_together_lose_nothing() {
    seeds(60, |seed| {
        let mut world = started(seed);
        let mut at = 0;
        for round in 0..40 {
            // What does not fit is refused, which is an answer; what is accepted has to arrive.
            let _ = world.try_publish(format!("{round}").as_bytes(), None);
            match world.rng().between(0, 6) {
                0 => {
                    world.move_device(at, 1 - at);
                    at = 1 - at;
                }
                1 => world.chip().clear(),
                2 => world.reset_all(),
                3 => world.reprovision(),
                _ => {
                    let fault = HttpsFault::ALL[world.rng().index(HttpsFault::ALL.len())].clone();
                    let next = world.dps().requests().len() + world.rng().index(3);
                    world.dps_mut().fault_request(next, fault);
                }
            }
            let pause = world.rng().between(0, 120_000);
            world.run_for(Duration::from_millis(pause));
        }
        world.run_until_delivered();
        check_order(&world);
        world.run_for(secs(1));
    });
}
