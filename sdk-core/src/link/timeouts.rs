//! How long a link waits: for answers, and before it asks for another hub.

use core::time::Duration;

/// How long the link waits for each answer; `docs/timeouts.md` relates them to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timeouts {
    /// For the name to be resolved and a TCP connection to come about, all addresses together. Default 20 s.
    pub connect: Duration,
    /// For TLS to be completed after that. Default 10 s.
    pub tls: Duration,
    /// For the answer to CONNECT. Default 60 s, doubled after each silence up to `connack_longest`.
    pub connack: Duration,
    /// Longest wait for the answer to CONNECT. Default 240 s.
    pub connack_longest: Duration,
    /// For the acknowledgement of all subscriptions. Default 30 s.
    pub suback: Duration,
    /// For the acknowledgement of the oldest publish in flight, before the connection counts as lost. Default 120 s.
    pub puback: Duration,
    /// For the acknowledgement of what is in flight before a planned disconnect. Default 10 s.
    pub drain: Duration,
    /// For the key holder to sign. Default 30 s.
    pub sign: Duration,
    /// For an answer to a provisioning request. Default 30 s.
    pub provisioning_answer: Duration,
    /// For an assignment, from the first request on. Default 600 s.
    pub provisioning: Duration,
}

impl Timeouts {
    /// The defaults.
    pub const DEFAULT: Self = Self {
        connect: Duration::from_secs(20),
        tls: Duration::from_secs(10),
        connack: Duration::from_secs(60),
        connack_longest: Duration::from_secs(240),
        suback: Duration::from_secs(30),
        puback: Duration::from_secs(120),
        drain: Duration::from_secs(10),
        sign: Duration::from_secs(30),
        provisioning_answer: Duration::from_secs(30),
        provisioning: Duration::from_secs(600),
    };
}

impl Default for Timeouts {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// When the link asks the Device Provisioning Service again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reprovisioning {
    /// How long the hub must be out of reach, drawn from 2/3 to 4/3 of this. Default 30 min.
    pub after_unreachable: Duration,
    /// Refusals in a row, with a fresh credential each, after which the device may live elsewhere. Default 2.
    pub after_refusals: u8,
    /// Width of the delay between the last of those refusals and the registration. Default 30 s.
    pub spread: Duration,
    /// Least time between two registrations, drawn from 1/2 to 3/2 of this and doubled each time the service names the
    /// same hub, up to `spacing_longest`. Default 20 min. Registrations are billed.
    pub spacing: Duration,
    /// Longest spacing. Default 8 h.
    pub spacing_longest: Duration,
}

impl Reprovisioning {
    /// The defaults.
    pub const DEFAULT: Self = Self {
        after_unreachable: Duration::from_secs(30 * 60),
        after_refusals: 2,
        spread: Duration::from_secs(30),
        spacing: Duration::from_secs(20 * 60),
        spacing_longest: Duration::from_secs(8 * 3600),
    };

    /// Returns these rules with every time divided by `divisor`, for demonstrations and tests against a local hub.
    ///
    /// A divisor of 0 counts as 1.
    #[must_use]
    pub fn divided_by(self, divisor: u32) -> Self {
        let part = |time: Duration| time.checked_div(divisor).unwrap_or(time);
        Self {
            after_unreachable: part(self.after_unreachable),
            after_refusals: self.after_refusals,
            spread: part(self.spread),
            spacing: part(self.spacing),
            spacing_longest: part(self.spacing_longest),
        }
    }
}

impl Default for Reprovisioning {
    fn default() -> Self {
        Self::DEFAULT
    }
}
