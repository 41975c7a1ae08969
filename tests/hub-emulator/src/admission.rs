//! Token bucket with a bounded first-in first-out queue, for connections and messages.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A rate with its burst and queue.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[must_use]
pub struct Rate {
    per_second: f64,
    burst: u32,
    queue: u32,
}

impl Rate {
    /// Allows `per_second` after a burst of `burst`; up to `queue` more wait, the rest are refused.
    ///
    /// A rate that is not above zero counts as one per 1,000 s; a burst of 0 counts as 1.
    pub fn new(per_second: f64, burst: u32, queue: u32) -> Self {
        Self { per_second, burst, queue }
    }

    fn spacing(self) -> Duration {
        let per_second = if self.per_second.is_finite() { self.per_second.max(0.001) } else { 0.001 };
        Duration::from_secs_f64(1.0 / per_second)
    }
}

/// The decision of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Admitted after this delay, which may be zero.
    After(Duration),
    /// The queue is full.
    Refused,
}

/// A bucket and its queue, stored as one instant: when the next token is available that is not yet assigned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    rate: Rate,
    next: Duration,
}

impl Bucket {
    pub(crate) fn new(rate: Rate) -> Self {
        Self { rate, next: Duration::ZERO }
    }

    /// Requests one token at `now`; waiting requests are served in order.
    pub(crate) fn take(&mut self, now: Duration) -> Admission {
        let spacing = self.rate.spacing();
        let credit = spacing * self.rate.burst.max(1).saturating_sub(1);
        let earliest = self.next.saturating_sub(credit);
        let wait = earliest.saturating_sub(now);
        if wait > spacing * self.rate.queue {
            return Admission::Refused;
        }
        self.next = self.next.max(now) + spacing;
        Admission::After(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_the_queue_fills_in_order_then_the_rest_is_refused() {
        let mut bucket = Bucket::new(Rate::new(10.0, 3, 2));
        let now = Duration::from_secs(5);
        let answers: Vec<_> = (0..7).map(|_| bucket.take(now)).collect();
        let wait = |ms| Admission::After(Duration::from_millis(ms));
        let refused = Admission::Refused;
        assert_eq!(answers, [wait(0), wait(0), wait(0), wait(100), wait(200), refused, refused]);
    }

    #[test]
    fn tokens_come_back_with_time_up_to_the_burst() {
        let mut bucket = Bucket::new(Rate::new(10.0, 2, 0));
        let at = |ms| Duration::from_millis(ms);
        assert_eq!(bucket.take(at(0)), Admission::After(at(0)));
        assert_eq!(bucket.take(at(0)), Admission::After(at(0)));
        assert_eq!(bucket.take(at(0)), Admission::Refused);
        assert_eq!(bucket.take(at(100)), Admission::After(at(0)));
        let passed = (0..5).filter(|_| bucket.take(at(10_000)) != Admission::Refused).count();
        assert_eq!(passed, 2);
    }
}
