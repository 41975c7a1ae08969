//! The link's deadlines.

use core::fmt;

use crate::time::Instant;

/// The reason for a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TimerReason {
    /// To start the next attempt.
    Retry,
    /// To disconnect for a planned move.
    PlannedMove,
    /// To give up waiting for a signature.
    Sign,
    /// To give up waiting for a TCP connection.
    Connect,
    /// To give up waiting for TLS.
    Tls,
    /// Timeout of CONNACK.
    Connack,
    /// To give up waiting for the acknowledgement of subscriptions.
    Suback,
    /// To send a ping, or to detect a dead connection.
    KeepAlive,
    /// Timeout of PUBACK.
    Puback,
    /// To end the drain before a planned disconnect.
    Drain,
    /// To reset the back-off: the connection has lasted.
    Stable,
    /// To renew the token.
    TokenRenewal,
    /// Timeout of an answer of the Device Provisioning Service.
    ProvisioningAnswer,
    /// To poll the registration at the Device Provisioning Service.
    ProvisioningPoll,
    /// To give up a registration that does not end.
    Provisioning,
    /// To check for expired messages.
    Expiry,
    /// To request the twin, to report properties, or timeout of a twin response.
    Twin,
    /// To drop a method call whose caller has timed out.
    Method,
}

impl TimerReason {
    /// Those of the link itself.
    const ALL: [Self; 16] = [
        Self::Retry,
        Self::PlannedMove,
        Self::Sign,
        Self::Connect,
        Self::Tls,
        Self::Connack,
        Self::Suback,
        Self::KeepAlive,
        Self::Puback,
        Self::Drain,
        Self::Stable,
        Self::TokenRenewal,
        Self::ProvisioningAnswer,
        Self::ProvisioningPoll,
        Self::Provisioning,
        Self::Expiry,
    ];
}

impl fmt::Display for TimerReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Retry => "next attempt",
            Self::PlannedMove => "planned move",
            Self::Sign => "signature overdue",
            Self::Connect => "TCP connection overdue",
            Self::Tls => "TLS overdue",
            Self::Connack => "CONNACK overdue",
            Self::Suback => "SUBACK overdue",
            Self::KeepAlive => "keep-alive",
            Self::Puback => "PUBACK overdue",
            Self::Drain => "end of the drain",
            Self::Stable => "connection counts as stable",
            Self::TokenRenewal => "token renewal",
            Self::ProvisioningAnswer => "provisioning answer overdue",
            Self::ProvisioningPoll => "provisioning poll",
            Self::Provisioning => "registration overdue",
            Self::Expiry => "messages may expire",
            Self::Twin => "twin request",
            Self::Method => "method call out of time",
        })
    }
}

/// A deadline for [`crate::Link::handle_timeout`], and its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Deadline {
    /// When.
    pub at: Instant,
    /// Why.
    pub reason: TimerReason,
}

/// The pending deadlines, one of a reason.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timers([Instant; TimerReason::ALL.len()]);

/// Marks an unset deadline.
const UNSET: Instant = Instant::from_millis(u64::MAX);

impl Timers {
    pub(crate) const fn new() -> Self {
        Self([UNSET; TimerReason::ALL.len()])
    }

    #[cfg_attr(target_pointer_width = "32", inline(never))]
    pub(crate) fn set(&mut self, reason: TimerReason, at: Instant) {
        if let Some(slot) = self.0.get_mut(reason as usize) {
            *slot = at;
        }
    }

    pub(crate) fn clear(&mut self, reason: TimerReason) {
        self.set(reason, UNSET);
    }

    /// Clears the deadlines of one attempt.
    pub(crate) fn clear_attempt(&mut self) {
        let expiry = self.get(TimerReason::Expiry);
        *self = Self::new();
        self.set(TimerReason::Expiry, expiry.unwrap_or(UNSET));
    }

    pub(crate) fn get(&self, reason: TimerReason) -> Option<Instant> {
        self.0.get(reason as usize).copied().filter(|at| *at != UNSET)
    }

    /// Returns the earliest deadline.
    pub(crate) fn next(&self) -> Option<Deadline> {
        let (reason, at) = TimerReason::ALL.iter().zip(&self.0).min_by_key(|(_, at)| **at)?;
        (*at != UNSET).then_some(Deadline { at: *at, reason: *reason })
    }

    /// Takes the earliest due deadline.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<Deadline> {
        let deadline = self.next().filter(|deadline| deadline.at <= now)?;
        self.clear(deadline.reason);
        Some(deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_stands_at_its_own_place() {
        for (place, reason) in TimerReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place);
        }
    }

    #[test]
    fn the_earliest_deadline_comes_first_and_only_when_due() {
        let mut timers = Timers::new();
        assert_eq!(timers.next(), None);
        timers.set(TimerReason::KeepAlive, Instant::from_millis(20));
        timers.set(TimerReason::Retry, Instant::from_millis(10));
        assert_eq!(timers.take_due(Instant::from_millis(9)), None);
        let due = timers.take_due(Instant::from_millis(30)).unwrap();
        assert_eq!((due.reason, due.at), (TimerReason::Retry, Instant::from_millis(10)));
        timers.clear_attempt();
        assert_eq!(timers.next(), None);
    }
}
