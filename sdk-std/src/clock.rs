//! The clocks: a monotonic one that counts the time asleep, and the wall clock.

use std::time::{SystemTime, UNIX_EPOCH};

use steadfast_core::Instant;

/// Returns the time since the system's start, the time suspended included.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn now() -> Instant {
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
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
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
