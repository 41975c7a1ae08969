//! Monotonic time as an argument: the core never reads a clock.
//!
//! Saturating arithmetic of 64 bits is long on a 32-bit processor, so that it stands there once and is called.

use core::fmt;
use core::time::Duration;

/// A point in monotonic time: milliseconds since an origin the frontend chooses, such as its own start.
///
/// It never goes back. A frontend that can be suspended counts the time asleep too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The frontend's origin.
    pub const ORIGIN: Self = Self(0);

    /// Makes the instant `millis` milliseconds after the origin.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Returns the milliseconds since the origin.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Returns this instant and `span` after it, or the last instant there is.
    #[must_use]
    pub const fn after(self, span: Duration) -> Self {
        self.after_millis(millis(span))
    }

    /// Returns the time from `earlier` to this instant, zero when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.millis_since(earlier))
    }

    #[cfg_attr(target_pointer_width = "32", inline(never))]
    pub(crate) const fn after_millis(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    #[cfg_attr(target_pointer_width = "32", inline(never))]
    pub(crate) const fn millis_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.0.checked_div(1000).unwrap_or(0);
        let rest = self.0.checked_rem(1000).unwrap_or(0);
        write!(f, "{whole}.{rest:03} s")
    }
}

/// Whole milliseconds of `span`, without the 128-bit arithmetic of [`Duration::as_millis`].
#[cfg_attr(target_pointer_width = "32", inline(never))]
pub(crate) const fn millis(span: Duration) -> u64 {
    span.as_secs().saturating_mul(1000).saturating_add(span.subsec_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_saturate_instead_of_wrapping() {
        let late = Instant::from_millis(u64::MAX - 1);
        assert_eq!(late.after(Duration::from_secs(5)), Instant::from_millis(u64::MAX));
        assert_eq!(Instant::ORIGIN.since(late), Duration::ZERO);
        assert_eq!(millis(Duration::MAX), u64::MAX);
    }
}
