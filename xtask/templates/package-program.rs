//! A program with the packaged libraries: a device of each kind, and no network.

use std::time::Duration;

use steadfast::{Device, TopicMessage};
use steadfast_core::{Broker, Checked, Config, Credential, Instant, Link, RamOutbox, Seed, Service};
use steadfast_esp32::Buffers;

static CONFIG: Checked =
    Config::new(Service::Broker { host: "broker.example", client_id: "pump-7" }, Credential::Anonymous).checked();

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::builder().broker("localhost", "pump-7").anonymous().plaintext_unprotected().spawn()?;
    // It waits in the outbox: nobody answers.
    let receipt = device.send(TopicMessage::new("pumps/7", "21.5")).await?;
    let ledger = device.stop(Duration::ZERO).await;
    assert!(receipt.delivered().await.is_err());

    let _ = Buffers { rx: &mut [0; 64], tx: &mut [0; 64] };
    let profile = Broker::new(&CONFIG, [0; 64]);
    let link = Link::new(profile, RamOutbox::<4, 256>::new(), Seed::from_number(7), Instant::ORIGIN)?;
    let status = link.status().to_string();
    let state = status.split_whitespace().next().unwrap_or_default();
    println!("{} accepted, {} queued; firmware: {state}", ledger.accepted, ledger.queued);
    Ok(())
}
