//! Two devices with one identity, at a service that keeps the newest connection of each.

use steadfast_core::mqtt::Incoming;
use steadfast_core::{
    Action, Advice, AnyProfile, Config, Credential, Failure, Input, Instant, Link, Output, RamOutbox, Seed, Service,
};

type Device = Link<RamOutbox<1, 16>, AnyProfile<&'static Config<&'static str>>>;

static CONFIG: Config<&str> =
    Config::new(Service::Broker { host: "broker.example", client_id: "twin" }, Credential::Certificate);

const MINUTE: u64 = 60_000;

/// Polls until the device waits; returns whether it opens a connection.
fn drain(device: &mut Device) -> bool {
    let mut opens = false;
    for _ in 0..100 {
        match device.poll_output() {
            Output::Action(Action::Connect { .. }) => opens = true,
            Output::Wait(_) => return opens,
            Output::Action(_) | Output::Event(_) | _ => {}
        }
    }
    panic!("the device never waits");
}

fn input(device: &mut Device, input: Input<'_>, now: Instant) {
    device.handle_input(input, device.attempt(), now);
    drain(device);
}

/// Runs two devices for an hour, the second one started a day after the first; returns the times of all connections
/// that the second one and its aftermath made, and whether anybody suspected the other.
fn hour(seed: u64) -> (Vec<u64>, bool) {
    let start = [0, 24 * 60 * MINUTE];
    let mut devices = start.map(|at| {
        let seed = Seed::from_number(seed * 2 + u64::from(at > 0));
        let mut device =
            Device::new(AnyProfile::new(&CONFIG, [0; 256]), RamOutbox::new(), seed, Instant::from_millis(at))
                .expect("the configuration is right");
        device.start(Instant::from_millis(at));
        drain(&mut device);
        device
    });
    let mut holder: Option<usize> = None;
    let (mut connections, mut suspected) = (Vec::new(), false);
    for _ in 0..100_000 {
        let due = devices.iter().enumerate().filter_map(|(place, device)| Some((device.next_deadline()?.at, place)));
        let (now, place) = due.min().expect("a device waits for something");
        if now.as_millis() > start[1] + 60 * MINUTE {
            break;
        }
        devices[place].handle_timeout(now);
        if drain(&mut devices[place]) {
            if now.as_millis() >= start[1] {
                connections.push(now.as_millis());
            }
            input(&mut devices[place], Input::Ready, now);
            input(&mut devices[place], Input::Packet(Incoming::ConnAck { session_present: true, code: 0 }), now);
            if let Some(other) = holder.replace(place).filter(|other| *other != place) {
                input(&mut devices[other], Input::Failed(Failure::Lost), now);
            }
        } else if devices[place].state() == steadfast_core::State::Up {
            input(&mut devices[place], Input::Packet(Incoming::PingResp), now);
        }
        suspected |= devices.iter().any(|device| device.status().advice() == Advice::DuplicateIdentity);
    }
    (connections, suspected)
}

#[test]
fn two_devices_with_one_identity_slow_down_and_say_so() {
    let mut most = 0;
    for seed in 0..200 {
        let (connections, suspected) = hour(seed);
        assert!(suspected, "seed {seed}");
        let window = |from: &u64| connections.iter().filter(|at| (*from..*from + 10 * MINUTE).contains(at)).count();
        most = most.max(connections.iter().map(window).max().unwrap_or(0));
    }
    assert!(most <= 10, "{most} connections in 10 minutes");
}
