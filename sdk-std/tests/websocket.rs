//! MQTT over WebSockets, against a scripted server; the services are met end to end.
#![cfg(feature = "websocket")]
#![expect(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test fails where it is")]

mod support;

use std::time::Duration;

use bytes::BytesMut;
use futures_util::{SinkExt, StreamExt};
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{ConnAck, ConnectReturnCode, Packet, PubAck, Publish};
use steadfast::{Builder, Device, Event, Failure, LinkEvent, Message as Mqtt, Receipt, Status, Transport};
use support::{hasty, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};

/// A server, and a device that wants to go there.
struct Scene {
    listener: TcpListener,
    device: Device,
    driver: tokio::task::JoinHandle<steadfast::Ledger>,
}

impl Scene {
    async fn start(change: impl FnOnce(Builder) -> Builder) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let builder = Device::builder()
            .broker("broker.test", "client-1")
            .resolve("broker.test", [listener.local_addr().unwrap()])
            .anonymous()
            .plaintext_unprotected()
            .transport(Transport::WebSockets)
            .retry(hasty());
        let (device, driver) = change(builder).build().unwrap();
        Self { listener, device, driver: tokio::spawn(driver) }
    }

    /// Takes the next connection, its upgrade and its CONNECT.
    async fn welcome(&self) -> Server {
        let (stream, _) = soon(self.listener.accept()).await.unwrap();
        let frames = soon(accept_hdr_async(stream, accept)).await.unwrap();
        let mut server = Server { frames, buffer: BytesMut::new() };
        assert!(matches!(server.next().await, Packet::Connect(_)));
        server
    }

    async fn failed(&self) -> Status {
        let mut status = self.device.status_changes();
        soon(status.wait_for(|status| status.last_failure.is_some())).await.unwrap().clone()
    }

    async fn send(&self, payload: &[u8]) -> Receipt {
        soon(self.device.send(Mqtt::to_topic("t", payload))).await.unwrap()
    }

    async fn end(self) {
        self.device.stop(Duration::ZERO).await;
        soon(self.driver).await.unwrap();
    }
}

#[expect(clippy::result_large_err, reason = "the form that the callback has")]
fn accept(
    request: &Request,
    mut response: Response,
) -> Result<Response, tokio_tungstenite::tungstenite::handshake::server::ErrorResponse> {
    assert_eq!(request.uri().path(), "/mqtt");
    assert_eq!(request.headers()["host"], "broker.test");
    assert_eq!(request.headers()["sec-websocket-protocol"], "mqtt");
    response.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("mqtt"));
    Ok(response)
}

struct Server {
    frames: WebSocketStream<TcpStream>,
    buffer: BytesMut,
}

impl Server {
    /// Returns the next packet, put together from as many frames as it takes.
    async fn next(&mut self) -> Packet {
        loop {
            match Packet::read(&mut self.buffer, 1 << 20) {
                Ok(packet) => return packet,
                Err(rumqttc::mqttbytes::Error::InsufficientBytes(_)) => {}
                Err(error) => panic!("{error}"),
            }
            match soon(self.frames.next()).await.unwrap().unwrap() {
                Message::Binary(bytes) => self.buffer.extend_from_slice(&bytes),
                other => panic!("{other:?}"),
            }
        }
    }

    async fn send(&mut self, frame: Message) {
        soon(self.frames.send(frame)).await.unwrap();
    }

    async fn accept(&mut self) {
        self.send(Message::binary(bytes_of(&[connack()]))).await;
    }

    async fn publish(&mut self) -> Publish {
        match self.next().await {
            Packet::Publish(publish) => publish,
            other => panic!("{other:?}"),
        }
    }
}

fn connack() -> Packet {
    Packet::ConnAck(ConnAck { code: ConnectReturnCode::Success, session_present: false })
}

fn bytes_of(packets: &[Packet]) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    for packet in packets {
        packet.write(&mut bytes, 1 << 20).unwrap();
    }
    bytes.to_vec()
}

#[tokio::test]
async fn packets_may_be_split_and_joined_over_frames() {
    let scene = Scene::start(|builder| builder).await;
    let mut server = scene.welcome().await;
    for (number, byte) in (0_u8..).zip(bytes_of(&[connack()])) {
        server.send(Message::binary(vec![byte])).await;
        server.send(Message::Ping(vec![number].into())).await;
        server.send(Message::binary(Vec::new())).await;
    }
    let receipts = [scene.send(b"one").await, scene.send(b"two").await, scene.send(b"three").await];
    // Pings that come together have one answer (RFC 6455, section 5.5.3): that to the latest.
    let mut answered = false;
    while !answered {
        match soon(server.frames.next()).await.unwrap().unwrap() {
            Message::Pong(payload) => answered = payload.as_ref() == [3],
            Message::Binary(bytes) => server.buffer.extend_from_slice(&bytes),
            other => panic!("{other:?}"),
        }
    }
    let mut acknowledgements = Vec::new();
    for payload in ["one", "two", "three"] {
        let publish = server.publish().await;
        assert_eq!((publish.payload.as_ref(), publish.qos), (payload.as_bytes(), QoS::AtLeastOnce));
        acknowledgements.push(Packet::PubAck(PubAck { pkid: publish.pkid }));
    }
    server.send(Message::binary(bytes_of(&acknowledgements))).await;
    for receipt in receipts {
        soon(receipt.delivered()).await.unwrap();
    }
    scene.end().await;
}

#[tokio::test]
async fn a_message_longer_than_a_frame_and_a_window_of_them_arrive_whole() {
    let scene = Scene::start(|builder| builder.outbox(100, 16 << 20)).await;
    let mut server = scene.welcome().await;
    server.accept().await;
    let payload: Vec<u8> = (0..250_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    let mut receipts = Vec::new();
    for _ in 0..20 {
        receipts.push(scene.send(&payload).await);
    }
    // Nothing is read for a while, so that the way fills up.
    tokio::time::sleep(Duration::from_millis(100)).await;
    for _ in 0..20 {
        let publish = server.publish().await;
        assert!(publish.payload == payload, "{} bytes", publish.payload.len());
        server.send(Message::binary(bytes_of(&[Packet::PubAck(PubAck { pkid: publish.pkid })]))).await;
    }
    for receipt in receipts {
        soon(receipt.delivered()).await.unwrap();
    }
    scene.end().await;
}

#[tokio::test]
async fn a_stop_ends_with_disconnect_and_a_close_frame() {
    let scene = Scene::start(|builder| builder).await;
    let mut server = scene.welcome().await;
    server.accept().await;
    let mut status = scene.device.status_changes();
    soon(status.wait_for(|status| status.state == steadfast::State::Up)).await.unwrap();
    let stopping = tokio::spawn(async move { scene.end().await });
    assert_eq!(server.next().await, Packet::Disconnect);
    assert!(matches!(soon(server.frames.next()).await.unwrap().unwrap(), Message::Close(_)));
    assert!(soon(server.frames.next()).await.is_none());
    drop(server);
    soon(stopping).await.unwrap();
}

/// Lets the server do `what` to a connection that is up, and expects another one.
async fn lost_after(failure: Failure, what: impl AsyncFnOnce(&mut Server)) {
    let scene = Scene::start(|builder| builder).await;
    let mut events = scene.device.events();
    let mut server = scene.welcome().await;
    server.accept().await;
    while !matches!(soon(events.next()).await.unwrap(), Event::Link(LinkEvent::Up { .. })) {}
    let receipt = scene.send(b"kept").await;
    server.publish().await;
    what(&mut server).await;
    while soon(events.next()).await.unwrap() != Event::Link(LinkEvent::Down(failure)) {}
    let mut server = scene.welcome().await;
    server.accept().await;
    let publish = server.publish().await;
    server.send(Message::binary(bytes_of(&[Packet::PubAck(PubAck { pkid: publish.pkid })]))).await;
    soon(receipt.delivered()).await.unwrap();
    scene.end().await;
}

#[tokio::test]
async fn a_close_frame_ends_the_connection_and_no_message() {
    lost_after(Failure::Lost, async |server| server.send(Message::Close(None)).await).await;
}

#[tokio::test]
async fn a_text_frame_ends_the_connection() {
    lost_after(Failure::BadFrame, async |server| server.send(Message::text("MQTT?")).await).await;
}

#[tokio::test]
async fn a_frame_beyond_the_limit_ends_the_connection_before_it_is_read() {
    lost_after(Failure::BadFrame, async |server| {
        // A binary frame of 2^40 bytes (RFC 6455, section 5.2), of which none comes.
        let header = [0x82, 127, 0, 0, 1, 0, 0, 0, 0, 0];
        server.frames.get_mut().write_all(&header).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn bytes_that_are_no_frame_end_the_connection() {
    lost_after(Failure::BadFrame, async |server| server.frames.get_mut().write_all(&[0xff; 64]).await.unwrap()).await;
}

/// Answers the upgrade with `answer`, and returns what the device made of it.
async fn upgraded(answer: &'static str) -> Failure {
    let scene = Scene::start(|builder| builder).await;
    let (mut stream, _) = soon(scene.listener.accept()).await.unwrap();
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        assert!(soon(stream.read_buf(&mut request)).await.unwrap() > 0);
    }
    stream.write_all(answer.as_bytes()).await.unwrap();
    drop(stream);
    let failure = scene.failed().await.last_failure.unwrap();
    scene.end().await;
    failure
}

#[tokio::test]
async fn each_answer_to_the_upgrade_has_its_own_meaning() {
    let refused = |status, retry_after_secs| Failure::UpgradeRefused { status, retry_after_secs };
    let table = [
        ("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", refused(401, None)),
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", refused(403, None)),
        ("HTTP/1.1 404 Not Found\r\n\r\n", refused(404, None)),
        ("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", refused(407, None)),
        ("HTTP/1.1 429 Too Many Requests\r\nRetry-After: 17\r\n\r\n", refused(429, Some(17))),
        ("HTTP/1.1 503 Busy\r\nretry-after: Wed, 21 Oct 2026 07:28:00 GMT\r\n\r\n", refused(503, None)),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", refused(200, None)),
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n",
            refused(101, None),
        ),
        ("SSH-2.0-OpenSSH_9\r\n\r\n", refused(0, None)),
        ("HTTP/1.1 40", Failure::Lost),
        ("", Failure::Lost),
    ];
    for (answer, failure) in table {
        assert_eq!(upgraded(answer).await, failure, "{answer}");
    }
}

#[tokio::test]
async fn an_extension_or_a_subprotocol_that_was_not_offered_opens_nothing() {
    for (name, value) in [("sec-websocket-extensions", "permessage-deflate"), ("sec-websocket-protocol", "amqp")] {
        let scene = Scene::start(|builder| builder).await;
        let (stream, _) = soon(scene.listener.accept()).await.unwrap();
        #[expect(clippy::result_large_err, reason = "the form that the callback has")]
        let answer = |request: &Request, response: Response| {
            accept(request, response).map(|mut response| {
                response.headers_mut().insert(name, HeaderValue::from_static(value));
                response
            })
        };
        let _server = soon(accept_hdr_async(stream, answer)).await;
        let refused = Failure::UpgradeRefused { status: 101, retry_after_secs: None };
        assert_eq!(scene.failed().await.last_failure, Some(refused), "{value}");
        scene.end().await;
    }
}

#[tokio::test]
async fn an_upgrade_that_stalls_ends_with_the_time_for_tls() {
    let mut timeouts = steadfast::Timeouts::DEFAULT;
    timeouts.tls = Duration::from_millis(200);
    let scene = Scene::start(|builder| builder.timeouts(timeouts)).await;
    let (stream, _) = soon(scene.listener.accept()).await.unwrap();
    assert_eq!(scene.failed().await.last_failure, Some(Failure::TlsTimeout));
    drop(stream);
    scene.end().await;
}
