//! A scripted MQTT server, and devices that are in a hurry.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "each test uses its part, and fails where it is")]

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use rumqttc::mqttbytes::v4::{ConnAck, ConnectReturnCode, Packet, PubAck, Publish, SubAck, SubscribeReasonCode};
use rumqttc::mqttbytes::{Error, QoS};
use steadfast::{Builder, Device, RetryPolicy};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Nothing on loopback takes longer.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Fails the test instead of hanging.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("it happens soon")
}

/// The default back-off, 100 times as fast.
pub fn hasty() -> RetryPolicy {
    RetryPolicy::DEFAULT.divided_by(100)
}

/// What was logged.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Takes all that this thread logs with `tracing`, at every level, until the guard is dropped.
    pub fn begin() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::new("trace"))
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    /// Takes all that the process logs with `tracing`, for a test that is alone in its process.
    pub fn of_process() -> Self {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::set_global_default(subscriber).unwrap();
        log
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub struct Server {
    listener: TcpListener,
    pub address: SocketAddr,
}

impl Server {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { listener, address }
    }

    /// A builder for an anonymous client of this server, without TLS.
    pub fn client(&self) -> Builder {
        Device::builder()
            .broker("broker.test", "client-1")
            .resolve("broker.test", [self.address])
            .anonymous()
            .plaintext_unprotected()
            .retry(hasty())
    }

    pub async fn accept(&self) -> Peer<TcpStream> {
        let (stream, _) = soon(self.listener.accept()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Peer::new(stream)
    }

    /// Drops the connections that wait, such as those of devices that are gone.
    pub async fn turn_away(&self) {
        while timeout(Duration::from_millis(50), self.listener.accept()).await.is_ok() {}
    }

    /// Accepts a connection and its CONNECT.
    pub async fn welcome(&self, session_present: bool) -> Peer<TcpStream> {
        let mut peer = self.accept().await;
        peer.welcome(session_present).await;
        peer
    }
}

/// The server's side of a connection.
pub struct Peer<S> {
    pub stream: S,
    buffer: BytesMut,
    /// Bytes received so far.
    pub received: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, buffer: BytesMut::new(), received: 0 }
    }

    /// Returns the next packet, or `None` at the end of the connection.
    pub async fn next(&mut self) -> Option<Packet> {
        soon(async {
            loop {
                match Packet::read(&mut self.buffer, 1 << 20) {
                    Ok(packet) => return Some(packet),
                    Err(Error::InsufficientBytes(_)) => {}
                    Err(error) => panic!("not MQTT: {error}"),
                }
                match self.stream.read_buf(&mut self.buffer).await {
                    Ok(0) | Err(_) => return None,
                    Ok(len) => self.received += len,
                }
            }
        })
        .await
    }

    pub async fn welcome(&mut self, session_present: bool) -> rumqttc::mqttbytes::v4::Connect {
        let Some(Packet::Connect(connect)) = self.next().await else { panic!("no CONNECT") };
        self.answer(ConnectReturnCode::Success, session_present).await;
        connect
    }

    pub async fn answer(&mut self, code: ConnectReturnCode, session_present: bool) {
        self.send(Packet::ConnAck(ConnAck { session_present, code })).await;
    }

    pub async fn publish(&mut self) -> Publish {
        match self.next().await {
            Some(Packet::Publish(publish)) => publish,
            other => panic!("no PUBLISH but {other:?}"),
        }
    }

    pub async fn ack(&mut self, publish: &Publish) {
        self.send(Packet::PubAck(PubAck { pkid: publish.pkid })).await;
    }

    pub async fn suback(&mut self) {
        let Some(Packet::Subscribe(subscribe)) = self.next().await else { panic!("no SUBSCRIBE") };
        let code = SubscribeReasonCode::Success(QoS::AtLeastOnce);
        self.send(Packet::SubAck(SubAck { pkid: subscribe.pkid, return_codes: vec![code] })).await;
    }

    pub async fn send(&mut self, packet: Packet) {
        let mut bytes = BytesMut::new();
        packet.write(&mut bytes, usize::MAX).unwrap();
        self.stream.write_all(&bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// Acknowledges every publish until the connection ends; returns the payloads in order and whether it ended with
    /// DISCONNECT.
    pub async fn serve(&mut self) -> (Vec<Publish>, bool) {
        let mut all = Vec::new();
        loop {
            match self.next().await {
                Some(Packet::Publish(publish)) => {
                    self.ack(&publish).await;
                    all.push(publish);
                }
                Some(Packet::PingReq) => self.send(Packet::PingResp).await,
                Some(Packet::Disconnect) => return (all, true),
                Some(other) => panic!("unexpected {other:?}"),
                None => return (all, false),
            }
        }
    }
}
