//! Simulates the gateway: its own name, with the hub's devices behind it.

use super::{DEVICE, GATEWAY, HUB, Local, ensure};
use crate::{Outcome, say};

/// Plays the gateway and the hub for a device behind it.
///
/// # Errors
/// If the device connects to something other than the gateway, or names something other than its hub.
pub async fn gateway_leaf(local: &Local) -> Outcome {
    local.more_messages(5).await?;
    local.cut().await?;
    local.more_messages(5).await?;
    for connection in local.emulator.ledger().connections_of(DEVICE) {
        let dialled = connection.server_name.as_deref();
        let user_name = connection.user_name.as_deref().unwrap_or_default();
        ensure(dialled == Some(GATEWAY), format!("the device connected to {dialled:?}"))?;
        ensure(user_name.starts_with(&format!("{HUB}/{DEVICE}/")), format!("the user name is {user_name:?}"))?;
    }
    say("cloud", format_args!("the device connected to {GATEWAY} each time, and named its hub {HUB}"));
    Ok(())
}
