//! The link's interface for the services of a hub.

use core::time::Duration;

use super::{Link, Profile};
use crate::failure::Failure;
use crate::outbox::Outbox;
use crate::time::{Instant, short_millis, span};

/// First wait after a throttled request; it doubles each time in a row.
const PATIENCE_MS: u32 = 2_000;

/// Longest such wait.
const PATIENCE_LONGEST_MS: u32 = 600_000;

/// First wait with a request that ended connections; it doubles with each time in a row.
const RARE_MS: u32 = 120_000;

/// Longest such wait.
const RARE_LONGEST_MS: u32 = 8 * 3_600_000;

impl<O: Outbox, P: Profile> Link<O, P> {
    pub(crate) const fn now(&self) -> Instant {
        self.now
    }

    /// Ends a connection that is open but unusable.
    pub(crate) fn break_off(&mut self, failure: Failure) {
        self.attempt_failed(failure);
    }

    /// Draws the delay of a request after `refusals` throttled ones in a row: from half to all of a time that doubles,
    /// and at least the follow-up delay of a fleet.
    pub(crate) fn patience_delay(&mut self, refusals: u8) -> Duration {
        let drawn = self.doubled(PATIENCE_MS, refusals.saturating_sub(1), PATIENCE_LONGEST_MS);
        let follow_up = short_millis(self.follow_up_delay());
        span(u64::from(drawn.saturating_add(follow_up)))
    }

    /// Draws how long to wait with a request that ended connections, `many` more than can be chance.
    pub(crate) fn rare_delay(&mut self, many: u8) -> Duration {
        span(u64::from(self.doubled(RARE_MS, many, RARE_LONGEST_MS)))
    }

    /// Draws from half to all of a time that doubles.
    fn doubled(&mut self, first_ms: u32, times: u8, longest_ms: u32) -> u32 {
        let span = first_ms.saturating_mul(1 << u32::from(times).min(16)).min(longest_ms);
        self.rng.between(span >> 1, span)
    }
}
