//! What the services of a hub need of the link they run over.

use core::time::Duration;

use super::{Home, Link};
use crate::config::Settings;
use crate::failure::Failure;
use crate::outbox::Outbox;
use crate::time::{Instant, millis};

/// First wait after a service asked for patience; it doubles with each time in a row.
const PATIENCE_MS: u64 = 2_000;

/// Longest such wait.
const PATIENCE_LONGEST_MS: u64 = 600_000;

impl<O: Outbox, S: Settings, H: Home> Link<O, S, H> {
    pub(crate) const fn now(&self) -> Instant {
        self.now
    }

    pub(crate) fn is_broker(&self) -> bool {
        self.account.is_broker()
    }

    pub(crate) fn device_id(&self) -> &str {
        self.account.device_id()
    }

    pub(crate) fn module_id(&self) -> Option<&str> {
        self.account.module_id()
    }

    /// Ends a connection that is of no use although it stands.
    pub(crate) fn break_off(&mut self, failure: Failure) {
        self.attempt_failed(failure);
    }

    /// Draws how long to wait with a request after the service refused `refusals` in a row for lack of capacity: from
    /// half to all of a time that doubles, and never less than a fleet's follow-up is spread over.
    pub(crate) fn patience_delay(&mut self, refusals: u8) -> Duration {
        let doublings = u32::from(refusals.saturating_sub(1)).min(16);
        let longest = PATIENCE_MS.saturating_mul(1 << doublings).min(PATIENCE_LONGEST_MS);
        let drawn = self.rng.between(longest >> 1, longest);
        let follow_up = millis(self.follow_up_delay());
        Duration::from_millis(drawn.saturating_add(follow_up))
    }
}
