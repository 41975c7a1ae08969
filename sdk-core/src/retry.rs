//! How long to wait before the next attempt: the age-proportional policy.
//!
//! The best estimate of the remaining outage is its length so far, so the delay is a fraction of the outage's age. All
//! devices share that estimate, and the load on a server that pays for each refusal falls until it recovers. Every
//! delay is drawn from a range with one random word, always with jitter; no range exceeds 49.7 days.
//!
//! | After | Range of the delay |
//! |---|---|
//! | a loss of a stable connection, or [`crate::Link::start`] | `0 ..= first_jitter` |
//! | the same with restored overload, as after a reboot | `0 ..= w`, `w` as after further overload, at most `jitter_cap` |
//! | the service is unreachable | `w/2 ..= w`, `w = clamp((now - lost) / 4, min_delay, unreachable_cap)` |
//! | the first evidence of overload | `0 ..= S`, or `0 ..= overload_jitter` without a hint `S` |
//! | further overload, or unreachable after overload | `w/2 ..= w`, `w = max((now - first evidence) / 2, S / 4)`, `overload_jitter` for `S / 4` without a hint, and `overload_cap` for the first, none by default |
//! | a silence that may be overload, the first time | as the first evidence of overload |
//! | a further silence that may be overload | as further overload, `w` at most `max(S, unreachable_cap)` |
//! | a refusal that a retry cannot change | `w/2 ..= w`, `w = refused_cap`, also after each further refusal |
//! | the n-th refusal in a row | `w/2 ..= w`, `w = min(refused_first * 2^(n-1), refused_cap)` |
//! | an answer with retry-after | `retry_after + (0 ..= max(first_jitter, retry_after / 2, (now - first evidence) / 2))`, retry_after within `min_delay ..= retry_after_cap` |
//! | the third session taken over in a row | `w/2 ..= w`, `w = clamp(now - first evidence, 4 * refused_first, refused_cap)` |
//! | a protocol violation, a failure on the device | as unreachable |
//!
//! Overload means: TLS completed, but the service refused, closed early or did not reply; or a connection ended before
//! [`RetryPolicy::reset_after`]. A timeout of TCP or TLS is a *silence*: it may be overload if the operator has set a
//! hint, or if the service itself closed the last long-lived connection, since the network path worked then. Any other
//! failure to reach the service ends that suspicion. After overload, silences and failures to reach the service stay on
//! the overload curve.
//!
//! The age `now - lost` counts from the loss of the last long-lived connection; it and the overload are reset when a
//! connection lasts for [`RetryPolicy::reset_after`].

mod backoff;
mod snapshot;

use core::time::Duration;

use crate::rng::scale;
use crate::time::{short_millis, span};

pub use backoff::Backoff;
pub use snapshot::BackoffSnapshot;

/// Decides how long to wait before an attempt.
///
/// Use [`RetryPolicy`] unless you need another; [`crate::WithPolicy`] sets it. A custom policy must add its own jitter,
/// and its result is not limited.
pub trait Policy {
    /// Returns the delay before the next attempt; `word` is the only source of randomness.
    fn delay(&self, context: &RetryContext, word: u32) -> Duration;
}

/// The input of a [`Policy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetryContext {
    /// The cause of the next attempt.
    pub cause: RetryCause,
    /// Time since the service was lost, or first needed.
    pub away: Duration,
    /// Time since the first overload, certain or suspected, of this outage.
    pub overloaded: Option<Duration>,
    /// Refusals in a row, this one included.
    pub refusals: u8,
    /// The hint `S` of [`crate::Link::set_spread`].
    pub spread: Option<Duration>,
}

/// The cause of the next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RetryCause {
    /// The link was started, or a long-lived connection was lost.
    Fresh,
    /// The service was not reached or violated the protocol, or the device could not try.
    Unreachable,
    /// The service is overloaded, for the first time in this outage.
    FirstOverload,
    /// The service is still overloaded, or was not reached after that.
    Overload,
    /// Another silence, which may be overload; [`RetryContext::overloaded`] counts from the first silence.
    Silence,
    /// The service refused the device.
    Refused,
    /// The service's retry-after.
    RetryAfter(Duration),
    /// Another device uses this identity: the service accepted this one again and again, and closed soon after.
    TakenOver,
}

/// The settings of the back-off; see the [module](self) for the formulas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// Width of the first delay after a stable connection is lost, and after start. Default 3 s.
    pub first_jitter: Duration,
    /// Least `w` while the service is not reached, and least retry-after. Default 1 s.
    pub min_delay: Duration,
    /// Greatest `w` while the service is not reached. Default 120 s.
    pub unreachable_cap: Duration,
    /// Width of the first delay after overload, and minimum of `w` after that. Default 60 s.
    pub overload_jitter: Duration,
    /// Maximum of `w` after overload, except for a hint's `S / 4`. Default [`Duration::MAX`], no cap: a fleet that
    /// retries too soon keeps the service down.
    pub overload_cap: Duration,
    /// `w` after the first refusal. Default 60 s.
    pub refused_first: Duration,
    /// Greatest `w` after refusals. Default 1 h.
    pub refused_cap: Duration,
    /// Longest retry-after that is honoured, so that a wrong one cannot silence a device. Default 1 h.
    pub retry_after_cap: Duration,
    /// Longest hint and planned move that is honoured, so that a wrong one cannot silence a device. Default 4 h.
    pub jitter_cap: Duration,
    /// How long a connection must last to reset the back-off. Default 120 s.
    pub reset_after: Duration,
}

impl RetryPolicy {
    /// The default policy.
    pub const DEFAULT: Self = Self {
        first_jitter: Duration::from_secs(3),
        min_delay: Duration::from_secs(1),
        unreachable_cap: Duration::from_secs(120),
        overload_jitter: Duration::from_secs(60),
        overload_cap: Duration::MAX,
        refused_first: Duration::from_secs(60),
        refused_cap: Duration::from_secs(3600),
        retry_after_cap: Duration::from_secs(3600),
        jitter_cap: Duration::from_secs(4 * 3600),
        reset_after: Duration::from_secs(120),
    };

    /// For gateways on mains power: back within a minute after a long outage, with twice the attempts.
    pub const GATEWAY: Self = Self { unreachable_cap: Duration::from_secs(60), ..Self::DEFAULT };

    /// For devices to which each attempt costs energy: a third of the attempts in a long outage, back within ten
    /// minutes of it.
    pub const BATTERY: Self = Self {
        first_jitter: Duration::from_secs(30),
        min_delay: Duration::from_secs(10),
        unreachable_cap: Duration::from_secs(600),
        overload_jitter: Duration::from_secs(120),
        ..Self::DEFAULT
    };

    /// For a few devices on a service of their own: back within 20 s of any outage. Not for a fleet.
    pub const AGGRESSIVE: Self = Self {
        first_jitter: Duration::from_secs(1),
        min_delay: Duration::from_millis(500),
        unreachable_cap: Duration::from_secs(20),
        overload_jitter: Duration::from_secs(15),
        refused_first: Duration::from_secs(30),
        refused_cap: Duration::from_secs(600),
        ..Self::DEFAULT
    };

    /// For the modules of an IoT Edge device, which do not share its gateway with a fleet: as
    /// [`AGGRESSIVE`](Self::AGGRESSIVE), and back within 20 s of overload too. Not for other devices: a fleet with a
    /// cap on overload may never recover.
    pub const EDGE: Self = Self { overload_cap: Duration::from_secs(20), ..Self::AGGRESSIVE };

    /// Returns this policy with every time divided by `divisor`, for demonstrations and tests against a local hub.
    ///
    /// A divisor of 0 counts as 1.
    #[must_use]
    pub const fn divided_by(self, divisor: u32) -> Self {
        const fn part(time: Duration, divisor: u32) -> Duration {
            match time.checked_div(divisor) {
                Some(part) => part,
                None => time,
            }
        }
        Self {
            first_jitter: part(self.first_jitter, divisor),
            min_delay: part(self.min_delay, divisor),
            unreachable_cap: part(self.unreachable_cap, divisor),
            overload_jitter: part(self.overload_jitter, divisor),
            overload_cap: part(self.overload_cap, divisor),
            refused_first: part(self.refused_first, divisor),
            refused_cap: part(self.refused_cap, divisor),
            retry_after_cap: part(self.retry_after_cap, divisor),
            jitter_cap: part(self.jitter_cap, divisor),
            reset_after: part(self.reset_after, divisor),
        }
    }

    fn delay_ms(&self, context: &RetryContext, word: u32) -> u32 {
        let width = match context.cause {
            RetryCause::Fresh => {
                let again = context.overloaded.map_or(0, |_| self.overload_width(context));
                return scale(word, 0, again.min(short_millis(self.jitter_cap)).max(short_millis(self.first_jitter)));
            }
            RetryCause::RetryAfter(asked) => {
                let asked =
                    short_millis(asked).min(short_millis(self.retry_after_cap)).max(short_millis(self.min_delay));
                let age = short_millis(context.overloaded.unwrap_or_default());
                let spread = (asked.max(age) >> 1).max(short_millis(self.first_jitter));
                return asked.saturating_add(scale(word, 0, spread));
            }
            RetryCause::Refused => {
                let doublings = u32::from(context.refusals.saturating_sub(1)).min(16);
                short_millis(self.refused_first).saturating_mul(1 << doublings).min(short_millis(self.refused_cap))
            }
            RetryCause::FirstOverload => {
                return scale(word, 0, short_millis(context.spread.unwrap_or(self.overload_jitter)));
            }
            RetryCause::Overload => self.overload_width(context),
            RetryCause::Silence => {
                let cap = context.spread.unwrap_or_default().max(self.unreachable_cap);
                self.overload_width(context).min(short_millis(cap))
            }
            RetryCause::TakenOver => {
                let age = short_millis(context.overloaded.unwrap_or_default());
                age.max(short_millis(self.refused_first).saturating_mul(4)).min(short_millis(self.refused_cap))
            }
            RetryCause::Unreachable => (short_millis(context.away) >> 2)
                .min(short_millis(self.unreachable_cap))
                .max(short_millis(self.min_delay)),
        };
        scale(word, width >> 1, width)
    }

    fn overload_width(&self, context: &RetryContext) -> u32 {
        let age = short_millis(context.overloaded.unwrap_or_default());
        let least = context.spread.map_or(short_millis(self.overload_jitter), |spread| short_millis(spread) >> 2);
        (age >> 1).min(short_millis(self.overload_cap)).max(least)
    }
}

impl Policy for RetryPolicy {
    fn delay(&self, context: &RetryContext, word: u32) -> Duration {
        span(u64::from(self.delay_ms(context, word)))
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self::DEFAULT
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::{Failure, ProvisioningFailure};
    use crate::retry::BackoffSnapshot;
    use crate::time::{Instant, millis};

    const POLICY: RetryPolicy = RetryPolicy::DEFAULT;

    fn range(backoff: Backoff, failure: Failure, flapped: bool, at_secs: u64) -> (u64, u64) {
        let now = Instant::from_millis(at_secs * 1000);
        let (mut low, mut high) = (backoff, backoff);
        let delay = |backoff: &mut Backoff, word| millis(backoff.failed(failure, flapped, &POLICY, word, now));
        (delay(&mut low, 0), delay(&mut high, u32::MAX))
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
    fn a_cap_on_overload_binds_all_but_the_hint() {
        let capped = RetryPolicy::EDGE;
        let hour = |spread| RetryContext {
            cause: RetryCause::Overload,
            away: Duration::from_secs(3_600),
            overloaded: Some(Duration::from_secs(3_600)),
            refusals: 0,
            spread,
        };
        assert_eq!(capped.delay(&hour(None), u32::MAX), Duration::from_secs(20));
        assert_eq!(capped.delay(&hour(None), 0), Duration::from_secs(10));
        assert_eq!(capped.delay(&hour(Some(Duration::from_secs(400))), u32::MAX), Duration::from_secs(100));
    }

    #[test]
    fn silence_is_suspected_overload_only_after_a_close_or_with_a_hint() {
        let lost_on_the_way = Backoff::new(Instant::ORIGIN);
        assert_eq!(range(lost_on_the_way, Failure::ConnectTimeout, false, 40), (5_000, 10_000));
        let mut closed = lost_on_the_way;
        closed.lose(Failure::Lost, Instant::ORIGIN);
        assert_eq!(range(closed, Failure::ConnectTimeout, false, 40), (0, 60_000));
        closed.failed(Failure::TlsTimeout, false, &POLICY, 0, Instant::from_millis(40_000));
        assert_eq!(range(closed, Failure::ConnectTimeout, false, 9_999), (60_000, 120_000));
        assert!(!closed.is_overloaded());
        assert_eq!(range(closed, Failure::Unresolved, false, 40), (5_000, 10_000));
        let mut hinted = lost_on_the_way;
        hinted.set_spread(Duration::from_secs(1_100), &POLICY);
        assert_eq!(range(hinted, Failure::ConnectTimeout, false, 40), (0, 1_100_000));
    }

    #[test]
    fn a_hint_widens_the_spread_within_its_cap() {
        let mut backoff = Backoff::new(Instant::ORIGIN);
        backoff.set_spread(Duration::from_secs(1_100), &POLICY);
        assert_eq!(range(backoff, Failure::Lost, false, 10), (0, 1_100_000));
        backoff.failed(Failure::Lost, false, &POLICY, 0, Instant::from_millis(10_000));
        assert_eq!(range(backoff, Failure::Lost, false, 20), (137_500, 275_000));
        backoff.reset(Instant::ORIGIN);
        assert_eq!(backoff.spread(), Some(Duration::from_secs(1_100)));
        backoff.set_spread(Duration::MAX, &POLICY);
        assert_eq!(backoff.spread(), Some(POLICY.jitter_cap));
        backoff.set_spread(Duration::ZERO, &POLICY);
        assert_eq!(backoff.spread(), None);
    }

    #[test]
    fn the_wait_for_a_connack_is_longer_after_the_service_closed() {
        let mut backoff = Backoff::new(Instant::ORIGIN);
        backoff.lose(Failure::Lost, Instant::ORIGIN);
        assert_eq!(backoff.connack_timeout(Duration::from_secs(60), Duration::from_secs(240)), 120_000);
    }

    #[test]
    fn a_reboot_goes_on_where_the_back_off_was() {
        let memory = BackoffSnapshot {
            saved_unix_secs: 0,
            away_secs: 7_300,
            overloaded_secs: Some(7_200),
            spread_secs: 0,
            refusals: 0,
            failed_registrations: 0,
        };
        let mut backoff = Backoff::new(Instant::ORIGIN);
        backoff.recall(&memory, 0, Instant::ORIGIN);
        assert!(backoff.is_recalled() && backoff.is_overloaded());
        assert_eq!(POLICY.delay(&backoff.fresh(Instant::ORIGIN), u32::MAX), Duration::from_secs(3_600));
        assert_eq!(POLICY.delay(&backoff.fresh(Instant::ORIGIN), 0), Duration::ZERO);
        assert_eq!(range(backoff, Failure::Lost, false, 0), (1_800_000, 3_600_000));
        backoff.reset(Instant::ORIGIN);
        assert_eq!(range(backoff, Failure::Lost, false, 10), (0, 60_000));
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
        assert_eq!(range(backoff, asked(0), false, 0), (1_000, 4_000));
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
