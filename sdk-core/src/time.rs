//! Monotonic time as an argument: the core never reads a clock.
//!
//! 64-bit saturating arithmetic is large on 32-bit targets, so it is kept out of line here. Delays and timeouts are 32
//! bits of milliseconds, 49.7 days at most.

use core::fmt;
use core::num::NonZeroU32;
use core::time::Duration;

/// A point in monotonic time: milliseconds since an origin the frontend chooses, such as its own start.
///
/// It never goes back. A frontend that can be suspended includes the time asleep.
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
    #[cfg_attr(target_pointer_width = "32", inline(never))]
    pub const fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(millis(span)))
    }

    /// Returns the time from `earlier` to this instant, zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        span(self.millis_since(earlier))
    }

    /// Whole seconds of [`Instant::since`].
    pub(crate) fn secs_since(self, earlier: Self) -> u64 {
        div_rem(self.millis_since(earlier), 1_000).0
    }

    #[cfg_attr(target_pointer_width = "32", inline(never))]
    pub(crate) fn after_millis(self, millis: u32) -> Self {
        Self(self.0.saturating_add(u64::from(millis)))
    }

    #[cfg_attr(target_pointer_width = "32", inline(never))]
    pub(crate) const fn millis_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = div_rem(self.0, 1_000);
        write!(f, "{whole}.{rest:03} s")
    }
}

/// Whole milliseconds of `span`, without the 128-bit arithmetic of [`Duration::as_millis`].
#[cfg_attr(target_pointer_width = "32", inline(never))]
pub(crate) const fn millis(span: Duration) -> u64 {
    span.as_secs().saturating_mul(1000).saturating_add(span.subsec_millis() as u64)
}

/// Whole milliseconds of `span`, at most `u32::MAX`, which are 49.7 days.
#[cfg_attr(target_pointer_width = "32", inline(never))]
pub(crate) fn short_millis(span: Duration) -> u32 {
    let secs = u32::try_from(span.as_secs()).unwrap_or(u32::MAX);
    secs.saturating_mul(1_000).saturating_add(span.subsec_millis())
}

/// The span of so many milliseconds.
#[cfg_attr(target_pointer_width = "32", inline(never))]
pub(crate) fn span(millis: u64) -> Duration {
    let (secs, rest) = div_rem(millis, 1_000);
    // The rest is below 1,000, which the compiler does not know.
    Duration::new(secs, rest.min(999).wrapping_mul(1_000_000))
}

/// Divides by a small number and returns quotient and remainder. The 64-bit division of a 32-bit target's support
/// library would be larger.
#[cfg_attr(target_pointer_width = "32", inline(never))]
pub(crate) fn div_rem(number: u64, by: u16) -> (u64, u32) {
    let Some(by) = NonZeroU32::new(u32::from(by)) else { return (0, 0) };
    let [b0, b1, b2, b3, b4, b5, b6, b7] = number.to_be_bytes();
    let high = u32::from_be_bytes([b0, b1, b2, b3]);
    // Each remainder is below 2^16, like the divisor, so that 16 more bits fit.
    let middle = (high % by) << 16 | u32::from(u16::from_be_bytes([b4, b5]));
    let low = (middle % by) << 16 | u32::from(u16::from_be_bytes([b6, b7]));
    let quotient = u64::from(high / by) << 32 | u64::from(middle / by) << 16 | u64::from(low / by);
    (quotient, low % by)
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
        assert_eq!(short_millis(Duration::MAX), u32::MAX);
        assert_eq!(short_millis(Duration::from_micros(1_999_999)), 1_999);
    }

    #[test]
    fn small_divisors_divide_as_the_language_does() {
        for number in [0, 9, 10, 999, 65_535, 65_536, 0xffff_ffff, 0x1_0000_0000, 1_790_000_000_123, u64::MAX] {
            for by in [1, 3, 10, 1_000, u16::MAX] {
                let (quotient, rest) = div_rem(number, by);
                assert_eq!((quotient, u64::from(rest)), (number / u64::from(by), number % u64::from(by)));
            }
            assert_eq!(span(number), Duration::from_millis(number));
        }
    }
}
