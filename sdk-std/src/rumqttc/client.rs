//! A running event loop of rumqttc: requests in, reports out, and its bytes.

use std::collections::{HashMap, VecDeque};
use std::future::{Future, poll_fn};
use std::io;
use std::mem;
use std::ops::ControlFlow;
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
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{UnixListener, UnixStream};

use super::Limits;
use super::half::Half;
use crate::connection::Stream;
use crate::tls;

/// rumqttc's own timeout, in seconds: far beyond every deadline of the link.
const PATIENCE_SECS: u64 = 7 * 86_400;

/// No packet begins with this byte: it marks data that the event loop could not parse.
const NONSENSE: u8 = 0;

/// An event loop at work.
pub(super) struct Client {
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

/// State shared by the event loop and the connection.
#[derive(Default)]
struct Board {
    events: VecDeque<Event>,
    /// Requests handed over and not reported.
    open: usize,
    /// The link requests a ping.
    ping: bool,
}

/// This side of the socket within the process.
enum Near {
    Listening(UnixListener),
    Open(UnixStream),
}

impl Client {
    /// Starts an event loop that will send this CONNECT, of `len` bytes.
    pub(super) fn start(connect: Connect, limits: Limits, len: usize) -> io::Result<Self> {
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
            .set_inflight(limits.open())
            .set_manual_acks(true);
        if let Some(login) = connect.login {
            options.set_credentials(login.username, login.password);
        }
        let (requests, mut events) = AsyncClient::new(options, usize::from(limits.open()));
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

    /// Requests handed over and not reported.
    pub(super) fn open(&self) -> usize {
        self.board().open
    }

    /// Bytes handed over that are not on their way to the service yet.
    pub(super) fn held(&self) -> usize {
        self.given.saturating_sub(self.gone).saturating_add(usize::from(self.unflushed))
    }

    /// Hands one packet of the link over, of `len` bytes.
    #[expect(clippy::wildcard_enum_match_arm, reason = "a client sends no other packet with QoS 0 and 1")]
    pub(super) fn hand_over(&mut self, packet: Packet, len: usize) -> io::Result<()> {
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
    pub(super) fn carry(&mut self, cx: &mut Context<'_>, far: &mut Stream, has_room: bool) -> io::Result<bool> {
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
        // The event loop may have ended meanwhile, and reports the reason itself.
        progress |= self.to_near.drain(|bytes| Pin::new(&mut *near).poll_write(cx, bytes)).is_ok_and(|moved| moved > 0);
        if self.to_near.ended && self.to_near.is_empty() && !self.to_near.closed {
            self.to_near.closed = Pin::new(&mut *near).poll_shutdown(cx).is_ready();
            progress = true;
        }
        Ok(progress)
    }

    /// Polls the event loop and passes its reports on. Returns whether there was a report, or breaks at its end.
    pub(super) fn work(&mut self, cx: &mut Context<'_>, incoming: &mut BytesMut) -> ControlFlow<(), bool> {
        let ended = self.work.as_mut().poll(cx);
        let reported = self.report(incoming);
        let Poll::Ready(error) = ended else { return ControlFlow::Continue(reported) };
        explain(&error, incoming);
        tracing::debug!(%error, "rumqttc's event loop has ended");
        ControlFlow::Break(())
    }

    /// Encodes the event loop's reports as packets for the link. Returns whether there was a report.
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

    /// Records a request in progress.
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

/// Converts the event loop's error back to the service's packet, if a packet caused it.
#[expect(clippy::wildcard_enum_match_arm, reason = "every other error is an end of the connection")]
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
