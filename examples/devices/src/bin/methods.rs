//! Answers direct methods: each has a handler, JSON in and JSON out; unknown methods get 404.
//!
//! `cargo run --release -p examples --bin methods`

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use examples::{Outcome, Place, local, narrate, say};
use serde_json::{Value, json};
use steadfast::{Device, MethodAnswer, Methods, Telemetry};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome {
    let place = Place::with_key().await?;
    let (device, driver) = place.builder().build()?;
    narrate(&device);
    let driver = tokio::spawn(driver);

    let interval = Arc::new(AtomicU64::new(500));
    let methods = methods(&interval);
    let serve = async {
        // Runs until the driver ends. Handlers run concurrently, each with a timeout of 30 s by default.
        methods.serve(&device).await;
        Ok(())
    };
    let work = async { tokio::try_join!(serve, measure(&device, &interval)).map(drop) };
    let told = place.run(work, local::methods).await;

    let books = device.stop(Duration::from_secs(10)).await;
    driver.await?;
    told?;
    place.check(&books)
}

fn methods(interval: &Arc<AtomicU64>) -> Methods {
    let (read, write) = (Arc::clone(interval), Arc::clone(interval));
    Methods::new()
        .on("getStatus", move |_| {
            let status = json!({ "milliseconds": read.load(Ordering::Relaxed), "version": env!("CARGO_PKG_VERSION") });
            async move { MethodAnswer::ok(status.to_string()) }
        })
        // A body that is no JSON is answered with 400 and the reason; `T` can be any type that serde reads.
        .on_json("setInterval", move |wish: Value| {
            let interval = Arc::clone(&write);
            async move { set_interval(&interval, &wish) }
        })
}

fn set_interval(interval: &AtomicU64, wish: &Value) -> Result<Value, MethodAnswer> {
    let Some(milliseconds @ 10..=60_000) = wish["milliseconds"].as_u64() else {
        return Err(MethodAnswer::json_of(400, &json!({ "problem": "milliseconds must be 10 to 60000" })));
    };
    let before = interval.swap(milliseconds, Ordering::Relaxed);
    say("device", format_args!("measures every {milliseconds} ms"));
    Ok(json!({ "before": before }))
}

async fn measure(device: &Device, interval: &AtomicU64) -> Outcome {
    loop {
        drop(device.send(&Telemetry::json_of(&json!({ "celsius": 21.5 }))?).await?);
        tokio::time::sleep(Duration::from_millis(interval.load(Ordering::Relaxed))).await;
    }
}
