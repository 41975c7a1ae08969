//! The link and its connection, moved on under the lock of [`crate::shared`].
//!
//! Nothing here waits or runs code of the application. What has to happen without the lock is gathered in a [`Turn`].

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::mem::{self, MaybeUninit};
use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::Duration;

use steadfast_core::iothub::{Event, Received};
use steadfast_core::{
    Action, Advice, Assignment, Attempt, BackoffSnapshot, Event as LinkEvent, Failure, Input, Instant, LocalFailure,
    Outbox, Output, ServiceKind, SignRequest,
};
use tokio::io::ReadBuf;

use crate::clock;
use crate::connection::{Connection, READ, Read, Scratch};
use crate::messages::{Body, INBOX};
use crate::shared::Inner;
use crate::tokens::Proof;

/// Longest sleep: the runtime's clock stands still while the system sleeps, and the link's does not.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// Larger gathering buffers are not kept for the next turn.
const SCRATCH_KEPT: usize = 256 * 1024;

thread_local! {
    /// Lent to whoever holds a link's lock, so that idle devices hold none.
    static TURN: Cell<Option<Box<Turn>>> = const { Cell::new(None) };
}

/// What one turn gathers.
#[derive(Default)]
pub(crate) struct Turn {
    pub(crate) now: Instant,
    /// Packets to write.
    scratch: Scratch,
    /// Who is to be woken.
    pub(crate) wakes: Vec<Waker>,
    /// What is to be logged and told to listeners, either of which may turn to the device.
    pub(crate) notices: Vec<Notice>,
    /// Somebody listens to the events.
    pub(crate) listened: bool,
    /// Each packet is logged.
    traced: bool,
    /// The inbox has got a message.
    arrived: bool,
    /// A service has something for whoever waits for it.
    pub(crate) served: bool,
    pub(crate) status_changed: bool,
    room_freed: bool,
    /// Another turn may find more to do.
    pub(crate) again: bool,
    /// What is under way for this attempt, or an older one, is of no more use.
    pub(crate) abandoned: Option<Attempt>,
    pub(crate) dial: Option<Dial>,
    pub(crate) sign: Option<ToSign>,
    #[cfg(feature = "tpm")]
    pub(crate) register: Option<crate::dps_https::ToRegister>,
    pub(crate) save: Option<Assignment>,
    pub(crate) remember: Option<BackoffSnapshot>,
    /// The connection before, on its way out.
    pub(crate) closing: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// How long to sleep from now on, when that has changed.
    pub(crate) sleep: Option<Duration>,
}

/// What to sign.
pub(crate) struct ToSign {
    pub(crate) attempt: Attempt,
    pub(crate) role: ServiceKind,
    pub(crate) refusals: u8,
    pub(crate) text: String,
}

/// Where to connect to.
pub(crate) struct Dial {
    pub(crate) attempt: Attempt,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) role: ServiceKind,
    /// The device shows its certificate.
    pub(crate) shown: bool,
    /// HTTPS is spoken there.
    #[cfg(feature = "tpm")]
    pub(crate) https: bool,
}

pub(crate) enum Notice {
    Event(Event),
    Retrying(Failure, Duration, Advice),
    Sent(Attempt, &'static str, usize),
    InboxFull,
    /// What ended the connection.
    Broken(String),
}

impl Turn {
    /// Begins a turn with the buffers of an earlier one.
    pub(crate) fn begin() -> Box<Self> {
        TURN.take().unwrap_or_default()
    }

    /// Keeps the buffers for a later turn. Everything gathered has been taken.
    pub(crate) fn end(mut self: Box<Self>) {
        self.scratch.clear();
        if self.scratch.capacity() <= SCRATCH_KEPT {
            TURN.set(Some(self));
        }
    }

    #[cfg(feature = "tpm")]
    const fn registers(&self) -> bool {
        self.register.is_some()
    }

    #[cfg(not(feature = "tpm"))]
    #[expect(clippy::unused_self, reason = "only a feature registers over HTTPS")]
    const fn registers(&self) -> bool {
        false
    }

    /// Whether there is anything but packets.
    fn has_commands(&self) -> bool {
        !self.wakes.is_empty()
            || !self.notices.is_empty()
            || self.arrived
            || self.served
            || self.status_changed
            || self.room_freed
            || self.again
            || self.abandoned.is_some()
            || self.dial.is_some()
            || self.sign.is_some()
            || self.registers()
            || self.save.is_some()
            || self.remember.is_some()
            || self.closing.is_some()
    }
}

/// What came of the work under way.
pub(crate) enum Report {
    Proved(Proof),
    Connected,
    /// Bytes can flow.
    Open(Connection),
    /// Requests over HTTPS can be made.
    #[cfg(feature = "tpm")]
    Ready,
    /// The answer to one.
    #[cfg(feature = "tpm")]
    Registered(crate::http::Answer),
    Failed(Failure),
}

impl Inner {
    /// Does what can be done at once: reads, lets the link act, writes.
    pub(crate) fn turn(&mut self, turn: &mut Turn, report: Option<(Attempt, Report)>, cx: &mut Context<'_>) {
        turn.traced = is_traced();
        if !self.driver.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            self.driver = Some(cx.waker().clone());
        }
        if let Some((attempt, report)) = report {
            turn.again = true;
            self.inform(turn, attempt, report);
        }
        self.read(turn, cx);
        if self.deadline.is_some_and(|at| at <= turn.now) {
            self.link.set_wall_clock(clock::unix_secs(), turn.now);
            self.link.handle_timeout(turn.now);
            turn.status_changed = true;
        }
        self.drain(turn);
        if let Err(error) = self.write(turn, cx) {
            self.write_failed(turn, error, cx);
        }
        // Where a connection has ended, what was in flight on it may make room.
        if turn.served || mem::take(&mut turn.arrived) {
            turn.wakes.append(&mut self.take_pollers());
        }
        if mem::take(&mut turn.room_freed) || turn.status_changed {
            turn.wakes.extend(self.next_in_turn());
        }
        self.set_alarm(turn);
    }

    /// Sends what was just accepted, when it is all the link holds and the driver sleeps: that spares waking it.
    /// Otherwise many messages go in one write of the driver's. Returns whom to wake.
    pub(crate) fn send_lone(&mut self, now: Instant) -> Option<Waker> {
        let driver = self.driver.take()?;
        let lone = self.link.link().outbox().usage().messages == 1
            && self.left_over.is_none()
            && self.connection.as_ref().is_some_and(|connection| !connection.has_unwritten());
        if !lone {
            return Some(driver);
        }
        let mut turn = Turn::begin();
        turn.now = now;
        turn.traced = is_traced();
        self.drain(&mut turn);
        if let Err(error) = self.write(&mut turn, &mut Context::from_waker(&driver)) {
            self.write_failed(&mut turn, error, &mut Context::from_waker(&driver));
        }
        let overslept = self.deadline.is_some_and(|at| self.alarm.is_none_or(|alarm| at < alarm));
        let orders = turn.has_commands();
        if orders {
            self.left_over = Some(turn);
        } else {
            turn.end();
        }
        if orders || overslept || self.held_back {
            return Some(driver);
        }
        self.driver = Some(driver);
        None
    }

    fn inform(&mut self, turn: &mut Turn, attempt: Attempt, report: Report) {
        let proof;
        #[cfg(feature = "tpm")]
        let answer;
        let input = match report {
            Report::Proved(proved) => {
                proof = proved;
                match &proof {
                    Proof::Signature(signature) => Input::Signed(signature),
                    Proof::Token(token) => Input::Token(token),
                }
            }
            Report::Connected => Input::Connected,
            Report::Open(connection) => {
                self.connection = Some(connection);
                Input::Ready
            }
            #[cfg(feature = "tpm")]
            Report::Ready => Input::Ready,
            #[cfg(feature = "tpm")]
            Report::Registered(registered) => {
                answer = registered;
                let (status, retry_after_secs) = (answer.status, answer.retry_after_secs);
                Input::Registered { status, retry_after_secs, body: &answer.body }
            }
            Report::Failed(failure) => Input::Failed(failure),
        };
        let taken = self.link.handle_input(input, attempt, turn.now);
        if let Some(received) = taken.received {
            self.receive(turn, attempt, &received);
        }
        turn.status_changed = true;
    }

    fn read(&mut self, turn: &mut Turn, cx: &mut Context<'_>) {
        let Some(connection) = &mut self.connection else { return };
        let mut space = [MaybeUninit::uninit(); READ];
        let mut buffer = ReadBuf::uninit(&mut space);
        let read = connection.read(cx, &mut buffer);
        if !buffer.filled().is_empty() {
            self.take_bytes(turn, buffer.filled());
        }
        match read {
            Read::Drained => {}
            Read::More => turn.again = true,
            Read::End => self.broken(turn, None),
            Read::Broken(error) => self.broken(turn, Some(&error)),
        }
    }

    /// Hands bytes to the link and keeps the beginning of a packet that is not whole.
    fn take_bytes(&mut self, turn: &mut Turn, bytes: &[u8]) {
        let Some(connection) = &mut self.connection else { return };
        let attempt = connection.attempt;
        let mut partial = mem::take(&mut connection.partial);
        let rest = if partial.is_empty() {
            let taken = self.offer(turn, attempt, bytes);
            bytes.get(taken..).unwrap_or(&[]).to_vec()
        } else {
            partial.extend_from_slice(bytes);
            let taken = self.offer(turn, attempt, &partial);
            partial.drain(..taken.min(partial.len()));
            partial
        };
        if let Some(connection) = &mut self.connection
            && connection.attempt == attempt
            && !rest.is_empty()
        {
            connection.partial = rest;
        }
    }

    /// Offers bytes to the link until it takes no more, and returns how many it took.
    fn offer(&mut self, turn: &mut Turn, attempt: Attempt, bytes: &[u8]) -> usize {
        let mut at = 0;
        loop {
            let rest = bytes.get(at..).unwrap_or(&[]);
            let taken = self.link.handle_input(Input::Bytes(rest), attempt, turn.now);
            at += taken.bytes;
            if let Some(received) = taken.received {
                self.receive(turn, attempt, &received);
            }
            // The link takes no more while its events are full.
            let drained = self.drain(turn);
            let stuck = taken.bytes == 0 && taken.received.is_none() && !drained;
            if at >= bytes.len() || taken.needed.is_some() || stuck {
                return at;
            }
        }
    }

    /// Keeps what came for the application.
    #[expect(clippy::wildcard_enum_match_arm, reason = "messages are copied below; a later version may bring others")]
    fn receive(&mut self, turn: &mut Turn, attempt: Attempt, received: &Received<&str, &[u8]>) {
        match *received {
            Received::Link(steadfast_core::Received::ProvisioningPayload(payload)) => {
                self.provisioning_payload = Some(Box::from(payload));
                return;
            }
            Received::Twin(twin) => self.services.take_twin(&twin),
            Received::Desired { version, patch } => self.services.take_change(version, patch),
            Received::Call { call, name, payload } => {
                let name: Vec<u8> = name.bytes().collect();
                self.services.take_call(call, String::from_utf8_lossy(&name).into_owned(), payload);
            }
            _ => {}
        }
        turn.served |= matches!(received, Received::Twin(_) | Received::Desired { .. } | Received::Call { .. });
        let Some(body) = Body::copy(received, attempt) else { return };
        // The link bounds those that are owed an acknowledgement.
        if body.owed.is_none() && self.inbox.len() >= INBOX {
            turn.notices.push(Notice::InboxFull);
            return;
        }
        self.inbox.push_back(body);
        turn.arrived = true;
    }

    /// The connection is gone.
    fn broken(&mut self, turn: &mut Turn, error: Option<&io::Error>) {
        let Some(connection) = self.connection.take() else { return };
        turn.scratch.clear();
        if let Some(error) = error {
            turn.notices.push(Notice::Broken(error.to_string()));
        }
        let failure = error.map_or(Failure::Lost, |error| connection.failure(error));
        self.inform(turn, connection.attempt, Report::Failed(failure));
    }

    fn write_failed(&mut self, turn: &mut Turn, error: io::Error, cx: &mut Context<'_>) {
        let Some(connection) = &mut self.connection else { return };
        // The service may have said why before it closed.
        let mut space = [MaybeUninit::uninit(); 512];
        let mut buffer = ReadBuf::uninit(&mut space);
        let said = match connection.read(cx, &mut buffer) {
            Read::Broken(said) => Some(said),
            Read::Drained | Read::More => Some(error),
            // It closed, and what was written after that found nobody.
            Read::End => None,
        };
        self.broken(turn, said.as_ref());
        turn.again = true;
    }

    /// Carries out what the link wants, as far as that needs no waiting. Returns whether there was anything.
    fn drain(&mut self, turn: &mut Turn) -> bool {
        let mut any = false;
        loop {
            let room = self.connection.as_ref().map_or(0, |connection| connection.room(turn.scratch.bytes().len()));
            match self.link.poll_output_within(room) {
                Output::Wait(deadline) => {
                    self.deadline = deadline.map(|deadline| deadline.at);
                    self.held_back = self.link.is_held_back(room);
                    turn.room_freed |= self.settle_ended(&mut turn.wakes);
                    return any;
                }
                Output::Event(event) => self.take_event(turn, event),
                Output::Action(Action::Send { attempt, packet }) => match turn.scratch.put_packet(&packet) {
                    Ok(len) if turn.traced => turn.notices.push(Notice::Sent(attempt, packet.name(), len)),
                    Ok(_) => {}
                    Err(_) => {
                        // It would fail the next time too.
                        self.connection = None;
                        turn.scratch.clear();
                        self.inform(turn, attempt, Report::Failed(Failure::Local(LocalFailure::Buffer)));
                    }
                },
                Output::Action(Action::Connect { attempt, endpoint }) => {
                    let (host, port, role) = (endpoint.host.to_owned(), endpoint.port, endpoint.role);
                    turn.dial = Some(Dial {
                        attempt,
                        host,
                        port,
                        role,
                        shown: endpoint.client_certificate,
                        #[cfg(feature = "tpm")]
                        https: endpoint.https,
                    });
                    turn.status_changed = true;
                    // The service sends again what was not acknowledged on the connection before.
                    self.inbox.retain(|body| body.owed.is_none());
                    self.services.forget_calls();
                }
                Output::Action(Action::Sign { attempt, request: SignRequest { role, refusals, text, .. } }) => {
                    turn.sign = Some(ToSign { attempt, role, refusals, text: text.to_string() });
                    turn.status_changed = true;
                }
                #[cfg(feature = "tpm")]
                Output::Action(Action::Register { attempt, request }) => {
                    turn.register = Some(crate::dps_https::ToRegister::new(attempt, &request));
                }
                Output::Action(Action::Close { attempt, flush }) => self.close(turn, attempt, flush),
                Output::Action(Action::SaveAssignment(assignment)) => turn.save = Some(assignment.clone()),
                Output::Action(Action::SaveBackoff(memory)) => turn.remember = Some(memory),
                _ => {}
            }
            any = true;
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "all other events change the status")]
    fn take_event(&mut self, turn: &mut Turn, event: Event) {
        turn.served |= self.services.take_event(&event);
        match event {
            Event::Link(LinkEvent::Delivered(_)) => {
                if !turn.traced && !turn.listened {
                    return;
                }
            }
            Event::Link(LinkEvent::Dropped(_)) => {}
            Event::Link(LinkEvent::Retrying { failure, delay }) => {
                turn.status_changed = true;
                turn.notices.push(Notice::Retrying(failure, delay, self.link.link().status().advice()));
            }
            Event::Link(LinkEvent::Stopped) => {
                self.stopped = true;
                turn.status_changed = true;
            }
            _ => turn.status_changed = true,
        }
        turn.notices.push(Notice::Event(event));
    }

    fn close(&mut self, turn: &mut Turn, attempt: Attempt, flush: bool) {
        turn.abandoned = Some(attempt);
        if let Some(connection) = self.connection.take_if(|connection| connection.attempt == attempt) {
            let rest = turn.scratch.take();
            if flush {
                turn.closing = Some(Box::pin(connection.finish(rest)));
            }
        }
    }

    /// Writes what was gathered and what waited.
    fn write(&mut self, turn: &mut Turn, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(connection) = &mut self.connection else {
            turn.scratch.clear();
            return Ok(());
        };
        if turn.scratch.bytes().is_empty() && !connection.has_unwritten() {
            return Ok(());
        }
        let moved = connection.write(cx, turn.scratch.bytes());
        turn.scratch.clear();
        let moved = moved?;
        let (attempt, pending) = (connection.attempt, connection.pending());
        if moved && pending > 0 {
            self.link.handle_input(Input::Wrote { pending }, attempt, turn.now);
        }
        turn.again |= moved && pending == 0 && self.held_back;
        Ok(())
    }

    /// Sees to it that the driver sleeps no longer than to the deadline. One that is earlier than needed stays: it costs
    /// one turn, where moving it would cost something with each message.
    fn set_alarm(&mut self, turn: &mut Turn) {
        let Some(deadline) = self.deadline else { return };
        if self.alarm.is_none_or(|alarm| deadline < alarm) {
            let span = deadline.since(turn.now).min(LONGEST_SLEEP);
            self.alarm = Some(turn.now.after(span));
            turn.sleep = Some(span);
        }
    }
}

/// Whether the packets are logged.
fn is_traced() -> bool {
    tracing::enabled!(target: "steadfast::packets", tracing::Level::TRACE)
}
