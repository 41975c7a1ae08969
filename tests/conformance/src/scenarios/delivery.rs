//! What becomes of messages to the service.

use steadfast_core::{DropReason, Overflow};
use steadfast_sim::service::{Greeting, PublishFault};

use super::{mins, secs};
use crate::cloud::HUBS;
use crate::{Plan, Run, Seen, Subject};

/// Messages that were queued before the start arrive once and in order.
pub fn messages_queued_before_the_start_arrive_once_and_in_order<S: Subject>() {
    let mut run = Run::<S>::new(Plan::default());
    run.publish_many(8);
    run.device.start();
    run.until_delivered(8);
    assert_eq!(run.cloud.borrow().repetitions(), 0);
    run.pass(secs(5));
    run.all_arrived();
}

/// Breaks the connection in the middle of a window, and lets everything arrive.
fn cut_in_mid_window<S: Subject>(lose_session: bool) -> Run<S> {
    let mut run = Run::<S>::up(Plan::default());
    let withheld = [PublishFault::None, PublishFault::Withhold, PublishFault::Withhold, PublishFault::Withhold];
    run.cloud.borrow_mut().hubs[0].faults.next_publishes.extend(withheld);
    run.publish_many(8);
    run.until_delivered(1);
    run.pass(secs(2));
    if lose_session {
        run.cloud.borrow_mut().hubs[0].forget_sessions();
    }
    run.cloud.borrow_mut().cut(0);
    run.until_delivered(8);
    run.pass(secs(5));
    run
}

/// Whether each of the repetitions is marked as one.
fn marks<S: Subject>(run: &Run<S>) -> Vec<bool> {
    let cloud = run.cloud.borrow();
    let mut seen = Vec::new();
    let mut marks = Vec::new();
    for receipt in cloud.receipts() {
        if seen.contains(&&receipt.payload) {
            marks.push(receipt.dup);
        } else {
            assert!(!receipt.dup || seen.is_empty(), "a first sending that is marked");
            seen.push(&receipt.payload);
        }
    }
    marks
}

/// After a cut in the middle of a window, with the session kept, what was in flight is sent again in order and with DUP.
pub fn a_cut_with_a_session_that_was_kept_repeats_in_order_and_marks_what_was_sent_before<S: Subject>() {
    let run = cut_in_mid_window::<S>(false);
    assert_eq!(run.count(|seen| *seen == Seen::Up { session_present: true }), 1);
    let marks = marks(&run);
    assert!(marks.len() >= 3 && marks.iter().all(|dup| *dup), "{marks:?}");
    run.all_arrived();
}

/// After a cut in the middle of a window, with the session lost, what was in flight is sent again in order and without
/// DUP.
pub fn a_cut_with_a_session_that_was_lost_repeats_in_order_and_marks_nothing<S: Subject>() {
    let run = cut_in_mid_window::<S>(true);
    assert_eq!(run.count(|seen| *seen == Seen::Up { session_present: false }), 2);
    let marks = marks(&run);
    assert!(marks.len() >= 3 && marks.iter().all(|dup| !dup), "{marks:?}");
    run.all_arrived();
}

/// A message that was stored and not acknowledged comes again with the same message id, and counts as delivered once.
pub fn a_message_whose_acknowledgement_was_lost_comes_again_under_its_id<S: Subject>() {
    let mut run = Run::<S>::up(Plan::default());
    run.cloud.borrow_mut().hubs[0].faults.next_publishes.push_back(PublishFault::CloseAfterStore);
    run.publish("{\"n\":1}").expect("room in the outbox");
    run.until_delivered(1);
    let topics: Vec<String> = run.cloud.borrow().receipts().iter().map(|receipt| receipt.topic.clone()).collect();
    assert_eq!(topics.len(), 2, "{topics:?}");
    assert_eq!(topics[0], topics[1]);
    run.pass(secs(5));
    run.all_arrived();
}

/// By default a full outbox refuses the newest message, and takes again once there is room.
pub fn a_full_outbox_refuses_the_newest<S: Subject>() {
    let mut run = Run::<S>::new(Plan::default());
    run.publish_many(8);
    assert_eq!(run.publish("{\"n\":9}"), None);
    assert_eq!(run.device.ledger().refused, 1);
    run.device.start();
    run.until_delivered(8);
    run.publish("{\"n\":10}").expect("room in the outbox");
    run.until_delivered(9);
    run.pass(secs(5));
    run.all_arrived();
}

fn dropped<S: Subject>(run: &Run<S>) -> Vec<(u64, DropReason)> {
    let dropped = |seen: &Seen| if let Seen::Dropped(id, reason) = seen { Some((*id, *reason)) } else { None };
    run.seen.iter().filter_map(|(_, seen)| dropped(seen)).collect()
}

/// With the policy that drops the oldest, those make room, each with an event and an entry in the ledger.
pub fn a_full_outbox_drops_the_oldest_when_configured<S: Subject>() {
    let mut run = Run::<S>::up(Plan { overflow: Overflow::DropOldest, ..Plan::default() });
    run.cloud.borrow_mut().hub_down(0);
    run.until(|seen| *seen == Seen::Down);
    let mut ids = Vec::new();
    for number in 1..=10 {
        ids.push(run.publish(&format!("{{\"n\":{number}}}")).expect("the oldest makes room"));
        run.step(secs(1));
    }
    run.cloud.borrow_mut().hub_up(0);
    run.until_delivered(8);
    run.pass(secs(5));
    assert_eq!(dropped(&run), [(ids[0], DropReason::Evicted), (ids[1], DropReason::Evicted)]);
    assert_eq!(run.device.ledger().evicted, 2);
    let rest: Vec<String> = (3..=10).map(|number| format!("{{\"n\":{number}}}")).collect();
    assert_eq!(run.cloud.borrow().stored(), rest);
    run.unobjectionable();
}

/// With the policy that makes room for urgent messages, a normal one is refused, and an urgent one takes the place of the
/// oldest normal one.
pub fn a_full_outbox_makes_room_for_an_urgent_message_when_configured<S: Subject>() {
    let mut run = Run::<S>::up(Plan { overflow: Overflow::DropForUrgent, ..Plan::default() });
    run.cloud.borrow_mut().hub_down(0);
    run.until(|seen| *seen == Seen::Down);
    let first = run.publish("{\"n\":0}").expect("room in the outbox");
    run.publish_many(7);
    assert_eq!(run.publish("{\"n\":9}"), None);
    run.alarm("{\"alarm\":1}").expect("a normal message makes room");
    run.cloud.borrow_mut().hub_up(0);
    run.until_delivered(8);
    run.pass(secs(5));
    assert_eq!(dropped(&run), [(first, DropReason::Evicted)]);
    let stored = run.cloud.borrow().stored();
    assert_eq!((stored.len(), stored[0].as_str()), (8, "{\"alarm\":1}"));
    run.unobjectionable();
}

/// A message that expires in an outage is reported as such and never sent.
pub fn a_message_that_expires_in_an_outage_is_reported_and_never_sent<S: Subject>() {
    let mut run = Run::<S>::up(Plan { expiry: Some(mins(10)), ..Plan::default() });
    run.cloud.borrow_mut().hub_down(0);
    run.until(|seen| *seen == Seen::Down);
    let old = run.publish("\"old\"").expect("room in the outbox");
    run.pass(mins(60));
    assert_eq!(dropped(&run), [(old, DropReason::Expired)]);
    assert_eq!(run.device.ledger().expired, 1);
    run.cloud.borrow_mut().hub_up(0);
    run.until_up();
    run.publish("\"new\"").expect("room in the outbox");
    run.until_delivered(1);
    assert_eq!(run.cloud.borrow().stored(), ["\"new\""]);
    run.unobjectionable();
}

/// An urgent message overtakes the normal ones that have not been sent.
pub fn an_urgent_message_leaves_before_the_normal_ones<S: Subject>() {
    let mut run = Run::<S>::new(Plan::default());
    run.publish_many(6);
    run.alarm("{\"alarm\":1}").expect("room in the outbox");
    run.alarm("{\"alarm\":2}").expect("room in the outbox");
    run.device.start();
    run.until_delivered(8);
    assert_eq!(run.cloud.borrow().stored()[..3], ["{\"alarm\":1}", "{\"alarm\":2}", "{\"n\":1}"]);
    run.pass(secs(5));
    run.all_arrived();
}

/// A device that its hub no longer knows registers, and sends what is queued to the hub it is assigned then.
pub fn a_device_moves_to_another_hub_with_its_queue<S: Subject>() {
    let mut run = Run::<S>::up(Plan::default());
    run.publish("{\"first\":1}").expect("room in the outbox");
    run.until_delivered(1);
    run.cloud.borrow_mut().move_device();
    run.until(|seen| *seen == Seen::Down);
    run.publish_many(8);
    run.until_delivered(9);
    run.pass(secs(5));
    assert_eq!(run.count(|seen| *seen == Seen::Provisioned { migrated: true }), 1);
    assert_eq!(run.cloud.borrow().registrations(), 2);
    let cloud = run.cloud.borrow();
    assert_eq!((cloud.hubs[0].receipts().len(), cloud.hubs[1].receipts().len()), (1, 8));
    assert_eq!(cloud.dials.last().map(|(_, host)| host.as_str()), Some(HUBS[1]));
    drop(cloud);
    run.all_arrived();
}

/// With the poison message rule, a message that ends every connection it is sent on is set aside, and the others arrive.
pub fn a_poison_message_is_set_aside_and_the_others_arrive<S: Subject>() {
    let mut run = Run::<S>::up(Plan { poison_threshold: Some(3), ..Plan::default() });
    run.cloud.borrow_mut().hubs[0].faults.poison = Some(b"\"poison\"".to_vec());
    run.publish("\"before\"").expect("room in the outbox");
    let poison = run.publish("\"poison\"").expect("room in the outbox");
    run.publish("\"after\"").expect("room in the outbox");
    run.until_delivered(2);
    run.pass(secs(5));
    assert_eq!(dropped(&run), [(poison, DropReason::Rejected)]);
    assert_eq!(run.cloud.borrow().stored(), ["\"before\"", "\"after\""]);
    assert_eq!(run.device.ledger().rejected, 1);
    run.unobjectionable();
}

/// While acknowledgements are late, no more than the window is in flight, and nothing is sent twice.
pub fn late_acknowledgements_limit_what_is_in_flight_and_lose_nothing<S: Subject>() {
    let mut run = Run::<S>::up(Plan::default());
    run.cloud.borrow_mut().hubs[0].faults.publish = PublishFault::AckLate(5_000);
    run.publish_many(8);
    run.pass(secs(2));
    assert_eq!(run.cloud.borrow().receipts().len(), 4);
    run.until_delivered(8);
    assert_eq!(run.cloud.borrow().repetitions(), 0);
    run.pass(secs(5));
    run.all_arrived();
}

/// A second acknowledgement of the same packet ends no other message.
pub fn an_acknowledgement_that_comes_twice_counts_once<S: Subject>() {
    let mut run = Run::<S>::up(Plan::default());
    run.cloud.borrow_mut().hubs[0].faults.publish = PublishFault::AckTwice;
    run.cloud.borrow_mut().hubs[0].faults.next_greetings.push_back(Greeting::Judge);
    run.publish_many(8);
    run.until_delivered(8);
    run.pass(secs(5));
    run.all_arrived();
}
