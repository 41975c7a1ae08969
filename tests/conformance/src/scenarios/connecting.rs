//! How a device finds its hub, and finds it again.

use std::time::Duration;

use steadfast_sim::service::{DpsFault, Greeting};

use super::{mins, secs};
use crate::cloud::HUBS;
use crate::{Plan, Run, Seen, Subject};

/// A new device registers once, connects to the hub it is assigned, and comes up.
pub fn a_new_device_registers_once_and_comes_up<S: Subject>() {
    let mut run = Run::<S>::up(Plan::default());
    assert_eq!(run.cloud.borrow().registrations(), 1);
    run.pass(mins(1));
    assert_eq!(run.count(|seen| matches!(seen, Seen::Provisioned { migrated: false })), 1);
    assert_eq!(run.count(|seen| matches!(seen, Seen::Up { session_present: false })), 1);
    assert_eq!(run.cloud.borrow().dials.len(), 2, "one connection to each service");
    run.unobjectionable();
}

/// While the hub is away the device tries ever less often; once it is back, so is the device.
pub fn a_device_whose_hub_is_away_tries_ever_less_often_and_comes_back<S: Subject>() {
    let mut run = Run::<S>::up(Plan::default());
    run.cloud.borrow_mut().hub_down(0);
    run.publish("{\"n\":1}").expect("room in the outbox");
    run.pass(mins(60));
    let delays = run.delays();
    let (early, late) = (delays[0], *delays.last().expect("an attempt"));
    assert!(late > early * 4, "{delays:?}");
    assert!((4..=60).contains(&delays.len()), "{} attempts in an hour", delays.len());
    assert_eq!(run.count(|seen| *seen == Seen::Down), 1);
    run.cloud.borrow_mut().hub_up(0);
    let before = run.now();
    run.until_delivered(1);
    assert!(run.now() - before <= mins(60), "back after {:?}", run.now() - before);
    run.all_arrived();
}

/// A device whose credential is refused registers again, rarely, and comes back once it is enabled.
pub fn a_refused_device_registers_again_rarely_and_comes_back_once_it_is_enabled<S: Subject>() {
    let mut run = Run::<S>::up(Plan::default());
    run.publish("{\"n\":1}").expect("room in the outbox");
    run.until_delivered(1);
    run.cloud.borrow_mut().set_enabled(false);
    run.publish("{\"n\":2}").expect("room in the outbox");
    run.pass(mins(6 * 60));
    let registrations = run.cloud.borrow().registrations();
    assert!((2..=24).contains(&registrations), "{registrations} registrations in six hours");
    run.cloud.borrow_mut().set_enabled(true);
    run.until_delivered(2);
    run.all_arrived();
}

/// Tokens are renewed hour by hour: no message is lost or sent twice, and it does not count as an outage.
pub fn a_token_is_renewed_without_losing_a_message<S: Subject>() {
    let mut run = Run::<S>::up(Plan::default());
    for number in 1..=50 {
        run.publish(&format!("{{\"n\":{number}}}")).expect("room in the outbox");
        run.pass(mins(5));
    }
    run.until_delivered(50);
    let renewals = run.count(|seen| *seen == Seen::Renewing);
    assert!((3..=8).contains(&renewals), "{renewals} renewals in four hours");
    assert_eq!(run.count(|seen| *seen == Seen::Down), 0);
    assert_eq!(run.cloud.borrow().repetitions(), 0);
    assert_eq!(run.cloud.borrow().registrations(), 1);
    run.all_arrived();
}

/// The end of a connection is noticed when it comes, without waiting for the keep-alive.
pub fn the_end_of_a_connection_is_noticed_when_it_comes<S: Subject>() {
    let mut run = Run::<S>::up(Plan::default());
    run.pass(secs(10));
    run.cloud.borrow_mut().cut(0);
    let before = run.now();
    run.until(|seen| *seen == Seen::Down);
    assert!(run.now() - before <= secs(1), "after {:?}", run.now() - before);
    run.publish("{\"n\":1}").expect("room in the outbox");
    run.until_delivered(1);
    run.all_arrived();
}

/// A connection on which nothing passes any more is given up within one and a half keep-alive intervals and some time for
/// the answer.
pub fn a_dead_connection_is_found_by_its_keep_alive<S: Subject>() {
    let mut run = Run::<S>::up(Plan { keep_alive: secs(60), ..Plan::default() });
    run.cloud.borrow_mut().stall();
    let before = run.now();
    run.until(|seen| *seen == Seen::Down);
    let found = run.now() - before;
    assert!((secs(10)..=secs(120)).contains(&found), "{found:?}");
    run.publish("{\"n\":1}").expect("room in the outbox");
    run.until_delivered(1);
    run.all_arrived();
}

/// A hub that is overloaded is tried again and again, and no registration is made because of it.
pub fn an_overloaded_hub_is_tried_again_and_never_left_for_a_registration<S: Subject>() {
    let mut run = Run::<S>::up(Plan::default());
    run.cloud.borrow_mut().hubs[0].faults.greeting = Greeting::Code(3);
    run.cloud.borrow_mut().cut(0);
    run.pass(mins(3 * 60));
    assert_eq!(run.cloud.borrow().registrations(), 1);
    assert!(run.delays().len() >= 4, "{:?}", run.delays());
    run.cloud.borrow_mut().hubs[0].faults.greeting = Greeting::Judge;
    run.publish("{\"n\":1}").expect("room in the outbox");
    run.until_delivered(1);
    run.all_arrived();
}

/// A provisioning service that throttles a registration is not asked again sooner than it says.
pub fn a_throttled_registration_is_tried_again_no_sooner_than_the_service_asks<S: Subject>() {
    let mut run = Run::<S>::new(Plan::default());
    let throttled = DpsFault::Status { status: 429, retry_after_secs: Some(90) };
    run.cloud.borrow_mut().dps.next_faults.push_back(throttled);
    run.device.start();
    run.until_up();
    let times: Vec<u64> = run.cloud.borrow().dps.registrations().iter().map(|(at, _)| *at).collect();
    assert_eq!(times.len(), 2, "{times:?}");
    assert!(times[1] - times[0] >= 90_000, "{times:?}");
    run.unobjectionable();
}

/// A hub that takes the connection and does not answer CONNECT is left, and tried again.
pub fn a_hub_that_does_not_answer_connect_is_left_and_tried_again<S: Subject>() {
    let mut run = Run::<S>::new(Plan::default());
    run.cloud.borrow_mut().hubs[0].faults.next_greetings.extend([Greeting::Silence, Greeting::Silence]);
    run.device.start();
    run.until_up();
    assert_eq!(run.cloud.borrow().hubs[0].connects(), 3);
    assert!(run.cloud.borrow().open_connections() <= 1, "a connection that was left stays open");
    run.unobjectionable();
}

/// A device that kept its assignment goes straight to its hub after a restart.
pub fn a_restarted_device_goes_straight_to_its_hub<S: Subject>() {
    let mut run = Run::<S>::up(Plan { keeps: true, ..Plan::default() }).restarted();
    let dials = run.cloud.borrow().dials.len();
    run.until_up();
    assert_eq!(run.cloud.borrow().dials[dials..].iter().map(|(_, host)| host.as_str()).collect::<Vec<_>>(), [HUBS[0]]);
    assert_eq!(run.cloud.borrow().registrations(), 1);
    run.unobjectionable();
}

/// A device that loses power in a long outage waits on after it as if it had never been off.
pub fn a_device_that_loses_power_in_an_outage_goes_on_waiting<S: Subject>() {
    let first_attempt = |keeps: bool| -> Duration {
        let mut run = Run::<S>::up(Plan { keeps, ..Plan::default() });
        run.cloud.borrow_mut().hubs[0].faults.greeting = Greeting::Code(3);
        run.cloud.borrow_mut().cut(0);
        run.pass(mins(3 * 60));
        let mut run = run.restarted();
        let (before, dials) = (run.now(), run.cloud.borrow().dials.len());
        while run.cloud.borrow().dials.len() == dials {
            run.step(secs(1));
        }
        run.now() - before
    };
    let (new, old) = (first_attempt(false), first_attempt(true));
    assert!(new <= secs(10), "a device that kept nothing waits {new:?}");
    assert!(old >= secs(10), "a device that has waited for hours waits {old:?}");
}
