//! The main scenario in one command: devices provision, send, lose their connection and their hub, are moved to another
//! hub, and lose no message.
//!
//! The devices use `steadfast` over TLS; the IoT hubs and the Device Provisioning Service are the local ones of
//! `hub-emulator`, in this process. The exit code is 0 only if the service's own ledger confirms that nothing was lost,
//! reordered, or reported too early.
#![expect(clippy::print_stdout, reason = "printing the scenario is what it is for")]

mod narrator;
mod pump;
mod scenario;
mod verdict;

use std::process::ExitCode;

use clap::Parser;

/// Provisions devices, interrupts their hub in four different ways, and checks that no message was lost.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// How many devices.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=500))]
    devices: u16,

    /// Seed of the devices' jitter: the same seed draws the same delays.
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Messages each device sends in a second.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rate: u16,

    /// Divisor of the default policy's delays, so that the scenario takes about a minute. 1 takes several minutes.
    #[arg(long, default_value_t = scenario::DEFAULT_SPEED, value_parser = clap::value_parser!(u32).range(1..=1000))]
    speed: u32,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let options = Options::parse();
    match scenario::tell(&options).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("the scenario failed: {error}");
            ExitCode::from(2)
        }
    }
}
