//! Sends readings as JSON, urgent alarms that overtake them, and live values that expire quickly.
//!
//! `cargo run --release -p examples --bin telemetry`

use std::time::Duration;

use examples::{Outcome, Place, local, narrate, say};
use serde_json::json;
use steadfast::{Device, Receipt, Telemetry};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome {
    let place = Place::with_key().await?;
    let (device, driver) = place
        .builder() // `Device::builder().connection_string(&text)` in a program of your own
        .stamp_creation_time(true) // a reading that waits through an outage keeps its time
        .build()?;
    narrate(&device);
    let driver = tokio::spawn(driver);

    let told = place.run(measure(&device), local::telemetry).await;

    // Sends queued messages for at most ten seconds, and disconnects.
    let books = device.stop(Duration::from_secs(10)).await;
    driver.await?;
    told?;
    place.check(&books)
}

async fn measure(device: &Device) -> Outcome {
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    let mut seq = 0_u32;
    loop {
        ticks.tick().await;
        let (kind, message) = message(seq)?;
        // Accepted: from here on the message is the link's business. Waits only when the outbox is full.
        let receipt = device.send(&message).await?;
        tokio::spawn(follow(kind, seq, receipt));
        seq += 1;
    }
}

fn message(seq: u32) -> Outcome<(&'static str, Telemetry)> {
    // `json_of` sets content type and encoding too, so that routes of the hub can look into the body.
    let reading = Telemetry::json_of(&json!({ "celsius": 20 + seq % 5 }))?.property("seq", &seq.to_string())?;
    Ok(match seq % 10 {
        // A live value: obsolete after half a second.
        3 | 6 => ("live", reading.property("kind", "live")?.expires_after(Duration::from_millis(500))),
        // Sent before all queued messages, also after an outage.
        9 => ("alarm", reading.property("kind", "alarm")?.urgent()),
        _ => ("reading", reading.property("kind", "reading")?),
    })
}

/// Awaits the outcome of a message. Programs that do not need it drop the receipt.
async fn follow(kind: &str, seq: u32, receipt: Receipt) {
    match receipt.delivered().await {
        Ok(()) if kind == "alarm" => say("device", format_args!("alarm {seq} is with the hub")),
        Ok(()) => {}
        Err(why) => say("device", format_args!("{kind} {seq}: {why}")),
    }
}
