//! Twin, methods, and messages to the device.

use serde_json::json;
use steadfast_sim::service::TwinFault;

use super::{mins, secs};
use crate::cloud::DEVICE;
use crate::{Plan, Run, Seen, Subject};

/// Every version of the desired properties is seen once, alone or within a twin: also when a notification is lost or the
/// device was away.
pub fn desired_properties_are_seen_without_a_gap_or_a_repetition<S: Subject>() {
    let mut run = Run::<S>::up(Plan::default());
    run.until(|seen| matches!(seen, Seen::Twin { version: 1, .. }));
    run.cloud.borrow_mut().desire(&json!({ "interval": 10 }), false);
    run.until(|seen| *seen == Seen::Desired { patch: json!({ "interval": 10 }), version: 2 });
    run.cloud.borrow_mut().desire(&json!({ "interval": 20 }), true);
    run.cloud.borrow_mut().desire(&json!({ "level": 1 }), false);
    run.until(|seen| *seen == Seen::Twin { desired: json!({ "interval": 20, "level": 1 }), version: 4 });
    run.cloud.borrow_mut().hub_down(0);
    run.until(|seen| *seen == Seen::Down);
    run.cloud.borrow_mut().desire(&json!({ "level": null }), false);
    run.cloud.borrow_mut().hub_up(0);
    run.until(|seen| *seen == Seen::Twin { desired: json!({ "interval": 20 }), version: 5 });
    run.cloud.borrow_mut().cut(0);
    run.until(|seen| *seen == Seen::Down);
    run.until_up();
    run.pass(mins(10));
    let version = |seen: &Seen| {
        if let Seen::Twin { version, .. } | Seen::Desired { version, .. } = seen { Some(*version) } else { None }
    };
    let versions: Vec<u64> = run.seen.iter().filter_map(|(_, seen)| version(seen)).collect();
    assert_eq!(versions, [1, 2, 4, 5]);
    run.unobjectionable();
}

/// Properties reported while the hub is away arrive once it is back; per path the last write counts.
pub fn properties_reported_in_an_outage_arrive_merged<S: Subject>() {
    let mut run = Run::<S>::up(Plan::default());
    run.cloud.borrow_mut().hub_down(0);
    run.until(|seen| *seen == Seen::Down);
    for number in 1..=20 {
        run.device.report(&json!({ "count": number, "old": number }).to_string());
    }
    run.device.report(&json!({ "old": null, "door": "open" }).to_string());
    let before = run.cloud.borrow().hubs[0].twin_requests().len();
    run.cloud.borrow_mut().hub_up(0);
    run.until(|seen| *seen == Seen::Reported);
    run.pass(mins(10));
    assert_eq!(run.cloud.borrow_mut().hubs[0].twin(DEVICE).reported, json!({ "count": 20, "door": "open" }));
    let requests = run.cloud.borrow().hubs[0].twin_requests().len() - before;
    assert!(requests <= 3, "{requests} requests for what fits into one patch");
    run.unobjectionable();
}

/// Reported properties that the service throttles are sent again later, and arrive.
pub fn a_throttled_report_is_sent_again_later<S: Subject>() {
    let mut run = Run::<S>::up(Plan::default());
    run.until(|seen| matches!(seen, Seen::Twin { .. }));
    run.cloud.borrow_mut().hubs[0].next_twin_faults([TwinFault::Status(429)]);
    run.device.report("{\"door\":\"open\"}");
    run.until(|seen| *seen == Seen::TwinThrottled);
    run.until(|seen| *seen == Seen::Reported);
    assert_eq!(run.cloud.borrow_mut().hubs[0].twin(DEVICE).reported, json!({ "door": "open" }));
    assert_eq!(run.count(|seen| *seen == Seen::Down), 0);
    run.unobjectionable();
}

fn next_call<S: Subject>(run: &mut Run<S>) -> (u64, String, String) {
    run.until_some(|seen| {
        let Seen::Call { handle, name, payload } = seen else { return None };
        Some((*handle, name.clone(), payload.clone()))
    })
}

/// A method call reaches the application, and its answer the caller.
pub fn a_method_call_is_answered_once<S: Subject>() {
    let mut run = Run::<S>::up(Plan::default());
    run.cloud.borrow_mut().call("reboot", "{\"after\":5}");
    let (call, name, payload) = next_call(&mut run);
    assert_eq!((name.as_str(), payload.as_str()), ("reboot", "{\"after\":5}"));
    assert!(run.device.respond(call, 202, "{\"ok\":true}"));
    run.pass(secs(10));
    let answers = run.cloud.borrow().hubs[0].answers().to_vec();
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!((answers[0].status, answers[0].body.as_slice()), (202, &b"{\"ok\":true}"[..]));
    run.unobjectionable();
}

/// An answer that comes after its call's connection has ended is refused, and sent to no other call.
pub fn an_answer_to_a_call_whose_connection_has_ended_is_refused<S: Subject>() {
    let mut run = Run::<S>::up(Plan::default());
    run.cloud.borrow_mut().call("reboot", "{}");
    let (call, ..) = next_call(&mut run);
    run.cloud.borrow_mut().cut(0);
    run.until(|seen| *seen == Seen::Down);
    run.until_up();
    run.cloud.borrow_mut().call("other", "{}");
    let (other, ..) = next_call(&mut run);
    assert!(!run.device.respond(call, 200, "{\"late\":true}"));
    assert!(run.device.respond(other, 200, "{}"));
    run.pass(secs(10));
    let answers = run.cloud.borrow().hubs[0].answers().to_vec();
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!((answers[0].request.as_str(), answers[0].body.as_slice()), ("2", &b"{}"[..]));
    run.unobjectionable();
}

fn next_message<S: Subject>(run: &mut Run<S>) -> (u64, String) {
    run.until_some(|seen| {
        let Seen::Message { handle, payload, .. } = seen else { return None };
        Some((*handle, payload.clone()))
    })
}

fn messages<S: Subject>(run: &Run<S>) -> Vec<String> {
    let payload = |seen: &Seen| if let Seen::Message { payload, .. } = seen { Some(payload.clone()) } else { None };
    run.seen.iter().filter_map(|(_, seen)| payload(seen)).collect()
}

/// A message to the device that was acknowledged does not come again on a later connection.
pub fn an_acknowledged_message_to_the_device_does_not_come_again<S: Subject>() {
    let mut run = Run::<S>::up(Plan::default());
    run.cloud.borrow_mut().send_to_device("m1", "open");
    let (message, payload) = next_message(&mut run);
    assert_eq!(payload, "open");
    assert!(run.device.acknowledge(message));
    run.pass(secs(2));
    run.cloud.borrow_mut().cut(0);
    run.until(|seen| *seen == Seen::Down);
    run.until_up();
    run.pass(mins(10));
    assert_eq!(messages(&run), ["open"]);
    run.unobjectionable();
}

/// A message to the device comes again on the next connection until it is acknowledged there; an acknowledgement of the
/// earlier copy counts for nothing.
pub fn a_message_to_the_device_comes_again_until_it_is_acknowledged<S: Subject>() {
    let mut run = Run::<S>::up(Plan::default());
    run.cloud.borrow_mut().send_to_device("m1", "open");
    let (old, _) = next_message(&mut run);
    run.cloud.borrow_mut().cut(0);
    run.until(|seen| *seen == Seen::Down);
    let (new, _) = next_message(&mut run);
    assert!(!run.device.acknowledge(old));
    assert!(run.device.acknowledge(new));
    run.pass(secs(2));
    run.cloud.borrow_mut().cut(0);
    run.until(|seen| *seen == Seen::Down);
    run.until_up();
    run.pass(mins(10));
    assert_eq!(messages(&run), ["open", "open"]);
    run.unobjectionable();
}

/// An application that takes a minute for each message to the device gets each once and in order.
pub fn a_slow_application_gets_every_message_to_the_device_once_and_in_order<S: Subject>() {
    let mut run = Run::<S>::up(Plan::default());
    let sent: Vec<String> = (1..=6).map(|number| format!("job {number}")).collect();
    for (number, payload) in sent.iter().enumerate() {
        run.cloud.borrow_mut().send_to_device(&format!("m{number}"), payload);
    }
    let handles: Vec<u64> = sent.iter().map(|_| next_message(&mut run).0).collect();
    for handle in handles {
        run.pass(mins(1));
        assert!(run.device.acknowledge(handle));
    }
    run.pass(secs(2));
    run.cloud.borrow_mut().cut(0);
    run.until(|seen| *seen == Seen::Down);
    run.until_up();
    run.pass(mins(1));
    assert_eq!(messages(&run), sent);
    run.unobjectionable();
}
