//! The back-off state of a service.

use core::time::Duration;

use super::{Policy, RetryCause, RetryContext, RetryPolicy};
use crate::failure::{Disposition, Failure, FailureClass};
use crate::retry::BackoffSnapshot;
use crate::rng::scale;
use crate::time::{Instant, short_millis, span};

/// The back-off state of one service, for the caller's own retries; a [`Link`](crate::Link) has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Time when the service was lost, or first needed.
    lost: Instant,
    /// Time of the first overload since then, certain or suspected.
    overloaded: Option<Instant>,
    /// The overload is more than a suspicion.
    proven: bool,
    /// The service itself closed the last long-lived connection.
    closed: bool,
    /// The hint in milliseconds; 0 for none.
    spread_ms: u32,
    /// Refusals in a row.
    refusals: u8,
    /// CONNACK timeouts in a row.
    silences: u8,
    /// Seconds before `lost` that count as well, from before a reboot.
    away_before: u32,
    /// Seconds before `overloaded` that count as well.
    overloaded_before: u32,
    /// Age of the overload from which on it should be saved again, in seconds.
    worth_keeping_secs: u32,
}

impl Backoff {
    /// Starts a back-off: the service was lost, or is first needed, at `now`.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self {
            lost: now,
            overloaded: None,
            proven: false,
            closed: false,
            spread_ms: 0,
            refusals: 0,
            silences: 0,
            away_before: 0,
            overloaded_before: 0,
            worth_keeping_secs: 0,
        }
    }

    /// Returns when the service was lost.
    #[must_use]
    pub const fn lost(&self) -> Instant {
        self.lost
    }

    pub(crate) const fn refusals(&self) -> u8 {
        self.refusals
    }

    /// Returns whether the service is overloaded.
    #[must_use]
    pub const fn is_overloaded(&self) -> bool {
        self.proven
    }

    /// Sets the hint `S`, the jitter window after overload; zero for none.
    pub(crate) fn set_spread(&mut self, spread: Duration, policy: &RetryPolicy) {
        self.spread_ms = short_millis(spread.min(policy.jitter_cap));
    }

    /// Returns the hint.
    pub(crate) fn spread(&self) -> Option<Duration> {
        (self.spread_ms > 0).then(|| span(u64::from(self.spread_ms)))
    }

    /// Resets: a long-lived connection was lost at `now`.
    #[cfg_attr(target_pointer_width = "32", inline(never))]
    pub const fn reset(&mut self, now: Instant) {
        let spread_ms = self.spread_ms;
        *self = Self::new(now);
        self.spread_ms = spread_ms;
    }

    /// Continues a back-off from before a reboot, `off_secs` ago.
    pub(crate) fn recall(&mut self, memory: &BackoffSnapshot, off_secs: u32, now: Instant) {
        self.reset(now);
        self.away_before = memory.away_secs.saturating_add(off_secs);
        if let Some(secs) = memory.overloaded_secs {
            self.overloaded = Some(now);
            self.overloaded_before = secs.saturating_add(off_secs);
            self.proven = true;
        }
        self.refusals = memory.refusals;
    }

    /// Whether it continues from before a reboot.
    pub(crate) const fn is_recalled(&self) -> bool {
        self.proven || self.away_before > 0
    }

    pub(crate) fn away_secs(&self, now: Instant) -> u32 {
        self.away_before.saturating_add(u32::try_from(now.secs_since(self.lost)).unwrap_or(u32::MAX))
    }

    pub(crate) fn overloaded_secs(&self, now: Instant) -> u32 {
        let since = self.overloaded.map_or(0, |since| now.secs_since(since));
        self.overloaded_before.saturating_add(u32::try_from(since).unwrap_or(u32::MAX))
    }

    /// Returns whether the overload should be saved for a reboot, and counts it as saved then: when it is new, and each
    /// time its age has grown by a quarter, at least 30 s. The longest delay is half of its age, so the saved age
    /// distinguishes a continuing outage from one that is over.
    pub(crate) fn is_worth_keeping(&mut self, now: Instant) -> bool {
        let age = self.overloaded_secs(now);
        let worth = self.proven && age >= self.worth_keeping_secs;
        if worth {
            self.worth_keeping_secs = age.saturating_add((age >> 2).max(30));
        }
        worth
    }

    /// Resets: a long-lived connection was lost at `now` because of `failure`.
    ///
    /// If the service closed it, the whole fleet may be in its queue: the first wait for a CONNACK is longer then.
    pub(crate) fn lose(&mut self, failure: Failure, now: Instant) {
        self.reset(now);
        self.closed = failure.is_loss();
        self.silences = u8::from(self.closed);
    }

    /// The service accepted the device.
    pub(crate) const fn accepted(&mut self) {
        self.refusals = 0;
        self.silences = 0;
    }

    /// The service answered CONNECT, and may refuse the device yet.
    pub(crate) const fn answered(&mut self) {
        self.silences = 0;
    }

    /// Returns the timeout of CONNACK: doubled after each timeout, since leaving the service's queue early only fills
    /// it with stale entries.
    pub(crate) fn connack_timeout(&self, first: Duration, longest: Duration) -> u32 {
        let doublings = self.silences.min(8);
        short_millis(first).saturating_mul(1 << doublings).min(short_millis(longest))
    }

    /// Returns the delay before the first attempt after a stable connection was lost, and before the first of all;
    /// `word` is random.
    #[must_use]
    pub fn first_delay(policy: &RetryPolicy, word: u32) -> Duration {
        span(u64::from(scale(word, 0, short_millis(policy.first_jitter))))
    }

    /// Records a failed attempt and returns the delay before the next one; `word` is random.
    ///
    /// `flapped`: the attempt had succeeded, but its connection ended before [`RetryPolicy::reset_after`], which counts
    /// as overload whatever ended it.
    pub fn failed(
        &mut self,
        failure: Failure,
        flapped: bool,
        policy: &RetryPolicy,
        word: u32,
        now: Instant,
    ) -> Duration {
        policy.delay(&self.note(failure, flapped, now), word)
    }

    /// Returns the context after the loss of a long-lived connection, and before the first attempt.
    pub(crate) fn fresh(&self, now: Instant) -> RetryContext {
        self.context(RetryCause::Fresh, now)
    }

    /// Returns the context for another attempt without a new failure.
    pub(crate) fn again(&self, now: Instant) -> RetryContext {
        let cause = match (self.refusals, self.proven) {
            (0, false) => RetryCause::Unreachable,
            (0, true) => RetryCause::Overload,
            _ => RetryCause::Refused,
        };
        self.context(cause, now)
    }

    /// Records a failed attempt and returns its context.
    pub(crate) fn note(&mut self, failure: Failure, flapped: bool, now: Instant) -> RetryContext {
        if matches!(failure, Failure::ConnackTimeout) {
            self.silences = self.silences.saturating_add(1);
        }
        let class = if flapped { FailureClass::Overload } else { failure.class() };
        let cause = if let Disposition::RetryAfter(asked) = failure.disposition() {
            self.prove(now);
            RetryCause::RetryAfter(asked)
        } else if class == FailureClass::Refused {
            let rarely = failure.disposition() == Disposition::RetryRarely;
            self.refusals = if rarely { u8::MAX } else { self.refusals.saturating_add(1) };
            RetryCause::Refused
        } else if class == FailureClass::Overload {
            self.prove(now)
        } else if self.proven {
            // After overload a SYN timeout does not prove that the service is down.
            RetryCause::Overload
        } else if matches!(failure, Failure::ConnectTimeout | Failure::TlsTimeout) && self.suspects_overload() {
            self.suspect(now)
        } else {
            self.overloaded = None;
            RetryCause::Unreachable
        };
        self.context(cause, now)
    }

    /// Silence may be overload when the operator expects overload, or when the path to the service worked.
    const fn suspects_overload(&self) -> bool {
        self.closed || self.spread_ms > 0
    }

    fn suspect(&mut self, now: Instant) -> RetryCause {
        if self.overloaded.is_some() {
            return RetryCause::Silence;
        }
        self.overloaded = Some(now);
        RetryCause::FirstOverload
    }

    fn prove(&mut self, now: Instant) -> RetryCause {
        self.proven = true;
        if self.overloaded.is_some() {
            return RetryCause::Overload;
        }
        self.overloaded = Some(now);
        RetryCause::FirstOverload
    }

    fn context(&self, cause: RetryCause, now: Instant) -> RetryContext {
        RetryContext {
            cause,
            away: before_and_since(self.away_before, self.lost, now),
            overloaded: self.overloaded.map(|since| before_and_since(self.overloaded_before, since, now)),
            refusals: self.refusals,
            spread: self.spread(),
        }
    }
}

#[cfg_attr(target_pointer_width = "32", inline(never))]
fn before_and_since(before_secs: u32, since: Instant, now: Instant) -> Duration {
    now.since(since).saturating_add(Duration::from_secs(u64::from(before_secs)))
}
