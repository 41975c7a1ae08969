//! Timeouts of a link, and the delay before it asks for another hub.

use core::time::Duration;

/// The link's timeouts; `docs/timeouts.md` compares them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timeouts {
    /// For name resolution and the TCP connection, all addresses together. Default 20 s.
    pub connect: Duration,
    /// For TLS to be completed after that. Default 10 s.
    pub tls: Duration,
    /// For CONNACK. Default 60 s, doubled after each timeout up to `connack_longest`.
    pub connack: Duration,
    /// Longest timeout of CONNACK. Default 240 s.
    pub connack_longest: Duration,
    /// For the acknowledgement of all subscriptions. Default 30 s.
    pub suback: Duration,
    /// For the acknowledgement of the oldest publish in flight, before the connection counts as lost. Default 120 s.
    pub puback: Duration,
    /// For acknowledgements of messages in flight before a planned disconnect. Default 10 s.
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

/// When the link registers with the Device Provisioning Service again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reprovisioning {
    /// How long the hub must be unreachable, drawn from 2/3 to 4/3 of this. Default 30 min.
    pub after_unreachable: Duration,
    /// Refusals in a row, with a new credential each, after which the device may have been moved. Default 2.
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
