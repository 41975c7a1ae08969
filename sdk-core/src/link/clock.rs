//! The wall clock, and the service's clock from its answers.

use crate::time::Instant;

/// The wall clock, and the service's clock from its answers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct WallClock {
    pub(super) own: Option<(u64, Instant)>,
    pub(super) service: Option<Told>,
}

/// The service's clock in an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub(super) unix_secs: u64,
    pub(super) at: Instant,
    /// Whether the clock may be later than that.
    pub(super) exact: bool,
}

/// IoT Hub refuses tokens if the clocks differ by more (azure-docs `iot-hub/troubleshoot-error-codes.md`, 401003).
pub(super) const SKEW_SECS: u64 = 300;

/// No device runs before 2025-01-01 00:00 UTC: a clock before that is not set.
pub(super) const CLOCK_SET_SECS: u64 = 1_735_689_600;

impl WallClock {
    /// Seconds since 1970, by the service's clock if the two are known to differ.
    pub(super) fn unix_secs(&self, now: Instant) -> Option<u64> {
        self.chosen(now).map(|(secs, at)| secs.saturating_add(now.secs_since(at)))
    }

    /// Milliseconds since 1970, by the same clock, which was set to whole seconds.
    pub(super) fn unix_millis(&self, now: Instant) -> Option<u64> {
        self.chosen(now).map(|(secs, at)| secs.saturating_mul(1000).saturating_add(now.millis_since(at)))
    }

    pub(super) fn chosen(&self, now: Instant) -> Option<(u64, Instant)> {
        let run = |(secs, at): (u64, Instant)| secs.saturating_add(now.secs_since(at));
        let told = self.service.map(|told| (told.unix_secs, told.at));
        let exact = self.service.is_some_and(|told| told.exact);
        let (own, service) = (self.own.map(run), told.map(run));
        let own_counts = match (own, service) {
            (Some(own), Some(service)) => own.abs_diff(service) <= SKEW_SECS || (own > service && !exact),
            (_, None) => true,
            (None, Some(_)) => false,
        };
        if own_counts { self.own } else { told }
    }

    /// Service's time minus the device's, if it is known and large.
    pub(super) fn skew(&self, now: Instant) -> Option<i64> {
        let (secs, at) = self.own?;
        let own = secs.saturating_add(now.secs_since(at));
        let service = self.unix_secs(now).filter(|service| *service != own)?;
        Some(i64::try_from(service).unwrap_or(i64::MAX).saturating_sub(i64::try_from(own).unwrap_or(i64::MAX)))
    }
}
