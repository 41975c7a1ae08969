//! What stays in the memory of a process once a device and its driver are gone.
#![cfg(target_os = "linux")]
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails where it is, and its child tells what it found"
)]

mod support;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use steadfast::{Builder, Device, Message};
use support::{Server, hasty, soon};

/// Tells the child of this test what device it is.
const CHILD: &str = "STEADFAST_FORGOTTEN_CHILD";

/// What the child's password is made of, not to be found in it before.
const MASK: u8 = 0x5a;

/// Bytes of a secret that are looked for; of what was freed some are the allocator's.
const WINDOW: usize = 16;

fn hidden(secret: &[u8]) -> Vec<u8> {
    secret.iter().map(|byte| byte ^ MASK).collect()
}

/// Whether a part of the secret is in the memory of this process.
fn is_in_memory(hidden: &[u8]) -> bool {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mut memory = File::open("/proc/self/mem").unwrap();
    let mut page = vec![0; 64 * 1024];
    for line in maps.lines().filter(|line| line.contains(" rw") && !line.contains("[v")) {
        let (from, rest) = line.split_once('-').unwrap();
        let end = u64::from_str_radix(rest.split(' ').next().unwrap(), 16).unwrap();
        let mut at = u64::from_str_radix(from, 16).unwrap();
        while at < end {
            let len = usize::try_from(end - at).unwrap().min(page.len());
            memory.seek(SeekFrom::Start(at)).unwrap();
            if memory.read_exact(&mut page[..len]).is_err() {
                break;
            }
            for window in page[..len].windows(WINDOW) {
                let is_part = |part: &[u8]| part.iter().zip(window).all(|(one, other)| one ^ MASK == *other);
                if hidden.chunks_exact(WINDOW).any(is_part) {
                    return true;
                }
            }
            page.fill(0);
            at += u64::try_from(len).unwrap();
        }
    }
    false
}

fn device(kind: &str, address: std::net::SocketAddr) -> Builder {
    // Neither is in the program as it is.
    let secret: String =
        (0..4).map(|part| format!("{:016x}", (part + 3_u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
    let secret = zeroize::Zeroizing::new(secret);
    let builder = match kind {
        "key" => Device::builder().hub("hub.example", "d").shared_key("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="),
        "token" => {
            let token = zeroize::Zeroizing::new(format!(
                "SharedAccessSignature sr=hub.example%2Fdevices%2Fd&sig={}&se=4102444800",
                *secret
            ));
            Device::builder().hub("hub.example", "d").token(&token)
        }
        _ => Device::builder().broker("hub.example", "d").password("user", &secret),
    };
    builder.resolve("hub.example", [address]).plaintext_unprotected().retry(hasty())
}

/// A device that delivers messages and stops; then it looks for the secret that it is told.
async fn child(kind: &str) {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    let (device, driver) = device(kind, line.trim().parse().unwrap()).build().unwrap();
    let driver = tokio::spawn(driver);
    for _ in 0..2 {
        let message = if kind == "password" { Message::to_topic("t", b"x") } else { Message::telemetry("", b"x") };
        soon(soon(device.send(message)).await.unwrap().delivered()).await.unwrap();
    }
    soon(device.stop(Duration::from_secs(1))).await;
    soon(driver).await.unwrap();
    drop(device);
    println!("gone");
    line.clear();
    std::io::stdin().read_line(&mut line).unwrap();
    let hidden: Vec<u8> = line.trim().split(' ').map(|byte| byte.parse().unwrap()).collect();
    println!("{}", if is_in_memory(&hidden) { "found" } else { "forgotten" });
}

#[tokio::test]
async fn the_child_of_the_other_test() {
    if let Ok(kind) = std::env::var(CHILD) {
        child(&kind).await;
    }
}

#[tokio::test]
async fn no_token_and_no_password_stays_in_memory_when_the_device_is_gone() {
    for kind in ["key", "token", "password"] {
        let server = Server::start().await;
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_child_of_the_other_test", "--nocapture"])
            .env(CHILD, kind)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        writeln!(input, "{}", server.address).unwrap();
        let mut peer = server.accept().await;
        let password = peer.welcome(false).await.login.unwrap().password;
        let (received, goodbye) = peer.serve().await;
        assert_eq!((received.len(), goodbye), (2, true));
        assert!(output.any(|line| line.ends_with("gone")));
        let secret = password.split("sig=").last().unwrap().split('&').next().unwrap();
        let bytes: Vec<String> = hidden(secret.as_bytes()).iter().map(u8::to_string).collect();
        writeln!(input, "{}", bytes.join(" ")).unwrap();
        let verdict = output.find(|line| line.ends_with("found") || line.ends_with("forgotten")).unwrap();
        assert!(verdict.ends_with("forgotten"), "of a {kind} something is left in memory");
        assert!(child.wait().unwrap().success());
    }
}
