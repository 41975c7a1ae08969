//! A Plug and Play thermostat (model `dtmi:com:example:Thermostat;1`): telemetry, a writable property that is
//! acknowledged, properties it reports, a command.
//!
//! `cargo run --release -p examples --bin twin-thermostat`

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use examples::{Outcome, Place, local, narrate, say};
use serde_json::{Value, json};
use steadfast::{Desired, Device, MethodAnswer, Methods, Telemetry, pnp};

const MODEL: &str = "dtmi:com:example:Thermostat;1";

struct Thermostat {
    celsius: f64,
    target: f64,
    lowest: f64,
    highest: f64,
    /// Versions of the desired properties that were applied.
    applied: Vec<u64>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome {
    let place = Place::with_key().await?;
    let (device, driver) = place
        .builder_announcing(&json!({ "modelId": MODEL }).to_string()) // `Dps::payload`
        .model_id(MODEL) // at each CONNECT
        .build()?;
    narrate(&device);
    let driver = tokio::spawn(driver);

    let begin = Thermostat { celsius: 21.0, target: 21.0, lowest: 21.0, highest: 21.0, applied: Vec::new() };
    let thermostat = Arc::new(Mutex::new(begin));
    let work = async {
        tokio::try_join!(heat(&device, &thermostat), obey(&device, &thermostat), serve(&device, &thermostat)).map(drop)
    };
    let applied = || with(&thermostat, |thermostat| thermostat.applied.clone());
    let told = place.run(work, async |local| local::twin_thermostat(local, applied).await).await;

    let books = device.stop(Duration::from_secs(10)).await;
    driver.await?;
    told?;
    place.check(&books)
}

fn with<T>(thermostat: &Mutex<Thermostat>, act: impl FnOnce(&mut Thermostat) -> T) -> T {
    act(&mut thermostat.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Heats or cools, measures, and reports each new maximum, whether the link is up or not: queued reports are merged.
async fn heat(device: &Device, thermostat: &Mutex<Thermostat>) -> Outcome {
    drop(device.twin().report(&json!({ "serialNumber": "T-1000" }).to_string())?);
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    loop {
        ticks.tick().await;
        let (celsius, record) = with(thermostat, |state| {
            state.celsius += (state.target - state.celsius).clamp(-0.25, 0.25);
            state.lowest = state.lowest.min(state.celsius);
            let record = state.celsius > state.highest;
            state.highest = state.highest.max(state.celsius);
            (state.celsius, record)
        });
        drop(device.send(&Telemetry::json_of(&json!({ "temperature": celsius }))?).await?);
        if record {
            // The returned future completes when the hub has it.
            drop(device.twin().report(&json!({ "maxTempSinceLastReboot": celsius }).to_string())?);
        }
    }
}

/// Applies the desired `targetTemperature`, and acknowledges each with value, status, version and description.
async fn obey(device: &Device, thermostat: &Mutex<Thermostat>) -> Outcome {
    let mut changes = device.twin().desired();
    while let Some(change) = changes.next().await {
        // After missed patches it is the whole set; no version is delivered twice.
        let (version, document) = match &change {
            Desired::Full(twin) => (twin.desired_version, &twin.desired),
            Desired::Patch { version, patch } => (*version, patch),
            _ => continue,
        };
        let desired: Value = serde_json::from_str(document)?;
        let wish = &desired["targetTemperature"];
        let acknowledgement = match wish.as_f64() {
            Some(target @ 5.0..=35.0) => {
                with(thermostat, |state| {
                    state.target = target;
                    state.applied.push(version);
                });
                say("device", format_args!("heads for {target}, as version {version} wishes"));
                json!({ "value": target, "ac": pnp::APPLIED, "av": version, "ad": "on its way" })
            }
            _ if !wish.is_null() => {
                let kept = with(thermostat, |state| state.target);
                say("device", format_args!("refuses {wish} of version {version}"));
                json!({ "value": kept, "ac": pnp::REJECTED, "av": version, "ad": "5 to 35 degrees" })
            }
            // No desired value yet: the initial value, with version 0.
            _ if matches!(change, Desired::Full(_)) => {
                let own = with(thermostat, |state| state.target);
                json!({ "value": own, "ac": pnp::INITIAL, "av": 0, "ad": "initial value" })
            }
            _ => continue,
        };
        drop(device.twin().report(&json!({ "targetTemperature": acknowledgement }).to_string())?);
    }
    Ok(())
}

/// Answers the command of the model.
async fn serve(device: &Device, thermostat: &Arc<Mutex<Thermostat>>) -> Outcome {
    let thermostat = Arc::clone(thermostat);
    let commands = Methods::new().on("getMaxMinReport", move |_since| {
        let report = with(&thermostat, |state| json!({ "maxTemp": state.highest, "minTemp": state.lowest }));
        async move { MethodAnswer::ok(report.to_string()) }
    });
    commands.serve(device).await;
    Ok(())
}
