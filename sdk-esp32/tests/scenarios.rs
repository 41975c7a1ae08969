//! The scenarios of a device, told through both pipes, blocking and asynchronous, each over WebSockets too, and through a
//! client.
#![expect(clippy::unwrap_used, reason = "a failure of what a test sets up fails the test")]

#[cfg(feature = "embedded-svc")]
#[path = "support/client.rs"]
mod client;
#[path = "support/forms.rs"]
mod forms;
#[path = "support/rig.rs"]
mod rig;

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll as Ready;
use std::time::Duration;

#[cfg(feature = "embedded-svc")]
use client::FakeClients;
#[cfg(feature = "embedded-svc")]
use forms::ThroughClient;
use forms::{
    Asynchronous, Blocking, CONFIG, Frontend, Got, Outbox, Settings, WebAsynchronous, WebBlocking, got, payloads,
    until, until_delivered, until_up,
};
use rig::{AsyncDialler, Clock, DEVICE, Dialler, HUBS, Manners, Net, PLAIN, Rig, Shared, Trouble, run_for, sas_key};
use steadfast_core::azure::key_choice::KeyPair;
use steadfast_core::dps::topics::GLOBAL_HOST;
use steadfast_core::{AnyProfile, Assignment, Event, Failure, PublishError, Seed, State};
use steadfast_esp32::{Ack, Buffers, Device, SetupError, nonblocking};
use steadfast_sim::service::Greeting;

/// The main scenario: provision, five messages, an outage with three more, a move to another hub, two more.
fn main_scenario<F: Frontend>(net: &Shared) {
    let mut device = F::new(net);
    device.start();
    for payload in &payloads(10)[..5] {
        device.send(payload).unwrap();
    }
    until_delivered(&mut device, 5);
    net.borrow_mut().hub_down(0);
    for payload in &payloads(10)[5..8] {
        device.send(payload).unwrap();
    }
    for _ in 0..60 {
        device.poll(Duration::from_secs(1));
    }
    net.borrow_mut().hub_up(0);
    until_delivered(&mut device, 8);
    net.borrow_mut().migrate();
    for payload in &payloads(10)[8..] {
        device.send(payload).unwrap();
    }
    until_delivered(&mut device, 10);
    let net = net.borrow();
    assert_eq!(net.stored(), payloads(10), "lost or out of order");
    assert_eq!(net.saved.as_ref().map(Assignment::hub), Some(HUBS[1]));
    assert_eq!(net.objections(), [""; 0]);
}

macro_rules! through_client {
    ($($scenario:ident)*) => {
        #[cfg(feature = "embedded-svc")]
        mod through_client {
            $(#[test] fn $scenario() { super::$scenario::<crate::ThroughClient>(); })*
        }
    };
}

// Not those of what such a client hides: garbage, and messages that nobody has acknowledged.
through_client! {
    a_device_provisions_sends_survives_an_outage_and_moves
    a_break_at_every_byte_loses_nothing
    a_stall_at_every_byte_loses_nothing
    a_lost_network_is_noticed_at_once
    a_full_outbox_pushes_back_and_takes_again
    a_restored_assignment_goes_straight_to_the_hub
    an_order_to_register_moves_the_device_while_it_is_up
    stopping_sends_what_is_queued
    a_device_that_wakes_after_an_orderly_stop_connects_immediately
    a_quiet_connection_is_kept_alive_for_days
    a_poll_of_no_time_looks_once
    a_power_cut_in_an_outage_does_not_make_a_new_device
    a_long_outage_costs_few_writes_of_the_memory
}

macro_rules! both {
    ($($scenario:ident)*) => {
        mod blocking {
            $(#[test] fn $scenario() { super::$scenario::<crate::Blocking>(); })*
        }
        mod asynchronous {
            $(#[test] fn $scenario() { super::$scenario::<crate::Asynchronous>(); })*
        }
        mod web_sockets {
            $(#[test] fn $scenario() { super::$scenario::<crate::WebBlocking>(); })*
        }
        mod asynchronous_web_sockets {
            $(#[test] fn $scenario() { super::$scenario::<crate::WebAsynchronous>(); })*
        }
    };
}

both! {
    a_device_whose_primary_key_is_refused_offers_the_secondary
    a_device_provisions_sends_survives_an_outage_and_moves
    every_way_of_cutting_bytes_tells_the_same_scenario
    a_break_at_every_byte_loses_nothing
    a_stall_at_every_byte_loses_nothing
    a_message_from_the_cloud_comes_again_until_it_is_acknowledged
    a_lost_network_is_noticed_at_once
    a_full_outbox_pushes_back_and_takes_again
    garbage_ends_the_connection_and_not_the_device
    a_restored_assignment_goes_straight_to_the_hub
    an_order_to_register_moves_the_device_while_it_is_up
    stopping_sends_what_is_queued
    a_device_that_wakes_after_an_orderly_stop_connects_immediately
    a_quiet_connection_is_kept_alive_for_days
    a_poll_of_no_time_looks_once
    a_power_cut_in_an_outage_does_not_make_a_new_device
    a_long_outage_costs_few_writes_of_the_memory
}

fn a_device_whose_primary_key_is_refused_offers_the_secondary<F: Frontend>() {
    let net = Net::new();
    net.borrow_mut().keys = KeyPair::new(sas_key(9), sas_key(7));
    let mut device = F::new(&net);
    device.start();
    device.send("{}").unwrap();
    until_delivered(&mut device, 1);
    let net = net.borrow();
    assert_eq!(net.stored(), ["{}"]);
    // Each service refuses the primary once.
    let hosts: Vec<&str> = net.dials.iter().map(|(_, host)| host.as_str()).collect();
    assert_eq!(hosts, [GLOBAL_HOST, GLOBAL_HOST, HUBS[0], HUBS[0]]);
}

fn a_device_provisions_sends_survives_an_outage_and_moves<F: Frontend>() {
    let net = Net::new();
    main_scenario::<F>(&net);
    assert_eq!(net.borrow().copies(), 0);
}

fn every_way_of_cutting_bytes_tells_the_same_scenario<F: Frontend>() {
    for reluctant in [false, true] {
        for (read, write) in [(1, 1), (1, usize::MAX), (usize::MAX, 1), (2, 3), (7, 5), (100, 64)] {
            let net = Net::new();
            net.borrow_mut().manners = Manners { read, write, reluctant };
            main_scenario::<F>(&net);
        }
    }
}

fn trouble_at_every_byte<F: Frontend>(trouble: Trouble) {
    let total = {
        let net = Net::new();
        main_scenario::<F>(&net);
        net.borrow().bytes
    };
    assert!(total > 2000, "{total}");
    let mut copies = 0;
    for at in (0..total).step_by(F::STRIDE) {
        let net = Net::new();
        net.borrow_mut().trouble = Some((at, trouble));
        main_scenario::<F>(&net);
        assert!(net.borrow().trouble.is_none(), "no trouble at {at}");
        // One reconnection can repeat no more than was in flight.
        assert!(net.borrow().copies() <= 5, "{} copies at {at}", net.borrow().copies());
        copies += net.borrow().copies();
    }
    assert!(copies > 0, "an acknowledgement that is lost must give a copy somewhere");
}

fn a_break_at_every_byte_loses_nothing<F: Frontend>() {
    trouble_at_every_byte::<F>(Trouble::Break);
}

fn a_stall_at_every_byte_loses_nothing<F: Frontend>() {
    trouble_at_every_byte::<F>(Trouble::Stall);
}

fn next_message(device: &mut impl Frontend) -> (String, Vec<u8>, Ack) {
    for _ in 0..1000 {
        if let Got::Message(topic, payload, ack) = device.poll(Duration::from_secs(1)) {
            return (topic, payload, ack);
        }
    }
    panic!("no message came");
}

fn a_message_from_the_cloud_comes_again_until_it_is_acknowledged<F: Frontend>() {
    let net = Net::new();
    net.borrow_mut().manners = Manners { read: 5, ..PLAIN };
    let mut device = F::new(&net);
    device.start();
    until_up(&mut device);
    net.borrow_mut().send_to_device(0, b"open the valve");
    let (topic, payload, old) = next_message(&mut device);
    assert_eq!(
        (topic.as_str(), payload.as_slice()),
        ("devices/pump-7/messages/devicebound/k=v", &b"open the valve"[..])
    );
    net.borrow_mut().hub_down(0);
    net.borrow_mut().hub_up(0);
    let (_, payload, again) = next_message(&mut device);
    assert_eq!(payload, b"open the valve");
    assert!(!device.acknowledge(old), "an acknowledgement of an older connection counts for nothing");
    assert!(device.acknowledge(again));
    device.poll(Duration::from_secs(1));
    net.borrow_mut().hub_down(0);
    net.borrow_mut().hub_up(0);
    for _ in 0..200 {
        assert!(!matches!(device.poll(Duration::from_secs(1)), Got::Message(..)), "it was acknowledged");
    }
}

fn a_lost_network_is_noticed_at_once<F: Frontend>() {
    let net = Net::new();
    let mut device = F::new(&net);
    device.start();
    until_up(&mut device);
    let at = net.borrow().now;
    device.network_lost();
    assert_eq!(device.poll(Duration::ZERO), Got::Event(Event::Down(Failure::Network)));
    assert_eq!(net.borrow().now, at);
    until_up(&mut device);
}

fn a_full_outbox_pushes_back_and_takes_again<F: Frontend>() {
    let net = Net::new();
    let mut device = F::new(&net);
    for payload in payloads(8) {
        device.send(&payload).unwrap();
    }
    assert_eq!(device.send("one too many"), Err(PublishError::Full));
    device.start();
    until_delivered(&mut device, 8);
    device.send("now there is room").unwrap();
    until_delivered(&mut device, 9);
}

fn garbage_ends_the_connection_and_not_the_device<F: Frontend>() {
    let net = Net::new();
    let mut device = F::new(&net);
    device.start();
    until_up(&mut device);
    net.borrow_mut().garbage();
    device.send("still here").unwrap();
    let events = until_delivered(&mut device, 1);
    assert!(events.iter().any(|event| matches!(event, Event::Down(Failure::Malformed(_)))), "{events:?}");
}

fn a_restored_assignment_goes_straight_to_the_hub<F: Frontend>() {
    let net = Net::new();
    let mut device = F::new(&net);
    device.restore(Assignment::new(HUBS[0], DEVICE).unwrap());
    device.start();
    device.send("no registration").unwrap();
    until_delivered(&mut device, 1);
    assert_eq!(net.borrow().dps.registrations(), []);
}

fn an_order_to_register_moves_the_device_while_it_is_up<F: Frontend>() {
    let net = Net::new();
    let mut device = F::new(&net);
    device.start();
    until_up(&mut device);
    let unix = net.borrow().unix();
    net.borrow_mut().dps.assign(DEVICE, HUBS[1], unix);
    net.borrow_mut().hubs[1].add(DEVICE, Some(rig::key()));
    device.reprovision();
    device.send("to the new hub").unwrap();
    let events = until(&mut device, |look| look().0 == 1);
    assert!(events.contains(&Event::Provisioned { migrated: true }), "{events:?}");
    assert_eq!(net.borrow().hubs[1].receipts().len() + net.borrow().hubs[0].receipts().len(), 1);
}

fn stopping_sends_what_is_queued<F: Frontend>() {
    let net = Net::new();
    net.borrow_mut().manners = Manners { write: 3, ..PLAIN };
    let mut device = F::new(&net);
    device.start();
    until_up(&mut device);
    for payload in payloads(4) {
        device.send(&payload).unwrap();
    }
    device.stop();
    let events = until(&mut device, |look| look().1 == State::Stopped);
    assert_eq!(device.delivered(), 4, "{events:?}");
    // The last thing is the news that it has stopped; nothing is dialled after it.
    let dials = net.borrow().dials.len();
    for _ in 0..100 {
        device.poll(Duration::from_secs(60));
    }
    assert_eq!(net.borrow().dials.len(), dials);
}

fn a_device_that_wakes_after_an_orderly_stop_connects_immediately<F: Frontend>() {
    let net = Net::new();
    let mut device = F::new(&net);
    device.wake();
    until_up(&mut device);
    let first = net.borrow().dials[0].0;
    assert!(first <= 1, "its sleep timer has spread the fleet already: {first} ms");
    device.stop();
    until(&mut device, |look| look().1 == State::Stopped);
    let (asleep, dials) = (net.borrow().now, net.borrow().dials.len());
    device.wake();
    until_up(&mut device);
    assert!(net.borrow().dials[dials].0 <= asleep + 1);
    // A start after a stop is spread as any other.
    device.stop();
    until(&mut device, |look| look().1 == State::Stopped);
    let (asleep, dials) = (net.borrow().now, net.borrow().dials.len());
    device.start();
    until_up(&mut device);
    assert!(net.borrow().dials[dials].0 > asleep + 1);
}

fn a_quiet_connection_is_kept_alive_for_days<F: Frontend>() {
    let net = Net::new();
    let mut device = F::new(&net);
    device.start();
    until_up(&mut device);
    let dials = net.borrow().dials.len();
    let mut downs = 0;
    while net.borrow().now < 2 * 86_400_000 {
        if let Got::Event(Event::Down(_)) = device.poll(Duration::from_secs(3600)) {
            downs += 1;
        }
    }
    assert_eq!(downs, 0);
    // Only the token's renewal ends a connection: once an hour at least.
    let renewals = net.borrow().dials.len() - dials;
    assert!((48..=70).contains(&renewals), "{renewals}");
}

fn a_poll_of_no_time_looks_once<F: Frontend>() {
    let net = Net::new();
    let mut device = F::new(&net);
    device.start();
    let at = net.borrow().now;
    for _ in 0..10 {
        assert_eq!(device.poll(Duration::ZERO), Got::Idle);
    }
    assert!(net.borrow().now <= at + 10);
}

/// A hub that is overloaded, and a device that it has refused for `hours`.
fn overloaded<F: Frontend>(hours: u64) -> Shared {
    let net = Net::new();
    net.borrow_mut().hubs[0].faults.greeting = Greeting::Code(3);
    let mut device = F::new(&net);
    device.start();
    while net.borrow().now < hours * 3_600_000 {
        device.poll(Duration::from_secs(60));
    }
    net
}

/// Cuts the power; returns how long the device waits then before it dials, with what it kept or without.
fn first_dial_after_power_cut<F: Frontend>(net: &Shared, with_memory: bool) -> u64 {
    net.borrow_mut().cut_power();
    let (assignment, memory) = (net.borrow().saved.clone().unwrap(), net.borrow().memory.unwrap());
    let mut device = F::new(net);
    device.restore(assignment);
    if with_memory {
        device.remember(memory);
    }
    device.start();
    let (at, dials) = (net.borrow().now, net.borrow().dials.len());
    until(&mut device, |_| net.borrow().dials.len() > dials);
    net.borrow().dials[dials].0 - at
}

fn a_power_cut_in_an_outage_does_not_make_a_new_device<F: Frontend>() {
    let net = overloaded::<F>(1);
    let new = first_dial_after_power_cut::<F>(&net, false);
    assert!(new <= 3_000, "a device without memory comes back in {new} ms");
    let net = overloaded::<F>(1);
    let old = first_dial_after_power_cut::<F>(&net, true);
    assert!((10_000..=3_600_000).contains(&old), "a device that was refused comes back in {old} ms");
}

fn a_long_outage_costs_few_writes_of_the_memory<F: Frontend>() {
    for (hours, most) in [(1, 16), (24, 30), (7 * 24, 40)] {
        let net = overloaded::<F>(hours);
        let (writes, registrations) = (net.borrow().memory_writes, net.borrow().dps.registrations().len());
        assert_eq!(registrations, 1, "overload sends no device to register");
        assert!((2..=most).contains(&writes), "{writes} writes in {hours} hours");
    }
}

#[test]
fn a_service_that_asks_whether_a_device_is_there_gets_an_answer() {
    fn pongs<F: Frontend>() -> usize {
        let net = Net::new();
        main_scenario::<F>(&net);
        net.borrow().pongs
    }
    // One for each connection at least.
    assert!(pongs::<WebBlocking>() >= 4 && pongs::<WebAsynchronous>() >= 4);
    assert_eq!(pongs::<Blocking>(), 0);
}

#[cfg(feature = "embedded-svc")]
#[test]
fn a_message_comes_through_a_client_in_pieces() {
    let net = Net::new();
    let mut device = ThroughClient::new(&net);
    device.start();
    until_up(&mut device);
    let long = "open the valve ".repeat(20);
    for payload in [long.as_str(), "now", &long] {
        net.borrow_mut().send_to_device(0, payload.as_bytes());
        let (topic, body, ack) = next_message(&mut device);
        assert_eq!((topic.as_str(), body.as_slice()), ("devices/pump-7/messages/devicebound/k=v", payload.as_bytes()));
        assert!(!device.acknowledge(ack), "the client has acknowledged it already");
    }
}

#[cfg(feature = "embedded-svc")]
#[test]
fn a_client_that_hides_refusals_moves_only_on_an_order() {
    let net = Net::new();
    let clients = FakeClients::new(&net);
    clients.tells.set(false);
    let mut device = ThroughClient::over(&net, clients);
    device.start();
    until_up(&mut device);
    net.borrow_mut().migrate();
    device.send("for the new hub").unwrap();
    while net.borrow().now < 3_600_000 {
        device.poll(Duration::from_secs(60));
    }
    assert_eq!((device.delivered(), net.borrow().dps.registrations().len()), (0, 1));
    device.reprovision();
    until_delivered(&mut device, 1);
    assert_eq!(net.borrow().hubs[1].receipts().len(), 1);
}

#[cfg(feature = "embedded-svc")]
#[test]
fn each_attempt_has_a_client_of_its_own() {
    let net = Net::new();
    let clients = FakeClients::new(&net);
    let mut device = ThroughClient::over(&net, clients);
    device.start();
    until_up(&mut device);
    net.borrow_mut().hub_down(0);
    for _ in 0..600 {
        device.poll(Duration::from_secs(1));
    }
    assert_eq!(clients.made.get(), net.borrow().dials.len());
    assert!(clients.made.get() > 4, "{}", clients.made.get());
}

#[test]
fn a_poll_dropped_at_any_point_loses_nothing() {
    // A dial takes two polls: dropped after one it could never end.
    dropped_after(2, |polls, device: &mut Asynchronous| {
        run_for(polls, async { got(device.0.poll(Duration::from_secs(10)).await) })
    });
}

#[test]
fn a_poll_dropped_in_the_middle_of_a_frame_loses_nothing() {
    dropped_after(2, |polls, device: &mut WebAsynchronous| {
        run_for(polls, async { got(device.0.poll(Duration::from_secs(10)).await) })
    });
}

/// Polls the device until the next full second, as a `select` against a sensor does.
fn poll_beside_a_sensor(device: &mut Asynchronous, net: &Shared) -> Option<Got> {
    let tick = (net.borrow().now / 1_000 + 1) * 1_000;
    net.borrow_mut().tick = Some(tick);
    let mut poll = pin!(async { got(device.0.poll(Duration::from_secs(10)).await) });
    let select = poll_fn(|context| match poll.as_mut().poll(context) {
        Ready::Ready(got) => Ready::Ready(Some(got)),
        Ready::Pending if net.borrow().now >= tick => Ready::Ready(None),
        Ready::Pending => Ready::Pending,
    });
    run_for(1_000_000, select).expect("a poll without end")
}

#[test]
fn a_dial_slower_than_a_sensor_in_the_same_select_is_done_once() {
    let net = Net::new();
    net.borrow_mut().dial_ms = 2_500;
    let mut device = Asynchronous::new(&net);
    device.start();
    let mut sent = 0;
    while net.borrow().now < 60_000 {
        if poll_beside_a_sensor(&mut device, &net).is_none() && sent < 10 {
            // The outbox has 8 places.
            sent += usize::from(device.send(&payloads(10)[sent]).is_ok());
        }
    }
    assert_eq!(net.borrow().stored(), payloads(10));
    // One for each service.
    assert_eq!((net.borrow().begun, net.borrow().dials.len()), (2, 2));
}

#[test]
fn a_dial_that_outlasts_the_patience_is_given_up_beside_a_sensor_too() {
    let net = Net::new();
    net.borrow_mut().dial_ms = 3_600_000;
    let mut device = Asynchronous::new(&net);
    device.start();
    while net.borrow().now < 600_000 {
        poll_beside_a_sensor(&mut device, &net);
    }
    let begun = net.borrow().begun;
    assert!((3..20).contains(&begun), "{begun} dials");
    net.borrow_mut().dial_ms = 100;
    device.send("{}").unwrap();
    while net.borrow().now < 1_800_000 && device.delivered() == 0 {
        poll_beside_a_sensor(&mut device, &net);
    }
    assert_eq!(device.delivered(), 1);
}

#[test]
fn a_close_that_is_dropped_unfinished_is_finished_by_the_next_poll() {
    let net = Net::new();
    let mut device = Asynchronous::new(&net);
    device.start();
    until_up(&mut device);
    // Nothing is taken any more, the DISCONNECT neither.
    let bytes = net.borrow().bytes;
    net.borrow_mut().trouble = Some((bytes, Trouble::Stall));
    device.stop();
    let begin = net.borrow().now;
    while net.borrow().now < begin + 60_000 && net.borrow().open_connections() > 0 {
        poll_beside_a_sensor(&mut device, &net);
    }
    assert_eq!((device.state(), net.borrow().open_connections()), (State::Stopped, 0));
}

/// Tells a scenario in which each poll is dropped after so many polls of its future, from `least` on.
fn dropped_after<F: Frontend>(least: usize, mut poll: impl FnMut(usize, &mut F) -> Option<Got>) {
    for polls in least..least + 38 {
        for manners in [PLAIN, Manners { read: 3, write: 7, reluctant: true }] {
            let net = Net::new();
            net.borrow_mut().manners = manners;
            let mut device = F::new(&net);
            device.start();
            let mut sent = 0;
            for _ in 0..200_000 {
                if sent < 10 && device.send(&payloads(10)[sent]).is_ok() {
                    sent += 1;
                }
                // What is polled and dropped is done again by the next call.
                if let Some(Got::Message(_, _, ack)) = poll(polls, &mut device) {
                    device.acknowledge(ack);
                }
                if device.delivered() == 10 {
                    break;
                }
            }
            assert_eq!(net.borrow().stored(), payloads(10), "dropped after {polls} polls, {manners:?}");
            assert_eq!(net.borrow().copies(), 0);
            assert_eq!(net.borrow().objections(), [""; 0]);
        }
    }
}

#[test]
fn buffers_that_cannot_work_are_refused_before_anything_is_sent() {
    let net = Net::new();
    let make = |rx: usize, tx: usize| {
        let buffers = Buffers { rx: vec![0; rx].leak(), tx: vec![0; tx].leak() };
        let (board, dialler) = (Rig(Rc::clone(&net)), Dialler(Rc::clone(&net)));
        Device::new(board, dialler, AnyProfile::new(&CONFIG, [0; 256]), Outbox::new(), Seed::from_number(7), buffers)
            .err()
    };
    assert_eq!(make(1023, 2048), Some(SetupError::RxTooSmall { size: 1023, needed: 1024 }));
    assert_eq!(make(1024, 2047), Some(SetupError::TxTooSmall { size: 2047, needed: 2048 }));
    assert_eq!(make(1024, 2048), None);
    let mut config = CONFIG;
    config.https_registration = true;
    let (board, dialler) = (Rig(Rc::clone(&net)), Dialler(Rc::clone(&net)));
    let profile = AnyProfile::new(config, [0; 256]);
    let device = Device::new(board, dialler, profile, Outbox::new(), Seed::from_number(7), forms::buffers());
    assert_eq!(device.err(), Some(SetupError::Config(steadfast_core::ConfigError::HttpsRegistration)));
}

#[test]
fn the_ram_of_a_device_is_known_at_compile_time() {
    type InTask = nonblocking::Device<'static, Rig, AsyncDialler, Clock, Outbox, Settings>;
    const RAM: usize = Device::<'static, Rig, Dialler, Outbox, Settings>::ram(1024, 2048);
    const IN_TASK: usize = InTask::ram(1024, 2048);
    const { assert!(RAM < 8 * 1024 && IN_TASK < 8 * 1024) };
    let net = Net::new();
    assert_eq!(size_of_val(&Blocking::new(&net).0) + 1024 + 2048, RAM);
    assert_eq!(size_of_val(&Asynchronous::new(&net).0) + 1024 + 2048, IN_TASK);
}
