//! Authenticates with an X.509 certificate in PEM files, which can be replaced while the device runs.
//!
//! `cargo run --release -p examples --bin x509`

use std::time::Duration;

use examples::{Outcome, Place, local, narrate};
use serde_json::json;
use steadfast::{ClientCertificate, Device, Telemetry};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome {
    let (place, files) = Place::with_certificate().await?;
    // The files are read again at each connection attempt: to renew the certificate, replace each by a rename.
    let certificate = ClientCertificate::from_files(&files.chain, &files.key);
    let (device, driver) = place.builder().client_certificate(certificate).build()?;
    narrate(&device);
    let driver = tokio::spawn(driver);

    let told = place.run(measure(&device), local::x509).await;

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
