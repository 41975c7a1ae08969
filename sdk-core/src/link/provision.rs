//! The dialogue with the Device Provisioning Service: register, poll, take the assignment.

use core::time::Duration;

use super::state::Phase;
use super::{Event, Home, Link, Received};
use crate::azure::dps::{Answer, AnswerError, Assigned, Response};
use crate::azure::names::{self, DEVICE_ID_MAX, Name, NameError};
use crate::config::{Service, Settings};
use crate::failure::{Failure, ProvisioningFailure};
use crate::io::Assignment;
use crate::link::receive::REQUEST_ID;
use crate::mqtt::{Packet, PacketId, PublishText};
use crate::outbox::Outbox;
use crate::retry::spread_hint;
use crate::time::{millis, short_millis, span};
use crate::timer::TimerReason;

/// Interval between polls when the service names none (official SDKs: 2 s), and the least whatever it names: it takes 5
/// polls in 10 s of a device (azure-docs `includes/iot-dps-limits.md`).
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Where a registration stands.
#[derive(Clone, Debug)]
pub(super) struct Registration {
    /// Names the latest request, so that an answer to an older one is known.
    pub(super) request: u32,
}

impl Registration {
    pub(super) const fn new() -> Self {
        Self { request: 0 }
    }
}

impl<O: Outbox, S: Settings, H: Home> Link<O, S, H> {
    pub(super) fn begin_registration(&mut self) {
        self.enter(Phase::Registering);
        self.account.home.set_operation("");
        self.ladder.registrations = self.ladder.registrations.saturating_add(1);
        self.set_timer(TimerReason::Provisioning, self.account.config().timeouts.provisioning);
        self.ask();
    }

    pub(super) fn poll_registration(&mut self) {
        self.ask();
    }

    fn ask(&mut self) {
        self.account.registration.request = self.account.registration.request.wrapping_add(1);
        self.wire.request = true;
        self.set_timer(TimerReason::ProvisioningAnswer, self.account.config().timeouts.provisioning_answer);
    }

    pub(super) fn request(&self) -> PublishText<'_> {
        PublishText { message: &self.account, packet_id: PacketId::new(REQUEST_ID) }
    }

    pub(super) fn request_len(&self) -> usize {
        Packet::PublishText(self.request()).encoded_len().unwrap_or(0)
    }

    pub(super) fn take_provisioning_answer<'b>(
        &mut self,
        topic: &str,
        body: &'b [u8],
    ) -> Option<Received<&'b str, &'b [u8]>> {
        let response = Response::parse(topic).ok()?;
        let awaited = self.timers.get(TimerReason::ProvisioningAnswer).is_some() && !self.wire.request;
        if self.phase != Phase::Registering || !awaited || response.request_id != self.account.registration.request {
            // An answer to an older request; the one awaited has its own deadline.
            return None;
        }
        self.timers.clear(TimerReason::ProvisioningAnswer);
        if is_unavailable(response.status) && !self.account.home.operation_id().is_empty() {
            self.poll_refused(&response);
            return None;
        }
        match Answer::parse(response.status, body) {
            Ok(Answer::Assigning { operation_id } | Answer::Unassigned { operation_id }) => {
                if self.account.home.set_operation(operation_id) {
                    let asked = asked_wait(&response);
                    let interval = short_millis(self.capped(asked));
                    // Retry-after is a floor; jitter on top keeps devices apart that were turned on together.
                    let interval = self.rng.between(interval, interval.saturating_add(interval >> 2));
                    self.poll_after(span(u64::from(interval)), asked);
                } else {
                    self.provisioning_failed(ProvisioningFailure::BadAnswer);
                }
            }
            Ok(Answer::Assigned(assigned)) => {
                if let Some(server_time) = assigned.server_time {
                    self.learn_clock(server_time, false);
                }
                match self.judge_assignment(&assigned) {
                    Ok(assignment) => {
                        if let Some(spread) = assigned.payload.and_then(spread_hint) {
                            self.set_spread(spread, self.now);
                        }
                        self.assigned(assignment);
                        return assigned.payload.map(Received::ProvisioningPayload);
                    }
                    Err(failure) => self.provisioning_failed(failure),
                }
            }
            Ok(answer) => {
                if let Answer::Refused { server_time: Some(server_time), .. } = answer {
                    self.learn_clock(server_time, true);
                }
                self.provisioning_failed(failure_of(&response, answer));
            }
            Err(error) => self.provisioning_failed(match error {
                _ if is_unavailable(response.status) => unavailable(&response),
                AnswerError::Name(NameError { name: Name::Hub, .. }) => ProvisioningFailure::BadHubName,
                AnswerError::Name(NameError { name: Name::Device, .. }) => ProvisioningFailure::BadDeviceId,
                AnswerError::Json(_)
                | AnswerError::NotAnObject
                | AnswerError::Missing(_)
                | AnswerError::Duplicate(_)
                | AnswerError::Kind(_)
                | AnswerError::UnknownStatus
                | AnswerError::Name(_) => ProvisioningFailure::BadAnswer,
            }),
        }
        None
    }

    /// Only the question for the state was refused: the registration stands, and the question is put again.
    fn poll_refused(&mut self, response: &Response) {
        let asked = asked_wait(response);
        let retry_after_secs = u32::try_from(asked.as_secs()).ok();
        let failure = ProvisioningFailure::Unavailable { status: response.status, retry_after_secs };
        let (word, now) = (self.rng.word(), self.now);
        let occasion = self.backoff_mut().note(Failure::Provisioning(failure), false, now);
        let delay = self.account.settings.retry_delay(&occasion, word);
        self.poll_after(delay.max(self.capped(POLL_INTERVAL)), asked);
    }

    fn capped(&self, wait: Duration) -> Duration {
        wait.min(self.account.config().retry.retry_after_cap)
    }

    /// Sets the time of the next poll, and the end of the registration behind it when the service asked for a wait that
    /// does not fit. A device that has a hub gets back to it, though, once the time of a registration is over.
    fn poll_after(&mut self, delay: Duration, asked: Duration) {
        let poll = self.now.after(delay);
        let times = self.account.config().timeouts;
        let over = self.now.since(self.phase_since) > times.provisioning && self.account.home.assignment().is_some();
        let end = poll.after(times.provisioning_answer);
        let long = millis(asked) > millis(times.provisioning) >> 2;
        if long && !over && self.timers.get(TimerReason::Provisioning).is_some_and(|until| until < end) {
            self.timers.set(TimerReason::Provisioning, end);
        }
        self.timers.set(TimerReason::ProvisioningPoll, poll);
    }

    fn judge_assignment(&self, assigned: &Assigned<'_>) -> Result<Assignment, ProvisioningFailure> {
        let config = self.account.config();
        if let Service::Provisioned { host, .. } = &config.service {
            let suffix = config.hub_suffix.as_ref().map(AsRef::as_ref);
            names::check_assigned_hub(assigned.hub, host.as_ref(), suffix)
                .map_err(|_| ProvisioningFailure::BadHubName)?;
        }
        let mut buffer = [0; DEVICE_ID_MAX];
        let device_id = assigned.device_id.unescape(&mut buffer).ok_or(ProvisioningFailure::BadDeviceId)?;
        Assignment::new(assigned.hub, device_id).map_err(|error| {
            if error.name == Name::Hub { ProvisioningFailure::BadHubName } else { ProvisioningFailure::BadDeviceId }
        })
    }

    fn assigned(&mut self, assignment: Assignment) {
        let elsewhere = self.account.home.assignment() != Some(&assignment);
        let migrated = elsewhere && self.account.home.assignment().is_some();
        self.reset_dps_backoff();
        self.registered(elsewhere);
        if elsewhere {
            // Another hub knows nothing of the session here, and has refused nothing.
            self.session.subscribed = 0;
            self.session.forget_sent();
            self.hub_backoff.reset(self.now);
            self.ladder.absent = Some(self.now);
            self.account.home.assign(assignment);
            self.pending.save = true;
        }
        self.close(true);
        self.events.report(Event::Provisioned { migrated });
        self.begin_attempt();
    }
}

fn failure_of(response: &Response, answer: Answer<'_>) -> ProvisioningFailure {
    match answer {
        Answer::Refused { status, .. } if is_unavailable(status) => unavailable(response),
        Answer::Refused { status, code, .. } => ProvisioningFailure::Refused { status, code },
        Answer::Failed { code, .. } => ProvisioningFailure::Failed { code },
        Answer::Disabled => ProvisioningFailure::Disabled,
        Answer::UnsupportedProfile(_) => ProvisioningFailure::UnsupportedProfile,
        Answer::Assigning { .. } | Answer::Assigned(_) | Answer::Unassigned { .. } => ProvisioningFailure::BadAnswer,
    }
}

/// Whether the request may be repeated after a while (azure-docs `iot-dps/how-to-troubleshoot-dps.md`).
const fn is_unavailable(status: u16) -> bool {
    matches!(status, 429 | 500..=599)
}

/// The wait before the next poll that an answer asks for, or the least one.
fn asked_wait(response: &Response) -> Duration {
    POLL_INTERVAL.max(Duration::from_secs(u64::from(response.retry_after_secs.unwrap_or_default())))
}

const fn unavailable(response: &Response) -> ProvisioningFailure {
    ProvisioningFailure::Unavailable { status: response.status, retry_after_secs: response.retry_after_secs }
}
