//! How a device stops.

use steadfast_core::State;
use steadfast_sim::service::{Greeting, PublishFault};

use super::{mins, secs};
use crate::{Plan, Run, Seen, Subject};

/// Waits for the end of a stop; after it no connection is open and none is made.
fn stopped<S: Subject>(run: &mut Run<S>) {
    run.until(|seen| *seen == Seen::Stopped);
    assert_eq!(run.device.state(), State::Stopped);
    let dials = run.cloud.borrow().dials.len();
    run.pass(mins(60));
    assert_eq!(run.cloud.borrow().open_connections(), 0);
    assert_eq!(run.cloud.borrow().dials.len(), dials, "a connection after the stop");
}

/// A stop sends what is queued, waits for its acknowledgement, and leaves.
pub fn a_stop_sends_what_is_queued_and_leaves<S: Subject>() {
    let mut run = Run::<S>::up(Plan::default());
    run.publish_many(8);
    run.device.stop(secs(30));
    stopped(&mut run);
    assert_eq!(run.device.ledger().delivered, 8);
    assert_eq!(run.cloud.borrow().repetitions(), 0);
    run.all_arrived();
}

/// A stop in the middle of an attempt ends the attempt.
pub fn a_stop_in_the_middle_of_an_attempt_ends_it<S: Subject>() {
    let mut run = Run::<S>::new(Plan::default());
    run.cloud.borrow_mut().hubs[0].faults.greeting = Greeting::Silence;
    run.device.start();
    while run.cloud.borrow().hubs[0].connects() == 0 {
        run.step(secs(1));
    }
    let before = run.now();
    run.device.stop(secs(5));
    run.until(|seen| *seen == Seen::Stopped);
    assert!(run.now() - before <= secs(10), "it took {:?}", run.now() - before);
    run.pass(mins(60));
    assert_eq!(run.cloud.borrow().hubs[0].connects(), 1);
    run.unobjectionable();
}

/// A stop while the hub is away ends within its time, and what is queued stays accounted for.
pub fn a_stop_while_the_hub_is_away_keeps_what_is_queued<S: Subject>() {
    let mut run = Run::<S>::up(Plan::default());
    run.cloud.borrow_mut().hub_down(0);
    run.until(|seen| *seen == Seen::Down);
    run.publish_many(3);
    run.device.stop(secs(5));
    stopped(&mut run);
    assert_eq!((run.device.ledger().delivered, run.device.ledger().queued), (0, 3));
    run.unobjectionable();
}

/// A stop whose messages are not acknowledged ends when its time is over.
pub fn a_drain_that_the_hub_does_not_answer_ends_in_time<S: Subject>() {
    let mut run = Run::<S>::up(Plan::default());
    run.cloud.borrow_mut().hubs[0].faults.publish = PublishFault::Withhold;
    run.publish_many(3);
    run.device.stop(secs(20));
    let before = run.now();
    run.until(|seen| *seen == Seen::Stopped);
    assert!(run.now() - before <= secs(25), "it took {:?}", run.now() - before);
    assert_eq!(run.device.ledger().queued, 3);
    run.unobjectionable();
}
