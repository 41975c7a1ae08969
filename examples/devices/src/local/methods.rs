//! Calls the device's methods, one of them too many.

use serde_json::{Value, json};

use super::{Local, PATIENCE, ensure};
use crate::{Outcome, say};

/// Plays the cloud for a device with the methods `getStatus` and `setInterval`.
///
/// # Errors
/// If an answer is wrong or missing.
pub async fn methods(local: &Local) -> Outcome {
    local.more_messages(2).await?;
    ensure(call(local, "getStatus", json!(null)).await?.0 == 200, "getStatus failed")?;
    let (status, body) = call(local, "setInterval", json!({"milliseconds": 100})).await?;
    ensure(status == 200 && body["before"] == json!(500), "setInterval failed")?;
    ensure(call(local, "setInterval", json!({"milliseconds": "soon"})).await?.0 == 400, "nonsense was taken")?;
    ensure(call(local, "openTheDoor", json!({})).await?.0 == 404, "an unknown method was answered")?;
    local.cut().await?;
    let (status, body) = call(local, "getStatus", json!(null)).await?;
    ensure(status == 200 && body["milliseconds"] == json!(100), "getStatus forgot")?;
    local.more_messages(5).await
}

async fn call(local: &Local, method: &str, body: Value) -> Outcome<(i64, Value)> {
    // The hub holds a call for a device that is reconnecting.
    let answer = local.device().invoke_within(method, &body, PATIENCE, PATIENCE).await?;
    let told = if answer.payload.is_empty() { Value::Null } else { serde_json::from_slice(&answer.payload)? };
    say("cloud", format_args!("calls {method} with {body} and hears {} {told}", answer.status));
    Ok((answer.status, told))
}
