//! The clocks: a monotonic one that counts the time asleep, and the wall clock.

use std::time::{SystemTime, UNIX_EPOCH};

use steadfast_core::Instant;

#[cfg(feature = "_virtual-time")]
pub use followed::follow_tokio_clock;
#[cfg(feature = "_virtual-time")]
pub(crate) use followed::is_followed;

/// Returns the time since the system's start, the time suspended included.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn now() -> Instant {
    #[cfg(feature = "_virtual-time")]
    if let Some(now) = followed::now() {
        return now;
    }
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let whole = u64::try_from(time.tv_sec).unwrap_or(0).saturating_mul(1000);
    let millis = u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000;
    Instant::from_millis(whole.saturating_add(millis))
}

/// Returns the time since the first call.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn now() -> Instant {
    static ORIGIN: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    Instant::ORIGIN.after(ORIGIN.get_or_init(std::time::Instant::now).elapsed())
}

/// Returns the seconds since 1970-01-01 00:00 UTC, right or wrong, and 0 for a clock before that.
pub(crate) fn unix_secs() -> u64 {
    #[cfg(feature = "_virtual-time")]
    if let Some(unix_secs) = followed::unix_secs() {
        return unix_secs;
    }
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Both clocks on the clock of tokio, which a test can pause.
#[cfg(feature = "_virtual-time")]
mod followed {
    use std::cell::Cell;

    use steadfast_core::Instant;

    thread_local! {
        /// The zero of the monotonic clock, and the wall clock at that time.
        static ORIGIN: Cell<Option<(tokio::time::Instant, u64)>> = const { Cell::new(None) };
    }

    /// Makes the devices of this thread use tokio's clock: `origin` is the zero of their monotonic clock, and
    /// `unix_secs` the wall clock at that time, in seconds since 1970-01-01 00:00 UTC.
    ///
    /// For tests on a current-thread runtime whose clock is paused.
    pub fn follow_tokio_clock(origin: tokio::time::Instant, unix_secs: u64) {
        ORIGIN.set(Some((origin, unix_secs)));
    }

    pub(crate) fn is_followed() -> bool {
        ORIGIN.get().is_some()
    }

    pub(super) fn now() -> Option<Instant> {
        ORIGIN.get().map(|(origin, _)| Instant::ORIGIN.after(origin.elapsed()))
    }

    pub(super) fn unix_secs() -> Option<u64> {
        ORIGIN.get().map(|(origin, unix_secs)| unix_secs + origin.elapsed().as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn time_goes_on_and_never_back() {
        let before = now();
        std::thread::sleep(Duration::from_millis(20));
        let passed = now().since(before);
        assert!(passed >= Duration::from_millis(19), "{passed:?}");
        assert!(unix_secs() > 1_735_689_600);
    }
}
