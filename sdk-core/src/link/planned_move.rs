//! Fleet behaviour of a link: jitter windows, planned moves, and the back-off snapshot.

use core::time::Duration;

use super::state::Phase;
use super::{Link, Profile};
use crate::io::ServiceKind;
use crate::outbox::Outbox;
use crate::retry::BackoffSnapshot;
use crate::time::{Instant, short_millis, span};
use crate::timer::TimerReason;

impl<O: Outbox, P: Profile> Link<O, P> {
    /// Sets the operator's jitter window for an overloaded service; zero for none.
    ///
    /// The right value is 1.1 times the number of devices divided by the admissions per second of the service. At most
    /// [`crate::RetryPolicy::jitter_cap`] counts.
    pub fn set_spread(&mut self, spread: Duration, now: Instant) {
        self.tick(now);
        let before = self.hub_backoff.spread();
        self.hub_backoff.set_spread(spread, &self.profile.session().retry);
        self.pending.remember |= before != self.hub_backoff.spread();
    }

    /// Plans a move before the service shuts down: the fleet disconnects and reconnects within `spread`.
    ///
    /// The link draws a random moment. Until then it stays up, then it drains, sends DISCONNECT and reconnects; if the
    /// service closes earlier, the attempt still waits for that moment. With [`ServiceKind::Provisioning`] it first
    /// asks the Device Provisioning Service for its hub. `spread` is limited to the range from
    /// [`crate::RetryPolicy::first_jitter`] to [`crate::RetryPolicy::jitter_cap`]. Without effect while the link is
    /// stopped; a running attempt continues, but a later one registers.
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

    /// Draws a delay for requests after a connection, such as for the twin or a burst of reported properties.
    ///
    /// After overload it is up to half of [`crate::RetryPolicy::overload_jitter`], else up to
    /// [`crate::RetryPolicy::first_jitter`]: a fleet that reconnects at the limit of connections may still exceed the
    /// limit of twin reads.
    pub fn follow_up_delay(&mut self) -> Duration {
        let policy = &self.profile.session().retry;
        let overloaded = self.hub_backoff.is_overloaded();
        let spread =
            if overloaded { short_millis(policy.overload_jitter) >> 1 } else { short_millis(policy.first_jitter) };
        span(u64::from(self.rng.between(0, spread)))
    }

    /// Returns the back-off state to store for a reboot; see [`BackoffSnapshot`].
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

    /// Restores the back-off state from before a reboot. Call it before the first [`Link::start`], and after
    /// [`Link::set_wall_clock`] if the clock is already set.
    ///
    /// If the clocks show that the device was off for longer than the outage had lasted, and for more than a minute,
    /// only the hint is restored: the outage may be over. Otherwise the back-off continues, and the first attempt has
    /// the delay after overload, at most [`crate::RetryPolicy::jitter_cap`].
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
