//! A device that loses power in an outage.

use steadfast_core::mqtt::Incoming;
use steadfast_core::{
    Action, AnyProfile, BackoffSnapshot, Config, Credential, Failure, Input, Instant, Link, Output, RamOutbox, Seed,
    Service,
};

type Device = Link<RamOutbox<1, 16>, AnyProfile<&'static Config<&'static str>>>;

static CONFIG: Config<&str> =
    Config::new(Service::Broker { host: "broker.example", client_id: "pump-7" }, Credential::Certificate);

fn device(seed: u64) -> Device {
    Device::new(AnyProfile::new(&CONFIG, [0; 256]), RamOutbox::new(), Seed::from_number(seed), Instant::ORIGIN)
        .expect("the configuration is right")
}

/// Polls until the device waits; returns what it wants kept, and when it wakes.
fn drain(device: &mut Device) -> (Option<BackoffSnapshot>, Instant) {
    let mut kept = None;
    for _ in 0..100 {
        match device.poll_output() {
            Output::Action(Action::SaveBackoff(memory)) => kept = Some(memory),
            Output::Wait(deadline) => return (kept, deadline.expect("it waits for something").at),
            Output::Action(_) | Output::Event(_) | _ => {}
        }
    }
    panic!("the device never waits");
}

/// A device that the service refused for an hour, and the memory it wanted kept last.
fn refused_for_an_hour() -> (Device, BackoffSnapshot) {
    let mut device = device(1);
    device.set_wall_clock(1_800_000_000, Instant::ORIGIN);
    device.start(Instant::ORIGIN);
    let (mut kept, mut writes, mut now) = (None, 0, drain(&mut device).1);
    while now < Instant::from_millis(3_600_000) {
        device.handle_timeout(now);
        drain(&mut device);
        device.handle_input(Input::Ready, device.attempt(), now);
        drain(&mut device);
        let refused = Input::Packet(Incoming::ConnAck { session_present: false, code: 3 });
        device.handle_input(refused, device.attempt(), now);
        let (memory, wake) = drain(&mut device);
        writes += u32::from(memory.is_some());
        assert!(writes <= 16, "an hour costs few writes: the age of the evidence grows by a quarter between two");
        kept = memory.or(kept);
        now = wake;
    }
    (device, kept.expect("evidence of overload is worth keeping"))
}

/// When a rebooted device that remembers `memory` makes its first attempt, at most, over many seeds.
fn first_attempt(memory: BackoffSnapshot, unix_secs: Option<u64>) -> u64 {
    let first = |seed| {
        let mut device = device(seed);
        if let Some(unix_secs) = unix_secs {
            device.set_wall_clock(unix_secs, Instant::ORIGIN);
        }
        device.restore_backoff(memory, Instant::ORIGIN);
        device.start(Instant::ORIGIN);
        drain(&mut device).1.as_millis()
    };
    (0..500).map(first).max().unwrap_or(0)
}

#[test]
fn a_device_that_was_refused_before_a_power_cut_spreads_as_one_that_was_refused() {
    let (_, kept) = refused_for_an_hour();
    let kept = BackoffSnapshot::from_bytes(kept.to_bytes()).expect("it is of this layout");
    // Without a clock the time off is unknown, and counts for nothing.
    let first = first_attempt(kept, None);
    assert!((600_000..=1_800_000).contains(&first), "{first}");
}

#[test]
fn a_power_cut_anywhere_in_an_outage_is_no_end_of_it() {
    let (device, kept) = refused_for_an_hour();
    let cut = 1_800_000_000 + device.status().since.as_millis() / 1_000;
    let first = first_attempt(kept, Some(cut));
    assert!((600_000..=2_400_000).contains(&first), "{first}");
}

#[test]
fn the_age_of_the_evidence_goes_on_while_the_clock_tells() {
    let (device, _) = refused_for_an_hour();
    let latest = device.backoff_snapshot();
    let age = device.status().since.as_millis();
    let first = first_attempt(latest, Some(1_800_000_000 + age / 1_000 + 600));
    assert!((1_500_000..=2_400_000).contains(&first), "{first}");
}

#[test]
fn a_device_that_was_off_for_longer_than_its_trouble_starts_afresh() {
    let (device, _) = refused_for_an_hour();
    assert!(first_attempt(device.backoff_snapshot(), Some(1_800_000_000 + 86_400)) <= 3_000);
}

#[test]
fn trouble_that_is_over_is_forgotten() {
    let (mut device, _) = refused_for_an_hour();
    let now = drain(&mut device).1;
    device.handle_timeout(now);
    drain(&mut device);
    device.handle_input(Input::Ready, device.attempt(), now);
    drain(&mut device);
    device.handle_input(Input::Packet(Incoming::ConnAck { session_present: true, code: 0 }), device.attempt(), now);
    let (_, stable) = drain(&mut device);
    device.handle_timeout(stable);
    let (kept, _) = drain(&mut device);
    device.handle_input(Input::Failed(Failure::Lost), device.attempt(), stable);
    assert!(first_attempt(kept.expect("the end of trouble is worth keeping"), None) <= 3_000);
}
