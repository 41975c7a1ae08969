//! How long to wait before the next attempt: the age-proportional policy.
//!
//! A device that has been turned away for some time has, for all it can know, about as long still to wait. All devices
//! share that estimate, so none of them doubles away alone, and a server that pays for each refusal is offered less and
//! less until it recovers. Every delay is drawn from a range with one random word; nothing is ever unjittered.
//!
//! | After | Range of the delay |
//! |---|---|
//! | a loss of a stable connection, or [`crate::Link::start`] | `0 ..= first_spread` |
//! | the service was not reached | `w/2 ..= w`, `w = clamp((now - lost) / 4, floor, unreachable_cap)` |
//! | the first evidence of overload | `0 ..= overload_spread` |
//! | further overload, or not reached after overload | `w/2 ..= w`, `w = max((now - first evidence) / 2, overload_spread)`, no cap |
//! | the n-th refusal in a row | `w/2 ..= w`, `w = min(refused_first * 2^(n-1), refused_cap)` |
//! | an answer with retry-after | `retry_after + (0 ..= max(first_spread, retry_after / 2))`, retry_after at most `retry_after_cap` |
//! | a broken protocol, a fault on the device | as not reached |

use core::time::Duration;

use crate::failure::{Class, Disposition, Failure};
use crate::rng::scale;
use crate::time::{Instant, millis};

/// The settings of the back-off; see the [module](self) for the formulas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// Width of the first delay after a stable connection is lost, and after start. Default 3 s.
    pub first_spread: Duration,
    /// Least `w` while the service is not reached. Default 1 s.
    pub floor: Duration,
    /// Greatest `w` while the service is not reached. Default 120 s.
    pub unreachable_cap: Duration,
    /// Width of the first delay after evidence of overload, and least `w` after that. Default 60 s.
    pub overload_spread: Duration,
    /// `w` after the first refusal. Default 60 s.
    pub refused_first: Duration,
    /// Greatest `w` after refusals. Default 1 h.
    pub refused_cap: Duration,
    /// Longest retry-after that is honoured, so that a wrong one cannot silence a device. Default 1 h.
    pub retry_after_cap: Duration,
    /// How long a connection must last before the back-off starts anew. Default 120 s.
    pub stable: Duration,
}

impl RetryPolicy {
    /// The default policy.
    pub const DEFAULT: Self = Self {
        first_spread: Duration::from_secs(3),
        floor: Duration::from_secs(1),
        unreachable_cap: Duration::from_secs(120),
        overload_spread: Duration::from_secs(60),
        refused_first: Duration::from_secs(60),
        refused_cap: Duration::from_secs(3600),
        retry_after_cap: Duration::from_secs(3600),
        stable: Duration::from_secs(120),
    };

    /// Returns this policy with every time divided by `divisor`, for demonstrations and tests against a local hub.
    ///
    /// A divisor of 0 counts as 1.
    #[must_use]
    pub fn divided_by(self, divisor: u32) -> Self {
        let part = |time: Duration| time.checked_div(divisor).unwrap_or(time);
        Self {
            first_spread: part(self.first_spread),
            floor: part(self.floor),
            unreachable_cap: part(self.unreachable_cap),
            overload_spread: part(self.overload_spread),
            refused_first: part(self.refused_first),
            refused_cap: part(self.refused_cap),
            retry_after_cap: part(self.retry_after_cap),
            stable: part(self.stable),
        }
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The state of the back-off towards one service, for callers that pace something of their own; a
/// [`Link`](crate::Link) has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// When the service was lost, or first wanted.
    lost: Instant,
    /// When overload was first seen since then.
    overloaded: Option<Instant>,
    /// Refusals in a row.
    refusals: u8,
    /// CONNACK timeouts in a row.
    silences: u8,
}

impl Backoff {
    /// Starts a back-off: the service was lost, or is first wanted, at `now`.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self { lost: now, overloaded: None, refusals: 0, silences: 0 }
    }

    /// Returns when the service was lost.
    #[must_use]
    pub const fn lost(&self) -> Instant {
        self.lost
    }

    pub(crate) const fn refusals(&self) -> u8 {
        self.refusals
    }

    /// Returns whether the service has shown that it cannot take the device.
    #[must_use]
    pub const fn is_overloaded(&self) -> bool {
        self.overloaded.is_some()
    }

    /// Starts anew: a connection lasted, and was lost at `now`.
    pub const fn reset(&mut self, now: Instant) {
        *self = Self::new(now);
    }

    /// The service accepted the device, whatever comes of it.
    pub(crate) const fn accepted(&mut self) {
        self.refusals = 0;
        self.silences = 0;
    }

    /// Returns how long to wait for a CONNACK: doubled after each silence, since to leave a queued CONNECT early only
    /// fills the queue with stale entries.
    pub(crate) const fn connack_timeout(&self, first: Duration, longest: Duration) -> u64 {
        let doublings = if self.silences > 8 { 8 } else { self.silences as u32 };
        let timeout = millis(first).saturating_mul(1 << doublings);
        let longest = millis(longest);
        if timeout < longest { timeout } else { longest }
    }

    /// Returns the delay before the first attempt after a stable connection was lost, and before the first of all;
    /// `word` is random.
    #[must_use]
    pub fn first_delay(policy: &RetryPolicy, word: u32) -> Duration {
        Duration::from_millis(scale(word, 0, millis(policy.first_spread)))
    }

    /// Takes note of a failed attempt and returns the delay before the next one; `word` is random.
    ///
    /// `flapped` says that the attempt had succeeded and its connection did not last for [`RetryPolicy::stable`], which
    /// counts as overload whatever ended it.
    pub fn failed(
        &mut self,
        failure: Failure,
        flapped: bool,
        policy: &RetryPolicy,
        word: u32,
        now: Instant,
    ) -> Duration {
        Duration::from_millis(self.delay_ms(failure, flapped, policy, word, now))
    }

    fn delay_ms(&mut self, failure: Failure, flapped: bool, policy: &RetryPolicy, word: u32, now: Instant) -> u64 {
        if failure == Failure::ConnackTimeout {
            self.silences = self.silences.saturating_add(1);
        }
        if let Disposition::RetryAfter(asked) = failure.disposition() {
            self.overloaded.get_or_insert(now);
            let asked = millis(asked).min(millis(policy.retry_after_cap));
            let spread = (asked >> 1).max(millis(policy.first_spread));
            return asked.saturating_add(scale(word, 0, spread));
        }
        let class = if flapped { Class::Overload } else { failure.class() };
        let width = match class {
            Class::Refused => {
                self.refusals = self.refusals.saturating_add(1);
                let doublings = u32::from(self.refusals.saturating_sub(1)).min(16);
                millis(policy.refused_first).saturating_mul(1 << doublings).min(millis(policy.refused_cap))
            }
            Class::Overload if self.overloaded.is_none() => {
                self.overloaded = Some(now);
                return scale(word, 0, millis(policy.overload_spread));
            }
            Class::Overload | Class::Unreachable | Class::Protocol | Class::Local => match self.overloaded {
                // Once overload was seen a silent SYN is no proof that the service is gone.
                Some(since) => (now.millis_since(since) >> 1).max(millis(policy.overload_spread)),
                None => {
                    (now.millis_since(self.lost) >> 2).min(millis(policy.unreachable_cap)).max(millis(policy.floor))
                }
            },
        };
        scale(word, width >> 1, width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::ProvisioningFailure;

    const POLICY: RetryPolicy = RetryPolicy::DEFAULT;

    fn range(backoff: Backoff, failure: Failure, flapped: bool, at_secs: u64) -> (u64, u64) {
        let now = Instant::from_millis(at_secs * 1000);
        let (mut low, mut high) = (backoff, backoff);
        (low.delay_ms(failure, flapped, &POLICY, 0, now), high.delay_ms(failure, flapped, &POLICY, u32::MAX, now))
    }

    #[test]
    fn unreachable_waits_a_quarter_of_the_outage_between_floor_and_cap() {
        let backoff = Backoff::new(Instant::ORIGIN);
        assert_eq!(range(backoff, Failure::ConnectionRefused, false, 0), (500, 1_000));
        assert_eq!(range(backoff, Failure::ConnectionRefused, false, 40), (5_000, 10_000));
        assert_eq!(range(backoff, Failure::Unresolved, false, 9_999), (60_000, 120_000));
    }

    #[test]
    fn overload_spreads_first_and_then_waits_half_its_age_without_a_cap() {
        let mut backoff = Backoff::new(Instant::ORIGIN);
        assert_eq!(range(backoff, Failure::ConnackTimeout, false, 10), (0, 60_000));
        backoff.failed(Failure::ConnectRefused(3), false, &POLICY, 0, Instant::from_millis(10_000));
        assert_eq!(range(backoff, Failure::Lost, false, 20), (30_000, 60_000));
        assert_eq!(range(backoff, Failure::Lost, false, 10 + 7_200), (1_800_000, 3_600_000));
        assert_eq!(range(backoff, Failure::ConnectTimeout, false, 10 + 7_200), (1_800_000, 3_600_000));
    }

    #[test]
    fn a_connection_that_does_not_last_is_overload() {
        assert_eq!(range(Backoff::new(Instant::ORIGIN), Failure::Network, true, 10), (0, 60_000));
    }

    #[test]
    fn refusals_double_up_to_an_hour() {
        let mut backoff = Backoff::new(Instant::ORIGIN);
        let mut widths = std::vec::Vec::new();
        for _ in 0..8 {
            widths
                .push(backoff.failed(Failure::ConnectRefused(5), false, &POLICY, u32::MAX, Instant::ORIGIN).as_secs());
        }
        assert_eq!(widths, [60, 120, 240, 480, 960, 1920, 3600, 3600]);
        assert_eq!(backoff.refusals(), 8);
    }

    #[test]
    fn retry_after_is_a_floor_with_jitter_on_top_and_a_limit() {
        let asked = |secs| {
            Failure::Provisioning(ProvisioningFailure::Unavailable { status: 429, retry_after_secs: Some(secs) })
        };
        let backoff = Backoff::new(Instant::ORIGIN);
        assert_eq!(range(backoff, asked(2), false, 0), (2_000, 5_000));
        assert_eq!(range(backoff, asked(120), false, 0), (120_000, 180_000));
        assert_eq!(range(backoff, asked(u32::MAX), false, 0), (3_600_000, 5_400_000));
    }

    #[test]
    fn the_wait_for_a_connack_doubles_with_each_silence() {
        let mut backoff = Backoff::new(Instant::ORIGIN);
        let (first, longest) = (Duration::from_secs(60), Duration::from_secs(240));
        let mut waits = std::vec::Vec::new();
        for _ in 0..5 {
            waits.push(backoff.connack_timeout(first, longest) / 1000);
            backoff.failed(Failure::ConnackTimeout, false, &POLICY, 0, Instant::ORIGIN);
        }
        assert_eq!(waits, [60, 120, 240, 240, 240]);
    }
}
