//! Files of a microcontroller's upload, over TLS to the emulator's hub and storage, by the HTTP client traits of
//! `embedded-svc`.

#![expect(clippy::unwrap_used, reason = "a test fails where it is")]

#[path = "support/board.rs"]
mod board;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use board::Host;
use e2e::{DEVICE, HUB_A, Scene, key, policy, soon};
use embedded_io::{ErrorKind, ErrorType};
use embedded_svc::http::client::{Connection, Headers, Method, Status};
use hub_emulator::{Config as Emulated, Fault, HubConfig, Injection, Operation};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use steadfast_core::upload::{Input, Options, Report, UploadError};
use steadfast_core::{Config, Credential, Failure, Seed, Service};
use steadfast_esp32::Board;
use steadfast_esp32::upload::embedded_svc::{Client, Connections};
use steadfast_esp32::upload::{HttpRequest, Poll, Upload, UploadBuffers};

struct Net {
    address: SocketAddr,
    tls: Arc<ClientConfig>,
}

impl Connections for Net {
    type Connection = Https;

    fn open(&mut self, request: &HttpRequest<'_>) -> Result<Https, Failure> {
        let socket = TcpStream::connect(self.address).map_err(|_| Failure::Network)?;
        socket.set_read_timeout(Some(Duration::from_secs(10))).map_err(|_| Failure::Network)?;
        let host = request.host.split(':').next().unwrap_or_default().to_owned();
        let name = ServerName::try_from(host).map_err(|_| Failure::Unresolved)?;
        let tls = ClientConnection::new(Arc::clone(&self.tls), name).map_err(|_| Failure::Network)?;
        Ok(Https { stream: StreamOwned::new(tls, socket), requested: false, status: 0, head: String::new(), left: 0 })
    }
}

/// HTTP/1.1, as much of it as the emulator speaks.
struct Https {
    stream: StreamOwned<ClientConnection, TcpStream>,
    requested: bool,
    status: u16,
    head: String,
    /// Bytes of the answer that were not read.
    left: usize,
}

impl ErrorType for Https {
    type Error = ErrorKind;
}

impl embedded_io::Read for Https {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
        let wanted = buffer.len().min(self.left);
        if wanted == 0 {
            return Ok(0);
        }
        let len = self.stream.read(&mut buffer[..wanted]).map_err(|_| ErrorKind::ConnectionReset)?;
        self.left -= len;
        if len == 0 { Err(ErrorKind::ConnectionReset) } else { Ok(len) }
    }
}

impl embedded_io::Write for Https {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        self.stream.write(bytes).map_err(|_| ErrorKind::ConnectionReset)
    }

    fn flush(&mut self) -> Result<(), ErrorKind> {
        self.stream.flush().map_err(|_| ErrorKind::ConnectionReset)
    }
}

impl Status for Https {
    fn status(&self) -> u16 {
        self.status
    }

    fn status_message(&self) -> Option<&str> {
        None
    }
}

impl Headers for Https {
    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

impl Connection for Https {
    type Headers = Self;
    type Read = Self;
    type RawConnectionError = ErrorKind;
    type RawConnection = Self;

    fn initiate_request<'a>(
        &'a mut self,
        method: Method,
        uri: &'a str,
        headers: &'a [(&'a str, &'a str)],
    ) -> Result<(), ErrorKind> {
        let (host, path) = uri.strip_prefix("https://").unwrap().split_once('/').unwrap();
        let mut head = format!("{} /{path} HTTP/1.1\r\nHost: {host}\r\n", format!("{method:?}").to_uppercase());
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += "\r\n";
        self.requested = true;
        self.stream.write_all(head.as_bytes()).map_err(|_| ErrorKind::ConnectionReset)
    }

    fn is_request_initiated(&self) -> bool {
        self.requested
    }

    fn initiate_response(&mut self) -> Result<(), ErrorKind> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).map_err(|_| ErrorKind::ConnectionReset)?;
            head.push(byte[0]);
        }
        self.head = String::from_utf8(head).map_err(|_| ErrorKind::InvalidData)?;
        let status = self.head.split(' ').nth(1).and_then(|status| status.parse().ok());
        self.status = status.ok_or(ErrorKind::InvalidData)?;
        self.left = self.header("content-length").map_or(0, |len| len.parse().unwrap());
        self.requested = false;
        Ok(())
    }

    fn is_response_initiated(&self) -> bool {
        !self.requested && self.status > 0
    }

    fn split(&mut self) -> (&Self, &mut Self) {
        unreachable!("nobody asks for both halves")
    }

    fn raw_connection(&mut self) -> Result<&mut Self, ErrorKind> {
        Ok(self)
    }
}

/// Uploads `content` in blocks of 4 KiB.
fn upload(address: SocketAddr, ca_pem: &str, content: &[u8]) -> (Result<Report, UploadError>, String) {
    let tls = board::trust(ca_pem);
    let mut config = Config::new(Service::Hub { host: HUB_A, device_id: DEVICE }, Credential::SharedKey);
    config.session.retry = policy();
    let mut board = Host::new(&key());
    let (mut grant, mut block, mut scratch) = ([0; 1024], [0; 4096], [0; 2048]);
    let buffers = UploadBuffers { grant: &mut grant, block: &mut block, scratch: &mut scratch };
    let seed = Seed::from_number(7);
    let mut upload = Upload::new("logs/day 1.bin", Options::DEFAULT, &config, seed, buffers, board.now()).unwrap();
    let mut client = Client::new(Net { address, tls });
    let mut source = content;
    while board.began.elapsed() < Duration::from_secs(25) {
        match upload.poll(&mut board, &mut source, &mut client) {
            Poll::Home => upload.at_home(Input::Home { hub: HUB_A, device_id: DEVICE }, board.now()),
            Poll::Wait(at) => board.sleep(at.since(board.now())),
            Poll::Done(result) => return (result, upload.blob().to_owned()),
            Poll::Progress(_) | Poll::Requested | _ => {}
        }
    }
    panic!("the upload does not come to an end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_microcontrollers_file_survives_every_fault_on_the_way() {
    let scene = Scene::start(Emulated::new().hub_with(HubConfig::new(HUB_A).device(DEVICE, key())).https_port(0)).await;
    let hub = scene.emulator.hub(HUB_A).device(DEVICE);
    for fault in [
        Injection::times(Fault::UploadStatus { status: 429 }, 2),
        Injection::once(Fault::StorageDrop { bytes: 2_000 }).after(1),
        Injection::once(Fault::StorageStatus { status: 503 }).after(2),
        // The token is over.
        Injection::once(Fault::StorageStatus { status: 403 }).after(4),
    ] {
        hub.inject(fault);
    }
    let content: Vec<u8> = (0..50_000_u32).map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    let (address, ca_pem) = (scene.emulator.https_addr().unwrap(), scene.emulator.ca_pem().to_owned());
    let bytes = content.clone();
    let work = tokio::task::spawn_blocking(move || upload(address, &ca_pem, &bytes));
    let (result, blob) = soon(work).await.unwrap();
    let report = result.unwrap();
    assert_eq!((report.bytes, report.blocks), (50_000, 13));
    assert!(report.failures >= 4, "{report:?}");
    assert_eq!(blob, format!("{DEVICE}/logs/day 1.bin"));
    assert!(scene.emulator.uploaded(DEVICE, "logs/day 1.bin").unwrap() == content);
    let operations = scene.emulator.ledger().operations_of(DEVICE);
    let told = operations.iter().filter_map(|operation| {
        if let Operation::UploadNotified { success, .. } = operation { Some(*success) } else { None }
    });
    assert_eq!(told.collect::<Vec<_>>(), [false, true]);
}
