//! A device behind an IoT Edge gateway: it connects to the gateway, trusts the gateway's roots, and authenticates to
//! its hub.
//!
//! `cargo run --release -p examples --bin gateway-leaf`

use std::time::Duration;

use examples::{Outcome, Place, local, narrate};
use serde_json::json;
use steadfast::{Device, Telemetry, Tls};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome {
    let (place, roots) = Place::behind_gateway().await?;
    let (device, driver) = place
        .builder() // the connection string's `GatewayHostName`, or `Builder::gateway`
        // The gateway's certificate chains to its own roots, in a file that is read again at each attempt.
        .tls(Tls::system().and_file(roots))
        .build()?;
    narrate(&device);
    let driver = tokio::spawn(driver);

    let told = place.run(measure(&device), local::gateway_leaf).await;

    let books = device.stop(Duration::from_secs(10)).await;
    driver.await?;
    told?;
    place.check(&books)
}

async fn measure(device: &Device) -> Outcome {
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    loop {
        ticks.tick().await;
        drop(device.send(&Telemetry::json_of(&json!({ "celsius": 21.5 }))?).await?);
    }
}
