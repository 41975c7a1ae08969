//! A small MQTT client over the codec that sends nothing on its own.

#![allow(dead_code, reason = "each test file uses its own part of the client")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use hub_emulator::{Config, Emulator, HubConfig, Key};
use rumqttc::mqttbytes::v4::{
    Connect, ConnectReturnCode, LastWill, Login, Packet, PubAck, Publish, Subscribe, SubscribeReasonCode,
};
use rumqttc::mqttbytes::{Error, QoS};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

pub(crate) const HUB: &str = "hub-a.azure-devices.net";
pub(crate) const DEVICE: &str = "dev-1";
pub(crate) const SOON: Duration = Duration::from_secs(5);
/// Far in the future: tokens with this expiry are valid during every test.
pub(crate) const LATER: u64 = 4_102_444_800;

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

pub(crate) struct Client {
    stream: Box<dyn Stream>,
    input: BytesMut,
    next_id: u16,
}

pub(crate) async fn tls_stream(
    address: SocketAddr,
    ca_pem: &str,
    name: &str,
    certificate: Option<(&str, &str)>,
) -> std::io::Result<TlsStream<TcpStream>> {
    tls_stream_that(address, ca_pem, name, certificate, true).await
}

/// Opens a stream that sends SNI only if `sends_name` is true; the certificate is checked for the name in both cases.
pub(crate) async fn tls_stream_that(
    address: SocketAddr,
    ca_pem: &str,
    name: &str,
    certificate: Option<(&str, &str)>,
    sends_name: bool,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match certificate {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            // Not checked against each other: certificates without extensions are not for rustls to read.
            let key = rustls::crypto::ring::default_provider().key_provider.load_private_key(key).unwrap();
            let own = SingleCertAndKey::from(CertifiedKey::new(vec![certificate], key));
            builder.with_client_cert_resolver(Arc::new(own))
        }
    };
    config.enable_sni = sends_name;
    let tcp = TcpStream::connect(address).await?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await
}

/// A packet or an event from the server.
#[derive(Debug, PartialEq)]
pub(crate) enum Answer {
    Packet(Packet),
    Bytes(Vec<u8>),
    Closed,
    Nothing,
}

pub(crate) fn key() -> Key {
    Key::from_seed(DEVICE)
}

/// One hub with one device, on the plain port.
pub(crate) fn config() -> Config {
    config_with(hub())
}

pub(crate) fn hub() -> HubConfig {
    HubConfig::new(HUB).device(DEVICE, key())
}

pub(crate) fn config_with(hub: HubConfig) -> Config {
    Config::new().hub_with(hub).plain_port(0)
}

pub(crate) async fn start(config: Config) -> Emulator {
    Emulator::start(config).await.unwrap()
}

pub(crate) fn user_name(host: &str, id: &str) -> String {
    format!("{host}/{id}/?api-version=2020-09-30")
}

pub(crate) fn token(host: &str, id: &str, key: &Key) -> String {
    key.token(&format!("{host}/devices/{id}"), LATER, None)
}

/// A good CONNECT of the one device.
pub(crate) fn connect_packet() -> Connect {
    connect_for(HUB, DEVICE, &key())
}

pub(crate) fn connect_for(host: &str, id: &str, key: &Key) -> Connect {
    let mut connect = Connect::new(id);
    connect.clean_session = false;
    connect.keep_alive = 60;
    connect.login = Some(Login::new(user_name(host, id), token(host, id, key)));
    connect
}

impl Client {
    pub(crate) fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        Self { stream: Box::new(stream), input: BytesMut::new(), next_id: 0 }
    }

    pub(crate) async fn plain(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream)
    }

    pub(crate) async fn tls(
        address: SocketAddr,
        ca_pem: &str,
        name: &str,
        certificate: Option<(&str, &str)>,
    ) -> std::io::Result<Self> {
        Ok(Self::over(tls_stream(address, ca_pem, name, certificate).await?))
    }

    /// Connects the one device on the plain port.
    pub(crate) async fn device(emulator: &Emulator) -> Self {
        Self::connected(emulator, connect_packet()).await.0
    }

    /// Sends `connect` on the plain port, expects CONNACK 0, and returns `session_present`.
    pub(crate) async fn connected(emulator: &Emulator, connect: Connect) -> (Self, bool) {
        let mut client = Self::plain(emulator.plain_addr().unwrap()).await;
        let present = client.accepted(connect).await;
        (client, present)
    }

    pub(crate) async fn accepted(&mut self, connect: Connect) -> bool {
        match self.connect_with(connect).await {
            Answer::Packet(Packet::ConnAck(ack)) if ack.code == ConnectReturnCode::Success => ack.session_present,
            other => panic!("not accepted: {other:?}"),
        }
    }

    pub(crate) async fn connect_with(&mut self, connect: Connect) -> Answer {
        self.send(Packet::Connect(connect)).await;
        self.answer().await
    }

    pub(crate) async fn send(&mut self, packet: Packet) {
        let mut bytes = BytesMut::new();
        packet.write(&mut bytes, usize::MAX).unwrap();
        self.send_bytes(&bytes).await;
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        // A server that closed meanwhile shows in the next answer.
        let _ = self.stream.write_all(bytes).await;
        let _ = self.stream.flush().await;
    }

    pub(crate) async fn answer(&mut self) -> Answer {
        self.answer_within(SOON).await
    }

    pub(crate) async fn answer_within(&mut self, limit: Duration) -> Answer {
        match timeout(limit, self.read()).await {
            Ok(answer) => answer,
            Err(_) => Answer::Nothing,
        }
    }

    async fn read(&mut self) -> Answer {
        loop {
            match Packet::read(&mut self.input, 1 << 20) {
                Ok(packet) => return Answer::Packet(packet),
                Err(Error::InsufficientBytes(_)) => {}
                Err(_) => return Answer::Bytes(self.input.split().to_vec()),
            }
            match self.stream.read_buf(&mut self.input).await {
                Ok(0) | Err(_) if self.input.is_empty() => return Answer::Closed,
                Ok(0) | Err(_) => return Answer::Bytes(self.input.split().to_vec()),
                Ok(_) => {}
            }
        }
    }

    pub(crate) async fn packet(&mut self) -> Packet {
        match self.answer().await {
            Answer::Packet(packet) => packet,
            other => panic!("no packet: {other:?}"),
        }
    }

    pub(crate) async fn publish_packet(&mut self) -> Publish {
        match self.packet().await {
            Packet::Publish(publish) => publish,
            other => panic!("no publish: {other:?}"),
        }
    }

    pub(crate) async fn closed(&mut self) {
        assert_eq!(self.answer().await, Answer::Closed);
    }

    pub(crate) async fn silent(&mut self) {
        assert_eq!(self.answer_within(Duration::from_millis(150)).await, Answer::Nothing);
    }

    /// Publishes at QoS 1 and returns the packet id.
    pub(crate) async fn publish(&mut self, topic: &str, payload: &[u8]) -> u16 {
        self.next_id += 1;
        self.publish_as(topic, payload, self.next_id, false).await;
        self.next_id
    }

    pub(crate) async fn publish_as(&mut self, topic: &str, payload: &[u8], id: u16, dup: bool) {
        let mut publish = Publish::from_bytes(topic, QoS::AtLeastOnce, Bytes::copy_from_slice(payload));
        (publish.pkid, publish.dup) = (id, dup);
        self.send(Packet::Publish(publish)).await;
    }

    /// Publishes a message of the one device with this id.
    pub(crate) async fn message(&mut self, id: &str) -> u16 {
        self.publish(&telemetry(id), b"x").await
    }

    /// Publishes a message and waits for its PUBACK.
    pub(crate) async fn delivered(&mut self, id: &str) {
        let packet_id = self.message(id).await;
        self.acknowledged(packet_id).await;
    }

    pub(crate) async fn acknowledged(&mut self, id: u16) {
        assert_eq!(self.packet().await, Packet::PubAck(PubAck::new(id)));
    }

    pub(crate) async fn subscribe(&mut self, filter: &str) -> Answer {
        self.next_id += 1;
        let mut subscribe = Subscribe::new(filter, QoS::AtLeastOnce);
        subscribe.pkid = self.next_id;
        self.send(Packet::Subscribe(subscribe)).await;
        self.answer().await
    }

    pub(crate) async fn subscribed(&mut self, filter: &str) {
        match self.subscribe(filter).await {
            Answer::Packet(Packet::SubAck(ack)) => {
                assert_eq!(ack.return_codes, [SubscribeReasonCode::Success(QoS::AtLeastOnce)]);
            }
            other => panic!("not subscribed: {other:?}"),
        }
    }
}

/// Opens a WebSocket and sends in frames of `cut` bytes.
pub(crate) async fn socket(
    emulator: &Emulator,
    name: &str,
    path: &str,
    protocol: &str,
    certificate: Option<(&str, &str)>,
    cut: usize,
) -> Result<Client, u16> {
    let tls = tls_stream(emulator.https_addr().unwrap(), emulator.ca_pem(), name, certificate).await.unwrap();
    let mut request = format!("wss://{name}{path}").into_client_request().unwrap();
    request.headers_mut().insert("Sec-WebSocket-Protocol", protocol.parse().unwrap());
    let (socket, answer) = match tokio_tungstenite::client_async(request, tls).await {
        Ok(done) => done,
        Err(tokio_tungstenite::tungstenite::Error::Http(answer)) => return Err(answer.status().as_u16()),
        Err(other) => panic!("{other}"),
    };
    assert_eq!(answer.headers()["Sec-WebSocket-Protocol"], protocol, "in the client's spelling");
    let (mut sink, mut frames) = socket.split();
    let (near, far) = tokio::io::duplex(64 * 1024);
    let (mut from, mut to) = tokio::io::split(far);
    tokio::spawn(async move {
        let mut bytes = vec![0; cut];
        while let Ok(count @ 1..) = from.read(&mut bytes).await {
            if sink.send(Message::Binary(bytes[..count].to_vec().into())).await.is_err() {
                return;
            }
        }
        // Whether or not the server is still there, nothing more is sent.
        let _ = sink.close().await;
    });
    tokio::spawn(async move {
        while let Some(Ok(message)) = frames.next().await {
            let data = if message.is_binary() { message.into_data() } else { Bytes::new() };
            if to.write_all(&data).await.is_err() {
                return;
            }
        }
        // A client that is gone does not need to know.
        let _ = to.shutdown().await;
    });
    Ok(Client::over(near))
}

pub(crate) fn telemetry(id: &str) -> String {
    format!("devices/{DEVICE}/messages/events/%24.mid={id}")
}

pub(crate) fn will(topic: &str, message: &str) -> LastWill {
    LastWill::new(topic, message.as_bytes(), QoS::AtLeastOnce, false)
}

pub(crate) fn refused(code: ConnectReturnCode) -> Answer {
    Answer::Packet(Packet::ConnAck(rumqttc::mqttbytes::v4::ConnAck::new(code, false)))
}

pub(crate) fn not_authorized() -> Answer {
    refused(ConnectReturnCode::NotAuthorized)
}

/// Waits until `holds` returns true.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..500 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never came true: {what}");
}
