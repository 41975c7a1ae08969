//! The start and end of attempts, and the next step.

use core::time::Duration;

use super::clock::{SKEW_SECS, Told};
use super::next_step::{NextStep, Situation};
use super::state::{Connection, Pending, Phase, Plan, TokenLife, Trouble, Wire};
use super::{Event, Link, Profile, unreachable_ms};
use crate::failure::{Failure, FailureClass, LocalFailure, ProvisioningFailure};
use crate::io::ServiceKind;
use crate::outbox::Outbox;
use crate::retry::{Backoff, RetryCause};
use crate::rng::scale;
use crate::time::{Instant, short_millis, span};
use crate::timer::{Deadline, TimerReason};

/// Connections in a row that the service accepts and soon closes, after which another device may use the same identity.
pub(super) const TAKEOVERS: u8 = 3;

/// Minimum lifetime assumed for the renewal of tokens.
const SHORTEST_LIFETIME_MS: u32 = 60_000;

/// A connection that ends within this time counts as closed immediately.
const AT_ONCE: Duration = Duration::from_secs(5);

/// Connections in a row with acknowledged messages that may end early before that counts as overload.
pub(super) const EARLY_ENDS: u8 = 3;

impl<O: Outbox, P: Profile> Link<O, P> {
    /// The service of the next attempt.
    pub(super) fn next_service(&self) -> ServiceKind {
        let unassigned = self.visits() && self.profile.assignment().is_none();
        if self.ladder.wanted || unassigned { ServiceKind::Provisioning } else { ServiceKind::Hub }
    }

    pub(super) fn begin_attempt(&mut self) {
        let role = self.next_service();
        if let Some(visit) = self.profile.visit_mut().filter(|_| P::VISITS) {
            visit.role = role;
        }
        // An attempt consumes the command to register, so that it cannot loop.
        self.ladder.wanted = false;
        self.attempt = self.attempt.next();
        self.plan = None;
        self.wire = Wire::new(self.now);
        self.inbound.clear();
        self.pending = Pending {
            close: self.pending.close,
            disconnect: self.pending.disconnect,
            save: self.pending.save,
            remember: self.pending.remember,
            ..Pending::default()
        };
        if let Some(lifetime) = self.profile.token_lifetime() {
            let Some(unix_secs) = self.clock.unix_secs(self.now) else {
                self.attempt_failed(Failure::Local(LocalFailure::ClockUnset));
                return;
            };
            let lifetime = lifetime.as_secs();
            self.profile.begin_token(unix_secs.saturating_add(lifetime));
            self.token = TokenLife { secs: lifetime, from: self.now };
            self.pending.sign = true;
            self.enter(Phase::Signing);
            self.set_timer(TimerReason::Sign, self.profile.session().timeouts.sign);
        } else {
            self.open();
        }
    }

    /// Takes a ready-made token instead of a signature.
    pub(super) fn take_token(&mut self, token: &str) {
        let now = self.clock.unix_secs(self.now).unwrap_or(0);
        match self.profile.take_token(token, now) {
            Some(expiry) => {
                self.token.secs = expiry.saturating_sub(now);
                self.open();
            }
            None => self.attempt_failed(Failure::Local(LocalFailure::Signing)),
        }
    }

    /// Requests a transport.
    pub(super) fn open(&mut self) {
        self.timers.clear(TimerReason::Sign);
        self.pending.connect = true;
        self.enter(Phase::Connecting);
        self.set_timer(TimerReason::Connect, self.profile.session().timeouts.connect);
    }

    /// TCP is there.
    pub(super) fn connected(&mut self) {
        if self.phase == Phase::Connecting {
            self.timers.clear(TimerReason::Connect);
            self.set_timer(TimerReason::Tls, self.profile.session().timeouts.tls);
        }
    }

    /// Bytes can flow.
    pub(super) fn ready(&mut self) {
        if self.phase == Phase::Connecting {
            self.timers.clear(TimerReason::Connect);
            self.timers.clear(TimerReason::Tls);
            if self.is_over_https() {
                self.backoff_mut().answered();
                self.begin_registration();
                return;
            }
            self.wire.connect = true;
            self.enter(Phase::AwaitingConnack);
            let times = self.profile.session().timeouts;
            let wait = self.backoff().connack_timeout(times.connack, times.connack_longest);
            self.timers.set(TimerReason::Connack, self.now.after_millis(wait));
        }
    }

    /// The service took the device's CONNECT.
    pub(super) fn accepted(&mut self, session_present: bool) {
        self.timers.clear(TimerReason::Connack);
        match self.role() {
            // DPS accepts CONNECT even of a device whose registration it then refuses.
            ServiceKind::Provisioning => self.backoff_mut().answered(),
            ServiceKind::Hub => {
                self.hub_backoff.accepted();
                self.ladder.absent = None;
            }
        }
        self.watch_keep_alive();
        if self.role() == ServiceKind::Hub {
            if !session_present {
                self.forget_session();
            }
            self.connection = Connection { resumed: session_present, ..Connection::default() };
        }
        if self.is_subscribed() {
            self.subscribed();
        } else {
            self.enter(Phase::Subscribing);
            self.set_timer(TimerReason::Suback, self.profile.session().timeouts.suback);
        }
    }

    /// All subscriptions are acknowledged.
    pub(super) fn subscribed(&mut self) {
        self.timers.clear(TimerReason::Suback);
        match self.role() {
            ServiceKind::Provisioning => self.begin_registration(),
            ServiceKind::Hub => self.up(),
        }
    }

    fn up(&mut self) {
        self.enter(Phase::Up);
        self.trouble = Trouble::default();
        self.begin_delivery();
        let stable = self.profile.session().retry.reset_after;
        // A ready-made token may be about to expire; an immediate renewal would loop.
        let lifetime_secs = u32::try_from(self.token.secs).unwrap_or(u32::MAX);
        let lifetime = lifetime_secs.saturating_mul(1_000).max(SHORTEST_LIFETIME_MS);
        self.set_timer(TimerReason::Stable, stable);
        if self.profile.token_lifetime().is_some() {
            // Each device draws its own point between 75 % and 90 % of the lifetime; otherwise renewals would be in
            // step.
            let twentieth = lifetime / 20;
            let age = self.rng.between(twentieth.saturating_mul(15), twentieth.saturating_mul(18));
            self.timers.set(TimerReason::TokenRenewal, self.token.from.after_millis(age));
        }
        self.events.report(Event::Up { session_present: self.connection.resumed });
        if self.ladder.wanted {
            self.begin_drain(Plan::Reconnect);
        }
    }

    fn stable(&mut self) {
        self.connection.stable = true;
        self.session.takeovers = 0;
        self.session.early_ends = 0;
        self.ladder.immediate_closes = 0;
        self.pending.remember |= self.hub_backoff.is_overloaded() || self.ladder.failed_registrations > 0;
        self.hub_backoff.reset(self.now);
        self.reset_dps_backoff();
        self.ladder.failed_registrations = 0;
        self.ladder.not_before = self.now;
        let mean = short_millis(self.profile.reprovisioning().after_unreachable);
        self.ladder.unreachable_ms = unreachable_ms(mean, &mut self.rng);
    }

    /// Ends the attempt or the connection because of `failure`, and plans the next attempt.
    pub(super) fn attempt_failed(&mut self, failure: Failure) {
        let was_up = matches!(self.phase, Phase::Up | Phase::Draining);
        let stable = was_up && self.connection.stable;
        let planned = self.timers.get(TimerReason::PlannedMove);
        let useful = was_up && self.connection.progressed;
        let lasted = self.now.since(self.phase_since);
        if was_up {
            self.end_delivery();
        }
        self.close(false);
        if self.plan == Some(Plan::Stop) {
            self.stopped();
            return;
        }
        self.plan = None;
        self.trouble.first.get_or_insert(failure);
        self.trouble.last = Some(failure);
        self.trouble.failures = self.trouble.failures.saturating_add(1);
        if was_up {
            self.events.report(Event::Down(failure));
        }
        let (word, now) = (self.rng.word(), self.now);
        if stable {
            self.ladder.absent = Some(now);
            self.hub_backoff.lose(failure, now);
        }
        let delay = if let Some(at) = planned {
            at.since(now)
        } else if stable {
            self.fresh_delay(word)
        } else {
            let taken_over = was_up && failure.is_loss();
            self.session.takeovers = if taken_over { self.session.takeovers.saturating_add(1) } else { 0 };
            let immediate_closes = taken_over && !useful && lasted <= AT_ONCE;
            self.ladder.immediate_closes =
                if immediate_closes { self.ladder.immediate_closes.saturating_add(1) } else { 0 };
            if useful && let Some(delay) = self.early_end(failure, word) {
                self.wait(failure, delay);
                return;
            }
            // A registration is billed, whatever its answer.
            let garbled = self.phase == Phase::Registering && failure.class() == FailureClass::Protocol;
            let noted = if garbled { Failure::Provisioning(ProvisioningFailure::BadAnswer) } else { failure };
            let mut context = self.backoff_mut().note(noted, was_up, now);
            self.pending.remember |= self.hub_backoff.is_worth_keeping(now);
            if self.session.takeovers >= TAKEOVERS {
                context.cause = RetryCause::TakenOver;
            }
            let delay = self.profile.retry_delay(&context, word);
            self.climb(failure, was_up, delay, word)
        };
        self.wait(failure, delay);
    }

    /// The clock was set: a failure that a wrong one caused may be over.
    pub(super) fn try_soon(&mut self) {
        if self.phase == Phase::Waiting && self.trouble.last.is_some_and(Failure::may_be_the_clock) {
            let word = self.rng.word();
            let at = self.now.after(self.fresh_delay(word));
            if self.timers.get(TimerReason::Retry).is_some_and(|planned| planned > at) {
                self.timers.set(TimerReason::Retry, at);
            }
        }
    }

    fn wait(&mut self, failure: Failure, delay: Duration) {
        self.enter(Phase::Waiting);
        self.timers.set(TimerReason::Retry, self.now.after(delay));
        self.events.report(Event::Retrying { failure, delay });
    }

    /// The delay after a connection with acknowledged messages that ended early: the first few times that is a bad
    /// network rather than overload. An overloaded service acknowledges nothing.
    fn early_end(&mut self, failure: Failure, word: u32) -> Option<Duration> {
        let line = failure.is_loss() || failure == Failure::KeepAliveTimeout;
        if !line || self.session.early_ends >= EARLY_ENDS || self.hub_backoff.is_overloaded() {
            return None;
        }
        let widening = 1 << self.session.early_ends;
        self.session.early_ends = self.session.early_ends.saturating_add(1);
        self.ladder.absent = Some(self.now);
        self.hub_backoff.lose(failure, self.now);
        Some(self.fresh_delay(word).saturating_mul(widening))
    }

    /// The delay before an attempt that follows no failure.
    pub(super) fn fresh_delay(&self, word: u32) -> Duration {
        self.profile.retry_delay(&self.hub_backoff.fresh(self.now), word)
    }

    /// Decides the next service and returns the delay before the attempt; `delay` is that of the back-off.
    fn climb(&mut self, failure: Failure, was_up: bool, delay: Duration, word: u32) -> Duration {
        let (class, disposition) = failure.judge();
        let service = self.role();
        let rules = *self.profile.reprovisioning();
        let situation = Situation {
            service,
            assigned: self.profile.assignment().is_some(),
            refusals: self.hub_backoff.refusals(),
            after_refusals: rules.after_refusals,
            may_register: self.may_register(),
            out_of_reach: service == ServiceKind::Hub && self.is_out_of_reach(failure, was_up),
        };
        match NextStep::after(class, disposition, situation) {
            NextStep::Retry => delay,
            NextStep::FreshCredential => self.fresh_delay(word),
            NextStep::Register => {
                self.ladder.wanted = true;
                delay
            }
            NextStep::RegisterSoon => {
                self.ladder.wanted = true;
                span(u64::from(scale(word, 0, short_millis(rules.spread))))
            }
            NextStep::ProbeHub => {
                self.ladder.not_before = self.ladder.not_before.max(self.now.after(delay));
                let probe = self.profile.retry_delay(&self.hub_backoff.again(self.now), word);
                if situation.refusals > 0 { probe.min(delay) } else { probe }
            }
        }
    }

    /// Whether the hub has been unreachable for so long that the device may have been moved.
    fn is_out_of_reach(&mut self, failure: Failure, was_up: bool) -> bool {
        if was_up || !matches!(failure.class(), FailureClass::Unreachable | FailureClass::Local) {
            self.ladder.absent = None;
            return false;
        }
        let silent = matches!(failure, Failure::ConnectTimeout | Failure::TlsTimeout);
        if failure.class() == FailureClass::Local || (silent && self.hub_backoff.is_overloaded()) {
            // Such a failure is no information about the hub, or may be overload.
            return false;
        }
        let absent = *self.ladder.absent.get_or_insert(self.now);
        self.now.millis_since(absent) >= u64::from(self.ladder.unreachable_ms)
    }

    fn may_register(&self) -> bool {
        self.visits() && self.now >= self.ladder.not_before
    }

    /// Records a registration that assigned a hub, and delays the next one, unless it is the first since a lasting
    /// connection and assigned another hub than before.
    pub(super) fn registered(&mut self, elsewhere: bool) {
        let rules = *self.profile.reprovisioning();
        let failed_registrations = self.ladder.failed_registrations.max(u8::from(!elsewhere));
        if failed_registrations > 0 {
            let doublings = u32::from(failed_registrations.saturating_sub(1)).min(16);
            let spacing =
                short_millis(rules.spacing).saturating_mul(1 << doublings).min(short_millis(rules.spacing_longest));
            let half = spacing >> 1;
            let spacing = self.rng.between(half, spacing.saturating_add(half));
            self.ladder.not_before = self.now.after_millis(spacing);
        }
        self.ladder.failed_registrations = failed_registrations.saturating_add(1);
        self.pending.remember = true;
    }

    /// Disconnects for `plan`, once messages in flight are acknowledged.
    pub(super) fn begin_drain(&mut self, plan: Plan) {
        self.plan = Some(plan);
        self.enter(Phase::Draining);
        self.timers.clear(TimerReason::TokenRenewal);
        self.timers.clear(TimerReason::PlannedMove);
        self.set_timer(TimerReason::Drain, self.profile.session().timeouts.drain);
        if plan == Plan::Renew {
            self.events.report(Event::Renewing);
        }
        self.finish_drain_when_empty();
    }

    pub(super) fn finish_drain_when_empty(&mut self) {
        let queued = self.plan == Some(Plan::Stop) && self.outbox.usage().messages > 0;
        if self.phase == Phase::Draining && self.connection.in_flight == 0 && !queued {
            self.finish_drain();
        }
    }

    fn finish_drain(&mut self) {
        let stopping = self.plan == Some(Plan::Stop);
        let stable = self.connection.stable;
        self.end_delivery();
        self.close(true);
        if stopping {
            self.stopped();
        } else {
            if stable {
                self.hub_backoff.reset(self.now);
                self.ladder.absent = Some(self.now);
            }
            self.begin_attempt();
        }
    }

    pub(super) fn stopped(&mut self) {
        self.close(false);
        self.plan = None;
        self.ladder.wanted = false;
        self.enter(Phase::Stopped);
        self.events.report(Event::Stopped);
    }

    /// Closes the connection, with DISCONNECT if that is planned.
    pub(super) fn close(&mut self, in_order: bool) {
        if self.phase == Phase::AwaitingConnack && !self.wire.connect && self.role() == ServiceKind::Hub {
            // The service may have started a session without the link's knowledge.
            self.session.subscriptions.held = 0;
        }
        if self.wire.open {
            self.pending.close = Some((self.attempt, in_order));
            self.pending.disconnect = in_order && !self.is_over_https();
        }
        self.pending.sign = false;
        self.pending.connect = false;
        self.wire = Wire::new(self.now);
        self.inbound.clear();
        self.timers.clear_attempt();
    }

    /// Acts on a deadline.
    pub(super) fn fire(&mut self, due: Deadline, now: Instant) {
        match due.reason {
            TimerReason::Retry => self.begin_attempt(),
            TimerReason::PlannedMove => self.begin_drain(Plan::Reconnect),
            TimerReason::Sign => self.attempt_failed(Failure::Local(LocalFailure::SigningTimeout)),
            TimerReason::Connect => self.attempt_failed(Failure::ConnectTimeout),
            TimerReason::Tls => self.attempt_failed(Failure::TlsTimeout),
            TimerReason::Connack => self.attempt_failed(Failure::ConnackTimeout),
            TimerReason::Suback => self.attempt_failed(Failure::SubackTimeout),
            TimerReason::KeepAlive => self.watch_keep_alive(),
            TimerReason::Puback => self.watch_acknowledgements(now.since(due.at)),
            TimerReason::Drain => self.finish_drain(),
            TimerReason::Stable => self.stable(),
            TimerReason::TokenRenewal => self.begin_drain(Plan::Renew),
            TimerReason::ProvisioningAnswer => self.provisioning_failed(ProvisioningFailure::NoAnswer),
            TimerReason::ProvisioningPoll if self.visits() => self.poll_registration(),
            TimerReason::ProvisioningPoll => {}
            TimerReason::Provisioning => self.provisioning_failed(ProvisioningFailure::TooSlow),
            TimerReason::Expiry => self.expire(),
            // These are not among the link's own.
            TimerReason::Twin | TimerReason::Method => {}
        }
    }

    pub(super) fn provisioning_failed(&mut self, failure: ProvisioningFailure) {
        self.attempt_failed(Failure::Provisioning(failure));
    }

    /// Sends a due ping, or detects a dead connection; sets the timer for the next check.
    ///
    /// The link pings if nothing was sent, or nothing received, for the whole interval (MQTT 3.1.1 \[MQTT-3.1.2-23\]);
    /// within another half interval something must arrive. After a sleep the link pings first.
    pub(super) fn watch_keep_alive(&mut self) {
        let interval = short_millis(self.profile.session().keep_alive);
        let at = match self.wire.pinged {
            Some(pinged) => {
                let dead = pinged.max(self.wire.last_moved).after_millis(interval >> 1);
                if self.now >= dead {
                    self.attempt_failed(Failure::KeepAliveTimeout);
                    return;
                }
                dead
            }
            None => {
                let due = self.wire.last_sent.min(self.wire.last_received).after_millis(interval);
                if self.now >= due {
                    self.wire.ping = true;
                    self.wire.pinged = Some(self.now);
                    self.now.after_millis(interval >> 1)
                } else {
                    due
                }
            }
        };
        self.timers.set(TimerReason::KeepAlive, at);
    }

    /// Records the service's clock, exact or as its earliest value.
    pub(super) fn learn_clock(&mut self, unix_secs: u64, exact: bool) {
        let own = self.clock.unix_secs(self.now);
        let behind = own.is_none_or(|own| unix_secs.saturating_sub(own) > SKEW_SECS);
        let ahead = exact && own.is_some_and(|own| own.saturating_sub(unix_secs) > SKEW_SECS);
        if behind || ahead || (exact && self.clock.service.is_some()) {
            self.clock.service = Some(Told { unix_secs, at: self.now, exact });
            if let Some(seconds) = self.clock.skew(self.now) {
                self.events.report(Event::ClockSkew { seconds });
            }
        }
    }

    /// The back-off of the service of this attempt.
    pub(super) fn backoff(&self) -> &Backoff {
        let visit = self.profile.visit().filter(|_| self.role() == ServiceKind::Provisioning);
        visit.map_or(&self.hub_backoff, |visit| &visit.backoff)
    }

    pub(super) fn backoff_mut(&mut self) -> &mut Backoff {
        let provisioning = self.role() == ServiceKind::Provisioning;
        match self.profile.visit_mut().filter(|_| provisioning) {
            Some(visit) => &mut visit.backoff,
            None => &mut self.hub_backoff,
        }
    }

    pub(super) fn reset_dps_backoff(&mut self) {
        if let Some(visit) = self.profile.visit_mut().filter(|_| P::VISITS) {
            visit.backoff.reset(self.now);
        }
    }

    pub(super) fn set_timer(&mut self, reason: TimerReason, after: Duration) {
        self.timers.set(reason, self.now.after_millis(short_millis(after)));
    }
}
