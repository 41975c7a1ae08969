//! The simulator is held to what real devices on real sockets do.

use std::time::{Duration, Instant};

use fleet_sim::{Forecast, Herd};
use hub_emulator::{Config, Emulator, HubConfig, Key, Rate};
use load::{Band, Flock, Measured, Metronome, allow_files};
use steadfast::RetryPolicy;

const HUB: &str = "hub-a.azure-devices.net";

/// How far a measurement may be from the forecast.
const TOLERANCE: f64 = 0.25;

/// Longest standstill of the machine with which a single second is still worth comparing.
const STANDSTILL: Duration = Duration::from_millis(100);

/// Waits until `holds` does, at most for `patience`.
async fn until(what: &str, patience: Duration, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < patience, "it never came to this: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The default policy ten times as fast, but for the first delays: 2,000 devices within 0.3 s would measure the machine.
fn policy() -> RetryPolicy {
    let mut policy = RetryPolicy::DEFAULT.divided_by(10);
    policy.first_jitter = RetryPolicy::DEFAULT.first_jitter;
    policy
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_devices_come_back_as_the_simulator_foretells_and_lose_nothing() {
    let mut herd = Herd::new(2_000, policy(), 100);
    herd.outage_secs = 12;
    let forecasts: Vec<Forecast> = (1..=10).map(|seed| herd.forecast(seed).unwrap()).collect();
    // A device and the hub hold one end each of the connection; the rest is for what is on its way out.
    allow_files(2 * u64::from(herd.devices) + 2_000).unwrap();

    let key = Key::from_seed("the herd");
    let devices = herd.devices as usize;
    let mut hub = HubConfig::new(HUB).plain_port(0);
    for number in 0..devices {
        hub = hub.device(&Flock::name(number), key.clone());
    }
    let emulator = Emulator::start(Config::new().hub_with(hub)).await.unwrap();
    let hub = emulator.hub(HUB);
    let mut flock = Flock::start(devices, HUB, hub.addr(), &key, herd.retry).unwrap();
    until("all are up", Duration::from_secs(30), || flock.up() == devices).await;
    flock.send(2).unwrap();
    until("all is delivered", Duration::from_secs(30), || flock.queued() == 0).await;
    tokio::time::sleep(herd.retry.reset_after + Duration::from_millis(500)).await;

    hub.set_admission(Some(Rate::new(f64::from(herd.per_second), herd.burst, herd.queue))).unwrap();
    let (lost, lost_at) = (Instant::now(), emulator.now());
    hub.down().unwrap();
    let outage = Duration::from_secs(u64::from(herd.outage_secs));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(flock.up(), 0);
    flock.send(2).unwrap();
    tokio::time::sleep(outage.saturating_sub(lost.elapsed())).await;
    let metronome = Metronome::start();
    let back = Instant::now();
    hub.up().unwrap();
    flock.send(1).unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let late = metronome.stop();
    until("all are back", Duration::from_secs(90), || flock.returns(back).len() == devices).await;
    until("all is delivered", Duration::from_secs(30), || flock.queued() == 0).await;

    let opened = emulator.ledger().connections().into_iter().filter_map(|record| record.opened_at.checked_sub(lost_at));
    let attempts: Vec<Duration> = opened.collect();
    let measured = Measured::of(&attempts, outage, &flock.returns(back)).unwrap();
    let bands = Band::all(&forecasts, &measured);
    bands.iter().for_each(|band| println!("{band}"));
    println!("longest standstill of the machine while they came: {late:?}");
    let wrong = flock.audit(&emulator).await;
    assert!(wrong.is_empty(), "{wrong:#?}");
    let [peak, steady @ ..] = &bands;
    let compared = steady.iter().chain((late <= STANDSTILL).then_some(peak));
    let far: Vec<String> =
        compared.filter(|band| band.deviation().abs() > TOLERANCE).map(ToString::to_string).collect();
    assert!(far.is_empty(), "the simulator and the sockets disagree: {far:#?}");
    emulator.stop().await;
}
