//! Boots a firmware image under QEMU against the local hub, takes the hub down, moves the device, sends it a message, and
//! asks the hub's ledger whether everything the image accepted has come.
//!
//! Usage: `firmware-judge IMAGE`. It ends with 0 when the story is as it should be.
#![expect(clippy::print_stdout, reason = "the verdict is the product")]

use std::process::{ExitCode, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hub_emulator::{Config, DpsConfig, Emulator, Enrollment, Key};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

const DEVICE: &str = "pump-7";

/// Messages the image is told to send.
const MESSAGES: u32 = 60;

/// What the image knows, too: 32 bytes 0x07.
const KEY: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";

/// The image gives up by itself before that.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where the image looks for its orders.
const ORDERS: u64 = 0x8080_0000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Some(image) = std::env::args().nth(1) else {
        eprintln!("usage: firmware-judge IMAGE");
        return ExitCode::from(2);
    };
    match judge(&image).await {
        Ok(verdict) => {
            println!("{verdict}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("firmware: {why}");
            ExitCode::FAILURE
        }
    }
}

async fn judge(image: &str) -> Result<String, String> {
    let key = Key::from_base64(KEY).map_err(|error| format!("key: {error}"))?;
    let config = Config::new()
        .hub("hub-a")
        .hub("hub-b")
        .dps(DpsConfig::new().retry_after(1))
        .enroll(Enrollment::individual(DEVICE, key))
        .plain_port(0);
    let emulator = Emulator::start(config).await.map_err(|error| format!("emulator: {error}"))?;
    let port = emulator.plain_addr().ok_or("the emulator has no plain port")?.port();

    let begun = Instant::now();
    let mut child = boot(image, port)?;
    let output = child.stdout.take().ok_or("QEMU has no output")?;
    let said = tokio::spawn(async move {
        let (mut lines, mut said) = (BufReader::new(output).lines(), Vec::new());
        while let Ok(Some(line)) = lines.next_line().await {
            println!("  | {line}");
            said.push(line);
        }
        said
    });
    let story = tell(&emulator, &mut child);
    let told = timeout(PATIENCE, story).await.unwrap_or_else(|_| Err("the story did not go on".into()));
    let ended = match told {
        Ok(()) => timeout(PATIENCE.saturating_sub(begun.elapsed()), child.wait()).await,
        Err(_) => timeout(Duration::from_millis(200), child.wait()).await,
    };
    if ended.is_err() {
        child.kill().await.map_err(|error| format!("QEMU: {error}"))?;
    }
    let said = said.await.map_err(|error| format!("output: {error}"))?;
    told?;
    let status = ended.map_err(|_| "the image did not end")?.map_err(|error| format!("QEMU: {error}"))?;
    if !status.success() {
        return Err(format!("the image failed: QEMU ended with {status}"));
    }
    let verdict = check(&emulator, &said)?;
    emulator.stop().await;
    Ok(format!("{verdict}, {:.1} s from power-on to the end", begun.elapsed().as_secs_f64()))
}

fn boot(image: &str, port: u16) -> Result<Child, String> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut command = Command::new("qemu-system-riscv32");
    command.args("-M virt -bios none -m 16 -display none -monitor none -serial stdio".split(' '));
    command.args("-netdev user,id=n0 -device virtio-net-device,netdev=n0 -kernel".split(' ')).arg(image);
    let words = [u64::from(port), u64::from(MESSAGES), u64::from(since.subsec_nanos()), since.as_secs() & 0xffff_ffff];
    for (address, word) in (ORDERS..).step_by(4).zip(words) {
        command.arg("-device").arg(format!("loader,addr={address:#x},data={word:#x},data-len=4"));
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    command.spawn().map_err(|error| format!("qemu-system-riscv32 does not start: {error}"))
}

/// Does to the device what the world does to devices.
async fn tell(emulator: &Emulator, child: &mut Child) -> Result<(), String> {
    let count = || emulator.ledger().counts(DEVICE).distinct;
    wait(child, "the first messages", || count() >= 10).await?;
    let hub = emulator.hub("hub-a");
    hub.down().map_err(|error| error.to_string())?;
    println!("  hub-a is down after {} messages", count());
    sleep(Duration::from_secs(2)).await;
    hub.up().map_err(|error| error.to_string())?;
    println!("  hub-a is up again");
    let before = count();
    wait(child, "messages after the outage", || count() >= before + 10).await?;

    let device = hub.device(DEVICE);
    device.send(&[("k", "v")], b"open the valve").map_err(|error| error.to_string())?;
    wait(child, "the acknowledgement of the message to the device", || device.waiting().is_ok_and(|left| left == 0))
        .await?;
    println!("  the device has acknowledged its message");

    emulator.move_device(DEVICE, "hub-a", "hub-b").map_err(|error| error.to_string())?;
    println!("  the device belongs to hub-b after {} messages", count());
    wait(child, "all messages", || count() >= u64::from(MESSAGES)).await
}

async fn wait(child: &mut Child, what: &str, there: impl Fn() -> bool) -> Result<(), String> {
    let until = Instant::now() + PATIENCE;
    while !there() {
        if let Ok(Some(status)) = child.try_wait() {
            return Err(format!("the image ended ({status}) before {what}"));
        }
        if Instant::now() >= until {
            return Err(format!("{what} did not come"));
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

fn check(emulator: &Emulator, said: &[String]) -> Result<String, String> {
    let accepted: Vec<&str> =
        said.iter().filter_map(|line| line.strip_prefix("accepted ")).filter(|id| id.len() == 16).collect();
    if accepted.len() != MESSAGES as usize {
        return Err(format!("the image accepted {} messages, not {MESSAGES}", accepted.len()));
    }
    let report = emulator.ledger().check(DEVICE, accepted);
    if !report.is_complete() {
        return Err(format!("the ledger disagrees: {report}"));
    }
    let hubs = |name: &str| {
        let messages = emulator.ledger().messages(DEVICE);
        messages.iter().filter(|receipt| receipt.hub.starts_with(name)).count()
    };
    let (first, second) = (hubs("hub-a"), hubs("hub-b"));
    if first == 0 || second == 0 {
        return Err(format!("hub-a stored {first} messages and hub-b {second}"));
    }
    if emulator.dps().registration_count(DEVICE) < 2 {
        return Err("the device did not register again".into());
    }
    let memory = said.iter().find(|line| line.starts_with("memory: ")).ok_or("the image did not measure its memory")?;
    let device = said.iter().find(|line| line.starts_with("device: ")).ok_or("the image did not measure its device")?;
    Ok(format!("{MESSAGES} accepted; ledger: {report}; hub-a {first}, hub-b {second}; {device}; {memory}"))
}
