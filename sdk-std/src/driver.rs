//! The driver carries out the link's actions: sockets, timers, signatures, files.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
#[cfg(feature = "tpm")]
use std::task::ready;
use std::task::{Context, Poll, Waker};

use steadfast_core::{Attempt, Failure, Ledger, LocalFailure};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use crate::connection::{Connection, Stream};
use crate::connector::Setup;
#[cfg(feature = "tpm")]
use crate::dps_https::Dialogue;
use crate::engine::{Dial, Notice, Report, ToSign, Turn};
#[cfg(feature = "tpm")]
use crate::http::Answer;
use crate::keeper::Keeper;
use crate::receipt::DeliveryError;
use crate::shared::{End, Shared};
use crate::tokens::Proving;
use crate::{clock, log};

/// Turns in one poll before other tasks get theirs.
const TURNS: usize = 8;

/// The future that does the work of a [`crate::Device`]: spawn it, or poll it with your own futures.
///
/// It needs a tokio runtime with I/O and time enabled. The link starts at the first poll. The future ends with the
/// ledger once the link is [stopped](crate::Device::stop); no failure of the network or the service ends it. Dropping
/// it closes the connection and completes every receipt; [`crate::Device::queued`] still returns the queued messages.
#[must_use = "the driver does nothing unless it is polled, for example by tokio::spawn"]
pub struct Driver {
    shared: Arc<Shared>,
    setup: Arc<Setup>,
    work: Work,
    /// The host of the latest connection.
    host: String,
    /// The previous connection, while it closes.
    closing: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    keeper: Keeper,
    sleep: Option<Pin<Box<Sleep>>>,
    /// The sleep is set and has not ended. One that has ended stays ready.
    asleep: bool,
    /// The sleep has ended since the last turn.
    awake: bool,
    started: bool,
}

pub(crate) type Opening<T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + Send>>;

/// The parameters of TLS and WebSockets for a connection.
pub(crate) type Handshake = Box<dyn FnOnce(TcpStream) -> Opening<Stream> + Send>;

/// The operation in progress for the current attempt.
enum Work {
    Nothing,
    Signing(Attempt, Proving),
    /// Connects to the service.
    Dialling(Attempt, Opening<(TcpStream, Option<Handshake>)>, bool),
    /// Completes TLS, and the upgrade to WebSockets.
    Securing(Attempt, Opening<Stream>, bool),
    /// Registers over HTTPS.
    #[cfg(feature = "tpm")]
    Registering(Attempt, Registering),
}

/// How far a registration over HTTPS is.
#[cfg(feature = "tpm")]
enum Registering {
    /// Connects to the service.
    Reaching(Opening<Opening<Box<Dialogue>>>),
    /// Completes TLS.
    Opening(Opening<Box<Dialogue>>),
    /// No operation.
    Idle(Option<Box<Dialogue>>),
    Asking(Opening<(Box<Dialogue>, Answer)>),
}

#[cfg(feature = "tpm")]
impl Registering {
    /// Returns its result.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Report> {
        let come_to = match self {
            Self::Reaching(reaching) => {
                ready!(reaching.as_mut().poll(cx)).map(|opening| (Self::Opening(opening), Report::Connected))
            }
            Self::Opening(opening) => {
                ready!(opening.as_mut().poll(cx)).map(|dialogue| (Self::Idle(Some(dialogue)), Report::Ready))
            }
            Self::Idle(_) => return Poll::Pending,
            Self::Asking(asking) => ready!(asking.as_mut().poll(cx))
                .map(|(dialogue, answer)| (Self::Idle(Some(dialogue)), Report::Registered(answer))),
        };
        let (next, report) = come_to.unwrap_or_else(|failure| (Self::Idle(None), Report::Failed(failure)));
        *self = next;
        Poll::Ready(report)
    }
}

impl Driver {
    pub(crate) fn new(shared: Arc<Shared>, setup: Arc<Setup>) -> Self {
        let work = Work::Nothing;
        Self {
            shared,
            setup,
            work,
            host: String::new(),
            closing: None,
            keeper: Keeper::default(),
            sleep: None,
            asleep: false,
            awake: true,
            started: false,
        }
    }

    fn start(&mut self) {
        self.started = true;
        let mut inner = self.shared.lock();
        inner.running = true;
        if !inner.stopping {
            let now = clock::now();
            inner.link.set_wall_clock(clock::unix_secs(), now);
            inner.link.start(now);
        }
        self.shared.publish_status(&inner);
    }

    /// Does everything that is possible now. Returns whether another turn may do more, or `None` at the end.
    fn turn(&mut self, turn: &mut Box<Turn>, cx: &mut Context<'_>) -> Option<bool> {
        self.poll_background(cx);
        let report = self.poll_work(cx);
        {
            let mut inner = self.shared.lock();
            if let Some(left_over) = inner.left_over.take() {
                mem::replace(turn, left_over).end();
            }
            if mem::take(&mut self.awake) {
                inner.alarm = None;
            }
            turn.now = clock::now();
            turn.listened = self.shared.listeners().is_some();
            inner.turn(turn, report, cx);
            if mem::take(&mut turn.status_changed) {
                self.shared.publish_status(&inner);
            }
            if inner.stopped && turn.closing.is_none() && self.closing.is_none() && self.keeper.is_done(&self.setup, cx)
            {
                drop(inner);
                self.tell(turn);
                return None;
            }
        }
        self.tell(turn);
        self.follow(turn);
        if let Some(span) = turn.sleep.take() {
            match &mut self.sleep {
                Some(sleep) => sleep.as_mut().reset(tokio::time::Instant::now() + span),
                None => self.sleep = Some(Box::pin(sleep(span))),
            }
            self.asleep = true;
        }
        self.awake = self.asleep && self.sleep.as_mut().is_some_and(|sleep| sleep.as_mut().poll(cx).is_ready());
        self.asleep &= !self.awake;
        Some(mem::take(&mut turn.again) | self.awake)
    }

    /// Continues the work that does not belong to the current attempt.
    fn poll_background(&mut self, cx: &mut Context<'_>) {
        if let Some(closing) = &mut self.closing
            && closing.as_mut().poll(cx).is_ready()
        {
            self.closing = None;
        }
        self.keeper.poll(&self.setup, cx);
    }

    fn poll_work(&mut self, cx: &mut Context<'_>) -> Option<(Attempt, Report)> {
        let (attempt, next, report) = match &mut self.work {
            Work::Nothing => return None,
            Work::Signing(attempt, signing) => {
                let Poll::Ready(signed) = signing.as_mut().poll(cx) else { return None };
                let report = signed.map(Report::Proved).unwrap_or_else(|error| {
                    if error.failure() == Failure::Local(LocalFailure::WorkloadUnreachable) {
                        // The parts of an Edge device start in any order.
                        tracing::warn!(device = %self.setup.name, %error, "no token can be made yet");
                    } else {
                        tracing::error!(device = %self.setup.name, %error, "no token can be made");
                    }
                    Report::Failed(error.failure())
                });
                (*attempt, Work::Nothing, report)
            }
            Work::Dialling(attempt, dialling, shown) => {
                let Poll::Ready(dialled) = dialling.as_mut().poll(cx) else { return None };
                match dialled {
                    Ok((stream, Some(handshake))) => {
                        (*attempt, Work::Securing(*attempt, handshake(stream), *shown), Report::Connected)
                    }
                    Ok((stream, None)) => {
                        let stream = self.setup.carry(Stream::Plain(stream));
                        let connection = Connection::new(*attempt, stream, false);
                        (*attempt, Work::Nothing, Report::Open(connection))
                    }
                    Err(failure) => (*attempt, Work::Nothing, Report::Failed(failure)),
                }
            }
            Work::Securing(attempt, securing, shown) => {
                let Poll::Ready(secured) = securing.as_mut().poll(cx) else { return None };
                let report = match secured {
                    Ok(stream) => Report::Open(Connection::new(*attempt, self.setup.carry(stream), *shown)),
                    Err(failure) => Report::Failed(failure),
                };
                (*attempt, Work::Nothing, report)
            }
            #[cfg(feature = "tpm")]
            Work::Registering(attempt, registering) => {
                let Poll::Ready(report) = registering.poll(cx) else { return None };
                return Some((*attempt, report));
            }
        };
        self.work = next;
        Some((attempt, report))
    }

    /// Wakes tasks, delivers events and logs: each may run the application's code.
    fn tell(&self, turn: &mut Turn) {
        turn.wakes.drain(..).for_each(Waker::wake);
        if mem::take(&mut turn.served) {
            self.shared.serving.notify_waiters();
        }
        let listeners = self.shared.listeners();
        for notice in turn.notices.drain(..) {
            match notice {
                Notice::Event(event) => {
                    log::event(&self.setup.name, &event);
                    if let Some(listeners) = listeners {
                        // Without a receiver the event is dropped.
                        let _ = listeners.send(event);
                    }
                }
                Notice::Retrying(failure, delay, advice) => {
                    log::retrying(&self.setup.name, &self.host, failure, delay, advice);
                }
                Notice::Sent(attempt, name, len) => log::sent(&self.setup.name, attempt, name, len),
                Notice::InboxFull => log::inbox_full(&self.setup.name),
                Notice::Broken(error) => log::broken(&self.setup.name, &self.host, &error),
            }
        }
    }

    /// Begins to find the way to a service.
    fn dial(&self, dial: Dial) -> Work {
        let setup = Arc::clone(&self.setup);
        #[cfg(feature = "tpm")]
        if dial.https {
            let reaching = Dialogue::reach(setup, dial.host, dial.port, dial.shown);
            return Work::Registering(dial.attempt, Registering::Reaching(Box::pin(reaching)));
        }
        let dialling = setup.dial(dial.host, dial.port, dial.role, dial.shown);
        Work::Dialling(dial.attempt, Box::pin(dialling), dial.shown)
    }

    /// Starts an operation.
    fn follow(&mut self, turn: &mut Turn) {
        if let Some(closing) = turn.closing.take() {
            self.closing = Some(closing);
            turn.again = true;
        }
        if let Some(abandoned) = turn.abandoned.take() {
            let under_way = match &self.work {
                Work::Nothing => None,
                Work::Signing(attempt, _) | Work::Dialling(attempt, ..) | Work::Securing(attempt, ..) => Some(*attempt),
                #[cfg(feature = "tpm")]
                Work::Registering(attempt, _) => Some(*attempt),
            };
            if under_way == Some(abandoned) {
                self.work = Work::Nothing;
            }
        }
        if let Some(ToSign { attempt, role, refusals, text }) = turn.sign.take()
            && let Some(authenticator) = &self.setup.authenticator
        {
            self.work = Work::Signing(attempt, authenticator.prove(role, refusals, &text));
            turn.again = true;
        }
        if let Some(dial) = turn.dial.take() {
            let Dial { attempt, host, port, .. } = &dial;
            tracing::debug!(device = %self.setup.name, %attempt, host, port, "connecting");
            self.host.clone_from(host);
            self.work = self.dial(dial);
            turn.again = true;
        }
        #[cfg(feature = "tpm")]
        if let Some(asked) = turn.register.take()
            && let Work::Registering(attempt, registering) = &mut self.work
            && *attempt == asked.attempt
            && let Registering::Idle(dialogue) = registering
            && let Some(dialogue) = dialogue.take()
        {
            *registering = Registering::Asking(Box::pin(dialogue.ask(asked)));
            turn.again = true;
        }
        if turn.save.is_some() || turn.remember.is_some() {
            self.keeper.keep(turn.save.take(), turn.remember.take());
            turn.again = true;
        }
    }
}

impl Future for Driver {
    type Output = Ledger;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ledger> {
        let driver = &mut *self;
        if !driver.started {
            driver.start();
        }
        let mut turn = Turn::begin();
        let mut again = Some(true);
        for _ in 0..TURNS {
            again = driver.turn(&mut turn, cx);
            if again != Some(true) {
                break;
            }
        }
        turn.end();
        match again {
            None => {
                driver.shared.end(End::Stopped, DeliveryError::StillQueued);
                Poll::Ready(driver.shared.lock().ledger())
            }
            Some(true) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Some(false) => Poll::Pending,
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.shared.end(End::Dropped, DeliveryError::DriverDropped);
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("device", &self.setup.name).finish_non_exhaustive()
    }
}
