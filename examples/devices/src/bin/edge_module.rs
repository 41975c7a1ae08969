//! An IoT Edge module: its identity comes from the environment, the Edge device signs its tokens, and readings on its
//! input `raw` that are too warm go to its output `alarms`.
//!
//! `cargo run --release -p examples --bin edge-module`

use std::time::Duration;

use examples::{Outcome, Place, local, narrate, say};
use serde_json::Value;
use steadfast::{Device, Inbound, Telemetry};

/// Too warm, in degrees Celsius.
const LIMIT: f64 = 30.0;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome {
    let place = Place::of_module().await?;
    let (module, driver) = place
        .builder() // `Device::from_edge_environment()`
        .build()?;
    narrate(&module);
    let driver = tokio::spawn(driver);

    let told = place.run(filter(&module), local::edge_module).await;

    let books = module.stop(Duration::from_secs(10)).await;
    driver.await?;
    told?;
    place.check(&books)
}

async fn filter(module: &Device) -> Outcome {
    let mut messages = module.messages();
    while let Some(message) = messages.next().await {
        if let Some(warm) = too_warm(&message) {
            say("module", format_args!("{warm} degrees: an alarm"));
            let alarm = Telemetry::json(String::from_utf8_lossy(message.payload())).output_name("alarms")?;
            // The gateway has the alarm before it hears that the message is dealt with.
            module.send(&alarm).await?.delivered().await?;
        }
        message.acknowledge();
    }
    Ok(())
}

fn too_warm(message: &Inbound) -> Option<f64> {
    let reading: Value = serde_json::from_slice(message.payload()).ok().filter(|_| message.input() == Some("raw"))?;
    reading["celsius"].as_f64().filter(|warm| *warm > LIMIT)
}
