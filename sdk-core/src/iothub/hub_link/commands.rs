//! Commands that go to the link as they are.

use core::time::Duration;

use super::HubLink;
use crate::io::{Assignment, Attempt, ServiceKind, SubscriptionId};
use crate::iothub::HubProfile;
use crate::link::{Link, Message, PublishError, SubscribeError};
use crate::mqtt::{PacketId, QoS};
use crate::outbox::{MessageId, Outbox};
use crate::retry::BackoffSnapshot;
use crate::time::Instant;

impl<O: Outbox, P: HubProfile, B, C> HubLink<O, P, B, C> {
    /// Returns the link, to look at its state, its ledger and its outbox.
    #[must_use]
    pub const fn link(&self) -> &Link<O, P> {
        &self.link
    }

    /// As [`Link::start`].
    pub fn start(&mut self, now: Instant) {
        self.link.start(now);
    }

    /// As [`Link::wake`].
    pub fn wake(&mut self, now: Instant) {
        self.link.wake(now);
    }

    /// As [`Link::stop`].
    pub fn stop(&mut self, drain: Duration, now: Instant) {
        self.link.stop(drain, now);
    }

    /// As [`Link::publish`].
    ///
    /// # Errors
    /// [`PublishError`]; the message was not accepted.
    pub fn publish(&mut self, message: Message<'_>, now: Instant) -> Result<MessageId, PublishError> {
        self.link.publish(message, now)
    }

    /// As [`Link::subscribe`], for a broker.
    ///
    /// # Errors
    /// [`SubscribeError`]; nothing changed then.
    pub fn subscribe(&mut self, filter: &str, qos: QoS, now: Instant) -> Result<SubscriptionId, SubscribeError> {
        self.link.subscribe(filter, qos, now)
    }

    /// As [`Link::unsubscribe`].
    pub fn unsubscribe(&mut self, filter: &str, now: Instant) -> Option<SubscriptionId> {
        self.link.unsubscribe(filter, now)
    }

    /// As [`Link::offer`].
    ///
    /// # Errors
    /// [`PublishError`]; the message was not accepted.
    pub fn offer(&mut self, message: Message<'_>, now: Instant) -> Result<Option<MessageId>, PublishError> {
        self.link.offer(message, now)
    }

    /// As [`Link::abandon`].
    pub fn abandon(&mut self, packet_id: PacketId, attempt: Attempt) -> bool {
        self.link.abandon(packet_id, attempt)
    }

    /// As [`Link::reprovision`].
    pub fn reprovision(&mut self, now: Instant) {
        self.link.reprovision(now);
    }

    /// As [`Link::restore_assignment`].
    pub fn restore_assignment(&mut self, assignment: Assignment) {
        self.link.restore_assignment(assignment);
    }

    /// As [`Link::restore_backoff`].
    pub fn restore_backoff(&mut self, memory: BackoffSnapshot, now: Instant) {
        self.link.restore_backoff(memory, now);
    }

    /// As [`Link::set_wall_clock`].
    pub fn set_wall_clock(&mut self, unix_secs: u64, now: Instant) {
        self.link.set_wall_clock(unix_secs, now);
    }

    /// As [`Link::set_spread`].
    pub fn set_spread(&mut self, spread: Duration, now: Instant) {
        self.link.set_spread(spread, now);
    }

    /// As [`Link::move_within`].
    pub fn move_within(&mut self, spread: Duration, by: ServiceKind, now: Instant) {
        self.link.move_within(spread, by, now);
    }

    /// As [`Link::follow_up_delay`].
    pub fn follow_up_delay(&mut self) -> Duration {
        self.link.follow_up_delay()
    }
}
