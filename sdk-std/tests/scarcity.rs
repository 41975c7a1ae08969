//! Where the system gives no thread, or no answer. Each test runs again in a process of its own.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails where it is")]

mod support;

use std::io::Write;
use std::net::UdpSocket;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use steadfast::{Device, Failure, LocalFailure, Message, State, Tls};
use support::{Server, hasty, soon};

/// Says that this is the process of its own.
const INSIDE: &str = "STEADFAST_INSIDE";

fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

fn skip(test: &str, reason: &str) {
    let Some(path) = std::env::var_os("STEADFAST_SKIPS") else { return };
    let mut file = std::fs::File::options().append(true).create(true).open(path).unwrap();
    writeln!(file, "steadfast: {test}: {reason}").unwrap();
}

/// Names the one test to run again.
fn again(command: &mut Command, test: &str) {
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(INSIDE, "1").stdin(Stdio::null());
}

#[tokio::test]
async fn a_device_gets_up_once_threads_can_be_made_again() {
    const TEST: &str = "a_device_gets_up_once_threads_can_be_made_again";
    if !is_inside() {
        // The limit does not hold for root; another user may not reach where the program is.
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let program = directory.path().join("program");
        std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = Command::new(program);
        again(&mut command, TEST);
        if is_root() {
            command.uid(65_534).gid(65_534).current_dir("/");
        }
        assert!(command.status().unwrap().success());
        return;
    }
    let server = Server::start().await;
    let given = getrlimit(Resource::Nproc);
    setrlimit(Resource::Nproc, Rlimit { current: Some(1), maximum: given.maximum }).unwrap();
    assert!(std::thread::Builder::new().spawn(|| {}).is_err(), "the limit holds");
    let port = server.address.port();
    let pem = rcgen::generate_simple_self_signed(["broker.test".into()]).unwrap().cert.pem();
    let named = Device::builder().broker("localhost", "named").port(port).anonymous().retry(hasty());
    let (named, named_driver) = named.plaintext_unprotected().build().unwrap();
    let (secured, secured_driver) = Device::builder()
        .broker("broker.test", "secured")
        .resolve("broker.test", ["127.0.0.1:9".parse().unwrap()])
        .anonymous()
        .tls(Tls::without_system_roots().and_pem(pem))
        .retry(hasty())
        .build()
        .unwrap();
    let drivers = [tokio::spawn(named_driver), tokio::spawn(secured_driver)];
    for device in [&named, &secured] {
        let mut status = device.status_changes();
        let lacking = soon(status.wait_for(|status| status.failures > 1)).await.unwrap().clone();
        assert_eq!(lacking.last_failure, Some(Failure::Local(LocalFailure::Resources)));
    }
    let receipt = named.send(Message::to_topic("t", b"1")).await.unwrap();
    setrlimit(Resource::Nproc, given).unwrap();
    let mut status = secured.status_changes();
    let refused = Some(Failure::ConnectionRefused);
    soon(status.wait_for(|status| status.last_failure == refused)).await.unwrap();
    let mut peer = server.welcome(false).await;
    let publish = peer.publish().await;
    peer.ack(&publish).await;
    soon(receipt.delivered()).await.unwrap();
    assert!(drivers.iter().all(|driver| !driver.is_finished()));
}

#[tokio::test]
async fn the_process_ends_when_the_devices_have_stopped_whatever_the_name_server_does() {
    const TEST: &str = "the_process_ends_when_the_devices_have_stopped_whatever_the_name_server_does";
    const DEVICES: usize = 300;
    if !is_inside() {
        let resolver = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(resolver.path(), "nameserver 127.0.0.1\noptions timeout:30 attempts:3\n").unwrap();
        let mut command = Command::new("unshare");
        if !is_root() {
            command.arg("--map-root-user");
        }
        command.args(["--net", "--mount", "--", "sh", "-c"]);
        let set_up = "ip link set lo up && mount --bind \"$1\" /etc/resolv.conf";
        let probed = Command::new(command.get_program())
            .args(command.get_args())
            .args([set_up, "sh"])
            .arg(resolver.path())
            .output();
        if !probed.is_ok_and(|probed| probed.status.success()) {
            return skip(TEST, "no network namespaces");
        }
        command.arg(format!("{set_up} && shift && exec \"$@\"")).arg("sh").arg(resolver.path());
        command.arg(std::env::current_exe().unwrap());
        again(&mut command, TEST);
        let before = Instant::now();
        assert!(command.status().unwrap().success());
        // The resolver's own patience is 90 s.
        assert!(before.elapsed() < Duration::from_secs(45), "{:?}", before.elapsed());
        return;
    }
    let silent = UdpSocket::bind("127.0.0.1:53").unwrap();
    silent.set_nonblocking(true).unwrap();
    let mut devices = Vec::new();
    for number in 0..DEVICES {
        let builder = Device::builder().broker("hub.example", &format!("device-{number}")).anonymous();
        let (device, driver) = builder.plaintext_unprotected().retry(hasty()).build().unwrap();
        devices.push((device, tokio::spawn(driver)));
    }
    for (device, _) in &devices {
        soon(device.status_changes().wait_for(|status| status.state == State::Connecting)).await.unwrap();
    }
    let silent = tokio::net::UdpSocket::from_std(silent).unwrap();
    soon(silent.recv(&mut [0; 512])).await.unwrap();
    let threads = std::fs::read_dir("/proc/self/task").unwrap().count();
    assert!(threads <= 4, "{threads} threads for {DEVICES} devices");
    for (device, driver) in devices {
        soon(device.stop(Duration::from_secs(1))).await;
        soon(driver).await.unwrap();
    }
}
