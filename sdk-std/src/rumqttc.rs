//! The client pipe: a connection whose packets are carried by rumqttc's event loop.
//!
//! To the driver it is a [`Stream`] like any other. What the link writes is taken apart into packets and handed to an
//! event loop of rumqttc as requests; what that reports is put together as packets for the link to read. The event loop
//! in turn talks to the service through a socket within this process, since it takes no stream of ours: an abstract
//! Unix socket, on which only this process is let in. Resolving, connecting and TLS stay what they are without it.
//!
//! The rules that keep rumqttc from losing or inventing anything:
//!
//! * An event loop serves one attempt and is dropped at its first error, with all it holds; nothing of it is resent. The
//!   link has every message until its acknowledgement and sends it again.
//! * All messages of the outbox are of QoS 1, from one producer, and fewer than its in-flight limit. Its ids follow the
//!   order of the requests: the n-th publish it reports is the n-th handed over, which is how its ids lead back to the
//!   link's.
//! * What it had not reported when an error came is dropped: an acknowledgement among that means one repetition.
//! * Deadlines, pings and the back-off are the link's; its own are out of reach or switched off.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::mem;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use ::rumqttc::mqttbytes::v4::{Connect, Packet, PingReq, Publish};
use ::rumqttc::mqttbytes::{Error, QoS};
use ::rumqttc::{
    AsyncClient, ConnectionError, Event, EventLoop, Incoming, MqttOptions, Outgoing, Request, StateError, Transport,
};
use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};

use crate::pipe::Stream;
use crate::tls;

#[cfg(not(target_os = "linux"))]
compile_error!("the feature `rumqttc` needs the abstract sockets of Linux");

/// What the event loop has to be told in advance.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Most publishes without acknowledgement.
    pub(crate) window: u16,
    /// Largest packet from the service.
    pub(crate) inbound: usize,
    /// Largest packet to the service.
    pub(crate) outbound: usize,
}

/// Ids and requests beside those of the window: subscriptions, acknowledgements, provisioning requests.
const SPARE: u16 = 64;

/// Most bytes of the link that wait to be handed over, one packet that is longer apart, and most that wait for the link.
const BACKLOG: usize = 64 * 1024;

/// Most bytes moved in one go.
const CHUNK: usize = 16 * 1024;

/// Rounds in one poll before other tasks get their turn.
const ROUNDS: usize = 16;

/// rumqttc's own patience, in seconds: far beyond every deadline of the link.
const PATIENCE_SECS: u64 = 7 * 86_400;

/// No packet begins with this byte: it stands for what the event loop could not read.
const NONSENSE: u8 = 0;

/// A connection over the client pipe.
pub(crate) struct ClientStream {
    /// The way to the service.
    far: Stream,
    limits: Limits,
    /// From the link, not handed over yet.
    outgoing: BytesMut,
    /// For the link.
    incoming: BytesMut,
    client: Option<Client>,
    /// The connection is over, by an error or without one.
    end: Option<Option<io::Error>>,
    /// Bytes went to the service since the last look.
    moved: bool,
    leaving: bool,
}

/// An event loop at work.
struct Client {
    requests: AsyncClient,
    work: Pin<Box<dyn Future<Output = ConnectionError> + Send>>,
    board: Arc<Mutex<Board>>,
    near: Near,
    to_far: Half,
    to_near: Half,
    /// Bytes wait in the TLS layer.
    unflushed: bool,
    /// Ids of the link for the publishes handed over and not reported, in their order; likewise for subscriptions.
    publishes: VecDeque<u16>,
    subscribes: VecDeque<u16>,
    /// Ids of the link by those of the event loop.
    publish_ids: HashMap<u16, u16>,
    subscribe_ids: HashMap<u16, u16>,
    /// Bytes handed over, and bytes gone to the service.
    given: usize,
    gone: usize,
}

/// What the event loop and the rest of the pipe tell each other.
#[derive(Default)]
struct Board {
    events: VecDeque<Event>,
    /// Requests handed over and not reported.
    open: usize,
    /// The link wants a ping.
    ping: bool,
}

/// This side of the socket within the process.
enum Near {
    Listening(UnixListener),
    Open(UnixStream),
}

/// One direction of the way between the socket and the service.
#[derive(Default)]
struct Half {
    bytes: Vec<u8>,
    sent: usize,
    /// Nothing more comes.
    ended: bool,
    /// The end was passed on.
    closed: bool,
}

impl ClientStream {
    pub(crate) fn new(far: Stream, limits: Limits) -> Self {
        let (outgoing, incoming) = (BytesMut::new(), BytesMut::new());
        Self { far, limits, outgoing, incoming, client: None, end: None, moved: false, leaving: false }
    }

    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.run(cx);
        if !self.incoming.is_empty() {
            let len = self.incoming.len().min(buffer.remaining());
            buffer.put_slice(&self.incoming.split_to(len));
            if self.incoming.is_empty() {
                self.incoming = BytesMut::new();
            }
            return Poll::Ready(Ok(()));
        }
        match &mut self.end {
            None => Poll::Pending,
            Some(error) => Poll::Ready(error.take().map_or(Ok(()), Err)),
        }
    }

    /// Takes bytes as long as there is room; they are carried on by the next read. After the end it takes all: the next
    /// read says what is the matter.
    ///
    /// Nothing is carried here, since a message can be sent from outside the runtime that rumqttc's timers need.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.end.is_none() {
            if self.outgoing.len() >= BACKLOG {
                return Poll::Pending;
            }
            self.outgoing.extend_from_slice(bytes);
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(bytes.len()))
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.leaving {
            self.run(cx);
        }
        if self.held() == 0 { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.run(cx);
        if self.held() == 0 { self.far.poll_shutdown(cx) } else { Poll::Pending }
    }

    /// From here on nobody reads before all is flushed.
    pub(crate) const fn leave(&mut self) {
        self.leaving = true;
    }

    /// Bytes of the link that are not on their way to the service yet. The event loop writes each packet with as many
    /// bytes as the link.
    pub(crate) fn held(&self) -> usize {
        if self.end.is_some() {
            return 0;
        }
        let between = self
            .client
            .as_ref()
            .map_or(0, |client| client.given.saturating_sub(client.gone).saturating_add(usize::from(client.unflushed)));
        self.outgoing.len().saturating_add(between)
    }

    /// Whether bytes went to the service since the last look.
    pub(crate) fn has_moved(&mut self) -> bool {
        mem::take(&mut self.moved)
    }

    /// Does all that can be done at once.
    fn run(&mut self, cx: &mut Context<'_>) {
        for _ in 0..ROUNDS {
            if self.end.is_some() {
                return;
            }
            let progress = self.hand_over().and_then(|handed| Ok(self.work(cx)? || handed));
            match progress {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => self.over(Some(error)),
            }
        }
        cx.waker().wake_by_ref();
    }

    fn over(&mut self, error: Option<io::Error>) {
        self.client = None;
        self.outgoing = BytesMut::new();
        self.end = Some(error);
    }

    /// Hands whole packets of the link over, as far as the event loop has room. Returns whether there was one.
    fn hand_over(&mut self) -> io::Result<bool> {
        let mut any = false;
        loop {
            let room = usize::from(self.limits.window).saturating_add(usize::from(SPARE));
            if self.client.as_ref().is_some_and(|client| client.board().open >= room) {
                return Ok(any);
            }
            let before = self.outgoing.len();
            let packet = match Packet::read(&mut self.outgoing, usize::MAX) {
                Ok(packet) => packet,
                Err(Error::InsufficientBytes(_)) => return Ok(any),
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidInput, error)),
            };
            any = true;
            let len = before.saturating_sub(self.outgoing.len());
            if self.outgoing.is_empty() {
                self.outgoing = BytesMut::new();
            }
            match (&mut self.client, packet) {
                (None, Packet::Connect(connect)) => self.client = Some(Client::start(connect, self.limits, len)?),
                (Some(client), packet) => client.hand_over(packet, len)?,
                (None, _) => return Err(io::ErrorKind::InvalidInput.into()),
            }
        }
    }

    /// Moves bytes between the socket and the service, and lets the event loop work. Returns whether anything happened.
    fn work(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let Some(client) = &mut self.client else {
            // Before CONNECT the service has nothing to say: only the end of the connection can come.
            return self.listen(cx);
        };
        let mut progress = client.carry(cx, &mut self.far, self.incoming.len() < BACKLOG)?;
        self.moved |= progress;
        let failed = client.work.as_mut().poll(cx);
        progress |= client.report(&mut self.incoming);
        if let Poll::Ready(error) = failed {
            explain(&error, &mut self.incoming);
            tracing::debug!(%error, "rumqttc's event loop has ended");
            self.over(None);
            return Ok(true);
        }
        Ok(progress)
    }

    fn listen(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut space = [0; 16];
        let mut buffer = ReadBuf::new(&mut space);
        match self.far.poll_read(cx, &mut buffer) {
            Poll::Pending => Ok(false),
            Poll::Ready(read) => {
                read?;
                self.incoming.extend_from_slice(buffer.filled());
                if buffer.filled().is_empty() {
                    self.over(None);
                }
                Ok(true)
            }
        }
    }
}

impl fmt::Debug for ClientStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientStream").field("far", &self.far).finish_non_exhaustive()
    }
}

impl Client {
    /// Starts an event loop that will send this CONNECT, of `len` bytes.
    fn start(connect: Connect, limits: Limits, len: usize) -> io::Result<Self> {
        let mut name = [0; 16];
        tls::provider().secure_random.fill(&mut name).map_err(|_| io::Error::other("no randomness"))?;
        let name = format!("\0steadfast-{:032x}", u128::from_ne_bytes(name));
        let near = Near::Listening(UnixListener::bind(&name)?);
        let mut options = MqttOptions::new(connect.client_id, name, 0);
        options
            .set_transport(Transport::unix())
            .set_keep_alive(Duration::from_secs(connect.keep_alive.into()))
            .set_clean_session(connect.clean_session)
            .set_max_packet_size(limits.inbound, limits.outbound)
            .set_inflight(limits.window.saturating_add(SPARE))
            .set_manual_acks(true);
        if let Some(login) = connect.login {
            options.set_credentials(login.username, login.password);
        }
        let room = usize::from(limits.window).saturating_add(usize::from(SPARE));
        let (requests, mut events) = AsyncClient::new(options, room);
        events.network_options.set_connection_timeout(PATIENCE_SECS);
        let board = Arc::<Mutex<Board>>::default();
        let work = Box::pin(work(events, Arc::clone(&board)));
        Ok(Self {
            requests,
            work,
            board,
            near,
            to_far: Half::default(),
            to_near: Half::default(),
            unflushed: false,
            publishes: VecDeque::new(),
            subscribes: VecDeque::new(),
            publish_ids: HashMap::new(),
            subscribe_ids: HashMap::new(),
            given: len,
            gone: 0,
        })
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        lock(&self.board)
    }

    /// Hands one packet of the link over, of `len` bytes.
    #[expect(clippy::wildcard_enum_match_arm, reason = "a client sends no other packet with QoS 0 and 1")]
    fn hand_over(&mut self, packet: Packet, len: usize) -> io::Result<()> {
        let refused = |error: ::rumqttc::ClientError| io::Error::new(io::ErrorKind::InvalidInput, error);
        match packet {
            Packet::Publish(publish) if publish.qos != QoS::ExactlyOnce => {
                let payload = Vec::from(publish.payload);
                self.requests.try_publish(publish.topic, publish.qos, publish.retain, payload).map_err(refused)?;
                if publish.qos == QoS::AtLeastOnce {
                    self.publishes.push_back(publish.pkid);
                }
            }
            Packet::Subscribe(subscribe) => {
                let filter = subscribe.filters.into_iter().next().ok_or(io::ErrorKind::InvalidInput)?;
                self.requests.try_subscribe(filter.path, filter.qos).map_err(refused)?;
                self.subscribes.push_back(subscribe.pkid);
            }
            Packet::PubAck(ack) => {
                let mut acknowledged = Publish::new("", QoS::AtLeastOnce, Vec::new());
                acknowledged.pkid = ack.pkid;
                self.requests.try_ack(&acknowledged).map_err(refused)?;
            }
            Packet::PingReq => {
                if !mem::replace(&mut self.board().ping, true) {
                    self.given = self.given.saturating_add(len);
                }
                return Ok(());
            }
            Packet::Disconnect => self.requests.try_disconnect().map_err(refused)?,
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        }
        self.given = self.given.saturating_add(len);
        self.board().open += 1;
        Ok(())
    }

    /// Moves bytes in both directions. Returns whether any went to the service, or whether anything else happened.
    fn carry(&mut self, cx: &mut Context<'_>, far: &mut Stream, has_room: bool) -> io::Result<bool> {
        let mut progress = false;
        let near = match &mut self.near {
            Near::Open(near) => near,
            Near::Listening(listener) => {
                let Poll::Ready(accepted) = listener.poll_accept(cx) else { return Ok(false) };
                let (stream, _) = accepted?;
                let ours = i32::try_from(std::process::id()).ok();
                if stream.peer_cred()?.pid() == ours && ours.is_some() {
                    self.near = Near::Open(stream);
                }
                return Ok(true);
            }
        };
        let sent = self.to_far.fill(|buffer| Pin::new(&mut *near).poll_read(cx, buffer))?;
        progress |= sent;
        let gone = self.to_far.drain(|bytes| far.poll_write(cx, bytes))?;
        self.gone = self.gone.saturating_add(gone);
        self.unflushed |= gone > 0;
        if self.unflushed
            && let Poll::Ready(flushed) = far.poll_flush(cx)
        {
            flushed?;
            self.unflushed = false;
        }
        progress |= gone > 0;
        if has_room {
            progress |= self.to_near.fill(|buffer| far.poll_read(cx, buffer))?;
        }
        // The event loop may have gone meanwhile, and says why itself.
        progress |= self.to_near.drain(|bytes| Pin::new(&mut *near).poll_write(cx, bytes)).is_ok_and(|moved| moved > 0);
        if self.to_near.ended && self.to_near.is_empty() && !self.to_near.closed {
            self.to_near.closed = Pin::new(&mut *near).poll_shutdown(cx).is_ready();
            progress = true;
        }
        Ok(progress)
    }

    /// Puts what the event loop reports together as packets for the link. Returns whether there was anything.
    fn report(&mut self, incoming: &mut BytesMut) -> bool {
        let events = mem::take(&mut self.board().events);
        let any = !events.is_empty();
        for event in events {
            match event {
                Event::Outgoing(outgoing) => self.note(&outgoing),
                Event::Incoming(Incoming::PubAck(mut ack)) => {
                    if let Some(id) = self.publish_ids.remove(&ack.pkid) {
                        ack.pkid = id;
                        put(&Packet::PubAck(ack), incoming);
                    }
                }
                Event::Incoming(Incoming::SubAck(mut ack)) => {
                    if let Some(id) = self.subscribe_ids.remove(&ack.pkid) {
                        ack.pkid = id;
                        put(&Packet::SubAck(ack), incoming);
                    }
                }
                Event::Incoming(packet) => put(&packet, incoming),
            }
        }
        any
    }

    /// Takes note of a request that is on its way.
    #[expect(clippy::wildcard_enum_match_arm, reason = "nothing else was asked for, or it is still open")]
    fn note(&mut self, outgoing: &Outgoing) {
        match outgoing {
            // A publish of QoS 0 has no id.
            Outgoing::Publish(0) => {}
            Outgoing::Publish(id) => {
                if let Some(of_link) = self.publishes.pop_front() {
                    self.publish_ids.insert(*id, of_link);
                }
            }
            Outgoing::Subscribe(id) => {
                if let Some(of_link) = self.subscribes.pop_front() {
                    self.subscribe_ids.insert(*id, of_link);
                }
            }
            Outgoing::PubAck(_) | Outgoing::PingReq | Outgoing::Disconnect => {}
            _ => return,
        }
        let mut board = self.board();
        board.open = board.open.saturating_sub(1);
    }
}

impl Half {
    fn is_empty(&self) -> bool {
        self.sent == self.bytes.len()
    }

    /// Reads when there is nothing left to write. Returns whether there was anything.
    fn fill(&mut self, read: impl FnOnce(&mut ReadBuf<'_>) -> Poll<io::Result<()>>) -> io::Result<bool> {
        if !self.is_empty() || self.ended {
            return Ok(false);
        }
        let mut space = [mem::MaybeUninit::uninit(); CHUNK];
        let mut buffer = ReadBuf::uninit(&mut space);
        let Poll::Ready(result) = read(&mut buffer) else { return Ok(false) };
        result?;
        self.bytes = buffer.filled().to_vec();
        self.sent = 0;
        self.ended = self.bytes.is_empty();
        Ok(true)
    }

    /// Writes what was read. Returns how many bytes that moved.
    fn drain(&mut self, mut write: impl FnMut(&[u8]) -> Poll<io::Result<usize>>) -> io::Result<usize> {
        let before = self.sent;
        while let Some(rest) = self.bytes.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match write(rest) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(moved) => self.sent += moved?,
            }
        }
        let moved = self.sent - before;
        if self.is_empty() {
            self.bytes = Vec::new();
            self.sent = 0;
        }
        Ok(moved)
    }
}

/// Polls the event loop until its first error.
async fn work(mut events: EventLoop, board: Arc<Mutex<Board>>) -> ConnectionError {
    let mut greeted = false;
    loop {
        let next = {
            let mut poll = pin!(events.poll());
            poll_fn(|cx| {
                if let Poll::Ready(event) = poll.as_mut().poll(cx) {
                    return Poll::Ready(Some(event));
                }
                // With no request open it only waits for bytes and requests: there it can be left without losing any.
                let mut board = lock(&board);
                let ping = greeted && board.open == 0 && mem::take(&mut board.ping);
                if ping { Poll::Ready(None) } else { Poll::Pending }
            })
            .await
        };
        match next {
            Some(Ok(event)) => {
                if matches!(event, Event::Incoming(Incoming::ConnAck(_))) {
                    greeted = true;
                    // Its pings come regardless of traffic; the link asks for its own.
                    events.mqtt_options.set_keep_alive(Duration::ZERO);
                }
                lock(&board).events.push_back(event);
            }
            Some(Err(error)) => return error,
            None => {
                lock(&board).open += 1;
                events.pending.push_back(Request::PingReq(PingReq));
            }
        }
    }
}

/// Puts what ended the event loop in the service's own words, where it was the service's word.
#[expect(clippy::wildcard_enum_match_arm, reason = "all else is an end of the connection")]
fn explain(error: &ConnectionError, incoming: &mut BytesMut) {
    match error {
        ConnectionError::ConnectionRefused(code) => incoming.extend_from_slice(&[0x20, 2, 0, *code as u8]),
        ConnectionError::MqttState(StateError::Deserialization(Error::InvalidConnectReturnCode(code))) => {
            incoming.extend_from_slice(&[0x20, 2, 0, *code]);
        }
        ConnectionError::MqttState(StateError::Deserialization(_) | StateError::WrongPacket) => {
            incoming.extend_from_slice(&[NONSENSE]);
        }
        ConnectionError::NotConnAck(packet) => put(packet, incoming),
        _ => {}
    }
}

fn put(packet: &Packet, incoming: &mut BytesMut) {
    if packet.write(incoming, usize::MAX).is_err() {
        incoming.extend_from_slice(&[NONSENSE]);
    }
}

fn lock(board: &Mutex<Board>) -> MutexGuard<'_, Board> {
    board.lock().unwrap_or_else(PoisonError::into_inner)
}
