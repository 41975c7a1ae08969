//! Breaks an upload in the middle, and looks at the file that arrives.

use hub_emulator::{Fault, Injection};

use super::{DEVICE, Local, ensure};
use crate::{Outcome, say};

/// Plays the hub and its storage for a device that uploads `content` under `name`.
///
/// # Errors
/// When the file does not arrive, or is another one.
pub async fn file_upload(local: &Local, name: &str, content: &[u8]) -> Outcome {
    local.emulator.inject(Injection::once(Fault::StorageDrop { bytes: 70_000 }).after(1));
    local.emulator.inject(Injection::once(Fault::StorageStatus { status: 503 }).after(3));
    local.until("the file arrives", |_| local.emulator.uploaded(DEVICE, name).is_some()).await?;
    let arrived = local.emulator.uploaded(DEVICE, name).unwrap_or_default();
    ensure(arrived == content, "the storage has another file")?;
    say("cloud", format_args!("the storage has {} bytes, all of them right", arrived.len()));
    Ok(())
}
