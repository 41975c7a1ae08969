//! Uploads a file to the storage account of the device's hub, block by block, with retries after failures.
//!
//! `cargo run --release -p examples --bin file-upload`

use std::time::Duration;

use examples::{Outcome, Place, local, narrate, say};
use steadfast::{Device, UploadSource};

const NAME: &str = "logs/today.csv";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome {
    let place = Place::with_key().await?;
    let (device, driver) = place.builder().build()?;
    narrate(&device);
    let driver = tokio::spawn(driver);

    let content: Vec<u8> = (0..50_000_u32).flat_map(|line| format!("{line},21.5\n").into_bytes()).collect();
    let work = upload(&device, content.clone());
    let told = place.run(work, async |local| local::file_upload(local, NAME, &content).await).await;

    device.stop(Duration::from_secs(10)).await;
    driver.await?;
    told
}

async fn upload(device: &Device, content: Vec<u8>) -> Outcome {
    // `UploadSource::file` reads it from disk; one block at a time is in memory.
    let report = device
        .upload(NAME, UploadSource::bytes(content))
        .block_size(100_000)
        .on_progress(|so_far| {
            say("device", format_args!("{} bytes are there, after {} failures", so_far.bytes, so_far.failures));
        })
        .give_up_after(Duration::from_secs(600))
        .await?;
    say("device", format_args!("{} is uploaded: {} bytes in {} blocks", report.blob, report.bytes, report.blocks));
    Ok(())
}
