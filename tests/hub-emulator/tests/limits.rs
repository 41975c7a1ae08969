//! Connections that never become a device: deadlines, limits, and a hub without descriptors.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test ends where something is not as expected"
)]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use hub_emulator::{CloseReason, ConnectionLimits, Emulator};
use support::{Client, DEVICE, HUB, SOON, config, connect_packet, eventually, key, start, tls_stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

async fn is_closed(stream: &mut TcpStream) -> bool {
    matches!(timeout(SOON, stream.read(&mut [0; 64])).await, Ok(Ok(0) | Err(_)))
}

async fn idle(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut streams = Vec::new();
    for _ in 0..count {
        streams.push(TcpStream::connect(address).await.unwrap());
    }
    streams
}

fn closed_because_of_limits(emulator: &Emulator) -> usize {
    let connections = emulator.ledger().connections();
    connections.iter().filter(|one| one.closed == Some(CloseReason::TooManyUnauthenticated)).count()
}

#[tokio::test]
async fn idle_connections_beyond_the_limit_end_oldest_first_and_devices_still_get_in() {
    let limits = ConnectionLimits::default().per_peer(20);
    let emulator = start(config().https_port(0).connection_limits(limits)).await;
    let mut early = Client::device(&emulator).await;
    let addresses = [emulator.tls_addr(), emulator.plain_addr().unwrap(), emulator.https_addr().unwrap()];
    let mut streams = Vec::new();
    for address in addresses {
        streams.extend(idle(address, 40).await);
    }
    eventually("the oldest are closed", || closed_because_of_limits(&emulator) == 100).await;
    for stream in &mut streams[..80] {
        assert!(is_closed(stream).await);
    }
    // A connected device counts no longer, however many sockets idle.
    early.send(rumqttc::mqttbytes::v4::Packet::PingReq).await;
    assert_eq!(early.packet().await, rumqttc::mqttbytes::v4::Packet::PingResp);
    let mut late = Client::plain(emulator.plain_addr().unwrap()).await;
    late.accepted(connect_packet()).await;
    assert_eq!(emulator.hub(HUB).connected().unwrap(), [DEVICE]);
    emulator.stop().await;
}

#[tokio::test]
async fn a_connection_ends_at_the_deadline_wherever_its_handshake_stands() {
    let limits = ConnectionLimits::default().handshake_timeout(Duration::from_millis(300));
    let emulator = start(config().connection_limits(limits)).await;
    let mut silent = TcpStream::connect(emulator.plain_addr().unwrap()).await.unwrap();
    let mut without_hello = TcpStream::connect(emulator.tls_addr()).await.unwrap();
    let mut without_connect = tls_stream(emulator.tls_addr(), emulator.ca_pem(), HUB, None).await.unwrap();
    let mut slow = TcpStream::connect(emulator.plain_addr().unwrap()).await.unwrap();
    let drip = tokio::spawn(async move {
        // The head of a CONNECT of 100 bytes, then one byte at a time.
        for byte in [0x10, 98].into_iter().chain(std::iter::repeat_n(0, 98)) {
            if slow.write_all(&[byte]).await.is_err() {
                return true;
            }
            sleep(Duration::from_millis(50)).await;
        }
        false
    });
    assert!(is_closed(&mut silent).await);
    assert!(is_closed(&mut without_hello).await);
    assert!(matches!(timeout(SOON, without_connect.read(&mut [0; 64])).await, Ok(Ok(0) | Err(_))));
    assert!(drip.await.unwrap());
    let device = Client::device(&emulator).await;
    // Nor does the deadline end what was accepted before it.
    sleep(Duration::from_millis(400)).await;
    assert_eq!(emulator.hub(HUB).connected().unwrap(), [DEVICE]);
    drop(device);
    emulator.stop().await;
}

#[cfg(target_os = "linux")]
mod program {
    use std::process::Stdio;

    use tokio::io::{AsyncBufReadExt, BufReader};
    use tokio::process::{Child, ChildStderr, Command};

    use super::*;

    struct Program {
        child: Child,
        plain: SocketAddr,
        errors: tokio::io::Lines<BufReader<ChildStderr>>,
    }

    /// Starts the program with 64 descriptors.
    async fn program(options: &str) -> Program {
        let program = env!("CARGO_BIN_EXE_hub-emulator");
        let key = key().to_base64();
        let script = format!(
            "ulimit -n 64; exec '{program}' --hub {HUB} --device {DEVICE}={key} --port 0 --plain-port 0 --control-port 0 \
             {options}"
        );
        let mut command = Command::new("sh");
        command.args(["-c", &script]).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let errors = BufReader::new(child.stderr.take().unwrap()).lines();
        loop {
            let line = timeout(SOON, lines.next_line()).await.unwrap().unwrap().unwrap();
            if let Some(rest) = line.strip_prefix("plain    ") {
                let plain = rest.split(' ').next().unwrap().parse().unwrap();
                // The rest of its output is short enough for the pipe.
                child.stdout = Some(lines.into_inner().into_inner());
                return Program { child, plain, errors };
            }
        }
    }

    /// Processor time of a process so far, in ticks of 10 ms.
    fn processor_ticks(child: &Child) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", child.id().unwrap())).unwrap();
        let fields: Vec<&str> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }

    #[tokio::test]
    async fn idle_connections_never_use_up_the_descriptors() {
        let mut program = program("").await;
        let idle = idle(program.plain, 300).await;
        let mut device = Client::plain(program.plain).await;
        device.accepted(connect_packet()).await;
        let line = timeout(SOON, program.errors.next_line()).await.unwrap().unwrap().unwrap();
        let start = "hub-emulator: more connections without an accepted CONNECT than 32 per peer address: closed";
        assert!(line.starts_with(start) && line.ends_with("127.0.0.1"), "{line}");
        drop(idle);
    }

    #[tokio::test]
    async fn out_of_descriptors_the_hub_says_so_and_makes_room_without_spinning() {
        let mut program = program("--unauthenticated-per-peer 10000 --unauthenticated-total 10000").await;
        let idle = idle(program.plain, 70).await;
        let line = timeout(SOON, program.errors.next_line()).await.unwrap().unwrap().unwrap();
        let start = format!("hub-emulator: cannot accept a connection on {} (1 attempts): ", program.plain);
        assert!(line.starts_with(&start) && line.contains("os error 24"), "{line}");
        assert!(line.ends_with("closed the oldest connection without an accepted CONNECT, of 127.0.0.1"), "{line}");
        let mut device = Client::plain(program.plain).await;
        device.accepted(connect_packet()).await;
        let before = processor_ticks(&program.child);
        sleep(Duration::from_secs(2)).await;
        let spent = processor_ticks(&program.child) - before;
        assert!(spent < 40, "{spent} ticks of 10 ms in 2 s");
        drop(idle);
    }
}
