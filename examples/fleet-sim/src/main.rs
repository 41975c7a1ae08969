//! A fleet of devices in virtual time, each with the real link.
#![expect(
    clippy::cast_possible_truncation,
    reason = "figures of the simulation stay far below the limits of their types"
)]
#![expect(clippy::print_stdout, reason = "printing tables is what it is for")]

mod client;
mod dice;
mod fleet;
mod ours;
mod peers;
mod service;
mod wheel;

fn main() {
    let config = steadfast_core::Config::new(
        steadfast_core::Service::Hub { host: "west.azure-devices.net", device_id: "device" },
        steadfast_core::Credential::Certificate,
    );
    println!("{}", ours::Ours::size());
    let devices: u32 = std::env::args().nth(1).and_then(|a| a.parse().ok()).unwrap_or(10_000);
    let d: f64 = std::env::args().nth(2).and_then(|a| a.parse().ok()).unwrap_or(1000.0);
    let scenario = fleet::Scenario::outage(devices, d, 5.0, service::Model::Bucket { burst_secs: 1.0 });
    let show = |name: &str, outcome: &fleet::Outcome, t: std::time::Instant| {
        let d = scenario.ideal_secs();
        println!(
            "{name}: t50 {:.2} t99 {:.2} t100 {:.2} attempts {:.2}/{} peak {:.0} R events {} {:?}",
            outcome.back_secs(0.5).unwrap_or(f64::NAN) / d,
            outcome.back_secs(0.99).unwrap_or(f64::NAN) / d,
            outcome.back_secs(1.0).unwrap_or(f64::NAN) / d,
            outcome.mean_attempts(),
            outcome.attempts_quantile(0.99),
            f64::from(outcome.peak()) / scenario.rate,
            outcome.events,
            t.elapsed()
        );
    };
    let t = std::time::Instant::now();
    let outcome = fleet::run(&scenario, 1, |dice| ours::Ours::settled(&config, fleet::LOSS, dice), &mut |_, _| {});
    show("ours", &outcome, t);
    if devices > 100_000 {
        return;
    }
    for peer in peers::Peer::ALL {
        let settings = peers::PeerSettings { peer, connect_ms: 10_000, connack_ms: 10_000, provision_after: None };
        let t = std::time::Instant::now();
        let outcome = fleet::run(&scenario, 1, |_| peers::PeerDevice::settled(&settings), &mut |_, _| {});
        show(peer.name(), &outcome, t);
    }
}
