//! What does the link's bidding: sockets, timers, signatures, files.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::mem::{self, MaybeUninit};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use steadfast_core::{
    Action, Assignment, Attempt, Endpoint, Event, Failure, Input, Instant, Ledger, LocalFailure, Outbox, Output,
    Received, Role,
};
use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio::sync::broadcast;
use tokio::task::{JoinHandle, spawn, spawn_blocking};
use tokio::time::{Sleep, sleep};

use crate::inbox::{Body, INBOX};
use crate::pipe::{Connection, READ, Read, Scratch, Stream};
use crate::receipt::Undelivered;
use crate::setup::Setup;
use crate::shared::{End, Inner, Shared};
use crate::signer::Signing;
use crate::{clock, log};

/// Rounds in one poll before other tasks get their turn.
const ROUNDS: usize = 8;

/// Longest sleep: the runtime's clock stands still while the system sleeps, and the link's does not.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// Larger gathering buffers are not kept for the next poll.
const SCRATCH_KEPT: usize = 256 * 1024;

/// Carries out what the link of a [`crate::Device`] asks for: spawn it, or poll it beside the rest.
///
/// It runs within a tokio runtime with I/O and time enabled. The link starts at the first poll. The future ends, with
/// the books, once the link was [stopped](crate::Device::stop); nothing that the network or the service does ends it.
/// Dropping it cuts the connection and tells every receipt; what is queued stays readable by
/// [`crate::Device::queued`].
#[must_use = "nothing happens until the driver is polled, as by tokio::spawn"]
pub struct Driver {
    shared: Arc<Shared>,
    hands: Hands,
}

impl Driver {
    pub(crate) fn new(shared: Arc<Shared>, setup: Arc<Setup>) -> Self {
        let hands = Hands {
            setup,
            work: Work::Idle,
            closing: None,
            saving: None,
            sleep: None,
            armed: None,
            deadline: None,
            held_back: false,
            started: false,
            stopped: false,
        };
        Self { shared, hands }
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("device", &self.hands.setup.name).finish_non_exhaustive()
    }
}

impl Future for Driver {
    type Output = Ledger;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ledger> {
        let Self { shared, hands } = &mut *self;
        let mut turn = TURN.take().unwrap_or_default();
        if !hands.started {
            hands.started = true;
            hands.start(shared);
        }
        let mut result = Poll::Pending;
        for left in (0..ROUNDS).rev() {
            let again = hands.round(shared, &mut turn, cx);
            if hands.stopped && hands.closing.is_none() && hands.saving.is_none() {
                shared.end(End::Stopped, Undelivered::StillQueued);
                result = Poll::Ready(shared.lock().ledger());
                break;
            }
            if !again {
                break;
            }
            if left == 0 {
                cx.waker().wake_by_ref();
            }
        }
        turn.scratch.0.clear();
        if turn.scratch.0.capacity() <= SCRATCH_KEPT {
            TURN.set(Some(turn));
        }
        result
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.shared.end(End::Dropped, Undelivered::DriverDropped);
    }
}

thread_local! {
    /// Lent to the driver that is polled, so that idle ones hold none.
    static TURN: Cell<Option<Box<Turn>>> = const { Cell::new(None) };
}

/// What one poll gathers.
#[derive(Default)]
struct Turn {
    now: Instant,
    scratch: Scratch,
    /// Who is to be woken, once the lock is free.
    wakes: Vec<Waker>,
    /// What is to be told, once the lock is free: a listener or a log may turn to the device.
    notices: Vec<Notice>,
    /// Somebody listens to the events.
    listened: bool,
    /// Something new is under way and has not been polled.
    begun: bool,
    arrived: bool,
    room_freed: bool,
    status_changed: bool,
    sign: Option<(Attempt, Role, String)>,
    save: Option<Assignment>,
}

enum Notice {
    Event(Event),
    Advice(Failure, Duration, steadfast_core::Advice),
    Sent(Attempt, &'static str, usize),
    InboxFull,
}

/// The state of the driver beside the link.
struct Hands {
    setup: Arc<Setup>,
    work: Work,
    /// The connection before, on its way out.
    closing: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    saving: Option<JoinHandle<()>>,
    sleep: Option<Pin<Box<Sleep>>>,
    /// When the sleep ends.
    armed: Option<Instant>,
    /// When the link wants to be woken.
    deadline: Option<Instant>,
    /// The link may have packets that found no room.
    held_back: bool,
    started: bool,
    stopped: bool,
}

type Opening<T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + Send>>;

/// What is under way for the current attempt.
enum Work {
    Idle,
    Signing(Attempt, Signing),
    /// Finds the way to the service.
    Dialling(Attempt, Opening<(TcpStream, Option<Handshake>)>, bool),
    /// Completes TLS.
    Securing(Attempt, Opening<Stream>, bool),
    Open(Connection),
}

/// What begins TLS on a connection.
pub(crate) type Handshake = Box<dyn FnOnce(TcpStream) -> Opening<Stream> + Send>;

/// What came of the work under way.
enum Report {
    Signed([u8; 32]),
    Connected,
    Ready,
    Failed(Failure),
}

impl Hands {
    fn start(&self, shared: &Shared) {
        let mut inner = shared.lock();
        inner.running = true;
        if !inner.stopping {
            let now = clock::now();
            inner.link.set_wall_clock(clock::unix_secs(), now);
            inner.link.start(now);
        }
        shared.publish_status(&inner);
    }

    /// Does what can be done at once. Returns whether another round may find more.
    fn round(&mut self, shared: &Shared, turn: &mut Turn, cx: &mut Context<'_>) -> bool {
        self.poll_background(cx);
        let report = self.poll_work(cx);
        let mut again = report.is_some();

        let mut space = [MaybeUninit::uninit(); READ];
        let mut buffer = ReadBuf::uninit(&mut space);
        let read = match &mut self.work {
            Work::Open(connection) => connection.read(cx, &mut buffer),
            Work::Idle | Work::Signing(..) | Work::Dialling(..) | Work::Securing(..) => Read::Drained,
        };
        turn.now = clock::now();
        turn.listened = shared.listeners().is_some();
        {
            let mut guard = shared.lock();
            let inner = &mut *guard;
            if !inner.driver.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                inner.driver = Some(cx.waker().clone());
            }
            if let Some((attempt, report)) = report {
                inform(inner, turn, attempt, &report);
            }
            if !buffer.filled().is_empty() {
                self.take_bytes(inner, turn, buffer.filled());
            }
            match read {
                Read::Drained => {}
                Read::More => again = true,
                Read::End => self.broken(inner, turn, None),
                Read::Broken(error) => self.broken(inner, turn, Some(&error)),
            }
            if inner.link.next_deadline().is_some_and(|deadline| deadline.at <= turn.now) {
                inner.link.set_wall_clock(clock::unix_secs(), turn.now);
                inner.link.handle_timeout(turn.now);
                turn.status_changed = true;
            }
            self.drain(inner, turn);
            if mem::take(&mut turn.room_freed) {
                turn.wakes.extend(inner.next_in_turn());
            }
            if mem::take(&mut turn.status_changed) {
                shared.publish_status(inner);
            }
        }
        self.tell(shared, turn);
        again |= self.write(shared, turn, cx);
        again |= self.poll_sleep(turn.now, cx);
        again | mem::take(&mut turn.begun)
    }

    /// Follows what is not about the current attempt.
    fn poll_background(&mut self, cx: &mut Context<'_>) {
        if let Some(closing) = &mut self.closing
            && closing.as_mut().poll(cx).is_ready()
        {
            self.closing = None;
        }
        if let Some(saving) = &mut self.saving
            && Pin::new(saving).poll(cx).is_ready()
        {
            self.saving = None;
        }
    }

    fn poll_work(&mut self, cx: &mut Context<'_>) -> Option<(Attempt, Report)> {
        let (attempt, next, report) = match &mut self.work {
            Work::Idle | Work::Open(_) => return None,
            Work::Signing(attempt, signing) => {
                let Poll::Ready(signed) = signing.as_mut().poll(cx) else { return None };
                let report = match signed {
                    Ok(signature) => Report::Signed(signature),
                    Err(error) => {
                        tracing::error!(device = %self.setup.name, %error, "no token can be made");
                        Report::Failed(Failure::Local(LocalFailure::Signing))
                    }
                };
                (*attempt, Work::Idle, report)
            }
            Work::Dialling(attempt, dialling, shown) => {
                let Poll::Ready(dialled) = dialling.as_mut().poll(cx) else { return None };
                match dialled {
                    Ok((stream, Some(handshake))) => {
                        (*attempt, Work::Securing(*attempt, handshake(stream), *shown), Report::Connected)
                    }
                    Ok((stream, None)) => {
                        let connection = Connection::new(*attempt, Stream::Plain(stream), false);
                        (*attempt, Work::Open(connection), Report::Ready)
                    }
                    Err(failure) => (*attempt, Work::Idle, Report::Failed(failure)),
                }
            }
            Work::Securing(attempt, securing, shown) => {
                let Poll::Ready(secured) = securing.as_mut().poll(cx) else { return None };
                match secured {
                    Ok(stream) => (*attempt, Work::Open(Connection::new(*attempt, stream, *shown)), Report::Ready),
                    Err(failure) => (*attempt, Work::Idle, Report::Failed(failure)),
                }
            }
        };
        self.work = next;
        Some((attempt, report))
    }

    /// Hands bytes to the link and keeps the beginning of a packet that is not whole.
    fn take_bytes(&mut self, inner: &mut Inner, turn: &mut Turn, bytes: &[u8]) {
        let Work::Open(connection) = &mut self.work else { return };
        let attempt = connection.attempt;
        if connection.partial.is_empty() {
            let taken = self.offer(inner, turn, attempt, bytes);
            if let (Work::Open(connection), Some(rest)) = (&mut self.work, bytes.get(taken..))
                && connection.attempt == attempt
                && !rest.is_empty()
            {
                connection.partial = rest.to_vec();
            }
        } else {
            let mut partial = mem::take(&mut connection.partial);
            partial.extend_from_slice(bytes);
            let taken = self.offer(inner, turn, attempt, &partial);
            if let Work::Open(connection) = &mut self.work
                && connection.attempt == attempt
                && taken < partial.len()
            {
                partial.drain(..taken);
                connection.partial = partial;
            }
        }
    }

    /// Offers bytes to the link until it takes no more, and returns how many it took.
    fn offer(&mut self, inner: &mut Inner, turn: &mut Turn, attempt: Attempt, bytes: &[u8]) -> usize {
        let mut at = 0;
        loop {
            let rest = bytes.get(at..).unwrap_or(&[]);
            let taken = inner.link.handle_input(Input::Bytes(rest), attempt, turn.now);
            at += taken.bytes;
            let received = taken.received.is_some();
            if let Some(received) = taken.received {
                receive(inner, turn, attempt, &received);
            }
            let drained = self.drain(inner, turn);
            let stuck = taken.bytes == 0 && !received && !drained;
            if at >= bytes.len() || taken.needed.is_some() || stuck {
                return at;
            }
        }
    }

    /// The connection is gone.
    fn broken(&mut self, inner: &mut Inner, turn: &mut Turn, error: Option<&std::io::Error>) {
        let Work::Open(connection) = mem::replace(&mut self.work, Work::Idle) else { return };
        turn.scratch.0.clear();
        let failure = error.map_or(Failure::Lost, |error| connection.failure(error));
        inform(inner, turn, connection.attempt, &Report::Failed(failure));
    }

    /// Carries out what the link wants, as far as that needs no waiting. Returns whether there was anything.
    fn drain(&mut self, inner: &mut Inner, turn: &mut Turn) -> bool {
        let mut any = false;
        let tracing = tracing::enabled!(target: "steadfast::packets", tracing::Level::TRACE);
        loop {
            let room = match &self.work {
                Work::Open(connection) => connection.room(turn.scratch.0.len()),
                Work::Idle | Work::Signing(..) | Work::Dialling(..) | Work::Securing(..) => 0,
            };
            match inner.link.poll_output_within(room) {
                Output::Wait(deadline) => {
                    self.deadline = deadline.map(|deadline| deadline.at);
                    // No packet is longer than all messages together and a frame.
                    self.held_back = room < inner.link.outbox().usage().bytes.saturating_add(4096);
                    return any;
                }
                Output::Event(event) => {
                    any = true;
                    self.take_event(inner, turn, event, tracing);
                }
                Output::Action(action) => {
                    any = true;
                    if let Err(attempt) = self.act(&mut inner.inbox, turn, action, tracing) {
                        // A packet that cannot be encoded would not be encoded the next time either.
                        self.work = Work::Idle;
                        turn.scratch.0.clear();
                        inform(inner, turn, attempt, &Report::Failed(Failure::Local(LocalFailure::Buffer)));
                    }
                }
                _ => any = true,
            }
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "all other events change the status")]
    fn take_event(&mut self, inner: &mut Inner, turn: &mut Turn, event: Event, tracing: bool) {
        match event {
            Event::Delivered(id) => {
                turn.room_freed = true;
                turn.wakes.extend(inner.receipts.settle(id, Ok(())));
                if !tracing && !turn.listened {
                    return;
                }
            }
            Event::Dropped(id, reason) => {
                turn.room_freed = true;
                turn.wakes.extend(inner.receipts.settle(id, Err(reason.into())));
            }
            Event::Retrying { failure, delay } => {
                turn.status_changed = true;
                turn.notices.push(Notice::Advice(failure, delay, inner.link.status().advice()));
            }
            Event::Stopped => {
                self.stopped = true;
                turn.status_changed = true;
            }
            _ => turn.status_changed = true,
        }
        turn.notices.push(Notice::Event(event));
    }

    /// Carries out one action; `Err` names the attempt whose packet could not be encoded.
    fn act(
        &mut self,
        inbox: &mut std::collections::VecDeque<Body>,
        turn: &mut Turn,
        action: Action<'_>,
        tracing: bool,
    ) -> Result<(), Attempt> {
        match action {
            Action::Send { attempt, packet } => {
                let len = turn.scratch.put_packet(&packet).map_err(|_| attempt)?;
                if tracing {
                    turn.notices.push(Notice::Sent(attempt, packet.name(), len));
                }
            }
            Action::Sign { attempt, role, text } => {
                turn.status_changed = true;
                turn.sign = Some((attempt, role, text.to_string()));
            }
            Action::Connect { attempt, endpoint } => {
                turn.status_changed = true;
                // The service sends again what was not acknowledged on the connection before.
                inbox.retain(|body| body.owed.is_none());
                self.work = self.dial(attempt, &endpoint);
                turn.begun = true;
            }
            Action::Close { attempt, flush } => self.close(turn, attempt, flush),
            Action::SaveAssignment(assignment) => turn.save = Some(assignment.clone()),
            _ => {}
        }
        Ok(())
    }

    fn dial(&self, attempt: Attempt, endpoint: &Endpoint<'_>) -> Work {
        let setup = Arc::clone(&self.setup);
        let (host, port, shown) = (endpoint.host.to_owned(), endpoint.port, endpoint.client_certificate);
        tracing::debug!(device = %self.setup.name, %attempt, host, port, "connecting");
        Work::Dialling(attempt, Box::pin(async move { setup.dial(host, port, shown).await }), shown)
    }

    fn close(&mut self, turn: &mut Turn, attempt: Attempt, flush: bool) {
        let current = match &self.work {
            Work::Idle => return,
            Work::Signing(of, _) | Work::Dialling(of, ..) | Work::Securing(of, ..) => *of,
            Work::Open(connection) => connection.attempt,
        };
        if current != attempt {
            return;
        }
        if let Work::Open(connection) = mem::replace(&mut self.work, Work::Idle) {
            let rest = mem::take(&mut turn.scratch.0);
            if flush {
                self.closing = Some(Box::pin(connection.finish(rest)));
                turn.begun = true;
            }
        }
    }

    /// Does what may run the application's code, without the lock.
    fn tell(&mut self, shared: &Shared, turn: &mut Turn) {
        turn.wakes.drain(..).for_each(Waker::wake);
        if mem::take(&mut turn.arrived) {
            shared.arrived.notify_one();
        }
        let listeners: Option<&broadcast::Sender<Event>> = shared.listeners();
        for notice in turn.notices.drain(..) {
            match notice {
                Notice::Event(event) => {
                    log::event(&self.setup.name, &event);
                    if let Some(listeners) = listeners {
                        // Without a listener nobody misses it.
                        let _ = listeners.send(event);
                    }
                }
                Notice::Advice(failure, delay, advice) => log::retrying(&self.setup.name, failure, delay, advice),
                Notice::Sent(attempt, name, len) => log::sent(&self.setup.name, attempt, name, len),
                Notice::InboxFull => {
                    tracing::warn!(device = %self.setup.name, "a message without acknowledgement was dropped: the application takes none");
                }
            }
        }
        if let Some((attempt, role, text)) = turn.sign.take() {
            self.work = match &self.setup.signer {
                Some(signer) => Work::Signing(attempt, signer.sign(role, &text)),
                None => Work::Idle,
            };
            turn.begun = true;
        }
        if let Some(assignment) = turn.save.take() {
            self.save(assignment);
            turn.begun = true;
        }
    }

    /// Writes the assignment's file beside the runtime's threads: the disk may take its time.
    fn save(&mut self, assignment: Assignment) {
        let Some(file) = self.setup.assignment.clone() else { return };
        let earlier = self.saving.take();
        let write = move || {
            if let Err(error) = file.save(&assignment) {
                tracing::warn!(path = %file.path().display(), %error, "the assignment was not kept; the next start will provision anew");
            }
        };
        self.saving = Some(spawn(async move {
            if let Some(earlier) = earlier {
                // The later one counts, whatever became of it.
                let _ = earlier.await;
            }
            let _ = spawn_blocking(write).await;
        }));
    }

    /// Writes what was gathered. Returns whether another round may find more.
    fn write(&mut self, shared: &Shared, turn: &mut Turn, cx: &mut Context<'_>) -> bool {
        let Work::Open(connection) = &mut self.work else {
            turn.scratch.0.clear();
            return false;
        };
        if turn.scratch.0.is_empty() && !connection.has_unwritten() {
            return false;
        }
        let attempt = connection.attempt;
        let result = connection.write(cx, &turn.scratch.0);
        turn.scratch.0.clear();
        match result {
            Ok(moved) => {
                let pending = connection.waiting();
                if moved && pending > 0 {
                    shared.lock().link.handle_input(Input::Wrote { pending }, attempt, turn.now);
                }
                moved && pending == 0 && self.held_back
            }
            Err(error) => {
                // The service may have said why before it closed.
                let mut space = [MaybeUninit::uninit(); 512];
                let mut buffer = ReadBuf::uninit(&mut space);
                let said = match connection.read(cx, &mut buffer) {
                    Read::Broken(said) => said,
                    Read::Drained | Read::More | Read::End => error,
                };
                let mut inner = shared.lock();
                self.broken(&mut inner, turn, Some(&said));
                true
            }
        }
    }

    /// Sees to it that the task is woken at the link's deadline. Returns whether that time has come.
    fn poll_sleep(&mut self, now: Instant, cx: &mut Context<'_>) -> bool {
        let Some(deadline) = self.deadline else { return false };
        if self.armed.is_none_or(|armed| deadline < armed) {
            let span = deadline.since(now).min(LONGEST_SLEEP);
            self.armed = Some(now.after(span));
            match &mut self.sleep {
                Some(sleep) => sleep.as_mut().reset(tokio::time::Instant::now() + span),
                None => self.sleep = Some(Box::pin(sleep(span))),
            }
        }
        let due = self.sleep.as_mut().is_some_and(|sleep| sleep.as_mut().poll(cx).is_ready());
        if due {
            self.armed = None;
        }
        due
    }
}

fn inform(inner: &mut Inner, turn: &mut Turn, attempt: Attempt, report: &Report) {
    let input = match report {
        Report::Signed(signature) => Input::Signed(signature),
        Report::Connected => Input::Connected,
        Report::Ready => Input::Ready,
        Report::Failed(failure) => Input::Failed(*failure),
    };
    inner.link.handle_input(input, attempt, turn.now);
    turn.status_changed = true;
}

/// Keeps what came for the application.
fn receive(inner: &mut Inner, turn: &mut Turn, attempt: Attempt, received: &Received<'_>) {
    if let Received::ProvisioningPayload(payload) = received {
        inner.provisioning_payload = Some(Box::from(*payload));
        return;
    }
    let Some(body) = Body::copy(received, attempt) else { return };
    // The link bounds those that are owed an acknowledgement.
    if body.owed.is_none() && inner.inbox.len() >= INBOX {
        turn.notices.push(Notice::InboxFull);
        return;
    }
    inner.inbox.push_back(body);
    turn.arrived = true;
}
