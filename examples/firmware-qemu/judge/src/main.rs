//! Boots a firmware image under QEMU against the local hub, takes the hub down, moves the device, sends it a message, and
//! asks the hub's ledger whether everything the image accepted has come.
//!
//! Usage: `firmware-judge [--tls] [--stack-bound BYTES] IMAGE`. With `--tls` the image speaks TLS, gets the certificate of
//! the local hub's authority, and must refuse hubs whose certificates are not what they should be. It ends with 0 when the
//! scenario is as it should be, and the stack within its bound.
#![expect(clippy::print_stdout, reason = "the verdict is the product")]

mod impostor;

use std::process::{ExitCode, Stdio};
use std::time::Duration;

use hub_emulator::{Config, DpsConfig, Emulator, Enrollment, Flaw, HubConfig, Key};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
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

/// Where the image looks for the certificate of the authority.
const AUTHORITY: u64 = 0x8080_1000;

/// Hubs that an image which checks certificates refuses, and what it calls the reason.
const STRANGERS: [(&str, Flaw, &str); 5] = [
    ("expired", Flaw::Expired, "the certificate has expired"),
    ("not-yet-valid", Flaw::NotYetValid, "the certificate is not valid yet"),
    ("wrong-name", Flaw::WrongName, "the certificate is for another name"),
    ("self-signed", Flaw::SelfSigned, "no trusted root issued the certificate"),
    ("other-authority", Flaw::UnknownIssuer, "no trusted root issued the certificate"),
];

/// What the image calls the server that shows no certificate, and the reason to refuse it.
const NOBODY: (&str, &str) = ("nobody", "the handshake broke off");

/// What is to be done.
struct Case {
    image: String,
    tls: bool,
    stack_bound: Option<u64>,
}

impl Case {
    fn from_arguments(arguments: impl Iterator<Item = String>) -> Option<Self> {
        let (mut arguments, mut image, mut tls, mut stack_bound) = (arguments, None, false, None);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--tls" => tls = true,
                "--stack-bound" => stack_bound = Some(arguments.next()?.parse().ok()?),
                _ if image.is_none() => image = Some(argument),
                _ => return None,
            }
        }
        Some(Self { image: image?, tls, stack_bound })
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Some(case) = Case::from_arguments(std::env::args().skip(1)) else {
        eprintln!("usage: firmware-judge [--tls] [--stack-bound BYTES] IMAGE");
        return ExitCode::from(2);
    };
    match judge(&case).await {
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

async fn judge(case: &Case) -> Result<String, String> {
    let key = Key::from_base64(KEY).map_err(|error| format!("key: {error}"))?;
    let mut config = Config::new()
        .hub("hub-a")
        .hub("hub-b")
        .dps(DpsConfig::new().retry_after(1))
        .enroll(Enrollment::individual(DEVICE, key).hub("hub-a"));
    if case.tls {
        for (name, flaw, _) in STRANGERS {
            config = config.hub_with(HubConfig::new(name).certificate_flaw(flaw));
        }
    } else {
        config = config.plain_port(0);
    }
    let emulator = Emulator::start(config).await.map_err(|error| format!("emulator: {error}"))?;
    let address = if case.tls { Some(emulator.tls_addr()) } else { emulator.plain_addr() };
    let port = address.ok_or("the emulator has no plain port")?.port();
    let authority = if case.tls { Some(Authority::write(&emulator, &case.image)?) } else { None };

    let impostor = if case.tls { Some(impostor::Impostor::listen().await?) } else { None };
    let nobody = impostor.as_ref().map_or(0, |impostor| impostor.port);

    let begun = Instant::now();
    let mut child = boot(&case.image, [port, nobody], authority.as_ref())?;
    let output = child.stdout.take().ok_or("QEMU has no output")?;
    let said = tokio::spawn(async move {
        let (mut lines, mut said) = (BufReader::new(output).lines(), Vec::new());
        while let Ok(Some(line)) = lines.next_line().await {
            println!("  | {line}");
            said.push(line);
        }
        said
    });
    let scenario = tell(&emulator, &mut child);
    let told = timeout(PATIENCE, scenario).await.unwrap_or_else(|_| Err("the scenario did not go on".into()));
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
    if let Some(impostor) = impostor
        && !impostor.completed().await?
    {
        return Err("the image did not complete the handshake with a server that shows no certificate".into());
    }
    let verdict = check(&emulator, &said, case)?;
    emulator.stop().await;
    Ok(format!("{verdict}, {:.1} s from power-on to the end", begun.elapsed().as_secs_f64()))
}

/// The certificate of the emulator's authority, in a file that QEMU loads into the image's memory.
struct Authority {
    file: String,
    bytes: usize,
}

impl Authority {
    fn write(emulator: &Emulator, image: &str) -> Result<Self, String> {
        let der = CertificateDer::from_pem_slice(emulator.ca_pem().as_bytes());
        let der = der.map_err(|error| format!("the authority's certificate: {error}"))?;
        let file = format!("{image}.authority.der");
        std::fs::write(&file, &der).map_err(|error| format!("{file}: {error}"))?;
        Ok(Self { file, bytes: der.len() })
    }
}

fn boot(image: &str, [port, nobody]: [u16; 2], authority: Option<&Authority>) -> Result<Child, String> {
    let mut command = Command::new("qemu-system-riscv32");
    command.args("-M virt -bios none -m 16 -display none -monitor none -serial stdio".split(' '));
    command.args("-netdev user,id=n0 -device virtio-net-device,netdev=n0 -kernel".split(' ')).arg(image);
    command.args("-object rng-builtin,id=r0 -device virtio-rng-device,rng=r0".split(' '));
    if let Some(Authority { file, .. }) = authority {
        command.arg("-device").arg(format!("loader,file={file},addr={AUTHORITY:#x},force-raw=on"));
    }
    let authority_bytes = authority.map_or(0, |authority| authority.bytes);
    let words = [usize::from(port), MESSAGES as usize, authority_bytes, usize::from(nobody)];
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

fn check(emulator: &Emulator, said: &[String], case: &Case) -> Result<String, String> {
    if case.tls {
        for (name, reason) in STRANGERS.map(|(name, _, reason)| (name, reason)).into_iter().chain([NOBODY]) {
            let start = format!("stranger {name}.azure-devices.net: ");
            let outcome = said.iter().find_map(|line| line.strip_prefix(&start)).unwrap_or("not tried");
            if !outcome.contains(reason) {
                return Err(format!("the hub {name} was to be refused because {reason}; the image says: {outcome}"));
            }
        }
    }
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
    let used = memory.split_whitespace().nth(2).and_then(|word| word.parse::<u64>().ok());
    let used = used.ok_or_else(|| format!("the image says of its stack: {memory}"))?;
    if let Some(bound) = case.stack_bound.filter(|bound| used > *bound) {
        return Err(format!("{used} bytes of stack were used; the bound is {bound}"));
    }
    let refused = if case.tls { format!("{} strangers refused; ", STRANGERS.len() + 1) } else { String::new() };
    Ok(format!("{refused}{MESSAGES} accepted; ledger: {report}; hub-a {first}, hub-b {second}; {device}; {memory}"))
}
