//! A connection whose packets are carried by rumqttc's event loop.
//!
//! To the driver it is a [`Stream`] like any other. The link's bytes are parsed into packets and passed to an event
//! loop of rumqttc as requests; its reports are encoded as packets for the link to read. The event loop reaches the
//! service through a socket within this process, since it does not accept a stream: an abstract Unix socket that only
//! this process may connect to. Name resolution, connecting and TLS stay the same.
//!
//! The rules that keep rumqttc from losing or inventing anything:
//!
//! * An event loop serves one attempt and is dropped at its first error, with all its messages; it resends nothing. The
//!   link has every message until its acknowledgement and sends it again.
//! * All messages of the outbox are of QoS 1, from one producer, and fewer than its in-flight limit. Its ids follow the
//!   order of the requests: the n-th publish it reports is the n-th request, which maps its ids back to the link's.
//! * Reports that were pending at an error are dropped: a lost acknowledgement means one repetition.
//! * Deadlines, pings and the back-off are the link's; rumqttc's own are disabled or never reached.

mod client;
mod half;

use std::fmt;
use std::io;
use std::mem;
use std::ops::ControlFlow;
use std::task::{Context, Poll};

use ::rumqttc::mqttbytes::Error;
use ::rumqttc::mqttbytes::v4::Packet;
use bytes::BytesMut;
use tokio::io::ReadBuf;

use self::client::Client;
use crate::connection::Stream;

#[cfg(not(target_os = "linux"))]
compile_error!("the feature `rumqttc` needs the abstract sockets of Linux");

/// The event loop's settings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Most publishes without acknowledgement.
    pub(crate) window: u16,
    /// Largest packet from the service.
    pub(crate) inbound: usize,
    /// Largest packet to the service.
    pub(crate) outbound: usize,
}

impl Limits {
    /// Limit of requests in progress.
    const fn open(self) -> u16 {
        self.window.saturating_add(SPARE)
    }
}

/// Ids and requests in addition to publishes in flight: subscriptions, acknowledgements, provisioning requests.
const SPARE: u16 = 64;

/// Most bytes of the link that wait to be handed over, one packet that is longer apart, and most that wait for the link.
const BACKLOG: usize = 64 * 1024;

/// Rounds in one poll before other tasks get their turn.
const ROUNDS: usize = 16;

/// A connection over the client pipe.
pub(crate) struct ClientStream {
    /// The stream to the service.
    far: Stream,
    limits: Limits,
    /// Bytes from the link that are not yet requests.
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

    /// Accepts bytes while there is room; the next read processes them. After the end it accepts all bytes: the next
    /// read reports the error.
    ///
    /// Nothing is processed here, since a message can be sent from outside the runtime that rumqttc's timers need.
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
        let between = self.client.as_ref().map_or(0, Client::held);
        self.outgoing.len().saturating_add(between)
    }

    /// Whether bytes went to the service since the last look.
    pub(crate) fn has_moved(&mut self) -> bool {
        mem::take(&mut self.moved)
    }

    /// Does everything that is possible now.
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

    /// Passes whole packets of the link to the event loop, as far as it has room. Returns whether there was one.
    fn hand_over(&mut self) -> io::Result<bool> {
        let mut any = false;
        loop {
            if self.client.as_ref().is_some_and(|client| client.open() >= usize::from(self.limits.open())) {
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
            // Before CONNECT the service sends nothing: only the end of the connection can arrive.
            return self.listen(cx);
        };
        let mut progress = client.carry(cx, &mut self.far, self.incoming.len() < BACKLOG)?;
        self.moved |= progress;
        match client.work(cx, &mut self.incoming) {
            ControlFlow::Continue(reported) => progress |= reported,
            ControlFlow::Break(()) => {
                self.over(None);
                progress = true;
            }
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
