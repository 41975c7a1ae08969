//! Visits: a link's state for the service that assigns a hub, for the profiles that have one.
//!
//! The link has the rules of visits: when one is due, their spacing, the timeouts. The profile has their content. The
//! link subscribes to one filter, publishes [requests](super::Profile::request) and passes the answers to the profile.
//! Over HTTPS it subscribes to nothing, and each request is an action ([`crate::Action::Register`]) that an input
//! answers.

use core::time::Duration;

use crate::failure::ProvisioningFailure;
use crate::io::{Assignment, ServiceKind};
use crate::retry::Backoff;
use crate::time::Instant;

/// The state of visits, in the profiles that have them.
#[derive(Clone, Debug)]
pub struct Visit {
    /// The service of the current attempt.
    pub(super) role: ServiceKind,
    /// The latest assignment.
    pub(super) assignment: Option<Assignment>,
    /// The back-off of the service that is visited.
    pub(super) backoff: Backoff,
    /// The id of the latest request, to recognise an answer to an older one.
    pub(super) request: u32,
}

impl Visit {
    /// Makes one without an assignment.
    pub(crate) fn new() -> Self {
        Self { role: ServiceKind::Hub, assignment: None, backoff: Backoff::new(Instant::ORIGIN), request: 0 }
    }

    /// Returns whether the current attempt is a visit.
    pub(crate) fn is_under_way(&self) -> bool {
        self.role == ServiceKind::Provisioning
    }

    /// Takes an assignment whose names were checked, and returns the change.
    pub(crate) fn assign(&mut self, hub: &str, device_id: &str) -> Change {
        let change = match &self.assignment {
            Some(before) if before.hub() == hub && before.device_id() == device_id => return Change::None,
            Some(_) => Change::Moved,
            None => Change::First,
        };
        // In place, since it is large.
        self.assignment.get_or_insert(Assignment::EMPTY).set(hub, device_id);
        change
    }

    /// Returns the latest assignment.
    pub(crate) const fn assignment(&self) -> Option<&Assignment> {
        self.assignment.as_ref()
    }

    /// Returns the number of the latest request.
    pub(crate) const fn request(&self) -> u32 {
        self.request
    }
}

/// What the topic of an answer says, or over HTTPS its status and headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "only the profiles of this crate make it")]
pub struct AnswerHead {
    /// Status in the manner of HTTP.
    pub status: u16,
    /// Number of the request that is answered.
    pub request: u32,
    /// The service's retry-after, in seconds.
    pub retry_after_secs: Option<u32>,
}

impl AnswerHead {
    /// Returns whether the request may be repeated later (azure-docs `iot-dps/how-to-troubleshoot-dps.md`).
    pub(crate) const fn is_unavailable(&self) -> bool {
        matches!(self.status, 429 | 500..=599)
    }
}

/// A parsed answer.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "only the profiles of this crate make it")]
pub struct Answer<'b> {
    /// The next step.
    pub verdict: Verdict<'b>,
    /// The service's clock in Unix seconds, and whether it may be later than that.
    pub clock: Option<(u64, bool)>,
}

/// The next step after an answer.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "only the profiles of this crate make it")]
pub enum Verdict<'b> {
    /// Poll again after the service's retry-after.
    AskAgain,
    /// Connect to the assigned hub.
    Assigned {
        /// The change of the assignment.
        change: Change,
        /// The jitter window for an overloaded service, if the answer has one.
        spread: Option<Duration>,
        /// Its payload for the application.
        payload: Option<&'b [u8]>,
    },
    /// There is nowhere to go.
    Failed(ProvisioningFailure),
}

/// The change of an assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there are these three")]
pub enum Change {
    /// Nothing: the device has the same hub.
    None,
    /// The device had no assignment before.
    First,
    /// The device moves.
    Moved,
}
