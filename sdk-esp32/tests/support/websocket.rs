//! WebSockets as the simulated services have them, by the codec of tungstenite, and connectors that open them.

use std::collections::VecDeque;
use std::io::Cursor;
use std::rc::Rc;
use std::time::Duration;

use steadfast_core::{Failure, Instant, Seed};
use steadfast_esp32::websocket::{self, WebSocket};
use steadfast_esp32::{Board as _, Connect, Dial, OwnedDial, nonblocking};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use crate::rig::{AsyncPipe, Dialler, Dialling, Pipe, Rig, Shared, dial_slowly};

/// One connection, seen from the service.
#[derive(Default)]
pub(crate) struct Served {
    upgraded: bool,
    /// Bytes of the device that were not understood yet.
    raw: Vec<u8>,
    /// Frames sent so far.
    sent: u8,
    /// Payloads of pings that were not answered.
    pings: VecDeque<Vec<u8>>,
    pub(crate) pongs: usize,
}

impl Served {
    /// Takes bytes of the device; returns those of MQTT in them, and what to answer at once.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> (Vec<u8>, Vec<u8>) {
        self.raw.extend_from_slice(bytes);
        if !self.upgraded {
            let Some(end) = self.raw.windows(4).position(|four| four == b"\r\n\r\n") else {
                return (Vec::new(), Vec::new());
            };
            let head: Vec<u8> = self.raw.drain(..end + 4).collect();
            self.upgraded = true;
            // A ping on the heels of the answer.
            let mut answer = upgrade(std::str::from_utf8(&head).unwrap());
            self.ping(&mut answer);
            return (Vec::new(), answer);
        }
        let mut data = Vec::new();
        loop {
            let mut cursor = Cursor::new(&self.raw);
            let Some((header, len)) = FrameHeader::parse(&mut cursor).unwrap() else { break };
            let (at, len) = (usize::try_from(cursor.position()).unwrap(), usize::try_from(len).unwrap());
            if self.raw.len() < at + len {
                break;
            }
            let mask = header.mask.expect("a device masks its frames");
            let payload: Vec<u8> =
                self.raw[at..at + len].iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
            self.raw.drain(..at + len);
            assert!(header.is_final && !(header.rsv1 || header.rsv2 || header.rsv3));
            match header.opcode {
                OpCode::Data(Data::Binary) => data.extend(payload),
                // An answer to a ping answers those before it too.
                OpCode::Control(Control::Pong) => {
                    let answered = self.pings.iter().position(|ping| *ping == payload).expect("a pong for a ping");
                    self.pings.drain(..=answered);
                    self.pongs += 1;
                }
                other @ (OpCode::Data(_) | OpCode::Control(_)) => panic!("the device sent {other}"),
            }
        }
        (data, Vec::new())
    }

    /// Frames bytes to the device: in pieces of ever other lengths, with pings in the middle of messages.
    pub(crate) fn frame(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut framed = Vec::new();
        let size = 1 + usize::from(self.sent % 7) * 40;
        let pieces = bytes.chunks(size).count();
        for (number, piece) in bytes.chunks(size).enumerate() {
            let opcode = if number == 0 { Data::Binary } else { Data::Continue };
            write(&mut framed, number + 1 == pieces, OpCode::Data(opcode), piece);
            if number % 3 == 1 {
                self.ping(&mut framed);
            }
        }
        self.sent = self.sent.wrapping_add(1);
        framed
    }

    fn ping(&mut self, out: &mut Vec<u8>) {
        let payload = vec![self.sent; usize::from(self.sent % 126)];
        write(out, true, OpCode::Control(Control::Ping), &payload);
        self.pings.push_back(payload);
    }
}

fn write(out: &mut Vec<u8>, is_final: bool, opcode: OpCode, payload: &[u8]) {
    let header = FrameHeader { is_final, rsv1: false, rsv2: false, rsv3: false, opcode, mask: None };
    header.format(payload.len() as u64, out).unwrap();
    out.extend_from_slice(payload);
}

/// Answers a request for an upgrade.
fn upgrade(request: &str) -> Vec<u8> {
    let mut lines = request.split("\r\n");
    assert!(lines.next().unwrap().starts_with("GET /$iothub/websocket"), "{request}");
    let headers: Vec<_> = lines.filter_map(|line| line.split_once(": ")).collect();
    let value = |name: &str| headers.iter().find(|(key, _)| *key == name).expect(name).1;
    assert_eq!((value("Upgrade"), value("Connection")), ("websocket", "Upgrade"));
    assert_eq!((value("Sec-WebSocket-Version"), value("Sec-WebSocket-Protocol")), ("13", "mqtt"));
    assert!(!value("Host").contains(':'), "443 is the scheme's own port");
    let accept = derive_accept_key(value("Sec-WebSocket-Key").as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
    )
    .into_bytes()
}

/// Opens WebSockets.
pub(crate) struct WebDialler(pub(crate) Shared);

impl Connect for WebDialler {
    type Stream = WebSocket<Pipe, 131>;

    fn connect(&mut self, dial: &Dial<'_>) -> Result<Self::Stream, Failure> {
        let rig = Rig(Rc::clone(&self.0));
        let deadline = rig.now().after(dial.limit);
        let stream = Dialler(Rc::clone(&self.0)).connect(dial)?;
        let limit: Duration = deadline.since(rig.now());
        websocket::open(stream, dial, websocket::opening(dial), seed(rig.now()), || rig.now(), limit)
    }
}

/// Opens WebSockets in a task.
pub(crate) struct AsyncWebDialler(pub(crate) Shared);

impl nonblocking::Connect for AsyncWebDialler {
    type Stream = WebSocket<AsyncPipe, 131>;

    type Dialling = Dialling<Self::Stream>;

    fn connect(&mut self, dial: &OwnedDial) -> Result<Self::Dialling, Failure> {
        let (net, dial) = (Rc::clone(&self.0), dial.clone());
        Ok(Box::pin(async move {
            let (seed, dial) = (seed(Rig(Rc::clone(&net)).now()), dial.get());
            let stream = dial_slowly(&net, &dial).await?;
            websocket::open_async(stream, &dial, websocket::opening(&dial), seed).await
        }))
    }
}

fn seed(now: Instant) -> Seed {
    Seed::from_number(now.as_millis())
}
