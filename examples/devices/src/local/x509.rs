//! Gives the device another certificate while it runs.

use hub_emulator::DeviceAuth;

use super::{DEVICE, Local, ensure};
use crate::{Outcome, say};

/// Plays the cloud for a device with a certificate in files.
///
/// # Errors
/// If the device does not reconnect with the new certificate.
pub async fn x509(local: &Local) -> Outcome {
    local.more_messages(5).await?;
    let new = local.new_certificate()?;
    say("cloud", "put another certificate and key into the device's files");
    let before = local.emulator.ledger().connections_of(DEVICE).len();
    // Closes the connection, which was opened with the old one.
    local.device().set_auth(DeviceAuth::Thumbprint { primary: new.thumbprint.clone(), secondary: None })?;
    say("cloud", "accepts only the new certificate from here on");
    local.more_messages(10).await?;
    ensure(local.emulator.ledger().connections_of(DEVICE).len() > before, "the device never came back")?;
    say("cloud", format_args!("the device is back with certificate {}...", &new.thumbprint[..16]));
    Ok(())
}
