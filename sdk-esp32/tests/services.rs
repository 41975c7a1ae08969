//! Twin, methods and messages from the cloud through both forms of the device.
#![expect(clippy::unwrap_used, reason = "a failure of what a test sets up fails the test")]

#[path = "support/service_forms.rs"]
mod forms;
#[path = "support/hub.rs"]
mod hub;
#[path = "support/rig.rs"]
#[expect(dead_code, reason = "some of it is for the scenarios without services")]
mod rig;

use std::time::Duration;

use forms::{Blocking, Frontend, Got};
use rig::{Manners, Net, PLAIN, Shared, Trouble};
use serde_json::{Value, json};
use steadfast_core::iothub::pnp::{APPLIED, Acknowledgement};
use steadfast_core::{CallId, Event, ReportError, ReportId, RespondError, State, iothub};
use steadfast_esp32::Ack;
use steadfast_sim::service::merge;

macro_rules! both {
    ($($scenario:ident)*) => {
        mod blocking {
            $(#[test] fn $scenario() { super::$scenario::<crate::forms::Blocking>(); })*
        }
        mod asynchronous {
            $(#[test] fn $scenario() { super::$scenario::<crate::forms::Asynchronous>(); })*
        }
    };
}

both! {
    desired_properties_changed_while_away_are_told_once
    each_change_of_a_burst_is_told_in_order
    the_whole_twin_is_there_for_the_asking
    reported_properties_wait_and_arrive_merged
    a_writable_property_is_acknowledged
    methods_are_answered_each_on_its_own
    an_answer_that_comes_after_its_connection_is_dropped
    a_message_whose_acknowledgement_was_lost_is_known_again
    an_abandoned_message_comes_again_and_holds_up_no_other
    services_survive_every_way_of_cutting_bytes
    a_break_at_every_byte_of_the_services_loses_nothing
    a_stall_at_every_byte_of_the_services_loses_nothing
}

/// Polls until `found` finds what it looks for. Bounded: a scenario that hangs fails.
fn next<F: Frontend, T>(device: &mut F, mut found: impl FnMut(Got) -> Option<T>) -> T {
    for _ in 0..20_000 {
        assert!(device.balances(), "the ledger does not balance");
        if let Some(found) = found(device.poll(Duration::from_secs(1))) {
            return found;
        }
    }
    panic!("it does not come; {:?}", device.state());
}

fn up<F: Frontend>(net: &Shared) -> F {
    let mut device = F::new(net);
    device.start();
    whole(&mut device);
    device
}

fn cut(net: &Shared) {
    net.borrow_mut().hub_down(0);
    net.borrow_mut().hub_up(0);
}

fn is_up(got: &Got) -> bool {
    matches!(got, Got::Event(iothub::Event::Link(Event::Up { .. })))
}

fn whole(device: &mut impl Frontend) -> (Value, u64) {
    next(device, |got| match got {
        Got::Twin { desired, version, reset } => {
            assert!(!reset);
            Some((desired, version))
        }
        Got::Desired { .. } => panic!("a change came before the whole"),
        Got::Idle | Got::Event(_) | Got::Call { .. } | Got::Message { .. } => None,
    })
}

fn change(device: &mut impl Frontend) -> (u64, Value) {
    next(device, |got| match got {
        Got::Desired { version, patch } => Some((version, patch)),
        Got::Twin { .. } => panic!("the whole twin without need"),
        Got::Idle | Got::Event(_) | Got::Call { .. } | Got::Message { .. } => None,
    })
}

fn call(device: &mut impl Frontend) -> (CallId, String, Vec<u8>) {
    next(device, |got| if let Got::Call { call, name, payload } = got { Some((call, name, payload)) } else { None })
}

fn reported(device: &mut impl Frontend, id: ReportId) {
    next(device, |got| matches!(got, Got::Event(iothub::Event::Reported { report, .. }) if report == id).then_some(()));
}

fn desired_properties_changed_while_away_are_told_once<F: Frontend>() {
    let net = Net::new();
    let mut device: F = up(&net);
    net.borrow_mut().hub_down(0);
    net.borrow_mut().desire(&json!({"mode": "eco"}));
    net.borrow_mut().desire(&json!({"target": 21}));
    let last = net.borrow_mut().twin().desired_version;
    net.borrow_mut().hub_up(0);
    let (mut desired, version) = whole(&mut device);
    desired.as_object_mut().unwrap().remove("$version");
    assert_eq!((desired, version), (json!({"mode": "eco", "target": 21}), last));
    // Coming back without a change tells nothing again.
    cut(&net);
    next(&mut device, |got| is_up(&got).then_some(()));
    for _ in 0..300 {
        assert!(!matches!(device.poll(Duration::from_secs(1)), Got::Twin { .. } | Got::Desired { .. }));
    }
    net.borrow_mut().desire(&json!({"mode": null}));
    assert_eq!(change(&mut device).0, last + 1);
}

fn each_change_of_a_burst_is_told_in_order<F: Frontend>() {
    let net = Net::new();
    net.borrow_mut().manners = Manners { read: 7, ..PLAIN };
    let mut device: F = up(&net);
    let known = net.borrow_mut().twin().desired_version;
    for target in 0..10 {
        net.borrow_mut().desire(&json!({"target": target}));
    }
    for target in 0..10 {
        let (version, patch) = change(&mut device);
        assert_eq!((version, &patch["target"]), (known + 1 + target, &json!(target)));
    }
}

fn the_whole_twin_is_there_for_the_asking<F: Frontend>() {
    let net = Net::new();
    let mut device: F = up(&net);
    for _ in 0..2 {
        assert!(device.get_twin());
        whole(&mut device);
    }
    // Asked for while away, it comes with the next connection.
    net.borrow_mut().hub_down(0);
    next(&mut device, |got| matches!(got, Got::Event(iothub::Event::Link(Event::Down(_)))).then_some(()));
    assert!(device.get_twin());
    net.borrow_mut().hub_up(0);
    whole(&mut device);
}

fn reported_properties_wait_and_arrive_merged<F: Frontend>() {
    let net = Net::new();
    let mut device: F = up(&net);
    let first = device.report(r#"{"old":1,"kept":1}"#).unwrap();
    reported(&mut device, first);
    net.borrow_mut().hub_down(0);
    next(&mut device, |got| matches!(got, Got::Event(iothub::Event::Link(Event::Down(_)))).then_some(()));
    let ids = [r#"{"a":1}"#, r#"{"b":{"x":1}}"#, r#"{"a":2,"b":{"y":2}}"#, r#"{"old":null}"#]
        .map(|patch| device.report(patch).unwrap());
    assert!(ids.iter().all(|id| *id == ids[0]), "merged patches share a name");
    assert_eq!(device.report("[]"), Err(ReportError::NotAnObject));
    let long = format!("{{\"long\":\"{}\"}}", "x".repeat(490));
    assert_eq!(device.report(&long), Err(ReportError::Full));
    net.borrow_mut().hub_up(0);
    reported(&mut device, ids[3]);
    assert_eq!(net.borrow_mut().twin().reported, json!({"kept": 1, "a": 2, "b": {"x": 1, "y": 2}}));
}

fn a_writable_property_is_acknowledged<F: Frontend>() {
    let net = Net::new();
    let mut device: F = up(&net);
    net.borrow_mut().desire(&json!({"target": 21}));
    let (version, patch) = change(&mut device);
    let value = patch["target"].to_string();
    let (name, value) = ("target", value.as_str());
    let acknowledgement = Acknowledgement { component: None, name, value, status: APPLIED, version, description: "" };
    let mut buffer = [0; 128];
    let patch = acknowledgement.write(&mut buffer).unwrap();
    let id = device.report(std::str::from_utf8(patch).unwrap()).unwrap();
    reported(&mut device, id);
    assert_eq!(net.borrow_mut().twin().reported, json!({"target": {"value": 21, "ac": 200, "av": version}}));
}

fn methods_are_answered_each_on_its_own<F: Frontend>() {
    let net = Net::new();
    let mut device: F = up(&net);
    net.borrow_mut().call("thermo%2Areset", "a1", b"1");
    let (first, name, payload) = call(&mut device);
    assert_eq!((name.as_str(), payload.as_slice()), ("thermo*reset", &b"1"[..]));
    net.borrow_mut().call("echo", "a2", b"");
    let (second, name, payload) = call(&mut device);
    assert_eq!((name.as_str(), payload.as_slice()), ("echo", &b""[..]));
    device.respond(second, 200, b"\"second\"").unwrap();
    device.respond(first, 404, b"").unwrap();
    assert_eq!(device.respond(first, 200, b""), Err(RespondError::NotOpen));
    let limit = Err(RespondError::TooLarge { size: 257, limit: 256 });
    net.borrow_mut().call("echo", "a3", b"");
    let (third, ..) = call(&mut device);
    assert_eq!(device.respond(third, 200, &[b'1'; 257]), limit);
    device.poll(Duration::from_secs(1));
    let answers: Vec<_> =
        net.borrow().hubs[0].answers().iter().map(|it| (it.request.clone(), it.status, it.body.clone())).collect();
    let expected = [("a2".to_owned(), 200, b"\"second\"".to_vec()), ("a1".to_owned(), 404, Vec::new())];
    assert_eq!(answers, expected);
}

fn an_answer_that_comes_after_its_connection_is_dropped<F: Frontend>() {
    let net = Net::new();
    let mut device: F = up(&net);
    net.borrow_mut().call("echo", "1", b"1");
    let (late, ..) = call(&mut device);
    cut(&net);
    let mut dropped = 0;
    next(&mut device, |got| {
        if let Got::Event(iothub::Event::CallsDropped { count }) = got {
            dropped += count;
        }
        is_up(&got).then_some(())
    });
    assert_eq!(dropped, 1, "the application is told");
    assert_eq!(device.respond(late, 200, b"1"), Err(RespondError::ConnectionLost));
    // The next call gets its own answer.
    net.borrow_mut().call("echo", "1", b"2");
    let (open, _, payload) = call(&mut device);
    assert_eq!(payload, b"2");
    device.respond(open, 200, b"2").unwrap();
    device.poll(Duration::from_secs(1));
    let answers: Vec<_> = net.borrow().hubs[0].answers().iter().map(|answer| answer.body.clone()).collect();
    assert_eq!(answers, [b"2"]);
}

fn message(device: &mut impl Frontend) -> (String, bool, Ack) {
    next(device, |got| match got {
        Got::Message { properties, payload, duplicate, ack } => {
            assert_eq!(payload, b"open the valve");
            Some((properties, duplicate, ack))
        }
        Got::Idle | Got::Event(_) | Got::Twin { .. } | Got::Desired { .. } | Got::Call { .. } => None,
    })
}

fn a_message_whose_acknowledgement_was_lost_is_known_again<F: Frontend>() {
    let net = Net::new();
    let mut device: F = up(&net);
    net.borrow_mut().send_with("%24.mid=one&k=v", b"open the valve");
    let (properties, duplicate, _) = message(&mut device);
    assert_eq!((properties.as_str(), duplicate), ("%24.mid=one&k=v", false));
    cut(&net);
    // Nobody said it was done, so it comes again and is not called known.
    let (_, duplicate, ack) = message(&mut device);
    assert!(!duplicate);
    cut(&net);
    next(&mut device, |got| matches!(got, Got::Event(iothub::Event::Link(Event::Down(_)))).then_some(()));
    device.acknowledge(ack);
    let (_, duplicate, ack) = message(&mut device);
    assert!(duplicate, "the application was done with it");
    assert!(device.acknowledge(ack));
    device.poll(Duration::from_secs(1));
    cut(&net);
    for _ in 0..200 {
        assert!(!matches!(device.poll(Duration::from_secs(1)), Got::Message { .. }), "it was acknowledged");
    }
}

fn an_abandoned_message_comes_again_and_holds_up_no_other<F: Frontend>() {
    let net = Net::new();
    let mut device: F = up(&net);
    let [one, two] = ["one", "two"].map(|id| {
        net.borrow_mut().send_with(&format!("%24.mid={id}"), b"open the valve");
        message(&mut device).2
    });
    assert!(device.acknowledge(two) && device.abandon(one) && !device.abandon(one));
    device.poll(Duration::from_secs(1));
    cut(&net);
    assert_eq!(message(&mut device).0, "%24.mid=one");
    for _ in 0..200 {
        assert!(!matches!(device.poll(Duration::from_secs(1)), Got::Message { .. }), "the other was acknowledged");
    }
}

/// A device that follows desired properties, reports a property and answers a call, which the caller repeats until it
/// has an answer.
fn scenario<F: Frontend>(net: &Shared) {
    let mut device = F::new(net);
    device.start();
    device.send("one");
    let mut id = None;
    let (mut told, mut desired) = (None, json!({}));
    let mut called = 0;
    let mut done = false;
    for turn in 0..5_000 {
        if turn == 5 {
            net.borrow_mut().desire(&json!({"target": 21}));
            id = Some(device.report(r#"{"place":"cellar"}"#).unwrap());
        }
        if turn == 8 {
            net.borrow_mut().desire(&json!({"mode": "eco"}));
        }
        let unanswered = !net.borrow().hubs[0].answers().iter().any(|answer| answer.status == 200);
        if turn >= 5 && turn % 20 == 5 && unanswered && device.state() == State::Up {
            called += 1;
            net.borrow_mut().call("echo", &called.to_string(), b"1");
        }
        match device.poll(Duration::from_secs(1)) {
            Got::Twin { desired: whole, version, reset } => {
                assert!(told < Some(version) && !reset, "{version} after {told:?}");
                (told, desired) = (Some(version), whole);
            }
            Got::Desired { version, patch } => {
                assert_eq!(told.map(|told| told + 1), Some(version));
                told = Some(version);
                merge(&mut desired, &patch);
            }
            Got::Call { call, name, payload } => {
                assert_eq!(name, "echo");
                device.respond(call, 200, &payload).unwrap();
            }
            Got::Event(iothub::Event::Reported { report, .. }) => done |= Some(report) == id,
            Got::Event(_) | Got::Idle => {}
            Got::Message { .. } => panic!("nobody sent a message"),
        }
        assert!(device.balances());
        // A notification that is lost with nothing after it shows with the next one.
        if turn > 8 && turn % 500 == 0 {
            net.borrow_mut().desire(&json!({"turn": turn}));
        }
        let twin = net.borrow_mut().twin();
        if turn > 8 && done && told == Some(twin.desired_version) && !unanswered && device.delivered() == 1 {
            desired.as_object_mut().unwrap().remove("$version");
            assert_eq!(desired, twin.desired);
            assert_eq!(twin.reported, json!({"place": "cellar"}));
            assert!(
                net.borrow().hubs[0]
                    .answers()
                    .iter()
                    .all(|answer| (answer.status, answer.body.as_slice()) == (200, b"1"))
            );
            assert_eq!(net.borrow().objections(), [""; 0]);
            return;
        }
    }
    panic!("no end; {:?}, told {told:?}, reported {done}", device.state());
}

fn services_survive_every_way_of_cutting_bytes<F: Frontend>() {
    for reluctant in [false, true] {
        for (read, write) in [(1, 1), (1, usize::MAX), (usize::MAX, 1), (2, 3), (7, 5), (100, 64)] {
            let net = Net::new();
            net.borrow_mut().manners = Manners { read, write, reluctant };
            scenario::<F>(&net);
        }
    }
}

fn trouble_at_every_byte<F: Frontend>(trouble: Trouble) {
    let total = {
        let net = Net::new();
        scenario::<F>(&net);
        net.borrow().bytes
    };
    assert!(total > 900, "{total}");
    for at in 0..total {
        let net = Net::new();
        net.borrow_mut().trouble = Some((at, trouble));
        scenario::<F>(&net);
        assert!(net.borrow().trouble.is_none(), "no trouble at {at}");
    }
}

fn a_break_at_every_byte_of_the_services_loses_nothing<F: Frontend>() {
    trouble_at_every_byte::<F>(Trouble::Break);
}

fn a_stall_at_every_byte_of_the_services_loses_nothing<F: Frontend>() {
    trouble_at_every_byte::<F>(Trouble::Stall);
}

#[test]
fn debug_output_of_a_device_shows_no_reports_and_no_answers() {
    let net = Net::new();
    let mut device: Blocking = up(&net);
    net.borrow_mut().hub_down(0);
    device.report(r#"{"pin":"4711"}"#).unwrap();
    let shown = format!("{:?}", device.0.link());
    assert!(!shown.contains("4711") && !shown.contains("52, 55, 49, 49"), "{shown}");
}
