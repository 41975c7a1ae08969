//! A microcontroller's WebSockets and proxy, over TLS to services of other makes.

#![expect(clippy::unwrap_used, reason = "a test fails where it is")]

#[path = "support/board.rs"]
mod board;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use board::Host;
use e2e::{
    ConnectProxy, DEVICE, DPS_HOST, Gate, HUB_A, Scene, WebSocketFront, key, policy, reprovisioning, soon, timeouts,
};
use embedded_io::ErrorKind;
use hub_emulator::{Config as Emulated, HubConfig};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use steadfast_core::dps::topics::GLOBAL_HOST;
use steadfast_core::{
    AnyProfile, Config, Credential, Failure, Message, RamOutbox, Seed, Service, State, TlsFailure, transport,
};
use steadfast_esp32::websocket::{self, WebSocket};
use steadfast_esp32::{Board as _, Buffers, Connect, Device, Dial, Stream, proxy};

/// Dials one address, whatever the name.
struct Dialler {
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    clock: Host,
    login: Option<&'static str>,
    dials: u64,
}

impl Connect for Dialler {
    type Stream = WebSocket<Line>;

    fn connect(&mut self, dial: &Dial<'_>) -> Result<Self::Stream, Failure> {
        let deadline = self.clock.now().after(dial.limit);
        let left = || deadline.since(self.clock.now());
        let now = || self.clock.now();
        self.dials += 1;
        let mut socket = Socket(TcpStream::connect(self.address).map_err(|_| Failure::ConnectionRefused)?);
        socket.0.set_nodelay(true).map_err(|_| Failure::Network)?;
        if self.login.is_some() {
            proxy::open(&mut socket, dial, self.login, now, left())?;
        }
        socket.0.set_read_timeout(Some(left())).map_err(|_| Failure::Network)?;
        let name = ServerName::try_from(dial.host.to_owned()).map_err(|_| Failure::Unresolved)?;
        let tls = ClientConnection::new(Arc::clone(&self.tls), name).map_err(|_| Failure::Network)?;
        let mut stream = StreamOwned::new(tls, socket.0);
        stream.conn.complete_io(&mut stream.sock).map_err(|_| Failure::Tls(TlsFailure::Handshake))?;
        let line = Line { stream, came: Vec::new(), ended: false };
        websocket::open(line, dial, websocket::opening(dial), Seed::from_number(self.dials), now, left())
    }
}

/// TCP before TLS.
struct Socket(TcpStream);

impl embedded_io::ErrorType for Socket {
    type Error = ErrorKind;
}

impl embedded_io::Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
        self.0.read(buffer).map_err(|_| ErrorKind::ConnectionReset)
    }
}

impl embedded_io::Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        self.0.write(bytes).map_err(|_| ErrorKind::ConnectionReset)
    }

    fn flush(&mut self) -> Result<(), ErrorKind> {
        Ok(())
    }
}

impl Stream for Socket {
    fn wait_readable(&mut self, limit: Duration) -> Result<bool, ErrorKind> {
        readable_within(&self.0, limit)?;
        match self.0.peek(&mut [0]) {
            Err(error) if is_late(&error) => Ok(false),
            _ => Ok(true),
        }
    }
}

/// TCP with TLS.
struct Line {
    stream: StreamOwned<ClientConnection, TcpStream>,
    /// What came and was not read.
    came: Vec<u8>,
    ended: bool,
}

impl embedded_io::ErrorType for Line {
    type Error = ErrorKind;
}

impl embedded_io::Read for Line {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
        if self.came.is_empty() && !self.ended {
            self.wait_readable(Duration::from_secs(10))?;
        }
        let len = buffer.len().min(self.came.len());
        buffer[..len].copy_from_slice(&self.came[..len]);
        self.came.drain(..len);
        Ok(len)
    }
}

impl embedded_io::Write for Line {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        self.stream.write(bytes).map_err(|_| ErrorKind::ConnectionReset)
    }

    fn flush(&mut self) -> Result<(), ErrorKind> {
        self.stream.flush().map_err(|_| ErrorKind::ConnectionReset)
    }
}

impl Stream for Line {
    fn wait_readable(&mut self, limit: Duration) -> Result<bool, ErrorKind> {
        if !self.came.is_empty() || self.ended {
            return Ok(true);
        }
        readable_within(&self.stream.sock, limit)?;
        let mut bytes = [0; 700];
        match self.stream.read(&mut bytes) {
            Ok(len) => {
                self.came.extend_from_slice(&bytes[..len]);
                self.ended = len == 0;
                Ok(true)
            }
            Err(error) if is_late(&error) => Ok(false),
            Err(_) => Err(ErrorKind::ConnectionReset),
        }
    }
}

fn readable_within(socket: &TcpStream, limit: Duration) -> Result<(), ErrorKind> {
    let limit = limit.clamp(Duration::from_millis(1), Duration::from_secs(10));
    socket.set_read_timeout(Some(limit)).map_err(|_| ErrorKind::Other)
}

fn is_late(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}

/// Where a device goes, and what it has to do there.
struct Errand {
    address: SocketAddr,
    ca_pem: String,
    /// The scope to register in; without one the hub is known.
    id_scope: Option<String>,
    /// The value of `Proxy-Authorization`; without one there is no proxy.
    login: Option<&'static str>,
    /// Messages to deliver.
    count: u64,
}

impl Errand {
    /// Delivers the messages over WebSockets.
    fn run(self) {
        let Self { address, ca_pem, id_scope, login, count } = self;
        let (service, key) = match &id_scope {
            Some(id_scope) => {
                (Service::Provisioned { host: GLOBAL_HOST, id_scope, registration_id: DEVICE }, key().derive(DEVICE))
            }
            None => (Service::Hub { host: HUB_A, device_id: DEVICE }, key()),
        };
        let mut config = Config::new(service, Credential::SharedKey);
        (config.session.retry, config.session.timeouts, config.reprovisioning) =
            (policy(), timeouts(), reprovisioning());
        (config.session.max_inbound, config.session.max_outbound, config.port) = (1024, 1024, transport::PORT);
        let (mut rx, mut tx) = ([0; 1024], [0; 2048]);
        let buffers = Buffers { rx: &mut rx, tx: &mut tx };
        let dialler = Dialler { address, tls: board::trust(&ca_pem), clock: Host::new(&key), login, dials: 0 };
        let (board, outbox, seed) = (Host::new(&key), RamOutbox::<8, 4096>::new(), Seed::from_number(7));
        let mut device =
            Device::new(board, dialler, AnyProfile::new(&config, [0; 256]), outbox, seed, buffers).unwrap();
        device.start();
        let (mut sent, began) = (0, Instant::now());
        while device.link().ledger().delivered < count {
            let payload = format!("{{\"n\":{sent}}}{}", " ".repeat(usize::try_from(sent % 200).unwrap()));
            let properties = format!("seq={sent}");
            if sent < count && device.send(Message::telemetry(&properties, payload.as_bytes())).is_ok() {
                sent += 1;
                continue;
            }
            device.poll(Duration::from_millis(20));
            let status = device.link().status();
            assert!(began.elapsed() < Duration::from_secs(25), "late: {status}");
        }
        device.stop(Duration::from_secs(5));
        while device.link().state() != State::Stopped {
            device.poll(Duration::from_millis(20));
        }
    }
}

/// Compares what the hub has with what was to be delivered; returns the number of copies.
fn copies(scene: &Scene, count: u64) -> u64 {
    let report = scene.emulator.ledger().check_sequence(DEVICE, 0..count);
    assert!(report.is_complete(), "{report:?}");
    report.duplicates
}

/// `user` and `wet secret`.
const LOGIN: &str = "dXNlcjp3ZXQgc2VjcmV0";
const BASIC: &str = "Basic dXNlcjp3ZXQgc2VjcmV0";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_microcontroller_registers_and_delivers_over_websockets() {
    let scene = Scene::provisioned().await;
    let front = WebSocketFront::of(&scene).await;
    let id_scope = Some(scene.emulator.dps().id_scope());
    let errand = Errand { address: front.address, ca_pem: front.ca_pem.clone(), id_scope, login: None, count: 100 };
    soon(tokio::task::spawn_blocking(|| errand.run())).await.unwrap();
    assert_eq!(copies(&scene, 100), 0);
    let expected =
        [format!("{DPS_HOST}/$iothub/websocket"), format!("{HUB_A}/$iothub/websocket?iothub-no-client-cert=true")];
    assert_eq!(front.paths(), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_microcontroller_takes_packets_in_pieces_and_survives_cuts() {
    // Packets come in frames of three bytes.
    let config = Emulated::new().hub_with(HubConfig::new(HUB_A).device(DEVICE, key())).https_port(0).websocket_frame(3);
    let scene = Scene::start(config).await;
    let gate = Gate::to(scene.emulator.https_addr().unwrap()).await;
    let ca_pem = scene.emulator.ca_pem().to_owned();
    let errand = Errand { address: gate.address(), ca_pem, id_scope: None, login: None, count: 300 };
    let work = tokio::task::spawn_blocking(|| errand.run());
    for delivered in [50, 120, 200] {
        assert!(scene.emulator.ledger().wait_for(DEVICE, delivered, e2e::PATIENCE).await);
        gate.close();
        tokio::time::sleep(Duration::from_millis(50)).await;
        gate.open();
    }
    soon(work).await.unwrap();
    // What was in flight at a cut may come again.
    assert!(copies(&scene, 300) <= 3 * 8);
    assert!(scene.emulator.ledger().connections_of(DEVICE).len() >= 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_microcontroller_goes_through_a_proxy_over_websockets() {
    let scene = Scene::provisioned().await;
    let front = WebSocketFront::of(&scene).await;
    let targets = [HUB_A, DPS_HOST].map(|host| (format!("{host}:443"), front.address));
    let proxy = ConnectProxy::start(targets, LOGIN).await;
    let id_scope = Some(scene.emulator.dps().id_scope());
    let (address, ca_pem) = (proxy.address, front.ca_pem.clone());
    let errand = Errand { address, ca_pem, id_scope, login: Some(BASIC), count: 20 };
    soon(tokio::task::spawn_blocking(|| errand.run())).await.unwrap();
    assert_eq!(copies(&scene, 20), 0);
    assert_eq!(proxy.asked(), [format!("{DPS_HOST}:443"), format!("{HUB_A}:443")]);
}
