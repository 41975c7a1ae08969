//! Plays the Edge device: the workload API, the gateway, and a module before this one.

use std::time::Duration;

use hub_emulator::{Ledger, MessageToDevice, Receipt, WorkloadApi};
use serde_json::json;

use super::{GATEWAY, GENERATION, HUB, Local, MODULE, ensure, key};
use crate::{Outcome, say};

/// Plays the Edge device for a module that was started before it.
///
/// # Errors
/// If an alarm does not arrive, or the module connects to something other than the gateway.
pub async fn edge_module(local: &Local) -> Outcome {
    say("edge", "boots; the module was faster");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let module_id = MODULE.rsplit('/').next().unwrap_or_default();
    let api = WorkloadApi::start(local.socket(), module_id, GENERATION, key(), local.emulator.ca_pem())?;
    say("edge", "the workload API is there");
    local.until("the module connects", |_| local.device().is_connected()).await?;
    readings(local, &[21.5, 31.0, 22.0, 35.5]).await?;
    local.cut().await?;
    readings(local, &[30.5]).await?;
    let signatures = api.requests().iter().filter(|request| request.starts_with("POST")).count();
    say("edge", format_args!("the module asked for {signatures} signatures"));
    for connection in local.emulator.ledger().connections_of(MODULE) {
        let dialled = connection.server_name.as_deref();
        let user_name = connection.user_name.as_deref().unwrap_or_default();
        ensure(dialled == Some(GATEWAY), format!("the module connected to {dialled:?}"))?;
        ensure(user_name.starts_with(&format!("{HUB}/{MODULE}/")), format!("the user name is {user_name:?}"))?;
    }
    Ok(())
}

/// Routes readings to the module, and waits for an alarm for each that is too warm.
async fn readings(local: &Local, readings: &[f64]) -> Outcome {
    for celsius in readings {
        say("edge", format_args!("routes {celsius} degrees to the module"));
        local.device().send_to_input("raw", MessageToDevice::new(reading(*celsius)))?;
    }
    let has_alarm = |ledger: &Ledger, celsius: f64| {
        let alarm = reading(celsius);
        let is_alarm = |message: &Receipt| message.output() == Some("alarms") && message.payload == alarm.as_bytes();
        ledger.messages(MODULE).iter().any(is_alarm)
    };
    let warm = || readings.iter().filter(|celsius| **celsius > 30.0);
    local.until("the alarms arrive", |ledger| warm().all(|celsius| has_alarm(ledger, *celsius))).await
}

fn reading(celsius: f64) -> String {
    json!({ "celsius": celsius }).to_string()
}
