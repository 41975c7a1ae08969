//! One device's lifelong tie to its hub.

mod clock;
pub(crate) mod config;
mod deliver;
mod events;
mod lifecycle;
mod next_step;
mod planned_move;
mod profile;
mod provision;
mod receive;
mod received;
mod services_api;
mod state;
mod subscriptions;
mod timeouts;
mod transmit;
mod visit;

use core::time::Duration;

use self::clock::{CLOCK_SET_SECS, SKEW_SECS, WallClock};
use self::events::Events;
use self::state::{Connection, Inbound, Ladder, Pending, Phase, Plan, Session, TokenLife, Trouble, Wire};
use crate::io::{Assignment, Attempt, Input, Output, ServiceKind, Taken};
use crate::ledger::Ledger;
use crate::mqtt::PacketId;
use crate::outbox::Outbox;
use crate::retry::Backoff;
use crate::rng::{Rng, Seed};
use crate::status::{State, Status};
use crate::time::{Instant, short_millis};
use crate::timer::{Deadline, TimerReason, Timers};

pub(crate) use self::config::within;
pub use self::config::{Overflow, SessionConfig, SessionConfigError, Setting};
pub(crate) use self::profile::sealed::Sealed;
pub use self::profile::{FILTERS_MAX, Filters, Places, Profile, SubscribeError};
pub use self::timeouts::{Reprovisioning, Timeouts};
pub use self::visit::{Answer, AnswerHead, Change, Verdict, Visit};
pub use deliver::{Message, PublishError};
pub use events::{Dropped, Event};
pub use received::Received;

/// Limit of inbound QoS 1 messages that wait for [`Link::acknowledge`]: as many as an IoT hub queues for a device
/// (azure-docs `iot-hub/iot-hub-devguide-quotas-throttling.md`, cloud-to-device queue depth).
const INBOUND: usize = 50;

/// One device's link to its hub, across reconnects, moves to other hubs and reboots.
///
/// The link is a state machine without I/O. Four kinds of methods drive it:
///
/// * commands of the application: [`start`](Self::start), [`publish`](Self::publish),
///   [`acknowledge`](Self::acknowledge), [`reprovision`](Self::reprovision), [`stop`](Self::stop);
/// * [`handle_input`](Self::handle_input) and [`handle_timeout`](Self::handle_timeout) take inputs and deadlines;
/// * [`poll_output`](Self::poll_output) returns actions and events, until it returns [`Output::Wait`];
/// * the other methods only read.
///
/// They may be called in any order. After a command, an input or a timeout the frontend polls outputs until `Wait`,
/// then sleeps until the deadline or the next input. `now` comes from a monotonic clock; a value before the latest one
/// counts as the latest.
///
/// Each connection attempt has a number. The frontend passes it with every input; inputs of older attempts have no
/// effect.
#[derive(Clone, Debug)]
pub struct Link<O, P> {
    phase: Phase,
    plan: Option<Plan>,
    attempt: Attempt,
    now: Instant,
    phase_since: Instant,
    rng: Rng,
    pending: Pending,
    wire: Wire,
    session: Session,
    connection: Connection,
    hub_backoff: Backoff,
    ladder: Ladder,
    clock: WallClock,
    timers: Timers,
    ledger: Ledger,
    trouble: Trouble,
    events: Events,
    inbound: Inbound,
    token: TokenLife,
    profile: P,
    outbox: O,
}

impl<O: Outbox, P: Profile> Link<O, P> {
    /// Creates an idle link to the service of `profile`. The seed must differ from device to device.
    ///
    /// Messages that are already in the outbox count as accepted.
    ///
    /// # Errors
    /// If the profile's settings are invalid; nothing has been sent.
    pub fn new(profile: P, outbox: O, seed: Seed, now: Instant) -> Result<Self, P::Error> {
        profile.check()?;
        Ok(Self::of_checked(profile, outbox, seed, now))
    }

    /// Creates a link as [`new`](Self::new) does, of a profile whose [`Profile::check`] has passed. Without a result around
    /// it a caller can make the link where it stays, which keeps it off the stack.
    #[inline(always)]
    pub fn of_checked(profile: P, outbox: O, seed: Seed, now: Instant) -> Self {
        let mut rng = Rng::new(seed, profile.identity());
        let session = Session::new(&outbox, &mut rng, now);
        let unreachable_ms = unreachable_ms(short_millis(profile.reprovisioning().after_unreachable), &mut rng);
        let accepted = outbox.usage().messages.try_into().unwrap_or(u64::MAX);
        let ledger = Ledger { accepted, ..Ledger::default() };
        let mut timers = Timers::new();
        if accepted > 0 {
            timers.set(TimerReason::Expiry, now);
        }
        Self {
            profile,
            token: TokenLife { secs: 0, from: now },
            rng,
            now,
            attempt: Attempt::default(),
            phase: Phase::Idle,
            phase_since: now,
            plan: None,
            timers,
            hub_backoff: Backoff::new(now),
            ladder: Ladder {
                wanted: false,
                not_before: now,
                unreachable_ms,
                absent: None,
                failed_registrations: 0,
                immediate_closes: 0,
                registrations: 0,
            },
            session,
            connection: Connection::default(),
            outbox,
            wire: Wire::new(now),
            inbound: Inbound::new(),
            events: Events::new(),
            pending: Pending::default(),
            clock: WallClock::default(),
            ledger,
            trouble: Trouble::default(),
        }
    }

    /// Restores a stored assignment, so that the link connects directly to the hub.
    ///
    /// Without effect on a link that has an assignment or a configured hub.
    pub fn restore_assignment(&mut self, assignment: Assignment) {
        if let Some(visit) = self.profile.visit_mut().filter(|visit| P::VISITS && visit.assignment().is_none()) {
            visit.assignment = Some(assignment);
        }
    }

    /// Sets the wall clock: whole seconds since 1970-01-01 00:00 UTC.
    ///
    /// Only the expiry of tokens depends on it. It may be wrong; set it before the first attempt and after each
    /// correction, at best before each attempt. A link that waits after a failure that a wrong clock can cause retries
    /// within [`crate::RetryPolicy::first_jitter`] when the clock changes by more than 5 minutes.
    pub fn set_wall_clock(&mut self, unix_secs: u64, now: Instant) {
        let now = self.tick(now);
        let before = self.clock.unix_secs(now);
        self.clock.own = (unix_secs >= CLOCK_SET_SECS).then_some((unix_secs, now));
        if let Some(after) = self.clock.unix_secs(now)
            && before.is_none_or(|before| before.abs_diff(after) > SKEW_SECS)
        {
            self.try_soon();
        }
    }

    /// Starts the link; without effect while it is trying or up. A stop in progress then ends in a new connection.
    ///
    /// The first attempt starts within [`crate::RetryPolicy::first_jitter`], since after a power failure many devices
    /// start together.
    pub fn start(&mut self, now: Instant) {
        let now = self.tick(now);
        if matches!(self.phase, Phase::Idle | Phase::Stopped) {
            self.trouble = Trouble::default();
            if self.phase != Phase::Idle || !self.hub_backoff.is_recalled() {
                self.hub_backoff.reset(now);
            }
            self.reset_dps_backoff();
            self.ladder.absent = Some(now);
            let word = self.rng.word();
            let delay = self.fresh_delay(word);
            self.plan = None;
            self.enter(Phase::Waiting);
            self.timers.set(TimerReason::Retry, now.after(delay));
        } else if self.phase == Phase::Draining && self.plan == Some(Plan::Stop) {
            self.plan = Some(Plan::Reconnect);
            self.finish_drain_when_empty();
        }
    }

    /// Starts an idle or stopped link like [`start`](Self::start), and connects immediately: for a device that stopped
    /// before its sleep and is woken by a timer, since such timers already differ across a fleet.
    ///
    /// A back-off that was restored counts all the same. After a power cut use [`start`](Self::start).
    pub fn wake(&mut self, now: Instant) {
        let asleep = matches!(self.phase, Phase::Idle | Phase::Stopped);
        self.start(now);
        if asleep && !self.hub_backoff.is_recalled() {
            self.timers.set(TimerReason::Retry, self.now);
        }
    }

    /// Stops the link. The outbox keeps its messages.
    ///
    /// While the link is up it first sends queued messages and awaits their acknowledgements, for at most `drain`; then
    /// it sends DISCONNECT. [`crate::Event::Stopped`] ends it.
    pub fn stop(&mut self, drain: Duration, now: Instant) {
        let now = self.tick(now);
        match self.phase {
            Phase::Stopped => {}
            Phase::Up | Phase::Draining => {
                self.plan = Some(Plan::Stop);
                self.enter(Phase::Draining);
                self.timers.clear(TimerReason::TokenRenewal);
                self.timers.clear(TimerReason::PlannedMove);
                self.timers.set(TimerReason::Drain, now.after(drain));
                self.finish_drain_when_empty();
            }
            Phase::Idle
            | Phase::Waiting
            | Phase::Signing
            | Phase::Connecting
            | Phase::AwaitingConnack
            | Phase::Subscribing
            | Phase::Registering => self.stopped(),
        }
    }

    /// Registers with the Device Provisioning Service, such as when an operator has moved the device.
    ///
    /// While the link is up, messages in flight are drained first. Without effect for a configured hub, or while the
    /// link is stopped.
    pub fn reprovision(&mut self, now: Instant) {
        let now = self.tick(now);
        if !self.visits() {
            return;
        }
        match self.phase {
            Phase::Up => {
                self.ladder.wanted = true;
                self.begin_drain(Plan::Reconnect);
            }
            Phase::Draining => self.ladder.wanted = true,
            Phase::Waiting => {
                self.ladder.wanted = true;
                let word = self.rng.word();
                let delay = self.fresh_delay(word);
                self.timers.set(TimerReason::Retry, now.after(delay));
            }
            Phase::Signing | Phase::Connecting | Phase::AwaitingConnack | Phase::Subscribing => {
                self.ladder.wanted = self.role() == ServiceKind::Hub;
            }
            Phase::Idle | Phase::Registering | Phase::Stopped => {}
        }
    }

    /// Acknowledges an inbound message that the application has handled.
    ///
    /// Acknowledgements are sent in the order of the messages (MQTT 3.1.1 \[MQTT-4.6.0-2\]): an early one waits. An
    /// acknowledgement of an older attempt's message is dropped, since the service sends that message again. Returns
    /// whether it was accepted.
    pub fn acknowledge(&mut self, packet_id: PacketId, attempt: Attempt, now: Instant) -> bool {
        self.tick(now);
        attempt == self.attempt && self.inbound.handle(packet_id)
    }

    /// Abandons an inbound message on this connection: the service redelivers it on a later one, and acknowledgements
    /// of later messages no longer wait for it. Returns false if it was not pending.
    pub fn abandon(&mut self, packet_id: PacketId, attempt: Attempt) -> bool {
        attempt == self.attempt && self.inbound.abandon(packet_id)
    }

    /// Takes an input of an attempt; inputs of older attempts are ignored.
    ///
    /// One call consumes bytes up to the first received value for the application, or until the event queue is full:
    /// the frontend drains the outputs and passes in the rest, until no bytes are consumed.
    #[cfg_attr(target_pointer_width = "32", inline(never))]
    pub fn handle_input<'b>(
        &mut self,
        input: Input<'b>,
        attempt: Attempt,
        now: Instant,
    ) -> Taken<Received<&'b str, &'b [u8]>> {
        let now = self.tick(now);
        self.take_input(input, attempt, now)
    }

    /// Handles the deadlines due at `now`; harmless if early.
    #[cfg_attr(target_pointer_width = "32", inline(never))]
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.tick(now);
        // Each firing clears its timer; the bound only guards against a mistake.
        for _ in 0..64 {
            let Some(due) = self.timers.take_due(now) else { break };
            self.fire(due, now);
        }
    }

    /// Returns the next action or event; call until it returns [`Output::Wait`].
    pub fn poll_output(&mut self) -> Output<'_, Event> {
        self.poll_output_within(usize::MAX)
    }

    /// Like [`poll_output`](Self::poll_output) for a frontend that has room for at most `room` bytes to send: longer
    /// packets wait.
    #[cfg_attr(target_pointer_width = "32", inline(never))]
    pub fn poll_output_within(&mut self, room: usize) -> Output<'_, Event> {
        self.next_output(room)
    }

    /// Returns the state of the link.
    #[must_use]
    pub fn state(&self) -> State {
        match self.phase {
            Phase::Idle => State::Idle,
            Phase::Waiting => State::BackingOff,
            Phase::Signing | Phase::Connecting | Phase::AwaitingConnack | Phase::Subscribing | Phase::Registering => {
                match self.role() {
                    ServiceKind::Provisioning => State::Provisioning,
                    ServiceKind::Hub => State::Connecting,
                }
            }
            Phase::Up => State::Up,
            Phase::Draining => State::Draining,
            Phase::Stopped => State::Stopped,
        }
    }

    /// Returns the status: state, cause, next attempt and advice.
    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            state: self.state(),
            since: self.phase_since,
            now: self.now,
            attempt: self.attempt,
            renewing: self.phase == Phase::Draining && self.plan == Some(Plan::Renew),
            first_failure: self.trouble.first,
            last_failure: self.trouble.last,
            failures: self.trouble.failures,
            duplicate_identity: self.session.takeovers >= lifecycle::TAKEOVERS,
            quota_suspected: self.ladder.immediate_closes >= lifecycle::TAKEOVERS,
            next_attempt: self
                .timers
                .get(TimerReason::Retry)
                .or_else(|| self.timers.get(TimerReason::PlannedMove))
                .map(|at| (at, self.next_service())),
            registrations: self.ladder.registrations,
            clock_skew_secs: self.clock.skew(self.now),
            queued: self.outbox.usage(),
            in_flight: self.connection.in_flight,
        }
    }

    /// Returns the ledger.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        Ledger { queued: self.outbox.usage().messages.try_into().unwrap_or(u64::MAX), ..self.ledger }
    }

    /// Returns the earliest deadline, as [`Output::Wait`] does.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Deadline> {
        self.timers.next()
    }

    /// Returns the current attempt.
    #[must_use]
    pub const fn attempt(&self) -> Attempt {
        self.attempt
    }

    /// Returns the assignment, if the Device Provisioning Service has made one.
    #[must_use]
    pub fn assignment(&self) -> Option<&Assignment> {
        self.profile.assignment()
    }

    /// Returns the outbox.
    #[must_use]
    pub const fn outbox(&self) -> &O {
        &self.outbox
    }

    /// Returns the profile of the service, which has the configuration.
    #[must_use]
    pub const fn profile(&self) -> &P {
        &self.profile
    }

    pub(crate) const fn profile_mut(&mut self) -> &mut P {
        &mut self.profile
    }

    /// Whether another service may have to be visited. If the profile excludes that at compile time, the dialogue is
    /// not linked.
    fn visits(&self) -> bool {
        P::VISITS && self.profile.visit().is_some()
    }

    /// The service of this attempt.
    fn role(&self) -> ServiceKind {
        if P::VISITS { self.profile.role() } else { ServiceKind::Hub }
    }

    /// Records the time, which never goes back.
    #[cfg_attr(target_pointer_width = "32", inline(never))]
    fn tick(&mut self, now: Instant) -> Instant {
        self.now = self.now.max(now);
        self.now
    }

    #[cfg_attr(target_pointer_width = "32", inline(never))]
    fn enter(&mut self, phase: Phase) {
        if self.phase != phase {
            self.phase = phase;
            self.phase_since = self.now;
        }
    }
}

/// Draws how long the hub must be unreachable before the Device Provisioning Service is asked.
fn unreachable_ms(mean: u32, rng: &mut Rng) -> u32 {
    let third = mean / 3;
    rng.between(third.saturating_mul(2), third.saturating_mul(4))
}
