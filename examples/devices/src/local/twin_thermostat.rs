//! Sets desired temperatures, some of them while the device is offline, and checks the reported ones.

use std::time::Duration;

use serde_json::{Value, json};

use super::{DEVICE, Local, PATIENCE, ensure};
use crate::{Outcome, say};

/// Simulates the cloud for the Plug and Play thermostat; `applied` receives the versions that it has applied.
///
/// # Errors
/// If a desired value is not acknowledged or is applied twice, or an expected result is missing.
pub async fn twin_thermostat(local: &Local, applied: impl Fn() -> Vec<u64>) -> Outcome {
    let device = local.device();
    local.until("the device reports who it is", |_| reported(local, "serialNumber").is_string()).await?;
    let model = device.model_id()?;
    say("cloud", format_args!("the device says it is a {}", model.as_deref().unwrap_or("?")));
    let registrations = local.emulator.dps().registrations();
    let announced = registrations.first().and_then(|registration| registration.payload.as_ref()?["modelId"].as_str());
    ensure(announced.is_some() && announced == model.as_deref(), "DPS and the hub did not receive the same model id")?;

    wish(local, &json!({"targetTemperature": 23.0}), 23.0, 200).await?;
    wish(local, &json!({"targetTemperature": 500.0}), 23.0, 400).await?;

    say("cloud", "stops the hub for 2 seconds, and sets 40 and then 26 meanwhile");
    let before = device.twin()?["reported"]["$version"].as_u64().unwrap_or(0);
    local.hub().down()?;
    device.set_desired(&json!({"targetTemperature": 40.0}))?;
    let last = device.set_desired(&json!({"targetTemperature": 26.0}))?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    local.hub().up()?;
    local
        .until("the desired value is acknowledged", |_| reported(local, "targetTemperature")["av"] == json!(last))
        .await?;
    let answer = reported(local, "targetTemperature");
    ensure(answer["value"] == json!(26.0) && answer["ac"] == json!(200), format!("the acknowledgement is {answer}"))?;
    local.until("it is warm", |_| reported(local, "maxTempSinceLastReboot").as_f64() >= Some(26.0)).await?;
    let versions = applied();
    ensure(versions.windows(2).all(|pair| pair[0] < pair[1]), format!("applied twice: {versions:?}"))?;
    ensure(!versions.contains(&(last - 1)) && versions.last() == Some(&last), format!("applied: {versions:?}"))?;
    let reports = device.twin()?["reported"]["$version"].as_u64().unwrap_or(0) - before;
    say("cloud", format_args!("26 was applied once, 40 never; it took {reports} patches of reported properties"));

    let since = json!("2020-01-01T00:00:00Z");
    let report = device.invoke("getMaxMinReport", &since, PATIENCE).await?;
    let body: Value = serde_json::from_slice(&report.payload)?;
    say("cloud", format_args!("getMaxMinReport: {} {body}", report.status));
    ensure(report.status == 200 && body["maxTemp"].as_f64() >= Some(26.0), "the report is wrong")?;
    let telemetry = local.emulator.ledger().messages(DEVICE);
    ensure(!telemetry.is_empty(), "no telemetry came")
}

/// Sets a desired value, and waits for the acknowledgement of its version.
async fn wish(local: &Local, patch: &Value, value: f64, status: u16) -> Outcome {
    let version = local.device().set_desired(patch)?;
    say("cloud", format_args!("wishes {patch}, version {version}"));
    local
        .until("the desired value is acknowledged", |_| reported(local, "targetTemperature")["av"] == json!(version))
        .await?;
    let answer = reported(local, "targetTemperature");
    say("cloud", format_args!("hears {answer}"));
    ensure(answer["value"] == json!(value) && answer["ac"] == json!(status), "that is the wrong answer")
}

fn reported(local: &Local, name: &str) -> Value {
    local.device().twin().map_or(Value::Null, |twin| twin["reported"][name].clone())
}
