//! rumqttc over TLS 1.3 as a peer of the benchmark; it takes an order and prints an answer as every peer does.

#[path = "../../src/meter.rs"]
mod meter;
#[path = "../../src/order.rs"]
#[expect(dead_code, reason = "the benchmark itself writes the arguments that are read here")]
mod order;
#[path = "../../src/rumqttc_peer.rs"]
mod rumqttc_peer;
#[path = "../../src/trust.rs"]
mod trust;

use clap::Parser;
use rumqttc::{TlsConfiguration, Transport};
use std::process::ExitCode;

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    order: order::Order,
}

fn main() -> ExitCode {
    match run(&Arguments::parse().order) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("tls-peer: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(order: &order::Order) -> Result<(), String> {
    let ca = order.ca.as_ref().ok_or("this peer speaks TLS only: give --ca")?;
    let transport = Transport::tls_with_config(TlsConfiguration::Rustls(trust::client_config(ca)?));
    rumqttc_peer::run(order, &transport)?.print()
}
