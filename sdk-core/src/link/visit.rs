//! The visit: what a link keeps of a service that tells the device where it belongs, for the profiles that have one.
//!
//! The rules of visits are the link's: when one is due, how they are spaced, how long an answer may take. What is said is
//! the profile's. The link subscribes to one filter, publishes [requests](super::Profile::request) and hands the answers to
//! the profile. Over HTTPS it subscribes to nothing, and each request is an action ([`crate::Action::Register`]) that an
//! input answers.

use core::time::Duration;

use crate::failure::ProvisioningFailure;
use crate::io::{Assignment, ServiceKind};
use crate::retry::Backoff;
use crate::time::Instant;

/// What a link keeps of visits, in the profiles that have them.
#[derive(Clone, Debug)]
pub struct Visit {
    /// Which service the current attempt turns to.
    pub(super) role: ServiceKind,
    /// What the latest visit brought.
    pub(super) assignment: Option<Assignment>,
    /// The back-off of the service that is visited.
    pub(super) backoff: Backoff,
    /// Names the latest request, so that an answer to an older one is known.
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

    /// Takes an assignment whose names were checked, and returns what that changes.
    pub(crate) fn assign(&mut self, hub: &str, device_id: &str) -> Change {
        let change = match &self.assignment {
            Some(before) if before.hub() == hub && before.device_id() == device_id => return Change::None,
            Some(_) => Change::Moved,
            None => Change::First,
        };
        // In place, since it is long.
        self.assignment.get_or_insert(Assignment::EMPTY).set(hub, device_id);
        change
    }

    /// Returns what the latest visit brought.
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
#[expect(clippy::exhaustive_structs, reason = "the profiles make it, and they are of this crate")]
pub struct AnswerHead {
    /// Status in the manner of HTTP.
    pub status: u16,
    /// Number of the request that is answered.
    pub request: u32,
    /// How long the service asks to wait, in seconds.
    pub retry_after_secs: Option<u32>,
}

impl AnswerHead {
    /// Returns whether the request may be repeated after a while (azure-docs `iot-dps/how-to-troubleshoot-dps.md`).
    pub(crate) const fn is_unavailable(&self) -> bool {
        matches!(self.status, 429 | 500..=599)
    }
}

/// What an answer means.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "the profiles make it, and they are of this crate")]
pub struct Answer<'b> {
    /// What it says to do.
    pub verdict: Verdict<'b>,
    /// What the service's clock showed, in Unix seconds, and whether it shows no later time than that.
    pub clock: Option<(u64, bool)>,
}

/// What an answer says to do.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "the profiles make it, and they are of this crate")]
pub enum Verdict<'b> {
    /// Ask again, once the service has had its time.
    AskAgain,
    /// Go where the device is assigned to.
    Assigned {
        /// What that changes.
        change: Change,
        /// Over how long the fleet is to spread when the service is overloaded, if the answer says it.
        spread: Option<Duration>,
        /// What came with it for the application.
        payload: Option<&'b [u8]>,
    },
    /// There is nowhere to go.
    Failed(ProvisioningFailure),
}

/// What an assignment changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there are these three")]
pub enum Change {
    /// Nothing: the device belongs where it did.
    None,
    /// The device had no assignment before.
    First,
    /// The device moves.
    Moved,
}
