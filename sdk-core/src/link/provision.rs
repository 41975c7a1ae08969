//! A visit to the Device Provisioning Service: register, poll, take the assignment.

use core::time::Duration;

use super::state::Phase;
use super::subscriptions::REQUEST_ID;
use super::visit::{AnswerHead, Change, Verdict};
use super::{Event, Link, Profile, Received};
use crate::failure::{Failure, ProvisioningFailure};
use crate::io::{Action, Output, RegistrationRequest, ServiceKind};
use crate::mqtt::{Packet, PacketId, PublishText};
use crate::outbox::Outbox;
use crate::time::{millis, short_millis, span};
use crate::timer::TimerReason;

/// Default and minimum interval between polls (official SDKs: 2 s): the service accepts 5 polls in 10 s from a device
/// (azure-docs `includes/iot-dps-limits.md`).
const POLL_INTERVAL: Duration = Duration::from_secs(2);

impl<O: Outbox, P: Profile> Link<O, P> {
    pub(super) fn begin_registration(&mut self) {
        self.enter(Phase::Registering);
        self.profile.begin_registration();
        self.ladder.registrations = self.ladder.registrations.saturating_add(1);
        self.set_timer(TimerReason::Provisioning, self.profile.session().timeouts.provisioning);
        self.ask();
    }

    pub(super) fn poll_registration(&mut self) {
        self.ask();
    }

    fn ask(&mut self) {
        if let Some(visit) = self.profile.visit_mut() {
            visit.request = visit.request.wrapping_add(1);
        }
        self.wire.request = true;
        self.set_timer(TimerReason::ProvisioningAnswer, self.profile.session().timeouts.provisioning_answer);
    }

    /// Whether the attempt is a registration over HTTPS, where there are no packets.
    pub(super) fn is_over_https(&self) -> bool {
        P::HTTPS && self.role() == ServiceKind::Provisioning && self.profile.endpoint().https
    }

    /// The request over HTTPS that is due.
    pub(super) fn register<E>(&self) -> Output<'_, E> {
        match self.profile.request().filter(|_| P::HTTPS) {
            Some(message) => {
                let operation_id = self.profile.operation_id();
                let request = RegistrationRequest { operation_id, message, login: &self.profile };
                Output::Action(Action::Register { attempt: self.attempt, request })
            }
            None => Output::Wait(self.timers.next()),
        }
    }

    /// Takes the answer to it: there is one request at a time.
    pub(super) fn take_registered<'b>(
        &mut self,
        status: u16,
        retry_after_secs: Option<u32>,
        body: &'b [u8],
    ) -> Option<Received<&'b str, &'b [u8]>> {
        let request = self.profile.visit().filter(|_| self.is_over_https())?.request;
        self.take_answer(&AnswerHead { status, request, retry_after_secs }, body)
    }

    pub(super) fn request(&self) -> Option<PublishText<'_>> {
        let message = self.profile.request()?;
        Some(PublishText { message, packet_id: PacketId::new(REQUEST_ID) })
    }

    pub(super) fn request_len(&self) -> usize {
        self.request().and_then(|request| Packet::PublishText(request).encoded_len().ok()).unwrap_or(0)
    }

    pub(super) fn take_provisioning_answer<'b>(
        &mut self,
        topic: &str,
        body: &'b [u8],
    ) -> Option<Received<&'b str, &'b [u8]>> {
        let head = self.profile.answer_head(topic)?;
        self.take_answer(&head, body)
    }

    fn take_answer<'b>(&mut self, head: &AnswerHead, body: &'b [u8]) -> Option<Received<&'b str, &'b [u8]>> {
        let awaited = self.timers.get(TimerReason::ProvisioningAnswer).is_some() && !self.wire.request;
        let latest = self.profile.visit().is_some_and(|visit| visit.request == head.request);
        if self.phase != Phase::Registering || !awaited || !latest {
            // An answer to an older request; the current one has its own deadline.
            return None;
        }
        self.timers.clear(TimerReason::ProvisioningAnswer);
        if head.is_unavailable() && !self.profile.operation_id().is_empty() {
            self.poll_refused(head);
            return None;
        }
        let answer = self.profile.take_answer(head, body)?;
        if let Some((unix_secs, exact)) = answer.clock {
            self.learn_clock(unix_secs, exact);
        }
        match answer.verdict {
            Verdict::AskAgain => {
                let asked = asked_wait(head);
                let interval = short_millis(self.capped(asked));
                // Retry-after is a minimum; the jitter separates devices that were turned on together.
                let interval = self.rng.between(interval, interval.saturating_add(interval >> 2));
                self.poll_after(span(u64::from(interval)), asked);
            }
            Verdict::Assigned { change, spread, payload } => {
                if let Some(spread) = spread {
                    self.set_spread(spread, self.now);
                }
                self.assigned(change);
                return payload.map(Received::ProvisioningPayload);
            }
            Verdict::Failed(failure) => self.provisioning_failed(failure),
        }
        None
    }

    /// Only the poll was refused: the registration continues, and the poll is repeated.
    fn poll_refused(&mut self, head: &AnswerHead) {
        let asked = asked_wait(head);
        let retry_after_secs = u32::try_from(asked.as_secs()).ok();
        let failure = ProvisioningFailure::Unavailable { status: head.status, retry_after_secs };
        let (word, now) = (self.rng.word(), self.now);
        let context = self.backoff_mut().note(Failure::Provisioning(failure), false, now);
        let delay = self.profile.retry_delay(&context, word);
        self.poll_after(delay.max(self.capped(POLL_INTERVAL)), asked);
    }

    fn capped(&self, wait: Duration) -> Duration {
        wait.min(self.profile.session().retry.retry_after_cap)
    }

    /// Sets the time of the next poll, and extends the registration if the service's retry-after exceeds its time
    /// limit. A device with an assigned hub returns to it at the time limit, though.
    fn poll_after(&mut self, delay: Duration, asked: Duration) {
        let poll = self.now.after(delay);
        let times = self.profile.session().timeouts;
        let over = self.now.since(self.phase_since) > times.provisioning && self.profile.assignment().is_some();
        let end = poll.after(times.provisioning_answer);
        let long = millis(asked) > millis(times.provisioning) >> 2;
        if long && !over && self.timers.get(TimerReason::Provisioning).is_some_and(|until| until < end) {
            self.timers.set(TimerReason::Provisioning, end);
        }
        self.timers.set(TimerReason::ProvisioningPoll, poll);
    }

    fn assigned(&mut self, change: Change) {
        let elsewhere = change != Change::None;
        self.reset_dps_backoff();
        self.registered(elsewhere);
        if elsewhere {
            // Another hub does not have this session, and has refused nothing.
            self.forget_session();
            self.hub_backoff.reset(self.now);
            self.ladder.absent = Some(self.now);
            self.pending.save = true;
        }
        self.close(true);
        self.events.report(Event::Provisioned { migrated: change == Change::Moved });
        self.begin_attempt();
    }
}

/// The wait before the next poll: the answer's retry-after, or the minimum.
fn asked_wait(head: &AnswerHead) -> Duration {
    POLL_INTERVAL.max(Duration::from_secs(u64::from(head.retry_after_secs.unwrap_or_default())))
}
