//! A connection whose packets are carried by an MQTT client of `embedded-svc`.
//!
//! It is for firmware that must use such a client, like ESP-IDF's esp-mqtt. Prefer a byte stream ([`Connect`] over
//! `EspTls` or a socket): this connection keeps the link's guarantees about messages, but loses the reasons of
//! failures.
//!
//! To the device it is a [`Stream`] like any other. What the link writes is taken apart into packets and handed to a
//! client as calls; what the client's [`Connection`] reports is put together as packets for the link to read. The
//! client keeps ids of its own, which are led back to the link's.
//!
//! # Rules
//! * A client serves one attempt. It is made when the link sends CONNECT and dropped with the connection and all its
//!   messages: the link has every message until its acknowledgement, and sends it again.
//! * Its own reconnection must be off (esp-idf-svc: `reconnect_timeout: None`), else two of them compete.
//! * Its end is the end of the connection: a disconnection, an error, or a message it deleted without acknowledgement.
//!
//! # Limits
//! * **Failures have no reason.** Neither the code of a refusal nor the failure of name, TCP or TLS comes through these
//!   traits: all is a connection that ended or a CONNACK that did not come, which the link takes for overload. Its ladder
//!   of fresh token, second refusal and Device Provisioning Service is out of reach, and a device whose hub has sent it
//!   away moves when the application calls `reprovision`. [`Clients::refusal`] brings all of that back where the client
//!   can tell. esp-idf-svc 0.53 cannot: it reports every error as `ESP_FAIL`.
//! * **Messages to the device are acknowledged by the client**, when it receives them and not when they are handled.
//!   A message under way during a power cut is lost. They come as of QoS 0, and never as sent before.
//! * **Pings are the client's.** The link's own are answered here and prove nothing; set the client's keep-alive to what
//!   [`Session::keep_alive`] says.
//! * **The granted QoS of a subscription is not reported**; it counts as the requested one.
//! * **The client must not send twice on one connection.** esp-mqtt resends after 1 s what is not acknowledged, so that
//!   a slow hub stores copies; and it deletes after 30 s what is not, which ends the connection here.
//! * **MQTT 3.1.1 only**: a CONNECT of another version ends the connection before a client is made.
//! * The client's outbox must have room for all messages in flight.

use core::fmt;
use core::time::Duration;

use embedded_io::{ErrorKind, ErrorType, Read, Write};
use embedded_svc::mqtt::client::{Client, Connection, Details, Enqueue, Event as _, EventPayload, MessageId, QoS};
use heapless::{String, Vec};
use steadfast_core::{Failure, ServiceKind};

use crate::board::{Connect, Dial, HOST_BYTES, Stream};

/// The settings of a client.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Session<'a> {
    /// Host name; also the name to verify the certificate against.
    pub host: &'a str,
    /// TCP port; it speaks TLS.
    pub port: u16,
    /// Which service it is.
    pub role: ServiceKind,
    /// Whether to present the device's certificate in the TLS handshake.
    pub client_certificate: bool,
    /// The MQTT client id.
    pub client_id: &'a str,
    /// The user name, if there is one.
    pub username: Option<&'a str>,
    /// The password, such as a token; it is never printed.
    pub password: Option<&'a str>,
    /// After how long without traffic the client pings; zero for never.
    pub keep_alive: Duration,
    /// Whether the service forgets the session before.
    pub clean_session: bool,
}

impl fmt::Debug for Session<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("host", &self.host).field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

/// Makes clients, one for each attempt.
pub trait Clients {
    /// A client with an outbox. Its calls return at once.
    type Client: Client + Enqueue;
    /// Where [`report`] puts what the client's connection reports.
    type Inbox: Inbox;

    /// Makes a client for `session` that begins to connect, without a reconnection of its own. What its connection
    /// reports goes through [`report`] into the inbox.
    ///
    /// # Errors
    /// The client cannot be made; the attempt fails.
    fn open(&self, session: &Session<'_>) -> Result<(Self::Client, Self::Inbox), ErrorKind>;

    /// Returns the code with which the service refused the latest client, when the client knows it. The default knows
    /// none.
    fn refusal(&self) -> Option<u8> {
        None
    }
}

/// The reading end of what a client's connection reports: of a channel, in most cases, since a
/// [`Connection`] waits without end and wants a thread of its own.
///
/// A read that cannot go on says [`TimedOut`](ErrorKind::TimedOut) or [`Interrupted`](ErrorKind::Interrupted), one after
/// the end returns 0.
pub trait Inbox: Read {
    /// Waits until a read would return at once, `limit` at most, and returns whether it would.
    ///
    /// # Errors
    /// The inbox's.
    fn wait_readable(&mut self, limit: Duration) -> Result<bool, Self::Error>;
}

/// Waits for the next event of `connection` and writes what it means into `out`, the other end of an [`Inbox`].
///
/// Returns whether there can be more; when not, `out` is to be closed. A thread calls it in a loop.
///
/// # Errors
/// That of `out`, which may have been closed by the pipe.
pub fn report<C: Connection, W: Write>(connection: &mut C, out: &mut W) -> Result<bool, W::Error> {
    let Ok(event) = connection.next() else { return Ok(false) };
    match event.payload() {
        EventPayload::Connected(session_present) => out.write_all(&[CONNACK, 2, u8::from(session_present), 0])?,
        EventPayload::Published(id) => acknowledge(out, PUBACK, id)?,
        EventPayload::Subscribed(id) => acknowledge(out, SUBACK, id)?,
        EventPayload::Received { topic, data, details, .. } => match details {
            Details::Complete => message(out, topic.unwrap_or_default(), data, data.len())?,
            Details::InitialChunk(chunk) => message(out, topic.unwrap_or_default(), data, chunk.total_data_size)?,
            Details::SubsequentChunk(_) => out.write_all(data)?,
        },
        EventPayload::BeforeConnect | EventPayload::Unsubscribed(_) => {}
        EventPayload::Disconnected | EventPayload::Deleted(_) | EventPayload::Error(_) => return Ok(false),
    }
    out.flush()?;
    Ok(true)
}

/// An acknowledgement under the client's own id, which has four bytes here.
fn acknowledge<W: Write>(out: &mut W, kind: u8, id: MessageId) -> Result<(), W::Error> {
    let [a, b, c, d] = id.to_be_bytes();
    out.write_all(&[kind, 4, a, b, c, d])
}

/// The head of a PUBLISH of QoS 0 and the first of its payload.
fn message<W: Write>(out: &mut W, topic: &str, data: &[u8], total: usize) -> Result<(), W::Error> {
    let topic_len = u16::try_from(topic.len()).unwrap_or(u16::MAX);
    let mut rest = total.saturating_add(topic.len()).saturating_add(2);
    out.write_all(&[PUBLISH])?;
    // Section 2.2.3: seven bits a byte, the lowest first.
    loop {
        let [low, ..] = rest.to_le_bytes();
        rest >>= 7;
        out.write_all(&[(low & 0x7f) | if rest > 0 { 0x80 } else { 0 }])?;
        if rest == 0 {
            break;
        }
    }
    out.write_all(&topic_len.to_be_bytes())?;
    out.write_all(topic.as_bytes())?;
    out.write_all(data)
}

/// Dials by making clients. `IDS` is the most messages and subscriptions without acknowledgement: the configuration's
/// window and 8 more will do.
#[derive(Debug)]
pub struct ClientDialler<F, const IDS: usize = 32> {
    clients: F,
}

impl<F: Clients + Clone, const IDS: usize> ClientDialler<F, IDS> {
    /// Uses `clients`, of which each connection gets a clone: a reference, in most cases.
    pub const fn new(clients: F) -> Self {
        Self { clients }
    }
}

impl<F: Clients> Clients for &F {
    type Client = F::Client;
    type Inbox = F::Inbox;

    fn open(&self, session: &Session<'_>) -> Result<(Self::Client, Self::Inbox), ErrorKind> {
        (**self).open(session)
    }

    fn refusal(&self) -> Option<u8> {
        (**self).refusal()
    }
}

impl<F: Clients + Clone, const IDS: usize> Connect for ClientDialler<F, IDS> {
    type Stream = ClientStream<F, IDS>;

    fn connect(&mut self, dial: &Dial<'_>) -> Result<Self::Stream, Failure> {
        Ok(ClientStream {
            clients: self.clients.clone(),
            host: String::try_from(dial.host).map_err(|_| Failure::Unresolved)?,
            port: dial.port,
            role: dial.role,
            client_certificate: dial.client_certificate,
            open: None,
            ids: Vec::new(),
            frame: Vec::new(),
            ready: Vec::new(),
            passing: 0,
            pong: false,
            greeted: false,
            ended: false,
        })
    }
}

/// A connection over the client pipe; see the [module](self) for its limits.
pub struct ClientStream<F: Clients, const IDS: usize> {
    clients: F,
    host: String<HOST_BYTES>,
    port: u16,
    role: ServiceKind,
    client_certificate: bool,
    open: Option<(F::Client, F::Inbox)>,
    ids: Vec<Open, IDS>,
    /// What came of a packet whose kind or ids are not known yet.
    frame: Vec<u8, 8>,
    /// For the link, before anything else.
    ready: Vec<u8, 8>,
    /// Bytes of the present packet that go to the link as they come.
    passing: usize,
    /// The link has asked for a ping.
    pong: bool,
    /// The service has answered CONNECT.
    greeted: bool,
    ended: bool,
}

/// What the client has not acknowledged.
#[derive(Clone, Copy, Debug)]
struct Open {
    kind: u8,
    of_client: MessageId,
    of_link: u16,
    /// What a subscription counts as granted.
    level: u8,
}

impl<F: Clients, const IDS: usize> fmt::Debug for ClientStream<F, IDS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientStream").field("host", &self.host).field("ids", &self.ids).finish_non_exhaustive()
    }
}

impl<F: Clients, const IDS: usize> ClientStream<F, IDS> {
    /// Hands one packet of the link to the client.
    fn hand_over(&mut self, first: u8, body: &[u8]) -> Result<(), ErrorKind> {
        let mut fields = Fields(body);
        if first == CONNECT {
            let session = self.session(&mut fields).ok_or(ErrorKind::InvalidInput)?;
            self.open = Some(self.clients.open(&session)?);
            return Ok(());
        }
        let (client, _) = self.open.as_mut().ok_or(ErrorKind::NotConnected)?;
        match first & 0xf0 {
            PUBLISH => {
                let level = first >> 1 & 3;
                let topic = fields.text().ok_or(ErrorKind::InvalidInput)?;
                let of_link = if level > 0 { fields.number().ok_or(ErrorKind::InvalidInput)? } else { 0 };
                let retain = first & 1 != 0;
                let sent = client.enqueue(topic, level_of(level)?, retain, fields.0);
                let of_client = sent.map_err(|_| ErrorKind::OutOfMemory)?;
                if level == 0 {
                    return Ok(());
                }
                self.note(Open { kind: PUBACK, of_client, of_link, level })
            }
            SUBSCRIBE => {
                let of_link = fields.number().ok_or(ErrorKind::InvalidInput)?;
                let filter = fields.text().ok_or(ErrorKind::InvalidInput)?;
                // The link subscribes to one filter at a time, and so do these traits.
                let [level] = *fields.0 else { return Err(ErrorKind::InvalidInput) };
                let sent = client.subscribe(filter, level_of(level)?);
                let of_client = sent.map_err(|_| ErrorKind::OutOfMemory)?;
                self.note(Open { kind: SUBACK, of_client, of_link, level })
            }
            PINGREQ => {
                self.pong = true;
                Ok(())
            }
            // The client has acknowledged the message itself.
            PUBACK => Ok(()),
            DISCONNECT => {
                self.open = None;
                Ok(())
            }
            _ => Err(ErrorKind::Unsupported),
        }
    }

    fn note(&mut self, open: Open) -> Result<(), ErrorKind> {
        self.ids.push(open).map_err(|_| ErrorKind::OutOfMemory)
    }

    /// Reads CONNECT (section 3.1).
    fn session<'a>(&'a self, fields: &mut Fields<'a>) -> Option<Session<'a>> {
        let _protocol = fields.text()?;
        let level = fields.byte()?;
        let flags = fields.byte()?;
        let keep_alive = Duration::from_secs(fields.number()?.into());
        let client_id = fields.text()?;
        if level != 4 || flags & 4 != 0 {
            // The traits know MQTT 3.1.1 without a will, which is what the link speaks to a hub.
            return None;
        }
        let username = if flags & 0x80 != 0 { Some(fields.text()?) } else { None };
        let password = if flags & 0x40 != 0 { Some(fields.text()?) } else { None };
        let (port, role, client_certificate) = (self.port, self.role, self.client_certificate);
        let clean_session = flags & 2 != 0;
        let host = &self.host;
        Some(Session { host, port, role, client_certificate, client_id, username, password, keep_alive, clean_session })
    }

    /// Reads what the client's connection reported, until something is for the link.
    fn take(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
        loop {
            if !self.ready.is_empty() {
                let len = self.ready.len().min(buffer.len());
                for (place, byte) in buffer.iter_mut().zip(&self.ready) {
                    *place = *byte;
                }
                self.ready.drain(..len);
                return Ok(len);
            }
            if self.ended {
                return Ok(0);
            }
            if self.pong && self.passing == 0 && self.frame.is_empty() {
                self.pong = false;
                self.put(&[PINGRESP, 0]);
                continue;
            }
            let (_, inbox) = self.open.as_mut().ok_or(ErrorKind::TimedOut)?;
            if self.passing > 0 {
                let room = buffer.len().min(self.passing);
                let len = inbox.read(buffer.get_mut(..room).unwrap_or_default()).map_err(kind)?;
                self.ended |= len == 0;
                self.passing -= len;
                return Ok(len);
            }
            let mut byte = [0];
            if inbox.read(&mut byte).map_err(kind)? == 0 {
                self.ended = true;
                if let Some(code) = self.clients.refusal().filter(|_| !self.greeted) {
                    self.put(&[CONNACK, 2, 0, code]);
                }
                continue;
            }
            let [byte] = byte;
            self.frame.push(byte).map_err(|_| ErrorKind::InvalidData)?;
            self.sort();
        }
    }

    /// Passes on what is known of the present packet.
    fn sort(&mut self) {
        let frame = self.frame.clone();
        match *frame.as_slice() {
            [first @ (PUBACK | SUBACK), 4, a, b, c, d] => {
                self.frame.clear();
                let of_client = MessageId::from_be_bytes([a, b, c, d]);
                let known = self.ids.iter().position(|open| (open.kind, open.of_client) == (first, of_client));
                let Some(open) = known.map(|at| self.ids.swap_remove(at)) else { return };
                let [high, low] = open.of_link.to_be_bytes();
                if first == PUBACK {
                    self.put(&[first, 2, high, low]);
                } else {
                    self.put(&[first, 3, high, low, open.level]);
                }
            }
            [first @ (CONNACK | PUBLISH), ref length @ .., last] if last < 0x80 => {
                self.greeted |= first == CONNACK;
                let low = length.iter().rev().fold(usize::from(last), |sum, byte| sum << 7 | usize::from(byte & 0x7f));
                self.passing = low;
                self.put(&frame);
                self.frame.clear();
            }
            _ => {}
        }
    }

    fn put(&mut self, bytes: &[u8]) {
        self.ready.extend(bytes.iter().copied().take(self.ready.capacity()));
    }
}

impl<F: Clients, const IDS: usize> ErrorType for ClientStream<F, IDS> {
    type Error = ErrorKind;
}

impl<F: Clients, const IDS: usize> Read for ClientStream<F, IDS> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
        self.take(buffer)
    }
}

impl<F: Clients, const IDS: usize> Write for ClientStream<F, IDS> {
    /// Takes one packet; the link writes whole ones.
    fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        let (first, body, len) = first_packet(bytes).ok_or(ErrorKind::InvalidInput)?;
        self.hand_over(first, body)?;
        Ok(len)
    }

    fn flush(&mut self) -> Result<(), ErrorKind> {
        Ok(())
    }
}

impl<F: Clients, const IDS: usize> Stream for ClientStream<F, IDS> {
    fn wait_readable(&mut self, limit: Duration) -> Result<bool, ErrorKind> {
        if !self.ready.is_empty() || self.ended || self.pong && self.passing == 0 && self.frame.is_empty() {
            return Ok(true);
        }
        match &mut self.open {
            Some((_, inbox)) => inbox.wait_readable(limit).map_err(kind),
            // After DISCONNECT there is nothing to wait for.
            None => Err(ErrorKind::NotConnected),
        }
    }
}

/// Returns the first byte, the body and the length of the packet at the front of `bytes`.
fn first_packet(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let (first, rest) = bytes.split_first()?;
    let last = rest.iter().take(4).position(|byte| *byte < 0x80)?;
    let (length, rest) = rest.split_at_checked(last + 1)?;
    let length = length.iter().rev().fold(0, |sum, byte| sum << 7 | usize::from(byte & 0x7f));
    Some((*first, rest.get(..length)?, 1 + last + 1 + length))
}

fn level_of(level: u8) -> Result<QoS, ErrorKind> {
    match level {
        0 => Ok(QoS::AtMostOnce),
        1 => Ok(QoS::AtLeastOnce),
        _ => Err(ErrorKind::Unsupported),
    }
}

fn kind(error: impl embedded_io::Error) -> ErrorKind {
    error.kind()
}

/// The fields of a packet.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    fn number(&mut self) -> Option<u16> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u16::from_be_bytes(*number))
    }

    fn text(&mut self) -> Option<&'a str> {
        let len = self.number()?;
        let (text, rest) = self.0.split_at_checked(len.into())?;
        self.0 = rest;
        core::str::from_utf8(text).ok()
    }
}

/// First bytes of packets (MQTT 3.1.1, section 2.2), those of PUBLISH without flags.
const CONNECT: u8 = 0x10;
const CONNACK: u8 = 0x20;
const PUBLISH: u8 = 0x30;
const PUBACK: u8 = 0x40;
const SUBSCRIBE: u8 = 0x80;
const SUBACK: u8 = 0x90;
const PINGREQ: u8 = 0xc0;
const PINGRESP: u8 = 0xd0;
const DISCONNECT: u8 = 0xe0;
