//! What a link does as one of many: hints, planned moves, and what it remembers across a reboot.

use core::time::Duration;

use super::state::Phase;
use super::{Link, Profile};
use crate::io::ServiceKind;
use crate::outbox::Outbox;
use crate::retry::BackoffSnapshot;
use crate::time::{Instant, short_millis, span};
use crate::timer::TimerReason;

impl<O: Outbox, P: Profile> Link<O, P> {
    /// Takes the operator's hint: over how long the fleet should spread when the service is overloaded; zero for none.
    ///
    /// The right value is 1.1 times the number of devices divided by the admissions per second of the service. At most
    /// [`crate::RetryPolicy::jitter_cap`] counts.
    pub fn set_spread(&mut self, spread: Duration, now: Instant) {
        self.tick(now);
        let before = self.hub_backoff.spread();
        self.hub_backoff.set_spread(spread, &self.profile.session().retry);
        self.pending.remember |= before != self.hub_backoff.spread();
    }

    /// Orders a planned move: the service is about to go, and the fleet is to leave and come back spread over `spread`.
    ///
    /// The link draws its moment. Until then it stays up, then it drains, leaves in order and comes back; when the
    /// service closes earlier, the attempt waits for that moment all the same. With [`ServiceKind::Provisioning`] it asks the
    /// Device Provisioning Service for its hub on the way. At least [`crate::RetryPolicy::first_jitter`] and at most
    /// [`crate::RetryPolicy::jitter_cap`] counts. Without effect while the link is stopped, and on a running attempt but
    /// for the way.
    pub fn move_within(&mut self, spread: Duration, by: ServiceKind, now: Instant) {
        let now = self.tick(now);
        let moving = matches!(self.phase, Phase::Up | Phase::Waiting);
        if moving {
            let policy = &self.profile.session().retry;
            let spread = short_millis(spread.min(policy.jitter_cap).max(policy.first_jitter));
            let at = now.after_millis(self.rng.between(0, spread));
            let up = self.phase == Phase::Up;
            self.timers.set(if up { TimerReason::PlannedMove } else { TimerReason::Retry }, at);
        }
        let trying =
            matches!(self.phase, Phase::Signing | Phase::Connecting | Phase::AwaitingConnack | Phase::Subscribing);
        if (moving || trying) && by == ServiceKind::Provisioning && self.visits() {
            self.ladder.wanted = true;
        }
    }

    /// Draws how long to wait with what follows a connection, such as a request for the twin or a burst of reported
    /// properties.
    ///
    /// After overload it is up to half of [`crate::RetryPolicy::overload_jitter`], else up to
    /// [`crate::RetryPolicy::first_jitter`]: a fleet that was let in at the pace of connections may still ask for more
    /// twins than the service gives.
    pub fn follow_up_delay(&mut self) -> Duration {
        let policy = &self.profile.session().retry;
        let overloaded = self.hub_backoff.is_overloaded();
        let spread =
            if overloaded { short_millis(policy.overload_jitter) >> 1 } else { short_millis(policy.first_jitter) };
        span(u64::from(self.rng.between(0, spread)))
    }

    /// Returns what is worth keeping across a reboot; see [`BackoffSnapshot`].
    #[must_use]
    #[cfg_attr(target_pointer_width = "32", inline(never))]
    pub fn backoff_snapshot(&self) -> BackoffSnapshot {
        let backoff = &self.hub_backoff;
        BackoffSnapshot {
            saved_unix_secs: self.clock.unix_secs(self.now).unwrap_or(0),
            away_secs: if self.phase == Phase::Up { 0 } else { backoff.away_secs(self.now) },
            overloaded_secs: backoff.is_overloaded().then(|| backoff.overloaded_secs(self.now)),
            spread_secs: backoff.spread().map_or(0, |spread| u32::try_from(spread.as_secs()).unwrap_or(u32::MAX)),
            refusals: backoff.refusals(),
            failed_registrations: self.ladder.failed_registrations,
        }
    }

    /// Gives the link what it remembered before a reboot: to be called before the first [`Link::start`], and after
    /// [`Link::set_wall_clock`] if the clock is set already.
    ///
    /// When the clocks tell that the device was off for longer than its trouble had lasted, and for more than a minute,
    /// only the hint counts: the trouble may well be over. Otherwise the back-off goes on where it was, and the first
    /// attempt is spread as one after overload is. It waits for [`crate::RetryPolicy::jitter_cap`] at most.
    pub fn restore_backoff(&mut self, memory: BackoffSnapshot, now: Instant) {
        let now = self.tick(now);
        if self.phase != Phase::Idle {
            return;
        }
        self.set_spread(Duration::from_secs(u64::from(memory.spread_secs)), now);
        self.pending.remember = false;
        let off = match self.clock.unix_secs(now) {
            Some(unix_secs) if memory.saved_unix_secs > 0 => {
                unix_secs.saturating_sub(memory.saved_unix_secs).min(BackoffSnapshot::LONGEST_OFF_SECS)
            }
            _ => 0,
        };
        let lasted = u64::from(memory.away_secs.max(memory.overloaded_secs.unwrap_or(0)));
        if off <= lasted.max(BackoffSnapshot::REBOOT_SECS) {
            self.hub_backoff.recall(&memory, u32::try_from(off).unwrap_or(u32::MAX), now);
            self.ladder.failed_registrations = memory.failed_registrations;
        }
    }
}
