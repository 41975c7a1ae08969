//! A network of fake streams in virtual time, with the simulated services behind it.

#[path = "websocket.rs"]
pub(crate) mod websocket;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll as Ready};
use std::time::Duration;

use bytes::BytesMut;
use embedded_io::ErrorKind;
use rumqttc::mqttbytes::Error as CodecError;
use rumqttc::mqttbytes::v4::Packet;
use steadfast_core::azure::key_choice::KeyPair;
use steadfast_core::azure::sas::SymmetricKey;
use steadfast_core::{Assignment, BackoffSnapshot, Failure, Instant, SignRequest, transport};
use steadfast_esp32::{Board, Connect, Dial, OwnedDial, Stream, nonblocking};
use steadfast_sim::service::{Dps, Hub, Key, Reaction, Reply};
use websocket::Served;

/// Wall-clock time at which a rig begins.
pub(crate) const UNIX: u64 = 1_780_000_000;
pub(crate) const DEVICE: &str = "pump-7";
pub(crate) const SCOPE: &str = "0ne00ABCDEF";
pub(crate) const HUBS: [&str; 2] = ["hub-a.azure-devices.net", "hub-b.azure-devices.net"];

/// One way there and back.
const LATENCY_MS: u64 = 20;

/// What a stream does with the bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manners {
    /// Most bytes of one read.
    pub(crate) read: usize,
    /// Most bytes of one write.
    pub(crate) write: usize,
    /// Every other call says "not now".
    pub(crate) reluctant: bool,
}

pub(crate) const PLAIN: Manners = Manners { read: usize::MAX, write: usize::MAX, reluctant: false };

/// What happens once, when so many bytes have passed a stream, both directions together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The connection breaks.
    Break,
    /// Nothing passes any more, and nobody is told.
    Stall,
}

struct Connection {
    host: String,
    /// When it arrives, and what.
    inbound: VecDeque<(u64, Vec<u8>)>,
    /// When the device sees the end.
    ends_at: Option<u64>,
    outbound: BytesMut,
    /// It speaks WebSockets.
    frames: Option<Served>,
    stalled: bool,
    reluctant: bool,
}

impl Connection {
    /// Sends bytes of MQTT to the device.
    fn send(&mut self, at: u64, bytes: Vec<u8>) {
        let bytes = self.frames.as_mut().map_or(bytes.clone(), |frames| frames.frame(&bytes));
        self.inbound.push_back((at, bytes));
    }
}

pub(crate) struct Net {
    pub(crate) now: u64,
    pub(crate) hubs: Vec<Hub>,
    pub(crate) reachable: [bool; 2],
    pub(crate) dps: Dps,
    pub(crate) manners: Manners,
    /// Trouble to come, and after how many bytes in all.
    pub(crate) trouble: Option<(usize, Trouble)>,
    /// Bytes that passed, both directions.
    pub(crate) bytes: usize,
    pub(crate) dials: Vec<(u64, String)>,
    /// How long an asynchronous dial takes.
    pub(crate) dial_ms: u64,
    /// When the dial under way is done.
    dial_ends: Option<u64>,
    /// When another task of the device has something to do.
    pub(crate) tick: Option<u64>,
    /// Asynchronous dials that were begun.
    pub(crate) begun: usize,
    /// What the device signs with.
    pub(crate) keys: KeyPair,
    pub(crate) saved: Option<Assignment>,
    pub(crate) memory: Option<BackoffSnapshot>,
    /// Pings of services that devices answered.
    pub(crate) pongs: usize,
    /// How often a memory was written.
    pub(crate) memory_writes: usize,
    /// A stream said "not now", and would wake its task soon.
    soon: bool,
    connections: BTreeMap<u64, Connection>,
}

pub(crate) type Shared = Rc<RefCell<Net>>;

pub(crate) fn key() -> Key {
    Rc::new(sas_key(7))
}

pub(crate) fn sas_key(byte: u8) -> SymmetricKey {
    SymmetricKey::from_bytes(&[byte; 32]).unwrap()
}

impl Net {
    pub(crate) fn new() -> Shared {
        let mut dps = Dps::new(SCOPE);
        dps.enroll(DEVICE, Some(key()), HUBS[0], UNIX);
        let mut hubs: Vec<Hub> = HUBS.iter().map(|name| Hub::new(name)).collect();
        hubs[0].add(DEVICE, Some(key()));
        Rc::new(RefCell::new(Self {
            now: 0,
            hubs,
            reachable: [true; 2],
            dps,
            manners: PLAIN,
            trouble: None,
            bytes: 0,
            dials: Vec::new(),
            dial_ms: 0,
            dial_ends: None,
            tick: None,
            begun: 0,
            keys: KeyPair::new(sas_key(7), sas_key(7)),
            saved: None,
            memory: None,
            memory_writes: 0,
            pongs: 0,
            soon: false,
            connections: BTreeMap::new(),
        }))
    }

    pub(crate) fn unix(&self) -> u64 {
        UNIX + self.now / 1000
    }

    /// Moves the device to the other hub.
    pub(crate) fn migrate(&mut self) {
        let unix = self.unix();
        self.dps.assign(DEVICE, HUBS[1], unix);
        self.hubs[1].add(DEVICE, Some(key()));
        let reactions = self.hubs[0].remove(DEVICE);
        self.react(reactions);
        // What is under way is lost with the connection.
        let now = self.now;
        self.connections.values_mut().filter(|it| it.host == HUBS[0]).for_each(|it| it.ends_at = Some(now));
    }

    pub(crate) fn hub_down(&mut self, hub: usize) {
        self.reachable[hub] = false;
        let (now, host) = (self.now, HUBS[hub]);
        for connection in self.connections.values_mut().filter(|connection| connection.host == host) {
            connection.ends_at = Some(now);
        }
    }

    /// The device is off for a second; every connection of it breaks.
    pub(crate) fn cut_power(&mut self) {
        for id in self.connections.keys().copied().collect::<Vec<_>>() {
            self.leave(id);
        }
        self.now += 1_000;
    }

    pub(crate) fn hub_up(&mut self, hub: usize) {
        self.reachable[hub] = true;
    }

    /// Sends a message to the device.
    pub(crate) fn send_to_device(&mut self, hub: usize, payload: &[u8]) {
        let topic = format!("devices/{DEVICE}/messages/devicebound/k=v");
        let reactions = self.hubs[hub].send_to(DEVICE, &topic, payload, true);
        self.react(reactions);
    }

    /// Sends bytes that no service sends.
    pub(crate) fn garbage(&mut self) {
        let at = self.now;
        for connection in self.connections.values_mut() {
            connection.send(at, vec![0xf0, 0xff, 0x00, 0x13]);
        }
    }

    /// Payloads the hubs stored, in order, without copies.
    pub(crate) fn stored(&self) -> Vec<String> {
        let mut all: Vec<_> = self.hubs.iter().flat_map(Hub::receipts).collect();
        all.sort_by_key(|receipt| receipt.at_ms);
        let mut seen = Vec::new();
        for receipt in all {
            let text = String::from_utf8(receipt.payload.clone()).unwrap();
            if !seen.contains(&text) {
                seen.push(text);
            }
        }
        seen
    }

    pub(crate) fn copies(&self) -> usize {
        self.hubs.iter().map(|hub| hub.receipts().len()).sum::<usize>() - self.stored().len()
    }

    pub(crate) fn objections(&self) -> Vec<String> {
        self.hubs.iter().flat_map(Hub::objections).chain(self.dps.objections()).cloned().collect()
    }

    pub(crate) fn react(&mut self, reactions: Vec<Reaction>) {
        for reaction in reactions {
            let at = self.now + LATENCY_MS + reaction.after_ms;
            let Some(connection) = self.connections.get_mut(&reaction.connection) else { continue };
            match reaction.reply {
                Reply::Packet(packet) => {
                    let mut bytes = BytesMut::new();
                    packet.write(&mut bytes, 1 << 20).unwrap();
                    connection.send(at, bytes.to_vec());
                }
                Reply::Bytes(bytes) => connection.send(at, bytes),
                Reply::Close => connection.ends_at = Some(connection.ends_at.map_or(at, |before| before.min(at))),
                _ => panic!("an unknown reply"),
            }
        }
    }

    /// The connection speaks WebSockets from here on.
    fn web_socket(&mut self, id: u64) {
        self.connections.get_mut(&id).unwrap().frames = Some(Served::default());
    }

    pub(crate) fn dial(&mut self, host: &str) -> Result<u64, Failure> {
        self.dials.push((self.now, host.to_owned()));
        self.now += LATENCY_MS;
        let hub = HUBS.iter().position(|name| *name == host);
        if hub.is_some_and(|hub| !self.reachable[hub]) {
            return Err(Failure::ConnectionRefused);
        }
        let id = self.dials.len() as u64;
        let connection = Connection {
            host: host.to_owned(),
            inbound: VecDeque::new(),
            ends_at: None,
            outbound: BytesMut::new(),
            frames: None,
            stalled: false,
            reluctant: false,
        };
        self.connections.insert(id, connection);
        Ok(id)
    }

    /// Lets the trouble begin when its byte comes; returns how many of `len` bytes pass before it.
    fn pass(&mut self, id: u64, len: usize) -> Result<usize, ErrorKind> {
        let connection = self.connections.get_mut(&id).ok_or(ErrorKind::ConnectionReset)?;
        if connection.stalled {
            return Err(ErrorKind::TimedOut);
        }
        if self.manners.reluctant {
            connection.reluctant = !connection.reluctant;
            if connection.reluctant {
                self.soon = true;
                return Err(ErrorKind::Interrupted);
            }
        }
        let Some((after, trouble)) = self.trouble else { return Ok(len) };
        let left = after - self.bytes;
        if left > 0 {
            return Ok(len.min(left));
        }
        self.trouble = None;
        match trouble {
            Trouble::Break => {
                self.leave(id);
                Err(ErrorKind::ConnectionReset)
            }
            Trouble::Stall => {
                connection.stalled = true;
                Err(ErrorKind::TimedOut)
            }
        }
    }

    fn leave(&mut self, id: u64) {
        self.connections.remove(&id);
        self.hubs.iter_mut().for_each(|hub| hub.closed(id));
        self.dps.closed(id);
    }

    fn write(&mut self, id: u64, bytes: &[u8]) -> Result<usize, ErrorKind> {
        assert!(!bytes.is_empty(), "a write of nothing");
        let len = self.pass(id, bytes.len().min(self.manners.write))?;
        self.bytes += len;
        let now = self.now;
        let connection = self.connections.get_mut(&id).ok_or(ErrorKind::ConnectionReset)?;
        if connection.ends_at.is_some_and(|at| at <= now) {
            return Err(ErrorKind::ConnectionReset);
        }
        match &mut connection.frames {
            None => connection.outbound.extend_from_slice(&bytes[..len]),
            Some(frames) => {
                let (data, answer) = frames.take(&bytes[..len]);
                self.pongs += std::mem::take(&mut frames.pongs);
                connection.outbound.extend_from_slice(&data);
                if !answer.is_empty() {
                    connection.inbound.push_back((now + LATENCY_MS, answer));
                }
            }
        }
        let host = connection.host.clone();
        while let Some(connection) = self.connections.get_mut(&id) {
            match Packet::read(&mut connection.outbound, 1 << 20) {
                Ok(packet) => {
                    let (unix, now) = (self.unix(), self.now);
                    let reactions = match self.hubs.iter_mut().find(|hub| hub.name() == host) {
                        Some(hub) => hub.packet(id, packet, unix, now),
                        None => self.dps.packet(id, packet, unix, now),
                    };
                    self.react(reactions);
                }
                Err(CodecError::InsufficientBytes(_)) => break,
                Err(error) => panic!("the device sent what rumqttc cannot read: {error:?}"),
            }
        }
        Ok(len)
    }

    /// Reads what has arrived; `None` when nothing has.
    fn read(&mut self, id: u64, buffer: &mut [u8]) -> Option<Result<usize, ErrorKind>> {
        assert!(!buffer.is_empty(), "a read of nothing");
        let now = self.now;
        let Some(connection) = self.connections.get(&id) else { return Some(Err(ErrorKind::ConnectionReset)) };
        if connection.stalled {
            return None;
        }
        let arrived = connection.inbound.front().is_some_and(|(at, _)| *at <= now);
        if !arrived {
            return connection.ends_at.filter(|at| *at <= now).map(|_| Ok(0));
        }
        let len = match self.pass(id, buffer.len().min(self.manners.read)) {
            Ok(len) => len,
            Err(kind) => return Some(Err(kind)),
        };
        let (_, chunk) = self.connections.get_mut(&id)?.inbound.front_mut()?;
        let len = len.min(chunk.len());
        buffer[..len].copy_from_slice(&chunk[..len]);
        chunk.drain(..len);
        if chunk.is_empty() {
            self.connections.get_mut(&id)?.inbound.pop_front();
        }
        self.bytes += len;
        Some(Ok(len))
    }

    /// When something next arrives on a connection.
    fn arrival(&self, id: u64) -> Option<u64> {
        let Some(connection) = self.connections.get(&id) else { return Some(self.now) };
        if connection.stalled {
            return None;
        }
        let data = connection.inbound.front().map(|(at, _)| *at);
        data.into_iter().chain(connection.ends_at).min()
    }

    pub(crate) fn open_connections(&self) -> usize {
        self.connections.len()
    }

    fn next_arrival(&self) -> Option<u64> {
        self.connections.keys().filter_map(|id| self.arrival(*id)).min()
    }
}

/// The board of a device in the rig.
pub(crate) struct Rig(pub(crate) Shared);

impl Board for Rig {
    fn now(&self) -> Instant {
        Instant::from_millis(self.0.borrow().now)
    }

    fn unix_secs(&self) -> Option<u64> {
        Some(self.0.borrow().unix())
    }

    fn sign(&mut self, request: SignRequest<'_>) -> Result<[u8; 32], Failure> {
        Ok(self.0.borrow_mut().keys.sign(&request))
    }

    fn save(&mut self, assignment: &Assignment) {
        self.0.borrow_mut().saved = Some(assignment.clone());
    }

    fn save_backoff(&mut self, memory: BackoffSnapshot) {
        let mut net = self.0.borrow_mut();
        net.memory_writes += usize::from(net.memory != Some(memory));
        net.memory = Some(memory);
    }

    fn sleep(&mut self, span: Duration) {
        let mut net = self.0.borrow_mut();
        let millis = u64::try_from(span.as_millis()).unwrap().max(1);
        net.now += millis;
    }
}

pub(crate) struct Dialler(pub(crate) Shared);

/// A stream; dropping it closes the connection.
pub(crate) struct Pipe {
    pub(crate) net: Shared,
    pub(crate) id: u64,
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.net.borrow_mut().leave(self.id);
    }
}

impl embedded_io::ErrorType for Pipe {
    type Error = ErrorKind;
}

impl embedded_io::Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
        self.net.borrow_mut().read(self.id, buffer).expect("a read that was not waited for")
    }
}

impl embedded_io::Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        self.net.borrow_mut().write(self.id, bytes)
    }

    fn flush(&mut self) -> Result<(), ErrorKind> {
        Ok(())
    }
}

impl Stream for Pipe {
    fn wait_readable(&mut self, limit: Duration) -> Result<bool, ErrorKind> {
        let mut net = self.net.borrow_mut();
        let until = net.now.saturating_add(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
        let arrival = net.arrival(self.id).filter(|at| *at <= until);
        net.now = net.now.max(arrival.unwrap_or(until));
        Ok(arrival.is_some())
    }
}

impl Connect for Dialler {
    type Stream = Pipe;

    fn connect(&mut self, dial: &Dial<'_>) -> Result<Pipe, Failure> {
        Ok(Pipe { net: Rc::clone(&self.0), id: reach(&self.0, dial)? })
    }
}

/// Connects; on the port of WebSockets the service speaks them.
fn reach(net: &Shared, dial: &Dial<'_>) -> Result<u64, Failure> {
    let mut net = net.borrow_mut();
    let id = net.dial(dial.host)?;
    match dial.port {
        transport::PORT => net.web_socket(id),
        port => assert_eq!(port, 8883),
    }
    Ok(id)
}

/// The asynchronous face of a [`Pipe`].
pub(crate) struct AsyncPipe(Pipe);

impl embedded_io::ErrorType for AsyncPipe {
    type Error = ErrorKind;
}

fn is_not_now(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::TimedOut | ErrorKind::Interrupted)
}

impl embedded_io_async::Read for AsyncPipe {
    async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
        poll_fn(|_| match self.0.net.borrow_mut().read(self.0.id, buffer) {
            None => Ready::Pending,
            Some(Err(kind)) if is_not_now(kind) => Ready::Pending,
            Some(result) => Ready::Ready(result),
        })
        .await
    }
}

impl embedded_io_async::Write for AsyncPipe {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        poll_fn(|_| match self.0.net.borrow_mut().write(self.0.id, bytes) {
            Err(kind) if is_not_now(kind) => Ready::Pending,
            result => Ready::Ready(result),
        })
        .await
    }

    async fn flush(&mut self) -> Result<(), ErrorKind> {
        Ok(())
    }
}

pub(crate) struct AsyncDialler(pub(crate) Shared);

impl nonblocking::Connect for AsyncDialler {
    type Stream = AsyncPipe;
    type Dialling = Dialling<AsyncPipe>;

    fn connect(&mut self, dial: &OwnedDial) -> Result<Dialling<AsyncPipe>, Failure> {
        let (net, dial) = (Rc::clone(&self.0), dial.clone());
        net.borrow_mut().begun += 1;
        Ok(Box::pin(async move { dial_slowly(&net, &dial.get()).await }))
    }
}

/// A dial under way.
pub(crate) type Dialling<S> = Pin<Box<dyn Future<Output = Result<S, Failure>>>>;

/// Dials for as long as a dial takes, a moment at least.
pub(crate) async fn dial_slowly(net: &Shared, dial: &Dial<'_>) -> Result<AsyncPipe, Failure> {
    let first = Cell::new(true);
    let done = net.borrow().now + net.borrow().dial_ms;
    poll_fn(|_| {
        let mut net = net.borrow_mut();
        let pending = first.replace(false) || net.now < done;
        if net.dial_ms == 0 {
            net.soon = pending;
        } else {
            net.dial_ends = pending.then_some(done);
        }
        if pending { Ready::Pending } else { Ready::Ready(()) }
    })
    .await;
    Ok(AsyncPipe(Pipe { net: Rc::clone(net), id: reach(net, dial)? }))
}

/// The dialler of an asynchronous device.
pub(crate) fn dialler<C: nonblocking::Connect>(connector: C) -> nonblocking::Dialler<'static, C>
where
    C::Dialling: 'static,
{
    nonblocking::Dialler::new(connector, Pin::static_mut(Box::leak(Box::new(None))))
}

/// Lets virtual time pass when a task has nothing else to wait for.
pub(crate) struct Clock(pub(crate) Shared);

impl nonblocking::Timer for Clock {
    async fn wait_until(&mut self, at: Instant) {
        poll_fn(|_| {
            let mut net = self.0.borrow_mut();
            let at = at.as_millis();
            if net.now >= at {
                return Ready::Ready(());
            }
            // Not further than to what wakes a read.
            let soon = std::mem::take(&mut net.soon);
            let next = net.next_arrival().into_iter().chain(net.dial_ends).chain(net.tick).min();
            let next = if soon { net.now } else { next.unwrap_or(at) };
            net.now = at.min(next.max(net.now + 1));
            Ready::Pending
        })
        .await;
    }
}

/// Runs a future whose wakers nobody calls, for at most `polls` polls; `None` when it is dropped unfinished.
pub(crate) fn run_for<T>(polls: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    let mut context = Context::from_waker(std::task::Waker::noop());
    (0..polls).find_map(|_| match future.as_mut().poll(&mut context) {
        Ready::Ready(result) => Some(result),
        Ready::Pending => None,
    })
}
